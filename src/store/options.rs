//! What a journal is told when it is opened.

use std::path::PathBuf;

use crate::config::SyncMode;
use crate::report::Report;

/// What a [`Journal`](super::Journal) is to be.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Where its files are. The directory is created, but not those above it.
    pub dir: PathBuf,
    /// When to sync.
    pub sync: SyncMode,
    /// Whether to open a journal that is damaged. From the damage on, the file's bytes are moved into a
    /// file next to it, and the history begins after the damage.
    pub repair: bool,
    /// How many of the latest events are read back at most.
    pub events: usize,
    /// How many bytes of messages are read back at most.
    pub bytes: usize,
    /// Where the journal reports what it found and did, and a sync in the background that failed.
    pub report: Report,
}
