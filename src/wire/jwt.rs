//! Signed tokens: verifies a JSON Web Token (JWT) with the algorithm HS256, and turns it
//! into claims: which topics its holder may use, which user it is, and until when.
//!
//! A backend that has a key signs a token for each of its users. The server has the same
//! key. It needs no list of the users, and asks no other server: the token itself says
//! what is allowed.
//!
//! ```text
//! token      eyJhbGciOiJIUzI1NiJ9 . eyJzdWIiOiI0MiIsInN1YnNj… . 0L9fY3…
//! part       header                 payload                      signature
//! contents   {"alg":"HS256"}        {"sub":"42",                 HMAC-SHA-256 of the text
//!                                    "subscribe":["user/42"],    "header.payload"
//!                                    "exp":1795326600}
//! ```
//!
//! [`JwtRules::verify`] goes from cheap to expensive, and from what anybody can write to
//! what only the holder of a key can write:
//!
//! 1. The length, the two dots, and the base64url of all three parts.
//! 2. The header. It decides nothing but the key: the algorithm is always HS256, and a
//!    header that asks for anything else is refused. So no token can choose `none`, or
//!    make a public key count as a secret.
//! 3. The signature, in constant time.
//! 4. The claims. A claim is absent, or right, or the token is refused. A claim of the
//!    wrong type is never read as absent: an `exp` that is a string would otherwise be a
//!    token without an end.
//!
//! | claim | type | meaning |
//! |---|---|---|
//! | `subscribe`, `publish` | list of patterns | the rights; also as members of the claim `mercure` |
//! | `sub` | string | the user |
//! | `exp` | number, seconds since 1970 | the end; required with `subscribe` |
//! | `nbf` | number, seconds since 1970 | the beginning |
//! | `aud` | string or list of strings | must contain the configured audience, if there is one |
//!
//! SPEC: RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (best current practices).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::hmac::HmacKey;
use super::json::{self, Document};
use super::{Pattern, Patterns, base64url, date};

/// LIMIT: bytes of a token.
const LONGEST: usize = 8 * 1024;

/// LIMIT: patterns in `subscribe`, and in `publish`.
const MOST_PATTERNS: usize = 64;

/// LIMIT: bytes of `sub`.
const LONGEST_USER: usize = 255;

/// Bytes of the shortest key. SPEC: RFC 7518, 3.2: a key for HS256 has at least the size
/// of its hash.
const SHORTEST_KEY: usize = 32;

/// A key that signs and verifies tokens. It is parsed from a line of a key file:
/// `[NAME] KEY [until TIME]`. `Debug` shows nothing of the key.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::{Duration, SystemTime};
/// use tiny_sse::wire::jwt::{JwtKey, JwtRules, sign};
///
/// let key: JwtKey = "the-secret-of-the-backend-0123456789".parse()?;
/// let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 600;
/// let token = sign(&format!(r#"{{"sub":"42","subscribe":["user/42"],"exp":{exp}}}"#), &key);
///
/// let rules = JwtRules { keys: vec![key], ..JwtRules::default() };
/// let claims = rules.verify(&token, SystemTime::now())?;
/// assert_eq!(claims.user.as_deref(), Some("42"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct JwtKey {
    /// The name by which a header can choose this key (`kid`).
    name: Option<Box<str>>,
    key: HmacKey,
    /// The time from which on the key verifies no token any more.
    until: Option<SystemTime>,
    /// Tells keys apart without showing them: a signature of a fixed text.
    number: u64,
}

impl JwtKey {
    /// A number that is equal for two keys of the same bytes. [`Claims::key`] has the one
    /// of the key that verified a token.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the key verifies no token any more.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// `[NAME] KEY [until TIME]`. `KEY` is the bytes of its text, or `base64:` and the bytes
/// in base64. `TIME` is a day or a time in UTC, such as `2026-12-31` or
/// `2026-12-31T12:00:00Z`.
impl FromStr for JwtKey {
    type Err = InvalidKey;

