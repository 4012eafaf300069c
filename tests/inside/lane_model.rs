//! A model test of the baton: `lane.rs` and `stream.rs` run against a simulated kernel,
//! in random orders.
//!
//! One test thread plays both the fan-out thread and the client's thread. A seeded
//! generator decides which of the two runs next, what the socket accepts, when heartbeats
//! are due, and when the peer hangs up. So a seed always gives the same run.
//!
//! Whenever the code under test calls the simulated socket, the other of the two threads
//! may run in the middle of that call. This is how the test reaches the interleavings
//! that two real threads could have. After every step it checks these rules:
//!
//! - The bytes on the wire are in order; none is lost and none is written twice.
//! - There are never two writers at the same time.
//! - The socket is blocking for the client's thread and non-blocking for the fan-out.

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

/// The state of the simulated kernel, and what both threads have done so far.
struct World {
    /// Named in each failure, to repeat the run.
    seed: u64,
    random: Random,
    /// The mode of the socket.
    blocking: bool,
    /// The thread that is in the middle of a write.
    writer: Option<&'static str>,
    /// All bytes that were written to the socket.
    written: Vec<u8>,
    /// The number of events that the fan-out has offered.
    offered: usize,
    /// The peer has closed the connection: writes fail.
    hung_up: bool,
    /// The fan-out has aborted the socket.
    aborted: bool,
    /// Why the client's thread has ended, if it has.
    close_reason: Option<CloseReason>,
}

const FAN_OUT: &str = "the fan-out";

impl World {
    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    /// Begins a write, and checks that no other thread is writing and that the socket has
    /// the mode that `writer` expects.
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

    /// Ends the write: the kernel has taken these bytes.
    fn take(&mut self, bytes: &[u8]) {
        self.writer = None;
        self.written.extend_from_slice(bytes);
        self.check();
    }

    /// Parses the bytes so far. They must be the events 0, 1, 2, … in order, with
    /// heartbeats between them; only the last event or heartbeat may be incomplete.
    /// Returns the number of complete events.
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
                "wrong bytes before event {next}; seed {}",
                self.seed
            );
            next += usize::from(rest[0] != b':' && length == expected.len());
            rest = &rest[length..];
        }
        assert!(
            next <= self.offered,
            "more events than were offered; seed {}",
            self.seed
        );
        next
    }
}

/// The bytes of event number `n`. The length depends on `n`.
fn event(n: usize) -> Vec<u8> {
    format!("{n}{}\n", "x".repeat(n * 7 % 40)).into_bytes()
}

thread_local! {
    /// The client's thread. Borrowed while it runs, so that it is not entered a second
    /// time.
    static STREAM: RefCell<Option<Stream<'static, Fake>>> = const { RefCell::new(None) };
}

/// The simulated socket: [`Socket`] for the fan-out, and [`Out`] for the client's thread.
#[derive(Clone)]
struct Fake {
    world: Arc<Mutex<World>>,
    lane: Arc<Mutex<Option<Arc<Lane>>>>,
    /// Two hubs: in the first, a heartbeat is always due; in the second, never.
    hubs: [&'static Hub; 2],
}

impl Fake {
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap())
    }

    /// The fan-out thread runs: it offers one to three events as one frame.
    fn fan_out(&self) {
        let lane = self.lane.lock().unwrap().clone().expect("a lane");
        if lane.close_reason().is_some() {
            return; // A closed lane gets no events, so these would count as lost.
        }
        let bytes = self.with(|world| {
            let first = world.offered;
            world.offered += 1 + world.below(3);
            (first..world.offered).flat_map(event).collect::<Vec<u8>>()
        });
        let frame = Frame::of(iter::once(&bytes[..]));
        lane.offer(&Arc::new(frame), 1, 0);
    }

    /// The client's thread runs one turn of its main loop. A heartbeat is due, or not, at
    /// random.
    fn client_thread(&self, stream: &mut Stream<'static, Fake>) {
        if self.with(|world| world.close_reason.is_some()) {
            return;
        }
        stream.hub = self.hubs[self.with(|world| world.below(2))];
        let close_reason = match stream.wait_and_write(Duration::ZERO) {
            Ok(close_reason) => close_reason,
            Err(_) => Some(stream.lane.close_reason().unwrap_or(CloseReason::HungUp)),
        };
        self.with(|world| world.close_reason = close_reason);
    }

    /// Called in the middle of the client's thread: the fan-out thread may run here.
    fn maybe_fan_out(&self) {
        // There is only one fan-out thread, so not while it is in the middle of a write.
        if self.with(|world| world.writer != Some(FAN_OUT) && world.below(3) == 0) {
            self.fan_out();
        }
    }
}

