//! A poll: one answer instead of a stream, for clients that cannot read a stream. The
//! answer has the events that the client missed, or else the first events that are
//! published while it waits.
//!
//! Every answer is read from the history, in pieces ([`Found::read_on`]). If there is no
//! event for the client, the poll registers a lane, as a stream does, but without a
//! socket, and waits at its queue ([`Poller::wait`]). The first item in the queue wakes
//! the poll. Then it leaves the registry and continues reading the history from where it
//! stopped, up to the limit of an answer: also the events that were published after the
//! one that woke it. Only events that the history does not hold are taken from the queue:
//! an event for this client alone, and the events that woke the poll, if the history
//! keeps none.
//!
//! Why not answer with the queue alone? A poll would have to hold every event that is
//! published until its thread runs. So its queue has at most one item of each kind, and
//! memory is bounded however slow the thread is.
//!
//! A poll runs on the worker thread of its connection, and blocks it for as long as it
//! waits.
//!
//! ```text
//! GET /poll?topic=a&wait=30, Last-Event-ID: 7             the history has 8 (topic b) and 9 (topic b)
//! Found::after      the position is 8
//! Found::read_on    8 and 9 are not for this client; the position is 10, the end: register, wait
//!                   event 10 (topic b) is published: the fan-out does not reach this poll
//!                   event 11 (topic a) is published: the fan-out puts it into the queue
//!                   event 12 (topic a) is published: the queue has an item already
//! Poller::wait      wakes, leaves the registry, reads on from position 10: finds 11 and 12
//! the answer        [11, 12], Last-Event-ID: 12
//! ```

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

/// The result of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Poll {
    /// The events in order, as a browser's `EventSource` would dispatch them. If events
    /// were lost, the first one is a `recovery` event, without an id, that says so.
    pub messages: Vec<Message>,
    /// The cursor of the next poll, for its `Cursor::After`: the id of the last event
    /// that was looked at, whether this client gets that event or not. It is always an id
    /// of the hub, never an own id.
    pub cursor: String,
}

impl Hub {
    /// Returns the events that the client has missed, or else the first events that are
    /// published within `wait`; none, if none is published. If each poll continues from
    /// the cursor of the poll before, no event is lost between two polls. An event [for
    /// one client](Hub::send_to) reaches a poll only while it waits. One poll returns
    /// about 64 KiB of missed events, measured as JSON.
    ///
    /// Blocks for up to `wait`, and counts as a client meanwhile. [`close`](Hub::close),
    /// [`disconnect`](Hub::disconnect) and another client that takes over its id end the
    /// wait at once; then the poll returns what it has found.
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
    /// The hub is closed; a client with another credential has the id; or the poll would
    /// have to wait, and the limit of clients is reached.
    pub fn poll(&self, wish: Subscribe, wait: Duration) -> Result<Poll, SubscribeError> {
        self.poll_while(wish, wait, || true)
    }

    /// [`poll`](Self::poll) for a client that may disconnect before the answer is
    /// complete. `is_wanted` is called before the wait, and then once per
    /// `Config::heartbeat`. When it returns false, the poll returns no events, and the
    /// events that arrived meanwhile are left for the next poll.
    ///
    /// # Errors
    ///
    /// The errors of [`poll`](Self::poll).
    pub fn poll_while(
        &self,
        wish: Subscribe,
        wait: Duration,
        is_wanted: impl FnMut() -> bool,
    ) -> Result<Poll, SubscribeError> {
        Ok(self.find(wish, wait, is_wanted)?.into_poll())
    }

    /// [`poll_while`](Self::poll_while) without decoding the messages yet. Until then the
    /// result only shares records with the history, so that the caller can reserve the
    /// memory of the answer first. Blocks as `poll_while` does.
    ///
    /// # Errors
    ///
    /// The errors of [`poll`](Self::poll).
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
        // The statistics count the events of an answer as delivered.
        shared.counters.add(Sent {
            events: (found.records.len() + usize::from(found.private.is_some())) as u64,
            bytes: 0,
        });
        Ok(found)
    }
}

/// The events that a poll has found so far, not decoded yet. Used by the thread of the
/// poll alone.
pub(crate) struct Found {
    /// The events for this client, in order. They are shared with the history.
    records: Vec<Arc<Record>>,
    /// An event for this client alone. It counts as queued until it is part of the
    /// answer.
    private: Option<(Arc<Record>, Queued)>,
    /// The size of the answer in bytes, at most. LIMIT: [`POLL_BYTES`], one more event,
    /// and the private event. The whole answer is in memory at once.
    bytes: usize,
    /// The ordinal of the event to look at next.
    position: u64,
    /// The id of the event before `position`: the cursor of the next poll.
    cursor: EventId,
    /// The cursor before the first of the events, for decoding: an event without an id
    /// has this one.
    start: EventId,
    /// The cursor that the client sent.
    asked: Cursor,
    /// Why events after `asked` were lost, if they were.
    gap: Option<Gap>,
    /// The number of events for this client in the history after its cursor. Only used
    /// with a gap.
    missed: usize,
}

