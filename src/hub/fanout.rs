//! The one thread that carries events from the hub to every lane.
//!
//! It takes all that has gathered while it worked as one batch: at rest that is one event, which
//! goes out at once; under load it is many, which share a write. There is no timer and nothing
//! to tune. It waits for no client, so the time that a publisher waits for room in the inbox is bounded
//! by one pass over the sockets.
//!
//! A batch is taken under the hub's lock, together with the audiences that it reaches ([`Batch::take`]).
//! Everything else is done without the lock: which audience gets which events, the joining, the
//! writing. A client that is told to leave stays in its audience until its thread has ended. It is due the events
//! that were published before its end ([`Lane::due`]), and gets them like any other client of the audience.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::counters::Sent;
use super::lane::{Kind, Lane};
use super::record::Record;
use super::registry::{AudienceList, Lanes, Registry};
use super::{CloseReason, Shared};
use crate::config::JOINED_PARTS;
use crate::wire::{Frame, Topic};

/// What publishers and others leave for the fan-out, in order.
#[derive(Debug)]
pub(super) enum InboxItem {
    /// For all clients that asked for its topic.
    Event(Arc<Record>),
    /// For one client, after the events before it.
    Private(Arc<Lane>, Arc<Record>),
    Close(Arc<Lane>, CloseReason),
}

impl InboxItem {
    /// Bytes that it counts for in the inbox.
    pub(super) fn size(&self) -> usize {
        match self {
            InboxItem::Event(record) | InboxItem::Private(_, record) => record.message().len(),
            // LIMIT: an end keeps its lane alive. Without a size of their own, the lanes of a client that
            // subscribes under one name again and again would gather without bound.
            InboxItem::Close(..) => size_of::<Lane>(),
        }
    }
}

