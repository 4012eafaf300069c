//! Opening a journal: reads it from its end back to what a history needs, and tells what a crash
//! has left, which is cut off, from damage, which is an error.
//!
//! A crash leaves the newest segment with a record that was not written to its end, or with a
//! header that was not. Nobody was told that such a record is kept. Anything else, a record that
//! does not check with one behind it that does, a segment that is missing, ids that do not rise,
//! is the work of a disk or a person: to go on would be to lose something in silence.
//!
//! One crash looks like damage and is taken for it, which is the safe side: a system that loses its
//! power may have got the later of two unsynced pages to the disk and not the earlier. With
//! `SyncMode::Always` that can be within the last append only, of which nobody was told.
//!
//! # Holes
//!
//! Who asks for a repair goes on with a hole, and clients must be told of it. `Kept::after` is what
//! they are judged by: who is at it, or after it, has missed nothing that is not retained; who is
//! before it may have. So nothing before a hole is retained, and `after` is the id of the hole's
//! last event:
//!
//! - In an older segment that is the id which the next one's header has. Exact: whoever has seen
//!   that event has seen the hole's end, whoever has not has missed a part of the hole.
//! - In the newest it is the last record behind the damage, if it checks and nothing is behind it.
//!   Otherwise nobody knows, and `after` is an id that was never given out: greater than all that
//!   was found, and not before the birth of the hub that opens the journal. Every cursor is then
//!   before it.
//!
//! The hole stays in the journal as a gap record in the place of what is lost, because tomorrow's
//! start must know of it too: it reads back to the gap and no further.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::disk::{self, Disk, failed};
use super::journal::{JournalOptions, segment_path};
use super::present::{Beginning, Present};
use super::segment::{self, Contents, Damage};
use crate::config::SyncMode;
use crate::hub::{Kept, Record};
use crate::wire::{EventId, Topic};

/// Finds the segment to go on with, or begins the first, and reads what is wanted back.
pub(super) fn recover(options: &JournalOptions, born: EventId) -> io::Result<(Present, Kept)> {
    let mut recovery = Recovery {
        options,
        born,
        numbers: numbers(&options.dir)?,
        records: Vec::new(),
        bytes: 0,
        after: born,
        after_own: None,
        complete: false,
    };
    let present = recovery.newest()?;
    let mut number = present.number;
    while recovery.wants_more() && recovery.has_before(number) {
        number -= 1;
        recovery.older(number)?;
    }
    if !recovery.complete && recovery.has_before(number) {
        recovery.look_at_end_of(number - 1);
    }
    recovery.records.reverse();
    let (after_own_id, after_topic) = recovery.after_own.unwrap_or_default();
    let kept = Kept {
        after: recovery.after,
        after_own_id,
        after_topic,
        records: recovery.records,
    };
    Ok((present, kept))
}

struct Recovery<'a> {
    options: &'a JournalOptions,
    born: EventId,
    /// Of the segments that are there, rising.
    numbers: Vec<u64>,
    /// What is wanted back, the newest first.
    records: Vec<Record>,
    /// Of their messages.
    bytes: usize,
    /// The id before the last of `records`. While `complete` is false that is what the segment
    /// before must end with.
    after: EventId,
    /// The publisher's own id and the topic of the event `after`, if it was read.
    after_own: Option<(Option<Box<str>>, Option<Topic>)>,
    /// There is no more to be had: the event before is too much, or is in a hole.
    complete: bool,
}

