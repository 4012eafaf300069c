//! The numbers of a hub, for `/stats` and `/metrics`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::counters::Histogram;
use super::lane::{Lag, Lane};
use super::{CloseReason, Extent};
use crate::wire::{Pattern, Patterns};

/// The numbers of a hub at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The time since the hub was created.
    pub uptime: Duration,
    /// Connected clients, including polls that wait.
    pub clients: usize,
    /// The limit of clients, `Config::max_clients`.
    pub limit: usize,
    /// Streams that have begun since the hub was created. Polls are not counted.
    pub streams: u64,
    /// How many clients were refused because the limit was reached.
    pub refused: u64,
    /// Events that were published since the hub was created, including those for one client. Events read from a log are not
    /// counted.
    pub events: u64,
    /// Events that were delivered, counted once per client, including replays and the answers of polls.
    pub deliveries: u64,
    /// Bytes that were written to streams, including heads and heartbeats.
    pub bytes: u64,
    /// The backlogs of all clients together, in bytes.
    pub lag: u64,
    /// How long publishing took, including the wait for room in the inbox and for the log.
    pub publishing: Histogram,
    /// The size of the history.
    pub history: Extent,
    /// Each close reason, and how many streams ended with it.
    pub close_reasons: Vec<(CloseReason, u64)>,
}

/// The numbers of one client at about this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The client id.
    pub id: String,
    /// The other end of the connection: the client or a proxy. `None` without a connection.
    pub peer: Option<SocketAddr>,
    /// The client's own address: the address of the peer, or the address that a trusted proxy reports.
    pub address: Option<IpAddr>,
    /// The patterns that it subscribes to.
    pub patterns: Patterns,
    /// The time since it was registered.
    pub age: Duration,
    /// Events that were written to it completely.
    pub sent_events: u64,
    /// Bytes that were written to it, including the head and heartbeats.
    pub sent_bytes: u64,
    /// Events in its queue.
    pub lag_events: u64,
    /// Bytes in its queue. A client with more than `Config::queue_bytes` is disconnected.
    pub lag_bytes: u64,
    /// Events in the history that its replay has not reached yet, of all topics. 0 once the replay is complete.
    pub replaying: u64,
}

impl Client {
    /// Reads the numbers of a lane, without a lock.
    pub(super) fn of(lane: &Lane, lag: Lag, now_ms: u64) -> Client {
        let sent = lane.sent();
        Client {
            id: lane.client_id.to_string(),
            peer: lane.peer,
            address: lane.address(),
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

/// Returns the `most` patterns with the most clients, and the number of the other patterns. The input is the patterns of
/// each audience and the number of its clients.
///
/// The patterns of an audience are sorted. So the lists of all audiences are merged (a k-way merge with a heap), and each
/// pattern appears once, together with all audiences that have it. LIMIT: of memory: one position per list, and
/// `most` patterns, whatever number of patterns there is.
pub(super) fn busiest(
    audiences: &[(Patterns, usize)],
    most: usize,
) -> (Vec<(String, usize)>, usize) {
    let mut lists: Vec<_> = audiences.iter().map(|(all, _)| all.iter()).collect();
    let firsts = lists.iter_mut().enumerate();
    // The next pattern of each list; the smallest is on top.
    let mut next: BinaryHeap<Reverse<(&Pattern, usize)>> = firsts
        .filter_map(|(list, patterns)| Some(Reverse((patterns.next()?, list))))
        .collect();
    // The busiest patterns so far; the least busy one is on top, and of two equally busy ones the later one.
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
