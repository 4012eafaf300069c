//! A thread that publishes to a topic at intervals, in turns, while at least one client
//! listens.
//!
//! Between turns the thread is parked. When a client opens the stream of the use, the
//! thread is unparked, so the client gets its first event at once. A client can also
//! receive the topic through `/events`, which unparks no thread. Therefore the thread
//! wakes at each interval and asks the hub whether any client listens. It ends when it
//! wakes and the hub is closed.

use std::thread;
use std::time::Duration;

use tiny_sse::hub::PublishError;
use tiny_sse::{Event, Hub, Topic};

/// LIMIT: the shortest time between two turns, however often clients connect.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// Makes the events of one turn.
type Turn = dyn FnMut(&Topic) -> Vec<Event> + Send;

/// What one thread publishes, where and how often.
pub(super) struct Turns {
    /// The topic of all events.
    pub(super) topic: Topic,
    /// The time from one turn to the next.
    pub(super) every: Duration,
    /// Is called for each turn and returns the events to publish.
    pub(super) turn: Box<Turn>,
}

impl Turns {
    /// Runs the thread, until the hub is closed.
    pub(super) fn run(mut self, hub: &Hub) {
        loop {
            // `park_timeout` may return early for no reason. The turn is then early,
            // which does no harm.
            thread::park_timeout(self.every);
            if hub.is_closed() {
                return;
            }
            if hub.recipients(Some(&self.topic)) == 0 {
                continue;
            }
            // If the log could not store the events, they are lost: the next turn has
            // newer ones.
            if hub.publish_all((self.turn)(&self.topic)) == Err(PublishError::Closed) {
                return;
            }
            thread::sleep(MIN_INTERVAL);
        }
    }
}
