//! Turns the bytes of a request's head into a [`RequestHead`], in whatever pieces the
//! bytes arrive. It uses no socket and no clock: `Connection::parse_head` reads the bytes
//! and calls [`HeadParser::parse`] after each read.
//!
//! For example, these 61 bytes are a complete head, and the body of two bytes follows:
//!
//! ```text
//! POST /events?event=a HTTP/1.1\r\n      request line: method, target, version
//! Host: a\r\n                            a field line
//! Content-Length: 2\r\n                  another one
//! \r\n                                   the empty line ends the head
//! ```
//!
//! Three rules shape the code:
//!
//! - The parser is strict wherever two lenient parsers could see different requests in
//!   the same bytes: at line ends, lengths, `Host`, and white space around names. Such
//!   differences between a proxy and a server are how one request is smuggled inside
//!   another.
//! - Each line is parsed once, when it is complete. So a head that arrives byte by byte
//!   costs no more than a head that arrives whole.
//! - A limit is checked before the line that breaks it is parsed. So the answer does not
//!   depend on the pieces in which the bytes arrive.

use std::fmt;
use std::ops::Range;

use super::Refusal;
use super::target::{self, Host, Query};
use crate::config::Config;
use crate::wire::Framing;

/// What [`HeadParser::parse`] found.
#[derive(Debug)]
pub enum Head {
    /// The head is complete. The bytes after it are the body or the next request.
    Complete {
        /// What the head says.
        request: RequestHead,
        /// The length of the head in bytes, with the empty line at its end.
        len: usize,
    },
    /// The head is not complete, and nothing is wrong so far.
    Partial,
}

/// The versions of HTTP that are supported. A later 1.x counts as 1.1 (RFC 9110, 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0. It has no chunks, and a connection ends after each answer unless the
    /// client asks to keep it alive.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// How the end of a stream is marked. HTTP/1.0 has no chunks, so there the stream
    /// ends with the connection.
    pub(super) fn stream_framing(self) -> Framing {
        match self {
            Version::Http10 => Framing::Bare,
            Version::Http11 => Framing::Chunked,
        }
    }
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// By a Content-Length, which may be more than [`Config::max_body`].
    Known(usize),
    /// By the chunks of `Transfer-Encoding: chunked`.
    Chunked,
}

/// The head of a request: one copy of its bytes, ranges in that copy, and everything that
/// is decoded from it.
///
/// `Debug` shows neither the query nor the fields, because both may contain secrets, and
/// its output ends up in logs.
pub struct RequestHead {
    /// The head as it arrived. LIMIT: `max_head` bytes.
    pub(super) bytes: Box<[u8]>,
    /// The range of the method in `bytes`.
    method: Range<usize>,
    version: Version,
    /// The header fields, in order. LIMIT: `max_fields`.
    pub(super) fields: Vec<Field>,
    /// The host in the target, with its port, if the target is a whole URL.
    host: Option<String>,
    /// The path in the target, percent-decoded. LIMIT: `max_target`, for path and query
    /// together.
    pub(super) path: String,
    /// The parameters in the target, decoded.
    pub(super) query: Query,
    /// Whether a body follows, and how its end is found.
    pub(super) body: BodyLength,
    /// The client waits for a `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// The client wants to keep the connection for another request.
    pub(super) keep_alive: bool,
}

/// A header field, as two ranges in [`RequestHead::bytes`]. The value has no white space
/// around it.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

impl RequestHead {
    /// The method, unchanged: methods are case-sensitive.
    pub fn method(&self) -> &str {
        // The parser accepts only ASCII characters in a method.
        std::str::from_utf8(&self.bytes[self.method.clone()])
            .expect("BUG: a method that is not ASCII")
    }

    /// The version of the request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The host that the request is for, with its port: from the target if the target has
    /// one, otherwise from the field `Host`.
    ///
    /// SPEC: RFC 9112, 3.2.2: if the target has a host, the field `Host` must be ignored.
    pub fn host(&self) -> Option<&str> {
        let field = self.fields("host").next().map(std::str::from_utf8);
        let field = field.map(|host| host.expect("BUG: a Host that is not ASCII"));
        self.host.as_deref().or(field)
    }

    /// The values of all fields with this name, in order. Upper and lower case are the
    /// same in names.
    pub fn fields<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let named = move |field: &&Field| {
            self.bytes[field.name.clone()].eq_ignore_ascii_case(name.as_bytes())
        };
        self.fields
            .iter()
            .filter(named)
            .map(|field| &self.bytes[field.value.clone()])
    }

    /// The members of a comma-separated list, which may be spread over several fields
    /// with the same name.
    fn list<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim_ows)
    }

    /// Whether such a list has the member `token`, in upper or lower case.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name)
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("path", &self.path)
            .field("version", &self.version)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// A head that is being received. Each time more bytes have arrived, call
