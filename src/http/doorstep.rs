//! Keeps rejected and evicted connections open until their clients have read the answer.
//!
//! Their request may still be on its way, and to close a socket on bytes that are unread resets it
//! and takes the answer back (RFC 9112, 9.6). They have no place and are to cost no thread, so one
//! thread reads what they send: all of them in turn, without waiting for any. std cannot wait for
//! many sockets at once, so it looks again after a moment, and sleeps while nobody is there.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use crate::config::{DOORSTEP_PAUSE, LINGER, LINGER_BYTES, LINGER_SILENCE};

/// The side of those who turn away.
#[derive(Debug)]
pub(super) struct Doorstep {
    /// `None` is the last message.
    visitors: Sender<Option<Visitor>>,
    /// How many visitors there are. LIMIT: `most`.
    count: Arc<AtomicUsize>,
    most: usize,
}

/// The side of the thread that watches over them.
#[derive(Debug)]
pub(super) struct Watch(Receiver<Option<Visitor>>);

#[derive(Debug)]
struct Visitor {
    socket: Arc<TcpStream>,
    since: Instant,
    /// When bytes last arrived on it, or when it was handed over.
    heard: Instant,
    bytes: usize,
    /// It was evicted by a `shutdown` of its reading side. The peer's end cannot be seen then: a read
    /// returns an end whenever there are no bytes.
    is_evicted: bool,
    _counted: Counted,
}

/// Dropped, there is one visitor less.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        // ORDER: Relaxed, here and below: a number that nothing else hangs on.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Doorstep {
    /// A doorstep for at most so many connections.
    pub(super) fn new(most: usize) -> (Doorstep, Watch) {
        let (visitors, watched) = channel();
        let doorstep = Doorstep {
            visitors,
            count: Arc::default(),
            most,
        };
        (doorstep, Watch(watched))
    }

    /// Keeps a non-blocking socket on which the whole answer has been written. If `most` are kept already, and
    /// at a shutdown, it is closed at once.
    pub(super) fn keep(&self, socket: Arc<TcpStream>) {
        self.admit(socket, false);
    }

    /// [`keep`](Self::keep) for a connection that was evicted: the reading side of its socket is shut
    /// down already.
    ///
    /// Its writing side is not: Linux resets a connection to which bytes come after both sides were shut
    /// down. The answer says how long it is and that it is the last.
    pub(super) fn keep_evicted(&self, socket: Arc<TcpStream>) {
        self.admit(socket, true);
    }

    fn admit(&self, socket: Arc<TcpStream>, is_evicted: bool) {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.count));
        if before >= self.most {
            return;
        }
        let now = Instant::now();
        // Refused only if the watch is over.
        let _ = self.visitors.send(Some(Visitor {
            socket,
            since: now,
            heard: now,
            bytes: 0,
            is_evicted,
            _counted: counted,
        }));
    }

    /// Ends the watch. Who is there is let go.
    pub(super) fn close(&self) {
        let _ = self.visitors.send(None);
    }
}

impl Watch {
    /// Watches until the doorstep is closed.
    pub(super) fn run(self) {
        let mut visitors = Vec::new();
        while let Ok(Some(visitor)) = self.0.recv() {
            visitors.push(visitor);
            while !visitors.is_empty() {
                let now = Instant::now();
                visitors.retain_mut(|visitor| visitor.stays(now));
                if !self.pause(&mut visitors) {
                    return;
                }
            }
        }
    }

    /// Lets visitors in for a moment. False: the watch is over.
    fn pause(&self, visitors: &mut Vec<Visitor>) -> bool {
        let end = Instant::now() + DOORSTEP_PAUSE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok(Some(visitor)) => visitors.push(visitor),
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

impl Visitor {
    /// Reads what has come. False: that was all, or enough.
    fn stays(&mut self, now: Instant) -> bool {
        let mut waste = [0; 4096];
        // LIMIT: a few reads, which do not wait: others are to have their turn.
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
    use crate::config::DOORSTEP;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};
    use std::thread;

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
        let (doorstep, watch) = Doorstep::new(DOORSTEP);
        let ((inside, _), (outside, mut peer)) = (pair(), pair());
        for _ in 0..DOORSTEP {
            doorstep.keep(Arc::clone(&inside));
        }
        doorstep.keep(outside);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it was kept");
        // All of them are gone with the watch, and there is room again; but nobody to keep it.
        doorstep.close();
        watch.run();
        assert_eq!(doorstep.count.load(Ordering::Relaxed), 0);
        let (outside, mut peer) = pair();
        doorstep.keep(outside);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it was kept");
        assert_eq!(doorstep.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_evicted_connection_is_read_on_and_closed_after_a_moment_of_silence() {
        let (doorstep, watch) = Doorstep::new(DOORSTEP);
        let watcher = thread::spawn(move || watch.run());
        let (evicted, mut peer) = pair();
        evicted.shutdown(Shutdown::Read).unwrap();
        (&*evicted).write_all(b"bye").unwrap();
        let start = Instant::now();
        doorstep.keep_evicted(evicted);
        let mut answer = [0; 3];
        peer.read_exact(&mut answer).unwrap();
        // A peer that still sends is not answered by a reset.
        peer.write_all(&[b'x'; 100_000]).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "more than the answer");
        assert!(start.elapsed() >= LINGER_SILENCE, "it was not waited for");
        doorstep.close();
        watcher.join().unwrap();
    }

    #[test]
    fn who_has_gone_and_who_has_been_there_long_enough_is_let_go() {
        let (doorstep, watch) = Doorstep::new(DOORSTEP);
        let watcher = thread::spawn(move || watch.run());
        let ((gone, peer_gone), (stays, mut peer)) = (pair(), pair());
        let start = Instant::now();
        doorstep.keep(stays);
        doorstep.keep(gone);
        drop(peer_gone);
        while doorstep.count.load(Ordering::Relaxed) > 1 {
            assert!(start.elapsed() < 20 * LINGER, "who has gone is still there");
            thread::yield_now();
        }
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        assert!(start.elapsed() >= LINGER, "it was not waited for");
        doorstep.close();
        watcher.join().unwrap();
    }
}
