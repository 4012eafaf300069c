//! Just enough JSON to pass it on untouched: check it, squeeze the white space out, read a
//! string member, drop a member, quote a string.
//!
//! Values are never converted: a number is the digits that came, because a number that has been
//! through a float is another number. Nesting is kept on a stack of [`DEPTH`] bits, not on the
//! thread's, so that no document can overflow it.

use std::fmt::{self, Write};
use std::ops::Range;

/// LIMIT: how deeply arrays and objects may nest.
pub const DEPTH: usize = 128;

/// A checked JSON text without white space between its tokens. Strings and numbers are byte for
/// byte as they came.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tiny_sse::wire::json::Document;
/// let document = Document::parse(r#"{ "_event": "tick", "n": 1.0 }"#)?;
/// assert_eq!(document.as_str(), r#"{"_event":"tick","n":1.0}"#);
/// assert_eq!(document.without("_event"), r#"{"n":1.0}"#);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document(String);

impl Document {
    /// Checks `text` by the grammar of RFC 8259 and makes it compact.
    ///
    /// # Errors
    ///
    /// It is not one JSON value, or nests deeper than [`DEPTH`].
    pub fn parse(text: &str) -> Result<Document, JsonError> {
        let mut compact = String::with_capacity(text.len());
        let mut tokens = Tokens::new(text);
        while let Some(token) = tokens.next()? {
            compact.push_str(&text[token.span]);
        }
        Ok(Document(compact))
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

    /// The raw text of an object's member; the last one, if several have the name, as in JavaScript.
    pub fn member(&self, name: &str) -> Option<&str> {
        self.members()
            .filter(|member| member.is_named(&self.0, name))
            .last()
            .map(|member| &self.0[member.value])
    }

    /// The text of the object without any member of that name.
    pub fn without(&self, name: &str) -> String {
        let mut rest = String::with_capacity(self.0.len());
        for member in self
            .members()
            .filter(|member| !member.is_named(&self.0, name))
        {
            rest.push(if rest.is_empty() { '{' } else { ',' });
            rest.push_str(&self.0[member.key.start..member.value.end]);
        }
        if rest.is_empty() {
            "{}".to_owned()
        } else {
            rest + "}"
        }
    }

    /// The members of the object, in order; none if the value is something else.
    fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let mut tokens = Tokens::new(&self.0);
        std::iter::from_fn(move || {
            let mut key = None;
            let mut value: Option<Range<usize>> = None;
            while let Some(Token { kind, depth, span }) =
                tokens.next().expect("BUG: a Document was not checked")
            {
                match (kind, depth) {
                    (Kind::Key, 1) => key = Some(span),
                    (Kind::Comma | Kind::Close, 1) => {
                        return Some(Member {
                            key: key?,
                            value: value?,
                        });
                    }
                    (Kind::Colon, 1) => value = Some(span.end..span.end),
                    _ => value.iter_mut().for_each(|value| value.end = span.end),
                }
            }
            None
        })
    }
}

/// Where a member of the outermost object stands in its text.
struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

impl Member {
    /// A key written with escapes is the same key.
    fn is_named(&self, text: &str, name: &str) -> bool {
        unquote(&text[self.key.clone()]).is_some_and(|key| key == name)
    }
}

/// The text of a JSON string, its escapes resolved. `None` if `literal` is another kind of value,
/// or has half of a surrogate pair, which no Rust string can hold.
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

/// Reads `XXXX` after a `\u`, and the `\uXXXX` after that if the first is half of a pair.
fn utf16_escape(rest: &mut &str) -> Option<char> {
    fn unit(rest: &mut &str) -> Option<u16> {
        let digits = rest.get(..4)?;
        *rest = &rest[4..];
        u16::from_str_radix(digits, 16).ok()
    }
    let first = unit(rest)?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first.into());
    }
    *rest = rest.strip_prefix("\\u")?;
    char::decode_utf16([first, unit(rest)?]).next()?.ok()
}

/// Appends `text` as a JSON string, in quotes.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
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

/// Appends the name of an object's next member: a comma if another is before it, the name, a colon.
pub(crate) fn key(name: &str, out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
    quote(name, out);
    out.push(':');
}

/// How many bytes of a JSON string [`quote`] makes of these at the most, without the quotes.
pub(crate) fn longest(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.iter().map(length).sum()
}

/// `text` as a JSON string, in quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, &mut out);
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Key,
    Colon,
    Comma,
    Scalar,
}

struct Token {
    kind: Kind,
    /// How many arrays and objects are around it; a bracket is inside its own.
    depth: usize,
    span: Range<usize>,
}

/// What the grammar allows next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    Colon,
    CommaOrClose,
    End,
}

