//! Whether the console is shown (feature `console`).

use std::net::SocketAddr;

use super::names;

/// Whether there is a console: a page to watch, to publish, and to try the server. It has the rights of any
/// client that reaches the port, and no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Console {
    /// There is.
    On,
    /// There is not.
    Off,
    /// There is on an address of this machine's own, such as 127.0.0.1, and only if there is no
    /// [`trust_proxy`](crate::Config::trust_proxy), behind which other machines are.
    #[default]
    Auto,
}

impl Console {
    /// What it is for a server that listens there, and has a proxy in front or not: on or off.
    pub(crate) fn at(self, address: SocketAddr, is_proxied: bool) -> Console {
        let is_loopback = || address.ip().to_canonical().is_loopback() && !is_proxied;
        match self {
            Console::Auto if is_loopback() => Console::On,
            Console::Auto => Console::Off,
            told => told,
        }
    }
}

names!(Console: "on" On, "off" Off, "auto" Auto);
