//! The endpoints: requests on one side, the hub on the other, and the errors in between.
//!
//! Each endpoint is a method in the file of its subject. What they have in common is here: which
//! path is which, which methods it has, and how something wrong is answered.

mod access;
mod console;
mod metrics;
mod origin;
mod parameters;
mod poll;
mod publish;
mod routes;
mod stats;
mod stream;
mod tokens;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, DENIALS_TOLD, STATS_BYTES};
use crate::http::{Budget, Refusal, Request, Response};
use crate::hub::{Hub, InvalidClientId, PublishError, SendError, SubscribeError};
use crate::report::Sampled;
use crate::wire::json::JsonError;
use crate::wire::{FieldError, Patterns, Quoted, TopicError};
use access::{Access, Admission, Carrier};
pub use access::{Action, Verdict};
use routes::Route;

/// The built-in endpoints over a hub. Cloning shares the hub.
#[derive(Clone, Debug)]
pub struct Api {
    hub: Hub,
    config: Config,
    access: Access,
    in_making: Arc<InMaking>,
    /// The lines of the log about requests that were refused.
    refusals: Arc<Sampled>,
}

/// What requests may hold in memory together while they are worked on.
#[derive(Debug)]
struct InMaking {
    /// Events that are being made and published.
    events: Budget,
    /// Answers of `/stats` that are being made.
    stats: Budget,
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
    /// The file of [`tokens`](Config::tokens) cannot be used.
    pub fn new(hub: Hub, config: Config) -> io::Result<Api> {
        Api::at(hub, config, None)
    }

    /// The endpoints of a server that listens at `address`.
    pub(crate) fn at(hub: Hub, config: Config, address: Option<SocketAddr>) -> io::Result<Api> {
        let access = Access::new(&config, address)?;
        let in_making = InMaking {
            events: Budget::new(config.most_event_bytes()),
            stats: Budget::new(2 * STATS_BYTES),
        };
        Ok(Api {
            hub,
            config,
            access,
            in_making: Arc::new(in_making),
            refusals: Arc::new(Sampled::new(DENIALS_TOLD)),
        })
    }

