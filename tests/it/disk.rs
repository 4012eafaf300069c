//! The journal as an operator sees it: the contents of its files, the lock against a
//! second server, and the behaviour when files are damaged or changed, the disk is full,
//! or the clock goes back.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tiny_sse::hub::{Log, Record};
use tiny_sse::store::{Journal, JournalOptions, SyncMode};
use tiny_sse::{EventId, Hub, Report};

use crate::kit::{Scratch, Stream, eventually, get, id_of, number_after, post, request};
use crate::program::{
    PROGRAM, Process, Serving, lines_up_to, run_to_end, serve, wait_for_greeting,
};

fn segment(journal: &Scratch) -> PathBuf {
    journal.path().join("00000001.sse")
}

#[track_caller]
fn serve_on(journal: &Scratch) -> Serving {
    serve(&["--journal", journal.name()])
}

/// Publishes an event, and returns its id.
#[track_caller]
fn publish(serving: &Serving, target: &str, data: &str) -> String {
    let answer = post(serving.address, target, data);
    assert_eq!(answer.status, 200, "{answer:?}");
    id_of(&answer)
}

/// Returns the data of the recovery event of a client that reconnects with this cursor to
/// all topics.
#[track_caller]
fn recovery_after(serving: &Serving, cursor: &str) -> String {
    Stream::resume(serving.address, "/events/*", cursor).1
}

