//! The events with which a hub starts: none, or the latest events of an earlier run, read
//! from a log.

use super::{Hub, Record};
use crate::wire::{EventId, Topic};

/// The latest events of a log at the moment it is opened. The history of the hub starts
/// with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The id of the event directly before the first of `records`. A client with this
    /// cursor has missed only events that are in `records`. A client with an older cursor
    /// may have missed others.
    pub after: EventId,
    /// The own id of the event `after`, which a client may have as its cursor. `None` is
    /// allowed if the log does not know it; then such a client is told of a gap.
    pub after_own_id: Option<Box<str>>,
    /// The topic of the event `after`. It is used only together with `after_own_id`.
    pub after_topic: Option<Topic>,
    /// The latest events, oldest first.
    pub records: Vec<Record>,
}

impl Kept {
    /// What a new log contains.
    pub fn nothing() -> Kept {
        Kept {
            after: Hub::new_start_id(),
            after_own_id: None,
            after_topic: None,
            records: Vec::new(),
        }
    }

    /// The latest id in the log. Later ids must be greater.
    pub fn last_id(&self) -> EventId {
        self.records.last().map_or(self.after, Record::id)
    }
}
