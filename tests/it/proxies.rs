//! The proxy configurations that `tiny-sse config` prints. Each runs in front of the
//! program, which is started with the command in the printed systemd unit.
//!
//! The tests change only addresses, ports and paths. The client is `curl`, because it
//! speaks HTTP/2. It connects from 127.0.0.2, so that its address differs from the
//! proxy's.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use tiny_sse::{Decoder, Message};

use crate::kit::{Answer, Scratch, describe_times, eventually, id_of, request};
use crate::program::{
    PROGRAM, Process, Serving, all_lines, lines_up_to, next_line, wait_for_greeting,
};
use crate::proxy_process::{Kind, Proxy, free_address};

const ALL: [Kind; 3] = [Kind::Nginx, Kind::Caddy, Kind::HaProxy];

/// The token of publishers.
const TOKEN: &str = "s3cr3t";

/// The versions of HTTP between client and proxy, as an option of `curl` and by name.
/// Between proxy and server it is always HTTP/1.1.
const VERSIONS: [(&str, &str); 2] = [("--http2", "2"), ("--http1.1", "1.1")];

/// Returns the configuration that the program prints under this name.
#[track_caller]
fn printed(name: &str) -> String {
    let output = Command::new(PROGRAM)
        .args(["config", name])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one block of the README with shell commands that contains `part`.
#[track_caller]
fn commands(part: &str) -> String {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("\n```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```\n").next());
    let blocks: Vec<&str> = blocks.filter(|block| block.contains(part)).collect();
    assert_eq!(blocks.len(), 1, "blocks with {part:?}");
    blocks[0].to_owned()
}

/// Replaces `from` by `to` in `text`, and fails if `from` is not there.
#[track_caller]
fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}

/// A change that a test makes to a configuration.
type Change = fn(String) -> String;

/// A proxy with the printed configuration, in front of the program as the printed unit
/// starts it.
struct Deployment {
    proxy: Proxy,
    server: Serving,
    /// The journal, and the file of tokens.
    files: Scratch,
}

impl Deployment {
    /// Starts the printed proxy configuration, and the program with these options added.
    #[track_caller]
    fn of(kind: Kind, options: &[&str]) -> Deployment {
        Deployment::changed(kind, options, |configuration| configuration)
    }

    /// Like [`Deployment::of`], with a change to the proxy's configuration.
    #[track_caller]
    fn changed(kind: Kind, options: &[&str], change: Change) -> Deployment {
        println!("{kind:?}");
        let files = Scratch::new();
        let server = serve("127.0.0.1:0", options, files.name());
        let configure = |listen, scratch: &str| {
            certify(scratch);
            change(configuration(kind, listen, server.address, scratch))
        };
        Deployment {
            proxy: Proxy::start(kind, configure),
            server,
            files,
        }
    }

    /// Sends a request to the server directly, with the token of publishers.
    #[track_caller]
    fn direct(&self, method: &str, target: &str, body: &str) -> Answer {
        let fields = format!("Authorization: Bearer {TOKEN}\r\n");
        request(self.server.address, method, target, &fields, body)
    }

    /// Publishes to the server directly and returns the event's id.
    #[track_caller]
    fn publish(&self, data: &str) -> String {
        let answer = self.direct("POST", "/events/public/t", data);
        assert_eq!(answer.status, 200, "{answer:?}");
        id_of(&answer)
    }

