//! Turns requests into calls of the hub, and the results into responses: the built-in
//! endpoints.
//!
//! `server.rs` calls [`Api::wants_body`] and [`Api::admit`] when the head of a request is
//! there, and [`Api::answer`] when the body is there too. All of them run on the thread
//! of the connection. The path of one request:
//!
//! ```text
//! POST /events/chat      routes.rs        finds the row of the table: the function, its right, its parameters
//!                        parameters.rs    400 for a parameter that the endpoint does not know
//!                        action.rs        the action: publish to "chat"
//!                        access.rs        401 or 403 if the client may not do that
//!                        publish.rs       415 for a body that cannot be published; reads it; calls the hub
//!                        mod.rs           a `Problem` becomes the response, CORS fields are added
//! ```
//!
//! Each endpoint is a function in the file of its subject. Here is what they have in
//! common: the checks before the function is called, and the answer to a request that
//! fails.

#[cfg(feature = "access")]
mod access;
#[cfg(not(feature = "access"))]
#[path = "access_none.rs"]
mod access;
mod action;
#[cfg(feature = "console")]
mod console;
mod exposure;
#[cfg(feature = "metrics")]
mod metrics;
mod parameters;
mod poll;
mod publish;
mod routes;
mod sender;
mod stats;
mod stream;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, DENIALS_LOGGED, STATS_BYTES};
use crate::http::{Budget, Refusal, Request, Response};
use crate::hub::{Hub, InvalidClientId, PublishError, SendError, SubscribeError};
use crate::report::Sampled;
use crate::wire::json::Malformed;
use crate::wire::{FieldError, Network, Patterns, Quoted, Topic, TopicError};
use access::Access;
#[cfg(feature = "access")]
pub use access::{Verdict, read_keys};
pub use action::Action;
use action::Carrier;
#[cfg(feature = "access")]
use routes::USER;
use routes::{CLIENT, Endpoint, Right, TOPIC};

/// The built-in endpoints over a hub. Cloning shares the hub, the rules and the budgets.
#[derive(Clone, Debug)]
pub struct Api {
    hub: Hub,
    /// The configuration of the server. With the feature `console`, `console` is never
    /// `Auto` in a server.
    config: Config,
    /// Which client may do what.
    access: Access,
    /// LIMIT: bytes of the events that all requests together have built and not published
    /// yet.
    event_budget: Budget,
    /// LIMIT: bytes of the answers of `/stats` that are being built. Two of the largest
    /// fit.
    stats_budget: Budget,
    /// LIMIT: lines of the log about requests without the right to do what they ask,
    /// because peers can send any number of them.
    denials: Arc<Sampled>,
}

impl Api {
    /// The endpoints of `hub`, for a program without a [`Server`](crate::Server).
    /// `config` should be the configuration of the hub; here it decides, among other
    /// things, about `Retry-After` ([`retry`](Config::retry)),
    /// [`overload`](Config::overload), the tokens and the [`console`](Config::console).
    ///
    /// Only a [`Server`](crate::Server) knows the address where it listens. Without an
    /// address, [`Console::Auto`](crate::Console::Auto) means that there is no console,
    /// and a client without a token gets the events without a topic and the topics of
    /// [`public`](Config::public), and nothing else, unless the server is
    /// [`open`](Config::open).
    ///
    /// # Errors
    ///
    /// The file of [`tokens`](crate::AccessConfig::tokens) cannot be used.
    pub fn new(hub: Hub, config: Config) -> io::Result<Api> {
        Api::at(hub, config, None)
    }

    /// The endpoints of a server that listens at `address`. `None`: see
    /// [`new`](Self::new).
    pub(crate) fn at(hub: Hub, config: Config, address: Option<SocketAddr>) -> io::Result<Api> {
        #[cfg(feature = "console")]
        let config = console::decided(config, address);
        let access = Access::new(&config, address)?;
        Ok(Api {
            hub,
            access,
            event_budget: Budget::new(config.most_event_bytes()),
            stats_budget: Budget::new(2 * STATS_BYTES),
            config,
            denials: Arc::new(Sampled::new(DENIALS_LOGGED)),
        })
    }

