//! Finds the address of the client: from the address of the peer and from the fields that
//! trusted proxies add to the head. `Connection::next_request` calls [`client`] for each
//! request.
//!
//! Each proxy appends the address of its own peer to the right end of a list. Everything
//! to the left of that address came with the request, so any client can have written it.
//! Therefore the list is read from the right, and the next member is read only if the
//! address so far is a trusted proxy. The first address that is not trusted is the
//! client's.
//!
//! Example: the peer is 10.0.0.1, the networks 10.0.0.0/8 are trusted, and the field is
//! `X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.0.0.2`. 10.0.0.1 is trusted, so 10.0.0.2
//! is read; 10.0.0.2 is trusted, so 192.0.2.7 is read; 192.0.2.7 is not trusted, so it is
//! the client. 203.0.113.9 may be invented, and is ignored.
//!
//! A member that cannot be parsed ends the search: the client is unknown, and the address
//! is that of the last proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::head::{RequestHead, is_tchar, trim_ows};
use crate::wire::Network;

/// The client that sent a request, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientAddr {
    /// The address of the client, or of the last trusted proxy before it.
    pub(super) address: IpAddr,
    /// Whether `address` is the client's. If it is a proxy's, that proxy does not name
    /// its client. Such a client gets no right that depends on its address.
    pub(super) is_known: bool,
}

/// The client of a request that came from `peer` with this head. Does not block.
///
/// There are two fields for this. A proxy appends to one of them and passes the other one
/// on as the client sent it, and the server cannot know which one that is: nginx that is
/// configured to write `X-Forwarded-For` passes any `Forwarded` on. So if both fields are
/// there, they must name the same client. If they do not, one of them may be a lie, and
/// the client is unknown. A client that lies about its address gains nothing.
pub(super) fn client(peer: IpAddr, head: &RequestHead, trusted: &[Network]) -> ClientAddr {
    let peer = peer.to_canonical();
    let itself = |is_known| ClientAddr {
        address: peer,
        is_known,
    };
    // This comes first so that no time is spent on the fields of a peer that is not
    // trusted.
    if !trusts(trusted, peer) {
        return itself(true);
    }
    let named_in = |name: &str, address: fn(&[u8]) -> Option<IpAddr>| {
        let fields: Vec<&[u8]> = head.fields(name).collect();
        (!fields.is_empty()).then(|| search(peer, &fields, address, trusted))
    };
    match (
        named_in("forwarded", forwarded_for),
        named_in("x-forwarded-for", x_forwarded_for),
    ) {
        (Some(one), Some(other)) if one != other => itself(false),
        (Some(found), _) | (None, Some(found)) => found,
        // The proxy does not name its client, or names it in another field, such as
        // `X-Real-IP`.
        (None, None) => itself(false),
    }
}

/// Whether the address is in one of the networks.
pub(super) fn trusts(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Searches the list in `fields` from the right for the client of `peer`, which is a
/// trusted proxy. `address` parses one member of the list.
///
/// SPEC: RFC 9110, 5.3: several fields with one name are one list. LIMIT: the length of
/// the head. Each byte is read once or twice.
fn search(
    peer: IpAddr,
    fields: &[&[u8]],
    address: fn(&[u8]) -> Option<IpAddr>,
    trusted: &[Network],
) -> ClientAddr {
    let members = fields
        .iter()
        .rev()
        .flat_map(|field| FromTheRight(field, b','));
    // SPEC: RFC 9110, 5.6.1.2: empty members are skipped.
    let mut members = members.map(trim_ows).filter(|member| !member.is_empty());
    let mut client = ClientAddr {
        address: peer,
        // The peer is a proxy, and a field without members does not name its client.
        is_known: false,
    };
    while trusts(trusted, client.address) {
        // If all addresses are trusted, the client itself is in a trusted network.
        let Some(member) = members.next() else { break };
        let Some(before) = address(member) else {
            client.is_known = false;
            break;
        };
        client = ClientAddr {
            address: before.to_canonical(),
            is_known: true,
        };
    }
    client
}

/// An iterator over the parts of a text between separators, from the last part to the
/// first. A separator in a quoted string does not count. The text is read from the right,
/// so that a quote that a client has left open does not hide the parts that proxies have
/// appended after it.
struct FromTheRight<'a>(&'a [u8], u8);

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let FromTheRight(text, separator) = *self;
        let mut is_quoted = false;
        let cut = (0..text.len()).rev().find(|&at| {
            is_quoted ^= text[at] == b'"' && !is_escaped(text, at);
            !is_quoted && text[at] == separator
        });
        let (rest, part) = match cut {
            Some(at) => (&text[..at], &text[at + 1..]),
            None if text.is_empty() => return None,
            None => (&text[..0], text),
        };
        self.0 = rest;
        Some(part)
    }
}

