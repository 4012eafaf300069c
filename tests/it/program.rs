//! Tools for tests that run the program as a process: start the process, read the lines
//! that it prints, send signals, wait for its end.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use crate::kit::{DEADLINE, eventually};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tiny-sse");

/// A child process of a test. Dropping the value kills the process.
pub struct Process {
    pub child: Child,
    /// The lines on standard output and on standard error. A thread for each pipe reads
    /// them.
    pub out: Receiver<String>,
    pub err: Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: the process may have ended already.
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

    /// Starts the program with these arguments.
    #[track_caller]
    pub fn run(arguments: &[&str]) -> Process {
        Process::spawn(
            Command::new(PROGRAM)
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
    }

    /// Waits for the end of the process and returns its exit code, or `None` if a signal
    /// ended it.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().expect("a child process");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Ends the process by SIGKILL, which it cannot handle. Returns the rest of its lines
    /// on standard error.
    #[track_caller]
    pub fn kill(&mut self) -> Vec<String> {
        self.child.kill().expect("a child process");
        self.child.wait().expect("a child process");
        all_lines(&self.err)
    }

    /// Returns a number from `/proc/PID/status`, without its unit. Memory is in KiB
    /// there.
    #[track_caller]
    pub fn status(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        let number = number.and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// Sends a signal, such as `TERM`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill").success(), "kill -s {name} {pid}");
    }
}

/// Starts a thread that reads a pipe line by line, up to its end or to a line that is not
/// UTF-8.
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

/// Waits for the next line. Returns `None` at the end of the output.
#[track_caller]
pub fn next_line(lines: &Receiver<String>) -> Option<String> {
    match lines.recv_timeout(DEADLINE) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("no line within {DEADLINE:?}"),
    }
}

/// Waits for the end of the output and returns all lines that were not read yet.
#[track_caller]
pub fn all_lines(lines: &Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| next_line(lines)).collect()
}

/// Reads lines until one contains `part`, and returns all of them, this one included.
#[track_caller]
pub fn lines_up_to(lines: &Receiver<String>, part: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains(part)) {
        let line = next_line(lines);
        seen.push(line.unwrap_or_else(|| panic!("no {part:?} in {seen:?}")));
    }
    seen
}

/// A server process that has printed the address on which it listens.
pub struct Serving {
    pub process: Process,
    pub address: SocketAddr,
    /// The first five lines on standard output.
    pub greeting: Vec<String>,
}

/// Starts a server on a free port. The first of the arguments may be a command of the
/// program.
#[track_caller]
pub fn serve(arguments: &[&str]) -> Serving {
    serve_with_listen(&[arguments, &["--listen", "127.0.0.1:0"]].concat())
}

/// Like [`serve`], but the arguments contain `--listen`.
#[track_caller]
pub fn serve_with_listen(arguments: &[&str]) -> Serving {
    wait_for_greeting(Process::run(arguments))
}

/// Reads the lines that a server prints when it is ready, and takes its address from the
/// first of them.
#[track_caller]
pub fn wait_for_greeting(process: Process) -> Serving {
    let greeting: Vec<String> = (0..5).map_while(|_| next_line(&process.out)).collect();
    let address = greeting
        .first()
        .and_then(|line| line.split_once(" listens on "))
        .unwrap_or_else(|| panic!("no server: {greeting:?}, {:?}", all_lines(&process.err)))
        .1;
    Serving {
        address: address.parse().expect("an address"),
        process,
        greeting,
    }
}

/// Starts a server that cannot print its address, so the test chooses the port. The port
/// was free a moment earlier; if another process has taken it, the next attempt uses
/// another port.
#[track_caller]
pub fn serve_without_output(mut command: impl FnMut(&str) -> Command) -> (Process, SocketAddr) {
    for _ in 0..10 {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let mut process = Process::spawn(&mut command(&address.to_string()));
        let mut has_ended = false;
        eventually("the server answers or ends", || {
            has_ended = process.child.try_wait().expect("a child process").is_some();
            has_ended || TcpStream::connect(address).is_ok()
        });
        if !has_ended {
            return (process, address);
        }
    }
    panic!("the server ended in each of 10 attempts");
}

/// Runs the program until it ends by itself. Returns its exit code and its lines on
/// standard output and error.
#[track_caller]
pub fn run_to_end(arguments: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let mut process = Process::run(arguments);
    let code = process.exit_code();
    (code, all_lines(&process.out), all_lines(&process.err))
}
