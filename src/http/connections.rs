//! All connections of a server: admits or rejects each accepted socket, and gives each
//! admitted connection a thread.
//!
//! There are four kinds of threads here. All of them use one [`Connections`] through an
//! `Arc`.
//!
//! - The thread `accept` (`server.rs`) calls [`Connections::admit`] for each socket that
//!   it accepts. That call puts the connection into the table and into the queue, or
//!   rejects it with a 503.
//! - Each thread `worker` takes one connection from the queue, serves its requests one
//!   after the other ([`Connection::serve`]), and takes the next one. A worker that finds
//!   no connection for [`WORKER_IDLE`] ends.
//! - A connection whose answer is a stream moves to a thread `stream` of its own; the
//!   worker goes on with the next connection.
//! - At most one thread `linger` reads from the rejected and the evicted connections
//!   (`linger.rs`).
//!
//! Why a stream does not stay on its worker: parsing, routing and the handlers touch
//! several pages of a stack, and a thread keeps each page that it has touched. A stream
//! lives long and needs few pages, so it gets a fresh thread.
//!
//! Why there is a pool, and not one worker per connection, which would be less code:
//! glibc gives the stacks of threads that have ended to new threads, with the pages that
//! were touched. A stream on such a stack takes 17 KiB of memory instead of 11 KiB.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::connection::{Connection, StreamStart};
use super::linger::Lingering;
use super::table::{Stage, Table};
use super::{Handler, Response, forwarded};
use crate::config::{Config, EVICTION_WAIT, REFUSALS_LOGGED, SHUTDOWN_WAIT, WORKER_IDLE};
use crate::machine::{Reserves, ThreadStarter};
use crate::report::Sampled;
use crate::socket::write_at_once;
use crate::wire::Network;

/// Everything that the threads of a server share. It is made once, by
/// `HttpServer::spawn`.
pub(super) struct Connections {
    /// The limits and the log. They never change while the server runs.
    pub(super) config: Config,
    /// The code that answers requests. Each worker calls it on its own thread.
    pub(super) handler: Box<dyn Handler>,
    /// LIMIT: the bytes of all request bodies that are being read or answered, 64 MiB by
    /// default.
    pub(super) body_budget: Budget,
    /// LIMIT: the bytes of all large answers that are being written, 64 MiB by default.
    pub(super) answer_budget: Budget,
    /// LIMIT: how many refused requests are logged, because a peer can cause any number
    /// of them.
    pub(super) refusal_log: Sampled,
    /// LIMIT: how often it is logged that a thread cannot be started: once a second.
    thread_error_log: Sampled,
    /// Starts the threads `worker`, `stream` and `linger`, if the address space has room
    /// for one more stack.
    thread_starter: ThreadStarter,
    /// LIMIT: how many evicted connections may be open at the same time, in addition to
    /// the connections that use a slot. Each still has a thread and a descriptor. 32 by
    /// default.
    max_evicted: usize,
    /// The rejected and the evicted connections that have been answered and are not
    /// closed yet.
    lingering: Arc<Lingering>,
    /// LOCK: guards the connection table, the queue and the lists of threads. It is held
    /// to look up, insert and remove. No call that can block is made under it: `shutdown`
    /// on a socket returns at once.
    state: Mutex<ServerState>,
    /// Is notified when a connection is put into the queue, and at the shutdown. Idle
    /// workers wait for it.
    connection_queued: Condvar,
    /// Is notified when a row of the table changes, if `accept_waits` or `is_closing`
    /// says that a thread waits for such a change: `admit` waits for a slot, and a
    /// shutdown waits until the table is empty.
    table_changed: Condvar,
}

