//! The seam between what was missed and what is live, looked at ten thousand times while a
//! publisher is flat out: the event behind the last one of a replay is the first one that is live.
//!
//! A replay that fits into one piece is read as the client is let in, a longer one by the client's
//! own thread. So there are two places where a client goes live, and some rounds go far enough
//! back for the second one.

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
use crate::kit::{Finally, Stream, config, eventually, number_after, server};

/// Threads that come in again and again.
const CLIENTS: usize = 2;
/// How far the publisher may be ahead of any client, so that neither what it needs is evicted nor
/// its queue full, should it not get its turn for a while.
const AHEAD: usize = 500;
/// How far back a cursor lies: seldom more than a few events; and beyond one piece of a replay,
/// which is 64 KiB.
const NEAR: usize = 30;
const FAR: usize = 1_200;
/// Every so many rounds it is far.
const FAR_ROUNDS: usize = 20;
/// Bytes of an event's data beside its number.
const FILLING: usize = 20;

fn roomy() -> Config {
    Config {
        history_events: FAR + NEAR + 2 * AHEAD,
        // Holds what the publisher is ahead. No more, because the history holds two of them.
        queue_bytes: 96 << 10,
        ..config()
    }
}

/// The publisher's side: numbers, the odd ones to one topic and the even ones to another.
struct Press<'a> {
    hub: &'a Hub,
    /// The ids of the latest events, and the number of the last.
    latest: Mutex<(VecDeque<String>, usize)>,
    /// How far the clients are.
    at: [AtomicUsize; CLIENTS],
    is_over: AtomicBool,
}

impl Press<'_> {
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

    /// Publishes flat out until it is over.
    fn run(&self) {
        // Who waits for the next event must not wait for ever.
        let _closed = Finally(|| self.hub.close());
        for number in 2 * FAR.. {
            eventually("the clients go on", || {
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

    /// The number and the id of the event that is so far back. What is behind it is kept.
    fn cursor(&self, client: usize, back: usize) -> (usize, String) {
        let latest = self.latest.lock().unwrap();
        let (ids, last) = &*latest;
        self.at[client].store(*last, Ordering::Release);
        (last - back, ids[ids.len() - 1 - back].clone())
    }
}

/// Every client comes in `rounds` times, while a publisher is flat out. A round gets the number of
/// the client and of the round, the number and the id of its cursor, and how many events it is to
/// see live.
fn while_a_publisher_is_flat_out(
    hub: &Hub,
    rounds: usize,
    round: impl Fn(Round, usize, String, usize) + Sync,
) {
    let press = Press {
        hub,
        latest: Mutex::default(),
        at: [const { AtomicUsize::new(2 * FAR) }; CLIENTS],
        is_over: AtomicBool::new(false),
    };
    (0..2 * FAR).for_each(|number| press.publish(number));
    thread::scope(|scope| {
        scope.spawn(|| press.run());
        // Also when a round fails: a scope waits for its threads.
        let _over = Finally(|| press.is_over.store(true, Ordering::Release));
        let clients = [0, 1].map(|client| {
            let (press, round, at) = (&press, &round, &press.at[client]);
            scope.spawn(move || {
                let _done = Finally(|| at.store(usize::MAX / 2, Ordering::Release));
                let mut random = Random::new();
                for count in 0..rounds {
                    let back = random.below(NEAR) + (FAR * usize::from(count % FAR_ROUNDS == 0));
                    let (number, id) = press.cursor(client, back);
                    let what = Round {
                        client,
                        at,
                        count,
                        back,
                    };
                    round(what, number, id, 1 + random.below(NEAR));
                }
            })
        });
        for client in clients {
            client.join().expect("a client that finds a fault");
        }
    });
}

/// Which round it is, for the message.
#[derive(Clone, Copy)]
struct Round<'a> {
    client: usize,
    /// How far the client is.
    at: &'a AtomicUsize,
    count: usize,
    /// How far back its cursor lies.
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
        write!(f, "client {client}, round {count}, from {back} events back")
    }
}

impl Round<'_> {
    /// What is asked for, in turn: both topics, or the even one; and the step to the next number.
    /// A cursor that is far always asks for both: only then is its replay a long one.
    fn pattern(self) -> (&'static str, usize) {
        [("*", 1), ("even", 2)][self.count % FAR_ROUNDS % 2]
    }
}

/// What a client checks as it comes.
struct Check<'a> {
    round: Round<'a>,
    /// The number of the next event.
    next: usize,
    step: usize,
    /// How many events are to come live.
    live: usize,
    /// How many events it has seen.
    seen: usize,
    /// How many of them are replayed at the least, once that is known.
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
                    "{round}: {seen} came, {replayed} were to be replayed"
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

/// A writer that reads the stream as a browser would, and breaks when it has seen enough.
struct Reader<'a> {
    decoder: Decoder,
    check: Check<'a>,
}

impl Write for Reader<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let check = &mut self.check;
        // There may be much more here than it wants to see.
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
fn ten_thousand_times_nothing_is_lost_or_doubled_where_a_replay_ends() {
    let hub = Hub::new(roomy()).unwrap();
    while_a_publisher_is_flat_out(&hub, 10_000 / CLIENTS, |round, number, id, live| {
        let (pattern, _) = round.pattern();
        let wish = Subscribe {
            patterns: [Pattern::new(pattern).unwrap()].into_iter().collect(),
            cursor: Cursor::After(id),
            ..Subscribe::default()
        };
        let mut reader = Reader {
            decoder: Decoder::new(1 << 20),
            check: Check::new(round, number, live),
        };
        let close_reason = hub.subscribe(wish).unwrap().write_to(&mut reader);
        assert_eq!(close_reason, CloseReason::HungUp, "{round}");
        assert!(reader.check.has_seen_enough(), "{round}");
    });
    assert_eq!(hub.clients(), 0);
}

#[test]
fn hundreds_of_times_nothing_is_lost_or_doubled_where_a_replay_ends_over_sockets() {
    let server = server(roomy());
    while_a_publisher_is_flat_out(server.hub(), 400 / CLIENTS, |round, number, id, live| {
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
