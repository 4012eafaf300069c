//! What was acknowledged is kept, whatever ends the server: it is killed in the midst of its work,
//! again and again, and it is given files such as a crash leaves.
//!
//! `SIGKILL` takes the process and leaves the system, so nothing here can tell an event that was
//! synced from one that was only written. What it can tell is everything else: whether an event was
//! written before anybody heard of it, and whether what is read back is that, once, in its order.

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
use crate::kit::{Answer, Finally, Raw, Scratch, Stream, eventually, id_of, post};
use crate::program::{Process, greeted, serve, up_to};

// ---- killed, and started again

/// How often the server is killed; `TINY_SSE_CRASH_ROUNDS` has it otherwise.
const ROUNDS: usize = 100;
/// So many acknowledged events may be before the slowest client. More than the history has would
/// be a gap, and no fault; it has several times as many.
const LEAD: usize = 1_000;
/// The event behind which there is no other.
const THE_END: &str = "the end";

/// Where the server is now: in each of its lives it is somewhere else.
#[derive(Default)]
struct RemoteAddr {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Default)]
struct Now {
    address: Option<SocketAddr>,
    /// There will be no other life.
    over: bool,
}

impl RemoteAddr {
    /// Waits until the server is somewhere. `None`: it is over.
    fn find(&self) -> Option<SocketAddr> {
        let waits = |now: &mut Now| now.address.is_none() && !now.over;
        let now = self.now.lock().unwrap();
        let now = self.changed.wait_while(now, waits).unwrap();
        now.address.filter(|_| !now.over)
    }

    fn announce(&self, address: Option<SocketAddr>) {
        self.now.lock().unwrap().address = address;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.now.lock().unwrap().over = true;
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.now.lock().unwrap().over
    }
}

/// What all threads of the test share. Its numbers stand alone, so Relaxed suffices.
struct Scene {
    server: RemoteAddr,
    /// Publishers are to go on.
    publishing: AtomicBool,
    /// Events that were answered 200.
    acknowledged: AtomicUsize,
    /// Events that each client has seen that is to see all.
    seen: [AtomicUsize; 2],
}

impl Scene {
    /// Whether to publish on. Waits until the slowest client is near.
    fn goes_on(&self) -> bool {
        let is_near = || {
            let seen = self.seen.iter().map(|seen| seen.load(Ordering::Relaxed));
            let slowest = seen.min().unwrap_or_default();
            self.acknowledged.load(Ordering::Relaxed) < slowest + LEAD
        };
        while !is_near() && !self.server.is_over() {
            thread::yield_now();
        }
        self.publishing.load(Ordering::Relaxed) && !self.server.is_over()
    }
}

/// How a publisher publishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// A body is an event.
    Plain,
    /// The same, and now and then a large one, which is written in several steps and so can be
    /// caught halfway.
    Large,
    /// A body is some lines.
    Lines,
    /// Each event with an id, and again until it is known to be kept.
    OwnIds,
}

const PUBLISHERS: [(&str, Manner); 5] = [
    ("plain", Manner::Plain),
    ("large", Manner::Large),
    ("lines", Manner::Lines),
    ("other-lines", Manner::Lines),
    ("own", Manner::OwnIds),
];

/// A topic, and how it stands in a target. The first is none.
const TOPICS: [(&str, &str); 3] = [
    ("-", ""),
    ("news", "/news"),
    ("чат/1", "/%D1%87%D0%B0%D1%82/1"),
];

/// What a client asks for, and which of the topics that is.
const CLIENTS: [(&str, &[&str]); 4] = [
    ("/events/*", &["-", "news", "чат/1"]),
    ("/events/*", &["-", "news", "чат/1"]),
    ("/events/%D1%87%D0%B0%D1%82/*", &["-", "чат/1"]),
    ("/events", &["-"]),
];

/// What an event says behind its number. No JSON needs to escape the first two.
const TEXTS: [&str; 5] = [
    "привет, мир",
    "🦀🦀🦀",
    "two\nlines\n",
    "\n: event 1-0\nid: 1-0\ndata: feigned\n: crc 00000000\n\n",
    "\u{feff}\0\u{85}\u{2028}",
];

/// One event that was sent.
struct Sent {
    /// The first of its request.
    is_first: bool,
    data: String,
    /// What the answer said; `None` is an answer that was lost, or never given.
    id: Option<String>,
}

struct Publisher<'a> {
    name: &'static str,
    scene: &'a Scene,
    random: Random,
    connection: Option<Raw>,
    sent: Vec<Sent>,
}

