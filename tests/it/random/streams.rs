//! The event-stream format: an encoded event is decoded to the same event, and random
//! bytes are decoded as by a second, slower decoder, which follows the HTML standard line
//! by line on all bytes at once.

use std::time::Duration;

use tiny_sse::{Decoder, Event, EventId, Message};

use super::text;
use crate::chance::{Bytes, Mutator, Random, cases};

/// The result of decoding a stream.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    messages: Vec<Message>,
    cursor: String,
    retry: Option<Duration>,
    /// Whether a line or an event was above the decoder's limit.
    too_large: bool,
}

/// Decodes bytes in pieces that end at `cuts`.
fn decode(bytes: &[u8], cuts: impl IntoIterator<Item = usize>, limit: usize) -> Seen {
    let (mut decoder, mut seen, mut start) = (Decoder::new(limit), Seen::default(), 0);
    for cut in cuts {
        let fed = decoder.feed(&bytes[start..cut], |message| seen.messages.push(message));
        start = cut;
        if fed.is_err() {
            seen.too_large = true;
            break;
        }
    }
    seen.cursor = decoder.last_event_id().to_owned();
    seen.retry = decoder.retry();
    seen
}

/// Decodes all bytes at once. SPEC: HTML, 9.2.6, "Interpreting an event stream".
fn decode_by_the_standard(bytes: &[u8], limit: usize) -> Seen {
    let mut seen = Seen::default();
    let (mut data, mut name, mut id) = (String::new(), String::new(), String::new());
    for (number, line) in lines(bytes).into_iter().enumerate() {
        let Some(line) = line.filter(|line| line.len() <= limit) else {
            seen.too_large = line_is_too_long(bytes, limit);
            return seen;
        };
        let line = if number == 0 {
            line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line)
        } else {
            &line
        };
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            _ if line.is_empty() => {
                seen.cursor.clone_from(&id);
                if let Some(data) = data.strip_suffix('\n') {
                    let name = if name.is_empty() { "message" } else { &name };
                    seen.messages.push(Message {
                        name: name.to_owned(),
                        data: data.to_owned(),
                        last_event_id: id.clone(),
                    });
                }
                data.clear();
                name.clear();
            }
            "data" if data.len() + value.len() > limit => {
                seen.too_large = true;
                return seen;
            }
            "data" => data += &format!("{value}\n"),
            "event" => name = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if value.chars().all(|digit| digit.is_ascii_digit()) => {
                seen.retry = value
                    .parse()
                    .map_or(seen.retry, |ms| Some(Duration::from_millis(ms)));
            }
            _ => {}
        }
    }
    seen
}

/// The lines that have ended, and `None` for the last one, which has not ended.
fn lines(bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<_> = text
        .split('\n')
        .map(|line| Some(line.chars().map(|byte| byte as u8).collect()))
        .collect();
    *lines.last_mut().expect("at least one line") = None;
    lines
}

/// Whether any line is longer than the limit, the last one included, which has not ended.
fn line_is_too_long(bytes: &[u8], limit: usize) -> bool {
    bytes
        .split(|byte| b"\r\n".contains(byte))
        .any(|line| line.len() > limit)
}

#[rustfmt::skip]
const WORDS: [&str; 16] = [
    "data", "data:", "data: ", "event: ", "id: ", "id", "retry: ", "retry: 18446744073709551616", "\r\r", "\n\r",
    "\r\n\r\n", ": comment\n", "id: a\0b\n", "\u{feff}", "data\n\n", "\n\n",
];

/// A random event stream.
fn stream(random: &mut Random) -> Vec<u8> {
    #[rustfmt::skip]
    const FIELDS: [&str; 20] = [
        "data: x", "data:", "data", "data:  two", "event: name", "event", "id: 1-0", "id", "id: \0", "retry: 1500",
        "retry: x", "retry:", ": comment", ":", "", "", "", "Data: y", "\u{feff}data: z", "other: w",
    ];
    let end = random.pick(&["\n", "\n", "\r\n", "\r"]);
    let mut text = String::from(random.pick(&["", "", "", "\u{feff}"]));
    for _ in 0..random.below(12) {
        text += random.pick(&FIELDS);
        text += if random.one_in(10) {
            random.pick(&["\n", "\r\n", "\r", "\n\n"])
        } else {
            end
        };
    }
    text.into_bytes()
}

