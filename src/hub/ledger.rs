//! Where publishers wait for the log together: whoever finds it free writes down what all of them
//! have brought, so that ten publishers share one `fsync` (*group commit*).
//!
//! There is no thread for it and nothing to tune: a publisher alone writes at once, and while one
//! writes the others gather.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use super::log::Log;
use super::record::Record;
use super::{PublishError, Published};
use crate::config::{LOG_PATIENCE, PROBE_PATIENCE, PROBE_PAUSE};
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
    /// A probe has ended. [`failure`](Self::failure) waits for it.
    probed: Condvar,
}

#[derive(Debug)]
struct Desk {
    log: Place,
    /// Who is not written down yet, in the order of coming. LIMIT: one for each thread that
    /// publishes. While the log is on the desk the first has been woken, and will take it.
    waiting: Vec<Waiter>,
    /// Who waits until nobody writes any more.
    closers: Vec<Thread>,
    /// Why the last group was not kept, or the last probe failed. `None`: the log works.
    failure: Option<String>,
    /// How many publishers were refused because the log had failed.
    failures: u64,
    /// When the log was taken or given back last.
    since: Instant,
    /// A probe is about to begin, or is running.
    is_probing: bool,
    /// The thread of the last probe, until it is joined: by the next probe, or when the log is closed.
    prober: Option<JoinHandle<()>>,
}

