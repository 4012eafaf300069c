//! A second parser of heads and chunked bodies, written from RFC 9112 and independent of
//! the parser that serves. The tests compare the two. It is simple and slow: it gets all
//! bytes at once, as a text with one character for each byte.

use std::net::Ipv6Addr;

use super::{Facts, Verdict};
use crate::config::Config;
use crate::http::Version;
use crate::http::head::BodyLength;

/// The bytes are not a request that is served. This parser does not say why, or at which
/// byte.
#[derive(Debug)]
pub(super) struct Wrong;

/// Parses a head. `Ok(None)`: it is not complete.
pub(super) fn head(bytes: &[u8], limits: &Config) -> Verdict<Wrong> {
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let request = text.trim_start_matches("\r\n");
    let before = text.len() - request.len();
    let Some(end) = request.find("\r\n\r\n") else {
        return if may_go_on(request, limits) {
            Ok(None)
        } else {
            Err(Wrong)
        };
    };
    let facts = complete(&request[..end], limits).ok_or(Wrong)?;
    let len = text[..before + end + 4].chars().count();
    Ok(Some((facts, len)))
}

/// Whether the beginning of a head is right so far: its first byte, and each complete
/// line.
fn may_go_on(text: &str, limits: &Config) -> bool {
    // The last line is not complete and is not checked.
    let Some((ended, _begun)) = text.rsplit_once('\n') else {
        return text.is_empty() || text.starts_with('\r') || text.starts_with(is_tchar);
    };
    let Some(ended) = ended.strip_suffix('\r') else {
        return false;
    };
    let mut lines = ended.split("\r\n");
    if lines.clone().any(|line| line.contains('\n')) {
        return false;
    }
    let first = lines
        .next()
        .is_some_and(|line| request_line(line, limits).is_some());
    first && lines.clone().all(|line| field(line).is_some()) && lines.count() <= limits.max_fields
}

fn complete(head: &str, limits: &Config) -> Option<Facts> {
    let mut lines = head.split("\r\n");
    let (method, target, version) = request_line(lines.next()?, limits)?;
    let fields: Vec<(String, String)> = lines.map(field).collect::<Option<_>>()?;
    let values = |name: &str| -> Vec<&str> {
        let named = fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value).collect()
    };
    let members = |name: &str| -> Vec<&str> {
        let lists = values(name).into_iter().flat_map(|value| value.split(','));
        lists
            .map(|member| member.trim_matches([' ', '\t']))
            .collect()
    };
    let has = |name: &str, token: &str| {
        members(name)
            .iter()
            .any(|one| one.eq_ignore_ascii_case(token))
    };
    let is_new = version == Version::Http11;
    let is_host = match *values("host") {
        [] => !is_new,
        [one] => one.is_empty() || is_authority(one),
        _ => false,
    };
    let (path, query) = target_parts(&target)?;
    let expectations = if is_new {
        members("expect")
    } else {
        Vec::new()
    };
    let expectations: Vec<_> = expectations
        .into_iter()
        .filter(|one| !one.is_empty())
        .collect();
    let is_expected = |other: &&str| other.eq_ignore_ascii_case("100-continue");
    let served = method != "CONNECT"
        && is_host
        && fields.len() <= limits.max_fields
        && expectations.iter().all(is_expected);
    let body = match (&*members("content-length"), &*members("transfer-encoding")) {
        ([], []) if !is_new && ["POST", "PUT", "PATCH"].contains(&&*method) => return None,
        ([], []) => BodyLength::None,
        ([], [coding]) if is_new && coding.eq_ignore_ascii_case("chunked") => BodyLength::Chunked,
        ([one, more @ ..], []) if more.iter().all(|other| other == one) => {
            let is_number = !one.is_empty() && one.chars().all(|digit| digit.is_ascii_digit());
            // A number that is too large for a `usize` becomes the largest one, as in the
            // parser that serves.
            is_number.then(|| BodyLength::Known(number(one, 10).unwrap_or(usize::MAX)))?
        }
        _ => return None,
    };
    served.then(|| Facts {
        method,
        version,
        fields: fields
            .iter()
            .map(|(name, value)| (raw(name), raw(value)))
            .collect(),
        path,
        query,
        body,
        expects_continue: !expectations.is_empty(),
        keep_alive: !has("connection", "close") && (is_new || has("connection", "keep-alive")),
    })
}

