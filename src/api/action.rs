//! What a request is about to do, and what it needs for that.

use crate::http::Request;
use crate::wire::{Patterns, Topic};

/// What a request is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// To publish: to this topic, or without a topic to every client.
    Publish(Option<&'a Topic>),
    /// To get the events of these patterns, and those without a topic, by a stream or a poll.
    Subscribe(&'a Patterns),
    /// To send an event to the client of this name, or to end its stream. Requires the right to publish
    /// to `*`.
    Client(&'a str),
    /// To see which topics there are, and how many clients subscribe to them (`/stats`, `/metrics`). Requires
    /// the right to subscribe to `*`.
    Stats,
    /// To see the clients and their addresses (`/stats?clients=1`). Requires the right to publish to `*`.
    Clients,
}

/// The two rights, each on some topics.
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
    /// The same, or the query. The query is for streams alone: an EventSource can set no header, and a URL is
    /// logged in more places than a header.
    HeaderOrQuery,
}

impl Action<'_> {
    /// The right that the action needs.
    pub(super) fn verb(&self) -> Verb {
        match self {
            Action::Publish(_) | Action::Client(_) | Action::Clients => Verb::Publish,
            Action::Subscribe(_) | Action::Stats => Verb::Subscribe,
        }
    }

    /// Whether a page of another site may not do this. An action that needs the right to publish is more than
    /// reading, whatever its method is. A client that takes a name gets what is sent to that name.
    pub(super) fn is_more_than_reading(&self, request: &Request) -> bool {
        // SPEC: RFC 9110, 9.2.1: GET, HEAD and OPTIONS are safe. There is no TRACE here.
        let is_safe = matches!(request.method(), "GET" | "HEAD" | "OPTIONS");
        !is_safe || self.verb() == Verb::Publish || self.name_taken(request).is_some()
    }

    /// The name that a client asks for.
    fn name_taken<'r>(&self, request: &'r Request) -> Option<&'r str> {
        let name = request.query("client_id");
        name.filter(|_| matches!(self, Action::Subscribe(_)))
    }

    /// The action in an error message, after "may" or "to".
    pub(super) fn describe(&self, request: &Request) -> String {
        match self {
            Action::Publish(Some(topic)) => format!("publish to {:?}", topic.as_str()),
            Action::Publish(None) => "publish to everybody".into(),
            Action::Subscribe(patterns) => {
                let mut text = String::from("subscribe");
                for (place, pattern) in patterns.iter().enumerate() {
                    let before = if place == 0 { " to" } else { "," };
                    text += &format!("{before} {:?}", pattern.to_string());
                }
                if let Some(name) = self.name_taken(request) {
                    text += &format!(" as client_id {name:?}");
                }
                text
            }
            Action::Client(name) => format!("publish to the client {name:?} or end its stream"),
            Action::Stats => "see the statistics, as a client that may subscribe to * may".into(),
            Action::Clients => "see the clients, as a client that may publish to * may".into(),
        }
    }
}
