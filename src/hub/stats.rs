//! What a hub counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::counters::Histogram;
use super::lane::{Lag, Lane};
use super::{Extent, Farewell};

/// The numbers of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// How long the hub has been there.
    pub uptime: Duration,
    /// Clients now, polls that wait among them.
    pub active: usize,
    /// Clients at the most.
    pub limit: usize,
    /// Streams ever. Polls are none.
    pub clients: u64,
    /// How often one was turned away because there were as many as are allowed.
    pub refused: u64,
    /// Events ever, those for one client among them. Not those of another life, out of a log.
    pub events: u64,
    /// Events that were written to a client, once for each client, replays and what
    /// polls were answered among them.
    pub deliveries: u64,
    /// Bytes that were written to clients, the heads of their streams and heartbeats among them.
    pub bytes: u64,
    /// Bytes that wait for clients now.
    pub lag: u64,
    /// How long publishers waited for their answer from the hub, and for the log behind it.
    pub publishing: Histogram,
    /// How the log is. `None`: there is none.
    pub log: Option<LogStats>,
    /// What is retained of the events.
    pub history: Extent,
    /// Each pattern that a client asked for, with the number of those clients: topics, then beginnings.
    pub topics: Vec<(String, usize)>,
    /// How streams ended, and how often.
    pub farewells: [(Farewell, u64); Farewell::ALL.len()],
}

/// How a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Why it refuses events. `None`: the last attempt to write succeeded.
    pub failure: Option<String>,
    /// How many publishers it has refused.
    pub failures: u64,
}

/// One client, as it is at about this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The name under which the hub knows it.
    pub id: String,
    /// The other end of its connection, if it has one.
    pub peer: Option<SocketAddr>,
    /// Its own address: of that end, unless it is a proxy that is trusted.
    pub address: Option<IpAddr>,
    /// What it asked for.
    pub patterns: Vec<String>,
    /// How long it has been there.
    pub age: Duration,
    /// Events that were written to it.
    pub sent_events: u64,
    /// Bytes that were written to it, the head of its stream and heartbeats among them.
    pub sent_bytes: u64,
    /// Events that wait for it in its queue.
    pub lag_events: u64,
    /// Bytes that wait for it in its queue: with more than `Config::queue_bytes` it is let go.
    pub lag_bytes: u64,
    /// Events of the history that its replay has not been through yet, whether they are for it or
    /// not. 0 once it is live.
    pub replaying: u64,
}

impl Client {
    pub(super) fn of(lane: &Lane, lag: Lag, now_ms: u64) -> Client {
        let sent = lane.sent();
        Client {
            id: lane.client_id.to_string(),
            peer: lane.peer,
            address: lane.address(),
            patterns: lane.patterns.iter().map(ToString::to_string).collect(),
            age: Duration::from_millis(now_ms.saturating_sub(lane.joined_at)),
            sent_events: sent.events,
            sent_bytes: sent.bytes,
            lag_events: lag.events,
            lag_bytes: lag.bytes,
            replaying: lag.replaying,
        }
    }
}
