//! Who may do what. Three are asked in turn: whether a page of another site is behind the request
//! (`origin.rs`), the hook of the embedder, and the tokens (`tokens.rs`).
//!
//! Without tokens anybody may subscribe, and whoever is on this machine may publish, if that is where
//! the server listens. A verb that tokens are for is for nobody else.

use std::borrow::Cow;
use std::fmt;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::Problem;
use super::origin::{self, Sender};
use super::tokens::{self, Grant, Holder, Holders, Verb};
use crate::config::Config;
use crate::http::{Request, Response, percent_decoded};
use crate::wire::{Origin, Pattern, Patterns, Topic};

/// What a request is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// To publish: to that topic, or without a topic to everybody.
    Publish(Option<&'a Topic>),
    /// To get the events of these patterns, and those without a topic, by a stream or a poll.
    Subscribe(&'a Patterns),
    /// To speak to the client of that name, or to end its stream. Who may publish to everybody may.
    Client(&'a str),
    /// To see which topics there are, and how many listen (`/stats`, `/metrics`). Who may subscribe
    /// to all topics may.
    Stats,
    /// To see who the clients are and where (`/stats?clients=1`). Who may publish to everybody may.
    Clients,
}

/// What a hook says of an [`Action`]: see [`Server::guard`](crate::Server::guard).
#[derive(Debug)]
pub enum Verdict {
    /// As without a hook: the tokens of the configuration decide.
    AsConfigured,
    /// It may be done, token or not. A page of another site is not asked about: it may not write.
    Allow,
    /// Who subscribes gets these topics instead of those asked for. What else is to be done may be
    /// done if it is within them: to publish to one of them; all else needs `*`.
    Narrow(Patterns),
    /// This is the answer.
    Refuse(Response),
}

/// The hook of an embedder.
pub(super) type Guard = Arc<dyn Fn(&Request, &Action<'_>) -> Verdict + Send + Sync>;

/// Where a token may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// In `Authorization: Bearer`, or in a cookie.
    Header,
    /// Or in the query. That is for streams alone: an EventSource can set no header, and a URL is
    /// written down in more places than a header.
    HeaderOrQuery,
}

/// How somebody was let in.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// What the hook made of the patterns that were asked for.
    pub(super) instead: Option<Patterns>,
    /// What let it in, to be asked again after a reload; `None` if no token did.
    pub(super) pass: Option<u64>,
}

impl Admission {
    /// For who has no way to be given other topics than it asked for.
    pub(super) fn check(&self, action: &Action<'_>) -> Result<(), Problem> {
        match &self.instead {
            Some(patterns) if !covers(patterns.iter(), action) => Err(not_within(action)),
            _ => Ok(()),
        }
    }
}

/// The name of the cookie with a token in it.
const COOKIE: &str = "tiny_sse_token";

/// The rules of one server. Cloning shares them.
#[derive(Clone)]
pub(super) struct Access {
    rules: Arc<Rules>,
    guard: Option<Guard>,
}

struct Rules {
    publishing: Door,
    subscribing: Door,
    origins: Vec<Origin>,
    /// The tokens of the configuration itself.
    fixed: Vec<Grant>,
    path: Option<PathBuf>,
    key: RandomState,
    /// LOCK: guards which tokens are known. Held to take or change the pointer, never while the file
    /// is read.
    holders: RwLock<Arc<Holders>>,
}

/// For whom a verb is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// For everybody.
    Open,
    /// For whoever is on this machine, which is where the server listens.
    ThisMachine,
    /// For those with a token.
    Tokens,
    /// For nobody: others can reach the server, and nothing was said of who may.
    Shut(Option<SocketAddr>),
}

