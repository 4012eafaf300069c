//! `GET /events`, and routes of others' that are like it: from a request to a stream.

use std::hash::{BuildHasher, RandomState};

use super::{Action, Api, Carrier, Problem, access};
use crate::config::Overload;
use crate::http::{Request, Response};
use crate::hub::{Cursor, Heartbeat, Subscribe, SubscribeError};
use crate::wire::{Pattern, Patterns, TopicError};

impl Api {
    pub(super) fn stream(
        &self,
        request: &Request,
        patterns: Patterns,
    ) -> Result<Response, Problem> {
        let wish = self.wish(request, patterns, Carrier::HeaderOrQuery)?;
        let (pass, patterns) = (wish.pass, wish.patterns.clone());
        if request.method() == "HEAD" {
            return Ok(stream_head(Response::takeover(
                CONTENT_TYPE,
                Vec::new(),
                drop,
            )));
        }
        let mut subscription = match self.hub.subscribe(wish) {
            Err(full @ SubscribeError::Full { .. }) if self.config.overload == Overload::Retry => {
                return Ok(stream_head(self.come_back_later(full)));
            }
            subscription => subscription?,
        };
        // ORDER: asked again now that it is in. A reload in between has looked for those to end before
        // this one was there, but not before it had changed the tokens.
        if !self.is_valid(pass, &patterns) {
            let action = Action::Subscribe(&patterns);
            return Err(access::unknown(&action, Carrier::HeaderOrQuery, false));
        }
        let welcome = subscription.take_welcome();
        Ok(stream_head(Response::takeover(
            CONTENT_TYPE,
            welcome,
            move |takeover| {
                subscription.serve(takeover.socket, takeover.opening);
            },
        )))
    }

    /// What a client asks for with a request, as far as it is allowed.
    pub(super) fn wish(
        &self,
        request: &Request,
        patterns: Patterns,
        carrier: Carrier,
    ) -> Result<Subscribe, Problem> {
        let wish = wish(request, patterns)?;
        let admission = self.ask(request, &Action::Subscribe(&wish.patterns), carrier)?;
        Ok(Subscribe {
            patterns: admission.instead.unwrap_or(wish.patterns),
            pass: admission.pass,
            ..wish
        })
    }

    /// A stream that ends at once, and leaves an EventSource with a wait between one and two times
    /// the usual one: its browser would never come back after a 503.
    fn come_back_later(&self, full: SubscribeError) -> Response {
        let retry = self.config.retry.as_millis() as u64;
        let wait = retry + RandomState::new().hash_one(0) % retry.max(1);
        let body = format!("retry: {wait}\n: {full}\n\n");
        // Its place among the connections is for others, who are to be told the same.
        Response::new(200).with_body(CONTENT_TYPE, body).and_close()
    }
}

const CONTENT_TYPE: &str = "text/event-stream";

/// What browsers and proxies must know to pass events on as they come. `X-Accel-Buffering` is
/// nginx's word for it.
fn stream_head(response: Response) -> Response {
    response
        .with("Cache-Control", "no-cache")
        .with("X-Accel-Buffering", "no")
}

/// The topic in the path, and those in the query: at most `most` of them.
pub(super) fn patterns(
    request: &Request,
    topic: Option<&str>,
    most: usize,
) -> Result<Patterns, Problem> {
    let topics = || topic.into_iter().chain(request.queries("topic"));
    // LIMIT: what is asked for, before what is asked for twice is dropped.
    let count = topics().count();
    if count > most {
        let what = format!("the request asks for {count} topics, at most {most} are allowed");
        return Err(Problem::new(400, what));
    }
    Ok(topics()
        .map(Pattern::new)
        .collect::<Result<_, TopicError>>()?)
}

/// What is in a request, besides topics.
fn wish(request: &Request, patterns: Patterns) -> Result<Subscribe, Problem> {
    Ok(Subscribe {
        client_id: request.query("client_id").map(str::parse).transpose()?,
        patterns,
        cursor: cursor(request)?,
        framing: request.stream_framing(),
        heartbeat: heartbeat(request)?,
        peer: Some(request.peer()),
        pass: None,
        address: Some(request.client()),
    })
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

/// The header is the browser's own, and newer than what the page wrote into the URL.
fn cursor(request: &Request) -> Result<Cursor, Problem> {
    let from_header = request.field("last-event-id")?.filter(|id| !id.is_empty());
    let from_query = request.query("last_event_id").filter(|id| !id.is_empty());
    Ok(match (from_header, from_query) {
        (Some(id), _) => Cursor::After(id.to_owned()),
        (None, Some("earliest")) => Cursor::Earliest,
        (None, Some(id)) => Cursor::After(id.to_owned()),
        (None, None) => Cursor::Now,
    })
}
