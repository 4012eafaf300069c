//! A 64-bit atomic number on every target.
//!
//! Some 32-bit machines, such as MIPS, PowerPC and ARMv5, have no atomic operations on 64
//! bits, and std has no `AtomicU64` there. On these machines each number has a lock of
//! its own. On all others `AtomicU64` is std's type, so it costs nothing.

#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;

#[cfg(not(target_has_atomic = "64"))]
pub(crate) use locked::AtomicU64;

#[cfg(any(test, not(target_has_atomic = "64")))]
mod locked {
    use std::sync::atomic::Ordering;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A number with the functions of std's `AtomicU64` that the crate uses. They ignore
    /// the ordering that is passed.
    ///
    /// ORDER: a lock orders memory at least as strictly as acquire and release, which is
    /// all that callers ask for.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64(
        /// LOCK: guards one number. It is held to read or change the number, and nothing
        /// waits while it is held.
        Mutex<u64>,
    );

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> AtomicU64 {
            AtomicU64(Mutex::new(value))
        }

        /// Locks the number. Only `change` of `fetch_update` could panic under the lock,
        /// and the number is valid even then, so a poisoned lock is ignored.
        fn value(&self) -> MutexGuard<'_, u64> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn load(&self, _: Ordering) -> u64 {
            *self.value()
        }

        pub(crate) fn store(&self, value: u64, _: Ordering) {
            *self.value() = value;
        }

        pub(crate) fn swap(&self, value: u64, _: Ordering) -> u64 {
            std::mem::replace(&mut *self.value(), value)
        }

        pub(crate) fn fetch_add(&self, more: u64, _: Ordering) -> u64 {
            let mut value = self.value();
            let sum = value.wrapping_add(more);
            std::mem::replace(&mut *value, sum)
        }

        pub(crate) fn fetch_sub(&self, less: u64, order: Ordering) -> u64 {
            self.fetch_add(less.wrapping_neg(), order)
        }

        pub(crate) fn fetch_update(
            &self,
            _: Ordering,
            _: Ordering,
            change: impl FnOnce(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            let mut value = self.value();
            let changed = change(*value).ok_or(*value)?;
            Ok(std::mem::replace(&mut *value, changed))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread;

    use super::locked::AtomicU64;

    #[test]
    fn a_locked_number_does_what_an_atomic_one_does() {
        let std = std::sync::atomic::AtomicU64::new(u64::MAX);
        let own = AtomicU64::new(u64::MAX);
        assert_eq!(own.fetch_add(3, Relaxed), std.fetch_add(3, Relaxed));
        assert_eq!(own.fetch_sub(5, Relaxed), std.fetch_sub(5, Relaxed));
        assert_eq!(own.swap(7, Relaxed), std.swap(7, Relaxed));
        for change in [Some(8), None] {
            let outcome = std.fetch_update(Relaxed, Relaxed, |_| change);
            assert_eq!(own.fetch_update(Relaxed, Relaxed, |_| change), outcome);
            assert_eq!(own.load(Relaxed), std.load(Relaxed));
        }
        own.store(0, Relaxed);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        own.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(own.load(Relaxed), 4000);
    }
}
