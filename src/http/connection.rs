//! Serves one connection: reads a request, passes it to the handler, writes the answer,
//! and waits for the next request, until one side ends the connection or an answer takes
//! over the socket as a stream.
//!
//! A worker calls [`Connection::serve`]; everything here runs on that worker's thread and
//! blocks on that connection's socket. Other threads act on the connection in two ways
//! only, both through its row in the table: the thread `accept` may evict it, and a
//! shutdown may wake it. Both shut down the reading side of the socket, so that a blocked
//! read returns no bytes. The connection learns which of the two has happened when it
//! reports its next step to its [`Slot`].
//!
//! The protocol between a connection and the table, in the order of one request:
//!
//! | step | call | can be evicted afterwards |
//! |---|---|---|
//! | waits for the first byte | [`Slot::may_wait_for_request`] | yes |
//! | waits for more of the head | [`Slot::note_waiting`] | yes |
//! | has the whole head | [`Slot::mark_busy`] | no |
//! | waits for more of the body | [`Slot::note_body_progress`] | yes |
//! | has the whole body, or must answer a refusal | [`Slot::mark_busy`] | no |
//! | has written its last answer and waits for the peer to close | [`Slot::note_waiting`] | yes |

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
use crate::socket::{is_timeout, lingering_close_within, write_both_within, write_within};
use crate::wire::{Quoted, RemoteAddr};

/// A connection while a worker serves it. The fields from `sender` to `body_share` and
/// `request_name` belong to the current request; the others belong to the whole
/// connection. Only the worker reads and writes them.
pub(super) struct Connection<'a> {
    /// The connection's slot in the table, and its socket.
    slot: &'a Slot,
    config: &'a Config,
    handler: &'a dyn Handler,
    /// The sender of the current request, for log lines: the peer, and once the head is
    /// parsed the client that a trusted proxy names.
    sender: RemoteAddr,
    /// The current request is a HEAD request, as far as can be seen from the bytes that
    /// have arrived. Its answer has no content, even if the rest of the request is
    /// malformed.
    is_head_method: bool,
    /// The connection has waited for the body of the current request, and the body is not
    /// complete. It decides about the text of the answer to an evicted connection.
    waits_for_body: bool,
    /// The share of the body budget that the current request has taken. It is kept until
    /// the handler has returned, even if the handler drops the body earlier. A share of 0
    /// bytes belongs to a small body, `None` to no body.
    body_share: Option<Share>,
    /// Bytes that have arrived and are not used yet: the beginning of a request, or
    /// requests that the client sent without waiting for answers. LIMIT: `max_head` and
    /// one read, 20 KiB by default.
    buffer: Vec<u8>,
    /// The head of the last answer. It is a field so that one allocation serves all
    /// answers of the connection.
    answer_head: Vec<u8>,
    /// Method and path of the current request, for the log line about a handler that
    /// panics. The query is left out, because it may contain a secret.
    request_name: String,
    /// A request has ended, and the empty line that may follow it has not been seen. See
    /// [`has_request_bytes`](Self::has_request_bytes).
    may_skip_line: bool,
    /// The read timeout that is set on the socket. It is remembered so that the system
    /// call to set it is made only when it changes.
    read_timeout: Option<Duration>,
}

/// A stream that has been answered but not started: everything that its own thread needs.
/// `Connections::start_stream` starts that thread.
pub(super) struct StreamStart {
    /// The function that writes the stream until it ends.
    pub(super) run: Box<dyn FnOnce(Takeover) + Send>,
    /// The argument for `run`.
    pub(super) takeover: Takeover,
    /// The client, for log lines.
    pub(super) remote: RemoteAddr,
}

/// What a connection does after an answer.
enum Next {
    /// The answer is written, and the connection waits for another request.
    Request,
    /// The answer is written, and the connection ends.
    End,
    /// Nothing is written yet. The stream writes the head of the answer itself.
    Stream(StreamStart),
}

