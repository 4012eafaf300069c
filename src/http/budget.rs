//! A budget: a number of bytes that all requests together may take for one purpose.
//!
//! Without a budget, each request could stay within its own limit, and a thousand of them
//! together could still use up the memory. `Connections` has one budget for the request
//! bodies that are being read and one for the large answers that are being written;
//! `api/` has two more, for events and for the list of clients that are being made.
//!
//! Example with a budget of 64 MiB and bodies of 1 MiB. 64 clients that upload slowly
//! take all of it, if each has sent almost its whole body. The body of the 65th client
//! cannot grow above 4 KiB, the part that is not counted, so its request is answered 503
//! at once. When one of the 64 requests has been answered, its share is dropped, and the
//! next body has room. Small events, which are the usual ones, never need the budget.
//!
//! A request takes a [`Share`] of a budget and gives it back when the share is dropped.
//! The share counts bytes; it does not contain them. When a budget has no room, there are
//! three ways to go on:
//!
//! - [`Share::try_grow`] returns false at once, and the request is refused.
//! - [`Share::grow_within`] and [`Budget::wait_for`] block until other requests give
//!   bytes back.
//! - [`Share::grow`] exceeds the budget, for an answer that must not be refused.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The text of the 503 for a request whose answer has no room in the answer budget.
pub(crate) const NO_ROOM: &str = "Too many answers wait for their readers";

/// A limit in bytes, and how many bytes of it are taken. A clone is another handle to the
/// same budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Bytes>);

#[derive(Debug)]
struct Bytes {
    /// LIMIT: the bytes that all shares together may have. A single share may have more:
    /// see [`Share::try_grow`].
    limit: usize,
    /// LOCK: guards two numbers. It is held to add to them and to subtract from them, and
    /// while a thread is put to sleep on `freed`, which releases it.
    taken: Mutex<Taken>,
    /// Is notified when bytes are given back and a thread waits for them.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    /// The sum of all shares, in bytes.
    bytes: usize,
    /// The number of threads that wait for `freed`. As long as it is 0, giving bytes back
    /// needs no system call.
    waiting: usize,
}

/// The bytes that one request has taken of a budget. Dropping the share gives them back.
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

    /// A share of 0 bytes.
    pub(crate) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Waits until fewer bytes than the limit are taken, however long that takes, and
    /// then takes `bytes`.
    ///
    /// LIMIT: the budget can be exceeded by this one share. If a large share had to fit
    /// below the limit, it could wait for ever while small shares come and go.
    pub(crate) fn wait_for(&self, bytes: usize) -> Share {
        let mut share = self.share();
        share.take(bytes, Duration::MAX, &|taken| taken >= self.0.limit);
        share
    }

    /// Locks the numbers. Only additions and subtractions run under the lock, so a
    /// poisoned lock is ignored.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Enlarges the share to `bytes`, if the budget has room. Returns false, and leaves
    /// the share as it was, if it has none. Does not wait. A share that is already as
    /// large stays as it is.
    ///
    /// The only share of a budget may be larger than the limit. Otherwise a body or an
    /// answer larger than the limit could never be served.
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        self.grow_within(bytes, Duration::ZERO)
    }

    /// [`try_grow`](Self::try_grow) that waits for the bytes for at most `timeout`.
    pub(crate) fn grow_within(&mut self, bytes: usize, timeout: Duration) -> bool {
        let (own, limit) = (self.bytes, self.budget.limit());
        let more = bytes.saturating_sub(own);
        // `taken != own`: others have bytes, too.
        self.take(more, timeout, &|taken| {
            taken != own && taken.saturating_add(more) > limit
        })
    }

    /// Enlarges the share to `bytes`, even if that exceeds the budget.
    pub(super) fn grow(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.take(more, Duration::ZERO, &|_| false);
    }

    /// Takes `more` bytes as soon as `is_full` returns false for the number of bytes that
    /// are taken. Blocks for at most `timeout`. Returns false, and takes nothing, if the
    /// budget was full for all that time.
    fn take(&mut self, more: usize, timeout: Duration, is_full: &dyn Fn(usize) -> bool) -> bool {
        let mut taken = self.budget.taken();
        if is_full(taken.bytes) && !timeout.is_zero() {
            taken.waiting += 1;
            let freed = &self.budget.0.freed;
            let waited = freed.wait_timeout_while(taken, timeout, |taken| is_full(taken.bytes));
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

    /// Reduces the share to `bytes`, and gives the rest back. A share that is already as
    /// small stays as it is.
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
            // All, because each waiting share needs a different number of bytes.
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
    fn shares_together_never_exceed_the_budget_and_are_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.try_grow(60) && two.try_grow(40));
        assert!(
            !one.try_grow(61) && !two.try_grow(41),
            "more than the budget"
        );
        assert!(two.try_grow(10), "the share is larger already");
        drop(two);
        assert!(one.try_grow(100));
        drop(one);
        assert_eq!(budget.taken().bytes, 0);
    }

    #[test]
    fn the_only_share_may_be_larger_than_the_budget() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.try_grow(60) && one.try_grow(200));
        assert!(!two.try_grow(1));
        two.grow(50);
        assert!(!one.try_grow(201), "another share has bytes");
        drop((one, two));
        assert_eq!(budget.taken().bytes, 0);
    }

    #[test]
    fn a_share_waits_for_other_shares_and_can_give_bytes_back() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        assert!(one.grow_within(90, Duration::ZERO));
        let mut two = budget.share();
        assert!(
            !two.grow_within(20, Duration::from_millis(5)),
            "no share gives bytes back"
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
                assert!(start.elapsed() < LINGER, "the third share does not wait");
                thread::yield_now();
            }
            drop(first);
            // The second share alone still exceeds the limit, so the third one goes on
            // waiting.
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(budget.taken().bytes, 100);
            drop(second);
            assert_eq!(receiver.recv(), Ok(1));
            third.join().unwrap();
        });
        assert_eq!(budget.taken().bytes, 0);
    }
}
