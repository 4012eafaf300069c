//! The admission of connections and requests: which connection is evicted when the
//! connection table is full, how much memory all bodies and all answers may take, which
//! client a request comes from, how many connections one address may have, and how a
//! refusal reaches its client.

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

/// Long enough for a server on a busy machine to read what was sent, and short enough to
/// wait for.
const SHORT: Duration = Duration::from_millis(300);

/// A server with three slots in its connection table.
fn server_with_three_slots() -> Running {
    server(three_slots())
}

fn three_slots() -> Config {
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

/// A server whose requests for `/held` are answered only when the test opens the gate.
struct HeldServer {
    server: Running,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    /// The number of requests for `/held` whose handler has begun.
    begun: AtomicUsize,
    /// Once true, all these handlers return.
    is_open: AtomicBool,
}

impl Drop for HeldServer {
    /// Opens the gate also when the test fails, because the shutdown would wait for the
    /// handlers.
    fn drop(&mut self) {
        self.gate.is_open.store(true, Ordering::SeqCst);
    }
}

impl HeldServer {
    fn new(config: Config) -> HeldServer {
        let gate: Arc<Gate> = Arc::default();
        let handler_gate = Arc::clone(&gate);
        let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
        let server = bound
            .spawn_with(move |request, api| match request.path() {
                "/held" => {
                    handler_gate.begun.fetch_add(1, Ordering::SeqCst);
                    eventually("the gate is open", || {
                        handler_gate.is_open.load(Ordering::SeqCst)
                    });
                    Response::text(200, "held")
                }
                _ => api.answer(request),
            })
            .expect("threads");
        HeldServer { server, gate }
    }

    /// Sends a request for `/held`, and returns once its handler has begun.
    #[track_caller]
    fn begin_request(&self) -> Raw {
        let before = self.gate.begun.load(Ordering::SeqCst);
        let mut raw = Raw::connect(self.server.local_addr());
        raw.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
        eventually("the handler runs", || {
            self.gate.begun.load(Ordering::SeqCst) > before
        });
        raw
    }

    /// Opens the gate and reads the answers to these requests.
    #[track_caller]
    fn finish(&self, held: &mut [Raw]) {
        self.gate.is_open.store(true, Ordering::SeqCst);
        for raw in held {
            assert_eq!(raw.answer().text(), "held");
        }
    }
}

/// Sends the head and half of the body of a request, so that the server waits for the
/// rest.
#[track_caller]
fn half_sent_request(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    let sent = raw.send(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(sent.head().status, 100);
    raw.send("x");
    raw
}

/// Gives the server time to read what was sent. No answer tells when it has; the test
/// checks that the connection is neither answered nor closed meanwhile.
#[track_caller]
fn assert_unanswered(raw: &Raw) {
    raw.socket.set_read_timeout(Some(SHORT)).unwrap();
    let seen = raw.socket.peek(&mut [0]);
    raw.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let waits =
        |error: std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(
        seen.is_err_and(waits),
        "the connection was answered or closed"
    );
}

// ---- which connection is evicted

#[test]
fn the_connection_that_has_waited_longest_for_a_request_is_evicted() {
    let server = server_with_three_slots();
    let address = server.local_addr();
    let mut used = Raw::connect(address);
    assert_eq!(health(&mut used, "").status, 200);
    assert_unanswered(&used);
    let mut slow = Raw::connect(address);
    slow.send("\r\nGET /health HTTP/1.1\r\nX: ");
    assert_unanswered(&slow);
    let mut silent = Raw::connect(address);
    assert_unanswered(&silent);
    // One more byte does not change how long this connection has waited.
    slow.send("x");
    let mut accepted = vec![half_sent_request(address)];
    assert!(used.is_closed(), "an idle connection got an answer");
    assert_unanswered(&slow);
    assert_unanswered(&silent);
    accepted.push(half_sent_request(address));
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
    assert_unanswered(&silent);
    accepted.push(half_sent_request(address));
    assert!(silent.is_closed(), "a fresh connection got an answer");
    for raw in &mut accepted {
        assert_eq!(raw.send("x").answer().status, 200);
    }
}

#[test]
fn an_evicted_head_request_gets_an_answer_without_a_body() {
    let server = server_with_three_slots();
    let mut slow = Raw::connect(server.local_addr());
    slow.send("HEAD /health HTTP/1.1\r\n");
    assert_unanswered(&slow);
    let _inside: Vec<_> = (0..3)
        .map(|_| half_sent_request(server.local_addr()))
        .collect();
    assert_eq!(slow.head().status, 503);
    assert!(slow.is_closed(), "an answer to HEAD with a body");
}

#[test]
fn streams_and_requests_in_progress_are_not_evicted() {
    let held = HeldServer::new(Config {
        max_clients: 2,
        extra_connections: 1,
        ..config()
    });
    let address = held.server.local_addr();
    let mut stream = Stream::subscribe(address, "/events");
    let mut answered = [held.begin_request()];
    // The second request of this connection waits until the poll, the first one, is
    // answered.
    let mut poll = Raw::connect(address);
    poll.send("GET /poll?wait=60&topic=t HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_unanswered(&poll);
    for _ in 0..20 {
        let mut rejected = Raw::connect(address);
        let answer = rejected.answer();
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

/// Sends the head of a request and `sent` bytes of its body of `length` bytes, and then
/// nothing more.
#[track_caller]
fn partial_body(address: SocketAddr, length: usize, sent: usize) -> Raw {
    let mut raw = Raw::connect(address);
    raw.send(format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(raw.head().status, 100);
    raw.send(vec![b'x'; sent]);
    raw
}

#[test]
fn a_slow_body_is_evicted_and_its_client_gets_the_answer_although_it_goes_on_sending() {
    let held = HeldServer::new(three_slots());
    let address = held.server.local_addr();
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let raw = partial_body(address, 100_000, 1);
        assert_unanswered(&raw);
        bodies.push(raw);
    }
    let mut new_requests = Vec::new();
    let start = Instant::now();
    for raw in &mut bodies {
        new_requests.push(held.begin_request());
        // The client goes on sending before it reads. A reset would discard the answer.
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
        let end = raw.socket.read(&mut nothing).ok();
        assert_eq!(end, Some(0), "the connection was reset");
    }
    let took = start.elapsed();
    assert!(took < DEADLINE, "{took:?}");
    held.finish(&mut new_requests);
}

#[test]
fn of_two_bodies_the_one_that_makes_progress_is_not_evicted() {
    let held = HeldServer::new(three_slots());
    let address = held.server.local_addr();
    let _answered = held.begin_request();
    let (mut fast, mut slow) = (
        partial_body(address, 100_000, 1),
        partial_body(address, 100_000, 1),
    );
    assert_unanswered(&slow);
    fast.send(vec![b'x'; 99_000]);
    assert_unanswered(&fast);
    let mut newcomer = Raw::connect(address);
    assert_eq!(health(&mut newcomer, "").status, 200);
    assert_eq!(slow.answer().status, 503);
    assert_eq!(fast.send(vec![b'x'; 999]).answer().status, 200);
}

// ---- the memory of all bodies

/// A server in which two bodies of 64 KiB fill the budget.
fn two_bodies() -> Config {
    Config {
        max_body: 64 << 10,
        total_bodies: 128 << 10,
        ..config()
    }
}

#[test]
fn all_bodies_share_one_budget_and_further_bodies_get_a_503() {
    let server = server(two_bodies());
    let address = server.local_addr();
    let body = vec![b'x'; 64 << 10];
    let mut held: Vec<_> = (0..2)
        .map(|_| partial_body(address, body.len(), body.len() - 1))
        .collect();
    for raw in &held {
        assert_unanswered(raw);
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
        // Best effort: the server may have answered already.
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
    // Bodies give their share of the budget back, whether they are answered or their
    // client leaves.
    assert_eq!(held.pop().unwrap().send("x").answer().status, 200);
    drop(held);
    eventually("the budget has room again", || {
        request(address, "POST", "/events", "", &body).status == 200
    });
    // A share is given back after the answer is written, so the next bodies may be a
    // moment too early.
    for _ in 0..5 {
        eventually("two bodies are accepted", || {
            let mut two = [(); 2].map(|()| partial_body(address, 65536, 65535));
            let answers = two.each_mut().map(|raw| raw.send("x").answer().status);
            answers == [200, 200]
        });
    }
}

#[test]
fn the_budget_always_has_room_for_one_body_of_the_largest_size() {
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
    let announced: Vec<_> = (0..100)
        .map(|_| partial_body(address, 64 << 10, 1))
        .collect();
    let body = vec![b'x'; 64 << 10];
    assert_eq!(request(address, "POST", "/events", "", &body).status, 200);
    assert_eq!(announced.len(), 100);
}

#[test]
fn small_bodies_are_read_although_large_ones_fill_the_budget() {
    let server = server(Config {
        max_body: 64 << 20,
        ..config()
    });
    let address = server.local_addr();
    let full = partial_body(address, 64 << 20, (64 << 20) - 1);
    assert_unanswered(&full);
    let large = request(address, "POST", "/events", "", vec![b'x'; 64 << 10]);
    assert_eq!(large.status, 503, "{large:?}");
    let small = request(address, "POST", "/events", "", vec![b'x'; 4 << 10]);
    assert_eq!(small.status, 200, "{small:?}");
}

/// A request that will be refused, or needs no body, is answered before its body arrives.
#[test]
#[cfg(feature = "access")]
fn a_request_that_needs_no_body_is_answered_before_the_body_arrives() {
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
    // A stream begins without the body, too.
    let stream = Stream::open(
        server.local_addr(),
        "/events",
        "Content-Length: 1048576\r\n",
    );
    assert_eq!(stream.head.field("connection"), Some("close"));
}

#[test]
fn the_handler_declares_which_of_its_routes_read_a_body() {
    let echo = |request: tiny_sse::http::Request, api: &tiny_sse::Api| match request.path() {
        "/echo" | "/deaf" => Response::text(200, format!("{} bytes", request.body().len())),
        _ => api.answer(request),
    };
    let bound = || Server::bind("127.0.0.1:0", config()).expect("a free port");
    // The final answer to a request that expects `100 Continue` and sends its body only
    // after that.
    let final_answer = |server: &Running, start: &str| {
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
    assert_eq!(final_answer(&undeclared, "POST /echo").text(), "5 bytes");
    assert_eq!(
        final_answer(&undeclared, "POST /nowhere").field("connection"),
        Some("keep-alive")
    );
    let declared = bound()
        .wants_body(|request, _| request.path() == "/echo")
        .spawn_with(echo)
        .expect("threads");
    assert_eq!(final_answer(&declared, "POST /echo").text(), "5 bytes");
    assert_eq!(final_answer(&declared, "POST /events").status, 200);
    for (start, status) in [
        ("POST /deaf", 200),
        ("POST /nowhere", 404),
        ("PUT /events", 405),
    ] {
        let head = final_answer(&declared, start);
        assert_eq!(
            (head.status, head.field("connection")),
            (status, Some("close")),
            "{start}"
        );
    }
}

// ---- the memory of all answers

#[test]
fn answers_that_are_not_read_share_one_budget() {
    // Larger than the buffers of both sockets.
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
    // A POST was executed already, so it is not refused with a 503: the client would send
    // it again.
    assert_eq!(ask("POST").head().status, 200);
    for raw in &mut unread {
        assert_eq!(raw.answer().body.len(), LARGE);
    }
    eventually("the budget has room again", || {
        ask("GET").answer().status == 200
    });
}

#[test]
fn connections_in_a_lingering_close_free_their_slots() {
    let server = server_with_three_slots();
    let address = server.local_addr();
    // These clients do not close, so the server lingers with their connections.
    let mut refused: Vec<_> = (0..3).map(|_| Raw::connect(address)).collect();
    for raw in &mut refused {
        assert_eq!(raw.send("nonsense\r\n\r\n").answer().status, 400);
    }
    for raw in &mut refused {
        let mut nothing = [0];
        assert_eq!(raw.socket.read(&mut nothing).unwrap(), 0);
    }
    let accepted: Vec<_> = (0..3).map(|_| half_sent_request(address)).collect();
    assert_eq!(accepted.len(), 3);
}

// ---- how a refusal arrives

#[test]
fn a_rejected_client_reads_the_reason_although_it_goes_on_sending() {
    const CROWD: usize = 200;
    let held = HeldServer::new(three_slots());
    let address = held.server.local_addr();
    let mut accepted: Vec<_> = (0..3).map(|_| held.begin_request()).collect();
    let mut rejected = Vec::new();
    for number in 0..CROWD {
        let mut raw = Raw::connect(address);
        raw.send("GET /health HTTP/1.1\r\nHo");
        // The answer has arrived, and the server will read no request.
        let _ = raw.socket.peek(&mut [0]).expect("an answer");
        raw.send("st: a\r\n\r\n");
        rejected.push((number, raw));
    }
    for (number, mut raw) in rejected {
        let mut bytes = Vec::new();
        let outcome = raw.socket.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert!(outcome.is_ok(), "{number}: {outcome:?} after {text:?}");
        let is_whole = text.starts_with("HTTP/1.1 503 ") && text.ends_with("connections\"}\n");
        assert!(is_whole, "{number}: {text:?}");
    }
    held.finish(&mut accepted);
}

#[test]
fn rejected_clients_that_stay_connected_do_not_delay_a_shutdown() {
    let held = HeldServer::new(three_slots());
    let address = held.server.local_addr();
    let mut accepted: Vec<_> = (0..3).map(|_| held.begin_request()).collect();
    let mut rejected: Vec<_> = (0..20).map(|_| Raw::connect(address)).collect();
    for raw in &mut rejected {
        assert_eq!(raw.answer().status, 503);
    }
    held.finish(&mut accepted);
    // Joins the thread that lingers with these connections; the test would hang if it did
    // not end.
    drop(held);
    for raw in &mut rejected {
        assert!(raw.is_closed());
    }
}

// ---- the client of a request

fn networks(texts: &[&str]) -> Vec<Network> {
    let networks = texts.iter().map(|text| text.parse());
    networks.collect::<Result<_, _>>().expect("networks")
}

fn behind_a_proxy(max_per_ip: Option<usize>) -> Config {
    Config {
        trust_proxy: networks(&["127.0.0.0/8", "10.0.0.0/8"]),
        max_per_ip,
        // The tests publish for clients on other machines, too.
        open: true,
        ..config()
    }
}

#[test]
fn only_a_trusted_proxy_can_name_the_client() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    for (trusted, address) in [
        (&["127.0.0.1", "10.0.0.0/8"][..], "127.0.0.2"),
        (&["10.0.0.0/8"], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ] {
        let collected = Arc::clone(&lines);
        let server = server(Config {
            trust_proxy: networks(trusted),
            open: true,
            report: Report::new(move |_, line| collected.lock().unwrap().push(line.to_string())),
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
fn a_handler_gets_the_address_of_the_client_and_of_the_peer() {
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
        // The fields of the request before do not apply to this one.
        ("", "127.0.0.1"),
    ] {
        let answer = health(&mut raw, fields);
        assert_eq!(answer.text(), format!("{client} 127.0.0.1"), "{fields:?}");
    }
}

// ---- the limit of one address

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
fn an_address_cannot_exceed_its_connection_limit_with_forged_fields() {
    // A machine without IPv6 is tested with IPv4 alone.
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
            // Best effort: the server may have answered already.
            let _ = third.socket.write_all(
                b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
            );
            let answer = third.answer();
            assert_too_many(&answer, "127.0.0.1", 2);
            assert_eq!(answer.field("connection"), Some("close"));
        }
        assert_eq!(health(&mut idle, "").status, 200, "an earlier connection");
        drop(idle);
        eventually("a connection is accepted", || {
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
fn requests_through_a_trusted_proxy_count_for_their_clients() {
    let server = server(behind_a_proxy(Some(1)));
    let address = server.local_addr();
    let of = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let one = Stream::open(address, "/events", &of("192.0.2.7"));
    let two = Stream::open(address, "/events", &of("2001:db8::1"));
    // The connections of the proxy itself, of which three are idle here, are not counted.
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
    // The request is refused before its body is read.
    let fields = of("192.0.2.7");
    let mut raw = Raw::connect(address);
    raw.send(format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n{fields}\r\n"
    ));
    let answer = raw.answer();
    assert_too_many(&answer, "192.0.2.7", 1);
    assert_eq!(answer.field("connection"), Some("close"));
    // A request counts from its head until its answer is written.
    let mut slow = Raw::connect(address);
    slow.send(format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n{}\r\n",
        of("192.0.2.8")
    ));
    assert_eq!(slow.head().status, 100);
    assert_too_many(&health(&mut idle[0], &of("192.0.2.8")), "192.0.2.8", 1);
    assert_eq!(slow.send("hello").answer().status, 200);
    // A request whose client the proxy does not name counts for the proxy's own address.
    let mut none = Raw::connect(address);
    assert_eq!(health(&mut none, "").status, 200);
    let _proxy = Stream::open(address, "/events", "");
    assert_too_many(&health(&mut none, &of("unknown")), "127.0.0.1", 1);
    drop((one, two));
    for client in ["192.0.2.7", "2001:db8::2", "192.0.2.8"] {
        eventually("the closed streams are not counted", || {
            // The server notices a closed connection when it writes to it.
            server.hub().publish(tiny_sse::Event::new("x")).unwrap();
            health(&mut idle[0], &of(client)).status == 200
        });
    }
}

#[test]
fn the_count_of_an_address_returns_to_zero_however_its_connections_end() {
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
            // Best effort: the server may have rejected the connection already.
            let _ = raw.socket.write_all(what.as_bytes());
            kept.push(raw);
            if kept.len() > random.below(8) {
                kept.swap_remove(random.below(kept.len()));
            }
        }
        drop(kept);
        let fields = "X-Forwarded-For: 192.0.2.7\r\n";
        let mut accepted: Vec<Raw> = Vec::new();
        eventually("the full limit is available", || {
            server.hub().publish(tiny_sse::Event::new("x")).unwrap();
            let mut raw = Raw::connect(address);
            let head = format!(
                "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n{fields}\r\n"
            );
            let _ = raw.socket.write_all(head.as_bytes());
            if raw.head().status == 100 {
                accepted.push(raw);
            }
            accepted.len() == LIMIT
        });
        let mut raw = Raw::connect(address);
        let head = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let _ = raw.socket.write_all(head.as_bytes());
        let client = if proxied { "192.0.2.7" } else { "127.0.0.1" };
        assert_too_many(&raw.answer(), client, LIMIT);
    }
}

#[test]
fn without_a_token_no_client_behind_a_proxy_may_publish_whatever_address_it_is_said_to_have() {
    let server = server(Config {
        open: false,
        ..behind_a_proxy(None)
    });
    for fields in [
        "",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Forwarded-For: ::1\r\nX-Real-IP: 192.0.2.7\r\n",
        "Forwarded: for=\"[::1]:80\"\r\n",
        "X-Forwarded-For: 192.0.2.7\r\n",
        "X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\n",
        "X-Forwarded-For: unknown\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
        "X-Forwarded-For:\r\n",
        "Forwarded: for=127.0.0.9\r\nX-Forwarded-For: 127.0.0.1\r\n",
    ] {
        for (method, target, status) in [
            ("POST", "/events", 403),
            ("POST", "/events/a", 403),
            ("POST", "/broadcast", 403),
            ("POST", "/clients/nobody", 403),
            ("DELETE", "/clients/nobody", 403),
            ("GET", "/stats?clients=1", 403),
            ("GET", "/stats", 403),
            ("HEAD", "/events/a", 403),
            ("HEAD", "/events", 200),
        ] {
            let answer = request(server.local_addr(), method, target, fields, "{}");
            let case = format!("{method} {target} {fields:?}: {}", answer.text());
            assert_eq!(answer.status, status, "{case}");
        }
    }
}
