//! Polling and long polling: what each answer has, and that no event is lost between two
//! polls.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::hub::SubscribeError;
use tiny_sse::{CloseReason, Config, Cursor, Event, Hub, Poll, Subscribe, Topic};

use crate::chance::Random;
use crate::kit::{
    Answer, DEADLINE, OnDrop, Raw, Stream, config, eventually, get, number_after, post, request,
    server,
};

/// A wait that is longer than the deadline of a test, so that a poll that is not answered
/// earlier fails its test.
const LONG: &str = "wait=60";

/// Polls, and checks what all answers have in common.
#[track_caller]
fn poll(address: SocketAddr, query: &str, cursor: &str) -> Answer {
    let fields = format!("Last-Event-ID: {cursor}\r\n");
    let fields = if cursor.is_empty() { "" } else { &fields };
    checked(request(
        address,
        "GET",
        &format!("/poll?{query}"),
        fields,
        "",
    ))
}

#[track_caller]
fn checked(answer: Answer) -> Answer {
    let field = |name| answer.field(name);
    assert_eq!(
        (
            answer.status,
            field("content-type"),
            field("cache-control"),
            field("access-control-allow-origin"),
            field("access-control-expose-headers"),
        ),
        (
            200,
            Some("application/json"),
            Some("no-store"),
            Some("*"),
            Some("Last-Event-ID"),
        ),
        "{answer:?}"
    );
    let text = answer.text();
    assert!(text.starts_with('[') && text.ends_with("]\n"), "{text}");
    answer
}

/// Returns the cursor for the next poll.
#[track_caller]
fn cursor(answer: &Answer) -> &str {
    answer.field("last-event-id").expect("a cursor")
}

/// Returns the data of the events in an answer. The data must not contain escapes.
fn data(answer: &Answer) -> Vec<String> {
    let parts = answer.text().split("\"data\":\"").skip(1);
    parts
        .map(|part| part.split('"').next().unwrap().to_owned())
        .collect()
}

