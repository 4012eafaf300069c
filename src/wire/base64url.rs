//! Base64url without padding, as in signed tokens: 6 bits in each character.
//!
//! ```text
//! bytes       0xfb        0xef        0xff
//! bits        111110 11'1110 1111'11 111111
//! text        -      -       _       _
//! ```
//!
//! SPEC: RFC 4648, 5, with the choices of RFC 7515, 2: no padding, no line breaks.
//! Decoding is strict (RFC 4648, 3.5): each sequence of bytes has exactly one text, so
//! that a token cannot be changed without breaking its signature.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns the text of these bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0;
        for at in 0..3 {
            bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        for at in 0..=group.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize].into());
        }
    }
    text
}

/// Returns the bytes of a text. `None`: it contains another character, such as `+`, `=`
/// or white space, has an impossible length, or has bits after its last byte that are not
/// zero.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0;
        for &character in group {
            bits = bits << 6 | u32::from(value(character)?);
        }
        // 2, 3 or 4 characters are 1, 2 or 3 bytes; the bits that are left are zero.
        let spare = match group.len() {
            4 => 0,
            3 => 2,
            2 => 4,
            _ => return None,
        };
        if bits & ((1 << spare) - 1) != 0 {
            return None;
        }
        let count = group.len() - 1;
        bytes.extend_from_slice(&(bits >> spare).to_be_bytes()[4 - count..]);
    }
    Some(bytes)
}

/// Returns the 6 bits of a character.
fn value(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_and_decoding_are_inverse() {
        // SPEC: RFC 4648, 10, without padding.
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"fooba", "Zm9vYmE"),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xef\xff", "--__"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
        }
        for len in 0..70u8 {
            let bytes: Vec<u8> = (0..len).map(|n| n.wrapping_mul(37) ^ len).collect();
            assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn only_the_one_text_of_the_bytes_is_decoded() {
        for text in [
            "Z", "Zg=", "Zg==", "Zm9v=", "Zm9vY", "Zm9v\n", " Zm9v", "Zm 9v", "++//", "-/", "Zh",
            "Zm9", "Zm9vYh", "Z\u{e9}", "Zm9v.",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
