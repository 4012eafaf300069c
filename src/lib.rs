//! A Server-Sent Events server in plain std Rust: one thread per client, one `mpsc` queue
//! per thread, one `Mutex` around the registry of clients, and no dependencies.
//!
//! The server blocks on purpose. A thread that waits for its client is the simplest thing
//! that can be written, read and debugged. The server is fast because such a thread is
//! seldom woken: `hub/lane.rs` explains how.
//!
//! **To use it**, read on. **To study it**, begin with `src/examples/primer.rs`, the idea
//! of such a server in one file; then return to the [reading order](#reading-order) and
//! the [glossary](#glossary). The module `guide` has the rules of every endpoint and
//! option in full.
//!
//! # A complete server
//!
//! The classic counter: subscribe with `curl -N http://127.0.0.1:8080/events`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{thread, time::{Duration, SystemTime}};
//! use tiny_sse::{Config, Event, Server, wire::date::iso8601};
//!
//! let server = Server::bind("127.0.0.1:8080", Config::default())?.spawn()?;
//! for n in 1.. {
//!     let now = iso8601(SystemTime::now());
//!     server.hub().publish(Event::new(format!(r#"{{"counter":{n},"timestamp":"{now}","message":"Event #{n}"}}"#)))?;
//!     thread::sleep(Duration::from_secs(1));
//! }
//! # Ok(()) }
//! ```
//!
//! # Routes of your own
//!
//! A handler is a function from a request to a response, so a router is a `match`:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tiny_sse::{Config, Event, Server, http::Response};
//!
//! let server = Server::bind("127.0.0.1:0", Config::default())?;
//! let hub = server.hub().clone();
//! let running = server.spawn_with(move |request, api| match (request.method(), request.path()) {
//!     ("GET", "/hello") => Response::text(200, "hello\n"),
//!     ("POST", "/ring") => match hub.publish(Event::new("ding")) {
//!         Ok(published) => Response::text(200, format!("{} heard it\n", published.recipients)),
//!         Err(closed) => Response::error(503, closed),
//!     },
//!     _ => api.answer(request), // the built-in endpoints, and 404
//! })?;
//! # running.shutdown();
//! # Ok(()) }
//! ```
//!
//! # A transport of your own
//!
//! A [`Hub`] needs no sockets. A [`Subscription`] can be written to anything:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tiny_sse::{Config, Decoder, Event, Hub, Subscribe};
//!
//! let hub = Hub::new(Config::default())?;
//! let subscription = hub.subscribe(Subscribe::default())?;
//! hub.publish(Event::new("hello").with_name("greeting")?)?;
//! hub.close(); // or the next line would write for as long as the hub lives
//! let mut out = Vec::new();
//! subscription.write_to(&mut out);
//!
//! let mut seen = Vec::new();
//! Decoder::new(1024).feed(&out, |message| seen.push((message.name, message.data)))?;
//! assert_eq!(seen[0].0, "system");
//! assert_eq!(seen[1], ("greeting".to_string(), "hello".to_string()));
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! All are on by default. With a feature off, its code, its options, its fields of
//! [`Config`] and its endpoints do not exist. What is left is the core: streams, replay,
//! publishing, polls, limits, `/stats`.
//!
//! | feature | what it adds |
//! |---|---|
//! | `access` | tokens, signed tokens, guards, allowed origins |
//! | `console` | the page at `/` and the JavaScript clients |
//! | `demo` | six example uses, in the program |
//! | `journal` | events that outlive the process |
//! | `metrics` | `/metrics`, as Prometheus text |
//!
//! # Reading order
//!
//! Modules form layers. A module uses the layers below it and never imports from a layer
//! above it.
//!
//! 1. `wire/`: bytes and values, without sockets, clocks or locks. `event.rs` is the
//!    event-stream format on one page; `decoder.rs` parses it as a browser does; then
//!    ids, topics and frames; JSON and dates when you need them.
//! 2. `hub/`: which clients are connected, and which events were published. `mod.rs`
//!    follows one event from `POST` to the socket and one client that stops reading;
//!    `lane.rs` explains how an event reaches a socket without waking a thread;
//!    **`stream.rs` is the main loop of the whole crate**: one client, from its first
//!    byte to its last. `poll.rs` answers one request instead.
//! 3. `http/`: HTTP/1.1 on blocking sockets, without any knowledge of events: `head.rs`
//!    and `body.rs` parse the bytes, `connection.rs` serves one connection,
//!    `connections.rs` manages all of them.
//! 4. `store/`: how events outlive the process. `segment.rs` is the journal's file
//!    format, `journal.rs` appends to it and handles a disk that fails, `recovery.rs`
//!    reads it back at the start.
//! 5. `api/`: the endpoints, one file each, where HTTP and the hub meet. `server.rs` puts
//!    everything together.
//! 6. `console/`: the browser's side. `sse-client.js` and `use-sse.js` are meant to be
//!    copied; the page is the answer to `GET /`.
//!
//! `config.rs` has every limit with its reason. The program's `demo/` is six example
//! uses, each a file to copy.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | client | an open stream or a waiting poll, known by its client id |
//! | event | what a publisher sends: data, and optionally a name, a topic, an id and a `retry` |
//! | message | the bytes of one event in the event-stream format |
//! | record | an event as the hub keeps it: its id, its ordinal, its topic and its message |
//! | frame | one or more messages that are written together, with the chunk header if the connection is chunked |
//! | id, ordinal | the id identifies an event to clients; the ordinal is its position in the history, counted from 0, and stays inside the hub |
//! | own id | an id that the publisher chose; it is on the wire instead of the hub's id |
//! | cursor | the id after which a client wants to resume: its `Last-Event-ID` |
//! | gap | events after the cursor that the hub cannot replay any more; the `recovery` event tells the client |
//! | history | the ring of the latest events; a full history *evicts* the oldest |
//! | pattern | a topic, or a prefix of topics that ends in `*` |
//! | audience | all clients with the same patterns; an event is matched once per audience |
//! | registry | the table of all clients, by client id and by audience |
//! | inbox, batch | events wait in the inbox; the fan-out thread takes all of them at once as a batch |
//! | fan-out | the delivery of a batch to every client that should get it, by the thread of this name |
//! | lane | the delivery path to one client: its socket, its queue, its backlog and the baton |
//! | baton | the exclusive right to write to a client's socket. A metaphor: exactly one thread holds it at a time, and hands it to the other. `lane.rs` has the rules |
//! | backlog | the bytes that are accepted for one client and not written to its socket yet |
//! | load shedding | closing the clients with the largest backlogs while all queues together are over their limit |
//! | close reason | why the server ended a stream, the same name in the log, in `/stats` and on the wire |
//! | credential, permit, rights | a credential identifies the sender of a request (a token, or an address); rights are what it may do; a permit lets the hub ask again whether a client still has the right to its stream |
//! | worker | a thread that serves HTTP requests, one connection at a time; a stream gets a thread of its own |
//! | connection table, slot | the table of all open connections; each connection has one slot in it |
//! | eviction | closing the connection that has waited longest for a request, when a new one needs its slot |
//! | lingering close | reading and discarding what a peer still sends, so that it receives the answer before the connection is reset |
//! | budget, share | a bound in bytes for all requests together; each takes a share of it |
//! | log | where events become durable before they are published: a trait, implemented by the journal |
//! | group commit | publishers that wait at the same time share one write and one `fsync` of the log |
//! | journal, segment | the log on disk; it consists of segment files |
//! | recovery | of a client: the replay after a reconnect. Of a journal: reading it back at the start |
//! | report | a log line that the library hands to its caller instead of printing it |
//!
//! # Tags
//!
//! Comments with a tag answer a question that comes up again and again, so that all
//! answers can be found by grep:
//!
//! | tag | it says |
//! |---|---|
//! | `LOCK:` | what a lock guards, and why nothing waits for I/O while it is held |
//! | `LIMIT:` | which bound keeps a peer, or all peers together, from using more |
//! | `ORDER:` | why one step comes before another, and why a memory ordering suffices |
//! | `SPEC:` | the rule of RFC 9112, RFC 9110 or the HTML standard that the code implements |
//! | `SAFETY:` | why an `unsafe` call is sound; only in the program's `system.rs` |

#![forbid(unsafe_code)]

mod api;
mod atomic;
#[cfg(test)]
#[path = "../tests/inside/chance.rs"]
#[allow(
    dead_code,
    reason = "shared with other tests, which use other parts of it"
)]
mod chance;
mod config;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod http;
pub mod hub;
mod machine;
mod names;
mod report;
mod server;
mod socket;
#[cfg(feature = "journal")]
pub mod store;
pub mod wire;

pub use api::{Action, Api};
#[cfg(feature = "access")]
pub use api::{Verdict, read_keys};
#[cfg(feature = "access")]
pub use config::AccessConfig;
#[cfg(feature = "console")]
pub use config::Console;
#[cfg(feature = "journal")]
pub use config::JournalConfig;
pub use config::{Config, ConfigError, Overload};
pub use hub::{
    CloseReason, Cursor, Heartbeat, Hub, OnPresence, Permit, Poll, Presence, Published, Subscribe,
    Subscription,
};
pub use report::{Level, Report};
pub use server::{Running, Server};
pub use wire::{
    Decoder, Event, EventId, Framing, Message, Network, Pattern, Patterns, TooLarge, Topic,
};
#[cfg(feature = "access")]
pub use wire::{Origin, Token};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
