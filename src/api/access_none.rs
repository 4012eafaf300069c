//! Turns a request and the action that it is about to do into a decision, in a build
//! without the feature `access`: there are no tokens, no guard and no allowed origins.
//!
//! The decision has two steps. A page of another site may read, and do nothing else:
//! `sender.rs`. Everything else depends on which clients can reach the server:
//! `exposure.rs`. The credential of a client is its address.
//!
//! This file has the names of `access.rs`, so that the endpoints are the same in both
//! builds.

use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::action::{Action, Carrier};
use super::exposure::Exposure;
use super::sender::Sender;
use super::{Problem, identity_by_address};
use crate::config::Config;
use crate::http::{Request, Response};
use crate::hub::Permit;
use crate::report::Report;
use crate::wire::Patterns;

/// The rules of one server. They do not change. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// Which clients can reach the server.
    exposure: Arc<Exposure>,
    /// The key of the hash that turns an address into a number.
    random: RandomState,
}

impl Access {
    /// The rules of a server that listens at `address`. `None`: the address is unknown.
    /// This never returns an error; `access.rs` does, if it cannot read its file.
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> io::Result<Access> {
        Ok(Access {
            exposure: Arc::new(Exposure::new(config, address)),
            random: RandomState::new(),
        })
    }

    /// Checks that a request may do an action.
    pub(super) fn check(&self, request: &Request, action: &Action<'_>) -> Result<(), Problem> {
        let sender = Sender::of(request)?;
        if action.is_more_than_reading(request)
            && let Some(what) = sender.refusal(request, action)
        {
            return Err(Problem::new(403, what));
        }
        let is_local_host = sender.has_local_host(request.host().unwrap_or_default());
        self.exposure.check(request, action, is_local_host, false)
    }

    /// Checks that a client may subscribe. Returns the patterns that it gets, which are
    /// the requested ones, and its permit, which is always valid.
    pub(super) fn authorize_client(
        &self,
        request: &Request,
        asked: Patterns,
        _: Carrier,
    ) -> Result<(Patterns, Permit), Problem> {
        self.check(request, &Action::Subscribe(&asked))?;
        let identity = identity_by_address(request, &self.random);
        Ok((asked, Permit::new(identity)))
    }

    /// Adds the header field that lets any page read the response.
    pub(super) fn share(&self, _: Option<&Request>, response: Response) -> Response {
        response.with("Access-Control-Allow-Origin", "*")
    }

    /// Reports what any client may do, if other machines can reach the server.
    pub(super) fn report(&self, report: &Report) {
        let may = self.exposure.is_open;
        self.exposure.report(report, may, may);
    }
}

/// The end of an error message: how an operator allows what the exposure refuses.
pub(super) const HOW_TO_ALLOW: &str =
    "start the server with --open to allow everything to every client";

/// The end of a warning. A build without tokens has no option that restricts clients.
pub(super) const HOW_TO_RESTRICT: &str = "";

/// The end of an error message. A build without allowed origins has no option that
/// declares a host to be this machine.
pub(super) fn how_to_allow_host(_: &str) -> String {
    String::new()
}
