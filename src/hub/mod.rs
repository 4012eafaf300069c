//! Who is listening, and what was said: the one lock of the crate, and all that happens under it.
//!
//! `publish` gives an event its id, keeps it, and leaves it for the fan-out thread; `subscribe`
//! finds what a client missed and registers it. Both are one critical section, so that an event is
//! either missed or live for a client, never neither and never both. Nothing waits for a client
//! under the lock.
//!
//! Read `lane.rs` for how an event gets to a socket, and `stream.rs` for a client's life.

mod fanout;
mod farewell;
mod history;
mod lane;
mod log;
mod registry;
mod stats;
mod stream;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

pub use farewell::Farewell;
pub use history::{Cursor, Extent, Gap};
pub use log::{Entry, Kept, KeptEntry, Log};
pub use stats::Stats;
pub use stream::Subscription;

use crate::config::{CLIENT_ID_BYTES, Config, WRITE_BYTES};
use crate::wire::{Event, EventId, Frame, Framing, Patterns, date, encode_id};
use fanout::{Item, Step};
use history::{History, Piece, Record};
use lane::Lane;
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
    /// Where the client is, for the log.
    pub peer: Option<SocketAddr>,
}

impl Default for Subscribe {
    /// A client without wishes, from now on, without chunks.
    fn default() -> Subscribe {
        Subscribe {
            client_id: None,
            patterns: Patterns::default(),
            cursor: Cursor::Now,
            framing: Framing::Bare,
            peer: None,
        }
    }
}

/// A name that a client chose for itself: 1 to 64 of `A-Za-z0-9._-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(text: &str) -> Result<ClientId, InvalidClientId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let length = (1..=CLIENT_ID_BYTES).contains(&text.len());
        if length && text.bytes().all(allowed) {
            Ok(ClientId(text.into()))
        } else {
            Err(InvalidClientId(text.into()))
        }
    }
}

/// The text is no [`ClientId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidClientId(String);

impl fmt::Display for InvalidClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client_id is {:?}, it must be 1 to {CLIENT_ID_BYTES} of A-Z a-z 0-9 . _ -",
            self.0
        )
    }
}

impl std::error::Error for InvalidClientId {}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The hub's id for it. If the event has an id of its own, that one is on the wire.
    pub id: EventId,
    /// How many clients were there to get it.
    pub recipients: usize,
}

/// The hub is closed: nothing is published and nobody is let in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is closing")
    }
}

impl std::error::Error for Closed {}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// There are as many clients as are allowed.
    Full {
        /// `Config::max_clients`.
        limit: usize,
    },
    /// The hub is closed.
    Closed,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeError::Full { limit } => {
                write!(f, "Too many connections: {limit} clients are the limit")
            }
            SubscribeError::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// Why an event for one client was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No client has that name.
    NoSuchClient,
    /// The hub is closed.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::NoSuchClient => f.write_str("no client has this id"),
            SendError::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

