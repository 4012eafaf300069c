//! What comes of a request that is refused: an answer that arrives whatever else the client sends,
//! and a line in the log that gives nothing away.

use crate::kit::{Raw, config};
use crate::program::{all, serve};

/// What must never be seen again.
const SECRET: &str = "hunter2";

#[test]
fn a_secret_in_the_wrong_place_is_neither_answered_nor_logged() {
    let mut serving = serve(&["--log", "debug"]);
    let get = |fields: &str| format!("GET /events HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let target = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let chunked = "POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
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
        ("behind a bad percent", 400, target("/events?a=%zz&token=hunter2")),
        ("before a bad percent", 400, target("/events?token=hunter2%")),
        ("not UTF-8", 400, target("/events?token=hunter2%ff")),
        ("a NUL in the query", 400, target("/events?token=%00hunter2")),
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
        ("a body without a length", 411, "POST /events HTTP/1.1\r\nHost: a\r\n\r\nhunter2".into()),
    ];
    for (place, status, bytes) in &rows {
        assert!(bytes.contains(SECRET), "{place}");
        let mut raw = Raw::connect(serving.address);
        raw.send(bytes);
        let answer = raw.answer();
        assert_eq!(answer.status, *status, "{place}: {answer:?}");
        let all = format!("{}{}", answer.head, answer.text());
        assert!(!all.contains(SECRET), "{place}: {all}");
    }
    // Each is logged, so that what the log does not have it was not spared.
    serving.process.signal("TERM");
    let log = all(&serving.process.err);
    assert_eq!(serving.process.exit_code(), Some(0));
    let refused = log.iter().filter(|line| line.contains("127.0.0.1"));
    assert!(refused.count() >= rows.len(), "{log:#?}");
    for line in log {
        assert!(!line.contains(SECRET), "{line}");
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
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        let answer = raw.answer();
        assert!(answer.text().contains(expected), "{fields:?}: {answer:?}");
    }
}
