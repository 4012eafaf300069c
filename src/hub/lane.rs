//! One client's lane: the queue to the client's thread, and the right to write to the
//! client's socket.
//!
//! Waking a parked thread for every event would cost several times as much as the `write`
//! itself. So the fan-out thread writes to the socket as long as the socket takes the
//! bytes, and the client's own thread sleeps. When the socket is full, the client's
//! thread takes over: it may wait for its client, and the fan-out thread may not.
//!
//! Two threads therefore write to one socket, and never at the same time. The right to
//! write is called the *baton*. One number decides which thread has it: the *backlog*,
//! the bytes that are accepted for the client and not written yet. The thread that raises
//! the backlog from 0 has the baton, until the backlog is 0 again.
//!
//! ```text
//!                   fan-out: claim 0 → n              written: n → 0
//!        ┌──────── idle (backlog 0) ────────▶ fan-out writes ────────▶ idle
//!        │              │                            │ short write: the rest goes into the queue,
//!        │              │ thread: claim 0 → n        ▼ and the baton goes with it
//!        │              └──── heartbeat ───▶ the client's thread writes; the fan-out only queues
//!        └───────────────────────────────────────────┘ queue empty: the thread subtracts down to 0
//! ```
//!
//! An example, with two events that have 500 and 600 bytes in their frames, and a socket
//! that takes only 200 bytes:
//!
//! ```text
//! backlog   baton             step
//!       1   client's thread   a new lane begins with BATON_BYTE: its thread writes first
//!       0   no thread: idle   the welcome is written and the queue is empty: reduce_backlog(1)
//!     500   fan-out           offer: claim(500), and try_write takes 200 bytes
//!     300   client's thread   reduce_backlog(200); the rest is sent to the queue, which wakes the thread
//!     900   client's thread   offer: claim(600) fails, so enqueue adds 600 bytes and sends them to the queue
//!       1   client's thread   all 900 bytes are written: reduce_backlog(899), one byte keeps the baton
//!       0   no thread: idle   the queue is empty: reduce_backlog(1)
//! ```
//!
//! The rules that make this correct:
//!
//! - Only the fan-out thread puts items into the queue of a stream, so the queue has the
//!   order of the events.
//! - The socket is non-blocking while the lane is idle, and blocking while the client's
//!   thread has the baton. Only the client's thread changes the mode. It makes the socket
//!   non-blocking before it gives the baton back.
//! - After [`close`](Lane::close) the fan-out thread does not write any more. So the
//!   close reason in the queue gives the baton to the client's thread for good, whatever
//!   the backlog is.
//! - A new lane begins with a backlog of [`BATON_BYTE`], so that its thread has the baton
//!   and writes the welcome first.
//!
//! The functions below are grouped by the thread that calls them. `fanout.rs` is the
//! fan-out thread, and `stream.rs` is the client's thread. The lane of a poll (`poll.rs`)
//! has no socket, so everything goes through its queue.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::counters::Sent;
use super::record::Record;
use super::{CloseReason, Heartbeat, Permit, Subscribe};
use crate::atomic::AtomicU64;
use crate::config::{POLL_BYTES, STALLED_MS};
use crate::wire::{Frame, Framing, Patterns, RemoteAddr};

/// A byte in the backlog that is not a byte of the stream. It keeps the baton for the
/// client's thread while no other byte is in the backlog.
pub(super) const BATON_BYTE: usize = 1;

/// An item of a client's queue.
#[derive(Debug)]
pub(super) enum QueueItem {
    /// For a stream: bytes that the socket did not take, or that came while the client's
    /// thread had the baton.
    Bytes {
        /// Shared with the other clients that get the same events.
        frame: Arc<Frame>,
        /// The number of bytes of the frame that the fan-out has written already.
        from: usize,
        /// The number of events that the frame has.
        events: u32,
        /// Counts the bytes from `from` on. Dropped when they are written, or with the
        /// queue.
        queued: Queued,
    },
    /// For a poll: the first events that came while the poll waited. They wake the poll.
    Events {
        records: Vec<Arc<Record>>,
        queued: Queued,
    },
    /// For a poll: an event for this client alone
    /// ([`Hub::send_to`](super::Hub::send_to)).
    Private { record: Arc<Record>, queued: Queued },
    /// The lane was closed. This is the last item.
    Close(CloseReason),
}

