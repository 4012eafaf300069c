//! A number of bytes that all requests share: one budget for the bodies that are being read, one for the
//! answers that are being written, and those of the floor above. A request that finds a budget used up is
//! refused (`try_grow`), or waits for the requests before it (`grow_within`, `wait_for`).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why an answer is refused for which the budget has no room.
pub(crate) const NO_ROOM: &str = "Too many answers wait for their readers";

/// A number of bytes, and how many of them are taken. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Bytes>);

#[derive(Debug)]
struct Bytes {
    limit: usize,
    /// LOCK: guards two numbers. Held to add to them and to subtract from them.
    taken: Mutex<Taken>,
    /// Some bytes are free again, and a share waits for them.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    /// How many shares wait. Without one, giving bytes back needs no system call.
    waiting: usize,
}

/// What one request has taken of a budget. Dropping it gives the bytes back.
#[derive(Debug)]
#[must_use = "dropping it gives the bytes back"]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Budget {
        Budget(Arc::new(Bytes {
            limit,
            taken: Mutex::default(),
            freed: Condvar::new(),
        }))
    }

    pub(super) fn limit(&self) -> usize {
        self.0.limit
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Waits until fewer bytes than the limit are taken, and then takes `bytes`. LIMIT: the limit and one
    /// share. A large share that had to fit below the limit would wait for ever while small ones come and go.
    pub(crate) fn wait_for(&self, bytes: usize) -> Share {
        let mut share = self.share();
        share.take(bytes, Duration::MAX, &|taken| taken >= self.0.limit);
        share
    }

    /// A panic under this lock would be one of an addition.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes as much as makes the share `bytes` large. False: the budget does not have it, and the share
    /// stays as it was. A share that is the only one may be larger than the limit.
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        self.grow_within(bytes, Duration::ZERO)
    }

    /// [`try_grow`](Self::try_grow) that waits for the bytes for up to `patience`.
    pub(crate) fn grow_within(&mut self, bytes: usize, patience: Duration) -> bool {
        let (own, limit) = (self.bytes, self.budget.limit());
        let more = bytes.saturating_sub(own);
        self.take(more, patience, &|taken| {
            taken != own && taken.saturating_add(more) > limit
        })
    }

    /// Takes as much as makes the share `bytes` large, whether the budget has it or not.
    pub(super) fn grow(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.take(more, Duration::ZERO, &|_| false);
    }

    /// Takes `more` bytes as soon as the budget is not full with what is taken. False: it was full for all of
    /// `patience`.
    fn take(&mut self, more: usize, patience: Duration, is_full: &dyn Fn(usize) -> bool) -> bool {
        let mut taken = self.budget.taken();
        if is_full(taken.bytes) && !patience.is_zero() {
            taken.waiting += 1;
            let freed = &self.budget.0.freed;
            let waited = freed.wait_timeout_while(taken, patience, |taken| is_full(taken.bytes));
            (taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
            taken.waiting -= 1;
        }
        let has_room = !is_full(taken.bytes);
        if has_room {
            taken.bytes = taken.bytes.saturating_add(more);
            self.bytes += more;
        }
        has_room
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less == 0 {
            return;
        }
        self.bytes -= less;
        let mut taken = self.budget.taken();
        taken.bytes = taken.bytes.saturating_sub(less);
        let is_awaited = taken.waiting > 0;
        drop(taken);
        if is_awaited {
            self.budget.0.freed.notify_all();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::config::LINGER;

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
        assert_eq!(budget.taken().bytes, 0);
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
        assert_eq!(budget.taken().bytes, 0);
    }

    #[test]
    fn a_share_waits_for_others_and_gives_back_what_it_does_not_need() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        assert!(one.grow_within(90, Duration::ZERO));
        let mut two = budget.share();
        assert!(
            !two.grow_within(20, Duration::from_millis(5)),
            "nobody gives back"
        );
        thread::scope(|scope| {
            let waits = scope.spawn(|| two.grow_within(20, Duration::MAX));
            one.shrink(80);
            assert!(waits.join().unwrap());
        });
        one.shrink(1000);
        assert_eq!(budget.taken().bytes, 100);
        drop((one, two));
        assert_eq!(budget.taken().bytes, 0);
    }

    #[test]
    fn a_share_waits_until_fewer_bytes_than_the_limit_are_taken() {
        let budget = Budget::new(10);
        let (first, second) = (budget.wait_for(4), budget.wait_for(100));
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            let budget = &budget;
            let third = scope.spawn(move || {
                let third = budget.wait_for(1);
                sender.send(budget.taken().bytes).unwrap();
                drop(third);
            });
            let start = Instant::now();
            while budget.taken().waiting == 0 {
                assert!(start.elapsed() < LINGER, "it does not wait");
                thread::yield_now();
            }
            drop(first);
            // What is left is still more than the limit, so the third one cannot be in.
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(budget.taken().bytes, 100);
            drop(second);
            assert_eq!(receiver.recv(), Ok(1));
            third.join().unwrap();
        });
        assert_eq!(budget.taken().bytes, 0);
    }
}
