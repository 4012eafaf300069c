//! Every number in one place: each limit with its unit, its default, and the reason for it.
//!
//! A field of [`Config`] bounds what a peer can make the server spend. A number that nobody needs to set is
//! a constant below. What a cargo feature adds, fields and numbers, has a file of its own.

#[cfg(feature = "access")]
mod access;
#[cfg(feature = "console")]
mod console;
#[cfg(feature = "journal")]
mod journal;

use std::fmt;
use std::io;
use std::time::Duration;

use crate::hub::OnPresence;
use crate::machine;
use crate::names::names;
use crate::report::Report;
use crate::wire::Network;

#[cfg(feature = "access")]
pub use access::*;
#[cfg(feature = "console")]
pub use console::*;
#[cfg(feature = "journal")]
pub use journal::*;

/// Makes [`Config`] and its default of one table, whose rows also say which limits are never zero.
macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])*
        $(#[cfg($feature:meta)])?
        $field:ident: $type:ty $(, never $zero:pat)? = $default:expr;
    )*) => {
        /// The limits of a server, and of the hub in it. A `Config` sets some fields and takes the others from the
        /// default:
        ///
        /// ```
        /// use std::time::Duration;
        /// use tiny_sse::Config;
        /// let config = Config { heartbeat: Duration::from_secs(5), ..Config::default() };
        /// # assert!(config.check().is_ok());
        /// ```
        ///
        /// Minor versions and cargo features add fields, here and in the structs of the features (`AccessConfig`,
        /// `JournalConfig`). The promise is that a literal with `..Config::default()` at its end stays valid. A literal
        /// that names every field breaks when a field is added.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])* $(#[cfg($feature)])? pub $field: $type,)*
        }

        impl Default for Config {
            fn default() -> Config {
                Config { $($(#[cfg($feature)])? $field: $default,)* }
            }
        }

        impl Config {
            /// The name of a field that is zero and must not be.
            fn zero(&self) -> Option<&'static str> {
                match self {
                    $($(Config { $field: $zero, .. } => Some(stringify!($field)),)?)*
                    _ => None,
                }
            }
        }
    };
}

