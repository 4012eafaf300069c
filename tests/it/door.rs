//! At the door: which connection is evicted when all places are taken, how much memory all bodies and all
//! answers may take, which client a request is from, how many connections one address may have, and
//! how a refusal reaches its client.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiny_sse::http::Response;
use tiny_sse::{Config, Network, Report, Running, Server};

use crate::chance::Random;
use crate::kit::{Answer, DEADLINE, Raw, Stream, config, eventually, get, request, server};

/// Long enough for a busy machine to read what has been sent, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// A server with three places.
fn small() -> Running {
    server(small_config())
}

fn small_config() -> Config {
    Config {
        max_clients: 1,
        extra_connections: 2,
        ..config()
    }
}

fn health(raw: &mut Raw, fields: &str) -> Answer {
    raw.send(format!(
        "GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
    ));
    raw.answer()
}

/// A server with three places, and requests that it answers when it is told to.
struct Held {
    server: Running,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    begun: AtomicUsize,
    is_open: AtomicBool,
}

impl Drop for Held {
    /// Also when the test fails, or the shutdown would wait.
    fn drop(&mut self) {
        self.gate.is_open.store(true, Ordering::SeqCst);
    }
}

impl Held {
    fn new(config: Config) -> Held {
        let gate: Arc<Gate> = Arc::default();
        let inside = Arc::clone(&gate);
        let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
        let server = bound
            .spawn_with(move |request, api| match request.path() {
                "/held" => {
                    inside.begun.fetch_add(1, Ordering::SeqCst);
                    eventually("let go", || inside.is_open.load(Ordering::SeqCst));
                    Response::text(200, "held")
                }
                _ => api.answer(request),
            })
            .expect("threads");
        Held { server, gate }
    }

    /// A request that is being answered.
    #[track_caller]
    fn one_more(&self) -> Raw {
        let before = self.gate.begun.load(Ordering::SeqCst);
        let mut raw = Raw::connect(self.server.local_addr());
        raw.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
        eventually("its handler runs", || {
            self.gate.begun.load(Ordering::SeqCst) > before
        });
        raw
    }

    /// Answers all of them.
    #[track_caller]
    fn finish(&self, held: &mut [Raw]) {
        self.gate.is_open.store(true, Ordering::SeqCst);
        for raw in held {
            assert_eq!(raw.answer().text(), "held");
        }
    }
}

/// A connection whose request's head is there and whose body the server waits for.
#[track_caller]
fn in_the_middle(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    let sent = raw.send(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(sent.head().status, 100);
    raw.send("x");
    raw
}

/// Gives the server time to read what was sent, of which nothing tells.
#[track_caller]
fn settle(raw: &Raw) {
    raw.socket.set_read_timeout(Some(SHORT)).unwrap();
    let seen = raw.socket.peek(&mut [0]);
    raw.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let waits =
        |error: std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(seen.is_err_and(waits), "it was answered or closed");
}

// ---- who makes room

#[test]
fn of_those_who_wait_who_has_done_so_the_longest_makes_room() {
    let server = small();
    let address = server.local_addr();
    let mut used = Raw::connect(address);
    assert_eq!(health(&mut used, "").status, 200);
    settle(&used);
    let mut slow = Raw::connect(address);
    slow.send("\r\nGET /health HTTP/1.1\r\nX: ");
    settle(&slow);
    let mut silent = Raw::connect(address);
    settle(&silent);
    // A byte more does not make it younger.
    slow.send("x");
    let mut inside = vec![in_the_middle(address)];
    assert!(used.is_closed(), "an idle connection was told something");
    settle(&slow);
    settle(&silent);
    inside.push(in_the_middle(address));
    let answer = slow.answer();
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (503, Some("5"))
    );
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(
        answer.text().contains("Too many connections: this one"),
        "{answer:?}"
    );
    assert!(slow.is_closed());
    settle(&silent);
    inside.push(in_the_middle(address));
    assert!(silent.is_closed(), "a fresh connection was told something");
    for raw in &mut inside {
        assert_eq!(raw.send("x").answer().status, 200);
    }
}

#[test]
fn who_is_let_go_while_it_asks_for_a_head_gets_no_more_than_a_head() {
    let server = small();
    let mut slow = Raw::connect(server.local_addr());
    slow.send("HEAD /health HTTP/1.1\r\n");
    settle(&slow);
    let _inside: Vec<_> = (0..3).map(|_| in_the_middle(server.local_addr())).collect();
    assert_eq!(slow.head().status, 503);
    assert!(slow.is_closed(), "an answer to HEAD with a body");
}