impl Access {
    /// The rules of a server that listens at `address`; `None` is not known to be this machine alone.
    /// Reads the file of tokens.
    ///
    /// # Errors
    ///
    /// The file cannot be used.
    pub(super) fn new(config: &Config, address: Option<SocketAddr>) -> io::Result<Access> {
        let is_local = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        let publishing = if config.open {
            Door::Open
        } else if config.publish_token.is_some() || config.tokens.is_some() {
            Door::Tokens
        } else if is_local {
            Door::ThisMachine
        } else {
            Door::Shut(address)
        };
        let subscribing = if config.subscribe_token.is_some() || config.tokens.is_some() {
            Door::Tokens
        } else {
            Door::Open
        };
        let fixed = [
            (&config.publish_token, Verb::Publish),
            (&config.subscribe_token, Verb::Subscribe),
        ];
        let fixed = fixed.into_iter().filter_map(|(token, verb)| {
            Some(Grant {
                token: Some(token.clone()?),
                verbs: vec![verb],
                patterns: [Pattern::all()].into_iter().collect(),
            })
        });
        let (fixed, key) = (fixed.collect::<Vec<_>>(), RandomState::new());
        let holders = load(&fixed, config.tokens.as_deref(), &key)?;
        let rules = Rules {
            publishing,
            subscribing,
            origins: config.cors_origins.clone(),
            fixed,
            path: config.tokens.clone(),
            key,
            holders: RwLock::new(Arc::new(holders)),
        };
        Ok(Access {
            rules: Arc::new(rules),
            guard: None,
        })
    }

    /// The same rules behind a hook.
    pub(super) fn guarded(self, guard: Guard) -> Access {
        Access {
            guard: Some(guard),
            ..self
        }
    }

    /// Reads the file of tokens again; answers how many tokens are known now.
    ///
    /// # Errors
    ///
    /// The file cannot be used. All stays as it was.
    pub(super) fn reload(&self) -> io::Result<usize> {
        let rules = &self.rules;
        let holders = load(&rules.fixed, rules.path.as_deref(), &rules.key)?;
        let count = holders.len();
        // A panic under this lock would be one of a pointer being copied.
        let mut present = rules
            .holders
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(holders);
        Ok(count)
    }

    /// Whether somebody who was let in by `pass` would be let in now.
    pub(super) fn is_valid(&self, pass: u64, patterns: &Patterns) -> bool {
        let holders = self.holders();
        let holder = holders.of_pass(pass);
        is_granted(&holders, holder, &Action::Subscribe(patterns))
    }

    /// Lets a request do something, or answers why not.
    pub(super) fn admit(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
    ) -> Result<Admission, Problem> {
        let sender = Sender::of(request, &self.rules.origins)?;
        // What needs the right to publish is no mere reading, whatever the method.
        let is_more = changes_something(request) || verb_for(action) == Verb::Publish;
        if is_more && !sender.may_write() {
            return Err(foreign(request, action));
        }
        let verdict = self.guard.as_ref().map(|guard| guard(request, action));
        match (verdict, action) {
            (None | Some(Verdict::AsConfigured), _) => {
                self.ask_door(request, action, carrier, sender)
            }
            (Some(Verdict::Allow), _) => Ok(Admission::default()),
            (Some(Verdict::Refuse(response)), _) => Err(Problem::Answered(response)),
            (Some(Verdict::Narrow(patterns)), Action::Subscribe(_)) => Ok(Admission {
                instead: Some(patterns),
                pass: None,
            }),
            (Some(Verdict::Narrow(patterns)), _) if covers(patterns.iter(), action) => {
                Ok(Admission::default())
            }
            (Some(Verdict::Narrow(_)), _) => Err(not_within(action)),
        }
    }

    /// Asks for a token where one is needed.
    fn ask_door(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
        sender: Sender,
    ) -> Result<Admission, Problem> {
        let door = match verb_for(action) {
            Verb::Publish => self.rules.publishing,
            Verb::Subscribe => self.rules.subscribing,
        };
        match door {
            Door::Open => {}
            Door::ThisMachine => only_here(request, action)?,
            Door::Tokens => {
                return self.ask_holders(action, carrier, &candidates(request, carrier, sender)?);
            }
            Door::Shut(address) => return Err(shut(action, address)),
        }
        match action {
            // Who the clients are says what they listen to, too, and is not to be had for less than
            // that alone.
            Action::Clients => self.ask_door(request, &Action::Stats, carrier, sender),
            _ => Ok(Admission::default()),
        }
    }

