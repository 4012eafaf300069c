//! Reports: log lines that the library passes to a function of its caller instead of
//! printing them.
//!
//! A line has a [`Level`] and a text. [`Report`] calls the function; `Config::report` has
//! it. [`Sampled`] limits how many lines peers can cause.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::atomic::AtomicU64;
use crate::config::REPORT_INTERVAL;
use crate::names::names;

/// How important a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The server failed to do its work.
    Error,
    /// The machine or a peer caused a problem, and the server goes on. By default a
    /// program logs lines of this level and the level above.
    #[default]
    Warn,
    /// A client has connected or disconnected.
    Info,
    /// Something about a single request.
    Debug,
}

names!(Level: "error" Error, "warn" Warn, "info" Info, "debug" Debug);

/// The function that gets the lines.
type Sink = dyn Fn(Level, fmt::Arguments<'_>) + Send + Sync;

/// The function that gets all log lines of a server or a hub. By default there is none,
/// and lines are discarded. A clone calls the same function.
///
/// ```
/// use tiny_sse::{Config, Report};
/// use std::io::Write;
/// let report = Report::new(|level, line| {
///     // Unlike `eprintln!`, this does not panic if standard error is closed.
///     let _ = writeln!(std::io::stderr(), "{level}: {line}");
/// });
/// let config = Config { report, ..Config::default() };
/// # config.check().unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Report(Option<Arc<Sink>>);

impl Report {
    /// Calls `sink` for each line, on the thread that reports it. `sink` should not block
    /// for long, because some of these threads serve all clients. If it panics, the line
    /// is lost, and the server goes on.
    pub fn new(sink: impl Fn(Level, fmt::Arguments<'_>) + Send + Sync + 'static) -> Report {
        Report(Some(Arc::new(sink)))
    }

    /// Reports a line of this level.
    pub(crate) fn error(&self, line: fmt::Arguments<'_>) {
        self.tell(Level::Error, line);
    }

    pub(crate) fn warn(&self, line: fmt::Arguments<'_>) {
        self.tell(Level::Warn, line);
    }

    pub(crate) fn info(&self, line: fmt::Arguments<'_>) {
        self.tell(Level::Info, line);
    }

    pub(crate) fn debug(&self, line: fmt::Arguments<'_>) {
        self.tell(Level::Debug, line);
    }

    /// Reports a line: calls the function, if there is one.
    pub fn tell(&self, level: Level, line: fmt::Arguments<'_>) {
        if let Some(sink) = &self.0 {
            // A panic here is a bug in the caller's function. The panic hook has already
            // printed it. The thread goes on, because it may be one that serves all
            // clients.
            let _ = catch_unwind(AssertUnwindSafe(|| sink(level, line)));
        }
    }
}

/// Limits how many lines of one kind are reported, for lines that peers can cause at any
/// rate. The first lines are all reported, later ones at most once a second. The
/// suppressed lines are counted, and the next line that is reported contains their
/// number.
///
/// The limit works like a bucket of `burst` tokens: each line takes a token, and one
/// token is added per second. Example with a burst of 2: of ten lines at once two are
/// reported, one more line a second later is reported with "8 more", and after two quiet
/// seconds two lines can be reported at once again.
#[derive(Debug)]
pub(crate) struct Sampled {
    /// When this value was made. Times are milliseconds since then.
    start: Instant,
    /// How many lines may be reported at once. At least 1.
    burst: u32,
    /// The time until which the reported lines last if one line is spent per second, in
    /// milliseconds. Each reported line moves it on by one second. A line is reported if
    /// the result is at most `burst` seconds in the future.
    ///
    /// ORDER: relaxed, as the count below. Neither number guards other memory. If a
    /// suppressed line is counted a moment too late, it is in the number of the next
    /// line.
    used_up: AtomicU64,
    /// The number of lines that were suppressed since the last line was reported.
    suppressed: AtomicU64,
}

/// The number of lines that were suppressed. Its `Display` is appended to the line that
/// is reported next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed(u64);

impl Sampled {
    pub(crate) fn new(burst: u32) -> Sampled {
        Sampled {
            start: Instant::now(),
            burst,
            used_up: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Decides about a line. `Some`: report it, with the number of lines suppressed since
    /// the last one. `None`: do not; it has been counted. Does not block.
    pub(crate) fn next(&self, now: Instant) -> Option<Suppressed> {
        let millis = |time: Duration| time.as_millis() as u64;
        let now = millis(now.saturating_duration_since(self.start));
        let latest = now + millis(REPORT_INTERVAL * self.burst);
        let with_this = |used_up: u64| {
            let used_up = used_up.max(now) + millis(REPORT_INTERVAL);
            (used_up <= latest).then_some(used_up)
        };
        let relaxed = Ordering::Relaxed;
        if self
            .used_up
            .fetch_update(relaxed, relaxed, with_this)
            .is_ok()
        {
            Some(Suppressed(self.suppressed.swap(0, Ordering::Relaxed)))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, "; {more} more like it since the last such line"),
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Report(..)"
        } else {
            "Report(none)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_panics_does_not_end_its_thread() {
        let report = Report::new(|_, line| panic!("on purpose, for the test: {line}"));
        report.error(format_args!("one"));
        report.tell(Level::Debug, format_args!("two"));
    }

    #[test]
    fn one_line_a_second_is_reported_with_the_number_of_suppressed_lines() {
        let sampled = Sampled::new(1);
        let start = sampled.start;
        assert_eq!(sampled.next(start), Some(Suppressed(0)));
        for _ in 0..1000 {
            assert_eq!(sampled.next(start + REPORT_INTERVAL / 2), None);
        }
        assert_eq!(
            sampled.next(start + REPORT_INTERVAL),
            Some(Suppressed(1000))
        );
        assert_eq!(sampled.next(start + REPORT_INTERVAL), None);
        assert_eq!(
            sampled.next(start + 3 * REPORT_INTERVAL),
            Some(Suppressed(1))
        );
        let few = Sampled::new(3);
        let reported = (0..10).filter(|_| few.next(few.start).is_some());
        assert_eq!(reported.count(), 3, "at once");
        let later = few.start + 2 * REPORT_INTERVAL;
        let reported = (0..10).filter(|_| few.next(later).is_some());
        assert_eq!(reported.count(), 2, "two seconds later");
        assert_eq!(Suppressed(0).to_string(), "");
        assert!(Suppressed(7).to_string().contains("7 more"));
    }
}
