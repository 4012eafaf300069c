//! Where publishers wait for the log together: the first publisher that finds the log free writes down
//! what all waiting publishers have brought, so that ten publishers share one `fsync` (*group commit*).
//!
//! There is no thread for it and nothing to tune: a publisher alone writes at once, and while one
//! writes the others gather.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use super::{Log, LogStats, Outcome, PublishError, Record, Shared};
use crate::config::{LOG_STUCK_AFTER, PROBE_PAUSE, PROBE_WAIT};
use crate::report::{Level, Report};

#[derive(Debug)]
pub(in crate::hub) struct GroupCommit {
    /// LOCK: guards the list of waiting publishers, and hands out the log. The thread that writes has
    /// taken the log and released the lock: no thread waits for a disk under it.
    desk: Mutex<CommitQueue>,
    /// LIMIT: bytes of one group, or what one publisher brings: what is written down together is
    /// passed on together, and has to fit into queues.
    group_bytes: usize,
    report: Report,
    /// The log is back, or a probe has ended. [`failure`](Self::failure) and
    /// [`close_log`](Self::close_log) wait for it.
    changed: Condvar,
}

#[derive(Debug)]
struct CommitQueue {
    /// `None`: a thread has taken it, or it is closed. There is one log, so two threads cannot write at a
    /// time.
    log: Option<Box<dyn Log>>,
    /// A thread has the log, and will give it back.
    is_taken: bool,
    /// The hub is closed, or about to be: nothing is published any more.
    is_closing: bool,
    /// The publishers that are not written down yet, in the order of coming. LIMIT: one for each thread
    /// that publishes. While the log is on the desk the first has been woken, and will take it.
    waiting: Vec<Waiter>,
    /// Why the last group was not kept, or the last probe failed. `None`: the log works.
    failure: Option<String>,
    /// How many publishers were refused because the log had failed.
    failures: u64,
    /// When the log was taken or given back last.
    since: Instant,
    /// The thread of a probe, until it has ended.
    prober: Option<JoinHandle<()>>,
}

/// A publisher that waits, parked. Each is woken for itself, because ten that are woken to see that
/// it is not their turn cost more than the disk.
#[derive(Debug)]
struct Waiter {
    records: Vec<Arc<Record>>,
    thread: Thread,
    /// Filled by the thread that writes the events down.
    outcome: Arc<OnceLock<Outcome>>,
}

impl Waiter {
    fn tell(&self, outcome: Outcome) {
        let first = self.outcome.set(outcome);
        first.expect("BUG: a publisher has two outcomes");
        self.thread.unpark();
    }
}

impl GroupCommit {
    pub(super) fn new(log: Box<dyn Log>, group_bytes: usize, report: Report) -> GroupCommit {
        GroupCommit {
            desk: Mutex::new(CommitQueue {
                log: Some(log),
                is_taken: false,
                is_closing: false,
                waiting: Vec::new(),
                failure: None,
                failures: 0,
                since: Instant::now(),
                prober: None,
            }),
            group_bytes,
            report,
            changed: Condvar::new(),
        }
    }

