//! Random and damaged journals: no event is read that was not written, every event before
//! the damage is read, and the damage is found at the position where a second, slow
//! reader finds it.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use super::segment::{self, BlockKind, encode_event, encode_gap, header};
use super::tests::{BORN, Scratch, kept};
use crate::chance::{Bytes, Mutator, Random, cases};
use crate::hub::{Kept, Record};
use crate::wire::{Decoder, Event, EventId, Topic};

/// The position of a block, its kind (`h`eader, `e`vent or `g`ap), its id, and its
/// length.
type Place = (usize, char, EventId, usize);

/// The second reader: parses one block according to the drawing in `segment.rs`.
fn block(bytes: &[u8], at: usize) -> Option<Place> {
    let mut lines = bytes[at..].split_inclusive(|&byte| byte == b'\n');
    let first = lines.next().filter(|line| line.len() <= 512)?;
    let line = std::str::from_utf8(first).ok()?.strip_suffix('\n')?;
    let word = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let (kind, id) = if let Some(after) = line.strip_prefix(": tiny-sse journal 1, after ") {
        ('h', after.to_owned())
    } else if let Some(rest) = line.strip_prefix(": gap ") {
        ('g', word(rest))
    } else {
        let (id, topic) = line
            .strip_prefix(": event ")
            .map(|rest| (word(rest), rest.split_once(' ')))?;
        if let Some((_, topic)) = topic {
            Topic::new(topic).ok()?;
        }
        ('e', id)
    };
    let mut fields = Vec::new();
    for line in lines.take_while(|line| kind == 'e' && line[0] != b':') {
        if line == b"\n" || !line.ends_with(b"\n") {
            return None;
        }
        fields.push(line);
    }
    let own_id = fields
        .first()
        .map(|line| (line.starts_with(b"id: "), std::str::from_utf8(line)));
    if kind == 'e' && !matches!(own_id, Some((true, Ok(_)))) {
        return None;
    }
    let end = first.len() + fields.concat().len();
    let sealed = sealed(&bytes[at..at + end]);
    bytes[at..].starts_with(&sealed).then_some(())?;
    Some((at, kind, id.parse().ok()?, sealed.len()))
}

/// A block with its checksum. SPEC: IEEE 802.3, computed bit by bit.
fn sealed(block: &[u8]) -> Vec<u8> {
    let mut register = !0u32;
    for byte in block {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register = (register >> 1) ^ (carry * 0xEDB8_8320);
        }
    }
    [block, format!(": crc {:08x}\n\n", !register).as_bytes()].concat()
}

/// All blocks from the beginning on that fit to each other.
fn good(bytes: &[u8]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut at = 0;
    while let Some(place @ (_, kind, id, len)) = block(bytes, at).filter(|_| at < bytes.len()) {
        let fits = match (places.last(), kind) {
            (None, kind) => kind == 'h',
            (Some((_, _, last, _)), 'e') => id > *last,
            (Some((_, _, last, _)), 'g') => id >= *last,
            _ => false,
        };
        if !fits {
            break;
        }
        places.push(place);
        at += len;
    }
    places
}

/// The events and gaps that can be found from this position on.
fn found(bytes: &[u8], from: usize) -> Vec<Place> {
    let (mut places, mut at) = (Vec::new(), from);
    while at < bytes.len() {
        let place = if bytes[at] == b':' {
            block(bytes, at)
        } else {
            None
        };
        match place.filter(|place| place.1 != 'h') {
            Some(place) => {
                at += place.3;
                places.push(place);
            }
            None => at += 1,
        }
    }
    places
}

