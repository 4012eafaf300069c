//! One HTTP connection from its first request to its end: pipelined requests, hidden
//! requests, timeouts, handlers that panic, a full connection table, the shutdown, and
//! inherited listeners.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiny_sse::http::{Request, Response};
use tiny_sse::{Config, Report, Running, Server};

use crate::kit::{Raw, Stream, config, eventually, get, number_after, post, server};

/// A timeout in which even a busy machine sends two bytes, and that is short enough to
/// wait for.
const SHORT: Duration = Duration::from_millis(300);

/// A server whose handler is `handler`.
fn handled_by(
    config: Config,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Running {
    let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
    bound
        .spawn_with(move |request, _| handler(&request))
        .expect("threads")
}

/// A handler that returns the path of the request.
fn path(request: &Request) -> Response {
    Response::text(200, request.path())
}

#[test]
fn a_path_is_split_into_segments_at_its_slashes() {
    let server = handled_by(config(), |request| {
        Response::text(200, format!("{:?}", request.segments()))
    });
    for (target, segments) in [
        ("/", "[]"),
        ("/users", r#"["users"]"#),
        ("/users/42?a=/b/c", r#"["users", "42"]"#),
        ("/users/42/", r#"["users", "42", ""]"#),
        ("//users", r#"["", "users"]"#),
        ("/a%20b/c%2Fd", r#"["a b", "c", "d"]"#),
        ("http://localhost", "[]"),
    ] {
        let answer = get(server.local_addr(), target);
        assert_eq!(answer.text(), segments, "{target}");
    }
}

#[test]
fn a_response_field_with_a_control_character_is_not_sent_and_makes_a_500() {
    let server = handled_by(config(), |request| {
        let value = request.query("value").unwrap_or_default().to_owned();
        Response::new(204)
            .with("X-Value", value)
            .with("X-Last", "a")
    });
    for (value, status) in [
        ("b", 204),
        ("%0d%0aX-Evil:1", 500),
        ("%00", 500),
        ("%7f", 500),
    ] {
        let answer = get(server.local_addr(), &format!("/?value={value}"));
        assert_eq!(answer.status, status, "{value}: {answer:?}");
        assert_eq!(answer.field("x-evil"), None, "{value}");
        assert_eq!(answer.field("x-last"), Some("a"), "{value}");
        assert_eq!(
            status == 500,
            answer.text().contains("X-Value"),
            "{value}: {answer:?}"
        );
    }
    assert!(Response::new(204).try_with("X-Value", "a\nb").is_err());
}

fn total_events(server: &Running) -> u64 {
    let stats = get(server.local_addr(), "/stats");
    number_after(stats.text(), "\"total_events\":")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = handled_by(config(), path);
    let mut raw = Raw::connect(server.local_addr());
    let requests: String = (0..200)
        .map(|number| match number % 4 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => format!("\r\nGET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            2 => format!("POST /{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nGET / HTT"),
            _ => format!(
                "POST /{number} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
            ),
        })
        .collect();
    raw.send(requests);
    for number in 0..200 {
        let answer = raw.answer();
        assert_eq!(
            (answer.status, answer.text()),
            (200, &*format!("/{number}"))
        );
    }
    raw.send("GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.answer().text(), "/last");
    assert!(raw.is_closed());
}

#[test]
fn no_request_after_a_close_a_refusal_or_a_stream_is_executed() {
    let server = server(config());
    let post = "POST /events/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    #[rustfmt::skip]
    let rows = [
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        ("GET /health HTTP/1.1\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", 404),
        ("PUT /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", 405),
        ("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", 413),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\n\r\n", 417),
        ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
    ];
    for (request, status) in rows {
        let mut raw = Raw::connect(server.local_addr());
        raw.send([request, post].concat());
        assert_eq!(raw.answer().status, status, "{request:?}");
        assert!(raw.is_closed(), "{request:?}: a second answer");
        assert_eq!(total_events(&server), 0, "{request:?}");
    }
    let mut raw = Raw::connect(server.local_addr());
    raw.send(
        [
            "GET /events?client_id=me HTTP/1.1\r\nHost: localhost\r\n\r\n",
            post,
        ]
        .concat(),
    );
    assert_eq!(raw.head().status, 200);
    eventually("the client is registered", || server.hub().clients() == 1);
    crate::kit::request(server.local_addr(), "DELETE", "/clients/me", "", "");
    raw.rest();
    assert_eq!(total_events(&server), 0, "after a stream");
}

/// Each row hides `POST /events` with the body `x` from one of two parsers that differ
/// about the named rule. This server must either reject the outer request, or read the
/// hidden one as data.
#[test]
fn a_request_hidden_in_another_is_not_executed() {
    const HIDDEN: &str = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let server = server(config());
    let size = HIDDEN.len();
    let with = |fields: &str, body: &str| {
        // This endpoint reads a body and needs no right.
        format!("POST /clients/nobody HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
    };
    let get =
        |fields: &str| format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{HIDDEN}");
    let whole = size + 5;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cl_te = format!("0\r\n\r\n{HIDDEN}");
    let te_cl = format!("{size:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    #[rustfmt::skip]
    let rows = [
        ("CL.TE", 400, with(&format!("Content-Length: {whole}\r\n{chunked}"), &cl_te)),
        ("TE.CL", 400, with(&format!("{chunked}Content-Length: 4\r\n"), &te_cl)),
        ("CL.TE, the coding in capitals", 400, with(&format!("Content-Length: {whole}\r\nTRANSFER-ENCODING: CHUNKED\r\n"), &cl_te)),
        ("CL.CL", 400, with(&format!("Content-Length: 0\r\nContent-Length: {size}\r\n"), HIDDEN)),
        ("CL.CL in a list", 400, with(&format!("Content-Length: {size}, 0\r\n"), HIDDEN)),
        ("CL.0 by a sign", 400, with("Content-Length: +0\r\n", HIDDEN)),
        ("CL.0 by overflow", 413, with("Content-Length: 18446744073709551616\r\n", HIDDEN)),
        ("CL with a space before its colon", 400, with(&format!("Content-Length : {size}\r\nContent-Length: 0\r\n"), HIDDEN)),
        ("TE.TE, two fields", 400, with(&format!("{chunked}Transfer-Encoding: identity\r\n"), &cl_te)),
        ("TE.TE, another coding", 400, with("Transfer-Encoding: xchunked\r\n", &cl_te)),
        ("TE.TE, a vertical tab", 400, with("Transfer-Encoding: \x0bchunked\r\n", &cl_te)),
        ("TE.TE, a fold", 400, with("X: y\r\n Transfer-Encoding: chunked\r\n", &cl_te)),
        ("TE.TE, a bare LF", 400, with("X: y\nTransfer-Encoding: chunked\r\n", &cl_te)),
        ("TE.TE, a bare CR", 400, with("X: y\rTransfer-Encoding: chunked\r\n", &cl_te)),
        ("TE in HTTP/1.0", 400, format!("POST /clients/nobody HTTP/1.0\r\n{chunked}Connection: keep-alive\r\n\r\n{cl_te}")),
        ("TERM.EXT, a bare LF in an extension", 400, with(chunked, &format!("1;\nx\r\n{size:x}\r\n0\r\n\r\n{HIDDEN}"))),
        ("EXT.TERM, a bare CR in an extension", 400, with(chunked, &format!("1;a\rx\r\n{size:x}\r\n0\r\n\r\n{HIDDEN}"))),
        ("TERM.SPILL, a bare LF after data", 400, with(chunked, &format!("1\r\nx\n0\r\n\r\n{HIDDEN}"))),
        ("a chunk's size as C reads it", 400, with(chunked, &format!("0x{size:x}\r\n\r\n{HIDDEN}\r\n0\r\n\r\n"))),
        ("a chunk's size that overflows to 0", 400, with(chunked, &format!("10000000000000000\r\n\r\n{HIDDEN}"))),
        ("a chunk's size with a sign", 400, with(chunked, &format!("-0\r\n\r\n{HIDDEN}"))),
        ("a bare LF at the end of the head", 400, get("X: y\r\n\n")),
        ("a NUL at the end of the head", 400, get("\0\r\n")),
        ("an HTTP/0.9 line", 400, format!("GET /health\r\n\r\n{HIDDEN}")),
        ("a CRLF in the quotes of an extension", 400, with(chunked, &format!("1;a=\"\r\nx\r\n0\r\n\r\n{HIDDEN}"))),
        ("ONE.TWO, a line end of one byte", 400, with(chunked, &format!("1\r\nx\n{size:x}\r\n\r\n0\r\n\r\n{HIDDEN}"))),
        ("TWO.ONE, a line end of any two bytes", 400, with(chunked, &format!("1\r\nxXX0\r\n\r\n{HIDDEN}"))),
        ("ZERO.TWO, no line end", 400, with(chunked, &format!("1\r\nx0\r\n\r\n{HIDDEN}"))),
        ("TE.TE, an empty member", 400, with("Transfer-Encoding: ,chunked\r\n", &cl_te)),
        ("0.CL, folded", 400, with(&format!("Content-Length:\r\n {size}\r\n"), HIDDEN)),
        ("an expectation in disguise", 417, with(&format!("Content-Length: {size}\r\nExpect: x 100-continue\r\n"), HIDDEN)),
        ("CONNECT, and a tunnel", 400, format!("CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}")),
        // These are plain data to every parser that follows the RFC.
        ("a body of its own length", 404, with(&format!("Content-Length: {size}\r\n"), HIDDEN)),
        ("a GET with a body", 200, format!("GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n{HIDDEN}")),
        ("TE.0, an OPTIONS with chunks", 204, format!("OPTIONS / HTTP/1.1\r\nHost: localhost\r\n{chunked}\r\n{te_cl}")),
        ("an upgrade with a body", 404, with(&format!("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {size}\r\n"), HIDDEN)),
        ("a chunk", 404, with(chunked, &te_cl)),
        ("an extension", 404, with(chunked, "1;a=\"POST /events HTTP/1.1\"\r\nx\r\n0\r\n\r\n")),
        ("a trailer", 404, with(chunked, &format!("0\r\nContent-Length: {size}\r\n\r\n"))),
    ];
    for (attack, status, bytes) in rows {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(&bytes);
        raw.socket.shutdown(Shutdown::Write).unwrap();
        let answer = raw.answer();
        assert_eq!(answer.status, status, "{attack}: {bytes:?}\n{answer:?}");
        let rest = String::from_utf8(raw.rest()).unwrap();
        assert_eq!(rest, "", "{attack}: a second answer to {bytes:?}");
        assert_eq!(total_events(&server), 0, "{attack}: {bytes:?}");
    }
    // The same request alone is executed, so the zeros above mean something.
    let mut raw = Raw::connect(server.local_addr());
    raw.send(HIDDEN);
    assert_eq!((raw.answer().status, total_events(&server)), (200, 1));
}

#[test]
fn head_is_answered_like_get_but_without_the_body() {
    let server = server(config());
    let mut raw = Raw::connect(server.local_addr());
    let long = format!("/{}", "t".repeat(config().max_target));
    for path in [
        "/",
        "/health",
        "/nowhere",
        // These targets are refused with 400 and 414.
        "/events?topic=a%00b",
        &long,
        "/events?topic=%01",
    ] {
        for (method, body) in [("HEAD", false), ("GET", true)] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ));
            let head = raw.head();
            let length: usize = head.field("content-length").unwrap().parse().unwrap();
            let rest = raw.rest().len();
            assert_eq!(rest, if body { length } else { 0 }, "{method} {path}");
        }
    }
    // A HEAD with a body that is not read, and a malformed one that is refused.
    for (fields, status) in [
        ("Content-Length: 1048577\r\n\r\n", 200),
        ("Transfer-Encoding: chunked\r\n\r\nno size\r\n", 200),
        ("X : y\r\n\r\n", 400),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(format!(
            "\r\nHEAD / HTTP/1.1\r\nHost: localhost\r\n{fields}"
        ));
        assert_eq!(raw.head().status, status, "{fields:?}");
        assert!(raw.is_closed(), "{fields:?}: an answer to HEAD with a body");
    }
    raw.send("HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = raw.head();
    assert_eq!(
        head.field("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert_eq!(head.field("connection"), Some("keep-alive"));
    raw.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.answer().text(), "{\"status\":\"ok\"}\n");
    assert_eq!(server.hub().clients(), 0);
}

/// SPEC: RFC 9112, 3.2.2: "the origin server MUST ignore the received Host header field".
#[test]
fn the_host_in_an_absolute_target_replaces_the_host_field() {
    let host = |request: &Request| Response::text(200, format!("{:?}", request.host()));
    let handled = handled_by(config(), host);
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a:80", "Some(\"a:80\")"),
        ("GET / HTTP/1.1\r\nHost:", "Some(\"\")"),
        ("GET / HTTP/1.0", "None"),
        ("GET http://b:80/ HTTP/1.1\r\nHost: a", "Some(\"b:80\")"),
        ("GET http://b HTTP/1.0", "Some(\"b\")"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "Some(\"a\")"),
    ] {
        let mut raw = Raw::connect(handled.local_addr());
        let answer = raw.send(format!("{request}\r\n\r\n")).answer();
        assert_eq!(answer.text(), expected, "{request:?}");
    }
    // The origin of a page is compared with this host.
    let server = server(config());
    for (target, status) in [
        ("/events", 200),
        ("http://localhost/events", 200),
        ("http://elsewhere/events", 403),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 1\r\n\r\nx"));
        assert_eq!(raw.answer().status, status, "{target}");
    }
}

#[test]
fn a_204_and_a_304_have_no_body_although_the_handler_returned_one() {
    let server = handled_by(config(), |request| match request.path() {
        "/204" => Response::text(204, "hidden"),
        "/304" => Response::text(304, "hidden"),
        _ => path(request),
    });
    let mut raw = Raw::connect(server.local_addr());
    for status in [204, 304] {
        raw.send(format!(
            "GET /{status} HTTP/1.1\r\nHost: localhost\r\n\r\nGET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let answer = raw.answer();
        assert_eq!(
            (answer.status, answer.field("content-length")),
            (status, None)
        );
        let next = raw.answer();
        assert!(next.head.starts_with("HTTP/1.1 200 OK\n"), "{next:?}");
        assert_eq!(next.text(), "/next", "after a {status}");
    }
}

#[test]
fn a_request_that_expects_100_continue_gets_it_before_the_answer() {
    let server = server(config());
    let mut raw = Raw::connect(server.local_addr());
    for (length, body) in [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        raw.send(format!(
            "POST /events HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{length}\r\n\r\n"
        ));
        let interim = raw.head();
        assert_eq!(interim.head, "HTTP/1.1 100 Continue");
        assert_eq!(raw.send(body).answer().status, 200);
    }
    // A body that is too large is refused before it is sent, without a `100 Continue`.
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n");
    let answer = raw.answer();
    assert_eq!(
        (answer.status, answer.field("connection")),
        (413, Some("close"))
    );
    assert!(raw.is_closed());
    // HTTP/1.0 has no interim answers.
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /events HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(raw.send("hello").answer().status, 200);
}

/// The first bytes of a request, the bytes that then follow slowly, and the part that is
/// late.
#[rustfmt::skip]
const LATE: &[(&str, &[u8], &str)] = &[
    ("G", b"E", "head"),
    ("\r\n", b"\r\n", "head"),
    ("GET / HTTP/1.1\r\nX: ", b"x", "head"),
    ("GET / HTTP/1.1\r\n", b"X: y\r\n", "head"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", b"x", "body"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", "body"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", b"x", "body"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x", "body"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x", "body"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "body"),
    ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", "body"),
];

#[test]
fn a_request_that_does_not_end_in_time_is_a_408_even_if_bytes_keep_arriving() {
    let server = server(Config {
        head_timeout: SHORT,
        body_timeout: SHORT,
        ..config()
    });
    for (start, more, what) in LATE {
        for dribbles in [false, true] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(start);
            let begun = Instant::now();
            if dribbles {
                // Sends until an answer arrives. Each wait for the answer is the pause
                // between two bytes.
                raw.socket.set_read_timeout(Some(SHORT / 10)).unwrap();
                while nothing_came(&raw.socket) {
                    assert!(
                        begun.elapsed() < crate::kit::DEADLINE,
                        "{start:?} is not timed out"
                    );
                    // Best effort: the server may have answered and closed already.
                    let _ = raw.socket.write(more);
                }
                raw.socket
                    .set_read_timeout(Some(crate::kit::DEADLINE))
                    .unwrap();
            }
            let answer = raw.answer();
            assert_eq!(answer.status, 408, "{start:?}, dribbling: {dribbles}");
            assert!(answer.text().contains(what), "{}", answer.text());
            assert_eq!(answer.field("connection"), Some("close"));
            assert!(raw.is_closed(), "{start:?}");
        }
    }
}

fn nothing_came(socket: &TcpStream) -> bool {
    match socket.peek(&mut [0]) {
        Ok(_) => false,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn an_idle_connection_is_closed_without_an_answer() {
    let server = server(Config {
        head_timeout: SHORT,
        idle_timeout: SHORT,
        ..config()
    });
    let mut fresh = Raw::connect(server.local_addr());
    let mut used = Raw::connect(server.local_addr());
    used.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(used.answer().status, 200);
    assert!(used.is_closed(), "an idle connection got an answer");
    assert!(
        fresh.is_closed(),
        "a connection without a request got an answer"
    );
}

#[test]
fn the_head_timeout_begins_anew_with_each_request() {
    let server = server(Config {
        head_timeout: SHORT,
        idle_timeout: crate::kit::DEADLINE,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    let begun = Instant::now();
    while begun.elapsed() < 3 * SHORT {
        raw.send("GET /health HTTP/1.1\r\n")
            .send("Host: localhost\r\n\r\n");
        assert_eq!(raw.answer().status, 200);
    }
}

#[test]
fn a_handler_that_panics_is_a_500_and_ends_only_its_connection() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let collected = Arc::clone(&lines);
    let report = Report::new(move |_, line| collected.lock().unwrap().push(line.to_string()));
    let config = Config { report, ..config() };
    let server = handled_by(config, |request| match request.path() {
        "/panic" => panic!("on purpose, for the test"),
        _ => path(request),
    });
    let mut neighbour = Raw::connect(server.local_addr());
    neighbour.send("GET /before HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(neighbour.answer().status, 200);
    for _ in 0..3 {
        let mut raw = Raw::connect(server.local_addr());
        raw.send("GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\nGET /next HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = raw.answer();
        assert_eq!(
            (answer.status, answer.field("connection")),
            (500, Some("close"))
        );
        assert!(answer.text().starts_with(r#"{"status":"error","error":""#));
        assert!(raw.is_closed(), "the connection goes on");
    }
    neighbour.send("GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(neighbour.answer().text(), "/after");
    assert_eq!(get(server.local_addr(), "/new").text(), "/new");
    let lines = lines.lock().unwrap();
    let reports = lines.iter().filter(|line| line.contains("GET /panic"));
    assert_eq!(reports.count(), 3, "{lines:?}");
}

#[test]
fn a_full_connection_table_answers_503_with_retry_after_until_a_slot_is_free() {
    let (server, has_begun, go) = server_with_slow_handler(Config {
        max_clients: 1,
        extra_connections: 2,
        ..config()
    });
    // The handlers of all three run. A connection that waits for a request would be
    // evicted.
    let mut accepted: Vec<_> = (0..3).map(|_| Raw::connect(server.local_addr())).collect();
    for raw in &mut accepted {
        raw.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        has_begun.recv().unwrap();
    }
    for sends_request in [false, true] {
        let mut rejected = Raw::connect(server.local_addr());
        if sends_request {
            // Best effort: the server may have answered and closed already.
            let _ = rejected
                .socket
                .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let answer = rejected.answer();
        assert_eq!(
            (answer.status, answer.field("retry-after")),
            (503, Some("5"))
        );
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(
            answer.text().contains("Too many connections"),
            "{}",
            answer.text()
        );
        assert!(rejected.is_closed());
    }
    go.send(()).unwrap();
    eventually("a connection is accepted", || {
        let mut raw = Raw::connect(server.local_addr());
        let _ = raw
            .socket
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        raw.answer().status == 200
    });
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    for raw in &mut accepted {
        assert_eq!(raw.answer().status, 200, "an earlier connection");
    }
}

#[test]
fn a_stream_over_the_limit_is_a_503_and_its_connection_stays_open() {
    let server = server(Config {
        max_clients: 1,
        ..config()
    });
    let stream = Stream::subscribe(server.local_addr(), "/events");
    let mut raw = Raw::connect(server.local_addr());
    raw.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = raw.answer();
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (503, Some("5"))
    );
    raw.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    drop(stream);
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let server = server(config());
    let length = 3 << 20;
    for framing in [
        format!("Content-Length: {length}"),
        "Transfer-Encoding: chunked".into(),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(format!(
            "POST /events HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
        ));
        if framing.contains("chunked") {
            raw.send(format!("{length:x}\r\n"));
        }
        // Best effort: the server may close before it has all of the body. Only the
        // answer counts.
        let _ = raw.socket.write_all(&vec![b'x'; length]);
        let answer = raw.answer();
        assert_eq!(answer.status, 413, "{framing}");
        assert!(answer.text().contains("1048576"), "{}", answer.text());
    }
}

/// Starts a server whose handler of `/slow` first sends to the returned receiver, and
/// then waits for a message from the returned sender.
fn server_with_slow_handler(config: Config) -> (Running, Receiver<()>, Sender<()>) {
    let ((begun, has_begun), (go, may_go)) = (channel(), channel::<()>());
    let may_go = Mutex::new(may_go);
    let server = handled_by(config, move |request| {
        if request.path() == "/slow" {
            begun.send(()).expect("the test still receives");
            // An error means that the test has ended; the handler then ends too.
            let _ = may_go.lock().unwrap().recv();
        }
        path(request)
    });
    (server, has_begun, go)
}

#[test]
fn a_shutdown_waits_for_requests_in_flight_and_closes_idle_connections() {
    let (server, has_begun, go) = server_with_slow_handler(Config {
        grace: crate::kit::DEADLINE,
        ..config()
    });
    let address = server.local_addr();
    let mut idle = Raw::connect(address);
    idle.send("GET /idle HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    let mut fresh = Raw::connect(address);
    let mut busy = Raw::connect(address);
    busy.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\nGET /next HTTP/1.1\r\nHost: localhost\r\n\r\n");
    has_begun.recv().unwrap();
    let is_down = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_down);
    let closing = std::thread::spawn(move || {
        server.shutdown();
        flag.store(true, Ordering::SeqCst);
    });
    assert!(idle.is_closed(), "an idle connection got an answer");
    assert!(fresh.is_closed(), "a fresh connection got an answer");
    assert!(
        !is_down.load(Ordering::SeqCst),
        "the shutdown did not wait for the request in flight"
    );
    go.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!(
        (answer.text(), answer.field("connection")),
        ("/slow", Some("close"))
    );
    assert!(
        busy.is_closed(),
        "a request after the last one was answered"
    );
    closing.join().unwrap();
}

#[test]
fn a_shutdown_waits_for_a_request_that_has_begun_to_arrive() {
    let long_grace = Config {
        grace: crate::kit::DEADLINE,
        ..config()
    };
    let server = handled_by(long_grace, path);
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    // The interim answer shows that the head was read, so the connection is not idle.
    assert_eq!(raw.head().status, 100);
    let mut idle = Raw::connect(server.local_addr());
    let closing = std::thread::spawn(move || server.shutdown());
    assert!(idle.is_closed());
    raw.send("late");
    let answer = raw.answer();
    assert_eq!(
        (answer.status, answer.field("connection")),
        (200, Some("close"))
    );
    closing.join().unwrap();
}

#[test]
fn a_handler_that_does_not_return_delays_a_shutdown_by_the_grace_period_at_most() {
    let (server, has_begun, go) = server_with_slow_handler(Config {
        grace: SHORT,
        ..config()
    });
    let mut stuck = Raw::connect(server.local_addr());
    stuck.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    has_begun.recv().unwrap();
    let start = Instant::now();
    server.shutdown();
    let took = start.elapsed();
    assert!(
        took >= SHORT,
        "the shutdown did not wait for the grace period: {took:?}"
    );
    assert!(
        took < Duration::from_secs(10),
        "the shutdown hung: {took:?}"
    );
    assert!(stuck.is_closed(), "the connection is still open");
    drop(go);
}

#[test]
fn an_incomplete_request_has_no_effect_when_its_client_hangs_up() {
    let server = server(config());
    #[rustfmt::skip]
    let beginnings = [
        "", "G", "\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\n",
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhell",
        "POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for beginning in beginnings {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(beginning);
        raw.socket.shutdown(Shutdown::Write).unwrap();
        assert!(raw.is_closed(), "{beginning:?} was answered");
    }
    assert_eq!(total_events(&server), 0);
    post(server.local_addr(), "/events", "hello");
    assert_eq!(total_events(&server), 1);
}

#[test]
fn a_client_that_shuts_down_its_sending_side_is_still_answered() {
    let server = server(config());
    let mut raw = Raw::connect(server.local_addr());
    raw.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!((raw.answer().status, raw.answer().status), (200, 200));
    assert!(raw.is_closed());
    let mut nothing = [0];
    assert_eq!(raw.socket.read(&mut nothing).unwrap(), 0);
}

#[test]
fn a_line_of_the_maximum_length_may_be_cut_between_cr_and_lf() {
    let server = server(config());
    let head = "POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let size_line = format!("{head}5;{}\r", "e".repeat(254));
    let trailer = format!("{head}0\r\nX: {}\r\n\r", "v".repeat(config().max_head - 5));
    for (start, rest) in [(size_line, "\nhello\r\n0\r\n\r\n"), (trailer, "\n")] {
        let mut whole = Raw::connect(server.local_addr());
        let expected = whole.send([&*start, rest].concat()).answer().status;
        let mut raw = Raw::connect(server.local_addr());
        raw.send(&start);
        // The server must read the CR before the rest is sent. No answer tells when it
        // has; the test waits, and expects no refusal meanwhile.
        raw.socket.set_read_timeout(Some(SHORT)).unwrap();
        let silent = nothing_came(&raw.socket);
        raw.socket
            .set_read_timeout(Some(crate::kit::DEADLINE))
            .unwrap();
        if silent {
            raw.send(rest);
        }
        let (status, end) = (raw.answer().status, &start[start.len() - 20..]);
        assert_eq!(
            status, expected,
            "cut after {end:?}; without a cut the status is {expected}"
        );
    }
}

#[test]
fn a_connection_is_closed_after_an_answer_that_says_close_and_after_no_other() {
    let server = server(config());
    for request in [
        "HEAD /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HEAD /events HTTP/1.0\r\n\r\n",
        "HEAD /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(request);
        let says_close = raw.head().field("connection") == Some("close");
        // The second request is answered if and only if the first answer did not say
        // `close`.
        let _ = raw.socket.write_all(b"GET /health HTTP/1.0\r\n\r\n");
        assert_eq!(raw.rest().is_empty(), says_close, "{request:?}");
    }
}

#[test]
fn an_empty_line_after_a_request_does_not_begin_the_next_one() {
    // SPEC: RFC 9112, 2.2: old clients send an empty line after the body of a POST.
    let post = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx\r\n";
    let server = server(Config {
        head_timeout: SHORT,
        idle_timeout: SHORT,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    assert_eq!(raw.send(post).answer().status, 200);
    let rest = String::from_utf8(raw.rest()).unwrap();
    assert_eq!(rest, "", "an idle connection got an answer");
}

#[test]
fn an_empty_line_after_a_request_does_not_delay_a_shutdown() {
    let server = server(Config {
        grace: crate::kit::DEADLINE,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx\r\n");
    assert_eq!(raw.answer().status, 200);
    // Gives the server time to read the empty line. No answer tells when it has.
    raw.socket.set_read_timeout(Some(SHORT)).unwrap();
    assert!(nothing_came(&raw.socket));
    let start = Instant::now();
    server.shutdown();
    let took = start.elapsed();
    assert!(
        took < crate::kit::DEADLINE / 4,
        "the shutdown waited for a head that does not come: {took:?}"
    );
    assert!(raw.is_closed());
}

/// On some systems, a reset discards bytes that the peer has received and not read yet.
#[test]
fn after_the_last_answer_the_connection_is_closed_without_a_reset() {
    let server = handled_by(config(), |request| match request.path() {
        "/panic" => panic!("on purpose, for the test"),
        _ => path(request),
    });
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut raw = Raw::connect(server.local_addr());
        let more = "GET /more HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3000);
        raw.send([request, &more].concat());
        let mut bytes = Vec::new();
        let outcome = raw.socket.read_to_end(&mut bytes);
        assert!(
            outcome.is_ok(),
            "{request:?}: {outcome:?} after {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn an_answer_that_keeps_the_connection_open_names_the_idle_timeout() {
    let limits = Config {
        idle_timeout: Duration::from_secs(7),
        ..config()
    };
    let server = server(limits);
    #[rustfmt::skip]
    let rows = [
        ("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Some("timeout=7")),
        ("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", Some("timeout=7")),
        ("OPTIONS /events HTTP/1.1\r\nHost: localhost\r\n\r\n", Some("timeout=7")),
        ("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("timeout=7")),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", None),
        ("GET /health HTTP/1.0\r\n\r\n", None),
        ("GET /health HTTP/2.0\r\n\r\n", None),
        // A stream has no idle timeout.
        ("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", None),
        ("HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n", None),
    ];
    for (request, expected) in rows {
        let mut raw = Raw::connect(server.local_addr());
        let head = raw.send(request).head();
        assert_eq!(head.field("keep-alive"), expected, "{request:?}");
    }
    // A timeout below one second is not announced, because the field has whole seconds.
    let quick = crate::kit::server(Config {
        idle_timeout: SHORT,
        ..config()
    });
    let mut raw = Raw::connect(quick.local_addr());
    let head = raw
        .send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .answer();
    assert_eq!(head.field("connection"), Some("keep-alive"));
    assert_eq!(head.field("keep-alive"), None);
}

#[test]
fn every_answer_to_connection_close_says_close() {
    let server = server(config());
    for target in ["/health", "/nowhere", "/", "/poll", "/stats", "/events"] {
        for method in ["GET", "HEAD", "OPTIONS", "PUT"] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ));
            let head = raw.head();
            let close = head.field("connection");
            assert_eq!(close, Some("close"), "{method} {target}: {head:?}");
        }
    }
    // A stream that says `close` is chunked too, and ends with the last chunk.
    let mut stream = Stream::open(
        server.local_addr(),
        "/events?client_id=me",
        "Connection: close\r\n",
    );
    assert_eq!(stream.head.field("connection"), Some("close"));
    assert_eq!(stream.head.field("transfer-encoding"), Some("chunked"));
    eventually("the client is registered", || server.hub().clients() == 1);
    crate::kit::request(server.local_addr(), "DELETE", "/clients/me", "", "");
    while stream.try_next().is_some() {}
    assert!(stream.has_ended, "the last chunk is missing");
    assert!(stream.raw.is_closed());
}

#[test]
fn a_post_or_delete_without_a_length_has_no_body() {
    let server = server(config());
    let mut raw = Raw::connect(server.local_addr());
    for (start, status) in [
        ("POST /events", 200),
        ("POST /events/topic", 200),
        ("POST /clients/nobody", 404),
        ("DELETE /clients/nobody", 404),
        ("PUT /events", 405),
        ("PATCH /events", 405),
        ("POST /send", 400),
    ] {
        raw.send(format!("{start} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = raw.answer();
        assert_eq!(answer.status, status, "{start}: {answer:?}");
    }
    assert_eq!(total_events(&server), 2);
}

/// Causes reports of several kinds: a malformed request, a panic, a refused origin, and a
/// client that joins and leaves.
fn cause_reports(server: &Running) {
    for bytes in [
        "nonsense\r\n\r\n",
        "GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /events HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nContent-Length: 1\r\n\r\nx",
    ] {
        let mut raw = Raw::connect(server.local_addr());
        assert!(raw.send(bytes).answer().status >= 400, "{bytes:?}");
    }
    let stream = Stream::subscribe(server.local_addr(), "/events");
    drop(stream);
    eventually("the client is removed", || server.hub().clients() == 0);
}

#[test]
fn a_report_callback_that_panics_does_not_stop_the_server() {
    let was_called = Arc::new(AtomicBool::new(false));
    let collected = Arc::clone(&was_called);
    let config = Config {
        report: Report::new(move |_, line| {
            collected.store(true, Ordering::SeqCst);
            panic!("on purpose, for the test: {line}");
        }),
        max_clients: 2,
        extra_connections: 1,
        heartbeat: Duration::from_millis(20),
        ..config()
    };
    let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
    let server = bound
        .spawn_with(|request, api| match request.path() {
            "/panic" => panic!("on purpose, for the test"),
            _ => api.answer(request),
        })
        .expect("threads");
    for _ in 0..10 {
        cause_reports(&server);
    }
    assert!(was_called.load(Ordering::SeqCst));
    assert_eq!(get(server.local_addr(), "/health").status, 200);
    let start = Instant::now();
    server.shutdown();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "the shutdown hung"
    );
}

#[test]
fn a_peer_that_goes_on_sending_after_its_answer_does_not_delay_a_shutdown() {
    let server = server(Config {
        grace: crate::kit::DEADLINE,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    raw.send("nonsense\r\n\r\n");
    assert_eq!(raw.answer().status, 400);
    let (is_over, over) = channel::<()>();
    let sender = std::thread::spawn(move || {
        // Best effort: at some time the server closes.
        while over.recv_timeout(SHORT / 10).is_err() {
            let _ = raw.socket.write(b"x");
        }
    });
    let start = Instant::now();
    server.shutdown();
    let took = start.elapsed();
    is_over.send(()).unwrap();
    sender.join().unwrap();
    assert!(took < crate::kit::DEADLINE / 4, "{took:?}");
}

// ---- listeners

#[test]
fn a_shutdown_leaves_an_inherited_listener_open_for_other_processes() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        // A machine without IPv6 skips two rows.
        let Ok(listener) = TcpListener::bind(address) else {
            continue;
        };
        let other = listener.try_clone().expect("a descriptor");
        for _ in 0..3 {
            let own = listener.try_clone().expect("a descriptor");
            let bound = Server::from_listener(own, config()).expect("a server");
            let server = bound.spawn().expect("threads");
            let port = server.local_addr().port();
            let reachable = match server.local_addr().is_ipv4() {
                true => std::net::SocketAddr::from(([127, 0, 0, 1], port)),
                false => std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
            };
            assert_eq!(get(reachable, "/health").status, 200, "{address}");
            let start = Instant::now();
            server.shutdown();
            let took = start.elapsed();
            assert!(took < Duration::from_secs(1), "{address}: {took:?}");
            // The connections by which the server woke itself may still be in the
            // listener's queue.
            let mine = TcpStream::connect(reachable).expect("the listener is still open");
            let me = mine.local_addr().unwrap();
            while other.accept().expect("a connection").1 != me {}
        }
    }
}

/// The other processes of an inherited listener may accept the connections by which the
/// server wakes itself.
#[test]
fn a_shutdown_ends_although_other_holders_of_the_listener_accept_connections() {
    const OTHERS: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().unwrap();
    // Each thread accepts connections and sends the byte that it receives back, until
    // that byte is `!`.
    let accept = |other: TcpListener| {
        loop {
            let (mut socket, _) = other.accept().expect("the listener stays open");
            let mut byte = [0];
            if socket.read(&mut byte).is_ok_and(|count| count == 1) {
                let _ = socket.write_all(&byte);
                if byte == *b"!" {
                    break;
                }
            }
        }
    };
    let others: Vec<_> = (0..OTHERS)
        .map(|_| listener.try_clone().expect("a descriptor"))
        .map(|other| std::thread::spawn(move || accept(other)))
        .collect();
    let send_and_receive = |byte: &[u8]| {
        let mut socket = TcpStream::connect(address).expect("the listener is still open");
        socket.write_all(byte).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap(), 1);
    };
    // The system decides which holder gets a connection, so there are ten tries.
    for _ in 0..10 {
        (0..OTHERS).for_each(|_| send_and_receive(b"?"));
        let own = listener.try_clone().expect("a descriptor");
        let server = Server::from_listener(own, config()).unwrap();
        let server = server.spawn().expect("threads");
        let start = Instant::now();
        server.shutdown();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    (0..OTHERS).for_each(|_| send_and_receive(b"!"));
    for other in others {
        other
            .join()
            .expect("the listener of this thread was shut down");
    }
}

#[test]
fn a_nonblocking_listener_is_made_blocking() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).unwrap();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let collected = Arc::clone(&lines);
    let report = Report::new(move |_, line| collected.lock().unwrap().push(line.to_string()));
    let bound = Server::from_listener(listener, Config { report, ..config() });
    let server = bound.expect("a server").spawn().expect("threads");
    for _ in 0..3 {
        assert_eq!(get(server.local_addr(), "/health").status, 200);
    }
    server.shutdown();
    let lines = lines.lock().unwrap();
    let failed = lines.iter().any(|line| line.contains("cannot accept"));
    assert!(!failed, "{lines:?}");
}
