//! One client's lane: the queue to its thread, and the right to write to its socket.
//!
//! To wake a parked thread for every event costs several times what the `write` itself does. So
//! the fan-out thread writes to the socket directly as long as the socket takes it, and the
//! client's own thread sleeps. Who may write is decided by one number, the *backlog*: the bytes
//! that are owed to the client. Whoever raises it from 0 has the baton until it is 0 again.
//!
//! ```text
//!                   fan-out: claim 0 → n              written: n → 0
//!        ┌──────── idle (backlog 0) ────────▶ fan-out writes ────────▶ idle
//!        │              │                            │ short write: the rest goes into the queue,
//!        │              │ thread: claim 0 → n        ▼ and the baton with it
//!        │              └──── heartbeat ───▶ the client's thread writes; the fan-out only queues
//!        └───────────────────────────────────────────┘ queue empty: paid back to 0
//! ```
//!
//! - Only the fan-out thread puts messages into the queue, so the queue is in order.
//! - The socket is non-blocking while the lane is idle, and blocking while the client's thread has
//!   the baton. The thread changes it, always before it gives the baton back.
//! - A farewell in the queue hands the baton over for good: the fan-out has written its last.
//! - A new lane begins with the thread holding the baton, by a debt of [`BATON_BYTE`] bytes.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use super::counters::Sent;
use super::record::Record;
use super::{CloseReason, Heartbeat, Permit, Subscribe};
use crate::atomic::AtomicU64;
use crate::config::{POLL_BYTES, STALLED_MS};
use crate::wire::{Frame, Framing, Patterns, RemoteAddr};

/// What the client's thread owes while nothing is owed: it keeps the baton by it.
pub(super) const BATON_BYTE: usize = 1;

/// What comes out of a client's queue.
#[derive(Debug)]
pub(super) enum QueueItem {
    /// Bytes for the socket, which end that many events. Those before `from` are written.
    Bytes {
        frame: Arc<Frame>,
        from: usize,
        events: u32,
        /// Dropped when the bytes have been written, or with the queue.
        queued: Queued,
    },
    /// The first events that came while a poll was waiting: they wake it. A stream gets bytes.
    Events {
        records: Vec<Arc<Record>>,
        queued: Queued,
    },
    /// An event for this client alone, if it is a poll.
    Private { record: Arc<Record>, queued: Queued },
    /// The last message.
    Close(CloseReason),
}

/// The bytes that wait in the queues of all clients together. LIMIT: the fan-out keeps it under
/// `Config::total_queues`, by closing the clients that are owed most. Bytes that wait for several clients count for
/// each of them, as they do in each client's own backlog.
///
/// ORDER: Relaxed: a number by itself. The fan-out adds what it queues before it reads the sum.
pub(super) type TotalQueued = Arc<AtomicUsize>;

/// Bytes of one message that count as queued, until this is dropped.
#[derive(Debug)]
pub(super) struct Queued {
    bytes: usize,
    total: TotalQueued,
}

