//! The format of the journal: turns events into text that outlives a crash, and says of such text
//! which part of it was written whole.
//!
//! A segment is an event stream. A browser or this crate's own `Decoder` reads it as it is, because
//! what the journal adds stands in comments, and `less` shows it to a person. It is made of blocks,
//! each ended by a checksum and the empty line that also ends its message:
//!
//! ```text
//! : tiny-sse journal 1, after 1795326000123-0     the header: the id before the first event
//! : crc 5c1e8b02
//!
//! : event 1795326004711-0 chat/1                  an event's place in the order, and its topic
//! id: 1795326004711-0                             its message: this id, or the publisher's own
//! event: greeting
//! data: hello
//! : crc 1a2b3c4d                                  of all that the block has before this line
//!
//! : gap 1795326009999-0 00000002.sse.damaged      the events up to this id are lost
//! : crc 90abcdef
//!
//! ```
//!
//! Nothing needs to be escaped. No line of a message begins with `:` or is empty before its end,
//! and a topic has no control characters, so a line that begins with `:` is always ours, and no
//! publisher can write one. A topic is the rest of its line, behind one space.

use std::io::{BufRead, Write};

use super::crc32::crc32;
use crate::hub::Record;
use crate::wire::{EventId, Topic};

/// Where every journal begins, of whatever version.
const JOURNAL: &[u8] = b": tiny-sse journal ";
/// How the first line of a block begins, up to its id.
const HEADER: &str = ": tiny-sse journal 1, after ";
const EVENT: &str = ": event ";
const GAP: &str = ": gap ";

/// LIMIT: no first line of a block is longer. An id has 41 bytes at the most, a topic 255.
const LONGEST_LINE: usize = 512;
/// Nor is a whole header.
pub(super) const LONGEST_HEADER: usize = 128;

/// `: crc 1a2b3c4d` and the empty line.
const SEAL_BYTES: usize = 16;

/// LIMIT: both numbers of an id are below this. Ids never go back, so one at the end of the range
/// would leave none for later events.
const ID_LIMIT: u64 = 1 << 63;

/// Whether enough ids are left after this one.
pub(super) fn leaves_room(id: EventId) -> bool {
    id.ms < ID_LIMIT && id.seq < ID_LIMIT
}

/// The header of a segment whose events come after `after`.
pub(super) fn header(after: EventId) -> Vec<u8> {
    let mut text = Vec::new();
    encode(HEADER, after, None, b"", &mut text);
    text
}

/// The header of a segment whose events come after a hole that ends with the event `upto`.
pub(super) fn header_after_hole(upto: EventId) -> Vec<u8> {
    let mut text = header(upto);
    encode_gap(upto, None, &mut text);
    text
}

/// Appends the block of an event whose message [`is_message`].
pub(super) fn encode_event(record: &Record, out: &mut Vec<u8>) {
    let (message, topic) = (record.message(), record.topic());
    // Its empty line comes after the checksum: an empty line would part the two for a reader.
    let body = &message[..message.len() - 1];
    encode(EVENT, record.id(), topic.map(Topic::as_str), body, out);
}

/// Appends the block that says that events up to `upto` are lost, and in which file is what was
/// found in their place, if anything was.
pub(super) fn encode_gap(upto: EventId, aside: Option<&str>, out: &mut Vec<u8>) {
    encode(GAP, upto, aside, b"", out);
}

/// Appends a block: its first line, its body, and its end.
fn encode(beginning: &str, id: EventId, rest: Option<&str>, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let space = if rest.is_some() { " " } else { "" };
    let rest = rest.unwrap_or_default();
    writeln!(out, "{beginning}{id}{space}{rest}").expect("BUG: a Vec refuses bytes");
    out.extend_from_slice(body);
    let seal = seal_of(&out[start..]);
    out.extend_from_slice(&seal);
}

fn seal_of(block: &[u8]) -> [u8; SEAL_BYTES] {
    let mut seal = *b": crc 00000000\n\n";
    let crc = crc32(block);
    for (place, digit) in seal[6..14].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(crc >> (28 - 4 * place) & 0xF) as usize];
    }
    seal
}

/// Whether this is one message as clients read it: an id line, other lines, an empty line, and no
/// comment. Anything else could be written but not be read back.
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

/// A block that checks.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) kind: BlockKind,
    /// The latest id of which the journal knows after this block.
    pub(super) id: EventId,
    /// The topic of an event.
    topic: Option<Topic>,
    /// The publisher's own id of an event, if that is on the wire.
    own_id: Option<&'a str>,
    /// What stands between its first line and its checksum: the message, but for its empty line.
    body: &'a [u8],
    /// Its length with everything.
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// The first of a segment.
    Header,
    Event,
    /// Events are lost here.
    Gap,
}

impl Block<'_> {
    /// The event, if this is one.
    pub(super) fn record(&self) -> Option<Record> {
        let message = || [self.body, b"\n"].concat();
        (self.kind == BlockKind::Event)
            .then(|| Record::kept(self.id, self.own_id, self.topic.clone(), message()))
    }
}

/// Why there is no block, in words for a person.
type Reason = &'static str;

