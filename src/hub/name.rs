//! The id of a client: chosen by the client, or generated so that it cannot be guessed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::Arc;

use crate::config::CLIENT_ID_BYTES;

/// The id of a client: 1 to 64 characters of `A-Za-z0-9._-`. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub(super) Arc<str>);

impl ClientId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Generates a UUID of version 4 (RFC 9562, 5.4). Its 122 random bits are a keyed
    /// hash of `number`, which must be a new number each time. The key is random data of
    /// the operating system: std offers it only in this form.
    pub(super) fn make(random: &RandomState, number: u64) -> ClientId {
        let high = random.hash_one((number, 0)) & !0xF000 | 0x4000;
        let low = random.hash_one((number, 1)) & !(0b11 << 62) | 0b10 << 62;
        let (a, b, c) = (high >> 32, high >> 16 & 0xFFFF, high & 0xFFFF);
        let uuid = format!(
            "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}",
            low >> 48,
            low & 0xFFFF_FFFF_FFFF
        );
        ClientId(uuid.into())
    }
}

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(text: &str) -> Result<ClientId, InvalidClientId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let length = (1..=CLIENT_ID_BYTES).contains(&text.len());
        if length && text.bytes().all(allowed) {
            Ok(ClientId(text.into()))
        } else {
            Err(InvalidClientId(text.into()))
        }
    }
}

/// The text is not a [`ClientId`]. `Display` quotes the text and says what an id consists
/// of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidClientId(String);

impl fmt::Display for InvalidClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client_id is {:?}, it must be 1 to {CLIENT_ID_BYTES} of A-Z a-z 0-9 . _ -",
            self.0
        )
    }
}

impl std::error::Error for InvalidClientId {}
