//! Turns one event into the bytes that a browser's `EventSource` reads.
//!
//! The format is lines of `field: value`, ended by an empty line:
//!
//! ```text
//! id: 1795326004711-731902466
//! event: greeting
//! retry: 5000
//! data: first line
//! data: second line
//!
//! ```
//!
//! A line break inside `id` or `event` would begin a new field, chosen by the sender.
//! Therefore no [`Event`] can contain one: the constructors refuse it. Data may contain
//! line breaks: each line of the data becomes a `data` field, and the browser joins them
//! again with `\n`.
//!
//! SPEC: HTML standard, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event
//! stream". `decoder.rs` is the other direction.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{EventId, Topic};

/// The names of the server's own events. Publishers cannot use them, so a client can rely
/// on an event with one of these names being from the server.
const SERVERS_NAMES: [&str; 3] = ["system", "recovery", "heartbeat"];

/// LIMIT: the length of an event's name and of a publisher's id, in bytes. A client sends
/// the id back in a header field, and proxies refuse header fields that are much longer.
pub(crate) const LONGEST_FIELD: usize = 255;

/// LIMIT: the `retry` that a publisher may set, in milliseconds: 100 ms to one day. It
/// applies to every client that gets the event, so a publisher can neither make them
/// reconnect all the time nor keep them away for long.
const RETRY_MS: RangeInclusive<u64> = 100..=86_400_000;

/// One event, before the hub has given it an id.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tiny_sse::Event;
/// let event = Event::new("one\ntwo").with_name("greeting")?.with_id("7")?;
/// let mut bytes = Vec::new();
/// event.encode(&mut bytes);
/// assert_eq!(bytes, b"id: 7\nevent: greeting\ndata: one\ndata: two\n\n");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Any text: empty, one line, or several.
    data: String,
    /// The `event` field. Browsers dispatch an event without one as `message`.
    name: Option<String>,
    /// The publisher's own id, which is sent instead of the hub's id.
    id: Option<String>,
    /// The `retry` field: from this event on, a browser waits this long before it
    /// reconnects.
    retry: Option<Duration>,
    /// The topic. An event without one is sent to every client. The topic itself is not
    /// sent.
    topic: Option<Topic>,
}

impl Event {
    /// An event with this data, without a name and without a topic.
    pub fn new(data: impl Into<String>) -> Event {
        Event {
            data: data.into(),
            ..Event::default()
        }
    }

    /// Replaces the data.
    pub fn with_data(mut self, data: impl Into<String>) -> Event {
        self.data = data.into();
        self
    }

    /// An event of the server itself, with one of the names that publishers cannot use.
    pub(crate) fn of_server(name: &'static str, data: String) -> Event {
        debug_assert!(SERVERS_NAMES.contains(&name), "{name:?} is not reserved");
        Event {
            data,
            name: Some(name.to_owned()),
            ..Event::default()
        }
    }

    /// An event with this name and this data: short for [`new`](Self::new) and
    /// [`with_name`](Self::with_name).
    ///
    /// # Errors
    ///
    /// The errors of [`with_name`](Self::with_name).
    pub fn named(name: impl Into<String>, data: impl Into<String>) -> Result<Event, FieldError> {
        Event::new(data).with_name(name)
    }

    /// Sets the `event` field: the event type for which a page adds a listener.
    ///
    /// # Errors
    ///
    /// The name contains a line break or a NUL, is longer than 255 bytes, or is reserved
    /// for the server: `system`, `recovery`, `heartbeat`.
    pub fn with_name(mut self, name: impl Into<String>) -> Result<Event, FieldError> {
        self.name = Some(FieldError::check_name(name.into())?);
        Ok(self)
    }

    /// Sets the `id` field, which a browser sends back as `Last-Event-ID`. For an event
    /// without an id of its own the hub sends the id that it assigned; a replay after
    /// such an id is always exact.
    ///
    /// Two events should never have the same id. The hub refuses a second event with the
    /// same id on the same topic for as long as the first one is in its history. A client
    /// that reconnects with an id resumes after the last event of this id among its
    /// topics.
    ///
    /// # Errors
    ///
    /// - The id is empty: a browser would erase its cursor.
    /// - It is longer than 255 bytes, or contains a character that is not visible ASCII
    ///   (`!` to `~`): a header field could change it.
    /// - It is `earliest`, or has the form of the hub's ids ([`EventId`]): as a cursor it
    ///   would be ambiguous.
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Event, FieldError> {
        self.id = Some(FieldError::check_id(id.into())?);
        Ok(self)
    }

    /// Sets the `retry` field, in whole milliseconds: how long a browser waits before it
    /// reconnects. Any value is accepted here; in a request only 100 ms to one day.
    pub fn with_retry(mut self, retry: Duration) -> Event {
        self.retry = Some(retry);
        self
    }

