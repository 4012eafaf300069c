//! The hub: which clients are connected, and which events were published.
//!
//! The hub turns published events into bytes on the sockets of the clients that asked for
//! them. There is one lock, *the hub's lock* (`State`), and one thread, the *fan-out*;
//! and each stream has a thread of its own, which mostly sleeps.
//!
//! Publishing an event and registering a client are one critical section each. So for
//! each client, each event either is in the history that the client reads, or comes
//! through the fan-out; it is never both, and never neither. No thread waits for a client
//! while it holds the lock.
//!
//! | file | what it has |
//! |---|---|
//! | `state.rs` | the lock, what it guards, and the steps that are done under it |
//! | `fanout.rs` | from the inbox to the lanes, on the fan-out thread |
//! | `lane.rs` | from the lanes to the sockets; the backlog and the baton |
//! | `stream.rs` | one stream, on its own thread |
//! | `registry.rs`, `history.rs` | the clients by audience; the latest events by ordinal |
//! | `poll.rs` | one answer instead of a stream |
//! | `log.rs`, `log/group_commit.rs` | durable events: written to a log before they are published |
//!
//! # An event, from `POST` to the socket
//!
//! `curl -d 'hello' http://HOST/events/chat`, while a client is subscribed to `chat` and
//! its socket takes all bytes. Each step begins with the thread and with the hub's lock:
//!
//! 1. *worker, no lock:* `Connection::serve` (`http/connection.rs`) reads the head of the
//!    request, asks `Api::admit` (`api/mod.rs`) whether to read the body, and reads it.
//! 2. *worker, no lock:* `Api::answer` (`api/mod.rs`) finds the endpoint in a table
//!    (`Api::endpoint`, `api/routes.rs`) and checks the right to publish (`Api::check`).
//! 3. *worker, no lock:* `Api::publish` (`api/publish.rs`) makes an [`Event`] of the body
//!    and calls [`Hub::publish`].
//! 4. *worker, no lock:* `Record::new` (`record.rs`) makes the bytes of the message, with
//!    room for the line of the id.
//! 5. *worker, takes the lock:* `Shared::publish` (`state.rs`) waits in
//!    `Shared::state_with_room` until the inbox has room.
//! 6. *worker, lock held:* `State::assign_ids` (`state.rs`) gives the event its id and
//!    its ordinal; `Record::assign` writes the line of the id into the message.
//! 7. *worker, lock held:* `State::commit` (`state.rs`) counts the recipients
//!    (`Registry::count`), puts the record into the history (`History::push`) and into
//!    the inbox.
//! 8. *worker, releases the lock:* `Shared::wake_fan_out` (`state.rs`) wakes the fan-out
//!    thread.
//! 9. *worker, no lock:* `Connection::answer` (`http/connection.rs`) writes the answer to
//!    the publisher: the id and the number of recipients. The next steps happen at the
//!    same time.
//! 10. *fan-out, takes the lock:* `Shared::next_batch` (`state.rs`) wakes up and takes
//!     the inbox.
//! 11. *fan-out, lock held:* `Batch::take` (`fanout.rs`) finds the audiences of the topic
//!     (`Registry::lists_for`) and shares the lists of their lanes. Then the lock is
//!     released, and publishers that wait for room are woken.
//! 12. *fan-out, no lock:* `Batch::process` and `Batch::deliver` (`fanout.rs`) join the
//!     events of each group of audiences into one frame (`SharedFrames::frame_of`).
//! 13. *fan-out, no lock:* `Lane::offer` (`lane.rs`) takes the baton: `Lane::claim`
//!     raises the backlog from 0 to the length of the frame.
//! 14. *fan-out, no lock:* `Lane::write_directly` (`lane.rs`) writes the frame to the
//!     socket (`Socket::try_write`). `Lane::reduce_backlog` brings the backlog back to 0,
//!     which gives the baton back.
//!
//! The client's own thread has slept all the time. If the hub has a log,
//! `GroupCommit::publish` (`log/group_commit.rs`) comes instead of step 5. It collects
//! the events of all waiting publishers, and one of these threads calls `Shared::keep`
//! (`log.rs`) for all of them. `Shared::keep` does steps 5 and 6, releases the lock,
//! appends the events to the log, takes the lock again, and does steps 7 and 8.
//!
//! # A client that stops reading, and reconnects
//!
//! The client is subscribed to `chat` and reads nothing any more. Events are published
//! all the time:
//!
//! 1. *fan-out, no lock:* The kernel's buffers are full. `Lane::write_directly`
//!    (`lane.rs`) can write only a part of a frame, or nothing. The rest goes into the
//!    queue, and the baton with it.
//! 2. *stream, no lock:* `Stream::next_item` (`stream.rs`) wakes up and returns the item.
//!    `Stream::take_baton` makes the socket blocking.
//! 3. *stream, no lock:* `Stream::write_queue` and `Stream::write_backlog` (`stream.rs`)
//!    write the rest, and block in `write_within` (`socket.rs`).
//! 4. *fan-out, no lock:* For each later event, `Lane::offer` (`lane.rs`) finds that the
//!    stream has the baton. `Lane::enqueue` puts the frame into the queue, and the
//!    backlog grows.
//! 5. *fan-out, no lock:* The backlog is over `Config::queue_bytes`. `Lane::enqueue`
//!    calls `Lane::close` with `FellBehind`, which sends the last item to the queue and
//!    shuts down the socket (`Socket::abort`).
//! 6. *stream, no lock:* The blocked write fails. `Stream::run` (`stream.rs`) returns the
//!    error, and `Subscription::run` takes the reason from the lane.
//! 7. *stream, takes the lock:* `Subscription::unregister` (`stream.rs`) takes the client
//!    out of the registry (`Registry::remove`) and counts the reason.
//! 8. *stream, no lock:* The end is logged and `on_presence` is called. The connection is
//!    closed and the thread ends. The queue is dropped with all its frames.
//! 9. *worker, no lock:* The client has waited for its `retry:` and sends
//!    `GET /events/chat` again. Its `Last-Event-ID` is the id of the last event that it
//!    got completely. `Api::stream` (`api/stream.rs`) makes a [`Cursor::After`] of it and
//!    calls [`Hub::subscribe`].
//! 10. *worker, takes the lock:* `Missed::count_ahead` (`missed.rs`) counts most of the
//!     missed events, and takes the lock for a slice of them at a time. Then
//!     `Shared::state_for_client` (`state.rs`) takes it for steps 11 and 12.
//! 11. *worker, lock held:* `Shared::register` (`state.rs`) makes a new lane and adds it
//!     to the registry. The fan-out delivers nothing to it yet.
//! 12. *worker, lock held:* `History::resolve` (`history.rs`) finds the ordinal of the
//!     first missed event. `History::slice` reads the first piece, and `Lane::read_up_to`
//!     (`lane.rs`) notes how far the history was read. Then the lock is released.
//! 13. *worker, no lock:* `welcome` (`stream.rs`) makes the `system` event and the
//!     `recovery` event, which has the number of missed events. `Subscription::announce`
//!     logs the client. `Connections::start_stream` (`http/connections.rs`) starts a
//!     thread for the stream.
//! 14. *stream, no lock:* `Subscription::serve` (`stream.rs`) gives the socket to the
//!     lane (`Lane::open`). `Stream::catch_up` begins with the head of the response, the
//!     welcome and the first piece.
//! 15. *stream, takes the lock:* `Stream::read_history` (`stream.rs`) reads the next
//!     piece, before the last one is written. When a piece reaches the end of the
//!     history, `Lane::read_up_to` makes the lane live, before the lock is released. If
//!     the first piece was all of it, the lane is live since step 12.
//! 16. *stream, no lock:* `Stream::write_missed` (`stream.rs`) writes what was read.
//!     Steps 15 and 16 repeat until the lane is live.
//! 17. *stream, no lock:* `Stream::next_item` (`stream.rs`) gives the baton back, and the
//!     thread sleeps. From here on, the fan-out writes as in steps 13 and 14 above.
//!
//! The client gets each missed event exactly once: the events before the lane went live
//! come from the history, the later ones through the fan-out. The events that were
//! dropped with the queue in step 8 are still in the history, because a history that
//! keeps events at all keeps those of three queues (`Config::least_history_bytes`). If
//! the client stays away for so long that missed events are evicted, the `recovery` event
//! says so.
//!
//! If the client reads slowly instead of not at all, steps 2 to 4 repeat, until either
//! the queue is empty and the baton is given back, or the backlog is over its limit. If
//! one write takes longer than `Config::write_timeout`, the stream ends as `TimedOut` in
//! step 6, without step 5.

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

