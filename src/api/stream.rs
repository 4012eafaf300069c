//! Turns `GET /events`, and requests to routes of an embedder that call
//! [`Api::stream_of`], into a stream.
//!
//! [`Api::stream`] reads the parameters, checks the right to subscribe, and registers the
//! client with the hub. From that moment the hub queues events for it. The response only
//! carries the head and a function: after the connection has written the head, it hands
//! its socket to the function on a thread of its own, where `Subscription::serve` writes
//! the welcome and all events (`hub/stream.rs`). Dropping the response instead, for
//! instance because the client has gone, unregisters the client.
//!
//! `poll.rs` reads the same parameters with [`Api::params`].

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use super::parameters::is_cursor;
use super::{Answer, Api, Carrier, Problem, topics};
use crate::config::Overload;
use crate::http::{Request, Response};
use crate::hub::{Cursor, Heartbeat, Subscribe, SubscribeError};
use crate::wire::{Pattern, Patterns, Topic};

impl Api {
    /// `GET /events`: a stream of the topics in the path and in the query.
    pub(super) fn events(&self, request: &Request, _: Option<Topic>) -> Answer {
        self.stream(request, self.patterns(request)?)
    }

    /// Subscribes to patterns. Returns the head of the stream, and the function that
    /// serves it.
    pub(super) fn stream(&self, request: &Request, patterns: Patterns) -> Answer {
        let params = self.params(request, patterns, Carrier::HeaderOrQuery)?;
        let response = if request.method() == "HEAD" {
            // The head alone: no client is registered.
            Response::takeover(CONTENT_TYPE, Vec::new(), drop)
        } else {
            match self.hub.subscribe(params) {
                Ok(mut subscription) => {
                    let welcome = subscription.take_welcome();
                    Response::takeover(CONTENT_TYPE, welcome, move |takeover| {
                        subscription.serve(takeover.socket, takeover.opening);
                    })
                }
                Err(full @ SubscribeError::Full { .. })
                    if self.config.overload == Overload::Retry =>
                {
                    self.retry_later(full)
                }
                Err(error) => return Err(subscribe_problem(error, request)),
            }
        };
        // A proxy that compresses would hold events back until it has enough of them;
        // `no-transform` forbids it. `X-Accel-Buffering: no` makes nginx pass on each
        // event at once.
        Ok(response
            .with("Cache-Control", "no-cache, no-transform")
            .with("X-Accel-Buffering", "no"))
    }

    /// Returns the patterns in the path and in the query. 400 if there are too many, or
    /// if one is malformed.
    pub(super) fn patterns(&self, request: &Request) -> Result<Patterns, Problem> {
        // LIMIT: counted before duplicates are removed, because each one has to be
        // parsed.
        let (count, most) = (topics(request).count(), self.config.max_patterns);
        if count > most {
            let what = format!(
                "the request asks for {count} topics, at most {most} are allowed (--max-patterns): subscribe to a \
                 prefix such as news/*, or use several streams"
            );
            return Err(Problem::new(400, what));
        }
        Ok(topics(request)
            .map(Pattern::new)
            .collect::<Result<_, _>>()?)
    }

    /// Reads the parameters of a stream or a poll, and checks the right to subscribe.
    /// Returns what the hub needs to register the client; a guard may have narrowed the
    /// patterns.
    pub(super) fn params(
        &self,
        request: &Request,
        patterns: Patterns,
        carrier: Carrier,
    ) -> Result<Subscribe, Problem> {
        let params = Subscribe {
            client_id: request.query("client_id").map(str::parse).transpose()?,
            cursor: cursor(request),
            framing: request.stream_framing(),
            heartbeat: heartbeat(request)?,
            peer: Some(request.peer()),
            address: Some(request.client()),
            ..Subscribe::default()
        };
        let allowed = self.access.authorize_client(request, patterns, carrier);
        let (patterns, permit) = self.log_denial(request, allowed)?;
        Ok(Subscribe {
            patterns,
            permit: Some(permit),
            ..params
        })
    }

