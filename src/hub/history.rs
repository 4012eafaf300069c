//! What was said, for those who come back: a ring of the latest events, bounded by their number
//! and their bytes, and the judgement of a cursor against it.
//!
//! Events have two numbers here. The id is for the world; the *ordinal* is the event's place in
//! this hub's life, counted from 0, so that "everything behind this one" is an index and not a
//! search. Ordinals never leave the hub.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::kept::Kept;
use super::own_ids::{OwnId, OwnIds};
use super::record::Record;
use crate::config::{Config, SLICE_EVENTS};
use crate::wire::{EventId, Patterns, Topic};

/// Where a client wants to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// With what is said from now on.
    #[default]
    Now,
    /// With the oldest event that is retained.
    Earliest,
    /// Behind the event with this id: a `Last-Event-ID`.
    After(String),
}

/// Why a client cannot be given all that it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// Its cursor is older than what is retained.
    Evicted,
    /// Its cursor is no id of ours.
    Unknown,
    /// Its cursor is newer than anything we said: it comes from another life of this server.
    Future,
}

/// The [name](Gap::name).
impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Gap {
    /// The `reason` in a recovery event.
    pub fn name(self) -> &'static str {
        match self {
            Gap::Evicted => "evicted",
            Gap::Unknown => "unknown",
            Gap::Future => "future",
        }
    }
}

/// The ring.
#[derive(Debug)]
pub(super) struct History {
    ring: VecDeque<Arc<Record>>,
    /// What the ring's events are on the wire, and so in queues.
    bytes: usize,
    /// What they take in memory, about.
    memory: usize,
    /// The ordinal of the first record in the ring, or of the next one if it is empty.
    first: u64,
    /// The event before the first one that is retained.
    evicted: Evicted,
    /// Where publishers' own ids are in the ring.
    own_ids: OwnIds,
    most_events: usize,
    most_bytes: usize,
    /// The number does not count as long as there are no more bytes than this, because what waited
    /// for a client must be found here when the client is let go: a queue, the batch that was too
    /// much for it, the one before and an inbox. `Config::check` sees to it that `most_bytes` is
    /// no less.
    least_bytes: usize,
}

/// The latest event that is not retained, or the birth of the hub. A client that has seen it has missed
/// no event that is gone; a client that has not seen it may have missed some.
#[derive(Debug)]
struct Evicted {
    id: EventId,
    own_id: Option<OwnId>,
    topic: Option<Topic>,
}

impl History {
    /// An empty history after the event that `kept` begins after. Older cursors are from another life of
    /// the server, or of events that are gone.
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

    /// The id of the latest event; of the hub's birth, if there was none.
    pub(super) fn last_id(&self) -> EventId {
        self.ring
            .back()
            .map_or(self.evicted.id, |record| record.id())
    }

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

    fn is_over(&self) -> bool {
        let Some(oldest) = self.ring.front() else {
            return false;
        };
        let many = self.ring.len() > self.most_events;
        let spare = self.bytes - oldest.message().len() >= self.least_bytes;
        // LIMIT: of memory, for events of which the message is the least part.
        let heavy = self.memory > self.most_bytes.saturating_mul(2);
        many && spare || self.bytes > self.most_bytes || heavy
    }

    /// Whether an event in the ring went out under this id of its publisher's, on the same topic.
    pub(super) fn has_own_id(&self, own_id: &OwnId) -> bool {
        self.own_ids.contains(own_id)
    }

    /// Where a replay after `cursor` begins for a client with these patterns, and what is missing
    /// before it.
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

    /// The ordinal of the event that went out to a client with these patterns under `id`.
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
        // Between the first and the last every id that was ever on a wire is here: another one is
        // from another life, or from another server.
        match self.ring.binary_search_by_key(&id, |record| record.id()) {
            Ok(index) => Ok(self.first + index as u64),
            Err(_) => Err(Gone::Gap(Gap::Unknown)),
        }
    }

    /// The id of the event before `ordinal`: the cursor of a client to whom that is the next one.
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

    /// The next events from `ordinal` on, whatever their topics: none at the end of the history. `None`
    /// if some of them are gone.
    ///
    /// LIMIT: [`SLICE_EVENTS`], and about `bytes` of them, because this is done under the hub's lock and
    /// what is returned stays in memory even if the history lets it go.
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

    /// The events of these ordinals that are still there.
    pub(super) fn between(&self, ordinals: Range<u64>) -> impl Iterator<Item = &Arc<Record>> {
        let index = |ordinal: u64| ordinal.clamp(self.first, self.head()) - self.first;
        let (from, to) = (index(ordinals.start), index(ordinals.end));
        self.ring.range(from as usize..to.max(from) as usize)
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            events: self.ring.len(),
            bytes: self.bytes,
            first_id: self.ring.front().map(|record| record.id()),
            last_id: self.ring.back().map(|record| record.id()),
        }
    }
}

/// Why a cursor has no event in the ring.
enum Gone {
    /// The cursor is right before the first one: nothing is missing.
    None,
    Gap(Gap),
}

/// How far back the history goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// Events that are retained.
    pub events: usize,
    /// What they are on the wire, in bytes.
    pub bytes: usize,
    /// The oldest of them.
    pub first_id: Option<EventId>,
    /// The latest of them.
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
    fn every_cursor_gets_a_true_verdict() {
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
    fn an_own_id_may_be_used_again_once_its_event_is_gone() {
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
    fn an_own_id_as_a_cursor_is_an_event_of_the_clients_topics() {
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
    fn the_last_event_that_is_gone_is_known_by_each_of_its_ids() {
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
    fn the_last_event_that_a_log_does_not_give_back_is_known_by_its_own_id_too() {
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
    fn a_cursor_that_is_handed_out_is_one_that_is_understood() {
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
            "who saw the last event has missed nothing"
        );
        assert_eq!(after(&none, "198-0"), (99, Some(Gap::Evicted)));
    }

    #[test]
    fn the_number_does_not_evict_what_a_queue_could_hold() {
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
    fn tiny_events_are_bounded_by_what_they_take_in_memory() {
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
