//! Every limit of the server in one place: its unit, its default, and the reason for it.
//!
//! A field of [`Config`] is a limit that an operator may want to change. Most of them
//! bound what peers can make the server spend: memory, threads, descriptors and time. A
//! number that no operator needs to change is a constant below. The fields and constants
//! of a cargo feature are in a file of their own.
//!
//! The configuration is checked once, by [`Config::check`], when a hub or a server is
//! made. After that it does not change. `machine.rs` lowers `max_clients` and
//! `extra_connections` if the machine does not have enough descriptors, threads or memory
//! for them.

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
use crate::wire::{Network, Patterns};

#[cfg(feature = "access")]
pub use access::*;
#[cfg(feature = "console")]
pub use console::*;
#[cfg(feature = "journal")]
pub use journal::*;

/// Makes [`Config`] and its default from one table: a field, its type, the value that it
/// must not have, and its default.
macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])*
        $(#[cfg($feature:meta)])?
        $field:ident: $type:ty $(, never $zero:pat)? = $default:expr;
    )*) => {
        /// The limits of a server, and of the hub in it. A `Config` sets some fields and
        /// takes the others from the default:
        ///
        /// ```
        /// use std::time::Duration;
        /// use tiny_sse::Config;
        /// let config = Config { heartbeat: Duration::from_secs(5), ..Config::default() };
        /// # assert!(config.check().is_ok());
        /// ```
        ///
        /// Minor versions and cargo features add fields, here and in the structs of the
        /// features (`AccessConfig`, `JournalConfig`). The promise is that a literal with
        /// `..Config::default()` at its end stays valid. A literal that names every field
        /// breaks when a field is added.
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
            /// Returns the name of a field that is zero although it must not be.
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
    /// Streams and waiting polls at the same time; one more is answered 503. Each costs a
    /// thread.
    max_clients: usize, never 0 = 1000;
    /// Connections in addition to those of `max_clients`: publishers, `/stats`, requests
    /// whose heads are still arriving. When all are in use, a new connection evicts the
    /// connection that has waited longest for a request or for the rest of a body.
    extra_connections: usize, never 0 = 256;
    /// Connections of any kind from one IPv4 address, or from one /64 of IPv6, at the
    /// same time; one more is answered 503. The connections of a trusted proxy are not
    /// counted; instead, each request and each stream counts for the client that the
    /// proxy names. `None` is no limit, because any limit is too low for a proxy that is
    /// not trusted, and for a company whose clients share one address.
    max_per_ip: Option<usize>, never Some(0) = None;
    /// Proxies that are trusted to name their clients in `Forwarded` (RFC 7239) or
    /// `X-Forwarded-For`. By default there is none, because any client can send these
    /// fields. A trusted proxy must write them itself.
    trust_proxy: Vec<Network> = Vec::new();
    /// Bytes of a request's head; more are answered 431. The defaults of nginx and Apache
    /// are similar.
    max_head: usize, never 0 = 16 * KIB;
    /// Header fields in a request; more are answered 431.
    max_fields: usize, never 0 = 100;
    /// Bytes of a request's target (path and query); more are answered 414.
    max_target: usize, never 0 = 8 * KIB;
    /// Bytes of a request's body, and so of an event's data; more are answered 413. The
    /// events of one request are answered 413 too, if together they have more than four
    /// times as many bytes (or 64 KiB, whichever is more), each counted with its name,
    /// its topic and 200 bytes more.
    max_body: usize, never 0 = MIB;
    /// Bytes of the bodies of all requests together that are being read or answered; a
    /// request whose body would exceed this limit is answered 503. Bodies of at most 4
    /// KiB are not counted. A limit below [`max_body`](Self::max_body) is raised to it,
    /// so that a body of that size can be read.
    total_bodies: usize, never 0 = 64 * MIB;
    /// Bytes of all answers together that are being written, without answers of at most
    /// 16 KiB. A GET whose answer would exceed this limit is answered 503. A single
    /// answer may be larger, if no other is being written.
    total_answers: usize, never 0 = 64 * MIB;
    /// The time from the first byte of a head to its last. A head that takes longer is
    /// answered 408, even if bytes arrive all the time.
    head_timeout: Duration, never Duration::ZERO = Duration::from_secs(10);
    /// The time from the end of a head to the last byte of the body. A body that takes
    /// longer is answered 408.
    body_timeout: Duration, never Duration::ZERO = Duration::from_secs(30);
    /// How long a connection may be silent between two requests before it is closed.
    idle_timeout: Duration, never Duration::ZERO = Duration::from_secs(15);
    /// How long one write to a socket may take before the peer is disconnected.
    write_timeout: Duration, never Duration::ZERO = Duration::from_secs(10);
    /// Topics and patterns that one request may name; more are answered 400. Each takes
    /// memory in the hub's registry as long as a client subscribes to it.
    max_patterns: usize, never 0 = 64;
    /// Bytes that may wait for one client. A client with a larger backlog has fallen
    /// behind and is disconnected.
    queue_bytes: usize, never 0 = MIB;
    /// Bytes that may wait for all clients together. Above this limit the clients with
    /// the largest backlogs have fallen behind and are disconnected. Bytes that wait for
    /// several clients count for each of them. `None` is 64 times `queue_bytes`, or a
    /// quarter of the memory that this process may use, whichever is more.
    total_queues: Option<usize> = None;
    /// Bytes of the kernel's send buffer of each connection. `None` leaves it to the
    /// kernel. The program sets the size on the listener that it makes, and accepted
    /// sockets inherit it. The library does not change the buffer of a listener of your
    /// own.
    send_buffer: Option<usize>, never Some(0) = Some(128 * KIB);
    /// Events that the history keeps for clients that reconnect. 0 keeps none: a client
    /// that reconnects then gets a `recovery` event that reports a gap, if any event was
    /// published meanwhile. The history keeps more events than this number while all of
    /// them are smaller than three times `queue_bytes`.
    history_events: usize = 10_000;
    /// Bytes of those events on the wire, at least three times `queue_bytes`. With that
    /// much, a client that fell behind can reconnect and catch up, if it is quick enough
    /// and no event is larger than two fifths of `queue_bytes`. In memory each event
    /// costs some 200 bytes more. Events so small that this matters are kept while all of
    /// them take less than twice this many bytes of memory.
    history_bytes: usize = 16 * MIB;
    /// The time without events after which a stream sends `: heartbeat`. It keeps proxies
    /// from closing the stream, and lets each end notice that the other one is gone.
    heartbeat: Duration, never Duration::ZERO = Duration::from_secs(15);
    /// The time that clients wait before they reconnect. The welcome event tells it to
    /// them as `retry:`.
    retry: Duration = Duration::from_secs(5);
    /// How much longer than `retry` a client may be told to wait, in percent. Each client
    /// gets a random time in this range, so that clients that lost their connections
    /// together do not reconnect together.
    retry_jitter: u32 = 0;
    /// The answer to a client when `max_clients` are connected already.
    overload: Overload = Overload::Refuse;
    /// Whether every client that reaches the server may do everything. If not, a client
    /// without a token may do everything only on a server that listens on a loopback
    /// address and trusts no proxy, and it may publish there only if the `Host` of the
    /// request can only be this machine, such as `localhost`. On any other server it gets
    /// the events without a topic, and the topics of [`public`](Self::public).
    open: bool = false;
    /// Topics and patterns to which every client may subscribe, wherever it is. They are
    /// granted in addition to what a file of tokens grants to every client.
    public: Patterns = Patterns::default();
    /// Whether a browser gets the console page at `/`.
    #[cfg(feature = "console")]
    console: Console = Console::Auto;
    /// Tokens and allowed origins.
    #[cfg(feature = "access")]
    access: AccessConfig = AccessConfig::default();
    /// Where events are kept on disk.
    #[cfg(feature = "journal")]
    journal: JournalConfig = JournalConfig::default();
    /// How long a shutdown waits for requests that are being answered, and for each
    /// stream to write its backlog and its close event.
    grace: Duration = Duration::from_secs(5);
    /// Bytes of the stack of a connection's thread, at least 64 KiB. This is address
    /// space; the memory that is used is what the thread touches, a few KiB. Handlers of
    /// your own run on this stack.
    stack_bytes: usize = 256 * KIB;
    /// The function that gets log lines. By default there is none, and the library is
    /// silent.
    report: Report = Report::default();
    /// The function that is called when a client joins or leaves. By default there is
    /// none.
    on_presence: OnPresence = OnPresence::default();
}

