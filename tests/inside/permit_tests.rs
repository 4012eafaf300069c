//! Tests of `hub/permit.rs`: which client may take a name, which clients end when the
//! rules change, and what an ended stream says.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::hub::{Hub, OnPresence, Subscribe, SubscribeError};
use crate::wire::{Event, Framing};

/// Rules that change as a test says.
#[derive(Clone, Default)]
struct Rules(Arc<State>);

#[derive(Default)]
struct State {
    is_closed: AtomicBool,
    forgotten: Mutex<HashSet<u64>>,
}

impl Rules {
    fn allow(&self, is_allowed: bool) {
        self.0.is_closed.store(!is_allowed, Ordering::SeqCst);
    }

    fn forget(&self, number: u64) {
        self.0.forgotten.lock().unwrap().insert(number);
    }
}

impl Issuer for State {
    fn allows(&self, _: u64, _: &Patterns) -> bool {
        !self.is_closed.load(Ordering::SeqCst)
    }

    fn knows(&self, number: u64) -> bool {
        !self.forgotten.lock().unwrap().contains(&number)
    }
}

/// A client named `me` with that token.
fn wish(rules: &Rules, token: u64) -> Subscribe {
    Subscribe {
        client_id: Some("me".parse().unwrap()),
        permit: Some(Permit::new(token).issued_by(rules.0.clone(), token)),
        ..Subscribe::default()
    }
}

#[test]
fn a_client_whose_permit_is_revoked_is_refused_and_a_poll_gets_no_events() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let on_presence = OnPresence::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let config = Config {
        on_presence,
        ..Config::default()
    };
    let (hub, rules) = (Hub::new(config).unwrap(), Rules::default());
    rules.allow(false);
    let refused = hub.subscribe(wish(&rules, 1)).map(drop);
    assert_eq!(refused, Err(SubscribeError::NotPermitted));
    let poll = hub.poll(wish(&rules, 1), Duration::from_secs(600)).unwrap();
    assert!(poll.messages.is_empty());
    assert_eq!((hub.clients(), hub.recheck()), (0, 0));
    // The client was refused: it has neither joined nor left.
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // A permit without rules stays.
    let forever = Subscribe {
        permit: Some(Permit::new(1)),
        ..Subscribe::default()
    };
    let stays = hub.subscribe(forever).unwrap();
    assert_eq!((hub.recheck(), hub.clients()), (0, 1));
    drop(stays);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn the_id_of_a_client_whose_token_was_removed_can_be_taken_by_any_client() {
    let (hub, rules) = (Hub::new(Config::default()).unwrap(), Rules::default());
    let held = hub.subscribe(wish(&rules, 1)).unwrap();
    let other = hub.subscribe(wish(&rules, 2)).map(drop);
    assert_eq!(other, Err(SubscribeError::NameTaken));
    // The stream goes on, because the rules still allow it.
    rules.forget(1);
    assert_eq!((hub.recheck(), hub.clients()), (0, 1));
    let taken = hub.subscribe(wish(&rules, 2)).unwrap();
    assert_eq!(
        hub.subscribe(wish(&rules, 1)).map(drop),
        Err(SubscribeError::NameTaken)
    );
    drop((held, taken));
}

#[test]
fn each_close_event_has_its_reason_no_id_and_a_fitting_retry() {
    // The `retry` of 20 ms says which one is a wait of the server's own, and which one is
    // the usual.
    let config = Config {
        retry: Duration::from_millis(20),
        ..Config::default()
    };
    let day = 86_400_000..=86_400_000;
    type End = fn(&Hub, &Rules);
    let rows: [(&str, End, std::ops::RangeInclusive<u64>); 4] = [
        (
            "replaced",
            |hub, rules| drop(hub.subscribe(wish(rules, 7)).unwrap()),
            day.clone(),
        ),
        ("kicked", |hub, _| assert!(hub.disconnect("me")), day),
        (
            "expired",
            |hub, rules| {
                rules.allow(false);
                assert_eq!(hub.recheck(), 1);
            },
            20..=40,
        ),
        ("closing", |hub, _| hub.close(), 20..=20),
    ];
    for framing in [Framing::Bare, Framing::Chunked] {
        for (reason, end, retry) in &rows {
            let (hub, rules) = (Hub::new(config.clone()).unwrap(), Rules::default());
            let wish = Subscribe {
                framing,
                ..wish(&rules, 7)
            };
            let mut subscription = hub.subscribe(wish).unwrap();
            drop(subscription.take_welcome());
            hub.publish(Event::new("the last")).unwrap();
            end(&hub, &rules);
            let mut bytes = Vec::new();
            let close_reason = subscription.write_to(&mut bytes);
            assert!(
                ["server_closing", reason].contains(&close_reason.name()),
                "{reason}"
            );
            let text = String::from_utf8(bytes).unwrap();
            let (_, last) = text.split_once("data: the last\n\n").expect(reason);
            let last = match framing {
                Framing::Bare => last.to_owned(),
                Framing::Chunked => {
                    let (head, rest) = last.trim_start().split_once("\r\n").unwrap();
                    let size = usize::from_str_radix(head, 16).unwrap();
                    assert_eq!(&rest[size..], "\r\n0\r\n\r\n", "{reason}");
                    rest[..size].to_owned()
                }
            };
            let told = last.split_once("retry: ").unwrap().1;
            let told: u64 = told.split_once('\n').unwrap().0.parse().unwrap();
            assert!(retry.contains(&told), "{reason}: {told}");
            let expected = format!(
                "event: system\nretry: {told}\ndata: {{\"type\":\"closed\",\"reason\":\"{reason}\"}}\n\n"
            );
            assert_eq!(last, expected);
        }
    }
}