/// Publishes events to the clients that subscribe to it. A clone is another handle of the
/// same hub. Its thread ends when the last handle is dropped.
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
    /// Dropped with the last handle, which ends and joins the fan-out thread. That thread
    /// itself keeps `shared` alive, but not this field, so it does not keep itself
    /// running.
    fan_out_thread: Arc<FanOutThread>,
}

/// The parameters of a subscription.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The id by which the hub knows the client. `None`: the hub makes a new UUID. If
    /// another client has the id already, that client is replaced if both have the same
    /// [credential](Permit::new). Otherwise this client is refused. A client id does not
    /// prove the identity of a client.
    pub client_id: Option<ClientId>,
    /// The topics that the client gets, besides the events without a topic.
    pub patterns: Patterns,
    /// The event after which the stream begins.
    pub cursor: Cursor,
    /// How the stream is delimited on the wire.
    pub framing: Framing,
    /// What is written to a stream without events.
    pub heartbeat: Heartbeat,
    /// The other end of the client's connection, for the log and for statistics.
    pub peer: Option<SocketAddr>,
    /// The client's own address, if the other end is a proxy.
    pub address: Option<IpAddr>,
    /// The client's credential and its right to the patterns. `None`: the right does not
    /// expire, and all clients without a permit have the same credential.
    pub permit: Option<Permit>,
}

