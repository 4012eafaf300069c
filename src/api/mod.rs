//! The endpoints: requests on one side, the hub on the other, and the errors in between.
//!
//! Each endpoint is a method in the file of its subject. What they have in common is here: which
//! path is which, which methods it has, and how something wrong is answered.

mod console;
mod metrics;
mod poll;
mod publish;
mod routes;
mod stats;
mod stream;

use std::fmt;

use crate::config::Config;
use crate::http::{Refusal, Request, Response};
use crate::hub::{Hub, InvalidClientId, PublishError, SendError, SubscribeError};
use crate::wire::json::JsonError;
use crate::wire::{FieldError, Patterns, TopicError};
use routes::Route;

/// The built-in endpoints over a hub. Cloning shares the hub.
#[derive(Clone, Debug)]
pub struct Api {
    hub: Hub,
    config: Config,
}

impl Api {
    /// The endpoints of `hub`. Of `config`, `retry` shows in answers, as `Retry-After`, and
    /// [`overload`](Config::overload) and [`console`](Config::console) are for them. With
    /// [`Console::Auto`](crate::Console::Auto) there is no console: only a [`Server`](crate::Server)
    /// knows where it listens.
    pub fn new(hub: Hub, config: Config) -> Api {
        Api { hub, config }
    }

    /// Answers any request: of an endpoint with what it is for, of anything else with 404.
    /// Waits for no client; see [`Hub::publish`] for what publishing may wait for. A long poll waits
    /// as long as it asked for, up to a minute.
    pub fn answer(&self, request: Request) -> Response {
        let response = match self.route(request.path()) {
            None => Problem::new(
                404,
                format!("{} is not here; GET / lists what is", request.path()),
            )
            .into(),
            Some(route) if request.method() == "OPTIONS" => route.options(),
            Some(route) if !route.has_method(request.method()) => {
                route.refuse_method(request.method())
            }
            Some(route) => self
                .dispatch(&route, &request)
                .unwrap_or_else(|problem| self.explain(problem)),
        };
        open_to_all(response)
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
        open_to_all(response.unwrap_or_else(|problem| self.explain(problem)))
    }

    fn route<'a>(&self, path: &'a str) -> Option<Route<'a>> {
        Route::of(path).or_else(|| self.asset(path).map(Route::Asset))
    }

    fn dispatch(&self, route: &Route, request: &Request) -> Result<Response, Problem> {
        match (request.method(), route) {
            ("POST", Route::Events(topic)) => self.publish(request, *topic),
            ("POST", Route::Broadcast) => self.broadcast(request),
            ("POST", Route::Send) => self.send(request),
            ("POST", Route::Client(client_id)) => self.send_to_client(request, client_id),
            ("DELETE", Route::Client(client_id)) => self.disconnect(client_id),
            (_, Route::Events(topic)) => self.stream(request, stream::patterns(request, *topic)?),
            (_, Route::Poll) => self.poll(request),
            (_, Route::Stats) => self.stats(request),
            (_, Route::Metrics) => Ok(self.metrics()),
            (_, Route::Health) => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            (_, Route::Asset(asset)) => Ok(asset.answer(request)),
            (_, _) => Ok(self.front(request)),
        }
    }

    /// An answer that says "later" says when.
    fn explain(&self, problem: Problem) -> Response {
        let later = problem.status == 503;
        let response = Response::from(problem);
        if later {
            response
                .with("Retry-After", self.config.retry_after())
                .with("Access-Control-Expose-Headers", "Retry-After")
        } else {
            response
        }
    }
}

/// A page of any origin may read it.
fn open_to_all(response: Response) -> Response {
    response.with("Access-Control-Allow-Origin", "*")
}

/// What was wrong with a request, and the code for it.
#[derive(Debug)]
struct Problem {
    status: u16,
    what: String,
}

impl Problem {
    fn new(status: u16, what: impl fmt::Display) -> Problem {
        Problem {
            status,
            what: what.to_string(),
        }
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Response {
        Response::error(problem.status, problem.what)
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
    PublishError => |error| if matches!(error, PublishError::IdTaken(_)) { 409 } else { 503 },
    SubscribeError => |_| 503,
    SendError => |error| if *error == SendError::NoSuchClient { 404 } else { 503 },
    Refusal => Refusal::status,
}
