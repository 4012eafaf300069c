//! The program: turns a command line into a running [`Server`] and a signal into a clean
//! shutdown.
//!
//! The main thread parses the command line (`args.rs`), opens the listener (`listen.rs`),
//! starts the server and then only waits for signals (`system.rs`). All clients are
//! served by threads of the library. The log has a thread of its own (`log.rs`), because
//! standard error may be a pipe that is full.
//!
//! Exit codes: 0 for success, 1 if the machine refuses something (an address in use, a
//! damaged journal), 2 if the command line is wrong, 101 if the main thread panics, and
//! 128 plus the number of the signal after a second SIGINT or SIGTERM.
//!
//! On Unix the C library calls `main` in `system.rs`, so std's startup code does not run.
//! That code would give each thread a second stack, for signal handlers.

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
#[cfg(feature = "access")]
mod token;

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

/// Runs the whole program. `words` are the words after the program's name; the result is
/// the exit code.
fn run(words: impl Iterator<Item = OsString>) -> u8 {
    match args::parse(words, |name| std::env::var_os(name)) {
        Ok(Command::Serve(options)) => {
            // ORDER: both before the first thread starts. A thread inherits the blocked
            // signals of the thread that starts it, and the settings of the allocator
            // must not change while another thread allocates.
            let signals = Signals::block();
            system::configure_allocator();
            let log = Logger::start();
            match serve(*options, signals, &log) {
                Ok(()) => finish(&log, 0),
                Err(message) => fail(&log, 1, &message),
            }
        }
        Ok(Command::Print(text)) => print(&text),
        #[cfg(feature = "access")]
        Ok(Command::Token(request)) => match request.make() {
            Ok(token) => print(&token),
            Err(message) => fail(&Logger::start(), 1, &message),
        },
        Err(message) => fail(&Logger::start(), 2, &message),
    }
}

/// Writes a text to standard output, and returns the exit code.
fn print(text: &str) -> u8 {
    // Best effort: a reader such as `head` may have closed the pipe already.
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

/// Logs why the program ends, waits for the log, and returns the exit code.
fn fail(log: &Logger, code: u8, message: &str) -> u8 {
    log.print(format_args!("tiny-sse: {message}"));
    finish(log, code)
}

/// Waits until the log is written, at most half a second, and returns the exit code.
fn finish(log: &Logger, code: u8) -> u8 {
    log.finish();
    code
}

/// Serves until SIGINT or SIGTERM, then shuts down: blocks for as long as the server
/// runs. The error is a line for the user: the server could not start.
///
/// All threads have been joined when it returns, apart from those that may wait for a
/// terminal or a pipe: the log and the startup message.
fn serve(options: Options, signals: Signals, log: &Logger) -> Result<(), String> {
    log_panics(log.clone());
    let Options { listen, demo, .. } = options;
    let config = Config {
        report: log.report(options.log),
        ..options.config
    };
    if let Err(error) = system::raise_open_files() {
        // Best effort: the server then accepts only as many clients as the lower limit
        // allows, and logs that number.
        let line = format_args!("cannot raise the limit of open files: {error}");
        config.report.tell(Level::Warn, line);
    }
    system::enlarge_futex_table(config.max_connections());
    let listener = listen.bind(&config)?;
    let server =
        Server::from_listener(listener, config.clone()).map_err(|error| error.to_string())?;
    let (running, threads) =
        spawn(server, demo).map_err(|error| format!("cannot start: {}", reason(&error)))?;
    print_startup_message(&running, listen.is_every_address(), demo, &config);
    let signal = loop {
        match signals.wait() {
            Signal::Hangup => reload_tokens(&running, &config),
            Signal::End(name) => break name,
        }
    };
    let log_of_exit = log.clone();
    signals.exit_on_next_end_signal(move || log_of_exit.finish());
    log.print(format_args!(
        "tiny-sse: {signal}: closing; a second signal ends the program at once"
    ));
    running.shutdown();
    for thread in threads {
        thread.thread().unpark();
        // Err means that the thread panicked. The panic hook has logged it already.
        let _ = thread.join();
    }
    Ok(())
}

/// Logs panics. std's own hook writes to standard error and blocks while that is full,
/// and the thread that panics may be one that all clients depend on, such as the fan-out
/// thread.
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
        let location = panic.location().map(ToString::to_string);
        let location = location.unwrap_or_default();
        let line = format_args!("thread {name} panicked at {location}: {message:?}");
        log.log(Level::Error, line);
    }));
}

/// Starts the server, with or without the six example uses. Returns the threads of the
/// uses: the caller unparks and joins them after the shutdown of the server.
fn spawn(server: Server, demo: bool) -> io::Result<(Running, Vec<JoinHandle<()>>)> {
    match demo {
        #[cfg(feature = "demo")]
        true => demo::spawn(server),
        _ => Ok((server.spawn()?, Vec::new())),
    }
}

/// Handles SIGHUP: reads the files of tokens and keys again, if there are any. If one of
/// them is invalid, the old tokens and keys remain valid.
fn reload_tokens(running: &Running, config: &Config) {
    #[cfg(feature = "access")]
    if config.access.tokens.is_some() || config.access.jwt_key_file.is_some() {
        if let Err(error) = running.reload_tokens() {
            let line = format_args!("SIGHUP: {error}; the old tokens remain valid");
            config.report.tell(Level::Error, line);
        }
        return;
    }
    let _ = running;
    let line =
        format_args!("SIGHUP: ignored, because there is no file of tokens or keys to read again");
    config.report.tell(Level::Warn, line);
}

/// Prints where the server listens, and commands to try. Their address is one that a
/// client on this machine can connect to, even if the server listens on every address.
fn print_startup_message(running: &Running, is_every_address: bool, demo: bool, config: &Config) {
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
    // Best effort: the server works without standard output. Standard output may be a
    // full pipe that is never read, so a thread that is not joined writes the text.
    let write = move || io::stdout().write_all(text.as_bytes());
    let _ = thread::Builder::new().name("startup".into()).spawn(write);
}

/// Returns the command that publishes an event, or the reason why a client on this
/// machine may not publish. The rules themselves are in the library (`api/exposure.rs`);
/// this text must agree with them.
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
        format!("forbidden, because other machines can reach this address ({remedy} allows it)")
    } else if trusts(Ipv4Addr::LOCALHOST.into()) || trusts(Ipv6Addr::LOCALHOST.into()) {
        format!(
            "only clients that the proxy reports to be on this machine ({remedy} allows others)"
        )
    } else {
        format!("curl -d 'hello' {url}/events")
    }
}

/// Returns the reason of an error in std's own words, such as "permission denied", if std
/// has words for this kind of error. `Display` would print "Permission denied (os error
/// 13)".
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) if error.kind().to_string() != "uncategorized error" => error.kind().to_string(),
        _ => error.to_string(),
    }
}
