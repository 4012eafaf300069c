//! Acknowledged events survive a crash: the server is killed again and again while it
//! works, and it is started with journal files as a crash leaves them.
//!
//! `SIGKILL` ends the process and not the system, so these tests cannot distinguish an
//! event that was synced to disk from an event that was only written. They check
//! everything else: an event is written before it is acknowledged or delivered, and every
//! written event is read back once and in order.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::{Decoder, EventId, Message};

use crate::chance::Random;
use crate::kit::{Answer, OnDrop, Raw, Scratch, Stream, eventually, id_of, post};
use crate::program::{Process, lines_up_to, serve, wait_for_greeting};

// ---- a server that is killed and started again

/// How often the server is killed. The variable `TINY_SSE_CRASH_ROUNDS` overrides the
/// number.
const ROUNDS: usize = 100;
/// The largest number of acknowledged events that the slowest client has not received
/// yet. The history holds far more events, so no client may see a gap.
const LEAD: usize = 1_000;
/// The data of the last event.
const THE_END: &str = "the end";

/// The address of the server. It changes at each restart, because each run gets a free
/// port.
#[derive(Default)]
struct CurrentAddress {
    state: Mutex<AddressState>,
    changed: Condvar,
}

#[derive(Default)]
struct AddressState {
    address: Option<SocketAddr>,
    /// True once the server will not be started again.
    is_over: bool,
}

impl CurrentAddress {
    /// Waits until the server runs, and returns its address. Returns `None` if it will
    /// not be started again.
    fn find(&self) -> Option<SocketAddr> {
        let waits = |state: &mut AddressState| state.address.is_none() && !state.is_over;
        let state = self.state.lock().unwrap();
        let state = self.changed.wait_while(state, waits).unwrap();
        state.address.filter(|_| !state.is_over)
    }

    fn announce(&self, address: Option<SocketAddr>) {
        self.state.lock().unwrap().address = address;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.state.lock().unwrap().is_over
    }
}

/// The state that all threads of the test share.
///
/// ORDER: Relaxed: each number is read alone; no other memory depends on it.
struct Shared {
    server: CurrentAddress,
    /// True while the publishers continue.
    publishing: AtomicBool,
    /// The number of events that were answered with 200.
    acknowledged: AtomicUsize,
    /// The number of events that each of the first two clients, which subscribe to all
    /// topics, has received.
    seen: [AtomicUsize; 2],
}

impl Shared {
    /// Waits until the slowest client is at most `LEAD` events late. Returns whether
    /// publishing goes on.
    fn wait_for_turn(&self) -> bool {
        let is_close = || {
            let seen = self.seen.iter().map(|seen| seen.load(Ordering::Relaxed));
            let slowest = seen.min().unwrap_or_default();
            self.acknowledged.load(Ordering::Relaxed) < slowest + LEAD
        };
        while !is_close() && !self.server.is_over() {
            thread::yield_now();
        }
        self.publishing.load(Ordering::Relaxed) && !self.server.is_over()
    }
}

/// What a publisher sends in a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One event is one body.
    Plain,
    /// The same, but one event in 40 is large. A large event is written in several steps,
    /// so a kill can come between them.
    Large,
    /// One body has several events as NDJSON lines.
    Lines,
    /// Each event has an id of the publisher, and is sent again until an answer confirms
    /// it.
    OwnIds,
}

const PUBLISHERS: [(&str, Kind); 5] = [
    ("plain", Kind::Plain),
    ("large", Kind::Large),
    ("lines", Kind::Lines),
    ("other-lines", Kind::Lines),
    ("own", Kind::OwnIds),
];

/// A topic, and the end of the target that publishes to it. The first row is for events
/// without a topic.
const TOPICS: [(&str, &str); 3] = [
    ("-", ""),
    ("news", "/news"),
    ("чат/1", "/%D1%87%D0%B0%D1%82/1"),
];

