//! Real proxies in front of the server: nginx, HAProxy and Caddy, each with a configuration of its
//! own on a free port, in a directory of its own, in the foreground, ended by its process id.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::kit::{DEADLINE, Scratch, eventually};
use crate::program::{Process, all};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    HaProxy,
    Caddy,
}

impl Kind {
    /// The command that runs it, with all that it would write in `scratch`.
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

/// The program, also where only root's PATH has it.
fn find(program: &str) -> String {
    let sbin = format!("/usr/sbin/{program}");
    if fs::exists(&sbin).unwrap_or(false) {
        sbin
    } else {
        program.to_owned()
    }
}

/// A proxy that takes connections. Dropped, it is ended.
pub struct Front {
    kind: Kind,
    process: Process,
    pub address: SocketAddr,
    scratch: Scratch,
}

impl Front {
    /// Starts it with the configuration that `configure` makes of an address to listen on and of
    /// the directory, where more files may be left.
    #[track_caller]
    pub fn start(kind: Kind, configure: impl Fn(SocketAddr, &str) -> String) -> Front {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path()).expect("a directory");
        let mut thread_errors = Vec::new();
        // Between the asking for a port and its use somebody else may have taken it.
        for _ in 0..3 {
            let address = free_address();
            let config = configure(address, scratch.name());
            fs::write(scratch.path().join("config"), config).expect("a file");
            match run(kind, address, scratch.name()) {
                Ok(process) => {
                    return Front {
                        kind,
                        process,
                        address,
                        scratch,
                    };
                }
                Err(complaint) => thread_errors.push(complaint),
            }
        }
        panic!("no {kind:?}: {thread_errors:#?}");
    }

    /// Ends it by SIGTERM, on which none of them waits long for clients, and starts it again as it was.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.signal("TERM");
        self.process.exit_code();
        self.process = run(self.kind, self.address, self.scratch.name()).expect("the same again");
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // nginx has children, which SIGKILL would leave behind. Who does not end gets it all the same.
        let child = &mut self.process.child;
        let start = Instant::now();
        if matches!(child.try_wait(), Ok(None)) {
            let pid = child.id().to_string();
            // Best effort: it may end at this moment.
            let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        }
        while matches!(child.try_wait(), Ok(None)) && start.elapsed() < DEADLINE {
            std::thread::yield_now();
        }
    }
}

/// Starts it, and waits until it takes connections; or says what it said instead.
#[track_caller]
fn run(kind: Kind, address: SocketAddr, scratch: &str) -> Result<Process, Vec<String>> {
    let mut process = Process::spawn(&mut kind.command(scratch));
    let mut ended = false;
    eventually("a proxy that takes connections", || {
        ended = process.child.try_wait().expect("a child of ours").is_some();
        ended || TcpStream::connect(address).is_ok()
    });
    if ended {
        Err(all(&process.err))
    } else {
        Ok(process)
    }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
