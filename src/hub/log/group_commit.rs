//! Group commit: publishers that wait for the log at the same time share one append, and
//! so one `fsync`.
//!
//! Every publisher adds its records to a queue. The first publisher that finds the log
//! free takes the log, takes the records of all publishers in the queue (a *group*), and
//! appends them in one call. Meanwhile the other publishers are parked, and new ones add
//! to the queue. When the append is done, the publisher puts the log back, wakes the
//! first publisher that waits, which appends the next group, and then tells each member
//! of its own group the outcome.
//!
//! ```text
//!             publisher 1        publisher 2        publisher 3        publisher 4
//!             queue, take log
//!             append {1}         queue, park        queue, park
//!             put log back  ───▶ take log
//!             done               append {2, 3}                         queue, park
//!                                put log back  ────────────────────▶   take log
//!                                tell 3        ───▶ done               append {4}
//! ```
//!
//! Group commit needs no thread of its own and has nothing to tune: a lone publisher
//! appends at once, and under load the groups grow by themselves, because more publishers
//! arrive during an append.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use super::{Log, LogStats, Outcome, PublishError, Record, Shared};
use crate::config::{LOG_STUCK_AFTER, PROBE_PAUSE, PROBE_WAIT};
use crate::report::{Level, Report};

/// The log of a hub, and the publishers that wait for it. Shared by the hub, and by the
/// thread of a probe.
#[derive(Debug)]
pub(in crate::hub) struct GroupCommit {
    /// LOCK: guards the queue and the ownership of the log. A thread that appends has
    /// taken the log out and released the lock: no thread waits for a disk under it.
    queue: Mutex<CommitQueue>,
    /// LIMIT: the bytes of one group, unless a single publisher brings more. A group is
    /// published as one batch, which must fit into the clients' queues.
    group_bytes: usize,
    report: Report,
    /// Signalled when the log was put back or a probe has ended.
    /// [`failure`](Self::failure) and [`close_log`](Self::close_log) wait for it.
    /// Publishers do not: each is unparked on its own.
    changed: Condvar,
}

/// The state that publishers, probes and the closing thread share. The log moves through
/// four states:
///
/// | `log` | `is_taken` | `is_closing` | state |
/// |---|---|---|---|
/// | `Some` | false | false | free: the first publisher in the queue takes it |
/// | `None` | true | any | a thread appends or probes with it, and puts it back |
/// | `Some` | false | true | about to be dropped by `close_log`; no thread takes it |
/// | `None` | false | true | closed |
#[derive(Debug)]
struct CommitQueue {
    /// The log. `None`: a thread has taken it, or it is closed. Only the thread that has
    /// taken it can append, so two threads never append at the same time.
    log: Option<Box<dyn Log>>,
    /// A thread has taken the log and will put it back. Tells this apart from a closed
    /// log.
    is_taken: bool,
    /// The log is being closed: no publisher may take it any more.
    is_closing: bool,
    /// The publishers whose records are not appended yet, in the order of arrival. LIMIT:
    /// one per thread that publishes.
    ///
    /// The invariant: if the log is here and this list is not empty, the first publisher
    /// of the list is running or has been unparked, and will take the log. So no
    /// publisher is left parked.
    waiting: Vec<Waiter>,
    /// Why the last append or the last probe failed. `None`: it succeeded, or there was
    /// none yet.
    failure: Option<String>,
    /// How many publishers were refused because an append failed.
    failures: u64,
    /// When the log was last taken or put back: how long it has not answered, and when
    /// the next probe is due.
    since: Instant,
    /// The thread that probes the log, until it has ended.
    prober: Option<JoinHandle<()>>,
}

/// A publisher in the queue. Its thread is parked until it is unparked on its own. A
/// condition variable would wake all of them after each group; ten threads that wake only
/// to wait again cost more than the disk.
#[derive(Debug)]
struct Waiter {
    records: Vec<Arc<Record>>,
    thread: Thread,
    /// Set once, by the thread that appends the records.
    outcome: Arc<OnceLock<Outcome>>,
}

