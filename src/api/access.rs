//! Turns a request and the action that it is about to do into a decision: allowed, 401 or
//! 403 (feature `access`).
//!
//! [`Access::authorize`] decides in four steps. The first step that refuses the request
//! gives the answer:
//!
//! 1. **Page.** A page of another site may read, and do nothing else, unless
//!    `--cors-origin` lists its origin: `origins.rs` and `sender.rs`. 403.
//! 2. **Guard.** The function of an embedder allows the action, refuses it with a
//!    response of its own, narrows the topics, or leaves the decision to the
//!    configuration. Without a guard the next steps always decide.
//! 3. **Tokens.** A token in the request has the right, or every client has it:
//!    `tokens.rs`. Otherwise 403 for a known token without the right, and 401 for no
//!    token or an unknown one.
//! 4. **Exposure.** A right that did not come from a token depends on where the server
//!    listens and where the client is: `exposure.rs`. 403.
//!
//! For example, `POST /events` asks for the right to publish without a topic:
//!
//! | configuration | the request | answer | step |
//! |---|---|---|---|
//! | listens on 127.0.0.1, no tokens | from this machine, `Host: localhost` | 200 | |
//! | the same | the same, with `Origin: https://other.example` | 403 | 1 |
//! | the same | the same, with `Host: other.example` | 403 | 4 |
//! | listens on 0.0.0.0, no tokens | from any client | 403 | 4 |
//! | `--publish-token T` | without a token, or with an unknown one | 401 | 3 |
//! | `--publish-token T` | `Authorization: Bearer T` | 200 | |
//! | `--tokens FILE`, in it `T publish chat/*` | `Authorization: Bearer T` | 403 | 3 |
//!
//! The decision on a client that subscribes also finds its *credential*: what the guard
//! calls the client, else its token, else its address. A client id that is in use can be
//! taken over only with the same credential.
//!
//! All of this runs on the thread of the connection, and waits for nothing. Only a reload
//! of the tokens, which a signal or the embedder starts, reads a file.

mod candidates;
mod key_file;
mod origins;
mod token_file;
mod tokens;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::action::{Action, Carrier, Verb};
use super::exposure::Exposure;
use super::sender::Sender;
use super::{Api, Problem, identity_by_address};
use crate::config::{Config, EXPIRY_SPREAD, TOKEN_LEEWAY};
use crate::http::{Request, Response};
use crate::hub::{Issuer, Permit};
use crate::report::Report;
use crate::wire::Patterns;
use candidates::{COOKIE, candidates};
pub use key_file::read_keys;
use origins::Origins;
use tokens::{Holder, SignedPermit, Tokens, covers};

/// What a guard decides about an [`Action`]: see [`Server::guard`](crate::Server::guard).
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The configuration decides, as it does without a guard.
    AsConfigured,
    /// The action is allowed, with a token or without. A page of another site that may
    /// not write is refused before the guard is asked.
    Allow,
    /// A client that subscribes gets these topics instead of the topics that it asked
    /// for. Any other action is allowed if these topics cover it: publishing to a topic
    /// needs that topic, and everything else needs `*`.
    Narrow(Patterns),
    /// The action is refused, and this is the answer.
    Refuse(Response),
    /// The verdict on a client that the guard can identify: see
    /// [`known_as`](Verdict::known_as).
    Known {
        /// Equal for two requests of the same client, different for different clients.
        identity: Box<str>,
        /// What the client may do.
        verdict: Box<Verdict>,
    },
}

