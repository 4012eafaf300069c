//! The program as a process: started, listened to, stopped. Who reads it reads what a shell would.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use crate::kit::{DEADLINE, eventually};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tiny-sse");

/// A process of a test. Dropped, it is killed.
pub struct Process {
    pub child: Child,
    pub out: Receiver<String>,
    pub err: Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: it may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process {
            out: lines(child.stdout.take()),
            err: lines(child.stderr.take()),
            child,
        }
    }

    #[track_caller]
    pub fn run(arguments: &[&str]) -> Process {
        Process::spawn(
            Command::new(PROGRAM)
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
    }

    /// Waits for the end; `None` is a death by a signal.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the end of the process", || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// SIGKILL, which it cannot know of. Answers what it had said on standard error.
    #[track_caller]
    pub fn kill(&mut self) -> Vec<String> {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
        all(&self.err)
    }

    /// A number that Linux has of it in `/proc`, without its unit.
    #[track_caller]
    pub fn status(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process of ours");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        let number = number.and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    #[track_caller]
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill").success(), "kill -s {name} {pid}");
    }
}

/// What comes out of a pipe, line by line. A line that is not UTF-8 ends it.
fn lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// The next line; `None` at the end.
#[track_caller]
pub fn next_line(lines: &Receiver<String>) -> Option<String> {
    match lines.recv_timeout(DEADLINE) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("no line within {DEADLINE:?}"),
    }
}

/// All lines to the end.
#[track_caller]
pub fn all(lines: &Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| next_line(lines)).collect()
}

/// The lines up to one with `part` in it, which is the last.
#[track_caller]
pub fn up_to(lines: &Receiver<String>, part: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains(part)) {
        let line = next_line(lines);
        seen.push(line.unwrap_or_else(|| panic!("no {part:?} in {seen:?}")));
    }
    seen
}

/// A server on a port of its own that has said where it listens.
pub struct Serving {
    pub process: Process,
    pub address: SocketAddr,
    pub greeting: Vec<String>,
}

/// A command may be the first of the arguments.
#[track_caller]
pub fn serve(arguments: &[&str]) -> Serving {
    serve_as(&[arguments, &["--listen", "127.0.0.1:0"]].concat())
}

/// A server that is told where to listen.
#[track_caller]
pub fn serve_as(arguments: &[&str]) -> Serving {
    greeted(Process::run(arguments))
}

/// Reads what a server says when it is ready.
#[track_caller]
pub fn greeted(process: Process) -> Serving {
    let greeting: Vec<String> = (0..5).map_while(|_| next_line(&process.out)).collect();
    let address = greeting
        .first()
        .and_then(|line| line.split_once(" listens on "))
        .unwrap_or_else(|| panic!("no server: {greeting:?}, {:?}", all(&process.err)))
        .1;
    Serving {
        address: address.parse().expect("an address"),
        process,
        greeting,
    }
}

/// A server that cannot print where it listens, so the test chooses the port. The port was free a moment
/// ago; if another process has taken it, the next attempt has another port.
#[track_caller]
pub fn serve_unheard(mut command: impl FnMut(&str) -> Command) -> (Process, SocketAddr) {
    for _ in 0..10 {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let mut process = Process::spawn(&mut command(&address.to_string()));
        let mut has_ended = false;
        eventually("the server answers or ends", || {
            has_ended = process.child.try_wait().expect("a child of ours").is_some();
            has_ended || TcpStream::connect(address).is_ok()
        });
        if !has_ended {
            return (process, address);
        }
    }
    panic!("no server has begun");
}

/// The code and the lines of a program that ends by itself.
#[track_caller]
pub fn end_of(arguments: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let mut process = Process::run(arguments);
    let code = process.exit_code();
    (code, all(&process.out), all(&process.err))
}
