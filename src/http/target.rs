//! Turns the target of a request into a path and a query, both decoded. `head.rs` calls
//! [`parse`] once per request.
//!
//! For example, `/events/a%2fb?event=x+y&id=%zz` has the path `/events/a/b` and two
//! parameters: `event` is `x y`, and `id` is `%zz`, with the fault that its
//! percent-encoding is broken.
//!
//! A path is decoded strictly, because a proxy and this server must never understand one
//! path as two different ones. A query may have parameters that this server does not use.
//! So a broken percent-encoding is a fault of its parameter, and does not refuse the
//! whole request.

use std::fmt;
use std::net::Ipv6Addr;

use super::Refusal;

/// The parameters of a query, decoded, in order.
///
/// All names and values are in one text. A `Vec` of pairs of strings would take forty
/// times the bytes of the query `a&a&a&…`, and a poll that waits keeps its request for up
/// to a minute.
#[derive(Clone, Default)]
pub(super) struct Query {
    /// The names and values of all parameters, one after the other, without separators.
    text: String,
    /// One entry per parameter. LIMIT: a parameter takes at least two bytes of the
    /// target, and an entry has 12 bytes.
    ends: Vec<Ends>,
}

/// The offsets in [`Query::text`] at which the name and the value of a parameter end. The
/// name begins where the parameter before it ends, and the value begins where the name
/// ends.
#[derive(Clone, Copy)]
struct Ends {
    name: u32,
    value: u32,
    fault: Option<EncodingFault>,
}

/// One parameter of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: &'a str,
    /// What is wrong with its percent-encoding, if anything. Name and value are then
    /// decoded as browsers decode them.
    pub(crate) fault: Option<EncodingFault>,
}

/// What is wrong with a percent-encoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncodingFault {
    /// A `%` is not followed by two hexadecimal digits. It stays as it is.
    Percent,
    /// The decoded bytes are not UTF-8. U+FFFD replaces what is wrong.
    NotUtf8,
    /// The decoded text contains a NUL.
    Nul,
}

impl fmt::Display for EncodingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodingFault::Percent => "% is not followed by two hexadecimal digits",
            EncodingFault::NotUtf8 => "it is not UTF-8",
            EncodingFault::Nul => "it has a NUL",
        })
    }
}

impl Query {
    /// Decodes a query, the bytes after the `?`. A parameter without `=` has an empty
    /// value. Empty parameters, as in `a&&b`, are skipped.
    fn parse(query: &[u8]) -> Query {
        let pairs = || {
            query
                .split(|&byte| byte == b'&')
                .filter(|pair| !pair.is_empty())
        };
        let mut parsed = Query {
            text: String::with_capacity(query.len()),
            ends: Vec::with_capacity(pairs().count()),
        };
        for pair in pairs() {
            let (name, value) = split_once(pair, b'=').unwrap_or((pair, b""));
            let mut end = [0; 2];
            let mut fault = None;
            for (part, end) in [name, value].into_iter().zip(&mut end) {
                let (text, wrong) = decode(part, Space::Plus);
                parsed.text.push_str(&text);
                fault = fault.or(wrong);
                *end = parsed.text.len() as u32;
            }
            let [name, value] = end;
            parsed.ends.push(Ends { name, value, fault });
        }
        parsed
    }

    /// All parameters, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Parameter<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |ends| {
            let (name, value) = (ends.name as usize, ends.value as usize);
            let parameter = Parameter {
                name: &self.text[start..name],
                value: &self.text[name..value],
                fault: ends.fault,
            };
            start = value;
            parameter
        })
    }
}

/// The parts of a request target.
pub(super) struct Target {
    /// The host of an absolute form, with its port if it has one. The other forms have no
    /// host.
    pub(super) host: Option<String>,
    pub(super) path: String,
    pub(super) query: Query,
}

