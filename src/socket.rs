//! What a connection asks of its socket beyond std: a write with an end, and a look at the peer.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::config::{LINGER_BYTES, LINGER_SILENCE};

/// Whether an error is what a socket's own timeout looks like; which of the two depends on the system.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Writes all of `bytes`, or fails with `TimedOut` once `timeout` has passed, however the peer
/// dribbles. The socket is blocking, and `timeout` is its write timeout already: the common write
/// costs one system call.
pub(crate) fn write_within(socket: &TcpStream, bytes: &[u8], timeout: Duration) -> io::Result<()> {
    write_both_within(socket, bytes, &[], timeout)
}

/// [`write_within`] for a head and a body that are not joined in memory.
pub(crate) fn write_both_within(
    mut socket: &TcpStream,
    mut head: &[u8],
    mut body: &[u8],
    timeout: Duration,
) -> io::Result<()> {
    let start = Instant::now();
    let mut shortened = false;
    let outcome = loop {
        let written = if body.is_empty() {
            socket.write(head)
        } else {
            socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
        };
        match written {
            Ok(0) => break Err(ErrorKind::WriteZero.into()),
            Ok(count) if count == head.len() + body.len() => break Ok(()),
            Ok(count) => {
                let of_head = count.min(head.len());
                (head, body) = (&head[of_head..], &body[count - of_head..]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => break Err(ErrorKind::TimedOut.into()),
            Err(error) => break Err(error),
        }
        // The kernel starts its timeout anew with each call, so what is left of ours is set.
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            break Err(ErrorKind::TimedOut.into());
        }
        socket.set_write_timeout(Some(left))?;
        shortened = true;
    };
    if shortened {
        socket.set_write_timeout(Some(timeout))?;
    }
    outcome
}

/// Writes the bytes that fit without waiting for the peer. Makes the socket non-blocking.
pub(crate) fn write_at_once(mut socket: &TcpStream, bytes: &[u8]) {
    // Best effort: the peer may have gone, or the send buffer may be full.
    let _ = socket.set_nonblocking(true);
    let _ = socket.write(bytes);
}

/// Whether the peer has closed its side, or the connection is broken. What the peer sent
/// meanwhile is thrown away: after its request a client of a stream has nothing to say, and bytes
/// left unread would hide the end behind them. The socket must not block.
pub(crate) fn has_hung_up(mut socket: &TcpStream) -> bool {
    let mut waste = [0; 512];
    // LIMIT: a peer that sends faster than this reads has no business here.
    for _ in 0..64 {
        match socket.read(&mut waste) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
    true
}

/// Whether the peer has closed its side, or the connection is broken, with nothing taken of what it
/// may have sent ahead: that is a request, and hides an end behind it. The socket blocks, and
/// nobody else is using it.
pub(crate) fn seems_gone(socket: &TcpStream) -> bool {
    if socket.set_nonblocking(true).is_err() {
        return true;
    }
    let seen = socket.peek(&mut [0]);
    let is_gone = match seen {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    };
    is_gone || socket.set_nonblocking(false).is_err()
}

/// Ends a connection whose peer may still be sending: says that we are done, and reads on until the
/// peer has done, too, or is silent for a moment. To close with bytes unread would reset it and take
/// our last answer from the peer (RFC 9112, 9.6).
///
/// LIMIT: `longest`, and a number of bytes.
pub(crate) fn close_gently(socket: &TcpStream, longest: Duration) {
    close_gently_within(socket, || longest);
}

/// [`close_gently`] with a limit that may become shorter meanwhile: it is asked before each read.
///
/// Never inlined, for its buffer: a stream's thread would carry it on its stack for life.
#[inline(never)]
pub(crate) fn close_gently_within(mut socket: &TcpStream, longest: impl Fn() -> Duration) {
    // Best effort, all of it: the connection is over, and the peer may be gone.
    let _ = socket.shutdown(Shutdown::Write);
    if socket.set_read_timeout(Some(LINGER_SILENCE)).is_err() {
        return;
    }
    let (start, mut waste, mut total) = (Instant::now(), [0; 4096], 0);
    while total < LINGER_BYTES && start.elapsed() < longest() {
        match socket.read(&mut waste) {
            Ok(0) | Err(_) => break,
            Ok(count) => total += count,
        }
    }
}
