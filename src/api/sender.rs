//! Where a request comes from: a program, a page of this server, or a page of another site.
//!
//! A browser sends a page's `POST` to any server that it can reach, on the user's own machine too,
//! and with the user's cookies; it only keeps the answer from the page. So the server refuses to pages of
//! other sites what changes something, and leaves to the browser what only reads.

use std::net::IpAddr;

use super::action::Action;
use crate::http::{Refusal, Request};

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender<'a> {
    /// No page: browsers mark the requests of their pages, and other programs have no reason to.
    Program,
    /// A page of this server.
    OwnPage,
    /// A page of another site, with its origin if the browser says it.
    OtherPage(Option<&'a str>),
}

impl<'a> Sender<'a> {
    /// Finds out by what browsers say of their pages, which pages cannot change.
    ///
    /// SPEC: Fetch, 3.1: `Origin` is there in every request that is not GET or HEAD, and in every one
    /// that is to be shared; Fetch Metadata, 2.3: `Sec-Fetch-Site`, where the URL is trustworthy. RFC
    /// 9110, 10.1.3: `Referer`, which a page can leave out, but not forge.
    pub(super) fn of(request: &'a Request) -> Result<Sender<'a>, Refusal> {
        let site = request.field("sec-fetch-site")?;
        let origin = match (request.field("origin")?, site) {
            (Some(origin), _) => origin,
            (None, Some("same-origin" | "none")) => return Ok(Sender::Program),
            // An image, say, or a link.
            (None, Some(_)) => return Ok(Sender::OtherPage(None)),
            (None, None) => match referring_origin(request) {
                Some(origin) => origin,
                None => return Ok(Sender::Program),
            },
        };
        let host = request.host().unwrap_or_default();
        let is_own = match (site, origin.split_once("://")) {
            _ if origin == "null" => false,
            // A proxy may have changed Host, and http://here is another site than https://here. The
            // browser knows.
            (Some(site), _) => site == "same-origin",
            (None, Some((_, authority))) => authority.eq_ignore_ascii_case(host),
            (None, None) => false,
        };
        Ok(match is_own {
            true => Sender::OwnPage,
            false => Sender::OtherPage(Some(origin)),
        })
    }

    /// Whether a request with this `Host` can only be meant for this machine.
    ///
    /// The owner of a name can make it lead here, and then the pages of that name are pages of "this
    /// server" to a browser (DNS rebinding), which says nothing of them in a GET. So the name must be
    /// one that can only be this machine's. A request without a name does not come from a browser.
    pub(super) fn is_here(self, host: &str) -> bool {
        is_this_machine(host) || host.is_empty() && self == Sender::Program
    }

    /// The error message for a page of another site that asks for more than reading. `None`: not such a page.
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

/// The origin of the page that `Referer` names. It is no origin if that cannot be read.
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

/// Whether `Host` can only be this machine.
fn is_this_machine(host: &str) -> bool {
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
    fn only_names_that_lead_nowhere_else_are_this_machine() {
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
            assert!(is_this_machine(own), "{own}");
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
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
