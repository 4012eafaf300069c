//! What it costs to deliver an event to every client: a server with many clients over loopback, beside a
//! *floor* that does nothing but one `write` per client and event, and beside the *primer*
//! (`src/examples/primer.rs`), which wakes a thread for each client and event.
//!
//! ```text
//! cargo bench --bench fanout              100, 1,000 and 10,000 clients: about a minute
//! cargo bench --bench fanout -- 1000      only so many; several numbers may be given
//! ```
//!
//! # Who is who
//!
//! The bench runs itself again, twice for each measurement, and only conducts: one process is the
//! server (or the floor), the other is all of its clients and the publisher. So the server's
//! processor time and memory are nobody else's, and each server begins with a fresh heap.
//!
//! # What is measured
//!
//! - *Processor time*: what `/proc/PID/task/*/schedstat` says that the server's threads ran, in
//!   nanoseconds. `/proc/PID/stat` counts in ticks of 10 ms, and a paced run of 100 clients is four
//!   of them. What a thread that ended meanwhile had used is not seen; the threads that work here
//!   outlive the run. It holds the kernel's part as well, and over loopback that is the receiving
//!   of the packet too, and the waking of its reader: hence the floor, which pays for the same.
//! - *Latency*: from before the `POST` is written until the event has been read by its client.
//! - *Memory*: the growth of the server's `VmRSS` as the clients connect, once for both rows. What
//!   the kernel spends on sockets and threads is not in it, nor what waits for a client.
//! - *Order*: each client is to get each event once, in order. Otherwise the bench fails.
//!
//! Without `/proc` there are no processor time and no memory: "-".
//!
//! # The readers, and what they distort
//!
//! There is no `epoll` in std. To poll 10,000 sockets in turn would take the processor that is to
//! be measured; a thread for each would have to be woken for each delivery, which is charged to who
//! writes and, with some µs, hides what is to be compared. So there are two kinds of readers:
//!
//! - up to 100 *witnesses*, spread evenly over the clients, each a thread that blocks in `read` on
//!   its one socket. All latencies are theirs;
//! - one thread for the *crowd* of all others, which blocks in `read` on one socket after the other,
//!   in an order that is neither that of connecting nor its reverse. While it waits for one, most
//!   of the others are written to, so it is woken some ten times per event and not for each client.
//!
//! With 100 clients all are witnesses: the processor time there has a wake-up in each delivery, for
//! server and floor alike, and is not to be compared with that of 1,000.
//!
//! # What is not measured
//!
//! A network; clients that are slow, come or go; topics. Where server and clients share few cores,
//! latencies and rates are those of both. Latencies *flat out* are lengths of a backlog: the floor
//! answers the `POST` when all is written, and holds the publisher back by that; the server answers
//! at once, lets the publisher run ahead, and joins what waits into one write. Only rates and
//! processor time are a comparison then. What else the machine does shows most in p99: a row that
//! matters is to be seen twice.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{read_dir, read_to_string};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter::zip;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{array, env, fmt, thread};

use tiny_sse::{Config, Level, Report, Server};

#[path = "../src/examples/primer.rs"]
mod primer;

/// What is measured unless the command line says otherwise.
const CLIENTS: [usize; 3] = [100, 1_000, 10_000];
/// The data of an event.
const EVENT_BYTES: usize = 200;
/// More than an event is on the wire, with its id and its chunk.
const WIRE_BYTES: usize = 256;
/// How long a paced run takes.
const PACED: Duration = Duration::from_secs(4);
/// How many deliveries a run of the server flat out is made of, at the most.
const DELIVERIES: usize = 4_000_000;
/// How many times fewer are enough for the floor and the primer, which do not join events into one write.
const FLOOR_TAKES: usize = 10;
/// The server's queue for a client, in bytes: a limit, and not memory that is used.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Clients with a thread of their own; see the top of this file.
const WITNESSES: usize = 100;
/// A thread here needs little, and 100 are many on a small machine.
const STACK_BYTES: usize = 64 * 1024;
/// What a client reads at once. When it is behind it takes that much, and several events, per call.
const READ_BYTES: usize = 4 * 1024;
/// Who waits longer for a byte waits in vain.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the last client has connected the server ends threads that it does not need.
const SETTLING: Duration = Duration::from_millis(700);
/// Files that either process has open beside its clients, generously; the server keeps a reserve.
const OTHER_FILES: usize = 640;

