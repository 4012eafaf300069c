//! Event ids, `<milliseconds>-<sequence>`: ordered, never reused, and of the form of a Redis stream's.
//!
//! Because they are ordered, an id that has left the history is still known to be *older* than
//! what is left, which is the difference between "you missed something" and "you missed nothing".

use std::fmt;
use std::str::FromStr;

/// The place of an event in the one order of a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Milliseconds since the Unix epoch, when the event was accepted. Never goes back.
    pub ms: u64,
    /// Counts the events within that millisecond, from 0.
    pub seq: u64,
}

impl EventId {
    /// The id after this one, at the time `now_ms`. A clock that stands still or goes back does
    /// not matter: the sequence number rises instead.
    pub fn next(self, now_ms: u64) -> EventId {
        if now_ms > self.ms {
            EventId { ms: now_ms, seq: 0 }
        } else {
            EventId {
                ms: self.ms,
                seq: self.seq + 1,
            }
        }
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

    /// Accepts exactly what [`Display`](fmt::Display) writes, so that one id has one spelling.
    fn from_str(text: &str) -> Result<EventId, InvalidId> {
        let (ms, seq) = text.split_once('-').ok_or(InvalidId)?;
        Ok(EventId {
            ms: canonical(ms)?,
            seq: canonical(seq)?,
        })
    }
}

/// `0` or digits that do not begin with 0; std's `parse` would also take `+7` and `007`.
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
    fn the_next_id_is_greater_whatever_the_clock_says() {
        let mut id = EventId { ms: 1000, seq: 0 };
        for now in [1000, 999, 0, 1000, 1001, 1001, 500, u64::MAX, 0] {
            let next = id.next(now);
            assert!(next > id, "{next} after {id} at {now}");
            id = next;
        }
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
