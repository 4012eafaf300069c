//! Topics, patterns and ids, compared with second implementations of the rules in the
//! documentation.

use tiny_sse::{EventId, Pattern, Patterns, Topic};

use super::text;
use crate::chance::{Random, cases};

/// The rule of a topic: UTF-8, 1 to 255 bytes, no control characters, and not a pattern.
fn is_topic(name: &str) -> bool {
    !name.is_empty() && !name.ends_with('*') && is_prefix(name)
}

/// The rule of the text before the `*` of a pattern.
fn is_prefix(text: &str) -> bool {
    text.len() <= 255 && !text.chars().any(char::is_control)
}

/// Whether the pattern matches the topic.
fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.chars().last() {
        Some('*') => {
            let prefix = &pattern.as_bytes()[..pattern.len() - 1];
            topic.len() >= prefix.len() && prefix.iter().zip(topic.as_bytes()).all(|(a, b)| a == b)
        }
        _ => pattern == topic,
    }
}

/// The text of a topic and of a pattern. The pattern is often a prefix of the topic.
fn pair(random: &mut Random) -> (String, String) {
    let topic = match random.below(8) {
        0 => "\u{e9}".repeat(random.below(130)) + &text(random),
        _ => text(random),
    };
    let mut pattern = match random.below(4) {
        0 => text(random),
        _ => topic
            .chars()
            .take(random.below(topic.chars().count() + 2))
            .collect(),
    };
    if random.one_in(2) {
        pattern.push('*');
    }
    (topic, pattern)
}

#[test]
fn a_random_pattern_is_valid_and_matches_exactly_as_the_rules_say() {
    cases(1, pair, |(topic_text, pattern_text), random| {
        let (topic, pattern) = (Topic::new(topic_text), Pattern::new(pattern_text));
        assert_eq!(topic.is_ok(), is_topic(topic_text), "{topic:?}");
        let prefix = pattern_text.strip_suffix('*');
        let expected = prefix.map_or_else(|| is_topic(pattern_text), is_prefix);
        assert_eq!(pattern.is_ok(), expected, "{pattern:?}");
        for error in [topic.as_ref().err(), pattern.as_ref().err()]
            .into_iter()
            .flatten()
        {
            let line = error.to_string();
            assert!(
                line.starts_with("topic ") && !line.contains(char::is_control),
                "{line:?}"
            );
        }
        if let Ok(topic) = &topic {
            assert_eq!(topic.to_string(), *topic_text);
            assert_eq!(topic.as_str().parse().as_ref(), Ok(topic));
        }
        let Ok(pattern) = pattern else { return };
        assert_eq!(pattern.to_string(), *pattern_text);
        assert_eq!(pattern_text.parse(), Ok(pattern.clone()));
        let Ok(topic) = topic else { return };
        assert_eq!(pattern.matches(&topic), matches(pattern_text, topic_text));
        check_several(pattern, &topic, random);
    });
}

/// Checks that several patterns match what any of them matches, whatever their order and
/// however often each occurs.
fn check_several(pattern: Pattern, topic: &Topic, random: &mut Random) {
    let others = (0..random.below(4)).filter_map(|_| pair(random).1.parse().ok());
    let mut all: Vec<Pattern> = others.chain([pattern]).collect();
    let patterns: Patterns = all.iter().cloned().collect();
    let expected = all
        .iter()
        .any(|one| matches(&one.to_string(), topic.as_str()));
    assert_eq!(patterns.matches(Some(topic)), expected, "{all:?}");
    assert!(patterns.matches(None));
    assert!(
        patterns.iter().is_sorted_by(|one, two| one < two),
        "{patterns:?}"
    );
    all.extend_from_within(..random.below(all.len() + 1));
    all.reverse();
    assert_eq!(all.into_iter().collect::<Patterns>(), patterns);
}

#[test]
fn a_random_id_is_valid_only_in_its_one_spelling() {
    let make = |random: &mut Random| {
        let part = |random: &mut Random| {
            let digits = [
                "",
                "0",
                "00",
                "7",
                "07",
                "+7",
                "-7",
                "1795570197352",
                "18446744073709551615",
                "18446744073709551616",
                "99999999999999999999999",
                " 7",
                "7 ",
                "\u{661}",
                "a",
            ];
            random.pick(&digits).to_owned()
        };
        let joint = random.pick(&["-", "-", "-", "", "--", "\u{2212}", "-0-"]);
        part(random) + joint + &part(random)
    };
    let is_number = |text: &str| {
        text.parse::<u64>()
            .is_ok_and(|number| number.to_string() == text)
    };
    cases(1, make, |text, _| {
        let expected = text
            .split_once('-')
            .is_some_and(|(ms, seq)| is_number(ms) && is_number(seq));
        let id = text.parse::<EventId>();
        assert_eq!(id.is_ok(), expected, "{id:?}");
        if let Ok(id) = id {
            assert_eq!(id.to_string(), *text);
        }
    });
}
