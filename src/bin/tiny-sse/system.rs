//! The few things that std has no door to, and all of the crate's `unsafe`: the start, waiting for signals,
//! a longer queue of connections, socket options, more open files, an allocator that spares address
//! space and gives memory back.

#[cfg(all(unix, not(test)))]
use std::ffi::{CStr, OsStr, c_char};
use std::ffi::{c_int, c_void};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
#[cfg(all(unix, not(test)))]
use std::os::unix::ffi::OsStrExt;
use std::process;
use std::thread;
use std::time::Duration;

/// Room for a signal set of any C library (glibc has the largest, 128 bytes). It is only ever
/// written and read by the library.
#[repr(C, align(8))]
struct SignalSet([u8; 128]);

/// `rlim_t` is a `long` of glibc and uClibc. It has 64 bits on every machine with musl (OpenHarmony's C library
/// is a musl), on x86-64 with pointers of 32 bits and on riscv32.
#[cfg(all(
    target_os = "linux",
    not(any(
        target_env = "musl",
        target_env = "ohos",
        target_arch = "x86_64",
        target_arch = "riscv32"
    ))
))]
use std::ffi::c_ulong as Amount;
#[cfg(all(
    target_os = "linux",
    any(
        target_env = "musl",
        target_env = "ohos",
        target_arch = "x86_64",
        target_arch = "riscv32"
    )
))]
use std::primitive::u64 as Amount;

/// `struct rlimit`.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Limit {
    soft: Amount,
    hard: Amount,
}

unsafe extern "C" {
    #[cfg(all(unix, not(test)))]
    fn signal(signal: c_int, handler: usize) -> usize;
    #[cfg(all(unix, not(test)))]
    fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    #[cfg(all(unix, not(test)))]
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    fn listen(socket: c_int, backlog: c_int) -> c_int;
    fn setsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *const c_void,
        length: u32,
    ) -> c_int;
    #[cfg(target_os = "linux")]
    fn getrlimit(resource: c_int, limit: *mut Limit) -> c_int;
    #[cfg(target_os = "linux")]
    fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    #[cfg(target_os = "linux")]
    fn prctl(option: c_int, ...) -> c_int;
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// Where the C library starts the program.
///
/// std's own start would do what [`start`] does, and would set a handler of SIGSEGV that tells of a stack
/// overflow. Each thread then has a second stack for that handler: two more memory maps, so half as
/// many threads, and a start that costs more. Without it a stack overflow ends the process
/// with SIGSEGV and no message.
#[cfg(all(unix, not(test)))]
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    start();
    let words = (1..usize::try_from(count).unwrap_or(0)).map(|place| {
        // SAFETY: the C library hands over `count` pointers to texts that end in a NUL, and they live as
        // long as the process.
        let word = unsafe { CStr::from_ptr(*words.add(place)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    });
    let words: Vec<_> = words.collect();
    // A panic must not unwind into C. It has been reported by the hook.
    let run = || crate::run(words.into_iter());
    let code = std::panic::catch_unwind(run).unwrap_or(PANICKED);
    // Flushes the standard output, which a return would not.
    process::exit(code.into())
}

/// The exit code of a program that std starts, if its main thread panics.
#[cfg(all(unix, not(test)))]
const PANICKED: u8 = 101;

/// Prepares the process as std's start of a program does: a write to a closed pipe is an error and not a
/// signal, and the descriptors 0 to 2 are open, so that no file or socket gets one of these numbers.
#[cfg(all(unix, not(test)))]
fn start() {
    const SIGPIPE: c_int = 13;
    const IGNORE: usize = 1;
    const F_GETFD: c_int = 1;
    const O_RDWR: c_int = 2;
    // SAFETY: to ignore a signal needs no handler; the path ends in a NUL and lives through the call. The lowest
    // free descriptor is the one that is closed, because those before it were looked at.
    unsafe {
        signal(SIGPIPE, IGNORE);
        for descriptor in 0..3 {
            if fcntl(descriptor, F_GETFD) == -1 {
                open(c"/dev/null".as_ptr(), O_RDWR);
            }
        }
    }
}

/// The same on every system that has them.
const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGXFSZ: c_int = if IS_MIPS { 31 } else { 25 };

const SIG_BLOCK: c_int = if IS_LINUX { 0 } else { 1 };

/// On MIPS and SPARC, Linux has numbers of older systems.
const IS_MIPS: bool = cfg!(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6"
));
const IS_SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
/// Linux with the numbers that all other machines have.
const IS_LINUX: bool =
    cfg!(any(target_os = "linux", target_os = "android")) && !IS_MIPS && !IS_SPARC;