/// Returns the data of all events in the history.
#[track_caller]
fn retained(serving: &Serving) -> Vec<String> {
    let target = "/events/*?last_event_id=earliest&client_id=reader";
    let mut stream = Stream::subscribe(serving.address, target);
    let recovery = stream.next().data;
    assert!(recovery.ends_with(r#""complete":true}"#), "{recovery}");
    let count = number_after(&recovery, r#""replayed":"#);
    let events = (0..count).map(|_| stream.next().data).collect();
    assert_nothing_else_came(serving, &mut stream, "reader");
    events
}

/// Checks that no other event was delivered: it would come before this event for the
/// client alone.
#[track_caller]
fn assert_nothing_else_came(serving: &Serving, stream: &mut Stream, client_id: &str) {
    let answer = post(
        serving.address,
        &format!("/clients/{client_id}"),
        "nothing else",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stream.next().data, "nothing else");
}

/// Returns the lines that name the journal.
fn lines_about(journal: &Scratch, lines: Vec<String>) -> Vec<String> {
    let is_about = |line: &String| line.contains(journal.name());
    lines.into_iter().filter(is_about).collect()
}

// ---- the contents of a file

/// CRC-32 by its definition, bit by bit. The crate computes it in another way.
fn crc32(bytes: &[u8]) -> u32 {
    let bits = bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
    !bits.fold(!0, |register: u32, bit| {
        let carry = register & 1 ^ u32::from(bit);
        (register >> 1) ^ (0xEDB8_8320 * carry)
    })
}

#[test]
fn a_journal_file_is_plain_text_with_crc_32_checksums() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    let journal = Scratch::new();
    let mut serving = serve_on(&journal);
    // The first welcome has the id after which the hub's own ids begin.
    let initial_id = Stream::open(serving.address, "/events", "")
        .next()
        .last_event_id;
    let target = "/events/%D1%87%D0%B0%D1%82/1?event=greeting&retry=1500";
    let first = publish(&serving, target, "привет 🦀\n: event 1-0");
    publish(&serving, "/events?id=mine", "");
    let text = fs::read_to_string(segment(&journal)).unwrap();
    // The hub's id of an event with an own id is nowhere but in the file.
    let hub_id = text
        .rsplit(": event ")
        .next()
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert!(first.parse::<EventId>().unwrap() < hub_id.parse().unwrap());
    let blocks = [
        format!(": tiny-sse journal 1, after {initial_id}\n"),
        format!(
            ": event {first} чат/1\nid: {first}\nevent: greeting\nretry: 1500\ndata: привет 🦀\ndata: : event 1-0\n"
        ),
        format!(": event {hub_id}\nid: mine\ndata: \n"),
    ];
    let expected = blocks.map(|block| format!("{block}: crc {:08x}\n\n", crc32(block.as_bytes())));
    assert_eq!(text, expected.concat());
    serving.process.kill();
    assert_eq!(fs::read_to_string(segment(&journal)).unwrap(), text);
}

#[test]
fn in_every_sync_mode_a_process_that_ends_or_is_killed_loses_no_event() {
    for sync in ["always", "interval", "off"] {
        let journal = Scratch::new();
        let options = ["--journal", journal.name(), "--sync", sync];
        let mut expected = Vec::new();
        for run in 0..3 {
            let mut serving = serve(&options);
            assert_eq!(retained(&serving), expected, "--sync {sync}, run {run}");
            for number in 0..20 {
                let data = format!("{run}, {number}");
                publish(&serving, "/events/news", &data);
                expected.push(data);
            }
            if run == 1 {
                serving.process.signal("TERM");
                assert_eq!(serving.process.exit_code(), Some(0), "--sync {sync}");
            }
            let lines = lines_about(&journal, serving.process.kill());
            assert!(lines.is_empty(), "--sync {sync}: {lines:?}");
        }
    }
}

// ---- the lock

#[test]
fn a_second_server_on_a_journal_reports_that_it_is_in_use_and_ends() {
    let journal = Scratch::new();
    let mut first = serve_on(&journal);
    publish(&first, "/events", "one");
    let (code, printed, errors) =
        run_to_end(&["--listen", "127.0.0.1:0", "--journal", journal.name()]);
    assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
    let expected = format!("tiny-sse: {} is in use by another tiny-sse", journal.name());
    assert_eq!(lines_about(&journal, errors), [expected]);
    // The first server was not disturbed. When it ends, even by a kill, the next one may
    // use the journal.
    publish(&first, "/events", "two");
    first.process.kill();
    assert_eq!(retained(&serve_on(&journal)), ["one", "two"]);
}

#[test]
fn a_journal_that_cannot_be_created_is_reported_and_exits_with_1() {
    let scratch = Scratch::new();
    let missing = scratch.path().join("journal");
    let (code, printed, errors) = run_to_end(&[
        "--listen",
        "127.0.0.1:0",
        "--journal",
        missing.to_str().unwrap(),
    ]);
    assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
    let error = &lines_about(&scratch, errors)[0];
    let expected = format!("tiny-sse: cannot create {}: ", missing.display());
    assert!(error.starts_with(&expected), "{error}");
}

// ---- damaged files

#[test]
fn a_damage_before_good_records_is_an_error_and_after_a_repair_a_gap() {
    let journal = Scratch::new();
    let mut serving = serve_on(&journal);
    let ids = ["first", "second", "third", "fourth"].map(|data| publish(&serving, "/events", data));
    serving.process.kill();
    let path = segment(&journal);
    let mut bytes = fs::read(&path).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let offset = text.find(&format!(": event {}", ids[1])).unwrap();
    bytes[text.find("second").unwrap()] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let arguments = ["--listen", "127.0.0.1:0", "--journal", journal.name()];
    for _ in 0..2 {
        let (code, printed, errors) = run_to_end(&arguments);
        assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
        let error = &lines_about(&journal, errors)[0];
        let expected = format!("tiny-sse: {} is damaged at byte {offset}: ", path.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains("start with --repair"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "the file was changed");
    }

    let mut repaired = serve(&["--journal", journal.name(), "--repair"]);
    let evicted = |id: &str, replayed: usize| {
        format!(
            r#"{{"recovered_from":"{id}","replayed":{replayed},"complete":false,"reason":"evicted"}}"#
        )
    };
    let complete = |id: &str, replayed: usize| {
        format!(r#"{{"recovered_from":"{id}","replayed":{replayed},"complete":true}}"#)
    };
    for id in &ids[..3] {
        assert_eq!(recovery_after(&repaired, id), evicted(id, 0));
    }
    assert_eq!(recovery_after(&repaired, &ids[3]), complete(&ids[3], 0));
    let fifth = publish(&repaired, "/events", "fifth");
    // A separate thread of the server writes the log, so the test waits for the line
    // before the kill.
    let mut lines = lines_up_to(&repaired.process.err, "is damaged at byte");
    lines.extend(repaired.process.kill());
    let warnings = lines_about(&journal, lines);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in [
        " warn  ",
        &format!("is damaged at byte {offset}"),
        &format!("{} bytes", bytes.len() - offset),
        "00000001.sse.damaged",
    ] {
        assert!(warnings[0].contains(part), "no {part:?} in {warnings:?}");
    }
    let set_aside = fs::read(path.with_extension("sse.damaged")).unwrap();
    assert_eq!(set_aside, bytes[offset..], "the bytes that were set aside");

    // After the next restart the gap is still reported to clients, and there is no second
    // warning.
    let mut again = serve_on(&journal);
    for id in &ids[..3] {
        assert_eq!(recovery_after(&again, id), evicted(id, 1));
    }
    assert_eq!(recovery_after(&again, &ids[3]), complete(&ids[3], 1));
    assert_eq!(recovery_after(&again, &fifth), complete(&fifth, 0));
    assert_eq!(retained(&again), ["fifth"]);
    let warnings = lines_about(&journal, again.process.kill());
    assert!(warnings.is_empty(), "{warnings:?}");
}

// ---- a full disk

/// Limits the size of each file that the process writes to this number of bytes.
#[track_caller]
fn limit_file_size(process: &Process, bytes: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &process.child.id().to_string()])
        .arg(format!("--fsize={bytes}:"))
        .status();
    assert!(status.expect("prlimit of util-linux").success());
}

#[test]
fn on_a_full_disk_publishers_get_a_503_with_the_reason_and_nothing_is_delivered() {
    let journal = Scratch::new();
    // A process that writes beyond the limit gets the signal SIGXFSZ. The script ignores
    // the signal, so the write fails instead, as on a full disk.
    let script = r#"trap '' XFSZ; exec "$0" --listen 127.0.0.1:0 --retry 7s --journal "$1""#;
    let mut command = Command::new("sh");
    command
        .args(["-c", script, PROGRAM, journal.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut serving = wait_for_greeting(Process::spawn(&mut command));
    let address = serving.address;
    let mut stream = Stream::subscribe(address, "/events/*?client_id=me");
    publish(&serving, "/events", "before");
    assert_eq!(stream.next().data, "before");
    let cursor = stream.cursor().to_owned();
    let good = fs::read(segment(&journal)).unwrap();

    // The room for the next record is between 0 and 70 bytes, which is always too little.
    for room in [0, 1, 16, 40, 70] {
        limit_file_size(&serving.process, &(good.len() + room).to_string());
        let json = "Content-Type: application/x-ndjson\r\n";
        for (target, fields, body) in [
            ("/events", "", "refused: as long as the other one"),
            ("/events/news?id=mine", "", "refused, with an id of its own"),
            ("/events", json, "\"refused\"\n\"and so is the second\""),
        ] {
            let answer = request(address, "POST", target, fields, body);
            assert_eq!(answer.status, 503, "{room}: {answer:?}");
            assert_eq!(answer.field("retry-after"), Some("7"), "{answer:?}");
            for part in ["could not be kept", "00000001.sse", "File too large"] {
                assert!(answer.text().contains(part), "{room}: {answer:?}");
            }
            // No part of the refused record is left in the file.
            assert_eq!(fs::read(segment(&journal)).unwrap(), good, "{room}");
        }
        assert_nothing_else_came(&serving, &mut stream, "me");
        assert!(recovery_after(&serving, &cursor).ends_with(r#""replayed":0,"complete":true}"#));
        // `/health` fails as long as the disk is full, although a small write would
        // succeed.
        let health = get(address, "/health");
        assert_eq!(health.status, 503, "{room}: {health:?}");
        assert_eq!(health.field("retry-after"), Some("7"), "{health:?}");
        for part in [
            r#"{"status":"error","error":"events are refused: "#,
            "File too large",
        ] {
            assert!(health.text().contains(part), "{room}: {health:?}");
        }
    }
    let refused = 5 * 3;
    let stats = get(address, "/stats").text().to_owned();
    let failures = number_after(&stats, r#""failures":"#);
    assert_eq!(failures, refused, "{stats}");
    assert!(
        stats.contains(r#""log":{"failure":"cannot write to "#),
        "{stats}"
    );
    let metrics = get(address, "/metrics").text().to_owned();
    for line in [
        format!("\ntiny_sse_log_failures_total {refused}\n"),
        "\ntiny_sse_log_failing 1\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line:?} in {metrics}");
    }
    assert_eq!(fs::read(segment(&journal)).unwrap(), good);

    limit_file_size(&serving.process, "unlimited");
    // No event is published meanwhile: a load balancer requests `/health`, and sends
    // publishers only when it succeeds.
    eventually("/health succeeds again", || {
        get(address, "/health").status == 200
    });
    assert_eq!(fs::read(segment(&journal)).unwrap(), good);
    let metrics = get(address, "/metrics").text().to_owned();
    assert!(metrics.contains("\ntiny_sse_log_failing 0\n"), "{metrics}");
    publish(&serving, "/events", "after");
    // The own id of a refused event can be used again.
    assert_eq!(publish(&serving, "/events/news?id=mine", "mine"), "mine");
    assert_eq!(stream.next().data, "after");
    assert_eq!(stream.next().data, "mine");
    let mut lines = lines_up_to(&serving.process.err, "the log works again");
    lines.extend(serving.process.kill());
    let errors = lines_about(&journal, lines.clone());
    // The failure is logged once, for all refused publishers together, and its end is
    // logged too.
    let end = " warn  the log works again";
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains(" error the log failed: cannot write to "));
    assert!(lines.iter().any(|line| line.ends_with(end)), "{lines:#?}");

    let mut again = serve_on(&journal);
    assert_eq!(retained(&again), ["before", "after", "mine"]);
    assert!(recovery_after(&again, &cursor).ends_with(r#""replayed":2,"complete":true}"#));
    let warnings = lines_about(&journal, again.process.kill());
    assert!(
        warnings.is_empty(),
        "the journal was not intact: {warnings:?}"
    );
}

/// A write beyond the limit sends SIGXFSZ, which ends a process that does not ignore or
/// handle it.
#[test]
fn at_the_file_size_limit_publishers_get_a_503_and_the_server_goes_on() {
    for sync in ["always", "interval", "off"] {
        let journal = Scratch::new();
        let mut serving = serve(&["--journal", journal.name(), "--sync", sync]);
        let address = serving.address;
        publish(&serving, "/events", "before");
        let good = fs::read(segment(&journal)).unwrap();
        for room in [0, 1, 40] {
            limit_file_size(&serving.process, &(good.len() + room).to_string());
            let answer = post(address, "/events", "refused: as long as the other one");
            assert_eq!(answer.status, 503, "{sync}, {room}: {answer:?}");
            assert!(answer.text().contains("File too large"), "{answer:?}");
            assert_eq!(fs::read(segment(&journal)).unwrap(), good, "{sync}, {room}");
            assert_eq!(get(address, "/health").status, 503, "{sync}, {room}");
        }
        limit_file_size(&serving.process, "unlimited");
        eventually("/health succeeds again", || {
            get(address, "/health").status == 200
        });
        publish(&serving, "/events", "after");
        serving.process.kill();
        assert_eq!(retained(&serve_on(&journal)), ["before", "after"], "{sync}");
    }
}

// ---- changes by other programs

/// A command that an administrator or a tool may run in the journal's directory, and how
/// many of the three events before the command are still there after a restart.
const COMMANDS: [(&str, usize); 13] = [
    ("rm *.sse", 0),
    ("gzip *.sse", 0),
    ("mv 00000001.sse ..; mv ../00000001.sse 00000001.sse.1", 0),
    ("> 00000001.sse", 0),
    ("sed -i s/second/changed/ 00000001.sse", 0),
    ("cp 00000001.sse 00000001.sse.1 && : > 00000001.sse", 0),
    (
        "mv 00000001.sse 00000001.sse.1 && install -m 600 /dev/null 00000001.sse",
        0,
    ),
    ("rm -r *", 0),
    ("echo '# by hand' >> 00000001.sse", 3),
    ("sed -i s/nothing/changed/ 00000001.sse", 3),
    ("chmod a+rx . *; touch *", 3),
    ("ln 00000001.sse backup", 3),
    ("rm -f lock", 3),
];

#[test]
fn after_any_change_to_its_files_a_journal_keeps_later_events_and_reports_lost_ones() {
    for (command, still_kept) in COMMANDS {
        let journal = Scratch::new();
        let mut serving = serve_on(&journal);
        let ids = ["first", "second", "third"].map(|data| publish(&serving, "/events", data));
        run_in_directory(&journal, command);
        let fourth = publish(&serving, "/events", "fourth");
        let fifth = publish(&serving, "/events", "fifth");
        // A client of the running server has missed nothing.
        let complete = |replayed| format!(r#""replayed":{replayed},"complete":true}}"#);
        assert!(
            recovery_after(&serving, &ids[0]).ends_with(&complete(4)),
            "{command}"
        );
        serving.process.kill();

        let again = serve_on(&journal);
        let mut expected = ["first", "second", "third", "fourth", "fifth"].to_vec();
        expected.drain(..3 - still_kept);
        assert_eq!(retained(&again), expected, "{command}");
        let is_lost = still_kept == 0;
        let verdict = recovery_after(&again, &ids[0]);
        assert_eq!(
            verdict.ends_with(r#""reason":"evicted"}"#),
            is_lost,
            "{command}: {verdict}"
        );
        for (cursor, replayed) in [(&ids[2], 2), (&fourth, 1), (&fifth, 0)] {
            let verdict = recovery_after(&again, cursor);
            assert!(
                verdict.ends_with(&complete(replayed)),
                "{command}: {verdict}"
            );
        }
    }
}

#[test]
fn a_journal_without_its_directory_refuses_events_until_the_directory_is_back() {
    let journal = Scratch::new();
    let mut serving = serve_on(&journal);
    let address = serving.address;
    publish(&serving, "/events", "before");
    let away = Scratch::new();
    fs::rename(journal.path(), away.path()).unwrap();
    let answer = post(address, "/events", "refused");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.text().contains("was moved, removed or replaced"),
        "{answer:?}"
    );
    assert_eq!(get(address, "/health").status, 503);
    // Another server cannot use the directory under its new name either.
    let (code, _, errors) = run_to_end(&["--listen", "127.0.0.1:0", "--journal", away.name()]);
    assert_eq!(code, Some(1), "{errors:?}");
    assert!(lines_about(&away, errors)[0].ends_with("is in use by another tiny-sse"));
    fs::rename(away.path(), journal.path()).unwrap();
    eventually("/health succeeds again", || {
        get(address, "/health").status == 200
    });
    publish(&serving, "/events", "after");
    serving.process.kill();
    assert_eq!(retained(&serve_on(&journal)), ["before", "after"]);
}

#[track_caller]
fn run_in_directory(journal: &Scratch, script: &str) {
    let mut shell = Command::new("sh");
    let status = shell
        .args(["-ec", script])
        .current_dir(journal.path())
        .status();
    assert!(status.expect("sh").success(), "{script}");
}

#[test]
fn a_journal_that_ends_with_the_highest_id_is_refused_with_a_remedy() {
    let journal = Scratch::new();
    fs::create_dir(journal.path()).unwrap();
    let blocks = [
        ": tiny-sse journal 1, after 1000-0\n".to_owned(),
        format!(": event {0}-{0}\nid: {0}-{0}\ndata: x\n", u64::MAX),
    ];
    let text = blocks.map(|block| format!("{block}: crc {:08x}\n\n", crc32(block.as_bytes())));
    fs::write(segment(&journal), text.concat()).unwrap();
    let (code, printed, errors) =
        run_to_end(&["--listen", "127.0.0.1:0", "--journal", journal.name()]);
    assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
    let line = lines_about(&journal, errors).pop().expect("a message");
    for part in [
        "00000001.sse has the id 18446744073709551615-",
        "move the files away",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

// ---- a clock that goes back

#[test]
fn ids_rise_above_those_of_a_journal_from_the_future() {
    let journal = Scratch::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ahead = EventId {
        ms: (now + Duration::from_secs(24 * 60 * 60)).as_millis() as u64,
        seq: 7,
    };
    let message = format!("id: {ahead}\ndata: published tomorrow\n\n");
    let options = JournalOptions {
        dir: journal.path().to_owned(),
        sync: SyncMode::Off,
        repair: false,
        events: 0,
        bytes: 0,
        report: Report::default(),
    };
    let (mut written, _) = Journal::open(options, Hub::new_start_id()).unwrap();
    let record = Record::kept(ahead, None, None, message.into());
    written.append(&[record.into()]).unwrap();
    drop(written);

    let mut expected = vec!["published tomorrow".to_owned()];
    let mut latest = ahead;
    for run in 0..3 {
        let mut serving = serve_on(&journal);
        assert_eq!(retained(&serving), expected, "run {run}");
        let (mut stream, recovery) = Stream::resume(serving.address, "/events", &ahead.to_string());
        let missed = format!(r#""replayed":{},"complete":true}}"#, expected.len() - 1);
        assert!(recovery.ends_with(&missed), "run {run}: {recovery}");
        for data in &expected[1..] {
            assert_eq!(stream.next().data, *data, "run {run}");
        }
        for number in 0..3 {
            let data = format!("run {run}, event {number}");
            let id: EventId = publish(&serving, "/events", &data).parse().unwrap();
            assert!(id > latest, "{id} after {latest}");
            latest = id;
            let event = stream.next();
            assert_eq!((&event.data, event.last_event_id), (&data, id.to_string()));
            expected.push(data);
        }
        serving.process.kill();
    }
}
