//! The lowest layer: bytes and values. It has no socket, no clock and no lock, so nothing
//! in it waits, and every function can be tested with text alone. All other modules use
//! it, and it uses none of them.
//!
//! | file | it turns | into |
//! |---|---|---|
//! | `event.rs` | an event | the bytes of an event stream |
//! | `decoder.rs` | the bytes of an event stream | events, as a browser does |
//! | `frame.rs` | messages | chunks of HTTP/1.1 |
//! | `id.rs` | the time and a counter | ids that always grow |
//! | `topic.rs` | text | topics and patterns, and decides which pattern matches |
//! | `json.rs` | JSON text | a checked, compact text |
//! | `date.rs` | a time | the two formats on the wire |
//! | `network.rs` | text | networks of IP addresses |
//! | `origin.rs`, `token.rs` | text | the origin of a page, a secret |
//! | `jwt.rs` | a signed token, and the keys | claims, or the reason for a refusal |
//! | `sha256.rs`, `hmac.rs`, `base64url.rs` | bytes | what `jwt.rs` needs |
//! | `quoted.rs` | a peer's text | a quote for a log line |

#[cfg(feature = "access")]
mod base64url;
pub mod date;
mod decoder;
mod event;
mod frame;
#[cfg(feature = "access")]
mod hmac;
mod id;
// Public only for the program, the tests and the benchmarks of this package.
#[doc(hidden)]
pub mod json;
#[cfg(feature = "access")]
pub mod jwt;
mod network;
#[cfg(feature = "access")]
mod origin;
mod quoted;
// Public only for the demo of the program.
#[cfg(any(feature = "access", feature = "demo"))]
#[doc(hidden)]
pub mod sha256;
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
