//! What counts as a request: every rule of the grammar and every limit as a row of bytes, each
//! answered the same however the bytes are cut on their way, and nothing hidden in one of them.

mod table;

use std::io::Write;
use std::net::Shutdown;

use tiny_sse::http::{Head, HeadParser, Request, Response};
use tiny_sse::{Api, Config, Running, Server};

use crate::chance::{Bytes, Mutator, Random, cases};
use crate::kit::{Answer, Raw, Stream, config};
use table::{After, Closed, MadeRow, Open, rows};

/// A server with one more endpoint, `/echo`, whose answer says what was understood.
fn server() -> Running {
    let bound = Server::bind("127.0.0.1:0", config()).expect("a free port");
    bound.spawn_with(echo).expect("threads")
}

fn echo(request: Request, api: &Api) -> Response {
    if request.path() == "/echo" {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        Response::text(200, format!("{} {body}", request.method()))
    } else {
        api.answer(request)
    }
}

/// Whether the answer to a row has no body whatever it says.
fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|some| some == part)
}

/// A row as it stands in a message.
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

/// The request that comes behind a row.
const NEXT: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How a row is sent, and when the request behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one write; the next when the row has been answered, which is therefore not for want of a byte.
    Whole,
    /// In one write with the next.
    Along,
    /// In pieces of so many bytes, which may or may not be read together; the next as with `Whole`.
    Dribbled(usize),
    /// In two; the second in one write with the next. The first comes behind a request that is
    /// answered before the second is sent: the server has read it then, and nothing else.
    Cut(usize),
}
use Way::{Along, Cut, Dribbled, Whole};

/// A row that is sent in one way after the other. What it leaves open is open for the next.
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

    /// Sees to it that the row gets its answer and the connection its end, and the request behind it
    /// an answer or none.
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
        answer.timeless()
    }

    /// And that the answer is the one that the whole row got.
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
        Along => drop(raw.send([bytes, NEXT].concat())),
        Cut(at) => {
            let (one, two) = bytes.split_at(at);
            raw.send([NEXT, one].concat());
            assert_eq!(raw.answer().text(), HEALTHY);
            // What cannot be sent any more is no failure: the first part may have been refused.
            let _ = raw.socket.write_all(&[two, NEXT].concat());
        }
        Dribbled(size) => {
            for piece in bytes.chunks(size) {
                if raw.socket.write_all(piece).is_err() {
                    break;
                }
                // An invitation to read it before the next comes, and no more.
                std::thread::yield_now();
            }
        }
    }
}

const HEALTHY: &str = "{\"status\":\"ok\"}\n";

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
    // Whose body is late is told to go on; only who asked for it, and who knows that.
    assert!(find(bytes, b"HTTP/1.1\r\n").is_some() && find(bytes, b"Expect: ").is_some());
    next()
}

/// What becomes of the connection: what the answer says, and what is seen.
#[track_caller]
fn end_of(raw: &mut Raw, answer: &Answer, way: Way) -> After {
    match answer.field("connection") {
        Some("close") => {
            assert!(raw.is_closed(), "more than one answer, after {answer:?}");
            Closed
        }
        Some("keep-alive") => {
            if matches!(way, Whole | Dribbled(_)) {
                raw.send(NEXT);
            }
            let next = raw.answer();
            assert_eq!(next.text(), HEALTHY, "behind {answer:?}");
            Open
        }
        other => panic!("Connection: {other:?} in {answer:?}"),
    }
}

#[test]
fn every_request_of_the_table_gets_its_answer() {
    let (server, rows) = (server(), rows());
    for row in &rows {
        let mut trial = Trial::of(row, &server);
        let whole = trial.check(Whole);
        if let Some(echo) = echo_of(row) {
            assert_eq!(whole.text(), echo, "{}", shown(&row.0, &row.3));
        }
        trial.compare(&whole, Along);
        // Nothing is left over.
        if let Some(mut raw) = trial.open {
            raw.socket.shutdown(Shutdown::Write).unwrap();
            assert!(raw.is_closed(), "{}", shown(&row.0, &row.3));
        }
    }
    assert!(rows.len() > 500, "rows were lost: {}", rows.len());
}

/// What `/echo` says to a row whose body is all that is behind its head.
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

/// Rows that are as large as a limit are too many bytes for that: they are cut in their heads, at
/// their ends and in a few places between, and come in pieces that are no divisor of anything.
const LARGE: usize = 1000;

#[test]
fn a_request_that_comes_byte_by_byte_gets_the_same_answer() {
    let server = server();
    for row in &rows() {
        let mut trial = Trial::of(row, &server);
        let whole = trial.check(Whole);
        let size = if row.0.len() < LARGE { 1 } else { 97 };
        trial.compare(&whole, Dribbled(size));
    }
}

/// Sends every row cut at each byte for which `is_cut` holds, of those that could be.
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
    // In line breaks and beside them, and here and there.
    cut_rows(|bytes, at| {
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        bytes[at - 1..=at].iter().any(is_break) || at % 8 == 0
    });
}

#[test]
#[ignore = "30,000 tries on 21,000 connections: ten seconds, half a minute where others are at work"]
fn a_request_cut_in_two_at_any_byte_gets_the_same_answer() {
    cut_rows(|_, _| true);
}

/// What the parser makes of bytes that come up to each of `cuts`, and then all.
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
        // Large ones are cut at some places only, and around where the limits are.
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
fn a_head_that_comes_byte_by_byte_is_the_same_head() {
    let limits = config();
    for (bytes, _, _, source) in rows() {
        let (whole, dribbled) = (
            parsed(&bytes, [], &limits),
            parsed(&bytes, 0..bytes.len().min(40_000), &limits),
        );
        assert_eq!(dribbled, whole, "{}", shown(&bytes, &source));
    }
}

#[test]
fn the_parser_says_not_yet_until_the_last_byte_of_a_head_and_no_longer() {
    let limits = config();
    let served = |row: &MadeRow| matches!(row.1, 200 | 204 | 404 | 405 | 501) && row.2 == Open;
    for (bytes, _, _, source) in rows().into_iter().filter(served) {
        // Empty lines in front are part of the head.
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
fn a_chunked_body_reaches_a_subscriber_as_its_data_and_nothing_else() {
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
    // A character may be cut.
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
        "the large body is not what was sent"
    );
}

#[test]
fn a_random_request_and_limits_are_read_the_same_however_they_are_cut() {
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
fn of_two_limits_the_one_that_is_broken_first_is_named_however_the_head_comes() {
    let limits = config();
    // The head is too large before the target is too long: 5,000 empty lines are part of it.
    let late = format!(
        "{}GET /{} HTTP/1.1\r\n",
        "\r\n".repeat(5000),
        "t".repeat(9000)
    );
    // Not HTTP from the first byte, and longer than any line.
    let noise = [0x16].repeat(9000);
    for (bytes, expected) in [(late.into_bytes(), "HeadTooLarge"), (noise, "NotHttp")] {
        let dribbled = parsed(&bytes, 0..bytes.len(), &limits);
        assert!(dribbled.contains(expected), "{dribbled}");
        assert_eq!(parsed(&bytes, [], &limits), dribbled);
    }
}
