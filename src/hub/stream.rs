//! One client's life, from the welcome to the farewell: the main loop of the crate.
//!
//! A client's thread is here from the moment that its request is answered until it leaves. It
//! writes the welcome, reads what the client missed from the history, and from then on mostly
//! sleeps in `recv_timeout`: while the socket takes everything, the fan-out thread writes (see
//! `lane.rs`). It wakes for what the socket did not take, to look whether the client is still
//! there, for a heartbeat, and for the end.

#[cfg(test)]
#[path = "../../tests/inside/lane_model.rs"]
mod model;

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use super::counters::Sent;
use super::lane::{BATON_BYTE, Lane, QueueItem};
use super::record::Record;
use super::{CloseReason, Gap, Hub};
use crate::config::{LINGER_SILENCE, REPLAY_BYTES, WRITE_BYTES};
use crate::socket::{has_hung_up, lingering_close, write_within};
use crate::wire::{Event, EventId, LONGEST_FIELD, RemoteAddr, date, encode_id, json};

/// A client that was let in. Dropped, it is out again.
#[derive(Debug)]
#[must_use = "a subscription that is dropped is over"]
pub struct Subscription {
    hub: Hub,
    lane: Arc<Lane>,
    queue: Receiver<QueueItem>,
    /// The welcome, framed, unless it was taken.
    welcome: Vec<u8>,
    /// The first of what was missed.
    missed: Vec<Arc<Record>>,
    /// The first ordinal to be read from the history; `None` if there is nothing to read.
    position: Option<u64>,
    /// Whether the log and `on_presence` know of the client.
    is_announced: bool,
    /// Whether the hub has been told of the end.
    has_left: bool,
}

