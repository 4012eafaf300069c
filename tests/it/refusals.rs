//! Requests that are refused: the client gets the whole answer even if it sends more
//! bytes than the server reads, and neither answer nor log shows a secret from the
//! request.

use std::io::{Read, Write};
use std::iter;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::{Raw, config, eventually, get};
use crate::program::{all_lines, serve};

/// The secret in the requests. No answer and no line in the log may contain it.
const SECRET: &str = "hunter2";

#[cfg_attr(not(feature = "access"), ignore = "needs the options of access")]
#[test]
fn a_secret_in_a_refused_request_is_neither_in_the_answer_nor_in_the_log() {
    let mut serving = serve(&["--log", "debug", "--publish-token", "another"]);
    let get = |fields: &str| format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    let target = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let chunked = "POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer another\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(config().max_head);
    #[rustfmt::skip]
    let rows = [
        ("space before the colon", 400, get("Authorization : Bearer hunter2")),
        ("a space in the name", 400, get("Authorization Bearer hunter2: x")),
        ("no colon", 400, get("Authorization=Bearer hunter2")),
        ("no name", 400, get(": Bearer hunter2")),
        ("folded", 400, get("Authorization: Bearer\r\n hunter2")),
        ("folded, with a colon", 400, get("Cookie: a=b;\r\n\ttoken=hunter2; c=d:e")),
        ("a control character after it", 400, get("Authorization: Bearer hunter2\x07")),
        ("a NUL before it", 400, get("Cookie: a=\0; token=hunter2")),
        ("a bare CR", 400, get("Authorization: Bearer\rhunter2")),
        ("a bare LF", 400, get("X: y\nAuthorization: Bearer hunter2")),
        ("a password for the host", 400, "GET / HTTP/1.1\r\nHost: me:hunter2@a\r\n\r\n".into()),
        ("a password in the target", 400, target("http://me:hunter2@a/")),
        ("a password in another form of target", 400, target("me:hunter2@a")),
        ("after a bad percent", 400, target("/events/%zz?token=hunter2")),
        ("after a path that is not UTF-8", 400, target("/events/%ff?token=hunter2")),
        ("after a NUL in the path", 400, target("/events/%00?token=hunter2")),
        ("a fragment", 400, target("/events#token=hunter2")),
        ("a dot segment", 400, target("/hunter2/../events")),
        ("no version", 400, "GET /events?token=hunter2\r\n\r\n".into()),
        ("a space in the target", 400, target("/events?token=hunter2 &a=b")),
        ("an invalid version", 400, "GET /events HTTP/hunter2\r\n\r\n".into()),
        ("a version that is not supported", 505, "GET /events?token=hunter2 HTTP/2.0\r\n\r\n".into()),
        ("too long a target", 414, target(&format!("/events?token=hunter2&{long}"))),
        ("too large a head", 431, get(&format!("Authorization: Bearer hunter2{long}"))),
        ("an extension", 400, format!("{chunked}5;hunter2\nhello")),
        ("a trailer", 400, format!("{chunked}0\r\nAuthorization : Bearer hunter2\r\n\r\n")),
        ("the right place, an unknown token", 401, "POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hunter2\r\nContent-Length: 0\r\n\r\n".into()),
        ("in the query of an unknown path", 404, target("/nowhere?token=hunter2")),
        ("a body without a length", 401, "POST /events HTTP/1.1\r\nHost: localhost\r\n\r\nhunter2".into()),
    ];
    #[rustfmt::skip]
    let not_logged = [
        ("after a bad parameter", 400, target("/events?topic=%zz&token=hunter2")),
        ("before a bad percent", 400, target("/events?token=hunter2%")),
        ("not UTF-8", 400, target("/events?token=hunter2%ff")),
        ("a NUL in the query", 400, target("/events?token=%00hunter2")),
    ];
    for (name, status, bytes) in rows.iter().chain(&not_logged) {
        assert!(bytes.contains(SECRET), "{name}");
        let mut raw = Raw::connect(serving.address);
        raw.send(bytes);
        let answer = raw.answer();
        assert_eq!(answer.status, *status, "{name}: {answer:?}");
        let all = format!("{}{}", answer.head, answer.text());
        assert!(!all.contains(SECRET), "{name}: {all}");
    }
    // Each refused request has a line in the log. Otherwise the check for the secret
    // would prove nothing.
    serving.process.signal("TERM");
    let log = all_lines(&serving.process.err);
    assert_eq!(serving.process.exit_code(), Some(0));
    let logged = log.iter().filter(|line| line.contains("127.0.0.1"));
    let refused = rows.iter().filter(|row| !matches!(row.1, 401 | 404));
    assert!(logged.count() >= refused.count(), "{log:#?}");
    for line in log {
        assert!(!line.contains(SECRET), "{line}");
    }
}