    /// Lets in whoever holds one of these tokens, if it grants what is to be done.
    fn ask_holders(
        &self,
        action: &Action<'_>,
        carrier: Carrier,
        candidates: &[Cow<'_, [u8]>],
    ) -> Result<Admission, Problem> {
        let holders = self.holders();
        let known: Vec<&Holder> = candidates
            .iter()
            .filter_map(|candidate| holders.of_token(candidate))
            .collect();
        let mut all = known.iter().copied().chain([holders.anybody()]);
        match all.find(|holder| is_granted(&holders, holder, action)) {
            Some(holder) => Ok(Admission {
                instead: None,
                pass: Some(holder.pass),
            }),
            None if known.is_empty() => Err(unknown(action, carrier, candidates.is_empty())),
            None => Err(Problem::new(
                403,
                format!("this token does not let you {}", Described(action)),
            )),
        }
    }

    fn holders(&self) -> Arc<Holders> {
        let holders = self
            .rules
            .holders
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&holders)
    }

    /// Tells the page behind a request that it may read the answer, if it may.
    pub(super) fn share(&self, request: Option<&Request>, response: Response) -> Response {
        origin::share(request, response, &self.rules.origins)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("publishing", &self.rules.publishing)
            .field("subscribing", &self.rules.subscribing)
            .finish_non_exhaustive()
    }
}

fn load(fixed: &[Grant], path: Option<&Path>, key: &RandomState) -> io::Result<Holders> {
    let from_file = path.map_or(Ok(Vec::new()), tokens::read)?;
    Ok(Holders::new(fixed.iter().cloned().chain(from_file), key))
}

/// SPEC: RFC 9110, 9.2.1: GET, HEAD and OPTIONS are safe. There is no TRACE here.
fn changes_something(request: &Request) -> bool {
    !matches!(request.method(), "GET" | "HEAD" | "OPTIONS")
}

/// What one must be granted, on the topics that [`covers`] asks for.
fn verb_for(action: &Action<'_>) -> Verb {
    match action {
        Action::Publish(_) | Action::Client(_) | Action::Clients => Verb::Publish,
        Action::Subscribe(_) | Action::Stats => Verb::Subscribe,
    }
}

fn is_granted(holders: &Holders, holder: &Holder, action: &Action<'_>) -> bool {
    covers(holders.granted(holder, verb_for(action)), action)
}

/// Whether an action keeps within these topics.
fn covers<'a>(granted: impl Iterator<Item = &'a Pattern> + Clone, action: &Action<'_>) -> bool {
    let has = |asked: &Pattern| granted.clone().any(|pattern| pattern.covers(asked));
    match action {
        Action::Publish(Some(topic)) => granted.clone().any(|pattern| pattern.matches(topic)),
        // Without patterns only events come that reach everybody who is let in at all.
        Action::Subscribe(asked) => asked.iter().all(has) && granted.clone().next().is_some(),
        Action::Publish(None) | Action::Client(_) | Action::Stats | Action::Clients => {
            has(&Pattern::all())
        }
    }
}

/// The tokens that a request has with it. A token has neither a space nor a `%` in it, so what libraries
/// do to base64 in a query or a cookie is undone without one token being taken for another. Padding is
/// part of a token: `YQ==` and `YQ` are two.
fn candidates(
    request: &Request,
    carrier: Carrier,
    sender: Sender,
) -> Result<Vec<Cow<'_, [u8]>>, Problem> {
    let mut found = Vec::new();
    if let Some(credentials) = request.field("authorization")? {
        // SPEC: RFC 9110, 11.4: the scheme has no case. One of another scheme is for somebody else.
        if let Some((scheme, token)) = credentials.split_once(' ')
            && scheme.eq_ignore_ascii_case("bearer")
        {
            found.push(Cow::Borrowed(token.trim_ascii().as_bytes()));
        }
    }
    if carrier == Carrier::HeaderOrQuery {
        found.extend(request.queries("token").map(with_plus));
    }
    if sender.may_use_cookies() {
        // SPEC: RFC 6265, 4.1.1: `cookie-value = *cookie-octet / ( DQUOTE *cookie-octet DQUOTE )`;
        // 4.2.1: `cookie-string = cookie-pair *( ";" SP cookie-pair )`.
        let pairs = request
            .fields("cookie")
            .flat_map(|cookies| cookies.split(|&byte| byte == b';'));
        found.extend(pairs.filter_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?;
            Some(without_percent(match value.strip_prefix(b"=")? {
                [b'"', quoted @ .., b'"'] => quoted,
                plain => plain,
            }))
        }));
    }
    // LIMIT: nobody has more than one, or three on the way to another. ORDER: cookies come last: a site
    // beside this one may have set some that push others out.
    found.truncate(3);
    Ok(found)
}

