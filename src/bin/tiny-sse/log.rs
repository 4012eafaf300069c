//! Turns the lines of all threads into writes of one thread, because standard error may be a pipe that
//! is not read, and only that thread may wait for it.
//!
//! The queue is bounded: if it is full, a line is dropped and counted, and the log has the count in place of
//! the lines. Lines keep their order, and each has the time at which it was logged.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tiny_sse::wire::date::iso8601;
use tiny_sse::{Level, Report};

/// LIMIT: bytes that wait to be written. A line counts for [`LINE_COST`] more than it is long, so there
/// are at most 10,000 lines. 8,000 clients that join at the same moment are logged in full.
const QUEUE_BYTES: usize = 1 << 20;

/// The cost of an empty line in the queue, in bytes.
const LINE_COST: usize = 100;

/// LIMIT: bytes of one line; a longer one is cut.
const LINE_BYTES: usize = 2000;

/// What one write joins, in bytes: no more than what a pipe takes at once.
const WRITE_BYTES: usize = 16 * 1024;

/// How long the end of the program waits for standard error to take what is in the queue, and how often it looks.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);
const LAST_LOOK: Duration = Duration::from_millis(1);

/// The sending side of the queue. No call of it waits, except [`finish`](Logger::finish).
#[derive(Clone)]
pub(crate) struct Logger {
    /// `None`: the machine gave no thread, and each line is written by the caller.
    lines: Option<Sender<Line>>,
    counts: Arc<Counts>,
}

/// ORDER: Relaxed, because each is a number of its own, and the channel orders the lines. Only the subtraction
/// after a write (Release) and the look at the end (Acquire) are about something else: that the write is done.
#[derive(Default)]
struct Counts {
    /// What the queue holds, and what is being written.
    queued: AtomicUsize,
    /// Lines that were dropped and not yet reported.
    dropped: AtomicUsize,
}

struct Line {
    /// How many lines were dropped before it.
    dropped: usize,
    text: String,
}

impl Logger {
    /// Writes to standard error.
    pub(crate) fn start() -> Logger {
        Logger::to(io::stderr())
    }

