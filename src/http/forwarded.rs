//! Turns the address of a peer, and what proxies that are trusted say in a head, into the address
//! of the client.
//!
//! Each proxy adds the address that it was spoken to from at the right end of a list, and whatever
//! is left of that came with the request: anybody can write anything there. So the list is read
//! from the right, and only as long as who wrote the next member is trusted. The first address that
//! is not trusted is the client's. What cannot be read ends the walk where it is: beyond that
//! nobody is known to have written it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::head::{RequestHead, is_tchar, trim_ows};
use crate::wire::Network;

/// The client that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientAddr {
    pub(super) address: IpAddr,
    /// False: `address` is that of the last trusted proxy, and that proxy does not say which client
    /// spoke to it. Such a client has no right that depends on its address.
    pub(super) is_known: bool,
}

/// Who sent a request that came from `peer`.
///
/// There are two fields for it. A proxy adds to one and passes the other on as the client sent it,
/// and nothing says which one that is: nginx, told to write `X-Forwarded-For`, passes on any
/// `Forwarded`. So if both are there, they must agree; if they do not, one of them is a lie, and the
/// request counts as the proxy's own. A client that lies about its address wins nothing by it.
pub(super) fn client(peer: IpAddr, head: &RequestHead, trusted: &[Network]) -> ClientAddr {
    let peer = peer.to_canonical();
    let itself = |is_known| ClientAddr {
        address: peer,
        is_known,
    };
    // Looked at before the fields are, of which a peer without trust may send as many as it likes.
    if !trusts(trusted, peer) {
        return itself(true);
    }
    let told = |name: &str, address: fn(&[u8]) -> Option<IpAddr>| {
        let fields: Vec<&[u8]> = head.fields(name).collect();
        (!fields.is_empty()).then(|| walk(peer, &fields, address, trusted))
    };
    match (
        told("forwarded", forwarded_for),
        told("x-forwarded-for", x_forwarded_for),
    ) {
        (Some(one), Some(other)) if one != other => itself(false),
        (Some(told), _) | (None, Some(told)) => told,
        // A proxy that does not name its client, or names it in another field (`X-Real-IP`).
        (None, None) => itself(false),
    }
}

/// Whether one of the networks has the address.
pub(super) fn trusts(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// SPEC: RFC 9110, 5.3: fields of one name are one list. LIMIT: the head; each byte is looked at once
/// or twice.
fn walk(
    peer: IpAddr,
    fields: &[&[u8]],
    address: fn(&[u8]) -> Option<IpAddr>,
    trusted: &[Network],
) -> ClientAddr {
    let members = fields
        .iter()
        .rev()
        .flat_map(|field| FromTheRight(field, b','));
    // SPEC: RFC 9110, 5.6.1.2: empty members are passed over.
    let mut members = members.map(trim_ows).filter(|member| !member.is_empty());
    let mut client = ClientAddr {
        address: peer,
        // The peer is a proxy. A field without a member says nothing of its client.
        is_known: false,
    };
    while trusts(trusted, client.address) {
        // At the end of the list, the client itself is in a trusted network.
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

/// The parts of a text between separators that are not in a quoted string, the last first. Read
/// from the right, so that a quote which a client has left open takes nothing of what a proxy
/// added behind it.
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

/// SPEC: RFC 9110, 5.6.4: `quoted-pair = "\" ( HTAB / SP / VCHAR / obs-text )`
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text[..at].iter().rev();
    before.take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The address in a member of `X-Forwarded-For`, which nobody has specified: an address, that some
/// write with its port.
fn x_forwarded_for(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    text.parse().ok().or_else(|| node(text))
}

/// SPEC: RFC 7239, 4: `forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )`,
/// `forwarded-pair = token "=" value`, no name twice. White space around the `;`, which the grammar
/// has no place for, is common.
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

/// SPEC: RFC 7239, 6: `node = nodename [ ":" node-port ]`, `nodename = IPv4address / "[" IPv6address
/// "]" / "unknown" / obfnode`, `node-port = port / obfport`. The last two names are nobody's address.
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

/// SPEC: RFC 7239, 6: `port = 1*5DIGIT`, `obfport = "_" 1*( ALPHA / DIGIT / "." / "_" / "-")`
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

    /// The client of a request from `peer` with these fields, as text; with a `?` if that is the last
    /// proxy, which does not say who its client is.
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
    fn only_who_is_trusted_is_believed() {
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
            // The address of a peer that is not a proxy is known, whatever the peer sends.
            let found = client_of("127.0.0.1", "10.0.0.0/8", fields);
            assert_eq!(found, "127.0.0.1", "{fields:?}");
        }
    }

    /// The value of the field, and the client. The peer is 127.0.0.1; it and 10.0.0.0/8 are trusted.
    #[rustfmt::skip]
    const X_FORWARDED_FOR: &[(&str, &str)] = &[
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        // From the right, past who is trusted, and no further.
        ("192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("192.0.2.7,10.0.0.1 ,\t10.0.0.2", "192.0.2.7"),
        ("192.0.2.7, 198.51.100.1, 10.0.0.1", "198.51.100.1"),
        ("10.0.0.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.3, 10.0.0.1", "10.0.0.3"),
        ("127.0.0.1", "127.0.0.1"),
        (", ,192.0.2.7, ,", "192.0.2.7"),
        // What cannot be read ends it.
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
        // A name that only its proxy understands.
        ("for=_hidden", "127.0.0.1?"),
        ("for=unknown", "127.0.0.1?"),
        ("for=\"unknown:80\"", "127.0.0.1?"),
        ("for=192.0.2.7, for=_hidden, for=10.0.0.1", "10.0.0.1?"),
        // What a client left open takes nothing from the proxy behind it.
        ("for=\"192.0.2.7, for=198.51.100.1", "198.51.100.1"),
        ("for=\", for=198.51.100.1;by=\"x\"", "198.51.100.1"),
        ("for=192.0.2.7;by=\"\\\", for=198.51.100.1", "198.51.100.1"),
        ("for=\"192.0.2.7, for=10.0.0.1", "10.0.0.1?"),
        // What is malformed ends it.
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
    fn a_list_is_walked_from_the_right_past_who_is_trusted() {
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
    fn two_fields_that_do_not_agree_are_not_believed() {
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
    fn a_head_full_of_members_is_read_through_once() {
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
            let trusted = ["127.0.0.1?", "10.0.0.1"].contains(&&*found);
            assert!(trusted, "{name}: {found}");
        }
    }
}
