//! Who is listening, and what was said: the one lock of the crate, and all that happens under it.
//!
//! `publish` gives an event its id, keeps it, and leaves it for the fan-out thread; `subscribe`
//! finds what a client missed and registers it. Both are one critical section, so that an event is
//! either missed or live for a client, never neither and never both. Nothing waits for a client
//! under the lock.
//!
//! Read `lane.rs` for how an event gets to a socket, and `stream.rs` for a client's life.

mod counters;
mod draft;
mod error;
mod fanout;
mod farewell;
mod history;
mod lane;
mod ledger;
mod log;
mod name;
mod poll;
mod registry;
mod stats;
mod stream;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub use counters::Histogram;
pub use error::{Closed, PublishError, SendError, SubscribeError};
pub use farewell::Farewell;
pub use history::{Cursor, Extent, Gap};
pub use log::{Entry, Kept, KeptEntry, Log};
pub use name::{ClientId, InvalidClientId};
pub use poll::Poll;
pub use stats::{Client, Stats};
pub use stream::Subscription;

use crate::config::{Config, RECONNECT_PAUSE, WRITE_BYTES};
use crate::wire::{Event, EventId, Frame, Framing, Patterns, date};
use counters::Counters;
use draft::{Draft, Drawing};
use fanout::{Item, Step};
use history::{History, Piece, Record};
use lane::{Kind, Lane, Message};
use ledger::{Ledger, Outcome, Written};
use registry::Registry;
use stream::Recovery;

/// Where events come in and streams go out. Cloning shares it; it ends with its last clone.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tiny_sse::{Config, Event, Hub, Subscribe};
/// let hub = Hub::new(Config::default())?;
/// let subscription = hub.subscribe(Subscribe::default())?;
/// let published = hub.publish(Event::new("hello"))?;
/// assert_eq!(published.recipients, 1);
/// # drop(subscription);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    /// Dropped with the last clone: the fan-out thread has a share of `shared`, but none of this.
    _life: Arc<Life>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The name to be known by; `None` is a new UUID. Who has it already is replaced.
    pub client_id: Option<ClientId>,
    /// The topics. With none, only events without a topic come.
    pub patterns: Patterns,
    /// Where to begin.
    pub cursor: Cursor,
    /// How the bytes are to be delimited.
    pub framing: Framing,
    /// What a silent stream says.
    pub heartbeat: Heartbeat,
    /// The other end of its connection, for the log.
    pub peer: Option<SocketAddr>,
    /// The client's own address, if that end is a proxy.
    pub address: Option<IpAddr>,
}

impl Default for Subscribe {
    /// A client without wishes, from now on, without chunks.
    fn default() -> Subscribe {
        Subscribe {
            client_id: None,
            patterns: Patterns::default(),
            cursor: Cursor::Now,
            framing: Framing::Bare,
            heartbeat: Heartbeat::Comment,
            peer: None,
            address: None,
        }
    }
}

/// What a stream with nothing to say says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// `: heartbeat`, which an EventSource reads over.
    #[default]
    Comment,
    /// An event named `heartbeat` with the data `{}` and no id, which a page can listen to, to notice
    /// that nothing comes any more.
    Event,
}

impl Heartbeat {
    /// Both, framed, in the order of their declaration.
    fn frames() -> [Frame; 2] {
        [
            Frame::new(b": heartbeat\n\n"),
            Frame::new(b"event: heartbeat\ndata: {}\n\n"),
        ]
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The hub's id for it. If the event has an id of its own, that one is on the wire.
    pub id: EventId,
    /// How many clients were there to get it.
    pub recipients: usize,
}

impl Hub {
    /// A hub without clients or history, whose events live in memory.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, or the fan-out thread cannot be had.
    pub fn new(config: Config) -> io::Result<Hub> {
        config.check()?;
        Hub::start(config, None, Kept::nothing())
    }

    /// A hub that goes on where `log` ended: `kept` is what the log had when it was opened. Each
    /// event is in the log before anybody gets it.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, or the fan-out thread cannot be had.
    pub fn with_log(config: Config, log: Box<dyn Log>, kept: Kept) -> io::Result<Hub> {
        config.check()?;
        Hub::start(config, Some(log), kept)
    }

