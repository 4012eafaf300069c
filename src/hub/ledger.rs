//! Where publishers wait for the log together: whoever finds it free writes down what all of them
//! have brought, so that ten publishers share one `fsync` (*group commit*).
//!
//! There is no thread for it and nothing to tune: a publisher alone writes at once, and while one
//! writes the others gather.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

use super::draft::Draft;
use super::log::Log;
use super::{PublishError, Published};
use crate::report::Report;

/// What became of what one publisher brought.
pub(super) type Outcome = Result<Vec<Published>, PublishError>;

/// What became of a group: an outcome for each in it, and why the log has failed, if it has.
pub(super) struct Written {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) failure: Option<String>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// LOCK: guards who waits, and hands out the log. Whoever writes has taken the log and let go
    /// of the lock: nobody waits for a disk under it.
    desk: Mutex<Desk>,
    /// LIMIT: bytes of one group, or what one publisher brings: what is written down together is
    /// passed on together, and has to fit into queues.
    group_bytes: usize,
    report: Report,
}

#[derive(Debug)]
struct Desk {
    log: Place,
    /// Who is not written down yet, in the order of coming. LIMIT: one for each thread that
    /// publishes. While the log is on the desk the first has been woken, and will take it.
    waiting: Vec<Waiter>,
    /// Who waits until nobody writes any more.
    closers: Vec<Thread>,
    /// The last group was not kept, and that was reported.
    is_failing: bool,
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
    /// Somebody writes with it for the last time.
    OutForTheLastTime,
    /// The hub is closed.
    PutAway,
}

impl Ledger {
    pub(super) fn new(log: Box<dyn Log>, group_bytes: usize, report: Report) -> Ledger {
        Ledger {
            desk: Mutex::new(Desk {
                log: Place::Here(log),
                waiting: Vec::new(),
                closers: Vec::new(),
                is_failing: false,
            }),
            group_bytes,
            report,
        }
    }

    /// Poisoning is passed over: no code of others runs under this lock.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `drafts` are written down, by this thread or by another. `write` is for all of a
    /// group: it answers for each of them.
    pub(super) fn publish(
        &self,
        drafts: Vec<Draft>,
        write: impl Fn(&mut dyn Log, Vec<Vec<Draft>>) -> Written,
    ) -> Outcome {
        let outcome = Arc::new(OnceLock::new());
        let waiter = Waiter {
            drafts,
            thread: thread::current(),
            outcome: Arc::clone(&outcome),
        };
        let mut desk = self.desk();
        if desk.is_closing() {
            return Err(PublishError::Closed);
        }
        desk.waiting.push(waiter);
        loop {
            match desk.take_log() {
                Some(log) => self.write_down(desk, log, &write),
                None => {
                    drop(desk);
                    thread::park();
                }
            }
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            desk = self.desk();
        }
    }

    /// Writes the next group with the log that was taken from the desk, without the lock.
    fn write_down(
        &self,
        mut desk: MutexGuard<'_, Desk>,
        mut log: Box<dyn Log>,
        write: &impl Fn(&mut dyn Log, Vec<Vec<Draft>>) -> Written,
    ) {
        let mut group = desk.next_group(self.group_bytes);
        drop(desk);
        let take_drafts = |waiter: &mut Waiter| std::mem::take(&mut waiter.drafts);
        let drafts = group.iter_mut().map(take_drafts).collect();
        // A log may be anybody's. One that panics must not leave the others waiting for ever.
        let written = catch_unwind(AssertUnwindSafe(|| write(&mut *log, drafts)));
        let Written { outcomes, failure } = written.unwrap_or_else(|_| {
            let failure = "the log panicked".to_owned();
            Written {
                outcomes: vec![Err(PublishError::NotKept(failure.clone())); group.len()],
                failure: Some(failure),
            }
        });
        let mut desk = self.give_back(log);
        let was_failing = std::mem::replace(&mut desk.is_failing, failure.is_some());
        drop(desk);
        for (waiter, outcome) in group.into_iter().zip(outcomes) {
            let first = waiter.outcome.set(outcome);
            first.expect("BUG: written down twice");
            waiter.thread.unpark();
        }
        // ORDER: last: whoever is told may publish what it is told, and would wait for us.
        match failure {
            Some(failure) if !was_failing => self.report.error(format_args!(
                "the log failed: {failure}; publishers get 503 until it works again"
            )),
            None if was_failing => self.report.warn(format_args!("the log works again")),
            _ => {}
        }
    }