fn request_line(line: &str, limits: &Config) -> Option<(String, String, Version)> {
    let [method, target, version] = *line.split(' ').collect::<Vec<_>>() else {
        return None;
    };
    let version = match version.strip_prefix("HTTP/1.") {
        Some("0") => Version::Http10,
        Some("1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9") => Version::Http11,
        _ => return None,
    };
    let is_method = !method.is_empty() && method.chars().all(is_tchar);
    let is_target = !target.is_empty() && target.chars().count() <= limits.max_target;
    (is_method && is_target).then(|| (method.into(), target.into(), version))
}

/// The name and the value of a field line. Neither contains a line break, and the name
/// has no white space around it.
pub(super) fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let value = value.trim_matches([' ', '\t']);
    let is_cursor = name.eq_ignore_ascii_case("last-event-id");
    let control = |found: char| match found {
        '\t' => false,
        '\r' | '\n' | '\0' => true,
        other => other.is_ascii_control() && !is_cursor,
    };
    let good = !name.is_empty() && name.chars().all(is_tchar) && !value.contains(control);
    good.then(|| (name.into(), value.into()))
}

fn is_tchar(character: char) -> bool {
    character.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(character)
}

fn target_parts(target: &str) -> Option<(String, Vec<(String, String)>)> {
    if target == "*" {
        return Some(("*".into(), Vec::new()));
    }
    if target.contains(|found: char| found <= ' ' || found == '\x7f' || found == '#') {
        return None;
    }
    let lower = target.to_ascii_lowercase();
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| lower.starts_with(scheme));
    let origin = match scheme {
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let host = rest.split(['/', '?']).next()?;
            match &rest[host.len()..] {
                _ if !is_authority(host) => return None,
                "" => "/".to_owned(),
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            }
        }
        None => target.to_owned(),
    };
    let (path, query) = origin.split_once('?').unwrap_or((&origin, ""));
    if !path.starts_with('/') {
        return None;
    }
    let path = decoded(path)?;
    if path.split('/').any(|part| part == "." || part == "..") {
        return None;
    }
    let pairs = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let pair = pair.replace('+', "%20");
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            (decoded_as_browsers_do(name), decoded_as_browsers_do(value))
        });
    Some((path, pairs.collect()))
}

/// Decodes a name or a value of a query. A broken encoding does not refuse the request.
fn decoded_as_browsers_do(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = raw(parts.next().unwrap_or_default());
    for part in parts {
        let part = raw(part);
        let digits = part
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| number(digits, 16)) {
            Some(byte) => bytes.extend([&[byte as u8], &part[2..]].concat()),
            None => bytes.extend([b"%", &part[..]].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = raw(parts.next()?);
    for part in parts {
        let digits = part.get(..2)?;
        bytes.push(number(digits, 16)? as u8);
        bytes.extend(raw(&part[2..]));
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// Whether the text is a host, which is not empty, with or without a port.
fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((literal, port)) => (is_literal(literal), port),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(host), port)
        }
    };
    let is_port = |port: &str| port.chars().all(|digit| digit.is_ascii_digit());
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Whether the text is an IPv6 address, with or without a zone.
fn is_literal(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "none"));
    address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
}

/// Whether the text is a name, parts of which may be percent-encoded.
fn is_name(text: &str) -> bool {
    let known = |found: char| found.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(found);
    let mut parts = text.split('%');
    let is_encoded = |part: &str| {
        part.get(..2)
            .is_some_and(|digits| number(digits, 16).is_some() && part[2..].chars().all(known))
    };
    !text.is_empty()
        && parts.next().is_some_and(|part| part.chars().all(known))
        && parts.all(is_encoded)
}

