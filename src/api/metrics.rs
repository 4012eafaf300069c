//! Turns the counters of the hub into the text format of Prometheus: `GET /metrics`.
//!
//! ```text
//! # HELP tiny_sse_clients Streams that are open, and polls that wait.
//! # TYPE tiny_sse_clients gauge
//! tiny_sse_clients 2
//! ```
//!
//! SPEC: Prometheus, exposition formats, text-based format 0.0.4: a *family* is all
//! samples of one name, with `# HELP` and `# TYPE` once before them; the name of a
//! counter ends in `_total`; each bucket of a histogram counts the values of the buckets
//! before it too, so the last bucket, `+Inf`, equals the count.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::stats::numbers;
use super::{Answer, Api};
use crate::http::{Request, Response};
use crate::hub::Hub;
use crate::wire::Topic;

impl Api {
    /// `GET /metrics`. The text has a fixed number of lines, whatever the number of
    /// clients and topics is.
    pub(super) fn metrics(&self, _: &Request, _: Option<Topic>) -> Answer {
        let mut page = String::new();
        render(&self.hub, &mut page).expect("BUG: a String refuses text");
        Ok(Response::new(200)
            .with_body("text/plain; version=0.0.4; charset=utf-8", page)
            .with("Cache-Control", "no-store"))
    }
}

/// Appends all families. Each has its help and its type in [`family`].
fn render(hub: &Hub, page: &mut String) -> fmt::Result {
    let stats = &hub.stats();
    for (_, name, number) in numbers(stats) {
        sample(page, name, &number)?;
    }
    let name = family(page, "farewells_total")?;
    for (close_reason, count) in &stats.close_reasons {
        let reason = close_reason.name();
        writeln!(page, "{name}{{reason=\"{reason}\"}} {count}")?;
    }
    sample(page, "history_events", &stats.history.events)?;
    sample(page, "history_bytes", &stats.history.bytes)?;
    if let Some(oldest) = stats.history.first_id {
        let time = seconds(Duration::from_millis(oldest.ms));
        sample(page, "history_oldest_timestamp_seconds", &time)?;
    }
    let name = family(page, "publish_seconds")?;
    let mut sum = 0;
    for (bound, count) in &stats.publishing.counts {
        sum += count;
        writeln!(page, "{name}_bucket{{le=\"{}\"}} {sum}", seconds(*bound))?;
    }
    let (count, sum) = (stats.publishing.count, seconds(stats.publishing.sum));
    writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
    writeln!(page, "{name}_sum {sum}\n{name}_count {count}")?;
    #[cfg(feature = "journal")]
    {
        let log = hub.log_stats();
        let is_failing = log.as_ref().is_some_and(|log| log.failure.is_some());
        let failures = log.map_or(0, |log| log.failures);
        sample(page, "log_failing", &u8::from(is_failing))?;
        sample(page, "log_failures_total", &failures)?;
    }
    sample(page, "uptime_seconds", &seconds(stats.uptime))
}

/// Appends the two lines before the samples of a family. Returns the full name of the
/// family.
fn family(page: &mut String, name: &str) -> Result<String, fmt::Error> {
    let kind = match name {
        "publish_seconds" => "histogram",
        name if name.ends_with("_total") => "counter",
        _ => "gauge",
    };
    let help = match name {
        "clients" => "Streams that are open, and polls that wait.",
        "clients_limit" => "Streams that may be open at the same time.",
        "connections_total" => "Streams that were accepted.",
        "connections_refused_total" => "Streams that were refused because the limit was reached.",
        "events_total" => "Events that were published.",
        "deliveries_total" => "Events that were written to a client, once for each client.",
        "bytes_total" => "Bytes that were written to streams, with heads and heartbeats.",
        "lag_bytes" => "Bytes that wait for clients that read slowly.",
        "farewells_total" => "Streams that ended, by reason.",
        "history_events" => "Events in the history.",
        "history_bytes" => "Bytes of the events in the history, on the wire.",
        "history_oldest_timestamp_seconds" => "When the oldest event in the history was published.",
        "publish_seconds" => "How long publishers waited for the hub and its log.",
        "log_failing" => "1 while the log refuses events and /health answers 503, otherwise 0.",
        "log_failures_total" => "Requests to publish that failed because of the log.",
        _ => "How long the hub has been running.",
    };
    let name = format!("tiny_sse_{name}");
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    Ok(name)
}

/// Appends a family of one sample.
fn sample(page: &mut String, name: &str, value: &dyn Display) -> fmt::Result {
    let name = family(page, name)?;
    writeln!(page, "{name} {value}")
}

/// Formats a time as a decimal number of seconds, without trailing zeros. The library
/// formats no other fraction, so without an `f64` here, std's code for formatting them
/// stays out of the program.
fn seconds(time: Duration) -> String {
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_formatted_like_an_f64() {
        for time in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(10),
            Duration::from_millis(500),
            Duration::from_secs(10),
            Duration::new(1, 5),
            Duration::new(100, 120_000_000),
            Duration::from_millis(1_796_088_281_519),
            Duration::from_millis(1_796_088_280_000),
        ] {
            assert_eq!(seconds(time), time.as_secs_f64().to_string());
        }
    }
}
