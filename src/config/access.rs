//! The fields and the numbers of tokens and allowed origins (feature `access`).

use std::path::PathBuf;

use super::ConfigError;
use crate::wire::{Origin, Token};

/// The tokens that a client needs, and the origins whose pages may do more than read.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// A token that grants publishing to every topic. If it is set, a client without a token may not publish.
    pub publish_token: Option<Token>,
    /// A token that grants subscribing to every topic. If it is set, a client without a token may not
    /// subscribe.
    pub subscribe_token: Option<Token>,
    /// A file of tokens, each with what it grants: `TOKEN publish,subscribe chat/* news` in a line.
    /// If it is set, a client without a token may not publish or subscribe, unless a line begins with `*`
    /// instead of a token.
    pub tokens: Option<PathBuf>,
    /// Origins whose pages may publish and choose a `client_id`, too, and use cookies. With none, pages of
    /// every origin may read, and only the server's own may do more; with some, only these may read. Their
    /// hosts also are names of this machine.
    pub cors_origins: Vec<Origin>,
}

impl AccessConfig {
    pub(super) fn check(&self, open: bool) -> Result<(), ConfigError> {
        if open && (self.publish_token.is_some() || self.tokens.is_some()) {
            let what = "open lets everybody publish, so no token is needed for it; a line such as \
                        \"* publish *\" in the file of tokens says the same";
            return Err(ConfigError(what.into()));
        }
        Ok(())
    }
}

/// The largest file of tokens, in bytes: some ten thousand lines. What is larger is another file, given
/// by mistake.
pub(crate) const TOKENS_BYTES: u64 = 1 << 20;

/// Clients that are taken out of the registry while the hub's lock is held once. It takes some 8 µs for
/// a client with 8 topics that no other asked for, and 0.4 ms for one with 64 that 10,000 others asked for.
pub(crate) const SLICE_CLIENTS: usize = 4;
