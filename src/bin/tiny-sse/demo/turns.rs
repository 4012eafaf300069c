//! A thread that publishes now and then, while somebody listens.
//!
//! Between its turns it is parked: who opens a stream wakes it, so that the first event comes at
//! once. Who listens is asked of the hub, because one may also listen by `/events`, which wakes
//! nobody. It ends when the hub is closed, and finds that out when the handler of the server goes.

use std::io;
use std::thread::{self, Thread};
use std::time::Duration;

use tiny_sse::http::{Request, Response};
use tiny_sse::hub::PublishError;
use tiny_sse::{Api, Event, Hub, Topic};

use super::{Threads, only, start_thread};

/// LIMIT: from one turn to the next, however often clients come and go.
const LEAST: Duration = Duration::from_millis(200);

/// What is published in a turn.
type Turn = Box<dyn FnMut() -> Vec<Event> + Send>;

/// A topic that a thread publishes to in turns, and that thread.
pub(super) struct Turns {
    topic: Topic,
    thread: Thread,
}

impl Turns {
    /// Starts a thread of this name, which takes its turn every so often.
    pub(super) fn start(
        name: &str,
        hub: &Hub,
        topic: &Topic,
        every: Duration,
        turn: Turn,
        threads: &mut Threads,
    ) -> io::Result<Turns> {
        let (hub, topic_of_turns) = (hub.clone(), topic.clone());
        let run = move || take_turns(&hub, &topic_of_turns, every, turn);
        Ok(Turns {
            topic: topic.clone(),
            thread: start_thread(name, Box::new(run), threads)?,
        })
    }

    /// A stream of the topic, whose first event does not wait for the next turn.
    pub(super) fn stream(&self, request: &Request, api: &Api) -> Response {
        // ORDER: registered first, or the thread may find that nobody listens.
        let response = api.stream_of(request, only(&self.topic));
        self.thread.unpark();
        response
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

fn take_turns(hub: &Hub, topic: &Topic, every: Duration, mut turn: Turn) {
    loop {
        // It may wake for no reason: then a turn is early.
        thread::park_timeout(every);
        if hub.is_closed() {
            return;
        }
        if hub.listeners(Some(topic)) == 0 {
            continue;
        }
        // What the log did not keep is not said again: the next turn says something newer.
        if hub.publish_all(turn()) == Err(PublishError::Closed) {
            return;
        }
        thread::sleep(LEAST);
    }
}
