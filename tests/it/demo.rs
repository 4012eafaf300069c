//! The six example uses of `tiny-sse demo`, each with the requests that a page sends.

use std::time::{Duration, Instant};

use tiny_sse::Message;

use crate::kit::{Answer, Raw, Stream, eventually, get, number_after, post, request, server};
use crate::program::{lines_up_to, serve};

/// A million times `a`, and its SHA-256 from FIPS 180-2, B.3.
fn million_bytes() -> (Vec<u8>, &'static str) {
    let hash = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    (vec![b'a'; 1_000_000], hash)
}

/// Returns the text of a string member, which is found by its name.
#[track_caller]
fn text_after<'a>(json: &'a str, member: &str) -> &'a str {
    let key = format!("\"{member}\":\"");
    let rest = json.split_once(&key).map(|(_, rest)| rest);
    let text = rest.and_then(|rest| rest.split('"').next());
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
    // A browser that has the library's script, from `tiny-sse serve` at the same address,
    // gets the other one.
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

// ---- streams of simulated and measured data

#[test]
fn each_example_stream_sends_an_event_as_soon_as_a_client_connects() {
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
        // The first event would be due after five seconds, but the new client makes it
        // due at once.
        let soon = start.elapsed() < Duration::from_secs(4);
        assert!(soon || path != "/api/metrics", "{:?}", start.elapsed());
        let origins = stream.head.head.matches("Access-Control-Allow-Origin: *");
        assert_eq!(origins.count(), 1, "{path}: {:?}", stream.head);
    }
}

#[test]
fn each_update_has_a_price_for_every_symbol() {
    let program = serve(&["demo"]);
    let mut stream = Stream::subscribe(program.address, "/api/stocks/stream");
    for symbol in ["TINY", "CRAB", "WIRE", "HUBS"] {
        let price = stream.next();
        assert_eq!(text_after(&price.data, "symbol"), symbol, "{price:?}");
    }
    // A client that connects later makes the next prices due at once, for both clients.
    let mut later = Stream::subscribe(program.address, "/api/stocks/stream");
    assert_eq!(stream.next().data, later.next().data);
}

#[test]
fn the_examples_publish_nothing_while_no_client_is_connected_to_them() {
    let program = serve(&["demo"]);
    // A client of a built-in endpoint makes no event due earlier. When the feed publishes
    // its first post, the time for the first prices is over, and they were not published.
    let mut stream = Stream::subscribe(program.address, "/events?topic=demo/f*");
    assert_eq!(stream.next().name, "post");
    let stats = get(program.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"total_events\":"), 1);
}

