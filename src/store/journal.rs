//! The journal: appends events to a file before any client gets them, and keeps the file
//! intact when the disk fails.
//!
//! The first bytes of a file, up to the *good length*, were acknowledged to publishers.
//! An append writes after the good length and moves it when all bytes are written (and
//! synced, with `SyncMode::Always`). Every failure on the way is handled in the same way:
//! the file is cut back to the good length, the publisher gets an error, and the next
//! append begins in a clean state. If even the cut fails, no event is accepted until a
//! later cut succeeds.
//!
//! ```text
//! ├── acknowledged ──────────────┤├─ being appended ─┤
//! 0                      good length              end of the file
//! ```
//!
//! An append goes through these steps ([`Journal::add`]): look at the file, repair it if
//! it is not as the journal left it ([`Journal::restore`]), begin a new segment if this
//! one is full, write, sync, look again, move the good length.
//!
//! # What can fail, and what happens then
//!
//! | failure | publisher | journal |
//! |---|---|---|
//! | the disk is full, or a write fails halfway | error | cuts off the half, goes on |
//! | `fsync` fails | error | cuts off the append, goes on |
//! | the cut fails too | error | refuses every append until a cut succeeds |
//! | a sync in the background fails (`SyncMode::Interval`) | has its 200 already | writes the bytes again before the next append |
//! | the process is killed | no answer | the next start cuts off an incomplete record |
//! | another program changes the file | waits for the repair | adopts the file, or begins a new segment with a gap record |
//!
//! In every row, an event that was acknowledged stays, or the loss is reported to clients
//! as a gap.
//!
//! # Changes by other programs
//!
//! Administrators and their tools delete, move, replace, truncate and edit files while
//! the journal writes to them. A restart reads the file at the segment's path, so before
//! an event is acknowledged, the file at the path must be the open one and must have the
//! right length. If the file is not as the journal left it, it is read again. If it still
//! begins with everything that was acknowledged, it is cut to that and used. Otherwise
//! the journal continues in a new segment that begins with a gap record, as after a
//! repair: the next start reads back to the gap and no further, whatever the older files
//! contain. If even the directory is another one, no event is accepted until it is back.
//!
//! `segment.rs` has the format, `newest.rs` the check of the newest segment,
//! `recovery.rs` reads a journal at the start.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::directory::Directory;
use super::disk::{self, Disk, Look, OpenFile};
use super::newest::{Left, Newest};
use super::options::JournalOptions;
use super::syncer::Syncer;
use super::{recovery, segment};
use crate::config::{SEGMENT_BYTES, SYNC_INTERVAL, SyncMode, UNSTABLE_READS, WRONG_CLOCK};
use crate::hub::{Kept, Log, Record};
use crate::report::Report;
use crate::wire::EventId;

/// An append-only log in the files `00000001.sse`, `00000002.sse`, … of one directory.
/// They are an event stream in plain text, which `less` and every reader of event streams
/// can read. Only the owner of the directory and the files has permissions on them.
///
/// After a file has reached 32 MiB the journal begins a new one. It never removes a file;
/// the oldest files can be deleted at any time. If the newest file is deleted, moved or
/// changed, the journal reports an error and continues in a new file; after a restart,
/// clients that have not received the latest event before that are told of a gap.
///
/// One thread at a time uses a journal, because [`Log::append`] takes `&mut self`; with
/// [`SyncMode::Interval`] a second thread syncs.
#[derive(Debug)]
pub struct Journal {
    /// The directory, locked against other servers.
    directory: Directory,
    /// When appended bytes are synced.
    sync: SyncMode,
    /// Receives what an administrator should know: repairs, and changes by others.
    pub(super) report: Report,
    /// The segment that is written to, with its good length.
    pub(super) newest: Newest,
    /// The latest id in the journal. The ids of an append must be greater.
    last: EventId,
    /// The length of the append that failed last, in bytes: a [probe](Log::probe) tries
    /// to write as many.
    pub(super) refused: usize,
    /// How often the segment may still be read again because only its modification time
    /// has changed. LIMIT: some file systems change the time after the write has
    /// returned, so that every append would read the file again. At 0 the time is not
    /// compared any more.
    pub(super) readings: u32,
    /// The thread that syncs; only with [`SyncMode::Interval`].
    pub(super) syncer: Option<Syncer>,
    /// If the newest segment has at least this length, the next append begins a new one.
    /// Tests set it lower.
    pub(super) segment_bytes: u64,
}

