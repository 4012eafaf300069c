//! Quotes a peer's text in log lines and error messages: escaped, so that it cannot forge
//! a line, and cut to a bounded length.

use std::fmt;

/// LIMIT: one line quotes at most this many bytes of a peer's text. Longer quotes would
/// not help a reader, and a peer could fill the disk with them.
const QUOTED_BYTES: usize = 200;

/// `Debug` writes the text in quotes, escaped as Rust does it. A text of more than 200
/// bytes is cut between two characters, and `…` after the closing quote marks the cut.
/// `Display` cuts in the same way, and writes neither quotes nor escapes.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Quoted<'_> {
    /// Returns the text, cut if necessary, and `…` if it was cut.
    fn parts(&self) -> (&str, &str) {
        if self.0.len() <= QUOTED_BYTES {
            return (self.0, "");
        }
        let mut end = QUOTED_BYTES;
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        (&self.0[..end], "…")
    }
}

impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, cut) = self.parts();
        write!(f, "{text:?}{cut}")
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, cut) = self.parts();
        write!(f, "{text}{cut}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_more_than_200_bytes_is_cut_between_two_characters() {
        let whole = "x".repeat(QUOTED_BYTES);
        assert_eq!(Quoted(&whole).to_string(), whole);
        assert_eq!(format!("{:?}", Quoted(&whole)), format!("{whole:?}"));
        let longer = whole.clone() + "y";
        assert_eq!(Quoted(&longer).to_string(), whole.clone() + "…");
        assert_eq!(format!("{:?}", Quoted(&longer)), format!("{whole:?}…"));
        // The last character that fits begins at byte 198 and has three bytes.
        let wide = "€".repeat(100);
        assert_eq!(Quoted(&wide).to_string(), "€".repeat(66) + "…");
        assert_eq!(format!("{:?}", Quoted("a\r\n")), r#""a\r\n""#);
    }
}
