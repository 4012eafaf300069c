//! Every number in one place: each limit with its unit, its default, and why it is that much.
//!
//! A field here is a promise about what a stranger can make the server spend. What nobody needs
//! to set stands below as a constant.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::machine;
use crate::report::Report;
use crate::wire::{Network, Origin, Token};

/// The limits of a server, and of the hub in it. Change some, and take the rest from the default:
///
/// ```
/// use std::time::Duration;
/// use tiny_sse::Config;
/// let config = Config { heartbeat: Duration::from_secs(5), ..Config::default() };
/// # assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Streams at the same time; one more is answered 503. Each costs a thread.
    pub max_clients: usize,
    /// Connections beyond those streams: publishers, `/stats`, heads that are still arriving. When all
    /// are taken, a new one evicts the connection that has waited for a request, or for the rest of its
    /// body, the longest.
    pub extra_connections: usize,
    /// Connections of any kind from one client's address at the same time, or from one /64 of IPv6;
    /// one more is answered 503. Behind a trusted proxy its requests and streams are counted instead,
    /// each under the address of its client. `None` counts nothing: behind a proxy that is not
    /// trusted, or a company's one address, any number would be too few.
    pub max_per_ip: Option<usize>,
    /// Proxies that are believed when they say, by `Forwarded` (RFC 7239) or `X-Forwarded-For`, who
    /// their client is. By default nobody: anybody can write anything there, and only a proxy that
    /// adds to it what it knows makes it more than that.
    pub trust_proxy: Vec<Network>,
    /// Bytes of a request's head; more is answered 431. What nginx and Apache take by default is alike.
    pub max_head: usize,
    /// Header fields in a request; more are answered 431.
    pub max_fields: usize,
    /// Bytes of a request's target (path and query); more are answered 414.
    pub max_target: usize,
    /// Bytes of a request's body, and so of an event's data; more are answered 413. So are the events of
    /// one request if they come to more than four times as many bytes (or 64 KiB, if that is more), each
    /// counted with its name, its topic and 200 bytes.
    pub max_body: usize,
    /// Bytes of the bodies of all requests together, while they are read and answered; a request whose
    /// body would make them more is answered 503. Bodies of at most 4 KiB are not counted. It counts as
    /// at least one [`max_body`](Self::max_body), so that a body of that size can be read.
    pub total_bodies: usize,
    /// Bytes of all answers together that are larger than 16 KiB and are being written; a GET whose
    /// answer would make them more is answered 503. An answer that is the only one may be larger.
    pub total_answers: usize,
    /// From the first byte of a head to its last, however they dribble in; then 408.
    pub head_timeout: Duration,
    /// From the head to the last byte of the body; then 408.
    pub body_timeout: Duration,
    /// How long a connection may stay silent between two requests; then it is closed.
    pub idle_timeout: Duration,
    /// How long one write may take; then the peer is let go.
    pub write_timeout: Duration,
    /// Topics and patterns that one client may ask for; more are answered 400. Each is an entry of the
    /// hub's index, which every client shares.
    pub max_patterns: usize,
    /// Bytes that may wait for one client; with more it has fallen behind and is let go.
    pub queue_bytes: usize,
    /// Bytes that may wait for all clients together. With more, the clients for which the most bytes wait have
    /// fallen behind and are disconnected. Bytes that wait for several clients count for each of them.
    /// `None` is 64 queues, or a quarter of the memory that this process may use, whichever is more.
    pub total_queues: Option<usize>,
    /// Bytes of the kernel's send buffer for each connection, or `None` for the kernel's own tuning. The
    /// program sets it on the listener that it makes, and accepted sockets inherit it; a listener of
    /// your own has the buffer that you gave it.
    pub send_buffer: Option<usize>,
    /// Events kept for clients that come back. 0 keeps none: every return is then told of a gap,
    /// unless nothing was said meanwhile. More are kept as long as they are smaller than three queues.
    pub history_events: usize,
    /// Bytes of those events on the wire, never less than three queues: who fell behind can then catch
    /// up, if it comes back before more is said than there is room for, and no event is larger than
    /// two fifths of a queue. In memory an event costs some 200 bytes more. Events so small that this matters
    /// are kept as long as all of them take less than twice this many bytes of memory.
    pub history_bytes: usize,
    /// A stream with nothing to say says `: heartbeat` this often, so that proxies keep it open
    /// and the two ends learn of each other's death.
    pub heartbeat: Duration,
    /// What clients are told in `retry:` as they connect: the wait before they reconnect.
    pub retry: Duration,
    /// How much longer than `retry` a client may be told to wait, in percent: each its own share of
    /// it, so that those who were cut off together do not come back together.
    pub retry_jitter: u32,
    /// What is said to a client that comes when there are `max_clients` already.
    pub overload: Overload,
    /// Whether `GET /` is the console page, to a browser.
    pub console: Console,
    /// A token with which one may publish, to every topic. With it nobody may without.
    pub publish_token: Option<Token>,
    /// A token with which one may subscribe, to every topic. With it nobody may without.
    pub subscribe_token: Option<Token>,
    /// A file of tokens, each with what it grants: `TOKEN publish,subscribe chat/* news` in a line.
    /// With it nobody may publish or subscribe without a token, unless a line begins with `*`
    /// instead of one.
    pub tokens: Option<PathBuf>,
    /// Whether every client that reaches the server may publish. Otherwise, without a token, only a
    /// client on this machine may, only if the server listens nowhere else, and only by a `Host` that no
    /// other machine can have, such as `localhost`.
    pub open: bool,
    /// Origins whose pages may publish and choose a `client_id`, too, and use cookies. With none, pages of
    /// every origin may read, and only the server's own may do more; with some, only these may read. Their
    /// hosts also are names of this machine.
    pub cors_origins: Vec<Origin>,
    /// Where events are kept on disk. `None` keeps them in memory, and a restart forgets them. It is
    /// [`Server`](crate::Server) that opens it; a hub of your own is given its log.
    pub journal: Option<PathBuf>,
    /// When the journal is forced to the disk.
    pub sync: SyncMode,
    /// Whether to go on with a damaged journal, without what is behind the damage in its file.
    pub repair: bool,
    /// How long a shutdown waits for requests in flight and for streams to say goodbye.
    pub grace: Duration,
    /// Stack of a connection's thread, in bytes. It is address space: memory is used only for what
    /// is touched, a few KiB. At least 64 KiB. Handlers of your own run on it.
    pub stack_bytes: usize,
    /// Who is told what happens. Nobody, by default.
    pub report: Report,
}

