//! What this machine gives: how many connections its limits on open files, threads and memory
//! maps leave room for.
//!
//! It is asked at the start because it is too late afterwards: std aborts the whole process when
//! a new thread cannot map the stack of its signal handler. Where the system does not say (there is
//! no `/proc`), nothing is assumed.

use std::fs::read_to_string;
use std::io;

use crate::config::{Config, DESCRIPTORS_KEPT, MAPS_KEPT, MAPS_PER_THREAD, THREADS_KEPT};

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
    let used = number::<usize>("/proc/self/statm").unwrap_or(0) * 4096;
    let each = config.stack_bytes + crate::config::SIGNAL_STACK_BYTES;
    Some(Bound {
        connections: limit
            .saturating_sub(used)
            .saturating_sub(crate::config::ADDRESSES_KEPT)
            / each,
        what: format!(
            "{limit} bytes of address space are allowed, {each} are needed for each thread (ulimit -v, LimitAS=)"
        ),
    })
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
