//! One answer instead of a stream, for what cannot read a stream: what a client has missed, or the
//! first that is said while it waits.
//!
//! Every answer is read from the history. A poll that finds nothing there gets a lane, like a stream,
//! but one without a socket. The first message in its queue only wakes the poll: it leaves the registry and
//! reads on in the history, up to the bound of an answer, whatever was published meanwhile. Only what the history
//! does not hold is taken from the queue: events for this client alone, and the message that woke it, if
//! the history keeps no events at all.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::counters::Sent;
use super::history::Record;
use super::lane::{self, Kind, Lane};
use super::missed::Missed;
use super::stream::{RECOVERY, Recovery};
use super::{Cursor, Farewell, Gap, Hub, Phase, Shared, Subscribe, SubscribeError};
use crate::config::POLL_BYTES;
use crate::wire::{Decoder, EventId, Framing, Message, Patterns, json};

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
    /// missed it returns some 64 KiB at a time, as they are in JSON.
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
    /// The hub is closed; a client with another credential has the name; or it would have to wait, and
    /// there are as many clients as are allowed.
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
        Ok(self.find(wish, wait, is_wanted)?.into_poll())
    }

    /// [`poll_while`](Self::poll_while), of which the messages are not made yet: until then it holds what
    /// others hold too. Blocks like it.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll).
    pub(crate) fn find(
        &self,
        wish: Subscribe,
        wait: Duration,
        is_wanted: impl FnMut() -> bool,
    ) -> Result<Found, SubscribeError> {
        let wish = Subscribe {
            framing: Framing::Bare,
            ..wish
        };
        let shared = &self.shared;
        let mut reading = Reading::begin(shared, wish.cursor.clone(), &wish.patterns)?;
        let found = loop {
            let may_wait = reading.is_empty() && !wait.is_zero();
            match reading.read_on(shared, &wish, may_wait)? {
                Step::More => {}
                Step::Done => break Found::in_history(reading),
                Step::Waiting(lane, queue) => {
                    let poller = Poller {
                        shared,
                        lane,
                        queue,
                    };
                    break poller.wait(reading, &wish, wait, is_wanted);
                }
            }
        };
        // What is found counts as delivered.
        shared.counters.add(Sent {
            events: found.events() as u64,
            bytes: 0,
        });
        Ok(found)
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

/// What a poll has found in the history so far.
struct Reading {
    events: Vec<Arc<Record>>,
    /// What they are in an answer, at the most. LIMIT: [`POLL_BYTES`] and one event: an answer is put
    /// together in memory.
    bytes: usize,
    /// The ordinal of the event to look at next.
    position: u64,
    /// The id of the event before that: the cursor of the next poll.
    cursor: EventId,
    /// The cursor before the first of the events.
    start: EventId,
    /// The cursor that was asked for, and what became of it.
    asked: Cursor,
    gap: Option<Gap>,
    /// How many events the history has for this client after its cursor.
    missed: usize,
}

/// What follows after a piece of the history.
enum Step {
    /// There may be more of it.
    More,
    /// The answer is complete.
    Done,
    /// There was nothing for this client, which now waits.
    Waiting(Arc<Lane>, Receiver<lane::Message>),
}

impl Reading {
    /// Judges a cursor.
    fn begin(
        shared: &Shared,
        asked: Cursor,
        patterns: &Patterns,
    ) -> Result<Reading, SubscribeError> {
        let missed = Missed::count_ahead(shared, &asked, patterns);
        let state = shared.state();
        if state.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        let history = &state.history;
        let (position, gap) = history.resolve(&asked, patterns);
        let start = history.id_before(position);
        Ok(Reading {
            events: Vec::new(),
            bytes: 0,
            position,
            cursor: start,
            start,
            asked,
            gap,
            missed: missed.total(history, position, patterns),
        })
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Reads a piece. At the end of the history the poll becomes a client that waits, if it may: under the
    /// same lock, so that no event is published between the two.
    fn read_on(
        &mut self,
        shared: &Shared,
        wish: &Subscribe,
        may_wait: bool,
    ) -> Result<Step, SubscribeError> {
        if self.bytes >= POLL_BYTES {
            return Ok(Step::Done);
        }
        let mut state = shared.state_to_admit(wish)?;
        let history = &state.history;
        let Some(slice) = history.slice(self.position, POLL_BYTES - self.bytes) else {
            // The history has moved on over the poll. What was found is an answer; if it is nothing, what
            // is gone may have been for this client, and that is judged as for any cursor.
            drop(state);
            if !self.is_empty() {
                return Ok(Step::Done);
            }
            let asked = match self.asked {
                Cursor::Earliest => Cursor::Earliest,
                Cursor::Now | Cursor::After(_) => Cursor::After(self.cursor.to_string()),
            };
            *self = Reading::begin(shared, asked, &wish.patterns)?;
            return Ok(Step::More);
        };
        if slice.is_empty() {
            if !may_wait || self.gap.is_some() {
                return Ok(Step::Done);
            }
            let (lane, queue) = shared.admit(&mut state, wish, Kind::Poll)?;
            lane.read_up_to(self.position, state.history.head());
            return Ok(Step::Waiting(lane, queue));
        }
        drop(state);
        self.take(slice, wish);
        Ok(Step::More)
    }

    /// Takes what is for this client.
    fn take(&mut self, slice: Vec<Arc<Record>>, wish: &Subscribe) {
        for record in slice {
            (self.position, self.cursor) = (record.ordinal + 1, record.id);
            if wish.patterns.matches(record.topic.as_ref()) {
                self.bytes += rendered(record.frame.bytes(Framing::Bare));
                self.events.push(record);
                if self.bytes >= POLL_BYTES {
                    break;
                }
            }
        }
    }
}

/// What a poll answers, not decoded yet.
pub(crate) struct Found {
    reading: Reading,
    /// The bytes that woke the poll, if the history has not kept them.
    woken_by: Option<Arc<[u8]>>,
    /// An event for this client alone, which counts as queued until it is in the answer.
    private: Option<(Arc<[u8]>, lane::Queued)>,
}

impl Found {
    fn in_history(reading: Reading) -> Found {
        Found {
            reading,
            woken_by: None,
            private: None,
        }
    }

    fn events(&self) -> usize {
        self.reading.events.len() + self.woken().count() + usize::from(self.private.is_some())
    }

    /// The events in what woke the poll, as many as an answer may have.
    fn woken(&self) -> impl Iterator<Item = &[u8]> {
        let (mut left, mut taken) = (self.woken_by.as_deref().unwrap_or_default(), 0);
        std::iter::from_fn(move || {
            if left.is_empty() || taken >= POLL_BYTES {
                return None;
            }
            let end = left.windows(2).position(|pair| pair == b"\n\n");
            let (event, others) = left.split_at(end.map_or(left.len(), |end| end + 2));
            taken += rendered(event);
            left = others;
            Some(event)
        })
    }

    /// The bytes that it is in JSON, at the most.
    pub(crate) fn size(&self) -> usize {
        let woken: usize = self.woken().map(rendered).sum();
        let private = self
            .private
            .as_ref()
            .map_or(0, |(bytes, _)| rendered(bytes));
        self.reading.bytes + woken + private
    }

    /// The messages, decoded as the client of a stream would.
    pub(crate) fn into_poll(self) -> Poll {
        let mut decoded = Decoded::after(self.reading.start);
        for record in &self.reading.events {
            decoded.feed(record.frame.bytes(Framing::Bare));
        }
        self.woken().for_each(|event| decoded.feed(event));
        let cursor = match &self.woken_by {
            None => self.reading.cursor.to_string(),
            Some(_) => decoded.decoder.last_event_id().to_owned(),
        };
        if let Some((bytes, _)) = &self.private {
            decoded.feed(bytes);
        }
        let mut poll = Poll {
            messages: decoded.messages,
            cursor,
        };
        let (gap, missed) = (self.reading.gap, self.reading.missed);
        if let (Some(_), Cursor::After(from)) = (gap, self.reading.asked) {
            poll.tell(&Recovery { from, missed, gap });
        }
        poll
    }
}

/// What an event is in an answer, at the most. An answer is JSON, in which a control character takes
/// six bytes, and an event without a name is called `message`.
fn rendered(event: &[u8]) -> usize {
    json::longest(event) + r#"{"id":"","event":"message","data":""},"#.len()
}

/// Bytes of a stream as messages.
struct Decoded {
    decoder: Decoder,
    messages: Vec<Message>,
}

impl Decoded {
    /// As a client decodes them whose last event had the id `cursor`.
    fn after(cursor: EventId) -> Decoded {
        let mut decoded = Decoded {
            // These are bytes of our own, and not without end.
            decoder: Decoder::new(usize::MAX),
            messages: Vec::new(),
        };
        decoded.feed(format!("id: {cursor}\n\n").as_bytes());
        decoded
    }

    fn feed(&mut self, bytes: &[u8]) {
        let messages = &mut self.messages;
        self.decoder
            .feed(bytes, |message| messages.push(message))
            .expect("BUG: more bytes than there can be");
    }
}

/// A poll that waits. Dropped, it is out of the registry.
struct Poller<'a> {
    shared: &'a Shared,
    lane: Arc<Lane>,
    queue: Receiver<lane::Message>,
}

impl Poller<'_> {
    /// Waits for the first message, and returns the events that are in the history then.
    fn wait(
        self,
        mut reading: Reading,
        wish: &Subscribe,
        wait: Duration,
        is_wanted: impl FnMut() -> bool,
    ) -> Found {
        let first = self.first(wait, is_wanted);
        let mut state = self.shared.state();
        let was_registered = state.registry.remove(&self.lane);
        let slice = state.history.slice(reading.position, POLL_BYTES);
        let last_id = state.history.last_id();
        // The events are gone from the history, so it is not known whether some were for this client, and the
        // fan-out may not have delivered them yet. So the poll ends like a stream that is dismissed: its
        // events come before the end.
        let must_hear = was_registered && slice.is_none();
        if must_hear {
            state.dismiss(Arc::clone(&self.lane), Farewell::Kicked);
        }
        self.shared.wake_fan_out(state);
        // A poll that was dismissed, or is not wanted any more, returns no event. Its cursor stays where it
        // is, so nothing is lost.
        if !was_registered || matches!(first, First::Unwanted) {
            return Found::in_history(reading);
        }
        let (mut woken_by, mut private) = (None, None);
        let first = match first {
            First::Message(message) => Some(message),
            First::Nothing | First::Unwanted => None,
        };
        let next = || match must_hear {
            true => self.queue.recv().ok(),
            false => self.queue.try_recv().ok(),
        };
        for message in first.into_iter().chain(std::iter::from_fn(next)) {
            match message {
                lane::Message::Bytes { bytes, .. } => woken_by = Some(bytes),
                lane::Message::Private { bytes, queued } => private = Some((bytes, queued)),
                lane::Message::Farewell(_) => break,
            }
        }
        let is_gone = slice.is_none();
        match (slice, &woken_by) {
            (Some(slice), _) => {
                reading.take(slice, wish);
                // What woke the poll may be after much that is not for it.
                while let Ok(Step::More) = reading.read_on(self.shared, wish, false) {}
            }
            (None, Some(_)) => {}
            (None, None) => reading.cursor = last_id,
        }
        // What the history has kept is read there.
        let woken_by = woken_by.filter(|_| is_gone);
        Found {
            reading,
            woken_by,
            private,
        }
    }

    /// The first message; and whether the poll is wanted, which is asked before each wait.
    fn first(&self, wait: Duration, mut is_wanted: impl FnMut() -> bool) -> First {
        let (start, heartbeat) = (Instant::now(), self.shared.config.heartbeat);
        loop {
            // ORDER: asked before the first wait, too. What decides it may have changed before this poll
            // was in the registry, where those that change it look for polls to end.
            if !self.lane.is_permitted() || !is_wanted() {
                return First::Unwanted;
            }
            let left = wait.saturating_sub(start.elapsed());
            match self.queue.recv_timeout(left.min(heartbeat)) {
                Ok(message) => return First::Message(message),
                Err(_) if left <= heartbeat => return First::Nothing,
                Err(_) => {}
            }
        }
    }
}