/// Why [`Connection::next_request`] returns no request for [`Handler::answer`].
enum Unhandled {
    /// No answer is possible or due: the peer has closed the connection, has sent nothing
    /// in time, or is unreachable; or the connection was evicted, which
    /// [`Connection::serve`] then finds out.
    Ended,
    /// The bytes are not a request that can be served. The connection answers with the
    /// refusal, and ends.
    Refused(Refusal),
    /// The answer is known before the body of the request has been read.
    Answered(AnswerMode, Response),
}

impl From<Refusal> for Unhandled {
    fn from(refusal: Refusal) -> Unhandled {
        Unhandled::Refused(refusal)
    }
}

/// An error of the socket ends the connection. The error itself is not kept: the usual
/// ones are a reset by the peer and a timeout.
impl From<io::Error> for Unhandled {
    fn from(_: io::Error) -> Unhandled {
        Unhandled::Ended
    }
}

impl<'a> Connection<'a> {
    pub(super) fn new(slot: &'a Slot, peer: SocketAddr) -> Self {
        Connection {
            slot,
            config: &slot.connections.config,
            handler: &*slot.connections.handler,
            sender: RemoteAddr::of_peer(peer),
            is_head_method: false,
            waits_for_body: false,
            body_share: None,
            buffer: Vec::new(),
            answer_head: Vec::new(),
            request_name: String::new(),
            may_skip_line: false,
            read_timeout: None,
        }
    }

