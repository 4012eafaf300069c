//! Turns the value of `--listen` into a listener, with the socket options that accepted sockets
//! inherit from it.
//!
//! A port without a host, or with `*` in its place, is every address of the machine.

use std::fmt;
use std::fs::read_to_string;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use tiny_sse::Config;

use crate::{reason, system};

/// An address to listen on, as it was given.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    text: String,
    /// An address without its brackets, or a name. `None` is every address of the machine.
    host: Option<String>,
    port: u16,
}

impl FromStr for Listen {
    /// What the value must be.
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        // std's `parse` would also take a `+`.
        let is_digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port: Option<u16> = port.parse().ok().filter(|_| is_digits);
        let host = match host {
            "" | "*" => Some(None),
            _ => bare(host).map(|host| Some(host.to_owned())),
        };
        match (host, port) {
            (Some(host), Some(port)) if text.contains(':') => Ok(Listen {
                text: text.to_owned(),
                host,
                port,
            }),
            _ => {
                // If the port is valid, the example repeats it.
                let port = port.unwrap_or(8080);
                Err(format!(
                    "an address and a port, such as 127.0.0.1:{port} or [::1]:{port}, or :{port} for every address"
                ))
            }
        }
    }
}

/// A host without the brackets that an IPv6 address needs before a port. `None`: neither an address
/// nor a name.
fn bare(host: &str) -> Option<&str> {
    let Some(bracketed) = host.strip_prefix('[') else {
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        return host.bytes().all(is_label).then_some(host);
    };
    // With a scope: `fe80::1%2`.
    let address: Option<SocketAddrV6> = format!("{host}:0").parse().ok();
    address.and_then(|_| bracketed.strip_suffix(']'))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Listen {
    /// Listens there.
    ///
    /// # Errors
    ///
    /// The address is in use or not this machine's, the port is not permitted, or the name has no
    /// address. The message says what to do about it.
    pub(crate) fn bind(&self, config: &Config) -> Result<TcpListener, String> {
        let listening = self.listener().and_then(|listener| {
            system::raise_backlog(&listener)?;
            Ok(listener)
        });
        let listener = listening.map_err(|error| {
            let host = self.text.rsplit_once(':').map_or("", |(host, _)| host);
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => format!("; --listen {host}:0 takes a free port"),
                _ => String::new(),
            };
            format!("cannot listen on {self}: {}{remedy}", reason(&error))
        })?;
        // Best effort, both: without them the kernel does as it is configured.
        if let Some(bytes) = config.send_buffer {
            let _ = system::set_send_buffer(&listener, bytes);
        }
        let _ = system::set_user_timeout(&listener, longest_silence(config));
        Ok(listener)
    }

    fn listener(&self) -> io::Result<TcpListener> {
        let Some(host) = &self.host else {
            return every_address(self.port);
        };
        // `localhost` is both. A proxy or a script that is told 127.0.0.1 finds the server there.
        let addresses = (&**host, self.port).to_socket_addrs()?;
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv4);
        TcpListener::bind(&*[ipv4, ipv6].concat())
    }

    /// Whether the listener takes IPv4 too, whatever its own address is.
    pub(crate) fn is_every_address(&self) -> bool {
        self.host.is_none()
    }
}

/// Listens on every address of the machine: IPv6 and IPv4 by one socket where the system has such
/// sockets, otherwise IPv4.
fn every_address(port: u16) -> io::Result<TcpListener> {
    let sysctl = read_to_string("/proc/sys/net/ipv6/bindv6only");
    // Without the file there is no IPv6, or the system is not Linux: other systems separate IPv6 and IPv4.
    if sysctl.is_ok_and(|only_ipv6| only_ipv6.trim() == "0") {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let kind = listener.as_ref().err().map(io::Error::kind);
        // With any other error the kernel has IPv6, but this network does not.
        if let None | Some(ErrorKind::AddrInUse | ErrorKind::PermissionDenied) = kind {
            return listener;
        }
    }
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
}

/// How long a peer may acknowledge nothing. A peer that vanished does not acknowledge the next
/// heartbeat, and the write of the following heartbeat fails: so the loss is noticed within two heartbeats.
/// The limit is a quarter less than a heartbeat, because the kernel's own timers add to it, and never
/// less than `write_timeout`.
fn longest_silence(config: &Config) -> Duration {
    (config.heartbeat / 4 * 3).max(config.write_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_port_are_taken_and_every_other_form_is_explained() {
        for (text, is_every) in [
            ("127.0.0.1:8080", false),
            ("0.0.0.0:80", false),
            ("localhost:0", false),
            ("a-host.example_1.org:65535", false),
            ("[::1]:8080", false),
            ("[::]:8080", false),
            ("[fe80::1%2]:8080", false),
            (":8080", true),
            ("*:8080", true),
            (":0", true),
        ] {
            let listen: Listen = text.parse().unwrap_or_else(|what| panic!("{text}: {what}"));
            assert_eq!(listen.is_every_address(), is_every, "{text}");
            assert_eq!(listen.to_string(), text);
        }
        for (text, port) in [
            ("", 8080),
            (":", 8080),
            ("8080", 8080),
            ("80", 80),
            ("localhost", 8080),
            ("127.0.0.1", 8080),
            ("127.0.0.1:", 8080),
            ("127.0.0.1:http", 8080),
            ("127.0.0.1:65536", 8080),
            ("127.0.0.1:-1", 8080),
            ("127.0.0.1:+1", 8080),
            ("::1:9000", 9000),
            ("::1", 1),
            ("::", 8080),
            ("[::1]", 8080),
            ("[::1:9000", 9000),
            ("[127.0.0.1]:9000", 9000),
            ("[]:9000", 9000),
            ("http://127.0.0.1:9000", 9000),
            ("127.0.0.1:9000/", 8080),
            ("**:9000", 9000),
            (" :9000", 9000),
            ("a b:9000", 9000),
        ] {
            let what = text.parse::<Listen>().expect_err(text);
            assert!(
                what.contains(&format!(
                    " 127.0.0.1:{port} or [::1]:{port}, or :{port} for every address"
                )),
                "{text:?}: {what}"
            );
        }
    }
}
