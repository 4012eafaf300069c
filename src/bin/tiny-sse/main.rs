//! The program: a command line in front of the library's server.
//!
//! Exit codes: 0 done, 1 the machine said no, 2 the command line is wrong.

mod args;
#[cfg(test)]
#[path = "../../../tests/inside/chance.rs"]
#[allow(
    dead_code,
    reason = "shared with other tests, which use other parts of it"
)]
mod chance;
mod demo;
mod listen;
mod log;
#[cfg(test)]
#[path = "../../../tests/inside/args_random.rs"]
mod random;
mod system;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::{panic, thread};

use args::{Command, Options};
use demo::{Threads, Uses};
use log::Log;
use system::{Signal, Signals};
use tiny_sse::{Config, Level, Report, Running, Server};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Serve(options)) => {
            // ORDER: before the first thread, because threads inherit what is blocked, and the
            // allocator is set up for all of them.
            let signals = Signals::block();
            system::set_up_allocator();
            let log = Log::start();
            match serve(*options, signals, &log) {
                Ok(()) => finish(&log, 0),
                Err(message) => fail(&log, 1, &message),
            }
        }
        Ok(Command::Print(text)) => {
            // Best effort: a reader such as `head` may have seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => fail(&Log::start(), 2, &message),
    }
}

fn fail(log: &Log, code: u8, message: &str) -> ExitCode {
    log.say(format_args!("tiny-sse: {message}"));
    finish(log, code)
}

fn finish(log: &Log, code: u8) -> ExitCode {
    log.finish();
    ExitCode::from(code)
}

fn serve(options: Options, signals: Signals, log: &Log) -> Result<(), String> {
    let Options {
        listen,
        log: level,
        demo,
        config,
    } = options;
    log_panics(log.clone());
    let (publishers, has_tokens) = (Publishers::of(&config), config.access.tokens.is_some());
    let config = Config {
        report: log.report(level),
        ..config
    };
    if let Err(error) = system::raise_open_files() {
        // Best effort: the server then lets in as many clients as the lower limit allows, and says so.
        config.report.tell(
            Level::Warn,
            format_args!("cannot raise the limit of open files: {error}"),
        );
    }
    let listener = listen
        .bind(&config)
        .map_err(|error| format!("cannot listen on {listen}: {}", reason(&error)))?;
    let report = config.report.clone();
    let server = Server::from_listener(listener, config).map_err(|error| error.to_string())?;
    let (running, threads) =
        spawn(server, demo).map_err(|error| format!("cannot start: {}", reason(&error)))?;
    let mut reachable = running.local_addr();
    if listen.is_every_address() {
        reachable.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    greet(running.local_addr(), reachable, demo, publishers);
    let signal = loop {
        match signals.wait() {
            Signal::Hangup if has_tokens => reload(&running, &report),
            Signal::Hangup => report.tell(
                Level::Warn,
                format_args!(
                    "SIGHUP: ignored, there is no file of tokens to read again (--tokens)"
                ),
            ),
            Signal::End(name) => break name,
        }
    };
    let last = log.clone();
    signals.exit_at_the_next(move || last.finish());
    log.say(format_args!(
        "tiny-sse: {signal}: closing; once more to end at once"
    ));
    running.shutdown();
    for thread in threads {
        // A panic in it has been reported by the hook.
        let _ = thread.join();
    }
    Ok(())
}

/// Sends what std would print of a panic to the log: std waits for standard error, and the thread
/// that panics may be one that serves all clients.
fn log_panics(log: Log) {
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        log.tell(
            Level::Error,
            format_args!("thread {name} panicked at {place}: {message:?}"),
        );
    }));
}

/// Serves, with the six uses in front or without, and answers the threads to be joined at the end.
fn spawn(server: Server, demo: bool) -> io::Result<(Running, Threads)> {
    let mut threads = Threads::new();
    let uses = if demo {
        Some(Uses::start(server.hub(), &mut threads)?)
    } else {
        None
    };
    let uses = Arc::new(uses);
    let wanted = Arc::clone(&uses);
    let server = server.wants_body(move |request, api| match &*wanted {
        Some(uses) => uses.wants_body(request, api),
        None => false,
    });
    // One handler for both: each would be a server of its own, in the binary.
    let running = server.spawn_with(move |request, api| match &*uses {
        Some(uses) => uses.answer(request, api),
        None => api.answer(request),
    })?;
    Ok((running, threads))
}

/// Reads the tokens again. If they are wrong, those from before go on being right.
fn reload(running: &Running, report: &Report) {
    if let Err(error) = running.reload_tokens() {
        let line = format_args!("SIGHUP: {error}; the tokens from before stay");
        report.tell(Level::Error, line);
    }
}

/// Who may publish, for a person to know.
enum Publishers {
    WithToken,
    Anybody,
    /// Every program on this machine, if that is where the server listens.
    Local,
    /// A client that a trusted proxy says is this machine.
    LocalThroughProxy,
}

impl Publishers {
    fn of(config: &Config) -> Publishers {
        if config.open {
            Publishers::Anybody
        } else if config.access.publish_token.is_some() || config.access.tokens.is_some() {
            Publishers::WithToken
        } else if config.trust_proxy.iter().any(|proxy| {
            proxy.contains(Ipv4Addr::LOCALHOST.into()) || proxy.contains(Ipv6Addr::LOCALHOST.into())
        }) {
            Publishers::LocalThroughProxy
        } else {
            Publishers::Local
        }
    }

    /// What one of them types.
    fn try_it(&self, address: SocketAddr, url: &str) -> String {
        match self {
            Publishers::WithToken => {
                format!("curl -d 'hello' -H 'Authorization: Bearer TOKEN' {url}/events")
            }
            Publishers::Local | Publishers::LocalThroughProxy
                if !address.ip().to_canonical().is_loopback() =>
            {
                "nobody may: others reach this address (--publish-token, --tokens or --open)".into()
            }
            Publishers::LocalThroughProxy => {
                "only clients that the proxy says are this machine (--publish-token, --tokens or --open)"
                    .into()
            }
            Publishers::Local | Publishers::Anybody => format!("curl -d 'hello' {url}/events"),
        }
    }
}

/// Prints the commands to try next, with an address that a client can connect to.
fn greet(address: SocketAddr, mut reachable: SocketAddr, demo: bool, publishers: Publishers) {
    match reachable.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => reachable.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => reachable.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let url = format!("http://{reachable}");
    let mut text = format!(
        "tiny-sse {} listens on {address}\n\n  subscribe:  curl -N {url}/events\n  publish:    {}\n\n",
        env!("CARGO_PKG_VERSION"),
        publishers.try_it(address, &url)
    );
    if demo {
        text += &demo::list(&url);
    }
    // Best effort: the server works without standard output. In a thread that is not joined, because
    // standard output may be a pipe that is not read.
    let write = move || io::stdout().write_all(text.as_bytes());
    let _ = thread::Builder::new().name("greeting".into()).spawn(write);
}

/// "permission denied" rather than "Permission denied (os error 13)".
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) if error.kind().to_string() != "uncategorized error" => error.kind().to_string(),
        _ => error.to_string(),
    }
}
