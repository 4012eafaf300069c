//! Who may do what. Three are asked in turn: whether a page of another site is behind the request
//! (`origin.rs`), the hook of the embedder, and the tokens (`tokens.rs`).
//!
//! Without tokens anybody may subscribe, and a client on this machine may publish, if the server
//! listens only there. If a verb has tokens, only their holders may use it.
//!
//! What lets a request in is also its *credential*: the token, what the hook says, or else the address
//! of the client. A client name that is in use goes only to the same credential.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Problem;
use super::origin::{self, Sender};
use super::tokens::{self, Grant, Holder, Holders, Verb};
use crate::config::Config;
use crate::http::{Request, Response, percent_decoded};
use crate::report::Report;
use crate::wire::{Network, Origin, Pattern, Patterns, Topic};

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
    /// The verdict on a client that the hook knows: see [`known_as`](Verdict::known_as).
    Known {
        /// Equal for two requests of the same client, different for different clients.
        identity: Box<str>,
        /// What it may do.
        verdict: Box<Verdict>,
    },
}

impl Verdict {
    /// This verdict on a client that your own code knows by `identity`: a user, a session. A
    /// `client_id` that is in use then goes only to a client of the same identity, from wherever that
    /// comes. Without it the client is known by its token, or by its address if it has none.
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
    /// The credential by which a client id that is in use can be taken over. `None`: the client's address.
    credential: Option<u64>,
}

impl Admission {
    /// For who has no way to be given other topics than it asked for.
    pub(super) fn check(&self, action: &Action<'_>) -> Result<(), Problem> {
        match &self.instead {
            Some(patterns) if !covers(&[patterns], action) => Err(not_within(action)),
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
    /// The address of the server, if clients on other machines reach it, directly or through a proxy.
    reached_at: Option<SocketAddr>,
    origins: Vec<Origin>,
    /// The tokens of the configuration itself.
    fixed: Vec<Grant>,
    path: Option<PathBuf>,
    key: RandomState,
    /// LOCK: guards nothing but the order: one reload reads the file and takes effect before the next one
    /// reads it. Held while the file is read, and no request waits for it.
    reloading: Mutex<()>,
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
        } else if config.access.publish_token.is_some() || config.access.tokens.is_some() {
            Door::Tokens
        } else if is_local {
            Door::ThisMachine
        } else {
            Door::Shut(address)
        };
        let subscribing =
            if config.access.subscribe_token.is_some() || config.access.tokens.is_some() {
                Door::Tokens
            } else {
                Door::Open
            };
        let fixed = [
            (&config.access.publish_token, Verb::Publish),
            (&config.access.subscribe_token, Verb::Subscribe),
        ];
        let fixed = fixed.into_iter().filter_map(|(token, verb)| {
            Some(Grant {
                token: Some(token.clone()?),
                verbs: vec![verb],
                patterns: [Pattern::all()].into_iter().collect(),
            })
        });
        let reached_at = address.filter(|_| !is_local || !config.trust_proxy.is_empty());
        let (fixed, key) = (fixed.collect::<Vec<_>>(), RandomState::new());
        let holders = load(&fixed, config.access.tokens.as_deref(), &key)?;
        let rules = Rules {
            publishing,
            subscribing,
            reached_at,
            origins: config.access.cors_origins.clone(),
            fixed,
            path: config.access.tokens.clone(),
            key,
            reloading: Mutex::default(),
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
        let turn = rules.reloading.lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        let holders = load(&rules.fixed, rules.path.as_deref(), &rules.key)?;
        let count = holders.len();
        // A panic under this lock would be one of a pointer being copied.
        let mut present = rules
            .holders
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *present, Arc::new(holders));
        drop(present);
        // LOCK: released first, because this may free some 40,000 patterns.
        drop(before);
        Ok(count)
    }

    /// Whether somebody who was let in by `pass` would be let in now.
    pub(super) fn is_valid(&self, pass: u64, patterns: &Patterns) -> bool {
        let holders = self.holders();
        let holder = holders.of_pass(pass);
        is_granted(&holders, holder, &Action::Subscribe(patterns))
    }

    /// Whether the token that let a client in is still known.
    pub(super) fn is_known(&self, pass: u64) -> bool {
        self.holders().has_pass(pass)
    }

