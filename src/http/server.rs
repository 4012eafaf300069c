//! The accept loop, and the shutdown of a server.
//!
//! The thread `accept` passes each accepted socket to `Connections::admit`. `accept`
//! fails in normal operation: a peer gives up while it waits, or the process has no
//! descriptor left. No such error ends the loop. An error that may last is logged, and
//! the loop pauses for 10 ms, then 20 ms, and so on up to 1 s ([`ACCEPT_PAUSE`]).
//!
//! A shutdown must make `accept` return, and std has no call for that.
//! [`HttpServer::stop_accepting`] shows the two ways that are used.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Handler;
use super::connections::Connections;
use crate::config::{ACCEPT_PAUSE, Config, SHUTDOWN_WAIT, WAKE_ATTEMPTS, WAKE_PAUSE};
use crate::machine::Reserves;

/// Which processes may have a descriptor of the listening socket. It decides how a
/// shutdown ends the accept loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holders {
    /// This server made the socket, and no other process has it, so a shutdown may shut
    /// down the socket itself.
    ThisServer,
    /// The socket was made elsewhere, and other processes may have it, too: the service
    /// manager, or the next version of the program. On Linux `shutdown(2)` would end the
    /// listening for all of them.
    MaybeOthers,
}

/// The whole life of the thread `accept`: blocks in `accept`, and admits each connection.
/// Returns when `accept` returns after the shutdown has begun. A connection that was
/// accepted then is dropped.
fn accept_loop(listener: &TcpListener, connections: &Arc<Connections>) {
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = listener.accept();
        if connections.is_closing() {
            return;
        }
        match accepted {
            Ok((socket, peer)) => {
                pause = ACCEPT_PAUSE.0;
                connections.admit(socket, peer);
            }
            // The peer closed the connection before it was accepted, or a signal
            // interrupted the call. The next call can succeed at once, so there is no
            // pause.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                if error.kind() == ErrorKind::WouldBlock {
                    // Another process has made the shared socket non-blocking. Best
                    // effort: if this fails, the next `accept` fails in the same way, and
                    // it is tried again.
                    let _ = listener.set_nonblocking(false);
                }
                let report = &connections.config.report;
                report.error(format_args!(
                    "cannot accept a connection: {error}; trying again in {pause:?}"
                ));
                // A shutdown ends the pause early, with `unpark`.
                thread::park_timeout(pause);
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

/// A running server. Dropping it shuts the server down, which blocks.
#[derive(Debug)]
#[must_use = "dropping it shuts the server down"]
pub(crate) struct HttpServer {
    /// The connections and their threads.
    connections: Arc<Connections>,
    /// The address of the listener. A shutdown connects to it.
    local_addr: SocketAddr,
    /// The means to end the accept loop, and its thread. `None` once the server is shut
    /// down.
    running: Option<(Waker, JoinHandle<()>)>,
}

impl HttpServer {
    /// Serves a listener from now on, in new threads. `reserves` is how many rejected and
    /// evicted connections the machine has room for. Does not block.
    ///
    /// # Errors
    ///
    /// The thread that accepts connections cannot be started, or the system refuses to
    /// make the listener blocking.
    pub(crate) fn spawn(
        listener: TcpListener,
        holders: Holders,
        config: Config,
        reserves: Reserves,
        handler: Box<dyn Handler>,
    ) -> io::Result<HttpServer> {
        // On a non-blocking listener `accept` fails when no connection waits, and the
        // loop would pause after each.
        listener.set_nonblocking(false)?;
        let local_addr = listener.local_addr()?;
        let waker = Waker::new(&listener, holders)?;
        let connections = Arc::new(Connections::new(config, reserves, handler));
        let accepting = Arc::clone(&connections);
        let acceptor = thread::Builder::new()
            .name("accept".into())
            .spawn(move || accept_loop(&listener, &accepting))?;
        Ok(HttpServer {
            connections,
            local_addr,
            running: Some((waker, acceptor)),
        })
    }

    /// The address of the listener.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Begins the shutdown and does not block: no connection is admitted any more, idle
    /// connections are closed, and the answer to each request in flight is the last one
    /// of its connection.
    pub(crate) fn begin_shutdown(&self) {
        self.connections.begin_shutdown();
    }

    /// Shuts the server down: stops accepting, waits for the requests in flight and for
    /// the streams for at most `Config::grace`, closes the sockets of the connections
    /// that are left, and joins the threads. The hub ends its streams when it is closed;
    /// this function does not.
    ///
    /// Blocks for at most the grace and half a second ([`SHUTDOWN_WAIT`]). If a handler
    /// has not returned by then, this is reported, and its thread goes on.
    ///
    /// The order of the steps:
    ///
    /// 1. [`begin_shutdown`](Self::begin_shutdown): from here on the accept loop ends
    ///    with the next connection.
    /// 2. [`stop_accepting`](Self::stop_accepting): wakes the accept loop and joins its
    ///    thread.
    /// 3. The last descriptor of the listener is closed, so that new clients get
    ///    "connection refused" at once.
    /// 4. `Connections::finish_shutdown`: the grace, the remaining sockets, and the
    ///    threads.
    pub(crate) fn shutdown(&mut self) {
        let Some((waker, acceptor)) = self.running.take() else {
            return;
        };
        let start = Instant::now();
        self.begin_shutdown();
        self.stop_accepting(&waker, acceptor, start);
        // ORDER: before the steps that may take long. This is the last descriptor of the
        // listener in this server. While it is open, the system accepts connections that
        // no thread would serve.
        drop(waker);
        self.connections.finish_shutdown(start);
    }

    /// Ends the accept loop. The loop sees that the server is closing as soon as its
    /// `accept` returns, so the task is to make `accept` return:
    ///
    /// - The listener is shut down, if no other process has it. On Linux that wakes the
    ///   thread in `accept`.
    /// - Otherwise this function connects to the listener. That fails if a firewall drops
    ///   the connection, or if another process accepts it. So it is repeated, with up to
    ///   [`WAKE_ATTEMPTS`] connections open at the same time, until the loop has ended or
    ///   the grace is over. After the grace the listener is shut down for all processes,
    ///   with a warning.
    ///
    /// Blocks until the loop has ended, for at most the grace (but at least 500 ms),
    /// unless the listener can be shut down.
    fn stop_accepting(&self, waker: &Waker, acceptor: JoinHandle<()>, start: Instant) {
        let timeout = self.connections.config.grace.max(SHUTDOWN_WAIT);
        let mut is_shut_down = waker.holders == Holders::ThisServer && waker.shut_down();
        // ORDER: the connections stay open until the loop has ended. A connection that is
        // closed early may never be returned by `accept`. And a process that serves one
        // of them may leave the next one to this server.
        // LIMIT: `WAKE_ATTEMPTS` descriptors.
        let (mut connections, mut pause) = (Vec::new(), WAKE_PAUSE.0);
        while !is_shut_down && !acceptor.is_finished() && start.elapsed() < timeout {
            // The thread may be in its pause after an error.
            acceptor.thread().unpark();
            if connections.len() == WAKE_ATTEMPTS {
                connections.clear();
            }
            let connection = TcpStream::connect_timeout(&reachable(self.local_addr), pause);
            connections.extend(connection);
            wait_for(&acceptor, pause);
            pause = (pause * 2).min(WAKE_PAUSE.1);
        }
        if !is_shut_down && !acceptor.is_finished() {
            is_shut_down = waker.shut_down();
            let outcome = match is_shut_down {
                true => "the listener was shut down, also for other processes that have it",
                false => "the thread is not joined",
            };
            self.connections.config.report.warn(format_args!(
                "cannot connect to the listener on {} to end its accept: {outcome}",
                self.local_addr
            ));
        }
        if is_shut_down || acceptor.is_finished() {
            acceptor.thread().unpark(); // It may be in its pause.
            // If the thread panicked, std has reported the panic.
            let _ = acceptor.join();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Blocks until a thread has ended, for at most `limit`. std has no join with a timeout,
/// so this polls.
fn wait_for(thread: &JoinHandle<()>, limit: Duration) {
    let start = Instant::now();
    while !thread.is_finished() && start.elapsed() < limit {
        thread::sleep(WAKE_PAUSE.0.min(limit));
    }
}

/// The address by which this machine reaches a listener. A listener on 0.0.0.0 or `::` is
/// reached by the loopback address of its family.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// Can end a blocking `accept` from another thread, for which std has no call.
#[derive(Debug)]
struct Waker {
    holders: Holders,
    /// A second descriptor of the listener. Its type is wrong on purpose: see `new`.
    #[cfg(unix)]
    listener: TcpStream,
}

impl Waker {
    #[cfg(unix)]
    fn new(listener: &TcpListener, holders: Holders) -> io::Result<Waker> {
        // std has `shutdown` for a TcpStream and not for a TcpListener. The type only
        // decides which calls are offered. On a listening socket, Linux answers the call
        // by waking the thread that waits in `accept`.
        let descriptor = std::os::fd::OwnedFd::from(listener.try_clone()?);
        Ok(Waker {
            holders,
            listener: descriptor.into(),
        })
    }

    #[cfg(not(unix))]
    fn new(_: &TcpListener, holders: Holders) -> io::Result<Waker> {
        Ok(Waker { holders })
    }

    /// Shuts down the listener, for all processes that have it. Returns false if the
    /// system does not support that.
    #[cfg(unix)]
    fn shut_down(&self) -> bool {
        self.listener.shutdown(Shutdown::Both).is_ok()
    }

    #[cfg(not(unix))]
    fn shut_down(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Refusal, Request, Response};
    use crate::report::Report;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server on a listener that other processes may have, too.
    fn inherited(listener: TcpListener, config: Config) -> HttpServer {
        let (holders, reserves) = (Holders::MaybeOthers, Reserves::default());
        HttpServer::spawn(listener, holders, config, reserves, Box::new(NoContent)).unwrap()
    }

    struct NoContent;

    impl Handler for NoContent {
        fn wants_body(&self, _: &Request) -> bool {
            false
        }

        fn authorize(&self, _: &Request) -> Result<(), Response> {
            Ok(())
        }

        fn answer(&self, _: Request) -> Response {
            Response::new(204)
        }

        fn refuse(&self, refusal: &Refusal, _: Option<&Request>) -> Response {
            refusal.into()
        }
    }

    /// Simulates a firewall that drops the server's own connections.
    #[test]
    fn a_listener_that_cannot_be_reached_is_shut_down_when_the_grace_is_over() {
        let warnings: Arc<AtomicUsize> = Arc::default();
        let counter = Arc::clone(&warnings);
        let grace = 30 * WAKE_PAUSE.0;
        let config = Config {
            grace,
            report: Report::new(move |_, line| {
                let line = line.to_string();
                assert!(line.contains("cannot connect to the listener"), "{line}");
                counter.fetch_add(1, Ordering::SeqCst);
            }),
            ..Config::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let mut handle = inherited(listener, config);
        let address = handle.local_addr();
        handle.local_addr = closed.unwrap();
        let start = Instant::now();
        handle.shutdown();
        let took = start.elapsed();
        assert!(took >= grace && took < 10 * SHUTDOWN_WAIT, "{took:?}");
        assert_eq!(warnings.load(Ordering::SeqCst), 1);
        assert!(
            TcpStream::connect(address).is_err(),
            "the listener is still open"
        );
    }

    /// Simulates a process without a free descriptor: `accept` always fails.
    #[cfg(unix)]
    #[test]
    fn a_shutdown_ends_the_pause_after_a_failed_accept() {
        let warnings: Arc<AtomicUsize> = Arc::default();
        let counter = Arc::clone(&warnings);
        let config = Config {
            grace: Duration::ZERO,
            report: Report::new(move |_, line| {
                let is_warning = line.to_string().contains("cannot connect to the listener");
                counter.fetch_add(usize::from(is_warning), Ordering::SeqCst);
            }),
            ..Config::default()
        };
        // A socket that does not listen: `accept` on it fails each time.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::from(std::os::fd::OwnedFd::from(socket));
        let mut handle = inherited(listener, config);
        // The pause of one second has begun by now: the pauses before it take 630 ms
        // together.
        thread::sleep(Duration::from_millis(700));
        handle.shutdown();
        assert_eq!(
            warnings.load(Ordering::SeqCst),
            0,
            "the listener was shut down"
        );
    }
}