const SUBSCRIBE: &[u8] = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--role", "readers", address, clients, path] => {
            read(address, number(clients), path).map(|()| true)
        }
        ["--role", "primer", clients] => host(Who::Primer, number(clients)).map(|()| true),
        ["--role", "tiny-sse", clients] => host(Who::Server, number(clients)).map(|()| true),
        ["--role", "floor", clients] => host(Who::Floor, number(clients)).map(|()| true),
        _ => conduct(&words),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Only for what this program says to itself.
fn number(word: &str) -> usize {
    word.parse().expect("BUG: not a number")
}

// The conductor.

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Server,
    Floor,
    Primer,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Server => "tiny-sse",
            Who::Floor => "floor",
            Who::Primer => "primer",
        }
    }

    /// Where events are published.
    fn path(self) -> &'static str {
        match self {
            Who::Server | Who::Floor => "/events",
            Who::Primer => "/send",
        }
    }
}

/// How events are published: how many, and how long after each other. No pause: flat out.
#[derive(Clone, Copy)]
struct Run {
    events: usize,
    pause: Duration,
}

impl Run {
    /// So that whatever is touched for the first time has been.
    const WARM_UP: Run = Run {
        events: 2,
        pause: Duration::from_millis(10),
    };

    /// The rows of the table.
    fn all(who: Who, clients: usize) -> [Run; 2] {
        let pause = Duration::from_millis(if clients <= 1_000 { 50 } else { 200 });
        let deliveries = match who {
            Who::Server => DELIVERIES,
            Who::Floor | Who::Primer => DELIVERIES / FLOOR_TAKES,
        };
        let paced = Run {
            events: PACED.div_duration_f64(pause) as usize,
            pause,
        };
        let flat_out = Run {
            // LIMIT: all of a run fits into a client's queue. Nobody can fall behind, however few
            // processors the readers have got.
            events: (deliveries / clients).clamp(1, QUEUE_BYTES / WIRE_BYTES),
            pause: Duration::ZERO,
        };
        [paced, flat_out]
    }

    /// The same as a test: whether it works, and not how fast.
    fn smoke() -> [Run; 2] {
        [Duration::from_millis(2), Duration::ZERO].map(|pause| Run { events: 20, pause })
    }

    fn name(self) -> String {
        if self.pause.is_zero() {
            return "flat out".to_string();
        }
        format!("{:.0}/s", self.pause.as_secs_f64().recip())
    }
}

/// Reads the command line as cargo and people write it, measures, prints. False: something was
/// lost.
fn conduct(words: &[&str]) -> io::Result<bool> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.starts_with("--"));
    let Ok(mut counts) = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<usize>, _>>()
    else {
        return Ok(true); // the name of something in another bench
    };
    // `cargo test --benches` says nothing, `cargo bench` says `--bench`.
    let is_test = options.contains(&"--test") || !options.contains(&"--bench");
    if counts.is_empty() {
        counts = if is_test { vec![10] } else { CLIENTS.to_vec() };
    }
    print_head();
    let mut total = Outcome::default();
    for clients in counts {
        if clients == 0 || lacks_files(clients) {
            continue;
        }
        compare(clients, is_test, &mut total)?;
    }
    println!("{total}");
    Ok(total.is_clean())
}

/// Whether so many clients need more open files than are allowed. Says so.
fn lacks_files(clients: usize) -> bool {
    let needed = clients + OTHER_FILES;
    let limit = open_files().filter(|&limit| limit < needed);
    if let Some(limit) = limit {
        println!(
            "{:>7}  skipped: {limit} open files are allowed, {needed} are needed (ulimit -n {needed})",
            thousands(clients as f64)
        );
    }
    limit.is_some()
}

/// The rows for so many clients.
fn compare(clients: usize, is_test: bool, total: &mut Outcome) -> io::Result<()> {
    let mut measured = Vec::new();
    for who in [Who::Floor, Who::Primer, Who::Server] {
        let runs = if is_test {
            Run::smoke()
        } else {
            Run::all(who, clients)
        };
        match measure(who, clients, runs, total)? {
            Ok(rows) => measured.push(zip(runs, rows)),
            Err(admitted) => {
                let clients = thousands(clients as f64);
                println!("{clients:>7}  skipped: only {admitted} were let in, see the warning");
                return Ok(());
            }
        }
    }
    let [floor, primer, server] = <[_; 3]>::try_from(measured).ok().expect("BUG: not three");
    for (((run, server), (_, floor)), (_, primer)) in zip(zip(server, floor), primer) {
        let ratio = array::from_fn(|column| {
            let floor = floor[column].filter(|_| column != KIB)?;
            Some(server[column]? / floor)
        });
        let name = format!("{:>7}  {:9}", thousands(clients as f64), run.name());
        print_row(&name, Who::Server.name(), server);
        print_row("", Who::Primer.name(), primer);
        print_row("", Who::Floor.name(), floor);
        print_row("", "ratio", ratio);
    }
    Ok(())
}

