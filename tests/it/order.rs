//! One order for everybody, and in it the order of each publisher, whatever the topics and whoever
//! is addressed.

use std::thread;

use tiny_sse::{Event, EventId, Hub, Topic};

use crate::kit::{Stream, config, number_after, server};

const PUBLISHERS: usize = 4;
const EVENTS: usize = 500;

/// Publishes as all publishers at once; `publish` is told whose event it is, and the which.
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

/// The topics of the events, in turn; the empty one is none.
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

/// Each publisher's events are there, from its first to its last, as `whose` has them.
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
fn all_clients_see_the_one_order_of_the_ids_each_those_of_its_topics() {
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
    assert!(ids.is_sorted_by(|a, b| a < b), "ids do not rise");
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
fn what_is_for_one_client_alone_keeps_its_place_among_what_its_publisher_said_to_all() {
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
    // What was for it alone is not kept, so it does not move the cursor either.
    let mut cursor = &cursor_before;
    for event in &mine {
        if number_after(&event.data, "n").is_multiple_of(3) {
            assert_eq!(&event.last_event_id, cursor);
        }
        cursor = &event.last_event_id;
    }
}

#[test]
fn several_events_published_together_are_not_interrupted() {
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
fn a_farewell_comes_behind_what_was_published_before_it() {
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
        // By turns it is asked to leave, and replaced.
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
        assert!(stream.has_ended, "round {round}: cut off");
        hub.disconnect("me");
    }
}