impl Waiter {
    /// Sets the outcome and wakes the publisher.
    fn finish(&self, outcome: Outcome) {
        let first = self.outcome.set(outcome);
        first.expect("BUG: a publisher has two outcomes");
        self.thread.unpark();
    }
}

impl GroupCommit {
    pub(super) fn new(log: Box<dyn Log>, group_bytes: usize, report: Report) -> GroupCommit {
        GroupCommit {
            queue: Mutex::new(CommitQueue {
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
    fn queue(&self) -> MutexGuard<'_, CommitQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes `records` once the log has kept them. Blocks until this thread or
    /// another has appended them.
    pub(in crate::hub) fn publish(&self, hub: &Shared, records: Vec<Arc<Record>>) -> Outcome {
        let outcome = Arc::new(OnceLock::new());
        let waiter = Waiter {
            records,
            thread: thread::current(),
            outcome: Arc::clone(&outcome),
        };
        let mut queue = self.queue();
        if queue.is_closing {
            return Err(PublishError::Closed);
        }
        queue.waiting.push(waiter);
        loop {
            // This thread's group may be appended already, and its outcome not set yet.
            // Then the queue does not contain this publisher any more, but the thread may
            // still serve the others.
            let log = match queue.waiting[..] {
                [] => None,
                _ => queue.take_log(),
            };
            match log {
                Some(log) => {
                    let group = queue.next_group(self.group_bytes);
                    drop(queue);
                    self.commit(group, log, hub);
                }
                None => {
                    drop(queue);
                    thread::park();
                }
            }
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            queue = self.queue();
        }
    }

    /// Appends a group with the log that was taken out of the queue. The lock is not
    /// held.
    fn commit(&self, mut group: Vec<Waiter>, mut log: Box<dyn Log>, hub: &Shared) {
        let take_records = |waiter: &mut Waiter| std::mem::take(&mut waiter.records);
        let records = group.iter_mut().map(take_records).collect();
        let written = without_unwinding(|| hub.keep(&mut *log, records));
        let outcomes = written.unwrap_or_else(|panic| {
            let failure = PublishError::NotKept(format!("the log panicked: {panic}"));
            vec![Err(failure); group.len()]
        });
        // A group may be refused without asking the log: because its ids are taken, or
        // because the hub is closed.
        let tried = outcomes.iter().find_map(|outcome| match outcome {
            Ok(_) => Some(Ok(())),
            Err(PublishError::NotKept(why)) => Some(Err(why.clone())),
            Err(_) => None,
        });
        let change = self.return_log(log, tried, group.len());
        for (waiter, outcome) in group.iter().zip(outcomes) {
            waiter.finish(outcome);
        }
        // ORDER: last. The function that receives reports may publish itself, and would
        // wait for this group.
        self.report_change(change);
    }

    /// Puts the log back and wakes the next publisher, so that the disk works on the next
    /// group while this thread tells its group the outcomes. `tried` is the result of the
    /// append or probe, if there was one, on behalf of `publishers` publishers. Returns
    /// the line to report, if the state of the log has changed.
    fn return_log(
        &self,
        log: Box<dyn Log>,
        tried: Option<Result<(), String>>,
        publishers: usize,
    ) -> Option<(Level, String)> {
        let mut queue = self.queue();
        (queue.log, queue.is_taken) = (Some(log), false);
        queue.since = Instant::now();
        let change = tried.and_then(|tried| queue.note(tried, publishers));
        if let Some(next) = queue.waiting.first() {
            next.thread.unpark();
        }
        if queue.is_closing {
            self.changed.notify_all();
        }
        change
    }

    /// Reports a change of the state of the log.
    fn report_change(&self, change: Option<(Level, String)>) {
        if let Some((level, line)) = change {
            self.report.tell(level, format_args!("{line}"));
        }
    }

    /// Returns why the log refuses events, if it does.
    ///
    /// After a failure the log is probed in a separate thread, at most once per
    /// [`PROBE_PAUSE`]: without publishers, nothing else would notice that the log works
    /// again. Waits for the probe for at most [`PROBE_WAIT`] and then returns the last
    /// known state, so that a disk that hangs does not block `/health`.
    pub(super) fn failure(self: &Arc<GroupCommit>) -> Option<String> {
        let mut queue = self.queue();
        if queue.is_probe_due() {
            let group_commit = Arc::clone(self);
            let thread = thread::Builder::new().name("log probe".into());
            // LOCK: held while the thread is started, so that `prober` is set before the
            // thread clears it. If no thread can be started, the last failure remains the
            // answer.
            queue.prober = thread.spawn(move || group_commit.probe()).ok();
        }
        let is_probing = |queue: &mut CommitQueue| queue.prober.is_some();
        let waited = self
            .changed
            .wait_timeout_while(queue, PROBE_WAIT, is_probing);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.stats().failure
    }

    /// The last known state of the log. Does not probe it.
    pub(in crate::hub) fn stats(&self) -> LogStats {
        self.queue().stats()
    }

    /// Tries whether the log works again. LOCK: not held meanwhile. Publishers that
    /// arrive wait for the log, as they do during an append.
    fn probe(&self) {
        // If a publisher has taken the log meanwhile, its append shows whether the log
        // works.
        let log = self.queue().take_log();
        if let Some(mut log) = log {
            let tried = match without_unwinding(|| log.probe()) {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(panic) => Err(format!("the log panicked: {panic}")),
            };
            let change = self.return_log(log, Some(tried), 0);
            self.report_change(change);
        }
        // ORDER: last. `close_log` joins this thread only if it finds the handle.
        self.queue().prober = None;
        self.changed.notify_all();
    }

    /// Closes the log: refuses the publishers in the queue, waits until no thread has the
    /// log, and drops it. Blocks for as long as an append or a probe takes. A second call
    /// finds nothing to do.
    ///
    /// The order matters. `is_closing` is set first, under the lock: from then on no
    /// thread can take the log, so the wait for `is_taken` ends with the append that is
    /// running. The publishers in the queue are told before that wait, because nobody
    /// will append their records. The log is dropped without the lock: dropping it may
    /// wait for the disk.
    pub(in crate::hub) fn close_log(&self) {
        let mut queue = self.queue();
        queue.is_closing = true;
        let refused = std::mem::take(&mut queue.waiting);
        let prober = queue.prober.take();
        drop(queue);
        for waiter in refused {
            waiter.finish(Err(PublishError::Closed));
        }
        let queue = self
            .changed
            .wait_while(self.queue(), |queue| queue.is_taken);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        let log = queue.log.take();
        // ORDER: before the log is dropped, which may wait for the disk.
        drop(queue);
        if let Err(panic) = without_unwinding(|| drop(log)) {
            self.report.error(format_args!(
                "the log panicked as it was closed: {panic}; the latest events may be lost"
            ));
        }
        if let Some(prober) = prober
            // A function that receives reports may own the last clone of the hub, and
            // drop it in the probing thread.
            && prober.thread().id() != thread::current().id()
        {
            // A panic of the thread has been reported by the panic hook.
            let _ = prober.join();
        }
    }
}

/// Calls code of the log, which may belong to the embedding program. If it panics,
/// returns the panic's message: the publishers that wait must be told an outcome.
fn without_unwinding<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = text_of(&*payload);
        // Dropping the payload would call code of the embedding program again.
        std::mem::forget(payload);
        text
    })
}

/// The message of a panic.
fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".into())
}

