//! Tools that run a real proxy in front of the server: nginx, HAProxy or Caddy. Each runs
//! in the foreground with its own configuration, port and directory, and is ended by its
//! process id.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::kit::{DEADLINE, Scratch, eventually};
use crate::program::{Process, all_lines};

/// The programs that can be the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    HaProxy,
    Caddy,
}

impl Kind {
    /// The command that runs the proxy. All files that the proxy writes are in the
    /// directory `scratch`.
    fn command(self, scratch: &str) -> Command {
        let config = format!("{scratch}/config");
        let (program, arguments) = match self {
            Kind::Nginx => {
                let global = format!("daemon off; pid {scratch}/pid;");
                let arguments = ["-e", "stderr", "-p", scratch, "-c", &config, "-g", &global];
                ("nginx", arguments.map(str::to_owned).to_vec())
            }
            Kind::HaProxy => (
                "haproxy",
                ["-db", "-f", &config].map(str::to_owned).to_vec(),
            ),
            Kind::Caddy => {
                let arguments = ["run", "--config", &config, "--adapter", "caddyfile"];
                ("caddy", arguments.map(str::to_owned).to_vec())
            }
        };
        let mut command = Command::new(find(program));
        command
            .args(arguments)
            .current_dir(scratch)
            .env("HOME", scratch)
            .env("XDG_CONFIG_HOME", scratch)
            .env("XDG_DATA_HOME", scratch)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// The path of the program, which may be in a directory that only root has in its PATH.
fn find(program: &str) -> String {
    let sbin = format!("/usr/sbin/{program}");
    if fs::exists(&sbin).unwrap_or(false) {
        sbin
    } else {
        program.to_owned()
    }
}

/// A proxy process that accepts connections. Dropping the value ends the process.
pub struct Proxy {
    kind: Kind,
    process: Process,
    pub address: SocketAddr,
    scratch: Scratch,
}

impl Proxy {
    /// Starts a proxy. `configure` returns its configuration for an address to listen on
    /// and a directory, in which it may create more files.
    #[track_caller]
    pub fn start(kind: Kind, configure: impl Fn(SocketAddr, &str) -> String) -> Proxy {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path()).expect("a directory");
        let mut failures = Vec::new();
        // Another process may take the free port before the proxy does; then the next
        // attempt uses another port.
        for _ in 0..3 {
            let address = free_address();
            let config = configure(address, scratch.name());
            fs::write(scratch.path().join("config"), config).expect("a file");
            match run(kind, address, scratch.name()) {
                Ok(process) => {
                    return Proxy {
                        kind,
                        process,
                        address,
                        scratch,
                    };
                }
                Err(lines) => failures.push(lines),
            }
        }
        panic!("no {kind:?}: {failures:#?}");
    }

    /// Ends the proxy by SIGTERM and starts it again with the same configuration. On
    /// SIGTERM none of the three waits long for its clients.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.signal("TERM");
        self.process.exit_code();
        self.process = run(self.kind, self.address, self.scratch.name())
            .expect("the same configuration works again");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM first: after a SIGKILL the child processes of nginx would go on. If the
        // proxy does not end, the drop of `process` sends SIGKILL all the same.
        let child = &mut self.process.child;
        let start = Instant::now();
        if matches!(child.try_wait(), Ok(None)) {
            let pid = child.id().to_string();
            // Best effort: the process may end at this moment.
            let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        }
        while matches!(child.try_wait(), Ok(None)) && start.elapsed() < DEADLINE {
            std::thread::yield_now();
        }
    }
}

/// Starts the proxy and waits until it accepts connections. If it ends instead, returns
/// the lines that it printed.
#[track_caller]
fn run(kind: Kind, address: SocketAddr, scratch: &str) -> Result<Process, Vec<String>> {
    let mut process = Process::spawn(&mut kind.command(scratch));
    let mut ended = false;
    eventually("the proxy accepts connections", || {
        ended = process.child.try_wait().expect("a child process").is_some();
        ended || TcpStream::connect(address).is_ok()
    });
    if ended {
        Err(all_lines(&process.err))
    } else {
        Ok(process)
    }
}

/// An address on which no process listens at this moment.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
