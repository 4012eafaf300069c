//! HTTP/1.1 on blocking sockets, a thread to a connection. It knows nothing of events: a handler
//! turns a [`Request`] into a [`Response`], and a response may take the socket over.
//!
//! Read `head.rs` and `body.rs` for the bytes that come in, `connection.rs` for the life of a
//! connection, `connections.rs` for all of them and their threads, `server.rs` for where they come from.
//! `table.rs` says which connection is evicted when all places are taken, `linger.rs` how a rejected client
//! gets its answer, and `forwarded.rs` which client speaks through a proxy.

mod body;
mod budget;
mod connection;
mod connections;
mod forwarded;
mod handler;
mod head;
mod linger;
#[cfg(test)]
#[path = "../../tests/inside/http_random.rs"]
mod random;
mod refusal;
mod request;
mod response;
mod server;
mod table;
mod target;

pub(crate) use budget::{Budget, NO_ROOM, Share};
pub(crate) use handler::Handler;
pub use head::{Head, HeadParser, RequestHead, Version};
pub use refusal::Refusal;
pub use request::Request;
pub use response::{FieldValueError, Response, Takeover};
pub(crate) use server::{Handle, Holders, HttpServer};
