//! Turns the counters of the hub into JSON: `GET /stats`, and with `?clients=1` the list
//! of clients too.
//!
//! ```text
//! {"active_connections":2,…,"history":{"events":7,"bytes":530,…},"topics":{"chat":2,"news/*":1},
//!  "topics_left_out":0,"farewells":{"disconnected":4,…},"uptime_seconds":61,"clients":[{"client_id":…},…]}
//! ```
//!
//! The answer is one text, built by appending. LIMIT: it has at most the [`STATS_TOPICS`]
//! topics with the most clients and [`STATS_BYTES`] of clients, and tells how many it
//! leaves out. At most two answers are built at the same time; further requests wait.

use std::collections::BinaryHeap;
use std::fmt::{Display, Write};

use super::{Answer, Api, Problem};
use crate::config::{STATS_BYTES, STATS_TOPICS};
use crate::http::{Request, Response};
use crate::hub::{Client, Stats};
use crate::wire::{Topic, json};

impl Api {
    /// `GET /stats`. Waits until fewer than two other answers are being built. The hub's
    /// lock is held only while the counters and the clients are copied.
    pub(super) fn stats(&self, request: &Request, _: Option<Topic>) -> Answer {
        let with_clients = match request.query("clients") {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                let what = format!("clients is {other:?}, it must be 0 or 1");
                return Err(Problem::new(400, what));
            }
        };
        let _share = self.stats_budget.wait_for(STATS_BYTES);
        let mut text = String::from("{");
        let topics = self.hub.busiest_topics(STATS_TOPICS);
        render(&self.hub.stats(), topics, &mut text);
        #[cfg(feature = "journal")]
        if let Some(log) = self.hub.log_stats() {
            text.push_str(",\"log\":{");
            text_or_null("failure", log.failure.as_ref(), &mut text);
            number("failures", log.failures, &mut text);
            text.push('}');
        }
        if with_clients {
            render_clients(&self.hub.client_stats(), STATS_BYTES, &mut text);
        }
        text.push('}');
        Ok(Response::json(200, text).with("Cache-Control", "no-store"))
    }
}

/// The numbers that both `/stats` and `/metrics` have: the name in `/stats`, the name in
/// `/metrics`, and the value.
pub(super) fn numbers(stats: &Stats) -> [(&'static str, &'static str, u64); 8] {
    [
        ("active_connections", "clients", stats.clients as u64),
        ("max_connections", "clients_limit", stats.limit as u64),
        ("total_connections", "connections_total", stats.streams),
        (
            "refused_connections",
            "connections_refused_total",
            stats.refused,
        ),
        ("total_events", "events_total", stats.events),
        ("total_deliveries", "deliveries_total", stats.deliveries),
        ("total_bytes", "bytes_total", stats.bytes),
        ("lag_bytes", "lag_bytes", stats.lag),
    ]
}

/// Appends everything but the clients. `topics` are the topics with the most clients, and
/// the number of topics that are left out.
fn render(stats: &Stats, topics: (Vec<(String, usize)>, usize), out: &mut String) {
    for (name, _, value) in numbers(stats) {
        number(name, value, out);
    }
    out.push_str(",\"history\":{");
    number("events", stats.history.events, out);
    number("bytes", stats.history.bytes, out);
    text_or_null("first_id", stats.history.first_id, out);
    text_or_null("last_id", stats.history.last_id, out);
    out.push_str("},\"topics\":{");
    // Sorted by name, topics before patterns, so that the order is the same in each
    // answer. A heap sorts them with less machine code than `sort`.
    let by_name = topics.0.into_iter();
    let by_name = by_name.map(|(topic, clients)| (topic.ends_with('*'), topic, clients));
    for (_, topic, clients) in by_name.collect::<BinaryHeap<_>>().into_sorted_vec() {
        number(&topic, clients, out);
    }
    out.push('}');
    number("topics_left_out", topics.1, out);
    out.push_str(",\"farewells\":{");
    for (close_reason, count) in &stats.close_reasons {
        number(close_reason.name(), count, out);
    }
    out.push('}');
    number("uptime_seconds", stats.uptime.as_secs(), out);
}

/// Appends the clients with the largest backlogs first, as many as fit into `limit`
/// bytes, and at least one. Appends the number of those that do not fit.
fn render_clients(clients: &[Client], limit: usize, out: &mut String) {
    let by_lag = clients.iter().enumerate();
    let by_lag = by_lag.map(|(index, client)| (client.lag_bytes, index));
    let mut by_lag: BinaryHeap<_> = by_lag.collect();
    let mut left_out = clients.len();
    out.push_str(",\"clients\":[");
    let start = out.len();
    while let Some((_, index)) = by_lag.pop() {
        let end = out.len();
        if end > start {
            out.push(',');
        }
        render_client(&clients[index], out);
        if out.len() - start > limit && end > start {
            out.truncate(end);
            break;
        }
        left_out -= 1;
    }
    out.push(']');
    number("clients_left_out", left_out, out);
}

/// Appends one client as an object.
fn render_client(client: &Client, out: &mut String) {
    out.push('{');
    text_or_null("client_id", Some(&client.id), out);
    text_or_null("peer", client.peer, out);
    text_or_null("address", client.address, out);
    text_or_null("user", client.user.as_ref(), out);
    out.push_str(",\"topics\":[");
    for (index, pattern) in client.patterns.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::quote(&pattern.to_string(), out);
    }
    out.push(']');
    number("age_seconds", client.age.as_secs(), out);
    number("sent_events", client.sent_events, out);
    number("sent_bytes", client.sent_bytes, out);
    number("lag_events", client.lag_events, out);
    number("lag_bytes", client.lag_bytes, out);
    number("replaying", client.replaying, out);
    out.push('}');
}

/// Appends a member whose value is displayed as JSON: a number, `true`, `null`, or a
/// quoted text.
fn number(name: &str, value: impl Display, out: &mut String) {
    json::key(name, out);
    write!(out, "{value}").expect("BUG: a String refuses text");
}

/// Appends a member whose value is a text, or `null`.
fn text_or_null(name: &str, value: Option<impl Display>, out: &mut String) {
    match value {
        Some(value) => number(name, json::quoted(&value.to_string()), out),
        None => number(name, "null", out),
    }
}
