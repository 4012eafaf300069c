//! Turns the bytes of an event stream into the events that a browser would dispatch.
//!
//! This is the inverse of `event.rs`. SPEC: HTML standard, 9.2.6 "Interpreting an event
//! stream": the same line breaks end a line, the same fields are ignored, the same cursor
//! is kept. The bytes may be cut anywhere, even inside a `\r\n` or inside a character;
//! any cut gives the same events.
//!
//! The hub uses the decoder to turn messages into the answer of a poll, and the tests use
//! it to read streams.

use std::fmt;
use std::time::Duration;

/// An event as a browser hands it to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The `event` field, or `message`.
    pub name: String,
    /// The data, its lines joined by `\n`.
    pub data: String,
    /// The latest `id` up to this event: the browser's `Last-Event-ID`. Empty if there
    /// was none yet.
    pub last_event_id: String,
}

/// The state of reading one event stream. Memory is bounded by the limit given to
/// [`new`](Self::new): one line, and the data of one event.
///
/// ```
/// # fn main() -> Result<(), tiny_sse::TooLarge> {
/// let mut decoder = tiny_sse::Decoder::new(1024);
/// let mut seen = Vec::new();
/// decoder.feed(b": hello\nid: 7\nda", |message| seen.push(message))?;
/// decoder.feed(b"ta: one\ndata: two\n\n", |message| seen.push(message))?;
/// assert_eq!(seen[0].data, "one\ntwo");
/// assert_eq!(seen[0].last_event_id, "7");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Decoder {
    /// The line that has begun and not ended. It is kept as bytes, because its last
    /// character may be incomplete.
    line: Vec<u8>,
    /// The last byte was `\r`: a `\n` that follows belongs to the same line break.
    after_cr: bool,
    /// No line has ended yet: a byte order mark at its beginning is removed.
    at_start: bool,
    /// The data buffer: each `data` field, with a `\n` after it.
    data: String,
    /// The event type buffer: the latest `event` field of this event.
    name: String,
    /// The last event ID buffer: the latest `id` field. It becomes the cursor when an
    /// event ends, so that a client that is cut off inside an event does not skip it.
    id: String,
    last_event_id: String,
    retry: Option<Duration>,
    /// LIMIT: the largest line, and the largest data of one event, in bytes.
    limit: usize,
}

impl Decoder {
    /// A decoder at the beginning of a stream. It accepts lines and event data of up to
    /// `limit` bytes.
    pub fn new(limit: usize) -> Decoder {
        Decoder {
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            data: String::new(),
            name: String::new(),
            id: String::new(),
            last_event_id: String::new(),
            retry: None,
            limit,
        }
    }

    /// Reads more of the stream and calls `dispatch` for each event that it completes.
    ///
    /// # Errors
    ///
    /// A line or the data of an event is larger than the limit. Then the decoder cannot
    /// be used any more.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut dispatch: impl FnMut(Message),
    ) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes
                .iter()
                .position(|&byte| byte == b'\n' || byte == b'\r');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > self.limit {
                return Err(TooLarge { limit: self.limit });
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(&mut dispatch)?;
        }
        Ok(())
    }

    /// The cursor: the latest id of an event that has ended. Empty if there was none yet.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The latest `retry` field, if there was one.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Interprets the line that has just ended: an empty line ends the event, any other
    /// line is a field.
    ///
    /// SPEC: invalid UTF-8 is replaced by U+FFFD; a line without a colon is a field with
    /// an empty value.
    fn end_line(&mut self, dispatch: &mut impl FnMut(Message)) -> Result<(), TooLarge> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.at_start) && line.starts_with(b"\xEF\xBB\xBF") {
            line.drain(..3);
        }
        let text = String::from_utf8_lossy(&line);
        if text.is_empty() {
            self.end_event(dispatch);
        } else if let Some((name, value)) = text.split_once(':') {
            self.field(name, value.strip_prefix(' ').unwrap_or(value))?;
        } else {
            self.field(&text, "")?;
        }
        line.clear();
        self.line = line;
        Ok(())
    }

    /// Applies one field to the buffers. An `id` with a NUL, a `retry` with other
    /// characters than digits, and every unknown field are ignored.
    fn field(&mut self, name: &str, value: &str) -> Result<(), TooLarge> {
        match name {
            "data" if self.data.len() + value.len() > self.limit => {
                return Err(TooLarge { limit: self.limit });
            }
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => self.name = value.to_owned(),
            "id" if !value.contains('\0') => self.id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // A number that does not fit into a u64 is ignored.
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            // SPEC: "Otherwise: The field is ignored." A comment is a field without a
            // name.
            _ => {}
        }
        Ok(())
    }

    /// Ends the event: moves the cursor, clears the buffers, and dispatches the event if
    /// it had a `data` field.
    fn end_event(&mut self, dispatch: &mut impl FnMut(Message)) {
        self.last_event_id.clone_from(&self.id);
        let (mut data, mut name) = (
            std::mem::take(&mut self.data),
            std::mem::take(&mut self.name),
        );
        // SPEC: "If the data buffer is an empty string […] return." It is empty only if
        // there was no `data` field, because each field appends a line break; the last
        // one is removed here.
        if data.pop().is_none() {
            return;
        }
        if name.is_empty() {
            name.push_str("message");
        }
        dispatch(Message {
            name,
            data,
            last_event_id: self.last_event_id.clone(),
        });
    }
}

