//! The limits of this machine: how many connections its open files, threads, memory maps
//! and address space suffice for, and how much memory there is.
//!
//! - [`lower_limits`] runs once, when a server is made. It lowers `Config::max_clients`
//!   and `Config::extra_connections` to what the machine has room for. That must happen
//!   before the limits are reached: std aborts the whole process when a new thread cannot
//!   map the stack of its signal handler.
//! - [`ThreadStarter`] checks the address space again for each thread, if it is limited.
//! - [`memory`] is the default of `Config::total_queues`.
//!
//! All numbers come from `/proc` and `/sys` of Linux. On other systems, and where a file
//! is missing, the limit counts as unlimited.

use std::fs::{read_dir, read_to_string};
use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::config::{
    Config, MAX_EVICTED, MAX_LINGERING, RESERVED_ADDRESS_SPACE, RESERVED_DESCRIPTORS,
    RESERVED_MAPS, RESERVED_THREADS, SIGNAL_STACK_BYTES, SIGNAL_STACK_MAPS, SPARE_ADDRESS_SPACE,
    STACK_MAPS,
};

/// A number of connections of each kind. [`lower_limits`] uses it for what is configured,
/// and for what the machine has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConnectionCounts {
    /// `Config::max_clients`.
    clients: usize,
    /// `Config::extra_connections`.
    extra: usize,
    /// The connections that are on their way out.
    reserves: Reserves,
}

/// How many connections may be open in addition to those that use a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserves {
    /// Rejected and evicted connections, until their clients have read the answer. Each
    /// costs a descriptor, and no thread.
    pub(crate) lingering: usize,
    /// Evicted connections, until their workers are done with them. Each costs a
    /// descriptor and a thread.
    pub(crate) evicted: usize,
}

/// The reserves on a machine where nothing is scarce.
impl Default for Reserves {
    fn default() -> Reserves {
        Reserves {
            lingering: MAX_LINGERING,
            evicted: MAX_EVICTED,
        }
    }
}

impl Reserves {
    /// The connections of both kinds together.
    fn sum(&self) -> usize {
        self.lingering.saturating_add(self.evicted)
    }
}

/// One limit of the machine, in units of the resource that it limits, and how much of it
/// each connection needs.
#[derive(Clone, Debug)]
struct ResourceLimit {
    /// The name of the resource for messages, such as `open files`.
    unit: &'static str,
    /// The number of units that the system allows.
    limit: usize,
    /// The units that no connection can have: those that are in use at the start, and
    /// those that are reserved for the rest of the program.
    rest: usize,
    /// The units that one connection needs. Never 0.
    each: usize,
    /// Only connections with a thread need the resource. Lingering connections have no
    /// thread, so they do not need it.
    only_threads: bool,
    /// How an administrator raises the limit, such as `ulimit -n`.
    remedy: String,
}