/// What changes while the server runs.
#[derive(Default)]
struct ServerState {
    /// All open connections but the lingering ones. LIMIT: `Config::max_connections` and
    /// `Connections::max_evicted` together. Everything else in this struct has at most
    /// one entry per connection, or per worker.
    table: Table<OpenConnection>,
    /// Admitted connections that no worker has taken yet, the oldest first, each with the
    /// address of its peer. `admit` appends, workers take. A `Slot` locks the state when
    /// it is dropped, so an entry must never be dropped while the state is locked.
    queue: VecDeque<(Slot, SocketAddr)>,
    /// The number of workers that have no connection, including workers that are just
    /// being started. As long as it is at least `queue.len()`, each queued connection has
    /// a worker that will take it.
    idle_workers: usize,
    /// All workers, to be joined by the shutdown. A worker that ends earlier removes its
    /// own entry. That detaches its thread, so that the system frees the stack.
    workers: HashMap<ThreadId, JoinHandle<()>>,
    /// The thread `accept` waits for `table_changed`. Only that thread writes the flag.
    accept_waits: bool,
    /// The shutdown has begun. The flag never becomes false again.
    is_closing: bool,
    /// The threads of streams that have ended since the shutdown began. The shutdown
    /// joins them.
    ended_streams: Vec<JoinHandle<()>>,
    /// The thread `linger` that was started last. The shutdown joins it.
    linger_thread: Option<JoinHandle<()>>,
}

/// What other threads need of a connection. It is the value of the connection's row in
/// the table.
struct OpenConnection {
    /// Lets the thread `accept` and the shutdown end a read that blocks the connection's
    /// own thread.
    socket: Arc<TcpStream>,
    /// The stream's own thread; `None` for a connection that is served by a worker. A
    /// stream that ends before the shutdown begins is not joined: dropping the handle
    /// detaches its thread.
    stream_thread: Option<JoinHandle<()>>,
}

impl Connections {
    pub(super) fn new(config: Config, reserves: Reserves, handler: Box<dyn Handler>) -> Self {
        Connections {
            // LIMIT: never less than one body of the largest size.
            body_budget: Budget::new(config.total_bodies.max(config.max_body)),
            answer_budget: Budget::new(config.total_answers),
            refusal_log: Sampled::new(REFUSALS_LOGGED),
            thread_error_log: Sampled::new(1),
            thread_starter: ThreadStarter::new(),
            max_evicted: reserves.evicted,
            lingering: Arc::new(Lingering::new(reserves.lingering)),
            state: Mutex::default(),
            connection_queued: Condvar::new(),
            table_changed: Condvar::new(),
            config,
            handler,
        }
    }

