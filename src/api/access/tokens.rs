//! Turns the options for tokens, and the file of `--tokens`, into a table: which rights
//! has a token, and which rights has every client.
//!
//! ```text
//! file or options                 table                   publish          subscribe
//! *  subscribe  public/*    ->    every client            -                public/*
//! T1 publish    sensors/*         T1                      sensors/*, log   -
//! T1 publish    log
//! T2 publish,subscribe  chat/*    T2                      chat/*           chat/*
//! ```
//!
//! A client with T2 may subscribe to `chat/*` and to `public/*`: the rights of every
//! client are added at each question.
//!
//! A signed token is not in the table. It has its rights in itself, and the table has the
//! keys that verify it (`wire/jwt.rs`). A client with one has the rights of every client
//! too.
//!
//! A table never changes. A reload builds a new one and replaces the pointer to it, so a
//! request sees either all of the old rights or all of the new ones. Connection threads
//! read the table through [`Tokens::table`], and the hub asks about the permits of
//! connected clients through [`Issuer`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use super::candidates::Candidate;
use super::key_file::read_keys;
use super::token_file::{self, Grant};
use crate::api::action::{Action, Verb};
use crate::config::{Config, QUERY_TOKEN_LIFE, TOKEN_LEEWAY};
use crate::hub::Issuer;
use crate::wire::jwt::{Claims, JwtKey, JwtRules, looks_signed};
use crate::wire::{Pattern, Patterns, Token};

/// The tokens of one server: its present table, and what is needed to build the next one.
#[derive(Debug)]
pub(super) struct Tokens {
    /// What the options `--publish-token`, `--subscribe-token` and `--public` grant. A
    /// reload keeps these grants.
    fixed: Vec<Grant>,
    /// The file of `--tokens`.
    path: Option<PathBuf>,
    /// The keys of signed tokens that are not from a file. A reload keeps them.
    fixed_keys: Vec<JwtKey>,
    /// The file of `--jwt-key`.
    key_path: Option<PathBuf>,
    /// The name of this server in signed tokens.
    audience: Option<String>,
    /// The key of the hash that makes the number of a token. All tables use the same key,
    /// so that a permit from an old table means the same token in a new one.
    key: RandomState,
    /// LOCK: guards no data. It makes reloads happen one after the other: without it, a
    /// reload that read the file earlier could take effect later. It is held while the
    /// file is read; only other reloads wait for it.
    reloading: Mutex<()>,
    /// LOCK: guards the pointer to the present table. It is held to clone or to replace
    /// the pointer, and for one look-up in `knows`; never while the file is read.
    table: RwLock<Arc<GrantTable>>,
}

impl Tokens {
    /// Reads the files, if there are any. Without a file of tokens and without keys, a
    /// verb whose option gives no token is granted to every client on every topic; the
    /// exposure then decides whether a client may use it.
    ///
    /// # Errors
    ///
    /// A file cannot be used.
    pub(super) fn new(config: &Config) -> io::Result<Tokens> {
        let public = Grant {
            token: None,
            verbs: vec![Verb::Subscribe],
            patterns: config.public.clone(),
        };
        let config = &config.access;
        let grant = |token: &Option<Token>, verb| Grant {
            token: token.clone(),
            verbs: vec![verb],
            patterns: [Pattern::all()].into_iter().collect(),
        };
        let options = [
            (&config.publish_token, Verb::Publish),
            (&config.subscribe_token, Verb::Subscribe),
        ];
        let is_closed = config.tokens.is_some() || config.has_signed_tokens();
        let tokens = Tokens {
            fixed: options
                .into_iter()
                .filter(|(token, _)| token.is_some() || !is_closed)
                .map(|(token, verb)| grant(token, verb))
                .chain([public])
                .collect(),
            path: config.tokens.clone(),
            fixed_keys: config.jwt_keys.clone(),
            key_path: config.jwt_key_file.clone(),
            audience: config.jwt_audience.clone(),
            key: RandomState::new(),
            reloading: Mutex::default(),
            table: RwLock::default(),
        };
        tokens.reload()?;
        Ok(tokens)
    }