/// The target that a client subscribes to, and the topics that it must receive.
const CLIENTS: [(&str, &[&str]); 4] = [
    ("/events/*", &["-", "news", "чат/1"]),
    ("/events/*", &["-", "news", "чат/1"]),
    ("/events/%D1%87%D0%B0%D1%82/*", &["-", "чат/1"]),
    ("/events", &["-"]),
];

/// The text of an event, after its number. The first two need no escapes in JSON.
const TEXTS: [&str; 5] = [
    "привет, мир",
    "🦀🦀🦀",
    "two\nlines\n",
    "\n: event 1-0\nid: 1-0\ndata: feigned\n: crc 00000000\n\n",
    "\u{feff}\0\u{85}\u{2028}",
];

/// One event that was sent.
struct Sent {
    /// True for the first event of a request.
    is_first: bool,
    data: String,
    /// The id in the answer. `None` if the answer was lost or never sent.
    id: Option<String>,
}

struct Publisher<'a> {
    name: &'static str,
    shared: &'a Shared,
    random: Random,
    connection: Option<Raw>,
    sent: Vec<Sent>,
}

impl Publisher<'_> {
    fn run(mut self, kind: Kind) -> Vec<Sent> {
        while self.shared.wait_for_turn() {
            match kind {
                Kind::Plain => self.publish_one(usize::MAX),
                Kind::Large => self.publish_one(40),
                Kind::Lines => self.publish_lines(),
                Kind::OwnIds => self.publish_until_kept(),
            }
        }
        self.sent
    }

    /// Publishes one event. One in `one_in` is large.
    fn publish_one(&mut self, one_in: usize) {
        let (topic, target) = self.topic();
        let text = match self.random.below(one_in) {
            0 => "длинно ".repeat(60_000),
            _ => TEXTS[self.random.below(TEXTS.len())].to_owned(),
        };
        let data = self.data(topic, &text);
        let answer = self.post(target, "", &data);
        let id = answer.map(|answer| self.kept(&answer));
        self.record(true, data, id);
    }

    fn publish_lines(&mut self) {
        let (topic, target) = self.topic();
        let count = 1 + self.random.below(5);
        let first = self.sent.len();
        for line in 0..count {
            let text = TEXTS[self.random.below(2)];
            let data = format!("\"{}\"", self.data(topic, text));
            self.record(line == 0, data, None);
        }
        let lines: Vec<&str> = self.sent[first..].iter().map(|sent| &*sent.data).collect();
        let (fields, body) = ("Content-Type: application/x-ndjson\r\n", lines.join("\n"));
        let Some(answer) = self.post(target, fields, &body) else {
            return;
        };
        assert_eq!(answer.status, 200, "{}: {answer:?}", self.name);
        // {"status":"ok","ids":["…","…"],"recipients":4}
        let ids = answer.text().split(['[', ']']).nth(1).expect("ids");
        let ids: Vec<&str> = ids.split(',').map(|id| id.trim_matches('"')).collect();
        assert_eq!(ids.len(), count, "{answer:?}");
        self.shared.acknowledged.fetch_add(count, Ordering::Relaxed);
        for (sent, id) in self.sent[first..].iter_mut().zip(ids) {
            sent.id = Some(id.to_owned());
        }
    }

    fn publish_until_kept(&mut self) {
        let (topic, target) = self.topic();
        let data = self.data(topic, TEXTS[0]);
        let id = format!("own-{}", self.sent.len());
        let target = format!("{target}?id={id}");
        let mut is_lost = false;
        while !self.shared.server.is_over() {
            let Some(answer) = self.post(&target, "", &data) else {
                is_lost = true;
                continue;
            };
            // A 409 says that the id is used already. It is expected only if an earlier
            // answer was lost.
            if !(is_lost && answer.status == 409) {
                assert_eq!(self.kept(&answer), id);
            }
            return self.record(true, data, Some(id));
        }
    }

    /// Counts an acknowledged event, and returns its id.
    fn kept(&self, answer: &Answer) -> String {
        assert_eq!(answer.status, 200, "{}: {answer:?}", self.name);
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        id_of(answer)
    }

    fn topic(&mut self) -> (&'static str, &'static str) {
        TOPICS[self.random.below(TOPICS.len())]
    }

    /// Returns data that names the publisher, the number of the event and the topic.
    fn data(&self, topic: &str, text: &str) -> String {
        format!("{} {} {topic} {text}", self.name, self.sent.len())
    }

    fn record(&mut self, is_first: bool, data: String, id: Option<String>) {
        self.sent.push(Sent { is_first, data, id });
    }

    /// Sends a request on the open connection, or on a new one. Returns `None` if no
    /// answer arrives; then the events may be published or not.
    fn post(&mut self, target: &str, fields: &str, body: &str) -> Option<Answer> {
        let mut raw = match self.connection.take() {
            Some(raw) => raw,
            None => Raw::try_connect(self.shared.server.find()?).ok()?,
        };
        let length = body.len();
        let request = format!(
            "POST /events{target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        );
        raw.socket.write_all(request.as_bytes()).ok()?;
        let answer = raw.try_answer()?;
        self.connection = Some(raw);
        Some(answer)
    }
}

