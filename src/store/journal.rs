//! The journal: appends events to a file before anybody hears of them, and keeps the file whole
//! when the disk does not take them.
//!
//! What a file holds up to the *good length* was acknowledged. An append writes behind it, and
//! moves it when all is there. Whatever fails on the way is answered in one manner: the file is cut
//! back to the good length, the publisher is told, and the next append begins as if nothing had
//! been. If even the cut fails, the file may hold something behind the good length, and nothing is
//! accepted until it could be cut.
//!
//! # Changes by other programs
//!
//! Administrators and their tools delete, move, replace, cut and edit files while they are written
//! to. So before an event is acknowledged, the file at the segment's path is the one that is open, and
//! has the length that it should have: a restart will read what is acknowledged. If the file is not as
//! it was left, it is read again. A file that still begins with all that was acknowledged is cut to
//! that and used. Otherwise the journal goes on in a new segment that begins with a gap record, as
//! after a repair: a start reads back to the gap and no further, whatever is in the older files.
//! Where even the directory is another one, nothing is accepted until it is back.
//!
//! `segment.rs` has the format, `newest.rs` the newest segment, `recovery.rs` what is done with a file
//! that a crash has left.

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

/// An append-only log in files `00000001.sse`, `00000002.sse`, … of one directory: an event stream
/// in plain text, which `less` and any reader of event streams can read. The directory and the files
/// are for their owner alone.
///
/// A file that has grown past 32 MiB is followed by a new one. The journal never removes any; the
/// oldest can be deleted at any time. If the newest is deleted, moved or changed, the journal reports
/// it and goes on in a new file; after a restart, clients that have not seen the latest event before
/// that are told of a gap.
#[derive(Debug)]
pub struct Journal {
    directory: Directory,
    sync: SyncMode,
    pub(super) report: Report,
    pub(super) newest: Newest,
    /// The latest id in the journal.
    last: EventId,
    /// The bytes of the append that was refused last: what a [probe](Log::probe) tries to write.
    pub(super) refused: usize,
    /// How often the segment may still be read again because of a new time alone. LIMIT: on file systems
    /// that change the time later than the write, that would be at each append; at 0 the time is
    /// not compared any more.
    pub(super) readings: u32,
    /// Only with [`SyncMode::Interval`].
    pub(super) syncer: Option<Syncer>,
    /// The size that lets the next append begin a new segment.
    pub(super) segment_bytes: u64,
}

