//! Notifications: `alert`s for the corner of a page, each followed by the `badge` that counts them.
//!
//! Some come by themselves and say that they are simulated; anybody may post others. An alert and
//! its badge are published together, so that nothing comes between the two.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tiny_sse::http::{Request, Response};
use tiny_sse::wire::json::quoted;
use tiny_sse::{Api, Event, Hub, Topic};

use super::turns::Turns;
use super::{Threads, answer, body, event, now, topic};

pub(super) const TOPIC: &str = "demo/notifications";

const EVERY: Duration = Duration::from_secs(4);

const LEVELS: [&str; 4] = ["info", "success", "warning", "error"];

/// LIMIT: characters of a text.
const TEXT: usize = 500;

/// What comes by itself, over and over.
const SCRIPT: [(&str, &str); 6] = [
    ("info", "A new version is ready: reload to get it"),
    ("success", "Your export is done: 1,204 rows"),
    ("info", "Anna has invited you to the board “Autumn”"),
    ("warning", "The disk of build-2 is 91% full"),
    ("error", "The payment of invoice 2041 was refused"),
    ("success", "build-2 has room again"),
];

/// Where alerts come from.
pub(super) struct Notifications {
    hub: Hub,
    turns: Turns,
    told: Told,
}

impl Notifications {
    pub(super) fn start(hub: &Hub, threads: &mut Threads) -> io::Result<Notifications> {
        let told = Told::new();
        let (scripted, mut script) = (told.clone(), SCRIPT.iter().cycle());
        let turn = move || {
            let next = script.next();
            let (level, text) = next.expect("BUG: the end of a circle");
            scripted.tell(level, text, true)
        };
        let turn = Box::new(turn);
        Ok(Notifications {
            turns: Turns::start("notifications", hub, &told.topic, EVERY, turn, threads)?,
            hub: hub.clone(),
            told,
        })
    }

    pub(super) fn stream(&self, request: &Request, api: &Api) -> Response {
        self.turns.stream(request, api)
    }

    /// Publishes an alert of somebody's own.
    pub(super) fn send(&self, request: &Request) -> Response {
        let (level, text) = match read(request) {
            Ok(alert) => alert,
            Err(what) => return Response::error(400, what),
        };
        let alert_and_badge = self.told.tell(&level, &text, false);
        let outcome = self.hub.publish_all(alert_and_badge);
        answer(outcome.map(|published| published[0]))
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

/// How many alerts there were, and to whom.
#[derive(Clone)]
struct Told {
    topic: Topic,
    count: Arc<AtomicU64>,
}

impl Told {
    fn new() -> Told {
        Told {
            topic: topic(TOPIC),
            count: Arc::default(),
        }
    }

    fn tell(&self, level: &str, text: &str, simulated: bool) -> Vec<Event> {
        // ORDER: Relaxed: each gets a count of its own. Two of one moment may be published the other
        // way round, so a page shows the largest count that it has seen.
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let alert = format!(
            r#"{{"level":"{level}","text":{},"at":"{}","simulated":{simulated}}}"#,
            quoted(text),
            now()
        );
        vec![
            event("alert", &self.topic, alert),
            event("badge", &self.topic, format!(r#"{{"count":{count}}}"#)),
        ]
    }
}
