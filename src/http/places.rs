//! Who has a place, and whose place goes to another when all are taken: the bookkeeping of the
//! reception, without its lock.
//!
//! A place is worth something while a request is on its way through it. Who waits for a request
//! costs a thread and gives nothing, and to wait slowly is the cheapest attack there is; so of the
//! connections that wait, the one that has waited the longest is evicted. A connection whose body arrives
//! slowly counts as waiting. A connection that is answering a request, or is a stream, is never evicted.

use std::collections::{BTreeMap, HashMap};

use crate::wire::Network;

/// What a connection does with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A request is there, or an answer, or a stream; or no clerk is yet.
    Busy,
    /// It waits for a request of which nothing has come.
    Idle,
    /// It waits for the rest of a head.
    Arriving,
    /// It waits for the rest of a body.
    Body,
    /// All is said, and it waits for the peer to take note.
    Lingering,
    /// It is on its way out, and another has come for it.
    LetGo,
}

/// The places, each with what else there is to know of it.
#[derive(Debug)]
pub(super) struct Places<P> {
    entries: HashMap<u64, Entry<P>>,
    /// Numbers places and turns, none twice.
    next: u64,
    /// Turn and place of those who wait. The first has waited the longest.
    waiting: BTreeMap<u64, u64>,
    /// How many have been let go and are still there.
    leaving: usize,
    /// How many each client has of what is counted. LIMIT: each is held by a place, and who has none
    /// is not in it.
    counts: HashMap<Network, usize>,
}

#[derive(Debug)]
struct Entry<P> {
    what: P,
    stage: Stage,
    /// Since when it waits, in turns, if it does.
    turn: Option<u64>,
    /// Under whom it is counted.
    client: Option<Network>,
}

impl<P> Default for Places<P> {
    fn default() -> Places<P> {
        Places {
            entries: HashMap::new(),
            next: 0,
            waiting: BTreeMap::new(),
            leaving: 0,
            counts: HashMap::new(),
        }
    }
}

impl<P> Places<P> {
    /// All that are there, those on their way out among them.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Those on their way out.
    pub(super) fn leaving(&self) -> usize {
        self.leaving
    }

