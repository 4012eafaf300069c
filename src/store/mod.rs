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

pub use crate::config::SyncMode;
pub use journal::Journal;
pub use options::JournalOptions;