/// The `system` event, and the `recovery` event of a client that came with a cursor. `cursor` is
/// where the stream begins: who is cut off before the first event resumes from there.
///
/// Made by whoever lets the client in, so that the stream's own thread touches no more memory
/// than it needs for life.
pub(super) fn welcome(
    lane: &Lane,
    retry: Duration,
    cursor: EventId,
    recovery: Option<Recovery>,
) -> Vec<u8> {
    let (client_id, now) = (&lane.client_id, date::iso8601(SystemTime::now()));
    let data = format!(r#"{{"type":"connected","client_id":"{client_id}","timestamp":"{now}"}}"#);
    let (mut bytes, cursor) = (Vec::new(), cursor.to_string());
    let has_gap = recovery.as_ref().is_some_and(|told| told.gap.is_some());
    if !has_gap {
        encode_id(&cursor, &mut bytes);
    }
    Event::of_server("system", data)
        .with_retry(retry)
        .encode(&mut bytes);
    if let Some(recovery) = recovery {
        // ORDER: a cursor behind a gap comes with the word of the gap and not before it. Who is cut
        // off between the two events would come back as one who has missed nothing.
        if has_gap {
            encode_id(&cursor, &mut bytes);
        }
        Event::of_server(RECOVERY, recovery.data()).encode(&mut bytes);
    }
    lane.framing.wrap(&bytes)
}

/// What became of the cursor that a client came with.
pub(super) struct Recovery {
    pub(super) from: String,
    /// How many events are replayed.
    pub(super) missed: usize,
    /// What cannot be.
    pub(super) gap: Option<Gap>,
}

/// The name of the event that tells of it.
pub(super) const RECOVERY: &str = "recovery";

impl Recovery {
    /// The data of that event.
    pub(super) fn data(&self) -> String {
        let Recovery { from, missed, gap } = self;
        let reason = gap
            .map(|gap| format!(r#","reason":"{}""#, gap.name()))
            .unwrap_or_default();
        // LIMIT: a cursor is as long as its client likes. No id of an event is cut.
        let mut ends = (0..=from.len().min(LONGEST_FIELD)).rev();
        let end = ends.find(|&end| from.is_char_boundary(end));
        let from = &from[..end.unwrap_or(0)];
        let (from, complete) = (json::quoted(from), gap.is_none());
        format!(r#"{{"recovered_from":{from},"replayed":{missed},"complete":{complete}{reason}}}"#)
    }
}

impl Subscription {
    pub(super) fn new(
        hub: Hub,
        lane: Arc<Lane>,
        queue: Receiver<QueueItem>,
        (welcome, missed): (Vec<u8>, Vec<Arc<Record>>),
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
            has_left: false,
        }
    }

    /// Logs that the client has joined and calls `on_presence`. A client that is refused after its
    /// registration is not announced, neither when it joins nor when it leaves.
    pub(super) fn announce(&mut self) {
        // ORDER: before the log line and the callback, so that one that panics has its counterpart.
        self.is_announced = true;
        let config = &self.hub.shared.config;
        config.report.info(format_args!(
            "client {} joined{}",
            self.lane.client_id,
            At(self.lane.remote_addr())
        ));
        config.on_presence.tell(&self.lane, None);
    }

    /// The name under which the hub knows the client.
    pub fn client_id(&self) -> &str {
        &self.lane.client_id
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The first bytes of the stream, framed: the welcome. Whoever takes them out writes them
    /// first; otherwise they are written with the rest.
    pub fn take_welcome(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.welcome)
    }

    /// Writes the stream to `socket`, `opening` before it, until it ends. Blocks all that time.
    /// The socket must be blocking and have `Config::write_timeout` as its write timeout; it is
    /// shut down in the end.
    pub fn serve(self, socket: Arc<TcpStream>, opening: Vec<u8>) -> CloseReason {
        let out = SocketOut {
            write_timeout: self.hub.shared.config.write_timeout,
            socket: Arc::clone(&socket),
        };
        self.lane.open(socket);
        self.run(out, opening)
    }

    /// Writes the stream to anything that takes bytes, until it ends or the writer fails. Blocks
    /// all that time: in `out`, and while there is nothing to write.
    ///
    /// A heartbeat is the only look that is taken at a writer: one that nothing is written to
    /// cannot say that its reader has gone.
    pub fn write_to(self, out: &mut impl Write) -> CloseReason {
        self.run(WriterOut(out), Vec::new())
    }

    fn run(mut self, out: impl Out, mut opening: Vec<u8>) -> CloseReason {
        opening.append(&mut self.take_welcome());
        let mut stream = Stream {
            hub: &self.hub,
            lane: &self.lane,
            queue: &self.queue,
            out,
            owed: BATON_BYTE,
            holds_baton: true,
        };
        let missed = std::mem::take(&mut self.missed);
        let close_reason = match stream.live(opening, missed, self.position) {
            Ok(close_reason) => close_reason,
            // The fan-out's reason comes before what it looks like from here: it cuts the socket.
            Err(error) => stream.lane.ending().unwrap_or(match error.kind() {
                ErrorKind::TimedOut => CloseReason::TimedOut,
                _ => CloseReason::HungUp,
            }),
        };
        let Stream { mut out, .. } = stream;
        // ORDER: out of the registry first. To close may take a moment.
        self.leave(close_reason);
        out.close();
        close_reason
    }

    fn leave(&mut self, close_reason: CloseReason) {
        self.has_left = true;
        let mut state = self.hub.shared.state();
        // Who was replaced or kicked is out and counted already.
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
            At(self.lane.remote_addr()),
            close_reason.explain()
        ));
        let on_presence = &self.hub.shared.config.on_presence;
        on_presence.tell(&self.lane, Some(close_reason));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.has_left {
            self.leave(CloseReason::HungUp);
        }
    }
}

/// ` (127.0.0.1:5000)`, or nothing.
struct At(Option<RemoteAddr>);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let At(remote_addr) = self;
        remote_addr
            .as_ref()
            .map_or(Ok(()), |remote_addr| write!(f, " ({remote_addr})"))
    }
}

/// Where a stream is written to, as its own thread sees it.
trait Out {
    /// Writes all of it, and waits for that as long as is allowed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the socket what the fan-out expects of it. False: nobody else can write here.
    fn make_nonblocking(&mut self) -> io::Result<bool>;
    /// Makes the socket ours again.
    fn make_blocking(&mut self) -> io::Result<()>;
    /// Whether the reader has gone, as far as can be seen without writing. Only while lent.
    fn has_hung_up(&mut self) -> bool;
    /// No more will be written.
    fn close(&mut self);
}

