//! Where events become durable before anybody hears of them: what the hub asks of a log, and what
//! a log hands back when it is opened.
//!
//! An event is kept as the message that clients read, its id line included, so that a replay after
//! a restart is the same bytes as one before it.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::Hub;
use super::record::Record;
use crate::wire::{EventId, Topic};

/// Keeps events.
pub trait Log: Send + fmt::Debug {
    /// Makes these events, one or more, durable, in this order, all or none. Their ids rise, and are greater
    /// than all before them. Blocks for as long as the log's disk or network takes; one thread
    /// calls it at a time.
    ///
    /// How much `Ok` promises, and what it outlives, is for each log to say. A process that is
    /// killed in the middle may have kept the first few, of which then nobody was told.
    ///
    /// # Errors
    ///
    /// None of the events was kept: the disk is full, or broken, or the other end has gone. The
    /// log is as it was before, or will be before it takes anything else, so the caller may go on
    /// and call it again with these events or with others.
    fn append(&mut self, records: &[Arc<Record>]) -> io::Result<()>;

    /// Tries whether an append would succeed, after one has failed, and keeps nothing. It is called while
    /// there are no publishers, for callers of [`Hub::log_failure`], and may block as an append may.
    ///
    /// A log that cannot try it returns `Ok`, as the default does; then the next append shows whether the
    /// log works.
    ///
    /// # Errors
    ///
    /// An append would fail, for this reason.
    fn probe(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a log has when it is opened: what a history is to be filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The id before the first of `records`. Whoever is there has missed nothing that `records`
    /// does not have; whoever is before it may have.
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
            after: Hub::birth(),
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
