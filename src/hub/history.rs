//! The latest events, for clients that reconnect: a ring that is bounded by the number of
//! events, by their bytes and by their memory; and the decision what a cursor means.
//!
//! Events have two numbers here. The *id* is known to clients. The *ordinal* is the
//! position of the event among all events of this run of the hub, counted from 0: "all
//! events after this one" is an index into the ring and not a search. Ordinals never
//! leave the hub.
//!
//! ```text
//!  evicted            the ring                           head
//!  … 4 5 6 │ 7   8   9   10   11   12 │ 13               ordinals
//!        ▲   ▲                          ▲
//!        │   first: the oldest event    the ordinal of the next event
//!        the event `evicted`: a client that has seen it misses nothing that is gone
//! ```
//!
//! The history is a part of the hub's state. Every function here runs under the hub's
//! lock, so each is bounded.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::kept::Kept;
use super::own_ids::{OwnId, OwnIds};
use super::record::Record;
use crate::config::{Config, SLICE_EVENTS};
use crate::wire::{EventId, Patterns, Topic};

/// The position after which a client wants events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// Only events that are published from now on.
    #[default]
    Now,
    /// All events that are retained.
    Earliest,
    /// The events after the one with this id: a `Last-Event-ID`, as the client sent it.
    After(String),
}

/// Why a client cannot get all events that it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// The cursor is older than every retained event.
    Evicted,
    /// The cursor is not an id that this hub has assigned or accepted.
    Unknown,
    /// The cursor is newer than the latest event: it was assigned by another run of this
    /// server, or by another server.
    Future,
}

/// The [name](Gap::name).
impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Gap {
    /// The `reason` in the `recovery` event.
    pub fn name(self) -> &'static str {
        match self {
            Gap::Evicted => "evicted",
            Gap::Unknown => "unknown",
            Gap::Future => "future",
        }
    }
}

/// The ring of the latest events, oldest first.
#[derive(Debug)]
pub(super) struct History {
    /// Consecutive ordinals, from `first` on.
    ring: VecDeque<Arc<Record>>,
    /// The length of all messages in the ring. LIMIT: `most_bytes`.
    bytes: usize,
    /// About how much memory the records in the ring take. LIMIT: twice `most_bytes`.
    memory: usize,
    /// The ordinal of the first record in the ring, or of the next one if the ring is
    /// empty.
    first: u64,
    /// The event directly before the first one in the ring.
    evicted: Evicted,
    /// Finds the records of the ring by their own ids.
    own_ids: OwnIds,
    /// `Config::history_events`. LIMIT: of the records, as long as their bytes are more
    /// than `least_bytes`.
    most_events: usize,
    /// `Config::history_bytes`.
    most_bytes: usize,
    /// While the ring has fewer bytes than this, the number of events is not limited. The
    /// reason: a client that is disconnected because its queue was full must find
    /// everything here that it had not received, however small the events are: its queue,
    /// the batch that did not fit, the batch before, and the inbox. `Config::check`
    /// ensures that `most_bytes` is at least this.
    least_bytes: usize,
}

/// The latest event that is not in the ring any more, or the start of the hub if there
/// was none. A client with this cursor has missed no evicted event. A client with an
/// older cursor may have missed some.
#[derive(Debug)]
struct Evicted {
    id: EventId,
    own_id: Option<OwnId>,
    topic: Option<Topic>,
}

impl History {
    /// An empty history that begins after the event `kept.after`.
    pub(super) fn new(config: &Config, kept: &Kept) -> History {
        let topic = kept.after_topic.clone();
        let own_id = kept.after_own_id.as_deref();
        History {
            ring: VecDeque::new(),
            bytes: 0,
            memory: 0,
            first: 0,
            evicted: Evicted {
                id: kept.after,
                own_id: own_id.map(|id| OwnId::new(id, topic.as_ref())),
                topic,
            },
            own_ids: OwnIds::default(),
            most_events: config.history_events,
            most_bytes: config.history_bytes,
            least_bytes: if config.history_events == 0 {
                0
            } else {
                config.least_history_bytes()
            },
        }
    }

