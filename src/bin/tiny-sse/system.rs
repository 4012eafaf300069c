//! Calls of the C library for which std has no function. All `unsafe` of the crate is in
//! this file.
//!
//! - the start of the program, without the signal stacks of std ([`main`])
//! - waiting for signals on a thread, without a signal handler ([`Signals`])
//! - options of the listening socket: a longer backlog, the send buffer, a timeout for
//!   acknowledgements
//! - limits of the process: more open files, a larger futex table, the thresholds of the
//!   allocator
//!
//! The crate does not use the `libc` crate, so the constants and structs are declared
//! here. Their values differ between systems and processors; each `cfg` says for which. A
//! function that a system does not have is replaced by one that does nothing.

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

/// Memory for a `sigset_t` of any C library. The largest is that of glibc with 128 bytes.
/// Only the C library reads and writes the bytes.
#[repr(C, align(8))]
struct SignalSet([u8; 128]);

/// `rlim_t`. With glibc and uClibc it is an `unsigned long`, apart from two cases that
/// have 64 bits: x86-64 with pointers of 32 bits, and riscv32. With musl it always has 64
/// bits (the C library of OpenHarmony, `ohos`, is a musl).
#[cfg(all(
    target_os = "linux",
    not(any(
        target_env = "musl",
        target_env = "ohos",
        target_arch = "x86_64",
        target_arch = "riscv32"
    ))
))]
use std::ffi::c_ulong as RlimT;
#[cfg(all(
    target_os = "linux",
    any(
        target_env = "musl",
        target_env = "ohos",
        target_arch = "x86_64",
        target_arch = "riscv32"
    )
))]
use std::primitive::u64 as RlimT;

/// `struct rlimit`: the limit of one resource of the process. A process can raise its
/// soft limit up to the hard limit.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Rlimit {
    soft: RlimT,
    hard: RlimT,
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
    fn getrlimit(resource: c_int, limit: *mut Rlimit) -> c_int;
    #[cfg(target_os = "linux")]
    fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    #[cfg(target_os = "linux")]
    fn prctl(option: c_int, ...) -> c_int;
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// The function that the C library calls first.
///
/// std's own startup code does what [`prepare_process`] does, and also installs a SIGSEGV
/// handler that reports a stack overflow. Each thread then needs a second stack for this
/// handler. That is two more memory maps for each thread, so half as many threads fit
/// into the system's limit of maps, and each thread takes longer to start. The price of
/// leaving it out: a stack overflow ends the process with SIGSEGV and without a message.
#[cfg(all(unix, not(test)))]
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    prepare_process();
    let words = (1..usize::try_from(count).unwrap_or(0)).map(|index| {
        // SAFETY: `words` has `count` pointers to strings that end in a NUL, and the
        // strings live as long as the process.
        let word = unsafe { CStr::from_ptr(*words.add(index)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    });
    let words: Vec<_> = words.collect();
    // A panic must not unwind into C. The panic hook has reported it already.
    let run = || crate::run(words.into_iter());
    let code = std::panic::catch_unwind(run).unwrap_or(PANICKED);
    // Unlike a return, this flushes standard output.
    process::exit(code.into())
}

/// The exit code if the main thread panics: the same as with std's startup code.
#[cfg(all(unix, not(test)))]
const PANICKED: u8 = 101;

/// Prepares the process as std's startup code does. SIGPIPE is ignored, so a write to a
/// closed pipe returns an error. The descriptors 0 to 2 are opened if they are closed;
/// otherwise a socket could get number 2, and the log would be sent to a client.
#[cfg(all(unix, not(test)))]
fn prepare_process() {
    const SIGPIPE: c_int = 13;
    const IGNORE: usize = 1;
    const F_GETFD: c_int = 1;
    const O_RDWR: c_int = 2;
    // SAFETY: ignoring a signal involves no handler; the path ends in a NUL and lives
    // until the call returns. `open` returns the lowest free descriptor. That is
    // `descriptor`, because all lower ones are open by now.
    unsafe {
        signal(SIGPIPE, IGNORE);
        for descriptor in 0..3 {
            if fcntl(descriptor, F_GETFD) == -1 {
                open(c"/dev/null".as_ptr(), O_RDWR);
            }
        }
    }
}

/// These three have the same numbers on every system.
const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGXFSZ: c_int = if IS_MIPS { 31 } else { 25 };

const SIG_BLOCK: c_int = if IS_LINUX { 0 } else { 1 };

/// On MIPS and SPARC, Linux uses the numbers of the Unix systems that these processors
/// had before.
const IS_MIPS: bool = cfg!(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6"
));
const IS_SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
/// Linux on any other processor. There the numbers are the same everywhere.
const IS_LINUX: bool =
    cfg!(any(target_os = "linux", target_os = "android")) && !IS_MIPS && !IS_SPARC;

