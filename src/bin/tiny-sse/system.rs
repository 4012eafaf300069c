//! The few things that std has no door to, and all of the crate's `unsafe`: waiting for signals,
//! a longer queue of connections, more open files, an allocator that spares address space.

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process;
use std::thread;

/// Room for a signal set of any C library (glibc has the largest, 128 bytes). It is only ever
/// written and read by the library.
#[repr(C, align(8))]
struct SignalSet([u8; 128]);

/// `struct rlimit` where `rlim_t` has 64 bits, which is every 64-bit system.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    fn listen(socket: c_int, backlog: c_int) -> c_int;
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn getrlimit(resource: c_int, limit: *mut Limit) -> c_int;
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// The same on every system that has them.
const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

const SIG_BLOCK: c_int = if cfg!(any(target_os = "linux", target_os = "android")) {
    0
} else {
    1
};

/// What a signal asks for.
pub(crate) enum Signal {
    /// SIGHUP: to read again what can be read again.
    Hangup,
    /// To end; with its name.
    End(&'static str),
}

/// SIGINT and SIGTERM, and SIGHUP if it is wanted, blocked so that they wait to be asked for. No
/// handler runs, so nothing has to be safe to do in one.
pub(crate) struct Signals(SignalSet);

impl Signals {
    /// Blocks them in this thread and in those that it starts from now on. SIGHUP, if it is not
    /// wanted, does what it always did: it ends the program with its terminal, or, under `nohup`,
    /// nothing.
    pub(crate) fn block(hangup: bool) -> Signals {
        let mut set = SignalSet([0; 128]);
        // SAFETY: `set` is large and aligned enough for any `sigset_t`, and lives through the
        // calls; the signals are valid; a null pointer for the old mask is allowed.
        unsafe {
            sigemptyset(&mut set);
            sigaddset(&mut set, SIGINT);
            sigaddset(&mut set, SIGTERM);
            if hangup {
                sigaddset(&mut set, SIGHUP);
            }
            pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut());
        }
        Signals(set)
    }

    /// Blocks until one of them comes.
    pub(crate) fn wait(&self) -> Signal {
        match self.next() {
            SIGHUP => Signal::Hangup,
            SIGTERM => Signal::End("SIGTERM"),
            _ => Signal::End("SIGINT"),
        }
    }

    /// Ends the process as soon as another one comes that asks for it.
    pub(crate) fn exit_at_the_next(self) {
        let exit = move || {
            loop {
                match self.next() {
                    SIGHUP => {}
                    signal => process::exit(128 + signal),
                }
            }
        };
        // Best effort: without a thread the shutdown is merely not to be hurried.
        let _ = thread::Builder::new().name("signals".into()).spawn(exit);
    }

    fn next(&self) -> c_int {
        let mut signal = 0;
        // SAFETY: the set was made by `block`, and both pointers live through the call.
        unsafe { sigwait(&self.0, &mut signal) };
        signal
    }
}

/// Lets 4,096 connections wait to be accepted. std's 128 are gone in a storm, and whom the kernel
/// drops tries again only after a second. The kernel lowers it to `net.core.somaxconn`.
pub(crate) fn raise_backlog(listener: &TcpListener) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `listener` is; `listen` on a socket that listens
    // only changes its backlog.
    match unsafe { listen(listener.as_raw_fd(), 4096) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of open files to the hard one: the soft one is low for the sake of
/// programs that use `select`.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) fn raise_open_files() -> io::Result<()> {
    const RLIMIT_NOFILE: c_int = if cfg!(any(target_arch = "mips64", target_arch = "mips64r6")) {
        5
    } else {
        7
    };
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: `limit` is a `struct rlimit` of this system and lives through both calls.
    let done = unsafe {
        getrlimit(RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.soft = limit.hard;
            setrlimit(RLIMIT_NOFILE, &limit) == 0
        }
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Elsewhere the limit is left as it is.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(crate) fn raise_open_files() -> io::Result<()> {
    Ok(())
}

/// Where address space is limited, keeps glibc from reserving 64 MiB of it for an arena of each of
/// the first threads; several hundred streams fit into that.
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
pub(crate) fn spare_addresses() {
    const RLIMIT_AS: c_int = if cfg!(any(target_arch = "mips64", target_arch = "mips64r6")) {
        6
    } else {
        9
    };
    const M_ARENA_MAX: c_int = -8;
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: `limit` is a `struct rlimit` of this system and lives through the call; `mallopt`
    // takes any values, and is called before there is a second thread. It fails only by changing
    // nothing, and then fewer streams fit.
    unsafe {
        if getrlimit(RLIMIT_AS, &mut limit) == 0 && limit.soft != u64::MAX {
            mallopt(M_ARENA_MAX, 1);
        }
    }
}

/// Other allocators reserve little.
#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
pub(crate) fn spare_addresses() {}
