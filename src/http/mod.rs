//! HTTP/1.1 on blocking sockets, a thread to a connection. It knows nothing of events: a handler
//! turns a [`Request`] into a [`Response`], and a response may take the socket over.
//!
//! Read `head.rs` and `body.rs` for the bytes that come in, `connection.rs` for the life of a
//! connection, `reception.rs` for who serves them, `server.rs` for where they come from. `places.rs` is
//! who makes room when all places are taken, `doorstep.rs` how those who get none are told so, and
//! `forwarded.rs` who it is that speaks through a proxy.

mod body;
mod budget;
mod connection;
mod doorstep;
mod forwarded;
mod handler;
mod head;
mod places;
#[cfg(test)]
#[path = "../../tests/inside/http_random.rs"]
mod random;
mod reception;
mod refusal;
mod request;
mod response;
mod server;
mod target;

pub(crate) use budget::{Budget, NO_ROOM, Share};
pub use handler::Handler;
pub use head::{BodyLength, Head, HeadParser, RequestHead, Version};
pub use refusal::Refusal;
pub use request::Request;
pub use response::{Response, Takeover};
pub(crate) use server::Holders;
pub use server::{Handle, Server};
