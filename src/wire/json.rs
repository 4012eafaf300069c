//! Turns JSON text into a checked, compact text, and reads or removes single members of
//! an object. It is not a general library for JSON: the server passes the data of its
//! publishers on and needs no more.
//!
//! Values are never converted. A number stays the digits that arrived, because a number
//! that is converted to a float and back may be another number.
//!
//! The parser is a loop, not a recursion. It keeps one bit for each open array or object,
//! in a number of 128 bits. So the nesting of a document cannot overflow the stack of the
//! thread, which may be as small as 64 KiB.
//!
//! ```text
//! text     { "_event" : "tick", "n" : 1.0 }
//! compact  {"_event":"tick","n":1.0}           one line, so it becomes one `data` field
//! ```
//!
//! `api/publish.rs` parses bodies with it, `api/poll.rs` and `api/stats.rs` write answers
//! with `key` and `quote`.

use std::fmt::{self, Write};
use std::ops::Range;

/// LIMIT: how deeply arrays and objects may nest: the number of bits in
/// `Reader::objects`.
pub const DEPTH: usize = 128;

/// A checked JSON text without white space between its tokens. Strings and numbers have
/// the same bytes as in the original text.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tiny_sse::wire::json::Document;
/// let document = Document::parse(r#"{ "_event": "tick", "n": 1.0 }"#)?;
/// assert_eq!(document.as_str(), r#"{"_event":"tick","n":1.0}"#);
/// assert_eq!(document.member("_event"), Some(r#""tick""#));
/// assert_eq!(document.without("_event"), r#"{"n":1.0}"#);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document(String);

impl Document {
    /// Checks `text` against the grammar of RFC 8259, and removes the white space between
    /// tokens.
    ///
    /// # Errors
    ///
    /// The text is not one JSON value, or nests deeper than 128 levels.
    pub fn parse(text: &str) -> Result<Document, Malformed> {
        let mut reader = Reader {
            text,
            compact: String::with_capacity(text.len()),
            ..Reader::default()
        };
        reader.document(&mut |_, _| {})?;
        reader.compact.push_str(&text[reader.copied..]);
        Ok(Document(reader.compact))
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The compact text, without a copy.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Whether the value is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// Returns the JSON text of a member of the object. If several members have the name,
    /// the last one counts, as in JavaScript. Parses the text once more.
    pub fn member(&self, name: &str) -> Option<&str> {
        let mut found = None;
        self.for_each_member(&mut |key, value| {
            if is_named(key, name) {
                found = Some(value);
            }
        });
        found
    }

    /// Returns the text of the object without the members that have this name.
    pub fn without(&self, name: &str) -> String {
        let mut rest = String::with_capacity(self.0.len());
        rest.push('{');
        self.for_each_member(&mut |literal, value| {
            if !is_named(literal, name) {
                if rest.len() > 1 {
                    rest.push(',');
                }
                rest.extend([literal, ":", value]);
            }
        });
        rest + "}"
    }

    /// Calls `each` with the name and the value of each member of the object, in order,
    /// both as JSON text. A value that is not an object has no members.
    pub(crate) fn for_each_member<'a>(&'a self, each: &mut dyn FnMut(&'a str, &'a str)) {
        let text = self.as_str();
        let mut reader = Reader {
            text,
            ..Reader::default()
        };
        reader
            .document(&mut |key, value| each(&text[key], &text[value]))
            .expect("BUG: a Document was not checked");
    }
}

/// Returns the strings of a compact JSON array, with their escapes resolved. `None`: the
/// value is not an array, or one of its elements is not a string.
#[cfg(feature = "access")]
pub(crate) fn strings(array: &str) -> Option<Vec<String>> {
    let mut rest = array.strip_prefix('[')?.strip_suffix(']')?;
    let mut all = Vec::new();
    while !rest.is_empty() {
        // The length of the literal: up to a quote that is not escaped.
        let mut is_escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        });
        let (literal, after) = rest.split_at(end? + 2);
        all.push(unquote(literal)?);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(all)
}

/// Whether the JSON string `literal` is this name. `"\u0061"` and `"a"` are the same
/// name.
fn is_named(literal: &str, name: &str) -> bool {
    unquote(literal).is_some_and(|key| key == name)
}

