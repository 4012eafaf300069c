//! The lane against a kernel that does what it likes: a seeded run of fan-out, client's thread,
//! heartbeats, short writes, refusals and hang-ups, in one thread, so that a seed is a run.
//!
//! Whenever the code under test calls the socket, the other side may take a turn in the middle of
//! it. After every step: bytes in order, none twice, none lost, never two writers, and the socket
//! in the mode that its writer expects.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::iter;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::lane::{BATON_BYTE, Kind, Lane, QueueItem, Socket};
use super::{CloseReason, Out, Stream};
use crate::chance::Random;
use crate::config::Config;
use crate::hub::kept::Kept;
use crate::hub::{Hub, Subscribe};
use crate::wire::{Frame, Framing};

/// What the kernel and the two sides have done so far.
struct World {
    seed: u64,
    random: Random,
    blocking: bool,
    writer: Option<&'static str>,
    written: Vec<u8>,
    /// How many events were offered.
    offered: usize,
    /// The peer has gone: writes fail.
    hung_up: bool,
    /// Both directions were ended by us.
    cut: bool,
    /// How the client's thread has ended, if it has.
    ending: Option<CloseReason>,
}

const FAN_OUT: &str = "the fan-out";

impl World {
    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    fn begin(&mut self, writer: &'static str, blocking: bool) {
        assert_eq!(
            self.writer, None,
            "two writers: {writer} is the second; seed {}",
            self.seed
        );
        assert_eq!(
            self.blocking, blocking,
            "the mode of the socket under {writer}; seed {}",
            self.seed
        );
        self.writer = Some(writer);
    }

    fn take(&mut self, bytes: &[u8]) {
        self.writer = None;
        self.written.extend_from_slice(bytes);
        self.check();
    }

    /// Reads the stream so far: event 0, 1, 2 … whole, and whole heartbeats between them. Answers
    /// how many events have ended.
    fn check(&self) -> usize {
        let (mut next, mut rest) = (0, &self.written[..]);
        while !rest.is_empty() {
            let expected = if rest[0] == b':' {
                b": heartbeat\n".to_vec()
            } else {
                event(next)
            };
            let length = expected.len().min(rest.len());
            assert_eq!(
                String::from_utf8_lossy(&rest[..length]),
                String::from_utf8_lossy(&expected[..length]),
                "behind event {next}; seed {}",
                self.seed
            );
            next += usize::from(rest[0] != b':' && length == expected.len());
            rest = &rest[length..];
        }
        assert!(
            next <= self.offered,
            "more than was said; seed {}",
            self.seed
        );
        next
    }
}

/// Event number `n`, of a length of its own.
fn event(n: usize) -> Vec<u8> {
    format!("{n}{}\n", "x".repeat(n * 7 % 40)).into_bytes()
}

thread_local! {
    /// The client's thread, while it is not in the middle of something itself.
    static STREAM: RefCell<Option<Stream<'static, Fake>>> = const { RefCell::new(None) };
}

/// The socket, for both sides.
#[derive(Clone)]
struct Fake {
    world: Arc<Mutex<World>>,
    lane: Arc<Mutex<Option<Arc<Lane>>>>,
    /// One whose heartbeats are always due, and one whose never are.
    hubs: [&'static Hub; 2],
}

impl Fake {
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap())
    }

    /// The fan-out offers an event, or several as one batch.
    fn fan_out(&self) {
        let lane = self.lane.lock().unwrap().clone().expect("a lane");
        if lane.close_reason().is_some() {
            return; // What is offered to a lane that has ended is offered to nobody.
        }
        let bytes = self.with(|world| {
            let first = world.offered;
            world.offered += 1 + world.below(3);
            (first..world.offered).flat_map(event).collect::<Vec<u8>>()
        });
        let frame = Frame::of(iter::once(&bytes[..]));
        lane.offer(&Arc::new(frame), 1, 0);
    }

    /// A turn of the client's thread, at which a heartbeat is due or is not.
    fn turn(&self, stream: &mut Stream<'static, Fake>) {
        if self.with(|world| world.ending.is_some()) {
            return;
        }
        stream.hub = self.hubs[self.with(|world| world.below(2))];
        let ending = match stream.wait_and_write(Duration::ZERO) {
            Ok(ending) => ending,
            Err(_) => Some(stream.lane.close_reason().unwrap_or(CloseReason::HungUp)),
        };
        self.with(|world| world.ending = ending);
    }

    /// Somewhere in the middle of the client's thread: the fan-out may come by.
    fn maybe_fan_out(&self) {
        // There is one fan-out: not while it is in the middle of a write itself.
        if self.with(|world| world.writer != Some(FAN_OUT) && world.below(3) == 0) {
            self.fan_out();
        }
    }
}

