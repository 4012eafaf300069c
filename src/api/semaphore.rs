//! A counting semaphore: the bound on the memory that requests hold together while they are worked on.
//!
//! A short request can make something large: a list of ten thousand clients, or ten thousand events out
//! of as many short lines. Each of these has a limit of its own, and a semaphore bounds all of them
//! together. A request that finds all bytes in use waits for the requests before it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The bytes that all requests of one kind may hold together.
#[derive(Debug)]
pub(super) struct Semaphore {
    limit: usize,
    /// LOCK: guards the number of bytes that are in use. Held to add to it and to take from it.
    used: Mutex<usize>,
    /// Some bytes are free again.
    freed: Condvar,
}

/// Bytes of a semaphore, in use until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it frees the bytes"]
pub(super) struct Permit<'a> {
    semaphore: &'a Semaphore,
    bytes: usize,
}

impl Semaphore {
    pub(super) fn new(limit: usize) -> Semaphore {
        Semaphore {
            limit,
            used: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Waits until fewer bytes than the limit are in use. LIMIT: the limit and one permit. A large permit
    /// that had to fit below the limit would wait for ever while small ones come and go.
    pub(super) fn acquire(&self, bytes: usize) -> Permit<'_> {
        let is_used_up = |used: &mut usize| *used >= self.limit;
        let mut used = self
            .freed
            .wait_while(self.used(), is_used_up)
            .unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_add(bytes);
        Permit {
            semaphore: self,
            bytes,
        }
    }

    /// A panic under this lock would be one of an addition.
    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut used = self.semaphore.used();
        *used = used.saturating_sub(self.bytes);
        drop(used);
        self.semaphore.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};
    use std::thread;

    use super::*;

    #[test]
    fn a_permit_waits_until_fewer_bytes_than_the_limit_are_in_use() {
        let semaphore = Semaphore::new(10);
        let (first, second) = (semaphore.acquire(4), semaphore.acquire(100));
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            let semaphore = &semaphore;
            let third = scope.spawn(move || {
                let third = semaphore.acquire(1);
                sender.send(*semaphore.used()).unwrap();
                drop(third);
            });
            drop(first);
            // What is left is still more than the limit, so the third one cannot be in.
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(*semaphore.used(), 100);
            drop(second);
            assert_eq!(receiver.recv(), Ok(1));
            third.join().unwrap();
        });
        assert_eq!(*semaphore.used(), 0);
    }
}
