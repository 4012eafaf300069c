//! Numbers that are counted without the hub's lock, by the thread that does the work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::config::LATENCY_BOUNDS;

/// The amount that was written to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Events that were written completely.
    pub(super) events: u64,
    /// Bytes of every kind: events, heartbeats, heads, chunk headers.
    pub(super) bytes: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Sent) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// Sums over all clients, also those that have left.
///
/// ORDER: Relaxed throughout. Each number stands alone: no code concludes anything about other memory from it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Events that were written completely.
    events: AtomicU64,
    /// Bytes that were written.
    bytes: AtomicU64,
    /// How long `publish` took, for events that were accepted.
    pub(super) publishing: Latency,
}

impl Counters {
    /// Adds an amount that was written. The fan-out thread calls it once per audience, and not once per client.
    pub(super) fn add(&self, sent: Sent) {
        self.events.fetch_add(sent.events, Ordering::Relaxed);
        self.bytes.fetch_add(sent.bytes, Ordering::Relaxed);
    }

    /// The amount so far.
    pub(super) fn sent(&self) -> Sent {
        Sent {
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A histogram of durations that several threads count into: one count per bound, and one for longer durations.
#[derive(Debug, Default)]
pub(super) struct Latency {
    counts: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Latency {
    /// Counts one duration.
    pub(super) fn note(&self, time: Duration) {
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < time);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns
            .fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The counts at about this moment.
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

/// How many operations took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// Bounds, rising, each with the number of times that were no longer than it but longer than
    /// the one before.
    pub counts: Vec<(Duration, u64)>,
    /// All, those longer than the last bound among them.
    pub count: u64,
    /// All of the times together.
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
