//! Opening a journal: reads it from its end back to what a history needs, and tells what a crash
//! has left, which is cut off, from damage, which is an error.
//!
//! A crash leaves the newest segment with a record that was not written to its end, or with a
//! header that was not. Nobody was told that such a record is kept. Anything else is the work of a disk
//! or a person: a record that does not check with one after it that does, a segment that is missing, ids
//! that do not rise. To go on would be to lose something in silence.
//!
//! One crash looks like damage and is taken for it, which is the safe side: a system that loses its
//! power may have got the later of two unsynced pages to the disk and not the earlier. With
//! `SyncMode::Always` that can be within the last append only, of which nobody was told.
//!
//! # Holes
//!
//! After a repair the journal goes on with a hole, and clients must be told of it. `Kept::after` is what
//! they are judged by: a client at that event, or after it, has missed nothing that is not retained; a
//! client before it may have. So nothing before a hole is retained, and `after` is the id of the hole's
//! last event:
//!
//! - In an older segment that is the id which the next one's header has. That is exact: a client that has
//!   seen that event has seen the hole's end, and any other client has missed a part of the hole.
//! - In the newest it is the last record after the damage, if it checks and nothing follows it.
//!   Otherwise nobody knows, and `after` is an id that was never given out: greater than all that
//!   was found, and not before the birth of the hub that opens the journal. Every cursor is then
//!   before it.
//!
//! The hole stays in the journal as a gap record in the place of what is lost, because tomorrow's
//! start must know of it too: it reads back to the gap and no further.

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

/// Finds the segment to go on with, or begins the first, and reads what is wanted back.
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

struct ReadBack<'a> {
    directory: &'a Directory,
    options: &'a JournalOptions,
    born: EventId,
    /// Of the segments that are there.
    numbers: Vec<u64>,
    /// What is wanted back, the newest event first. `after` is the id before the last one: until the
    /// reading is complete, the segment before must end with it.
    kept: Kept,
    /// Of the messages of `kept`.
    bytes: usize,
    /// There is no more to be had: the event before is too much, or is in a hole.
    is_complete: bool,
}

impl ReadBack<'_> {
    /// The segment to append to.
    ///
    /// A segment whose header was not written to its end is removed: it is what a crash leaves that came
    /// as a segment was begun, and has no events.
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
                "{} was begun, but its header of {} bytes was not written to its end; it is begun anew",
                path.display(),
                bytes.len()
            ));
            disk::remove(&path)?;
            self.numbers.retain(|other| *other != number);
        }
        let (path, header) = (self.directory.segment(number), segment::header(self.born));
        Newest::begin(path, number, &header, self.options.sync)
    }

    fn go_on_in(&mut self, number: u64, path: &Path, bytes: &[u8]) -> io::Result<Newest> {
        let contents = self.contents(path, bytes)?;
        let (len, is_torn) = match (contents.damage, contents.last_id()) {
            (Some(damage), last) if damage.beyond.is_some() || last.is_none() => {
                let upto = end_of_hole(&damage, last, self.born);
                (self.repair(path, bytes, &damage, upto)?, false)
            }
            (damage, _) => {
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
                "{} ended in {torn} bytes that are no whole record; they were cut off, and the journal goes on after {last}",
                path.display()
            ));
        }
        // What a process that was killed has written may not be on the disk yet, and it is about
        // to be shown to clients.
        if self.options.sync != SyncMode::Off {
            disk.sync_with_name()?;
        }
        Newest::resume(number, disk, len as u64)
    }

    /// The segment before one that was read, and of which all is wanted.
    fn older(&mut self, number: u64) -> io::Result<()> {
        let path = self.directory.segment(number);
        let next = self.kept.after;
        if !self.numbers.contains(&number) {
            let place = format!(
                "{} is missing, and older segments are there",
                path.display()
            );
            self.refuse_unless_wanted(&place)?;
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

    fn wants_more(&self) -> bool {
        let JournalOptions { events, bytes, .. } = *self.options;
        !self.is_complete && self.kept.records.len() < events && self.bytes < bytes
    }

    fn has_before(&self, number: u64) -> bool {
        self.numbers.iter().any(|other| *other < number)
    }

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

    /// Takes what is wanted of a segment, from its end.
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
                // Nothing before a gap is retained. The header comes last here.
                (kind, None) => {
                    self.is_complete = kind == BlockKind::Gap;
                    return;
                }
            }
        }
    }

    /// The event `after` is this one.
    fn note_after(&mut self, record: &Record) {
        self.kept.after_own_id = record.own_id().map(Into::into);
        self.kept.after_topic = record.topic().cloned();
    }

    /// Reads the own id of the event `after` out of the segment that ends with it, from which no more
    /// is wanted. Damage in that segment is not reported, because its events are not needed: a client
    /// whose cursor is that id is then told of a gap.
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

    /// Puts a gap up to `upto` in the place of what a segment has from the damage on, and that into
    /// a file next to it. Nothing from before is retained. Returns the segment's length.
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
        // ORDER: the file aside before the segment loses what is in it.
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
            None => "there was nothing to be moved aside".into(),
        };
        self.go_on_after(&format!("{place}; {moved}"), upto);
        Ok(text.len())
    }

    fn refuse_unless_wanted(&self, place: &str) -> io::Result<()> {
        if self.options.repair {
            return Ok(());
        }
        let line = format!(
            "{place}; start with --repair to go on without the events that are lost; what is found in their place is moved aside"
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, line))
    }

    /// Says what was done about a hole whose last event is `upto`, and lets nothing from before it
    /// be retained.
    fn go_on_after(&mut self, done: &str, upto: EventId) {
        self.options.report.warn(format_args!(
            "{done}; clients that have not seen {upto} will be told of a gap"
        ));
        self.kept.after = upto;
        self.is_complete = true;
    }
}

/// The id of the last event that is lost by a damage in the newest segment, in which everything up
/// to `last` checks.
fn end_of_hole(damage: &Damage, last: Option<EventId>, born: EventId) -> EventId {
    let last = last.unwrap_or_default();
    let found = damage.beyond.map_or(last, |beyond| beyond.greatest);
    if damage.beyond.is_some_and(|beyond| beyond.is_last) && found > last {
        return found;
    }
    // Any event may have been the last: an id after all of them, which none of them had. Should the
    // clock have been set back, it is in a millisecond of its own, because lost events may have any
    // number in that of the last event.
    let greatest = last.max(found);
    EventId {
        ms: born.ms.max(greatest.ms.saturating_add(1)),
        seq: born.seq,
    }
}

/// Gives a segment another text, at once or not at all: a crash halfway through must not leave one
/// that ends before the hole as if there were none.
fn replace(segment: &Path, text: &[u8]) -> io::Result<()> {
    let path = segment.with_extension("sse.new");
    // A repair that was cut short may have left one.
    match disk::remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => write_new(&path, text)?,
    }
    fs::rename(&path, segment).context("replace", segment)?;
    disk::sync_name(segment)
}

/// Writes bytes into a new file next to the segment, durably, and returns its name:
/// `00000002.sse.damaged`, or with the first number after it that is free.
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

/// Writes a new file, and syncs it, but not its name. It is closed afterwards: some systems rename no
/// file that is open.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let disk = OpenFile::create_new(path.to_owned())?;
    disk.append(bytes)?;
    disk.sync()
}