impl Socket for Fake {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|world| world.begin(FAN_OUT, false));
        if self.with(|world| world.below(2) == 0) {
            // The client's thread wakes in the middle of the fan-out's write.
            STREAM.with(|stream| {
                if let Ok(mut stream) = stream.try_borrow_mut()
                    && let Some(stream) = stream.as_mut()
                {
                    self.client_thread(stream);
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
        self.with(|world| world.aborted = true);
    }
}

impl Out for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|world| world.begin("the client's thread", true));
        self.maybe_fan_out();
        self.with(|world| {
            let broken = world.hung_up || world.aborted;
            // A broken connection takes an unknown part of the bytes.
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
        self.with(|world| world.hung_up || world.aborted)
    }

    fn close(&mut self) {}
}

/// Runs one stream with this seed. Returns why it ended, or `None` if the run was over
/// before.
fn run(hubs: [&'static Hub; 2], seed: u64) -> Option<CloseReason> {
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
        aborted: false,
        close_reason: None,
    };
    let fake = Fake {
        world: Arc::new(Mutex::new(world)),
        lane: Arc::new(Mutex::new(Some(Arc::clone(&lane)))),
        hubs,
    };
    lane.read_up_to(0, 0);
    lane.open(Arc::new(fake.clone()));
    // Leaked, because the thread-local needs `'static`. It is a few bytes for each seed.
    let queue: &'static Receiver<QueueItem> = Box::leak(Box::new(queue));
    let lane: &'static Arc<Lane> = Box::leak(Box::new(lane));
    let stream = Stream {
        hub: hubs[0],
        lane,
        queue,
        out: fake.clone(),
        end: None,
        written_backlog: BATON_BYTE,
        holds_baton: true,
    };
    STREAM.set(Some(stream));
    let client_thread = || {
        STREAM.with(|stream| fake.client_thread(stream.borrow_mut().as_mut().expect("a stream")))
    };
    for _ in 0..fake.with(|world| 20 + world.below(60)) {
        match fake.with(|world| world.below(100)) {
            0 => fake.with(|world| world.hung_up = true),
            1 => lane.close(CloseReason::Kicked, 0),
            2..50 => fake.fan_out(),
            _ => client_thread(),
        }
        if fake.with(|world| world.close_reason.is_some()) {
            break;
        }
    }
    // If the stream has not ended, what is left in the queue completes the events that
    // were offered.
    fake.lane.lock().unwrap().take();
    STREAM.with(|stream| drop(stream.borrow_mut().take()));
    let close_reason = fake.with(|world| world.close_reason);
    let is_connected = !fake.with(|world| world.hung_up || world.aborted);
    if close_reason.is_none() && is_connected && lane.close_reason().is_none() {
        while let Ok(item) = queue.try_recv() {
            let QueueItem::Bytes { frame, from, .. } = item else {
                panic!("a close item in the queue of a lane that is not closed")
            };
            fake.with(|world| world.take(&frame.bytes(Framing::Bare)[from..]));
        }
        let (complete, offered) = fake.with(|world| (world.check(), world.offered));
        assert_eq!(complete, offered, "events were lost; seed {seed}");
    }
    close_reason
}

/// The number of seeds.
const RUNS: u64 = 10_000;

#[test]
fn in_random_interleavings_bytes_are_written_in_order_once_and_by_one_writer() {
    // `Hub::new` would refuse a heartbeat of zero, so the hubs are started without the
    // check.
    let hubs = [Duration::ZERO, Duration::from_secs(3600)].map(|heartbeat| {
        let config = Config {
            heartbeat,
            ..Config::default()
        };
        &*Box::leak(Box::new(Hub::start(config, None, Kept::nothing()).unwrap()))
    });
    let close_reasons: Vec<_> = (1..=RUNS).map(|seed| run(hubs, seed)).collect();
    // The test is worth something only if the runs reach every kind of end.
    for expected in [
        None,
        Some(CloseReason::HungUp),
        Some(CloseReason::Kicked),
        Some(CloseReason::FellBehind),
    ] {
        let ends = close_reasons.iter();
        let count = ends.filter(|reason| **reason == expected).count();
        assert!(
            count > 100,
            "only {count} of {RUNS} runs ended with {expected:?}"
        );
    }
}
