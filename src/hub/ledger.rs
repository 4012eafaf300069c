//! Where publishers wait for the log together: whoever finds it free writes down what all of them
//! have brought, so that ten publishers share one `fsync` (*group commit*).
//!
//! There is no thread for it and nothing to tune: a publisher alone writes at once, and while one
//! writes the others gather.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::log::Log;
use super::{Draft, PublishError, Published};

/// What became of what one publisher brought.
pub(super) type Outcome = Result<Vec<Published>, PublishError>;

#[derive(Debug)]
pub(super) struct Ledger {
    /// LOCK: guards who waits and what became of it, and hands out the log. Whoever writes has
    /// taken the log and let go of the lock: nobody waits for a disk under it.
    desk: Mutex<Desk>,
    /// A batch has been written, or the log is put away. Publishers wait for it.
    turn: Condvar,
}

#[derive(Debug)]
struct Desk {
    log: Place,
    next_ticket: u64,
    /// LIMIT: one for each thread that publishes.
    waiting: Vec<(u64, Vec<Draft>)>,
    outcomes: HashMap<u64, Outcome>,
}

/// Where the log is. There is one, so there cannot be two who write.
#[derive(Debug)]
enum Place {
    Here(Box<dyn Log>),
    /// Somebody writes with it.
    Out,
    /// The hub is closed.
    PutAway,
}

impl Ledger {
    pub(super) fn new(log: Box<dyn Log>) -> Ledger {
        Ledger {
            desk: Mutex::new(Desk {
                log: Place::Here(log),
                next_ticket: 0,
                waiting: Vec::new(),
                outcomes: HashMap::new(),
            }),
            turn: Condvar::new(),
        }
    }

    /// Poisoning is passed over: no code of others runs under this lock.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `drafts` are written down, by this thread or by another. `write` is for all that
    /// wait: it answers for each of them.
    pub(super) fn publish(
        &self,
        drafts: Vec<Draft>,
        write: impl Fn(&mut dyn Log, Vec<Vec<Draft>>) -> Vec<Outcome>,
    ) -> Outcome {
        let mut desk = self.desk();
        let ticket = desk.next_ticket;
        desk.next_ticket += 1;
        desk.waiting.push((ticket, drafts));
        loop {
            if let Some(outcome) = desk.outcomes.remove(&ticket) {
                return outcome;
            }
            desk = match std::mem::replace(&mut desk.log, Place::Out) {
                Place::Here(log) => self.write_down(desk, log, &write),
                Place::Out => self.turn.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Place::PutAway => {
                    desk.log = Place::PutAway;
                    return Err(PublishError::Closed);
                }
            };
        }
    }

    /// Writes with the log that was taken from the desk, without the lock.
    fn write_down<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        mut log: Box<dyn Log>,
        write: &impl Fn(&mut dyn Log, Vec<Vec<Draft>>) -> Vec<Outcome>,
    ) -> MutexGuard<'a, Desk> {
        let (tickets, drafts): (Vec<u64>, Vec<_>) =
            std::mem::take(&mut desk.waiting).into_iter().unzip();
        drop(desk);
        // A log may be anybody's. One that panics must not leave the others waiting for ever.
        let written = catch_unwind(AssertUnwindSafe(|| write(&mut *log, drafts)));
        let outcomes = written.unwrap_or_else(|_| {
            let panicked = PublishError::NotKept("the log panicked".into());
            vec![Err(panicked); tickets.len()]
        });
        let mut desk = self.desk();
        desk.log = Place::Here(log);
        desk.outcomes.extend(tickets.into_iter().zip(outcomes));
        self.turn.notify_all();
        desk
    }

    /// Lets go of the log, once nobody writes with it. Nothing is published any more.
    pub(super) fn put_away(&self) {
        let is_out = |desk: &mut Desk| matches!(desk.log, Place::Out);
        let mut desk = self
            .turn
            .wait_while(self.desk(), is_out)
            .unwrap_or_else(PoisonError::into_inner);
        let log = std::mem::replace(&mut desk.log, Place::PutAway);
        self.turn.notify_all();
        // ORDER: behind the lock: to drop a log may wait for its disk.
        drop(desk);
        drop(log);
    }
}
