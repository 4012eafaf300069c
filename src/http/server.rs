//! Where connections come from, and how a server ends.
//!
//! `accept` fails in ordinary life: the peer has given up, or the machine has no descriptor left.
//! None of that ends the loop. It does little but accept, because a queue of connections that
//! nobody accepts is answered by the kernel with one-second waits.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::doorstep::Doorstep;
use super::reception::Reception;
use super::{Handler, Request, Response};
use crate::config::{ACCEPT_PAUSE, Config, LAST_WAIT};
use crate::machine::{self, Reserves};

/// A listening socket, not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    config: Config,
    reserves: Reserves,
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
    /// The configuration contradicts itself ([`Config::check`]), or the machine has no room for even one
    /// client.
    pub fn from_listener(listener: TcpListener, mut config: Config) -> io::Result<Server> {
        config.check()?;
        let reserves = machine::fit(&mut config)?;
        Ok(Server::fitted(listener, config, reserves))
    }

    /// Serves a listener with what the machine was found to give.
    pub(crate) fn fitted(listener: TcpListener, config: Config, reserves: Reserves) -> Server {
        Server {
            listener,
            config,
            reserves,
        }
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
    /// The three threads that let connections in cannot be had.
    pub fn spawn(
        self,
        handler: impl Fn(Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<Handle> {
        self.spawn_handler(handler)
    }

    /// [`spawn`](Self::spawn) for a [`Handler`] that does more than answer.
    ///
    /// # Errors
    ///
    /// The three threads that let connections in cannot be had.
    pub fn spawn_handler(self, handler: impl Handler + 'static) -> io::Result<Handle> {
        let Server {
            listener,
            config,
            reserves,
        } = self;
        let local_addr = listener.local_addr()?;
        let waker = Waker::new(&listener)?;
        let (doorstep, watch) = Doorstep::new(reserves.doorstep);
        let leaving = reserves.leaving;
        let reception = Reception::new(config, leaving, Box::new(handler), doorstep);
        let reception = Arc::new(reception);
        let (at_the_door, inside) = (Arc::clone(&reception), Arc::clone(&reception));
        let starter = thread::Builder::new()
            .name("start".into())
            .spawn(move || inside.start_clerks())?;
        let watcher = thread::Builder::new()
            .name("doorstep".into())
            .spawn(move || watch.run())
            .inspect_err(|_| reception.close())?;
        let acceptor = thread::Builder::new()
            .name("accept".into())
            .spawn(move || accept_patiently(&listener, &at_the_door))
            .inspect_err(|_| reception.close())?;
        Ok(Handle {
            reception,
            local_addr,
            waker,
            threads: Some([acceptor, starter, watcher]),
        })
    }
}

/// The accept loop. Only a shutdown ends it.
fn accept_patiently(listener: &TcpListener, reception: &Arc<Reception>) {
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = listener.accept();
        if reception.is_closing() {
            return;
        }
        match accepted {
            Ok((socket, peer)) => {
                pause = ACCEPT_PAUSE.0;
                reception.enter(socket, peer);
            }
            // The peer gave up while it waited, or a signal came: nothing to wait for.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                let report = &reception.config.report;
                report.error(format_args!(
                    "cannot accept a connection: {error}; trying again in {pause:?}"
                ));
                thread::sleep(pause);
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

/// A server that runs. Dropping it shuts the server down.
#[derive(Debug)]
#[must_use = "dropping the handle shuts the server down"]
pub struct Handle {
    reception: Arc<Reception>,
    local_addr: SocketAddr,
    waker: Waker,
    /// Those that accept, start and turn away; `None` once it is shut down.
    threads: Option<[JoinHandle<()>; 3]>,
}

impl Handle {
    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections of any kind that are open now.
    pub fn connections(&self) -> usize {
        self.reception.connections()
    }

    /// Stops accepting, lets requests in flight finish for up to `Config::grace`, then closes what
    /// is left, and joins the threads. Streams end by whoever writes them, or with the rest.
    ///
    /// Blocks for the grace and half a second at the most. A handler that does not return even
    /// then is left behind, and reported.
    pub fn shutdown(mut self) {
        self.close();
    }

    /// Begins the shutdown and does not wait: nobody is let in any more, connections without a
    /// request are closed, and an answer is the last of its connection.
    pub fn stop(&self) {
        self.reception.close();
    }

    fn close(&mut self) {
        let Some(threads) = self.threads.take() else {
            return;
        };
        self.stop();
        self.waker.wake(self.local_addr);
        for thread in threads {
            // Their loops end when the server is closing; a panic in them has been reported by std.
            let _ = thread.join();
        }
        self.reception.wait_for_the_rest();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
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
