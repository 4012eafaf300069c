//! One binary, many chapters. Each talks to a real server over real sockets, raw bytes in
//! and raw bytes out, so that the tests are a primer of the protocol as well.

#[path = "../inside/chance.rs"]
#[allow(
    dead_code,
    reason = "shared with the unit tests, which use other parts of it"
)]
mod chance;
mod kit;
mod program;
mod proxy_process;

// The first chapter: the idea of the crate in one file.
mod examples;

#[cfg(feature = "access")]
mod access;
mod admission;
mod attackers;
mod browser;
mod churn;
mod cli;
#[cfg(feature = "journal")]
mod clients;
mod connections;
mod console;
#[cfg(feature = "journal")]
mod crash;
mod crowd;
#[cfg(feature = "journal")]
mod cursors;
#[cfg(feature = "demo")]
mod demo;
mod devices;
#[cfg(feature = "journal")]
mod disk;
mod endpoints;
mod heads;
mod lifecycle;
mod metrics;
mod order;
#[cfg(feature = "access")]
mod origins;
mod poll;
mod proxies;
mod random;
mod readme;
mod refusals;
mod replay_to_live;
mod resume;
mod retry;
#[cfg(feature = "access")]
mod signed;
mod slow;
mod smuggling;
mod tidy;
mod without_tokens;
