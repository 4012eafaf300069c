//! The console page and the JavaScript clients: files of `src/console/` that are part of the
//! program, or none of them without the feature `console`.
//!
//! The scripts are for pages of any origin. The page and what belongs to it are there only where
//! `Config::console` says so, and for the page the browser is told to take nothing from elsewhere.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::{Api, routes};
use crate::http::{Request, Response};

/// A file, as it is served.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "console"),
    allow(dead_code, reason = "there is none then")
)]
pub(super) struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    place: Place,
}

/// Where a file is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "console"),
    allow(dead_code, reason = "there is no file then")
)]
enum Place {
    Everywhere,
    Console,
}

#[cfg(feature = "console")]
static PAGE: Option<Asset> = Some(Asset {
    path: "/",
    kind: "text/html; charset=utf-8",
    bytes: include_bytes!("../console/index.html"),
    place: Place::Console,
});

#[cfg(feature = "console")]
static ASSETS: [Asset; 4] = [
    Asset {
        path: "/console.js",
        kind: JAVASCRIPT,
        bytes: include_bytes!("../console/console.js"),
        place: Place::Console,
    },
    Asset {
        path: "/console.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../console/console.css"),
        place: Place::Console,
    },
    Asset {
        path: "/sse-client.js",
        kind: JAVASCRIPT,
        bytes: include_bytes!("../console/sse-client.js"),
        place: Place::Everywhere,
    },
    Asset {
        path: "/use-sse.js",
        kind: JAVASCRIPT,
        bytes: include_bytes!("../console/use-sse.js"),
        place: Place::Everywhere,
    },
];

#[cfg(feature = "console")]
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

#[cfg(not(feature = "console"))]
static PAGE: Option<Asset> = None;
#[cfg(not(feature = "console"))]
static ASSETS: [Asset; 0] = [];

/// What the page may load and do: its own scripts and styles, and talk to its own server.
///
/// SPEC: Content Security Policy Level 3. `base-uri`, `form-action` and `frame-ancestors` do not
/// fall back on `default-src`.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

impl Api {
    /// The file at `path`, if it is to be had here.
    pub(super) fn asset(&self, path: &str) -> Option<&'static Asset> {
        let asset = ASSETS.iter().find(|asset| asset.path == path)?;
        (asset.place == Place::Everywhere || self.has_console()).then_some(asset)
    }

    fn has_console(&self) -> bool {
        #[cfg(feature = "console")]
        return self.config.console == crate::Console::On;
        #[cfg(not(feature = "console"))]
        false
    }

    /// `GET /`: the page to a browser, a text to everybody else.
    pub(super) fn front(&self, request: &Request) -> Response {
        match PAGE.as_ref().filter(|_| self.has_console()) {
            None => routes::index(request),
            Some(page) if wants_html(request) => page
                .answer(request)
                .with("Content-Security-Policy", PAGE_POLICY)
                .with("Referrer-Policy", "no-referrer")
                .with("Vary", "Accept"),
            Some(_) => routes::index(request).with("Vary", "Accept"),
        }
    }
}

impl Asset {
    /// The file; or that it has not changed since the client had it.
    pub(super) fn answer(&self, request: &Request) -> Response {
        let etag = self.etag();
        let response = if has_already(request, &etag) {
            Response::new(304)
        } else {
            Response::new(200).with_body(self.kind, self.bytes)
        };
        // To be asked for each time, so that a page and its scripts are of the same build.
        response
            .with("ETag", etag)
            .with("Cache-Control", "no-cache")
            .with("X-Content-Type-Options", "nosniff")
    }

    /// Of the content alone, so that it outlives a restart. It need not be hard to forge.
    fn etag(&self) -> String {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        format!("\"{:016x}\"", hasher.hash_one(self.bytes))
    }
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
