//! What this machine gives: how many connections its limits on open files, threads and memory
//! maps leave room for.
//!
//! It is asked at the start because it is too late afterwards: std aborts the whole process when
//! a new thread cannot map the stack of its signal handler. Where the system does not say (there is
//! no `/proc`), nothing is assumed.

use std::fs::read_to_string;
use std::io;
use std::str::FromStr;
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
    kib(&status, "VmSize:")?.try_into().ok()
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
    soft_limit(&read_to_string("/proc/self/limits").ok()?, name)
}

/// The number of tasks that the control groups of this process leave: the smallest of all levels.
fn own_group_limit() -> Option<usize> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let left = |folder: String| {
        let limit: usize = number(&format!("{folder}/pids.max"))?;
        Some(limit.saturating_sub(number(&format!("{folder}/pids.current"))?))
    };
    group_folders(&groups, "pids")
        .into_iter()
        .filter_map(left)
        .min()
}

/// The memory limit of this process in bytes: the smallest of the limits of its control groups, of
/// `RLIMIT_AS`, of `RLIMIT_DATA`, and of the memory of the machine. `None` where the system does not
/// say any of them.
#[allow(dead_code, reason = "the hub is about to use it")]
pub(crate) fn memory() -> Option<u64> {
    memory_of(|path| read_to_string(path).ok())
}

/// [`memory`], as the files have it that `read` returns.
fn memory_of(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let first = |text: String| text.split_whitespace().next()?.parse().ok();
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    // Version 2 has `memory.max`, which is `max` without a limit; version 1 has the other file, and
    // a number near 2^63 in it without a limit.
    let of_groups = group_folders(&groups, "memory")
        .into_iter()
        .flat_map(|folder| {
            ["memory.max", "memory.limit_in_bytes"].map(|file| (folder.clone(), file))
        })
        .filter_map(|(folder, file)| first(read(&format!("{folder}/{file}"))?));
    let limits = read("/proc/self/limits").unwrap_or_default();
    let own = ["Max address space", "Max data size"]
        .into_iter()
        .filter_map(|name| soft_limit(&limits, name));
    let machine = read("/proc/meminfo").and_then(|text| kib(&text, "MemTotal:"));
    of_groups.chain(own).chain(machine).min()
}

/// The folders of the control groups that limit a process: its own group and all groups above it,
/// under the mounts of both versions. `groups` is the text of `/proc/self/cgroup`. Not all of the
/// folders exist: a container may see the path of its group and not the folders above.
fn group_folders(groups: &str, controller: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        // "4:memory:/path" in version 1, "0::/path" in version 2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounts = if controllers.is_empty() {
            // The second is where version 2 stands beside version 1.
            vec!["/sys/fs/cgroup".into(), "/sys/fs/cgroup/unified".into()]
        } else if controllers.split(',').any(|name| name == controller) {
            vec![format!("/sys/fs/cgroup/{controllers}")]
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            folders.extend(mounts.iter().map(|mount| format!("{mount}{path}")));
            let Some(slash) = path.rfind('/') else { break };
            path = &path[..slash];
        }
    }
    folders
}

/// A soft limit in the text of `/proc/self/limits`; `None` without a limit.
fn soft_limit<N: FromStr>(limits: &str, name: &str) -> Option<N> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A line such as `MemTotal:  24684192 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The first number in a file.
fn number<N: FromStr>(path: &str) -> Option<N> {
    read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths, each with the text that stands there.
    type Files = &'static [(&'static str, &'static str)];

    #[test]
    fn the_memory_limit_is_the_smallest_of_all() {
        const MEMINFO: (&str, &str) = (
            "/proc/meminfo",
            "MemTotal:       24684192 kB\nMemFree:        19000000 kB\n",
        );
        const LIMITS: (&str, &str) = (
            "/proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             1000000              unlimited            bytes     \n\
             Max address space         2000000              unlimited            bytes     \n",
        );
        const UNLIMITED: (&str, &str) = (
            "/proc/self/limits",
            "Max data size             unlimited            unlimited            bytes     \n\
             Max address space         unlimited            unlimited            bytes     \n",
        );
        const V2: (&str, &str) = ("/proc/self/cgroup", "0::/a.slice/b.service\n");
        const V1: (&str, &str) = (
            "/proc/self/cgroup",
            "9:name=systemd:/\n4:memory:/docker/1f\n1:cpu,cpuacct:/docker/1f\n0::/\n",
        );
        const NO_LIMIT: &str = "9223372036854771712\n";
        let machine = 24_684_192 * 1024;
        let cases: &[(&str, Files, Option<u64>)] = &[
            ("nothing is known", &[], None),
            ("the machine", &[MEMINFO, UNLIMITED], Some(machine)),
            ("RLIMIT_DATA", &[MEMINFO, LIMITS], Some(1_000_000)),
            (
                "RLIMIT_AS",
                &[(
                    "/proc/self/limits",
                    "Max address space  7  unlimited  bytes\n",
                )],
                Some(7),
            ),
            (
                "its own group",
                &[
                    MEMINFO,
                    LIMITS,
                    V2,
                    ("/sys/fs/cgroup/a.slice/b.service/memory.max", "4096\n"),
                    ("/sys/fs/cgroup/a.slice/memory.max", "8192\n"),
                ],
                Some(4096),
            ),
            (
                "a group above",
                &[
                    MEMINFO,
                    V2,
                    ("/sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
                    ("/sys/fs/cgroup/a.slice/memory.max", "8192\n"),
                ],
                Some(8192),
            ),
            (
                "the root that a container sees",
                &[
                    MEMINFO,
                    ("/proc/self/cgroup", "0::/\n"),
                    ("/sys/fs/cgroup/memory.max", "16384\n"),
                ],
                Some(16_384),
            ),
            (
                "version 2 beside version 1",
                &[
                    MEMINFO,
                    V2,
                    ("/sys/fs/cgroup/unified/a.slice/memory.max", "8192\n"),
                ],
                Some(8192),
            ),
            (
                "version 1",
                &[
                    MEMINFO,
                    V1,
                    (
                        "/sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes",
                        "4096\n",
                    ),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", NO_LIMIT),
                    ("/sys/fs/cgroup/cpu,cpuacct/memory.max", "1\n"),
                ],
                Some(4096),
            ),
            (
                "version 1, whose path a container does not see",
                &[
                    MEMINFO,
                    V1,
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n"),
                ],
                Some(4096),
            ),
            (
                "version 1 without a limit",
                &[
                    MEMINFO,
                    V1,
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", NO_LIMIT),
                ],
                Some(machine),
            ),
            (
                "what is no number",
                &[
                    ("/proc/meminfo", "MemTotal: much kB\n"),
                    ("/proc/self/cgroup", "\n:\n0::\n"),
                    ("/sys/fs/cgroup/memory.max", ""),
                ],
                None,
            ),
        ];
        for (name, files, wanted) in cases {
            let read = |path: &str| {
                let found = files.iter().find(|(known, _)| *known == path);
                found.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(memory_of(read), *wanted, "{name}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_a_memory_limit() {
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