    /// The id that a hub begins behind if it is born now.
    pub fn birth() -> EventId {
        EventId {
            ms: date::unix_ms(SystemTime::now()),
            seq: 0,
        }
    }

    /// A hub of a configuration that was checked.
    fn start(config: Config, log: Option<Box<dyn Log>>, kept: Kept) -> io::Result<Hub> {
        let mut state = State {
            last_id: kept.last_id(),
            history: History::new(&config, kept.after),
            registry: Registry::default(),
            inbox: Vec::new(),
            inbox_bytes: 0,
            phase: Phase::Open,
            names: 0,
            totals: Totals::default(),
        };
        kept.entries
            .into_iter()
            .for_each(|entry| state.remember(entry));
        // A batch is no larger than the inbox, but for one event. It has to fit into queues that it
        // finds half full.
        let inbox_limit = config.queue_bytes / 4;
        let shared = Arc::new(Shared {
            inbox_limit,
            heartbeats: Heartbeat::frames(),
            epoch: Instant::now(),
            random: RandomState::new(),
            counters: Counters::default(),
            farewells_said: AtomicU32::new(0),
            ledger: log.map(|log| Ledger::new(log, inbox_limit, config.report.clone())),
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            config,
        });
        let for_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("fan-out".into())
            .spawn(move || fanout::run(&for_thread))?;
        let life = Arc::new(Life(Arc::clone(&shared)));
        Ok(Hub {
            shared,
            _life: life,
        })
    }

    /// Gives the event its id, keeps it in the history, and sends it to all who asked for its
    /// topic. `Ok` means that it is on its way, not that anybody has read it; of a hub with a log,
    /// that the log has it.
    ///
    /// Waits for no client; for the log, if there is one; for the fan-out thread only if a quarter
    /// of a queue's bytes are before it.
    ///
    /// # Errors
    ///
    /// The hub is closed, an event that is retained has the same id of its publisher's, or the log
    /// did not keep it.
    pub fn publish(&self, event: Event) -> Result<Published, PublishError> {
        let published = self.publish_all(vec![event])?;
        Ok(published
            .into_iter()
            .next()
            .expect("BUG: one event in, none out"))
    }

    /// [`publish`](Self::publish) for several events that nothing comes between.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish); then none of them was published.
    pub fn publish_all(&self, events: Vec<Event>) -> Result<Vec<Published>, PublishError> {
        let start = Instant::now();
        let drafts = events.into_iter().map(Draft::new).collect();
        let outcome = match &self.shared.ledger {
            Some(ledger) => ledger.publish(drafts, |log, batch| self.shared.keep(log, batch)),
            None => self.shared.publish(drafts),
        };
        if outcome.is_ok() {
            self.shared.counters.publishing.note(start.elapsed());
        }
        outcome
    }

    /// Sends an event to one client. It is not kept: who is cut off before it arrives has lost it.
    /// That is why it carries no id on the wire, unless it has its own: the client's cursor stays
    /// at the last event that can be replayed.
    ///
    /// # Errors
    ///
    /// No client has that name, or the hub is closed.
    pub fn send_to(&self, client_id: &str, event: &Event) -> Result<Published, SendError> {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let frame = Frame::new(&bytes);
        let mut state = self.shared.state_with_room()?;
        let lane = Arc::clone(
            state
                .registry
                .get(client_id)
                .ok_or(SendError::NoSuchClient)?,
        );
        let id = state.next_id();
        state.totals.events += 1;
        state.leave(Item::Private(lane, frame));
        self.shared.wake_fan_out(state);
        Ok(Published { id, recipients: 1 })
    }