/// A publisher that waits, parked: each is woken for itself, because ten that are woken to see that
/// it is not their turn cost more than the disk.
#[derive(Debug)]
struct Waiter {
    records: Vec<Arc<Record>>,
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
                failure: None,
                failures: 0,
                since: Instant::now(),
                is_probing: false,
                prober: None,
            }),
            group_bytes,
            report,
            probed: Condvar::new(),
        }
    }

    /// Poisoning is passed over: no code of others runs under this lock.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `records` are written down, by this thread or by another. `write` is for all of a
    /// group: it answers for each of them.
    pub(super) fn publish(
        &self,
        records: Vec<Arc<Record>>,
        write: impl Fn(&mut dyn Log, Vec<Vec<Arc<Record>>>) -> Written,
    ) -> Outcome {
        let outcome = Arc::new(OnceLock::new());
        let waiter = Waiter {
            records,
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
        write: &impl Fn(&mut dyn Log, Vec<Vec<Arc<Record>>>) -> Written,
    ) {
        let mut group = desk.next_group(self.group_bytes);
        drop(desk);
        let take_records = |waiter: &mut Waiter| std::mem::take(&mut waiter.records);
        let records = group.iter_mut().map(take_records).collect();
        // A log may be anybody's. One that panics must not leave the others waiting for ever.
        let written = without_unwinding(|| write(&mut *log, records));
        let Written { outcomes, failure } = written.unwrap_or_else(|panic| {
            let failure = format!("the log panicked: {panic}");
            Written {
                outcomes: vec![Err(PublishError::NotKept(failure.clone())); group.len()],
                failure: Some(failure),
            }
        });
        let mut desk = self.give_back(log);
        let is_refused = |outcome: &&Outcome| matches!(outcome, Err(PublishError::NotKept(_)));
        desk.failures += outcomes.iter().filter(is_refused).count() as u64;
        let change = desk.note(failure);
        drop(desk);
        for (waiter, outcome) in group.into_iter().zip(outcomes) {
            let first = waiter.outcome.set(outcome);
            first.expect("BUG: written down twice");
            waiter.thread.unpark();
        }
        // ORDER: last: whoever is told may publish what it is told, and would wait for us.
        self.tell(change);
    }

    fn tell(&self, change: Change) {
        match change {
            Change::Failed(failure) => self.report.error(format_args!(
                "the log failed: {failure}; publishers get 503 until it works again"
            )),
            Change::Works => self.report.warn(format_args!("the log works again")),
            Change::None => {}
        }
    }

    /// Why the log refuses events, if it does.
    ///
    /// After a failure the log is tried again, in a thread of its own, at most once in
    /// [`PROBE_PAUSE`]: without publishers nothing else would find out that it works again. Waits for
    /// the probe for [`PROBE_PATIENCE`], and then returns the last known state, so that a disk that hangs
    /// does not block the caller.
    pub(super) fn failure(self: &Arc<Ledger>) -> Option<String> {
        let mut desk = self.desk();
        if desk.is_probe_due() {
            desk.is_probing = true;
            if let Some(last) = desk.prober.take() {
                // It has ended. Only the report can have panicked in it, and std has reported that.
                let _ = last.join();
            }
            let ledger = Arc::clone(self);
            let name = thread::Builder::new().name("log probe".into());
            // LOCK: held while the thread is started, so that `put_away` joins it.
            match name.spawn(move || ledger.probe()) {
                Ok(thread) => desk.prober = Some(thread),
                // What is known stays true until there is a thread.
                Err(_) => desk.is_probing = false,
            }
        }
        let is_probing = |desk: &mut Desk| desk.is_probing;
        let (desk, _) = self
            .probed
            .wait_timeout_while(desk, PROBE_PATIENCE, is_probing)
            .unwrap_or_else(PoisonError::into_inner);
        desk.state().0
    }

    /// Why the log refuses events, as far as is known without trying it, and how many publishers
    /// were refused.
    pub(super) fn state(&self) -> (Option<String>, u64) {
        self.desk().state()
    }

    /// Tries whether the log works again. LOCK: not held meanwhile; publishers wait for the log as
    /// they do while another one writes.
    fn probe(&self) {
        let mut desk = self.desk();
        let mut change = Change::None;
        // A publisher may have taken the log by now, and then finds out whether it works.
        if let Some(mut log) = desk.take() {
            drop(desk);
            let tried = without_unwinding(|| log.probe());
            let failure = match tried {
                Ok(result) => result.err().map(|error| error.to_string()),
                Err(panic) => Some(format!("the log panicked: {panic}")),
            };
            desk = self.give_back(log);
            change = desk.note(failure);
        }
        desk.is_probing = false;
        drop(desk);
        self.probed.notify_all();
        self.tell(change);
    }

    /// Puts the log back, and wakes who is next: to write, so that the disk does not wait for the
    /// answers; or to close.
    fn give_back(&self, log: Box<dyn Log>) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk();
        if matches!(desk.log, Place::OutForTheLastTime) {
            // ORDER: without the lock, and before the closers: to drop a log may wait for its disk.
            drop(desk);
            self.end(log);
            desk = self.desk();
            desk.log = Place::PutAway;
            desk.closers.drain(..).for_each(|closer| closer.unpark());
        } else {
            desk.log = Place::Here(log);
            desk.since = Instant::now();
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
        let prober = desk.prober.take();
        // ORDER: without the lock: to drop a log may wait for its disk.
        drop(desk);
        if let Some(log) = log {
            self.end(log);
        }
        for waiter in refused {
            let first = waiter.outcome.set(Err(PublishError::Closed));
            first.expect("BUG: refused what was written down");
            waiter.thread.unpark();
        }
        while matches!(self.desk().log, Place::OutForTheLastTime) {
            thread::park();
        }
        if let Some(prober) = prober {
            // As in `failure`.
            let _ = prober.join();
        }
    }

    /// Drops the log. A panic in its drop is reported, and leaves no thread waiting for ever.
    fn end(&self, log: Box<dyn Log>) {
        if let Err(panic) = without_unwinding(|| drop(log)) {
            self.report.error(format_args!(
                "the log panicked as it was closed: {panic}; the latest events may be lost"
            ));
        }
    }
}

/// A change in the state of the log that is to be reported.
enum Change {
    None,
    Failed(String),
    Works,
}

/// Calls code of the log, which may be an embedder's own, and returns the message if it panics.
fn without_unwinding<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = text_of(&*payload);
        // Dropping the payload would call the embedder's code, too.
        std::mem::forget(payload);
        text
    })
}