/// [`parse`](Self::parse) with all bytes from the beginning of the head.
///
/// ```
/// # fn main() -> Result<(), tiny_sse::http::Refusal> {
/// use tiny_sse::{Config, http::{Head, HeadParser}};
/// let (mut parser, config) = (HeadParser::default(), Config::default());
/// let bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// assert!(matches!(parser.parse(&bytes[..20], &config)?, Head::Partial));
/// assert!(matches!(parser.parse(bytes, &config)?, Head::Complete { len: 35, .. }));
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct HeadParser {
    /// The offset at which the line that is not complete begins.
    line: usize,
    /// The offset up to which the end of that line has been searched. The next search
    /// begins there.
    scanned: usize,
    /// The request line, once it is complete.
    request_line: Option<RequestLine>,
    /// The fields whose lines are complete.
    fields: Vec<Field>,
}

/// The request line: ranges in the head, and the version.
#[derive(Clone, Debug)]
struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    version: Version,
}

impl HeadParser {
    /// Parses the lines that have become complete since the last call. `bytes` are the
    /// bytes of the last call, followed by those that have arrived since. Does not block.
    ///
    /// # Errors
    ///
    /// The bytes cannot be the beginning of a request that is served, whatever follows.
    /// The parser must not be used again.
    ///
    /// # Panics
    ///
    /// If `bytes` is shorter than in the call before.
    pub fn parse(&mut self, bytes: &[u8], limits: &Config) -> Result<Head, Refusal> {
        while let Some(length) = bytes[self.scanned..].iter().position(|&byte| byte == b'\n') {
            let end = self.scanned + length;
            self.check_first_byte(bytes, limits)?;
            self.check_limits(end + 1, limits)?;
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(Refusal::LineBreak);
            }
            let line = self.line..end - 1;
            (self.line, self.scanned) = (end + 1, end + 1);
            match (&self.request_line, line.is_empty()) {
                // SPEC: RFC 9112, 2.2: empty lines before the request line are skipped.
                (None, true) => {}
                (None, false) => self.request_line = Some(request_line(bytes, line, limits)?),
                (Some(_), false) if self.fields.len() == limits.max_fields => {
                    return Err(Refusal::TooManyFields(limits.max_fields));
                }
                (Some(_), false) => {
                    let number = self.fields.len() + 1;
                    let field = field(bytes, line, format_args!("number {number}"))?;
                    if self.fields.is_empty() {
                        // Most requests have at most 8 fields, so the list is allocated
                        // once.
                        self.fields.reserve(8);
                    }
                    self.fields.push(field);
                }
                (Some(start), true) => {
                    let (start, fields) = (start.clone(), std::mem::take(&mut self.fields));
                    let request = head(&bytes[..self.line], start, fields)?;
                    return Ok(Head::Complete {
                        request,
                        len: self.line,
                    });
                }
            }
        }
        self.scanned = bytes.len();
        self.check_first_byte(bytes, limits)?;
        self.check_limits(bytes.len(), limits)?;
        Ok(Head::Partial)
    }

    /// Refuses a head whose first `end` bytes already break a limit.
    ///
    /// LIMIT: the length of the head and, in it, of the request line. The limit that is
    /// broken by the earlier byte decides the answer.
    fn check_limits(&self, end: usize, limits: &Config) -> Result<(), Refusal> {
        // The line is "method SP target SP HTTP/1.1 CRLF". 64 bytes leave room for a
        // method of 52 bytes.
        let longest_line = self
            .line
            .saturating_add(limits.max_target)
            .saturating_add(64);
        let in_request_line = self.request_line.is_none();
        if in_request_line && longest_line < limits.max_head && end > longest_line {
            return Err(Refusal::TargetTooLong(limits.max_target));
        }
        if end > limits.max_head {
            return Err(Refusal::HeadTooLarge(limits.max_head));
        }
        Ok(())
    }

    /// Refuses a request line that begins with a wrong byte before the line is complete.
    /// So a client that speaks TLS gets its answer at once. Otherwise it would wait for
    /// `head_timeout`, because its bytes may never contain a line end.
    fn check_first_byte(&self, bytes: &[u8], limits: &Config) -> Result<(), Refusal> {
        match (&self.request_line, bytes.get(self.line)) {
            // ORDER: a byte that breaks the limit of the head is refused for that reason
            // first.
            (None, Some(_)) if self.line >= limits.max_head => {
                self.check_limits(self.line + 1, limits)
            }
            (None, Some(b'\n')) => Err(Refusal::LineBreak),
            (None, Some(b' ')) => Err(Refusal::RequestLine),
            (None, Some(&first)) if first != b'\r' && !is_tchar(first) => Err(Refusal::NotHttp),
            _ => Ok(()),
        }
    }
}

