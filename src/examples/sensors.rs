//! Values of two sensors, each read by a thread of its own, in one process with the
//! server.
//!
//! ```text
//! cargo run --example sensors
//! curl -N 'http://127.0.0.1:8080/events?topic=sensors/*'
//! ```
//!
//! A hub is shared by cloning it: every clone publishes to the same clients. `publish`
//! never waits for a client, so a sensor is read on time even if a client is slow.

use std::fs;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tiny_sse::hub::PublishError;
use tiny_sse::{Config, Hub, Server};

/// The temperature of the processor in °C. `None` on a machine that does not tell.
fn temperature() -> Option<String> {
    let text = fs::read_to_string("/sys/class/thermal/thermal_zone0/temp").ok()?;
    let millidegrees: f64 = text.trim().parse().ok()?;
    Some(format!("{:.1}", millidegrees / 1000.0))
}

/// The average number of processes that were ready to run in the last minute.
fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}

/// Publishes what `read` returns, with a pause after each value, until the hub is closed.
fn publish_values(hub: &Hub, topic: &str, pause: Duration, read: fn() -> Option<String>) {
    loop {
        let value = read().unwrap_or_else(|| "unavailable".to_owned());
        if let Err(PublishError::Closed) = hub.publish_to(topic, value) {
            return;
        }
        thread::sleep(pause);
    }
}

/// Starts a thread for each sensor. The threads end within one pause after the hub is
/// closed.
///
/// # Errors
///
/// A thread cannot be started.
pub fn start(hub: &Hub, pause: Duration) -> io::Result<[JoinHandle<()>; 2]> {
    let sensor = |topic: &'static str, read: fn() -> Option<String>| {
        let hub = hub.clone();
        let thread = thread::Builder::new().name(topic.to_owned());
        thread.spawn(move || publish_values(&hub, topic, pause, read))
    };
    Ok([
        sensor("sensors/temperature", temperature)?,
        sensor("sensors/load", load)?,
    ])
}

#[allow(dead_code, reason = "the tests call `start`")]
fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8080", Config::default())?.spawn()?;
    println!(
        "curl -N 'http://{}/events?topic=sensors/*'",
        server.local_addr()
    );
    for sensor in start(server.hub(), Duration::from_millis(1000))? {
        // A thread that panicked has printed its message.
        let _ = sensor.join();
    }
    Ok(())
}
