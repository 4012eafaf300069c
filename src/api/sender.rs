//! Turns the header fields that a browser adds into the sender of a request: a program, a
//! page of this server, or a page of another site.
//!
//! A page may make its browser send a `POST` to any server that the browser can reach,
//! even to one on the user's own machine, and with the user's cookies. The browser only
//! hides the answer from the page. By then the event would be published. So this server
//! refuses whatever changes something to pages of other sites. What only reads is
//! answered: the browser decides whether the page sees the answer.
//!
//! These checks protect the users of browsers. A program can send any header field; what
//! it may do depends on its token and its address alone.

use std::net::IpAddr;

use super::action::Action;
use crate::http::{Refusal, Request};

/// The sender of a request, as far as its header fields tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender<'a> {
    /// A program, or a user who typed the URL into a browser: no header field names a
    /// page.
    Program,
    /// A page of this server, or of an origin in the list of `--cors-origin`.
    OwnPage,
    /// A page of another site, with its origin if the browser names it. `"null"` is the
    /// origin of a page in a sandboxed frame, of a local file, and of a page whose
    /// `Referer` cannot be read.
    OtherPage(Option<&'a str>),
}

impl<'a> Sender<'a> {
    /// Reads the sender from header fields that a browser sets and a page cannot forge:
    ///
    /// | `Origin` | `Sec-Fetch-Site` | `Referer` | sender |
    /// |---|---|---|---|
    /// | `null` | | | other page, with this origin |
    /// | there | `same-origin` | | own page |
    /// | there | any other value | | other page, with this origin |
    /// | there | missing | | own page if the origin has the host of the request, else other page |
    /// | missing | `same-origin`, `none` | | program (only a GET or HEAD of an own page looks like this) |
    /// | missing | any other value | | other page without an origin, such as an image or a link |
    /// | missing | missing | there | as with the `Origin` of its URL |
    /// | missing | missing | missing | program |
    ///
    /// SPEC: Fetch, 3.1: a browser sends `Origin` with every request whose method is not
    /// GET or HEAD, and with every request whose answer a script of another origin wants
    /// to read. Fetch Metadata, 2.3: it sends `Sec-Fetch-Site` only to https and to this
    /// machine. RFC 9110, 10.1.3: `Referer`, which a page can suppress.
    ///
    /// # Errors
    ///
    /// 400: one of the first two fields is there more than once, or is not UTF-8.
    pub(super) fn of(request: &'a Request) -> Result<Sender<'a>, Refusal> {
        let site = request.field("sec-fetch-site")?;
        let origin = match (request.field("origin")?, site) {
            (Some(origin), _) => origin,
            (None, Some("same-origin" | "none")) => return Ok(Sender::Program),
            (None, Some(_)) => return Ok(Sender::OtherPage(None)),
            (None, None) => match referring_origin(request) {
                Some(origin) => origin,
                None => return Ok(Sender::Program),
            },
        };
        let host = request.host().unwrap_or_default();
        let is_own = match (site, origin.split_once("://")) {
            _ if origin == "null" => false,
            // The browser compares whole origins, so its answer is better than a
            // comparison with `Host`: a proxy may have changed `Host`, and a page of
            // http://a is not of the same origin as https://a.
            (Some(site), _) => site == "same-origin",
            (None, Some((_, authority))) => authority.eq_ignore_ascii_case(host),
            (None, None) => false,
        };
        Ok(match is_own {
            true => Sender::OwnPage,
            false => Sender::OtherPage(Some(origin)),
        })
    }

    /// Whether the host that a request names can only be this machine.
    ///
    /// The owner of a domain can point a name in it to 127.0.0.1 (DNS rebinding). For a
    /// browser, the pages of that name are then pages of this server, and a GET from them
    /// has no field that tells the difference. A name that no domain owner can change,
    /// such as `localhost`, excludes this. A request without a host does not come from a
    /// browser.
    pub(super) fn has_local_host(self, host: &str) -> bool {
        is_local_host(host) || host.is_empty() && self == Sender::Program
    }

    /// The beginning of the error message for a page of another site that asks for more
    /// than reading. `None`: the sender is not a page of another site.
    pub(super) fn refusal(self, request: &Request, action: &Action<'_>) -> Option<String> {
        let page = match self {
            Sender::Program | Sender::OwnPage => return None,
            Sender::OtherPage(Some("null")) => "a page without an origin".into(),
            Sender::OtherPage(Some(origin)) => format!("a page of {origin}"),
            Sender::OtherPage(None) => "a page of another site".into(),
        };
        Some(format!("{page} may not {}", action.describe(request)))
    }
}

/// Returns the origin of the page that `Referer` names: `http://a.example:8080` of
/// `http://a.example:8080/b?c`. `"null"`: the field is there more than once, or is not a
/// URL, so it cannot be the page of this server. `None`: there is no such field.
fn referring_origin(request: &Request) -> Option<&str> {
    let mut values = request.fields("referer").filter(|value| !value.is_empty());
    let (url, other) = (values.next()?, values.next());
    let url = std::str::from_utf8(url).ok().filter(|_| other.is_none());
    let origin = url.and_then(|url| {
        let host = url.find("://")? + 3;
        let end = url[host..].find(['/', '?', '#']);
        Some(end.map_or(url, |end| &url[..host + end]))
    });
    Some(origin.unwrap_or("null"))
}

/// Whether a host, with or without a port, can only be this machine: `localhost` and the
/// names below it, which resolve to a loopback address (SPEC: RFC 6761, 6.3), and
/// loopback addresses themselves.
fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let last_label = name.rsplit('.').next().unwrap_or_default();
    last_label.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_localhost_names_are_local_hosts() {
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_local_host(own), "{own}");
        }
        for other in [
            "",
            "localhost.example.org",
            "evil.test",
            "127.0.0.1.example.org",
            "10.0.0.1:80",
            "[::2]",
            "notlocalhost",
            "0.0.0.0",
        ] {
            assert!(!is_local_host(other), "{other}");
        }
    }
}
