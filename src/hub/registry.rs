//! The table of all clients, by client id and by audience.
//!
//! An *audience* is all clients with the same patterns. An event is matched once per
//! audience and not once per client, and the frame that is made for one client of an
//! audience is made for all of them. For example, four clients are three audiences:
//!
//! ```text
//! audiences     0: anna, ben        1: carl           2: dora
//! by_patterns   {chat/1} → 0        {chat/*} → 1      {chat/1, news/*} → 2
//! by_topic      chat/1 → [0, 2]
//! by_prefix     chat/ → [1]         news/ → [2]
//! ```
//!
//! An event of the topic `chat/1` reaches the lists `by_topic["chat/1"]` and
//! `by_prefix["chat/"]`, so it reaches the audiences 0, 2 and 1. The cost is a few
//! look-ups and the audiences that are reached, however many other audiences there are.
//!
//! Everything here is guarded by the hub's lock. The lists are behind an `Arc`, so that
//! the fan-out thread can take them along and go through them without the lock. A list
//! that is changed while the fan-out has it is copied first (`Arc::make_mut`); otherwise
//! it is changed without a copy.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::lane::Lane;
use crate::wire::{Pattern, Patterns, Topic};

/// The lanes of one audience, as a list that can be gone through without the hub's lock.
pub(super) type Lanes = Arc<Vec<Arc<Lane>>>;

/// The index of an audience in the registry. It does not change while the audience has
/// clients; afterwards another audience may get it.
pub(super) type AudienceIndex = usize;

/// The audiences that have one pattern in common.
pub(super) type AudienceList = Arc<Vec<AudienceIndex>>;

/// Maps the text of a pattern to the audiences that have the pattern.
type ByPattern = BTreeMap<Arc<str>, AudienceList>;

/// All clients. Part of `State`, so the hub's lock guards it.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// The clients by their ids. A client that is to be closed is not in here any more,
    /// so that another client can take the id at once.
    clients: HashMap<Arc<str>, Arc<Lane>>,
    /// The audiences by their indexes. An index that is not in use has an empty audience.
    audiences: Vec<Audience>,
    /// The indexes that are not in use.
    free: Vec<AudienceIndex>,
    /// The audiences that have clients, by their patterns.
    by_patterns: HashMap<Patterns, AudienceIndex>,
    /// The audiences that have a pattern for exactly this topic.
    by_topic: ByPattern,
    /// The audiences that have a pattern for all topics with this prefix. It is ordered,
    /// so that all prefixes of a topic can be found.
    by_prefix: ByPattern,
}

#[derive(Debug, Default)]
struct Audience {
    patterns: Patterns,
    /// The lanes of the clients, in no order. Each lane knows its index in here.
    lanes: Lanes,
    /// The number of the lanes whose clients are closing: their ids are free, and they
    /// get no new events.
    closing: usize,
}

impl Audience {
    /// The number of clients that get a new event.
    fn size(&self) -> usize {
        self.lanes.len() - self.closing
    }
}

impl Registry {
    /// The number of clients, without those that are closing.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// The client that has this id.
    pub(super) fn get(&self, client_id: &str) -> Option<&Arc<Lane>> {
        self.clients.get(client_id)
    }

