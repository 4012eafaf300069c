//! `tiny-sse token`: makes a signed token, for a test, a device or a script.
//!
//! ```text
//! $ tiny-sse token --sub 42 --subscribe user/42 --for 10m --key /etc/tiny-sse.keys
//! eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3OTUzMjYwMDAsImV4cCI6…
//! ```
//!
//! A backend makes its tokens itself, with a library for JSON Web Tokens. The payload
//! here shows what they contain. The token is printed alone on standard output, so that
//! it can be used as `$(tiny-sse token …)`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::args::{Command, KEY_VARIABLE, TIME, value_of};
use tiny_sse::Pattern;
use tiny_sse::wire::json::quoted;
use tiny_sse::wire::jwt::{JwtKey, JwtRules, sign};

/// What the command line asks for.
#[derive(Debug, Default)]
pub(crate) struct TokenRequest {
    /// The user, for the claim `sub`.
    user: Option<String>,
    subscribe: Vec<String>,
    publish: Vec<String>,
    audience: Option<String>,
    /// The time until the token ends.
    life: Duration,
    /// The file of keys. `None`: `key` is the key.
    key_file: Option<PathBuf>,
    /// The key of the environment.
    key: Option<JwtKey>,
}

/// Parses the words after `token`.
///
/// # Errors
///
/// One line for the user: an unknown option, a missing or invalid value, or no key.
pub(crate) fn parse(
    words: &mut dyn Iterator<Item = Result<String, String>>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Command, String> {
    let mut request = TokenRequest {
        // A token in a URL may live this long at most.
        life: Duration::from_millis(600_000),
        ..TokenRequest::default()
    };
    while let Some(word) = words.next().transpose()? {
        if word == "--help" || word == "-h" {
            return Ok(Command::Print(HELP.into()));
        }
        let option = word.strip_prefix("--").unwrap_or_default();
        let (name, value) = option
            .split_once('=')
            .map_or((option, None), |(name, value)| {
                (name, Some(value.to_owned()))
            });
        let value = || value_of(name, value, OPTIONS, words);
        match name {
            "sub" => request.user = Some(value()?),
            "subscribe" => request.subscribe.push(pattern(name, value()?)?),
            "publish" => request.publish.push(pattern(name, value()?)?),
            "audience" => request.audience = Some(value()?),
            "for" => {
                let millis = TIME.number(&value()?);
                let millis = millis.map_err(|error| format!("--for {error}"))?;
                request.life = Duration::from_millis(millis);
            }
            "key" => request.key_file = Some(value()?.into()),
            _ => return Err(format!("token takes {OPTIONS}")),
        }
    }
    if request.key_file.is_none() {
        let Some(key) = environment(KEY_VARIABLE) else {
            return Err(format!(
                "token needs --key FILE, or the key in {KEY_VARIABLE}"
            ));
        };
        let key = key.into_string();
        let key = key.map_err(|_| format!("{KEY_VARIABLE} is not UTF-8"))?;
        let key = key.parse();
        request.key = Some(key.map_err(|error| format!("{KEY_VARIABLE}: {error}"))?);
    }
    Ok(Command::Token(Box::new(request)))
}

/// The options of `token`, for messages.
const OPTIONS: &str =
    "--sub, --subscribe, --publish, --audience, --for and --key; see tiny-sse token --help";

/// The text of `tiny-sse token --help`.
const HELP: &str = "\
usage: tiny-sse token [--OPTION VALUE | --OPTION=VALUE]...

Prints a signed token (JWT, HS256) on standard output.

  --sub USER              the user of the token
  --subscribe PATTERN     a topic or pattern to subscribe to, repeatable
  --publish PATTERN       a topic or pattern to publish to, repeatable
  --audience NAME         the claim aud
  --for TIME              how long the token is valid [10m]
  --key FILE              the file of keys; the first key signs

Without --key, the variable TINY_SSE_JWT_KEY is the key.
";

/// Checks a topic or a pattern.
fn pattern(name: &str, text: String) -> Result<String, String> {
    match Pattern::new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("--{name}: {error}")),
    }
}

impl TokenRequest {
    /// Returns the token and a line break. Signs with the first key of the file that has
    /// not ended. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// One line for the user: the file of keys cannot be used, or a server would refuse
    /// the token.
    pub(crate) fn make(self) -> Result<String, String> {
        let now = SystemTime::now();
        let keys = match (&self.key_file, &self.key) {
            (Some(path), _) => tiny_sse::read_keys(path).map_err(|error| error.to_string())?,
            (None, key) => key.clone().into_iter().collect(),
        };
        let Some(key) = keys.iter().find(|key| !key.is_over(now)) else {
            return Err("every key of the file has ended".into());
        };
        let rules = JwtRules {
            keys: keys.clone(),
            audience: self.audience.clone(),
            ..JwtRules::default()
        };
        let token = sign(&self.payload(now), key);
        match rules.verify(&token, now) {
            Ok(_) => Ok(token + "\n"),
            Err(refused) => Err(format!("a server would refuse this token: {refused}")),
        }
    }

    /// Returns the payload of the token, as JSON.
    fn payload(&self, now: SystemTime) -> String {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (iat, exp) = (now.as_secs(), (now + self.life).as_secs());
        let mut text = format!(r#"{{"iat":{iat},"exp":{exp}"#);
        for (name, value) in [("sub", &self.user), ("aud", &self.audience)] {
            if let Some(value) = value {
                text += &format!(",\"{name}\":{}", quoted(value));
            }
        }
        for (name, list) in [("subscribe", &self.subscribe), ("publish", &self.publish)] {
            if !list.is_empty() {
                let list: Vec<String> = list.iter().map(|topic| quoted(topic)).collect();
                text += &format!(",\"{name}\":[{}]", list.join(","));
            }
        }
        text + "}"
    }
}
