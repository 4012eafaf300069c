//! The step from the replay to live events, ten thousand times while a publisher
//! publishes without a pause. The first live event must be the one right after the last
//! replayed event: none is lost, none comes twice.
//!
//! A short replay, of at most one piece, is read when the client is registered. A longer
//! replay is read by the client's own thread. So there are two code paths from replay to
//! live, and some rounds use a cursor that is old enough for the second one.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tiny_sse::{
    CloseReason, Config, Cursor, Decoder, Event, Hub, Message, Pattern, Subscribe, Topic,
};

use crate::chance::Random;
use crate::kit::{OnDrop, Stream, config, eventually, number_after, server};

/// The number of threads that reconnect again and again.
const CLIENTS: usize = 2;
/// By how many events the publisher may be ahead of the slowest client. With this bound,
/// a client that gets no processor time for a while has neither a full queue nor a cursor
/// that is evicted.
const AHEAD: usize = 500;
/// The age of a cursor in events. Most cursors are younger than `NEAR`. A few are older
/// by `FAR`, which is more than one piece of a replay (64 KiB).
const NEAR: usize = 30;
const FAR: usize = 1_200;
/// One of so many rounds has an old cursor.
const FAR_ROUNDS: usize = 20;
/// The bytes in an event's data besides its number.
const FILLING: usize = 20;

fn roomy() -> Config {
    Config {
        history_events: FAR + NEAR + 2 * AHEAD,
        // Enough for `AHEAD` events. Not more, because the history must hold twice as
        // many bytes.
        queue_bytes: 96 << 10,
        ..config()
    }
}

/// The publisher. The data of its events begins with a number; odd numbers have one
/// topic, even numbers another.
struct Publisher<'a> {
    hub: &'a Hub,
    /// The ids of the latest events, and the number of the last.
    latest: Mutex<(VecDeque<String>, usize)>,
    /// For each client, the number of the last event that it has read.
    at: [AtomicUsize; CLIENTS],
    is_over: AtomicBool,
}

impl Publisher<'_> {
    fn publish(&self, number: usize) {
        let topic = ["even", "odd"][number % 2];
        let event = Event::new(format!("{number} {}", "x".repeat(FILLING)))
            .with_topic(Topic::new(topic).unwrap());
        let id = self.hub.publish(event).unwrap().id.to_string();
        let mut latest = self.latest.lock().unwrap();
        latest.0.push_back(id);
        if latest.0.len() > 2 * FAR {
            latest.0.pop_front();
        }
        latest.1 = number;
    }

    /// Publishes without a pause until `is_over`.
    fn run(&self) {
        // Otherwise a client that waits for the next event would wait without end.
        let _closed = OnDrop(|| self.hub.close());
        for number in 2 * FAR.. {
            eventually("the slowest client has caught up", || {
                let slowest = self.at.iter().map(|at| at.load(Ordering::Acquire)).min();
                slowest.is_none_or(|slowest| number < slowest + AHEAD) || self.is_over()
            });
            if self.is_over() {
                return;
            }
            self.publish(number);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Returns the number and the id of the event that was published `back` events ago.
    /// From now on, the publisher does not run so far ahead that later events are
    /// evicted.
    fn cursor(&self, client: usize, back: usize) -> (usize, String) {
        let latest = self.latest.lock().unwrap();
        let (ids, last) = &*latest;
        self.at[client].store(*last, Ordering::Release);
        (last - back, ids[ids.len() - 1 - back].clone())
    }
}

/// Calls `round` for each client and each of its rounds, while a publisher publishes
/// without a pause. The arguments of `round` are the round, the number and the id of its
/// cursor, and how many live events the client should see.
fn while_publishing_without_a_pause(
    hub: &Hub,
    rounds: usize,
    round: impl Fn(Round, usize, String, usize) + Sync,
) {
    let publisher = Publisher {
        hub,
        latest: Mutex::default(),
        at: [const { AtomicUsize::new(2 * FAR) }; CLIENTS],
        is_over: AtomicBool::new(false),
    };
    (0..2 * FAR).for_each(|number| publisher.publish(number));
    thread::scope(|scope| {
        scope.spawn(|| publisher.run());
        // A failed round must end the publisher, too, because the scope waits for its
        // threads.
        let _over = OnDrop(|| publisher.is_over.store(true, Ordering::Release));
        let clients = [0, 1].map(|client| {
            let (publisher, round, at) = (&publisher, &round, &publisher.at[client]);
            scope.spawn(move || {
                let _done = OnDrop(|| at.store(usize::MAX / 2, Ordering::Release));
                let mut random = Random::new();
                for count in 0..rounds {
                    let back = random.below(NEAR) + (FAR * usize::from(count % FAR_ROUNDS == 0));
                    let (number, id) = publisher.cursor(client, back);
                    let this_round = Round {
                        client,
                        at,
                        count,
                        back,
                    };
                    round(this_round, number, id, 1 + random.below(NEAR));
                }
            })
        });
        for client in clients {
            client.join().expect("the client found no error");
        }
    });
}

/// One round of one client. `Display` describes it in the message of a failure.
#[derive(Clone, Copy)]
struct Round<'a> {
    client: usize,
    /// The number of the last event that the client has read.
    at: &'a AtomicUsize,
    /// The number of the round.
    count: usize,
    /// The age of the cursor in events.
    back: usize,
}

