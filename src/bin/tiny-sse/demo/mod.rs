//! `tiny-sse demo`: six uses of an event stream, in front of the built-in endpoints.
//!
//! Each use is a file that needs nothing but the public face of the crate, to be read as a recipe
//! and copied. What they share is here and in two small files: `turns.rs`, a thread that publishes
//! now and then while somebody listens, and `body.rs`, what a request's JSON says. The threads end
//! when the hub is closed: join them behind the server's shutdown.
//!
//! # Shapes
//!
//! Every stream begins like `/events` does (`system`, after a cursor `recovery`), takes
//! `?client_id=` and a cursor (`Last-Event-ID`, `?last_event_id=ID` or `=earliest`), and is that
//! of one topic. `/events?topic=demo/*` has them all. `at` is ISO 8601, in UTC.
//!
//! ```text
//! GET  /api/notifications                 topic demo/notifications, a turn every 4 s
//!   event: alert          {"level":"info","text":"…","at":"…","simulated":true}
//!                         level: info, success, warning, error; simulated: false if it was posted
//!   event: badge          {"count":3}             behind each alert: how many there were so far
//! POST /api/notifications                 {"text":"…","level":"warning"}
//!                         text: a string of 1 to 500 characters; level: may be left out, info
//!   200                   {"status":"ok","id":"<of the alert>","recipients":1}
//!
//! GET  /api/feed/live                     topic demo/feed, a turn every 3 s
//!   event: post           {"number":1,"author":"…","text":"…","at":"…","simulated":true}
//!
//! GET  /api/metrics                       topic demo/metrics, a turn every 5 s
//!   event: metrics        {"at":"…","cpus":2,"load":[0.52,0.58,0.59],
//!                          "memory":{"total":8202727424,"available":5113163776},
//!                          "network":{"received":123456,"sent":654321,
//!                                     "received_per_second":1024,"sent_per_second":2048}}
//!                         load: of 1, 5 and 15 minutes; bytes; network: all interfaces but lo
//!   or                    {"at":"…","error":"/proc/loadavg cannot be read: entity not found"}
//!
//! POST /api/process?client_id=ME          the body is the file, of at most --max-body bytes
//!   200                   {"status":"ok","job":"0123456789abcdef"}       at once
//!   then, to the client ME alone, whatever its stream is (`/events?client_id=ME` will do); without
//!   client_id to the topic demo/process/{job}:
//!   event: progress       {"job":"…","bytes":65536,"total":1048576,"percent":6}
//!                         when the percentage has risen; the last one is 100
//!   event: complete       {"job":"…","sha256":"<64 hex digits>","bytes":1048576,"ms":12}
//!   400 client_id is none; 404 no client has it; 413 too large; 415 a form instead of a file;
//!   503 with Retry-After: 4 files wait already
//! GET  /api/process/{job}                 topic demo/process/{job}
//!                         with ?last_event_id=earliest nothing is missed between the two requests
//!
//! GET  /api/stocks/stream                 topic demo/stocks, a turn every 2 s: one event a symbol
//!   event: price_update   {"symbol":"TINY","price":101.37,"change":-0.12,"open":100.00,"at":"…","simulated":true}
//!                         change: since the event before; open: where the symbol began
//!
//! GET  /api/chat/room/{id}                topic demo/chat/{id}; ?last_event_id=earliest: what was said
//!   event: message        {"user":"…","text":"…","at":"…"}
//! POST /api/chat/room/{id}/messages       {"user":"…","text":"…"}
//!                         user: 1 to 40 characters, text: 1 to 2,000
//!   200                   {"status":"ok","id":"…","recipients":2}
//! ```
//!
//! Errors are `{"status":"error","error":"…"}`: 400 for what is wrong in a request, 401 and 403
//! for who may not, 405 with `Allow` for a method, 503 with `Retry-After` where the server closes or cannot keep the event.
//!
//! Streams with turns are silent while nobody listens. Opening one of their routes brings the next
//! turn forward, for all who listen: the first event is there within half a second. By `/events` it
//! comes with the next turn.

mod body;
mod chat;
mod feed;
mod monitoring;
mod notifications;
mod process;
mod sha256;
mod stocks;
mod turns;

use std::io;
use std::thread::{self, JoinHandle, Thread};
use std::time::SystemTime;