/// A line or an event of the stream is larger than the limit of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a line or event of the stream is larger than {} bytes",
            self.limit
        )
    }
}

impl std::error::Error for TooLarge {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Event;

    fn decode(pieces: &[&[u8]]) -> Vec<(String, String, String)> {
        let (mut decoder, mut seen) = (Decoder::new(1000), Vec::new());
        for piece in pieces {
            decoder
                .feed(piece, |m| seen.push((m.name, m.data, m.last_event_id)))
                .unwrap();
        }
        seen
    }

    /// Name, data and cursor of an event.
    type Seen<'a> = (&'a str, &'a str, &'a str);

    /// The streams of the standard's examples and of web-platform-tests'
    /// `eventsource/format-*`.
    #[test]
    fn dispatches_what_a_browser_would() {
        let table: &[(&str, &[Seen])] = &[
            (
                "data: YHOO\ndata: +2\ndata: 10\n\n",
                &[("message", "YHOO\n+2\n10", "")],
            ),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                &[
                    ("message", "first event", "1"),
                    ("message", "second event", ""),
                    ("message", " third event", ""),
                ],
            ),
            (
                "data\n\ndata\ndata\n\ndata:",
                &[("message", "", ""), ("message", "\n", "")],
            ),
            (
                "data:test\n\ndata: test\n\n",
                &[("message", "test", ""), ("message", "test", "")],
            ),
            (
                "\u{feff}data:1\n\n\u{feff}data:2\n\ndata:3\n\n",
                &[("message", "1", ""), ("message", "3", "")],
            ),
            (
                "data:a\r\rdata:b\r\n\r\ndata:c\n\n",
                &[
                    ("message", "a", ""),
                    ("message", "b", ""),
                    ("message", "c", ""),
                ],
            ),
            ("event: x\n\ndata: 1\n\n", &[("message", "1", "")]),
            ("event: x\ndata: 1\n\n", &[("x", "1", "")]),
            (
                "id: 1\n\ndata: 1\n\nid: a\0b\ndata: 2\n\n",
                &[("message", "1", "1"), ("message", "2", "1")],
            ),
            (
                " data: no\nDATA: no\ndata : no\ndata: yes\n\n",
                &[("message", "yes", "")],
            ),
            ("data: never ended", &[]),
        ];
        for (stream, expected) in table {
            let whole = decode(&[stream.as_bytes()]);
            let seen: Vec<_> = whole.iter().map(|(n, d, i)| (&**n, &**d, &**i)).collect();
            assert_eq!(seen, *expected, "{stream:?}");
            for cut in 0..stream.len() {
                let (a, b) = stream.as_bytes().split_at(cut);
                assert_eq!(decode(&[a, b]), whole, "{stream:?} cut at byte {cut}");
            }
        }
    }

    #[test]
    fn reads_back_what_was_encoded() {
        for data in [
            "",
            "a",
            "a\n",
            "\n\n",
            " a",
            "привет 🦀\u{2028}\0",
            ": not a comment",
            "data: x\n\nid: y",
        ] {
            let mut bytes = Vec::new();
            Event::new(data)
                .with_name("n")
                .unwrap()
                .with_id("i")
                .unwrap()
                .encode(&mut bytes);
            assert_eq!(decode(&[&bytes]), [("n".into(), data.into(), "i".into())]);
        }
    }

    #[test]
    fn retry_takes_digits_and_nothing_else() {
        let mut decoder = Decoder::new(100);
        for (line, expected) in [
            ("retry: 1500", 1500),
            ("retry: 1x", 1500),
            ("retry", 1500),
            ("retry: 7", 7),
        ] {
            decoder
                .feed(format!("{line}\n").as_bytes(), |_| ())
                .unwrap();
            assert_eq!(
                decoder.retry(),
                Some(Duration::from_millis(expected)),
                "{line}"
            );
        }
    }

    #[test]
    fn a_stream_without_end_is_refused() {
        let mut decoder = Decoder::new(10);
        assert!(decoder.feed(b"data: 12345\n", |_| ()).is_err());
        let mut decoder = Decoder::new(10);
        decoder.feed(b"data:12345\ndata:1234\n", |_| ()).unwrap();
        assert!(decoder.feed(b"data:1\n", |_| ()).is_err());
    }
}