fn event(id: EventId, random: &mut Random) -> Record {
    #[rustfmt::skip]
    const DATA: [&str; 12] = [
        "", "x", "hello\nworld", "\n", ": event 9-9\nid: 9-9", ": crc 00000000\n\n", ": gap 9-9", "\u{43f}\u{1f980}",
        "id: 5-0\n\n: event 5-0", "\0\u{85}\u{2028}\u{feff}", "data: \r\n\r", ": tiny-sse journal 1, after 1-0",
    ];
    let mut event = Event::new(random.pick(&DATA).repeat(random.below(3)));
    if random.one_in(3) {
        event = event
            .with_name(random.pick(&["name", ": event 1-0", " ", "\u{1f980}"]))
            .unwrap();
    }
    if random.one_in(4) {
        event = event
            .with_id(random.pick(&["own", ":gap1-0", "7-07"]))
            .unwrap();
    }
    if random.one_in(4) {
        event = event.with_retry(Duration::from_millis(1500));
    }
    if random.one_in(2) {
        event = event
            .with_topic(Topic::new(random.pick(&["a", "chat/1", " b ", ": crc", "*a"])).unwrap());
    }
    kept(id, &event)
}

/// A segment: its text, the positions at which its blocks end, and its events.
type Segment = (Vec<u8>, Vec<usize>, Vec<Record>);

/// A greater id: so many milliseconds later, or in the same millisecond.
fn after_id(EventId { ms, seq }: EventId, later: u64) -> EventId {
    match later {
        0 => EventId { ms, seq: seq + 1 },
        _ => EventId {
            ms: ms + later,
            seq: 0,
        },
    }
}

/// A segment with this number of events or gaps after the event `after`.
fn segment(after: EventId, count: usize, random: &mut Random) -> Segment {
    let (mut text, mut entries, mut last) = (header(after), Vec::new(), after);
    let mut ends = vec![text.len()];
    for _ in 0..count {
        last = after_id(last, random.below(3) as u64);
        if random.one_in(12) {
            let aside = random.one_in(2).then_some("00000001.sse.damaged");
            encode_gap(last, aside, &mut text);
        } else {
            entries.push(event(last, random));
            encode_event(&entries[entries.len() - 1], &mut text);
        }
        ends.push(text.len());
    }
    (text, ends, entries)
}

#[rustfmt::skip]
const WORDS: [&str; 13] = [
    ": event ", ": gap ", ": crc ", ": crc 00000000\n\n", ": tiny-sse journal 1, after ", "journal 2, after ",
    "id: ", "data: ", "1000-0", "1001-0", "18446744073709551615-18446744073709551615", "\n\n", " \n",
];

/// Gives each block the correct checksum, so that the bytes after it are parsed too.
fn reseal(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut block) = (Vec::new(), Vec::new());
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(b": crc ") && lines.next_if_eq(&b"\n").is_some() {
            out.extend(sealed(&std::mem::take(&mut block)));
        } else {
            block.extend(line);
        }
    }
    [out, block].concat()
}

/// A segment as it was written and as it is found, possibly with corrected checksums.
#[derive(Debug)]
struct Spoilt {
    written: Bytes,
    /// The positions at which its blocks end.
    ends: Vec<usize>,
    found: Bytes,
    resealed: bool,
}

/// The texts of the blocks that end at these positions.
fn texts<'a>(bytes: &'a [u8], ends: &[usize]) -> Vec<&'a [u8]> {
    let mut start = 0;
    let texts = ends
        .iter()
        .map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]);
    texts.collect()
}

