//! The console page and the JavaScript clients: files of `src/console/` that are part of the program.
//!
//! The scripts are for pages of any origin. The page and the files that belong to it are there only where
//! `Config::console` says so, and for the page the browser is told to take nothing from elsewhere.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;

use super::{Answer, Api};
use crate::config::{Config, Console};
use crate::http::{Request, Response};
use crate::wire::Topic;

/// What the page may load and do: its own scripts and styles, and talk to its own server.
///
/// SPEC: Content Security Policy Level 3. `base-uri`, `form-action` and `frame-ancestors` do not
/// fall back on `default-src`.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Decides for a server that listens at `address` whether it has a console.
pub(super) fn decided(mut config: Config, address: Option<SocketAddr>) -> Config {
    if let Some(address) = address {
        let is_proxied = !config.trust_proxy.is_empty();
        config.console = config.console.at(address, is_proxied);
    }
    config
}

/// The media type and the bytes of the file at `path`, if this server has it.
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
        // `tiny-sse demo` answers this path itself, with a script that shows the tabs of its six uses.
        "/demo.js" if is_on => (JAVASCRIPT, include_bytes!("../console/demo.js")),
        "/sse-client.js" => (JAVASCRIPT, include_bytes!("../console/sse-client.js")),
        "/use-sse.js" => (JAVASCRIPT, include_bytes!("../console/use-sse.js")),
        _ => return None,
    };
    Some((kind, bytes))
}

/// Answers with a file; at `/` only a browser gets the page, and every other client the index.
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

/// The file, or the answer that it has not changed since the client got it.
fn with_tag(request: &Request, kind: &'static str, bytes: &'static [u8]) -> Response {
    // Of the content alone, so that it outlives a restart. It need not be hard to forge.
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let etag = format!("\"{:016x}\"", hasher.hash_one(bytes));
    let response = match has_already(request, &etag) {
        true => Response::new(304),
        false => Response::new(200).with_body(kind, bytes),
    };
    // To be asked for each time, so that a page and its scripts are of the same build.
    response
        .with("ETag", etag)
        .with("Cache-Control", "no-cache")
        .with("X-Content-Type-Options", "nosniff")
}

/// SPEC: RFC 9110, 13.1.2: `If-None-Match = "*" / #entity-tag`, compared weakly. One that is
/// not understood is no condition.
fn has_already(request: &Request, etag: &str) -> bool {
    let known = request.field("if-none-match").ok().flatten();
    let mut tags = known.into_iter().flat_map(|known| known.split(','));
    tags.any(|tag| {
        let tag = tag.trim_ascii();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

/// SPEC: RFC 9110, 12.5.1: `Accept = #( media-range [ weight ] )`. A browser names `text/html` when
/// it goes to a page; `*/*`, as curl and fetch send it, is no browser to show a page to.
fn wants_html(request: &Request) -> bool {
    let accept = request.field("accept").ok().flatten();
    let mut ranges = accept.into_iter().flat_map(|accept| accept.split(','));
    ranges.any(|range| {
        let kind = range.split(';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case("text/html")
    })
}
