//! The idea of a Server-Sent Events server in one file: a thread per client, a queue per
//! thread, one lock.
//!
//! ```text
//! cargo run --example primer
//! curl -N http://127.0.0.1:8081/events            in a second terminal
//! curl -d 'hello' http://127.0.0.1:8081/send      in a third
//! ```
//!
//! One thread accepts connections and starts a thread for each. A connection that asks
//! for `GET /events` stays open: its thread creates a queue, enters the sending half into
//! a table, and then waits at the receiving half for events to write to its socket. A
//! connection that asks for `POST /send` locks the table and puts its event into every
//! queue:
//!
//! ```text
//!                          ┌─ queue ─▶ thread ─▶ socket of client 1
//! POST /send ─▶ table ─────┼─ queue ─▶ thread ─▶ socket of client 2
//!            (one Mutex)   └─ queue ─▶ thread ─▶ socket of client 3
//! ```
//!
//! This works, and many servers in production are no more than this. What they lack is
//! the rest of tiny-sse:
//!
//! | missing here | what goes wrong | where tiny-sse does it |
//! |---|---|---|
//! | a bound of the queues | a client that stops reading fills the memory of the server | `hub/lane.rs`: the backlog |
//! | a write timeout | the thread of a client that stops reading waits in `write` for ever | `socket.rs`: `write_within` |
//! | the baton | every event wakes every thread: most of the processor time is spent on waking | `hub/lane.rs` |
//! | batches | under load, every event costs a `write` per client | `hub/fanout.rs` |
//! | a history | a client that reconnects has lost what was published meanwhile | `hub/history.rs` |
//! | replay and registration under one lock | an event between the two is lost, or comes twice | `hub/mod.rs`: `subscribe` |
//! | topics | every client gets everything | `wire/topic.rs`, `hub/registry.rs` |
//! | a look at the socket | a client that has gone is noticed at the next write, 15 s later | `hub/stream.rs` |
//! | keep-alive, chunked bodies, `HEAD`, `OPTIONS` | browsers and proxies do not get what HTTP/1.1 promises | `http/connection.rs` |
//! | a limit for heads and bodies | one request with an endless head fills the memory | `http/head.rs`, `http/body.rs` |
//! | deadlines | 1,000 connections that send nothing hold 1,000 threads for ever | `http/connection.rs`, `http/table.rs` |
//! | a limit for connections | the server runs out of threads or descriptors, and panics | `http/connections.rs` |
//! | an accept loop that survives errors | one failed `accept` ends the server | `http/server.rs` |
//! | escaping of line breaks | an event can contain a second, forged event | `wire/event.rs` |
//! | rights and origins | any page on the web can publish to a server on this machine | `api/access.rs`, `api/access/origins.rs` |
//! | a shutdown | clients see a broken connection, and all reconnect at once | `server.rs`, `hub/state.rs`: `retry_after` |
//! | durability | a restart forgets every event | `store/` |

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A stream that is silent for this long gets a comment, so that proxies do not close it,
/// and so that a write fails if the client has gone.
const HEARTBEAT: Duration = Duration::from_millis(15_000);

/// The largest body of `POST /send`, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The sending half of each client's queue, by the client's number.
///
/// LOCK: guards the table and the numbers. Held to add a client, to remove one, and to
/// put an event into all queues. The queues have no bound, so `send` never waits, and no
/// thread waits for a socket under the lock.
#[derive(Default)]
struct Clients(Mutex<Table>);

#[derive(Default)]
struct Table {
    queues: HashMap<u64, Sender<Arc<str>>>,
    /// The number of the latest client.
    clients: u64,
    /// The id of the latest event.
    events: u64,
}

impl Clients {
    /// No code in a locked section can panic, except for a bug in std, so a poisoned lock
    /// is used as it is.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event into the queue of every client. Returns the number of clients.
    fn publish(&self, data: &str) -> usize {
        let mut table = self.table();
        table.events += 1;
        let mut message = format!("id: {}\n", table.events);
        // SPEC: HTML standard, 9.2.6: each line of the data is a field of its own; an
        // empty line ends the event.
        for line in data.lines() {
            message += &format!("data: {line}\n");
        }
        let message: Arc<str> = (message + "\n").into();
        // `send` fails if the client's thread has ended: the client is gone.
        table
            .queues
            .retain(|_, queue| queue.send(Arc::clone(&message)).is_ok());
        table.queues.len()
    }

    /// Writes events to one client until its connection breaks. Blocks for all that time.
    fn stream(&self, mut socket: &TcpStream) -> io::Result<()> {
        // The body of this response has no length: the stream ends when the connection
        // does.
        socket.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n",
        )?;
        let (sender, queue) = channel();
        let mut table = self.table();
        table.clients += 1;
        let number = table.clients;
        table.queues.insert(number, sender);
        drop(table);
        let outcome = loop {
            let written = match queue.recv_timeout(HEARTBEAT) {
                Ok(message) => socket.write_all(message.as_bytes()),
                Err(RecvTimeoutError::Timeout) => socket.write_all(b": heartbeat\n"),
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            };
            if written.is_err() {
                break written;
            }
        };
        self.table().queues.remove(&number);
        outcome
    }

    /// Reads one request and answers it. Blocks until the answer is written; for a
    /// stream, until it ends.
    fn serve(&self, socket: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_ascii_whitespace();
        let request = (words.next().unwrap_or(""), words.next().unwrap_or("")); // method and path
        let mut length = 0;
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            let Some((name, value)) = field.trim_end().split_once(':') else {
                break; // the empty line after the fields
            };
            if name.eq_ignore_ascii_case("Content-Length") {
                length = value.trim().parse().unwrap_or(usize::MAX);
            }
        }
        match request {
            ("GET", "/events") => self.stream(socket),
            ("POST", "/send") if length > MAX_BODY => answer(socket, "413 Content Too Large", ""),
            ("POST", "/send") => {
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                let clients = self.publish(&String::from_utf8_lossy(&body));
                answer(socket, "200 OK", &format!("sent to {clients} clients\n"))
            }
            _ => answer(socket, "404 Not Found", "GET /events or POST /send\n"),
        }
    }
}

/// Writes a response with a body of text.
fn answer(mut socket: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        socket,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Accepts connections, each with a thread of its own. Returns only if `accept` fails.
pub fn run(listener: &TcpListener) -> io::Result<()> {
    let clients = Arc::new(Clients::default());
    for socket in listener.incoming() {
        let (socket, clients) = (socket?, Arc::clone(&clients));
        thread::spawn(move || clients.serve(&socket)); // An error concerns this connection alone.
    }
    Ok(())
}

/// Listens on the address in the first argument, or on 127.0.0.1:8081.
#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8081"))?;
    println!("listening on http://{}", listener.local_addr()?);
    run(&listener)
}
