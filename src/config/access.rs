//! The configuration and the constants of tokens and allowed origins (feature `access`).

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use crate::wire::jwt::JwtKey;
use crate::wire::{Origin, Token};

/// Which tokens exist and what they allow, and the origins whose pages may do more than
/// read. By default there are no tokens, and then the address of the server decides which
/// clients may do what: see [`open`](crate::Config::open).
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// A token with the right to publish to every topic. If it is set, a client without a
    /// token may not publish.
    pub publish_token: Option<Token>,
    /// A token with the right to subscribe to every topic. If it is set, a client without
    /// a token may not subscribe.
    pub subscribe_token: Option<Token>,
    /// A file with a token and its rights in each line:
    /// `TOKEN publish,subscribe chat/* news`. If it is set, a client without a token has
    /// only the rights of lines that begin with `*` instead of a token.
    pub tokens: Option<PathBuf>,
    /// Keys of signed tokens: JSON Web Tokens with the algorithm HS256, which a backend
    /// makes for its users. If there is a key, here or in
    /// [`jwt_key_file`](Self::jwt_key_file), a client without a token has only the rights
    /// of lines that begin with `*` in the file of tokens.
    pub jwt_keys: Vec<JwtKey>,
    /// A file with a key in each line: `[NAME] KEY [until TIME]`. It is read again
    /// together with the file of tokens.
    pub jwt_key_file: Option<PathBuf>,
    /// The name of this server, which signed tokens must have in the claim `aud`. `None`:
    /// the claim is not compared.
    pub jwt_audience: Option<String>,
    /// Origins whose pages may not only read, but also publish, choose a `client_id` and
    /// use cookies. If the list is empty, pages of every origin may read, and only pages
    /// of this server may do more. If it is not empty, pages of other origins may not
    /// even read. The hosts of the origins count as names of this machine.
    pub cors_origins: Vec<Origin>,
}

impl AccessConfig {
    /// Refuses `open` together with a token for publishing, because they contradict each
    /// other.
    pub(super) fn check(&self, open: bool) -> Result<(), ConfigError> {
        if open && (self.publish_token.is_some() || self.tokens.is_some()) {
            let what = "open allows every client to publish, so it cannot be used with publish-token or tokens; \
                        a line \"* publish *\" in the file of tokens has the same effect";
            return Err(ConfigError(what.into()));
        }
        if open && self.has_signed_tokens() {
            let what = "open allows every client to publish, so it cannot be used with jwt-key";
            return Err(ConfigError(what.into()));
        }
        if self.jwt_audience.is_some() && !self.has_signed_tokens() {
            let what =
                "jwt-audience needs a jwt-key, which verifies the tokens that name the audience";
            return Err(ConfigError(what.into()));
        }
        Ok(())
    }

    /// Whether signed tokens are configured.
    pub(crate) fn has_signed_tokens(&self) -> bool {
        !self.jwt_keys.is_empty() || self.jwt_key_file.is_some()
    }
}

/// How far the clocks of a backend and of this server may differ, for `exp` and `nbf` of
/// a signed token. A stream that begins after `exp`, within this time, ends at its end.
pub(crate) const TOKEN_LEEWAY: Duration = Duration::from_secs(60);

/// The longest time that a signed token in a query may have left, besides the leeway. A
/// URL is logged and copied in more places than a header field.
pub(crate) const QUERY_TOKEN_LIFE: Duration = Duration::from_secs(600);

/// Streams whose tokens end at the same moment are closed over this time, so that their
/// clients do not all reconnect in the same moment.
pub(crate) const EXPIRY_SPREAD: Duration = Duration::from_secs(3);

/// Keys of signed tokens. A token without a name of a key is tried with all of them.
pub(crate) const MOST_KEYS: usize = 16;

/// Bytes of the largest file of tokens: some 10,000 lines. A larger file is probably
/// another file, given by mistake.
pub(crate) const TOKENS_BYTES: u64 = 1 << 20;