/// Parses the target of a request.
///
/// SPEC: RFC 9112, 3.2: `request-target = origin-form / absolute-form / authority-form /
/// asterisk-form`. The authority form belongs to CONNECT, which is only for proxies, and
/// is refused. The other forms are served. The host of an absolute form is not compared
/// with anything, because this server has only one site.
pub(super) fn parse(target: &[u8]) -> Result<Target, Refusal> {
    if target == b"*" {
        return Ok(Target {
            host: None,
            path: "*".into(),
            query: Query::default(),
        });
    }
    // LIMIT: offsets in `Query::text` have 32 bits, and a byte that is not UTF-8 becomes
    // three bytes, those of U+FFFD.
    if target.len() > u32::MAX as usize / 3 {
        return Err(Refusal::TargetTooLong(u32::MAX as usize / 3));
    }
    if let Some(at) = target
        .iter()
        .position(|&byte| matches!(byte, 0..=0x20 | 0x7f | b'#'))
    {
        return Err(Refusal::Target(format!(
            "{:?} at byte {at} must be percent-encoded",
            char::from(target[at])
        )));
    }
    let (host, target) = if target.starts_with(b"/") {
        (None, target)
    } else {
        let (authority, rest) = split_authority(target)?;
        (Some(String::from_utf8_lossy(authority).into()), rest)
    };
    let (path, query) = split_once(target, b'?').unwrap_or((target, b""));
    // SPEC: RFC 9110, 4.2.3: an empty path means `/`. Only the absolute form can have an
    // empty path.
    let path = if path.is_empty() { b"/" } else { path };
    let path = match decode(path, Space::Percent) {
        (path, None) => path,
        (_, Some(fault)) => return Err(Refusal::Target(fault.to_string())),
    };
    if let Some(segment) = path
        .split('/')
        .find(|&segment| segment == "." || segment == "..")
    {
        // A proxy may resolve such a segment, or may not. If it does not, its rules are
        // applied to another path.
        return Err(Refusal::Target(format!(
            "the path has the segment {segment:?}"
        )));
    }
    Ok(Target {
        host,
        path,
        query: Query::parse(query),
    })
}

/// Splits an absolute form into its authority and the rest, `/path?query`, of which both
/// parts may be missing. `https` is accepted, too: a proxy that decrypts TLS for this
/// server may pass the target on unchanged.
fn split_authority(target: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let scheme = ["http://", "https://"].into_iter().find(|scheme| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    });
    let Some(scheme) = scheme else {
        return Err(Refusal::Target("it must begin with / or http://".into()));
    };
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|&byte| byte == b'/' || byte == b'?');
    let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
    if is_authority(authority, Host::Needed) {
        Ok((authority, rest))
    } else {
        Err(Refusal::Target(
            "its host must be a name and may have a port".into(),
        ))
    }
}

/// Whether the host may be empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// The host of a target must not be empty: an `http` URI without a host is invalid
    /// (RFC 9110, 4.2.1).
    Needed,
    /// The field `Host` may be empty: it is empty if the target URI has no authority (RFC
    /// 9112, 3.2).
    MayBeEmpty,
}

/// Whether `text` is a host with or without a port, such as `localhost:8080`.
///
/// SPEC: RFC 9110, 7.2: `Host = uri-host [ ":" port ]`; RFC 3986, 3.2.2:
/// `host = IP-literal / IPv4address / reg-name`, and 3.2.3: `port = *DIGIT`. User
/// information, as in `name:password@host`, is refused (RFC 9110, 4.2.4).
pub(super) fn is_authority(text: &[u8], host: Host) -> bool {
    let (name, port) = match text.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !text.ends_with(b"]") => (&text[..colon], &text[colon + 1..]),
        _ => (text, &b""[..]),
    };
    let is_host = match name {
        [b'[', literal @ .., b']'] => is_ip_literal(literal),
        [] => host == Host::MayBeEmpty && text.is_empty(),
        _ => is_reg_name(name),
    };
    is_host && port.iter().all(u8::is_ascii_digit)
}

/// SPEC: RFC 3986, 3.2.2: `IP-literal = "[" ( IPv6address / IPvFuture ) "]"`. `literal`
/// is the text between the brackets. IPvFuture is refused, because no such version
/// exists. A zone after the address (`%25eth0`, RFC 6874) has a meaning only on the
/// client's machine, but some clients send it, so it is accepted.
fn is_ip_literal(literal: &[u8]) -> bool {
    let (address, zone) = split_once(literal, b'%').unwrap_or((literal, b"-"));
    let address = std::str::from_utf8(address).map(str::parse::<Ipv6Addr>);
    matches!(address, Ok(Ok(_))) && !zone.is_empty() && is_reg_name(zone)
}

