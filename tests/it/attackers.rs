//! Under siege, on the real program: hundreds whose heads come a byte a second, thousands who say
//! nothing, all of whom come back as soon as they are put out; and among them somebody who wants an
//! event. Prints how long that took, beside the same in peace. Other tests send more than a thousand
//! bodies of a megabyte without their last byte, and thousands of bodies that come a byte at a time.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{Stream, eventually, figures, get, number_after, post};
use crate::program::serve;

const SLOW: usize = 500;
const SILENT: usize = 2_000;

/// How often those with slow heads send a byte, and those who were put out come back.
const PACE: Duration = Duration::from_secs(1);

/// How often somebody wants an event.
const VISITS: Duration = Duration::from_millis(20);

/// Connections of attackers in one siege. More are not made, whatever the server does to them.
const MOST_OPENED: usize = 100_000;

/// What a server that has been through it may have kept, in KiB: glibc keeps 40 MiB of stacks for
/// threads to come, of each of which some 24 KiB were touched, and in its arenas what is between things
/// that stay. It is as much after five sieges as after two.
const KEPT_KIB: u64 = 12 << 10;

struct Attacker {
    socket: TcpStream,
    is_slow: bool,
    /// What it has been told.
    told: Vec<u8>,
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
            told: Vec::new(),
            has_ended: false,
        };
        attacker.send(start);
        attacker
    }

    /// Best effort: it may have been put out, which is seen when it looks.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write(bytes);
    }

    /// Whether it has been put out.
    fn look(&mut self) -> bool {
        let mut bytes = [0; 4096];
        while !self.has_ended {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.told.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Reset: a byte of it came too late.
                Err(_) => self.has_ended = true,
            }
        }
        self.has_ended
    }

    /// Who is put out is told so, if it has begun to speak and there is time for it. Who was not let in
    /// is told so in any case.
    #[track_caller]
    fn check_what_it_was_told(&self) {
        let told = String::from_utf8_lossy(&self.told);
        let is_late = self.is_slow && told.starts_with("HTTP/1.1 408 ");
        let is_known = told.is_empty() || told.starts_with("HTTP/1.1 503 ") || is_late;
        assert!(is_known, "slow: {}: {told:?}", self.is_slow);
    }
}

/// Attacks until it is told to stop; answers who is there then, and how many there were.
fn attack(address: SocketAddr, is_over: &Receiver<()>) -> (Vec<Attacker>, usize) {
    let kinds = (0..SLOW + SILENT).map(|number| number % 5 == 0);
    let mut attackers: Vec<_> = kinds
        .map(|is_slow| Attacker::open(address, is_slow))
        .collect();
    let mut opened = attackers.len();
    while is_over.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        for attacker in &mut attackers {
            if attacker.look() && opened < MOST_OPENED {
                attacker.check_what_it_was_told();
                *attacker = Attacker::open(address, attacker.is_slow);
                opened += 1;
            } else if attacker.is_slow {
                attacker.send(b"x");
            }
        }
    }
    (attackers, opened)
}

/// Connects, subscribes, publishes, and waits for what was published.
#[track_caller]
fn visit(address: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut stream = Stream::subscribe(address, "/events/siege");
    let answer = post(address, "/events/siege", "relief");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(stream.next().data, "relief");
    start.elapsed()
}

/// A number of the process, by its name in `/proc/PID/status`.
fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a child of ours");
    number_after(&status.replace([' ', '\t'], ""), &format!("{name}:"))
}

/// Lets this process open as many files as it needs. The program sees to that by itself.
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

fn withstand(arguments: &[&str], hold: Duration) {
    allow_open_files(SLOW + SILENT + 200);
    let program = serve(arguments);
    let (address, pid) = (program.address, program.process.child.id());
    let at_rest = status(pid, "Threads");
    let in_peace: Vec<_> = (0..500).map(|_| visit(address)).collect();
    eventually("the threads of the visits are gone", || {
        status(pid, "Threads") <= at_rest
    });
    let memory = status(pid, "VmRSS");
    let stats = get(address, "/stats");
    let places = number_after(stats.text(), "\"max_connections\":") as usize + 256;
    println!("{arguments:?}: {places} places, {SLOW} slow heads and {SILENT} who are silent");
    println!("  in peace:   {}", figures("visits", in_peace));

    let (over, is_over) = channel();
    let (_visits, pace) = channel::<()>();
    let (attackers, opened, besieged) = thread::scope(|scope| {
        let siege = scope.spawn(move || attack(address, &is_over));
        let threads = places.min(SLOW + SILENT) as u64;
        eventually("all places are taken", || status(pid, "Threads") >= threads);
        let (mut times, begun, mut most) = (Vec::new(), Instant::now(), 0);
        while begun.elapsed() < hold {
            times.push(visit(address));
            most = most.max(status(pid, "Threads"));
            // The pace of the visits, and no wait for anything.
            let _ = pace.recv_timeout(VISITS);
        }
        drop(over);
        let (attackers, opened) = siege.join().expect("attackers");
        println!(
            "  {:.0?} of siege, {opened} connections, {most} threads at the most, {} KiB",
            begun.elapsed(),
            status(pid, "VmRSS")
        );
        (attackers, opened, times)
    });
    println!("  under siege: {}", figures("visits", besieged));
    assert!(opened < MOST_OPENED, "the siege ran out of connections");

    put_out(attackers);
    eventually("the threads of the siege are gone", || {
        status(pid, "Threads") <= at_rest
    });
    let after = status(pid, "VmRSS");
    println!("  {memory} KiB of memory before it, {after} KiB after it");
    assert!(
        after <= memory + KEPT_KIB,
        "{memory} KiB became {after} KiB"
    );
    let again: Vec<_> = (0..500).map(|_| visit(address)).collect();
    println!("  afterwards: {}", figures("visits", again));
}