impl Queued {
    fn new(bytes: usize, total: &TotalQueued) -> Queued {
        total.fetch_add(bytes, Ordering::Relaxed);
        Queued {
            bytes,
            total: Arc::clone(total),
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the fan-out thread needs of a client's socket. A trait, so that a test can stand in for
/// the kernel.
pub(super) trait Socket: Send + Sync {
    /// Writes what fits, without waiting.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Ends both directions at once, and with them a write that is waiting.
    fn abort(&self);
}

impl Socket for TcpStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn abort(&self) {
        // Best effort: it fails only if the connection has ended already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// How far behind a client is.
pub(super) struct Lag {
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) replaying: u64,
}

/// What a client is here for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To stay.
    Stream,
    /// To take the first that comes. Its leaving is no farewell: nobody's stream has ended.
    Poll,
}

/// What the hub and the fan-out thread know of a client.
pub(super) struct Lane {
    pub(super) client_id: Arc<str>,
    pub(super) patterns: Patterns,
    pub(super) framing: Framing,
    pub(super) heartbeat: Heartbeat,
    pub(super) kind: Kind,
    pub(super) peer: Option<SocketAddr>,
    pub(super) address: Option<IpAddr>,
    pub(super) permit: Option<Permit>,
    /// Only the fan-out thread sends to it, except for events that are for one poll alone.
    queue: Sender<QueueItem>,
    /// The queues of all clients together.
    total_queued: TotalQueued,
    /// Where the lane stands in the list of its audience. Changed and read under the hub's lock.
    index_in_audience: AtomicUsize,
    /// Bytes owed to the client; see the module. LIMIT: with more than `limit` it is let go.
    backlog: AtomicUsize,
    limit: usize,
    /// Where direct writes go, as soon as the stream has one. Without it all goes through the queue.
    socket: OnceLock<Arc<dyn Socket>>,
    /// Events with a smaller ordinal are not for the fan-out to deliver: the client's thread reads
    /// them from the history. `u64::MAX` until it has read them all.
    live_from: AtomicU64,
    /// Events from this ordinal on are not for the client, because it was told to leave before. `u64::MAX` until
    /// then.
    live_until: AtomicU64,
    /// Which event the client's thread reads next from the history, until it is live. Changed and
    /// read under the hub's lock.
    reading_from: AtomicU64,
    /// Events in the queue. Only for those who ask how far behind the client is.
    queued: AtomicU64,
    /// What was written, by whoever had the baton.
    sent_events: AtomicU64,
    sent_bytes: AtomicU64,
    /// When the client was let in, in milliseconds of the hub's life.
    pub(super) joined_at: u64,
    /// When something was last written, in milliseconds of the hub's life; heartbeats go by it.
    wrote_at: AtomicU64,
    /// Set once, by the fan-out thread.
    close_reason: OnceLock<CloseReason>,
}

impl Lane {
    pub(super) fn new(
        client_id: Arc<str>,
        params: &Subscribe,
        kind: Kind,
        limit: usize,
        total_queued: &TotalQueued,
        now_ms: u64,
    ) -> (Arc<Lane>, Receiver<QueueItem>) {
        let (queue, receiver) = channel();
        let lane = Lane {
            client_id,
            patterns: params.patterns.clone(),
            framing: params.framing,
            heartbeat: params.heartbeat,
            kind,
            peer: params.peer,
            address: params.address,
            permit: params.permit.clone(),
            queue,
            total_queued: Arc::clone(total_queued),
            index_in_audience: AtomicUsize::new(0),
            backlog: AtomicUsize::new(BATON_BYTE),
            limit,
            socket: OnceLock::new(),
            live_from: AtomicU64::new(u64::MAX),
            live_until: AtomicU64::new(u64::MAX),
            reading_from: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            sent_events: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            joined_at: now_ms,
            // Its patience begins here.
            wrote_at: AtomicU64::new(now_ms),
            close_reason: OnceLock::new(),
        };
        (Arc::new(lane), receiver)
    }

    /// The client's own address, as far as it is known.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let of_peer = || self.peer.map(|peer| peer.ip().to_canonical());
        self.address.or_else(of_peer)
    }

    /// Whether the client may still get what it asked for.
    pub(super) fn is_permitted(&self) -> bool {
        let permit = self.permit.as_ref();
        permit.is_none_or(|permit| permit.allows(&self.patterns))
    }

    /// Counts bytes that are held for the client outside of its queue. `None`: with them, all queues together
    /// would hold more than `most`.
    pub(super) fn try_reserve(&self, bytes: usize, most: usize) -> Option<Queued> {
        let queued = Queued::new(bytes, &self.total_queued);
        // ORDER: Relaxed: added before the sum is read, so that of two that come together one sees both.
        (self.total_queued.load(Ordering::Relaxed) <= most).then_some(queued)
    }

    /// Where the client is, for the log.
    pub(super) fn remote_addr(&self) -> Option<RemoteAddr> {
        let (peer, client) = self.peer.zip(self.address())?;
        Some(RemoteAddr { peer, client })
    }

    /// Notes where the lane stands in its audience. The hub's lock is held.
    pub(super) fn set_index_in_audience(&self, index_in_audience: usize) {
        self.index_in_audience
            .store(index_in_audience, Ordering::Relaxed);
    }

    pub(super) fn index_in_audience(&self) -> usize {
        self.index_in_audience.load(Ordering::Relaxed)
    }

    // The fan-out thread's side.

    /// Gets a frame to the client: now, if its socket takes them, or by its thread. Never waits.
    /// Answers what was written.
    pub(super) fn offer(&self, frame: &Arc<Frame>, events: u32, now_ms: u64) -> Sent {
        if self.close_reason.get().is_some() {
            return Sent::default();
        }
        match self.socket.get() {
            Some(socket) if self.claim(frame.bytes(self.framing).len()) => {
                self.write_directly(&**socket, frame, events, now_ms)
            }
            _ => {
                self.enqueue(frame, events, now_ms);
                Sent::default()
            }
        }
    }

    /// Wakes a poll with the first of these events, as many as an answer may have.
    ///
    /// LIMIT: once. The poll then reads the history, and has no use for a second message. It has for the first,
    /// even after an event for it alone: the history may not keep these events.
    pub(super) fn wake_poll(&self, events: &[Arc<Record>]) {
        // ORDER: Relaxed: only the fan-out thread adds to it, and a poll takes nothing off.
        if self.close_reason.get().is_some() || self.queued.load(Ordering::Relaxed) > 0 {
            return;
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in events {
            if bytes >= POLL_BYTES {
                break;
            }
            bytes += record.message().len();
            records.push(Arc::clone(record));
        }
        // ORDER: Relaxed: the events themselves go through the queue.
        self.backlog.fetch_add(bytes, Ordering::Relaxed);
        self.queued
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        let queued = Queued::new(bytes, &self.total_queued);
        self.send(QueueItem::Events { records, queued });
    }

    /// Lets go of a client that was told to leave and is still owed something, without its last word.
    pub(super) fn abort_if_backlogged(&self) {
        // ORDER: Relaxed: a guess, as in `close`.
        if self.backlog.load(Ordering::Relaxed) > BATON_BYTE
            && let Some(socket) = self.socket.get()
        {
            socket.abort();
        }
    }

    /// Leaves an event for a poll that waits. False: something was left already, so that the poll is about
    /// to go. Called under the hub's lock, which the poll takes before it looks for the last time, so
    /// that nothing left here is lost.
    ///
    /// LIMIT: one event: what is left here is not in the history, so the answer has to hold all of it.
    pub(super) fn send_to_poll(&self, record: Arc<Record>) -> bool {
        let length = record.message().len();
        // ORDER: Relaxed: the message itself goes through the queue, and only this number decides.
        let first = self.backlog.compare_exchange(
            BATON_BYTE,
            BATON_BYTE + length,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if first.is_ok() {
            let queued = Queued::new(length, &self.total_queued);
            self.send(QueueItem::Private { record, queued });
        }
        first.is_ok()
    }

    /// The baton is ours.
    fn write_directly(
        &self,
        socket: &dyn Socket,
        frame: &Arc<Frame>,
        events: u32,
        now_ms: u64,
    ) -> Sent {
        let bytes = frame.bytes(self.framing);
        let written = loop {
            match socket.try_write(bytes) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(_) => {
                    self.close(CloseReason::HungUp, now_ms);
                    return Sent::default();
                }
            }
        };
        let is_whole = written == bytes.len();
        let sent = Sent {
            events: if is_whole { events.into() } else { 0 },
            bytes: written as u64,
        };
        if written > 0 {
            self.note_write(now_ms);
            // ORDER: while the baton is ours.
            self.count_sent(sent);
        }
        if !is_whole {
            self.queued.fetch_add(events.into(), Ordering::Relaxed);
        }
        if self.reduce_backlog(written) > 0 {
            self.send(QueueItem::Bytes {
                frame: Arc::clone(frame),
                from: written,
                events,
                queued: Queued::new(bytes.len() - written, &self.total_queued),
            });
        }
        sent
    }

    /// The client's thread has the baton, or gets it by this.
    fn enqueue(&self, frame: &Arc<Frame>, events: u32, now_ms: u64) {
        // ORDER: Acquire and Release as in `claim` and `reduce_backlog`: this may raise the backlog from 0.
        let length = frame.bytes(self.framing).len();
        let before = self.backlog.fetch_add(length, Ordering::AcqRel);
        // LIMIT: what waits already counts, and not what comes, so that an event larger than a
        // queue can be had at all: the limit and one batch.
        if before > self.limit {
            return self.close(CloseReason::FellBehind, now_ms);
        }
        self.queued.fetch_add(events.into(), Ordering::Relaxed);
        self.send(QueueItem::Bytes {
            frame: Arc::clone(frame),
            from: 0,
            events,
            queued: Queued::new(length, &self.total_queued),
        });
    }

    /// Says the last word to the client's thread. The first reason stands.
    pub(super) fn close(&self, close_reason: CloseReason, now_ms: u64) {
        if self.close_reason.set(close_reason).is_err() {
            return;
        }
        self.send(QueueItem::Close(close_reason));
        // Who still reads hears the farewell behind what is owed to it. Who has taken nothing for
        // a while is not waited for, but when the server closes: then the grace is for that.
        // ORDER: Relaxed: a guess. If it is wrong, the write that lasts has its timeout.
        let owed = self.backlog.load(Ordering::Relaxed) > BATON_BYTE;
        let stuck = owed && now_ms.saturating_sub(self.wrote_at()) > STALLED_MS;
        let hopeless =
            !close_reason.is_polite() || stuck && close_reason != CloseReason::ServerClosing;
        if let (true, Some(socket)) = (hopeless, self.socket.get()) {
            socket.abort();
        }
    }

    fn send(&self, message: QueueItem) {
        // Refused only if the receiver is gone: the stream has ended, and nobody misses it.
        let _ = self.queue.send(message);
    }

    /// The ordinals of the events that the fan-out has to deliver.
    pub(super) fn due(&self) -> Range<u64> {
        // ORDER: Relaxed suffices. A lane goes live, and is told to leave, under the hub's lock. A batch that was
        // taken before has no event after that moment, whichever value is seen here; a batch that is taken
        // later is taken under the same lock, and sees the new value.
        self.live_from.load(Ordering::Relaxed)..self.live_until.load(Ordering::Relaxed)
    }

    /// Notes that the client is told to leave after the events before `ordinal`. The hub's lock is held.
    pub(super) fn stop_at(&self, ordinal: u64) {
        self.live_until.store(ordinal, Ordering::Relaxed);
    }

    /// Whether the client was told to leave.
    pub(super) fn is_closing(&self) -> bool {
        self.live_until.load(Ordering::Relaxed) != u64::MAX
    }

    /// Bytes that are owed to a client which has not been told to leave.
    pub(super) fn backlog(&self) -> usize {
        match self.close_reason.get() {
            // ORDER: Relaxed: a number of about now.
            None => self.backlog.load(Ordering::Relaxed),
            Some(_) => 0,
        }
    }

    // The client's thread's side.

    /// Notes that the thread has read the history up to `next`. The hub's lock is held. At the `head` of
    /// the history the lane goes live: from there on events come by the fan-out. Returns where to
    /// read on, if it did not.
    ///
    /// ORDER: under the same lock as the reading, so that no event is published between the two.
    pub(super) fn read_up_to(&self, next: u64, head: u64) -> Option<u64> {
        if next == head {
            self.live_from.store(head, Ordering::Relaxed);
            return None;
        }
        self.reading_from.store(next, Ordering::Relaxed);
        Some(next)
    }

    /// Notes that events which waited in the queue are written.
    pub(super) fn dequeued(&self, events: u32) {
        self.queued.fetch_sub(events.into(), Ordering::Relaxed);
    }

    /// Lets the fan-out write to `socket` whenever the lane is idle.
    pub(super) fn open(&self, socket: Arc<dyn Socket>) {
        assert!(
            self.socket.set(socket).is_ok(),
            "BUG: a lane was opened twice"
        );
    }

    /// The reason that the fan-out gave, if it has ended the lane.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().copied()
    }

    // Both sides.

    /// Takes the baton if the lane is idle, for `bytes` that are to be written.
    pub(super) fn claim(&self, bytes: usize) -> bool {
        // ORDER: Acquire: what the holder before us did to the socket has been done. Relaxed if it
        // fails: nothing is concluded from the value.
        self.backlog
            .compare_exchange(0, bytes, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes off what was written; answers what is still owed. At 0 the baton is given back.
    pub(super) fn reduce_backlog(&self, bytes: usize) -> usize {
        // ORDER: Release: what we did to the socket is done before the next holder's claim. Acquire
        // for the holder who goes on.
        let before = self.backlog.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "paid {bytes} of {before} bytes");
        before - bytes
    }

    /// Counts what was written, by whoever has the baton.
    pub(super) fn count_sent(&self, sent: Sent) {
        // ORDER: Relaxed, and no addition in one step: who has the baton is alone, and sees what
        // the one before it did by the baton's own Acquire and Release.
        for (counter, more) in [
            (&self.sent_events, sent.events),
            (&self.sent_bytes, sent.bytes),
        ] {
            counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }

    /// What was written so far, for those who only look.
    pub(super) fn sent(&self) -> Sent {
        // ORDER: Relaxed: two numbers of about now.
        Sent {
            events: self.sent_events.load(Ordering::Relaxed),
            bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// How far behind `head`, the next ordinal, the client is, for those who only look: events and
    /// bytes that wait in the queue, and events in the history that it has not been through yet,
    /// whether they are for it or not.
    pub(super) fn lag(&self, head: u64) -> Lag {
        // ORDER: Relaxed: numbers of about now. A replay may be further than `head` was when its
        // caller asked for it.
        let is_live = self.live_from.load(Ordering::Relaxed) != u64::MAX;
        let bytes = self.backlog.load(Ordering::Relaxed);
        Lag {
            events: self.queued.load(Ordering::Relaxed),
            // What the thread keeps the baton by is owed to nobody.
            bytes: if bytes <= BATON_BYTE { 0 } else { bytes as u64 },
            replaying: if is_live {
                0
            } else {
                head.saturating_sub(self.reading_from.load(Ordering::Relaxed))
            },
        }
    }

    /// Notes a write.
    pub(super) fn note_write(&self, now_ms: u64) {
        // ORDER: Relaxed: a clock reading; a late one makes a heartbeat early or late by that much.
        self.wrote_at.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn wrote_at(&self) -> u64 {
        self.wrote_at.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
