//! Notifications: `alert`s for the corner of a page, each followed by the `badge` that counts them.
//!
//! A script makes some, which say that they are simulated; clients may post others. An alert and
//! its badge are published together, so that no other event comes between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tiny_sse::http::{Request, Response};
use tiny_sse::wire::json::quoted;
use tiny_sse::{Event, Topic};

use super::turns::Turns;
use super::{Uses, answer, body, event, now, topic};

pub(super) const TOPIC: &str = "demo/notifications";

const EVERY: Duration = Duration::from_secs(4);

const LEVELS: [&str; 4] = ["info", "success", "warning", "error"];

/// LIMIT: characters of a text.
const TEXT: usize = 500;

/// The alerts of the script, which begins again at its end.
const SCRIPT: [(&str, &str); 6] = [
    ("info", "A new version is ready: reload to get it"),
    ("success", "Your export is done: 1,204 rows"),
    ("info", "Anna has invited you to the board “Autumn”"),
    ("warning", "The disk of build-2 is 91% full"),
    ("error", "The payment of invoice 2041 was refused"),
    ("success", "build-2 has room again"),
];

pub(super) fn turns(alerts: Alerts) -> Turns {
    let mut script = SCRIPT.iter().cycle();
    Turns {
        topic: topic(TOPIC),
        every: EVERY,
        turn: Box::new(move |topic| {
            let (level, text) = script.next().expect("BUG: a cycle has ended");
            alerts.tell(topic, level, text, true)
        }),
    }
}

/// Publishes an alert that a client has posted.
pub(super) fn send(uses: &Uses, request: &Request, topic: Topic) -> Response {
    match read(request) {
        Ok((level, text)) => {
            let alert_and_badge = uses.alerts.tell(&topic, &level, &text, false);
            let outcome = uses.hub.publish_all(alert_and_badge);
            answer(outcome.map(|mut published| published.swap_remove(0)))
        }
        Err(what) => Response::error(400, what),
    }
}

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

/// The number of alerts so far.
#[derive(Clone, Default)]
pub(super) struct Alerts(Arc<AtomicUsize>);

impl Alerts {
    fn tell(&self, topic: &Topic, level: &str, text: &str, simulated: bool) -> Vec<Event> {
        // ORDER: Relaxed: each alert gets a count of its own. Two of one moment may be published the other
        // way round, so a page shows the largest count that it has seen.
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
