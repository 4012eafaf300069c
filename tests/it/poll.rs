//! Polling, plain and long: an answer at a time, and between two of them nothing lost.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::hub::SubscribeError;
use tiny_sse::{CloseReason, Config, Cursor, Event, Hub, Poll, Subscribe, Topic};

use crate::chance::Random;
use crate::kit::{
    Answer, DEADLINE, Finally, Raw, Stream, config, eventually, get, number_after, post, request,
    server,
};

/// A wait that no test sits out: it is over when it should be, or the test fails by its deadline.
const LONG: &str = "wait=60";

/// Polls, and checks what is true of every answer.
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

#[track_caller]
fn cursor(answer: &Answer) -> &str {
    answer.field("last-event-id").expect("a cursor")
}

/// The data of the events, if none of it has to be escaped.
fn data(answer: &Answer) -> Vec<String> {
    let parts = answer.text().split("\"data\":\"").skip(1);
    parts
        .map(|part| part.split('"').next().unwrap().to_owned())
        .collect()
}

/// The hub's id in an answer to a publisher.
#[track_caller]
fn publish(address: SocketAddr, target: &str, body: &str) -> String {
    let answer = post(address, target, body);
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    let (_, behind) = answer.text().split_once("\"id\":\"").unwrap();
    behind.split('"').next().unwrap().to_owned()
}

/// Begins a poll that has to wait, and lets `then` go on when it does.
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
fn a_poll_answers_what_was_missed_and_where_to_go_on() {
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
            "nothing twice"
        );
    }
}

#[test]
fn the_cursor_is_found_where_a_stream_would_find_it() {
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
        // From now on.
        ("", "", &[]),
    ] {
        let answer = poll(address, &format!("last_event_id={query}"), header);
        assert_eq!(data(&answer), expected, "?{query}, header {header:?}");
        assert_eq!(cursor(&answer), ids[2], "?{query}, header {header:?}");
    }
}

#[test]
fn a_publishers_own_id_is_a_cursor_and_what_is_handed_out_is_ours() {
    let server = server(config());
    let address = server.local_addr();
    let own = "/events?id=order-1";
    assert_eq!(publish(address, own, "mine"), "order-1");
    let all = poll(address, "last_event_id=earliest", "");
    assert_eq!(
        all.text(),
        "[{\"id\":\"order-1\",\"event\":\"message\",\"data\":\"mine\"}]\n"
    );
    let ours = cursor(&all).to_owned();
    assert!(ours.parse::<tiny_sse::EventId>().is_ok(), "{ours}");
    publish(address, "/events", "next");
    for (query, header) in [("last_event_id=order-1", ""), ("", "order-1"), ("", &*ours)] {
        assert_eq!(data(&poll(address, query, header)), ["next"], "{query:?}");
    }
    // The same of an event that was waited for.
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
fn a_poll_gets_its_topics_and_its_cursor_moves_on_over_all_others() {
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
        // An empty answer too has been further than the one before it.
        let later = publish(address, "/events/nobody", "x");
        let empty = poll(address, query, &last);
        assert_eq!((empty.text(), cursor(&empty)), ("[]\n", &*later), "{query}");
        last = later;
    }
}

#[test]
fn a_gap_is_told_first_and_only_once() {
    let server = server(Config {
        history_events: 2,
        history_bytes: 2000,
        queue_bytes: 1,
        ..config()
    });
    let address = server.local_addr();
    let birth = cursor(&poll(address, "", "")).to_owned();
    let ids: Vec<String> = (0..4)
        .map(|n| publish(address, "/events", &n.to_string()))
        .collect();
    let future = format!("{}-0", u64::MAX);
    // 2 and 3 are retained.
    for (id, reason, topic) in [
        (&*birth, "evicted", ""),
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
            let told = format!(
                "[{{\"event\":\"recovery\",\"data\":\"{{\\\"recovered_from\\\":\\\"{quoted}\\\",\
                 \\\"replayed\\\":2,\\\"complete\\\":false,\\\"reason\\\":\\\"{reason}\\\"}}\"}},\
                 {{\"id\":\"{}\",\"event\":\"message\",\"data\":\"2\"}},\
                 {{\"id\":\"{}\",\"event\":\"message\",\"data\":\"3\"}}]\n",
                ids[2], ids[3]
            );
            assert_eq!(answer.text(), told, "{id}");
            assert_eq!(cursor(&answer), ids[3], "{id}");
            assert_eq!(poll(address, "", cursor(&answer)).text(), "[]\n", "{id}");
        }
    }
    // Who has missed nothing that is gone, or asks for whatever there is, is told of nothing.
    for (query, id) in [("", &*ids[1]), ("last_event_id=earliest", "")] {
        assert_eq!(data(&poll(address, query, id)), ["2", "3"], "{query}");
    }
}

