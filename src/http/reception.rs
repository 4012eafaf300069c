//! Who serves the connections: *clerks*, threads that speak HTTP with one connection at a time, and
//! a thread of its own for each connection that becomes a stream.
//!
//! Parsing, routing and the handlers touch several pages of a stack, and what a thread has touched
//! it keeps. A stream lives long and needs little, so it begins on a fresh thread; the clerk goes
//! on with the next connection, and ends when none has come for a while. Clerks are started by a
//! thread of its own, because starting threads is slow compared with accepting.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::connection::{Connection, Door, Shared, Stream};
use super::doorstep::Doorstep;
use super::places::{Places, Stage};
use super::{Handler, Response, forwarded};
use crate::config::{CLERK_PATIENCE, Config, JAM_PATIENCE, LAST_WAIT, REFUSALS_TOLD};
use crate::machine::ThreadRoom;
use crate::report::Sampled;
use crate::socket::write_at_once;
use crate::wire::Network;

/// What the threads of a server share.
pub(super) struct Reception {
    pub(super) config: Config,
    /// How many evicted connections may still be open, beside those that have a place.
    leaving: usize,
    handler: Box<dyn Handler>,
    room: ThreadRoom,
    doorstep: Doorstep,
    shared: Shared,
    /// Log lines about threads that could not be started.
    complaints: Sampled,
    /// LOCK: guards who is connected and who serves. Held to look up, insert and remove; no I/O
    /// waits under it (`shutdown` on a socket returns at once).
    table: Mutex<Table>,
    /// A connection waits for a clerk. Clerks without work wait for it.
    arrival: Condvar,
    /// More connections wait than clerks. The starter waits for it.
    shortage: Condvar,
    /// A connection has left the table. The shutdown waits for it, and who comes to a jam.
    departure: Condvar,
}

#[derive(Default)]
struct Table {
    /// Every connection. LIMIT: `Config::max_connections` and `Reception::leaving`, and so of all else here.
    places: Places<Entry>,
    /// Connections that no clerk has taken yet.
    arrivals: VecDeque<Arrival>,
    /// Clerks without a connection, those that are just being started among them.
    idle_clerks: usize,
    clerks: HashMap<ThreadId, JoinHandle<()>>,
    /// A connection waits to be let in, until somebody waits or leaves.
    is_jammed: bool,
    closing: bool,
}

struct Entry {
    socket: Arc<TcpStream>,
    /// The stream's own thread, to be joined at the end. A stream that ends before takes it out,
    /// which detaches it.
    thread: Option<JoinHandle<()>>,
}

/// A connection on its way from `accept` to a clerk. Not to be dropped under the lock: its place
/// takes the lock to leave the table.
struct Arrival {
    place: Place,
    socket: Arc<TcpStream>,
    peer: SocketAddr,
}

impl Reception {
    pub(super) fn new(
        config: Config,
        leaving: usize,
        handler: Box<dyn Handler>,
        doorstep: Doorstep,
    ) -> Reception {
        let shared = Shared {
            // LIMIT: never less than one body of the largest size.
            bodies: Budget::new(config.total_bodies.max(config.max_body)),
            answers: Budget::new(config.total_answers),
            refusals: Sampled::new(REFUSALS_TOLD),
        };
        Reception {
            config,
            leaving,
            handler,
            room: ThreadRoom::new(),
            doorstep,
            shared,
            complaints: Sampled::new(1),
            table: Mutex::default(),
            arrival: Condvar::new(),
            shortage: Condvar::new(),
            departure: Condvar::new(),
        }
    }

