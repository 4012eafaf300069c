//! What a handler answers, and how it becomes bytes.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Refusal;
use super::budget::Share;
use crate::config::{Config, HEAD_BYTES};
use crate::wire::{Framing, date, json};

/// An answer: a status, header fields, and a body or the taking over of the socket.
///
/// `Content-Length`, `Transfer-Encoding`, `Connection` and `Date` are the connection's to write.
#[derive(Debug)]
pub struct Response {
    pub(super) status: u16,
    pub(super) fields: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) body: Body,
    /// The connection ends with it, whatever was asked for.
    pub(super) is_last: bool,
    /// The memory that was reserved for it, if it was.
    pub(super) share: Option<Share>,
}

pub(super) enum Body {
    Bytes(Vec<u8>),
    Takeover {
        first: Vec<u8>,
        run: Box<dyn FnOnce(Takeover) + Send>,
    },
}

/// A value that cannot be that of a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValueError(&'static str);

impl fmt::Display for FieldValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {} has a control character", self.0)
    }
}

impl std::error::Error for FieldValueError {}

/// The socket of a client that a [`Response::takeover`] was the answer to. The connection ends
/// when it is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Takeover {
    /// The socket: blocking, with `Config::write_timeout` as its write timeout.
    pub socket: Arc<TcpStream>,
    /// How the client finds the end of what is now written: [`Request::stream_framing`](super::Request::stream_framing).
    pub framing: Framing,
    /// The head of the answer and the first bytes behind it. Nothing has been written yet.
    pub opening: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Response {
        Response {
            status,
            fields: Vec::new(),
            body: Body::Bytes(Vec::new()),
            is_last: false,
            share: None,
        }
    }

    /// A text, as `text/plain`.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        Response::new(status).with_body("text/plain; charset=utf-8", text.into())
    }

    /// A text that is JSON, as `application/json`, with a line break for those who read it in a
    /// terminal.
    pub fn json(status: u16, text: impl Into<String>) -> Response {
        Response::new(status).with_body("application/json", text.into() + "\n")
    }

    /// `{"status":"error","error":"…"}`, the way in which this server says no.
    pub fn error(status: u16, what: impl fmt::Display) -> Response {
        Response::json(
            status,
            format!(
                "{{\"status\":\"error\",\"error\":{}}}",
                json::quoted(&what.to_string())
            ),
        )
    }

    /// 503, and when to come back: what is asked for is right, and there is no room for it.
    pub(crate) fn later(config: &Config, why: impl fmt::Display) -> Response {
        Response::error(503, why).with("Retry-After", config.retry_after())
    }

    /// A stream that begins with the bytes `first`: `run` gets the socket, on a thread of its own,
    /// and the connection is over when it returns. It is not called for a HEAD request.
    pub fn takeover(
        content_type: &'static str,
        first: Vec<u8>,
        run: impl FnOnce(Takeover) + Send + 'static,
    ) -> Response {
        let response = Response::new(200).with("Content-Type", content_type);
        Response {
            body: Body::Takeover {
                first,
                run: Box::new(run),
            },
            ..response
        }
    }

    /// Sets the body and its type.
    pub fn with_body(mut self, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        self.body = Body::Bytes(body.into());
        self.with("Content-Type", content_type)
    }

    /// Counts under memory that was reserved before it was made, and is not refused for want of it.
    pub(crate) fn reserved(mut self, share: Share) -> Response {
        self.share = Some(share);
        self
    }

    /// Makes it the last answer of its connection, which is closed behind it.
    pub fn and_close(mut self) -> Response {
        self.is_last = true;
        self
    }

    /// Adds a header field. The names of a second `Vary` are appended to the first one.
    ///
    /// A value with a control character could be a field, or an answer, of a peer's choosing, so it is never
    /// sent: the response becomes a 500 that names the field. See [`try_with`](Self::try_with) for values
    /// that come from elsewhere.
    ///
    /// ```
    /// use tiny_sse::http::Response;
    /// let response = Response::text(200, "hello").with("Cache-Control", "no-store");
    /// assert_eq!(response.status(), 200);
    /// assert_eq!(response.with("X-User", "a\r\nSet-Cookie: b").status(), 500);
    /// ```
    pub fn with(self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        self.try_with(name, value)
            .unwrap_or_else(|error| Response::error(500, error))
    }

    /// [`with`](Self::with) for a value that may be wrong.
    ///
    /// # Errors
    ///
    /// The value has a control character. The response is dropped.
    pub fn try_with(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Response, FieldValueError> {
        let value = value.into();
        if value.contains(|c: char| c.is_ascii_control()) {
            return Err(FieldValueError(name));
        }
        let mut fields = self.fields.iter_mut();
        match fields.find(|(present, _)| *present == "Vary" && name == "Vary") {
            Some((_, names)) => *names = format!("{value}, {names}").into(),
            None => self.fields.push((name, value)),
        }
        Ok(self)
    }

    /// Whether it has a header field of that name.
    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.fields
            .iter()
            .any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body, as far as it is not a stream.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Bytes(bytes) => bytes,
            Body::Takeover { .. } => b"",
        }
    }

    /// All of it, as the last answer of its connection.
    pub(super) fn last_bytes(&self, head_only: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_head(false, Framing::Bare, Duration::ZERO, &mut bytes);
        if !head_only {
            bytes.extend_from_slice(self.body());
        }
        bytes
    }

    /// Writes the head as it goes on the wire, in place of what is in `head`. A stream is delimited by
    /// `framing`. A connection that is kept alive is closed after `idle_timeout` without a request. Returns
    /// whether the connection is kept alive: a stream of HTTP/1.0 ends by its end.
    pub(super) fn write_head(
        &self,
        keep_alive: bool,
        framing: Framing,
        idle_timeout: Duration,
        head: &mut Vec<u8>,
    ) -> bool {
        head.clear();
        head.reserve(HEAD_BYTES);
        let mut line = |line: fmt::Arguments<'_>| {
            head.write_fmt(line)
                .and_then(|()| head.write_all(b"\r\n"))
                .expect("BUG: a Vec that cannot be written to");
        };
        let (status, reason) = (self.status, reason(self.status));
        line(format_args!("HTTP/1.1 {status} {reason}"));
        let now = date::ImfFixdate(SystemTime::now());
        line(format_args!("Date: {now}"));
        for (name, value) in &self.fields {
            line(format_args!("{name}: {value}"));
        }
        let is_stream = matches!(self.body, Body::Takeover { .. });
        let ends_by_close = is_stream && framing == Framing::Bare;
        let keep_alive = keep_alive && !ends_by_close;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        line(format_args!("Connection: {connection}"));
        match &self.body {
            Body::Takeover { .. } if ends_by_close => {}
            Body::Takeover { .. } => line(format_args!("Transfer-Encoding: chunked")),
            Body::Bytes(bytes) => {
                let seconds = idle_timeout.as_secs();
                // SPEC: RFC 2068, 19.7.1.1: the parameter of `Keep-Alive`. Clients that know it do not send a
                // request on a connection that is about to be closed. Zero would say that it is closed.
                if keep_alive && seconds > 0 {
                    line(format_args!("Keep-Alive: timeout={seconds}"));
                }
                // SPEC: RFC 9110, 8.6: no Content-Length in a 1xx or 204; in a 304 that of the 200, or none.
                if !matches!(self.status, 100..=199 | 204 | 304) {
                    line(format_args!("Content-Length: {}", bytes.len()));
                }
            }
        }
        line(format_args!(""));
        keep_alive
    }
}

impl From<&Refusal> for Response {
    fn from(refusal: &Refusal) -> Response {
        Response::error(refusal.status(), refusal)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Body::Takeover { .. } => f.write_str("a stream"),
        }
    }
}

/// The reason phrases of RFC 9110, 15. A client may not attach a meaning to them.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