impl Default for Subscribe {
    /// A new client id, no topics, from now on, without chunks.
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

/// What is written to a stream when nothing else was written for `Config::heartbeat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// The comment `: heartbeat`, which an EventSource ignores.
    #[default]
    Comment,
    /// An event named `heartbeat` with the data `{}` and no id. A page that listens to it
    /// can notice that nothing arrives any more.
    Event,
}

impl Heartbeat {
    pub(crate) fn text(self) -> &'static [u8] {
        match self {
            // Without an empty line, of which some clients would make an empty event.
            Heartbeat::Comment => b": heartbeat\n",
            Heartbeat::Event => b"event: heartbeat\ndata: {}\n\n",
        }
    }
}

/// A published event: the result of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The hub's id of the event. Later events have greater ids.
    pub id: EventId,
    /// The publisher's own id, if the event has one. It is on the wire instead of `id`.
    pub own_id: Option<String>,
    /// The number of clients that the event is sent to. They need not have got it yet.
    pub recipients: usize,
}

impl Published {
    /// The id that clients see and send as `Last-Event-ID` when they reconnect. An event
    /// for one client alone is sent without `id`, because it is not in the history.
    pub fn wire_id(&self) -> String {
        let own_id = self.own_id.clone();
        own_id.unwrap_or_else(|| self.id.to_string())
    }
}

impl Hub {
    /// A hub without a log: its events are in memory only. It starts the fan-out thread.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, or the fan-out thread cannot be started.
    pub fn new(config: Config) -> io::Result<Hub> {
        config.check()?;
        Hub::start(config, None, kept::Kept::nothing())
    }

