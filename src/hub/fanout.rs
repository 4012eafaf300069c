//! The one thread that carries events from the hub to every lane.
//!
//! The fan-out turns the inbox into frames, and offers each frame to the lanes of the
//! clients that should get it. The thread takes everything that is in the inbox at once,
//! as a batch. While there is little to do, a batch is one event, which is sent at once.
//! Under load a batch is many events, and each client gets its events of the batch in one
//! write. So the batches grow with the load, without a timer and without a parameter to
//! set. The thread waits for no client, so a publisher that waits for room in the inbox
//! waits for one pass over the sockets at most.
//!
//! One round of [`run`]:
//!
//! 1. `Shared::next_batch` (`state.rs`) waits for items in the inbox. It takes all of
//!    them under the hub's lock, and [`Batch::take`] finds the audiences that they reach.
//!    The lists of lanes are shared, not copied.
//! 2. [`Batch::process`] does everything else without the lock. It joins the events of
//!    each audience into a frame and offers the frame to each lane of the audience
//!    ([`Lane::offer`]).
//! 3. The items that close a client come last, and then load shedding (`Shared::shed`).
//!
//! Why one thread, and not the publishers themselves: two publishers that write to the
//! same socket would have to wait for each other, for each client. One thread needs no
//! lock for each client, keeps the order of the events, and joins the events of many
//! publishers into one write for each client. The price is that all writes together use
//! one core at most.
//!
//! A client that is to be closed stays in its audience until its own thread has ended. It
//! is still due the events that were published before its end ([`Lane::due`]), and gets
//! them like any other client of the audience.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::counters::Sent;
use super::lane::{Kind, Lane};
use super::record::Record;
use super::registry::{AudienceIndex, AudienceList, Lanes, Registry};
use super::{CloseReason, Shared};
use crate::config::JOINED_PARTS;
use crate::wire::{Frame, Topic};

/// An item of the inbox. Publishers, and threads that close clients, put it there under
/// the hub's lock. The fan-out thread carries the items out in their order.
#[derive(Debug)]
pub(super) enum InboxItem {
    /// A published event, for all clients whose patterns match its topic.
    Event(Arc<Record>),
    /// An event for one client ([`Hub::send_to`](super::Hub::send_to)), after the events
    /// before it.
    Private(Arc<Lane>, Arc<Record>),
    /// Closes one client, after the events that are due to it. Comes from
    /// `State::close_client` and `Hub::close`.
    Close(Arc<Lane>, CloseReason),
}

impl InboxItem {
    /// Returns the bytes that this item adds to the size of the inbox.
    pub(super) fn size(&self) -> usize {
        match self {
            InboxItem::Event(record) | InboxItem::Private(_, record) => record.message().len(),
            // LIMIT: the item keeps the lane in memory. If it counted as nothing, a
            // client that subscribes again and again under one client id could fill the
            // inbox with lanes without bound.
            InboxItem::Close(..) => size_of::<Lane>(),
        }
    }
}

/// The function of the fan-out thread. Returns when the hub has ended and the inbox is
/// empty.
///
/// Only the fan-out thread runs this; `Hub::start` starts it, and `FanOutThread::end`
/// joins it. It holds the hub's lock only in `Shared::next_batch` and `Shared::shed`.
///
/// A panic in here can only be a bug of this crate. Some clients may then have missed an
/// event, so all streams are closed; the clients reconnect and resume from the history.
/// The thread goes on with the next batch.
pub(super) fn run(shared: &Shared) {
    let process_next = || {
        let batch = shared.next_batch()?;
        batch.process(shared);
        Some(())
    };
    loop {
        match catch_unwind(AssertUnwindSafe(process_next)) {
            Ok(Some(())) => {}
            Ok(None) => return,
            Err(_) => {
                shared.config.report.error(format_args!(
                    "the fan-out panicked; all streams are closed, and resume when they reconnect"
                ));
                shared.close_all(CloseReason::FellBehind);
            }
        }
    }
}

