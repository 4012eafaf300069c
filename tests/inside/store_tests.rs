//! The journal under everything that a crash, a disk and an administrator can do to it:
//! cut and changed at every byte, and on a file that fails when the test says so.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::{Context, Disk, Identity};
use super::syncer::Syncer;
use super::{Journal, JournalOptions, SyncMode};
use crate::hub::{Kept, Log, Record};
use crate::report::Report;
use crate::wire::{Decoder, Event, EventId, Ids, Topic, encode_id};

// ORDER: the counters of these tests are read by a thread that waits for them to change,
// or by the thread that writes them. Each stands alone, so Relaxed suffices.

pub(super) const BORN: EventId = EventId { ms: 1000, seq: 0 };

/// The position of the first record of a segment: the length of the header.
fn header_len() -> usize {
    super::segment::header(BORN).len()
}

/// A directory of its own for each test, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiny-sse-journal-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Best effort: the directory exists only if a process with the same id was
        // killed.
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:08}.sse"))
    }

    fn text(&self, number: u64) -> Vec<u8> {
        fs::read(self.segment(number)).unwrap()
    }

    /// The options that [`with`](Self::with) uses by default.
    pub(super) fn open(&self) -> io::Result<Opened> {
        self.with(|_| ())
    }

    /// A shell that another test starts has copies of all locks of this process between
    /// `fork` and `exec`. So a journal that was closed may be in use for another moment.
    pub(super) fn with(&self, wish: impl Fn(&mut JournalOptions)) -> io::Result<Opened> {
        Scratch::when_free(|| self.open_with(&wish, BORN))
    }

    /// Opens the journal for a hub that starts with this id.
    fn born(&self, born: EventId) -> io::Result<Opened> {
        Scratch::when_free(|| self.open_with(&|_: &mut JournalOptions| (), born))
    }

    fn when_free(open: impl Fn() -> io::Result<Opened>) -> io::Result<Opened> {
        let start = Instant::now();
        loop {
            let opened = open();
            let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
            if !opened.as_ref().is_err_and(is_busy) || start.elapsed().as_secs() >= 5 {
                return opened;
            }
            thread::yield_now();
        }
    }

    pub(super) fn open_at_once(&self) -> io::Result<Opened> {
        self.open_with(&|_: &mut JournalOptions| (), BORN)
    }

    fn open_with(&self, wish: &impl Fn(&mut JournalOptions), born: EventId) -> io::Result<Opened> {
        let (lines, reports) = mpsc::channel();
        let mut options = JournalOptions {
            dir: self.0.clone(),
            sync: SyncMode::Off,
            repair: false,
            events: usize::MAX,
            bytes: usize::MAX,
            report: Report::new(move |level, line| {
                let _ = lines.send(format!("{level}: {line}")); // Nobody may listen any more.
            }),
        };
        wish(&mut options);
        let (journal, kept) = Journal::open(options, born)?;
        Ok(Opened {
            journal,
            kept,
            reports,
        })
    }

    pub(super) fn repaired(&self) -> Opened {
        self.with(|options| options.repair = true).unwrap()
    }

    #[track_caller]
    fn refuses(&self) -> String {
        let error = self.open().err().expect("it was opened");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        error.to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // Best effort: it may never have been there.
    }
}

pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) kept: Kept,
    reports: Receiver<String>,
}

impl Opened {
    pub(super) fn reports(&self) -> Vec<String> {
        self.reports.try_iter().collect()
    }

    /// The reports of the journal from now on, without those of its thread.
    fn with_journals_reports(&mut self) -> Receiver<String> {
        let (lines, reports) = mpsc::channel();
        self.journal.report = Report::new(move |level, line| {
            let _ = lines.send(format!("{level}: {line}")); // Nobody may listen any more.
        });
        reports
    }

    pub(super) fn add(&mut self, entries: &[Record]) -> io::Result<()> {
        let records: Vec<_> = entries.iter().cloned().map(Arc::new).collect();
        self.journal.append(&records)
    }
}

fn id(ms: u64) -> EventId {
    EventId { ms, seq: 0 }
}

/// The record that the hub makes of an event.
fn entry(ms: u64, event: &Event) -> Record {
    kept(id(ms), event)
}

pub(super) fn kept(id: EventId, event: &Event) -> Record {
    let mut message = Vec::new();
    if event.id().is_none() {
        encode_id(&id.to_string(), &mut message);
    }
    event.encode(&mut message);
    Record::kept(id, event.id(), event.topic().cloned(), message)
}

fn plain(ms: u64) -> Record {
    entry(ms, &Event::new(format!("event at {ms}")))
}

fn plains(times: impl IntoIterator<Item = u64>) -> Vec<Record> {
    times.into_iter().map(plain).collect()
}

fn times(kept: &Kept) -> Vec<u64> {
    kept.records.iter().map(|entry| entry.id().ms).collect()
}

fn of_every_kind() -> Vec<Record> {
    let event = |data: &str| Event::new(data);
    let topic = |name: &str| Topic::new(name).unwrap();
    let events = [
        event("hello").with_name("greeting").unwrap(),
        event("привет, мир").with_topic(topic("чат/1")),
        event("🦀\n🦀\r\n\r🦀\n").with_name("краб 🦀").unwrap(),
        event("").with_topic(topic(" a b ")),
        event("own").with_id(":event1-0").unwrap(),
        event("looks like an id").with_id("7-007").unwrap(),
        event(": event 1-0\nid: 1-0\n: crc 00000000\n\n: gap 9-9\n\0\u{feff}\u{85}\u{2028}"),
        event("r").with_retry(Duration::from_millis(1500)),
        event(&"long ".repeat(50_000)),
    ];
    let numbered = (2000..).zip(&events);
    numbered.map(|(ms, event)| entry(ms, event)).collect()
}

