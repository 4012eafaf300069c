//! What this machine gives: how many connections its limits on open files, threads and memory
//! maps leave room for, and how much memory there is.
//!
//! It is asked at the start because it is too late afterwards: std aborts the whole process when
//! a new thread cannot map the stack of its signal handler. Where the system does not say (there is
//! no `/proc`), nothing is assumed.

use std::fs::{read_dir, read_to_string};
use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::config::{
    Config, MAX_EVICTED, MAX_LINGERING, RESERVED_ADDRESS_SPACE, RESERVED_DESCRIPTORS,
    RESERVED_MAPS, RESERVED_THREADS, SIGNAL_STACK_BYTES, SIGNAL_STACK_MAPS, SPARE_ADDRESS_SPACE,
    STACK_MAPS,
};

/// How many connections of each kind there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    clients: usize,
    extra: usize,
    reserves: Reserves,
}

/// How many connections may be open beside those that have a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserves {
    /// Rejected connections, until their clients have read the answer.
    pub(crate) lingering: usize,
    /// Evicted connections, until their threads have ended.
    pub(crate) evicted: usize,
}

/// What [`fit`] makes of the machine where nothing is scarce.
impl Default for Reserves {
    fn default() -> Reserves {
        Reserves {
            lingering: MAX_LINGERING,
            evicted: MAX_EVICTED,
        }
    }
}

impl Reserves {
    fn sum(&self) -> usize {
        self.lingering.saturating_add(self.evicted)
    }
}

/// A limit of the machine, and what is spent of it.
#[derive(Clone, Debug)]
struct Supply {
    /// What it is a number of.
    unit: &'static str,
    limit: usize,
    /// What is taken already, and kept for the rest of the program.
    rest: usize,
    /// What one connection needs.
    each: usize,
    /// Rejected connections need none of it, because they have no thread.
    only_threads: bool,
    /// How to raise it.
    remedy: String,
}

impl Supply {
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.rest) / self.each
    }

    /// What is given to connections that want this much. `None`: not even one of each kind has room.
    fn share(&self, wanted: Shares) -> Option<Shares> {
        if !self.only_threads {
            return share(wanted, self.room());
        }
        let lingering = wanted.reserves.lingering;
        let threads = Reserves {
            lingering: 0,
            ..wanted.reserves
        };
        let wanted = Shares {
            reserves: threads,
            ..wanted
        };
        let mut shares = share(wanted, self.room())?;
        shares.reserves.lingering = lingering;
        Some(shares)
    }

    /// What needs how much of it, and how much there is.
    fn sum(&self, shares: Shares) -> String {
        let Shares {
            clients,
            extra,
            reserves,
        } = shares;
        let (unit, rest, each, limit) = (self.unit, self.rest, self.each, self.limit);
        let (rejected, count) = if self.only_threads {
            (String::new(), reserves.evicted)
        } else {
            let text = format!("{} rejected, ", reserves.lingering);
            (text, reserves.sum())
        };
        let count = count.saturating_add(clients).saturating_add(extra);
        let total = count.saturating_mul(each).saturating_add(rest);
        format!(
            "{total} {unit} are needed, {each} for each connection ({clients} of clients, {extra} extra, \
             {rejected}{} evicted) and {rest} for the rest of the program; {limit} are allowed ({})",
            reserves.evicted, self.remedy
        )
    }
}

/// Divides the room for so many connections among their kinds. The reserves are reduced first, to a
/// sixteenth of the room; then the extra connections, to an eighth of the rest; the clients last.
/// `None`: there is not even room for one of each kind.
fn share(wanted: Shares, room: usize) -> Option<Shares> {
    let Reserves { lingering, evicted } = wanted.reserves;
    let reserves = wanted.reserves.sum();
    let kinds = usize::from(lingering > 0) + usize::from(evicted > 0);
    let asked = wanted.clients.saturating_add(wanted.extra);
    let least = (room / 16).max(kinds).min(reserves);
    let kept = room.saturating_sub(asked).clamp(least, reserves);
    let places = room.checked_sub(kept)?;
    let least = (places / 8).max(1).min(wanted.extra);
    let extra = places
        .saturating_sub(wanted.clients)
        .clamp(least, wanted.extra);
    let clients = places.checked_sub(extra)?.min(wanted.clients);
    // In proportion, and one of each at the least. Nothing is divided by 0: without reserves none is kept.
    let evicted = match evicted {
        0 => 0,
        _ => (kept * evicted / reserves).max(1),
    };
    (clients > 0).then_some(Shares {
        clients,
        extra,
        reserves: Reserves {
            lingering: kept - evicted,
            evicted,
        },
    })
}

