//! Every reason why bytes are not a request that can be served. Each reason knows its
//! status and its text.
//!
//! `head.rs` and `body.rs` return refusals, and `connection.rs` returns the two timeouts.
//! `Handler::refuse` turns a refusal into an answer: `{"status":"error","error":"…"}`
//! with the text below.

use std::fmt;

/// Why a request was refused before a handler was asked for its answer. The connection
/// ends after the answer, because the beginning of the next request is not known after a
/// malformed one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// 400: the first byte cannot begin a method. Usually the client speaks TLS.
    NotHttp,
    /// 400: a line ends in a bare LF, or has a bare CR or a NUL.
    LineBreak,
    /// 400: the request line is not `method SP target SP version`.
    RequestLine,
    /// 400: the target has a wrong form, a wrong percent-encoding or a forbidden path.
    /// The text says which.
    Target(String),
    /// 414: the target has more bytes than this.
    TargetTooLong(usize),
    /// 505: an HTTP version other than 1.x, which the text names.
    Version(String),
    /// 400: a header field breaks the grammar, or is there twice. The text says which
    /// field and why.
    Field(String),
    /// 431: the head has more bytes than this.
    HeadTooLarge(usize),
    /// 431: the head has more fields than this.
    TooManyFields(usize),
    /// 400: no `Host` in HTTP/1.1, or more than one; the number says how many.
    Host(usize),
    /// 400: a Content-Length that is not one number; the text is its value.
    ContentLength(String),
    /// 400: Content-Length and Transfer-Encoding together, or a Transfer-Encoding in
    /// HTTP/1.0.
    AmbiguousLength,
    /// 400: a Transfer-Encoding that does not have `chunked` once, as its last coding:
    /// the end of the body is unknown.
    ChunkedNotLast(String),
    /// 501: a Transfer-Encoding with another coding before `chunked`.
    TransferEncoding(String),
    /// 411: a POST, PUT or PATCH of HTTP/1.0 without a Content-Length.
    LengthRequired,
    /// 413: the body has more bytes than this.
    BodyTooLarge(usize),
    /// 503: the bodies of all requests together would have more bytes than this.
    BodiesTooLarge(usize),
    /// 503: the system has no memory for this many bytes of a body.
    NoMemory(usize),
    /// 400: the chunks of a body break their grammar. The text says how.
    Chunk(&'static str),
    /// 417: an `Expect` other than `100-continue`; the text is its value.
    Expectation(String),
    /// 408: the head was not complete within `head_timeout` after its first byte.
    HeadTimeout,
    /// 408: the body was not complete within `body_timeout` after the head.
    BodyTimeout,
}

impl Refusal {
    /// The status code of the answer to such a request.
    pub fn status(&self) -> u16 {
        use Refusal::*;
        match self {
            NotHttp | LineBreak | RequestLine | Target(_) | Field(_) | Host(_) => 400,
            ContentLength(_) | AmbiguousLength | ChunkedNotLast(_) | Chunk(_) => 400,
            HeadTimeout | BodyTimeout => 408,
            LengthRequired => 411,
            BodyTooLarge(_) => 413,
            TargetTooLong(_) => 414,
            Expectation(_) => 417,
            HeadTooLarge(_) | TooManyFields(_) => 431,
            TransferEncoding(_) => 501,
            BodiesTooLarge(_) | NoMemory(_) => 503,
            Version(_) => 505,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Refusal::*;
        match self {
            NotHttp => {
                f.write_str("not an HTTP request: this port speaks plain HTTP/1.1, without TLS")
            }
            LineBreak => f.write_str(
                "a line of the head must end in CRLF and have no CR, LF or NUL of its own",
            ),
            RequestLine => {
                f.write_str("the request line must be: method, space, target, space, HTTP/1.1")
            }
            Target(why) => write!(f, "request target: {why}"),
            TargetTooLong(limit) => write!(f, "the request target is longer than {limit} bytes"),
            Version(found) => write!(f, "{found} is not supported: use HTTP/1.1 or HTTP/1.0"),
            Field(why) => write!(f, "header field: {why}"),
            HeadTooLarge(limit) => write!(f, "the request head is larger than {limit} bytes"),
            TooManyFields(limit) => write!(f, "the request has more than {limit} header fields"),
            Host(found) => write!(
                f,
                "an HTTP/1.1 request needs exactly one Host, this one has {found}"
            ),
            ContentLength(found) => write!(
                f,
                "Content-Length is {found:?}, it must be one decimal number"
            ),
            AmbiguousLength => f.write_str(
                "Transfer-Encoding is allowed neither together with Content-Length nor in HTTP/1.0",
            ),
            ChunkedNotLast(found) => write!(
                f,
                "Transfer-Encoding is {found:?}, it must end in \"chunked\", once"
            ),
            TransferEncoding(found) => write!(
                f,
                "Transfer-Encoding is {found:?}, only \"chunked\" is understood"
            ),
            LengthRequired => {
                f.write_str("in HTTP/1.0 this request needs a Content-Length (0 for an empty body)")
            }
            BodyTooLarge(limit) => write!(f, "the body is larger than {limit} bytes"),
            BodiesTooLarge(limit) => write!(
                f,
                "the bodies of all requests together would be larger than {limit} bytes; try again later"
            ),
            NoMemory(size) => write!(
                f,
                "there is no memory for {size} bytes of a body; try again later"
            ),
            Chunk(why) => write!(f, "chunked body: {why}"),
            Expectation(found) => write!(
                f,
                "Expect is {found:?}, only \"100-continue\" is understood"
            ),
            HeadTimeout => f.write_str("the request head did not arrive in time"),
            BodyTimeout => f.write_str("the request body did not arrive in time"),
        }
    }
}

impl std::error::Error for Refusal {}
