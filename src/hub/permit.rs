//! What lets a client in: the credential that its name belongs to, and the rules that may end its stream.
//!
//! A client keeps its permit as long as it is connected. The hub asks three questions, each in one place:
//! whether another client may take the name (`Shared::state_for_client`), whether a client that has just been
//! registered may stay (`Hub::subscribe`, and a poll before each wait), and whether all clients may stay after
//! a change of the rules (`Hub::recheck`). No question is asked for an event.

use std::fmt;
use std::sync::Arc;

use crate::wire::Patterns;

/// What lets a client in.
#[derive(Clone)]
pub struct Permit {
    /// Equal for two clients with the same credential, such as a token, a user or an address.
    identity: u64,
    /// The rules that issued the permit, and the number by which they know it. `None`: the permit is valid
    /// for ever.
    issuer: Option<(u64, Arc<dyn Issuer>)>,
}

/// The rules that issue permits, and may change while clients are connected.
///
/// LOCK: `knows` is called under the hub's lock, so neither method waits for anything but the change of a
/// pointer.
pub(crate) trait Issuer: Send + Sync {
    /// Whether a client with this permit would be let in now to get these patterns.
    fn allows(&self, permit: u64, patterns: &Patterns) -> bool;

    /// Whether a client can still present the credential of this permit.
    fn knows(&self, permit: u64) -> bool;
}

impl Permit {
    /// A permit that is valid for ever. `identity` is a number for the credential, such as a hash: a name that
    /// is in use goes only to a client with an equal number.
    pub fn new(identity: u64) -> Permit {
        Permit {
            identity,
            issuer: None,
        }
    }

    /// Whether a client with this permit may get these patterns now.
    pub(super) fn allows(&self, patterns: &Patterns) -> bool {
        let issuer = self.issuer.as_ref();
        issuer.is_none_or(|(number, issuer)| issuer.allows(*number, patterns))
    }

    /// Whether a client with this permit may take the name of a client with the permit `of_holder`: both have
    /// the same credential, or no client can present the holder's credential any more.
    pub(super) fn may_take_name(permit: Option<&Permit>, of_holder: Option<&Permit>) -> bool {
        let identity = |permit: &Permit| permit.identity;
        let issuer = of_holder.and_then(|holder| holder.issuer.as_ref());
        permit.map(identity) == of_holder.map(identity)
            || issuer.is_some_and(|(number, issuer)| !issuer.knows(*number))
    }
}

impl fmt::Debug for Permit {
    /// Without the numbers, which stand for secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

#[cfg(feature = "access")]
impl Permit {
    /// The same permit, valid as long as `issuer` allows it. The issuer knows it by `number`.
    pub(crate) fn issued_by(self, issuer: Arc<dyn Issuer>, number: u64) -> Permit {
        Permit {
            issuer: Some((number, issuer)),
            ..self
        }
    }
}

#[cfg(feature = "access")]
impl super::Hub {
    /// Asks all permits again after the rules have changed. The streams, and the waiting polls, that are not
    /// permitted any more end as [`Expired`](super::CloseReason::Expired). Returns their number.
    ///
    /// A client that subscribes at the same time is not seen here. [`subscribe`](Self::subscribe) asks for it.
    pub(crate) fn recheck(&self) -> usize {
        let lanes: Vec<_> = self.shared.state().registry.lanes().cloned().collect();
        // LOCK: not held while the permits are asked, which takes a tenth of a second for 10,000 clients.
        let over = lanes.into_iter().filter(|lane| !lane.is_permitted());
        let over: Vec<_> = over.collect();
        let mut count = 0;
        // LIMIT: the lock is held for some of them at a time.
        for some in over.chunks(crate::config::SLICE_CLIENTS) {
            let mut state = self.shared.state();
            for lane in some {
                // False: the client has left meanwhile, or another client has its name.
                count += usize::from(state.close_client(lane, super::CloseReason::Expired));
            }
            self.shared.wake_fan_out(state);
        }
        count
    }
}

#[cfg(all(test, feature = "access"))]
#[path = "../../tests/inside/permit_tests.rs"]
mod tests;