    fn to(out: impl Write + Send + 'static) -> Logger {
        let counts = Arc::<Counts>::default();
        let (lines, waiting) = channel();
        let counts_of_writer = Arc::clone(&counts);
        let thread = thread::Builder::new()
            .name("log".into())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(out, &counts_of_writer, &waiting));
        Logger {
            // The thread is not joined: it may wait for a reader for ever, and ends with the process.
            lines: thread.is_ok().then_some(lines),
            counts,
        }
    }

    /// Lines of the library, down to this level.
    pub(crate) fn report(&self, most: Option<Level>) -> Report {
        let log = self.clone();
        Report::new(move |level, line| {
            if most.is_some_and(|most| level <= most) {
                log.tell(level, line);
            }
        })
    }

    /// A line with its time and its level.
    pub(crate) fn tell(&self, level: Level, line: fmt::Arguments<'_>) {
        self.line(timed(level, line));
    }

    /// A line as it is.
    pub(crate) fn say(&self, line: fmt::Arguments<'_>) {
        self.line(line.to_string());
    }

    fn line(&self, mut text: String) {
        cut(&mut text, LINE_BYTES);
        text.push('\n');
        let cost = cost(&text);
        if self.lines.is_none() {
            // Best effort: there is no other place to report to.
            let _ = io::stderr().write_all(text.as_bytes());
        } else if self.counts.queued.fetch_add(cost, Ordering::Relaxed) + cost <= QUEUE_BYTES {
            self.send(text);
        } else {
            self.counts.queued.fetch_sub(cost, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts a text into the queue, whose cost is counted already.
    fn send(&self, text: String) {
        if let Some(lines) = &self.lines {
            let dropped = self.counts.dropped.swap(0, Ordering::Relaxed);
            // The thread that receives it ends only after all that send.
            let _ = lines.send(Line { dropped, text });
        }
    }

    /// Waits until the queue is written, or for half a second. Lines that standard error has not taken by then
    /// are lost.
    pub(crate) fn finish(&self) {
        if self.lines.is_none() {
            return;
        }
        // It has no text. With it the lines are reported that were dropped after the last line.
        let queued = &self.counts.queued;
        queued.fetch_add(LINE_COST, Ordering::Relaxed);
        self.send(String::new());
        let end = Instant::now() + SHUTDOWN_WAIT;
        while queued.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(LAST_LOOK);
        }
    }
}

/// The receiving side, which may wait until standard error is read.
fn write_lines(mut out: impl Write, counts: &Counts, waiting: &Receiver<Line>) {
    let mut buffer = Vec::new();
    while let Ok(mut line) = waiting.recv() {
        let mut written = 0;
        loop {
            add_dropped(&mut buffer, line.dropped);
            buffer.extend_from_slice(line.text.as_bytes());
            written += cost(&line.text);
            if buffer.len() >= WRITE_BYTES {
                break;
            }
            let Ok(more) = waiting.try_recv() else {
                add_dropped(&mut buffer, counts.dropped.swap(0, Ordering::Relaxed));
                break;
            };
            line = more;
        }
        // Best effort: a log that is closed or full is no reason to stop.
        let _ = out.write_all(&buffer);
        buffer.clear();
        counts.queued.fetch_sub(written, Ordering::Release);
    }
}

fn add_dropped(buffer: &mut Vec<u8>, count: usize) {
    if count > 0 {
        let line = format_args!("{count} lines were dropped: standard error takes them too slowly");
        buffer.extend_from_slice(timed(Level::Warn, line).as_bytes());
        buffer.push(b'\n');
    }
}

fn cost(text: &str) -> usize {
    text.len() + LINE_COST
}

fn timed(level: Level, line: fmt::Arguments<'_>) -> String {
    format!("{} {:5} {line}", iso8601(SystemTime::now()), level)
}

/// Cuts a text to so many bytes, at a character.
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

    /// A log into a pipe that is full, and the pipe's other end. LINUX: 64 KiB fill it.
    fn stuck() -> (Logger, io::PipeReader) {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'.'; 64 * 1024]).unwrap();
        (Logger::to(writer), reader)
    }

    /// What comes after the filling, once the log is gone.
    fn rest(log: Logger, mut reader: io::PipeReader) -> String {
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.trim_start_matches('.').to_owned()
    }

    #[test]
    fn a_log_that_nobody_reads_drops_lines_and_says_how_many() {
        let (log, reader) = stuck();
        let line = "x".repeat(1000);
        let total = 3 * QUEUE_BYTES / cost(&line);
        for number in 0..total {
            log.say(format_args!("{number} {line}"));
        }
        assert!(log.counts.queued.load(Ordering::Relaxed) <= QUEUE_BYTES);
        log.finish();
        let text = rest(log, reader);
        let lines: Vec<&str> = text.lines().collect();
        let (kept, last) = lines.split_at(lines.len() - 1);
        for (number, line) in kept.iter().enumerate() {
            assert!(
                line.starts_with(&format!("{number} x")),
                "{line:?} at {number}"
            );
        }
        assert!(kept.len() > 900 && kept.len() < total, "{}", kept.len());
        let told = format!(" warn  {} lines were dropped: ", total - kept.len());
        assert!(last[0].contains(&told), "{last:?}");
    }

    #[test]
    fn the_count_of_dropped_lines_stands_where_they_would_have_been() {
        let (log, mut reader) = stuck();
        let line = "x".repeat(1000);
        while log.counts.dropped.load(Ordering::Relaxed) < 3 {
            log.say(format_args!("{line}"));
        }
        // The pipe is read: there is room again.
        let mut seen = vec![0; 64 * 1024 + 1];
        reader.read_exact(&mut seen).unwrap();
        while log.counts.queued.load(Ordering::Relaxed) > QUEUE_BYTES / 2 {
            reader.read_exact(&mut seen[..4096]).unwrap();
        }
        log.say(format_args!("the next"));
        let text = rest(log, reader);
        let place = text.find(" 3 lines were dropped").expect("the count");
        assert!(
            text[..place].contains("xxx") && text[place..].ends_with("\nthe next\n"),
            "{}",
            &text[place..]
        );
    }

    #[test]
    fn short_lines_are_bounded_by_their_number() {
        let (log, _reader) = stuck();
        let mut kept = 0;
        while log.counts.dropped.load(Ordering::Relaxed) == 0 {
            log.say(format_args!(""));
            kept += 1;
        }
        assert!(kept <= 1 + QUEUE_BYTES / LINE_COST, "{kept}");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Logger::to(writer);
        log.say(format_args!("{}", "ä".repeat(LINE_BYTES)));
        log.say(format_args!("x{}", "ä".repeat(LINE_BYTES)));
        log.finish();
        let text = rest(log, reader);
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
    fn what_was_said_before_the_end_is_written_before_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Logger::to(writer);
        for number in 0..1000 {
            log.say(format_args!("{number}"));
        }
        log.finish();
        // All of it is in the pipe by now, which holds more.
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let mut seen = vec![0; expected.len()];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(seen, expected.as_bytes());
    }
}
