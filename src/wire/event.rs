//! Turns one event into the bytes that a browser's `EventSource` reads.
//!
//! The format is lines of `field: value`, ended by an empty line. A line break inside `id` or
//! `event` would therefore be a new field of the sender's choosing, so an [`Event`] that holds
//! one cannot be made. Data may have line breaks: each of its lines becomes a field of its own,
//! and the browser joins them again.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{EventId, Topic};

/// The names of the server's own events. A publisher cannot use them, so a client can believe them.
const SERVERS_NAMES: [&str; 3] = ["system", "recovery", "heartbeat"];

/// LIMIT: bytes of a name and of a publisher's id. An id comes back as a header field, and proxies
/// refuse what is much longer.
pub(crate) const LONGEST_FIELD: usize = 255;

/// The `retry` of a publisher, in milliseconds: up to a day. It is for all clients that get the event;
/// none of them is made to reconnect all the time, or not at all.
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
    /// Any text, several lines or none.
    data: String,
    /// The `event` field. `None` is what browsers dispatch as `message`.
    name: Option<String>,
    /// The publisher's own id, which then stands on the wire in place of the hub's.
    id: Option<String>,
    /// How long a browser shall wait before it reconnects, from now on.
    retry: Option<Duration>,
    /// Who gets it. `None` is everybody. Never on the wire.
    topic: Option<Topic>,
}

impl Event {
    /// An event with this data, for everybody, without a name.
    pub fn new(data: impl Into<String>) -> Event {
        Event {
            data: data.into(),
            ..Event::default()
        }
    }

    /// Puts other data in the place of what was there.
    pub fn with_data(mut self, data: impl Into<String>) -> Event {
        self.data = data.into();
        self
    }

    /// An event of the server's own, under a name that publishers cannot use.
    pub(crate) fn of_server(name: &'static str, data: String) -> Event {
        debug_assert!(SERVERS_NAMES.contains(&name), "{name:?} is not reserved");
        Event {
            data,
            name: Some(name.to_owned()),
            ..Event::default()
        }
    }

    /// An event with this name and this data: [`new`](Self::new) and [`with_name`](Self::with_name).
    ///
    /// # Errors
    ///
    /// Those of [`with_name`](Self::with_name).
    pub fn named(name: impl Into<String>, data: impl Into<String>) -> Result<Event, FieldError> {
        Event::new(data).with_name(name)
    }

    /// Sets the `event` field: the type under which a browser dispatches it.
    ///
    /// # Errors
    ///
    /// The name has a line break or a NUL, either of which would end the field early, has more than
    /// 255 bytes, or is one of the server's own: `system`, `recovery`, `heartbeat`.
    pub fn with_name(mut self, name: impl Into<String>) -> Result<Event, FieldError> {
        self.name = Some(FieldError::check_name(name.into())?);
        Ok(self)
    }

    /// Sets the `id` field: what a browser sends back as `Last-Event-ID`. Without it the hub's
    /// own id is sent, which is what exact replay is made for.
    ///
    /// No two events should ever have the same id. The hub refuses a second one on the same topic while
    /// the first is in its history; after that it cannot know. A client that comes back with an id goes
    /// on after the last event of that id among its topics.
    ///
    /// # Errors
    ///
    /// The id is empty (which would erase the browser's cursor), is longer than 255 bytes or is not
    /// visible ASCII, `!` to `~` (it may not come back as it was), is `earliest`, or has the form of the
    /// hub's own ids, [`EventId`] (nobody could tell whose it is).
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Event, FieldError> {
        self.id = Some(FieldError::check_id(id.into())?);
        Ok(self)
    }

    /// Sets the `retry` field, in whole milliseconds: how long a browser waits before it reconnects. It
    /// is not checked here. Requests may ask for 100 ms to one day.
    pub fn with_retry(mut self, retry: Duration) -> Event {
        self.retry = Some(retry);
        self
    }

    /// Sets the `retry` field to what a request has: milliseconds, in digits.
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