    /// The lanes of all clients, including those that are closing.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.audiences.iter().flat_map(|audience| &*audience.lanes)
    }

    /// Adds a client, whose id no other client has.
    pub(super) fn insert(&mut self, lane: &Arc<Lane>) {
        let holder = self
            .clients
            .insert(Arc::clone(&lane.client_id), Arc::clone(lane));
        assert!(holder.is_none(), "BUG: two clients have the same id");
        let audience = match self.by_patterns.get(&lane.patterns) {
            Some(&audience) => audience,
            None => self.add_audience(lane.patterns.clone()),
        };
        let lanes = Arc::make_mut(&mut self.audiences[audience].lanes);
        lane.set_index_in_audience(lanes.len());
        lanes.push(Arc::clone(lane));
    }

    /// Frees the id of a client that is to be closed. Its lane stays in the audience
    /// until it is [removed](Self::remove), because the events before its end are still
    /// to be delivered. Returns false if the client has no id any more: it is closing
    /// already, or was removed.
    pub(super) fn start_closing(&mut self, lane: &Arc<Lane>) -> bool {
        let had_id = self.free_client_id(lane);
        if had_id {
            let audience = self.by_patterns[&lane.patterns];
            self.audiences[audience].closing += 1;
        }
        had_id
    }

    /// Removes a client. Returns false if it had no id any more: it was closing, or was
    /// removed before.
    pub(super) fn remove(&mut self, lane: &Arc<Lane>) -> bool {
        let had_id = self.free_client_id(lane);
        self.remove_from_audience(lane, had_id);
        had_id
    }

    /// Frees the id of this client. Returns false if the client does not have it: another
    /// client may have the same id by now.
    fn free_client_id(&mut self, lane: &Arc<Lane>) -> bool {
        let holder = self.clients.get(&lane.client_id);
        let has_id = holder.is_some_and(|holder| Arc::ptr_eq(holder, lane));
        if has_id {
            self.clients.remove(&lane.client_id);
        }
        has_id
    }

    /// Adds an audience without clients, under a free index or a new one, and returns the
    /// index.
    fn add_audience(&mut self, patterns: Patterns) -> AudienceIndex {
        let audience = self.free.pop().unwrap_or_else(|| {
            self.audiences.push(Audience::default());
            self.audiences.len() - 1
        });
        for pattern in patterns.iter() {
            let (map, key) = self.map_of(pattern);
            Arc::make_mut(map.entry(key).or_default()).push(audience);
        }
        self.by_patterns.insert(patterns.clone(), audience);
        self.audiences[audience].patterns = patterns;
        audience
    }

    /// Removes a lane from its audience, and the audience if that was its last lane. Does
    /// nothing if the lane is not there.
    fn remove_from_audience(&mut self, lane: &Arc<Lane>, had_id: bool) {
        let Some(&audience_index) = self.by_patterns.get(&lane.patterns) else {
            return;
        };
        let audience = &mut self.audiences[audience_index];
        let index = lane.index_in_audience();
        // A lane that was removed before keeps its old index, at which another lane may
        // be by now.
        let found = audience.lanes.get(index);
        if !found.is_some_and(|found| Arc::ptr_eq(found, lane)) {
            return;
        }
        audience.closing -= usize::from(!had_id);
        let lanes = Arc::make_mut(&mut audience.lanes);
        // The last lane of the list moves to the free index.
        lanes.swap_remove(index);
        if let Some(moved) = lanes.get(index) {
            moved.set_index_in_audience(index);
        }
        if lanes.is_empty() {
            self.remove_audience(audience_index);
        }
    }

    /// Removes an audience without clients, and frees its index.
    fn remove_audience(&mut self, audience: AudienceIndex) {
        let Audience { patterns, .. } = std::mem::take(&mut self.audiences[audience]);
        for pattern in patterns.iter() {
            let (map, key) = self.map_of(pattern);
            let audiences = map
                .get_mut(&key)
                .expect("BUG: the pattern of an audience is in no map");
            Arc::make_mut(audiences).retain(|other| *other != audience);
            if audiences.is_empty() {
                map.remove(&key);
            }
        }
        self.by_patterns.remove(&patterns);
        self.free.push(audience);
    }

    /// The map that a pattern belongs to, and its key there.
    fn map_of(&mut self, pattern: &Pattern) -> (&mut ByPattern, Arc<str>) {
        match pattern {
            Pattern::Topic(topic) => (&mut self.by_topic, topic.as_str().into()),
            Pattern::Prefix(prefix) => (&mut self.by_prefix, Arc::clone(prefix)),
        }
    }

    /// The lists that together hold every audience with a pattern that matches `topic`,
    /// each audience once: at most one pattern of a client matches a topic, because
    /// [`Patterns`] drops each pattern that another one covers.
    ///
    /// The prefixes of the topic are found from the longest to the shortest, without
    /// trying each length. In each step, `rest` is the longest prefix that may still be
    /// in the map, and the greatest key that is not greater than `rest` is looked up:
    ///
    /// - The key is a prefix of `rest`: its list is a result. The search goes on with the
    ///   key without its last character.
    /// - The key is no prefix: the search goes on with the characters that the key and
    ///   `rest` have in common at their beginning. Each longer prefix of `rest` would lie
    ///   between the key and `rest`, where no key is.
    ///
    /// For example, the keys are `""`, `chat/`, `chat/1/a` and `news/`, and the topic is
    /// `chat/2`. The greatest key up to `chat/2` is `chat/1/a`, which is no prefix of it.
    /// They have `chat/` in common, which is a key, so its list is a result. The greatest
    /// key up to `chat` is the empty one, which is the other result.
    pub(super) fn lists_for(&self, topic: &Topic) -> Vec<&AudienceList> {
        let topic = topic.as_str();
        let mut lists: Vec<_> = self.by_topic.get(topic).into_iter().collect();
        let mut rest = topic;
        let up_to = |text| (Bound::Unbounded, Bound::Included(text));
        while let Some((key, list)) = self.by_prefix.range::<str, _>(up_to(rest)).next_back() {
            if rest.starts_with(&**key) {
                lists.push(list);
                let Some((last, _)) = key.char_indices().next_back() else {
                    break;
                };
                rest = &rest[..last];
            } else {
                rest = common_start(key, rest);
            }
        }
        lists
    }

    /// The number of indexes: every index of an audience is less.
    pub(super) fn audience_indexes(&self) -> usize {
        self.audiences.len()
    }

    /// The audiences that have clients.
    pub(super) fn all_audiences(&self) -> impl Iterator<Item = AudienceIndex> {
        self.by_patterns.values().copied()
    }

    /// The number of clients that an event of this topic reaches; `None` is for an event
    /// without a topic.
    pub(super) fn count(&self, topic: Option<&Topic>) -> usize {
        let Some(topic) = topic else {
            return self.clients.len();
        };
        let size = |audience: &AudienceIndex| self.audiences[*audience].size();
        let lists = self.lists_for(topic);
        lists.into_iter().flat_map(|list| &**list).map(size).sum()
    }

    /// The lanes of an audience, to be gone through without the lock.
    pub(super) fn lanes_of(&self, audience: AudienceIndex) -> Lanes {
        Arc::clone(&self.audiences[audience].lanes)
    }

    /// The audiences with clients that are not closing: their patterns, their lanes, and
    /// the number of these clients.
    pub(super) fn audiences(&self) -> impl Iterator<Item = (&Patterns, &Lanes, usize)> {
        let audiences = self.audiences.iter();
        let present = audiences.filter(|audience| audience.size() > 0);
        present.map(|audience| (&audience.patterns, &audience.lanes, audience.size()))
    }
}