/// Whether the byte at an offset is escaped: an odd number of backslashes precedes it.
///
/// SPEC: RFC 9110, 5.6.4: `quoted-pair = "\" ( HTAB / SP / VCHAR / obs-text )`
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text[..at].iter().rev();
    before.take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The address in a member of `X-Forwarded-For`. No standard describes this field. A
/// member is an address, to which some proxies add a port.
fn x_forwarded_for(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    text.parse().ok().or_else(|| node(text))
}

/// The address in a member of `Forwarded`, such as `for="192.0.2.7:4711";proto=https`.
///
/// SPEC: RFC 7239, 4: `forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ]
/// )`, `forwarded-pair = token "=" value`, and no name twice. The grammar has no white
/// space around the `;`, but many proxies write it, so it is accepted.
fn forwarded_for(member: &[u8]) -> Option<IpAddr> {
    let pairs = FromTheRight(member, b';').map(trim_ows);
    let mut found = None;
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&pair[..equals], unquoted(&pair[equals + 1..])?);
        if !is_token(name) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
    }
    node(std::str::from_utf8(&found?).ok()?)
}

/// The value of a pair without quotes and escapes. `None`: it is neither a token nor a
/// quoted string.
///
/// SPEC: RFC 7239, 4: `value = token / quoted-string`
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let [b'"', inside @ .., b'"'] = value else {
        return is_token(value).then(|| value.to_vec());
    };
    let (mut text, mut bytes) = (Vec::with_capacity(inside.len()), inside.iter());
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'"' => return None,
            b'\\' => *bytes.next()?,
            byte => byte,
        });
    }
    Some(text)
}

/// The address in the description of a client or proxy.
///
/// SPEC: RFC 7239, 6: `node = nodename [ ":" node-port ]`, `nodename = IPv4address / "["
/// IPv6address "]" / "unknown" / obfnode`, `node-port = port / obfport`. `unknown` and
/// obfnode are not addresses.
fn node(text: &str) -> Option<IpAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (address, port) = inside.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let (address, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (address.parse::<Ipv4Addr>().ok()?.into(), port)
        }
    };
    (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(address)
}