/// All runs with one server and its clients. `Err`: how many clients it let in, if not all.
fn measure(
    who: Who,
    clients: usize,
    runs: [Run; 2],
    total: &mut Outcome,
) -> io::Result<Result<Vec<Row>, usize>> {
    let count = clients.to_string();
    let mut server = Process::start(&[who.name(), &count])?;
    let address = server.line()?;
    let at_rest = resident(server.id());
    let mut readers = Process::start(&["readers", &address, &count, who.path()])?;
    let admitted = number(&readers.line()?);
    if admitted < clients {
        return Ok(Err(admitted));
    }
    thread::sleep(SETTLING);
    let memory = at_rest.zip(resident(server.id()));
    let kib = memory.map(|(at_rest, full)| (full - at_rest) / clients as f64);

    readers.run(Run::WARM_UP)?;
    let mut rows = Vec::new();
    for run in runs {
        let before = processor_time(server.id());
        let outcome = readers.run(run)?;
        let cpu = before.zip(processor_time(server.id()));
        let cpu = cpu.map(|(before, after)| since(&before, &after));
        rows.push(outcome.row(cpu, kib));
        total.add(&outcome);
    }
    Ok(Ok(rows))
}

/// This program once more, in one of its roles. Dropped, it is ended.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &[&str]) -> io::Result<Process> {
        let mut child = Command::new(env::current_exe()?)
            .arg("--role")
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().expect("BUG: it is a pipe");
        Ok(Process {
            child,
            output: BufReader::new(output),
        })
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says next.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a part of the bench ended too early"));
        }
        Ok(line.trim_end().to_string())
    }

    /// Has the readers publish and read; waits for it.
    fn run(&mut self, run: Run) -> io::Result<Outcome> {
        let input = self.child.stdin.as_mut().expect("BUG: it is a pipe");
        writeln!(input, "{} {}", run.events, run.pause.as_nanos())?;
        let line = self.line()?;
        Ok(Outcome::parse(&line).expect("BUG: not an outcome"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// The table.

/// Deliveries per second, µs of processor per delivery, ms of latency (p50, p99), KiB per client.
type Row = [Option<f64>; 5];
/// The column that has no ratio: the floor spends next to nothing on a client.
const KIB: usize = 4;

fn print_head() {
    println!(
        "clients  publisher            deliveries/s  cpu µs each    p50 ms    p99 ms  KiB/client"
    );
}

fn print_row(run: &str, who: &str, row: Row) {
    let cells = zip(row, [12, 11, 8, 8, 10]).map(|(value, width)| match value {
        Some(value) if value >= 1000.0 => format!("  {:>width$}", thousands(value)),
        Some(value) => format!("  {value:>width$.2}"),
        None => format!("  {:>width$}", "-"),
    });
    println!("{run:18}  {who:8}{}", cells.collect::<String>());
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

/// What became of the events of a run, or of several.
#[derive(Default)]
struct Outcome {
    expected: u64,
    lost: u64,
    repeated: u64,
    disordered: u64,
    /// From the first `POST` to the last delivery.
    nanoseconds: u64,
    /// Latencies, in nanoseconds.
    p50: u64,
    p99: u64,
}

impl Outcome {
    /// As the readers tell it to the conductor: the fields in their order.
    fn to_line(&self) -> String {
        let Outcome {
            expected,
            lost,
            repeated,
            disordered,
            nanoseconds,
            p50,
            p99,
        } = self;
        format!("{expected} {lost} {repeated} {disordered} {nanoseconds} {p50} {p99}")
    }

    fn parse(line: &str) -> Option<Outcome> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let [expected, lost, repeated, disordered, nanoseconds, p50, p99] =
            numbers.ok()?.try_into().ok()?;
        Some(Outcome {
            expected,
            lost,
            repeated,
            disordered,
            nanoseconds,
            p50,
            p99,
        })
    }

    fn row(&self, cpu: Option<u64>, kib: Option<f64>) -> Row {
        let deliveries = (self.expected - self.lost) as f64;
        [
            Some(deliveries * 1e9 / self.nanoseconds as f64),
            cpu.map(|nanoseconds| nanoseconds as f64 / 1e3 / deliveries),
            Some(self.p50 as f64 / 1e6),
            Some(self.p99 as f64 / 1e6),
            kib,
        ]
    }

    fn add(&mut self, other: &Outcome) {
        self.expected += other.expected;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.disordered += other.disordered;
    }

    fn is_clean(&self) -> bool {
        self.lost + self.repeated + self.disordered == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            expected,
            lost,
            repeated,
            disordered,
            ..
        } = self;
        let expected = thousands(*expected as f64);
        write!(
            f,
            "of {expected} deliveries {lost} were lost, {repeated} repeated, {disordered} out of order"
        )
    }
}

// The machine, where there is a `/proc`.

/// Nanoseconds that each thread of a process has run so far.
fn processor_time(process: u32) -> Option<HashMap<OsString, u64>> {
    let tasks = read_dir(format!("/proc/{process}/task")).ok()?.flatten();
    let times = tasks.filter_map(|task| {
        // A thread may end between the two: then there is nothing to read.
        let schedstat = read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), schedstat.split(' ').next()?.parse().ok()?))
    });
    let times: HashMap<OsString, u64> = times.collect();
    // A kernel built without these numbers says 0, or has no such file.
    times.values().any(|&time| time > 0).then_some(times)
}