#[test]
fn a_random_stream_is_decoded_as_the_html_standard_says_however_it_is_cut() {
    let mutator = Mutator {
        corpus: (0..64).map(|seed| stream(&mut Random::of(seed))).collect(),
        words: &WORDS,
    };
    let make = |random: &mut Random| {
        let limit = if random.one_in(2) {
            random.below(40)
        } else {
            1 << 20
        };
        let fresh = stream(random);
        (mutator.mutant(fresh, random), limit)
    };
    cases(1, make, |(bytes, limit), random| {
        check_stream(bytes, *limit, random)
    });
}

fn check_stream(Bytes(bytes): &Bytes, limit: usize, random: &mut Random) {
    let whole = decode(bytes, [bytes.len()], limit);
    assert_eq!(decode(bytes, random.cuts(bytes.len()), limit), whole, "cut");
    assert_eq!(decode(bytes, 0..=bytes.len(), limit), whole, "byte by byte");
    assert_eq!(whole, decode_by_the_standard(bytes, limit));
    // A byte that is not UTF-8 becomes a replacement character of three bytes.
    let most = 3 * limit;
    let held = |message: &Message| {
        [
            message.name.len(),
            message.data.len(),
            message.last_event_id.len(),
        ]
    };
    let longest = whole.messages.iter().flat_map(held).max().unwrap_or(0);
    assert!(longest <= most.max("message".len()), "{longest}");
}

/// The parameters of an event, which may be invalid.
#[derive(Debug)]
struct Params {
    data: String,
    name: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
}

fn params(random: &mut Random) -> Params {
    let maybe = |random: &mut Random| random.one_in(2).then(|| text(random));
    Params {
        name: maybe(random),
        id: maybe(random),
        retry: random.one_in(4).then(|| random.next() >> random.below(64)),
        data: text(random),
    }
}

/// The rule of an event's name.
fn is_name(name: &str) -> bool {
    let is_reserved = ["system", "recovery", "heartbeat"].contains(&name.trim());
    name.len() <= 255 && !is_reserved && !name.contains(['\n', '\r', '\0'])
}

/// The rule of an own id.
fn is_id(id: &str) -> bool {
    let is_reserved = id == "earliest" || id.parse::<EventId>().is_ok();
    (1..=255).contains(&id.len())
        && !is_reserved
        && id.chars().all(|found| ('!'..='~').contains(&found))
}

#[test]
fn a_random_event_is_the_same_after_encoding_and_decoding() {
    let make = |random: &mut Random| {
        (0..1 + random.below(3))
            .map(|_| params(random))
            .collect::<Vec<_>>()
    };
    cases(1, make, |events, random| {
        let (mut bytes, mut expected) = (Vec::new(), Seen::default());
        for Params {
            data,
            name,
            id,
            retry,
        } in events
        {
            let mut event = Event::new(&**data);
            let mut message = Message {
                name: "message".to_owned(),
                data: data.replace("\r\n", "\n").replace('\r', "\n"),
                last_event_id: expected.cursor.clone(),
            };
            if let Some(name) = name {
                let named = event.clone().with_name(&**name);
                assert_eq!(named.is_ok(), is_name(name), "{name:?}");
                event = named.unwrap_or(event);
                message.name = event
                    .name()
                    .filter(|name| !name.is_empty())
                    .unwrap_or("message")
                    .to_owned();
            }
            if let Some(id) = id {
                let with = event.clone().with_id(&**id);
                assert_eq!(with.is_ok(), is_id(id), "{id:?}");
                event = with.unwrap_or(event);
                expected.cursor = event.id().unwrap_or(&expected.cursor).to_owned();
                message.last_event_id.clone_from(&expected.cursor);
            }
            if let Some(ms) = retry {
                expected.retry = Some(Duration::from_millis(*ms));
                event = event.with_retry(Duration::from_millis(*ms));
            }
            event.encode(&mut bytes);
            expected.messages.push(message);
        }
        assert_eq!(
            decode(&bytes, random.cuts(bytes.len()), 1 << 20),
            expected,
            "{:?}",
            Bytes(bytes)
        );
    });
}
