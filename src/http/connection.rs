//! The life of one connection: a request, its answer, the next request, until one side has had
//! enough or an answer takes the socket over.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::BodyDecoder;
use super::budget::{NO_ROOM, Share};
use super::connections::Slot;
use super::head::{BodyLength, Head, HeadParser, RequestHead};
use super::response::Body;
use super::{Handler, Refusal, Request, Response, Takeover, Version, forwarded};
use crate::config::{BODY_PROGRESS, Config, LINGER, LINGER_SILENCE, READ_BYTES, SMALL_ANSWER};
use crate::socket::{close_gently_within, is_timeout, write_both_within, write_within};
use crate::wire::{Quoted, RemoteAddr};

/// A connection between two requests.
pub(super) struct Connection<'a> {
    slot: &'a Slot,
    config: &'a Config,
    handler: &'a dyn Handler,
    /// Who sent the request that is looked at: until its head says otherwise, the peer.
    sender: RemoteAddr,
    /// The request asks for a head alone, as far as it has been read.
    head_only: bool,
    /// A body has begun to arrive and has not ended.
    in_body: bool,
    /// The body's share of the budget. Kept until the request has been answered, whatever the handler does with
    /// the body.
    body_share: Option<Share>,
    /// What has arrived and is not used up: a beginning, or requests that came ahead of time.
    buffer: Vec<u8>,
    /// The head of the last answer. It is here so that a connection needs one allocation for all heads.
    answer_head: Vec<u8>,
    /// Method and path of the request, as a report names it: without its query, which may have a secret.
    what: String,
    /// A request has ended, and the empty line that may be behind it has not come.
    may_skip_line: bool,
    /// The read timeout that the socket has, so that it is set only when it changes.
    timeout: Option<Duration>,
}

/// A stream that is to begin where the connection ended.
pub(super) struct StreamStart {
    pub(super) take: Box<dyn FnOnce(Takeover) + Send>,
    pub(super) takeover: Takeover,
    pub(super) whose: RemoteAddr,
}

/// What follows an answer.
enum Next {
    Request,
    End,
    Stream(StreamStart),
}

/// Why the handler has no request to answer.
enum NoRequest {
    /// The peer has closed, gone silent, or is unreachable, or the connection was evicted.
    Over,
    /// What came is refused.
    Refused(Refusal),
    /// The answer is there already.
    Answered(Asked, Response),
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

impl<'a> Connection<'a> {
    pub(super) fn new(slot: &'a Slot, peer: SocketAddr) -> Self {
        Connection {
            slot,
            config: &slot.connections.config,
            handler: &*slot.connections.handler,
            sender: RemoteAddr::of_peer(peer),
            head_only: false,
            in_body: false,
            body_share: None,
            buffer: Vec::new(),
            answer_head: Vec::new(),
            what: String::new(),
            may_skip_line: false,
            timeout: None,
        }
    }

