//! Opens a journal: reads it backwards from its end, as far as the history needs. It
//! distinguishes two things:
//!
//! - **What a crash leaves** is cut off with a warning: the newest segment ends in an
//!   incomplete record, or in an incomplete header. Its publisher was never told that the
//!   record is kept.
//! - **Damage** is an error, because continuing would lose events silently: a record with
//!   a wrong checksum and a valid one after it, a missing segment, ids that do not rise.
//!   A disk or a person has caused it.
//!
//! One crash looks like damage and is treated as damage, which is the safe side: when the
//! power fails, the system may have written the later of two unsynced pages to the disk,
//! and not the earlier one. With `SyncMode::Always` this can only be inside the last
//! append, whose publisher was not told that it is kept.
//!
//! ```text
//! newest segment                                       what follows
//! header, record, record                               nothing: go on at its end
//! header, record, rec                                  cut off `rec`, warn
//! header, record, ###, record                          damage: an error; with --repair a gap record replaces the rest
//! hea                                                  remove the file, begin the segment again
//! ```
//!
//! # Gaps
//!
//! After a repair, events are missing from the journal, and clients must be told.
//! `Kept::after` decides it: a client whose cursor is this id, or a later one, has missed
//! only events that are retained; a client with an older cursor may have missed lost
//! ones. So no event before a gap is retained, and `after` is the id of the last lost
//! event:
//!
//! - In an older segment this is the id in the header of the next segment. It is exact: a
//!   client that has received this event has received the end of the gap; any other
//!   client has missed a part of it.
//! - In the newest segment it is the id of the last valid record after the damage, if
//!   nothing follows this record. Otherwise the last lost event is not known. Then
//!   `after` is an id that no event has: greater than every id that was found, and not
//!   less than the id at which the new hub starts. Every cursor is then older.
//!
//! The gap record stays in the journal in place of the lost records, so that the next
//! start knows of the gap too: it reads back to the gap and no further.

use std::fs;
use std::io;
use std::path::Path;

use super::directory::Directory;
use super::disk::{self, Context, Disk, OpenFile};
use super::newest::Newest;
use super::options::JournalOptions;
use super::segment::{self, BlockKind, Contents, Damage};
use crate::config::SyncMode;
use crate::hub::{Kept, Record};
use crate::wire::EventId;

/// Finds the segment to append to, or creates the first one, and reads the latest events.
/// `born` is the id at which the new hub starts. Blocks on the disk.
///
/// A worked example, with room for 3 events in the history:
///
/// ```text
/// 00000001.sse   after 0    1 2 3 4
/// 00000002.sse   after 4    5 6
/// 00000003.sse   after 6    7 8 [half of 9]
///
/// newest()       reads 00000003.sse, cuts off the half of 9       records 8 7      after 6
/// older(2)       reads 00000002.sse: its last event is 6          records 8 7 6    after 5
/// the result     append to 00000003.sse; the history is 6 7 8, and begins after 5
/// ```
///
/// A client that reconnects with `Last-Event-ID: 5` or a later id gets the rest exactly;
/// one with `4` is told of a gap.
pub(super) fn recover(
    directory: &Directory,
    options: &JournalOptions,
    born: EventId,
) -> io::Result<(Newest, Kept)> {
    let mut reading = ReadBack {
        directory,
        options,
        born,
        numbers: directory.numbers()?,
        kept: Kept {
            after: born,
            after_own_id: None,
            after_topic: None,
            records: Vec::new(),
        },
        bytes: 0,
        is_complete: false,
    };
    let newest = reading.newest()?;
    let mut number = newest.number;
    while reading.wants_more() && reading.has_before(number) {
        number -= 1;
        reading.older(number)?;
    }
    if !reading.is_complete && reading.has_before(number) {
        reading.look_at_end_of(number - 1);
    }
    reading.kept.records.reverse();
    Ok((newest, reading.kept))
}

