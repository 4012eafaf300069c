//! Coming back: what a client missed, exactly, once and in order, or the word that it is gone.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tiny_sse::{
    CloseReason, Config, Cursor, Decoder, Event, Hub, Message, Pattern, Subscribe, Topic,
};

use crate::chance::Random;
use crate::kit::{Finally, Stream, config, get, number_after, post, server};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// What was published, as the tests need it again.
struct Said {
    topic: &'static str,
    data: String,
    id: String,
}

/// `count` events, in turn without a topic and with each of three.
fn say(hub: &Hub, count: usize) -> Vec<Said> {
    let say = |number: usize| {
        let name = ["", "a", "b/1", "b/2"][number % 4];
        let event = Event::new(format!("{number}"));
        let event = if name.is_empty() {
            event
        } else {
            event.with_topic(topic(name))
        };
        Said {
            topic: name,
            data: number.to_string(),
            id: hub.publish(event).unwrap().id.to_string(),
        }
    };
    (0..count).map(say).collect()
}

#[test]
fn who_comes_back_gets_exactly_what_it_missed_of_what_it_asked_for() {
    let server = server(config());
    let address = server.local_addr();
    let born = Stream::open(address, "/events", "").next_id();
    let said = say(server.hub(), 24);
    // Targets, with the topics that they ask for. What has no topic is for everybody.
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
        for seen in 0..=said.len() {
            let cursor = seen.checked_sub(1).map_or(&*born, |last| &said[last].id);
            let what = format!("{target} after {seen} events");
            let missed: Vec<_> = said[seen..]
                .iter()
                .filter(|said| topics.contains(&said.topic))
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
            for said in missed {
                let event = stream.next();
                assert_eq!(
                    (&event.data, &event.last_event_id),
                    (&said.data, &said.id),
                    "{what}"
                );
            }
            // Whatever else were there would come before this.
            post(address, "/clients/me", "and nothing more");
            assert_eq!(stream.next().data, "and nothing more", "{what}");
        }
    }
}

