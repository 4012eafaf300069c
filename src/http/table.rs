//! The connection table: what each connection is doing, and which one is evicted when all places are taken.
//! It is bookkeeping alone; its lock is in `connections.rs`.
//!
//! A connection is of use while a request is on its way through it. A connection that waits for a request
//! costs a thread and gives nothing, and to wait slowly is the cheapest attack there is; so of the
//! connections that wait, the one that has waited the longest is evicted. A connection whose body arrives
//! slowly counts as waiting. A connection that is answering a request, or is a stream, is never evicted.

use std::collections::{BTreeMap, HashMap};

use crate::wire::Network;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A request is there, or an answer, or a stream; or no worker has taken it yet.
    Busy,
    /// It waits for a request of which nothing has come.
    Idle,
    /// It waits for the rest of a head or of a body, or, after its last answer, until the peer has read it.
    Waiting,
    /// It is about to end: its place was given to another.
    Evicted,
}

/// All connections, each with a `T` that the table does not look at.
#[derive(Debug)]
pub(super) struct Table<T> {
    rows: HashMap<u64, Row<T>>,
    /// The number of the last row or turn. No number is used twice.
    last: u64,
    /// Turn and key of the connections that wait. The first has waited the longest.
    waiting: BTreeMap<u64, u64>,
    /// How many evicted connections are still there.
    evicted: usize,
    /// How many connections are counted under each client. LIMIT: each is a row, and a client without one
    /// is not in it.
    counts: HashMap<Network, usize>,
}

#[derive(Debug)]
struct Row<T> {
    value: T,
    stage: Stage,
    /// Since when it waits, in turns, if it does.
    turn: Option<u64>,
    /// The client under which it is counted.
    client: Option<Network>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            rows: HashMap::new(),
            last: 0,
            waiting: BTreeMap::new(),
            evicted: 0,
            counts: HashMap::new(),
        }
    }
}