/// What to do after a piece of the history was read.
enum Step {
    /// Read the next piece.
    More,
    /// The answer is complete.
    Done,
    /// Wait: the history has no event for this client, and the client is now registered.
    Waiting(Arc<Lane>, Receiver<QueueItem>),
}

impl Found {
    /// Finds the position of a cursor in the history. No event is read yet.
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

    /// Reads the next piece of the history. At its end, if `may_wait`, the poll is
    /// registered as a client.
    ///
    /// ORDER: under the same lock that finds the end of the history. Otherwise an event
    /// that is published between the two would be neither read nor queued.
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
            // The history has evicted the next event before the poll has read it. What
            // was found so far is an answer. If nothing was found, the evicted events may
            // have been for this client, and the cursor is resolved again, which tells
            // the gap.
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

    /// Adds the events that this client gets, up to the limit of an answer, and moves the
    /// position past them.
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

    /// The size of the answer as JSON, in bytes, at most.
    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// Decodes the messages, as the client of a stream would.
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
        // The bytes are the hub's own and bounded by `size`, so the decoder needs no
        // limit.
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

/// The size of an event in an answer, in bytes, at most. In JSON a control character
/// takes up to six bytes, and an event without a name gets the name `message`.
fn rendered(record: &Record) -> usize {
    json::longest(record.message()) + r#"{"id":"","event":"message","data":""},"#.len()
}

/// A poll that waits: a client in the registry with a lane, but without a socket.
/// Dropping it removes the client.
struct Poller<'a> {
    shared: &'a Shared,
    lane: Arc<Lane>,
    queue: Receiver<QueueItem>,
}

impl Poller<'_> {
    /// Waits for the first item in the queue, removes the client, and completes the
    /// answer.
    ///
    /// The invariant: `found.cursor` never passes an event that this client should get
    /// and that is not in `found`. So whatever interrupts the poll, the next poll gets
    /// the rest. Four cases after the wait:
    ///
    /// 1. The poll was closed meanwhile, or its client has gone: it returns no events,
    ///    and the cursor has not moved.
    /// 2. The history still has the event at `position`: read on from there. The items of
    ///    the queue only served to wake the poll, except for an event for this client
    ///    alone.
    /// 3. The history has evicted the event at `position` (in a tiny history even the one
    ///    that woke the poll): the queue has the events that woke the poll, and they are
    ///    the answer. The fan-out may not have delivered them yet, so the poll waits for
    ///    its close item, which comes after them.
    /// 4. The same, and no event woke the poll: the evicted events were not for this
    ///    client, so the cursor may move to the latest event.
    fn wait(
        self,
        found: &mut Found,
        wish: &Subscribe,
        wait: Duration,
        is_wanted: impl FnMut() -> bool,
    ) {
        let end = self.lane.permit_end();
        let until_end = end.map(|end| end.saturating_duration_since(Instant::now()));
        let first = self.first(wait.min(until_end.unwrap_or(wait)), is_wanted);
        let mut state = self.shared.state();
        let is_gone = state.history.is_gone(found.position);
        let last_id = state.history.last_id();
        let was_registered = if is_gone {
            // Cases 3 and 4. The poll is closed like a stream: every event that it should
            // get comes before the close item.
            state.close_client(&self.lane, CloseReason::Kicked)
        } else {
            state.registry.remove(&self.lane)
        };
        self.shared.wake_fan_out(state);
        // Case 1.
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
            // Case 2. The piece that woke the poll may come after many events that are
            // not for this client.
            _ if !is_gone => while let Ok(Step::More) = found.read_on(self.shared, wish, false) {},
            Some(records) => found.take(records, wish),
            None => found.cursor = last_id,
        }
        if let Some((record, _)) = &found.private {
            found.bytes += rendered(record);
        }
    }

    /// Waits for the first item in the queue. `None`: the time is up. An error: the
    /// client has gone, or its permit was revoked; this is asked before each wait of one
    /// heartbeat.
    fn first(
        &self,
        wait: Duration,
        mut is_wanted: impl FnMut() -> bool,
    ) -> Result<Option<QueueItem>, Unwanted> {
        let (start, heartbeat) = (Instant::now(), self.shared.config.heartbeat);
        loop {
            // ORDER: also before the first wait. The rules may have changed just before
            // this poll was registered; then the thread that changed them has not found
            // the poll in the registry.
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
    fn a_woken_poll_has_one_item_in_its_queue_and_answers_from_the_history() {
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
    fn a_poll_gets_the_events_that_woke_it_even_if_the_history_keeps_none() {
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
    fn an_event_after_one_for_the_poll_alone_is_not_lost_if_the_history_keeps_none() {
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
