//! The life of one connection: a request, its answer, the next request, until one side has had
//! enough or an answer takes the socket over.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::BodyDecoder;
use super::head::{Head, HeadParser, RequestHead};
use super::response::{Body, Frame, Length};
use super::{BodyLength, Handler, Refusal, Request, Response, Takeover, Version};
use crate::config::{Config, READ_BYTES};
use crate::socket::{close_gently, is_timeout, write_within};
use crate::wire::Framing;

/// What the server tells a connection about its place among the others.
pub(super) trait Door {
    /// The connection is about to wait for a request. False: don't, the server is closing.
    fn may_wait(&self) -> bool;
    /// A request has begun to arrive: let it finish.
    fn is_busy(&self);
    /// Whether the server is closing, so that no answer promises another.
    fn is_closing(&self) -> bool;
}

/// A connection between two requests.
pub(super) struct Connection<'a, D> {
    pub(super) socket: &'a Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) config: &'a Config,
    pub(super) door: &'a D,
    /// What has arrived and is not used up: a beginning, or requests that came ahead of time.
    buffer: Vec<u8>,
    /// A request has ended, and the empty line that may be behind it has not come.
    may_skip_line: bool,
    /// The read timeout that the socket has, so that it is set only when it changes.
    timeout: Option<Duration>,
}

/// A stream that is to begin where the connection ended.
pub(super) type Stream = (Box<dyn FnOnce(Takeover) + Send>, Takeover);

/// What follows an answer.
enum Next {
    Request,
    End,
    Stream(Stream),
}

/// Why no request came.
enum NoRequest {
    /// The peer has closed, gone silent, or is unreachable: nothing to say to it.
    Over,
    /// What it sent has this answer, which ends the connection.
    Answered(Response, Asked),
}

/// Why a head or a body did not come.
enum Unread {
    /// The peer has closed, gone silent, or is unreachable.
    Over,
    /// It is wrong.
    Refused(Refusal),
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Unread {
        Unread::Refused(refusal)
    }
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Unread {
        Unread::Over
    }
}

impl<'a, D: Door> Connection<'a, D> {
    pub(super) fn new(
        socket: &'a Arc<TcpStream>,
        peer: SocketAddr,
        config: &'a Config,
        door: &'a D,
    ) -> Self {
        Connection {
            socket,
            peer,
            config,
            door,
            buffer: Vec::new(),
            may_skip_line: false,
            timeout: None,
        }
    }

    /// Answers requests with `handler` until the connection ends, or a stream takes its place.
    pub(super) fn serve(mut self, handler: &dyn Handler) -> Option<Stream> {
        let mut silence = self.config.head_timeout;
        while self.door.may_wait() {
            let request = match self.next_request(silence, handler) {
                Ok(request) => request,
                Err(NoRequest::Over) => return None,
                Err(NoRequest::Answered(response, asked)) => {
                    self.answer(response, asked).ok()?;
                    close_gently(self.socket);
                    return None;
                }
            };
            let asked = Asked::by(&request.head);
            let what = what(&request);
            let response = self
                .guarded(&what, || handler.answer(request))
                .unwrap_or_else(Response::and_close);
            let keep_alive = asked.keep_alive && !response.is_last && !self.door.is_closing();
            // An answer that cannot be written has no reader: the connection is over.
            match self
                .answer(
                    response,
                    Asked {
                        keep_alive,
                        ..asked
                    },
                )
                .ok()?
            {
                Next::Request => {}
                Next::End => {
                    close_gently(self.socket);
                    return None;
                }
                Next::Stream(stream) => return Some(stream),
            }
            silence = self.config.idle_timeout;
            self.may_skip_line = true;
        }
        None
    }

    /// Reads a whole request. `silence` is how long its first byte may take.
    fn next_request(
        &mut self,
        silence: Duration,
        handler: &dyn Handler,
    ) -> Result<Request, NoRequest> {
        let start = Instant::now();
        while !self.has_begun() {
            let left = silence.saturating_sub(start.elapsed());
            if left.is_zero() || !matches!(self.read(left), Ok(1..)) {
                return Err(NoRequest::Over);
            }
        }
        self.door.is_busy();
        let head = self
            .head()
            .map_err(|unread| self.refuse(unread, handler, None))?;
        let mut request = Request {
            head,
            body: Vec::new(),
            peer: self.peer,
            socket: Arc::downgrade(self.socket),
        };
        if matches!(request.head.body, BodyLength::Known(length) if length > self.config.max_body) {
            // The head is one, and so whoever answers for it may know who asks.
            let refusal = Refusal::BodyTooLarge(self.config.max_body);
            return Err(self.refuse(refusal.into(), handler, Some(&request)));
        }
        if !matches!(request.head.body, BodyLength::None | BodyLength::Known(0)) {
            self.admit(&request, handler)?;
            request.body = self
                .body(&request.head)
                .map_err(|unread| self.refuse(unread, handler, Some(&request)))?;
        }
        Ok(request)
    }

    /// Asks the handler whether the body is wanted.
    fn admit(&self, request: &Request, handler: &dyn Handler) -> Result<(), NoRequest> {
        let admitted = self.guarded(&what(request), || handler.admit(request));
        admitted
            .and_then(|admitted| admitted)
            .map_err(|response| NoRequest::Answered(response, Asked::last(Some(request))))
    }

