//! What a hub counts.

use std::time::Duration;

use super::{Extent, Farewell};

/// The numbers of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// How long the hub has been there.
    pub uptime: Duration,
    /// Clients now.
    pub active: usize,
    /// Clients at the most.
    pub limit: usize,
    /// Clients ever.
    pub clients: u64,
    /// Events ever, those for one client among them.
    pub events: u64,
    /// What is retained of them.
    pub history: Extent,
    /// Each pattern that a client asked for, with the number of those clients: topics, then beginnings.
    pub topics: Vec<(String, usize)>,
    /// How streams ended, and how often.
    pub farewells: [(Farewell, u64); Farewell::ALL.len()],
}