/// The items that were in the inbox, and the clients that they reach. Only the fan-out
/// thread has it.
#[derive(Default)]
pub(super) struct Batch {
    /// The published events, in the order of their ordinals.
    events: Vec<BatchEvent>,
    /// The events for one client each, in their order.
    private: Vec<PrivateEvent>,
    /// The clients to close, and why.
    closes: Vec<(Arc<Lane>, CloseReason)>,
    /// The audiences that each topic of the batch reaches.
    reaches: Vec<Reach>,
    /// The lanes of each audience that the batch reaches, as they were when the batch was
    /// taken.
    lanes: HashMap<AudienceIndex, Lanes>,
}

/// The index of a topic in [`Batch::reaches`]. The events without a topic have an index
/// of their own.
type TopicIndex = usize;

/// A published event of a batch. Its topic is an index, so that events are grouped by
/// comparing numbers instead of texts.
struct BatchEvent {
    topic: TopicIndex,
    record: Arc<Record>,
}

/// An event for one client alone. If the client has ended meanwhile, the event is
/// dropped.
struct PrivateEvent {
    /// The number of published events in the batch that come before it.
    events_before: usize,
    lane: Arc<Lane>,
    record: Arc<Record>,
}

/// The audiences that one topic reaches.
enum Reach {
    /// Events without a topic reach all audiences.
    All,
    /// One list for each pattern that matches the topic. No audience is in two of them,
    /// because at most one pattern of a client matches a topic.
    Lists(Vec<AudienceList>),
}

/// A batch that is being made, and what is needed for that. It exists only while the
/// hub's lock is held.
struct BatchBuilder<'a> {
    registry: &'a Registry,
    batch: Batch,
    /// The topics that were looked up. `None` is for events without a topic.
    topics: HashMap<Option<Topic>, TopicIndex>,
    /// The lists whose audiences were collected, by their addresses, which do not change
    /// while the lock is held. Two topics may share a list: `chat/1` and `chat/2` share
    /// the list of `chat/*`.
    collected_lists: HashSet<*const Vec<AudienceIndex>>,
    /// For each audience of the registry, whether its lanes are in the batch. An audience
    /// comes up once for each of its patterns that a topic of the batch matches.
    is_collected: Vec<bool>,
}

impl BatchBuilder<'_> {
    /// Adds a published event.
    fn add_event(&mut self, record: Arc<Record>) {
        let topic = match self.batch.events.last() {
            // The common case costs no look-up: many events of one topic in a row.
            Some(last) if last.record.topic() == record.topic() => last.topic,
            _ => self.topic_index(record.topic()),
        };
        self.batch.events.push(BatchEvent { topic, record });
    }

    /// Returns the index of a topic. If the topic is new in this batch, finds the
    /// audiences that it reaches and collects their lanes.
    fn topic_index(&mut self, topic: Option<&Topic>) -> TopicIndex {
        let key = topic.cloned();
        if let Some(&index) = self.topics.get(&key) {
            return index;
        }
        let reach = match topic {
            None => {
                let audiences = self.registry.all_audiences();
                audiences.for_each(|audience| self.collect(audience));
                Reach::All
            }
            Some(topic) => {
                let lists = self.registry.lists_for(topic);
                for list in &lists {
                    if self.collected_lists.insert(Arc::as_ptr(list)) {
                        list.iter().for_each(|audience| self.collect(*audience));
                    }
                }
                Reach::Lists(lists.into_iter().cloned().collect())
            }
        };
        self.batch.reaches.push(reach);
        let index = self.batch.reaches.len() - 1;
        self.topics.insert(key, index);
        index
    }

    /// Shares the list of an audience's lanes with the batch, unless that was done
    /// before.
    fn collect(&mut self, audience: AudienceIndex) {
        if !std::mem::replace(&mut self.is_collected[audience], true) {
            let lanes = self.registry.lanes_of(audience);
            self.batch.lanes.insert(audience, lanes);
        }
    }
}

