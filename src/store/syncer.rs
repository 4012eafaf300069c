//! `--sync interval`: syncs the newest segment in a thread of its own, a moment after
//! something was written.
//!
//! The thread sleeps until bytes are written, waits one interval so that more can follow,
//! and syncs all of them at once. A failed sync is not repeated: the system may have
//! dropped the bytes that it could not write, and report success the next time. The
//! journal must write these bytes again (`Journal::rewrite_unsynced`).
//!
//! ```text
//! journal's thread:   write 100 bytes       write 50 bytes          write 20 bytes
//! written             100                   150                     170
//! this thread:        wakes, waits one interval        syncs [0, 150)          waits, syncs …
//! durable             0                                0 → 150
//! ```
//!
//! `durable` becomes the value that `written` had when the sync *began*: bytes that are
//! written during a sync may not be part of it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::Disk;
use crate::report::Report;

/// The handle of the thread, which the journal has. Dropping it ends the thread and joins
/// it: the drop waits for a sync that is running, and for nothing else.
#[derive(Debug)]
pub(super) struct Syncer {
    task: Arc<Task>,
    /// `None` once it is joined.
    thread: Option<JoinHandle<()>>,
}

/// The state that the journal's thread and the syncing thread share.
#[derive(Debug)]
struct Task {
    /// The time from the first byte to its sync. A power failure loses at most the events
    /// of this time and of one sync.
    interval: Duration,
    /// Receives the error of a sync that failed.
    report: Report,
    /// LOCK: guards how far the newest segment is written and synced. Both threads hold
    /// it for a few instructions; neither writes or syncs under it.
    progress: Mutex<Progress>,
    /// Signalled when bytes were written, when a sync has ended, and when the thread
    /// should end.
    changed: Condvar,
}

/// How far the newest segment is written and synced. `durable <= written` holds at all
/// times. The bytes between the two are in the cache of the system: a killed process does
/// not lose them, but a power failure does.
#[derive(Debug)]
struct Progress {
    /// The newest segment.
    disk: Arc<dyn Disk>,
    /// The length of the segment that was written and acknowledged, in bytes.
    written: u64,
    /// The length that is durable: `written` at the beginning of the last successful
    /// sync.
    durable: u64,
    /// One of the two threads is syncing. The system reports a failed write only once, to
    /// the first `fsync`; so there is never a second sync at the same time, which would
    /// report success.
    is_syncing: bool,
    /// The last sync has failed: the bytes after `durable` may never reach the disk.
    has_failed: bool,
    /// The thread should end. It does not sync once more before that: the journal has
    /// synced everything itself, before it drops the handle.
    is_over: bool,
}

impl Progress {
    /// Whether there are bytes to sync, and they need not be written again first. After a
    /// failed sync this is false: a second `fsync` could report success for bytes that
    /// the system has dropped.
    fn is_due(&self) -> bool {
        self.durable < self.written && !self.has_failed
    }
}

impl Syncer {
    /// Starts the thread for a segment of which `len` bytes are durable.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        len: u64,
        interval: Duration,
        report: Report,
    ) -> io::Result<Syncer> {
        let task = Arc::new(Task {
            interval,
            report,
            progress: Mutex::new(Progress {
                disk,
                written: len,
                durable: len,
                is_syncing: false,
                has_failed: false,
                is_over: false,
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&task);
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || of_thread.run())?;
        Ok(Syncer {
            task,
            thread: Some(thread),
        })
    }

    /// Tells the thread that the segment has grown to `len` bytes. Called after each
    /// append, so it wakes the thread only if the thread has nothing to do yet.
    pub(super) fn wrote(&self, len: u64) {
        let mut progress = self.task.progress();
        let was_due = progress.is_due();
        progress.written = len;
        drop(progress);
        if !was_due {
            self.task.changed.notify_all();
        }
    }

    /// From now on, syncs this file, of which `len` bytes are durable. The file before is
    /// synced, or does not matter any more. Waits for a sync that is running.
    pub(super) fn turn_to(&self, disk: Arc<dyn Disk>, len: u64) {
        let mut progress = self.task.progress_when(|progress| !progress.is_syncing);
        (progress.disk, progress.written, progress.durable) = (disk, len, len);
        progress.has_failed = false;
    }

    /// After a failed sync: the length of the segment that is durable. `None`: the last
    /// sync has succeeded. The journal asks before each append, and then writes the bytes
    /// after this length once more.
    pub(super) fn failed_at(&self) -> Option<u64> {
        let progress = self.task.progress();
        progress.has_failed.then_some(progress.durable)
    }

    /// Syncs in the calling thread. Success clears an earlier failure: the caller must
    /// have written the bytes again.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.task
            .sync_if(|progress| progress.durable < progress.written)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.task.progress().is_over = true;
        self.task.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported.
            let _ = thread.join();
        }
    }
}

impl Task {
    /// Locks the progress at once.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress_when(|_| true)
    }

    /// Locks the progress once `is_ready`. A poisoned lock is used as it is: only code of
    /// this file runs under it.
    fn progress_when(&self, is_ready: fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = self
            .changed
            .wait_while(progress, |progress| !is_ready(progress));
        progress.unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the thread: waits for bytes, waits one interval, syncs. An error is
    /// reported once, because after it nothing is due until the journal has written the
    /// bytes again and has synced them itself.
    fn run(&self) {
        loop {
            let progress = self.progress_when(|progress| progress.is_over || progress.is_due());
            let (progress, _) = self
                .changed
                .wait_timeout_while(progress, self.interval, |progress| !progress.is_over)
                .unwrap_or_else(PoisonError::into_inner);
            if progress.is_over {
                // The journal itself syncs the rest when it is dropped.
                return;
            }
            drop(progress);
            // `is_due` is asked again: a sync of the journal may have failed meanwhile.
            if let Err(error) = self.sync_if(Progress::is_due) {
                self.report.error(format_args!(
                    "{error}; the events since the last sync are written again before the next event"
                ));
            }
        }
    }

    /// Syncs if `is_wanted`, once no other sync is running. LOCK: not held during the
    /// sync, so the journal appends meanwhile.
    ///
    /// ORDER: `written` is read before the sync begins, and becomes `durable` after the
    /// sync has succeeded. Read afterwards, it would include bytes that came too late for
    /// the sync.
    fn sync_if(&self, is_wanted: fn(&Progress) -> bool) -> io::Result<()> {
        let mut progress = self.progress_when(|progress| !progress.is_syncing);
        if !is_wanted(&progress) {
            return Ok(());
        }
        progress.is_syncing = true;
        let (disk, written) = (Arc::clone(&progress.disk), progress.written);
        drop(progress);
        let result = disk.sync();
        let mut progress = self.progress();
        progress.is_syncing = false;
        progress.has_failed = result.is_err();
        if result.is_ok() {
            progress.durable = written;
        }
        drop(progress);
        self.changed.notify_all();
        result
    }
}