/// The text ends within it.
const CUT: Reason = "a record is cut off";
/// It is something else.
const FOREIGN: Reason = "there is no record";
/// It is not what was written.
const CHECKSUM: Reason = "a record has a wrong checksum";
/// Its id is not greater than those before it.
const ORDER: Reason = "a record has an id that does not rise";
/// It is whole, and the events that should follow it are not there.
const MISSING: Reason = "records are missing that the next segment goes on from";

/// Reads the block that `bytes` begin with.
fn block(bytes: &[u8]) -> Result<Block<'_>, Reason> {
    let start = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(line) = first_line(start) else {
        let is_cut = bytes.len() < LONGEST_LINE;
        return Err(if is_cut { CUT } else { FOREIGN });
    };
    let (kind, id, rest) = parts(line).ok_or(FOREIGN)?;
    let after_line = &bytes[line.len()..];
    // LIMIT: what is no event has nothing else. Or each `: gap ` in the data of a large event would
    // be read on from to that event's end when a record is looked for after a damage.
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

/// The kind and the id of a block, and what its first line has after the id and a space.
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

/// The lines up to the comment that ends a block.
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

/// The id on the wire of an event whose fields `bytes` begin with. `None`: the text ends before it does.
///
/// That it must be there is also what keeps publishers from feigning a block: the data or name of
/// an event may have `: event 1-0` in it, but no `id:` line after that.
fn wire_id(bytes: &[u8]) -> Result<Option<&str>, Reason> {
    let Some(line) = first_line(bytes) else {
        return Ok(None);
    };
    let id = line.strip_prefix(b"id: ").ok_or(FOREIGN)?;
    let id = std::str::from_utf8(id).map_err(|_| FOREIGN)?;
    Ok(Some(id.trim_end_matches('\n')))
}

/// The first line with its line break; `None` if there is no line break.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    // Not `position`, which compares a byte at a time: this is the system's `memchr`.
    let len = (&mut &*bytes)
        .skip_until(b'\n')
        .expect("BUG: reading from memory failed");
    let line = &bytes[..len];
    line.ends_with(b"\n").then_some(line)
}

/// A segment that was read.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// What checks from the beginning on: the header first, then events and gaps, their ids rising.
    pub(super) blocks: Vec<(usize, Block<'a>)>,
    /// Where that ends, if it is not at the end of the file.
    pub(super) damage: Option<Damage>,
    len: usize,
}

/// A place where no block is, or not the one that should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// In bytes, from the beginning of the file.
    pub(super) offset: usize,
    pub(super) reason: Reason,
    /// What checks after it: that makes it a hole. Without, it is the end.
    pub(super) beyond: Option<Beyond>,
}

/// Blocks that check after a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beyond {
    /// The greatest of their ids.
    pub(super) greatest: EventId,
    /// Whether it is the very last thing of the file: no event can have come after it.
    pub(super) is_last: bool,
}

/// Reads a segment.
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
    fn fits(&self, block: Block<'a>) -> Result<Block<'a>, Reason> {
        match (self.last_id(), block.kind) {
            (None, BlockKind::Header) => Ok(block),
            (None, _) | (_, BlockKind::Header) => Err(FOREIGN),
            (Some(last), BlockKind::Event) if block.id <= last => Err(ORDER),
            // A gap may be empty: its last event may be the one before it.
            (Some(last), BlockKind::Gap) if block.id < last => Err(ORDER),
            _ => Ok(block),
        }
    }

    /// The latest id that checks. `None`: not even the header does.
    pub(super) fn last_id(&self) -> Option<EventId> {
        self.blocks.last().map(|(_, block)| block.id)
    }

    /// The greatest id of all valid records, including those after a damaged one.
    pub(super) fn greatest_id(&self) -> Option<EventId> {
        let beyond = self.damage.and_then(|damage| damage.beyond);
        self.last_id().max(beyond.map(|beyond| beyond.greatest))
    }

    /// What is wrong with this segment, given that the next one's first event comes after `next`.
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

/// Where the next event or gap may begin. That need not be a line's beginning: the line break
/// before it may be what is damaged.
fn next_start(bytes: &[u8], from: usize) -> Option<usize> {
    let begins = |at: usize, kind: &str| bytes[at..].starts_with(kind.as_bytes());
    (from..bytes.len()).find(|&at| begins(at, EVENT) || begins(at, GAP))
}

/// Whether this is what an attempt to begin a segment leaves when it fails: nothing, a part of a
/// header, or a whole one.
pub(super) fn has_no_event(bytes: &[u8]) -> bool {
    let contents = read(bytes);
    // The first block is the header.
    let is_bare_header = contents.damage.is_none() && contents.blocks.len() == 1;
    is_bare_header || is_torn_header(bytes)
}

/// Whether these are whole blocks and nothing else.
pub(super) fn is_whole(mut bytes: &[u8]) -> bool {
    while let Ok(block) = block(bytes) {
        bytes = &bytes[block.len..];
        if bytes.is_empty() {
            return true;
        }
    }
    bytes.is_empty()
}

/// Whether this is all that a crash left of a header, or the zeros that some file systems put in
/// the place of what was not written yet. There was never an event behind it: a header with one that
/// checks was written whole, and is damaged.
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

/// Whether this is a journal, but not of the version that is read here.
pub(super) fn is_of_another_version(bytes: &[u8]) -> bool {
    let version = first_line(bytes).and_then(|line| line.strip_prefix(JOURNAL));
    version.is_some_and(|version| !version.starts_with(b"1,"))
}
