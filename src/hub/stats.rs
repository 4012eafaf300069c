//! The statistics of a hub, as `/stats` and `/metrics` show them.
//!
//! The structs are filled in `mod.rs` (`Hub::stats`, `Hub::client_stats`), from numbers
//! that are counted under the hub's lock (`state.rs`), without it (`counters.rs`) and in
//! each lane (`lane.rs`). [`busiest`] counts the clients of each pattern, for `/stats`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::counters::Histogram;
use super::lane::{Lag, Lane};
use super::{CloseReason, Extent};
use crate::wire::{Pattern, Patterns};

/// The statistics of a hub. Counts begin when the hub is created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The time since the hub was created.
    pub uptime: Duration,
    /// Clients now: streams and waiting polls.
    pub clients: usize,
    /// The limit of `clients`: `Config::max_clients`.
    pub limit: usize,
    /// Streams that were registered. Polls are not counted.
    pub streams: u64,
    /// Clients that were refused because there were `limit` clients already.
    pub refused: u64,
    /// Events that were published, including those for one client. Events that the log
    /// has kept from before are not counted.
    pub events: u64,
    /// Events that were written, each once for each client that got it, including replays
    /// and the answers of polls.
    pub deliveries: u64,
    /// Bytes that were written to streams, including the heads of the responses and
    /// heartbeats.
    pub bytes: u64,
    /// The backlogs of all clients now, in bytes.
    pub lag: u64,
    /// How long publishing took, including the wait for room in the inbox and for the
    /// log.
    pub publishing: Histogram,
    /// The extent of the history.
    pub history: Extent,
    /// How many streams ended for each reason.
    pub close_reasons: Vec<(CloseReason, u64)>,
}

/// The statistics of one client. The numbers may belong to slightly different moments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The client id.
    pub id: String,
    /// The other end of the client's connection. `None`: the stream is not written to a
    /// socket.
    pub peer: Option<SocketAddr>,
    /// The client's own address: that of `peer`, unless `peer` is a trusted proxy.
    pub address: Option<IpAddr>,
    /// The user of the client, if its credential names one.
    pub user: Option<Arc<str>>,
    /// The patterns that the client asked for.
    pub patterns: Patterns,
    /// The time since the client was registered.
    pub age: Duration,
    /// Events that were written to the client.
    pub sent_events: u64,
    /// Bytes that were written to the client, including the head of the response and
    /// heartbeats.
    pub sent_bytes: u64,
    /// Events in the client's queue.
    pub lag_events: u64,
    /// The client's backlog in bytes. A client with more than `Config::queue_bytes` is
    /// disconnected.
    pub lag_bytes: u64,
    /// Events of the history that the client's replay has not reached yet, whether they
    /// match its patterns or not. 0 once the replay has ended.
    pub replaying: u64,
}

impl Client {
    pub(super) fn of(lane: &Lane, lag: Lag, now_ms: u64) -> Client {
        let sent = lane.sent();
        Client {
            id: lane.client_id.to_string(),
            peer: lane.peer,
            address: lane.address(),
            user: lane.user().cloned(),
            patterns: lane.patterns.clone(),
            age: Duration::from_millis(now_ms.saturating_sub(lane.joined_at)),
            sent_events: sent.events,
            sent_bytes: sent.bytes,
            lag_events: lag.events,
            lag_bytes: lag.bytes,
            replaying: lag.replaying,
        }
    }
}

/// Finds the patterns that most clients have. `audiences` has the patterns of each
/// audience and the number of its clients. Returns at most `most` patterns, each with the
/// number of its clients, the greatest number first; and the number of the other
/// patterns.
///
/// The patterns of each audience are sorted. So this is a merge of sorted lists: the
/// least pattern of all lists comes next, and all audiences that have it are counted
/// together. For example, `{a, c}` with 3 clients and `{a, b}` with 2 clients give `a`
/// with 5, then `b` with 2, then `c` with 3.
///
/// LIMIT: memory: one iterator for each audience, and `most` patterns. A table of all
/// patterns could have hundreds of thousands of entries.
pub(super) fn busiest(
    audiences: &[(Patterns, usize)],
    most: usize,
) -> (Vec<(String, usize)>, usize) {
    let mut lists: Vec<_> = audiences.iter().map(|(all, _)| all.iter()).collect();
    let firsts = lists.iter_mut().enumerate();
    // The next pattern of each list, with the index of the list. The least pattern is on
    // top.
    let mut next: BinaryHeap<Reverse<(&Pattern, usize)>> = firsts
        .filter_map(|(list, patterns)| Some(Reverse((patterns.next()?, list))))
        .collect();
    // The patterns with the most clients so far. The one with the fewest is on top, to be
    // dropped first; of two with equal numbers, the later one.
    let mut found: BinaryHeap<Reverse<(usize, Reverse<&Pattern>)>> = BinaryHeap::new();
    let mut count = 0;
    while let Some(&Reverse((pattern, _))) = next.peek() {
        let mut clients = 0;
        while let Some(mut top) = next.peek_mut()
            && top.0.0 == pattern
        {
            let list = top.0.1;
            clients += audiences[list].1;
            match lists[list].next() {
                Some(pattern) => top.0.0 = pattern,
                None => drop(PeekMut::pop(top)),
            }
        }
        count += 1;
        found.push(Reverse((clients, Reverse(pattern))));
        if found.len() > most {
            found.pop();
        }
    }
    let left_out = count - found.len();
    let busiest = found.into_sorted_vec().into_iter();
    let busiest =
        busiest.map(|Reverse((clients, Reverse(pattern)))| (pattern.to_string(), clients));
    (busiest.collect(), left_out)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::chance::{Random, cases};

    #[test]
    fn the_busiest_patterns_are_those_that_counting_all_of_them_finds() {
        let texts = ["a", "b", "c", "d", "e/1", "e/2", "b*", "e/*", "*"];
        let audience = |random: &mut Random| -> (Patterns, usize) {
            let count = random.below(6);
            let patterns =
                (0..count).map(|_| Pattern::new(random.pick(&texts)).expect("a pattern"));
            (patterns.collect(), 1 + random.below(4))
        };
        let audiences = |random: &mut Random| -> Vec<_> {
            let count = random.below(12);
            (0..count).map(|_| audience(random)).collect()
        };
        cases(10, audiences, |audiences, _| {
            let mut counts: BTreeMap<&Pattern, usize> = BTreeMap::new();
            for (patterns, clients) in audiences {
                for pattern in patterns.iter() {
                    *counts.entry(pattern).or_default() += clients;
                }
            }
            let mut all: Vec<_> = counts.into_iter().collect();
            all.sort_by_key(|(_, clients)| Reverse(*clients));
            for most in [0, 1, 3, 100] {
                let (busiest, left_out) = busiest(audiences, most);
                let expected = all.iter().take(most);
                let expected: Vec<_> = expected.map(|(p, n)| (p.to_string(), *n)).collect();
                assert_eq!(busiest, expected, "{most} of {all:?}");
                assert_eq!(busiest.len() + left_out, all.len());
            }
        });
    }
}
