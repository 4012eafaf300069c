//! The progress of a long job: a client uploads a file, gets the answer at once, and
//! receives events while another thread hashes the file: `progress` several times, and
//! `complete` with the result.
//!
//! There are two ways to receive the events:
//!
//! - With `client_id` in the upload, they are sent only to that client, on its stream.
//!   Events to one client are not in the history, so a client that is disconnected in the
//!   meantime misses some.
//! - Without `client_id`, they are published to the topic of the job. The answer to the
//!   upload has the job's name. A client that then opens the stream of the job with
//!   `?last_event_id=earliest` misses none.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tiny_sse::http::{Request, Response};
use tiny_sse::hub::{ClientId, Closed, PublishError, SendError};
use tiny_sse::wire::sha256::{Sha256, hex};
use tiny_sse::{Hub, Topic};

use super::{Uses, event, topic, try_again_later};

/// LIMIT: the number of files that wait. One more is being hashed, so at most five times
/// `--max-body` bytes are in memory.
const WAITING: usize = 4;

/// Bytes that are hashed before the percentage is computed again.
const CHUNK: usize = 64 * 1024;

/// The queue of files to hash, between the threads that answer uploads and the thread
/// that hashes.
pub(super) struct Process {
    /// The hub that the events are published to.
    hub: Hub,
    /// LOCK: guards the queue. It is held to add or remove a job, never while a file is
    /// hashed.
    waiting: Mutex<VecDeque<Job>>,
}

/// One file to hash.
struct Job {
    /// The last part of the job's topic: 16 hexadecimal digits.
    name: String,
    file: Vec<u8>,
    /// The client that gets the events. `None`: they are published to the topic of the
    /// job.
    client: Option<ClientId>,
}

/// Returns the name of a job's topic.
pub(super) fn topic_of(job: &str) -> String {
    format!("demo/process/{job}")
}

/// Answers an upload: puts the body into the queue and returns without waiting for the
/// hash.
pub(super) fn take(uses: &Uses, request: &Request, _: Topic) -> Response {
    let client = match client(&uses.hub, request) {
        Ok(client) => client,
        Err(response) => return response,
    };
    // A name that is hard to guess, from the only source of randomness in std. (A client
    // that subscribes to `demo/*` gets the events of all jobs anyway.)
    let name = format!("{:016x}", RandomState::new().hash_one(0));
    let answer = format!(r#"{{"status":"ok","job":"{name}"}}"#);
    let file = request.body().to_vec();
    let mut waiting = uses.process.waiting();
    if waiting.len() == WAITING {
        let what = format!("{WAITING} files are waiting to be processed already");
        return try_again_later(&what);
    }
    waiting.push_back(Job { name, file, client });
    uses.worker.unpark();
    Response::json(200, answer)
}

/// Returns the client that gets the events, if the request has a `client_id`. The error
/// is the answer.
fn client(hub: &Hub, request: &Request) -> Result<Option<ClientId>, Response> {
    // `<form>` and `curl -F` send the file inside a multipart body, whose other bytes
    // would be hashed too.
    let media_type = request.field("content-type").ok().flatten();
    let media_type = media_type.unwrap_or_default().to_ascii_lowercase();
    if media_type.starts_with("multipart/form-data") {
        let what = "the body is a form, it must be the file itself (curl --data-binary @FILE)";
        return Err(Response::error(415, what));
    }
    let Some(id) = request.query("client_id") else {
        return Ok(None);
    };
    let id: ClientId = id.parse().map_err(|error| Response::error(400, error))?;
    if hub.has_client(id.as_str()) {
        return Ok(Some(id));
    }
    let id = id.as_str();
    let what = format!("no client has the id {id:?}: open a stream with it first");
    Err(Response::error(404, what))
}

impl Process {
    pub(super) fn new(hub: &Hub) -> Process {
        Process {
            hub: hub.clone(),
            waiting: Mutex::default(),
        }
    }

    /// Runs the thread that hashes files, until the hub is closed. It is parked while no
    /// file waits.
    pub(super) fn work(&self) {
        while !self.hub.is_closed() {
            let next = self.waiting().pop_front();
            match next {
                // A job fails only if the hub is closed, which also ends the loop.
                Some(job) => drop(job.run(&self.hub)),
                None => thread::park(),
            }
        }
    }

    /// Locks the queue. Poisoning is ignored, because a push or a pop leaves the queue
    /// valid even if the thread panics afterwards.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Hashes the file and publishes its events. There is a `progress` after each chunk
    /// that has raised the percentage, so a small file has fewer than 100 of them.
    fn run(&self, hub: &Hub) -> Result<(), Closed> {
        let (start, total) = (Instant::now(), self.file.len());
        let (mut hash, mut bytes, mut published) = (Sha256::new(), 0, None);
        let mut chunks = self.file.chunks(CHUNK);
        while published != Some(100) {
            let chunk = chunks.next().unwrap_or_default();
            hash.update(chunk);
            bytes += chunk.len();
            let percent = (bytes as u64 * 100)
                .checked_div(total as u64)
                .unwrap_or(100);
            if published.replace(percent) != Some(percent) {
                let numbers = format!(r#""bytes":{bytes},"total":{total},"percent":{percent}"#);
                self.publish(hub, "progress", &numbers)?;
            }
        }
        let (sha256, ms) = (hex(&hash.finish()), start.elapsed().as_millis());
        let result = format!(r#""sha256":"{sha256}","bytes":{bytes},"ms":{ms}"#);
        self.publish(hub, "complete", &result)
    }

    /// Publishes one event of the job. It fails only if the hub is closed. Other errors
    /// are ignored: a client that is disconnected may reconnect, and an event that the
    /// log could not store is followed by a newer one.
    fn publish(&self, hub: &Hub, name: &str, members: &str) -> Result<(), Closed> {
        let topic = topic(&topic_of(&self.name));
        let data = format!(r#"{{"job":"{}",{members}}}"#, self.name);
        let event = event(name, &topic, data);
        let is_closed = match &self.client {
            Some(client) => hub.send_to(client.as_str(), &event) == Err(SendError::Closed),
            None => hub.publish(event) == Err(PublishError::Closed),
        };
        if is_closed { Err(Closed) } else { Ok(()) }
    }
}
