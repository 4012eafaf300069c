//! What durable events cost: publishing over loopback with a journal and without one,
//! beside the disk's own `fsync`; and how long a server takes to start with a large
//! journal.
//!
//! ```text
//! cargo bench --bench journal
//! TINY_SSE_BENCH_DIR=/mnt/disk cargo bench --bench journal      not in the temporary directory
//! ```
//!
//! It takes about 35 seconds, and 1 GiB of the disk while it runs.
//!
//! # The processes
//!
//! The server is the program itself, as `cargo bench` builds it (the release profile), in
//! a new process for each row. So the figures are those of the program that people run,
//! including its start, and the bench shares neither an allocator nor a lock with it. The
//! publishers are threads of the bench, each with one connection that stays open. No
//! publisher sends before it has the last answer, so with 16 publishers at most 16 events
//! are in flight.
//!
//! # What is measured
//!
//! - *The disk*: one thread appends a record as the journal writes it to a plain file in
//!   the same directory, and calls `fdatasync`, again and again. With one publisher,
//!   `--sync always` could not be faster than this. It is measured before the rows and
//!   after them, because the speed of a shared disk varies; the ratio uses the mean.
//! - *Events*: answers with 200, per second. *Latency*: from before the request is
//!   written until its answer is read.
//! - *The start*: from before the process is created until it has printed where it
//!   listens. With the default history it reads the newest 16 MiB of messages, in whole
//!   segments. The files have just been written and are in the system's cache: on a cold
//!   disk, the time to read them is added.
//! - *Correctness*: every event that was answered 200 is in the files. Otherwise the
//!   bench fails.
//!
//! # What is not measured
//!
//! Subscribers (`fanout` measures them), large events, a network. Publishers and server
//! share the processors, so on a machine with few processors a row without a journal
//! measures both. A disk that reports an `fsync` as done although it is not is not
//! detected.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, process, thread};

use tiny_sse::hub::{Log, Record};
use tiny_sse::store::{Journal, JournalOptions, SyncMode};
use tiny_sse::{EventId, Report};

/// The data of an event.
const EVENT_BYTES: usize = 200;
/// How many publishers publish at the same time.
const PUBLISHERS: [usize; 2] = [1, 16];
/// The value of `--sync`; `None` is a server without a journal.
const MODES: [Option<&str>; 3] = [None, Some("interval"), Some("always")];
/// The events that one append writes into the journal for the start.
const BATCH: u64 = 1_000;
/// How often a start is measured.
const STARTS: usize = 5;
/// A publisher that waits longer for an answer gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The amount to measure.
struct Size {
    /// The duration of each row.
    time: Duration,
    /// The duration before each row, so that everything has been used once.
    warm_up: Duration,
    journal_bytes: u64,
}

impl Size {
    const FULL: Size = Size {
        time: Duration::from_secs(4),
        warm_up: Duration::from_millis(500),
        journal_bytes: 1 << 30,
    };

