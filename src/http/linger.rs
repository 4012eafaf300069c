//! Keeps rejected and evicted connections open until their clients have read the answer.
//!
//! Their request may still be on its way, and closing a socket with unread bytes resets the connection,
//! which takes the answer back (RFC 9112, 9.6). These connections have no place and cost no thread each:
//! one thread reads what all of them send, in turn and without waiting for any. std cannot wait for many
//! sockets at once, so it looks again after a moment. There is no such thread while no connection lingers.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::config::{LINGER, LINGER_BYTES, LINGER_PAUSE, LINGER_SILENCE};

/// The connections that are kept open.
#[derive(Debug)]
pub(super) struct Lingering {
    /// LIMIT: how many connections are kept.
    most: usize,
    /// LOCK: guards a list. No socket is read under it.
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    /// Connections that the thread has not taken yet.
    new: Vec<Closing>,
    /// All that are kept. While there are any, there is a thread for them.
    count: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Closing {
    socket: Arc<TcpStream>,
    since: Instant,
    /// When bytes last arrived on it, or when it was handed over.
    heard: Instant,
    bytes: usize,
    /// It was evicted by a `shutdown` of its reading side. The peer's end cannot be seen then: a read
    /// returns an end whenever there are no bytes.
    is_evicted: bool,
}

impl Lingering {
    /// Room for at most so many connections.
    pub(super) fn new(most: usize) -> Lingering {
        Lingering {
            most,
            list: Mutex::default(),
        }
    }

    /// A panic under this lock would be one of a `Vec`.
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a non-blocking socket on which the whole answer has been written. If `most` are kept already, and
    /// after [`close`](Self::close), it is closed at once. Returns whether the caller must
    /// call [`watch`](Self::watch) on a thread of its own.
    ///
    /// The reading side of an evicted connection is shut down already, and its writing side is not: Linux
    /// resets a connection to which bytes come after both sides were shut down. The answer says how long it
    /// is and that it is the last.
    #[must_use = "the connection is kept until `watch` looks at it"]
    pub(super) fn keep(&self, socket: Arc<TcpStream>, is_evicted: bool) -> bool {
        let mut list = self.list();
        if list.is_closed || list.count >= self.most {
            return false;
        }
        list.count += 1;
        let now = Instant::now();
        list.new.push(Closing {
            socket,
            since: now,
            heard: now,
            bytes: 0,
            is_evicted,
        });
        list.count == 1
    }

    /// Watches the connections until none is left.
    pub(super) fn watch(&self) {
        let mut connections = Vec::new();
        loop {
            let mut list = self.list();
            connections.append(&mut list.new);
            if list.is_closed {
                connections.clear();
            }
            list.count = connections.len();
            if connections.is_empty() {
                return;
            }
            drop(list);
            let now = Instant::now();
            connections.retain_mut(|connection| connection.stays(now));
            // Cut short by a shutdown.
            thread::park_timeout(LINGER_PAUSE);
        }
    }

    /// Closes all that no thread watches, because none could be started.
    pub(super) fn give_up(&self) {
        let mut list = self.list();
        list.new.clear();
        list.count = 0;
    }

    /// Keeps no connection any more. The thread closes those that it has when it looks again.
    pub(super) fn close(&self) {
        self.list().is_closed = true;
    }
}

impl Closing {
    /// Reads what has come. False: that was all, or enough.
    fn stays(&mut self, now: Instant) -> bool {
        let mut waste = [0; 4096];
        // LIMIT: a few reads, which do not wait, because the other connections are to have their turn.
        for _ in 0..16 {
            if now.saturating_duration_since(self.since) > LINGER || self.bytes > LINGER_BYTES {
                return false;
            }
            match (&*self.socket).read(&mut waste) {
                Ok(0) if self.is_evicted => {
                    return now.saturating_duration_since(self.heard) < LINGER_SILENCE;
                }
                Ok(0) => return false,
                Ok(count) => {
                    self.bytes += count;
                    self.heard = now;
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
    fn there_is_room_for_so_many_and_no_more() {
        let lingering = Lingering::new(MAX_LINGERING);
        let ((inside, _peer), (outside, mut peer)) = (pair(), pair());
        for number in 0..MAX_LINGERING {
            let is_first = lingering.keep(Arc::clone(&inside), false);
            assert_eq!(is_first, number == 0, "one thread watches all of them");
        }
        assert!(!lingering.keep(outside, false));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it was kept");
        // At a shutdown all are closed, and no other is kept.
        lingering.close();
        lingering.watch();
        assert_eq!((Arc::strong_count(&inside), lingering.list().count), (1, 0));
        let (outside, mut peer) = pair();
        assert!(!lingering.keep(outside, false));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it was kept");
    }

    #[test]
    fn without_a_thread_all_are_closed_at_once_and_the_next_one_asks_for_a_thread() {
        let lingering = Lingering::new(MAX_LINGERING);
        let (one, mut peer) = pair();
        assert!(lingering.keep(one, false));
        lingering.give_up();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it was kept");
        let (other, _peer) = pair();
        assert!(lingering.keep(other, false));
    }

    #[test]
    fn an_evicted_connection_is_read_on_and_closed_after_a_moment_of_silence() {
        let lingering = Lingering::new(MAX_LINGERING);
        let (evicted, mut peer) = pair();
        evicted.shutdown(Shutdown::Read).unwrap();
        (&*evicted).write_all(b"bye").unwrap();
        let start = Instant::now();
        assert!(lingering.keep(evicted, true));
        thread::scope(|scope| {
            scope.spawn(|| lingering.watch());
            let mut answer = [0; 3];
            peer.read_exact(&mut answer).unwrap();
            // A peer that still sends is not answered by a reset.
            peer.write_all(&[b'x'; 100_000]).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "more than the answer");
            assert!(start.elapsed() >= LINGER_SILENCE, "it was not waited for");
        });
    }

    #[test]
    fn a_connection_whose_client_has_gone_or_that_has_lingered_long_enough_is_closed() {
        let lingering = Lingering::new(MAX_LINGERING);
        let ((gone, peer_gone), (stays, mut peer)) = (pair(), pair());
        let start = Instant::now();
        assert!(lingering.keep(stays, false));
        assert!(!lingering.keep(gone, false));
        thread::scope(|scope| {
            scope.spawn(|| lingering.watch());
            drop(peer_gone);
            while lingering.list().count > 1 {
                assert!(start.elapsed() < 20 * LINGER, "it is still there");
                thread::yield_now();
            }
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            assert!(start.elapsed() >= LINGER, "it was not waited for");
        });
        assert_eq!(lingering.list().count, 0);
    }
}