/// What the threads that are there now have run since `before`.
fn since(before: &HashMap<OsString, u64>, now: &HashMap<OsString, u64>) -> u64 {
    let grown = now.iter().map(|(thread, time)| {
        // The number of one that ended may have gone to a new one.
        time.saturating_sub(before.get(thread).copied().unwrap_or(0))
    });
    grown.sum()
}

/// KiB of memory that a process has in use.
fn resident(process: u32) -> Option<f64> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many files a process started from here may have open.
fn open_files() -> Option<usize> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

// The server, and the floor.

/// Serves until the conductor has had enough. Says where.
fn host(who: Who, clients: usize) -> io::Result<()> {
    let report = Report::new(|level, line| {
        if level <= Level::Warn {
            eprintln!("{level}: {line}");
        }
    });
    let config = Config {
        max_clients: clients,
        queue_bytes: QUEUE_BYTES,
        history_bytes: 3 * QUEUE_BYTES,
        report,
        ..Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let _running = match who {
        Who::Server => Some(Server::from_listener(listener, config)?.spawn()?),
        Who::Floor => {
            // It ends in an error when the publisher hangs up, as it does in the end.
            thread::spawn(move || floor(&listener, clients));
            None
        }
        Who::Primer => {
            thread::spawn(move || primer::run(&listener));
            None
        }
    };
    // ORDER: the conductor looks at the memory as soon as it has the address, so the server is
    // complete by then.
    println!("{address}");
    io::copy(&mut io::stdin(), &mut io::sink()).map(|_| ())
}

/// One `write` per client and event. No queue, no history, no heartbeat; one client that stops
/// reading stops everybody. No HTTP either: it knows how long a request is, and who comes when.
fn floor(listener: &TcpListener, clients: usize) -> io::Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..clients {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.read_exact(&mut [0; SUBSCRIBE.len()])?;
        socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        sockets.push(socket);
    }
    let (mut publisher, _) = listener.accept()?;
    publisher.set_nodelay(true)?;
    let mut request = Stamp {
        sent_at: 0,
        number: 0,
    }
    .request(Who::Floor.path());
    loop {
        publisher.read_exact(&mut request)?;
        let event = framed(&request[request.len() - EVENT_BYTES..]);
        for socket in &mut sockets {
            socket.write_all(&event)?;
        }
        publisher.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}

/// The bytes that the server would send, but for the id.
fn framed(data: &[u8]) -> Vec<u8> {
    let event = [b"id: 1795326000123-0\ndata: ", data, b"\n\n"].concat();
    let size = format!("{:x}\r\n", event.len());
    [size.as_bytes(), &event, b"\r\n"].concat()
}

// The readers, and the publisher.

/// What an event carries: when it was sent, in nanoseconds since 1970, and its number in the
/// session.
struct Stamp {
    sent_at: u64,
    number: u64,
}

impl Stamp {
    /// The `POST`, of the same length always.
    fn request(&self, path: &str) -> Vec<u8> {
        let Stamp { sent_at, number } = self;
        let stamp = format!("@{sent_at:020} {number:010} ");
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {EVENT_BYTES}\r\n\r\n{stamp:x<EVENT_BYTES$}"
        )
        .into_bytes()
    }

    /// Out of a line of the stream, if it is one with a stamp.
    fn parse(line: &[u8]) -> Option<Stamp> {
        let mut words = line
            .strip_prefix(b"data: @")?
            .splitn(3, |&byte| byte == b' ');
        let mut next = || str::from_utf8(words.next()?).ok()?.parse().ok();
        Some(Stamp {
            sent_at: next()?,
            number: next()?,
        })
    }
}

