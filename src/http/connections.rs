//! All connections of a server: each gets a place, or an answer that says why not, and a thread: a *worker*
//! speaks HTTP with one connection at a time, and a connection that becomes a stream gets a thread of its own.
//!
//! Parsing, routing and the handlers touch several pages of a stack, and a thread keeps the pages that it has
//! touched. A stream lives long and needs little, so it begins in a fresh thread, and the worker goes on with
//! the next connection. A worker ends when no connection has come for a while. With a worker for each
//! connection there would be less code here; but glibc gives the stacks of threads that have ended to new ones,
//! touched pages and all, and a stream takes 17 KiB instead of 11.

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
use crate::machine::{Reserves, ThreadRoom};
use crate::report::Sampled;
use crate::socket::write_at_once;
use crate::wire::Network;

/// What the threads of a server share.
pub(super) struct Connections {
    pub(super) config: Config,
    pub(super) handler: Box<dyn Handler>,
    /// What the bodies that are being read take.
    pub(super) bodies: Budget,
    /// What the answers that are being written take.
    pub(super) answers: Budget,
    /// Log lines about requests that were refused.
    pub(super) refusals: Sampled,
    /// Log lines about threads that could not be started.
    thread_errors: Sampled,
    room: ThreadRoom,
    /// How many evicted connections may still be open, beside those that have a place.
    most_evicted: usize,
    /// Rejected and evicted connections that have their answer.
    lingering: Arc<Lingering>,
    /// LOCK: guards the list of connections. Held to look up, insert and remove; no I/O waits under it
    /// (`shutdown` on a socket returns at once).
    open: Mutex<Open>,
    /// A connection is in the queue. Idle workers wait for it.
    arrival: Condvar,
    /// A connection waits or has ended. A shutdown waits for it, and so does a connection that comes to a
    /// jam.
    change: Condvar,
}

#[derive(Default)]
struct Open {
    /// LIMIT: `Config::max_connections` and `Connections::most_evicted`, and so of all else here.
    table: Table<Connected>,
    /// Connections that no worker has taken yet. Not to be dropped under the lock.
    queue: VecDeque<(Slot, SocketAddr)>,
    /// Workers without a connection, those that are just being started among them.
    idle: usize,
    /// Those that run. A worker that ends takes itself out, which gives its stack back.
    workers: HashMap<ThreadId, JoinHandle<()>>,
    /// The accept loop waits for a `change`.
    is_jammed: bool,
    is_closing: bool,
    /// Threads of streams that have ended since the shutdown began.
    ended: Vec<JoinHandle<()>>,
    /// The thread that watches the lingering connections, if there are any.
    watch: Option<JoinHandle<()>>,
}

/// A connection as other threads see it.
struct Connected {
    socket: Arc<TcpStream>,
    /// The stream's own thread, to be joined at the end of the server. A stream that ends before that is
    /// detached.
    handle: Option<JoinHandle<()>>,
}

impl Connections {
    pub(super) fn new(config: Config, reserves: Reserves, handler: Box<dyn Handler>) -> Self {
        Connections {
            // LIMIT: never less than one body of the largest size.
            bodies: Budget::new(config.total_bodies.max(config.max_body)),
            answers: Budget::new(config.total_answers),
            refusals: Sampled::new(REFUSALS_LOGGED),
            thread_errors: Sampled::new(1),
            room: ThreadRoom::new(),
            most_evicted: reserves.evicted,
            lingering: Arc::new(Lingering::new(reserves.lingering)),
            open: Mutex::default(),
            arrival: Condvar::new(),
            change: Condvar::new(),
            config,
            handler,
        }
    }