#[test]
fn every_cursor_is_told_the_truth_about_itself() {
    // A queue so small that the history holds three events.
    let server = server(Config {
        history_events: 3,
        queue_bytes: 16,
        ..config()
    });
    let address = server.local_addr();
    let born = Stream::open(address, "/events", "").next_id();
    let early = [
        (&*born, 0, "true"),
        ("0-1", 0, r#"false,"reason":"evicted""#),
    ];
    let judge = |cursor: &str, replayed: usize, complete: &str| {
        let (stream, recovery) = Stream::resume(address, "/events", cursor);
        assert_eq!(
            recovery,
            format!(
                r#"{{"recovered_from":"{cursor}","replayed":{replayed},"complete":{complete}}}"#
            )
        );
        stream
    };
    for (cursor, replayed, complete) in early {
        judge(cursor, replayed, complete);
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
        (&born, 3, evicted),
        ("0-0", 3, evicted),
        ("no id of ours", 3, unknown),
        ("00-0", 3, unknown),
        ("-", 3, unknown),
        (&future, 3, r#"false,"reason":"future""#),
    ] {
        let mut stream = judge(cursor, replayed, complete);
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
    // The header wins over the query: a page's URL is older than what its browser has seen since.
    let target = format!("/events?last_event_id={}", ids[3]);
    let (mut both, recovery) = Stream::resume(address, &target, &ids[4]);
    assert!(recovery.contains(r#""replayed":1,"#), "{recovery}");
    assert_eq!(both.next().data, "5");
}

#[test]
fn a_publishers_own_id_is_on_the_wire_and_is_a_cursor() {
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
    // The welcome of a newcomer is as good a cursor as any, though the last event had another id.
    let welcome = Stream::open(address, "/events", "").next_id();
    let (_, recovery) = Stream::resume(address, "/events", &welcome);
    assert!(
        recovery.ends_with(r#""replayed":0,"complete":true}"#),
        "{recovery}"
    );
}

#[test]
fn without_a_history_every_return_is_told_of_the_gap_unless_there_is_none() {
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
fn who_is_cut_off_within_a_long_replay_goes_on_where_it_was() {
    const EVENTS: usize = 600;
    let server = server(config());
    let address = server.local_addr();
    let born = Stream::open(address, "/events", "").next_id();
    // 6 MB, which is more than a socket holds, and some hundred pieces of a replay.
    for number in 0..EVENTS {
        let event = Event::new(format!("{number} {}", "x".repeat(10_000)));
        server.hub().publish(event).unwrap();
    }
    let mut random = Random::new();
    let (mut cursor, mut seen) = (born, 0);
    while seen < EVENTS {
        let mut stream = Stream::open(address, "/events", &format!("Last-Event-ID: {cursor}\r\n"));
        // Cut off before its first event, it must not skip what it was about to get: the welcome
        // is the place where the replay begins.
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
fn a_replay_of_many_pieces_joins_what_comes_in_meanwhile_without_a_seam() {
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

/// A writer that reads the stream as a browser would, and breaks when it has seen enough.
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

/// Publishes numbers flat out, the odd ones to one topic and the even ones to another, while
/// `round` comes in with the number and the id of an event of just now, again and again.
fn while_a_publisher_is_flat_out(
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
        // Also when a round fails: a scope waits for its threads.
        let _over = Finally(|| is_over.store(true, Ordering::Relaxed));
        for count in 0..rounds {
            let (number, id) = latest.lock().unwrap().clone();
            round(count, number, id);
        }
    });
}

/// So much that nothing is evicted between the choice of a cursor and its use.
fn deep() -> Config {
    Config {
        history_events: 300_000,
        history_bytes: 64 << 20,
        ..config()
    }
}

/// What a client that asks for both topics, or for the even one, gets after `number`.
fn expected(number: u64, step: u64) -> impl Iterator<Item = String> {
    let first = (number + 1).next_multiple_of(step);
    (first..).step_by(step as usize).map(|n| n.to_string())
}

#[test]
fn between_replay_and_live_nothing_is_lost_or_doubled_over_sockets() {
    let server = server(deep());
    let address = server.local_addr();
    let mut random = Random::new();
    while_a_publisher_is_flat_out(server.hub(), 300, |round, number, id| {
        let (target, step) = [("/events/*", 1), ("/events/even", 2)][round % 2];
        let (mut stream, recovery) = Stream::resume(address, target, &id);
        assert!(recovery.ends_with(r#""complete":true}"#), "{recovery}");
        for expected in expected(number, step).take(20 + random.below(200)) {
            assert_eq!(stream.next().data, expected, "round {round}");
        }
    });
}

#[test]
fn between_replay_and_live_nothing_is_lost_or_doubled_in_a_writer() {
    let hub = Hub::new(deep()).unwrap();
    let mut random = Random::new();
    while_a_publisher_is_flat_out(&hub, 500, |round, number, id| {
        let (pattern, step) = [("*", 1), ("even", 2)][round % 2];
        let wish = Subscribe {
            patterns: [Pattern::new(pattern).unwrap()].into_iter().collect(),
            cursor: Cursor::After(id),
            ..Subscribe::default()
        };
        let mut reader = Reader::new(20 + random.below(200));
        let close_reason = hub.subscribe(wish).unwrap().write_to(&mut reader);
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
fn who_is_let_in_and_served_later_has_missed_nothing() {
    let hub = Hub::new(config()).unwrap();
    let first = hub.publish(Event::new("0")).unwrap().id;
    let cursors = [
        Cursor::Now,
        Cursor::Earliest,
        Cursor::After(first.to_string()),
    ];
    let subscriptions = cursors.map(|cursor| {
        let wish = Subscribe {
            cursor,
            ..Subscribe::default()
        };
        hub.subscribe(wish).unwrap()
    });
    for number in 1..100 {
        let published = hub.publish(Event::new(number.to_string())).unwrap();
        assert_eq!(published.recipients, 3);
    }
    // In front of the events are the welcome and, for who came with a cursor, the recovery.
    for (subscription, (words, first)) in subscriptions.into_iter().zip([(1, 1), (2, 0), (2, 1)]) {
        let mut reader = Reader::new(words + 100 - first);
        subscription.write_to(&mut reader);
        let seen = reader.messages[words..].iter().map(|event| &*event.data);
        assert!(
            seen.eq((first..100)
                .map(|number| number.to_string())
                .collect::<Vec<_>>())
        );
    }
}

/// Lets a client in, waits for `between`, and writes its stream until it ends or has brought
/// `enough` messages.
fn served(
    hub: &Hub,
    cursor: Cursor,
    enough: usize,
    between: impl FnOnce(),
) -> (CloseReason, Vec<Message>) {
    let wish = Subscribe {
        cursor,
        ..Subscribe::default()
    };
    let subscription = hub.subscribe(wish).unwrap();
    between();
    let mut reader = Reader::new(enough);
    let close_reason = subscription.write_to(&mut reader);
    (close_reason, reader.messages)
}

#[test]
fn who_comes_back_to_the_oldest_event_gets_it_though_new_ones_push_it_out() {
    // The history is full, as it always is in a server that has run for a while.
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
        // A tenth of it is new before the client's thread has come to read.
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

/// Waits until the fan-out has passed on all that was published: what is for one client alone
/// comes behind it.
fn until_all_is_passed_on(hub: &Hub) {
    let wish = Subscribe {
        client_id: Some("witness".parse().unwrap()),
        ..Subscribe::default()
    };
    let witness = hub.subscribe(wish).unwrap();
    hub.send_to("witness", &Event::new("all")).unwrap();
    let mut reader = Reader::new(2);
    witness.write_to(&mut reader);
    assert_eq!(reader.messages[1].data, "all");
}

#[test]
fn who_fell_behind_and_read_nothing_of_its_queue_finds_all_of_it_in_the_history() {
    const QUEUE: usize = 64 << 10;
    for bytes in [1, 30, 200, 1_000, 5_000] {
        let hub = Hub::new(Config {
            history_events: 10,
            queue_bytes: QUEUE,
            ..config()
        })
        .unwrap();
        let cursor = hub.publish(Event::new("")).unwrap().id.to_string();
        // Nobody serves it: what comes fills its queue.
        let slow = hub.subscribe(Subscribe::default()).unwrap();
        let text = "x".repeat(bytes);
        let (mut sent, mut count) = (0, 0);
        while sent < QUEUE * 3 / 2 {
            hub.publish(Event::new(&*text)).unwrap();
            // `id: 1763790000123-0`, `data: `, and their line breaks.
            (sent, count) = (sent + bytes + 28, count + 1);
        }
        // Served before that, it could empty its queue as fast as it is filled, and stay.
        until_all_is_passed_on(&hub);
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
fn a_hub_that_closes_says_goodbye_behind_the_replay() {
    let hub = Hub::new(config()).unwrap();
    // Several pieces.
    let text = "x".repeat(1_000);
    for _ in 0..500 {
        hub.publish(Event::new(&*text)).unwrap();
    }
    let witness = hub.subscribe(Subscribe::default()).unwrap();
    let (close_reason, messages) = served(&hub, Cursor::Earliest, usize::MAX, || {
        hub.close();
        // When one of them has heard it, the other has too, or is about to.
        witness.write_to(&mut io::sink());
    });
    assert_eq!(
        (close_reason, messages.len()),
        (CloseReason::ServerClosing, 503)
    );
}

#[test]
fn the_numbers_of_the_history_are_those_of_what_can_be_replayed() {
    let server = server(config());
    let said = say(server.hub(), 50);
    let stats = get(server.local_addr(), "/stats");
    let extent = format!(r#""first_id":"{}","last_id":"{}""#, said[0].id, said[49].id);
    assert!(stats.text().contains(&extent), "{}", stats.text());
    assert!(stats.text().contains(r#""history":{"events":50,"#));
}

#[test]
fn who_is_cut_off_anywhere_in_a_welcome_does_not_come_back_behind_a_gap_that_it_was_not_told_of() {
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
        let wish = Subscribe {
            cursor: Cursor::After(cursor.clone()),
            ..Subscribe::default()
        };
        let welcome = hub.subscribe(wish).unwrap().take_welcome();
        for cut in 0..=welcome.len() {
            // A browser, which has its cursor from before.
            let (mut decoder, mut is_told) = (Decoder::new(1 << 10), false);
            for bytes in [
                format!("id: {cursor}\ndata\n\n").as_bytes(),
                &welcome[..cut],
            ] {
                decoder
                    .feed(bytes, |message| is_told |= message.name == "recovery")
                    .unwrap();
            }
            let back = decoder.last_event_id();
            assert!(
                is_told || back == cursor,
                "cut after {cut} bytes it comes back from {back}: {}",
                String::from_utf8_lossy(&welcome[..cut])
            );
        }
    }
}

impl Stream {
    /// The id of the next event.
    fn next_id(mut self) -> String {
        self.next().last_event_id
    }
}