/// On the clock that both ends of a delivery go by.
fn now() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.expect("a clock that is set").as_nanos() as u64
}

fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::with_capacity(READ_BYTES, socket))
}

/// Connects all clients, says how many were let in, and then measures a run for each line that
/// the conductor writes.
fn read(address: &str, clients: usize, path: &str) -> io::Result<()> {
    let mut readers = Readers::default();
    let mut admitted = 0;
    for index in 0..clients {
        let mut socket = connect(address)?;
        socket.get_mut().write_all(SUBSCRIBE)?;
        if !head(&mut socket)?.starts_with("HTTP/1.1 200") {
            break;
        }
        admitted += 1;
        let is_witness = index % clients.div_ceil(WITNESSES) == 0;
        let kind = if is_witness {
            &mut readers.witnesses
        } else {
            &mut readers.crowd
        };
        kind.push(socket);
    }
    readers.mix_the_crowd();
    println!("{admitted}");
    let mut publisher = Publisher {
        address,
        path,
        socket: connect(address)?,
        next: 0,
    };
    for line in io::stdin().lines() {
        let line = line?;
        let (events, pause) = line.split_once(' ').expect("BUG: not a run");
        let pause = Duration::from_nanos(number(pause) as u64);
        let outcome = readers.run(
            &mut publisher,
            Run {
                events: number(events),
                pause,
            },
        )?;
        println!("{}", outcome.to_line());
    }
    Ok(())
}

/// Reads the head of an answer.
fn head(socket: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if socket.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

struct Publisher<'a> {
    address: &'a str,
    /// Where events are published.
    path: &'a str,
    socket: BufReader<TcpStream>,
    /// The number of the next event. It goes on from run to run.
    next: u64,
}

impl Publisher<'_> {
    fn publish(&mut self, run: Run) -> io::Result<()> {
        let start = Instant::now();
        for turn in 0..run.events as u32 {
            // Each is due at a time that does not depend on how long the one before it took.
            thread::sleep((run.pause * turn).saturating_sub(start.elapsed()));
            let stamp = Stamp {
                sent_at: now(),
                number: self.next,
            };
            self.next += 1;
            self.socket.get_mut().write_all(&stamp.request(self.path))?;
            self.await_answer()?;
        }
        Ok(())
    }

    fn await_answer(&mut self) -> io::Result<()> {
        let head = head(&mut self.socket)?;
        let length = head
            .split_once("Content-Length: ")
            .and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        match length {
            Some(length) if head.starts_with("HTTP/1.1 200") => {
                let mut body = self.socket.by_ref().take(length);
                io::copy(&mut body, &mut io::sink())?;
                // The primer answers one request per connection.
                if head.contains("Connection: close") {
                    self.socket = connect(self.address)?;
                }
                Ok(())
            }
            _ => Err(io::Error::other(format!("the event was refused: {head}"))),
        }
    }
}

/// All clients.
#[derive(Default)]
struct Readers {
    witnesses: Vec<BufReader<TcpStream>>,
    crowd: Vec<BufReader<TcpStream>>,
}

impl Readers {
    /// Takes the crowd out of the order in which the server may write to it: see the top.
    fn mix_the_crowd(&mut self) {
        let numbered: BTreeMap<u32, _> = zip(0u32.., self.crowd.drain(..))
            // Fibonacci hashing: an odd factor, so no two get the same number.
            .map(|(index, client)| (index.wrapping_mul(0x9E37_79B9), client))
            .collect();
        self.crowd = numbered.into_values().collect();
    }