    /// Lets a client in. It gets what it missed and what comes, without a seam, once somebody
    /// [serves](Subscription::serve) or [writes](Subscription::write_to) the subscription; what
    /// comes before that waits in its queue.
    ///
    /// # Errors
    ///
    /// There are as many clients as are allowed, or the hub is closed.
    pub fn subscribe(&self, wish: Subscribe) -> Result<Subscription, SubscribeError> {
        let mut state = self.shared.state();
        if state.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        let (lane, queue) = self.shared.admit(&mut state, &wish, Kind::Stream)?;
        let (start, gap) = state.history.resolve(&wish.cursor);
        let missed = state.history.count_since(start, &lane.patterns);
        // ORDER: under the same lock as the judgement of the cursor: the oldest event is the next
        // to be evicted, and the client's thread may come too late for it.
        let first = state.history.piece(start, &lane.patterns, WRITE_BYTES);
        let Piece {
            events,
            next: position,
        } = first.expect("BUG: a replay from what is gone");
        match position {
            None => lane.go_live(state.history.head()),
            Some(next) => lane.read_from(next),
        }
        let cursor = state.history.id_before(start);
        drop(state);
        let recovery = |from| Recovery { from, missed, gap };
        let recovery = match wish.cursor {
            Cursor::Now => None,
            Cursor::Earliest => Some(recovery("earliest".to_owned())),
            Cursor::After(id) => Some(recovery(id)),
        };
        let mut welcome = stream::welcome(&lane, self.shared.retry(), cursor, recovery);
        for event in &events {
            welcome.extend_from_slice(event.frame.bytes(lane.framing));
        }
        Ok(Subscription::new(
            self.clone(),
            lane,
            queue,
            (welcome, events.len() as u32),
            position,
        ))
    }

    /// Ends a client's stream. False: no client has that name.
    pub fn disconnect(&self, client_id: &str) -> bool {
        let mut state = self.shared.state();
        let Some(lane) = state.registry.get(client_id).cloned() else {
            return false;
        };
        state.registry.remove(&lane);
        state.dismiss(lane, Farewell::Kicked);
        self.shared.wake_fan_out(state);
        true
    }

    /// Publishes nothing more, lets nobody in, and ends all streams, each behind what was
    /// published before. Does not wait for them.
    ///
    /// Each client is told a `retry:` of its own, so that they do not all come back at once: the
    /// configured one, and 2 ms for each who was told before it.
    pub fn close(&self) {
        let mut state = self.shared.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
            let lanes: Vec<_> = state.registry.lanes().cloned().collect();
            for lane in lanes {
                state.leave(Item::Farewell(lane, Farewell::ServerClosing));
            }
        }
        self.shared.wake_fan_out(state);
        self.shared.room.notify_all();
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.shared.state().phase != Phase::Open
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.shared.state().registry.len()
    }

    /// Lets go of the log, once the last event is in it, and so brings it to its end. Call
    /// [`close`](Self::close) before, and wait for who still publishes. Blocks on the log.
    pub fn put_log_away(&self) {
        if let Some(ledger) = &self.shared.ledger {
            ledger.put_away();
        }
    }

    /// How the clients are: each of them at about this moment, in no order.
    pub fn client_stats(&self) -> Vec<Client> {
        let state = self.shared.state();
        let head = state.history.head();
        let lanes = state.registry.lanes();
        let lanes: Vec<_> = lanes
            .map(|lane| (Arc::clone(lane), lane.lag(head)))
            .collect();
        // What is written out of them is written without the lock.
        drop(state);
        let now_ms = self.shared.now_ms();
        let clients = lanes.into_iter();
        clients
            .map(|(lane, lag)| Client::of(&lane, lag, now_ms))
            .collect()
    }

    /// What the hub counts, all at one moment.
    pub fn stats(&self) -> Stats {
        let state = self.shared.state();
        let head = state.history.head();
        let sent = self.shared.counters.sent();
        Stats {
            uptime: self.shared.epoch.elapsed(),
            active: state.registry.len(),
            limit: self.shared.config.max_clients,
            clients: state.totals.clients,
            refused: state.totals.refused,
            events: state.totals.events,
            deliveries: sent.events,
            bytes: sent.bytes,
            lag: state
                .registry
                .lanes()
                .map(|lane| lane.lag(head).bytes)
                .sum(),
            publishing: self.shared.counters.publishing.snapshot(),
            history: state.history.extent(),
            topics: state.registry.patterns(),
            farewells: Farewell::ALL
                .map(|farewell| (farewell, state.totals.farewells[farewell as usize])),
        }
    }
}

