//! Chat: a room is a topic, so the history of the hub is also the history of the room. A
//! client that reconnects with a cursor gets the messages that it missed. With
//! `?last_event_id=earliest` a client gets all messages that the history still has. A
//! room need not be created: any name that is valid in a topic is a room.

use tiny_sse::Topic;
use tiny_sse::http::{Request, Response};
use tiny_sse::wire::json::quoted;

use super::{Uses, answer, body, event, now};

/// LIMIT: characters of a user's name.
const USER: usize = 40;

/// LIMIT: characters of one message.
const TEXT: usize = 2000;

/// Returns the name of a room's topic. It is not a valid topic if the room's name is not
/// allowed in one.
pub(super) fn topic_of(room: &str) -> String {
    format!("demo/chat/{room}")
}

/// Answers a POST: publishes the message of the body in the room.
pub(super) fn send_message(uses: &Uses, request: &Request, room: Topic) -> Response {
    match message(request) {
        Ok(data) => answer(uses.hub.publish(event("message", &room, data))),
        Err(what) => Response::error(400, what),
    }
}

/// Returns the data of the event. It is a new JSON object, so other members of the body
/// are not published, and the time is that of the server.
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