limits! {
    /// Streams at the same time; one more is answered 503. Each costs a thread.
    max_clients: usize, never 0 = 1000;
    /// Connections beyond those streams: publishers, `/stats`, heads that are still arriving. When all
    /// are taken, a new one evicts the connection that has waited for a request, or for the rest of its
    /// body, the longest.
    extra_connections: usize, never 0 = 256;
    /// Connections of any kind from one client's address at the same time, or from one /64 of IPv6;
    /// one more is answered 503. Behind a trusted proxy its requests and streams are counted instead,
    /// each under the address of its client. `None` counts nothing: behind a proxy that is not
    /// trusted, or from a company with one address, any number would be too few.
    max_per_ip: Option<usize>, never Some(0) = None;
    /// Proxies whose `Forwarded` (RFC 7239) or `X-Forwarded-For` names the client. By default there is none,
    /// because any client can send these fields. Only a proxy that writes them itself makes them true.
    trust_proxy: Vec<Network> = Vec::new();
    /// Bytes of a request's head; more is answered 431. The defaults of nginx and Apache are similar.
    max_head: usize, never 0 = 16 * KIB;
    /// Header fields in a request; more are answered 431.
    max_fields: usize, never 0 = 100;
    /// Bytes of a request's target (path and query); more are answered 414.
    max_target: usize, never 0 = 8 * KIB;
    /// Bytes of a request's body, and so of an event's data; more are answered 413. So are the events of
    /// one request if they come to more than four times as many bytes (or 64 KiB, if that is more), each
    /// counted with its name, its topic and 200 bytes.
    max_body: usize, never 0 = MIB;
    /// Bytes of the bodies of all requests together, while they are read and answered; a request whose
    /// body would make them more is answered 503. Bodies of at most 4 KiB are not counted. It counts as
    /// at least one [`max_body`](Self::max_body), so that a body of that size can be read.
    total_bodies: usize, never 0 = 64 * MIB;
    /// Bytes of all answers together that are larger than 16 KiB and are being written; a GET whose
    /// answer would make them more is answered 503. An answer that is the only one may be larger.
    total_answers: usize, never 0 = 64 * MIB;
    /// The time from the first byte of a head to its last, however slowly the bytes come; then 408.
    head_timeout: Duration, never Duration::ZERO = Duration::from_secs(10);
    /// The time from the head to the last byte of the body; then 408.
    body_timeout: Duration, never Duration::ZERO = Duration::from_secs(30);
    /// How long a connection may stay silent between two requests; then it is closed.
    idle_timeout: Duration, never Duration::ZERO = Duration::from_secs(15);
    /// How long one write may take; then the peer is disconnected.
    write_timeout: Duration, never Duration::ZERO = Duration::from_secs(10);
    /// Topics and patterns that one client may ask for; more are answered 400. Each is an entry of the
    /// hub's index, which every client shares.
    max_patterns: usize, never 0 = 64;
    /// Bytes that may wait for one client; with more it has fallen behind and is disconnected.
    queue_bytes: usize, never 0 = MIB;
    /// Bytes that may wait for all clients together. With more, the clients for which the most bytes wait have
    /// fallen behind and are disconnected. Bytes that wait for several clients count for each of them.
    /// `None` is 64 queues, or a quarter of the memory that this process may use, whichever is more.
    total_queues: Option<usize> = None;
    /// Bytes of the kernel's send buffer for each connection, or `None` for the kernel's own tuning. The
    /// program sets it on the listener that it makes, and accepted sockets inherit it; a listener of
    /// your own has the buffer that you gave it.
    send_buffer: Option<usize>, never Some(0) = Some(128 * KIB);
    /// Events kept for clients that reconnect. 0 keeps none: every client that reconnects is then told of a
    /// gap, unless no event was published meanwhile. More are kept as long as they are smaller than three queues.
    history_events: usize = 10_000;
    /// Bytes of those events on the wire, never less than three queues: a client that fell behind can then catch
    /// up, if it reconnects before more is published than there is room for, and no event is larger than
    /// two fifths of a queue. In memory an event costs some 200 bytes more. Events so small that this matters
    /// are kept as long as all of them take less than twice this many bytes of memory.
    history_bytes: usize = 16 * MIB;
    /// How often a stream without events sends `: heartbeat`, so that proxies keep it open and each end notices
    /// that the other has gone.
    heartbeat: Duration, never Duration::ZERO = Duration::from_secs(15);
    /// The time that clients wait before they reconnect; the welcome has it as `retry:`.
    retry: Duration = Duration::from_secs(5);
    /// How much longer than `retry` a client may be told to wait, in percent. Each client gets its own share,
    /// so that clients that were cut off together do not reconnect together.
    retry_jitter: u32 = 0;
    /// The answer to a client that comes when there are `max_clients` already.
    overload: Overload = Overload::Refuse;
    /// Whether every client that reaches the server may publish. Otherwise, without a token, only a
    /// client on this machine may, only if the server listens nowhere else, and only by a `Host` that no
    /// other machine can have, such as `localhost`.
    open: bool = false;
    /// Whether `GET /` answers a browser with the console page.
    #[cfg(feature = "console")]
    console: Console = Console::Auto;
    /// Tokens and allowed origins.
    #[cfg(feature = "access")]
    access: AccessConfig = AccessConfig::default();
    /// Where events are kept on disk.
    #[cfg(feature = "journal")]
    journal: JournalConfig = JournalConfig::default();
    /// How long a shutdown waits for requests in flight and for the last event of each stream.
    grace: Duration = Duration::from_secs(5);
    /// Stack of a connection's thread, in bytes. It is address space: memory is used only for what
    /// is touched, a few KiB. At least 64 KiB. Handlers of your own run on it.
    stack_bytes: usize = 256 * KIB;
    /// The function that is told what happens. By default there is none.
    report: Report = Report::default();
    /// The function that is told which clients join and leave. By default there is none.
    on_presence: OnPresence = OnPresence::default();
}

/// The answer to a client that is one too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// 503, with `Retry-After`. Programs understand it; a browser's EventSource gives up for good.
    #[default]
    Refuse,
    /// 200, and a stream that ends after a `retry:` of up to twice the configured one, so that an
    /// EventSource reconnects.
    Retry,
}

names!(Overload: "refuse" Refuse, "retry" Retry);

impl Config {
    /// Connections of any kind at the same time. One more evicts the one that has waited for a request, or
    /// for the rest of its body, the longest; if none waits, it is answered 503 without a thread.
    pub fn max_connections(&self) -> usize {
        self.max_clients.saturating_add(self.extra_connections)
    }

