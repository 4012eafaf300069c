//! HTTP/1.1 on blocking sockets: one thread per connection, no knowledge of events. A
//! handler turns a [`Request`] into a [`Response`], and a response may take over the
//! socket as a stream.
//!
//! # Reading order
//!
//! `head.rs` (with `target.rs`) and `body.rs` turn bytes into a request, without a
//! socket. `connection.rs` serves one connection; `connections.rs` admits all of them and
//! owns their threads. `server.rs` accepts them and shuts the server down. `table.rs`
//! decides which connection is evicted, `linger.rs` delivers the answers to rejected
//! clients, `budget.rs` bounds memory, and `forwarded.rs` finds the client behind a
//! proxy.
//!
//! # One request, from `accept` to its answer
//!
//! Each step names its function and file, the thread that it runs on, and the timeout
//! that limits it. The durations are the defaults of `config.rs`.
//!
//! 1. The system accepts the connection: `accept_loop` (`server.rs`), thread `accept`. It
//!    waits for a connection without a limit. After an error it pauses for 10 ms to 1 s.
//! 2. The connection gets a slot in the table, and may evict another connection for it.
//!    Otherwise it gets a 503: `Connections::admit` (`connections.rs`), thread `accept`.
//!    It waits for at most `EVICTION_WAIT`, 100 ms.
//! 3. The connection is put into the queue, and a worker is woken or started:
//!    `Connections::admit` and `Connections::start_worker` (`connections.rs`), thread
//!    `accept`. It does not wait.
//! 4. A worker takes the connection: `Connections::next_connection` (`connections.rs`),
//!    thread `worker`. An idle worker waits for at most `WORKER_IDLE`, 200 ms, and then
//!    ends. Nothing limits the time in the queue, but no connection waits there for
//!    another one: there is an idle worker for each, or one is being started.
//! 5. The first byte arrives: `Connection::wait_for_first_byte` (`connection.rs`), thread
//!    `worker`. It must arrive within `head_timeout`, 10 s, and from the second request
//!    on within `idle_timeout`, 15 s. Otherwise the connection is closed without an
//!    answer.
//! 6. The head arrives and is parsed: `Connection::parse_head` (`connection.rs`) and
//!    `HeadParser::parse` (`head.rs`), thread `worker`. It must be complete within
//!    `head_timeout`, 10 s, after its first byte. Otherwise the answer is 408.
//! 7. The client behind a trusted proxy is found and counted: `client` (`forwarded.rs`)
//!    and `Slot::count_request` (`connections.rs`), thread `worker`. It does not wait.
//! 8. If a body is announced, the handler decides whether it is read:
//!    `Connection::wants_body` (`connection.rs`), which calls `Handler::wants_body` and
//!    `Handler::authorize` (`handler.rs`), thread `worker`. There is no limit, because
//!    this is code of the program itself.
//! 9. The body arrives and is decoded: `Connection::receive_body` (`connection.rs`) and
//!    `BodyDecoder::decode` (`body.rs`), thread `worker`. It must be complete within
//!    `body_timeout`, 30 s, after step 8. Otherwise the answer is 408.
//! 10. The handler makes the answer: `Handler::answer` (`handler.rs`), thread `worker`.
//!     There is no limit. The longest wait of a built-in endpoint is a poll's, 60 s for
//!     an event and then 10 s for the answer budget.
//! 11. The answer is written: `Connection::answer` (`connection.rs`),
//!     `Response::write_head` (`response.rs`) and `write_both_within` (`socket.rs`),
//!     thread `worker`. It must be written within `write_timeout`, 10 s. Otherwise the
//!     connection is closed.
//! 12. Then there are three ways to go on:
//!     - The connection waits for the next request, from step 5 on: `Connection::serve`
//!       (`connection.rs`).
//!     - It ends with a lingering close: `Connection::close` (`connection.rs`) and
//!       `lingering_close_within` (`socket.rs`), thread `worker`, within `LINGER`, 10 s,
//!       and with at most 1 s of silence and about 8 MiB.
//!     - It becomes a stream, and the stream writes the answer itself, instead of step
//!       11: `Connections::start_stream` (`connections.rs`), thread `stream`. The hub
//!       limits it from here on.
//!
//! So a peer can occupy a worker without sending a complete request for at most 15 s + 10
//! s + 30 s = 55 s. If all slots are in use it is less, because the connection can be
//! evicted in the steps 5, 6 and 9 and during a lingering close. From step 7 to 8 and
//! from step 10 to 11 it cannot be evicted.
//!
//! A rejected connection ends after step 2. The thread `accept` writes the 503 without
//! waiting, and the thread `linger` (`linger.rs`) keeps the connection open for at most
//! 10 s.
//!
//! # What bounds its memory
//!
//! These are the largest amounts that a hostile peer can reach with the default limits. A
//! usual request takes a few KiB. Overheads of the allocator are not counted.
//!
//! | of one connection | at most | bound |
//! |---|---|---|
//! | unused bytes (`Connection::buffer`) | 40 KiB | twice the sum of `max_head`, 16 KiB, and one read, 4 KiB |
//! | the copy of the head (`RequestHead::bytes`) | 16 KiB | `max_head` |
//! | the positions of its fields | 4 KiB | `max_fields`, 100, rounded up to 128, of 32 bytes |
//! | the decoded path and query | 64 KiB | `max_target`, 8 KiB: 4,096 parameters of 12 bytes, and 16 KiB of text |
//! | a body outside of the budget | 4 KiB | `SMALL_BODY` |
//! | an answer outside of the budget | 16 KiB | `SMALL_ANSWER` |
//! | head of the answer, name of the request | 2 KiB | `HEAD_BYTES`, `Quoted`; more if a handler sets long fields |
//! | sum | 146 KiB | |
//!
//! The stack is in addition: 256 KiB of address space (`stack_bytes`), of which about 16
//! KiB are touched by the built-in endpoints. So are the buffers of the kernel.
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
//! Two kinds of answers may exceed `total_answers`: an answer that is the only one, and
//! the answer to a method other than GET, HEAD, OPTIONS and TRACE, because the request
//! must not be repeated. What streams, polls and events take is bounded by the hub and by
//! `api/`.

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
