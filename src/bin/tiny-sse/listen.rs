//! Turns the value of `--listen` into a listening socket, with the options that accepted
//! sockets inherit from it.
//!
//! ```text
//! 127.0.0.1:8080   this address
//! [::1]:8080       an IPv6 address, in brackets
//! localhost:8080   the first address of this name that can be listened on, IPv4 before IPv6
//! :8080, *:8080    every address of the machine
//! ```
//!
//! The main thread listens once, at the start. The library accepts the connections
//! (`http/server.rs`).

use std::fmt;
use std::fs::read_to_string;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use tiny_sse::Config;

use crate::{reason, system};

/// An address to listen on: the value of `--listen`. A name is resolved only when it is
/// listened on.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    /// The value as the user wrote it, for messages.
    text: String,
    /// An address without its brackets, or a name. `None` means every address of the
    /// machine.
    host: Option<String>,
    /// 0 lets the system choose a free port.
    port: u16,
}

impl FromStr for Listen {
    /// What the value must be, as the end of the message "it must be …".
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        // std's `parse` would also accept a `+`.
        let is_digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port: Option<u16> = port.parse().ok().filter(|_| is_digits);
        let host = match host {
            "" | "*" => Some(None),
            _ => without_brackets(host).map(|host| Some(host.to_owned())),
        };
        match (host, port) {
            (Some(host), Some(port)) if text.contains(':') => Ok(Listen {
                text: text.to_owned(),
                host,
                port,
            }),
            _ => {
                // The examples in the message have the user's port if it is valid.
                let port = port.unwrap_or(8080);
                Err(format!(
                    "an address and a port, such as 127.0.0.1:{port} or [::1]:{port}, or :{port} for every address"
                ))
            }
        }
    }
}

/// Returns a host without the brackets that an IPv6 address needs before a port. `None`:
/// the text is neither an address nor a name. A bare IPv6 address is rejected, because
/// the last of its colons would be taken for the port's.
fn without_brackets(host: &str) -> Option<&str> {
    let Some(bracketed) = host.strip_prefix('[') else {
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        return host.bytes().all(is_label).then_some(host);
    };
    // std parses an address with a scope, such as `fe80::1%2`, only as a socket address.
    let address: Option<SocketAddrV6> = format!("{host}:0").parse().ok();
    address.and_then(|_| bracketed.strip_suffix(']'))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Listen {
    /// Opens the listening socket and sets its options. It blocks while a name is
    /// resolved.
    ///
    /// # Errors
    ///
    /// The address is in use or is not an address of this machine, the port is not
    /// permitted, or the name has no address. The message is a line for the user: "cannot
    /// listen on …".
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
        // Best effort, both: if an option cannot be set, the default of the system
        // applies.
        if let Some(bytes) = config.send_buffer {
            let _ = system::set_send_buffer(&listener, bytes);
        }
        let _ = system::set_user_timeout(&listener, acknowledgement_timeout(config));
        Ok(listener)
    }

    /// Binds a socket to the first address that allows it.
    fn listener(&self) -> io::Result<TcpListener> {
        let Some(host) = &self.host else {
            return every_address(self.port);
        };
        // `localhost` often has an IPv4 and an IPv6 address. IPv4 comes first, because
        // proxies and scripts are usually configured with 127.0.0.1.
        let addresses = (&**host, self.port).to_socket_addrs()?;
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv4);
        TcpListener::bind(&*[ipv4, ipv6].concat())
    }

    /// Whether the value means every address of the machine. The local address of the
    /// socket does not show that: a socket on `[::]` accepts IPv4 connections too.
    pub(crate) fn is_every_address(&self) -> bool {
        self.host.is_none()
    }
}

/// Listens on every address of the machine. On Linux one IPv6 socket accepts both IPv6
/// and IPv4, unless the machine has no IPv6 or `bindv6only` is set. In all other cases it
/// is an IPv4 socket.
fn every_address(port: u16) -> io::Result<TcpListener> {
    let sysctl = read_to_string("/proc/sys/net/ipv6/bindv6only");
    // The file is missing if the machine has no IPv6, or if it is not Linux. An IPv6
    // socket of another system may accept only IPv6.
    if sysctl.is_ok_and(|only_ipv6| only_ipv6.trim() == "0") {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let kind = listener.as_ref().err().map(io::Error::kind);
        // Any other error means that the kernel supports IPv6 but no interface has it:
        // IPv4 is tried.
        if let None | Some(ErrorKind::AddrInUse | ErrorKind::PermissionDenied) = kind {
            return listener;
        }
    }
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
}

/// Returns how long sent bytes may stay unacknowledged before the kernel ends the
/// connection.
///
/// A peer that has vanished does not acknowledge the next heartbeat. The kernel then ends
/// the connection before the heartbeat after that, whose write fails, so the server
/// notices the loss within two heartbeats. The result is three quarters of a heartbeat,
/// because the kernel's own timers add to it, and never less than `write_timeout`.
fn acknowledgement_timeout(config: &Config) -> Duration {
    (config.heartbeat / 4 * 3).max(config.write_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_port_is_accepted_and_any_other_value_gets_an_example() {
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