    /// A short run that shows whether the bench works.
    const SMOKE: Size = Size {
        time: Duration::from_millis(50),
        warm_up: Duration::from_millis(10),
        journal_bytes: 1 << 20,
    };
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if words.iter().any(|word| !word.starts_with("--")) {
        return ExitCode::SUCCESS; // the name of a benchmark in another file
    }
    // `cargo test --benches` passes no option, `cargo bench` passes `--bench`.
    let says = |option: &str| words.iter().any(|word| word == option);
    let size = if says("--test") || !says("--bench") {
        Size::SMOKE
    } else {
        Size::FULL
    };
    match compare(&size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("journal: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(size: &Size) -> io::Result<()> {
    let scratch = Scratch::new()?;
    let before = syncs(&scratch, size.time / 2)?;
    let mut rows = Vec::new();
    for publishers in PUBLISHERS {
        for sync in MODES {
            rows.push(Row::measure(&scratch, sync, publishers, size)?);
        }
    }
    let after = syncs(&scratch, size.time / 2)?;
    println!(
        "{} records of {} bytes synced per second by one thread before, {} after: {}\n",
        thousands(before),
        record().len(),
        thousands(after),
        scratch.0.display()
    );
    print_table(&rows, f64::midpoint(before, after));
    compare_starts(&scratch, size)
}

// Publishing.

/// The rate of one publisher, or of several.
struct Row {
    sync: Option<&'static str>,
    publishers: usize,
    rate: f64,
    p50: Duration,
    p99: Duration,
}

impl Row {
    fn measure(
        scratch: &Scratch,
        sync: Option<&'static str>,
        publishers: usize,
        size: &Size,
    ) -> io::Result<Row> {
        let journal = scratch.fresh()?;
        let server = Server::start(sync.map(|sync| (&*journal, sync)))?;
        let warm_up = publish(server.address, publishers, size.warm_up)?;
        let start = Instant::now();
        let mut latencies = publish(server.address, publishers, size.time)?;
        let time = start.elapsed();
        drop(server);
        let acknowledged = warm_up.len() + latencies.len();
        let kept = events_in(&journal)?;
        if sync.is_some() && kept != acknowledged {
            let line = format!("{acknowledged} events were acknowledged, and {kept} are kept");
            return Err(io::Error::other(line));
        }
        fs::remove_dir_all(journal)?;
        latencies.sort_unstable();
        let percentile = |percent| latencies[(latencies.len() - 1) * percent / 100];
        Ok(Row {
            sync,
            publishers,
            rate: latencies.len() as f64 / time.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
        })
    }
}

/// Publishes for this duration. Returns how long each event took.
fn publish(address: SocketAddr, publishers: usize, time: Duration) -> io::Result<Vec<Duration>> {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let publish = || Publisher::connect(address)?.publish_until(end);
        let threads: Vec<_> = (0..publishers).map(|_| scope.spawn(publish)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("BUG: a publisher has panicked")?);
        }
        Ok(all)
    })
}

struct Publisher {
    socket: BufReader<TcpStream>,
    request: Vec<u8>,
}

impl Publisher {
    fn connect(address: SocketAddr) -> io::Result<Publisher> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let head =
            format!("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {EVENT_BYTES}");
        Ok(Publisher {
            socket: BufReader::new(socket),
            request: format!("{head}\r\n\r\n{}", data()).into_bytes(),
        })
    }

    /// Publishes at least one event.
    fn publish_until(mut self, end: Instant) -> io::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let start = Instant::now();
            self.socket.get_mut().write_all(&self.request)?;
            self.read_answer()?;
            let answered = Instant::now();
            latencies.push(answered - start);
            if answered >= end {
                return Ok(latencies);
            }
        }
    }

    fn read_answer(&mut self) -> io::Result<()> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.socket.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.and_then(|length| length.parse().ok());
        let mut body = vec![0; length.expect("BUG: an answer without its length")];
        self.socket.read_exact(&mut body)?;
        if head.starts_with("HTTP/1.1 200 ") {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Err(io::Error::other(body))
    }
}

fn data() -> String {
    "x".repeat(EVENT_BYTES)
}

/// A record as the journal writes it.
fn record() -> String {
    let id = "1795326004711-0";
    format!(
        ": event {id}\nid: {id}\ndata: {}\n: crc 1a2b3c4d\n\n",
        data()
    )
}

/// Returns the number of events in the files of a journal.
fn events_in(journal: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(journal)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sse") {
            let text = fs::read_to_string(path)?;
            count += text
                .lines()
                .filter(|line| line.starts_with(": event "))
                .count();
        }
    }
    Ok(count)
}

