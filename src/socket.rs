//! Operations on a socket that std does not have: a write with a timeout for all its
//! bytes, checks whether the peer is still connected, and the lingering close. `http/`
//! uses them for requests, and `hub/stream.rs` for streams.
//!
//! std has a timeout for each single system call. A peer that takes one byte before each
//! timeout could keep a thread busy for ever, so the functions here bound the whole
//! operation.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::config::{LINGER_BYTES, LINGER_SILENCE};

/// Whether an error means that the timeout of the socket is over. Unix reports it as
/// `WouldBlock`, Windows as `TimedOut`.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Writes all of `bytes` within `timeout`, even if the peer reads slowly. Blocks until
/// then.
///
/// The socket must be blocking, and `timeout` must already be its write timeout. So the
/// usual write, which succeeds at once, costs one system call.
///
/// # Errors
///
/// `TimedOut` if the time is over, or the error of the socket. Some of the bytes may have
/// been written.
pub(crate) fn write_within(socket: &TcpStream, bytes: &[u8], timeout: Duration) -> io::Result<()> {
    write_both_within(socket, bytes, &[], timeout)
}

/// [`write_within`] for a head and a body that are in two buffers. They are written with
/// one system call if possible.
pub(crate) fn write_both_within(
    mut socket: &TcpStream,
    mut head: &[u8],
    mut body: &[u8],
    timeout: Duration,
) -> io::Result<()> {
    let start = Instant::now();
    let mut is_changed = false;
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
        // The socket's timeout starts again with each call, so it is set to the rest of
        // the time.
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            break Err(ErrorKind::TimedOut.into());
        }
        socket.set_write_timeout(Some(left))?;
        is_changed = true;
    };
    if is_changed {
        socket.set_write_timeout(Some(timeout))?;
    }
    outcome
}

/// Writes as many of the bytes as possible without waiting for the peer. Leaves the
/// socket non-blocking.
pub(crate) fn write_at_once(mut socket: &TcpStream, bytes: &[u8]) {
    // Best effort: the peer may have gone, or the send buffer may be full.
    let _ = socket.set_nonblocking(true);
    let _ = socket.write(bytes);
}

/// Whether the peer of a stream has closed its side, or the connection is broken. The
/// socket must be non-blocking.
///
/// Bytes that the peer has sent are discarded. A client sends nothing after the request
/// of its stream, and the end of the input can only be seen after all bytes before it
/// have been read.
pub(crate) fn has_hung_up(mut socket: &TcpStream) -> bool {
    let mut discarded = [0; 512];
    // LIMIT: 32 KiB. A peer that sends more than that in between counts as disconnected:
    // it is not a client of a stream.
    for _ in 0..64 {
        match socket.read(&mut discarded) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
    true
}

/// Whether the peer of a request has closed its side, or the connection is broken. No
/// bytes are read: they may be the next request. If there are bytes, an end after them
/// cannot be seen, and the result is false.
///
/// The socket must be blocking. No other thread may use it meanwhile, because it is made
/// non-blocking for a moment.
pub(crate) fn seems_disconnected(socket: &TcpStream) -> bool {
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

/// Ends a connection with a lingering close: ends the writing side, and then reads and
/// discards what the peer sends, until the peer has closed its side. Blocks meanwhile.
///
/// SPEC: RFC 9112, 9.6: if a socket is closed while received bytes are unread, the
/// connection is reset, and the peer may lose the last answer.
///
/// LIMIT: `max_time`; one second without any bytes; and 8 MiB.
pub(crate) fn lingering_close(socket: &TcpStream, max_time: Duration) {
    lingering_close_within(socket, || max_time);
}

/// [`lingering_close`] with a time limit that may change meanwhile. `max_time` is called
/// before each read.
///
/// This function is never inlined. If it were, its buffer of 4 KiB would be on the stack
/// of a stream's thread as long as the stream lives.
#[inline(never)]
pub(crate) fn lingering_close_within(mut socket: &TcpStream, max_time: impl Fn() -> Duration) {
    // Best effort, as everything here: the connection ends anyway, and the peer may be
    // gone.
    let _ = socket.shutdown(Shutdown::Write);
    if socket.set_read_timeout(Some(LINGER_SILENCE)).is_err() {
        return;
    }
    let (start, mut discarded, mut total) = (Instant::now(), [0; 4096], 0);
    while total < LINGER_BYTES && start.elapsed() < max_time() {
        match socket.read(&mut discarded) {
            Ok(0) | Err(_) => break,
            Ok(count) => total += count,
        }
    }
}
