//! Decides what a client without a token may do, by the address where the server listens
//! and by where the client is.
//!
//! | the server | may subscribe | may publish |
//! |---|---|---|
//! | `--open` | every client | every client |
//! | listens on a loopback address, without a proxy | every client of this machine | every client of this machine |
//! | the same, behind a trusted proxy | every client | a client that the proxy says is on this machine |
//! | listens on any other address | every client | no client |
//!
//! So a server that is started without options is safe to try, and a server that other
//! machines can reach accepts events only after the operator has decided which clients
//! may send them.
//!
//! "On this machine" has a second condition: the request must name a host that can only
//! be this machine, such as `localhost`. Otherwise a page of any site could publish to a
//! server on its user's machine, by pointing a name of its own to 127.0.0.1 (DNS
//! rebinding): `Sender::has_local_host`. The other check against pages of other sites, by
//! their origin, is made before: `access.rs`.
//!
//! This file is used with and without the feature `access`: by `access.rs` after it has
//! looked for tokens, and by `access_none.rs` for every request.

use std::net::SocketAddr;

use super::Problem;
use super::access::{HOW_TO_ALLOW, HOW_TO_RESTRICT, how_to_allow_host};
use super::action::{Action, Verb};
use crate::config::Config;
use crate::http::Request;
use crate::report::Report;

/// Which clients can reach a server. It is computed when the server is bound, and does
/// not change.
#[derive(Debug)]
pub(super) struct Exposure {
    /// The address where the server listens. `None`: it is unknown, because an embedder
    /// calls the endpoints without a [`Server`](crate::Server). Then other machines may
    /// be able to reach it.
    address: Option<SocketAddr>,
    /// Whether only this machine can connect to the address. False if the address is
    /// unknown.
    is_loopback: bool,
    /// Whether the configuration has a trusted proxy. It may connect for clients on other
    /// machines.
    is_proxied: bool,
    /// `--open`: every client may publish, wherever it is.
    pub(super) is_open: bool,
}

impl Exposure {
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> Exposure {
        Exposure {
            address,
            is_loopback: address.is_some_and(|address| address.ip().to_canonical().is_loopback()),
            is_proxied: !config.trust_proxy.is_empty(),
            is_open: config.open,
        }
    }

    /// Returns the address of the server if clients on other machines can reach it,
    /// directly or through a trusted proxy.
    pub(super) fn exposed_address(&self) -> Option<SocketAddr> {
        self.address
            .filter(|_| !self.is_loopback || self.is_proxied)
    }

    /// Checks that a client without a token may do an action. `is_local_host`: the host
    /// that the request names can only be this machine.
    ///
    /// # Errors
    ///
    /// 403, which tells the operator how to allow the action.
    pub(super) fn check(
        &self,
        request: &Request,
        action: &Action<'_>,
        is_local_host: bool,
    ) -> Result<(), Problem> {
        let needs_local_host = match action.verb() {
            _ if self.is_open => false,
            Verb::Publish => {
                self.check_publisher(request, action)?;
                true
            }
            // Subscribing is open to every client that reaches the server. A page that
            // uses a name of its own for a server on this machine alone may read, but not
            // take a client id.
            Verb::Subscribe => {
                self.exposed_address().is_none() && action.is_more_than_reading(request)
            }
        };
        if is_local_host || !needs_local_host {
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

    /// Checks that only this machine can connect to the server, and that the client is on
    /// this machine. Behind a trusted proxy the client is the one that the proxy names.
    fn check_publisher(&self, request: &Request, action: &Action<'_>) -> Result<(), Problem> {
        if self.is_loopback && request.is_local() {
            return Ok(());
        }
        let (action, client) = (action.describe(request), request.client());
        let what = if !self.is_loopback {
            let at = self
                .address
                .map(|address| format!(" listens on {address},"));
            format!(
                "no client may {action}: this server{} can be reached from other machines, and has no token for it \
                 ({HOW_TO_ALLOW})",
                at.unwrap_or_default()
            )
        } else if request.is_client_known() {
            format!(
                "a token is needed to {action} from {client}, which is another machine, and this server has no token \
                 for it ({HOW_TO_ALLOW})"
            )
        } else {
            format!(
                "a token is needed to {action} through the proxy {client}, because the proxy does not name its \
                 client: it must set X-Forwarded-For or Forwarded ({HOW_TO_ALLOW})"
            )
        };
        Err(Problem::new(403, what))
    }

    /// Warns the operator what a client without a token may do, if other machines can
    /// reach the server.
    pub(super) fn warn(&self, report: &Report, may_read: bool, may_publish: bool) {
        let Some(address) = self.exposed_address() else {
            return;
        };
        let what = match (may_read, may_publish) {
            (false, false) => return,
            (true, false) => "subscribe to every topic and see /stats and /metrics",
            (false, true) => "publish to every topic",
            (true, true) => "subscribe and publish to every topic, and see /stats and /metrics",
        };
        let path = if self.is_loopback {
            "through the trusted proxy "
        } else {
            ""
        };
        report.warn(format_args!(
            "any client that reaches {address} {path}may {what}{HOW_TO_RESTRICT}"
        ));
    }
}
