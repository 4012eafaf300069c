//! `GET /metrics`: what the hub counts, in the text format of Prometheus.
//!
//! SPEC: Prometheus, exposition formats, text-based format 0.0.4: `# HELP` and `# TYPE` once before
//! the samples of a family; counters end in `_total`; a histogram's buckets are cumulative, and the
//! last one, `+Inf`, is its count.

use std::fmt::{Display, Write};

use super::Api;
use crate::http::Response;
use crate::hub::{Histogram, Stats};

impl Api {
    pub(super) fn metrics(&self) -> Response {
        let text = render(&self.hub.stats());
        Response::new(200)
            .with_body("text/plain; version=0.0.4; charset=utf-8", text)
            .with("Cache-Control", "no-store")
    }
}

fn render(stats: &Stats) -> String {
    let mut page = Page(String::new());
    page.gauge(
        "clients",
        "Streams that are open, and polls that wait.",
        stats.active,
    );
    page.gauge(
        "clients_limit",
        "Streams that may be open at the same time.",
        stats.limit,
    );
    page.counter("connections", "Streams that were let in.", stats.clients);
    page.counter(
        "connections_refused",
        "Streams that were turned away because the limit was reached.",
        stats.refused,
    );
    page.counter("events", "Events that were published.", stats.events);
    page.counter(
        "deliveries",
        "Events that were written to a client, once for each client.",
        stats.deliveries,
    );
    page.counter(
        "bytes",
        "Bytes that were written to streams, heads and heartbeats among them.",
        stats.bytes,
    );
    page.gauge(
        "lag_bytes",
        "Bytes that wait for clients who read too slowly.",
        stats.lag,
    );
    page.family(
        "farewells_total",
        "counter",
        "Streams that ended, by reason.",
    );
    for (farewell, count) in stats.farewells {
        let label = format!("{{reason=\"{}\"}}", farewell.name());
        page.sample("farewells_total", &label, count);
    }
    let history = stats.history;
    page.gauge(
        "history_events",
        "Events that are retained.",
        history.events,
    );
    page.gauge("history_bytes", "Bytes of them on the wire.", history.bytes);
    if let Some(oldest) = history.first_id {
        page.gauge(
            "history_oldest_timestamp_seconds",
            "When the oldest of them was published.",
            oldest.ms as f64 / 1e3,
        );
    }
    page.histogram(
        "publish_seconds",
        "How long publishers waited for the hub, and for the log behind it.",
        &stats.publishing,
    );
    #[cfg(feature = "journal")]
    {
        let log = stats.log.as_ref();
        page.gauge(
            "log_failing",
            "1 while the log refuses events, and the health with it; otherwise 0.",
            u8::from(log.is_some_and(|log| log.failure.is_some())),
        );
        page.counter(
            "log_failures",
            "Requests to publish that the log refused.",
            log.map_or(0, |log| log.failures),
        );
    }
    page.gauge(
        "uptime_seconds",
        "How long the hub has been there.",
        stats.uptime.as_secs_f64(),
    );
    page.0
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP tiny_sse_{name} {help}"));
        self.line(format_args!("# TYPE tiny_sse_{name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.family(&name, "counter", help);
        self.sample(&name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (bucket, mut sum) = (format!("{name}_bucket"), 0);
        for (bound, count) in &histogram.counts {
            sum += count;
            let label = format!("{{le=\"{}\"}}", bound.as_secs_f64());
            self.sample(&bucket, &label, sum);
        }
        self.sample(&bucket, "{le=\"+Inf\"}", histogram.count);
        let total = histogram.sum.as_secs_f64();
        self.sample(&format!("{name}_sum"), "", total);
        self.sample(&format!("{name}_count"), "", histogram.count);
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        self.line(format_args!("tiny_sse_{name}{labels} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("BUG: a String refuses text");
    }
}
