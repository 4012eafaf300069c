//! How connections come to be and how they end: one thread accepts, one starts a thread for each
//! connection, and a table knows them all.
//!
//! `accept` fails in ordinary life: the peer has given up, or the machine has no descriptor left.
//! None of that ends the loop. Starting threads is a thread of its own because it is slow compared
//! with accepting, and a queue of connections that nobody accepts is answered by the kernel with
//! one-second waits.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::connection::{Connection, Door};
use super::response::{Frame, Length};
use super::{Request, Response};
use crate::config::{ACCEPT_PAUSE, Config, LAST_WAIT};

/// A listening socket, not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    config: Config,
}

impl Server {
    /// Listens on `address`. Port 0 is any free one: see [`local_addr`](Self::local_addr).
    ///
    /// # Errors
    ///
    /// The address is in use or not this machine's, the port is not permitted, or the
    /// configuration contradicts itself ([`Config::check`]).
    pub fn bind(address: impl ToSocketAddrs, config: Config) -> io::Result<Server> {
        Server::from_listener(TcpListener::bind(address)?, config)
    }

    /// Serves a listener that was made elsewhere.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself ([`Config::check`]).
    pub fn from_listener(listener: TcpListener, config: Config) -> io::Result<Server> {
        config
            .check()
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        Ok(Server { listener, config })
    }

    /// The address that is listened on, with its real port.
    ///
    /// # Errors
    ///
    /// The system will not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves from now on, in threads of its own. Does not block.
    ///
    /// # Errors
    ///
    /// The two threads that accept cannot be had.
    pub fn spawn(
        self,
        handler: impl Fn(Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<Handle> {
        let local_addr = self.listener.local_addr()?;
        let waker = Waker::new(&self.listener)?;
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            config: self.config,
            table: Mutex::default(),
            one_came: Condvar::new(),
            one_left: Condvar::new(),
        });
        let (for_starter, for_acceptor) = (Arc::clone(&shared), Arc::clone(&shared));
        let listener = self.listener;
        let starter = thread::Builder::new()
            .name("start".into())
            .spawn(move || for_starter.start())?;
        let acceptor = thread::Builder::new()
            .name("accept".into())
            .spawn(move || for_acceptor.accept_patiently(&listener))
            .inspect_err(|_| shared.close_idle())?;
        Ok(Handle {
            shared,
            local_addr,
            waker,
            threads: Some([acceptor, starter]),
        })
    }
}

/// A server that runs. Dropping it shuts the server down.
#[derive(Debug)]
#[must_use = "dropping the handle shuts the server down"]
pub struct Handle {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    waker: Waker,
    threads: Option<[JoinHandle<()>; 2]>,
}

impl Handle {
    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections of any kind that are open now.
    pub fn connections(&self) -> usize {
        self.shared.table().entries.len()
    }

    /// Stops accepting, lets requests in flight finish for up to `Config::grace`, then closes what
    /// is left, and joins the threads. Streams end by whoever writes them, or with the rest.
    ///
    /// Blocks for the grace and half a second at the most. A handler that does not return even
    /// then is left behind, and reported.
    pub fn shutdown(mut self) {
        self.close();
    }