    /// Poisoning is passed over: no code of an embedder runs under this lock.
    fn desk(&self) -> MutexGuard<'_, CommitQueue> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `records` are written down, by this thread or by another.
    pub(in crate::hub) fn publish(&self, hub: &Shared, records: Vec<Arc<Record>>) -> Outcome {
        let outcome = Arc::new(OnceLock::new());
        let waiter = Waiter {
            records,
            thread: thread::current(),
            outcome: Arc::clone(&outcome),
        };
        let mut desk = self.desk();
        if desk.is_closing {
            return Err(PublishError::Closed);
        }
        desk.waiting.push(waiter);
        loop {
            // A thread that comes here may be of a group that was written, and not be told yet.
            let log = match desk.waiting[..] {
                [] => None,
                _ => desk.take_log(),
            };
            match log {
                Some(log) => {
                    let group = desk.next_group(self.group_bytes);
                    drop(desk);
                    self.write_down(group, log, hub);
                }
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

    /// Writes a group with the log that was taken from the desk, without the lock.
    fn write_down(&self, mut group: Vec<Waiter>, mut log: Box<dyn Log>, hub: &Shared) {
        let take_records = |waiter: &mut Waiter| std::mem::take(&mut waiter.records);
        let records = group.iter_mut().map(take_records).collect();
        let written = without_unwinding(|| hub.keep(&mut *log, records));
        let outcomes = written.unwrap_or_else(|panic| {
            let failure = PublishError::NotKept(format!("the log panicked: {panic}"));
            vec![Err(failure); group.len()]
        });
        // A group may be refused without the log: because of its ids, or because the hub is closed.
        let tried = outcomes.iter().find_map(|outcome| match outcome {
            Ok(_) => Some(Ok(())),
            Err(PublishError::NotKept(why)) => Some(Err(why.clone())),
            Err(_) => None,
        });
        let change = self.give_back(log, tried, group.len());
        for (waiter, outcome) in group.iter().zip(outcomes) {
            waiter.tell(outcome);
        }
        // ORDER: last: the report's listener may publish, and would wait for this thread.
        self.tell(change);
    }

    /// Puts the log back, and wakes the next publisher to write, so that the disk does not wait for the
    /// answers. `tried` is how an attempt to write has ended, if there was one, for how many `publishers`.
    /// Returns what is to be reported.
    fn give_back(
        &self,
        log: Box<dyn Log>,
        tried: Option<Result<(), String>>,
        publishers: usize,
    ) -> Option<(Level, String)> {
        let mut desk = self.desk();
        (desk.log, desk.is_taken) = (Some(log), false);
        desk.since = Instant::now();
        let change = tried.and_then(|tried| desk.note(tried, publishers));
        if let Some(next) = desk.waiting.first() {
            next.thread.unpark();
        }
        if desk.is_closing {
            self.changed.notify_all();
        }
        change
    }

    fn tell(&self, change: Option<(Level, String)>) {
        if let Some((level, line)) = change {
            self.report.tell(level, format_args!("{line}"));
        }
    }

    /// Why the log refuses events, if it does.
    ///
    /// After a failure the log is tried again, in a thread of its own, at most once in
    /// [`PROBE_PAUSE`]: without publishers nothing else would find out that it works again. Waits for
    /// the probe for [`PROBE_WAIT`], and then returns the last known state, so that a disk that hangs
    /// does not block the caller.
    pub(super) fn failure(self: &Arc<GroupCommit>) -> Option<String> {
        let mut desk = self.desk();
        if desk.is_probe_due() {
            let group_commit = Arc::clone(self);
            let thread = thread::Builder::new().name("log probe".into());
            // LOCK: held while the thread is started, so that its end comes after it is known. If there is
            // no thread to be had, the failure stays what is known.
            desk.prober = thread.spawn(move || group_commit.probe()).ok();
        }
        let is_probing = |desk: &mut CommitQueue| desk.prober.is_some();
        let waited = self
            .changed
            .wait_timeout_while(desk, PROBE_WAIT, is_probing);
        let (desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        desk.stats().failure
    }

    /// The state of the log as far as is known without trying it.
    pub(in crate::hub) fn stats(&self) -> LogStats {
        self.desk().stats()
    }

    /// Tries whether the log works again. LOCK: not held meanwhile; publishers wait for the log as
    /// they do while another one writes.
    fn probe(&self) {
        // A publisher may have taken the log by now, and then finds out whether it works.
        let log = self.desk().take_log();
        if let Some(mut log) = log {
            let tried = match without_unwinding(|| log.probe()) {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(panic) => Err(format!("the log panicked: {panic}")),
            };
            let change = self.give_back(log, Some(tried), 0);
            self.tell(change);
        }
        // `close_log` joins this thread if it finds the handle. After this there is nothing left to do.
        self.desk().prober = None;
        self.changed.notify_all();
    }

    /// Closes the log, once no thread writes with it. Nothing is published any more.
    pub(in crate::hub) fn close_log(&self) {
        let mut desk = self.desk();
        desk.is_closing = true;
        let refused = std::mem::take(&mut desk.waiting);
        let prober = desk.prober.take();
        drop(desk);
        for waiter in refused {
            waiter.tell(Err(PublishError::Closed));
        }
        let desk = self.changed.wait_while(self.desk(), |desk| desk.is_taken);
        let mut desk = desk.unwrap_or_else(PoisonError::into_inner);
        let log = desk.log.take();
        // ORDER: without the lock: to drop a log may wait for its disk.
        drop(desk);
        if let Err(panic) = without_unwinding(|| drop(log)) {
            self.report.error(format_args!(
                "the log panicked as it was closed: {panic}; the latest events may be lost"
            ));
        }
        if let Some(prober) = prober
            // A report that holds a hub may drop its last clone in the probe itself.
            && prober.thread().id() != thread::current().id()
        {
            // A panic in it has been reported.
            let _ = prober.join();
        }
    }
}

/// Calls code of the log, which may be an embedder's own, and returns the message if it panics: the
/// publishers that wait must not wait for ever.
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

impl CommitQueue {
    /// The log, if it is there and not about to be closed.
    fn take_log(&mut self) -> Option<Box<dyn Log>> {
        if self.is_closing {
            return None;
        }
        let log = self.log.take()?;
        (self.is_taken, self.since) = (true, Instant::now());
        Some(log)
    }

    fn is_probe_due(&self) -> bool {
        let is_free = self.log.is_some() && self.prober.is_none() && !self.is_closing;
        self.failure.is_some() && is_free && self.since.elapsed() >= PROBE_PAUSE
    }

    /// Notes how an attempt has ended for so many publishers. Returns what is to be reported, if that is
    /// new.
    fn note(&mut self, tried: Result<(), String>, publishers: usize) -> Option<(Level, String)> {
        let had_failed = self.failure.is_some();
        if tried.is_err() {
            self.failures += publishers as u64;
        }
        self.failure = tried.err();
        match &self.failure {
            Some(failure) if !had_failed => {
                let line =
                    format!("the log failed: {failure}; publishers get 503 until it works again");
                Some((Level::Error, line))
            }
            None if had_failed => Some((Level::Warn, "the log works again".into())),
            _ => None,
        }
    }

    fn stats(&self) -> LogStats {
        let time = self.since.elapsed();
        let is_stuck = self.is_taken && time > LOG_STUCK_AFTER;
        let stuck = || format!("the log has not answered for {} s", time.as_secs());
        let failure = self.failure.clone();
        LogStats {
            failure: failure.or_else(|| is_stuck.then(stuck)),
            failures: self.failures,
        }
    }

    /// The publishers that came first, as many as fit.
    fn next_group(&mut self, most_bytes: usize) -> Vec<Waiter> {
        let mut bytes = 0;
        let fits = |waiter: &&Waiter| {
            bytes += waiter
                .records
                .iter()
                .map(|record| record.message().len())
                .sum::<usize>();
            bytes <= most_bytes
        };
        let count = self.waiting.iter().take_while(fits).count();
        self.waiting.drain(..count.max(1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
    use std::thread;

    use crate::config::{Config, PROBE_WAIT};
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

    fn close_log(hub: &Hub) {
        hub.shared.group_commit.as_ref().unwrap().close_log();
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
            let group_commit = hub.shared.group_commit.as_ref().unwrap();
            while group_commit.desk().waiting.len() < 10 {
                thread::yield_now();
            }
            done.send(()).unwrap();
            assert_eq!(writes.recv(), Ok(10));
            done.send(()).unwrap();
        });
        assert_eq!(hub.stats().history.events, 11);
        hub.close();
        close_log(&hub);
        // The log wrote no more, and is gone.
        assert_eq!(writes.try_recv(), Err(TryRecvError::Disconnected));
        assert!(hub.publish(Event::new("late")).is_err());
        // Nobody is left who waits, so to close again is to do nothing.
        close_log(&hub);
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
            let group_commit = hub.shared.group_commit.as_ref().unwrap();
            while group_commit.desk().waiting.is_empty() {
                thread::yield_now();
            }
            let closers = [(); 2].map(|()| scope.spawn(|| close_log(&hub)));
            assert_eq!(second.join().unwrap(), Err(PublishError::Closed));
            while !group_commit.desk().is_closing {
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
        assert_eq!(hub.log_stats().unwrap().failures, 2);
        let told: Vec<_> = reports.try_iter().collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("the log panicked: a very bad mood"));
        assert_eq!(told[1], "the log works again");
    }

    #[test]
    fn an_id_that_is_taken_says_nothing_of_the_log() {
        let (hub, moods, reports) = moody();
        let publish_mine = || hub.publish(Event::new("").with_id("mine").unwrap());
        moods.send(0).unwrap();
        publish_mine().unwrap();
        moods.send(1).unwrap();
        assert!(publish(&hub).is_err());
        let outcome = publish_mine();
        assert!(matches!(outcome, Err(PublishError::IdTaken { .. })));
        let log = hub.log_stats().unwrap();
        assert_eq!(
            (log.failure.as_deref(), log.failures),
            (Some("a bad mood"), 1)
        );
        assert_eq!(reports.try_iter().count(), 1);
    }

    #[test]
    fn a_log_that_panics_as_it_is_dropped_ends_nothing_else() {
        // By a shutdown, by the last handle of the hub, and with a publisher under way.
        for way in 0..3 {
            let (hub, moods, reports) = moody();
            match way {
                0 => {
                    moods.send(2).unwrap();
                    close_log(&hub);
                    close_log(&hub);
                    assert_eq!(publish(&hub), Err(PublishError::Closed));
                }
                1 => {
                    moods.send(2).unwrap();
                    drop(hub);
                }
                _ => thread::scope(|scope| {
                    moods.send(3).unwrap();
                    let publisher = scope.spawn(|| publish(&hub));
                    let group_commit = hub.shared.group_commit.as_ref().unwrap();
                    while !group_commit.desk().is_taken {
                        thread::yield_now();
                    }
                    let closer = scope.spawn(|| close_log(&hub));
                    while !group_commit.desk().is_closing {
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
            hub.log_stats().unwrap().failure.as_deref(),
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
        assert_eq!(hub.log_stats().unwrap().failures, 1);
    }

    #[test]
    fn a_probe_that_hangs_holds_up_nobody_that_asks() {
        let (hub, moods, _reports) = moody();
        moods.send(1).unwrap();
        assert!(publish(&hub).is_err());
        // Nothing tells the log what to do: the probe hangs.
        let group_commit = hub.shared.group_commit.as_ref().unwrap();
        while !group_commit.desk().is_taken {
            assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        }
        let start = std::time::Instant::now();
        assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        assert!(start.elapsed() < 10 * PROBE_WAIT, "{:?}", start.elapsed());
        // A publisher waits for it, and then has its turn; and so has the end.
        thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(&hub));
            while group_commit.desk().waiting.is_empty() {
                thread::yield_now();
            }
            moods.send(0).unwrap();
            moods.send(0).unwrap();
            assert_eq!(publisher.join().unwrap(), Ok(()));
        });
        assert_eq!(hub.log_failure(), None);
        moods.send(0).unwrap();
        close_log(&hub);
        assert!(group_commit.desk().prober.is_none());
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
            let group_commit = hub.shared.group_commit.as_ref().unwrap();
            while group_commit.desk().waiting.len() < 5 {
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
