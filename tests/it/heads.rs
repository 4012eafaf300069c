//! Which bytes are a valid request. A table has rows of bytes for every rule of the
//! grammar and every limit, with the expected answer. Each row must get the same answer
//! however its bytes are cut into pieces, and no row may be taken for two requests.

mod table;

use std::io::Write;
use std::net::Shutdown;

use tiny_sse::http::{Head, HeadParser, Request, Response};
use tiny_sse::{Api, Config, Running, Server};

use crate::chance::{Bytes, Mutator, Random, cases};
use crate::kit::{Answer, Raw, Stream, config};
use table::{After, Closed, MadeRow, Open, rows};

/// A server with one more endpoint, `/echo`. Its answer has the method and the body that
/// the server understood.
fn server() -> Running {
    let bound = Server::bind("127.0.0.1:0", config()).expect("a free port");
    bound.spawn_with(echo).expect("the server's threads start")
}

fn echo(request: Request, api: &Api) -> Response {
    if request.path() == "/echo" {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        Response::text(200, format!("{} {body}", request.method()))
    } else {
        api.answer(request)
    }
}

/// Whether a row is a HEAD request, whose answer has no body.
fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|some| some == part)
}

/// Describes a row in the message of a failure.
fn shown(bytes: &[u8], source: &str) -> String {
    let (start, more) = (
        &bytes[..bytes.len().min(300)],
        bytes.len().saturating_sub(300),
    );
    format!(
        "{source}: \"{}\" and {more} bytes more",
        start.escape_ascii()
    )
}

/// The request that is sent after each row.
const NEXT: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How a row is sent, and when the request [`NEXT`] is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The row in one write, and [`NEXT`] after its answer. So the server answers the row
    /// without further bytes.
    Whole,
    /// The row and [`NEXT`] in one write.
    WithNext,
    /// The row in pieces of so many bytes, which the server may read together, and
    /// [`NEXT`] after its answer.
    InPieces(usize),
    /// The row in two parts, cut at this byte. The first part is sent together with a
    /// request before it, and the test reads the answer to that request. So the server
    /// has read the first part before the second part is sent, together with [`NEXT`].
    Cut(usize),
}
use Way::{Cut, InPieces, Whole, WithNext};

/// A row that is sent in several ways. A connection that stays open is used for the next
/// way.
struct Trial<'a> {
    server: &'a Running,
    row: &'a MadeRow,
    open: Option<Raw>,
}

