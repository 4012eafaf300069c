//! How the library tells what happens without printing it: a level, a line, and whoever listens.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::atomic::AtomicU64;
use crate::config::REPORT_INTERVAL;
use crate::names::names;

/// How much a line matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The server could not do its work.
    Error,
    /// The machine or a peer stood in its way; it goes on. The least important lines that a program logs by
    /// default.
    #[default]
    Warn,
    /// Clients come and go.
    Info,
    /// Single requests.
    Debug,
}

names!(Level: "error" Error, "warn" Warn, "info" Info, "debug" Debug);

type Sink = dyn Fn(Level, fmt::Arguments<'_>) + Send + Sync;

/// Where reports go. The default drops them. Cloning shares the listener.
///
/// ```
/// use tiny_sse::{Config, Report};
/// use std::io::Write;
/// let report = Report::new(|level, line| {
///     // Unlike `eprintln!`, this does not panic where nobody reads standard error.
///     let _ = writeln!(std::io::stderr(), "{level}: {line}");
/// });
/// let config = Config { report, ..Config::default() };
/// # config.check().unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Report(Option<Arc<Sink>>);

impl Report {
    /// Calls `sink` for each line, on the thread that the line is about. It should not block for long:
    /// some of these threads serve all clients. A panic in it loses its line and nothing else.
    pub fn new(sink: impl Fn(Level, fmt::Arguments<'_>) + Send + Sync + 'static) -> Report {
        Report(Some(Arc::new(sink)))
    }

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

    /// Calls the listener, if there is one.
    pub fn tell(&self, level: Level, line: fmt::Arguments<'_>) {
        if let Some(sink) = &self.0 {
            // A panic in it is the listener's bug. The panic hook has reported it by now, and the thread
            // that reports goes on, because it may be one that serves all clients.
            let _ = catch_unwind(AssertUnwindSafe(|| sink(level, line)));
        }
    }
}

/// Chooses the lines to report of a kind that peers can cause as often as they like: each while they are
/// few, and then at most one a second. The others are counted, and the next line that is reported says
/// how many there were.
#[derive(Debug)]
pub(crate) struct Sampled {
    start: Instant,
    /// How many lines may be reported at once.
    burst: u32,
    /// The time at which all lines so far would have been reported at one line a second, in milliseconds
    /// after `start`.
    ///
    /// ORDER: relaxed, as is the count. Neither guards other memory; a line that is counted a moment too
    /// late is counted with the next one.
    used_up: AtomicU64,
    suppressed: AtomicU64,
}

/// How many lines were counted and not reported. `Display` is the end of the next line.
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

    /// Whether this line is one to report, and how many were not since the last one.
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
            "Report(nobody)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_panics_ends_nothing_else() {
        let report = Report::new(|_, line| panic!("on purpose, for the test: {line}"));
        report.error(format_args!("one"));
        report.tell(Level::Debug, format_args!("two"));
    }

    #[test]
    fn of_many_lines_one_a_second_is_reported_with_how_many_were_not() {
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
        let told = (0..10).filter(|_| few.next(few.start).is_some());
        assert_eq!(told.count(), 3, "at once");
        let later = few.start + 2 * REPORT_INTERVAL;
        let told = (0..10).filter(|_| few.next(later).is_some());
        assert_eq!(told.count(), 2, "two pauses later");
        assert_eq!(Suppressed(0).to_string(), "");
        assert!(Suppressed(7).to_string().contains("7 more"));
    }
}
