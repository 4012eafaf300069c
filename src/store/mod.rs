//! How events outlive the process: what stands behind the hub's [`Log`](crate::hub::Log).

mod crc32;
mod directory;
mod disk;
#[cfg(all(test, unix))]
#[path = "../../tests/inside/store_hands.rs"]
mod hands;
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

/// The hub of this configuration, with its journal if it is to have one.
pub(crate) fn hub(config: &Config) -> io::Result<Hub> {
    let Some(dir) = &config.journal.dir else {
        return Hub::new(config.clone());
    };
    let options = JournalOptions {
        dir: dir.clone(),
        sync: config.journal.sync,
        repair: config.journal.repair,
        // The history keeps more events than its number while they are small.
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
