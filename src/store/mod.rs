//! How events outlive the process: the journal, which implements the hub's
//! [`Log`](crate::hub::Log).
//!
//! - `journal.rs` appends records, and handles a disk that fails and files that other
//!   programs change.
//! - `segment.rs` is the file format, without I/O; `crc32.rs` is its checksum.
//! - `newest.rs` is the segment that is written to; `disk.rs` the operations on its file.
//! - `recovery.rs` reads a journal at the start, and repairs it.
//! - `directory.rs` locks the directory; `syncer.rs` is the thread of `--sync interval`.
//!
//! # An event, from the publisher to the disk
//!
//! All of this happens on the thread of a publisher, which has taken the log for itself
//! and for the publishers that wait with it (`hub/log/group_commit.rs`). It does not hold
//! the hub's lock in steps 2 to 5, so clients are served while the disk works:
//!
//! 1. `Shared::keep` (`hub/log.rs`) gives the events of the group their ids, and calls
//!    [`Log::append`](crate::hub::Log::append).
//! 2. `Journal::encode` makes the text of all of them, with a checksum for each event.
//! 3. `Journal::prepare` looks at the newest file with one `stat`. If the file is as it
//!    was left, nothing is to be done. If it is full, the next one is begun.
//! 4. `Journal::write` appends the text with one `write`, and calls `fdatasync` once.
//! 5. `Newest::accept` looks at the file again, and moves the good length: from here on
//!    the events are acknowledged.
//! 6. `Shared::keep` puts the events into the history and into the inbox. Only now can a
//!    client get them. So no client ever has an event that the journal has not.
//!
//! # A restart
//!
//! 1. `Directory::occupy` locks the directory, so that no second server writes to it.
//! 2. `ReadBack::newest` reads the newest file, and cuts off what a crash has left at its
//!    end.
//! 3. `ReadBack::older` reads the files before it, one by one, until there are as many
//!    events as the history has room for.
//! 4. `Hub::with_log` fills the history with these events ([`Kept`](crate::hub::Kept)). A
//!    client that reconnects with the id of one of them resumes as if there had been no
//!    restart.
//!
//! # The files of a journal
//!
//! | file | contents |
//! |---|---|
//! | `00000001.sse`, `00000002.sse`, … | the segments, in the order of their events; only the newest is written to |
//! | `00000002.sse.damaged` | bytes that a repair has removed from the segment |
//! | `00000002.sse.new` | the remains of a repair that was interrupted |
//! | `lock` | left by an earlier version, or used where a directory cannot be locked |

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
        // While the events are small, the history keeps more than `history_events`. As
        // many are read back here, so that a restart does not shorten the history.
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