/// A signal that the program handles.
pub(crate) enum Signal {
    /// SIGHUP: read the token file again. The system also sends it when the terminal of
    /// the program is closed.
    Hangup,
    /// SIGINT or SIGTERM: shut down. The value is the signal's name, for the log.
    End(&'static str),
}

/// The signals SIGINT, SIGTERM and SIGHUP. They are blocked in every thread, so they stay
/// pending until [`wait`](Signals::wait) accepts them. There is no signal handler, so no
/// code has to be async-signal-safe.
///
/// SIGXFSZ is blocked too: a write beyond the limit of a file's size then returns an
/// error, as on a full disk, and the process goes on. SIGPIPE is ignored from the start
/// ([`prepare_process`]). All other signals keep their default action: SIGQUIT, SIGUSR1
/// and SIGUSR2 end the process at once, SIGTSTP stops it.
pub(crate) struct Signals(SignalSet);

impl Signals {
    /// Blocks the signals in this thread and in all threads that it starts afterwards.
    /// The caller is the main thread, before it starts any thread.
    pub(crate) fn block() -> Signals {
        // SIGXFSZ is not in the set that `wait` uses: it stays pending and has no effect.
        block(&[SIGXFSZ]);
        Signals(block(&[SIGHUP, SIGINT, SIGTERM]))
    }

    /// Blocks until one of the signals arrives, and returns it.
    pub(crate) fn wait(&self) -> Signal {
        match self.next() {
            SIGHUP => Signal::Hangup,
            SIGTERM => Signal::End("SIGTERM"),
            _ => Signal::End("SIGINT"),
        }
    }

    /// Starts a thread that ends the process at the next SIGINT or SIGTERM, with the exit
    /// code 128 plus the signal. It first calls `flush_log`, which must return within
    /// about a second. SIGHUP is ignored from now on.
    pub(crate) fn exit_on_next_end_signal(self, flush_log: impl FnOnce() + Send + 'static) {
        let exit = move || {
            let signal = loop {
                match self.next() {
                    SIGHUP => {}
                    signal => break signal,
                }
            };
            flush_log();
            process::exit(128 + signal);
        };
        // Best effort: if the thread cannot start, a second signal has no effect and the
        // shutdown takes its time.
        let _ = thread::Builder::new().name("signals".into()).spawn(exit);
    }

    /// Blocks until one of the signals arrives, and returns its number.
    fn next(&self) -> c_int {
        let mut signal = 0;
        // SAFETY: `block` has initialised the set, and both pointers are valid until the
        // call returns.
        unsafe { sigwait(&self.0, &mut signal) };
        signal
    }
}

/// Blocks signals in this thread and in all threads that it starts afterwards. Returns
/// the signals as a set.
fn block(signals: &[c_int]) -> SignalSet {
    let mut set = SignalSet([0; 128]);
    // SAFETY: `set` is large enough and aligned for any `sigset_t`, and is valid until
    // the calls return. The signal numbers are valid. The pointer for the old mask may be
    // null.
    unsafe {
        sigemptyset(&mut set);
        for signal in signals {
            sigaddset(&mut set, *signal);
        }
        pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut());
    }
    set
}