    /// Puts the log back, and wakes who is next: to write, so that the disk does not wait for the
    /// answers; or to close.
    fn give_back(&self, log: Box<dyn Log>) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk();
        if matches!(desk.log, Place::OutForTheLastTime) {
            // ORDER: behind the lock, and before the closers: to drop a log may wait for its disk.
            drop(desk);
            drop(log);
            desk = self.desk();
            desk.log = Place::PutAway;
            desk.closers.drain(..).for_each(|closer| closer.unpark());
        } else {
            desk.log = Place::Here(log);
            desk.waiting
                .iter()
                .take(1)
                .for_each(|next| next.thread.unpark());
        }
        desk
    }

    /// Lets go of the log, once nobody writes with it. Nothing is published any more.
    pub(super) fn put_away(&self) {
        let mut desk = self.desk();
        let refused = std::mem::take(&mut desk.waiting);
        let log = match std::mem::replace(&mut desk.log, Place::PutAway) {
            Place::Here(log) => Some(log),
            Place::PutAway => None,
            Place::Out | Place::OutForTheLastTime => {
                desk.log = Place::OutForTheLastTime;
                desk.closers.push(thread::current());
                None
            }
        };
        // ORDER: behind the lock: to drop a log may wait for its disk.
        drop(desk);
        drop(log);
        for waiter in refused {
            let first = waiter.outcome.set(Err(PublishError::Closed));
            first.expect("BUG: refused what was written down");
            waiter.thread.unpark();
        }
        while matches!(self.desk().log, Place::OutForTheLastTime) {
            thread::park();
        }
    }
}

impl Desk {
    fn is_closing(&self) -> bool {
        matches!(self.log, Place::OutForTheLastTime | Place::PutAway)
    }

    /// The log, if it is there and somebody waits to be written down. Who asks may be of a group
    /// that was written, and not told yet.
    fn take_log(&mut self) -> Option<Box<dyn Log>> {
        if self.waiting.is_empty() {
            return None;
        }
        match std::mem::replace(&mut self.log, Place::Out) {
            Place::Here(log) => Some(log),
            elsewhere => {
                self.log = elsewhere;
                None
            }
        }
    }

    /// Those who have come first, as many as fit.
    fn next_group(&mut self, most_bytes: usize) -> Vec<Waiter> {
        let mut bytes = 0;
        let mut fits = |waiter: &Waiter| {
            bytes += waiter.drafts.iter().map(Draft::len).sum::<usize>();
            bytes <= most_bytes
        };
        let count = self
            .waiting
            .iter()
            .take_while(|waiter| fits(waiter))
            .count();
        self.waiting.drain(..count.max(1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
    use std::thread;

    use crate::config::Config;
    use crate::hub::{Entry, Hub, Kept, Log, PublishError};
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

    fn hub(log: impl Log + 'static) -> Hub {
        Hub::with_log(Config::default(), Box::new(log), Kept::nothing()).unwrap()
    }

    #[test]
    fn ten_publishers_who_wait_share_one_write() {
        let (asked, writes) = channel();
        let (done, kept) = channel();
        let hub = hub(Slow(asked, kept));
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
        // Nobody is left who waits, so to close again is to do nothing.
        hub.put_log_away();
    }

    #[test]
    fn who_waits_when_the_log_is_put_away_is_told() {
        let (asked, writes) = channel();
        let (done, kept) = channel();
        let hub = hub(Slow(asked, kept));
        thread::scope(|scope| {
            let first = scope.spawn(|| hub.publish(Event::new("first")));
            assert_eq!(writes.recv(), Ok(1));
            let second = scope.spawn(|| hub.publish(Event::new("second")));
            let ledger = hub.shared.ledger.as_ref().unwrap();
            while ledger.desk().waiting.is_empty() {
                thread::yield_now();
            }
            let closers = [(); 2].map(|()| scope.spawn(|| hub.put_log_away()));
            assert_eq!(second.join().unwrap(), Err(PublishError::Closed));
            while ledger.desk().closers.len() < 2 {
                thread::yield_now();
            }
            done.send(()).unwrap();
            assert!(first.join().unwrap().is_ok());
            closers
                .into_iter()
                .for_each(|closer| closer.join().unwrap());
        });
        assert_eq!(writes.try_recv(), Err(TryRecvError::Disconnected));
    }

    /// A log that keeps everything at once, and counts it.
    #[derive(Debug)]
    struct Quick(Arc<AtomicUsize>);

    impl Log for Quick {
        fn append(&mut self, entries: &[Entry<'_>]) -> std::io::Result<()> {
            self.0.fetch_add(entries.len(), Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn whoever_wakes_without_a_reason_finds_its_way() {
        let kept = Arc::new(AtomicUsize::new(0));
        let hub = hub(Quick(Arc::clone(&kept)));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..3_000 {
                        // So that a park in the middle of it returns at once.
                        thread::current().unpark();
                        hub.publish(Event::new("")).unwrap();
                    }
                });
            }
        });
        assert_eq!(kept.load(Ordering::Relaxed), 24_000);
        assert_eq!(hub.stats().events, 24_000);
    }

    #[test]
    fn a_group_is_no_larger_than_a_batch_may_be() {
        let (asked, writes) = channel();
        let (done, kept) = channel();
        let hub = hub(Slow(asked, kept));
        let third = "x".repeat(Config::default().queue_bytes / 12);
        thread::scope(|scope| {
            scope.spawn(|| hub.publish(Event::new("first")).unwrap());
            assert_eq!(writes.recv(), Ok(1));
            for _ in 0..5 {
                scope.spawn(|| hub.publish(Event::new(&*third)).unwrap());
            }
            let ledger = hub.shared.ledger.as_ref().unwrap();
            while ledger.desk().waiting.len() < 5 {
                thread::yield_now();
            }
            for group in [2, 2, 1] {
                done.send(()).unwrap();
                assert_eq!(writes.recv(), Ok(group));
            }
            done.send(()).unwrap();
        });
    }
}
