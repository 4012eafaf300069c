//! The program as a process: its command line, what it prints and logs, how it ends at a
//! signal, and how it runs with few open files, little address space or a standard output
//! that is not read.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::kit::{Answer, Raw, Scratch, Stream, eventually, get, number_after, post, request};
use crate::program::{
    PROGRAM, Process, all_lines, lines_up_to, run_to_end, serve, serve_with_listen,
    serve_without_output, wait_for_greeting,
};

// ---- what the program prints

#[test]
fn the_greeting_names_the_address_and_two_commands_to_try() {
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
fn the_greeting_prints_an_address_that_clients_can_connect_to() {
    for (listen, host) in [("0.0.0.0:0", "127.0.0.1"), ("localhost:0", "")] {
        let serving = serve_with_listen(&["--listen", listen]);
        let url = format!("http://{host}");
        assert!(serving.greeting[2].contains(&url), "{:?}", serving.greeting);
        let port = serving.address.port();
        assert!(serving.greeting[2].contains(&format!(":{port}/events")));
    }
}

#[test]
fn the_two_commands_in_the_greeting_work() {
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
    lines_up_to(&subscriber.out, "data: {\"type\":\"connected\"");
    let mut publisher = shell(&publish);
    assert_eq!(publisher.exit_code(), Some(0), "{publish}");
    let answer = all_lines(&publisher.out).join("\n");
    assert!(
        answer.starts_with(r#"{"status":"ok","id":""#) && answer.ends_with(r#","recipients":1}"#),
        "{publish}: {answer}"
    );
    let seen = lines_up_to(&subscriber.out, "data: hello");
    assert_eq!(seen.last().unwrap(), "data: hello", "{subscribe}");
}

/// Every option with a default, and that default.
const DEFAULTS: &[(&str, &str)] = &[
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
    #[cfg(feature = "journal")]
    ("sync", "always"),
    ("queue-bytes", "1MiB"),
    ("total-queues", "auto"),
    ("send-buffer", "128KiB"),
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
    #[cfg(feature = "console")]
    ("console", "auto"),
    ("log", "warn"),
];

#[test]
fn help_names_every_option_with_its_default() {
    let (code, help, errors) = run_to_end(&["--help"]);
    assert_eq!((code, errors.len()), (Some(0), 0));
    for (name, default) in DEFAULTS {
        let mut found = help
            .iter()
            .filter(|line| line.trim_start().starts_with(&format!("--{name} ")));
        let line = found.next().unwrap_or_else(|| panic!("no --{name}"));
        assert!(line.contains(&format!("[{default}]")), "{line}");
        assert_eq!(found.next(), None, "--{name} twice");
    }
    let options = help
        .iter()
        .filter(|line| line.trim_start().starts_with("--"));
    // The options without a default. One more line is about --help and --version.
    let others: &[&str] = &[
        "open",
        "public",
        "trust-proxy",
        #[cfg(feature = "journal")]
        "journal",
        #[cfg(feature = "journal")]
        "repair",
        #[cfg(feature = "access")]
        "publish-token",
        #[cfg(feature = "access")]
        "subscribe-token",
        #[cfg(feature = "access")]
        "tokens",
        #[cfg(feature = "access")]
        "jwt-key",
        #[cfg(feature = "access")]
        "jwt-audience",
        #[cfg(feature = "access")]
        "cors-origin",
    ];
    assert_eq!(
        options.count(),
        DEFAULTS.len() + others.len() + 1,
        "{help:#?}"
    );
    for spelling in [
        &["-h"][..],
        &["help"],
        &["serve", "--help"],
        &["--log", "info", "--help"],
    ] {
        let (code, lines, errors) = run_to_end(spelling);
        assert_eq!((code, errors.len()), (Some(0), 0), "{spelling:?}");
        assert_eq!(lines, help, "{spelling:?}");
    }
}

#[test]
fn help_does_not_mention_a_feature_that_is_left_out() {
    let help = run_to_end(&["--help"]).1.join("\n");
    for (is_there, words) in [
        (
            cfg!(feature = "access"),
            &["token", "TINY_SSE_", "--cors-origin"][..],
        ),
        (cfg!(feature = "console"), &["--console"]),
        (cfg!(feature = "demo"), &["demo"]),
        (
            cfg!(feature = "journal"),
            &["journal", "--sync", "--repair"],
        ),
    ] {
        for word in words {
            assert_eq!(help.contains(word), is_there, "{word:?} in {help}");
        }
    }
}

#[test]
fn the_defaults_that_help_prints_are_accepted_as_values() {
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
        assert_eq!(
            run_to_end(&[flag]),
            (Some(0), vec![expected], vec![]),
            "{flag}"
        );
    }
}

// ---- the command line

#[test]
fn a_value_follows_its_option_or_an_equals_sign() {
    for (arguments, retry) in [
        (&["--retry", "7s"][..], "retry: 7000\n"),
        (&["--retry=7s"], "retry: 7000\n"),
        // The last value counts.
        (&["--retry=7s", "--retry", "8s"], "retry: 8000\n"),
        // Each unit is accepted.
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
fn a_list_is_given_with_commas_or_by_repeating_the_option() {
    for arguments in [
        &["--open", "--trust-proxy", "10.0.0.0/8, 127.0.0.1,::1"][..],
        &[
            "--trust-proxy=::1,127.0.0.0/8",
            "--trust-proxy",
            "10.0.0.0/8",
            "--open",
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
    let serving = serve_with_listen(&["serve", "--listen=127.0.0.1:0", "--max-clients=3"]);
    let stats = get(serving.address, "/stats");
    assert_eq!(number_after(stats.text(), "\"max_connections\":"), 3);
}

#[test]
fn a_size_is_a_number_of_bytes_or_has_a_binary_unit() {
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
fn a_wrong_command_line_prints_one_line_with_the_mistake_and_exits_with_2() {
    for (arguments, parts) in [
        // The error suggests the word that was probably meant.
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
        #[cfg(feature = "demo")]
        (&["dmeo"], &["dmeo", "demo"]),
        #[cfg(feature = "demo")]
        (&["--log=off", "demo"], &["demo must be the first word"]),
        (&["--log=off", "serve"], &["serve must be the first word"]),
        (&["sreve", "--log=off"], &["sreve", "serve"]),
        // No known word is similar; the error points to --help.
        (&["--frobnicate"], &["--frob…", "--help"]),
        (&["--", "x"], &["--", "--help"]),
        (&["127.0.0.1:8080"], &["127.…", "--help"]),
        (&["a\nb"], &["a\\nb", "--help"]),
        (&["--\u{1b}[2J=1"], &["--\\u{1b}[2J", "--help"]),
        (&["--log", "off", "extra"], &["extr…", "--help"]),
        (&[""], &["--help"]),
        // The value is missing.
        (&["--listen"], &["--listen needs a value"]),
        (&["--log=info", "--grace"], &["--grace needs a value"]),
        // The value cannot be parsed.
        (
            &["--listen=8080"],
            &[
                "--listen",
                "\"8080\"",
                "127.0.0.1:8080",
                ":8080 for every address",
            ],
        ),
        (&["--listen", ""], &["--listen", "\"\""]),
        (&["--listen", "localhost"], &["\"localhost\"", "and a port"]),
        (&["--listen", "::1:80"], &["\"::1:80\"", "[::1]:80"]),
        (
            &["--listen=http://127.0.0.1:80/"],
            &["http://127.0.0.1:80/", "127.0.0.1:8080"],
        ),
        (
            &["--send-buffer=off"],
            &["--send-buffer", "\"off\"", "auto"],
        ),
        (&["--send-buffer=0"], &["--send-buffer is 0"]),
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
        #[cfg(feature = "console")]
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
        // The value is not allowed, alone or together with another.
        (&["--max-per-ip=0"], &["--max-per-ip is 0"]),
        (&["--max-clients=0"], &["--max-clients is 0"]),
        (&["--extra-connections=0"], &["--extra-connections is 0"]),
        (&["--max-head=0"], &["--max-head is 0"]),
        (&["--max-fields=0"], &["--max-fields is 0"]),
        (&["--max-target=0"], &["--max-target is 0"]),
        (&["--max-body=0"], &["--max-body is 0"]),
        (&["--queue-bytes=0"], &["--queue-bytes is 0"]),
        (
            &["--stack-bytes=0"],
            &["--stack-bytes is 0, less than 65536"],
        ),
        (
            &["--stack-bytes=4096"],
            &["--stack-bytes is 4096, less than"],
        ),
        (
            &["--stack-bytes=65535"],
            &["--stack-bytes is 65535, less than"],
        ),
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
        let (code, printed, errors) = run_to_end(arguments);
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
fn an_argument_that_is_not_utf_8_is_refused_and_not_shown_since_it_may_be_a_token() {
    use std::os::unix::ffi::OsStrExt;
    for (words, error) in [
        (&[&b"--log=\xff"[..]][..], "the value of --log is not UTF-8"),
        (
            &[b"--publish-token=s3cret\xff"],
            "the value of --publish-token is not UTF-8",
        ),
        (
            &[b"--log", b"s3cret\xff"],
            "a word of the command line is not UTF-8",
        ),
        #[cfg(feature = "access")]
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
        assert_eq!(all_lines(&process.err), [format!("tiny-sse: {error}")]);
    }
}

#[test]
fn an_unknown_argument_is_not_shown_in_full_since_it_may_be_a_token() {
    for arguments in [
        &["s3cret-of-mine"][..],
        &["--publish-token", "one", "s3cret-of-mine"],
        &["--s3cret-of-mine"],
        &["--s3cret-of-mine=x"],
        &["--publish-token:s3cret-of-mine"],
        &["--publish-tokens3cret-of-mine"],
        &["--tokenss3cret-of-mine=x"],
        &["serve", "serve-s3cret-of-mine"],
        &["-s3cret-of-mine"],
        &["--publish-token=s3cret-of-mine\n"],
    ] {
        let (code, printed, errors) = run_to_end(arguments);
        assert_eq!((code, printed), (Some(2), vec![]), "{arguments:?}");
        let is_shown = errors[0].contains("s3cret");
        assert!(errors.len() == 1 && !is_shown, "{arguments:?}: {errors:?}");
    }
}

#[test]
fn an_error_quotes_at_most_200_bytes_of_a_value() {
    let long = "x".repeat(100_000);
    for option in ["--log", "--listen", "--max-clients", "--trust-proxy"] {
        let (code, _, errors) = run_to_end(&[option, &long]);
        assert_eq!(code, Some(2), "{option}");
        let quoted = errors[0].matches('x').count();
        assert!((200..220).contains(&quoted), "{option}: {errors:?}");
    }
}

#[test]
fn a_port_without_a_host_listens_on_every_address() {
    for listen in [":0", "*:0"] {
        let serving = serve_with_listen(&["--listen", listen, "--open"]);
        let port = serving.address.port();
        let url = format!("http://127.0.0.1:{port}/events");
        assert!(serving.greeting[2].contains(&url), "{:?}", serving.greeting);
        let mut hosts = vec!["127.0.0.1"];
        // A machine without IPv6 is tested with IPv4 alone.
        if TcpListener::bind("[::1]:0").is_ok() {
            hosts.push("[::1]");
        }
        for host in hosts {
            let address = format!("{host}:{port}").parse().unwrap();
            let mut stream = Stream::subscribe(address, "/events");
            post(address, "/events", host);
            assert_eq!(stream.next().data, host, "{listen}");
        }
        let taken = format!(":{port}");
        let (code, _, errors) = run_to_end(&["--listen", &taken]);
        let expected = format!(
            "tiny-sse: cannot listen on {taken}: address in use; --listen :0 takes a free port"
        );
        assert_eq!((code, errors), (Some(1), vec![expected]));
    }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_reported_with_the_reason_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().unwrap().to_string();
    // 192.0.2.1 is reserved for documentation (RFC 5737), so no machine has this address.
    let mut rows = vec![
        (
            &*taken_address,
            "address in use; --listen 127.0.0.1:0 takes a free port",
        ),
        ("192.0.2.1:0", "address not available"),
    ];
    // Root may listen on any port, so this row is for other users only.
    let denied = std::io::ErrorKind::PermissionDenied;
    if TcpListener::bind("127.0.0.1:1").is_err_and(|error| error.kind() == denied) {
        rows.push(("127.0.0.1:1", "permission denied"));
    }
    for (address, reason) in rows {
        let (code, printed, errors) = run_to_end(&["--log=error", "--listen", address]);
        let expected = format!("tiny-sse: cannot listen on {address}: {reason}");
        assert_eq!((code, printed, errors), (Some(1), vec![], vec![expected]));
    }
}

// ---- how the program ends

#[test]
fn sigterm_and_sigint_send_a_close_event_to_each_stream_and_exit_with_0() {
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
        let errors = all_lines(&serving.process.err);
        let last = errors.last().expect("a line about the signal");
        assert!(
            last.contains(&format!("SIG{signal}: closing")),
            "{errors:?}"
        );
        assert!(all_lines(&serving.process.out).is_empty(), "{signal}");
    }
}

/// Sends the head and half of the body of a request. The server waits for the rest: it
/// has answered `100 Continue`.
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
fn a_request_in_flight_is_answered_before_the_program_ends() {
    let mut serving = serve(&["--grace", "30s"]);
    let mut raw = request_in_flight(serving.address);
    serving.process.signal("TERM");
    lines_up_to(&serving.process.err, "closing");
    eventually("no new connection is accepted", || {
        std::net::TcpStream::connect(serving.address).is_err()
    });
    raw.send("whole");
    let answer = raw.answer();
    // The hub may or may not be closed already. In both cases the request is answered.
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
fn a_request_that_does_not_arrive_is_closed_after_the_grace_period() {
    let mut serving = serve(&["--grace", "20ms"]);
    let mut raw = request_in_flight(serving.address);
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
    assert!(raw.is_closed());
}

#[test]
fn a_second_signal_ends_the_program_without_waiting_for_the_grace_period() {
    for (first, second, code) in [
        ("TERM", "TERM", 143),
        ("INT", "INT", 130),
        ("TERM", "INT", 130),
    ] {
        // One hour is longer than this test would wait.
        let mut serving = serve(&["--grace", "1h"]);
        let _stuck = request_in_flight(serving.address);
        serving.process.signal(first);
        lines_up_to(
            &serving.process.err,
            "closing; a second signal ends the program at once",
        );
        serving.process.signal(second);
        assert_eq!(serving.process.exit_code(), Some(code), "{first}, {second}");
    }
}

#[test]
fn sighup_without_a_token_file_ends_no_stream() {
    for _ in 0..2 {
        let mut serving = serve(&[]);
        let mut stream = Stream::subscribe(serving.address, "/events");
        serving.process.signal("HUP");
        lines_up_to(
            &serving.process.err,
            "SIGHUP: ignored, because there is no file of tokens or keys to read again",
        );
        post(serving.address, "/events", "still here");
        assert_eq!(stream.next().data, "still here");
        serving.process.signal("TERM");
        assert_eq!(serving.process.exit_code(), Some(0));
    }
}

#[cfg(feature = "journal")]
#[test]
fn a_journal_at_the_file_size_limit_refuses_events_and_the_program_goes_on() {
    let scratch = Scratch::new();
    let mut command = Command::new("prlimit");
    command
        .args(["--fsize=100000", PROGRAM, "--listen", "127.0.0.1:0"])
        .args(["--journal", scratch.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut serving = wait_for_greeting(Process::spawn(&mut command));
    let mut stream = Stream::subscribe(serving.address, "/events");
    let body = "x".repeat(10_000);
    let answers: Vec<Answer> = (0..15)
        .map(|_| post(serving.address, "/events", &body))
        .collect();
    let kept = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((5..10).contains(&kept), "{kept} of 100,000 bytes");
    for answer in &answers[kept..] {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    for _ in 0..kept {
        assert_eq!(stream.next().data, body);
    }
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
}

// ---- what the program logs

#[test]
fn level_info_logs_each_client_that_joins_or_leaves_and_no_events() {
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
        let mut log = all_lines(&serving.process.err);
        // The line about the signal may come before the stream's last line, so it is
        // removed here.
        let closing = log
            .iter()
            .position(|line| line.starts_with("tiny-sse: SIGTERM"));
        log.remove(closing.expect("the line about the signal"));
        // The machine may be too small for the default limits, which is logged as a
        // warning.
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

#[cfg(feature = "access")]
#[test]
fn repeated_refusals_are_summed_up_in_the_log_and_long_quotes_are_cut() {
    let mut serving = serve(&["--publish-token=secret", "--log=info"]);
    let mut raw = Raw::connect(serving.address);
    let long = "x".repeat(250);
    for _ in 0..2000 {
        raw.send(format!(
            "POST /events/{long} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ));
        let answer = raw.answer();
        assert_eq!(answer.status, 401);
        if answer.field("connection") == Some("close") {
            raw = Raw::connect(serving.address);
        }
    }
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
    let log = all_lines(&serving.process.err);
    let refusals = log.iter().filter(|line| line.contains(": 401 to POST "));
    let (lines, longest) = (refusals.clone().count(), refusals.map(String::len).max());
    assert!((10..1000).contains(&lines), "{lines}");
    assert!(longest < Some(350), "{longest:?}");
}

// ---- output that is not read

/// Returns the write end of a pipe whose read end is closed.
fn closed_pipe() -> PipeWriter {
    std::io::pipe().expect("a pipe").1
}

#[test]
fn a_closed_standard_output_does_not_stop_the_program() {
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
    type MakeCommand<'a> = &'a dyn Fn(&str) -> Command;
    for (kind, command) in [("broken", &broken as MakeCommand), ("closed", &closed)] {
        let (mut process, address) = serve_without_output(command);
        let mut stream = Stream::subscribe(address, "/events");
        post(address, "/events", kind);
        assert_eq!(stream.next().data, kind);
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{kind}");
    }
    let mut help = Process::spawn(Command::new(PROGRAM).arg("--help").stdout(closed_pipe()));
    assert_eq!(help.exit_code(), Some(0));
}

/// Returns a pipe that is full: it holds 64 KiB.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&[b'.'; 64 * 1024]).expect("room");
    (reader, writer)
}

#[test]
fn full_pipes_on_standard_output_and_error_delay_no_request() {
    let (_out, output) = full_pipe();
    let (_err, errors) = full_pipe();
    let (mut process, address) = serve_without_output(|address| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--listen", address, "--log", "debug"])
            .stdout(output.try_clone().unwrap())
            .stderr(errors.try_clone().unwrap());
        command
    });
    // Each of these requests is logged: more lines than the log queue holds.
    let mut stream = Stream::subscribe(address, "/events");
    for round in 0..100 {
        let mut raw = Raw::connect(address);
        raw.send("no request at all\r\n\r\n");
        assert_eq!(raw.answer().status, 400, "{round}");
    }
    process.signal("HUP");
    post(address, "/events", "still here");
    assert_eq!(stream.next().data, "still here");
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_program_although_its_log_is_not_read() {
    let (_err, errors) = full_pipe();
    let mut command = Command::new(PROGRAM);
    command
        .args(["--listen", "127.0.0.1:0", "--grace", "1h"])
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut serving = wait_for_greeting(Process::spawn(&mut command));
    let _stuck = request_in_flight(serving.address);
    serving.process.signal("TERM");
    eventually("no new connection is accepted", || {
        std::net::TcpStream::connect(serving.address).is_err()
    });
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(143));
}

#[test]
fn an_error_ends_the_program_although_standard_error_is_not_read() {
    for (arguments, code) in [(&["--lisen"][..], 2), (&["--listen=192.0.2.1:0"], 1)] {
        let (_err, errors) = full_pipe();
        let mut command = Command::new(PROGRAM);
        let mut process = Process::spawn(command.args(arguments).stderr(errors));
        assert_eq!(process.exit_code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_log_that_is_read_late_is_complete_and_in_order() {
    let (mut err, errors) = full_pipe();
    let mut command = Command::new(PROGRAM);
    command
        .args(["--listen", "127.0.0.1:0", "--log", "debug"])
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut serving = wait_for_greeting(Process::spawn(&mut command));
    // Drops the test's own copy of the write end, so that reading the log ends when the
    // program ends.
    drop(command);
    for number in 10..60 {
        let mut raw = Raw::connect(serving.address);
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nExpect: {number}\r\n\r\n"
        ));
        assert_eq!(raw.answer().status, 417);
    }
    let mut filling = vec![0; 64 * 1024];
    err.read_exact(&mut filling)
        .expect("the 64 KiB that filled the pipe");
    serving.process.signal("TERM");
    let mut log = String::new();
    err.read_to_string(&mut log).expect("lines");
    assert_eq!(serving.process.exit_code(), Some(0));
    let refused: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" debug "))
        .collect();
    assert_eq!(refused.len(), 50, "{log}");
    assert!(refused.is_sorted_by_key(|line| &line[..24]), "{log}");
    for (number, line) in (10..60).zip(&refused) {
        assert!(line.contains(&number.to_string()), "{line}");
    }
    assert!(log.lines().last().unwrap().contains("SIGTERM"), "{log}");
}

// ---- peers that vanish

#[test]
#[ignore = "needs a network of its own: unshare, ip"]
fn a_peer_that_vanished_is_noticed_within_two_heartbeats() {
    // In a network namespace of its own, the test can switch the loopback interface off.
    // The effect is that of a pulled cable: no FIN, no RST, no acknowledgements.
    let script = format!(
        "ip link set lo up && exec '{PROGRAM}' --listen 127.0.0.1:0 --log info --heartbeat 2s --write-timeout 1s"
    );
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut serving = wait_for_greeting(Process::spawn(&mut command));
    let pid = serving.process.child.id().to_string();
    let within = |line: &str| {
        let mut command = Command::new("nsenter");
        command.args([
            "--user",
            "--net",
            "--preserve-credentials",
            "--target",
            &pid,
        ]);
        command.args(["sh", "-c", line]).stdout(Stdio::piped());
        Process::spawn(&mut command)
    };
    let url = format!("http://{}/events", serving.address);
    let client = within(&format!("exec curl --silent --no-buffer '{url}'"));
    lines_up_to(&client.out, "data: {\"type\":\"connected\"");
    let cut = std::time::Instant::now();
    assert_eq!(within("ip link set lo down").exit_code(), Some(0));
    lines_up_to(&serving.process.err, " left (");
    let noticed = cut.elapsed();
    assert!(noticed.as_secs_f32() < 5.0, "after {noticed:?}");
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
}

// ---- a machine with few resources

/// Asks for a stream, and returns the connection and the head of the answer. The server
/// may reject the connection before it reads the request.
fn ask_for_a_stream(address: SocketAddr) -> (Raw, Answer) {
    let mut raw = Raw::connect(address);
    // Best effort: the write fails if the server has answered and closed already.
    let _ = raw
        .socket
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = raw.head();
    (raw, head)
}

/// Returns the command that starts the program with a limit of `count` open files.
fn with_files(count: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={count}"))
        .args([PROGRAM, "--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn the_smallest_stack_serves_every_endpoint() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path()).unwrap();
    let tokens = scratch.path().join("tokens");
    std::fs::write(&tokens, "* publish,subscribe *\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).unwrap();
    let all: &[&[&str]] = &[
        #[cfg(feature = "demo")]
        &["demo"],
        &["--stack-bytes=64KiB", "--log=debug"],
        #[cfg(feature = "console")]
        &["--console=on"],
        #[cfg(feature = "access")]
        &["--tokens", tokens.to_str().unwrap()],
        #[cfg(feature = "journal")]
        &["--journal", scratch.name()],
    ];
    let mut serving = serve(&all.concat());
    let address = serving.address;
    let mut stream = Stream::subscribe(address, "/events?topic=*&client_id=me");
    let deep = format!(
        "{{\"event\":\"x\",\"a\":{}{}}}",
        "[".repeat(60),
        "]".repeat(60)
    );
    let deeper = format!("{{\"a\":{}", "[".repeat(500_000));
    let line = "{\"data\":\"x\"}\n".repeat(5000);
    let large = "x".repeat(1 << 20);
    for (method, target, fields, body, status) in [
        ("POST", "/clients/me", "", &*deep, 200),
        ("DELETE", "/clients/me", "", "", 200),
        ("POST", "/events", "", &large, 200),
        ("POST", "/events/a?event=b&id=c", "", "x", 200),
        (
            "POST",
            "/events",
            "Content-Type: application/x-ndjson\r\n",
            &line,
            200,
        ),
        ("POST", "/broadcast", "", &deep, 200),
        ("POST", "/broadcast", "", &deeper, 400),
        ("POST", "/send", "", &deep, 200),
        ("POST", "/api/process", "", &large, 200),
        ("POST", "/api/notifications", "", "{\"text\":\"x\"}", 200),
        ("GET", "/", "Accept: text/html\r\n", "", 200),
        ("GET", "/", "", "", 200),
        ("GET", "/health", "", "", 200),
        ("GET", "/stats?clients=1", "", "", 200),
        ("GET", "/metrics", "", "", 200),
        ("GET", "/poll?topic=*&last_event_id=earliest", "", "", 200),
        ("GET", "/nowhere", "", "", 404),
        (
            "OPTIONS",
            "/events",
            "Origin: https://a.example\r\n",
            "",
            204,
        ),
        ("DELETE", "/clients/nobody", "", "", 404),
    ] {
        let is_left_out = fields.starts_with("Accept") && cfg!(not(feature = "console"))
            || target.starts_with("/api/") && cfg!(not(feature = "demo"))
            || target == "/metrics" && cfg!(not(feature = "metrics"));
        if is_left_out {
            continue;
        }
        let answer = request(address, method, target, fields, body);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }
    while stream.try_next().is_some() {}
    let mut raw = Raw::connect(address);
    raw.send("no request at all\r\n\r\n");
    assert_eq!(raw.answer().status, 400);
    let mut replay = Stream::subscribe(address, "/events?topic=*&last_event_id=earliest");
    replay.next();
    serving.process.signal("HUP");
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
}

#[test]
fn with_few_open_files_the_limit_of_clients_is_lowered_and_the_log_says_so() {
    for (files, clients, extra, is_lowered) in [
        (64, 10, 5, false),
        (48, 10, 5, false),
        (256, 100, 50, false),
        (256, 1000, 256, true),
        (64, 1000, 256, true),
        (24, 10, 5, true),
    ] {
        let (max_clients, extra_connections) = (clients.to_string(), extra.to_string());
        let arguments = [
            "--max-clients",
            &max_clients,
            "--extra-connections",
            &extra_connections,
        ];
        let mut serving = wait_for_greeting(Process::spawn(&mut with_files(files, &arguments)));
        let stats = get(serving.address, "/stats");
        let given = number_after(stats.text(), "\"max_connections\":");
        assert_eq!(
            given < clients,
            is_lowered,
            "{given} clients of {files} files"
        );
        assert!(given > 0 && given <= clients);
        serving.process.signal("TERM");
        assert_eq!(serving.process.exit_code(), Some(0));
        let log = all_lines(&serving.process.err);
        let lowered = format!("max-clients lowered from {clients} to {given}, ");
        let warning = log.iter().find(|line| line.contains(&lowered));
        assert_eq!(warning.is_some(), is_lowered, "{files}: {log:?}");
        let sum = format!("{files} are allowed (ulimit -n, LimitNOFILE=)");
        assert!(
            warning.is_none_or(|line| line.ends_with(&sum)),
            "{warning:?}"
        );
    }
}

#[test]
fn too_few_open_files_are_an_error_that_names_both_numbers_and_exits_with_1() {
    for files in 4..20 {
        let mut process = Process::spawn(&mut with_files(files, &["--log=error"]));
        assert_eq!(process.exit_code(), Some(1), "{files}");
        let errors = all_lines(&process.err);
        assert_eq!(errors.len(), 1, "{files}: {errors:?}");
        assert!(errors[0].starts_with("tiny-sse: "), "{files}: {errors:?}");
        // With 4 files the program cannot even read the limits.
        let parts = [
            " open files are needed",
            &format!("; {files} are allowed (ulimit -n"),
        ];
        let has_sum = parts.iter().all(|part| errors[0].contains(part));
        assert!(has_sum || files == 4, "{files}: {errors:?}");
    }
}

#[cfg(feature = "journal")]
#[test]
fn with_few_open_files_every_client_gets_an_answer() {
    for files in [24, 25, 30, 40, 64, 100] {
        let scratch = Scratch::new();
        let mut arguments = vec!["--heartbeat=50ms"];
        if cfg!(feature = "journal") {
            arguments.extend(["--journal", scratch.name()]);
        }
        let mut serving = wait_for_greeting(Process::spawn(&mut with_files(files, &arguments)));
        let mut streams = Vec::new();
        let mut refused = 0;
        for _ in 0..2 * files {
            let (raw, head) = ask_for_a_stream(serving.address);
            match head.status {
                200 => streams.push(raw),
                status => {
                    assert_eq!(status, 503, "{files}: {head:?}");
                    assert!(head.field("retry-after").is_some(), "{head:?}");
                    refused += 1;
                }
            }
        }
        assert!(
            !streams.is_empty() && refused > files / 2,
            "{files}: {refused}"
        );
        // Half of the streams are closed, so new connections are accepted again.
        streams.truncate(streams.len() / 2);
        eventually("a new connection is accepted", || {
            let mut raw = Raw::connect(serving.address);
            // Best effort: the write fails if the server has answered and closed already.
            let _ = raw.socket.write_all(
                b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
            );
            raw.answer().status == 200
        });
        serving.process.signal("TERM");
        assert_eq!(serving.process.exit_code(), Some(0), "{files}");
        let log = all_lines(&serving.process.err).join("\n");
        assert!(
            !log.contains("panicked") && !log.contains("cannot accept"),
            "{log}"
        );
    }
}

#[test]
fn with_little_address_space_clients_are_refused_and_the_program_goes_on() {
    for (mib, is_served) in [(40, false), (100, true), (160, true), (300, true)] {
        let script = format!(
            "ulimit -v {}; exec '{PROGRAM}' --listen 127.0.0.1:0",
            mib << 10
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdout(Stdio::piped());
        let mut process = Process::spawn(command.stderr(Stdio::piped()));
        if !is_served {
            assert_eq!(process.exit_code(), Some(1), "{mib} MiB");
            let errors = all_lines(&process.err);
            let sum = " bytes of address space are needed, ";
            assert!(
                errors.len() == 1 && errors[0].contains(sum),
                "{mib} MiB: {errors:?}"
            );
            continue;
        }
        let mut serving = wait_for_greeting(process);
        let mut streams = Vec::new();
        let refusal = loop {
            let (raw, head) = ask_for_a_stream(serving.address);
            if head.status != 200 {
                break head;
            }
            streams.push(raw);
        };
        assert_eq!(refusal.status, 503, "{mib} MiB: {refusal:?}");
        assert!(streams.len() > 20, "{mib} MiB: {}", streams.len());
        serving.process.signal("TERM");
        assert_eq!(serving.process.exit_code(), Some(0), "{mib} MiB");
    }
}

#[test]
fn without_address_space_for_a_thread_the_server_answers_503_and_goes_on() {
    // The test limits address space (`ulimit -v`), because `ulimit -u` does not apply to
    // root. At the start the limit is generous; with a small one the server would lower
    // its limit of clients.
    let script = format!(
        "ulimit -v 4000000; exec '{PROGRAM}' --listen 127.0.0.1:0 --log off --heartbeat 50ms"
    );
    let mut command = Command::new("sh");
    let piped = command
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn(piped);
    let line = lines_up_to(&process.out, "listens on ").pop().unwrap();
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
        assert!(status.expect("prlimit of util-linux").success());
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
    assert!(!streams.is_empty(), "no client was accepted at all");
    // The limit is raised by one page at a time. So the remaining space is first too
    // small for a thread's stack, and then enough for the stack but not for the memory
    // the thread needs besides.
    for _ in 0..100 {
        limit += 4096;
        allow(limit);
        match ask_for_a_stream(address) {
            (raw, head) if head.status == 200 => streams.push(raw),
            (_, head) => assert_eq!(head.status, 503),
        }
    }
    // Half of the streams are closed, so new ones are accepted again; the others go on.
    streams.truncate(streams.len() / 2);
    eventually("a new connection is accepted", || {
        ask_for_a_stream(address).1.status == 200
    });
    let heartbeat = b"c\r\n: heartbeat\n\r\n".len();
    let mut bytes = vec![0; 20 * heartbeat];
    let first = &mut streams[0].socket;
    first.read_exact(&mut bytes).expect("the stream goes on");
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}
