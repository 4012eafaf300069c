//! Attackers that take all connections of the program. Hundreds send the head of a
//! request at one byte per second, and thousands send nothing; all of them reconnect as
//! soon as the server disconnects them. At the same time an ordinary client subscribes,
//! publishes and gets its event. The tests print how long the client waits, with and
//! without attackers. Other tests send more than a thousand bodies of 1 MiB without their
//! last byte, and thousands of bodies byte by byte.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{Stream, describe_times, eventually, get, number_after, post};
use crate::program::serve;

const SLOW: usize = 500;
const SILENT: usize = 2_000;

/// The interval at which slow attackers send a byte, and disconnected attackers
/// reconnect.
const ATTACK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause of the ordinary client between two events.
const CLIENT_INTERVAL: Duration = Duration::from_millis(20);

/// The most connections that attackers open in one test, whatever the server does to
/// them.
const MOST_OPENED: usize = 100_000;

/// How much more memory the server may hold after an attack than before it, in KiB. glibc
/// keeps 40 MiB of stacks for future threads, of which about 24 KiB each were used, and
/// in its arenas the free memory between blocks in use. The amount is the same after five
/// attacks as after two.
const KEPT_KIB: u64 = 12 << 10;

/// One connection of an attacker.
struct Attacker {
    socket: TcpStream,
    /// True for a connection that sends a head slowly, false for one that sends nothing.
    is_slow: bool,
    /// The bytes that the server has sent.
    received: Vec<u8>,
    has_ended: bool,
}

impl Attacker {
    fn open(address: SocketAddr, is_slow: bool) -> Attacker {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nonblocking(true).unwrap();
        let start: &[u8] = if is_slow {
            b"GET / HTTP/1.1\r\nX: "
        } else {
            b""
        };
        let mut attacker = Attacker {
            socket,
            is_slow,
            received: Vec::new(),
            has_ended: false,
        };
        attacker.send(start);
        attacker
    }

    /// Best effort: the server may have disconnected this attacker;
    /// `has_been_disconnected` notices it.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write(bytes);
    }

    /// Reads all bytes that have arrived. Returns whether the server has closed the
    /// connection.
    fn has_been_disconnected(&mut self) -> bool {
        let mut bytes = [0; 4096];
        while !self.has_ended {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A reset, because a byte of the attacker arrived after the close.
                Err(_) => self.has_ended = true,
            }
        }
        self.has_ended
    }

    /// Checks the answer to this attacker: nothing, a 503, or, if it has begun a request,
    /// a 408.
    #[track_caller]
    fn check_answer(&self) {
        let answer = String::from_utf8_lossy(&self.received);
        let is_timeout = self.is_slow && answer.starts_with("HTTP/1.1 408 ");
        let is_expected = answer.is_empty() || answer.starts_with("HTTP/1.1 503 ") || is_timeout;
        assert!(is_expected, "slow: {}: {answer:?}", self.is_slow);
    }
}

/// Attacks until the sender of `is_over` is dropped. Returns the attackers that are
/// connected then, and the number of connections that were opened.
fn attack(address: SocketAddr, is_over: &Receiver<()>) -> (Vec<Attacker>, usize) {
    let kinds = (0..SLOW + SILENT).map(|number| number % 5 == 0);
    let mut attackers: Vec<_> = kinds
        .map(|is_slow| Attacker::open(address, is_slow))
        .collect();
    let mut opened = attackers.len();
    while is_over.recv_timeout(ATTACK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        for attacker in &mut attackers {
            if attacker.has_been_disconnected() && opened < MOST_OPENED {
                attacker.check_answer();
                *attacker = Attacker::open(address, attacker.is_slow);
                opened += 1;
            } else if attacker.is_slow {
                attacker.send(b"x");
            }
        }
    }
    (attackers, opened)
}

/// Connects, subscribes, publishes, and waits for the published event. Returns how long
/// all of this took.
#[track_caller]
fn round_trip(address: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut stream = Stream::subscribe(address, "/events/client");
    let answer = post(address, "/events/client", "an event");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(stream.next().data, "an event");
    start.elapsed()
}

/// Returns a number about the process, by its name in `/proc/PID/status`.
fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a child process");
    number_after(&status.replace([' ', '\t'], ""), &format!("{name}:"))
}

/// Raises the limit of open files for this process. The program raises its own limit.
fn allow_open_files(needed: usize) {
    let limits = fs::read_to_string("/proc/self/limits").expect("the limits of this process");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    if soft.is_some_and(|soft: usize| soft < needed) {
        let status = Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string()])
            .arg(format!("--nofile={needed}:"))
            .status();
        let allowed = status.expect("prlimit, of util-linux").success();
        assert!(allowed, "{needed} open files are needed (ulimit -Hn)");
    }
}