/// The bytes in the queues of all clients together. Bytes that wait for several clients
/// count for each of them, as they do in the backlog of each client.
///
/// LIMIT: `Config::total_queues`. The fan-out keeps the sum below it by closing the
/// clients with the largest backlogs (`Shared::shed`).
///
/// ORDER: Relaxed: no other memory depends on this number. The fan-out adds what it
/// queues before it reads the sum.
pub(super) type TotalQueued = Arc<AtomicUsize>;

/// Counts bytes as queued, in [`TotalQueued`], from its creation until it is dropped. It
/// travels with the bytes, so they are subtracted whatever becomes of them: written,
/// dropped with the queue, or returned by a poll.
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

/// A client's socket, as the fan-out thread uses it. A trait, so that a test can replace
/// the kernel.
pub(super) trait Socket: Send + Sync {
    /// Writes the bytes that fit into the send buffer, and returns their number. Never
    /// waits: the socket is non-blocking while the fan-out has the baton.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Shuts down both directions at once. A blocked write of the client's thread fails
    /// by this.
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

/// How far a client is behind the latest event, for statistics. The numbers are read one
/// after another, so they may belong to slightly different moments.
pub(super) struct Lag {
    /// Events in the client's queue.
    pub(super) events: u64,
    /// Bytes in the client's backlog.
    pub(super) bytes: u64,
    /// Events of the history that the replay has not reached yet. 0 once the lane is
    /// live.
    pub(super) replaying: u64,
}

/// The kind of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A stream: it gets events until it ends.
    Stream,
    /// A poll that waits: the first events answer it. Its end is not counted among the
    /// close reasons, because no stream has ended.
    Poll,
}

