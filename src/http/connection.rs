//! The life of one connection: a request, its answer, the next request, until one side has had
//! enough or an answer takes the socket over.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::BodyDecoder;
use super::budget::{Budget, NO_ROOM, Share};
use super::head::{BodyLength, Head, HeadParser, RequestHead};
use super::response::{Body, Frame, Length};
use super::{Handler, Refusal, Request, Response, Takeover, Version, forwarded};
use crate::config::{BODY_PROGRESS, Config, LINGER, LINGER_SILENCE, READ_BYTES, SMALL_ANSWER};
use crate::report::Sampled;
use crate::socket::{close_gently_within, is_timeout, write_both_within, write_within};
use crate::wire::{Framing, Quoted, Whereabouts};

/// What the server tells a connection about its place among the others.
pub(super) trait Door {
    /// The connection is about to wait for a request. False: don't, the server is closing.
    fn may_wait(&self) -> bool;
    /// A head has begun to arrive, and the connection is about to wait for the rest.
    fn note_arriving(&self);
    /// A body has begun to arrive or has made progress, and the connection is about to wait for more of
    /// it. False: too late, the connection was evicted.
    fn note_body(&self) -> bool;
    /// The connection was evicted, and this is the answer to a request that had begun. It is written without
    /// waiting for the peer.
    fn evict(&self, answer: &[u8]);
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

/// What all connections of a server share, beyond their places.
#[derive(Debug)]
pub(super) struct Shared {
    /// What the bodies that are being read take.
    pub(super) bodies: Budget,
    /// What the answers that are being written take.
    pub(super) answers: Budget,
    /// The lines of the log about requests that were refused.
    pub(super) refusals: Sampled,
}

/// A connection between two requests.
pub(super) struct Connection<'a, D> {
    pub(super) socket: &'a Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) config: &'a Config,
    pub(super) door: &'a D,
    pub(super) shared: &'a Shared,
    /// Who sent the request that is looked at: until its head says otherwise, the peer.
    client: IpAddr,
    /// It asks for a head alone, as far as it has been read.
    head_only: bool,
    /// A body has begun to arrive and has not ended.
    in_body: bool,
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

/// A request that is to be answered.
struct Arrived {
    request: Request,
    /// It has a body that was not read, so no further request can be read.
    is_cut: bool,
    /// The body's share of the budget. Kept until the request has been answered, whatever the handler does with
    /// the body.
    share: Option<Share>,
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
        shared: &'a Shared,
    ) -> Self {
        Connection {
            socket,
            peer,
            config,
            door,
            shared,
            client: peer.ip().to_canonical(),
            head_only: false,
            in_body: false,
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
                Ok(Arrived {
                    request,
                    is_cut,
                    share,
                }) => {
                    let (asked, what) = (Asked::by(&request.head), what(&request));
                    let response = self.guarded(&what, || handler.answer(request));
                    drop(share);
                    let mut response = response.unwrap_or_else(|failed| failed);
                    response.is_last |= is_cut;
                    (asked, response)
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
        let why = if self.in_body {
            "Too many connections: this one has waited for its body the longest"
        } else if self.has_begun() {
            "Too many connections: this one has waited for its request the longest"
        } else {
            return;
        };
        let answer = Response::later(self.config, why);
        self.door.evict(&answer.last_bytes(self.head_only));
    }

    fn close(&self) {
        self.door.note_lingering();
        let start = Instant::now();
        close_gently_within(self.socket, || {
            // A shutdown does not wait for a peer that goes on sending.
            let may_hurry = start.elapsed() >= LINGER_SILENCE;
            if may_hurry && self.door.is_closing() {
                Duration::ZERO
            } else {
                LINGER
            }
        });
    }

    fn whereabouts(&self) -> Whereabouts {
        Whereabouts {
            peer: self.peer,
            client: self.client,
        }
    }

    /// Reads a request, with its body if the handler wants it. `silence` is how long its first byte may
    /// take.
    fn next_request(
        &mut self,
        silence: Duration,
        handler: &dyn Handler,
    ) -> Result<Arrived, NoRequest> {
        self.client = self.peer.ip().to_canonical();
        (self.head_only, self.in_body) = (false, false);
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
            answers: self.shared.answers.clone(),
        };
        let (mut is_cut, mut share) = (has_body(&request.head), None);
        if is_cut && self.may_bring_body(&request, handler)? {
            let body = self.body(&request.head);
            let body = match body {
                // ORDER: before the refusal, because an evicted connection gets the answer that says so.
                Err(NoRequest::Refused(_)) if !self.door.hold() => Err(NoRequest::Over),
                Err(NoRequest::Refused(refusal)) => {
                    let response = self.refuse(&refusal, handler, Some(&request));
                    Err(NoRequest::declined(&request.head, response))
                }
                outcome => outcome,
            };
            let (bytes, taken) = body?;
            (request.body, is_cut, share) = (bytes, false, Some(taken));
        }
        Ok(Arrived {
            request,
            is_cut,
            share,
        })
    }

    /// Whether the body is to be read. `Err` is the answer to a request that may not bring it.
    fn may_bring_body(&self, request: &Request, handler: &dyn Handler) -> Result<bool, NoRequest> {
        let outcome = self.guarded(&what(request), || {
            // ORDER: before the rights and before all that can be wrong with a body: a 404 and a 405 come
            // before a 401, a 413 and a 415.
            let is_wanted = handler.wants_body(request);
            if is_wanted {
                handler.admit(request)?;
            }
            Ok(is_wanted)
        });
        outcome
            .and_then(|admitted| admitted)
            .map_err(|unwanted| NoRequest::declined(&request.head, unwanted))
    }

    /// The handler's answer to what was no request, or whose body is wrong.
    fn refuse(
        &self,
        refusal: &Refusal,
        handler: &dyn Handler,
        request: Option<&Request>,
    ) -> Response {
        let status = refusal.status();
        if let Some(untold) = self.shared.refusals.next(Instant::now()) {
            let (sender, report) = (self.whereabouts(), &self.config.report);
            report.debug(format_args!("{sender}: {status} {refusal}{untold}"));
        }
        let response = self
            .guarded("a refusal", || handler.refuse(refusal, request))
            .unwrap_or_else(|failed| failed);
        if response.status == 503 && !response.has_field("Retry-After") {
            return response.with("Retry-After", self.config.retry_after());
        }
        response
    }

    /// Calls the handler. A panic in it is this request's misfortune and nobody else's: what it may
    /// have left half done is its own, the connection's state is not among it.
    fn guarded<T>(&self, what: &str, call: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let (what, report) = (Quoted(what), &self.config.report);
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

    fn body(&mut self, head: &RequestHead) -> Result<(Vec<u8>, Share), NoRequest> {
        // LIMIT: a length is refused as it is announced, not when it has come.
        if matches!(head.body, BodyLength::Known(length) if length > self.config.max_body) {
            return Err(Refusal::BodyTooLarge(self.config.max_body).into());
        }
        let budget = &self.shared.bodies;
        let mut decoder = BodyDecoder::new(head.body, self.config, budget);
        let start = Instant::now();
        // SPEC: RFC 9110, 10.1.1: not to be sent if the body is already on its way.
        if head.expects_continue && self.buffer.is_empty() && !decoder.is_done() {
            write_within(
                self.socket,
                b"HTTP/1.1 100 Continue\r\n\r\n",
                self.config.write_timeout,
            )?;
        }
        // Bytes since the connection last noted its progress; `None` before the first time.
        let mut progress = None;
        loop {
            let used = decoder.decode(&self.buffer, self.config)?;
            self.buffer.drain(..used);
            if decoder.is_done() {
                // ORDER: before the handler is called; from here on the connection is not evicted.
                if progress.is_some() && !self.door.hold() {
                    return Err(NoRequest::Over);
                }
                self.in_body = false;
                return Ok(decoder.into_parts());
            }
            progress = progress.map(|before| before + used);
            if progress.is_none_or(|progress| progress >= BODY_PROGRESS) {
                self.in_body = true;
                if !self.door.note_body() {
                    return Err(NoRequest::Over);
                }
                progress = Some(0);
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
    fn answer(&self, mut response: Response, asked: Asked) -> io::Result<Next> {
        // SPEC: RFC 9112, 6.3: these end with their heads, whatever a handler gave them.
        let is_head = asked.head_only || matches!(response.status, 100..=199 | 204 | 304);
        let bytes = response.body().len();
        let reserved = response.share.take();
        let is_reserved = reserved.is_some();
        let mut share = reserved.unwrap_or_else(|| self.shared.answers.share());
        if is_reserved {
            // What the making of it took beyond that is free again.
            share.shrink(bytes);
        } else if !is_head && bytes > SMALL_ANSWER {
            if asked.may_change {
                // The request may already have taken effect and must not be repeated, so its answer is sent.
                share.grow(bytes);
            } else if !share.try_grow(bytes) {
                // LIMIT: the answers that are being written. This answer is dropped here.
                response = Response::later(self.config, NO_ROOM);
            }
        }
        let framing = asked.version.stream_framing();
        let frame = Frame {
            keep_alive: asked.keep_alive,
            idle_timeout: None,
            length: Length::Chunks,
        };
        let frame = match (&response.body, framing) {
            (Body::Bytes(bytes), _) => Frame {
                length: Length::Known(bytes.len()),
                // Zero would say that the connection is over.
                idle_timeout: Some(self.config.idle_timeout.as_secs())
                    .filter(|&seconds| seconds > 0),
                ..frame
            },
            (Body::Takeover { .. }, Framing::Chunked) => frame,
            (Body::Takeover { .. }, Framing::Bare) => Frame {
                length: Length::UntilClose,
                keep_alive: false,
                ..frame
            },
        };
        let keep_alive = frame.keep_alive;
        let mut head = response.head(&frame);
        let mut body = Vec::new();
        match response.body {
            _ if is_head => {}
            Body::Bytes(bytes) => body = bytes,
            Body::Takeover { first, take } => {
                head.extend_from_slice(&first);
                let socket = Arc::clone(self.socket);
                return Ok(Next::Stream(Stream {
                    take,
                    takeover: Takeover {
                        socket,
                        framing,
                        opening: head,
                    },
                    whereabouts: self.whereabouts(),
                }));
            }
        }
        self.door.note_answered();
        write_both_within(self.socket, &head, &body, self.config.write_timeout)?;
        Ok(if keep_alive { Next::Request } else { Next::End })
    }
}

/// What of a request decides how its answer is written.
struct Asked {
    keep_alive: bool,
    head_only: bool,
    /// The method may have changed something.
    ///
    /// SPEC: RFC 9110, 9.2.1: the safe methods are GET, HEAD, OPTIONS and TRACE.
    may_change: bool,
    version: Version,
}

impl Asked {
    fn by(head: &RequestHead) -> Asked {
        Asked {
            keep_alive: head.keep_alive,
            head_only: head.method() == "HEAD",
            may_change: !matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            version: head.version(),
        }
    }

    /// By bytes that were no request.
    fn nothing(head_only: bool) -> Asked {
        Asked {
            keep_alive: false,
            head_only,
            may_change: false,
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