    /// The bytes that a history holds at least: as many as a client that is disconnected for falling behind may
    /// have missed. These are a queue, the batch that was too much, the batch that was refused and the events
    /// in the inbox, each of the last three a quarter of a queue and one event. It leaves room for events
    /// of two fifths of a queue.
    pub(crate) fn least_history_bytes(&self) -> usize {
        self.queue_bytes.saturating_mul(3)
    }

    /// LIMIT: bytes of all events of one request. Many short lines with a long name, or one event of
    /// many empty lines, are several times as long as the body that they come in.
    pub(crate) fn most_event_bytes(&self) -> usize {
        self.max_body.saturating_mul(4).max(64 * KIB)
    }

    /// Bytes that may wait for all clients together.
    pub(crate) fn most_queued(&self) -> usize {
        self.total_queues.unwrap_or_else(|| {
            let quarter = machine::memory().unwrap_or(0) / 4;
            let queues = self.queue_bytes.saturating_mul(QUEUES);
            queues.max(usize::try_from(quarter).unwrap_or(usize::MAX))
        })
    }

    /// The value of `Retry-After`: the time that a client waits before it reconnects, in seconds.
    pub(crate) fn retry_after(&self) -> String {
        self.retry.as_secs().max(1).to_string()
    }

    /// Whether the limits make sense, each alone and together.
    ///
    /// # Errors
    ///
    /// A limit is too small or too large, or contradicts another. The message names it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError(what));
        if let Some(field) = self.zero() {
            let name = field.replace('_', "-");
            return wrong(format!("{name} is 0, it must be more"));
        }
        for (name, time) in [
            ("head-timeout", self.head_timeout),
            ("body-timeout", self.body_timeout),
            ("idle-timeout", self.idle_timeout),
            ("write-timeout", self.write_timeout),
            ("heartbeat", self.heartbeat),
            ("retry", self.retry),
            ("grace", self.grace),
        ] {
            if time > LONGEST {
                return wrong(format!("{name} is longer than 365 days"));
            }
        }
        if self.heartbeat < Duration::from_millis(1) {
            return wrong("heartbeat is less than 1ms".into());
        }
        let (stack, jitter) = (self.stack_bytes, self.retry_jitter);
        if stack < MIN_STACK {
            let why = "a thread that overflows its stack ends the process";
            return wrong(format!(
                "stack-bytes is {stack}, less than {MIN_STACK}: {why}"
            ));
        }
        if stack > MAX_STACK {
            return wrong(format!("stack-bytes is {stack}, more than {MAX_STACK}"));
        }
        if jitter > MAX_JITTER_PERCENT {
            return wrong(format!(
                "retry-jitter is {jitter}%, more than {MAX_JITTER_PERCENT}%"
            ));
        }
        let queue = self.queue_bytes;
        if let Some(total) = self.total_queues.filter(|total| *total < queue) {
            let why = "less than one client's queue-bytes";
            return wrong(format!("total-queues is {total}, {why}, {queue}"));
        }
        let history = self.history_bytes;
        if self.history_events > 0 && history < self.least_history_bytes() {
            return wrong(format!(
                "history-bytes is {history}, less than three of queue-bytes, {queue}: a client that fell behind \
                 could not catch up"
            ));
        }
        #[cfg(feature = "journal")]
        self.journal.check()?;
        #[cfg(feature = "access")]
        self.access.check(self.open)?;
        Ok(())
    }
}

