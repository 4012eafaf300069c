//! The JSON parser, compared with a recursive parser of the grammar that makes a tree and
//! writes it again.

use tiny_sse::wire::json::{DEPTH, Document, quoted, unquote};

use super::text;
use crate::chance::{Bytes, Mutator, Random, cases};

/// A value. A scalar keeps the text of the document, with its escapes.
#[derive(Debug, PartialEq)]
enum Value {
    Scalar(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// The rest of the text that is not parsed yet. Each method parses one rule of the
/// grammar and returns `None` on an error. SPEC: RFC 8259, section 2.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn document(text: &str) -> Option<Value> {
        let mut reader = Reader(text);
        let value = reader.value(0)?;
        reader
            .0
            .trim_start_matches(SPACE)
            .is_empty()
            .then_some(value)
    }

    /// Skips white space. If `character` comes next, skips it and returns true.
    fn skip(&mut self, character: char) -> bool {
        let rest = self.0.trim_start_matches(SPACE);
        self.0 = rest.strip_prefix(character).unwrap_or(rest);
        self.0.len() < rest.len()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if self.skip('[') {
            return self.array(depth + 1);
        }
        if self.skip('{') {
            return self.object(depth + 1);
        }
        if self.skip('"') {
            return self.string().map(Value::Scalar);
        }
        let other = |found: char| !"+-.".contains(found) && !found.is_ascii_alphanumeric();
        let (word, rest) = self.0.split_at(self.0.find(other).unwrap_or(self.0.len()));
        self.0 = rest;
        let is_value = ["true", "false", "null"].contains(&word) || is_number(word);
        is_value.then(|| Value::Scalar(word.into()))
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut values = Vec::new();
        let mut is_over = depth > DEPTH || self.skip(']');
        while !is_over {
            values.push(self.value(depth)?);
            is_over = self.skip(']');
            (is_over || self.skip(',')).then_some(())?;
        }
        (depth <= DEPTH).then_some(Value::Array(values))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = Vec::new();
        let mut is_over = depth > DEPTH || self.skip('}');
        while !is_over {
            self.skip('"').then_some(())?;
            let key = self.string()?;
            self.skip(':').then_some(())?;
            members.push((key, self.value(depth)?));
            is_over = self.skip('}');
            (is_over || self.skip(',')).then_some(())?;
        }
        (depth <= DEPTH).then_some(Value::Object(members))
    }

    /// Parses a string after its first quotation mark.
    fn string(&mut self) -> Option<String> {
        let mut literal = String::from('"');
        loop {
            let at = self.0.find(['"', '\\'])?;
            let (plain, rest) = self.0.split_at(at);
            if plain.contains(|found| found < ' ') {
                return None;
            }
            let length = match rest.as_bytes().get(..2) {
                _ if rest.starts_with('"') => 1,
                Some(b"\\u") => 6,
                Some([_, escape]) if b"\"\\/bfnrt".contains(escape) => 2,
                _ => return None,
            };
            let piece = rest.get(..length)?;
            if length == 6 && !piece[2..].chars().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            literal += plain;
            literal += piece;
            self.0 = &rest[length..];
            if length == 1 {
                return Some(literal);
            }
        }
    }
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let leading = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !leading && digits(fraction) && digits(exponent)
}

/// The value as JSON without white space.
fn written(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(",");
    match value {
        Value::Scalar(text) => text.clone(),
        Value::Array(values) => format!("[{}]", joined(values.iter().map(written).collect())),
        Value::Object(members) => {
            let member = |(key, value): &(String, Value)| format!("{key}:{}", written(value));
            format!("{{{}}}", joined(members.iter().map(member).collect()))
        }
    }
}

/// The text of a string literal without its escapes. `None` if the literal is not Unicode
/// text. The escapes `\u` are UTF-16 code units, so the text is decoded from these.
fn units(literal: &str) -> Option<String> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    let (mut units, mut characters) = (Vec::new(), inner.chars());
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => match characters.next()? {
                'u' => {
                    let digits: String = characters.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            },
            other => other,
        };
        units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

