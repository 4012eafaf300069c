//! The configuration of the console page (feature `console`).

use std::net::SocketAddr;

use super::names;

/// Whether a browser gets the console at `/`: a page to watch the server, to publish, and
/// to try it out. The page has no rights of its own: it can do what any client at its
/// address can do with the same token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Console {
    /// The console is there.
    On,
    /// The console is not there: `/` answers every client with the list of endpoints.
    Off,
    /// The console is there if only this machine can reach the server: on a loopback
    /// address such as 127.0.0.1, without a [`trust_proxy`](crate::Config::trust_proxy).
    #[default]
    Auto,
}

impl Console {
    /// Returns `On` or `Off` for a server that listens at `address`. `is_proxied`: it has
    /// a trusted proxy.
    pub(crate) fn at(self, address: SocketAddr, is_proxied: bool) -> Console {
        let is_loopback = || address.ip().to_canonical().is_loopback() && !is_proxied;
        match self {
            Console::Auto if is_loopback() => Console::On,
            Console::Auto => Console::Off,
            decided => decided,
        }
    }
}

names!(Console: "on" On, "off" Off, "auto" Auto);