    /// Answers requests until the connection ends, or a stream takes its place.
    pub(super) fn serve(mut self) -> Option<StreamStart> {
        let socket = &self.slot.socket;
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| socket.set_write_timeout(Some(self.config.write_timeout)));
        // They fail only if the peer has gone already.
        prepared.ok()?;
        let mut silence = self.config.head_timeout;
        // A connection whose next request came ahead of time does not wait for one.
        while self.has_begun() || self.slot.may_wait() {
            let (asked, response) = match self.next_request(silence) {
                Ok(request) => {
                    let asked = Asked::by(&request.head, request.is_cut);
                    let response = self.guarded(|| self.handler.answer(request));
                    (asked, response.unwrap_or_else(|failed| failed))
                }
                Err(NoRequest::Answered(asked, response)) => (asked, response),
                // ORDER: held before the answer, which is not to be cut short.
                Err(NoRequest::Refused(refusal)) if self.slot.hold() => {
                    (Asked::nothing(), self.refuse(&refusal, None))
                }
                Err(_) => {
                    if !self.slot.hold() {
                        self.end_evicted();
                    }
                    return None;
                }
            };
            self.body_share = None;
            // An answer that cannot be written has no reader: the connection is over.
            match self.answer(response, asked).ok()? {
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

    /// The connection was evicted. A peer that has begun to speak is told so, if it can be done at once, because
    /// another connection waits for its place. A peer that has not may take it for the end of an idle
    /// connection.
    fn end_evicted(&mut self) {
        let why = if self.in_body {
            "Too many connections: this one has waited for its body the longest"
        } else if self.has_begun() {
            "Too many connections: this one has waited for its request the longest"
        } else {
            return;
        };
        let answer = Response::later(self.config, why);
        self.slot.end_evicted(&answer.last_bytes(self.head_only));
    }

    fn close(&self) {
        self.slot.note_waiting();
        let start = Instant::now();
        close_gently_within(&self.slot.socket, || {
            // A shutdown does not wait for a peer that goes on sending.
            let may_hurry = start.elapsed() >= LINGER_SILENCE;
            if may_hurry && self.slot.connections.is_closing() {
                Duration::ZERO
            } else {
                LINGER
            }
        });
    }

    /// Reads a request, with its body if the handler wants it. `silence` is how long its first byte may
    /// take.
    fn next_request(&mut self, silence: Duration) -> Result<Request, NoRequest> {
        let peer = self.sender.peer;
        self.sender = RemoteAddr::of_peer(peer);
        (self.head_only, self.in_body) = (false, false);
        "a refusal".clone_into(&mut self.what);
        // The first wait is exactly `silence`, so that the socket has that timeout already.
        let (start, mut left) = (Instant::now(), silence);
        while !self.has_begun() {
            if left.is_zero() || self.read(left)? == 0 {
                return Err(NoRequest::Over);
            }
            left = silence.saturating_sub(start.elapsed());
        }
        let head = self.head()?;
        let client = forwarded::client(peer.ip(), &head, &self.config.trust_proxy);
        self.sender.client = client.address;
        if let Err(full) = self.slot.admit(client.address) {
            return Err(declined(&head, full));
        }
        let mut request = Request {
            is_cut: has_body(&head),
            head,
            body: Vec::new(),
            peer,
            client,
            socket: Arc::downgrade(&self.slot.socket),
            answers: self.slot.connections.answers.clone(),
        };
        self.what.clear();
        let (method, path) = (Quoted(request.method()), Quoted(request.path()));
        write!(self.what, "{method} {path}").expect("BUG: a String refuses text");
        if request.is_cut && self.may_bring_body(&request)? {
            let body = match self.body(&request.head) {
                // ORDER: held before the refusal, because an evicted connection gets the answer that says so.
                Err(NoRequest::Refused(refusal)) if self.slot.hold() => {
                    let response = self.refuse(&refusal, Some(&request));
                    Err(declined(&request.head, response))
                }
                outcome => outcome,
            };
            (request.body, request.is_cut) = (body?, false);
        }
        Ok(request)
    }

    /// Whether the body is to be read. `Err` is the answer to a request that may not bring it.
    fn may_bring_body(&self, request: &Request) -> Result<bool, NoRequest> {
        let outcome = self.guarded(|| {
            // ORDER: before the rights and before all that can be wrong with a body: a 404 and a 405 come
            // before a 401, a 413 and a 415.
            let is_wanted = self.handler.wants_body(request);
            if is_wanted {
                self.handler.admit(request)?;
            }
            Ok(is_wanted)
        });
        outcome
            .and_then(|admitted| admitted)
            .map_err(|unwanted| declined(&request.head, unwanted))
    }

    /// The handler's answer to what was no request, or whose body is wrong.
    fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        let status = refusal.status();
        if let Some(suppressed) = self.slot.connections.refusals.next(Instant::now()) {
            let (sender, report) = (self.sender, &self.config.report);
            report.debug(format_args!("{sender}: {status} {refusal}{suppressed}"));
        }
        self.guarded(|| self.handler.refuse(refusal, request))
            .unwrap_or_else(|failed| failed)
    }

    /// Calls the handler. A panic in it costs this request alone: what the handler may have left half done is
    /// its own, and the connection's state is not among it.
    fn guarded<T>(&self, call: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let (what, report) = (Quoted(&self.what), &self.config.report);
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
                if !self.slot.hold() {
                    return Err(NoRequest::Over);
                }
                self.buffer.drain(..len);
                return Ok(request);
            }
            if !is_known {
                self.slot.note_waiting();
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
        let budget = &self.slot.connections.bodies;
        let mut decoder = BodyDecoder::new(head.body, self.config, budget);
        let start = Instant::now();
        // SPEC: RFC 9110, 10.1.1: not to be sent if the body is already on its way.
        if head.expects_continue && self.buffer.is_empty() && !decoder.is_done() {
            write_within(
                &self.slot.socket,
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
                if progress.is_some() && !self.slot.hold() {
                    return Err(NoRequest::Over);
                }
                self.in_body = false;
                let (body, share) = decoder.into_parts();
                self.body_share = Some(share);
                return Ok(body);
            }
            progress = progress.map(|before| before + used);
            if progress.is_none_or(|progress| progress >= BODY_PROGRESS) {
                self.in_body = true;
                if !self.slot.note_body() {
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
            self.slot.socket.set_read_timeout(Some(timeout))?;
            self.timeout = Some(timeout);
        }
        // Not into the buffer at once: thousands may wait like this, and what they have from the
        // allocator it would not give back to the system.
        let mut bytes = [0; READ_BYTES];
        let count = loop {
            match (&*self.slot.socket).read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Writes the answer, or returns the stream that it is.
    fn answer(&mut self, mut response: Response, asked: Asked) -> io::Result<Next> {
        // SPEC: RFC 9112, 6.3: these end with their heads, whatever a handler gave them.
        let is_head = self.head_only || matches!(response.status, 100..=199 | 204 | 304);
        let bytes = response.body().len();
        let mut share = response.share.take();
        match &mut share {
            // What the making of it took beyond that is free again.
            Some(share) => share.shrink(bytes),
            None if is_head || bytes <= SMALL_ANSWER => {}
            None => {
                let share = share.insert(self.slot.connections.answers.share());
                if asked.may_change {
                    // The request may already have taken effect and must not be repeated, so its answer is sent.
                    share.grow(bytes);
                } else if !share.try_grow(bytes) {
                    // LIMIT: the answers that are being written. This answer is dropped here.
                    response = Response::later(self.config, NO_ROOM);
                }
            }
        }
        let is_last = response.is_last || self.slot.connections.is_closing();
        let keep_alive = asked.keep_alive && !is_last;
        let framing = asked.version.stream_framing();
        let (idle_timeout, head) = (self.config.idle_timeout, &mut self.answer_head);
        let keep_alive = response.write_head(keep_alive, framing, idle_timeout, head);
        let body = match response.body {
            _ if is_head => Vec::new(),
            Body::Bytes(bytes) => bytes,
            Body::Takeover { first, take } => {
                let mut opening = std::mem::take(&mut self.answer_head);
                opening.extend_from_slice(&first);
                return Ok(Next::Stream(StreamStart {
                    take,
                    takeover: Takeover {
                        socket: Arc::clone(&self.slot.socket),
                        framing,
                        opening,
                    },
                    whose: self.sender,
                }));
            }
        };
        self.slot.note_answered();
        let limit = self.config.write_timeout;
        write_both_within(&self.slot.socket, &self.answer_head, &body, limit)?;
        Ok(if keep_alive { Next::Request } else { Next::End })
    }
}

/// What of a request decides how its answer is written.
struct Asked {
    keep_alive: bool,
    /// The method may have changed something.
    ///
    /// SPEC: RFC 9110, 9.2.1: the safe methods are GET, HEAD, OPTIONS and TRACE.
    may_change: bool,
    version: Version,
}

impl Asked {
    /// By this head. `is_cut`: its body was not read, so no further request can be read.
    fn by(head: &RequestHead, is_cut: bool) -> Asked {
        Asked {
            keep_alive: head.keep_alive && !is_cut,
            may_change: !matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            version: head.version(),
        }
    }

    /// By bytes that were no request.
    fn nothing() -> Asked {
        Asked {
            keep_alive: false,
            may_change: false,
            version: Version::Http11,
        }
    }
}

/// Answers a request by its head alone. A body that may be on its way is not worth waiting for.
fn declined(head: &RequestHead, response: Response) -> NoRequest {
    NoRequest::Answered(Asked::by(head, has_body(head)), response)
}

fn has_body(head: &RequestHead) -> bool {
    !matches!(head.body, BodyLength::None | BodyLength::Known(0))
}
