//! Small machines: few memory maps, no `/proc`, a read-only root file system, and a
//! program that is started with closed standard descriptors.

use std::fs;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::{Command, Stdio};

use crate::kit::{Stream, post};
use crate::program::{PROGRAM, Process, all_lines, serve, serve_without_output, wait_for_greeting};

/// Returns the command that runs this shell script. In the script, `$0` is the path of
/// the program.
#[track_caller]
fn script(text: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", text, PROGRAM])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same, in a separate mount namespace, where the script may mount file systems.
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
fn a_stream_takes_about_two_memory_maps() {
    const STREAMS: usize = 100;
    let serving = serve(&[]);
    let path = format!("/proc/{}/maps", serving.process.child.id());
    let maps = || fs::read_to_string(&path).unwrap().lines().count();
    let before = maps();
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| Stream::subscribe(serving.address, "/events"))
        .collect();
    // The bound is 3 and not 2, because the allocator and the worker threads have maps,
    // too.
    let added = maps() - before;
    assert!(added < 3 * STREAMS, "{added} maps for {STREAMS} streams");
    drop(streams);
}

#[test]
fn standard_descriptors_that_are_closed_at_the_start_are_not_reused_for_sockets() {
    let (mut process, address) = serve_without_output(|address| {
        let mut command = script("exec \"$0\" --listen \"$1\" --log debug <&- >&- 2>&-");
        command.arg(address);
        command
    });
    let mut stream = Stream::subscribe(address, "/events");
    assert_eq!(post(address, "/events", "hello").status, 200);
    assert_eq!(stream.next().data, "hello");
    #[cfg(target_os = "linux")]
    for number in 0..3 {
        let path = format!("/proc/{}/fd/{number}", process.child.id());
        let target = fs::read_link(&path).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "{number}");
    }
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn an_argument_that_is_not_utf_8_reaches_the_program() {
    let mut process = Process::spawn(&mut script("exec \"$0\" --listen=\"$(printf '\\377')\""));
    let code = process.exit_code();
    let line = all_lines(&process.err).concat();
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
    let serving = wait_for_greeting(Process::spawn(&mut with_mounts(text)));
    let mut stream = Stream::subscribe(serving.address, "/events");
    assert_eq!(post(serving.address, "/events", "hello").status, 200);
    assert_eq!(stream.next().data, "hello");
}

#[test]
#[cfg(feature = "journal")]
#[ignore = "needs unshare and mount"]
fn a_journal_on_a_read_only_file_system_is_reported_in_one_clear_line() {
    let text =
        "mount -t tmpfs -o ro none /mnt && exec \"$0\" --listen 127.0.0.1:0 --journal /mnt/journal";
    let mut process = Process::spawn(&mut with_mounts(text));
    let code = process.exit_code();
    let line = all_lines(&process.err).concat();
    for part in [
        "cannot create /mnt/journal",
        "Read-only file system",
        "a journal needs a writable directory",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert_eq!(code, Some(1));
}
