//! The errors of a hub: why it refuses an event or a client.

use std::fmt;

use crate::wire::{Topic, TopicError};

/// The hub is closed: it accepts neither events nor clients any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is closing")
    }
}

impl std::error::Error for Closed {}

/// Why an event was not published. Then no client got it, and it is not in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The hub is closed.
    Closed,
    /// A retained event of the same topic already has this own id. For a publisher that
    /// repeats a request whose answer was lost, this means that the first request was
    /// successful.
    IdTaken {
        /// The id.
        id: String,
        /// The topic of both events; `None` if they have none.
        topic: Option<Topic>,
    },
    /// The log did not keep the event, for this reason.
    NotKept(String),
    /// The text given to [`Hub::publish_to`](super::Hub::publish_to) is not a topic.
    NoTopic(TopicError),
}

impl From<Closed> for PublishError {
    fn from(Closed: Closed) -> PublishError {
        PublishError::Closed
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Closed => Closed.fmt(f),
            PublishError::IdTaken { id, topic: None } => {
                write!(
                    f,
                    "already published: an event without a topic and with the id {id:?}"
                )
            }
            PublishError::IdTaken {
                id,
                topic: Some(topic),
            } => write!(
                f,
                "already published: an event of the topic {:?} with the id {id:?}",
                topic.as_str()
            ),
            PublishError::NotKept(why) => write!(f, "the event could not be kept: {why}"),
            PublishError::NoTopic(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The limit of clients is reached.
    Full {
        /// `Config::max_clients`.
        limit: usize,
    },
    /// A client with another [credential](super::Permit::new) has the requested id.
    NameTaken,
    /// The client's permit was revoked while the client was being registered.
    NotPermitted,
    /// The hub is closed.
    Closed,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeError::Full { limit } => {
                write!(f, "Too many connections: {limit} clients are the limit")
            }
            SubscribeError::NameTaken => {
                f.write_str("a client with another credential has this name")
            }
            SubscribeError::NotPermitted => f.write_str("the client is not allowed any more"),
            SubscribeError::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// Why an event for one client was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No client has this id, or it is a poll that is about to be answered.
    NoSuchClient,
    /// The queues of all clients together are at their limit, `Config::total_queues`.
    NoRoom,
    /// The hub is closed.
    Closed,
}

impl From<Closed> for SendError {
    fn from(Closed: Closed) -> SendError {
        SendError::Closed
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::NoSuchClient => f.write_str("no client has this id"),
            SendError::NoRoom => {
                f.write_str("as many bytes wait for all clients together as may (total-queues)")
            }
            SendError::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}
