//! The hub: accepts events from publishers and delivers them to clients. One lock guards ids, history, registry and inbox.
//!
//! `publish` assigns the event's id, adds the event to the history, and hands it to the fan-out thread. `subscribe` finds
//! the events that a client has missed, and registers the client. Each of the two is one critical section. So every
//! event is either in a client's replay or delivered live, never both and never neither.
//!
//! `state.rs` is the state under the lock, `history.rs` the ring of events, `registry.rs` the table of clients, `fanout.rs`
//! the fan-out thread, `lane.rs` the way to one socket, and `stream.rs` the thread of one client.
//!
//! # One event, from `POST` to the socket
//!
//! A publisher sends `POST /events/chat` with the body `hello`. 1,000 clients subscribe to `chat`.
//!
//! | step | thread | lock |
//! |---|---|---|
//! | `http/connection.rs` reads the request; `api/publish.rs` makes an `Event` of it and calls [`Hub::publish_all`] | the publisher's worker | none |
//! | `Record::new` encodes the message, with room for the id in front | the publisher's worker | none |
//! | `Shared::publish` waits until the inbox has room (`Shared::state_with_room`) | the publisher's worker | hub |
//! | `State::assign_ids` assigns id and ordinal, and `Record::assign` writes the line of the id | the publisher's worker | hub |
//! | `State::commit` adds the record to the history, counts the recipients, and adds it to the inbox | the publisher's worker | hub |
//! | `Shared::wake_fan_out` unlocks and wakes the fan-out thread; the answer `{"status":"ok",…}` is written | the publisher's worker | none |
//! | `Shared::next_batch` takes the whole inbox, and `Batch::take` the lists of lanes of the audiences that it reaches | fan-out | hub |
//! | `Batch::deliver` joins the events of the batch into one frame, once for all 1,000 clients | fan-out | none |
//! | `Lane::offer` takes the baton of each idle lane and writes the frame to its socket without waiting | fan-out | none |
//!
//! The threads of the 1,000 clients sleep all this time. With a log, `GroupCommit::publish` replaces the third step: it
//! appends the record to the log, without the hub's lock, between `assign_ids` and `commit`.
//!
//! # One client that stops reading
//!
//! A client of `chat` stops reading from its connection, while events are published to `chat`.
//!
//! | step | thread | lock |
//! |---|---|---|
//! | The kernel's buffers for the connection fill. `Lane::offer` → `Lane::write_directly` writes a part of a frame; the rest goes into the client's queue, and the baton with it | fan-out | none |
//! | `Stream::next_item` wakes with the item, makes the socket blocking, and `Stream::write_queue` waits in `write` | the client's thread | none |
//! | Later batches go into the queue (`Lane::enqueue`), which shares their frames with all other clients. The backlog grows | fan-out | none |
//! | The backlog exceeds `Config::queue_bytes`: `Lane::close` sets the close reason `FellBehind` and shuts the socket down. Or one write takes longer than `Config::write_timeout`: the thread gives up with `TimedOut` | fan-out, or the client's thread | none |
//! | The `write` returns an error. `Subscription::run` takes the reason from `Lane::close_reason`, and `Subscription::unregister` removes the client from the registry | the client's thread | hub |
//! | Its thread ends, and with it the queue. Other clients were never delayed | the client's thread | none |
//! | The client reconnects with `Last-Event-ID`. `Missed::count_ahead` counts the events that it missed | the client's worker | hub, for moments |
//! | [`Hub::subscribe`] resolves the cursor (`History::resolve`), takes the first piece of the replay, and registers the new lane, in one critical section | the client's worker | hub |
//! | `Stream::catch_up` writes the welcome, the `recovery` event and the missed events, piece by piece. At the end of the history the lane goes live (`Lane::read_up_to`): from this ordinal on the fan-out delivers | the client's new thread | hub, for moments |
//!
//! The history holds at least as many bytes as three queues, so a client that was disconnected finds everything that its
//! queue contained. If it reconnects so late that events were evicted, the `recovery` event says so.

