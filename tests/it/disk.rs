//! The journal as whoever runs the program meets it: what stands in its files, who may have them,
//! and what happens when they are damaged, the disk is full, or the clock goes back.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tiny_sse::hub::{Log, Record};
use tiny_sse::store::{Journal, JournalOptions, SyncMode};
use tiny_sse::{EventId, Hub, Report};

use crate::kit::{Scratch, Stream, eventually, get, id_of, number_after, post, request};
use crate::program::{PROGRAM, Process, Serving, end_of, greeted, serve, up_to};

fn segment(journal: &Scratch) -> PathBuf {
    journal.path().join("00000001.sse")
}

#[track_caller]
fn serve_on(journal: &Scratch) -> Serving {
    serve(&["--journal", journal.name()])
}

/// Publishes, and answers the id.
#[track_caller]
fn publish(serving: &Serving, target: &str, data: &str) -> String {
    let answer = post(serving.address, target, data);
    assert_eq!(answer.status, 200, "{answer:?}");
    id_of(&answer)
}

/// What a client is told that comes back to all topics.
#[track_caller]
fn judgement(serving: &Serving, cursor: &str) -> String {
    Stream::resume(serving.address, "/events/*", cursor).1
}

/// The data of all that is retained.
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

/// Whatever else had been delivered would come before a word to this client alone.
#[track_caller]
fn assert_nothing_else_came(serving: &Serving, stream: &mut Stream, client_id: &str) {
    let answer = post(
        serving.address,
        &format!("/clients/{client_id}"),
        "no more than that",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stream.next().data, "no more than that");
}

/// The lines about a journal.
fn about(journal: &Scratch, lines: Vec<String>) -> Vec<String> {
    let is_about = |line: &String| line.contains(journal.name());
    lines.into_iter().filter(is_about).collect()
}

// ---- what stands in a file

/// CRC-32 as its definition has it, a bit at a time, and not as the crate computes it.
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
fn a_file_is_plain_text_with_checksums_that_anybody_can_compute() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    let journal = Scratch::new();
    let mut serving = serve_on(&journal);
    // The id that a hub begins behind is that of its first welcome.
    let born = Stream::open(serving.address, "/events", "")
        .next()
        .last_event_id;
    let target = "/events/%D1%87%D0%B0%D1%82/1?event=greeting&retry=1500";
    let first = publish(&serving, target, "привет 🦀\n: event 1-0");
    publish(&serving, "/events?id=mine", "");
    let text = fs::read_to_string(segment(&journal)).unwrap();
    // The place of an event with an id of its publisher's is in the file alone.
    let place = text
        .rsplit(": event ")
        .next()
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert!(first.parse::<EventId>().unwrap() < place.parse().unwrap());
    let blocks = [
        format!(": tiny-sse journal 1, after {born}\n"),
        format!(
            ": event {first} чат/1\nid: {first}\nevent: greeting\nretry: 1500\ndata: привет 🦀\ndata: : event 1-0\n"
        ),
        format!(": event {place}\nid: mine\ndata: \n"),
    ];
    let expected = blocks.map(|block| format!("{block}: crc {:08x}\n\n", crc32(block.as_bytes())));
    assert_eq!(text, expected.concat());
    serving.process.kill();
    assert_eq!(fs::read_to_string(segment(&journal)).unwrap(), text);
}

#[test]
fn whenever_it_is_synced_a_process_that_ends_or_is_killed_loses_nothing() {
    for sync in ["always", "interval", "off"] {
        let journal = Scratch::new();
        let options = ["--journal", journal.name(), "--sync", sync];
        let mut expected = Vec::new();
        for life in 0..3 {
            let mut serving = serve(&options);
            assert_eq!(retained(&serving), expected, "--sync {sync}, life {life}");
            for number in 0..20 {
                let data = format!("{life}, {number}");
                publish(&serving, "/events/news", &data);
                expected.push(data);
            }
            if life == 1 {
                serving.process.signal("TERM");
                assert_eq!(serving.process.exit_code(), Some(0), "--sync {sync}");
            }
            let lines = about(&journal, serving.process.kill());
            assert!(lines.is_empty(), "--sync {sync}: {lines:?}");
        }
    }
}

