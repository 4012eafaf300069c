//! What a peer sent, as it stands in a log line or in an error: escaped, and of a bounded length.

use std::fmt;

/// LIMIT: the bytes of a peer's text that one line quotes. Longer quotes help no reader, and a peer that
/// causes many of them fills the disk.
const QUOTED_BYTES: usize = 200;

/// Text of a peer, in quotes and escaped as Rust does it. What is longer than 200 bytes is cut, and the
/// cut is marked by `…` after the last quote.
///
/// `Display` writes the text without quotes and escapes, cut in the same way.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Quoted<'_> {
    /// The text, and the mark of the cut if there is one.
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
    fn two_hundred_bytes_are_whole_and_more_are_cut_between_characters() {
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
