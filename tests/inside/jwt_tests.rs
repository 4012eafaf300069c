//! A table of signed tokens, right and wrong, with the reason for each refusal; keys; and
//! random tokens. The clock of the tests stands at second 1,000,000.

use std::time::Duration;

use super::*;
use crate::chance::{Mutator, Random, cases};

const SECRET: &str = "the-secret-of-the-backend-0123456789";
const OTHER: &str = "another-secret-of-32-bytes-or-more-0";
const NOW: u64 = 1_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn rules(keys: &[&str]) -> JwtRules {
    JwtRules {
        keys: keys.iter().map(|line| line.parse().unwrap()).collect(),
        audience: None,
        leeway: Duration::from_secs(60),
    }
}

/// Signs any text as a header and any text as a payload, with the key [`SECRET`].
fn token_of(header: &[u8], payload: &[u8]) -> String {
    let key = HmacKey::new(SECRET.as_bytes());
    let [header, payload] = [header, payload].map(base64url::encode);
    let signed = format!("{header}.{payload}");
    let signature = base64url::encode(&key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const PAYLOAD: &str = r#"{"sub":"42","subscribe":["user/42"],"exp":1000600}"#;

/// Checks a row: `expected` is empty for a token that is accepted, or a part of the
/// reason.
#[track_caller]
fn check(name: &str, rules: &JwtRules, token: &str, expected: &str) {
    match rules.verify(token, at(NOW)) {
        Ok(claims) => assert_eq!(expected, "", "{name}: accepted with {claims:?}"),
        Err(refused) => {
            let reason = refused.to_string();
            assert!(!expected.is_empty(), "{name}: refused: {reason}");
            assert!(reason.contains(expected), "{name}: {reason}");
        }
    }
}

#[test]
fn a_header_is_hs256_and_nothing_else() {
    let rows = [
        (r#"{"alg":"HS256"}"#, ""),
        (r#"{"alg":"HS256","typ":"JWT"}"#, ""),
        (r#"{"typ":"JWT","alg":"HS256"}"#, ""),
        (r#" { "alg" : "HS256" } "#, ""),
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, ""),
        (r#"{"\u0061lg":"HS25\u0036"}"#, ""),
        (r#"{"alg":"HS256","kid":"unknown"}"#, ""),
        (r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#, ""),
        (r#"{"alg":"HS256","jku":"https://example.org/keys"}"#, ""),
        (r#"{"alg":"HS256","x5u":"https://example.org/cert"}"#, ""),
        (r#"{"alg":"HS256","extra":[1,{"a":null}]}"#, ""),
        (r#"{"alg":"none"}"#, "algorithm"),
        (r#"{"alg":"None"}"#, "algorithm"),
        (r#"{"alg":"NONE"}"#, "algorithm"),
        (r#"{"alg":""}"#, "algorithm"),
        (r#"{"alg":"hs256"}"#, "algorithm"),
        (r#"{"alg":" HS256"}"#, "algorithm"),
        (r#"{"alg":"HS256 "}"#, "algorithm"),
        (r#"{"alg":"HS384"}"#, "algorithm"),
        (r#"{"alg":"HS512"}"#, "algorithm"),
        (r#"{"alg":"RS256"}"#, "algorithm"),
        (r#"{"alg":"ES256"}"#, "algorithm"),
        (r#"{"alg":"PS256"}"#, "algorithm"),
        (r#"{"alg":"EdDSA"}"#, "algorithm"),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, "algorithm"),
        (r#"{"alg":null}"#, "algorithm"),
        (r#"{"alg":256}"#, "algorithm"),
        (r#"{"alg":true}"#, "algorithm"),
        (r#"{"alg":["HS256"]}"#, "algorithm"),
        (r#"{"alg":{"a":"HS256"}}"#, "algorithm"),
        (r#"{"Alg":"HS256"}"#, "algorithm"),
        (r#"{}"#, "algorithm"),
        (r#"{"typ":"JWT"}"#, "algorithm"),
        (r#"{"alg":"HS256","alg":"HS256"}"#, "two members"),
        (r#"{"alg":"none","alg":"HS256"}"#, "two members"),
        (r#"{"alg":"HS256","alg":"none"}"#, "two members"),
        (r#"{"alg":"HS256","\u0061lg":"none"}"#, "two members"),
        (r#"{"alg":"HS256","x":1,"x":1}"#, "two members"),
        (r#"{"alg":"HS256","typ":"jwt"}"#, "type"),
        (r#"{"alg":"HS256","typ":"JWS"}"#, "type"),
        (r#"{"alg":"HS256","typ":"JWE"}"#, "type"),
        (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, "type"),
        (r#"{"alg":"HS256","typ":""}"#, "type"),
        (r#"{"alg":"HS256","typ":null}"#, "type"),
        (r#"{"alg":"HS256","typ":["JWT"]}"#, "type"),
        (r#"{"alg":"HS256","crit":[]}"#, "extension"),
        (r#"{"alg":"HS256","crit":["exp"]}"#, "extension"),
        (r#"{"alg":"HS256","crit":null}"#, "extension"),
        (r#"{"alg":"HS256","b64":true}"#, "extension"),
        (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, "extension"),
        (r#"{"alg":"HS256","kid":1}"#, "kid"),
        (r#"{"alg":"HS256","kid":null}"#, "kid"),
        (r#"{"alg":"HS256","kid":["a"]}"#, "kid"),
        ("", "header"),
        ("null", "header"),
        ("[]", "header"),
        (r#""HS256""#, "header"),
        (r#"[{"alg":"HS256"}]"#, "header"),
        (r#"{"alg":"HS256"}{}"#, "header"),
        (r#"{"alg":"HS256",}"#, "header"),
        (r#"{'alg':'HS256'}"#, "header"),
        (r#"{"alg":"HS256"} x"#, "header"),
        (r#"{"alg":"HS256","x":"\ud800"}"#, ""),
        ("\u{feff}{\"alg\":\"HS256\"}", "header"),
    ];
    for (header, expected) in rows {
        let token = token_of(header.as_bytes(), PAYLOAD.as_bytes());
        check(header, &rules(&[SECRET]), &token, expected);
    }
    let token = token_of(b"{\"alg\":\"HS256\",\"\xff\":1}", PAYLOAD.as_bytes());
    check("not UTF-8", &rules(&[SECRET]), &token, "header");
}

#[test]
fn a_claim_is_absent_or_right_or_the_token_is_refused() {
    let most = format!(r#"{{"publish":[{}]}}"#, vec![r#""a""#; 64].join(","));
    let too_many = format!(r#"{{"publish":[{}]}}"#, vec![r#""a""#; 65].join(","));
    let long_user = format!(r#"{{"sub":"{}"}}"#, "u".repeat(255));
    let too_long_user = format!(r#"{{"sub":"{}"}}"#, "u".repeat(256));
    let long_topic = format!(r#"{{"publish":["{}"]}}"#, "t".repeat(256));
    let rows = [
        (PAYLOAD, ""),
        ("{}", ""),
        (r#"{"publish":["*"]}"#, ""),
        (
            r#"{"publish":["a","b/*"],"subscribe":["c"],"exp":1000600}"#,
            "",
        ),
        // The end, with a leeway of 60 s.
        (r#"{"subscribe":["a"],"exp":1000000}"#, ""),
        (r#"{"subscribe":["a"],"exp":999941}"#, ""),
        (r#"{"subscribe":["a"],"exp":999940.5}"#, ""),
        (r#"{"subscribe":["a"],"exp":1000600.123456}"#, ""),
        (r#"{"subscribe":["a"],"exp":1.0006e6}"#, ""),
        (r#"{"subscribe":["a"],"exp":1e300}"#, ""),
        (r#"{"subscribe":["a"],"exp":99999999999999999999999}"#, ""),
        (r#"{"subscribe":["a"],"exp":999940}"#, "expired"),
        (r#"{"subscribe":["a"],"exp":999939.999}"#, "expired"),
        (r#"{"subscribe":["a"],"exp":0}"#, "expired"),
        (r#"{"subscribe":["a"],"exp":-1}"#, "expired"),
        (r#"{"subscribe":["a"],"exp":-1e300}"#, "expired"),
        (r#"{"publish":["a"],"exp":0}"#, "expired"),
        (r#"{"exp":0}"#, "expired"),
        (r#"{"subscribe":["a"],"exp":1e999}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":-1e999}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":"1000600"}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":"never"}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":null}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":true}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":[1000600]}"#, "exp is not"),
        (r#"{"subscribe":["a"],"exp":{}}"#, "exp is not"),
        (r#"{"publish":["a"],"exp":"0"}"#, "exp is not"),
        (r#"{"subscribe":["a"]}"#, "exp is missing"),
        (r#"{"subscribe":["a"],"Exp":1000600}"#, "exp is missing"),
        (r#"{"mercure":{"subscribe":["a"]}}"#, "exp is missing"),
        (
            r#"{"mercure":{"subscribe":["a"],"exp":1000600}}"#,
            "exp is missing",
        ),
        (
            r#"{"subscribe":["a"],"exp":1000600,"exp":2000000}"#,
            "two members",
        ),
        // The beginning.
        (r#"{"nbf":1000000}"#, ""),
        (r#"{"nbf":1000060}"#, ""),
        (r#"{"nbf":1000059.99}"#, ""),
        (r#"{"nbf":-5}"#, ""),
        (r#"{"nbf":1000060.5}"#, "not valid yet"),
        (r#"{"nbf":1000061}"#, "not valid yet"),
        (r#"{"nbf":1e300}"#, "not valid yet"),
        (r#"{"nbf":1e999}"#, "nbf is not"),
        (r#"{"nbf":"0"}"#, "nbf is not"),
        (r#"{"nbf":null}"#, "nbf is not"),
        // The time of issue is no limit, and its type does not matter.
        (r#"{"iat":2000000}"#, ""),
        (r#"{"iat":"yesterday"}"#, ""),
        (r#"{"jti":7,"iss":["x"],"custom":{"deep":[[[]]]}}"#, ""),
        // The user.
        (r#"{"sub":"anna@example.org"}"#, ""),
        (r#"{"sub":"\u00e9\ud83e\udd80"}"#, ""),
        (&long_user, ""),
        (&too_long_user, "sub does not have"),
        (r#"{"sub":""}"#, "sub does not have"),
        (r#"{"sub":42}"#, "sub is not"),
        (r#"{"sub":null}"#, "sub is not"),
        (r#"{"sub":["42"]}"#, "sub is not"),
        (r#"{"sub":"\ud83e"}"#, "sub is not"),
        (r#"{"sub":"a\nb"}"#, "control"),
        (r#"{"sub":"a\u0000"}"#, "control"),
        (r#"{"sub":"1","sub":"2"}"#, "two members"),
        // The audience, which is not configured.
        (r#"{"aud":"x"}"#, ""),
        (r#"{"aud":["x","y"]}"#, ""),
        (r#"{"aud":[]}"#, ""),
        (r#"{"aud":1}"#, "aud is not"),
        (r#"{"aud":["x",1]}"#, "aud is not"),
        (r#"{"aud":null}"#, "aud is not"),
        // The rights.
        (r#"{"publish":[]}"#, ""),
        (r#"{"subscribe":[]}"#, ""),
        (r#"{"publish":["a\u002fb"]}"#, ""),
        (r#"{"publish":["say \"hi\"","back\\slash\\"]}"#, ""),
        (&most, ""),
        (&too_many, "64 patterns"),
        (&long_topic, "topic in the token is not valid"),
        (r#"{"publish":"*"}"#, "publish is not"),
        (r#"{"publish":null}"#, "publish is not"),
        (r#"{"publish":true}"#, "publish is not"),
        (r#"{"publish":{"0":"*"}}"#, "publish is not"),
        (r#"{"publish":[1]}"#, "publish is not"),
        (r#"{"publish":["a",null]}"#, "publish is not"),
        (r#"{"publish":[["a"]]}"#, "publish is not"),
        (r#"{"publish":["a",["b"]]}"#, "publish is not"),
        (r#"{"publish":[{"match":"*"}]}"#, "publish is not"),
        (
            r#"{"subscribe":"user/42","exp":1000600}"#,
            "subscribe is not",
        ),
        (r#"{"publish":[""]}"#, "not valid"),
        (r#"{"publish":["a\nb"]}"#, "not valid"),
        (r#"{"publish":["user/{id}"]}"#, "URI template"),
        (r#"{"publish":["a","{"]}"#, "URI template"),
        (r#"{"publish":["a"],"publish":["*"]}"#, "two members"),
        (r#"{"publish":["a"],"p\u0075blish":["*"]}"#, "two members"),
        // The rights as Mercure writes them.
        (r#"{"mercure":{"publish":["*"]}}"#, ""),
        (
            r#"{"mercure":{"publish":["*"],"subscribe":["a"],"payload":{"x":1}},"exp":1000600}"#,
            "",
        ),
        (r#"{"mercure":{}}"#, ""),
        (r#"{"mercure":{"payload":1},"publish":["a"]}"#, ""),
        (
            r#"{"mercure":{"publish":["a"]},"publish":["a"]}"#,
            "top level and in mercure",
        ),
        (
            r#"{"mercure":{"publish":["a"]},"subscribe":["a"],"exp":1000600}"#,
            "top level and",
        ),
        (
            r#"{"mercure":{"publish":["a"],"publish":["*"]}}"#,
            "two members",
        ),
        (r#"{"mercure":{"publish":["user/{id}"]}}"#, "URI template"),
        (r#"{"mercure":{"publish":"*"}}"#, "publish is not"),
        (r#"{"mercure":["*"]}"#, "mercure is not"),
        (r#"{"mercure":null}"#, "mercure is not"),
        (r#"{"mercure":"*"}"#, "mercure is not"),
        // Not an object.
        ("", "payload"),
        ("null", "payload"),
        ("[]", "payload"),
        ("42", "payload"),
        (r#"{"sub":"42""#, "payload"),
        (r#"{"sub":"42"}}"#, "payload"),
        (r#"{"sub":"42",}"#, "payload"),
        (r#"{"exp":NaN}"#, "payload"),
        (r#"{"exp":Infinity}"#, "payload"),
        (r#"{"exp":01000600}"#, "payload"),
        (r#"{"exp":0x100000}"#, "payload"),
        (r#"{"exp":+1000600}"#, "payload"),
        ("eyJhbGciOiJIUzI1NiJ9.e30.AAAA", "payload"),
    ];
    for (payload, expected) in rows {
        let token = token_of(HEADER.as_bytes(), payload.as_bytes());
        check(payload, &rules(&[SECRET]), &token, expected);
    }
}

#[test]
fn a_token_has_three_parts_of_exact_base64url_and_its_signature() {
    let good = token_of(HEADER.as_bytes(), PAYLOAD.as_bytes());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let signed_by = |secret: &str| {
        let key = HmacKey::new(secret.as_bytes());
        base64url::encode(&key.sign(signed.as_bytes()))
    };
    // The last character of the signature has two bits that are not used.
    let last = signature.as_bytes()[signature.len() - 1];
    let twin = (b'A'..=b'z').map(char::from).find(|&other| {
        base64url::decode(&format!("AA{other}")).is_none() && other.is_ascii_alphanumeric()
    });
    let unused_bits = format!("{signed}.{}{}", &signature[..42], twin.unwrap());
    assert_ne!(last, twin.unwrap() as u8);
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(6200));
    let rows = [
        ("the right token", good.clone(), ""),
        ("no signature", format!("{signed}."), "not signed"),
        ("no signature and no dot", signed.to_owned(), "three parts"),
        ("four parts", format!("{good}."), "three parts"),
        (
            "five parts (encrypted)",
            format!("{header}..{payload}.{payload}.{signature}"),
            "three",
        ),
        ("empty", String::new(), "three parts"),
        ("two dots", "..".into(), "header"),
        ("no header", format!(".{payload}.{signature}"), "header"),
        ("no payload", format!("{header}..{signature}"), "not signed"),
        (
            "swapped parts",
            format!("{payload}.{header}.{signature}"),
            "algorithm",
        ),
        ("padding", format!("{signed}.{signature}="), "base64url"),
        (
            "padded payload",
            format!("{header}.{payload}==.{signature}"),
            "base64url",
        ),
        ("white space before", format!(" {good}"), "base64url"),
        ("white space after", format!("{good} "), "base64url"),
        ("line break", format!("{good}\n"), "base64url"),
        ("a dot is escaped", good.replace('.', "%2E"), "three parts"),
        (
            "plus",
            format!("{signed}.+{}", &signature[1..]),
            "base64url",
        ),
        (
            "slash",
            format!("{signed}./{}", &signature[1..]),
            "base64url",
        ),
        ("unused bits", unused_bits, "base64url"),
        (
            "short signature",
            format!("{signed}.{}", &signature[..40]),
            "not signed",
        ),
        (
            "long signature",
            format!("{signed}.{signature}AAAA"),
            "not signed",
        ),
        (
            "zeros",
            format!("{signed}.{}", "A".repeat(43)),
            "not signed",
        ),
        (
            "another key",
            format!("{signed}.{}", signed_by(OTHER)),
            "not signed",
        ),
        (
            "no key",
            format!("{signed}.{}", signed_by("")),
            "not signed",
        ),
        (
            "upper case key",
            format!("{signed}.{}", signed_by(&SECRET.to_uppercase())),
            "not signed",
        ),
        (
            "8 KiB",
            token_of(HEADER.as_bytes(), &large.as_bytes()[..5900]),
            "payload",
        ),
        (
            "too long",
            token_of(HEADER.as_bytes(), large.as_bytes()),
            "8192",
        ),
    ];
    for (name, token, expected) in rows {
        check(name, &rules(&[SECRET]), &token, expected);
    }
    // One wrong bit anywhere in the signature.
    let bytes = base64url::decode(signature).unwrap();
    for bit in 0..256 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let token = format!("{signed}.{}", base64url::encode(&wrong));
        check(
            &format!("bit {bit}"),
            &rules(&[SECRET]),
            &token,
            "not signed",
        );
    }
    let public = "-----BEGIN-PUBLIC-KEY-----MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA";
    let token = format!("{signed}.{}", signed_by(public));
    check(
        "keyed by a public key",
        &rules(&[SECRET]),
        &token,
        "not signed",
    );
}

#[test]
fn the_claims_are_those_of_the_payload() {
    let payload = r#"{"sub":"42","mercure":{"subscribe":["user/42","news/*"],"publish":["a"]},"exp":1000600.5}"#;
    let token = token_of(HEADER.as_bytes(), payload.as_bytes());
    let claims = rules(&[SECRET]).verify(&token, at(NOW)).unwrap();
    let show = |patterns: &Patterns| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(claims.user.as_deref(), Some("42"));
    assert_eq!(show(&claims.subscribe), ["news/*", "user/42"]);
    assert_eq!(show(&claims.publish), ["a"]);
    assert_eq!(
        claims.expires,
        Some(at(NOW + 600) + Duration::from_millis(500))
    );
}

#[test]
fn the_audience_is_compared_if_it_is_configured() {
    let mut rules = rules(&[SECRET]);
    rules.audience = Some("https://push.example.org".into());
    for (payload, expected) in [
        (r#"{"aud":"https://push.example.org"}"#, ""),
        (r#"{"aud":["x","https://push.example.org"]}"#, ""),
        (r#"{"aud":"https://push.example.org/"}"#, "another audience"),
        (r#"{"aud":"x"}"#, "another audience"),
        (r#"{"aud":[]}"#, "another audience"),
        (r#"{}"#, "another audience"),
        (r#"{"aud":7}"#, "aud is not"),
    ] {
        let token = token_of(HEADER.as_bytes(), payload.as_bytes());
        check(payload, &rules, &token, expected);
    }
}

#[test]
fn a_kid_only_picks_among_the_configured_keys() {
    let keys = [
        format!("new {SECRET}"),
        format!("old {OTHER} until 1970-01-12T13:46:40Z"),
        format!("gone {OTHER}x until 1970-01-12T13:46:39Z"),
        "base64:bmFtZWxlc3Mta2V5LW9mLTMyLWJ5dGVzLW9yLW1vcmU=".to_owned(),
    ];
    let lines: Vec<&str> = keys.iter().map(String::as_str).collect();
    let rules = rules(&lines);
    let token = |secret: &str, kid: Option<&str>| {
        let name = kid.map_or(String::new(), |kid| format!("{kid} "));
        sign("{}", &format!("{name}{secret}").parse().unwrap())
    };
    let nameless = "nameless-key-of-32-bytes-or-more";
    for (secret, kid, time, is_accepted) in [
        (SECRET, Some("new"), NOW, true),
        (SECRET, None, NOW, true),
        (SECRET, Some("old"), NOW, false),
        (SECRET, Some("unknown"), NOW, false),
        (OTHER, Some("old"), NOW - 1, true),
        (OTHER, None, NOW - 1, true),
        (OTHER, Some("old"), NOW, false),
        (OTHER, None, NOW, false),
        (nameless, None, NOW, true),
        (nameless, Some("unknown"), NOW, true),
        (nameless, Some("new"), NOW, false),
    ] {
        let verified = rules.verify(&token(secret, kid), at(time));
        assert_eq!(
            verified.is_ok(),
            is_accepted,
            "{kid:?} at {time}: {verified:?}"
        );
    }
    // The end of a key is the end of its tokens.
    let token = sign(r#"{"subscribe":["a"],"exp":2000000}"#, &rules.keys[1]);
    let claims = rules.verify(&token, at(NOW - 5)).unwrap();
    assert_eq!(claims.expires, Some(at(NOW)));
}

#[test]
fn a_key_is_long_enough_and_an_error_repeats_nothing_of_it() {
    for (line, part) in [
        ("", "[NAME] KEY"),
        ("short", "less than 32 bytes"),
        (&SECRET[..31], "less than 32 bytes"),
        ("base64:c2hvcnQ=", "less than 32 bytes"),
        ("base64:***", "base64"),
        ("base64:", "less than 32 bytes"),
        ("a b c-the-secret-of-the-backend-0123456789", "[NAME] KEY"),
        ("k the-secret-of-the-backend-0123456789 until", "[NAME] KEY"),
        (
            "the-secret-of-the-backend-0123456789 until soon",
            "not a time",
        ),
        (
            "the-secret-of-the-backend-0123456789 until 2026-02-30",
            "not a time",
        ),
        (
            "the-secret-of-the-backend-0123456789 until 2026-12-31T24:00:00Z",
            "not a time",
        ),
        ("-----BEGIN PUBLIC KEY-----", "another kind"),
    ] {
        let error = line.parse::<JwtKey>().unwrap_err().to_string();
        assert!(error.contains(part), "{line:?}: {error}");
        assert!(error.contains("openssl rand"), "{line:?}: {error}");
        assert!(
            !error.contains("secret-of") && !error.contains("c2hv"),
            "{line:?}: {error}"
        );
    }
    // 32 bytes are enough.
    let key: JwtKey = SECRET[..32].parse().unwrap();
    assert!(!format!("{key:?}").contains("secret-of"), "{key:?}");
    let same = [
        "base64:dGhlLXNlY3JldC1vZi10aGUtYmFja2VuZC0wMTIzNDU2Nzg5",
        SECRET,
    ];
    let [one, two] = same.map(|line| line.parse::<JwtKey>().unwrap().number());
    assert_eq!(one, two);
}

#[test]
fn a_random_token_is_accepted_only_if_it_is_a_right_one() {
    let right = [
        token_of(HEADER.as_bytes(), PAYLOAD.as_bytes()),
        token_of(br#"{"alg":"HS256"}"#, br#"{"publish":["*"],"nbf":1.5}"#),
        token_of(
            br#"{"alg":"HS256","kid":"a"}"#,
            br#"{"mercure":{"publish":["a"]}}"#,
        ),
    ];
    let mutator = Mutator {
        corpus: right
            .iter()
            .map(|token| token.clone().into_bytes())
            .collect(),
        words: &[
            ".",
            "..",
            "=",
            "eyJhbGciOiJub25lIn0",
            "e30",
            "AAAA",
            "-",
            "_",
            "+",
        ],
    };
    let rules = rules(&[SECRET]);
    let make = |random: &mut Random| match random.below(4) {
        // A header and a payload that nobody has checked, under a signature of another
        // token or of another key.
        0 => {
            let part = |random: &mut Random| {
                let length = random.below(40);
                base64url::encode(&random.bytes(length))
            };
            format!("{}.{}.{}", part(random), part(random), part(random))
        }
        _ => String::from_utf8_lossy(&mutator.input(random).0).into_owned(),
    };
    cases(1, make, |token, _| {
        let is_right = right.contains(token);
        assert_eq!(rules.verify(token, at(NOW)).is_ok(), is_right);
    });
}

#[test]
fn a_time_is_read_in_milliseconds_whatever_way_it_is_written() {
    for (text, expected) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("0.0009", Some(0)),
        ("0.001", Some(1)),
        ("0.0015", Some(1)),
        ("1", Some(1000)),
        ("1.5", Some(1500)),
        ("1e3", Some(1_000_000)),
        ("1E+3", Some(1_000_000)),
        ("1500e-3", Some(1500)),
        ("1500e-7", Some(0)),
        ("0.00015e4", Some(1500)),
        ("1796127052.999999", Some(1_796_127_052_999)),
        ("1.796127052999999e9", Some(1_796_127_052_999)),
        ("000.5", Some(500)),
        ("999999999999", Some(LATEST)),
        ("1e12", Some(LATEST)),
        ("1e308", Some(LATEST)),
        ("0.1e309", Some(LATEST)),
        ("1e309", None),
        ("-1e309", None),
        ("-5", Some(0)),
        ("0e9", Some(0)),
        ("1e99999999999", None),
        ("\"1\"", None),
        ("null", None),
        ("true", None),
        ("[]", None),
        ("{}", None),
        ("e", None),
    ] {
        assert_eq!(milliseconds(text), expected, "{text}");
    }
}
