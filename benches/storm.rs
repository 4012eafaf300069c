//! What a restart brings down on a server: all of its clients, who come back when they were told
//! to. Twice: told alike, as by a server that gives everybody the same `retry:`, and told apart.
//!
//! ```text
//! cargo bench --bench storm              1,000 clients: under ten seconds
//! cargo bench --bench storm -- 3000      so many; several numbers may be given
//! ```
//!
//! # What happens
//!
//! A server gets its clients, one after the other, and is shut down. Another is started on the same
//! port at once. Each client does what a browser's EventSource does: reads its stream to the end,
//! waits as long as the last `retry:` said, connects again with `Last-Event-ID`, and if it is
//! refused tries again after the same wait.
//!
//! The server is the same both times, and says both times in its farewell how long to wait. The
//! clients of the first run are deaf to that: they know the `retry:` of their welcome only.
//!
//! # What is measured
//!
//! When, since the shutdown began, a client has read the head of its second stream. A row of a plot
//! is what came in 200 ms; the peak is the most in any 100 ms, wherever they begin. Both plots have
//! one scale.
//!
//! A second peak, a second behind the first, is the kernel's. Connections wait in a queue to be
//! accepted, 128 of them as std has it (the program raises it to 4,096); who finds it full is not
//! answered, and the kernel asks again a second later (`ListenOverflows` in `/proc/net/netstat`).
//! How many differs from run to run: none of 1,000, or half of them. Clients who were told apart
//! have not been seen to fill it.
//!
//! # What is not measured
//!
//! A network, and with it the different distances that would blur the first peak a little. Server
//! and clients, with a thread each, are one process on the same processors, and the first run keeps
//! all of them busy: its peak is what the machine gives, and not all that was asked of it. What a
//! client costs who comes back (TLS, a session, what it has missed) is not in it either, and that
//! is what makes a storm of it.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use tiny_sse::{Config, Decoder, Level, Report, Running, Server};

/// How many come back unless the command line says otherwise.
const CLIENTS: usize = 1000;
/// What a welcome says. Short, so that the bench is; the plots begin when it is over.
const RETRY: Duration = Duration::from_secs(1);
/// The same as a test: whether it works, and not how it looks.
const TEST: (usize, Duration) = (10, Duration::from_millis(50));
/// What a row of a plot covers.
const ROW: Duration = Duration::from_millis(200);
/// What a peak is the most of.
const INSTANT: Duration = Duration::from_millis(100);
/// The longest bar. With the two numbers before it a line has 80 columns.
const BAR: usize = 60;
/// A thread here needs little, and there are many.
const STACK_BYTES: usize = 64 * 1024;
/// More than a line of the stream has.
const LINE_BYTES: usize = 1024;
/// Who waits longer for a byte waits in vain.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who was refused so often gives up. A browser would go on.
const ATTEMPTS: u32 = 10;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match conduct(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line as cargo and people write it, measures, prints. False: somebody did not
/// come back.
fn conduct(words: &[String]) -> io::Result<bool> {
    let (options, names): (Vec<&str>, Vec<&str>) = words
        .iter()
        .map(String::as_str)
        .partition(|word| word.starts_with("--"));
    let Ok(mut counts) = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<usize>, _>>()
    else {
        return Ok(true); // the name of something in another bench
    };
    // `cargo test --benches` says nothing, `cargo bench` says `--bench`.
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

/// The two plots for so many clients. False: somebody did not come back.
fn compare(clients: usize, retry: Duration) -> io::Result<bool> {
    let alike = storm(clients, retry, Heed::Welcome)?;
    let apart = storm(clients, retry, Heed::CloseReason)?;
    // One scale, so that the two can be compared at a glance.
    let scale = alike.rows().into_iter().chain(apart.rows()).max();
    println!("a server with {clients} clients restarts");
    for (storm, title) in [
        (&alike, "all are told the same retry:"),
        (&apart, "each is told a retry: of its own"),
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
    let (high, low) = (alike.peak(), apart.peak());
    println!(
        "\npeak: {high:.0}/s and {low:.0}/s, a ratio of {:.1}",
        high / low
    );
    println!(
        "the server was away for {:.0?} and {:.0?}",
        alike.away, apart.away
    );
    let expected = 2 * clients;
    let returned = alike.returns.len() + apart.returns.len();
    let refused = alike.refused + apart.refused;
    println!("of {expected} clients {returned} came back, {refused} connections were refused\n");
    Ok(returned == expected)
}

// The storm.

/// Which `retry:` a client goes by.
#[derive(Clone, Copy)]
enum Heed {
    /// The one of the welcome, the same for all.
    Welcome,
    /// The last, which is the farewell's.
    CloseReason,
}

/// What became of a restart.
struct Storm {
    /// When each client was back, since the shutdown began, in order.
    returns: Vec<Duration>,
    /// Connections that came while there was no server.
    refused: u32,
    /// From the beginning of the shutdown until the next server listened.
    away: Duration,
}

/// A life of the server, its end, and the beginning of another.
fn storm(clients: usize, retry: Duration, heed: Heed) -> io::Result<Storm> {
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
    let first = serve("127.0.0.1:0".parse().expect("BUG: no address"), &config)?;
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
                thread.spawn_scoped(scope, move || client.ride_out(heed))
            })
            .collect::<io::Result<_>>()?;
        let began = Instant::now();
        first.shutdown();
        // ORDER: dropped behind the joins, when all who are back have been counted.
        let _second = serve(address, &config)?;
        let away = began.elapsed();
        let mut storm = Storm {
            returns: Vec::new(),
            refused: 0,
            away,
        };
        // Kept open to the end: the second server has to carry all of them at once, as the first.
        let mut streams = Vec::new();
        for client in clients {
            match client.join().expect("BUG: a client has panicked") {
                Ok(back) => {
                    storm.returns.push(back.at - began);
                    storm.refused += back.refused;
                    streams.push(back.stream);
                }
                Err(error) => eprintln!("a client has given up: {error}"),
            }
        }
        storm.returns.sort_unstable();
        Ok(storm)
    })
}