    /// Sets the `retry` field from the text of a request: milliseconds, in digits, within
    /// [`RETRY_MS`].
    pub(crate) fn with_retry_of(self, text: &str) -> Result<Event, FieldError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let ms = text
            .parse()
            .ok()
            .filter(|ms| digits && RETRY_MS.contains(ms));
        match ms {
            Some(ms) => Ok(self.with_retry(Duration::from_millis(ms))),
            None => Err(FieldError {
                field: "retry",
                fault: Fault::OutOfLimits(shown(text)),
            }),
        }
    }

    /// Sends the event to the clients that subscribe to `topic`; with `None` to every
    /// client.
    pub fn with_topic(mut self, topic: impl Into<Option<Topic>>) -> Event {
        self.topic = topic.into();
        self
    }

    /// The data, unchanged.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The `event` field, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The publisher's own id, if there is one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The `retry` field, if there is one.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The topic, if there is one.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// Appends the event to `out`: `id`, `event`, `retry`, `data`, and the empty line
    /// that dispatches it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        if let Some(id) = &self.id {
            encode_id(id, out);
        }
        if let Some(name) = &self.name {
            field("event", name.as_bytes(), out);
        }
        if let Some(retry) = self.retry {
            field("retry", retry.as_millis().to_string().as_bytes(), out);
        }
        for line in Lines(Some(self.data.as_bytes())) {
            field("data", line, out);
        }
        out.push(b'\n');
    }

    /// The number of bytes that [`encode`](Self::encode) appends if the data is one line
    /// and there is no `retry`; otherwise a lower bound. It sizes the buffer: an event of
    /// one line is encoded with one allocation.
    pub(crate) fn encoded_len(&self) -> usize {
        let named = |name: &str, value: &str| name.len() + ": \n".len() + value.len();
        let id = self.id.as_ref().map_or(0, |id| named("id", id));
        let name = self.name.as_ref().map_or(0, |name| named("event", name));
        id + name + named("data", &self.data) + "\n".len()
    }
}

/// Appends the `id` field, which is the first line of an event.
pub(crate) fn encode_id(id: &str, out: &mut Vec<u8>) {
    field("id", id.as_bytes(), out);
}

/// Appends one line. The space after the colon is necessary: the reader removes one
/// space, so without it a value that begins with a space would lose that space.
///
/// SPEC: HTML standard, 9.2.5: `field = 1*name-char [ colon [ space ] *any-char ]
/// end-of-line`
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The lines of the data, without their line breaks; `None` after the last one.
///
/// Text that ends in a line break has an empty last line, and empty text has one empty
/// line. This is the inverse of what the browser does: it appends `\n` after each `data`
/// field, and removes the last one.
///
/// SPEC: HTML standard, 9.2.5: `end-of-line = ( cr lf / cr / lf )`
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.0?;
        let Some(end) = text.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
            return self.0.take();
        };
        let width = if text[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        self.0 = Some(&text[end + width..]);
        Some(&text[..end])
    }
}

/// Why a value for `id`, `event` or `retry` was refused. `Display` names the field, the
/// value and the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    field: &'static str,
    fault: Fault,
}

/// What is wrong with the value. `at` is a position in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    /// A line break or a NUL.
    Forbidden {
        found: char,
        at: usize,
    },
    /// The text is too long; this is its length in bytes.
    TooLong(usize),
    /// The text has a character that is not visible ASCII.
    NotVisible {
        found: char,
        at: usize,
    },
    /// The id is `earliest`, or has the form of an [`EventId`].
    Reserved(String),
    /// The name is one of [`SERVERS_NAMES`].
    OfServer(&'static str),
    /// The text is not a number of milliseconds within [`RETRY_MS`]. The error quotes the
    /// text, and cuts it if it is long.
    OutOfLimits(String),
}

impl FieldError {
    /// SPEC: HTML standard, 9.2.6: a line break ends the field. A NUL is refused as in an
    /// id.
    fn check_name(name: String) -> Result<String, FieldError> {
        let control = name
            .char_indices()
            .find(|(_, found)| matches!(found, '\n' | '\r' | '\0'));
        // Some clients remove the spaces around a name, so ` system` would reach their
        // listeners as `system`.
        let of_server = SERVERS_NAMES.iter().find(|own| **own == name.trim());
        let fault = match (control, of_server) {
            (Some((at, found)), _) => Fault::Forbidden { found, at },
            (None, Some(own)) => Fault::OfServer(own),
            (None, None) if name.len() > LONGEST_FIELD => Fault::TooLong(name.len()),
            (None, None) => return Ok(name),
        };
        Err(FieldError {
            field: "event",
            fault,
        })
    }

    /// SPEC: RFC 9110, 5.5: a client sends the id back as the value of the header field
    /// `Last-Event-ID`. Such a value contains no control characters, loses the spaces
    /// around it, and should be ASCII.
    fn check_id(id: String) -> Result<String, FieldError> {
        let invisible = id
            .char_indices()
            .find(|(_, found)| !found.is_ascii_graphic());
        let fault = match invisible {
            _ if id.is_empty() => Fault::Empty,
            Some((at, found)) => Fault::NotVisible { found, at },
            None if id.len() > LONGEST_FIELD => Fault::TooLong(id.len()),
            // As a cursor, `earliest` means the oldest event.
            None if id == "earliest" || id.parse::<EventId>().is_ok() => Fault::Reserved(id),
            None => return Ok(id),
        };
        Err(FieldError { field: "id", fault })
    }
}