/// Raises the listen backlog to 4,096 connections that wait to be accepted. The 128 of
/// std are too few when thousands of clients reconnect at once: the kernel drops the
/// connection attempts beyond the backlog, and such a client tries again only after a
/// second. The kernel lowers the number to `net.core.somaxconn`.
pub(crate) fn raise_backlog(listener: &TcpListener) -> io::Result<()> {
    // SAFETY: the descriptor stays open while `listener` is borrowed. `listen` on a
    // listening socket only changes its backlog.
    match unsafe { listen(listener.as_raw_fd(), 4096) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const SOL_SOCKET: c_int = if IS_LINUX { 1 } else { 0xffff };
const SO_SNDBUF: c_int = if IS_LINUX { 7 } else { 0x1001 };

/// Sets the size of the send buffer of every socket that the listener accepts afterwards.
/// The kernel then no longer tunes the size. Linux doubles the number to make room for
/// its own bookkeeping; the limit is twice `net.core.wmem_max`.
pub(crate) fn set_send_buffer(listener: &TcpListener, bytes: usize) -> io::Result<()> {
    let bytes = bytes.try_into().unwrap_or(c_int::MAX / 2);
    set_option(listener, SOL_SOCKET, SO_SNDBUF, bytes)
}

/// Sets TCP_USER_TIMEOUT for every socket that the listener accepts afterwards. The
/// kernel ends a connection whose peer has not acknowledged sent bytes for this long, or
/// has had no room for them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn set_user_timeout(listener: &TcpListener, timeout: Duration) -> io::Result<()> {
    const IPPROTO_TCP: c_int = 6;
    const TCP_USER_TIMEOUT: c_int = 18;
    let ms = timeout.as_millis().try_into().unwrap_or(c_int::MAX);
    set_option(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, ms)
}

/// Other systems do not have this option: their own retransmission timeout applies.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn set_user_timeout(_: &TcpListener, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Sets a socket option whose value is an integer.
fn set_option(listener: &TcpListener, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as u32;
    // SAFETY: the descriptor stays open while `listener` is borrowed. `value` is a
    // `c_int` of that length and is valid until the call returns; the call only reads it.
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

/// Raises the soft limit of open files to the hard limit. Each connection is an open
/// file. Systems keep the soft limit low only for programs that use `select`, which
/// cannot handle descriptors above 1,023.
#[cfg(target_os = "linux")]
pub(crate) fn raise_open_files() -> io::Result<()> {
    const RLIMIT_NOFILE: c_int = match (IS_MIPS, IS_SPARC) {
        (true, _) => 5,
        (_, true) => 6,
        _ => 7,
    };
    let mut limit = Rlimit { soft: 0, hard: 0 };
    // SAFETY: `limit` is a `struct rlimit` of this system and is valid until both calls
    // have returned.
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

/// On other systems the limit stays as it is.
#[cfg(not(target_os = "linux"))]
pub(crate) fn raise_open_files() -> io::Result<()> {
    Ok(())
}

/// Asks the kernel for a larger futex hash table, because each connection is a thread and
/// most of them wait.
///
/// The futex hash table of the kernel has an entry for each thread that waits for a lock
/// or a queue. To wake a thread, the kernel reads all entries of one hash slot. Since
/// Linux 6.16 each process has a table of its own, with four slots for each processor and
/// at least 16, no matter how many threads the process has. With 15,000 streams in 16
/// slots, a wake-up reads about a thousand entries. This function asks for one slot for
/// eight connections, so that a wake-up reads few entries. A slot takes 64 bytes of
/// kernel memory.
#[cfg(target_os = "linux")]
pub(crate) fn enlarge_futex_table(connections: usize) {
    use std::ffi::c_ulong;
    const PR_FUTEX_HASH: c_int = 78;
    const PR_FUTEX_HASH_SET_SLOTS: c_ulong = 1;
    const NO_FLAGS: c_ulong = 0;
    // LIMIT: the largest table takes 256 KiB.
    let slots = (connections / 8).clamp(16, 4096).next_power_of_two() as c_ulong;
    // Best effort: an older kernel does not know this option; it has one large table for
    // all processes.
    // SAFETY: the arguments of this option are numbers, and it changes only the size of
    // that table.
    unsafe { prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, slots, NO_FLAGS) };
}

/// Other kernels have no such option.
#[cfg(not(target_os = "linux"))]
pub(crate) fn enlarge_futex_table(_: usize) {}

/// Sets fixed thresholds in the allocator of glibc, so that freed memory returns to the
/// system.
///
/// By default glibc raises its thresholds each time a large block is freed. It then keeps
/// up to 64 MiB of free memory at the end of each arena. With the fixed threshold it
/// keeps at most 128 KiB there.
///
/// A block of 32 KiB or more gets a memory map of its own. Such a block can grow in place
/// and returns to the system when it is freed, so the bodies of a thousand requests leave
/// no holes in the arenas.
///
/// If the address space of the process is limited (`ulimit -v`), there is only one arena,
/// because each arena reserves 64 MiB of address space, enough for several hundred
/// streams.
///
/// The caller is the main thread, before it starts any thread: `mallopt` is not
/// thread-safe.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn configure_allocator() {
    const RLIMIT_AS: c_int = if IS_MIPS { 6 } else { 9 };
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    const M_ARENA_MAX: c_int = -8;
    let mut limit = Rlimit { soft: 0, hard: 0 };
    // SAFETY: `limit` is a `struct rlimit` of this system and is valid until the call
    // returns. `mallopt` accepts any values, and no other thread runs yet. If it fails,
    // nothing changes, so the process uses more memory or serves fewer streams.
    unsafe {
        mallopt(M_TRIM_THRESHOLD, 128 * 1024);
        mallopt(M_MMAP_THRESHOLD, 32 * 1024);
        if getrlimit(RLIMIT_AS, &mut limit) == 0 && limit.soft != RlimT::MAX {
            mallopt(M_ARENA_MAX, 1);
        }
    }
}

/// Other allocators keep and reserve little memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn configure_allocator() {}

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

    /// Returns the value of a socket option.
    fn option(socket: &TcpStream, level: c_int, name: c_int) -> c_int {
        let (mut value, mut length): (c_int, u32) = (0, size_of::<c_int>() as u32);
        // SAFETY: `value` has room for `length` bytes, and both are valid until the call
        // returns.
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
        // A value that does not fit into a `c_int` becomes the largest one, and is not an
        // error.
        set_send_buffer(&listener, usize::MAX).unwrap();
        set_user_timeout(&listener, Duration::MAX).unwrap();
    }
}
