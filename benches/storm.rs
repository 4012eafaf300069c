//! How the clients of a server reconnect after a restart: when all of them have the same
//! `retry:`, and when each has a different one.
//!
//! ```text
//! cargo bench --bench storm              1,000 clients: under ten seconds
//! cargo bench --bench storm -- 3000      3,000 clients; several numbers may be given
//! ```
//!
//! # What happens
//!
//! The clients connect to a server, one after the other. Then the server shuts down, and
//! another server starts at once on the same port. Each client behaves like the
//! EventSource of a browser: it reads its stream to the end, waits for the time of the
//! last `retry:`, and connects again with `Last-Event-ID`. If the connection is refused,
//! the client tries again after the same time.
//!
//! There are two runs. In both, the server sends a different `retry:` to each client in
//! the close event. In the first run the clients ignore the close event and use the
//! `retry:` of the welcome, which is the same for all.
//!
//! # What is measured
//!
//! The time from the start of the shutdown until a client has read the head of its second
//! stream. A row of a plot counts the clients that returned in 200 ms. The peak is the
//! maximum of any 100 ms, wherever they begin. Both plots have the same scale.
//!
//! A second peak, one second after the first, is caused by the kernel. Connections that
//! are not accepted yet wait in the listen backlog. It has 128 slots, the default of std
//! (the program raises it to 4,096). If it is full, the kernel does not answer the
//! connection attempt, and the kernel of the client repeats the attempt after a second
//! (`ListenOverflows` in `/proc/net/netstat`). The number of such clients differs from
//! run to run: none of 1,000, or half of them. With a different `retry:` for each client
//! the backlog was never full.
//!
//! # What is not measured
//!
//! - A network. Its different delays would make the first peak a little lower and wider.
//! - The full load of the first run. Server and clients are one process on the same
//!   processors, with a thread for each client. The first run keeps all processors busy,
//!   so its peak shows the limit of the machine.
//! - The costs of a reconnect in production: TLS, a session, the replay of missed events.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use tiny_sse::{Config, Decoder, Level, Report, Running, Server};

