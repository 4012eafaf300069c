//! Decides what a client without a token may do, if no token was configured for it, by
//! which clients can reach the server.
//!
//! | the server | a client without a token may |
//! |---|---|
//! | *local*: listens on a loopback address, without a trusted proxy | do everything |
//! | *public*: any other server | receive the events without a topic, and the topics of `--public` |
//! | `--open` | do everything, wherever it is |
//!
//! So a server that is started without options is safe to try, and on a server that other
//! machines can reach, a stranger can do nothing that the operator has not allowed by
//! name.
//!
//! On a local server there is a second condition for everything but reading: the request
//! must name a host that can only be this machine, such as `localhost`. Otherwise a page
//! of any site could publish to a server on its user's machine, by pointing a name of its
//! own to 127.0.0.1 (DNS rebinding): `Sender::has_local_host`. The other check against
//! pages of other sites, by their origin, is made before: `access.rs`.
//!
//! This file is used with and without the feature `access`: by `access.rs` after it has
//! looked for tokens, and by `access_none.rs` for every request.

use std::net::SocketAddr;

use super::Problem;
use super::access::{HOW_TO_ALLOW, HOW_TO_RESTRICT, how_to_allow_host};
use super::action::Action;
use crate::config::Config;
use crate::http::Request;
use crate::report::Report;
use crate::wire::Patterns;

/// Which clients can reach a server. It is computed when the server is bound, and does
/// not change.
#[derive(Debug)]
pub(super) struct Exposure {
    /// The address where the server listens. `None`: it is unknown, because an embedder
    /// calls the endpoints without a [`Server`](crate::Server). Then other machines may
    /// be able to reach it.
    address: Option<SocketAddr>,
    /// Whether only this machine can connect to the address, and no proxy connects for
    /// clients on other machines. False if the address is unknown.
    pub(super) is_local: bool,
    /// `--open`: every client may do everything, wherever it is.
    pub(super) is_open: bool,
    /// `--public`: the topics to which every client may subscribe.
    public: Patterns,
}

impl Exposure {
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> Exposure {
        let is_loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        Exposure {
            address,
            is_local: is_loopback && config.trust_proxy.is_empty(),
            is_open: config.open,
            public: config.public.clone(),
        }
    }

    /// Returns the address of the server if clients on other machines can reach it,
    /// directly or through a trusted proxy.
    pub(super) fn exposed_address(&self) -> Option<SocketAddr> {
        self.address.filter(|_| !self.is_local)
    }

    /// Checks that a client without a token may do an action. `is_local_host`: the host
    /// that the request names can only be this machine. `is_granted`: the operator has
    /// granted the action to every client, with a line of the file of tokens.
    ///
    /// # Errors
    ///
    /// 403, which tells the operator how to allow the action.
    pub(super) fn check(
        &self,
        request: &Request,
        action: &Action<'_>,
        is_local_host: bool,
        is_granted: bool,
    ) -> Result<(), Problem> {
        if self.is_open {
            return Ok(());
        }
        if !self.is_local {
            return match is_granted || self.is_public(action) {
                true => Ok(()),
                false => Err(self.refusal(request, action)),
            };
        }
        // A page that uses a name of its own for a server on this machine alone may read,
        // but not publish or take a client id.
        if is_local_host || !action.is_more_than_reading(request) {
            return Ok(());
        }
        let (action, host) = (action.describe(request), request.host().unwrap_or_default());
        let allow_host = how_to_allow_host(host);
        let what = format!(
            "a token is needed to {action} with the host {host:?}, and this server has no token for it; without a \
             token the host must be localhost or a loopback address, because another site can point a name of its \
             own to this machine ({HOW_TO_ALLOW}{allow_host})"
        );
        Err(Problem::new(403, what))
    }

    /// Whether a client on any machine may do this without a token.
    fn is_public(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Subscribe(asked) => asked.iter().all(|pattern| self.public.covers(pattern)),
            _ => false,
        }
    }

    /// Returns the answer to a client of a public server.
    fn refusal(&self, request: &Request, action: &Action<'_>) -> Problem {
        let public = match action {
            Action::Subscribe(_) => {
                "start the server with --public PATTERN to allow these topics to every client, or "
            }
            _ => "",
        };
        let at = self.address.map(|address| format!(" at {address}"));
        let (action, at) = (action.describe(request), at.unwrap_or_default());
        let what = format!(
            "a client may not {action}, because other machines can reach this server{at}, and nothing allows it \
             ({public}{HOW_TO_ALLOW})"
        );
        Problem::new(403, what)
    }

    /// Reports what a client on another machine may do without a token, if other machines
    /// can reach the server: a warning if it may read or write every topic.
    pub(super) fn report(&self, report: &Report, may_read: bool, may_publish: bool) {
        let Some(address) = self.exposed_address() else {
            return;
        };
        let what = match (may_read, may_publish) {
            (true, false) => "subscribe to every topic and see /stats and /metrics",
            (false, true) => "publish to every topic",
            (true, true) => "subscribe and publish to every topic, and see /stats and /metrics",
            (false, false) => {
                let public: Vec<_> = self.public.iter().map(ToString::to_string).collect();
                report.info(format_args!(
                    "clients that reach {address} need a token, except for events without a topic{}{}",
                    if public.is_empty() { "" } else { " and for " },
                    public.join(", ")
                ));
                return;
            }
        };
        report.warn(format_args!(
            "any client that reaches {address} may {what}{HOW_TO_RESTRICT}"
        ));
    }
}
