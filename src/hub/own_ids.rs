//! An index of the publishers' own ids: finds the event that was sent with an id.
//!
//! An id is known per topic, so that a publisher to one topic cannot use up the ids of
//! another topic. A client sends an id back without a topic; then it means the latest
//! event with this id among the topics of the client.
//!
//! The index is a part of the history: it holds exactly the own ids of the events in the
//! ring.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::wire::{Pattern, Patterns, Topic};

/// A publisher's id and the topic of the event. A clone shares the text.
///
/// The id and the topic are in one text, the id first, with a control character between
/// them, which neither ids nor topics contain. In the order of these texts all topics of
/// an id are neighbours, sorted by name, and so are all topics with a prefix:
///
/// ```text
/// m-1 0x00             the id m-1 without a topic
/// m-1 0x01 chat/1      the id m-1 on the topic chat/1
/// m-1 0x01 chat/2
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OwnId(Arc<[u8]>);

/// The byte between an id and its topic.
const TOPIC: u8 = 1;
/// The byte after the id of an event without a topic.
const NO_TOPIC: u8 = 0;
/// A byte that is greater than every byte of UTF-8: the end of a range of topics with a
/// prefix.
const AFTER_ALL: u8 = 0xFF;

impl OwnId {
    pub(super) fn new(id: &str, topic: Option<&Topic>) -> OwnId {
        let text = match topic {
            Some(topic) => [id.as_bytes(), &[TOPIC], topic.as_str().as_bytes()].concat(),
            None => [id.as_bytes(), &[NO_TOPIC]].concat(),
        };
        OwnId(text.into())
    }

    /// The length of the text in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The id, without the topic.
    pub(super) fn id(&self) -> &str {
        let is_end = |byte: &u8| matches!(*byte, TOPIC | NO_TOPIC);
        let end = self.0.iter().position(is_end).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..end]).expect("BUG: an id that is no text")
    }
}

impl Borrow<[u8]> for OwnId {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The ordinal of the latest event of each id and topic. Guarded by the hub's lock, as
/// part of the history.
#[derive(Debug, Default)]
pub(super) struct OwnIds(BTreeMap<OwnId, u64>);

impl OwnIds {
    /// Adds the id of the event at `ordinal`, which is the latest of all events.
    pub(super) fn insert(&mut self, own_id: OwnId, ordinal: u64) {
        self.0.insert(own_id, ordinal);
    }

    /// Removes the id of the event at `ordinal`, unless a later event has the same id.
    /// The hub refuses a second event with an id, but a log may contain one: the id is
    /// free again after its event was evicted.
    pub(super) fn remove(&mut self, own_id: &OwnId, ordinal: u64) {
        if self.0.get(own_id) == Some(&ordinal) {
            self.0.remove(own_id);
        }
    }

    pub(super) fn contains(&self, own_id: &OwnId) -> bool {
        self.0.contains_key(own_id)
    }

    /// Returns the ordinal of the latest event that was sent with `id` to a client with
    /// these patterns: an event without a topic, or of one of the client's topics.
    ///
    /// LIMIT: one look-up per topic of the client. For its prefixes, each topic that has
    /// this id is visited at most once, because no prefix of a client covers another one:
    /// 100,000 topics with one id take about 2 ms.
    pub(super) fn latest(&self, id: &str, patterns: &Patterns) -> Option<u64> {
        let mut latest = self.0.get(&OwnId::new(id, None)).copied();
        for pattern in patterns.iter() {
            let found = match pattern {
                Pattern::Topic(topic) => self.0.get(&OwnId::new(id, Some(topic))).copied(),
                Pattern::Prefix(prefix) => self.latest_with_prefix(id, prefix),
            };
            latest = latest.max(found);
        }
        latest
    }

    /// Returns the latest event with this own id among the topics that begin with
    /// `prefix`.
    fn latest_with_prefix(&self, id: &str, prefix: &str) -> Option<u64> {
        let start = [id.as_bytes(), &[TOPIC], prefix.as_bytes()].concat();
        let end = [&start[..], &[AFTER_ALL]].concat();
        let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        self.0
            .range::<[u8], _>(range)
            .map(|(_, ordinal)| *ordinal)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Option<Topic> {
        (!name.is_empty()).then(|| Topic::new(name).unwrap())
    }

    fn patterns(texts: &[&str]) -> Patterns {
        let patterns = texts.iter().map(|text| Pattern::new(text).unwrap());
        patterns.collect()
    }

    #[test]
    fn an_own_id_means_the_latest_event_with_it_among_the_clients_topics() {
        let events = [
            ("id", "a"),
            ("id", "b/1"),
            ("id", "b/2"),
            ("id", ""),
            ("id", "b/1"),
            ("i", "b/2"),
            ("id2", "b/3"),
            ("id", "bb"),
            ("id", "ж"),
        ];
        let mut own_ids = OwnIds::default();
        for (ordinal, (id, name)) in events.iter().enumerate() {
            own_ids.insert(OwnId::new(id, topic(name).as_ref()), ordinal as u64);
        }
        let lists: [&[&str]; 11] = [
            &[],
            &["a"],
            &["b/1"],
            &["b/2"],
            &["b/*"],
            &["b*"],
            &["*"],
            &["a", "b/2", "ж"],
            &["b/*", "bb", "b/1*"],
            &["c*", "b/2*"],
            &["ж*", "a*"],
        ];
        for id in ["id", "i", "id2", "none", ""] {
            for list in lists {
                let patterns = patterns(list);
                let is_meant = |(other, name): &(&str, &str)| {
                    *other == id && patterns.matches(topic(name).as_ref())
                };
                let expected = events.iter().rposition(is_meant).map(|place| place as u64);
                let found = own_ids.latest(id, &patterns);
                assert_eq!(found, expected, "{id:?} for {list:?}");
            }
        }
    }

    #[test]
    fn an_own_id_is_returned_unchanged() {
        for id in ["id", "ü", ""] {
            for name in ["", "topic", "ж"] {
                assert_eq!(OwnId::new(id, topic(name).as_ref()).id(), id);
            }
        }
    }
}