    /// The hub of these endpoints.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Answers any request. A request to no endpoint is answered 404, 405 or 501.
    ///
    /// Blocks as long as the endpoint does: publishing as long as [`Hub::publish`], a
    /// long poll for the time that it asks for, at most a minute. It never waits until a
    /// subscriber reads. The stream of `GET /events` begins only when the response is
    /// written.
    pub fn answer(&self, request: Request) -> Response {
        let response = match self.endpoint(request.method(), request.path()) {
            Some(endpoint) => self
                .check(&endpoint, &request)
                .and_then(|topic| (endpoint.function)(self, &request, topic))
                .unwrap_or_else(|problem| self.respond(problem)),
            None => self.answer_none(&request),
        };
        self.share(&request, response)
    }

    /// Whether a built-in endpoint reads the body of this request. Any other request is
    /// answered after its head: a path without an endpoint, a wrong method, a GET.
    pub fn wants_body(&self, request: &Request) -> bool {
        request.method() == "POST" && self.endpoint("POST", request.path()).is_some()
    }

    /// Checks a request to a built-in endpoint before its body is read, so that a client
    /// that may not publish is refused without reading its body. [`answer`](Self::answer)
    /// checks again, because the rules may have changed while the body arrived. A request
    /// to no endpoint passes.
    ///
    /// # Errors
    ///
    /// The answer: 400, 401, 403 or 415.
    pub fn admit(&self, request: &Request) -> Result<(), Response> {
        let Some(endpoint) = self.endpoint(request.method(), request.path()) else {
            return Ok(());
        };
        match self.check(&endpoint, request) {
            Ok(_) => Ok(()),
            Err(problem) => Err(self.share(request, self.respond(problem))),
        }
    }

    /// Checks whether a request to a route of your own may do `action`, by the rules of
    /// the built-in endpoints. If a guard narrows the client to some topics, the action
    /// must be covered by these topics. A token in the query is ignored, because only
    /// streams may have one there. A handler that returns [`stream_of`](Self::stream_of)
    /// need not call this: `stream_of` checks the right to subscribe.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tiny_sse::{Action, Config, Event, Server, Topic, http::Response};
    ///
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// let (hub, bell) = (server.hub().clone(), Topic::new("bell").expect("a topic"));
    /// let running = server.spawn_with(move |request, api| match (request.method(), request.path()) {
    ///     ("POST", "/ring") => match api.permit(&request, &Action::Publish(Some(&bell))) {
    ///         Ok(()) => match hub.publish(Event::new("ding").with_topic(bell.clone())) {
    ///             Ok(_) => Response::new(204),
    ///             Err(error) => Response::error(503, error),
    ///         },
    ///         Err(refusal) => refusal,
    ///     },
    ///     _ => api.answer(request),
    /// })?;
    /// # running.shutdown();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The answer to a client that may not do this: 401 or 403, or the guard's own.
    pub fn permit(&self, request: &Request, action: &Action<'_>) -> Result<(), Response> {
        self.log_denial(request, self.access.check(request, action))
            .map_err(|problem| self.share(request, self.respond(problem)))
    }

    /// Adds to a response of your own the CORS header fields that let a page of another
    /// origin read it, as far as [`cors_origins`](crate::AccessConfig::cors_origins)
    /// allows it.
    pub fn share(&self, request: &Request, response: Response) -> Response {
        self.access.share(Some(request), response)
    }

