//! Many at once, on the real program: everybody gets everything, whoever comes and goes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::chance::Random;
use crate::kit::{Finally, Raw, Stream, eventually, get, number_after};
use crate::program::serve;

// Both ends in one process would need two descriptors for each client, and 1,024 is what many
// systems give. So the server is a process of its own, and all fit in either.
const CLIENTS: usize = 500;
const VISITORS: usize = 100;
const EVENTS: usize = 1_000;
/// Threads that read, each for its share of the clients.
const READERS: usize = 4;

fn count(address: SocketAddr, what: &str) -> u64 {
    let key = format!("\"{what}\":");
    number_after(get(address, "/stats").text(), &key)
}

/// How far publisher and visitors are. Each waits for the other, so that all the time that events
/// go out somebody comes and somebody goes.
#[derive(Default)]
struct Pace {
    events: AtomicUsize,
    visits: AtomicUsize,
    is_over: AtomicBool,
}

/// Comes and goes as it likes: some hang up at once, some when they have read what they missed,
/// some stay for a while and leave with everything unread.
fn visit(address: SocketAddr, share: usize, pace: &Pace) {
    let mut random = Random::new();
    let mut present: Vec<Stream> = Vec::new();
    while !pace.is_over.load(Ordering::Relaxed) {
        if pace.visits.load(Ordering::Relaxed) > pace.events.load(Ordering::Relaxed) / 2 + 20 {
            thread::yield_now();
            continue;
        }
        pace.visits.fetch_add(1, Ordering::Relaxed);
        match random.below(4) {
            0 => {
                Raw::connect(address).send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
            1 => {
                let mut stream = Stream::subscribe(address, "/events?last_event_id=earliest");
                let replayed = number_after(&stream.next().data, "\"replayed\":");
                for number in 0..random.below(replayed as usize + 1) {
                    assert_eq!(stream.next().data, number.to_string());
                }
            }
            _ if present.len() < share => present.push(Stream::subscribe(address, "/events/*")),
            _ => drop(present.swap_remove(random.below(share))),
        }
    }
}

#[test]
fn everybody_in_a_crowd_gets_everything_in_order_whoever_comes_and_goes() {
    // Room for all who come, though the machine be so busy that nobody's leaving is noticed before the
    // end: of the visits there is one for two events, and 20.
    let most = (CLIENTS + EVENTS / 2 + 100).to_string();
    let program = serve(&["--max-clients", &most, "--extra-connections", "200"]);
    let address = program.address;
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| Stream::subscribe(address, "/events"))
        .collect();
    assert_eq!(count(address, "active_connections"), CLIENTS as u64);
    let pace = Pace::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| visit(address, VISITORS / 2, &pace));
        }
        scope.spawn(|| publish_all(address, &pace));
        for share in clients.chunks_mut(CLIENTS / READERS) {
            scope.spawn(|| read_in_turn(share));
        }
    });
    // Who has gone is noticed by what is written to it, or within a heartbeat: here by an event.
    eventually("only those are there who are there", || {
        publish_to_nobody_in_particular(address);
        count(address, "active_connections") == CLIENTS as u64
    });
    for close_reason in ["fell_behind", "timed_out", "replaced", "kicked"] {
        assert_eq!(count(address, close_reason), 0, "{close_reason}");
    }
    drop(clients);
    eventually("nobody is there", || {
        publish_to_nobody_in_particular(address);
        count(address, "active_connections") == 0
    });
    assert_eq!(
        count(address, "hung_up"),
        count(address, "total_connections")
    );
}

/// One by one, over one connection.
fn publish_all(address: SocketAddr, pace: &Pace) {
    let _over = Finally(|| pace.is_over.store(true, Ordering::Relaxed));
    let mut publisher = Raw::connect(address);
    for number in 0..EVENTS {
        eventually("visitors come and go", || {
            pace.visits.load(Ordering::Relaxed) >= number / 4
        });
        let body = number.to_string();
        let length = body.len();
        publisher.send(format!(
            "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let answer = publisher.answer();
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
        let recipients = number_after(answer.text(), "\"recipients\":");
        assert!(recipients >= CLIENTS as u64, "{}", answer.text());
        pace.events.store(number + 1, Ordering::Relaxed);
    }
}

/// Event by event, from each client in turn.
fn read_in_turn(clients: &mut [Stream]) {
    for number in 0..EVENTS {
        for (index, stream) in clients.iter_mut().enumerate() {
            assert_eq!(stream.next().data, number.to_string(), "client {index}");
        }
    }
}

fn publish_to_nobody_in_particular(address: SocketAddr) {
    assert_eq!(crate::kit::post(address, "/events", "ping").status, 200);
}
