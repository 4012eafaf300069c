//! Pages of other sites: which of them may read, which may do more, and what their browsers are
//! told of it.
//!
//! A browser sends a page's `POST` to any server that it can reach, on the user's own machine too,
//! and with the user's cookies; it only keeps the answer from the page. So what changes something is
//! refused to pages of other sites by the server, and only what reads is left to the browser.

use std::net::IpAddr;

use crate::http::{Refusal, Request, Response};
use crate::wire::Origin;

/// Where a request comes from, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// No page: browsers say it of their pages, and others have no reason to.
    Program,
    /// A page of this server.
    OwnPage,
    /// A page of an origin in the list.
    Listed,
    /// A page of another site, and the list has `*`.
    Anybody,
    /// A page of another site.
    Foreign,
}

impl Sender {
    /// Finds out by what browsers say of their pages, which pages cannot change.
    ///
    /// SPEC: Fetch, 3.1: `Origin` is there in every request that is not GET or HEAD, and in every one
    /// that is to be shared; Fetch Metadata, 2.3: `Sec-Fetch-Site`, where the URL is trustworthy. RFC
    /// 9110, 10.1.3: `Referer`, which a page can leave out, but not forge.
    pub(super) fn of(request: &Request, list: &[Origin]) -> Result<Sender, Refusal> {
        let site = request.field("sec-fetch-site")?;
        let origin = match (request.field("origin")?, site) {
            (Some(origin), _) => origin,
            (None, Some("same-origin" | "none")) => return Ok(Sender::Program),
            // An image, say, or a link.
            (None, Some(_)) => return Ok(Sender::Foreign),
            (None, None) => match referring_origin(request) {
                Some(origin) => origin,
                None => return Ok(Sender::Program),
            },
        };
        let host = request.host().unwrap_or_default();
        let is_own = || match site {
            // A proxy may have changed Host, and http://here is another site than https://here. The
            // browser knows.
            Some(site) => site == "same-origin",
            None => origin
                .split_once("://")
                .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        };
        Ok(if list.iter().any(|listed| listed.is(origin)) {
            Sender::Listed
        } else if origin != "null" && is_own() {
            Sender::OwnPage
        } else if list.iter().any(Origin::is_any) {
            Sender::Anybody
        } else {
            Sender::Foreign
        })
    }

    /// Whether it may do more than read.
    pub(super) fn may_write(self) -> bool {
        self != Sender::Foreign
    }

    /// Whether a request with this `Host` can only be meant for this machine.
    ///
    /// The owner of a name can make it lead here, and then the pages of that name are pages of "this
    /// server" to a browser (DNS rebinding), which says nothing of them in a GET. So the name must be
    /// one that can only be this machine's, or that of an origin in the list. A request without a name
    /// does not come from a browser.
    pub(super) fn is_here(self, host: &str, list: &[Origin]) -> bool {
        is_this_machine(host)
            || list.iter().any(|listed| listed.has_host(host))
            || host.is_empty() && self == Sender::Program
    }

    /// Whether its cookies speak for it: a page of any site makes its browser send them.
    pub(super) fn may_use_cookies(self) -> bool {
        matches!(self, Sender::Program | Sender::OwnPage | Sender::Listed)
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
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Tells the browser of a page that the page may read the answer, if it may.
///
/// SPEC: Fetch, 3.2.3: credentials and `*` exclude each other, so who is listed beside `*` is echoed.
pub(super) fn share(request: Option<&Request>, response: Response, list: &[Origin]) -> Response {
    let is_one_for_all = list.iter().all(Origin::is_any);
    let response = if is_one_for_all {
        response
    } else {
        response.with("Vary", "Origin")
    };
    // One that is not text is of nobody in the list.
    let origin = request.and_then(|request| request.field("origin").ok().flatten());
    let listed = origin.and_then(|origin| list.iter().find(|listed| listed.is(origin)));
    match listed {
        Some(origin) => response
            .with("Access-Control-Allow-Origin", origin.to_string())
            .with("Access-Control-Allow-Credentials", "true"),
        None if is_one_for_all || list.iter().any(Origin::is_any) => {
            response.with("Access-Control-Allow-Origin", "*")
        }
        None => response,
    }
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