/// What all clones of a hub, its streams and the fan-out thread share.
#[derive(Debug)]
struct Shared {
    config: Config,
    /// LIMIT: bytes before the fan-out thread; publishers wait while there are more.
    inbox_limit: usize,
    /// The heartbeats, each for all who want it.
    heartbeats: [Frame; 2],
    /// The beginning of the hub's life, from which lanes count their milliseconds.
    epoch: Instant,
    /// Makes the names of clients hard to guess, and spreads their returns.
    random: RandomState,
    counters: Counters,
    /// How many clients were told that the server closes.
    farewells_said: AtomicU32,
    /// Where events are kept before they are published, if they are.
    ledger: Option<Ledger>,
    /// LOCK: the one lock of the crate's events: ids, history, registry and inbox change together
    /// or not at all. Nobody waits for a socket, a disk or a client under it.
    state: Mutex<State>,
    /// The inbox has something, or the hub stops. The fan-out thread waits for it.
    work: Condvar,
    /// The inbox has been taken, or the hub closes. Publishers wait for it.
    room: Condvar,
}

#[derive(Debug)]
struct State {
    /// The latest id given out.
    last_id: EventId,
    history: History,
    registry: Registry,
    /// What the fan-out thread has not taken yet.
    inbox: Vec<Item>,
    inbox_bytes: usize,
    phase: Phase,
    /// How many names were made.
    names: u64,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Streams are ending; nothing new.
    Closing,
    /// The last handle is gone: the fan-out thread ends.
    Over,
}

#[derive(Debug, Default)]
struct Totals {
    clients: u64,
    refused: u64,
    events: u64,
    farewells: [u64; Farewell::ALL.len()],
}

impl Totals {
    fn count(&mut self, farewell: Farewell) {
        self.farewells[farewell as usize] += 1;
    }
}

impl Shared {
    /// Poisoning is passed over: no code of others runs under this lock, so a panic there is a bug
    /// of ours, and a hub that has one stream less is better than none.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once the inbox has room for another event.
    fn state_with_room(&self) -> Result<MutexGuard<'_, State>, Closed> {
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

    /// Makes a client one of those who are listening, and tells the one that it replaces to leave.
    fn admit(
        &self,
        state: &mut State,
        wish: &Subscribe,
        kind: Kind,
    ) -> Result<(Arc<Lane>, Receiver<Message>), SubscribeError> {
        let own_id = wish.client_id.as_ref();
        let replaces = own_id.is_some_and(|id| state.registry.get(&id.0).is_some());
        let limit = self.config.max_clients;
        if state.registry.len() >= limit && !replaces {
            state.totals.refused += 1;
            return Err(SubscribeError::Full { limit });
        }
        let ClientId(client_id) = own_id.cloned().unwrap_or_else(|| {
            state.names += 1;
            ClientId::make(&self.random, state.names)
        });
        let queue_bytes = self.config.queue_bytes;
        let (lane, queue) = Lane::new(client_id, wish, kind, queue_bytes, self.now_ms());
        if kind == Kind::Stream {
            state.totals.clients += 1;
        }
        if let Some(replaced) = state.registry.insert(&lane) {
            state.dismiss(replaced, Farewell::Replaced);
            self.work.notify_one();
        }
        Ok((lane, queue))
    }

