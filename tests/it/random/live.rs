//! A server that is alive, and guests who do what no client should: they send requests that are nearly
//! right, several on one connection, in pieces that are cut anywhere, and leave in every way there
//! is. After each of their visits somebody else is served as ever.

use std::collections::{HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use tiny_sse::EventId;
use tiny_sse::wire::json::unquote;

use crate::chance::{Bytes, Mutator, Random, cases};
use crate::kit::{DEADLINE, Raw, Stream, eventually, get};
use crate::program::{PROGRAM, Process, Serving, all, greeted};

const REQUESTS: [&str; 23] = [
    "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /stats HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /stats?clients=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX: y\r\nX: z\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nOrigin: http://b\r\n\r\n",
    "GET /events/rude?client_id=rude HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /events?topic=rude&topic=b/*&heartbeat=event HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\n\r\n",
    "GET /events/*?last_event_id=earliest HTTP/1.0\r\n\r\n",
    "HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /poll?topic=* HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1-0\r\n\r\n",
    "POST /events/rude?event=rude HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nto\r\nall\n\u{43f}\n",
    "POST /events/b/1?id=own&retry=7 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nA;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    "POST /events/rude HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    "POST /events/rude HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 16\r\n\r\n{\"a\":1}\n[2,\"3\"]\n",
    "POST /broadcast?topic=rude HTTP/1.1\r\nHost: localhost\r\nContent-Length: 23\r\n\r\n{\"event\":\"x\",\"b\":[1,{}]}",
    "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 24\r\n\r\n{ \"_event\" : \"y\", \"c\":2 }",
    "POST /clients/nobody HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
    "DELETE /clients/nobody HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "PUT /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n",
];

const WORDS: [&str; 13] = [
    "Content-Length: 0\r\n",
    "Content-Length: 70000\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "HTTP/1.0",
    "client_id=rude",
    "id=own",
    "last_event_id=earliest",
    "%2f",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
];

/// Only as the last thing that a guest says: another request behind it hides that the guest has gone.
const POLL: &str = "GET /poll?topic=never&wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How a guest leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leave {
    /// At once, whatever is still on its way to it.
    Close,
    /// It has said all, and hears the answers.
    HalfClose,
    /// With an answer unread: that resets the connection.
    Reset,
}

/// One connection: what is sent, in which pieces, and how it ends.
#[derive(Debug)]
struct Guest {
    pieces: VecDeque<Bytes>,
    leave: Leave,
}

fn guest(mutator: &Mutator, random: &mut Random) -> Guest {
    let leave = *random.pick(&[
        &Leave::Close,
        &Leave::HalfClose,
        &Leave::HalfClose,
        &Leave::Reset,
    ]);
    let mut bytes = Vec::new();
    if leave == Leave::Reset {
        // Of which the answer is certain.
        bytes.extend(REQUESTS[0].bytes());
    }
    for _ in 0..1 + random.below(4) {
        bytes.extend(mutator.input(random).0);
    }
    if random.one_in(8) {
        bytes.extend(POLL.bytes());
    }
    let (mut pieces, mut start) = (VecDeque::new(), 0);
    for cut in random.cuts(bytes.len()) {
        pieces.push_back(Bytes(bytes[start..cut].to_vec()));
        start = cut;
    }
    Guest { pieces, leave }
}

/// Who must not notice anything of it: a publisher on one connection all the time, and a subscriber
/// to all topics.
struct House {
    serving: Serving,
    publisher: Raw,
    subscriber: Stream,
    /// What was published here, by number.
    said: usize,
    /// The ids of all that the subscriber has heard, and the latest that was the server's own.
    heard: HashSet<String>,
    last: EventId,
}

impl House {
    fn open(serving: Serving) -> House {
        House {
            publisher: Raw::connect(serving.address),
            subscriber: Stream::subscribe(serving.address, "/events/*"),
            serving,
            said: 0,
            heard: HashSet::new(),
            last: EventId::default(),
        }
    }

    /// All come at once, and their pieces in any order.
    fn receive(&mut self, guests: &[Guest], random: &mut Random) {
        let mut present: Vec<_> = guests
            .iter()
            .map(|guest| {
                (
                    Raw::connect(self.serving.address),
                    guest.pieces.clone(),
                    guest.leave,
                )
            })
            .collect();
        let mut acknowledged = Vec::new();
        while !present.is_empty() {
            let next = random.below(present.len());
            let (raw, pieces, _) = &mut present[next];
            // The server may have hung up already, and that is its right.
            let piece = pieces
                .pop_front()
                .filter(|Bytes(piece)| raw.socket.write_all(piece).is_ok());
            if piece.is_none() {
                let (raw, _, leave) = present.swap_remove(next);
                acknowledged.extend(depart(raw, leave));
            }
        }
        self.go_on(random);
        for id in acknowledged {
            assert!(
                self.heard.contains(&id),
                "{id:?} was acknowledged, and not heard"
            );
        }
    }