/// Reads all events until `THE_END`, and reconnects after each restart of the server.
/// Sometimes the client itself hangs up. Returns the events.
fn follow(shared: &Shared, index: usize, mut random: Random) -> Vec<Message> {
    let (target, _) = CLIENTS[index];
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    while let Some(address) = shared.server.find() {
        let stream = if cursor.is_empty() {
            Stream::try_open(address, &format!("{target}?last_event_id=earliest"), "")
        } else {
            Stream::try_open(address, target, &format!("Last-Event-ID: {cursor}\r\n"))
        };
        let Some(mut stream) = stream else { continue };
        for _ in 0..10 + random.below(2_000) {
            let Some(message) = stream.try_next() else {
                break;
            };
            cursor.clone_from(&message.last_event_id);
            match &*message.name {
                "system" => {}
                "recovery" => {
                    let is_complete = message.data.ends_with(r#","complete":true}"#);
                    assert!(is_complete, "client {index}: {}", message.data);
                }
                _ if message.data == THE_END => return seen,
                _ => {
                    seen.push(message);
                    if let Some(count) = shared.seen.get(index) {
                        count.store(seen.len(), Ordering::Relaxed);
                    }
                }
            }
        }
    }
    seen
}

/// Starts a server on this journal, and does not wait until it is ready.
fn start(journal: &Scratch) -> Process {
    Process::run(&[
        "--listen=127.0.0.1:0",
        "--sync=always",
        "--history=100000",
        "--journal",
        journal.name(),
    ])
}

/// Starts the server and kills it at a random time. Returns the lines of its standard
/// error.
fn run_and_kill(journal: &Scratch, shared: &Shared, random: &mut Random) -> Vec<String> {
    let mut process = start(journal);
    // The sleep waits for nothing: the kill must come at a random moment.
    let sleep_ms = |ms: usize| thread::sleep(Duration::from_millis(ms as u64));
    if random.below(5) == 0 {
        // The server is killed during its start, perhaps while it repairs a torn record.
        sleep_ms(random.below(30));
    } else {
        let serving = wait_for_greeting(process);
        process = serving.process;
        shared.server.announce(Some(serving.address));
        sleep_ms(50 + random.below(200));
        // ORDER: before the kill, because another program may get the port after it.
        shared.server.announce(None);
    }
    process.kill()
}

/// Appends the beginning of a record to the newest segment, as a kill during a write
/// does. A real kill seldom hits that moment.
fn tear(journal: &Scratch, random: &mut Random) {
    let record = ": event 18446744073709551615-0 чат/1\nid: torn\ndata: torn\n: crc 00000000\n";
    let torn = &record.as_bytes()[..1 + random.below(record.len() - 1)];
    let Some(newest) = segments(journal.path()).pop() else {
        return; // The server was killed before it created a segment.
    };
    // A segment that is torn already stays as it is; its header may be torn.
    if fs::read(&newest).unwrap().ends_with(b"\n\n") {
        let mut file = File::options().append(true).open(newest).unwrap();
        file.write_all(torn).unwrap();
    }
}

/// Checks that the log has only warnings: no file that a crash leaves is an error.
#[track_caller]
fn assert_only_warnings(lines: &[String]) {
    for line in lines {
        // 2026-11-22T05:40:00.123Z warn …
        assert_eq!(line.get(25..30), Some("warn "), "{lines:#?}");
    }
}

#[test]
fn acknowledged_events_survive_any_number_of_kills_and_reach_each_client_once() {
    let rounds = std::env::var("TINY_SSE_CRASH_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let journal = Scratch::new();
    let mut random = Random::new();
    let shared = Shared {
        server: CurrentAddress::default(),
        publishing: AtomicBool::new(true),
        acknowledged: AtomicUsize::new(0),
        seen: Default::default(),
    };
    let begun = Instant::now();
    let mut torn = 0;
    let (sent, seen) = thread::scope(|scope| {
        // Ends the threads also when the test fails, because the scope waits for them.
        let _over = OnDrop(|| shared.server.end());
        let publishers = PUBLISHERS.map(|(name, kind)| {
            let publisher = Publisher {
                name,
                shared: &shared,
                random: random.fork(),
                connection: None,
                sent: Vec::new(),
            };
            scope.spawn(move || publisher.run(kind))
        });
        let clients = [0, 1, 2, 3].map(|index| {
            let (shared, random) = (&shared, random.fork());
            scope.spawn(move || follow(shared, index, random))
        });
        for _ in 0..rounds {
            if random.below(4) == 0 {
                tear(&journal, &mut random);
            }
            let lines = run_and_kill(&journal, &shared, &mut random);
            assert_only_warnings(&lines);
            torn += lines
                .iter()
                .filter(|line| line.contains("were cut off"))
                .count();
            let has_failed = publishers.iter().any(|thread| thread.is_finished())
                || clients.iter().any(|thread| thread.is_finished());
            assert!(!has_failed, "a publisher or a client has failed: see above");
        }
        // The last run of the server is not killed.
        let last = wait_for_greeting(start(&journal));
        shared.publishing.store(false, Ordering::Relaxed);
        shared.server.announce(Some(last.address));
        let sent = publishers.map(|publisher| publisher.join().expect("a publisher has failed"));
        assert_eq!(post(last.address, "/events", THE_END).status, 200);
        eventually("the clients see the end", || {
            clients.iter().all(|client| client.is_finished())
        });
        (
            sent,
            clients.map(|client| client.join().expect("a client has failed")),
        )
    });
    let kept = decoded(journal.path());
    let (the_end, kept) = kept.split_last().expect("a journal with events");
    assert_eq!(the_end.data, THE_END);
    let unknown = assert_journal_matches(&sent, kept);
    for (seen, (target, topics)) in seen.iter().zip(CLIENTS) {
        assert_has_seen(target, seen, kept, topics);
    }
    eprintln!(
        "{rounds} kills, {torn} torn tails, {} events kept, {unknown} of them with a lost answer, {} segments, {:.1} s",
        kept.len(),
        segments(journal.path()).len(),
        begun.elapsed().as_secs_f64()
    );
}

/// Returns the paths of the segments of a journal, in order.
fn segments(journal: &Path) -> Vec<PathBuf> {
    // The first server may have been killed before it created the directory.
    let entries = fs::read_dir(journal).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "sse"))
        .collect();
    paths.sort();
    paths
}