impl ResourceLimit {
    /// The number of connections that the resource suffices for.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.rest) / self.each
    }

    /// Returns how many of the wanted connections the resource suffices for. `None`: it
    /// does not suffice for one of each kind.
    fn divide(&self, wanted: ConnectionCounts) -> Option<ConnectionCounts> {
        if !self.only_threads {
            return divide(wanted, self.room());
        }
        let lingering = wanted.reserves.lingering;
        let threads = Reserves {
            lingering: 0,
            ..wanted.reserves
        };
        let wanted = ConnectionCounts {
            reserves: threads,
            ..wanted
        };
        let mut counts = divide(wanted, self.room())?;
        counts.reserves.lingering = lingering;
        Some(counts)
    }

    /// The part of a message that shows the calculation: how many units these connections
    /// need, what for, and how many are allowed.
    fn explain(&self, counts: ConnectionCounts) -> String {
        let ConnectionCounts {
            clients,
            extra,
            reserves,
        } = counts;
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

/// Divides the room for `room` connections among the kinds of connections. `None`: there
/// is no room for one of each kind that is wanted.
///
/// If the room is too small for all, the kinds are reduced in this order:
///
/// 1. the reserves, down to a sixteenth of the room. Lingering and evicted connections
///    are reduced in proportion;
/// 2. the extra connections, down to an eighth of what is left;
/// 3. the clients.
///
/// Each kind keeps at least one connection. Example: 1,000 clients, 256 extra, 256
/// lingering and 32 evicted connections need room for 1,544. With room for 1,200:
///
/// - the reserves get 1,200 / 16 = 75 of 288: 75 * 32 / 288 = 8 evicted and 67 lingering
///   connections;
/// - 1,125 are left. Without the 1,000 clients that would be 125 extra connections, but
///   they keep at least 1,125 / 8 = 140;
/// - the clients get the rest, 985.
fn divide(wanted: ConnectionCounts, room: usize) -> Option<ConnectionCounts> {
    let Reserves { lingering, evicted } = wanted.reserves;
    let reserves = wanted.reserves.sum();
    let reserve_kinds = usize::from(lingering > 0) + usize::from(evicted > 0);
    let wanted_slots = wanted.clients.saturating_add(wanted.extra);
    let least = (room / 16).max(reserve_kinds).min(reserves);
    let kept = room.saturating_sub(wanted_slots).clamp(least, reserves);
    let slots = room.checked_sub(kept)?;
    let least = (slots / 8).max(1).min(wanted.extra);
    let extra = slots
        .saturating_sub(wanted.clients)
        .clamp(least, wanted.extra);
    let clients = slots.checked_sub(extra)?.min(wanted.clients);
    // Rounded down, but at least one. `reserves` is not 0 in the second arm.
    let evicted = match evicted {
        0 => 0,
        _ => (kept * evicted / reserves).max(1),
    };
    (clients > 0).then_some(ConnectionCounts {
        clients,
        extra,
        reserves: Reserves {
            lingering: kept - evicted,
            evicted,
        },
    })
}

/// Lowers `config.max_clients` and `config.extra_connections` to what the machine has
/// room for, and logs a warning with the limit that is responsible. Returns how many
/// lingering and evicted connections there is room for in addition.
///
/// This function divides each resource on its own, and takes the smallest number of each
/// kind of connection.
///
/// # Errors
///
/// The machine does not have room for one connection of each kind.
pub(crate) fn lower_limits(config: &mut Config) -> io::Result<Reserves> {
    let wanted = ConnectionCounts {
        clients: config.max_clients,
        extra: config.extra_connections,
        reserves: Reserves::default(),
    };
    let limits = [
        open_files(),
        threads(),
        memory_maps(),
        address_space(config),
    ];
    let (mut given, mut lowered_by) = (wanted, None);
    for limit in limits.into_iter().flatten() {
        let Some(counts) = limit.divide(wanted) else {
            let one = ConnectionCounts {
                clients: 1,
                extra: 1,
                reserves: Reserves {
                    lingering: 1,
                    evicted: 1,
                },
            };
            let what = format!("no room for a client: {}", limit.explain(one));
            return Err(io::Error::other(what));
        };
        if (counts.clients, counts.extra) < (given.clients, given.extra) {
            lowered_by = Some(limit);
        }
        given = ConnectionCounts {
            clients: given.clients.min(counts.clients),
            extra: given.extra.min(counts.extra),
            reserves: Reserves {
                lingering: given.reserves.lingering.min(counts.reserves.lingering),
                evicted: given.reserves.evicted.min(counts.reserves.evicted),
            },
        };
    }
    if let Some(limit) = lowered_by {
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
            limit.explain(wanted)
        ));
    }
    config.max_clients = given.clients;
    config.extra_connections = given.extra;
    Ok(given.reserves)
}

/// The part of a limit that is reserved for the rest of the program: an eighth, but at
/// least `least` and at most `most`.
fn reserved(limit: usize, (least, most): (usize, usize)) -> usize {
    (limit / 8).clamp(least, most)
}

/// The limit on open files of this process. Every connection needs one.
fn open_files() -> Option<ResourceLimit> {
    let limit = own_limit("Max open files")?;
    // The descriptor by which the folder is read is in the list, too, and is closed
    // afterwards.
    let open = read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(ResourceLimit {
        unit: "open files",
        limit,
        rest: open + reserved(limit, RESERVED_DESCRIPTORS),
        each: 1,
        only_threads: false,
        remedy: "ulimit -n, LimitNOFILE=".into(),
    })
}

/// The limit on threads that leaves the fewest: of the system, of its process ids, or of
/// the control group.
fn threads() -> Option<ResourceLimit> {
    // In "0.00 0.01 0.05 2/345 6789" 345 is the number of all threads of the system.
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
    Some(ResourceLimit {
        unit: "threads",
        limit,
        rest: taken + reserved(limit, RESERVED_THREADS),
        each: 1,
        only_threads: true,
        remedy,
    })
}

