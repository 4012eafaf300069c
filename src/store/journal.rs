//! The journal: appends events to a file before anybody hears of them, and keeps the file whole
//! when the disk does not take them.
//!
//! What a file holds up to the *good length* was acknowledged. An append writes behind it, and
//! moves it when all is there. Whatever fails on the way is answered in one manner: the file is cut
//! back to the good length, the publisher is told, and the next append begins as if nothing had
//! been. If even the cut fails, the file may hold something behind the good length, and nothing is
//! accepted until it could be cut.
//!
//! `segment.rs` has the format, `recovery.rs` what is done with a file that a crash has left.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, Disk, failed};
use super::syncer::Syncer;
use super::{recovery, segment};
use crate::config::{SEGMENT_BYTES, SYNC_INTERVAL, SyncMode};
use crate::hub::{Entry, Kept, Log};
use crate::report::Report;
use crate::wire::EventId;

/// What a [`Journal`] is to be.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Where its files are. The directory is created, but not those above it.
    pub dir: PathBuf,
    /// When to sync.
    pub sync: SyncMode,
    /// Whether to open a journal that is damaged: what is behind the damage in its segment is moved
    /// into a file next to it, and the history begins behind it.
    pub repair: bool,
    /// How many of the latest events are wanted back at the most.
    pub events: usize,
    /// How many bytes of messages are wanted back at the most.
    pub bytes: usize,
    /// Who is told what was found and done, and of a sync in the background that failed.
    pub report: Report,
}

/// An append-only log in files `00000001.sse`, `00000002.sse`, … of one directory: an event stream
/// in plain text, which `less` and any reader of event streams can read.
///
/// A file that has grown past 32 MiB is followed by a new one. The journal never removes any; the
/// oldest can be deleted at any time.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    sync: SyncMode,
    report: Report,
    pub(super) present: Present,
    /// The latest id in the journal.
    last: EventId,
    /// An append has failed and could not be taken back: the file may have something behind the
    /// good length.
    torn: bool,
    /// Only with [`SyncMode::Interval`].
    pub(super) syncer: Option<Syncer>,
    /// The size that lets the next append begin a new segment.
    pub(super) segment_bytes: u64,
    /// Held for as long as the journal is open, and freed by the system however we end.
    _lock: File,
}

/// The segment that is written to: the newest.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) number: u64,
    /// Shared with the thread that syncs.
    pub(super) disk: Arc<Disk>,
    /// The good length: what is acknowledged ends here.
    pub(super) len: u64,
}

impl Journal {
    /// Opens the journal in a directory, or begins one there, whose first event comes after `born`.
    /// Reads as much from its end as is wanted back, and the newest segment whole. If the newest
    /// ends in something that was not written to its end, which is what a crash leaves, that is cut
    /// off and reported. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The directory is in use by another server ([`ResourceBusy`](io::ErrorKind::ResourceBusy)),
    /// is damaged, which no crash can do to what was synced
    /// ([`InvalidData`](io::ErrorKind::InvalidData)), was written by another version
    /// ([`Unsupported`](io::ErrorKind::Unsupported)), or cannot be read or written to. The message
    /// names the file and, for a damage, the place.
    pub fn open(options: JournalOptions, born: EventId) -> io::Result<(Journal, Kept)> {
        let lock = occupy(&options.dir)?;
        let (present, kept) = recovery::recover(&options, born)?;
        let syncer = match options.sync {
            SyncMode::Interval => {
                let disk = Arc::clone(&present.disk);
                let report = options.report.clone();
                Some(Syncer::start(disk, present.len, SYNC_INTERVAL, report)?)
            }
            SyncMode::Always | SyncMode::Off => None,
        };
        let journal = Journal {
            dir: options.dir,
            sync: options.sync,
            report: options.report,
            present,
            last: kept.last_id(),
            torn: false,
            syncer,
            segment_bytes: SEGMENT_BYTES,
            _lock: lock,
        };
        Ok((journal, kept))
    }

