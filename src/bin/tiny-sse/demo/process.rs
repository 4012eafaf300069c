//! The progress of a long job: a file is uploaded, answered at once, and hashed on a thread of its
//! own, whose `progress` and `complete` go to the client that asked and to no other.
//!
//! A client that says its `client_id` gets them on its stream. An event for one client is not kept, so a client
//! that is cut off meanwhile misses some. To miss none, a client leaves the id out, and reads the topic of the job,
//! from the beginning, after the answer has named it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tiny_sse::http::{Request, Response};
use tiny_sse::hub::{ClientId, Closed, PublishError, SendError};
use tiny_sse::{Hub, Topic};

use super::sha256::Sha256;
use super::{Uses, event, topic, try_again_later};

/// LIMIT: one file is hashed at a time, and so many wait; with `--max-body` this bounds the memory.
const WAITING: usize = 4;

/// Bytes that are hashed between two looks at the percentage.
const CHUNK: usize = 64 * 1024;

/// The files that wait, and the hub that is told of them.
pub(super) struct Process {
    hub: Hub,
    /// LOCK: held to put a job in or take one out, never while a file is hashed.
    waiting: Mutex<VecDeque<Job>>,
}

struct Job {
    name: String,
    file: Vec<u8>,
    /// The client that is told; `None` tells the topic of the job.
    client: Option<ClientId>,
}

/// The name of the topic of a job.
pub(super) fn topic_of(job: &str) -> String {
    format!("demo/process/{job}")
}

/// Takes the body as a file to be hashed, and does not wait for that.
pub(super) fn take(uses: &Uses, request: &Request, _: Topic) -> Response {
    let client = match client(&uses.hub, request) {
        Ok(client) => client,
        Err(response) => return response,
    };
    // Hard to guess, by std's only randomness. (A client that listens to all of `demo/*` need not guess.)
    let name = format!("{:016x}", RandomState::new().hash_one(0));
    let answer = format!(r#"{{"status":"ok","job":"{name}"}}"#);
    let file = request.body().to_vec();
    let mut waiting = uses.process.waiting();
    if waiting.len() == WAITING {
        let what = format!("{WAITING} files wait to be processed already, more are not taken");
        return try_again_later(&what);
    }
    waiting.push_back(Job { name, file, client });
    uses.worker.unpark();
    Response::json(200, answer)
}

/// The client that gets the progress, if the request names one.
fn client(hub: &Hub, request: &Request) -> Result<Option<ClientId>, Response> {
    // `<form>` and `curl -F` send the file in a frame that would be hashed too.
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

    /// All that the thread does.
    pub(super) fn work(&self) {
        while !self.hub.is_closed() {
            let next = self.waiting().pop_front();
            match next {
                // It fails only if the hub is closed, which ends the loop too.
                Some(job) => drop(job.run(&self.hub)),
                None => thread::park(),
            }
        }
    }

    /// Poisoning is passed over: a queue that is pushed to and popped from is whole at any moment.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Hashes the file, and tells how it goes: a word for each percent, as far as chunks are small
    /// enough for that.
    fn run(&self, hub: &Hub) -> Result<(), Closed> {
        let (start, total) = (Instant::now(), self.file.len());
        let (mut hash, mut bytes, mut told) = (Sha256::new(), 0, None);
        let mut chunks = self.file.chunks(CHUNK);
        while told != Some(100) {
            let chunk = chunks.next().unwrap_or_default();
            hash.update(chunk);
            bytes += chunk.len();
            let percent = (bytes as u64 * 100)
                .checked_div(total as u64)
                .unwrap_or(100);
            if told.replace(percent) != Some(percent) {
                let numbers = format!(r#""bytes":{bytes},"total":{total},"percent":{percent}"#);
                self.tell(hub, "progress", &numbers)?;
            }
        }
        let (sha256, ms) = (hash.finish(), start.elapsed().as_millis());
        let result = format!(r#""sha256":"{sha256}","bytes":{bytes},"ms":{ms}"#);
        self.tell(hub, "complete", &result)
    }

    /// Publishes what has become of the job. Only a hub that is closed ends it: a client that is cut
    /// off may come back, and what a log did not keep is followed by something newer.
    fn tell(&self, hub: &Hub, name: &str, members: &str) -> Result<(), Closed> {
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