    /// Answers `OPTIONS` on a route of your own. `methods` is the value of `Allow`, such
    /// as `"GET, HEAD, POST, OPTIONS"`.
    ///
    /// A browser sends this request, the *preflight*, before a page of another origin may
    /// send anything that a form could not. The answer is the same for all pages and
    /// allows all header fields that the browser asks for, because the request that
    /// follows is checked anyway, and its page can then read why it is refused.
    pub fn preflight(&self, request: &Request, methods: &str) -> Response {
        self.share(request, routes::preflight(request, methods))
    }

    /// Answers bytes that could not be parsed as a request, and a request whose body is
    /// malformed or too large, with the CORS fields, so that the page that sent it can
    /// read what is wrong. `request` is `None` if there is no head.
    pub(crate) fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        let response = self.respond(Response::from(refusal).into());
        self.access.share(request, response)
    }

    /// Warns the operator if clients on other machines can subscribe or publish without a
    /// token.
    pub(crate) fn report_open_access(&self) {
        self.access.report(&self.config.report);
    }

    /// A stream of these patterns, for a route of your own. Everything else is as for
    /// `GET /events`: the right to subscribe is checked, the cursor, `client_id` and
    /// `heartbeat` come from the request, and errors are answered in the same way.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tiny_sse::{Config, Pattern, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// let running = server.spawn_with(|request, api| match (request.method(), request.path()) {
    ///     ("GET", "/weather") => {
    ///         let pattern = Pattern::new("weather/*").expect("a pattern");
    ///         api.stream_of(&request, [pattern].into_iter().collect())
    ///     }
    ///     _ => api.answer(request),
    /// })?;
    /// # running.shutdown();
    /// # Ok(()) }
    /// ```
    pub fn stream_of(&self, request: &Request, patterns: Patterns) -> Response {
        let response = self.stream(request, patterns);
        let response = response.unwrap_or_else(|problem| self.respond(problem));
        self.share(request, response)
    }

    /// `GET /health`: whether the server accepts events, for a load balancer or a
    /// supervisor. May wait half a second for a log that has failed.
    fn health(&self, _: &Request, _: Option<Topic>) -> Answer {
        match self.hub.log_failure() {
            None => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            Some(why) => Err(Problem::new(503, format!("events are refused: {why}"))),
        }
    }

    /// Checks a request to an endpoint by its head: its parameters, its right, and the
    /// type of its body. Returns the topic to which it publishes, if it has one.
    ///
    /// ORDER: the right is checked before the type of the body, so that a client without
    /// the right learns nothing more.
    fn check(&self, endpoint: &Endpoint, request: &Request) -> Result<Option<Topic>, Problem> {
        parameters::check(endpoint.parameters, request)?;
        let mut topic = None;
        let action = match endpoint.right {
            Right::Nothing => return Ok(None),
            Right::Publish => {
                topic = publish::one_topic(request)?;
                Action::Publish(topic.as_ref())
            }
            Right::Client => Action::Client(client_id_in_path(request)),
            #[cfg(feature = "access")]
            Right::User => Action::User(user_in_path(request)),
            Right::Stats if request.query("clients") == Some("1") => Action::Clients,
            Right::Stats => Action::Stats,
        };
        self.log_denial(request, self.access.check(request, &action))?;
        if request.method() == "POST" {
            publish::check_type(request)?;
        }
        Ok(topic)
    }

    /// Returns `outcome` unchanged. Logs a request that was refused, unless too many were
    /// logged before.
    fn log_denial<T>(&self, request: &Request, outcome: Result<T, Problem>) -> Result<T, Problem> {
        if let Err(problem) = &outcome
            && let Some(suppressed) = self.denials.next(Instant::now())
        {
            // Only the path is logged, because the query may contain a token.
            let reason = problem.refused.map(|reason| format!(": {reason}"));
            self.config.report.info(format_args!(
                "{}: {} to {} {:?}{}{suppressed}",
                request.remote_addr(),
                problem.response.status(),
                Quoted(request.method()),
                Quoted(request.path()),
                reason.unwrap_or_default()
            ));
        }
        outcome
    }

    /// Returns the response of a problem. A 503 tells the client in `Retry-After` when to
    /// try again.
    fn respond(&self, Problem { response, .. }: Problem) -> Response {
        if response.status() != 503 || response.has_field("Retry-After") {
            return response;
        }
        response
            .with("Retry-After", self.config.retry_after())
            .with("Access-Control-Expose-Headers", "Retry-After")
    }
}

