//! A bound on the memory that requests hold together while they are worked on.
//!
//! A short request can make a large thing: a list of ten thousand clients, or ten thousand events out
//! of as many short lines. Each of them has its own limit; a budget bounds all of them together. A
//! request that finds the budget used up waits for those before it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many bytes, for all requests of a kind.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    /// LOCK: guards the number of bytes that are in use. Held to add to it and to take from it.
    used: Mutex<usize>,
    /// Some bytes are free again.
    freed: Condvar,
}

/// A part of a budget, in use until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Budget {
        Budget {
            limit,
            used: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Waits until some of the budget is free. LIMIT: the budget and one share, because a large share
    /// would wait for ever if it had to fit while small ones come and go.
    pub(super) fn take(&self, bytes: usize) -> Share<'_> {
        let is_used_up = |used: &mut usize| *used >= self.limit;
        let mut used = self
            .freed
            .wait_while(self.used(), is_used_up)
            .unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_add(bytes);
        Share {
            budget: self,
            bytes,
        }
    }

    /// A panic under this lock would be one of an addition.
    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        *used = used.saturating_sub(self.bytes);
        drop(used);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};
    use std::thread;

    use super::*;

    #[test]
    fn a_share_waits_until_the_budget_is_not_used_up() {
        let budget = Budget::new(10);
        let (first, second) = (budget.take(4), budget.take(100));
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            let budget = &budget;
            let third = scope.spawn(move || {
                let third = budget.take(1);
                sender.send(*budget.used()).unwrap();
                drop(third);
            });
            drop(first);
            // What is left is still more than the budget, so the third one cannot be in.
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(*budget.used(), 100);
            drop(second);
            assert_eq!(receiver.recv(), Ok(1));
            third.join().unwrap();
        });
        assert_eq!(*budget.used(), 0);
    }
}