/// The tokens of a JSON text, each checked against the grammar as it is read.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    expect: Expect,
    depth: usize,
    /// One bit a level, the innermost lowest: 1 is an object.
    objects: u128,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Tokens<'a> {
        Tokens {
            text: text.as_bytes(),
            at: 0,
            expect: Expect::Value,
            depth: 0,
            objects: 0,
        }
    }

    /// The next token, or `None` behind a complete value.
    fn next(&mut self) -> Result<Option<Token>, JsonError> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let start = self.at;
        let Some(&byte) = self.text.get(start) else {
            return if self.expect == Expect::End {
                Ok(None)
            } else {
                Err(self.error(Problem::UnexpectedEnd))
            };
        };
        let depth_before = self.depth;
        let kind = match (byte, self.expect) {
            (b'{' | b'[', Expect::Value | Expect::ValueOrClose) => self.open(byte == b'{')?,
            (b'}', Expect::KeyOrClose | Expect::CommaOrClose) if self.in_object() => self.close(),
            (b']', Expect::ValueOrClose | Expect::CommaOrClose) if !self.in_object() => {
                self.close()
            }
            (b'"', Expect::Key | Expect::KeyOrClose) => {
                self.string()?;
                self.expect = Expect::Colon;
                Kind::Key
            }
            (b':', Expect::Colon) => self.punctuation(Kind::Colon, Expect::Value),
            (b',', Expect::CommaOrClose) => {
                let next = if self.in_object() {
                    Expect::Key
                } else {
                    Expect::Value
                };
                self.punctuation(Kind::Comma, next)
            }
            (_, Expect::Value | Expect::ValueOrClose) => {
                self.scalar(byte)?;
                self.end_value();
                Kind::Scalar
            }
            _ => return Err(self.error(Problem::Unexpected)),
        };
        Ok(Some(Token {
            kind,
            depth: self.depth.max(depth_before),
            span: start..self.at,
        }))
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    fn open(&mut self, object: bool) -> Result<Kind, JsonError> {
        if self.depth == DEPTH {
            return Err(self.error(Problem::TooDeep));
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Ok(self.punctuation(
            Kind::Open,
            if object {
                Expect::KeyOrClose
            } else {
                Expect::ValueOrClose
            },
        ))
    }

    fn close(&mut self) -> Kind {
        self.depth -= 1;
        self.objects >>= 1;
        self.at += 1;
        self.end_value();
        Kind::Close
    }

    fn punctuation(&mut self, kind: Kind, next: Expect) -> Kind {
        self.at += 1;
        self.expect = next;
        kind
    }

    fn end_value(&mut self) {
        self.expect = if self.depth == 0 {
            Expect::End
        } else {
            Expect::CommaOrClose
        };
    }

    fn scalar(&mut self, first: u8) -> Result<(), JsonError> {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(self.error(Problem::Unexpected)),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error(Problem::Unexpected));
        }
        self.at += word.len();
        Ok(())
    }

    /// `string = quotation-mark *char quotation-mark`, `char = unescaped / escape (…)`
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => self.escape()?,
                Some(0x20..) => self.at += 1,
                Some(_) => return Err(self.error(Problem::Control)),
                None => return Err(self.error(Problem::UnexpectedEnd)),
            }
        }
        Ok(())
    }

    /// `escape ( " / \ / "/" / b / f / n / r / t / uXXXX )`
    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    match self.text.get(self.at) {
                        Some(byte) if byte.is_ascii_hexdigit() => self.at += 1,
                        Some(_) => return Err(self.error(Problem::Escape)),
                        None => return Err(self.error(Problem::UnexpectedEnd)),
                    }
                }
            }
            Some(_) => return Err(self.error(Problem::Escape)),
            None => return Err(self.error(Problem::UnexpectedEnd)),
        }
        Ok(())
    }

    /// `number = [ "-" ] int [ "." 1*DIGIT ] [ ("e" / "E") [ "-" / "+" ] 1*DIGIT ]`, `int = "0" / ( digit1-9 *DIGIT )`
    fn number(&mut self) -> Result<(), JsonError> {
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

    fn skip(&mut self, any_of: &[u8]) -> bool {
        let found = self
            .text
            .get(self.at)
            .is_some_and(|byte| any_of.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.skip(b"0123456789") {}
        match self.at {
            at if at > start => Ok(()),
            at if at == self.text.len() => Err(self.error(Problem::UnexpectedEnd)),
            _ => Err(self.error(Problem::Unexpected)),
        }
    }

    fn error(&self, problem: Problem) -> JsonError {
        let found = std::str::from_utf8(&self.text[self.at..])
            .ok()
            .and_then(|rest| rest.chars().next());
        JsonError {
            problem,
            at: self.at,
            found,
        }
    }
}

/// Why a text is not JSON, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    problem: Problem,
    at: usize,
    found: Option<char>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Unexpected,
    UnexpectedEnd,
    Control,
    Escape,
    TooDeep,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not JSON: ")?;
        match (self.problem, self.found) {
            (Problem::TooDeep, _) => write!(f, "nested deeper than {DEPTH} levels")?,
            (Problem::Control, Some(found)) => {
                write!(f, "unescaped control character {found:?} in a string")?
            }
            (Problem::Escape, Some(found)) => write!(f, "{found:?} after a backslash")?,
            (Problem::Unexpected, Some(found)) => write!(f, "unexpected {found:?}")?,
            _ => f.write_str("the text ends too early")?,
        }
        write!(f, " at byte {}", self.at)
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_without_touching_values() {
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
    fn refuses_what_is_not_json() {
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
    fn says_what_is_wrong_and_where() {
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
    fn members_are_found_and_dropped_by_their_name_however_it_is_written() {
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
