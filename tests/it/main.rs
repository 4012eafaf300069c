//! One binary, many chapters. Each talks to a real server over real sockets, raw bytes in and raw
//! bytes out, so that the tests are a primer of the protocol as well.

#[allow(
    dead_code,
    reason = "shared with the unit tests, which use other parts of it"
)]
mod chance;
mod kit;
mod program;

mod browser;
mod churn;
mod cli;
mod connections;
mod console;
mod crash;
mod crowd;
mod demo;
mod disk;
mod endpoints;
mod handoff;
mod heads;
mod lifecycle;
mod metrics;
mod order;
mod poll;
mod random;
mod resume;
mod slow;
mod storms;
mod tidy;