/// The limit on memory maps of this process. A line of `/proc/self/maps` is one map.
fn memory_maps() -> Option<ResourceLimit> {
    let limit = number("/proc/sys/vm/max_map_count")?;
    let taken = read_to_string("/proc/self/maps").ok()?.lines().count();
    Some(ResourceLimit {
        unit: "memory maps",
        limit,
        rest: taken + reserved(limit, RESERVED_MAPS),
        each: maps_per_thread(),
        only_threads: true,
        remedy: "sysctl vm.max_map_count=N".into(),
    })
}

/// The memory maps that one thread needs: its stack, and the guard page below it. If std
/// has installed a handler of SIGSEGV at the start of the program, each thread also has a
/// stack for that handler, which takes two more maps. The program of this crate starts
/// without std's handler; a program that embeds the library usually has it.
fn maps_per_thread() -> usize {
    const SIGSEGV: u32 = 11;
    let caught = status().and_then(|status| {
        let signals = value(&status, "SigCgt:")?;
        u64::from_str_radix(signals, 16).ok()
    });
    // If the signals are not known, the larger number is used.
    match caught {
        Some(signals) if signals & (1 << (SIGSEGV - 1)) == 0 => STACK_MAPS,
        _ => STACK_MAPS + SIGNAL_STACK_MAPS,
    }
}

/// The limit on the address space of this process. Half of it, but 64 MiB to 256 MiB, is
/// reserved for everything that is not a stack.
fn address_space(config: &Config) -> Option<ResourceLimit> {
    let limit = own_limit("Max address space")?;
    Some(ResourceLimit {
        unit: "bytes of address space",
        limit,
        rest: addresses_taken()?
            + (limit / 2).clamp(RESERVED_ADDRESS_SPACE.0, RESERVED_ADDRESS_SPACE.1),
        each: config.stack_bytes + SIGNAL_STACK_BYTES,
        only_threads: true,
        remedy: "ulimit -v, LimitAS=".into(),
    })
}

/// The address space that this process uses, in bytes.
fn addresses_taken() -> Option<usize> {
    kib(&status()?, "VmSize:")?.try_into().ok()
}

/// The text of `/proc/self/status`: a line for each value.
fn status() -> Option<String> {
    read_to_string("/proc/self/status").ok()
}

/// Starts threads, but only while the address space has room for them.
///
/// Why `thread::Builder::spawn` and its error are not enough: a thread first starts and
/// then maps the stack for its signal handler. If that fails, std aborts the whole
/// process. A small allocation that fails aborts the process, too. So under a limit on
/// the address space (`ulimit -v`), the room is checked before the thread is started,
/// when a connection can still be answered with a 503.
///
/// `Connections` has the only value of this type. All its threads start through it.
#[derive(Debug)]
pub(crate) struct ThreadStarter {
    /// There was a limit on the address space when the server was started. Usually there
    /// is none, and then nothing is checked. If there was one, it is read again for each
    /// thread, because it may have changed.
    is_limited: bool,
    /// The largest number of threads of this process that [`start`](Self::start) has
    /// seen.
    ///
    /// LOCK: it is held while the room is checked and the thread is started, so that two
    /// callers do not use the same room. Reading `/proc` does not wait for a device.
    most_threads: Mutex<usize>,
}

impl ThreadStarter {
    pub(crate) fn new() -> ThreadStarter {
        ThreadStarter {
            is_limited: own_limit("Max address space").is_some(),
            most_threads: Mutex::default(),
        }
    }