/// The state of reading a journal backwards.
struct ReadBack<'a> {
    /// The directory of the segments.
    directory: &'a Directory,
    /// How many events are wanted, and whether damage may be repaired.
    options: &'a JournalOptions,
    /// The id at which the new hub starts.
    born: EventId,
    /// The numbers of the existing segments, in no order.
    numbers: Vec<u64>,
    /// The events that were read so far, newest first. `after` is the id of the event
    /// before the last of them: the segment to be read next must end with it.
    kept: Kept,
    /// The length of the messages in `kept`. LIMIT: `JournalOptions::bytes`.
    bytes: usize,
    /// No older event is retained: the limits are reached, or a gap comes before.
    is_complete: bool,
}

impl ReadBack<'_> {
    /// Returns the segment to append to, and reads its events.
    ///
    /// A segment with an incomplete header is removed and the one before is examined: a
    /// crash has interrupted the creation of the segment, so it has no events. If there
    /// is no segment left, the first one is created, or the one that was removed is
    /// created again, so that no number is missing.
    fn newest(&mut self) -> io::Result<Newest> {
        let mut number = 1;
        while let Some(newest) = self.numbers.iter().max() {
            number = *newest;
            let path = self.directory.segment(number);
            let bytes = disk::read(&path)?;
            if !segment::is_torn_header(&bytes) {
                return self.go_on_in(number, &path, &bytes);
            }
            self.options.report.warn(format_args!(
                "{} has an incomplete header of {} bytes and no events; it is created again",
                path.display(),
                bytes.len()
            ));
            disk::remove(&path)?;
            self.numbers.retain(|other| *other != number);
        }
        let (path, header) = (self.directory.segment(number), segment::header(self.born));
        Newest::begin(path, number, &header, self.options.sync)
    }

    /// Reads the newest segment, cuts off an incomplete record at its end or repairs
    /// damage, and opens it for appending.
    ///
    /// Damage with nothing valid after it is an incomplete record: the end of a crash.
    /// Two cases are damage in the strict sense: something valid follows, or not even the
    /// header is valid.
    fn go_on_in(&mut self, number: u64, path: &Path, bytes: &[u8]) -> io::Result<Newest> {
        let contents = self.contents(path, bytes)?;
        let (len, is_torn) = match (contents.damage, contents.last_id()) {
            (Some(damage), last) if damage.beyond.is_some() || last.is_none() => {
                // Damage. The gap ends with the last event that may have been lost.
                let upto = end_of_hole(&damage, last, self.born);
                (self.repair(path, bytes, &damage, upto)?, false)
            }
            (damage, _) => {
                // Whole, or torn by a crash: all valid records are before the end.
                self.take(&contents);
                let len = damage.map_or(bytes.len(), |damage| damage.offset);
                (len, damage.is_some())
            }
        };
        let disk = OpenFile::open(path.to_owned())?;
        if is_torn {
            disk.set_len(len as u64)?;
            disk.sync()?;
            let (torn, last) = (bytes.len() - len, contents.last_id().unwrap_or_default());
            self.options.report.warn(format_args!(
                "{} ended in {torn} bytes of an incomplete record; they were cut off, and the journal continues after {last}",
                path.display()
            ));
        }
        // Bytes that a killed process has written may not be on the disk yet, and clients
        // will get these events now.
        if self.options.sync != SyncMode::Off {
            disk.sync_with_name()?;
        }
        Newest::resume(number, disk, len as u64)
    }

    /// Reads the segment with this number, after all newer segments were read completely.
    ///
    /// `self.kept.after` is the event that the header of the segment after this one
    /// names, so this segment must be undamaged and must end with that event. If it does
    /// not, or if it is missing, events are lost between the two.
    fn older(&mut self, number: u64) -> io::Result<()> {
        let path = self.directory.segment(number);
        let next = self.kept.after;
        if !self.numbers.contains(&number) {
            let place = format!(
                "{} is missing, and older segments are there",
                path.display()
            );
            self.refuse_unless_wanted(&place)?;
            // A segment of only a gap takes its place, so that the next start neither
            // reports it as missing again nor reads older events.
            replace(&path, &segment::header_after_hole(next))?;
            self.go_on_after(&place, next);
            return Ok(());
        }
        let bytes = disk::read(&path)?;
        let contents = self.contents(&path, &bytes)?;
        match contents.damage_before(next) {
            None => self.take(&contents),
            Some(damage) => {
                self.repair(&path, &bytes, &damage, next)?;
            }
        }
        Ok(())
    }

    /// Whether the limits allow another event, and no gap was found. LIMIT:
    /// `JournalOptions::events` and `JournalOptions::bytes`.
    fn wants_more(&self) -> bool {
        let JournalOptions { events, bytes, .. } = *self.options;
        !self.is_complete && self.kept.records.len() < events && self.bytes < bytes
    }

    /// Whether a segment older than this one exists.
    fn has_before(&self, number: u64) -> bool {
        self.numbers.iter().any(|other| *other < number)
    }

    /// Parses a segment.
    ///
    /// # Errors
    ///
    /// The segment has another version, or an id that is so large that later events would
    /// have none.
    fn contents<'b>(&self, path: &Path, bytes: &'b [u8]) -> io::Result<Contents<'b>> {
        let name = path.display();
        if segment::is_of_another_version(bytes) {
            let line = format!("{name} is a journal of another version");
            return Err(io::Error::new(io::ErrorKind::Unsupported, line));
        }
        let contents = segment::read(bytes);
        match contents.greatest_id() {
            Some(id) if !segment::leaves_room(id) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{name} has the id {id}, after which too few are left for other events: each of its numbers must be \
                     less than 2^63; delete its record, or move the files away to begin a new journal"
                ),
            )),
            _ => Ok(contents),
        }
    }

    /// Adds the events of a segment, newest first, until the limits are reached or a gap
    /// is found.
    ///
    /// The invariant: no event between `after` and the oldest record in `kept` is
    /// missing. So `after` moves back with each block that is looked at, and stays at the
    /// first event that is not added.
    fn take(&mut self, contents: &Contents<'_>) {
        for (_, block) in contents.blocks.iter().rev() {
            self.kept.after = block.id;
            match (block.kind, block.record()) {
                (_, Some(record)) => {
                    self.bytes = self.bytes.saturating_add(record.message().len());
                    let is_full = self.kept.records.len() >= self.options.events;
                    if is_full || self.bytes > self.options.bytes {
                        self.note_after(&record);
                        self.is_complete = true;
                        return;
                    }
                    self.kept.records.push(record);
                }
                // No event before a gap is retained. The other block without an event is
                // the header, which comes last.
                (kind, None) => {
                    self.is_complete = kind == BlockKind::Gap;
                    return;
                }
            }
        }
    }

    /// Sets what is known about the event `after`: this is its record.
    fn note_after(&mut self, record: &Record) {
        self.kept.after_own_id = record.own_id().map(Into::into);
        self.kept.after_topic = record.topic().cloned();
    }

    /// Reads the own id of the event `after` from the segment that ends with it. No event
    /// of this segment is retained, so damage in it is not an error: a client whose
    /// cursor is this own id is then told of a gap.
    fn look_at_end_of(&mut self, number: u64) {
        let Ok(bytes) = disk::read(&self.directory.segment(number)) else {
            return;
        };
        let contents = segment::read(&bytes);
        let last = contents.blocks.last().and_then(|(_, block)| block.record());
        if let (None, Some(record)) = (contents.damage_before(self.kept.after), last) {
            self.note_after(&record);
        }
    }

    /// Replaces the rest of a segment, from the damage on, with a gap record up to the
    /// event `upto`. The rest is saved in a file next to the segment. No event before the
    /// gap is retained. Returns the new length of the segment.
    ///
    /// # Errors
    ///
    /// `--repair` was not given, or the disk fails.
    fn repair(
        &mut self,
        path: &Path,
        bytes: &[u8],
        damage: &Damage,
        upto: EventId,
    ) -> io::Result<usize> {
        let (offset, reason) = (damage.offset, damage.reason);
        let place = format!("{} is damaged at byte {offset}: {reason}", path.display());
        self.refuse_unless_wanted(&place)?;
        let (good, rest) = bytes.split_at(offset);
        // ORDER: the rest is saved before the segment loses it.
        let aside = match rest {
            [] => None,
            _ => Some(set_aside(path, rest)?),
        };
        let mut text = good.to_vec();
        if text.is_empty() {
            text = segment::header(upto);
        }
        segment::encode_gap(upto, aside.as_deref(), &mut text);
        replace(path, &text)?;
        let moved = match aside {
            Some(file) => format!("{} bytes from there on were moved to {file}", rest.len()),
            None => "no bytes followed".into(),
        };
        self.go_on_after(&format!("{place}; {moved}"), upto);
        Ok(text.len())
    }

    /// Checks that a repair is wanted, before anything is changed.
    ///
    /// # Errors
    ///
    /// `--repair` was not given. The message says what is damaged and what `--repair`
    /// would do, because the decision to lose events is the administrator's.
    fn refuse_unless_wanted(&self, place: &str) -> io::Result<()> {
        if self.options.repair {
            return Ok(());
        }
        let line = format!(
            "{place}; start with --repair to continue without the lost events; the damaged bytes are saved next to the file"
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, line))
    }

    /// Reports a repair, and completes the reading: no event before the gap, whose last
    /// event is `upto`, is retained.
    fn go_on_after(&mut self, done: &str, upto: EventId) {
        self.options.report.warn(format_args!(
            "{done}; clients that have not seen {upto} will be told of a gap"
        ));
        self.kept.after = upto;
        self.is_complete = true;
    }
}

