//! How the library tells what happens without printing it: a level, a line, and whoever listens.

use std::fmt;
use std::sync::Arc;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The server could not do its work.
    Error,
    /// The machine or a peer stood in its way; it goes on.
    Warn,
    /// Clients come and go.
    Info,
    /// Single requests.
    Debug,
}

impl Level {
    /// `error`, `warn`, `info` or `debug`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

type Sink = dyn Fn(Level, fmt::Arguments<'_>) + Send + Sync;

/// Where reports go. The default drops them. Cloning shares the listener.
///
/// ```
/// use tiny_sse::{Config, Report};
/// use std::io::Write;
/// let report = Report::new(|level, line| {
///     // Unlike `eprintln!`, this does not panic where nobody reads standard error.
///     let _ = writeln!(std::io::stderr(), "{}: {line}", level.name());
/// });
/// let config = Config { report, ..Config::default() };
/// # config.check().unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Report(Option<Arc<Sink>>);

impl Report {
    /// Calls `sink` for each line, from whichever thread it concerns; it should not block for long,
    /// nor panic: some of these threads serve everybody.
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

    /// Tells whoever listens.
    pub fn tell(&self, level: Level, line: fmt::Arguments<'_>) {
        if let Some(sink) = &self.0 {
            sink(level, line);
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