/// When what was appended is forced to the disk. In every mode it survives `kill -9`, because the
/// system has it; the modes differ in what a power cut or a crash of the system takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Before it is acknowledged: nothing is lost that was.
    #[default]
    Always,
    /// Once a second: what was acknowledged in the last one may be lost.
    Interval,
    /// When the system likes, which is often after half a minute.
    Off,
}

/// What is said to a client that is one too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// 503, with `Retry-After`. Programs understand it; a browser's EventSource gives up for good.
    #[default]
    Refuse,
    /// 200, and a stream that ends behind a `retry:` of up to twice the configured one, so that an
    /// EventSource comes back.
    Retry,
}

/// Whether there is a console: a page to watch, publish and try everything with. It may do what
/// anybody may who reaches the port, and no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Console {
    /// There is.
    On,
    /// There is not.
    Off,
    /// On an address of this machine's own, such as 127.0.0.1, and only if there is no
    /// [`trust_proxy`](Config::trust_proxy), behind which others are.
    #[default]
    Auto,
}

impl Console {
    /// What it is for a server that listens there, and has a proxy in front or not: on or off.
    pub(crate) fn at(self, address: SocketAddr, is_proxied: bool) -> Console {
        let is_loopback = || address.ip().to_canonical().is_loopback() && !is_proxied;
        match self {
            // Without the feature there is nothing to be shown.
            Console::Auto if cfg!(feature = "console") && is_loopback() => Console::On,
            Console::Auto => Console::Off,
            told => told,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_clients: 1000,
            extra_connections: 256,
            max_per_ip: None,
            trust_proxy: Vec::new(),
            max_head: 16 * KIB,
            max_fields: 100,
            max_target: 8 * KIB,
            max_body: MIB,
            total_bodies: 64 * MIB,
            total_answers: 64 * MIB,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(10),
            max_patterns: 64,
            queue_bytes: MIB,
            total_queues: None,
            send_buffer: Some(128 * KIB),
            history_events: 10_000,
            history_bytes: 16 * MIB,
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(5),
            retry_jitter: 0,
            overload: Overload::Refuse,
            console: Console::Auto,
            publish_token: None,
            subscribe_token: None,
            tokens: None,
            open: false,
            cors_origins: Vec::new(),
            journal: None,
            sync: SyncMode::Always,
            repair: false,
            grace: Duration::from_secs(5),
            stack_bytes: 256 * KIB,
            report: Report::default(),
        }
    }
}