/// Returns the id of the last event that was lost by damage in the newest segment, or a
/// later id if it is not known. `last` is the id of the last valid record before the
/// damage. The head of this file explains both cases; for example:
///
/// ```text
/// 1 2 ### 5       returns 5: it is valid, it is the last, and it will be cut off too
/// 1 2 ### 5 ##    the last lost event may be 6 or 60: returns an id after all of them
/// ```
fn end_of_hole(damage: &Damage, last: Option<EventId>, born: EventId) -> EventId {
    let last = last.unwrap_or_default();
    let found = damage.beyond.map_or(last, |beyond| beyond.greatest);
    if damage.beyond.is_some_and(|beyond| beyond.is_last) && found > last {
        return found;
    }
    // The last lost event is not known: return an id after all of them, which no event
    // has. It has a millisecond of its own even if the clock was set back, because lost
    // events may have any sequence number in the millisecond of the last event.
    let greatest = last.max(found);
    EventId {
        ms: born.ms.max(greatest.ms.saturating_add(1)),
        seq: born.seq,
    }
}

/// Replaces the contents of a segment atomically. A crash in between must not leave a
/// segment that ends before the gap as if there were no gap.
///
/// ORDER: the new file is written and synced, then renamed, then the rename is synced. A
/// crash before the rename leaves the old segment and a `.new` file, which the next
/// repair removes. A crash after it leaves the new segment.
fn replace(segment: &Path, text: &[u8]) -> io::Result<()> {
    let path = segment.with_extension("sse.new");
    // A repair that was interrupted may have left such a file.
    match disk::remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => write_new(&path, text)?,
    }
    fs::rename(&path, segment).context("replace", segment)?;
    disk::sync_name(segment)
}

/// Saves bytes durably in a new file next to the segment, and returns its name:
/// `00000002.sse.damaged`, or the same with the first free number after it. An existing
/// file is never overwritten: it may be all that is left of earlier events.
fn set_aside(segment: &Path, bytes: &[u8]) -> io::Result<String> {
    let mut path = segment.with_extension("sse.damaged");
    for number in 2.. {
        match write_new(&path, bytes) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = segment.with_extension(format!("sse.damaged.{number}"));
            }
            written => {
                written?;
                break;
            }
        }
    }
    disk::sync_name(&path)?;
    let name = path.file_name().unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

/// Writes a new file and syncs its contents, but not its name. The file is closed
/// afterwards, because some systems do not rename an open file.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let disk = OpenFile::create_new(path.to_owned())?;
    disk.append(bytes)?;
    disk.sync()
}
