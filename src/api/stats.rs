//! `GET /stats`: what the hub counts, as JSON; with `?clients=1` each of the clients too.
//!
//! An answer is written into one text from the beginning to its end. LIMIT: it has the
//! [`STATS_TOPICS`] busiest topics and [`STATS_BYTES`] of clients, and says how many it leaves out.
//! No more than a few are made at the same time.

use std::cmp::Reverse;
use std::fmt::{Display, Write};

use super::{Api, Problem};
use crate::config::{STATS_BYTES, STATS_TOPICS};
use crate::http::{Request, Response};
use crate::hub::{Client, Stats};
use crate::wire::json;

impl Api {
    pub(super) fn stats(&self, request: &Request) -> Result<Response, Problem> {
        let with_clients = match request.query("clients") {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                let what = format!("clients is {other:?}, it must be 0 or 1");
                return Err(Problem::new(400, what));
            }
        };
        let _permit = self.in_making.stats.acquire(STATS_BYTES);
        let mut text = String::from("{");
        let (topics, left_out) = self.hub.busiest_topics(STATS_TOPICS);
        render(&self.hub.stats(), topics, left_out, &mut text);
        if with_clients {
            render_clients(self.hub.client_stats(), STATS_BYTES, &mut text);
        }
        text.push('}');
        Ok(Response::json(200, text).with("Cache-Control", "no-store"))
    }
}

fn render(
    stats: &Stats,
    mut topics: Vec<(String, usize)>,
    topics_left_out: usize,
    out: &mut String,
) {
    let history = stats.history;
    number("active_connections", stats.active, out);
    number("max_connections", stats.limit, out);
    number("total_connections", stats.clients, out);
    number("refused_connections", stats.refused, out);
    number("total_events", stats.events, out);
    number("total_deliveries", stats.deliveries, out);
    number("total_bytes", stats.bytes, out);
    number("lag_bytes", stats.lag, out);
    json::key("history", out);
    out.push('{');
    number("events", history.events, out);
    number("bytes", history.bytes, out);
    text_or_null("first_id", history.first_id, out);
    text_or_null("last_id", history.last_id, out);
    out.push('}');
    // By name, and not by number, so that a topic stays in its place from one answer to the next.
    topics.sort_unstable_by(|(a, _), (b, _)| (a.ends_with('*'), a).cmp(&(b.ends_with('*'), b)));
    json::key("topics", out);
    out.push('{');
    for (topic, clients) in &topics {
        number(topic, clients, out);
    }
    out.push('}');
    number("topics_left_out", topics_left_out, out);
    json::key("farewells", out);
    out.push('{');
    for (farewell, count) in stats.farewells {
        number(farewell.name(), count, out);
    }
    out.push('}');
    number("uptime_seconds", stats.uptime.as_secs(), out);
    #[cfg(feature = "journal")]
    if let Some(log) = &stats.log {
        json::key("log", out);
        out.push('{');
        text_or_null("failure", log.failure.as_ref(), out);
        number("failures", log.failures, out);
        out.push('}');
    }
}

/// The clients, as many of them as `limit` bytes hold, those with the most lag first.
fn render_clients(mut clients: Vec<Client>, limit: usize, out: &mut String) {
    clients.sort_by_key(|client| Reverse(client.lag_bytes));
    let mut left_out = clients.len();
    json::key("clients", out);
    out.push('[');
    let start = out.len();
    for client in &clients {
        let end = out.len();
        if end > start {
            out.push(',');
        }
        render_client(client, out);
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
    json::key("topics", out);
    out.push('[');
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
    json::key(name, out);
    match value {
        Some(value) => json::quote(&value.to_string(), out),
        None => out.push_str("null"),
    }
}