/// The number of clients, unless the command line has numbers.
const CLIENTS: usize = 1000;
/// The `retry:` of the welcome. It is short to keep the bench short.
const RETRY: Duration = Duration::from_secs(1);
/// Clients and `retry:` when the bench runs as a test, which only checks that it works.
const TEST: (usize, Duration) = (10, Duration::from_millis(50));
/// The time that a row of a plot covers.
const ROW: Duration = Duration::from_millis(200);
/// The length of the time window whose maximum is the peak.
const PEAK_WINDOW: Duration = Duration::from_millis(100);
/// The longest bar. With the two numbers before it a line has 80 columns.
const BAR: usize = 60;
/// The stack of a client's thread. There are many of these threads, and each needs
/// little.
const STACK_BYTES: usize = 64 * 1024;
/// The maximum length of a line of the stream.
const LINE_BYTES: usize = 1024;
/// A client that gets no byte for this long fails.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A client gives up after this many refused connections. A browser would go on.
const ATTEMPTS: u32 = 10;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match measure_all(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line of `cargo bench` or `cargo test`, measures and prints. Returns
/// false if a client did not reconnect.
fn measure_all(words: &[String]) -> io::Result<bool> {
    let (options, names): (Vec<&str>, Vec<&str>) = words
        .iter()
        .map(String::as_str)
        .partition(|word| word.starts_with("--"));
    let Ok(mut counts) = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<usize>, _>>()
    else {
        return Ok(true); // the name of a test or of another bench
    };
    // `cargo bench` adds the option `--bench`; `cargo test --benches` adds none.
    let is_test = options.contains(&"--test") || !options.contains(&"--bench");
    let (clients, retry) = if is_test { TEST } else { (CLIENTS, RETRY) };
    if counts.is_empty() {
        counts.push(clients);
    }
    let mut all_returned = true;
    for clients in counts {
        all_returned &= compare(clients, retry)?;
    }
    Ok(all_returned)
}

/// Prints both plots for a number of clients. Returns false if a client did not
/// reconnect.
fn compare(clients: usize, retry: Duration) -> io::Result<bool> {
    let same = storm(clients, retry, RetryFrom::Welcome)?;
    let different = storm(clients, retry, RetryFrom::CloseEvent)?;
    // Both plots have the same scale, so that they can be compared.
    let scale = same.rows().into_iter().chain(different.rows()).max();
    println!("a server with {clients} clients restarts");
    for (storm, title) in [
        (&same, "all clients have the same retry:"),
        (&different, "each client has a different retry:"),
    ] {
        println!("\n{title}\n\n   after   returns/s");
        print!(
            "{}",
            Plot {
                storm,
                scale: scale.unwrap_or(0)
            }
        );
    }
    let (high, low) = (same.peak(), different.peak());
    println!(
        "\npeak: {high:.0}/s and {low:.0}/s, a ratio of {:.1}",
        high / low
    );
    println!(
        "there was no server for {:.0?} and {:.0?}",
        same.downtime, different.downtime
    );
    let expected = 2 * clients;
    let returned = same.returns.len() + different.returns.len();
    let refused = same.refused + different.refused;
    println!("{returned} of {expected} clients reconnected, {refused} connections were refused\n");
    Ok(returned == expected)
}

// The storm.

/// The event whose `retry:` a client uses.
#[derive(Clone, Copy)]
enum RetryFrom {
    /// The welcome: the value is the same for all clients.
    Welcome,
    /// The close event, which has the last `retry:` of the stream: each client has a
    /// different value.
    CloseEvent,
}

/// The results of one restart.
struct Storm {
    /// The times from the start of the shutdown until each client had reconnected, in
    /// ascending order.
    returns: Vec<Duration>,
    /// Connections that were refused because there was no server.
    refused: u32,
    /// The time from the start of the shutdown until the next server listened.
    downtime: Duration,
}

/// Connects the clients, restarts the server, and waits until all clients have
/// reconnected.
fn storm(clients: usize, retry: Duration, retry_from: RetryFrom) -> io::Result<Storm> {
    let config = Config {
        max_clients: clients,
        retry,
        report: Report::new(|level, line| {
            if level <= Level::Warn {
                eprintln!("{level}: {line}");
            }
        }),
        ..Config::default()
    };
    let first = serve(
        "127.0.0.1:0".parse().expect("BUG: the address is invalid"),
        &config,
    )?;
    let address = first.local_addr();
    let clients = (0..clients)
        .map(|_| Client::subscribe(address))
        .collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let clients: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let thread = thread::Builder::new()
                    .name("client".into())
                    .stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, move || client.reconnect(retry_from))
            })
            .collect::<io::Result<_>>()?;
        let began = Instant::now();
        first.shutdown();
        // ORDER: the second server is dropped after the joins, so it runs until the last
        // client has reconnected.
        let _second = serve(address, &config)?;
        let downtime = began.elapsed();
        let mut storm = Storm {
            returns: Vec::new(),
            refused: 0,
            downtime,
        };
        // The streams stay open to the end, so that the second server has all clients at
        // the same time, like the first.
        let mut streams = Vec::new();
        for client in clients {
            match client.join().expect("BUG: a client has panicked") {
                Ok(client) => {
                    storm.returns.push(client.at - began);
                    storm.refused += client.refused;
                    streams.push(client.stream);
                }
                Err(error) => eprintln!("a client gave up: {error}"),
            }
        }
        storm.returns.sort_unstable();
        Ok(storm)
    })
}

/// Starts a server on this address. On Unix std sets `SO_REUSEADDR`, so the port can be
/// used again while the connections of the previous server are in TIME_WAIT.
fn serve(address: SocketAddr, config: &Config) -> io::Result<Running> {
    Server::from_listener(TcpListener::bind(address)?, config.clone())?.spawn()
}

impl Storm {
    /// Returns how many clients reconnected in each row of the plot.
    fn rows(&self) -> Vec<usize> {
        let row = |at: &Duration| at.div_duration_f64(ROW) as usize;
        let mut rows = vec![0; self.returns.last().map_or(0, |last| row(last) + 1)];
        for at in &self.returns {
            rows[row(at)] += 1;
        }
        rows
    }