fn segment_holds(spoilt: &Spoilt, corpus: &HashSet<Vec<u8>>) {
    let (written, bytes) = (&spoilt.written.0, &spoilt.found.0);
    let contents = segment::read(bytes);
    let expected = good(bytes);
    let kind = |block: &segment::Block| match block.kind {
        BlockKind::Header => 'h',
        BlockKind::Event => 'e',
        BlockKind::Gap => 'g',
    };
    let blocks: Vec<_> = contents
        .blocks
        .iter()
        .map(|(at, block)| (*at, kind(block), block.id))
        .collect();
    let places: Vec<_> = expected
        .iter()
        .map(|(at, kind, id, _)| (*at, *kind, *id))
        .collect();
    assert_eq!(blocks, places);
    let end = expected.last().map_or(0, |(at, _, _, len)| at + len);
    match contents.damage {
        None => assert!(end == bytes.len() && end > 0),
        Some(damage) => {
            assert_eq!(damage.offset, end);
            let beyond = found(bytes, end);
            let greatest = beyond.iter().map(|place| place.2).max();
            assert_eq!(damage.beyond.map(|beyond| beyond.greatest), greatest);
            if let Some(((at, _, id, len), before)) = beyond.split_last() {
                let is_last = at + len == bytes.len() && before.iter().all(|other| other.2 < *id);
                assert_eq!(
                    damage.beyond.unwrap().is_last,
                    is_last && *id > EventId::default()
                );
            }
        }
    }
    // Everything before the damaged position is read.
    let ends: Vec<_> = expected.iter().map(|(at, _, _, len)| at + len).collect();
    let pairs = written.iter().zip(bytes);
    let same = pairs.take_while(|(one, two)| one == two).count();
    let untouched = spoilt.ends.iter().filter(|end| **end <= same).count();
    assert!(ends.starts_with(&spoilt.ends[..untouched]));
    entries_hold(&contents, bytes, &expected);
    if !spoilt.resealed {
        let originals = texts(written, &spoilt.ends);
        for text in texts(bytes, &ends) {
            let known = originals.contains(&text) || corpus.contains(text);
            assert!(known, "{} was never written", text.escape_ascii());
        }
    }
    if segment::is_torn_header(bytes) {
        assert!(
            expected.is_empty() && found(bytes, 0).is_empty(),
            "events behind a torn header"
        );
    }
    // Complete blocks need not fit to each other.
    let mut at = end;
    while let Some((_, _, _, len)) = block(bytes, at).filter(|_| at < bytes.len()) {
        at += len;
    }
    assert_eq!(segment::is_whole(bytes), at == bytes.len());
}

/// Each block, written again, has the same text, and a reader of event streams sees the
/// same events in both.
fn entries_hold(contents: &segment::Contents, bytes: &[u8], places: &[Place]) {
    let mut wire = Vec::new();
    for ((_, block), (at, _, _, len)) in contents.blocks.iter().zip(places) {
        if let Some(entry) = block.record() {
            let mut again = Vec::new();
            encode_event(&entry, &mut again);
            assert_eq!(Bytes(again), Bytes(bytes[*at..at + len].to_vec()));
            wire.extend(entry.message());
        }
    }
    let end = places.last().map_or(0, |(at, _, _, len)| at + len);
    // That reader takes CR for a line break. A CR is never written: only corrected
    // checksums let one through.
    if !bytes[..end].contains(&b'\r') {
        assert_eq!(messages(&bytes[..end]), messages(&wire));
    }
}

fn messages(bytes: &[u8]) -> Vec<crate::wire::Message> {
    let (mut decoder, mut seen) = (Decoder::new(1 << 20), Vec::new());
    decoder.feed(bytes, |message| seen.push(message)).unwrap();
    seen
}

#[test]
fn a_random_segment_is_read_up_to_its_damage_and_never_gives_an_event_that_was_not_written() {
    let (mut written, mut corpus) = (Vec::new(), HashSet::new());
    for seed in 0..64 {
        let (text, ends, _) = segment(BORN, 1 + seed as usize % 4, &mut Random::of(seed));
        corpus.extend(texts(&text, &ends).into_iter().map(<[u8]>::to_vec));
        written.push(text);
    }
    let mutator = Mutator {
        corpus: written,
        words: &WORDS,
    };
    let make = |random: &mut Random| {
        let count = random.below(5);
        let (written, ends, _) = segment(BORN, count, random);
        let Bytes(mut found) = mutator.mutant(written.clone(), random);
        let resealed = random.one_in(3);
        if resealed {
            found = reseal(&found);
        }
        Spoilt {
            written: Bytes(written),
            ends,
            found: Bytes(found),
            resealed,
        }
    };
    cases(1, make, |spoilt, _| segment_holds(spoilt, &corpus));
}