impl fmt::Display for Round<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round {
            client,
            count,
            back,
            ..
        } = self;
        write!(
            f,
            "client {client}, round {count}, cursor {back} events old"
        )
    }
}

impl Round<'_> {
    /// The pattern of the subscription, and the step from one number to the next. Rounds
    /// alternate between both topics and the even one. An old cursor always has both:
    /// with one topic its replay would not be long enough.
    fn pattern(self) -> (&'static str, usize) {
        [("*", 1), ("even", 2)][self.count % FAR_ROUNDS % 2]
    }
}

/// The checks of one client in one round.
struct Check<'a> {
    round: Round<'a>,
    /// The number that the next event must have.
    next: usize,
    step: usize,
    /// How many live events the client waits for.
    live: usize,
    /// How many events the client has seen.
    seen: usize,
    /// The number of replayed events in the recovery event, after it has come. More
    /// events may be replayed.
    replayed: Option<usize>,
}

impl<'a> Check<'a> {
    fn new(round: Round<'a>, after: usize, live: usize) -> Check<'a> {
        let (_, step) = round.pattern();
        Check {
            round,
            next: (after + 1).next_multiple_of(step),
            step,
            live,
            seen: 0,
            replayed: None,
        }
    }

    fn see(&mut self, message: &Message) {
        let Check { round, next, .. } = *self;
        match &*message.name {
            "system" => {}
            "recovery" => {
                let data = &message.data;
                assert!(data.ends_with(r#""complete":true}"#), "{round}: {data}");
                self.replayed = Some(number_after(data, "\"replayed\":") as usize);
            }
            _ => {
                let number = number_after(&message.data, "") as usize;
                let (seen, replayed) = (self.seen, self.replayed.expect("a recovery event"));
                assert_eq!(
                    number, next,
                    "{round}: after {seen} events, of which {replayed} were announced as a replay"
                );
                self.next += self.step;
                self.seen += 1;
                round.at.fetch_max(number, Ordering::Release);
            }
        }
    }

    fn has_seen_enough(&self) -> bool {
        self.replayed
            .is_some_and(|replayed| self.seen >= replayed + self.live)
    }
}

/// A writer that decodes the stream as a browser does, and fails when the check has seen
/// enough events.
struct Reader<'a> {
    decoder: Decoder,
    check: Check<'a>,
}

impl Write for Reader<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let check = &mut self.check;
        // In parts, because `bytes` may have many more events than the check needs.
        for part in bytes.chunks(512) {
            self.decoder
                .feed(part, |message| check.see(&message))
                .expect("events within the limit");
            if check.has_seen_enough() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn in_ten_thousand_rounds_no_event_is_lost_or_doubled_between_replay_and_live() {
    let hub = Hub::new(roomy()).unwrap();
    while_publishing_without_a_pause(&hub, 10_000 / CLIENTS, |round, number, id, live| {
        let (pattern, _) = round.pattern();
        let params = Subscribe {
            patterns: [Pattern::new(pattern).unwrap()].into_iter().collect(),
            cursor: Cursor::After(id),
            ..Subscribe::default()
        };
        let mut reader = Reader {
            decoder: Decoder::new(1 << 20),
            check: Check::new(round, number, live),
        };
        let close_reason = hub.subscribe(params).unwrap().write_to(&mut reader);
        assert_eq!(close_reason, CloseReason::HungUp, "{round}");
        assert!(reader.check.has_seen_enough(), "{round}");
    });
    assert_eq!(hub.clients(), 0);
}

#[test]
fn in_400_rounds_over_sockets_no_event_is_lost_or_doubled_between_replay_and_live() {
    let server = server(roomy());
    while_publishing_without_a_pause(server.hub(), 400 / CLIENTS, |round, number, id, live| {
        let (pattern, _) = round.pattern();
        let fields = format!("Last-Event-ID: {id}\r\n");
        let mut stream = Stream::open(server.local_addr(), &format!("/events/{pattern}"), &fields);
        let mut check = Check::new(round, number, live);
        while !check.has_seen_enough() {
            check.see(&stream.next());
            stream.bytes.clear();
        }
    });
}