    /// Lets go of the state, and then tells the fan-out thread of its work, if there is any: the
    /// other way round it would wake to wait for the lock.
    fn wake_fan_out(&self, state: MutexGuard<'_, State>) {
        let has_work = !state.inbox.is_empty();
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    /// Waits for work and takes all of it. `None`: there will be no more.
    fn next_batch(&self) -> Option<Vec<Step>> {
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
        let steps = fanout::plan(items, &state.registry);
        drop(state);
        self.room.notify_all();
        Some(steps)
    }

    /// Publishes without a log.
    fn publish(&self, drafts: Vec<Draft>) -> Outcome {
        let mut state = self.state_with_room()?;
        let records = Drawing::new(&mut state).draw(drafts)?;
        let published = state.accept(records);
        self.wake_fan_out(state);
        Ok(published)
    }

    /// Writes down what several publishers have brought, and publishes it: durable, history,
    /// fan-out, answer. Nobody else publishes meanwhile: whoever does this has the log.
    fn keep(&self, log: &mut dyn Log, group: Vec<Vec<Draft>>) -> Written {
        let mut state = match self.state_with_room() {
            Ok(state) => state,
            Err(Closed) => {
                return Written {
                    outcomes: vec![Err(PublishError::Closed); group.len()],
                    failure: None,
                };
            }
        };
        let mut drawing = Drawing::new(&mut state);
        let mut drawn: Vec<_> = group
            .into_iter()
            .map(|drafts| drawing.draw(drafts))
            .collect();
        drop(state);
        let records = drawn.iter().flatten().flatten();
        let entries: Vec<_> = records.map(|record| record.entry()).collect();
        // Nothing is left to be kept if all of them have asked for ids that are taken.
        let failure = match entries[..] {
            [] => None,
            _ => log.append(&entries).err().map(|error| error.to_string()),
        };
        if let Some(failure) = &failure {
            // Also of who was refused an id that another of them has: nobody has it now.
            for records in &mut drawn {
                *records = Err(PublishError::NotKept(failure.clone()));
            }
        }
        let mut state = self.state();
        let accept = |records: Result<_, _>| Ok(state.accept(records?));
        let outcomes = drawn.into_iter().map(accept).collect();
        self.wake_fan_out(state);
        Written { outcomes, failure }
    }

    /// What a client is told to wait by a server that closes: the usual, and its place in the
    /// order of leaving, so that the next server is not met by all at once.
    fn retry_after_closing(&self) -> Duration {
        // ORDER: Relaxed: each gets a place of its own, whichever.
        let place = self.farewells_said.fetch_add(1, Ordering::Relaxed);
        self.config.retry + RECONNECT_PAUSE.saturating_mul(place)
    }

    /// What a client is told to wait before it reconnects, with its share of the jitter.
    fn retry(&self) -> Duration {
        let Config {
            retry,
            retry_jitter,
            ..
        } = self.config;
        let share = self.random.hash_one(Instant::now()) % 1000;
        retry + retry * retry_jitter / 100 * share as u32 / 1000
    }

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

impl State {
    fn next_id(&mut self) -> EventId {
        self.last_id = self.last_id.next(date::unix_ms(SystemTime::now()));
        self.last_id
    }

    /// Events become part of what was said.
    fn accept(&mut self, records: Vec<Arc<Record>>) -> Vec<Published> {
        let publish = |record: Arc<Record>| {
            let (id, recipients) = (record.id, self.registry.count(record.topic.as_ref()));
            self.history.push(Arc::clone(&record));
            self.totals.events += 1;
            if recipients > 0 {
                self.leave(Item::Event(record));
            }
            Published { id, recipients }
        };
        records.into_iter().map(publish).collect()
    }

    /// An event that was said in another life of this hub.
    fn remember(&mut self, entry: KeptEntry) {
        self.history.push(Arc::new(Record {
            ordinal: self.history.head(),
            id: entry.id,
            own_id: entry.own_id,
            topic: entry.topic,
            frame: Frame::new(&entry.message),
        }));
    }

    /// Tells a client that is out of the registry why.
    fn dismiss(&mut self, lane: Arc<Lane>, why: Farewell) {
        if lane.kind == Kind::Stream {
            self.totals.count(why);
        }
        self.leave(Item::Farewell(lane, why));
    }

    fn leave(&mut self, item: Item) {
        self.inbox_bytes += item.size();
        self.inbox.push(item);
    }
}

/// Ends the fan-out thread when it is dropped.
#[derive(Debug)]
struct Life(Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.state().phase = Phase::Over;
        self.0.work.notify_one();
        // Or the log would end whenever the fan-out thread does.
        if let Some(ledger) = &self.0.ledger {
            ledger.put_away();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log on a disk that is full.
    #[derive(Debug)]
    struct Full;

    impl Log for Full {
        fn append(&mut self, _: &[Entry<'_>]) -> io::Result<()> {
            Err(io::Error::other("no room"))
        }
    }

    #[test]
    fn an_id_is_taken_only_by_an_event_that_is_kept() {
        let hub = Hub::with_log(Config::default(), Box::new(Full), Kept::nothing()).unwrap();
        let mine = || vec![Draft::new(Event::new("").with_id("mine").unwrap())];
        // A publisher whose connection broke comes back while its first attempt still waits, and
        // both are written down together. Told that the id is taken, it would think all was well.
        for outcome in hub.shared.keep(&mut Full, vec![mine(), mine()]).outcomes {
            assert_eq!(outcome, Err(PublishError::NotKept("no room".into())));
        }
    }
}
