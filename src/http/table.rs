//! The connection table: what each open connection is doing, and which connection is
//! evicted when all slots are in use. The table is plain data without a lock;
//! `connections.rs` owns it and guards it with its lock.
//!
//! A connection is useful while a request is being received, answered or streamed. A
//! connection that waits for its peer occupies a slot and a thread without any use, and
//! waiting slowly is the cheapest attack on a server. So of all connections that wait,
//! the one that has waited longest is evicted. The rules:
//!
//! - A connection waits from the moment when it is ready for a request until the head of
//!   that request is complete. The first bytes of a head do not restart the waiting time.
//!   Otherwise a peer could keep a slot by sending one byte now and then.
//! - A connection whose body arrives waits, too, but its waiting time restarts with every
//!   16 KiB (`BODY_PROGRESS`).
//! - A connection that is answering a request or is a stream is busy, and a busy
//!   connection is never evicted.
//!
//! Why not the connection that has sent least, or the one of the client with the most
//! connections: the first can be influenced by a peer that sends useless bytes, and the
//! second needs addresses, which an attacker has in plenty and the clients of one proxy
//! share. `Config::max_per_ip` limits single addresses, for servers that want this.
//!
//! Example: three connections and two slots. A has waited for a request since step 1, B
//! since step 2. C arrives, so [`Table::evict`] returns A. If A had sent a complete
//! request in between, it would be busy, and B would be evicted.

use std::collections::{BTreeMap, HashMap};

use crate::wire::Network;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A request has arrived and is being answered; or the connection is a stream; or it
    /// is in the queue, because no worker has taken it yet. It cannot be evicted.
    Busy,
    /// The connection waits for a request of which nothing has arrived. It can be
    /// evicted, and a shutdown closes it at once.
    Idle,
    /// The connection waits for the rest of a head or of a body; or it has sent its last
    /// answer and waits until the peer closes. It can be evicted, but a shutdown leaves
    /// it the grace.
    Waiting,
    /// The connection was evicted. Its slot counts as free, and its thread is about to
    /// end.
    Evicted,
}

/// All connections that have a thread or are in the queue. Each row has a `T` that the
/// table does not look at.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// One row per connection, by key.
    rows: HashMap<u64, Row<T>>,
    /// A counter that is incremented for each new row and each time that a connection
    /// begins to wait. Its values are the keys of rows, and they order the connections
    /// that wait. At a million per second 64 bits suffice for 584,000 years, so no value
    /// is used twice.
    last_number: u64,
    /// The connections that wait: `Row::waiting_since` mapped to the connection's key.
    /// The first entry has waited longest. It has exactly one entry per row whose
    /// `waiting_since` is set.
    waiting: BTreeMap<u64, u64>,
    /// The number of evicted connections that are still in the table.
    evicted: usize,
    /// The number of connections that are counted under each client: the number of rows
    /// with that `Row::client`.
    /// LIMIT: an entry is removed when its count becomes 0, so there are never more
    /// entries than rows.
    counts: HashMap<Network, usize>,
}

/// What the table knows of one connection.
#[derive(Debug)]
struct Row<T> {
    /// The caller's value.
    value: T,
    /// What the connection is doing.
    stage: Stage,
    /// The value that `Table::last_number` got when the connection began to wait; `None`
    /// while it does not wait.
    waiting_since: Option<u64>,
    /// The client that the connection is counted under, if it is counted: an IPv4
    /// address, or a /64 of IPv6.
    client: Option<Network>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            rows: HashMap::new(),
            last_number: 0,
            waiting: BTreeMap::new(),
            evicted: 0,
            counts: HashMap::new(),
        }
    }
}

impl<T> Table<T> {
    /// The number of all connections, including the evicted ones.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The number of evicted connections that have not been removed yet.
    pub(super) fn evicted(&self) -> usize {
        self.evicted
    }

    /// The number of slots in use: all connections except the evicted ones.
    pub(super) fn slots_in_use(&self) -> usize {
        self.rows.len() - self.evicted
    }