/// What a signal asks for.
pub(crate) enum Signal {
    /// SIGHUP: to read again what can be read again. It also comes when the terminal that the
    /// program was started from is closed.
    Hangup,
    /// To end; with its name.
    End(&'static str),
}

/// SIGINT, SIGTERM and SIGHUP, blocked so that they stay pending until `wait` takes them. There is no
/// signal handler, so no code has to be async-signal-safe.
///
/// SIGXFSZ is blocked too: a write past the limit of a file's size is then an error, as on a full disk,
/// and not the end of the process. SIGPIPE is ignored from the start. All other signals do what they do by default:
/// SIGQUIT, SIGUSR1 and SIGUSR2 end the process at once, SIGTSTP stops it.
pub(crate) struct Signals(SignalSet);

impl Signals {
    /// Blocks them in this thread and in those that it starts from now on.
    pub(crate) fn block() -> Signals {
        // SIGXFSZ is never waited for: it stays pending, once for each thread.
        block(&[SIGXFSZ]);
        Signals(block(&[SIGHUP, SIGINT, SIGTERM]))
    }

    /// Blocks until one of them comes.
    pub(crate) fn wait(&self) -> Signal {
        match self.next() {
            SIGHUP => Signal::Hangup,
            SIGTERM => Signal::End("SIGTERM"),
            _ => Signal::End("SIGINT"),
        }
    }

