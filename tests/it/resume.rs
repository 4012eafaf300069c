//! Clients that reconnect: each gets the missed events exactly once and in order, or is
//! told that some are lost.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tiny_sse::{
    CloseReason, Config, Cursor, Decoder, Event, Hub, Message, Pattern, Subscribe, Topic,
};

use crate::chance::Random;
use crate::kit::{OnDrop, Stream, config, get, number_after, post, server};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// An event that a test has published, and its id.
struct PublishedEvent {
    topic: &'static str,
    data: String,
    id: String,
}

/// Publishes `count` events: in turn without a topic and with each of three topics.
fn publish_in_turn(hub: &Hub, count: usize) -> Vec<PublishedEvent> {
    let publish = |number: usize| {
        let name = ["", "a", "b/1", "b/2"][number % 4];
        let event = Event::new(format!("{number}"));
        let event = if name.is_empty() {
            event
        } else {
            event.with_topic(topic(name))
        };
        PublishedEvent {
            topic: name,
            data: number.to_string(),
            id: hub.publish(event).unwrap().id.to_string(),
        }
    };
    (0..count).map(publish).collect()
}

#[test]
fn a_client_that_reconnects_gets_each_missed_event_of_its_topics_exactly_once() {
    let server = server(config());
    let address = server.local_addr();
    let start = Stream::open(address, "/events", "").next_id();
    let published = publish_in_turn(server.hub(), 24);
    // Targets, with the topics that they ask for. Events without a topic are for all
    // clients.
    let targets: [(&str, &[&str]); 6] = [
        ("/events?client_id=me", &[""]),
        ("/events/a?client_id=me", &["", "a"]),
        ("/events/b/*?client_id=me", &["", "b/1", "b/2"]),
        ("/events?topic=a&topic=b/2&client_id=me", &["", "a", "b/2"]),
        (
            "/events?topic=a&topic=*&client_id=me",
            &["", "a", "b/1", "b/2"],
        ),
        ("/events/nobody?client_id=me", &[""]),
    ];
    for (target, topics) in targets {
        for seen in 0..=published.len() {
            let cursor = seen
                .checked_sub(1)
                .map_or(&*start, |last| &published[last].id);
            let what = format!("{target} after {seen} events");
            let missed: Vec<_> = published[seen..]
                .iter()
                .filter(|event| topics.contains(&event.topic))
                .collect();
            let mut stream = Stream::open(address, target, &format!("Last-Event-ID: {cursor}\r\n"));
            assert_eq!(
                stream.next().last_event_id,
                cursor,
                "{what}: the welcome's id"
            );
            let recovery = stream.next();
            assert_eq!(
                (recovery.name.as_str(), recovery.last_event_id.as_str()),
                ("recovery", cursor),
                "{what}"
            );
            assert_eq!(
                recovery.data,
                format!(
                    r#"{{"recovered_from":"{cursor}","replayed":{},"complete":true}}"#,
                    missed.len()
                ),
                "{what}"
            );
            for expected in missed {
                let event = stream.next();
                assert_eq!(
                    (&event.data, &event.last_event_id),
                    (&expected.data, &expected.id),
                    "{what}"
                );
            }
            // If there were further events, they would come before this one.
            post(address, "/clients/me", "and nothing more");
            assert_eq!(stream.next().data, "and nothing more", "{what}");
        }
    }
}

