//! The order of events: all clients get events in the order of the ids, and this order
//! keeps the order of each publisher, also between topics and for events that are sent to
//! one client.

use std::thread;

use tiny_sse::{Event, EventId, Hub, Topic};

use crate::kit::{Stream, config, number_after, server};

const PUBLISHERS: usize = 4;
const EVENTS: usize = 500;

/// Runs all publishers at the same time, each in a thread. The arguments of `publish` are
/// the number of the publisher and the number of the event.
fn all_at_once(publish: impl Fn(usize, usize) + Sync) {
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let publish = &publish;
            scope.spawn(move || (0..EVENTS).for_each(|number| publish(publisher, number)));
        }
    });
}

fn event(publisher: usize, number: usize) -> Event {
    Event::new(format!("p{publisher} n{number}"))
}

/// The topics of the events, in turn. The empty string means no topic.
const TOPICS: [&str; 4] = ["", "a", "b/1", "b/2"];

fn publish(hub: &Hub, publisher: usize, number: usize) {
    let topic = TOPICS[(publisher + number) % TOPICS.len()];
    let event = event(publisher, number)
        .with_name(format!("on {topic}"))
        .unwrap();
    let event = match topic {
        "" => event,
        topic => event.with_topic(Topic::new(topic).unwrap()),
    };
    hub.publish(event).unwrap();
}

/// Checks that `seen` has the events of each publisher in their order. `numbers` selects
/// the expected events.
#[track_caller]
fn assert_each_publishers_order(seen: &[String], numbers: impl Fn(usize) -> bool) {
    let expected: Vec<u64> = (0..EVENTS)
        .filter(|n| numbers(*n))
        .map(|n| n as u64)
        .collect();
    for publisher in 0..PUBLISHERS as u64 {
        let own: Vec<u64> = seen
            .iter()
            .filter(|data| number_after(data, "p") == publisher)
            .map(|data| number_after(data, "n"))
            .collect();
        assert_eq!(own, expected, "publisher {publisher}");
    }
}

#[test]
fn all_clients_get_the_events_of_their_topics_in_the_order_of_the_ids() {
    let server = server(config());
    let address = server.local_addr();
    let targets: [(&str, &[&str]); 7] = [
        ("/events/*", &["", "a", "b/1", "b/2"]),
        ("/events/*", &["", "a", "b/1", "b/2"]),
        ("/events?topic=a&topic=b/*", &["", "a", "b/1", "b/2"]),
        ("/events", &[""]),
        ("/events/a", &["", "a"]),
        ("/events/b/*", &["", "b/1", "b/2"]),
        ("/events?topic=a&topic=b/2", &["", "a", "b/2"]),
    ];
    let mut streams = targets.map(|(target, _)| Stream::subscribe(address, target));
    all_at_once(|publisher, number| publish(server.hub(), publisher, number));
    let [all, ..] = &mut streams;
    let all: Vec<_> = (0..PUBLISHERS * EVENTS).map(|_| all.next()).collect();
    let ids: Vec<EventId> = all
        .iter()
        .map(|event| event.last_event_id.parse().expect("an id"))
        .collect();
    assert!(
        ids.is_sorted_by(|a, b| a < b),
        "the ids are not in ascending order"
    );
    let data: Vec<_> = all.iter().map(|event| event.data.clone()).collect();
    assert_each_publishers_order(&data, |_| true);
    for (stream, (target, topics)) in streams[1..].iter_mut().zip(&targets[1..]) {
        let own = all
            .iter()
            .filter(|event| topics.contains(&event.name.trim_start_matches("on ")));
        for expected in own {
            assert_eq!(&stream.next(), expected, "{target}");
        }
    }
}

#[test]
fn events_for_one_client_and_events_for_all_arrive_in_the_order_of_their_publisher() {
    let server = server(config());
    let address = server.local_addr();
    let hub = server.hub();
    let mut me = Stream::subscribe(address, "/events/*?client_id=me");
    let mut others = [0; 2].map(|_| Stream::subscribe(address, "/events/*"));
    let cursor_before = me.cursor().to_owned();
    all_at_once(|publisher, number| {
        if number % 3 == 0 {
            hub.send_to("me", &event(publisher, number)).unwrap();
        } else {
            publish(hub, publisher, number);
        }
    });
    let mine: Vec<_> = (0..PUBLISHERS * EVENTS).map(|_| me.next()).collect();
    let data: Vec<_> = mine.iter().map(|event| event.data.clone()).collect();
    assert_each_publishers_order(&data, |_| true);
    let public: Vec<_> = mine
        .iter()
        .filter(|event| !number_after(&event.data, "n").is_multiple_of(3))
        .collect();
    for stream in &mut others {
        for expected in &public {
            assert_eq!(&&stream.next(), expected);
        }
    }
    // An event for one client is not in the history, so it does not move the cursor
    // either.
    let mut cursor = &cursor_before;
    for event in &mine {
        if number_after(&event.data, "n").is_multiple_of(3) {
            assert_eq!(&event.last_event_id, cursor);
        }
        cursor = &event.last_event_id;
    }
}

#[test]
fn no_other_event_comes_between_events_that_are_published_together() {
    let server = server(config());
    let mut stream = Stream::subscribe(server.local_addr(), "/events");
    const TOGETHER: usize = 10;
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let hub = server.hub();
            scope.spawn(move || {
                for first in (0..EVENTS).step_by(TOGETHER) {
                    let events = (first..first + TOGETHER).map(|number| event(publisher, number));
                    hub.publish_all(events.collect()).unwrap();
                }
            });
        }
    });
    let seen: Vec<_> = (0..PUBLISHERS * EVENTS)
        .map(|_| stream.next().data)
        .collect();
    assert_each_publishers_order(&seen, |_| true);
    for together in seen.chunks(TOGETHER) {
        let first = number_after(&together[0], "p");
        assert!(
            together.iter().all(|data| number_after(data, "p") == first),
            "{together:?}"
        );
    }
}

#[test]
fn a_disconnected_client_first_gets_all_events_that_were_published_before() {
    let server = server(config());
    let (hub, address) = (server.hub(), server.local_addr());
    for round in 0..100 {
        let mut stream = Stream::subscribe(address, "/events?client_id=me&topic=a");
        let publish = |text: String, topic: Option<&str>| {
            let event = Event::new(text);
            let event = match topic {
                Some(topic) => event.with_topic(Topic::new(topic).unwrap()),
                None => event,
            };
            hub.publish(event).unwrap()
        };
        assert_eq!(publish("for all".into(), None).recipients, 1);
        hub.send_to("me", &Event::new("for me")).unwrap();
        assert_eq!(publish(round.to_string(), Some("a")).recipients, 1);
        assert_eq!(publish("for others".into(), Some("b")).recipients, 0);
        // The client is disconnected in one round, and replaced in the next.
        let _successor = if round % 2 == 0 {
            assert!(hub.disconnect("me"));
            None
        } else {
            Some(Stream::subscribe(address, "/events?client_id=me&topic=a"))
        };
        publish("too late".into(), Some("a"));
        let seen: Vec<String> = std::iter::from_fn(|| stream.try_next())
            .map(|event| event.data)
            .collect();
        assert_eq!(
            seen,
            ["for all", "for me", &round.to_string()],
            "round {round}"
        );
        assert!(stream.has_ended, "round {round}: the last chunk is missing");
        hub.disconnect("me");
    }
}
