//! `tiny-sse demo`: six uses of an event stream, in front of the built-in endpoints.
//!
//! Each use is a file that needs nothing but the public API of the crate, to be read as a recipe and copied.
//! What they share is here and in two small files: `turns.rs`, a thread that publishes in turns while a
//! client listens, and `body.rs`, which reads a request's JSON. The threads end when the hub is closed: unpark
//! and join them after the server's shutdown.
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
//!   event: badge          {"count":3}             after each alert: how many there were so far
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
//! for a client that may not, 405 with `Allow` for a method, 503 with `Retry-After` where the server closes or
//! cannot keep the event.
//!
//! Streams with turns are silent while no client listens. A client that opens one of their routes brings the
//! next turn forward, for all clients: its first event is there within half a second. By `/events` it
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
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::SystemTime;

use tiny_sse::http::{Request, Response};
use tiny_sse::hub::PublishError;
use tiny_sse::wire::date::iso8601;
use tiny_sse::{Action, Api, Event, Hub, Pattern, Published, Running, Server, Topic};

use notifications::Alerts;
use process::Process;

/// The commands to try, as they are printed at the start.
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

/// Serves the six uses and the built-in endpoints. Returns the threads of the uses.
///
/// # Errors
///
/// A thread cannot be started.
pub(crate) fn spawn(server: Server) -> io::Result<(Running, Vec<JoinHandle<()>>)> {
    let (uses, threads) = Uses::start(server.hub())?;
    let uses = Arc::new(uses);
    let wanted = Arc::clone(&uses);
    let running = server
        .wants_body(move |request, api| wanted.wants_body(request, api))
        .spawn_with(move |request, api| uses.answer(request, api))?;
    Ok((running, threads))
}

/// The six.
struct Uses {
    hub: Hub,
    alerts: Alerts,
    process: Arc<Process>,
    /// The thread that works on files.
    worker: Thread,
    /// The topics that are published to in turns, each with its thread.
    turns: Vec<(Topic, Thread)>,
}

impl Uses {
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
            let thread = start(topic.as_str(), Box::new(move || turn.take(&hub)))?;
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

    /// Answers a request to one of the six, and leaves others to the built-in endpoints.
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

    /// Whether the server reads the body of a request: the request is for one of the six uses, and the client may send it.
    fn wants_body(&self, request: &Request, api: &Api) -> bool {
        let route = DemoRoute::of(request).filter(|route| route.post.is_some());
        request.method() == "POST" && route.is_some_and(|route| route.permit(request, api).is_ok())
    }

    /// A stream of the topic. If the topic has turns, the first event does not wait for the next turn.
    fn stream(&self, request: &Request, topic: Topic, api: &Api) -> Response {
        let patterns = [Pattern::Topic(topic.clone())].into_iter().collect();
        // ORDER: registered first, or the thread may find that no client listens.
        let response = api.stream_of(request, patterns);
        for (_, thread) in self.turns.iter().filter(|(own, _)| *own == topic) {
            thread.unpark();
        }
        response
    }
}

/// The path of the script that decides which tabs the console shows. The library's own script shows no tab of a use.
const TABS_SCRIPT: &str = "/demo.js";

/// Turns the library's answer for [`TABS_SCRIPT`] into a script that shows the tabs of the six uses. Without a console
/// there is no such script, and the 404 stays as it is; so do the answers to other methods.
fn with_tabs(response: Response) -> Response {
    // 304: the browser still has the library's script, from `tiny-sse serve` at the same address.
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

/// What can be done at a path.
struct DemoRoute {
    /// The name of the topic of the stream, or of what is posted.
    topic: String,
    is_stream: bool,
    post: Option<Post>,
}

impl DemoRoute {
    fn of(request: &Request) -> Option<DemoRoute> {
        let stream = |topic: String| (topic, true, None);
        let (topic, is_stream, post): (String, bool, Option<Post>) = match request.segments()[..] {
            ["api", "notifications"] => {
                (notifications::TOPIC.into(), true, Some(notifications::send))
            }
            ["api", "feed", "live"] => stream(feed::TOPIC.into()),
            ["api", "metrics"] => stream(monitoring::TOPIC.into()),
            ["api", "stocks", "stream"] => stream(stocks::TOPIC.into()),
            // The job has no name yet.
            ["api", "process"] => (process::topic_of("new"), false, Some(process::take)),
            ["api", "process", job] if !job.is_empty() => stream(process::topic_of(job)),
            ["api", "chat", "room", room] if !room.is_empty() => stream(chat::topic_of(room)),
            ["api", "chat", "room", room, "messages"] if !room.is_empty() => {
                (chat::topic_of(room), false, Some(chat::say))
            }
            _ => return None,
        };
        Some(DemoRoute {
            topic,
            is_stream,
            post,
        })
    }

    /// The methods, as `Allow` lists them.
    fn methods(&self) -> &'static str {
        match (self.is_stream, self.post) {
            (true, Some(_)) => "GET, HEAD, POST, OPTIONS",
            (true, None) => "GET, HEAD, OPTIONS",
            (false, _) => "POST, OPTIONS",
        }
    }

    /// The topic that a request publishes to, if the client may.
    fn permit(&self, request: &Request, api: &Api) -> Result<Topic, Response> {
        let topic = Topic::new(&self.topic)
            .map_err(|error| api.share(request, Response::error(400, error)))?;
        // An upload that names a client is reported to that client, and not to a topic.
        let action = match request.query("client_id") {
            Some(client_id) if request.path() == UPLOAD => Action::Client(client_id),
            _ => Action::Publish(Some(&topic)),
        };
        api.permit(request, &action)?;
        Ok(topic)
    }
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

/// The answer to a publisher.
fn answer(outcome: Result<Published, PublishError>) -> Response {
    match outcome {
        Ok(Published { id, recipients, .. }) => {
            let answer = format!(r#"{{"status":"ok","id":"{id}","recipients":{recipients}}}"#);
            Response::json(200, answer)
        }
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
