//! What comes of a request that is refused: an answer that arrives whatever else the client sends,
//! and a line in the log that gives nothing away.

use std::io::{Read, Write};
use std::iter;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::{Raw, config, eventually, get};
use crate::program::{all, serve};

/// What must never be seen again.
const SECRET: &str = "hunter2";

#[cfg_attr(not(feature = "access"), ignore = "needs the options of access")]
#[test]
fn a_secret_in_the_wrong_place_is_neither_answered_nor_logged() {
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
        ("a control character behind it", 400, get("Authorization: Bearer hunter2\x07")),
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
        ("a version of its own", 400, "GET /events HTTP/hunter2\r\n\r\n".into()),
        ("a version that is not spoken", 505, "GET /events?token=hunter2 HTTP/2.0\r\n\r\n".into()),
        ("too long a target", 414, target(&format!("/events?token=hunter2&{long}"))),
        ("too large a head", 431, get(&format!("Authorization: Bearer hunter2{long}"))),
        ("an extension", 400, format!("{chunked}5;hunter2\nhello")),
        ("a trailer", 400, format!("{chunked}0\r\nAuthorization : Bearer hunter2\r\n\r\n")),
        ("in its place, and unknown", 401, "POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hunter2\r\nContent-Length: 0\r\n\r\n".into()),
        ("in the query, where nothing is", 404, target("/nowhere?token=hunter2")),
        ("a body without a length", 401, "POST /events HTTP/1.1\r\nHost: localhost\r\n\r\nhunter2".into()),
    ];
    #[rustfmt::skip]
    let answered = [
        ("after a bad parameter", 400, target("/events?topic=%zz&token=hunter2")),
        ("before a bad percent", 400, target("/events?token=hunter2%")),
        ("not UTF-8", 400, target("/events?token=hunter2%ff")),
        ("a NUL in the query", 400, target("/events?token=%00hunter2")),
    ];
    for (place, status, bytes) in rows.iter().chain(&answered) {
        assert!(bytes.contains(SECRET), "{place}");
        let mut raw = Raw::connect(serving.address);
        raw.send(bytes);
        let answer = raw.answer();
        assert_eq!(answer.status, *status, "{place}: {answer:?}");
        let all = format!("{}{}", answer.head, answer.text());
        assert!(!all.contains(SECRET), "{place}: {all}");
    }
    // Each has its line in the log, so that silence about the secret means something.
    serving.process.signal("TERM");
    let log = all(&serving.process.err);
    assert_eq!(serving.process.exit_code(), Some(0));
    let logged = log.iter().filter(|line| line.contains("127.0.0.1"));
    let refused = rows.iter().filter(|row| !matches!(row.1, 401 | 404));
    assert!(logged.count() >= refused.count(), "{log:#?}");
    for line in log {
        assert!(!line.contains(SECRET), "{line}");
    }
}

#[test]
fn what_is_nearly_a_request_is_not_taken_for_another_protocol() {
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
fn a_bad_field_is_named_or_numbered_so_that_it_can_be_found() {
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

/// Sends all of it, reads only then, and answers what came, which must end in an end and not in a
/// reset: that may take what has arrived away from who has not read it.
#[track_caller]
fn sent_and_then_read(address: SocketAddr, what: &str, head: &[u8], behind: usize) -> String {
    let mut raw = Raw::connect(address);
    let behind = vec![b'x'; behind];
    for piece in iter::once(head).chain(behind.chunks(64 * 1024)) {
        let sent = raw.socket.write_all(piece);
        assert!(sent.is_ok(), "{what}: {sent:?} while it was sent");
    }
    let mut bytes = Vec::new();
    let end = raw.socket.read_to_end(&mut bytes);
    assert!(end.is_ok(), "{what}: {end:?} after {} bytes", bytes.len());
    String::from_utf8(bytes).expect("an answer of text")
}

#[test]
fn a_refusal_arrives_whole_however_much_is_sent_before_it_is_read() {
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
        ("no chunk", 400, chunks("x\r\n")),
        ("too long a chunk", 400, chunks("1\r\n")),
        ("a bare LF behind a size", 400, chunks("1\n")),
        ("a bad trailer", 400, chunks("0\r\nX : y\r\n")),
        ("a wrong method", 405, "PUT /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n".into()),
        ("nothing there", 404, "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n".into()),
        ("too long a body", 413, post("Content-Length: 2097152")),
        ("too long a chunk for any body", 413, chunks("200000\r\n")),
        ("too long a body in chunks", 413, chunks(&format!("80000\r\n{}\r\n80001\r\n", "x".repeat(0x80000)))),
        ("too long a target", 414, format!("GET /{} HTTP/1.1\r\n", "x".repeat(limits.max_target))),
        ("a miracle", 417, post("Content-Length: 1048576\r\nExpect: miracles")),
        ("too large a head", 431, format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(limits.max_head))),
        ("too many fields", 431, format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(limits.max_fields + 1))),
        ("too large a trailer", 431, chunks(&format!("0\r\nX: {}", "x".repeat(limits.max_head)))),
        ("a coding", 501, post("Transfer-Encoding: gzip, chunked")),
        ("another version", 505, "GET / HTTP/2.0\r\n\r\n".into()),
        ("an answer that is the last", 404, "GET /nowhere HTTP/1.0\r\n\r\n".into()),
    ];
    for (what, status, head) in &rows {
        let head: &str = head;
        for behind in [1 << 20, 2 << 20] {
            let text = sent_and_then_read(server.local_addr(), what, head.as_bytes(), behind);
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

/// Who uploads over a slow line, and reads when it has uploaded.
#[test]
#[ignore = "goes on for three seconds"]
fn a_refusal_waits_for_a_client_that_is_slow_to_send() {
    let server = crate::kit::server(config());
    let mut raw = Raw::connect(server.local_addr());
    raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        // As fast as another request goes there and back.
        get(server.local_addr(), "/health");
        let sent = raw.socket.write_all(&[b'x'; 8]);
        assert!(sent.is_ok(), "{sent:?} after {:?}", start.elapsed());
    }
    assert_eq!(raw.answer().status, 413);
    assert!(raw.is_closed());
}

/// One connection asks again and again for what it has no right to; many send what is no request.
#[cfg_attr(not(feature = "access"), ignore = "needs the options of access")]
#[test]
fn refusals_are_counted_and_not_logged_one_by_one() {
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
    // The next line of a kind says how many were left out.
    let mut log = Vec::new();
    eventually("told", || {
        let mut raw = Raw::connect(serving.address);
        assert_eq!(raw.send(&request).answer().status, 401);
        log.extend(serving.process.err.try_iter());
        log.iter().any(|line| line.contains(" more like it"))
    });
    serving.process.signal("TERM");
    log.extend(all(&serving.process.err));
    let about = |status: &str| log.iter().filter(|line| line.contains(status)).count();
    assert!((1..100).contains(&about(": 401 to")), "{}", about("401"));
    assert!((1..700).contains(&about(": 400 ")), "{}", about("400"));
    let longest = log.iter().map(String::len).max();
    assert!(longest < Some(500), "{longest:?}");
}

#[test]
fn what_is_quoted_of_a_request_is_cut() {
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