impl Config {
    /// Connections of any kind at the same time. One more evicts the one that has waited for a request, or
    /// for the rest of its body, the longest; if none waits, it is answered 503 without a thread.
    pub fn max_connections(&self) -> usize {
        self.max_clients.saturating_add(self.extra_connections)
    }

    /// What a history holds at the least, in bytes: what may be owed to a client when it is let go.
    /// That is a queue, the batch that made it too much, the batch that was refused and what waits
    /// in the inbox, each of these three a quarter of a queue and one event. It leaves room for events
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

    /// What an answer that says "later" says of when: the wait of a client that reconnects, in
    /// seconds, as `Retry-After` has it.
    pub(crate) fn retry_after(&self) -> String {
        self.retry.as_secs().max(1).to_string()
    }

    /// Whether the limits make sense together.
    ///
    /// # Errors
    ///
    /// One is zero that must not be, or contradicts another; the message names it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("max-clients", self.max_clients),
            ("extra-connections", self.extra_connections),
            ("max-per-ip", self.max_per_ip.unwrap_or(usize::MAX)),
            ("max-head", self.max_head),
            ("max-fields", self.max_fields),
            ("max-target", self.max_target),
            ("max-body", self.max_body),
            ("total-bodies", self.total_bodies),
            ("total-answers", self.total_answers),
            ("max-patterns", self.max_patterns),
            ("queue-bytes", self.queue_bytes),
            ("send-buffer", self.send_buffer.unwrap_or(usize::MAX)),
        ];
        let times = [
            ("head-timeout", self.head_timeout),
            ("body-timeout", self.body_timeout),
            ("idle-timeout", self.idle_timeout),
            ("write-timeout", self.write_timeout),
            ("heartbeat", self.heartbeat),
        ];
        let waits = [("retry", self.retry), ("grace", self.grace)];
        if self.stack_bytes < LEAST_STACK {
            return Err(ConfigError(format!(
                "stack-bytes is {}, less than {LEAST_STACK}: a thread that overflows its stack ends the process",
                self.stack_bytes
            )));
        }
        if self.stack_bytes > MOST_STACK {
            return Err(ConfigError(format!(
                "stack-bytes is {}, more than {MOST_STACK}",
                self.stack_bytes
            )));
        }
        let zeros = sizes
            .iter()
            .filter(|(_, size)| *size == 0)
            .map(|(name, _)| *name);
        let moments = times
            .iter()
            .filter(|(_, time)| time.is_zero())
            .map(|(name, _)| *name);
        if let Some(name) = zeros.chain(moments).next() {
            return Err(ConfigError(format!("{name} is 0, it must be more")));
        }
        if self.heartbeat < Duration::from_millis(1) {
            return Err(ConfigError("heartbeat is less than 1ms".into()));
        }
        if let Some((name, _)) = times.iter().chain(&waits).find(|(_, time)| *time > LONGEST) {
            return Err(ConfigError(format!(
                "{name} is longer than {} days",
                LONGEST.as_secs() / 86_400
            )));
        }
        if let Some(total) = self.total_queues
            && total < self.queue_bytes
        {
            return Err(ConfigError(format!(
                "total-queues is {total}, less than one client's queue-bytes, {}",
                self.queue_bytes
            )));
        }
        if self.repair && self.journal.is_none() {
            return Err(ConfigError(
                "repair is for a journal, and there is none".into(),
            ));
        }
        if self.open && (self.publish_token.is_some() || self.tokens.is_some()) {
            return Err(ConfigError(
                "open lets everybody publish, so no token is needed for it; a line such as \"* publish *\" \
                 in the file of tokens says the same"
                    .into(),
            ));
        }
        if self.console == Console::On && !cfg!(feature = "console") {
            return Err(ConfigError(
                "console is on, and this build was made without it".into(),
            ));
        }
        if self.retry_jitter > MOST_JITTER {
            return Err(ConfigError(format!(
                "retry-jitter is {}%, more than {MOST_JITTER}%",
                self.retry_jitter
            )));
        }
        if self.history_events > 0 && self.history_bytes < self.least_history_bytes() {
            return Err(ConfigError(format!(
                "history-bytes is {}, less than three of queue-bytes, {}: a client that fell behind could not catch up",
                self.history_bytes, self.queue_bytes
            )));
        }
        Ok(())
    }
}

