//! One client's stream, from its first byte to its last: the main loop of the crate.
//!
//! [`Hub::subscribe`] makes a [`Subscription`], on the thread that serves the request.
//! [`Subscription::serve`] then runs on a thread of the stream's own, and this file is
//! all that this thread does. It turns the queue of the client's lane into writes to the
//! socket:
//!
//! 1. [`Stream::catch_up`] writes the head of the response, the welcome, and the events
//!    that the client missed. It reads them from the history, one piece at a time, until
//!    the lane is *live*: until each later event comes through the fan-out.
//! 2. [`Stream::wait_and_write`] is the main loop. The thread gives the baton back and
//!    sleeps in `recv_timeout`, while the fan-out thread writes to the socket (`lane.rs`
//!    explains the baton). The thread wakes when the socket did not take everything, when
//!    a heartbeat is due, and when the stream ends.
//! 3. [`Stream::write_close_event`] tells the client why its stream ends.
//!
//! What a client of `/events/chat` receives after the head of the response. Each piece is
//! one chunk of the chunked encoding:
//!
//! ```text
//! 84\r\n                                                       the welcome
//! id: 1763790000123-5\n
//! event: system\n
//! retry: 5000\n
//! data: {"type":"connected","client_id":"anna","timestamp":"2025-11-22T05:40:00.123Z"}\n\n\r\n
//! 21\r\n                                                       an event, written by the fan-out thread
//! id: 1763790000123-6\n
//! data: hello\n\n\r\n
//! c\r\n                                                        15 s later: a heartbeat
//! : heartbeat\n\r\n
//! 46\r\n                                                       the server closes: the close event
//! event: system\n
//! retry: 5000\n
//! data: {"type":"closed","reason":"closing"}\n\n\r\n
//! 0\r\n\r\n                                                     the last chunk: the stream is complete
//! ```
//!
//! No lock is held while this thread waits or writes. The thread takes the hub's lock
//! only to read a piece of the history and, at the end, to take the client out of the
//! registry.

#[cfg(test)]
#[path = "../../tests/inside/lane_model.rs"]
mod model;

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use super::counters::Sent;
use super::lane::{BATON_BYTE, Lane, QueueItem};
use super::record::Record;
use super::{CloseReason, Gap, Hub};
use crate::config::{LINGER_SILENCE, REPLAY_BYTES, WRITE_BYTES};
use crate::socket::{has_hung_up, lingering_close, write_within};
use crate::wire::{Event, EventId, LONGEST_FIELD, RemoteAddr, date, encode_id, json};

/// A registered client and its stream, which begins with [`serve`](Self::serve) or
/// [`write_to`](Self::write_to). The client is registered until one of these two returns,
/// or until the subscription is dropped.
#[derive(Debug)]
#[must_use = "the client is unregistered when its subscription is dropped"]
pub struct Subscription {
    hub: Hub,
    /// Shared with the registry, with items of the inbox, and with the fan-out thread.
    lane: Arc<Lane>,
    /// The receiving end of the lane's queue. Only the thread of the stream reads it. If
    /// it is dropped, the items in the queue are dropped too.
    queue: Receiver<QueueItem>,
    /// The welcome, already framed. Empty after [`take_welcome`](Self::take_welcome).
    welcome: Vec<u8>,
    /// The first piece of the events that the client missed, so that they cannot be
    /// evicted before its thread runs. LIMIT: [`REPLAY_BYTES`] and one event.
    missed: Vec<Arc<Record>>,
    /// The ordinal at which the client's thread goes on reading the history. `None`:
    /// `missed` is all of the replay, and the lane is live.
    position: Option<u64>,
    /// The join was logged and `on_presence` was called, so both must happen for the end,
    /// too.
    is_announced: bool,
    /// [`unregister`](Self::unregister) was called.
    is_unregistered: bool,
}

