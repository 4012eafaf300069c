//! Tests the parsers of heads and bodies with random bytes, and compares the results with
//! those of a second, simple parser (`http_oracle.rs`).

#[path = "http_oracle.rs"]
mod oracle;

use super::body::BodyDecoder;
use super::budget::Budget;
use super::head::{BodyLength, RequestHead};
use super::{Head, HeadParser, Refusal, Version};
use crate::chance::{Bytes, Mutator, Random, cases};
use crate::config::Config;

/// Everything that a head says, copied out of it, so that the results of the two parsers
/// can be compared.
#[derive(Debug, PartialEq)]
struct Facts {
    method: String,
    version: Version,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    path: String,
    query: Vec<(String, String)>,
    body: BodyLength,
    expects_continue: bool,
    keep_alive: bool,
}

impl From<&RequestHead> for Facts {
    fn from(head: &RequestHead) -> Facts {
        let text = |range: &std::ops::Range<usize>| head.bytes[range.clone()].to_vec();
        let fields = head.fields.iter();
        Facts {
            method: head.method().to_owned(),
            version: head.version(),
            fields: fields
                .map(|field| (text(&field.name), text(&field.value)))
                .collect(),
            path: head.path.clone(),
            query: head
                .query
                .iter()
                .map(|pair| (pair.name.to_owned(), pair.value.to_owned()))
                .collect(),
            body: head.body,
            expects_continue: head.expects_continue,
            keep_alive: head.keep_alive,
        }
    }
}

/// The result of a parser: a head and its length in bytes; `None` if it is not complete;
/// or an error.
type Verdict<R> = Result<Option<(Facts, usize)>, R>;

/// Parses a head that arrives in pieces which end at `cuts`.
fn read_head(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    limits: &Config,
) -> Verdict<Refusal> {
    let mut parser = HeadParser::default();
    for cut in cuts {
        if let Head::Complete { request, len } = parser.parse(&bytes[..cut], limits)? {
            assert_eq!(
                *request.bytes,
                bytes[..len],
                "the head is not a copy of the bytes"
            );
            return Ok(Some(((&request).into(), len)));
        }
    }
    Ok(None)
}

/// The parts of random requests, right ones and almost right ones.
#[rustfmt::skip]
const METHODS: [&str; 8] = [
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "M-SEARCH", "get",
];
#[rustfmt::skip]
const TARGETS: [&str; 12] = [
    "/", "*", "/events", "/events/chat%2f1?event=a&id=%20b+c&=&d", "/%e2%82%ac/%41?%ff", "http://a/b",
    "HTTPS://[::1]:80/x?y=z", "http://a", "/a/../b", "/a/%2e/b", "/caf\u{e9}#x", "a:443",
];
#[rustfmt::skip]
const VERSIONS: [&str; 6] = [
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.7", "HTTP/2.0",
];
#[rustfmt::skip]
const FIELDS: [&str; 24] = [
    "Host: a", "Host: a", "Host:", "host: [::1]:80", "Host: a:8080", "Host: []", "Host: a b", "Content-Length: 5",
    "content-length:5", "Content-Length: 5, 5", "Content-Length: 05", "Content-Length: 1048577",
    "Content-Length: 18446744073709551621", "Content-Length : 5", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked", "transfer-encoding:\tCHUNKED ", "Expect: 100-continue",
    "Connection: close", "Connection: x, Keep-Alive", "X: y", "X:", " folded: line",
    "Last-Event-ID: \u{43f}\u{440} 1-0",
];
#[rustfmt::skip]
const WORDS: [&str; 16] = [
    "Content-Length", "Transfer-Encoding", "chunked", "Host: ", "HTTP/1.1", "HTTP/1.0", "%00", "%2e%2e",
    "GET / HTTP/1.1\r\n", "\r\n\r\nGET ", " :", ":\t", ", ", "http://", "0x5", "+5",
];

