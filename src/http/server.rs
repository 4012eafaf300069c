//! Where connections come from, and how a server ends.
//!
//! `accept` fails in ordinary life: the peer has given up, or the machine has no descriptor left.
//! None of that ends the loop.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Handler;
use super::connections::Connections;
use crate::config::{ACCEPT_PAUSE, Config, SHUTDOWN_WAIT, WAKE_ATTEMPTS, WAKE_PAUSE};
use crate::machine::Reserves;

/// Which processes may hold a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holders {
    /// This server made it and no other process has it: it may be shut down.
    ThisServer,
    /// It was made elsewhere, and others may hold it too: a process that hands it over, or a service
    /// manager. On Linux `shutdown(2)` would end it for all of them.
    MaybeOthers,
}

/// The accept loop. Only a shutdown ends it.
fn accept_patiently(listener: &TcpListener, connections: &Arc<Connections>) {
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
            // The peer gave up while it waited, or a signal came: nothing to wait for.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                if error.kind() == ErrorKind::WouldBlock {
                    // Another holder has changed it meanwhile. Best effort: else it is tried again.
                    let _ = listener.set_nonblocking(false);
                }
                let report = &connections.config.report;
                report.error(format_args!(
                    "cannot accept a connection: {error}; trying again in {pause:?}"
                ));
                // Cut short by a shutdown.
                thread::park_timeout(pause);
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

/// A server that runs. Dropping it shuts the server down.
#[derive(Debug)]
#[must_use = "dropping it shuts the server down"]
pub(crate) struct HttpServer {
    connections: Arc<Connections>,
    local_addr: SocketAddr,
    /// The accept loop, and what ends it. `None` once the server is shut down.
    running: Option<(Waker, JoinHandle<()>)>,
}

impl HttpServer {
    /// Serves a listener from now on, in threads of its own, with what the machine was found to give. Does not
    /// block.
    ///
    /// # Errors
    ///
    /// The thread that accepts connections cannot be started, or the system refuses to make the listener blocking.
    pub(crate) fn spawn(
        listener: TcpListener,
        holders: Holders,
        config: Config,
        reserves: Reserves,
        handler: Box<dyn Handler>,
    ) -> io::Result<HttpServer> {
        // Otherwise the accept loop would take "nothing is there" for an error, and pause.
        listener.set_nonblocking(false)?;
        let local_addr = listener.local_addr()?;
        let waker = Waker::new(&listener, holders)?;
        let connections = Arc::new(Connections::new(config, reserves, handler));
        let accepting = Arc::clone(&connections);
        let acceptor = thread::Builder::new()
            .name("accept".into())
            .spawn(move || accept_patiently(&listener, &accepting))?;
        Ok(HttpServer {
            connections,
            local_addr,
            running: Some((waker, acceptor)),
        })
    }

    /// The address that is listened on.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Begins the shutdown and does not wait: no connection is let in any more, connections without a
    /// request are closed, and an answer is the last of its connection.
    pub(crate) fn stop(&self) {
        self.connections.begin_shutdown();
    }

    /// Stops accepting, lets requests in flight finish for up to `Config::grace`, then closes what
    /// is left, and joins the threads. Streams end by whoever writes them, or with the rest.
    ///
    /// Blocks for the grace and half a second at the most. A handler that does not return even
    /// then is left behind, and reported.
    pub(crate) fn shutdown(&mut self) {
        let Some((waker, acceptor)) = self.running.take() else {
            return;
        };
        let start = Instant::now();
        self.stop();
        self.end(&waker, acceptor, start);
        // ORDER: before the steps that may take long. This is the last descriptor of the listener here, and
        // while it is open the system accepts connections that no thread would serve.
        drop(waker);
        self.connections.finish_shutdown(start);
    }