impl Publisher<'_> {
    fn run(mut self, manner: Manner) -> Vec<Sent> {
        while self.scene.goes_on() {
            match manner {
                Manner::Plain => self.publish_one(usize::MAX),
                Manner::Large => self.publish_one(40),
                Manner::Lines => self.publish_lines(),
                Manner::OwnIds => self.publish_until_kept(),
            }
        }
        self.sent
    }

    /// One event; of so many, one is large.
    fn publish_one(&mut self, one_in: usize) {
        let (topic, target) = self.topic();
        let text = match self.random.below(one_in) {
            0 => "длинно ".repeat(60_000),
            _ => TEXTS[self.random.below(TEXTS.len())].to_owned(),
        };
        let data = self.data(topic, &text);
        let answer = self.post(target, "", &data);
        let id = answer.map(|answer| self.kept(&answer));
        self.note(true, data, id);
    }

    fn publish_lines(&mut self) {
        let (topic, target) = self.topic();
        let count = 1 + self.random.below(5);
        let first = self.sent.len();
        for line in 0..count {
            let text = TEXTS[self.random.below(2)];
            let data = format!("\"{}\"", self.data(topic, text));
            self.note(line == 0, data, None);
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
        self.scene.acknowledged.fetch_add(count, Ordering::Relaxed);
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
        while !self.scene.server.is_over() {
            let Some(answer) = self.post(&target, "", &data) else {
                is_lost = true;
                continue;
            };
            // That it is used already is news only of an attempt whose answer was lost.
            if !(is_lost && answer.status == 409) {
                assert_eq!(self.kept(&answer), id);
            }
            return self.note(true, data, Some(id));
        }
    }

    /// The id of an event that was acknowledged.
    fn kept(&self, answer: &Answer) -> String {
        assert_eq!(answer.status, 200, "{}: {answer:?}", self.name);
        self.scene.acknowledged.fetch_add(1, Ordering::Relaxed);
        id_of(answer)
    }

    fn topic(&mut self) -> (&'static str, &'static str) {
        TOPICS[self.random.below(TOPICS.len())]
    }

    /// Says of itself who sent it, as which, and to whom.
    fn data(&self, topic: &str, text: &str) -> String {
        format!("{} {} {topic} {text}", self.name, self.sent.len())
    }

    fn note(&mut self, is_first: bool, data: String, id: Option<String>) {
        self.sent.push(Sent { is_first, data, id });
    }

    /// A request on the connection that is there, or on a new one. `None`: there is no answer, and
    /// nobody knows.
    fn post(&mut self, target: &str, fields: &str, body: &str) -> Option<Answer> {
        let mut raw = match self.connection.take() {
            Some(raw) => raw,
            None => Raw::try_connect(self.scene.server.find()?).ok()?,
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

/// Reads to the end, over all lives of the server. Now and then it is the client that hangs up.
fn follow(scene: &Scene, index: usize, mut random: Random) -> Vec<Message> {
    let (target, _) = CLIENTS[index];
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    while let Some(address) = scene.server.find() {
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
                    if let Some(count) = scene.seen.get(index) {
                        count.store(seen.len(), Ordering::Relaxed);
                    }
                }
            }
        }
    }
    seen
}

/// A server on this journal that may not be ready yet.
fn start(journal: &Scratch) -> Process {
    Process::run(&[
        "--listen=127.0.0.1:0",
        "--sync=always",
        "--history=100000",
        "--journal",
        journal.name(),
    ])
}

/// One life of the server, to its violent end. Answers what it said on standard error.
fn live(journal: &Scratch, scene: &Scene, random: &mut Random) -> Vec<String> {
    let mut process = start(journal);
    // This is not a wait for anything: that it ends at any moment is what is tested.
    let live_for = |ms: usize| thread::sleep(Duration::from_millis(ms as u64));
    if random.below(5) == 0 {
        // It is killed as it starts, and may be halfway through mending what was torn.
        live_for(random.below(30));
    } else {
        let serving = greeted(process);
        process = serving.process;
        scene.server.announce(Some(serving.address));
        live_for(50 + random.below(200));
        // ORDER: before it is dead. Another program may soon have its port.
        scene.server.announce(None);
    }
    process.kill()
}

/// Leaves the beginning of a record, as a kill does that comes in the midst of a write. That is a
/// moment which is seldom hit.
fn tear(journal: &Scratch, random: &mut Random) {
    let record = ": event 18446744073709551615-0 чат/1\nid: torn\ndata: torn\n: crc 00000000\n";
    let torn = &record.as_bytes()[..1 + random.below(record.len() - 1)];
    let Some(newest) = segments(journal.path()).pop() else {
        return; // It was killed before there was any.
    };
    // What is torn already, in its header perhaps, is torn enough.
    if fs::read(&newest).unwrap().ends_with(b"\n\n") {
        let mut file = File::options().append(true).open(newest).unwrap();
        file.write_all(torn).unwrap();
    }
}