    /// A new id for the start of a hub without earlier events: the cursor of a client
    /// that has seen no event. Its sequence number is random, so that no event and no
    /// other start has the same id.
    pub fn new_start_id() -> EventId {
        EventId {
            ms: date::unix_ms(SystemTime::now()),
            seq: RandomState::new().hash_one(0) % FIRST_NUMBERS,
        }
    }

    /// The bytes of the inbox above which publishers wait: a quarter of a queue. A batch
    /// is not larger than the inbox and one event, so it fits into a queue that is half
    /// full.
    fn inbox_limit(config: &Config) -> usize {
        config.queue_bytes / 4
    }

    /// Starts a hub, with the events that its log has kept. `config` was checked.
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

    /// Gives the event its id, puts it into the history, and sends it to all clients with
    /// a pattern for its topic; to all clients if it has no topic. `Ok` means that the
    /// event is in the history and, if the hub has a log, in the log. It does not mean
    /// that any client has got the event yet.
    ///
    /// Blocks until the log has the event, if there is a log. Blocks on the fan-out
    /// thread if more bytes wait for it than a quarter of `Config::queue_bytes`. Never
    /// blocks on a client.
    ///
    /// # Errors
    ///
    /// The hub is closed; an event in the history has the same own id and the same topic;
    /// or the log did not keep the event.
    pub fn publish(&self, event: Event) -> Result<Published, PublishError> {
        let published = self.publish_all(vec![event])?;
        Ok(published
            .into_iter()
            .next()
            .expect("BUG: one event in, none out"))
    }

    /// Publishes an event with this data and topic: a short form of
    /// [`publish`](Self::publish).
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
    /// The text is not a valid topic, or one of the errors of [`publish`](Self::publish).
    pub fn publish_to(
        &self,
        topic: &str,
        data: impl Into<String>,
    ) -> Result<Published, PublishError> {
        let topic = Topic::new(topic).map_err(PublishError::NoTopic)?;
        self.publish(Event::new(data).with_topic(topic))
    }

    /// Publishes several events: all or none of them, and no other event between them.
    /// Blocks as [`publish`](Self::publish) does.
    ///
    /// # Errors
    ///
    /// The errors of [`publish`](Self::publish). Then none of the events was published.
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

    /// Sends an event to one client. The event is not in the history, so a client that is
    /// cut off before the event arrives has lost it. Therefore the event has no id on the
    /// wire, unless it has an own id: the client's cursor stays at the last event that
    /// can be replayed. Blocks on the fan-out thread as [`publish`](Self::publish) does.
    ///
    /// # Errors
    ///
    /// No client has this id; the client is a poll, and all queues together would be over
    /// their limit; or the hub is closed.
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
            // LIMIT: load shedding closes streams only, so an event for a poll is refused
            // instead.
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

    /// Ends the fan-out thread when it has delivered everything that was published, and
    /// closes the log. Blocks until then. The caller has closed the hub before, and all
    /// its streams have ended.
    pub(crate) fn end(&self) {
        self.fan_out_thread.end();
    }

    /// Registers a client. Call [`serve`](Subscription::serve) or
    /// [`write_to`](Subscription::write_to) on the result. It then writes the events that
    /// the client missed and all later ones, each exactly once. Events that are published
    /// before that call wait in the client's queue or in the history.
    ///
    /// Blocks only if the client replaces another one, as [`publish`](Self::publish)
    /// does, but not on the log.
    ///
    /// # Errors
    ///
    /// `Config::max_clients` clients are connected; a client with another credential has
    /// the client id; the permit is not valid any more; or the hub is closed.
    pub fn subscribe(&self, params: Subscribe) -> Result<Subscription, SubscribeError> {
        let missed = Missed::count_ahead(&self.shared, &params.cursor, &params.patterns);
        let mut state = self.shared.state_for_client(&params)?;
        let (lane, queue) = self.shared.register(&mut state, &params, Kind::Stream)?;
        let history = &state.history;
        let (start, gap) = history.resolve(&params.cursor, &params.patterns);
        let missed = missed.total(history, start, &lane.patterns);
        // ORDER: the first piece is read under the same lock as the cursor is resolved.
        // The oldest event is the next one to be evicted, and the client's thread may
        // start too late to read it.
        let mut first = history
            .slice(start, REPLAY_BYTES)
            .expect("BUG: the history has evicted the event that it resolved a cursor to");
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
        // ORDER: the permit is checked after the registration. If the rules changed
        // before the registration, the check of all clients did not find this client.
        if !subscription.lane().is_permitted() {
            return Err(SubscribeError::NotPermitted);
        }
        subscription.announce();
        Ok(subscription)
    }