#[test]
fn appended_events_are_read_back_unchanged() {
    let (dir, entries) = (Scratch::new(), of_every_kind());
    let mut one = dir.open().unwrap();
    let empty = Kept {
        after: BORN,
        after_own_id: None,
        after_topic: None,
        records: Vec::new(),
    };
    assert_eq!(one.kept, empty);
    one.add(&entries[..1]).unwrap();
    one.add(&[]).unwrap();
    one.add(&entries[1..]).unwrap();
    drop(one);
    for _ in 0..2 {
        let again = dir.open().unwrap();
        assert_eq!(again.kept.after, BORN);
        assert_eq!(again.kept.records, entries);
        assert_eq!(again.kept.last_id(), entries.last().unwrap().id());
        assert_eq!(again.reports(), [""; 0]);
    }
}

#[test]
fn a_segment_has_exactly_this_text() {
    let dir = Scratch::new();
    let event = Event::new("a\nb").with_name("greeting").unwrap();
    let event = event.with_topic(Topic::new("chat/1").unwrap());
    let own = Event::new("").with_id("mine").unwrap();
    let mut one = dir.open().unwrap();
    one.add(&[entry(2000, &event), entry(2001, &own)]).unwrap();
    let expected = "\
: tiny-sse journal 1, after 1000-0
: crc 3541f303

: event 2000-0 chat/1
id: 2000-0
event: greeting
data: a
data: b
: crc ea841710

: event 2001-0
id: mine
data: 
: crc 3c1ba78d

";
    assert_eq!(String::from_utf8(dir.text(1)).unwrap(), expected);
}

#[test]
fn a_segment_can_be_read_as_an_event_stream() {
    let (dir, entries) = (Scratch::new(), of_every_kind());
    dir.open().unwrap().add(&entries).unwrap();
    let decode = |bytes: &[u8]| {
        let (mut decoder, mut seen) = (Decoder::new(1 << 20), Vec::new());
        decoder.feed(bytes, |message| seen.push(message)).unwrap();
        seen
    };
    let wire: Vec<u8> = entries.iter().flat_map(|e| e.message().to_vec()).collect();
    assert_eq!(decode(&wire).len(), entries.len());
    assert_eq!(decode(&dir.text(1)), decode(&wire));
    // A gap does not disturb the reader.
    let mut text = dir.text(1);
    super::segment::encode_gap(id(9000), Some("x.damaged"), &mut text);
    assert_eq!(decode(&text), decode(&wire));
}

#[test]
fn a_journal_cut_at_any_byte_keeps_the_complete_records_before_the_cut() {
    let dir = Scratch::new();
    let mut ends = vec![header_len()];
    let mut one = dir.open().unwrap();
    for ms in 2000..2004 {
        one.add(&[plain(ms)]).unwrap();
        ends.push(one.journal.newest.len as usize);
    }
    drop(one);
    let text = dir.text(1);
    for cut in ends[2]..=ends[4] {
        fs::write(dir.segment(1), &text[..cut]).unwrap();
        let mut again = dir.open().unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        assert_eq!(
            times(&again.kept),
            Vec::from_iter(2000..2000 + whole),
            "{cut}"
        );
        let reports = again.reports();
        if ends.contains(&cut) {
            assert_eq!(reports, [""; 0], "cut at {cut}");
        } else {
            let torn = cut - ends[whole as usize];
            let expected = format!("00000001.sse ended in {torn} bytes");
            assert!(reports[0].starts_with("warn: "), "{reports:?}");
            assert!(reports[0].contains(&expected), "{reports:?}");
            assert!(
                reports[0].ends_with(&format!("after {}-0", 1999 + whole)),
                "{reports:?}"
            );
        }
        again.add(&[plain(3000)]).unwrap();
        drop(again);
        let last = dir.open().unwrap();
        assert_eq!(last.kept.records.last(), Some(&plain(3000)), "cut at {cut}");
        assert_eq!(last.kept.records.len() as u64, whole + 1, "cut at {cut}");
        assert_eq!(last.reports(), [""; 0], "cut at {cut}");
    }
}

#[test]
fn zeros_at_the_end_are_cut_off() {
    let dir = Scratch::new();
    dir.open().unwrap().add(&plains(2000..2002)).unwrap();
    let text = dir.text(1);
    fs::write(dir.segment(1), [&text[..], &[0; 5000]].concat()).unwrap();
    let again = dir.open().unwrap();
    assert_eq!(times(&again.kept), [2000, 2001]);
    assert!(again.reports()[0].contains("5000 bytes"));
    assert_eq!(dir.text(1), text);
}

/// The position of the middle one of three records.
fn three_records(dir: &Scratch) -> (Vec<u8>, std::ops::Range<usize>) {
    let mut one = dir.open().unwrap();
    one.add(&[plain(2000)]).unwrap();
    let start = one.journal.newest.len as usize;
    let topic = Topic::new("чат/1").unwrap();
    one.add(&[entry(2001, &Event::new("b").with_topic(topic))])
        .unwrap();
    let end = one.journal.newest.len as usize;
    one.add(&[plain(2002)]).unwrap();
    drop(one);
    (dir.text(1), start..end)
}

#[test]
fn a_last_record_with_a_bit_changed_is_cut_off() {
    let dir = Scratch::new();
    let (text, middle) = three_records(&dir);
    for place in middle.clone() {
        for bit in 0..8 {
            let mut changed = text[..middle.end].to_vec();
            changed[place] ^= 1 << bit;
            fs::write(dir.segment(1), &changed).unwrap();
            let again = dir.open().unwrap();
            assert_eq!(
                again.kept.records,
                [plain(2000)],
                "bit {bit} of byte {place}"
            );
            let expected = format!("ended in {} bytes", middle.len());
            assert!(
                again.reports()[0].contains(&expected),
                "bit {bit} of byte {place}"
            );
        }
    }
}

