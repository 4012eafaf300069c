//! One event, from the publisher to the history, to the log and back.
//!
//! A record is the message that clients read, together with what the hub has to know of it. Its bytes are
//! made before the hub's lock is taken, with room for the line of the id at the front. Under the
//! lock only that line is written: [`Record::assign`].

use std::fmt;
use std::io::Write;

use super::own_ids::OwnId;
use crate::config::EVENT_OVERHEAD;
use crate::wire::{Event, EventId, Topic};

/// One event that was published, or is about to be.
#[derive(Clone)]
pub struct Record {
    id: EventId,
    /// The place in this hub's life, counted from 0, so that "every event after this one" is an index
    /// and not a search. Ordinals never leave the hub.
    ordinal: u64,
    /// The publisher's own id, which is on the wire in place of `id`.
    own_id: Option<OwnId>,
    topic: Option<Topic>,
    /// The message, and before it the part of the room for its id that is not used.
    bytes: Box<[u8]>,
    /// Where the message begins.
    start: u8,
}

/// The longest line of an id: `id: `, two numbers of 20 digits, what parts them, and the line break.
const ROOM: usize = 46;

impl Record {
    /// A record of an event that has no id and no place yet.
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

    /// An event that a log has kept. `message` is what [`message`](Self::message) returned, and `own_id` the
    /// id in it, if that is not the hub's.
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

    /// Gives the event its id and its place. A publisher's own id stays on the wire.
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

    /// Gives the place to an event that has its id: one that a log has kept.
    pub(super) fn at(self, ordinal: u64) -> Record {
        Record { ordinal, ..self }
    }

    /// The place in the order of the hub, whatever id is on the wire.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The publisher's own id, if that is on the wire.
    pub fn own_id(&self) -> Option<&str> {
        self.own_id.as_ref().map(OwnId::id)
    }

    /// The topic. `None`: the event is for every client.
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// The message as it is on the wire, without chunks: its id line first, its empty line last.
    pub fn message(&self) -> &[u8] {
        &self.bytes[self.start.into()..]
    }

    pub(super) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// The publisher's own id, together with the topic.
    pub(super) fn own_id_on_topic(&self) -> Option<&OwnId> {
        self.own_id.as_ref()
    }

    /// What the event takes in memory, about: its parts, and what the allocator and the indexes add.
    pub(super) fn memory(&self) -> usize {
        let topic = self.topic.as_ref().map_or(0, |topic| topic.as_str().len());
        // The text of an own id has the topic in it, too.
        let own_id = self.own_id.as_ref().map_or(0, OwnId::len);
        size_of::<Record>() + EVENT_OVERHEAD / 2 + self.bytes.len() + topic + own_id
    }
}

/// The place in a hub's life is not compared: after a restart it is another one.
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
    fn the_id_is_written_where_room_was_left_for_it() {
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