/// The answer to a client when `max_clients` are connected already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// 503 with `Retry-After`. Programs understand it. A browser's EventSource never
    /// reconnects after it.
    #[default]
    Refuse,
    /// 200 and a stream that contains only a `retry:` of one to two times the configured
    /// one, and ends. An EventSource reconnects after that time.
    Retry,
}

names!(Overload: "refuse" Refuse, "retry" Retry);

impl Config {
    /// Connections of any kind at the same time: `max_clients` and `extra_connections`.
    /// One more evicts the connection that has waited longest for a request or for the
    /// rest of a body. If no connection waits, it is answered 503 without a thread.
    pub fn max_connections(&self) -> usize {
        self.max_clients.saturating_add(self.extra_connections)
    }

    /// The least bytes of a history: as many as a client may have missed that was
    /// disconnected because it fell behind. These are its queue, the batch that made the
    /// queue too large, the next batch, and the events in the inbox. Each of the last
    /// three is at most a quarter of a queue and one event. So three queues leave room
    /// for events of two fifths of a queue.
    pub(crate) fn least_history_bytes(&self) -> usize {
        self.queue_bytes.saturating_mul(3)
    }

    /// LIMIT: bytes of all events of one request. Many short lines with a long name, or
    /// one event of many empty lines, take several times as many bytes as the body of
    /// their request.
    pub(crate) fn most_event_bytes(&self) -> usize {
        self.max_body.saturating_mul(4).max(64 * KIB)
    }