#[rustfmt::skip]
const KEYS: [&str; 6] = [
    r#""a""#, r#""_event""#, r#""_\u0065vent""#, r#""""#, r#""\ud83e""#, r#""\ud83e\udd80""#,
];
#[rustfmt::skip]
const SCALARS: [&str; 20] = [
    "0", "-0", "1.0", "1e400", "-12.50E+10", "123456789012345678901234567890", "true", "false", "null", r#""""#,
    r#""x""#, r#""\"\\\/\b\f\n\r\t""#, r#""\u00e9\ud83e\udd80""#, r#""\udd80\ud83e""#,
    "\"\u{43f}\u{1f980}\u{2028}\"", "01", "1.", "+1", "\"\t\"", "nul",
];
#[rustfmt::skip]
const WORDS: [&str; 20] = [
    "[", "]", "{", "}", ",", ":", "\"", "\\", "\\u", "\\ud83e", "\\udd80", "true", "null", "-", "1e5", ".",
    "\u{feff}", "\u{a0}", "{\"a\":", "[[[[[[[[",
];

fn value(random: &mut Random, depth: usize, out: &mut String) {
    let space = |random: &mut Random| random.pick(&["", "", "", " ", "\n", "\r\n\t"]);
    let count = random.below(4);
    *out += space(random);
    match random.below(if depth > 4 { 2 } else { 6 }) {
        0 | 1 => *out += random.pick(&SCALARS),
        2 => *out += &quoted(&text(random)),
        3 => {
            out.push('[');
            for number in 0..count {
                *out += if number > 0 { "," } else { "" };
                value(random, depth + 1, out);
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for number in 0..count {
                *out += if number > 0 { "," } else { "" };
                *out += space(random);
                *out += random.pick(&KEYS);
                *out += space(random);
                out.push(':');
                value(random, depth + 1, out);
            }
            out.push('}');
        }
    }
    *out += space(random);
}

fn document(random: &mut Random) -> String {
    let mut text = String::new();
    if random.one_in(64) {
        // A depth near the deepest that the parser accepts.
        let depth = DEPTH - 3 + random.below(8);
        let (open, close) = random.pick(&[&("[", "]"), &("{\"a\":", "}"), &("[{\"\":", "}]")]);
        let depth = depth / open.matches(['[', '{']).count();
        return open.repeat(depth) + "1" + &close.repeat(depth);
    }
    value(random, 0, &mut text);
    text
}

#[test]
fn a_random_text_is_accepted_exactly_if_it_is_json_and_loses_only_white_space() {
    let mutator = Mutator {
        corpus: (0..64)
            .map(|seed| document(&mut Random::of(seed)).into_bytes())
            .collect(),
        words: &WORDS,
    };
    let make = |random: &mut Random| {
        let fresh = document(random).into_bytes();
        let Bytes(bytes) = mutator.mutant(fresh, random);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    cases(1, make, |text, _| check_document(text));
}

fn check_document(text: &str) {
    let expected = Reader::document(text);
    let document = Document::parse(text);
    assert_eq!(document.is_ok(), expected.is_some(), "{document:?}");
    let (document, value) = match (document, expected) {
        (Ok(document), Some(value)) => (document, value),
        (Err(error), _) => {
            let line = error.to_string();
            return assert!(
                line.starts_with("not JSON: ") && !line.contains(char::is_control),
                "{line:?}"
            );
        }
        _ => unreachable!(),
    };
    assert_eq!(document.as_str(), written(&value));
    assert_eq!(
        Document::parse(document.as_str()).as_ref(),
        Ok(&document),
        "a compact document changed when it was parsed again"
    );
    assert_eq!(document.is_object(), matches!(value, Value::Object(_)));
    if let Value::Scalar(literal) = &value {
        assert_eq!(unquote(literal), units(literal));
    }
    if let Value::Object(members) = value {
        check_members(&document, members);
    }
}

fn check_members(document: &Document, members: Vec<(String, Value)>) {
    for name in ["a", "_event", "", "\u{1f980}", "\u{fffd}", "never"] {
        let is_named = |key: &str| units(key).as_deref() == Some(name);
        let (mut last, mut rest) = (None, Vec::new());
        for (key, value) in &members {
            if is_named(key) {
                last = Some(written(value));
            } else {
                rest.push(format!("{key}:{}", written(value)));
            }
        }
        assert_eq!(document.member(name), last.as_deref(), "{name:?}");
        let without = document.without(name);
        assert_eq!(without, format!("{{{}}}", rest.join(",")), "{name:?}");
        let without = Document::parse(&without).expect("JSON without a member is JSON");
        assert_eq!(without.member(name), None, "{name:?}");
    }
}

#[test]
fn a_random_string_is_the_same_after_quoting_and_unquoting() {
    cases(1, text, |text, _| {
        let literal = quoted(text);
        assert_eq!(
            Reader::document(&literal),
            Some(Value::Scalar(literal.clone()))
        );
        assert_eq!(units(&literal).as_ref(), Some(text));
        assert_eq!(unquote(&literal).as_ref(), Some(text));
    });
}
