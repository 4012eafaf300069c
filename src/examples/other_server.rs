//! A hub without the server of this crate: another HTTP server accepts the requests, and
//! the hub writes the streams.
//!
//! ```text
//! cargo run --example other_server
//! curl -N http://127.0.0.1:8080/live
//! ```
//!
//! The other server is the smallest one that shows the seam. In a real program it is a
//! framework that hands out a writer for the body of a response (`tiny_http`, `rouille`,
//! a WSGI bridge); then only `stream` is needed.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tiny_sse::{Config, Cursor, Event, Heartbeat, Hub, Subscribe};

/// Writes the body of a response: the events that the client missed, then each new one.
/// Blocks until the client disconnects or the hub is closed. `last_event_id` is the
/// request's `Last-Event-ID`.
fn stream(hub: &Hub, last_event_id: Option<String>, body: &mut impl Write) -> io::Result<()> {
    let request = Subscribe {
        cursor: last_event_id.map_or(Cursor::Now, Cursor::After),
        heartbeat: Heartbeat::Comment,
        ..Subscribe::default()
    };
    let subscription = hub.subscribe(request).map_err(io::Error::other)?;
    subscription.write_to(body);
    Ok(())
}

/// The other server's part: reads a request, writes the head of the response, and hands
/// over the body.
fn serve(hub: &Hub, mut socket: &TcpStream) -> io::Result<()> {
    let mut last_event_id = None;
    for line in BufReader::new(socket).lines() {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("Last-Event-ID") => {
                last_event_id = Some(value.to_owned());
            }
            None if line.is_empty() => break, // the end of the head
            _ => {}
        }
    }
    socket.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n",
    )?;
    stream(hub, last_event_id, &mut socket)
}

/// Accepts connections, each with a thread of its own. Returns only if `accept` fails.
pub fn run(hub: &Hub, listener: &TcpListener) -> io::Result<()> {
    for socket in listener.incoming() {
        let (socket, hub) = (socket?, hub.clone());
        thread::spawn(move || serve(&hub, &socket)); // An error concerns this connection alone.
    }
    Ok(())
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> io::Result<()> {
    let hub = Hub::new(Config::default())?;
    let listener = TcpListener::bind("127.0.0.1:8080")?;
    println!("curl -N http://{}/live", listener.local_addr()?);
    let publisher = hub.clone();
    thread::spawn(move || {
        for number in 1_u64.. {
            if publisher.publish(Event::new(number.to_string())).is_err() {
                return; // the hub is closed
            }
            thread::sleep(Duration::from_millis(1000));
        }
    });
    run(&hub, &listener)
}