/// The topic in the path after `/events/`, and the topics in the query.
fn topics(request: &Request) -> impl Iterator<Item = &str> {
    let in_path = request.path().strip_prefix(TOPIC);
    in_path.into_iter().chain(request.queries("topic"))
}

/// The client id in the path after `/clients/`.
fn client_id_in_path(request: &Request) -> &str {
    request.path().strip_prefix(CLIENT).unwrap_or_default()
}

/// The user in the path after `/users/`.
#[cfg(feature = "access")]
fn user_in_path(request: &Request) -> &str {
    request.path().strip_prefix(USER).unwrap_or_default()
}

/// Returns the number of a client's address, which is its credential if it has no other.
fn identity_by_address(request: &Request, random: &RandomState) -> u64 {
    match request.is_client_known() {
        // A client that lost its connection reconnects from the same address, or, if it
        // uses temporary IPv6 addresses, from the same /64.
        true => random.hash_one(Network::of_subscriber(request.client())),
        // The trusted proxy does not name its client, so all clients behind it would have
        // one address. A random number makes each of them a different client.
        false => RandomState::new().hash_one(0),
    }
}

/// The result of an endpoint.
type Answer = Result<Response, Problem>;

/// Why a request failed, as the response that says so. An endpoint returns it with `?`,
/// and [`Api::respond`] completes it.
#[derive(Debug)]
struct Problem {
    /// The answer.
    response: Response,
    /// Why a token was refused, for the log.
    refused: Option<&'static str>,
}

/// A problem with this answer.
impl From<Response> for Problem {
    fn from(response: Response) -> Problem {
        Problem {
            response,
            refused: None,
        }
    }
}

impl Problem {
    /// A JSON response, `{"status":"error","error":…}`, with this status and text.
    fn new(status: u16, what: impl fmt::Display) -> Problem {
        Response::error(status, what).into()
    }

    /// 401: a token is missing, or the token in the request is unknown.
    ///
    /// SPEC: RFC 6750, 3: `WWW-Authenticate: Bearer`, with `error="invalid_token"` only
    /// if there was a token. `refused` is the reason, which has neither quotes nor
    /// backslashes.
    fn unauthorized(what: String, is_missing: bool, refused: Option<&'static str>) -> Problem {
        let mut challenge = String::from("Bearer realm=\"tiny-sse\"");
        if !is_missing {
            challenge += ", error=\"invalid_token\"";
        }
        if let Some(reason) = refused {
            challenge += &format!(", error_description=\"{reason}\"");
        }
        let response = Response::error(401, what).with("WWW-Authenticate", challenge);
        Problem { response, refused }
    }
}

// Each row is an error type and the status of the response to it. The text of the
// response is the error's `Display`.
macro_rules! problems {
    ($($error:ty => $status:expr),* $(,)?) => {$(
        impl From<$error> for Problem {
            fn from(error: $error) -> Problem {
                let status: fn(&$error) -> u16 = $status;
                Problem::new(status(&error), error)
            }
        }
    )*};
}

problems! {
    TopicError => |_| 400,
    FieldError => |_| 400,
    Malformed => |_| 400,
    InvalidClientId => |_| 400,
    PublishError => |error| if matches!(error, PublishError::IdTaken { .. }) { 409 } else { 503 },
    SubscribeError => |error| if *error == SubscribeError::NameTaken { 403 } else { 503 },
    SendError => |error| if *error == SendError::NoSuchClient { 404 } else { 503 },
    Refusal => Refusal::status,
}