    /// A `curl` command that sends a request through the proxy, from 127.0.0.2.
    fn curl(&self, arguments: &[&str], target: &str) -> Command {
        let to = format!("example.org:443:{}", self.proxy.address);
        let always = [
            "--silent",
            "--show-error",
            "--no-buffer",
            "--insecure",
            "--noproxy",
            "*",
            "--interface",
            "127.0.0.2",
            "--connect-to",
            &to,
        ];
        let mut command = Command::new("curl");
        command
            .args(always)
            .args(arguments)
            .arg(format!("https://example.org{target}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Sends one request through the proxy. Returns the exit status of `curl`, and the
    /// head and body of the answer in lower case, which may be incomplete if `curl`
    /// failed.
    #[track_caller]
    fn try_ask(&self, arguments: &[&str], target: &str) -> (ExitStatus, String) {
        let arguments = [&["--include", "--max-time", "20"], arguments].concat();
        let output = self.curl(&arguments, target).output().expect("curl");
        let text = String::from_utf8(output.stdout).expect("the answer is UTF-8");
        (output.status, text.to_lowercase())
    }

    /// Sends one request through the proxy and returns the head and body of the answer,
    /// in lower case.
    #[track_caller]
    fn ask(&self, arguments: &[&str], target: &str) -> String {
        let (status, answer) = self.try_ask(arguments, target);
        assert!(status.success(), "{status}: {answer}");
        answer
    }

    /// Requests a stream through the proxy and returns before its answer.
    #[track_caller]
    fn request_stream(&self, version: &str, fields: &[&str]) -> Client {
        let fields = fields.iter().flat_map(|field| ["--header", field]);
        // With this option `curl` prints to standard error when it has sent the request.
        let always = [
            "--verbose",
            version,
            "--header",
            "Accept: text/event-stream",
        ];
        let arguments: Vec<&str> = always.into_iter().chain(fields).collect();
        let process = Process::spawn(&mut self.curl(&arguments, "/events/public/t"));
        lines_up_to(&process.err, "> GET ");
        Client {
            process,
            decoder: Decoder::new(1 << 20),
            messages: VecDeque::new(),
        }
    }

    /// Subscribes through the proxy and reads the welcome.
    #[track_caller]
    fn stream(&self, version: &str, fields: &[&str]) -> Client {
        let mut client = self.request_stream(version, fields);
        assert_eq!(client.next().name, "system");
        client
    }

    /// Reconnects through the proxy with `id` as the cursor. Returns the stream and the
    /// data of its recovery event.
    #[track_caller]
    fn resume(&self, version: &str, id: &str) -> (Client, String) {
        let mut client = self.stream(version, &[&format!("Last-Event-ID: {id}")]);
        let recovery = client.next();
        assert_eq!(recovery.name, "recovery");
        (client, recovery.data)
    }
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_printed_unit_gives_the_service_few_rights() {
    let path = std::env::temp_dir().join(format!("tiny-sse-{}.service", std::process::id()));
    fs::write(&path, printed("systemd")).unwrap();
    // The threshold is an exposure level in tenths: 0 is no exposure, 100 is full
    // exposure.
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--threshold=20"]);
    let output = analyze.arg(&path).output().expect("systemd-analyze");
    fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Starts the program with the command of the printed unit and with the token file of the
/// README.
#[track_caller]
fn serve(listen: &str, options: &[&str], files: &str) -> Serving {
    let unit = printed("systemd");
    let line = |key: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap_or_else(|| panic!("no {key} in {unit}"))
    };
    let tokens = format!("{files}/tokens");
    fs::create_dir_all(files).unwrap();
    let make = commands("> /etc/tiny-sse.tokens");
    let make = make.lines().find(|line| line.contains("printf")).unwrap();
    let make = put(make, "/etc/tiny-sse.tokens", &tokens);
    let make = put(&make, "$(openssl rand -base64 32)", TOKEN);
    let made = Command::new("sh").args(["-c", &make]).status();
    assert!(made.expect("sh").success(), "{make}");
    // Besides the owner, only the group of the service may read the token file.
    let mode = fs::metadata(&tokens).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let group = format!("chgrp {} /etc/", line("SupplementaryGroups="));
    assert!(commands(&group).contains("groupadd"), "no {group:?}");
    let start = put(line("ExecStart="), "127.0.0.1:8080", listen);
    let start = put(&start, "/var/lib/tiny-sse", &format!("{files}/journal"));
    let start = put(&start, "/etc/tiny-sse.tokens", &tokens);
    let mut command = Command::new(PROGRAM);
    command
        .args(start.split(' ').skip(1))
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    wait_for_greeting(Process::spawn(&mut command))
}

/// Makes a self-signed certificate in the directory where the configurations look for it.
#[track_caller]
fn certify(scratch: &str) {
    let (pem, key) = (
        format!("{scratch}/example.org.pem"),
        format!("{scratch}/example.org.key"),
    );
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=example.org", "-addext"])
        .args([
            "subjectAltName=DNS:example.org",
            "-keyout",
            &key,
            "-out",
            &pem,
        ])
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{output:?}");
    let both = [fs::read(pem).unwrap(), fs::read(key).unwrap()].concat();
    fs::write(format!("{scratch}/example.org.both"), both).unwrap();
}

/// The printed configuration, with other addresses and paths.
#[track_caller]
fn configuration(kind: Kind, listen: SocketAddr, server: SocketAddr, scratch: &str) -> String {
    let text = match kind {
        Kind::Nginx => put(&printed("nginx"), "listen 443", &format!("listen {listen}")),
        Kind::HaProxy => put(&printed("haproxy"), "bind :443", &format!("bind {listen}")),
        Kind::Caddy => {
            let site = format!("example.org:{} {{", listen.port());
            let text = put(&printed("caddy"), "example.org {", &site);
            // Replaces the addresses on which Caddy listens by default.
            let elsewhere = format!(
                "{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port {}\n\tgrace_period",
                free_address().port()
            );
            put(&text, "{\n\tgrace_period", &elsewhere)
        }
    };
    let text = put(&text, "127.0.0.1:8080", &server.to_string());
    put(&text, "/etc/ssl/", &format!("{scratch}/"))
}

/// A stream that `curl` reads.
struct Client {
    process: Process,
    decoder: Decoder,
    messages: VecDeque<Message>,
}

impl Client {
    /// Returns the next event, or `None` when the stream has ended or was cut.
    #[track_caller]
    fn try_next(&mut self) -> Option<Message> {
        while self.messages.is_empty() {
            let line = next_line(&self.process.out)? + "\n";
            let messages = &mut self.messages;
            self.decoder
                .feed(line.as_bytes(), |message| messages.push_back(message))
                .expect("events within the limit");
        }
        self.messages.pop_front()
    }

    #[track_caller]
    fn next(&mut self) -> Message {
        self.try_next().expect("the stream has ended")
    }

    /// Returns the cursor with which a browser would reconnect.
    fn cursor(&self) -> String {
        self.decoder.last_event_id().to_owned()
    }
}

/// Checks that `client` gets the events `missed`, and nothing else before the event that
/// `publish_next` publishes.
#[track_caller]
fn check_missed(client: &mut Client, missed: &[String], publish_next: impl FnOnce() -> String) {
    let got: Vec<String> = missed.iter().map(|_| client.next().last_event_id).collect();
    assert_eq!(got, missed);
    let next_id = publish_next();
    assert_eq!(client.next().last_event_id, next_id);
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_proxy_passes_each_event_on_before_the_next_one_is_published() {
    for kind in ALL {
        // Without heartbeats: a heartbeat could push an event out of the proxy's buffer.
        let deployment = Deployment::of(kind, &["--heartbeat", "1h"]);
        for (version, name) in VERSIONS {
            let answer = deployment.ask(&[version], "/health");
            assert!(answer.starts_with(&format!("http/{name} 200")), "{answer}");
            let mut client = deployment.stream(version, &[]);
            let mut times = Vec::new();
            for number in 0..300 {
                let start = Instant::now();
                let id = deployment.publish(&format!("event {number}"));
                let message = client.next();
                times.push(start.elapsed());
                assert_eq!(
                    (message.last_event_id, message.data),
                    (id, format!("event {number}")),
                    "{version}"
                );
            }
            // Each time begins before the publisher connects, and ends when the client
            // has the event.
            println!("HTTP/{name}: {}", describe_times("events", times));
        }
    }
}

/// HAProxy is not tested: when it compresses, it delays events. Its printed configuration
/// says so.
#[test]
#[ignore = "needs nginx, Caddy, curl and openssl"]
fn nginx_and_caddy_do_not_delay_events_when_they_compress() {
    let changes: [(Kind, Change); 2] = [
        (Kind::Nginx, |text| {
            let gzip = "access_log off; gzip on; gzip_types *; gzip_proxied any;";
            put(&text, "access_log off;", gzip)
        }),
        (Kind::Caddy, |text| {
            put(&text, "\treverse_proxy", "\tencode gzip\n\treverse_proxy")
        }),
    ];
    for (kind, change) in changes {
        let deployment = Deployment::changed(kind, &["--heartbeat", "1h"], change);
        for (version, _) in VERSIONS {
            let mut client = deployment.stream(version, &[]);
            let id = deployment.publish("as it is");
            assert_eq!(client.next().last_event_id, id, "{version}");
        }
    }
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_client_behind_the_proxy_cannot_forge_its_address() {
    for kind in ALL {
        let deployment = Deployment::of(kind, &[]);
        let forged = [
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-For: 7.7.7.7, 127.0.0.1",
            "Forwarded: for=8.8.8.8",
        ];
        for (version, _) in VERSIONS {
            for fields in [&[][..], &forged[..1], &forged[1..2], &forged[2..], &forged] {
                let _client = deployment.stream(version, fields);
                let stats = deployment.direct("GET", "/stats?clients=1", "");
                let text = stats.text();
                let (all, right) = (r#""address":"#, r#""address":"127.0.0.2""#);
                assert!(text.contains(right), "{fields:?}: {text}");
                let count = |part| text.matches(part).count();
                assert_eq!(count(right), count(all), "{fields:?}: {text}");
            }
        }
    }
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_client_without_a_token_gets_through_the_proxy_only_what_the_token_file_allows() {
    for kind in ALL {
        let mut deployment = Deployment::of(kind, &[]);
        let publish = |topic: &str| {
            let answer = deployment.direct("POST", &format!("/events{topic}"), "said");
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        ["/user/42", "/public/t", ""].into_iter().for_each(publish);
        let token = format!("Authorization: Bearer {TOKEN}");
        for (version, name) in VERSIONS {
            for (target, without_token, with_token) in [
                ("/poll?topic=*&last_event_id=earliest", 401, 200),
                ("/poll?topic=user/42&last_event_id=earliest", 401, 200),
                ("/poll?topic=user/*&last_event_id=earliest", 401, 200),
                ("/poll?topic=public*&last_event_id=earliest", 401, 200),
                ("/poll?topic=public/*&topic=user/42", 401, 200),
                ("/stats", 401, 200),
                ("/stats?clients=1", 401, 200),
                ("/metrics", 401, 200),
                ("/poll?topic=public/t&last_event_id=earliest", 200, 200),
                ("/poll?topic=public/*&last_event_id=earliest", 200, 200),
                ("/poll?last_event_id=earliest", 200, 200),
                ("/health", 200, 200),
            ] {
                let expected = [
                    (&[version][..], without_token),
                    (&[version, "-H", &token], with_token),
                ];
                for (arguments, status) in expected {
                    let answer = deployment.ask(arguments, target);
                    let start = format!("http/{name} {status}");
                    assert!(answer.starts_with(&start), "{target}: {answer}");
                    let has_event = answer.contains("\"said\"");
                    let should_have_event = target.contains("earliest") && status == 200;
                    assert_eq!(has_event, should_have_event, "{target}: {answer}");
                }
            }
            for target in ["/events?topic=*", "/events/user/42", "/events/*"] {
                let answer = deployment.ask(&[version], target);
                let start = format!("http/{name} 401");
                assert!(answer.starts_with(&start), "{target}: {answer}");
            }
            for target in ["/events", "/events/public/t", "/clients/nobody"] {
                let answer = deployment.ask(&[version, "--data", "x"], target);
                let start = format!("http/{name} 401");
                assert!(answer.starts_with(&start), "{target}: {answer}");
            }
            deployment.stream(version, &[]).process.kill();
        }
        // The token file says what a client without a token may do, so the program does
        // not warn about it at its start.
        let errors = deployment.server.process.kill();
        let warned = errors.iter().find(|line| line.contains("any client that"));
        assert_eq!(warned, None);
    }
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_client_that_reconnects_through_the_proxy_gets_each_missed_event_exactly_once() {
    for kind in ALL {
        let mut deployment = Deployment::of(kind, &[]);
        for (version, _) in VERSIONS {
            let mut client = deployment.stream(version, &[]);
            let seen: Vec<_> = (0..3).map(|_| deployment.publish("seen")).collect();
            check_missed(&mut client, &seen, || deployment.publish("seen"));

            let cursor = client.cursor();
            client.process.kill();
            let missed: Vec<_> = (0..5).map(|_| deployment.publish("missed")).collect();
            let (mut client, recovery) = deployment.resume(version, &cursor);
            assert!(
                recovery.contains(r#""replayed":5,"complete":true"#),
                "{recovery}"
            );
            check_missed(&mut client, &missed, || deployment.publish("seen"));

            deployment.proxy.restart();
            assert!(
                client.try_next().is_none(),
                "an event came after the end of the proxy"
            );
            let missed: Vec<_> = (0..5).map(|_| deployment.publish("missed")).collect();
            let (mut client, recovery) = deployment.resume(version, &client.cursor());
            assert!(
                recovery.contains(r#""replayed":5,"complete":true"#),
                "{recovery}"
            );
            check_missed(&mut client, &missed, || deployment.publish("seen"));
        }
    }
}

/// The heartbeat of 7 s makes the bound: the proxy closes its connection when the client
/// does, so the server notices at the next heartbeat. If the proxy kept the connection
/// open, the server would need three heartbeats, which is longer than the deadline of the
/// test.
#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_client_behind_the_proxy_that_disconnects_is_removed_by_the_next_heartbeat() {
    let disconnect_all = |kind| {
        let deployment = Deployment::of(kind, &["--heartbeat", "7s"]);
        let active = |count: usize| {
            let stats = deployment.direct("GET", "/stats", "");
            stats
                .text()
                .contains(&format!("\"active_connections\":{count},"))
        };
        let clients = VERSIONS.map(|(version, _)| deployment.stream(version, &[]));
        assert!(active(2), "{kind:?}");
        // This kills `curl`, so the clients send nothing more.
        drop(clients);
        eventually(&format!("the streams through {kind:?} end"), || active(0));
    };
    thread::scope(|scope| {
        for kind in ALL {
            scope.spawn(move || disconnect_all(kind));
        }
    });
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_browser_that_reconnects_while_the_server_is_down_gets_its_stream_after_the_restart() {
    for kind in ALL {
        let mut deployment = Deployment::of(kind, &[]);
        for (version, _) in VERSIONS {
            let last = deployment.publish("before");
            deployment.server.process.kill();
            let field = format!("Last-Event-ID: {last}");
            let mut client = deployment.request_stream(version, &[&field]);
            if kind == Kind::Nginx {
                // nginx answers at once instead of waiting for the server, and tells the
                // browser to retry.
                assert_eq!(
                    all_lines(&client.process.out),
                    ["retry: 2000", ""],
                    "{version}"
                );
                let answer = deployment.ask(&[version, "--data", "lost"], "/events/public/t");
                assert!(answer.contains(" 502"), "not published: {answer}");
            }
            let listen = deployment.server.address.to_string();
            deployment.server = serve(&listen, &[], deployment.files.name());
            if kind == Kind::Nginx {
                client = deployment.request_stream(version, &[&field]);
            }
            assert_eq!(client.next().name, "system", "{version}");
            let recovery = client.next().data;
            assert!(
                recovery.contains(r#""replayed":0,"complete":true"#),
                "{recovery}"
            );
        }
    }
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn the_largest_body_passes_the_proxy_and_the_413_for_a_larger_one_arrives_unchanged() {
    for kind in ALL {
        let deployment = Deployment::of(kind, &[]);
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path()).unwrap();
        let file = |bytes: usize| {
            let path = scratch.path().join(bytes.to_string());
            fs::write(&path, vec![b'x'; bytes]).unwrap();
            format!("@{}", path.to_str().unwrap())
        };
        let (largest, larger) = (file(1 << 20), file((1 << 20) + 1));
        let authorization = format!("Authorization: Bearer {TOKEN}");
        for (version, name) in VERSIONS {
            // With Content-Length, and in chunks. The empty Expect keeps `curl` from
            // waiting for a 100.
            for way in ["Expect:", "Transfer-Encoding: chunked"] {
                let post = |body: &str| {
                    let fields = [&*authorization, "Expect:", way];
                    let fields = fields.into_iter().flat_map(|field| ["--header", field]);
                    let always = [version, "--data-binary", body];
                    let arguments: Vec<&str> = always.into_iter().chain(fields).collect();
                    deployment.try_ask(&arguments, "/events/public/t")
                };
                let (status, answer) = post(&largest);
                let start = format!("http/{name} 200");
                let accepted = status.success() && answer.starts_with(&start);
                assert!(accepted, "{version} {way}: {answer}");
                // The server answers before it has the whole body. Some proxies then drop
                // the body of the answer.
                let (_, answer) = post(&larger);
                let start = format!("http/{name} 413");
                let refused = answer.starts_with(&start)
                    && answer.contains("\ncontent-type: application/json");
                assert!(refused, "{version} {way}: {answer}");
            }
        }
    }
}

#[test]
#[ignore = "needs nginx, Caddy, HAProxy, curl and openssl"]
fn a_client_above_the_limit_gets_a_503_with_retry_after_through_the_proxy() {
    for kind in ALL {
        let deployment = Deployment::of(kind, &["--max-clients", "1", "--heartbeat", "100ms"]);
        for (version, name) in VERSIONS {
            let mut only = deployment.stream(version, &[]);
            let answer = deployment.ask(&[version], "/events/public/t");
            assert!(answer.starts_with(&format!("http/{name} 503")), "{answer}");
            assert!(answer.contains("\nretry-after: 5\r\n"), "{answer}");
            let fields = answer.matches("\naccess-control-allow-origin:").count();
            assert_eq!(fields, 1, "{answer}");
            // The first client is still connected.
            let id = deployment.publish("still");
            assert_eq!(only.next().last_event_id, id);
            only.process.kill();
            eventually("the slot of the first client is free", || {
                let stats = deployment.direct("GET", "/stats", "");
                stats.text().contains("\"active_connections\":0,")
            });
        }
    }
}
