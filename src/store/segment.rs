//! The file format of the journal: encodes events as text, and finds out which part of
//! such a text was written completely.
//!
//! A segment is an event stream. Every reader of event streams can read it, this crate's
//! `Decoder` too, because everything that the journal adds is in comments. A segment
//! consists of blocks. Each block ends with a checksum and the empty line that also ends
//! the message:
//!
//! ```text
//! : tiny-sse journal 1, after 1795326000123-0     the header: the id of the event before the first one
//! : crc 5c1e8b02
//!
//! : event 1795326004711-0 chat/1                  the hub's id of the event, and its topic
//! id: 1795326004711-0                             the message: with this id, or with the publisher's own
//! event: greeting
//! data: hello
//! : crc 1a2b3c4d                                  the CRC-32 of the block's bytes before this line
//!
//! : gap 1795326009999-0 00000002.sse.damaged      all events up to this id are lost; their bytes are in this file
//! : crc 90abcdef
//!
//! ```
//!
//! Nothing has to be escaped. No line of a message begins with `:`, no line before its
//! end is empty, and a topic contains no control characters. So a line that begins with
//! `:` is always written by the journal, and no publisher can forge one. The topic is the
//! rest of the line after the space.
//!
//! # Reading a damaged segment
//!
//! [`read`] parses blocks from the beginning. It stops at the first position where no
//! valid block is, or where a valid block does not fit: a header in the middle, or an id
//! that does not rise. Then it searches the rest of the file for blocks with a valid
//! checksum ([`Damage::at`]), because their presence decides what has happened:
//!
//! - Valid blocks follow: bytes in the middle were changed. No crash does this, so events
//!   are lost.
//! - None follows: the end of the file is incomplete, which a crash leaves. Nothing that
//!   was acknowledged is lost.
//!
//! The search looks at every byte that begins like the first line of an event or a gap. A
//! candidate inside the data of an event does not count: its checksum is wrong.
//!
//! This module has no I/O: it turns records into bytes and bytes into records.

use std::io::{BufRead, Write};

use super::crc32::crc32;
use crate::hub::Record;
use crate::wire::{EventId, Topic};

/// The first bytes of every journal, in every version.
const JOURNAL: &[u8] = b": tiny-sse journal ";
/// The first line of a block begins with one of these three, up to its id.
const HEADER: &str = ": tiny-sse journal 1, after ";
const EVENT: &str = ": event ";
const GAP: &str = ": gap ";

/// LIMIT: the longest first line of a block, in bytes. An id has at most 41 bytes, a
/// topic 255.
const LONGEST_LINE: usize = 512;
/// LIMIT: the longest header block, in bytes.
pub(super) const LONGEST_HEADER: usize = 128;

/// The length of `: crc 1a2b3c4d`, its line break, and the empty line.
const SEAL_BYTES: usize = 16;

/// LIMIT: both numbers of an id in a journal are less than this. Ids only rise, so an id
/// at the end of the range would leave no ids for later events.
const ID_LIMIT: u64 = 1 << 63;

/// Whether enough ids are left after this one for later events.
pub(super) fn leaves_room(id: EventId) -> bool {
    id.ms < ID_LIMIT && id.seq < ID_LIMIT
}

/// Returns the header of a segment whose events come after the event `after`.
pub(super) fn header(after: EventId) -> Vec<u8> {
    let mut text = Vec::new();
    encode(HEADER, after, None, b"", &mut text);
    text
}

/// Returns the header of a segment that begins with a gap: all events up to `upto` that
/// are not in older segments are lost.
pub(super) fn header_after_hole(upto: EventId) -> Vec<u8> {
    let mut text = header(upto);
    encode_gap(upto, None, &mut text);
    text
}

/// Appends the block of an event whose message [`is_message`].
pub(super) fn encode_event(record: &Record, out: &mut Vec<u8>) {
    let (message, topic) = (record.message(), record.topic());
    // The empty line of the message comes after the checksum, so that a reader sees one
    // event per block.
    let body = &message[..message.len() - 1];
    encode(EVENT, record.id(), topic.map(Topic::as_str), body, out);
}

/// Appends a gap block: the events up to `upto` are lost. `aside` is the file with the
/// bytes that were found instead of them, if there is one.
pub(super) fn encode_gap(upto: EventId, aside: Option<&str>, out: &mut Vec<u8>) {
    encode(GAP, upto, aside, b"", out);
}

