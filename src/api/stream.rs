//! `GET /events`: from a request to a stream.

use std::hash::{BuildHasher, RandomState};

use super::{Api, Problem};
use crate::config::Overload;
use crate::http::{Request, Response};
use crate::hub::{Cursor, Subscribe, SubscribeError};
use crate::wire::{Pattern, Patterns, TopicError};

impl Api {
    pub(super) fn stream(
        &self,
        request: &Request,
        topic: Option<&str>,
    ) -> Result<Response, Problem> {
        let wish = wish(request, topic)?;
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
        let welcome = subscription.take_welcome();
        Ok(stream_head(Response::takeover(
            CONTENT_TYPE,
            welcome,
            move |takeover| {
                subscription.serve(takeover.socket, takeover.opening);
            },
        )))
    }
}

impl Api {
    /// A stream that ends at once, and leaves an EventSource with a wait between one and two times
    /// the usual one: its browser would never come back after a 503.
    fn come_back_later(&self, full: SubscribeError) -> Response {
        let retry = self.config.retry.as_millis() as u64;
        let wait = retry + RandomState::new().hash_one(0) % retry.max(1);
        let body = format!("retry: {wait}\n: {full}\n\n");
        Response::new(200).with_body(CONTENT_TYPE, body)
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

fn wish(request: &Request, topic: Option<&str>) -> Result<Subscribe, Problem> {
    let patterns = topic
        .into_iter()
        .chain(request.queries("topic"))
        .map(Pattern::new);
    let client_id = request.query("client_id").map(str::parse).transpose()?;
    Ok(Subscribe {
        client_id,
        patterns: patterns.collect::<Result<Patterns, TopicError>>()?,
        cursor: cursor(request)?,
        framing: request.stream_framing(),
        peer: Some(request.peer()),
    })
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
