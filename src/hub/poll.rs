//! One answer instead of a stream, for what cannot read a stream: what a client has missed, or the
//! first that is said while it waits.
//!
//! A poll that finds something never becomes a client: it is answered under the lock that judges
//! its cursor. Only one that has to wait gets a lane, like a stream, but one without a socket, so
//! that everything comes through its queue.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::counters::Sent;
use super::history::{History, Record};
use super::lane::{Kind, Lane};
use super::stream::{RECOVERY, Recovery};
use super::{Cursor, Hub, Phase, Shared, Subscribe, SubscribeError, lane};
use crate::config::POLL_BYTES;
use crate::wire::{Decoder, EventId, Framing, Message, Patterns};

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
    /// two of them; those [for one client](Hub::send_to) are, unless it is waiting just then. Of
    /// what was missed it answers some 256 KiB at a time.
    ///
    /// Blocks for up to `wait`, and counts as a client while it does. [`close`](Hub::close),
    /// [`disconnect`](Hub::disconnect) or another who comes under its name end the wait at once, and
    /// then it answers what there is. Nobody is noticed who does not wait for the answer any more.
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
        let wish = Subscribe {
            framing: Framing::Bare,
            ..wish
        };
        let mut state = self.shared.state();
        if state.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        let (start, gap) = state.history.resolve(&wish.cursor);
        let mut basket = Basket::new(state.history.id_before(start));
        let found = Find::from(&state.history, start, &wish.patterns, POLL_BYTES)
            .expect("BUG: a replay from what is gone");
        if gap.is_some() || !found.records.is_empty() || wait.is_zero() {
            let missed = state.history.count_since(start, &wish.patterns);
            drop(state);
            let mut poll = self.answered(basket.with(&found));
            if let (Some(_), Cursor::After(from)) = (gap, wish.cursor) {
                poll.tell(&Recovery { from, missed, gap });
            }
            return Ok(poll);
        }
        let (lane, queue) = self.shared.admit(&mut state, &wish, Kind::Poll)?;
        lane.go_live(state.history.head());
        drop(state);
        let place = Place {
            shared: &self.shared,
            lane,
        };
        basket.fill(&queue, wait);
        Ok(self.answered(place.leave(basket)))
    }

    /// Counts what is found as delivered.
    fn answered(&self, poll: Poll) -> Poll {
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

/// A part of the history, and where the next poll goes on behind it.
struct Find {
    records: Vec<Arc<Record>>,
    cursor: EventId,
}

impl Find {
    /// What is in the history from `start` on, some `limit` bytes of it. `None`: it is gone.
    ///
    /// LIMIT: an answer is put together in memory; the next poll has the rest.
    fn from(history: &History, start: u64, patterns: &Patterns, limit: usize) -> Option<Find> {
        let piece = history.piece(start, patterns, limit)?;
        Some(Find {
            records: piece.events,
            cursor: history.id_before(piece.next.unwrap_or(history.head())),
        })
    }
}

/// Where a poll gathers what it finds: events as bytes, decoded as the client would.
struct Basket {
    decoder: Decoder,
    messages: Vec<Message>,
    bytes: usize,
}

impl Basket {
    /// An empty one, at `cursor`.
    fn new(cursor: EventId) -> Basket {
        let mut basket = Basket {
            // These are bytes of our own, and not without end.
            decoder: Decoder::new(usize::MAX),
            messages: Vec::new(),
            bytes: 0,
        };
        basket.take(format!("id: {cursor}\n\n").as_bytes());
        basket
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let messages = &mut self.messages;
        self.decoder
            .feed(bytes, |message| messages.push(message))
            .expect("BUG: more bytes than there can be");
    }

    /// Waits for the first that comes, and takes with it what has come by then.
    ///
    /// LIMIT: the queue's. A farewell has nothing behind it.
    fn fill(&mut self, queue: &Receiver<lane::Message>, wait: Duration) {
        let mut next = match queue.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        };
        while let Some(lane::Message::Bytes { bytes, .. }) = next {
            self.take(&bytes);
            next = queue.try_recv().ok();
        }
    }

    fn with(mut self, found: &Find) -> Poll {
        for record in &found.records {
            self.take(record.frame.bytes(Framing::Bare));
        }
        Poll {
            cursor: found.cursor.to_string(),
            messages: self.messages,
        }
    }
}

/// The place of a poll that waits among the clients. Dropped, it is free.
struct Place<'a> {
    shared: &'a Shared,
    lane: Arc<Lane>,
}

impl Place<'_> {
    /// Gives the place up, with what was said and had not come yet: what comes into the queue now
    /// has no reader any more. If nothing came at all, the cursor moves on over what others were
    /// told meanwhile, or it would be evicted while there was nothing for its client.
    fn leave(self, basket: Basket) -> Poll {
        let state = self.shared.state();
        let reached = basket.decoder.last_event_id().to_owned();
        let room = POLL_BYTES.saturating_sub(basket.bytes);
        let rest = match state.history.resolve(&Cursor::After(reached.clone())) {
            (start, None) => Find::from(&state.history, start, &self.lane.patterns, room),
            // It is gone from the history, or was never there. Then the next poll is told.
            (_, Some(_)) => None,
        };
        drop(state);
        match rest {
            Some(rest) => basket.with(&rest),
            None => Poll {
                messages: basket.messages,
                cursor: reached,
            },
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.state().registry.remove(&self.lane);
    }
}
