//! Who is listening, and to what.
//!
//! Clients that asked for the same patterns are one *audience*: an event is matched once for all
//! of them, and what is joined for one of them is joined for all. The audiences of a topic are found
//! by look-ups in two indexes, so an event costs its own audiences and not all.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::lane::Lane;
use crate::wire::{Pattern, Patterns, Topic};

/// Lanes, as somebody without the lock may go through them.
pub(super) type Lanes = Arc<Vec<Arc<Lane>>>;

/// The clients, by name and by what they asked for. Lives under the hub's lock.
#[derive(Debug, Default)]
pub(super) struct Registry {
    clients: HashMap<Arc<str>, Arc<Lane>>,
    /// The audiences, each in a slot that keeps its number; free slots are empty and listed.
    audiences: Vec<Audience>,
    free: Vec<usize>,
    by_patterns: HashMap<Patterns, usize>,
    /// The audiences that asked for exactly this topic, and those that asked for this prefix. In
    /// order, so that the prefixes of a topic can be found.
    by_topic: Index,
    by_prefix: Index,
}

type Index = BTreeMap<Arc<str>, AudienceList>;

/// The index of an audience.
pub(super) type AudienceIndex = usize;

/// The slots of the audiences with one pattern. Changed in place, unless the fan-out is using it.
pub(super) type AudienceList = Arc<Vec<usize>>;

#[derive(Debug, Default)]
struct Audience {
    patterns: Patterns,
    /// Changed in place, unless the fan-out is going through it: then it keeps the old one, and
    /// this becomes a copy.
    lanes: Lanes,
    /// How many of the lanes are of clients that were told to leave.
    leaving: usize,
}

impl Audience {
    /// How many clients an event reaches.
    fn size(&self) -> usize {
        self.lanes.len() - self.leaving
    }
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn get(&self, client_id: &str) -> Option<&Arc<Lane>> {
        self.clients.get(client_id)
    }

