//! One answer instead of a stream, for what cannot read a stream: what a client has missed, or the
//! first that is said while it waits.
//!
//! Every answer is read from the history. A poll that finds nothing there gets a lane, like a stream,
//! but one without a socket. The first message in its queue only wakes the poll: it leaves the registry and
//! reads on in the history, up to the bound of an answer, whatever was published meanwhile. Only what the history
//! does not hold is taken from the queue: events for this client alone, and the message that woke it, if
//! the history keeps no events at all.

use std::iter;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::counters::Sent;
use super::lane::{Kind, Lane, QueueItem, Queued};
use super::missed::Missed;
use super::record::Record;
use super::stream::{RECOVERY, Recovery};
use super::{CloseReason, Cursor, Gap, Hub, Phase, Shared, Subscribe, SubscribeError};
use crate::config::POLL_BYTES;
use crate::wire::{Decoder, EventId, Message, Patterns, json};

/// What a poll has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
        let shared = &self.shared;
        let mut found = Found::after(shared, wish.cursor.clone(), &wish.patterns)?;
        loop {
            let may_wait = found.records.is_empty() && !wait.is_zero();
            match found.read_on(shared, &wish, may_wait)? {
                Step::More => {}
                Step::Done => break,
                Step::Waiting(lane, queue) => {
                    let poller = Poller {
                        shared,
                        lane,
                        queue,
                    };
                    poller.wait(&mut found, &wish, wait, is_wanted);
                    break;
                }
            }
        }
        // What is found counts as delivered.
        shared.counters.add(Sent {
            events: (found.records.len() + usize::from(found.private.is_some())) as u64,
            bytes: 0,
        });
        Ok(found)
    }
}

/// What a poll has found so far, not decoded yet.
pub(crate) struct Found {
    records: Vec<Arc<Record>>,
    /// An event for this client alone, which counts as queued until it is in the answer.
    private: Option<(Arc<Record>, Queued)>,
    /// The bytes of the answer, at the most. LIMIT: [`POLL_BYTES`], one event, and the private one: an answer is
    /// put together in memory.
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
    Waiting(Arc<Lane>, Receiver<QueueItem>),
}

impl Found {
    /// Judges a cursor.
    fn after(shared: &Shared, asked: Cursor, patterns: &Patterns) -> Result<Found, SubscribeError> {
        let missed = Missed::count_ahead(shared, &asked, patterns);
        let state = shared.state();
        if state.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        let history = &state.history;
        let (position, gap) = history.resolve(&asked, patterns);
        let start = history.id_before(position);
        Ok(Found {
            records: Vec::new(),
            private: None,
            bytes: 0,
            position,
            cursor: start,
            start,
            asked,
            gap,
            missed: missed.total(history, position, patterns),
        })
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
        let mut state = shared.state_for_client(wish)?;
        let history = &state.history;
        let Some(slice) = history.slice(self.position, POLL_BYTES - self.bytes) else {
            // The history has moved on over the poll. What was found is an answer; if it is nothing, what
            // is gone may have been for this client, and that is judged as for any cursor.
            drop(state);
            if !self.records.is_empty() {
                return Ok(Step::Done);
            }
            let asked = match self.asked {
                Cursor::Earliest => Cursor::Earliest,
                Cursor::Now | Cursor::After(_) => Cursor::After(self.cursor.to_string()),
            };
            *self = Found::after(shared, asked, &wish.patterns)?;
            return Ok(Step::More);
        };
        if slice.is_empty() {
            if !may_wait || self.gap.is_some() {
                return Ok(Step::Done);
            }
            let (lane, queue) = shared.register(&mut state, wish, Kind::Poll)?;
            lane.read_up_to(self.position, state.history.head());
            return Ok(Step::Waiting(lane, queue));
        }
        drop(state);
        self.take(slice, wish);
        Ok(Step::More)
    }

    /// Takes what is for this client.
    fn take(&mut self, events: Vec<Arc<Record>>, wish: &Subscribe) {
        for record in events {
            (self.position, self.cursor) = (record.ordinal() + 1, record.id());
            if wish.patterns.matches(record.topic()) {
                self.bytes += rendered(&record);
                self.records.push(record);
                if self.bytes >= POLL_BYTES {
                    break;
                }
            }
        }
    }

    /// The bytes that it is in JSON, at the most.
    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// The messages, decoded as the client of a stream would.
    pub(crate) fn into_poll(self) -> Poll {
        let mut messages = Vec::new();
        if let (Some(_), Cursor::After(from)) = (self.gap, self.asked) {
            let (missed, gap) = (self.missed, self.gap);
            messages.push(Message {
                name: RECOVERY.to_owned(),
                data: Recovery { from, missed, gap }.data(),
                last_event_id: String::new(),
            });
        }
        // These are bytes of our own, and not without end.
        let mut decoder = Decoder::new(usize::MAX);
        let start = format!("id: {}\n\n", self.start);
        let private = self.private.iter().map(|(record, _)| record);
        let events = self.records.iter().chain(private);
        let events = events.map(|record| record.message());
        for bytes in iter::once(start.as_bytes()).chain(events) {
            decoder
                .feed(bytes, |message| messages.push(message))
                .expect("BUG: more bytes than there can be");
        }
        Poll {
            messages,
            cursor: self.cursor.to_string(),
        }
    }
}

