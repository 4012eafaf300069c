//! Which refusals are logged one by one, and how many were not: one connection can ask for what it may
//! not have a hundred thousand times a second.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::config::REFUSALS_TOLD;

/// Counts the refusals of a server.
///
/// ORDER: Relaxed throughout: each is a number of its own. Two threads that meet at the turn of a second
/// may log a line more.
#[derive(Debug)]
pub(super) struct Refusals {
    start: Instant,
    /// The second of the last refusal, since the start.
    second: AtomicU64,
    /// Refusals that were logged in it.
    told: AtomicUsize,
    /// Refusals that were not logged since the last one that was.
    untold: AtomicUsize,
}

impl Refusals {
    pub(super) fn new() -> Refusals {
        Refusals {
            start: Instant::now(),
            second: AtomicU64::new(0),
            told: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
        }
    }

    /// Counts one; how many before it were not logged, if this one is to be.
    pub(super) fn next(&self) -> Option<usize> {
        self.next_in(self.start.elapsed().as_secs())
    }

    fn next_in(&self, second: u64) -> Option<usize> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.told.store(0, Ordering::Relaxed);
        }
        // LIMIT: lines a second.
        if self.told.fetch_add(1, Ordering::Relaxed) < REFUSALS_TOLD {
            Some(self.untold.swap(0, Ordering::Relaxed))
        } else {
            self.untold.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_logged_in_a_second_and_the_next_line_has_how_many_were_not() {
        let refusals = Refusals::new();
        for _ in 0..REFUSALS_TOLD {
            assert_eq!(refusals.next_in(0), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(refusals.next_in(0), None);
        }
        assert_eq!(refusals.next_in(1), Some(1000));
        assert_eq!(refusals.next_in(1), Some(0));
        assert_eq!(refusals.next_in(7), Some(0));
    }
}