    /// The lanes of all clients, those that were told to leave among them.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.audiences.iter().flat_map(|audience| &*audience.lanes)
    }

    /// Adds a client under a name that is free.
    pub(super) fn insert(&mut self, lane: &Arc<Lane>) {
        let holder = self
            .clients
            .insert(Arc::clone(&lane.client_id), Arc::clone(lane));
        assert!(holder.is_none(), "BUG: two clients of one name");
        let audience = match self.by_patterns.get(&lane.patterns) {
            Some(&audience) => audience,
            None => self.open_audience(lane.patterns.clone()),
        };
        let lanes = Arc::make_mut(&mut self.audiences[audience].lanes);
        lane.set_index_in_audience(lanes.len());
        lanes.push(Arc::clone(lane));
    }

    /// Frees the name of a client that is told to leave, which stays in its audience until it is [removed](
    /// Self::remove). False: the client has no name any more.
    pub(super) fn start_closing(&mut self, lane: &Arc<Lane>) -> bool {
        let has_name = self.free_name(lane);
        if has_name {
            let audience = self.by_patterns[&lane.patterns];
            self.audiences[audience].leaving += 1;
        }
        has_name
    }

    /// Takes a client out. False: it was told to leave before, or was taken out.
    pub(super) fn remove(&mut self, lane: &Arc<Lane>) -> bool {
        let had_name = self.free_name(lane);
        self.leave_audience(lane, had_name);
        had_name
    }

    fn free_name(&mut self, lane: &Arc<Lane>) -> bool {
        let holder = self.clients.get(&lane.client_id);
        let has_name = holder.is_some_and(|holder| Arc::ptr_eq(holder, lane));
        if has_name {
            self.clients.remove(&lane.client_id);
        }
        has_name
    }

    fn open_audience(&mut self, patterns: Patterns) -> usize {
        let audience = self.free.pop().unwrap_or_else(|| {
            self.audiences.push(Audience::default());
            self.audiences.len() - 1
        });
        for pattern in patterns.iter() {
            let (index, key) = self.index_of(pattern);
            Arc::make_mut(index.entry(key).or_default()).push(audience);
        }
        self.by_patterns.insert(patterns.clone(), audience);
        self.audiences[audience].patterns = patterns;
        audience
    }

    fn leave_audience(&mut self, lane: &Arc<Lane>, had_name: bool) {
        let Some(&slot) = self.by_patterns.get(&lane.patterns) else {
            return;
        };
        let audience = &mut self.audiences[slot];
        let place = lane.index_in_audience();
        let found = audience.lanes.get(place);
        if !found.is_some_and(|found| Arc::ptr_eq(found, lane)) {
            return;
        }
        audience.leaving -= usize::from(!had_name);
        let lanes = Arc::make_mut(&mut audience.lanes);
        lanes.swap_remove(place);
        if let Some(moved) = lanes.get(place) {
            moved.set_index_in_audience(place);
        }
        if lanes.is_empty() {
            self.close_audience(slot);
        }
    }

    fn close_audience(&mut self, audience: usize) {
        let Audience { patterns, .. } = std::mem::take(&mut self.audiences[audience]);
        for pattern in patterns.iter() {
            let (index, key) = self.index_of(pattern);
            let audiences = index
                .get_mut(&key)
                .expect("BUG: a pattern that is not indexed");
            Arc::make_mut(audiences).retain(|other| *other != audience);
            if audiences.is_empty() {
                index.remove(&key);
            }
        }
        self.by_patterns.remove(&patterns);
        self.free.push(audience);
    }

    fn index_of(&mut self, pattern: &Pattern) -> (&mut Index, Arc<str>) {
        match pattern {
            Pattern::Topic(topic) => (&mut self.by_topic, topic.as_str().into()),
            Pattern::Prefix(prefix) => (&mut self.by_prefix, Arc::clone(prefix)),
        }
    }

    /// The lists that together hold every audience that asked for `topic`, each once: at most one of a
    /// client's patterns matches a topic.
    pub(super) fn lists_for(&self, topic: &Topic) -> Vec<&AudienceList> {
        let topic = topic.as_str();
        let mut lists: Vec<_> = self.by_topic.get(topic).into_iter().collect();
        // The prefixes of the topic, longest first. A key that is no prefix of it shows where to go on:
        // no key is between that one and the part that both have in common.
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

    /// How many slots there are, the free ones among them.
    pub(super) fn audience_indexes(&self) -> usize {
        self.audiences.len()
    }

    /// The slots of all audiences.
    pub(super) fn all_audiences(&self) -> impl Iterator<Item = usize> {
        self.by_patterns.values().copied()
    }

    /// How many clients an event reaches.
    pub(super) fn count(&self, topic: Option<&Topic>) -> usize {
        let Some(topic) = topic else {
            return self.clients.len();
        };
        let size = |audience: &usize| self.audiences[*audience].size();
        let lists = self.lists_for(topic);
        lists.into_iter().flat_map(|list| &**list).map(size).sum()
    }

    /// The lanes of an audience, to go through without the lock.
    pub(super) fn lanes_of(&self, audience: usize) -> Lanes {
        Arc::clone(&self.audiences[audience].lanes)
    }

    /// The audiences that have clients: their patterns, their lanes, and how many clients an event reaches.
    pub(super) fn audiences(&self) -> impl Iterator<Item = (&Patterns, &Lanes, usize)> {
        let audiences = self.audiences.iter();
        let present = audiences.filter(|audience| audience.size() > 0);
        present.map(|audience| (&audience.patterns, &audience.lanes, audience.size()))
    }
}

/// What two texts have in common at their beginning.
fn common_start<'a>(one: &str, other: &'a str) -> &'a str {
    let pairs = one.bytes().zip(other.bytes());
    let mut length = pairs.take_while(|(a, b)| a == b).count();
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
    fn an_event_reaches_those_who_asked_for_it_once() {
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
    fn a_replaced_client_cannot_take_its_successor_away() {
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
    fn who_goes_through_an_audience_is_not_disturbed() {
        let mut registry = Registry::default();
        let lanes: Vec<_> = (0..3).map(|n| lane(&n.to_string(), &[])).collect();
        lanes.iter().for_each(|lane| registry.insert(lane));
        let snapshot = registry.lanes_of(0);
        registry.remove(&lanes[1]);
        assert_eq!((snapshot.len(), registry.lanes_of(0).len()), (3, 2));
    }
    #[test]
    fn the_prefixes_of_a_topic_are_found_wherever_others_are_between_them() {
        let texts = ["", "a", "ab", "b", "ä", "aä", "aé", "aäb", "z"];
        for chosen in 0..1 << texts.len() {
            let mut registry = Registry::default();
            let has = |place: &usize| chosen >> place & 1 == 1;
            for place in (0..texts.len()).filter(has) {
                let pattern = format!("{}*", texts[place]);
                registry.insert(&lane(&pattern, &[&pattern]));
            }
            for topic in texts.into_iter().skip(1) {
                let expected: Vec<_> = (0..texts.len())
                    .filter(|place| has(place) && topic.starts_with(texts[*place]))
                    .map(|place| format!("{}*", texts[place]))
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
