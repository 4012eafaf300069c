//! Which token grants what: the tokens of the configuration, and those of a file.
//!
//! ```text
//! # token                                        verbs               topics
//! c2VjcmV0IG9mIHRoZSBzZW5zb3Jz                   publish             sensors/*
//! YSBzZWNyZXQgb2YgdGhlIGRhc2hib2FyZA==           publish,subscribe   chat/* news
//! *                                              subscribe           public/*
//! ```
//!
//! A line is one grant, its parts separated by white space, so a topic with white space in it can be
//! granted only by a pattern that ends before it. The lines of one token add up. `*` in the place of a
//! token is anybody, with a token or without. A word that begins with `#` begins a comment.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::Path;

use crate::config::TOKENS_BYTES;
use crate::wire::{Pattern, Patterns, Token};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Publish,
    Subscribe,
}

/// A line of the file.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// Whose it is; `None` is anybody's.
    pub(super) token: Option<Token>,
    pub(super) verbs: Vec<Verb>,
    pub(super) patterns: Patterns,
}

/// All that one token grants.
#[derive(Debug)]
pub(super) struct Holder {
    token: Option<Token>,
    /// The key of its token.
    pub(super) pass: u64,
    publish: Patterns,
    subscribe: Patterns,
}

/// What the lines of one token grant, before all of them are read.
struct Lines {
    token: Option<Token>,
    publish: Vec<Pattern>,
    subscribe: Vec<Pattern>,
}

/// Who holds what, at one time: a reload makes another.
#[derive(Debug)]
pub(super) struct Holders {
    /// Makes a number of a token, by which it is found, and remembered without being kept. Nobody
    /// outside this process can say which tokens have similar ones, so the time of a look-up is no
    /// help in guessing.
    key: RandomState,
    /// Those without a token.
    anybody: Holder,
    /// By the number of the token.
    known: HashMap<u64, Holder>,
}

impl Holders {
    /// `key` makes the passes, so it must be the same for those that follow each other.
    pub(super) fn new(grants: impl IntoIterator<Item = Grant>, key: &RandomState) -> Holders {
        // No token is empty, so nobody's pass is that of those without one.
        let pass_of_anybody = key.hash_one(&b""[..]);
        let mut anybody = Lines::of(None);
        let mut known: HashMap<u64, Lines> = HashMap::new();
        for grant in grants {
            let lines = match grant.token {
                None => &mut anybody,
                Some(token) => {
                    let pass = key.hash_one(token.as_bytes());
                    let new = || Lines::of(Some(token));
                    known.entry(pass).or_insert_with(new)
                }
            };
            lines.add(&grant.verbs, &grant.patterns);
        }
        let known = known.into_iter();
        Holders {
            key: key.clone(),
            anybody: anybody.holder(pass_of_anybody),
            known: known
                .map(|(pass, lines)| (pass, lines.holder(pass)))
                .collect(),
        }
    }

    /// Those without a token.
    pub(super) fn anybody(&self) -> &Holder {
        &self.anybody
    }

    /// The holder of a token.
    pub(super) fn of_token(&self, candidate: &[u8]) -> Option<&Holder> {
        let found = self.known.get(&self.key.hash_one(candidate))?;
        found.token.as_ref()?.is(candidate).then_some(found)
    }