impl Journal {
    /// Opens the journal in a directory, or creates a journal there whose first event
    /// comes after the id `born`. Reads the newest segment completely, and older segments
    /// as far as `options` asks for events.
    ///
    /// An incomplete record at the end, which a crash leaves, is cut off with a warning.
    /// Permissions of other users on the files are removed with a warning. A last event
    /// that is more than a day later than `born` causes a warning. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// - [`ResourceBusy`](io::ErrorKind::ResourceBusy): another server uses the
    ///   directory.
    /// - [`InvalidData`](io::ErrorKind::InvalidData): the journal is damaged, or has an
    ///   id near the end of the range of ids.
    /// - [`Unsupported`](io::ErrorKind::Unsupported): another version has written it.
    /// - Any other kind: it cannot be read or written.
    ///
    /// The message names the file and, for damage, the position.
    pub fn open(options: JournalOptions, born: EventId) -> io::Result<(Journal, Kept)> {
        let directory = Directory::occupy(&options.dir, &options.report)?;
        let (newest, kept) = recovery::recover(&directory, &options, born)?;
        let last = kept.last_id();
        if last.ms.saturating_sub(born.ms) > WRONG_CLOCK.as_millis() as u64 {
            let hours = (last.ms - born.ms) / WRONG_CLOCK.as_millis() as u64 * 24;
            options.report.warn(format_args!(
                "the latest event in {}, {last}, is more than {hours} hours later than the clock of this machine: \
                 the clock is wrong now, or was wrong then; new ids continue from there",
                directory.path().display()
            ));
        }
        let syncer = match options.sync {
            SyncMode::Interval => {
                let disk = Arc::clone(&newest.disk);
                let report = options.report.clone();
                Some(Syncer::start(disk, newest.len, SYNC_INTERVAL, report)?)
            }
            SyncMode::Always | SyncMode::Off => None,
        };
        let journal = Journal {
            directory,
            sync: options.sync,
            report: options.report,
            newest,
            last,
            refused: 0,
            readings: UNSTABLE_READS,
            syncer,
            segment_bytes: SEGMENT_BYTES,
        };
        Ok((journal, kept))
    }

    /// Prepares an append: restores the newest segment, and begins a new segment if this
    /// one is full. If it fails, everything that was acknowledged is unchanged.
    ///
    /// Afterwards three things are true: the file at the path is the open one, it ends at
    /// the good length, and every acknowledged byte is as durable as [`SyncMode`]
    /// promises.
    fn prepare(&mut self) -> io::Result<()> {
        self.restore()?;
        self.rotate_if_full()
    }

    /// Brings the newest segment to its good length and into a known state, after an
    /// append or a sync that failed, or after a change by another program. Usually the
    /// file is as it was left, and this costs one call of `stat`.
    ///
    /// | the file at the path | what happens |
    /// |---|---|
    /// | is as the journal left it | nothing |
    /// | is ours, and an append has failed | it is cut to the good length |
    /// | begins with everything that was acknowledged | it is used, without what follows |
    /// | anything else | a new segment begins, with a gap record |
    fn restore(&mut self) -> io::Result<()> {
        let found = self.newest.disk.look()?;
        if self.newest.may_be_cut(found) {
            self.cut_back()?;
        } else if !self.newest.is_as_left(found, self.readings > 0) {
            self.adopt_changed_file(found)?;
        }
        self.rewrite_unsynced()
    }

