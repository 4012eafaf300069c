//! How events outlive the process: the journal, which implements the hub's
//! [`Log`](crate::hub::Log).
//!
//! - `journal.rs` appends records, and handles a disk that fails and files that other
//!   programs change.
//! - `segment.rs` is the file format, without I/O; `crc32.rs` is its checksum.
//! - `newest.rs` is the segment that is written to; `disk.rs` the operations on its file.
//! - `recovery.rs` reads a journal at the start, and repairs it.
//! - `directory.rs` locks the directory; `syncer.rs` is the thread of `--sync interval`.

#[cfg(all(test, unix))]
#[path = "../../tests/inside/store_changes.rs"]
mod changes;
mod crc32;
mod directory;
mod disk;
mod journal;
mod newest;
mod options;
#[cfg(test)]
#[path = "../../tests/inside/store_random.rs"]
mod random;
mod recovery;
mod segment;
mod syncer;

#[cfg(test)]
#[path = "../../tests/inside/store_tests.rs"]
mod tests;

use std::io;

use crate::config::{Config, MIN_EVENT_BYTES};
use crate::hub::Hub;

pub use crate::config::SyncMode;
pub use journal::Journal;
pub use options::JournalOptions;

/// Creates the hub of this configuration: with a journal if `journal.dir` is set,
/// otherwise in memory. Blocks on the disk.
pub(crate) fn hub(config: &Config) -> io::Result<Hub> {
    let Some(dir) = &config.journal.dir else {
        return Hub::new(config.clone());
    };
    let options = JournalOptions {
        dir: dir.clone(),
        sync: config.journal.sync,
        repair: config.journal.repair,
        // While the events are small, the history keeps more than `history_events`.
        events: match config.history_events {
            0 => 0,
            events => events.max(config.least_history_bytes() / MIN_EVENT_BYTES),
        },
        bytes: config.history_bytes,
        report: config.report.clone(),
    };
    let (journal, kept) = Journal::open(options, Hub::new_start_id())?;
    Hub::with_log(config.clone(), Box::new(journal), kept)
}