impl Batch {
    /// Makes a batch of the items of the inbox, and finds the audiences that the events
    /// reach. The caller holds the hub's lock.
    ///
    /// For example, there are the audiences 0 with `{chat/1}` and 1 with `{chat/*}`, and
    /// the inbox has two events of `chat/1` and one of `chat/2`. Then the batch has
    ///
    /// ```text
    /// events      topic 0, topic 0, topic 1
    /// reaches     0: the lists [0] and [1]        1: the list [1]
    /// lanes       0: the lanes of audience 0      1: the lanes of audience 1
    /// ```
    ///
    /// LIMIT: the work under the lock does not multiply the events with the clients. Each
    /// topic is looked up once, each list of audiences is gone through once, and the
    /// lanes of each audience are shared once, however many events there are. No lane is
    /// touched.
    pub(super) fn take(items: Vec<InboxItem>, registry: &Registry) -> Batch {
        let mut builder = BatchBuilder {
            registry,
            batch: Batch::default(),
            topics: HashMap::new(),
            collected_lists: HashSet::new(),
            is_collected: vec![false; registry.audience_indexes()],
        };
        for item in items {
            match item {
                InboxItem::Event(record) => builder.add_event(record),
                InboxItem::Private(lane, record) => {
                    let events_before = builder.batch.events.len();
                    builder.batch.private.push(PrivateEvent {
                        events_before,
                        lane,
                        record,
                    });
                }
                InboxItem::Close(lane, reason) => builder.batch.closes.push((lane, reason)),
            }
        }
        builder.batch
    }

    /// Carries the items out. Published events and private events keep their order. The
    /// clients are closed last: each is due exactly the events before its close item,
    /// whatever comes after that item in the batch. Holds no lock, except in
    /// `Shared::shed`, and waits for no client.
    ///
    /// For example, the inbox had the published events e1, e2 and e3, a private event p
    /// for a client after e1, and a close item between e2 and e3:
    ///
    /// ```text
    /// inbox    e1, p, e2, close, e3
    /// steps    deliver(e1), p to its client, deliver(e2, e3), close
    /// ```
    ///
    /// The close item is carried out after e3, and its client does not get e3 all the
    /// same: `State::close_client` has noted in the lane that e3 is not due any more
    /// ([`Lane::due`]).
    fn process(&self, shared: &Shared) {
        let now_ms = shared.now_ms();
        let mut delivered = 0;
        for private in &self.private {
            self.deliver(delivered..private.events_before, shared, now_ms);
            delivered = private.events_before;
            let frame = join(std::slice::from_ref(&private.record));
            let sent = private.lane.offer(&frame, 1, now_ms);
            shared.counters.add(sent);
        }
        self.deliver(delivered..self.events.len(), shared, now_ms);
        for (lane, reason) in &self.closes {
            lane.close(*reason, now_ms);
            // LIMIT: a closed client keeps its queue in memory for as long as it reads
            // its backlog. It gets the time for that only while all queues together are
            // less than half full.
            if *reason != CloseReason::ServerClosing && shared.queues_are_half_full() {
                lane.abort_if_backlogged();
            }
        }
        shared.shed(now_ms);
    }