#[test]
fn a_request_that_is_answered_and_a_stream_are_not_evicted() {
    let held = Held::new(Config {
        max_clients: 2,
        extra_connections: 1,
        ..config()
    });
    let address = held.server.local_addr();
    let mut stream = Stream::subscribe(address, "/events");
    let mut answered = [held.one_more()];
    // Its second request waits for an answer to the first one, which the poll waits for.
    let mut poll = Raw::connect(address);
    poll.send("GET /poll?wait=60&topic=t HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    settle(&poll);
    for _ in 0..20 {
        let mut outside = Raw::connect(address);
        let answer = outside.answer();
        assert_eq!(
            (answer.status, answer.field("retry-after")),
            (503, Some("5"))
        );
        assert!(answer.text().contains("Too many connections"), "{answer:?}");
    }
    held.server
        .hub()
        .publish(tiny_sse::Event::new("x"))
        .unwrap();
    assert_eq!(stream.next().data, "x");
    assert_eq!((poll.answer().status, poll.answer().status), (200, 200));
    held.finish(&mut answered);
}

/// A request of which some of a body of `length` bytes has been read, and nothing else comes.
#[track_caller]
fn stuck(address: SocketAddr, length: usize, sent: usize) -> Raw {
    let mut raw = Raw::connect(address);
    raw.send(format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(raw.head().status, 100);
    raw.send(vec![b'x'; sent]);
    raw
}

#[test]
fn a_slow_body_is_evicted_and_answered_though_it_goes_on() {
    let held = Held::new(small_config());
    let address = held.server.local_addr();
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let raw = stuck(address, 100_000, 1);
        settle(&raw);
        bodies.push(raw);
    }
    let mut visitors = Vec::new();
    let start = Instant::now();
    for raw in &mut bodies {
        visitors.push(held.one_more());
        // It sends on before it looks; a reset would take the answer from it.
        for _ in 0..20 {
            let sent = raw.socket.write_all(b"y");
            assert!(sent.is_ok(), "{sent:?}");
        }
        let answer = raw.answer();
        assert_eq!(
            (answer.status, answer.field("retry-after")),
            (503, Some("5"))
        );
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(answer.text().contains("its body the longest"), "{answer:?}");
        let mut nothing = [0];
        assert_eq!(raw.socket.read(&mut nothing).ok(), Some(0), "a reset");
    }
    let took = start.elapsed();
    assert!(took < DEADLINE, "{took:?}");
    held.finish(&mut visitors);
}

#[test]
fn of_two_bodies_the_one_that_makes_progress_stays() {
    let held = Held::new(small_config());
    let address = held.server.local_addr();
    let _answered = held.one_more();
    let (mut fast, mut slow) = (stuck(address, 100_000, 1), stuck(address, 100_000, 1));
    settle(&slow);
    fast.send(vec![b'x'; 99_000]);
    settle(&fast);
    let mut visitor = Raw::connect(address);
    assert_eq!(health(&mut visitor, "").status, 200);
    assert_eq!(slow.answer().status, 503);
    assert_eq!(fast.send(vec![b'x'; 999]).answer().status, 200);
}

// ---- how much memory all bodies take together

/// A server in which two bodies of 64 KiB fill the budget.
fn two_bodies() -> Config {
    Config {
        max_body: 64 << 10,
        total_bodies: 128 << 10,
        ..config()
    }
}

#[test]
fn bodies_have_one_budget_and_what_is_too_much_is_told_to_come_later() {
    let server = server(two_bodies());
    let address = server.local_addr();
    let body = vec![b'x'; 64 << 10];
    let mut held: Vec<_> = (0..2)
        .map(|_| stuck(address, body.len(), body.len() - 1))
        .collect();
    for raw in &held {
        settle(raw);
    }
    for chunked in [false, true] {
        let fields = if chunked {
            "Transfer-Encoding: chunked\r\n"
        } else {
            "Content-Length: 65536\r\n"
        };
        let mut raw = Raw::connect(address);
        raw.send(format!(
            "POST /events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
        ));
        let start = if chunked { "10000\r\n" } else { "" };
        // Best effort: it may have been answered already.
        let _ = raw.socket.write_all(start.as_bytes());
        let _ = raw.socket.write_all(&body);
        let answer = raw.answer();
        assert_eq!(
            (answer.status, answer.field("retry-after")),
            (503, Some("5")),
            "{answer:?}"
        );
        assert!(answer.text().contains("131072 bytes"), "{answer:?}");
        assert_eq!(
            answer.field("access-control-expose-headers"),
            Some("Retry-After")
        );
    }
    // What all of them have is given back, whatever becomes of them.
    assert_eq!(held.pop().unwrap().send("x").answer().status, 200);
    drop(held);
    eventually("room again", || {
        request(address, "POST", "/events", "", &body).status == 200
    });
    for _ in 0..5 {
        let mut inside = [stuck(address, 65536, 65535), stuck(address, 65536, 65535)];
        for raw in &mut inside {
            assert_eq!(raw.send("x").answer().status, 200);
        }
    }
}

#[test]
fn a_budget_has_room_for_one_body_of_the_largest_size() {
    let server = server(Config {
        total_bodies: 1,
        ..two_bodies()
    });
    let (address, body) = (server.local_addr(), vec![b'x'; 64 << 10]);
    assert_eq!(request(address, "POST", "/events", "", &body).status, 200);
}

#[test]
fn a_body_that_is_only_announced_takes_nothing_from_the_budget() {
    let server = server(two_bodies());
    let address = server.local_addr();
    let announced: Vec<_> = (0..100).map(|_| stuck(address, 64 << 10, 1)).collect();
    let body = vec![b'x'; 64 << 10];
    assert_eq!(request(address, "POST", "/events", "", &body).status, 200);
    assert_eq!(announced.len(), 100);
}

#[test]
fn small_bodies_are_read_though_large_ones_fill_the_budget() {
    let server = server(Config {
        max_body: 64 << 20,
        ..config()
    });
    let address = server.local_addr();
    let full = stuck(address, 64 << 20, (64 << 20) - 1);
    settle(&full);
    let large = request(address, "POST", "/events", "", vec![b'x'; 64 << 10]);
    assert_eq!(large.status, 503, "{large:?}");
    let small = request(address, "POST", "/events", "", vec![b'x'; 4 << 10]);
    assert_eq!(small.status, 200, "{small:?}");
}

/// A request that will be refused, or needs no body, is answered before its body arrives.
#[test]
#[cfg(feature = "access")]
fn a_body_that_is_not_wanted_is_not_waited_for() {
    let server = server(Config {
        access: tiny_sse::AccessConfig {
            publish_token: Some("a-token-to-publish-with".parse().unwrap()),
            ..tiny_sse::AccessConfig::default()
        },
        ..config()
    });
    #[rustfmt::skip]
    let rows = [
        ("POST /nowhere", 404), ("PUT /nowhere", 404), ("GET /nowhere", 404),
        ("PUT /events", 405), ("PATCH /events/topic", 405), ("DELETE /events", 405),
        ("POST /health", 405), ("POST /stats", 405), ("GET /broadcast", 405), ("PUT /clients/me", 405),
        ("BREW /events", 501), ("GET /health", 200), ("HEAD /health", 200), ("GET /stats", 200),
        ("GET /poll", 200), ("OPTIONS /events", 204), ("DELETE /clients/me", 401),
        ("POST /events", 401), ("POST /events/topic", 401), ("POST /send", 401), ("POST /clients/me", 401),
    ];
    for (start, status) in rows {
        for length in [
            "Content-Length: 1048576",
            "Content-Length: 104857600",
            "Content-Length: 1048576\r\nExpect: 100-continue",
            "Content-Length: 1048576\r\nContent-Type: multipart/form-data",
            "Transfer-Encoding: chunked",
        ] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(format!(
                "{start} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n"
            ));
            let answer = raw.head();
            assert_eq!(answer.status, status, "{start}, {length}: {answer:?}");
            assert_eq!(answer.field("connection"), Some("close"), "{start}");
            assert_eq!(
                answer.field("allow").is_some(),
                [405, 204].contains(&status)
            );
        }
    }
    // A stream begins, too.
    let stream = Stream::open(
        server.local_addr(),
        "/events",
        "Content-Length: 1048576\r\n",
    );
    assert_eq!(stream.head.field("connection"), Some("close"));
}

