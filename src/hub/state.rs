//! What all parts of a hub share, and the lock over it: ids, history, registry and inbox change
//! together or not at all. Nothing here waits for a client or a disk.

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
    /// LIMIT: bytes before the fan-out thread; publishers wait while there are more.
    pub(super) inbox_limit: usize,
    /// The beginning of the hub's life, from which lanes count their milliseconds.
    pub(super) epoch: Instant,
    /// Makes the names of clients hard to guess, and spreads their returns.
    pub(super) random: RandomState,
    pub(super) counters: Counters,
    /// Bytes in all queues together. LIMIT: `most_queued`.
    pub(super) total_queued: TotalQueued,
    pub(super) most_queued: usize,
    /// Past which sum the fan-out looks again for clients to close. Used by the fan-out thread alone.
    pub(super) shed_above: AtomicUsize,
    /// How many clients were told that the server closes.
    pub(super) close_events: AtomicU32,
    /// Where events are kept before they are published, if they are.
    pub(super) group_commit: Option<Arc<GroupCommit>>,
    /// LOCK: the one lock of the crate's events: ids, history, registry and inbox change together
    /// or not at all. Nobody waits for a socket, a disk or a client under it.
    pub(super) state: Mutex<State>,
    /// The inbox has something, or the hub stops. The fan-out thread waits for it.
    pub(super) work: Condvar,
    /// The inbox has been taken, or the hub closes. Publishers wait for it.
    pub(super) room: Condvar,
    /// The hub closes. [`Running::wait`](crate::Running::wait) waits for it.
    pub(super) closed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    /// Gives the ids of this life of the hub.
    pub(super) ids: Ids,
    pub(super) history: History,
    pub(super) registry: Registry,
    /// What the fan-out thread has not taken yet.
    pub(super) inbox: Vec<InboxItem>,
    pub(super) inbox_bytes: usize,
    pub(super) phase: Phase,
    /// How many names were made.
    pub(super) names: u64,
    pub(super) totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Streams are ending; nothing new.
    Closing,
    /// The last handle is gone: the fan-out thread ends.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) streams: u64,
    pub(super) refused: u64,
    pub(super) events: u64,
    close_reasons: [u64; CloseReason::ALL.len()],
}

impl Totals {
    pub(super) fn count(&mut self, close_reason: CloseReason) {
        self.close_reasons[close_reason as usize] += 1;
    }

    /// How streams ended, and how often.
    pub(super) fn close_reasons(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.iter().copied().zip(self.close_reasons)
    }
}

impl Shared {
    /// Poisoning is passed over: no code of others runs under this lock, so a panic there is a bug
    /// of ours, and a hub that has one stream less is better than none.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once the inbox has room for another event.
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

    /// The state, for a client that is about to be let in, if it may have the name that it asks for. One
    /// that replaces another waits for room in the inbox, as a publisher does: it leaves the end of the
    /// other there.
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

    /// Makes a client one of those who are listening, and tells the one that it replaces to leave.
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

