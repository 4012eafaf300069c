//! The time of single steps: encoding an event, parsing the head of a request, checking
//! JSON, verifying a signed token, and publishing an event to many clients inside one
//! process. Run it with `cargo bench` in this directory.

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tiny_sse::http::HeadParser;
use tiny_sse::wire::json::Document;
use tiny_sse::wire::jwt::{JwtKey, JwtRules, sign};
use tiny_sse::{Config, Event, Hub, Subscribe};

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, data) in [
        ("200 bytes", "x".repeat(200)),
        ("100 lines", "0123456789\n".repeat(100)),
    ] {
        let event = Event::new(data).with_name("update").unwrap();
        group.throughput(Throughput::Bytes(event.data().len() as u64));
        group.bench_function(name, |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                black_box(&event).encode(&mut out);
            });
        });
    }
    group.finish();
}

fn parse(c: &mut Criterion) {
    let config = Config::default();
    let curl = b"POST /events/chat HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.0\r\n\
        Accept: */*\r\nContent-Length: 5\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n";
    let mut group = c.benchmark_group("parse a head");
    group.throughput(Throughput::Bytes(curl.len() as u64));
    group.bench_function("curl's POST", |b| {
        b.iter(|| HeadParser::default().parse(black_box(curl), &config))
    });
    group.finish();

    let json = format!(
        r#"{{ "_event": "tick", "list": [{}1] }}"#,
        "1.5, ".repeat(200)
    );
    let mut group = c.benchmark_group("json");
    group.throughput(Throughput::Bytes(json.len() as u64));
    group.bench_function("check and compact", |b| {
        b.iter(|| Document::parse(black_box(&json)).unwrap())
    });
    let document = Document::parse(&json).unwrap();
    group.bench_function("drop a member", |b| {
        b.iter(|| black_box(&document).without("_event"))
    });
    group.finish();
}

/// A writer that counts events and discards the bytes.
struct Counter(Arc<AtomicU64>);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Each event of this bench has exactly one `x`.
        let events = bytes.iter().filter(|&&byte| byte == b'x').count() as u64;
        self.0.fetch_add(events, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Measures the time from `publish` until the event has reached the last client, through
/// the queues and threads.
/// Verifies a right token, and tokens whose signatures differ in the first and in the last
/// byte: the three times should be equal, except that a refused token is not read further.
fn verify(c: &mut Criterion) {
    let key: JwtKey = "the-key-of-the-backend-0123456789abcdef".parse().unwrap();
    let payload = r#"{"iss":"https://app.example.org","iat":1795326000,"exp":4102444800,"sub":"user-42","mercure":{"subscribe":["user/42","news/*","chat/room/7"],"publish":["chat/room/7"]}}"#;
    let token = sign(payload, &key);
    let rules = JwtRules {
        keys: vec![key],
        ..JwtRules::default()
    };
    let signature = token.rfind('.').unwrap() + 1;
    let with_wrong = |at: usize| {
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut wrong = token.clone();
        wrong.replace_range(at..at + 1, other);
        wrong
    };
    let now = SystemTime::now();
    let mut group = c.benchmark_group("verify a signed token");
    for (name, token, is_right) in [
        ("right", token.clone(), true),
        ("wrong in the first byte", with_wrong(signature), false),
        ("wrong in the last byte", with_wrong(signature + 40), false),
    ] {
        assert_eq!(rules.verify(&token, now).is_ok(), is_right, "{name}");
        group.bench_function(name, |b| b.iter(|| rules.verify(black_box(&token), now)));
    }
    group.finish();
}

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish in process");
    group.sample_size(20);
    for clients in [1, 10, 100] {
        let hub = Hub::new(Config::default()).unwrap();
        let delivered = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                let subscription = hub.subscribe(Subscribe::default()).unwrap();
                let mut counter = Counter(Arc::clone(&delivered));
                thread::spawn(move || subscription.write_to(&mut counter))
            })
            .collect();
        group.throughput(Throughput::Elements(clients));
        group.bench_with_input(
            BenchmarkId::from_parameter(clients),
            &clients,
            |b, clients| {
                b.iter(|| {
                    let all = delivered.load(Ordering::Relaxed) + clients;
                    hub.publish(Event::new("x")).unwrap();
                    while delivered.load(Ordering::Relaxed) < all {
                        thread::yield_now();
                    }
                });
            },
        );
        hub.close();
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
    group.finish();
}

criterion_group!(benches, encode, parse, verify, publish);
criterion_main!(benches);
