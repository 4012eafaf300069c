//! Topics, and the patterns with which clients subscribe to them.
//!
//! A pattern is a topic (`chat/1`), or a prefix of topics followed by `*` (`chat/*`). A
//! topic therefore never ends in `*`: publishing to `chat/*` is an error with an
//! explanation.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// LIMIT: the longest topic, and so the longest prefix in a pattern, in bytes.
const LONGEST: usize = 255;

/// The topic of an event: 1 to 255 bytes of UTF-8 without control characters, not ending
/// in `*`. Topics are compared byte for byte: `Chat` and `chat` are two topics. A clone
/// shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks the name and returns the topic.
    ///
    /// # Errors
    ///
    /// The name is empty, is longer than 255 bytes, contains a control character or ends
    /// in `*`.
    pub fn new(name: &str) -> Result<Topic, TopicError> {
        match name {
            "" => Err(TopicError(TopicFault::Empty)),
            _ if name.ends_with('*') => Err(TopicError(TopicFault::Pattern(name.into()))),
            _ => Ok(Topic(check(name)?.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(name: &str) -> Result<Topic, TopicError> {
        Topic::new(name)
    }
}

/// One topic, or all topics with the same prefix. Patterns are ordered by their text; of
/// two patterns with the same text, the prefix comes first. [`Patterns`] needs this
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `chat/1`: this topic.
    Topic(Topic),
    /// `chat/*`: every topic that begins with `chat/`. A lone `*` is every topic.
    Prefix(Arc<str>),
}

impl Pattern {
    /// Parses `chat/1`, `chat/*` or `*`.
    ///
    /// # Errors
    ///
    /// The errors of [`Topic::new`], except for the `*` at the end.
    pub fn new(text: &str) -> Result<Pattern, TopicError> {
        match text.strip_suffix('*') {
            Some(prefix) => Ok(Pattern::Prefix(check(prefix)?.into())),
            None => Topic::new(text).map(Pattern::Topic),
        }
    }

    /// `*`: every topic.
    pub fn all() -> Pattern {
        Pattern::Prefix("".into())
    }

    /// The topic, or the prefix without its `*`.
    fn text(&self) -> &str {
        match self {
            Pattern::Topic(topic) => &topic.0,
            Pattern::Prefix(prefix) => prefix,
        }
    }

    /// Whether this pattern matches every topic that `other` matches.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (_, Pattern::Topic(topic)) => self.matches(topic),
            (Pattern::Topic(_), Pattern::Prefix(_)) => false,
            (Pattern::Prefix(own), Pattern::Prefix(prefix)) => prefix.starts_with(&**own),
        }
    }

    /// Whether the pattern matches `topic`.
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Pattern::Topic(own) => own == topic,
            Pattern::Prefix(prefix) => topic.0.starts_with(&**prefix),
        }
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Pattern) -> Ordering {
        let is_topic = |pattern: &Pattern| matches!(pattern, Pattern::Topic(_));
        let by_text = self.text().cmp(other.text());
        by_text.then_with(|| is_topic(self).cmp(&is_topic(other)))
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Pattern) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Topic(topic) => f.write_str(&topic.0),
            Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl FromStr for Pattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Pattern, TopicError> {
        Pattern::new(text)
    }
}

/// The patterns of one client: sorted, and without patterns that another one covers. Two
/// clients that get the same topics therefore usually have equal values, and share an
/// audience. A clone shares the list.
///
/// A topic is matched with one binary search, however many patterns there are. No pattern
/// in the list covers another one. Every pattern between a prefix and a topic with this
/// prefix would be covered by the prefix, so it is not in the list. Hence, if any pattern
/// matches a topic, it is the last one whose text is not greater than the topic:
///
/// ```text
/// chat/*  news  sports/*          the topic "chat/7": the last text that is not greater is "chat/", which matches
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Patterns(Arc<[Pattern]>);

impl Default for Patterns {
    /// No pattern: the client gets only events without a topic.
    fn default() -> Patterns {
        Patterns(Arc::new([]))
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Patterns {
        let mut patterns: Vec<Pattern> = patterns.into_iter().collect();
        patterns.sort_unstable();
        // In this order, the patterns that a prefix covers come directly after it.
        patterns.dedup_by(|pattern, kept| kept.covers(pattern));
        Patterns(patterns.into())
    }
}

impl Patterns {
    /// The patterns, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Pattern> {
        self.0.iter()
    }

    /// Whether a client with these patterns gets an event of this topic. Every client
    /// gets an event without a topic.
    pub fn matches(&self, topic: Option<&Topic>) -> bool {
        topic.is_none_or(|topic| {
            self.candidate(&topic.0)
                .is_some_and(|pattern| pattern.matches(topic))
        })
    }