/// Returns the text of a JSON string, with its escapes resolved. `None`: `literal` is
/// another kind of value, or contains an unpaired surrogate, which a Rust string cannot
/// contain.
pub fn unquote(literal: &str) -> Option<String> {
    let mut rest = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => utf16_escape(&mut rest)?,
            &other => other.into(),
        });
    }
    text.push_str(rest);
    Some(text)
}

/// Reads the four digits after `\u`. If they are the first half of a surrogate pair,
/// reads the `\uXXXX` after them too: `\ud83e\udd80` is one character. Removes from
/// `rest` what it reads.
fn utf16_escape(rest: &mut &str) -> Option<char> {
    let mut prefix = "";
    let units = std::iter::from_fn(|| {
        let (digits, after) = rest.strip_prefix(prefix)?.split_at_checked(4)?;
        (*rest, prefix) = (after, "\\u");
        u16::from_str_radix(digits, 16).ok()
    });
    // `decode_utf16` is lazy. It asks for a second unit only if the first one is half of
    // a pair.
    char::decode_utf16(units).next()?.ok()
}

/// Appends `text` as a JSON string, in quotes.
///
/// SPEC: RFC 8259, 7: the characters that must be escaped are `"`, `\` and U+0000 to
/// U+001F.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("BUG: a String refuses text")
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Appends the name of the next member of an object: a comma if the object already has a
/// member, the name, a colon.
pub(crate) fn key(name: &str, out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
    quote(name, out);
    out.push(':');
}

/// Returns the most bytes that [`quote`] can make of this text, without the quotes. A
/// poll reserves memory by it.
pub(crate) fn longest(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.iter().map(length).sum()
}

/// Returns `text` as a JSON string, in quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, &mut out);
    out
}

/// The state of reading a JSON text once from its beginning to its end. For example, in
/// the middle of a text:
///
/// ```text
/// {"a": [1, 2]}
///          ^          at = 9, depth = 2, objects = 0b10: an array inside an object
/// ```
#[derive(Default)]
struct Reader<'a> {
    /// The whole text.
    text: &'a str,
    /// The position of the next byte to read.
    at: usize,
    /// `text[..copied]` without the white space between its tokens.
    compact: String,
    /// How much of the text is in `compact`. It is copied in long pieces, at each white
    /// space and at the end.
    copied: usize,
    /// The number of arrays and objects that are open.
    depth: usize,
    /// One bit for each open array (0) or object (1). The lowest bit is the innermost
    /// one.
    objects: u128,
}