    /// A panic under this lock is impossible short of a bug in std: nothing foreign runs under it.
    /// Should one come, the table is still a table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connections(&self) -> usize {
        self.table().places.len()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.table().closing
    }

    /// Gives a connection a place, and leaves it for a clerk. Waits for no peer: only, and not for long,
    /// for threads of this server that are about to run.
    pub(super) fn enter(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let socket = Arc::new(socket);
        let is_proxy = forwarded::trusts(&self.config.trust_proxy, peer.ip());
        let most = self.config.max_connections();
        let is_jammed = |table: &mut Table| {
            table.is_jammed = table.is_jam(most, self.leaving);
            table.is_jammed
        };
        let waited = self
            .departure
            .wait_timeout_while(self.table(), JAM_PATIENCE, is_jammed);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.is_jammed = false;
        // ORDER: asked under the lock under which `close` takes the arrivals; behind it nobody would.
        if table.closing {
            return;
        }
        // A proxy's connections are not its client's; those are counted request by request.
        let client = (!is_proxy).then(|| Network::of_subscriber(peer.ip()));
        let admitted = self.admits(&table, client);
        if let Err(answer) = admitted.and_then(|()| self.make_room(&mut table)) {
            drop(table);
            return self.turn_away(socket, &answer);
        }
        let key = table.places.enter(Entry {
            socket: Arc::clone(&socket),
            thread: None,
        });
        table.places.count(key, client.filter(|_| self.counts()));
        table.arrivals.push_back(Arrival {
            place: Place {
                reception: Arc::clone(self),
                key,
                is_proxy,
            },
            socket,
            peer,
        });
        let waker = if table.is_short() {
            &self.shortage
        } else {
            &self.arrival
        };
        drop(table);
        waker.notify_one();
    }

    fn counts(&self) -> bool {
        self.config.max_per_ip.is_some()
    }

    /// Whether one more of this client is within its limit.
    fn admits(&self, table: &Table, client: Option<Network>) -> Result<(), Response> {
        match (self.config.max_per_ip, client) {
            (Some(limit), Some(client)) if table.places.count_of(client) >= limit => {
                let why =
                    format!("Too many connections from {client}: {limit} at a time are the limit");
                Err(Response::later(&self.config, why))
            }
            _ => Ok(()),
        }
    }

    /// Sees to it that there is a place for one more, if need be by letting somebody go.
    fn make_room(&self, table: &mut Table) -> Result<(), Response> {
        if table.places.staying() < self.config.max_connections() {
            return Ok(());
        }
        // LIMIT: beside those who have a place, and with a thread and a descriptor each.
        if table.places.leaving() < self.leaving
            && let Some(entry) = table.places.let_one_go()
        {
            // Wakes its clerk, if it reads. What has arrived can still be read after this.
            let _ = entry.socket.shutdown(Shutdown::Read);
            return Ok(());
        }
        Err(Response::later(&self.config, "Too many connections"))
    }

    /// The starter: a clerk for each connection that waits without one, until the server closes.
    pub(super) fn start_clerks(self: &Arc<Self>) {
        loop {
            let enough = |table: &mut Table| !table.is_short() && !table.closing;
            let table = self.shortage.wait_while(self.table(), enough);
            let mut table = table.unwrap_or_else(PoisonError::into_inner);
            if table.closing {
                return;
            }
            // ORDER: counted before it is there, so that one arrival does not get two.
            table.idle_clerks += 1;
            drop(table);
            if let Err(error) = self.start_clerk() {
                let arrival = self.lose_clerk();
                self.complain(format_args!("no thread for a connection: {error}"));
                if let Some(Arrival { socket, .. }) = arrival {
                    let why = "No thread is left for this connection";
                    self.turn_away(socket, &Response::later(&self.config, why));
                }
            }
        }
    }

    fn start_clerk(self: &Arc<Self>) -> io::Result<()> {
        let reception = Arc::clone(self);
        let clerk = self.start_thread("clerk", move || reception.work())?;
        self.table().clerks.insert(clerk.thread().id(), clerk);
        Ok(())
    }

    /// Starts a thread for a connection, if the machine has room for one more.
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

    /// The clerk that was counted will not come; answers the connection that has none now.
    fn lose_clerk(&self) -> Option<Arrival> {
        let mut table = self.table();
        table.idle_clerks -= 1;
        if table.is_short() {
            table.arrivals.pop_front()
        } else {
            None
        }
    }

    /// All that a clerk does.
    fn work(&self) {
        while let Some(Arrival {
            place,
            socket,
            peer,
        }) = self.next_arrival()
        {
            // Handlers are guarded one by one. What is left is an embedder's value that panics when it is
            // dropped, and it does not end the thread.
            let served = AssertUnwindSafe(|| self.serve(&place, &socket, peer));
            match catch_unwind(served) {
                Ok(Some(stream)) => self.begin(stream, place, socket),
                Ok(None) => {}
                Err(_) => {
                    let report = &self.config.report;
                    report.error(format_args!("the connection of {peer} panicked; closed"));
                }
            }
            self.table().idle_clerks += 1;
        }
    }

    /// Waits for a connection, and not forever: a clerk too many ends.
    fn next_arrival(&self) -> Option<Arrival> {
        let idle = |table: &mut Table| table.arrivals.is_empty() && !table.closing;
        let waited = self
            .arrival
            .wait_timeout_while(self.table(), CLERK_PATIENCE, idle);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.idle_clerks -= 1;
        let arrival = table.arrivals.pop_front();
        if arrival.is_none() {
            table.clerks.remove(&thread::current().id());
        }
        arrival
    }

    fn serve(&self, place: &Place, socket: &Arc<TcpStream>, peer: SocketAddr) -> Option<Stream> {
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| socket.set_write_timeout(Some(self.config.write_timeout)));
        // They fail only if the peer has gone already.
        prepared.ok()?;
        Connection::new(socket, peer, &self.config, place, &self.shared).serve(&*self.handler)
    }

    /// Gives a stream its thread.
    fn begin(&self, stream: Stream, place: Place, socket: Arc<TcpStream>) {
        let Stream {
            take,
            takeover,
            whereabouts,
        } = stream;
        let key = place.key;
        let stream = move || {
            if catch_unwind(AssertUnwindSafe(|| take(takeover))).is_err() {
                let report = &place.reception.config.report;
                report.error(format_args!("the stream to {whereabouts} panicked; closed"));
            }
            drop(place);
        };
        match self.start_thread("stream", stream) {
            Ok(thread) => {
                if let Some(entry) = self.table().places.get_mut(key) {
                    entry.thread = Some(thread);
                }
            }
            Err(error) => {
                self.complain(format_args!(
                    "no thread for the stream to {whereabouts}: {error}"
                ));
                let why = "No thread is left for this stream";
                self.turn_away(socket, &Response::later(&self.config, why));
            }
        }
    }

    /// Answers without reading the request, and without waiting for anybody: others are waiting
    /// behind it.
    fn turn_away(&self, socket: Arc<TcpStream>, answer: &Response) {
        write_at_once(&socket, &answer.last_bytes(false));
        // Best effort: the peer may be gone.
        let _ = socket.shutdown(Shutdown::Write);
        self.doorstep.keep(socket);
    }

    /// Reports a want of threads, which is seldom one connection's alone.
    fn complain(&self, what: fmt::Arguments<'_>) {
        if let Some(untold) = self.complaints.next(Instant::now()) {
            let report = &self.config.report;
            report.error(format_args!("{what}; answered 503{untold}"));
        }
    }

    /// Begins the shutdown: no new request is waited for, and who waits for one is woken.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closing = true;
        let idle = table
            .places
            .all()
            .filter(|(stage, _)| *stage == Stage::Idle);
        for (_, entry) in idle {
            // Bytes that have arrived can still be read after this; then comes the end.
            let _ = entry.socket.shutdown(Shutdown::Read);
        }
        self.arrival.notify_all();
        self.shortage.notify_all();
        let unserved = std::mem::take(&mut table.arrivals);
        drop(table);
        drop(unserved);
        self.doorstep.close();
    }

    /// Ends the shutdown that began at `start`: waits for the grace, closes what is left, joins the threads.
    pub(super) fn wait_for_the_rest(&self, start: Instant) {
        let mut table = self.table();
        let streams: Vec<_> = table
            .places
            .all_mut()
            .filter_map(|entry| entry.thread.take())
            .collect();
        let clerks = std::mem::take(&mut table.clerks);
        drop(table);
        if !self.wait_until_empty(self.config.grace.saturating_sub(start.elapsed())) {
            for (_, entry) in self.table().places.all() {
                let _ = entry.socket.shutdown(Shutdown::Both);
            }
            if !self.wait_until_empty(LAST_WAIT) {
                let left = self.connections();
                let report = &self.config.report;
                return report.error(format_args!(
                    "{left} connections are still busy in their handlers; left behind"
                ));
            }
        }
        for thread in streams.into_iter().chain(clerks.into_values()) {
            // Its connection has left the table, so it is at its end; a panic was caught and reported.
            let _ = thread.join();
        }
    }

    fn wait_until_empty(&self, limit: Duration) -> bool {
        let full = |table: &mut Table| !table.places.is_empty();
        let waited = self.departure.wait_timeout_while(self.table(), limit, full);
        let (table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.places.is_empty()
    }
}

