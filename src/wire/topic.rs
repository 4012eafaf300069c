//! Topics, and the patterns by which clients ask for them.
//!
//! A pattern is a topic, or the beginning of topics and a `*`. What ends in `*` is therefore
//! never a topic: a publisher who writes to `chat/*` has mistaken one for the other, and is told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest topic, in bytes, and so the longest beginning in a pattern.
const LONGEST: usize = 255;

/// A name that events are sent under: 1 to 255 bytes of UTF-8 without control characters,
/// not ending in `*`. Compared byte for byte. Cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks the name and makes a topic of it.
    ///
    /// # Errors
    ///
    /// It is empty, longer than 255 bytes, has a control character or ends in `*`.
    pub fn new(name: &str) -> Result<Topic, TopicError> {
        match name {
            "" => Err(TopicError(Fault::Empty)),
            _ if name.ends_with('*') => Err(TopicError(Fault::Pattern(name.into()))),
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

/// What a client asks for: one topic, or all that begin alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// `chat/1`: this topic.
    Topic(Topic),
    /// `chat/*`: every topic that begins with `chat/`. A lone `*` is every topic.
    Prefix(Arc<str>),
}

impl Pattern {
    /// Reads `chat/1`, `chat/*` or `*`.
    ///
    /// # Errors
    ///
    /// As [`Topic::new`], but for the `*`.
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

    /// Whether all topics that `other` matches match this one too.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (_, Pattern::Topic(topic)) => self.matches(topic),
            (Pattern::Topic(_), Pattern::Prefix(_)) => false,
            (Pattern::Prefix(own), Pattern::Prefix(prefix)) => prefix.starts_with(&**own),
        }
    }

    /// Whether events of `topic` are asked for.
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Pattern::Topic(own) => own == topic,
            Pattern::Prefix(prefix) => topic.0.starts_with(&**prefix),
        }
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

/// All that one client asks for, sorted and without repetition, so that clients who ask for the
/// same are seen to be equal. Cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Patterns(Arc<[Pattern]>);

impl Default for Patterns {
    /// No pattern: only events without a topic.
    fn default() -> Patterns {
        Patterns(Arc::new([]))
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Patterns {
        let mut sorted: Vec<Pattern> = Vec::new();
        for pattern in patterns {
            if let Err(place) = sorted.binary_search(&pattern) {
                sorted.insert(place, pattern);
            }
        }
        Patterns(sorted.into())
    }
}

impl Patterns {
    /// The patterns, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Pattern> {
        self.0.iter()
    }

    /// Whether one of these patterns covers the other.
    pub fn covers(&self, other: &Pattern) -> bool {
        self.0.iter().any(|pattern| pattern.covers(other))
    }

    /// Whether an event is for this client: one without a topic always is.
    pub fn matches(&self, topic: Option<&Topic>) -> bool {
        topic.is_none_or(|topic| self.0.iter().any(|pattern| pattern.matches(topic)))
    }
}

/// Why a topic or pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicError(Fault);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong(usize),
    Control { found: char, at: usize },
    Pattern(String),
}

/// What topics and the beginnings in patterns have in common.
fn check(name: &str) -> Result<&str, TopicError> {
    if name.len() > LONGEST {
        return Err(TopicError(Fault::TooLong(name.len())));
    }
    match name.char_indices().find(|(_, found)| found.is_control()) {
        Some((at, found)) => Err(TopicError(Fault::Control { found, at })),
        None => Ok(name),
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Fault::Empty => f.write_str("topic is empty"),
            Fault::TooLong(length) => {
                write!(f, "topic has {length} bytes, at most {LONGEST} are allowed")
            }
            Fault::Control { found, at } => {
                write!(f, "topic has the control character {found:?} at byte {at}")
            }
            Fault::Pattern(name) => {
                write!(
                    f,
                    "topic {name:?} ends in *: that is a pattern, to subscribe with, not to publish to"
                )
            }
        }
    }
}

impl std::error::Error for TopicError {}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_pattern_is_a_topic_or_a_beginning() {
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
    fn equal_wishes_are_equal_values() {
        let patterns = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Pattern::new(text).unwrap())
                .collect::<Patterns>()
        };
        assert_eq!(patterns(&["b", "a/*", "b"]), patterns(&["a/*", "b"]));
        assert!(Patterns::default().matches(None));
        assert!(!Patterns::default().matches(Some(&Topic::new("a").unwrap())));
    }
}