    /// Closes a client's stream as [`Kicked`](CloseReason::Kicked). The client still gets
    /// the events that were published before. Returns false if no client has this id.
    /// Does not wait for the client.
    pub fn disconnect(&self, client_id: &str) -> bool {
        let mut state = self.shared.state();
        let Some(lane) = state.registry.get(client_id).cloned() else {
            return false;
        };
        let is_present = state.close_client(&lane, CloseReason::Kicked);
        self.shared.wake_fan_out(state);
        is_present
    }

    /// Closes the hub: from now on no event is published and no client is registered. All
    /// streams end, each after the events that were published before. Does not wait for
    /// them.
    ///
    /// Each client gets another `retry:` with its close event, so that the clients do not
    /// all reconnect at the same moment: `Config::retry`, and 2 ms more for each client
    /// before it.
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
        // A poisoned lock does not matter, because the state is not used.
        drop(self.shared.closed.wait_while(self.shared.state(), is_open));
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.shared.state().phase != Phase::Open
    }

    /// The number of clients: streams and waiting polls.
    pub fn clients(&self) -> usize {
        self.shared.state().registry.len()
    }

    /// Whether a client has this id.
    pub fn has_client(&self, client_id: &str) -> bool {
        self.shared.state().registry.get(client_id).is_some()
    }

    /// The number of clients that an event of this topic would be sent to now. `None`: an
    /// event without a topic, which is sent to all clients.
    pub fn recipients(&self, topic: Option<&Topic>) -> usize {
        self.shared.state().registry.count(topic)
    }

    /// The statistics of each client, in no order. The numbers may belong to slightly
    /// different moments.
    pub fn client_stats(&self) -> Vec<Client> {
        let (audiences, head) = self.audiences();
        let lanes = audiences.iter().flat_map(|lanes| lanes.iter());
        let present = lanes.filter(|lane| !lane.is_closing());
        let now_ms = self.shared.now_ms();
        present
            .map(|lane| Client::of(lane, lane.lag(head), now_ms))
            .collect()
    }

    /// The statistics of the hub. The numbers may belong to slightly different moments.
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

    /// The patterns that most clients have, each with the number of its clients, the
    /// greatest number first. Returns at most `most` patterns, and the number of the
    /// other patterns.
    ///
    /// The time grows with the patterns of all audiences, the memory with the number of
    /// audiences and `most`.
    pub fn busiest_topics(&self, most: usize) -> (Vec<(String, usize)>, usize) {
        let state = self.shared.state();
        // LOCK: the hub's lock is held to list the audiences. Their patterns, of which
        // there may be hundreds of thousands, are counted without it.
        let audiences = state.registry.audiences();
        let audiences: Vec<_> = audiences
            .map(|(patterns, _, clients)| (patterns.clone(), clients))
            .collect();
        drop(state);
        stats::busiest(&audiences, most)
    }

    /// The lanes of all audiences that have clients, and the ordinal of the next event.
    fn audiences(&self) -> (Vec<Lanes>, u64) {
        let state = self.shared.state();
        // LOCK: the hub's lock is held to share the lists of lanes. The lanes are looked
        // at without it.
        let audiences = state.registry.audiences();
        let lanes = audiences.map(|(_, lanes, _)| Arc::clone(lanes)).collect();
        (lanes, state.history.head())
    }
}