impl Recovery<'_> {
    /// The segment to append to.
    fn newest(&mut self) -> io::Result<Present> {
        let dir = &self.options.dir;
        let Some((number, bytes)) = self.newest_with_header()? else {
            let number = self.numbers.first().map_or(1, |number| *number);
            let path = segment_path(dir, number);
            return Present::begin(path, number, Beginning::After(self.born), self.options.sync);
        };
        let path = segment_path(dir, number);
        let contents = self.contents(&path, &bytes)?;
        let len = match (contents.damage, contents.last_id()) {
            (None, _) => {
                self.take(&contents);
                bytes.len()
            }
            (Some(damage), Some(last)) if damage.beyond.is_none() => {
                self.take(&contents);
                self.cut_tail(&path, damage.offset, bytes.len(), last)?
            }
            (Some(damage), last) => {
                let upto = end_of_hole(&damage, last, self.born);
                self.repair(&path, &bytes, &damage, upto)?
            }
        };
        let disk = Disk::open(path)?;
        // What a process that was killed has written may not be on the disk yet, and it is about
        // to be shown to clients.
        if self.options.sync != SyncMode::Off {
            disk.sync()?;
            disk::sync_dir(dir)?;
        }
        Present::resume(number, disk, len as u64)
    }

    /// The number and the text of the newest segment. One whose header was not written to its end
    /// is removed: it is what a crash leaves that came as a segment was begun, and has no events.
    fn newest_with_header(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        while let Some(&number) = self.numbers.last() {
            let path = segment_path(&self.options.dir, number);
            let bytes = disk::read(&path)?;
            if !segment::is_torn_header(&bytes) {
                return Ok(Some((number, bytes)));
            }
            self.options.report.warn(format_args!(
                "{} was begun, but its header of {} bytes was not written to its end; it is begun anew",
                path.display(),
                bytes.len()
            ));
            disk::remove(&path)?;
            if self.numbers.len() == 1 {
                return Ok(None);
            }
            self.numbers.pop();
        }
        Ok(None)
    }

    /// The segment before one that was read, and of which all is wanted.
    fn older(&mut self, number: u64) -> io::Result<()> {
        let path = segment_path(&self.options.dir, number);
        let next = self.after;
        if self.numbers.binary_search(&number).is_err() {
            return self.bridge(&path);
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
        let full = self.records.len() >= self.options.events || self.bytes >= self.options.bytes;
        !self.complete && !full
    }

    fn has_before(&self, number: u64) -> bool {
        self.numbers.first().is_some_and(|oldest| *oldest < number)
    }

    fn contents<'b>(&self, path: &Path, bytes: &'b [u8]) -> io::Result<Contents<'b>> {
        if segment::is_of_another_version(bytes) {
            let line = format!("{} is a journal of another version", path.display());
            return Err(io::Error::new(io::ErrorKind::Unsupported, line));
        }
        let contents = segment::read(bytes);
        match contents.greatest_id() {
            Some(id) if !segment::leaves_room(id) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} has the id {id}, after which too few are left for other events: each of its numbers must be \
                     less than 2^63; delete its record, or move the files away to begin a new journal",
                    path.display()
                ),
            )),
            _ => Ok(contents),
        }
    }

    /// Takes what is wanted of a segment, from its end.
    fn take(&mut self, contents: &Contents<'_>) {
        for (_, block) in contents.blocks.iter().rev() {
            self.after = block.id();
            let Some(bytes) = block.message_bytes() else {
                // The header, which comes last here, or a gap, before which nothing is retained.
                self.complete = !block.is_header();
                return;
            };
            let count = self.records.len() + 1;
            self.bytes = self.bytes.saturating_add(bytes);
            if count > self.options.events || self.bytes > self.options.bytes {
                self.after_own = block.own_id_and_topic();
                self.complete = true;
                return;
            }
            self.records.extend(block.record());
        }
    }

    /// Reads the own id of the event `after` out of the segment that ends with it, from which no more
    /// is wanted. Damage in that segment is not reported, because its events are not needed: a client
    /// whose cursor is that id is then told of a gap.
    fn look_at_end_of(&mut self, number: u64) {
        let Ok(bytes) = disk::read(&segment_path(&self.options.dir, number)) else {
            return;
        };
        let contents = segment::read(&bytes);
        let last = contents.blocks.last().map(|(_, block)| block);
        if contents.damage_before(self.after).is_none() {
            self.after_own = last.and_then(|block| block.own_id_and_topic());
        }
    }

    /// Cuts off what a crash has left behind the last record. Returns the segment's length.
    fn cut_tail(&self, path: &Path, good: usize, len: usize, last: EventId) -> io::Result<usize> {
        let disk = Disk::open(path.to_owned())?;
        disk.set_len(good as u64)?;
        disk.sync()?;
        self.options.report.warn(format_args!(
            "{} ended in {} bytes that are no whole record; they were cut off, and the journal goes on after {last}",
            path.display(),
            len - good
        ));
        Ok(good)
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
        let (name, fault) = (path.display(), damage.fault.explain());
        let place = format!("{name} is damaged at byte {}: {fault}", damage.offset);
        self.refuse_unless_wanted(&place)?;
        let (good, rest) = bytes.split_at(damage.offset);
        // ORDER: the file aside before the segment loses what is in it.
        let aside = set_aside(path, rest)?;
        let mut text = good.to_vec();
        if text.is_empty() {
            segment::encode_header(upto, &mut text);
        }
        segment::encode_gap(upto, aside.as_deref(), &mut text);
        replace(path, &text)?;
        let moved = match aside {
            Some(file) => format!("{} bytes from there on were moved to {file}", rest.len()),
            None => "there was nothing to be moved aside".into(),
        };
        self.go_on_behind(&format!("{place}; {moved}"), upto);
        Ok(text.len())
    }

    /// Puts a segment that has only a gap in the place of one that is missing.
    fn bridge(&mut self, path: &Path) -> io::Result<()> {
        let upto = self.after;
        let name = path.display();
        let place = format!("{name} is missing, and older segments are there");
        self.refuse_unless_wanted(&place)?;
        let mut text = Vec::new();
        segment::encode_header(upto, &mut text);
        segment::encode_gap(upto, None, &mut text);
        replace(path, &text)?;
        self.go_on_behind(&place, upto);
        Ok(())
    }

    fn refuse_unless_wanted(&self, place: &str) -> io::Result<()> {
        if self.options.repair {
            return Ok(());
        }
        let offer = "start with --repair to go on without the events that are lost; what is found in their place is moved aside";
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{place}; {offer}"),
        ))
    }

    /// Says what was done about a hole whose last event is `upto`, and lets nothing from before it
    /// be retained.
    fn go_on_behind(&mut self, done: &str, upto: EventId) {
        self.options.report.warn(format_args!(
            "{done}; clients that have not seen {upto} will be told of a gap"
        ));
        self.after = upto;
        self.complete = true;
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
        _ => {}
    }
    let disk = Disk::create_new(path.clone())?;
    disk.append(text)?;
    disk.sync()?;
    // Some systems rename no file that is open.
    drop(disk);
    fs::rename(&path, segment).map_err(|cause| failed("replace", segment, &cause))?;
    disk::sync_dir(segment.parent().unwrap_or(segment))
}

