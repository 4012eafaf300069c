//! Who is listening, and to what.
//!
//! Clients who asked for the same patterns are one *audience*: an event is matched once for all
//! of them, and what is joined for one of them is joined for all. Audiences are found from a
//! topic by look-ups, so that an event costs its own audiences and not all.

use std::collections::{BTreeMap, HashMap};
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
    /// Which audiences asked for exactly this topic, and for all that begin with this.
    by_topic: Index,
    by_prefix: Index,
}

type Index = BTreeMap<Arc<str>, Vec<usize>>;

#[derive(Debug, Default)]
struct Audience {
    patterns: Patterns,
    /// Changed in place, unless the fan-out is going through it: then it keeps the old one, and
    /// this becomes a copy.
    lanes: Lanes,
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn get(&self, client_id: &str) -> Option<&Arc<Lane>> {
        self.clients.get(client_id)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.clients.values()
    }

    /// Adds a client; answers the one of the same name that it replaces.
    pub(super) fn insert(&mut self, lane: &Arc<Lane>) -> Option<Arc<Lane>> {
        let replaced = self
            .clients
            .insert(Arc::clone(&lane.client_id), Arc::clone(lane));
        if let Some(replaced) = &replaced {
            self.leave_audience(replaced);
        }
        let audience = match self.by_patterns.get(&lane.patterns) {
            Some(&audience) => audience,
            None => self.open_audience(lane.patterns.clone()),
        };
        Arc::make_mut(&mut self.audiences[audience].lanes).push(Arc::clone(lane));
        replaced
    }

    /// Takes a client out. False: it was replaced before, by one who now has its name.
    pub(super) fn remove(&mut self, lane: &Arc<Lane>) -> bool {
        let present = self
            .clients
            .get(&lane.client_id)
            .is_some_and(|present| Arc::ptr_eq(present, lane));
        if present {
            self.clients.remove(&lane.client_id);
            self.leave_audience(lane);
        }
        present
    }

    fn open_audience(&mut self, patterns: Patterns) -> usize {
        let audience = self.free.pop().unwrap_or_else(|| {
            self.audiences.push(Audience::default());
            self.audiences.len() - 1
        });
        for pattern in patterns.iter() {
            let (index, key) = self.index_of(pattern);
            index.entry(key).or_default().push(audience);
        }
        self.by_patterns.insert(patterns.clone(), audience);
        self.audiences[audience].patterns = patterns;
        audience
    }

    fn leave_audience(&mut self, lane: &Arc<Lane>) {
        let audience = *self
            .by_patterns
            .get(&lane.patterns)
            .expect("BUG: a client without an audience");
        let lanes = Arc::make_mut(&mut self.audiences[audience].lanes);
        let place = lanes
            .iter()
            .position(|other| Arc::ptr_eq(other, lane))
            .expect("BUG: a client not in its audience");
        lanes.swap_remove(place);
        if lanes.is_empty() {
            self.close_audience(audience);
        }
    }

    fn close_audience(&mut self, audience: usize) {
        let Audience { patterns, .. } = std::mem::take(&mut self.audiences[audience]);
        for pattern in patterns.iter() {
            let (index, key) = self.index_of(pattern);
            let audiences = index
                .get_mut(&key)
                .expect("BUG: a pattern that is not indexed");
            audiences.retain(|other| *other != audience);
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

    /// The audiences that an event reaches, each once.
    pub(super) fn reached_by(&self, topic: Option<&Topic>) -> Vec<usize> {
        let Some(topic) = topic.map(Topic::as_str) else {
            return self.by_patterns.values().copied().collect();
        };
        let mut reached = self.by_topic.get(topic).cloned().unwrap_or_default();
        if !self.by_prefix.is_empty() {
            let ends = (0..=topic.len()).filter(|&end| topic.is_char_boundary(end));
            reached.extend(
                ends.filter_map(|end| self.by_prefix.get(&topic[..end]))
                    .flatten(),
            );
            // An audience may have asked for this topic in several ways.
            reached.sort_unstable();
            reached.dedup();
        }
        reached
    }

    /// How many clients an event reaches.
    pub(super) fn count(&self, topic: Option<&Topic>) -> usize {
        match topic {
            None => self.clients.len(),
            Some(_) => self
                .reached_by(topic)
                .into_iter()
                .map(|audience| self.audiences[audience].lanes.len())
                .sum(),
        }
    }

    /// The lanes of an audience, to go through without the lock.
    pub(super) fn lanes_of(&self, audience: usize) -> Lanes {
        Arc::clone(&self.audiences[audience].lanes)
    }

    /// The audiences that have clients: their patterns, and their lanes.
    pub(super) fn audiences(&self) -> impl Iterator<Item = (&Patterns, &Lanes)> {
        let audiences = self.audiences.iter();
        let present = audiences.filter(|audience| !audience.lanes.is_empty());
        present.map(|audience| (&audience.patterns, &audience.lanes))
    }
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
        let wish = Subscribe {
            patterns,
            ..Subscribe::default()
        };
        Lane::new(client_id.into(), &wish, Kind::Stream, 1000, 0).0
    }

    fn reached(registry: &Registry, topic: Option<&str>) -> Vec<String> {
        let topic = topic.map(|topic| Topic::new(topic).unwrap());
        let audiences = registry.reached_by(topic.as_ref());
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
            assert!(registry.insert(lane).is_none());
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
        assert!(Arc::ptr_eq(&registry.insert(&new).unwrap(), &old));
        assert!(!registry.remove(&old));
        assert_eq!(reached(&registry, Some("b")), ["name"]);
        assert!(reached(&registry, Some("a")).is_empty());
    }

    #[test]
    fn who_goes_through_an_audience_is_not_disturbed() {
        let mut registry = Registry::default();
        let lanes: Vec<_> = (0..3).map(|n| lane(&n.to_string(), &[])).collect();
        lanes.iter().for_each(|lane| drop(registry.insert(lane)));
        let snapshot = registry.lanes_of(0);
        registry.remove(&lanes[1]);
        assert_eq!((snapshot.len(), registry.lanes_of(0).len()), (3, 2));
    }
}
