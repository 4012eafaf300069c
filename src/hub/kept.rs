//! What a hub begins with: nothing, or the latest events of an earlier life, out of a log.

use super::{Hub, Record};
use crate::wire::{EventId, Topic};

/// The events that a log has when it is opened. A history begins with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The id before the first of `records`. A client at this id has missed nothing that `records`
    /// does not have; a client before it may have.
    pub after: EventId,
    /// The publisher's own id of the event `after`, if that was on the wire: a client may have it as its
    /// cursor. `None` is also right if the log does not know it; such a client is then told of a gap.
    pub after_own_id: Option<Box<str>>,
    /// The topic of the event `after`. It only matters together with `after_own_id`.
    pub after_topic: Option<Topic>,
    /// The latest events, in their order.
    pub records: Vec<Record>,
}

impl Kept {
    /// Of a log that is new.
    pub fn nothing() -> Kept {
        Kept {
            after: Hub::new_start_id(),
            after_own_id: None,
            after_topic: None,
            records: Vec::new(),
        }
    }

    /// The latest id that the log knows of. Ids to come must be greater.
    pub fn last_id(&self) -> EventId {
        self.records.last().map_or(self.after, Record::id)
    }
}
