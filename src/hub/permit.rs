//! The permit of a client: the credential to which its id belongs, and the rules that may
//! end its stream.
//!
//! A client keeps its permit for as long as it is connected. The hub asks the permit in
//! three places: whether another client may take the id (`Shared::state_for_client`),
//! whether a client that has just been registered may stay (`Hub::subscribe`, and a poll
//! before each wait), and whether all clients may stay after the rules have changed
//! (`Hub::recheck`). It is not asked for single events, so delivery costs nothing more.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::lane::Lane;
use super::{CloseReason, Hub};
use crate::config::SLICE_CLIENTS;
use crate::wire::Patterns;

/// The right of a client to its stream, as the hub sees it.
#[derive(Clone)]
pub struct Permit {
    /// A number that is equal for two clients with the same credential: a token, a user
    /// or an address.
    identity: u64,
    /// The rules that issued the permit, and the number by which they identify it.
    /// `None`: the permit is always valid.
    issuer: Option<(u64, Arc<dyn Issuer>)>,
    /// The user of the client. `None`: the credential names none.
    user: Option<Arc<str>>,
    /// When the permit ends. `None`: it has no end of its own.
    end: Option<Instant>,
}

/// The rules that issue permits. They may change while clients are connected.
///
/// LOCK: `knows` is called under the hub's lock. Therefore neither method may wait,
/// except for another thread that replaces a pointer.
pub(crate) trait Issuer: Send + Sync {
    /// Whether a client with this permit may subscribe to these patterns now.
    fn allows(&self, permit: u64, patterns: &Patterns) -> bool;

    /// Whether the credential of this permit still exists, so that a client can present
    /// it.
    fn knows(&self, permit: u64) -> bool;
}

impl Permit {
    /// A permit that is always valid. `identity` is a number for the credential, such as
    /// a hash: only a client with an equal number can take over a client id that is in
    /// use.
    pub fn new(identity: u64) -> Permit {
        Permit {
            identity,
            issuer: None,
            user: None,
            end: None,
        }
    }

    /// The same permit for a client of this user. `Client::user` shows the user, and
    /// [`Hub::disconnect_user`](super::Hub::disconnect_user) ends all streams of a user.
    pub fn of_user(self, user: impl Into<Arc<str>>) -> Permit {
        Permit {
            user: Some(user.into()),
            ..self
        }
    }

    /// The same permit, which ends at `end`. A stream with it is closed then, as
    /// [`Expired`](super::CloseReason::Expired), and a poll answers at the latest then.
    pub fn until(self, end: Instant) -> Permit {
        Permit {
            end: Some(end),
            ..self
        }
    }

    /// The user of the client.
    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// When the permit ends.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// Whether a client with this permit may subscribe to these patterns now.
    pub(super) fn allows(&self, patterns: &Patterns) -> bool {
        let issuer = self.issuer.as_ref();
        issuer.is_none_or(|(number, issuer)| issuer.allows(*number, patterns))
    }

    /// Whether a client with this permit may take over the id of a client with the permit
    /// `of_holder`: if both have the same credential, or if the credential of the other
    /// client does not exist any more.
    pub(super) fn may_take_name(permit: Option<&Permit>, of_holder: Option<&Permit>) -> bool {
        let identity = |permit: &Permit| permit.identity;
        let issuer = of_holder.and_then(|holder| holder.issuer.as_ref());
        permit.map(identity) == of_holder.map(identity)
            || issuer.is_some_and(|(number, issuer)| !issuer.knows(*number))
    }
}

impl fmt::Debug for Permit {
    /// Leaves out the numbers, because they are derived from secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

#[cfg(feature = "access")]
impl Permit {
    /// The same permit, valid for as long as `issuer` allows it. The issuer identifies it
    /// by `number`.
    pub(crate) fn issued_by(self, issuer: Arc<dyn Issuer>, number: u64) -> Permit {
        Permit {
            issuer: Some((number, issuer)),
            ..self
        }
    }
}

#[cfg(feature = "access")]
impl Hub {
    /// Asks all permits again after the rules have changed, and ends the streams and
    /// waiting polls that are not permitted any more, with
    /// [`Expired`](super::CloseReason::Expired). Returns their number.
    ///
    /// A client that is being registered at the same time may be missed here.
    /// [`subscribe`](Self::subscribe) asks for it after the registration.
    pub(crate) fn recheck(&self) -> usize {
        self.close_where(CloseReason::Expired, |lane| !lane.is_permitted())
    }
}

impl Hub {
    /// Ends the streams and waiting polls of a user, with
    /// [`Kicked`](super::CloseReason::Kicked). Returns their number. A client that is
    /// being registered at the same time may be missed.
    pub fn disconnect_user(&self, user: &str) -> usize {
        self.close_where(CloseReason::Kicked, |lane| {
            lane.user().is_some_and(|own| **own == *user)
        })
    }

    /// Closes the clients for which `is_over` returns true, and returns their number.
    fn close_where(&self, close_reason: CloseReason, is_over: impl Fn(&Lane) -> bool) -> usize {
        let lanes: Vec<_> = self.shared.state().registry.lanes().cloned().collect();
        // LOCK: not held while the lanes are asked. To ask 10,000 permits takes 0.1 s.
        let over = lanes.into_iter().filter(|lane| is_over(lane));
        let over: Vec<_> = over.collect();
        let mut count = 0;
        // LIMIT: the lock is held for a few clients at a time.
        for some in over.chunks(SLICE_CLIENTS) {
            let mut state = self.shared.state();
            for lane in some {
                // False: the client has left meanwhile, or another client has its id.
                count += usize::from(state.close_client(lane, close_reason));
            }
            self.shared.wake_fan_out(state);
        }
        count
    }
}

#[cfg(all(test, feature = "access"))]
#[path = "../../tests/inside/permit_tests.rs"]
mod tests;