/// Attacks the program for `duration`, and checks that the ordinary client gets its
/// events, that all attackers are disconnected in the end, and that the memory is free
/// again.
fn attack_and_check(arguments: &[&str], duration: Duration) {
    allow_open_files(SLOW + SILENT + 200);
    let program = serve(arguments);
    let (address, pid) = (program.address, program.process.child.id());
    let idle_threads = status(pid, "Threads");
    let before_attack: Vec<_> = (0..500).map(|_| round_trip(address)).collect();
    eventually("the threads of the client's streams have ended", || {
        status(pid, "Threads") <= idle_threads
    });
    let memory = status(pid, "VmRSS");
    let stats = get(address, "/stats");
    let slots = number_after(stats.text(), "\"max_connections\":") as usize + 256;
    println!("{arguments:?}: {slots} slots, {SLOW} slow attackers, {SILENT} silent attackers");
    println!(
        "  before the attack: {}",
        describe_times("round trips", before_attack)
    );

    let (over, is_over) = channel();
    let (_sender, pause) = channel::<()>();
    let (attackers, opened, during_attack) = thread::scope(|scope| {
        let attack = scope.spawn(move || attack(address, &is_over));
        let threads = slots.min(SLOW + SILENT) as u64;
        eventually("all slots are taken", || status(pid, "Threads") >= threads);
        let (mut times, begun, mut most) = (Vec::new(), Instant::now(), 0);
        while begun.elapsed() < duration {
            times.push(round_trip(address));
            most = most.max(status(pid, "Threads"));
            // This pause makes the load of the client; it does not wait for a condition.
            let _ = pause.recv_timeout(CLIENT_INTERVAL);
        }
        drop(over);
        let (attackers, opened) = attack.join().expect("the attackers' checks");
        println!(
            "  {:.0?} of attack, {opened} connections, at most {most} threads, {} KiB",
            begun.elapsed(),
            status(pid, "VmRSS")
        );
        (attackers, opened, times)
    });
    println!(
        "  during the attack: {}",
        describe_times("round trips", during_attack)
    );
    assert!(
        opened < MOST_OPENED,
        "the attackers reached their limit of connections"
    );

    wait_until_disconnected(attackers);
    eventually(
        "the threads of the attackers' connections have ended",
        || status(pid, "Threads") <= idle_threads,
    );
    let after = status(pid, "VmRSS");
    println!("  {memory} KiB of memory before the attack, {after} KiB after it");
    assert!(
        after <= memory + KEPT_KIB,
        "{memory} KiB became {after} KiB"
    );
    let after_attack: Vec<_> = (0..500).map(|_| round_trip(address)).collect();
    println!(
        "  after the attack:  {}",
        describe_times("round trips", after_attack)
    );
}

/// Waits until the server has disconnected all attackers, and checks its answers.
fn wait_until_disconnected(mut attackers: Vec<Attacker>) {
    eventually("all attackers are disconnected", || {
        attackers.iter_mut().all(Attacker::has_been_disconnected)
    });
    for attacker in &attackers {
        attacker.check_answer();
    }
    let answered = |start: &str| {
        let answered = attackers
            .iter()
            .filter(|attacker| attacker.received.starts_with(start.as_bytes()));
        answered.count()
    };
    println!(
        "  disconnected: {} with a 408, {} with a 503, {} without an answer",
        answered("HTTP/1.1 408 "),
        answered("HTTP/1.1 503 "),
        attackers
            .iter()
            .filter(|attacker| attacker.received.is_empty())
            .count()
    );
}

#[test]
#[ignore = "takes 45 s and 2,700 open files"]
fn a_client_gets_its_events_while_slow_and_silent_attackers_take_all_slots() {
    attack_and_check(&[], Duration::from_secs(30));
}

#[test]
#[ignore = "takes 30 s and 2,700 open files"]
fn a_client_gets_its_events_while_each_of_thousands_of_attackers_has_a_slot() {
    attack_and_check(&["--max-clients", "4000"], Duration::from_secs(15));
}

// ---- bodies

/// The number of connections with large bodies: one for each slot in the default
/// configuration.
const BODIES: usize = 1_256;
const BODY_BYTES: usize = 1 << 20;

/// The most memory that a server in the default configuration may take, in KiB.
const MOST_KIB: u64 = 128 << 10;

/// A connection that announces a body of `BODY_BYTES` and sends it step by step.
struct Uploader {
    socket: TcpStream,
    sent: usize,
    /// The bytes that the server has sent.
    received: Vec<u8>,
}

