//! What this machine gives: how many connections its limits on open files, threads and memory
//! maps leave room for.
//!
//! It is asked at the start because it is too late afterwards: std aborts the whole process when
//! a new thread cannot map the stack of its signal handler. Where the system does not say (there is
//! no `/proc`), nothing is assumed.

use std::fs::read_to_string;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::config::{
    ADDRESSES_KEPT, ADDRESSES_SPARE, Config, DESCRIPTORS_KEPT, MAPS_KEPT, MAPS_PER_THREAD,
    SIGNAL_STACK_BYTES, THREADS_KEPT,
};

/// A limit of the machine, in connections.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    connections: usize,
    /// The limit as the system has it, and how to raise it.
    what: String,
}

/// Lowers `config.max_clients` to what the machine gives, and reports it.
///
/// # Errors
///
/// The machine leaves no room for even one client.
pub(crate) fn fit(config: &mut Config) -> io::Result<()> {
    let bounds = [
        open_files(),
        threads(),
        memory_maps(),
        address_space(config),
    ];
    let Some(tightest) = bounds
        .into_iter()
        .flatten()
        .min_by_key(|bound| bound.connections)
    else {
        return Ok(());
    };
    let room = tightest
        .connections
        .saturating_sub(config.extra_connections);
    if room == 0 {
        return Err(io::Error::other(format!(
            "no room for a client: {}",
            tightest.what
        )));
    }
    if room < config.max_clients {
        config.report.warn(format_args!(
            "max-clients lowered from {} to {room}: {}",
            config.max_clients, tightest.what
        ));
        config.max_clients = room;
    }
    Ok(())
}

fn open_files() -> Option<Bound> {
    let limit = own_limit("Max open files")?;
    Some(Bound {
        connections: limit.saturating_sub(DESCRIPTORS_KEPT),
        what: format!(
            "{limit} open files are allowed, one is needed for each connection (ulimit -n, LimitNOFILE=)"
        ),
    })
}

fn threads() -> Option<Bound> {
    // "0.00 0.01 0.05 2/345 6789": threads that run, and threads that are.
    let loadavg = read_to_string("/proc/loadavg").ok()?;
    let taken: usize = loadavg.split(['/', ' ']).nth(4)?.parse().ok()?;
    let system = ["threads-max", "pid_max"].into_iter().filter_map(|name| {
        let limit: usize = number(&format!("/proc/sys/kernel/{name}"))?;
        Some((
            limit.saturating_sub(taken),
            format!("kernel.{name} is {limit}, {taken} threads exist (sysctl kernel.{name}=N)"),
        ))
    });
    let group = own_group_limit().map(|limit| {
        (
            limit,
            format!("the control group allows {limit} more tasks (TasksMax=, --pids-limit)"),
        )
    });
    let (left, what) = system.chain(group).min_by_key(|(left, _)| *left)?;
    Some(Bound {
        connections: left.saturating_sub(THREADS_KEPT),
        what,
    })
}

fn memory_maps() -> Option<Bound> {
    let limit: usize = number("/proc/sys/vm/max_map_count")?;
    Some(Bound {
        connections: limit.saturating_sub(MAPS_KEPT) / MAPS_PER_THREAD,
        what: format!(
            "vm.max_map_count is {limit}, {MAPS_PER_THREAD} are needed for each thread (sysctl vm.max_map_count=N)"
        ),
    })
}

fn address_space(config: &Config) -> Option<Bound> {
    let limit = own_limit("Max address space")?;
    let each = config.stack_bytes + SIGNAL_STACK_BYTES;
    Some(Bound {
        connections: limit
            .saturating_sub(addresses_taken()?)
            .saturating_sub(ADDRESSES_KEPT)
            / each,
        what: format!(
            "{limit} bytes of address space are allowed, {each} are needed for each thread (ulimit -v, LimitAS=)"
        ),
    })
}

/// Address space of this process, in bytes.
fn addresses_taken() -> Option<usize> {
    let status = read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Starts threads only while there is room for them.
///
/// A thread that has begun and cannot map the stack of its signal handler makes std abort the
/// process, and so does any small allocation that fails. So under a limit of the address space
/// the room is looked at before, where the answer can still be 503.
#[derive(Debug)]
pub(crate) struct ThreadRoom {
    /// Whether there was such a limit at the start. Usually there is none, and then nothing is
    /// looked at; if there is one, it may have changed since.
    is_limited: bool,
    /// LOCK: guards nothing but the order: one looks and starts at a time, so that the same room
    /// is not given away twice. Held while a thread is started, never while anybody waits.
    turn: Mutex<()>,
}

impl ThreadRoom {
    pub(crate) fn new() -> ThreadRoom {
        ThreadRoom {
            is_limited: own_limit("Max address space").is_some(),
            turn: Mutex::default(),
        }
    }

    /// Calls `start`, which starts a thread with this much stack.
    ///
    /// # Errors
    ///
    /// There is no room, or `start` fails.
    pub(crate) fn start<T>(
        &self,
        stack_bytes: usize,
        start: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.is_limited {
            return start();
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = stack_bytes + SIGNAL_STACK_BYTES + ADDRESSES_SPARE;
        let known = own_limit("Max address space").zip(addresses_taken());
        if let Some((limit, taken)) = known
            && taken.saturating_add(needed) > limit
        {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!(
                    "{taken} of {limit} bytes of address space are taken, {needed} are needed (ulimit -v, LimitAS=)"
                ),
            ));
        }
        let started = start();
        drop(turn);
        started
    }
}

/// The soft limit of this process; `None` if there is none, or it is not known.
fn own_limit(name: &str) -> Option<usize> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the control group leaves, under either version's mount.
fn own_group_limit() -> Option<usize> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let folder = match (parts.next()?, parts.next()?) {
            ("", path) => format!("/sys/fs/cgroup{path}"),
            ("pids", path) => format!("/sys/fs/cgroup/pids{path}"),
            _ => return None,
        };
        let limit: usize = number(&format!("{folder}/pids.max"))?;
        Some(limit.saturating_sub(number(&format!("{folder}/pids.current"))?))
    })
}

/// The first number in a file.
fn number<N: std::str::FromStr>(path: &str) -> Option<N> {
    read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