#[test]
fn a_route_of_ones_own_says_whether_it_wants_a_body() {
    let echo = |request: tiny_sse::http::Request, api: &tiny_sse::Api| match request.path() {
        "/echo" | "/deaf" => Response::text(200, format!("{} bytes", request.body().len())),
        _ => api.answer(request),
    };
    let bound = || Server::bind("127.0.0.1:0", config()).expect("a free port");
    // The final answer to a request that expects `100 Continue` and sends its body only after that.
    let said = |server: &Running, start: &str| {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(format!(
            "{start} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        ));
        let head = raw.head();
        match head.status {
            100 => raw.send("hello").answer(),
            _ => head,
        }
    };
    let undeclared = bound().spawn_with(echo).expect("threads");
    assert_eq!(said(&undeclared, "POST /echo").text(), "5 bytes");
    assert_eq!(
        said(&undeclared, "POST /nowhere").field("connection"),
        Some("keep-alive")
    );
    let declared = bound()
        .wants_body(|request, _| request.path() == "/echo")
        .spawn_with(echo)
        .expect("threads");
    assert_eq!(said(&declared, "POST /echo").text(), "5 bytes");
    assert_eq!(said(&declared, "POST /events").status, 200);
    for (start, status) in [
        ("POST /deaf", 200),
        ("POST /nowhere", 404),
        ("PUT /events", 405),
    ] {
        let head = said(&declared, start);
        assert_eq!(
            (head.status, head.field("connection")),
            (status, Some("close")),
            "{start}"
        );
    }
}

// ---- how much memory all answers take together

#[test]
fn answers_that_are_not_read_share_one_budget() {
    // More than the buffers of two sockets take.
    const LARGE: usize = 16 << 20;
    let bound = Server::bind(
        "127.0.0.1:0",
        Config {
            total_answers: 2 * LARGE,
            write_timeout: DEADLINE,
            ..config()
        },
    );
    let server = bound
        .expect("a free port")
        .spawn_with(|request, _| match request.path() {
            "/large" => Response::text(200, "x".repeat(LARGE)),
            _ => Response::text(200, "small"),
        })
        .expect("threads");
    let address = server.local_addr();
    let ask = |method: &str| {
        let mut raw = Raw::connect(address);
        raw.send(format!(
            "{method} /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
        raw
    };
    let mut unread: Vec<_> = (0..2).map(|_| ask("GET")).collect();
    for raw in &unread {
        let _ = raw.socket.peek(&mut [0]).expect("an answer");
    }
    let answer = ask("GET").answer();
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (503, Some("5"))
    );
    assert_eq!(ask("HEAD").head().status, 200, "it has no body");
    assert_eq!(get(address, "/small").status, 200);
    // What has been done is not told to come again.
    assert_eq!(ask("POST").head().status, 200);
    for raw in &mut unread {
        assert_eq!(raw.answer().body.len(), LARGE);
    }
    eventually("room again", || ask("GET").answer().status == 200);
}

#[test]
fn who_lingers_behind_its_last_answer_makes_room() {
    let server = small();
    let address = server.local_addr();
    // They do not close, and so are waited for.
    let mut refused: Vec<_> = (0..3).map(|_| Raw::connect(address)).collect();
    for raw in &mut refused {
        assert_eq!(raw.send("nonsense\r\n\r\n").answer().status, 400);
    }
    for raw in &mut refused {
        let mut nothing = [0];
        assert_eq!(raw.socket.read(&mut nothing).unwrap(), 0);
    }
    let inside: Vec<_> = (0..3).map(|_| in_the_middle(address)).collect();
    assert_eq!(inside.len(), 3);
}

// ---- how a no arrives

#[test]
fn who_is_turned_away_reads_why_whatever_it_still_sends() {
    const CROWD: usize = 200;
    let held = Held::new(small_config());
    let address = held.server.local_addr();
    let mut inside: Vec<_> = (0..3).map(|_| held.one_more()).collect();
    let mut outside = Vec::new();
    for number in 0..CROWD {
        let mut raw = Raw::connect(address);
        raw.send("GET /health HTTP/1.1\r\nHo");
        // The answer is there, and the server has said that it is the last.
        let _ = raw.socket.peek(&mut [0]).expect("an answer");
        raw.send("st: a\r\n\r\n");
        outside.push((number, raw));
    }
    for (number, mut raw) in outside {
        let mut bytes = Vec::new();
        let outcome = raw.socket.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert!(outcome.is_ok(), "{number}: {outcome:?} after {text:?}");
        let is_whole = text.starts_with("HTTP/1.1 503 ") && text.ends_with("connections\"}\n");
        assert!(is_whole, "{number}: {text:?}");
    }
    held.finish(&mut inside);
}

#[test]
fn who_was_turned_away_and_stays_does_not_hold_up_a_shutdown() {
    let held = Held::new(small_config());
    let address = held.server.local_addr();
    let mut inside: Vec<_> = (0..3).map(|_| held.one_more()).collect();
    let mut outside: Vec<_> = (0..20).map(|_| Raw::connect(address)).collect();
    for raw in &mut outside {
        assert_eq!(raw.answer().status, 503);
    }
    held.finish(&mut inside);
    // Joins the thread that watches over them, or would hang.
    drop(held);
    for raw in &mut outside {
        assert!(raw.is_closed());
    }
}

// ---- whose client

fn networks(texts: &[&str]) -> Vec<Network> {
    let networks = texts.iter().map(|text| text.parse());
    networks.collect::<Result<_, _>>().expect("networks")
}

fn behind_a_proxy(max_per_ip: Option<usize>) -> Config {
    Config {
        trust_proxy: networks(&["127.0.0.0/8", "10.0.0.0/8"]),
        max_per_ip,
        // Clients from elsewhere publish here, too.
        open: true,
        ..config()
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_nobody_else() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    for (trusted, address) in [
        (&["127.0.0.1", "10.0.0.0/8"][..], "127.0.0.2"),
        (&["10.0.0.0/8"], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ] {
        let heard = Arc::clone(&lines);
        let server = server(Config {
            trust_proxy: networks(trusted),
            report: Report::new(move |_, line| heard.lock().unwrap().push(line.to_string())),
            ..config()
        });
        let fields = "X-Forwarded-For: 192.0.2.7, 127.0.0.2\r\nX-Forwarded-For: 10.0.0.1\r\n";
        let stream = Stream::open(server.local_addr(), "/events?client_id=me", fields);
        let peer = stream.raw.socket.local_addr().unwrap();
        let of_this_machine = "X-Forwarded-For: 127.0.0.1\r\n";
        let target = "/stats?clients=1";
        let stats = request(server.local_addr(), "GET", target, of_this_machine, "");
        let expected = format!("\"peer\":\"{peer}\",\"address\":\"{address}\"");
        assert!(
            stats.text().contains(&expected),
            "{trusted:?}: {}",
            stats.text()
        );
        let at = match address {
            "127.0.0.1" => format!("client me joined ({peer})"),
            _ => format!("client me joined ({address} through {peer})"),
        };
        let mut lines = lines.lock().unwrap();
        assert!(lines.contains(&at), "no {at:?} in {lines:?}");
        lines.clear();
    }
}

#[test]
fn a_handler_of_ones_own_is_told_who_the_client_is() {
    let bound = Server::bind("127.0.0.1:0", behind_a_proxy(None)).expect("a free port");
    let server = bound
        .spawn_with(|request, _| {
            let text = format!("{} {}", request.client(), request.peer().ip());
            tiny_sse::http::Response::text(200, text)
        })
        .expect("threads");
    let mut raw = Raw::connect(server.local_addr());
    for (fields, client) in [
        (
            "Forwarded: for=\"[2001:db8::1]:4711\", for=10.0.0.1\r\n",
            "2001:db8::1",
        ),
        ("Forwarded: for=_hidden, for=10.0.0.1\r\n", "10.0.0.1"),
        (
            "Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.8\r\n",
            "127.0.0.1",
        ),
        ("X-Forwarded-For: 192.0.2.8\r\n", "192.0.2.8"),
        // The one before has said it of itself alone.
        ("", "127.0.0.1"),
    ] {
        let answer = health(&mut raw, fields);
        assert_eq!(answer.text(), format!("{client} 127.0.0.1"), "{fields:?}");
    }
}

// ---- how many of one address

#[track_caller]
fn assert_too_many(answer: &Answer, client: &str, limit: usize) {
    let expected = format!("Too many connections from {client}: {limit} at a time are the limit");
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (503, Some("5"))
    );
    assert!(answer.text().contains(&expected), "{answer:?}");
}

#[test]
fn an_address_has_no_more_connections_than_are_allowed_whatever_it_says_of_itself() {
    // Where there is no IPv6, both are IPv4.
    for listen in ["127.0.0.1:0", "[::]:0"] {
        let config = Config {
            max_per_ip: Some(2),
            ..config()
        };
        let Ok(listener) = TcpListener::bind(listen) else {
            continue;
        };
        let bound = Server::from_listener(listener, config).expect("a server");
        let server = bound.spawn().expect("threads");
        let address = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
        let stream = Stream::subscribe(address, "/events");
        let mut idle = Raw::connect(address);
        assert_eq!(health(&mut idle, "").status, 200);
        for _ in 0..10 {
            let mut third = Raw::connect(address);
            // Best effort: it may have been answered already.
            let _ = third.socket.write_all(
                b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
            );
            let answer = third.answer();
            assert_too_many(&answer, "127.0.0.1", 2);
            assert_eq!(answer.field("connection"), Some("close"));
        }
        assert_eq!(health(&mut idle, "").status, 200, "who was inside before");
        drop(idle);
        eventually("let in", || {
            let mut raw = Raw::connect(address);
            let _ = raw
                .socket
                .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
            raw.answer().status == 200
        });
        drop(stream);
    }
}

#[test]
fn behind_a_trusted_proxy_requests_are_counted_under_their_clients() {
    let server = server(behind_a_proxy(Some(1)));
    let address = server.local_addr();
    let of = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let one = Stream::open(address, "/events", &of("192.0.2.7"));
    let two = Stream::open(address, "/events", &of("2001:db8::1"));
    // The proxy's own connections are not counted, of which these three are idle.
    let mut idle: Vec<_> = (0..3).map(|_| Raw::connect(address)).collect();
    for raw in &mut idle {
        for _ in 0..2 {
            assert_too_many(&health(raw, &of("192.0.2.7")), "192.0.2.7", 1);
            assert_too_many(&health(raw, &of("::ffff:192.0.2.7")), "192.0.2.7", 1);
            assert_too_many(&health(raw, &of("2001:db8::2")), "2001:db8::/64", 1);
            for client in ["192.0.2.8", "192.0.2.9", "2001:db8:0:1::1"] {
                assert_eq!(health(raw, &of(client)).status, 200, "{client}");
            }
        }
    }
    // A body that is not wanted is not read.
    let fields = of("192.0.2.7");
    let mut raw = Raw::connect(address);
    raw.send(format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n{fields}\r\n"
    ));
    let answer = raw.answer();
    assert_too_many(&answer, "192.0.2.7", 1);
    assert_eq!(answer.field("connection"), Some("close"));
    // A request counts as long as it is answered, and so from its head on.
    let mut slow = Raw::connect(address);
    slow.send(format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n{}\r\n",
        of("192.0.2.8")
    ));
    assert_eq!(slow.head().status, 100);
    assert_too_many(&health(&mut idle[0], &of("192.0.2.8")), "192.0.2.8", 1);
    assert_eq!(slow.send("hello").answer().status, 200);
    // No word of the client is a word of the proxy.
    let mut none = Raw::connect(address);
    assert_eq!(health(&mut none, "").status, 200);
    let _proxy = Stream::open(address, "/events", "");
    assert_too_many(&health(&mut none, &of("unknown")), "127.0.0.1", 1);
    drop((one, two));
    for client in ["192.0.2.7", "2001:db8::2", "192.0.2.8"] {
        eventually("counted no more", || {
            // Who has gone is noticed by what is written to it.
            server.hub().publish(tiny_sse::Event::new("x")).unwrap();
            health(&mut idle[0], &of(client)).status == 200
        });
    }
}

#[test]
fn whatever_becomes_of_connections_their_count_comes_back_to_nothing() {
    const LIMIT: usize = 4;
    for proxied in [false, true] {
        let config = Config {
            max_per_ip: Some(LIMIT),
            max_clients: 3,
            extra_connections: 3,
            ..behind_a_proxy(None)
        };
        let trust_proxy = if proxied {
            config.trust_proxy.clone()
        } else {
            Vec::new()
        };
        let bound = Server::bind(
            "127.0.0.1:0",
            Config {
                trust_proxy,
                ..config
            },
        )
        .unwrap();
        let server = bound
            .spawn_with(|request, api| match request.path() {
                "/panic" => panic!("on purpose, for the test"),
                _ => api.answer(request),
            })
            .expect("threads");
        let address = server.local_addr();
        let mut random = Random::new();
        let mut kept = Vec::new();
        for _ in 0..300 {
            let mut raw = Raw::connect(address);
            let what = match random.below(8) {
                0 => "",
                1 => "GET /he",
                2 => "nonsense\r\n\r\n",
                3 => "GET /panic HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
                4 => {
                    "POST /events HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Length: 9\r\n\r\nhalf"
                }
                5 => "GET /health HTTP/1.0\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
                6 => {
                    "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\nGET /he"
                }
                _ => {
                    "GET /events HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
                }
            };
            // Best effort: it may be turned away before.
            let _ = raw.socket.write_all(what.as_bytes());
            kept.push(raw);
            if kept.len() > random.below(8) {
                kept.swap_remove(random.below(kept.len()));
            }
        }
        drop(kept);
        let fields = "X-Forwarded-For: 192.0.2.7\r\n";
        let mut inside: Vec<Raw> = Vec::new();
        eventually("the limit again", || {
            server.hub().publish(tiny_sse::Event::new("x")).unwrap();
            let mut raw = Raw::connect(address);
            let head = format!(
                "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n{fields}\r\n"
            );
            let _ = raw.socket.write_all(head.as_bytes());
            if raw.head().status == 100 {
                inside.push(raw);
            }
            inside.len() == LIMIT
        });
        let mut raw = Raw::connect(address);
        let head = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let _ = raw.socket.write_all(head.as_bytes());
        let client = if proxied { "192.0.2.7" } else { "127.0.0.1" };
        assert_too_many(&raw.answer(), client, LIMIT);
    }
}

#[test]
fn without_a_token_who_comes_through_a_proxy_publishes_only_if_it_is_known_to_be_here() {
    let server = server(Config {
        open: false,
        ..behind_a_proxy(None)
    });
    let (here, there, unknown) = ("", "from 192.0.2.7", "X-Forwarded-For or Forwarded");
    for (fields, refused) in [
        ("X-Forwarded-For: 127.0.0.1\r\n", here),
        ("X-Forwarded-For: ::1\r\nX-Real-IP: 192.0.2.7\r\n", here),
        ("Forwarded: for=\"[::1]:80\"\r\n", here),
        ("X-Forwarded-For: 192.0.2.7\r\n", there),
        ("X-Forwarded-For: 127.0.0.1, 192.0.2.7\r\n", there),
        ("X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\n", there),
        ("X-Forwarded-For: unknown\r\n", unknown),
        ("X-Forwarded-For: unknown, 127.0.0.1\r\n", unknown),
        ("Forwarded: for=_hidden\r\n", unknown),
        // The proxy does not name the client, or names it in a field that is not read.
        ("", unknown),
        ("X-Real-IP: 127.0.0.1\r\n", unknown),
        ("X-Real-IP: 192.0.2.7\r\n", unknown),
        ("X-Client-IP: 127.0.0.1\r\nVia: 1.1 proxy\r\n", unknown),
        ("X-Forwarded-For:\r\n", unknown),
        ("X-Forwarded-For: ,\r\n", unknown),
        ("X-Forwarded-For:\r\nX-Real-IP: 127.0.0.1\r\n", unknown),
        ("Forwarded:\r\n", unknown),
        ("Forwarded: proto=http;by=127.0.0.1\r\n", unknown),
        // A proxy passes on the one field that it does not write.
        (
            "Forwarded: for=127.0.0.1\r\nX-Forwarded-For: 192.0.2.7\r\n",
            unknown,
        ),
        (
            "Forwarded: for=127.0.0.9\r\nX-Forwarded-For: 127.0.0.1\r\n",
            unknown,
        ),
        ("Forwarded:\r\nX-Forwarded-For: 127.0.0.1\r\n", unknown),
    ] {
        for (method, target, done) in [
            ("POST", "/events", 200),
            ("POST", "/events/a", 200),
            ("POST", "/broadcast", 200),
            ("POST", "/clients/nobody", 404),
            ("DELETE", "/clients/nobody", 404),
            ("GET", "/stats?clients=1", 200),
        ] {
            let answer = request(server.local_addr(), method, target, fields, "{}");
            let status = if refused.is_empty() { done } else { 403 };
            let case = format!("{method} {target} {fields:?}: {}", answer.text());
            assert_eq!(answer.status, status, "{case}");
            assert!(answer.text().contains(refused), "{case}");
        }
        // The right to read does not depend on the address.
        let answer = request(server.local_addr(), "GET", "/stats", fields, "");
        assert_eq!(answer.status, 200, "{fields:?}");
    }
}