/// Lowers `config.max_clients` and `config.extra_connections` to what the machine gives, reports it,
/// and returns what is left for connections on their way out.
///
/// # Errors
///
/// The machine leaves no room for even one client.
pub(crate) fn fit(config: &mut Config) -> io::Result<Reserves> {
    let wanted = Shares {
        clients: config.max_clients,
        extra: config.extra_connections,
        reserves: Reserves::default(),
    };
    let supplies = [
        open_files(),
        threads(),
        memory_maps(),
        address_space(config),
    ];
    let (mut given, mut lowered_by) = (wanted, None);
    for supply in supplies.into_iter().flatten() {
        let Some(shares) = supply.share(wanted) else {
            let one = Shares {
                clients: 1,
                extra: 1,
                reserves: Reserves {
                    lingering: 1,
                    evicted: 1,
                },
            };
            let what = format!("no room for a client: {}", supply.sum(one));
            return Err(io::Error::other(what));
        };
        if (shares.clients, shares.extra) < (given.clients, given.extra) {
            lowered_by = Some(supply);
        }
        given = Shares {
            clients: given.clients.min(shares.clients),
            extra: given.extra.min(shares.extra),
            reserves: Reserves {
                lingering: given.reserves.lingering.min(shares.reserves.lingering),
                evicted: given.reserves.evicted.min(shares.reserves.evicted),
            },
        };
    }
    if let Some(supply) = lowered_by {
        let lowered = [
            ("max-clients", wanted.clients, given.clients),
            ("extra-connections", wanted.extra, given.extra),
        ];
        let lowered: Vec<String> = lowered
            .iter()
            .filter(|(_, from, to)| from != to)
            .map(|(name, from, to)| format!("{name} lowered from {from} to {to}"))
            .collect();
        config.report.warn(format_args!(
            "{}: {}",
            lowered.join(", "),
            supply.sum(wanted)
        ));
    }
    config.max_clients = given.clients;
    config.extra_connections = given.extra;
    Ok(given.reserves)
}

/// The part of a limit that is kept for the rest of the program: an eighth, within these bounds.
fn kept(limit: usize, (least, most): (usize, usize)) -> usize {
    (limit / 8).clamp(least, most)
}

fn open_files() -> Option<Supply> {
    let limit = own_limit("Max open files")?;
    // The list has the descriptor by which it is read, too.
    let open = read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(Supply {
        unit: "open files",
        limit,
        rest: open + kept(limit, RESERVED_DESCRIPTORS),
        each: 1,
        only_threads: false,
        remedy: "ulimit -n, LimitNOFILE=".into(),
    })
}

fn threads() -> Option<Supply> {
    // "0.00 0.01 0.05 2/345 6789": threads that run, and threads that are.
    let loadavg = read_to_string("/proc/loadavg").ok()?;
    let taken: usize = loadavg.split(['/', ' ']).nth(4)?.parse().ok()?;
    let system = ["threads-max", "pid_max"].into_iter().filter_map(|name| {
        let limit: usize = number(&format!("/proc/sys/kernel/{name}"))?;
        Some((limit, taken, format!("sysctl kernel.{name}=N")))
    });
    let group =
        own_group_limit().map(|(limit, taken)| (limit, taken, "TasksMax=, --pids-limit".into()));
    let (limit, taken, remedy) = system
        .chain(group)
        .min_by_key(|(limit, taken, _)| limit.saturating_sub(*taken))?;
    Some(Supply {
        unit: "threads",
        limit,
        rest: taken + kept(limit, RESERVED_THREADS),
        each: 1,
        only_threads: true,
        remedy,
    })
}

fn memory_maps() -> Option<Supply> {
    let limit = number("/proc/sys/vm/max_map_count")?;
    let taken = read_to_string("/proc/self/maps").ok()?.lines().count();
    Some(Supply {
        unit: "memory maps",
        limit,
        rest: taken + kept(limit, RESERVED_MAPS),
        each: maps_per_thread(),
        only_threads: true,
        remedy: "sysctl vm.max_map_count=N".into(),
    })
}

