//! Turns the bytes of a request's head into a [`RequestHead`], however they are cut on the way.
//!
//! Strict where leniency means that two readers of the same bytes see different requests: line
//! ends, lengths, `Host`, white space around names. Each line is read once, when it is complete,
//! so that a head that dribbles in costs no more than one that comes whole, and a limit is
//! checked before the line that breaks it is looked at, so that both get the same answer.

use std::fmt;
use std::ops::Range;

use super::Refusal;
use super::target::{self, Host, Query};
use crate::config::Config;
use crate::wire::Framing;

/// What [`HeadParser::parse`] found.
#[derive(Debug)]
pub enum Head {
    /// The head ended after `len` bytes; what follows is the body or the next request.
    Complete {
        /// The request as its head has it.
        request: RequestHead,
        /// How many of the bytes were the head.
        len: usize,
    },
    /// Nothing wrong so far, but the end has not come.
    Partial,
}

/// The versions of HTTP that are spoken here. A later 1.x counts as 1.1 (RFC 9110, 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, and a connection that closes unless asked to stay.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// HTTP/1.0 does not know chunks: there the end of a stream is the end of the connection.
    pub(super) fn stream_framing(self) -> Framing {
        match self {
            Version::Http10 => Framing::Bare,
            Version::Http11 => Framing::Chunked,
        }
    }
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// Content-Length, which may be more than [`Config::max_body`].
    Known(usize),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// The head of a request, in one copy of its bytes and places in it.
///
/// `Debug` shows neither the query nor the fields: secrets may be in them, and it ends in logs.
pub struct RequestHead {
    pub(super) bytes: Box<[u8]>,
    method: Range<usize>,
    version: Version,
    pub(super) fields: Vec<Field>,
    /// Of an absolute form.
    host: Option<String>,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) body: BodyLength,
    pub(super) expects_continue: bool,
    pub(super) keep_alive: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

impl RequestHead {
    /// The method, as it came: methods are case-sensitive.
    pub fn method(&self) -> &str {
        // The grammar let only ASCII through.
        std::str::from_utf8(&self.bytes[self.method.clone()])
            .expect("BUG: a method that is not ASCII")
    }

    /// The version of the request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The host that is asked for, as the target has it or else `Host`.
    ///
    /// SPEC: RFC 9112, 3.2.2: where the target has one, `Host` must be ignored.
    pub fn host(&self) -> Option<&str> {
        let field = self.fields("host").next().map(std::str::from_utf8);
        let field = field.map(|host| host.expect("BUG: a Host that is not ASCII"));
        self.host.as_deref().or(field)
    }

    /// The values of all fields of that name, in order, whatever the case of its letters.
    pub fn fields<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let named = move |field: &&Field| {
            self.bytes[field.name.clone()].eq_ignore_ascii_case(name.as_bytes())
        };
        self.fields
            .iter()
            .filter(named)
            .map(|field| &self.bytes[field.value.clone()])
    }

    /// The members of a comma-separated list that may be spread over several fields.
    fn list<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim_ows)
    }

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

/// A head being read. Give it the bytes from the head's beginning each time more have come.
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
    /// Where the line that has not ended begins.
    line: usize,
    /// Up to where its end has been looked for.
    scanned: usize,
    request_line: Option<RequestLine>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    version: Version,
}

