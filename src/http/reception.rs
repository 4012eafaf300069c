//! Who serves the connections: *clerks*, threads that speak HTTP with one connection at a time, and
//! a thread of its own for each connection that becomes a stream.
//!
//! Parsing, routing and the handlers touch several pages of a stack, and what a thread has touched
//! it keeps. A stream lives long and needs little, so it begins on a fresh thread; the clerk goes
//! on with the next connection, and ends when none has come for a while. Clerks are started by a
//! thread of its own, because starting threads is slow compared with accepting.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use super::connection::{Connection, Door, Stream};
use super::response::{Frame, Length};
use super::{Handler, Response};
use crate::config::{CLERK_PATIENCE, Config, LAST_WAIT};
use crate::machine::ThreadRoom;

/// What the threads of a server share.
pub(super) struct Reception {
    pub(super) config: Config,
    handler: Box<dyn Handler>,
    room: ThreadRoom,
    /// LOCK: guards who is connected and who serves. Held to look up, insert and remove; no I/O
    /// waits under it (`shutdown` on a socket returns at once).
    table: Mutex<Table>,
    /// A connection waits for a clerk. Clerks without work wait for it.
    arrival: Condvar,
    /// More connections wait than clerks. The starter waits for it.
    shortage: Condvar,
    /// A connection has left the table. The shutdown waits for it.
    departure: Condvar,
}

#[derive(Default)]
struct Table {
    /// Every connection. LIMIT: `Config::max_connections`, and so of all else here.
    places: HashMap<u64, Entry>,
    next_key: u64,
    /// Connections that no clerk has taken yet.
    arrivals: VecDeque<Arrival>,
    /// Clerks without a connection, those that are just being started among them.
    idle_clerks: usize,
    clerks: HashMap<ThreadId, JoinHandle<()>>,
    closing: bool,
}

struct Entry {
    socket: Arc<TcpStream>,
    /// Waiting for a request: nothing is lost if it is closed.
    idle: bool,
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
    pub(super) fn new(config: Config, handler: Box<dyn Handler>) -> Reception {
        Reception {
            config,
            handler,
            room: ThreadRoom::new(),
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

    /// Gives a connection a place, and leaves it for a clerk. Waits for nobody.
    pub(super) fn enter(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let socket = Arc::new(socket);
        let mut table = self.table();
        // ORDER: asked under the lock under which `close` takes the arrivals; behind it nobody would.
        if table.closing {
            return;
        }
        if table.places.len() >= self.config.max_connections() {
            drop(table);
            return self.turn_away(&socket, "Too many connections");
        }
        let key = table.next_key;
        table.next_key += 1;
        table.places.insert(
            key,
            Entry {
                socket: Arc::clone(&socket),
                idle: false,
                thread: None,
            },
        );
        table.arrivals.push_back(Arrival {
            place: Place {
                reception: Arc::clone(self),
                key,
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
                self.config.report.error(format_args!(
                    "no thread for a connection: {error}; answered 503"
                ));
                if let Some(Arrival { socket, .. }) = arrival {
                    self.turn_away(&socket, "No thread is left for this connection");
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
            if let Some(stream) = self.serve(&place, &socket, peer) {
                self.begin(stream, place, &socket, peer);
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
        Connection::new(socket, peer, &self.config, place).serve(&*self.handler)
    }

    /// Gives a stream its thread.
    fn begin(&self, (take, takeover): Stream, place: Place, socket: &TcpStream, peer: SocketAddr) {
        let key = place.key;
        let stream = move || {
            if catch_unwind(AssertUnwindSafe(|| take(takeover))).is_err() {
                place
                    .reception
                    .config
                    .report
                    .error(format_args!("the stream to {peer} panicked; closed"));
            }
            drop(place);
        };
        match self.start_thread("stream", stream) {
            Ok(thread) => {
                if let Some(entry) = self.table().places.get_mut(&key) {
                    entry.thread = Some(thread);
                }
            }
            Err(error) => {
                self.config.report.error(format_args!(
                    "no thread for the stream to {peer}: {error}; answered 503"
                ));
                self.turn_away(socket, "No thread is left for this stream");
            }
        }
    }

    /// Answers 503 without reading the request, and without waiting for anybody: others are
    /// waiting behind it.
    fn turn_away(&self, mut socket: &TcpStream, why: &str) {
        let answer = Response::error(503, why).with("Retry-After", self.config.retry_after());
        let mut bytes = answer.head(&Frame {
            keep_alive: false,
            length: Length::Known(answer.body().len()),
        });
        bytes.extend_from_slice(answer.body());
        // Best effort: a peer to whom even this does not fit, or who has gone, gets nothing. What
        // it has sent already is read, because to close over it would take the answer back.
        let _ = socket.set_nonblocking(true);
        let _ = socket.write(&bytes);
        let _ = socket.shutdown(Shutdown::Write);
        // LIMIT: a few reads, which do not wait; more than a head it has no business to send.
        for _ in 0..16 {
            if !matches!(socket.read(&mut [0; 1024]), Ok(1..)) {
                break;
            }
        }
    }

    /// Begins the shutdown: no new request is waited for, and who waits for one is woken.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closing = true;
        for entry in table.places.values().filter(|entry| entry.idle) {
            // Bytes that have arrived can still be read after this; then comes the end.
            let _ = entry.socket.shutdown(Shutdown::Read);
        }
        self.arrival.notify_all();
        self.shortage.notify_all();
        let unserved = std::mem::take(&mut table.arrivals);
        drop(table);
        drop(unserved);
    }

    /// Ends the shutdown: waits for the grace, closes what is left, joins the threads.
    pub(super) fn wait_for_the_rest(&self) {
        let mut table = self.table();
        let streams: Vec<_> = table
            .places
            .values_mut()
            .filter_map(|entry| entry.thread.take())
            .collect();
        let clerks = std::mem::take(&mut table.clerks);
        drop(table);
        if !self.wait_until_empty(self.config.grace) {
            for entry in self.table().places.values() {
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
}

impl Place {
    fn set_idle(&self, idle: bool) -> bool {
        let mut table = self.reception.table();
        if let Some(entry) = table.places.get_mut(&self.key) {
            entry.idle = idle;
        }
        !table.closing
    }
}

impl Door for Place {
    // ORDER: idle is set and closing read under one lock, and the other way round in `close`, so
    // that a connection either sees the end coming or is woken by it.
    fn may_wait(&self) -> bool {
        self.set_idle(true)
    }

    fn is_busy(&self) {
        self.set_idle(false);
    }

    fn is_closing(&self) -> bool {
        self.reception.is_closing()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reception.table().places.remove(&self.key);
        self.reception.departure.notify_all();
    }
}