/// A client as the hub and the fan-out thread see it. The registry, the client's own
/// [`Subscription`](super::Subscription) and the items of the inbox share it.
pub(super) struct Lane {
    pub(super) client_id: Arc<str>,
    pub(super) patterns: Patterns,
    pub(super) framing: Framing,
    pub(super) heartbeat: Heartbeat,
    pub(super) kind: Kind,
    /// The other end of the connection: the client, or its proxy. `None`: the
    /// subscription is not from a socket.
    pub(super) peer: Option<SocketAddr>,
    /// The client's own address, if it is not the peer's.
    pub(super) address: Option<IpAddr>,
    /// What lets the client stay. It may be asked again at any time
    /// ([`is_permitted`](Self::is_permitted)).
    pub(super) permit: Option<Permit>,
    /// The sending end of the queue. Only the fan-out thread sends to a stream. A poll
    /// also gets events that are for it alone, from the thread that publishes them.
    /// Sending never blocks; the queue is bounded by `backlog`.
    queue: Sender<QueueItem>,
    /// The hub's sum of all queues, which the items in this queue count in.
    total_queued: TotalQueued,
    /// The lane's index in the list of its audience, so that it can be removed without a
    /// search. Written and read by the registry, under the hub's lock.
    index_in_audience: AtomicUsize,
    /// The bytes that are accepted for the client and not written yet, and the baton (see
    /// the head of this file). Raised and reduced by the fan-out thread and the client's
    /// thread.
    ///
    /// LIMIT: `backlog_limit`. A client with a larger backlog is closed when its next
    /// event comes.
    backlog: AtomicUsize,
    /// `Config::queue_bytes`.
    backlog_limit: usize,
    /// The socket that the fan-out writes to. Set by [`open`](Self::open), on the
    /// client's thread. Until then, and for a stream without a socket, everything goes
    /// through the queue.
    socket: OnceLock<Arc<dyn Socket>>,
    /// The ordinal of the first event that the fan-out delivers. The client's thread
    /// reads the events before it from the history. `u64::MAX` until the replay has
    /// reached the end of the history: then the lane is *live*. Written under the hub's
    /// lock by the thread that reads the history; read by the fan-out thread.
    live_from: AtomicU64,
    /// The ordinal after the last event that the client gets. `u64::MAX` unless the
    /// client was replaced, disconnected or is not permitted any more
    /// (`State::close_client`): then the lane is *closing*. Written under the hub's lock;
    /// read by the fan-out thread.
    live_until: AtomicU64,
    /// The ordinal of the event that the replay reads next, for [`lag`](Self::lag) alone.
    /// Written under the hub's lock by the thread that reads the history.
    reading_from: AtomicU64,
    /// The events in the queue, for [`lag`](Self::lag); of a poll, only those that
    /// [`wake_poll`](Self::wake_poll) sent.
    queued_events: AtomicU64,
    /// Events and bytes that were written, for statistics. Written by the thread that has
    /// the baton.
    sent_events: AtomicU64,
    sent_bytes: AtomicU64,
    /// When the client was registered, in milliseconds since the hub was created.
    pub(super) joined_at: u64,
    /// When bytes were last written, in milliseconds since the hub was created. The next
    /// heartbeat and the check for a stalled client are measured from it. Written by the
    /// thread that has the baton; read by both threads.
    wrote_at: AtomicU64,
    /// Why the lane was closed. `None` until then. Set once, by the fan-out thread; the
    /// client's thread reads it to tell an aborted socket from a client that hung up.
    close_reason: OnceLock<CloseReason>,
}

impl Lane {
    /// Makes a lane whose baton belongs to the client's thread. Returns the lane and the
    /// receiving end of its queue. The lane gets no events before it is in the registry
    /// and [`read_up_to`](Self::read_up_to) has made it live.
    pub(super) fn new(
        client_id: Arc<str>,
        params: &Subscribe,
        kind: Kind,
        backlog_limit: usize,
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
            backlog_limit,
            socket: OnceLock::new(),
            live_from: AtomicU64::new(u64::MAX),
            live_until: AtomicU64::new(u64::MAX),
            reading_from: AtomicU64::new(0),
            queued_events: AtomicU64::new(0),
            sent_events: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            joined_at: now_ms,
            // Counts as a write: a client is not stalled before it had the time to read
            // something.
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

    /// Whether the client still has the right to its patterns. Asks the rules that issued
    /// its permit.
    pub(super) fn is_permitted(&self) -> bool {
        let permit = self.permit.as_ref();
        permit.is_none_or(|permit| permit.allows(&self.patterns))
    }

    /// When the client's permit ends. `None`: it has no end of its own.
    pub(super) fn permit_end(&self) -> Option<Instant> {
        self.permit.as_ref().and_then(Permit::end)
    }

    /// The user of the client, if its permit names one.
    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.permit.as_ref().and_then(Permit::user)
    }

    /// Counts `bytes` as queued that are kept for the client outside of its queue: a
    /// large event of a replay. Returns `None` if all queues together would then hold
    /// more than `most`.
    pub(super) fn try_reserve(&self, bytes: usize, most: usize) -> Option<Queued> {
        let queued = Queued::new(bytes, &self.total_queued);
        // ORDER: Relaxed: the bytes are added before the sum is read. If two threads
        // reserve at once, at least one of them sees the bytes of both.
        (self.total_queued.load(Ordering::Relaxed) <= most).then_some(queued)
    }

    /// The addresses of the peer and of the client, for the log. `None`: the subscription
    /// is not from a socket.
    pub(super) fn remote_addr(&self) -> Option<RemoteAddr> {
        let (peer, client) = self.peer.zip(self.address())?;
        Some(RemoteAddr { peer, client })
    }