#[test]
fn the_recovery_event_is_right_for_each_kind_of_cursor() {
    // The queue is small, because the history always holds at least as many bytes. So it
    // holds three events.
    let server = server(Config {
        history_events: 3,
        queue_bytes: 16,
        ..config()
    });
    let address = server.local_addr();
    let start = Stream::open(address, "/events", "").next_id();
    let without_events = [
        (&*start, 0, "true"),
        ("0-1", 0, r#"false,"reason":"evicted""#),
    ];
    let check = |cursor: &str, replayed: usize, complete: &str| {
        let (stream, recovery) = Stream::resume(address, "/events", cursor);
        assert_eq!(
            recovery,
            format!(
                r#"{{"recovered_from":"{cursor}","replayed":{replayed},"complete":{complete}}}"#
            )
        );
        stream
    };
    for (cursor, replayed, complete) in without_events {
        check(cursor, replayed, complete);
    }
    let ids: Vec<String> = (0..6)
        .map(|number| {
            let event = Event::new(number.to_string());
            server.hub().publish(event).unwrap().id.to_string()
        })
        .collect();
    let future = format!("{}-0", u64::MAX);
    let (evicted, unknown) = (r#"false,"reason":"evicted""#, r#"false,"reason":"unknown""#);
    for (cursor, replayed, complete) in [
        (&*ids[5], 0, "true"),
        (&ids[4], 1, "true"),
        (&ids[3], 2, "true"),
        (&ids[2], 3, "true"),
        (&ids[1], 3, evicted),
        (&ids[0], 3, evicted),
        (&start, 3, evicted),
        ("0-0", 3, evicted),
        ("no id of ours", 3, unknown),
        ("00-0", 3, unknown),
        ("-", 3, unknown),
        (&future, 3, r#"false,"reason":"future""#),
    ] {
        let mut stream = check(cursor, replayed, complete);
        for number in 6 - replayed..6 {
            assert_eq!(stream.next().data, number.to_string(), "after {cursor}");
        }
    }
    let mut earliest = Stream::open(address, "/events?last_event_id=earliest", "");
    assert_eq!(earliest.next().last_event_id, ids[2]);
    assert_eq!(
        earliest.next().data,
        r#"{"recovered_from":"earliest","replayed":3,"complete":true}"#
    );
    assert_eq!(earliest.next().data, "3");
    // The header takes precedence over the query: the browser has read on since the page
    // made the URL.
    let target = format!("/events?last_event_id={}", ids[3]);
    let (mut both, recovery) = Stream::resume(address, &target, &ids[4]);
    assert!(recovery.contains(r#""replayed":1,"#), "{recovery}");
    assert_eq!(both.next().data, "5");
}

#[test]
fn a_publishers_own_id_is_on_the_wire_and_works_as_a_cursor() {
    let server = server(config());
    let address = server.local_addr();
    let mut live = Stream::subscribe(address, "/events");
    for number in 0..6 {
        let answer = post(address, &format!("/events?id=order-{number}"), "");
        assert!(
            answer.text().contains(&format!(r#""id":"order-{number}""#)),
            "{}",
            answer.text()
        );
        assert_eq!(live.next().last_event_id, format!("order-{number}"));
    }
    let (mut stream, recovery) = Stream::resume(address, "/events", "order-3");
    assert!(
        recovery.ends_with(r#""replayed":2,"complete":true}"#),
        "{recovery}"
    );
    assert_eq!(stream.next().last_event_id, "order-4");
    assert_eq!(stream.next().last_event_id, "order-5");
    let (_, recovery) = Stream::resume(address, "/events", "order-6");
    assert!(recovery.ends_with(r#""reason":"unknown"}"#), "{recovery}");
    // The id in the welcome of a new client works as a cursor, although the last event
    // has an own id.
    let welcome = Stream::open(address, "/events", "").next_id();
    let (_, recovery) = Stream::resume(address, "/events", &welcome);
    assert!(
        recovery.ends_with(r#""replayed":0,"complete":true}"#),
        "{recovery}"
    );
}

#[test]
fn without_a_history_a_client_that_reconnects_is_told_of_a_gap_only_if_it_missed_an_event() {
    let server = server(Config {
        history_events: 0,
        ..config()
    });
    let address = server.local_addr();
    let mut live = Stream::subscribe(address, "/events");
    for number in 0..20 {
        post(address, "/events", number.to_string());
        let event = live.next();
        assert_eq!(event.data, number.to_string());
        let (mut back, recovery) =
            Stream::resume(address, "/events?client_id=me", &event.last_event_id);
        assert!(
            recovery.ends_with(r#""replayed":0,"complete":true}"#),
            "{recovery}"
        );
        post(address, "/clients/me", "live");
        assert_eq!(back.next().data, "live");
    }
    let seen = live.cursor().to_owned();
    post(address, "/events", "missed");
    let (_, recovery) = Stream::resume(address, "/events", &seen);
    assert!(
        recovery.ends_with(r#""replayed":0,"complete":false,"reason":"evicted"}"#),
        "{recovery}"
    );
}

#[test]
fn a_client_that_is_cut_off_within_a_long_replay_resumes_after_its_last_event() {
    const EVENTS: usize = 600;
    let server = server(config());
    let address = server.local_addr();
    let start = Stream::open(address, "/events", "").next_id();
    // 6 MB: more than the socket buffers hold, and about a hundred pieces of a replay.
    for number in 0..EVENTS {
        let event = Event::new(format!("{number} {}", "x".repeat(10_000)));
        server.hub().publish(event).unwrap();
    }
    let mut random = Random::new();
    let (mut cursor, mut seen) = (start, 0);
    while seen < EVENTS {
        let mut stream = Stream::open(address, "/events", &format!("Last-Event-ID: {cursor}\r\n"));
        // A client that is cut off before the first replayed event must not skip any. So
        // the id of the welcome is the cursor after which the replay begins.
        assert_eq!(stream.next().last_event_id, cursor);
        assert_eq!(
            number_after(&stream.next().data, "\"replayed\":"),
            (EVENTS - seen) as u64
        );
        for _ in 0..random.below(60).min(EVENTS - seen) {
            let event = stream.next();
            assert_eq!(number_after(&event.data, ""), seen as u64);
            seen += 1;
        }
        cursor = stream.cursor().to_owned();
    }
}

#[test]
fn no_event_is_lost_or_doubled_between_a_long_replay_and_events_published_meanwhile() {
    const BEFORE: usize = 300;
    const ALL: usize = 900;
    for round in 0..10 {
        let server = server(Config {
            queue_bytes: 8 << 20,
            history_bytes: 24 << 20,
            ..config()
        });
        let hub = server.hub();
        let publish = |number: usize| {
            let event = Event::new(format!("{number} {}", "x".repeat(2_000)));
            hub.publish(event).unwrap().id.to_string()
        };
        let first = publish(0);
        (1..BEFORE).for_each(|number| drop(publish(number)));
        thread::scope(|scope| {
            scope.spawn(|| (BEFORE..ALL).for_each(|number| drop(publish(number))));
            let (mut stream, recovery) = Stream::resume(server.local_addr(), "/events", &first);
            assert!(recovery.ends_with(r#""complete":true}"#), "{recovery}");
            for number in 1..ALL as u64 {
                let event = stream.next();
                assert_eq!(number_after(&event.data, ""), number, "round {round}");
            }
        });
    }
}

/// A writer that decodes the stream as a browser does, and fails when it has `enough`
/// messages.
struct Reader {
    decoder: Decoder,
    messages: Vec<Message>,
    enough: usize,
}

impl Reader {
    fn new(enough: usize) -> Reader {
        Reader {
            decoder: Decoder::new(1 << 20),
            messages: Vec::new(),
            enough,
        }
    }
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let messages = &mut self.messages;
        self.decoder
            .feed(bytes, |message| messages.push(message))
            .expect("events within the limit");
        if messages.len() >= self.enough {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls `round` again and again while a thread publishes without a pause. The data of
/// the events are numbers; odd numbers have one topic, even numbers another. The
/// arguments of `round` are the number of the round, and the number and the id of the
/// latest event.
fn while_publishing_without_a_pause(
    hub: &Hub,
    rounds: usize,
    mut round: impl FnMut(usize, u64, String),
) {
    let latest = Mutex::new((0, String::new()));
    let is_over = AtomicBool::new(false);
    let publish = |number: u64| {
        let topic = topic(["even", "odd"][(number % 2) as usize]);
        let event = Event::new(number.to_string()).with_topic(topic);
        let id = hub.publish(event).unwrap().id;
        *latest.lock().unwrap() = (number, id.to_string());
    };
    publish(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            (1..)
                .take_while(|_| !is_over.load(Ordering::Relaxed))
                .for_each(publish);
        });
        // A failed round must end the publisher, too, because the scope waits for its
        // threads.
        let _over = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        for count in 0..rounds {
            let (number, id) = latest.lock().unwrap().clone();
            round(count, number, id);
        }
    });
}

/// A configuration with a history so large that no event is evicted between the choice of
/// a cursor and its use.
fn large_history() -> Config {
    Config {
        history_events: 300_000,
        history_bytes: 64 << 20,
        ..config()
    }
}

/// The data that a client gets after `number`. `step` is 1 for a client of both topics,
/// and 2 for the even topic.
fn expected(number: u64, step: u64) -> impl Iterator<Item = String> {
    let first = (number + 1).next_multiple_of(step);
    (first..).step_by(step as usize).map(|n| n.to_string())
}

#[test]
fn no_event_is_lost_or_doubled_between_replay_and_live_over_sockets() {
    let server = server(large_history());
    let address = server.local_addr();
    let mut random = Random::new();
    while_publishing_without_a_pause(server.hub(), 300, |round, number, id| {
        let (target, step) = [("/events/*", 1), ("/events/even", 2)][round % 2];
        let (mut stream, recovery) = Stream::resume(address, target, &id);
        assert!(recovery.ends_with(r#""complete":true}"#), "{recovery}");
        for expected in expected(number, step).take(20 + random.below(200)) {
            assert_eq!(stream.next().data, expected, "round {round}");
        }
    });
}

#[test]
fn no_event_is_lost_or_doubled_between_replay_and_live_in_a_writer() {
    let hub = Hub::new(large_history()).unwrap();
    let mut random = Random::new();
    while_publishing_without_a_pause(&hub, 500, |round, number, id| {
        let (pattern, step) = [("*", 1), ("even", 2)][round % 2];
        let params = Subscribe {
            patterns: [Pattern::new(pattern).unwrap()].into_iter().collect(),
            cursor: Cursor::After(id),
            ..Subscribe::default()
        };
        let mut reader = Reader::new(20 + random.below(200));
        let close_reason = hub.subscribe(params).unwrap().write_to(&mut reader);
        assert_eq!(close_reason, CloseReason::HungUp, "round {round}");
        let events = &reader.messages[2..];
        assert!(events.len() >= 18);
        for (event, expected) in events.iter().zip(expected(number, step)) {
            assert_eq!(event.data, expected, "round {round}");
        }
    });
    assert_eq!(hub.clients(), 0);
}

#[test]
fn a_client_that_is_registered_and_served_later_gets_all_events_since_its_registration() {
    let hub = Hub::new(config()).unwrap();
    let first = hub.publish(Event::new("0")).unwrap().id;
    let cursors = [
        Cursor::Now,
        Cursor::Earliest,
        Cursor::After(first.to_string()),
    ];
    let subscriptions = cursors.map(|cursor| {
        let params = Subscribe {
            cursor,
            ..Subscribe::default()
        };
        hub.subscribe(params).unwrap()
    });
    for number in 1..100 {
        let published = hub.publish(Event::new(number.to_string())).unwrap();
        assert_eq!(published.recipients, 3);
    }
    // Before the events come the welcome and, if there is a cursor, the recovery event.
    for (subscription, (skip, first)) in subscriptions.into_iter().zip([(1, 1), (2, 0), (2, 1)]) {
        let mut reader = Reader::new(skip + 100 - first);
        subscription.write_to(&mut reader);
        let seen = reader.messages[skip..].iter().map(|event| &*event.data);
        assert!(
            seen.eq((first..100)
                .map(|number| number.to_string())
                .collect::<Vec<_>>())
        );
    }
}

/// Registers a client, calls `between`, and then writes its stream until it ends or has
/// `enough` messages. Returns the close reason and the messages.
fn served(
    hub: &Hub,
    cursor: Cursor,
    enough: usize,
    between: impl FnOnce(),
) -> (CloseReason, Vec<Message>) {
    let params = Subscribe {
        cursor,
        ..Subscribe::default()
    };
    let subscription = hub.subscribe(params).unwrap();
    between();
    let mut reader = Reader::new(enough);
    let close_reason = subscription.write_to(&mut reader);
    (close_reason, reader.messages)
}

#[test]
fn a_client_gets_the_oldest_event_although_it_is_evicted_after_the_registration() {
    // The history is full, as in a server that has run for a while.
    let hub = Hub::new(Config {
        history_events: 100,
        queue_bytes: 64,
        ..config()
    })
    .unwrap();
    let publish = |number: usize| {
        let event = Event::new(number.to_string());
        hub.publish(event).unwrap().id.to_string()
    };
    let ids: Vec<_> = (0..200).map(publish).collect();
    for (round, cursor) in ["earliest", "before the oldest", "evicted"]
        .iter()
        .enumerate()
    {
        let oldest = 100 + 10 * round;
        let (from, complete) = match *cursor {
            "earliest" => (Cursor::Earliest, true),
            "evicted" => (Cursor::After(ids[3].clone()), false),
            _ => (Cursor::After(ids[oldest - 1].clone()), true),
        };
        // A tenth of the history is evicted between the registration and the replay.
        let new = || (0..10).for_each(|new| drop(publish(200 + 10 * round + new)));
        let (_, messages) = served(&hub, from, 12, new);
        let recovery = format!(r#""replayed":100,"complete":{complete}"#);
        assert!(
            messages[1].data.contains(&recovery),
            "{cursor}: {}",
            messages[1].data
        );
        let events = messages[2..].iter().map(|event| event.data.clone());
        let expected = (oldest..).map(|number| number.to_string());
        assert!(messages.len() >= 12, "{cursor}: no events");
        assert!(
            events
                .zip(expected)
                .all(|(seen, expected)| seen == expected),
            "{cursor}"
        );
    }
}

/// Waits until the fan-out has delivered all published events: it delivers an event for
/// one client after them.
fn wait_for_fan_out(hub: &Hub) {
    let params = Subscribe {
        client_id: Some("other".parse().unwrap()),
        ..Subscribe::default()
    };
    let other = hub.subscribe(params).unwrap();
    hub.send_to("other", &Event::new("last")).unwrap();
    let mut reader = Reader::new(2);
    other.write_to(&mut reader);
    assert_eq!(reader.messages[1].data, "last");
}

#[test]
fn a_client_with_a_full_queue_is_disconnected_and_gets_the_whole_queue_from_the_history() {
    const QUEUE: usize = 64 << 10;
    for bytes in [1, 30, 200, 1_000, 5_000] {
        let hub = Hub::new(Config {
            history_events: 10,
            queue_bytes: QUEUE,
            ..config()
        })
        .unwrap();
        let cursor = hub.publish(Event::new("")).unwrap().id.to_string();
        // No thread writes this stream yet, so the events fill its queue.
        let slow = hub.subscribe(Subscribe::default()).unwrap();
        let text = "x".repeat(bytes);
        let (mut sent, mut count) = (0, 0);
        while sent < QUEUE * 3 / 2 {
            hub.publish(Event::new(&*text)).unwrap();
            // `id: 1763790000123-0`, `data: `, and their line breaks.
            (sent, count) = (sent + bytes + 28, count + 1);
        }
        // If the stream were written earlier, its queue might never be full.
        wait_for_fan_out(&hub);
        let close_reason = slow.write_to(&mut io::sink());
        assert_eq!(close_reason, CloseReason::FellBehind, "{bytes} bytes each");
        let (_, messages) = served(&hub, Cursor::After(cursor), 2, || ());
        let recovery = format!(r#""replayed":{count},"complete":true}}"#);
        assert!(
            messages[1].data.ends_with(&recovery),
            "{bytes} bytes each, {count} of them: {}",
            messages[1].data
        );
    }
}

#[test]
fn a_client_gets_its_whole_replay_before_the_close_event_when_the_hub_closes() {
    let hub = Hub::new(config()).unwrap();
    // 500 KB: several pieces of a replay.
    let text = "x".repeat(1_000);
    for _ in 0..500 {
        hub.publish(Event::new(&*text)).unwrap();
    }
    let other = hub.subscribe(Subscribe::default()).unwrap();
    let (close_reason, messages) = served(&hub, Cursor::Earliest, usize::MAX, || {
        hub.close();
        // After this stream has ended, the other one is closed, too, or about to be
        // closed.
        other.write_to(&mut io::sink());
    });
    assert_eq!(
        (close_reason, messages.len()),
        (CloseReason::ServerClosing, 503)
    );
}

#[test]
fn stats_have_the_first_and_the_last_id_and_the_number_of_the_events_in_the_history() {
    let server = server(config());
    let published = publish_in_turn(server.hub(), 50);
    let stats = get(server.local_addr(), "/stats");
    let extent = format!(
        r#""first_id":"{}","last_id":"{}""#,
        published[0].id, published[49].id
    );
    assert!(stats.text().contains(&extent), "{}", stats.text());
    assert!(stats.text().contains(r#""history":{"events":50,"#));
}

#[test]
fn a_client_cut_off_within_its_welcome_keeps_its_cursor_or_knows_of_the_gap() {
    let hub = Hub::new(Config {
        history_events: 3,
        queue_bytes: 16,
        ..config()
    })
    .unwrap();
    let ids: Vec<_> = (0..10)
        .map(|number| hub.publish(Event::new(number.to_string())).unwrap().id)
        .map(|id| id.to_string())
        .collect();
    for cursor in [&ids[1], &ids[6], &ids[8]] {
        let params = Subscribe {
            cursor: Cursor::After(cursor.clone()),
            ..Subscribe::default()
        };
        let welcome = hub.subscribe(params).unwrap().take_welcome();
        for cut in 0..=welcome.len() {
            // A browser that has the cursor from an earlier stream.
            let (mut decoder, mut is_told) = (Decoder::new(1 << 10), false);
            for bytes in [
                format!("id: {cursor}\ndata\n\n").as_bytes(),
                &welcome[..cut],
            ] {
                decoder
                    .feed(bytes, |message| is_told |= message.name == "recovery")
                    .unwrap();
            }
            let new_cursor = decoder.last_event_id();
            assert!(
                is_told || new_cursor == cursor,
                "cut after {cut} bytes, the cursor is {new_cursor}: {}",
                String::from_utf8_lossy(&welcome[..cut])
            );
        }
    }
}

impl Stream {
    /// Reads the next event and returns its id.
    fn next_id(mut self) -> String {
        self.next().last_event_id
    }
}
