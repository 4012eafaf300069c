//! Turns the method and the path of a request into an endpoint: a function, the right
//! that it needs, and the query parameters that it knows.
//!
//! [`Api::endpoint`] is the table. Everything that is decided before the function is
//! called reads this table: 404, the `Allow` of a 405, the check of the parameters, the
//! right, and whether the body is read. Without its feature, a row does not exist, and
//! its path is answered 404.

use std::borrow::Cow;

use super::{Answer, Api};
use crate::config::{PREFLIGHT_FIELD_BYTES, PREFLIGHT_SECONDS};
use crate::http::{Request, Response};
use crate::wire::{Quoted, Topic};

/// A row of the table.
pub(super) struct Endpoint {
    /// The right that is checked before the function is called.
    pub(super) right: Right,
    /// The query parameters that it knows, besides `token`. If the list is empty, a GET
    /// ignores all parameters.
    pub(super) parameters: &'static [&'static str],
    /// Answers the request.
    pub(super) function: Function,
}

/// Answers a request to an endpoint. The topic is the topic to publish to, if the request
/// has one.
type Function = fn(&Api, &Request, Option<Topic>) -> Answer;

/// The right that is checked before the function is called. `Api::check` makes the action
/// of it.
pub(super) enum Right {
    /// None. The function of a stream or a poll checks the right to subscribe itself,
    /// because a guard may narrow its topics.
    Nothing,
    /// The right to publish to the topic of the request.
    Publish,
    /// The right to send to the client in the path, or to end its stream.
    Client,
    /// The right to end the streams of the user in the path.
    #[cfg(feature = "access")]
    User,
    /// The right to see the statistics, or, with `?clients=1`, the clients.
    Stats,
}

/// The beginning of the path of a topic; the rest is the topic.
pub(super) const TOPIC: &str = "/events/";
/// The beginning of the path of a client; the rest is its client id.
pub(super) const CLIENT: &str = "/clients/";
/// The beginning of the path of a user; the rest is the user, which may contain `/`.
#[cfg(feature = "access")]
pub(super) const USER: &str = "/users/";

/// SPEC: RFC 9110, 9.3, and RFC 5789 (PATCH). Any other method is answered 501. One of
/// these is answered 405 if the path has endpoints for other methods only. CONNECT never
/// reaches this module.
const KNOWN_METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];

const STREAM: &[&str] = &["topic", "last_event_id", "client_id", "heartbeat"];
const POLL: &[&str] = &["topic", "last_event_id", "client_id", "wait"];
const EVENT: &[&str] = &["topic", "event", "id", "retry"];

impl Api {
    /// Returns the endpoint that answers `method` at `path`. `None`: there is none. A
    /// HEAD is answered by the endpoint for GET, and the connection leaves out the body.
    pub(super) fn endpoint(&self, method: &str, path: &str) -> Option<Endpoint> {
        use Right::{Client, Nothing, Publish, Stats};
        let path = match (path.strip_prefix(TOPIC), path.strip_prefix(CLIENT)) {
            (Some(_), _) => "/events",
            (_, Some(name)) if !name.is_empty() => "/clients/{client_id}",
            _ => path,
        };
        let method = if method == "HEAD" { "GET" } else { method };
        #[cfg(feature = "access")]
        if method == "DELETE" && path.len() > USER.len() && path.starts_with(USER) {
            return Some(Endpoint {
                right: Right::User,
                parameters: &[],
                function: Api::disconnect_user,
            });
        }
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

    /// Answers a request without an endpoint: `OPTIONS`, 405 for another method, 404 for
    /// another path, 501 for an unknown method.
    pub(super) fn answer_none(&self, request: &Request) -> Response {
        let (method, path) = (request.method(), request.path());
        let mut methods = KNOWN_METHODS.to_vec();
        methods.retain(|method| *method == "OPTIONS" || self.endpoint(method, path).is_some());
        // `OPTIONS` is always in the list, so a list of one means that no endpoint has
        // this path. SPEC: RFC 9110, 9.3.7: `OPTIONS *` asks about the server itself.
        if methods.len() == 1 && path != "*" {
            let what = format!("{} is not here; GET / lists the endpoints", Quoted(path));
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

    /// `GET /` for programs: the list of the endpoints, with a command for each.
    pub(super) fn index(&self, request: &Request) -> Response {
        // The commands contain the host that the client used, so that a user can copy
        // them. A false host does no harm.
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

/// The answer to `OPTIONS`: the methods, and for the preflight of a browser the header
/// fields that a page of another origin may send. All fields that it asks for are
/// allowed, because the request that follows is checked anyway.
pub(super) fn preflight(request: &Request, methods: &str) -> Response {
    // A browser sends the field at most once, as text. Any other value is ignored, as if
    // there were none.
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

/// Whether a text is a list of field names, so that it can be repeated in an answer.
///
/// SPEC: Fetch, 3.2.2: `Access-Control-Request-Headers = 1#field-name`; RFC 9110, 5.1 and
/// 5.6.2: `field-name = token`, `token = 1*tchar`.
fn is_list_of_names(list: &str) -> bool {
    let is_name = |name: &str| {
        let is_tchar =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(is_tchar)
    };
    // LIMIT: the length of what is repeated in the answer.
    list.len() <= PREFLIGHT_FIELD_BYTES && list.split(',').all(|name| is_name(name.trim_ascii()))
}