impl Verdict {
    /// This verdict on a client that your own code knows by `identity`, such as the name
    /// of a user or of a session. A `client_id` that is in use can then be taken over
    /// only by a client of the same identity, from any address. Without an identity, the
    /// token identifies the client, or its address if it has no token.
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

/// The function of an embedder that decides about actions. It runs on the thread of the
/// connection.
type Guard = dyn Fn(&Request, &Action<'_>) -> Verdict + Send + Sync;

/// The rules of one server. Every connection reads them, and only a reload changes them:
/// it replaces the table inside `tokens`. Cloning shares the rules.
#[derive(Clone)]
pub(super) struct Access {
    /// Which clients can reach the server. Fixed when the server is bound.
    exposure: Arc<Exposure>,
    /// The origins whose pages may do more than read (`--cors-origin`). Fixed.
    origins: Arc<Origins>,
    /// The tokens and their rights. The permit of each connected client has a reference
    /// to them, so that the hub can ask after a reload whether the client still has its
    /// right.
    tokens: Arc<Tokens>,
    /// The function of the embedder, set once before the server starts. The program has
    /// none.
    guard: Option<Arc<Guard>>,
    /// The key of the hash that turns an identity or an address into a number. It is
    /// random, so that no client can construct an identity with the number of another.
    random: RandomState,
}

/// A decision in favour of a request.
#[derive(Default)]
struct Admission {
    /// The patterns that the guard grants instead of the requested ones. `None`: the
    /// guard did not narrow.
    narrowed_to: Option<Patterns>,
    /// What the hub asks after a reload, and the number by which it asks: of the
    /// [`Rights`](tokens::Rights) that allow the action. `None`: the guard allowed the
    /// action, so a reload changes nothing.
    issuer: Option<(Arc<dyn Issuer>, u64)>,
    /// The number of the credential to which the client id belongs. `None`: the client's
    /// address is the credential.
    identity: Option<u64>,
    /// The user that a signed token names.
    user: Option<Arc<str>>,
    /// When a signed token ends.
    expires: Option<SystemTime>,
}

impl Access {
    /// The rules of a server that listens at `address`. `None`: the address is unknown,
    /// because an embedder calls the endpoints without a [`Server`](crate::Server).
    ///
    /// # Errors
    ///
    /// The file of tokens cannot be used.
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> io::Result<Access> {
        Ok(Access {
            exposure: Arc::new(Exposure::new(config, address)),
            origins: Arc::new(Origins(config.access.cors_origins.clone())),
            tokens: Arc::new(Tokens::new(config)?),
            guard: None,
            random: RandomState::new(),
        })
    }

    /// Checks that a request may do the whole action. A client that the guard narrows to
    /// other topics is refused, because nothing but a subscription can be narrowed.
    pub(super) fn check(&self, request: &Request, action: &Action<'_>) -> Result<(), Problem> {
        let admission = self.authorize(request, action, Carrier::Header)?;
        match admission.narrowed_to {
            Some(patterns) if !covers(&[&patterns], action) => {
                let what = format!("this client may not {}", action.describe(request));
                Err(Problem::new(403, what))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a client may subscribe. Returns the patterns that it gets, which are
    /// the requested ones unless the guard narrows them, and its permit.
    pub(super) fn authorize_client(
        &self,
        request: &Request,
        asked: Patterns,
        carrier: Carrier,
    ) -> Result<(Patterns, Permit), Problem> {
        let admission = self.authorize(request, &Action::Subscribe(&asked), carrier)?;
        let by_address = || identity_by_address(request, &self.random);
        let permit = Permit::new(admission.identity.unwrap_or_else(by_address));
        let permit = match admission.issuer {
            Some((issuer, number)) => permit.issued_by(issuer, number),
            None => permit,
        };
        let permit = match admission.user {
            Some(user) => permit.of_user(user),
            None => permit,
        };
        let permit = match admission.expires.and_then(|time| self.end_of_stream(time)) {
            Some(end) => permit.until(end),
            None => permit,
        };
        Ok((admission.narrowed_to.unwrap_or(asked), permit))
    }

    /// When the stream of a token ends that expires at this time. `None`: later than this
    /// machine can count.
    ///
    /// A client whose token has expired may still connect, for as long as the clocks may
    /// differ. Its stream ends at the end of that time: if it ended at once, the client
    /// would reconnect again and again.
    fn end_of_stream(&self, expires: SystemTime) -> Option<Instant> {
        let now = SystemTime::now();
        let end = match expires > now {
            true => expires,
            false => expires + TOKEN_LEEWAY,
        };
        let start = Instant::now();
        let spread = self.random.hash_one(start) % EXPIRY_SPREAD.as_millis() as u64;
        let left = end.duration_since(now).unwrap_or(Duration::ZERO);
        start.checked_add(left + Duration::from_millis(spread))
    }

    /// Decides whether a request may do an action: the four steps in the head of this
    /// file. Only the parts of the request that `carrier` names are searched for a token.
    fn authorize(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
    ) -> Result<Admission, Problem> {
        let sender = self.origins.resolve(Sender::of(request)?);
        // ORDER: before the guard. A browser sends the cookies of its user with the
        // request of any page, so a guard that recognizes a session by its cookie would
        // allow what the user never asked for (CSRF).
        self.check_page(request, action, sender)?;
        let verdict = match &self.guard {
            Some(guard) => guard(request, action),
            None => Verdict::AsConfigured,
        };
        self.apply(verdict, || {
            self.check_tokens(request, action, carrier, sender)
        })
    }

    /// Step 1: refuses a page of another site that asks for more than reading, unless its
    /// origin may write. The error names the option that would allow it. No option allows
    /// the origin `null`, which unrelated pages share.
    fn check_page(
        &self,
        request: &Request,
        action: &Action<'_>,
        sender: Sender<'_>,
    ) -> Result<(), Problem> {
        if !action.is_more_than_reading(request) || self.origins.may_write(sender) {
            return Ok(());
        }
        let Some(what) = sender.refusal(request, action) else {
            return Ok(());
        };
        let remedy = match sender {
            Sender::OtherPage(Some("null")) => String::new(),
            Sender::OtherPage(Some(origin)) => {
                format!(" (start the server with --cors-origin {origin} to allow it)")
            }
            _ => " (start the server with --cors-origin ORIGIN to allow it)".into(),
        };
        Err(Problem::new(403, what + &remedy))
    }

    /// Step 2: turns the guard's verdict into a decision. `configured` is steps 3 and 4;
    /// it is called only if the verdict leaves the decision to the configuration.
    fn apply(
        &self,
        verdict: Verdict,
        configured: impl FnOnce() -> Result<Admission, Problem>,
    ) -> Result<Admission, Problem> {
        match verdict {
            Verdict::AsConfigured => configured(),
            Verdict::Allow => Ok(Admission::default()),
            Verdict::Narrow(patterns) => Ok(Admission {
                narrowed_to: Some(patterns),
                ..Admission::default()
            }),
            Verdict::Refuse(response) => Err(response.into()),
            Verdict::Known { identity, verdict } => Ok(Admission {
                identity: Some(self.random.hash_one(identity)),
                ..self.apply(*verdict, configured)?
            }),
        }
    }

    /// Steps 3 and 4: finds rights that allow the action, and checks the exposure if they
    /// are not those of a token.
    ///
    /// A request may carry several tokens, for instance an old one in a cookie and a new
    /// one in `Authorization`. The first token with sufficient rights decides, so an
    /// unknown token beside a good one does no harm.
    fn check_tokens(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
        sender: Sender<'_>,
    ) -> Result<Admission, Problem> {
        let is_configured =
            [Verb::Publish, Verb::Subscribe].map(|verb| self.tokens.are_configured_for(verb));
        // A server without tokens ignores those in a request: they are meant for a proxy,
        // or for another server.
        let candidates = match is_configured {
            [false, false] => Vec::new(),
            _ => candidates(request, carrier, sender)?,
        };
        let (table, now) = (self.tokens.table(), SystemTime::now());
        let (mut known, mut refused) = (Vec::new(), None);
        for candidate in &candidates {
            match table.holder_of(candidate, now) {
                Ok(holder) => known.push(holder),
                Err(reason) => refused = refused.or(reason),
            }
        }
        let has_known = !known.is_empty();
        // ORDER: the rights of every client come last, so that a client with a known
        // token is known by it.
        known.push(Holder::Listed(table.every_client()));
        let sufficient = known
            .into_iter()
            .find(|holder| table.allows(holder, action));
        let Some(holder) = sufficient else {
            let action = action.describe(request);
            if has_known {
                let what =
                    format!("the token in this request does not include the right to {action}");
                return Err(Problem::new(403, what));
            }
            let is_missing = candidates.is_empty();
            return Err(needs_token(&action, carrier, is_missing, refused));
        };
        let has_token = holder.has_token();
        // A right from a token is valid wherever the client is. A right that every client
        // has depends on the exposure. As soon as one token for publishing exists, every
        // right to publish comes from the configuration: from a token, or from a line of
        // the file that begins with `*`.
        let is_granted = is_configured[action.verb() as usize];
        let is_by_token = match action.verb() {
            Verb::Publish => is_granted,
            Verb::Subscribe => has_token && (is_granted || self.exposure.is_local),
        };
        if !is_by_token {
            let host = request.host().unwrap_or_default();
            let is_local_host = sender.has_local_host(host) || self.origins.has_host(host);
            self.exposure
                .check(request, action, is_local_host, is_granted)?;
        }
        if !has_token && *action == Action::Clients {
            // The list of clients shows their topics. A server on which every client may
            // publish, but only a token may subscribe, must not show them to a client
            // without a token.
            return self.check_tokens(request, &Action::Stats, carrier, sender);
        }
        Ok(self.admission_of(holder))
    }

    /// The decision in favour of a request, with what is known about its client.
    fn admission_of(&self, holder: Holder<'_>) -> Admission {
        match holder {
            Holder::Listed(rights) => Admission {
                issuer: Some((self.tokens.clone(), rights.number)),
                // The rights of every client are the same for all of them, so they do not
                // identify a client.
                identity: rights.token.is_some().then_some(rights.number),
                ..Admission::default()
            },
            Holder::Signed { claims, number } => {
                let user = claims.user.as_deref().map(Arc::from);
                // A user gets a new token every few minutes, and stays the same user. The
                // word keeps it apart from an identity that a guard has chosen.
                let of_user = user
                    .as_ref()
                    .map(|user: &Arc<str>| self.random.hash_one(("sub", user)));
                Admission {
                    identity: of_user.or(Some(number)),
                    user,
                    expires: claims.expires,
                    issuer: Some((
                        Arc::new(SignedPermit {
                            tokens: self.tokens.clone(),
                            claims,
                        }),
                        0,
                    )),
                    ..Admission::default()
                }
            }
        }
    }

    /// Adds the header fields that let the page that sent the request read the response,
    /// if the page may read it. `None`: the request could not be parsed.
    pub(super) fn share(&self, request: Option<&Request>, response: Response) -> Response {
        self.origins.share(request, response)
    }

    /// Reports what clients on other machines may do without a token. With a guard
    /// nothing is reported, because only the guard knows what a client may do.
    pub(super) fn report(&self, report: &Report) {
        if self.guard.is_some() {
            return;
        }
        let table = self.tokens.table();
        let every_client = Holder::Listed(table.every_client());
        let may = |action: Action<'_>| {
            let is_granted = self.tokens.are_configured_for(action.verb());
            (self.exposure.is_open || is_granted) && table.allows(&every_client, &action)
        };
        let (may_read, may_publish) = (may(Action::Stats), may(Action::Publish(None)));
        self.exposure.report(report, may_read, may_publish);
    }
}

impl Api {
    /// Asks `guard` about each action of a request, before the tokens are checked: see
    /// [`Server::guard`](crate::Server::guard).
    pub fn guard(
        mut self,
        guard: impl Fn(&Request, &Action<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Api {
        self.access.guard = Some(Arc::new(guard));
        self
    }

    /// Reads the file of tokens and the file of keys again, and ends the streams of
    /// clients whose rights do not suffice any more. Blocks while the files are read. If
    /// one of them cannot be used, tokens and keys stay as they were.
    pub(crate) fn reload_tokens(&self) -> io::Result<()> {
        let (tokens, keys) = self.access.tokens.reload()?;
        // ORDER: after the change. A client that was authorized by the old table at the
        // same moment is either registered by now, and `recheck` finds it, or it
        // registers later, and the hub asks its permit once more after the registration.
        let ended = self.hub.recheck();
        let keys = match keys {
            0 => String::new(),
            keys => format!("; keys known: {keys}"),
        };
        self.config.report.info(format_args!(
            "tokens known: {tokens}{keys}; streams ended: {ended}"
        ));
        self.report_open_access();
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

/// The end of an error message: how an operator allows what the exposure refuses.
pub(super) const HOW_TO_ALLOW: &str = "start the server with --publish-token, --subscribe-token, \
     --tokens FILE or --jwt-key FILE to set tokens, or with --open to allow everything to every client";

/// The end of a warning: how an operator restricts clients without a token.
pub(super) const HOW_TO_RESTRICT: &str = "; start the server with --tokens FILE to restrict that: a line such as \
     \"* subscribe public/*\" then lists the topics that need no token";

/// The end of an error message: how an operator declares that a host is this machine.
pub(super) fn how_to_allow_host(host: &str) -> String {
    format!(", or with --cors-origin http://{host} to allow this host")
}

/// Returns the answer 401, which names the parts of a request that may carry a token, or
/// says why the token is refused.
fn needs_token(
    action: &str,
    carrier: Carrier,
    is_missing: bool,
    refused: Option<&'static str>,
) -> Problem {
    let what = match (is_missing, carrier) {
        (true, Carrier::Header) => {
            format!("send Authorization: Bearer TOKEN, or the cookie {COOKIE}")
        }
        (true, Carrier::HeaderOrQuery) => {
            format!("send Authorization: Bearer TOKEN, the cookie {COOKIE}, or ?token=TOKEN")
        }
        (false, _) => match refused {
            Some(reason) => format!("the one in this request is refused: {reason}"),
            None => "the server does not know the one in this request".into(),
        },
    };
    let what = format!("a token is needed to {action}: {what}");
    Problem::unauthorized(what, is_missing, refused)
}
