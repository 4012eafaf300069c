//! The one thread that carries events from the hub to every lane.
//!
//! It takes all that has gathered while it worked as one batch: at rest that is one event, which
//! goes out at once; under load it is many, which share a write. There is no timer and nothing
//! to tune. It waits for no client, so what a publisher waits for room in the inbox is bounded
//! by one pass over the sockets.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::counters::Sent;
use super::history::Record;
use super::lane::Lane;
use super::registry::{Lanes, Registry};
use super::{Farewell, Shared};
use crate::wire::{Frame, Framing};

/// What publishers and others leave for the fan-out, in order.
#[derive(Debug)]
pub(super) enum Item {
    /// For all who asked for it.
    Event(Arc<Record>),
    /// For one client.
    Private(Arc<Lane>, Frame),
    /// The end of one stream.
    Farewell(Arc<Lane>, Farewell),
}

impl Item {
    /// What it counts for in the inbox.
    pub(super) fn size(&self) -> usize {
        match self {
            Item::Event(record) => record.frame.len(),
            Item::Private(_, frame) => frame.len(),
            Item::Farewell(..) => 0,
        }
    }

    /// Who is told to leave by this, and was taken out of the registry when it was left.
    fn dismissed(&self) -> Option<Arc<Lane>> {
        match self {
            Item::Farewell(_, Farewell::ServerClosing) => None,
            Item::Farewell(lane, _) => Some(Arc::clone(lane)),
            Item::Event(_) | Item::Private(..) => None,
        }
    }
}

/// What can be done without the lock.
pub(super) enum Step {
    Deliver(Lanes, Rc<Parcel>),
    Private(Arc<Lane>, Frame),
    Farewell(Arc<Lane>, Farewell),
}

/// The thread: it ends when the hub does.
pub(super) fn run(shared: &Shared) {
    while let Some(steps) = shared.next_batch() {
        let now_ms = shared.now_ms();
        for step in steps {
            match step {
                Step::Deliver(lanes, parcel) => {
                    let mut sent = Sent::default();
                    for lane in lanes.iter() {
                        sent += parcel.offer_to(lane, now_ms);
                    }
                    shared.counters.add(sent);
                }
                Step::Private(lane, frame) => {
                    let sent = lane.offer(&frame.shared(lane.framing), 1, now_ms);
                    shared.counters.add(sent);
                }
                Step::Farewell(lane, farewell) => lane.end(farewell, now_ms),
            }
        }
    }
}

/// Turns a batch into steps, under the lock: who is listening is decided here.
pub(super) fn plan(items: Vec<Item>, registry: &Registry) -> Vec<Step> {
    let (mut steps, mut events) = (Vec::new(), Vec::new());
    // Who is told to leave in this batch is out of the registry already, but not yet deaf: what
    // was published before is for it too.
    let mut leaving: VecDeque<Arc<Lane>> = items.iter().filter_map(Item::dismissed).collect();
    for item in items {
        let step = match item {
            Item::Event(record) => {
                events.push(record);
                continue;
            }
            Item::Private(lane, frame) => Step::Private(lane, frame),
            Item::Farewell(lane, farewell) => Step::Farewell(lane, farewell),
        };
        // ORDER: what was said before goes out before.
        plan_leaving(&events, &leaving, &mut steps);
        plan_events(std::mem::take(&mut events), registry, &mut steps);
        if let Step::Farewell(lane, _) = &step
            && leaving
                .front()
                .is_some_and(|first| Arc::ptr_eq(first, lane))
        {
            leaving.pop_front();
        }
        steps.push(step);
    }
    plan_events(events, registry, &mut steps);
    steps
}

/// A step for each of those who leave, with the events that it asked for.
fn plan_leaving(events: &[Arc<Record>], leaving: &VecDeque<Arc<Lane>>, steps: &mut Vec<Step>) {
    // Many may leave in one batch with nothing said between them.
    if events.is_empty() {
        return;
    }
    for lane in leaving {
        let own = events
            .iter()
            .filter(|event| lane.patterns.matches(event.topic.as_ref()));
        let parcel = Parcel::new(own.cloned().collect());
        steps.push(Step::Deliver(
            Arc::new(vec![Arc::clone(lane)]),
            Rc::new(parcel),
        ));
    }
}

/// A step for each audience that any of the events reaches, with all the events that reach it.
fn plan_events(events: Vec<Arc<Record>>, registry: &Registry, steps: &mut Vec<Step>) {
    let Some(first) = events.first() else { return };
    if events.iter().all(|event| event.topic == first.topic) {
        let reached = registry.reached_by(first.topic.as_ref());
        let parcel = Rc::new(Parcel::new(events));
        steps.extend(
            reached
                .into_iter()
                .map(|audience| Step::Deliver(registry.lanes_of(audience), Rc::clone(&parcel))),
        );
        return;
    }
    let mut parcels: HashMap<usize, Vec<Arc<Record>>> = HashMap::new();
    for event in events {
        for audience in registry.reached_by(event.topic.as_ref()) {
            parcels
                .entry(audience)
                .or_default()
                .push(Arc::clone(&event));
        }
    }
    steps.extend(parcels.into_iter().map(|(audience, events)| {
        Step::Deliver(registry.lanes_of(audience), Rc::new(Parcel::new(events)))
    }));
}

/// The events of a batch that go to the same lanes, joined once for all of them.
pub(super) struct Parcel {
    events: Vec<Arc<Record>>,
    chunked: OnceCell<Arc<[u8]>>,
    bare: OnceCell<Arc<[u8]>>,
}

impl Parcel {
    fn new(events: Vec<Arc<Record>>) -> Parcel {
        Parcel {
            events,
            chunked: OnceCell::new(),
            bare: OnceCell::new(),
        }
    }

    fn offer_to(&self, lane: &Lane, now_ms: u64) -> Sent {
        // Ordinals rise: if the first is due, all are. Otherwise the lane went live in the middle
        // of this batch, or behind it: the part before it has been read from the history.
        let due = match self
            .events
            .iter()
            .position(|event| lane.is_due(event.ordinal))
        {
            Some(behind) => &self.events[behind..],
            None => return Sent::default(),
        };
        let count = due.len() as u32;
        if due.len() == self.events.len() {
            lane.offer(self.joined(lane.framing), count, now_ms)
        } else {
            lane.offer(&join(due, lane.framing), count, now_ms)
        }
    }

    fn joined(&self, framing: Framing) -> &Arc<[u8]> {
        let cell = match framing {
            Framing::Chunked => &self.chunked,
            Framing::Bare => &self.bare,
        };
        cell.get_or_init(|| join(&self.events, framing))
    }
}

fn join(events: &[Arc<Record>], framing: Framing) -> Arc<[u8]> {
    match events {
        [one] => one.frame.shared(framing),
        many => {
            let mut bytes = Vec::with_capacity(many.iter().map(|event| event.frame.len()).sum());
            many.iter()
                .for_each(|event| bytes.extend_from_slice(event.frame.bytes(framing)));
            bytes.into()
        }
    }
}
