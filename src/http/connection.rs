//! The life of one connection: a request, its answer, the next request, until one side has had
//! enough or an answer takes the socket over.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::BodyDecoder;
use super::head::{BodyLength, Head, HeadParser, RequestHead};
use super::response::{Body, Frame, Length};
use super::{Handler, Refusal, Request, Response, Takeover, Version, forwarded};
use crate::config::{Config, LINGER, READ_BYTES};
use crate::socket::{close_gently, is_timeout, write_at_once, write_within};
use crate::wire::{Framing, Whereabouts};

/// What the server tells a connection about its place among the others.
pub(super) trait Door {
    /// The connection is about to wait for a request. False: don't, the server is closing.
    fn may_wait(&self) -> bool;
    /// A head has begun to arrive, and the connection is about to wait for the rest.
    fn note_arriving(&self);
    /// A request is there, or an answer is to be written: it is not to be cut short. False: too late,
    /// the place is another's.
    fn hold(&self) -> bool;
    /// All is said. The connection is about to wait until the peer has it.
    fn note_lingering(&self);
    /// A request of `client` is about to be answered. `Err` is the answer to one too many.
    fn admit(&self, client: IpAddr) -> Result<(), Response>;
    /// The answer is there, and only to be written. ORDER: said before it is: who has it may ask again
    /// by another connection, and is not one too many.
    fn note_answered(&self);
    /// Whether the server is closing, so that no answer promises another.
    fn is_closing(&self) -> bool;
}

/// A connection between two requests.
pub(super) struct Connection<'a, D> {
    pub(super) socket: &'a Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) config: &'a Config,
    pub(super) door: &'a D,
    /// Who sent the request that is looked at: until its head says otherwise, the peer.
    client: IpAddr,
    /// It asks for a head alone, as far as it has been read.
    head_only: bool,
    /// What has arrived and is not used up: a beginning, or requests that came ahead of time.
    buffer: Vec<u8>,
    /// A request has ended, and the empty line that may be behind it has not come.
    may_skip_line: bool,
    /// The read timeout that the socket has, so that it is set only when it changes.
    timeout: Option<Duration>,
}

/// A stream that is to begin where the connection ended.
pub(super) struct Stream {
    pub(super) take: Box<dyn FnOnce(Takeover) + Send>,
    pub(super) takeover: Takeover,
    pub(super) whereabouts: Whereabouts,
}

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
    /// What it sent is answered and ends the connection.
    Refused(Refusal),
    /// It is one, and answered without being looked at further.
    Declined(Asked, Response),
}

impl NoRequest {
    /// Answers a request by its head alone. A body that may be on its way is not worth waiting for,
    /// and nothing can be read behind it: then the answer is the last.
    fn declined(head: &RequestHead, response: Response) -> NoRequest {
        let response = if has_body(head) {
            response.and_close()
        } else {
            response
        };
        NoRequest::Declined(Asked::by(head), response)
    }
}

impl From<Refusal> for NoRequest {
    fn from(refusal: Refusal) -> NoRequest {
        NoRequest::Refused(refusal)
    }
}