mod close_reason;
mod counters;
mod error;
mod fanout;
mod history;
mod kept;
mod lane;
#[cfg(feature = "journal")]
mod log;
#[cfg(not(feature = "journal"))]
#[path = "no_log.rs"]
mod log;
mod missed;
mod name;
mod own_ids;
mod permit;
mod poll;
mod presence;
mod record;
mod registry;
mod state;
mod stats;
mod stream;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Instant, SystemTime};

pub use close_reason::CloseReason;
pub use counters::Histogram;
pub use error::{Closed, PublishError, SendError, SubscribeError};
pub use history::{Cursor, Extent, Gap};
#[cfg(feature = "journal")]
pub use log::{Kept, Log, LogStats};
pub use name::{ClientId, InvalidClientId};
#[cfg(feature = "access")]
pub(crate) use permit::Issuer;
pub use permit::Permit;
pub use poll::Poll;
pub use presence::{OnPresence, Presence};
pub use record::Record;
pub use stats::{Client, Stats};
pub use stream::Subscription;

use crate::config::{Config, REPLAY_BYTES};
use crate::wire::{Event, EventId, FIRST_NUMBERS, Framing, Ids, Patterns, Topic, date};
use counters::Counters;
use fanout::InboxItem;
use history::History;
use lane::Kind;
use log::GroupCommit;
use missed::Missed;
use registry::{Lanes, Registry};
use state::{FanOutThread, Phase, Shared, State, Totals};
use stream::Recovery;

/// Accepts events and delivers them to clients. A clone shares the hub; the hub ends with its last clone.
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
    /// Ends and joins the fan-out thread when the last clone is dropped. The thread itself shares `shared`, but not this.
    fan_out: Arc<FanOutThread>,
}

/// The parameters of a subscription: what a client asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The client id; `None` generates a UUID. If a client with the same id is connected, it is replaced if it has the same
    /// [credential](Permit::new); otherwise this client is refused. A client id does not prove an identity.
    pub client_id: Option<ClientId>,
    /// The topics. Without any, the client gets only events without a topic.
    pub patterns: Patterns,
    /// The position after which the client wants events.
    pub cursor: Cursor,
    /// How the bytes are delimited: chunked or not.
    pub framing: Framing,
    /// What is written to a stream that was silent for `Config::heartbeat`.
    pub heartbeat: Heartbeat,
    /// The other end of its connection, for the log.
    pub peer: Option<SocketAddr>,
    /// The client's own address, if the other end is a proxy.
    pub address: Option<IpAddr>,
    /// The client's right to the stream. `None` is a permit that is always valid; all clients without a permit have the
    /// same credential.
    pub permit: Option<Permit>,
}

impl Default for Subscribe {
    /// A client that gets the events without a topic from now on, without chunks.
    fn default() -> Subscribe {
        Subscribe {
            client_id: None,
            patterns: Patterns::default(),
            cursor: Cursor::Now,
            framing: Framing::Bare,
            heartbeat: Heartbeat::Comment,
            peer: None,
            address: None,
            permit: None,
        }
    }
}

/// What is written to a stream that is silent, so that proxies keep the connection open and a client that has gone is
/// noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// The comment `: heartbeat`, which an EventSource ignores.
    #[default]
    Comment,
    /// An event named `heartbeat` with the data `{}` and without an id. A page that listens to it notices when
    /// the stream has stopped.
    Event,
}

impl Heartbeat {
    /// The bytes of the heartbeat.
    pub(crate) fn text(self) -> &'static [u8] {
        match self {
            // Without an empty line: some clients dispatch an empty event for an empty line after a comment.
            Heartbeat::Comment => b": heartbeat\n",
            Heartbeat::Event => b"event: heartbeat\ndata: {}\n\n",
        }
    }
}

/// The result of publishing an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The hub's id of the event: its position in the order of all events.
    pub id: EventId,
    /// The publisher's own id, if the event has one. Clients then see it instead of `id`.
    pub own_id: Option<String>,
    /// How many clients were registered for the event at this moment.
    pub recipients: usize,
}

impl Published {
    /// The id that clients see, and send back as `Last-Event-ID`. An event for one client alone is sent without an id,
    /// because it is not kept.
    pub fn wire_id(&self) -> String {
        let own_id = self.own_id.clone();
        own_id.unwrap_or_else(|| self.id.to_string())
    }
}

