//! Turns `GET /poll` into one JSON answer: the events after a cursor, for clients that
//! cannot read a stream.
//!
//! ```text
//! GET /poll?topic=chat&wait=30        200, Last-Event-ID: 1795326004711-731902466
//!                                     [{"id":"1795326004711-731902466","event":"message","data":"hello"}]
//! ```
//!
//! A client sends the `Last-Event-ID` of each answer with its next poll. So it misses no
//! event between two polls, although it is not registered with the hub in between. With
//! `wait` the thread of the connection sleeps until an event comes or the time is over;
//! the hub's side is `hub/poll.rs`.

use std::time::Duration;

use super::{Answer, Api, Carrier, Problem, stream};
use crate::config::POLL_SECONDS;
use crate::http::{NO_ROOM, Request, Response};
use crate::hub::Poll;
use crate::wire::{Message, Topic, json};

impl Api {
    /// Answers with the events after the cursor. If there are none, waits for the first
    /// one, for as long as the request asks. Every answer has the cursor of the next poll
    /// in its head. An empty answer has one too: events of other topics may have been
    /// published meanwhile, and the next poll need not look at them again.
    pub(super) fn poll(&self, request: &Request, _: Option<Topic>) -> Answer {
        let asked = self.patterns(request)?;
        let params = self.params(request, asked, Carrier::Header)?;
        let wait = match wait(request)? {
            // The answer to HEAD has no body, so it would be wrong to wait for one.
            _ if request.method() == "HEAD" => Duration::ZERO,
            wait => wait,
        };
        let is_wanted = || !request.is_abandoned();
        let found = self.hub.find(params, wait, is_wanted);
        let found = found.map_err(|error| stream::subscribe_problem(error, request))?;
        // LIMIT: one large event may wake many polls at once. ORDER: the memory is
        // reserved before the answer is built. For a moment there are three copies of it:
        // the bytes of the hub, the decoded messages, and the text. The reservation
        // waits, because an event that was sent to this client alone is in no history:
        // refusing the request at once would lose it.
        let bytes = found.size().saturating_mul(3);
        let timeout = self.config.write_timeout;
        let Some(share) = request.reserve_answer(bytes, timeout) else {
            return Err(Problem::new(503, NO_ROOM));
        };
        let Poll { messages, cursor } = found.into_poll();
        Ok(Response::json(200, render(messages))
            .with("Cache-Control", "no-store")
            .with("Last-Event-ID", cursor)
            .with("Access-Control-Expose-Headers", "Last-Event-ID")
            .reserved(share))
    }
}

/// Reads the parameter `wait`, in seconds. Without it the poll does not wait.
fn wait(request: &Request) -> Result<Duration, Problem> {
    let Some(text) = request.query("wait") else {
        return Ok(Duration::ZERO);
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse::<u64>().ok().filter(|_| digits);
    // LIMIT: a waiting poll takes a thread and counts as a client.
    let seconds = seconds.filter(|seconds| *seconds <= POLL_SECONDS);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let what = format!("wait is {text:?}, it must be whole seconds from 0 to {POLL_SECONDS}");
        Problem::new(400, what)
    })
}

/// Renders the messages as a JSON array. Each message is dropped as soon as it is
/// rendered, so that memory does not hold all messages and the whole text at once.
fn render(messages: Vec<Message>) -> String {
    let mut text = String::from("[");
    for message in messages {
        text.push_str(if text.len() > 1 { ",{" } else { "{" });
        if !message.last_event_id.is_empty() {
            member("id", &message.last_event_id, &mut text);
        }
        member("event", &message.name, &mut text);
        member("data", &message.data, &mut text);
        text.push('}');
    }
    text + "]"
}

/// Appends a member whose value is a string.
fn member(name: &str, value: &str, out: &mut String) {
    json::key(name, out);
    json::quote(value, out);
}