/// Appends a block: the first line, the body, the checksum and the empty line. The
/// checksum covers the first line too, so that an event cannot change its topic.
fn encode(beginning: &str, id: EventId, rest: Option<&str>, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let space = if rest.is_some() { " " } else { "" };
    let rest = rest.unwrap_or_default();
    writeln!(out, "{beginning}{id}{space}{rest}").expect("BUG: a Vec refuses bytes");
    out.extend_from_slice(body);
    let seal = seal_of(&out[start..]);
    out.extend_from_slice(&seal);
}

/// The lines that end a block with these bytes: the checksum and the empty line.
fn seal_of(block: &[u8]) -> [u8; SEAL_BYTES] {
    let mut seal = *b": crc 00000000\n\n";
    let crc = crc32(block);
    for (place, digit) in seal[6..14].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(crc >> (28 - 4 * place) & 0xF) as usize];
    }
    seal
}

/// Whether this is exactly one message as clients read it: a line with the id, other
/// lines without comments, and an empty line. Anything else could be written, but not be
/// read back as the same event.
pub(super) fn is_message(message: &[u8]) -> bool {
    let Some(mut fields) = message.strip_suffix(b"\n") else {
        return false;
    };
    if !fields.starts_with(b"id: ") || fields.contains(&b'\r') {
        return false;
    }
    while let Some(line) = first_line(fields) {
        if line == b"\n" || line[0] == b':' {
            return false;
        }
        fields = &fields[line.len()..];
    }
    fields.is_empty()
}

/// A block with a valid checksum.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) kind: BlockKind,
    /// The id in the first line: of the event, of the event before the segment, or of the
    /// last lost event.
    pub(super) id: EventId,
    /// The topic, if this is an event that has one.
    topic: Option<Topic>,
    /// The publisher's own id, if this is an event that has one.
    own_id: Option<&'a str>,
    /// The bytes between the first line and the checksum: the message without its empty
    /// line.
    body: &'a [u8],
    /// The length of the whole block in bytes.
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// The first block of a segment.
    Header,
    Event,
    /// Events were lost here.
    Gap,
}

impl Block<'_> {
    /// The record, if this block is an event.
    pub(super) fn record(&self) -> Option<Record> {
        let message = || [self.body, b"\n"].concat();
        (self.kind == BlockKind::Event)
            .then(|| Record::kept(self.id, self.own_id, self.topic.clone(), message()))
    }
}

/// Why there is no valid block, for an error message.
type Reason = &'static str;

/// The text ends within the block.
const CUT: Reason = "a record is cut off";
/// The text is not a block.
const FOREIGN: Reason = "there is no record";
/// The bytes are not those that were written.
const CHECKSUM: Reason = "a record has a wrong checksum";
/// The id is not greater than the id before.
const ORDER: Reason = "a record has an id that does not rise";
/// The segment ends before the event that the header of the next segment names.
const MISSING: Reason = "the records before the next segment are missing";

/// Reads the block at the beginning of `bytes`, without copying: the block refers to
/// `bytes`. Looks at nothing after the block, so the result is the same whatever follows.
///
/// ```text
/// ├─ first line ──┤├─ body ───────┤├─ checksum and empty line ─┤
/// : event 17-0 a⏎  id: 17-0⏎      : crc 1a2b3c4d⏎⏎
///                  data: x⏎
/// 0                line.len()     end                          len
/// ```
fn block(bytes: &[u8]) -> Result<Block<'_>, Reason> {
    let start = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(line) = first_line(start) else {
        let is_cut = bytes.len() < LONGEST_LINE;
        return Err(if is_cut { CUT } else { FOREIGN });
    };
    let (kind, id, rest) = parts(line).ok_or(FOREIGN)?;
    let after_line = &bytes[line.len()..];
    // LIMIT: a block that is not an event has no body. Otherwise, when a valid block is
    // searched after damage, each `: gap ` in the data of a large event would cost a pass
    // to the end of that event.
    let (topic, own_id, body) = if kind == BlockKind::Event {
        let topic = rest.map(Topic::new).transpose().map_err(|_| FOREIGN)?;
        let own_id = wire_id(after_line)?.filter(|own| own.parse() != Ok(id));
        (topic, own_id, fields(after_line)?)
    } else {
        (None, None, &[][..])
    };
    let end = line.len() + body.len();
    let len = end + SEAL_BYTES;
    let found = bytes.get(end..len).ok_or(CUT)?;
    if *found != seal_of(&bytes[..end]) {
        return Err(CHECKSUM);
    }
    Ok(Block {
        kind,
        id,
        topic,
        own_id,
        body,
        len,
    })
}

