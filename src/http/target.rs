//! Turns a request target into a path and a query, both decoded.

use super::Refusal;

/// The pairs of a query, decoded, in order.
pub(super) type Query = Vec<(String, String)>;

/// Reads the target of a request into its path and query.
///
/// SPEC: RFC 9112, 3.2: `request-target = origin-form / absolute-form / authority-form / asterisk-form`.
/// The authority form belongs to CONNECT, which is for proxies; the others are served. The host of
/// an absolute form does not matter here: there is one site.
pub(super) fn parse(target: &[u8]) -> Result<(String, Query), Refusal> {
    if target == b"*" {
        return Ok(("*".into(), Query::new()));
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
    let target = if target.starts_with(b"/") {
        target
    } else {
        behind_authority(target)?
    };
    let (path, query) = split_once(target, b'?').unwrap_or((target, b""));
    let path = decode(path, Space::Percent)?;
    if let Some(segment) = path
        .split('/')
        .find(|&segment| segment == "." || segment == "..")
    {
        // A proxy in front may already have resolved it, or may not: two readers, two paths.
        return Err(Refusal::Target(format!(
            "the path has the segment {segment:?}"
        )));
    }
    let pairs = query
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = split_once(pair, b'=').unwrap_or((pair, b""));
            Ok((decode(name, Space::Plus)?, decode(value, Space::Plus)?))
        });
    Ok((path, pairs.collect::<Result<Query, Refusal>>()?))
}

/// `/path?query` of an absolute form. Without a path it is `/`.
fn behind_authority(target: &[u8]) -> Result<&[u8], Refusal> {
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
    if !is_authority(&rest[..end.unwrap_or(rest.len())], Host::Needed) {
        return Err(Refusal::Target(
            "its host must be a name and may have a port".into(),
        ));
    }
    match end {
        Some(at) if rest[at] == b'/' => Ok(&rest[at..]),
        Some(_) => Err(Refusal::Target("it has a query but no path".into())),
        None => Ok(b"/"),
    }
}

/// Whether a host must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// In a target: an `http` URI without a host is invalid (RFC 9110, 4.2.1).
    Needed,
    /// In the field: empty where the target has no authority (RFC 9112, 3.2).
    MayBeEmpty,
}

/// SPEC: RFC 9110, 7.2: `Host = uri-host [ ":" port ]`; RFC 3986, 3.2.2: `host = IP-literal /
/// IPv4address / reg-name`, `reg-name = *( unreserved / pct-encoded / sub-delims )`. User
/// information is refused with the rest (RFC 9110, 4.2.4).
pub(super) fn is_authority(text: &[u8], host: Host) -> bool {
    let (name, port) = match text.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !text.ends_with(b"]") => (&text[..colon], &text[colon + 1..]),
        _ => (text, &b""[..]),
    };
    let is_reg_name =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_name = match name {
        [b'[', literal @ .., b']'] => {
            let is_literal = |byte: &u8| is_reg_name(byte) || *byte == b':';
            !literal.is_empty() && literal.iter().all(is_literal)
        }
        [] => host == Host::MayBeEmpty && text.is_empty(),
        _ => name.iter().all(is_reg_name),
    };
    is_name && port.iter().all(u8::is_ascii_digit)
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == at)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// How a space is written, besides `%20`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// In paths: not at all.
    Percent,
    /// In queries, as HTML forms and `URLSearchParams` write them: `+`.
    Plus,
}

/// Resolves `%41`, which must come out as UTF-8 without NUL.
fn decode(encoded: &[u8], space: Space) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match byte {
            b'%' => {
                let hex = |at: usize| char::from(*behind.get(at)?).to_digit(16);
                let (Some(high), Some(low)) = (hex(0), hex(1)) else {
                    return Err(Refusal::Target(
                        "% is not followed by two hexadecimal digits".into(),
                    ));
                };
                rest = &behind[2..];
                (high * 16 + low) as u8
            }
            b'+' if space == Space::Plus => b' ',
            other => other,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Target("it is not UTF-8".into()))?;
    if text.contains('\0') {
        Err(Refusal::Target("it has a NUL".into()))
    } else {
        Ok(text)
    }
}