    /// Reads the files again, and replaces the table. Returns the number of tokens and of
    /// keys in the new table. Blocks on the disk, and on a reload that is under way.
    ///
    /// # Errors
    ///
    /// A file cannot be used. The table stays as it was.
    pub(super) fn reload(&self) -> io::Result<(usize, usize)> {
        let lock = self.reloading.lock();
        let _lock = lock.unwrap_or_else(PoisonError::into_inner);
        let mut grants = self.fixed.clone();
        if let Some(path) = &self.path {
            grants.extend(token_file::read(path)?);
        }
        let mut keys = self.fixed_keys.clone();
        if let Some(path) = &self.key_path {
            keys.extend(read_keys(path)?);
        }
        let table = GrantTable {
            jwt: JwtRules {
                keys,
                audience: self.audience.clone(),
                leeway: TOKEN_LEEWAY,
            },
            ..GrantTable::new(grants, &self.key)
        };
        // Without the rights of every client, which are always in the table.
        let count = (table.index.len() - 1, table.jwt.keys.len());
        // A poisoned lock is used all the same: no code that runs under it can panic
        // between two changes.
        let mut present = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *present, Arc::new(table));
        drop(present);
        // LOCK: released first, because dropping the old table may free some 40,000
        // patterns.
        drop(before);
        Ok(count)
    }

    /// The present table. A caller that keeps the pointer goes on seeing this table after
    /// a reload.
    pub(super) fn table(&self) -> Arc<GrantTable> {
        let table = self.table.read();
        Arc::clone(&table.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the operator has configured which clients have this right: with a file,
    /// with keys of signed tokens, or with the option for the verb. Otherwise every
    /// client has it, as far as the exposure allows it.
    pub(super) fn are_configured_for(&self, verb: Verb) -> bool {
        let is_about = |grant: &Grant| grant.token.is_some() && grant.verbs.contains(&verb);
        let has_keys = self.key_path.is_some() || !self.fixed_keys.is_empty();
        self.path.is_some() || has_keys || self.fixed.iter().any(is_about)
    }
}

/// The hub's questions about the permit of a connected client. The permit is the number
/// of the rights that allowed the subscription.
impl Issuer for Tokens {
    fn allows(&self, permit: u64, patterns: &Patterns) -> bool {
        let table = self.table();
        let rights = Holder::Listed(table.by_number(permit));
        table.allows(&rights, &Action::Subscribe(patterns))
    }

    fn knows(&self, permit: u64) -> bool {
        // LOCK: the pointer is not cloned. The caller holds the hub's lock, and if a
        // reload replaced the table now, dropping the last clone would free the whole
        // table under that lock.
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.index.contains_key(&permit)
    }
}

/// All rights at one time: of every client, and of each known token. It does not change
/// after [`new`](Self::new).
#[derive(Debug)]
pub(super) struct GrantTable {
    /// The key of the hash that turns a token into its number. The number finds the
    /// token, and a permit keeps it instead of the secret. The key is random, so no peer
    /// can tell which guesses have similar numbers, and the time of a look-up does not
    /// help to guess a token.
    key: RandomState,
    /// The index in `rights` for the number of each token, and for the number of every
    /// client.
    index: HashMap<u64, usize>,
    /// The first element is the rights of every client.
    rights: Vec<Rights>,
    /// The keys of signed tokens. There may be none.
    jwt: JwtRules,
}

/// What gives a request its rights.
pub(super) enum Holder<'a> {
    /// A token in the table; or no token, if these are the rights of every client.
    Listed(&'a Rights),
    /// A signed token.
    Signed {
        /// What the token says.
        claims: Claims,
        /// The hash of the token.
        number: u64,
    },
}

impl Holder<'_> {
    /// The topics for a verb, without those of every client.
    fn granted(&self, verb: Verb) -> &Patterns {
        match (self, verb) {
            (Holder::Listed(rights), verb) => &rights.granted[verb as usize],
            (Holder::Signed { claims, .. }, Verb::Publish) => &claims.publish,
            (Holder::Signed { claims, .. }, Verb::Subscribe) => &claims.subscribe,
        }
    }

    /// Whether the request carries a token.
    pub(super) fn has_token(&self) -> bool {
        match self {
            Holder::Listed(rights) => rights.token.is_some(),
            Holder::Signed { .. } => true,
        }
    }
}

/// The permit of a client with a signed token: what the hub asks when the keys or the
/// rights of every client have changed.
pub(super) struct SignedPermit {
    /// The tokens of the server, with the present keys.
    pub(super) tokens: Arc<Tokens>,
    /// What the token says.
    pub(super) claims: Claims,
}

impl Issuer for SignedPermit {
    /// A token whose key was removed counts no more. The client then has the rights of
    /// every client.
    fn allows(&self, _: u64, patterns: &Patterns) -> bool {
        let table = self.tokens.table();
        let action = Action::Subscribe(patterns);
        match table.has_key(self.claims.key) {
            true => table.covers(&self.claims.subscribe, &action),
            false => table.allows(&Holder::Listed(table.every_client()), &action),
        }
    }

    fn knows(&self, _: u64) -> bool {
        // LOCK: as in `Tokens`.
        let table = self.tokens.table.read();
        table
            .unwrap_or_else(PoisonError::into_inner)
            .has_key(self.claims.key)
    }
}

/// The rights of one token, or of every client. All lines of the token together.
#[derive(Debug)]
pub(super) struct Rights {
    /// `None`: these rights are those of every client.
    pub(super) token: Option<Token>,
    /// The hash of the token, or of the empty text for every client. A permit keeps it.
    pub(super) number: u64,
    /// The topics, indexed by [`Verb`].
    granted: [Patterns; 2],
}

/// A table without any right.
impl Default for GrantTable {
    fn default() -> GrantTable {
        GrantTable::new(Vec::new(), &RandomState::new())
    }
}

