//! `GET /stats`: what the hub counts, as JSON; with `?clients=1` each of the clients too.
//!
//! An answer is written into one text from the beginning to its end. LIMIT: it has the
//! [`STATS_TOPICS`] busiest topics and [`STATS_BYTES`] of clients, and says how many it leaves out.
//! No more than a few are made at the same time.

use std::collections::BinaryHeap;
use std::fmt::{Display, Write};

use super::{Answer, Api, Problem};
use crate::config::{STATS_BYTES, STATS_TOPICS};
use crate::http::{Request, Response};
use crate::hub::{Client, Stats};
use crate::wire::{Topic, json};

impl Api {
    pub(super) fn stats(&self, request: &Request, _: Option<Topic>) -> Answer {
        let with_clients = match request.query("clients") {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                let what = format!("clients is {other:?}, it must be 0 or 1");
                return Err(Problem::new(400, what));
            }
        };
        let _permit = self.stats_in_making.wait_for(STATS_BYTES);
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

/// The numbers of `/stats` that `/metrics` has too: the name in each of them, and the number.
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

/// `topics` are the busiest ones with their clients, and the number of the others.
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
    // By name, and not by number, so that a topic stays in its place from one answer to the next. A heap
    // sorts the names in less code than `sort` has.
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

/// The clients, as many of them as `limit` bytes hold, those with the most lag first.
fn render_clients(clients: &[Client], limit: usize, out: &mut String) {
    let by_lag = clients.iter().enumerate();
    let by_lag = by_lag.map(|(place, client)| (client.lag_bytes, place));
    let mut by_lag: BinaryHeap<_> = by_lag.collect();
    let mut left_out = clients.len();
    out.push_str(",\"clients\":[");
    let start = out.len();
    while let Some((_, place)) = by_lag.pop() {
        let end = out.len();
        if end > start {
            out.push(',');
        }
        render_client(&clients[place], out);
        if out.len() - start > limit && end > start {
            out.truncate(end);
            break;
        }
        left_out -= 1;
    }
    out.push(']');
    number("clients_left_out", left_out, out);
}

fn render_client(client: &Client, out: &mut String) {
    out.push('{');
    text_or_null("client_id", Some(&client.id), out);
    text_or_null("peer", client.peer, out);
    text_or_null("address", client.address, out);
    out.push_str(",\"topics\":[");
    for (place, pattern) in client.patterns.iter().enumerate() {
        if place > 0 {
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

/// A member whose value is JSON as it is displayed.
fn number(name: &str, value: impl Display, out: &mut String) {
    json::key(name, out);
    write!(out, "{value}").expect("BUG: a String refuses text");
}

fn text_or_null(name: &str, value: Option<impl Display>, out: &mut String) {
    match value {
        Some(value) => number(name, json::quoted(&value.to_string()), out),
        None => number(name, "null", out),
    }
}