/// Writes bytes into a new file next to the segment, durably, and returns its name. `None`: there
/// are none.
fn set_aside(segment: &Path, bytes: &[u8]) -> io::Result<Option<String>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut file, path) = fresh_file(segment)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|cause| failed("write to", &path, &cause))?;
    disk::sync_dir(segment.parent().unwrap_or(segment))?;
    let name = path.file_name().unwrap_or_default();
    Ok(Some(name.to_string_lossy().into_owned()))
}

/// `00000002.sse.damaged`, or with a number behind it that is free.
fn fresh_file(segment: &Path) -> io::Result<(File, PathBuf)> {
    let mut path = segment.with_extension("sse.damaged");
    for number in 2.. {
        match disk::private().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                path = segment.with_extension(format!("sse.damaged.{number}"));
            }
            Err(cause) => return Err(failed("create", &path, &cause)),
        }
    }
    unreachable!("BUG: numbers have ended")
}

/// The segments of a directory, rising. Other files are none of ours.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let listed = |cause| failed("list", dir, &cause);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(listed)? {
        let name = entry.map_err(listed)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".sse"));
        let number = digits.and_then(|digits| digits.parse().ok());
        // The name that we would give it, not `1.sse` or `+0000001.sse`.
        numbers.extend(number.filter(|number| segment_path(dir, *number).ends_with(&name)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
