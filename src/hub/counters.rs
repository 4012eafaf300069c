//! Numbers that are counted without the hub's lock: what was written to clients, and how
//! long publishers waited.
//!
//! The fan-out thread and the threads of the streams add to them at every write, so they
//! are atomic. What is counted only under the lock is in `state.rs`
//! ([`Totals`](super::state::Totals)). `/stats` and `/metrics` read both.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::config::LATENCY_BOUNDS;

/// Events and bytes that were written to one client or to several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Events whose last byte was written.
    pub(super) events: u64,
    /// All bytes that were written: events, welcomes, heartbeats, the heads of responses
    /// and the framing.
    pub(super) bytes: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Sent) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// Sums over all clients since the hub was created, including clients that have left.
///
/// ORDER: all accesses are Relaxed: each number is independent, and no other memory
/// depends on it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Written by the thread that wrote the events; a poll's events count when its answer
    /// is made.
    events: AtomicU64,
    bytes: AtomicU64,
    /// How long successful calls of `Hub::publish_all` took. Written by the publishers'
    /// threads.
    pub(super) publishing: Latency,
}

impl Counters {
    /// Adds what was written. The fan-out calls it once for each audience, not for each
    /// client.
    pub(super) fn add(&self, sent: Sent) {
        self.events.fetch_add(sent.events, Ordering::Relaxed);
        self.bytes.fetch_add(sent.bytes, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> Sent {
        Sent {
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A histogram of times. LIMIT: one number for each of the [`LATENCY_BOUNDS`], and one
/// for longer times.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// The number of times in each interval: `counts[i]` is for times up to
    /// `LATENCY_BOUNDS[i]` that are longer than the bound before; the last one is for
    /// times longer than all bounds.
    counts: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    /// The sum of all times in nanoseconds. It is enough for 584 years.
    sum_ns: AtomicU64,
}

impl Latency {
    /// Counts one time. Three steps without a lock, so a reader may see the count without
    /// the sum.
    pub(super) fn note(&self, time: Duration) {
        let index = LATENCY_BOUNDS.partition_point(|bound| *bound < time);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum_ns
            .fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The numbers of about this moment.
    pub(super) fn snapshot(&self) -> Histogram {
        let counts = self
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        Histogram {
            counts: LATENCY_BOUNDS.into_iter().zip(counts).collect(),
            count: counts.iter().sum(),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

/// How often something took how long, at the moment of [`Hub::stats`](crate::Hub::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper bounds, ascending. Each has the number of times that were at most this
    /// long and longer than the bound before it.
    pub counts: Vec<(Duration, u64)>,
    /// The number of all times, including those longer than the last bound.
    pub count: u64,
    /// The sum of all times.
    pub sum: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bound_that_it_does_not_exceed() {
        let latency = Latency::default();
        let (first, last) = (LATENCY_BOUNDS[0], *LATENCY_BOUNDS.last().unwrap());
        for time in [Duration::ZERO, first, first * 2, last, last * 2] {
            latency.note(time);
        }
        let Histogram { counts, count, sum } = latency.snapshot();
        assert_eq!((count, sum), (5, first * 3 + last * 3));
        assert_eq!(counts[0], (first, 2));
        assert_eq!(counts.last(), Some(&(last, 1)));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert!(LATENCY_BOUNDS.is_sorted());
    }
}
