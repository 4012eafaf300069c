//! Which clients can reach the server, and what follows for a client that shows no token: the rules of a
//! server without tokens.
//!
//! A client on this machine may publish to a server that only this machine reaches. On any other address no
//! client may publish, unless the server is open to every client.

use std::net::SocketAddr;

use super::Problem;
use super::access::{HOW_TO_CLOSE, HOW_TO_OPEN, how_to_allow_host};
use super::action::{Action, Verb};
use crate::config::Config;
use crate::http::Request;
use crate::report::Report;

/// Which clients can reach a server.
#[derive(Debug)]
pub(super) struct Exposure {
    /// The address that is listened on, as far as it is known.
    address: Option<SocketAddr>,
    /// Only this machine can connect to that address.
    is_loopback: bool,
    /// A trusted proxy may connect for clients on other machines.
    is_proxied: bool,
    /// Every client may publish, wherever it is.
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

    /// The address, if clients on other machines reach it, directly or through a proxy.
    pub(super) fn reached_at(&self) -> Option<SocketAddr> {
        self.address
            .filter(|_| !self.is_loopback || self.is_proxied)
    }

    /// Checks that a client without a token may do this. `is_here`: its `Host` can only mean this machine.
    pub(super) fn check(
        &self,
        request: &Request,
        action: &Action<'_>,
        is_here: bool,
    ) -> Result<(), Problem> {
        let must_be_here = match action.verb() {
            _ if self.is_open => false,
            Verb::Publish => {
                self.check_publisher(request, action)?;
                true
            }
            Verb::Subscribe => self.reached_at().is_none() && action.is_more_than_reading(request),
        };
        if is_here || !must_be_here {
            return Ok(());
        }
        let (action, host) = (action.describe(request), request.host().unwrap_or_default());
        let allow_host = how_to_allow_host(host);
        let what = format!(
            "a token is needed to {action} at the host {host:?}, and this server has none: without a token it \
             must be asked as localhost, because another site can make its own name lead here \
             ({HOW_TO_OPEN}{allow_host})"
        );
        Err(Problem::new(403, what))
    }

    /// Checks that only this machine can connect to the server, and that the client is on it.
    fn check_publisher(&self, request: &Request, action: &Action<'_>) -> Result<(), Problem> {
        if self.is_loopback && request.is_local() {
            return Ok(());
        }
        let (action, client) = (action.describe(request), request.client());
        let what = if !self.is_loopback {
            let place = self
                .address
                .map(|address| format!(" listens on {address},"));
            format!(
                "nobody may {action}: this server{} can be reached from elsewhere, and has no token for it \
                 ({HOW_TO_OPEN})",
                place.unwrap_or_default()
            )
        } else if request.is_client_known() {
            format!(
                "a token is needed to {action} from {client}, and this server has none ({HOW_TO_OPEN})"
            )
        } else {
            format!(
                "a token is needed to {action} through the proxy {client}, which does not say who its client \
                 is: it must set X-Forwarded-For or Forwarded ({HOW_TO_OPEN})"
            )
        };
        Err(Problem::new(403, what))
    }

    /// Warns the operator what a client without a token may do, if other machines can reach the server.
    pub(super) fn warn(&self, report: &Report, may_read: bool, may_publish: bool) {
        let Some(address) = self.reached_at() else {
            return;
        };
        let what = match (may_read, may_publish) {
            (false, false) => return,
            (true, false) => "subscribe to every topic and see /stats and /metrics",
            (false, true) => "publish to every topic",
            (true, true) => "subscribe and publish to every topic, and see /stats and /metrics",
        };
        let way = if self.is_loopback {
            "through the trusted proxy "
        } else {
            ""
        };
        report.warn(format_args!(
            "any client that reaches {address} {way}may {what}{HOW_TO_CLOSE}"
        ));
    }
}