/// Parses the first line of a block: its kind, its id, and the text after the id and a
/// space, if there is one.
fn parts(line: &[u8]) -> Option<(BlockKind, EventId, Option<&str>)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let kinds = [
        (HEADER, BlockKind::Header),
        (EVENT, BlockKind::Event),
        (GAP, BlockKind::Gap),
    ];
    let split = |(beginning, kind)| Some((kind, line.strip_prefix(beginning)?));
    let (kind, line) = kinds.into_iter().find_map(split)?;
    let (id, rest) = match line.split_once(' ') {
        // A header has nothing after its id.
        Some((id, rest)) if kind != BlockKind::Header => (id, Some(rest)),
        _ => (line, None),
    };
    Some((kind, id.parse().ok()?, rest))
}

/// Returns the lines before the comment that ends the block. An empty line before that
/// comment is an error: it would end the message for clients, but not for the journal.
fn fields(bytes: &[u8]) -> Result<&[u8], Reason> {
    let mut end = 0;
    loop {
        let line = first_line(&bytes[end..]).ok_or(CUT)?;
        match line[0] {
            b':' => return Ok(&bytes[..end]),
            b'\n' => return Err(FOREIGN),
            _ => end += line.len(),
        }
    }
}

/// Returns the id of the message at the beginning of `bytes`. `None`: the text ends
/// within the line.
///
/// The line is required. This also prevents publishers from forging a block: the data of
/// an event may contain `: event 1-0`, but the next line of the data begins with `data: `
/// and not with `id: `.
fn wire_id(bytes: &[u8]) -> Result<Option<&str>, Reason> {
    let Some(line) = first_line(bytes) else {
        return Ok(None);
    };
    let id = line.strip_prefix(b"id: ").ok_or(FOREIGN)?;
    let id = std::str::from_utf8(id).map_err(|_| FOREIGN)?;
    Ok(Some(id.trim_end_matches('\n')))
}

/// Returns the first line with its line break, or `None` if there is no line break.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    // `skip_until` uses the system's `memchr`, which is faster than a loop over the
    // bytes.
    let len = (&mut &*bytes)
        .skip_until(b'\n')
        .expect("BUG: reading from memory failed");
    let line = &bytes[..len];
    line.ends_with(b"\n").then_some(line)
}

/// The parsed contents of a segment.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// The valid blocks from the beginning on, each with its position: the header, then
    /// events and gaps with rising ids.
    pub(super) blocks: Vec<(usize, Block<'a>)>,
    /// The first invalid position, if the valid blocks do not reach the end of the file.
    pub(super) damage: Option<Damage>,
    /// The length of the file in bytes.
    len: usize,
}

/// A position without a valid block, or with a block that does not fit there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// The position in the file, in bytes.
    pub(super) offset: usize,
    pub(super) reason: Reason,
    /// The valid blocks after it. If there are none, the file may just be incomplete at
    /// its end, as after a crash.
    pub(super) beyond: Option<Beyond>,
}

/// The valid blocks after damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beyond {
    /// The greatest of their ids.
    pub(super) greatest: EventId,
    /// Whether the block with this id ends the file, so that no later event can be lost.
    pub(super) is_last: bool,
}

/// Parses a segment. Reads each byte a bounded number of times, whatever the file
/// contains: valid blocks once; after damage, once in the search for the beginning of a
/// block, and once for each candidate that reaches over it. A candidate that is not an
/// event ends within [`LONGEST_LINE`], and one that is an event must have its `id` line
/// next, which the data of an event cannot have.
pub(super) fn read(bytes: &[u8]) -> Contents<'_> {
    let mut contents = Contents {
        blocks: Vec::new(),
        damage: None,
        len: bytes.len(),
    };
    let mut offset = 0;
    while offset < bytes.len() || offset == 0 {
        match block(&bytes[offset..]).and_then(|block| contents.fits(block)) {
            Ok(block) => {
                let len = block.len;
                contents.blocks.push((offset, block));
                offset += len;
            }
            Err(reason) => {
                contents.damage = Some(Damage::at(offset, reason, bytes));
                break;
            }
        }
    }
    contents
}