    /// Answers requests until the connection ends. Returns a stream if the last answer is
    /// one; then the connection goes on in the stream's thread.
    ///
    /// Blocks on the socket and in the handler. Nothing that the peer does is an error
    /// here: it only ends this connection.
    pub(super) fn serve(mut self) -> Option<StreamStart> {
        let socket = &self.slot.socket;
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| socket.set_write_timeout(Some(self.config.write_timeout)));
        // These calls fail only if the peer has already gone.
        prepared.ok()?;
        let mut first_byte_timeout = self.config.head_timeout;
        // A connection whose next request has already begun to arrive does not wait for a
        // request, so it cannot be evicted as idle in between. During a shutdown such a
        // request is still answered.
        while self.has_request_bytes() || self.slot.may_wait_for_request() {
            let (mode, response) = match self.next_request(first_byte_timeout) {
                Ok(request) => {
                    let mode = AnswerMode::of(&request.head, request.has_unread_body);
                    let response = self.catch_panic(|| self.handler.answer(request));
                    (mode, response.unwrap_or_else(|failed| failed))
                }
                Err(Unhandled::Answered(mode, response)) => (mode, response),
                // ORDER: the connection is marked busy before the answer is written, so
                // that an eviction cannot cut the answer short.
                Err(Unhandled::Refused(refusal)) if self.slot.mark_busy() => {
                    (AnswerMode::without_request(), self.refuse(&refusal, None))
                }
                Err(_) => {
                    if !self.slot.mark_busy() {
                        self.answer_eviction();
                    }
                    return None;
                }
            };
            self.body_share = None;
            // If the answer cannot be written, the peer has gone or does not read, so the
            // connection ends.
            match self.answer(response, mode).ok()? {
                Next::Request => {}
                Next::End => {
                    self.close();
                    return None;
                }
                Next::Stream(stream) => return Some(stream),
            }
            first_byte_timeout = self.config.idle_timeout;
            self.may_skip_line = true;
        }
        None
    }

    /// Answers 503 to an evicted connection whose request has begun to arrive. The answer
    /// is written only as far as that is possible without waiting, because the slot has
    /// already been given to another connection.
    ///
    /// If nothing has arrived, the connection is closed without an answer. To the client
    /// that looks like the usual end of an idle connection, and it may repeat its request
    /// on a new one.
    fn answer_eviction(&mut self) {
        let why = if self.waits_for_body {
            "Too many connections: this one has waited for its body the longest"
        } else if self.has_request_bytes() {
            "Too many connections: this one has waited for its request the longest"
        } else {
            return;
        };
        let answer = Response::later(self.config, why);
        self.slot
            .answer_evicted(&answer.last_bytes(self.is_head_method));
    }

    /// Ends the connection after its last answer: a lingering close on the worker's own
    /// thread. It blocks for at most [`LINGER`] (10 s), and during a shutdown for about
    /// [`LINGER_SILENCE`] (1 s). The connection may be evicted meanwhile.
    fn close(&self) {
        self.slot.note_waiting();
        let start = Instant::now();
        lingering_close_within(&self.slot.socket, || {
            // A shutdown does not wait longer for a peer that goes on sending.
            let may_hurry = start.elapsed() >= LINGER_SILENCE;
            if may_hurry && self.slot.connections.is_closing() {
                Duration::ZERO
            } else {
                LINGER
            }
        });
    }

    /// Receives the next request, with its body if the handler wants the body. The first
    /// byte must arrive within `first_byte_timeout`: `head_timeout` for the first request
    /// of a connection, `idle_timeout` for the others.
    ///
    /// On `Ok` the connection is marked busy and cannot be evicted. The steps:
    ///
    /// 1. Wait for the first byte. If the time is over, the connection ends without an
    ///    answer.
    /// 2. Receive the head. It must be complete within `head_timeout` after its first
    ///    byte.
    /// 3. Find the client, which may be behind trusted proxies, and count the request
    ///    under its address.
    /// 4. If a body is announced, ask the handler whether it wants the body and whether
    ///    the client may send it. An unwanted body is not read:
    ///    [`Request::has_unread_body`] is true, and the connection ends after the answer.
    /// 5. Receive the body. It must be complete within `body_timeout` after the head.
    fn next_request(&mut self, first_byte_timeout: Duration) -> Result<Request, Unhandled> {
        let peer = self.sender.peer;
        self.sender = RemoteAddr::of_peer(peer);
        (self.is_head_method, self.waits_for_body) = (false, false);
        "a refusal".clone_into(&mut self.request_name);
        self.wait_for_first_byte(first_byte_timeout)?;
        let head = self.receive_head()?;
        let client = forwarded::client(peer.ip(), &head, &self.config.trust_proxy);
        self.sender.client = client.address;
        if let Err(answer) = self.slot.count_request(client.address) {
            return Err(answer_without_body(&head, answer));
        }
        let mut request = Request {
            has_unread_body: has_body(&head),
            head,
            body: Vec::new(),
            peer,
            client,
            socket: Arc::downgrade(&self.slot.socket),
            answer_budget: self.slot.connections.answer_budget.clone(),
        };
        self.request_name.clear();
        let (method, path) = (Quoted(request.method()), Quoted(request.path()));
        write!(self.request_name, "{method} {path}").expect("BUG: a String refuses text");
        if request.has_unread_body && self.wants_body(&request)? {
            let body = match self.receive_body(&request.head) {
                // ORDER: the connection is marked busy before the refusal is made,
                // because an evicted connection gets the answer about its eviction
                // instead.
                Err(Unhandled::Refused(refusal)) if self.slot.mark_busy() => {
                    let response = self.refuse(&refusal, Some(&request));
                    Err(answer_without_body(&request.head, response))
                }
                outcome => outcome,
            };
            (request.body, request.has_unread_body) = (body?, false);
        }
        Ok(request)
    }

    /// Blocks until the first byte of a request has arrived, for at most `timeout`. An
    /// empty line before it is skipped and does not extend the time.
    fn wait_for_first_byte(&mut self, timeout: Duration) -> Result<(), Unhandled> {
        // The first read uses exactly `timeout` and not the rest of it, because the
        // socket usually has that timeout already, from the request before.
        let (start, mut left) = (Instant::now(), timeout);
        while !self.has_request_bytes() {
            if left.is_zero() || self.read(left)? == 0 {
                return Err(Unhandled::Ended);
            }
            left = timeout.saturating_sub(start.elapsed());
        }
        Ok(())
    }

    /// Asks the handler whether the body of this request is to be read. `Err` is the
    /// answer to a request that must not send it.
    fn wants_body(&self, request: &Request) -> Result<bool, Unhandled> {
        let outcome = self.catch_panic(|| {
            // ORDER: whether there is such an endpoint is asked first, then the rights,
            // and only then is the body read. So a 404 or 405 wins over a 401, and a 401
            // over a 413 or 415.
            let is_wanted = self.handler.wants_body(request);
            if is_wanted {
                self.handler.authorize(request)?;
            }
            Ok(is_wanted)
        });
        outcome
            .and_then(|authorized| authorized)
            .map_err(|answer| answer_without_body(&request.head, answer))
    }

    /// Asks the handler for the answer to a refusal, and logs the refusal. `request` is
    /// the request if its head is known and only its body is wrong.
    fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        let status = refusal.status();
        if let Some(suppressed) = self.slot.connections.refusal_log.next(Instant::now()) {
            let (sender, report) = (self.sender, &self.config.report);
            report.debug(format_args!("{sender}: {status} {refusal}{suppressed}"));
        }
        self.catch_panic(|| self.handler.refuse(refusal, request))
            .unwrap_or_else(|failed| failed)
    }

    /// Calls the handler. If it panics, the panic is reported, and `Err` is a 500 that
    /// ends the connection. Asserting unwind safety is right here: a panic can leave the
    /// handler's own data half changed, but the handler cannot change the data of the
    /// connection.
    fn catch_panic<T>(&self, call: impl FnOnce() -> T) -> Result<T, Response> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let (name, report) = (Quoted(&self.request_name), &self.config.report);
            report.error(format_args!(
                "the handler of {name:?} panicked; answered 500"
            ));
            Response::error(500, "the handler of this request failed").and_close()
        })
    }

    /// Whether bytes of a request have arrived. One empty line after the last request
    /// does not count, and is removed.
    ///
    /// SPEC: RFC 9112, 2.2: some old clients send an extra CRLF after the body of a POST
    /// request.
    fn has_request_bytes(&mut self) -> bool {
        if self.may_skip_line && self.buffer.starts_with(b"\r\n") {
            self.buffer.drain(..2);
            self.may_skip_line = false;
        }
        match &*self.buffer {
            [] => false,
            // This may become the empty line.
            [b'\r'] => !self.may_skip_line,
            _ => true,
        }
    }

    /// Receives the head of a request, and notes whether it is a HEAD request. Blocks as
    /// [`parse_head`](Self::parse_head) does.
    fn receive_head(&mut self) -> Result<RequestHead, Unhandled> {
        let outcome = self.parse_head();
        // SPEC: RFC 9110, 9.3.2: the answer to HEAD never has content. So the method of a
        // request that is refused or late is looked up in the bytes that have arrived.
        self.is_head_method = match &outcome {
            Ok(head) => head.method() == "HEAD",
            Err(_) => {
                let start = self.buffer.iter().position(|byte| !b"\r\n".contains(byte));
                self.buffer[start.unwrap_or(0)..].starts_with(b"HEAD ")
            }
        };
        outcome
    }

    /// Parses the head at the beginning of the buffer, and reads more bytes until the
    /// head is complete, for at most `head_timeout`. Removes the head from the buffer;
    /// what follows is the body or the next request. On `Ok` the connection is marked
    /// busy.
    fn parse_head(&mut self) -> Result<RequestHead, Unhandled> {
        let (mut parser, start) = (HeadParser::default(), Instant::now());
        let mut is_noted = false;
        loop {
            if let Head::Complete { request, len } = parser.parse(&self.buffer, self.config)? {
                // ORDER: the connection is marked busy while the head is still in the
                // buffer. If it has been evicted, `answer_eviction` sees from the buffer
                // that a request is to be answered.
                if !self.slot.mark_busy() {
                    return Err(Unhandled::Ended);
                }
                self.buffer.drain(..len);
                return Ok(request);
            }
            if !is_noted {
                self.slot.note_waiting();
                is_noted = true;
            }
            self.read_within(start, self.config.head_timeout, Refusal::HeadTimeout)?;
        }
    }

    /// Receives the body of a request whose head has just been parsed. Blocks on the
    /// socket, for at most `body_timeout` for the whole body.
    ///
    /// Each round decodes what is in the buffer, removes the used bytes, and reads more.
    /// At the end `body_share` holds the share of the body budget that the body has
    /// taken.
    ///
    /// The connection was marked busy when its head was complete. If the body does not
    /// come with the head, the connection waits again and can be evicted; its waiting
    /// time restarts after each 16 KiB ([`BODY_PROGRESS`]). So with all slots in use,
    /// slow bodies are evicted before fast ones.
    fn receive_body(&mut self, head: &RequestHead) -> Result<Vec<u8>, Unhandled> {
        // LIMIT: a body is refused when its length is announced, and not when it has
        // arrived.
        if matches!(head.body, BodyLength::Known(length) if length > self.config.max_body) {
            return Err(Refusal::BodyTooLarge(self.config.max_body).into());
        }
        let budget = &self.slot.connections.body_budget;
        let mut decoder = BodyDecoder::new(head.body, self.config, budget);
        let start = Instant::now();
        // SPEC: RFC 9110, 10.1.1: a server may omit the 100 if it has already received
        // some of the body.
        if head.expects_continue && self.buffer.is_empty() && !decoder.is_done() {
            write_within(
                &self.slot.socket,
                b"HTTP/1.1 100 Continue\r\n\r\n",
                self.config.write_timeout,
            )?;
        }
        // The bytes used since the connection last noted its progress. `None` until it
        // notes progress for the first time: a body that arrives together with its head
        // never waits.
        let mut progress = None;
        loop {
            let used = decoder.decode(&self.buffer, self.config)?;
            self.buffer.drain(..used);
            if decoder.is_done() {
                // ORDER: before the handler is called. From here on the connection cannot
                // be evicted.
                if progress.is_some() && !self.slot.mark_busy() {
                    return Err(Unhandled::Ended);
                }
                self.waits_for_body = false;
                let (body, share) = decoder.into_parts();
                self.body_share = Some(share);
                return Ok(body);
            }
            progress = progress.map(|before| before + used);
            if progress.is_none_or(|progress| progress >= BODY_PROGRESS) {
                self.waits_for_body = true;
                if !self.slot.note_body_progress() {
                    return Err(Unhandled::Ended);
                }
                progress = Some(0);
            }
            self.read_within(start, self.config.body_timeout, Refusal::BodyTimeout)?;
        }
    }

    /// Reads more bytes of something that began at `start` and must be complete within
    /// `timeout`. If it is not, the result is the refusal `late`.
    ///
    /// LIMIT: the time counts from `start` and not from the last byte, so a peer that
    /// sends one byte now and then does not extend it.
    fn read_within(
        &mut self,
        start: Instant,
        timeout: Duration,
        late: Refusal,
    ) -> Result<(), Unhandled> {
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(late.into());
        }
        match self.read(left) {
            Ok(0) => Err(Unhandled::Ended),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Err(late.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads at most 4 KiB from the socket and appends them to the buffer. Blocks for at
    /// most `timeout`. Returns the number of bytes; 0 means that no more will come,
    /// because the peer has closed the connection or because this server has shut down
    /// the reading side.
    fn read(&mut self, timeout: Duration) -> io::Result<usize> {
        if self.read_timeout != Some(timeout) {
            self.slot.socket.set_read_timeout(Some(timeout))?;
            self.read_timeout = Some(timeout);
        }
        // The bytes go to the stack first. If they were read into the buffer directly,
        // each connection that waits would keep 4 KiB allocated, and the allocator would
        // not return that memory to the system.
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

    /// Writes the answer, or returns the stream that the answer is. Blocks for at most
    /// `write_timeout`.
    ///
    /// Three decisions are made here: whether there is memory for the answer
    /// ([`within_budget`](Self::within_budget)), whether the connection is kept alive
    /// afterwards, and whether the answer has a body on the wire. A stream is not written
    /// here: its head and its first bytes are handed over as `Takeover::opening`.
    ///
    /// # Errors
    ///
    /// The answer could not be written completely in time. Then the connection must not
    /// be used any more.
    fn answer(&mut self, response: Response, mode: AnswerMode) -> io::Result<Next> {
        // SPEC: RFC 9112, 6.3: these answers end with their heads, even if a handler gave
        // them a body.
        let has_no_body = self.is_head_method || matches!(response.status, 100..=199 | 204 | 304);
        // The share is given back when this function returns, so when the answer has been
        // written.
        let (response, _share) = self.within_budget(response, &mode, has_no_body);
        let is_last = response.is_last || self.slot.connections.is_closing();
        let keep_alive = mode.keep_alive && !is_last;
        let framing = mode.version.stream_framing();
        let (idle_timeout, head) = (self.config.idle_timeout, &mut self.answer_head);
        let keep_alive = response.write_head(keep_alive, framing, idle_timeout, head);
        let body = match response.body {
            _ if has_no_body => Vec::new(),
            Body::Bytes(bytes) => bytes,
            Body::Takeover { first, run } => {
                let mut opening = std::mem::take(&mut self.answer_head);
                opening.extend_from_slice(&first);
                return Ok(Next::Stream(StreamStart {
                    run,
                    takeover: Takeover {
                        socket: Arc::clone(&self.slot.socket),
                        framing,
                        opening,
                    },
                    remote: self.sender,
                }));
            }
        };
        self.slot.uncount_request();
        let timeout = self.config.write_timeout;
        write_both_within(&self.slot.socket, &self.answer_head, &body, timeout)?;
        Ok(if keep_alive { Next::Request } else { Next::End })
    }

    /// Takes the bytes of an answer from the answer budget. Returns the answer with its
    /// share. If the budget has no room, the answer is dropped, and a 503 takes its
    /// place.
    ///
    /// LIMIT: the bytes of all answers that are being written. Answers of at most 16 KiB
    /// ([`SMALL_ANSWER`]) are not counted, because a socket usually takes them at once.
    fn within_budget(
        &self,
        mut response: Response,
        mode: &AnswerMode,
        has_no_body: bool,
    ) -> (Response, Option<Share>) {
        let bytes = response.body().len();
        let mut share = response.share.take();
        match &mut share {
            // The handler reserved memory before it made the answer. What the answer does
            // not use is given back.
            Some(share) => share.shrink(bytes),
            None if has_no_body || bytes <= SMALL_ANSWER => {}
            None => {
                let share = share.insert(self.slot.connections.answer_budget.share());
                if mode.may_change {
                    // The request may have changed something and must not be repeated, so
                    // its answer is always sent.
                    share.grow(bytes);
                } else if !share.try_grow(bytes) {
                    response = Response::later(self.config, NO_ROOM);
                }
            }
        }
        (response, share)
    }
}

/// What the head of a request decides about the way in which its answer is written.
struct AnswerMode {
    /// The client wants to keep the connection, and the end of its request is known.
    keep_alive: bool,
    /// The method may change something on the server, so the client must not have to
    /// repeat the request.
    ///
    /// SPEC: RFC 9110, 9.2.1: the safe methods are GET, HEAD, OPTIONS and TRACE.
    may_change: bool,
    /// Decides how a stream is framed: HTTP/1.0 has no chunks.
    version: Version,
}

impl AnswerMode {
    /// The mode for a request with this head. If the request `has_unread_body`, its body
    /// was not read, so no further request can be found after it.
    fn of(head: &RequestHead, has_unread_body: bool) -> AnswerMode {
        AnswerMode {
            keep_alive: head.keep_alive && !has_unread_body,
            may_change: !matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            version: head.version(),
        }
    }

    /// The mode for bytes that are not a request.
    fn without_request() -> AnswerMode {
        AnswerMode {
            keep_alive: false,
            may_change: false,
            version: Version::Http11,
        }
    }
}

/// Answers a request whose body was not read. If it has a body, the connection ends after
/// the answer, because reading a body only to discard it is not worth the time.
fn answer_without_body(head: &RequestHead, response: Response) -> Unhandled {
    Unhandled::Answered(AnswerMode::of(head, has_body(head)), response)
}

/// Whether a request with this head has a body of at least one byte. A chunked body may
/// still turn out to be empty.
fn has_body(head: &RequestHead) -> bool {
    !matches!(head.body, BodyLength::None | BodyLength::Known(0))
}