impl Hub {
    /// A hub without clients and without events, which keeps events only in memory. Starts the fan-out thread.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, or the fan-out thread cannot be started.
    pub fn new(config: Config) -> io::Result<Hub> {
        config.check()?;
        Hub::start(config, None, kept::Kept::nothing())
    }

    /// The id after which a hub begins that is created now. Its sequence number is random, so that no
    /// event and no other birth has this id.
    pub fn new_start_id() -> EventId {
        EventId {
            ms: date::unix_ms(SystemTime::now()),
            seq: RandomState::new().hash_one(0) % FIRST_NUMBERS,
        }
    }

    /// LIMIT: the bytes of the inbox, and so of a batch, except for one publication. A quarter of a client's queue, so that
    /// a batch fits into a queue that is half full.
    fn inbox_limit(config: &Config) -> usize {
        config.queue_bytes / 4
    }

    /// Creates a hub from a configuration that was checked. The history begins with the events of `kept`.
    fn start(
        config: Config,
        group_commit: Option<Arc<GroupCommit>>,
        kept: kept::Kept,
    ) -> io::Result<Hub> {
        let random = RandomState::new();
        let last = kept.last_id();
        let ids = Ids::after(last, random.hash_one(0)).ok_or_else(|| {
            let what = format!("the log ends with the id {last}, and no id can come after that");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        let mut state = State {
            ids,
            history: History::new(&config, &kept),
            registry: Registry::default(),
            inbox: Vec::new(),
            inbox_bytes: 0,
            phase: Phase::Open,
            names: 0,
            totals: Totals::default(),
        };
        for record in kept.records {
            let ordinal = state.history.head();
            state.history.push(Arc::new(record.at(ordinal)));
        }
        let inbox_limit = Hub::inbox_limit(&config);
        let most_queued = config.most_queued();
        let shared = Arc::new(Shared {
            inbox_limit,
            total_queued: Arc::default(),
            most_queued,
            shed_above: AtomicUsize::new(most_queued),
            epoch: Instant::now(),
            random,
            counters: Counters::default(),
            close_events: AtomicU32::new(0),
            group_commit,
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            closed: Condvar::new(),
            config,
        });
        let for_thread = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("fan-out".into())
            .spawn(move || fanout::run(&for_thread))?;
        let fan_out = Arc::new(FanOutThread {
            shared: Arc::clone(&shared),
            handle: Mutex::new(Some(handle)),
        });
        Ok(Hub { shared, fan_out })
    }

    /// Assigns the event's id, keeps the event in the history, and sends it to every client that subscribes to its topic.
    /// `Ok` means that the event will be delivered, not that a client has read it. In a hub with a log, `Ok` also means
    /// that the log has the event.
    ///
    /// Never waits for a client. Blocks for the log, if there is one, and for the fan-out thread while the inbox is full
    /// (a quarter of `Config::queue_bytes`).
    ///
    /// # Errors
    ///
    /// The hub is closed; a retained event of the same topic has the same own id; or the log did not keep the event.
    pub fn publish(&self, event: Event) -> Result<Published, PublishError> {
        let published = self.publish_all(vec![event])?;
        Ok(published
            .into_iter()
            .next()
            .expect("BUG: one event in, none out"))
    }

    /// Publishes data to a topic: short for [`publish`](Self::publish).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let hub = tiny_sse::Hub::new(tiny_sse::Config::default())?;
    /// let published = hub.publish_to("sensors/1", "21.5")?;
    /// assert_eq!(published.recipients, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The text is not a topic, or one of those of [`publish`](Self::publish).
    pub fn publish_to(
        &self,
        topic: &str,
        data: impl Into<String>,
    ) -> Result<Published, PublishError> {
        let topic = Topic::new(topic).map_err(PublishError::NoTopic)?;
        self.publish(Event::new(data).with_topic(topic))
    }

    /// Publishes several events, or none of them. No other event comes between them.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish). Then none of the events was published.
    pub fn publish_all(&self, events: Vec<Event>) -> Result<Vec<Published>, PublishError> {
        let start = Instant::now();
        let records = events.iter().map(|event| Arc::new(Record::new(event)));
        let records = records.collect();
        let outcome = match &self.shared.group_commit {
            Some(group_commit) => group_commit.publish(&self.shared, records),
            None => self.shared.publish(records),
        };
        if outcome.is_ok() {
            self.shared.counters.publishing.note(start.elapsed());
        }
        outcome
    }

    /// Sends an event to one client. The event is not kept: a client that is cut off before it arrives has lost it.
    /// Therefore it has no id on the wire, unless it has its own: the client's cursor stays at the last event that
    /// can be replayed.
    ///
    /// # Errors
    ///
    /// No client has this id; the queues of all clients together are full; or the hub is closed.
    pub fn send_to(&self, client_id: &str, event: &Event) -> Result<Published, SendError> {
        let record = Arc::new(Record::new(event));
        let mut state = self.shared.state_with_room()?;
        let lane = Arc::clone(
            state
                .registry
                .get(client_id)
                .ok_or(SendError::NoSuchClient)?,
        );
        if lane.kind == Kind::Poll {
            // LIMIT: load shedding in the fan-out closes no polls, so the limit is checked here.
            if self.shared.exceeds_most_queued(record.message().len()) {
                return Err(SendError::NoRoom);
            }
            if !lane.send_to_poll(record) {
                return Err(SendError::NoSuchClient);
            }
        } else {
            state.push_to_inbox(InboxItem::Private(lane, record));
        }
        let id = state.next_id();
        state.totals.events += 1;
        self.shared.wake_fan_out(state);
        Ok(Published {
            id,
            own_id: event.id().map(str::to_owned),
            recipients: 1,
        })
    }

    /// Ends the fan-out thread after it has processed the inbox, and closes the log. The caller has closed the hub, and
    /// no streams are left. Blocks until the thread has ended.
    pub(crate) fn end(&self) {
        self.fan_out.end();
    }

    /// Registers a client. The returned subscription is its stream: the events that the client missed, and every later
    /// event, without a gap between the two. They are written by [`serve`](Subscription::serve) or
    /// [`write_to`](Subscription::write_to); until then they wait in the history and in the client's queue.
    ///
    /// # Errors
    ///
    /// The limit of clients is reached; a client with another credential has the id; the permit was revoked meanwhile; or
    /// the hub is closed.
    pub fn subscribe(&self, params: Subscribe) -> Result<Subscription, SubscribeError> {
        let missed = Missed::count_ahead(&self.shared, &params.cursor, &params.patterns);
        let mut state = self.shared.state_for_client(&params)?;
        let (lane, queue) = self.shared.register(&mut state, &params, Kind::Stream)?;
        let history = &state.history;
        let (start, gap) = history.resolve(&params.cursor, &params.patterns);
        let missed = missed.total(history, start, &lane.patterns);
        // ORDER: the first piece is taken under the same lock that resolves the cursor. Its events are the next to be
        // evicted, and the client's thread may be too late for them.
        let mut first = history
            .slice(start, REPLAY_BYTES)
            .expect("BUG: a replay begins at an evicted event");
        let position = lane.read_up_to(start + first.len() as u64, history.head());
        let cursor = state.history.id_before(start);
        drop(state);
        let recovery = |from| Recovery { from, missed, gap };
        let recovery = match params.cursor {
            Cursor::Now => None,
            Cursor::Earliest => Some(recovery("earliest".to_owned())),
            Cursor::After(id) => Some(recovery(id)),
        };
        let welcome = stream::welcome(&lane, self.shared.retry(), cursor, recovery);
        first.retain(|event| lane.patterns.matches(event.topic()));
        let hub = self.clone();
        let mut subscription = Subscription::new(hub, lane, queue, welcome, first, position);
        // ORDER: after the registration. A change of the rules before it has not found this client in the registry.
        if !subscription.lane().is_permitted() {
            return Err(SubscribeError::NotPermitted);
        }
        subscription.announce();
        Ok(subscription)
    }

    /// Closes a client's stream with the reason `kicked`. Returns false if no client has this id.
    pub fn disconnect(&self, client_id: &str) -> bool {
        let mut state = self.shared.state();
        let Some(lane) = state.registry.get(client_id).cloned() else {
            return false;
        };
        let is_present = state.close_client(&lane, CloseReason::Kicked);
        self.shared.wake_fan_out(state);
        is_present
    }

    /// Closes the hub: it accepts neither events nor clients any more, and every stream ends after the events that were
    /// published before. Does not wait for the streams.
    ///
    /// Each client gets a `retry:` of its own, so that not all of them reconnect at once: the configured time, and 2 ms more
    /// for each client that was told before.
    pub fn close(&self) {
        let mut state = self.shared.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
            let lanes: Vec<_> = state.registry.lanes().cloned().collect();
            for lane in lanes {
                state.push_to_inbox(InboxItem::Close(lane, CloseReason::ServerClosing));
            }
        }
        self.shared.wake_fan_out(state);
        self.shared.room.notify_all();
        self.shared.closed.notify_all();
    }

    /// Blocks until [`close`](Self::close) is called.
    pub(crate) fn wait_until_closed(&self) {
        let is_open = |state: &mut State| state.phase == Phase::Open;
        // The state is not used, so a poisoned lock does not matter.
        drop(self.shared.closed.wait_while(self.shared.state(), is_open));
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.shared.state().phase != Phase::Open
    }

    /// The number of connected clients.
    pub fn clients(&self) -> usize {
        self.shared.state().registry.len()
    }

    /// Whether a client with this id is connected.
    pub fn has_client(&self, client_id: &str) -> bool {
        self.shared.state().registry.get(client_id).is_some()
    }

    /// The number of clients that an event of this topic would reach now; without a topic, all clients.
    pub fn recipients(&self, topic: Option<&Topic>) -> usize {
        self.shared.state().registry.count(topic)
    }

    /// The numbers of each client at about this moment, in no order.
    pub fn client_stats(&self) -> Vec<Client> {
        let (audiences, head) = self.audiences();
        let lanes = audiences.iter().flat_map(|lanes| lanes.iter());
        let present = lanes.filter(|lane| !lane.is_closing());
        let now_ms = self.shared.now_ms();
        present
            .map(|lane| Client::of(lane, lane.lag(head), now_ms))
            .collect()
    }

    /// The numbers of the hub, all from about the same moment.
    pub fn stats(&self) -> Stats {
        let (audiences, head) = self.audiences();
        let lanes = audiences.iter().flat_map(|lanes| lanes.iter());
        let lag = lanes.map(|lane| lane.lag(head).bytes).sum();
        let sent = self.shared.counters.sent();
        let publishing = self.shared.counters.publishing.snapshot();
        let state = self.shared.state();
        Stats {
            uptime: self.shared.epoch.elapsed(),
            clients: state.registry.len(),
            limit: self.shared.config.max_clients,
            streams: state.totals.streams,
            refused: state.totals.refused,
            events: state.totals.events,
            deliveries: sent.events,
            bytes: sent.bytes,
            lag,
            publishing,
            history: state.history.extent(),
            close_reasons: state.totals.close_reasons().collect(),
        }
    }

    /// The `most` patterns with the most clients, each with the number of its clients, the greatest first; and the number of
    /// patterns that are left out.
    ///
    /// The time grows with the patterns of all clients together, the memory with the number of clients and `most`.
    pub fn busiest_topics(&self, most: usize) -> (Vec<(String, usize)>, usize) {
        let state = self.shared.state();
        // LOCK: held to count the clients of each audience. The patterns, of which there may be hundreds of thousands, are
        // merged without it.
        let audiences = state.registry.audiences();
        let audiences: Vec<_> = audiences
            .map(|(patterns, _, clients)| (patterns.clone(), clients))
            .collect();
        drop(state);
        stats::busiest(&audiences, most)
    }

    /// The lanes of all clients, by audience, and the ordinal of the next event.
    fn audiences(&self) -> (Vec<Lanes>, u64) {
        let state = self.shared.state();
        // LOCK: held to clone the pointers to the lists of lanes. The lanes themselves are read without it.
        let audiences = state.registry.audiences();
        let lanes = audiences.map(|(_, lanes, _)| Arc::clone(lanes)).collect();
        (lanes, state.history.head())
    }
}