#[test]
fn a_changed_bit_before_other_records_is_an_error_until_a_repair() {
    let dir = Scratch::new();
    let (text, middle) = three_records(&dir);
    for place in middle.clone() {
        for bit in [0, 3, 5, 7] {
            let mut changed = text.clone();
            changed[place] ^= 1 << bit;
            fs::write(dir.segment(1), &changed).unwrap();
            let error = dir.refuses();
            let expected = format!("00000001.sse is damaged at byte {}: ", middle.start);
            assert!(error.contains(&expected), "{error}");
            assert!(error.contains("--repair"), "{error}");
            assert_eq!(dir.text(1), changed, "it was not asked to repair");
        }
        let mut again = dir.repaired();
        assert_eq!(again.kept.records, [], "byte {place}");
        assert_eq!(again.kept.after, id(2002), "byte {place}");
        let aside = dir.0.join("00000001.sse.damaged");
        let mut lost = fs::read(&aside).unwrap();
        lost[place - middle.start] ^= 1 << 7;
        assert_eq!(lost, text[middle.start..], "byte {place}");
        let report = &again.reports()[0];
        assert!(
            report.contains("bytes from there on were moved to 00000001.sse.damaged"),
            "{report}"
        );
        assert!(report.contains("2002-0"), "{report}");
        again.add(&[plain(3000)]).unwrap();
        drop(again);
        // The journal remembers the gap: a client that has seen 2000-0 may have missed
        // events.
        let last = dir.open().unwrap();
        assert_eq!((last.kept.after, times(&last.kept)), (id(2002), vec![3000]));
        assert_eq!(last.reports(), [""; 0]);
        fs::remove_file(aside).unwrap();
    }
}

#[test]
fn a_gap_whose_end_is_unknown_ends_after_every_cursor() {
    let dir = Scratch::new();
    let (text, middle) = three_records(&dir);
    let mut changed = text.clone();
    changed[middle.start + 20] ^= 1;
    changed.extend_from_slice(b": event 2003-0\nid: 20");
    fs::write(dir.segment(1), &changed).unwrap();
    dir.refuses();
    let again = dir.repaired();
    assert_eq!(again.kept.after, id(2003));
    drop(again);
    // The later one of the two clocks counts.
    fs::write(dir.segment(1), &changed).unwrap();
    let options = JournalOptions {
        dir: dir.0.clone(),
        sync: SyncMode::Always,
        repair: true,
        events: 10,
        bytes: 1000,
        report: Report::default(),
    };
    let (_journal, kept) = Journal::open(options, id(5000)).unwrap();
    assert_eq!((kept.after, kept.records.len()), (id(5000), 0));
    assert!(dir.0.join("00000001.sse.damaged.2").exists());
}

#[test]
fn an_interrupted_repair_is_repeated() {
    let dir = Scratch::new();
    let (text, middle) = three_records(&dir);
    let mut changed = text.clone();
    changed[middle.start] ^= 1;
    fs::write(dir.segment(1), &changed).unwrap();
    // The repair was interrupted before the segment was replaced.
    fs::write(dir.0.join("00000001.sse.damaged"), "half").unwrap();
    fs::write(dir.0.join("00000001.sse.new"), "half").unwrap();
    dir.refuses();
    let again = dir.repaired();
    assert_eq!((again.kept.after, again.kept.records.len()), (id(2002), 0));
    let aside = fs::read(dir.0.join("00000001.sse.damaged.2")).unwrap();
    assert_eq!(aside, changed[middle.start..]);
    assert!(!dir.0.join("00000001.sse.new").exists());
}

#[test]
fn no_publisher_can_forge_a_record() {
    let dir = Scratch::new();
    dir.open().unwrap().add(&[plain(2000)]).unwrap();
    let good = dir.text(1);
    // Publishers to an earlier version could choose such ids.
    let by_id = entry(2001, &Event::new(""));
    let message = b"id: : event 3000-0\ndata: \n\n".to_vec();
    let by_id = Record::kept(by_id.id(), Some(": event 3000-0"), None, message);
    let by_events = [
        Event::new(": event 3000-0\nid: 3000-0\ndata: x\n: crc 00000000\n\n"),
        Event::new("x: event 3000-0"),
        Event::new("x: gap 3000-0"),
        Event::new("").with_name(": event 3000-0").unwrap(),
        Event::new("").with_topic(Topic::new(": event 3000-0").unwrap()),
    ]
    .map(|event| entry(2001, &event));
    for feigned in by_events.into_iter().chain([by_id]) {
        fs::write(dir.segment(1), &good).unwrap();
        dir.open()
            .unwrap()
            .add(std::slice::from_ref(&feigned))
            .unwrap();
        let mut text = dir.text(1);
        text[good.len()] ^= 1;
        fs::write(dir.segment(1), &text).unwrap();
        // With another record after the damage this would be an error.
        let again = dir.open().expect("a record was seen that is none");
        assert_eq!(again.kept.records, [plain(2000)], "{feigned:?}");
    }
}