    /// Writes at the end of the file, which is the good length, and syncs it with
    /// `SyncMode::Always`. After an error, any part of the bytes may be in the file.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.newest.disk.append(bytes)?;
        match self.sync {
            SyncMode::Always => self.newest.disk.sync(),
            SyncMode::Interval | SyncMode::Off => Ok(()),
        }
    }

    /// Cuts the segment to its good length.
    ///
    /// This is also correct after a failed `fsync`, which is the difficult case. After
    /// such a failure the system may mark pages as clean although they are not on the
    /// disk; the next `fsync` would then succeed without writing them. But these pages
    /// only contain bytes of the failed append: everything up to the good length was
    /// synced before. The cut discards the pages after the good length and makes the page
    /// at the good length dirty, and the next append writes into dirty pages. So the next
    /// `fsync` that succeeds has written all bytes.
    fn cut_back(&mut self) -> io::Result<()> {
        self.newest.disk.set_len(self.newest.len)?;
        // Without this, a power failure could bring back an event whose publisher was
        // told that it is not kept.
        if self.sync == SyncMode::Always {
            self.newest.disk.sync()?;
        }
        self.newest.accept(0).map(drop)
    }

    /// Continues after another program has changed the segment's file: in the file at the
    /// path, if it begins with everything that was acknowledged; otherwise in a new
    /// segment.
    fn adopt_changed_file(&mut self, found: Option<Look>) -> io::Result<()> {
        self.directory.check()?;
        match self.newest.examine(found, self.last) {
            Ok((disk, len)) => self.go_on_in(disk, len),
            Err(why) => self.begin_after_hole(&why),
        }
    }

    /// Continues in a file of `len` bytes that begins with everything that was
    /// acknowledged.
    fn go_on_in(&mut self, disk: OpenFile, len: u64) -> io::Result<()> {
        let excess = len - self.newest.len;
        if disk.identity() != self.newest.disk.identity() {
            disk.set_len(self.newest.len)?;
            if self.sync != SyncMode::Off {
                disk.sync_with_name()?;
            }
            let next = Newest::resume(self.newest.number, disk, self.newest.len)?;
            self.report.warn(format_args!(
                "{} was replaced by another file with the same records; the journal continues in that file",
                next.disk.path().display()
            ));
            self.turn_to(next);
            return Ok(());
        }
        if excess == 0 {
            self.readings = self.readings.saturating_sub(1);
            return self.newest.accept(0).map(drop);
        }
        // If the file was not left whole, the bytes may be those of the journal's own
        // append.
        let is_by_others = matches!(self.newest.left, Left::Whole(_));
        self.cut_back()?;
        if is_by_others {
            self.report.warn(format_args!(
                "another program appended {excess} bytes to {}; they were cut off",
                disk.path().display()
            ));
        }
        Ok(())
    }

    /// Begins a segment with a gap record, so that the next start does not read older
    /// segments. `why` is what has happened to the file, as the end of a sentence about
    /// it.
    ///
    /// Clients that are connected have lost nothing: the history is in memory. A client
    /// is told of a gap only if the server is restarted before the client reconnects.
    fn begin_after_hole(&mut self, why: &str) -> io::Result<()> {
        let newest = self.directory.numbers()?.into_iter().max();
        let number = newest.unwrap_or(0).max(self.newest.number);
        let next = self.begin(number, &segment::header_after_hole(self.last))?;
        let (old, new) = (self.newest.disk.path(), next.disk.path());
        self.report.error(format_args!(
            "{} {why}; the journal continues in {}, and after a restart, clients that have not received {} \
             will be told of a gap",
            old.display(),
            new.display(),
            self.last
        ));
        self.turn_to(next);
        Ok(())
    }

    /// Creates the segment after the one with this number, and returns it. The journal
    /// still writes to the old one, until [`turn_to`](Self::turn_to).
    fn begin(&self, number: u64, header: &[u8]) -> io::Result<Newest> {
        let none = || io::Error::other("no number is left for another segment");
        let number = number.checked_add(1).ok_or_else(none)?;
        let path = self.directory.segment(number);
        clear_attempt(&path)?;
        Newest::begin(path, number, header, self.sync)
    }

    /// From now on, appends to this segment. All of its bytes are durable.
    fn turn_to(&mut self, next: Newest) {
        if let Some(syncer) = &self.syncer {
            syncer.turn_to(Arc::clone(&next.disk), next.len);
        }
        self.newest = next;
    }

    /// After a sync in the background has failed: writes the acknowledged bytes that are
    /// not known to be durable once more, and syncs them.
    ///
    /// These bytes cannot be cut off, because clients have their events. A second sync
    /// alone would prove nothing, as explained at [`cut_back`](Self::cut_back): the pages
    /// must become dirty again. The bytes are read from the system's cache. A system that
    /// has dropped them with the error (Btrfs does) returns other bytes, whose checksums
    /// are wrong; then these events are lost.
    fn rewrite_unsynced(&mut self) -> io::Result<()> {
        let Some(syncer) = &self.syncer else {
            return Ok(());
        };
        let Some(durable) = syncer.failed_at() else {
            return Ok(());
        };
        let disk = &self.newest.disk;
        let mut bytes = vec![0; (self.newest.len - durable) as usize];
        disk.read_at(durable, &mut bytes)?;
        if !segment::is_whole(&bytes) {
            let why = format!("has lost what could not be synced, from byte {durable} on");
            return self.begin_after_hole(&why);
        }
        disk.write_at(durable, &bytes)?;
        let synced = syncer.sync();
        self.newest.accept(0)?;
        synced
    }

    /// Syncs everything that was acknowledged, in every mode except [`SyncMode::Off`].
    fn flush(&self) -> io::Result<()> {
        match (self.sync, &self.syncer) {
            (_, Some(syncer)) => syncer.sync(),
            (SyncMode::Off, None) => Ok(()),
            (_, None) => self.newest.disk.sync(),
        }
    }

    /// Begins a new segment if this one is full. If it fails, nothing has changed.
    ///
    /// The header of the new segment names the last event of the old one. So a segment
    /// that is deleted, or that ends too early, is noticed at the next start.
    fn rotate_if_full(&mut self) -> io::Result<()> {
        if self.newest.len < self.segment_bytes {
            return Ok(());
        }
        // ORDER: the old segment is synced before the new one exists, so that a crash can
        // only tear the newest.
        self.flush()?;
        self.directory.check()?;
        let next = self.begin(self.newest.number, &segment::header(self.last))?;
        self.turn_to(next);
        Ok(())
    }

    /// Appends complete blocks, all or none. See the head of this file for the steps.
    ///
    /// The invariant: when it returns, with or without an error, the first
    /// `self.newest.len` bytes of the file are complete blocks, each of them acknowledged
    /// or about to be. What an attempt has left after them does not count, and is cut off
    /// before the next attempt.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        // LIMIT: one more attempt if another program changes the file between the two
        // looks at it.
        for _ in 0..2 {
            self.prepare()?;
            let written = self.write(bytes);
            match written.and_then(|()| self.newest.accept(bytes.len())) {
                Ok(true) => {
                    if let Some(syncer) = &self.syncer {
                        syncer.wrote(self.newest.len);
                    }
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    self.newest.tear();
                    // The publisher gets `error`. If `restore` fails, the next publisher
                    // gets the error of `restore`.
                    let _ = self.restore();
                    return Err(error);
                }
            }
        }
        let _ = self.restore(); // As above.
        let name = self.newest.disk.path().display();
        Err(io::Error::other(format!(
            "another program keeps changing {name}"
        )))
    }

    /// Returns the blocks of these records, in one text, so that one `write` appends all
    /// of them. Everything that [`segment::read`] would refuse later is refused here,
    /// while the publisher can still be told.
    ///
    /// # Errors
    ///
    /// A record has an id that is not greater than the id before, or a message that could
    /// not be read back.
    fn encode(&self, records: &[Arc<Record>]) -> io::Result<Vec<u8>> {
        let (mut bytes, mut last) = (Vec::new(), self.last);
        for record in records {
            let refused = if record.id() <= last {
                format!("id {} is not after {last}", record.id())
            } else if !segment::leaves_room(record.id()) {
                format!("id {} leaves too few for other events", record.id())
            } else if !segment::is_message(record.message()) {
                format!("event {} is not one message with its id first", record.id())
            } else {
                last = record.id();
                segment::encode_event(record, &mut bytes);
                continue;
            };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, refused));
        }
        Ok(bytes)
    }
}