/// Why a [`Config`], or a text for a field of it, was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn unknown_name(known: &[&str]) -> ConfigError {
        let known = known.join(", ");
        ConfigError(format!("unknown name, it must be one of {known}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// How many full queues all clients together may have at least: a memory of 256 MiB has room for these
/// and for a history.
const QUEUES: usize = 64;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Twice the smallest stack that served every endpoint, with the six uses, a journal, tokens and a proxy, in a
/// debug build: 32 KiB served all of them, and 24 KiB overflowed.
const MIN_STACK: usize = 64 * KIB;

/// More than any thread's stack has been.
const MAX_STACK: usize = 1 << 30;

/// No timeout is longer: the sum of an instant and a larger one may not exist.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Clients then wait up to eleven times as long; no server needs a wider spread.
const MAX_JITTER_PERCENT: u32 = 1000;

/// What is between two clients that come back when a server that has closed returns: 500 come in
/// a second, which is little for a server and not long for 10,000 clients.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(2);

/// The `retry:` of a client that was replaced or dismissed, which should not come back by itself: a
/// day, which timers of browsers can still count (24 days are too many for them).
pub(crate) const RETRY_WHEN_CLOSED: Duration = Duration::from_secs(86_400);

/// What an event costs beside its text: its id, and its place in the history.
pub(crate) const EVENT_OVERHEAD: usize = 200;

/// Lines of one NDJSON request. Each is an event of its own, and costs far more memory than the two
/// bytes that it may be.
pub(crate) const EVENTS_PER_REQUEST: usize = 10_000;

/// The longest wait of a long poll, in seconds. Proxies give up on an answer after as much (nginx:
/// `proxy_read_timeout 60s`).
pub(crate) const POLL_SECONDS: u64 = 60;

/// Requests without the right to do what they ask that are logged at once; further ones are logged at one
/// line a second. One connection can send thousands of them in a second.
pub(crate) const DENIALS_LOGGED: u32 = 32;

/// Topics that `/stats` lists: the busiest ones.
pub(crate) const STATS_TOPICS: usize = 1000;

/// Bytes of the list of clients in `/stats?clients=1`: enough for ten thousand clients of a few topics each.
pub(crate) const STATS_BYTES: usize = 4 * MIB;

/// Bytes of history in one answer to a poll, as JSON. If one event wakes a thousand polls, all their
/// answers are in memory at the same time.
pub(crate) const POLL_BYTES: usize = 64 * KIB;

/// What one read asks the socket for. A request is seldom larger, and a thread that waits for
/// the next one holds no more than this.
pub(crate) const READ_BYTES: usize = 4 * KIB;

/// Bytes by which the memory of a body grows as its bytes arrive, whatever length a peer has announced: at
/// least the first number. Up to the second number the memory doubles; then it grows by a quarter.
pub(crate) const BODY_STEP: (usize, usize) = (64, 4 * KIB);

/// An id in the list of an answer, at the most: two numbers of 64 bits, a dash, quotes and a comma.
pub(crate) const ID_BYTES: usize = 44;

/// A body is not counted among [`total_bodies`](Config::total_bodies) if it has at most the first number of
/// bytes, and at most the total divided by the second number, so that small bodies together stay small.
pub(crate) const SMALL_BODY: (usize, usize) = (4 * KIB, 16 * KIB);

/// Bytes of a body after which the waiting time of its connection starts again. A body that comes in
/// slower than others is the first to be evicted when all places are taken.
pub(crate) const BODY_PROGRESS: usize = 16 * KIB;

/// An answer of at most so many bytes is not counted among [`total_answers`](Config::total_answers): a
/// socket takes it at once.
pub(crate) const SMALL_ANSWER: usize = 16 * KIB;

/// Where the head of an answer is put together. More than the largest allocation that glibc keeps
/// for a thread that has freed it (1,032 bytes), which ten thousand streams would never use again.
pub(crate) const HEAD_BYTES: usize = 1040;

/// What one write to a client joins together: enough that the cost of the call does not matter,
/// and little enough that ten thousand clients can do it at once.
pub(crate) const WRITE_BYTES: usize = 64 * KIB;

/// What one write of a replay joins together. A client that reads its replay slowly holds as much in memory,
/// and thousands may do so at once.
pub(crate) const REPLAY_BYTES: usize = 16 * KIB;

/// What a connection that is to be closed may still send. Closing a socket with bytes unread resets
/// it, and a reset takes our last answer away from the peer.
pub(crate) const LINGER_BYTES: usize = 8 * MIB;
/// How long it may be silent meanwhile. See [`LINGER_BYTES`].
pub(crate) const LINGER_SILENCE: Duration = Duration::from_secs(1);
/// How long it may go on for: a body of two megabytes, refused by its length, over a line of two
/// megabits. It could as well have dribbled in a body that is not refused. See [`LINGER_BYTES`].
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// Rejected connections that are kept open until their clients have read the answer, each for up to
/// [`LINGER`]; one more is closed at once. Each costs a descriptor and no thread. Fewer where descriptors
/// are few.
pub(crate) const MAX_LINGERING: usize = 256;

/// How often it is looked whether they have gone, while somebody is there. That they have is not
/// urgent, and each look is a system call for each of them.
pub(crate) const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// Evicted connections whose threads have not ended yet. Until then they exist beside the connections that
/// replaced them. Fewer where descriptors or threads are few.
pub(crate) const MAX_EVICTED: usize = 32;

/// How long a connection that finds all places taken waits, with all behind it, for threads of this
/// server: those of connections that were let go, to end, or those of connections that may be, to
/// begin. They want nothing but a processor, so that it takes this long only where there is none.
pub(crate) const EVICTION_WAIT: Duration = Duration::from_millis(100);

/// The pause between two lines of the log of one kind, if peers can cause that kind at will.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Malformed requests that are logged at once, at level debug; further ones are logged at one line a
/// second. Each of them ends its connection.
pub(crate) const REFUSALS_LOGGED: u32 = 512;

/// Events of the history that are looked at while the hub's lock is held once. It takes some 0.2 ms.
pub(crate) const SLICE_EVENTS: usize = 2048;

/// Parts of one batch that are joined and kept at a time, for clients that came or left in the middle of it. Most
/// batches have one part, which is all of it.
pub(crate) const JOINED_PARTS: usize = 4;

/// The pause after an `accept` that failed for want of something: doubled from the first to the last.
pub(crate) const ACCEPT_PAUSE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(1));

/// The pause between two connections of a server to its own listener, which wake its `accept` at the
/// end: doubled from the first to the last. It is also how long such a connection may take.
pub(crate) const WAKE_PAUSE: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_millis(100));