    /// The ordinal of the next event.
    pub(super) fn head(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// The id of the latest event. Before the first event: the id of the hub's start.
    pub(super) fn last_id(&self) -> EventId {
        self.ring
            .back()
            .map_or(self.evicted.id, |record| record.id())
    }

    /// Appends an event, and evicts the oldest ones while the ring is over a limit.
    pub(super) fn push(&mut self, record: Arc<Record>) {
        debug_assert_eq!(record.ordinal(), self.head());
        self.bytes += record.message().len();
        self.memory += record.memory();
        if let Some(own_id) = record.own_id_on_topic() {
            self.own_ids.insert(own_id.clone(), record.ordinal());
        }
        self.ring.push_back(record);
        while self.is_over() {
            let gone = self
                .ring
                .pop_front()
                .expect("BUG: an empty history is too large");
            self.bytes -= gone.message().len();
            self.memory -= gone.memory();
            if let Some(own_id) = gone.own_id_on_topic() {
                self.own_ids.remove(own_id, gone.ordinal());
            }
            self.first = gone.ordinal() + 1;
            self.evicted = Evicted {
                id: gone.id(),
                own_id: gone.own_id_on_topic().cloned(),
                topic: gone.topic().cloned(),
            };
        }
    }

    /// Whether the oldest event must be evicted.
    fn is_over(&self) -> bool {
        let Some(oldest) = self.ring.front() else {
            return false;
        };
        let many = self.ring.len() > self.most_events;
        let spare = self.bytes - oldest.message().len() >= self.least_bytes;
        // LIMIT: of memory. Without it, events whose message is the smallest part could
        // take several times `most_bytes`.
        let heavy = self.memory > self.most_bytes.saturating_mul(2);
        many && spare || self.bytes > self.most_bytes || heavy
    }

    /// Whether an event in the ring has this own id, on the same topic.
    pub(super) fn has_own_id(&self, own_id: &OwnId) -> bool {
        self.own_ids.contains(own_id)
    }

    /// Decides what a cursor means to a client with these patterns. Returns the ordinal
    /// at which its replay begins, and why events before it are lost, if they are.
    ///
    /// With the ring of the picture above, where the events 7 to 12 are retained:
    ///
    /// | cursor | replay begins at | gap |
    /// |---|---|---|
    /// | `Now` | 13 | none |
    /// | `Earliest` | 7 | none |
    /// | the id of event 9 | 10 | none |
    /// | the id of event 6, the latest evicted one | 7 | none: the client has seen every evicted event |
    /// | the id of event 4 | 7 | `Evicted`: event 5 or 6 may have been for this client |
    /// | `abc`, or an id between those of two events | 7 | `Unknown` |
    /// | an id greater than that of event 12 | 7 | `Future` |
    ///
    /// After `Unknown` and `Future` it is not known what the client has seen, so
    /// everything that is retained is replayed.
    pub(super) fn resolve(&self, cursor: &Cursor, patterns: &Patterns) -> (u64, Option<Gap>) {
        match cursor {
            Cursor::Now => (self.head(), None),
            Cursor::Earliest => (self.first, None),
            Cursor::After(id) => match self.place_of(id, patterns) {
                Ok(ordinal) => (ordinal + 1, None),
                Err(Gone::None) => (self.first, None),
                Err(Gone::Gap(gap)) => (self.first, Some(gap)),
            },
        }
    }

    /// Returns the ordinal of the event that a client with these patterns has received
    /// with `id`. The own ids come first: no own id has the form of a hub's id.
    fn place_of(&self, id: &str, patterns: &Patterns) -> Result<u64, Gone> {
        if let Some(ordinal) = self.own_ids.latest(id, patterns) {
            return Ok(ordinal);
        }
        let evicted = &self.evicted;
        let is_own = evicted.own_id.as_ref().is_some_and(|own| own.id() == id);
        if is_own && patterns.matches(evicted.topic.as_ref()) {
            return Err(Gone::None);
        }
        let id: EventId = id.parse().map_err(|_| Gone::Gap(Gap::Unknown))?;
        if id == evicted.id {
            return Err(Gone::None);
        }
        if id < evicted.id {
            return Err(Gone::Gap(Gap::Evicted));
        }
        if id > self.last_id() {
            return Err(Gone::Gap(Gap::Future));
        }
        // Every id that this hub assigned between the oldest and the latest event is in
        // the ring. Any other id in this range was assigned by another run or another
        // server.
        match self.ring.binary_search_by_key(&id, |record| record.id()) {
            Ok(index) => Ok(self.first + index as u64),
            Err(_) => Err(Gone::Gap(Gap::Unknown)),
        }
    }

    /// The id of the event before `ordinal`: the cursor of a client whose next event is
    /// the one at `ordinal`.
    pub(super) fn id_before(&self, ordinal: u64) -> EventId {
        match ordinal.checked_sub(self.first + 1) {
            Some(index) => self.ring[index as usize].id(),
            None => self.evicted.id,
        }
    }

    /// Whether the event at `ordinal` has been evicted.
    pub(super) fn is_gone(&self, ordinal: u64) -> bool {
        ordinal < self.first
    }

    /// Returns the next events from `ordinal` on, of all topics. At the end of the
    /// history the list is empty. `None`: the event at `ordinal` has been evicted.
    ///
    /// LIMIT: at most [`SLICE_EVENTS`], and about `bytes` bytes. The caller holds the
    /// hub's lock, and the returned events stay in memory even if the history evicts
    /// them.
    pub(super) fn slice(&self, ordinal: u64, bytes: usize) -> Option<Vec<Arc<Record>>> {
        let index = usize::try_from(ordinal.checked_sub(self.first)?).ok()?;
        let (mut slice, mut left) = (Vec::new(), bytes);
        for record in self.ring.range(index..).take(SLICE_EVENTS) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(record.message().len());
            slice.push(Arc::clone(record));
        }
        Some(slice)
    }

