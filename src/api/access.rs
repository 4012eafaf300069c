//! Which client may do what, with tokens (feature `access`). Three are asked in turn: whether the request
//! comes from a page of another site, the guard of the embedder, and the tokens.
//!
//! What lets a client in also is its *credential*: its token, what the guard says, or else its address. A
//! client name that is in use goes only to a client with the same credential.

mod candidates;
mod origins;
mod token_file;
mod tokens;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::action::{Action, Carrier, Verb};
use super::exposure::Exposure;
use super::sender::Sender;
use super::{Api, Problem, identity_by_address};
use crate::config::Config;
use crate::http::{Request, Response};
use crate::hub::Permit;
use crate::report::Report;
use crate::wire::Patterns;
use candidates::{COOKIE, candidates};
use origins::Origins;
use tokens::{Tokens, covers};

/// What a hook says of an [`Action`]: see [`Server::guard`](crate::Server::guard).
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// As without a hook: the tokens of the configuration decide.
    AsConfigured,
    /// The action is allowed, with a token or without. The hook is not asked about a page of another site that
    /// may not write.
    Allow,
    /// A client that subscribes gets these topics instead of those that it asked for. Any other action is
    /// allowed if it keeps within these topics: publishing to one of them; everything else needs `*`.
    Narrow(Patterns),
    /// This is the answer.
    Refuse(Response),
    /// The verdict on a client that the hook knows: see [`known_as`](Verdict::known_as).
    Known {
        /// Equal for two requests of the same client, different for different clients.
        identity: Box<str>,
        /// What the client may do.
        verdict: Box<Verdict>,
    },
}

impl Verdict {
    /// This verdict on a client that your own code knows by `identity`: a user, a session. A
    /// `client_id` that is in use then goes only to a client of the same identity, whatever its address is.
    /// Without it the client is known by its token, or by its address if it has none.
    ///
    /// ```
    /// use tiny_sse::Verdict;
    /// let verdict = Verdict::AsConfigured.known_as("user 42");
    /// ```
    pub fn known_as(self, identity: impl Into<Box<str>>) -> Verdict {
        Verdict::Known {
            identity: identity.into(),
            verdict: Box::new(self),
        }
    }
}

