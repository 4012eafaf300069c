//! Clients that read too slowly: how much memory they take, how the server disconnects
//! them, and that they do not delay other clients.

use std::io::Read;
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::{CloseReason, Config, Event, Hub, Running, Subscribe};

#[cfg(target_os = "linux")]
use crate::kit::Raw;
use crate::kit::{DEADLINE, Stream, config, eventually, get, number_after, post, server};
#[cfg(target_os = "linux")]
use crate::program::{Serving, serve};

/// The most bytes that both socket buffers of a connection and a client's queue hold. The
/// client does not read, so the kernel does not let the buffers grow to their limit.
const BOUND: usize = 24 << 20;

fn publish(server: &Running, number: usize, bytes: usize) {
    let event = Event::new(format!("{number} {}", "x".repeat(bytes)));
    server.hub().publish(event).unwrap();
}

/// Reads an event, checks its number, and drops the stream's bytes to save memory.
#[track_caller]
fn expect(stream: &mut Stream, number: usize) {
    let event = stream.next();
    assert_eq!(number_after(&event.data, ""), number as u64);
    stream.bytes.clear();
}

/// Returns how many streams ended for this reason.
fn close_reasons(server: &Running, name: &str) -> u64 {
    number_after(
        get(server.local_addr(), "/stats").text(),
        &format!("\"{name}\":"),
    )
}

/// Checks how many streams have ended for each reason. Reasons that are not in `expected`
/// must have none.
#[track_caller]
fn assert_close_reasons(server: &Running, expected: &[(&str, u64)]) {
    for name in ["hung_up", "fell_behind", "timed_out", "replaced", "kicked"] {
        let count = expected.iter().find(|(known, _)| *known == name);
        assert_eq!(
            close_reasons(server, name),
            count.map_or(0, |(_, count)| *count),
            "{name}"
        );
    }
}