/// How many of those connections are open at the same time.
pub(crate) const WAKE_ATTEMPTS: usize = 16;

/// How long a worker without a connection waits for the next one before it ends. Starting another costs
/// some 50 µs; a thread too many costs some 16 KiB.
pub(crate) const WORKER_IDLE: Duration = Duration::from_millis(200);

/// How long after the grace threads whose sockets were closed under them are waited for.
pub(crate) const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);

/// What a browser may remember of a preflight, in seconds: one day, the most that any takes.
pub(crate) const PREFLIGHT_SECONDS: u32 = 86_400;

/// The longest list of header fields that the answer to a preflight repeats, in bytes.
pub(crate) const PREFLIGHT_FIELD_BYTES: usize = 4 * KIB;

/// The longest name that a client may choose for itself, in bytes.
pub(crate) const CLIENT_ID_BYTES: usize = 64;

/// What is kept for the rest of the program when the machine's limits are shared out, at the least and at
/// the most: descriptors (a journal, the next connection, what is read from `/proc`, what an embedder
/// opens), threads (the program's own are about fifteen), memory maps, bytes of address space (the
/// history, bodies, queues; the allocator reserves 64 MiB for each of its arenas).
pub(crate) const RESERVED_DESCRIPTORS: (usize, usize) = (12, 32);
/// See [`RESERVED_DESCRIPTORS`].
pub(crate) const RESERVED_THREADS: (usize, usize) = (24, 64);
/// See [`RESERVED_DESCRIPTORS`].
pub(crate) const RESERVED_MAPS: (usize, usize) = (128, 512);
/// See [`RESERVED_DESCRIPTORS`].
pub(crate) const RESERVED_ADDRESS_SPACE: (usize, usize) = (64 * MIB, 256 * MIB);

/// On Linux a thread's stack takes two memory maps: itself, and a page before it that cannot be touched.
pub(crate) const STACK_MAPS: usize = 2;
/// See `maps_per_thread` in `machine.rs`.
pub(crate) const SIGNAL_STACK_MAPS: usize = 2;

/// The stack of a signal handler with its guard, generously.
pub(crate) const SIGNAL_STACK_BYTES: usize = 64 * KIB;

/// Address space that must be there beside a new thread's stack, for what other threads may
/// allocate meanwhile; at most an eighth of all there is.
pub(crate) const SPARE_ADDRESS_SPACE: usize = 32 * MIB;

/// The bounds of the histogram of how long a publisher waits: from a hub in memory to a disk that
/// is overloaded.
pub(crate) const LATENCY_BOUNDS: [Duration; 13] = [
    Duration::from_micros(10),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// How long a client that is told to leave may have taken nothing of what it is owed, and still be
/// thought to read, in milliseconds of the hub's life.
pub(crate) const STALLED_MS: u64 = 1000;
