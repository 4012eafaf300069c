//! The six uses of `tiny-sse demo`, each over sockets as a page would have it.

use std::time::{Duration, Instant};

use tiny_sse::Message;

use crate::kit::{Answer, Raw, Stream, eventually, get, number_after, post, request, server};
use crate::program::{serve, up_to};

/// A million times `a`, of which FIPS 180-2, B.3, knows the hash.
fn million() -> (Vec<u8>, &'static str) {
    let hash = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    (vec![b'a'; 1_000_000], hash)
}

/// The text of a string member, found by its name.
#[track_caller]
fn text_after<'a>(json: &'a str, member: &str) -> &'a str {
    let key = format!("\"{member}\":\"");
    let behind = json.split_once(&key).map(|(_, behind)| behind);
    let text = behind.and_then(|behind| behind.split('"').next());
    text.unwrap_or_else(|| panic!("no {member} in {json}"))
}

#[track_caller]
fn assert_parts(message: &Message, name: &str, parts: &[&str]) {
    assert_eq!(message.name, name, "{message:?}");
    for part in parts {
        assert!(message.data.contains(part), "no {part} in {message:?}");
    }
}

#[cfg(feature = "console")]
#[test]
fn the_console_shows_the_tabs_of_the_six_uses_in_the_demo_alone() {
    let script = |arguments: &[&str], method: &str, fields: &str| {
        let program = serve(arguments);
        request(program.address, method, "/demo.js", fields, "")
    };
    let library = script(&[], "GET", "");
    assert!(!library.text().contains("add('demo')"), "{library:?}");
    let tag = format!("If-None-Match: {}\r\n", library.field("etag").unwrap());
    // A browser that has the library's script, from `tiny-sse serve` at the same address, gets the other one.
    for fields in ["", &tag] {
        let demo = script(&["demo"], "GET", fields);
        assert_eq!(demo.status, 200, "{fields}");
        assert!(demo.text().contains("classList.add('demo')"), "{demo:?}");
        assert_eq!(demo.field("cache-control"), Some("no-store"), "{fields}");
    }
    for (arguments, method, status) in [
        (&["demo"][..], "HEAD", 200),
        (&["demo"], "OPTIONS", 204),
        (&["demo"], "POST", 405),
        (&["demo", "--console=off"], "GET", 404),
    ] {
        let answer = script(arguments, method, "");
        assert_eq!(answer.status, status, "{arguments:?} {method}");
    }
}

// ---- those that speak by themselves

#[test]
fn each_speaks_as_soon_as_somebody_listens() {
    let program = serve(&["demo"]);
    for (path, name, parts) in [
        ("/api/metrics", "metrics", &["\"at\":\"2"][..]),
        (
            "/api/notifications",
            "alert",
            &[
                "\"level\":\"",
                "\"text\":\"",
                "\"at\":\"2",
                "\"simulated\":true",
            ],
        ),
        (
            "/api/feed/live",
            "post",
            &[
                "\"number\":1,",
                "\"author\":\"",
                "\"text\":\"",
                "\"simulated\":true",
            ],
        ),
        (
            "/api/stocks/stream",
            "price_update",
            &[
                "\"symbol\":\"TINY\"",
                "\"price\":",
                "\"change\":",
                "\"simulated\":true",
            ],
        ),
    ] {
        let start = Instant::now();
        let mut stream = Stream::subscribe(program.address, path);
        assert_parts(&stream.next(), name, parts);
        // The first turn is due after five seconds: this one was brought forward.
        let soon = start.elapsed() < Duration::from_secs(4);
        assert!(soon || path != "/api/metrics", "{:?}", start.elapsed());
        let origins = stream.head.head.matches("Access-Control-Allow-Origin: *");
        assert_eq!(origins.count(), 1, "{path}: {:?}", stream.head);
    }
}

#[test]
fn every_symbol_has_a_price_in_each_turn() {
    let program = serve(&["demo"]);
    let mut stream = Stream::subscribe(program.address, "/api/stocks/stream");
    for symbol in ["TINY", "CRAB", "WIRE", "HUBS"] {
        let price = stream.next();
        assert_eq!(text_after(&price.data, "symbol"), symbol, "{price:?}");
    }
    // One who comes later brings the next turn forward, for both.
    let mut later = Stream::subscribe(program.address, "/api/stocks/stream");
    assert_eq!(stream.next().data, later.next().data);
}