/// The hook of an embedder.
type Guard = dyn Fn(&Request, &Action<'_>) -> Verdict + Send + Sync;

/// The rules of one server. Cloning shares them.
#[derive(Clone)]
pub(super) struct Access {
    exposure: Arc<Exposure>,
    origins: Arc<Origins>,
    tokens: Arc<Tokens>,
    guard: Option<Arc<Guard>>,
    /// Makes numbers of identities.
    random: RandomState,
}

/// How a client was let in.
#[derive(Default)]
struct Admission {
    /// The patterns that the guard gives instead of those that were asked for.
    instead: Option<Patterns>,
    /// The number of the token, or of every client, that lets the client in. `None`: the guard does.
    number: Option<u64>,
    /// The credential to which the client's name belongs. `None`: its address.
    identity: Option<u64>,
}

impl Access {
    /// The rules of a server that listens at `address`; `None`: the address is not known.
    ///
    /// # Errors
    ///
    /// The file of tokens cannot be used.
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> io::Result<Access> {
        Ok(Access {
            exposure: Arc::new(Exposure::new(config, address)),
            origins: Arc::new(Origins(config.access.cors_origins.clone())),
            tokens: Arc::new(Tokens::new(&config.access)?),
            guard: None,
            random: RandomState::new(),
        })
    }

    /// Checks that a request may do this, and all of it.
    pub(super) fn check(&self, request: &Request, action: &Action<'_>) -> Result<(), Problem> {
        match self.admit(request, action, Carrier::Header)?.instead {
            Some(patterns) if !covers(&[&patterns], action) => {
                let what = format!("you may not {}", action.describe(request));
                Err(Problem::new(403, what))
            }
            _ => Ok(()),
        }
    }

    /// Lets a client subscribe: the patterns that it gets, and its permit.
    pub(super) fn let_in(
        &self,
        request: &Request,
        asked: Patterns,
        carrier: Carrier,
    ) -> Result<(Patterns, Permit), Problem> {
        let admission = self.admit(request, &Action::Subscribe(&asked), carrier)?;
        let by_address = || identity_by_address(request, &self.random);
        let permit = Permit::new(admission.identity.unwrap_or_else(by_address));
        let permit = match admission.number {
            Some(number) => permit.issued_by(self.tokens.clone(), number),
            None => permit,
        };
        Ok((admission.instead.unwrap_or(asked), permit))
    }

    fn admit(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
    ) -> Result<Admission, Problem> {
        let sender = self.origins.adopt(Sender::of(request)?);
        if action.is_more_than_reading(request)
            && !self.origins.may_write(sender)
            && let Some(what) = sender.refusal(request, action)
        {
            let how = match sender {
                Sender::OtherPage(Some("null")) => String::new(),
                Sender::OtherPage(Some(origin)) => {
                    format!(" (--cors-origin {origin} would let it)")
                }
                _ => " (--cors-origin ORIGIN would let it)".into(),
            };
            return Err(Problem::new(403, what + &how));
        }
        let verdict = match &self.guard {
            Some(guard) => guard(request, action),
            None => Verdict::AsConfigured,
        };
        self.apply(verdict, || {
            self.ask_tokens(request, action, carrier, sender)
        })
    }

    /// `configured` is what the tokens say.
    fn apply(
        &self,
        verdict: Verdict,
        configured: impl FnOnce() -> Result<Admission, Problem>,
    ) -> Result<Admission, Problem> {
        match verdict {
            Verdict::AsConfigured => configured(),
            Verdict::Allow => Ok(Admission::default()),
            Verdict::Narrow(patterns) => Ok(Admission {
                instead: Some(patterns),
                ..Admission::default()
            }),
            Verdict::Refuse(response) => Err(Problem(response)),
            Verdict::Known { identity, verdict } => Ok(Admission {
                identity: Some(self.random.hash_one(identity)),
                ..self.apply(*verdict, configured)?
            }),
        }
    }

    fn ask_tokens(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
        sender: Sender<'_>,
    ) -> Result<Admission, Problem> {
        let has_tokens = [Verb::Publish, Verb::Subscribe].map(|verb| self.tokens.are_for(verb));
        let candidates = match has_tokens {
            [false, false] => Vec::new(),
            _ => candidates(request, carrier, sender)?,
        };
        let table = self.tokens.table();
        let known = || candidates.iter().filter_map(|token| table.holder_of(token));
        let mut all = known().chain([table.every_client()]);
        let Some(holder) = all.find(|holder| table.grants(holder, action)) else {
            let action = action.describe(request);
            if known().next().is_some() {
                let what = format!("this token does not let you {action}");
                return Err(Problem::new(403, what));
            }
            return Err(needs_token(&action, carrier, candidates.is_empty()));
        };
        // What every client may, a client with a known token may, too. So this is no known token.
        let is_known = holder.token.is_some();
        // What a token grants, it grants wherever the client is. Rights that every client has depend on that.
        let is_by_token = match action.verb() {
            Verb::Publish => has_tokens[Verb::Publish as usize],
            Verb::Subscribe => is_known,
        };
        if !is_by_token {
            let host = request.host().unwrap_or_default();
            let is_here = sender.is_here(host) || self.origins.has_host(host);
            self.exposure.check(request, action, is_here)?;
        }
        if !is_known && *action == Action::Clients {
            // The clients say what they listen to, and that is not shown for less than the right to it.
            return self.ask_tokens(request, &Action::Stats, carrier, sender);
        }
        Ok(Admission {
            instead: None,
            number: Some(holder.number),
            // Rights that every client has do not tell one client from another.
            identity: is_known.then_some(holder.number),
        })
    }

    /// Tells the page behind a request that it may read the answer, if it may.
    pub(super) fn share(&self, request: Option<&Request>, response: Response) -> Response {
        self.origins.share(request, response)
    }

    /// Warns the operator what a client without a token may do, if other machines can reach the server.
    /// With a guard this is not known, and nothing is reported.
    pub(super) fn warn(&self, report: &Report) {
        if self.guard.is_some() {
            return;
        }
        let table = self.tokens.table();
        let may = |action| table.grants(table.every_client(), &action);
        let may_publish = self.exposure.is_open || self.tokens.are_for(Verb::Publish);
        let may_publish = may_publish && may(Action::Publish(None));
        self.exposure.warn(report, may(Action::Stats), may_publish);
    }
}

impl Api {
    /// Asks `guard` about each action of a request, before the tokens are looked at: see
    /// [`Server::guard`](crate::Server::guard).
    pub fn guard(
        mut self,
        guard: impl Fn(&Request, &Action<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Api {
        self.access.guard = Some(Arc::new(guard));
        self
    }

    /// Reads the file of tokens again, and ends the streams of clients that would not be let in any more.
    pub(crate) fn reload_tokens(&self) -> io::Result<()> {
        let tokens = self.access.tokens.reload()?;
        // ORDER: after the change. A client that subscribes by a token that was known before is either
        // registered by now, and seen here, or its permit is asked once more after its registration.
        let ended = self.hub.recheck();
        self.config.report.info(format_args!(
            "tokens known: {tokens}; streams ended: {ended}"
        ));
        self.warn_of_open_doors();
        Ok(())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("exposure", &self.exposure)
            .finish_non_exhaustive()
    }
}

/// How an operator lets clients do what they may not do yet.
pub(super) const HOW_TO_OPEN: &str = "start it with --publish-token or TINY_SSE_PUBLISH_TOKEN, with \
     --tokens FILE, or with --open to let everybody";

/// How an operator keeps clients from what they may do.
pub(super) const HOW_TO_CLOSE: &str = "; --tokens FILE lets everybody subscribe only to the topics of its lines \
     such as \"* subscribe public/*\"";

/// How an operator makes a name one of this machine's.
pub(super) fn how_to_allow_host(host: &str) -> String {
    format!(", or with --cors-origin http://{host} to allow that name")
}

fn needs_token(action: &str, carrier: Carrier, is_missing: bool) -> Problem {
    let what = match (is_missing, carrier) {
        (true, Carrier::Header) => format!("Authorization: Bearer TOKEN, the cookie {COOKIE}"),
        (true, Carrier::HeaderOrQuery) => {
            format!("Authorization: Bearer TOKEN, the cookie {COOKIE}, or ?token=TOKEN")
        }
        (false, _) => "the one in this request is not known".into(),
    };
    Problem::unauthorized(format!("a token is needed to {action}: {what}"), is_missing)
}
