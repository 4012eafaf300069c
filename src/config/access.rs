//! The configuration and the constants of tokens and allowed origins (feature `access`).

use std::path::PathBuf;

use super::ConfigError;
use crate::wire::{Origin, Token};

/// Which tokens exist and what they allow, and the origins whose pages may do more than
/// read. By default there are no tokens, and then the address of the server decides which
/// clients may publish: see [`open`](crate::Config::open).
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
        Ok(())
    }
}

/// Bytes of the largest file of tokens: some 10,000 lines. A larger file is probably
/// another file, given by mistake.
pub(crate) const TOKENS_BYTES: u64 = 1 << 20;

/// Clients that are removed from the registry during one hold of the hub's lock, after a
/// reload of the tokens. A client with 8 topics of its own takes some 8 µs, and one with
/// 64 topics that 10,000 other clients have too, 0.4 ms.
pub(crate) const SLICE_CLIENTS: usize = 4;
