//! `GET /poll`: the same events for what cannot read a stream, as JSON, one answer at a time.

use std::time::Duration;

use super::{Answer, Api, Carrier, Problem, stream};
use crate::config::POLL_SECONDS;
use crate::http::{NO_ROOM, Request, Response};
use crate::hub::Poll;
use crate::wire::{Message, Topic, json};

impl Api {
    /// Answers what was missed, or waits for what comes. The cursor of the next poll is in the head,
    /// in every answer: an empty one has been further than the one before it, too.
    pub(super) fn poll(&self, request: &Request, _: Option<Topic>) -> Answer {
        let asked = self.patterns(request)?;
        let wish = self.wish(request, asked, Carrier::Header)?;
        let wait = match wait(request)? {
            // Of an answer without a body there is nothing to wait for.
            _ if request.method() == "HEAD" => Duration::ZERO,
            wait => wait,
        };
        let is_wanted = || !request.is_abandoned();
        let found = self.hub.find(wish, wait, is_wanted);
        let found = found.map_err(|error| stream::not_let_in(error, request))?;
        // LIMIT: one event wakes many polls, and may be large. ORDER: reserved before the answer is made, of
        // which there are three copies for a moment: the bytes that are decoded, the messages, the text. It
        // is waited for, because an event for this client alone is nowhere else.
        let bytes = found.size().saturating_mul(3);
        let patience = self.config.write_timeout;
        let Some(share) = request.reserve_answer(bytes, patience) else {
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

fn wait(request: &Request) -> Result<Duration, Problem> {
    let Some(text) = request.query("wait") else {
        return Ok(Duration::ZERO);
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse::<u64>().ok().filter(|_| digits);
    // LIMIT: a thread and a place among the clients, for so long.
    let seconds = seconds.filter(|seconds| *seconds <= POLL_SECONDS);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let what = format!("wait is {text:?}, it must be whole seconds from 0 to {POLL_SECONDS}");
        Problem::new(400, what)
    })
}

/// Each message is dropped as soon as it is written, so that memory never holds all messages and the
/// whole text.
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

fn member(name: &str, value: &str, out: &mut String) {
    json::key(name, out);
    json::quote(value, out);
}
