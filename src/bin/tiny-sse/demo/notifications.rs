//! Notifications: an event `alert` is a message for the user, and is followed by an event
//! `badge` with the number of alerts so far.
//!
//! The server makes alerts up, with `"simulated":true`, and clients can post alerts. An
//! alert and its badge are published together, so no other event is between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tiny_sse::http::{Request, Response};
use tiny_sse::wire::json::quoted;
use tiny_sse::{Event, Topic};

use super::turns::Turns;
use super::{Uses, answer, body, event, now, topic};

pub(super) const TOPIC: &str = "demo/notifications";

/// The time between two simulated alerts.
const EVERY: Duration = Duration::from_secs(4);

/// The levels of an alert. The first one is the default.
const LEVELS: [&str; 4] = ["info", "success", "warning", "error"];

/// LIMIT: characters of an alert's text.
const TEXT: usize = 500;

/// The simulated alerts, in an endless loop.
const SCRIPT: [(&str, &str); 6] = [
    ("info", "A new version is ready: reload to get it"),
    ("success", "Your export is done: 1,204 rows"),
    ("info", "Anna has invited you to the board “Autumn”"),
    ("warning", "The disk of build-2 is 91% full"),
    ("error", "The payment of invoice 2041 was refused"),
    ("success", "build-2 has room again"),
];

/// Returns the turns of this use: one simulated alert and its badge each.
pub(super) fn turns(alerts: Alerts) -> Turns {
    let mut script = SCRIPT.iter().cycle();
    Turns {
        topic: topic(TOPIC),
        every: EVERY,
        turn: Box::new(move |topic| {
            let (level, text) = script.next().expect("BUG: a cycle has ended");
            alerts.alert_and_badge(topic, level, text, true)
        }),
    }
}

/// Answers a POST: publishes the alert of the body.
pub(super) fn send(uses: &Uses, request: &Request, topic: Topic) -> Response {
    match read(request) {
        Ok((level, text)) => {
            let alert_and_badge = uses.alerts.alert_and_badge(&topic, &level, &text, false);
            let outcome = uses.hub.publish_all(alert_and_badge);
            answer(outcome.map(|mut published| published.swap_remove(0)))
        }
        Err(what) => Response::error(400, what),
    }
}

/// Returns the level and the text in the body. The error is the message of the answer.
fn read(request: &Request) -> Result<(String, String), String> {
    let object = body::object(request)?;
    let level = match object.member("level") {
        Some(_) => body::text(&object, "level", TEXT)?,
        None => LEVELS[0].into(),
    };
    if LEVELS.contains(&&*level) {
        Ok((level, body::text(&object, "text", TEXT)?))
    } else {
        Err(format!("level is {level:?}, it must be one of {LEVELS:?}"))
    }
}

/// The number of alerts so far. The thread of the simulated alerts and the threads that
/// answer a POST share it.
#[derive(Clone, Default)]
pub(super) struct Alerts(Arc<AtomicUsize>);

impl Alerts {
    /// Counts an alert. Returns the alert and its badge as events.
    fn alert_and_badge(
        &self,
        topic: &Topic,
        level: &str,
        text: &str,
        simulated: bool,
    ) -> Vec<Event> {
        // ORDER: Relaxed, because no other memory depends on the count, and each alert
        // gets a different one. Two alerts at the same time may be published in the other
        // order, so a page shows the largest count that it has received.
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let alert = format!(
            r#"{{"level":"{level}","text":{},"at":"{}","simulated":{simulated}}}"#,
            quoted(text),
            now()
        );
        vec![
            event("alert", topic, alert),
            event("badge", topic, format!(r#"{{"count":{count}}}"#)),
        ]
    }
}
