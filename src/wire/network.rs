//! Networks of IP addresses, and how a log line names the sender of a request.
//!
//! A socket that accepts IPv6 and IPv4 reports an IPv4 address as `::ffff:192.0.2.1`. It
//! is the same machine as `192.0.2.1`, so every address is converted to the short form
//! before it is compared.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// One address, or all addresses that begin with the same bits: `192.0.2.7`,
/// `10.0.0.0/8`, `2001:db8::/32`.
///
/// ```
/// use tiny_sse::Network;
/// let inside: Network = "10.0.0.0/8".parse().unwrap();
/// assert!(inside.contains("10.1.2.3".parse().unwrap()));
/// assert!(inside.contains("::ffff:10.1.2.3".parse().unwrap()));
/// assert!("10.0.0.1/8".parse::<Network>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The first address of the network: the bits after the prefix are zero. Never an
    /// IPv4 address in IPv6 form.
    address: IpAddr,
    /// The number of leading bits that all addresses of the network share.
    prefix: u8,
}

/// The length of the prefix `::ffff:` of an IPv4 address in IPv6 form, in bits.
const MAPPED_BITS: u8 = 96;

/// SPEC: RFC 6177, 2: an internet subscriber gets at least a /64, and can use any address
/// in it.
const SUBSCRIBER_BITS: u8 = 64;

impl Network {
    /// All addresses whose first `prefix` bits are those of `address`.
    ///
    /// # Errors
    ///
    /// The prefix is longer than the address; or `address` has bits set after the prefix,
    /// so that one of the two is probably a mistake.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Network, NetworkError> {
        let own = address.to_canonical();
        let (address, prefix) = match (address.is_ipv6() && own.is_ipv4(), prefix) {
            (false, _) => (address, prefix),
            (true, MAPPED_BITS..=128) => (own, prefix - MAPPED_BITS),
            // The prefix is so short that the network also contains addresses that are
            // not IPv4.
            (true, _) => (address, prefix),
        };
        let (_, width) = bits(address);
        if prefix > width {
            let what = format!("a network of at most {width} bits, not of {prefix}");
            return Err(NetworkError(what));
        }
        let network = cut(address, prefix);
        if network.address != address {
            let what = format!("a network without bits after its prefix, such as {network}");
            return Err(NetworkError(what));
        }
        Ok(network)
    }

    /// The network that one internet subscriber uses, judged by one of its addresses: the
    /// address itself in IPv4, the /64 around it in IPv6. Limits per client count these
    /// networks.
    pub(crate) fn of_subscriber(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(address) => cut(address.into(), 32),
            IpAddr::V6(address) => cut(address.into(), SUBSCRIBER_BITS),
        }
    }

    /// Whether the address belongs to the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && cut(address, self.prefix) == *self
    }
}

/// Returns the bits of the address, aligned to the left of the number, and their count.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// Returns the network of all addresses with the same first `prefix` bits.
fn cut(address: IpAddr, prefix: u8) -> Network {
    let (bits, _) = bits(address);
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    let bits = bits & mask;
    Network {
        address: match address {
            IpAddr::V4(_) => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        },
        prefix,
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no_network())?;
        let prefix = match prefix {
            None => bits(address).1,
            // std's `parse` would also take a `+`.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| no_network())?
            }
            Some(_) => return Err(no_network()),
        };
        Network::new(address, prefix)
    }
}

/// Writes what [`from_str`](FromStr::from_str) reads; for a single address without the
/// prefix.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits(self.address).1 {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// Why a text or an address is not a [`Network`]. `Display` says what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError(String);

/// The error for a text that is neither an address nor an address, `/` and a number.
fn no_network() -> NetworkError {
    NetworkError("an address, such as 192.0.2.7, or a network, such as 10.0.0.0/8".into())
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NetworkError {}

/// The sender of a request, for log lines: `127.0.0.1:5000`; behind a trusted proxy
/// `192.0.2.7 through 127.0.0.1:5000`.
#[derive(Clone, Copy)]
pub(crate) struct RemoteAddr {
    /// The other end of the connection: the client, or a proxy.
    pub(crate) peer: SocketAddr,
    /// The client's own address: the peer's, or the address that a trusted proxy reports.
    pub(crate) client: IpAddr,
}

impl RemoteAddr {
    /// The sender of a request for which no proxy has reported another client.
    pub(crate) fn of_peer(peer: SocketAddr) -> RemoteAddr {
        RemoteAddr {
            peer,
            client: peer.ip().to_canonical(),
        }
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.client != self.peer.ip().to_canonical() {
            write!(f, "{} through ", self.client)?;
        }
        write!(f, "{}", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_network_is_read_and_shown_in_its_shortest_form() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:0DB8:0::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).to_string(), shown);
            assert_eq!(network(shown), network(text));
        }
    }

    #[test]
    fn an_error_names_a_valid_network() {
        for (text, part) in [
            ("", "such as 192.0.2.7"),
            ("localhost", "such as 192.0.2.7"),
            ("192.0.2", "such as 192.0.2.7"),
            ("192.0.2.7:80", "such as 192.0.2.7"),
            ("[2001:db8::1]", "such as 192.0.2.7"),
            (" 192.0.2.7", "such as 192.0.2.7"),
            ("10.0.0.0/", "such as 192.0.2.7"),
            ("10.0.0.0/+8", "such as 192.0.2.7"),
            ("10.0.0.0/8/8", "such as 192.0.2.7"),
            ("10.0.0.0/255.0.0.0", "such as 192.0.2.7"),
            ("10.0.0.0/256", "such as 192.0.2.7"),
            ("10.0.0.0/33", "at most 32 bits, not of 33"),
            ("::/129", "at most 128 bits, not of 129"),
            ("10.0.0.1/8", "such as 10.0.0.0/8"),
            ("10.0.0.1/0", "such as 0.0.0.0/0"),
            ("2001:db8::1/64", "such as 2001:db8::/64"),
            ("::ffff:10.0.0.1/104", "such as 10.0.0.0/8"),
        ] {
            let error = text.parse::<Network>().expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_network_contains_the_addresses_that_begin_with_its_bits() {
        for (text, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "0.0.0.0"),
            ("::/0", "::1", "::ffff:192.0.2.7"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
        ] {
            let contains = |address: &str| network(text).contains(address.parse().unwrap());
            assert!(contains(inside), "{text} does not contain {inside}");
            assert!(!contains(outside), "{text} contains {outside}");
        }
    }

    #[test]
    fn a_subscriber_has_one_ipv4_address_or_a_64() {
        for (address, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            let network = Network::of_subscriber(address.parse().unwrap());
            assert_eq!(network.to_string(), shown);
        }
    }

    #[test]
    fn a_log_line_names_the_client_and_then_its_proxy() {
        for (peer, client, shown) in [
            ("192.0.2.7:1", "192.0.2.7", "192.0.2.7:1"),
            ("[::ffff:192.0.2.7]:1", "192.0.2.7", "[::ffff:192.0.2.7]:1"),
            ("127.0.0.1:1", "192.0.2.7", "192.0.2.7 through 127.0.0.1:1"),
        ] {
            let remote_addr = RemoteAddr {
                peer: peer.parse().unwrap(),
                client: client.parse().unwrap(),
            };
            assert_eq!(remote_addr.to_string(), shown);
        }
    }
}