impl<'a> Trial<'a> {
    fn of(row: &'a MadeRow, server: &'a Running) -> Trial<'a> {
        Trial {
            server,
            row,
            open: None,
        }
    }

    /// Sends the row and checks its status, whether the connection closes, and the answer
    /// to [`NEXT`] if not.
    #[track_caller]
    fn check(&mut self, way: Way) -> Answer {
        let (bytes, status, after, source) = self.row;
        let connect = || Raw::connect(self.server.local_addr());
        let mut raw = self.open.take().unwrap_or_else(connect);
        send(&mut raw, bytes, way);
        let answer = answer_to(&mut raw, bytes);
        let then = end_of(&mut raw, &answer, way);
        assert_eq!(
            (answer.status, then),
            (*status, *after),
            "{way:?}: {}\n{answer:?}",
            shown(bytes, source)
        );
        if answer.status >= 400 && !is_head(bytes) {
            let body = answer.text();
            assert!(body.starts_with(r#"{"status":"error","error":""#), "{body}");
        }
        self.open = (then == Open).then_some(raw);
        answer.without_date()
    }

    /// Like [`Trial::check`], and also checks that the answer equals `whole`, the answer
    /// to the uncut row.
    #[track_caller]
    fn compare(&mut self, whole: &Answer, way: Way) {
        let answer = self.check(way);
        let (bytes, source) = (&self.row.0, &self.row.3);
        assert_eq!(&answer, whole, "{way:?}: {}", shown(bytes, source));
    }
}

#[track_caller]
fn send(raw: &mut Raw, bytes: &[u8], way: Way) {
    match way {
        Whole => drop(raw.send(bytes)),
        WithNext => drop(raw.send([bytes, NEXT].concat())),
        Cut(at) => {
            let (one, two) = bytes.split_at(at);
            raw.send([NEXT, one].concat());
            assert_eq!(raw.answer().text(), HEALTHY);
            // Best effort: the server may have refused the first part and closed the
            // connection.
            let _ = raw.socket.write_all(&[two, NEXT].concat());
        }
        InPieces(size) => {
            for piece in bytes.chunks(size) {
                if raw.socket.write_all(piece).is_err() {
                    break;
                }
                // This gives the server a chance to read the piece before the next one
                // comes.
                std::thread::yield_now();
            }
        }
    }
}

const HEALTHY: &str = "{\"status\":\"ok\"}\n";

/// Reads the answer to a row, and before it an interim answer if the row asks for one.
#[track_caller]
fn answer_to(raw: &mut Raw, bytes: &[u8]) -> Answer {
    let mut next = || {
        if is_head(bytes) {
            raw.head()
        } else {
            raw.answer()
        }
    };
    let answer = next();
    if answer.status != 100 {
        return answer;
    }
    // Only a request of HTTP/1.1 that has the field Expect may get an interim answer.
    assert!(find(bytes, b"HTTP/1.1\r\n").is_some() && find(bytes, b"Expect: ").is_some());
    next()
}

/// Returns whether the connection stays open or closes, by the answer's field Connection,
/// and checks that this is true.
#[track_caller]
fn end_of(raw: &mut Raw, answer: &Answer, way: Way) -> After {
    match answer.field("connection") {
        Some("close") => {
            assert!(
                raw.is_closed(),
                "more bytes after the last answer {answer:?}"
            );
            Closed
        }
        Some("keep-alive") => {
            if matches!(way, Whole | InPieces(_)) {
                raw.send(NEXT);
            }
            let next = raw.answer();
            assert_eq!(next.text(), HEALTHY, "after {answer:?}");
            Open
        }
        other => panic!("Connection: {other:?} in {answer:?}"),
    }
}

#[test]
fn every_request_in_the_table_gets_the_expected_answer() {
    let (server, rows) = (server(), rows());
    for row in &rows {
        let mut trial = Trial::of(row, &server);
        let whole = trial.check(Whole);
        if let Some(echo) = echo_of(row) {
            assert_eq!(whole.text(), echo, "{}", shown(&row.0, &row.3));
        }
        trial.compare(&whole, WithNext);
        // The server sends nothing more.
        if let Some(mut raw) = trial.open {
            raw.socket.shutdown(Shutdown::Write).unwrap();
            assert!(raw.is_closed(), "{}", shown(&row.0, &row.3));
        }
    }
    assert!(rows.len() > 500, "only {} rows", rows.len());
}

/// Returns the expected answer of `/echo` to a row whose body is all bytes after its
/// head. `None` for other rows.
fn echo_of((bytes, status, ..): &MadeRow) -> Option<String> {
    let request = bytes.trim_ascii_start();
    let head = &request[..find(request, b"\r\n\r\n")?];
    let start = String::from_utf8_lossy(head);
    let (method, target) = start.split_once(' ')?;
    let is_chunked = start.to_ascii_lowercase().contains("transfer-encoding:");
    if *status != 200 || method == "HEAD" || is_chunked || !target.starts_with("/echo") {
        return None;
    }
    let body = String::from_utf8_lossy(&request[head.len() + 4..]);
    Some(format!("{method} {body}"))
}

/// Rows of at least this many bytes would take too long. They are cut only near their
/// beginning and end and at a few positions between, and are sent in pieces of 97 bytes,
/// a prime number.
const LARGE: usize = 1000;

#[test]
fn a_request_that_arrives_byte_by_byte_gets_the_same_answer() {
    let server = server();
    for row in &rows() {
        let mut trial = Trial::of(row, &server);
        let whole = trial.check(Whole);
        let size = if row.0.len() < LARGE { 1 } else { 97 };
        trial.compare(&whole, InPieces(size));
    }
}

/// Sends every row once for each byte for which `is_cut` holds, cut at this byte. Large
/// rows are cut elsewhere.
fn cut_rows(is_cut: impl Fn(&[u8], usize) -> bool) {
    let server = server();
    for row in &rows() {
        let mut trial = Trial::of(row, &server);
        let whole = trial.check(Whole);
        let length = row.0.len();
        let cuts: Vec<_> = if length < LARGE {
            (1..length).filter(|&at| is_cut(&row.0, at)).collect()
        } else {
            let between = (0..length).step_by(length / 20);
            (1..80).chain(between).chain(length - 20..length).collect()
        };
        for at in cuts {
            trial.compare(&whole, Cut(at));
        }
    }
}

#[test]
fn a_request_cut_in_two_gets_the_same_answer() {
    // Cut within and next to line breaks, and at every eighth byte.
    cut_rows(|bytes, at| {
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        bytes[at - 1..=at].iter().any(is_break) || at % 8 == 0
    });
}

#[test]
#[ignore = "30,000 tries on 21,000 connections: takes 10 s, on a busy machine 30 s"]
fn a_request_cut_in_two_at_any_byte_gets_the_same_answer() {
    cut_rows(|_, _| true);
}

/// Parses the bytes up to each of `cuts` in turn, and then all of them. Returns the
/// parser's outcome as text.
fn parsed(bytes: &[u8], cuts: impl IntoIterator<Item = usize>, limits: &Config) -> String {
    let mut parser = HeadParser::default();
    for end in cuts.into_iter().chain([bytes.len()]) {
        match parser.parse(&bytes[..end], limits) {
            Ok(Head::Partial) => {}
            outcome => return format!("{outcome:?}"),
        }
    }
    "Partial".into()
}

#[test]
fn a_head_cut_in_two_at_any_byte_is_the_same_head() {
    let limits = config();
    for (bytes, _, _, source) in rows() {
        let whole = parsed(&bytes, [], &limits);
        // Large rows are cut at 50 positions only, and around the limits.
        let step = if bytes.len() < 1000 {
            1
        } else {
            bytes.len() / 50
        };
        let around = [limits.max_target, limits.max_head].map(|limit| limit - 5..limit + 80);
        let cuts = (0..bytes.len()).step_by(step);
        let around = around.into_iter().flatten().filter(|_| step > 1);
        for at in cuts.chain(around).filter(|&at| at <= bytes.len()) {
            let cut = parsed(&bytes, [at], &limits);
            assert_eq!(cut, whole, "cut at byte {at}: {}", shown(&bytes, &source));
        }
    }
}

#[test]
fn a_head_that_arrives_byte_by_byte_is_the_same_head() {
    let limits = config();
    for (bytes, _, _, source) in rows() {
        let (whole, byte_by_byte) = (
            parsed(&bytes, [], &limits),
            parsed(&bytes, 0..bytes.len().min(40_000), &limits),
        );
        assert_eq!(byte_by_byte, whole, "{}", shown(&bytes, &source));
    }
}

#[test]
fn the_parser_returns_partial_until_it_has_the_last_byte_of_the_head() {
    let limits = config();
    let served = |row: &MadeRow| matches!(row.1, 200 | 204 | 404 | 405 | 501) && row.2 == Open;
    for (bytes, _, _, source) in rows().into_iter().filter(served) {
        // Empty lines before the request line are part of the head.
        let empty = bytes
            .iter()
            .take_while(|byte| b"\r\n".contains(byte))
            .count();
        let end = bytes[empty..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let len = empty + end.expect("an empty line") + 4;
        let outcome = parsed(&bytes[..len - 1], [], &limits);
        assert_eq!(outcome, "Partial", "{}", shown(&bytes, &source));
        let outcome = parsed(&bytes, [], &limits);
        let ending = format!("len: {len} }})");
        assert!(
            outcome.ends_with(&ending),
            "{outcome}: {}",
            shown(&bytes, &source)
        );
    }
}

#[test]
fn a_chunked_body_reaches_a_subscriber_without_its_chunk_framing() {
    let server = server();
    let mut stream = Stream::subscribe(server.local_addr(), "/events/t");
    let mut raw = Raw::connect(server.local_addr());
    let head = "POST /events/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    #[rustfmt::skip]
    let bodies = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n4;x=\"y\"\r\nello\r\n0;z\r\nTrailer: no\r\n\r\n", "hello"),
        ("000000A\r\n0\r\n\r\nGET /\r\n0\r\n\r\n", "0\n\nGET /"),
    ];
    for (body, data) in bodies {
        raw.send(format!("{head}{body}"));
        assert_eq!(raw.answer().status, 200, "{body:?}");
        assert_eq!(stream.next().data, data, "{body:?}");
    }
    // A chunk may end within a character.
    raw.send(head).send(b"1\r\n\xc3\r\n1\r\n\xa9\r\n0\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    assert_eq!(stream.next().data, "\u{e9}");
    let large = "0123456789abcdef".repeat(60_000);
    raw.send(head);
    for piece in large.as_bytes().chunks(9999) {
        raw.send(format!("{:X}\r\n", piece.len()))
            .send(piece)
            .send("\r\n");
    }
    raw.send("0\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    assert!(
        stream.next().data == large,
        "the large body differs from the bytes that were sent"
    );
}

#[test]
fn a_random_request_is_parsed_the_same_with_random_limits_however_it_is_cut() {
    let rows = rows().into_iter().filter(|row| row.0.len() < 300);
    let mutator = Mutator {
        corpus: rows.map(|row| row.0).collect(),
        words: &[],
    };
    let make = |random: &mut Random| {
        let limits = (
            1 + random.below(300),
            1 + random.below(100),
            1 + random.below(4),
        );
        (mutator.input(random), limits)
    };
    cases(
        1,
        make,
        |(Bytes(bytes), (max_head, max_target, max_fields)), random| {
            let limits = Config {
                max_head: *max_head,
                max_target: *max_target,
                max_fields: *max_fields,
                ..config()
            };
            let whole = parsed(bytes, [], &limits);
            assert_eq!(parsed(bytes, random.cuts(bytes.len()), &limits), whole);
            assert_eq!(parsed(bytes, 0..bytes.len(), &limits), whole);
        },
    );
}

#[test]
fn a_head_with_two_errors_is_refused_for_the_first_one_however_it_is_cut() {
    let limits = config();
    // First the head is too large, because 5,000 empty lines are part of it. Then the
    // target is too long.
    let late = format!(
        "{}GET /{} HTTP/1.1\r\n",
        "\r\n".repeat(5000),
        "t".repeat(9000)
    );
    // First the first byte is not HTTP. Then the line is too long.
    let noise = [0x16].repeat(9000);
    for (bytes, expected) in [(late.into_bytes(), "HeadTooLarge"), (noise, "NotHttp")] {
        let byte_by_byte = parsed(&bytes, 0..bytes.len(), &limits);
        assert!(byte_by_byte.contains(expected), "{byte_by_byte}");
        assert_eq!(parsed(&bytes, [], &limits), byte_by_byte);
    }
}
