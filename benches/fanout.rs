//! What it costs to deliver an event to every client: a server with many clients over
//! loopback, beside a *floor* that does nothing but one `write` for each client and
//! event, and beside the *primer* (`src/examples/primer.rs`), which wakes a thread for
//! each client and event.
//!
//! ```text
//! cargo bench --bench fanout              100, 1,000 and 10,000 clients: about a minute
//! cargo bench --bench fanout -- 1000      only 1,000 clients; several numbers may be given
//! ```
//!
//! # Processes
//!
//! The bench starts itself again, twice for each measurement, and the first process only
//! coordinates. The second process is the server, the floor or the primer. The third
//! process is all clients and the publisher. So the processor time and the memory of the
//! second process are only those of the server, and each server begins with an empty
//! heap.
//!
//! # What is measured
//!
//! - *Processor time*: the time that the threads of the server ran, from
//!   `/proc/PID/task/*/schedstat`, in nanoseconds. (`/proc/PID/stat` counts in units of
//!   10 ms, and a paced run with 100 clients takes only four of them.) The time of a
//!   thread that ends during the run is not counted; the threads that deliver events
//!   outlive the run. The time includes the work of the kernel. Over loopback that is
//!   also the receiving of the packet and the wake-up of its reader. The floor has the
//!   same costs, so the comparison with the floor is fair.
//! - *Latency*: the time from just before the `POST` is written until the client has read
//!   the event.
//! - *Memory*: the growth of the server's `VmRSS` while the clients connect, measured
//!   once for both rows. It contains neither the memory of the kernel for sockets and
//!   threads nor the backlogs of the clients.
//! - *Order*: each client must get each event once, in order. Otherwise the bench fails.
//!
//! On a system without `/proc`, processor time and memory are printed as "-".
//!
//! # The readers, and how they influence the result
//!
//! std has no `epoll`. Polling 10,000 sockets in turn would use the processor time that
//! is to be measured. With one thread for each client, each delivery would have to wake a
//! thread. That costs the writer some microseconds and would hide the differences. So
//! there are two kinds of readers:
//!
//! - At most 100 *witnesses*, spread evenly over the clients. Each is a thread that
//!   blocks in `read` on its own socket. All latencies are those of the witnesses.
//! - One thread for the *crowd* of all other clients. It blocks in `read` on one socket
//!   after the other, in an order that is neither the order of connecting nor its
//!   reverse. While it waits for one socket, the server writes to most of the others. So
//!   it is woken about ten times for each event, and not once for each client.
//!
//! With 100 clients all readers are witnesses. Each delivery then wakes a thread, for the
//! server and for the floor, so the processor times must not be compared with those of
//! 1,000 clients.
//!
//! # What is not measured
//!
//! - A network, slow clients, clients that come and go, topics.
//! - The latency *flat out*. In that run the latency only shows the length of a backlog.
//!   The floor answers the `POST` after all writes, which slows the publisher down. The
//!   server answers at once, so the publisher runs ahead, and the server joins events
//!   into one write. Only the rates and the processor times of this run can be compared.
//!
//! If server and clients share few processors, the latencies and rates are those of both
//! together. Other work of the machine influences p99 most. Measure a row that matters
//! twice.

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

/// The numbers of clients, unless the command line has numbers.
const CLIENTS: [usize; 3] = [100, 1_000, 10_000];
/// The data of an event.
const EVENT_BYTES: usize = 200;
/// An upper bound of the bytes of an event on the wire, with its id and its chunk.
const WIRE_BYTES: usize = 256;
/// The duration of a paced run.
const PACED: Duration = Duration::from_secs(4);
/// The maximum number of deliveries in a run of the server flat out.
const DELIVERIES: usize = 4_000_000;
/// How many times fewer are enough for the floor and the primer, which do not join events
/// into one write.
const FLOOR_DIVISOR: usize = 10;
/// The server's queue for a client, in bytes: a limit, and not memory that is used.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// The maximum number of clients with a thread of their own; see the head of this file.
const WITNESSES: usize = 100;
/// The stack of a reader. It needs little, and 100 threads are many on a small machine.
const STACK_BYTES: usize = 64 * 1024;
/// The maximum number of bytes that a client reads in one call. A client with a backlog
/// reads several events at once.
const READ_BYTES: usize = 4 * 1024;
/// A client that gets no byte for this long fails.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the last client has connected. During this time the server ends the
/// threads that it does not need.
const SETTLING: Duration = Duration::from_millis(700);
/// An upper bound of the open files of a process apart from its clients, with the reserve
/// of the server.
const OTHER_FILES: usize = 640;

