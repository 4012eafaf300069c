//! A topic that a thread publishes to in turns, while a client listens.
//!
//! Between its turns the thread is parked. A client that opens the use's own stream unparks it, so that the first
//! event comes at once. The thread asks the hub whether a client listens, because `/events` has the topic too, and
//! unparks no thread. It ends when the hub is closed and the thread is unparked.

use std::thread;
use std::time::Duration;

use tiny_sse::hub::PublishError;
use tiny_sse::{Event, Hub, Topic};

/// LIMIT: from one turn to the next, however often clients come and go.
const LEAST: Duration = Duration::from_millis(200);

type Turn = dyn FnMut(&Topic) -> Vec<Event> + Send;

pub(super) struct Turns {
    pub(super) topic: Topic,
    /// The time from one turn to the next.
    pub(super) every: Duration,
    /// Makes the events of a turn.
    pub(super) turn: Box<Turn>,
}

impl Turns {
    /// All that the thread does.
    pub(super) fn take(mut self, hub: &Hub) {
        loop {
            // It may wake for no reason: then a turn is early.
            thread::park_timeout(self.every);
            if hub.is_closed() {
                return;
            }
            if hub.recipients(Some(&self.topic)) == 0 {
                continue;
            }
            // Events that the log did not keep are not published again: the next turn has newer ones.
            if hub.publish_all((self.turn)(&self.topic)) == Err(PublishError::Closed) {
                return;
            }
            thread::sleep(LEAST);
        }
    }
}
