//! One answer instead of a stream, for what cannot read a stream: what a client has missed, or the
//! first that is said while it waits.
//!
//! A poll that finds something never becomes a client: it is answered from the history, under the
//! lock that judges its cursor. Only one that has to wait gets a lane, like a stream, but one
//! without a socket, so that everything comes through its queue. It leaves by a farewell of its
//! own: what was published before is before that in the queue, and so it knows how far it has been.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::counters::Sent;
use super::lane::{self, Kind, Lane};
use super::stream::{RECOVERY, Recovery};
use super::{Cursor, Farewell, Hub, Phase, Shared, Subscribe, SubscribeError};
use crate::config::POLL_BYTES;
use crate::wire::{Decoder, EventId, Framing, Message};

/// What a poll has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The events, in order, as a browser's EventSource would have dispatched them. If some are gone,
    /// the first is named `recovery`, says so, and has no id.
    pub messages: Vec<Message>,
    /// Where the next poll goes on, as its `Cursor::After`: behind these events, and behind those
    /// that were not for this client. An id of the hub's own if it can be.
    pub cursor: String,
}

impl Hub {
    /// What `wish` has missed, or else the first that is said within `wait`; nothing, if nothing is.
    /// If each poll goes on from the cursor of the one before, none of the events is lost between
    /// two of them. Those [for one client](Hub::send_to) find it only while it waits. Of what was
    /// missed it answers some 256 KiB at a time.
    ///
    /// Blocks for up to `wait`, and counts as a client while it does. [`close`](Hub::close),
    /// [`disconnect`](Hub::disconnect) or another who comes under its name end the wait at once, and
    /// then it answers what there is.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use tiny_sse::{Config, Cursor, Event, Hub, Subscribe};
    ///
    /// let hub = Hub::new(Config::default())?;
    /// let start = hub.poll(Subscribe::default(), Duration::ZERO)?;
    /// assert!(start.messages.is_empty());
    /// hub.publish(Event::new("hello"))?;
    /// let wish = Subscribe { cursor: Cursor::After(start.cursor), ..Subscribe::default() };
    /// let poll = hub.poll(wish, Duration::from_secs(30))?;
    /// assert_eq!(poll.messages[0].data, "hello");
    /// assert_eq!(poll.messages[0].last_event_id, poll.cursor);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The hub is closed; or it would have to wait, and there are as many clients as are allowed.
    pub fn poll(&self, wish: Subscribe, wait: Duration) -> Result<Poll, SubscribeError> {
        self.poll_while(wish, wait, || true)
    }

    /// [`poll`](Self::poll), for somebody who may go away before the answer is there: whether
    /// `is_wanted` is asked once it waits, and then every `Config::heartbeat`, so that nobody keeps a
    /// place for longer. Once it is not, what came meanwhile is left for the next poll.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll).
    pub fn poll_while(
        &self,
        wish: Subscribe,
        wait: Duration,
        is_wanted: impl FnMut() -> bool,
    ) -> Result<Poll, SubscribeError> {
        let wish = Subscribe {
            framing: Framing::Bare,
            ..wish
        };
        let mut state = self.shared.state();
        if state.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        let history = &state.history;
        let (start, gap) = history.resolve(&wish.cursor, &wish.patterns);
        let mut basket = Basket::new(history.id_before(start));
        // LIMIT: an answer is put together in memory. The next poll has the rest.
        let piece = history.piece(start, &wish.patterns, POLL_BYTES);
        let piece = piece.expect("BUG: a replay from what is gone");
        if gap.is_none() && piece.events.is_empty() && !wait.is_zero() {
            let (lane, queue) = self.shared.admit(&mut state, &wish, Kind::Poll)?;
            lane.go_live(state.history.head());
            drop(state);
            let shared = &self.shared;
            let poller = Poller {
                shared,
                lane,
                queue,
            };
            return Ok(self.counted(poller.wait(basket, wait, is_wanted)));
        }
        let cursor = history.id_before(piece.next.unwrap_or(history.head()));
        let missed = history.count_since(start, &wish.patterns);
        drop(state);
        for record in &piece.events {
            basket.take(record.frame.bytes(Framing::Bare));
        }
        let mut poll = self.counted(basket.at(Some(cursor)));
        if let (Some(_), Cursor::After(from)) = (gap, wish.cursor) {
            poll.tell(&Recovery { from, missed, gap });
        }
        Ok(poll)
    }

    /// What is found counts as delivered.
    fn counted(&self, poll: Poll) -> Poll {
        self.shared.counters.add(Sent {
            events: poll.messages.len() as u64,
            bytes: 0,
        });
        poll
    }
}

impl Poll {
    fn tell(&mut self, recovery: &Recovery) {
        let told = Message {
            name: RECOVERY.to_owned(),
            data: recovery.data(),
            last_event_id: String::new(),
        };
        self.messages.insert(0, told);
    }
}

/// Where a poll gathers what it finds, decoded as the client of a stream would.
struct Basket {
    decoder: Decoder,
    messages: Vec<Message>,
}

