//! Monitoring: turns the files of `/proc` into an event `metrics` with the load, the
//! memory and the network traffic of this machine. The values are real. On a system
//! without `/proc` the event has an `error` instead.

use std::fs::read_to_string;
use std::thread;
use std::time::{Duration, Instant};

use tiny_sse::wire::json::quoted;

use super::turns::Turns;
use super::{event, now, topic};

pub(super) const TOPIC: &str = "demo/metrics";

/// The time between two measurements.
const EVERY: Duration = Duration::from_secs(5);

/// The time between the two readings of the first rate. Later rates use the reading of
/// the previous turn.
const SAMPLE: Duration = Duration::from_millis(200);

/// Returns the turns of this use: one measurement each.
pub(super) fn turns() -> Turns {
    let mut last = None;
    Turns {
        topic: topic(TOPIC),
        every: EVERY,
        turn: Box::new(move |topic| {
            let data = measure(&mut last)
                .unwrap_or_else(|why| format!(r#"{{"at":"{}","error":{}}}"#, now(), quoted(&why)));
            vec![event("metrics", topic, data)]
        }),
    }
}

/// Returns all values as JSON. The error is a message that names the file. `last` is the
/// previous reading of the network.
fn measure(last: &mut Option<Traffic>) -> Result<String, String> {
    let load = load(&read("/proc/loadavg")?)?;
    let memory = memory(&read("/proc/meminfo")?)?;
    let (cpus, network) = (cpus(&read("/proc/stat")?), rates(last)?);
    Ok(format!(
        r#"{{"at":"{}","cpus":{cpus},"load":{load},"memory":{memory},"network":{network}}}"#,
        now()
    ))
}

/// Reads a file. The error is a message with the path.
fn read(path: &str) -> Result<String, String> {
    read_to_string(path).map_err(|error| format!("{path} cannot be read: {}", error.kind()))
}

/// Returns the load of 1, 5 and 15 minutes as a JSON array. `/proc/loadavg` is
/// `0.52 0.58 0.59 2/345 6789`, and its numbers are valid JSON.
fn load(loadavg: &str) -> Result<String, String> {
    let numbers: Vec<&str> = loadavg.split(' ').take(3).collect();
    let is_number = |text: &&str| {
        text.bytes()
            .all(|byte| byte == b'.' || byte.is_ascii_digit())
    };
    if numbers.len() == 3 && numbers.iter().all(is_number) {
        Ok(format!("[{}]", numbers.join(",")))
    } else {
        Err(format!("/proc/loadavg is {loadavg:?}"))
    }
}

/// Returns the number of processors. `/proc/stat` has one line for all of them,
/// `cpu  4705 …`, and one line for each, `cpu0 1393 …`.
fn cpus(stat: &str) -> usize {
    let lines = stat.lines().filter(|line| line.starts_with("cpu"));
    lines.count().saturating_sub(1)
}

/// Returns the memory in bytes, as JSON. Each line of `/proc/meminfo` is like
/// `MemTotal:        8010476 kB`. The available memory is more than the free memory,
/// because the kernel can empty its caches.
fn memory(meminfo: &str) -> Result<String, String> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| format!("/proc/meminfo has no {name}"))
    };
    let (total, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    Ok(format!(r#"{{"total":{total},"available":{available}}}"#))
}

/// A reading of the network: its time, and the bytes received and sent since the machine
/// started.
type Traffic = (Instant, u64, u64);

/// Returns the bytes received and sent, and the rates since the previous reading, as
/// JSON. Replaces `last` by the new reading. Blocks for [`SAMPLE`] if there is no recent
/// reading.
fn rates(last: &mut Option<Traffic>) -> Result<String, String> {
    // An old reading is from before a time without clients. Its rate would be an average
    // over that time.
    let fresh = last.take().filter(|(at, ..)| at.elapsed() < 2 * EVERY);
    let (start, received_before, sent_before) = match fresh {
        Some(before) => before,
        None => {
            let before = traffic()?;
            thread::sleep(SAMPLE);
            before
        }
    };
    let now = traffic()?;
    let (end, received, sent) = now;
    let ms = end.duration_since(start).as_millis().max(1) as u64;
    // The sum becomes smaller when an interface is removed. The rate is then unknown, and
    // 0 is reported.
    let rate = |before: u64, now: u64| now.saturating_sub(before).saturating_mul(1000) / ms;
    let (received_rate, sent_rate) = (rate(received_before, received), rate(sent_before, sent));
    *last = Some(now);
    Ok(format!(
        r#"{{"received":{received},"sent":{sent},"received_per_second":{received_rate},"sent_per_second":{sent_rate}}}"#
    ))
}

/// Reads the network now.
fn traffic() -> Result<Traffic, String> {
    let (received, sent) = network(&read("/proc/net/dev")?);
    Ok((Instant::now(), received, sent))
}

/// Returns the bytes received and sent, summed over all interfaces apart from `lo`. In
/// `/proc/net/dev` a line such as `  eth0: 1234 …` has a name, eight numbers about
/// receiving and eight about sending. The first of the eight are the bytes.
fn network(dev: &str) -> (u64, u64) {
    let mut sum = (0u64, 0u64);
    for (name, numbers) in dev.lines().filter_map(|line| line.split_once(':')) {
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        if name.trim_ascii() != "lo" && numbers.len() > 8 {
            sum = (sum.0 + numbers[0], sum.1 + numbers[8]);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_become_json() {
        assert_eq!(
            load("0.52 0.58 12.59 2/345 6789\n").unwrap(),
            "[0.52,0.58,12.59]"
        );
        assert_eq!(cpus("cpu  3 4\ncpu0 1 2\ncpu1 2 2\nintr 5\n"), 2);
        let meminfo = "MemTotal:        8010476 kB\nMemFree:  1 kB\nMemAvailable:    4993324 kB\n";
        assert_eq!(
            memory(meminfo).unwrap(),
            r#"{"total":8202727424,"available":5113163776}"#
        );
        let dev = "Inter-|   Receive       |  Transmit\n face |bytes  packets|bytes packets\n    lo: 99 1 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n  eth0: 1000 5 0 0 0 0 0 0 200 3 0 0 0 0 0 0\nwlan0:30 1 0 0 0 0 0 0 4 1 0 0 0 0 0 0\n";
        assert_eq!(network(dev), (1030, 204));
    }

    #[test]
    fn a_missing_file_or_value_is_named_in_the_error() {
        assert!(load("").unwrap_err().contains("/proc/loadavg is \"\""));
        assert!(
            memory("MemTotal: 1 kB\n")
                .unwrap_err()
                .contains("MemAvailable:")
        );
        assert!(
            read("/proc/nowhere")
                .unwrap_err()
                .starts_with("/proc/nowhere cannot be read: ")
        );
    }

    #[test]
    fn the_first_rate_is_from_two_readings() {
        let mut last = None;
        if read("/proc/net/dev").is_ok() {
            let first = rates(&mut last).unwrap();
            assert!(first.contains("\"received_per_second\":"), "{first}");
            assert!(last.is_some());
        }
    }
}