/// Makes the welcome: the `system` event, and the `recovery` event if the client sent a
/// `Last-Event-ID`. The parameter `cursor` is the id of the `system` event: a client that
/// is cut off before its first event resumes from there.
///
/// The thread that registers the client calls this, not the thread of the stream: what a
/// thread has once touched of its stack stays in memory for as long as the thread runs.
///
/// ```text
/// id: 1763790000123-5
/// event: system
/// retry: 5000
/// data: {"type":"connected","client_id":"…","timestamp":"…"}
/// ```
pub(super) fn welcome(
    lane: &Lane,
    retry: Duration,
    cursor: EventId,
    recovery: Option<Recovery>,
) -> Vec<u8> {
    let (client_id, now) = (&lane.client_id, date::iso8601(SystemTime::now()));
    let data = format!(r#"{{"type":"connected","client_id":"{client_id}","timestamp":"{now}"}}"#);
    let (mut bytes, cursor) = (Vec::new(), cursor.to_string());
    let has_gap = recovery
        .as_ref()
        .is_some_and(|recovery| recovery.gap.is_some());
    if !has_gap {
        encode_id(&cursor, &mut bytes);
    }
    Event::of_server("system", data)
        .with_retry(retry)
        .encode(&mut bytes);
    if let Some(recovery) = recovery {
        // ORDER: a cursor after a gap is sent together with the `recovery` event that
        // reports the gap, and not earlier. Otherwise a client that is cut off between
        // the two events would resume after the gap and never hear of it.
        if has_gap {
            encode_id(&cursor, &mut bytes);
        }
        Event::of_server(RECOVERY, recovery.data()).encode(&mut bytes);
    }
    lane.framing.wrap(&bytes)
}

/// The result of looking up the cursor that a client came with. It becomes the `recovery`
/// event.
pub(super) struct Recovery {
    /// The cursor, as the client sent it.
    pub(super) from: String,
    /// The number of events that are replayed.
    pub(super) missed: usize,
    /// Why some of the missed events cannot be replayed. `None`: all of them are
    /// replayed.
    pub(super) gap: Option<Gap>,
}

/// The name of the event that tells a client what is replayed and whether something is
/// lost.
pub(super) const RECOVERY: &str = "recovery";

impl Recovery {
    /// The data of the `recovery` event, such as
    /// `{"recovered_from":"1763790000123-5","replayed":3,"complete":false,"reason":"evicted"}`.
    pub(super) fn data(&self) -> String {
        let Recovery { from, missed, gap } = self;
        let reason = gap
            .map(|gap| format!(r#","reason":"{}""#, gap.name()))
            .unwrap_or_default();
        // LIMIT: a client can send a cursor of any length. It is cut to the length of the
        // longest id, so no real id is cut.
        let mut ends = (0..=from.len().min(LONGEST_FIELD)).rev();
        let end = ends.find(|&end| from.is_char_boundary(end));
        let from = &from[..end.unwrap_or(0)];
        let (from, complete) = (json::quoted(from), gap.is_none());
        format!(r#"{{"recovered_from":{from},"replayed":{missed},"complete":{complete}{reason}}}"#)
    }
}

impl Subscription {
    /// The subscription of a client that was just registered. It is not announced yet.
    pub(super) fn new(
        hub: Hub,
        lane: Arc<Lane>,
        queue: Receiver<QueueItem>,
        welcome: Vec<u8>,
        missed: Vec<Arc<Record>>,
        position: Option<u64>,
    ) -> Subscription {
        Subscription {
            hub,
            lane,
            queue,
            welcome,
            missed,
            position,
            is_announced: false,
            is_unregistered: false,
        }
    }

    /// Logs that the client has joined and calls `on_presence`. A client that is refused
    /// after its registration is not announced, neither when it joins nor when it leaves.
    pub(super) fn announce(&mut self) {
        // ORDER: set before the log line and the callback. If one of them panics, the end
        // is announced all the same.
        self.is_announced = true;
        let config = &self.hub.shared.config;
        config.report.info(format_args!(
            "client {} joined{}",
            self.lane.client_id,
            RemoteSuffix(self.lane.remote_addr())
        ));
        config.on_presence.tell(&self.lane, None);
    }

    /// The id by which the hub knows the client.
    pub fn client_id(&self) -> &str {
        &self.lane.client_id
    }

    /// The client's lane, for the permit check after the registration, and for tests.
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Takes out the first bytes of the stream, the framed welcome. The caller must write
    /// them before anything else of the stream. If they are not taken,
    /// [`serve`](Self::serve) and [`write_to`](Self::write_to) write them.
    pub fn take_welcome(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.welcome)
    }

    /// Writes `opening` and then the stream to `socket`, until the stream ends. Blocks
    /// all that time. The socket must be blocking and have `Config::write_timeout` as its
    /// write timeout; it is shut down in the end.
    pub fn serve(self, socket: Arc<TcpStream>, opening: Vec<u8>) -> CloseReason {
        let out = SocketOut {
            write_timeout: self.hub.shared.config.write_timeout,
            socket: Arc::clone(&socket),
        };
        self.lane.open(socket);
        self.run(out, opening)
    }

    /// Writes the stream to anything that takes bytes, until the stream ends or the
    /// writer fails. Blocks all that time: in `out`, and while there is nothing to write.
    ///
    /// Only a failed write shows that the reader of `out` has gone. While there are no
    /// events, that is the next heartbeat.
    pub fn write_to(self, out: &mut impl Write) -> CloseReason {
        self.run(WriterOut(out), Vec::new())
    }

    /// Runs the stream, and then unregisters the client and closes the output. Returns
    /// why the stream ended.
    fn run(mut self, out: impl Out, mut opening: Vec<u8>) -> CloseReason {
        opening.append(&mut self.take_welcome());
        let mut stream = Stream {
            hub: &self.hub,
            lane: &self.lane,
            queue: &self.queue,
            out,
            end: self.lane.permit_end(),
            written_backlog: BATON_BYTE,
            holds_baton: true,
        };
        let missed = std::mem::take(&mut self.missed);
        let close_reason = match stream.run(opening, missed, self.position) {
            Ok(close_reason) => close_reason,
            // If the fan-out has closed the lane, it may have aborted the socket. Then
            // the failed write is only a consequence, and the fan-out's reason is the
            // true one.
            Err(error) => stream.lane.close_reason().unwrap_or(match error.kind() {
                ErrorKind::TimedOut => CloseReason::TimedOut,
                _ => CloseReason::HungUp,
            }),
        };
        let Stream { mut out, .. } = stream;
        // ORDER: the client leaves the registry before its connection is closed, because
        // closing takes up to `LINGER_SILENCE`.
        self.unregister(close_reason);
        out.close();
        close_reason
    }

    /// Takes the client out of the registry, counts the close reason, logs the end and
    /// calls `on_presence`. Waits for the hub's lock only; the report and the callback
    /// run without it.
    fn unregister(&mut self, close_reason: CloseReason) {
        self.is_unregistered = true;
        let mut state = self.hub.shared.state();
        // `State::close_client` has counted a client that was replaced, disconnected or
        // not permitted any more.
        if state.registry.remove(&self.lane) {
            state.totals.count(close_reason);
        }
        drop(state);
        if !self.is_announced {
            return;
        }
        let report = &self.hub.shared.config.report;
        report.info(format_args!(
            "client {} left{}: {}",
            self.lane.client_id,
            RemoteSuffix(self.lane.remote_addr()),
            close_reason.explain()
        ));
        let on_presence = &self.hub.shared.config.on_presence;
        on_presence.tell(&self.lane, Some(close_reason));
    }
}

impl Drop for Subscription {
    /// Unregisters a client whose stream never ran, or panicked.
    fn drop(&mut self) {
        if !self.is_unregistered {
            self.unregister(CloseReason::HungUp);
        }
    }
}

/// The end of a log line: ` (127.0.0.1:5000)`, or nothing if the client has no address.
struct RemoteSuffix(Option<RemoteAddr>);

impl std::fmt::Display for RemoteSuffix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RemoteSuffix(remote_addr) = self;
        remote_addr
            .as_ref()
            .map_or(Ok(()), |remote_addr| write!(f, " ({remote_addr})"))
    }
}

/// The output of a stream, as the stream's own thread uses it: a socket, which the thread
/// shares with the fan-out ([`lane::Socket`](super::lane::Socket) is the fan-out's view),
/// or any [`Write`], which it has to itself.
///
/// The thread never writes while it does not hold the baton. [`Stream`] keeps to that; an
/// implementation of this trait does not check it.
trait Out {
    /// Writes all bytes. Blocks until they are written, for the write timeout at most if
    /// the output is a socket.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the socket non-blocking, as the fan-out needs it, before the baton is given
    /// back. Returns false if the fan-out cannot write to this output, so that the thread
    /// keeps the baton.
    fn make_nonblocking(&mut self) -> io::Result<bool>;
    /// Makes the socket blocking again. Called once this thread has the baton.
    fn make_blocking(&mut self) -> io::Result<()>;
    /// Whether the reader has gone, as far as that can be seen without writing. Does not
    /// wait. The socket must be non-blocking.
    fn has_hung_up(&mut self) -> bool;
    /// Closes the output after the last write.
    fn close(&mut self);
}

/// A socket that the thread shares with the fan-out.
struct SocketOut {
    socket: Arc<TcpStream>,
    /// How long one call of [`Out::write`] may take.
    write_timeout: Duration,
}

impl Out for SocketOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_within(&self.socket, bytes, self.write_timeout)
    }

    fn make_nonblocking(&mut self) -> io::Result<bool> {
        self.socket.set_nonblocking(true).map(|()| true)
    }

    fn make_blocking(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(false)
    }

    fn has_hung_up(&mut self) -> bool {
        has_hung_up(&self.socket)
    }

    fn close(&mut self) {
        // A short lingering close: the connection keeps its slot in the connection table
        // meanwhile, and the client of a stream had nothing to send.
        lingering_close(&self.socket, LINGER_SILENCE);
    }
}

