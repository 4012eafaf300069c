//! The ground floor: bytes and values, and nothing that waits. No socket, no clock, no lock.

pub mod date;
mod decoder;
mod event;
mod frame;
mod id;
// Not a part of the public face: the program of this package, its tests and its benchmarks use it too.
#[doc(hidden)]
pub mod json;
mod network;
#[cfg(feature = "access")]
mod origin;
mod quoted;
#[cfg(feature = "access")]
mod token;
mod topic;

pub use decoder::{Decoder, Message, TooLarge};
pub use event::{Event, FieldError};
pub(crate) use event::{LONGEST_FIELD, encode_id};
pub(crate) use frame::Frame;
pub use frame::Framing;
pub use id::{EventId, InvalidId};
pub(crate) use id::{FIRST_NUMBERS, Ids};
pub(crate) use network::RemoteAddr;
pub use network::{Network, NetworkError};
#[cfg(feature = "access")]
pub use origin::{InvalidOrigin, Origin};
pub(crate) use quoted::Quoted;
#[cfg(feature = "access")]
pub use token::{InvalidToken, Token};
pub use topic::{Pattern, Patterns, Topic, TopicError};
