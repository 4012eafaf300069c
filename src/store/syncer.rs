//! Syncs what was written a while ago, on a thread of its own: what `--sync interval` is.
//!
//! The thread sleeps until something is written, waits so that more can come, and makes one sync of
//! all of it. A sync that fails is not tried again: the system may have given up the bytes that it
//! could not write and call the next attempt a success. The journal must write them anew.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::Disk;
use crate::report::Report;

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Syncer {
    task: Arc<Task>,
    /// There until it is joined.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Task {
    interval: Duration,
    report: Report,
    /// LOCK: how far the newest segment is written and synced. Both threads take it for a few
    /// instructions; neither writes or syncs under it.
    progress: Mutex<Progress>,
    /// Something is to be synced, or was, or there is nothing more to do.
    changed: Condvar,
}

#[derive(Debug)]
struct Progress {
    disk: Arc<dyn Disk>,
    /// The length of what was written and acknowledged.
    written: u64,
    /// The length of what was written when the last sync that succeeded began.
    durable: u64,
    /// One of the threads is in a sync. A system tells of a failure once, to the thread that syncs first,
    /// so there is never a second thread that would be told that all is well.
    is_syncing: bool,
    /// The last sync has failed: what comes after `durable` may never get to the disk.
    has_failed: bool,
    is_over: bool,
}

impl Progress {
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

    /// The segment has grown to `len` bytes.
    pub(super) fn wrote(&self, len: u64) {
        let mut progress = self.task.progress();
        let was_due = progress.is_due();
        progress.written = len;
        drop(progress);
        if !was_due {
            self.task.changed.notify_all();
        }
    }

    /// Another file is written to from now on; the one before is synced, or does not matter any
    /// more. All `len` bytes of this one are durable.
    pub(super) fn turn_to(&self, disk: Arc<dyn Disk>, len: u64) {
        let mut progress = self.task.progress_when(|progress| !progress.is_syncing);
        (progress.disk, progress.written, progress.durable) = (disk, len, len);
        progress.has_failed = false;
    }

    /// If a sync has failed: up to where the segment is durable.
    pub(super) fn failed_at(&self) -> Option<u64> {
        let progress = self.task.progress();
        progress.has_failed.then_some(progress.durable)
    }

    /// Syncs now, on this thread, and forgets a failure if that succeeds: the bytes that it was
    /// about must have been written again.
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
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress_when(|_| true)
    }

    /// Poisoning is passed over: no code of an embedder runs under this lock.
    fn progress_when(&self, is_ready: fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = self
            .changed
            .wait_while(progress, |progress| !is_ready(progress));
        progress.unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let progress = self.progress_when(|progress| progress.is_over || progress.is_due());
            let (progress, _) = self
                .changed
                .wait_timeout_while(progress, self.interval, |progress| !progress.is_over)
                .unwrap_or_else(PoisonError::into_inner);
            if progress.is_over {
                // The journal syncs what is left.
                return;
            }
            drop(progress);
            // Not if a sync of the journal's has failed meanwhile.
            if let Err(error) = self.sync_if(Progress::is_due) {
                self.report.error(format_args!(
                    "{error}; what was published since the last sync is written again with the next event"
                ));
            }
        }
    }

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