/// Returns the events of a journal, parsed as an event stream.
fn decoded(journal: &Path) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut decoder = Decoder::new(16 << 20);
    for path in segments(journal) {
        let fed = decoder.feed(&fs::read(path).unwrap(), |message| messages.push(message));
        fed.expect("events within the limit");
    }
    messages
}

/// Compares the events in the journal with the events that were sent. Returns how many of
/// the kept events were never acknowledged.
fn assert_journal_matches(sent: &[Vec<Sent>; PUBLISHERS.len()], kept: &[Message]) -> usize {
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for (position, message) in kept.iter().enumerate() {
        let before = positions.insert(&message.data, position);
        assert_eq!(before, None, "kept twice: {message:?}");
    }
    let mut acknowledged = 0;
    for ((name, kind), sent) in PUBLISHERS.iter().zip(sent) {
        let mut latest = None;
        let mut last_is_missing = false;
        for event in sent {
            let position = positions.remove(&*event.data);
            if let Some(id) = &event.id {
                acknowledged += 1;
                let position =
                    position.unwrap_or_else(|| panic!("{name}: lost {id}: {:?}", event.data));
                assert_eq!(kept[position].last_event_id, *id, "{name}: another id");
            }
            assert!(*kind != Kind::OwnIds || event.id.is_some());
            // If a request was interrupted, its first lines may be kept, and none after a
            // missing line.
            let is_after_missing = last_is_missing && !event.is_first;
            assert!(
                position.is_none() || !is_after_missing,
                "{name}: {:?}",
                event.data
            );
            last_is_missing = position.is_none();
            assert!(
                position.is_none() || latest < position,
                "{name}: not in order"
            );
            latest = position.or(latest);
        }
    }
    assert!(positions.is_empty(), "kept, but never sent: {positions:?}");
    let ids = kept
        .iter()
        .filter_map(|message| message.last_event_id.parse::<EventId>().ok());
    assert!(
        ids.is_sorted_by(|one, next| one < next),
        "ids that do not rise"
    );
    kept.len() - acknowledged
}

