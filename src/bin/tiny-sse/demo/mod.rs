//! `tiny-sse demo`: six example uses of an event stream, beside the built-in endpoints.
//!
//! Each use is one file, to be read and copied. It needs only the public API of the
//! crate. What the uses share is here and in two small files: `turns.rs` is a thread that
//! publishes at intervals while a client listens, and `body.rs` reads the JSON of a
//! request. A request goes from [`Uses::answer`] to the use, or else to the built-in
//! endpoints.
//!
//! # Endpoints
//!
//! Every stream begins as `/events` does: with a `system` event, and a `recovery` event
//! if the request has a cursor. It accepts `?client_id=` and a cursor (`Last-Event-ID`,
//! `?last_event_id=ID` or `=earliest`), and has the events of one topic.
//! `/events?topic=demo/*` has the events of all uses. `at` is the time of the event in
//! ISO 8601, in UTC. A *turn* is one round of events that the server makes up or
//! measures.
//!
//! ```text
//! GET  /api/notifications                 topic demo/notifications, a turn every 4 s
//!   event: alert          {"level":"info","text":"…","at":"…","simulated":true}
//!                         level: info, success, warning or error; simulated: false if a client posted it
//!   event: badge          {"count":3}             after each alert: the number of alerts so far
//! POST /api/notifications                 {"text":"…","level":"warning"}
//!                         text: 1 to 500 characters; level: optional, info by default
//!   200                   {"status":"ok","id":"<id of the alert>","recipients":1}
//!
//! GET  /api/feed/live                     topic demo/feed, a turn every 3 s
//!   event: post           {"number":1,"author":"…","text":"…","at":"…","simulated":true}
//!
//! GET  /api/metrics                       topic demo/metrics, a turn every 5 s
//!   event: metrics        {"at":"…","cpus":2,"load":[0.52,0.58,0.59],
//!                          "memory":{"total":8202727424,"available":5113163776},
//!                          "network":{"received":123456,"sent":654321,
//!                                     "received_per_second":1024,"sent_per_second":2048}}
//!                         load: of 1, 5 and 15 minutes; memory and network in bytes; network: all
//!                         interfaces apart from lo
//!   or, if it fails       {"at":"…","error":"/proc/loadavg cannot be read: entity not found"}
//!
//! POST /api/process?client_id=ME          the body is the file, of at most --max-body bytes
//!   200                   {"status":"ok","job":"0123456789abcdef"}       before the file is processed
//!   The events below are sent only to the client ME, on any stream that it has, such as
//!   /events?client_id=ME. Without client_id they are published to the topic demo/process/{job}.
//!   event: progress       {"job":"…","bytes":65536,"total":1048576,"percent":6}
//!                         whenever the percentage has risen; the last one has 100
//!   event: complete       {"job":"…","sha256":"<64 hex digits>","bytes":1048576,"ms":12}
//!   400 client_id is invalid; 404 no client has this id; 413 the file is too large;
//!   415 a form instead of a file; 503 with Retry-After: 4 files are waiting already
//! GET  /api/process/{job}                 topic demo/process/{job}
//!                         with ?last_event_id=earliest no event between the two requests is missed
//!
//! GET  /api/stocks/stream                 topic demo/stocks, a turn every 2 s: one event a symbol
//!   event: price_update   {"symbol":"TINY","price":101.37,"change":-0.12,"open":100.00,"at":"…","simulated":true}
//!                         change: since the previous event; open: the first price of the symbol
//!
//! GET  /api/chat/room/{id}                topic demo/chat/{id}; ?last_event_id=earliest: all messages
//!                         that the history still has
//!   event: message        {"user":"…","text":"…","at":"…"}
//! POST /api/chat/room/{id}/messages       {"user":"…","text":"…"}
//!                         user: 1 to 40 characters; text: 1 to 2,000 characters
//!   200                   {"status":"ok","id":"…","recipients":2}
//! ```
//!
//! The body of an error is `{"status":"error","error":"…"}`. The status is 400 for an
//! invalid request, 401 or 403 for a client without the right, 405 with `Allow` for
//! another method, and 503 with `Retry-After` if the server is closing or cannot store
//! the event.
//!
//! Each use publishes its next event after a fixed time, but not while its topic has no
//! client. When a client opens the stream of a use, the next event is published at once,
//! for all clients of the topic, so it arrives within half a second. A client of
//! `/events` gets its first event at the next regular time.

mod body;
mod chat;
mod feed;
mod monitoring;
mod notifications;
mod process;
mod stocks;
mod turns;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::SystemTime;

use tiny_sse::http::{Request, Response};
use tiny_sse::hub::PublishError;
use tiny_sse::wire::date::iso8601;
use tiny_sse::{Action, Api, Event, Hub, Pattern, Published, Running, Server, Topic};

use notifications::Alerts;
use process::Process;