    /// Ends the process at the next SIGINT or SIGTERM, after a call of `last`, which must not take long.
    pub(crate) fn exit_at_the_next(self, last: impl FnOnce() + Send + 'static) {
        let exit = move || {
            let signal = loop {
                match self.next() {
                    SIGHUP => {}
                    signal => break signal,
                }
            };
            last();
            process::exit(128 + signal);
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

/// Blocks signals in this thread and in those that it starts from now on; returns them as a set.
fn block(signals: &[c_int]) -> SignalSet {
    let mut set = SignalSet([0; 128]);
    // SAFETY: `set` is large and aligned enough for any `sigset_t`, and lives through the calls; the
    // signals are valid; a null pointer for the old mask is allowed.
    unsafe {
        sigemptyset(&mut set);
        for signal in signals {
            sigaddset(&mut set, *signal);
        }
        pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut());
    }
    set
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

const SOL_SOCKET: c_int = if IS_LINUX { 1 } else { 0xffff };
const SO_SNDBUF: c_int = if IS_LINUX { 7 } else { 0x1001 };

/// Fixes the size of the send buffers of the sockets that the listener accepts from now on. Linux
/// counts its own bookkeeping too and takes twice as much, and at most twice `net.core.wmem_max`.
pub(crate) fn set_send_buffer(listener: &TcpListener, bytes: usize) -> io::Result<()> {
    let bytes = bytes.try_into().unwrap_or(c_int::MAX / 2);
    set_option(listener, SOL_SOCKET, SO_SNDBUF, bytes)
}

/// Ends the connections that the listener accepts from now on when bytes sent to the peer have waited
/// so long: to be acknowledged, or for room at the peer.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn set_user_timeout(listener: &TcpListener, longest: Duration) -> io::Result<()> {
    const IPPROTO_TCP: c_int = 6;
    const TCP_USER_TIMEOUT: c_int = 18;
    let ms = longest.as_millis().try_into().unwrap_or(c_int::MAX);
    set_option(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, ms)
}

/// Elsewhere the system decides.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn set_user_timeout(_: &TcpListener, _: Duration) -> io::Result<()> {
    Ok(())
}

fn set_option(listener: &TcpListener, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as u32;
    // SAFETY: the descriptor is open as long as `listener` is; `value` is a `c_int` of that length, and
    // lives through the call, which only reads it.
    let outcome = unsafe {
        setsockopt(
            listener.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of open files to the hard one: the soft one is low for the sake of
/// programs that use `select`.
#[cfg(target_os = "linux")]
pub(crate) fn raise_open_files() -> io::Result<()> {
    const RLIMIT_NOFILE: c_int = match (IS_MIPS, IS_SPARC) {
        (true, _) => 5,
        (_, true) => 6,
        _ => 7,
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
#[cfg(not(target_os = "linux"))]
pub(crate) fn raise_open_files() -> io::Result<()> {
    Ok(())
}

/// Asks the kernel for a larger table of the threads that wait, for a program with so many threads.
///
/// Each thread that waits for a lock or a queue is an entry of a hash table in the kernel, and each wake-up
/// reads one whole slot of it. Linux 6.16 gives each process a table of its own, with four slots for each
/// processor and at least 16, however many threads wait. With 15,000 streams and 16 slots a wake-up reads
/// a thousand entries. An idle stream is one entry, so a slot for eight connections keeps slots short. A
/// slot takes 64 bytes of the kernel's memory.
#[cfg(target_os = "linux")]
pub(crate) fn make_room_for_waiting_threads(connections: usize) {
    use std::ffi::c_ulong;
    const PR_FUTEX_HASH: c_int = 78;
    const PR_FUTEX_HASH_SET_SLOTS: c_ulong = 1;
    const NO_FLAGS: c_ulong = 0;
    // LIMIT: the largest table takes 256 KiB.
    let slots = (connections / 8).clamp(16, 4096).next_power_of_two() as c_ulong;
    // Best effort: an older kernel does not know this option, and has one large table for all processes.
    // SAFETY: this option takes numbers and changes nothing but the size of that table.
    unsafe { prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, slots, NO_FLAGS) };
}

/// Elsewhere the kernel's table is left as it is.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make_room_for_waiting_threads(_: usize) {}

/// Sets up glibc's allocator, before there is a second thread.
///
/// It raises its thresholds with each large block that is freed, and then keeps up to 64 MiB at the
/// end of each of its arenas. Fixed thresholds keep 128 KiB there. A block of 32 KiB and more is mapped by itself:
/// it grows in place and goes back to the system when it is freed, and the bodies of a thousand
/// requests leave no holes in the arenas. Where address space is limited, there is
/// one arena: each reserves 64 MiB, into which several hundred streams fit.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn set_up_allocator() {
    const RLIMIT_AS: c_int = if IS_MIPS { 6 } else { 9 };
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    const M_ARENA_MAX: c_int = -8;
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: `limit` is a `struct rlimit` of this system and lives through the call; `mallopt`
    // takes any values, and is called before there is a second thread. It fails only by changing
    // nothing, and then more memory is kept, or fewer streams fit.
    unsafe {
        mallopt(M_TRIM_THRESHOLD, 128 * 1024);
        mallopt(M_MMAP_THRESHOLD, 32 * 1024);
        if getrlimit(RLIMIT_AS, &mut limit) == 0 && limit.soft != Amount::MAX {
            mallopt(M_ARENA_MAX, 1);
        }
    }
}

/// Other allocators keep and reserve little.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn set_up_allocator() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpStream;

    unsafe extern "C" {
        fn getsockopt(
            socket: c_int,
            level: c_int,
            name: c_int,
            value: *mut c_void,
            length: *mut u32,
        ) -> c_int;
    }

    fn option(socket: &TcpStream, level: c_int, name: c_int) -> c_int {
        let (mut value, mut length): (c_int, u32) = (0, size_of::<c_int>() as u32);
        // SAFETY: `value` has room for `length` bytes, and both live through the call.
        let outcome = unsafe {
            getsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw mut value).cast(),
                &mut length,
            )
        };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        value
    }

    #[test]
    fn an_accepted_socket_inherits_the_options_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_send_buffer(&listener, 40_000).unwrap();
        set_user_timeout(&listener, Duration::from_millis(12_345)).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(option(&accepted, SOL_SOCKET, SO_SNDBUF), 80_000);
        assert_eq!(option(&accepted, 6, 18), 12_345);
        // What no number of the system can hold is the largest, and not an error.
        set_send_buffer(&listener, usize::MAX).unwrap();
        set_user_timeout(&listener, Duration::MAX).unwrap();
    }
}