/// The characters that two texts have in common at their beginning.
fn common_start<'a>(one: &str, other: &'a str) -> &'a str {
    let pairs = one.bytes().zip(other.bytes());
    let mut length = pairs.take_while(|(a, b)| a == b).count();
    // The texts may differ in the middle of a character.
    while !other.is_char_boundary(length) {
        length -= 1;
    }
    &other[..length]
}

#[cfg(test)]
mod tests {
    use super::super::Subscribe;
    use super::super::lane::Kind;
    use super::*;

    fn lane(client_id: &str, patterns: &[&str]) -> Arc<Lane> {
        let patterns = patterns
            .iter()
            .map(|text| Pattern::new(text).unwrap())
            .collect();
        let params = Subscribe {
            patterns,
            ..Subscribe::default()
        };
        Lane::new(
            client_id.into(),
            &params,
            Kind::Stream,
            1000,
            &Arc::default(),
            0,
        )
        .0
    }

    fn reached(registry: &Registry, topic: Option<&str>) -> Vec<String> {
        let topic = topic.map(|topic| Topic::new(topic).unwrap());
        let audiences: Vec<usize> = match &topic {
            None => registry.all_audiences().collect(),
            Some(topic) => registry
                .lists_for(topic)
                .into_iter()
                .flat_map(|list| list.to_vec())
                .collect(),
        };
        let mut names: Vec<_> = audiences
            .iter()
            .flat_map(|&a| {
                registry
                    .lanes_of(a)
                    .iter()
                    .map(|l| l.client_id.to_string())
                    .collect::<Vec<_>>()
            })
            .collect();
        names.sort();
        assert_eq!(registry.count(topic.as_ref()), names.len());
        names
    }

