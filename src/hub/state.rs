//! What all parts of a hub share, and the lock over it.
//!
//! [`Shared`] is the hub, and [`State`] is the part of it that the hub's lock guards:
//! ids, history, registry and inbox. They change together under this lock. So for each
//! client, each event is either in the history before the client was registered, or in
//! the inbox after that.
//!
//! The threads meet here:
//!
//! | thread | function | what it waits for |
//! |---|---|---|
//! | a publisher | [`Shared::publish`], or `Shared::keep` in `log.rs` | room in the inbox |
//! | a worker that registers a client | [`Shared::state_for_client`] | room, if the client replaces another |
//! | the fan-out thread | [`Shared::next_batch`] | an item in the inbox |
//! | a client's own thread | `Stream::read_history`, `Subscription::unregister` | the lock only |
//!
//! No thread waits for a client, a socket or a disk while it holds the lock. What is done
//! under the lock is bounded: a publisher handles the events of one request, the fan-out
//! thread the audiences of one batch, and a client's thread one piece of the history.
//!
//! The inbox is where *backpressure* begins. If events are published faster than one pass
//! over all sockets can deliver them, the inbox fills up, and publishers wait for the
//! next pass. A slow client does not slow the publishers down, because the fan-out thread
//! does not wait for it: the client's queue fills up instead, until the client is closed.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::counters::Counters;
use super::error::{Closed, PublishError, SubscribeError};
use super::fanout::{Batch, InboxItem};
use super::history::History;
use super::lane::{BATON_BYTE, Kind, Lane, QueueItem, TotalQueued};
use super::log::GroupCommit;
use super::own_ids::OwnId;
use super::record::Record;
use super::registry::Registry;
use super::{ClientId, CloseReason, Permit, Published, Subscribe};
use crate::config::{Config, RECONNECT_PAUSE, RETRY_WHEN_CLOSED};
use crate::wire::{EventId, Ids, Topic, date};

/// What all clones of a hub, its subscriptions and the fan-out thread share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Checked before the hub was made, and never changed.
    pub(super) config: Config,
    /// LIMIT: bytes in the inbox. Publishers wait while the inbox has more.
    pub(super) inbox_limit: usize,
    /// When the hub was created. Lanes count their milliseconds from here, because an
    /// atomic number can hold milliseconds, and not an `Instant`.
    pub(super) epoch: Instant,
    /// The key of the random client ids and of the random part of `retry`.
    pub(super) random: RandomState,
    /// What is counted without the lock.
    pub(super) counters: Counters,
    /// The bytes in all queues together. Changed by each thread that puts bytes into a
    /// queue or takes them out.
    /// LIMIT: `most_queued`.
    pub(super) total_queued: TotalQueued,
    /// `Config::total_queues`, or its default.
    pub(super) most_queued: usize,
    /// The value of `total_queued` above which the fan-out looks for clients to close.
    /// Only the fan-out thread uses it ([`Shared::shed`]).
    pub(super) shed_above: AtomicUsize,
    /// The number of close events with the reason `closing` so far. Each makes the
    /// `retry:` of the next one longer.
    pub(super) close_events: AtomicU32,
    /// Where publishers wait until the log has their events. `None`: the hub has no log.
    pub(super) group_commit: Option<Arc<GroupCommit>>,
    /// LOCK: guards ids, history, registry and inbox, which change together. It is *the
    /// hub's lock* in all comments. No thread waits for a socket, a disk or a client
    /// while it holds the lock.
    pub(super) state: Mutex<State>,
    /// Signalled when the inbox gets an item, or the hub ends. The fan-out thread waits
    /// for it.
    pub(super) work: Condvar,
    /// Signalled when the inbox was emptied, or the hub closes. Publishers wait for it.
    pub(super) room: Condvar,
    /// Signalled when the hub closes. [`Running::wait`](crate::Running::wait) waits for
    /// it.
    pub(super) closed: Condvar,
}

/// What the hub's lock guards.
#[derive(Debug)]
pub(super) struct State {
    /// Makes the ids of new events, each greater than all before it.
    pub(super) ids: Ids,
    /// The latest events. Publishers add to it; clients that reconnect read it.
    pub(super) history: History,
    /// The clients. Workers add to it; the clients' own threads remove themselves.
    pub(super) registry: Registry,
    /// The items that the fan-out thread has not taken yet, oldest first.
    pub(super) inbox: Vec<InboxItem>,
    /// The sum of the sizes of these items.
    pub(super) inbox_bytes: usize,
    /// Never goes back to an earlier phase.
    pub(super) phase: Phase,
    /// The number of client ids that the hub has made. Each id is a keyed hash of the
    /// next number.
    pub(super) made_client_ids: u64,
    pub(super) totals: Totals,
}

