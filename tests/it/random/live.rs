//! A running server with misbehaving clients: they send nearly valid requests, several on
//! one connection, cut into random pieces, and end their connections in different ways.
//! After each group of them, a well-behaved publisher and a well-behaved subscriber must
//! be served as usual.

use std::collections::{HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use tiny_sse::EventId;
use tiny_sse::wire::json::unquote;

use crate::chance::{Bytes, Mutator, Random, cases};
use crate::kit::{DEADLINE, Raw, Stream, eventually, get};
use crate::program::{PROGRAM, Process, Serving, all_lines, wait_for_greeting};

const REQUESTS: [&str; 23] = [
    "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /stats HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /stats?clients=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX: y\r\nX: z\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nOrigin: http://b\r\n\r\n",
    "GET /events/bad?client_id=bad HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /events?topic=bad&topic=b/*&heartbeat=event HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\n\r\n",
    "GET /events/*?last_event_id=earliest HTTP/1.0\r\n\r\n",
    "HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /poll?topic=* HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1-0\r\n\r\n",
    "POST /events/bad?event=bad HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nto\r\nall\n\u{43f}\n",
    "POST /events/b/1?id=own&retry=7 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nA;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    "POST /events/bad HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    "POST /events/bad HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 16\r\n\r\n{\"a\":1}\n[2,\"3\"]\n",
    "POST /broadcast?topic=bad HTTP/1.1\r\nHost: localhost\r\nContent-Length: 23\r\n\r\n{\"event\":\"x\",\"b\":[1,{}]}",
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
    "client_id=bad",
    "id=own",
    "last_event_id=earliest",
    "%2f",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
];

/// Only sent as the last request of a client: a request after it would hide the client's
/// disconnect from the server.
const POLL: &str = "GET /poll?topic=never&wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How a client ends its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// It closes the connection without reading.
    Close,
    /// It shuts down its side and reads all answers.
    HalfClose,
    /// It waits until an answer has arrived and closes without reading it. This resets
    /// the connection.
    Reset,
}

/// A misbehaving client: what it sends on its connection, in which pieces, and how the
/// connection ends.
#[derive(Debug)]
struct BadClient {
    pieces: VecDeque<Bytes>,
    ending: Ending,
}