    /// Whether these patterns match every topic that `other` matches.
    pub fn covers(&self, other: &Pattern) -> bool {
        self.candidate(other.text())
            .is_some_and(|pattern| pattern.covers(other))
    }

    /// Returns the only pattern that can match or cover a topic or prefix with this text.
    /// See the invariant above.
    fn candidate(&self, text: &str) -> Option<&Pattern> {
        let count = self.0.partition_point(|pattern| pattern.text() <= text);
        self.0[..count].last()
    }
}

/// Why a topic or pattern was refused. `Display` names the value and the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicError(TopicFault);

#[derive(Clone, Debug, PartialEq, Eq)]
enum TopicFault {
    Empty,
    TooLong(usize),
    Control { found: char, at: usize },
    Pattern(String),
}

/// Checks what topics and prefixes have in common: the length, and no control character.
fn check(name: &str) -> Result<&str, TopicError> {
    if name.len() > LONGEST {
        return Err(TopicError(TopicFault::TooLong(name.len())));
    }
    match name.char_indices().find(|(_, found)| found.is_control()) {
        Some((at, found)) => Err(TopicError(TopicFault::Control { found, at })),
        None => Ok(name),
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TopicFault::Empty => f.write_str("topic is empty"),
            TopicFault::TooLong(length) => {
                write!(f, "topic has {length} bytes, at most {LONGEST} are allowed")
            }
            TopicFault::Control { found, at } => {
                write!(f, "topic has the control character {found:?} at byte {at}")
            }
            TopicFault::Pattern(name) => {
                write!(
                    f,
                    "topic {name:?} ends in *: this is a pattern, which only subscriptions can use"
                )
            }
        }
    }
}

impl std::error::Error for TopicError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Random, cases};

    #[test]
    fn topics_are_bounded_text_without_control_characters() {
        for good in ["a", "chat/1", "чат/🦀", "a*b", " ", "..", &"x".repeat(255)] {
            assert_eq!(Topic::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "*",
            "chat/*",
            "a\nb",
            "a\0",
            "\u{7f}",
            "\u{85}",
            &"x".repeat(256),
        ] {
            assert!(Topic::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_is_a_topic_or_a_prefix() {
        for (pattern, topic, expected) in [
            ("chat/1", "chat/1", true),
            ("chat/1", "chat/10", false),
            ("chat/1", "Chat/1", false),
            ("chat/*", "chat/1", true),
            ("chat/*", "chat/", true),
            ("chat/*", "chat", false),
            ("*", "anything", true),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
        ] {
            let matches = Pattern::new(pattern)
                .unwrap()
                .matches(&Topic::new(topic).unwrap());
            assert_eq!(matches, expected, "{pattern} on {topic}");
        }
    }

    #[test]
    fn patterns_that_match_the_same_topics_are_equal() {
        let patterns = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Pattern::new(text).unwrap())
                .collect::<Patterns>()
        };
        assert_eq!(patterns(&["b", "a/*", "b"]), patterns(&["a/*", "b"]));
        assert_eq!(
            patterns(&["a/1", "a/*", "a/b/*", "a/*", "a", "b"]),
            patterns(&["b", "a", "a/*"])
        );
        assert_eq!(patterns(&["x", "*", "y/*"]), patterns(&["*"]));
        assert!(Patterns::default().matches(None));
        assert!(!Patterns::default().matches(Some(&Topic::new("a").unwrap())));
    }

    #[test]
    fn a_binary_search_finds_what_a_linear_search_finds() {
        let text = |random: &mut Random| {
            let length = random.below(4);
            (0..length)
                .map(|_| random.pick(&["a", "b", "ä"]))
                .collect::<String>()
        };
        let asked = |random: &mut Random| text(random) + random.pick(&["", "*"]);
        let given = |random: &mut Random| {
            let count = random.below(6);
            (0..count)
                .filter_map(|_| Pattern::new(&asked(random)).ok())
                .collect::<Vec<_>>()
        };
        cases(1, given, |given, random| {
            let patterns: Patterns = given.iter().cloned().collect();
            if let Ok(topic) = Topic::new(&text(random)) {
                let expected = given.iter().any(|pattern| pattern.matches(&topic));
                assert_eq!(patterns.matches(Some(&topic)), expected, "{topic}");
            }
            if let Ok(other) = Pattern::new(&asked(random)) {
                let expected = given.iter().any(|pattern| pattern.covers(&other));
                assert_eq!(patterns.covers(&other), expected, "{other}");
            }
        });
    }
}