#[test]
fn an_answer_is_bounded_cut_between_events_and_the_next_one_goes_on() {
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
    // One event that is larger than an answer comes whole.
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
fn an_answer_is_bounded_as_it_is_on_the_wire_whatever_json_makes_of_the_events() {
    let server = server(config());
    let address = server.local_addr();
    for (data, count) in [
        // Six bytes for each one; two for each one; an event of no more than its id and its name.
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
fn what_is_published_while_a_poll_waits_arrives_at_once() {
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
        // A bound on correctness: the wait is a minute.
        assert!(elapsed < DEADLINE, "{elapsed:?}");
        assert_eq!(server.hub().clients(), 0);
        // For the next row nothing is missed.
        if id == cursor_before {
            assert_eq!(data(&poll(address, "", id)), ["now"]);
        }
    }
}

#[test]
fn a_wait_in_vain_is_over_in_time_and_answers_nothing() {
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
fn a_cursor_is_not_evicted_by_what_its_client_did_not_ask_for() {
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
fn a_hundred_polls_wait_and_are_no_streams_that_ended() {
    let server = server(config());
    let address = server.local_addr();
    let before = cursor(&poll(address, "", "")).to_owned();
    let mut pollers: Vec<Raw> = (0..100).map(|_| Raw::connect(address)).collect();
    for poller in &mut pollers {
        poller.send(format!(
            "GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {before}\r\n\r\n"
        ));
    }
    eventually("all wait", || server.hub().clients() == 100);
    let stats = get(address, "/stats");
    assert!(stats.text().contains("\"active_connections\":100,"));
    let answer = post(address, "/events", "all");
    assert_eq!(number_after(answer.text(), "\"recipients\":"), 100);
    for poller in &mut pollers {
        let answer = checked(poller.answer());
        assert_eq!(data(&answer), ["all"]);
        // The connection goes on, with the next poll.
        let next = cursor(&answer).to_owned();
        poller.send(format!(
            "GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {next}\r\n\r\n"
        ));
    }
    eventually("all wait again", || server.hub().clients() == 100);
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
fn a_poll_needs_a_place_only_if_it_has_to_wait() {
    let server = server(Config {
        max_clients: 1,
        retry: Duration::from_secs(7),
        ..config()
    });
    let address = server.local_addr();
    let before = cursor(&poll(address, "", "")).to_owned();
    let _only = Stream::subscribe(address, "/events?client_id=only");
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
fn a_wait_that_somebody_ends_is_answered_at_once() {
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
    assert_eq!(server.hub().clients(), 1, "the stream that took its name");
    assert!(server.hub().disconnect("me"));
    // A word to it alone, which the cursor says nothing of.
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
    // Of those who were told to leave, one was a stream.
    for (why, count) in server.hub().stats().close_reasons {
        assert_eq!(count, u64::from(why == CloseReason::Kicked), "{why:?}");
    }
}

#[test]
fn who_hangs_up_while_it_waits_is_gone_within_a_heartbeat_and_nobody_else() {
    let server = server(Config {
        heartbeat: Duration::from_millis(20),
        ..config()
    });
    let address = server.local_addr();
    let waiting = format!("GET /poll?{LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut pollers = [(); 3].map(|()| Raw::connect(address));
    for poller in &mut pollers {
        poller.send(&waiting);
    }
    let [gone, mut there, mut ahead] = pollers;
    // Its next request is on its way already.
    ahead.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("all wait", || server.hub().clients() == 3);
    drop(gone);
    eventually("one is missed", || server.hub().clients() == 2);
    // Some heartbeats later.
    let mut stream = Stream::subscribe(address, "/events");
    stream.read_to(": heartbeat\n: heartbeat\n: heartbeat\n");
    assert_eq!(server.hub().clients(), 3);
    publish(address, "/events", "still there");
    for poller in [&mut there, &mut ahead] {
        assert_eq!(data(&checked(poller.answer())), ["still there"]);
    }
    assert_eq!(ahead.answer().text(), "{\"status\":\"ok\"}\n");
    there.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(there.answer().text(), "{\"status\":\"ok\"}\n");
}

#[test]
fn a_hub_that_closes_ends_the_wait_and_refuses_the_next() {
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
fn a_shutdown_waits_for_no_poll() {
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

// ---- nothing lost

/// Polls on one connection, each from the cursor of the one before, until `count` numbers have come,
/// and checks that they are 0, `step`, 2 × `step` … and nothing is told of a gap.
#[track_caller]
fn chain(address: SocketAddr, query: &str, mut from: String, step: u64, count: u64) -> u64 {
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

fn numbered(number: u64) -> Event {
    let topic = Topic::new(["even", "odd"][(number % 2) as usize]).unwrap();
    Event::new(number.to_string()).with_topic(topic)
}

/// So much that nothing is evicted.
fn deep() -> Config {
    Config {
        history_events: 300_000,
        history_bytes: 64 << 20,
        ..config()
    }
}

#[test]
fn between_two_polls_nothing_is_lost_under_a_publisher_flat_out() {
    let server = server(deep());
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
            scope.spawn(move || chain(address, query, start, step, 30_000 / step));
        }
    });
}

#[test]
fn nothing_is_lost_between_a_wait_and_the_next_poll() {
    for history_events in [300_000, 0] {
        let server = server(Config {
            history_events,
            ..deep()
        });
        let address = server.local_addr();
        let start = cursor(&poll(address, "", "")).to_owned();
        let mut random = Random::new();
        thread::scope(|scope| {
            let poller = scope.spawn(move || chain(address, "topic=*&wait=60", start, 1, 3000));
            // If the publisher fails, who waits for it is let go.
            let _over = Finally(|| server.hub().close());
            let mut number = 0;
            while number < 3000 {
                // A burst into a poll that waits and is answered in the middle of it, so that the next
                // one finds the rest. Without a history there must be no rest.
                eventually("a poll waits", || server.hub().clients() == 1);
                let most = if history_events == 0 { 1 } else { 40 };
                let (first, burst) = (number, 1 + random.below(most) as u64);
                for _ in 0..burst.min(3000 - number) {
                    server.hub().publish(numbered(number)).unwrap();
                    number += 1;
                }
                eventually("it is answered", || {
                    server.hub().stats().deliveries > first || poller.is_finished()
                });
            }
            let polls = poller.join().unwrap();
            assert!(polls >= 3000 / 40, "{polls} polls");
        });
    }
}

// ---- bad input

#[test]
fn a_bad_poll_is_told_why_and_waits_for_nothing() {
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
fn head_has_the_head_of_a_poll_and_does_not_wait() {
    let server = server(config());
    let address = server.local_addr();
    publish(address, "/events", "one");
    for query in ["", "last_event_id=earliest"] {
        let target = format!("/poll?{query}&wait=0");
        let full = get(address, &target).timeless();
        let waiting = format!("/poll?{query}&{LONG}");
        let head = request(address, "HEAD", &waiting, "", "").timeless();
        assert_eq!(head.head, full.head, "{query}");
    }
}

#[test]
fn one_who_is_not_wanted_once_it_waits_does_not_wait_and_takes_nothing() {
    let hub = Hub::new(Config {
        heartbeat: Duration::from_secs(600),
        ..config()
    })
    .unwrap();
    // Asked when it has its place, behind which nobody looks for it any more.
    let refuse = || {
        assert_eq!(hub.clients(), 1);
        hub.publish(Event::new("meanwhile")).unwrap();
        false
    };
    let minute = Duration::from_secs(60);
    let poll = hub
        .poll_while(Subscribe::default(), minute, refuse)
        .unwrap();
    assert_eq!((poll.messages.len(), hub.clients()), (0, 0));
    let wish = Subscribe {
        cursor: Cursor::After(poll.cursor),
        ..Subscribe::default()
    };
    let rest = hub.poll(wish, Duration::ZERO).unwrap().messages;
    assert_eq!(rest[0].data, "meanwhile");
}

#[test]
fn one_large_event_that_wakes_many_polls_is_made_into_few_answers_at_a_time() {
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
    eventually("all wait", || server.hub().clients() == 20);
    let large = "x".repeat(200_000);
    publish(address, "/events", &large);
    for raw in &mut polls {
        // 503 would do as well, but there is time to wait for the others.
        let answer = raw.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(data(&answer), [&*large]);
    }
}

#[test]
fn a_poll_takes_one_event_for_it_alone_and_a_second_one_is_told_that_it_has_gone() {
    let hub = Hub::new(config()).unwrap();
    let wish = Subscribe {
        client_id: Some("me".parse().unwrap()),
        ..Subscribe::default()
    };
    let (mut taken, mut gone) = (0, 0);
    let (poll, _) = while_it_waits(
        &hub,
        || hub.poll(wish, Duration::from_secs(60)),
        || {
            for number in 0..50 {
                match hub.send_to("me", &Event::new(number.to_string())) {
                    Ok(_) => taken += 1,
                    Err(_) => gone += 1,
                }
            }
        },
    );
    let messages = poll.unwrap().messages;
    assert_eq!((taken, gone), (1, 49));
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].data, "0");
}
