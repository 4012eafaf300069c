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

/// The thread, which ends with this.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    /// There until it is joined.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    interval: Duration,
    report: Report,
    /// LOCK: how far the present segment is written and synced. Both threads take it for a few
    /// instructions; neither writes or syncs under it.
    state: Mutex<State>,
    /// Something is to be synced, or was, or there is nothing more to do.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    disk: Arc<Disk>,
    /// The length of what was written and acknowledged.
    written: u64,
    /// The length of what was written when the last sync that succeeded began.
    durable: u64,
    /// One of the threads is in a sync. A system tells of a failure once, to whoever syncs first,
    /// so there is never a second who would be told that all is well.
    syncing: bool,
    /// Why what is behind `durable` may never get to the disk.
    failure: Option<io::Error>,
    over: bool,
}

impl State {
    fn is_due(&self) -> bool {
        self.durable < self.written && self.failure.is_none()
    }
}

impl Syncer {
    /// Starts the thread for a segment of which `len` bytes are durable.
    pub(super) fn start(
        disk: Arc<Disk>,
        len: u64,
        interval: Duration,
        report: Report,
    ) -> io::Result<Syncer> {
        let shared = Arc::new(Shared {
            interval,
            report,
            state: Mutex::new(State {
                disk,
                written: len,
                durable: len,
                syncing: false,
                failure: None,
                over: false,
            }),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || theirs.run())?;
        Ok(Syncer {
            shared,
            thread: Some(thread),
        })
    }

    /// The segment has grown to `len` bytes.
    pub(super) fn wrote(&self, len: u64) {
        let mut state = self.shared.state();
        let was_due = state.is_due();
        state.written = len;
        drop(state);
        if !was_due {
            self.shared.changed.notify_all();
        }
    }

    /// Another file is written to from now on; the one before is synced, or does not matter any
    /// more. All `len` bytes of this one are durable.
    pub(super) fn turn_to(&self, disk: Arc<Disk>, len: u64) {
        let mut state = self.shared.state_at_rest();
        (state.disk, state.written, state.durable) = (disk, len, len);
        state.failure = None;
    }

    /// If a sync has failed: up to where the segment is durable.
    pub(super) fn failed_at(&self) -> Option<u64> {
        let state = self.shared.state();
        state.failure.as_ref().map(|_| state.durable)
    }

    /// Syncs now, on this thread, and forgets a failure if that succeeds: the bytes that it was
    /// about must have been written again.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.shared.sync_if(|state| state.durable < state.written)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It panics only if whom it reports to does, who has then been told of it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Poisoning is passed over: no code of others runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_at_rest(&self) -> MutexGuard<'_, State> {
        self.changed
            .wait_while(self.state(), |state| state.syncing)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while self.wait_until_due() {
            // Not if a sync of the journal's has failed meanwhile.
            if let Err(error) = self.sync_if(State::is_due) {
                self.report.error(format_args!(
                    "{error}; what was published since the last sync is written again with the next event"
                ));
            }
        }
    }

    /// Waits for something to sync, and then for the interval. `false`: it is over, and whoever
    /// ended it syncs.
    fn wait_until_due(&self) -> bool {
        let idle = |state: &mut State| !state.over && !state.is_due();
        let state = self
            .changed
            .wait_while(self.state(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, self.interval, |state| !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        !state.over
    }

    fn sync_if(&self, wanted: impl Fn(&State) -> bool) -> io::Result<()> {
        let mut state = self.state_at_rest();
        if !wanted(&state) {
            return Ok(());
        }
        state.syncing = true;
        let (disk, written) = (Arc::clone(&state.disk), state.written);
        drop(state);
        let result = disk.sync();
        let mut state = self.state();
        state.syncing = false;
        match &result {
            Ok(()) => (state.durable, state.failure) = (written, None),
            Err(error) => state.failure = Some(io::Error::new(error.kind(), error.to_string())),
        }
        drop(state);
        self.changed.notify_all();
        result
    }
}
