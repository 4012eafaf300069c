//! A counter: one event a second to every client, and the whole program in ten lines.
//!
//! ```text
//! cargo run --example counter
//! curl -N http://127.0.0.1:8080/events
//! ```

use std::io;
use std::thread;
use std::time::{Duration, SystemTime};

use tiny_sse::wire::date::iso8601;
use tiny_sse::{Config, Event, Hub, Server};

/// Publishes the numbers from 1 on, with a pause after each, until the hub is closed.
pub fn count(hub: &Hub, pause: Duration) {
    for number in 1_u64.. {
        let now = iso8601(SystemTime::now());
        let data = format!(r#"{{"counter":{number},"timestamp":"{now}"}}"#);
        if hub.publish(Event::new(data)).is_err() {
            return; // the server is shutting down
        }
        thread::sleep(pause);
    }
}

#[allow(dead_code, reason = "the tests call `count`")]
fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8080", Config::default())?.spawn()?;
    println!("curl -N http://{}/events", server.local_addr());
    count(server.hub(), Duration::from_millis(1000));
    Ok(())
}
