//! The shared state of a hub, and the lock that guards it. Ids, history, registry and inbox change together or not at
//! all.
//!
//! [`Shared`] is what all clones of a hub, its streams and the fan-out thread have in common; [`State`] is the part of it
//! under the lock. Every critical section is short: it changes a few tables and returns. Threads wait for three
//! conditions: the fan-out thread for *work*, publishers for *room* in the inbox, and `Running::wait` for the
//! hub to be *closed*. Nothing here waits for a client or for a disk.
//!
//! ```text
//! publish ──▶ State { ids ─▶ history ─▶ inbox } ──▶ next_batch ──▶ fan-out thread
//! subscribe ▶ State { registry, history }               │
//!                 ▲                                     └─ takes everything in the inbox at once
//!                 └── room: publishers wait while the inbox has more than `inbox_limit` bytes
//! ```

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

/// What all clones of a hub, its streams and the fan-out thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    /// LIMIT: the bytes in the inbox. Publishers wait while there are more.
    pub(super) inbox_limit: usize,
    /// The time at which the hub was created. Lanes count their milliseconds from here.
    pub(super) epoch: Instant,
    /// Generates client ids that cannot be guessed, and spreads the reconnects of clients.
    pub(super) random: RandomState,
    pub(super) counters: Counters,
    /// The bytes in the queues of all clients together. LIMIT: `most_queued`.
    pub(super) total_queued: TotalQueued,
    /// `Config::most_queued`, in bytes.
    pub(super) most_queued: usize,
    /// Load shedding begins when `total_queued` is greater than this. Used by the fan-out thread alone; an atomic only
    /// because `Shared` is shared.
    pub(super) shed_above: AtomicUsize,
    /// How many clients were told that the server is closing. Spreads their reconnects.
    pub(super) close_events: AtomicU32,
    /// The log, if the hub has one. Events are appended to it before they are published.
    pub(super) group_commit: Option<Arc<GroupCommit>>,
    /// LOCK: the one lock of the hub. It guards ids, history, registry and inbox, which change together or not at all. No
    /// thread waits for a socket, a disk or a client while it holds the lock.
    pub(super) state: Mutex<State>,
    /// Signalled when the inbox has got an item, and when the hub ends. The fan-out thread waits for it.
    pub(super) work: Condvar,
    /// Signalled when the inbox was emptied, and when the hub closes. Publishers wait for it.
    pub(super) room: Condvar,
    /// Signalled when the hub closes. [`Running::wait`](crate::Running::wait) waits for it.
    pub(super) closed: Condvar,
}

/// The part of the shared state under the lock.
#[derive(Debug)]
pub(super) struct State {
    /// Assigns the ids of this run of the hub.
    pub(super) ids: Ids,
    /// The latest events.
    pub(super) history: History,
    /// The clients.
    pub(super) registry: Registry,
    /// The items that the fan-out thread has not taken yet, in order.
    pub(super) inbox: Vec<InboxItem>,
    /// The size of the items in the inbox. LIMIT: `Shared::inbox_limit`, and one publication.
    pub(super) inbox_bytes: usize,
    pub(super) phase: Phase,
    /// How many client ids were generated.
    pub(super) names: u64,
    pub(super) totals: Totals,
}

/// The phases of a hub, in order. A hub never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Accepts events and clients.
    Open,
    /// Accepts neither; the streams are ending.
    Closing,
    /// The fan-out thread ends when it has processed the inbox.
    Over,
}

/// Numbers for `/stats`, counted under the lock.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Streams that have begun.
    pub(super) streams: u64,
    /// Clients that were refused because the limit was reached.
    pub(super) refused: u64,
    /// Events that were published.
    pub(super) events: u64,
    close_reasons: [u64; CloseReason::ALL.len()],
}

impl Totals {
    /// Counts the end of a stream.
    pub(super) fn count(&mut self, close_reason: CloseReason) {
        self.close_reasons[close_reason as usize] += 1;
    }

    /// Each close reason, and how many streams ended with it.
    pub(super) fn close_reasons(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.iter().copied().zip(self.close_reasons)
    }
}