fn bad_client(mutator: &Mutator, random: &mut Random) -> BadClient {
    let ending = *random.pick(&[
        &Ending::Close,
        &Ending::HalfClose,
        &Ending::HalfClose,
        &Ending::Reset,
    ]);
    let mut bytes = Vec::new();
    if ending == Ending::Reset {
        // A valid request, so that an answer arrives for certain.
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
    BadClient { pieces, ending }
}

/// The server with its well-behaved clients: a publisher that keeps one connection, and a
/// subscriber to all topics.
struct GoodClients {
    serving: Serving,
    publisher: Raw,
    subscriber: Stream,
    /// The number of events that this publisher has published.
    published: usize,
    /// The ids of all events that the subscriber has got.
    received: HashSet<String>,
    /// The latest id that was the hub's, not an own id.
    last: EventId,
}

impl GoodClients {
    fn connect(serving: Serving) -> GoodClients {
        GoodClients {
            publisher: Raw::connect(serving.address),
            subscriber: Stream::subscribe(serving.address, "/events/*"),
            serving,
            published: 0,
            received: HashSet::new(),
            last: EventId::default(),
        }
    }

    /// Runs some misbehaving clients at the same time, with their pieces in a random
    /// order. Then checks the well-behaved clients, and that the subscriber has got each
    /// event whose publication was acknowledged.
    fn run(&mut self, bad_clients: &[BadClient], random: &mut Random) {
        let mut connected: Vec<_> = bad_clients
            .iter()
            .map(|client| {
                (
                    Raw::connect(self.serving.address),
                    client.pieces.clone(),
                    client.ending,
                )
            })
            .collect();
        let mut acknowledged = Vec::new();
        while !connected.is_empty() {
            let next = random.below(connected.len());
            let (raw, pieces, _) = &mut connected[next];
            // A failed write is no error: the server may have closed the connection
            // already.
            let piece = pieces
                .pop_front()
                .filter(|Bytes(piece)| raw.socket.write_all(piece).is_ok());
            if piece.is_none() {
                let (raw, _, ending) = connected.swap_remove(next);
                acknowledged.extend(end_connection(raw, ending));
            }
        }
        self.check(random);
        for id in acknowledged {
            assert!(
                self.received.contains(&id),
                "the event {id:?} was acknowledged, and the subscriber did not get it"
            );
        }
    }

    /// Publishes an event and sends one more request, cut into random pieces. Checks that
    /// both are answered, and that the subscriber gets the event after all events that
    /// were published before.
    fn check(&mut self, random: &mut Random) {
        let data = format!("{} {}", self.published, "x".repeat(random.below(40)));
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
        self.published += 1;
        self.subscriber.bytes.clear();
        loop {
            let message = self.subscriber.next();
            // Events of misbehaving clients may have an own id.
            if let Ok(id) = message.last_event_id.parse::<EventId>() {
                assert!(id > self.last, "{message:?} after {}", self.last);
                self.last = id;
            }
            self.received.insert(message.last_event_id.clone());
            if message.name == "good" {
                assert_eq!((message.data, &message.last_event_id), (data, id));
                break;
            }
        }
    }

    /// Disconnects both clients and waits until the server has no stream and only
    /// `threads` threads. Returns the server and the memory that it still holds, in
    /// bytes.
    fn disconnect(self, threads: usize) -> (Serving, usize) {
        let GoodClients {
            serving,
            publisher,
            subscriber,
            ..
        } = self;
        drop((publisher, subscriber));
        let active = |address: SocketAddr| get(address, "/stats").text().to_owned();
        eventually("all streams end", || {
            active(serving.address).contains(r#""active_connections":0,"#)
        });
        eventually("the threads of all streams end", || {
            // There may be fewer than before: the thread that prints the greeting may not
            // have ended then.
            serving.process.status("Threads:") <= threads
        });
        let memory = serving.process.status("VmRSS:") << 10;
        (serving, memory)
    }
}

/// Ends the connection of a misbehaving client. Returns the ids of the events whose
/// publication was acknowledged in an answer that the client has read.
fn end_connection(raw: Raw, ending: Ending) -> Vec<String> {
    match ending {
        Ending::Close => Vec::new(),
        Ending::Reset => {
            // Waits for the first byte of an answer. An error ends the wait, too.
            let _ = raw.socket.peek(&mut [0]);
            Vec::new()
        }
        Ending::HalfClose => {
            // Best effort: this fails if the server has reset the connection.
            let _ = raw.socket.shutdown(Shutdown::Write);
            let answers = read_to_end(&raw.socket);
            let text = String::from_utf8_lossy(&answers);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text:?}");
            assert!(!text.contains("HTTP/1.1 500 "), "{text:?}");
            ids(&answers)
        }
    }
}

/// Reads to the end of the connection. A stream never stops sending heartbeats, so the
/// wait has a deadline of its own.
fn read_to_end(mut socket: &TcpStream) -> Vec<u8> {
    let (mut answers, mut bytes, start) = (Vec::new(), [0; 4096], Instant::now());
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return answers,
            Ok(count) => answers.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return answers,
            Err(error) => panic!(
                "the connection did not end: {error}, after {}",
                answers.escape_ascii()
            ),
        }
        assert!(
            start.elapsed() < DEADLINE,
            "the connection did not end within {DEADLINE:?}, after {}",
            answers.escape_ascii()
        );
    }
}

/// Returns the ids of events in answers to publishers.
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
fn clients_that_send_random_requests_do_not_disturb_others_and_leave_no_threads_or_memory() {
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
    // By default glibc has eight arenas for each processor, and each keeps its freed
    // memory, here about 25 MiB in total. This is no leak, but it would hide one.
    program.env("MALLOC_ARENA_MAX", "1");
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let serving = wait_for_greeting(Process::spawn(&mut program));
    // No client has connected yet, so these are the threads that always run.
    let threads = serving.process.status("Threads:");
    let make = |random: &mut Random| {
        (0..1 + random.below(6))
            .map(|_| bad_client(&mutator, random))
            .collect::<Vec<_>>()
    };
    let run_cases = |serving: Serving, weight: u64| {
        let mut good_clients = GoodClients::connect(serving);
        cases(weight, make, |bad_clients, random| {
            good_clients.run(bad_clients, random)
        });
        good_clients.disconnect(threads)
    };
    // A case is about ten requests. The first half of the cases fills what the server
    // keeps for later requests.
    let (serving, before) = run_cases(serving, 500);
    let (mut serving, after) = run_cases(serving, 500);
    let more = after.saturating_sub(before);
    // The C library keeps a stack for each thread that has run at the same time as
    // others, and how many these are depends on the machine. A leak of one buffer for
    // each connection would be several times the bound.
    assert!(
        more < 2 << 20,
        "{more} bytes more than the {before} bytes after the first half of the cases"
    );
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
    let lines = all_lines(&serving.process.err);
    assert!(
        !lines.iter().any(|line| line.contains("panic")),
        "{lines:?}"
    );
}