impl<'a> Contents<'a> {
    /// Checks that a block may follow the blocks so far.
    fn fits(&self, block: Block<'a>) -> Result<Block<'a>, Reason> {
        match (self.last_id(), block.kind) {
            (None, BlockKind::Header) => Ok(block),
            (None, _) | (_, BlockKind::Header) => Err(FOREIGN),
            (Some(last), BlockKind::Event) if block.id <= last => Err(ORDER),
            // A gap may be empty: its id may be the id before it.
            (Some(last), BlockKind::Gap) if block.id < last => Err(ORDER),
            _ => Ok(block),
        }
    }

    /// The id of the last valid block before any damage. `None`: not even the header is
    /// valid.
    pub(super) fn last_id(&self) -> Option<EventId> {
        self.blocks.last().map(|(_, block)| block.id)
    }

    /// The greatest id of all valid records, including those after a damaged one.
    pub(super) fn greatest_id(&self) -> Option<EventId> {
        let beyond = self.damage.and_then(|damage| damage.beyond);
        self.last_id().max(beyond.map(|beyond| beyond.greatest))
    }

    /// What is wrong with this segment, if the header of the next segment names the event
    /// `next`: this segment must be undamaged and end with that event.
    pub(super) fn damage_before(&self, next: EventId) -> Option<Damage> {
        let ends = self.last_id() == Some(next);
        if self.damage.is_some() || ends {
            return self.damage;
        }
        let excess = self.blocks.iter().find(|(_, block)| block.id > next);
        Some(Damage {
            offset: excess.map_or(self.len, |(offset, _)| *offset),
            reason: excess.map_or(MISSING, |_| ORDER),
            beyond: None,
        })
    }
}

impl Damage {
    /// Searches the rest of the file for valid blocks, which decide whether this is the
    /// end that a crash leaves, or damage in the middle.
    fn at(offset: usize, reason: Reason, bytes: &[u8]) -> Damage {
        let (mut beyond, mut at) = (None::<Beyond>, offset);
        while let Some(start) = next_start(bytes, at) {
            let Ok(block) = block(&bytes[start..]) else {
                at = start + 1;
                continue;
            };
            at = start + block.len;
            let before = beyond.map_or(EventId::default(), |beyond| beyond.greatest);
            beyond = Some(Beyond {
                greatest: before.max(block.id),
                is_last: at == bytes.len() && block.id > before,
            });
        }
        Damage {
            offset,
            reason,
            beyond,
        }
    }
}

/// Returns the next position at which an event or a gap may begin. It need not be the
/// beginning of a line, because the line break before it may be damaged.
fn next_start(bytes: &[u8], from: usize) -> Option<usize> {
    let begins = |at: usize, kind: &str| bytes[at..].starts_with(kind.as_bytes());
    (from..bytes.len()).find(|&at| begins(at, EVENT) || begins(at, GAP))
}

/// Whether this is what a failed creation of a segment leaves: an empty file, a part of a
/// header, or a whole header.
pub(super) fn has_no_event(bytes: &[u8]) -> bool {
    let contents = read(bytes);
    // The first block is the header.
    let is_bare_header = contents.damage.is_none() && contents.blocks.len() == 1;
    is_bare_header || is_torn_header(bytes)
}

/// Whether these bytes are complete, valid blocks and nothing else. Asked about bytes
/// that were read back after a sync had failed, before they are written once more.
pub(super) fn is_whole(mut bytes: &[u8]) -> bool {
    while let Ok(block) = block(bytes) {
        bytes = &bytes[block.len..];
        if bytes.is_empty() {
            return true;
        }
    }
    bytes.is_empty()
}

/// Whether this is an incomplete header, or zeros, which some file systems show instead
/// of bytes that were not written yet. Such a segment never had an event. If a valid
/// block follows, the header was written completely and is damaged.
pub(super) fn is_torn_header(bytes: &[u8]) -> bool {
    let common = bytes.len().min(HEADER.len());
    let began = bytes[..common] == HEADER.as_bytes()[..common];
    let zeros = bytes.iter().all(|&byte| byte == 0);
    let is_bare = |contents: Contents| {
        let is_torn = contents
            .damage
            .is_some_and(|damage| damage.beyond.is_none());
        is_torn && contents.blocks.is_empty()
    };
    bytes.len() < LONGEST_HEADER && (began || zeros) && is_bare(read(bytes))
}

/// Whether this is a journal of another version than 1. Asked before damage is looked
/// for: a later format must be an error that names the version, not a damaged file that
/// `--repair` would destroy.
pub(super) fn is_of_another_version(bytes: &[u8]) -> bool {
    let version = first_line(bytes).and_then(|line| line.strip_prefix(JOURNAL));
    version.is_some_and(|version| !version.starts_with(b"1,"))
}