#[test]
fn bytes_that_begin_like_a_request_are_not_reported_as_another_protocol() {
    let server = crate::kit::server(config());
    for (bytes, expected) in [
        ("\nGET / HTTP/1.1\r\n", "CRLF"),
        (" GET / HTTP/1.1\r\n", "request line"),
        ("\x16\x03\x01", "TLS"),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        let answer = raw.send(bytes).answer();
        assert!(answer.text().contains(expected), "{bytes:?}: {answer:?}");
    }
}

#[test]
fn the_refusal_of_an_invalid_field_has_the_name_or_the_number_of_the_field() {
    let server = crate::kit::server(config());
    #[rustfmt::skip]
    let rows = [
        ("Authorization: a\x07", "the value of Authorization"),
        ("Authorization : a", "number 2 "),
        ("X: y\r\nAuthorization a", "number 3 has no colon"),
        ("X: y\r\n folded", "number 3 "),
        ("Host: me:hunter2@a", "Host"),
    ];
    for (fields, expected) in rows {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"
        ));
        let answer = raw.answer();
        assert!(answer.text().contains(expected), "{fields:?}: {answer:?}");
    }
}

/// Sends `head` and `more` further bytes, then reads to the end of the connection and
/// returns all that came. The end must not be a reset: a reset can discard an answer that
/// has arrived and is not read yet.
#[track_caller]
fn sent_and_then_read(address: SocketAddr, what: &str, head: &[u8], more: usize) -> String {
    let mut raw = Raw::connect(address);
    let more = vec![b'x'; more];
    for piece in iter::once(head).chain(more.chunks(64 * 1024)) {
        let sent = raw.socket.write_all(piece);
        assert!(sent.is_ok(), "{what}: {sent:?} while sending");
    }
    let mut bytes = Vec::new();
    let end = raw.socket.read_to_end(&mut bytes);
    assert!(end.is_ok(), "{what}: {end:?} after {} bytes", bytes.len());
    String::from_utf8(bytes).expect("the answer is UTF-8")
}

