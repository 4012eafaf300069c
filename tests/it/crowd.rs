//! Many clients at once on the real program: 500 clients receive every event in order
//! while others connect and disconnect all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::chance::Random;
use crate::kit::{OnDrop, Raw, Stream, eventually, get, number_after};
use crate::program::serve;

// The server is a separate process, because in one process each client would need two
// descriptors, and many systems allow only 1,024. In two processes, all fit.
const CLIENTS: usize = 500;
const VISITORS: usize = 100;
const EVENTS: usize = 1_000;
/// The number of threads that read; each reads for its share of the clients.
const READERS: usize = 4;

fn count(address: SocketAddr, what: &str) -> u64 {
    let key = format!("\"{what}\":");
    number_after(get(address, "/stats").text(), &key)
}

/// The progress of the publisher and of the visitors. Each waits for the other, so that
/// visitors connect and disconnect during the whole time that events are published.
#[derive(Default)]
struct Pace {
    events: AtomicUsize,
    visits: AtomicUsize,
    is_over: AtomicBool,
}

/// Connects and disconnects in different ways: some visitors hang up at once, some after
/// they have read a part of the replay, and some stay for a while and hang up with all
/// events unread.
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
fn all_clients_receive_every_event_in_order_while_others_connect_and_disconnect() {
    // The limit admits all visitors, even if the server notices none of their disconnects
    // before the end. There is one visit for two events, and at most 20 more.
    let max_clients = (CLIENTS + EVENTS / 2 + 100).to_string();
    let program = serve(&["--max-clients", &max_clients, "--extra-connections", "200"]);
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
    // The server notices a closed connection when it writes to it: an event here,
    // otherwise a heartbeat.
    eventually("only the 500 clients are registered", || {
        publish_ping(address);
        count(address, "active_connections") == CLIENTS as u64
    });
    for close_reason in ["fell_behind", "timed_out", "replaced", "kicked"] {
        assert_eq!(count(address, close_reason), 0, "{close_reason}");
    }
    drop(clients);
    eventually("no client is registered", || {
        publish_ping(address);
        count(address, "active_connections") == 0
    });
    assert_eq!(
        count(address, "hung_up"),
        count(address, "total_connections")
    );
}

/// Publishes the events one by one on one connection.
fn publish_all(address: SocketAddr, pace: &Pace) {
    let _over = OnDrop(|| pace.is_over.store(true, Ordering::Relaxed));
    let mut publisher = Raw::connect(address);
    for number in 0..EVENTS {
        eventually("the visitors connect and disconnect", || {
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

/// Reads each event from every client before the next event.
fn read_in_turn(clients: &mut [Stream]) {
    for number in 0..EVENTS {
        for (index, stream) in clients.iter_mut().enumerate() {
            assert_eq!(stream.next().data, number.to_string(), "client {index}");
        }
    }
}

fn publish_ping(address: SocketAddr) {
    assert_eq!(crate::kit::post(address, "/events", "ping").status, 200);
}
