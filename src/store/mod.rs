//! How events outlive the process: what stands behind the hub's [`Log`](crate::hub::Log).

mod crc32;
mod disk;
mod journal;
#[cfg(test)]
mod random;
mod recovery;
mod segment;
mod syncer;

#[cfg(test)]
mod tests;

pub use crate::config::SyncMode;
pub use journal::{Journal, JournalOptions};
