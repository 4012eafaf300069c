//! The two formats of a time on the wire: the header field `Date`, and `timestamp` in
//! JSON. Both are in UTC.
//!
//! std has no calendar, so the day is computed here.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time in the calendar, in UTC.
struct Civil {
    /// The year of the Gregorian calendar.
    year: u64,
    /// 1 is January.
    month: usize,
    /// 1 to 31.
    day: u64,
    /// 0 is Sunday.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u64,
}

impl Civil {
    /// Converts a time. A time before 1970 becomes the first moment of 1970: a machine
    /// whose clock is wrong still has to answer requests.
    fn from(time: SystemTime) -> Civil {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = year_month_day(days);
        Civil {
            year,
            month,
            day,
            // The epoch was a Thursday.
            weekday: ((days + 4) % 7) as usize,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            millisecond: u64::from(since.subsec_millis()),
        }
    }
}

/// Returns year, month (1 to 12) and day (1 to 31).
///
/// The computation counts years from 1 March, so that a leap day is the last day of its
/// year, and counts in eras of 400 years, which all have 146,097 days.
fn year_month_day(days_since_1970: u64) -> (u64, usize, u64) {
    let days = days_since_1970 + 719_468; // since 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March; five months have 153 days
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    (era * 400 + year, month as usize, day)
}

/// Returns the number of days from 1970-01-01 to a day, which may be earlier: the inverse
/// of [`year_month_day`].
#[cfg(feature = "access")]
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    (365 * year + leap_days + (153 * month + 2) / 5 + day).checked_sub(719_469)
}

/// Parses a day or a second in UTC, from 1970 to 9999: `2026-12-31`, which is the first
/// moment of the day, or `2026-12-31T12:00:00Z`.
#[cfg(feature = "access")]
pub(crate) fn parse_iso8601(text: &str) -> Option<SystemTime> {
    let text = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let days = days_since_1970(number(0..4)?, number(5..7)?, number(8..10)?)?;
    let [hour, minute, second] = [number(11..13)?, number(14..16)?, number(17..19)?];
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    let time = UNIX_EPOCH + std::time::Duration::new(seconds, 0);
    // Formatting the time again finds what is not a time, such as 30 February, and every
    // other separator or sign.
    (iso8601(time).replace(".000Z", "Z") == text).then_some(time)
}

/// Displays a time as `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// SPEC: RFC 9110, 5.6.7: `IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT`,
/// `date1 = day SP month SP year`, with two digits for the day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImfFixdate(pub(crate) SystemTime);

impl fmt::Display for ImfFixdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let Civil {
            year,
            month,
            day,
            weekday,
            hour,
            minute,
            second,
            ..
        } = Civil::from(self.0);
        let (weekday, month) = (DAYS[weekday], MONTHS[month - 1]);
        write!(
            f,
            "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
        )
    }
}

/// Formats a time as `1994-11-06T08:49:37.000Z`, as JavaScript's `Date` writes and reads
/// it.
pub fn iso8601(time: SystemTime) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        millisecond,
        ..
    } = Civil::from(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// Milliseconds since the Unix epoch; 0 for a time before it.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn known_times_have_known_texts() {
        // Checked against `date -u -d @N`.
        for (seconds, imf, iso) in [
            (
                0,
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "1970-01-01T00:00:00.007Z",
            ),
            (
                784_111_777,
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "1994-11-06T08:49:37.007Z",
            ),
            (
                951_782_399,
                "Mon, 28 Feb 2000 23:59:59 GMT",
                "2000-02-28T23:59:59.007Z",
            ),
            (
                951_782_400,
                "Tue, 29 Feb 2000 00:00:00 GMT",
                "2000-02-29T00:00:00.007Z",
            ),
            (
                1_735_689_599,
                "Tue, 31 Dec 2024 23:59:59 GMT",
                "2024-12-31T23:59:59.007Z",
            ),
            (
                1_763_790_000,
                "Sat, 22 Nov 2025 05:40:00 GMT",
                "2025-11-22T05:40:00.007Z",
            ),
            (
                4_107_542_400,
                "Mon, 01 Mar 2100 00:00:00 GMT",
                "2100-03-01T00:00:00.007Z",
            ),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7);
            assert_eq!(ImfFixdate(time).to_string(), imf);
            assert_eq!(iso8601(time), iso);
            assert_eq!(unix_ms(time), seconds * 1000 + 7);
        }
    }
}
