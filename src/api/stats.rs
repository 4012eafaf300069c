//! `GET /stats`: what the hub counts, as JSON.

use super::Api;
use crate::http::Response;
use crate::hub::Stats;
use crate::wire::{EventId, json};

impl Api {
    pub(super) fn stats(&self) -> Response {
        Response::json(200, render(&self.hub.stats())).with("Cache-Control", "no-store")
    }
}

fn render(stats: &Stats) -> String {
    let Stats {
        active,
        limit,
        clients,
        events,
        history,
        ..
    } = stats;
    let topics = stats
        .topics
        .iter()
        .map(|(topic, clients)| (json::quoted(topic), *clients as u64));
    let farewells = stats
        .farewells
        .iter()
        .map(|(farewell, count)| (json::quoted(farewell.name()), *count));
    format!(
        r#"{{"active_connections":{active},"max_connections":{limit},"total_connections":{clients},"total_events":{events},"#
    ) + &format!(
        r#""history":{{"events":{},"bytes":{},"first_id":{},"last_id":{}}},"#,
        history.events,
        history.bytes,
        id(history.first_id),
        id(history.last_id)
    ) + &format!(
        r#""topics":{},"farewells":{},"uptime_seconds":{}}}"#,
        object(topics),
        object(farewells),
        stats.uptime.as_secs()
    )
}

fn id(id: Option<EventId>) -> String {
    id.map_or("null".into(), |id| format!("\"{id}\""))
}

fn object(members: impl Iterator<Item = (String, u64)>) -> String {
    let members: Vec<String> = members
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}