/// Checks that a client has received exactly the kept events of its topics, in order.
#[track_caller]
fn assert_has_seen(target: &str, seen: &[Message], kept: &[Message], topics: &[&str]) {
    let topics: HashSet<&str> = topics.iter().copied().collect();
    let is_for_it = |message: &&Message| {
        let topic = message
            .data
            .split(' ')
            .nth(2)
            .expect("publisher, number, topic");
        topics.contains(topic)
    };
    let mut expected = kept.iter().filter(is_for_it);
    for (number, seen) in seen.iter().enumerate() {
        assert_eq!(Some(seen), expected.next(), "{target}: event {number}");
    }
    assert_eq!(expected.next(), None, "{target}: an event is missing");
}

// ---- files that a crash leaves

/// Damage to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The file ends before this byte.
    Cut(usize),
    /// One bit of this byte is flipped.
    Changed(usize),
}

/// The one segment of a journal that the program has written.
struct SampleJournal {
    text: Vec<u8>,
    /// The offset of each record, and the end of the last one.
    bounds: Vec<usize>,
    events: Vec<Message>,
}

impl SampleJournal {
    fn new() -> SampleJournal {
        let journal = Scratch::new();
        let mut serving = serve(&["--journal", journal.name()]);
        for (target, data) in [
            ("/events", "the first"),
            ("/events/news?event=greeting", "привет"),
            (
                "/events?id=mine",
                "\n: event 1-0\nid: 1-0\n: crc 00000000\n\n",
            ),
            ("/events/%D1%87%D0%B0%D1%82/1?event=greeting", "🦀\n🦀"),
        ] {
            assert_eq!(post(serving.address, target, data).status, 200);
        }
        serving.process.kill();
        let text = fs::read(only_segment(&journal)).unwrap();
        let start = b"\n: event ";
        let starts = text.windows(start.len()).enumerate();
        let starts = starts
            .filter(|(_, found)| found == start)
            .map(|(at, _)| at + 1);
        SampleJournal {
            bounds: starts.chain([text.len()]).collect(),
            events: decoded(journal.path()),
            text,
        }
    }