/// SPEC: RFC 3986, 3.2.2: `reg-name = *( unreserved / pct-encoded / sub-delims )`
fn is_reg_name(mut name: &[u8]) -> bool {
    while let Some((&byte, rest)) = name.split_first() {
        name = match (byte, rest) {
            (b'%', [high, low, rest @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest
            }
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) => rest,
            _ => return false,
        };
    }
    true
}

/// The bytes before and after the first byte `at`. `None`: there is no such byte.
fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == at)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Whether `+` means a space, as `%20` does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// In paths it does not.
    Percent,
    /// In queries it does, because HTML forms and `URLSearchParams` write them so.
    Plus,
}

/// Decodes percent-encoded text, such as `%41` to `A`. Faults are ignored.
pub(super) fn percent_decoded(text: &[u8]) -> String {
    decode(text, Space::Percent).0
}

/// Decodes percent-encoded text, such as `%41` to `A`. Returns the text and the first
/// fault, if there is one. A `%` without two digits stays as it is, and bytes that are
/// not UTF-8 are replaced by U+FFFD.
///
/// SPEC: URL, 1.3, percent-decode, and 5.1, the `application/x-www-form-urlencoded`
/// parser: browsers decode every query in this way, and no query is an error for them.
fn decode(encoded: &[u8], space: Space) -> (String, Option<EncodingFault>) {
    let (mut bytes, mut fault) = (Vec::with_capacity(encoded.len()), None);
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let hex = |at: usize| char::from(*after.get(at)?).to_digit(16);
                match (hex(0), hex(1)) {
                    (Some(high), Some(low)) => {
                        rest = &after[2..];
                        (high * 16 + low) as u8
                    }
                    _ => {
                        fault = Some(EncodingFault::Percent);
                        b'%'
                    }
                }
            }
            b'+' if space == Space::Plus => b' ',
            other => other,
        });
    }
    let text = String::from_utf8(bytes).unwrap_or_else(|error| {
        fault = fault.or(Some(EncodingFault::NotUtf8));
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    });
    if text.contains('\0') {
        fault = fault.or(Some(EncodingFault::Nul));
    }
    (text, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_many_parameters_takes_less_than_eight_times_its_text() {
        let target = format!("/poll?{}", "a&".repeat(4000));
        let Ok(Target { query, .. }) = parse(target.as_bytes()) else {
            panic!("{target} is refused");
        };
        assert_eq!(query.iter().count(), 4000);
        // A poll may keep it for a minute.
        let bytes = query.text.capacity() + query.ends.capacity() * size_of::<Ends>();
        assert!(bytes < 8 * target.len(), "{bytes}");
    }

    #[test]
    fn a_broken_encoding_is_a_fault_of_its_parameter_alone() {
        let percent = Some(EncodingFault::Percent);
        for (query, name, value, fault) in [
            ("a=%41", "a", "A", None),
            ("a=b%", "a", "b%", percent),
            ("a=%4", "a", "%4", percent),
            ("a=%zz%41", "a", "%zzA", percent),
            ("a%=b", "a%", "b", percent),
            ("a=%%41", "a", "%A", percent),
            ("a=%ff", "a", "\u{fffd}", Some(EncodingFault::NotUtf8)),
            ("%e2%82=1", "\u{fffd}", "1", Some(EncodingFault::NotUtf8)),
            ("a=%00", "a", "\0", Some(EncodingFault::Nul)),
            ("a=+%2B", "a", " +", None),
        ] {
            let whole = format!("x=1&{query}&y");
            let parsed = Query::parse(whole.as_bytes());
            let parameters: Vec<_> = parsed.iter().collect();
            let expected = Parameter { name, value, fault };
            assert_eq!(parameters[1], expected, "{query}");
            let around = [&parameters[0], &parameters[2]].map(|p| (p.name, p.value, p.fault));
            assert_eq!(around, [("x", "1", None), ("y", "", None)], "{query}");
        }
    }
}