    /// Warns the operator what a client without a token may do, if other machines can reach the server.
    /// With a hook this is not known, and nothing is reported.
    pub(super) fn warn_of_open_doors(&self, report: &Report) {
        let Some(address) = self.rules.reached_at else {
            return;
        };
        let holders = self.holders();
        let all = |action| is_granted(&holders, holders.anybody(), &action);
        let may_read = self.rules.subscribing == Door::Open || all(Action::Stats);
        let may_publish = self.rules.publishing == Door::Open || all(Action::Publish(None));
        let what = match (may_read, may_publish) {
            _ if self.guard.is_some() => return,
            (false, false) => return,
            (true, false) => "subscribe to every topic and see /stats and /metrics",
            (false, true) => "publish to every topic",
            (true, true) => "subscribe and publish to every topic, and see /stats and /metrics",
        };
        let way = if address.ip().to_canonical().is_loopback() {
            "through the trusted proxy "
        } else {
            ""
        };
        report.warn(format_args!(
            "any client that reaches {address} {way}may {what}; --tokens FILE lets everybody subscribe \
             only to the topics of its lines such as \"* subscribe public/*\""
        ));
    }

    /// The credential of a client that was let in, for the hub.
    pub(super) fn credential(&self, request: &Request, admission: &Admission) -> u64 {
        let key = &self.rules.key;
        match admission.credential {
            Some(credential) => credential,
            None if request.is_client_known() => {
                // A client that has lost its connection comes back from the same address, or, if its
                // addresses of IPv6 are temporary, from the same /64.
                key.hash_one(Network::of_subscriber(request.client()))
            }
            // Its proxy does not name it, so no other client counts as the same one.
            None => RandomState::new().hash_one(0),
        }
    }

    /// Lets a request do something, or answers why not.
    pub(super) fn admit(
        &self,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
    ) -> Result<Admission, Problem> {
        let sender = Sender::of(request, &self.rules.origins)?;
        if is_more_than_reading(request, action) && !sender.may_write() {
            return Err(foreign(request, action));
        }
        let verdict = match &self.guard {
            Some(guard) => guard(request, action),
            None => Verdict::AsConfigured,
        };
        self.apply(verdict, request, action, carrier, sender)
    }