    /// Ends the accept loop, which sees that the server is closing as soon as its `accept` returns.
    ///
    /// A connection of our own makes it return, but for two cases: the connection is not let through
    /// (a firewall), or another holder of the listener accepts it. So there is more than one, and when
    /// the grace is over the listener is shut down.
    fn end(&self, waker: &Waker, acceptor: JoinHandle<()>, start: Instant) {
        let patience = self.connections.config.grace.max(SHUTDOWN_WAIT);
        let mut is_shut_down = waker.holders == Holders::ThisServer && waker.shut_down();
        // ORDER: the connections are kept until the loop has ended. A closed connection may not be accepted,
        // and a holder that has accepted one is busy and leaves the next one to others. LIMIT: `WAKE_ATTEMPTS`.
        let (mut connections, mut pause) = (Vec::new(), WAKE_PAUSE.0);
        while !is_shut_down && !acceptor.is_finished() && start.elapsed() < patience {
            // It may be pausing after an error.
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
                true => "the listener was shut down, for other processes that hold it too",
                false => "its thread goes on waiting",
            };
            self.connections.config.report.warn(format_args!(
                "cannot connect to the listener on {} to end its accept: {outcome}",
                self.local_addr
            ));
        }
        if is_shut_down || acceptor.is_finished() {
            acceptor.thread().unpark(); // As above.
            // A panic in it has been reported by std.
            let _ = acceptor.join();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Waits until a thread has ended, for up to `limit`.
fn wait_for(thread: &JoinHandle<()>, limit: Duration) {
    let start = Instant::now();
    while !thread.is_finished() && start.elapsed() < limit {
        thread::sleep(WAKE_PAUSE.0.min(limit));
    }
}

/// The address by which this machine reaches a listener. One without an address of its own is reached by
/// the loopback address of its family.
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

/// Ends a blocking `accept`, for which std has no word.
#[derive(Debug)]
struct Waker {
    holders: Holders,
    #[cfg(unix)]
    listener: TcpStream,
}

impl Waker {
    #[cfg(unix)]
    fn new(listener: &TcpListener, holders: Holders) -> io::Result<Waker> {
        // The type only says which calls are allowed: of a TcpStream one may ask `shutdown`,
        // and Linux answers it on a listening socket by waking the thread that waits in `accept`.
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

    /// Ends the listener, for all its holders. False: the system does not do that.
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

    /// A server of a listener that other processes may hold too.
    fn inherited(listener: TcpListener, config: Config) -> HttpServer {
        let (holders, reserves) = (Holders::MaybeOthers, Reserves::default());
        HttpServer::spawn(listener, holders, config, reserves, Box::new(Nothing)).unwrap()
    }

    struct Nothing;

    impl Handler for Nothing {
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

    /// As with a firewall that does not let the server's own connections through.
    #[test]
    fn a_listener_that_cannot_be_reached_is_shut_down_when_the_grace_is_over() {
        let warnings: Arc<AtomicUsize> = Arc::default();
        let heard = Arc::clone(&warnings);
        let grace = 30 * WAKE_PAUSE.0;
        let config = Config {
            grace,
            report: Report::new(move |_, line| {
                let line = line.to_string();
                assert!(line.contains("cannot connect to the listener"), "{line}");
                heard.fetch_add(1, Ordering::SeqCst);
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
        assert!(TcpStream::connect(address).is_err(), "it is there still");
    }

    /// As without a descriptor left.
    #[cfg(unix)]
    #[test]
    fn a_shutdown_does_not_wait_for_the_pause_after_an_accept_that_failed() {
        let warnings: Arc<AtomicUsize> = Arc::default();
        let heard = Arc::clone(&warnings);
        let config = Config {
            grace: Duration::ZERO,
            report: Report::new(move |_, line| {
                let is_it = line.to_string().contains("cannot connect to the listener");
                heard.fetch_add(usize::from(is_it), Ordering::SeqCst);
            }),
            ..Config::default()
        };
        // No `accept` on this one ever succeeds.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::from(std::os::fd::OwnedFd::from(socket));
        let mut handle = inherited(listener, config);
        // The pause of a second has begun: those before it come to 630 ms.
        thread::sleep(Duration::from_millis(700));
        handle.shutdown();
        assert_eq!(
            warnings.load(Ordering::SeqCst),
            0,
            "its listener was shut down"
        );
    }
}