    /// Whether a connection waits, so that [`evict`](Self::evict) would find one.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Adds a connection, which is busy and not counted under a client. Returns the key
    /// of its row.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let row = Row {
            value,
            stage: Stage::Busy,
            waiting_since: None,
            client: None,
        };
        self.last_number += 1;
        self.rows.insert(self.last_number, row);
        self.last_number
    }

    /// The value of a row; `None` once the row has been removed.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.rows.get_mut(&key).map(|row| &mut row.value)
    }

    /// The stage and the value of every row, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Stage, &T)> {
        self.rows.values().map(|row| (row.stage, &row.value))
    }

    /// Notes what a connection is doing now. `Busy` ends its waiting time. `Idle` and
    /// `Waiting` start the waiting time of a connection that was busy, and leave the
    /// waiting time of any other connection as it is.
    ///
    /// Returns false, and changes nothing, if the connection was evicted or removed.
    pub(super) fn set_stage(&mut self, key: u64, stage: Stage) -> bool {
        let Some(row) = self.rows.get_mut(&key) else {
            return false;
        };
        if row.stage == Stage::Evicted {
            return false;
        }
        row.stage = stage;
        if stage == Stage::Busy {
            if let Some(since) = row.waiting_since.take() {
                self.waiting.remove(&since);
            }
        } else if row.waiting_since.is_none() {
            self.last_number += 1;
            self.waiting.insert(self.last_number, key);
            row.waiting_since = Some(self.last_number);
        }
        true
    }

    /// [`set_stage`](Self::set_stage) for a connection that has made progress: its
    /// waiting time starts again.
    pub(super) fn restart_waiting(&mut self, key: u64, stage: Stage) -> bool {
        self.set_stage(key, Stage::Busy) && self.set_stage(key, stage)
    }

    /// Evicts the connection that has waited longest, and returns its value, so that the
    /// caller can wake its thread. The row stays until that thread removes it. `None`: no
    /// connection waits.
    pub(super) fn evict(&mut self) -> Option<&T> {
        let (_, key) = self.waiting.pop_first()?;
        let row = self.rows.get_mut(&key)?;
        row.stage = Stage::Evicted;
        row.waiting_since = None;
        self.evicted += 1;
        Some(&row.value)
    }

    /// The number of connections that are counted under a client.
    pub(super) fn count_of(&self, client: Network) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// Counts a connection under `client`, and no longer under the client before. `None`:
    /// under no client.
    pub(super) fn set_client(&mut self, key: u64, client: Option<Network>) {
        let Some(row) = self.rows.get_mut(&key) else {
            return;
        };
        let before = std::mem::replace(&mut row.client, client);
        if let Some(client) = client {
            *self.counts.entry(client).or_default() += 1;
        }
        self.decrement_count(before);
    }

    /// Subtracts one connection from the count of `client`, and removes a count that
    /// becomes 0.
    fn decrement_count(&mut self, client: Option<Network>) {
        if let Some(client) = client
            && let Some(count) = self.counts.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }

    /// Removes a connection from the table, and returns its value. `None`: it has been
    /// removed before.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let row = self.rows.remove(&key)?;
        if let Some(since) = row.waiting_since {
            self.waiting.remove(&since);
        }
        self.evicted -= usize::from(row.stage == Stage::Evicted);
        self.decrement_count(row.client);
        Some(row.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stage::*;

    #[test]
    fn the_connection_that_has_waited_longest_is_evicted_and_a_busy_one_is_not() {
        let mut table = Table::default();
        let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| table.insert(name));
        assert_eq!(table.evict(), None, "no worker has taken a connection yet");
        assert!(!table.has_waiting());
        for (key, stage) in [
            (d, Idle),
            (a, Idle),
            (b, Waiting),
            (c, Idle),
            // Neither a repeated note nor a first byte restarts the waiting time.
            (d, Idle),
            (a, Waiting),
            // A request restarts it, once the request has been answered.
            (d, Busy),
            (d, Idle),
            (c, Busy),
            (e, Busy),
            (e, Waiting),
        ] {
            assert!(table.set_stage(key, stage));
        }
        for name in ["a", "b", "d", "e"] {
            assert_eq!(table.evict(), Some(&name));
        }
        assert_eq!(table.evict(), None, "c is busy");
        assert_eq!((table.slots_in_use(), table.evicted()), (1, 4));
        assert!(!table.has_waiting());
    }

    #[test]
    fn the_waiting_time_of_a_body_restarts_with_its_progress() {
        let mut table = Table::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| table.insert(name));
        for key in [a, b, c] {
            assert!(table.restart_waiting(key, Waiting));
        }
        assert!(table.set_stage(d, Idle));
        assert!(table.restart_waiting(a, Waiting));
        // Bytes that are too few to be progress change nothing.
        assert!(table.set_stage(b, Waiting));
        assert!(table.set_stage(c, Busy), "its request is complete");
        for name in ["b", "d", "a"] {
            assert_eq!(table.evict(), Some(&name));
        }
        assert_eq!(table.evict(), None, "c is busy");
        assert!(!table.restart_waiting(a, Waiting), "it was evicted");
    }

    #[test]
    fn an_evicted_connection_stays_evicted_until_it_is_removed_without_a_trace() {
        let mut table = Table::default();
        let [a, b] = ["a", "b"].map(|name| table.insert(name));
        table.set_stage(a, Idle);
        table.set_stage(b, Idle);
        assert_eq!(table.evict(), Some(&"a"));
        for stage in [Busy, Idle, Waiting] {
            assert!(!table.set_stage(a, stage));
        }
        assert_eq!((table.len(), table.slots_in_use()), (2, 1));
        assert_eq!(table.remove(a), Some("a"));
        assert_eq!(table.remove(a), None);
        assert_eq!(table.remove(b), Some("b"));
        assert!(!table.set_stage(b, Idle), "its row is removed");
        assert_eq!(table.evict(), None);
        assert_eq!((table.len(), table.evicted()), (0, 0));
        assert!(table.waiting.is_empty());
    }

    #[test]
    fn a_connection_is_counted_under_one_client_until_it_is_removed() {
        let [one, other] = [1, 2].map(|last| Network::of_subscriber([192, 0, 2, last].into()));
        let mut table = Table::default();
        let [a, b] = ["a", "b"].map(|name| table.insert(name));
        table.set_client(a, Some(one));
        table.set_client(b, Some(one));
        assert_eq!(table.count_of(one), 2);
        table.set_client(b, Some(other));
        table.set_client(b, Some(other));
        assert_eq!((table.count_of(one), table.count_of(other)), (1, 1));
        table.set_client(b, None);
        assert_eq!(table.count_of(other), 0);
        table.set_stage(a, Idle);
        table.evict();
        assert_eq!(table.count_of(one), 1, "its row is still there");
        table.remove(a);
        table.set_client(a, Some(one));
        table.remove(b);
        assert!(table.counts.is_empty());
    }
}
