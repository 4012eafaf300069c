//! Turns requests for the console page and the JavaScript clients into files: those of
//! `src/console/`, which are part of the program.
//!
//! The two clients, `/sse-client.js` and `/use-sse.js`, are always there, for pages of
//! any origin. The page and its own files are there only if `Config::console` is on. The
//! page can send the user's rights to this server, so its policy forbids the browser to
//! load anything from another server.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;

use super::{Answer, Api};
use crate::config::{Config, Console};
use crate::http::{Request, Response};
use crate::wire::Topic;

/// The browser lets the page load scripts and styles of this server, and send requests to
/// this server, and nothing else.
///
/// SPEC: Content Security Policy Level 3: `default-src` is not the default of `base-uri`,
/// `form-action` and `frame-ancestors`, so they are listed too.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Returns the configuration with `console` on or off instead of automatic, for a server
/// that listens at `address`. If the address is unknown, `Auto` stays, which [`file()`]
/// treats as off.
pub(super) fn decided(mut config: Config, address: Option<SocketAddr>) -> Config {
    if let Some(address) = address {
        let is_proxied = !config.trust_proxy.is_empty();
        config.console = config.console.at(address, is_proxied);
    }
    config
}

/// Returns the media type and the bytes of the file at `path`. `None`: this server does
/// not have it.
pub(super) fn file(path: &str, config: &Config) -> Option<(&'static str, &'static [u8])> {
    let is_on = config.console == Console::On;
    let (kind, bytes): (_, &[u8]) = match path {
        "/" if is_on => (
            "text/html; charset=utf-8",
            include_bytes!("../console/index.html"),
        ),
        "/console.js" if is_on => (JAVASCRIPT, include_bytes!("../console/console.js")),
        "/console.css" if is_on => (
            "text/css; charset=utf-8",
            include_bytes!("../console/console.css"),
        ),
        // `tiny-sse demo` answers this path itself, with a script that shows the tabs of
        // its six uses.
        "/demo.js" if is_on => (JAVASCRIPT, include_bytes!("../console/demo.js")),
        "/sse-client.js" => (JAVASCRIPT, include_bytes!("../console/sse-client.js")),
        "/use-sse.js" => (JAVASCRIPT, include_bytes!("../console/use-sse.js")),
        _ => return None,
    };
    Some((kind, bytes))
}

/// Answers with a file. At `/` a browser gets the page, and any other client the list of
/// endpoints.
pub(super) fn answer(api: &Api, request: &Request, _: Option<Topic>) -> Answer {
    let is_page = request.path() == "/";
    let file = file(request.path(), &api.config).filter(|_| !is_page || wants_html(request));
    Ok(
        match file.map(|(kind, bytes)| with_tag(request, kind, bytes)) {
            None => api.index(request).with("Vary", "Accept"),
            Some(page) if is_page => page
                .with("Content-Security-Policy", PAGE_POLICY)
                .with("Referrer-Policy", "no-referrer")
                .with("Vary", "Accept"),
            Some(file) => file,
        },
    )
}

/// Returns the file, or 304 if the client already has it.
fn with_tag(request: &Request, kind: &'static str, bytes: &'static [u8]) -> Response {
    // A hash of the content with a fixed key, so that the tag is the same after a
    // restart. A collision would do no harm.
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let etag = format!("\"{:016x}\"", hasher.hash_one(bytes));
    let response = match has_already(request, &etag) {
        true => Response::new(304),
        false => Response::new(200).with_body(kind, bytes),
    };
    // `no-cache`: the browser asks each time whether the file has changed, so that the
    // page and its scripts are of the same build.
    response
        .with("ETag", etag)
        .with("Cache-Control", "no-cache")
        .with("X-Content-Type-Options", "nosniff")
}

/// Whether `If-None-Match` names this entity tag. A field that is not understood counts
/// as missing.
///
/// SPEC: RFC 9110, 13.1.2: `If-None-Match = "*" / #entity-tag`, and 8.8.3.2, the weak
/// comparison: `W/` is ignored.
fn has_already(request: &Request, etag: &str) -> bool {
    let known = request.field("if-none-match").ok().flatten();
    let mut tags = known.into_iter().flat_map(|known| known.split(','));
    tags.any(|tag| {
        let tag = tag.trim_ascii();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

/// Whether the client is a browser that loads a page: then it names `text/html`. `*/*`,
/// which curl and `fetch` send, does not count.
///
/// SPEC: RFC 9110, 12.5.1: `Accept = #( media-range [ weight ] )`.
fn wants_html(request: &Request) -> bool {
    let accept = request.field("accept").ok().flatten();
    let mut ranges = accept.into_iter().flat_map(|accept| accept.split(','));
    ranges.any(|range| {
        let kind = range.split(';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case("text/html")
    })
}
