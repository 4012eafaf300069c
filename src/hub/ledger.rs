//! Where publishers wait for the log together: whoever finds it free writes down what all of them
//! have brought, so that ten publishers share one `fsync` (*group commit*).
//!
//! There is no thread for it and nothing to tune: a publisher alone writes at once, and while one
//! writes the others gather.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

use super::log::Log;
use super::{Draft, PublishError, Published};

/// What became of what one publisher brought.
pub(super) type Outcome = Result<Vec<Published>, PublishError>;

#[derive(Debug)]
pub(super) struct Ledger {
    /// LOCK: guards who waits and what became of it, and hands out the log. Whoever writes has
    /// taken the log and let go of the lock: nobody waits for a disk under it.
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    log: Place,
    /// Who is not written down yet. LIMIT: one for each thread that publishes. While the log is on
    /// the desk one of them has been woken, and will take it.
    waiting: Vec<Waiter>,
    /// Who waits to put the log away.
    closer: Option<Thread>,
}

/// A publisher that waits, parked: each is woken for itself, because ten that are woken to see that
/// it is not their turn cost more than the disk.
#[derive(Debug)]
struct Waiter {
    drafts: Vec<Draft>,
    thread: Thread,
    /// Filled by whoever writes it down.
    outcome: Arc<OnceLock<Outcome>>,
}

/// Where the log is. There is one, so there cannot be two who write.
#[derive(Debug)]
enum Place {
    Here(Box<dyn Log>),
    /// Somebody writes with it.
    Out,
    /// The hub is closed.
    PutAway,
}

impl Ledger {
    pub(super) fn new(log: Box<dyn Log>) -> Ledger {
        Ledger {
            desk: Mutex::new(Desk {
                log: Place::Here(log),
                waiting: Vec::new(),
                closer: None,
            }),
        }
    }

    /// Poisoning is passed over: no code of others runs under this lock.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `drafts` are written down, by this thread or by another. `write` is for all that
    /// wait: it answers for each of them.
    pub(super) fn publish(
        &self,
        drafts: Vec<Draft>,
        write: impl Fn(&mut dyn Log, Vec<Vec<Draft>>) -> Vec<Outcome>,
    ) -> Outcome {
        let outcome = Arc::new(OnceLock::new());
        self.desk().waiting.push(Waiter {
            drafts,
            thread: thread::current(),
            outcome: Arc::clone(&outcome),
        });
        loop {
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            let mut desk = self.desk();
            match std::mem::replace(&mut desk.log, Place::Out) {
                Place::Here(log) => self.write_down(desk, log, &write),
                Place::Out => {
                    drop(desk);
                    thread::park();
                }
                Place::PutAway => {
                    desk.log = Place::PutAway;
                    return Err(PublishError::Closed);
                }
            }
        }
    }

    /// Writes with the log that was taken from the desk, without the lock.
    fn write_down(
        &self,
        mut desk: MutexGuard<'_, Desk>,
        mut log: Box<dyn Log>,
        write: &impl Fn(&mut dyn Log, Vec<Vec<Draft>>) -> Vec<Outcome>,
    ) {
        let mut waiters = std::mem::take(&mut desk.waiting);
        drop(desk);
        let take_drafts = |waiter: &mut Waiter| std::mem::take(&mut waiter.drafts);
        let drafts = waiters.iter_mut().map(take_drafts).collect();
        // A log may be anybody's. One that panics must not leave the others waiting for ever.
        let written = catch_unwind(AssertUnwindSafe(|| write(&mut *log, drafts)));
        let outcomes = written.unwrap_or_else(|_| {
            let panicked = PublishError::NotKept("the log panicked".into());
            vec![Err(panicked); waiters.len()]
        });
        let mut desk = self.desk();
        desk.log = Place::Here(log);
        let next = desk.waiting.first().map(|waiter| waiter.thread.clone());
        let next = next.or_else(|| desk.closer.clone());
        drop(desk);
        // ORDER: the next to write first, so that the disk does not wait for the answers.
        next.inspect(Thread::unpark);
        for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
            waiter
                .outcome
                .set(outcome)
                .expect("BUG: written down twice");
            waiter.thread.unpark();
        }
    }

    /// Lets go of the log, once nobody writes with it. Nothing is published any more.
    pub(super) fn put_away(&self) {
        loop {
            let mut desk = self.desk();
            if matches!(desk.log, Place::Out) || !desk.waiting.is_empty() {
                desk.closer = Some(thread::current());
                drop(desk);
                thread::park();
                continue;
            }
            let log = std::mem::replace(&mut desk.log, Place::PutAway);
            // ORDER: behind the lock: to drop a log may wait for its disk.
            drop(desk);
            drop(log);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
    use std::thread;

    use crate::config::Config;
    use crate::hub::{Entry, Hub, Kept, Log};
    use crate::wire::Event;

    /// A log that says how many events it was given, and waits to be told that they are kept.
    #[derive(Debug)]
    struct Slow(Sender<usize>, Receiver<()>);

    impl Log for Slow {
        fn append(&mut self, entries: &[Entry<'_>]) -> std::io::Result<()> {
            self.0.send(entries.len()).unwrap();
            self.1.recv().unwrap();
            Ok(())
        }
    }

    #[test]
    fn ten_publishers_who_wait_share_one_write() {
        let (asked, writes) = channel();
        let (done, kept) = channel();
        let nothing = Kept {
            after: Hub::birth(),
            entries: Vec::new(),
        };
        let log = Box::new(Slow(asked, kept));
        let hub = Hub::with_log(Config::default(), log, nothing).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| hub.publish(Event::new("first")).unwrap());
            assert_eq!(writes.recv(), Ok(1));
            for _ in 0..10 {
                scope.spawn(|| hub.publish(Event::new("")).unwrap());
            }
            let ledger = hub.shared.ledger.as_ref().unwrap();
            while ledger.desk().waiting.len() < 10 {
                thread::yield_now();
            }
            done.send(()).unwrap();
            assert_eq!(writes.recv(), Ok(10));
            done.send(()).unwrap();
        });
        assert_eq!(hub.stats().history.events, 11);
        hub.close();
        hub.put_log_away();
        // The log wrote no more, and is gone.
        assert_eq!(writes.try_recv(), Err(TryRecvError::Disconnected));
        assert!(hub.publish(Event::new("late")).is_err());
    }
}