    #[test]
    fn an_event_reaches_each_client_with_a_matching_pattern_once() {
        let mut registry = Registry::default();
        let lanes = [
            lane("none", &[]),
            lane("one", &["chat/1"]),
            lane("also one", &["chat/1"]),
            lane("two", &["chat/2", "news"]),
            lane("all chats", &["chat/*"]),
            lane("thrice", &["chat/1", "chat/*", "*"]),
        ];
        for lane in &lanes {
            registry.insert(lane);
        }
        assert_eq!(reached(&registry, None).len(), 6);
        assert_eq!(
            reached(&registry, Some("chat/1")),
            ["all chats", "also one", "one", "thrice"]
        );
        assert_eq!(reached(&registry, Some("news")), ["thrice", "two"]);
        assert_eq!(reached(&registry, Some("чат")), ["thrice"]);
        for lane in &lanes {
            assert!(registry.remove(lane));
            assert!(!registry.remove(lane));
        }
        assert!(
            registry.by_patterns.is_empty()
                && registry.by_topic.is_empty()
                && registry.by_prefix.is_empty()
        );
        assert_eq!(registry.free.len(), registry.audiences.len());
    }

    #[test]
    fn removing_a_replaced_client_does_not_remove_the_client_that_replaced_it() {
        let mut registry = Registry::default();
        let (old, new) = (lane("name", &["a"]), lane("name", &["b"]));
        registry.insert(&old);
        assert!(registry.start_closing(&old));
        registry.insert(&new);
        assert_eq!(registry.count(Some(&Topic::new("a").unwrap())), 0);
        assert_eq!(registry.lanes().count(), 2);
        assert!(!registry.start_closing(&old) && !registry.remove(&old) && !registry.remove(&old));
        assert_eq!(reached(&registry, Some("b")), ["name"]);
        assert!(reached(&registry, Some("a")).is_empty());
    }

    #[test]
    fn a_list_of_lanes_that_was_taken_does_not_change() {
        let mut registry = Registry::default();
        let lanes: Vec<_> = (0..3).map(|n| lane(&n.to_string(), &[])).collect();
        lanes.iter().for_each(|lane| registry.insert(lane));
        let snapshot = registry.lanes_of(0);
        registry.remove(&lanes[1]);
        assert_eq!((snapshot.len(), registry.lanes_of(0).len()), (3, 2));
    }

    #[test]
    fn the_prefixes_of_a_topic_are_found_whatever_other_prefixes_lie_between_them() {
        let texts = ["", "a", "ab", "b", "ä", "aä", "aé", "aäb", "z"];
        for chosen in 0..1 << texts.len() {
            let mut registry = Registry::default();
            let has = |index: &usize| chosen >> index & 1 == 1;
            for index in (0..texts.len()).filter(has) {
                let pattern = format!("{}*", texts[index]);
                registry.insert(&lane(&pattern, &[&pattern]));
            }
            for topic in texts.into_iter().skip(1) {
                let expected: Vec<_> = (0..texts.len())
                    .filter(|index| has(index) && topic.starts_with(texts[*index]))
                    .map(|index| format!("{}*", texts[index]))
                    .collect();
                let mut found = reached(&registry, Some(topic));
                found.sort_by_key(String::len);
                let mut expected_by_length = expected;
                expected_by_length.sort_by_key(String::len);
                assert_eq!(found, expected_by_length, "{topic:?} among {chosen:b}");
            }
        }
    }
}