/// The memory maps of a thread: its stack, and the page before it that cannot be touched. std adds another
/// two for a signal handler's stack, if its own start of the program has set a handler of SIGSEGV. The
/// program of this crate starts without it.
fn maps_per_thread() -> usize {
    const SIGSEGV: u32 = 11;
    let caught = status().and_then(|status| {
        let signals = value(&status, "SigCgt:")?;
        u64::from_str_radix(signals, 16).ok()
    });
    // What cannot be read is taken for the larger number.
    match caught {
        Some(signals) if signals & (1 << (SIGSEGV - 1)) == 0 => STACK_MAPS,
        _ => STACK_MAPS + SIGNAL_STACK_MAPS,
    }
}

fn address_space(config: &Config) -> Option<Supply> {
    let limit = own_limit("Max address space")?;
    Some(Supply {
        unit: "bytes of address space",
        limit,
        rest: addresses_taken()?
            + (limit / 2).clamp(RESERVED_ADDRESS_SPACE.0, RESERVED_ADDRESS_SPACE.1),
        each: config.stack_bytes + SIGNAL_STACK_BYTES,
        only_threads: true,
        remedy: "ulimit -v, LimitAS=".into(),
    })
}

/// Address space of this process, in bytes.
fn addresses_taken() -> Option<usize> {
    kib(&status()?, "VmSize:")?.try_into().ok()
}

/// What the system says of this process, a line for each value.
fn status() -> Option<String> {
    read_to_string("/proc/self/status").ok()
}

/// Starts threads only while there is room for them.
///
/// A thread that has begun and cannot map the stack of its signal handler makes std abort the
/// process, and so does any small allocation that fails. So under a limit of the address space
/// the room is looked at before, where the answer can still be 503.
#[derive(Debug)]
pub(crate) struct ThreadStarter {
    /// Whether there was such a limit at the start. Usually there is none, and then nothing is
    /// looked at; if there is one, it may have changed since.
    is_limited: bool,
    /// The most threads that were seen at once.
    ///
    /// LOCK: one thread looks and starts at a time, so that the same room is not given away twice. Held while a
    /// thread is started, and for nothing that waits.
    most_threads: Mutex<usize>,
}

impl ThreadStarter {
    pub(crate) fn new() -> ThreadStarter {
        ThreadStarter {
            is_limited: own_limit("Max address space").is_some(),
            most_threads: Mutex::default(),
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
        let mut most_threads = self
            .most_threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let status = status().unwrap_or_default();
        let taken = kib(&status, "VmSize:").and_then(|taken| taken.try_into().ok());
        let known: Option<(usize, usize)> = own_limit("Max address space").zip(taken);
        let spare = known.map_or(0, |(limit, _)| (limit / 8).min(SPARE_ADDRESS_SPACE));
        let threads = value(&status, "Threads:").and_then(|count| count.parse().ok());
        let threads = threads.unwrap_or(0);
        // glibc keeps the stacks of threads that have ended, 40 MiB of them, and uses them again. They count as
        // taken, so a stack that is kept needs no more room.
        let has_stack = cfg!(target_env = "gnu") && threads < *most_threads;
        *most_threads = threads.max(*most_threads);
        let stack = if has_stack { 0 } else { stack_bytes };
        let needed = stack + SIGNAL_STACK_BYTES + spare;
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
        start()
    }
}

/// The soft limit of this process; `None` if there is none, or it is not known.
fn own_limit(name: &str) -> Option<usize> {
    soft_limit(&read_to_string("/proc/self/limits").ok()?, name)
}

/// The number of tasks that a control group of this process allows and how many it has, of the level
/// that leaves the fewest.
fn own_group_limit() -> Option<(usize, usize)> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let left = |folder: String| {
        let limit: usize = number(&format!("{folder}/pids.max"))?;
        Some((limit, number(&format!("{folder}/pids.current"))?))
    };
    group_folders(&groups, "pids")
        .into_iter()
        .filter_map(left)
        .min_by_key(|(limit, taken)| limit.saturating_sub(*taken))
}