    /// The topics on which a holder may do this: its own, and those of every client. They are not joined,
    /// because a copy of many lines for each of many tokens could be gigabytes.
    pub(super) fn granted<'a>(&'a self, holder: &'a Holder, verb: Verb) -> [&'a Patterns; 2] {
        [holder.granted(verb), self.anybody.granted(verb)]
    }

    /// The holder of that pass; one whose token is gone has what anybody has.
    pub(super) fn of_pass(&self, pass: u64) -> &Holder {
        self.known.get(&pass).unwrap_or(&self.anybody)
    }

    /// Whether a token with that pass is known, or it is the pass of those without one.
    pub(super) fn has_pass(&self, pass: u64) -> bool {
        pass == self.anybody.pass || self.known.contains_key(&pass)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Lines {
    fn of(token: Option<Token>) -> Lines {
        Lines {
            token,
            publish: Vec::new(),
            subscribe: Vec::new(),
        }
    }

    fn add(&mut self, verbs: &[Verb], patterns: &Patterns) {
        for verb in verbs {
            let granted = match verb {
                Verb::Publish => &mut self.publish,
                Verb::Subscribe => &mut self.subscribe,
            };
            granted.extend(patterns.iter().cloned());
        }
    }

    fn holder(self, pass: u64) -> Holder {
        Holder {
            token: self.token,
            pass,
            publish: self.publish.into_iter().collect(),
            subscribe: self.subscribe.into_iter().collect(),
        }
    }
}

impl Holder {
    fn granted(&self, verb: Verb) -> &Patterns {
        match verb {
            Verb::Publish => &self.publish,
            Verb::Subscribe => &self.subscribe,
        }
    }
}

/// Reads the grants of a file.
///
/// # Errors
///
/// It cannot be read, is not a regular file, is larger than it can be, may be read or written by
/// everybody on this machine, or a line is wrong. No error repeats a token.
pub(super) fn read(path: &Path) -> io::Result<Vec<Grant>> {
    let failed = |what: String| {
        let what = format!("cannot use the tokens of {}: {what}", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, what)
    };
    let text = read_private(path).map_err(|error| failed(error.to_string()))?;
    let lines = text.lines().enumerate().filter_map(|(number, line)| {
        let grant = parse(line).transpose()?;
        Some(grant.map_err(|what| failed(format!("line {}: {what}", number + 1))))
    });
    lines.collect()
}

fn read_private(path: &Path) -> io::Result<String> {
    // ORDER: looked at first, for to open a pipe is to wait for its other end.
    refuse_public(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // What was opened is what counts: it may be another file than the one before.
    refuse_public(&file.metadata()?)?;
    let mut text = String::new();
    // LIMIT: a byte more than there may be shows that there are more.
    file.take(TOKENS_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TOKENS_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {TOKENS_BYTES} bytes"
        )));
    }
    Ok(text)
}

fn refuse_public(metadata: &fs::Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o006 != 0 {
            return Err(io::Error::other(format!(
                "its mode is {mode:04o}, everybody on this machine may read or change it (chmod o-rw)"
            )));
        }
    }
    Ok(())
}