impl Socket for Fake {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|world| world.begin(FAN_OUT, false));
        if self.with(|world| world.below(2) == 0) {
            // In the middle of the fan-out's write the client's thread wakes.
            STREAM.with(|stream| {
                if let Ok(mut stream) = stream.try_borrow_mut()
                    && let Some(stream) = stream.as_mut()
                {
                    self.turn(stream);
                }
            });
        }
        self.with(|world| {
            let count = match world.below(4) {
                0 => 0,
                1 => world.below(bytes.len() + 1),
                _ => bytes.len(),
            };
            world.take(&bytes[..if world.hung_up { 0 } else { count }]);
            match count {
                _ if world.hung_up => Err(ErrorKind::BrokenPipe.into()),
                0 => Err(ErrorKind::WouldBlock.into()),
                _ => Ok(count),
            }
        })
    }

    fn abort(&self) {
        self.with(|world| world.cut = true);
    }
}

impl Out for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|world| world.begin("the client's thread", true));
        self.maybe_fan_out();
        self.with(|world| {
            let broken = world.hung_up || world.cut;
            // What a broken connection took of it, nobody knows.
            let count = if broken {
                world.below(bytes.len())
            } else {
                bytes.len()
            };
            world.take(&bytes[..count]);
            if broken {
                Err(ErrorKind::BrokenPipe.into())
            } else {
                Ok(())
            }
        })
    }

    fn make_nonblocking(&mut self) -> io::Result<bool> {
        self.maybe_fan_out();
        self.with(|world| world.blocking = false);
        self.maybe_fan_out();
        Ok(true)
    }

    fn make_blocking(&mut self) -> io::Result<()> {
        self.maybe_fan_out();
        self.with(|world| world.blocking = true);
        Ok(())
    }

    fn has_hung_up(&mut self) -> bool {
        self.maybe_fan_out();
        self.with(|world| world.hung_up || world.cut)
    }

    fn close(&mut self) {}
}

/// One client's life. Answers how it ended, if it did.
fn live(hubs: [&'static Hub; 2], seed: u64) -> Option<CloseReason> {
    let limit = 400;
    let (lane, queue) = Lane::new(
        "model".into(),
        &Subscribe::default(),
        Kind::Stream,
        limit,
        &Arc::default(),
        0,
    );
    let world = World {
        seed,
        random: Random::of(seed),
        blocking: true,
        writer: None,
        written: Vec::new(),
        offered: 0,
        hung_up: false,
        cut: false,
        ending: None,
    };
    let fake = Fake {
        world: Arc::new(Mutex::new(world)),
        lane: Arc::new(Mutex::new(Some(Arc::clone(&lane)))),
        hubs,
    };
    lane.read_up_to(0, 0);
    lane.open(Arc::new(fake.clone()));
    // Leaked, for the sake of a thread-local that lives as long as it likes: some bytes a seed.
    let queue: &'static Receiver<QueueItem> = Box::leak(Box::new(queue));
    let lane: &'static Arc<Lane> = Box::leak(Box::new(lane));
    let stream = Stream {
        hub: hubs[0],
        lane,
        queue,
        out: fake.clone(),
        written_backlog: BATON_BYTE,
        holds_baton: true,
    };
    STREAM.set(Some(stream));
    let turn = || STREAM.with(|stream| fake.turn(stream.borrow_mut().as_mut().expect("a stream")));
    for _ in 0..fake.with(|world| 20 + world.below(60)) {
        match fake.with(|world| world.below(100)) {
            0 => fake.with(|world| world.hung_up = true),
            1 => lane.close(CloseReason::Kicked, 0),
            2..50 => fake.fan_out(),
            _ => turn(),
        }
        if fake.with(|world| world.ending.is_some()) {
            break;
        }
    }
    // Whoever is still there gets all that was said, once nothing more is said.
    fake.lane.lock().unwrap().take();
    STREAM.with(|stream| drop(stream.borrow_mut().take()));
    let ending = fake.with(|world| world.ending);
    let quiet = !fake.with(|world| world.hung_up || world.cut);
    if ending.is_none() && quiet && lane.close_reason().is_none() {
        while let Ok(message) = queue.try_recv() {
            let QueueItem::Bytes { frame, from, .. } = message else {
                panic!("a close_reason without an ending")
            };
            fake.with(|world| world.take(&frame.bytes(Framing::Bare)[from..]));
        }
        let (ended, offered) = fake.with(|world| (world.check(), world.offered));
        assert_eq!(ended, offered, "events were lost; seed {seed}");
    }
    ending
}

/// How many seeds are lived through.
const LIVES: u64 = 10_000;

#[test]
fn whatever_happens_bytes_come_in_order_once_and_from_one_writer() {
    // No real hub has a heartbeat that is always due.
    let hubs = [Duration::ZERO, Duration::from_secs(3600)].map(|heartbeat| {
        let config = Config {
            heartbeat,
            ..Config::default()
        };
        &*Box::leak(Box::new(Hub::start(config, None, Kept::nothing()).unwrap()))
    });
    let endings: Vec<_> = (1..=LIVES).map(|seed| live(hubs, seed)).collect();
    // The model is worth something only if it gets everywhere.
    for ending in [
        None,
        Some(CloseReason::HungUp),
        Some(CloseReason::Kicked),
        Some(CloseReason::FellBehind),
    ] {
        let count = endings.iter().filter(|other| **other == ending).count();
        assert!(
            count > 100,
            "only {count} of {LIVES} lives ended with {ending:?}"
        );
    }
}