impl Uploader {
    fn open(address: SocketAddr, start: &str) -> Uploader {
        let mut socket = TcpStream::connect(address).expect("a connection");
        let head =
            format!("{start} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        socket.set_nonblocking(true).unwrap();
        // Best effort, here and below: the server may have rejected the connection.
        let _ = socket.write(head.as_bytes());
        Uploader {
            socket,
            sent: 0,
            received: Vec::new(),
        }
    }

    /// Sends more of the body, up to `most` bytes in total, and reads what has arrived.
    /// Does not block.
    fn step(&mut self, most: usize) {
        static BODY: [u8; 64 << 10] = [b'x'; 64 << 10];
        let left = most.saturating_sub(self.sent).min(BODY.len());
        match self.socket.write(&BODY[..left]) {
            Ok(count) => self.sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.sent = most,
        }
        let mut bytes = [0; 4096];
        if let Ok(count) = self.socket.read(&mut bytes) {
            self.received.extend_from_slice(&bytes[..count]);
        }
    }

    /// Returns the status of the answer, or `None` if it has not arrived. Checks that a
    /// 503 has `Retry-After`.
    fn status(&self) -> Option<u16> {
        let answer = String::from_utf8_lossy(&self.received);
        let status = answer.split(' ').nth(1);
        let is_503 = answer.starts_with("HTTP/1.1 503 ");
        let has_retry_after = answer.contains("\r\nRetry-After: ");
        assert!(
            !is_503 || has_retry_after,
            "a 503 without Retry-After: {answer}"
        );
        status.map(|status| status.parse().expect("a status"))
    }
}

/// Subscribes and publishes until the sender of `is_over` is dropped. Each request must
/// get the same answer as without attackers. Returns the times of the round trips.
fn round_trips(address: SocketAddr, is_over: &Receiver<()>) -> Vec<Duration> {
    let mut times = Vec::new();
    loop {
        times.push(round_trip(address));
        assert_eq!(get(address, "/health").status, 200);
        if is_over.recv_timeout(CLIENT_INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return times;
        }
    }
}

#[test]
#[ignore = "takes 5 s and 1,500 open files"]
fn bodies_of_refused_requests_take_no_memory_and_all_other_bodies_share_a_budget() {
    allow_open_files(BODIES + 200);
    for (starts, most_held) in [
        (&["POST /nowhere", "GET /health", "PUT /events"][..], 0),
        (&["POST /events"][..], 64),
    ] {
        let program = serve(&[]);
        let (address, pid) = (program.address, program.process.child.id());
        let (over, is_over) = channel();
        let mut highest = 0;
        let (uploaders, times) = thread::scope(|scope| {
            let client = scope.spawn(move || round_trips(address, &is_over));
            let mut uploaders = Vec::new();
            for number in 0..BODIES {
                uploaders.push(Uploader::open(address, starts[number % starts.len()]));
                // Earlier uploads continue while new ones begin.
                for uploader in uploaders.iter_mut().rev().take(20) {
                    uploader.step(BODY_BYTES - 1);
                }
            }
            // Bytes and answers may still be in the kernel's buffers.
            eventually(
                "all but a few uploads are answered, and these few have sent all but one byte",
                || {
                    highest = highest.max(status(pid, "VmRSS"));
                    for uploader in &mut uploaders {
                        uploader.step(BODY_BYTES - 1);
                    }
                    let (answered, held): (Vec<_>, Vec<_>) =
                        uploaders.iter().partition(|one| one.status().is_some());
                    let have_sent = held.iter().all(|one| one.sent == BODY_BYTES - 1);
                    have_sent && answered.len() >= BODIES - most_held
                },
            );
            drop(over);
            (uploaders, client.join().expect("the client's checks"))
        });
        let count = |wanted: Option<u16>| {
            let having = uploaders.iter().filter(|one| one.status() == wanted);
            having.count()
        };
        let held = count(None);
        println!(
            "{starts:?}: at most {highest} KiB; {held} held, {} with a 404, {} with a 405, {} with a 503",
            count(Some(404)),
            count(Some(405)),
            count(Some(503))
        );
        println!("  {}", describe_times("round trips meanwhile", times));
        assert!(highest <= MOST_KIB, "{highest} KiB");
        assert!(held <= most_held, "{held} bodies are held");
    }
}

#[test]
#[ignore = "takes 5 s and 3,000 open files"]
fn a_client_gets_its_events_while_slow_bodies_take_all_slots() {
    const SLOW_BODIES: usize = 2 * BODIES;
    allow_open_files(SLOW_BODIES + 200);
    let program = serve(&[]);
    let (address, pid) = (program.address, program.process.child.id());
    let mut times = Vec::new();
    let mut slow: Vec<Uploader> = Vec::new();
    for number in 0..SLOW_BODIES {
        slow.push(Uploader::open(address, "POST /events"));
        for uploader in slow.iter_mut().rev().take(2) {
            uploader.step(uploader.sent + 1);
        }
        if number % 20 == 0 && number > BODIES {
            times.push(round_trip(address));
        }
    }
    println!("{}", describe_times("round trips among slow bodies", times));
    let memory = status(pid, "VmRSS");
    println!("  {memory} KiB, {} threads", status(pid, "Threads"));
    assert!(memory <= MOST_KIB, "{memory} KiB");
    // Most evicted clients get a 503. The others are too many at once to get an answer.
    let mut evicted = 0;
    eventually("half of the evicted clients have a 503", || {
        slow.iter_mut().for_each(|one| one.step(0));
        evicted = slow.iter().filter(|one| one.status() == Some(503)).count();
        evicted >= BODIES / 2
    });
    println!("  {evicted} of {SLOW_BODIES} got a 503");
}
