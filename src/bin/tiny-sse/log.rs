//! Turns log lines of all threads into writes to standard error by one thread, the
//! writer.
//!
//! Standard error may be a pipe that is never read, and a write to a full pipe blocks.
//! Only the writer may block there; every other thread puts its line into a queue and
//! goes on.
//!
//! LIMIT: the queue is bounded. While it is full, new lines are dropped and counted, and
//! one line with the count appears in their position. Lines keep their order, and each
//! has the time at which it was logged, not written.
//!
//! ```text
//! 2026-11-22T05:40:00.123Z info  client me joined (127.0.0.1:41234)
//! 2026-11-22T05:40:01.456Z warn  17 lines were dropped, because standard error is read too slowly
//! ```

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tiny_sse::wire::date::iso8601;
use tiny_sse::{Level, Report};

/// LIMIT: bytes in the queue. Each line counts as its length plus [`LINE_COST`], so the
/// queue has at most 10,000 lines. That is enough for the lines of 8,000 clients that
/// join at the same moment.
const QUEUE_BYTES: usize = 1 << 20;

/// The cost of an empty line in the queue, in bytes.
const LINE_COST: usize = 100;

/// LIMIT: bytes of one line; a longer one is cut.
const LINE_BYTES: usize = 2000;

/// The writer joins lines into one write until they have this many bytes. A pipe accepts
/// more than that at once.
const WRITE_BYTES: usize = 16 * 1024;

/// How long the end of the program waits for the writer.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);

/// The pause between two checks whether the writer is done.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The sending side of the queue; every thread that logs has a clone. No method blocks,
/// except [`finish`](Logger::finish).
#[derive(Clone)]
pub(crate) struct Logger {
    /// `None` if the writer could not be started. Each line is then written by the thread
    /// that logs it, which may block.
    lines: Option<Sender<Line>>,
    counts: Arc<Counts>,
}

/// The counters that the logging threads and the writer share.
///
/// ORDER: Relaxed suffices for counting, because no other memory depends on the values,
/// and the channel orders the lines. `queued` is also how [`Logger::finish`] learns that
/// a write is done. The writer therefore subtracts with Release after the write, and
/// `finish` loads with Acquire.
#[derive(Default)]
struct Counts {
    /// The cost of the lines that are in the queue or are being written.
    queued: AtomicUsize,
    /// The lines that were dropped and are not in any `Line::dropped` yet.
    dropped: AtomicUsize,
}

/// One entry of the queue.
struct Line {
    /// How many lines were dropped between the line before this line and this line.
    dropped: usize,
    /// The whole line with its line break. Empty only in the entry that
    /// [`Logger::finish`] adds.
    text: String,
}

impl Logger {
    /// Starts the writer, which writes to standard error.
    pub(crate) fn start() -> Logger {
        Logger::to(io::stderr())
    }