    fn from_str(line: &str) -> Result<JwtKey, InvalidKey> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let mut until = None;
        if let [.., "until", time] = words[..] {
            let parsed = date::parse_iso8601(time);
            until = Some(parsed.ok_or(InvalidKey("the word after until is not a time"))?);
            words.truncate(words.len() - 2);
        }
        if line.contains("-----BEGIN") {
            return Err(InvalidKey(
                "it is a key of another kind (PEM); HS256 needs a secret that the backend has too",
            ));
        }
        let (name, key) = match words[..] {
            [key] => (None, key),
            [name, key] => (Some(name.into()), key),
            _ => return Err(InvalidKey("a line is [NAME] KEY [until TIME]")),
        };
        let bytes = match key.strip_prefix("base64:") {
            Some(text) => {
                // Both alphabets, with padding or without: it comes from another program.
                let text = text
                    .trim_end_matches('=')
                    .replace('+', "-")
                    .replace('/', "_");
                base64url::decode(&text).ok_or(InvalidKey("it is not valid base64"))?
            }
            None => key.as_bytes().to_vec(),
        };
        if bytes.len() < SHORTEST_KEY {
            return Err(InvalidKey("it has less than 32 bytes"));
        }
        let key = HmacKey::new(&bytes);
        let [a, b, c, d, e, f, g, h, ..] = key.sign(b"the number of a key");
        Ok(JwtKey {
            name,
            key,
            until,
            number: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        })
    }
}

/// The text is not a key. The message repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey(&'static str);

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InvalidKey(what) = self;
        write!(
            f,
            "the key cannot be used: {what}; make one with: openssl rand -base64 32"
        )
    }
}

impl std::error::Error for InvalidKey {}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// The topics to which its holder may subscribe. There may be none.
    pub subscribe: Patterns,
    /// The topics to which its holder may publish. There may be none.
    pub publish: Patterns,
    /// The claim `sub`: the user.
    pub user: Option<Box<str>>,
    /// The claim `exp`, or the end of the key, if that is earlier. `None`: the token has
    /// no end, so it grants no right to subscribe.
    pub expires: Option<SystemTime>,
    /// The [number](JwtKey::number) of the key that verified the token.
    pub(crate) key: u64,
}

/// Why a token is refused. The text repeats nothing of the token, so it can be sent to
/// the client and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRefused(&'static str);