    /// Notes the lane's index in the list of its audience. The caller holds the hub's
    /// lock.
    pub(super) fn set_index_in_audience(&self, index: usize) {
        // ORDER: Relaxed: the hub's lock orders all accesses.
        self.index_in_audience.store(index, Ordering::Relaxed);
    }

    pub(super) fn index_in_audience(&self) -> usize {
        // ORDER: Relaxed: the hub's lock orders all accesses.
        self.index_in_audience.load(Ordering::Relaxed)
    }

    // Called by the fan-out thread.

    /// Delivers a frame, which has this number of events: writes it to the socket if the
    /// lane is idle, and otherwise puts it into the queue. Never waits, holds no lock.
    /// Returns what was written to the socket here; the client's thread counts the rest.
    /// A closed lane gets nothing.
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

    /// Wakes a poll with the first of these events: as many as one answer may have.
    ///
    /// LIMIT: only once. The poll then leaves the registry and reads the history, so it
    /// needs no second item. It needs this one even after an event for it alone, because
    /// the history may keep no events.
    pub(super) fn wake_poll(&self, events: &[Arc<Record>]) {
        // ORDER: Relaxed: only the fan-out thread changes this number of a poll.
        if self.close_reason.get().is_some() || self.queued_events.load(Ordering::Relaxed) > 0 {
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
        // ORDER: Relaxed: both are only numbers; the queue itself hands the events to the
        // other thread.
        self.backlog.fetch_add(bytes, Ordering::Relaxed);
        self.queued_events
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        let queued = Queued::new(bytes, &self.total_queued);
        self.send(QueueItem::Events { records, queued });
    }

    /// Aborts the socket of a closed lane that still has a backlog, so that its queue is
    /// freed soon. The client gets no close event.
    pub(super) fn abort_if_backlogged(&self) {
        // ORDER: Relaxed: an estimate, as in `close`.
        if self.backlog.load(Ordering::Relaxed) > BATON_BYTE
            && let Some(socket) = self.socket.get()
        {
            socket.abort();
        }
    }

    /// Writes a frame to the socket. The baton belongs to the fan-out: `claim` has raised
    /// the backlog from 0 to the length of the frame. If the socket does not take all
    /// bytes, the rest goes into the queue, and the baton with it. Returns what was
    /// written.
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
        // ORDER: all of this while the fan-out has the baton. The next line may give it
        // back.
        if written > 0 {
            self.note_write(now_ms);
            self.count_sent(sent);
        }
        if !is_whole {
            self.queued_events
                .fetch_add(events.into(), Ordering::Relaxed);
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

    /// Adds a frame to the backlog and puts it into the queue. If the client's thread has
    /// the baton, it keeps the baton. If the lane became idle a moment ago, this raises
    /// the backlog from 0, and the item hands the baton to the thread. Closes the lane
    /// instead if its backlog is over its limit.
    fn enqueue(&self, frame: &Arc<Frame>, events: u32, now_ms: u64) {
        let length = frame.bytes(self.framing).len();
        // ORDER: AcqRel, as in `claim` and `reduce_backlog`: this may be the step that
        // raises the backlog from 0.
        let before = self.backlog.fetch_add(length, Ordering::AcqRel);
        // LIMIT: the backlog before this frame is compared, without the frame, so that an
        // event larger than the limit can be sent at all. So the backlog is at most the
        // limit and one frame.
        if before > self.backlog_limit {
            return self.close(CloseReason::FellBehind, now_ms);
        }
        self.queued_events
            .fetch_add(events.into(), Ordering::Relaxed);
        self.send(QueueItem::Bytes {
            frame: Arc::clone(frame),
            from: 0,
            events,
            queued: Queued::new(length, &self.total_queued),
        });
    }

    /// Closes the lane: sends the reason to the client's thread, which then ends the
    /// stream. Never waits. A second call has no effect, so the first reason is the one
    /// that is reported.
    ///
    /// Aborts the socket if the client is not expected to read its backlog and the close
    /// event:
    ///
    /// - because of the reason: the client has hung up, has timed out or has fallen
    ///   behind;
    /// - because the client has stalled: it has a backlog, and nothing was written for
    ///   [`STALLED_MS`]. When the server closes, a stalled client is not aborted:
    ///   `Config::grace` is the time that it gets.
    pub(super) fn close(&self, close_reason: CloseReason, now_ms: u64) {
        if self.close_reason.set(close_reason).is_err() {
            return;
        }
        self.send(QueueItem::Close(close_reason));
        // ORDER: Relaxed: an estimate. If it is wrong and the client does not read, the
        // write timeout ends the stream.
        let has_backlog = self.backlog.load(Ordering::Relaxed) > BATON_BYTE;
        let is_stalled = has_backlog && now_ms.saturating_sub(self.wrote_at()) > STALLED_MS;
        let must_abort = !close_reason.has_close_event()
            || is_stalled && close_reason != CloseReason::ServerClosing;
        if let (true, Some(socket)) = (must_abort, self.socket.get()) {
            socket.abort();
        }
    }

    fn send(&self, item: QueueItem) {
        // Fails only if the receiver was dropped: the stream is over and does not need
        // the item.
        let _ = self.queue.send(item);
    }

    /// The ordinals of the events that the fan-out has to deliver to this client.
    pub(super) fn due(&self) -> Range<u64> {
        // ORDER: Relaxed. Both bounds are set under the hub's lock, each to the ordinal
        // of the next event. A batch that was taken before that moment has only smaller
        // ordinals, for which the old and the new value of a bound give the same answer.
        // A batch that is taken later is taken under the same lock, and so the fan-out
        // sees the new value.
        self.live_from.load(Ordering::Relaxed)..self.live_until.load(Ordering::Relaxed)
    }

    /// The client's backlog in bytes; 0 if the lane was closed.
    pub(super) fn backlog(&self) -> usize {
        match self.close_reason.get() {
            // ORDER: Relaxed: the number may be out of date at once.
            None => self.backlog.load(Ordering::Relaxed),
            Some(_) => 0,
        }
    }

    // Called under the hub's lock, by any thread.

    /// Marks the lane as closing: the client gets the events before `ordinal` and no
    /// later ones. The caller holds the hub's lock.
    pub(super) fn stop_at(&self, ordinal: u64) {
        // ORDER: Relaxed, as in `due`.
        self.live_until.store(ordinal, Ordering::Relaxed);
    }

    /// Whether [`stop_at`](Self::stop_at) was called.
    pub(super) fn is_closing(&self) -> bool {
        // ORDER: Relaxed: the value may be out of date at once.
        self.live_until.load(Ordering::Relaxed) != u64::MAX
    }

    /// Sends an event to a poll that waits, for this client alone. Returns false if the
    /// poll already has an item in its queue and so is about to answer. The caller holds
    /// the hub's lock. The poll takes this lock before it looks into its queue for the
    /// last time, so no event is lost.
    ///
    /// LIMIT: one event. The history does not have it, so the answer must have room for
    /// all that is sent here.
    pub(super) fn send_to_poll(&self, record: Arc<Record>) -> bool {
        let length = record.message().len();
        // ORDER: Relaxed: the number alone decides; the queue hands the event to the
        // other thread.
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

    /// Notes that the history was read for this client up to the ordinal `next`. If that
    /// is the `head` of the history, the ordinal of the next event to be published, the
    /// lane goes live: the fan-out delivers from there on. Returns the ordinal at which
    /// to read on, or `None` if the lane is live.
    ///
    /// ORDER: the caller holds the hub's lock since it read the history. So no event is
    /// published in between, and each event comes either from the history or from the
    /// fan-out.
    pub(super) fn read_up_to(&self, next: u64, head: u64) -> Option<u64> {
        if next == head {
            self.live_from.store(head, Ordering::Relaxed);
            return None;
        }
        self.reading_from.store(next, Ordering::Relaxed);
        Some(next)
    }

    // Called by the client's thread.

    /// Notes that events which waited in the queue are written.
    pub(super) fn dequeued(&self, events: u32) {
        // ORDER: Relaxed: for statistics alone.
        self.queued_events
            .fetch_sub(events.into(), Ordering::Relaxed);
    }

    /// Lets the fan-out write to `socket` whenever the lane is idle.
    pub(super) fn open(&self, socket: Arc<dyn Socket>) {
        assert!(
            self.socket.set(socket).is_ok(),
            "BUG: a lane was opened twice"
        );
    }

    /// The reason that [`close`](Self::close) was called with, if it was called.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().copied()
    }

    // Called by the fan-out thread and by the client's thread.

    /// Takes the baton if the lane is idle, and adds `bytes`, which the caller is about
    /// to write, to the backlog. Returns whether the caller has the baton now.
    pub(super) fn claim(&self, bytes: usize) -> bool {
        // ORDER: Acquire: pairs with the Release in `reduce_backlog`, so that everything
        // that the last holder of the baton did to the socket has happened before.
        // Relaxed on failure: nothing depends on the value then.
        self.backlog
            .compare_exchange(0, bytes, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Subtracts written bytes from the backlog. Returns the remaining backlog. At 0 the
    /// caller has given the baton back and must not touch the socket any more. The caller
    /// holds the baton.
    pub(super) fn reduce_backlog(&self, bytes: usize) -> usize {
        // ORDER: Release: everything that the caller did to the socket happens before the
        // next holder's claim. Acquire: for a caller that keeps the baton because the
        // other thread has added to the backlog.
        let before = self.backlog.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(
            before >= bytes,
            "{bytes} bytes subtracted from a backlog of {before} bytes"
        );
        before - bytes
    }

    /// Adds to the numbers of this client. The caller holds the baton.
    pub(super) fn count_sent(&self, sent: Sent) {
        // ORDER: Relaxed, and a load and a store instead of one atomic addition. Only the
        // holder of the baton writes these numbers, and the Acquire and Release of the
        // baton show it what the holder before it wrote.
        for (counter, more) in [
            (&self.sent_events, sent.events),
            (&self.sent_bytes, sent.bytes),
        ] {
            counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }

    /// What was written to the client so far, for statistics.
    pub(super) fn sent(&self) -> Sent {
        // ORDER: Relaxed: the two numbers may belong to slightly different moments.
        Sent {
            events: self.sent_events.load(Ordering::Relaxed),
            bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// How far the client is behind `head`, the ordinal of the next event, for
    /// statistics.
    pub(super) fn lag(&self, head: u64) -> Lag {
        // ORDER: Relaxed: the numbers may belong to slightly different moments. A replay
        // may be further than `head` was when the caller read it.
        let is_live = self.live_from.load(Ordering::Relaxed) != u64::MAX;
        let bytes = self.backlog.load(Ordering::Relaxed);
        Lag {
            events: self.queued_events.load(Ordering::Relaxed),
            // A backlog of one byte is the baton of the client's thread, and not a byte
            // of the stream.
            bytes: if bytes <= BATON_BYTE { 0 } else { bytes as u64 },
            replaying: if is_live {
                0
            } else {
                head.saturating_sub(self.reading_from.load(Ordering::Relaxed))
            },
        }
    }

    /// Notes the time of a write.
    pub(super) fn note_write(&self, now_ms: u64) {
        // ORDER: Relaxed: a reading of the clock. Seen late, it makes a heartbeat early
        // or late by that much.
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
