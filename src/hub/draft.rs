//! From an event to a record of the history, in the two steps that the lock asks for: what can be
//! made without it is a *draft*; the id and the place need it.

use std::collections::HashSet;
use std::sync::Arc;

use super::history::Record;
use super::own_ids::OwnId;
use super::{PublishError, State};
use crate::wire::{Event, EventId, Frame, Topic, encode_id};

/// An event made into bytes, but for the id that it will have.
#[derive(Debug)]
pub(super) struct Draft {
    own_id: Option<OwnId>,
    topic: Option<Topic>,
    pub(super) behind_id: Vec<u8>,
}

impl Draft {
    pub(super) fn new(event: Event) -> Draft {
        let mut behind_id = Vec::new();
        event.encode_behind_id(&mut behind_id);
        Draft {
            own_id: event.id().map(|id| OwnId::new(id, event.topic())),
            topic: event.topic().cloned(),
            behind_id,
        }
    }
}

/// Gives drafts their ids and their places.
pub(super) struct Drawing<'a> {
    state: &'a mut State,
    /// Where the next one will be in the history.
    ordinal: u64,
    /// Publishers' ids among what was drawn so far.
    own_ids: HashSet<OwnId>,
}

impl Drawing<'_> {
    pub(super) fn new(state: &mut State) -> Drawing<'_> {
        Drawing {
            ordinal: state.history.head(),
            state,
            own_ids: HashSet::new(),
        }
    }

    /// All of these, or none if the id of one is taken on its topic.
    pub(super) fn draw(&mut self, drafts: Vec<Draft>) -> Result<Vec<Drawn>, PublishError> {
        let mut fresh = HashSet::new();
        for draft in &drafts {
            let Some(own_id) = &draft.own_id else {
                continue;
            };
            let is_taken = self.own_ids.contains(own_id) || self.state.history.has_own_id(own_id);
            if is_taken || !fresh.insert(own_id.clone()) {
                return Err(PublishError::IdTaken {
                    id: own_id.id().to_owned(),
                    topic: draft.topic.clone(),
                });
            }
        }
        self.own_ids.extend(fresh);
        Ok(drafts.into_iter().map(|draft| self.place(draft)).collect())
    }

    fn place(&mut self, draft: Draft) -> Drawn {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        let id = self.state.next_id();
        Drawn { draft, ordinal, id }
    }
}

/// A draft with its id and its place, that is not published yet.
pub(super) struct Drawn {
    draft: Draft,
    ordinal: u64,
    id: EventId,
}

impl Drawn {
    /// LOCK: not held for many of them: ten thousand take some 4 ms.
    pub(super) fn record(self) -> Arc<Record> {
        let Drawn { draft, ordinal, id } = self;
        let mut id_line = Vec::with_capacity(32);
        match &draft.own_id {
            Some(own_id) => encode_id(own_id.id(), &mut id_line),
            None => encode_id(&id.to_string(), &mut id_line),
        }
        Arc::new(Record {
            ordinal,
            id,
            frame: Frame::of(&[&id_line, &draft.behind_id]),
            own_id: draft.own_id,
            topic: draft.topic,
        })
    }
}
