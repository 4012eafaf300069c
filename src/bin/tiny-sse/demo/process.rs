//! The progress of a long job: a file is uploaded, answered at once, and hashed on a thread of its
//! own, whose `progress` and `complete` go to the client that asked and to nobody else.
//!
//! Who says its `client_id` is told on the stream that it has. An event for one client is not kept,
//! so who is cut off meanwhile misses some; who wants none missed leaves the id out, and reads the
//! topic of the job, from the beginning, after the answer has said which it is.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tiny_sse::Hub;
use tiny_sse::http::{Request, Response};
use tiny_sse::hub::{ClientId, Closed, PublishError, SendError};

use super::sha256::Sha256;
use super::{Threads, event, start_thread, topic, try_again_later};

/// LIMIT: one file is hashed at a time, and so many wait; with `--max-body` this bounds the memory.
const WAITING: usize = 4;

/// Bytes that are hashed between two looks at the percentage.
const CHUNK: usize = 64 * 1024;

/// How often an idle thread looks whether the hub is closed, should the shutdown leave behind a
/// handler that is stuck, and with it who wakes the thread at the end.
const LOOK: Duration = Duration::from_secs(5);

/// Where files are taken in, and the thread that works on them.
pub(super) struct Process {
    hub: Hub,
    waiting: Arc<Waiting>,
    thread: Thread,
}

/// The files that wait.
///
/// LOCK: held to put one in or take one out, never while it is worked on.
#[derive(Default)]
struct Waiting(Mutex<VecDeque<Job>>);

struct Job {
    name: String,
    file: Vec<u8>,
    /// Who is told; `None` is whoever reads the topic of the job.
    client: Option<ClientId>,
}

/// The name of the topic of a job.
pub(super) fn topic_of(job: &str) -> String {
    format!("demo/process/{job}")
}

impl Process {
    pub(super) fn start(hub: &Hub, threads: &mut Threads) -> io::Result<Process> {
        let waiting = Arc::<Waiting>::default();
        let (hub_of_jobs, jobs) = (hub.clone(), Arc::clone(&waiting));
        let run = move || work(&hub_of_jobs, &jobs);
        Ok(Process {
            hub: hub.clone(),
            waiting,
            thread: start_thread("process", Box::new(run), threads)?,
        })
    }

    /// Takes the body as a file to be hashed, and does not wait for that.
    pub(super) fn take(&self, request: &Request) -> Response {
        let client = match self.client(request) {
            Ok(client) => client,
            Err(response) => return response,
        };
        // Hard to guess, by std's only randomness. (Who listens to all of `demo/*` needs no guess.)
        let name = format!("{:016x}", RandomState::new().hash_one(0));
        let answer = format!(r#"{{"status":"ok","job":"{name}"}}"#);
        let file = request.body().to_vec();
        if !self.waiting.put(Job { name, file, client }) {
            let what = format!("{WAITING} files wait to be processed already, more are not taken");
            return try_again_later(&what);
        }
        self.thread.unpark();
        Response::json(200, answer)
    }

    /// The client that is to be told, if it is named; and why not, if it is not to be had.
    fn client(&self, request: &Request) -> Result<Option<ClientId>, Response> {
        if is_form(request) {
            let what = "the body is a form, it must be the file itself (curl --data-binary @FILE)";
            return Err(Response::error(415, what));
        }
        let Some(id) = request.query("client_id") else {
            return Ok(None);
        };
        let id: ClientId = id.parse().map_err(|error| Response::error(400, error))?;
        if self.hub.has_client(id.as_str()) {
            Ok(Some(id))
        } else {
            let what = format!(
                "no client has the id {:?}: open a stream with it first",
                id.as_str()
            );
            Err(Response::error(404, what))
        }
    }
}

/// What `<form>` and `curl -F` send: the file, and a frame around it that would be hashed too.
fn is_form(request: &Request) -> bool {
    let media_type = request.field("content-type").ok().flatten();
    media_type.is_some_and(|value| {
        value
            .to_ascii_lowercase()
            .starts_with("multipart/form-data")
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl Waiting {
    /// Poisoning is passed over: a queue that is pushed to and popped from is whole at any moment.
    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: there are too many already.
    fn put(&self, job: Job) -> bool {
        let mut jobs = self.jobs();
        let has_room = jobs.len() < WAITING;
        if has_room {
            jobs.push_back(job);
        }
        has_room
    }

    fn take(&self) -> Option<Job> {
        self.jobs().pop_front()
    }
}

/// All that the thread does.
fn work(hub: &Hub, waiting: &Waiting) {
    while !hub.is_closed() {
        match waiting.take() {
            // It fails only if the hub is closed, which ends the loop too.
            Some(job) => {
                let _ = job.run(hub);
            }
            None => thread::park_timeout(LOOK),
        }
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
        let event = event(
            name,
            &topic,
            format!(r#"{{"job":"{}",{members}}}"#, self.name),
        );
        let is_closed = match &self.client {
            Some(client) => hub.send_to(client.as_str(), &event) == Err(SendError::Closed),
            None => hub.publish(event) == Err(PublishError::Closed),
        };
        if is_closed { Err(Closed) } else { Ok(()) }
    }
}
