//! The life of a connection around its requests: answers in order, deadlines, panics, a full
//! house, and the end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiny_sse::http::{Request, Response};
use tiny_sse::{Config, Report, Running, Server};

use crate::kit::{Raw, Stream, config, eventually, get, number_after, post, server};

/// Long enough for a busy machine to send two bytes within it, short enough to wait for.
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

/// Answers the path.
fn path(request: &Request) -> Response {
    Response::text(200, request.path())
}

#[test]
fn a_path_falls_into_the_segments_between_its_slashes() {
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
fn a_field_value_with_a_control_character_is_a_500_and_never_sent() {
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
fn requests_that_come_together_are_answered_in_order() {
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
fn nothing_behind_a_close_a_refusal_or_a_stream_is_executed() {
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
    eventually("registered", || server.hub().clients() == 1);
    crate::kit::request(server.local_addr(), "DELETE", "/clients/me", "", "");
    raw.rest();
    assert_eq!(total_events(&server), 0, "behind a stream");
}

/// Each hides `POST /events` with the body `x` from one of two readers who differ about the rule
/// that is named. Whoever reads it as this server must is either told no, or sees only data.
#[test]
fn a_request_hidden_in_another_is_not_executed() {
    const HIDDEN: &str = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let server = server(config());
    let size = HIDDEN.len();
    let with = |fields: &str, body: &str| {
        // To an endpoint that has a use for a body, and no right of anybody's to be asked for.
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
        ("TERM.SPILL, a bare LF behind data", 400, with(chunked, &format!("1\r\nx\n0\r\n\r\n{HIDDEN}"))),
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
        // These are plain data to everybody who reads as the RFC says.
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
    // The same request in the open does what it says, so the zeros above mean something.
    let mut raw = Raw::connect(server.local_addr());
    raw.send(HIDDEN);
    assert_eq!((raw.answer().status, total_events(&server)), (200, 1));
}

#[test]
fn head_is_answered_as_get_is_but_without_the_body() {
    let server = server(config());
    let mut raw = Raw::connect(server.local_addr());
    let long = format!("/{}", "t".repeat(config().max_target));
    for path in [
        "/",
        "/health",
        "/nowhere",
        // Refused before they get anywhere: 400 and 414.
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
    // What is refused, or has a body that is not read.
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
fn the_host_of_a_whole_url_is_the_one_that_is_asked_for() {
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
    // It is also the one that a page must be of.
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
fn an_answer_that_has_no_body_has_none_though_its_handler_gave_it_one() {
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
        assert_eq!(next.text(), "/next", "behind a {status}");
    }
}

#[test]
fn a_client_that_expects_it_is_told_to_continue_and_then_answered() {
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
    // What is not wanted is refused before it is sent: no 100 in between.
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n");
    let answer = raw.answer();
    assert_eq!(
        (answer.status, answer.field("connection")),
        (413, Some("close"))
    );
    assert!(raw.is_closed());
    // HTTP/1.0 knows no interim answers.
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /events HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(raw.send("hello").answer().status, 200);
}

/// The first bytes, what then dribbles in, and what is late.
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
fn a_request_that_does_not_end_in_time_is_a_408_also_when_it_dribbles_in() {
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
                // An answer that has come ends it; each wait for one is a pause between two bytes.
                raw.socket.set_read_timeout(Some(SHORT / 10)).unwrap();
                while nothing_came(&raw.socket) {
                    assert!(
                        begun.elapsed() < crate::kit::DEADLINE,
                        "{start:?} goes on for ever"
                    );
                    // Once the answer is on its way, the server may not want it.
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
fn a_connection_with_nothing_to_say_is_closed_in_silence() {
    let server = server(Config {
        head_timeout: SHORT,
        idle_timeout: SHORT,
        ..config()
    });
    let mut fresh = Raw::connect(server.local_addr());
    let mut used = Raw::connect(server.local_addr());
    used.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(used.answer().status, 200);
    assert!(used.is_closed(), "an idle connection was told something");
    assert!(
        fresh.is_closed(),
        "a connection that never spoke was told something"
    );
}

#[test]
fn each_request_of_a_connection_has_the_whole_time() {
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
fn a_handler_that_panics_is_a_500_and_the_end_of_that_connection_only() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&lines);
    let report = Report::new(move |_, line| heard.lock().unwrap().push(line.to_string()));
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
        assert!(raw.is_closed(), "it goes on");
    }
    neighbour.send("GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(neighbour.answer().text(), "/after");
    assert_eq!(get(server.local_addr(), "/new").text(), "/new");
    let lines = lines.lock().unwrap();
    let told = lines.iter().filter(|line| line.contains("GET /panic"));
    assert_eq!(told.count(), 3, "{lines:?}");
}

#[test]
fn a_full_house_says_503_and_when_to_come_back_and_places_come_back() {
    let (server, has_begun, go) = gated(Config {
        max_clients: 1,
        extra_connections: 2,
        ..config()
    });
    // Each is being answered: a connection that waits would be evicted.
    let mut inside: Vec<_> = (0..3).map(|_| Raw::connect(server.local_addr())).collect();
    for raw in &mut inside {
        raw.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        has_begun.recv().unwrap();
    }
    for says_something in [false, true] {
        let mut outside = Raw::connect(server.local_addr());
        if says_something {
            // Best effort: it may have been answered and closed already.
            let _ = outside
                .socket
                .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let answer = outside.answer();
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
        assert!(outside.is_closed());
    }
    go.send(()).unwrap();
    eventually("let in", || {
        let mut raw = Raw::connect(server.local_addr());
        let _ = raw
            .socket
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        raw.answer().status == 200
    });
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    for raw in &mut inside {
        assert_eq!(raw.answer().status, 200, "one that was inside before");
    }
}

#[test]
fn one_stream_too_many_is_a_503_on_a_connection_that_goes_on() {
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
        // It may be cut off in the middle of it: what counts is that the answer is there.
        let _ = raw.socket.write_all(&vec![b'x'; length]);
        let answer = raw.answer();
        assert_eq!(answer.status, 413, "{framing}");
        assert!(answer.text().contains("1048576"), "{}", answer.text());
    }
}

/// A handler that says that it has begun, and then waits until it may end.
fn gated(config: Config) -> (Running, Receiver<()>, Sender<()>) {
    let ((begun, has_begun), (go, may_go)) = (channel(), channel::<()>());
    let may_go = Mutex::new(may_go);
    let server = handled_by(config, move |request| {
        if request.path() == "/slow" {
            begun.send(()).expect("the test listens");
            // An error is the test's end, and as good as a word.
            let _ = may_go.lock().unwrap().recv();
        }
        path(request)
    });
    (server, has_begun, go)
}

#[test]
fn a_shutdown_lets_the_request_in_flight_finish_and_closes_who_is_idle() {
    let (server, has_begun, go) = gated(Config {
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
    assert!(idle.is_closed(), "an idle connection was told something");
    assert!(fresh.is_closed(), "a fresh connection was told something");
    assert!(
        !is_down.load(Ordering::SeqCst),
        "it did not wait for the request in flight"
    );
    go.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!(
        (answer.text(), answer.field("connection")),
        ("/slow", Some("close"))
    );
    assert!(
        busy.is_closed(),
        "a request behind the last one was answered"
    );
    closing.join().unwrap();
}

#[test]
fn a_shutdown_lets_a_request_that_has_begun_to_arrive_come_to_its_end() {
    let patient = Config {
        grace: crate::kit::DEADLINE,
        ..config()
    };
    let server = handled_by(patient, path);
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    // Says that the head has been read, so that the connection is not idle.
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
fn a_handler_that_is_stuck_does_not_keep_a_shutdown_beyond_the_grace() {
    let (server, has_begun, go) = gated(Config {
        grace: SHORT,
        ..config()
    });
    let mut stuck = Raw::connect(server.local_addr());
    stuck.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    has_begun.recv().unwrap();
    let start = Instant::now();
    server.shutdown();
    let took = start.elapsed();
    assert!(took >= SHORT, "the grace was not given: {took:?}");
    assert!(took < Duration::from_secs(10), "it hung: {took:?}");
    assert!(stuck.is_closed(), "its connection is still there");
    drop(go);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_request_leaves_no_trace() {
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
fn a_client_that_has_said_all_it_has_to_say_is_answered_all_the_same() {
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
fn a_line_at_its_limit_may_be_cut_between_cr_and_lf() {
    let server = server(config());
    let head = "POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let size_line = format!("{head}5;{}\r", "e".repeat(254));
    let trailer = format!("{head}0\r\nX: {}\r\n\r", "v".repeat(config().max_head - 5));
    for (start, rest) in [(size_line, "\nhello\r\n0\r\n\r\n"), (trailer, "\n")] {
        let mut whole = Raw::connect(server.local_addr());
        let expected = whole.send([&*start, rest].concat()).answer().status;
        let mut raw = Raw::connect(server.local_addr());
        raw.send(&start);
        // The CR must be read without what follows. Nothing tells when it has been, but for the
        // refusal that must not come.
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
            "cut after {end:?}, for whole it is {expected}"
        );
    }
}

#[test]
fn an_answer_that_says_close_is_followed_by_the_end() {
    let server = server(config());
    for request in [
        "HEAD /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HEAD /events HTTP/1.0\r\n\r\n",
        "HEAD /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(request);
        let says_close = raw.head().field("connection") == Some("close");
        // The second is answered if and only if the first did not say that it is the last.
        let _ = raw.socket.write_all(b"GET /health HTTP/1.0\r\n\r\n");
        assert_eq!(raw.rest().is_empty(), says_close, "{request:?}");
    }
}

#[test]
fn an_empty_line_behind_a_request_does_not_begin_the_next() {
    // SPEC: RFC 9112, 2.2: old clients send one behind the body of a POST.
    let post = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx\r\n";
    let server = server(Config {
        head_timeout: SHORT,
        idle_timeout: SHORT,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    assert_eq!(raw.send(post).answer().status, 200);
    let rest = String::from_utf8(raw.rest()).unwrap();
    assert_eq!(rest, "", "an idle connection was told something");
}

#[test]
fn an_empty_line_behind_a_request_does_not_hold_up_a_shutdown() {
    let server = server(Config {
        grace: crate::kit::DEADLINE,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx\r\n");
    assert_eq!(raw.answer().status, 200);
    // Time for the empty line to be read, of which nothing tells.
    raw.socket.set_read_timeout(Some(SHORT)).unwrap();
    assert!(nothing_came(&raw.socket));
    let start = Instant::now();
    server.shutdown();
    let took = start.elapsed();
    assert!(
        took < crate::kit::DEADLINE / 4,
        "it waited for the head of no request: {took:?}"
    );
    assert!(raw.is_closed());
}

/// A reset takes what the peer has not read yet away from it, on some systems and some paths.
#[test]
fn the_last_answer_is_followed_by_an_end_and_not_by_a_reset() {
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
fn an_answer_that_keeps_the_connection_says_for_how_long() {
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
    // The timeout is shorter than a second, and the field has whole seconds.
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
    // Such a stream has its chunks, and its last one.
    let mut stream = Stream::open(
        server.local_addr(),
        "/events?client_id=me",
        "Connection: close\r\n",
    );
    assert_eq!(stream.head.field("connection"), Some("close"));
    assert_eq!(stream.head.field("transfer-encoding"), Some("chunked"));
    eventually("registered", || server.hub().clients() == 1);
    crate::kit::request(server.local_addr(), "DELETE", "/clients/me", "", "");
    while stream.try_next().is_some() {}
    assert!(stream.has_ended, "without its last chunk");
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

/// Causes every line that may be reported.
fn provoke(server: &Running) {
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
    eventually("gone", || server.hub().clients() == 0);
}

#[test]
fn a_report_that_panics_ends_nothing_else() {
    let told = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&told);
    let config = Config {
        report: Report::new(move |_, line| {
            heard.store(true, Ordering::SeqCst);
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
        provoke(&server);
    }
    assert!(told.load(Ordering::SeqCst));
    assert_eq!(get(server.local_addr(), "/health").status, 200);
    let start = Instant::now();
    server.shutdown();
    assert!(start.elapsed() < Duration::from_secs(2), "it hung");
}

#[test]
fn a_peer_that_sends_on_after_its_answer_does_not_hold_up_a_shutdown() {
    let server = server(Config {
        grace: crate::kit::DEADLINE,
        ..config()
    });
    let mut raw = Raw::connect(server.local_addr());
    raw.send("nonsense\r\n\r\n");
    assert_eq!(raw.answer().status, 400);
    let (is_over, over) = channel::<()>();
    let sender = std::thread::spawn(move || {
        // Best effort, and at a pace: the server has closed at some time.
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
fn a_shutdown_leaves_an_inherited_listener_to_its_other_holders() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        // Where there is no IPv6, two rows are not tried.
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
            // The connections by which the server woke itself may be there still.
            let mine = TcpStream::connect(reachable).expect("a listener that is there");
            let me = mine.local_addr().unwrap();
            while other.accept().expect("a connection").1 != me {}
        }
    }
}

/// Other holders take the connections by which the server wakes itself.
#[test]
fn a_shutdown_ends_though_other_holders_accept() {
    const OTHERS: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().unwrap();
    // Each says back what it is told, until that is the end.
    let accept = |other: TcpListener| {
        loop {
            let (mut socket, _) = other.accept().expect("a listener that goes on");
            let mut word = [0];
            if socket.read(&mut word).is_ok_and(|count| count == 1) {
                let _ = socket.write_all(&word);
                if word == *b"!" {
                    break;
                }
            }
        }
    };
    let others: Vec<_> = (0..OTHERS)
        .map(|_| listener.try_clone().expect("a descriptor"))
        .map(|other| std::thread::spawn(move || accept(other)))
        .collect();
    let tell = |word: &[u8]| {
        let mut socket = TcpStream::connect(address).expect("a listener that is there");
        socket.write_all(word).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap(), 1);
    };
    // Which of them gets a connection is for the system to say, so there is more than one try.
    for _ in 0..10 {
        (0..OTHERS).for_each(|_| tell(b"?"));
        let own = listener.try_clone().expect("a descriptor");
        let server = Server::from_listener(own, config()).unwrap();
        let server = server.spawn().expect("threads");
        let start = Instant::now();
        server.shutdown();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    (0..OTHERS).for_each(|_| tell(b"!"));
    for other in others {
        other.join().expect("its listener was shut down");
    }
}

#[test]
fn a_listener_that_does_not_block_is_made_blocking() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).unwrap();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&lines);
    let report = Report::new(move |_, line| heard.lock().unwrap().push(line.to_string()));
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
