//! A client that reconnects learns correctly whether it has missed events that cannot be
//! replayed. This holds for every cursor: of this server, of another server, of an
//! earlier run, of a publisher's own id, and for texts that are no ids.

use std::fs;
use std::net::SocketAddr;

use tiny_sse::hub::{Kept, Log};
use tiny_sse::{
    Config, Cursor, Event, EventId, Hub, JournalConfig, Pattern, Running, Subscribe, Topic,
};

use crate::kit::{Raw, Scratch, Stream, config, get, post, request, server};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn publish(hub: &Hub, data: &str) -> EventId {
    hub.publish(Event::new(data)).unwrap().id
}

/// Returns what follows `"complete":` in the recovery event for this cursor: `true`, or
/// `false` and the reason. A poll with the same cursor must report the same.
#[track_caller]
fn verdict(hub: &Hub, patterns: &[&str], cursor: &str) -> String {
    let params = Subscribe {
        patterns: patterns
            .iter()
            .map(|text| Pattern::new(text).unwrap())
            .collect(),
        cursor: Cursor::After(cursor.to_owned()),
        ..Subscribe::default()
    };
    let welcome = hub.subscribe(params.clone()).unwrap().take_welcome();
    let welcome = String::from_utf8(welcome).unwrap();
    let (_, verdict) = welcome.split_once(r#","complete":"#).expect("a recovery");
    let verdict = verdict.split('}').next().unwrap().to_owned();
    let poll = hub.poll(params, std::time::Duration::ZERO).unwrap();
    let first = poll.messages.first();
    let gap = first.filter(|first| first.name == "recovery");
    assert_eq!(gap.is_some(), verdict != "true", "{cursor:?}: {welcome}");
    if let Some(gap) = gap {
        assert!(gap.data.ends_with(&format!("{verdict}}}")), "{}", gap.data);
    }
    verdict
}

const COMPLETE: &str = "true";
const UNKNOWN: &str = r#"false,"reason":"unknown""#;
const EVICTED: &str = r#"false,"reason":"evicted""#;
const FUTURE: &str = r#"false,"reason":"future""#;

// ---- ids of other servers and other runs

#[test]
fn ids_rise_and_each_run_of_a_server_numbers_them_from_another_start() {
    let hubs = [(); 8].map(|()| Hub::new(config()).unwrap());
    let mut firsts = Vec::new();
    for hub in &hubs {
        let ids: Vec<_> = (0..2_000).map(|_| publish(hub, "")).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
        let first = ids[0].seq;
        for pair in ids.windows(2) {
            let expected = if pair[0].ms == pair[1].ms {
                pair[0].seq + 1
            } else {
                first
            };
            assert_eq!(pair[1].seq, expected, "{pair:?}");
        }
        // Ids are short, because they are repeated in logs and header fields.
        assert!(ids.iter().all(|id| id.to_string().len() <= 24), "{first}");
        firsts.push(first);
    }
    // The same holds for the id of an empty history, the cursor of a client that has seen
    // no event.
    for numbers in [firsts, (0..50).map(|_| Hub::new_start_id().seq).collect()] {
        let (count, mut different) = (numbers.len(), numbers);
        different.sort_unstable();
        different.dedup();
        assert_eq!(
            different.len(),
            count,
            "two hubs have the same number: {different:?}"
        );
    }
}

#[test]
fn an_id_of_another_server_is_never_taken_for_an_id_of_this_one() {
    let hubs = [(); 2].map(|()| Hub::new(config()).unwrap());
    // The hubs publish alternately, so that both assign ids in the same milliseconds.
    let ids: Vec<_> = (0..400)
        .map(|_| [publish(&hubs[0], ""), publish(&hubs[1], "")])
        .collect();
    let mut unknown = 0;
    for [ours, theirs] in &ids {
        assert_eq!(verdict(&hubs[0], &[], &ours.to_string()), COMPLETE);
        let verdict = verdict(&hubs[0], &[], &theirs.to_string());
        assert_ne!(verdict, COMPLETE, "{theirs} beside {ours}");
        unknown += usize::from(verdict == UNKNOWN);
    }
    assert!(unknown > 100, "{unknown} of 400");
}

/// A log that keeps nothing.
#[derive(Debug)]
struct NullLog;

impl Log for NullLog {
    fn append(&mut self, _: &[std::sync::Arc<tiny_sse::hub::Record>]) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns a hub with a log whose last id has this millisecond. The clock is far behind,
/// so the hub assigns the next ids after that one.
fn hub_after(ms: u64) -> Hub {
    let kept = Kept {
        after: EventId { ms, seq: 7 },
        ..Kept::nothing()
    };
    Hub::with_log(config(), Box::new(NullLog), kept).unwrap()
}

#[test]
fn a_cursor_from_the_future_is_not_complete_when_the_clock_reaches_it() {
    const FAR: u64 = 1 << 52;
    let first_run = hub_after(FAR);
    let cursors: Vec<_> = (0..50).map(|_| publish(&first_run, "")).collect();
    // The ids of the next run are lower, of the same millisecond, and higher.
    let early = hub_after(FAR - 10);
    publish(&early, "");
    let same = hub_after(FAR);
    let ahead = hub_after(FAR + 10);
    for cursor in &cursors {
        let cursor = cursor.to_string();
        assert_eq!(verdict(&early, &[], &cursor), FUTURE);
        assert_eq!(verdict(&ahead, &[], &cursor), EVICTED);
    }
    for _ in 0..60 {
        publish(&same, "");
        for cursor in &cursors {
            assert_ne!(verdict(&same, &[], &cursor.to_string()), COMPLETE);
        }
    }
}

#[test]
fn ids_rise_above_all_ids_of_the_run_before() {
    for ms in [1_000, 1 << 52, u64::MAX - 1] {
        let before = EventId { ms, seq: u64::MAX };
        let kept = Kept {
            after: before,
            ..Kept::nothing()
        };
        let hub = Hub::with_log(config(), Box::new(NullLog), kept).unwrap();
        let ids = [publish(&hub, ""), publish(&hub, "")];
        assert!(before < ids[0] && ids[0] < ids[1], "{ids:?} after {before}");
    }
    let end = Kept {
        after: EventId {
            ms: u64::MAX,
            seq: 0,
        },
        ..Kept::nothing()
    };
    let error = Hub::with_log(config(), Box::new(NullLog), end).unwrap_err();
    let line = "the log ends with the id 18446744073709551615-0, and no id can come after that";
    assert_eq!(error.to_string(), line);
}

fn with_journal(dir: &Scratch, history_events: usize) -> Running {
    server(Config {
        journal: JournalConfig::at(dir.path()),
        history_events,
        // Small, so that only the number of events limits the history.
        queue_bytes: 16,
        ..config()
    })
}

#[test]
fn with_the_journal_of_another_server_no_earlier_cursor_is_complete() {
    let (ours, others) = (Scratch::new(), Scratch::new());
    let mut cursors = Vec::new();
    {
        let servers = [&ours, &others].map(|dir| with_journal(dir, 10_000));
        // The cursor of a client that has seen no event is tested too.
        let welcome = Stream::open(servers[0].local_addr(), "/events", "").next();
        cursors.push(welcome.last_event_id);
        for _ in 0..60 {
            cursors.push(publish(servers[0].hub(), "ours").to_string());
            publish(servers[1].hub(), "another's");
        }
    }
    let swapped = with_journal(&others, 10_000);
    for round in 0..2 {
        for cursor in &cursors {
            let verdict = verdict(swapped.hub(), &[], cursor);
            assert_ne!(verdict, COMPLETE, "{cursor}, round {round}");
        }
        // In the second round, cursors that were newer than the last event are older than
        // it.
        for _ in 0..60 {
            publish(swapped.hub(), "later");
        }
    }
    swapped.shutdown();
    // With the server's own journal, all cursors are complete again.
    let back = with_journal(&ours, 10_000);
    for cursor in &cursors {
        assert_eq!(verdict(back.hub(), &[], cursor), COMPLETE, "{cursor}");
    }
}

#[test]
fn with_an_older_copy_of_the_journal_cursors_of_lost_events_are_never_complete() {
    let (dir, copy) = (Scratch::new(), Scratch::new());
    let first = with_journal(&dir, 10_000);
    let known = publish(first.hub(), "known").to_string();
    fs::create_dir(copy.path()).unwrap();
    let name = "00000001.sse";
    fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    let lost: Vec<_> = (0..20).map(|_| publish(first.hub(), "lost")).collect();
    first.shutdown();
    let second = with_journal(&copy, 10_000);
    for _ in 0..20 {
        for cursor in &lost {
            assert_ne!(verdict(second.hub(), &[], &cursor.to_string()), COMPLETE);
        }
        publish(second.hub(), "new");
    }
    assert_eq!(verdict(second.hub(), &[], &known), COMPLETE);
}

// ---- own ids of publishers

fn own(id: &str, name: &str) -> Event {
    let event = Event::new(id).with_id(id).unwrap();
    if name.is_empty() {
        event
    } else {
        event.with_topic(topic(name))
    }
}

#[test]
fn a_client_that_has_seen_the_last_event_is_complete_by_either_of_its_ids() {
    for (events, bytes) in [(0, 16 << 20), (1, 16 << 20), (3, 16 << 20), (1_000, 100)] {
        let hub = Hub::new(Config {
            history_events: events,
            history_bytes: bytes,
            queue_bytes: 16,
            ..config()
        })
        .unwrap();
        for number in 0..20 {
            let id = format!("own-{number}");
            let published = hub.publish(own(&id, "a")).unwrap();
            let what = format!("{events} events, {bytes} bytes, {id}");
            assert_eq!(verdict(&hub, &["a"], &id), COMPLETE, "{what}");
            let ours = published.id.to_string();
            assert_eq!(verdict(&hub, &["a"], &ours), COMPLETE, "{what}");
            assert_eq!(
                verdict(&hub, &["b"], &id),
                UNKNOWN,
                "{what}: with another topic"
            );
        }
        // A client that has seen the event before has missed one event, which may be
        // retained or not.
        let is_retained = hub.stats().history.events > 0;
        let verdict = verdict(&hub, &["a"], "own-18");
        assert_eq!(verdict, if is_retained { COMPLETE } else { UNKNOWN });
    }
}

#[test]
fn after_a_restart_the_newest_event_that_is_not_retained_is_known_by_its_own_id() {
    for history_events in [0, 1, 4] {
        let dir = Scratch::new();
        let first = with_journal(&dir, history_events);
        for number in 0..30 {
            let event = own(&format!("own-{number}"), "a");
            first.hub().publish(event).unwrap();
        }
        // The id of the latest event that is not retained.
        let edge = |hub: &Hub| format!("own-{}", 29 - hub.stats().history.events);
        assert_eq!(verdict(first.hub(), &["*"], &edge(first.hub())), COMPLETE);
        first.shutdown();
        let again = with_journal(&dir, history_events);
        let edge = edge(again.hub());
        for patterns in [&["a"][..], &["*"], &["b", "a"]] {
            let verdict = verdict(again.hub(), patterns, &edge);
            assert_eq!(verdict, COMPLETE, "{edge} for {patterns:?}");
        }
        assert_eq!(verdict(again.hub(), &["b"], &edge), UNKNOWN);
        assert_eq!(verdict(again.hub(), &["a"], "own-0"), UNKNOWN);
        // An own id is in use while its event is retained, and on the event's topic
        // alone.
        if history_events > 0 {
            assert!(again.hub().publish(own("own-29", "a")).is_err());
        }
        assert!(again.hub().publish(own("own-29", "b")).is_ok());
    }
}

#[test]
fn an_own_id_used_in_several_topics_means_its_last_event_in_the_topics_of_the_client() {
    let server = server(config());
    let address = server.local_addr();
    for name in ["a", "b/1", "", "b/2"] {
        server.hub().publish(own("same", name)).unwrap();
        let after = if name.is_empty() { "other" } else { name };
        let event = Event::new(format!("after {name}")).with_topic(topic(after));
        server.hub().publish(event).unwrap();
    }
    for (target, missed) in [
        ("", &[][..]),
        ("topic=a", &[]),
        ("topic=b/1", &[]),
        ("topic=b/2", &["after b/2"]),
        ("topic=b/*", &["after b/2"]),
        ("topic=a&topic=b/1", &[]),
        ("topic=*", &["after b/2"]),
        ("topic=a&topic=other", &["after "]),
    ] {
        let (mut stream, recovery) =
            Stream::resume(address, &format!("/events?client_id=me&{target}"), "same");
        let expected = format!(r#""replayed":{},"complete":true}}"#, missed.len());
        assert!(recovery.ends_with(&expected), "{target}: {recovery}");
        for data in missed {
            assert_eq!(stream.next().data, *data, "{target}");
        }
        let poll = get(address, &format!("/poll?last_event_id=same&{target}"));
        let count = poll.text().matches("\"data\":").count();
        assert_eq!(count, missed.len(), "{target}: {}", poll.text());
    }
}

// ---- texts that are not cursors

/// Returns the data of the `recovery` event of a stream with this query and these header
/// fields, if there is one. A poll must report the same gap.
#[track_caller]
fn recovery(address: SocketAddr, query: &str, fields: &[u8]) -> Option<String> {
    let ask = |path: &str| {
        let head = format!("GET {path}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        let mut raw = Raw::connect(address);
        raw.send([head.as_bytes(), fields, b"\r\n"].concat());
        raw
    };
    let poll = ask("/poll").answer();
    assert_eq!(poll.status, 200, "poll of {query:?}: {poll:?}");
    let mut stream = Stream::on(ask("/events"));
    assert_eq!(stream.next().name, "system");
    post(address, "/events", "live");
    let first = stream.next();
    let recovery = (first.name == "recovery").then_some(first.data);
    let is_gap = |recovery: &String| recovery.contains(r#""complete":false"#);
    assert_eq!(
        poll.text().contains("recovery"),
        recovery.as_ref().is_some_and(is_gap),
        "poll of {query:?}: {poll:?}"
    );
    recovery
}

#[test]
fn no_client_is_refused_because_of_the_text_of_its_cursor() {
    let server = server(config());
    let address = server.local_addr();
    let id = publish(server.hub(), "one").to_string();
    let other = publish(server.hub(), "two").to_string();
    let huge = "9".repeat(6_000);
    let header = |value: &[u8]| [b"Last-Event-ID: ", value, b"\r\n"].concat();
    let [first, second] = [&id, &other].map(|id| header(id.as_bytes()));
    // Header fields with unknown cursors, and the beginning of the text that the recovery
    // event repeats.
    let unknown_cursors: [(Vec<u8>, &str); 14] = [
        (header(b"\xff\xfe"), "\"\u{fffd}\u{fffd}\""),
        (header("за\u{301}каз".as_bytes()), "\"за\u{301}каз\""),
        (header(b"a\x01b\x7f\x1b"), "\"a\\u0001b\u{7f}\\u001b\""),
        (header(br#""\"#), r#""\"\\""#),
        (header(b"a\tb"), r#""a\tb""#),
        (header(b"0"), r#""0""#),
        (header(b"-1--1"), r#""-1--1""#),
        (header(b"+1-0"), r#""+1-0""#),
        (header(format!("{id} x").as_bytes()), ""),
        (header(format!("0{id}").as_bytes()), ""),
        (header(huge.as_bytes()), ""),
        ([&first[..], &second].concat(), ""),
        ([&first[..], &first].concat(), ""),
        ([&first[..], &header(b"\xff")].concat(), ""),
    ];
    for (fields, echo) in &unknown_cursors {
        let row = String::from_utf8_lossy(fields);
        let data = recovery(address, "", fields).expect("a cursor");
        assert!(data.ends_with(&format!("{UNKNOWN}}}")), "{row}: {data}");
        assert!(data.len() < 400, "{row}: {} bytes", data.len());
        let expected = format!(r#"{{"recovered_from":{echo}"#);
        assert!(data.starts_with(expected.trim_end()), "{row}: {data}");
    }
    for query in [
        "last_event_id=%FF",
        "last_event_id=%zz%",
        "last_event_id=a%00b%0A",
        "last_event_id=%22",
        "lastEventId=%FF",
        &format!("last_event_id={huge}"),
        &format!("last_event_id={id}&last_event_id={other}"),
        &format!("lastEventId={id}&LASTEVENTID={other}"),
    ] {
        let data = recovery(address, query, b"").expect("a cursor");
        assert!(data.ends_with(&format!("{UNKNOWN}}}")), "{query}: {data}");
        assert!(data.len() < 400, "{query}: {} bytes", data.len());
    }
    // An empty text means that there is no cursor, not that the cursor is unknown.
    for (query, fields) in [
        ("", header(b"")),
        ("", header(b"  ")),
        ("", [header(b""), header(b"")].concat()),
        ("last_event_id=", Vec::new()),
        ("lastEventId", Vec::new()),
        ("lastEventId=&last_event_id=", header(b"")),
    ] {
        assert_eq!(recovery(address, query, &fields), None, "{query:?}");
    }
    // A bare CR or a NUL ends or changes the head for some parsers, so the request is
    // rejected.
    for bad in ["a\rb", "a\0b"] {
        let fields = format!("Last-Event-ID: {bad}\r\n");
        let answer = request(address, "GET", "/poll", &fields, "");
        assert_eq!(answer.status, 400, "{bad:?}");
    }
}

#[test]
fn the_cursor_parameter_has_many_spellings_and_the_most_recent_cursor_wins() {
    let server = server(config());
    let address = server.local_addr();
    let ids: Vec<_> = (0..3)
        .map(|_| publish(server.hub(), "").to_string())
        .collect();
    let (first, second, third) = (&ids[0], &ids[1], &ids[2]);
    let names = [
        "last_event_id",
        "lastEventId",
        "lasteventid",
        "LASTEVENTID",
        "lastEventID",
        "Last-Event-ID",
        "Last_Event_Id",
        "last%45ventId",
    ];
    for name in names {
        let data = recovery(address, &format!("{name}={second}"), b"").expect(name);
        let expected = format!(r#"{{"recovered_from":"{second}","#);
        assert!(
            data.starts_with(&expected) && data.ends_with(r#""complete":true}"#),
            "{name}: {data}"
        );
        let data = recovery(address, &format!("{name}=earliest"), b"").expect(name);
        assert!(
            data.starts_with(r#"{"recovered_from":"earliest","#),
            "{name}: {data}"
        );
    }
    for (query, header, from) in [
        // The parameter that a client library adds when it reconnects is newer than the
        // page's own one.
        (
            format!("last_event_id={first}&lastEventId={second}"),
            "",
            second,
        ),
        (
            format!("lastEventId={second}&last_event_id={first}"),
            "",
            second,
        ),
        (format!("lastEventId=&last_event_id={first}"), "", first),
        (
            format!("lastEventId={second}&last_event_id={first}"),
            &**third,
            third,
        ),
        (format!("last_event_id={first}"), "", first),
    ] {
        let fields = format!("Last-Event-ID: {header}\r\n");
        let data = recovery(address, &query, fields.as_bytes()).expect(&query);
        let expected = format!(r#"{{"recovered_from":"{from}","#);
        assert!(data.starts_with(&expected), "{query}, {header}: {data}");
    }
}
