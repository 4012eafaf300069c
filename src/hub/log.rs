//! Where events become durable before any client gets them: what the hub asks of a log, and what the hub
//! does with one. `group_commit.rs` is how several publishers share one append.
//!
//! An event is kept as the message that clients read, its id line included, so that a replay after
//! a restart is the same bytes as one before it.
//!
//! In a build without a log (without the feature `journal`), `no_log.rs` stands in the place of this file.

mod group_commit;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use super::kept::Kept;
use super::state::{PendingEvents, Shared};
use super::{Closed, Hub, PublishError, Published, Record};
use crate::config::Config;
pub(super) use group_commit::GroupCommit;

/// What became of what one publisher brought.
type Outcome = Result<Vec<Published>, PublishError>;

/// Keeps events.
pub trait Log: Send + fmt::Debug {
    /// Makes these events, one or more, durable, in this order, all or none. Their ids rise, and are greater
    /// than all before them. Blocks for as long as the log's disk or network takes; one thread
    /// calls it at a time.
    ///
    /// How much `Ok` promises, and what it outlives, is for each log to say. A process that is
    /// killed in the middle may have kept the first few, of which then nobody was told.
    ///
    /// # Errors
    ///
    /// None of the events was kept: the disk is full, or broken, or the other end has gone. The
    /// log is as it was before, or will be before it takes anything else, so the caller may go on
    /// and call it again with these events or with others.
    fn append(&mut self, records: &[Arc<Record>]) -> io::Result<()>;

    /// Tries whether an append would succeed, after one has failed, and keeps nothing. It is called while
    /// there are no publishers, for callers of [`Hub::log_failure`], and may block as an append may.
    ///
    /// A log that cannot try it returns `Ok`, as the default does; then the next append shows whether the
    /// log works.
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
pub struct LogStats {
    /// Why it refuses events. `None`: the last attempt to write succeeded.
    pub failure: Option<String>,
    /// How many publishers it has refused.
    pub failures: u64,
}

impl Hub {
    /// A hub that goes on where `log` ended: `kept` is what the log had when it was opened. Each
    /// event is in the log before any client gets it.
    ///
    /// # Errors
    ///
    /// The configuration contradicts itself, no id can come after the last one of the log, or the
    /// fan-out thread cannot be started.
    pub fn with_log(config: Config, log: Box<dyn Log>, kept: Kept) -> io::Result<Hub> {
        config.check()?;
        // What is written down together is passed on together.
        let group_bytes = Hub::inbox_limit(&config);
        let group_commit = GroupCommit::new(log, group_bytes, config.report.clone());
        Hub::start(config, Some(Arc::new(group_commit)), kept)
    }

    /// Why the log refuses events, if it does. A log that has failed is tried again at most twice a
    /// second, by [`Log::probe`], so that asking is enough to find out that it works again. Waits for
    /// that for half a second at most. A log that has not answered a publisher for 10 seconds counts
    /// as one that refuses. A hub without a log refuses nothing.
    pub fn log_failure(&self) -> Option<String> {
        self.shared.group_commit.as_ref()?.failure()
    }

    /// The state of the log, as far as is known without trying it. `None`: the hub has no log.
    pub fn log_stats(&self) -> Option<LogStats> {
        Some(self.shared.group_commit.as_ref()?.stats())
    }
}

impl Shared {
    /// Gives a group of publishers' events to the log, and publishes them: durable, history, fan-out, answer.
    /// No other thread publishes meanwhile, because this one has the log.
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
        // Nothing is left to be kept if each event has an id that is taken.
        let failure = match records[..] {
            [] => None,
            _ => log.append(&records).err().map(|error| error.to_string()),
        };
        if let Some(failure) = &failure {
            // Also for a publisher whose id another one of the group has: no event has that id now.
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
    fn an_id_is_taken_only_by_an_event_that_is_kept() {
        let hub = Hub::with_log(Config::default(), Box::new(Full), Kept::nothing()).unwrap();
        let mine = || {
            vec![Arc::new(Record::new(
                &Event::new("").with_id("mine").unwrap(),
            ))]
        };
        // A publisher whose connection broke comes back while its first attempt still waits, and
        // both are written down together. Told that the id is taken, it would think all was well.
        for outcome in hub.shared.keep(&mut Full, vec![mine(), mine()]) {
            assert_eq!(outcome, Err(PublishError::NotKept("no room".into())));
        }
    }
}
