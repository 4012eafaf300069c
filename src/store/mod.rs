//! How events outlive the process: what stands behind the hub's [`Log`](crate::hub::Log).

mod crc32;
mod directory;
mod disk;
#[cfg(all(test, unix))]
mod hands;
mod journal;
mod present;
#[cfg(test)]
mod random;
mod recovery;
mod segment;
mod syncer;

#[cfg(test)]
mod tests;

pub use crate::config::SyncMode;
pub use journal::{Journal, JournalOptions};