    /// Writes behind the good length and makes it durable, if that is to be now.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.present.disk.write_at(self.present.len, bytes)?;
        match self.sync {
            SyncMode::Always => self.present.disk.sync(),
            SyncMode::Interval | SyncMode::Off => Ok(()),
        }
    }

    /// Makes good what an earlier append or sync has left, if one has.
    fn restore(&mut self) -> io::Result<()> {
        if self.torn {
            self.cut_back()?;
            self.torn = false;
        }
        self.write_anew()
    }

    /// Cuts the segment to its good length.
    ///
    /// This is also right after an `fsync` that failed, which is the treacherous case: the system
    /// may then hold pages that it calls clean and that are not on the disk, and the next `fsync`
    /// would say Ok without having written them. But those are pages of what we take back: up to
    /// the good length everything was synced before, with success. The cut throws the pages behind
    /// it away and makes the one that it goes through dirty; what is appended next is written into
    /// pages that are dirty again. So the next `fsync` that succeeds has really written all of it.
    fn cut_back(&self) -> io::Result<()> {
        self.present.disk.set_len(self.present.len)?;
        // Or what the publisher was told is not kept would be found again after a power cut.
        match self.sync {
            SyncMode::Always => self.present.disk.sync(),
            SyncMode::Interval | SyncMode::Off => Ok(()),
        }
    }

    /// After a sync in the background has failed: writes again what was acknowledged but is not
    /// known to be durable, and syncs that.
    ///
    /// It cannot be taken back, because clients have it. And a second sync alone would prove
    /// nothing, as said above: the pages must be dirty again. The bytes are those that the system
    /// still has in memory; one that has dropped them with the error (Btrfs does) gives back
    /// something else, which does not check, and then only a new start helps.
    fn write_anew(&self) -> io::Result<()> {
        let Some(syncer) = &self.syncer else {
            return Ok(());
        };
        let Some(durable) = syncer.failed_at() else {
            return Ok(());
        };
        let disk = &self.present.disk;
        let mut bytes = vec![0; (self.present.len - durable) as usize];
        disk.read_at(durable, &mut bytes)?;
        if !segment::is_whole(&bytes) {
            return Err(io::Error::other(format!(
                "{} has lost what could not be synced behind byte {durable}; start again to go on without it",
                disk.path().display()
            )));
        }
        disk.write_at(durable, &bytes)?;
        syncer.sync()
    }

    /// Syncs all that is acknowledged, in whatever mode but [`SyncMode::Off`].
    fn flush(&self) -> io::Result<()> {
        match (self.sync, &self.syncer) {
            (_, Some(syncer)) => syncer.sync(),
            (SyncMode::Off, None) => Ok(()),
            (_, None) => self.present.disk.sync(),
        }
    }

    /// Begins a new segment if this one is full. When it fails nothing has changed.
    fn rotate_if_full(&mut self) -> io::Result<()> {
        if self.present.len < self.segment_bytes {
            return Ok(());
        }
        // ORDER: the old segment before the new one is there, so that only the newest can be torn.
        self.flush()?;
        let next = Present::begin(&self.dir, self.present.number + 1, self.last, self.sync)?;
        if let Some(syncer) = &self.syncer {
            syncer.turn_to(Arc::clone(&next.disk), next.len);
        }
        self.present = next;
        Ok(())
    }

    /// What is to be written for these entries.
    fn encode(&self, entries: &[Entry<'_>]) -> io::Result<Vec<u8>> {
        let (mut bytes, mut last) = (Vec::new(), self.last);
        for entry in entries {
            let refused = if entry.id <= last {
                format!("id {} is not after {last}", entry.id)
            } else if !segment::is_message(entry.message) {
                format!("event {} is not one message with its id first", entry.id)
            } else {
                last = entry.id;
                segment::encode_event(entry, &mut bytes);
                continue;
            };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, refused));
        }
        Ok(bytes)
    }
}

impl Log for Journal {
    fn append(&mut self, entries: &[Entry<'_>]) -> io::Result<()> {
        let Some(newest) = entries.last() else {
            return Ok(());
        };
        let bytes = self.encode(entries)?;
        self.restore()?;
        self.rotate_if_full()?;
        if let Err(error) = self.write(&bytes) {
            self.torn = true;
            // The cause is what the publisher must hear of; if this fails, the next one hears of it.
            let _ = self.restore();
            return Err(error);
        }
        self.present.len += bytes.len() as u64;
        self.last = newest.id;
        if let Some(syncer) = &self.syncer {
            syncer.wrote(self.present.len);
        }
        Ok(())
    }
}

impl Drop for Journal {
    /// Syncs what is not synced, unless it was never to be.
    fn drop(&mut self) {
        if let Err(error) = self.restore().and_then(|()| self.flush()) {
            let lost = "the latest events may not outlive a power cut";
            self.report.error(format_args!("{error}; {lost}"));
        }
    }
}

impl Present {
    /// Begins a segment after the event with this id.
    pub(super) fn begin(
        dir: &Path,
        number: u64,
        after: EventId,
        sync: SyncMode,
    ) -> io::Result<Present> {
        let path = segment_path(dir, number);
        // A file may be there from an attempt that failed halfway, but never one with events: no
        // number is given twice, and nobody else is here.
        let disk = Disk::create(path.clone())?;
        let mut header = Vec::new();
        segment::encode_header(after, &mut header);
        let begin = || {
            disk.write_at(0, &header)?;
            if sync == SyncMode::Off {
                return Ok(());
            }
            disk.sync()?;
            disk::sync_dir(dir)
        };
        if let Err(error) = begin() {
            // Best effort: what is left is a torn header at the most, which a start knows.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Present {
            number,
            disk: Arc::new(disk),
            len: header.len() as u64,
        })
    }
}

/// `DIR/00000001.sse`
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.sse"))
}

/// Creates the directory if it is not there, and takes it for ourselves.
fn occupy(dir: &Path) -> io::Result<File> {
    match fs::create_dir(dir) {
        Ok(()) => disk::sync_dir(dir.parent().unwrap_or(dir))?,
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(failed("create", dir, &cause)),
    }
    let path = dir.join("lock");
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let lock = options
        .open(&path)
        .map_err(|cause| failed("open", &path, &cause))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::Error(cause)) => Err(failed("lock", &path, &cause)),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} is in use by another tiny-sse", dir.display()),
        )),
    }
}
