//! The file of tokens, and the grants in it (`--tokens`).
//!
//! ```text
//! # token                                        verbs               topics
//! c2VjcmV0IG9mIHRoZSBzZW5zb3Jz                   publish             sensors/*
//! YSBzZWNyZXQgb2YgdGhlIGRhc2hib2FyZA==           publish,subscribe   chat/* news
//! *                                              subscribe           public/*
//! ```
//!
//! A line is one grant. Its parts are separated by white space, so a topic with white space in it can be
//! granted only by a pattern that ends before it. The lines of one token add up. `*` in the place of a
//! token grants to every client, with a token or without. A word that begins with `#` begins a comment.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::api::action::Verb;
use crate::config::TOKENS_BYTES;
use crate::wire::{Pattern, Patterns, Token};

/// What one line grants.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The token that has the grant; `None`: every client has it.
    pub(super) token: Option<Token>,
    pub(super) verbs: Vec<Verb>,
    pub(super) patterns: Patterns,
}

/// Reads the grants of a file.
///
/// # Errors
///
/// The file cannot be read, is not a regular file, is too large, may be read or written by every user of this
/// machine, or a line is wrong. No error repeats a token.
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
pub(super) fn parse(line: &str) -> Result<Option<Grant>, String> {
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
        return Err("publish or subscribe or both must follow after the token".into());
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
        return Err("topics must follow after the verbs; * is all of them".into());
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