    /// Calls `start`, which starts a thread with a stack of `stack_bytes`, if there is
    /// room for the stack of the thread, for the stack of its signal handler, and for 32
    /// MiB (but at most an eighth of the limit) that other threads may allocate
    /// meanwhile.
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
        // If the limit has been removed or cannot be read, there is no check.
        let known: Option<(usize, usize)> = own_limit("Max address space").zip(taken);
        let spare = known.map_or(0, |(limit, _)| (limit / 8).min(SPARE_ADDRESS_SPACE));
        let threads = value(&status, "Threads:").and_then(|count| count.parse().ok());
        let threads = threads.unwrap_or(0);
        // glibc keeps up to 40 MiB of stacks of threads that have ended, and gives them
        // to new threads. `VmSize` already contains these stacks, so a thread that gets
        // one needs no room for its stack. There is such a stack if there are fewer
        // threads now than there were once.
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

/// The soft limit of this process with this name in `/proc/self/limits`; `None` if there
/// is no limit, or if it is not known.
fn own_limit(name: &str) -> Option<usize> {
    soft_limit(&read_to_string("/proc/self/limits").ok()?, name)
}

/// Returns the limit of threads of a control group, and its number of threads. A process
/// is in a group and in all groups above it, and each may have a limit. The result is
/// about the group that has room for the fewest further threads.
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

/// The memory that this process may use, in bytes: the smallest of the limits of its
/// control groups, of `RLIMIT_AS`, of `RLIMIT_DATA`, and of the memory of the machine.
/// `None` if none of these is known.
pub(crate) fn memory() -> Option<u64> {
    memory_of(|path| read_to_string(path).ok())
}

/// [`memory`] on a system whose files have the contents that `read` returns. Tests pass
/// contents of their own.
fn memory_of(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let first = |text: String| text.split_whitespace().next()?.parse().ok();
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    // Version 2 of control groups has the file `memory.max`, which contains `max` if
    // there is no limit. Version 1 has the file `memory.limit_in_bytes`, which contains a
    // number near 2^63 if there is no limit.
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

/// The folders of the control groups that limit a process for one controller: its own
/// group and all groups above it, under the usual mounts of both versions. `groups` is
/// the text of `/proc/self/cgroup`. Not all of these folders exist: a container often
/// sees the path of its group, but not the folders above it.
fn group_folders(groups: &str, controller: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        // A line is "4:memory:/path" in version 1, and "0::/path" in version 2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounts = if controllers.is_empty() {
            // The second path is the mount of version 2 on systems that have both
            // versions.
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

/// A soft limit in the text of `/proc/self/limits`. `None` if there is no limit: then the
/// text is `unlimited`.
fn soft_limit<N: FromStr>(limits: &str, name: &str) -> Option<N> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The value of a line such as `MemTotal:  24684192 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = value(text, name)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The first word after `name` in the first line that begins with `name`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// The number at the beginning of a file; `None` if there is no file or no number.
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

    /// Paths of files, each with its content.
    type Files = &'static [(&'static str, &'static str)];

    fn counts([clients, extra, lingering, evicted]: [usize; 4]) -> ConnectionCounts {
        ConnectionCounts {
            clients,
            extra,
            reserves: Reserves { lingering, evicted },
        }
    }

    #[test]
    fn room_is_divided_and_clients_are_lowered_last() {
        let (default, small) = ([1000, 256, 256, 32], [10, 5, 256, 32]);
        let threads = [1000, 256, 0, 32];
        for (wanted, room, given) in [
            // There is room for all.
            (default, usize::MAX, Some(default)),
            (default, 1544, Some(default)),
            // The reserves shrink in proportion.
            (default, 1543, Some([1000, 256, 256, 31])),
            (default, 1400, Some([1000, 256, 128, 16])),
            (default, 1340, Some([1000, 256, 75, 9])),
            // The reserves are at their minimum, and the extra connections shrink.
            (default, 1300, Some([1000, 219, 72, 9])),
            (default, 1220, Some([1000, 144, 68, 8])),
            // The extra connections are at their minimum, and the clients shrink.
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
            // A kind of which none is wanted gets none.
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
            let found = divide(counts(wanted), room);
            assert_eq!(found, given.map(counts), "{wanted:?} in {room}");
        }
    }

    #[test]
    fn counts_fit_into_the_room_and_grow_with_it_and_no_kind_is_left_out() {
        for wanted in [
            [1000, 256, 256, 32],
            [10, 5, 256, 32],
            [3, 900, 256, 32],
            [9000, 1, 256, 32],
        ] {
            let mut before = [0; 4];
            for room in 0..2000 {
                let Some(given) = divide(counts(wanted), room) else {
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
    fn the_message_shows_the_calculation() {
        let limit = ResourceLimit {
            unit: "open files",
            limit: 100,
            rest: 20,
            each: 1,
            only_threads: false,
            remedy: "ulimit -n".into(),
        };
        assert_eq!(
            limit.explain(counts([10, 5, 3, 2])),
            "40 open files are needed, 1 for each connection (10 of clients, 5 extra, 3 rejected, \
             2 evicted) and 20 for the rest of the program; 100 are allowed (ulimit -n)"
        );
        let limit = ResourceLimit {
            unit: "memory maps",
            each: 4,
            only_threads: true,
            ..limit
        };
        assert_eq!(
            limit.explain(counts([10, 5, 3, 2])),
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