    /// Returns all damages that are tested: a cut at every byte of the last two records,
    /// and a change of every byte of the last one.
    fn damages(&self) -> Vec<Damage> {
        let [.., last_but_one, last, end] = self.bounds[..] else {
            panic!("fewer than two records: {:?}", self.bounds);
        };
        let cuts = (last_but_one..=end).map(Damage::Cut);
        cuts.chain((last..end).map(Damage::Changed)).collect()
    }

    fn damaged(&self, damage: Damage) -> Vec<u8> {
        let mut text = self.text.clone();
        match damage {
            Damage::Cut(at) => text.truncate(at),
            Damage::Changed(at) => text[at] ^= 1 << (at % 8),
        }
        text
    }

    /// Returns the number of records before the damage.
    fn records_before(&self, damage: Damage) -> usize {
        let (Damage::Cut(at) | Damage::Changed(at)) = damage;
        self.bounds[1..].iter().filter(|end| **end <= at).count()
    }
}

fn only_segment(journal: &Scratch) -> PathBuf {
    journal.path().join("00000001.sse")
}

#[test]
fn a_journal_cut_or_changed_at_any_byte_of_its_end_keeps_exactly_the_undamaged_records() {
    let sample = SampleJournal::new();
    assert_eq!(sample.events.len(), 4);
    let damages = sample.damages();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(damage) = damages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    assert_keeps_undamaged_records(&sample, *damage);
                }
            });
        }
    });
}

fn assert_keeps_undamaged_records(sample: &SampleJournal, damage: Damage) {
    let (text, records_before) = (sample.damaged(damage), sample.records_before(damage));
    let good = sample.bounds[records_before];
    let journal = Scratch::new();
    fs::create_dir(journal.path()).unwrap();
    fs::write(only_segment(&journal), &text).unwrap();

    let mut serving = serve(&["--journal", journal.name()]);
    let address = serving.address;
    let mut stream = Stream::open(address, "/events/*?last_event_id=earliest", "");
    assert_eq!(stream.next().name, "system", "{damage:?}");
    assert_eq!(
        stream.next().data,
        format!(r#"{{"recovered_from":"earliest","replayed":{records_before},"complete":true}}"#),
        "{damage:?}"
    );
    for event in &sample.events[..records_before] {
        assert_eq!(stream.next(), *event, "{damage:?}");
    }
    // If the server had read back any other event, it would come before this one.
    let answer = post(address, "/events", "the next");
    let next = stream.next();
    assert_eq!(next.data, "the next", "{damage:?}");
    assert_eq!(next.last_event_id, id_of(&answer), "{damage:?}");
    let ids = decoded(journal.path())
        .into_iter()
        .map(|event| event.last_event_id);
    let ids: Vec<EventId> = ids.filter_map(|id| id.parse().ok()).collect();
    assert!(
        ids.is_sorted_by(|one, next| one < next),
        "{damage:?}: {ids:?}"
    );

    // A separate thread of the server writes the log, so the test waits for the line
    // before the kill.
    let mut warnings = if good == text.len() {
        Vec::new()
    } else {
        lines_up_to(&serving.process.err, "00000001.sse ended in ")
    };
    warnings.extend(serving.process.kill());
    let of_journal = warnings.iter().filter(|line| line.contains("00000001.sse"));
    let of_journal: Vec<&String> = of_journal.collect();
    assert_only_warnings(&warnings);
    if good == text.len() {
        assert!(of_journal.is_empty(), "{damage:?}: {of_journal:?}");
    } else {
        let expected = format!("00000001.sse ended in {} bytes", text.len() - good);
        assert_eq!(of_journal.len(), 1, "{damage:?}: {of_journal:?}");
        assert!(
            of_journal[0].contains(&expected),
            "{damage:?}: {of_journal:?}"
        );
    }
    let after = fs::read(only_segment(&journal)).unwrap();
    assert_eq!(after[..good], text[..good], "{damage:?}");
    let events = decoded(journal.path());
    assert_eq!(
        events[..records_before],
        sample.events[..records_before],
        "{damage:?}"
    );
    assert_eq!(events[records_before..], [next], "{damage:?}");
}