impl Hub {
    /// A hub without clients or history.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, or the fan-out thread cannot be had.
    pub fn new(config: Config) -> io::Result<Hub> {
        config
            .check()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let born = EventId {
            ms: date::unix_ms(SystemTime::now()),
            seq: 0,
        };
        let state = State {
            last_id: born,
            history: History::new(&config, born),
            registry: Registry::default(),
            inbox: Vec::new(),
            inbox_bytes: 0,
            phase: Phase::Open,
            names: 0,
            totals: Totals::default(),
        };
        let shared = Arc::new(Shared {
            // A batch is no larger than the inbox. It has to fit into queues that it finds half full.
            inbox_limit: config.queue_bytes / 4,
            heartbeat: Frame::new(b": heartbeat\n\n"),
            epoch: Instant::now(),
            random: RandomState::new(),
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
    /// topic. `Ok` means that it is on its way, not that anybody has read it.
    ///
    /// Waits for no client; for the fan-out thread only if a quarter of a queue's bytes are before it.
    ///
    /// # Errors
    ///
    /// The hub is closed.
    pub fn publish(&self, event: Event) -> Result<Published, Closed> {
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
    /// The hub is closed; then none of them was published.
    pub fn publish_all(&self, events: Vec<Event>) -> Result<Vec<Published>, Closed> {
        let encoded: Vec<(Event, Vec<u8>)> = events
            .into_iter()
            .map(|event| {
                let mut bytes = Vec::new();
                event.encode_behind_id(&mut bytes);
                (event, bytes)
            })
            .collect();
        let mut state = self.shared.state_with_room()?;
        let published = encoded
            .iter()
            .map(|(event, behind_id)| state.accept(event, behind_id))
            .collect();
        self.shared.wake_fan_out(state);
        Ok(published)
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
        let mut state = self
            .shared
            .state_with_room()
            .map_err(|Closed| SendError::Closed)?;
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
        let replaces = wish
            .client_id
            .as_ref()
            .is_some_and(|id| state.registry.get(&id.0).is_some());
        let limit = self.shared.config.max_clients;
        if state.registry.len() >= limit && !replaces {
            return Err(SubscribeError::Full { limit });
        }
        let client_id = match wish.client_id {
            Some(ClientId(name)) => name,
            None => state.new_name(&self.shared.random),
        };
        let (lane, queue) = Lane::new(
            client_id,
            wish.patterns,
            wish.framing,
            self.shared.config.queue_bytes,
            wish.peer,
        );
        // Its patience begins here.
        lane.touch(self.shared.now_ms());
        let (start, gap) = state.history.resolve(&wish.cursor);
        let missed = state.history.count_since(start, &lane.patterns);
        // ORDER: under the same lock as the judgement of the cursor: the oldest event is the next
        // to be evicted, and the client's thread may come too late for it.
        let first = state.history.piece(start, &lane.patterns, WRITE_BYTES);
        let Piece {
            events,
            next: position,
        } = first.expect("BUG: a replay from what is gone");
        if position.is_none() {
            lane.go_live(state.history.head());
        }
        let cursor = state.history.id_before(start);
        state.totals.clients += 1;
        if let Some(replaced) = state.registry.insert(&lane) {
            state.totals.count(Farewell::Replaced);
            state.leave(Item::Farewell(replaced, Farewell::Replaced));
            self.shared.work.notify_one();
        }
        drop(state);
        let recovery = |from| Recovery { from, missed, gap };
        let recovery = match wish.cursor {
            Cursor::Now => None,
            Cursor::Earliest => Some(recovery("earliest".to_owned())),
            Cursor::After(id) => Some(recovery(id)),
        };
        let mut welcome = stream::welcome(&lane, self.shared.config.retry, cursor, recovery);
        for event in events {
            welcome.extend_from_slice(event.frame.bytes(lane.framing));
        }
        Ok(Subscription::new(
            self.clone(),
            lane,
            queue,
            welcome,
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
        state.totals.count(Farewell::Kicked);
        state.leave(Item::Farewell(lane, Farewell::Kicked));
        self.shared.wake_fan_out(state);
        true
    }

    /// Publishes nothing more, lets nobody in, and ends all streams, each behind what was
    /// published before. Does not wait for them.
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

    /// What the hub counts, all at one moment.
    pub fn stats(&self) -> Stats {
        let state = self.shared.state();
        Stats {
            uptime: self.shared.epoch.elapsed(),
            active: state.registry.len(),
            limit: self.shared.config.max_clients,
            clients: state.totals.clients,
            events: state.totals.events,
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
    /// The one heartbeat, for everybody.
    heartbeat: Frame,
    /// The beginning of the hub's life, from which lanes count their milliseconds.
    epoch: Instant,
    /// Makes the names of clients hard to guess.
    random: RandomState,
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

    /// Lets go of the state, and then tells the fan-out thread that there is work: the other way
    /// round it would wake to wait for the lock.
    fn wake_fan_out(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.work.notify_one();
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

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

impl State {
    fn next_id(&mut self) -> EventId {
        self.last_id = self.last_id.next(date::unix_ms(SystemTime::now()));
        self.last_id
    }

    /// An event becomes part of what was said.
    fn accept(&mut self, event: &Event, behind_id: &[u8]) -> Published {
        let id = self.next_id();
        let mut id_line = Vec::with_capacity(32);
        match event.id() {
            Some(own) => encode_id(own, &mut id_line),
            None => encode_id(&id.to_string(), &mut id_line),
        }
        let record = Arc::new(Record {
            ordinal: self.history.head(),
            id,
            own_id: event.id().map(Into::into),
            topic: event.topic().cloned(),
            frame: Frame::of(&[&id_line, behind_id]),
        });
        self.history.push(Arc::clone(&record));
        self.totals.events += 1;
        let recipients = self.registry.count(event.topic());
        if recipients > 0 {
            self.leave(Item::Event(record));
        }
        Published { id, recipients }
    }

    fn leave(&mut self, item: Item) {
        self.inbox_bytes += item.size();
        self.inbox.push(item);
    }

    /// A UUID of version 4 (RFC 9562, 5.4). Its 122 bits are a keyed hash of a counter, and the
    /// key is the operating system's randomness, which is all of it that std hands out.
    fn new_name(&mut self, random: &RandomState) -> Arc<str> {
        self.names += 1;
        let high = random.hash_one((self.names, 0)) & !0xF000 | 0x4000;
        let low = random.hash_one((self.names, 1)) & !(0b11 << 62) | 0b10 << 62;
        let (a, b, c) = (high >> 32, high >> 16 & 0xFFFF, high & 0xFFFF);
        format!(
            "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}",
            low >> 48,
            low & 0xFFFF_FFFF_FFFF
        )
        .into()
    }
}

/// Ends the fan-out thread when it is dropped.
#[derive(Debug)]
struct Life(Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.state().phase = Phase::Over;
        self.0.work.notify_one();
    }
}
