//! Signed tokens on a running server: the end of a stream with its token, users, the file
//! of keys and its reload, and `tiny-sse token`.
//!
//! Which token is accepted is tested beside `wire/jwt.rs`, and which request needs which
//! right in the chapter `access`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tiny_sse::hub::{CloseReason, SubscribeError};
use tiny_sse::wire::jwt::{JwtKey, sign};
use tiny_sse::{AccessConfig, Config, Event, Hub, Permit, Running, Subscribe};

use crate::kit::{Scratch, Stream, config, eventually, number_after, request, server};
use crate::program::{lines_up_to, run_to_end, serve};

const KEY: &str = "the-key-of-the-backend-0123456789abcdef";
const NEXT_KEY: &str = "the-next-key-of-the-backend-0123456789a";

fn key(text: &str) -> JwtKey {
    text.parse().expect("a key")
}

/// The number of seconds since 1970, `later` seconds after now.
fn seconds(later: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() as i64 + later
}

/// A token of a user who may subscribe to `user/NAME`, which ends after `life` seconds.
fn token(user: &str, life: i64) -> String {
    let exp = seconds(life);
    let claims = format!(r#"{{"sub":"{user}","subscribe":["user/{user}"],"exp":{exp}}}"#);
    sign(&claims, &key(KEY))
}

/// A token that may publish to every topic.
fn publisher() -> String {
    sign(r#"{"publish":["*"]}"#, &key(KEY))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn signed(config: Config) -> Config {
    Config {
        access: AccessConfig {
            jwt_keys: vec![key(KEY)],
            ..AccessConfig::default()
        },
        ..config
    }
}

fn publish(server: &Running, topic: &str, data: &str) -> String {
    let target = format!("/events/{topic}");
    let answer = request(
        server.local_addr(),
        "POST",
        &target,
        &bearer(&publisher()),
        data,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}

#[test]
fn a_stream_ends_with_its_token_and_resumes_with_another_one() {
    let server = server(signed(config()));
    let address = server.local_addr();
    let start = Instant::now();
    let mut stream = Stream::open(
        address,
        "/events/user/42?client_id=me",
        &bearer(&token("42", 2)),
    );
    publish(&server, "user/42", "first");
    read_to(&mut stream, "first");
    assert_eq!(reason(&mut stream), "expired");
    // The token has ended, and the stream at most the spread of 3 s later.
    let age = start.elapsed();
    assert!(
        age >= Duration::from_millis(900) && age < Duration::from_secs(30),
        "{age:?}"
    );
    eventually("the client has left", || server.hub().clients() == 0);
    publish(&server, "user/42", "second");
    let fields = format!(
        "{}Last-Event-ID: {}\r\n",
        bearer(&token("42", 600)),
        stream.cursor()
    );
    let mut stream = Stream::open(address, "/events/user/42?client_id=me", &fields);
    read_to(&mut stream, r#""replayed":1,"complete":true"#);
    read_to(&mut stream, "second");
}

/// A client that is never done: each write to it publishes more events.
struct Endless(Hub);

impl Write for Endless {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for _ in 0..3 {
            let _ = self.0.publish(Event::new("more"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_that_never_pauses_ends_with_its_permit_too() {
    let hub = Hub::new(config()).unwrap();
    let permit = Permit::new(1).until(Instant::now() + Duration::from_millis(200));
    let subscription = hub.subscribe(Subscribe {
        permit: Some(permit),
        ..Subscribe::default()
    });
    let reason = subscription.unwrap().write_to(&mut Endless(hub.clone()));
    assert_eq!(reason, CloseReason::Expired);
}

#[test]
fn a_waiting_poll_answers_at_the_end_of_its_token() {
    let server = server(signed(config()));
    let start = Instant::now();
    let target = "/poll?topic=user/42&wait=60";
    let answer = request(
        server.local_addr(),
        "GET",
        target,
        &bearer(&token("42", 1)),
        "",
    );
    assert_eq!((answer.status, answer.text().trim_end()), (200, "[]"));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_token_that_has_just_ended_still_connects_and_its_stream_does_not_end_at_once() {
    let server = server(signed(config()));
    let fields = bearer(&token("42", -30));
    let _stream = Stream::open(server.local_addr(), "/events/user/42", &fields);
    publish(&server, "user/42", "hello");
    let late = request(
        server.local_addr(),
        "GET",
        "/events/user/42",
        &bearer(&token("42", -61)),
        "",
    );
    assert_eq!(late.status, 401);
    assert!(late.text().contains("the token has expired"), "{late:?}");
    assert_eq!(server.hub().clients(), 1);
}

#[test]
fn a_client_id_belongs_to_the_user_whatever_token_it_has() {
    let server = server(signed(config()));
    let open = |token: &str| {
        let fields = bearer(token);
        request(
            server.local_addr(),
            "HEAD",
            "/events?client_id=me",
            &fields,
            "",
        )
        .status
    };
    let mut first = Stream::open(
        server.local_addr(),
        "/events?client_id=me",
        &bearer(&token("42", 600)),
    );
    // Another user, and a client without a token.
    for (fields, status) in [(bearer(&token("43", 600)), 403), (String::new(), 401)] {
        let target = "/events?client_id=me";
        let answer = request(server.local_addr(), "GET", target, &fields, "");
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(open(&token("42", 599)), 200);
    // The same user with a later token.
    let _second = Stream::open(
        server.local_addr(),
        "/events?client_id=me",
        &bearer(&token("42", 601)),
    );
    assert_eq!(reason(&mut first), "replaced");
}

#[test]
fn all_streams_and_polls_of_a_user_end_on_request() {
    let server = server(signed(config()));
    let address = server.local_addr();
    let delete = |user: &str, fields: &str| {
        let target = format!("/users/{user}");
        let answer = request(address, "DELETE", &target, fields, "");
        (answer.status, answer.text().to_owned())
    };
    let mut streams: Vec<_> = (0..3)
        .map(|n| {
            Stream::open(
                address,
                "/events/user/a%2Fb",
                &bearer(&token("a/b", 500 + n)),
            )
        })
        .collect();
    let mut other = Stream::open(address, "/events/user/a", &bearer(&token("a", 600)));
    let poll = std::thread::spawn(move || {
        let target = "/poll?topic=user/a/b&wait=60";
        request(address, "GET", target, &bearer(&token("a/b", 600)), "").status
    });
    eventually("the poll waits", || server.hub().clients() == 5);
    let stats = request(
        address,
        "GET",
        "/stats?clients=1",
        &bearer(&publisher()),
        "",
    );
    assert_eq!(
        stats.text().matches(r#""user":"a/b""#).count(),
        4,
        "{stats:?}"
    );
    assert_eq!(
        stats.text().matches(r#""user":"a""#).count(),
        1,
        "{stats:?}"
    );
    // The right to publish to `*` is needed.
    assert_eq!(delete("a/b", "").0, 401);
    assert_eq!(delete("a/b", &bearer(&token("a/b", 600))).0, 403);
    let some = sign(r#"{"publish":["user/*"]}"#, &key(KEY));
    assert_eq!(delete("a/b", &bearer(&some)).0, 403);

    assert_eq!(delete("nobody", &bearer(&publisher())).0, 404);
    assert_eq!(delete("", &bearer(&publisher())).0, 404);
    let (status, text) = delete("a%2Fb", &bearer(&publisher()));
    assert_eq!((status, number_after(&text, "\"ended\":")), (200, 4));
    for stream in &mut streams {
        assert_eq!(reason(stream), "kicked");
    }
    assert_eq!(poll.join().unwrap(), 200);
    publish(&server, "user/a", "still here");
    read_to(&mut other, "still here");
    assert_eq!(delete("a/b", &bearer(&publisher())).0, 404);
    assert_eq!(
        request(address, "GET", "/users/a", &bearer(&publisher()), "").status,
        405
    );
}

#[test]
fn an_embedder_can_end_the_streams_of_a_user_and_set_their_end() {
    let hub = Hub::new(config()).unwrap();
    let permit = Permit::new(1).of_user("42");
    let subscribe = |permit: &Permit| {
        hub.subscribe(Subscribe {
            permit: Some(permit.clone()),
            ..Subscribe::default()
        })
    };
    let mut out = Vec::new();
    let ended = subscribe(&permit.clone().until(Instant::now()))
        .unwrap()
        .write_to(&mut out);
    assert_eq!(ended, CloseReason::Expired);
    let stays = subscribe(&permit).unwrap();
    assert_eq!(hub.client_stats()[0].user.as_deref(), Some("42"));
    assert_eq!(
        (hub.disconnect_user("43"), hub.disconnect_user("42")),
        (0, 1)
    );
    assert_eq!(stays.write_to(&mut out), CloseReason::Kicked);
    hub.close();
    assert_eq!(subscribe(&permit).map(drop), Err(SubscribeError::Closed));
}

/// Reads events up to the first whose data contains `part`.
#[track_caller]
fn read_to(stream: &mut Stream, part: &str) {
    while !stream.next().data.contains(part) {}
}

/// Reads the stream to its end, and returns the reason of its close event.
#[track_caller]
fn reason(stream: &mut Stream) -> String {
    while stream.try_next().is_some() {}
    stream.closed.take().expect("a close event")
}

/// A file that only its owner may read. It is deleted when the value is dropped.
struct KeyFile(Scratch);

impl KeyFile {
    fn new(text: &str) -> KeyFile {
        let file = KeyFile(Scratch::new());
        fs::create_dir(file.0.path()).unwrap();
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(self.name(), text).unwrap();
        self.set_mode(0o600);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.name(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn name(&self) -> String {
        self.0.path().join("keys").to_str().unwrap().to_owned()
    }
}

#[test]
fn the_program_does_not_start_with_a_wrong_file_of_keys_and_says_why() {
    let file = KeyFile::new("");
    let name = file.name();
    let long = format!("{KEY}\n").repeat(17);
    for (text, mode, part) in [
        (
            "",
            0o600,
            "it has no key; make one with: openssl rand -base64 32",
        ),
        ("# only a comment\n", 0o600, "it has no key"),
        (
            "short-secret\n",
            0o600,
            "line 1: the key cannot be used: it has less than 32 bytes",
        ),
        (KEY, 0o644, "every user of this machine can read"),
        (KEY, 0o602, "every user of this machine can read"),
        (&long, 0o600, "more than 16 keys"),
        (
            "\n\na b c\n",
            0o600,
            "line 3: the key cannot be used: a line is [NAME] KEY [until TIME]",
        ),
    ] {
        file.write(text);
        file.set_mode(mode);
        let (code, out, errors) = run_to_end(&["--listen", "127.0.0.1:0", "--jwt-key", &name]);
        let errors = errors.join("\n");
        assert_eq!((code, out.len()), (Some(1), 0), "{text:?}: {errors}");
        assert!(
            errors.contains(part) && errors.contains(&name),
            "{text:?}: {errors}"
        );
        assert!(
            !errors.contains("short-secret") && !errors.contains(KEY),
            "{errors}"
        );
    }
    for (arguments, part) in [
        (vec!["--jwt-audience", "x"], "jwt-audience needs a jwt-key"),
        (
            vec!["--open", "--jwt-key", &*name],
            "open allows every client to publish",
        ),
    ] {
        let (code, _, errors) = run_to_end(&arguments);
        assert_eq!(code, Some(2), "{errors:?}");
        assert!(errors.join("\n").contains(part), "{errors:?}");
    }
}

#[test]
fn a_key_is_replaced_without_a_refused_token_and_the_old_one_ends_its_streams() {
    let file = KeyFile::new(KEY);
    let serving = serve(&["--jwt-key", &file.name(), "--log", "info"]);
    let address = serving.address;
    let claims = format!(
        r#"{{"sub":"42","subscribe":["*"],"publish":["*"],"exp":{}}}"#,
        seconds(600)
    );
    let [old, new] = [KEY, NEXT_KEY].map(|text| bearer(&sign(&claims, &key(text))));
    let streams = |fields: &str| -> Vec<_> {
        (0..50)
            .map(|_| Stream::open(address, "/events/a", fields))
            .collect()
    };
    let publishes = |fields: &str| request(address, "POST", "/events/a", fields, "x").status;
    let mut first = streams(&old);
    assert_eq!((publishes(&old), publishes(&new)), (200, 401));

    // Both keys count, and no stream ends.
    file.write(&format!("next {NEXT_KEY}\n{KEY}\n"));
    serving.process.signal("HUP");
    eventually("the new key is known", || publishes(&new) == 200);
    assert_eq!(publishes(&old), 200);
    let mut second = streams(&new);

    // A wrong file changes nothing.
    file.write("short");
    serving.process.signal("HUP");
    lines_up_to(&serving.process.err, "remain valid");
    assert_eq!((publishes(&old), publishes(&new)), (200, 200));

    // Without the old key, its streams end, and those of the new key stay.
    file.write(&format!("next {NEXT_KEY}\n"));
    serving.process.signal("HUP");
    for stream in &mut first {
        assert_eq!(reason(stream), "expired");
    }
    assert_eq!((publishes(&old), publishes(&new)), (401, 200));
    let last = request(address, "POST", "/events/a", &new, "last");
    assert_eq!(number_after(last.text(), "\"recipients\":"), 50);
    for stream in &mut second {
        read_to(stream, "last");
    }
}

#[test]
fn the_program_makes_a_token_that_its_server_accepts() {
    let file = KeyFile::new(&format!("gone {NEXT_KEY} until 2020-01-01\nnow {KEY}\n"));
    let name = file.name();
    let serving = serve(&["--jwt-key", &name, "--jwt-audience", "push"]);
    let make = |arguments: &[&str]| {
        let all = [&["token", "--key", &*name][..], arguments].concat();
        let (code, out, errors) = run_to_end(&all);
        assert_eq!(
            (code, out.len(), errors.len()),
            (Some(0), 1, 0),
            "{errors:?}"
        );
        out[0].clone()
    };
    let user = make(&[
        "--sub",
        "42",
        "--subscribe",
        "user/42",
        "--for=1m",
        "--audience",
        "push",
    ]);
    let all = make(&["--publish", "a", "--publish", "user/*", "--audience=push"]);
    let elsewhere = make(&["--publish", "*", "--audience", "another"]);
    let mut stream = Stream::open(serving.address, "/events/user/42", &bearer(&user));
    let publish = |token: &str| {
        request(
            serving.address,
            "POST",
            "/events/user/42",
            &bearer(token),
            "x",
        )
    };
    assert_eq!(publish(&all).status, 200);
    read_to(&mut stream, "x");
    assert_eq!(publish(&user).status, 403);
    let refused = publish(&elsewhere);
    assert!(refused.text().contains("another audience"), "{refused:?}");

    for (arguments, code, part) in [
        (
            vec!["token"],
            2,
            "token needs --key FILE, or the key in TINY_SSE_JWT_KEY",
        ),
        (vec!["token", "--sub"], 2, "--sub needs a value"),
        (
            vec!["token", "--subscribe", "", "--key", &name],
            2,
            "--subscribe",
        ),
        (
            vec!["token", "--for", "soon", "--key", &name],
            2,
            "it must be a time",
        ),
        (vec!["token", "--port", "1"], 2, "tiny-sse token --help"),
        (vec!["token", "42"], 2, "tiny-sse token --help"),
        (vec!["token", "--key", "/nowhere/keys"], 1, "/nowhere/keys"),
        (
            vec!["token", "--subscribe", "user/{id}", "--key", &name],
            1,
            "URI template",
        ),
    ] {
        let (status, out, errors) = run_to_end(&arguments);
        assert_eq!(
            (status, out.len()),
            (Some(code), 0),
            "{arguments:?}: {errors:?}"
        );
        assert!(
            errors.join("\n").contains(part),
            "{arguments:?}: {errors:?}"
        );
    }
    let (code, out, _) = run_to_end(&["token", "--help"]);
    assert!(
        code == Some(0) && out[0].starts_with("usage: tiny-sse token"),
        "{out:?}"
    );
}

#[test]
#[ignore = "needs node, php, ruby with the gem jwt, and the packages of tests/clients, which .ci/run installs"]
fn tokens_of_other_libraries_are_accepted_as_they_come_and_wrong_ones_are_refused() {
    let server = server(signed(config()));
    let address = server.local_addr();
    let root = env!("CARGO_MANIFEST_DIR");
    let python = format!("{root}/target/clients/venv/bin/python");
    for (program, file, count) in [
        (&*python, "token-pyjwt.py", 10),
        ("node", "token-jose.mjs", 13),
        ("php", "token.php", 4),
        ("ruby", "token.rb", 4),
    ] {
        let output = Command::new(program)
            .args([&format!("{root}/tests/clients/{file}"), KEY])
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{file}: {text}");
        assert_eq!(text.lines().count(), count, "{file}: {text}");
        for line in text.lines() {
            let (name, token) = line.split_once(' ').unwrap();
            let status = |method: &str, target: &str| {
                request(address, method, target, &bearer(token), "x").status
            };
            let is_right = name.starts_with("right");
            let all = [
                ("HEAD", "/events/user/42", 200),
                ("POST", "/events/in/1", 200),
                ("HEAD", "/events/user/43", 403),
                ("POST", "/events/user/42", 403),
            ];
            for (method, target, expected) in all {
                let expected = if is_right { expected } else { 401 };
                assert_eq!(
                    status(method, target),
                    expected,
                    "{file} {name}: {method} {target}"
                );
            }
        }
    }
}