/// The thread: it ends when the hub does.
///
/// A panic in it can only be a bug. It ends the streams, which then resume from the history, because
/// an event may not have reached them; the thread goes on.
pub(super) fn run(shared: &Shared) {
    let carry_out_next = || {
        let batch = shared.next_batch()?;
        batch.process(shared);
        Some(())
    };
    loop {
        match catch_unwind(AssertUnwindSafe(carry_out_next)) {
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

/// The items of the inbox, and the clients that they reach.
#[derive(Default)]
pub(super) struct Batch {
    /// The events, in the order of their ordinals, each with its place in `reaches`.
    events: Vec<(usize, Arc<Record>)>,
    /// The events for one client, each with the number of `events` before it.
    private: Vec<(usize, Arc<Lane>, Arc<Record>)>,
    ends: Vec<(Arc<Lane>, CloseReason)>,
    /// One for each topic in the batch.
    reaches: Vec<Reach>,
    /// The lanes of every audience that is reached, by its slot.
    lanes: HashMap<usize, Lanes>,
}

/// The audiences of one topic.
enum Reach {
    /// The events have no topic, and reach all audiences.
    All,
    /// The audiences of the topic. No audience is in two of these lists.
    Lists(Vec<AudienceList>),
}

impl Batch {
    /// Finds the clients that the items reach. The hub's lock is held.
    ///
    /// LIMIT: each topic is looked up once, each list of audiences is gone through once, and each audience is noted
    /// once, however many events there are.
    pub(super) fn take(items: Vec<InboxItem>, registry: &Registry) -> Batch {
        let mut batch = Batch::default();
        let mut kind_of: HashMap<Option<Topic>, usize> = HashMap::new();
        let mut lists_seen: HashSet<*const Vec<usize>> = HashSet::new();
        // An audience is in as many lists as it has patterns, so most of what is gone through was noted.
        let mut is_noted = vec![false; registry.slots()];
        let mut note = |slot: usize| {
            if !std::mem::replace(&mut is_noted[slot], true) {
                batch.lanes.insert(slot, registry.lanes_of(slot));
            }
        };
        for item in items {
            let record = match item {
                InboxItem::Event(record) => record,
                InboxItem::Private(lane, record) => {
                    batch.private.push((batch.events.len(), lane, record));
                    continue;
                }
                InboxItem::Close(lane, why) => {
                    batch.ends.push((lane, why));
                    continue;
                }
            };
            let kind = match batch.events.last() {
                Some((kind, last)) if last.topic() == record.topic() => *kind,
                _ => *kind_of.entry(record.topic().cloned()).or_insert_with(|| {
                    let reach = match record.topic() {
                        None => {
                            registry.all_audiences().for_each(&mut note);
                            Reach::All
                        }
                        Some(topic) => {
                            let lists = registry.lists_for(topic);
                            let fresh = lists
                                .iter()
                                .filter(|list| lists_seen.insert(Arc::as_ptr(list)));
                            fresh.for_each(|list| list.iter().copied().for_each(&mut note));
                            Reach::Lists(lists.into_iter().cloned().collect())
                        }
                    };
                    batch.reaches.push(reach);
                    batch.reaches.len() - 1
                }),
            };
            batch.events.push((kind, record));
        }
        batch
    }

    /// Does what the items say, in their order. The ends come last: each client is due the events before its own.
    fn process(&self, shared: &Shared) {
        let now_ms = shared.now_ms();
        let mut delivered = 0;
        for (before, lane, record) in &self.private {
            self.deliver(delivered..*before, shared, now_ms);
            delivered = *before;
            let frame = join(std::slice::from_ref(record));
            shared.counters.add(lane.offer(&frame, 1, now_ms));
        }
        self.deliver(delivered..self.events.len(), shared, now_ms);
        for (lane, why) in &self.ends {
            lane.close(*why, now_ms);
            // LIMIT: a client that was told to leave keeps its queue for as long as it reads. It gets the time for
            // that only while there is room.
            if *why != CloseReason::ServerClosing && shared.queues_are_half_full() {
                lane.abort_if_backlogged();
            }
        }
        shared.shed(now_ms);
    }

    /// Gives these events to their audiences.
    fn deliver(&self, events: Range<usize>, shared: &Shared, now_ms: u64) {
        let events = &self.events[events];
        let mut places: HashMap<usize, Vec<usize>> = HashMap::new();
        for (place, (kind, _)) in events.iter().enumerate() {
            places.entry(*kind).or_default().push(place);
        }
        for (kinds, slots) in self.groups(places.keys().copied().collect()) {
            let own = kinds.iter().flat_map(|kind| &places[kind]);
            let mut own: Vec<usize> = own.copied().collect();
            own.sort_unstable();
            let own = own.into_iter().map(|place| Arc::clone(&events[place].1));
            let parcel = SharedFrames {
                events: own.collect(),
                joined: RefCell::default(),
            };
            for slot in slots {
                let mut sent = Sent::default();
                for lane in self.lanes[&slot].iter() {
                    sent += parcel.offer_to(lane, now_ms);
                }
                shared.counters.add(sent);
                shared.shed(now_ms);
            }
        }
    }

    /// The slots of the audiences that get the same kinds of events, with those kinds.
    fn groups(&self, mut kinds: Vec<usize>) -> HashMap<Vec<usize>, Vec<usize>> {
        if let [kind] = kinds[..] {
            return HashMap::from([(kinds, self.slots_of(kind))]);
        }
        kinds.sort_unstable();
        let mut of_slot: HashMap<usize, Vec<usize>> = HashMap::new();
        for kind in kinds {
            for slot in self.slots_of(kind) {
                of_slot.entry(slot).or_default().push(kind);
            }
        }
        let mut groups: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
        for (slot, kinds) in of_slot {
            groups.entry(kinds).or_default().push(slot);
        }
        groups
    }

    /// The slots of the audiences that events of this kind reach.
    fn slots_of(&self, kind: usize) -> Vec<usize> {
        match &self.reaches[kind] {
            Reach::All => self.lanes.keys().copied().collect(),
            Reach::Lists(lists) => lists.iter().flat_map(|list| list.iter().copied()).collect(),
        }
    }
}

/// Events of a batch that go to the same lanes, joined once for all of them.
struct SharedFrames {
    events: Vec<Arc<Record>>,
    /// Usually all of the events. A part of them is for lanes that went live, or were told to leave, in the middle
    /// of the batch. LIMIT: [`JOINED_PARTS`], the oldest forgotten first.
    joined: RefCell<Vec<(Range<usize>, Arc<Frame>)>>,
}

impl SharedFrames {
    fn offer_to(&self, lane: &Lane, now_ms: u64) -> Sent {
        let due = lane.due();
        let place = |ordinal| {
            self.events
                .partition_point(|event| event.ordinal() < ordinal)
        };
        let due = place(due.start)..place(due.end);
        if due.is_empty() {
            return Sent::default();
        }
        if lane.kind == Kind::Poll {
            lane.wake_poll(&self.events[due]);
            return Sent::default();
        }
        let count = due.len() as u32;
        lane.offer(&self.joined(due), count, now_ms)
    }

    fn joined(&self, part: Range<usize>) -> Arc<Frame> {
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

    /// The data of the events in a stream of the hub's.
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
    fn a_name_that_passes_from_stream_to_stream_gets_each_event_once() {
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

    /// A socket that takes nothing before it is told to, and keeps the fan-out waiting until then.
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
    fn ends_that_nobody_carries_out_are_bounded() {
        let hub = Hub::new(Config {
            queue_bytes: 40_000,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let stuck = hub.subscribe(named("stuck", None)).unwrap();
        let is_free = Arc::new(AtomicBool::new(false));
        stuck.lane().open(Arc::new(Stuck(Arc::clone(&is_free))));
        stuck.lane().reduce_backlog(BATON_BYTE);
        hub.publish(Event::new("for the fan-out to wait with"))
            .unwrap();
        let bound = hub.shared.inbox_limit / size_of::<Lane>() + 2;
        let most = thread::scope(|scope| {
            let subscriber = scope.spawn(|| {
                let (mut most, mut replaced) = (0, Vec::new());
                for _ in 0..10 * bound {
                    // Each replaces the one before it, and none is served.
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
        assert!(most <= bound, "{most} ends were in the inbox, {bound} may");
    }

    #[test]
    fn all_queues_together_are_bounded_by_closing_the_clients_that_are_owed_most() {
        let (limit, clients) = (400_000, 20);
        let hub = Hub::new(Config {
            queue_bytes: 100_000,
            total_queues: Some(limit),
            history_events: 1000,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let topic = |number| format!("user/{number}");
        // Each is an audience of its own, so that nothing that waits is shared.
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
            // One that ended keeps its bytes until its thread has seen the end.
            streams.retain(|stream| stream.lane().close_reason().is_none());
            let owed: usize = streams.iter().map(|stream| stream.lane().backlog()).sum();
            assert!(owed <= limit + 2000, "{owed} bytes wait in round {round}");
        }
        assert!(streams.len() < clients, "nobody was closed");
        assert!(streams.len() >= 4, "only {} are left", streams.len());
        // Those that are owed less were spared.
        let left: Vec<_> = streams.iter().map(|stream| stream.client_id()).collect();
        assert!(left.contains(&"0") && !left.contains(&"19"), "{left:?}");
        drop(streams);
        let queued = hub.shared.total_queued.load(Ordering::Relaxed);
        assert_eq!(queued, 0, "what is gone does not count");
    }

    /// A socket with a bug.
    struct Broken;

    impl Socket for Broken {
        fn try_write(&self, _: &[u8]) -> io::Result<usize> {
            panic!("a bug, for the sake of the test");
        }

        fn abort(&self) {}
    }

    #[test]
    fn a_panic_ends_the_streams_and_the_fan_out_goes_on() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&told);
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
        // Closed without a farewell, as if it had fallen behind: so it comes back, and misses nothing.
        assert_eq!(neighbour.write_to(&mut Vec::new()), CloseReason::FellBehind);
        assert!(
            told.lock()
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

    /// Is stuck at the first write, and breaks at the second.
    struct StuckThenBroken(Stuck, AtomicBool);

    impl Socket for StuckThenBroken {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!self.1.swap(true, Ordering::AcqRel), "a bug, for the test");
            self.0.try_write(bytes)
        }

        fn abort(&self) {}
    }

    #[test]
    fn a_panic_ends_the_streams_too_that_were_told_to_leave() {
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
        // Both are of the next batch, which breaks before it comes to the end.
        hub.publish(Event::new("two")).unwrap();
        assert!(hub.disconnect("kicked"));
        is_free.store(true, Ordering::Release);
        while broken.lane().close_reason().is_none() {
            thread::yield_now();
        }
        let start = std::time::Instant::now();
        while kicked.lane().close_reason().is_none() {
            assert!(start.elapsed().as_secs() < 5, "it is never told to leave");
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
    fn queues_of_clients_that_are_replaced_again_and_again_are_bounded() {
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
            // Until all nine wait for it, or it has been closed for what waits for others.
            while stream.lane().close_reason().is_none() && stream.lane().backlog() <= 90_000 {
                thread::yield_now();
            }
            streams.push((stream, socket));
            // Whose socket was cut is gone soon.
            streams.retain(|(_, socket)| !socket.0.load(Ordering::Acquire));
            most = most.max(hub.shared.total_queued.load(Ordering::Relaxed));
        }
        assert!(most <= 2 * limit, "{most} bytes waited, {limit} may");
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
    fn who_leaves_and_who_stays_get_their_own_of_one_batch() {
        let texts = ["a", "b", "c", "*", "a*", "c/*", "c/1"];
        let names = ["a", "b", "c", "c/1", "c/2", "ab"];
        let mut random = Random::new();
        for _ in 0..30 {
            let hub = Hub::new(Config {
                // Less than a batch, so that what is joined for those who leave is dropped in between.
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
            // All under one lock, and so in one batch.
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
                for (stream, _, expected, has_left) in &mut clients {
                    if *has_left {
                        continue;
                    }
                    if stream.lane().patterns.matches(topic.as_ref()) {
                        expected.push(number.to_string());
                    }
                    if random.below(300) == 0 {
                        let lane = state.registry.get(stream.client_id()).unwrap().clone();
                        assert!(state.close_client(&lane, CloseReason::Kicked));
                        *has_left = true;
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