const SUBSCRIBE: &[u8] = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--role", "readers", address, clients, path] => {
            read(address, number(clients), path).map(|()| true)
        }
        ["--role", "primer", clients] => host(Subject::Primer, number(clients)).map(|()| true),
        ["--role", "tiny-sse", clients] => host(Subject::Server, number(clients)).map(|()| true),
        ["--role", "floor", clients] => host(Subject::Floor, number(clients)).map(|()| true),
        _ => measure_all(&words),
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

/// Parses a number that another process of this bench has sent.
fn number(word: &str) -> usize {
    word.parse().expect("BUG: not a number")
}

// The coordinator.

/// The kind of server that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// tiny-sse.
    Server,
    /// One `write` for each client and event, and nothing else.
    Floor,
    /// `src/examples/primer.rs`.
    Primer,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Server => "tiny-sse",
            Subject::Floor => "floor",
            Subject::Primer => "primer",
        }
    }

    /// The path that events are published to.
    fn path(self) -> &'static str {
        match self {
            Subject::Server | Subject::Floor => "/events",
            Subject::Primer => "/send",
        }
    }
}

/// How the events are published: their number, and the time between two of them. Without
/// a pause it is *flat out*.
#[derive(Clone, Copy)]
struct Run {
    events: usize,
    pause: Duration,
}

impl Run {
    /// A short run before the others, so that no memory is used for the first time while
    /// it is measured.
    const WARM_UP: Run = Run {
        events: 2,
        pause: Duration::from_millis(10),
    };

    /// The rows of the table.
    fn all(subject: Subject, clients: usize) -> [Run; 2] {
        let pause = Duration::from_millis(if clients <= 1_000 { 50 } else { 200 });
        let deliveries = match subject {
            Subject::Server => DELIVERIES,
            Subject::Floor | Subject::Primer => DELIVERIES / FLOOR_DIVISOR,
        };
        let paced = Run {
            events: PACED.div_duration_f64(pause) as usize,
            pause,
        };
        let flat_out = Run {
            // LIMIT: all events of a run fit into the queue of a client. So no client can
            // fall behind, however few processors the readers have.
            events: (deliveries / clients).clamp(1, QUEUE_BYTES / WIRE_BYTES),
            pause: Duration::ZERO,
        };
        [paced, flat_out]
    }

    /// The runs of a test, which only checks that the bench works.
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

/// Reads the command line of `cargo bench` or `cargo test`, measures and prints. Returns
/// false if an event was lost, repeated or out of order.
fn measure_all(words: &[&str]) -> io::Result<bool> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.starts_with("--"));
    let Ok(mut counts) = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<usize>, _>>()
    else {
        return Ok(true); // the name of a test or of another bench
    };
    // `cargo bench` adds the option `--bench`; `cargo test --benches` adds none.
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

/// Whether this many clients need more open files than the process may have. If so, it
/// prints a line.
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

