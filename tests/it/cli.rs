//! The program, as a shell and a terminal see it: what it prints, how it ends, what it logs.

use std::io::{PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::kit::{Answer, Raw, Stream, eventually, get, number_after, post, request};
use crate::program::{PROGRAM, Process, all, end_of, serve, serve_as, up_to};

// ---- what it prints

#[test]
fn it_says_where_it_listens_and_what_to_try() {
    let serving = serve(&[]);
    let address = serving.address;
    let version = env!("CARGO_PKG_VERSION");
    assert_ne!(address.port(), 0);
    assert_eq!(
        serving.greeting,
        [
            &*format!("tiny-sse {version} listens on {address}"),
            "",
            &format!("  subscribe:  curl -N http://{address}/events"),
            &format!("  publish:    curl -d 'hello' http://{address}/events"),
            "",
        ]
    );
}

#[test]
fn an_address_of_all_interfaces_is_printed_as_one_to_connect_to() {
    for (listen, host) in [("0.0.0.0:0", "127.0.0.1"), ("localhost:0", "")] {
        let serving = serve_as(&["--listen", listen]);
        let url = format!("http://{host}");
        assert!(serving.greeting[2].contains(&url), "{:?}", serving.greeting);
        let port = serving.address.port();
        assert!(serving.greeting[2].contains(&format!(":{port}/events")));
    }
}

#[test]
fn the_two_lines_it_prints_work() {
    let serving = serve(&[]);
    let line = |number: usize| {
        let (_, line) = serving.greeting[number].split_once(":  ").expect("a label");
        line.trim_start().to_owned()
    };
    let (subscribe, publish) = (line(2), line(3));
    if Command::new("curl").arg("--version").output().is_err() {
        let mut stream = Stream::subscribe(serving.address, "/events");
        post(serving.address, "/events", "hello");
        assert_eq!(stream.next().data, "hello");
        return;
    }
    let shell = |line: &str| {
        Process::spawn(
            Command::new("sh")
                .args(["-c", &format!("exec {line}")])
                .env("no_proxy", "*")
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        )
    };
    let subscriber = shell(&subscribe);
    up_to(&subscriber.out, "data: {\"type\":\"connected\"");
    let mut publisher = shell(&publish);
    assert_eq!(publisher.exit_code(), Some(0), "{publish}");
    let answer = all(&publisher.out).join("\n");
    assert!(
        answer.starts_with(r#"{"status":"ok","id":""#) && answer.ends_with(r#","recipients":1}"#),
        "{publish}: {answer}"
    );
    let seen = up_to(&subscriber.out, "data: hello");
    assert_eq!(seen.last().unwrap(), "data: hello", "{subscribe}");
}

/// Every option, and the value that it has when nobody says anything.
const DEFAULTS: [(&str, &str); 28] = [
    ("listen", "127.0.0.1:8080"),
    ("max-clients", "1000"),
    ("extra-connections", "256"),
    ("max-per-ip", "off"),
    ("heartbeat", "15s"),
    ("retry", "5s"),
    ("history", "10000"),
    ("history-bytes", "16MiB"),
    ("retry-jitter", "0%"),
    ("overload", "refuse"),
    ("sync", "always"),
    ("queue-bytes", "1MiB"),
    ("total-queues", "auto"),
    ("write-timeout", "10s"),
    ("max-body", "1MiB"),
    ("total-bodies", "64MiB"),
    ("total-answers", "64MiB"),
    ("max-patterns", "64"),
    ("max-head", "16KiB"),
    ("max-fields", "100"),
    ("max-target", "8KiB"),
    ("head-timeout", "10s"),
    ("body-timeout", "30s"),
    ("idle-timeout", "15s"),
    ("grace", "5s"),
    ("stack-bytes", "256KiB"),
    ("console", "auto"),
    ("log", "warn"),
];

#[test]
fn help_names_every_option_with_its_default() {
    let (code, help, errors) = end_of(&["--help"]);
    assert_eq!((code, errors.len()), (Some(0), 0));
    for (name, default) in DEFAULTS {
        let mut own = help
            .iter()
            .filter(|line| line.trim_start().starts_with(&format!("--{name} ")));
        let line = own.next().unwrap_or_else(|| panic!("no --{name}"));
        assert!(line.contains(&format!("[{default}]")), "{line}");
        assert_eq!(own.next(), None, "--{name} twice");
    }
    let options = help
        .iter()
        .filter(|line| line.trim_start().starts_with("--"));
    // And those without a default, and the one line of --help and --version.
    let others = [
        "journal",
        "repair",
        "publish-token",
        "subscribe-token",
        "tokens",
        "open",
        "cors-origin",
        "trust-proxy",
    ];
    assert_eq!(
        options.count(),
        DEFAULTS.len() + others.len() + 1,
        "{help:#?}"
    );
    for alike in [
        &["-h"][..],
        &["help"],
        &["serve", "--help"],
        &["--log", "info", "--help"],
    ] {
        let (code, lines, errors) = end_of(alike);
        assert_eq!((code, errors.len()), (Some(0), 0), "{alike:?}");
        assert_eq!(lines, help, "{alike:?}");
    }
}

#[test]
fn the_defaults_of_help_can_be_given_as_they_are_printed() {
    let mut arguments: Vec<String> = Vec::new();
    for (name, default) in DEFAULTS.iter().filter(|(name, _)| *name != "listen") {
        arguments.push(format!("--{name}={default}"));
    }
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    let serving = serve(&arguments);
    assert_eq!(get(serving.address, "/health").status, 200);
}

#[test]
fn the_version_is_that_of_the_package() {
    for flag in ["--version", "-V"] {
        let expected = format!("tiny-sse {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(end_of(&[flag]), (Some(0), vec![expected], vec![]), "{flag}");
    }
}

// ---- what it is told

#[test]
fn a_value_stands_behind_the_option_or_behind_its_equals_sign() {
    for (arguments, retry) in [
        (&["--retry", "7s"][..], "retry: 7000\n"),
        (&["--retry=7s"], "retry: 7000\n"),
        // The last one counts.
        (&["--retry=7s", "--retry", "8s"], "retry: 8000\n"),
        // Each unit.
        (&["--retry=0ms"], "retry: 0\n"),
        (&["--retry=500ms"], "retry: 500\n"),
        (&["--retry", "2m"], "retry: 120000\n"),
        (&["--retry", "1h"], "retry: 3600000\n"),
    ] {
        let serving = serve(arguments);
        let stream = Stream::subscribe(serving.address, "/events");
        let welcome = String::from_utf8_lossy(&stream.bytes).into_owned();
        assert!(welcome.contains(retry), "{arguments:?}: {welcome}");
    }
}

#[test]
fn a_list_stands_between_commas_or_behind_its_option_again() {
    for arguments in [
        &["--trust-proxy", "10.0.0.0/8, 127.0.0.1,::1"][..],
        &[
            "--trust-proxy=::1,127.0.0.0/8",
            "--trust-proxy",
            "10.0.0.0/8",
        ],
    ] {
        let serving = serve(arguments);
        let fields = "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n";
        let _stream = Stream::open(serving.address, "/events", fields);
        let of_this_machine = "X-Forwarded-For: 127.0.0.9\r\n";
        let stats = request(
            serving.address,
            "GET",
            "/stats?clients=1",
            of_this_machine,
            "",
        );
        let found = stats.text().contains("\"address\":\"192.0.2.7\"");
        assert!(found, "{arguments:?}: {}", stats.text());
    }
}

#[test]
fn the_word_serve_may_come_first() {
    let serving = serve_as(&["serve", "--listen=127.0.0.1:0", "--max-clients=3"]);
    let stats = get(serving.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"max_connections\":"), 3);
}

#[test]
fn a_size_is_bytes_or_has_a_unit_of_two_to_the_ten() {
    for (size, bytes) in [
        ("10", "10"),
        ("1KiB", "1024"),
        ("3MiB", "3145728"),
        ("1GiB", "1073741824"),
    ] {
        let serving = serve(&["--max-body", size]);
        let mut raw = Raw::connect(serving.address);
        raw.send("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
        let answer = raw.answer();
        assert_eq!(answer.status, 413, "{size}");
        let expected = format!("the body is larger than {bytes} bytes");
        assert!(answer.text().contains(&expected), "{size}: {answer:?}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_that_names_what_is_wrong_and_a_2() {
    for (arguments, parts) in [
        // Near misses.
        (&["--lisen", "x:1"][..], &["--lisen", "--listen"][..]),
        (&["--max-client=1"], &["--max-client", "--max-clients"]),
        (&["--maxclients=1"], &["--maxclients", "--max-clients"]),
        (&["--hartbeat", "1s"], &["--hartbeat", "--heartbeat"]),
        (
            &["--history-byte=1"],
            &["--history-byte", "--history-bytes"],
        ),
        (&["--Retry=1s"], &["--Retry", "--retry"]),
        (&["--lgo=info"], &["--lgo", "--log"]),
        (&["--graze", "5s"], &["--graze", "--grace"]),
        (&["serv"], &["serv", "serve"]),
        (&["dmeo"], &["dmeo", "demo"]),
        (&["--log=off", "demo"], &["demo must be the first word"]),
        (&["sreve", "--log=off"], &["sreve", "serve"]),
        // Far ones.
        (&["--frobnicate"], &["--frobnicate", "--help"]),
        (&["--", "x"], &["--", "--help"]),
        (&["127.0.0.1:8080"], &["127.0.0.1:8080", "--help"]),
        (&["two\nlines"], &["two\\nlines", "--help"]),
        (&["--\u{1b}[2J=1"], &["--\\u{1b}[2J", "--help"]),
        (&["--log", "off", "extra"], &["extra", "--help"]),
        (&[""], &["--help"]),
        // No value.
        (&["--listen"], &["--listen needs a value"]),
        (&["--log=info", "--grace"], &["--grace needs a value"]),
        // Values that are none.
        (
            &["--listen=8080"],
            &["--listen", "\"8080\"", "127.0.0.1:8080"],
        ),
        (&["--listen", ""], &["--listen", "\"\""]),
        (
            &["--max-clients=many"],
            &["--max-clients", "\"many\"", "whole number"],
        ),
        (&["--max-clients=-1"], &["--max-clients", "\"-1\""]),
        (&["--max-clients=1.5"], &["--max-clients", "\"1.5\""]),
        (&["--max-clients=1k"], &["--max-clients", "\"1k\""]),
        (&["--max-clients="], &["--max-clients", "\"\""]),
        (
            &["--max-clients=99999999999999999999"],
            &["--max-clients", "99999999999999999999"],
        ),
        (&["--history", "--log"], &["--history needs a value"]),
        (&["--heartbeat=15"], &["--heartbeat", "\"15\"", "15s"]),
        (&["--heartbeat", "1.5s"], &["--heartbeat", "\"1.5s\""]),
        (&["--heartbeat", "-1s"], &["--heartbeat", "\"-1s\""]),
        (&["--heartbeat", "+1s"], &["--heartbeat", "\"+1s\""]),
        (&["--heartbeat", "1 s"], &["--heartbeat", "\"1 s\""]),
        (&["--heartbeat", "s"], &["--heartbeat", "\"s\""]),
        (&["--heartbeat", "1d"], &["--heartbeat", "\"1d\""]),
        (
            &["--grace", "99999999999999999999s"],
            &["--grace", "99999999999999999999s"],
        ),
        (
            &["--grace", "18446744073709551615h"],
            &["--grace", "18446744073709551615h"],
        ),
        (
            &["--queue-bytes=1MB"],
            &["--queue-bytes", "\"1MB\"", "1MiB"],
        ),
        (&["--queue-bytes=1mib"], &["--queue-bytes", "\"1mib\""]),
        (&["--queue-bytes=MiB"], &["--queue-bytes", "\"MiB\""]),
        (&["--queue-bytes=+1MiB"], &["--queue-bytes", "\"+1MiB\""]),
        (
            &["--queue-bytes=18446744073709551615GiB"],
            &["--queue-bytes", "18446744073709551615GiB"],
        ),
        (
            &["--log=loud"],
            &["--log", "\"loud\"", "off, error, warn, info"],
        ),
        (&["--log=INFO"], &["--log", "\"INFO\""]),
        (
            &["--console=yes"],
            &["--console", "\"yes\"", "on, off or auto"],
        ),
        (
            &["--max-per-ip=many"],
            &["--max-per-ip", "\"many\"", "or off"],
        ),
        (
            &["--trust-proxy=localhost"],
            &["--trust-proxy", "\"localhost\"", "such as 192.0.2.7"],
        ),
        (
            &["--trust-proxy", "127.0.0.1,10.0.0.1/8"],
            &["--trust-proxy", "\"10.0.0.1/8\"", "10.0.0.0/8"],
        ),
        (&["--trust-proxy=127.0.0.1,"], &["--trust-proxy", "\"\""]),
        // Values that make no sense, alone or together.
        (&["--max-per-ip=0"], &["--max-per-ip is 0"]),
        (&["--max-clients=0"], &["--max-clients is 0"]),
        (&["--extra-connections=0"], &["--extra-connections is 0"]),
        (&["--max-head=0"], &["--max-head is 0"]),
        (&["--max-fields=0"], &["--max-fields is 0"]),
        (&["--max-target=0"], &["--max-target is 0"]),
        (&["--max-body=0"], &["--max-body is 0"]),
        (&["--queue-bytes=0"], &["--queue-bytes is 0"]),
        (&["--stack-bytes=0"], &["--stack-bytes is 0"]),
        (&["--heartbeat=0s"], &["--heartbeat is 0"]),
        (&["--write-timeout=0ms"], &["--write-timeout is 0"]),
        (&["--head-timeout=0s"], &["--head-timeout is 0"]),
        (&["--body-timeout=0s"], &["--body-timeout is 0"]),
        (&["--idle-timeout=0s"], &["--idle-timeout is 0"]),
        (
            &["--heartbeat=999999h"],
            &["--heartbeat is longer than 365 days"],
        ),
        (
            &["--history-bytes=1KiB"],
            &["--history-bytes is 1024", "queue-bytes"],
        ),
    ] {
        let (code, printed, errors) = end_of(arguments);
        assert_eq!(
            (code, printed),
            (Some(2), vec![]),
            "{arguments:?}: {errors:?}"
        );
        assert_eq!(errors.len(), 1, "{arguments:?}: {errors:?}");
        assert!(
            errors[0].starts_with("tiny-sse: "),
            "{arguments:?}: {errors:?}"
        );
        for part in parts {
            assert!(
                errors[0].contains(part),
                "{arguments:?}: no {part:?} in {errors:?}"
            );
        }
    }
}

#[cfg(unix)]
#[test]
fn a_word_that_is_not_utf_8_is_refused_and_not_shown_for_it_may_be_a_token() {
    use std::os::unix::ffi::OsStrExt;
    for (words, error) in [
        (&[&b"--log=\xff"[..]][..], "the value of --log is not UTF-8"),
        (
            &[b"--publish-token=s3cret\xff"],
            "the value of --publish-token is not UTF-8",
        ),
        (
            &[b"--publish-token", b"s3cret\xff"],
            "a word of the command line is not UTF-8",
        ),
        (&[b"s3cret=\xff"], "a word of the command line is not UTF-8"),
    ] {
        let words = words.iter().map(|word| std::ffi::OsStr::from_bytes(word));
        let mut process = Process::spawn(
            Command::new(PROGRAM)
                .args(words)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        assert_eq!(process.exit_code(), Some(2));
        assert_eq!(all(&process.err), [format!("tiny-sse: {error}")]);
    }
}

#[test]
fn where_it_cannot_listen_it_says_where_and_why_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().unwrap().to_string();
    // Of the documentation (RFC 5737), and so of no machine.
    let mut rows = vec![
        (&*taken_address, "address in use"),
        ("192.0.2.1:0", "address not available"),
    ];
    // Root may have any port.
    let denied = std::io::ErrorKind::PermissionDenied;
    if TcpListener::bind("127.0.0.1:1").is_err_and(|error| error.kind() == denied) {
        rows.push(("127.0.0.1:1", "permission denied"));
    }
    for (address, reason) in rows {
        let (code, printed, errors) = end_of(&["--log=error", "--listen", address]);
        let expected = format!("tiny-sse: cannot listen on {address}: {reason}");
        assert_eq!((code, printed, errors), (Some(1), vec![], vec![expected]));
    }
}

// ---- how it ends

#[test]
fn either_signal_says_goodbye_to_the_streams_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut serving = serve(&[]);
        let mut stream = Stream::subscribe(serving.address, "/events");
        let idle = Raw::connect(serving.address);
        post(serving.address, "/events", "the last");
        serving.process.signal(signal);
        assert_eq!(stream.next().data, "the last", "{signal}");
        assert_eq!(stream.try_next(), None, "{signal}");
        assert!(stream.has_ended, "{signal}: without its last chunk");
        assert_eq!(stream.closed.as_deref(), Some("closing"), "{signal}");
        drop(idle);
        assert_eq!(serving.process.exit_code(), Some(0), "{signal}");
        let errors = all(&serving.process.err);
        let last = errors.last().expect("a line for the one at the terminal");
        assert!(
            last.contains(&format!("SIG{signal}: closing")),
            "{errors:?}"
        );
        assert!(all(&serving.process.out).is_empty(), "{signal}");
    }
}

/// A request whose body the server waits for: it has said so.
#[track_caller]
fn request_in_flight(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    raw.send(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(raw.head().status, 100);
    raw.send("half ");
    raw
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let mut serving = serve(&["--grace", "30s"]);
    let mut raw = request_in_flight(serving.address);
    serving.process.signal("TERM");
    up_to(&serving.process.err, "closing");
    eventually("nobody is let in any more", || {
        std::net::TcpStream::connect(serving.address).is_err()
    });
    raw.send("whole");
    let answer = raw.answer();
    // In time to be published or too late for it, but never in silence.
    match answer.status {
        200 => assert!(answer.text().contains("\"recipients\":0"), "{answer:?}"),
        _ => {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.field("retry-after").is_some(), "{answer:?}");
            assert!(
                answer.text().contains("the server is closing"),
                "{answer:?}"
            );
        }
    }
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(serving.process.exit_code(), Some(0));
}

#[test]
fn the_grace_ends_a_request_that_does_not() {
    let mut serving = serve(&["--grace", "20ms"]);
    let mut raw = request_in_flight(serving.address);
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
    assert!(raw.is_closed());
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace() {
    for (first, second, code) in [
        ("TERM", "TERM", 143),
        ("INT", "INT", 130),
        ("TERM", "INT", 130),
    ] {
        // Longer than this test would wait.
        let mut serving = serve(&["--grace", "1h"]);
        let _stuck = request_in_flight(serving.address);
        serving.process.signal(first);
        up_to(&serving.process.err, "closing; once more to end at once");
        serving.process.signal(second);
        assert_eq!(serving.process.exit_code(), Some(code), "{first}, {second}");
    }
}

// ---- what it logs

#[test]
fn info_logs_comings_and_goings_and_nothing_for_an_event() {
    for (level, is_logged) in [
        ("off", false),
        ("error", false),
        ("warn", false),
        ("info", true),
        ("debug", true),
    ] {
        let mut serving = serve(&["--log", level]);
        let address = serving.address;
        let mut stream = Stream::subscribe(address, "/events?client_id=me");
        for number in 0..5 {
            post(address, "/events", number.to_string());
            post(address, "/clients/me", number.to_string());
            post(address, "/events?retry=x", number.to_string());
            assert_eq!(stream.next().data, number.to_string());
            assert_eq!(stream.next().data, number.to_string());
        }
        request(address, "DELETE", "/clients/me", "", "");
        assert_eq!(stream.try_next(), None);
        serving.process.signal("TERM");
        assert_eq!(serving.process.exit_code(), Some(0));
        let mut log = all(&serving.process.err);
        // The stream's thread may still be writing its line when the signal comes.
        let closing = log
            .iter()
            .position(|line| line.starts_with("tiny-sse: SIGTERM"));
        log.remove(closing.expect("the line about the signal"));
        // The machine may be too small for the default limits, which is a warning.
        log.retain(|line| !line.contains(" warn  "));
        let expected: &[&str] = if is_logged {
            &[
                "info  client me joined (127.0.0.1:",
                "info  client me left (127.0.0.1:",
            ]
        } else {
            &[]
        };
        assert_eq!(log.len(), expected.len(), "{level}: {log:?}");
        for (line, part) in log.iter().zip(expected) {
            // 2026-11-22T05:40:00.123Z
            let (time, rest) = line.split_at(25);
            assert!(time.ends_with("Z "), "{level}: {line}");
            assert!(rest.starts_with(part), "{level}: no {part:?} in {line}");
        }
        let reason = log
            .last()
            .map_or("", |line| line.rsplit("): ").next().unwrap());
        let kicked = if is_logged {
            "the stream was closed on request"
        } else {
            ""
        };
        assert_eq!(reason, kicked, "{level}");
    }
}

// ---- nobody listens to it

/// A pipe that nobody will ever read.
fn closed_pipe() -> PipeWriter {
    std::io::pipe().expect("a pipe").1
}

/// A server that cannot say where it listens, and so is told. The port was free a moment ago;
/// should another have taken it, a second one is tried.
#[track_caller]
fn serve_unheard(mut command: impl FnMut(&str) -> Command) -> (Process, SocketAddr) {
    for _ in 0..10 {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let mut process = Process::spawn(&mut command(&address.to_string()));
        let mut has_ended = false;
        eventually("the server answers or ends", || {
            has_ended = process.child.try_wait().expect("a child of ours").is_some();
            has_ended || std::net::TcpStream::connect(address).is_ok()
        });
        if !has_ended {
            return (process, address);
        }
    }
    panic!("no server has begun");
}

#[test]
fn a_standard_output_that_nobody_reads_does_not_hurt() {
    let broken = |address: &str| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--listen", address])
            .stdout(closed_pipe())
            .stderr(Stdio::null());
        command
    };
    let closed = |address: &str| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"exec "$0" --listen "$1" >&- 2>&-"#,
            PROGRAM,
            address,
        ]);
        command
    };
    type Start<'a> = &'a dyn Fn(&str) -> Command;
    for (how, command) in [("broken", &broken as Start), ("closed", &closed)] {
        let (mut process, address) = serve_unheard(command);
        let mut stream = Stream::subscribe(address, "/events");
        post(address, "/events", how);
        assert_eq!(stream.next().data, how);
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{how}");
    }
    let mut help = Process::spawn(Command::new(PROGRAM).arg("--help").stdout(closed_pipe()));
    assert_eq!(help.exit_code(), Some(0));
}

