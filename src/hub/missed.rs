//! Counts how many events a client has missed, without holding the hub's lock for long.
//!
//! The `recovery` event contains this number, and it is sent before the missed events. A
//! history may have 100,000 events. Comparing all their topics takes many milliseconds,
//! and no publisher could publish meanwhile. So the events are counted in slices of
//! [`SLICE_EVENTS`]: the lock is held to copy a slice, and not while its topics are
//! compared. The newest slice is counted first, because the history evicts the oldest
//! events: what was counted stays valid. The last step runs under the lock that also
//! registers the client. It only counts the rest: the oldest part, and the events that
//! were published meanwhile.
//!
//! ```text
//!  cursor                                             head            head now
//!    │ rest │ slice 3 │ slice 2 │ slice 1 │               │ slice 4 │ rest │
//!      under the lock ◀── counted ahead, newest first     counted ahead
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::history::{Cursor, History};
use super::record::Record;
use super::state::Shared;
use crate::config::SLICE_EVENTS;
use crate::wire::{Pattern, Patterns};

/// The slices that were counted ahead.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// The ordinals of each slice, and how many of its events the client gets. Oldest
    /// first, without gaps between slices.
    slices: VecDeque<(Range<u64>, usize)>,
}

impl Missed {
    /// Counts the events after `cursor`, except for about two slices. Locks the hub once
    /// per slice. A client that gets every event, or has no cursor, needs no counting.
    pub(super) fn count_ahead(shared: &Shared, cursor: &Cursor, patterns: &Patterns) -> Missed {
        let mut missed = Missed::default();
        if *cursor == Cursor::Now || patterns.covers(&Pattern::all()) {
            return missed;
        }
        let state = shared.state();
        let ((start, _), head) = (
            state.history.resolve(cursor, patterns),
            state.history.head(),
        );
        drop(state);
        let (mut from, mut to) = (head, head);
        while from - start > SLICE {
            let Some(count) = count_slice(shared, from - SLICE..from, patterns) else {
                break;
            };
            missed.slices.push_front((from - SLICE..from, count));
            from -= SLICE;
        }
        // Then it counts the events that were published meanwhile. LIMIT: as many slices
        // as before, because a publisher could be as fast as this loop.
        for _ in 0..missed.slices.len() {
            let Some(count) = count_slice(shared, to..to + SLICE, patterns) else {
                break;
            };
            missed.slices.push_back((to..to + SLICE, count));
            to += SLICE;
        }
        missed
    }

    /// Returns the number of events from `start` on that a client with these patterns
    /// gets. The hub's lock is held.
    pub(super) fn total(mut self, history: &History, start: u64, patterns: &Patterns) -> usize {
        let head = history.head();
        if patterns.covers(&Pattern::all()) {
            return (head - start) as usize;
        }
        self.slices.retain(|(range, _)| range.start >= start);
        let oldest = self.slices.front().map_or(start, |(range, _)| range.start);
        let newest = self.slices.back().map_or(start, |(range, _)| range.end);
        let ahead: usize = self.slices.iter().map(|(_, count)| count).sum();
        // LIMIT: about one slice at the old end, and the events since the counting ended.
        let rest = history.between(start..oldest);
        ahead + count(rest.chain(history.between(newest..head)), patterns)
    }
}

/// [`SLICE_EVENTS`] as an ordinal.
const SLICE: u64 = SLICE_EVENTS as u64;

/// Counts the events of a slice that the client gets. `None` if some were evicted, or are
/// not published yet.
fn count_slice(shared: &Shared, ordinals: Range<u64>, patterns: &Patterns) -> Option<usize> {
    let state = shared.state();
    let records: Vec<_> = state.history.between(ordinals.clone()).cloned().collect();
    drop(state);
    let is_whole = records.len() as u64 == ordinals.end - ordinals.start;
    is_whole.then(|| count(records.iter(), patterns))
}

fn count<'a>(records: impl Iterator<Item = &'a Arc<Record>>, patterns: &Patterns) -> usize {
    records
        .filter(|record| patterns.matches(record.topic()))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Random;
    use crate::config::Config;
    use crate::hub::Hub;
    use crate::wire::{Event, Topic};

    fn event(random: &mut Random) -> Event {
        let topic = Topic::new(random.pick(&["a", "b", "c"])).unwrap();
        Event::new("").with_topic(topic)
    }

    #[test]
    fn counting_in_slices_gives_the_final_number() {
        let mut random = Random::new();
        let config = Config {
            history_events: 5 * SLICE_EVENTS,
            queue_bytes: 1000,
            ..Config::default()
        };
        let hub = Hub::new(config).unwrap();
        let patterns: Patterns = [Pattern::new("a").unwrap()].into_iter().collect();
        for _ in 0..40 {
            let publish = |count: usize, random: &mut Random| {
                let events = (0..count).map(|_| event(random)).collect();
                hub.publish_all(events).unwrap();
            };
            publish(random.below(3 * SLICE_EVENTS), &mut random);
            let state = hub.shared.state();
            let length = state.history.extent().events as u64;
            let oldest = state.history.head() - length;
            let id = state
                .history
                .id_before(oldest + random.below(length as usize + 1) as u64);
            drop(state);
            let cursor = Cursor::After(id.to_string());
            let missed = Missed::count_ahead(&hub.shared, &cursor, &patterns);
            // Said, and evicted, between the counting and the last step.
            publish(random.below(2 * SLICE_EVENTS), &mut random);
            let state = hub.shared.state();
            let (start, _) = state.history.resolve(&cursor, &patterns);
            let all = state.history.between(start..u64::MAX);
            let expected = count(all, &patterns);
            assert_eq!(missed.total(&state.history, start, &patterns), expected);
        }
    }
}
