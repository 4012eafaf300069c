//! Turns what a request is about to do into the right that it needs. `mod.rs` makes the
//! [`Action`] of a request, and `access.rs` and `exposure.rs` decide about it.
//!
//! | action | right | on |
//! |---|---|---|
//! | publish to a topic | publish | the topic |
//! | publish without a topic | publish | `*` |
//! | subscribe | subscribe | each pattern; without patterns, any topic |
//! | send to a client, end its stream | publish | `*` |
//! | end the streams of a user | publish | `*` |
//! | see the statistics | subscribe | `*` |
//! | see the clients | publish; without a token, subscribe too | `*` |

use crate::http::Request;
use crate::wire::{Patterns, Topic};

/// What a request is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// To publish an event to this topic, or, without a topic, to every client.
    Publish(Option<&'a Topic>),
    /// To receive the events of these patterns, and the events without a topic, by a
    /// stream or a poll.
    Subscribe(&'a Patterns),
    /// To send an event to the client with this id, or to end its stream. Requires the
    /// right to publish to `*`.
    Client(&'a str),
    /// To end all streams and polls of the user with this name. Requires the right to
    /// publish to `*`.
    User(&'a str),
    /// To see which topics there are, and how many clients subscribe to them (`/stats`,
    /// `/metrics`). Requires the right to subscribe to `*`.
    Stats,
    /// To see the clients and their addresses (`/stats?clients=1`). Requires the right to
    /// publish to `*`.
    Clients,
}

/// The two rights. A client has each of them on some topics. The number of a variant is
/// an index into arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Publish,
    Subscribe,
}

/// The parts of a request that may carry a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// `Authorization: Bearer`, or a cookie.
    Header,
    /// `Authorization: Bearer`, a cookie, or `?token=` in the query. Only a stream
    /// accepts a token there, because an EventSource can set no header. URLs are logged
    /// in more places than headers, so no other request should carry a secret in its URL.
    HeaderOrQuery,
}

impl Action<'_> {
    /// The right that the action needs. `covers` in `access/tokens.rs` has the topics.
    pub(super) fn verb(&self) -> Verb {
        match self {
            Action::Publish(_) | Action::Client(_) | Action::User(_) | Action::Clients => {
                Verb::Publish
            }
            Action::Subscribe(_) | Action::Stats => Verb::Subscribe,
        }
    }

    /// Whether the action is more than reading, so that a page of another site may not do
    /// it.
    ///
    /// An action that needs the right to publish is, whatever its method is:
    /// `GET /stats?clients=1` shows addresses. A subscription with a client id is,
    /// because the client receives the events that are meant for that id, and can end the
    /// stream that has the id now.
    pub(super) fn is_more_than_reading(&self, request: &Request) -> bool {
        // SPEC: RFC 9110, 9.2.1: the safe methods are GET, HEAD, OPTIONS and TRACE. No
        // endpoint answers TRACE.
        let is_safe = matches!(request.method(), "GET" | "HEAD" | "OPTIONS");
        !is_safe || self.verb() == Verb::Publish || self.requested_id(request).is_some()
    }

    /// The client id that a subscription asks for.
    fn requested_id<'r>(&self, request: &'r Request) -> Option<&'r str> {
        let id = request.query("client_id");
        id.filter(|_| matches!(self, Action::Subscribe(_)))
    }

    /// Describes the action in an error message, as a verb that can follow "may" or "to".
    pub(super) fn describe(&self, request: &Request) -> String {
        match self {
            Action::Publish(Some(topic)) => format!("publish to {:?}", topic.as_str()),
            Action::Publish(None) => "publish to everybody".into(),
            Action::Subscribe(patterns) => {
                let mut text = String::from("subscribe");
                for (index, pattern) in patterns.iter().enumerate() {
                    let before = if index == 0 { " to" } else { "," };
                    text += &format!("{before} {:?}", pattern.to_string());
                }
                if let Some(id) = self.requested_id(request) {
                    text += &format!(" as client_id {id:?}");
                }
                text
            }
            Action::Client(id) => format!("publish to the client {id:?} or end its stream"),
            Action::User(user) => format!("end the streams of the user {user:?}"),
            Action::Stats => "see the statistics (requires the right to subscribe to *)".into(),
            Action::Clients => "see the clients (requires the right to publish to *)".into(),
        }
    }
}
