//! Small machines: few memory maps, no `/proc`, a root that is read-only, a start without std's.

use std::fs;
use std::process::{Command, Stdio};

use crate::kit::{Stream, eventually, post};
use crate::program::{PROGRAM, Process, all, greeted, serve};

/// The program, as this shell script starts it. `$0` is its path.
#[track_caller]
fn script(text: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", text, PROGRAM])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same, in a mount namespace of its own.
#[track_caller]
fn with_mounts(text: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", text, PROGRAM])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
#[cfg(target_os = "linux")]
fn a_stream_takes_two_memory_maps() {
    const STREAMS: usize = 100;
    let serving = serve(&[]);
    let path = format!("/proc/{}/maps", serving.process.child.id());
    let maps = || fs::read_to_string(&path).unwrap().lines().count();
    let before = maps();
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| Stream::subscribe(serving.address, "/events"))
        .collect();
    // The allocator and the threads that answer requests have some maps, too.
    let more = maps() - before;
    assert!(more < 3 * STREAMS, "{more} maps for {STREAMS} streams");
    drop(streams);
}

#[test]
fn descriptors_that_are_closed_at_the_start_are_no_sockets() {
    // Without standard output the address is not printed, so the port is told by the log.
    let mut command = script("exec \"$0\" --listen 127.0.0.1:0 --log info <&- >&-");
    let process = Process::spawn(&mut command);
    let id = process.child.id();
    #[cfg(target_os = "linux")]
    eventually("open descriptors", || {
        let target = |number: u8| fs::read_link(format!("/proc/{id}/fd/{number}"));
        let is_socket = |number: &u8| {
            target(*number).is_ok_and(|path| path.to_string_lossy().starts_with("socket:"))
        };
        assert!(
            ![0, 1].iter().any(is_socket),
            "{:?} {:?}",
            target(0),
            target(1)
        );
        (3..10).any(|number| is_socket(&number))
    });
}

#[test]
#[cfg(target_os = "linux")]
fn words_that_are_not_utf_8_reach_the_program() {
    let mut process = Process::spawn(&mut script("exec \"$0\" --listen=\"$(printf '\\377')\""));
    let code = process.exit_code();
    let line = all(&process.err).concat();
    assert!(
        line.contains("the value of --listen is not UTF-8"),
        "{line}"
    );
    assert_eq!(code, Some(2));
}

#[test]
#[ignore = "needs unshare and mount"]
fn a_server_without_proc_and_with_a_read_only_root_serves() {
    let text = "mount -t tmpfs none /proc && mount -o remount,bind,ro / && exec \"$0\" --listen 127.0.0.1:0";
    let serving = greeted(Process::spawn(&mut with_mounts(text)));
    let mut stream = Stream::subscribe(serving.address, "/events");
    assert_eq!(post(serving.address, "/events", "hello").status, 200);
    assert_eq!(stream.next().data, "hello");
}

#[test]
#[cfg(feature = "journal")]
#[ignore = "needs unshare and mount"]
fn a_journal_on_a_read_only_file_system_is_one_clear_line() {
    let text =
        "mount -t tmpfs -o ro none /mnt && exec \"$0\" --listen 127.0.0.1:0 --journal /mnt/journal";
    let mut process = Process::spawn(&mut with_mounts(text));
    let code = process.exit_code();
    let line = all(&process.err).concat();
    for part in [
        "cannot create /mnt/journal",
        "Read-only file system",
        "a journal needs a directory that can be written to",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert_eq!(code, Some(1));
}