    /// A panic under this lock is impossible short of a bug in std: nothing foreign runs under it.
    /// Should one come, the table is still a table.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.open().is_closing
    }

    /// Serves a connection, or rejects it. Waits for no peer: only, and not for long, for threads of this
    /// server that are about to run.
    pub(super) fn enter(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let socket = Arc::new(socket);
        let is_jammed = |open: &mut Open| {
            open.is_jammed = self.is_jam(open);
            open.is_jammed
        };
        let waited = self
            .change
            .wait_timeout_while(self.open(), EVICTION_WAIT, is_jammed);
        let (mut open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.is_jammed = false;
        // ORDER: asked under the lock under which `close` takes the queue; nobody takes it after that.
        if open.is_closing {
            return;
        }
        // A proxy's connections are not its client's; those are counted request by request.
        let is_proxy = forwarded::trusts(&self.config.trust_proxy, peer.ip());
        let client = (!is_proxy).then(|| Network::of_subscriber(peer.ip()));
        let admitted = self.check_count(&open.table, client);
        if let Err(answer) = admitted.and_then(|()| self.make_room(&mut open.table)) {
            drop(open);
            return self.reject(socket, &answer);
        }
        let key = open.table.insert(Connected {
            socket: Arc::clone(&socket),
            handle: None,
        });
        let is_counted = self.config.max_per_ip.is_some();
        open.table.count(key, client.filter(|_| is_counted));
        let slot = Slot {
            connections: Arc::clone(self),
            key,
            socket,
            is_proxied: is_proxy && is_counted,
        };
        open.queue.push_back((slot, peer));
        let is_short = open.queue.len() > open.idle;
        // ORDER: counted before it is there, so that one connection does not get two.
        open.idle += usize::from(is_short);
        drop(open);
        if is_short {
            self.start_worker();
        } else {
            self.arrival.notify_one();
        }
    }

    /// Whether all places are taken, and no connection can be evicted yet: the evicted ones are still
    /// there, or those that could be evicted have no worker. Either is over as soon as some thread has run.
    fn is_jam(&self, open: &Open) -> bool {
        let table = &open.table;
        let is_full = table.placed() >= self.config.max_connections();
        let is_unserved = !table.has_waiting() && !open.queue.is_empty();
        let is_slow = table.evicted() >= self.most_evicted || is_unserved;
        is_full && is_slow && !open.is_closing
    }

    /// Whether one more connection of this client is within its limit.
    fn check_count(
        &self,
        table: &Table<Connected>,
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

    /// Makes sure that there is a place for one more connection, if need be by evicting another.
    fn make_room(&self, table: &mut Table<Connected>) -> Result<(), Response> {
        if table.placed() < self.config.max_connections() {
            return Ok(());
        }
        // LIMIT: beside those that have a place, and with a thread and a descriptor each.
        if table.evicted() < self.most_evicted
            && let Some(thread) = table.evict()
        {
            // Wakes the thread, if it reads. What has arrived can still be read after this.
            let _ = thread.socket.shutdown(Shutdown::Read);
            return Ok(());
        }
        Err(Response::later(&self.config, "Too many connections"))
    }

    fn start_worker(self: &Arc<Self>) {
        let connections = Arc::clone(self);
        let started = self.start_thread("worker", move || connections.work());
        let mut open = self.open();
        match started {
            Ok(worker) => {
                open.workers.insert(worker.thread().id(), worker);
            }
            Err(error) => {
                // The worker that was counted does not come.
                open.idle -= 1;
                let is_short = open.queue.len() > open.idle;
                let unserved = is_short.then(|| open.queue.pop_front()).flatten();
                drop(open);
                if let Some((slot, peer)) = unserved {
                    self.reject_unserved(&slot.socket, "connection", &peer, &error);
                }
            }
        }
    }

    /// All that a worker does.
    fn work(self: &Arc<Self>) {
        while let Some((slot, peer)) = self.next_connection() {
            // Handlers are guarded one by one. What is left is an embedder's value that panics when it is
            // dropped, and it does not end the thread.
            let serve = AssertUnwindSafe(|| Connection::new(&slot, peer).serve());
            match catch_unwind(serve) {
                Ok(Some(stream)) => self.begin(slot, stream),
                Ok(None) => {}
                Err(_) => {
                    let report = &self.config.report;
                    report.error(format_args!("the connection of {peer} panicked; closed"));
                }
            }
            self.open().idle += 1;
        }
    }

    /// Waits for a connection, but not for ever: a worker too many ends.
    fn next_connection(&self) -> Option<(Slot, SocketAddr)> {
        let is_idle = |open: &mut Open| open.queue.is_empty() && !open.is_closing;
        let waited = self
            .arrival
            .wait_timeout_while(self.open(), WORKER_IDLE, is_idle);
        let (mut open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.idle -= 1;
        let next = open.queue.pop_front();
        if next.is_none() && !open.is_closing {
            open.workers.remove(&thread::current().id());
        }
        next
    }

    /// Gives a stream its thread.
    fn begin(&self, slot: Slot, stream: StreamStart) {
        let (key, socket, whose) = (slot.key, Arc::clone(&slot.socket), stream.whose);
        // In a box, because the calls that lead to the stream would copy it, one after the other, and they stay
        // on the stack of its thread for life. 400 bytes less keep an idle stream's stack within one page with
        // musl: it takes 6.3 KiB instead of 10.2.
        let parts = Box::new((slot, stream));
        let task = move || {
            let (slot, stream) = *parts;
            if catch_unwind(AssertUnwindSafe(|| (stream.take)(stream.takeover))).is_err() {
                let report = &slot.connections.config.report;
                let whose = stream.whose;
                report.error(format_args!("the stream to {whose} panicked; closed"));
            }
        };
        match self.start_thread("stream", task) {
            Ok(handle) => {
                if let Some(thread) = self.open().table.get_mut(key) {
                    thread.handle = Some(handle);
                }
            }
            Err(error) => self.reject_unserved(&socket, "stream", &whose, &error),
        }
    }

    /// Answers a connection for which no thread could be started. The report is about a want that is seldom
    /// one connection's alone.
    fn reject_unserved(
        &self,
        socket: &Arc<TcpStream>,
        kind: &str,
        whose: &dyn fmt::Display,
        error: &io::Error,
    ) {
        if let Some(suppressed) = self.thread_errors.next(Instant::now()) {
            let report = &self.config.report;
            report.error(format_args!(
                "no thread for the {kind} of {whose}: {error}; answered 503{suppressed}"
            ));
        }
        let why = format!("No thread is left for this {kind}");
        self.reject(Arc::clone(socket), &Response::later(&self.config, why));
    }

    /// Starts a thread, if the machine has room for one more.
    fn start_thread(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let stack_bytes = self.config.stack_bytes;
        let thread = thread::Builder::new()
            .name(name.into())
            .stack_size(stack_bytes);
        self.room.start(stack_bytes, || thread.spawn(body))
    }

    /// Answers without reading the request, and without waiting for the peer: other connections wait to be
    /// accepted.
    fn reject(&self, socket: Arc<TcpStream>, answer: &Response) {
        write_at_once(&socket, &answer.last_bytes(false));
        // Best effort: the peer may be gone.
        let _ = socket.shutdown(Shutdown::Write);
        self.linger(socket, false);
    }

    fn linger(&self, socket: Arc<TcpStream>, is_evicted: bool) {
        if self.lingering.keep(socket, is_evicted) {
            let lingering = Arc::clone(&self.lingering);
            match self.start_thread("linger", move || lingering.watch()) {
                Ok(thread) => self.open().watch = Some(thread),
                Err(_) => self.lingering.give_up(),
            }
        }
    }

    /// Begins the shutdown: no connection waits for a new request, and those that wait for one are woken.
    pub(super) fn close(&self) {
        let mut open = self.open();
        open.is_closing = true;
        let idle = open.table.iter().filter(|(stage, _)| *stage == Stage::Idle);
        for (_, thread) in idle {
            // Bytes that have arrived can still be read after this; then comes the end.
            let _ = thread.socket.shutdown(Shutdown::Read);
        }
        let unserved = std::mem::take(&mut open.queue);
        drop(open);
        drop(unserved);
        self.lingering.close();
        self.arrival.notify_all();
        self.change.notify_all();
    }

    /// Ends the shutdown that began at `start`: waits for the grace, closes what is left, joins the threads.
    pub(super) fn wait_for_the_rest(&self, start: Instant) {
        if self.wait_until_empty(self.config.grace.saturating_sub(start.elapsed())) > 0 {
            for (_, thread) in self.open().table.iter() {
                let _ = thread.socket.shutdown(Shutdown::Both);
            }
            let left = self.wait_until_empty(SHUTDOWN_WAIT);
            if left > 0 {
                let report = &self.config.report;
                return report.error(format_args!(
                    "{left} connections are still busy in their handlers; left behind"
                ));
            }
        }
        let mut open = self.open();
        let (streams, workers) = (
            std::mem::take(&mut open.ended),
            std::mem::take(&mut open.workers),
        );
        let watch = open.watch.take();
        drop(open);
        for thread in streams
            .into_iter()
            .chain(workers.into_values())
            .chain(watch)
        {
            // It is at its end, or looks again when it is woken; a panic was caught and reported.
            thread.thread().unpark();
            let _ = thread.join();
        }
    }

    /// Waits until all connections have ended. Returns how many have not within `limit`.
    fn wait_until_empty(&self, limit: Duration) -> usize {
        let is_full = |open: &mut Open| open.table.len() > 0;
        let waited = self.change.wait_timeout_while(self.open(), limit, is_full);
        let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.table.len()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A connection's row in the table. Dropping it removes the row, also when the connection's thread panicked or
/// could not be started. Not to be dropped under the lock.
pub(super) struct Slot {
    pub(super) connections: Arc<Connections>,
    pub(super) socket: Arc<TcpStream>,
    key: u64,
    /// The peer is a proxy that is trusted: not the connection is counted, but each request.
    is_proxied: bool,
}

impl Slot {
    /// Changes the table, and wakes the accept loop if that waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut Open) -> T) -> T {
        let mut open = self.connections.open();
        let outcome = change(&mut open);
        let is_awaited = open.is_jammed || open.is_closing;
        drop(open);
        if is_awaited {
            self.connections.change.notify_all();
        }
        outcome
    }

    /// The connection is about to wait for a request. False: it must not, the server is closing.
    ///
    /// ORDER: idle is set and closing read under one lock, and the other way round in `close`, so
    /// that a connection either sees the end coming or is woken by it.
    pub(super) fn may_wait(&self) -> bool {
        self.change(|open| {
            open.table.set(self.key, Stage::Idle);
            !open.is_closing
        })
    }

    /// The connection is about to wait for the rest of a head, or for the peer's end after the last answer.
    pub(super) fn note_waiting(&self) {
        self.change(|open| open.table.set(self.key, Stage::Waiting));
    }

    /// A body has begun to arrive or has made progress, and the connection is about to wait for more of
    /// it. False: too late, the connection was evicted.
    pub(super) fn note_body(&self) -> bool {
        self.change(|open| open.table.renew(self.key, Stage::Waiting))
    }

    /// A request has arrived, or an answer is about to be written: from now on the connection is not evicted.
    /// False: it was evicted before.
    pub(super) fn hold(&self) -> bool {
        self.connections.open().table.set(self.key, Stage::Busy)
    }

    /// The connection was evicted, and this is the answer to a request that had begun. It is written without
    /// waiting for the peer.
    pub(super) fn end_evicted(&self, answer: &[u8]) {
        write_at_once(&self.socket, answer);
        self.connections.linger(Arc::clone(&self.socket), true);
    }

    /// A request of `client` is about to be answered. `Err` is the answer to one too many.
    pub(super) fn admit(&self, client: IpAddr) -> Result<(), Response> {
        if self.is_proxied {
            let client = Some(Network::of_subscriber(client));
            let mut open = self.connections.open();
            self.connections.check_count(&open.table, client)?;
            open.table.count(self.key, client);
        }
        Ok(())
    }

    /// The answer is there, and only to be written. ORDER: before it is written, because a client that has it
    /// may ask again by another connection, and is not one too many.
    pub(super) fn note_answered(&self) {
        if self.is_proxied {
            self.connections.open().table.count(self.key, None);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let ended = self.change(|open| {
            let mut ended = open.table.remove(self.key);
            if open.is_closing {
                let handle = ended.as_mut().and_then(|thread| thread.handle.take());
                open.ended.extend(handle);
            }
            ended
        });
        // ORDER: closes the socket, perhaps, and not under the lock.
        drop(ended);
    }
}