impl Shared {
    /// Locks the state. A poisoned lock is used as it is: no code of an embedder runs under it, so a panic there is a bug of
    /// this crate, and a hub with one broken stream is better than none.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state once the inbox has room. This is the backpressure on publishers: they wait here for the fan-out
    /// thread, which never waits for a client.
    ///
    /// # Errors
    ///
    /// The hub is closed, or was closed while this waited.
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

    /// Locks the state for a client that is about to be registered. A client that replaces another one waits for room in
    /// the inbox, as a publisher does, because it adds the close item of the other client to the inbox.
    ///
    /// # Errors
    ///
    /// A client with another credential has the requested id, or the hub is closed.
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

    /// Registers a client, and closes the client that it replaces. Returns its lane and the receiving half of its queue.
    ///
    /// # Errors
    ///
    /// The limit of clients is reached, and the new client replaces none.
    pub(super) fn register(
        &self,
        state: &mut State,
        params: &Subscribe,
        kind: Kind,
    ) -> Result<(Arc<Lane>, Receiver<QueueItem>), SubscribeError> {
        let limit = self.config.max_clients;
        if state.registry.len() >= limit && state.holder_of(params).is_none() {
            state.totals.refused += 1;
            return Err(SubscribeError::Full { limit });
        }
        let ClientId(client_id) = params.client_id.clone().unwrap_or_else(|| {
            state.names += 1;
            ClientId::make(&self.random, state.names)
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

    /// Unlocks the state, and then wakes the fan-out thread if there is work. In the other order the thread would wake
    /// up only to wait for the lock.
    pub(super) fn wake_fan_out(&self, state: MutexGuard<'_, State>) {
        let has_work = !state.inbox.is_empty();
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    /// The fan-out thread's wait: blocks until there is work, and takes all of it as one batch. `None`: the hub has ended.
    ///
    /// ORDER: the audiences are looked up under the same lock, so that a client that registers later does not get the
    /// batch: its replay has these events.
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

    /// Closes every client at once, without the inbox. Only used after a panic in the fan-out thread.
    pub(super) fn close_all(&self, why: CloseReason) {
        let lanes: Vec<_> = self.state().registry.lanes().cloned().collect();
        let now_ms = self.now_ms();
        lanes.iter().for_each(|lane| lane.close(why, now_ms));
        self.room.notify_all();
    }

    /// Load shedding: while all queues together have more than `most_queued` bytes, closes the clients with the largest
    /// backlogs. Called by the fan-out thread whenever it may have added to a queue; usually it compares two
    /// numbers and returns.
    pub(super) fn shed(&self, now_ms: u64) {
        // ORDER: Relaxed: this thread itself has added to the sum, and only this thread uses `shed_above`.
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
        // One eighth more than necessary, so that the next call need not close clients again.
        let step = self.most_queued / 8;
        for (backlog, lane) in backlogs {
            if sum <= self.most_queued - step {
                break;
            }
            lane.close(CloseReason::FellBehind, now_ms);
            sum -= backlog;
        }
        // The bytes of a closed client count until its thread has dropped the queue. Until then they are no reason to close
        // more clients, so the threshold is raised.
        self.shed_above.store(total + step, Ordering::Relaxed);
    }

    /// Whether this number of additional bytes would exceed the limit of all queues together.
    pub(super) fn exceeds_most_queued(&self, bytes: usize) -> bool {
        // ORDER: Relaxed, as in `shed`.
        let total = self.total_queued.load(Ordering::Relaxed);
        total.saturating_add(bytes) > self.most_queued
    }

    /// Whether all queues together have more than half of their limit.
    pub(super) fn queues_are_half_full(&self) -> bool {
        // ORDER: Relaxed, as in `shed`.
        self.total_queued.load(Ordering::Relaxed) > self.most_queued / 2
    }

    /// Publishes records of one publisher, in a hub without a log.
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

    /// The `retry` in the close event: how long the client should wait before it reconnects.
    ///
    /// - `closing`: the usual time, plus a pause for each client that was told before, so that the next server does not get
    ///   all clients at once.
    /// - `expired`: up to twice the usual time, because many clients may lose their tokens at the same moment.
    /// - `replaced` and `kicked`: one day. The client should not reconnect at all: two pages with one client id would
    ///   replace each other for ever. An `EventSource` cannot be told so.
    pub(super) fn retry_after(&self, close_reason: CloseReason) -> Duration {
        match close_reason {
            CloseReason::Replaced | CloseReason::Kicked => RETRY_WHEN_CLOSED,
            CloseReason::ServerClosing => {
                // ORDER: Relaxed: each client gets a number of its own; which one does not matter.
                let place = self.close_events.fetch_add(1, Ordering::Relaxed);
                self.config.retry + RECONNECT_PAUSE.saturating_mul(place)
            }
            CloseReason::Expired => self.config.retry + self.config.retry * self.share() / 1000,
            _ => self.retry(),
        }
    }

    /// The `retry` in the first event: `Config::retry`, plus a random part of the jitter.
    pub(super) fn retry(&self) -> Duration {
        let Config {
            retry,
            retry_jitter,
            ..
        } = self.config;
        retry + retry * retry_jitter / 100 * self.share() / 1000
    }

    /// A random number from 0 to 999.
    fn share(&self) -> u32 {
        (self.random.hash_one(Instant::now()) % 1000) as u32
    }

    /// Milliseconds since the hub was created, on a monotonic clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

impl State {
    /// Assigns the next id, by the clock of this moment.
    pub(super) fn next_id(&mut self) -> EventId {
        self.ids.next(date::unix_ms(SystemTime::now()))
    }

    /// Assigns ids and ordinals to the records of one publisher, after those of `pending`; or to none of them, if an own id
    /// is already taken on its topic, in the history or in `pending`.
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

    /// Publishes records that have their ids: adds them to the history, counts their recipients, and adds those with
    /// recipients to the inbox.
    pub(super) fn commit(&mut self, records: &[Arc<Record>]) -> Vec<Published> {
        let mut published = Vec::with_capacity(records.len());
        // All lines of a request have the same topic, so it is looked up once.
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

    /// Closes a client: frees its id at once, and ends its stream after the events that were published before. Returns false
    /// if it has left, or was closed before.
    pub(super) fn close_client(&mut self, lane: &Arc<Lane>, why: CloseReason) -> bool {
        let is_present = self.registry.start_closing(lane);
        if is_present {
            if lane.kind == Kind::Stream {
                self.totals.count(why);
            }
            lane.stop_at(self.history.head());
            self.push_to_inbox(InboxItem::Close(Arc::clone(lane), why));
        }
        is_present
    }

    /// The client that has the requested client id at present.
    pub(super) fn holder_of(&self, params: &Subscribe) -> Option<&Arc<Lane>> {
        let ClientId(name) = params.client_id.as_ref()?;
        self.registry.get(name)
    }

    /// Adds an item for the fan-out thread. The caller wakes the thread, with [`Shared::wake_fan_out`].
    pub(super) fn push_to_inbox(&mut self, item: InboxItem) {
        self.inbox_bytes += item.size();
        self.inbox.push(item);
    }
}

/// The events of a group that have their ids and are not in the history yet, because the log is still appending them.
#[derive(Default)]
pub(super) struct PendingEvents {
    /// Their number: later records get ordinals after them.
    events: u64,
    /// Their own ids: a second publisher of the group cannot use one of them.
    own_ids: HashSet<OwnId>,
}

/// The fan-out thread. Dropping it ends and joins the thread, and closes the log.
#[derive(Debug)]
pub(super) struct FanOutThread {
    pub(super) shared: Arc<Shared>,
    /// LOCK: ensures that only one caller joins the thread; it takes the handle out.
    pub(super) handle: Mutex<Option<JoinHandle<()>>>,
}

impl FanOutThread {
    /// Waits until the fan-out thread has processed the inbox and has ended, and then closes the log. Nothing is delivered
    /// afterwards.
    pub(super) fn end(&self) {
        self.shared.state().phase = Phase::Over;
        self.shared.work.notify_one();
        self.shared.room.notify_all();
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = handle.take()
            // A function that receives reports may own the last clone of the hub, and drop it in the fan-out thread.
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
        drop(handle);
        // ORDER: after the fan-out thread has ended, so that every kept event was delivered.
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