/// The bytes of an event in an answer, at the most. An answer is JSON, in which a control character takes
/// six bytes, and an event without a name is called `message`.
fn rendered(record: &Record) -> usize {
    json::longest(record.message()) + r#"{"id":"","event":"message","data":""},"#.len()
}

/// A poll that waits. Dropped, it is out of the registry.
struct Poller<'a> {
    shared: &'a Shared,
    lane: Arc<Lane>,
    queue: Receiver<QueueItem>,
}

impl Poller<'_> {
    /// Waits for the first item of the queue, and then reads on in the history.
    fn wait(
        self,
        found: &mut Found,
        wish: &Subscribe,
        wait: Duration,
        is_wanted: impl FnMut() -> bool,
    ) {
        let first = self.first(wait, is_wanted);
        let mut state = self.shared.state();
        let is_gone = state.history.is_gone(found.position);
        let last_id = state.history.last_id();
        let was_registered = if is_gone {
            // It is not known whether some of the events that are gone were for this client, and the fan-out may
            // not have delivered them yet. So the poll ends like a stream that is told to leave: its events come
            // before the end.
            state.close_client(&self.lane, CloseReason::Kicked)
        } else {
            state.registry.remove(&self.lane)
        };
        self.shared.wake_fan_out(state);
        // A poll that was dismissed, or is not wanted any more, returns no event. Its cursor stays where it
        // is, so nothing is lost.
        let (Ok(first), true) = (first, was_registered) else {
            return;
        };
        let next = || match is_gone {
            true => self.queue.recv().ok(),
            false => self.queue.try_recv().ok(),
        };
        let mut woken_by = None;
        for item in first.into_iter().chain(iter::from_fn(next)) {
            match item {
                QueueItem::Events {
                    records,
                    queued: _queued,
                } => woken_by = Some(records),
                QueueItem::Private { record, queued } => found.private = Some((record, queued)),
                QueueItem::Close(_) => break,
                QueueItem::Bytes { .. } => unreachable!("BUG: a poll is told like a stream"),
            }
        }
        match woken_by {
            // What woke the poll may be after much that is not for it.
            _ if !is_gone => while let Ok(Step::More) = found.read_on(self.shared, wish, false) {},
            Some(records) => found.take(records, wish),
            None => found.cursor = last_id,
        }
        if let Some((record, _)) = &found.private {
            found.bytes += rendered(record);
        }
    }

    /// The first item; `None`, if none came in time. Whether the poll is wanted is asked before each wait.
    fn first(
        &self,
        wait: Duration,
        mut is_wanted: impl FnMut() -> bool,
    ) -> Result<Option<QueueItem>, Unwanted> {
        let (start, heartbeat) = (Instant::now(), self.shared.config.heartbeat);
        loop {
            // ORDER: asked before the first wait, too. What decides it may have changed before this poll
            // was in the registry, where those that change it look for polls to end.
            if !self.lane.is_permitted() || !is_wanted() {
                return Err(Unwanted);
            }
            let left = wait.saturating_sub(start.elapsed());
            match self.queue.recv_timeout(left.min(heartbeat)) {
                Ok(item) => return Ok(Some(item)),
                Err(_) if left <= heartbeat => return Ok(None),
                Err(_) => {}
            }
        }
    }
}

/// The poll is not wanted any more.
struct Unwanted;

impl Drop for Poller<'_> {
    fn drop(&mut self) {
        self.shared.state().registry.remove(&self.lane);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::lane::BATON_BYTE;
    use super::*;
    use crate::config::Config;
    use crate::wire::Event;

    fn data(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| &*message.data).collect()
    }

    /// A poll that waits, and the events that are published before its thread runs again.
    fn waited(hub: &Hub, said: impl FnOnce()) -> Poll {
        let wish = Subscribe::default();
        let mut found = Found::after(&hub.shared, Cursor::Now, &wish.patterns).unwrap();
        let step = found.read_on(&hub.shared, &wish, true).unwrap();
        let Step::Waiting(lane, queue) = step else {
            panic!("there was something to read");
        };
        said();
        while hub.shared.state().inbox_bytes > 0 || lane.backlog() <= BATON_BYTE {
            std::thread::yield_now();
        }
        let shared = &hub.shared;
        let poller = Poller {
            shared,
            lane,
            queue,
        };
        poller.wait(&mut found, &wish, Duration::MAX, || true);
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