/// Nothing that a crash leaves is more than a warning.
#[track_caller]
fn assert_only_warnings(lines: &[String]) {
    for line in lines {
        // 2026-11-22T05:40:00.123Z warn  …
        assert_eq!(line.get(25..30), Some("warn "), "{lines:#?}");
    }
}

#[test]
fn what_was_acknowledged_outlives_any_number_of_kills_and_reaches_everybody_once() {
    let rounds = std::env::var("TINY_SSE_CRASH_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let journal = Scratch::new();
    let mut random = Random::new();
    let scene = Scene {
        server: RemoteAddr::default(),
        publishing: AtomicBool::new(true),
        acknowledged: AtomicUsize::new(0),
        seen: Default::default(),
    };
    let begun = Instant::now();
    let mut torn = 0;
    let (sent, seen) = thread::scope(|scope| {
        // Also when something fails: a scope waits for its threads.
        let _over = Finally(|| scene.server.end());
        let publishers = PUBLISHERS.map(|(name, manner)| {
            let publisher = Publisher {
                name,
                scene: &scene,
                random: random.fork(),
                connection: None,
                sent: Vec::new(),
            };
            scope.spawn(move || publisher.run(manner))
        });
        let clients = [0, 1, 2, 3].map(|index| {
            let (scene, random) = (&scene, random.fork());
            scope.spawn(move || follow(scene, index, random))
        });
        for _ in 0..rounds {
            if random.below(4) == 0 {
                tear(&journal, &mut random);
            }
            let lines = live(&journal, &scene, &mut random);
            assert_only_warnings(&lines);
            torn += lines
                .iter()
                .filter(|line| line.contains("were cut off"))
                .count();
            let has_failed = publishers.iter().any(|thread| thread.is_finished())
                || clients.iter().any(|thread| thread.is_finished());
            assert!(!has_failed, "a publisher or a client has failed: see above");
        }
        // A last life, in peace.
        let last = greeted(start(&journal));
        scene.publishing.store(false, Ordering::Relaxed);
        scene.server.announce(Some(last.address));
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
    let unknown = judge(&sent, kept);
    for (seen, (target, topics)) in seen.iter().zip(CLIENTS) {
        assert_has_seen(target, seen, kept, topics);
    }
    eprintln!(
        "{rounds} kills, {torn} torn tails, {} events kept, {unknown} of them though the answer was lost, {} segments, {:.1} s",
        kept.len(),
        segments(journal.path()).len(),
        begun.elapsed().as_secs_f64()
    );
}

/// The segments of a journal, in their order.
fn segments(journal: &Path) -> Vec<PathBuf> {
    // A first life may have ended before there was a directory.
    let entries = fs::read_dir(journal).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "sse"))
        .collect();
    paths.sort();
    paths
}

/// The journal as any reader of event streams has it.
fn decoded(journal: &Path) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut decoder = Decoder::new(16 << 20);
    for path in segments(journal) {
        let fed = decoder.feed(&fs::read(path).unwrap(), |message| messages.push(message));
        fed.expect("events within the limit");
    }
    messages
}

/// Holds what is kept against what was sent. Answers how much of it was never acknowledged.
fn judge(sent: &[Vec<Sent>; PUBLISHERS.len()], kept: &[Message]) -> usize {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, message) in kept.iter().enumerate() {
        let before = places.insert(&message.data, place);
        assert_eq!(before, None, "kept twice: {message:?}");
    }
    let mut acknowledged = 0;
    for ((name, manner), sent) in PUBLISHERS.iter().zip(sent) {
        let mut latest = None;
        let mut is_before_torn = false;
        for event in sent {
            let place = places.remove(&*event.data);
            if let Some(id) = &event.id {
                acknowledged += 1;
                let place = place.unwrap_or_else(|| panic!("{name}: lost {id}: {:?}", event.data));
                assert_eq!(kept[place].last_event_id, *id, "{name}: another id");
            }
            assert!(*manner != Manner::OwnIds || event.id.is_some());
            // Of a request that was cut short, the first few lines may be kept, but no others.
            let is_behind_torn = is_before_torn && !event.is_first;
            assert!(
                place.is_none() || !is_behind_torn,
                "{name}: {:?}",
                event.data
            );
            is_before_torn = place.is_none();
            assert!(place.is_none() || latest < place, "{name}: not in order");
            latest = place.or(latest);
        }
    }
    assert!(places.is_empty(), "kept, and never sent: {places:?}");
    let ids = kept
        .iter()
        .filter_map(|message| message.last_event_id.parse::<EventId>().ok());
    assert!(
        ids.is_sorted_by(|one, next| one < next),
        "ids that do not rise"
    );
    kept.len() - acknowledged
}