/// The phases of a hub, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Events are published and clients are registered.
    Open,
    /// [`Hub::close`](super::Hub::close) was called. Nothing is published and no client
    /// is registered any more; the fan-out thread delivers what is in the inbox, and the
    /// streams end.
    Closing,
    /// The last handle of the hub was dropped: the fan-out thread ends when the inbox is
    /// empty.
    Over,
}

/// Counts since the hub was created. They are guarded by the hub's lock; what is counted
/// without it is in `counters.rs`.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Streams that were registered.
    pub(super) streams: u64,
    /// Clients that were refused because there were `Config::max_clients` already.
    pub(super) refused: u64,
    /// Events that were published, to topics and to single clients.
    pub(super) events: u64,
    /// Streams that ended, by [`CloseReason`].
    close_reasons: [u64; CloseReason::ALL.len()],
}

impl Totals {
    /// Counts a stream that has ended.
    pub(super) fn count(&mut self, close_reason: CloseReason) {
        self.close_reasons[close_reason as usize] += 1;
    }

    /// The number of streams that ended for each reason.
    pub(super) fn close_reasons(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.iter().copied().zip(self.close_reasons)
    }
}

impl Shared {
    /// Locks the state.
    ///
    /// A poisoned lock is used all the same. No code of an embedder runs under this lock,
    /// so a panic there is a bug of this crate, and a hub that may have lost one event or
    /// one client is better than no hub.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the inbox has room for another event, and returns the locked state.
    /// The wait ends when the fan-out thread takes the inbox, which takes one pass over
    /// the sockets at most. Fails if the hub closes.
    pub(super) fn state_with_room(&self) -> Result<MutexGuard<'_, State>, Closed> {
        let full =
            |state: &mut State| state.phase == Phase::Open && state.inbox_bytes > self.inbox_limit;
        let state = self
            .room
            .wait_while(self.state(), full)
            .unwrap_or_else(PoisonError::into_inner);
        if state.phase == Phase::Open {
            Ok(state)
        } else {
            Err(Closed)
        }
    }

    /// Returns the locked state for a client that may be registered under the client id
    /// that it asks for. If it replaces another client, this waits for room in the inbox
    /// as a publisher does, because the close item of the other client goes there.
    pub(super) fn state_for_client(
        &self,
        params: &Subscribe,
    ) -> Result<MutexGuard<'_, State>, SubscribeError> {
        let must_wait = |state: &mut State| {
            let is_full = state.phase == Phase::Open && state.inbox_bytes > self.inbox_limit;
            is_full && state.holder_of(params).is_some()
        };
        let state = self
            .room
            .wait_while(self.state(), must_wait)
            .unwrap_or_else(PoisonError::into_inner);
        let holder = state.holder_of(params);
        let may_take = |holder: &Arc<Lane>| {
            Permit::may_take_name(params.permit.as_ref(), holder.permit.as_ref())
        };
        let is_taken = holder.is_some_and(|holder| !may_take(holder));
        match state.phase {
            Phase::Open if is_taken => Err(SubscribeError::NameTaken),
            Phase::Open => Ok(state),
            Phase::Closing | Phase::Over => Err(SubscribeError::Closed),
        }
    }

    /// Registers a client, and closes the client that it replaces. Returns its lane and
    /// the receiving end of its queue. `state` comes from
    /// [`state_for_client`](Self::state_for_client), so the hub's lock is held. Fails if
    /// there are `Config::max_clients` already.
    pub(super) fn register(
        &self,
        state: &mut State,
        params: &Subscribe,
        kind: Kind,
    ) -> Result<(Arc<Lane>, Receiver<QueueItem>), SubscribeError> {
        let limit = self.config.max_clients;
        // A client that replaces another does not change the number of clients.
        if state.registry.len() >= limit && state.holder_of(params).is_none() {
            state.totals.refused += 1;
            return Err(SubscribeError::Full { limit });
        }
        let ClientId(client_id) = params.client_id.clone().unwrap_or_else(|| {
            state.made_client_ids += 1;
            ClientId::make(&self.random, state.made_client_ids)
        });
        let queue_bytes = self.config.queue_bytes;
        let total = &self.total_queued;
        let (lane, queue) = Lane::new(client_id, params, kind, queue_bytes, total, self.now_ms());
        if kind == Kind::Stream {
            state.totals.streams += 1;
        }
        if let Some(holder) = state.holder_of(params).cloned() {
            state.close_client(&holder, CloseReason::Replaced);
            self.work.notify_one();
        }
        state.registry.insert(&lane);
        Ok((lane, queue))
    }

    /// Unlocks the state, and wakes the fan-out thread if the inbox has an item.
    ///
    /// ORDER: unlocked first. Otherwise the fan-out thread would wake only to wait for
    /// the lock.
    pub(super) fn wake_fan_out(&self, state: MutexGuard<'_, State>) {
        let has_work = !state.inbox.is_empty();
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    /// Waits for items in the inbox and takes all of them. Returns `None` if the hub has
    /// ended and the inbox is empty. Called by the fan-out thread alone.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let idle = |state: &mut State| state.phase != Phase::Over && state.inbox.is_empty();
        let mut state = self
            .work
            .wait_while(self.state(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.inbox.is_empty() {
            return None;
        }
        let items = std::mem::take(&mut state.inbox);
        state.inbox_bytes = 0;
        let batch = Batch::take(items, &state.registry);
        drop(state);
        self.room.notify_all();
        Some(batch)
    }

    /// Closes the lane of every client at once, without the inbox. Called by the fan-out
    /// thread after a panic: the batch that it was working on is lost, with all close
    /// items in it, so closing only the client that caused the panic would leave others
    /// open without their events.
    pub(super) fn close_all(&self, reason: CloseReason) {
        let lanes: Vec<_> = self.state().registry.lanes().cloned().collect();
        let now_ms = self.now_ms();
        lanes.iter().for_each(|lane| lane.close(reason, now_ms));
        self.room.notify_all();
    }

    /// Load shedding: while all queues together hold more than `most_queued` bytes,
    /// closes the clients with the largest backlogs. Called by the fan-out thread
    /// whenever it may have queued something. Usually it only reads two atomic numbers.
    /// It holds the hub's lock only while it lists the lanes.
    ///
    /// Example: the limit is 64 MiB, and `total_queued` has grown above it. Clients are
    /// closed until the backlogs of the others are at most 56 MiB together. The queues of
    /// the closed clients are freed when their threads see the close item. Until then
    /// `total_queued` stays high, so the next look happens only when it has grown by 8
    /// MiB more.
    pub(super) fn shed(&self, now_ms: u64) {
        // ORDER: Relaxed: what this thread has queued is in the sum already. `shed_above`
        // is used by this thread alone.
        let total = self.total_queued.load(Ordering::Relaxed);
        if total <= self.shed_above.load(Ordering::Relaxed) {
            if total <= self.most_queued {
                self.shed_above.store(self.most_queued, Ordering::Relaxed);
            }
            return;
        }
        let state = self.state();
        let streams = state.registry.lanes();
        let streams = streams.filter(|lane| lane.kind == Kind::Stream);
        let mut backlogs: Vec<_> = streams
            .map(|lane| (lane.backlog(), lane))
            .filter(|(backlog, _)| *backlog > BATON_BYTE)
            .map(|(backlog, lane)| (backlog, Arc::clone(lane)))
            .collect();
        drop(state);
        backlogs.sort_unstable_by_key(|(backlog, _)| std::cmp::Reverse(*backlog));
        let mut sum: usize = backlogs.iter().map(|(backlog, _)| backlog).sum();
        // Closes a few clients more than necessary, so that the next event does not need
        // another look.
        let step = self.most_queued / 8;
        for (backlog, lane) in backlogs {
            if sum <= self.most_queued - step {
                break;
            }
            lane.close(CloseReason::FellBehind, now_ms);
            sum -= backlog;
        }
        self.shed_above.store(total + step, Ordering::Relaxed);
    }

    /// Whether all queues together would be over their limit with `bytes` more.
    pub(super) fn exceeds_most_queued(&self, bytes: usize) -> bool {
        // ORDER: Relaxed, as in `shed`.
        let total = self.total_queued.load(Ordering::Relaxed);
        total.saturating_add(bytes) > self.most_queued
    }

    /// Whether all queues together hold more than half of their limit.
    pub(super) fn queues_are_half_full(&self) -> bool {
        // ORDER: Relaxed, as in `shed`.
        self.total_queued.load(Ordering::Relaxed) > self.most_queued / 2
    }

    /// Publishes events without a log: all of them, or none if the own id of one is in
    /// use. Returns when they are in the history and in the inbox.
    ///
    /// The ids are assigned and the events are committed under one lock, so the events of
    /// one call are neighbours in the history.
    pub(super) fn publish(
        &self,
        records: Vec<Arc<Record>>,
    ) -> Result<Vec<Published>, PublishError> {
        let mut state = self.state_with_room()?;
        let records = state.assign_ids(records, &mut PendingEvents::default())?;
        let published = state.commit(&records);
        self.wake_fan_out(state);
        Ok(published)
    }

    /// The `retry:` of the close event: how long a client waits before it reconnects
    /// after its stream ended for this reason.
    ///
    /// - Replaced, or disconnected on request: a day. The client should not reconnect at
    ///   all, because two pages with one client id would replace each other for ever; but
    ///   an EventSource cannot be told to stop.
    /// - The server closes: `Config::retry`, and a pause more for each client before it,
    ///   so that the clients do not all reconnect to the next server at the same moment.
    /// - The client has no right to the stream any more: one to two times
    ///   `Config::retry`, at random, because many clients may lose their tokens at the
    ///   same moment.
    pub(super) fn retry_after(&self, close_reason: CloseReason) -> Duration {
        match close_reason {
            CloseReason::Replaced | CloseReason::Kicked => RETRY_WHEN_CLOSED,
            CloseReason::ServerClosing => {
                // ORDER: Relaxed: each client gets another number; which one does not
                // matter.
                let before = self.close_events.fetch_add(1, Ordering::Relaxed);
                self.config.retry + RECONNECT_PAUSE.saturating_mul(before)
            }
            CloseReason::Expired => {
                self.config.retry + self.config.retry * self.random_thousandths() / 1000
            }
            _ => self.retry(),
        }
    }

    /// The `retry:` of a welcome: `Config::retry` and up to `Config::retry_jitter`
    /// percent more, at random.
    pub(super) fn retry(&self) -> Duration {
        let Config {
            retry,
            retry_jitter,
            ..
        } = self.config;
        retry + retry * retry_jitter / 100 * self.random_thousandths() / 1000
    }

    /// A random number from 0 to 999.
    fn random_thousandths(&self) -> u32 {
        (self.random.hash_one(Instant::now()) % 1000) as u32
    }

    /// Milliseconds since the hub was created.
    pub(super) fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

impl State {
    /// The next id, of the current time. Of an event for one client, which gets no
    /// ordinal.
    pub(super) fn next_id(&mut self) -> EventId {
        self.ids.next(date::unix_ms(SystemTime::now()))
    }

    /// Gives ids and ordinals to all of these events, or to none of them if the own id of
    /// one is in use on its topic. `pending` are the events that have their ids and are
    /// not in the history yet: the new ones come after them, and are added to them.
    ///
    /// With a log, an event gets its id before it is written to the log, and comes into
    /// the history afterwards. In between the history does not know it, so `pending` has
    /// to: for the next ordinal, and for the own ids that are in use.
    pub(super) fn assign_ids(
        &mut self,
        mut records: Vec<Arc<Record>>,
        pending: &mut PendingEvents,
    ) -> Result<Vec<Arc<Record>>, PublishError> {
        let mut own_ids = HashSet::new();
        for record in &records {
            let Some(own_id) = record.own_id_on_topic() else {
                continue;
            };
            let is_taken = pending.own_ids.contains(own_id) || self.history.has_own_id(own_id);
            if is_taken || !own_ids.insert(own_id.clone()) {
                return Err(PublishError::IdTaken {
                    id: own_id.id().to_owned(),
                    topic: record.topic().cloned(),
                });
            }
        }
        pending.own_ids.extend(own_ids);
        let now_ms = date::unix_ms(SystemTime::now());
        for record in &mut records {
            let ordinal = self.history.head() + pending.events;
            Arc::get_mut(record)
                .expect("BUG: a record is shared before it has its id")
                .assign(self.ids.next(now_ms), ordinal);
            pending.events += 1;
        }
        Ok(records)
    }

    /// Publishes events that have their ids: puts them into the history, and into the
    /// inbox if any client gets them. An event without recipients does not wake the
    /// fan-out thread. A client that is registered later finds it in the history.
    pub(super) fn commit(&mut self, records: &[Arc<Record>]) -> Vec<Published> {
        let mut published = Vec::with_capacity(records.len());
        // The lines of one request have one topic, so it is looked up once.
        let mut counted: Option<(Option<&Topic>, usize)> = None;
        for record in records {
            let recipients = match counted {
                Some((topic, count)) if topic == record.topic() => count,
                _ => self.registry.count(record.topic()),
            };
            counted = Some((record.topic(), recipients));
            self.history.push(Arc::clone(record));
            self.totals.events += 1;
            if recipients > 0 {
                self.push_to_inbox(InboxItem::Event(Arc::clone(record)));
            }
            published.push(Published {
                id: record.id(),
                own_id: record.own_id().map(str::to_owned),
                recipients,
            });
        }
        published
    }

    /// Decides that a client is closed: frees its client id, counts the reason, and puts
    /// a close item into the inbox. The client still gets the events that were published
    /// before. Returns false if the client has ended or is closing.
    ///
    /// Three threads work together to close a client. This thread decides it under the
    /// hub's lock. The fan-out thread then delivers the events before the close item, and
    /// closes the lane (`Lane::close`). The client's own thread writes the rest of the
    /// queue and the close event, and removes the client from the registry
    /// (`Subscription::unregister`).
    pub(super) fn close_client(&mut self, lane: &Arc<Lane>, reason: CloseReason) -> bool {
        let is_present = self.registry.start_closing(lane);
        if is_present {
            if lane.kind == Kind::Stream {
                self.totals.count(reason);
            }
            lane.stop_at(self.history.head());
            self.push_to_inbox(InboxItem::Close(Arc::clone(lane), reason));
        }
        is_present
    }

    /// The client that has the client id which another client asks for.
    pub(super) fn holder_of(&self, params: &Subscribe) -> Option<&Arc<Lane>> {
        let ClientId(client_id) = params.client_id.as_ref()?;
        self.registry.get(client_id)
    }

    /// Adds an item for the fan-out thread. The caller wakes that thread
    /// ([`Shared::wake_fan_out`]).
    pub(super) fn push_to_inbox(&mut self, item: InboxItem) {
        self.inbox_bytes += item.size();
        self.inbox.push(item);
    }
}

/// The events that have their ids and ordinals but are not in the history yet, because
/// they are being written to the log. The publisher that writes for a group has them.
/// Without a log there are none.
#[derive(Default)]
pub(super) struct PendingEvents {
    /// Their number.
    events: u64,
    /// The own ids among theirs.
    own_ids: HashSet<OwnId>,
}

/// The handle of the fan-out thread. Dropping it ends the thread, joins it, and closes
/// the log.
///
/// ```text
/// Hub, each clone ──▶ FanOutThread ──▶ Shared ◀── the fan-out thread
///        └───────────────────────────────▲
/// ```
///
/// The fan-out thread keeps `Shared` alive, but not this handle. So when the last clone
/// of the hub is dropped, the handle is dropped too, and ends the thread. A subscription
/// has a clone of the hub, so a hub that still has streams is not dropped.
#[derive(Debug)]
pub(super) struct FanOutThread {
    pub(super) shared: Arc<Shared>,
    /// LOCK: guards only that one thread joins: the first caller of [`end`](Self::end)
    /// takes the handle out. It is held while this caller waits for the fan-out thread,
    /// so that a second caller waits as well.
    pub(super) handle: Mutex<Option<JoinHandle<()>>>,
}

impl FanOutThread {
    /// Waits until the fan-out thread has carried out all items of the inbox and has
    /// ended, and then closes the log.
    pub(super) fn end(&self) {
        self.shared.state().phase = Phase::Over;
        self.shared.work.notify_one();
        self.shared.room.notify_all();
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = handle.take()
            // If the embedder's report holds the last clone of the hub, the fan-out
            // thread itself may drop it, and a thread cannot join itself.
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
        drop(handle);
        // The log is not closed by dropping `Shared`, because each stream keeps `Shared`
        // alive.
        if let Some(group_commit) = &self.shared.group_commit {
            group_commit.close_log();
        }
    }
}

impl Drop for FanOutThread {
    fn drop(&mut self) {
        self.end();
    }
}
