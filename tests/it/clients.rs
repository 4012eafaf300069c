//! Widely used SSE clients from npm and PyPI against the real program. Each client
//! dispatches exactly the published events: no heartbeat becomes an event, and after the
//! server was killed and restarted, each event arrives once and in order.
//!
//! `tests/clients` has a driver for each client, which prints the events that the client
//! dispatches, and the lock files with the versions.

use std::process::{Command, Stdio};

use tiny_sse::wire::json;

use crate::kit::{Scratch, Stream, id_of, post};
use crate::program::{Process, Serving, next_line, serve, serve_with_listen};

/// The interpreter that runs a driver.
#[derive(Clone, Copy)]
enum Runtime {
    Node,
    /// The Python of this virtual environment in `target/clients`.
    Python(&'static str),
}

/// A running client that prints the events that it dispatches.
struct Driver {
    process: Process,
}

impl Driver {
    #[track_caller]
    fn start(runtime: Runtime, file: &str, url: &str) -> Driver {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = match runtime {
            Runtime::Node => Command::new("node"),
            Runtime::Python(venv) => {
                let mut python = Command::new(format!("{root}/target/clients/{venv}/bin/python"));
                python.arg("-B"); // leaves no compiled files
                python
            }
        };
        command
            .arg(format!("{root}/tests/clients/{file}"))
            .arg(url)
            // All connections are to the loopback address, so a proxy of this machine
            // must not be used.
            .env("no_proxy", "*")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        Driver {
            process: Process::spawn(&mut command),
        }
    }

    /// Returns the next event as `["name","data","id"]`.
    #[track_caller]
    fn next(&mut self) -> String {
        next_line(&self.process.out).expect("the driver has ended")
    }

    /// Waits for the welcome event, the first of a stream.
    #[track_caller]
    fn expect_welcome(&mut self) {
        let welcome = self.next();
        let expected = r#"["system","{\"type\":\"connected\","#;
        assert!(welcome.starts_with(expected), "{welcome}");
    }

    /// Waits until the client has dispatched exactly these events. If it was
    /// disconnected, the welcome and the `recovery` event of the new stream come before
    /// them.
    #[track_caller]
    fn expect_events(&mut self, expected: &[String], was_disconnected: bool) {
        if was_disconnected {
            self.expect_welcome();
            let recovery = self.next();
            let is_complete = recovery.contains(r#"\"complete\":true}"#);
            assert!(
                recovery.starts_with("[\"recovery\",") && is_complete,
                "{recovery}"
            );
        }
        for event in expected {
            assert_eq!(self.next(), *event);
        }
    }
}

/// Publishes an event, and returns what a client must dispatch for it.
#[track_caller]
fn publish(serving: &Serving, name: &str, data: &str) -> String {
    let target = match name {
        "message" => "/events/news".to_owned(),
        _ => format!("/events/news?event={name}"),
    };
    let answer = post(serving.address, &target, data);
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("[\"{name}\",{},\"{}\"]", json::quoted(data), id_of(&answer))
}

/// Waits until another stream, on a topic without events, has received this many
/// heartbeats.
#[track_caller]
fn wait_for_heartbeats(serving: &Serving, count: usize) {
    let mut witness = Stream::open(serving.address, "/events/nothing?heartbeat=event", "");
    witness.next(); // the welcome
    for _ in 0..count {
        assert_eq!(witness.next().name, "heartbeat");
    }
}

/// Runs the client against a server that is killed twice (SIGKILL) and started again.
#[track_caller]
fn assert_receives_and_resumes(runtime: Runtime, file: &str) {
    let journal = Scratch::new();
    let options = [
        "--journal",
        journal.name(),
        "--heartbeat=100ms",
        "--retry=100ms",
    ];
    let mut serving = serve(&options);
    let address = serving.address.to_string();
    let mut driver = Driver::start(runtime, file, &format!("http://{address}/events/news"));
    driver.expect_welcome();
    for run in 0..3 {
        let mut expected = Vec::new();
        if run > 0 {
            serving = serve_with_listen(&[&options[..], &["--listen", &address]].concat());
            // Some of these are published before the client has reconnected, so they are
            // replayed.
            for number in 0..20 {
                expected.push(publish(&serving, "message", &format!("{run}, {number}")));
            }
        }
        for data in [
            "plain",
            "привет, 世界 🦀",
            "two\nlines, the second of them ü",
            r#"{"a":[1,"é"]}"#,
        ] {
            expected.push(publish(&serving, "message", data));
            expected.push(publish(&serving, "greeting", data));
        }
        driver.expect_events(&expected, run > 0);
        // If the client dispatched a heartbeat, the heartbeat would come before the next
        // event.
        wait_for_heartbeats(&serving, 5);
        let after = publish(&serving, "message", "after heartbeats");
        driver.expect_events(&[after], false);
        if run < 2 {
            serving.process.kill();
        }
    }
}

#[test]
fn the_lock_file_names_packages_without_hosts_and_paths() {
    let lock = include_str!("../clients/package-lock.json");
    for word in ["resolved", "://", "file:", "\"link\""] {
        assert!(!lock.contains(word), "package-lock.json has {word:?}");
    }
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/clients"]
fn npm_eventsource_receives_and_resumes() {
    assert_receives_and_resumes(Runtime::Node, "eventsource.mjs");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/clients"]
fn npm_fetch_event_source_receives_and_resumes() {
    assert_receives_and_resumes(Runtime::Node, "fetch-event-source.mjs");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/clients"]
fn npm_event_source_polyfill_receives_and_resumes() {
    assert_receives_and_resumes(Runtime::Node, "event-source-polyfill.mjs");
}

#[test]
#[ignore = "needs Python and tests/clients/requirements.txt in target/clients/venv"]
fn pypi_httpx_sse_receives_and_resumes() {
    assert_receives_and_resumes(Runtime::Python("venv"), "with-httpx-sse.py");
}

#[test]
#[ignore = "needs Python and tests/clients/requirements.txt in target/clients/venv"]
fn pypi_sseclient_py_receives_and_resumes() {
    assert_receives_and_resumes(Runtime::Python("venv"), "with-sseclient-py.py");
}

#[test]
#[ignore = "needs Python and tests/clients/requirements-sseclient.txt in target/clients/venv-sseclient"]
fn pypi_sseclient_receives_and_resumes() {
    assert_receives_and_resumes(Runtime::Python("venv-sseclient"), "with-sseclient.py");
}