    /// Starts a writer that writes to `out`.
    fn to(out: impl Write + Send + 'static) -> Logger {
        let counts = Arc::<Counts>::default();
        let (lines, queue) = channel();
        let counts_of_writer = Arc::clone(&counts);
        let thread = thread::Builder::new()
            .name("log".into())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(out, &counts_of_writer, &queue));
        Logger {
            // The writer is never joined: it may be blocked by a pipe that is never read.
            // It ends with the process.
            lines: thread.is_ok().then_some(lines),
            counts,
        }
    }

    /// Returns the function that the library calls for each of its log lines. It drops
    /// lines that are less important than `least`; `None` drops all of them.
    pub(crate) fn report(&self, least: Option<Level>) -> Report {
        let log = self.clone();
        Report::new(move |level, line| {
            // The order of levels is that of their names in `--help`: error is the
            // smallest.
            if least.is_some_and(|least| level <= least) {
                log.log(level, line);
            }
        })
    }

    /// Logs a line with the time and the level in front.
    pub(crate) fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        self.enqueue(with_time(level, line));
    }

    /// Logs a line as it is, for the user at the terminal.
    pub(crate) fn print(&self, line: fmt::Arguments<'_>) {
        self.enqueue(line.to_string());
    }

    /// Puts a line into the queue, or drops and counts the line if the queue is full.
    fn enqueue(&self, mut text: String) {
        cut(&mut text, LINE_BYTES);
        text.push('\n');
        let cost = cost(&text);
        if self.lines.is_none() {
            // Best effort: there is nowhere else to report the error.
            let _ = io::stderr().write_all(text.as_bytes());
        } else if self.counts.queued.fetch_add(cost, Ordering::Relaxed) + cost <= QUEUE_BYTES {
            self.send(text);
        } else {
            self.counts.queued.fetch_sub(cost, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends a line to the writer. The caller has added the cost of the line to `queued`.
    fn send(&self, text: String) {
        if let Some(lines) = &self.lines {
            let dropped = self.counts.dropped.swap(0, Ordering::Relaxed);
            // This `send` never fails: the writer receives until every `Sender` is
            // dropped, and this is one of them.
            let _ = lines.send(Line { dropped, text });
        }
    }

    /// Blocks until all lines in the queue are written, at most for [`SHUTDOWN_WAIT`].
    /// Lines that are not written by then are lost when the process ends.
    pub(crate) fn finish(&self) {
        if self.lines.is_none() {
            return;
        }
        // An entry without text, so that the lines that were dropped after the last line
        // are reported too.
        let queued = &self.counts.queued;
        queued.fetch_add(LINE_COST, Ordering::Relaxed);
        self.send(String::new());
        let end = Instant::now() + SHUTDOWN_WAIT;
        while queued.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(CHECK_INTERVAL);
        }
    }
}

/// Runs the writer: takes lines from the queue and writes them, joined into few writes.
/// It blocks while the queue is empty, and while `out` accepts no bytes. It returns when
/// every [`Logger`] is dropped.
fn write_lines(mut out: impl Write, counts: &Counts, queue: &Receiver<Line>) {
    let mut buffer = Vec::new();
    while let Ok(mut line) = queue.recv() {
        let mut written = 0;
        loop {
            add_dropped(&mut buffer, line.dropped);
            buffer.extend_from_slice(line.text.as_bytes());
            written += cost(&line.text);
            if buffer.len() >= WRITE_BYTES {
                break;
            }
            let Ok(more) = queue.try_recv() else {
                // The queue is empty: no later entry reports the lines that were dropped
                // in the meantime.
                add_dropped(&mut buffer, counts.dropped.swap(0, Ordering::Relaxed));
                break;
            };
            line = more;
        }
        // Best effort: the server goes on if standard error is closed or its disk is
        // full.
        let _ = out.write_all(&buffer);
        buffer.clear();
        // ORDER: after the write; `finish` waits for this subtraction.
        counts.queued.fetch_sub(written, Ordering::Release);
    }
}

/// Appends the line that reports dropped lines, if there are any.
fn add_dropped(buffer: &mut Vec<u8>, count: usize) {
    if count > 0 {
        let line =
            format_args!("{count} lines were dropped, because standard error is read too slowly");
        buffer.extend_from_slice(with_time(Level::Warn, line).as_bytes());
        buffer.push(b'\n');
    }
}

/// Returns what a line counts in the queue, in bytes.
fn cost(text: &str) -> usize {
    text.len() + LINE_COST
}

/// Returns a line with the current time in UTC and its level in front.
fn with_time(level: Level, line: fmt::Arguments<'_>) -> String {
    format!("{} {:5} {line}", iso8601(SystemTime::now()), level)
}

/// Cuts a text to at most `bytes` bytes at the end of a character, and adds `…` if
/// anything was cut.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A log into a pipe that is full, and the reading end of the pipe. On Linux a pipe
    /// holds 64 KiB.
    fn blocked() -> (Logger, io::PipeReader) {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'.'; 64 * 1024]).unwrap();
        (Logger::to(writer), reader)
    }

    /// Drops the log and returns what it wrote after the bytes that filled the pipe.
    fn written(log: Logger, mut reader: io::PipeReader) -> String {
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.trim_start_matches('.').to_owned()
    }

    #[test]
    fn a_log_that_is_not_read_drops_lines_and_reports_their_number() {
        let (log, reader) = blocked();
        let line = "x".repeat(1000);
        let total = 3 * QUEUE_BYTES / cost(&line);
        for number in 0..total {
            log.print(format_args!("{number} {line}"));
        }
        assert!(log.counts.queued.load(Ordering::Relaxed) <= QUEUE_BYTES);
        log.finish();
        let text = written(log, reader);
        let lines: Vec<&str> = text.lines().collect();
        let (kept, last) = lines.split_at(lines.len() - 1);
        for (number, line) in kept.iter().enumerate() {
            assert!(
                line.starts_with(&format!("{number} x")),
                "{line:?} at {number}"
            );
        }
        assert!(kept.len() > 900 && kept.len() < total, "{}", kept.len());
        let report = format!(" warn  {} lines were dropped, ", total - kept.len());
        assert!(last[0].contains(&report), "{last:?}");
    }

    #[test]
    fn the_count_of_dropped_lines_is_in_the_position_of_the_lines() {
        let (log, mut reader) = blocked();
        let line = "x".repeat(1000);
        while log.counts.dropped.load(Ordering::Relaxed) < 3 {
            log.print(format_args!("{line}"));
        }
        // The test reads the pipe, so the queue has room again.
        let mut seen = vec![0; 64 * 1024 + 1];
        reader.read_exact(&mut seen).unwrap();
        while log.counts.queued.load(Ordering::Relaxed) > QUEUE_BYTES / 2 {
            reader.read_exact(&mut seen[..4096]).unwrap();
        }
        log.print(format_args!("the next"));
        let text = written(log, reader);
        let position = text.find(" 3 lines were dropped").expect("the count");
        assert!(
            text[..position].contains("xxx") && text[position..].ends_with("\nthe next\n"),
            "{}",
            &text[position..]
        );
    }

    #[test]
    fn short_lines_are_bounded_by_their_number() {
        let (log, _reader) = blocked();
        let mut kept = 0;
        while log.counts.dropped.load(Ordering::Relaxed) == 0 {
            log.print(format_args!(""));
            kept += 1;
        }
        assert!(kept <= 1 + QUEUE_BYTES / LINE_COST, "{kept}");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Logger::to(writer);
        log.print(format_args!("{}", "ä".repeat(LINE_BYTES)));
        log.print(format_args!("x{}", "ä".repeat(LINE_BYTES)));
        log.finish();
        let text = written(log, reader);
        for line in text.lines() {
            assert!(
                line.ends_with("ä…") && line.len() <= LINE_BYTES + "…".len(),
                "{}",
                line.len()
            );
        }
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn finish_waits_until_all_lines_are_written() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Logger::to(writer);
        for number in 0..1000 {
            log.print(format_args!("{number}"));
        }
        log.finish();
        // All lines are in the pipe now, which holds more than these.
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let mut seen = vec![0; expected.len()];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(seen, expected.as_bytes());
    }
}