impl HeadParser {
    /// Reads on in `bytes`, which must begin as in the call before.
    ///
    /// # Errors
    ///
    /// What has come cannot be the beginning of a request that is served.
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
                // SPEC: RFC 9112, 2.2: empty lines before the request line are passed over.
                (None, true) => {}
                (None, false) => self.request_line = Some(request_line(bytes, line, limits)?),
                (Some(_), false) if self.fields.len() == limits.max_fields => {
                    return Err(Refusal::TooManyFields(limits.max_fields));
                }
                (Some(_), false) => {
                    let number = self.fields.len() + 1;
                    let field = field(bytes, line, format_args!("number {number}"))?;
                    if self.fields.is_empty() {
                        // Most requests have fewer, so the list is allocated once.
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

    /// LIMIT: the head, and in it the request line; whichever is broken by the earlier byte.
    fn check_limits(&self, end: usize, limits: &Config) -> Result<(), Refusal> {
        // "method SP target SP HTTP/1.1 CRLF", with room for a long method.
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

    /// A client that speaks TLS, say, is told so at once and not when its time is up.
    fn check_first_byte(&self, bytes: &[u8], limits: &Config) -> Result<(), Refusal> {
        match (&self.request_line, bytes.get(self.line)) {
            // ORDER: the limit of the head comes first for a byte that breaks it.
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

/// SPEC: RFC 9112, 5: `field-line = field-name ":" OWS field-value OWS`. White space before the
/// colon, and a line that continues the one before it (obs-fold), fail as names.
///
/// A refusal says `which` line it was, or the field's name, and repeats nothing else: what stands in
/// the wrong place may be a secret all the same, and refusals are logged.
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
    // SPEC: RFC 9110, 5.5: other control characters than CR, LF and NUL may be kept where they are safe.
    // They are in a cursor, which is only compared. A browser sends back whatever id it was given, by
    // whichever server, and does not come back after a 400.
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

/// What of a peer's bytes stands in a refusal. LIMIT: a line of a log, not the whole head.
fn shown<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> String {
    let values: Vec<_> = values.into_iter().map(String::from_utf8_lossy).collect();
    values.join(", ").chars().take(64).collect()
}

/// SPEC: RFC 9110, 5.6.3: `OWS = *( SP / HTAB )`. std's `trim_ascii` would also take a bare CR away,
/// and with it the evidence.
pub(super) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Checks a field line of a chunked body's trailer, which is thrown away.
pub(super) fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    field(line, 0..line.len(), format_args!("one behind the chunks")).map(|_| ())
}

/// SPEC: RFC 9110, 5.6.2: `token = 1*tchar`, `tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+"
/// / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA`
pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// SPEC: RFC 9110, 5.5: `field-vchar = VCHAR / obs-text`, and SP and HTAB between them
pub(super) fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// What the fields say together, once all are there.
fn head(bytes: &[u8], start: RequestLine, fields: Vec<Field>) -> Result<RequestHead, Refusal> {
    // SPEC: RFC 9112, 3.2.3: CONNECT has the authority form, and that is for proxies. A handler that
    // looks at no method would answer 200, which ends HTTP for a proxy that is there (RFC 9110, 9.3.6).
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
        // Not shown: what makes it wrong may be a password before an @.
        return Err(Refusal::Field(
            "Host must be a name and may have a port".into(),
        ));
    }
    // SPEC: RFC 9112, 3.2: a 1.1 request without Host, and any with two, is a 400.
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

/// SPEC: RFC 9112, 6.3. Two lengths, or a length that two readers could read differently, are how
/// one request is hidden in another, so every doubt is a refusal.
fn body_length(head: &RequestHead) -> Result<BodyLength, Refusal> {
    let mut lengths = head.list("content-length");
    if head.fields("transfer-encoding").next().is_some() {
        if lengths.next().is_some() || head.version == Version::Http10 {
            return Err(Refusal::AmbiguousLength);
        }
        return chunked(head);
    }
    // A request without either field has no body, whatever its method (`curl -X POST`). SPEC: RFC 1945,
    // 8.3: but in HTTP/1.0 these must have a length. There clients ended a body by the connection, which
    // would be read as the next request.
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
    // Whether it is too much is for whoever reads the body to say. What is no number to us is.
    let length = first.iter().fold(0usize, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(usize::from(digit - b'0'))
    });
    Ok(BodyLength::Known(length))
}

/// SPEC: RFC 9112, 6.3: if `chunked` is not the last coding nobody knows where the body ends, which
/// is a 400; 6.1: nor is it applied twice, and a coding before it that is not understood is a 501.
/// Empty members of the list are doubts, too: some readers skip them, others know no such coding.
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

/// SPEC: RFC 9110, 10.1.1: any other expectation is a 417, and in HTTP/1.0 it is not looked at;
/// 5.6.1: empty members of a list are none.
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
