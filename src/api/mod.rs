//! The endpoints: requests on one side, the hub on the other, and the errors in between.
//!
//! Each endpoint is a method in the file of its subject. What they have in common is here: which
//! path is which, which methods it has, and how something wrong is answered.

mod metrics;
mod publish;
mod routes;
mod stats;
mod stream;

use std::fmt;

use crate::config::Config;
use crate::http::{Refusal, Request, Response};
use crate::hub::{Hub, InvalidClientId, PublishError, SendError, SubscribeError};
use crate::wire::json::JsonError;
use crate::wire::{FieldError, TopicError};
use routes::Route;

/// The built-in endpoints over a hub. Cloning shares the hub.
#[derive(Clone, Debug)]
pub struct Api {
    hub: Hub,
    config: Config,
}

impl Api {
    /// The endpoints of `hub`. Of `config`, `retry` shows in answers, as `Retry-After`.
    pub fn new(hub: Hub, config: Config) -> Api {
        Api { hub, config }
    }

    /// Answers any request: of an endpoint with what it is for, of anything else with 404.
    /// Waits for no client; see [`Hub::publish`] for what publishing may wait for.
    pub fn answer(&self, request: Request) -> Response {
        let response = match Route::of(request.path()) {
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
        response.with("Access-Control-Allow-Origin", "*")
    }

    fn dispatch(&self, route: &Route, request: &Request) -> Result<Response, Problem> {
        match (request.method(), route) {
            ("POST", Route::Events(topic)) => self.publish(request, *topic),
            ("POST", Route::Broadcast) => self.broadcast(request),
            ("POST", Route::Send) => self.send(request),
            ("POST", Route::Client(client_id)) => self.send_to_client(request, client_id),
            ("DELETE", Route::Client(client_id)) => self.disconnect(client_id),
            (_, Route::Events(topic)) => self.stream(request, *topic),
            (_, Route::Stats) => self.stats(request),
            (_, Route::Metrics) => Ok(self.metrics()),
            (_, Route::Health) => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            (_, _) => Ok(routes::index(request)),
        }
    }

    /// An answer that says "later" says when.
    fn explain(&self, problem: Problem) -> Response {
        let later = problem.status == 503;
        let response = Response::from(problem);
        if later {
            response.with("Retry-After", self.config.retry_after())
        } else {
            response
        }
    }
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