/// The memory limit of this process in bytes: the smallest of the limits of its control groups, of
/// `RLIMIT_AS`, of `RLIMIT_DATA`, and of the memory of the machine. `None` where the system does not
/// say any of them.
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
    let kib: u64 = value(text, name)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The first word after the name of a line.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
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

    fn shares([clients, extra, lingering, evicted]: [usize; 4]) -> Shares {
        Shares {
            clients,
            extra,
            reserves: Reserves { lingering, evicted },
        }
    }

    #[test]
    fn room_is_shared_out_and_clients_are_lowered_last() {
        let (default, small) = ([1000, 256, 256, 32], [10, 5, 256, 32]);
        let threads = [1000, 256, 0, 32];
        for (wanted, room, given) in [
            // All of it.
            (default, usize::MAX, Some(default)),
            (default, 1544, Some(default)),
            // The reserves shrink in proportion.
            (default, 1543, Some([1000, 256, 256, 31])),
            (default, 1400, Some([1000, 256, 128, 16])),
            (default, 1340, Some([1000, 256, 75, 9])),
            // They are at their least, and the extra connections shrink.
            (default, 1300, Some([1000, 219, 72, 9])),
            (default, 1220, Some([1000, 144, 68, 8])),
            // The clients shrink, too.
            (default, 1200, Some([985, 140, 67, 8])),
            (default, 240, Some([197, 28, 14, 1])),
            (default, 48, Some([40, 5, 2, 1])),
            (default, 16, Some([13, 1, 1, 1])),
            (default, 4, Some([1, 1, 1, 1])),
            (default, 3, None),
            (default, 0, None),
            (small, 303, Some(small)),
            (small, 48, Some([10, 5, 30, 3])),
            (small, 17, Some([10, 5, 1, 1])),
            (small, 16, Some([10, 4, 1, 1])),
            (small, 13, Some([10, 1, 1, 1])),
            (small, 5, Some([2, 1, 1, 1])),
            (small, 3, None),
            ([1, 1, 256, 32], 4, Some([1, 1, 1, 1])),
            // A kind that does not need the resource gets none.
            (threads, 1287, Some([1000, 255, 0, 32])),
            (threads, 4, Some([2, 1, 0, 1])),
            (threads, 3, Some([1, 1, 0, 1])),
            (threads, 2, None),
            (
                [usize::MAX, usize::MAX, 256, 32],
                1000,
                Some([821, 117, 56, 6]),
            ),
            ([usize::MAX, 1, 256, 32], 1000, Some([937, 1, 56, 6])),
        ] {
            let found = share(shares(wanted), room);
            assert_eq!(found, given.map(shares), "{wanted:?} in {room}");
        }
    }

    #[test]
    fn shares_fit_grow_with_the_room_and_leave_none_out() {
        for wanted in [
            [1000, 256, 256, 32],
            [10, 5, 256, 32],
            [3, 900, 256, 32],
            [9000, 1, 256, 32],
        ] {
            let mut before = [0; 4];
            for room in 0..2000 {
                let Some(given) = share(shares(wanted), room) else {
                    assert!(room < 4, "{wanted:?} in {room}");
                    continue;
                };
                let now = [
                    given.clients,
                    given.extra,
                    given.reserves.lingering,
                    given.reserves.evicted,
                ];
                assert!(now.iter().sum::<usize>() <= room, "{now:?} in {room}");
                assert!(now.iter().all(|count| *count > 0), "{now:?} in {room}");
                assert!(
                    now.iter().zip(wanted).all(|(now, wanted)| *now <= wanted),
                    "{now:?}"
                );
                assert!(now[0] >= before[0], "{now:?} after {before:?} in {room}");
                before = now;
            }
        }
    }

    #[test]
    fn the_message_has_the_sum() {
        let supply = Supply {
            unit: "open files",
            limit: 100,
            rest: 20,
            each: 1,
            only_threads: false,
            remedy: "ulimit -n".into(),
        };
        assert_eq!(
            supply.sum(shares([10, 5, 3, 2])),
            "40 open files are needed, 1 for each connection (10 of clients, 5 extra, 3 rejected, \
             2 evicted) and 20 for the rest of the program; 100 are allowed (ulimit -n)"
        );
        let supply = Supply {
            unit: "memory maps",
            each: 4,
            only_threads: true,
            ..supply
        };
        assert_eq!(
            supply.sum(shares([10, 5, 3, 2])),
            "88 memory maps are needed, 4 for each connection (10 of clients, 5 extra, 2 evicted) and \
             20 for the rest of the program; 100 are allowed (ulimit -n)"
        );
    }

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
