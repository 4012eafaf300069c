//! The program: a command line in front of the library's server.
//!
//! Exit codes: 0 done, 1 the machine said no, 2 the command line is wrong.

mod args;
#[cfg(test)]
#[path = "../../../tests/it/chance.rs"]
#[allow(
    dead_code,
    reason = "shared with other tests, which use other parts of it"
)]
mod chance;
mod demo;
#[cfg(test)]
mod random;
mod system;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use args::{Command, Options};
use demo::{Threads, Uses};
use system::Signal;
use tiny_sse::wire::date;
use tiny_sse::{Config, Level, Report, Running, Server};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Serve(options)) => match serve(*options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => fail(1, &message),
        },
        Ok(Command::Print(text)) => {
            // Best effort: a reader such as `head` may have seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => fail(2, &message),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    say(format_args!("tiny-sse: {message}"));
    ExitCode::from(code)
}

fn serve(options: Options) -> Result<(), String> {
    let Options {
        listen,
        log,
        demo,
        config,
    } = options;
    // ORDER: before the first thread, because threads inherit what is blocked.
    let signals = system::Signals::block(config.tokens.is_some());
    system::spare_addresses();
    let publishers = Publishers::of(&config);
    let report = report(log);
    let config = Config {
        report: report.clone(),
        ..config
    };
    if let Err(error) = system::raise_open_files() {
        // Best effort: the server then lets in as many clients as the lower limit allows, and says so.
        config.report.tell(
            Level::Warn,
            format_args!("cannot raise the limit of open files: {error}"),
        );
    }
    let cannot = |error: io::Error| format!("cannot listen on {listen}: {}", reason(&error));
    let listener = TcpListener::bind(&*listen).map_err(cannot)?;
    system::raise_backlog(&listener).map_err(cannot)?;
    let server = Server::from_listener(listener, config).map_err(|error| error.to_string())?;
    let (running, threads) =
        spawn(server, demo).map_err(|error| format!("cannot start: {}", reason(&error)))?;
    greet(running.local_addr(), demo, publishers);
    let signal = loop {
        match signals.wait() {
            Signal::Hangup => reload(&running, &report),
            Signal::End(name) => break name,
        }
    };
    signals.exit_at_the_next();
    say(format_args!(
        "tiny-sse: {signal}: closing; once more to end at once"
    ));
    running.shutdown();
    for thread in threads {
        // A panic in it has been reported by std.
        let _ = thread.join();
    }
    Ok(())
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

/// Best effort: `eprintln!` would panic where nobody reads standard error any more.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
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
        } else if config.publish_token.is_some() || config.tokens.is_some() {
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

/// What a person does next.
fn greet(address: SocketAddr, demo: bool, publishers: Publishers) {
    let mut reachable = address;
    match address.ip() {
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
    // Best effort: a server is no worse for a standard output that is closed.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Lines of the log go to standard error, with the time.
fn report(most: Option<Level>) -> Report {
    Report::new(move |level, line| {
        if most.is_some_and(|most| level <= most) {
            let line = format!(
                "{} {:5} {line}\n",
                date::iso8601(SystemTime::now()),
                level.name()
            );
            // Best effort, and in one write, so that lines of several threads do not mix.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    })
}

/// "permission denied" rather than "Permission denied (os error 13)".
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) if error.kind().to_string() != "uncategorized error" => error.kind().to_string(),
        _ => error.to_string(),
    }
}
