//! The configuration and the constants of the journal, and of the log of a hub (feature
//! `journal`).

use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, MIB, names};

/// Where events are kept on disk, and how.
#[derive(Clone, Debug, Default)]
pub struct JournalConfig {
    /// The directory of the journal. `None` keeps events in memory only, and a restart
    /// loses them. A [`Server`](crate::Server) opens the journal itself. A hub of your
    /// own gets its log from you, and ignores this.
    pub dir: Option<PathBuf>,
    /// When appended events are forced to the disk.
    pub sync: SyncMode,
    /// Whether to open a damaged journal. The records after the damaged one, in the same
    /// file, are lost then. Without it, a damaged journal is an error.
    pub repair: bool,
}

impl JournalConfig {
    /// A journal in this directory, with the other fields at their defaults.
    pub fn at(dir: impl Into<PathBuf>) -> JournalConfig {
        JournalConfig {
            dir: Some(dir.into()),
            ..JournalConfig::default()
        }
    }

    /// Refuses `repair` without a directory.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.repair && self.dir.is_none() {
            let what = "repair needs a journal to repair, and none is configured";
            return Err(ConfigError(what.into()));
        }
        Ok(())
    }
}

/// When appended events are forced to the disk. In every mode they survive `kill -9` of
/// the process, because the kernel has them. The modes differ in the events that are lost
/// by a power failure or a crash of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Before an event is acknowledged: no acknowledged event is lost.
    #[default]
    Always,
    /// Once a second: events that were acknowledged in the last second may be lost.
    Interval,
    /// When the kernel decides, which is often after half a minute.
    Off,
}

names!(SyncMode: "always" Always, "interval" Interval, "off" Off);

/// The fewest bytes of an event on the wire: `id: 1795570197352-1`, an empty `data: `,
/// and the line breaks. It bounds how many events fit into a number of bytes.
pub(crate) const MIN_EVENT_BYTES: usize = 30;

/// Bytes after which a new segment of the journal is begun. A start reads whole segments,
/// so with a small history it reads about this much, in well under a second.
pub(crate) const SEGMENT_BYTES: u64 = 32 * MIB as u64;

/// The time between two syncs with `--sync interval`. A power failure loses the events of
/// this time.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// If the last event in a journal is further in the future than this when the journal is
/// opened, a warning is logged: the clock is wrong now, or was wrong then.
pub(crate) const WRONG_CLOCK: Duration = Duration::from_secs(86_400);

/// How many times the journal reads its newest segment again because only the
/// modification time of the file has changed, and finds nothing wrong. Later changes of
/// the time alone are ignored. Reading 32 MiB takes some 50 ms.
pub(crate) const UNSTABLE_READS: u32 = 16;

/// The shortest time between two probes of a log that has failed. `/health` probes it,
/// because without publishers nothing else would notice that it works again.
pub(crate) const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How long `/health` waits for a probe. This is less than one second, a common timeout
/// of health checks.
pub(crate) const PROBE_WAIT: Duration = Duration::from_millis(500);

/// A log that takes longer than this for one group of events counts as failed: every
/// publisher waits for it.
pub(crate) const LOG_STUCK_AFTER: Duration = Duration::from_secs(10);
