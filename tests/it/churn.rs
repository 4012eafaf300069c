//! Clients that disconnect at random moments, reconnect with the last id that they
//! received, and compare everything that the server sends with the events that were
//! published.
//!
//! Events are numbered from 0, and the data of an event is its number. So a client knows
//! which event it must receive next. It also knows how many events a `recovery` may
//! report as replayed: at least those that were published before the client reconnected,
//! and at most those whose publishing had begun when the recovery arrived. For one in
//! eight reconnects the test pauses the publishing; then both numbers are equal, and
//! `/stats` tells exactly which event is the oldest in the history.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use tiny_sse::Config;

use crate::chance::Random;
use crate::kit::{OnDrop, Raw, Stream, config, eventually, get, number_after, server};
use crate::program::serve;

/// The number of threads that run the clients; each thread runs its share of them.
const WORKERS: usize = 2;
/// The largest number of events that a client reads before its thread runs the next
/// client.
const READ_AT_ONCE: usize = 100;
/// One in this many reconnects pauses the publishing.
const ONE_PAUSE_IN: usize = 8;

/// The publisher of the numbered events, and its progress.
struct Publishing {
    address: SocketAddr,
    /// The topics of the events, repeated from the start when all were used. An empty
    /// string stands for an event without a topic.
    topics: Vec<&'static str>,
    /// The id of each published event; the index is the event's number.
    ids: Mutex<Vec<String>>,
    /// LOCK: the publisher holds it while it publishes one event. A client that holds it
    /// has paused the publishing.
    pause: Mutex<()>,
    /// The number of clients that wait for `pause`. The publisher yields to them, because
    /// a `Mutex` is not fair.
    waiting: AtomicUsize,
    /// The number of events whose publishing has begun. The last one may not be published
    /// yet.
    begun: AtomicUsize,
    /// The number of events that are published and whose ids are in `ids`.
    done: AtomicUsize,
    /// True once the publisher has ended.
    is_over: AtomicBool,
}

impl Publishing {
    fn new(address: SocketAddr, topics: Vec<&'static str>) -> Publishing {
        Publishing {
            address,
            topics,
            ids: Mutex::default(),
            pause: Mutex::default(),
            waiting: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Publishes one event after the other on one connection, each as soon as the one
    /// before is answered, while `goes_on` returns true for the next number.
    fn run(&self, mut goes_on: impl FnMut(usize) -> bool) {
        let _over = OnDrop(|| self.is_over.store(true, Ordering::Release));
        let mut publisher = Raw::connect(self.address);
        let mut number = self.done();
        while goes_on(number) {
            while self.waiting.load(Ordering::Relaxed) > 0 {
                thread::yield_now();
            }
            let _unless_paused = self.pause.lock().unwrap();
            self.begun.store(number + 1, Ordering::Release);
            let id = publish(&mut publisher, self.topic(number), number);
            self.ids.lock().unwrap().push(id);
            self.done.store(number + 1, Ordering::Release);
            number += 1;
        }
    }

    /// Nothing is published while the returned guard lives.
    fn pause(&self) -> MutexGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let paused = self.pause.lock().unwrap();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        paused
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Acquire)
    }

    fn topic(&self, number: usize) -> &'static str {
        self.topics[number % self.topics.len()]
    }
}