/// Parses the request line in the range `line`. The target is only measured here;
/// `target.rs` parses it.
///
/// SPEC: RFC 9112, 3: `request-line = method SP request-target SP HTTP-version`
fn request_line(bytes: &[u8], line: Range<usize>, limits: &Config) -> Result<RequestLine, Refusal> {
    if !is_tchar(bytes[line.start]) {
        return Err(Refusal::NotHttp);
    }
    let mut spaces = line.clone().filter(|&at| bytes[at] == b' ');
    let (Some(first), Some(second), None) = (spaces.next(), spaces.next(), spaces.next()) else {
        return Err(Refusal::RequestLine);
    };
    let (method, target) = (line.start..first, first + 1..second);
    if !bytes[method.clone()].iter().all(|&byte| is_tchar(byte)) || target.is_empty() {
        return Err(Refusal::RequestLine);
    }
    if target.len() > limits.max_target {
        return Err(Refusal::TargetTooLong(limits.max_target));
    }
    Ok(RequestLine {
        method,
        target,
        version: version(&bytes[second + 1..line.end])?,
    })
}

/// SPEC: RFC 9112, 2.3: `HTTP-version = "HTTP" "/" DIGIT "." DIGIT`, case-sensitive
fn version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Refusal::Version(String::from_utf8_lossy(text).into_owned()))
        }
        _ => Err(Refusal::RequestLine),
    }
}

/// Parses the field line in the range `line`.
///
/// SPEC: RFC 9112, 5: `field-line = field-name ":" OWS field-value OWS`. White space
/// before the colon is refused, because it is not allowed in a name. So is a line that
/// continues the line before (obs-fold), because it begins with white space.
///
/// A refusal contains `which`, the position of the line, or the name of the field, and
/// nothing else from the line. Refusals are logged, and even a malformed line may contain
/// a secret.
fn field(bytes: &[u8], line: Range<usize>, which: fmt::Arguments<'_>) -> Result<Field, Refusal> {
    let text = &bytes[line.clone()];
    let Some(colon) = text.iter().position(|&byte| byte == b':') else {
        return Err(Refusal::Field(format!("{which} has no colon")));
    };
    if colon == 0 || !text[..colon].iter().all(|&byte| is_tchar(byte)) {
        return Err(Refusal::Field(format!(
            "{which} does not begin with a name and a colon"
        )));
    }
    let value = trim_ows(&text[colon + 1..]);
    // SPEC: RFC 9110, 5.5: control characters other than CR, LF and NUL may be kept where
    // they are safe. They are safe in a cursor, which is only compared. A browser sends
    // whatever id it got, also from another server on the same address, and after a 400
    // it does not reconnect.
    let is_cursor = text[..colon].eq_ignore_ascii_case(b"last-event-id");
    let is_allowed = |byte: u8| is_field_byte(byte) || is_cursor && !matches!(byte, b'\r' | 0);
    if !value.iter().all(|&byte| is_allowed(byte)) {
        return Err(Refusal::Field(format!(
            "a control character in the value of {}",
            shown([&text[..colon]])
        )));
    }
    let offset = value.as_ptr() as usize - bytes.as_ptr() as usize;
    Ok(Field {
        name: line.start..line.start + colon,
        value: offset..offset + value.len(),
    })
}

/// Values that a peer sent, as text for a refusal. LIMIT: 64 characters, so that a
/// refusal fits on a line of the log.
fn shown<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> String {
    let values: Vec<_> = values.into_iter().map(String::from_utf8_lossy).collect();
    values.join(", ").chars().take(64).collect()
}

/// `text` without the white space around it.
///
/// SPEC: RFC 9110, 5.6.3: `OWS = *( SP / HTAB )`. std's `trim_ascii` would also remove a
/// bare CR, which must be refused.
pub(super) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Checks a field line in the trailer of a chunked body. The trailer is not kept.
pub(super) fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    field(line, 0..line.len(), format_args!("one after the chunks")).map(|_| ())
}