// ---- whose it is

#[test]
fn a_second_server_on_a_journal_ends_and_says_whose_it_is() {
    let journal = Scratch::new();
    let mut first = serve_on(&journal);
    publish(&first, "/events", "one");
    let (code, printed, errors) = end_of(&["--listen", "127.0.0.1:0", "--journal", journal.name()]);
    assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
    let expected = format!("tiny-sse: {} is in use by another tiny-sse", journal.name());
    assert_eq!(about(&journal, errors), [expected]);
    // The first one was not disturbed, and leaves it to the next however it ends.
    publish(&first, "/events", "two");
    first.process.kill();
    assert_eq!(retained(&serve_on(&journal)), ["one", "two"]);
}

#[test]
fn where_no_journal_can_be_it_says_so_and_exits_with_1() {
    let scratch = Scratch::new();
    let missing = scratch.path().join("journal");
    let (code, printed, errors) = end_of(&[
        "--listen",
        "127.0.0.1:0",
        "--journal",
        missing.to_str().unwrap(),
    ]);
    assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
    let error = &about(&scratch, errors)[0];
    let expected = format!("tiny-sse: cannot create {}: ", missing.display());
    assert!(error.starts_with(&expected), "{error}");
}

// ---- a damage

#[test]
fn a_damage_before_good_records_is_an_error_until_it_is_repaired_and_then_a_gap() {
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
        let (code, printed, errors) = end_of(&arguments);
        assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
        let error = &about(&journal, errors)[0];
        let place = format!("tiny-sse: {} is damaged at byte {offset}: ", path.display());
        assert!(error.starts_with(&place), "{error}");
        assert!(error.contains("start with --repair"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "it was touched");
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
        assert_eq!(judgement(&repaired, id), evicted(id, 0));
    }
    assert_eq!(judgement(&repaired, &ids[3]), complete(&ids[3], 0));
    let fifth = publish(&repaired, "/events", "fifth");
    // A separate thread writes the log, and the kill may come before it has.
    let mut lines = up_to(&repaired.process.err, "is damaged at byte");
    lines.extend(repaired.process.kill());
    let warnings = about(&journal, lines);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in [
        " warn  ",
        &format!("is damaged at byte {offset}"),
        &format!("{} bytes", bytes.len() - offset),
        "00000001.sse.damaged",
    ] {
        assert!(warnings[0].contains(part), "no {part:?} in {warnings:?}");
    }
    let aside = fs::read(path.with_extension("sse.damaged")).unwrap();
    assert_eq!(aside, bytes[offset..], "what was moved aside");

    // The hole is remembered, and is nothing to warn of a second time.
    let mut again = serve_on(&journal);
    for id in &ids[..3] {
        assert_eq!(judgement(&again, id), evicted(id, 1));
    }
    assert_eq!(judgement(&again, &ids[3]), complete(&ids[3], 1));
    assert_eq!(judgement(&again, &fifth), complete(&fifth, 0));
    assert_eq!(retained(&again), ["fifth"]);
    let warnings = about(&journal, again.process.kill());
    assert!(warnings.is_empty(), "{warnings:?}");
}

// ---- a disk that is full

/// Lets a process write files of so many bytes at the most.
#[track_caller]
fn allow(process: &Process, bytes: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &process.child.id().to_string()])
        .arg(format!("--fsize={bytes}:"))
        .status();
    assert!(status.expect("prlimit, of util-linux").success());
}