/// Publishes, and returns the event's id from the answer.
#[track_caller]
fn publish(address: SocketAddr, target: &str, body: &str) -> String {
    let answer = post(address, target, body);
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    let (_, rest) = answer.text().split_once("\"id\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// Begins a poll that has to wait, and calls `then` as soon as the poll waits. Returns
/// the result of the poll, and the time from the call to the end of the poll.
fn while_it_waits<T>(
    hub: &Hub,
    poll: impl FnOnce() -> T + Send,
    then: impl FnOnce(),
) -> (T, Duration)
where
    T: Send,
{
    let before = hub.clients();
    thread::scope(|scope| {
        let poller = scope.spawn(poll);
        eventually("the poll waits", || hub.clients() == before + 1);
        let start = Instant::now();
        then();
        (poller.join().unwrap(), start.elapsed())
    })
}

// ---- plain polling

#[test]
fn the_answer_to_a_poll_has_the_missed_events_and_the_cursor_for_the_next_poll() {
    let server = server(config());
    let address = server.local_addr();
    let start = poll(address, "", "");
    assert_eq!(start.text(), "[]\n");
    let rows = [
        ("/events", "hello", "message", "hello"),
        ("/events?event=tick", "", "tick", ""),
        ("/events?event=", "a\r\nb\n", "message", r"a\nb\n"),
        (
            "/events?event=%22привет%22",
            "\"\\\u{1}🦀\u{2028}",
            r#"\"привет\""#,
            "\\\"\\\\\\u0001🦀\u{2028}",
        ),
        ("/broadcast", r#"{"n":1}"#, "message", r#"{\"n\":1}"#),
        ("/events", "\u{feff}bom", "message", "\u{feff}bom"),
    ];
    let mut elements = Vec::new();
    let mut id = String::new();
    for (target, body, name, data) in rows {
        id = publish(address, target, body);
        elements.push(format!(
            r#"{{"id":"{id}","event":"{name}","data":"{data}"}}"#
        ));
    }
    for wait in ["", "wait=0", "wait=007", LONG] {
        let answer = poll(address, wait, cursor(&start));
        assert_eq!(answer.text(), format!("[{}]\n", elements.join(",")));
        assert_eq!(cursor(&answer), id);
        assert_eq!(
            poll(address, "wait=0", cursor(&answer)).text(),
            "[]\n",
            "an event came twice"
        );
    }
}

#[test]
fn a_poll_takes_its_cursor_from_the_same_field_and_parameter_as_a_stream() {
    let server = server(config());
    let address = server.local_addr();
    let ids = ["one", "two", "three"].map(|body| publish(address, "/events", body));
    let (first, second) = (&*ids[0], &*ids[1]);
    for (query, header, expected) in [
        (first, "", &["two", "three"][..]),
        (second, "", &["three"]),
        ("earliest", "", &["one", "two", "three"]),
        ("", first, &["two", "three"]),
        (second, first, &["two", "three"]),
        (first, second, &["three"]),
        ("earliest", second, &["three"]),
        // Without a cursor, a poll gets only later events.
        ("", "", &[]),
    ] {
        let answer = poll(address, &format!("last_event_id={query}"), header);
        assert_eq!(data(&answer), expected, "?{query}, header {header:?}");
        assert_eq!(cursor(&answer), ids[2], "?{query}, header {header:?}");
    }
}

#[test]
fn a_publishers_own_id_works_as_a_cursor_but_the_cursor_in_an_answer_is_the_hubs_id() {
    let server = server(config());
    let address = server.local_addr();
    let own = "/events?id=order-1";
    assert_eq!(publish(address, own, "mine"), "order-1");
    let all = poll(address, "last_event_id=earliest", "");
    assert_eq!(
        all.text(),
        "[{\"id\":\"order-1\",\"event\":\"message\",\"data\":\"mine\"}]\n"
    );
    let hubs = cursor(&all).to_owned();
    assert!(hubs.parse::<tiny_sse::EventId>().is_ok(), "{hubs}");
    publish(address, "/events", "next");
    for (query, header) in [("last_event_id=order-1", ""), ("", "order-1"), ("", &*hubs)] {
        assert_eq!(data(&poll(address, query, header)), ["next"], "{query:?}");
    }
    // The same holds for an event for which the poll waited.
    let (answer, _) = while_it_waits(
        server.hub(),
        || poll(address, LONG, ""),
        || drop(publish(address, "/events?id=order-2", "live")),
    );
    assert!(
        answer.text().starts_with("[{\"id\":\"order-2\","),
        "{answer:?}"
    );
    assert!(cursor(&answer).parse::<tiny_sse::EventId>().is_ok());
}

#[test]
fn a_poll_gets_events_of_its_topics_and_its_cursor_also_passes_all_other_events() {
    let server = server(config());
    let address = server.local_addr();
    let start = cursor(&poll(address, "", "")).to_owned();
    for topic in ["", "a", "b/1", "b/2", "c"] {
        let target = format!("/events{}", ["/", ""][usize::from(topic.is_empty())]) + topic;
        publish(address, &target, &format!("on {topic}"));
    }
    let mut last = publish(address, "/events/nobody", "x");
    for (query, expected) in [
        ("", &["on "][..]),
        ("topic=a", &["on ", "on a"]),
        ("topic=a&topic=b/*", &["on ", "on a", "on b/1", "on b/2"]),
        ("topic=b/1&topic=c", &["on ", "on b/1", "on c"]),
        ("topic=other", &["on "]),
    ] {
        let answer = poll(address, query, &start);
        assert_eq!(data(&answer), expected, "{query}");
        assert_eq!(cursor(&answer), last, "{query}");
        // The cursor of an empty answer moves on, too.
        let later = publish(address, "/events/nobody", "x");
        let empty = poll(address, query, &last);
        assert_eq!((empty.text(), cursor(&empty)), ("[]\n", &*later), "{query}");
        last = later;
    }
}

#[test]
fn a_poll_after_a_gap_gets_a_recovery_event_first_and_the_next_poll_gets_none() {
    let server = server(Config {
        history_events: 2,
        history_bytes: 2000,
        queue_bytes: 1,
        ..config()
    });
    let address = server.local_addr();
    let start = cursor(&poll(address, "", "")).to_owned();
    let ids: Vec<String> = (0..4)
        .map(|n| publish(address, "/events", &n.to_string()))
        .collect();
    let future = format!("{}-0", u64::MAX);
    // The history holds the events 2 and 3.
    for (id, reason, topic) in [
        (&*start, "evicted", ""),
        (&ids[0], "evicted", ""),
        (&ids[0], "evicted", "topic=a"),
        ("0-0", "evicted", ""),
        ("42", "unknown", ""),
        ("\"", "unknown", ""),
        (&future, "future", ""),
    ] {
        for wait in ["", LONG] {
            let query = format!("{topic}&{wait}");
            let answer = poll(address, &query, id);
            let quoted = id.replace('"', r#"\\\""#);
            let expected = format!(
                "[{{\"event\":\"recovery\",\"data\":\"{{\\\"recovered_from\\\":\\\"{quoted}\\\",\
                 \\\"replayed\\\":2,\\\"complete\\\":false,\\\"reason\\\":\\\"{reason}\\\"}}\"}},\
                 {{\"id\":\"{}\",\"event\":\"message\",\"data\":\"2\"}},\
                 {{\"id\":\"{}\",\"event\":\"message\",\"data\":\"3\"}}]\n",
                ids[2], ids[3]
            );
            assert_eq!(answer.text(), expected, "{id}");
            assert_eq!(cursor(&answer), ids[3], "{id}");
            assert_eq!(poll(address, "", cursor(&answer)).text(), "[]\n", "{id}");
        }
    }
    // Without a gap, and with the cursor `earliest`, there is no recovery event.
    for (query, id) in [("", &*ids[1]), ("last_event_id=earliest", "")] {
        assert_eq!(data(&poll(address, query, id)), ["2", "3"], "{query}");
    }
}

#[test]
fn the_answer_to_a_poll_is_bounded_and_the_next_poll_gets_the_following_events() {
    let server = server(Config {
        history_bytes: 64 << 20,
        ..config()
    });
    let address = server.local_addr();
    let filler = "x".repeat(999);
    for number in 0..1000 {
        let event = Event::new(format!("{number} {filler}"));
        server.hub().publish(event).unwrap();
    }
    // An event that is larger than the bound is sent whole.
    let large = "y".repeat(1 << 20);
    publish(address, "/events", &large);
    let (mut seen, mut answers) = (Vec::new(), 0);
    let mut answer = poll(address, "last_event_id=earliest", "");
    while !data(&answer).is_empty() {
        assert!(answer.body.len() < (66 << 10) + large.len());
        seen.extend(data(&answer));
        answers += 1;
        answer = poll(address, "", cursor(&answer));
    }
    assert!((16..20).contains(&answers), "{answers} answers");
    assert_eq!(seen.len(), 1001);
    for (number, data) in seen[..1000].iter().enumerate() {
        assert!(data.starts_with(&format!("{number} x")), "{number}: {data}");
    }
    assert!(seen[1000] == large);
}

// ---- long polling

#[test]
fn the_bound_of_an_answer_counts_its_bytes_in_json_with_all_escapes() {
    let server = server(config());
    let address = server.local_addr();
    for (data, count) in [
        // Six bytes in JSON for each byte, two bytes for each byte, and events without
        // data.
        ("\u{1}".repeat(1000), 200),
        ("\"\\".repeat(1000), 400),
        (String::new(), 9000),
    ] {
        let start = cursor(&poll(address, "", "")).to_owned();
        for _ in 0..count {
            server.hub().publish(Event::new(&*data)).unwrap();
        }
        let (mut seen, mut answers) = (0, 0);
        let mut answer = poll(address, "", &start);
        loop {
            let events = answer.text().matches("\"event\":").count();
            if events == 0 {
                break;
            }
            assert!(
                answer.body.len() <= (64 << 10) + 7000,
                "{}",
                answer.body.len()
            );
            seen += events;
            answers += 1;
            answer = poll(address, "", cursor(&answer));
        }
        assert!(seen == count && answers > 1, "{seen} in {answers}");
    }
}

#[test]
fn an_event_that_is_published_while_a_poll_waits_is_answered_at_once() {
    let server = server(config());
    let address = server.local_addr();
    let cursor_before = cursor(&poll(address, "", "")).to_owned();
    for (query, id) in [(LONG, &*cursor_before), ("topic=a&wait=60", "")] {
        let mut published = String::new();
        let (answer, elapsed) = while_it_waits(
            server.hub(),
            || poll(address, query, id),
            || {
                let answer = post(address, "/events/nobody", "for another");
                assert!(answer.text().contains("\"recipients\":0"));
                published = publish(address, "/events?event=ding", "now");
            },
        );
        assert_eq!(
            answer.text(),
            format!("[{{\"id\":\"{published}\",\"event\":\"ding\",\"data\":\"now\"}}]\n")
        );
        assert_eq!(cursor(&answer), published);
        // A bound on correctness, not on speed: without the event the poll would wait for
        // a minute.
        assert!(elapsed < DEADLINE, "{elapsed:?}");
        assert_eq!(server.hub().clients(), 0);
        // The first row has a cursor, so a poll with it gets the event again.
        if id == cursor_before {
            assert_eq!(data(&poll(address, "", id)), ["now"]);
        }
    }
}

#[test]
fn a_poll_without_an_event_is_answered_with_an_empty_list_after_its_wait() {
    let server = server(config());
    let address = server.local_addr();
    for id in ["", "earliest"] {
        let start = Instant::now();
        let answer = poll(address, &format!("wait=1&last_event_id={id}"), "");
        let waited = start.elapsed();
        assert_eq!(answer.text(), "[]\n");
        assert!(
            (Duration::from_secs(1)..DEADLINE).contains(&waited),
            "{waited:?}"
        );
        assert_eq!(server.hub().clients(), 0);
    }
}

#[test]
fn the_cursor_of_a_waiting_poll_moves_on_with_events_of_other_topics() {
    let hub = Hub::new(Config {
        history_events: 10,
        history_bytes: 2000,
        queue_bytes: 100,
        ..config()
    })
    .unwrap();
    let other = Topic::new("other").unwrap();
    let (poll, _) = while_it_waits(
        &hub,
        || hub.poll(Subscribe::default(), Duration::from_secs(1)),
        || {
            for _ in 0..1000 {
                let event = Event::new("x").with_topic(other.clone());
                hub.publish(event).unwrap();
            }
        },
    );
    let Poll {
        messages, cursor, ..
    } = poll.unwrap();
    assert_eq!(messages, []);
    assert_eq!(hub.stats().history.last_id.unwrap().to_string(), cursor);
}

#[test]
fn a_hundred_polls_wait_at_the_same_time_and_are_not_counted_as_streams() {
    let server = server(config());
    let address = server.local_addr();
    let before = cursor(&poll(address, "", "")).to_owned();
    let mut pollers: Vec<Raw> = (0..100).map(|_| Raw::connect(address)).collect();
    for poller in &mut pollers {
        poller.send(format!(
            "GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {before}\r\n\r\n"
        ));
    }
    eventually("all polls wait", || server.hub().clients() == 100);
    let stats = get(address, "/stats");
    assert!(stats.text().contains("\"active_connections\":100,"));
    let answer = post(address, "/events", "all");
    assert_eq!(number_after(answer.text(), "\"recipients\":"), 100);
    for poller in &mut pollers {
        let answer = checked(poller.answer());
        assert_eq!(data(&answer), ["all"]);
        // The same connection sends the next poll.
        let next = cursor(&answer).to_owned();
        poller.send(format!(
            "GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {next}\r\n\r\n"
        ));
    }
    eventually("all polls wait again", || server.hub().clients() == 100);
    post(address, "/events", "again");
    for poller in &mut pollers {
        assert_eq!(data(&checked(poller.answer())), ["again"]);
    }
    let stats = get(address, "/stats");
    assert!(
        stats.text().starts_with(
            "{\"active_connections\":0,\"max_connections\":1000,\"total_connections\":0,\
             \"refused_connections\":0,\"total_events\":2,\"total_deliveries\":200,"
        ),
        "{stats:?}"
    );
    for close_reason in server.hub().stats().close_reasons {
        assert_eq!(close_reason.1, 0, "{close_reason:?}");
    }
}

#[test]
fn a_poll_counts_against_the_limit_of_clients_only_if_it_has_to_wait() {
    let server = server(Config {
        max_clients: 1,
        retry: Duration::from_secs(7),
        ..config()
    });
    let address = server.local_addr();
    let before = cursor(&poll(address, "", "")).to_owned();
    let _stream = Stream::subscribe(address, "/events?client_id=only");
    let full = get(address, &format!("/poll?{LONG}"));
    assert_eq!(full.status, 503, "{full:?}");
    assert!(full.text().contains("Too many connections: 1 clients"));
    assert_eq!(
        (
            full.field("retry-after"),
            full.field("access-control-expose-headers")
        ),
        (Some("7"), Some("Retry-After"))
    );
    assert_eq!(poll(address, "", "").text(), "[]\n");
    publish(address, "/events", "missed");
    assert_eq!(data(&poll(address, LONG, &before)), ["missed"]);
}

#[test]
fn a_waiting_poll_is_answered_at_once_when_it_is_deleted_or_replaced_or_gets_an_event() {
    let server = server(config());
    let address = server.local_addr();
    let named = || poll(address, "wait=60&client_id=me", "");
    let (answer, _) = while_it_waits(server.hub(), named, || {
        let answer = request(address, "DELETE", "/clients/me", "", "");
        assert_eq!(answer.status, 200);
    });
    assert_eq!(answer.text(), "[]\n");
    let mut second = None;
    let (answer, _) = while_it_waits(server.hub(), named, || {
        second = Some(Stream::subscribe(address, "/events?client_id=me"));
    });
    assert_eq!(answer.text(), "[]\n");
    assert_eq!(
        server.hub().clients(),
        1,
        "only the stream with the same id is registered"
    );
    assert!(server.hub().disconnect("me"));
    // An event for this client only. It does not move the cursor.
    let (answer, _) = while_it_waits(
        server.hub(),
        || poll(address, "wait=60&client_id=other", ""),
        || {
            assert_eq!(
                post(address, "/clients/other?event=psst", "you").status,
                200
            )
        },
    );
    let cursor = cursor(&answer);
    assert_eq!(
        answer.text(),
        format!("[{{\"id\":\"{cursor}\",\"event\":\"psst\",\"data\":\"you\"}}]\n")
    );
    // Close reasons count streams only, and one stream was disconnected here.
    for (reason, count) in server.hub().stats().close_reasons {
        let expected = u64::from(reason == CloseReason::Kicked);
        assert_eq!(count, expected, "{reason:?}");
    }
}

#[test]
fn a_client_that_disconnects_while_its_poll_waits_is_removed_and_other_polls_stay() {
    let server = server(Config {
        heartbeat: Duration::from_millis(20),
        ..config()
    });
    let address = server.local_addr();
    let request = format!("GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut pollers = [(); 3].map(|()| Raw::connect(address));
    for poller in &mut pollers {
        poller.send(&request);
    }
    let [disconnected, mut waiting, mut pipelining] = pollers;
    // This client sends its next request before the answer to its poll.
    pipelining.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("all polls wait", || server.hub().clients() == 3);
    drop(disconnected);
    eventually("one poll is removed", || server.hub().clients() == 2);
    // The others still wait after some heartbeats.
    let mut stream = Stream::subscribe(address, "/events");
    stream.read_to(": heartbeat\n: heartbeat\n: heartbeat\n");
    assert_eq!(server.hub().clients(), 3);
    publish(address, "/events", "still there");
    for poller in [&mut waiting, &mut pipelining] {
        assert_eq!(data(&checked(poller.answer())), ["still there"]);
    }
    assert_eq!(pipelining.answer().text(), "{\"status\":\"ok\"}\n");
    waiting.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(waiting.answer().text(), "{\"status\":\"ok\"}\n");
}

#[test]
fn a_closed_hub_answers_waiting_polls_at_once_and_refuses_new_ones() {
    let server = server(config());
    let address = server.local_addr();
    let (answer, elapsed) = while_it_waits(
        server.hub(),
        || poll(address, LONG, ""),
        || server.hub().close(),
    );
    assert_eq!(answer.text(), "[]\n");
    assert!(elapsed < DEADLINE, "{elapsed:?}");
    let refused = get(address, "/poll");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("the server is closing"));
    let refused = server.hub().poll(Subscribe::default(), Duration::ZERO);
    assert_eq!(refused, Err(SubscribeError::Closed));
}

#[test]
fn a_shutdown_answers_waiting_polls_at_once() {
    let server = server(Config {
        grace: Duration::from_secs(60),
        ..config()
    });
    let address = server.local_addr();
    let hub = server.hub().clone();
    let (answer, elapsed) = while_it_waits(
        &hub,
        || {
            let mut raw = Raw::connect(address);
            raw.send(format!(
                "GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            ));
            (checked(raw.answer()), raw.is_closed())
        },
        || server.shutdown(),
    );
    assert_eq!((answer.0.text(), answer.1), ("[]\n", true));
    assert_eq!(answer.0.field("connection"), Some("close"));
    assert!(elapsed < DEADLINE, "{elapsed:?}");
}

// ---- no event is lost

/// Polls on one connection, each time with the cursor of the last answer, until `count`
/// events have come. Checks that their data is 0, `step`, 2 × `step` and so on, and that
/// no answer tells of a gap. Returns the number of polls.
#[track_caller]
fn poll_repeatedly(
    address: SocketAddr,
    query: &str,
    mut from: String,
    step: u64,
    count: u64,
) -> u64 {
    let (mut raw, mut next, mut polls) = (Raw::connect(address), 0, 0);
    while next < count * step {
        raw.send(format!(
            "GET /poll?{query} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {from}\r\n\r\n"
        ));
        let answer = checked(raw.answer());
        assert!(!answer.text().contains("recovery"), "{}", answer.text());
        for number in data(&answer) {
            assert_eq!(number, next.to_string(), "in poll {polls}");
            next += step;
        }
        from = cursor(&answer).to_owned();
        polls += 1;
    }
    polls
}

/// The event with this number as its data. Odd numbers have one topic, even numbers
/// another.
fn numbered(number: u64) -> Event {
    let topic = Topic::new(["even", "odd"][(number % 2) as usize]).unwrap();
    Event::new(number.to_string()).with_topic(topic)
}

/// A configuration with a history so large that no event is evicted.
fn large_history() -> Config {
    Config {
        history_events: 300_000,
        history_bytes: 64 << 20,
        ..config()
    }
}

#[test]
fn no_event_is_lost_between_two_polls_while_a_publisher_publishes_without_a_pause() {
    let server = server(large_history());
    let address = server.local_addr();
    let start = cursor(&poll(address, "", "")).to_owned();
    thread::scope(|scope| {
        let hub = server.hub();
        scope.spawn(|| {
            for number in 0..30_000 {
                hub.publish(numbered(number)).unwrap();
            }
        });
        for (query, step) in [
            ("topic=*&wait=10", 1),
            ("topic=even&wait=10", 2),
            ("topic=*", 1),
        ] {
            let start = start.clone();
            scope.spawn(move || poll_repeatedly(address, query, start, step, 30_000 / step));
        }
    });
}

#[test]
fn no_event_is_lost_between_a_poll_that_waited_and_the_next_poll() {
    for history_events in [300_000, 0] {
        let server = server(Config {
            history_events,
            ..large_history()
        });
        let address = server.local_addr();
        let start = cursor(&poll(address, "", "")).to_owned();
        let mut random = Random::new();
        thread::scope(|scope| {
            let poller =
                scope.spawn(move || poll_repeatedly(address, "topic=*&wait=60", start, 1, 3000));
            // If the publisher fails, this ends the poll that waits for it.
            let _over = OnDrop(|| server.hub().close());
            let mut number = 0;
            while number < 3000 {
                // The waiting poll is answered in the middle of this burst, and the next
                // poll gets the rest. Without a history a poll cannot get a rest, so the
                // burst is one event.
                eventually("a poll waits", || server.hub().clients() == 1);
                let most = if history_events == 0 { 1 } else { 40 };
                let (first, burst) = (number, 1 + random.below(most) as u64);
                for _ in 0..burst.min(3000 - number) {
                    server.hub().publish(numbered(number)).unwrap();
                    number += 1;
                }
                eventually("the poll is answered", || {
                    server.hub().stats().deliveries > first || poller.is_finished()
                });
            }
            let polls = poller.join().unwrap();
            assert!(polls >= 3000 / 40, "{polls} polls");
        });
    }
}

// ---- invalid requests

#[test]
fn an_invalid_poll_is_answered_at_once_with_the_reason() {
    let server = server(config());
    let address = server.local_addr();
    let huge = format!("wait={}", "9".repeat(40));
    let range = "it must be whole seconds from 0 to 60";
    for (query, fields, part) in [
        ("wait=", "", r#"wait is \"\", it must be"#),
        ("wait=61", "", range),
        ("wait=-1", "", range),
        ("wait=%2B1", "", range),
        ("wait=1.5", "", range),
        ("wait=1s", "", range),
        ("wait=%D9%A1", "", range),
        (&huge, "", range),
        ("topic=", "", "topic is empty"),
        ("topic=a%0Ab", "", "control character"),
        ("client_id=a%20b", "", r#"client_id is \"a b\""#),
        (
            "heartbeat=x",
            "",
            r#"heartbeat is \"x\", it must be event or comment"#,
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let row = format!("{method} {query}");
            let answer = request(address, method, &format!("/poll?{query}"), fields, "");
            assert_eq!(answer.status, 400, "{row}: {answer:?}");
            let body = answer.text();
            assert!(method == "HEAD" || body.contains(part), "{row}: {body}");
        }
    }
    let missing = get(address, "/poll/");
    assert_eq!(missing.status, 404);
}

#[test]
fn a_head_request_to_poll_gets_the_same_head_as_get_and_does_not_wait() {
    let server = server(config());
    let address = server.local_addr();
    publish(address, "/events", "one");
    for query in ["", "last_event_id=earliest"] {
        let target = format!("/poll?{query}&wait=0");
        let full = get(address, &target).without_date();
        let long_target = format!("/poll?{query}&{LONG}");
        let head = request(address, "HEAD", &long_target, "", "").without_date();
        assert_eq!(head.head, full.head, "{query}");
    }
}

#[test]
fn a_poll_that_is_not_wanted_any_more_returns_at_once_without_an_event() {
    let hub = Hub::new(Config {
        heartbeat: Duration::from_secs(600),
        ..config()
    })
    .unwrap();
    // The hub calls this function as soon as the poll is registered. The next call would
    // be one heartbeat later.
    let is_wanted = || {
        assert_eq!(hub.clients(), 1);
        hub.publish(Event::new("meanwhile")).unwrap();
        false
    };
    let minute = Duration::from_secs(60);
    let poll = hub
        .poll_while(Subscribe::default(), minute, is_wanted)
        .unwrap();
    assert_eq!((poll.messages.len(), hub.clients()), (0, 0));
    let params = Subscribe {
        cursor: Cursor::After(poll.cursor),
        ..Subscribe::default()
    };
    let rest = hub.poll(params, Duration::ZERO).unwrap().messages;
    assert_eq!(rest[0].data, "meanwhile");
}

#[test]
fn many_polls_that_wait_for_one_large_event_are_all_answered_within_a_small_budget() {
    let server = server(Config {
        total_answers: 700_000,
        ..config()
    });
    let address = server.local_addr();
    let mut polls: Vec<_> = (0..20).map(|_| Raw::connect(address)).collect();
    for raw in &mut polls {
        raw.send(format!(
            "GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
    }
    eventually("all polls wait", || server.hub().clients() == 20);
    let large = "x".repeat(200_000);
    publish(address, "/events", &large);
    for raw in &mut polls {
        // A poll that waits too long for its share would get a 503. Here there is enough
        // time for all.
        let answer = raw.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(data(&answer), [&*large]);
    }
}

#[test]
fn a_poll_takes_one_event_for_its_client_and_the_sender_of_a_second_one_gets_an_error() {
    let hub = Hub::new(config()).unwrap();
    let params = Subscribe {
        client_id: Some("me".parse().unwrap()),
        ..Subscribe::default()
    };
    let (mut accepted, mut failed) = (0, 0);
    let (poll, _) = while_it_waits(
        &hub,
        || hub.poll(params, Duration::from_secs(60)),
        || {
            for number in 0..50 {
                match hub.send_to("me", &Event::new(number.to_string())) {
                    Ok(_) => accepted += 1,
                    Err(_) => failed += 1,
                }
            }
        },
    );
    let messages = poll.unwrap().messages;
    assert_eq!((accepted, failed), (1, 49));
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].data, "0");
}
