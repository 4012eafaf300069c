//! Turns the file of `--jwt-key` into keys that verify signed tokens.
//!
//! ```text
//! # Made with: openssl rand -base64 32
//! 2026b  base64:kY0mNQmXvlUMhrEi3yW0VSXb1HGEvoS3l7n4OhFLUmE=
//! 2026a  base64:UqzQp0yq4m8vZ0H6wG5Hn1Jm2WJ4T9cQYyS8b3r1VxA=   until 2026-12-31
//! ```
//!
//! A line is one key: a name, which is optional, the key, and optionally the time at
//! which the key ends. So a key is replaced without a moment in which a valid token is
//! refused: the new key is added, the server reads the file again (SIGHUP), the backend
//! signs with the new key, and the old key ends after the last token that it has signed.
//!
//! The file is as secret as the file of tokens, and has the same rules: other users of
//! the machine may not read it, and no error message repeats a word of it.

use std::io;
use std::path::Path;

use super::token_file::read_private;
use crate::config::MOST_KEYS;
use crate::wire::jwt::JwtKey;

/// Reads the keys of a file, as [`AccessConfig::jwt_key_file`](crate::AccessConfig) does.
/// Blocks on the disk.
///
/// # Errors
///
/// The file cannot be read, can be read or written by every user of this machine, has no
/// key or more than 16, or a line is wrong. The message names the file and the line, and
/// repeats nothing of a key.
pub fn read_keys(path: &Path) -> io::Result<Vec<JwtKey>> {
    let failed = |what: String| {
        let what = format!("cannot use the keys of {}: {what}", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, what)
    };
    let text = read_private(path).map_err(|error| failed(error.to_string()))?;
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if keys.len() == MOST_KEYS {
            return Err(failed(format!("it has more than {MOST_KEYS} keys")));
        }
        let wrong = |error| failed(format!("line {}: {error}", number + 1));
        keys.push(line.parse::<JwtKey>().map_err(wrong)?);
    }
    if keys.is_empty() {
        let what = "it has no key; make one with: openssl rand -base64 32";
        return Err(failed(what.into()));
    }
    Ok(keys)
}
