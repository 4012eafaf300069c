//! How streams begin and end: the first bytes, heartbeats, replaced and disconnected
//! clients, the server's shutdown.

use std::time::Duration;

use tiny_sse::{Config, Event, EventId};

use crate::kit::{Raw, Stream, config, eventually, get, number_after, post, request, server};

fn with_short_heartbeat() -> Config {
    Config {
        heartbeat: Duration::from_millis(20),
        ..config()
    }
}

#[test]
fn a_stream_begins_with_the_documented_head_and_welcome() {
    let server = server(config());
    let mut stream = Stream::open(server.local_addr(), "/events", "");
    let fields: Vec<_> = stream
        .head
        .head
        .lines()
        .filter(|line| !line.starts_with("Date: "))
        .collect();
    assert_eq!(
        fields,
        [
            "HTTP/1.1 200 OK",
            "Content-Type: text/event-stream; charset=utf-8",
            "Cache-Control: no-cache, no-transform",
            "X-Accel-Buffering: no",
            "Access-Control-Allow-Origin: *",
            "Connection: keep-alive",
            "Transfer-Encoding: chunked",
        ]
    );
    stream.next();
    let welcome = String::from_utf8(stream.bytes.clone()).unwrap();
    let lines: Vec<_> = welcome.split('\n').collect();
    let id = lines[0].strip_prefix("id: ").map(str::parse::<EventId>);
    assert!(matches!(id, Some(Ok(_))), "{welcome}");
    assert_eq!(lines[1..3], ["event: system", "retry: 5000"]);
    assert!(
        lines[3].starts_with(r#"data: {"type":"connected","client_id":""#),
        "{welcome}"
    );
    assert_eq!(lines[4..], ["", ""]);
}

#[test]
fn a_stream_over_http_1_0_has_no_chunks_and_ends_with_the_connection() {
    let server = server(config());
    let mut raw = Raw::connect(server.local_addr());
    raw.send("GET /events?client_id=old HTTP/1.0\r\n\r\n");
    let head = raw.head();
    assert_eq!(
        (head.field("transfer-encoding"), head.field("connection")),
        (None, Some("close"))
    );
    eventually("the client is registered", || server.hub().clients() == 1);
    post(server.local_addr(), "/clients/old", "hello");
    request(server.local_addr(), "DELETE", "/clients/old", "", "");
    let rest = String::from_utf8(raw.rest()).unwrap();
    let end = "\n\ndata: hello\n\nevent: system\nretry: 86400000\ndata: {\"type\":\"closed\",\"reason\":\"kicked\"}\n\n";
    assert!(rest.ends_with(end), "{rest:?}");
}

#[test]
fn a_client_that_disconnects_is_removed_within_a_few_heartbeats_also_without_events() {
    let server = server(Config {
        heartbeat: Duration::from_secs(1),
        ..config()
    });
    let stream = Stream::subscribe(server.local_addr(), "/events");
    assert_eq!(
        number_after(
            get(server.local_addr(), "/stats").text(),
            "\"active_connections\":"
        ),
        1
    );
    let start = std::time::Instant::now();
    drop(stream);
    eventually("the client is removed", || {
        number_after(
            get(server.local_addr(), "/stats").text(),
            "\"active_connections\":",
        ) == 0
    });
    // A bound on correctness, not on speed: after ten heartbeats the removal would not be
    // due to a heartbeat.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        number_after(get(server.local_addr(), "/stats").text(), "\"hung_up\":"),
        1
    );
}

#[test]
fn a_stream_without_events_gets_heartbeat_comments() {
    let server = server(with_short_heartbeat());
    let mut stream = Stream::subscribe(server.local_addr(), "/events");
    stream.read_to("\n\n: heartbeat\n: heartbeat\n: heartbeat\n");
    post(server.local_addr(), "/events", "still there");
    assert_eq!(stream.next().data, "still there");
}