    /// Delivers some of the events, in their order, to their audiences. `events` are
    /// indexes in `self.events`.
    ///
    /// The audiences that get the same events form a group. The events of a group are
    /// joined into a frame once, and the frame is shared by all lanes of the group.
    /// Groups are found by topic, not by event: 1,000 events of one topic need no more of
    /// this work than one event.
    fn deliver(&self, events: Range<usize>, shared: &Shared, now_ms: u64) {
        let mut of_topic: HashMap<TopicIndex, Vec<&Arc<Record>>> = HashMap::new();
        for event in &self.events[events] {
            of_topic.entry(event.topic).or_default().push(&event.record);
        }
        for (topics, audiences) in self.groups(of_topic.keys().copied().collect()) {
            let events = topics.iter().flat_map(|topic| &of_topic[topic]);
            let mut events: Vec<_> = events.map(|record| Arc::clone(record)).collect();
            // One topic's events are in order; those of several topics have to be merged.
            events.sort_unstable_by_key(|event| event.ordinal());
            let frames = SharedFrames {
                events,
                joined: RefCell::default(),
            };
            for audience in audiences {
                let mut sent = Sent::default();
                for lane in self.lanes[&audience].iter() {
                    sent += frames.offer_to(lane, now_ms);
                }
                // Done once for each audience: fewer atomic additions than once for each
                // lane, and load shedding comes in time.
                shared.counters.add(sent);
                shared.shed(now_ms);
            }
        }
    }

    /// Groups the audiences that these topics reach, so that all audiences of a group get
    /// the same topics. Returns the groups: the topics, ascending, and the audiences that
    /// get exactly these topics.
    ///
    /// For example, topic 0 reaches the audiences 4 and 7, and topic 1 reaches 7 and 9:
    ///
    /// ```text
    /// topics of each audience     4: [0]     7: [0, 1]     9: [1]
    /// groups                      [0]: [4]     [0, 1]: [7]     [1]: [9]
    /// ```
    fn groups(&self, mut topics: Vec<TopicIndex>) -> HashMap<Vec<TopicIndex>, Vec<AudienceIndex>> {
        // The common case: all audiences of the one topic are one group.
        if let [topic] = topics[..] {
            return HashMap::from([(topics, self.audiences_of(topic))]);
        }
        topics.sort_unstable();
        let mut of_audience: HashMap<AudienceIndex, Vec<TopicIndex>> = HashMap::new();
        for topic in topics {
            for audience in self.audiences_of(topic) {
                of_audience.entry(audience).or_default().push(topic);
            }
        }
        let mut groups: HashMap<Vec<TopicIndex>, Vec<AudienceIndex>> = HashMap::new();
        for (audience, topics) in of_audience {
            groups.entry(topics).or_default().push(audience);
        }
        groups
    }

    /// The audiences that events of this topic reach.
    fn audiences_of(&self, topic: TopicIndex) -> Vec<AudienceIndex> {
        match &self.reaches[topic] {
            Reach::All => self.lanes.keys().copied().collect(),
            Reach::Lists(lists) => lists.iter().flat_map(|list| list.iter().copied()).collect(),
        }
    }
}

/// The events of one group of audiences, and the frames that were made of them.
///
/// For example, the events have the ordinals 10, 11, 13 and 14, and three lanes get them:
///
/// ```text
/// lane                            due           part     frame
/// live since the ordinal 4        4..MAX        0..4     made
/// live since the ordinal 7        7..MAX        0..4     the same one
/// live since the ordinal 12       12..MAX       2..4     made: it has read 10 and 11 from the history
/// live since 4, closed at 13      4..13         0..2     made
/// ```
/// Each frame is made once and shared by all lanes that get the same events.
struct SharedFrames {
    /// The events, in the order of their ordinals.
    events: Vec<Arc<Record>>,
    /// The frames so far, each with the range of `events` that it joins. Usually there is
    /// one frame, of all events. A lane that went live or was closed in the middle of the
    /// batch is due only a part of them.
    ///
    /// LIMIT: [`JOINED_PARTS`] frames; the oldest is dropped first and made again if
    /// another lane needs it.
    ///
    /// A `RefCell`, because it is filled while the lanes are gone through. Only the
    /// fan-out thread uses it.
    joined: RefCell<Vec<(Range<usize>, Arc<Frame>)>>,
}