impl From<io::Error> for NoRequest {
    fn from(_: io::Error) -> NoRequest {
        NoRequest::Over
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
            client: peer.ip().to_canonical(),
            head_only: false,
            buffer: Vec::new(),
            may_skip_line: false,
            timeout: None,
        }
    }

    /// Answers requests with `handler` until the connection ends, or a stream takes its place.
    pub(super) fn serve(mut self, handler: &dyn Handler) -> Option<Stream> {
        let mut silence = self.config.head_timeout;
        // Who has sent its next request ahead of time does not wait for one.
        while self.has_begun() || self.door.may_wait() {
            let (asked, response) = match self.next_request(silence, handler) {
                Ok(request) => {
                    let (asked, what) = (Asked::by(&request.head), what(&request));
                    let response = self.guarded(&what, || handler.answer(request));
                    (asked, response.unwrap_or_else(|failed| failed))
                }
                Err(NoRequest::Declined(asked, response)) => (asked, response),
                Err(NoRequest::Refused(refusal)) => return self.end(Some(refusal), handler),
                Err(NoRequest::Over) => return self.end(None, handler),
            };
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
                    self.close();
                    return None;
                }
                Next::Stream(stream) => return Some(stream),
            }
            silence = self.config.idle_timeout;
            self.may_skip_line = true;
        }
        None
    }

    /// The end of a connection whose next request has not come to be one.
    fn end(mut self, refusal: Option<Refusal>, handler: &dyn Handler) -> Option<Stream> {
        // ORDER: before the answer, which is not to be cut short.
        if !self.door.hold() {
            self.make_room();
        } else if let Some(refusal) = refusal {
            let asked = Asked::nothing(self.head_only);
            let response = self.refuse(&refusal, handler, None);
            self.answer(response, asked).ok()?;
            self.close();
        }
        None
    }

    /// The place is another's. Who has begun to speak is told so, if it can be done at once: the other
    /// is waiting. Who has not may take it for the end of an idle connection.
    fn make_room(&mut self) {
        if self.has_begun() {
            let why = "Too many connections: this one has waited for its request the longest";
            let answer = Response::later(self.config, why);
            write_at_once(self.socket, &answer.last_bytes(self.head_only));
        }
    }

    fn close(&self) {
        self.door.note_lingering();
        close_gently(self.socket, LINGER);
    }

    fn whereabouts(&self) -> Whereabouts {
        Whereabouts {
            peer: self.peer,
            client: self.client,
        }
    }

    /// Reads a whole request. `silence` is how long its first byte may take.
    fn next_request(
        &mut self,
        silence: Duration,
        handler: &dyn Handler,
    ) -> Result<Request, NoRequest> {
        (self.client, self.head_only) = (self.peer.ip().to_canonical(), false);
        let start = Instant::now();
        while !self.has_begun() {
            let left = silence.saturating_sub(start.elapsed());
            if left.is_zero() || self.read(left)? == 0 {
                return Err(NoRequest::Over);
            }
        }
        let head = self.head()?;
        let client = forwarded::client(self.peer.ip(), &head, &self.config.trust_proxy);
        self.client = client.address;
        self.door
            .admit(self.client)
            .map_err(|full| NoRequest::declined(&head, full))?;
        let mut request = Request {
            head,
            body: Vec::new(),
            peer: self.peer,
            client,
            socket: Arc::downgrade(self.socket),
        };
        if has_body(&request.head) {
            self.guarded(&what(&request), || handler.admit(&request))
                .and_then(|admitted| admitted)
                .map_err(|unwanted| NoRequest::declined(&request.head, unwanted))?;
            request.body = match self.body(&request.head) {
                Err(NoRequest::Refused(refusal)) => {
                    let response = self.refuse(&refusal, handler, Some(&request));
                    return Err(NoRequest::declined(&request.head, response));
                }
                outcome => outcome?,
            };
        }
        Ok(request)
    }

    /// The handler's answer to what was no request, or whose body is wrong.
    fn refuse(
        &self,
        refusal: &Refusal,
        handler: &dyn Handler,
        request: Option<&Request>,
    ) -> Response {
        let status = refusal.status();
        let report = &self.config.report;
        report.debug(format_args!("{}: {status} {refusal}", self.whereabouts()));
        self.guarded("a refusal", || handler.refuse(refusal, request))
            .unwrap_or_else(|failed| failed)
    }

    /// Calls the handler. A panic in it is this request's misfortune and nobody else's: what it may
    /// have left half done is its own, the connection's state is not among it.
    fn guarded<T>(&self, what: &str, call: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let report = &self.config.report;
            report.error(format_args!(
                "the handler of {what:?} panicked; answered 500"
            ));
            Response::error(500, "the handler of this request failed").and_close()
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

    fn head(&mut self) -> Result<RequestHead, NoRequest> {
        let outcome = self.read_head();
        // SPEC: RFC 9110, 9.3.2: whatever is wrong with a HEAD, its answer has no content.
        self.head_only = match &outcome {
            Ok(head) => head.method() == "HEAD",
            Err(_) => {
                let start = self.buffer.iter().position(|byte| !b"\r\n".contains(byte));
                self.buffer[start.unwrap_or(0)..].starts_with(b"HEAD ")
            }
        };
        outcome
    }

    fn read_head(&mut self) -> Result<RequestHead, NoRequest> {
        let (mut parser, start) = (HeadParser::default(), Instant::now());
        let mut is_known = false;
        loop {
            if let Head::Complete { request, len } = parser.parse(&self.buffer, self.config)? {
                // ORDER: with the head still there to be answered, if it is too late.
                if !self.door.hold() {
                    return Err(NoRequest::Over);
                }
                self.buffer.drain(..len);
                return Ok(request);
            }
            if !is_known {
                self.door.note_arriving();
                is_known = true;
            }
            self.read_by(start, self.config.head_timeout, Refusal::HeadTimeout)?;
        }
    }

    fn body(&mut self, head: &RequestHead) -> Result<Vec<u8>, NoRequest> {
        // LIMIT: a length is refused as it is announced, not when it has come.
        if matches!(head.body, BodyLength::Known(length) if length > self.config.max_body) {
            return Err(Refusal::BodyTooLarge(self.config.max_body).into());
        }
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
    fn read_by(&mut self, start: Instant, limit: Duration, late: Refusal) -> Result<(), NoRequest> {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(late.into());
        }
        match self.read(left) {
            Ok(0) => Err(NoRequest::Over),
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
        // Not into the buffer at once: thousands may wait like this, and what they have from the
        // allocator it would not give back to the system.
        let mut bytes = [0; READ_BYTES];
        let count = loop {
            match (&**self.socket).read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
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
            // SPEC: RFC 9112, 6.3: these end with their heads, whatever a handler gave them.
            _ if asked.head_only || matches!(response.status, 100..=199 | 204 | 304) => {}
            Body::Bytes(body) => bytes.extend_from_slice(&body),
            Body::Takeover { first, take } => {
                bytes.extend_from_slice(&first);
                let socket = Arc::clone(self.socket);
                return Ok(Next::Stream(Stream {
                    take,
                    takeover: Takeover {
                        socket,
                        framing,
                        opening: bytes,
                    },
                    whereabouts: self.whereabouts(),
                }));
            }
        }
        self.door.note_answered();
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

    /// By bytes that were no request.
    fn nothing(head_only: bool) -> Asked {
        Asked {
            keep_alive: false,
            head_only,
            version: Version::Http11,
        }
    }
}

fn has_body(head: &RequestHead) -> bool {
    !matches!(head.body, BodyLength::None | BodyLength::Known(0))
}

/// A request, as a report names it: without its query, which may have a secret.
fn what(request: &Request) -> String {
    format!("{} {}", request.method(), request.path())
}