impl Table {
    /// Whether all places are taken, and nobody can be let go yet: those who were are still there, or
    /// those who will be have no clerk. Either is over as soon as some thread has run.
    fn is_jam(&self, most: usize, leaving: usize) -> bool {
        let places = &self.places;
        let is_full = places.staying() >= most && !self.closing;
        let is_slow = !places.has_waiting() && !self.arrivals.is_empty();
        is_full && (places.leaving() >= leaving || is_slow)
    }

    /// Whether connections wait that no clerk will come for.
    fn is_short(&self) -> bool {
        self.arrivals.len() > self.idle_clerks
    }
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A connection's place in the table; dropped, it is free again, also when its thread panicked or
/// never came to be.
struct Place {
    reception: Arc<Reception>,
    key: u64,
    /// The peer is a proxy that is trusted: not the connection is counted, but each request.
    is_proxy: bool,
}

impl Place {
    /// Notes that the connection waits. False: the server is closing.
    fn wait(&self, stage: Stage) -> bool {
        self.note_waiting(|table| {
            table.places.set(self.key, stage);
            !table.closing
        })
    }

    /// Makes a change to the table by which a connection waits, and so may make room for a new one.
    fn note_waiting(&self, change: impl FnOnce(&mut Table) -> bool) -> bool {
        let mut table = self.reception.table();
        let outcome = change(&mut table);
        let is_jammed = table.is_jammed;
        drop(table);
        if is_jammed {
            self.reception.departure.notify_all();
        }
        outcome
    }

