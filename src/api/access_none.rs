//! Which client may do what, without tokens: a build without the feature `access`.
//!
//! Pages of other sites may read and nothing more. Everything else follows from which clients can reach the
//! server. A client is known by its address.

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

/// The rules of one server. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Access {
    exposure: Arc<Exposure>,
    random: RandomState,
}

impl Access {
    /// The rules of a server that listens at `address`; `None`: the address is not known. There is no error.
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> io::Result<Access> {
        Ok(Access {
            exposure: Arc::new(Exposure::new(config, address)),
            random: RandomState::new(),
        })
    }

    /// Checks that a request may do this.
    pub(super) fn check(&self, request: &Request, action: &Action<'_>) -> Result<(), Problem> {
        let sender = Sender::of(request)?;
        if action.is_more_than_reading(request)
            && let Some(what) = sender.refusal(request, action)
        {
            return Err(Problem::new(403, what));
        }
        let is_here = sender.is_here(request.host().unwrap_or_default());
        self.exposure.check(request, action, is_here)
    }

    /// Lets a client subscribe: the patterns that it gets, and its permit.
    pub(super) fn let_in(
        &self,
        request: &Request,
        asked: Patterns,
        _: Carrier,
    ) -> Result<(Patterns, Permit), Problem> {
        self.check(request, &Action::Subscribe(&asked))?;
        let identity = identity_by_address(request, &self.random);
        Ok((asked, Permit::new(identity)))
    }

    /// Tells the browser that any page may read the answer.
    pub(super) fn share(&self, _: Option<&Request>, response: Response) -> Response {
        response.with("Access-Control-Allow-Origin", "*")
    }

    /// Warns the operator what a client may do, if other machines can reach the server.
    pub(super) fn warn(&self, report: &Report) {
        self.exposure.warn(report, true, self.exposure.is_open);
    }
}

/// How an operator lets clients do what they may not do yet.
pub(super) const HOW_TO_OPEN: &str = "start it with --open to let everybody";

/// Nothing closes a build without tokens.
pub(super) const HOW_TO_CLOSE: &str = "";

/// Nothing makes a name one of this machine's.
pub(super) fn how_to_allow_host(_: &str) -> String {
    String::new()
}