struct SocketOut {
    socket: Arc<TcpStream>,
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
        // Its place is not to be had meanwhile, and it had nothing to send.
        lingering_close(&self.socket, LINGER_SILENCE);
    }
}

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

/// Bytes that are written together, and the events that end in them.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    events: u32,
}

impl Joined {
    fn clear(&mut self) {
        self.bytes.clear();
        self.events = 0;
    }
}

/// The events that come first and have [`REPLAY_BYTES`] together, and how many bytes they have; a larger event
/// is alone.
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

/// A subscription that is being written.
struct Stream<'a, O> {
    hub: &'a Hub,
    lane: &'a Lane,
    queue: &'a Receiver<QueueItem>,
    out: O,
    /// Bytes that are written and not paid back yet. Never all of the backlog while we hold the
    /// baton, because that would give it away.
    owed: usize,
    holds_baton: bool,
}

impl<O: Out> Stream<'_, O> {
    fn live(
        &mut self,
        opening: Vec<u8>,
        missed: Vec<Arc<Record>>,
        position: Option<u64>,
    ) -> io::Result<CloseReason> {
        if let Some(close_reason) = self.open(opening, missed, position)? {
            return Ok(close_reason);
        }
        loop {
            if let Some(close_reason) = self.turn(self.until_heartbeat())? {
                self.part(close_reason)?;
                return Ok(close_reason);
            }
        }
    }

    /// One turn of the main loop: what comes into the queue within `patience`, or a look after the
    /// client.
    fn turn(&mut self, patience: Duration) -> io::Result<Option<CloseReason>> {
        match self.next(patience)? {
            Some(message) => self.write_queue(message),
            None if self.out.has_hung_up() => Ok(Some(CloseReason::HungUp)),
            None => self.beat().map(|()| None),
        }
    }

    /// Writes the opening and what the client missed. Returns why the stream ends, if it does.
    fn open(
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
            // A client that is told to leave has its end in the queue. A server that closes says it after
            // what was published.
            let ending = self.lane.ending();
            // ORDER: read before the last piece is written, which may take long: the oldest event is the
            // next one to be evicted.
            let next = match position {
                Some(ordinal) if ending.is_none_or(|why| why == CloseReason::ServerClosing) => {
                    self.read_history(ordinal, &mut missed)
                }
                _ => Some(None),
            };
            let has_room = self.write_missed(&mut missed, &mut joined)?;
            match next {
                Some(None) if has_room => return Ok(None),
                Some(more) if has_room => position = more,
                _ => return Ok(Some(CloseReason::FellBehind)),
            }
        }
    }

    /// Appends the next piece of what was missed; returns where to read on, which is nowhere once
    /// the lane has gone live. `None`: the history has moved on over a client too slow for it.
    ///
    /// LIMIT: a piece, and not all that was missed, because the history may evict it and a slow client
    /// still holds it.
    fn read_history(&self, from: u64, missed: &mut Vec<Arc<Record>>) -> Option<Option<u64>> {
        let state = self.hub.shared.state();
        let mut slice = state.history.slice(from, REPLAY_BYTES)?;
        let next = from + slice.len() as u64;
        let position = self.lane.read_up_to(next, state.history.head());
        drop(state);
        // LOCK: not held while topics are compared.
        slice.retain(|event| self.lane.patterns.matches(event.topic()));
        missed.append(&mut slice);
        Some(position)
    }

    /// Writes what is joined and these events: small ones together, as one piece of the stream, and large ones
    /// from where they are. False: there is no room for a large one among the bytes that wait for all clients.
    ///
    /// LIMIT: [`REPLAY_BYTES`] are copied for a client that reads slowly.
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
                let Some(_queued) = self.lane.queue_within(length, most_queued) else {
                    return Ok(false);
                };
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

    fn flush(&mut self, joined: &mut Joined) -> io::Result<()> {
        for part in joined.bytes.chunks(WRITE_BYTES) {
            self.write(part)?;
        }
        self.count_events(joined.events);
        joined.clear();
        Ok(())
    }

    /// The next message; `None` if none came within `patience`.
    fn next(&mut self, patience: Duration) -> io::Result<Option<QueueItem>> {
        if self.holds_baton {
            if let Ok(message) = self.queue.try_recv() {
                return Ok(Some(message));
            }
            if self.out.make_nonblocking()? {
                if self.lane.pay(self.owed) > 0 {
                    // The fan-out has raised the backlog meanwhile: its message is on its way.
                    self.owed = 0;
                    self.out.make_blocking()?;
                    return Ok(self.queue.recv().ok());
                }
                (self.owed, self.holds_baton) = (0, false);
            }
        }
        match self.queue.recv_timeout(patience) {
            Ok(message) => {
                // Whoever raised the backlog from 0 left it to us with this message.
                self.take_baton()?;
                Ok(Some(message))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("BUG: the lane that holds the sender is ours too")
            }
        }
    }

    fn take_baton(&mut self) -> io::Result<()> {
        if !self.holds_baton {
            self.holds_baton = true;
            self.out.make_blocking()?;
        }
        Ok(())
    }

    /// Writes what is in the queue, joined, up to a farewell.
    fn write_queue(&mut self, first: QueueItem) -> io::Result<Option<CloseReason>> {
        let (mut next, mut joined) = (Some(first), Joined::default());
        while let Some(message) = next {
            match message {
                QueueItem::Close(close_reason) => {
                    self.write_joined(&mut joined)?;
                    return Ok(Some(close_reason));
                }
                QueueItem::Events { .. } | QueueItem::Private { .. } => {
                    unreachable!("BUG: a stream is told like a poll")
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
                    // LIMIT: the write timeout is for each part, so that who reads slowly but
                    // steadily gets an event of any size; and it is paid for as it goes.
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

    /// Writes what was joined from the queue, and empties it.
    fn write_joined(&mut self, joined: &mut Joined) -> io::Result<()> {
        if !joined.bytes.is_empty() {
            self.write_backlog(&joined.bytes)?;
            self.lane.dequeued(joined.events);
            self.count_events(joined.events);
            joined.clear();
        }
        Ok(())
    }

    /// Writes bytes that are in the backlog, and pays for them but for what keeps us the baton.
    fn write_backlog(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)?;
        self.owed += bytes.len();
        self.lane.pay(self.owed - BATON_BYTE);
        self.owed = BATON_BYTE;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write(bytes)?;
        self.lane.touch(self.hub.shared.now_ms());
        self.count(Sent {
            events: 0,
            bytes: bytes.len() as u64,
        });
        Ok(())
    }

    fn count_events(&self, events: u32) {
        self.count(Sent {
            events: events.into(),
            bytes: 0,
        });
    }

    fn count(&self, sent: Sent) {
        self.lane.count(sent);
        self.hub.shared.counters.add(sent);
    }

    /// When the next heartbeat is due, if nothing is written until then.
    fn heartbeat_due(&self) -> u64 {
        self.lane.wrote_at() + self.hub.shared.config.heartbeat.as_millis() as u64
    }

    fn until_heartbeat(&self) -> Duration {
        Duration::from_millis(
            self.heartbeat_due()
                .saturating_sub(self.hub.shared.now_ms()),
        )
    }

    /// Writes a heartbeat, if one is due and the fan-out is not just writing something better.
    fn beat(&mut self) -> io::Result<()> {
        if self.hub.shared.now_ms() < self.heartbeat_due() {
            return Ok(());
        }
        let heartbeat = self.lane.framing.wrap(self.lane.heartbeat.text());
        if !self.holds_baton {
            if !self.lane.claim(heartbeat.len()) {
                return Ok(());
            }
            self.take_baton()?;
            self.owed = heartbeat.len();
        }
        self.write(&heartbeat)
    }

    /// The last event, to a client that still listens, and the end. The event has no id: the cursor of
    /// the client stays where it is.
    fn part(&mut self, close_reason: CloseReason) -> io::Result<()> {
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