/// Waits until each has seen its end.
fn put_out(mut attackers: Vec<Attacker>) {
    eventually("all are put out", || {
        attackers.iter_mut().all(Attacker::look)
    });
    for attacker in &attackers {
        attacker.check_what_it_was_told();
    }
    let told = |start: &str| {
        let told = attackers
            .iter()
            .filter(|attacker| attacker.told.starts_with(start.as_bytes()));
        told.count()
    };
    println!(
        "  put out: {} with a 408, {} with a 503, {} in silence",
        told("HTTP/1.1 408 "),
        told("HTTP/1.1 503 "),
        attackers
            .iter()
            .filter(|attacker| attacker.told.is_empty())
            .count()
    );
}

#[test]
#[ignore = "takes 45 s and 2,700 open files"]
fn who_wants_an_event_gets_it_while_thousands_take_all_places_and_say_nothing() {
    withstand(&[], Duration::from_secs(30));
}

#[test]
#[ignore = "takes 30 s and 2,700 open files"]
fn who_wants_an_event_gets_it_while_thousands_have_a_thread_each_and_say_nothing() {
    withstand(&["--max-clients", "4000"], Duration::from_secs(15));
}

// ---- bodies

/// Connections with large bodies: one for each place of the default.
const BODIES: usize = 1_256;
const BODY_BYTES: usize = 1 << 20;

/// What a server at its defaults may have taken at the most, in KiB.
const MOST_KIB: u64 = 128 << 10;

/// A client that has announced a body and sends as much of it as it is told to.
struct Uploader {
    socket: TcpStream,
    sent: usize,
    told: Vec<u8>,
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
            told: Vec::new(),
        }
    }

    /// Sends up to `most` bytes of its body, and reads what there is.
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
            self.told.extend_from_slice(&bytes[..count]);
        }
    }

    /// The status that it was told; `None`: nothing yet.
    fn status(&self) -> Option<u16> {
        let told = String::from_utf8_lossy(&self.told);
        let status = told.split(' ').nth(1);
        let is_later = !told.starts_with("HTTP/1.1 503 ") || told.contains("\r\nRetry-After: ");
        assert!(is_later, "a 503 that does not say when: {told}");
        status.map(|status| status.parse().expect("a status"))
    }
}

/// Subscribes and publishes until it is told to stop; each request must be answered as without attackers.
fn go_on_as_ever(address: SocketAddr, is_over: &Receiver<()>) -> Vec<Duration> {
    let mut times = Vec::new();
    loop {
        times.push(visit(address));
        assert_eq!(get(address, "/health").status, 200);
        if is_over.recv_timeout(VISITS) != Err(RecvTimeoutError::Timeout) {
            return times;
        }
    }
}

#[test]
#[ignore = "takes five seconds and 1,500 open files"]
fn unwanted_bodies_take_no_memory_and_the_others_share_a_budget() {
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
            let visits = scope.spawn(move || go_on_as_ever(address, &is_over));
            let mut uploaders = Vec::new();
            for number in 0..BODIES {
                uploaders.push(Uploader::open(address, starts[number % starts.len()]));
                // All of them go on while more come.
                for uploader in uploaders.iter_mut().rev().take(20) {
                    uploader.step(BODY_BYTES - 1);
                }
            }
            // What was sent may still be in the kernel's buffers, and its answer on the way.
            eventually(
                "all but a few are answered, and these have sent all but one byte",
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
            (uploaders, visits.join().expect("visits"))
        });
        let count = |wanted: Option<u16>| {
            let told = uploaders.iter().filter(|one| one.status() == wanted);
            told.count()
        };
        let held = count(None);
        println!(
            "{starts:?}: {highest} KiB at the most; {held} held, {} with a 404, {} with a 405, {} with a 503",
            count(Some(404)),
            count(Some(405)),
            count(Some(503))
        );
        println!("  {}", figures("visits meanwhile", times));
        assert!(highest <= MOST_KIB, "{highest} KiB");
        assert!(held <= most_held, "{held} are held");
    }
}

#[test]
#[ignore = "takes five seconds and 3,000 open files"]
fn a_client_gets_its_event_while_slow_bodies_take_all_places() {
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
            times.push(visit(address));
        }
    }
    println!("{}", figures("visits among slow bodies", times));
    let memory = status(pid, "VmRSS");
    println!("  {memory} KiB, {} threads", status(pid, "Threads"));
    assert!(memory <= MOST_KIB, "{memory} KiB");
    // Most of the evicted clients have a 503; the others were too many at once.
    let mut evicted = 0;
    eventually("told", || {
        slow.iter_mut().for_each(|one| one.step(0));
        evicted = slow.iter().filter(|one| one.status() == Some(503)).count();
        evicted >= BODIES / 2
    });
    println!("  {evicted} of {SLOW_BODIES} were told to come later");
}