    /// A good request has its answer, and so has the one behind it, however they come; and the
    /// subscriber has the event, behind all that came before.
    fn go_on(&mut self, random: &mut Random) {
        let data = format!("{} {}", self.said, "x".repeat(random.below(40)));
        let length = data.len();
        let (field, body) = if random.one_in(2) {
            let chunks = format!(
                "1\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                &data[..1],
                length - 1,
                &data[1..]
            );
            ("Transfer-Encoding: chunked".to_owned(), chunks)
        } else {
            (format!("Content-Length: {length}"), data.clone())
        };
        let head =
            format!("POST /events/good?event=good HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
        let bytes = head + &body + REQUESTS[0];
        let mut start = 0;
        for cut in random.cuts(bytes.len()) {
            self.publisher.send(&bytes[start..cut]);
            start = cut;
        }
        let answer = self.publisher.answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        let [id] = &*ids(&answer.body) else {
            panic!("{answer:?}")
        };
        assert_eq!(self.publisher.answer().text(), "{\"status\":\"ok\"}\n");
        self.said += 1;
        self.subscriber.bytes.clear();
        loop {
            let message = self.subscriber.next();
            // Or it is a guest's own id.
            if let Ok(id) = message.last_event_id.parse::<EventId>() {
                assert!(id > self.last, "{message:?} after {}", self.last);
                self.last = id;
            }
            self.heard.insert(message.last_event_id.clone());
            if message.name == "good" {
                assert_eq!((message.data, &message.last_event_id), (data, id));
                break;
            }
        }
    }

    /// Nobody is there any more. Answers the bytes of memory that are still held.
    fn close(self, threads: usize) -> (Serving, usize) {
        let House {
            serving,
            publisher,
            subscriber,
            ..
        } = self;
        drop((publisher, subscriber));
        let active = |address: SocketAddr| get(address, "/stats").text().to_owned();
        eventually("the end of all streams", || {
            active(serving.address).contains(r#""active_connections":0,"#)
        });
        eventually("the end of all their threads", || {
            // Fewer, if the thread that writes the greeting had not ended when they were counted.
            serving.process.status("Threads:") <= threads
        });
        let memory = serving.process.status("VmRSS:") << 10;
        (serving, memory)
    }
}

/// Leaves, and answers the ids of what was acknowledged, as far as it was heard.
fn depart(raw: Raw, leave: Leave) -> Vec<String> {
    match leave {
        Leave::Close => Vec::new(),
        Leave::Reset => {
            // It waits for the first byte of an answer. An error is an answer too.
            let _ = raw.socket.peek(&mut [0]);
            Vec::new()
        }
        Leave::HalfClose => {
            // It fails where the server has reset the connection.
            let _ = raw.socket.shutdown(Shutdown::Write);
            let answers = hear(&raw.socket);
            let text = String::from_utf8_lossy(&answers);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text:?}");
            assert!(!text.contains("HTTP/1.1 500 "), "{text:?}");
            ids(&answers)
        }
    }
}

/// Reads to the end, which must come although a stream, once begun, is never silent for long.
fn hear(mut socket: &TcpStream) -> Vec<u8> {
    let (mut answers, mut bytes, start) = (Vec::new(), [0; 4096], Instant::now());
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return answers,
            Ok(count) => answers.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return answers,
            Err(error) => panic!("no end: {error}, after {}", answers.escape_ascii()),
        }
        assert!(
            start.elapsed() < DEADLINE,
            "no end of {}",
            answers.escape_ascii()
        );
    }
}

/// The ids in answers to publishers.
fn ids(answers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answers);
    let lists = text.split(r#"{"status":"ok","id"#).skip(1);
    let lists = lists.map(|rest| rest.trim_start_matches(['s', '"', ':', '[']));
    lists
        .flat_map(|rest| {
            let end = rest.find(r#","recipients":"#).unwrap_or(0);
            let literals = rest[..end].trim_end_matches([']']).split(r#"",""#);
            literals
                .filter_map(|id| unquote(&format!("\"{}\"", id.trim_matches('"'))))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn whatever_guests_send_at_random_others_are_served_and_nothing_of_them_stays() {
    let mutator = Mutator {
        corpus: REQUESTS.map(|request| request.as_bytes().to_vec()).into(),
        words: &WORDS,
    };
    let mut program = Command::new(PROGRAM);
    #[rustfmt::skip]
    program.args([
        "--listen", "127.0.0.1:0", "--heartbeat", "5ms", "--max-body", "64KiB",
        "--queue-bytes", "64KiB", "--history-bytes", "256KiB", "--history", "100",
    ]);
    if cfg!(feature = "console") {
        program.args(["--console", "off"]);
    }
    // By default glibc has eight arenas for each processor, and keeps in each what was freed there:
    // what grows by that, to some 25 MiB here, is no leak, and would hide one.
    program.env("MALLOC_ARENA_MAX", "1");
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let serving = greeted(Process::spawn(&mut program));
    // Nobody has come: there are only those who are there always.
    let threads = serving.process.status("Threads:");
    let make = |random: &mut Random| {
        (0..1 + random.below(6))
            .map(|_| guest(&mutator, random))
            .collect::<Vec<_>>()
    };
    let visits = |serving: Serving, weight: u64| {
        let mut house = House::open(serving);
        cases(weight, make, |guests, random| house.receive(guests, random));
        house.close(threads)
    };
    // A visit is some ten requests. The first half fills what is kept for those to come.
    let (serving, before) = visits(serving, 500);
    let (mut serving, after) = visits(serving, 500);
    let more = after.saturating_sub(before);
    // Of each thread there ever was at one time the C library keeps a stack, and how many that are
    // is a matter of the machine. A buffer lost with each connection would be several times as much.
    assert!(
        more < 2 << 20,
        "{more} bytes more than the {before} after half of the visits"
    );
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
    let lines = all(&serving.process.err);
    assert!(
        !lines.iter().any(|line| line.contains("panic")),
        "{lines:?}"
    );
}