    fn apply(
        &self,
        verdict: Verdict,
        request: &Request,
        action: &Action<'_>,
        carrier: Carrier,
        sender: Sender,
    ) -> Result<Admission, Problem> {
        match (verdict, action) {
            (Verdict::AsConfigured, _) => self.ask_door(request, action, carrier, sender),
            (Verdict::Allow, _) => Ok(Admission::default()),
            (Verdict::Refuse(response), _) => Err(Problem::Answered(response)),
            (Verdict::Narrow(patterns), Action::Subscribe(_)) => Ok(Admission {
                instead: Some(patterns),
                ..Admission::default()
            }),
            (Verdict::Narrow(patterns), _) if covers(&[&patterns], action) => {
                Ok(Admission::default())
            }
            (Verdict::Narrow(_), _) => Err(not_within(action)),
            (Verdict::Known { identity, verdict }, _) => Ok(Admission {
                credential: Some(self.rules.key.hash_one(identity)),
                ..self.apply(*verdict, request, action, carrier, sender)?
            }),
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
            Door::Open if self.is_for_this_machine() && is_more_than_reading(request, action) => {
                // Another site's name leads here with no token of this server's.
                let candidates = candidates(request, carrier, sender)?;
                if !self.has_holder(&candidates) {
                    self.only_by_own_name(request, action, sender)?;
                }
            }
            Door::Open => {}
            Door::ThisMachine => {
                only_from_here(request, action)?;
                self.only_by_own_name(request, action, sender)?;
            }
            Door::Tokens => {
                let candidates = candidates(request, carrier, sender)?;
                let admission = self.ask_holders(action, carrier, &candidates)?;
                // Without a token a client is known by its address, which it shares with every page in a
                // browser of this machine.
                let is_known_by_address = admission.credential.is_none();
                if is_known_by_address && self.is_for_this_machine() && takes_name(request, action)
                {
                    self.only_by_own_name(request, action, sender)?;
                }
                return Ok(admission);
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

    /// Whether one of these tokens is known.
    fn has_holder(&self, candidates: &[Cow<'_, [u8]>]) -> bool {
        let holders = self.holders();
        candidates
            .iter()
            .any(|candidate| holders.of_token(candidate).is_some())
    }

    /// Whether only this machine reaches the server, and it is not open to everybody.
    fn is_for_this_machine(&self) -> bool {
        self.rules.publishing != Door::Open && self.rules.reached_at.is_none()
    }

    /// Requires a `Host` that can only mean this machine.
    fn only_by_own_name(
        &self,
        request: &Request,
        action: &Action<'_>,
        sender: Sender,
    ) -> Result<(), Problem> {
        let host = request.host().unwrap_or_default();
        if sender.is_here(host, &self.rules.origins) {
            return Ok(());
        }
        let what = format!(
            "a token is needed to {} at the host {host:?}, and this server has none: without a token it \
             must be asked as localhost, because another site can make its own name lead here \
             ({HOW_TO_OPEN}, or with --cors-origin http://{host} to allow that name)",
            Described::of(request, action)
        );
        Err(Problem::new(403, what))
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
                // Rights that every client has do not tell one client from another.
                credential: Some(holder.pass).filter(|_| !known.is_empty()),
            }),
            None if known.is_empty() => Err(unknown(action, carrier, candidates.is_empty())),
            None => Err(Problem::new(
                403,
                format!("this token does not let you {}", Described(action, None)),
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

/// Whether pages of other sites may not do this. An action that needs the right to publish is more than
/// reading, whatever its method. A client that takes a name gets what is sent to that name.
fn is_more_than_reading(request: &Request, action: &Action<'_>) -> bool {
    changes_something(request) || verb_for(action) == Verb::Publish || takes_name(request, action)
}

/// Whether a client asks for a name of its own.
fn takes_name(request: &Request, action: &Action<'_>) -> bool {
    matches!(action, Action::Subscribe(_)) && request.query("client_id").is_some()
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
    covers(&holders.granted(holder, verb_for(action)), action)
}

/// Whether an action keeps within the topics of these patterns together.
fn covers(granted: &[&Patterns], action: &Action<'_>) -> bool {
    let has = |asked: &Pattern| granted.iter().any(|patterns| patterns.covers(asked));
    match action {
        Action::Publish(Some(topic)) => {
            granted.iter().any(|patterns| patterns.matches(Some(topic)))
        }
        // Without patterns only events come that reach everybody who is let in at all.
        Action::Subscribe(asked) => {
            asked.iter().all(has) && granted.iter().any(|patterns| patterns.iter().len() > 0)
        }
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
    Problem::new(403, format!("you may not {}", Described(action, None)))
}

fn only_from_here(request: &Request, action: &Action<'_>) -> Result<(), Problem> {
    if request.is_local() {
        return Ok(());
    }
    let action = Described::of(request, action);
    let client = request.client();
    let what = if request.is_client_known() {
        format!(
            "a token is needed to {action} from {client}, and this server has none ({HOW_TO_OPEN})"
        )
    } else {
        format!(
            "a token is needed to {action} through the proxy {client}, which does not say who its \
             client is: it must set X-Forwarded-For or Forwarded ({HOW_TO_OPEN})"
        )
    };
    Err(Problem::new(403, what))
}

const HOW_TO_OPEN: &str = "start it with --publish-token or TINY_SSE_PUBLISH_TOKEN, with --tokens FILE, \
     or with --open to let everybody";

fn shut(action: &Action<'_>, address: Option<SocketAddr>) -> Problem {
    let place = address.map_or_else(String::new, |address| format!(" listens on {address},"));
    let action = Described(action, None);
    let what = format!(
        "nobody may {action}: this server{place} can be reached from elsewhere, and has no token for \
         it ({HOW_TO_OPEN})"
    );
    Problem::new(403, what)
}

fn foreign(request: &Request, action: &Action<'_>) -> Problem {
    let action = Described::of(request, action);
    let what = match request.field("origin") {
        Ok(Some("null")) => format!("a page without an origin may not {action}"),
        Ok(Some(origin)) => {
            format!("a page of {origin} may not {action} (--cors-origin {origin} would let it)")
        }
        _ => format!("a page of another site may not {action} (--cors-origin ORIGIN would let it)"),
    };
    Problem::new(403, what)
}

/// SPEC: RFC 6750, 3: the challenge, with `invalid_token` if there was one.
pub(super) fn unknown(action: &Action<'_>, carrier: Carrier, is_missing: bool) -> Problem {
    let action = Described(action, None);
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

/// An action, as an error names it; with the name that the client asks for, if that is what matters.
struct Described<'a>(&'a Action<'a>, Option<&'a str>);

impl<'a> Described<'a> {
    fn of(request: &'a Request, action: &'a Action<'a>) -> Described<'a> {
        let name = request.query("client_id");
        Described(action, name.filter(|_| takes_name(request, action)))
    }
}

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
                match self.1 {
                    Some(name) => write!(f, " as client_id {name:?}"),
                    None => Ok(()),
                }
            }
            Action::Client(name) => write!(f, "publish to the client {name:?} or end its stream"),
            Action::Stats => f.write_str("see the statistics, as who may subscribe to * may"),
            Action::Clients => f.write_str("see the clients, as who may publish to * may"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::api::Api;
    use crate::config::AccessConfig;
    use crate::hub::{Hub, Subscribe};

    /// 10,000 clients with 8 patterns each are checked against 40,000 grants to everybody, and then lose
    /// these grants. Other threads go on meanwhile. A linear search would take 3.2 billion comparisons.
    #[test]
    fn a_reload_costs_no_more_for_many_grants_and_holds_nobody_up() {
        const CLIENTS: usize = 10_000;
        const GRANTS: usize = 40_000;
        let path = std::env::temp_dir().join(format!("tiny-sse-grants-{}", std::process::id()));
        let write = |lines: String| {
            fs::write(&path, lines).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(
            (0..GRANTS)
                .map(|n| format!("* subscribe t/{n}\n"))
                .collect(),
        );
        let config = Config {
            access: AccessConfig {
                tokens: Some(path.clone()),
                ..AccessConfig::default()
            },
            max_clients: CLIENTS,
            ..Config::default()
        };
        let hub = Hub::new(config.clone()).unwrap();
        let api = Api::new(hub.clone(), config).unwrap();
        let pass = api.access.holders().anybody().pass;
        let pattern = |n: usize| Pattern::new(&format!("t/{}", n % GRANTS)).unwrap();
        let client = |n: usize| Subscribe {
            patterns: (0..8).map(|i| pattern(n * 3 + i * 5_000)).collect(),
            pass: Some(pass),
            ..Subscribe::default()
        };
        let subscriptions: Vec<_> = (0..CLIENTS)
            .map(|n| hub.subscribe(client(n)).unwrap())
            .collect();
        let is_over = AtomicBool::new(false);
        let (kept, ended, longest) = std::thread::scope(|scope| {
            // Another thread that needs the hub's lock.
            let other = scope.spawn(|| {
                let mut longest = Duration::ZERO;
                // ORDER: Relaxed: the loop ends once it sees the flag; the flag guards no other memory.
                while !is_over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    hub.clients();
                    longest = longest.max(start.elapsed());
                }
                longest
            });
            let reload = || {
                let start = Instant::now();
                api.reload_tokens().unwrap();
                (start.elapsed(), hub.clients())
            };
            let kept = reload();
            write("# nobody\n".into());
            let ended = reload();
            is_over.store(true, Ordering::Relaxed);
            (kept, ended, other.join().unwrap())
        });
        fs::remove_file(&path).unwrap();
        println!("none ends: {kept:?}; all end: {ended:?}; another waited at most {longest:?}");
        assert_eq!((kept.1, ended.1), (CLIENTS, 0));
        let most = Duration::from_millis(5_000);
        assert!(kept.0 + ended.0 < most, "{kept:?} {ended:?}");
        assert!(longest < most / 10, "another waited {longest:?}");
        drop(subscriptions);
    }

    #[test]
    fn a_request_with_many_patterns_is_judged_soon_beside_a_token_with_many() {
        const REQUESTS: u32 = 1_000;
        let granted: Patterns = (0..10_000)
            .map(|n| Pattern::new(&format!("{n:05}/*")).unwrap())
            .collect();
        let asked = |last: &str| -> Patterns {
            let own = (0..63).map(|n| Pattern::new(&format!("{:05}/a", 9_937 + n)).unwrap());
            own.chain([Pattern::new(last).unwrap()]).collect()
        };
        let anybodys = Patterns::default();
        let start = Instant::now();
        for _ in 0..REQUESTS {
            for (last, is_covered) in [("00000/b*", true), ("00000*", false), ("x", false)] {
                let action = asked(last);
                let action = Action::Subscribe(&action);
                assert_eq!(
                    covers(&[&granted, &anybodys], &action),
                    is_covered,
                    "{last}"
                );
            }
        }
        let each = start.elapsed() / REQUESTS / 3;
        println!("{each:?} for a request");
        assert!(each < Duration::from_millis(2), "{each:?}");
    }
}
