//! Turns the file of `--tokens` into grants: which token has which right on which topics.
//!
//! ```text
//! # token                                        verbs               topics
//! c2VjcmV0IG9mIHRoZSBzZW5zb3Jz                   publish             sensors/*
//! YSBzZWNyZXQgb2YgdGhlIGRhc2hib2FyZA==           publish,subscribe   chat/* news
//! *                                              subscribe           public/*
//! ```
//!
//! A line is one grant: a token, the verbs, and at least one topic or pattern, separated
//! by white space. The lines of one token add up. A line with `*` instead of a token
//! grants to every client, with a token or without. A word that begins with `#` begins a
//! comment, up to the end of the line. A topic that contains white space cannot be
//! written here; a pattern that ends before the white space grants it.
//!
//! The file is full of secrets. So a file that other users of the machine can read is
//! refused, and no error message repeats a word of it.
//!
//! The file is read when the server starts and at each reload, never for a request.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::api::action::Verb;
use crate::config::TOKENS_BYTES;
use crate::wire::{Pattern, Patterns, Token};

/// What one line grants.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The token that has the right. `None`: every client has it.
    pub(super) token: Option<Token>,
    /// One or both verbs, as the line lists them. A verb that is listed twice is here
    /// twice.
    pub(super) verbs: Vec<Verb>,
    /// The topics, at least one pattern.
    pub(super) patterns: Patterns,
}

/// Reads the grants of a file. Blocks on the disk.
///
/// # Errors
///
/// The file cannot be read, is not a regular file, is larger than 1 MiB, can be read or
/// written by every user of this machine, or a line is wrong. The message names the file
/// and the line, and repeats no token.
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

/// Reads the text of a file that only its owner and group can read and write.
pub(super) fn read_private(path: &Path) -> io::Result<String> {
    // ORDER: checked before the file is opened, because opening a pipe waits until
    // another process opens its other end.
    refuse_public(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // Checked again, because the path may name another file by now. This is the file that
    // is read.
    refuse_public(&file.metadata()?)?;
    let mut text = String::new();
    // LIMIT: one byte more than the limit is read, to notice a file that is too large.
    file.take(TOKENS_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TOKENS_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {TOKENS_BYTES} bytes, so it is probably another file"
        )));
    }
    Ok(text)
}

/// Refuses what is not a regular file, and a file that every user of this machine can
/// read or write.
fn refuse_public(metadata: &fs::Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o006 != 0 {
            return Err(io::Error::other(format!(
                "its mode is {mode:04o}, so every user of this machine can read or change it (chmod o-rw)"
            )));
        }
    }
    Ok(())
}

/// Parses one line. Returns `None` if the line is empty or a comment.
///
/// # Errors
///
/// The message says what is wrong, and repeats nothing of the line.
pub(super) fn parse(line: &str) -> Result<Option<Grant>, String> {
    // An editor may show a lone CR as the end of a line. Here it would be white space, so
    // the line would grant something else than the editor shows.
    if line.contains('\r') {
        return Err("it contains a CR that is not part of a line break (CRLF)".into());
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
        return Err("publish, subscribe or publish,subscribe must follow the token".into());
    };
    let verbs = verbs.split(',').map(|verb| match verb {
        "publish" => Ok(Verb::Publish),
        "subscribe" => Ok(Verb::Subscribe),
        // The word is not shown: in a line with a mistake it may be a token.
        _ => Err("the second word must be publish, subscribe or publish,subscribe"),
    });
    let verbs = verbs.collect::<Result<Vec<_>, _>>()?;
    let patterns = words.map(|word| Pattern::new(word).map_err(|error| error.to_string()));
    let patterns = patterns.collect::<Result<Patterns, _>>()?;
    if patterns.iter().next().is_none() {
        return Err("topics must follow publish or subscribe; * is every topic".into());
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
    fn an_error_names_what_is_wrong_and_repeats_no_token() {
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
    fn a_random_line_grants_what_it_lists_or_is_refused_without_repeating_it() {
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
