//! The endpoints: requests on one side, the hub on the other, and the errors in between.
//!
//! Each endpoint is a function in the file of its subject, and `routes.rs` is the table of them. What they
//! have in common is here: what is checked before the function is called, and how a problem is answered.

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
pub use access::Verdict;
pub use action::Action;
use action::Carrier;
use routes::{CLIENT, Endpoint, Right, TOPIC};

/// The built-in endpoints over a hub. Cloning shares the hub.
#[derive(Clone, Debug)]
pub struct Api {
    hub: Hub,
    config: Config,
    access: Access,
    /// The bytes of the events that are being made and published.
    events_in_making: Budget,
    /// The bytes of the answers of `/stats` that are being made.
    stats_in_making: Budget,
    /// The lines of the log about requests that were refused.
    refusals: Arc<Sampled>,
}

impl Api {
    /// The endpoints of `hub`. Of `config`, `retry` shows in answers, as `Retry-After`, and
    /// [`overload`](Config::overload) and [`console`](Config::console) are for them. With
    /// [`Console::Auto`](crate::Console::Auto) there is no console, and without a token or
    /// [`open`](Config::open) nobody may publish: only a [`Server`](crate::Server) knows where it
    /// listens.
    ///
    /// # Errors
    ///
    /// The file of [`tokens`](crate::AccessConfig::tokens) cannot be used.
    pub fn new(hub: Hub, config: Config) -> io::Result<Api> {
        Api::at(hub, config, None)
    }

    /// The endpoints of a server that listens at `address`.
    pub(crate) fn at(hub: Hub, config: Config, address: Option<SocketAddr>) -> io::Result<Api> {
        #[cfg(feature = "console")]
        let config = console::decided(config, address);
        let access = Access::new(&config, address)?;
        Ok(Api {
            hub,
            access,
            events_in_making: Budget::new(config.most_event_bytes()),
            stats_in_making: Budget::new(2 * STATS_BYTES),
            config,
            refusals: Arc::new(Sampled::new(DENIALS_LOGGED)),
        })
    }

    /// The hub that these are the endpoints of.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Answers any request: of an endpoint with what it is for, of anything else with 404.
    /// Waits for no client; see [`Hub::publish`] for what publishing may wait for. A long poll waits
    /// as long as it asked for, up to a minute.
    pub fn answer(&self, request: Request) -> Response {
        let response = match self.endpoint(request.method(), request.path()) {
            Some(endpoint) => self
                .check(&endpoint, &request)
                .and_then(|topic| (endpoint.function)(self, &request, topic))
                .unwrap_or_else(|problem| self.explain(problem)),
            None => self.answer_none(&request),
        };
        self.share(&request, response)
    }

    /// Whether a built-in endpoint has a use for the body of this request. Anything else that has a body
    /// is answered by its head: what is not here, a wrong method, a GET.
    pub fn wants_body(&self, request: &Request) -> bool {
        request.method() == "POST" && self.endpoint("POST", request.path()).is_some()
    }

    /// Whether to read the body of a request to one of the built-in endpoints: a client that may not publish
    /// need not send it. [`answer`](Self::answer) asks again.
    ///
    /// # Errors
    ///
    /// The answer to a client that may not.
    pub fn admit(&self, request: &Request) -> Result<(), Response> {
        let Some(endpoint) = self.endpoint(request.method(), request.path()) else {
            return Ok(());
        };
        match self.check(&endpoint, request) {
            Ok(_) => Ok(()),
            Err(problem) => Err(self.share(request, self.explain(problem))),
        }
    }

    /// Asks for routes of your own what is asked for the built-in ones: whether this request may do
    /// that, and all of it. A client that a guard narrows to other topics may not. A token in the query is not
    /// looked at: it is for streams, and [`stream_of`](Self::stream_of) asks by itself.
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
    /// The answer to a client that may not: 401 or 403.
    pub fn permit(&self, request: &Request, action: &Action<'_>) -> Result<(), Response> {
        self.told(request, self.access.check(request, action))
            .map_err(|problem| self.share(request, self.explain(problem)))
    }

    /// Adds to an answer of your own what lets a page of another origin read it, as far as
    /// [`cors_origins`](crate::AccessConfig::cors_origins) allows it.
    pub fn share(&self, request: &Request, response: Response) -> Response {
        self.access.share(Some(request), response)
    }

    /// The answer to `OPTIONS` on a route of your own with these methods, as `Allow` lists them:
    /// `"GET, HEAD, POST, OPTIONS"`. It is also what a browser asks before a page of another origin
    /// may do more than a form could. The header fields that it asks for are allowed, whatever they are.
    /// The answer is the same for all pages, so that a page that is refused later can read why.
    pub fn preflight(&self, request: &Request, methods: &str) -> Response {
        self.share(request, routes::preflight(request, methods))
    }