impl Log for Journal {
    fn append(&mut self, records: &[Arc<Record>]) -> io::Result<()> {
        let Some(newest) = records.last() else {
            return Ok(());
        };
        let bytes = self.encode(records)?;
        let result = self.add(&bytes);
        match result {
            Ok(()) => self.last = newest.id(),
            Err(_) => self.refused = bytes.len(),
        }
        result
    }

    /// Writes as many bytes as the append that failed last, syncs them, and cuts them off
    /// again. A single byte would prove little: a disk that is full for a large event may
    /// have room for a small one.
    fn probe(&mut self) -> io::Result<()> {
        self.prepare()?;
        // Line breaks are not a record: after a crash in between, the next start cuts
        // them off.
        let bytes = vec![b'\n'; self.refused.max(1)];
        self.newest.tear();
        let written = self.write(&bytes);
        written.and(self.restore())
    }
}

impl Drop for Journal {
    /// Syncs everything that was acknowledged, except with `SyncMode::Off`.
    ///
    /// ORDER: before the fields are dropped: the syncing thread ends with `syncer`, and
    /// the lock on the directory with `directory`. So no other server has the directory
    /// while this one still writes.
    fn drop(&mut self) {
        if let Err(error) = self.restore().and_then(|()| self.flush()) {
            let lost = "the latest events may not survive a power failure";
            self.report.error(format_args!("{error}; {lost}"));
        }
    }
}

/// Removes the file of a segment whose creation has failed, if it has no events. Any
/// other file stays, and the creation of the segment fails.
fn clear_attempt(path: &Path) -> io::Result<()> {
    let is_short =
        |found: fs::Metadata| found.is_file() && found.len() <= segment::LONGEST_HEADER as u64;
    if fs::symlink_metadata(path).is_ok_and(is_short) && segment::has_no_event(&disk::read(path)?) {
        disk::remove(path)?;
    }
    Ok(())
}