fn publish(publisher: &mut Raw, topic: &str, number: usize) -> String {
    let (slash, body) = (if topic.is_empty() { "" } else { "/" }, number.to_string());
    let length = body.len();
    publisher.send(format!(
        "POST /events{slash}{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let answer = publisher.answer();
    assert_eq!(answer.status, 200, "{number}: {}", answer.text());
    let id = answer.text().split("\"id\":\"").nth(1).expect("an id");
    id.split('"').next().unwrap().to_owned()
}

/// The target of a request that subscribes, and whether it subscribes to a given topic.
#[derive(Clone, Copy)]
struct SubscribeTarget(&'static str, fn(&str) -> bool);

const PLAIN: SubscribeTarget = SubscribeTarget("/events?", |topic| topic.is_empty());

/// The largest number of events that a client stays connected for, and then disconnected
/// for.
#[derive(Clone, Copy)]
struct ChurnLimits {
    stay: usize,
    away: usize,
}

struct ChurningClient<'a> {
    publishing: &'a Publishing,
    target: SubscribeTarget,
    limits: ChurnLimits,
    random: &'a Mutex<Random>,
    /// Names the client in failure messages; half of the requests also send it as the
    /// `client_id`.
    name: String,
    stream: Option<Stream>,
    /// The id that the client reconnects with.
    cursor: String,
    /// The number of the next event that the client must receive.
    next: usize,
    /// The client is complete when `next` reaches this number.
    end: usize,
    /// The number of events that the client still reads before it disconnects.
    stay: usize,
    /// The client reconnects when this many events are published.
    reconnects_at: usize,
    reconnects: usize,
    /// The number of reconnects without a gap and with one.
    gaps_seen: [usize; 2],
    /// The same, but only those while publishing was paused.
    gaps_seen_while_paused: [usize; 2],
}

impl ChurningClient<'_> {
    fn is_complete_now(&self) -> bool {
        self.next >= self.end
    }

    /// Returns the first number, `from` or higher, whose event this client must receive.
    fn first_from(&self, from: usize) -> usize {
        let SubscribeTarget(_, asks) = self.target;
        (from..)
            .find(|number| asks(self.publishing.topic(*number)))
            .expect("there is always one more")
    }

    /// Returns how many events before `end` this client must still receive.
    fn missing_before(&self, end: usize) -> usize {
        let SubscribeTarget(_, asks) = self.target;
        (self.next..end)
            .filter(|number| asks(self.publishing.topic(*number)))
            .count()
    }

    fn random(&self, end: usize) -> usize {
        self.random.lock().unwrap().below(end)
    }

    /// Does what the client can do now, without waiting for an event that is not
    /// published yet. Returns false if there is nothing to do.
    fn step(&mut self) -> bool {
        let is_over = self.publishing.is_over.load(Ordering::Acquire);
        let done = self.publishing.done();
        let Some(stream) = &mut self.stream else {
            let reconnects_now = done >= self.reconnects_at || is_over;
            if reconnects_now {
                self.reconnect();
            }
            return reconnects_now;
        };
        if self.stay == 0 {
            self.disconnect(done);
            // One in three reconnects at once, as when a user reloads the page.
            if self.random(3) == 0 {
                self.reconnect();
            }
            return true;
        }
        if self.next >= done {
            return false;
        }
        stream.bytes.clear();
        for _ in 0..READ_AT_ONCE.min(self.stay) {
            if self.next < done && !self.read() {
                self.stream = None;
                self.reconnects_at = 0;
                break;
            }
        }
        true
    }

    fn disconnect(&mut self, done: usize) {
        self.stream = None;
        // The count starts at the number that this client has reached, because the
        // publisher does not get further ahead of the slowest client than `AHEAD`.
        self.reconnects_at = done.min(self.next) + self.random(self.limits.away);
    }

    /// Reads the next event and checks that it is the expected one. Returns false if the
    /// server has ended the stream before it.
    fn read(&mut self) -> bool {
        let stream = self
            .stream
            .as_mut()
            .expect("BUG: a client that is not connected reads");
        let Some(event) = stream.try_next() else {
            return false;
        };
        let has_its_number = event.data.parse() == Ok(self.next);
        let has_its_id = event.last_event_id == self.publishing.ids.lock().unwrap()[self.next];
        assert!(
            has_its_number && has_its_id,
            "{}, reconnect {}: {event:?} instead of number {}",
            self.name,
            self.reconnects,
            self.next
        );
        self.cursor = event.last_event_id;
        self.next = self.first_from(self.next + 1);
        self.stay -= 1;
        true
    }

    /// Reconnects, and checks the `recovery` event.
    fn reconnect(&mut self) {
        self.stay = self.random(self.limits.stay);
        self.reconnects += 1;
        let paused = (self.random(ONE_PAUSE_IN) == 0).then(|| self.publishing.pause());
        let (sent, at_least) = (self.cursor.clone(), self.publishing.done());
        let Some(mut stream) = self.open() else {
            return;
        };
        let Some(welcome) = stream.try_next() else {
            return;
        };
        // A browser would now reconnect with this id, even if it receives nothing more.
        if !welcome.last_event_id.is_empty() {
            self.cursor = welcome.last_event_id;
        }
        let Some(recovery) = stream.try_next() else {
            return;
        };
        self.cursor = recovery.last_event_id;
        let recovery = recovery.data;
        let at_most = self.publishing.begun.load(Ordering::Acquire);
        self.stream = Some(stream);
        let what = format!("{}, reconnect {}: {recovery}", self.name, self.reconnects);
        let is_complete = recovery.ends_with(r#""complete":true}"#);
        if is_complete {
            assert_eq!(self.cursor, sent, "{what}: the replay begins at another id");
        } else {
            let end = r#""complete":false,"reason":"evicted"}"#;
            assert!(recovery.ends_with(end), "{what}");
        }
        self.gaps_seen[usize::from(!is_complete)] += 1;
        let oldest = paused.is_some().then(|| {
            self.gaps_seen_while_paused[usize::from(!is_complete)] += 1;
            self.oldest(&what, is_complete)
        });
        drop(paused);
        if !is_complete {
            self.skip_gap(&what, oldest);
        }
        let replayed = number_after(&recovery, "\"replayed\":") as usize;
        let possible = self.missing_before(at_least)..=self.missing_before(at_most);
        assert!(possible.contains(&replayed), "{what}, not {possible:?}");
    }

    /// Sends the request as a browser reconnects (a header field), or as a page does that
    /// creates a new `EventSource` (the query). Returns `None` if the server hangs up.
    fn open(&self) -> Option<Stream> {
        let SubscribeTarget(target, _) = self.target;
        let name = match self.random(2) {
            0 => String::new(),
            // If the client's earlier stream is still registered, this one replaces it.
            _ => format!("&client_id={}", self.name),
        };
        let cursor = &self.cursor;
        let (query, field) = match self.random(3) {
            0 => (format!("&last_event_id={cursor}"), String::new()),
            _ => (String::new(), format!("Last-Event-ID: {cursor}\r\n")),
        };
        let target = format!("{target}{name}{query}");
        Stream::try_open(self.publishing.address, &target, &field)
    }

    /// Returns the number of the oldest event in the history. Publishing is paused, so
    /// the number is exact.
    fn oldest(&self, what: &str, is_complete: bool) -> usize {
        let ids = self.publishing.ids.lock().unwrap();
        let stats = get(self.publishing.address, "/stats");
        let retained = number_after(stats.text(), "\"history\":{\"events\":") as usize;
        let oldest = ids.len() - retained;
        if let Some(id) = ids.get(oldest) {
            let first = format!(r#""first_id":"{id}""#);
            assert!(stats.text().contains(&first), "{what}: {}", stats.text());
        }
        assert_eq!(
            is_complete,
            self.next >= oldest,
            "{what}: the history begins at {oldest}"
        );
        oldest
    }

    /// Sets `next` to the first event after the gap. `cursor` is the id of the last event
    /// in the gap.
    fn skip_gap(&mut self, what: &str, oldest: Option<usize>) {
        let ids = self.publishing.ids.lock().unwrap();
        // Searches from the end, because it is one of the latest events.
        let last_gone = ids.iter().rposition(|id| *id == self.cursor);
        drop(ids);
        let first = last_gone.unwrap_or_else(|| panic!("{what}: the id is of no event")) + 1;
        assert!(first > self.next, "{what}: there is no gap before {first}");
        assert_eq!(
            oldest.unwrap_or(first),
            first,
            "{what}: the gap does not end at the oldest event"
        );
        self.next = self.first_from(first);
    }
}

/// Runs all clients of one thread in turn until `enough` returns true. Stores the
/// smallest number that a client still waits for in `slowest`.
fn run_clients(
    clients: &mut [ChurningClient],
    slowest: &AtomicUsize,
    enough: impl Fn(&[ChurningClient]) -> bool,
) {
    while !enough(clients) {
        eventually("a client can do something", || {
            let waiting = clients
                .iter_mut()
                .filter(|client| !client.is_complete_now());
            let busy = waiting
                .map(ChurningClient::step)
                .filter(|busy| *busy)
                .count();
            let next = clients.iter().map(|client| client.next).min();
            slowest.store(next.unwrap_or(usize::MAX), Ordering::Relaxed);
            busy > 0
        });
    }
}

/// Returns `count` clients; each uses the next of the targets. All of them have the id of
/// the empty history as their cursor, so they expect every event.
fn clients<'a>(
    publishing: &'a Publishing,
    count: usize,
    targets: &[SubscribeTarget],
    limits: ChurnLimits,
    end: usize,
    random: &'a Mutex<Random>,
) -> Vec<ChurningClient<'a>> {
    let initial_id = Stream::open(publishing.address, "/events", "")
        .next()
        .last_event_id;
    let client = |index: usize| {
        let mut client = ChurningClient {
            publishing,
            target: targets[index % targets.len()],
            limits,
            random,
            name: format!("client-{index}"),
            stream: None,
            cursor: initial_id.clone(),
            next: 0,
            end,
            stay: 0,
            reconnects_at: random.lock().unwrap().below(limits.away),
            reconnects: 0,
            gaps_seen: [0; 2],
            gaps_seen_while_paused: [0; 2],
        };
        client.next = client.first_from(0);
        client
    };
    (0..count).map(client).collect()
}

/// Publishes events while the clients disconnect and reconnect. In the end each client
/// has received all events of its topics exactly once, without a gap.
fn assert_all_get_all(publishing: &Publishing, mut clients: Vec<ChurningClient>) {
    // How many events the publisher may be ahead of the slowest client. So all clients
    // disconnect and reconnect during the whole test.
    const AHEAD: usize = 2_000;
    let events = clients[0].end;
    let slowest = [const { AtomicUsize::new(0) }; WORKERS];
    let share = clients.len().div_ceil(WORKERS);
    thread::scope(|scope| {
        scope.spawn(|| {
            publishing.run(|number| {
                eventually("the slowest client catches up", || {
                    let next = slowest.iter().map(|next| next.load(Ordering::Relaxed));
                    next.min() >= Some(number.saturating_sub(AHEAD))
                });
                number < events
            });
        });
        for (clients, slowest) in clients.chunks_mut(share).zip(&slowest) {
            scope.spawn(|| {
                run_clients(clients, slowest, |clients| {
                    clients.iter().all(ChurningClient::is_complete_now)
                })
            });
        }
    });
    // Disconnected clients reconnect for the last time, and then all stay connected.
    for client in &mut clients {
        while client.stream.is_none() {
            client.reconnect();
        }
        client.stay = usize::MAX;
    }
    // The last event has no topic, so every client gets it; a superfluous event would
    // come before it.
    let last = (events..).find(|number| publishing.topic(*number).is_empty());
    let last = last.expect("some events have no topic");
    publishing.run(|number| number <= last);
    for client in &mut clients {
        while client.next <= last {
            assert!(client.read(), "{} is disconnected at the end", client.name);
        }
        assert_eq!(client.gaps_seen[1], 0, "{} has seen a gap", client.name);
        assert!(
            client.reconnects >= 5,
            "{} has reconnected too seldom",
            client.name
        );
    }
    let gaps_seen_while_paused: usize = clients
        .iter()
        .map(|client| client.gaps_seen_while_paused[0])
        .sum();
    assert!(
        gaps_seen_while_paused > 0,
        "no client has reconnected while publishing was paused"
    );
}

#[test]
fn clients_that_reconnect_at_random_receive_every_event_exactly_once() {
    // The server is a separate process; `crowd.rs` explains why.
    let program = serve(&["--history", "20000", "--queue-bytes", "64KiB"]);
    let publishing = Publishing::new(program.address, vec![""]);
    let limits = ChurnLimits {
        stay: 600,
        away: 600,
    };
    let random = Mutex::new(Random::new());
    let clients = clients(&publishing, 200, &[PLAIN], limits, 10_000, &random);
    assert_all_get_all(&publishing, clients);
}

#[test]
fn clients_that_reconnect_receive_exactly_the_topics_that_they_subscribed_to() {
    let server = server(Config {
        history_events: 20_000,
        queue_bytes: 64 << 10,
        ..config()
    });
    let random = Mutex::new(Random::new());
    let topics = ["", "a", "ab", "a/1", "b", "b/1", "b/2/3", "c", "A"];
    // A prime number of topics, so that the topics and the clients' schedules do not fall
    // into step.
    let topics = (0..499).map(|_| topics[random.lock().unwrap().below(topics.len())]);
    let publishing = Publishing::new(server.local_addr(), topics.collect());
    let targets = [
        PLAIN,
        SubscribeTarget("/events/a?", |topic| ["", "a"].contains(&topic)),
        SubscribeTarget("/events/a*?", |topic| {
            topic.is_empty() || topic.starts_with('a')
        }),
        SubscribeTarget("/events/b/*?", |topic| {
            topic.is_empty() || topic.starts_with("b/")
        }),
        SubscribeTarget("/events/*?", |_| true),
        SubscribeTarget("/events/c?topic=b/2*&topic=a", |topic| {
            ["", "c", "b/2/3", "a"].contains(&topic)
        }),
    ];
    let limits = ChurnLimits {
        stay: 200,
        away: 600,
    };
    let clients = clients(&publishing, 60, &targets, limits, 8_000, &random);
    assert_all_get_all(&publishing, clients);
}

#[test]
fn a_gap_is_announced_only_where_events_are_lost_and_ends_at_the_oldest_retained_event() {
    // Each thread runs until its clients have seen this many reconnects without a gap and
    // this many with one: in total, and while publishing was paused.
    const ENOUGH: [usize; 2] = [800, 80];
    // The test fails if that many reconnects without a gap have not been enough.
    const TOO_MANY: usize = 20_000;
    let server = server(Config {
        history_events: 50,
        // The history keeps at least three times `queue_bytes`: about 600 events.
        queue_bytes: 8 << 10,
        ..config()
    });
    let publishing = Publishing::new(server.local_addr(), vec![""]);
    let limits = ChurnLimits {
        stay: 100,
        away: 800,
    };
    let random = Mutex::new(Random::new());
    let mut clients = clients(&publishing, 40, &[PLAIN], limits, usize::MAX, &random);
    let share = clients.len().div_ceil(WORKERS);
    let workers_left = AtomicUsize::new(WORKERS);
    thread::scope(|scope| {
        scope.spawn(|| publishing.run(|_| workers_left.load(Ordering::Relaxed) > 0));
        for clients in clients.chunks_mut(share) {
            scope.spawn(|| {
                let _done = OnDrop(|| {
                    workers_left.fetch_sub(1, Ordering::Relaxed);
                });
                run_clients(clients, &AtomicUsize::new(0), |clients| {
                    let seen = reconnects_by_kind(clients);
                    assert!(seen[0].iter().sum::<usize>() < TOO_MANY, "only {seen:?}");
                    let enough = seen.iter().zip(ENOUGH);
                    enough
                        .into_iter()
                        .all(|(seen, enough)| seen.iter().all(|seen| *seen >= enough))
                });
            });
        }
    });
}

/// Sums up the reconnects without a gap and with one: all of them, and those while
/// publishing was paused.
fn reconnects_by_kind(clients: &[ChurningClient]) -> [[usize; 2]; 2] {
    let sum = |count: fn(&ChurningClient) -> usize| clients.iter().map(count).sum();
    [
        [
            sum(|client| client.gaps_seen[0]),
            sum(|client| client.gaps_seen[1]),
        ],
        [
            sum(|client| client.gaps_seen_while_paused[0]),
            sum(|client| client.gaps_seen_while_paused[1]),
        ],
    ]
}