/// A random request of these parts. Sometimes one of its line breaks is malformed.
fn request(random: &mut Random) -> Vec<u8> {
    let mut lines = vec![format!(
        "{} {} {}",
        random.pick(&METHODS),
        random.pick(&TARGETS),
        random.pick(&VERSIONS)
    )];
    if !random.one_in(8) {
        lines.push("Host: a".into());
    }
    lines.extend((0..random.below(4)).map(|_| random.pick(&FIELDS).to_owned()));
    lines.extend([String::new(), String::new()]);
    let end = if random.one_in(16) {
        random.pick(&["\n", "\r", "\r\r\n", "\n\r"])
    } else {
        "\r\n"
    };
    let wrong = random.below(lines.len());
    let mut text = if random.one_in(8) { "\r\n" } else { "" }.to_owned();
    for (number, line) in lines.iter().enumerate() {
        let end = if number == wrong { end } else { "\r\n" };
        text += line;
        text += end;
    }
    // There is one line break too many at the end, so that something follows the head.
    text.into_bytes()
}

/// The bytes of a head that says the same, written in the simplest way.
fn written(facts: &Facts) -> Vec<u8> {
    let encoded = |text: &str| -> String {
        let keep = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'*';
        let bytes = text.bytes();
        bytes
            .map(|byte| {
                if keep(byte) {
                    char::from(byte).into()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect()
    };
    let pairs = facts.query.iter();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    let version = if facts.version == Version::Http10 {
        "1.0"
    } else {
        "1.1"
    };
    let mark = if pairs.is_empty() { "" } else { "?" };
    let target = format!("{}{mark}{}", encoded(&facts.path), pairs.join("&"));
    let mut bytes = format!("{} {target} HTTP/{version}\r\n", facts.method).into_bytes();
    for (name, value) in &facts.fields {
        bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes
}

fn head_holds(Bytes(bytes): &Bytes, random: &mut Random) {
    let limits = Config::default();
    let whole = read_head(bytes, [bytes.len()], &limits);
    assert_eq!(
        read_head(bytes, random.cuts(bytes.len()), &limits),
        whole,
        "cut"
    );
    assert_eq!(
        read_head(bytes, 1..=bytes.len(), &limits),
        whole,
        "byte by byte"
    );
    match (&whole, oracle::head(bytes, &limits)) {
        (Ok(found), Ok(expected)) => assert_eq!(found, &expected),
        (Err(_), Err(oracle::Wrong)) => {}
        (found, expected) => panic!("{found:?}, but by the rules {:?}", expected.ok()),
    }
    let Ok(Some((facts, len))) = whole else {
        return;
    };
    // The bytes after the head do not matter, and the head is not complete before its
    // last byte.
    let alone = read_head(&bytes[..len], [len - 1, len], &limits);
    assert_eq!(alone.unwrap().unwrap().1, len);
    assert_eq!(read_head(&bytes[..len], [len - 1], &limits), Ok(None));
    limits_hold(bytes, &facts, len, random);
    let again = written(&facts);
    let mut wider = limits;
    wider.max_head *= 4;
    wider.max_target *= 4;
    assert_eq!(
        read_head(&again, [again.len()], &wider),
        Ok(Some((facts, again.len()))),
        "written in the simplest way"
    );
}

/// Checks that heads over a limit are refused, and that no other head is.
fn limits_hold(bytes: &[u8], facts: &Facts, len: usize, random: &mut Random) {
    let around =
        |value: usize, random: &mut Random| (value + 1).saturating_sub(random.below(3)).max(1);
    let limits = Config {
        max_head: around(len, random),
        max_fields: around(facts.fields.len(), random),
        ..Config::default()
    };
    let fits = len <= limits.max_head && facts.fields.len() <= limits.max_fields;
    let cuts = random.cuts(bytes.len());
    let is_taken = matches!(read_head(bytes, cuts, &limits), Ok(Some(_)));
    assert_eq!(is_taken, fits, "{limits:?}");
}

#[test]
fn a_random_head_is_parsed_by_the_rules_in_whatever_pieces_it_arrives() {
    let mutator = Mutator {
        corpus: corpus(request),
        words: &WORDS,
    };
    let make = |random: &mut Random| {
        let fresh = request(random);
        mutator.mutant(fresh, random)
    };
    cases(1, make, head_holds);
}

/// Some random inputs, whose pieces are inserted into other inputs.
fn corpus(make: impl Fn(&mut Random) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..64).map(|seed| make(&mut Random::of(seed))).collect()
}

/// A body, the way in which its length is given, and the limits for bodies and for
/// trailers.
#[derive(Debug)]
struct Sent {
    bytes: Bytes,
    length: BodyLength,
    max_body: usize,
    max_head: usize,
}

/// A random chunked body. It is right, except that a chunk's size may be too large or
/// malformed.
fn chunked(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(4) {
        let count = if random.one_in(8) {
            250
        } else {
            1 + random.below(20)
        };
        let extension = random.pick(&["", "", "", ";a=b", " ; c=\"d\"", " ", "\t;", ";e\u{e9}"]);
        let zeros = if random.one_in(32) {
            random.below(260)
        } else {
            0
        };
        let size = if random.one_in(16) {
            random
                .pick(&[
                    "ffffffffffffffff",
                    "10000000000000005",
                    "7fffffff",
                    "+5",
                    "0x5",
                    "5 5",
                ])
                .to_owned()
        } else if random.one_in(2) {
            format!("{count:x}")
        } else {
            format!("{count:X}")
        };
        bytes.extend(format!("{}{size}{extension}\r\n", "0".repeat(zeros)).bytes());
        let data = random.bytes(count);
        bytes.extend(
            data.into_iter()
                .map(|byte| if byte < 128 { byte % 16 } else { byte }),
        );
        bytes.extend(b"\r\n");
    }
    bytes.extend(
        random
            .pick(&["0\r\n", "0\r\n", "000\r\n", "0;x\r\n", "00 \r\n"])
            .bytes(),
    );
    for _ in 0..random.below(3) {
        let field = random.pick(&FIELDS);
        bytes.extend(format!("{field}\r\n").bytes());
    }
    bytes.extend(b"\r\nGET /next");
    bytes
}

/// Decodes a body that arrives in pieces which end at `cuts`, as a connection does: bytes
/// that are not used yet are passed again, followed by the new ones.
fn read_body(
    sent: &Sent,
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
    let limits = Config {
        max_body: sent.max_body,
        max_head: sent.max_head,
        ..Config::default()
    };
    let budget = Budget::new(limits.total_bodies);
    let mut decoder = BodyDecoder::new(sent.length, &limits, &budget);
    let (bytes, mut used) = (&sent.bytes.0, 0);
    for cut in cuts {
        used += decoder.decode(&bytes[used..cut], &limits)?;
        if decoder.is_done() {
            let body = decoder.into_parts().0;
            assert!(body.len() <= used && body.len() <= sent.max_body);
            assert!(
                body.capacity() <= 2 * used + 64,
                "{} bytes for {used}",
                body.capacity()
            );
            return Ok(Some((body, used)));
        }
        let waiting = cut - used;
        assert!(
            waiting <= sent.max_head.max(256) + 1,
            "{waiting} bytes wait for the end of a line"
        );
    }
    let held = decoder.into_parts().0.capacity();
    assert!(
        held <= 2 * bytes.len() + 64,
        "{held} bytes for {}",
        bytes.len()
    );
    Ok(None)
}

fn body_holds(sent: &Sent, random: &mut Random) {
    let bytes = &sent.bytes.0;
    let whole = read_body(sent, [bytes.len()]);
    assert_eq!(read_body(sent, random.cuts(bytes.len())), whole, "cut");
    assert_eq!(read_body(sent, 0..=bytes.len()), whole, "byte by byte");
    let expected = match sent.length {
        BodyLength::None => Ok(Some((Vec::new(), 0))),
        BodyLength::Known(length) => Ok(bytes.get(..length).map(|body| (body.to_vec(), length))),
        BodyLength::Chunked => {
            let limits = Config {
                max_body: sent.max_body,
                max_head: sent.max_head,
                ..Config::default()
            };
            oracle::chunks(bytes, &limits)
        }
    };
    match (whole, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected),
        (Err(_), Err(oracle::Wrong)) => {}
        (found, expected) => panic!("{found:?}, but by the rules {:?}", expected.ok()),
    }
}

#[test]
fn a_random_body_is_decoded_by_the_rules_in_whatever_pieces_it_arrives() {
    let mutator = Mutator {
        corpus: corpus(chunked),
        words: &WORDS,
    };
    let make = |random: &mut Random| {
        let fresh = chunked(random);
        let max_body = if random.one_in(4) {
            1 + random.below(60)
        } else {
            1 << 20
        };
        Sent {
            bytes: mutator.mutant(fresh, random),
            length: match random.below(16) {
                0 => BodyLength::None,
                1 => BodyLength::Known(random.below(max_body.min(300) + 1)),
                _ => BodyLength::Chunked,
            },
            max_body,
            max_head: 1 + random.below(100),
        }
    };
    cases(1, make, body_holds);
}
