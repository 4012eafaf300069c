//! HTTP/1.1 on blocking sockets: one thread per connection, no knowledge of events. A handler turns a [`Request`] into a
//! [`Response`], and a response may take over the socket as a stream.
//!
//! # Reading order
//!
//! `head.rs` (with `target.rs`) and `body.rs` turn bytes into a request, without a socket. `connection.rs` serves one
//! connection; `connections.rs` admits all of them and owns their threads. `server.rs` accepts them and shuts the server
//! down. `table.rs` decides which connection is evicted, `linger.rs` delivers the answers to rejected clients,
//! `budget.rs` bounds memory, and `forwarded.rs` finds the client behind a proxy.
//!
//! # One request, from `accept` to its answer
//!
//! The durations are the defaults of `config.rs`. The threads are named as in a debugger.
//!
//! | | step | function | thread | time limit |
//! |---|---|---|---|---|
//! | 1 | The system accepts the connection. | `accept_loop`, `server.rs` | `accept` | none; after an error it pauses for 10 ms to 1 s |
//! | 2 | The connection gets a slot, or a 503. It may evict another one. | `Connections::admit`, `connections.rs` | `accept` | `EVICTION_WAIT`, 100 ms |
//! | 3 | It is put into the queue, and a worker is woken or started. | the same, `Connections::start_worker` | `accept` | does not wait |
//! | 4 | A worker takes it. | `Connections::next_connection` | `worker` | none for the connection; a worker ends after 200 ms without one |
//! | 5 | The first byte arrives. | `Connection::wait_for_first_byte`, `connection.rs` | `worker` | `head_timeout`, 10 s; from the second request on `idle_timeout`, 15 s; then it is closed |
//! | 6 | The head arrives and is parsed. | `Connection::parse_head`; `HeadParser::parse`, `head.rs` | `worker` | `head_timeout`, 10 s after the first byte; then 408 |
//! | 7 | The client behind a trusted proxy is found and counted. | `client`, `forwarded.rs`; `Slot::count_request` | `worker` | does not wait |
//! | 8 | The handler decides about an announced body. | `Connection::wants_body`; `Handler::wants_body` and `authorize` | `worker` | none: it is code of this program |
//! | 9 | The body arrives and is decoded. | `Connection::receive_body`; `BodyDecoder::decode`, `body.rs` | `worker` | `body_timeout`, 30 s after the head; then 408 |
//! | 10 | The handler makes the answer. | `Handler::answer` | `worker` | none; the longest built-in wait is a poll's, 60 s |
//! | 11 | The answer is written. | `Connection::answer`; `Response::write_head`, `response.rs`; `write_both_within`, `socket.rs` | `worker` | `write_timeout`, 10 s; then the connection is closed |
//! | 12a | The connection waits for the next request: step 5. | `Connection::serve` | `worker` | `idle_timeout`, 15 s |
//! | 12b | Or it ends with a lingering close. | `Connection::close`; `lingering_close_within`, `socket.rs` | `worker` | 10 s, 1 s of silence, or 8 MiB |
//! | 12c | Or it becomes a stream, which writes the answer itself instead of step 11. | `Connections::start_stream` | `stream` | none; the hub ends a stream whose client stops reading |
//!
//! So a peer can keep a worker busy without sending a complete request for at most 10 s + 10 s + 30 s = 50 s, and less if
//! all slots are in use: in the steps 5, 6, 9 and 12b the connection can be evicted.
//!
//! A rejected connection ends at step 2. The thread `accept` writes the 503 without waiting, and the thread `linger`
//! (`linger.rs`) keeps the connection open for at most 10 s.
//!
//! # What bounds its memory
//!
//! These are the largest amounts that a hostile peer can reach with the default limits. A usual request takes less than
//! a tenth of that. Overheads of the allocator are not counted.
//!
//! | of one connection | at most | bound |
//! |---|---|---|
//! | unused bytes (`Connection::buffer`) | 40 KiB | `max_head`, 16 KiB, and one read, 4 KiB; a growing `Vec` has up to twice the capacity |
//! | the copy of the head (`RequestHead::bytes`) | 16 KiB | `max_head` |
//! | the positions of its fields | 4 KiB | `max_fields`, 100, rounded up to 128, of 32 bytes |
//! | the decoded path and query | 64 KiB | `max_target`, 8 KiB: 4,096 parameters of 12 bytes, and 16 KiB of text |
//! | a body outside of the budget | 4 KiB | `SMALL_BODY` |
//! | an answer outside of the budget | 16 KiB | `SMALL_ANSWER` |
//! | the head of the answer, the name of the request | 2 KiB | `HEAD_BYTES`, `Quoted`; more if a handler sets long fields |
//! | sum | 146 KiB | |
//!
//! The stack is in addition: 256 KiB of address space (`stack_bytes`), of which about 16 KiB are touched by the built-in
//! endpoints. So are the buffers of the kernel.
//!
//! | of all connections | at most | bound |
//! |---|---|---|
//! | connections with a thread | 1,288 | `max_clients`, 1,000; `extra_connections`, 256; evicted ones, 32 |
//! | their memory, as above | 184 MiB | 1,288 times 146 KiB |
//! | their stacks | 20 MiB | 1,288 times 16 KiB |
//! | all larger bodies | 64 MiB | `total_bodies`; each is at most 1 MiB (`max_body`) |
//! | all larger answers | 64 MiB | `total_answers` |
//! | connections that linger | 256 descriptors | `MAX_LINGERING`; they have no buffers |
//! | sum | 332 MiB | |
//!
//! Two kinds of answers may exceed `total_answers`: an answer that is the only one, and the answer to a method other than
//! GET, HEAD, OPTIONS and TRACE, because the request must not be repeated. What streams, polls and events take is bounded
//! by the hub and by `api/`.

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
pub(crate) use server::{Holders, HttpServer};