    /// The value of `total_queues`, or its default on this machine, in bytes.
    pub(crate) fn most_queued(&self) -> usize {
        self.total_queues.unwrap_or_else(|| {
            let quarter = machine::memory().unwrap_or(0) / 4;
            let queues = self.queue_bytes.saturating_mul(QUEUES);
            queues.max(usize::try_from(quarter).unwrap_or(usize::MAX))
        })
    }

    /// The value of `Retry-After`: `retry` in whole seconds, at least one.
    pub(crate) fn retry_after(&self) -> String {
        self.retry.as_secs().max(1).to_string()
    }

    /// Checks each limit alone, and limits that depend on each other.
    ///
    /// # Errors
    ///
    /// A limit is too small, too large, or contradicts another one. The message names it.
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

/// Why a [`Config`], or a text for one of its fields, is not valid. `Display` names the
/// field and the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    /// The error for a text that is none of the names of an enum.
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

/// The default of `total_queues` is at least this many full queues: 64 MiB with queues of
/// 1 MiB. A machine with 256 MiB of memory has room for them and for a history.
const QUEUES: usize = 64;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The smallest stack, in bytes: twice what was enough in a test. In a debug build, 32
/// KiB sufficed for every endpoint, the six demos, a journal, tokens and a proxy, and 24
/// KiB overflowed.
const MIN_STACK: usize = 64 * KIB;

/// The largest stack, in bytes: 1 GiB. No thread has ever needed more, so a larger number
/// is a mistake.
const MAX_STACK: usize = 1 << 30;

/// The longest timeout. The sum of the present time and a much longer one could overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The largest `retry_jitter`, in percent. Clients then wait up to eleven times as long
/// as `retry`, and no server needs more.
const MAX_JITTER_PERCENT: u32 = 1000;

/// When a server closes, it tells each client a `retry:` that is longer by this time than
/// that of the client before. So 500 clients reconnect per second to the server that is
/// started next: few for a server, and 10,000 clients take 20 s.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(2);

/// The `retry:` for a client that was replaced or kicked and should not reconnect: one
/// day. There is no value for "never", and timers of browsers overflow after 24 days.
pub(crate) const RETRY_WHEN_CLOSED: Duration = Duration::from_secs(86_400);

/// Clients that are removed from the registry during one hold of the hub's lock, when
/// many are closed at once: after a reload of the tokens, or all streams of a user. A
/// client with 8 topics of its own takes some 8 µs, and one with 64 topics that 10,000
/// other clients have too, 0.4 ms.
pub(crate) const SLICE_CLIENTS: usize = 4;

/// Bytes that an event costs beside its text: its id, its record, and its entry in the
/// history.
pub(crate) const EVENT_OVERHEAD: usize = 200;

/// Lines of one NDJSON request. Each line is an event, and costs some [`EVENT_OVERHEAD`]
/// bytes, even if it has only two.
pub(crate) const EVENTS_PER_REQUEST: usize = 10_000;

/// The longest `wait` of a poll, in seconds. Proxies stop waiting for an answer after
/// this time (nginx: `proxy_read_timeout 60s`).
pub(crate) const POLL_SECONDS: u64 = 60;

/// Requests without the necessary right that are logged in a burst; further ones are
/// logged at one line per second, because one connection can send thousands of them per
/// second.
pub(crate) const DENIALS_LOGGED: u32 = 32;

/// Topics that `/stats` lists: those with the most clients. It counts the others.
pub(crate) const STATS_TOPICS: usize = 1000;

/// Bytes of the list of clients in `/stats?clients=1`. This is enough for 10,000 clients
/// with a few topics each.
pub(crate) const STATS_BYTES: usize = 4 * MIB;

/// Bytes of events from the history in one answer to a poll. If one event wakes a
/// thousand polls, all their answers are in memory at the same time. A client gets the
/// rest with its next poll.
pub(crate) const POLL_BYTES: usize = 64 * KIB;

/// Bytes that one read of a request asks for, on the stack of its thread. Few requests
/// are larger.
pub(crate) const READ_BYTES: usize = 4 * KIB;

/// The growth of a body's memory while its bytes arrive: at least the first number of
/// bytes. Below the second number the memory doubles; above, it grows by that number or a
/// quarter. `Content-Length` allocates nothing, because a peer may announce a body and
/// never send it.
pub(crate) const BODY_STEP: (usize, usize) = (64, 4 * KIB);

/// The most bytes of an id in a list of ids: two numbers of at most 20 digits, a dash,
/// two quotes and a comma.
pub(crate) const ID_BYTES: usize = 44;

/// Bodies of at most the first number of bytes do not count for
/// [`total_bodies`](Config::total_bodies), so that slow, large bodies cannot keep out
/// small ones. If the total is low, only bodies of at most the total divided by the
/// second number are exempt, so that all exempt bodies together stay small.
pub(crate) const SMALL_BODY: (usize, usize) = (4 * KIB, 16 * KIB);

/// After each this many bytes of a body, the connection counts as one that has just begun
/// to wait. So among bodies that are arriving, the slowest is evicted first.
pub(crate) const BODY_PROGRESS: usize = 16 * KIB;

/// Answers of at most this many bytes do not count for
/// [`total_answers`](Config::total_answers): the send buffer of the socket takes them at
/// once, so their memory is free again soon.
pub(crate) const SMALL_ANSWER: usize = 16 * KIB;

/// Bytes that are allocated for the head of an answer. glibc keeps freed allocations of
/// at most 1,032 bytes for the same thread. The thread of a stream writes one head and
/// would never use that memory again, so this is more.
pub(crate) const HEAD_BYTES: usize = 1040;

/// Bytes of one write to a stream, which joins several events: enough that the cost of
/// the system call does not matter, and few enough that 10,000 clients can have such a
/// buffer at the same time.
pub(crate) const WRITE_BYTES: usize = 64 * KIB;

/// Bytes of one write of a replay. A client that reads its replay slowly keeps this much
/// in memory, and thousands of clients may do so at the same time.
pub(crate) const REPLAY_BYTES: usize = 16 * KIB;

/// Bytes that are read and discarded in a lingering close. Closing a socket with unread
/// bytes resets the connection, and after a reset the peer cannot read the last answer
/// any more.
pub(crate) const LINGER_BYTES: usize = 8 * MIB;
/// How long a peer may be silent during a lingering close before the connection is
/// closed. See [`LINGER_BYTES`].
pub(crate) const LINGER_SILENCE: Duration = Duration::from_secs(1);
/// The longest lingering close. A refused body of 2 MB over a line of 2 Mbit/s takes this
/// long. A peer gains nothing by it: it could also send a body slowly that is not
/// refused. See [`LINGER_BYTES`].
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// Rejected connections in a lingering close, each for at most [`LINGER`]; one more is
/// closed at once. Each costs a descriptor and no thread. `machine.rs` allows fewer if
/// the process may open few descriptors.
pub(crate) const MAX_LINGERING: usize = 256;

/// The pause between two checks of the rejected connections, while there are any. Each
/// check costs a system call per connection, and a connection may stay open a little
/// longer.
pub(crate) const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// Evicted connections whose threads have not ended yet. They exist beside the
/// connections that have their slots. `machine.rs` allows fewer if the machine has few
/// descriptors or threads.
pub(crate) const MAX_EVICTED: usize = 32;

/// How long a new connection waits for a slot while evicted connections end or
/// connections that could be evicted begin. Their threads wait only for a processor, so
/// this takes long only on an overloaded machine. The accept loop waits meanwhile, with
/// all connections after this one.
pub(crate) const EVICTION_WAIT: Duration = Duration::from_millis(100);

/// The average time between two log lines of the same kind, after a burst, if peers can
/// cause that kind at will.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Malformed requests that are logged in a burst, at level debug; further ones are logged
/// at one line per second. More than [`DENIALS_LOGGED`], because each of them ends its
/// connection, so a peer needs a new connection for each.
pub(crate) const REFUSALS_LOGGED: u32 = 512;

/// Events of the history that are read during one hold of the hub's lock. This takes some
/// 0.2 ms; publishers wait meanwhile.
pub(crate) const SLICE_EVENTS: usize = 2048;

/// Ranges of one batch whose joined bytes are kept while the batch is delivered. Most
/// clients get the whole batch; only clients that joined or left in the middle of it get
/// another range.
pub(crate) const JOINED_PARTS: usize = 4;

/// The pause after an `accept` that failed, for instance because no descriptor was free.
/// It doubles from the first value to the second.
pub(crate) const ACCEPT_PAUSE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(1));