impl Basket {
    /// An empty one, at `cursor`.
    fn new(cursor: EventId) -> Basket {
        let mut basket = Basket {
            // These are bytes of our own, and not without end.
            decoder: Decoder::new(usize::MAX),
            messages: Vec::new(),
        };
        basket.take(format!("id: {cursor}\n\n").as_bytes());
        basket
    }

    fn take(&mut self, bytes: &[u8]) {
        let messages = &mut self.messages;
        self.decoder
            .feed(bytes, |message| messages.push(message))
            .expect("BUG: more bytes than there can be");
    }

    /// What was gathered, by one who has been as far as `cursor`, or at least to the last event.
    fn at(self, cursor: Option<EventId>) -> Poll {
        let reached = self.decoder.last_event_id();
        Poll {
            cursor: cursor.map_or_else(|| reached.to_owned(), |cursor| cursor.to_string()),
            messages: self.messages,
        }
    }
}

/// A poll that waits, and so has a place among the clients. Dropped, that is free.
struct Poller<'a> {
    shared: &'a Shared,
    lane: Arc<Lane>,
    queue: Receiver<lane::Message>,
}

impl Poller<'_> {
    /// Waits for the first that comes, and takes with it all that was said by then.
    ///
    /// LIMIT: it takes no more than its queue holds; with more it has fallen behind, as a stream.
    fn wait(self, mut basket: Basket, wait: Duration, is_wanted: impl FnMut() -> bool) -> Poll {
        match self.first(wait, is_wanted) {
            Some(lane::Message::Bytes { bytes, .. }) => basket.take(&bytes),
            Some(lane::Message::Farewell(_)) => return basket.at(None),
            // In vain, but not for nothing: the cursor moves on over what others were told, lest it
            // be evicted while there is nothing for this client.
            None => {}
        }
        let left_at = self.leave();
        loop {
            match self.queue.recv() {
                Ok(lane::Message::Bytes { bytes, .. }) => basket.take(&bytes),
                Ok(lane::Message::Farewell(Farewell::Kicked)) => return basket.at(left_at),
                // It was ended before it left: there may be more that it did not get.
                Ok(lane::Message::Farewell(_)) => return basket.at(None),
                Err(_) => unreachable!("BUG: the lane that holds the sender is ours too"),
            }
        }
    }

    /// The first that comes; `None` if nothing does. Who is not wanted any more is as good as kicked.
    fn first(&self, wait: Duration, mut is_wanted: impl FnMut() -> bool) -> Option<lane::Message> {
        let (start, heartbeat) = (Instant::now(), self.shared.config.heartbeat);
        loop {
            // ORDER: asked before the first wait, too. What decides it may have changed before this one
            // had its place, where whoever changed it looked for those to be ended.
            if !is_wanted() {
                return Some(lane::Message::Farewell(Farewell::Kicked));
            }
            let left = wait.saturating_sub(start.elapsed());
            match self.queue.recv_timeout(left.min(heartbeat)) {
                Ok(message) => return Some(message),
                Err(_) if left <= heartbeat => return None,
                Err(_) => {}
            }
        }
    }

    /// Leaves as if it were kicked: deaf only to what is said from now on. Answers the last that
    /// was said. `None`: somebody else was faster, and the farewell is on its way.
    fn leave(&self) -> Option<EventId> {
        let mut state = self.shared.state();
        if !state.registry.remove(&self.lane) {
            return None;
        }
        let last = state.history.last_id();
        state.dismiss(Arc::clone(&self.lane), Farewell::Kicked);
        self.shared.wake_fan_out(state);
        Some(last)
    }
}

impl Drop for Poller<'_> {
    fn drop(&mut self) {
        self.shared.state().registry.remove(&self.lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::wire::Event;

    #[test]
    fn a_poll_that_falls_behind_while_it_waits_goes_on_from_the_last_that_it_got() {
        let config = Config {
            queue_bytes: 10,
            ..Config::default()
        };
        let hub = Hub::new(config).unwrap();
        let (wish, shared) = (Subscribe::default(), &hub.shared);
        let mut state = shared.state();
        let start = state.history.last_id();
        let (lane, queue) = shared.admit(&mut state, &wish, Kind::Poll).unwrap();
        lane.go_live(state.history.head());
        drop(state);
        let publish = |number: u32| hub.publish(Event::new(number.to_string())).unwrap();
        let published: Vec<_> = (0..10).map(publish).collect();
        while lane.ending() != Some(Farewell::FellBehind) {
            std::thread::yield_now();
        }
        let poller = Poller {
            shared,
            lane,
            queue,
        };
        let Poll { messages, cursor } = poller.wait(Basket::new(start), Duration::MAX, || true);
        // How many the fan-out had joined by then is its own affair.
        let count = messages.len();
        assert!((1..10).contains(&count), "{messages:?}");
        assert_eq!(cursor, published[count - 1].id.to_string());
        let wish = Subscribe {
            cursor: Cursor::After(cursor),
            ..wish
        };
        let rest = hub.poll(wish, Duration::ZERO).unwrap().messages;
        let data: Vec<_> = rest.iter().map(|message| &*message.data).collect();
        let expected: Vec<_> = (count..10).map(|number| number.to_string()).collect();
        assert_eq!(data, expected);
        assert_eq!(hub.clients(), 0);
    }
}