/// The message of a panic, if its payload is text.
fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".into())
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
        self.take()
    }

    fn take(&mut self) -> Option<Box<dyn Log>> {
        match std::mem::replace(&mut self.log, Place::Out) {
            Place::Here(log) => {
                self.since = Instant::now();
                Some(log)
            }
            elsewhere => {
                self.log = elsewhere;
                None
            }
        }
    }

    fn is_probe_due(&self) -> bool {
        let is_free = matches!(self.log, Place::Here(_)) && !self.is_probing;
        let has_ended = self.prober.as_ref().is_none_or(JoinHandle::is_finished);
        self.failure.is_some() && is_free && has_ended && self.since.elapsed() >= PROBE_PAUSE
    }

    /// Notes how an attempt has ended.
    fn note(&mut self, failure: Option<String>) -> Change {
        let had_failed = std::mem::replace(&mut self.failure, failure).is_some();
        match &self.failure {
            Some(failure) if !had_failed => Change::Failed(failure.clone()),
            None if had_failed => Change::Works,
            _ => Change::None,
        }
    }

    fn state(&self) -> (Option<String>, u64) {
        let time = self.since.elapsed();
        let is_stuck = matches!(self.log, Place::Out) && time > LOG_PATIENCE;
        let stuck = || format!("the log has not answered for {} s", time.as_secs());
        let failure = self.failure.clone();
        (failure.or_else(|| is_stuck.then(stuck)), self.failures)
    }

    /// Those who have come first, as many as fit.
    fn next_group(&mut self, most_bytes: usize) -> Vec<Waiter> {
        let mut bytes = 0;
        let mut fits = |waiter: &Waiter| {
            bytes += waiter
                .records
                .iter()
                .map(|record| record.message().len())
                .sum::<usize>();
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

    use super::Place;
    use crate::config::{Config, PROBE_PATIENCE};
    use crate::hub::{Hub, Kept, Log, PublishError, Record};
    use crate::report::Report;
    use crate::wire::Event;

    /// A log that says how many events it was given, and waits to be told that they are kept.
    #[derive(Debug)]
    struct Slow(Sender<usize>, Receiver<()>);

    impl Log for Slow {
        fn append(&mut self, records: &[Arc<Record>]) -> std::io::Result<()> {
            self.0.send(records.len()).unwrap();
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
        fn append(&mut self, records: &[Arc<Record>]) -> std::io::Result<()> {
            self.0.fetch_add(records.len(), Ordering::Relaxed);
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

    /// A log that does what the next number says: 0 works, 1 fails, 2 panics, 3 waits for another
    /// number. An append and a probe take one each, the end of the log the last.
    #[derive(Debug)]
    struct Moody(Receiver<u8>);

    impl Moody {
        fn act(&self) -> std::io::Result<()> {
            match self.0.recv() {
                Ok(1) => Err(std::io::Error::other("a bad mood")),
                Ok(2) => panic!("a very bad mood"),
                Ok(3) => self.act(),
                Ok(_) | Err(_) => Ok(()),
            }
        }
    }

    impl Log for Moody {
        fn append(&mut self, _: &[Arc<Record>]) -> std::io::Result<()> {
            self.act()
        }

        fn probe(&mut self) -> std::io::Result<()> {
            self.act()
        }
    }

    impl Drop for Moody {
        fn drop(&mut self) {
            let _ = self.act();
        }
    }

    /// A hub whose log is moody, and what is reported.
    fn moody() -> (Hub, Sender<u8>, Receiver<String>) {
        let (moods, log) = channel();
        let (lines, reports) = channel();
        let report = Report::new(move |_, line| {
            let _ = lines.send(line.to_string()); // Nobody may listen any more.
        });
        let config = Config {
            report,
            ..Config::default()
        };
        let hub = Hub::with_log(config, Box::new(Moody(log)), Kept::nothing()).unwrap();
        (hub, moods, reports)
    }

    fn publish(hub: &Hub) -> Result<(), PublishError> {
        hub.publish(Event::new("")).map(|_| ())
    }

    #[test]
    fn a_log_that_panics_is_a_log_that_fails() {
        let (hub, moods, reports) = moody();
        for mood in [0, 2, 1, 0] {
            moods.send(mood).unwrap();
            let why = match mood {
                0 => None,
                1 => Some("a bad mood"),
                _ => Some("the log panicked: a very bad mood"),
            };
            let expected = why.map_or(Ok(()), |why| Err(PublishError::NotKept(why.into())));
            assert_eq!(publish(&hub), expected);
        }
        assert_eq!(hub.stats().log.unwrap().failures, 2);
        let told: Vec<_> = reports.try_iter().collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("the log panicked: a very bad mood"));
        assert_eq!(told[1], "the log works again");
    }

    #[test]
    fn a_log_that_panics_as_it_is_dropped_ends_nothing_else() {
        // By a shutdown, by the last handle of the hub, and with a publisher under way.
        for way in 0..3 {
            let (hub, moods, reports) = moody();
            match way {
                0 => {
                    moods.send(2).unwrap();
                    hub.put_log_away();
                    hub.put_log_away();
                    assert_eq!(publish(&hub), Err(PublishError::Closed));
                }
                1 => {
                    moods.send(2).unwrap();
                    drop(hub);
                }
                _ => thread::scope(|scope| {
                    moods.send(3).unwrap();
                    let publisher = scope.spawn(|| publish(&hub));
                    let ledger = hub.shared.ledger.as_ref().unwrap();
                    while !matches!(ledger.desk().log, Place::Out) {
                        thread::yield_now();
                    }
                    let closer = scope.spawn(|| hub.put_log_away());
                    while ledger.desk().closers.is_empty() {
                        thread::yield_now();
                    }
                    moods.send(0).unwrap();
                    moods.send(2).unwrap();
                    assert_eq!(publisher.join().unwrap(), Ok(()));
                    closer.join().unwrap();
                }),
            }
            let told = reports.recv().unwrap();
            assert!(
                told.contains("panicked as it was closed: a very bad mood"),
                "{told}"
            );
        }
    }

    /// Waits until the hub says that.
    #[track_caller]
    fn eventually(hub: &Hub, expected: Option<&str>) {
        let start = std::time::Instant::now();
        while hub.log_failure().as_deref() != expected {
            assert!(start.elapsed().as_secs() < 20, "{:?}", hub.log_failure());
        }
    }

    #[test]
    fn a_log_that_works_again_is_found_out_without_a_publisher() {
        let (hub, moods, reports) = moody();
        assert_eq!(hub.log_failure(), None);
        // An append that fails, and then probes that do, and panic.
        for mood in [1, 1, 2, 1] {
            moods.send(mood).unwrap();
        }
        assert!(publish(&hub).is_err());
        assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        assert_eq!(
            hub.stats().log.unwrap().failure.as_deref(),
            Some("a bad mood")
        );
        eventually(&hub, Some("the log panicked: a very bad mood"));
        eventually(&hub, Some("a bad mood"));
        moods.send(0).unwrap();
        eventually(&hub, None);
        moods.send(0).unwrap();
        assert_eq!(publish(&hub), Ok(()));
        let told = [(); 2].map(|()| reports.recv().unwrap());
        assert!(
            told[0].starts_with("the log failed: a bad mood"),
            "{told:?}"
        );
        assert_eq!(told[1], "the log works again");
        assert_eq!(reports.try_recv(), Err(TryRecvError::Empty));
        // A probe is no publisher.
        assert_eq!(hub.stats().log.unwrap().failures, 1);
    }

    #[test]
    fn a_probe_that_hangs_holds_up_nobody_that_asks() {
        let (hub, moods, _reports) = moody();
        moods.send(1).unwrap();
        assert!(publish(&hub).is_err());
        // Nothing tells the log what to do: the probe hangs.
        let ledger = hub.shared.ledger.as_ref().unwrap();
        while !matches!(ledger.desk().log, Place::Out) {
            assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        }
        let start = std::time::Instant::now();
        assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        assert!(
            start.elapsed() < 10 * PROBE_PATIENCE,
            "{:?}",
            start.elapsed()
        );
        // A publisher waits for it, and then has its turn; and so has the end.
        thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(&hub));
            while ledger.desk().waiting.is_empty() {
                thread::yield_now();
            }
            moods.send(0).unwrap();
            moods.send(0).unwrap();
            assert_eq!(publisher.join().unwrap(), Ok(()));
        });
        assert_eq!(hub.log_failure(), None);
        moods.send(0).unwrap();
        hub.put_log_away();
        assert!(ledger.desk().prober.is_none());
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
