//! The options of a journal.

use std::path::PathBuf;

use crate::config::SyncMode;
use crate::report::Report;

/// How to open a [`Journal`](super::Journal).
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The directory of the files. It is created if it is missing, but its parent is not.
    pub dir: PathBuf,
    /// When to sync the files.
    pub sync: SyncMode,
    /// Whether to repair a damaged journal: the bytes from the damage on are moved into a
    /// file next to the segment, and the history begins after the damage.
    pub repair: bool,
    /// The maximum number of events to read back, the latest ones. 0 reads none, but the
    /// newest segment is read in any case, to find its end.
    pub events: usize,
    /// The maximum length of their messages together, in bytes.
    pub bytes: usize,
    /// Receives warnings about repairs, and the error of a sync that failed in the
    /// background.
    pub report: Report,
}