    /// Returns the maximum rate in any [`PEAK_WINDOW`], in clients per second.
    fn peak(&self) -> f64 {
        let most = self.returns.iter().enumerate().map(|(index, &start)| {
            let end = self.returns.partition_point(|&at| at < start + PEAK_WINDOW);
            end - index
        });
        most.max().unwrap_or(0) as f64 / PEAK_WINDOW.as_secs_f64()
    }
}

// A client.

/// A client that reconnects like the EventSource of a browser.
struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    decoder: Decoder,
    /// The `retry:` of the welcome.
    welcome: Duration,
}

/// A client that has reconnected.
struct Reconnected {
    /// When the client had read the head of the answer.
    at: Instant,
    /// Refused attempts before the successful one.
    refused: u32,
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and reads the welcome.
    fn subscribe(address: SocketAddr) -> io::Result<Client> {
        let mut stream = connect(address, "")?;
        let mut decoder = Decoder::new(LINE_BYTES);
        while decoder.last_event_id().is_empty() {
            if read_some(&mut stream, &mut decoder)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let welcome = decoder
            .retry()
            .ok_or_else(|| io::Error::other("a welcome without retry"))?;
        Ok(Client {
            address,
            stream,
            decoder,
            welcome,
        })
    }

    /// Reads the stream to its end, waits, and reconnects.
    fn reconnect(mut self, retry_from: RetryFrom) -> io::Result<Reconnected> {
        while read_some(&mut self.stream, &mut self.decoder)? > 0 {}
        let wait = match retry_from {
            RetryFrom::Welcome => self.welcome,
            RetryFrom::CloseEvent => self.decoder.retry().unwrap_or(self.welcome),
        };
        // A browser closes the connection here too. The server waits a little for that,
        // so that its last bytes arrive.
        drop(self.stream);
        let mut refused = 0;
        loop {
            thread::sleep(wait);
            match connect(self.address, self.decoder.last_event_id()) {
                Ok(stream) => {
                    return Ok(Reconnected {
                        at: Instant::now(),
                        refused,
                        stream,
                    });
                }
                // Refused: no server listens. Reset: the connection was in the backlog
                // when the server ended.
                Err(error)
                    if refused < ATTEMPTS
                        && matches!(
                            error.kind(),
                            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                        ) =>
                {
                    refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Requests the stream and reads the head of the answer. The request is HTTP/1.0, so the
/// answer is not chunked.
fn connect(address: SocketAddr, last_event_id: &str) -> io::Result<BufReader<TcpStream>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    let cursor = match last_event_id {
        "" => String::new(),
        id => format!("Last-Event-ID: {id}\r\n"),
    };
    let request = format!("GET /events HTTP/1.0\r\nAccept: text/event-stream\r\n{cursor}\r\n");
    socket.write_all(request.as_bytes())?;
    let mut stream = BufReader::with_capacity(LINE_BYTES, socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    match head.split(' ').nth(1) {
        Some("200") => Ok(stream),
        _ => Err(io::Error::other(format!(
            "the server refused the stream: {head}"
        ))),
    }
}

/// Reads the bytes that have arrived and decodes them. Returns their number; 0 at the end
/// of the stream.
fn read_some(stream: &mut BufReader<TcpStream>, decoder: &mut Decoder) -> io::Result<usize> {
    let bytes = stream.fill_buf()?;
    let count = bytes.len();
    decoder.feed(bytes, |_| ()).map_err(io::Error::other)?;
    stream.consume(count);
    Ok(count)
}

// The plot.

/// A plot of a restart. Consecutive rows without a client are printed as one row.
struct Plot<'a> {
    storm: &'a Storm,
    /// The count that has the longest bar.
    scale: usize,
}

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.storm.rows();
        let mut start = Duration::ZERO;
        for group in rows.chunk_by(|a, b| *a == 0 && *b == 0) {
            let seconds = start.as_secs_f64();
            match group[0] {
                0 => writeln!(f, "{seconds:>6.1} s         0  ...")?,
                count => {
                    let rate = count as f64 / ROW.as_secs_f64();
                    // Rounded up, so that a single client is visible.
                    let bar = "#".repeat((count * BAR).div_ceil(self.scale));
                    writeln!(f, "{seconds:>6.1} s  {rate:>8.0}  {bar}")?;
                }
            }
            start += ROW * group.len() as u32;
        }
        Ok(())
    }
}
