//! Makes events durable before any client gets them: the trait [`Log`], and how the hub
//! uses it. In `group_commit.rs`, several publishers share one append.
//!
//! An event is kept as the message that clients read, including the line of its id. A
//! replay after a restart therefore sends the same bytes as a replay before it.
//!
//! Without the feature `journal` there is no log, and `no_log.rs` replaces this file.

mod group_commit;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use super::kept::Kept;
use super::state::{PendingEvents, Shared};
use super::{Closed, Hub, PublishError, Published, Record};
use crate::config::Config;
pub(super) use group_commit::GroupCommit;

/// The result of one publisher's request.
type Outcome = Result<Vec<Published>, PublishError>;

/// A durable, append-only sequence of events. [`Journal`](crate::store::Journal) is one.
pub trait Log: Send + fmt::Debug {
    /// Makes these events durable, in this order, all or none of them. There is at least
    /// one; their ids rise, and are greater than all ids before. Blocks for as long as
    /// the disk or network takes. Only one thread calls it at a time.
    ///
    /// Each log documents what `Ok` promises and what it survives. If the process is
    /// killed during the call, the first few events may have been kept, although no
    /// publisher was told so.
    ///
    /// # Errors
    ///
    /// None of the events was kept, for example because the disk is full. The log is in
    /// its state before the call, or returns to it before it accepts other events. So the
    /// caller may call it again, with these events or with others.
    fn append(&mut self, records: &[Arc<Record>]) -> io::Result<()>;

    /// Tries whether an append would succeed, without keeping anything. Called after an
    /// append has failed, on behalf of [`Hub::log_failure`]. May block as an append may.
    ///
    /// A log that cannot try returns `Ok`, as the default implementation does; then the
    /// next append shows whether the log works.
    ///
    /// # Errors
    ///
    /// An append would fail, for this reason.
    fn probe(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The state of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Why the log refuses events. `None`: the last append or probe succeeded.
    pub failure: Option<String>,
    /// How many publishers got an error because the log had failed.
    pub failures: u64,
}

impl Hub {
    /// A hub that continues where `log` ends. `kept` has the latest events of the log.
    /// Each new event is in the log before any client gets it.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, no id can come after the last one of the
    /// log, or the fan-out thread cannot be started.
    pub fn with_log(config: Config, log: Box<dyn Log>, kept: Kept) -> io::Result<Hub> {
        config.check()?;
        // A group is published as one batch.
        let group_bytes = Hub::inbox_limit(&config);
        let group_commit = GroupCommit::new(log, group_bytes, config.report.clone());
        Hub::start(config, Some(Arc::new(group_commit)), kept)
    }

    /// Returns why the log refuses events, if it does. After a failure this call tries
    /// the log again ([`Log::probe`]), at most twice per second, so that repeated calls
    /// notice when the log works again. Blocks for at most 0.5 s. A log that has not
    /// returned from an append for 10 s counts as one that refuses. Without a log the
    /// result is `None`.
    pub fn log_failure(&self) -> Option<String> {
        self.shared.group_commit.as_ref()?.failure()
    }

    /// The last known state of the log; does not try it. `None`: the hub has no log.
    pub fn log_stats(&self) -> Option<LogStats> {
        Some(self.shared.group_commit.as_ref()?.stats())
    }
}

impl Shared {
    /// Appends the records of a group of publishers to the log, and publishes them. The
    /// order is: durable, history, inbox of the fan-out, answer. Returns an outcome per
    /// publisher.
    ///
    /// The hub's lock is taken twice: to assign the ids, and to add the records to the
    /// history. It is not held while the log appends. No other thread publishes between
    /// the two, because only the owner of the log publishes; so the assigned ordinals
    /// stay right.
    pub(super) fn keep(&self, log: &mut dyn Log, group: Vec<Vec<Arc<Record>>>) -> Vec<Outcome> {
        let mut state = match self.state_with_room() {
            Ok(state) => state,
            Err(Closed) => {
                return vec![Err(PublishError::Closed); group.len()];
            }
        };
        let mut pending = PendingEvents::default();
        let mut placed: Vec<_> = group
            .into_iter()
            .map(|records| state.assign_ids(records, &mut pending))
            .collect();
        drop(state);
        let records: Vec<_> = placed.iter().flatten().flatten().cloned().collect();
        // If every publisher's own id is taken, there is nothing to append.
        let failure = match records[..] {
            [] => None,
            _ => log.append(&records).err().map(|error| error.to_string()),
        };
        if let Some(failure) = &failure {
            // Also the publishers whose own id was taken by another publisher of the
            // group: that event is not kept, so the id is free, and "already published"
            // would be wrong.
            placed.fill_with(|| Err(PublishError::NotKept(failure.clone())));
        }
        let mut state = self.state();
        let accept = |records: Result<Vec<_>, _>| Ok(state.commit(&records?));
        let outcomes = placed.into_iter().map(accept).collect();
        self.wake_fan_out(state);
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::Event;

    use super::*;

    /// A log on a disk that is full.
    #[derive(Debug)]
    struct Full;

    impl Log for Full {
        fn append(&mut self, _: &[Arc<Record>]) -> io::Result<()> {
            Err(io::Error::other("no room"))
        }
    }

    #[test]
    fn an_own_id_is_taken_only_by_an_event_that_is_kept() {
        let hub = Hub::with_log(Config::default(), Box::new(Full), Kept::nothing()).unwrap();
        let mine = || {
            vec![Arc::new(Record::new(
                &Event::new("").with_id("mine").unwrap(),
            ))]
        };
        // A publisher whose connection broke sends its request again while its first
        // attempt still waits, and both are written down together. Told that the id is
        // taken, it would think all was well.
        for outcome in hub.shared.keep(&mut Full, vec![mine(), mine()]) {
            assert_eq!(outcome, Err(PublishError::NotKept("no room".into())));
        }
    }
}