impl CommitQueue {
    /// Takes the log, if it is here and not being closed.
    fn take_log(&mut self) -> Option<Box<dyn Log>> {
        if self.is_closing {
            return None;
        }
        let log = self.log.take()?;
        (self.is_taken, self.since) = (true, Instant::now());
        Some(log)
    }

    /// Whether the log has failed, is free, and was not tried within [`PROBE_PAUSE`].
    fn is_probe_due(&self) -> bool {
        let is_free = self.log.is_some() && self.prober.is_none() && !self.is_closing;
        self.failure.is_some() && is_free && self.since.elapsed() >= PROBE_PAUSE
    }

    /// Records the result of an append or probe on behalf of `publishers` publishers.
    /// Returns the line to report, if the log has begun to fail or works again.
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

    /// The state of the log. A log that has not returned from a call for
    /// [`LOG_STUCK_AFTER`] counts as failing.
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

    /// Takes the first publishers out of the queue: as many as fit into `most_bytes`, and
    /// at least one.
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

    /// A log that says how many events it was given, and waits to be told that they are
    /// kept.
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
    fn ten_publishers_that_wait_share_one_append() {
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
            while group_commit.queue().waiting.len() < 10 {
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
        // No publisher waits any more, so a second call does nothing.
        close_log(&hub);
    }

    #[test]
    fn a_publisher_that_waits_while_the_log_is_closed_is_refused() {
        let (asked, writes) = channel();
        let (done, kept) = channel();
        let hub = hub(Slow(asked, kept));
        thread::scope(|scope| {
            let first = scope.spawn(|| hub.publish(Event::new("first")));
            assert_eq!(writes.recv(), Ok(1));
            let second = scope.spawn(|| hub.publish(Event::new("second")));
            let group_commit = hub.shared.group_commit.as_ref().unwrap();
            while group_commit.queue().waiting.is_empty() {
                thread::yield_now();
            }
            let closers = [(); 2].map(|()| scope.spawn(|| close_log(&hub)));
            assert_eq!(second.join().unwrap(), Err(PublishError::Closed));
            while !group_commit.queue().is_closing {
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
    fn a_spurious_wakeup_of_a_publisher_does_no_harm() {
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

    /// A log that does what the next number says: 0 works, 1 fails, 2 panics, 3 waits for
    /// another number. An append and a probe take one each, the end of the log the last.
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
    fn a_taken_id_does_not_change_the_state_of_the_log() {
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
    fn a_log_that_panics_when_it_is_dropped_ends_nothing_else() {
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
                    while !group_commit.queue().is_taken {
                        thread::yield_now();
                    }
                    let closer = scope.spawn(|| close_log(&hub));
                    while !group_commit.queue().is_closing {
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
    fn a_log_that_works_again_is_noticed_without_a_publisher() {
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
    fn a_probe_that_hangs_does_not_block_its_callers() {
        let (hub, moods, _reports) = moody();
        moods.send(1).unwrap();
        assert!(publish(&hub).is_err());
        // Nothing tells the log what to do: the probe hangs.
        let group_commit = hub.shared.group_commit.as_ref().unwrap();
        while !group_commit.queue().is_taken {
            assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        }
        let start = std::time::Instant::now();
        assert_eq!(hub.log_failure().as_deref(), Some("a bad mood"));
        assert!(start.elapsed() < 10 * PROBE_WAIT, "{:?}", start.elapsed());
        // A publisher waits for it, and then has its turn; and so has the end.
        thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(&hub));
            while group_commit.queue().waiting.is_empty() {
                thread::yield_now();
            }
            moods.send(0).unwrap();
            moods.send(0).unwrap();
            assert_eq!(publisher.join().unwrap(), Ok(()));
        });
        assert_eq!(hub.log_failure(), None);
        moods.send(0).unwrap();
        close_log(&hub);
        assert!(group_commit.queue().prober.is_none());
    }

    #[test]
    fn a_group_is_never_larger_than_a_batch_may_be() {
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
            while group_commit.queue().waiting.len() < 5 {
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