// ---- a machine that gives too little

/// Asks for a stream. Who is turned away may be so before it has said what it wants.
fn ask_for_a_stream(address: SocketAddr) -> (Raw, Answer) {
    let mut raw = Raw::connect(address);
    // Refused if the answer is there already: then that is what is read.
    let _ = raw
        .socket
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = raw.head();
    (raw, head)
}

#[test]
fn without_address_space_for_a_thread_it_refuses_with_503_and_lives() {
    // `ulimit -u` does not bind root; `-v` binds everybody. At the start it is roomy, or the limit
    // of clients would be lowered to what fits; then it is drawn tight.
    let script = format!(
        "ulimit -v 4000000; exec '{PROGRAM}' --listen 127.0.0.1:0 --log off --heartbeat 50ms"
    );
    let mut command = Command::new("sh");
    let piped = command
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn(piped);
    let line = up_to(&process.out, "listens on ").pop().unwrap();
    let address: SocketAddr = line
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .expect("an address");
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let taken = number_after(&status.replace([' ', '\t'], ""), "VmSize:") << 10;
    let allow = |bytes: u64| {
        let status = Command::new("prlimit")
            .args(["--pid", &process.child.id().to_string()])
            .arg(format!("--as={bytes}:"))
            .status();
        assert!(status.expect("prlimit, of util-linux").success());
    };
    let mut limit = taken + (64 << 20);
    allow(limit);
    let mut streams = Vec::new();
    let refusal = loop {
        let (raw, head) = ask_for_a_stream(address);
        if head.status != 200 {
            break head;
        }
        streams.push(raw);
        assert!(streams.len() < 1000, "the address space does not run out");
    };
    assert_eq!(
        (refusal.status, refusal.field("retry-after")),
        (503, Some("5"))
    );
    assert!(!streams.is_empty(), "nobody was let in at all");
    // What is left may be too little for a stack, or enough for a stack and too little for what
    // comes behind it.
    for _ in 0..100 {
        limit += 4096;
        allow(limit);
        match ask_for_a_stream(address) {
            (raw, head) if head.status == 200 => streams.push(raw),
            (_, head) => assert_eq!(head.status, 503),
        }
    }
    // Those that are there go on, and there is room again when some have left.
    streams.truncate(streams.len() / 2);
    eventually("room again", || ask_for_a_stream(address).1.status == 200);
    let beat = b"c\r\n: heartbeat\n\r\n".len();
    let mut bytes = vec![0; 20 * beat];
    let first = &mut streams[0].socket;
    first.read_exact(&mut bytes).expect("it goes on");
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}