use tiny_sse::http::{Request, Response};
use tiny_sse::hub::PublishError;
use tiny_sse::wire::date::iso8601;
use tiny_sse::{Action, Api, Event, Hub, Pattern, Patterns, Published, Topic};

use chat::Chat;
use notifications::Notifications;
use process::Process;
use turns::Turns;

/// The threads of the uses.
pub(crate) type Threads = Vec<JoinHandle<()>>;

/// What to try, as it is printed at the start.
pub(crate) fn list(url: &str) -> String {
    format!(
        "  the six uses, all at once: curl -N '{url}/events?topic=demo/*'

  curl -N {url}/api/notifications
  curl -d '{{\"text\":\"hello\"}}' {url}/api/notifications
  curl -N {url}/api/feed/live
  curl -N {url}/api/metrics
  curl --data-binary @FILE {url}/api/process
  curl -N '{url}/api/process/JOB?last_event_id=earliest'
  curl -N {url}/api/stocks/stream
  curl -N {url}/api/chat/room/1
  curl -d '{{\"user\":\"me\",\"text\":\"hello\"}}' {url}/api/chat/room/1/messages

"
    )
}

/// The six. Dropped with the handler that owns them, they wake their threads to see the end.
pub(crate) struct Uses {
    notifications: Notifications,
    feed: Turns,
    monitoring: Turns,
    process: Process,
    stocks: Turns,
    chat: Chat,
}

impl Uses {
    /// Starts their threads.
    ///
    /// # Errors
    ///
    /// A thread cannot be had.
    pub(crate) fn start(hub: &Hub, threads: &mut Threads) -> io::Result<Uses> {
        Ok(Uses {
            notifications: Notifications::start(hub, threads)?,
            feed: feed::start(hub, threads)?,
            monitoring: monitoring::start(hub, threads)?,
            process: Process::start(hub, threads)?,
            stocks: stocks::start(hub, threads)?,
            chat: Chat::new(hub),
        })
    }

    /// Answers a request to one of the six, and leaves others to the built-in endpoints.
    pub(crate) fn answer(&self, request: Request, api: &Api) -> Response {
        let Some(route) = Route::of(request.path()) else {
            return api.answer(request);
        };
        match request.method() {
            "OPTIONS" => api.preflight(&request, route.methods()),
            method if !route.has_method(method) => {
                let refusal = refuse_method(method, route.methods());
                api.share(&request, refusal)
            }
            "POST" => self.take(&request, route, api),
            _ => self.stream(&request, route, api),
        }
    }

    /// Whether the body of a request is to be read: it is for one of the six, and it may be.
    pub(crate) fn wants_body(&self, request: &Request, api: &Api) -> bool {
        let route = Route::of(request.path()).filter(|route| route.has_method("POST"));
        request.method() == "POST" && route.is_some_and(|route| permit(request, route, api).is_ok())
    }

    /// Answers a request that publishes something, from whoever may.
    fn take(&self, request: &Request, route: Route<'_>, api: &Api) -> Response {
        let topic = match permit(request, route, api) {
            Ok(topic) => topic,
            Err(refusal) => return refusal,
        };
        let response = match route {
            Route::Notifications => self.notifications.send(request),
            Route::Messages(_) => self.chat.say(request, topic),
            _ => self.process.take(request),
        };
        api.share(request, response)
    }

    fn stream(&self, request: &Request, route: Route<'_>, api: &Api) -> Response {
        match route {
            Route::Notifications => self.notifications.stream(request, api),
            Route::Feed => self.feed.stream(request, api),
            Route::Metrics => self.monitoring.stream(request, api),
            Route::Stocks => self.stocks.stream(request, api),
            Route::Job(job) => stream_of_topic(request, api, &process::topic_of(job)),
            Route::Room(room) => stream_of_topic(request, api, &chat::topic_of(room)),
            Route::Upload | Route::Messages(_) => unreachable!("BUG: only to be posted to"),
        }
    }
}

/// The topic that a request publishes to, if it may.
fn permit(request: &Request, route: Route<'_>, api: &Api) -> Result<Topic, Response> {
    let topic = Topic::new(&route.published_to())
        .map_err(|error| api.share(request, Response::error(400, error)))?;
    // A request that names a client speaks to that client, and not to a topic.
    let action = match (route, request.query("client_id")) {
        (Route::Upload, Some(client_id)) => Action::Client(client_id),
        _ => Action::Publish(Some(&topic)),
    };
    api.permit(request, &action)?;
    Ok(topic)
}

