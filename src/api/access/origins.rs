//! The origins whose pages may do more than read, and what their browsers are told (`--cors-origin`).

use crate::api::sender::Sender;
use crate::http::{Request, Response};
use crate::wire::Origin;

/// The list of allowed origins. With none, pages of every origin may read.
#[derive(Debug)]
pub(super) struct Origins(pub(super) Vec<Origin>);

impl Origins {
    /// The sender, in whose place a page of an origin in the list is a page of this server.
    pub(super) fn adopt<'a>(&self, sender: Sender<'a>) -> Sender<'a> {
        match sender {
            Sender::OtherPage(Some(origin)) if self.listed(origin).is_some() => Sender::OwnPage,
            sender => sender,
        }
    }

    /// Whether a sender may do more than read. Its cookies count only if it is no page of another site:
    /// such a page makes its browser send them.
    pub(super) fn may_write(&self, sender: Sender<'_>) -> bool {
        match sender {
            Sender::OtherPage(None) => false,
            Sender::OtherPage(Some(_)) => self.has_any(),
            Sender::Program | Sender::OwnPage => true,
        }
    }

    /// Whether `Host` is the host of an origin in the list.
    pub(super) fn has_host(&self, host: &str) -> bool {
        self.0.iter().any(|listed| listed.has_host(host))
    }

    /// Tells the browser of a page that the page may read the answer, if it may.
    ///
    /// SPEC: Fetch, 3.2.3: credentials and `*` exclude each other, so an origin that is listed beside `*` is
    /// echoed.
    pub(super) fn share(&self, request: Option<&Request>, response: Response) -> Response {
        let is_one_for_all = self.0.iter().all(Origin::is_any);
        let response = match is_one_for_all {
            true => response,
            false => response.with("Vary", "Origin"),
        };
        // An origin that is not text is not in the list.
        let origin = request.and_then(|request| request.field("origin").ok().flatten());
        match origin.and_then(|origin| self.listed(origin)) {
            Some(origin) => response
                .with("Access-Control-Allow-Origin", origin.to_string())
                .with("Access-Control-Allow-Credentials", "true"),
            None if is_one_for_all || self.has_any() => {
                response.with("Access-Control-Allow-Origin", "*")
            }
            None => response,
        }
    }

    fn listed(&self, origin: &str) -> Option<&Origin> {
        self.0.iter().find(|listed| listed.is(origin))
    }

    fn has_any(&self) -> bool {
        self.0.iter().any(Origin::is_any)
    }
}