/// Any writer. Only the stream's own thread writes to it, so that thread always holds the
/// baton, and every event comes through the queue.
struct WriterOut<'a, W>(&'a mut W);

impl<W: Write> Out for WriterOut<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    fn make_nonblocking(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn make_blocking(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn has_hung_up(&mut self) -> bool {
        false
    }

    fn close(&mut self) {}
}

/// Bytes that were copied together for one write.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    /// The number of events whose last byte is in `bytes`. An event counts as sent when
    /// its last byte is written.
    events: u32,
}

impl Joined {
    fn clear(&mut self) {
        self.bytes.clear();
        self.events = 0;
    }
}

/// Splits off the first events: as many as have [`REPLAY_BYTES`] together, and at least
/// one. Returns them and the number of their bytes. So an event larger than
/// [`REPLAY_BYTES`] is always returned alone.
fn first_piece(events: &[Arc<Record>]) -> (&[Arc<Record>], usize) {
    let (mut count, mut bytes) = (0, 0);
    for event in events {
        let length = event.message().len();
        if count > 0 && bytes + length > REPLAY_BYTES {
            break;
        }
        (count, bytes) = (count + 1, bytes + length);
    }
    (&events[..count], bytes)
}

/// What follows a piece of the replay.
enum Replay {
    /// The history has more. The next event to read has this ordinal.
    From(u64),
    /// Nothing follows: the lane is live, or it was closed meanwhile and its close reason
    /// is in the queue.
    Done,
    /// The history has evicted events that the client has not got yet, because the client
    /// reads too slowly.
    Evicted,
}