/// Whether a byte may be part of a token, such as a method or the name of a field.
///
/// SPEC: RFC 9110, 5.6.2: `token = 1*tchar`, `tchar = "!" / "#" / "$" / "%" / "&" / "'" /
/// "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA`
pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may be part of the value of a field.
///
/// SPEC: RFC 9110, 5.5: `field-vchar = VCHAR / obs-text`, with SP and HTAB between them
pub(super) fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Makes a [`RequestHead`] of a complete head: parses the target, and checks what the
/// fields say together.
fn head(bytes: &[u8], start: RequestLine, fields: Vec<Field>) -> Result<RequestHead, Refusal> {
    // SPEC: RFC 9112, 3.2.3: the target of CONNECT has the authority form, which is only
    // for proxies. It is refused here, because a handler that ignores methods would
    // answer 200. After a 200 to CONNECT, a proxy in front of this server would treat the
    // connection as a tunnel (RFC 9110, 9.3.6).
    if &bytes[start.method.clone()] == b"CONNECT" {
        return Err(Refusal::Target("CONNECT is for proxies".into()));
    }
    let target = target::parse(&bytes[start.target.clone()])?;
    let mut head = RequestHead {
        bytes: bytes.into(),
        method: start.method,
        version: start.version,
        fields,
        host: target.host,
        path: target.path,
        query: target.query,
        body: BodyLength::None,
        expects_continue: false,
        keep_alive: false,
    };
    let hosts = head.fields("host").count();
    if !head
        .fields("host")
        .all(|host| target::is_authority(host, Host::MayBeEmpty))
    {
        // The value is left out of the text, because it may contain a password before an
        // @.
        return Err(Refusal::Field(
            "Host must be a name and may have a port".into(),
        ));
    }
    // SPEC: RFC 9112, 3.2: a request of HTTP/1.1 without Host, and any request with two,
    // is answered 400.
    if hosts > 1 || (hosts == 0 && head.version == Version::Http11) {
        return Err(Refusal::Host(hosts));
    }
    head.body = body_length(&head)?;
    head.expects_continue = expects_continue(&head)?;
    head.keep_alive = match head.version {
        Version::Http11 => !head.has_token("connection", "close"),
        Version::Http10 => {
            head.has_token("connection", "keep-alive") && !head.has_token("connection", "close")
        }
    };
    Ok(head)
}

/// Decides whether a body follows, and how its end is found.
///
/// SPEC: RFC 9112, 6.3. Two lengths, or a length that two parsers could understand
/// differently, are how one request is smuggled inside another, so everything ambiguous
/// is refused.
fn body_length(head: &RequestHead) -> Result<BodyLength, Refusal> {
    let mut lengths = head.list("content-length");
    if head.fields("transfer-encoding").next().is_some() {
        if lengths.next().is_some() || head.version == Version::Http10 {
            return Err(Refusal::AmbiguousLength);
        }
        return chunked(head);
    }
    // A request of HTTP/1.1 without either field has no body, whatever its method
    // (`curl -X POST`). SPEC: RFC 1945, 8.3: in HTTP/1.0 these three methods must have a
    // length. Some old clients end a body by closing the connection, and such a body
    // would be parsed as the next request.
    let Some(first) = lengths.next() else {
        let is_old = head.version == Version::Http10;
        return match head.method() {
            "POST" | "PUT" | "PATCH" if is_old => Err(Refusal::LengthRequired),
            _ => Ok(BodyLength::None),
        };
    };
    let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    if !digits || lengths.any(|other| other != first) {
        let found = shown(head.fields("content-length"));
        return Err(Refusal::ContentLength(found));
    }
    // A number that is too large for a `usize` becomes the largest one.
    // `Connection::receive_body` refuses it.
    let length = first.iter().fold(0usize, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(usize::from(digit - b'0'))
    });
    Ok(BodyLength::Known(length))
}

/// Checks the codings of a Transfer-Encoding. Only `chunked` alone is accepted.
///
/// SPEC: RFC 9112, 6.3: if `chunked` is not the last coding, the end of the body is
/// unknown, which is answered 400; 6.1: `chunked` must not be applied twice, and a coding
/// before it that is not understood is answered 501. Empty members of the list are
/// ambiguous, too: some parsers skip them, others take them for an unknown coding. They
/// are answered 400.
fn chunked(head: &RequestHead) -> Result<BodyLength, Refusal> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<_> = head.list("transfer-encoding").collect();
    let found = || shown(head.fields("transfer-encoding"));
    match codings.split_last() {
        Some((last, [])) if is_chunked(last) => Ok(BodyLength::Chunked),
        Some((last, before))
            if is_chunked(last) && !before.iter().any(|one| one.is_empty() || is_chunked(one)) =>
        {
            Err(Refusal::TransferEncoding(found()))
        }
        _ => Err(Refusal::ChunkedNotLast(found())),
    }
}

/// Whether the client expects a `100 Continue`.
///
/// SPEC: RFC 9110, 10.1.1: any other expectation is answered 417, and in HTTP/1.0 the
/// field is ignored; 5.6.1: empty members of a list do not count.
fn expects_continue(head: &RequestHead) -> Result<bool, Refusal> {
    let mut expectations = head
        .list("expect")
        .filter(|member| head.version == Version::Http11 && !member.is_empty())
        .peekable();
    let expected = expectations.peek().is_some();
    match expectations.find(|expectation| !expectation.eq_ignore_ascii_case(b"100-continue")) {
        Some(other) => Err(Refusal::Expectation(shown([other]))),
        None => Ok(expected),
    }
}