/// Quotes a publisher's text for an error message. LIMIT: the first 32 characters.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(32).collect();
    format!("{start:?}")
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match &self.fault {
            Fault::Empty => write!(f, "{field} is empty"),
            Fault::Forbidden { found, at } => write!(
                f,
                "{field} has {found:?} at byte {at}: line breaks and NUL are not allowed"
            ),
            Fault::TooLong(length) => write!(
                f,
                "{field} has {length} bytes, at most {LONGEST_FIELD} are allowed"
            ),
            Fault::NotVisible { found, at } => write!(
                f,
                "{field} has {found:?} at byte {at}: only visible ASCII, ! to ~, is allowed"
            ),
            Fault::Reserved(id) => write!(
                f,
                "{field} is {id:?}: the word earliest, and the form of the server's own ids, are reserved"
            ),
            Fault::OfServer(name) => write!(
                f,
                "{field} is {name:?}, which is reserved for the server; the reserved names are {}",
                SERVERS_NAMES.join(", ")
            ),
            Fault::OutOfLimits(found) => write!(
                f,
                "{field} is {found}, it must be from {} to {} milliseconds, in digits",
                RETRY_MS.start(),
                RETRY_MS.end()
            ),
        }
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn encodes(data: &str, expected: &str) {
        let mut out = Vec::new();
        Event::new(data).encode(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "data {data:?}");
    }

    #[test]
    fn every_line_of_data_is_a_field() {
        encodes("", "data: \n\n");
        encodes("a", "data: a\n\n");
        encodes(" a", "data:  a\n\n");
        encodes("a\nb", "data: a\ndata: b\n\n");
        encodes("a\r\nb", "data: a\ndata: b\n\n");
        encodes("a\rb", "data: a\ndata: b\n\n");
        encodes("a\n\rb", "data: a\ndata: \ndata: b\n\n");
        encodes("a\n", "data: a\ndata: \n\n");
        encodes("\r\n\r\n", "data: \ndata: \ndata: \n\n");
    }

    #[test]
    fn the_fields_are_in_the_order_id_event_retry_data() {
        let event = Event::new("d").with_retry(Duration::from_millis(1500));
        let event = event.with_name("n").unwrap().with_id("i").unwrap();
        let mut out = Vec::new();
        event.encode(&mut out);
        assert_eq!(out, b"id: i\nevent: n\nretry: 1500\ndata: d\n\n");
    }

    #[test]
    fn a_field_cannot_be_injected() {
        for bad in ["a\nb", "a\rb", "a\0b", "\n"] {
            assert!(Event::new("").with_name(bad).is_err(), "{bad:?}");
            assert!(Event::new("").with_id(bad).is_err(), "{bad:?}");
        }
        let error = Event::new("").with_id("ab\ndata: x").unwrap_err();
        assert_eq!(
            error.to_string(),
            r"id has '\n' at byte 2: only visible ASCII, ! to ~, is allowed"
        );
        assert_eq!(
            Event::new("").with_id("").unwrap_err().to_string(),
            "id is empty"
        );
        let longest = "x".repeat(255);
        let longer = "x".repeat(256);
        for bad in [
            " a",
            "a ",
            "a b",
            "a\tb",
            "a\x7f",
            "заказ",
            "7-7",
            "earliest",
            &longer,
        ] {
            assert!(Event::new("").with_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a,b", "7-07", "7", "-", "!~", &longest] {
            assert!(Event::new("").with_id(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_name_of_the_server_or_a_long_name_is_refused() {
        let (longest, longer) = ("ж".repeat(127) + "x", "ж".repeat(128));
        for bad in [
            "system",
            "recovery",
            "heartbeat",
            " system",
            "system ",
            &longer,
        ] {
            assert!(Event::new("").with_name(bad).is_err(), "{bad:?}");
        }
        for good in ["", "System", "systems", "message", "error", &longest] {
            assert!(Event::new("").with_name(good).is_ok(), "{good:?}");
        }
        let error = Event::new("").with_name("system").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"event is "system", which is reserved for the server; the reserved names are system, recovery, heartbeat"#
        );
    }

    #[test]
    fn a_retry_is_from_100_ms_to_one_day() {
        let limits = "it must be from 100 to 86400000 milliseconds, in digits";
        for (text, found) in [
            ("0", r#""0""#),
            ("99", r#""99""#),
            ("86400001", r#""86400001""#),
            ("", r#""""#),
            ("+100", r#""+100""#),
            ("1e3", r#""1e3""#),
            ("99999999999999999999", r#""99999999999999999999""#),
        ] {
            let error = Event::new("").with_retry_of(text).unwrap_err().to_string();
            assert_eq!(error, format!("retry is {found}, {limits}"));
        }
        for text in ["100", "86400000", "0000000000000000000000100"] {
            assert!(Event::new("").with_retry_of(text).is_ok(), "{text}");
        }
    }
}