/// Some consecutive segments, one of which is damaged or missing.
#[derive(Debug)]
struct Directory {
    written: Vec<(Bytes, Vec<Record>)>,
    spoilt: usize,
    found: Option<Bytes>,
}

#[test]
fn a_random_journal_is_opened_with_the_written_events_or_an_error() {
    let mutator = Mutator {
        corpus: vec![
            b": crc 00000000\n\n".to_vec(),
            b": event 1000-7 a\nid: x\n".to_vec(),
            vec![0; 200],
        ],
        words: &WORDS,
    };
    let make = |random: &mut Random| {
        let (mut written, mut last) = (Vec::new(), BORN);
        for _ in 0..1 + random.below(3) {
            let (text, entries) = loop {
                let count = 1 + random.below(4);
                // A gap makes a start forget the events before it. This is intended.
                let (text, _, entries) = segment(last, count, random);
                if entries.len() == count {
                    break (text, entries);
                }
            };
            last = entries[entries.len() - 1].id();
            written.push((Bytes(text), entries));
        }
        let spoilt = random.below(written.len());
        let found = mutator.mutant(written[spoilt].0.0.clone(), random);
        Directory {
            found: (!random.one_in(20)).then_some(found),
            written,
            spoilt,
        }
    };
    // A case uses about twenty files.
    cases(500, make, |directory, random| {
        directory_holds(directory, random)
    });
}

fn directory_holds(directory: &Directory, random: &mut Random) {
    let Directory {
        written,
        spoilt,
        found,
    } = directory;
    let dir = Scratch::new();
    fs::create_dir_all(&dir.0).unwrap();
    for (number, (Bytes(text), _)) in (1..).zip(written) {
        fs::write(dir.segment(number), text).unwrap();
    }
    let path = dir.segment(*spoilt as u64 + 1);
    match found {
        Some(Bytes(text)) => fs::write(path, text).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    let all: Vec<_> = written
        .iter()
        .flat_map(|(_, entries)| entries.clone())
        .collect();
    let kept = match dir.open() {
        Ok(opened) => {
            let Kept {
                after,
                records: entries,
                ..
            } = &opened.kept;
            let wanted: Vec<_> = all
                .iter()
                .filter(|entry| entry.id() > *after)
                .cloned()
                .collect();
            assert!(wanted.starts_with(entries), "{entries:?} after {after}");
            if opened.reports().is_empty() {
                assert!(is_sound(directory), "nothing was said of it");
            }
            opened.kept
        }
        Err(error) => {
            let line = error.to_string();
            assert!(line.contains(".sse") && !line.contains('\n'), "{line:?}");
            if error.kind() == ErrorKind::Unsupported {
                return assert!(
                    line.ends_with("is a journal of another version"),
                    "{line:?}"
                );
            }
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{line:?}");
            let repaired = dir.repaired();
            assert!(!repaired.reports().is_empty());
            assert!(
                repaired
                    .kept
                    .records
                    .iter()
                    .all(|entry| all.contains(entry))
            );
            repaired.kept
        }
    };
    // The repair is permanent, and the journal continues.
    let mut again = dir.open().unwrap();
    assert_eq!(again.reports(), [""; 0]);
    assert_eq!(again.kept, kept);
    let new = event(after_id(kept.last_id(), 0), random);
    again.add(std::slice::from_ref(&new)).unwrap();
    drop(again);
    assert_eq!(
        dir.open().unwrap().kept.records,
        [kept.records, vec![new]].concat()
    );
}

/// Whether the damaged journal looks the same as one that has ended earlier or begins
/// later.
fn is_sound(directory: &Directory) -> bool {
    let (Bytes(written), _) = &directory.written[directory.spoilt];
    let is_newest = directory.spoilt + 1 == directory.written.len();
    match &directory.found {
        None => is_newest || directory.spoilt == 0,
        Some(Bytes(found)) => {
            let ends = good(written).into_iter().map(|(at, _, _, len)| at + len);
            found == written
                || is_newest
                    && written.starts_with(found)
                    && ends.into_iter().any(|end| end == found.len())
        }
    }
}