    /// The answer of the handler to what was no request.
    fn refuse(
        &self,
        unread: Unread,
        handler: &dyn Handler,
        request: Option<&Request>,
    ) -> NoRequest {
        let refusal = match unread {
            Unread::Over => return NoRequest::Over,
            Unread::Refused(refusal) => refusal,
        };
        let (peer, status) = (self.peer, refusal.status());
        self.config
            .report
            .debug(format_args!("{peer}: {status} {refusal}"));
        let response = self
            .guarded("a refusal", || handler.refuse(&refusal, request))
            .unwrap_or_else(|failed| failed);
        NoRequest::Answered(response, Asked::last(request))
    }

    /// Calls the handler. A panic in it is this request's misfortune and nobody else's: what it may
    /// have left half done is its own, the connection's state is not among it.
    fn guarded<T>(&self, what: &str, call: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let report = &self.config.report;
            report.error(format_args!(
                "the handler of {what:?} panicked; answered 500"
            ));
            Response::error(500, "the handler of this request failed")
        })
    }

    /// Whether something of a request has arrived. One empty line behind a request is not: old
    /// clients end the body of a POST with it (RFC 9112, 2.2).
    fn has_begun(&mut self) -> bool {
        if self.may_skip_line && self.buffer.starts_with(b"\r\n") {
            self.buffer.drain(..2);
            self.may_skip_line = false;
        }
        match &*self.buffer {
            [] => false,
            [b'\r'] => !self.may_skip_line,
            _ => true,
        }
    }

    fn head(&mut self) -> Result<RequestHead, Unread> {
        let (mut parser, start) = (HeadParser::default(), Instant::now());
        loop {
            if let Head::Complete { request, len } = parser.parse(&self.buffer, self.config)? {
                self.buffer.drain(..len);
                return Ok(request);
            }
            self.read_by(start, self.config.head_timeout, Refusal::HeadTimeout)?;
        }
    }

    fn body(&mut self, head: &RequestHead) -> Result<Vec<u8>, Unread> {
        let (mut decoder, start) = (BodyDecoder::new(head.body), Instant::now());
        // SPEC: RFC 9110, 10.1.1: not to be sent if the body is already on its way.
        if head.expects_continue && self.buffer.is_empty() && !decoder.is_done() {
            write_within(
                self.socket,
                b"HTTP/1.1 100 Continue\r\n\r\n",
                self.config.write_timeout,
            )?;
        }
        loop {
            let used = decoder.decode(&self.buffer, self.config)?;
            self.buffer.drain(..used);
            if decoder.is_done() {
                return Ok(decoder.into_body());
            }
            self.read_by(start, self.config.body_timeout, Refusal::BodyTimeout)?;
        }
    }

    /// Reads more of what began at `start` and must end within `limit`. LIMIT: of the whole, so
    /// that a byte now and then does not extend it.
    fn read_by(&mut self, start: Instant, limit: Duration, late: Refusal) -> Result<(), Unread> {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(late.into());
        }
        match self.read(left) {
            Ok(0) => Err(Unread::Over),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Err(late.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends what has arrived to the buffer, after waiting for it up to `timeout`. 0: the peer has closed.
    fn read(&mut self, timeout: Duration) -> io::Result<usize> {
        if self.timeout != Some(timeout) {
            self.socket.set_read_timeout(Some(timeout))?;
            self.timeout = Some(timeout);
        }
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let outcome = loop {
            match (&**self.socket).read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.buffer
            .truncate(length + outcome.as_ref().unwrap_or(&0));
        outcome
    }

    /// Writes the answer, or gives back the stream that it is.
    fn answer(&self, response: Response, asked: Asked) -> io::Result<Next> {
        let framing = asked.version.stream_framing();
        let (length, keep_alive) = match (&response.body, framing) {
            (Body::Bytes(bytes), _) => (Length::Known(bytes.len()), asked.keep_alive),
            (Body::Takeover { .. }, Framing::Chunked) => {
                (Length::Chunks, asked.keep_alive || !asked.head_only)
            }
            (Body::Takeover { .. }, Framing::Bare) => (Length::UntilClose, false),
        };
        let mut bytes = response.head(&Frame { keep_alive, length });
        match response.body {
            _ if asked.head_only => {}
            Body::Bytes(body) => bytes.extend_from_slice(&body),
            Body::Takeover { first, take } => {
                bytes.extend_from_slice(&first);
                let socket = Arc::clone(self.socket);
                return Ok(Next::Stream((
                    take,
                    Takeover {
                        socket,
                        framing,
                        opening: bytes,
                    },
                )));
            }
        }
        write_within(self.socket, &bytes, self.config.write_timeout)?;
        Ok(if keep_alive { Next::Request } else { Next::End })
    }
}

/// What of a request decides how its answer is written.
struct Asked {
    keep_alive: bool,
    head_only: bool,
    version: Version,
}

impl Asked {
    fn by(head: &RequestHead) -> Asked {
        Asked {
            keep_alive: head.keep_alive,
            head_only: head.method() == "HEAD",
            version: head.version(),
        }
    }

    /// Of the last request, as far as there was one.
    fn last(request: Option<&Request>) -> Asked {
        let asked = request.map(|request| Asked::by(&request.head));
        Asked {
            keep_alive: false,
            ..asked.unwrap_or(Asked {
                keep_alive: false,
                head_only: false,
                version: Version::Http11,
            })
        }
    }
}

/// A request, as a report names it: without its query, which may have a secret.
fn what(request: &Request) -> String {
    format!("{} {}", request.method(), request.path())
}