    /// The connection's socket.
    fn socket(&self) -> Option<Arc<TcpStream>> {
        let mut table = self.reception.table();
        let entry = table.places.get_mut(self.key);
        entry.map(|entry| Arc::clone(&entry.socket))
    }
}

impl Door for Place {
    // ORDER: idle is set and closing read under one lock, and the other way round in `close`, so
    // that a connection either sees the end coming or is woken by it.
    fn may_wait(&self) -> bool {
        self.wait(Stage::Idle)
    }

    fn note_arriving(&self) {
        self.wait(Stage::Arriving);
    }

    fn note_body(&self) -> bool {
        self.note_waiting(|table| table.places.renew(self.key, Stage::Body))
    }

    fn evict(&self, answer: &[u8]) {
        if let Some(socket) = self.socket() {
            write_at_once(&socket, answer);
            self.reception.doorstep.keep_evicted(socket);
        }
    }

    fn note_lingering(&self) {
        self.wait(Stage::Lingering);
    }

    fn hold(&self) -> bool {
        self.reception.table().places.set(self.key, Stage::Busy)
    }

    fn admit(&self, client: IpAddr) -> Result<(), Response> {
        let reception = &self.reception;
        if !self.is_proxy || !reception.counts() {
            return Ok(());
        }
        let client = Some(Network::of_subscriber(client));
        let mut table = reception.table();
        reception.admits(&table, client)?;
        table.places.count(self.key, client);
        Ok(())
    }

    fn note_answered(&self) {
        if self.is_proxy && self.reception.counts() {
            self.reception.table().places.count(self.key, None);
        }
    }

    fn is_closing(&self) -> bool {
        self.reception.is_closing()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let entry = self.reception.table().places.leave(self.key);
        self.reception.departure.notify_all();
        // ORDER: closes the socket, perhaps, and not under the lock.
        drop(entry);
    }
}
