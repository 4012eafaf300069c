//! Calls back into the embedding program when a client joins or leaves.

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::CloseReason;
use super::lane::Lane;
use crate::wire::Patterns;

/// A client that has joined or left.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Presence<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// The client's own address, if it is known. It is never the address of a trusted
    /// proxy.
    pub address: Option<IpAddr>,
    /// The patterns that the client subscribes to.
    pub patterns: &'a Patterns,
    /// Why the stream ended. `None`: the client has joined.
    pub left: Option<CloseReason>,
}

type Callback = dyn Fn(&Presence<'_>) + Send + Sync;

/// The function to call when a stream begins and when it ends. By default there is none.
/// A clone shares the function.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering::Relaxed}};
/// use tiny_sse::{Config, Hub, OnPresence, Subscribe};
///
/// let left = Arc::new(AtomicUsize::new(0));
/// let counter = Arc::clone(&left);
/// let on_presence = OnPresence::new(move |presence| {
///     counter.fetch_add(usize::from(presence.left.is_some()), Relaxed);
/// });
/// let hub = Hub::new(Config { on_presence, ..Config::default() })?;
/// drop(hub.subscribe(Subscribe::default())?);
/// assert_eq!(left.load(Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct OnPresence(Option<Arc<Callback>>);

impl OnPresence {
    /// Calls `callback` once when a stream has been registered, and once when it has
    /// ended. It is not called for polls.
    ///
    /// The callback runs on the thread that subscribes or that writes the stream. No lock
    /// of the hub is held, so the callback may publish. Only this client waits for it. A
    /// panic in the callback ends no stream.
    pub fn new(callback: impl Fn(&Presence<'_>) + Send + Sync + 'static) -> OnPresence {
        OnPresence(Some(Arc::new(callback)))
    }

    pub(super) fn tell(&self, lane: &Lane, left: Option<CloseReason>) {
        if let Some(callback) = &self.0 {
            let presence = Presence {
                client_id: &lane.client_id,
                address: lane.address(),
                patterns: &lane.patterns,
                left,
            };
            // A panic is a bug of the callback. The panic hook has already reported it.
            let _ = catch_unwind(AssertUnwindSafe(|| callback(&presence)));
        }
    }
}

impl fmt::Debug for OnPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnPresence")
            .field(&self.0.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::Config;
    use crate::hub::{ClientId, Hub, Subscribe};
    use crate::wire::Event;

    #[test]
    fn the_callback_is_called_once_at_each_beginning_and_end_and_may_publish_and_panic() {
        let (told, calls) = channel();
        let (hubs, hub) = channel::<Hub>();
        let hub_of_callback = std::sync::Mutex::new((hub, None));
        let on_presence = OnPresence::new(move |presence| {
            let mut place = hub_of_callback.lock().unwrap();
            let (hubs, known) = &mut *place;
            let hub = known.get_or_insert_with(|| hubs.recv().unwrap()).clone();
            drop(place);
            hub.publish(Event::new("presence")).unwrap();
            let _ = told.send((presence.client_id.to_owned(), presence.left));
            assert_ne!(presence.client_id, "panics");
        });
        let config = Config {
            on_presence,
            ..Config::default()
        };
        let hub = Hub::new(config).unwrap();
        hubs.send(hub.clone()).unwrap();
        let wish = |name: &str| Subscribe {
            client_id: Some(name.parse::<ClientId>().unwrap()),
            ..Subscribe::default()
        };
        drop(hub.subscribe(wish("panics")).unwrap());
        let first = hub.subscribe(wish("a")).unwrap();
        let second = hub.subscribe(wish("a")).unwrap();
        assert_eq!(first.write_to(&mut Vec::new()), CloseReason::Replaced);
        assert!(hub.disconnect("a"));
        assert_eq!(second.write_to(&mut Vec::new()), CloseReason::Kicked);
        let expected = [
            ("panics", None),
            ("panics", Some(CloseReason::HungUp)),
            ("a", None),
            ("a", None),
            ("a", Some(CloseReason::Replaced)),
            ("a", Some(CloseReason::Kicked)),
        ];
        let calls: Vec<_> = calls.try_iter().collect();
        let calls: Vec<_> = calls.iter().map(|(id, left)| (&**id, *left)).collect();
        assert_eq!(calls, expected);
    }
}