/// A stream while it is written. It lives on the stack of the stream's thread.
struct Stream<'a, O> {
    hub: &'a Hub,
    lane: &'a Arc<Lane>,
    queue: &'a Receiver<QueueItem>,
    out: O,
    /// When the client's permit ends. `None`: it has no end, or the end was reached and
    /// the client is being closed.
    end: Option<Instant>,
    /// The bytes of the lane's backlog that are written and not yet subtracted from the
    /// backlog.
    ///
    /// While this thread holds the baton, the backlog must not become 0, because a
    /// backlog of 0 gives the baton away. So one written byte stays in the backlog. A new
    /// lane has no written byte yet, so its backlog begins with [`BATON_BYTE`] instead.
    /// [`next_item`](Self::next_item) subtracts all of them when the queue is empty.
    written_backlog: usize,
    /// Whether this thread may write to `out`. Then the socket is blocking.
    holds_baton: bool,
}

impl<O: Out> Stream<'_, O> {
    /// Writes the stream from its first byte to its last. Returns why it ended. An `Err`
    /// is a write that failed or timed out.
    fn run(
        &mut self,
        opening: Vec<u8>,
        missed: Vec<Arc<Record>>,
        position: Option<u64>,
    ) -> io::Result<CloseReason> {
        if let Some(close_reason) = self.catch_up(opening, missed, position)? {
            return Ok(close_reason);
        }
        loop {
            self.close_at_end();
            let timeout = self.until_heartbeat().min(self.until_end());
            if let Some(close_reason) = self.wait_and_write(timeout)? {
                self.write_close_event(close_reason)?;
                return Ok(close_reason);
            }
        }
    }

    /// One turn of the main loop. Waits up to `timeout` for an item of the queue and
    /// writes all items that are there. If none comes, checks whether the client has hung
    /// up, and writes a heartbeat if one is due. Returns the close reason if the stream
    /// has ended.
    fn wait_and_write(&mut self, timeout: Duration) -> io::Result<Option<CloseReason>> {
        match self.next_item(timeout)? {
            Some(item) => self.write_queue(item),
            None if self.out.has_hung_up() => Ok(Some(CloseReason::HungUp)),
            None => self.heartbeat_if_due().map(|()| None),
        }
    }

    /// Writes the opening and the events that the client missed: first `missed`, and then
    /// the history from `position` on, piece by piece, until the lane is live. Returns a
    /// close reason if the replay fails. Holds the baton all the time.
    fn catch_up(
        &mut self,
        opening: Vec<u8>,
        mut missed: Vec<Arc<Record>>,
        mut position: Option<u64>,
    ) -> io::Result<Option<CloseReason>> {
        let mut joined = Joined {
            bytes: opening,
            events: 0,
        };
        loop {
            // The replay of a closed client stops here; the main loop finds the close
            // reason in the queue. A server that closes still sends everything that was
            // published before.
            let close_reason = self.lane.close_reason();
            // ORDER: the next piece is read before the last one is written. A write may
            // take long, and the oldest event of the history is the next one to be
            // evicted.
            let next = match position {
                Some(ordinal)
                    if close_reason.is_none_or(|reason| reason == CloseReason::ServerClosing) =>
                {
                    self.read_history(ordinal, &mut missed)
                }
                _ => Replay::Done,
            };
            // What was read is written even if the history has evicted what follows.
            let has_room = self.write_missed(&mut missed, &mut joined)?;
            match next {
                Replay::Done if has_room => return Ok(None),
                Replay::From(ordinal) if has_room => position = Some(ordinal),
                _ => return Ok(Some(CloseReason::FellBehind)),
            }
        }
    }

    /// Reads the next piece of the history, from the ordinal `from` on, and appends its
    /// events for this client to `missed`. If the piece reaches the end of the history,
    /// the lane goes live under the same lock.
    ///
    /// LIMIT: one piece of about [`REPLAY_BYTES`], not the whole rest. A slow client
    /// would keep all of the rest in memory after the history has evicted it.
    fn read_history(&self, from: u64, missed: &mut Vec<Arc<Record>>) -> Replay {
        let state = self.hub.shared.state();
        let Some(mut piece) = state.history.slice(from, REPLAY_BYTES) else {
            return Replay::Evicted;
        };
        let next = from + piece.len() as u64;
        let position = self.lane.read_up_to(next, state.history.head());
        drop(state);
        // LOCK: the hub's lock is not held while topics are compared.
        piece.retain(|event| self.lane.patterns.matches(event.topic()));
        missed.append(&mut piece);
        position.map_or(Replay::Done, Replay::From)
    }

    /// Writes `joined` and then the events in `missed`, and empties both. Several small
    /// events are copied together and become one frame and one write. A large event is
    /// written from the record, without a copy. Returns false if a large event does not
    /// fit into the limit of all queues together; then it is not written.
    ///
    /// LIMIT: at most [`REPLAY_BYTES`] and a few bytes of framing are copied for a client
    /// that reads slowly. A large event counts as queued while it is written, because the
    /// history may evict it and only this thread keeps it.
    fn write_missed(
        &mut self,
        missed: &mut Vec<Arc<Record>>,
        joined: &mut Joined,
    ) -> io::Result<bool> {
        let framing = self.lane.framing;
        let mut rest = &missed[..];
        while !rest.is_empty() {
            let (piece, length) = first_piece(rest);
            rest = &rest[piece.len()..];
            if joined.bytes.len() + length > REPLAY_BYTES {
                self.flush(joined)?;
            }
            framing.open(length, &mut joined.bytes);
            if length <= REPLAY_BYTES {
                joined.bytes.reserve_exact(length + 2);
                let messages = piece.iter().map(|event| event.message());
                messages.for_each(|message| joined.bytes.extend_from_slice(message));
            } else {
                let most_queued = self.hub.shared.most_queued;
                let Some(_queued) = self.lane.try_reserve(length, most_queued) else {
                    return Ok(false);
                };
                // Writes the size line of the chunk, which is in `joined`, before the
                // event.
                self.flush(joined)?;
                for part in piece[0].message().chunks(WRITE_BYTES) {
                    self.write(part)?;
                }
            }
            framing.close(&mut joined.bytes);
            joined.events += piece.len() as u32;
        }
        missed.clear();
        self.flush(joined)?;
        Ok(true)
    }

    /// Writes bytes that are not in the backlog, in parts of at most [`WRITE_BYTES`], and
    /// empties `joined`. The write timeout applies to each part.
    fn flush(&mut self, joined: &mut Joined) -> io::Result<()> {
        for part in joined.bytes.chunks(WRITE_BYTES) {
            self.write(part)?;
        }
        self.count_events(joined.events);
        joined.clear();
        Ok(())
    }

    /// Returns the next item of the queue, with the baton. Returns `None` if no item came
    /// within `timeout`; then this thread does not have the baton, unless the output is
    /// one that the fan-out cannot write to.
    ///
    /// This is where the thread sleeps, and where the baton changes hands:
    ///
    /// - The queue has an item: the thread keeps the baton and returns the item.
    /// - The queue is empty: the thread makes the socket non-blocking and subtracts all
    ///   written bytes from the backlog. A backlog of 0 gives the baton back. The thread
    ///   then sleeps until an item comes.
    /// - The backlog is still greater than 0: the fan-out has added bytes after the look
    ///   into the queue. The thread still has the baton. The fan-out adds to the backlog
    ///   first and sends the item next, so the item is about to arrive, and the wait for
    ///   it is short.
    fn next_item(&mut self, timeout: Duration) -> io::Result<Option<QueueItem>> {
        if self.holds_baton {
            if let Ok(item) = self.queue.try_recv() {
                return Ok(Some(item));
            }
            // ORDER: the mode of the socket changes before the baton is given back.
            // Afterwards the fan-out may write at any moment, and a write to a blocking
            // socket would make it wait for this client.
            if self.out.make_nonblocking()? {
                if self.lane.reduce_backlog(self.written_backlog) > 0 {
                    self.written_backlog = 0;
                    self.out.make_blocking()?;
                    return Ok(self.queue.recv().ok());
                }
                (self.written_backlog, self.holds_baton) = (0, false);
            }
        }
        match self.queue.recv_timeout(timeout) {
            Ok(item) => {
                // The fan-out sends an item only with the baton: what it could not write,
                // or a close reason.
                self.take_baton()?;
                Ok(Some(item))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("BUG: the sender of the queue is in the lane, which this stream keeps")
            }
        }
    }

    /// Notes that this thread has the baton, and makes the socket blocking. Does nothing
    /// if it had the baton before.
    fn take_baton(&mut self) -> io::Result<()> {
        if !self.holds_baton {
            self.holds_baton = true;
            self.out.make_blocking()?;
        }
        Ok(())
    }

    /// Writes the items of the queue, beginning with `first`, until the queue is empty or
    /// an item closes the stream. Small items are joined up to [`WRITE_BYTES`], so that a
    /// burst of events costs few writes. Returns the close reason if there is one;
    /// everything before it in the queue has been written.
    fn write_queue(&mut self, first: QueueItem) -> io::Result<Option<CloseReason>> {
        let (mut next, mut joined) = (Some(first), Joined::default());
        while let Some(item) = next {
            match item {
                QueueItem::Close(close_reason) => {
                    self.write_joined(&mut joined)?;
                    return Ok(Some(close_reason));
                }
                QueueItem::Events { .. } | QueueItem::Private { .. } => {
                    unreachable!("BUG: a stream has an item of a poll in its queue")
                }
                QueueItem::Bytes {
                    frame,
                    from,
                    events,
                    queued: _queued,
                } => {
                    let rest = &frame.bytes(self.lane.framing)[from..];
                    if joined.bytes.len() + rest.len() > WRITE_BYTES {
                        self.write_joined(&mut joined)?;
                    }
                    // LIMIT: the write timeout applies to each part of `WRITE_BYTES`, so
                    // a client that reads slowly but steadily gets an event of any size.
                    // Each part leaves the backlog once it is written. The last part, of
                    // 1 to `WRITE_BYTES` bytes, waits for the next item to join it.
                    let (parts, last) = rest.split_at((rest.len() - 1) / WRITE_BYTES * WRITE_BYTES);
                    for part in parts.chunks(WRITE_BYTES) {
                        self.write_backlog(part)?;
                    }
                    joined.bytes.extend_from_slice(last);
                    joined.events += events;
                }
            }
            next = self.queue.try_recv().ok();
        }
        self.write_joined(&mut joined)?;
        Ok(None)
    }

    /// Writes bytes that were joined from the queue, counts their events as sent, and
    /// empties `joined`.
    fn write_joined(&mut self, joined: &mut Joined) -> io::Result<()> {
        if !joined.bytes.is_empty() {
            self.write_backlog(&joined.bytes)?;
            self.lane.dequeued(joined.events);
            self.count_events(joined.events);
            joined.clear();
        }
        Ok(())
    }

    /// Writes at least one byte of the backlog, and subtracts what is written from the
    /// backlog, except for one byte: that byte keeps the baton for this thread.
    ///
    /// Example: the backlog is 1 + 500 bytes, of which 1 is written
    /// ([`written_backlog`](Self::written_backlog)), and 300 bytes are written here. Then
    /// 301 are written, 300 are subtracted, and 201 remain, of which 1 is written.
    fn write_backlog(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)?;
        self.written_backlog += bytes.len();
        self.lane.reduce_backlog(self.written_backlog - BATON_BYTE);
        self.written_backlog = BATON_BYTE;
        Ok(())
    }

    /// Writes all bytes, notes the time of the write, and counts the bytes. Blocks up to
    /// the write timeout. This thread holds the baton.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A client that reads slowly may keep this thread writing without a pause.
        self.close_at_end();
        self.out.write(bytes)?;
        self.lane.note_write(self.hub.shared.now_ms());
        self.count_sent(Sent {
            events: 0,
            bytes: bytes.len() as u64,
        });
        Ok(())
    }

    /// Counts events whose last byte was written.
    fn count_events(&self, events: u32) {
        self.count_sent(Sent {
            events: events.into(),
            bytes: 0,
        });
    }

    /// Adds to the numbers of this client and to those of the hub.
    fn count_sent(&self, sent: Sent) {
        self.lane.count_sent(sent);
        self.hub.shared.counters.add(sent);
    }

    /// When the next heartbeat is due if nothing is written until then, in milliseconds
    /// since the hub was created.
    fn heartbeat_due(&self) -> u64 {
        self.lane.wrote_at() + self.hub.shared.config.heartbeat.as_millis() as u64
    }

    /// How long the thread may sleep until the next heartbeat is due. Zero if one is due.
    fn until_heartbeat(&self) -> Duration {
        Duration::from_millis(
            self.heartbeat_due()
                .saturating_sub(self.hub.shared.now_ms()),
        )
    }

    /// How long the thread may sleep until the client's permit ends.
    fn until_end(&self) -> Duration {
        self.end.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        })
    }

    /// Closes the client if its permit has ended. The events that were published before
    /// still come first: the fan-out delivers the close item after them.
    fn close_at_end(&mut self) {
        if self.end.is_some() && self.until_end().is_zero() {
            self.end = None;
            let mut state = self.hub.shared.state();
            state.close_client(self.lane, CloseReason::Expired);
            self.hub.shared.wake_fan_out(state);
        }
    }

    /// Writes a heartbeat if one is due. Does nothing if the fan-out is writing at this
    /// moment: its bytes show as well as a heartbeat that the connection works.
    ///
    /// A heartbeat keeps proxies from closing a silent connection. It also finds a client
    /// that has vanished without closing its connection: the kernel gets no answer to the
    /// heartbeat, and sooner or later a write fails.
    fn heartbeat_if_due(&mut self) -> io::Result<()> {
        // The fan-out may have written since this thread went to sleep.
        if self.hub.shared.now_ms() < self.heartbeat_due() {
            return Ok(());
        }
        let heartbeat = self.lane.framing.wrap(self.lane.heartbeat.text());
        if !self.holds_baton {
            if !self.lane.claim(heartbeat.len()) {
                return Ok(());
            }
            self.take_baton()?;
            // `next_item` subtracts them. Nothing does so if the write fails, but then
            // the stream is over.
            self.written_backlog = heartbeat.len();
        }
        self.write(&heartbeat)
    }

    /// Writes the last event and the end of the chunked encoding. Writes nothing if the
    /// client does not read any more (see [`CloseReason::wire_name`]). The event has no
    /// id, so the client's cursor does not change.
    ///
    /// ```text
    /// event: system
    /// retry: 5000
    /// data: {"type":"closed","reason":"closing"}
    /// ```
    fn write_close_event(&mut self, close_reason: CloseReason) -> io::Result<()> {
        let Some(reason) = close_reason.wire_name() else {
            return Ok(());
        };
        self.take_baton()?;
        let data = format!(r#"{{"type":"closed","reason":"{reason}"}}"#);
        let retry = self.hub.shared.retry_after(close_reason);
        let mut event = Vec::new();
        let last = Event::of_server("system", data).with_retry(retry);
        last.encode(&mut event);
        let framing = self.lane.framing;
        self.write(&[&framing.wrap(&event), framing.end()].concat())
    }
}
