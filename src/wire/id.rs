//! Event ids, `<milliseconds>-<sequence>`: ordered, never reused, in the form that Redis
//! streams use.
//!
//! Because ids are ordered, the hub can tell that an id is *older* than the whole history
//! even if the event itself has been evicted: then the client has missed events. An
//! unordered id would only be unknown.
//!
//! Two servers may assign ids in the same milliseconds, and so may a server before and
//! after a restart. To keep their ids apart, each run of a hub begins its sequence
//! numbers at a random number: see [`Ids`]. A cursor of another run is then most likely
//! recognized as `unknown`, and never resumed at an unrelated event.

use std::fmt;
use std::str::FromStr;

/// The sequence numbers of a run begin at a random number from 1 to one less than this.
///
/// If two runs assign up to `n` ids in the same millisecond, they share an id with a
/// probability of about `2n / 2^30`: 2·10^-9 at one event per millisecond, 2·10^-6 at a
/// million events per second. The random number makes an id at most nine characters
/// longer.
pub(crate) const FIRST_NUMBERS: u64 = 1 << 30;

/// The id of an event: its position in the order of all events of a hub. Ids compare by
/// time, then by sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Milliseconds since the Unix epoch at which the event was accepted. Never less than
    /// in an earlier event, even if the clock was set back.
    pub ms: u64,
    /// Counts the events within the millisecond, from a number that is random for each
    /// run of the hub.
    pub seq: u64,
}

/// Assigns the ids of one run of a hub, in order. Used under the hub's lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    /// The sequence number of the first id in each millisecond.
    first: u64,
    /// The latest id. Before the first event: an id that no event has.
    last: EventId,
}

impl Ids {
    /// The ids of a run that follows the event `last` of an earlier run. The sequence
    /// numbers begin at a number that is derived from `random`.
    ///
    /// The first id has a later millisecond than `last`, even if the clock was set back:
    /// the earlier run may have assigned more ids in the millisecond of `last` than the
    /// log has kept.
    ///
    /// Returns `None` if `last` is so large that no id can follow.
    pub(crate) fn after(last: EventId, random: u64) -> Option<Ids> {
        let first = 1 + random % (FIRST_NUMBERS - 1);
        let last = EventId {
            ms: last.ms.checked_add(1)?,
            seq: first - 1,
        };
        Some(Ids { first, last })
    }

    /// Returns the next id, at the time `now_ms`. While the clock stands still or is
    /// behind the latest id, the sequence number rises instead.
    pub(crate) fn next(&mut self, now_ms: u64) -> EventId {
        let EventId { ms, seq } = self.last;
        self.last = match seq.checked_add(1) {
            Some(seq) if now_ms <= ms => EventId { ms, seq },
            // A later millisecond; or the sequence numbers are used up, which takes 584
            // years at 10^9 events per second.
            _ => EventId {
                ms: now_ms.max(ms.saturating_add(1)),
                seq: self.first,
            },
        };
        self.last
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The text is not an [`EventId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an event id of the form <milliseconds>-<sequence>")
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for EventId {
    type Err = InvalidId;

    /// Accepts exactly what [`Display`](fmt::Display) writes, so that one id has one
    /// spelling.
    fn from_str(text: &str) -> Result<EventId, InvalidId> {
        let (ms, seq) = text.split_once('-').ok_or(InvalidId)?;
        Ok(EventId {
            ms: canonical(ms)?,
            seq: canonical(seq)?,
        })
    }
}

/// Parses `0`, or digits that do not begin with 0. std's `parse` alone would also accept
/// `+7` and `007`.
fn canonical(digits: &str) -> Result<u64, InvalidId> {
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    if plain {
        digits.parse().map_err(|_| InvalidId)
    } else {
        Err(InvalidId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_id_is_greater_even_if_the_clock_goes_back() {
        let mut id = EventId { ms: 1000, seq: 0 };
        let mut ids = Ids::after(id, 7).unwrap();
        for now in [1000, 999, 0, 1000, 1001, 1001, 1002, 500, 1 << 50, 0] {
            let next = ids.next(now);
            assert!(next > id, "{next} after {id} at {now}");
            id = next;
        }
    }

    #[test]
    fn each_millisecond_begins_at_the_first_number_of_the_process() {
        let last = EventId {
            ms: 1000,
            seq: 5_000_000_000,
        };
        for (random, first) in [(0, 1), (41, 42), (FIRST_NUMBERS - 1, 1), (u64::MAX, 16)] {
            let mut ids = Ids::after(last, random).unwrap();
            // The clock is first before the last event, then equal to it, then after it.
            let given: Vec<_> = [900, 1000, 1001, 1002, 1002, 2000]
                .map(|now| ids.next(now).to_string())
                .into();
            let expected: Vec<_> = [
                (1001, 0),
                (1001, 1),
                (1001, 2),
                (1002, 0),
                (1002, 1),
                (2000, 0),
            ]
            .map(|(ms, more)| format!("{ms}-{}", first + more))
            .into();
            assert_eq!(given, expected, "random number {random}");
        }
    }

    #[test]
    fn at_the_ends_of_the_numbers_no_id_is_smaller_than_the_one_before() {
        let end = EventId {
            ms: u64::MAX,
            seq: 0,
        };
        assert!(Ids::after(end, 7).is_none());
        let mut ids = Ids {
            first: 7,
            last: EventId {
                ms: 1000,
                seq: u64::MAX,
            },
        };
        assert_eq!(ids.next(1000), EventId { ms: 1001, seq: 7 });
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        for good in [
            "0-0",
            "1763790000123-0",
            "18446744073709551615-18446744073709551615",
        ] {
            assert_eq!(good.parse::<EventId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "01-0",
            "1-00",
            "+1-0",
            "1-+0",
            "1-0 ",
            "1-0-0",
            "18446744073709551616-0",
            "a-b",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidId), "{bad:?}");
        }
    }
}