impl Reader<'_> {
    /// Reads one value and the end of the text. Calls `member` with the positions of the
    /// name and of the value of each member of the outermost object.
    ///
    /// One round of the outer loop begins at the beginning of a value. It reads an
    /// opening bracket or a complete scalar. Whenever a value is complete, the inner loop
    /// closes the arrays and objects that end after it, up to the next comma. Then the
    /// next value begins, in an object after its name.
    ///
    /// SPEC: RFC 8259, 4 and 5: `object = begin-object [ member *( value-separator member
    /// ) ] end-object`, `member = string name-separator value`, `array = begin-array [
    /// value *( value-separator value ) ] end-array`
    fn document(
        &mut self,
        member: &mut dyn FnMut(Range<usize>, Range<usize>),
    ) -> Result<(), Malformed> {
        // The member of the outermost object that is being read: the position of its
        // name, and where its value begins.
        let mut open_member = None;
        loop {
            let opening = self.next().filter(|byte| b"{[".contains(byte));
            match opening {
                Some(bracket) => self.open(bracket)?,
                None => self.scalar()?,
            }
            if opening.is_none() || self.is_at_close() {
                // A scalar is complete, or an array or object is empty.
                loop {
                    if self.depth == 1
                        && let Some((key, start)) = open_member.take()
                    {
                        member(key, start..self.at);
                    }
                    match self.next() {
                        None if self.depth == 0 => return Ok(()),
                        Some(b',') if self.depth > 0 => break self.at += 1,
                        _ if self.is_at_close() => self.close(),
                        _ => return Err(self.unexpected()),
                    }
                }
            }
            open_member = self.key()?.or(open_member);
        }
    }

    /// Skips white space, which is left out of the compact text, and returns the byte
    /// after it without reading it.
    ///
    /// SPEC: RFC 8259, 2: `ws = *( %x20 / %x09 / %x0A / %x0D )`
    fn next(&mut self) -> Option<u8> {
        let start = self.at;
        while self.skip(b" \t\n\r") {}
        if self.at > start {
            self.compact.push_str(&self.text[self.copied..start]);
            self.copied = self.at;
        }
        self.byte()
    }

    /// Returns the next byte without reading it; `None` at the end of the text.
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Whether the innermost open bracket is that of an object.
    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    /// Reads an opening bracket.
    fn open(&mut self, bracket: u8) -> Result<(), Malformed> {
        if self.depth == DEPTH {
            return Err(self.malformed(|_| format!("nested deeper than {DEPTH} levels")));
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(bracket == b'{');
        self.at += 1;
        Ok(())
    }

    /// Skips white space. Whether the bracket that closes the innermost array or object
    /// comes next.
    fn is_at_close(&mut self) -> bool {
        let close = if self.in_object() { b'}' } else { b']' };
        self.depth > 0 && self.next() == Some(close)
    }

    /// Reads a closing bracket.
    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        self.at += 1;
    }

    /// Inside an object, reads the name of the next member and the colon; inside an
    /// array, does nothing. Returns the position of the name and the beginning of the
    /// value if the object is the outermost value.
    fn key(&mut self) -> Result<Option<(Range<usize>, usize)>, Malformed> {
        if !self.in_object() {
            return Ok(None);
        }
        if self.next() != Some(b'"') {
            return Err(self.unexpected());
        }
        let start = self.at;
        self.string()?;
        let name = start..self.at;
        if self.next() != Some(b':') {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok((self.depth == 1).then_some((name, self.at)))
    }

    /// Reads a string, a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<(), Malformed> {
        match self.byte() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = ["true", "false", "null"];
                let rest = &self.text[self.at..];
                let word = words.into_iter().find(|word| rest.starts_with(word));
                self.at += word.ok_or_else(|| self.unexpected())?.len();
                Ok(())
            }
        }
    }

    /// Reads a string.
    ///
    /// SPEC: RFC 8259, 7: `string = quotation-mark *char quotation-mark`, `char =
    /// unescaped / escape ( " / \ / "/" / b / f / n / r / t / uXXXX )`
    fn string(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let special = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | ..0x20));
            self.at += special.unwrap_or(rest.len());
            if self.skip(b"\"") {
                return Ok(());
            }
            if !self.skip(b"\\") {
                let what = |found| format!("unescaped control character {found:?} in a string");
                return Err(self.malformed(what));
            }
            let is_known = self.skip(b"\"\\/bfnrt")
                || self.skip(b"u") && (0..4).all(|_| self.skip(b"0123456789abcdefABCDEF"));
            if !is_known {
                return Err(self.malformed(|found| format!("{found:?} after a backslash")));
            }
        }
    }

    /// Reads a number.
    ///
    /// SPEC: RFC 8259, 6: `number = [ "-" ] int [ "." 1*DIGIT ] [ ("e" / "E") [ "-" / "+"
    /// ] 1*DIGIT ]`, `int = "0" / ( digit1-9 *DIGIT )`
    fn number(&mut self) -> Result<(), Malformed> {
        self.skip(b"-");
        if !self.skip(b"0") {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    /// Reads at least one digit.
    fn digits(&mut self) -> Result<(), Malformed> {
        if !self.skip(b"0123456789") {
            return Err(self.unexpected());
        }
        while self.skip(b"0123456789") {}
        Ok(())
    }

    /// Reads the next byte if it is one of these. Returns whether it was.
    fn skip(&mut self, any_of: &[u8]) -> bool {
        let is_there = self.byte().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(is_there);
        is_there
    }

    /// The error for a character that the grammar does not allow here.
    fn unexpected(&self) -> Malformed {
        self.malformed(|found| format!("unexpected {found:?}"))
    }

    /// The error for the next character, which `what` describes. At the end of the text,
    /// the error is that it ends.
    fn malformed(&self, what: fn(char) -> String) -> Malformed {
        let what = match self.text[self.at..].chars().next() {
            Some(found) => what(found),
            None => "the text ends too early".into(),
        };
        Malformed(format!("not JSON: {what} at byte {}", self.at))
    }
}

/// Why a text is not JSON. `Display` says what is wrong, and at which byte, counted
/// from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compact_text_has_no_white_space_and_the_same_values() {
        for (text, compact) in [
            ("{ }", "{}"),
            (" [ 1 , 2.50e+10 , -0 , 1E400 ] ", "[1,2.50e+10,-0,1E400]"),
            ("{\"a b\" : \" c \\u0041 \"}", "{\"a b\":\" c \\u0041 \"}"),
            (
                "\r\n\t{\"z\":1,\n\"a\":[ {} , [ ] ]}",
                "{\"z\":1,\"a\":[{},[]]}",
            ),
            ("12345678901234567890123", "12345678901234567890123"),
            ("\"привет 🦀\u{2028}\"", "\"привет 🦀\u{2028}\""),
            ("true", "true"),
            (" null ", "null"),
        ] {
            assert_eq!(Document::parse(text).unwrap().as_str(), compact, "{text:?}");
        }
    }

    #[test]
    fn malformed_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "]",
            "}",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{1:1}",
            "[1 2]",
            "1 2",
            "{}{}",
            "[}",
            "{]",
            "{\"a\":1]",
            "[1}",
            "01",
            "+1",
            "-",
            ".5",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "Infinity",
            "tru",
            "True",
            "nul",
            "\"",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "\"\0\"",
            "\u{feff}{}",
            "{}\u{a0}",
            "//x\n1",
            "\"\\",
        ] {
            assert!(Document::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_error_names_the_fault_and_its_position() {
        for (text, message) in [
            ("{\"a\":x}", "not JSON: unexpected 'x' at byte 5"),
            ("[1,", "not JSON: the text ends too early at byte 3"),
            ("\"\\q\"", "not JSON: 'q' after a backslash at byte 2"),
            (
                "\"a\tb\"",
                "not JSON: unescaped control character '\\t' in a string at byte 2",
            ),
            ("[1é", "not JSON: unexpected 'é' at byte 2"),
        ] {
            assert_eq!(Document::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn nesting_is_bounded_and_not_on_the_stack() {
        let nested = |depth: usize| "[{\"a\":".repeat(depth / 2) + "1" + &"}]".repeat(depth / 2);
        assert!(Document::parse(&nested(DEPTH)).is_ok());
        let error = Document::parse(&nested(DEPTH + 2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not JSON: nested deeper than 128 levels at byte 384"
        );
        assert!(Document::parse(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn members_are_found_and_removed_by_name_even_if_it_is_escaped() {
        let text = r#"{ "a":{"_event":"inner"}, "_\u0065vent" : "first", "b":[1,{"_event":2}], "_event":"last" }"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.member("_event"), Some("\"last\""));
        assert_eq!(document.member("b"), Some(r#"[1,{"_event":2}]"#));
        assert_eq!(document.member("c"), None);
        assert_eq!(
            document.without("_event"),
            r#"{"a":{"_event":"inner"},"b":[1,{"_event":2}]}"#
        );
        assert_eq!(document.without("c"), document.as_str());
        for (text, rest) in [
            ("{\"x\":1}", "{}"),
            ("{}", "{}"),
            ("{\"x\":1,\"y\":2}", "{\"y\":2}"),
            ("{\"y\":2,\"x\":[]}", "{\"y\":2}"),
        ] {
            assert_eq!(Document::parse(text).unwrap().without("x"), rest, "{text}");
        }
        assert_eq!(Document::parse("[{\"x\":1}]").unwrap().member("x"), None);
    }

    #[test]
    fn quoting_and_unquoting_are_inverse() {
        for text in [
            "",
            "a",
            "\"\\/",
            "\n\r\t\u{8}\u{c}\0\u{1f}",
            "привет 🦀\u{2028}\u{2029}\u{7f}",
        ] {
            let literal = quoted(text);
            assert_eq!(Document::parse(&literal).unwrap().as_str(), literal);
            assert_eq!(unquote(&literal).unwrap(), text);
            assert_eq!(longest(text.as_bytes()) + 2, literal.len());
        }
        assert_eq!(unquote(r#""\ud83e\udd80\/\u00e9""#).unwrap(), "🦀/é");
        for lone in [
            r#""\ud83e""#,
            r#""\udd80""#,
            r#""\ud83ex""#,
            r#""\ud83e\u0041""#,
            "1",
            "\"",
        ] {
            assert_eq!(unquote(lone), None, "{lone}");
        }
    }
}