/// How a wait ends.
enum First {
    Message(lane::Message),
    Nothing,
    /// The poll is not wanted any more.
    Unwanted,
}

impl Drop for Poller<'_> {
    fn drop(&mut self) {
        self.shared.state().registry.remove(&self.lane);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::Config;
    use crate::wire::Event;

    fn data(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| &*message.data).collect()
    }

    /// A poll that waits, and the events that are published before its thread runs again.
    fn waited(hub: &Hub, said: impl FnOnce()) -> Poll {
        let wish = Subscribe::default();
        let mut reading = Reading::begin(&hub.shared, Cursor::Now, &wish.patterns).unwrap();
        let step = reading.read_on(&hub.shared, &wish, true).unwrap();
        let Step::Waiting(lane, queue) = step else {
            panic!("there was something to read");
        };
        said();
        while hub.shared.state().inbox_bytes > 0 || lane.debt() <= lane::OPENING {
            std::thread::yield_now();
        }
        let shared = &hub.shared;
        let poller = Poller {
            shared,
            lane,
            queue,
        };
        let found = poller.wait(reading, &wish, Duration::MAX, || true);
        found.into_poll()
    }

    #[test]
    fn a_poll_that_was_woken_holds_one_message_and_answers_from_the_history() {
        let hub = Hub::new(Config::default()).unwrap();
        let large = "x".repeat(10_000);
        let Poll { messages, cursor } = waited(&hub, || {
            for _ in 0..100 {
                hub.publish(Event::new(&*large)).unwrap();
            }
            let queued = hub.shared.total_queued.load(Ordering::Relaxed);
            assert!(queued < 300_000, "{queued} bytes wait for one poll");
        });
        assert_eq!(messages.len(), POLL_BYTES.div_ceil(10_000 + 40));
        let wish = Subscribe {
            cursor: Cursor::After(cursor),
            ..Subscribe::default()
        };
        let rest = hub.poll(wish, Duration::ZERO).unwrap().messages;
        assert_eq!(rest.len(), messages.len(), "the next answer is as full");
        assert_eq!(hub.clients(), 0);
        assert_eq!(hub.shared.total_queued.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_poll_gets_what_woke_it_even_if_the_history_keeps_nothing() {
        let hub = Hub::new(Config {
            history_events: 0,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let Poll { messages, cursor } = waited(&hub, || {
            hub.publish_all(vec![Event::new("1"), Event::new("2\n\n3")])
                .unwrap();
        });
        assert_eq!(data(&messages), ["1", "2\n\n3"]);
        let wish = Subscribe {
            cursor: Cursor::After(cursor),
            ..Subscribe::default()
        };
        assert!(
            hub.poll(wish.clone(), Duration::ZERO)
                .unwrap()
                .messages
                .is_empty()
        );
        hub.publish(Event::new("missed")).unwrap();
        let told = hub.poll(wish, Duration::ZERO).unwrap().messages;
        assert!(told[0].data.contains("\"reason\":\"evicted\""), "{told:?}");
    }

    #[test]
    fn an_event_for_one_poll_comes_after_those_of_its_topics() {
        let hub = Hub::new(Config::default()).unwrap();
        let id = || hub.client_stats().remove(0).id;
        let Poll { messages, .. } = waited(&hub, || {
            hub.send_to(&id(), &Event::new("for you")).unwrap();
            hub.publish(Event::new("for all")).unwrap();
        });
        assert_eq!(data(&messages), ["for all", "for you"]);
    }

    #[test]
    fn an_event_behind_one_for_a_poll_alone_is_not_lost_if_the_history_keeps_nothing() {
        let hub = Hub::new(Config {
            history_events: 0,
            ..Config::default()
        });
        let hub = hub.unwrap();
        let id = || hub.client_stats().remove(0).id;
        let Poll { messages, cursor } = waited(&hub, || {
            hub.send_to(&id(), &Event::new("for you")).unwrap();
            hub.publish(Event::new("for all")).unwrap();
        });
        let wish = Subscribe {
            cursor: Cursor::After(cursor),
            ..Subscribe::default()
        };
        let next = hub.poll(wish, Duration::ZERO).unwrap().messages;
        let is_told = next.iter().any(|told| told.name == RECOVERY);
        assert!(
            data(&messages).contains(&"for all") || is_told,
            "lost, and not told: {messages:?}, then {next:?}"
        );
    }
}