impl<T> Table<T> {
    /// All connections, the evicted ones among them.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn evicted(&self) -> usize {
        self.evicted
    }

    /// The connections that have a place.
    pub(super) fn placed(&self) -> usize {
        self.rows.len() - self.evicted
    }

    /// Whether there is a connection to evict.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Adds a connection, and returns its key.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        self.last += 1;
        let row = Row {
            value,
            stage: Stage::Busy,
            turn: None,
            client: None,
        };
        self.rows.insert(self.last, row);
        self.last
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.rows.get_mut(&key).map(|row| &mut row.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Stage, &T)> {
        self.rows.values().map(|row| (row.stage, &row.value))
    }

    /// Notes what a connection is doing now. False: it was evicted.
    pub(super) fn set(&mut self, key: u64, stage: Stage) -> bool {
        let Some(row) = self.rows.get_mut(&key) else {
            return false;
        };
        if row.stage == Stage::Evicted {
            return false;
        }
        row.stage = stage;
        if stage == Stage::Busy {
            if let Some(turn) = row.turn.take() {
                self.waiting.remove(&turn);
            }
        } else if row.turn.is_none() {
            // A head that has begun has waited since before it did, so a turn is not replaced.
            self.last += 1;
            self.waiting.insert(self.last, key);
            row.turn = Some(self.last);
        }
        true
    }

    /// [`set`](Self::set) for a connection that has made progress, and so waits anew.
    pub(super) fn renew(&mut self, key: u64, stage: Stage) -> bool {
        self.set(key, Stage::Busy) && self.set(key, stage)
    }

    /// Evicts the connection that has waited the longest. `None`: no connection waits.
    pub(super) fn evict(&mut self) -> Option<&T> {
        let (_, key) = self.waiting.pop_first()?;
        let row = self.rows.get_mut(&key)?;
        row.stage = Stage::Evicted;
        row.turn = None;
        self.evicted += 1;
        Some(&row.value)
    }

    /// How many connections are counted under a client.
    pub(super) fn count_of(&self, client: Network) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// Counts a connection under this client, and under no other any more.
    pub(super) fn count(&mut self, key: u64, client: Option<Network>) {
        let Some(row) = self.rows.get_mut(&key) else {
            return;
        };
        let before = std::mem::replace(&mut row.client, client);
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

    /// Removes a connection, with all that was noted of it.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let row = self.rows.remove(&key)?;
        if let Some(turn) = row.turn {
            self.waiting.remove(&turn);
        }
        self.evicted -= usize::from(row.stage == Stage::Evicted);
        self.uncount(row.client);
        Some(row.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stage::*;

    #[test]
    fn the_connection_that_has_waited_the_longest_is_evicted_and_a_busy_one_never() {
        let mut table = Table::default();
        let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| table.insert(name));
        assert_eq!(table.evict(), None, "no worker has taken any yet");
        assert!(!table.has_waiting());
        for (key, stage) in [
            (d, Idle),
            (a, Idle),
            (b, Waiting),
            (c, Idle),
            // Neither a second word nor a first byte makes it younger.
            (d, Idle),
            (a, Waiting),
            // A request does, when it has been answered.
            (d, Busy),
            (d, Idle),
            (c, Busy),
            (e, Busy),
            (e, Waiting),
        ] {
            assert!(table.set(key, stage));
        }
        for name in ["a", "b", "d", "e"] {
            assert_eq!(table.evict(), Some(&name));
        }
        assert_eq!(table.evict(), None, "c is busy");
        assert_eq!((table.placed(), table.evicted()), (1, 4));
        assert!(!table.has_waiting());
    }

    #[test]
    fn a_body_waits_from_its_last_progress_on() {
        let mut table = Table::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| table.insert(name));
        for key in [a, b, c] {
            assert!(table.renew(key, Waiting));
        }
        assert!(table.set(d, Idle));
        assert!(table.renew(a, Waiting));
        // What dribbles in without progress changes nothing.
        assert!(table.set(b, Waiting));
        assert!(table.set(c, Busy), "its request is complete");
        for name in ["b", "d", "a"] {
            assert_eq!(table.evict(), Some(&name));
        }
        assert_eq!(table.evict(), None, "c is busy");
        assert!(!table.renew(a, Waiting), "it was evicted");
    }

    #[test]
    fn an_evicted_connection_stays_evicted_and_leaves_nothing() {
        let mut table = Table::default();
        let [a, b] = ["a", "b"].map(|name| table.insert(name));
        table.set(a, Idle);
        table.set(b, Idle);
        assert_eq!(table.evict(), Some(&"a"));
        for stage in [Busy, Idle, Waiting] {
            assert!(!table.set(a, stage));
        }
        assert_eq!((table.len(), table.placed()), (2, 1));
        assert_eq!(table.remove(a), Some("a"));
        assert_eq!(table.remove(a), None);
        assert_eq!(table.remove(b), Some("b"));
        assert!(!table.set(b, Idle), "it is gone");
        assert_eq!(table.evict(), None);
        assert_eq!((table.len(), table.evicted()), (0, 0));
        assert!(table.waiting.is_empty());
    }

    #[test]
    fn a_connection_is_counted_under_one_client_as_long_as_it_is_there() {
        let [one, other] = [1, 2].map(|last| Network::of_subscriber([192, 0, 2, last].into()));
        let mut table = Table::default();
        let [a, b] = ["a", "b"].map(|name| table.insert(name));
        table.count(a, Some(one));
        table.count(b, Some(one));
        assert_eq!(table.count_of(one), 2);
        table.count(b, Some(other));
        table.count(b, Some(other));
        assert_eq!((table.count_of(one), table.count_of(other)), (1, 1));
        table.count(b, None);
        assert_eq!(table.count_of(other), 0);
        table.set(a, Idle);
        table.evict();
        assert_eq!(table.count_of(one), 1, "it is still there");
        table.remove(a);
        table.count(a, Some(one));
        table.remove(b);
        assert!(table.counts.is_empty());
    }
}