/// A client has seen what is kept of its topics, and nothing else.
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
    assert_eq!(expected.next(), None, "{target}: an event has not come");
}

// ---- files that a crash leaves

/// What was done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// It ends before this byte.
    Cut(usize),
    /// A bit of this byte is another.
    Changed(usize),
}

/// A journal that the program has written.
struct Written {
    text: Vec<u8>,
    /// Where its records begin, and where the last one ends.
    bounds: Vec<usize>,
    events: Vec<Message>,
}

impl Written {
    fn new() -> Written {
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
        Written {
            bounds: starts.chain([text.len()]).collect(),
            events: decoded(journal.path()),
            text,
        }
    }

    /// The last two records cut at every byte, and the last one changed at every byte.
    fn harms(&self) -> Vec<Harm> {
        let [.., last_but_one, last, end] = self.bounds[..] else {
            panic!("fewer than two records: {:?}", self.bounds);
        };
        let cuts = (last_but_one..=end).map(Harm::Cut);
        cuts.chain((last..end).map(Harm::Changed)).collect()
    }

    fn harmed(&self, harm: Harm) -> Vec<u8> {
        let mut text = self.text.clone();
        match harm {
            Harm::Cut(at) => text.truncate(at),
            Harm::Changed(at) => text[at] ^= 1 << (at % 8),
        }
        text
    }

    /// How many records are whole.
    fn whole(&self, harm: Harm) -> usize {
        let (Harm::Cut(at) | Harm::Changed(at)) = harm;
        self.bounds[1..].iter().filter(|end| **end <= at).count()
    }
}

fn only_segment(journal: &Scratch) -> PathBuf {
    journal.path().join("00000001.sse")
}

#[test]
fn a_file_cut_or_changed_at_any_byte_of_its_end_has_the_whole_records_and_nothing_else() {
    let written = Written::new();
    assert_eq!(written.events.len(), 4);
    let harms = written.harms();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(harm) = harms.get(next.fetch_add(1, Ordering::Relaxed)) {
                    assert_starts_with_what_is_whole(&written, *harm);
                }
            });
        }
    });
}

fn assert_starts_with_what_is_whole(written: &Written, harm: Harm) {
    let (text, whole) = (written.harmed(harm), written.whole(harm));
    let good = written.bounds[whole];
    let journal = Scratch::new();
    fs::create_dir(journal.path()).unwrap();
    fs::write(only_segment(&journal), &text).unwrap();

    let mut serving = serve(&["--journal", journal.name()]);
    let address = serving.address;
    let mut stream = Stream::open(address, "/events/*?last_event_id=earliest", "");
    assert_eq!(stream.next().name, "system", "{harm:?}");
    assert_eq!(
        stream.next().data,
        format!(r#"{{"recovered_from":"earliest","replayed":{whole},"complete":true}}"#),
        "{harm:?}"
    );
    for event in &written.events[..whole] {
        assert_eq!(stream.next(), *event, "{harm:?}");
    }
    // If it had invented anything, that would come before this.
    let answer = post(address, "/events", "the next");
    let next = stream.next();
    assert_eq!(next.data, "the next", "{harm:?}");
    assert_eq!(next.last_event_id, id_of(&answer), "{harm:?}");
    let ids = decoded(journal.path())
        .into_iter()
        .map(|event| event.last_event_id);
    let ids: Vec<EventId> = ids.filter_map(|id| id.parse().ok()).collect();
    assert!(
        ids.is_sorted_by(|one, next| one < next),
        "{harm:?}: {ids:?}"
    );

    // A separate thread writes the log, and the kill may come before it has.
    let mut warnings = if good == text.len() {
        Vec::new()
    } else {
        up_to(&serving.process.err, "00000001.sse ended in ")
    };
    warnings.extend(serving.process.kill());
    let of_journal = warnings.iter().filter(|line| line.contains("00000001.sse"));
    let of_journal: Vec<&String> = of_journal.collect();
    assert_only_warnings(&warnings);
    if good == text.len() {
        assert!(of_journal.is_empty(), "{harm:?}: {of_journal:?}");
    } else {
        let expected = format!("00000001.sse ended in {} bytes", text.len() - good);
        assert_eq!(of_journal.len(), 1, "{harm:?}: {of_journal:?}");
        assert!(
            of_journal[0].contains(&expected),
            "{harm:?}: {of_journal:?}"
        );
    }
    let after = fs::read(only_segment(&journal)).unwrap();
    assert_eq!(after[..good], text[..good], "{harm:?}");
    let events = decoded(journal.path());
    assert_eq!(events[..whole], written.events[..whole], "{harm:?}");
    assert_eq!(events[whole..], [next], "{harm:?}");
}