/// Starts a thread of a use; answers what to wake it by.
fn start_thread(
    name: &str,
    run: Box<dyn FnOnce() + Send>,
    threads: &mut Threads,
) -> io::Result<Thread> {
    let handle = thread::Builder::new().name(name.into()).spawn(run)?;
    let thread = handle.thread().clone();
    threads.push(handle);
    Ok(thread)
}

/// Which use a path is of, with what it says.
#[derive(Clone, Copy)]
enum Route<'a> {
    Notifications,
    Feed,
    Metrics,
    Upload,
    Job(&'a str),
    Stocks,
    Room(&'a str),
    Messages(&'a str),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Route<'a>> {
        Some(match path.strip_prefix("/api/")? {
            "notifications" => Route::Notifications,
            "feed/live" => Route::Feed,
            "metrics" => Route::Metrics,
            "process" => Route::Upload,
            "stocks/stream" => Route::Stocks,
            other => match (
                other.strip_prefix("process/"),
                other.strip_prefix("chat/room/"),
            ) {
                (Some(job), _) if !job.is_empty() => Route::Job(job),
                (_, Some(room)) => Route::in_room(room)?,
                _ => return None,
            },
        })
    }

    /// `{id}`, or `{id}/messages`.
    fn in_room(rest: &'a str) -> Option<Route<'a>> {
        match rest.split_once('/') {
            None if !rest.is_empty() => Some(Route::Room(rest)),
            Some((room, "messages")) if !room.is_empty() => Some(Route::Messages(room)),
            _ => None,
        }
    }

    /// The methods, as `Allow` lists them.
    fn methods(self) -> &'static str {
        match self {
            Route::Notifications => "GET, HEAD, POST, OPTIONS",
            Route::Upload | Route::Messages(_) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// The topic that a `POST` publishes to; an upload's is of its job, which has no name yet.
    fn published_to(self) -> String {
        match self {
            Route::Messages(room) => chat::topic_of(room),
            Route::Upload => process::topic_of("new"),
            _ => notifications::TOPIC.into(),
        }
    }

    fn has_method(self, method: &str) -> bool {
        self.methods().split(", ").any(|own| own == method)
    }
}

fn refuse_method(method: &str, methods: &'static str) -> Response {
    let what = format!("{method} is not allowed here, only {methods}");
    Response::error(405, what).with("Allow", methods)
}

/// A stream of the topic with this name, if it can be one.
fn stream_of_topic(request: &Request, api: &Api, name: &str) -> Response {
    match Topic::new(name) {
        Ok(topic) => api.stream_of(request, only(&topic)),
        Err(error) => api.share(request, Response::error(400, error)),
    }
}

fn only(topic: &Topic) -> Patterns {
    [Pattern::Topic(topic.clone())].into_iter().collect()
}

/// A topic of our own.
fn topic(name: &str) -> Topic {
    Topic::new(name).expect("BUG: a topic of our own that is none")
}

/// An event with a name of our own.
fn event(name: &str, topic: &Topic, data: String) -> Event {
    let event = Event::new(data).with_topic(topic.clone());
    event
        .with_name(name)
        .expect("BUG: a name of our own with a line break")
}

/// What a publisher is answered.
fn answer(outcome: Result<Published, PublishError>) -> Response {
    match outcome {
        Ok(Published { id, recipients }) => Response::json(
            200,
            format!(r#"{{"status":"ok","id":"{id}","recipients":{recipients}}}"#),
        ),
        Err(error) => try_again_later(&error.to_string()),
    }
}

fn try_again_later(why: &str) -> Response {
    Response::error(503, why)
        .with("Retry-After", "5")
        .with("Access-Control-Expose-Headers", "Retry-After")
}

fn now() -> String {
    iso8601(SystemTime::now())
}

/// Hundredths, as the decimal fraction that they are: `-12` is `-0.12`.
fn hundredths(number: i64) -> String {
    let (sign, amount) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    format!("{sign}{}.{:02}", amount / 100, amount % 100)
}
