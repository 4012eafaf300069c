//! The answer of a handler, and the bytes of its head.
//!
//! For example, `Response::text(200, "hello\n")` becomes these bytes on a connection that
//! is kept alive:
//!
//! ```text
//! HTTP/1.1 200 OK\r\n
//! Date: Tue, 01 Dec 2026 06:40:29 GMT\r\n
//! Content-Type: text/plain; charset=utf-8\r\n
//! Connection: keep-alive\r\n
//! Keep-Alive: timeout=15\r\n
//! Content-Length: 6\r\n
//! \r\n
//! hello\n
//! ```
//!
//! A handler makes a [`Response`]. `Connection::answer` decides whether the connection is
//! kept alive, writes the head with [`Response::write_head`], and then writes the body,
//! or hands the socket over to a stream.

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

/// An answer: a status, header fields, and a body or a stream.
///
/// The connection writes `Content-Length`, `Transfer-Encoding`, `Connection`,
/// `Keep-Alive` and `Date` itself. A handler must not set them.
#[derive(Debug)]
pub struct Response {
    pub(super) status: u16,
    /// The header fields that the handler has set, in order. Values have no control
    /// characters.
    pub(super) fields: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) body: Body,
    /// The connection ends after this answer, even if the client wants to keep it.
    pub(super) is_last: bool,
    /// The share of the answer budget that was reserved before the answer was made.
    /// `None`: nothing was reserved, and `Connection::within_budget` takes a share if the
    /// answer is large.
    pub(super) share: Option<Share>,
}

/// What follows the head of an answer.
pub(super) enum Body {
    /// A body of known length, which may be 0.
    Bytes(Vec<u8>),
    /// A stream.
    Takeover {
        /// The bytes after the head that are sent before anything that `run` writes.
        first: Vec<u8>,
        /// Writes the stream. It is called on the stream's own thread, and the connection
        /// ends when it returns.
        run: Box<dyn FnOnce(Takeover) + Send>,
    },
}

/// The value of a header field has a control character. The error contains the field's
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValueError(&'static str);

impl fmt::Display for FieldValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {} has a control character", self.0)
    }
}

impl std::error::Error for FieldValueError {}

/// What the function of a [`Response::takeover`] gets: the socket of the client, and the
/// bytes that must be written first. The connection ends when that function has returned
/// and this value is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Takeover {
    /// The socket: blocking, with `Config::write_timeout` as its write timeout.
    pub socket: Arc<TcpStream>,
    /// How the end of the stream is marked:
    /// [`Request::stream_framing`](super::Request::stream_framing).
    pub framing: Framing,
    /// The head of the answer, followed by the first bytes of the stream. Nothing has
    /// been written yet.
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

    /// JSON text, as `application/json`. A line break is added at its end, for terminals.
    pub fn json(status: u16, text: impl Into<String>) -> Response {
        Response::new(status).with_body("application/json", text.into() + "\n")
    }

    /// An error as JSON: `{"status":"error","error":"…"}`. All errors of this server have
    /// this form.
    pub fn error(status: u16, what: impl fmt::Display) -> Response {
        Response::json(
            status,
            format!(
                "{{\"status\":\"error\",\"error\":{}}}",
                json::quoted(&what.to_string())
            ),
        )
    }

    /// 503 with `Retry-After`: the request is right, but there is no room for it now.
    pub(crate) fn later(config: &Config, why: impl fmt::Display) -> Response {
        Response::error(503, why).with("Retry-After", config.retry_after())
    }

    /// A stream that begins with the bytes `first`. `run` is called with the socket on a
    /// new thread, and the connection ends when `run` returns. `run` is not called for a
    /// HEAD request.
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

    /// Uses the bytes that [`Request::reserve_answer`](super::Request::reserve_answer)
    /// has reserved for this answer, so that it is not replaced by a 503 when the answer
    /// budget has no room.
    pub(crate) fn reserved(mut self, share: Share) -> Response {
        self.share = Some(share);
        self
    }

    /// Makes this the last answer of its connection, which is closed afterwards.
    pub fn and_close(mut self) -> Response {
        self.is_last = true;
        self
    }

    /// Adds a header field. A second `Vary` is merged into the first one.
    ///
    /// A value with a control character is never sent, because a line break in it would
    /// let a peer add fields, or a whole answer. Instead the response becomes a 500 that
    /// names the field. For values that come from outside of the program, use
    /// [`try_with`](Self::try_with).
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

    /// [`with`](Self::with) for a value that may have control characters.
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

    /// Whether the handler has set a header field with this name.
    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.fields
            .iter()
            .any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body. It is empty for a stream.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Bytes(bytes) => bytes,
            Body::Takeover { .. } => b"",
        }
    }

    /// The bytes of the whole answer, as the last one of its connection. With `head_only`
    /// the body is left out.
    pub(super) fn last_bytes(&self, head_only: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_head(false, Framing::Bare, Duration::ZERO, &mut bytes);
        if !head_only {
            bytes.extend_from_slice(self.body());
        }
        bytes
    }

    /// Writes the bytes of the head into `head`, whose old content is discarded.
    /// `keep_alive` says whether the connection may be kept alive; then it is closed
    /// after `idle_timeout` without a request. `framing` is for a stream.
    ///
    /// Returns whether the connection is kept alive. It is not for a stream without
    /// chunks (HTTP/1.0), whose end is the end of the connection.
    pub(super) fn write_head(
        &self,
        keep_alive: bool,
        framing: Framing,
        idle_timeout: Duration,
        head: &mut Vec<u8>,
    ) -> bool {
        head.clear();
        // Most heads fit, so that the buffer is allocated once and grows for no answer.
        // `HEAD_BYTES` has the size's reason.
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
                // SPEC: RFC 2068, 19.7.1.1: the parameter of `Keep-Alive`. A client that
                // knows it does not send a request on a connection that is about to be
                // closed. A 0 would mean that it is closed at once.
                if keep_alive && seconds > 0 {
                    line(format_args!("Keep-Alive: timeout={seconds}"));
                }
                // SPEC: RFC 9110, 8.6: a 1xx or 204 has no Content-Length; a 304 has that
                // of the 200, or none.
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

/// The reason phrases of RFC 9110, 15, for people. Clients ignore them. An unknown status
/// has an empty one.
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