#[test]
fn the_metrics_example_measures_this_machine() {
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
fn a_posted_notification_is_sent_as_an_alert_and_a_badge() {
    let program = serve(&["demo"]);
    let mut stream = Stream::subscribe(program.address, "/api/notifications");
    // Waits for the first simulated notification, because its badge and the test's own
    // could come in either order.
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

// ---- the job that processes a file

/// Reads the events of a job to its end, and returns the percentages. They rise.
#[track_caller]
fn follow(stream: &mut Stream, job: &str, total: usize) -> Vec<u64> {
    let mut percentages = Vec::new();
    loop {
        let message = stream.next();
        assert_eq!(text_after(&message.data, "job"), job, "{message:?}");
        let bytes = number_after(&message.data, "\"bytes\":");
        if message.name == "complete" {
            assert_eq!(bytes, total as u64, "{message:?}");
            percentages.push(100);
            let hash = text_after(&message.data, "sha256").to_owned();
            assert_eq!(hash, if total == 0 { EMPTY } else { million_bytes().1 });
            return percentages;
        }
        assert_eq!(message.name, "progress");
        assert_eq!(number_after(&message.data, "\"total\":"), total as u64);
        let percent = number_after(&message.data, "\"percent\":");
        let expected = (bytes * 100).checked_div(total as u64).unwrap_or(100);
        assert_eq!(percent, expected, "{message:?}");
        assert!(
            percentages.last().is_none_or(|last| *last < percent),
            "{percentages:?}"
        );
        percentages.push(percent);
    }
}

/// The SHA-256 of an empty file.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_file_is_hashed_and_only_its_uploader_gets_the_progress() {
    let program = serve(&["demo"]);
    let mut me = Stream::subscribe(program.address, "/events?client_id=me");
    let others = "/events?client_id=other&topic=demo/process/*";
    let mut other = Stream::subscribe(program.address, others);
    let (file, _) = million_bytes();
    let answer = post(program.address, "/api/process?client_id=me", &file);
    assert_eq!(answer.status, 200, "{answer:?}");
    let job = text_after(answer.text(), "job").to_owned();
    assert_eq!(
        answer.text(),
        format!("{{\"status\":\"ok\",\"job\":\"{job}\"}}\n")
    );
    let percentages = follow(&mut me, &job, file.len());
    assert!(
        percentages.len() > 10 && percentages.ends_with(&[100, 100]),
        "{percentages:?}"
    );
    post(program.address, "/events", "for all clients");
    assert_eq!(other.next().data, "for all clients");
    assert_eq!(me.next().data, "for all clients");
}

#[test]
fn without_a_client_id_all_events_of_a_job_are_on_its_own_topic() {
    let program = serve(&["demo"]);
    let (file, _) = million_bytes();
    for file in [&b""[..], &file] {
        let answer = post(program.address, "/api/process", file);
        let job = text_after(answer.text(), "job").to_owned();
        let topic = format!("/api/process/{job}?last_event_id=earliest");
        let mut stream = Stream::subscribe(program.address, &topic);
        assert_eq!(stream.next().name, "recovery");
        let percentages = follow(&mut stream, &job, file.len());
        assert!(percentages.ends_with(&[100, 100]), "{percentages:?}");
    }
}

#[test]
fn files_beyond_the_queue_limit_are_refused_with_the_limit() {
    let program = serve(&["demo", "--max-body=4MiB"]);
    let file = vec![0; 4 << 20];
    let mut refusal = None;
    eventually("a file is refused", || {
        let answer = post(program.address, "/api/process", &file);
        refusal = (answer.status != 200).then_some(answer);
        refusal.is_some()
    });
    let refusal = refusal.unwrap();
    assert_error(
        &refusal,
        503,
        "4 files are waiting to be processed already",
        "full",
    );
    assert_eq!(refusal.field("retry-after"), Some("5"));
    // The other endpoints go on.
    assert_eq!(get(program.address, "/health").status, 200);
}

// ---- chat

#[test]
fn two_clients_in_a_chat_room_read_each_other_and_a_later_one_reads_everything() {
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
    let messages = [
        (
            r#"{"user":"Anna","text":"tea?"}"#,
            r#"{"user":"Anna","text":"tea?","at":"2"#,
        ),
        (
            r#" { "text" : "да\n\"сейчас\" 🫖" , "user":"Борис", "at":"never" } "#,
            r#"{"user":"Борис","text":"да\n\"сейчас\" 🫖","at":"2"#,
        ),
    ];
    for (body, data) in messages {
        let answer = post(program.address, &format!("{room}/messages"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().ends_with("\"recipients\":2}\n"), "{answer:?}");
        let (read, boris_read) = (anna.next(), boris.next());
        assert_eq!(read, boris_read);
        assert_eq!(read.name, "message");
        assert!(read.data.starts_with(data), "{read:?}");
        assert_eq!(text_after(answer.text(), "id"), read.last_event_id);
    }
    let later = format!("{room}?last_event_id=earliest");
    let mut later = Stream::subscribe(program.address, &later);
    let recovery = later.next();
    assert_parts(&recovery, "recovery", &["\"replayed\":2,"]);
    for (_, data) in messages {
        assert!(later.next().data.starts_with(data));
    }
    // A client that was disconnected gets the message that it missed.
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

// ---- errors

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
fn each_error_for_bad_input_names_the_mistake() {
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
    assert_error(&name, 400, "client_id is", "the client id of a stream");
    let stats = get(program.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"total_events\":"), 0);
}

#[test]
fn a_method_that_is_not_allowed_is_a_405_with_the_allowed_ones() {
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
fn unknown_paths_under_api_are_404_and_without_demo_all_of_them_are() {
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

// ---- the program as a whole

#[test]
fn every_stream_in_the_greeting_exists() {
    let program = serve(&["demo"]);
    let mut lines = program.greeting.clone();
    lines.extend(lines_up_to(&program.process.out, "/messages"));
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
fn a_signal_ends_the_demo_while_everything_is_running() {
    // The grace period is longer than the test waits, so the program must end without it.
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
    // Ten times the usual time, and less than a thread sleeps that is not woken.
    let took = signalled.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    streams.push(me);
    for mut stream in streams {
        while stream.try_next().is_some() {}
        assert!(stream.has_ended, "without its last chunk");
        assert_eq!(stream.closed.as_deref(), Some("closing"));
    }
}