/// Returns how many records per second the disk takes from one thread that waits for
/// each.
fn syncs(scratch: &Scratch, time: Duration) -> io::Result<f64> {
    let path = scratch.0.join("syncs");
    let mut file = File::create(&path)?;
    let record = record();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        file.write_all(record.as_bytes())?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

fn print_table(rows: &[Row], syncs: f64) {
    println!("journal    publishers  events/s   p50 ms   p99 ms  to the disk  to no journal");
    for row in rows {
        let same = |other: &&Row| other.sync.is_none() && other.publishers == row.publishers;
        let without = rows
            .iter()
            .find(same)
            .expect("BUG: no row without a journal");
        println!(
            "{:9}  {:>10}  {:>8}  {:>7.3}  {:>7.3}  {:>11.2}  {:>13.2}",
            row.sync.unwrap_or("none"),
            row.publishers,
            thousands(row.rate),
            row.p50.as_secs_f64() * 1e3,
            row.p99.as_secs_f64() * 1e3,
            row.rate / syncs,
            row.rate / without.rate
        );
    }
}

/// `1,234`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups = digits.as_bytes().rchunks(3).rev().map(str::from_utf8);
    groups
        .map(|group| group.expect("BUG: digits"))
        .collect::<Vec<_>>()
        .join(",")
}

// The start.

fn compare_starts(scratch: &Scratch, size: &Size) -> io::Result<()> {
    let journal = scratch.fresh()?;
    let start = Instant::now();
    let events = fill(&journal, size.journal_bytes)?;
    let filled = start.elapsed();
    println!(
        "\nstart, until it listens       ms of {STARTS} (the journal has {} MiB, {} events, written in {:.1} s)",
        size.journal_bytes >> 20,
        thousands(events as f64),
        filled.as_secs_f64()
    );
    let empty = scratch.fresh()?;
    for (name, journal) in [
        ("without a journal", None),
        ("with an empty journal", Some(&empty)),
        ("with a full journal", Some(&journal)),
    ] {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let start = Instant::now();
            let _server = Server::start(journal.map(|journal| (&**journal, "always")))?;
            times.push(format!("{:.1}", start.elapsed().as_secs_f64() * 1e3));
        }
        println!("{name:28}  {}", times.join("  "));
    }
    Ok(())
}

/// Writes a journal with this many bytes of records. Returns the number of records.
fn fill(dir: &Path, bytes: u64) -> io::Result<u64> {
    let count = bytes / record().len() as u64;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("BUG: before 1970").as_millis() as u64;
    // One event in each millisecond up to now.
    let id = |number: u64| EventId {
        ms: now - count + number,
        seq: 0,
    };
    let options = JournalOptions {
        dir: dir.to_owned(),
        sync: SyncMode::Off,
        repair: false,
        events: 0,
        bytes: 0,
        report: Report::default(),
    };
    let (mut journal, _) = Journal::open(options, id(0))?;
    let data = data();
    for first in (0..count).step_by(BATCH as usize) {
        let ids = (first..count.min(first + BATCH)).map(|number| id(number + 1));
        let record = |id: EventId| {
            let message = format!("id: {id}\ndata: {data}\n\n");
            Arc::new(Record::kept(id, None, None, message.into()))
        };
        let records: Vec<_> = ids.map(record).collect();
        journal.append(&records)?;
    }
    Ok(count)
}

/// A process of the program. Dropping it ends the process.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts the program, with a journal and `--sync` or without one, and waits until it
    /// listens.
    fn start(journal: Option<(&Path, &str)>) -> io::Result<Server> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiny-sse"));
        command.args(["--listen", "127.0.0.1:0"]);
        if let Some((dir, sync)) = journal {
            command.args(["--sync", sync]).arg("--journal").arg(dir);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().expect("BUG: it is a pipe");
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim_end().rsplit(' ').next().map(str::parse);
        match address {
            Some(Ok(address)) => Ok(Server { child, address }),
            _ => {
                child.wait()?;
                Err(io::Error::other("the server has not started"))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of the bench, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let parent = env::var_os("TINY_SSE_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        let path = parent.join(format!("tiny-sse-bench-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    /// Returns the path of a directory in it that does not exist yet.
    fn fresh(&self) -> io::Result<PathBuf> {
        let count = fs::read_dir(&self.0)?.count();
        let path = self.0.join(format!("journal-{count}"));
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the rest is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