impl SharedFrames {
    /// Offers a lane the events that are due to it: wakes a poll, or gives a stream the
    /// frame of these events. Returns what was written to its socket.
    fn offer_to(&self, lane: &Lane, now_ms: u64) -> Sent {
        let due = lane.due();
        let index_of = |ordinal| {
            self.events
                .partition_point(|event| event.ordinal() < ordinal)
        };
        let due = index_of(due.start)..index_of(due.end);
        if due.is_empty() {
            return Sent::default();
        }
        if lane.kind == Kind::Poll {
            lane.wake_poll(&self.events[due]);
            return Sent::default();
        }
        let count = due.len() as u32;
        lane.offer(&self.frame_of(due), count, now_ms)
    }

    /// The frame of these events: one that was made before, or a new one.
    fn frame_of(&self, part: Range<usize>) -> Arc<Frame> {
        let mut joined = self.joined.borrow_mut();
        if let Some((_, frame)) = joined.iter().find(|(known, _)| *known == part) {
            return Arc::clone(frame);
        }
        if joined.len() == JOINED_PARTS {
            joined.remove(0);
        }
        let frame = join(&self.events[part.clone()]);
        joined.push((part, Arc::clone(&frame)));
        frame
    }
}

/// Copies the messages of these events into one frame.
fn join(events: &[Arc<Record>]) -> Arc<Frame> {
    Arc::new(Frame::of(events.iter().map(|event| event.message())))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::super::lane::{BATON_BYTE, Socket};
    use super::super::{Cursor, Hub, Subscribe};
    use super::*;
    use crate::chance::Random;
    use crate::config::Config;
    use crate::report::Report;
    use crate::wire::{Decoder, Event, Pattern};

    fn named(name: &str, pattern: Option<&str>) -> Subscribe {
        Subscribe {
            client_id: Some(name.parse().unwrap()),
            patterns: pattern
                .map(|text| Pattern::new(text).unwrap())
                .into_iter()
                .collect(),
            ..Subscribe::default()
        }
    }

    /// The data of the published events in the bytes of a stream.
    fn data(bytes: &[u8]) -> Vec<String> {
        let mut data = Vec::new();
        let take = |message: crate::wire::Message| {
            if message.name == "message" {
                data.push(message.data);
            }
        };
        Decoder::new(usize::MAX).feed(bytes, take).unwrap();
        data
    }

    #[test]
    fn streams_that_replace_each_other_under_one_client_id_get_each_event_once() {
        let hub = Hub::new(Config::default()).unwrap();
        let is_over = AtomicBool::new(false);
        let mut random = Random::new();
        let mut params = || {
            let pattern = random.pick(&["*", "a*", "a"]);
            (named("me", Some(pattern)), random.below(3))
        };
        let mut seen = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut sent = 0;
                for number in 0..30_000 {
                    let topic = Topic::new("a").unwrap();
                    let event = Event::new(number.to_string());
                    let for_one = number % 7 == 0 && hub.send_to("me", &event).is_ok();
                    sent += u32::from(for_one);
                    if !for_one {
                        hub.publish(event.with_topic(topic)).unwrap();
                    }
                }
                assert!(sent > 1000, "{sent} of 30,000 were for one client alone");
                is_over.store(true, Ordering::Release);
            });
            let (first, _) = params();
            let mut before = hub.subscribe(first).unwrap();
            while !is_over.load(Ordering::Acquire) {
                let (next, pauses) = params();
                let next = hub.subscribe(next).unwrap();
                let mut bytes = Vec::new();
                assert_eq!(before.write_to(&mut bytes), CloseReason::Replaced);
                seen.extend(data(&bytes));
                before = next;
                (0..pauses).for_each(|_| thread::yield_now());
            }
            hub.disconnect("me");
            let mut bytes = Vec::new();
            assert_eq!(before.write_to(&mut bytes), CloseReason::Kicked);
            seen.extend(data(&bytes));
        });
        let numbers: Vec<u32> = seen.iter().map(|data| data.parse().unwrap()).collect();
        let expected: Vec<u32> = (numbers[0]..30_000).collect();
        assert_eq!(numbers, expected);
    }

    /// A socket that blocks the fan-out thread until the flag is set, and then takes
    /// everything.
    struct Stuck(Arc<AtomicBool>);

    impl Socket for Stuck {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            while !self.0.load(Ordering::Acquire) {
                thread::yield_now();
            }
            Ok(bytes.len())
        }

        fn abort(&self) {}
    }

    #[test]
    fn close_items_that_wait_in_the_inbox_are_bounded() {
        let hub = Hub::new(Config {
            queue_bytes: 40_000,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let stuck = hub.subscribe(named("stuck", None)).unwrap();
        let is_free = Arc::new(AtomicBool::new(false));
        stuck.lane().open(Arc::new(Stuck(Arc::clone(&is_free))));
        stuck.lane().reduce_backlog(BATON_BYTE);
        hub.publish(Event::new("blocks the fan-out")).unwrap();
        let bound = hub.shared.inbox_limit / size_of::<Lane>() + 2;
        let most = thread::scope(|scope| {
            let subscriber = scope.spawn(|| {
                let (mut most, mut replaced) = (0, Vec::new());
                for _ in 0..10 * bound {
                    // Each subscription replaces the one before it, and none of them is
                    // served.
                    replaced.push(hub.subscribe(named("me", None)).unwrap());
                    most = most.max(hub.shared.state().inbox.len());
                }
                most
            });
            let is_full = || hub.shared.state().inbox_bytes > hub.shared.inbox_limit;
            while !is_full() && !subscriber.is_finished() {
                thread::yield_now();
            }
            is_free.store(true, Ordering::Release);
            subscriber.join().unwrap()
        });
        assert!(
            most <= bound,
            "{most} close items were in the inbox, the bound is {bound}"
        );
    }

    #[test]
    fn all_queues_together_are_bounded_by_closing_the_clients_with_the_largest_backlogs() {
        let (limit, clients) = (400_000, 20);
        let hub = Hub::new(Config {
            queue_bytes: 100_000,
            total_queues: Some(limit),
            history_events: 1000,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let topic = |number| format!("user/{number}");
        // Each client is an audience of its own, so that no two clients share a frame.
        let subscribe = |number: usize| {
            let name = number.to_string();
            hub.subscribe(named(&name, Some(&topic(number)))).unwrap()
        };
        let mut streams: Vec<_> = (0..clients).map(subscribe).collect();
        for round in 0..60 {
            for number in 0..clients {
                let event = Event::new("x".repeat(1000 + 10 * number));
                let event = event.with_topic(Topic::new(&topic(number)).unwrap());
                hub.publish(event).unwrap();
            }
            let is_idle = || hub.shared.state().inbox.is_empty();
            while !is_idle() {
                thread::yield_now();
            }
            // A closed stream keeps its queue until it is dropped, which its thread would
            // do.
            streams.retain(|stream| stream.lane().close_reason().is_none());
            let backlogs: usize = streams.iter().map(|stream| stream.lane().backlog()).sum();
            assert!(
                backlogs <= limit + 2000,
                "{backlogs} bytes wait in round {round}"
            );
        }
        assert!(streams.len() < clients, "no client was closed");
        assert!(
            streams.len() >= 4,
            "only {} clients are left",
            streams.len()
        );
        // The clients with small backlogs were not closed.
        let left: Vec<_> = streams.iter().map(|stream| stream.client_id()).collect();
        assert!(left.contains(&"0") && !left.contains(&"19"), "{left:?}");
        drop(streams);
        let queued = hub.shared.total_queued.load(Ordering::Relaxed);
        assert_eq!(queued, 0, "dropped queues still count");
    }

    /// A socket that panics, as code with a bug would.
    struct Broken;

    impl Socket for Broken {
        fn try_write(&self, _: &[u8]) -> io::Result<usize> {
            panic!("a bug, for the test");
        }

        fn abort(&self) {}
    }

    #[test]
    fn after_a_panic_all_streams_are_closed_and_the_fan_out_goes_on() {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&reported);
        let hub = Hub::new(Config {
            report: Report::new(move |_, line| lines.lock().unwrap().push(line.to_string())),
            ..Config::default()
        });
        let hub = hub.unwrap();
        let [broken, neighbour] =
            ["broken", "neighbour"].map(|name| hub.subscribe(named(name, None)).unwrap());
        broken.lane().open(Arc::new(Broken));
        broken.lane().reduce_backlog(BATON_BYTE);
        hub.publish(Event::new("unseen")).unwrap();
        // The stream ends without a close event, as that of a client that fell behind, so
        // its client reconnects.
        assert_eq!(neighbour.write_to(&mut Vec::new()), CloseReason::FellBehind);
        assert!(
            reported
                .lock()
                .unwrap()
                .iter()
                .any(|line| line.contains("the fan-out panicked"))
        );
        drop(broken);
        let after = hub.subscribe(named("after", None)).unwrap();
        hub.publish(Event::new("seen")).unwrap();
        hub.close();
        let mut bytes = Vec::new();
        after.write_to(&mut bytes);
        assert_eq!(data(&bytes), ["seen"]);
    }

    /// A socket that blocks the fan-out thread at the first write, and panics at the
    /// second.
    struct StuckThenBroken(Stuck, AtomicBool);

    impl Socket for StuckThenBroken {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!self.1.swap(true, Ordering::AcqRel), "a bug, for the test");
            self.0.try_write(bytes)
        }

        fn abort(&self) {}
    }

    #[test]
    fn a_panic_also_closes_the_streams_whose_close_items_are_in_the_batch() {
        let hub = Hub::new(Config::default()).unwrap();
        let [broken, kicked] =
            ["broken", "kicked"].map(|name| hub.subscribe(named(name, None)).unwrap());
        let is_free = Arc::new(AtomicBool::new(false));
        let socket = StuckThenBroken(Stuck(Arc::clone(&is_free)), AtomicBool::new(false));
        broken.lane().open(Arc::new(socket));
        broken.lane().reduce_backlog(BATON_BYTE);
        hub.publish(Event::new("one")).unwrap();
        while !hub.shared.state().inbox.is_empty() {
            thread::yield_now();
        }
        // Both items are in the next batch, whose first write panics before the close
        // item is carried out.
        hub.publish(Event::new("two")).unwrap();
        assert!(hub.disconnect("kicked"));
        is_free.store(true, Ordering::Release);
        while broken.lane().close_reason().is_none() {
            thread::yield_now();
        }
        let start = std::time::Instant::now();
        while kicked.lane().close_reason().is_none() {
            assert!(start.elapsed().as_secs() < 5, "the stream is never closed");
            thread::yield_now();
        }
    }

    /// A socket that takes nothing.
    struct Full(AtomicBool);

    impl Socket for Full {
        fn try_write(&self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn abort(&self) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn the_queues_of_replaced_clients_are_bounded() {
        let limit = 400_000;
        let hub = Hub::new(Config {
            queue_bytes: 100_000,
            total_queues: Some(limit),
            history_events: 1000,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let (mut streams, mut most) = (Vec::new(), 0);
        for _ in 0..40 {
            let stream = hub.subscribe(named("me", None)).unwrap();
            let socket = Arc::new(Full(AtomicBool::new(false)));
            stream.lane().open(Arc::clone(&socket) as Arc<dyn Socket>);
            for _ in 0..9 {
                hub.publish(Event::new("x".repeat(10_000))).unwrap();
            }
            // Until all nine events are in its backlog, or load shedding has closed it.
            while stream.lane().close_reason().is_none() && stream.lane().backlog() <= 90_000 {
                thread::yield_now();
            }
            streams.push((stream, socket));
            // The thread of an aborted socket would end, and drop its stream.
            streams.retain(|(_, socket)| !socket.0.load(Ordering::Acquire));
            most = most.max(hub.shared.total_queued.load(Ordering::Relaxed));
        }
        assert!(
            most <= 2 * limit,
            "{most} bytes were queued, the limit is {limit}"
        );
    }

    /// A socket that takes everything.
    #[derive(Default)]
    struct Tape(Mutex<Vec<u8>>);

    impl Socket for Tape {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn abort(&self) {}
    }

    #[test]
    fn each_client_gets_exactly_the_events_before_its_close_item() {
        let texts = ["a", "b", "c", "*", "a*", "c/*", "c/1"];
        let names = ["a", "b", "c", "c/1", "c/2", "ab"];
        let mut random = Random::new();
        for _ in 0..30 {
            let hub = Hub::new(Config {
                // The batch has more bytes than a queue may have.
                queue_bytes: 1000,
                ..Config::default()
            });
            let hub = hub.unwrap();
            let mut clients = Vec::new();
            for number in 0..20 {
                let count = random.below(4);
                let params = Subscribe {
                    patterns: (0..count)
                        .map(|_| Pattern::new(random.pick(&texts)).unwrap())
                        .collect(),
                    ..named(&number.to_string(), None)
                };
                let stream = hub.subscribe(params).unwrap();
                let tape = Arc::new(Tape::default());
                stream.lane().open(Arc::clone(&tape) as Arc<dyn Socket>);
                stream.lane().reduce_backlog(BATON_BYTE);
                clients.push((stream, tape, Vec::new(), false));
            }
            // All of this happens under one lock, and so becomes one batch.
            let mut state = hub.shared.state();
            for number in 0..200 {
                let topic = match random.below(10) {
                    0 => None,
                    _ => Some(Topic::new(random.pick(&names)).unwrap()),
                };
                let event = Event::new(number.to_string());
                let event = match topic.clone() {
                    Some(topic) => event.with_topic(topic),
                    None => event,
                };
                let records = vec![Arc::new(Record::new(&event))];
                let records = state.assign_ids(records, &mut Default::default()).unwrap();
                state.commit(&records);
                for (stream, _, expected, is_closing) in &mut clients {
                    if *is_closing {
                        continue;
                    }
                    if stream.lane().patterns.matches(topic.as_ref()) {
                        expected.push(number.to_string());
                    }
                    if random.below(300) == 0 {
                        let lane = state.registry.get(stream.client_id()).unwrap().clone();
                        assert!(state.close_client(&lane, CloseReason::Kicked));
                        *is_closing = true;
                    }
                }
            }
            hub.shared.wake_fan_out(state);
            hub.close();
            for (stream, tape, expected, _) in &clients {
                while stream.lane().close_reason().is_none() {
                    thread::yield_now();
                }
                assert_eq!(data(&tape.0.lock().unwrap()), *expected);
            }
        }
    }
    #[test]
    fn a_large_event_of_a_replay_counts_as_queued_while_it_is_written() {
        let hub = Hub::new(Config {
            queue_bytes: 100_000,
            total_queues: Some(200_000),
            ..Config::default()
        });
        let hub = hub.unwrap();
        for large in ["x".repeat(150_000), "y".to_owned(), "z".repeat(20_000)] {
            hub.publish(Event::new(large)).unwrap();
        }
        let replay = |name| {
            let params = Subscribe {
                cursor: Cursor::Earliest,
                ..named(name, None)
            };
            hub.subscribe(params).unwrap()
        };
        let (early, late) = (replay("early"), replay("late"));
        let held = late.lane().try_reserve(60_000, usize::MAX).unwrap();
        assert_eq!(early.write_to(&mut Vec::new()), CloseReason::FellBehind);
        drop(held);
        hub.close();
        let mut bytes = Vec::new();
        assert_eq!(late.write_to(&mut bytes), CloseReason::ServerClosing);
        let lengths: Vec<_> = data(&bytes).iter().map(String::len).collect();
        assert_eq!(lengths, [150_000, 1, 20_000]);
        assert_eq!(hub.shared.total_queued.load(Ordering::Relaxed), 0);
    }
}
