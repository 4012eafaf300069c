//! The lingering close: keeps rejected and evicted connections open for a moment after
//! their answer, so that their clients receive it.
//!
//! SPEC: RFC 9112, 9.6: the request of such a client may still be arriving. If a server
//! closes a socket while received bytes are unread, TCP resets the connection, and the
//! reset may destroy the answer before the client has read it. So a server first ends its
//! writing side, then reads and discards what the client still sends, and then closes.
//!
//! These connections have no slot and no thread of their own. One thread named `linger`
//! reads from all of them in turn, without waiting for any of them. std cannot wait for
//! many sockets at once, so the thread sleeps for [`LINGER_PAUSE`] (10 ms) between two
//! rounds. The thread is started for the first connection and ends after the last one.
//!
//! `Connections::linger` adds connections, on the thread `accept` or on a worker. A
//! connection that ends after an ordinary last answer does not come here: its own thread
//! reads on (`socket::lingering_close_within`).

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::config::{LINGER, LINGER_BYTES, LINGER_PAUSE, LINGER_SILENCE};

/// The connections that linger.
#[derive(Debug)]
pub(super) struct Lingering {
    /// LIMIT: how many connections linger at the same time, 256 by default; fewer if
    /// descriptors are few.
    max_connections: usize,
    /// LOCK: guards the list of new connections and their count. No socket is read while
    /// it is held.
    list: Mutex<LingerList>,
}

#[derive(Debug, Default)]
struct LingerList {
    /// Connections that were added and that the thread `linger` has not taken yet.
    new: Vec<LingeringConnection>,
    /// The number of all connections that linger: those in `new`, and those that the
    /// thread has taken. While it is more than 0, there is a thread, or the caller of
    /// [`Lingering::add`] is about to start it.
    count: usize,
    /// The server is shutting down, and no connection is added any more.
    is_closed: bool,
}

#[derive(Debug)]
struct LingeringConnection {
    /// A non-blocking socket. Dropping the value closes the connection, unless a worker
    /// still has the socket, too.
    socket: Arc<TcpStream>,
    /// When the connection was added. LIMIT: it lingers for at most [`LINGER`] (10 s)
    /// after that.
    since: Instant,
    /// When bytes last arrived; at first, when the connection was added.
    last_read: Instant,
    /// How many bytes were discarded. LIMIT: [`LINGER_BYTES`] (8 MiB) and the reads of
    /// one round.
    bytes: usize,
    /// The reading side was shut down for the eviction. After that a read returns 0
    /// whenever there are no bytes, so it cannot be seen whether the peer has closed.
    /// Such a connection is closed after [`LINGER_SILENCE`] (1 s).
    is_evicted: bool,
}

impl Lingering {
    /// At most `max_connections` connections can linger at the same time.
    pub(super) fn new(max_connections: usize) -> Lingering {
        Lingering {
            max_connections,
            list: Mutex::default(),
        }
    }

    /// Locks the list. Only methods of a `Vec` run under the lock, so a poisoned lock is
    /// ignored.
    fn list(&self) -> MutexGuard<'_, LingerList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection that has been answered. Its socket must be non-blocking. If
    /// `max_connections` linger already, or after [`close`](Self::close), the connection
    /// is closed at once instead.
    ///
    /// Returns true if there is no thread `linger`. Then the caller must call
    /// [`run`](Self::run) on a new thread, or
    /// [`close_without_thread`](Self::close_without_thread).
    ///
    /// For an evicted connection the caller has shut down the reading side and must not
    /// shut down the writing side: Linux resets a connection that receives bytes after
    /// both sides were shut down. The client finds the end of the answer by its
    /// `Content-Length`, and the end of the connection by `Connection: close`.
    #[must_use = "the connection lingers until `run` closes it"]
    pub(super) fn add(&self, socket: Arc<TcpStream>, is_evicted: bool) -> bool {
        let mut list = self.list();
        if list.is_closed || list.count >= self.max_connections {
            return false;
        }
        list.count += 1;
        let now = Instant::now();
        list.new.push(LingeringConnection {
            socket,
            since: now,
            last_read: now,
            bytes: 0,
            is_evicted,
        });
        list.count == 1
    }

