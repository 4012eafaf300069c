//! The ground floor: bytes and values, and nothing that waits. No socket, no clock, no lock.

pub mod date;
mod decoder;
mod event;
mod frame;
mod id;
pub mod json;
mod network;
mod origin;
mod quoted;
mod token;
mod topic;

pub use decoder::{Decoder, Message, TooLarge};
pub use event::{Event, FieldError};
pub(crate) use event::{LONGEST_FIELD, encode_id};
pub(crate) use frame::Frame;
pub use frame::Framing;
pub use id::{EventId, InvalidId};
pub(crate) use id::{FIRST_NUMBERS, Ids};
pub(crate) use network::Whereabouts;
pub use network::{Network, NetworkError};
pub use origin::{InvalidOrigin, Origin};
pub(crate) use quoted::Quoted;
pub use token::{InvalidToken, Token};
pub use topic::{Pattern, Patterns, Topic, TopicError};
