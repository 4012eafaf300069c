//! Secrets that prove a client's rights. The time of a comparison does not reveal how
//! much of a guess was right.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

/// A secret that a client sends after `Bearer`, in a cookie, or in a query.
///
/// A token is compared in constant time. It is never shown: `Debug` writes `Token(…)`,
/// and there is no `Display`.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Whether `candidate` equals this token. The time depends on the length of the
    /// candidate alone: the position of the first wrong byte, or a difference in length,
    /// would help an attacker to guess the rest.
    pub fn is(&self, candidate: &[u8]) -> bool {
        let own = self.0.iter().cycle();
        let bits = candidate.iter().zip(own).fold(0, |bits, (theirs, ours)| {
            // Without `black_box` the optimizer could stop as soon as the result cannot
            // change any more.
            black_box(bits | (theirs ^ ours))
        });
        // ORDER: `&` and not `&&`, so that both sides are always evaluated.
        (bits == 0) & (candidate.len() == self.0.len())
    }

    /// The bytes of the secret.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    /// SPEC: RFC 6750, 2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" /
    /// "/" ) *"="`. Other characters could not be sent in a header, in a cookie and in a
    /// URL alike.
    fn from_str(text: &str) -> Result<Token, InvalidToken> {
        let body = text.trim_end_matches('=');
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if !body.is_empty() && body.bytes().all(is_token) {
            Ok(Token(text.as_bytes().into()))
        } else {
            Err(InvalidToken)
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The text is not a token. The message does not repeat the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a token is at least one of A-Z a-z 0-9 - . _ ~ + / and may end in = (RFC 6750), \
             such as openssl rand -base64 32 prints",
        )
    }
}

impl std::error::Error for InvalidToken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_rfc_6750_says_and_shows_nothing_of_itself() {
        for good in ["a", "A9-._~+/", "c2VjcmV0", "c2VjcmU=", "YQ=="] {
            let token: Token = good.parse().unwrap();
            assert!(token.is(good.as_bytes()), "{good}");
            assert_eq!(format!("{token:?}"), "Token(…)");
        }
        for bad in ["", "=", "a b", "a=b", "a\n", "é", "a;b", "\"a\"", "a,b"] {
            let error = bad.parse::<Token>().unwrap_err().to_string();
            assert!(bad.len() < 2 || !error.contains(bad), "{bad:?} in {error}");
        }
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token: Token = "secret".parse().unwrap();
        for wrong in [
            "",
            "s",
            "secre",
            "secretsecret",
            "secrets",
            "Secret",
            "secreT",
            "terces",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(token.is(b"secret"));
    }
}