#[test]
fn a_full_disk_is_a_503_with_the_reason_and_nothing_is_delivered_until_there_is_room() {
    let journal = Scratch::new();
    // Who writes behind the limit is sent a signal that ends it, unless that is ignored; then the
    // write fails, as it does on a disk that is full.
    let script = r#"trap '' XFSZ; exec "$0" --listen 127.0.0.1:0 --retry 7s --journal "$1""#;
    let mut command = Command::new("sh");
    command
        .args(["-c", script, PROGRAM, journal.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut serving = greeted(Process::spawn(&mut command));
    let address = serving.address;
    let mut stream = Stream::subscribe(address, "/events/*?client_id=me");
    publish(&serving, "/events", "before");
    assert_eq!(stream.next().data, "before");
    let cursor = stream.cursor().to_owned();
    let good = fs::read(segment(&journal)).unwrap();

    // From no byte more to all but the last: the record has more than 70.
    for room in [0, 1, 16, 40, 70] {
        allow(&serving.process, &(good.len() + room).to_string());
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
            // Not even for a moment does the next one find a half of it.
            assert_eq!(fs::read(segment(&journal)).unwrap(), good, "{room}");
        }
        assert_nothing_else_came(&serving, &mut stream, "me");
        assert!(judgement(&serving, &cursor).ends_with(r#""replayed":0,"complete":true}"#));
        // `/health` fails as long as the disk is full, although 30 bytes would have fitted.
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

    allow(&serving.process, "unlimited");
    // There are no publishers: a load balancer requests `/health`, and sends none until the journal works.
    eventually("healthy again", || get(address, "/health").status == 200);
    assert_eq!(fs::read(segment(&journal)).unwrap(), good);
    let metrics = get(address, "/metrics").text().to_owned();
    assert!(metrics.contains("\ntiny_sse_log_failing 0\n"), "{metrics}");
    publish(&serving, "/events", "after");
    // An id is not used up by an event that was refused.
    assert_eq!(publish(&serving, "/events/news?id=mine", "mine"), "mine");
    assert_eq!(stream.next().data, "after");
    assert_eq!(stream.next().data, "mine");
    let mut lines = up_to(&serving.process.err, "the log works again");
    lines.extend(serving.process.kill());
    let errors = about(&journal, lines.clone());
    // Said once, however many publishers hear of it, and that it is over.
    let over = " warn  the log works again";
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains(" error the log failed: cannot write to "));
    assert!(lines.iter().any(|line| line.ends_with(over)), "{lines:#?}");

    let mut again = serve_on(&journal);
    assert_eq!(retained(&again), ["before", "after", "mine"]);
    assert!(judgement(&again, &cursor).ends_with(r#""replayed":2,"complete":true}"#));
    let warnings = about(&journal, again.process.kill());
    assert!(warnings.is_empty(), "it was not whole: {warnings:?}");
}

/// A write beyond the limit of a file's size sends the signal XFSZ, which ends a program that does nothing
/// about it.
#[test]
fn a_limit_of_the_files_size_is_a_503_and_does_not_end_the_server() {
    for sync in ["always", "interval", "off"] {
        let journal = Scratch::new();
        let mut serving = serve(&["--journal", journal.name(), "--sync", sync]);
        let address = serving.address;
        publish(&serving, "/events", "before");
        let good = fs::read(segment(&journal)).unwrap();
        for room in [0, 1, 40] {
            allow(&serving.process, &(good.len() + room).to_string());
            let answer = post(address, "/events", "refused: as long as the other one");
            assert_eq!(answer.status, 503, "{sync}, {room}: {answer:?}");
            assert!(answer.text().contains("File too large"), "{answer:?}");
            assert_eq!(fs::read(segment(&journal)).unwrap(), good, "{sync}, {room}");
            assert_eq!(get(address, "/health").status, 503, "{sync}, {room}");
        }
        allow(&serving.process, "unlimited");
        eventually("healthy again", || get(address, "/health").status == 200);
        publish(&serving, "/events", "after");
        serving.process.kill();
        assert_eq!(retained(&serve_on(&journal)), ["before", "after"], "{sync}");
    }
}

// ---- changes by other programs

/// A command that an administrator or a tool may run in the journal's directory, and how many of the
/// three events before it a restart still has.
const HANDS: [(&str, usize); 13] = [
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
fn whatever_is_done_to_the_files_no_acknowledged_event_is_forgotten_by_a_restart() {
    for (hand, still_kept) in HANDS {
        let journal = Scratch::new();
        let mut serving = serve_on(&journal);
        let ids = ["first", "second", "third"].map(|data| publish(&serving, "/events", data));
        in_the_directory(&journal, hand);
        let fourth = publish(&serving, "/events", "fourth");
        let fifth = publish(&serving, "/events", "fifth");
        // A client of the running server has missed nothing.
        let complete = |replayed| format!(r#""replayed":{replayed},"complete":true}}"#);
        assert!(
            judgement(&serving, &ids[0]).ends_with(&complete(4)),
            "{hand}"
        );
        serving.process.kill();

        let again = serve_on(&journal);
        let mut expected = ["first", "second", "third", "fourth", "fifth"].to_vec();
        expected.drain(..3 - still_kept);
        assert_eq!(retained(&again), expected, "{hand}");
        let is_gone = still_kept == 0;
        let verdict = judgement(&again, &ids[0]);
        assert_eq!(
            verdict.ends_with(r#""reason":"evicted"}"#),
            is_gone,
            "{hand}: {verdict}"
        );
        for (cursor, replayed) in [(&ids[2], 2), (&fourth, 1), (&fifth, 0)] {
            let verdict = judgement(&again, cursor);
            assert!(verdict.ends_with(&complete(replayed)), "{hand}: {verdict}");
        }
    }
}

#[test]
fn without_its_directory_a_journal_refuses_until_it_is_back() {
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
    // Nor is it taken by another server under its new name.
    let (code, _, errors) = end_of(&["--listen", "127.0.0.1:0", "--journal", away.name()]);
    assert_eq!(code, Some(1), "{errors:?}");
    assert!(about(&away, errors)[0].ends_with("is in use by another tiny-sse"));
    fs::rename(away.path(), journal.path()).unwrap();
    eventually("healthy again", || get(address, "/health").status == 200);
    publish(&serving, "/events", "after");
    serving.process.kill();
    assert_eq!(retained(&serve_on(&journal)), ["before", "after"]);
}

#[track_caller]
fn in_the_directory(journal: &Scratch, script: &str) {
    let mut shell = Command::new("sh");
    let status = shell
        .args(["-ec", script])
        .current_dir(journal.path())
        .status();
    assert!(status.expect("sh").success(), "{script}");
}

#[test]
fn a_journal_whose_last_id_leaves_no_room_is_refused_with_the_remedy() {
    let journal = Scratch::new();
    fs::create_dir(journal.path()).unwrap();
    let blocks = [
        ": tiny-sse journal 1, after 1000-0\n".to_owned(),
        format!(": event {0}-{0}\nid: {0}-{0}\ndata: x\n", u64::MAX),
    ];
    let text = blocks.map(|block| format!("{block}: crc {:08x}\n\n", crc32(block.as_bytes())));
    fs::write(segment(&journal), text.concat()).unwrap();
    let (code, printed, errors) = end_of(&["--listen", "127.0.0.1:0", "--journal", journal.name()]);
    assert_eq!((code, printed), (Some(1), vec![]), "{errors:?}");
    let line = about(&journal, errors).pop().expect("a message");
    for part in [
        "00000001.sse has the id 18446744073709551615-",
        "move the files away",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

// ---- a clock that was ahead

#[test]
fn ids_rise_above_those_of_a_journal_from_the_future() {
    let journal = Scratch::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ahead = EventId {
        ms: (now + Duration::from_secs(24 * 60 * 60)).as_millis() as u64,
        seq: 7,
    };
    let message = format!("id: {ahead}\ndata: said tomorrow\n\n");
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

    let mut expected = vec!["said tomorrow".to_owned()];
    let mut latest = ahead;
    for life in 0..3 {
        let mut serving = serve_on(&journal);
        assert_eq!(retained(&serving), expected, "life {life}");
        let (mut stream, recovery) = Stream::resume(serving.address, "/events", &ahead.to_string());
        let missed = format!(r#""replayed":{},"complete":true}}"#, expected.len() - 1);
        assert!(recovery.ends_with(&missed), "life {life}: {recovery}");
        for data in &expected[1..] {
            assert_eq!(stream.next().data, *data, "life {life}");
        }
        for number in 0..3 {
            let data = format!("life {life}, event {number}");
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
