//! The console page and the JavaScript clients: files of `src/console/` that are part of the program.
//!
//! The scripts are for pages of any origin. The page and the files that belong to it are there only where
//! `Config::console` says so, and for the page the browser is told to take nothing from elsewhere.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::{Answer, Api};
use crate::config::{Config, Console};
use crate::http::{Request, Response};
use crate::wire::Topic;

/// The path, the media type and the bytes of a file.
type Asset = (&'static str, &'static str, &'static [u8]);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The files that are there with a console alone.
static CONSOLE: [Asset; 3] = [
    ("/", HTML, include_bytes!("../console/index.html")),
    (
        "/console.js",
        JAVASCRIPT,
        include_bytes!("../console/console.js"),
    ),
    (
        "/console.css",
        CSS,
        include_bytes!("../console/console.css"),
    ),
];

/// The files that are always there.
static SCRIPTS: [Asset; 2] = [
    (
        "/sse-client.js",
        JAVASCRIPT,
        include_bytes!("../console/sse-client.js"),
    ),
    (
        "/use-sse.js",
        JAVASCRIPT,
        include_bytes!("../console/use-sse.js"),
    ),
];

/// What the page may load and do: its own scripts and styles, and talk to its own server.
///
/// SPEC: Content Security Policy Level 3. `base-uri`, `form-action` and `frame-ancestors` do not
/// fall back on `default-src`.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The file at `path`, if this server has it.
fn file(path: &str, config: &Config) -> Option<&'static Asset> {
    let of_console: &[Asset] = match config.console {
        Console::On => &CONSOLE,
        _ => &[],
    };
    let mut files = SCRIPTS.iter().chain(of_console);
    files.find(|(own, ..)| *own == path)
}

/// Whether a file is at `path`.
pub(super) fn has(path: &str, config: &Config) -> bool {
    file(path, config).is_some()
}

/// Answers with a file; at `/` only a browser gets the page, and every other client the index.
pub(super) fn answer(api: &Api, request: &Request, _: Option<Topic>) -> Answer {
    let is_page = request.path() == "/";
    let file = file(request.path(), &api.config).filter(|_| !is_page || wants_html(request));
    Ok(match file.map(|file| with_tag(request, file)) {
        None => api.index(request).with("Vary", "Accept"),
        Some(page) if is_page => page
            .with("Content-Security-Policy", PAGE_POLICY)
            .with("Referrer-Policy", "no-referrer")
            .with("Vary", "Accept"),
        Some(file) => file,
    })
}

/// The file, or the answer that it has not changed since the client got it.
fn with_tag(request: &Request, (_, kind, bytes): &Asset) -> Response {
    // Of the content alone, so that it outlives a restart. It need not be hard to forge.
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let etag = format!("\"{:016x}\"", hasher.hash_one(bytes));
    let response = match has_already(request, &etag) {
        true => Response::new(304),
        false => Response::new(200).with_body(kind, *bytes),
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
