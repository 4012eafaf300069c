//! The table of endpoints: which function answers which method of which path, which right it needs, and
//! which query parameters it knows.
//!
//! Everything that is asked about a request before that function is called reads this table: 404, the
//! `Allow` of a 405, the check of the parameters, the right, and whether the body is wanted. A feature that
//! is off takes its row with it.

use std::borrow::Cow;

use super::{Answer, Api};
use crate::config::{PREFLIGHT_FIELD_BYTES, PREFLIGHT_SECONDS};
use crate::http::{Request, Response};
use crate::wire::{Quoted, Topic};

/// A row of the table.
pub(super) struct Endpoint {
    pub(super) right: Right,
    /// The query parameters that it knows.
    pub(super) parameters: &'static [&'static str],
    pub(super) function: Function,
}

/// Answers a request to an endpoint. The topic is that of the event, if the endpoint publishes one.
type Function = fn(&Api, &Request, Option<Topic>) -> Answer;

/// What a client must be allowed to do before the function is called.
pub(super) enum Right {
    /// Nothing. A stream or a poll may get other topics than it asks for, so its function asks by itself.
    Nothing,
    /// To publish to the topic of the request.
    Publish,
    /// To reach the client that the path names.
    Client,
    /// To see the statistics, and with `?clients=1` the clients too.
    Stats,
}

/// The beginning of the path of a topic; the rest is the topic.
pub(super) const TOPIC: &str = "/events/";
/// The beginning of the path of a client; the rest is its name.
pub(super) const CLIENT: &str = "/clients/";

/// SPEC: RFC 9110, 9.3, and RFC 5789. Another method is 501, one of these in the wrong place 405.
/// CONNECT comes to no endpoint.
const KNOWN_METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];

const STREAM: &[&str] = &["topic", "last_event_id", "client_id", "heartbeat"];
const POLL: &[&str] = &["topic", "last_event_id", "client_id", "wait"];
const EVENT: &[&str] = &["topic", "event", "id", "retry"];

impl Api {
    /// The endpoint that answers `method` at `path`, if there is one.
    pub(super) fn endpoint(&self, method: &str, path: &str) -> Option<Endpoint> {
        use Right::{Client, Nothing, Publish, Stats};
        let path = match (path.strip_prefix(TOPIC), path.strip_prefix(CLIENT)) {
            (Some(_), _) => "/events",
            (_, Some(name)) if !name.is_empty() => "/clients/{client_id}",
            _ => path,
        };
        let method = if method == "HEAD" { "GET" } else { method };
        let (right, parameters, function): (Right, &[&str], Function) = match (method, path) {
            #[cfg(feature = "console")]
            ("GET", path) if super::console::file(path, &self.config).is_some() => {
                (Nothing, &[], super::console::answer)
            }
            ("GET", "/") => (Nothing, &[], |api, request, _| Ok(api.index(request))),
            ("GET", "/events") => (Nothing, STREAM, Api::events),
            ("GET", "/poll") => (Nothing, POLL, Api::poll),
            ("POST", "/events") => (Publish, EVENT, Api::publish),
            ("POST", "/broadcast") => (Publish, &["topic"], Api::broadcast),
            ("POST", "/send") => (Publish, &["topic"], Api::send),
            ("POST", "/clients/{client_id}") => (Client, &["event", "retry"], Api::send_to_client),
            ("DELETE", "/clients/{client_id}") => (Client, &[], Api::disconnect),
            ("GET", "/stats") => (Stats, &["clients"], Api::stats),
            #[cfg(feature = "metrics")]
            ("GET", "/metrics") => (Stats, &[], Api::metrics),
            ("GET", "/health") => (Nothing, &[], Api::health),
            _ => return None,
        };
        Some(Endpoint {
            right,
            parameters,
            function,
        })
    }

    /// Answers a request that is for no endpoint: `OPTIONS`, a wrong method, or a path at which nothing is.
    pub(super) fn answer_none(&self, request: &Request) -> Response {
        let (method, path) = (request.method(), request.path());
        let mut methods = KNOWN_METHODS.to_vec();
        methods.retain(|method| *method == "OPTIONS" || self.endpoint(method, path).is_some());
        // SPEC: RFC 9110, 9.3.7: `*` is the server itself.
        if methods.len() == 1 && path != "*" {
            let what = format!("{} is not here; GET / lists what is", Quoted(path));
            return Response::error(404, what);
        }
        let methods = methods.join(", ");
        if method == "OPTIONS" {
            preflight(request, &methods)
        } else if KNOWN_METHODS.contains(&method) {
            let what = format!("{method} is not allowed here, only {methods}");
            Response::error(405, what).with("Allow", methods)
        } else {
            let what = format!("the method {} is not implemented", Quoted(method));
            Response::error(501, what)
        }
    }

    /// The endpoints, with a line to try each.
    pub(super) fn index(&self, request: &Request) -> Response {
        // The reader copies the commands with this name; nothing depends on it.
        let host = request.host().filter(|host| !host.is_empty());
        let host = host.unwrap_or("localhost");
        let mut text = INDEX.replace("VERSION", env!("CARGO_PKG_VERSION"));
        if cfg!(feature = "metrics") {
            text += "  curl 'http://HOST/metrics'\n";
        }
        Response::text(200, text.replace("HOST", host))
    }
}

const INDEX: &str = r#"tiny-sse VERSION: Server-Sent Events over plain HTTP/1.1

subscribe
  curl -N 'http://HOST/events'                           events without a topic
  curl -N 'http://HOST/events/chat'                      and those of one topic
  curl -N 'http://HOST/events?topic=chat&topic=news/*'   and of several, by pattern
  curl -N 'http://HOST/events?last_event_id=earliest'    from the beginning of the history
  curl 'http://HOST/poll?wait=30'                        what comes first, as JSON; see Last-Event-ID

publish
  curl -d 'hello' 'http://HOST/events'                   to everybody
  curl -d 'hello' 'http://HOST/events/chat?event=hi'     to a topic, with a name
  curl -d '{"event":"tick","n":1}' 'http://HOST/broadcast'   an object, named by its event
  curl -d '{"_event":"tick","n":1}' 'http://HOST/send'       an object, its _event taken out
  curl -d 'psst' 'http://HOST/clients/CLIENT_ID'         to one client
  curl -X DELETE 'http://HOST/clients/CLIENT_ID'         the end of its stream

look
  curl 'http://HOST/stats?clients=1'
  curl 'http://HOST/health'
"#;

/// The answer to `OPTIONS`, which is also what a browser asks before a request to another origin: the
/// methods that are here, and the header fields that it asks for. A page may send any field: what it
/// may do is decided by the request that follows.
pub(super) fn preflight(request: &Request, methods: &str) -> Response {
    // A browser sends the field at most once, and as text.
    let asked = request.field("access-control-request-headers");
    let asked = asked.ok().flatten().filter(|asked| is_list_of_names(asked));
    let allowed = asked.map_or(Cow::Borrowed(USUAL_FIELDS), |asked| asked.to_owned().into());
    Response::new(204)
        .with("Allow", methods.to_owned())
        .with("Access-Control-Allow-Methods", methods.to_owned())
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