    /// Locks the state. No code of an embedder runs under this lock, so only a bug in std
    /// could panic there and poison it. The table would still be usable then, so a
    /// poisoned lock is ignored.
    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the shutdown has begun.
    pub(super) fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// Admits a connection: gives it a slot and puts it into the queue for a worker. A
    /// connection over a limit is rejected with a 503 instead. After the shutdown has
    /// begun, its socket is closed without an answer.
    ///
    /// Only the thread `accept` calls this. It never waits for a peer. It blocks for at
    /// most [`EVICTION_WAIT`] (100 ms), while
    /// [`must_wait_for_slot`](Self::must_wait_for_slot) says that a thread of this server
    /// is about to make a slot available. Until then no other connection is accepted.
    ///
    /// The steps, all but the last under one lock, so that no other thread can take the
    /// slot in between:
    ///
    /// 1. Wait for a slot, if waiting helps.
    /// 2. Check the limit for the client's address.
    /// 3. Make sure that a slot is free, if need be by evicting another connection.
    /// 4. Insert a row into the table, and the connection into the queue.
    /// 5. Start a worker if there are more queued connections than idle workers;
    ///    otherwise wake an idle worker.
    pub(super) fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let socket = Arc::new(socket);
        let must_wait = |state: &mut ServerState| {
            state.accept_waits = self.must_wait_for_slot(state);
            state.accept_waits
        };
        let waited = self
            .table_changed
            .wait_timeout_while(self.state(), EVICTION_WAIT, must_wait);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.accept_waits = false;
        // ORDER: `is_closing` is read under the same lock under which `begin_shutdown`
        // empties the queue. A connection that is queued after that would never be
        // served.
        if state.is_closing {
            return;
        }
        // The connections of a trusted proxy carry requests of many clients, so its
        // requests are counted instead: see `Slot::count_request`.
        let is_proxy = forwarded::trusts(&self.config.trust_proxy, peer.ip());
        let client = (!is_proxy).then(|| Network::of_subscriber(peer.ip()));
        let within_limit = self.check_address_limit(&state.table, client);
        if let Err(answer) = within_limit.and_then(|()| self.ensure_free_slot(&mut state.table)) {
            drop(state);
            return self.reject(socket, &answer);
        }
        let key = state.table.insert(OpenConnection {
            socket: Arc::clone(&socket),
            stream_thread: None,
        });
        let is_counted = self.config.max_per_ip.is_some();
        state.table.set_client(key, client.filter(|_| is_counted));
        let slot = Slot {
            connections: Arc::clone(self),
            key,
            socket,
            counts_requests: is_proxy && is_counted,
        };
        state.queue.push_back((slot, peer));
        let needs_worker = state.queue.len() > state.idle_workers;
        // ORDER: the worker is counted before it is started. Otherwise the next
        // connection would find too few workers for the queue, and start a second worker
        // for this connection.
        state.idle_workers += usize::from(needs_worker);
        drop(state);
        if needs_worker {
            self.start_worker();
        } else {
            self.connection_queued.notify_one();
        }
    }

    /// Whether every slot is in use, no connection can be evicted now, and a thread of
    /// this server is about to change that. Then a new connection waits for a moment
    /// instead of being rejected. There are two such cases:
    ///
    /// - `max_evicted` evicted connections are still open, so no further one may be
    ///   evicted. Their threads have been woken and end as soon as they get a processor.
    /// - No connection waits for its peer, and there are connections in the queue. A
    ///   queued connection counts as busy until a worker takes it. From then on it waits
    ///   for its request and can be evicted.
    ///
    /// If instead all connections are busy with requests or streams, nothing says when a
    /// slot becomes free, so the new connection is rejected at once.
    fn must_wait_for_slot(&self, state: &ServerState) -> bool {
        let table = &state.table;
        let all_slots_in_use = table.slots_in_use() >= self.config.max_connections();
        let evicted_are_still_open = table.evicted() >= self.max_evicted;
        let waits_for_workers = !table.has_waiting() && !state.queue.is_empty();
        all_slots_in_use && (evicted_are_still_open || waits_for_workers) && !state.is_closing
    }

    /// Whether one more connection of this client is within `Config::max_per_ip`. Without
    /// that limit, or without a client, every connection is. `Err` is the answer to a
    /// connection over the limit.
    fn check_address_limit(
        &self,
        table: &Table<OpenConnection>,
        client: Option<Network>,
    ) -> Result<(), Response> {
        match (self.config.max_per_ip, client) {
            (Some(limit), Some(client)) if table.count_of(client) >= limit => {
                let why =
                    format!("Too many connections from {client}: {limit} at a time are the limit");
                Err(Response::later(&self.config, why))
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that a slot is free for one more connection. If all slots are in use,
    /// the connection that has waited longest for its peer is evicted. `Err` is the
    /// answer to the new connection if no connection can be evicted.
    fn ensure_free_slot(&self, table: &mut Table<OpenConnection>) -> Result<(), Response> {
        if table.slots_in_use() < self.config.max_connections() {
            return Ok(());
        }
        // LIMIT: an evicted connection frees its slot at once, but keeps its thread and
        // its descriptor for a moment.
        if table.evicted() < self.max_evicted
            && let Some(evicted) = table.evict()
        {
            // Wakes the connection's worker, which blocks in a read, or is about to.
            // Bytes that have already arrived can still be read. The worker then answers
            // the evicted connection (`Connection::answer_eviction`).
            let _ = evicted.socket.shutdown(Shutdown::Read);
            return Ok(());
        }
        Err(Response::later(&self.config, "Too many connections"))
    }

    /// Starts a worker, which `admit` has already counted as idle. If the thread cannot
    /// be started, a connection for which there is no other worker is rejected.
    fn start_worker(self: &Arc<Self>) {
        let connections = Arc::clone(self);
        let started = self.start_thread("worker", move || connections.run_worker());
        let mut state = self.state();
        match started {
            Ok(worker) => {
                state.workers.insert(worker.thread().id(), worker);
            }
            Err(error) => {
                // The worker that was counted does not exist. By now another worker may
                // have become idle and taken the connection, so the queue is compared
                // again.
                state.idle_workers -= 1;
                let needs_worker = state.queue.len() > state.idle_workers;
                let unserved = needs_worker.then(|| state.queue.pop_front()).flatten();
                drop(state);
                if let Some((slot, peer)) = unserved {
                    self.reject_without_thread(&slot.socket, "connection", &peer, &error);
                }
            }
        }
    }

    /// The whole life of a worker: serves one connection after the other until the queue
    /// stays empty or the server closes.
    fn run_worker(self: &Arc<Self>) {
        while let Some((slot, peer)) = self.next_connection() {
            // `Connection` catches the panics of handlers itself. What is left is a value
            // of the embedder that panics when it is dropped. It costs its own
            // connection, and the worker goes on.
            let serve = AssertUnwindSafe(|| Connection::new(&slot, peer).serve());
            match catch_unwind(serve) {
                Ok(Some(stream)) => self.start_stream(slot, stream),
                Ok(None) => {}
                Err(_) => {
                    let report = &self.config.report;
                    report.error(format_args!(
                        "serving the connection of {peer} panicked; the connection is closed"
                    ));
                }
            }
            self.state().idle_workers += 1;
        }
    }

    /// Takes the next connection from the queue. Blocks for at most [`WORKER_IDLE`] (200
    /// ms) while the queue is empty. `None`: the calling worker must end.
    fn next_connection(&self) -> Option<(Slot, SocketAddr)> {
        let is_idle = |state: &mut ServerState| state.queue.is_empty() && !state.is_closing;
        let waited = self
            .connection_queued
            .wait_timeout_while(self.state(), WORKER_IDLE, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle_workers -= 1;
        let next = state.queue.pop_front();
        // During a shutdown the entry stays, because the shutdown joins the thread.
        if next.is_none() && !state.is_closing {
            state.workers.remove(&thread::current().id());
        }
        next
    }

    /// Starts a stream's own thread and moves the connection to it. The worker that calls
    /// this is free afterwards. The slot is dropped on the stream's thread, when the
    /// stream has ended.
    fn start_stream(&self, slot: Slot, stream: StreamStart) {
        let (key, socket, remote) = (slot.key, Arc::clone(&slot.socket), stream.remote);
        // Why a box: without it, each of the calls that lead to the stream would have its
        // own copy of these values on the stack, as long as the stream lives. The 400
        // bytes that the box saves keep the stack of an idle stream within one page with
        // musl: 6.3 KiB instead of 10.2 KiB.
        let parts = Box::new((slot, stream));
        let task = move || {
            let (slot, stream) = *parts;
            if catch_unwind(AssertUnwindSafe(|| (stream.run)(stream.takeover))).is_err() {
                let report = &slot.connections.config.report;
                let remote = stream.remote;
                report.error(format_args!(
                    "the stream to {remote} panicked; the connection is closed"
                ));
            }
        };
        match self.start_thread("stream", task) {
            Ok(handle) => {
                // A stream that has ended already has no row any more. Dropping its
                // handle detaches the thread.
                if let Some(connection) = self.state().table.get_mut(key) {
                    connection.stream_thread = Some(handle);
                }
            }
            Err(error) => self.reject_without_thread(&socket, "stream", &remote, &error),
        }
    }

    /// Answers 503 to a connection or a stream (`kind`) for which no thread can be
    /// started, and logs the error. When threads run out, many connections fail in the
    /// same way, so at most one of these lines is logged per second.
    fn reject_without_thread(
        &self,
        socket: &Arc<TcpStream>,
        kind: &str,
        remote: &dyn fmt::Display,
        error: &io::Error,
    ) {
        if let Some(suppressed) = self.thread_error_log.next(Instant::now()) {
            let report = &self.config.report;
            report.error(format_args!(
                "cannot start a thread for the {kind} of {remote}: {error}; answered 503{suppressed}"
            ));
        }
        let why = format!("No thread is left for this {kind}");
        self.reject(Arc::clone(socket), &Response::later(&self.config, why));
    }

    /// Starts a thread with the configured stack.
    ///
    /// # Errors
    ///
    /// The system refuses another thread, or its address space has no room for another
    /// stack.
    fn start_thread(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let stack_bytes = self.config.stack_bytes;
        let thread = thread::Builder::new()
            .name(name.into())
            .stack_size(stack_bytes);
        self.thread_starter
            .start(stack_bytes, || thread.spawn(body))
    }

    /// Sends an answer and ends the connection, without reading its request and without
    /// waiting for the peer: the caller may be the thread `accept`. The connection
    /// lingers afterwards, without a slot or a thread of its own.
    fn reject(&self, socket: Arc<TcpStream>, answer: &Response) {
        write_at_once(&socket, &answer.last_bytes(false));
        // Best effort: the peer may be gone.
        let _ = socket.shutdown(Shutdown::Write);
        self.linger(socket, false);
    }

    /// Hands an answered connection over to the lingering close, and starts the thread
    /// `linger` if there is none. Without that thread the connection is closed at once.
    fn linger(&self, socket: Arc<TcpStream>, is_evicted: bool) {
        if self.lingering.add(socket, is_evicted) {
            let lingering = Arc::clone(&self.lingering);
            match self.start_thread("linger", move || lingering.run()) {
                Ok(thread) => self.state().linger_thread = Some(thread),
                Err(_) => self.lingering.close_without_thread(),
            }
        }
    }

    /// Begins the shutdown and does not block. From now on no connection waits for
    /// another request: idle connections are woken and end, queued connections are
    /// closed, and the answer to a request is the last one of its connection.
    pub(super) fn begin_shutdown(&self) {
        let mut state = self.state();
        state.is_closing = true;
        let idle = state
            .table
            .iter()
            .filter(|(stage, _)| *stage == Stage::Idle);
        for (_, connection) in idle {
            // The worker reads the bytes that have already arrived, and then the end of
            // the input. So a request that has just arrived is still answered.
            let _ = connection.socket.shutdown(Shutdown::Read);
        }
        let unserved = std::mem::take(&mut state.queue);
        // LOCK: the slots in the queue lock the state when they are dropped.
        drop(state);
        drop(unserved);
        self.lingering.close();
        self.connection_queued.notify_all();
        self.table_changed.notify_all();
    }

    /// Finishes the shutdown that began at `start`: waits until all connections have
    /// ended, or until the rest of `Config::grace` has passed; closes the sockets that
    /// are left; joins the threads.
    ///
    /// Blocks for at most the grace and [`SHUTDOWN_WAIT`] (500 ms). Threads that are
    /// still in a handler then are reported, and no thread is joined.
    pub(super) fn finish_shutdown(&self, start: Instant) {
        if self.wait_until_empty(self.config.grace.saturating_sub(start.elapsed())) > 0 {
            for (_, connection) in self.state().table.iter() {
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
            let left = self.wait_until_empty(SHUTDOWN_WAIT);
            if left > 0 {
                let report = &self.config.report;
                return report.error(format_args!(
                    "{left} connections are still busy in their handlers; the shutdown does not wait for them"
                ));
            }
        }
        let mut state = self.state();
        let (streams, workers) = (
            std::mem::take(&mut state.ended_streams),
            std::mem::take(&mut state.workers),
        );
        let linger_thread = state.linger_thread.take();
        // LOCK: a worker locks the state once more before it ends.
        drop(state);
        for thread in streams
            .into_iter()
            .chain(workers.into_values())
            .chain(linger_thread)
        {
            // Streams and workers are about to end. The thread `linger` is parked between
            // two rounds. A panic was caught and reported on the thread itself.
            thread.thread().unpark();
            let _ = thread.join();
        }
    }

    /// Waits until all connections have ended, for at most `limit`. Returns how many
    /// connections are left.
    fn wait_until_empty(&self, limit: Duration) -> usize {
        let has_connections = |state: &mut ServerState| state.table.len() > 0;
        let waited = self
            .table_changed
            .wait_timeout_while(self.state(), limit, has_connections);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.table.len()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// An admitted connection's slot in the connection table: the value by which the
/// connection's own thread reports what the connection is doing.
///
/// The value moves from the queue to a worker, and with a stream to the stream's thread.
/// Dropping it removes the row from the table, also when that thread panicked or could
/// not be started. Dropping it locks the state, so it must not be dropped while the state
/// is locked. An evicted connection keeps its `Slot` until its worker is done with it,
/// but the table does not count that slot any more.
pub(super) struct Slot {
    /// The server that the connection belongs to.
    pub(super) connections: Arc<Connections>,
    /// The connection. The table has another reference to it, to wake the thread that
    /// reads from it.
    pub(super) socket: Arc<TcpStream>,
    /// The key of the connection's row in the table.
    key: u64,
    /// The peer is a trusted proxy, and `Config::max_per_ip` is set: each request counts
    /// under the address of its client while it is answered. Other connections count
    /// under the peer's address as long as they are open.
    counts_requests: bool,
}

impl Slot {
    /// Applies a change to the state, and wakes the threads that wait for a change:
    /// `accept`, or a shutdown.
    fn change<T>(&self, change: impl FnOnce(&mut ServerState) -> T) -> T {
        let mut state = self.connections.state();
        let outcome = change(&mut state);
        let is_awaited = state.accept_waits || state.is_closing;
        drop(state);
        if is_awaited {
            self.connections.table_changed.notify_all();
        }
        outcome
    }

    /// Notes that the connection is about to wait for a request. From now on it may be
    /// evicted. Returns false if it must not wait, because the server is closing.
    ///
    /// ORDER: this sets `Idle` and reads `is_closing` under one lock; `begin_shutdown`
    /// sets `is_closing` and looks for idle connections under the same lock. So either
    /// this function returns false, or `begin_shutdown` wakes the connection.
    pub(super) fn may_wait_for_request(&self) -> bool {
        self.change(|state| {
            state.table.set_stage(self.key, Stage::Idle);
            !state.is_closing
        })
    }

    /// Notes that the connection is about to wait for the rest of a head, or for the end
    /// of the peer's input after the last answer. It may be evicted meanwhile.
    pub(super) fn note_waiting(&self) {
        self.change(|state| state.table.set_stage(self.key, Stage::Waiting));
    }

    /// Notes that a body has begun to arrive or has made progress, and that the
    /// connection is about to wait for more of it. Its waiting time starts again. Returns
    /// false if the connection has been evicted.
    pub(super) fn note_body_progress(&self) -> bool {
        self.change(|state| state.table.restart_waiting(self.key, Stage::Waiting))
    }

    /// Notes that a request has arrived or that an answer is about to be written. From
    /// now on the connection cannot be evicted. Returns false if it has been evicted
    /// before.
    pub(super) fn mark_busy(&self) -> bool {
        let mut state = self.connections.state();
        state.table.set_stage(self.key, Stage::Busy)
    }

    /// Sends an evicted connection the answer to a request that had begun to arrive, as
    /// far as it can be written without waiting for the peer. The connection lingers
    /// afterwards.
    pub(super) fn answer_evicted(&self, answer: &[u8]) {
        write_at_once(&self.socket, answer);
        self.connections.linger(Arc::clone(&self.socket), true);
    }

    /// Counts a request from behind a trusted proxy under the address of its client. Does
    /// nothing for the connections of other peers. `Err` is the answer to a request over
    /// `Config::max_per_ip`.
    pub(super) fn count_request(&self, client: IpAddr) -> Result<(), Response> {
        if self.counts_requests {
            let client = Some(Network::of_subscriber(client));
            let mut state = self.connections.state();
            self.connections.check_address_limit(&state.table, client)?;
            state.table.set_client(self.key, client);
        }
        Ok(())
    }

    /// Ends the counting of a request, because its answer is ready to be written.
    ///
    /// ORDER: before the answer is written. A client that has the answer may send its
    /// next request on another connection, and that request must not be one too many.
    pub(super) fn uncount_request(&self) {
        if self.counts_requests {
            self.connections.state().table.set_client(self.key, None);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let removed = self.change(|state| {
            let mut removed = state.table.remove(self.key);
            if state.is_closing {
                let thread = removed
                    .as_mut()
                    .and_then(|connection| connection.stream_thread.take());
                state.ended_streams.extend(thread);
            }
            removed
        });
        // LOCK: dropping the row may close the socket, which is a system call, so the
        // state is not locked here.
        drop(removed);
    }
}