impl Journal {
    /// Opens the journal in a directory, or begins one there, whose first event comes after `born`.
    /// Reads as much from its end as is wanted back, and the newest segment whole. If the newest
    /// ends in something that was not written to its end, which is what a crash leaves, that is cut
    /// off and reported. Permissions that other users have on the files are taken away, and that is
    /// reported too, as is a last event from more than a day after `born`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The directory is in use by another server ([`ResourceBusy`](io::ErrorKind::ResourceBusy)),
    /// is damaged, which no crash can do to what was synced, or has an id near the end of the range
    /// of ids ([`InvalidData`](io::ErrorKind::InvalidData)), was written by another version
    /// ([`Unsupported`](io::ErrorKind::Unsupported)), or cannot be read or written to. The message
    /// names the file and, for a damage, the place.
    pub fn open(options: JournalOptions, born: EventId) -> io::Result<(Journal, Kept)> {
        let directory = Directory::occupy(&options.dir, &options.report)?;
        let (newest, kept) = recovery::recover(&directory, &options, born)?;
        let last = kept.last_id();
        if last.ms.saturating_sub(born.ms) > WRONG_CLOCK.as_millis() as u64 {
            let hours = (last.ms - born.ms) / WRONG_CLOCK.as_millis() as u64 * 24;
            options.report.warn(format_args!(
                "the latest event in {}, {last}, is from more than {hours} hours after this machine's time: \
                 one of the two clocks was wrong; ids go on from there",
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

    /// Makes the journal ready for an append: repairs what an earlier append or sync, or another program,
    /// has left, and begins a new segment if this one is full. When it fails, nothing that is
    /// acknowledged has changed.
    fn prepare(&mut self) -> io::Result<()> {
        self.restore()?;
        self.rotate_if_full()
    }

    /// Repairs what an earlier append or sync, or another program, has left.
    fn restore(&mut self) -> io::Result<()> {
        let found = self.newest.disk.look()?;
        if self.newest.may_be_cut(found) {
            self.cut_back()?;
        } else if !self.newest.is_as_left(found, self.readings > 0) {
            self.take_up(found)?;
        }
        self.write_anew()
    }

    /// Writes at the end, which is the good length, and makes it durable, if that is to be now.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.newest.disk.append(bytes)?;
        match self.sync {
            SyncMode::Always => self.newest.disk.sync(),
            SyncMode::Interval | SyncMode::Off => Ok(()),
        }
    }

    /// Cuts the segment to its good length.
    ///
    /// This is also right after an `fsync` that failed, which is the treacherous case: the system
    /// may then hold pages that it calls clean and that are not on the disk, and the next `fsync`
    /// would say Ok without having written them. But those are pages of what we take back: up to
    /// the good length everything was synced before, with success. The cut throws the pages behind
    /// it away and makes the one that it goes through dirty; what is appended next is written into
    /// pages that are dirty again. So the next `fsync` that succeeds has really written all of it.
    fn cut_back(&mut self) -> io::Result<()> {
        self.newest.disk.set_len(self.newest.len)?;
        // Or what the publisher was told is not kept would be found again after a power cut.
        if self.sync == SyncMode::Always {
            self.newest.disk.sync()?;
        }
        self.newest.accept(0).map(drop)
    }

    /// Goes on after another program has changed the segment's file: in the file at its path, if that
    /// begins with all that was acknowledged, otherwise in a new segment.
    fn take_up(&mut self, found: Option<Look>) -> io::Result<()> {
        self.directory.check()?;
        match self.newest.examine(found, self.last) {
            Ok((disk, len)) => self.go_on_in(disk, len),
            Err(why) => self.begin_after_hole(&why),
        }
    }

    /// Goes on in a file that has `len` bytes, the first of which are all that was acknowledged.
    fn go_on_in(&mut self, disk: OpenFile, len: u64) -> io::Result<()> {
        let excess = len - self.newest.len;
        if disk.identity() != self.newest.disk.identity() {
            disk.set_len(self.newest.len)?;
            if self.sync != SyncMode::Off {
                disk.sync_with_name()?;
            }
            let next = Newest::resume(self.newest.number, disk, self.newest.len)?;
            self.report.warn(format_args!(
                "{} was replaced by another file with the same records; the journal goes on in it",
                next.disk.path().display()
            ));
            self.turn_to(next);
            return Ok(());
        }
        if excess == 0 {
            self.readings = self.readings.saturating_sub(1);
            return self.newest.accept(0).map(drop);
        }
        // After an append of the journal's own, its bytes are among them.
        let is_foreign = matches!(self.newest.left, Left::Whole(_));
        self.cut_back()?;
        if is_foreign {
            self.report.warn(format_args!(
                "{excess} bytes were appended to {}, and not by this server; they were cut off",
                disk.path().display()
            ));
        }
        Ok(())
    }

    /// Begins a segment from which a restart does not read back into what is before it.
    fn begin_after_hole(&mut self, why: &str) -> io::Result<()> {
        let newest = self.directory.numbers()?.into_iter().max();
        let number = newest.unwrap_or(0).max(self.newest.number);
        let next = self.begin(number, &segment::header_after_hole(self.last))?;
        let (old, new) = (self.newest.disk.path(), next.disk.path());
        self.report.error(format_args!(
            "{} {why}; the journal goes on in {}, and after a restart, clients that \
             have not seen {} will be told of a gap",
            old.display(),
            new.display(),
            self.last
        ));
        self.turn_to(next);
        Ok(())
    }

    /// Begins the segment after the one with this number.
    fn begin(&self, number: u64, header: &[u8]) -> io::Result<Newest> {
        let none = || io::Error::other("no number is left for another segment");
        let number = number.checked_add(1).ok_or_else(none)?;
        let path = self.directory.segment(number);
        clear_attempt(&path)?;
        Newest::begin(path, number, header, self.sync)
    }

    /// Writes to this segment, which is durable, from now on.
    fn turn_to(&mut self, next: Newest) {
        if let Some(syncer) = &self.syncer {
            syncer.turn_to(Arc::clone(&next.disk), next.len);
        }
        self.newest = next;
    }

    /// After a sync in the background has failed: writes again what was acknowledged but is not
    /// known to be durable, and syncs that.
    ///
    /// It cannot be taken back, because clients have it. And a second sync alone would prove
    /// nothing, as said above: the pages must be dirty again. The bytes are those that the system
    /// still has in memory; one that has dropped them with the error (Btrfs does) gives back
    /// something else, which does not check, and then those events are lost.
    fn write_anew(&mut self) -> io::Result<()> {
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

    /// Syncs all that is acknowledged, in whatever mode but [`SyncMode::Off`].
    fn flush(&self) -> io::Result<()> {
        match (self.sync, &self.syncer) {
            (_, Some(syncer)) => syncer.sync(),
            (SyncMode::Off, None) => Ok(()),
            (_, None) => self.newest.disk.sync(),
        }
    }

    /// Begins a new segment if this one is full. When it fails nothing has changed.
    fn rotate_if_full(&mut self) -> io::Result<()> {
        if self.newest.len < self.segment_bytes {
            return Ok(());
        }
        // ORDER: the old segment before the new one is there, so that only the newest can be torn.
        self.flush()?;
        self.directory.check()?;
        let next = self.begin(self.newest.number, &segment::header(self.last))?;
        self.turn_to(next);
        Ok(())
    }

    /// Appends whole blocks, all or none.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        // LIMIT: if the file is changed by others between the two looks at it, there is one more attempt.
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
                    // The publisher gets the cause. If `restore` fails, the next publisher gets that error.
                    let _ = self.restore();
                    return Err(error);
                }
            }
        }
        let _ = self.restore(); // As above.
        let name = self.newest.disk.path().display();
        Err(io::Error::other(format!(
            "{name} is being changed, and not by this server"
        )))
    }

    /// The bytes that an append writes for these records.
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

    /// Writes as many bytes as the append had that was refused last, and takes them back.
    fn probe(&mut self) -> io::Result<()> {
        self.prepare()?;
        // A crash in between leaves a torn end, which the next start cuts off.
        let bytes = vec![b'\n'; self.refused.max(1)];
        self.newest.tear();
        let written = self.write(&bytes);
        written.and(self.restore())
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

/// Removes what an attempt to begin a segment has left, which has no events. Anything else stays, and
/// is in the way.
fn clear_attempt(path: &Path) -> io::Result<()> {
    let is_short =
        |found: fs::Metadata| found.is_file() && found.len() <= segment::LONGEST_HEADER as u64;
    if fs::symlink_metadata(path).is_ok_and(is_short) && segment::has_no_event(&disk::read(path)?) {
        disk::remove(path)?;
    }
    Ok(())
}