    fn run(&mut self, publisher: &mut Publisher<'_>, run: Run) -> io::Result<Outcome> {
        let clients = self.witnesses.len() + self.crowd.len();
        let shares = self.witnesses.chunks_mut(1).chain([&mut self.crowd[..]]);
        let first = publisher.next;
        let (start, total) = thread::scope(|scope| {
            let readers: Vec<_> = shares
                .map(|share| {
                    let reader = thread::Builder::new()
                        .name("reader".into())
                        .stack_size(STACK_BYTES);
                    reader.spawn_scoped(scope, move || read_in_turn(share, first, run.events))
                })
                .collect::<io::Result<_>>()?;
            let start = now();
            publisher.publish(run)?;
            let mut total = Tally::default();
            for reader in readers {
                total.add(reader.join().expect("BUG: a reader has panicked"));
            }
            io::Result::Ok((start, total))
        })?;
        Ok(total.outcome((clients * run.events) as u64, start))
    }
}

/// One thread's part of a run: an event from each of its sockets, and again. A share of one is a
/// witness.
fn read_in_turn(share: &mut [BufReader<TcpStream>], first: u64, events: usize) -> Tally {
    let mut tally = Tally::default();
    let mut checks: Vec<Check> = share.iter().map(|_| Check::new(first, events)).collect();
    if let Err(error) = read_all(share, &mut checks, &mut tally) {
        // What is not seen by now is lost, to all of the share.
        eprintln!("a reader has given up: {error}");
    }
    tally.finished_at = now();
    tally.seen = checks.iter().map(Check::seen).sum();
    tally
}

fn read_all(
    share: &mut [BufReader<TcpStream>],
    checks: &mut [Check],
    tally: &mut Tally,
) -> io::Result<()> {
    let is_witness = share.len() == 1;
    let mut line = Vec::new();
    while checks.iter().any(|check| !check.is_complete()) {
        for (socket, check) in zip(&mut *share, &mut *checks) {
            if check.is_complete() {
                continue;
            }
            let stamp = next_stamp(socket, &mut line)?;
            check.count(stamp.number, tally);
            if is_witness {
                tally.latencies.push(now().saturating_sub(stamp.sent_at));
            }
        }
    }
    Ok(())
}

/// Reads on to the next event of ours: past the welcome, and any heartbeat.
fn next_stamp(socket: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> io::Result<Stamp> {
    loop {
        line.clear();
        if socket.read_until(b'\n', line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(stamp) = Stamp::parse(line) {
            return Ok(stamp);
        }
    }
}

/// Which events of a run one client has got.
struct Check {
    first: u64,
    seen: Vec<bool>,
    /// The smallest number that is not out of order.
    next: u64,
}

impl Check {
    fn new(first: u64, events: usize) -> Check {
        Check {
            first,
            seen: vec![false; events],
            next: first,
        }
    }

    fn count(&mut self, number: u64, tally: &mut Tally) {
        let index = number.checked_sub(self.first);
        match index.and_then(|index| self.seen.get_mut(index as usize)) {
            Some(seen) if !*seen => {
                *seen = true;
                tally.disordered += u64::from(number < self.next);
            }
            // Seen already, here or in the run before.
            _ => tally.repeated += 1,
        }
        self.next = self.next.max(number + 1);
    }

    /// Whether the last event has come. What has not come before it is lost.
    fn is_complete(&self) -> bool {
        self.next >= self.first + self.seen.len() as u64
    }

    fn seen(&self) -> u64 {
        self.seen.iter().filter(|&&seen| seen).count() as u64
    }
}

/// What readers have read.
#[derive(Default)]
struct Tally {
    seen: u64,
    repeated: u64,
    disordered: u64,
    latencies: Vec<u64>,
    finished_at: u64,
}

impl Tally {
    fn add(&mut self, mut other: Tally) {
        self.seen += other.seen;
        self.repeated += other.repeated;
        self.disordered += other.disordered;
        self.latencies.append(&mut other.latencies);
        self.finished_at = self.finished_at.max(other.finished_at);
    }

    fn outcome(mut self, expected: u64, start: u64) -> Outcome {
        self.latencies.sort_unstable();
        let most = self.latencies.len().saturating_sub(1);
        let percentile = |percent| {
            self.latencies
                .get(most * percent / 100)
                .copied()
                .unwrap_or(0)
        };
        Outcome {
            expected,
            lost: expected - self.seen,
            repeated: self.repeated,
            disordered: self.disordered,
            nanoseconds: self.finished_at.saturating_sub(start),
            p50: percentile(50),
            p99: percentile(99),
        }
    }
}
