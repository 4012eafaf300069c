//! Which path is which endpoint, and which methods it has.

use std::borrow::Cow;

use super::console::Asset;
use crate::config::{PREFLIGHT_FIELD_BYTES, PREFLIGHT_SECONDS};
use crate::http::{Request, Response};
use crate::wire::Quoted;

/// An endpoint, with what its path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Index,
    Health,
    Stats,
    Metrics,
    /// `/events`, or `/events/` and a topic.
    Events(Option<&'a str>),
    Poll,
    Broadcast,
    Send,
    Client(&'a str),
    /// A file that is part of the program.
    Asset(&'static Asset),
    /// `*`, of which one may only ask `OPTIONS`.
    Server,
}

/// SPEC: RFC 9110, 9.3, and RFC 5789. Another method is 501, one of these in the wrong place 405.
/// CONNECT comes to no endpoint.
const KNOWN_METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];

impl<'a> Route<'a> {
    /// The endpoint at `path`, if one is there.
    pub(super) fn of(path: &'a str) -> Option<Route<'a>> {
        Some(match path {
            "/" => Route::Index,
            "/health" => Route::Health,
            "/stats" => Route::Stats,
            "/metrics" => Route::Metrics,
            "/events" => Route::Events(None),
            "/poll" => Route::Poll,
            "/broadcast" => Route::Broadcast,
            "/send" => Route::Send,
            "*" => Route::Server,
            _ => match (
                path.strip_prefix("/events/"),
                path.strip_prefix("/clients/"),
            ) {
                (Some(topic), _) => Route::Events(Some(topic)),
                (_, Some(client_id)) if !client_id.is_empty() => Route::Client(client_id),
                _ => return None,
            },
        })
    }

    /// The methods, as `Allow` lists them.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Route::Index
            | Route::Health
            | Route::Stats
            | Route::Metrics
            | Route::Poll
            | Route::Asset(_) => "GET, HEAD, OPTIONS",
            Route::Events(_) => "GET, HEAD, POST, OPTIONS",
            Route::Broadcast | Route::Send => "POST, OPTIONS",
            Route::Client(_) => "POST, DELETE, OPTIONS",
            Route::Server => "OPTIONS",
        }
    }

    pub(super) fn has_method(self, method: &str) -> bool {
        self.methods().split(", ").any(|own| own == method)
    }

    pub(super) fn refuse_method(self, method: &str) -> Response {
        if KNOWN_METHODS.contains(&method) {
            let what = format!("{method} is not allowed here, only {}", self.methods());
            Response::error(405, what).with("Allow", self.methods())
        } else {
            let what = format!("the method {} is not implemented", Quoted(method));
            Response::error(501, what)
        }
    }
}

/// The answer to `OPTIONS`, which is also what a browser asks before a request to another origin: the
/// methods that are here, and the header fields that it asks for. A page may send any field: what it
/// may do is decided by the request that follows.
pub(super) fn preflight(request: &Request, methods: &'static str) -> Response {
    // A browser sends the field at most once, and as text.
    let asked = request.field("access-control-request-headers");
    let asked = asked.ok().flatten().filter(|asked| is_list_of_names(asked));
    let allowed = asked.map_or(Cow::Borrowed(USUAL_FIELDS), |asked| asked.to_owned().into());
    Response::new(204)
        .with("Allow", methods)
        .with("Access-Control-Allow-Methods", methods)
        .with("Access-Control-Allow-Headers", allowed)
        .with("Access-Control-Max-Age", PREFLIGHT_SECONDS.to_string())
        .with("Vary", "Access-Control-Request-Headers")
}

/// The header fields that are allowed if the request asks for none.
const USUAL_FIELDS: &str = "Authorization, Cache-Control, Content-Type, Last-Event-ID";

/// SPEC: Fetch, 3.2.2: `Access-Control-Request-Headers = 1#field-name`; RFC 9110, 5.1 and 5.6.2:
/// `field-name = token`, `token = 1*tchar`.
fn is_list_of_names(list: &str) -> bool {
    let is_name = |name: &str| {
        let is_tchar =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(is_tchar)
    };
    // LIMIT: what is echoed.
    list.len() <= PREFLIGHT_FIELD_BYTES && list.split(',').all(|name| is_name(name.trim_ascii()))
}

/// What is here, with a line to try each.
pub(super) fn index(request: &Request) -> Response {
    // A name for the reader to use again; nothing depends on it.
    let host = request
        .host()
        .filter(|host| !host.is_empty())
        .unwrap_or("localhost");
    Response::text(
        200,
        format!(
            "tiny-sse {version}: Server-Sent Events over plain HTTP/1.1

subscribe
  curl -N 'http://{host}/events'                           events without a topic
  curl -N 'http://{host}/events/chat'                      and those of one topic
  curl -N 'http://{host}/events?topic=chat&topic=news/*'   and of several, by pattern
  curl -N 'http://{host}/events?last_event_id=earliest'    from the beginning of the history
  curl 'http://{host}/poll?wait=30'                        what comes first, as JSON; see Last-Event-ID

publish
  curl -d 'hello' 'http://{host}/events'                   to everybody
  curl -d 'hello' 'http://{host}/events/chat?event=hi'     to a topic, with a name
  curl -d '{{\"event\":\"tick\",\"n\":1}}' 'http://{host}/broadcast'   an object, named by its event
  curl -d '{{\"_event\":\"tick\",\"n\":1}}' 'http://{host}/send'       an object, its _event taken out
  curl -d 'psst' 'http://{host}/clients/CLIENT_ID'         to one client
  curl -X DELETE 'http://{host}/clients/CLIENT_ID'         the end of its stream

look
  curl 'http://{host}/stats?clients=1'
  curl 'http://{host}/metrics'
  curl 'http://{host}/health'
",
            version = env!("CARGO_PKG_VERSION"),
        ),
    )
}