/// A server on this address. std sets `SO_REUSEADDR` on Unix, so that the port can be had again
/// while connections of the last life linger on it.
fn serve(address: SocketAddr, config: &Config) -> io::Result<Running> {
    Server::from_listener(TcpListener::bind(address)?, config.clone())?.spawn()
}

impl Storm {
    /// How many came back in each row of the plot.
    fn rows(&self) -> Vec<usize> {
        let row = |at: &Duration| at.div_duration_f64(ROW) as usize;
        let mut rows = vec![0; self.returns.last().map_or(0, |last| row(last) + 1)];
        for at in &self.returns {
            rows[row(at)] += 1;
        }
        rows
    }

    /// The most that came back in [`INSTANT`], per second.
    fn peak(&self) -> f64 {
        let most = self.returns.iter().enumerate().map(|(index, &start)| {
            let end = self.returns.partition_point(|&at| at < start + INSTANT);
            end - index
        });
        most.max().unwrap_or(0) as f64 / INSTANT.as_secs_f64()
    }
}

// A client.

/// What a browser's EventSource is, as far as a restart goes.
struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    decoder: Decoder,
    /// The `retry:` of the welcome.
    welcome: Duration,
}

/// A client that is back.
struct Back {
    at: Instant,
    /// Attempts before the one that succeeded.
    refused: u32,
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and reads the welcome.
    fn subscribe(address: SocketAddr) -> io::Result<Client> {
        let mut stream = connect(address, "")?;
        let mut decoder = Decoder::new(LINE_BYTES);
        while decoder.last_event_id().is_empty() {
            if hear(&mut stream, &mut decoder)? == 0 {
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

    /// Reads on to the end, waits, and comes back.
    fn ride_out(mut self, heed: Heed) -> io::Result<Back> {
        while hear(&mut self.stream, &mut self.decoder)? > 0 {}
        let wait = match heed {
            Heed::Welcome => self.welcome,
            Heed::CloseReason => self.decoder.retry().unwrap_or(self.welcome),
        };
        // As a browser does. The server waits a little for it, so that its last words arrive.
        drop(self.stream);
        let mut refused = 0;
        loop {
            thread::sleep(wait);
            match connect(self.address, self.decoder.last_event_id()) {
                Ok(stream) => {
                    return Ok(Back {
                        at: Instant::now(),
                        refused,
                        stream,
                    });
                }
                // Nobody listens; or nobody does any more, and this was waiting to be accepted.
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

/// Asks for the stream, and reads the head of the answer. As HTTP/1.0, which has no chunks.
fn connect(address: SocketAddr, last_event_id: &str) -> io::Result<BufReader<TcpStream>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
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
        _ => Err(io::Error::other(format!("not let in: {head}"))),
    }
}

/// Takes what has come of the stream; answers how many bytes, 0 at its end.
fn hear(stream: &mut BufReader<TcpStream>, decoder: &mut Decoder) -> io::Result<usize> {
    let bytes = stream.fill_buf()?;
    let count = bytes.len();
    decoder.feed(bytes, |_| ()).map_err(io::Error::other)?;
    stream.consume(count);
    Ok(count)
}

// The plot.

/// A row for each stretch of time that somebody came in, and one for several in which nobody did.
struct Plot<'a> {
    storm: &'a Storm,
    /// The count that has the longest bar.
    scale: usize,
}

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.storm.rows();
        let mut start = Duration::ZERO;
        for alike in rows.chunk_by(|a, b| *a == 0 && *b == 0) {
            let seconds = start.as_secs_f64();
            match alike[0] {
                0 => writeln!(f, "{seconds:>6.1} s         0  ...")?,
                count => {
                    let rate = count as f64 / ROW.as_secs_f64();
                    // Whoever came at all is seen.
                    let bar = "#".repeat((count * BAR).div_ceil(self.scale));
                    writeln!(f, "{seconds:>6.1} s  {rate:>8.0}  {bar}")?;
                }
            }
            start += ROW * alike.len() as u32;
        }
        Ok(())
    }
}