/// Whether a text is a port or an obfuscated port.
///
/// SPEC: RFC 7239, 6: `port = 1*5DIGIT`, `obfport = "_" 1*( ALPHA / DIGIT / "." / "_" /
/// "-")`
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(is_named)
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_tchar(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http::{Head, HeadParser};

    /// The client of a request from `peer` with these fields, as text. A `?` after it
    /// means that the client is unknown, and the address is that of the last proxy.
    fn client_of(peer: &str, trusted: &str, fields: &[&str]) -> String {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let parsed = HeadParser::default().parse(bytes.as_bytes(), &Config::default());
        let Ok(Head::Complete { request, .. }) = parsed else {
            panic!("{bytes:?}: {parsed:?}");
        };
        let trusted: Vec<Network> = trusted
            .split_whitespace()
            .map(|network| network.parse().unwrap())
            .collect();
        let client = client(peer.parse().unwrap(), &request, &trusted);
        let doubt = if client.is_known { "" } else { "?" };
        format!("{}{doubt}", client.address)
    }

    #[test]
    fn only_the_fields_of_trusted_proxies_count() {
        for field in ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7"] {
            assert_eq!(client_of("127.0.0.1", "", &[field]), "127.0.0.1");
            assert_eq!(client_of("127.0.0.1", "10.0.0.0/8", &[field]), "127.0.0.1");
            for (peer, trusted) in [
                ("127.0.0.1", "127.0.0.0/8"),
                ("::ffff:127.0.0.1", "127.0.0.1"),
                ("127.0.0.1", "10.0.0.0/8 ::ffff:127.0.0.1"),
                ("::1", "::1"),
            ] {
                assert_eq!(client_of(peer, trusted, &[field]), "192.0.2.7", "{peer}");
            }
        }
        assert_eq!(client_of("::ffff:192.0.2.1", "", &[]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_that_does_not_name_its_client_leaves_the_client_unknown() {
        for fields in [
            &[][..],
            &["X-Real-IP: 127.0.0.1"],
            &["X-Real-IP: 192.0.2.7"],
            &["X-Client-IP: 127.0.0.1", "Via: 1.1 a"],
            &["X-Forwarded-Host: 127.0.0.1"],
            &["X-Forwarded-For:"],
            &["X-Forwarded-For: , ,"],
            &["X-Forwarded-For: ", "X-Forwarded-For: "],
            &["Forwarded:"],
            &["Forwarded:", "X-Forwarded-For:"],
            &["Forwarded: proto=http"],
            &["Forwarded: by=127.0.0.1"],
            &["Forwarded:", "X-Forwarded-For: 127.0.0.1"],
            &["Forwarded: for=127.0.0.1", "X-Forwarded-For:"],
        ] {
            let found = client_of("127.0.0.1", "127.0.0.1 10.0.0.0/8", fields);
            assert_eq!(found, "127.0.0.1?", "{fields:?}");
            // The address of a peer that is not a proxy is known, whatever the peer
            // sends.
            let found = client_of("127.0.0.1", "10.0.0.0/8", fields);
            assert_eq!(found, "127.0.0.1", "{fields:?}");
        }
    }

    /// The value of the field, and the client. The peer is 127.0.0.1; it and 10.0.0.0/8
    /// are trusted.
    #[rustfmt::skip]
    const X_FORWARDED_FOR: &[(&str, &str)] = &[
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        // The list is read from the right, up to the first address that is not trusted.
        ("192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("192.0.2.7,10.0.0.1 ,\t10.0.0.2", "192.0.2.7"),
        ("192.0.2.7, 198.51.100.1, 10.0.0.1", "198.51.100.1"),
        ("10.0.0.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.3, 10.0.0.1", "10.0.0.3"),
        ("127.0.0.1", "127.0.0.1"),
        (", ,192.0.2.7, ,", "192.0.2.7"),
        // A member that cannot be parsed ends the search.
        ("", "127.0.0.1?"),
        ("unknown", "127.0.0.1?"),
        ("192.0.2.7, unknown", "127.0.0.1?"),
        ("192.0.2.7, unknown, 10.0.0.1", "10.0.0.1?"),
        ("192.0.2.7, 10.0.0.1.1, 10.0.0.1", "10.0.0.1?"),
        ("192.0.2.7 10.0.0.1", "127.0.0.1?"),
        ("192.0.2.7, fe80::1%eth0", "127.0.0.1?"),
        ("010.0.0.1", "127.0.0.1?"),
        ("192.0.2.7, \"10.0.0.1\"", "127.0.0.1?"),
        ("192.0.2.7, 10.0.0.1:", "127.0.0.1?"),
        ("192.0.2.7, 10.0.0.1:http", "127.0.0.1?"),
        ("192.0.2.7, [::1", "127.0.0.1?"),
        ("192.0.2.7, [10.0.0.1]", "127.0.0.1?"),
        ("192.0.2.7, for=10.0.0.1", "127.0.0.1?"),
        ("\u{e9}, 10.0.0.1", "10.0.0.1?"),
    ];

    #[rustfmt::skip]
    const FORWARDED: &[(&str, &str)] = &[
        ("for=192.0.2.7", "192.0.2.7"),
        ("FOR=\"192.0.2.7\"", "192.0.2.7"),
        ("for=\"192.0.2.7:4711\"", "192.0.2.7"),
        ("for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("for=\"[::ffff:192.0.2.7]:_http\"", "192.0.2.7"),
        ("for=\"192\\.0.2.7\"", "192.0.2.7"),
        ("for=192.0.2.7;proto=http;by=203.0.113.43", "192.0.2.7"),
        ("proto=http; For=192.0.2.7 ;", "192.0.2.7"),
        ("by=\"a;for=198.51.100.1,b\";for=192.0.2.7", "192.0.2.7"),
        ("for=192.0.2.7, for=10.0.0.1", "192.0.2.7"),
        ("for=192.0.2.7, for=198.51.100.1;by=\"x,y\", for=10.0.0.1", "198.51.100.1"),
        ("for=192.0.2.7,, ,for=10.0.0.1,", "192.0.2.7"),
        // An obfuscated name is not an address.
        ("for=_hidden", "127.0.0.1?"),
        ("for=unknown", "127.0.0.1?"),
        ("for=\"unknown:80\"", "127.0.0.1?"),
        ("for=192.0.2.7, for=_hidden, for=10.0.0.1", "10.0.0.1?"),
        // A quote that a client left open does not hide what a proxy has appended.
        ("for=\"192.0.2.7, for=198.51.100.1", "198.51.100.1"),
        ("for=\", for=198.51.100.1;by=\"x\"", "198.51.100.1"),
        ("for=192.0.2.7;by=\"\\\", for=198.51.100.1", "198.51.100.1"),
        ("for=\"192.0.2.7, for=10.0.0.1", "10.0.0.1?"),
        // A malformed member ends the search.
        ("", "127.0.0.1?"),
        ("192.0.2.7", "127.0.0.1?"),
        ("for=", "127.0.0.1?"),
        ("for=\"\"", "127.0.0.1?"),
        ("for=\"", "127.0.0.1?"),
        ("for = 192.0.2.7", "127.0.0.1?"),
        ("for=192.0.2.7:4711", "127.0.0.1?"),
        ("for=[2001:db8::1]", "127.0.0.1?"),
        ("for=\"2001:db8::1\"", "127.0.0.1?"),
        ("for=\"[2001:db8::1\"", "127.0.0.1?"),
        ("for=\"[192.0.2.7]\"", "127.0.0.1?"),
        ("for=\"192.0.2.7:\"", "127.0.0.1?"),
        ("for=\"192.0.2.7:123456\"", "127.0.0.1?"),
        ("for=\"192.0.2.7:_\"", "127.0.0.1?"),
        ("for=\"192.0.2.7\\\"", "127.0.0.1?"),
        ("for=\"192.0.2.7\"x", "127.0.0.1?"),
        ("for=192.0.2.7;for=192.0.2.7", "127.0.0.1?"),
        ("for=192.0.2.7;proto", "127.0.0.1?"),
        ("proto=http", "127.0.0.1?"),
        ("for=192.0.2.7, by=10.0.0.1", "127.0.0.1?"),
        ("for=192.0.2.7;=x", "127.0.0.1?"),
    ];

    #[test]
    fn a_list_is_read_from_the_right_up_to_the_first_address_that_is_not_trusted() {
        let rows = [
            ("X-Forwarded-For", X_FORWARDED_FOR),
            ("Forwarded", FORWARDED),
        ];
        for (name, table) in rows {
            for (value, client) in table {
                let field = format!("{name}: {value}");
                let found = client_of("127.0.0.1", "127.0.0.1 10.0.0.0/8", &[&field]);
                assert_eq!(found, *client, "{field}");
            }
        }
    }

    #[test]
    fn several_fields_are_one_list() {
        for (fields, client) in [
            (
                ["X-Forwarded-For: 192.0.2.7", "x-forwarded-for: 10.0.0.1"],
                "192.0.2.7",
            ),
            (
                ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 192.0.2.7"],
                "192.0.2.7",
            ),
            (
                ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: "],
                "192.0.2.7",
            ),
            (
                ["Forwarded: for=192.0.2.7", "Forwarded: for=10.0.0.1"],
                "192.0.2.7",
            ),
            // A quoted string ends with its field.
            (
                ["Forwarded: for=\"", "Forwarded: for=192.0.2.7"],
                "192.0.2.7",
            ),
        ] {
            let found = client_of("127.0.0.1", "127.0.0.1 10.0.0.0/8", &fields);
            assert_eq!(found, client, "{fields:?}");
        }
    }

    #[test]
    fn two_fields_that_contradict_each_other_leave_the_client_unknown() {
        for (fields, client) in [
            (
                ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7"],
                "192.0.2.7",
            ),
            (
                [
                    "X-Forwarded-For: 192.0.2.7",
                    "Forwarded: for=\"192.0.2.7:1\", for=10.0.0.1",
                ],
                "192.0.2.7",
            ),
            (
                ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=198.51.100.1"],
                "127.0.0.1?",
            ),
            (
                ["X-Forwarded-For: 192.0.2.7", "Forwarded: nonsense"],
                "127.0.0.1?",
            ),
            (
                ["Forwarded: for=192.0.2.7", "X-Forwarded-For: "],
                "127.0.0.1?",
            ),
        ] {
            let found = client_of("127.0.0.1", "127.0.0.1 10.0.0.0/8", &fields);
            assert_eq!(found, client, "{fields:?}");
        }
    }

    #[test]
    fn a_head_full_of_members_is_read_in_linear_time() {
        let limit = Config::default().max_head;
        for (name, value) in [
            ("X-Forwarded-For", "10.0.0.1,".repeat(limit / 10)),
            ("X-Forwarded-For", ",".repeat(limit - 100)),
            ("Forwarded", "\\".repeat(limit - 100)),
            ("Forwarded", "\"".repeat(limit - 100)),
            ("Forwarded", ";".repeat(limit - 100)),
        ] {
            let found = client_of(
                "127.0.0.1",
                "127.0.0.1 10.0.0.0/8",
                &[&format!("{name}: {value}")],
            );
            let is_proxy = ["127.0.0.1?", "10.0.0.1"].contains(&&*found);
            assert!(is_proxy, "{name}: {found}");
        }
    }
}