    /// Lets go of the state, and then tells the fan-out thread of its work, if there is any: the
    /// other way round it would wake to wait for the lock.
    pub(super) fn wake_fan_out(&self, state: MutexGuard<'_, State>) {
        let has_work = !state.inbox.is_empty();
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    /// Waits for work and takes all of it. `None`: there will be no more.
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

    /// Ends the stream of every client, without the inbox. For a fan-out that has failed.
    pub(super) fn close_all(&self, why: CloseReason) {
        let lanes: Vec<_> = self.state().registry.lanes().cloned().collect();
        let now_ms = self.now_ms();
        lanes.iter().for_each(|lane| lane.close(why, now_ms));
        self.room.notify_all();
    }

    /// Closes the clients for which the most bytes wait, while all queues together hold more than
    /// `most_queued`. Called by the fan-out thread, whenever it may have queued something.
    pub(super) fn shed(&self, now_ms: u64) {
        // ORDER: Relaxed: the fan-out itself has added what it queued, and `shed_above` is its own.
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
        let mut owed: Vec<_> = streams
            .map(|lane| (lane.backlog(), lane))
            .filter(|(debt, _)| *debt > BATON_BYTE)
            .map(|(debt, lane)| (debt, Arc::clone(lane)))
            .collect();
        drop(state);
        owed.sort_unstable_by_key(|(debt, _)| std::cmp::Reverse(*debt));
        let mut sum: usize = owed.iter().map(|(debt, _)| debt).sum();
        // Closes some more than needed, so that the next call does not have to.
        let step = self.most_queued / 8;
        for (debt, lane) in owed {
            if sum <= self.most_queued - step {
                break;
            }
            lane.close(CloseReason::FellBehind, now_ms);
            sum -= debt;
        }
        // The queue of a client that was closed is gone when its thread has seen the end. Until then it
        // counts, and is no reason to look again.
        self.shed_above.store(total + step, Ordering::Relaxed);
    }

    /// Whether so many bytes more would be too many for all queues together.
    pub(super) fn exceeds_most_queued(&self, bytes: usize) -> bool {
        // ORDER: Relaxed, as in `shed`.
        let total = self.total_queued.load(Ordering::Relaxed);
        total.saturating_add(bytes) > self.most_queued
    }

    /// Whether all queues together hold more than half of what they may.
    pub(super) fn queues_are_half_full(&self) -> bool {
        // ORDER: Relaxed, as in `shed`.
        self.total_queued.load(Ordering::Relaxed) > self.most_queued / 2
    }

    /// Publishes without a log.
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

    /// What a client is told to wait before it comes back from a stream that ended in this way.
    ///
    /// - The server closes: the usual time, and a pause for each client that was told before, so that the
    ///   next server does not get all of them at once.
    /// - The token is not valid any more: up to twice the usual time, because many clients may lose their
    ///   tokens at once.
    /// - The client was replaced or kicked: it should not come back at all, because two pages under one
    ///   name would replace each other for ever. An EventSource cannot be told that, so it is told a day.
    pub(super) fn retry_after(&self, close_reason: CloseReason) -> Duration {
        match close_reason {
            CloseReason::Replaced | CloseReason::Kicked => RETRY_WHEN_CLOSED,
            CloseReason::ServerClosing => {
                // ORDER: Relaxed: each client gets a place of its own; which one does not matter.
                let place = self.close_events.fetch_add(1, Ordering::Relaxed);
                self.config.retry + RECONNECT_PAUSE.saturating_mul(place)
            }
            CloseReason::Expired => self.config.retry + self.config.retry * self.share() / 1000,
            _ => self.retry(),
        }
    }

    /// What a client is told to wait before it reconnects, with its share of the jitter.
    pub(super) fn retry(&self) -> Duration {
        let Config {
            retry,
            retry_jitter,
            ..
        } = self.config;
        retry + retry * retry_jitter / 100 * self.share() / 1000
    }

    /// A random number of thousandths.
    fn share(&self) -> u32 {
        (self.random.hash_one(Instant::now()) % 1000) as u32
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

impl State {
    pub(super) fn next_id(&mut self) -> EventId {
        self.ids.next(date::unix_ms(SystemTime::now()))
    }

    /// Gives events their ids and places, after the events of `pending`; or none of them, if the id of one is
    /// taken on its topic.
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
                .expect("BUG: a record is shared before it has its place")
                .assign(self.ids.next(now_ms), ordinal);
            pending.events += 1;
        }
        Ok(records)
    }

    /// Puts events into the history and the inbox.
    pub(super) fn commit(&mut self, records: &[Arc<Record>]) -> Vec<Published> {
        let mut published = Vec::with_capacity(records.len());
        // Lines of one request have one topic, which is looked up once.
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

    /// Tells a client to leave, after what was published before. False: it has left, or was told before.
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

    /// The client that has the name which another one wishes for.
    pub(super) fn holder_of(&self, params: &Subscribe) -> Option<&Arc<Lane>> {
        let ClientId(name) = params.client_id.as_ref()?;
        self.registry.get(name)
    }

    pub(super) fn push_to_inbox(&mut self, item: InboxItem) {
        self.inbox_bytes += item.size();
        self.inbox.push(item);
    }
}

/// The events that have their places and are not in the history yet, because the log has not kept them so far.
#[derive(Default)]
pub(super) struct PendingEvents {
    events: u64,
    /// Publishers' ids among them.
    own_ids: HashSet<OwnId>,
}

/// Ends the fan-out thread when it is dropped, joins it, and closes the log.
#[derive(Debug)]
pub(super) struct FanOutThread {
    pub(super) shared: Arc<Shared>,
    /// LOCK: guards nothing but that one thread joins. Taken out by the first that does.
    pub(super) fan_out: Mutex<Option<JoinHandle<()>>>,
}

impl FanOutThread {
    /// Waits until the fan-out thread has done all that was left for it and has ended, and then closes the
    /// log. Nothing is delivered any more.
    pub(super) fn end(&self) {
        self.shared.state().phase = Phase::Over;
        self.shared.work.notify_one();
        self.shared.room.notify_all();
        let mut fan_out = self.fan_out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = fan_out.take()
            // A report that holds a hub may drop its last clone in the fan-out itself.
            && thread.thread().id() != thread::current().id()
        {
            // A panic in it has been reported.
            let _ = thread.join();
        }
        drop(fan_out);
        // Only here: otherwise the log would be closed whenever the last stream ends.
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