/// Why a [`Config`] was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

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

/// Every endpoint, with the six uses, a journal, tokens and a proxy, was tried with less and less: in a
/// debug build 32 KiB served all of them and 24 KiB overflowed. Twice of that.
const LEAST_STACK: usize = 64 * KIB;

/// More than any thread's stack has been.
const MOST_STACK: usize = 1 << 30;

/// Ten times the wait is jitter enough for anybody.
const MOST_JITTER: u32 = 1000;

/// What is between two clients that come back when a server that has closed returns: 500 come in
/// a second, which is little for a server and not long for 10,000 clients.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(2);

/// The `retry:` of a client that was replaced or dismissed, which should not come back by itself: a
/// day, which timers of browsers can still count (24 days are too many for them).
pub(crate) const RETRY_OF_DISMISSED: Duration = Duration::from_secs(86_400);

/// An event without data has at least so many bytes on the wire: `id: 1795570197352-1`, `data: `, and
/// its ends.
pub(crate) const SMALLEST_EVENT: usize = 30;

/// What an event costs beside its text: its id, and its place in the history.
pub(crate) const EVENT_OVERHEAD: usize = 200;

/// Lines of one NDJSON request. Each is an event of its own, and costs far more memory than the two
/// bytes that it may be.
pub(crate) const EVENTS_PER_REQUEST: usize = 10_000;

/// The longest wait of a long poll, in seconds. Proxies give up on an answer after as much (nginx:
/// `proxy_read_timeout 60s`).
pub(crate) const POLL_SECONDS: u64 = 60;

/// Topics that `/stats` lists: the busiest ones.
pub(crate) const STATS_TOPICS: usize = 1000;

/// Bytes of the list of clients in `/stats?clients=1`: enough for ten thousand clients of a few topics each.
pub(crate) const STATS_BYTES: usize = 4 * MIB;

/// Bytes of history in one answer to a poll, as JSON. If one event wakes a thousand polls, all their
/// answers are in memory at the same time.
pub(crate) const POLL_BYTES: usize = 64 * KIB;

/// No timeout is longer: the sum of an instant and a larger one may not exist.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

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
pub(crate) const MOST_LINGERING: usize = 256;

/// How often it is looked whether they have gone, while somebody is there. That they have is not
/// urgent, and each look is a system call for each of them.
pub(crate) const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// Evicted connections whose threads have not ended yet. Until then they exist beside the connections that
/// replaced them. Fewer where descriptors or threads are few.
pub(crate) const LEAVING: usize = 32;

/// How long a connection that finds all places taken waits, with all behind it, for threads of this
/// server: those of connections that were let go, to end, or those of connections that may be, to
/// begin. They want nothing but a processor, so that it takes this long only where there is none.
pub(crate) const JAM_PATIENCE: Duration = Duration::from_millis(100);

/// The pause between two lines of the log of one kind, if peers can cause that kind at will.
pub(crate) const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// Malformed requests that are logged at once, at level debug; further ones are logged at one line a
/// second. Each of them ends its connection.
pub(crate) const REFUSALS_TOLD: u32 = 512;

/// Requests without the right to do what they ask that are logged at once; further ones are logged at one
/// line a second. One connection can send thousands of them in a second.
pub(crate) const DENIALS_TOLD: u32 = 32;

/// Events of the history that are looked at while the hub's lock is held once. It takes some 0.2 ms.
pub(crate) const SLICE_EVENTS: usize = 2048;

/// So many events are published by holding the hub's lock once. It takes some 0.1 ms.
pub(crate) const FEW_EVENTS: usize = 256;

