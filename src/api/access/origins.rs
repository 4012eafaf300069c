//! The list of `--cors-origin`: which pages may do more than read, and which header
//! fields let a page read an answer.
//!
//! A browser hands an answer to a page of another origin only if
//! `Access-Control-Allow-Origin` allows it. The list therefore has two effects:
//!
//! | list | a page of another origin may read | and may write |
//! |---|---|---|
//! | empty | yes (`*`), without cookies | no |
//! | `https://a.example` | only of that origin, with cookies | only of that origin |
//! | `*` | yes (`*`), without cookies | yes, without cookies |
//!
//! Writing is everything but reading: publishing, ending streams, choosing a client id.

use crate::api::sender::Sender;
use crate::http::{Request, Response};
use crate::wire::Origin;

/// The list of allowed origins, in the order of the options. It is fixed when the server
/// starts.
#[derive(Debug)]
pub(super) struct Origins(pub(super) Vec<Origin>);

impl Origins {
    /// Returns [`Sender::OwnPage`] for a page whose origin is in the list, and any other
    /// sender unchanged. So a listed page has the rights of a page of this server, and
    /// its cookies count. `*` does not do this.
    pub(super) fn resolve<'a>(&self, sender: Sender<'a>) -> Sender<'a> {
        match sender {
            Sender::OtherPage(Some(origin)) if self.listed(origin).is_some() => Sender::OwnPage,
            sender => sender,
        }
    }

    /// Whether a sender may do more than read. With `*` in the list a page of any origin
    /// may, and needs a token for it like a program: `candidates.rs` ignores its cookies.
    /// A request of another site without an origin is an image or a link, not the work of
    /// a script, so it may only read.
    pub(super) fn may_write(&self, sender: Sender<'_>) -> bool {
        match sender {
            Sender::OtherPage(None) => false,
            Sender::OtherPage(Some(_)) => self.has_any(),
            Sender::Program | Sender::OwnPage => true,
        }
    }

    /// Whether this `Host` is the host and port of an origin in the list. Then the
    /// operator says that this name is a name of this server.
    pub(super) fn has_host(&self, host: &str) -> bool {
        self.0.iter().any(|listed| listed.has_host(host))
    }

    /// Adds the header fields that let the page that sent the request read the response,
    /// if the page may read it.
    ///
    /// SPEC: Fetch, 3.2.3: a response to a request with cookies must name the origin,
    /// because `*` is not valid with `Access-Control-Allow-Credentials`. So a listed
    /// origin is repeated, even if `*` is in the list too. `Vary: Origin` keeps a cache
    /// from giving the answer for one origin to another.
    pub(super) fn share(&self, request: Option<&Request>, response: Response) -> Response {
        // The answer does not depend on the origin: the list is empty, or it contains
        // only `*`.
        let is_same_for_all = self.0.iter().all(Origin::is_any);
        let response = match is_same_for_all {
            true => response,
            false => response.with("Vary", "Origin"),
        };
        // If the request has two `Origin` fields, or one that is not UTF-8, it is treated
        // like an origin that is not in the list.
        let origin = request.and_then(|request| request.field("origin").ok().flatten());
        match origin.and_then(|origin| self.listed(origin)) {
            Some(origin) => response
                .with("Access-Control-Allow-Origin", origin.to_string())
                .with("Access-Control-Allow-Credentials", "true"),
            None if is_same_for_all || self.has_any() => {
                response.with("Access-Control-Allow-Origin", "*")
            }
            None => response,
        }
    }

    /// The entry of the list that is the origin in this header field. `*` is never
    /// returned.
    fn listed(&self, origin: &str) -> Option<&Origin> {
        self.0.iter().find(|listed| listed.is(origin))
    }

    /// Whether `*` is in the list.
    fn has_any(&self) -> bool {
        self.0.iter().any(Origin::is_any)
    }
}