    /// Answers what was no request, or one whose body is wrong, so that the page that sent it may
    /// read what was wrong.
    pub(crate) fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        let response = self.explain(Problem(refusal.into()));
        self.access.share(request, response)
    }

    /// Warns what a client without a token may do, if other machines can reach the server.
    pub(crate) fn warn_of_open_doors(&self) {
        self.access.warn(&self.config.report);
    }

    /// A stream of exactly these patterns, for routes of your own. All else is as in `GET /events`:
    /// the cursor, `client_id` and `heartbeat` come from the request, and one client too many, or
    /// a request that is wrong, is answered so.
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
        let response = response.unwrap_or_else(|problem| self.explain(problem));
        self.share(request, response)
    }

    /// Whether this server does its work, for what is in front of it to ask.
    fn health(&self, _: &Request, _: Option<Topic>) -> Answer {
        match self.hub.log_failure() {
            None => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            Some(why) => Err(Problem::new(503, format!("events are refused: {why}"))),
        }
    }

    /// Checks the parameters of a request to this endpoint, that it is allowed, and that its body is of a
    /// kind that can be published. Returns the topic that it publishes to.
    fn check(&self, endpoint: &Endpoint, request: &Request) -> Result<Option<Topic>, Problem> {
        parameters::check(endpoint.parameters, request)?;
        let mut topic = None;
        let action = match endpoint.right {
            Right::Nothing => return Ok(None),
            Right::Publish => {
                topic = publish::one_topic(request)?;
                Action::Publish(topic.as_ref())
            }
            Right::Client => Action::Client(name_in_path(request)),
            Right::Stats if request.query("clients") == Some("1") => Action::Clients,
            Right::Stats => Action::Stats,
        };
        self.told(request, self.access.check(request, &action))?;
        if request.method() == "POST" {
            publish::check_type(request)?;
        }
        Ok(topic)
    }

    /// Passes on whether a request was allowed, and logs it if not.
    fn told<T>(&self, request: &Request, outcome: Result<T, Problem>) -> Result<T, Problem> {
        if let Err(problem) = &outcome
            && let Some(suppressed) = self.refusals.next(Instant::now())
        {
            // The path, and not the query: a token may be in it.
            self.config.report.info(format_args!(
                "{}: {} to {} {:?}{suppressed}",
                request.remote_addr(),
                problem.0.status(),
                Quoted(request.method()),
                Quoted(request.path())
            ));
        }
        outcome
    }

    /// The answer to a request that is refused. A 503 says when to come back.
    fn explain(&self, Problem(response): Problem) -> Response {
        if response.status() != 503 || response.has_field("Retry-After") {
            return response;
        }
        response
            .with("Retry-After", self.config.retry_after())
            .with("Access-Control-Expose-Headers", "Retry-After")
    }
}

/// The topic in the path, and those in the query.
fn topics(request: &Request) -> impl Iterator<Item = &str> {
    let in_path = request.path().strip_prefix(TOPIC);
    in_path.into_iter().chain(request.queries("topic"))
}

/// The name of a client after `/clients/`.
fn name_in_path(request: &Request) -> &str {
    request.path().strip_prefix(CLIENT).unwrap_or_default()
}

/// A number that is equal for the requests of one client, as far as addresses can tell.
fn identity_by_address(request: &Request, random: &RandomState) -> u64 {
    match request.is_client_known() {
        // A client that has lost its connection comes back from the same address, or, if its addresses of
        // IPv6 are temporary, from the same /64.
        true => random.hash_one(Network::of_subscriber(request.client())),
        // Its proxy does not name it, so no other client counts as the same one.
        false => RandomState::new().hash_one(0),
    }
}

/// What an endpoint answers.
type Answer = Result<Response, Problem>;

/// The answer to a request that something is wrong with.
#[derive(Debug)]
struct Problem(Response);

impl Problem {
    fn new(status: u16, what: impl fmt::Display) -> Problem {
        Problem(Response::error(status, what))
    }

    /// A token is missing, or the one that is there is not known.
    ///
    /// SPEC: RFC 6750, 3: the challenge, with `invalid_token` if there was a token.
    fn unauthorized(what: String, is_missing: bool) -> Problem {
        let challenge = match is_missing {
            true => "Bearer realm=\"tiny-sse\"",
            false => "Bearer realm=\"tiny-sse\", error=\"invalid_token\"",
        };
        Problem(Response::error(401, what).with("WWW-Authenticate", challenge))
    }
}

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