/// One line; `None` if it is empty or a comment.
fn parse(line: &str) -> Result<Option<Grant>, String> {
    // White space to us, the end of a line to an editor: what it shows is not what would be granted.
    if line.contains('\r') {
        return Err("a line break that is neither LF nor CRLF".into());
    }
    let words = line.split_whitespace();
    let mut words = words.take_while(|word| !word.starts_with('#'));
    let Some(token) = words.next() else {
        return Ok(None);
    };
    let token = match token {
        "*" => None,
        token => Some(token.parse().map_err(|error| format!("{error}"))?),
    };
    let Some(verbs) = words.next() else {
        return Err("behind the token, publish or subscribe or both must follow".into());
    };
    let verbs = verbs.split(',').map(|verb| match verb {
        "publish" => Ok(Verb::Publish),
        "subscribe" => Ok(Verb::Subscribe),
        // Not shown: it may be half of a token.
        _ => Err("the second word must be publish, subscribe or publish,subscribe"),
    });
    let verbs = verbs.collect::<Result<Vec<_>, _>>()?;
    let patterns = words.map(|word| Pattern::new(word).map_err(|error| error.to_string()));
    let patterns = patterns.collect::<Result<Patterns, _>>()?;
    if patterns.iter().next().is_none() {
        return Err("behind the verbs, topics must follow; * is all of them".into());
    }
    Ok(Some(Grant {
        token,
        verbs,
        patterns,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Mutator, Random, cases};

    fn holders(text: &str) -> Holders {
        let grants = text.lines().filter_map(|line| parse(line).unwrap());
        Holders::new(grants, &RandomState::new())
    }

    fn shown(holders: &Holders, holder: &Holder, verb: Verb) -> String {
        let granted = holders.granted(holder, verb).into_iter();
        let patterns: Vec<_> = granted
            .flat_map(Patterns::iter)
            .map(ToString::to_string)
            .collect();
        patterns.join(" ")
    }

    #[test]
    fn the_lines_of_a_token_add_up_and_anybodys_are_everybodys() {
        let holders = holders(
            "# who          what\n\
             a  publish,subscribe  chat/* news # behind a line, too\n\
             \n\
             b\tsubscribe\t*\r\n\
             a  subscribe          more\n\
             *  subscribe          public/*\n",
        );
        assert_eq!(holders.len(), 2);
        let a = holders.of_token(b"a").unwrap();
        let b = holders.of_token(b"b").unwrap();
        for (holder, publish, subscribe) in [
            (a, "chat/* news", "chat/* more news public/*"),
            (b, "", "* public/*"),
            // Whoever is anybody has it twice, which is no more.
            (holders.anybody(), "", "public/* public/*"),
        ] {
            assert!(holders.has_pass(holder.pass));
            assert_eq!(shown(&holders, holder, Verb::Publish), publish);
            assert_eq!(shown(&holders, holder, Verb::Subscribe), subscribe);
        }
        for stranger in ["", "*", "c", "aa"] {
            assert!(holders.of_token(stranger.as_bytes()).is_none());
        }
        assert!(std::ptr::eq(holders.of_pass(a.pass), a));
        assert!(std::ptr::eq(
            holders.of_pass(holders.anybody().pass),
            holders.anybody()
        ));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_token_with_it() {
        for (line, part) in [
            ("s3cret", "must follow"),
            ("s3cret publish", "topics must follow"),
            ("s3cret publsh *", "the second word"),
            ("publish s3cret *", "the second word"),
            ("s3cret publish, *", "the second word"),
            ("s3cret, publish *", "RFC 6750"),
            ("s3cret publish a\u{1}b", "control character"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error}");
            assert!(!error.contains("s3cret"), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_random_line_grants_what_its_words_say_or_is_refused_without_a_word_of_it() {
        const WORDS: [&str; 14] = [
            "c2VjcmV0LXNlY3JldA==",
            "*",
            "publish",
            "subscribe",
            "publish,subscribe",
            "publish,",
            "chat/*",
            "news",
            "a*b",
            "#",
            "#chat",
            "c2VjcmV0 ",
            "\t",
            "\u{1}",
        ];
        let mutator = Mutator {
            corpus: WORDS.map(|word| word.as_bytes().to_vec()).into(),
            words: &[" ", "\t", "\r", "#", "*", ",", "=", "\u{a0}", "\u{3000}"],
        };
        let make = |random: &mut Random| {
            let words: Vec<&str> = (0..random.below(6)).map(|_| random.pick(&WORDS)).collect();
            let line = words.join(" ").into_bytes();
            let line = if random.one_in(2) {
                mutator.mutant(line, random).0
            } else {
                line
            };
            String::from_utf8_lossy(&line).replace('\n', " ")
        };
        cases(1, make, |line, _| {
            let words = line.split_whitespace();
            let words: Vec<&str> = words.take_while(|word| !word.starts_with('#')).collect();
            match (parse(line), &*words) {
                (Ok(None), words) => assert!(words.is_empty()),
                (Ok(Some(grant)), [token, verbs, topics @ ..]) => {
                    match grant.token {
                        None => assert_eq!(*token, "*"),
                        Some(own) => assert!(own.is(token.as_bytes())),
                    }
                    assert_eq!(verbs.split(',').count(), grant.verbs.len());
                    assert_eq!(
                        verbs.contains("publish"),
                        grant.verbs.contains(&Verb::Publish)
                    );
                    let verb = Verb::Subscribe;
                    assert_eq!(verbs.contains("subscribe"), grant.verbs.contains(&verb));
                    let granted =
                        |topic: &&str| grant.patterns.covers(&Pattern::new(topic).unwrap());
                    assert!(!topics.is_empty() && topics.iter().all(granted));
                    let named =
                        |pattern: &Pattern| topics.iter().any(|t| *t == pattern.to_string());
                    assert!(grant.patterns.iter().all(named));
                    assert!(grant.patterns.iter().count() <= topics.len());
                }
                (Err(what), _) => {
                    assert!(!what.contains("c2VjcmV0") && !what.contains('\n'), "{what}");
                }
                (outcome, words) => panic!("{outcome:?} of {words:?}"),
            }
        });
    }
}