impl TokenRefused {
    /// The text of the reason.
    pub(crate) fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for TokenRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for TokenRefused {}

/// Whether a text can only be meant as a signed token: it has two dots. A token of a
/// tokens file may have them too, so it is looked up there first.
pub(crate) fn looks_signed(token: &str) -> bool {
    token.bytes().filter(|&byte| byte == b'.').count() == 2
}

/// What the tokens of a server are verified with.
#[derive(Clone, Debug, Default)]
pub struct JwtRules {
    /// The keys. A token is verified with one of them.
    pub keys: Vec<JwtKey>,
    /// The name of this server, which the claim `aud` of each token must contain. `None`:
    /// `aud` is not compared.
    pub audience: Option<String>,
    /// How far the clocks of the backend and of this server may differ. It applies to
    /// `exp`, to `nbf`, and to nothing else.
    pub leeway: Duration,
}

impl JwtRules {
    /// Verifies a token at the time `now`. The time that this takes depends on the length
    /// of the token and on the number of keys.
    ///
    /// # Errors
    ///
    /// The token is malformed, has another algorithm, was not signed with one of the
    /// keys, has ended or not begun, is for another audience, or has a claim of the wrong
    /// type.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenRefused> {
        if token.len() > LONGEST {
            return Err(TokenRefused("the token has more than 8192 bytes"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenRefused("the token does not have three parts"));
        };
        let decode = |part| {
            base64url::decode(part).ok_or(TokenRefused("a part of the token is not base64url"))
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let kid = check_header(&object(
            header,
            "the header of the token is not a JSON object",
        )?)?;
        let key = keys_for(&self.keys, kid.as_deref())
            .filter(|key| !key.is_over(now))
            .find(|key| key.key.verifies(signed.as_bytes(), &signature))
            .ok_or(TokenRefused(
                "the token is not signed with a key of this server",
            ))?;
        let claims = object(payload, "the payload of the token is not a JSON object")?;
        self.check_claims(&claims, key, now)
    }

    /// Checks the claims of a token whose signature is right.
    fn check_claims(
        &self,
        claims: &Members,
        key: &JwtKey,
        now: SystemTime,
    ) -> Result<Claims, TokenRefused> {
        let expires = claims.time("exp", "exp is not a number of seconds")?;
        let begins = claims.time("nbf", "nbf is not a number of seconds")?;
        if expires.is_some_and(|time| time + self.leeway <= now) {
            return Err(TokenRefused("the token has expired"));
        }
        if begins.is_some_and(|time| time > now + self.leeway) {
            return Err(TokenRefused("the token is not valid yet"));
        }
        self.check_audience(claims.0.get("aud"))?;
        let user = claims.0.get("sub").map(|value| user(value)).transpose()?;
        let (subscribe, publish) = rights(claims)?;
        if expires.is_none() && subscribe.iter().next().is_some() {
            return Err(TokenRefused(
                "exp is missing; a token that grants subscribe must end",
            ));
        }
        Ok(Claims {
            subscribe,
            publish,
            user,
            expires: match (expires, key.until) {
                (Some(expires), Some(until)) => Some(expires.min(until)),
                (expires, until) => expires.or(until),
            },
            key: key.number,
        })
    }

    /// Checks the claim `aud`, which is one string or a list of strings.
    fn check_audience(&self, aud: Option<&String>) -> Result<(), TokenRefused> {
        let named = match aud {
            None => Vec::new(),
            Some(value) => match json::unquote(value) {
                Some(one) => vec![one],
                None => json::strings(value).ok_or(TokenRefused("aud is not a list of strings"))?,
            },
        };
        match &self.audience {
            Some(own) if !named.contains(own) => {
                Err(TokenRefused("the token is for another audience"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the token with this payload, which is JSON text.
pub fn sign(payload: &str, key: &JwtKey) -> String {
    let header = match &key.name {
        Some(name) => format!(
            r#"{{"alg":"HS256","typ":"JWT","kid":{}}}"#,
            json::quoted(name)
        ),
        None => String::from(r#"{"alg":"HS256","typ":"JWT"}"#),
    };
    let [header, payload] = [&header, payload].map(|part| base64url::encode(part.as_bytes()));
    let signed = format!("{header}.{payload}");
    let signature = base64url::encode(&key.key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The keys that a header can mean: those with the name `kid`, if there are any;
/// otherwise those without a name. A header without a name can mean all keys.
fn keys_for<'a>(keys: &'a [JwtKey], kid: Option<&'a str>) -> impl Iterator<Item = &'a JwtKey> {
    let is_known = kid.is_some() && keys.iter().any(|key| key.name.as_deref() == kid);
    keys.iter().filter(move |key| match kid {
        None => true,
        Some(_) if is_known => key.name.as_deref() == kid,
        Some(_) => key.name.is_none(),
    })
}

/// Checks a header, and returns its `kid`.
///
/// A header may carry a key, or the address of one (`jwk`, `jku`, `x5u`, `x5c`). These
/// members are not read: every client can write them.
fn check_header(header: &Members) -> Result<Option<String>, TokenRefused> {
    let text = |name, refused| match header.0.get(name) {
        None => Ok(None),
        Some(value) => json::unquote(value).map(Some).ok_or(TokenRefused(refused)),
    };
    let not_hs256 = "the algorithm of the token is not HS256";
    if text("alg", not_hs256)?.as_deref() != Some("HS256") {
        return Err(TokenRefused(not_hs256));
    }
    let wrong_type = "the type of the token is not JWT";
    if !matches!(
        text("typ", wrong_type)?.as_deref(),
        None | Some("JWT" | "at+jwt")
    ) {
        return Err(TokenRefused(wrong_type));
    }
    // SPEC: RFC 7515, 4.1.11: an extension that is not understood makes a token invalid.
    // RFC 7797, 3: `b64` changes what is signed.
    if header.0.contains_key("crit") || header.0.contains_key("b64") {
        return Err(TokenRefused("the header of the token has an extension"));
    }
    text("kid", "the kid of the token is not a string")
}

/// Reads the claim `sub`. A user is named in paths and in log lines, so it has the form
/// of a short line.
fn user(value: &str) -> Result<Box<str>, TokenRefused> {
    let user = json::unquote(value).ok_or(TokenRefused("sub is not a string"))?;
    if user.is_empty() || user.len() > LONGEST_USER {
        return Err(TokenRefused("sub does not have 1 to 255 bytes"));
    }
    if user.chars().any(char::is_control) {
        return Err(TokenRefused("sub has a control character"));
    }
    Ok(user.into())
}

/// Reads the rights to subscribe and to publish, at the top level or in the claim
/// `mercure`. Rights in both places are refused, because the backend may mean either.
fn rights(claims: &Members) -> Result<(Patterns, Patterns), TokenRefused> {
    let has_rights =
        |members: &Members| ["subscribe", "publish"].map(|verb| members.0.contains_key(verb));
    let inner = match claims.0.get("mercure") {
        None => None,
        Some(value) => Some(object(
            value.as_bytes().to_vec(),
            "mercure is not an object",
        )?),
    };
    let source = match &inner {
        Some(inner) if has_rights(inner).contains(&true) => {
            if has_rights(claims).contains(&true) {
                return Err(TokenRefused(
                    "the rights are at the top level and in mercure",
                ));
            }
            inner
        }
        _ => claims,
    };
    Ok((
        source.patterns("subscribe", "subscribe is not a list of strings")?,
        source.patterns("publish", "publish is not a list of strings")?,
    ))
}

/// The members of a JSON object: the name, and the value as JSON text. No name is there
/// twice.
struct Members(HashMap<String, String>);

/// Parses a JSON object. Two members of one name are refused, because two programs could
/// read two different values.
fn object(bytes: Vec<u8>, refused: &'static str) -> Result<Members, TokenRefused> {
    let text = String::from_utf8(bytes).map_err(|_| TokenRefused(refused))?;
    let document = Document::parse(&text).map_err(|_| TokenRefused(refused))?;
    if !document.is_object() {
        return Err(TokenRefused(refused));
    }
    let mut members = HashMap::new();
    let mut is_unique = true;
    document.for_each_member(&mut |name, value| {
        let name = json::unquote(name);
        is_unique &= name.is_some_and(|name| members.insert(name, value.to_owned()).is_none());
    });
    if !is_unique {
        return Err(TokenRefused("the token has two members of one name"));
    }
    Ok(Members(members))
}

/// The end of the year 9999, in milliseconds since 1970. No clock gets there, and sums
/// with it do not overflow.
const LATEST: u64 = 253_402_300_799_000;

/// Reads a JSON number of seconds. Returns the milliseconds, rounded down, from 0 to
/// [`LATEST`]: an earlier or later time is as good as these. `None`: it is another kind
/// of value, or a number that other programs read as infinite.
///
/// The digits are read without a float, so no time is rounded up.
fn milliseconds(number: &str) -> Option<u64> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let is_negative = digits.len() < mantissa.len();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    // The number is 0.DIGITS times 10 to the power of `point`.
    let all = [whole, fraction].concat();
    let digits = all.trim_start_matches('0');
    let zeros = (all.len() - digits.len()) as i64;
    let point = whole.len() as i64 - zeros + i64::from(exponent);
    match point {
        // SPEC: IEEE 754: the largest 64-bit float has 309 digits before the point.
        310.. if !digits.is_empty() => None,
        _ if is_negative || digits.is_empty() || point < -2 => Some(0),
        // 12 digits of seconds, and 3 of milliseconds.
        13.. => Some(LATEST),
        _ => {
            let mut ms = 0;
            let mut digits = digits.bytes();
            for _ in 0..point + 3 {
                ms = ms * 10 + u64::from(digits.next().unwrap_or(b'0') - b'0');
            }
            Some(ms.min(LATEST))
        }
    }
}

impl Members {
    /// Reads a time. `None`: there is no such claim.
    ///
    /// SPEC: RFC 7519, 2: `NumericDate`: seconds since 1970, which may have a fraction.
    fn time(&self, name: &str, refused: &'static str) -> Result<Option<SystemTime>, TokenRefused> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let ms = milliseconds(value).ok_or(TokenRefused(refused))?;
        Ok(Some(UNIX_EPOCH + Duration::from_millis(ms)))
    }

    /// Reads a list of patterns. Empty: there is no such member, or its list is empty.
    fn patterns(&self, name: &str, refused: &'static str) -> Result<Patterns, TokenRefused> {
        let list = match self.0.get(name) {
            None => Vec::new(),
            Some(value) => json::strings(value).ok_or(TokenRefused(refused))?,
        };
        if list.len() > MOST_PATTERNS {
            return Err(TokenRefused(
                "the token has more than 64 patterns for one verb",
            ));
        }
        // Mercure reads `{` as the beginning of a URI template, which here would be a
        // topic that nobody publishes to.
        if list.iter().any(|text| text.contains('{')) {
            return Err(TokenRefused(
                "a topic in the token is a URI template; tiny-sse has prefixes instead, such as user/*",
            ));
        }
        let patterns = list.iter().map(|text| Pattern::new(text));
        patterns
            .collect::<Result<Patterns, _>>()
            .map_err(|_| TokenRefused("a topic in the token is not valid"))
    }
}

#[cfg(test)]
#[path = "../../tests/inside/jwt_tests.rs"]
mod tests;
