//! `GET /stats`: what the hub counts, as JSON; with `?clients=1` each of the clients too.

use super::{Api, Problem};
use crate::http::{Request, Response};
use crate::hub::{Client, LogStats, Stats};
use crate::wire::{EventId, json};

impl Api {
    pub(super) fn stats(&self, request: &Request) -> Result<Response, Problem> {
        let clients = match request.query("clients") {
            None | Some("0") => None,
            Some("1") => Some(self.hub.client_stats()),
            Some(other) => {
                let what = format!("clients is {other:?}, it must be 0 or 1");
                return Err(Problem::new(400, what));
            }
        };
        let text = render(&self.hub.stats(), clients.as_deref());
        Ok(Response::json(200, text).with("Cache-Control", "no-store"))
    }
}

fn render(stats: &Stats, clients: Option<&[Client]>) -> String {
    let history = stats.history;
    let history = [
        ("events", history.events.to_string()),
        ("bytes", history.bytes.to_string()),
        ("first_id", id(history.first_id)),
        ("last_id", id(history.last_id)),
    ];
    let topics = stats
        .topics
        .iter()
        .map(|(topic, count)| (topic.as_str(), count.to_string()));
    let farewells = stats
        .farewells
        .iter()
        .map(|(farewell, count)| (farewell.name(), count.to_string()));
    let mut members = vec![
        ("active_connections", stats.active.to_string()),
        ("max_connections", stats.limit.to_string()),
        ("total_connections", stats.clients.to_string()),
        ("refused_connections", stats.refused.to_string()),
        ("total_events", stats.events.to_string()),
        ("total_deliveries", stats.deliveries.to_string()),
        ("total_bytes", stats.bytes.to_string()),
        ("lag_bytes", stats.lag.to_string()),
        ("history", object(history)),
        ("topics", object(topics)),
        ("farewells", object(farewells)),
        ("uptime_seconds", stats.uptime.as_secs().to_string()),
    ];
    if let Some(log) = &stats.log {
        members.push(("log", self::log(log)));
    }
    if let Some(clients) = clients {
        members.push(("clients", array(clients.iter().map(client))));
    }
    object(members)
}

fn log(log: &LogStats) -> String {
    object([
        ("failure", quoted(log.failure.clone())),
        ("failures", log.failures.to_string()),
    ])
}

fn quoted(text: Option<String>) -> String {
    text.map_or("null".into(), |text| json::quoted(&text))
}

fn client(client: &Client) -> String {
    object([
        ("client_id", json::quoted(&client.id)),
        ("peer", quoted(client.peer.map(|peer| peer.to_string()))),
        (
            "address",
            quoted(client.address.map(|address| address.to_string())),
        ),
        (
            "topics",
            array(client.patterns.iter().map(|pattern| json::quoted(pattern))),
        ),
        ("age_seconds", client.age.as_secs().to_string()),
        ("sent_events", client.sent_events.to_string()),
        ("sent_bytes", client.sent_bytes.to_string()),
        ("lag_events", client.lag_events.to_string()),
        ("lag_bytes", client.lag_bytes.to_string()),
        ("replaying", client.replaying.to_string()),
    ])
}

fn id(id: Option<EventId>) -> String {
    id.map_or("null".into(), |id| format!("\"{id}\""))
}

/// A JSON object of names and values that are JSON already.
fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members: Vec<String> = members
        .into_iter()
        .map(|(name, value)| format!("{}:{value}", json::quoted(name)))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}