#[test]
fn a_client_that_stops_reading_is_disconnected_and_does_not_delay_other_clients() {
    const EVENTS: usize = 3_200;
    const BYTES: usize = 16_000;
    let server = server(Config {
        // If a thread waited for a write to the stopped client, the test would fail by
        // its deadline.
        write_timeout: 3 * DEADLINE,
        queue_bytes: 512 << 10,
        history_bytes: 128 << 20,
        ..config()
    });
    let address = server.local_addr();
    let mut stopped = Stream::subscribe(address, "/events");
    let mut others = [0; 2].map(|_| Stream::subscribe(address, "/events"));
    let progress = [0; 2].map(AtomicUsize::new);
    thread::scope(|scope| {
        for (stream, progress) in others.iter_mut().zip(&progress) {
            scope.spawn(move || {
                for number in 0..EVENTS {
                    expect(stream, number);
                    progress.store(number + 1, Ordering::Release);
                }
            });
        }
        for number in 0..EVENTS {
            publish(&server, number, BYTES);
            // The publisher waits until the other clients have read all but the latest
            // events, so that their queues are never full. They can only read so far if
            // the stopped client does not delay them.
            eventually("the other clients get the events", || {
                let read = progress.iter().map(|read| read.load(Ordering::Acquire));
                read.min() > Some(number.saturating_sub(16)) || number < 16
            });
        }
    });
    eventually("the stopped client is disconnected", || {
        server.hub().clients() == 2
    });
    assert_close_reasons(&server, &[("fell_behind", 1)]);

    // The stopped client still gets the events in the socket buffers, in order. Then its
    // stream is cut off.
    let mut seen = 0;
    while let Some(event) = stopped.try_next() {
        assert_eq!(number_after(&event.data, ""), seen as u64);
        stopped.bytes.clear();
        seen += 1;
    }
    assert!(
        !stopped.has_ended,
        "a client that does not read got the last chunk"
    );
    assert!(
        seen > 0 && seen * BYTES < BOUND,
        "{seen} events were sent to the stopped client"
    );

    let (mut back, recovery) = Stream::resume(address, "/events", stopped.cursor());
    assert!(
        recovery.ends_with(&format!(
            r#""replayed":{},"complete":true}}"#,
            EVENTS - seen
        )),
        "{recovery}"
    );
    (seen..EVENTS).for_each(|number| expect(&mut back, number));
    publish(&server, EVENTS, BYTES);
    others
        .iter_mut()
        .chain([&mut back])
        .for_each(|stream| expect(stream, EVENTS));
    assert_close_reasons(&server, &[("fell_behind", 1)]);
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_all_events_in_order() {
    const BYTES: usize = 32_000;
    // The client falls behind by so many events. They are more than the socket buffers
    // hold, so the rest waits in the client's queue.
    const BEHIND: usize = 400;
    let server = server(Config {
        queue_bytes: 16 << 20,
        history_bytes: 48 << 20,
        ..config()
    });
    let mut stream = Stream::subscribe(server.local_addr(), "/events");
    let (mut published, mut read) = (0, 0);
    for _ in 0..3 {
        // The client falls behind, stays behind for a while, and catches up until events
        // are written to it directly.
        for _ in 0..BEHIND {
            publish(&server, published, BYTES);
            published += 1;
        }
        for _ in 0..BEHIND / 2 {
            expect(&mut stream, read);
            read += 1;
            publish(&server, published, BYTES);
            published += 1;
        }
        while read < published {
            expect(&mut stream, read);
            read += 1;
        }
        for _ in 0..20 {
            publish(&server, published, 10);
            expect(&mut stream, published);
            published += 1;
            read += 1;
        }
    }
    assert_eq!(server.hub().clients(), 1);
    assert_close_reasons(&server, &[]);
}

#[test]
fn a_slow_client_gets_events_for_it_alone_in_their_order_and_the_close_event_last() {
    let server = server(Config {
        queue_bytes: 16 << 20,
        history_bytes: 48 << 20,
        ..config()
    });
    let mut stream = Stream::subscribe(server.local_addr(), "/events?client_id=me");
    for number in 0..400 {
        publish(&server, 2 * number, 32_000);
        let private = Event::new((2 * number + 1).to_string());
        server.hub().send_to("me", &private).unwrap();
    }
    server.hub().close();
    (0..800).for_each(|number| expect(&mut stream, number));
    assert_eq!(stream.try_next(), None);
    assert!(stream.has_ended);
    assert_eq!(stream.closed.as_deref(), Some("closing"));
}

#[test]
fn an_event_larger_than_a_queue_arrives() {
    let server = server(Config {
        queue_bytes: 16 << 10,
        history_bytes: 40 << 20,
        max_body: 8 << 20,
        ..config()
    });
    let address = server.local_addr();
    let mut live = Stream::subscribe(address, "/events");
    let first = live.cursor().to_owned();
    for number in 0..5 {
        // More than the socket buffers hold, so that a part of the event waits in the
        // queue.
        let body = format!("{number} {}", "x".repeat(6 << 20));
        assert_eq!(post(address, "/events", &body).status, 200);
        assert_eq!(live.next().data, body);
        live.bytes.clear();
    }
    let (mut back, recovery) = Stream::resume(address, "/events", &first);
    assert!(recovery.ends_with(r#""complete":true}"#), "{recovery}");
    (0..5).for_each(|number| expect(&mut back, number));
    assert_close_reasons(&server, &[]);
}

#[test]
fn an_event_larger_than_a_queue_waits_for_a_client_whose_stream_has_not_begun() {
    let hub = Hub::new(Config {
        queue_bytes: 1 << 10,
        ..config()
    })
    .unwrap();
    let subscription = hub.subscribe(Subscribe::default()).unwrap();
    let text = "x".repeat(100 << 10);
    hub.publish(Event::new(&*text)).unwrap();
    hub.close();
    let mut seen = Vec::new();
    assert_eq!(subscription.write_to(&mut seen), CloseReason::ServerClosing);
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains(&text), "{} bytes came", seen.len());
}

#[test]
fn a_write_that_takes_too_long_ends_the_stream() {
    let server = server(Config {
        write_timeout: Duration::from_millis(100),
        queue_bytes: 64 << 20,
        history_bytes: 192 << 20,
        ..config()
    });
    let mut stream = Stream::subscribe(server.local_addr(), "/events");
    const EVENTS: usize = 400;
    (0..EVENTS).for_each(|number| publish(&server, number, 64_000));
    eventually("the client is disconnected", || server.hub().clients() == 0);
    assert_close_reasons(&server, &[("timed_out", 1)]);
    let mut seen = 0;
    while let Some(event) = stream.try_next() {
        assert_eq!(number_after(&event.data, ""), seen as u64);
        stream.bytes.clear();
        seen += 1;
    }
    assert!((1..EVENTS).contains(&seen), "{seen}");
    // On a busy machine the client may be disconnected again. It resumes each time after
    // its last event.
    let (mut cursor, start) = (stream.cursor().to_owned(), Instant::now());
    while seen < EVENTS {
        assert!(start.elapsed() < DEADLINE, "only {seen} of {EVENTS} events");
        let (mut back, recovery) = Stream::resume(server.local_addr(), "/events", &cursor);
        assert!(recovery.ends_with(r#""complete":true}"#), "{recovery}");
        while seen < EVENTS
            && let Some(event) = back.try_next()
        {
            assert_eq!(number_after(&event.data, ""), seen as u64);
            seen += 1;
        }
        cursor = back.cursor().to_owned();
    }
}

/// Returns an amount of memory from `/proc/PID/status`, in bytes.
#[cfg(target_os = "linux")]
fn memory(program: &Serving, what: &str) -> usize {
    program.process.status(what) << 10
}

/// Publishes events of `bytes` bytes with these numbers.
#[cfg(target_os = "linux")]
fn post_all(publisher: &mut Raw, numbers: Range<usize>, bytes: usize) {
    for number in numbers {
        let body = format!("{number} {}", "x".repeat(bytes));
        let length = body.len();
        publisher.send(format!(
            "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(publisher.answer().status, 200, "{number}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_stops_reading_takes_no_more_memory_than_its_queue() {
    const QUEUE: usize = 1 << 20;
    // The allocator may need so much more for blocks of this size. A queue without a
    // limit would take 50 MB.
    const SLACK: usize = 4 << 20;
    const BYTES: usize = 50_000;
    const EVENTS: usize = 1_000;
    // A large history that holds all missed events, and a small one. Events that are in
    // the history and in a queue are in memory once, so only the small history shows how
    // much a queue holds.
    for (history, is_complete) in [(64 << 20, true), (3 << 20, false)] {
        let history_bytes = history.to_string();
        let program = serve(&["--history-bytes", &history_bytes, "--queue-bytes", "1MiB"]);
        let address = program.address;
        let stats = || get(address, "/stats").text().to_owned();
        // The history is full before the first measurement, so it does not grow any more.
        // One connection, and so one thread of the server, publishes all events: a second
        // thread would allocate from another arena of the allocator, and the history
        // would move there while the first arena keeps its pages.
        let mut publisher = Raw::connect(address);
        let mut number = history / BYTES + 1;
        post_all(&mut publisher, 0..number, BYTES);
        let mut post_more = || {
            let before = memory(&program, "VmHWM:");
            post_all(&mut publisher, number..number + EVENTS, BYTES);
            number += EVENTS;
            // The kernel's count is not exact: the maximum may be a few pages less a
            // moment later.
            memory(&program, "VmHWM:").saturating_sub(before)
        };
        let without = post_more();
        let mut stopped = Stream::subscribe(address, "/events");
        let with = post_more();
        assert!(
            with <= without + QUEUE + SLACK,
            "history {history}: {with} more bytes with a client that does not read, {without} without it"
        );
        eventually("the stopped client is disconnected", || {
            stats().contains(r#""active_connections":0"#)
        });
        assert!(stats().contains(r#""fell_behind":1"#), "{}", stats());

        let mut next = number - EVENTS;
        while let Some(event) = stopped.try_next() {
            assert_eq!(number_after(&event.data, ""), next as u64);
            stopped.bytes.clear();
            next += 1;
        }
        let (mut back, recovery) = Stream::resume(address, "/events", stopped.cursor());
        let replayed = number_after(&recovery, "\"replayed\":") as usize;
        let expected = if is_complete {
            format!(r#""replayed":{},"complete":true}}"#, number - next)
        } else {
            format!(r#""replayed":{replayed},"complete":false,"reason":"evicted"}}"#)
        };
        assert!(recovery.ends_with(&expected), "{recovery}, not {expected}");
        post_all(&mut Raw::connect(address), number..number + 1, BYTES);
        (number - replayed..=number).for_each(|number| expect(&mut back, number));
    }
}

/// Counts the bytes that are written to it, and calls a function at the first write that
/// contains `small`.
struct Writer<'a> {
    bytes: &'a AtomicUsize,
    at_first_event: Option<Box<dyn FnOnce() + 'a>>,
}

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if bytes.windows(5).any(|five| five == b"small") {
            self.at_first_event.take().into_iter().for_each(|act| act());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_event_larger_than_a_queue_arrives_while_a_small_one_is_being_written() {
    const LARGE: usize = 100 << 10;
    let hub = Hub::new(Config {
        queue_bytes: 16 << 10,
        ..config()
    })
    .unwrap();
    let [busy, idle] = ["busy", "idle"].map(|name| {
        let params = Subscribe {
            client_id: Some(name.parse().unwrap()),
            ..Subscribe::default()
        };
        hub.subscribe(params).unwrap()
    });
    let (to_busy, to_idle) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            idle.write_to(&mut Writer {
                bytes: &to_idle,
                at_first_event: None,
            })
        });
        let busy = scope.spawn(|| {
            busy.write_to(&mut Writer {
                bytes: &to_busy,
                at_first_event: Some(Box::new(|| {
                    // The fan-out delivers the large event while this writer still writes
                    // the small one.
                    eventually("the idle client has its welcome", || {
                        to_idle.load(Ordering::Relaxed) > 0
                    });
                    hub.publish(Event::new("x".repeat(LARGE))).unwrap();
                    eventually("the idle client has the large event", || {
                        to_idle.load(Ordering::Relaxed) > LARGE
                    });
                })),
            })
        });
        hub.send_to("busy", &Event::new("small")).unwrap();
        eventually("the busy client has the large event", || {
            to_busy.load(Ordering::Relaxed) > LARGE || busy.is_finished()
        });
        hub.close();
        let close_reason = busy.join().unwrap();
        assert_eq!(close_reason, CloseReason::ServerClosing);
        assert!(to_busy.load(Ordering::Relaxed) > LARGE);
    });
}

#[test]
fn an_event_may_take_longer_than_the_write_timeout_while_its_client_reads() {
    const LARGE: usize = 32 << 20;
    let write_timeout = Duration::from_secs(1);
    let server = server(Config {
        write_timeout,
        queue_bytes: 64 << 20,
        history_bytes: 192 << 20,
        ..config()
    });
    let mut stream = Stream::subscribe(server.local_addr(), "/events");
    publish(&server, 7, LARGE);
    // The client reads slowly: it pauses for a tenth of the timeout before each read, so
    // it never reads nothing for as long as the timeout. These pauses are the subject of
    // the test, not a wait for a condition.
    let (start, mut read, mut bytes) = (Instant::now(), 0, vec![0; 2 << 20]);
    while read < LARGE {
        let (_sender, pause) = mpsc::channel::<()>();
        let _ = pause.recv_timeout(write_timeout / 10);
        let mut count = 0;
        while count < bytes.len() && read + count < LARGE {
            match stream.raw.socket.read(&mut bytes[count..]) {
                Ok(0) | Err(_) => panic!("cut off after {} bytes", read + count),
                Ok(more) => count += more,
            }
        }
        read += count;
    }
    assert!(
        start.elapsed() > write_timeout,
        "the client read faster than the write timeout"
    );
    assert_close_reasons(&server, &[]);
}