    /// The answer when all clients are connected that may be (`--overload retry`): a
    /// stream that contains only a `retry:` and ends. An EventSource reconnects after
    /// such a stream, but gives up for good after a 503. Its wait is random, between one
    /// and two times the usual one, so that refused clients do not all return together.
    fn retry_later(&self, full: SubscribeError) -> Response {
        let retry = self.config.retry.as_millis() as u64;
        let wait = retry + RandomState::new().hash_one(0) % retry.max(1);
        // No empty line at the end: some clients dispatch an empty event for an empty
        // line without fields before it.
        let body = format!("retry: {wait}\n: {full}\n");
        // The connection is closed, so that its slot is free for the next client.
        Response::new(200).with_body(CONTENT_TYPE, body).and_close()
    }
}

/// SPEC: HTML standard, 9.2.5: an event stream is always UTF-8, and needs no `charset`.
/// It is there for clients such as Python's `requests`, which read any text without a
/// charset as ISO-8859-1.
const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";

/// The answer to a client that the hub did not register.
pub(super) fn subscribe_problem(error: SubscribeError, request: &Request) -> Problem {
    match (error, request.query("client_id")) {
        (SubscribeError::NameTaken, Some(id)) => {
            let what = format!(
                "client_id {id:?} is in use by a client with another token, or, without a token, with another \
                 address: choose another client_id, or wait until that client has disconnected"
            );
            Problem::new(403, what)
        }
        (SubscribeError::Full { .. }, _) => Problem::new(503, format!("{error} (--max-clients)")),
        (SubscribeError::NotPermitted, _) => Problem::unauthorized(error.to_string(), false, None),
        _ => error.into(),
    }
}

/// Reads the parameter `heartbeat`.
fn heartbeat(request: &Request) -> Result<Heartbeat, Problem> {
    match request.query("heartbeat") {
        None | Some("comment") => Ok(Heartbeat::Comment),
        Some("event") => Ok(Heartbeat::Event),
        Some(other) => {
            let what = format!("heartbeat is {other:?}, it must be event or comment");
            Err(Problem::new(400, what))
        }
    }
}

/// Reads the cursor of a request, from the first of these that is there:
///
/// 1. the header field `Last-Event-ID`, which a browser adds when it reconnects;
/// 2. the parameter `lastEventId`, which other clients add when they reconnect;
/// 3. the parameter `last_event_id`, which the page wrote into the URL. It is the oldest:
///    a client that reconnects uses the same URL again.
///
/// The cursor is opaque here. If it is malformed, too long or there twice, this is not an
/// error: the stream then reports that the cursor is unknown. An EventSource would never
/// reconnect after a 400.
fn cursor(request: &Request) -> Cursor {
    let from_header = request.fields("last-event-id");
    let from_header = from_header.map(String::from_utf8_lossy);
    if let Some(id) = joined(from_header) {
        return Cursor::After(id);
    }
    let from_query = |is_of_page: bool| {
        let parameters = request.parameters();
        let named = parameters.filter(move |parameter| {
            is_cursor(parameter.name) && (parameter.name == "last_event_id") == is_of_page
        });
        joined(named.map(|parameter| parameter.value.into()))
    };
    match from_query(false).or_else(|| from_query(true)) {
        Some(word) if word == "earliest" => Cursor::Earliest,
        Some(id) => Cursor::After(id),
        None => Cursor::Now,
    }
}

/// Joins the cursors of one source. `None` if all of them are empty.
///
/// SPEC: RFC 9110, 5.3: several fields with the same name are one list, joined by commas.
/// No event has such a list as its id, so the hub reports the cursor as unknown.
fn joined<'a>(ids: impl Iterator<Item = Cow<'a, str>>) -> Option<String> {
    let ids: Vec<_> = ids.filter(|id| !id.is_empty()).collect();
    (!ids.is_empty()).then(|| ids.join(", "))
}
