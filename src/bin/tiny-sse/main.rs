//! The program: a command line in front of the library's server.
//!
//! Exit codes: 0 done, 1 the machine said no, 2 the command line is wrong.
//!
//! On Unix the C library calls `main` in `system.rs`, and not std's start of a program, which would give
//! each thread a stack of its own for signal handlers.

#![cfg_attr(all(unix, not(test)), no_main)]

mod args;
#[cfg(test)]
#[path = "../../../tests/inside/chance.rs"]
#[allow(
    dead_code,
    reason = "shared with other tests, which use other parts of it"
)]
mod chance;
#[cfg(feature = "demo")]
mod demo;
mod deploy;
mod listen;
mod log;
#[cfg(test)]
#[path = "../../../tests/inside/args_random.rs"]
mod random;
mod system;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic;
use std::thread::{self, JoinHandle};

use args::{Command, Options};
use log::Logger;
use system::{Signal, Signals};
use tiny_sse::{Config, Level, Running, Server};

#[cfg(any(not(unix), test))]
fn main() -> std::process::ExitCode {
    run(std::env::args_os().skip(1)).into()
}

/// All that the program does, from the words after its name to its exit code.
fn run(words: impl Iterator<Item = OsString>) -> u8 {
    match args::parse(words, |name| std::env::var_os(name)) {
        Ok(Command::Serve(options)) => {
            // ORDER: before the first thread, because threads inherit what is blocked, and the
            // allocator is set up for all of them.
            let signals = Signals::block();
            system::set_up_allocator();
            let log = Logger::start();
            match serve(*options, signals, &log) {
                Ok(()) => finish(&log, 0),
                Err(message) => fail(&log, 1, &message),
            }
        }
        Ok(Command::Print(text)) => {
            // Best effort: a reader such as `head` may have seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(message) => fail(&Logger::start(), 2, &message),
    }
}

fn fail(log: &Logger, code: u8, message: &str) -> u8 {
    log.say(format_args!("tiny-sse: {message}"));
    finish(log, code)
}

fn finish(log: &Logger, code: u8) -> u8 {
    log.finish();
    code
}

fn serve(options: Options, signals: Signals, log: &Logger) -> Result<(), String> {
    log_panics(log.clone());
    let Options { listen, demo, .. } = options;
    let config = Config {
        report: log.report(options.log),
        ..options.config
    };
    if let Err(error) = system::raise_open_files() {
        // Best effort: the server then lets in as many clients as the lower limit allows, and says so.
        let line = format_args!("cannot raise the limit of open files: {error}");
        config.report.tell(Level::Warn, line);
    }
    system::make_room_for_waiting_threads(config.max_connections());
    let listener = listen.bind(&config)?;
    let server =
        Server::from_listener(listener, config.clone()).map_err(|error| error.to_string())?;
    let (running, threads) =
        spawn(server, demo).map_err(|error| format!("cannot start: {}", reason(&error)))?;
    greet(&running, listen.is_every_address(), demo, &config);
    let signal = loop {
        match signals.wait() {
            Signal::Hangup => hang_up(&running, &config),
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
        thread.thread().unpark();
        // A panic in it has been reported by the hook.
        let _ = thread.join();
    }
    Ok(())
}

/// Sends what std would print of a panic to the log: std waits for standard error, and the thread
/// that panics may be one that serves all clients.
fn log_panics(log: Logger) {
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_default();
        let line = format_args!("thread {name} panicked at {place}: {message:?}");
        log.tell(Level::Error, line);
    }));
}

/// Serves, with the six uses or without. Returns the threads to be unparked and joined at the end.
fn spawn(server: Server, demo: bool) -> io::Result<(Running, Vec<JoinHandle<()>>)> {
    match demo {
        #[cfg(feature = "demo")]
        true => demo::spawn(server),
        _ => Ok((server.spawn()?, Vec::new())),
    }
}

/// Reads the tokens again, if there is a file of them. If they are wrong, those from before stay.
fn hang_up(running: &Running, config: &Config) {
    #[cfg(feature = "access")]
    if config.access.tokens.is_some() {
        if let Err(error) = running.reload_tokens() {
            let line = format_args!("SIGHUP: {error}; the tokens from before stay");
            config.report.tell(Level::Error, line);
        }
        return;
    }
    let _ = running;
    let line = format_args!("SIGHUP: ignored, there is no file of tokens to read again");
    config.report.tell(Level::Warn, line);
}

/// Prints the commands to try next, with an address that a client can connect to.
fn greet(running: &Running, is_every_address: bool, demo: bool, config: &Config) {
    let address = running.local_addr();
    let mut reachable = address;
    if is_every_address || address.ip() == Ipv4Addr::UNSPECIFIED {
        reachable.set_ip(Ipv4Addr::LOCALHOST.into());
    } else if address.ip() == Ipv6Addr::UNSPECIFIED {
        reachable.set_ip(Ipv6Addr::LOCALHOST.into());
    }
    let url = format!("http://{reachable}");
    let uses = match demo {
        #[cfg(feature = "demo")]
        true => demo::list(&url),
        _ => String::new(),
    };
    let text = format!(
        "{} listens on {address}\n\n  subscribe:  curl -N {url}/events\n  publish:    {}\n\n{uses}",
        args::VERSION,
        how_to_publish(config, address, &url)
    );
    // Best effort: the server works without standard output. In a thread that is not joined, because
    // standard output may be a pipe that is not read.
    let write = move || io::stdout().write_all(text.as_bytes());
    let _ = thread::Builder::new().name("greeting".into()).spawn(write);
}

/// The command that publishes, or the clients that may.
fn how_to_publish(config: &Config, address: SocketAddr, url: &str) -> String {
    #[cfg(feature = "access")]
    let (needs_token, remedy) = (
        config.access.publish_token.is_some() || config.access.tokens.is_some(),
        "--publish-token, --tokens or --open",
    );
    #[cfg(not(feature = "access"))]
    let (needs_token, remedy) = (false, "--open");
    let trusts = |proxy: IpAddr| {
        config
            .trust_proxy
            .iter()
            .any(|network| network.contains(proxy))
    };
    if needs_token {
        format!("curl -d 'hello' -H 'Authorization: Bearer TOKEN' {url}/events")
    } else if config.open {
        format!("curl -d 'hello' {url}/events")
    } else if !address.ip().to_canonical().is_loopback() {
        format!("nobody may: others reach this address ({remedy})")
    } else if trusts(Ipv4Addr::LOCALHOST.into()) || trusts(Ipv6Addr::LOCALHOST.into()) {
        format!("only clients that the proxy says are this machine ({remedy})")
    } else {
        format!("curl -d 'hello' {url}/events")
    }
}

/// "permission denied" rather than "Permission denied (os error 13)".
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) if error.kind().to_string() != "uncategorized error" => error.kind().to_string(),
        _ => error.to_string(),
    }
}
