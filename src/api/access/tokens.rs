//! What each token grants: the tokens of the configuration, and those of a file that can be read again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::token_file::{self, Grant};
use crate::api::action::{Action, Verb};
use crate::config::AccessConfig;
use crate::hub::Issuer;
use crate::wire::{Pattern, Patterns, Token};

/// The tokens of one server. A permit that a token gave goes on asking here.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The grants of the configuration itself.
    fixed: Vec<Grant>,
    path: Option<PathBuf>,
    key: RandomState,
    /// LOCK: guards the order alone: one reload reads the file and takes effect before the next one reads it.
    /// Held while the file is read, and no request waits for it.
    reloading: Mutex<()>,
    /// LOCK: guards which tokens are known. Held to take or change the pointer, never while the file is read.
    table: RwLock<Arc<GrantTable>>,
}

impl Tokens {
    /// Reads the file. A verb for which there is no token is granted to every client on every topic.
    ///
    /// # Errors
    ///
    /// The file cannot be used.
    pub(super) fn new(config: &AccessConfig) -> io::Result<Tokens> {
        let grant = |token: &Option<Token>, verb| Grant {
            token: token.clone(),
            verbs: vec![verb],
            patterns: [Pattern::all()].into_iter().collect(),
        };
        let of_config = [
            (&config.publish_token, Verb::Publish),
            (&config.subscribe_token, Verb::Subscribe),
        ];
        let of_config = of_config.into_iter();
        let tokens = Tokens {
            fixed: of_config
                .filter(|(token, _)| token.is_some() || config.tokens.is_none())
                .map(|(token, verb)| grant(token, verb))
                .collect(),
            path: config.tokens.clone(),
            key: RandomState::new(),
            reloading: Mutex::default(),
            table: RwLock::default(),
        };
        tokens.reload()?;
        Ok(tokens)
    }

    /// Reads the file again. Returns the number of tokens that are known now.
    ///
    /// # Errors
    ///
    /// The file cannot be used. All stays as it was.
    pub(super) fn reload(&self) -> io::Result<usize> {
        let turn = self.reloading.lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        let mut grants = self.fixed.clone();
        if let Some(path) = &self.path {
            grants.extend(token_file::read(path)?);
        }
        let table = GrantTable::new(grants, &self.key);
        let count = table.index.len() - 1;
        // A panic under this lock would be one of a pointer being copied.
        let mut present = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *present, Arc::new(table));
        drop(present);
        // LOCK: released first, because this may free some 40,000 patterns.
        drop(before);
        Ok(count)
    }

    /// What is granted now.
    pub(super) fn table(&self) -> Arc<GrantTable> {
        let table = self.table.read();
        Arc::clone(&table.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this verb is for tokens. Otherwise it is for every client, as far as the exposure allows it.
    pub(super) fn are_for(&self, verb: Verb) -> bool {
        let is_for = |grant: &Grant| grant.token.is_some() && grant.verbs.contains(&verb);
        self.path.is_some() || self.fixed.iter().any(is_for)
    }
}

impl Issuer for Tokens {
    fn allows(&self, permit: u64, patterns: &Patterns) -> bool {
        let table = self.table();
        table.grants(table.holder(permit), &Action::Subscribe(patterns))
    }

    fn knows(&self, permit: u64) -> bool {
        // LOCK: the pointer is not cloned: the hub's lock is held, and the last clone frees the table.
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.index.contains_key(&permit)
    }
}

/// What all tokens grant at one time. A reload makes another table.
#[derive(Debug)]
pub(super) struct GrantTable {
    /// Makes a number of a token, by which the token is found, and remembered without being kept. Nobody
    /// outside this process can say which tokens have similar numbers, so the time of a look-up does not help
    /// to guess one.
    key: RandomState,
    /// Where the holder of each number is in the list.
    index: HashMap<u64, usize>,
    /// The first one is every client.
    holders: Vec<Holder>,
}

/// What one token grants.
#[derive(Debug)]
pub(super) struct Holder {
    /// `None`: what every client has, without a token.
    pub(super) token: Option<Token>,
    /// The number of the token.
    pub(super) number: u64,
    /// By verb.
    granted: [Patterns; 2],
}

/// Nothing is granted.
impl Default for GrantTable {
    fn default() -> GrantTable {
        GrantTable::new(Vec::new(), &RandomState::new())
    }
}

impl GrantTable {
    /// `key` makes the numbers, so it must be the same for tables that follow each other.
    fn new(grants: Vec<Grant>, key: &RandomState) -> GrantTable {
        // No token is empty, so the number of every client is not the number of a token.
        let number =
            |token: &Option<Token>| key.hash_one(token.as_ref().map_or(&b""[..], Token::as_bytes));
        let every_client = (None, [Vec::new(), Vec::new()]);
        // The patterns of all lines of a token are sorted once.
        let mut lines: Vec<(Option<Token>, [Vec<Pattern>; 2])> = vec![every_client];
        let mut index = HashMap::from([(number(&None), 0)]);
        for grant in grants {
            let place = *index.entry(number(&grant.token)).or_insert(lines.len());
            if place == lines.len() {
                lines.push((grant.token, [Vec::new(), Vec::new()]));
            }
            for verb in grant.verbs {
                lines[place].1[verb as usize].extend(grant.patterns.iter().cloned());
            }
        }
        let holders = lines.into_iter().map(|(token, granted)| Holder {
            number: number(&token),
            token,
            granted: granted.map(Patterns::from_iter),
        });
        GrantTable {
            key: key.clone(),
            index,
            holders: holders.collect(),
        }
    }

    /// The holder of a token.
    pub(super) fn holder_of(&self, candidate: &str) -> Option<&Holder> {
        let holder = self.holder(self.key.hash_one(candidate.as_bytes()));
        holder
            .token
            .as_ref()?
            .is(candidate.as_bytes())
            .then_some(holder)
    }

    /// The holder with this number. A client whose token is gone has what every client has.
    fn holder(&self, number: u64) -> &Holder {
        &self.holders[self.index.get(&number).copied().unwrap_or(0)]
    }

    /// What every client has.
    pub(super) fn every_client(&self) -> &Holder {
        &self.holders[0]
    }

    /// Whether a holder may do this: by its own grants and by those of every client. The two are not joined,
    /// because a copy of many lines for each of many tokens could be gigabytes.
    pub(super) fn grants(&self, holder: &Holder, action: &Action<'_>) -> bool {
        covers(&self.granted(holder, action.verb()), action)
    }

    fn granted<'a>(&'a self, holder: &'a Holder, verb: Verb) -> [&'a Patterns; 2] {
        [holder, self.every_client()].map(|holder| &holder.granted[verb as usize])
    }
}

/// Whether an action keeps within the topics of these patterns together.
pub(super) fn covers(granted: &[&Patterns], action: &Action<'_>) -> bool {
    let has = |asked: &Pattern| granted.iter().any(|patterns| patterns.covers(asked));
    match action {
        Action::Publish(Some(topic)) => {
            granted.iter().any(|patterns| patterns.matches(Some(topic)))
        }
        // Without patterns a client gets only the events that reach every client that is let in at all.
        Action::Subscribe(asked) => {
            asked.iter().all(has) && granted.iter().any(|patterns| patterns.iter().len() > 0)
        }
        Action::Publish(None) | Action::Client(_) | Action::Stats | Action::Clients => {
            has(&Pattern::all())
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/inside/access_tests.rs"]
mod tests;