/// A shutdown wakes the blocking `accept` by connecting to its own listener. This is the
/// timeout of one such connection and the pause before the next one. It doubles from the
/// first value to the second.
pub(crate) const WAKE_PAUSE: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_millis(100));

/// How many of these connections are open at the same time. See [`WAKE_PAUSE`].
pub(crate) const WAKE_ATTEMPTS: usize = 16;

/// How long a worker without a connection waits for the next one before its thread ends.
/// Starting a thread takes some 50 µs, and an idle one costs some 16 KiB of memory.
pub(crate) const WORKER_IDLE: Duration = Duration::from_millis(200);

/// How long a shutdown waits, after the grace, for threads whose sockets it has closed.
pub(crate) const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);

/// How long a browser may cache the answer to a preflight, in seconds: one day, the
/// longest time that a browser accepts.
pub(crate) const PREFLIGHT_SECONDS: u32 = 86_400;

/// Bytes of the longest list of header fields that the answer to a preflight repeats. A
/// longer list is ignored.
pub(crate) const PREFLIGHT_FIELD_BYTES: usize = 4 * KIB;

/// Bytes of the longest client id that a client may choose.
pub(crate) const CLIENT_ID_BYTES: usize = 64;

/// When `machine.rs` computes how many connections the limits of the machine allow, it
/// keeps a part of each limit for the rest of the program: an eighth of it (of the
/// address space a half), but at least the first number and at most the second.
///
/// Descriptors are for a journal, the next connection, files in `/proc`, and what an
/// embedder opens.
pub(crate) const RESERVED_DESCRIPTORS: (usize, usize) = (12, 32);
/// Threads of the rest of the program, which has about fifteen of its own. See
/// [`RESERVED_DESCRIPTORS`].
pub(crate) const RESERVED_THREADS: (usize, usize) = (24, 64);
/// Memory maps of the rest of the program: libraries, and large allocations. See
/// [`RESERVED_DESCRIPTORS`].
pub(crate) const RESERVED_MAPS: (usize, usize) = (128, 512);
/// Bytes of address space of the rest of the program: history, bodies and queues. The
/// allocator of glibc reserves 64 MiB for each of its arenas. See
/// [`RESERVED_DESCRIPTORS`].
pub(crate) const RESERVED_ADDRESS_SPACE: (usize, usize) = (64 * MIB, 256 * MIB);

/// On Linux a thread's stack takes two memory maps: the stack, and its guard page, which
/// no code may touch.
pub(crate) const STACK_MAPS: usize = 2;
/// The stack of a signal handler takes two more, if std has installed a handler. See
/// `maps_per_thread` in `machine.rs`.
pub(crate) const SIGNAL_STACK_MAPS: usize = 2;

/// Bytes of the stack of a signal handler and its guard page. The real size is smaller
/// and depends on the processor.
pub(crate) const SIGNAL_STACK_BYTES: usize = 64 * KIB;

/// Bytes of address space that must remain free after a new thread's stack is allocated,
/// because other threads may allocate at the same time. At most an eighth of the limit of
/// the process.
pub(crate) const SPARE_ADDRESS_SPACE: usize = 32 * MIB;

/// The upper bounds of the buckets of the histogram of publishing times. A hub in memory
/// takes some 10 µs, and an overloaded disk seconds.
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

/// A client with a backlog that has accepted no bytes for this many milliseconds counts
/// as one that does not read. If the server ends its stream, the socket is then closed at
/// once, without waiting until the close event is written.
pub(crate) const STALLED_MS: u64 = 1000;
