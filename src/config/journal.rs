//! The fields and the numbers of the journal (feature `journal`).

use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, MIB, names};

/// Where events are kept on disk, and how.
#[derive(Clone, Debug, Default)]
pub struct JournalConfig {
    /// The directory of the journal. `None` keeps events in memory, and a restart forgets them. A
    /// [`Server`](crate::Server) opens it; a hub of your own is given its log.
    pub dir: Option<PathBuf>,
    /// When the journal is forced to the disk.
    pub sync: SyncMode,
    /// Whether to go on with a damaged journal, without the records after the damage in its file.
    pub repair: bool,
}

impl JournalConfig {
    /// A journal in this directory, and the rest by default.
    pub fn at(dir: impl Into<PathBuf>) -> JournalConfig {
        JournalConfig {
            dir: Some(dir.into()),
            ..JournalConfig::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.repair && self.dir.is_none() {
            let what = "repair is for a journal, and there is none";
            return Err(ConfigError(what.into()));
        }
        Ok(())
    }
}

/// When appended events are forced to the disk. In every mode they survive `kill -9`, because the
/// system has them; the modes differ in which events a power cut or a crash of the system takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Before an event is acknowledged: no acknowledged event is lost.
    #[default]
    Always,
    /// Once a second: events that were acknowledged in the last second may be lost.
    Interval,
    /// When the system decides, which is often after half a minute.
    Off,
}

names!(SyncMode: "always" Always, "interval" Interval, "off" Off);

/// An event without data has at least so many bytes on the wire: `id: 1795570197352-1`, `data: `, and
/// its ends.
pub(crate) const MIN_EVENT_BYTES: usize = 30;

/// A segment of the journal that has grown past this is followed by a new one. A start reads whole
/// segments, so it is what a start with a small history reads and checks, in well under a second.
pub(crate) const SEGMENT_BYTES: u64 = 32 * MIB as u64;

/// How long the journal waits with `--sync interval` before it syncs what was written: what a
/// power cut can take. A process that dies takes nothing, for the system has the bytes.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A last event that is further ahead of the clock than this when a journal is opened is reported:
/// then the clock is wrong, or was.
pub(crate) const WRONG_CLOCK: Duration = Duration::from_secs(86_400);

/// How often the journal reads its newest segment again because the file's time alone has changed.
/// Reading 32 MiB takes some 50 ms.
pub(crate) const UNSTABLE_READS: u32 = 16;

/// The shortest pause between two probes of a log that refuses events, while there are no publishers but
/// `/health` is requested.
pub(crate) const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How long `/health` waits for such a probe: less than one second, a common timeout of health checks.
pub(crate) const PROBE_WAIT: Duration = Duration::from_millis(500);

/// A log that has taken longer than this for one group of events is stuck, and so is every publisher.
pub(crate) const LOG_STUCK_AFTER: Duration = Duration::from_secs(10);
