//! Clients that other people wrote, as they come from npm and PyPI, against the real program: each
//! dispatches what was published and nothing else, whatever the server says to keep the stream open, and
//! after the server was killed each has every event once and in order.
//!
//! `tests/clients` has a driver for each, which prints what its client dispatches, and the versions.

use std::collections::VecDeque;
use std::process::{Command, Stdio};

use tiny_sse::wire::json;

use crate::kit::{Scratch, Stream, id_of, post};
use crate::program::{Process, Serving, next_line, serve, serve_as};

/// Where a driver's program is.
#[derive(Clone, Copy)]
enum Runtime {
    Node,
    /// Of this virtual environment.
    Python(&'static str),
}

/// A client that prints what it dispatches.
struct Driver {
    process: Process,
    /// What it dispatched before what was asked for.
    waiting: VecDeque<String>,
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
            // A proxy of the machine is for the world, and all of this is on the loopback.
            .env("no_proxy", "*")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        Driver {
            process: Process::spawn(&mut command),
            waiting: VecDeque::new(),
        }
    }

    /// The next event as `["name","data","id"]`.
    #[track_caller]
    fn next(&mut self) -> String {
        let line = self.waiting.pop_front();
        line.or_else(|| next_line(&self.process.out))
            .expect("the driver has ended")
    }

    /// Waits for the event that a stream begins with.
    #[track_caller]
    fn connects(&mut self) {
        let welcome = self.next();
        let expected = r#"["system","{\"type\":\"connected\","#;
        assert!(welcome.starts_with(expected), "{welcome}");
    }

    /// Waits until it has dispatched exactly these, after a new welcome and verdict if it was cut off.
    #[track_caller]
    fn dispatches(&mut self, expected: &[String], is_cut_off: bool) {
        if is_cut_off {
            self.connects();
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

/// Publishes, and returns what a client should dispatch.
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

/// Waits until a silent stream has said so many heartbeats.
#[track_caller]
fn hear_heartbeats(serving: &Serving, count: usize) {
    let mut witness = Stream::open(serving.address, "/events/nothing?heartbeat=event", "");
    witness.next(); // its welcome
    for _ in 0..count {
        assert_eq!(witness.next().name, "heartbeat");
    }
}

/// Three lives of a server, each but the last ended by SIGKILL.
#[track_caller]
fn receives_and_resumes(runtime: Runtime, file: &str) {
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
    driver.connects();
    for life in 0..3 {
        let mut expected = Vec::new();
        if life > 0 {
            serving = serve_as(&[&options[..], &["--listen", &address]].concat());
            // Some of these come before the client is back, and are replayed to it.
            for number in 0..20 {
                expected.push(publish(&serving, "message", &format!("{life}, {number}")));
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
        driver.dispatches(&expected, life > 0);
        // A heartbeat that is dispatched would come before the next event.
        hear_heartbeats(&serving, 5);
        let after = publish(&serving, "message", "after heartbeats");
        driver.dispatches(&[after], false);
        if life < 2 {
            serving.process.kill();
        }
    }
}

#[test]
fn the_lock_file_names_packages_and_no_host_or_path_to_get_them_from() {
    let lock = include_str!("../clients/package-lock.json");
    for word in ["resolved", "://", "file:", "\"link\""] {
        assert!(!lock.contains(word), "package-lock.json has {word:?}");
    }
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/clients"]
fn npm_eventsource_receives_and_resumes() {
    receives_and_resumes(Runtime::Node, "eventsource.mjs");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/clients"]
fn npm_fetch_event_source_receives_and_resumes() {
    receives_and_resumes(Runtime::Node, "fetch-event-source.mjs");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/clients"]
fn npm_event_source_polyfill_receives_and_resumes() {
    receives_and_resumes(Runtime::Node, "event-source-polyfill.mjs");
}

#[test]
#[ignore = "needs Python and tests/clients/requirements.txt in target/clients/venv"]
fn pypi_httpx_sse_receives_and_resumes() {
    receives_and_resumes(Runtime::Python("venv"), "with-httpx-sse.py");
}

#[test]
#[ignore = "needs Python and tests/clients/requirements.txt in target/clients/venv"]
fn pypi_sseclient_py_receives_and_resumes() {
    receives_and_resumes(Runtime::Python("venv"), "with-sseclient-py.py");
}

#[test]
#[ignore = "needs Python and tests/clients/requirements-sseclient.txt in target/clients/venv-sseclient"]
fn pypi_sseclient_receives_and_resumes() {
    receives_and_resumes(Runtime::Python("venv-sseclient"), "with-sseclient.py");
}
