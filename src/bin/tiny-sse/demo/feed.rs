//! A live feed: each new post is an event `post`. In this demo the server makes the posts
//! up, and each has `"simulated":true`.

use std::time::Duration;

use tiny_sse::wire::json::quoted;

use super::turns::Turns;
use super::{event, now, topic};

pub(super) const TOPIC: &str = "demo/feed";

/// The time between two posts.
const EVERY: Duration = Duration::from_secs(3);

const AUTHORS: [&str; 5] = ["Anna", "Борис", "Chidi", "Dörte", "恵美"];

/// Their number has no common divisor with the number of authors. So every author has
/// written every text before a post is repeated.
const TEXTS: [&str; 7] = [
    "The tram is late again 🚋",
    "Who has a spare bicycle for Saturday?",
    "Fresh bread at the corner, go now",
    "I read the specification of event streams. It fits on a page.",
    "Снег! ❄️",
    "The library is open until ten tonight",
    "Found: one blue glove",
];

/// Returns the turns of this use: one post each.
pub(super) fn turns() -> Turns {
    let mut number = 0;
    Turns {
        topic: topic(TOPIC),
        every: EVERY,
        turn: Box::new(move |topic| {
            number += 1;
            vec![event("post", topic, post(number))]
        }),
    }
}

/// Returns the data of a post.
fn post(number: usize) -> String {
    let author = AUTHORS[number % AUTHORS.len()];
    let text = TEXTS[number % TEXTS.len()];
    format!(
        r#"{{"number":{number},"author":{},"text":{},"at":"{}","simulated":true}}"#,
        quoted(author),
        quoted(text),
        now()
    )
}