/// Returns the commands to try, for the startup message.
pub(crate) fn list(url: &str) -> String {
    format!(
        "  all six example uses at once: curl -N '{url}/events?topic=demo/*'

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

/// Starts the server with the six uses and the built-in endpoints. Returns the server and
/// the threads of the uses. The threads end when the hub is closed; the caller must
/// unpark and join them after the shutdown of the server.
///
/// # Errors
///
/// A thread cannot be started. Threads that have started already end with the process.
pub(crate) fn spawn(server: Server) -> io::Result<(Running, Vec<JoinHandle<()>>)> {
    let (uses, threads) = Uses::start(server.hub())?;
    let uses = Arc::new(uses);
    let uses_for_bodies = Arc::clone(&uses);
    let running = server
        .wants_body(move |request, api| uses_for_bodies.wants_body(request, api))
        .spawn_with(move |request, api| uses.answer(request, api))?;
    Ok((running, threads))
}

/// The six uses. The threads that serve connections share one value of this type.
struct Uses {
    /// The hub of the server, to publish to.
    hub: Hub,
    /// The number of alerts so far; shared with the thread of the simulated alerts.
    alerts: Alerts,
    /// The files that wait to be hashed; shared with `worker`.
    process: Arc<Process>,
    /// The thread that hashes files. It is parked while no file waits.
    worker: Thread,
    /// The topics with turns, each with the thread that publishes to it. An unpark brings
    /// the next turn forward.
    turns: Vec<(Topic, Thread)>,
}

impl Uses {
    /// Starts five threads: one that hashes files, and one for each topic with turns.
    /// Returns the uses and the threads.
    fn start(hub: &Hub) -> io::Result<(Uses, Vec<JoinHandle<()>>)> {
        let mut threads = Vec::new();
        let mut start = |name: &str, run: Box<dyn FnOnce() + Send>| -> io::Result<Thread> {
            let handle = thread::Builder::new().name(name.into()).spawn(run)?;
            let thread = handle.thread().clone();
            threads.push(handle);
            Ok(thread)
        };
        let (alerts, process) = (Alerts::default(), Arc::new(Process::new(hub)));
        let working = Arc::clone(&process);
        let worker = start("process", Box::new(move || working.work()))?;
        let mut turns = Vec::new();
        for turn in [
            notifications::turns(alerts.clone()),
            feed::turns(),
            monitoring::turns(),
            stocks::turns(),
        ] {
            let (topic, hub) = (turn.topic.clone(), hub.clone());
            let thread = start(topic.as_str(), Box::new(move || turn.run(&hub)))?;
            turns.push((topic, thread));
        }
        let uses = Uses {
            hub: hub.clone(),
            alerts,
            process,
            worker,
            turns,
        };
        Ok((uses, threads))
    }

    /// Answers a request to one of the uses, and passes any other request to the built-in
    /// endpoints.
    fn answer(&self, request: Request, api: &Api) -> Response {
        let Some(route) = DemoRoute::of(&request) else {
            let is_script = request.path() == TABS_SCRIPT;
            let response = api.answer(request);
            return if is_script {
                with_tabs(response)
            } else {
                response
            };
        };
        match (request.method(), route.post) {
            ("OPTIONS", _) => api.preflight(&request, route.methods()),
            ("POST", Some(post)) => match route.permit(&request, api) {
                Ok(topic) => api.share(&request, post(self, &request, topic)),
                Err(refusal) => refusal,
            },
            ("GET" | "HEAD", _) if route.is_stream => match Topic::new(&route.topic) {
                Ok(topic) => self.stream(&request, topic, api),
                Err(error) => api.share(&request, Response::error(400, error)),
            },
            (method, _) => {
                let methods = route.methods();
                let what = format!("{method} is not allowed here, only {methods}");
                let refusal = Response::error(405, what).with("Allow", methods);
                api.share(&request, refusal)
            }
        }
    }

    /// Whether the server should read the body of a request: the request publishes to one
    /// of the uses, and its sender has the right to. Otherwise the body is not held in
    /// memory.
    fn wants_body(&self, request: &Request, api: &Api) -> bool {
        let route = DemoRoute::of(request).filter(|route| route.post.is_some());
        request.method() == "POST" && route.is_some_and(|route| route.permit(request, api).is_ok())
    }

    /// Answers with a stream of the topic. If the topic has turns, the next turn takes
    /// place at once.
    fn stream(&self, request: &Request, topic: Topic, api: &Api) -> Response {
        let patterns = [Pattern::Topic(topic.clone())].into_iter().collect();
        // ORDER: the client is registered before the unpark. Otherwise the thread might
        // find that no client listens, and skip the turn.
        let response = api.stream_of(request, patterns);
        for (_, thread) in self.turns.iter().filter(|(own, _)| *own == topic) {
            thread.unpark();
        }
        response
    }
}

/// The path of the script that decides which tabs the console shows. The library's own
/// script shows no tab of a use.
const TABS_SCRIPT: &str = "/demo.js";

/// Turns the library's answer for [`TABS_SCRIPT`] into a script that shows the tabs of
/// the six uses. Without a console there is no such script, and the 404 stays as it is;
/// so do the answers to other methods.
fn with_tabs(response: Response) -> Response {
    // 304: the browser still has the library's script, from `tiny-sse serve` at the same
    // address.
    if !matches!(response.status(), 200 | 304) {
        return response;
    }
    let script = "document.documentElement.classList.add('demo');\n";
    Response::new(200)
        .with_body("text/javascript; charset=utf-8", script)
        .with("Cache-Control", "no-store")
        .with("X-Content-Type-Options", "nosniff")
}

/// Answers a request to publish to a topic.
type Post = fn(&Uses, &Request, Topic) -> Response;

/// The path of an upload.
const UPLOAD: &str = "/api/process";

/// What a path of the uses is for.
struct DemoRoute {
    /// The name of the topic that is streamed, or that a POST publishes to. Part of it
    /// may be from the path, so it need not be a valid topic.
    topic: String,
    /// Whether GET answers with a stream of the topic.
    is_stream: bool,
    /// The function that answers a POST; `None` if POST is not allowed.
    post: Option<Post>,
}

impl DemoRoute {
    /// Returns the route of a request's path; `None` for a path of the built-in
    /// endpoints.
    fn of(request: &Request) -> Option<DemoRoute> {
        let stream = |topic: String| (topic, true, None);
        let (topic, is_stream, post): (String, bool, Option<Post>) = match request.segments()[..] {
            ["api", "notifications"] => {
                (notifications::TOPIC.into(), true, Some(notifications::send))
            }
            ["api", "feed", "live"] => stream(feed::TOPIC.into()),
            ["api", "metrics"] => stream(monitoring::TOPIC.into()),
            ["api", "stocks", "stream"] => stream(stocks::TOPIC.into()),
            // `new` is only for the check of rights: the job gets its name later.
            ["api", "process"] => (process::topic_of("new"), false, Some(process::take)),
            ["api", "process", job] if !job.is_empty() => stream(process::topic_of(job)),
            ["api", "chat", "room", room] if !room.is_empty() => stream(chat::topic_of(room)),
            ["api", "chat", "room", room, "messages"] if !room.is_empty() => {
                (chat::topic_of(room), false, Some(chat::send_message))
            }
            _ => return None,
        };
        Some(DemoRoute {
            topic,
            is_stream,
            post,
        })
    }

    /// Returns the value of `Allow`.
    fn methods(&self) -> &'static str {
        match (self.is_stream, self.post) {
            (true, Some(_)) => "GET, HEAD, POST, OPTIONS",
            (true, None) => "GET, HEAD, OPTIONS",
            (false, _) => "POST, OPTIONS",
        }
    }

    /// Returns the topic that a request publishes to, if its sender has the right to
    /// publish there. The error is the answer.
    fn permit(&self, request: &Request, api: &Api) -> Result<Topic, Response> {
        let topic = Topic::new(&self.topic)
            .map_err(|error| api.share(request, Response::error(400, error)))?;
        // The events of an upload with a client id go to that client and not to a topic.
        let action = match request.query("client_id") {
            Some(client_id) if request.path() == UPLOAD => Action::Client(client_id),
            _ => Action::Publish(Some(&topic)),
        };
        api.permit(request, &action)?;
        Ok(topic)
    }
}

/// Returns a topic whose name is written in this crate.
fn topic(name: &str) -> Topic {
    Topic::new(name).expect("BUG: an invalid topic in the source")
}

/// Returns an event whose name is written in this crate.
fn event(name: &str, topic: &Topic, data: String) -> Event {
    let event = Event::new(data).with_topic(topic.clone());
    event
        .with_name(name)
        .expect("BUG: an invalid event name in the source")
}

/// Returns the answer to a publisher.
fn answer(outcome: Result<Published, PublishError>) -> Response {
    match outcome {
        Ok(Published { id, recipients, .. }) => {
            let answer = format!(r#"{{"status":"ok","id":"{id}","recipients":{recipients}}}"#);
            Response::json(200, answer)
        }
        Err(error) => try_again_later(&error.to_string()),
    }
}

/// Returns a 503 that asks the client to try again in 5 seconds. Pages of other origins
/// may read that number.
fn try_again_later(why: &str) -> Response {
    Response::error(503, why)
        .with("Retry-After", "5")
        .with("Access-Control-Expose-Headers", "Retry-After")
}

/// Returns the current time, such as `2026-11-22T05:40:00.123Z`.
fn now() -> String {
    iso8601(SystemTime::now())
}