    fn close(&mut self) {
        let Some(threads) = self.threads.take() else {
            return;
        };
        self.shared.close_idle();
        self.waker.wake(self.local_addr);
        for thread in threads {
            // Both loops end when the table says closing; a panic in them has been reported by std.
            let _ = thread.join();
        }
        self.shared.wait_for_the_rest();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the threads of a server share.
struct Shared {
    handler: Box<dyn Fn(Request) -> Response + Send + Sync>,
    config: Config,
    /// LOCK: guards who is connected. Held to look up, insert and remove; no I/O waits under it
    /// (`shutdown` on a socket returns at once).
    table: Mutex<Table>,
    /// Told when a connection is to get its thread, or there will be no more.
    one_came: Condvar,
    /// Told whenever a connection leaves the table.
    one_left: Condvar,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    /// Connections that have a place and no thread yet.
    arrivals: VecDeque<Arrival>,
    next_key: u64,
    closing: bool,
}

struct Entry {
    socket: Arc<TcpStream>,
    /// Waiting for a request: nothing is lost if it is closed.
    idle: bool,
    /// To be joined at the end. A connection that ends before takes it out, which detaches it.
    thread: Option<JoinHandle<()>>,
}

/// A connection on its way from `accept` to its thread. Not to be dropped under the lock: its place
/// locks the table to leave it.
struct Arrival {
    place: Place,
    socket: Arc<TcpStream>,
    peer: SocketAddr,
}

impl Shared {
    /// A panic under this lock is impossible short of a bug in std: nothing foreign runs under it.
    /// Should one come, the table is still a table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accept loop. Only a shutdown ends it.
    fn accept_patiently(self: &Arc<Self>, listener: &TcpListener) {
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = listener.accept();
            if self.table().closing {
                return;
            }
            match accepted {
                Ok((socket, peer)) => {
                    pause = ACCEPT_PAUSE.0;
                    self.enter(Arc::new(socket), peer);
                }
                // The peer gave up while it waited, or a signal came: nothing to wait for.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    self.config.report.error(format_args!(
                        "cannot accept a connection: {error}; trying again in {pause:?}"
                    ));
                    thread::sleep(pause);
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
    }

    /// Gives a connection a place in the table, and leaves it for the starter. LIMIT: connections
    /// of any kind.
    fn enter(self: &Arc<Self>, socket: Arc<TcpStream>, peer: SocketAddr) {
        let mut table = self.table();
        if table.entries.len() >= self.config.max_connections() {
            drop(table);
            return self.turn_away(&socket, "Too many connections");
        }
        let key = table.next_key;
        table.next_key += 1;
        table.entries.insert(
            key,
            Entry {
                socket: Arc::clone(&socket),
                idle: false,
                thread: None,
            },
        );
        table.arrivals.push_back(Arrival {
            place: Place {
                shared: Arc::clone(self),
                key,
            },
            socket,
            peer,
        });
        drop(table);
        self.one_came.notify_one();
    }

    /// The starter: gives each arrival its thread.
    fn start(&self) {
        while let Some(Arrival {
            place,
            socket,
            peer,
        }) = self.next_arrival()
        {
            let (key, for_refusal) = (place.key, Arc::clone(&socket));
            let thread = thread::Builder::new()
                .name("connection".into())
                .stack_size(self.config.stack_bytes)
                .spawn(move || place.live(&socket, peer));
            match thread {
                Ok(thread) => {
                    if let Some(entry) = self.table().entries.get_mut(&key) {
                        entry.thread = Some(thread);
                    }
                }
                Err(error) => {
                    self.config
                        .report
                        .error(format_args!("no thread for {peer}: {error}; answered 503"));
                    self.turn_away(&for_refusal, "No thread is left for this connection");
                }
            }
        }
    }

    /// Waits for a connection that has no thread. `None`: there will be no more.
    fn next_arrival(&self) -> Option<Arrival> {
        let idle = |table: &mut Table| table.arrivals.is_empty() && !table.closing;
        let table = self.one_came.wait_while(self.table(), idle);
        table
            .unwrap_or_else(PoisonError::into_inner)
            .arrivals
            .pop_front()
    }

    /// Answers 503 without reading the request, and without waiting for anybody: this runs where
    /// others are waiting to be let in.
    fn turn_away(&self, socket: &TcpStream, why: &str) {
        let retry_after = self.config.retry.as_secs().max(1).to_string();
        let answer = Response::error(503, why).with("Retry-After", retry_after);
        let mut bytes = answer.head(&Frame {
            keep_alive: false,
            length: Length::Known(answer.body().len()),
        });
        bytes.extend_from_slice(answer.body());
        // Best effort: a peer to whom even this does not fit, or who has gone, gets nothing. What
        // it has sent already is read, because to close over it would take the answer back.
        let _ = socket.set_nonblocking(true);
        let _ = (&*socket).write(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let _ = (&*socket).read(&mut [0; 4096]);
    }

    /// Begins the shutdown: no new request is waited for, and who waits for one is woken.
    fn close_idle(&self) {
        let mut table = self.table();
        table.closing = true;
        self.one_came.notify_one();
        for entry in table.entries.values().filter(|entry| entry.idle) {
            // Bytes that have arrived can still be read after this; then comes the end.
            let _ = entry.socket.shutdown(std::net::Shutdown::Read);
        }
    }

    /// Ends the shutdown: waits for the grace, closes what is left, joins the threads.
    fn wait_for_the_rest(&self) {
        let threads: Vec<_> = self
            .table()
            .entries
            .values_mut()
            .filter_map(|entry| entry.thread.take())
            .collect();
        if !self.wait_until_empty(self.config.grace) {
            for entry in self.table().entries.values() {
                let _ = entry.socket.shutdown(std::net::Shutdown::Both);
            }
            if !self.wait_until_empty(LAST_WAIT) {
                let left = self.table().entries.len();
                return self.config.report.error(format_args!(
                    "{left} connections are still busy in their handlers; left behind"
                ));
            }
        }
        for thread in threads {
            // It has left the table, so it is at its end; a panic has been caught and reported.
            let _ = thread.join();
        }
    }

    fn wait_until_empty(&self, limit: Duration) -> bool {
        let table = self.table();
        let waited = self
            .one_left
            .wait_timeout_while(table, limit, |table| !table.entries.is_empty());
        let (table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.entries.is_empty()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A connection's place in the table; dropped, it is free again, also when its thread panicked or
/// never came to be.
struct Place {
    shared: Arc<Shared>,
    key: u64,
}

impl Place {
    /// All that a connection's thread does.
    fn live(self, socket: &Arc<TcpStream>, peer: SocketAddr) {
        let config = &self.shared.config;
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| socket.set_write_timeout(Some(config.write_timeout)));
        if prepared.is_err() {
            return; // The peer has gone already: there is no other way for these to fail.
        }
        // The stream runs here, and not inside `serve`, so that the buffers of the connection are gone.
        let stream = Connection::new(socket, peer, config, &self).serve(&*self.shared.handler);
        let Some((take, takeover)) = stream else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| take(takeover))).is_err() {
            config
                .report
                .error(format_args!("the stream to {peer} panicked; closed"));
        }
    }

    fn set_idle(&self, idle: bool) -> bool {
        let mut table = self.shared.table();
        if let Some(entry) = table.entries.get_mut(&self.key) {
            entry.idle = idle;
        }
        !table.closing
    }
}

impl Door for Place {
    // ORDER: idle is set and closing read under one lock, and the other way round in `close_idle`,
    // so that a connection either sees the end coming or is woken by it.
    fn may_wait(&self) -> bool {
        self.set_idle(true)
    }

    fn is_busy(&self) {
        self.set_idle(false);
    }

    fn is_closing(&self) -> bool {
        self.shared.table().closing
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.table().entries.remove(&self.key);
        self.shared.one_left.notify_all();
    }
}

/// Ends a blocking `accept`, for which std has no word.
#[derive(Debug)]
struct Waker {
    #[cfg(unix)]
    listener: TcpStream,
}

impl Waker {
    #[cfg(unix)]
    fn new(listener: &TcpListener) -> io::Result<Waker> {
        // The type only says which calls are allowed: of a TcpStream one may ask `shutdown`,
        // and Linux answers it on a listening socket by waking whoever waits in `accept`.
        let descriptor = std::os::fd::OwnedFd::from(listener.try_clone()?);
        Ok(Waker {
            listener: descriptor.into(),
        })
    }

    #[cfg(not(unix))]
    fn new(_: &TcpListener) -> io::Result<Waker> {
        Ok(Waker {})
    }

    #[cfg(unix)]
    fn wake(&self, address: SocketAddr) {
        if self.listener.shutdown(std::net::Shutdown::Both).is_err() {
            knock(address);
        }
    }

    #[cfg(not(unix))]
    fn wake(&self, address: SocketAddr) {
        knock(address);
    }
}

/// Elsewhere a connection of our own wakes it.
fn knock(mut address: SocketAddr) {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    // Best effort: if it is refused there is no listener to wake.
    drop(TcpStream::connect_timeout(&address, LAST_WAIT));
}
