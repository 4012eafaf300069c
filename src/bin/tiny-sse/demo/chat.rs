//! Chat: a room is a topic, so the history of the hub is the history of the room. A client that comes with a
//! cursor gets what was said meanwhile, and with `?last_event_id=earliest` all that is retained. A room exists as
//! soon as a request names it.

use tiny_sse::Topic;
use tiny_sse::http::{Request, Response};
use tiny_sse::wire::json::quoted;

use super::{Uses, answer, body, event, now};

/// LIMIT: characters of a name.
const USER: usize = 40;

/// LIMIT: characters of what is said at once.
const TEXT: usize = 2000;

/// The name of a room's topic; whether it can be one depends on the room.
pub(super) fn topic_of(room: &str) -> String {
    format!("demo/chat/{room}")
}

/// Publishes a message in a room.
pub(super) fn say(uses: &Uses, request: &Request, room: Topic) -> Response {
    match message(request) {
        Ok(data) => answer(uses.hub.publish(event("message", &room, data))),
        Err(what) => Response::error(400, what),
    }
}

/// The data of the event, made anew: other members that the sender wrote are left out, and the time is the
/// server's.
fn message(request: &Request) -> Result<String, String> {
    let object = body::object(request)?;
    let user = body::text(&object, "user", USER)?;
    let text = body::text(&object, "text", TEXT)?;
    Ok(format!(
        r#"{{"user":{},"text":{},"at":"{}"}}"#,
        quoted(&user),
        quoted(&text),
        now()
    ))
}
