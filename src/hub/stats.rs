//! What a hub counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::counters::Histogram;
use super::lane::{Lag, Lane};
use super::{CloseReason, Extent};
use crate::wire::{Pattern, Patterns};

/// The numbers of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How long the hub has been there.
    pub uptime: Duration,
    /// Clients now, polls that wait among them.
    pub clients: usize,
    /// Clients at the most.
    pub limit: usize,
    /// Streams that have begun since the hub was created. Polls are not counted.
    pub streams: u64,
    /// How often one was turned away because there were as many as are allowed.
    pub refused: u64,
    /// Events ever, those for one client among them. Not those of another life, out of a log.
    pub events: u64,
    /// Events that were written to a client, once for each client, replays and what
    /// polls were answered among them.
    pub deliveries: u64,
    /// Bytes that were written to clients, the heads of their streams and heartbeats among them.
    pub bytes: u64,
    /// Bytes that wait for clients now.
    pub lag: u64,
    /// How long publishers waited for their answer from the hub, and for the log behind it.
    pub publishing: Histogram,
    /// What is retained of the events.
    pub history: Extent,
    /// How streams ended, and how often.
    pub close_reasons: Vec<(CloseReason, u64)>,
}

/// One client, as it is at about this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The name under which the hub knows it.
    pub id: String,
    /// The other end of its connection, if it has one.
    pub peer: Option<SocketAddr>,
    /// Its own address: of that end, unless it is a proxy that is trusted.
    pub address: Option<IpAddr>,
    /// What it asked for.
    pub patterns: Patterns,
    /// How long it has been there.
    pub age: Duration,
    /// Events that were written to it.
    pub sent_events: u64,
    /// Bytes that were written to it, the head of its stream and heartbeats among them.
    pub sent_bytes: u64,
    /// Events that wait for it in its queue.
    pub lag_events: u64,
    /// Bytes that wait for it in its queue: with more than `Config::queue_bytes` it is let go.
    pub lag_bytes: u64,
    /// Events of the history that its replay has not been through yet, whether they are for it or
    /// not. 0 once it is live.
    pub replaying: u64,
}

impl Client {
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

/// The patterns that the most clients asked for, and how many others there are, out of the patterns of
/// each audience and the number of its clients.
///
/// The patterns of an audience are in order, so those of all audiences are merged, and each comes up once
/// with all its audiences. LIMIT: memory: a place in each list, and `most` patterns.
pub(super) fn busiest(
    audiences: &[(Patterns, usize)],
    most: usize,
) -> (Vec<(String, usize)>, usize) {
    let mut lists: Vec<_> = audiences.iter().map(|(all, _)| all.iter()).collect();
    let firsts = lists.iter_mut().enumerate();
    // The next pattern of each list, the least on top.
    let mut next: BinaryHeap<Reverse<(&Pattern, usize)>> = firsts
        .filter_map(|(list, patterns)| Some(Reverse((patterns.next()?, list))))
        .collect();
    // The busiest so far, the least busy on top; of two alike that one which comes later.
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
