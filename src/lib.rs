//! lib
#![forbid(unsafe_code)]
mod api;
mod config;
pub mod http;
pub mod hub;
mod machine;
mod report;
mod server;
mod socket;
pub mod wire;

pub use api::Api;
pub use config::{Config, ConfigError};
pub use hub::{Cursor, Farewell, Hub, Published, Subscribe, Subscription};
pub use report::{Level, Report};
pub use server::{Running, Server};
pub use wire::{Decoder, Event, EventId, Framing, Message, Pattern, Patterns, TooLarge, Topic};