    /// Those that stay.
    pub(super) fn staying(&self) -> usize {
        self.entries.len() - self.leaving
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A new place, busy until it says otherwise.
    pub(super) fn enter(&mut self, what: P) -> u64 {
        let key = self.number();
        let entry = Entry {
            what,
            stage: Stage::Busy,
            turn: None,
            client: None,
        };
        self.entries.insert(key, entry);
        key
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut P> {
        self.entries.get_mut(&key).map(|entry| &mut entry.what)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Stage, &P)> {
        self.entries
            .values()
            .map(|entry| (entry.stage, &entry.what))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut P> {
        self.entries.values_mut().map(|entry| &mut entry.what)
    }

    /// Notes what a connection does now. False: it has been let go meanwhile, and stays so.
    pub(super) fn set(&mut self, key: u64, stage: Stage) -> bool {
        let number = self.number();
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        if entry.stage == Stage::LetGo {
            return false;
        }
        entry.stage = stage;
        match (stage, entry.turn) {
            (Stage::Busy, Some(turn)) => {
                self.waiting.remove(&turn);
                entry.turn = None;
            }
            // A head that has begun has waited since before it did.
            (Stage::Busy, None) | (_, Some(_)) => {}
            (_, None) => {
                self.waiting.insert(number, key);
                entry.turn = Some(number);
            }
        }
        true
    }

    /// [`set`](Self::set) for a connection that has made progress, and so waits anew.
    pub(super) fn renew(&mut self, key: u64, stage: Stage) -> bool {
        self.set(key, Stage::Busy) && self.set(key, stage)
    }

    /// Lets the one go who has waited the longest. `None`: nobody waits.
    pub(super) fn let_one_go(&mut self) -> Option<&P> {
        let (_, key) = self.waiting.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.stage = Stage::LetGo;
        entry.turn = None;
        self.leaving += 1;
        Some(&entry.what)
    }

    /// Whether there is somebody to let go.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many are counted under a client.
    pub(super) fn count_of(&self, client: Network) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// Counts a place under this client, and under nobody else any more.
    pub(super) fn count(&mut self, key: u64, client: Option<Network>) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.client, client);
        if let Some(client) = client {
            *self.counts.entry(client).or_default() += 1;
        }
        self.uncount(before);
    }

    fn uncount(&mut self, client: Option<Network>) {
        if let Some(client) = client
            && let Some(count) = self.counts.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }

    /// Gives a place back, with all that was noted of it.
    pub(super) fn leave(&mut self, key: u64) -> Option<P> {
        let entry = self.entries.remove(&key)?;
        if let Some(turn) = entry.turn {
            self.waiting.remove(&turn);
        }
        self.leaving -= usize::from(entry.stage == Stage::LetGo);
        self.uncount(entry.client);
        Some(entry.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stage::*;

    #[test]
    fn who_has_waited_the_longest_is_let_go_and_who_is_busy_never() {
        let mut places = Places::default();
        let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| places.enter(name));
        assert_eq!(places.let_one_go(), None, "nobody has been served yet");
        for (key, stage) in [
            (d, Idle),
            (a, Idle),
            (b, Arriving),
            (c, Idle),
            // Neither a second word nor a first byte makes it younger.
            (d, Idle),
            (a, Arriving),
            // A request does, when it has been answered.
            (d, Busy),
            (d, Idle),
            (c, Busy),
            (e, Busy),
            (e, Lingering),
        ] {
            assert!(places.set(key, stage));
        }
        for name in ["a", "b", "d", "e"] {
            assert_eq!(places.let_one_go(), Some(&name));
        }
        assert_eq!(places.let_one_go(), None, "c is busy");
        assert_eq!((places.staying(), places.leaving()), (1, 4));
    }

    #[test]
    fn a_body_waits_from_its_last_progress_on() {
        let mut places = Places::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| places.enter(name));
        for key in [a, b, c] {
            assert!(places.renew(key, Body));
        }
        assert!(places.set(d, Idle));
        assert!(places.renew(a, Body));
        // What dribbles in without progress changes nothing.
        assert!(places.set(b, Body));
        assert!(places.set(c, Busy), "its request is complete");
        for name in ["b", "d", "a"] {
            assert_eq!(places.let_one_go(), Some(&name));
        }
        assert_eq!(places.let_one_go(), None, "c is busy");
        assert!(!places.renew(a, Body), "it was evicted");
    }

    #[test]
    fn who_was_let_go_does_not_come_back_and_leaves_nothing() {
        let mut places = Places::default();
        let [a, b] = ["a", "b"].map(|name| places.enter(name));
        places.set(a, Idle);
        places.set(b, Idle);
        assert_eq!(places.let_one_go(), Some(&"a"));
        for stage in [Busy, Idle, Arriving, Body, Lingering] {
            assert!(!places.set(a, stage));
        }
        assert_eq!((places.len(), places.staying()), (2, 1));
        assert_eq!(places.leave(a), Some("a"));
        assert_eq!(places.leave(a), None);
        assert_eq!(places.leave(b), Some("b"));
        assert!(!places.set(b, Idle), "it is gone");
        assert_eq!(places.let_one_go(), None);
        assert_eq!((places.len(), places.leaving()), (0, 0));
        assert!(places.waiting.is_empty());
    }

    #[test]
    fn a_place_is_counted_under_one_client_as_long_as_it_is_there() {
        let [one, other] = [1, 2].map(|last| Network::of_subscriber([192, 0, 2, last].into()));
        let mut places = Places::default();
        let [a, b] = ["a", "b"].map(|name| places.enter(name));
        places.count(a, Some(one));
        places.count(b, Some(one));
        assert_eq!(places.count_of(one), 2);
        places.count(b, Some(other));
        places.count(b, Some(other));
        assert_eq!((places.count_of(one), places.count_of(other)), (1, 1));
        places.count(b, None);
        assert_eq!(places.count_of(other), 0);
        places.set(a, Idle);
        places.let_one_go();
        assert_eq!(places.count_of(one), 1, "it is still there");
        places.leave(a);
        places.count(a, Some(one));
        places.leave(b);
        assert!(places.counts.is_empty());
    }
}