#[test]
fn nothing_is_published_that_nobody_listens_to() {
    let program = serve(&["demo"]);
    // A built-in endpoint brings no turn forward. When the feed has its own, the prices have had
    // theirs.
    let mut stream = Stream::subscribe(program.address, "/events?topic=demo/f*");
    assert_eq!(stream.next().name, "post");
    let stats = get(program.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"total_events\":"), 1);
}

#[test]
fn the_metrics_are_those_of_this_machine() {
    let program = serve(&["demo"]);
    let mut stream = Stream::subscribe(program.address, "/api/metrics");
    let metrics = stream.next();
    let Ok(meminfo) = std::fs::read_to_string("/proc/meminfo") else {
        return assert_parts(
            &metrics,
            "metrics",
            &["\"error\":\"/proc/loadavg cannot be read"],
        );
    };
    let total = number_after(&meminfo.replace(' ', ""), "MemTotal:") * 1024;
    assert_parts(
        &metrics,
        "metrics",
        &[
            &format!("\"memory\":{{\"total\":{total},\"available\":"),
            "\"load\":[",
            "\"network\":{\"received\":",
            "\"received_per_second\":",
            "\"sent_per_second\":",
        ],
    );
}

#[test]
fn a_notification_of_ones_own_is_an_alert_and_its_badge() {
    let program = serve(&["demo"]);
    let mut stream = Stream::subscribe(program.address, "/api/notifications");
    // Not at the same moment as the first of the script: their badges could change places.
    assert_eq!([stream.next().name, stream.next().name], ["alert", "badge"]);
    for (body, level, text) in [
        (r#"{"text":"hello"}"#, "info", r#""text":"hello""#),
        (
            r#"{"level":"error","text":"<b>\"ü\"</b>\n"}"#,
            "error",
            r#""text":"<b>\"ü\"</b>\n""#,
        ),
    ] {
        let answer = post(program.address, "/api/notifications", body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().ends_with("\"recipients\":1}\n"), "{answer:?}");
        let alert = loop {
            let alert = stream.next();
            if alert.data.contains("\"simulated\":false") {
                break alert;
            }
        };
        assert_parts(&alert, "alert", &[text, &format!("\"level\":\"{level}\"")]);
        assert_eq!(text_after(answer.text(), "id"), alert.last_event_id);
        assert_parts(&stream.next(), "badge", &["{\"count\":"]);
    }
    let all = "/api/notifications?last_event_id=earliest";
    let mut again = Stream::subscribe(program.address, all);
    assert_eq!(again.next().name, "recovery");
    for count in 1..=3 {
        assert_eq!(again.next().name, "alert");
        assert_eq!(again.next().data, format!("{{\"count\":{count}}}"));
    }
}

// ---- the job

/// Reads what a job says to its end. Its numbers rise.
#[track_caller]
fn follow(stream: &mut Stream, job: &str, total: usize) -> Vec<u64> {
    let mut told = Vec::new();
    loop {
        let message = stream.next();
        assert_eq!(text_after(&message.data, "job"), job, "{message:?}");
        let bytes = number_after(&message.data, "\"bytes\":");
        if message.name == "complete" {
            assert_eq!(bytes, total as u64, "{message:?}");
            told.push(100);
            let hash = text_after(&message.data, "sha256").to_owned();
            assert_eq!(hash, if total == 0 { EMPTY } else { million().1 });
            return told;
        }
        assert_eq!(message.name, "progress");
        assert_eq!(number_after(&message.data, "\"total\":"), total as u64);
        let percent = number_after(&message.data, "\"percent\":");
        let expected = (bytes * 100).checked_div(total as u64).unwrap_or(100);
        assert_eq!(percent, expected, "{message:?}");
        assert!(told.last().is_none_or(|last| *last < percent), "{told:?}");
        told.push(percent);
    }
}

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_file_is_hashed_and_only_who_uploaded_it_is_told() {
    let program = serve(&["demo"]);
    let mut me = Stream::subscribe(program.address, "/events?client_id=me");
    let others = "/events?client_id=other&topic=demo/process/*";
    let mut other = Stream::subscribe(program.address, others);
    let (file, _) = million();
    let answer = post(program.address, "/api/process?client_id=me", &file);
    assert_eq!(answer.status, 200, "{answer:?}");
    let job = text_after(answer.text(), "job").to_owned();
    assert_eq!(
        answer.text(),
        format!("{{\"status\":\"ok\",\"job\":\"{job}\"}}\n")
    );
    let told = follow(&mut me, &job, file.len());
    assert!(told.len() > 10 && told.ends_with(&[100, 100]), "{told:?}");
    post(program.address, "/events", "for everybody");
    assert_eq!(other.next().data, "for everybody");
    assert_eq!(me.next().data, "for everybody");
}

#[test]
fn without_a_client_the_job_has_a_topic_that_misses_nothing() {
    let program = serve(&["demo"]);
    let (file, _) = million();
    for file in [&b""[..], &file] {
        let answer = post(program.address, "/api/process", file);
        let job = text_after(answer.text(), "job").to_owned();
        let topic = format!("/api/process/{job}?last_event_id=earliest");
        let mut stream = Stream::subscribe(program.address, &topic);
        assert_eq!(stream.next().name, "recovery");
        let told = follow(&mut stream, &job, file.len());
        assert!(told.ends_with(&[100, 100]), "{told:?}");
    }
}

#[test]
fn more_files_than_may_wait_are_refused_by_their_number() {
    let program = serve(&["demo", "--max-body=4MiB"]);
    let file = vec![0; 4 << 20];
    let mut refusal = None;
    eventually("one is refused", || {
        let answer = post(program.address, "/api/process", &file);
        refusal = (answer.status != 200).then_some(answer);
        refusal.is_some()
    });
    let refusal = refusal.unwrap();
    assert_error(
        &refusal,
        503,
        "4 files wait to be processed already",
        "full",
    );
    assert_eq!(refusal.field("retry-after"), Some("5"));
    // And the rest goes on.
    assert_eq!(get(program.address, "/health").status, 200);
}

// ---- chat

#[test]
fn two_in_a_room_read_each_other_and_who_comes_later_reads_it_all() {
    let program = serve(&["demo"]);
    let room = "/api/chat/room/Кухня";
    let (mut anna, mut boris) = (
        Stream::subscribe(program.address, room),
        Stream::subscribe(
            program.address,
            "/api/chat/room/%D0%9A%D1%83%D1%85%D0%BD%D1%8F",
        ),
    );
    let mut elsewhere = Stream::subscribe(program.address, "/api/chat/room/Hall");
    let said = [
        (
            r#"{"user":"Anna","text":"tea?"}"#,
            r#"{"user":"Anna","text":"tea?","at":"2"#,
        ),
        (
            r#" { "text" : "да\n\"сейчас\" 🫖" , "user":"Борис", "at":"never" } "#,
            r#"{"user":"Борис","text":"да\n\"сейчас\" 🫖","at":"2"#,
        ),
    ];
    for (body, data) in said {
        let answer = post(program.address, &format!("{room}/messages"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().ends_with("\"recipients\":2}\n"), "{answer:?}");
        let (read, also) = (anna.next(), boris.next());
        assert_eq!(read, also);
        assert_eq!(read.name, "message");
        assert!(read.data.starts_with(data), "{read:?}");
        assert_eq!(text_after(answer.text(), "id"), read.last_event_id);
    }
    let later = format!("{room}?last_event_id=earliest");
    let mut later = Stream::subscribe(program.address, &later);
    let recovery = later.next();
    assert_parts(&recovery, "recovery", &["\"replayed\":2,"]);
    for (_, data) in said {
        assert!(later.next().data.starts_with(data));
    }
    // Who was cut off gets what it missed.
    let cursor = anna.cursor().to_owned();
    drop(anna);
    post(
        program.address,
        &format!("{room}/messages"),
        r#"{"user":"B","text":"ready"}"#,
    );
    let (mut anna, _) = Stream::resume(program.address, room, &cursor);
    assert!(anna.next().data.contains("\"text\":\"ready\""));
    post(
        program.address,
        "/api/chat/room/Hall/messages",
        r#"{"user":"C","text":"hall"}"#,
    );
    assert!(elsewhere.next().data.contains("\"text\":\"hall\""));
}

// ---- what is wrong

#[track_caller]
fn assert_error(answer: &Answer, status: u16, part: &str, row: &str) {
    assert_eq!(answer.status, status, "{row}: {answer:?}");
    let body = answer.text();
    assert!(
        body.starts_with(r#"{"status":"error","error":""#),
        "{row}: {body}"
    );
    assert!(body.contains(part), "{row}: no {part:?} in {body}");
    let origins = answer.head.matches("Access-Control-Allow-Origin: *");
    assert_eq!(origins.count(), 1, "{row}: {answer:?}");
}

#[test]
fn bad_input_is_told_what_is_wrong_with_it() {
    let program = serve(&["demo", "--max-body=8KiB"]);
    let messages = "/api/chat/room/1/messages";
    let long_name = format!(r#"{{"user":"{}","text":"x"}}"#, "ж".repeat(41));
    let long_text = format!(r#"{{"user":"x","text":"{}"}}"#, "x".repeat(2001));
    let long_alert = format!(r#"{{"text":"{}"}}"#, "x".repeat(501));
    let long_room = format!("/api/chat/room/{}/messages", "r".repeat(300));
    for (target, body, status, part) in [
        (messages, "", 400, "JSON"),
        (messages, "hello", 400, "JSON"),
        (messages, "[]", 400, "the body is JSON, but not an object"),
        (messages, "{}", 400, r#"the member \"user\" is missing"#),
        (messages, r#"{"user":"x"}"#, 400, r#"\"text\" is missing"#),
        (
            messages,
            r#"{"user":1,"text":"x"}"#,
            400,
            r#"\"user\" must be a string"#,
        ),
        (
            messages,
            r#"{"user":"x","text":["x"]}"#,
            400,
            r#"\"text\" must be a string"#,
        ),
        (
            messages,
            r#"{"user":"x","text":"\ud800"}"#,
            400,
            r#"\"text\" must be a string"#,
        ),
        (
            messages,
            r#"{"user":" ","text":"x"}"#,
            400,
            r#"\"user\" is empty"#,
        ),
        (
            messages,
            r#"{"user":"x","text":"\n"}"#,
            400,
            r#"\"text\" is empty"#,
        ),
        (
            messages,
            &*long_name,
            400,
            "has 41 characters, at most 40 are allowed",
        ),
        (
            messages,
            &*long_text,
            400,
            "has 2001 characters, at most 2000 are allowed",
        ),
        (
            "/api/chat/room/*/messages",
            r#"{"user":"x","text":"x"}"#,
            400,
            "ends in *",
        ),
        (
            &*long_room,
            r#"{"user":"x","text":"x"}"#,
            400,
            "at most 255",
        ),
        ("/api/notifications", "x", 400, "JSON"),
        ("/api/notifications", "{}", 400, r#"\"text\" is missing"#),
        (
            "/api/notifications",
            &*long_alert,
            400,
            "at most 500 are allowed",
        ),
        (
            "/api/notifications",
            r#"{"level":"loud","text":"x"}"#,
            400,
            r#"level is \"loud\", it must be one of [\"info\", \"success\", \"warning\", \"error\"]"#,
        ),
        (
            "/api/process?client_id=a/b",
            "x",
            400,
            r#"client_id is \"a/b\""#,
        ),
        (
            "/api/process?client_id=nobody",
            "x",
            404,
            r#"no client has the id \"nobody\""#,
        ),
    ] {
        let answer = post(program.address, target, body);
        assert_error(&answer, status, part, &format!("{target} {body}"));
    }
    let latin = request(
        program.address,
        "POST",
        messages,
        "",
        b"{\"user\":\"\xe9\"}",
    );
    assert_error(&latin, 400, "not UTF-8", "latin");
    let form = "Content-Type: multipart/form-data; boundary=x\r\n";
    let form = request(program.address, "POST", "/api/process", form, "--x--");
    assert_error(&form, 415, "it must be the file itself", "a form");
    let large = post(program.address, "/api/process", [0; 8193]);
    assert_eq!(large.status, 413, "{large:?}");
    let room = get(program.address, "/api/chat/room/*");
    assert_error(&room, 400, "ends in *", "a room that is a pattern");
    let name = get(program.address, "/api/feed/live?client_id=a/b");
    assert_error(&name, 400, "client_id is", "a stream's name");
    let stats = get(program.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"total_events\":"), 0);
}

#[test]
fn a_method_that_is_not_there_is_405_with_those_that_are() {
    let program = serve(&["demo"]);
    for (target, methods) in [
        ("/api/notifications", "GET, HEAD, POST, OPTIONS"),
        ("/api/feed/live", "GET, HEAD, OPTIONS"),
        ("/api/metrics", "GET, HEAD, OPTIONS"),
        ("/api/process", "POST, OPTIONS"),
        ("/api/process/1", "GET, HEAD, OPTIONS"),
        ("/api/stocks/stream", "GET, HEAD, OPTIONS"),
        ("/api/chat/room/1", "GET, HEAD, OPTIONS"),
        ("/api/chat/room/1/messages", "POST, OPTIONS"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"] {
            if methods.contains(method) && method != "HEAD" {
                continue;
            }
            let answer = request(program.address, method, target, "", "");
            if method == "HEAD" && methods.contains("HEAD") {
                assert_eq!(answer.status, 200, "{target}");
                assert_eq!(
                    answer.field("content-type"),
                    Some("text/event-stream; charset=utf-8")
                );
                continue;
            }
            assert_eq!(answer.status, 405, "{method} {target}: {answer:?}");
            assert_eq!(answer.field("allow"), Some(methods), "{method} {target}");
        }
        let preflight = request(program.address, "OPTIONS", target, "", "");
        assert_eq!(preflight.status, 204, "{target}");
        assert_eq!(
            preflight.field("access-control-allow-methods"),
            Some(methods)
        );
    }
    let stats = get(program.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"total_connections\":"), 0);
}

#[test]
fn the_paths_beside_them_are_404_and_without_demo_so_are_they() {
    let program = serve(&["demo"]);
    for path in [
        "/api",
        "/api/",
        "/api/feed",
        "/api/feed/live/",
        "/api/process/",
        "/api/chat/room/",
        "/api/chat/room//messages",
        "/api/chat/room/1/",
        "/api/chat/room/1/messages/",
        "/api/chat/room/1/2",
    ] {
        assert_error(&get(program.address, path), 404, "is not here", path);
    }
    let plain = server(crate::kit::config());
    let feed = get(plain.local_addr(), "/api/feed/live");
    assert_error(&feed, 404, "is not here", "without demo");
}

// ---- the program

#[test]
fn the_streams_that_it_prints_are_there() {
    let program = serve(&["demo"]);
    let mut lines = program.greeting.clone();
    lines.extend(up_to(&program.process.out, "/messages"));
    let mut streams = 0;
    for line in lines.iter().filter(|line| line.contains("curl -N")) {
        let (_, url) = line.split_once("http://").unwrap();
        let (host, path) = url.trim_end_matches('\'').split_once('/').unwrap();
        assert_eq!(host, program.address.to_string(), "{line}");
        Stream::subscribe(program.address, &format!("/{path}"));
        streams += 1;
    }
    assert_eq!(streams, 8, "{lines:#?}");
}

#[test]
fn a_signal_ends_it_in_the_midst_of_everything() {
    // The test gives up long before the grace: what ends, ends by itself.
    let mut program = serve(&["demo", "--grace=1h", "--max-body=8MiB"]);
    let paths = ["/api/notifications", "/api/metrics", "/api/chat/room/1"];
    let mut streams: Vec<Stream> = paths
        .iter()
        .map(|path| Stream::subscribe(program.address, path))
        .collect();
    let mut me = Stream::subscribe(program.address, "/events?client_id=me");
    for _ in 0..3 {
        let file = vec![0; 8 << 20];
        let answer = post(program.address, "/api/process?client_id=me", file);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(me.next().name, "progress");
    let _idle = Raw::connect(program.address);
    let signalled = Instant::now();
    program.process.signal("TERM");
    assert_eq!(program.process.exit_code(), Some(0));
    // Ten times what it takes, and less than a thread sleeps that nobody wakes.
    let took = signalled.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    streams.push(me);
    for mut stream in streams {
        while stream.try_next().is_some() {}
        assert!(stream.has_ended, "without its last chunk");
        assert_eq!(stream.closed.as_deref(), Some("closing"));
    }
}