impl GrantTable {
    /// Collects the grants of each token. `key` must be the same for all tables of a
    /// server.
    fn new(grants: Vec<Grant>, key: &RandomState) -> GrantTable {
        // No token is empty, so the empty text is free for every client. Two tokens with
        // the same number, which chance produces once in 2^64 pairs, would share their
        // rights, and only the first token would be accepted.
        let number =
            |token: &Option<Token>| key.hash_one(token.as_ref().map_or(&b""[..], Token::as_bytes));
        let every_client = (None, [Vec::new(), Vec::new()]);
        // The patterns of all lines of a token are collected first, and sorted once at
        // the end. To add each line to sorted patterns would take time that is quadratic
        // in the number of lines.
        let mut lines: Vec<(Option<Token>, [Vec<Pattern>; 2])> = vec![every_client];
        let mut index = HashMap::from([(number(&None), 0)]);
        for grant in grants {
            let position = *index.entry(number(&grant.token)).or_insert(lines.len());
            if position == lines.len() {
                lines.push((grant.token, [Vec::new(), Vec::new()]));
            }
            for verb in grant.verbs {
                lines[position].1[verb as usize].extend(grant.patterns.iter().cloned());
            }
        }
        let rights = lines.into_iter().map(|(token, granted)| Rights {
            number: number(&token),
            token,
            granted: granted.map(Patterns::from_iter),
        });
        GrantTable {
            key: key.clone(),
            index,
            rights: rights.collect(),
            jwt: JwtRules::default(),
        }
    }

    /// Returns what a token that a request carries grants.
    ///
    /// # Errors
    ///
    /// The token is unknown, or it is a signed token that is refused: then with the
    /// reason.
    pub(super) fn holder_of(
        &self,
        candidate: &Candidate<'_>,
        now: SystemTime,
    ) -> Result<Holder<'_>, Option<&'static str>> {
        let token = &*candidate.text;
        if let Some(rights) = self.rights_of(token) {
            return Ok(Holder::Listed(rights));
        }
        if self.jwt.keys.is_empty() || !looks_signed(token) {
            return Err(None);
        }
        let verified = self.jwt.verify(token, now);
        let claims = verified.map_err(|refused| Some(refused.reason()))?;
        let latest = now + QUERY_TOKEN_LIFE + TOKEN_LEEWAY;
        if candidate.is_in_query && claims.expires.is_none_or(|end| end > latest) {
            return Err(Some("a signed token in a URL must end within 10 minutes"));
        }
        let number = self.key.hash_one(token.as_bytes());
        Ok(Holder::Signed { claims, number })
    }

    /// Whether the table has the key with this number, and the key has not ended.
    fn has_key(&self, number: u64) -> bool {
        let now = SystemTime::now();
        let is_it = |key: &JwtKey| key.number() == number && !key.is_over(now);
        self.jwt.keys.iter().any(is_it)
    }

    /// Returns the rights of a token in the table; `None` if the token is unknown. An
    /// equal hash is not enough: the token is compared too, in constant time.
    fn rights_of(&self, candidate: &str) -> Option<&Rights> {
        let rights = self.by_number(self.key.hash_one(candidate.as_bytes()));
        rights
            .token
            .as_ref()?
            .is(candidate.as_bytes())
            .then_some(rights)
    }

    /// Returns the rights with this number. If no token has the number, because a reload
    /// removed the token, the client has the rights of every client.
    fn by_number(&self, number: u64) -> &Rights {
        &self.rights[self.index.get(&number).copied().unwrap_or(0)]
    }

    /// The rights of a client without a token.
    pub(super) fn every_client(&self) -> &Rights {
        &self.rights[0]
    }

    /// Whether these rights and those of every client together allow the action. The two
    /// are asked separately, because joining them when the table is built would copy the
    /// patterns of every client for each token, which could take gigabytes.
    pub(super) fn allows(&self, holder: &Holder<'_>, action: &Action<'_>) -> bool {
        self.covers(holder.granted(action.verb()), action)
    }

    /// Whether these topics and those of every client allow the action.
    fn covers(&self, granted: &Patterns, action: &Action<'_>) -> bool {
        let of_every_client = &self.every_client().granted[action.verb() as usize];
        covers(&[granted, of_every_client], action)
    }
}

/// Whether an action stays within the topics of these patterns. Each pattern of a
/// subscription must be covered by one of the granted patterns: `chat/*` covers
/// `chat/room` and `chat/r*`; `chat/a*` and `chat/b*` together do not cover `chat/*`.
pub(super) fn covers(granted: &[&Patterns], action: &Action<'_>) -> bool {
    let has = |asked: &Pattern| granted.iter().any(|patterns| patterns.covers(asked));
    match action {
        Action::Publish(Some(topic)) => {
            granted.iter().any(|patterns| patterns.matches(Some(topic)))
        }
        // A subscription without patterns gets the events without a topic. Every client
        // with any right to subscribe may have these.
        Action::Subscribe(asked) => {
            asked.iter().all(has) && granted.iter().any(|patterns| patterns.iter().len() > 0)
        }
        Action::Publish(None)
        | Action::Client(_)
        | Action::User(_)
        | Action::Stats
        | Action::Clients => has(&Pattern::all()),
    }
}

#[cfg(test)]
#[path = "../../../tests/inside/access_tests.rs"]
mod tests;