    /// Sends the event to the clients that asked for `topic`; with `None` to all clients.
    pub fn with_topic(mut self, topic: impl Into<Option<Topic>>) -> Event {
        self.topic = topic.into();
        self
    }

    /// The data, as it was given.
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

    /// Appends the event to `out`: `id`, `event`, `retry`, `data`, and the empty line that dispatches it.
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

    /// The number of bytes that [`encode`](Self::encode) appends, of an event whose data is one line and that
    /// has no `retry`. Other events have more.
    pub(crate) fn encoded_len(&self) -> usize {
        let named = |name: &str, value: &str| name.len() + ": \n".len() + value.len();
        let id = self.id.as_ref().map_or(0, |id| named("id", id));
        let name = self.name.as_ref().map_or(0, |name| named("event", name));
        id + name + named("data", &self.data) + "\n".len()
    }
}

/// The line that comes first.
pub(crate) fn encode_id(id: &str, out: &mut Vec<u8>) {
    field("id", id.as_bytes(), out);
}

/// One line of the format. The space is part of it: without it a value that begins with a
/// space would lose that space.
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The lines of data. Text that ends in a line break has an empty last line, and empty text one
/// empty line: that is what makes the browser's data equal to ours.
///
/// SPEC: HTML, 9.2.5: `end-of-line = ( cr lf / cr / lf )`
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

/// Why an `id` or `event` field was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    field: &'static str,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    Forbidden {
        found: char,
        at: usize,
    },
    TooLong(usize),
    NotVisible {
        found: char,
        at: usize,
    },
    /// It has the form of an [`EventId`].
    Reserved(String),
    /// It is a name of the server's.
    OfServer(&'static str),
    /// It is not a number of milliseconds within [`RETRY_MS`].
    OutOfLimits(String),
}

impl FieldError {
    /// SPEC: HTML, 9.2.6: a line break ends the field, and an id with a NUL is ignored.
    fn check_name(name: String) -> Result<String, FieldError> {
        let control = name
            .char_indices()
            .find(|(_, found)| matches!(found, '\n' | '\r' | '\0'));
        // Some clients take the spaces around a name away.
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

    /// SPEC: an id comes back in the field `Last-Event-ID`, whose value has no control characters, loses
    /// the spaces around it, and is ASCII wherever it is to be understood (RFC 9110, 5.5).
    fn check_id(id: String) -> Result<String, FieldError> {
        let invisible = id
            .char_indices()
            .find(|(_, found)| !found.is_ascii_graphic());
        let fault = match invisible {
            _ if id.is_empty() => Fault::Empty,
            Some((at, found)) => Fault::NotVisible { found, at },
            None if id.len() > LONGEST_FIELD => Fault::TooLong(id.len()),
            // A cursor in a query may also be the word for the oldest event.
            None if id == "earliest" || id.parse::<EventId>().is_ok() => Fault::Reserved(id),
            None => return Ok(id),
        };
        Err(FieldError { field: "id", fault })
    }
}

/// What of a publisher's text is in an error. LIMIT: a line, not the whole text.
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
                "{field} has {found:?} at byte {at}: line breaks and NUL are not allowed in it"
            ),
            Fault::TooLong(length) => write!(
                f,
                "{field} has {length} bytes, more than the {LONGEST_FIELD} that are allowed"
            ),
            Fault::NotVisible { found, at } => write!(
                f,
                "{field} has {found:?} at byte {at}: only visible ASCII, ! to ~, is allowed in it"
            ),
            Fault::Reserved(id) => write!(
                f,
                "{field} is {id:?}: earliest and the form of the server's own ids are reserved"
            ),
            Fault::OfServer(name) => write!(
                f,
                "{field} is {name:?}, a name of the server's own events; use another one than {}",
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
    fn the_fields_stand_in_the_order_id_event_retry_data() {
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
            r"id has '\n' at byte 2: only visible ASCII, ! to ~, is allowed in it"
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
    fn a_name_is_short_and_not_one_of_the_servers() {
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
            r#"event is "system", a name of the server's own events; use another one than system, recovery, heartbeat"#
        );
    }

    #[test]
    fn a_retry_is_between_a_moment_and_a_day() {
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
