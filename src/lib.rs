//! A Server-Sent Events server in plain std Rust: one thread per client, one `mpsc` queue per
//! thread, one `Mutex` around the registry of clients, and no dependencies.
//!
//! It blocks on purpose. A thread that waits for its client is the simplest thing that can be
//! written, read and debugged; what makes it fast is that it is seldom woken (see `hub/lane.rs`).
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
//! All are on by default. With a feature off, its code, its options, its fields of [`Config`] and its
//! endpoints do not exist. What is left is the core: streams, replay, publishing, polls, limits, `/stats`.
//!
//! | feature | what it adds |
//! |---|---|
//! | `access` | tokens, guards, allowed origins |
//! | `console` | the page at `/` and the JavaScript clients |
//! | `demo` | six example uses, in the program |
//! | `journal` | events that outlive the process |
//! | `metrics` | `/metrics`, as Prometheus text |
//!
//! # Reading order
//!
//! A floor uses the floors below it and never names one above.
//!
//! 1. `wire/`: bytes and values. `event.rs` is the format on one page; `decoder.rs` is what a
//!    browser makes of it; then ids, topics, frames; JSON and dates when you need them.
//! 2. `hub/`: who is listening, and what was said. `mod.rs` has the one lock; `lane.rs` is how an
//!    event gets to a socket without waking anybody; **`stream.rs` is the main loop of the whole
//!    crate**: one client's life, from the welcome to the farewell. `poll.rs` is one answer instead.
//! 3. `http/`: HTTP/1.1 on blocking sockets, which knows nothing of events: `head.rs` and `body.rs`
//!    for the bytes, `connection.rs` for a connection, `server.rs` for all of them.
//! 4. `store/`: how events outlive the process. `segment.rs` is the journal's format, `journal.rs`
//!    writes it and says what happens when the disk does not take it, `recovery.rs` reads it back.
//! 5. `api/`: where they all meet, an endpoint at a time. `server.rs` puts it all together.
//! 6. `console/`: the browser's side. `sse-client.js` and `use-sse.js` are to be copied; the page is
//!    what `GET /` shows. The feature `console`, on by default, makes them part of the library.
//!
//! `config.rs` has every number, with its reason. The program's `demo/` is six uses of all this, each
//! a file to copy.

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

#[cfg(feature = "access")]
pub use api::Verdict;
pub use api::{Action, Api};
#[cfg(feature = "access")]
pub use config::AccessConfig;
#[cfg(feature = "console")]
pub use config::Console;
#[cfg(feature = "journal")]
pub use config::JournalConfig;
pub use config::{Config, ConfigError, Overload};
pub use hub::{
    Cursor, Farewell, Heartbeat, Hub, OnPresence, Permit, Poll, Presence, Published, Subscribe,
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
