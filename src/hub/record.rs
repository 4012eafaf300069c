//! One event as the hub keeps it, from the publisher to the history, to the log, and back
//! from the log.
//!
//! A record is the message that clients read, together with the values that the hub
//! needs: id, ordinal, own id and topic. The message is encoded before the hub's lock is
//! taken, with room at its front for the line of the id, because the id is assigned under
//! the lock. Under the lock only this line is written ([`Record::assign`]): the time
//! under the lock does not depend on the size of the event.
//!
//! ```text
//! before:  ..............................................data: hello\n\n      start = 46, id unknown
//! after:   ..................id: 1795326004711-731902466\ndata: hello\n\n      start = 18
//! ```
//!
//! Once it has its id, a record never changes. History, queues and polls share it by
//! `Arc`.

use std::fmt;
use std::io::Write;

use super::own_ids::OwnId;
use crate::config::EVENT_OVERHEAD;
use crate::wire::{Event, EventId, Topic};

/// One event that was published, or is about to be.
#[derive(Clone)]
pub struct Record {
    /// The hub's id. It orders the events, also those with an own id.
    id: EventId,
    /// The position among all events of this run of the hub, counted from 0. "All events
    /// after this one" is then an index into the history and not a search. Ordinals never
    /// leave the hub.
    ordinal: u64,
    /// The publisher's own id, which is on the wire instead of `id`.
    own_id: Option<OwnId>,
    topic: Option<Topic>,
    /// The message, after the unused part of the room for its id.
    bytes: Box<[u8]>,
    /// The position of the message in `bytes`: at most [`ROOM`].
    start: u8,
}

/// The longest line of an id, in bytes: `id: `, two numbers of 20 digits, a hyphen
/// between them, and the line break.
const ROOM: usize = 46;

impl Record {
    /// A record of an event that has neither id nor ordinal yet.
    pub(super) fn new(event: &Event) -> Record {
        let room = if event.id().is_some() { 0 } else { ROOM };
        let mut bytes = Vec::with_capacity(room + event.encoded_len());
        bytes.resize(room, 0);
        event.encode(&mut bytes);
        Record {
            own_id: event.id().map(|id| OwnId::new(id, event.topic())),
            topic: event.topic().cloned(),
            bytes: bytes.into(),
            start: room as u8,
            id: EventId::default(),
            ordinal: 0,
        }
    }

    /// A record that is read back from a log. `message` is what
    /// [`message`](Self::message) returned when the event was appended; `own_id` is the
    /// id in the message, if that is not the hub's id.
    pub fn kept(
        id: EventId,
        own_id: Option<&str>,
        topic: Option<Topic>,
        message: Vec<u8>,
    ) -> Record {
        Record {
            own_id: own_id.map(|id| OwnId::new(id, topic.as_ref())),
            topic,
            bytes: message.into(),
            start: 0,
            id,
            ordinal: 0,
        }
    }

    /// Assigns the id and the ordinal, and writes the id's line in front of the message.
    /// With an own id the message already has its line. Called under the hub's lock, once
    /// per record.
    pub(super) fn assign(&mut self, id: EventId, ordinal: u64) {
        (self.id, self.ordinal) = (id, ordinal);
        if self.own_id.is_some() {
            return;
        }
        let mut line = [0; ROOM];
        let mut rest = &mut line[..];
        writeln!(rest, "id: {id}").expect("BUG: an id that is longer than the longest");
        let length = ROOM - rest.len();
        self.start = (ROOM - length) as u8;
        self.bytes[ROOM - length..ROOM].copy_from_slice(&line[..length]);
    }

    /// Assigns the ordinal to a record from a log, which has its id.
    pub(super) fn at(self, ordinal: u64) -> Record {
        Record { ordinal, ..self }
    }

    /// The hub's id, also if another id is on the wire.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The publisher's own id, if the event has one.
    pub fn own_id(&self) -> Option<&str> {
        self.own_id.as_ref().map(OwnId::id)
    }

    /// The topic. Every client gets an event without one.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// The message as it is on the wire, without chunks: from the line of the id to the
    /// empty line.
    pub fn message(&self) -> &[u8] {
        &self.bytes[self.start.into()..]
    }

    pub(super) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// The publisher's own id together with the topic: the key under which the history
    /// finds the event.
    pub(super) fn own_id_on_topic(&self) -> Option<&OwnId> {
        self.own_id.as_ref()
    }

    /// About how many bytes of memory the event takes: its parts, and the overhead of
    /// allocator and indexes. Bounds the memory of a history of many tiny events, of
    /// which the message is the smallest part.
    pub(super) fn memory(&self) -> usize {
        let topic = self.topic.as_ref().map_or(0, |topic| topic.as_str().len());
        // The text of an own id contains the topic too.
        let own_id = self.own_id.as_ref().map_or(0, OwnId::len);
        size_of::<Record>() + EVENT_OVERHEAD / 2 + self.bytes.len() + topic + own_id
    }
}

/// The ordinal is not compared: the same event has another one after a restart.
impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.id == other.id
            && self.own_id == other.own_id
            && self.topic == other.topic
            && self.message() == other.message()
    }
}

impl Eq for Record {}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("own_id", &self.own_id())
            .field("topic", &self.topic)
            .field("message", &String::from_utf8_lossy(self.message()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_written_into_the_room_in_front_of_the_message() {
        let event = Event::new("data").with_name("name").unwrap();
        let own = event.clone().with_id("own").unwrap();
        for seq in [0, 7, 1 << 30, u64::MAX] {
            for ms in [0, 1_763_790_000_123, u64::MAX] {
                let id = EventId { ms, seq };
                let lines = "event: name\ndata: data\n\n";
                for (event, on_wire) in [(&event, &*id.to_string()), (&own, "own")] {
                    let mut record = Record::new(event);
                    record.assign(id, 5);
                    let message = format!("id: {on_wire}\n{lines}");
                    assert_eq!(String::from_utf8_lossy(record.message()), message);
                    let kept = Record::kept(id, event.id(), None, message.into());
                    assert_eq!(record, kept);
                    assert_eq!((record.id(), record.own_id()), (id, event.id()));
                }
            }
        }
    }

    #[test]
    fn the_bytes_of_an_ordinary_event_are_allocated_once() {
        let ordinary = Event::new("data").with_name("name").unwrap();
        for event in [ordinary.clone(), ordinary.with_id("own").unwrap()] {
            let mut bytes = Vec::with_capacity(event.encoded_len());
            event.encode(&mut bytes);
            assert_eq!(bytes.len(), event.encoded_len());
            assert_eq!(bytes.capacity(), bytes.len());
        }
    }
}