    /// The events with these ordinals that are still in the ring.
    pub(super) fn between(&self, ordinals: Range<u64>) -> impl Iterator<Item = &Arc<Record>> {
        let index = |ordinal: u64| ordinal.clamp(self.first, self.head()) - self.first;
        let (from, to) = (index(ordinals.start), index(ordinals.end));
        self.ring.range(from as usize..to.max(from) as usize)
    }

    /// The numbers for `/stats`.
    pub(super) fn extent(&self) -> Extent {
        Extent {
            events: self.ring.len(),
            bytes: self.bytes,
            first_id: self.ring.front().map(|record| record.id()),
            last_id: self.ring.back().map(|record| record.id()),
        }
    }
}

/// Why the event of a cursor is not in the ring.
enum Gone {
    /// The cursor is the event directly before the ring, so the client has missed no
    /// evicted event.
    None,
    /// The client has missed evicted events, or it is not known.
    Gap(Gap),
}

/// The size of the history, and how far back it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// The number of retained events.
    pub events: usize,
    /// The length of their messages, in bytes.
    pub bytes: usize,
    /// The id of the oldest of them.
    pub first_id: Option<EventId>,
    /// The id of the latest of them.
    pub last_id: Option<EventId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Pattern;

    fn history(events: usize, bytes: usize) -> History {
        let config = Config {
            history_events: events,
            history_bytes: bytes,
            queue_bytes: 1,
            ..Config::default()
        };
        History::new(&config, &born(100))
    }

    fn born(ms: u64) -> Kept {
        Kept {
            after: EventId { ms, seq: 0 },
            ..Kept::nothing()
        }
    }

    fn push(history: &mut History, ms: u64, own_id: Option<&str>) {
        push_to(history, ms, own_id, None);
    }

    fn push_to(history: &mut History, ms: u64, own_id: Option<&str>, topic: Option<&str>) {
        let (ordinal, id) = (history.head(), EventId { ms, seq: 0 });
        let topic = topic.map(|name| Topic::new(name).unwrap());
        let record = Record::kept(id, own_id, topic, b"data: \n\n".into());
        history.push(Arc::new(record.at(ordinal)));
    }

    fn after(history: &History, id: &str) -> (u64, Option<Gap>) {
        after_among(history, id, &[])
    }

    fn after_among(history: &History, id: &str, patterns: &[&str]) -> (u64, Option<Gap>) {
        let patterns = patterns.iter().map(|text| Pattern::new(text).unwrap());
        history.resolve(&Cursor::After(id.into()), &patterns.collect())
    }

    #[test]
    fn every_cursor_is_resolved_correctly() {
        let mut history = history(3, 10_000);
        assert_eq!(
            after(&history, "100-0"),
            (0, None),
            "the birth, of a client that saw nothing"
        );
        assert_eq!(
            after(&history, "99-0"),
            (0, Some(Gap::Evicted)),
            "a life before ours"
        );
        assert_eq!(after(&history, "101-0"), (0, Some(Gap::Future)));
        for (ms, own_id) in [
            (101, None),
            (102, None),
            (105, Some("mine")),
            (107, Some("other mine")),
            (109, None),
        ] {
            push(&mut history, ms, own_id);
        }
        for (cursor, expected) in [
            ("109-0", (5, None)),
            ("107-0", (4, None)),
            ("105-0", (3, None)),
            ("mine", (3, None)),
            ("other mine", (4, None)),
            ("102-0", (2, None)),
            ("101-0", (2, Some(Gap::Evicted))),
            ("100-0", (2, Some(Gap::Evicted))),
            ("106-0", (2, Some(Gap::Unknown))),
            ("109-1", (2, Some(Gap::Future))),
            ("other", (2, Some(Gap::Unknown))),
            ("", (2, Some(Gap::Unknown))),
        ] {
            assert_eq!(after(&history, cursor), expected, "cursor {cursor:?}");
        }
        let none = Patterns::default();
        assert_eq!(history.resolve(&Cursor::Now, &none), (5, None));
        assert_eq!(history.resolve(&Cursor::Earliest, &none), (2, None));
    }

    #[test]
    fn an_own_id_is_free_again_after_its_event_is_evicted() {
        let mut history = history(2, 10_000);
        let mine = OwnId::new("mine", None);
        push(&mut history, 101, Some("mine"));
        push(&mut history, 102, None);
        assert!(history.has_own_id(&mine));
        push(&mut history, 103, None);
        assert!(!history.has_own_id(&mine));
        assert_eq!(
            after(&history, "mine"),
            (1, None),
            "the last one that is gone: nothing after it is missing"
        );
        push(&mut history, 104, None);
        assert_eq!(after(&history, "mine"), (2, Some(Gap::Unknown)));
        push(&mut history, 104, Some("mine"));
        assert_eq!(after(&history, "mine"), (5, None));
    }

    #[test]
    fn an_own_id_as_a_cursor_means_an_event_of_the_clients_topics() {
        for (events, bytes) in [(0, 0), (1, 10_000), (1000, 40)] {
            let mut history = history(events, bytes);
            push_to(&mut history, 101, Some("x"), Some("a"));
            push_to(&mut history, 102, Some("x"), Some("b"));
            for ms in 103..106 {
                push_to(&mut history, ms, Some("x"), Some("b"));
            }
            let head = history.head();
            for patterns in [&["b"][..], &["a", "b"], &["*"], &["b*"]] {
                let verdict = after_among(&history, "x", patterns);
                assert_eq!(verdict, (head, None), "{events} events, {patterns:?}");
            }
            assert_eq!(
                after(&history, "x").1,
                Some(Gap::Unknown),
                "{events} events: of no topic of the client"
            );
        }
    }

    #[test]
    fn the_latest_evicted_event_is_known_by_both_of_its_ids() {
        for (events, bytes, of) in [(0, 0, None), (1, 10_000, Some("a")), (1000, 14, Some("a"))] {
            let mut history = history(events, bytes);
            for ms in 101..110 {
                let own_id = format!("own {ms}");
                push_to(&mut history, ms, Some(&own_id), of);
                let last = history.evicted.id;
                if last.ms > 100 {
                    let own_id = format!("own {}", last.ms);
                    for id in [own_id, last.to_string()] {
                        let verdict = after_among(&history, &id, &["a"]);
                        assert_eq!(verdict, (history.first, None), "{id} of {events} events");
                    }
                }
                let older = format!("own {}", last.ms - 1);
                let verdict = after_among(&history, &older, &["a"]);
                assert_eq!(verdict, (history.first, Some(Gap::Unknown)), "{older}");
            }
        }
    }

    #[test]
    fn the_latest_event_that_a_log_does_not_read_back_is_known_by_its_own_id_too() {
        let kept = Kept {
            after_own_id: Some("mine".into()),
            after_topic: Some(Topic::new("a").unwrap()),
            ..born(100)
        };
        let history = History::new(&Config::default(), &kept);
        assert_eq!(after_among(&history, "mine", &["a"]), (0, None));
        assert_eq!(after_among(&history, "mine", &["b"]).1, Some(Gap::Unknown));
    }

    #[test]
    fn a_cursor_that_the_hub_sends_is_accepted() {
        let mut history = history(2, 10_000);
        for ms in 101..120 {
            for ordinal in history.head() - history.extent().events as u64..=history.head() {
                let id = history.id_before(ordinal).to_string();
                assert_eq!(
                    after(&history, &id),
                    (ordinal, None),
                    "before {ordinal} at {ms}"
                );
            }
            push(&mut history, ms, None);
        }
    }

    #[test]
    fn the_ring_is_bounded_by_number_and_by_bytes() {
        let mut by_number = history(3, 10_000);
        let mut by_bytes = history(1000, 100);
        let mut none = history(0, 0);
        for ms in 101..200 {
            for history in [&mut by_number, &mut by_bytes, &mut none] {
                push(history, ms, None);
                assert_eq!(
                    history.bytes,
                    history
                        .ring
                        .iter()
                        .map(|record| record.message().len())
                        .sum::<usize>()
                );
                assert_eq!(history.last_id().ms, ms);
            }
            assert!(by_number.ring.len() <= 3 && by_bytes.bytes <= 100 && none.ring.is_empty());
        }
        assert!(by_number.slice(95, usize::MAX).is_none());
        assert_eq!(by_number.slice(97, usize::MAX).unwrap().len(), 2);
        assert_eq!(by_number.slice(97, 1).unwrap().len(), 1);
        assert_eq!(by_number.slice(99, usize::MAX).unwrap().len(), 0);
        assert_eq!(by_number.between(0..98).count(), 2);
        assert_eq!(
            after(&none, "199-0"),
            (99, None),
            "a client that has the last event has missed nothing"
        );
        assert_eq!(after(&none, "198-0"), (99, Some(Gap::Evicted)));
    }

    #[test]
    fn the_limit_of_events_does_not_evict_what_a_queue_could_hold() {
        let config = Config {
            history_events: 2,
            queue_bytes: 2000,
            history_bytes: 1_000_000,
            ..Config::default()
        };
        let mut history = History::new(&config, &born(0));
        (1..=1000).for_each(|ms| push(&mut history, ms, None));
        assert!((6000..6100).contains(&history.bytes), "{}", history.bytes);
    }
    #[test]
    fn tiny_events_are_bounded_by_their_memory() {
        let mut history = history(1_000_000, 100_000);
        for ms in 101..5000 {
            let own_id = format!("own-{ms}");
            push_to(&mut history, ms, Some(&own_id), Some(&"t".repeat(200)));
        }
        // Their bytes alone would leave room for all of them.
        assert!(history.bytes < 50_000 && history.memory <= 200_000);
        assert!((100..1000).contains(&history.ring.len()));
        let sum: usize = history.ring.iter().map(|record| record.memory()).sum();
        assert_eq!(history.memory, sum);
    }
}
