//! `GET /events`, and routes of others' that are like it: from a request to a stream.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use super::parameters::is_cursor;
use super::{Answer, Api, Carrier, Problem, topics};
use crate::config::Overload;
use crate::http::{Request, Response};
use crate::hub::{Cursor, Heartbeat, Subscribe, SubscribeError};
use crate::wire::{Pattern, Patterns, Topic};

impl Api {
    /// `GET /events`
    pub(super) fn events(&self, request: &Request, _: Option<Topic>) -> Answer {
        self.stream(request, self.patterns(request)?)
    }

    pub(super) fn stream(&self, request: &Request, patterns: Patterns) -> Answer {
        let wish = self.wish(request, patterns, Carrier::HeaderOrQuery)?;
        let response = if request.method() == "HEAD" {
            Response::takeover(CONTENT_TYPE, Vec::new(), drop)
        } else {
            match self.hub.subscribe(wish) {
                Ok(mut subscription) => {
                    let welcome = subscription.take_welcome();
                    Response::takeover(CONTENT_TYPE, welcome, move |takeover| {
                        subscription.serve(takeover.socket, takeover.opening);
                    })
                }
                Err(full @ SubscribeError::Full { .. })
                    if self.config.overload == Overload::Retry =>
                {
                    self.come_back_later(full)
                }
                Err(error) => return Err(not_let_in(error, request)),
            }
        };
        // A proxy that compresses gathers events, unless it is told not to transform. `X-Accel-Buffering`
        // is nginx's word for it.
        Ok(response
            .with("Cache-Control", "no-cache, no-transform")
            .with("X-Accel-Buffering", "no"))
    }

    /// The patterns in the path and in the query.
    pub(super) fn patterns(&self, request: &Request) -> Result<Patterns, Problem> {
        // LIMIT: what is asked for, before what is asked for twice is dropped.
        let (count, most) = (topics(request).count(), self.config.max_patterns);
        if count > most {
            let what = format!(
                "the request asks for {count} topics, at most {most} are allowed (--max-patterns)"
            );
            return Err(Problem::new(400, what));
        }
        Ok(topics(request)
            .map(Pattern::new)
            .collect::<Result<_, _>>()?)
    }

    /// What a client asks for with a request, as far as it is allowed.
    pub(super) fn wish(
        &self,
        request: &Request,
        patterns: Patterns,
        carrier: Carrier,
    ) -> Result<Subscribe, Problem> {
        let wish = Subscribe {
            client_id: request.query("client_id").map(str::parse).transpose()?,
            cursor: cursor(request),
            framing: request.stream_framing(),
            heartbeat: heartbeat(request)?,
            peer: Some(request.peer()),
            address: Some(request.client()),
            ..Subscribe::default()
        };
        let allowed = self.access.let_in(request, patterns, carrier);
        let (patterns, permit) = self.told(request, allowed)?;
        Ok(Subscribe {
            patterns,
            permit: Some(permit),
            ..wish
        })
    }

    /// A stream that ends at once, and leaves an EventSource with a wait between one and two times
    /// the usual one: its browser would never come back after a 503.
    fn come_back_later(&self, full: SubscribeError) -> Response {
        let retry = self.config.retry.as_millis() as u64;
        let wait = retry + RandomState::new().hash_one(0) % retry.max(1);
        // No empty line: some clients make an empty event of one that ends nothing.
        let body = format!("retry: {wait}\n: {full}\n");
        // Its place among the connections is for others, who are to be told the same.
        Response::new(200).with_body(CONTENT_TYPE, body).and_close()
    }
}

/// An event stream is UTF-8 without saying so (HTML, 9.2.5). But some clients, such as Python's
/// `requests`, read any text without a charset as ISO-8859-1.
const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";

/// The answer to a client that the hub has not let in.
pub(super) fn not_let_in(error: SubscribeError, request: &Request) -> Problem {
    match (error, request.query("client_id")) {
        (SubscribeError::NameTaken, Some(name)) => {
            let what = format!(
                "client_id {name:?} is in use, and not by a client with the same token, or, without a \
                 token, with the same address: choose another name, or wait until that client has gone"
            );
            Problem::new(403, what)
        }
        (SubscribeError::Full { .. }, _) => Problem::new(503, format!("{error} (--max-clients)")),
        (SubscribeError::NotPermitted, _) => Problem::unauthorized(error.to_string(), false),
        _ => error.into(),
    }
}

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

/// The cursor of a request. It is opaque, and never an error: the stream reports it as
/// unknown if it cannot be read, is too long or is there twice. An EventSource would never come back after a 400.
///
/// The header wins over the query, because the browser made it after the page had made the URL. In the
/// query `lastEventId`, which other clients add as they reconnect, wins over `last_event_id`.
fn cursor(request: &Request) -> Cursor {
    let from_header = request.fields("last-event-id");
    let from_header = from_header.map(String::from_utf8_lossy);
    if let Some(id) = joined(from_header) {
        return Cursor::After(id);
    }
    let from_query = |is_own: bool| {
        let parameters = request.parameters();
        let named = parameters.filter(move |parameter| {
            is_cursor(parameter.name) && (parameter.name == "last_event_id") == is_own
        });
        joined(named.map(|parameter| parameter.value.into()))
    };
    match from_query(false).or_else(|| from_query(true)) {
        Some(word) if word == "earliest" => Cursor::Earliest,
        Some(id) => Cursor::After(id),
        None => Cursor::Now,
    }
}

/// SPEC: RFC 9110, 5.3: several fields of one name are one list. No event has a list as its id.
fn joined<'a>(ids: impl Iterator<Item = Cow<'a, str>>) -> Option<String> {
    let ids: Vec<_> = ids.filter(|id| !id.is_empty()).collect();
    (!ids.is_empty()).then(|| ids.join(", "))
}