/// Measures and prints the rows for a number of clients.
fn compare(clients: usize, is_test: bool, total: &mut Outcome) -> io::Result<()> {
    let mut measured = Vec::new();
    for subject in [Subject::Floor, Subject::Primer, Subject::Server] {
        let runs = if is_test {
            Run::smoke()
        } else {
            Run::all(subject, clients)
        };
        match measure(subject, clients, runs, total)? {
            Ok(rows) => measured.push(zip(runs, rows)),
            Err(admitted) => {
                let clients = thousands(clients as f64);
                println!("{clients:>7}  skipped: only {admitted} were accepted, see the warning");
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
        print_row(&name, Subject::Server.name(), server);
        print_row("", Subject::Primer.name(), primer);
        print_row("", Subject::Floor.name(), floor);
        print_row("", "ratio", ratio);
    }
    Ok(())
}

/// Measures all runs with one server and its clients. The inner `Err` is the number of
/// accepted clients, if the server did not accept all.
fn measure(
    subject: Subject,
    clients: usize,
    runs: [Run; 2],
    total: &mut Outcome,
) -> io::Result<Result<Vec<Row>, usize>> {
    let count = clients.to_string();
    let mut server = Process::start(&[subject.name(), &count])?;
    let address = server.line()?;
    let at_rest = resident(server.id());
    let mut readers = Process::start(&["readers", &address, &count, subject.path()])?;
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

/// Another process of this bench, in one of its roles. Dropping it ends the process.
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

    /// Waits for the next line of its output.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a process of the bench ended too early"));
        }
        Ok(line.trim_end().to_string())
    }

    /// Makes the readers publish and read a run, and waits for the outcome.
    fn run(&mut self, run: Run) -> io::Result<Outcome> {
        let input = self.child.stdin.as_mut().expect("BUG: it is a pipe");
        writeln!(input, "{} {}", run.events, run.pause.as_nanos())?;
        let line = self.line()?;
        Ok(Outcome::parse(&line).expect("BUG: not an outcome"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: the process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// The table.

/// Deliveries per second, µs of processor time per delivery, latency in ms (p50, p99),
/// KiB per client.
type Row = [Option<f64>; 5];
/// The index of the column without a ratio, because the floor uses almost no memory for a
/// client.
const KIB: usize = 4;

fn print_head() {
    println!(
        "clients  publisher            deliveries/s  cpu µs each    p50 ms    p99 ms  KiB/client"
    );
}

fn print_row(run: &str, subject: &str, row: Row) {
    let cells = zip(row, [12, 11, 8, 8, 10]).map(|(value, width)| match value {
        Some(value) if value >= 1000.0 => format!("  {:>width$}", thousands(value)),
        Some(value) => format!("  {value:>width$.2}"),
        None => format!("  {:>width$}", "-"),
    });
    println!("{run:18}  {subject:8}{}", cells.collect::<String>());
}

/// Returns the number as text with commas, such as `1,234`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups = digits.as_bytes().rchunks(3).rev().map(str::from_utf8);
    groups
        .map(|group| group.expect("BUG: digits"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The outcome of one or more runs.
#[derive(Default)]
struct Outcome {
    expected: u64,
    lost: u64,
    repeated: u64,
    disordered: u64,
    /// The time from the first `POST` to the last delivery.
    nanoseconds: u64,
    /// Latencies, in nanoseconds.
    p50: u64,
    p99: u64,
}

impl Outcome {
    /// Returns the line that the readers send to the coordinator: the fields in their
    /// order.
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

// Numbers from `/proc`, if the system has it.

/// Returns the nanoseconds that each thread of a process has run so far.
fn processor_time(process: u32) -> Option<HashMap<OsString, u64>> {
    let tasks = read_dir(format!("/proc/{process}/task")).ok()?.flatten();
    let times = tasks.filter_map(|task| {
        // The thread may have ended after the directory was read.
        let schedstat = read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), schedstat.split(' ').next()?.parse().ok()?))
    });
    let times: HashMap<OsString, u64> = times.collect();
    // A kernel that is built without these statistics has zeros, or no such file.
    times.values().any(|&time| time > 0).then_some(times)
}

/// Returns the nanoseconds that the threads in `now` have run since `before`.
fn since(before: &HashMap<OsString, u64>, now: &HashMap<OsString, u64>) -> u64 {
    let grown = now.iter().map(|(thread, time)| {
        // A new thread may have the number of a thread that has ended.
        time.saturating_sub(before.get(thread).copied().unwrap_or(0))
    });
    grown.sum()
}

/// Returns the resident memory of a process in KiB.
fn resident(process: u32) -> Option<f64> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns how many files this process and its children may have open.
fn open_files() -> Option<usize> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

// The server, the floor and the primer.

/// Starts a server, prints its address, and serves until standard input is closed.
fn host(subject: Subject, clients: usize) -> io::Result<()> {
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
    let _running = match subject {
        Subject::Server => Some(Server::from_listener(listener, config)?.spawn()?),
        Subject::Floor => {
            // `floor` returns an error when the publisher closes its connection, which is
            // the normal end.
            thread::spawn(move || floor(&listener, clients));
            None
        }
        Subject::Primer => {
            thread::spawn(move || primer::run(&listener));
            None
        }
    };
    // ORDER: after the start. The coordinator reads the memory of this process as soon as
    // it has the address.
    println!("{address}");
    io::copy(&mut io::stdin(), &mut io::sink()).map(|_| ())
}

/// Does one `write` for each client and event. It has no queue, no history and no
/// heartbeat, and one client that stops reading stops the delivery to all. It does not
/// parse HTTP: it knows the length of a request, and that all clients connect before the
/// publisher.
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
    .request(Subject::Floor.path());
    loop {
        publisher.read_exact(&mut request)?;
        let event = framed(&request[request.len() - EVENT_BYTES..]);
        for socket in &mut sockets {
            socket.write_all(&event)?;
        }
        publisher.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}

/// Returns the bytes that the server would send for an event, apart from the id.
fn framed(data: &[u8]) -> Vec<u8> {
    let event = [b"id: 1795326000123-0\ndata: ", data, b"\n\n"].concat();
    let size = format!("{:x}\r\n", event.len());
    [size.as_bytes(), &event, b"\r\n"].concat()
}

// The readers and the publisher.

/// The data of an event: the time at which it was sent, in nanoseconds since 1970, and
/// its number. The numbers continue from run to run.
struct Stamp {
    sent_at: u64,
    number: u64,
}

impl Stamp {
    /// Returns the bytes of the `POST`. Their number is always the same.
    fn request(&self, path: &str) -> Vec<u8> {
        let Stamp { sent_at, number } = self;
        let stamp = format!("@{sent_at:020} {number:010} ");
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {EVENT_BYTES}\r\n\r\n{stamp:x<EVENT_BYTES$}"
        )
        .into_bytes()
    }

    /// Parses a line of the stream; `None` if the line has no stamp.
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

/// Returns the current time. Publisher and readers use the same clock.
fn now() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.expect("a clock that is set").as_nanos() as u64
}

fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(BufReader::with_capacity(READ_BYTES, socket))
}

/// Connects all clients and prints how many the server accepted. Then it measures one run
/// for each line that the coordinator sends.
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
    /// The path that events are published to.
    path: &'a str,
    socket: BufReader<TcpStream>,
    /// The number of the next event. It continues from run to run.
    next: u64,
}

impl Publisher<'_> {
    fn publish(&mut self, run: Run) -> io::Result<()> {
        let start = Instant::now();
        for turn in 0..run.events as u32 {
            // The time of each event does not depend on how long the previous one took.
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
    /// Brings the crowd into an order that differs from the order in which the server
    /// writes; see the head of this file.
    fn mix_the_crowd(&mut self) {
        let numbered: BTreeMap<u32, _> = zip(0u32.., self.crowd.drain(..))
            // Fibonacci hashing: the factor is odd, so no two clients get the same
            // number.
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

/// Runs one reader: reads one event from each of its sockets in turn, until it has all
/// events. A share of one socket is a witness.
fn read_in_turn(share: &mut [BufReader<TcpStream>], first: u64, events: usize) -> Tally {
    let mut tally = Tally::default();
    let mut checks: Vec<Check> = share.iter().map(|_| Check::new(first, events)).collect();
    if let Err(error) = read_all(share, &mut checks, &mut tally) {
        // All events that the clients of this share have not received by now count as
        // lost.
        eprintln!("a reader gave up: {error}");
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

/// Reads up to the next event with a stamp. Skips the welcome and heartbeats.
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

/// Which events of a run one client has received.
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
            // The client has received this event before, in this run or in the previous
            // one.
            _ => tally.repeated += 1,
        }
        self.next = self.next.max(number + 1);
    }

    /// Whether the last event has been received. Events that were not received before it
    /// are lost.
    fn is_complete(&self) -> bool {
        self.next >= self.first + self.seen.len() as u64
    }

    fn seen(&self) -> u64 {
        self.seen.iter().filter(|&&seen| seen).count() as u64
    }
}

/// The sums of one or more readers.
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