    /// The whole life of the thread `linger`: reads from all connections in rounds, and
    /// returns when none is left.
    pub(super) fn run(&self) {
        let mut connections = Vec::new();
        loop {
            let mut list = self.list();
            connections.append(&mut list.new);
            if list.is_closed {
                connections.clear();
            }
            list.count = connections.len();
            // ORDER: the count becomes 0 under the same lock under which `add` reads it.
            // So a connection that is added later gets a new thread.
            if connections.is_empty() {
                return;
            }
            drop(list);
            let now = Instant::now();
            connections.retain_mut(|connection| connection.read_available(now));
            // A shutdown ends the pause early, with `unpark`.
            thread::park_timeout(LINGER_PAUSE);
        }
    }

    /// Closes the connections that were added, because the thread for them could not be
    /// started.
    pub(super) fn close_without_thread(&self) {
        let mut list = self.list();
        list.new.clear();
        list.count = 0;
    }

    /// Begins the shutdown: connections that are added later are closed at once. The
    /// thread closes the connections that it has in its next round.
    pub(super) fn close(&self) {
        self.list().is_closed = true;
    }
}

impl LingeringConnection {
    /// Reads and discards what has arrived, without waiting for more. Returns whether the
    /// connection goes on lingering. False: the peer has closed, the connection is
    /// broken, or one of its limits is reached.
    fn read_available(&mut self, now: Instant) -> bool {
        let mut discarded = [0; 4096];
        // LIMIT: 16 reads of 4 KiB in each round, so that a fast sender does not delay
        // the other connections.
        for _ in 0..16 {
            if now.saturating_duration_since(self.since) > LINGER || self.bytes > LINGER_BYTES {
                return false;
            }
            match (&*self.socket).read(&mut discarded) {
                Ok(0) if self.is_evicted => {
                    return now.saturating_duration_since(self.last_read) < LINGER_SILENCE;
                }
                Ok(0) => return false,
                Ok(count) => {
                    self.bytes += count;
                    self.last_read = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_LINGERING;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};

    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(20 * LINGER)).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Arc::new(socket), peer)
    }

    #[test]
    fn no_more_connections_than_the_limit_linger() {
        let lingering = Lingering::new(MAX_LINGERING);
        let ((inside, _peer), (outside, mut peer)) = (pair(), pair());
        for number in 0..MAX_LINGERING {
            let is_first = lingering.add(Arc::clone(&inside), false);
            assert_eq!(is_first, number == 0, "one thread reads from all of them");
        }
        assert!(!lingering.add(outside, false));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the connection lingers");
        // A shutdown closes all connections, and no other is added.
        lingering.close();
        lingering.run();
        assert_eq!((Arc::strong_count(&inside), lingering.list().count), (1, 0));
        let (outside, mut peer) = pair();
        assert!(!lingering.add(outside, false));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the connection lingers");
    }

    #[test]
    fn without_a_thread_all_connections_are_closed_and_the_next_one_asks_for_a_thread() {
        let lingering = Lingering::new(MAX_LINGERING);
        let (one, mut peer) = pair();
        assert!(lingering.add(one, false));
        lingering.close_without_thread();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the connection lingers");
        let (other, _peer) = pair();
        assert!(lingering.add(other, false));
    }

    #[test]
    fn an_evicted_connection_is_closed_when_its_peer_has_been_silent_for_a_moment() {
        let lingering = Lingering::new(MAX_LINGERING);
        let (evicted, mut peer) = pair();
        evicted.shutdown(Shutdown::Read).unwrap();
        (&*evicted).write_all(b"bye").unwrap();
        let start = Instant::now();
        assert!(lingering.add(evicted, true));
        thread::scope(|scope| {
            scope.spawn(|| lingering.run());
            let mut answer = [0; 3];
            peer.read_exact(&mut answer).unwrap();
            // The connection of a peer that still sends is not reset.
            peer.write_all(&[b'x'; 100_000]).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "more than the answer");
            assert!(start.elapsed() >= LINGER_SILENCE, "closed too early");
        });
    }

    #[test]
    fn a_connection_is_closed_when_its_client_has_gone_or_its_time_is_over() {
        let lingering = Lingering::new(MAX_LINGERING);
        let ((gone, peer_gone), (stays, mut peer)) = (pair(), pair());
        let start = Instant::now();
        assert!(lingering.add(stays, false));
        assert!(!lingering.add(gone, false));
        thread::scope(|scope| {
            scope.spawn(|| lingering.run());
            drop(peer_gone);
            while lingering.list().count > 1 {
                assert!(
                    start.elapsed() < 20 * LINGER,
                    "the connection is still open"
                );
                thread::yield_now();
            }
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            assert!(start.elapsed() >= LINGER, "closed too early");
        });
        assert_eq!(lingering.list().count, 0);
    }
}