#[test]
fn a_client_that_asks_for_it_gets_heartbeats_as_events() {
    let server = server(with_short_heartbeat());
    for (query, fields) in [
        ("?heartbeat=event", ""),
        ("/a?topic=b&heartbeat=event&client_id=me", ""),
    ] {
        let target = format!("/events{query}");
        let mut stream = Stream::open(server.local_addr(), &target, fields);
        let cursor = stream.next().last_event_id;
        for _ in 0..3 {
            let heartbeat = stream.next();
            assert_eq!(
                (
                    &*heartbeat.name,
                    &*heartbeat.data,
                    &*heartbeat.last_event_id,
                ),
                ("heartbeat", "{}", &*cursor),
                "{target}"
            );
        }
        assert!(
            stream
                .bytes
                .ends_with(b"\n\nevent: heartbeat\ndata: {}\n\n"),
            "{target}"
        );
        // Another client still gets comments.
        let mut other = Stream::subscribe(server.local_addr(), "/events?heartbeat=comment");
        other.read_to(": heartbeat\n: heartbeat\n");
        let before = stream.bytes.len();
        post(server.local_addr(), "/events", "still there");
        while stream.next().data != "still there" {}
        let since = String::from_utf8_lossy(&stream.bytes[before..]).into_owned();
        assert!(!since.contains("\n: heartbeat\n"), "{since}");
    }
}

#[test]
fn a_client_with_the_same_id_replaces_the_first_one() {
    let server = server(config());
    let mut first = Stream::subscribe(server.local_addr(), "/events?client_id=me");
    let mut second = Stream::subscribe(server.local_addr(), "/events?client_id=me");
    assert_eq!(first.try_next(), None);
    assert!(first.has_ended, "the last chunk is missing");
    assert_eq!(first.closed.as_deref(), Some("replaced"));
    post(server.local_addr(), "/clients/me", "for the second");
    assert_eq!(second.next().data, "for the second");
    assert_eq!(server.hub().clients(), 1);
}

#[test]
fn a_deleted_client_gets_the_close_reason_kicked_and_is_removed() {
    let server = server(config());
    let mut stream = Stream::subscribe(server.local_addr(), "/events?client_id=me");
    assert_eq!(
        request(server.local_addr(), "DELETE", "/clients/me", "", "").status,
        200
    );
    assert_eq!(
        request(server.local_addr(), "DELETE", "/clients/me", "", "").status,
        404
    );
    assert_eq!(stream.try_next(), None);
    assert!(stream.has_ended);
    assert_eq!(stream.closed.as_deref(), Some("kicked"));
    assert_eq!(
        number_after(get(server.local_addr(), "/stats").text(), "\"kicked\":"),
        1
    );
}

#[test]
fn a_shutdown_waits_until_all_clients_have_all_events_and_then_the_close_event() {
    let server = server(config());
    let address = server.local_addr();
    let mut streams: Vec<_> = (0..20)
        .map(|_| Stream::subscribe(address, "/events"))
        .collect();
    let idle = Raw::connect(address);
    for number in 0..100 {
        server
            .hub()
            .publish(tiny_sse::Event::new(number.to_string()))
            .unwrap();
    }
    server.shutdown();
    for stream in &mut streams {
        for number in 0..100 {
            assert_eq!(stream.next().data, number.to_string());
        }
        assert_eq!(stream.try_next(), None);
        assert_eq!(stream.closed.as_deref(), Some("closing"));
        assert!(stream.has_ended);
    }
    drop(idle);
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "the listener is still there"
    );
}

#[test]
fn wait_returns_after_the_hub_is_closed_and_the_server_has_shut_down() {
    let running = server(config());
    let (address, hub) = (running.local_addr(), running.hub().clone());
    let mut stream = Stream::subscribe(address, "/events");
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        sender.send(()).unwrap();
        running.wait();
        sender.send(()).unwrap();
    });
    receiver.recv().unwrap();
    // The server serves while another thread waits for it: each event arrives.
    for number in 0..500 {
        let data = number.to_string();
        hub.publish(Event::new(&*data)).expect("an open hub");
        assert_eq!(stream.next().data, data);
    }
    assert!(receiver.try_recv().is_err(), "wait() returned too early");
    hub.close();
    assert_eq!(stream.try_next(), None);
    assert_eq!(stream.closed.as_deref(), Some("closing"));
    waiting.join().unwrap();
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "the listener is still there"
    );
}
