//! Who is listening, and what was said: the one lock of the crate, and all that happens under it.
//!
//! `publish` gives an event its id, keeps it, and leaves it for the fan-out thread; `subscribe`
//! finds what a client missed and registers it. Both are one critical section, so that an event is
//! either missed or live for a client, never neither and never both. Nothing waits for a client
//! under the lock.
//!
//! `state.rs` is what the lock is over. Read `lane.rs` for how an event gets to a socket, and `stream.rs`
//! for a client's life.

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
    /// Dropped with the last clone, which joins the fan-out thread. That thread has a share of
    /// `shared`, but none of `life`.
    fan_out_thread: Arc<FanOutThread>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The name to be known by; `None` is a new UUID. A client that has the name already is replaced if
    /// it has the same [credential](Permit::new); if not, this client is refused. A name does not prove the
    /// identity of a client.
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
    /// What lets the client in. `None` is a permit that is valid for ever, and the same credential for all
    /// clients without a permit.
    pub permit: Option<Permit>,
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
            permit: None,
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
    pub(crate) fn text(self) -> &'static [u8] {
        match self {
            // No empty line: some clients make an empty event of one that ends nothing.
            Heartbeat::Comment => b": heartbeat\n",
            Heartbeat::Event => b"event: heartbeat\ndata: {}\n\n",
        }
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The hub's id for the event: its place in the order of all events.
    pub id: EventId,
    /// The publisher's own id, if the event has one. Then that one is on the wire, and not `id`.
    pub own_id: Option<String>,
    /// How many clients were there to get it.
    pub recipients: usize,
}

impl Published {
    /// The id that clients see, and may come back with as their `Last-Event-ID`. An event for one client alone
    /// is sent without `id`, because it is not kept.
    pub fn wire_id(&self) -> String {
        let own_id = self.own_id.clone();
        own_id.unwrap_or_else(|| self.id.to_string())
    }
}

impl Hub {
    /// A hub without clients or history, whose events live in memory.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, or the fan-out thread cannot be had.
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

    /// A batch is no larger than the inbox, but for one event. It has to fit into queues that it
    /// finds half full.
    fn inbox_limit(config: &Config) -> usize {
        config.queue_bytes / 4
    }

    /// A hub of a configuration that was checked.
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
            made_client_ids: 0,
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
        let fan_out_thread = Arc::new(FanOutThread {
            shared: Arc::clone(&shared),
            handle: Mutex::new(Some(handle)),
        });
        Ok(Hub {
            shared,
            fan_out_thread,
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
    /// The hub is closed, an event of the same topic that is retained has the same id of its publisher's,
    /// or the log did not keep it.
    pub fn publish(&self, event: Event) -> Result<Published, PublishError> {
        let published = self.publish_all(vec![event])?;
        Ok(published
            .into_iter()
            .next()
            .expect("BUG: one event in, none out"))
    }

    /// Publishes this data to a topic: [`publish`](Self::publish) in one line.
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
    /// The text is no topic, and those of [`publish`](Self::publish).
    pub fn publish_to(
        &self,
        topic: &str,
        data: impl Into<String>,
    ) -> Result<Published, PublishError> {
        let topic = Topic::new(topic).map_err(PublishError::NoTopic)?;
        self.publish(Event::new(data).with_topic(topic))
    }

    /// [`publish`](Self::publish) for several events that nothing comes between.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish); then none of them was published.
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

    /// Sends an event to one client. It is not kept: who is cut off before it arrives has lost it.
    /// That is why it carries no id on the wire, unless it has its own: the client's cursor stays
    /// at the last event that can be replayed.
    ///
    /// # Errors
    ///
    /// No client has that name, as much waits for all clients together as may, or the hub is closed.
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
            // LIMIT: the fan-out, which closes clients that are owed too much, closes no polls.
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

    /// Ends the fan-out thread, once all that was published has been handed on, and closes the log. The hub was closed before,
    /// and has no streams left.
    pub(crate) fn end(&self) {
        self.fan_out_thread.end();
    }

    /// Lets a client in. It gets what it missed and what comes, without a seam, once somebody
    /// [serves](Subscription::serve) or [writes](Subscription::write_to) the subscription; what
    /// comes before that waits in its queue.
    ///
    /// # Errors
    ///
    /// There are as many clients as are allowed, a client with another credential has the name, the permit
    /// was taken back meanwhile, or the hub is closed.
    pub fn subscribe(&self, params: Subscribe) -> Result<Subscription, SubscribeError> {
        let missed = Missed::count_ahead(&self.shared, &params.cursor, &params.patterns);
        let mut state = self.shared.state_for_client(&params)?;
        let (lane, queue) = self.shared.register(&mut state, &params, Kind::Stream)?;
        let history = &state.history;
        let (start, gap) = history.resolve(&params.cursor, &params.patterns);
        let missed = missed.total(history, start, &lane.patterns);
        // ORDER: under the same lock as the judgement of the cursor: the oldest event is the next
        // to be evicted, and the client's thread may come too late for it.
        let mut first = history
            .slice(start, REPLAY_BYTES)
            .expect("BUG: a replay from what is gone");
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
        // ORDER: asked after the registration: a change of the rules before it did not find this client.
        if !subscription.lane().is_permitted() {
            return Err(SubscribeError::NotPermitted);
        }
        subscription.announce();
        Ok(subscription)
    }

    /// Ends a client's stream. False: no client has that name.
    pub fn disconnect(&self, client_id: &str) -> bool {
        let mut state = self.shared.state();
        let Some(lane) = state.registry.get(client_id).cloned() else {
            return false;
        };
        let is_present = state.close_client(&lane, CloseReason::Kicked);
        self.shared.wake_fan_out(state);
        is_present
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
        // Poisoned or not, nothing of the state is used.
        drop(self.shared.closed.wait_while(self.shared.state(), is_open));
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.shared.state().phase != Phase::Open
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.shared.state().registry.len()
    }

    /// Whether a client has this name.
    pub fn has_client(&self, client_id: &str) -> bool {
        self.shared.state().registry.get(client_id).is_some()
    }

    /// How many clients an event of this topic would reach now; without a topic, all of them.
    pub fn recipients(&self, topic: Option<&Topic>) -> usize {
        self.shared.state().registry.count(topic)
    }

    /// The state of each client at about this moment, in no order.
    pub fn client_stats(&self) -> Vec<Client> {
        let (audiences, head) = self.audiences();
        let lanes = audiences.iter().flat_map(|lanes| lanes.iter());
        let present = lanes.filter(|lane| !lane.is_closing());
        let now_ms = self.shared.now_ms();
        present
            .map(|lane| Client::of(lane, lane.lag(head), now_ms))
            .collect()
    }

    /// What the hub counts, all at about one moment.
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

    /// The `most` patterns that the most clients asked for, with the number of those clients, the
    /// greatest first; and how many patterns are left out.
    ///
    /// The time it takes grows with the patterns of all clients, its memory with the clients and `most`.
    pub fn busiest_topics(&self, most: usize) -> (Vec<(String, usize)>, usize) {
        let state = self.shared.state();
        // LOCK: held to count the clients of each audience. Their patterns, of which there may be
        // hundreds of thousands, are gone through without it.
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
        // LOCK: held to share the lists of lanes. The lanes themselves are looked at without it.
        let audiences = state.registry.audiences();
        let lanes = audiences.map(|(_, lanes, _)| Arc::clone(lanes)).collect();
        (lanes, state.history.head())
    }
}
