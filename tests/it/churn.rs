//! Coming and going all the time: guests that leave at random, in the middle of anything, come back
//! with their last id, and hold every word of the server against what was published.
//!
//! The events are numbered, and their data is the number. So a guest knows which event comes next,
//! and what a `recovery` event may say: between what was published for certain before it asked, and
//! what can have been published when it was answered. For a part of the returns publishing is
//! paused; then the two are one number, and `/stats` says how far back the history goes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use tiny_sse::Config;

use crate::chance::Random;
use crate::kit::{Finally, Raw, Stream, config, eventually, get, number_after, server};
use crate::program::serve;

/// Threads that are the guests, each for its share of them.
const WORKERS: usize = 2;
/// What a guest reads at one go, before it is the next one's turn.
const GO: usize = 100;
/// Of so many returns one pauses the publishing.
const PAUSES: usize = 8;

/// What is published, and how far that is.
struct Press {
    address: SocketAddr,
    /// The topics of the events, again and again; the empty one is none.
    topics: Vec<&'static str>,
    /// The ids, by number.
    ids: Mutex<Vec<String>>,
    /// LOCK: held while an event is published; so who holds it pauses that.
    pause: Mutex<()>,
    /// How many wait to pause it: a lock is not fair.
    waiting: AtomicUsize,
    /// Events that may be published: the last of them is on its way.
    begun: AtomicUsize,
    /// Events that are published, and in `ids`.
    done: AtomicUsize,
    /// Nothing more will be published.
    is_over: AtomicBool,
}