#[test]
fn data_that_looks_like_many_records_is_searched_in_linear_time() {
    let (mut text, mut data) = (Vec::new(), String::new());
    while data.len() < 1 << 20 {
        data.push_str(": event 1-0 : gap 1-0 x\n: gap 1-0\n: event 1-0\n");
    }
    text.extend(super::segment::header(BORN));
    super::segment::encode_event(&entry(2000, &Event::new(data)), &mut text);
    text[header_len()] ^= 1;
    let start = Instant::now();
    let damage = super::segment::read(&text).damage.unwrap();
    assert_eq!((damage.offset, damage.beyond), (header_len(), None));
    // Reading to the end of the event at each of them would take minutes.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

/// A journal of six events in three segments.
fn three_segments(dir: &Scratch) {
    let mut one = dir.open().unwrap();
    one.journal.segment_bytes = header_len() as u64 + 100;
    for ms in 2000..2006 {
        one.add(&[plain(ms)]).unwrap();
    }
    assert_eq!(one.journal.newest.number, 3);
}

#[test]
fn a_full_segment_is_followed_by_another() {
    let dir = Scratch::new();
    three_segments(&dir);
    let again = dir.open().unwrap();
    assert_eq!(again.kept.after, BORN);
    assert_eq!(again.kept.records, plains(2000..2006));
    assert!(
        dir.text(3)
            .starts_with(b": tiny-sse journal 1, after 2003-0\n")
    );
    drop(again);
    // An administrator has deleted the oldest segment.
    fs::remove_file(dir.segment(1)).unwrap();
    let again = dir.open().unwrap();
    assert_eq!(
        (again.kept.after, times(&again.kept)),
        (id(2001), vec![2002, 2003, 2004, 2005])
    );
    assert_eq!(again.reports(), [""; 0]);
}

#[test]
fn only_the_requested_events_are_read_back() {
    let dir = Scratch::new();
    three_segments(&dir);
    let size = plain(2000).message().len();
    // A segment that is not needed is not read: its damage is not found.
    fs::write(dir.segment(1), "damaged").unwrap();
    for (events, bytes, expected) in [
        (0, usize::MAX, 0),
        (usize::MAX, 0, 0),
        (1, usize::MAX, 1),
        (2, usize::MAX, 2),
        (3, usize::MAX, 3),
        (4, usize::MAX, 4),
        (10, size, 1),
        (10, 2 * size - 1, 1),
        (10, 4 * size, 4),
        (3, 2 * size, 2),
    ] {
        let again = dir.with(|options| (options.events, options.bytes) = (events, bytes));
        let kept = again.unwrap().kept;
        let first = 2006 - expected;
        assert_eq!(
            kept.records,
            plains(first..2006),
            "{events} events, {bytes} bytes"
        );
        assert_eq!(kept.after, id(first - 1), "{events} events, {bytes} bytes");
        assert_eq!(kept.last_id(), id(2005));
    }
    let error = dir.refuses();
    assert!(
        error.contains("00000001.sse is damaged at byte 0"),
        "{error}"
    );
}

#[test]
fn any_damage_in_an_older_segment_is_an_error() {
    let dir = Scratch::new();
    three_segments(&dir);
    let text = dir.text(2);
    for cut in 0..text.len() {
        fs::write(dir.segment(2), &text[..cut]).unwrap();
        let error = dir.refuses();
        assert!(
            error.contains("00000002.sse is damaged at byte "),
            "{error}"
        );
    }
    for cut in [0, 10, header_len(), header_len() + 10, text.len() - 1] {
        fs::write(dir.segment(2), &text[..cut]).unwrap();
        let mut again = dir.repaired();
        assert_eq!(
            (again.kept.after, times(&again.kept)),
            (id(2003), vec![2004, 2005]),
            "{cut}"
        );
        again.add(&[plain(3000 + cut as u64)]).unwrap();
        drop(again);
        let last = dir.open().unwrap();
        assert_eq!(last.kept.after, id(2003), "cut at {cut}");
        assert_eq!(last.reports(), [""; 0], "cut at {cut}");
        drop(last);
        let third = dir.text(3);
        let added = third
            .windows(9)
            .position(|bytes| bytes == b": event 3")
            .unwrap();
        fs::write(dir.segment(3), &third[..added]).unwrap();
    }
}

#[test]
fn a_missing_or_wrong_segment_is_damage() {
    let dir = Scratch::new();
    three_segments(&dir);
    let second = dir.text(2);
    fs::remove_file(dir.segment(2)).unwrap();
    let error = dir.refuses();
    assert!(error.contains("00000002.sse is missing"), "{error}");
    let again = dir.repaired();
    assert_eq!(
        (again.kept.after, times(&again.kept)),
        (id(2003), vec![2004, 2005])
    );
    drop(again);
    assert_eq!(dir.open().unwrap().kept.after, id(2003));

    // The third segment under the name of the second: its events come after the id in the
    // header of the third.
    fs::copy(dir.segment(3), dir.segment(2)).unwrap();
    let error = dir.refuses();
    let expected = format!("00000002.sse is damaged at byte {}: ", header_len());
    assert!(
        error.contains(&expected) && error.contains("does not rise"),
        "{error}"
    );
    let again = dir.repaired();
    assert_eq!(
        (again.kept.after, times(&again.kept)),
        (id(2003), vec![2004, 2005])
    );
    drop(again);
    assert_eq!(dir.open().unwrap().kept.after, id(2003));

    // A segment whose events end before the id in the header of the next one.
    fs::write(dir.segment(2), &second).unwrap();
    fs::copy(dir.segment(1), dir.segment(2)).unwrap();
    let error = dir.refuses();
    assert!(error.contains("are missing"), "{error}");
}

#[test]
fn the_event_before_those_that_are_read_back_is_known_by_its_own_id() {
    let topic = Topic::new("a").unwrap();
    let own = |ms: u64| {
        let event = Event::new("x").with_topic(topic.clone());
        entry(ms, &event.with_id(format!("own-{ms}")).unwrap())
    };
    // Three segments of two events: the event before those that are read back may be in
    // the middle of a segment, at the end of a segment that is read, and at the end of
    // one that is not.
    let dir = Scratch::new();
    let mut one = dir.open().unwrap();
    one.journal.segment_bytes = 150;
    for ms in 2000..2006 {
        one.add(&[own(ms)]).unwrap();
    }
    drop(one);
    assert!(dir.segment(3).exists() && !dir.segment(4).exists());
    for events in 0..=6 {
        let opened = dir.with(|options| options.events = events).unwrap();
        let kept = opened.kept;
        assert_eq!(kept.records.len(), events);
        let before = (events < 6).then(|| 2005 - events as u64);
        let expected = before.map(|ms| (format!("own-{ms}").into(), "a"));
        let found = kept
            .after_own_id
            .zip(kept.after_topic.as_ref().map(Topic::as_str));
        assert_eq!(found, expected, "{events} events");
        assert_eq!(kept.after, before.map_or(BORN, id), "{events} events");
    }
    // The file is not needed, so its damage is not reported.
    fs::write(dir.segment(2), b"damaged").unwrap();
    let opened = dir.with(|options| options.events = 2).unwrap();
    assert_eq!(
        (opened.kept.after_own_id, opened.kept.records.len()),
        (None, 2)
    );
}

#[test]
fn ids_rise_and_a_journal_is_read_back_when_the_clock_starts_in_1970_and_jumps() {
    const NOW: u64 = 1_795_326_004_711;
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let dir = Scratch::new();
    let (mut expected, mut last) = (Vec::new(), EventId::default());
    // A device without a battery for its clock starts in 1970 until it has asked for the
    // time.
    for (life, clocks) in [[0, 0, 7], [0, 8, NOW], [3, 3, 4], [NOW, NOW + 1, NOW + 5]]
        .into_iter()
        .enumerate()
    {
        let born = EventId {
            ms: clocks[0],
            seq: life as u64,
        };
        let mut one = dir.born(born).unwrap();
        assert_eq!(one.kept.records, expected, "life {life}");
        let is_ahead = last.ms > clocks[0] + DAY;
        assert_eq!(one.reports().len(), usize::from(is_ahead), "life {life}");
        let mut ids = Ids::after(one.kept.last_id(), life as u64).unwrap();
        for clock in clocks {
            let id = ids.next(clock);
            assert!(id > last && id.ms >= clock, "{id} after {last} at {clock}");
            expected.push(kept(id, &Event::new("x")));
            one.add(&expected[expected.len() - 1..]).unwrap();
            last = id;
        }
    }
    assert_eq!(dir.born(EventId::default()).unwrap().kept.records, expected);
}

#[test]
fn ids_that_do_not_rise_are_damage() {
    let dir = Scratch::new();
    let mut one = dir.open().unwrap();
    one.add(&[plain(2000)]).unwrap();
    let end = one.journal.newest.len as usize;
    one.add(&[plain(2001)]).unwrap();
    drop(one);
    let text = dir.text(1);
    for repeated in [&text[header_len()..end], &text[end..]] {
        fs::write(dir.segment(1), [&text, repeated].concat()).unwrap();
        let error = dir.refuses();
        let expected = format!("byte {}: a record has an id that does not rise", text.len());
        assert!(error.contains(&expected), "{error}");
        // A client that has seen the last event of the journal may have seen all, but the
        // last lost event is not known.
        let again = dir.repaired();
        assert_eq!(again.kept.after, id(2002));
    }
}

#[test]
fn a_segment_whose_header_a_crash_has_cut_is_created_again() {
    let dir = Scratch::new();
    three_segments(&dir);
    let header = dir.text(3)[..header_len()].to_vec();
    let torn = (0..header.len()).map(|cut| header[..cut].to_vec());
    for torn in torn.chain([vec![0; 60]]) {
        fs::write(dir.segment(3), &torn).unwrap();
        let mut again = dir.open().unwrap();
        assert_eq!(times(&again.kept), [2000, 2001, 2002, 2003], "{torn:?}");
        assert!(again.reports()[0].contains("00000003.sse has an incomplete header"));
        again.journal.segment_bytes = 1;
        again.add(&[plain(3000)]).unwrap();
        assert_eq!(again.journal.newest.number, 3);
        drop(again);
        assert_eq!(
            times(&dir.open().unwrap().kept),
            [2000, 2001, 2002, 2003, 3000]
        );
    }
    // A complete header that is damaged is another case: a valid event follows.
    let dir = Scratch::new();
    dir.open()
        .unwrap()
        .add(&[entry(2000, &Event::new(""))])
        .unwrap();
    let mut text = dir.text(1);
    text[header_len() - 5] ^= 1;
    fs::write(dir.segment(1), &text).unwrap();
    let line = dir.refuses();
    assert!(
        line.contains("00000001.sse is damaged at byte 0: "),
        "{line}"
    );
    assert_eq!(dir.text(1), text);
    // The first segment of all.
    for torn in (0..header.len()).map(|cut| &header[..cut]) {
        let dir = Scratch::new();
        fs::create_dir(&dir.0).unwrap();
        fs::write(dir.segment(1), torn).unwrap();
        let mut again = dir.open().unwrap();
        assert_eq!((again.kept.after, again.kept.records.len()), (BORN, 0));
        again.add(&[plain(2000)]).unwrap();
        drop(again);
        assert_eq!(times(&dir.open().unwrap().kept), [2000]);
    }
}

#[test]
fn a_file_that_is_not_a_journal_of_this_version_is_not_changed() {
    let dir = Scratch::new();
    fs::create_dir(&dir.0).unwrap();
    for (text, kind) in [
        (
            ": tiny-sse journal 2, after 1-0\n\n",
            io::ErrorKind::Unsupported,
        ),
        ("my notes", io::ErrorKind::InvalidData),
        (&"x".repeat(1000), io::ErrorKind::InvalidData),
    ] {
        fs::write(dir.segment(1), text).unwrap();
        assert_eq!(dir.open().err().unwrap().kind(), kind, "{text}");
        assert_eq!(dir.text(1), text.as_bytes());
    }
    // Neither is a file that only looks like a segment.
    fs::remove_file(dir.segment(1)).unwrap();
    for name in [
        "1.sse",
        "+0000001.sse",
        "0000001.sse",
        "a.sse",
        "00000009.sse.damaged",
    ] {
        fs::write(dir.0.join(name), "x").unwrap();
    }
    assert_eq!(dir.open().unwrap().journal.newest.number, 1);
}

#[test]
fn only_one_server_at_a_time_has_a_journal() {
    let dir = Scratch::new();
    let one = dir.open().unwrap();
    let error = dir.open_at_once().err().expect("it was opened twice");
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    let expected = format!("{} is in use by another tiny-sse", dir.0.display());
    assert_eq!(error.to_string(), expected);
    drop(one);
    dir.open().unwrap();
}

#[test]
fn only_the_last_directory_is_created() {
    let dir = Scratch::new();
    let deep = dir.0.join("a");
    let error = dir
        .with(|options| options.dir = deep.clone())
        .err()
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let expected = format!("cannot create {}: ", deep.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn a_record_that_could_not_be_read_back_is_refused() {
    let dir = Scratch::new();
    let mut one = dir.open().unwrap();
    one.add(&[plain(2000)]).unwrap();
    let (before, next) = (dir.text(1), plain(3000));
    for message in [
        "",
        "\n",
        "data: x\n\n",
        "id: 1\n",
        "id: 1\ndata: x\n",
        "id: 1\n\ndata: x\n\n",
        "id: 1\n: comment\n\n",
        "id: 1\ndata: a\rb\n\n",
        "id: 1\ndata: a\n\n\n",
    ] {
        let record = Record::kept(next.id(), next.own_id(), None, message.into());
        let error = one.journal.append(&[Arc::new(record)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{message:?}");
    }
    for bad in [[2000, 2001], [1999, 2001], [2001, 2001], [2002, 2001]] {
        let error = one.add(&plains(bad)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
    }
    assert_eq!(dir.text(1), before);
}

/// A file that fails as often as the test says.
#[derive(Debug)]
struct Faulty {
    path: PathBuf,
    identity: Identity,
    file: File,
    faults: Arc<Faults>,
}

/// How many more calls fail, and how many have succeeded.
#[derive(Debug, Default)]
struct Faults {
    writes: AtomicUsize,
    syncs: AtomicUsize,
    cuts: AtomicUsize,
    /// At how many more writes, and syncs, another program has just emptied the file.
    emptied_before_write: AtomicUsize,
    emptied_in_sync: AtomicUsize,
    removed_in_sync: AtomicUsize,
    /// The same, but another program has appended a line.
    grown_before_write: AtomicUsize,
    written: AtomicUsize,
    synced: AtomicUsize,
}

fn fails(left: &AtomicUsize) -> io::Result<()> {
    let one_less = |left: usize| left.checked_sub(1);
    match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
        Ok(_) => Err(io::ErrorKind::StorageFull.into()),
        Err(_) => Ok(()),
    }
}

impl Faulty {
    fn at(&self, offset: u64) -> io::Result<&File> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    fn try_append(&self, bytes: &[u8]) -> io::Result<()> {
        if fails(&self.faults.emptied_before_write).is_err() {
            self.file.set_len(0)?;
        }
        let len = self.file.metadata()?.len();
        if fails(&self.faults.grown_before_write).is_err() {
            self.at(len)?.write_all(&[b'x'; 5000])?;
        }
        self.try_write(self.file.metadata()?.len(), bytes)
    }

    /// A write that fails has written half of its bytes.
    fn try_write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.at(offset)?;
        if let Err(error) = fails(&self.faults.writes) {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.faults.written.fetch_add(1, Ordering::Relaxed);
        file.write_all(bytes)
    }

    fn try_sync(&self) -> io::Result<()> {
        fails(&self.faults.syncs)?;
        if fails(&self.faults.emptied_in_sync).is_err() {
            self.file.set_len(0)?;
        }
        if fails(&self.faults.removed_in_sync).is_err() {
            fs::remove_file(&self.path)?;
        }
        self.faults.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Disk for Faulty {
    fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.at(offset)?.read_exact(bytes)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.try_append(bytes).context("write to", &self.path)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.try_write(offset, bytes)
            .context("write to", &self.path)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let cut = fails(&self.faults.cuts).and_then(|()| self.file.set_len(len));
        cut.context("cut", &self.path)
    }

    fn sync(&self) -> io::Result<()> {
        self.try_sync().context("sync", &self.path)
    }
}

/// Replaces the file of an open journal with one that can fail.
fn undermine(journal: &mut Journal) -> Arc<Faults> {
    let faults = Arc::new(Faults::default());
    let path = journal.newest.disk.path().to_owned();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let identity = journal.newest.disk.identity();
    journal.newest.disk = Arc::new(Faulty {
        path,
        identity,
        file,
        faults: Arc::clone(&faults),
    });
    faults
}

#[track_caller]
fn fails_to(what: &str, result: io::Result<()>, path: &Path) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    let line = error.to_string();
    assert!(line.starts_with(&format!("cannot {what}")), "{line}");
    assert!(line.contains(&format!(" {}: ", path.display())), "{line}");
}

#[test]
fn a_failed_append_leaves_no_bytes() {
    for (mode, write) in [
        (SyncMode::Off, true),
        (SyncMode::Interval, true),
        (SyncMode::Always, true),
        (SyncMode::Always, false),
    ] {
        let dir = Scratch::new();
        let mut one = dir.with(|options| options.sync = mode).unwrap();
        one.add(&[plain(2000)]).unwrap();
        let before = dir.text(1);
        let faults = undermine(&mut one.journal);
        let (left, what) = if write {
            (&faults.writes, "write to")
        } else {
            (&faults.syncs, "sync")
        };
        left.store(1, Ordering::Relaxed);
        // Not even the records of the batch that were written completely are kept.
        let result = one.add(&plains(2001..2005));
        fails_to(what, result, &dir.segment(1));
        assert_eq!(dir.text(1), before, "{mode:?}");
        // The same ids can be used again: no client has them.
        one.add(&plains(2001..2003)).unwrap();
        drop(one);
        assert_eq!(
            times(&dir.open().unwrap().kept),
            [2000, 2001, 2002],
            "{mode:?}"
        );
    }
}

/// The worst moments for a command of an administrator: after the journal has looked at
/// the file and before it writes, or before it acknowledges.
#[test]
#[cfg(unix)]
fn an_append_is_not_acknowledged_if_another_program_changes_the_file_meanwhile() {
    type Left = fn(&Faults) -> &AtomicUsize;
    let moments: [(Left, &str); 4] = [
        (|faults| &faults.emptied_before_write, "was cut from"),
        (|faults| &faults.emptied_in_sync, "was cut from"),
        (|faults| &faults.removed_in_sync, "was removed"),
        (|faults| &faults.grown_before_write, ""),
    ];
    for (left, words) in moments {
        let dir = Scratch::new();
        let mut one = dir.with(|options| options.sync = SyncMode::Always).unwrap();
        one.add(&plains(2000..2002)).unwrap();
        let faults = undermine(&mut one.journal);
        left(&faults).store(1, Ordering::Relaxed);
        one.add(&plains(3000..3002)).unwrap();
        let reports = one.reports();
        let is_told = reports.iter().all(|line| line.contains(words));
        assert!(
            is_told && reports.is_empty() == words.is_empty(),
            "{reports:?}"
        );
        one.add(&[plain(3002)]).unwrap();
        drop(one);
        let kept = dir.open().unwrap().kept;
        if words.is_empty() {
            assert_eq!(times(&kept), [2000, 2001, 3000, 3001, 3002]);
        } else {
            assert_eq!(
                (kept.after, times(&kept)),
                (id(2001), vec![3000, 3001, 3002]),
                "{words}"
            );
        }
    }
    // While the file keeps changing, the event is not acknowledged; later it is.
    let dir = Scratch::new();
    let mut one = dir.with(|options| options.sync = SyncMode::Always).unwrap();
    one.add(&plains(2000..2002)).unwrap();
    let faults = undermine(&mut one.journal);
    faults.grown_before_write.store(2, Ordering::Relaxed);
    let error = one.add(&[plain(3000)]).unwrap_err().to_string();
    assert!(error.contains("another program keeps changing"), "{error}");
    one.add(&[plain(3000)]).unwrap();
    drop(one);
    assert_eq!(times(&dir.open().unwrap().kept), [2000, 2001, 3000]);
}

#[test]
fn a_probe_fails_as_the_append_before_it_did() {
    let dir = Scratch::new();
    let mut one = dir.with(|options| options.sync = SyncMode::Always).unwrap();
    one.add(&[plain(2000)]).unwrap();
    let before = dir.text(1);
    let faults = undermine(&mut one.journal);
    // The append and its first probe fail: in their writes, in their syncs, in the cut.
    for left in [&faults.writes, &faults.syncs] {
        left.store(1, Ordering::Relaxed);
        one.add(&plains(2001..2005)).unwrap_err();
        let refused = one.journal.refused;
        assert!(refused > 4 * 30, "{refused}");
        left.store(1, Ordering::Relaxed);
        fails_to("", one.journal.probe(), &dir.segment(1));
        one.journal.probe().unwrap();
        assert_eq!(dir.text(1), before);
    }
    faults.cuts.store(1, Ordering::Relaxed);
    fails_to("cut", one.journal.probe(), &dir.segment(1));
    one.add(&plains(2001..2003)).unwrap();
    drop(one);
    assert_eq!(times(&dir.open().unwrap().kept), [2000, 2001, 2002]);
}

#[test]
fn while_a_failed_append_cannot_be_cut_off_every_append_is_refused() {
    // Three cuts, or two syncs after cuts, fail; the last one of each in an append that
    // is accepted then.
    for (cuts, syncs) in [(3, 0), (0, 3)] {
        let dir = Scratch::new();
        let mut one = dir.with(|options| options.sync = SyncMode::Always).unwrap();
        one.add(&[plain(2000)]).unwrap();
        let before = dir.text(1);
        let faults = undermine(&mut one.journal);
        faults.writes.store(1, Ordering::Relaxed);
        faults.cuts.store(cuts, Ordering::Relaxed);
        faults.syncs.store(syncs, Ordering::Relaxed);
        fails_to("write to", one.add(&plains(2001..2005)), &dir.segment(1));
        let what = if cuts > 0 { "cut" } else { "sync" };
        for _ in 0..2 {
            fails_to(what, one.add(&[plain(2001)]), &dir.segment(1));
            assert_eq!(faults.written.load(Ordering::Relaxed), 0);
            assert_eq!(dir.text(1) == before, cuts == 0);
        }
        one.add(&[plain(2001)]).unwrap();
        drop(one);
        assert_eq!(times(&dir.open().unwrap().kept), [2000, 2001]);
    }
}

#[test]
fn a_new_segment_that_cannot_be_created_changes_nothing() {
    let dir = Scratch::new();
    let mut one = dir.with(|options| options.sync = SyncMode::Always).unwrap();
    one.add(&[plain(2000)]).unwrap();
    one.journal.segment_bytes = 1;
    // The old segment cannot be synced.
    let faults = undermine(&mut one.journal);
    faults.syncs.store(1, Ordering::Relaxed);
    fails_to("sync", one.add(&[plain(2001)]), &dir.segment(1));
    assert!(!dir.segment(2).exists());
    // The new segment cannot be created.
    fs::create_dir(dir.segment(2)).unwrap();
    let error = one.add(&[plain(2001)]).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot create {}", dir.segment(2).display())),
        "{error}"
    );
    fs::remove_dir(dir.segment(2)).unwrap();
    one.add(&[plain(2001)]).unwrap();
    drop(one);
    assert_eq!(times(&dir.open().unwrap().kept), [2000, 2001]);
    assert!(
        dir.text(2)
            .starts_with(b": tiny-sse journal 1, after 2000-0\n")
    );
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 20, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A journal that syncs in the background at short intervals, on a file that can fail.
fn in_the_background(dir: &Scratch, interval: Duration) -> (Opened, Arc<Faults>) {
    let (lines, reports) = mpsc::channel();
    let mut one = dir
        .with(|options| options.sync = SyncMode::Interval)
        .unwrap();
    let faults = undermine(&mut one.journal);
    let report = Report::new(move |level, line| {
        let _ = lines.send(format!("{level}: {line}")); // Nobody may listen any more.
    });
    let newest = &one.journal.newest;
    let syncer = Syncer::start(newest.disk.clone(), newest.len, interval, report);
    one.journal.syncer = Some(syncer.unwrap());
    (Opened { reports, ..one }, faults)
}

#[test]
fn written_bytes_are_synced_in_the_background_once() {
    let dir = Scratch::new();
    let (mut one, faults) = in_the_background(&dir, Duration::from_millis(20));
    for round in 1..4 {
        one.add(&[plain(2000 + round)]).unwrap();
        let synced = || faults.synced.load(Ordering::Relaxed) >= round as usize;
        eventually("a sync", synced);
    }
    // While nothing is written there is nothing to sync, and neither at the end.
    thread::sleep(Duration::from_millis(60));
    assert_eq!(faults.synced.load(Ordering::Relaxed), 3);
    drop(one);
    assert_eq!(faults.synced.load(Ordering::Relaxed), 3);
}

#[test]
fn dropping_the_journal_syncs_it_and_does_not_wait_for_the_interval() {
    let dir = Scratch::new();
    let (mut one, faults) = in_the_background(&dir, Duration::from_millis(3_600_000));
    one.add(&plains(2000..2010)).unwrap();
    assert_eq!(faults.synced.load(Ordering::Relaxed), 0);
    drop(one);
    assert_eq!(faults.synced.load(Ordering::Relaxed), 1);
}

#[test]
fn after_a_failed_background_sync_the_bytes_are_written_again_before_the_next_append() {
    let dir = Scratch::new();
    let (mut one, faults) = in_the_background(&dir, Duration::from_millis(1));
    one.add(&[plain(2000)]).unwrap();
    eventually("a sync", || faults.synced.load(Ordering::Relaxed) == 1);
    faults.syncs.store(3, Ordering::Relaxed);
    one.add(&plains(2001..2003)).unwrap();
    let report = one.reports.recv().unwrap();
    assert!(report.starts_with("error: cannot sync "), "{report}");
    let written = faults.written.load(Ordering::Relaxed);
    for round in 1..3 {
        fails_to("sync", one.add(&[plain(2003)]), &dir.segment(1));
        let anew = faults.written.load(Ordering::Relaxed);
        assert_eq!(anew, written + round, "written anew, and nothing else");
    }
    faults.writes.store(1, Ordering::Relaxed);
    fails_to("write to", one.add(&[plain(2003)]), &dir.segment(1));
    one.add(&[plain(2003)]).unwrap();
    drop(one);
    assert_eq!(times(&dir.open().unwrap().kept), [2000, 2001, 2002, 2003]);
}

#[test]
fn bytes_that_the_system_dropped_after_a_failed_sync_are_a_gap() {
    let dir = Scratch::new();
    let (mut one, faults) = in_the_background(&dir, Duration::from_millis(1));
    faults.syncs.store(1, Ordering::Relaxed);
    one.add(&[plain(2000)]).unwrap();
    one.reports.recv().unwrap();
    let (text, path) = (dir.text(1), dir.segment(1));
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let dropped = [&text[..header_len()], &vec![0; text.len() - header_len()]].concat();
    fs::write(&path, dropped).unwrap();
    // The system does not change the time when it drops bytes that it could not write.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let lost = one.with_journals_reports();
    one.add(&[plain(2001)]).unwrap();
    let report = lost.try_recv().unwrap();
    assert!(
        report.contains("has lost what could not be synced"),
        "{report}"
    );
    drop(one);
    let again = dir.open().unwrap();
    assert_eq!(
        (again.kept.after, times(&again.kept)),
        (id(2000), vec![2001])
    );
}

#[test]
fn a_new_segment_in_the_background_is_synced_too() {
    let dir = Scratch::new();
    let (mut one, faults) = in_the_background(&dir, Duration::from_millis(3_600_000));
    one.add(&[plain(2000)]).unwrap();
    one.journal.segment_bytes = 1;
    one.add(&[plain(2001)]).unwrap();
    assert_eq!(faults.synced.load(Ordering::Relaxed), 1);
    one.journal.segment_bytes = 1 << 20;
    let holders = Arc::strong_count(&one.journal.newest.disk);
    assert_eq!(holders, 2, "the journal and the thread have it");
    let faults = undermine(&mut one.journal);
    let newest = &one.journal.newest;
    let syncer = one.journal.syncer.as_ref().unwrap();
    syncer.turn_to(newest.disk.clone(), newest.len);
    one.add(&[plain(2002)]).unwrap();
    drop(one);
    assert_eq!(faults.synced.load(Ordering::Relaxed), 1);
    assert_eq!(times(&dir.open().unwrap().kept), [2000, 2001, 2002]);
}