    /// Asks `guard` before the tokens whenever something is to be done: see
    /// [`Server::guard`](crate::Server::guard).
    pub fn guard(
        self,
        guard: impl Fn(&Request, &Action<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Api {
        Api {
            access: self.access.guarded(Arc::new(guard)),
            ..self
        }
    }

    /// Answers any request: of an endpoint with what it is for, of anything else with 404.
    /// Waits for no client; see [`Hub::publish`] for what publishing may wait for. A long poll waits
    /// as long as it asked for, up to a minute.
    pub fn answer(&self, request: Request) -> Response {
        let response = match self.route(request.path()) {
            None => Problem::new(
                404,
                format!(
                    "{} is not here; GET / lists what is",
                    Quoted(request.path())
                ),
            )
            .into(),
            Some(route) if request.method() == "OPTIONS" => {
                routes::preflight(&request, route.methods())
            }
            Some(route) if !route.has_method(request.method()) => {
                route.refuse_method(request.method())
            }
            Some(route) => self
                .dispatch(&route, &request)
                .unwrap_or_else(|problem| self.explain(problem)),
        };
        self.share(&request, response)
    }

    /// Whether a built-in endpoint has a use for the body of this request. Anything else that has a body
    /// is answered by its head: what is not here, a wrong method, a GET.
    pub fn wants_body(&self, request: &Request) -> bool {
        let route = self.route(request.path());
        request.method() == "POST" && route.is_some_and(|route| route.has_method("POST"))
    }

    /// Whether to read the body of a request to one of the built-in endpoints: who may not publish
    /// need not send it. [`answer`](Self::answer) asks again.
    ///
    /// # Errors
    ///
    /// The answer of one who may not.
    pub fn admit(&self, request: &Request) -> Result<(), Response> {
        match self.route(request.path()) {
            Some(route) if route.has_method(request.method()) => self
                .check(&route, request)
                .map_err(|problem| self.share(request, self.explain(problem))),
            _ => Ok(()),
        }
    }

    /// Asks for routes of your own what is asked for the built-in ones: whether this request may do
    /// that, and all of it: whom the guard [narrows](Verdict::Narrow) to other topics may not. A token
    /// in the query is not looked at: that is for streams, and [`stream_of`](Self::stream_of) asks by
    /// itself.
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
    /// The answer of one who may not: 401 or 403.
    pub fn permit(&self, request: &Request, action: &Action<'_>) -> Result<(), Response> {
        let admission = self.ask(request, action, Carrier::Header);
        admission
            .and_then(|admission| admission.check(action))
            .map_err(|problem| self.share(request, self.explain(problem)))
    }

    /// Adds to an answer of your own what lets a page of another origin read it, as far as
    /// [`cors_origins`](Config::cors_origins) allows it.
    pub fn share(&self, request: &Request, response: Response) -> Response {
        self.access.share(Some(request), response)
    }

    /// The answer to `OPTIONS` on a route of your own with these methods, as `Allow` lists them:
    /// `"GET, HEAD, POST, OPTIONS"`. It is also what a browser asks before a page of another origin
    /// may do more than a form could. The header fields that it asks for are allowed, whatever they are.
    /// The answer is the same for all pages, so that a page that is refused later can read why.
    pub fn preflight(&self, request: &Request, methods: &'static str) -> Response {
        self.share(request, routes::preflight(request, methods))
    }

    /// Answers what was no request, or one whose body is wrong, so that the page that sent it may
    /// read what was wrong.
    pub(crate) fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        let response = match refusal.status() {
            503 => self.explain(Problem::new(503, refusal)),
            _ => refusal.into(),
        };
        self.access.share(request, response)
    }

    /// Reads the file of tokens again, and ends the streams of those who would not be let in any more.
    pub(crate) fn reload_tokens(&self) -> io::Result<()> {
        let tokens = self.access.reload()?;
        // ORDER: behind the change. Who subscribes by a token that was known before it is either in
        // by now, and seen here, or asks once more when it is.
        let ended = self
            .hub
            .recheck(|pass, patterns| self.access.is_valid(pass, patterns));
        self.release_names();
        self.config.report.info(format_args!(
            "tokens known: {tokens}; streams ended: {ended}"
        ));
        self.warn_of_open_doors();
        Ok(())
    }

    /// Lets any client take the names of clients whose token is gone but whose streams go on: no client
    /// can present that token any more.
    fn release_names(&self) {
        self.hub.release_names(|pass| self.access.is_known(pass));
    }

    /// Warns what a client without a token may do, if other machines can reach the server.
    pub(crate) fn warn_of_open_doors(&self) {
        self.access.warn_of_open_doors(&self.config.report);
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
        self.share(
            request,
            response.unwrap_or_else(|problem| self.explain(problem)),
        )
    }

    fn route<'a>(&self, path: &'a str) -> Option<Route<'a>> {
        Route::of(path).or_else(|| self.asset(path).map(Route::Asset))
    }

    fn dispatch(&self, route: &Route, request: &Request) -> Result<Response, Problem> {
        self.check(route, request)?;
        match (request.method(), route) {
            ("POST", Route::Events(topic)) => self.publish(request, *topic),
            ("POST", Route::Broadcast) => self.broadcast(request),
            ("POST", Route::Send) => self.send(request),
            ("POST", Route::Client(client_id)) => self.send_to_client(request, client_id),
            ("DELETE", Route::Client(client_id)) => self.disconnect(client_id),
            (_, Route::Events(topic)) => {
                let most = self.config.max_patterns;
                self.stream(request, stream::patterns(request, *topic, most)?)
            }
            (_, Route::Poll) => self.poll(request),
            (_, Route::Stats) => self.stats(request),
            (_, Route::Metrics) => Ok(self.metrics()),
            (_, Route::Health) => self.health(),
            (_, Route::Asset(asset)) => Ok(asset.answer(request)),
            (_, _) => Ok(self.front(request)),
        }
    }

    /// Whether this server does its work, for what is in front of it to ask.
    fn health(&self) -> Result<Response, Problem> {
        match self.hub.log_failure() {
            None => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            Some(why) => Err(Problem::new(503, format!("events are refused: {why}"))),
        }
    }

    /// Checks the parameters of a request to this route, that it is allowed, and that its body is of a
    /// kind that can be published. Streams and polls have topics to be narrowed, and ask by themselves.
    fn check(&self, route: &Route, request: &Request) -> Result<(), Problem> {
        parameters::check(route, request)?;
        let topic;
        let action = match (request.method(), route) {
            ("POST", Route::Events(path)) => {
                topic = publish::one_topic(request, *path)?;
                Action::Publish(topic.as_ref())
            }
            ("POST", Route::Broadcast | Route::Send) => {
                topic = publish::one_topic(request, None)?;
                Action::Publish(topic.as_ref())
            }
            ("POST" | "DELETE", Route::Client(client_id)) => Action::Client(client_id),
            (_, Route::Stats) if request.query("clients") == Some("1") => Action::Clients,
            (_, Route::Stats | Route::Metrics) => Action::Stats,
            _ => return Ok(()),
        };
        self.ask(request, &action, Carrier::Header)?;
        if request.method() == "POST" {
            publish::check_type(request)?;
        }
        Ok(())
    }

    fn ask(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
    ) -> Result<Admission, Problem> {
        let outcome = self.access.admit(request, action, carrier);
        if let Err(problem) = &outcome {
            // The path, and not the query: a token may be in it.
            let (status, sender) = (problem.status(), request.whereabouts());
            if let Some(untold) = self.refusals.next(Instant::now()) {
                self.config.report.info(format_args!(
                    "{sender}: {status} to {} {:?}{untold}",
                    Quoted(request.method()),
                    Quoted(request.path())
                ));
            }
        }
        outcome
    }

    fn is_valid(&self, pass: Option<u64>, patterns: &Patterns) -> bool {
        pass.is_none_or(|pass| self.access.is_valid(pass, patterns))
    }

    /// An answer that says "later" says when.
    fn explain(&self, problem: Problem) -> Response {
        match problem {
            Problem::Wrong(503, what) => Response::later(&self.config, what)
                .with("Access-Control-Expose-Headers", "Retry-After"),
            problem => problem.into(),
        }
    }
}

/// What was wrong with a request.
#[derive(Debug)]
enum Problem {
    /// This, and the code for it.
    Wrong(u16, String),
    /// It has its answer already.
    Answered(Response),
}

impl Problem {
    fn new(status: u16, what: impl fmt::Display) -> Problem {
        Problem::Wrong(status, what.to_string())
    }

    fn status(&self) -> u16 {
        match self {
            Problem::Wrong(status, _) => *status,
            Problem::Answered(response) => response.status(),
        }
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Response {
        match problem {
            Problem::Wrong(status, what) => Response::error(status, what),
            Problem::Answered(response) => response,
        }
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
    JsonError => |_| 400,
    InvalidClientId => |_| 400,
    PublishError => |error| if matches!(error, PublishError::IdTaken { .. }) { 409 } else { 503 },
    SubscribeError => |error| if *error == SubscribeError::NameTaken { 403 } else { 503 },
    SendError => |error| if *error == SendError::NoSuchClient { 404 } else { 503 },
    Refusal => Refusal::status,
}