/// The number that these digits are. `None`: the text has other characters, or the number
/// is too large for a `usize`.
pub(super) fn number(digits: &str, radix: u32) -> Option<usize> {
    let good = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    let significant = digits.trim_start_matches('0');
    match significant {
        _ if !good => None,
        "" => Some(0),
        // A number with more digits does not fit into a `usize` on any machine.
        _ if significant.len() > 20 => None,
        _ => u128::from_str_radix(significant, radix)
            .ok()?
            .try_into()
            .ok(),
    }
}

pub(super) fn raw(text: &str) -> Vec<u8> {
    text.chars().map(|character| character as u8).collect()
}

/// Decodes a chunked body. Returns the body and the number of bytes that it took with its
/// chunk sizes and line breaks. `Ok(None)`: it is not complete.
pub(super) fn chunks(bytes: &[u8], limits: &Config) -> Result<Option<(Vec<u8>, usize)>, Wrong> {
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = Lines(text.chars().collect());
    let mut body = Vec::new();
    // The bytes of size lines that count against the limit.
    let mut allowance = limits.max_head;
    loop {
        let Some(line) = lines.next(256)? else {
            return Ok(None);
        };
        let long = line.chars().count().saturating_sub(16);
        allowance = allowance.checked_sub(long).ok_or(Wrong)?;
        let digits = line.trim_start_matches(|digit: char| digit.is_ascii_hexdigit());
        let size = number(&line[..line.len() - digits.len()], 16);
        let size = size.filter(|_| are_extensions(digits)).ok_or(Wrong)?;
        if size == 0 {
            break;
        }
        if size > limits.max_body - body.len() {
            return Err(Wrong);
        }
        let come = size.min(lines.0.len());
        body.extend(lines.0.drain(..come).map(|byte| byte as u8));
        // The line after the data of a chunk must be empty.
        if come < size || lines.next(0)?.is_none() {
            return Ok(None);
        }
    }
    let mut room = limits.max_head;
    loop {
        let Some(line) = lines.next(room)? else {
            return Ok(None);
        };
        if line.is_empty() {
            return Ok(Some((body, bytes.len() - lines.0.len())));
        }
        field(&line).ok_or(Wrong)?;
        // The line break counts, too.
        room = room.checked_sub(line.chars().count() + 2).ok_or(Wrong)?;
    }
}

fn are_extensions(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let white = [' ', '\t'];
    let Some(name) = text.trim_start_matches(white).strip_prefix(';') else {
        return false;
    };
    let name = name.trim_start_matches(white);
    let rest = name.trim_start_matches(is_tchar);
    if rest.len() == name.len() {
        return false;
    }
    let Some(value) = rest.trim_start_matches(white).strip_prefix('=') else {
        return are_extensions(rest);
    };
    let value = value.trim_start_matches(white);
    let rest = match value.strip_prefix('"') {
        Some(quoted) => after_quotes(quoted),
        None => Some(value.trim_start_matches(is_tchar)).filter(|rest| rest.len() < value.len()),
    };
    rest.is_some_and(are_extensions)
}

fn after_quotes(text: &str) -> Option<&str> {
    let is_text = |found: char| found == '\t' || !found.is_ascii_control();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some(rest.as_str()),
            '\\' if !is_text(rest.next()?) => return None,
            other if !is_text(other) => return None,
            _ => {}
        }
    }
}

struct Lines(Vec<char>);

impl Lines {
    fn next(&mut self, longest: usize) -> Result<Option<String>, Wrong> {
        let text: String = self.0.iter().collect();
        let (line, ended) = match text.split_once("\r\n") {
            Some((line, _)) => (line, true),
            None => (text.strip_suffix('\r').unwrap_or(&text), false),
        };
        let count = line.chars().count();
        if line.contains('\n') || count > longest {
            return Err(Wrong);
        }
        if !ended {
            return Ok(None);
        }
        self.0.drain(..count + 2);
        Ok(Some(line.to_owned()))
    }
}
