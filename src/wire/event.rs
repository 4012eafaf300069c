//! Turns one event into the bytes that a browser's `EventSource` reads.
//!
//! The format is lines of `field: value`, ended by an empty line. A line break inside `id` or
//! `event` would therefore be a new field of the sender's choosing, so an [`Event`] that holds
//! one cannot be made. Data may have line breaks: each of its lines becomes a field of its own,
//! and the browser joins them again.

use std::fmt;
use std::time::Duration;

use super::{EventId, Topic};

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

    /// Sets the `event` field: the type under which a browser dispatches it.
    ///
    /// # Errors
    ///
    /// The name has a line break or a NUL, either of which would end the field early.
    pub fn with_name(mut self, name: impl Into<String>) -> Result<Event, FieldError> {
        self.name = Some(FieldError::check("event", name.into())?);
        Ok(self)
    }

    /// Sets the `id` field: what a browser sends back as `Last-Event-ID`. Without it the hub's
    /// own id is sent, which is what exact replay is made for.
    ///
    /// No two events should ever have the same id. The hub refuses a second one while the first is in
    /// its history; after that it cannot know, and who comes back with the id goes on behind the second.
    ///
    /// # Errors
    ///
    /// The id is empty (which would erase the browser's cursor), has a control character or begins
    /// or ends with a space (it would not come back as it was), is `earliest`, or has the form of the
    /// hub's own ids, [`EventId`] (nobody could tell whose it is).
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Event, FieldError> {
        self.id = Some(FieldError::check_id(id.into())?);
        Ok(self)
    }

    /// Sets the `retry` field, in whole milliseconds: how long a browser waits before it reconnects.
    pub fn with_retry(mut self, retry: Duration) -> Event {
        self.retry = Some(retry);
        self
    }

    /// Sends the event to those who asked for `topic`, and not to everybody.
    pub fn with_topic(mut self, topic: Topic) -> Event {
        self.topic = Some(topic);
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
        if let Some(id) = &self.id {
            encode_id(id, out);
        }
        self.encode_behind_id(out);
    }

    /// [`encode`](Self::encode) without the id, which the hub decides on later.
    pub(crate) fn encode_behind_id(&self, out: &mut Vec<u8>) {
        out.reserve(self.data.len() + 64);
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
    OuterSpace,
    /// It has the form of an [`EventId`].
    Reserved(String),
}

impl FieldError {
    /// SPEC: HTML, 9.2.6: a line break ends the field, and an id with a NUL is ignored.
    fn check(field: &'static str, value: String) -> Result<String, FieldError> {
        match value
            .char_indices()
            .find(|(_, found)| matches!(found, '\n' | '\r' | '\0'))
        {
            Some((at, found)) => Err(FieldError {
                field,
                fault: Fault::Forbidden { found, at },
            }),
            None => Ok(value),
        }
    }

    /// SPEC: an id comes back in the field `Last-Event-ID`, whose value has no control characters,
    /// and loses the spaces around it (RFC 9110, 5.5).
    fn check_id(id: String) -> Result<String, FieldError> {
        let id = FieldError::check("id", id)?;
        let control = id
            .char_indices()
            .find(|(_, found)| found.is_ascii_control());
        let fault = match control {
            _ if id.is_empty() => Fault::Empty,
            Some((at, found)) => Fault::Forbidden { found, at },
            None if id.starts_with(' ') || id.ends_with(' ') => Fault::OuterSpace,
            // A cursor in a query may also be the word for the oldest event.
            None if id == "earliest" || id.parse::<EventId>().is_ok() => Fault::Reserved(id),
            None => return Ok(id),
        };
        Err(FieldError { field: "id", fault })
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Empty => write!(f, "{} is empty", self.field),
            Fault::Forbidden { found, at } => write!(
                f,
                "{} has {found:?} at byte {at}: line breaks and NUL are not allowed in it, nor control characters in an id",
                self.field
            ),
            Fault::OuterSpace => write!(f, "{} begins or ends with a space", self.field),
            Fault::Reserved(id) => write!(
                f,
                "{} is {id:?}, which is a word or has the form of the server's own ids",
                self.field
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
            r"id has '\n' at byte 2: line breaks and NUL are not allowed in it, nor control characters in an id"
        );
        assert_eq!(
            Event::new("").with_id("").unwrap_err().to_string(),
            "id is empty"
        );
        for bad in [" a", "a ", "a\tb", "a\x7f", "7-7", "earliest"] {
            assert!(Event::new("").with_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a b", "заказ-1", "7-07", "7", "-"] {
            assert!(Event::new("").with_id(good).is_ok(), "{good:?}");
        }
    }
}