#[test]
fn a_refusal_arrives_whole_at_a_client_that_sends_2_mib_before_it_reads() {
    let server = crate::kit::server(config());
    let limits = config();
    let post =
        |fields: &str| format!("POST /events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    let chunks = |body: &str| format!("{}{body}", post("Transfer-Encoding: chunked"));
    #[rustfmt::skip]
    let rows = [
        ("no request line", 400, "GET /events\r\n".into()),
        ("not HTTP", 400, "\x16\x03\x01".into()),
        ("a field without a colon", 400, "GET / HTTP/1.1\r\nHost: localhost\r\nX\r\n".into()),
        ("a space before a colon", 400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n".into()),
        ("no Host", 400, "GET / HTTP/1.1\r\n\r\n".into()),
        ("a bare LF", 400, "GET / HTTP/1.1\nHost: localhost\r\n\r\n".into()),
        ("a bad target", 400, "GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n".into()),
        ("two lengths", 400, post("Content-Length: 5, 6")),
        ("a length and chunks", 400, post("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        ("chunked twice", 400, post("Transfer-Encoding: chunked, chunked")),
        ("an invalid chunk", 400, chunks("x\r\n")),
        ("too long a chunk", 400, chunks("1\r\n")),
        ("a bare LF after a size", 400, chunks("1\n")),
        ("a bad trailer", 400, chunks("0\r\nX : y\r\n")),
        ("a wrong method", 405, "PUT /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n".into()),
        ("an unknown path", 404, "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n".into()),
        ("too long a body", 413, post("Content-Length: 2097152")),
        ("a chunk longer than the largest body", 413, chunks("200000\r\n")),
        ("too long a body in chunks", 413, chunks(&format!("80000\r\n{}\r\n80001\r\n", "x".repeat(0x80000)))),
        ("too long a target", 414, format!("GET /{} HTTP/1.1\r\n", "x".repeat(limits.max_target))),
        ("an unknown expectation", 417, post("Content-Length: 1048576\r\nExpect: miracles")),
        ("too large a head", 431, format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(limits.max_head))),
        ("too many fields", 431, format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(limits.max_fields + 1))),
        ("too large a trailer", 431, chunks(&format!("0\r\nX: {}", "x".repeat(limits.max_head)))),
        ("an unknown coding", 501, post("Transfer-Encoding: gzip, chunked")),
        ("an unsupported version", 505, "GET / HTTP/2.0\r\n\r\n".into()),
        ("a connection of HTTP/1.0", 404, "GET /nowhere HTTP/1.0\r\n\r\n".into()),
    ];
    for (what, status, head) in &rows {
        let head: &str = head;
        for more in [1 << 20, 2 << 20] {
            let text = sent_and_then_read(server.local_addr(), what, head.as_bytes(), more);
            let (answer, body) = text
                .split_once("\r\n\r\n")
                .unwrap_or_else(|| panic!("{what}"));
            let start = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&start), "{what}: {text}");
            assert!(
                answer.contains("\r\nConnection: close\r\n"),
                "{what}: {text}"
            );
            let length = format!("\r\nContent-Length: {}", body.len());
            assert!(answer.contains(&length), "{what}: {text}");
            assert!(
                body.starts_with(r#"{"status":"error","error":""#),
                "{what}: {text}"
            );
        }
    }
}

/// The client uploads over a slow line, and reads the answer only after the upload.
#[test]
#[ignore = "takes 3 s"]
fn the_server_reads_on_after_a_refusal_while_a_slow_client_still_sends() {
    let server = crate::kit::server(config());
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        // Another request paces the loop: one round trip for each 8 bytes.
        get(server.local_addr(), "/health");
        let sent = raw.socket.write_all(&[b'x'; 8]);
        assert!(sent.is_ok(), "{sent:?} after {:?}", start.elapsed());
    }
    assert_eq!(raw.answer().status, 413);
    assert!(raw.is_closed());
}

/// One connection sends many requests without the right to them; many connections send
/// invalid requests.
#[cfg_attr(not(feature = "access"), ignore = "needs the options of access")]
#[test]
fn many_similar_refusals_have_few_lines_in_the_log_and_the_others_are_counted() {
    const MANY: usize = 3_000;
    let serving = serve(&["--log", "debug", "--publish-token", "another"]);
    let path = "p".repeat(4_000);
    let request = format!("POST /clients/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut raw = Raw::connect(serving.address);
    for _ in 0..MANY / 100 {
        raw.send(request.repeat(100));
        for _ in 0..100 {
            assert_eq!(raw.answer().status, 401);
        }
    }
    for _ in 0..MANY / 3 {
        let mut raw = Raw::connect(serving.address);
        assert_eq!(raw.send("nonsense\r\n\r\n").answer().status, 400);
    }
    // The next line of the same kind has the number of lines that were left out.
    let mut log = Vec::new();
    eventually("the number of omitted lines is in the log", || {
        let mut raw = Raw::connect(serving.address);
        assert_eq!(raw.send(&request).answer().status, 401);
        log.extend(serving.process.err.try_iter());
        log.iter().any(|line| line.contains(" more like it"))
    });
    serving.process.signal("TERM");
    log.extend(all_lines(&serving.process.err));
    let about = |status: &str| log.iter().filter(|line| line.contains(status)).count();
    assert!((1..100).contains(&about(": 401 to")), "{}", about("401"));
    assert!((1..700).contains(&about(": 400 ")), "{}", about("400"));
    let longest = log.iter().map(String::len).max();
    assert!(longest < Some(500), "{longest:?}");
}

#[test]
fn a_refusal_quotes_only_the_beginning_of_a_long_part_of_the_request() {
    let server = crate::kit::server(config());
    let long = "x".repeat(8_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("{long} /events HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{long}: \x07\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nExpect: {long}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {long}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {long}\r\n\r\n"),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        let answer = raw.send(&request).answer();
        assert!(answer.status >= 400, "{answer:?}");
        assert!(
            answer.text().contains("xxxx") && answer.body.len() < 400,
            "{answer:?}"
        );
    }
}