/// A query is read as a form, where `+` is a space. In a token a space can only have been a `+`.
fn with_plus(value: &str) -> Cow<'_, [u8]> {
    if value.contains(' ') {
        Cow::Owned(value.replace(' ', "+").into_bytes())
    } else {
        Cow::Borrowed(value.as_bytes())
    }
}

/// Libraries percent-encode the value of a cookie.
fn without_percent(value: &[u8]) -> Cow<'_, [u8]> {
    if value.contains(&b'%') {
        Cow::Owned(percent_decoded(value).into_bytes())
    } else {
        Cow::Borrowed(value)
    }
}

/// What is to be done is not within what a hook has narrowed it to.
fn not_within(action: &Action<'_>) -> Problem {
    Problem::new(403, format!("you may not {}", Described(action)))
}

fn only_here(request: &Request, action: &Action<'_>) -> Result<(), Problem> {
    if !request.is_local() {
        let client = request.client();
        let what = format!(
            "a token is needed to {} from {client}, and this server has none ({HOW_TO_OPEN})",
            Described(action)
        );
        return Err(Problem::new(403, what));
    }
    let host = request.host().unwrap_or_default();
    if request.field("origin")?.is_some() && !origin::is_this_machine(host) {
        let what = format!(
            "a token is needed to {} from a page of {host:?}, and this server has none: without, it \
             is for pages of localhost ({HOW_TO_OPEN})",
            Described(action)
        );
        return Err(Problem::new(403, what));
    }
    Ok(())
}

const HOW_TO_OPEN: &str = "start it with --publish-token or TINY_SSE_PUBLISH_TOKEN, with --tokens FILE, \
     or with --open to let everybody";

fn shut(action: &Action<'_>, address: Option<SocketAddr>) -> Problem {
    let place = address.map_or_else(String::new, |address| format!(" listens on {address},"));
    let what = format!(
        "nobody may {}: this server{place} can be reached from elsewhere, and has no token for it \
         ({HOW_TO_OPEN})",
        Described(action)
    );
    Problem::new(403, what)
}

fn foreign(request: &Request, action: &Action<'_>) -> Problem {
    let action = Described(action);
    let what = match request.field("origin") {
        Ok(Some("null")) => format!("a page without an origin may not {action}"),
        Ok(Some(origin)) => {
            format!("a page of {origin} may not {action} (--cors-origin {origin} would let it)")
        }
        _ => format!("a page of another site may not {action}"),
    };
    Problem::new(403, what)
}

/// SPEC: RFC 6750, 3: the challenge, with `invalid_token` if there was one.
pub(super) fn unknown(action: &Action<'_>, carrier: Carrier, is_missing: bool) -> Problem {
    let action = Described(action);
    let query = match carrier {
        Carrier::Header => "",
        Carrier::HeaderOrQuery => ", or ?token=TOKEN",
    };
    let (what, challenge) = if is_missing {
        (
            format!(
                "a token is needed to {action}: Authorization: Bearer TOKEN, the cookie {COOKIE}{query}"
            ),
            "Bearer realm=\"tiny-sse\"",
        )
    } else {
        (
            format!("a token is needed to {action}, and this one is not known"),
            "Bearer realm=\"tiny-sse\", error=\"invalid_token\"",
        )
    };
    Problem::Answered(Response::error(401, what).with("WWW-Authenticate", challenge))
}

/// An action, as an error names it.
struct Described<'a>(&'a Action<'a>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Action::Publish(Some(topic)) => write!(f, "publish to {:?}", topic.as_str()),
            Action::Publish(None) => f.write_str("publish to everybody"),
            Action::Subscribe(patterns) => {
                f.write_str("subscribe")?;
                for (place, pattern) in patterns.iter().enumerate() {
                    let before = if place == 0 { " to" } else { "," };
                    write!(f, "{before} {:?}", pattern.to_string())?;
                }
                Ok(())
            }
            Action::Client(name) => write!(f, "publish to the client {name:?} or end its stream"),
            Action::Stats => f.write_str("see the statistics, as who may subscribe to * may"),
            Action::Clients => f.write_str("see the clients, as who may publish to * may"),
        }
    }
}