/// Clients that are taken out of the registry while the hub's lock is held once. It takes some 8 µs for
/// a client with 8 topics that no other asked for, and 0.4 ms for one with 64 that 10,000 others asked for.
pub(crate) const SLICE_CLIENTS: usize = 4;

/// The pause after an `accept` that failed for want of something: doubled from the first to the last.
pub(crate) const ACCEPT_PAUSE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(1));

/// The pause between two connections of a server to its own listener, which wake its `accept` at the
/// end: doubled from the first to the last. It is also how long such a connection may take.
pub(crate) const KNOCK_PAUSE: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_millis(100));

/// How many of those connections are open at the same time.
pub(crate) const KNOCKS: usize = 16;

/// How long a worker without a connection waits for the next one before it ends. Starting another costs
/// some 50 µs; a thread too many costs some 16 KiB.
pub(crate) const WORKER_PATIENCE: Duration = Duration::from_millis(200);

/// How long after the grace threads whose sockets were closed under them are waited for.
pub(crate) const LAST_WAIT: Duration = Duration::from_millis(500);

/// What a browser may remember of a preflight, in seconds: one day, the most that any takes.
pub(crate) const PREFLIGHT_SECONDS: u32 = 86_400;

/// The longest list of header fields that the answer to a preflight repeats, in bytes.
pub(crate) const PREFLIGHT_FIELD_BYTES: usize = 4 * KIB;

/// The largest file of tokens, in bytes: some ten thousand lines. What is larger is another file, given
/// by mistake.
pub(crate) const TOKENS_BYTES: u64 = 1 << 20;

/// The longest name that a client may choose for itself, in bytes.
pub(crate) const CLIENT_ID_BYTES: usize = 64;

/// What is kept for the rest of the program when the machine's limits are shared out, at the least and at
/// the most: descriptors (a journal, the next connection, what is read from `/proc`, what an embedder
/// opens), threads (the program's own are about fifteen), memory maps, bytes of address space (the
/// history, bodies, queues; the allocator reserves 64 MiB for each of its arenas).
pub(crate) const DESCRIPTORS_KEPT: (usize, usize) = (12, 32);
/// See [`DESCRIPTORS_KEPT`].
pub(crate) const THREADS_KEPT: (usize, usize) = (24, 64);
/// See [`DESCRIPTORS_KEPT`].
pub(crate) const MAPS_KEPT: (usize, usize) = (128, 512);
/// See [`DESCRIPTORS_KEPT`].
pub(crate) const ADDRESSES_KEPT: (usize, usize) = (64 * MIB, 256 * MIB);

/// On Linux a thread has its stack and its signal handler's, each with a page before it that
/// cannot be touched: four maps.
pub(crate) const MAPS_PER_THREAD: usize = 4;

/// The stack of a signal handler with its guard, generously.
pub(crate) const SIGNAL_STACK_BYTES: usize = 64 * KIB;

/// Address space that must be there beside a new thread's stack, for what other threads may
/// allocate meanwhile; at most an eighth of all there is.
pub(crate) const ADDRESSES_SPARE: usize = 32 * MIB;

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
pub(crate) const GIVEN_UP_MS: u64 = 1000;

/// A segment of the journal that has grown past this is followed by a new one. A start reads whole
/// segments, so it is what a start with a small history reads and checks, in well under a second.
pub(crate) const SEGMENT_BYTES: u64 = 32 * MIB as u64;

/// How long the journal waits with `--sync interval` before it syncs what was written: what a
/// power cut can take. A process that dies takes nothing, for the system has the bytes.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A last event that is further ahead of the clock than this when a journal is opened is reported:
/// then the clock is wrong, or was.
pub(crate) const WRONG_CLOCK: Duration = Duration::from_secs(86_400);

/// How often the journal reads its newest segment again because the file's time alone has changed.
/// Reading 32 MiB takes some 50 ms.
pub(crate) const READINGS_IN_VAIN: u32 = 16;

/// The shortest pause between two probes of a log that refuses events, while there are no publishers but
/// `/health` is requested.
pub(crate) const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How long `/health` waits for such a probe: less than one second, a common timeout of health checks.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// A log that has taken longer than this for one group of events is stuck, and so is every publisher.
pub(crate) const LOG_PATIENCE: Duration = Duration::from_secs(10);