impl Press {
    fn new(address: SocketAddr, topics: Vec<&'static str>) -> Press {
        Press {
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

    /// Publishes one event after the other, over one connection, as fast as it is answered, while
    /// `goes_on` says so.
    fn run(&self, mut goes_on: impl FnMut(usize) -> bool) {
        let _over = Finally(|| self.is_over.store(true, Ordering::Release));
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

    /// Nothing is published while this is held.
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

/// A way to subscribe, and the topics that it asks for.
#[derive(Clone, Copy)]
struct Target(&'static str, fn(&str) -> bool);

const PLAIN: Target = Target("/events?", |topic| topic.is_empty());

/// How much a guest does at most: it stays for so many events, and then stays away for so many.
#[derive(Clone, Copy)]
struct Habits {
    stay: usize,
    away: usize,
}

struct Guest<'a> {
    press: &'a Press,
    target: Target,
    habits: Habits,
    random: &'a Mutex<Random>,
    /// For the failing test, and as a `client_id` for a part of the guests.
    name: String,
    stream: Option<Stream>,
    /// What it comes back with.
    cursor: String,
    /// The number of the next event for it.
    next: usize,
    /// It has all that it wants when that is the next.
    end: usize,
    /// How many events it will yet read before it leaves.
    stay: usize,
    /// When so many events are published, it comes back.
    back_at: usize,
    returns: usize,
    /// Returns without a gap and with one.
    told: [usize; 2],
    /// Those of them while publishing was paused.
    exact: [usize; 2],
}

impl Guest<'_> {
    fn has_all(&self) -> bool {
        self.next >= self.end
    }

    /// The first number from `from` on that is for this guest.
    fn first_from(&self, from: usize) -> usize {
        let Target(_, asks) = self.target;
        (from..)
            .find(|number| asks(self.press.topic(*number)))
            .expect("there is always one more")
    }

    /// How many of the events before `end` are still to come.
    fn missing_before(&self, end: usize) -> usize {
        let Target(_, asks) = self.target;
        (self.next..end)
            .filter(|number| asks(self.press.topic(*number)))
            .count()
    }

    fn random(&self, end: usize) -> usize {
        self.random.lock().unwrap().below(end)
    }

    /// Does what it can do now without waiting for an event that is not published yet. False: nothing.
    fn step(&mut self) -> bool {
        let is_over = self.press.is_over.load(Ordering::Acquire);
        let done = self.press.done();
        let Some(stream) = &mut self.stream else {
            let comes_back = done >= self.back_at || is_over;
            if comes_back {
                self.come_back();
            }
            return comes_back;
        };
        if self.stay == 0 {
            self.leave(done);
            // Some are away for no time: they have reloaded the page.
            if self.random(3) == 0 {
                self.come_back();
            }
            return true;
        }
        if self.next >= done {
            return false;
        }
        stream.bytes.clear();
        for _ in 0..GO.min(self.stay) {
            if self.next < done && !self.read() {
                self.stream = None;
                self.back_at = 0;
                break;
            }
        }
        true
    }

    fn leave(&mut self, done: usize) {
        self.stream = None;
        // Counted from what it has read: the publisher does not go on for ever without it.
        self.back_at = done.min(self.next) + self.random(self.habits.away);
    }

    /// Reads the next event, which must be the one. False: the server has cut us off before it.
    fn read(&mut self) -> bool {
        let stream = self.stream.as_mut().expect("a guest that is here");
        let Some(event) = stream.try_next() else {
            return false;
        };
        let is_it = event.data.parse() == Ok(self.next);
        let has_its_id = event.last_event_id == self.press.ids.lock().unwrap()[self.next];
        assert!(
            is_it && has_its_id,
            "{}, return {}: {event:?} instead of number {}",
            self.name,
            self.returns,
            self.next
        );
        self.cursor = event.last_event_id;
        self.next = self.first_from(self.next + 1);
        self.stay -= 1;
        true
    }

    /// Resumes, and judges what it is told.
    fn come_back(&mut self) {
        self.stay = self.random(self.habits.stay);
        self.returns += 1;
        let paused = (self.random(PAUSES) == 0).then(|| self.press.pause());
        let (sent, at_least) = (self.cursor.clone(), self.press.done());
        let Some(mut stream) = self.open() else {
            return;
        };
        let Some(welcome) = stream.try_next() else {
            return;
        };
        // From here on this is what a browser would come back with, also when it hears no more.
        if !welcome.last_event_id.is_empty() {
            self.cursor = welcome.last_event_id;
        }
        let Some(recovery) = stream.try_next() else {
            return;
        };
        self.cursor = recovery.last_event_id;
        let recovery = recovery.data;
        let at_most = self.press.begun.load(Ordering::Acquire);
        self.stream = Some(stream);
        let what = format!("{}, return {}: {recovery}", self.name, self.returns);
        let is_complete = recovery.ends_with(r#""complete":true}"#);
        if is_complete {
            assert_eq!(self.cursor, sent, "{what}: begins elsewhere");
        } else {
            let end = r#""complete":false,"reason":"evicted"}"#;
            assert!(recovery.ends_with(end), "{what}");
        }
        self.told[usize::from(!is_complete)] += 1;
        let oldest = paused.is_some().then(|| {
            self.exact[usize::from(!is_complete)] += 1;
            self.oldest(&what, is_complete)
        });
        drop(paused);
        if !is_complete {
            self.skip(&what, oldest);
        }
        let replayed = number_after(&recovery, "\"replayed\":") as usize;
        let possible = self.missing_before(at_least)..=self.missing_before(at_most);
        assert!(possible.contains(&replayed), "{what}, not {possible:?}");
    }

    /// A return as a browser does it, or as a page does that has to make its `EventSource` anew.
    fn open(&self) -> Option<Stream> {
        let Target(target, _) = self.target;
        let name = match self.random(2) {
            0 => String::new(),
            // Its former self may still be there; then it is replaced.
            _ => format!("&client_id={}", self.name),
        };
        let cursor = &self.cursor;
        let (query, field) = match self.random(3) {
            0 => (format!("&last_event_id={cursor}"), String::new()),
            _ => (String::new(), format!("Last-Event-ID: {cursor}\r\n")),
        };
        let target = format!("{target}{name}{query}");
        Stream::try_open(self.press.address, &target, &field)
    }

    /// Nothing is being published: what is retained is a fact. Answers the number of the oldest.
    fn oldest(&self, what: &str, is_complete: bool) -> usize {
        let ids = self.press.ids.lock().unwrap();
        let stats = get(self.press.address, "/stats");
        let retained = number_after(stats.text(), "\"history\":{\"events\":") as usize;
        let oldest = ids.len() - retained;
        if let Some(id) = ids.get(oldest) {
            let first = format!(r#""first_id":"{id}""#);
            assert!(stats.text().contains(&first), "{what}: {}", stats.text());
        }
        assert_eq!(is_complete, self.next >= oldest, "{what}: from {oldest} on");
        oldest
    }

    /// Goes to where the stream goes on behind a gap: to the event after the one whose id the
    /// welcome has.
    fn skip(&mut self, what: &str, oldest: Option<usize>) {
        let ids = self.press.ids.lock().unwrap();
        // It is one of the latest.
        let last_gone = ids.iter().rposition(|id| *id == self.cursor);
        drop(ids);
        let first = last_gone.unwrap_or_else(|| panic!("{what}: after no event")) + 1;
        assert!(first > self.next, "{what}: there is no gap before {first}");
        assert_eq!(oldest.unwrap_or(first), first, "{what}: not to the oldest");
        self.next = self.first_from(first);
    }
}

/// Everybody's turn, again and again, until it is `enough`.
fn entertain(guests: &mut [Guest], slowest: &AtomicUsize, enough: impl Fn(&[Guest]) -> bool) {
    while !enough(guests) {
        eventually("somebody can do something", || {
            let waiting = guests.iter_mut().filter(|guest| !guest.has_all());
            let busy = waiting.map(Guest::step).filter(|busy| *busy).count();
            let next = guests.iter().map(|guest| guest.next).min();
            slowest.store(next.unwrap_or(usize::MAX), Ordering::Relaxed);
            busy > 0
        });
    }
}

/// `count` guests, in turn with each of the targets, who have all seen the birth of the server and
/// nothing else.
fn guests<'a>(
    press: &'a Press,
    count: usize,
    targets: &[Target],
    habits: Habits,
    end: usize,
    random: &'a Mutex<Random>,
) -> Vec<Guest<'a>> {
    let born = Stream::open(press.address, "/events", "")
        .next()
        .last_event_id;
    let guest = |index: usize| {
        let mut guest = Guest {
            press,
            target: targets[index % targets.len()],
            habits,
            random,
            name: format!("guest-{index}"),
            stream: None,
            cursor: born.clone(),
            next: 0,
            end,
            stay: 0,
            back_at: random.lock().unwrap().below(habits.away),
            returns: 0,
            told: [0; 2],
            exact: [0; 2],
        };
        guest.next = guest.first_from(0);
        guest
    };
    (0..count).map(guest).collect()
}

/// Publishes `events` while the guests come and go; in the end all have all that they asked for,
/// once, and there was never a gap.
fn all_get_all(press: &Press, mut guests: Vec<Guest>) {
    // How far the publisher may be ahead of the last guest: so all come and go all the time.
    const AHEAD: usize = 2_000;
    let events = guests[0].end;
    let slowest = [const { AtomicUsize::new(0) }; WORKERS];
    let share = guests.len().div_ceil(WORKERS);
    thread::scope(|scope| {
        scope.spawn(|| {
            press.run(|number| {
                eventually("the guests come and go", || {
                    let next = slowest.iter().map(|next| next.load(Ordering::Relaxed));
                    next.min() >= Some(number.saturating_sub(AHEAD))
                });
                number < events
            });
        });
        for (guests, slowest) in guests.chunks_mut(share).zip(&slowest) {
            scope.spawn(|| entertain(guests, slowest, |guests| guests.iter().all(Guest::has_all)));
        }
    });
    // Those who are away come back for the last time, and everybody stays.
    for guest in &mut guests {
        while guest.stream.is_none() {
            guest.come_back();
        }
        guest.stay = usize::MAX;
    }
    // It is for everybody, and would come behind whatever else were there.
    let last = (events..).find(|number| press.topic(*number).is_empty());
    let last = last.expect("some events have no topic");
    press.run(|number| number <= last);
    for guest in &mut guests {
        while guest.next <= last {
            assert!(guest.read(), "{} is cut off at the end", guest.name);
        }
        assert_eq!(guest.told[1], 0, "{} was told of a gap", guest.name);
        assert!(guest.returns >= 5, "{} stayed: no churn", guest.name);
    }
    let exact: usize = guests.iter().map(|guest| guest.exact[0]).sum();
    assert!(exact > 0, "nobody came back while publishing was paused");
}

#[test]
fn who_leaves_at_random_and_comes_back_each_time_has_everything_in_the_end() {
    // The server is a process of its own: see `crowd`.
    let program = serve(&["--history", "20000", "--queue-bytes", "64KiB"]);
    let press = Press::new(program.address, vec![""]);
    let habits = Habits {
        stay: 600,
        away: 600,
    };
    let random = Mutex::new(Random::new());
    let guests = guests(&press, 200, &[PLAIN], habits, 10_000, &random);
    all_get_all(&press, guests);
}

#[test]
fn who_comes_and_goes_gets_exactly_the_topics_that_it_asked_for() {
    let server = server(Config {
        history_events: 20_000,
        queue_bytes: 64 << 10,
        ..config()
    });
    let random = Mutex::new(Random::new());
    let topics = ["", "a", "ab", "a/1", "b", "b/1", "b/2/3", "c", "A"];
    // A prime number of them, lest guests and topics keep step.
    let topics = (0..499).map(|_| topics[random.lock().unwrap().below(topics.len())]);
    let press = Press::new(server.local_addr(), topics.collect());
    let targets = [
        PLAIN,
        Target("/events/a?", |topic| ["", "a"].contains(&topic)),
        Target("/events/a*?", |topic| {
            topic.is_empty() || topic.starts_with('a')
        }),
        Target("/events/b/*?", |topic| {
            topic.is_empty() || topic.starts_with("b/")
        }),
        Target("/events/*?", |_| true),
        Target("/events/c?topic=b/2*&topic=a", |topic| {
            ["", "c", "b/2/3", "a"].contains(&topic)
        }),
    ];
    let habits = Habits {
        stay: 200,
        away: 600,
    };
    let guests = guests(&press, 60, &targets, habits, 8_000, &random);
    all_get_all(&press, guests);
}

#[test]
fn a_gap_is_announced_where_one_is_and_nowhere_else_and_ends_at_the_oldest_event() {
    // What has to be seen of either kind by the guests of each worker, and how many of them while
    // publishing is paused. They go on until then, but not for ever.
    const ENOUGH: [usize; 2] = [800, 80];
    const TOO_MANY: usize = 20_000;
    let server = server(Config {
        history_events: 50,
        // The history holds three queues at the least: some 600 events.
        queue_bytes: 8 << 10,
        ..config()
    });
    let press = Press::new(server.local_addr(), vec![""]);
    let habits = Habits {
        stay: 100,
        away: 800,
    };
    let random = Mutex::new(Random::new());
    let mut guests = guests(&press, 40, &[PLAIN], habits, usize::MAX, &random);
    let share = guests.len().div_ceil(WORKERS);
    let at_work = AtomicUsize::new(WORKERS);
    thread::scope(|scope| {
        scope.spawn(|| press.run(|_| at_work.load(Ordering::Relaxed) > 0));
        for guests in guests.chunks_mut(share) {
            scope.spawn(|| {
                let _done = Finally(|| {
                    at_work.fetch_sub(1, Ordering::Relaxed);
                });
                entertain(guests, &AtomicUsize::new(0), |guests| {
                    let seen = kinds(guests);
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

/// Returns without a gap and with one; and those of them while publishing was paused.
fn kinds(guests: &[Guest]) -> [[usize; 2]; 2] {
    let sum = |count: fn(&Guest) -> usize| guests.iter().map(count).sum();
    [
        [sum(|guest| guest.told[0]), sum(|guest| guest.told[1])],
        [sum(|guest| guest.exact[0]), sum(|guest| guest.exact[1])],
    ]
}
