//! A number of bytes that all connections share: one budget for the bodies that are being read, one for
//! the answers that are being written. Each is one atomic, so no connection waits for another here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{BUDGET_PAUSE, SMALL_BODY};

/// Why an answer is refused for which the budget has no room.
pub(crate) const NO_ROOM: &str = "Too many answers wait for their readers";

/// The budgets of a server.
#[derive(Debug)]
pub(super) struct Budgets {
    pub(super) bodies: Budget,
    pub(super) answers: Budget,
}

/// A number of bytes, and how many of them are taken. Cloning shares them.
///
/// ORDER: all accesses are relaxed. The number guards no other memory, and each change of it is one
/// atomic step.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

/// What one body or one answer has taken of a budget. Dropping it gives the bytes back.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Budget {
        Budget {
            taken: Arc::default(),
            limit,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A share of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// The size up to which a body takes nothing: 4 KiB at the default limit. Large bodies that never
    /// end can therefore not keep out small ones. LIMIT: as many bytes for each connection.
    pub(super) fn small(&self) -> usize {
        (self.limit / SMALL_BODY.1).min(SMALL_BODY.0)
    }
}

impl Share {
    /// Takes as much as makes the share `bytes` large. False: the budget does not have it, and the share
    /// stays as it was. A share that is the only one may be larger than the limit.
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let (own, limit) = (self.bytes, self.budget.limit);
        let grown = |taken: usize| {
            let sum = taken.checked_add(more)?;
            (sum <= limit || taken == own).then_some(sum)
        };
        let outcome = self
            .budget
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        if outcome.is_ok() {
            self.bytes += more;
        }
        outcome.is_ok()
    }

    /// [`try_grow`](Self::try_grow), again and again for up to `patience`. Blocks meanwhile.
    pub(super) fn grow_within(&mut self, bytes: usize, patience: Duration) -> bool {
        let (start, mut pause) = (Instant::now(), BUDGET_PAUSE.0);
        while !self.try_grow(bytes) {
            if start.elapsed() >= patience {
                return false;
            }
            thread::sleep(pause.min(patience));
            pause = (pause * 2).min(BUDGET_PAUSE.1);
        }
        true
    }

    /// Takes as much as makes the share `bytes` large, whether the budget has it or not.
    pub(super) fn grow(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.budget.taken.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.taken.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_no_more_than_it_has_and_gets_all_of_it_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.try_grow(60) && two.try_grow(40));
        assert!(!one.try_grow(61) && !two.try_grow(41), "more than all");
        assert!(two.try_grow(10), "it has more than that already");
        drop(two);
        assert!(one.try_grow(100));
        drop(one);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_alone_may_be_larger_than_the_budget() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.try_grow(60) && one.try_grow(200));
        assert!(!two.try_grow(1));
        two.grow(50);
        assert!(!one.try_grow(201), "it is not alone any more");
        drop((one, two));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
    #[test]
    fn a_share_waits_for_others_and_gives_back_what_it_does_not_need() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        assert!(one.grow_within(90, Duration::ZERO));
        let mut two = budget.share();
        assert!(!two.grow_within(20, BUDGET_PAUSE.0), "nobody gives back");
        thread::scope(|scope| {
            let waits = scope.spawn(|| two.grow_within(20, Duration::MAX));
            one.shrink(80);
            assert!(waits.join().unwrap());
        });
        one.shrink(1000);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 100);
        drop((one, two));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
