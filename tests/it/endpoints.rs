//! Every endpoint with valid and with invalid requests: the answers, and the bytes that
//! arrive at a stream.

use std::time::Duration;

use tiny_sse::{Config, Event, Pattern, Running, Server, Topic};

use crate::kit::{
    Answer, Raw, Stream, config, eventually, get, number_after, post, request, server,
};

/// A configuration without heartbeats, which would come between the bytes that a test
/// compares.
fn without_heartbeats() -> Config {
    Config {
        heartbeat: Duration::from_secs(3600),
        ..config()
    }
}

fn address(server: &Running) -> std::net::SocketAddr {
    server.local_addr()
}

/// The id in `{"status":"ok","id":"…",…}`, with its escapes.
#[track_caller]
fn id_in(answer: &Answer) -> &str {
    let rest = answer.text().split_once(r#""id":""#);
    let (id, _) = rest
        .and_then(|(_, rest)| rest.split_once('"'))
        .unwrap_or_else(|| panic!("no id in {answer:?}"));
    id
}

/// Reads the next event and returns its bytes, without earlier bytes of the stream.
#[track_caller]
fn next_bytes(stream: &mut Stream) -> String {
    let before = stream.bytes.len();
    stream.next();
    String::from_utf8(stream.bytes[before..].to_vec()).expect("the stream is UTF-8")
}

/// Checks the status of an answer, what all errors have in common, and that its body
/// contains `part`.
#[track_caller]
fn assert_error(answer: &Answer, status: u16, part: &str, row: &str) {
    assert_eq!(answer.status, status, "{row}: {answer:?}");
    assert_eq!(
        (
            answer.field("content-type"),
            answer.field("access-control-allow-origin")
        ),
        (Some("application/json"), Some("*")),
        "{row}"
    );
    let body = answer.text();
    assert!(
        body.starts_with(r#"{"status":"error","error":""#) && body.ends_with("\"}\n"),
        "{row}: {body}"
    );
    assert!(body.contains(part), "{row}: no {part:?} in {body}");
}

// ---- publishing: the bytes that arrive at a stream

#[test]
fn the_body_arrives_as_the_data_and_each_kind_of_line_break_begins_a_new_data_field() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for (body, bytes, data) in [
        ("hello", "data: hello\n\n", "hello"),
        ("", "data: \n\n", ""),
        (
            " led by a space",
            "data:  led by a space\n\n",
            " led by a space",
        ),
        ("a\nb", "data: a\ndata: b\n\n", "a\nb"),
        ("a\r\nb", "data: a\ndata: b\n\n", "a\nb"),
        ("a\rb", "data: a\ndata: b\n\n", "a\nb"),
        ("a\n\rb", "data: a\ndata: \ndata: b\n\n", "a\n\nb"),
        ("a\n", "data: a\ndata: \n\n", "a\n"),
        ("\n", "data: \ndata: \n\n", "\n"),
        ("\r\n\r\n", "data: \ndata: \ndata: \n\n", "\n\n"),
        (
            "x\n\nid: 1\nevent: y",
            "data: x\ndata: \ndata: id: 1\ndata: event: y\n\n",
            "x\n\nid: 1\nevent: y",
        ),
        (": no comment", "data: : no comment\n\n", ": no comment"),
        ("привет", "data: привет\n\n", "привет"),
        ("👩‍👩‍👧 é", "data: 👩‍👩‍👧 é\n\n", "👩‍👩‍👧 é"),
        // Unicode has more line breaks than an event stream.
        (
            "a\u{2028}b\u{85}c\u{b}d",
            "data: a\u{2028}b\u{85}c\u{b}d\n\n",
            "a\u{2028}b\u{85}c\u{b}d",
        ),
        ("\u{feff}bom", "data: \u{feff}bom\n\n", "\u{feff}bom"),
        ("nul\0tab\t", "data: nul\0tab\t\n\n", "nul\0tab\t"),
        (r#"{ "n": 1 }"#, "data: { \"n\": 1 }\n\n", r#"{ "n": 1 }"#),
    ] {
        let answer = post(address(&server), "/events", body);
        let before = stream.bytes.len();
        let message = stream.next();
        let arrived = String::from_utf8(stream.bytes[before..].to_vec()).unwrap();
        let id = id_in(&answer);
        assert_eq!(arrived, format!("id: {id}\n{bytes}"), "{body:?}");
        assert_eq!(
            (&*message.data, &*message.name),
            (data, "message"),
            "{body:?}"
        );
        assert_eq!(
            answer.text(),
            format!("{{\"status\":\"ok\",\"id\":\"{id}\",\"recipients\":1}}\n"),
            "{body:?}"
        );
        assert_eq!(
            (
                answer.status,
                answer.field("content-type"),
                answer.field("access-control-allow-origin")
            ),
            (200, Some("application/json"), Some("*")),
            "{body:?}"
        );
    }
}

#[test]
fn the_query_of_a_publication_sets_the_events_name_id_and_retry() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    // ID is replaced by the id in the answer.
    for (target, bytes) in [
        ("/events?event=tick", "id: ID\nevent: tick\ndata: x\n\n"),
        ("/events?event=привет", "id: ID\nevent: привет\ndata: x\n\n"),
        (
            "/events?event=%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82",
            "id: ID\nevent: привет\ndata: x\n\n",
        ),
        (
            "/events?event=%F0%9F%A6%80+%E2%80%A8",
            "id: ID\nevent: 🦀 \u{2028}\ndata: x\n\n",
        ),
        ("/events?event=a%2Bb+c", "id: ID\nevent: a+b c\ndata: x\n\n"),
        ("/events?event=a:b", "id: ID\nevent: a:b\ndata: x\n\n"),
        ("/events?event=", "id: ID\nevent: \ndata: x\n\n"),
        ("/events?%65vent=tick", "id: ID\nevent: tick\ndata: x\n\n"),
        ("/events?event", "id: ID\nevent: \ndata: x\n\n"),
        ("/events?", "id: ID\ndata: x\n\n"),
        ("/events?retry=100", "id: ID\nretry: 100\ndata: x\n\n"),
        (
            "/events?retry=86400000",
            "id: ID\nretry: 86400000\ndata: x\n\n",
        ),
        (
            "/events?retry=1500&event=a&id=7",
            "id: 7\nevent: a\nretry: 1500\ndata: x\n\n",
        ),
        ("/events?id=order-1", "id: order-1\ndata: x\n\n"),
        ("/events?id=%22%5C", "id: \"\\\ndata: x\n\n"),
        // A target in absolute form, which some proxies send, means the same.
        (
            "http://localhost:1/events?event=a",
            "id: ID\nevent: a\ndata: x\n\n",
        ),
    ] {
        let answer = post(address(&server), target, "x");
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let arrived = next_bytes(&mut stream);
        assert_eq!(arrived, bytes.replace("ID", id_in(&answer)), "{target}");
    }
    let answer = post(address(&server), "/events?id=%5C%22", "x");
    assert!(answer.text().contains(r#""id":"\\\"","#), "{answer:?}");
}

#[test]
fn an_own_id_cannot_be_published_again_on_its_topic_while_the_history_holds_it() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events/*");
    for (target, body) in [
        ("/events?id=1", "one"),
        // The same id on another topic is another event.
        ("/events/a?id=1", "one of a"),
        ("/events?id=1&topic=b", "one of b"),
        ("/events?id=2", "two"),
    ] {
        let answer = post(address(&server), target, body);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let message = stream.next();
        assert_eq!(
            (&*message.data, &*message.last_event_id),
            (body, id_in(&answer))
        );
    }
    for (target, error) in [
        (
            "/events?id=1",
            r#"already published: an event without a topic and with the id \"1\""#,
        ),
        (
            "/events/a?id=1",
            r#"already published: an event of the topic \"a\" with the id \"1\""#,
        ),
        ("/events/b?id=1", r#"of the topic \"b\" with the id"#),
    ] {
        let again = post(address(&server), target, "again");
        assert_error(&again, 409, error, target);
    }
    post(address(&server), "/events", "the next");
    assert_eq!(stream.next().data, "the next");
}

#[test]
fn all_spellings_of_a_topic_in_a_target_are_the_same_topic() {
    let server = server(without_heartbeats());
    let spellings = [
        "/events/чат/🦀%20+",
        "/events/%D1%87%D0%B0%D1%82%2F%F0%9F%A6%80%20%2b",
        "/events?topic=чат/🦀+%2B",
        "/events?topic=%D1%87%D0%B0%D1%82/%F0%9F%A6%80%20%2B",
        "http://localhost/events/чат/🦀%20+",
    ];
    let mut streams: Vec<_> = spellings
        .iter()
        .map(|target| Stream::subscribe(address(&server), target))
        .collect();
    for publish in spellings {
        let answer = post(address(&server), publish, publish);
        let recipients = number_after(answer.text(), "\"recipients\":");
        assert_eq!(recipients, spellings.len() as u64, "{publish}");
        for (subscribed, stream) in spellings.iter().zip(&mut streams) {
            assert_eq!(stream.next().data, publish, "{publish} to {subscribed}");
        }
    }
    // A line separator is not a control character, so the JSON of /stats has it without
    // an escape.
    let _stream = Stream::subscribe(address(&server), "/events/a%E2%80%A8b");
    let stats = get(address(&server), "/stats");
    assert!(stats.text().contains("\"a\u{2028}b\":1"), "{stats:?}");
    assert!(stats.text().contains("\"чат/🦀 +\":5"), "{stats:?}");
}

#[test]
fn an_event_reaches_the_subscribers_of_its_topic_or_without_a_topic_all_clients() {
    let server = server(without_heartbeats());
    let subscriptions = [
        "/events",
        "/events/chat/1",
        "/events/Chat/1",
        "/events?topic=chat/*",
        "/events/*",
        // Three patterns match, and the event still comes once.
        "/events/chat/1?topic=chat/*&topic=*",
        "/events?topic=news&topic=chat/2",
        "/events/a*b",
    ];
    let mut streams: Vec<_> = subscriptions
        .iter()
        .map(|target| Stream::subscribe(address(&server), target))
        .collect();
    let rows = [
        ("/events", "0 1 2 3 4 5 6 7"),
        ("/events/chat/1", "1 3 4 5"),
        ("/events?topic=chat/1", "1 3 4 5"),
        ("/events/chat/10", "3 4 5"),
        ("/events/chat/", "3 4 5"),
        ("/events/chat", "4 5"),
        ("/events/Chat/1", "2 4 5"),
        ("/events/CHAT/1", "4 5"),
        ("/events/chat/2", "3 4 5 6"),
        ("/events/news", "4 5 6"),
        ("/events//news", "4 5"),
        ("/events/a*b", "4 5 7"),
        ("/events/axb", "4 5"),
        ("/broadcast", "0 1 2 3 4 5 6 7"),
        ("/broadcast?topic=news", "4 5 6"),
        ("/send", "0 1 2 3 4 5 6 7"),
        ("/send?topic=chat/2", "3 4 5 6"),
    ];
    for (number, (target, reached)) in rows.iter().enumerate() {
        let answer = post(address(&server), target, format!("{{\"n\":{number}}}"));
        assert_eq!(
            number_after(answer.text(), "\"recipients\":"),
            reached.split(' ').count() as u64,
            "{target}"
        );
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        for (number, (target, reached)) in rows.iter().enumerate() {
            if reached.split(' ').any(|own| own == index.to_string()) {
                let expected = format!("{{\"n\":{number}}}");
                let subscription = subscriptions[index];
                assert_eq!(stream.next().data, expected, "{target} to {subscription}");
            }
        }
    }
    // A replay selects events in the same way.
    for (index, subscription) in subscriptions.iter().enumerate() {
        let sign = if subscription.contains('?') { '&' } else { '?' };
        let target = format!("{subscription}{sign}last_event_id=earliest");
        let mut stream = Stream::subscribe(address(&server), &target);
        let own = |(_, reached): &&(_, &str)| reached.split(' ').any(|n| n == index.to_string());
        assert_eq!(
            number_after(&stream.next().data, "\"replayed\":"),
            rows.iter().filter(own).count() as u64,
            "{target}"
        );
    }
}

#[test]
fn broadcast_publishes_the_object_as_data_and_takes_the_name_from_its_member_event() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for (body, bytes) in [
        (r#"{}"#, "data: {}\n\n"),
        (
            r#"{"event":"tick","n":1}"#,
            "event: tick\ndata: {\"event\":\"tick\",\"n\":1}\n\n",
        ),
        (
            r#"{"\u0065vent":"\u0434\ud83e\udd80\/"}"#,
            "event: д🦀/\ndata: {\"\\u0065vent\":\"\\u0434\\ud83e\\udd80\\/\"}\n\n",
        ),
        (r#"{"event":""}"#, "event: \ndata: {\"event\":\"\"}\n\n"),
        // A value that is not a string is not a name.
        (r#"{"event":7}"#, "data: {\"event\":7}\n\n"),
        (r#"{"event":null}"#, "data: {\"event\":null}\n\n"),
        // The last of equal members counts, as in JavaScript. The data has all of them.
        (
            r#"{"event":"a","event":"b"}"#,
            "event: b\ndata: {\"event\":\"a\",\"event\":\"b\"}\n\n",
        ),
        // A member of an inner object does not count.
        (
            r#"{"a":{"event":"in"},"b":["event","x"]}"#,
            "data: {\"a\":{\"event\":\"in\"},\"b\":[\"event\",\"x\"]}\n\n",
        ),
        // White space is removed. The order stays, and so does every byte of numbers and
        // strings.
        (
            "\r\n{ \"z\" :\t1.0 , \"a\" : [ -0, 1E+2, 12345678901234567890.10 ] ,\n \" k \" : \" \\u0041 \\/ \" }\n",
            "data: {\"z\":1.0,\"a\":[-0,1E+2,12345678901234567890.10],\" k \":\" \\u0041 \\/ \"}\n\n",
        ),
        (
            "{\"a\":\"\u{2028}\u{7f}\"}",
            "data: {\"a\":\"\u{2028}\u{7f}\"}\n\n",
        ),
        (r#"{"_event":"kept"}"#, "data: {\"_event\":\"kept\"}\n\n"),
    ] {
        assert_arrives(&server, "/broadcast", body, &mut stream, bytes);
    }
}

/// Publishes `body` and checks that the stream gets `bytes` with the id of the answer.
#[track_caller]
fn assert_arrives(server: &Running, target: &str, body: &str, stream: &mut Stream, bytes: &str) {
    let answer = post(address(server), target, body);
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    let id = id_in(&answer);
    assert_eq!(next_bytes(stream), format!("id: {id}\n{bytes}"), "{body}");
}

#[test]
fn send_takes_the_member_event_out_of_the_object_and_uses_it_as_the_name() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for (body, bytes) in [
        (r#"{}"#, "data: {}\n\n"),
        (r#"{"_event":"tick"}"#, "event: tick\ndata: {}\n\n"),
        (
            r#"{ "_event" : "tick" , "n" : 1.50 }"#,
            "event: tick\ndata: {\"n\":1.50}\n\n",
        ),
        (
            r#"{"a":1,"_event":"tick","b":2}"#,
            "event: tick\ndata: {\"a\":1,\"b\":2}\n\n",
        ),
        (
            r#"{"a":1,"_event":"tick"}"#,
            "event: tick\ndata: {\"a\":1}\n\n",
        ),
        // A key may be written with escapes.
        (
            r#"{"\u005Fe\u0076ent":"\u0442ик","a":"\u005f"}"#,
            "event: тик\ndata: {\"a\":\"\\u005f\"}\n\n",
        ),
        // The last of equal members counts. The data has none of them.
        (
            r#"{"_event":"a","n":1,"\u005fevent":"b"}"#,
            "event: b\ndata: {\"n\":1}\n\n",
        ),
        (
            r#"{"n":1,"n":2,"_event":"a"}"#,
            "event: a\ndata: {\"n\":1,\"n\":2}\n\n",
        ),
        // Members of inner objects, and values, do not count.
        (
            r#"{"a":{"_event":"in"},"b":"_event","c":[{"_event":1}]}"#,
            "data: {\"a\":{\"_event\":\"in\"},\"b\":\"_event\",\"c\":[{\"_event\":1}]}\n\n",
        ),
        (r#"{"event":"kept"}"#, "data: {\"event\":\"kept\"}\n\n"),
        (r#"{"_event ":"kept"}"#, "data: {\"_event \":\"kept\"}\n\n"),
        (r#"{"":0,"_event":"a"}"#, "event: a\ndata: {\"\":0}\n\n"),
    ] {
        assert_arrives(&server, "/send", body, &mut stream, bytes);
    }
}

#[test]
fn each_line_of_an_ndjson_body_is_an_event_and_the_answer_has_all_their_ids() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events/t");
    let kind = "Content-Type: application/x-ndjson; charset=UTF-8\r\n";
    for (target, body, events) in [
        ("/events", "1", &["data: 1\n\n"][..]),
        (
            "/events",
            "{ \"a\" : 1.0 }\n[ ]\r\n\n \t\n\"\u{2028}\"\n",
            &[
                "data: {\"a\":1.0}\n\n",
                "data: []\n\n",
                "data: \"\u{2028}\"\n\n",
            ],
        ),
        (
            "/events/t?event=row&retry=900",
            "null\ntrue",
            &[
                "event: row\nretry: 900\ndata: null\n\n",
                "event: row\nretry: 900\ndata: true\n\n",
            ],
        ),
        (
            "/events?topic=t",
            "{\"_event\":\"x\",\"event\":\"y\"}\n",
            &["data: {\"_event\":\"x\",\"event\":\"y\"}\n\n"],
        ),
    ] {
        let answer = request(address(&server), "POST", target, kind, body);
        let mut ids = Vec::new();
        for event in events {
            // Several events may come in one chunk.
            let message = stream.next();
            let expected = format!("id: {}\n{event}", message.last_event_id);
            let so_far = String::from_utf8_lossy(&stream.bytes);
            assert!(
                so_far.contains(&expected),
                "{body:?}: no {expected:?} in {so_far:?}"
            );
            ids.push(format!("\"{}\"", message.last_event_id));
        }
        let expected = format!(
            "{{\"status\":\"ok\",\"ids\":[{}],\"recipients\":1}}\n",
            ids.join(",")
        );
        assert_eq!(
            (answer.status, answer.text()),
            (200, &*expected),
            "{body:?}"
        );
    }
}

#[test]
fn an_event_for_one_client_reaches_only_this_client_and_is_not_in_the_history() {
    let server = server(without_heartbeats());
    let mut own = Stream::subscribe(address(&server), "/events?client_id=A.b_c-1");
    let mut other = Stream::subscribe(address(&server), "/events?client_id=a.b_c-1");
    for (target, body, bytes) in [
        ("/clients/A.b_c-1", "psst", "data: psst\n\n"),
        ("/clients/A.b_c-1", "", "data: \n\n"),
        (
            "/clients/%41.b_c-1?event=шёпот&retry=1000",
            "a\r\nb\n",
            "event: шёпот\nretry: 1000\ndata: a\ndata: b\ndata: \n\n",
        ),
    ] {
        let answer = post(address(&server), target, body);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let expected = format!(
            "{{\"status\":\"ok\",\"id\":\"{}\",\"recipients\":1}}\n",
            id_in(&answer)
        );
        assert_eq!(answer.text(), expected, "{target}");
        // The event has no id: the history does not hold it, so its id must not become a
        // cursor.
        assert_eq!(next_bytes(&mut own), bytes, "{target}");
    }
    post(address(&server), "/events", "for both");
    assert_eq!(other.next().data, "for both");
    let mut late = Stream::subscribe(address(&server), "/events?last_event_id=earliest");
    assert_eq!(number_after(&late.next().data, "\"replayed\":"), 1);
    assert_eq!(late.next().data, "for both");
}

#[test]
fn delete_ends_a_clients_stream_with_a_close_event_and_a_second_delete_is_a_404() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events?client_id=me");
    let answer = request(address(&server), "DELETE", "/clients/%6De", "", "");
    assert_eq!(
        (answer.status, answer.field("content-type"), answer.text()),
        (200, Some("application/json"), "{\"status\":\"ok\"}\n")
    );
    assert_eq!(stream.try_next(), None);
    assert_eq!(stream.closed.as_deref(), Some("kicked"));
    assert!(
        stream
            .bytes
            .ends_with(b"data: {\"type\":\"closed\",\"reason\":\"kicked\"}\n\n")
    );
    let answer = request(address(&server), "DELETE", "/clients/me", "", "");
    assert_error(&answer, 404, r#"no client has the id \"me\""#, "once more");
}

// ---- publications that are refused

/// An invalid request: method, target, fields, body, and the status and a part of the
/// answer.
type Row<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, &'a str);

#[test]
fn an_invalid_publication_is_answered_with_the_reason_and_reaches_no_client() {
    let server = server(Config {
        max_body: 2000,
        ..without_heartbeats()
    });
    let mut stream = Stream::subscribe(address(&server), "/events/*?client_id=me");
    let long = "x".repeat(256);
    let (long_id, long_name) = (
        format!("/events?id={long}"),
        format!("/events?event={long}"),
    );
    let (long_in_path, long_in_query) = (format!("/events/{long}"), format!("/send?topic={long}"));
    let deep = "[".repeat(129);
    let deep = format!("{{\"a\":{deep}");
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    #[rustfmt::skip]
    let rows: &[Row] = &[
        // Topics.
        ("POST", "/events/", "", b"x", 400, "topic is empty"),
        ("POST", "/events?topic=", "", b"x", 400, "topic is empty"),
        ("POST", "/events/chat/*", "", b"x", 400, r#"topic \"chat/*\" ends in *: this is a pattern"#),
        ("POST", "/events?topic=*", "", b"x", 400, "this is a pattern"),
        ("POST", "/broadcast?topic=a%2A", "", b"{}", 400, "this is a pattern"),
        ("POST", "/send?topic=a*", "", b"{}", 400, "this is a pattern"),
        ("POST", &long_in_path, "", b"x", 400, "topic has 256 bytes, at most 255 are allowed"),
        ("POST", &long_in_query, "", b"{}", 400, "topic has 256 bytes, at most 255 are allowed"),
        ("POST", "/events/a%0Ab", "", b"x", 400, r"topic has the control character '\\n' at byte 1"),
        ("POST", "/events?topic=a%0D", "", b"x", 400, r"control character '\\r' at byte 1"),
        ("POST", "/events/%7F", "", b"x", 400, "control character"),
        ("POST", "/events/%C2%85", "", b"x", 400, "control character"),
        ("POST", "/events?topic=a&topic=b", "", b"x", 400, r#"an event has one topic, and \"b\" is a second one"#),
        ("POST", "/events/a?topic=b", "", b"x", 400, "one topic"),
        ("POST", "/events/a?topic=a", "", b"x", 400, "one topic"),
        ("POST", "/broadcast?topic=a&topic=b", "", b"{}", 400, "one topic"),
        ("POST", "/send?topic=a&topic=b", "", b"{}", 400, "one topic"),
        // A line break in a value would begin a new field.
        ("POST", "/events?event=a%0Adata:b", "", b"x", 400, r"event has '\\n' at byte 1"),
        ("POST", "/events?event=a%0D", "", b"x", 400, r"event has '\\r' at byte 1"),
        ("POST", "/events?id=%0A", "", b"x", 400, r"id has '\\n' at byte 0"),
        ("POST", "/events?id=1%0D%0Aevent:x", "", b"x", 400, r"id has '\\r' at byte 1"),
        ("POST", "/events?id=", "", b"x", 400, "id is empty"),
        ("POST", "/events?id=%20a", "", b"x", 400, r"id has ' ' at byte 0: only visible ASCII, ! to ~, is allowed"),
        ("POST", "/events?id=a%20b", "", b"x", 400, r"id has ' ' at byte 1"),
        ("POST", "/events?id=%D1%8F", "", b"x", 400, r"id has 'я' at byte 0"),
        ("POST", "/events?id=a%7F", "", b"x", 400, "only visible ASCII"),
        ("POST", &long_id, "", b"x", 400, "id has 256 bytes, at most 255 are allowed"),
        ("POST", &long_name, "", b"x", 400, "event has 256 bytes, at most 255 are allowed"),
        ("POST", &long_name, ndjson, b"1", 400, "event has 256 bytes"),
        ("POST", "/events?event=system", "", b"x", 400, r#"event is \"system\", which is reserved for the server"#),
        ("POST", "/events/a?event=recovery", "", b"x", 400, "the reserved names are system, recovery, heartbeat"),
        ("POST", "/events?event=heartbeat", "", b"x", 400, r#"event is \"heartbeat\""#),
        ("POST", "/events?event=%20system", "", b"x", 400, r#"event is \"system\""#),
        ("POST", "/events?event=system", ndjson, b"1\n2", 400, r#"event is \"system\""#),
        ("POST", "/clients/me?event=system", "", b"x", 400, r#"event is \"system\""#),
        ("POST", "/broadcast", "", br#"{"event":"recovery"}"#, 400, r#"event is \"recovery\""#),
        ("POST", "/broadcast", "", br#"{"event":"recover\u0079"}"#, 400, r#"event is \"recovery\""#),
        ("POST", "/send", "", br#"{"_event":"heartbeat"}"#, 400, r#"event is \"heartbeat\""#),
        ("POST", "/events?id=a%09b", "", b"x", 400, r"id has '\\t' at byte 1"),
        ("POST", "/events?id=1795326000123-0", "", b"x", 400, "the form of the server's own ids"),
        ("POST", "/clients/me?event=a%0Ab", "", b"x", 400, "event has"),
        ("POST", "/broadcast", "", br#"{"event":"a\nb"}"#, 400, r"event has '\\n' at byte 1"),
        ("POST", "/broadcast", "", br#"{"event":"a\u000d"}"#, 400, r"event has '\\r' at byte 1"),
        ("POST", "/broadcast", "", br#"{"event":"a\u0000"}"#, 400, r"event has '\\0' at byte 1"),
        ("POST", "/send", "", br#"{"_event":"a\nb"}"#, 400, r"event has '\\n' at byte 1"),
        ("POST", "/send", "", br#"{"_event":"\u0000"}"#, 400, r"event has '\\0' at byte 0"),
        ("POST", "/send", "", br#"{"\u005fevent":"\r"}"#, 400, r"event has '\\r' at byte 0"),
        // Parameters whose encoding is broken.
        ("POST", "/events?event=%00", "", b"x", 400, "NUL"),
        ("POST", "/events?id=a%00b", "", b"x", 400, "NUL"),
        ("POST", "/events?topic=%ff", "", b"x", 400, "it is not UTF-8"),
        ("POST", "/events?event=%4", "", b"x", 400, "% is not followed by two hexadecimal digits"),
        ("POST", "/events?event=%+1", "", b"x", 400, "% is not followed by two hexadecimal digits"),
        ("POST", "/clients/me?event=%ff", "", b"x", 400, "the parameter event: it is not UTF-8"),
        ("POST", "/broadcast?topic=%", "", b"{}", 400, "the parameter topic: %"),
        ("GET", "/events?topic=%zz", "", b"", 400, "the parameter topic: % is not followed"),
        ("GET", "/events?client_id=%ff", "", b"", 400, "the parameter client_id: it is not UTF-8"),
        ("GET", "/poll?wait=1%", "", b"", 400, "the parameter wait: %"),
        ("GET", "/stats?clients=%00", "", b"", 400, "the parameter clients: it has a NUL"),
        // Names that are not strings.
        ("POST", "/send", "", br#"{"_event":7}"#, 400, r#"the member \"_event\" must be a string"#),
        ("POST", "/send", "", br#"{"_event":null}"#, 400, r#"the member \"_event\" must be a string"#),
        ("POST", "/send", "", br#"{"_event":"a","_event":{}}"#, 400, r#"the member \"_event\" must be a string"#),
        ("POST", "/send", "", br#"{"_event":"\ud800"}"#, 400, r#"the member \"_event\" must be a string of Unicode text"#),
        ("POST", "/broadcast", "", br#"{"event":"\udc00\ud800"}"#, 400, r#"the member \"event\" must be a string of Unicode text"#),
        // Numbers that are invalid or out of range.
        ("POST", "/events?retry=", "", b"x", 400, r#"retry is \"\", it must be from 100 to 86400000 milliseconds, in digits"#),
        ("POST", "/events?retry=0", "", b"x", 400, r#"retry is \"0\""#),
        ("POST", "/events?retry=99", "", b"x", 400, "from 100 to 86400000"),
        ("POST", "/events?retry=86400001", "", b"x", 400, "from 100 to 86400000"),
        ("POST", "/events?retry=99", ndjson, b"1", 400, "from 100 to 86400000"),
        ("POST", "/events?retry=-1", "", b"x", 400, r#"retry is \"-1\""#),
        ("POST", "/events?retry=+1", "", b"x", 400, r#"retry is \" 1\""#),
        ("POST", "/events?retry=%2B1", "", b"x", 400, r#"retry is \"+1\""#),
        ("POST", "/events?retry=5s", "", b"x", 400, r#"retry is \"5s\""#),
        ("POST", "/events?retry=18446744073709551616", "", b"x", 400, "retry is"),
        ("POST", "/clients/me?retry=x", "", b"x", 400, "retry is"),
        ("POST", "/clients/me?id=1", "", b"x", 400, "not kept, so it cannot have an id"),
        // Bodies that are not text.
        ("POST", "/events", "", b"ab\xff", 400, "the body is not UTF-8: byte 2"),
        ("POST", "/events", "", b"\xed\xa0\x80", 400, "the body is not UTF-8: byte 0"),
        ("POST", "/events", "", b"a\xc3", 400, "the body is not UTF-8: byte 1"),
        ("POST", "/broadcast", "", b"{\"a\":\"\xff\"}", 400, "the body is not UTF-8: byte 6"),
        ("POST", "/send", "", b"\xfe", 400, "the body is not UTF-8: byte 0"),
        ("POST", "/clients/me", "", b"\x80", 400, "the body is not UTF-8: byte 0"),
        ("POST", "/events", ndjson, b"1\n\"\xff\"", 400, "the body is not UTF-8: byte 3"),
        // Bodies with another charset, format or coding.
        ("POST", "/events", "Content-Type: text/plain; charset=windows-1251\r\n", b"x", 415, r#"the charset is \"windows-1251\", only \"utf-8\" is understood"#),
        ("POST", "/events", "content-type: text/plain;format=flowed;CHARSET=\"ISO-8859-1\"\r\n", b"x", 415, "iso-8859-1"),
        ("POST", "/broadcast", "Content-Type: application/json; charset=utf-16\r\n", b"{}", 415, "utf-16"),
        ("POST", "/send", "Content-Type: application/json;charset=latin1\r\n", b"{}", 415, "latin1"),
        ("POST", "/clients/me", "Content-Type: text/plain;charset=koi8-r\r\n", b"x", 415, "koi8-r"),
        ("POST", "/events", "Content-Type: multipart/form-data; boundary=x\r\n", b"--x--", 415, "the body is multipart/form-data, and its boundaries would be published with its parts: send the data itself as the body (curl --data-binary @FILE"),
        ("POST", "/events/a", "Content-Type: Multipart/Form-Data;boundary=x\r\n", b"--x--", 415, "--data-binary"),
        ("POST", "/broadcast", "Content-Type: multipart/form-data; boundary=x\r\n", b"{}", 415, "--data-binary"),
        ("POST", "/send", "Content-Type: multipart/mixed; boundary=x\r\n", b"{}", 415, "--data-binary"),
        ("POST", "/clients/me", "Content-Type: multipart/form-data\r\n", b"x", 415, "--data-binary"),
        ("POST", "/events", "Content-Encoding: gzip\r\n", b"\x1f\x8b", 415, r#"Content-Encoding is \"gzip\", only \"identity\" is understood"#),
        ("POST", "/broadcast", "Content-Encoding: br\r\n", b"{}", 415, r#"Content-Encoding is \"br\""#),
        ("POST", "/send", "Content-Encoding: identity, deflate\r\n", b"{}", 415, "deflate"),
        ("POST", "/clients/me", "Content-Encoding: zstd\r\n", b"x", 415, "zstd"),
        ("POST", "/events", "Content-Encoding: gzip\r\nContent-Encoding: br\r\n", b"x", 400, "more than once"),
        ("POST", "/events", "Content-Type: text/plain\r\nContent-Type: text/html\r\n", b"x", 400, "more than once"),
        // Bodies that are not JSON, or not an object.
        ("POST", "/broadcast", "", b"", 400, "not JSON: the text ends too early at byte 0"),
        ("POST", "/broadcast", "", b"hello", 400, "not JSON: unexpected 'h' at byte 0"),
        ("POST", "/broadcast", "", b"[]", 400, "the body is JSON, but not an object"),
        ("POST", "/broadcast", "", b"\"{}\"", 400, "the body is JSON, but not an object"),
        ("POST", "/broadcast", "", b"{}{}", 400, "not JSON: unexpected '{' at byte 2"),
        ("POST", "/broadcast", "", b"{\"a\":1,}", 400, "not JSON: unexpected '}' at byte 7"),
        ("POST", "/broadcast", "", b"{\"a\":01}", 400, "not JSON: unexpected '1' at byte 6"),
        ("POST", "/broadcast", "", b"{\"a\":NaN}", 400, "not JSON: unexpected 'N' at byte 5"),
        ("POST", "/broadcast", "", b"{\"a\":\"\n\"}", 400, r"not JSON: unescaped control character '\\n' in a string at byte 6"),
        ("POST", "/broadcast", "", b"{\"a\":\"\\x\"}", 400, "not JSON: 'x' after a backslash at byte 7"),
        ("POST", "/broadcast", "", "\u{feff}".as_bytes(), 400, "not JSON: the text ends too early at byte 0"),
        ("POST", "/broadcast", "", "\u{feff}\u{feff}{}".as_bytes(), 400, "not JSON: unexpected"),
        ("POST", "/broadcast", "", "{\u{feff}}".as_bytes(), 400, "not JSON: unexpected"),
        ("POST", "/events", ndjson, "\u{feff}\n".as_bytes(), 400, "the body has no line that is not empty"),
        ("POST", "/broadcast", "", deep.as_bytes(), 400, "not JSON: nested deeper than 128 levels"),
        ("POST", "/send", "", b"null", 400, "the body is JSON, but not an object"),
        ("POST", "/send", "", b"{\"_event\":\"a\"", 400, "not JSON: the text ends too early at byte 13"),
        ("POST", "/send", "", b"{'_event':1}", 400, r"not JSON: unexpected '\\'' at byte 1"),
        // NDJSON: one invalid line rejects all lines.
        ("POST", "/events", ndjson, b"", 400, "the body has no line that is not empty"),
        ("POST", "/events", ndjson, b"\n \r\n", 400, "the body has no line that is not empty"),
        ("POST", "/events", ndjson, b"1\n2\n{\n4", 400, "line 3: not JSON: the text ends too early at byte 1; nothing was published"),
        ("POST", "/events", ndjson, b"1\n\n2 3\n", 400, "line 3: not JSON: unexpected '3' at byte 2; nothing was published"),
        ("POST", "/events/t", ndjson, b"oops\n1", 400, "line 1: not JSON: unexpected 'o' at byte 0; nothing was published"),
        ("POST", "/events?id=1", ndjson, b"1\n2", 400, "the parameter id cannot be used with NDJSON"),
        ("POST", "/events?event=%0A", ndjson, b"1\n2", 400, "event has"),
        ("POST", "/events?topic=a&topic=b", ndjson, b"1\n2", 400, "one topic"),
        ("POST", "/events", "Content-Type: application/x-ndjson;charset=utf-16\r\n", b"1", 415, "utf-16"),
        // Clients that are not connected.
        ("POST", "/clients/nobody", "", b"x", 404, r#"no client has the id \"nobody\""#),
        ("POST", "/clients/Me", "", b"x", 404, r#"no client has the id \"Me\""#),
        ("POST", "/clients/a%20b", "", b"x", 404, r#"client_id is \"a b\", it must be 1 to 64 of"#),
        ("DELETE", "/clients/nobody", "", b"", 404, r#"no client has the id \"nobody\""#),
        ("DELETE", "/clients/%D1%8F", "", b"", 404, "it must be 1 to 64 of"),
        ("DELETE", "/clients/a/b", "", b"", 404, "it must be 1 to 64 of"),
        ("DELETE", "/clients/", "", b"", 404, "/clients/ is not here; GET / lists the endpoints"),
    ];
    for (method, target, fields, body, status, part) in rows {
        let row = format!(
            "{method} {target} {fields:?} {:?}",
            String::from_utf8_lossy(body)
        );
        let answer = request(address(&server), method, target, fields, body);
        assert_error(&answer, *status, part, &row);
    }
    let before = stream.bytes.len();
    let answer = post(address(&server), "/events", "the first of all");
    stream.next();
    assert_eq!(
        String::from_utf8_lossy(&stream.bytes[before..]),
        format!("id: {}\ndata: the first of all\n\n", id_in(&answer))
    );
    let stats = get(address(&server), "/stats");
    assert_eq!(number_after(stats.text(), "\"total_events\":"), 1);
    assert_eq!(number_after(stats.text(), "\"active_connections\":"), 1);
}

#[test]
fn all_media_types_of_json_lines_publish_one_event_for_each_line() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for media_type in [
        "application/x-ndjson",
        "application/ndjson",
        "Application/X-NDJSON; charset=utf-8",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines;charset=\"UTF-8\"",
        "application/json-lines",
        "application/x-json-lines",
        "application/x-json-stream",
        "application/stream+json",
        "application/x-ldjson",
        "application/vnd.elasticsearch+x-ndjson; compatible-with=8",
        "text/x-ndjson",
        "text/jsonl ; a=b",
    ] {
        let fields = format!("Content-Type: {media_type}\r\n");
        // An editor leaves a byte order mark at the beginning, and `cat a b` leaves one
        // in the middle.
        for (body, data) in [("1\n{ }", "{}"), ("\u{feff}1\n\u{feff}2\n", "2")] {
            let answer = request(address(&server), "POST", "/events", &fields, body);
            assert_eq!(answer.status, 200, "{media_type}: {answer:?}");
            assert_eq!(stream.next().data, "1", "{media_type}");
            assert_eq!(stream.next().data, data, "{media_type}");
        }
    }
}

#[test]
fn a_body_of_any_other_media_type_is_published_unchanged() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for media_type in [
        // `curl -d` sends this type for any data.
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=UTF-8",
        "application/json",
        "application/octet-stream",
        "application/json-seq",
        "application/x-ndjson-not",
        "x-ndjson",
        "text/plain;charset=us-ascii",
        "",
    ] {
        let fields = format!("Content-Type: {media_type}\r\n");
        for body in ["a=1&b=%20", "\u{feff}x", ""] {
            let answer = request(address(&server), "POST", "/events", &fields, body);
            assert_eq!(answer.status, 200, "{media_type}: {answer:?}");
            assert_eq!(stream.next().data, body, "{media_type}");
        }
    }
}

#[test]
fn a_byte_order_mark_before_json_is_ignored() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for (path, data) in [
        ("/broadcast", r#"{"event":"a","_event":"b"}"#),
        ("/send", r#"{"event":"a"}"#),
    ] {
        let body = "\u{feff} {\"event\":\"a\", \"_event\":\"b\"}";
        assert_eq!(post(address(&server), path, body).status, 200, "{path}");
        assert_eq!(stream.next().data, data, "{path}");
    }
}

#[test]
fn one_request_may_publish_a_bounded_number_of_bytes_and_a_larger_one_publishes_nothing() {
    let server = server(Config {
        max_body: 64 << 10,
        max_target: 4000,
        ..without_heartbeats()
    });
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    let (name, topic) = ("n".repeat(255), "t".repeat(255));
    let lines = |count: usize| "1\n".repeat(count);
    // LIMIT: four times --max-body, 262,144 bytes.
    #[rustfmt::skip]
    let rows: &[(String, &str, String, u16)] = &[
        // Each event counts 208 bytes: its line, its field, and a fixed cost.
        ("/events".into(), ndjson, lines(1260), 200),
        ("/events".into(), ndjson, lines(1261), 413),
        // Its name and its topic count, too.
        (format!("/events?event={name}"), ndjson, lines(566), 200),
        (format!("/events?event={name}"), ndjson, lines(567), 413),
        (format!("/events/{topic}"), ndjson, lines(567), 413),
        (format!("/events/{topic}?event={name}"), ndjson, lines(365), 200),
        (format!("/events/{topic}?event={name}"), ndjson, lines(366), 413),
        // Each line of data is a field, so a line break counts eight bytes.
        ("/events".into(), "", "\n".repeat(32_740), 200),
        ("/events".into(), "", "\n".repeat(32_743), 413),
        ("/events/a".into(), "", "\r".repeat(40_000), 413),
        ("/clients/me".into(), "", "\n".repeat(40_000), 413),
        // These become hardly longer, so only the limit of a body counts.
        ("/events".into(), "", "x".repeat(64 << 10), 200),
        ("/broadcast".into(), "", format!("{{\"a\":\"{}\"}}", "\\n".repeat(32_000)), 200),
    ];
    let _stream = Stream::subscribe(address(&server), "/events/none?client_id=me");
    let mut published = 0;
    for (target, fields, body, status) in rows {
        let row = format!(
            "{} and {} bytes",
            &target[..target.len().min(20)],
            body.len()
        );
        let answer = request(address(&server), "POST", target, fields, body);
        assert_eq!(answer.status, *status, "{row}: {answer:?}");
        if *status == 200 {
            let lines = body.lines().count();
            published += if fields.is_empty() { 1 } else { lines };
        } else {
            for part in [
                "the limit is 262144 bytes (four times --max-body",
                "nothing was published",
            ] {
                assert!(answer.text().contains(part), "{row}: {answer:?}");
            }
        }
        let stats = get(address(&server), "/stats");
        assert_eq!(
            number_after(stats.text(), "\"total_events\":"),
            published as u64,
            "{row}"
        );
    }
}

#[test]
fn the_answer_to_a_preflight_allows_the_fields_that_it_asks_for() {
    let server = server(without_heartbeats());
    let usual = "Authorization, Cache-Control, Content-Type, Last-Event-ID";
    let (long, longer) = ("x".repeat(4096), "x".repeat(4097));
    for (asked, allowed) in [
        ("hx-request,hx-current-url", "hx-request,hx-current-url"),
        (
            "Datastar-Request, traceparent ,baggage",
            "Datastar-Request, traceparent ,baggage",
        ),
        ("x!#$%&'*+-.^_`|~", "x!#$%&'*+-.^_`|~"),
        (&long, &*long),
        // A value that no browser sends is not repeated in the answer.
        ("", usual),
        (",", usual),
        ("a,,b", usual),
        ("a b", usual),
        ("a;b", usual),
        ("a:b", usual),
        ("\"a\"", usual),
        ("а", usual),
        (&longer, usual),
        ("a\r\nAccess-Control-Request-Headers: b", usual),
    ] {
        for target in ["/events/a", "/poll", "/clients/me", "/broadcast"] {
            let fields = format!(
                "Origin: http://elsewhere\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: {asked}\r\n"
            );
            let answer = request(address(&server), "OPTIONS", target, &fields, "");
            let field = |name| answer.field(name);
            assert_eq!(answer.status, 204, "{target} {asked}: {answer:?}");
            assert_eq!(
                field("access-control-allow-headers"),
                Some(allowed),
                "{asked}"
            );
            assert_eq!(field("vary"), Some("Access-Control-Request-Headers"));
        }
    }
    let answer = request(address(&server), "OPTIONS", "/events", "", "");
    assert_eq!(answer.field("access-control-allow-headers"), Some(usual));
    assert_eq!(answer.field("vary"), Some("Access-Control-Request-Headers"));
}

#[test]
fn a_request_with_a_misspelt_parameter_is_refused_and_publishes_nothing() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events/*?client_id=me");
    let of_events = "POST has only topic, event, id, retry here";
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("POST", "/events?topics=ops", "", b"x", 400, r#"the parameter \"topics\" is not known: POST has only topic, event, id, retry here; use topic"#),
        ("POST", "/events?topic[]=ops", "", b"x", 400, "use topic"),
        ("POST", "/events?topic%5B0%5D=ops", "", b"x", 400, "use topic"),
        ("POST", "/events?Topic=ops", "", b"x", 400, "use topic"),
        ("POST", "/events?channel=ops", "", b"x", 400, "use topic"),
        ("POST", "/events?Channels=ops", "", b"x", 400, "use topic"),
        ("POST", "/events?topic=ops&topics=dev", "", b"x", 400, "use topic"),
        ("POST", "/events/ops?events=tick", "", b"x", 400, "use event"),
        ("POST", "/events?room=ops", "", b"x", 400, of_events),
        ("POST", "/events?ops", "", b"x", 400, r#"the parameter \"ops\" is not known"#),
        ("POST", "/events?=ops", "", b"x", 400, r#"the parameter \"\" is not known"#),
        ("POST", "/events?%zz=ops", "", b"x", 400, r#"the parameter \"%zz\" is not known"#),
        ("POST", "/events?last_event_id=1", "", b"x", 400, of_events),
        ("POST", "/events?clients=1", "", b"x", 400, of_events),
        ("POST", "/events?utm_source=a", "", b"x", 400, of_events),
        ("POST", "/broadcast?topics=ops", "", b"{}", 400, "POST has only topic here; use topic"),
        ("POST", "/broadcast?event=tick", "", b"{}", 400, "POST has only topic here"),
        ("POST", "/send?TOPIC=ops", "", b"{}", 400, "POST has only topic here; use topic"),
        ("POST", "/send?id=1", "", b"{}", 400, "POST has only topic here"),
        ("POST", "/clients/me?topic=ops", "", b"x", 400, "POST has only event, retry here"),
        ("POST", "/clients/me?Event=a", "", b"x", 400, "use event"),
        ("DELETE", "/clients/me?force=1", "", b"", 400, "DELETE has no parameters here"),
        ("DELETE", "/clients/me?topic=a", "", b"", 400, "DELETE has no parameters here"),
        // A parameter that may occur once occurs twice.
        ("POST", "/events?event=a&event=b", "", b"x", 400, "the parameter event is there more than once"),
        ("POST", "/events/a?id=1&id=1", "", b"x", 400, "the parameter id is there more than once"),
        ("POST", "/events?retry=1000&%72etry=1000", "", b"x", 400, "the parameter retry is there more than once"),
        ("POST", "/clients/me?event=a&event=", "", b"x", 400, "the parameter event is there more than once"),
        // A request that only reads is refused if a name resembles one of its parameters.
        ("GET", "/events?topics=ops", "", b"", 400, "use topic"),
        ("GET", "/events/a?topic[]=ops", "", b"", 400, "use topic"),
        ("GET", "/events?Topic=ops", "", b"", 400, "use topic"),
        ("GET", "/events?channel=ops", "", b"", 400, "use topic"),
        ("GET", "/events?a=b&channels=ops", "", b"", 400, "use topic"),
        ("GET", "/events?clientId=me", "", b"", 400, "use client_id"),
        ("GET", "/poll?topics=ops", "", b"", 400, "use topic"),
        ("GET", "/poll?Wait=5", "", b"", 400, "use wait"),
        ("GET", "/stats?client=1", "", b"", 400, "use clients"),
        ("GET", "/stats?Clients=1", "", b"", 400, "use clients"),
        // A wrong method is reported before a wrong parameter.
        ("PUT", "/events?topics=ops", "", b"", 405, "PUT is not allowed here"),
        ("DELETE", "/events?topics=ops", "", b"", 405, "DELETE is not allowed here"),
        ("POST", "/poll?topics=ops", "", b"", 405, "POST is not allowed here"),
        ("POST", "/stats?clients[]=1", "", b"", 405, "POST is not allowed here"),
        ("GET", "/broadcast?topics=ops", "", b"", 405, "GET is not allowed here"),
    ];
    for (method, target, fields, body, status, part) in rows {
        let answer = request(address(&server), method, target, fields, body);
        assert_error(&answer, *status, part, &format!("{method} {target}"));
    }
    // The client `me` is still connected, and this is its first event.
    let answer = post(address(&server), "/events", "the first of all");
    assert_eq!(stream.next().data, "the first of all");
    assert_eq!(number_after(answer.text(), "\"recipients\":"), 1);
}

#[test]
fn a_get_ignores_unknown_parameters() {
    let server = server(without_heartbeats());
    for target in [
        "/events?utm_source=a&_=1763790000123",
        "/events?topic=a&utm=%zz",
        "/events?%ff=%00&topic=a",
        "/events?topical=a&my_topic=b",
        "/events/a?event",
    ] {
        let stream = Stream::subscribe(address(&server), target);
        assert_eq!(stream.head.status, 200, "{target}");
    }
    for target in [
        "/poll?_=1&utm=%zz",
        "/stats?pretty",
        "/stats?%zz",
        #[cfg(feature = "metrics")]
        "/metrics?clients[]=1",
        "/health?probe=%",
        "/health?topics=a",
    ] {
        assert_eq!(get(address(&server), target).status, 200, "{target}");
    }
    // Invalid escapes in unknown parameters do not affect the known ones.
    let mut stream = Stream::subscribe(address(&server), "/events?utm=%zz&topic=a&%=%");
    post(address(&server), "/events/a", "x");
    assert_eq!(stream.next().data, "x");
}

#[test]
fn bytes_that_are_not_a_valid_request_publish_nothing() {
    let server = server(Config {
        max_body: 10,
        max_target: 200,
        ..without_heartbeats()
    });
    let long = format!(
        "POST /events?event={} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(200)
    );
    #[rustfmt::skip]
    let rows: &[(&str, u16, &str)] = &[
        ("POST /events/a%00b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400, "NUL"),
        ("POST /events/%e2%80 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400, "it is not UTF-8"),
        ("POST /events/100% HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400, "% is not followed by two hexadecimal digits"),
        ("POST /events/../x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400, "the path has the segment"),
        ("POST /events/%2e%2E HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400, "the path has the segment"),
        ("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nhello world", 413, "the body is larger than 10 bytes"),
        ("POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nB\r\nhello world\r\n0\r\n\r\n", 413, "the body is larger than 10 bytes"),
        ("POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Transfer-Encoding is allowed neither"),
        (&long, 414, "the request target is longer than 200 bytes"),
    ];
    for (bytes, status, part) in rows {
        let mut raw = Raw::connect(address(&server));
        let answer = raw.send(bytes).answer();
        assert_eq!(answer.status, *status, "{bytes:?}: {answer:?}");
        assert_eq!(
            answer.field("content-type"),
            Some("application/json"),
            "{bytes:?}"
        );
        assert_eq!(answer.field("connection"), Some("close"), "{bytes:?}");
        assert!(
            answer.text().contains(part),
            "{bytes:?}: no {part:?} in {answer:?}"
        );
    }
    let stats = get(address(&server), "/stats");
    assert_eq!(number_after(stats.text(), "\"total_events\":"), 0);
}

#[test]
fn a_charset_or_content_coding_that_leaves_utf_8_bytes_unchanged_is_accepted() {
    let server = server(without_heartbeats());
    let mut stream = Stream::subscribe(address(&server), "/events");
    for fields in [
        "Content-Type: text/plain; charset=UTF-8\r\n",
        "Content-Type: text/plain;charset=\"utf-8\"\r\n",
        "Content-Type: text/plain ; charset=utf8\r\n",
        "Content-Type: text/plain;charset=us-ascii\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type:\r\n",
        "Content-Encoding: Identity\r\n",
        "Content-Encoding:  identity \r\n",
    ] {
        let answer = request(address(&server), "POST", "/events", fields, "что");
        assert_eq!(answer.status, 200, "{fields:?}: {answer:?}");
        assert_eq!(stream.next().data, "что", "{fields:?}");
    }
}

// ---- paths and methods

#[test]
fn each_path_answers_other_methods_with_a_405_and_options_with_the_methods_that_it_has() {
    let server = server(without_heartbeats());
    let (reading, writing) = ("GET, HEAD, OPTIONS", "POST, OPTIONS");
    let streams = "GET, HEAD, POST, OPTIONS";
    let clients = "POST, DELETE, OPTIONS";
    let known = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
    ];
    for (path, allow) in [
        ("/", reading),
        ("/health", reading),
        ("/stats", reading),
        #[cfg(feature = "metrics")]
        ("/metrics", reading),
        ("/poll", reading),
        ("/events", streams),
        ("/events/чат", streams),
        ("/events/a/b", streams),
        ("/broadcast", writing),
        ("/send", writing),
        ("/clients/me", clients),
        ("*", "OPTIONS"),
    ] {
        for method in known
            .iter()
            .filter(|known| !allow.split(", ").any(|own| own == **known))
        {
            let answer = request(address(&server), method, path, "", "");
            let row = format!("{method} {path}");
            assert_eq!(answer.field("allow"), Some(allow), "{row}");
            if *method == "HEAD" {
                assert_eq!(answer.status, 405, "{row}");
            } else {
                assert_error(
                    &answer,
                    405,
                    &format!("{method} is not allowed here, only {allow}"),
                    &row,
                );
            }
        }
        for method in ["BREW", "get", "QUERY", "M-SEARCH"] {
            let answer = request(address(&server), method, path, "", "");
            let row = format!("{method} {path}");
            assert_error(
                &answer,
                501,
                &format!("the method {method} is not implemented"),
                &row,
            );
        }
        let preflight = "Origin: http://elsewhere\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n";
        let answer = request(address(&server), "OPTIONS", path, preflight, "");
        let field = |name| answer.field(name);
        assert_eq!(
            (
                answer.status,
                field("allow"),
                field("access-control-allow-methods")
            ),
            (204, Some(allow), Some(allow)),
            "{path}"
        );
        assert_eq!(
            (
                field("access-control-allow-origin"),
                field("access-control-allow-headers"),
                field("access-control-max-age"),
            ),
            (Some("*"), Some("content-type"), Some("86400"),),
            "{path}"
        );
        assert_eq!(
            (field("content-length"), field("content-type")),
            (None, None),
            "{path}"
        );
    }
}

#[test]
fn an_unknown_path_is_a_404_that_refers_to_the_index() {
    let server = server(without_heartbeats());
    for (method, path, shown) in [
        ("GET", "/nothing", "/nothing"),
        ("POST", "/event", "/event"),
        ("GET", "/eventsource", "/eventsource"),
        ("GET", "/Events", "/Events"),
        ("GET", "/stats/", "/stats/"),
        ("GET", "//events", "//events"),
        ("POST", "/clients", "/clients"),
        ("POST", "/clients/", "/clients/"),
        ("DELETE", "/events2", "/events2"),
        ("OPTIONS", "/nothing", "/nothing"),
        ("GET", "/%D1%8F%22%0A", r#"/я\"\n"#),
    ] {
        let answer = request(address(&server), method, path, "", "");
        let part = format!("{shown} is not here; GET / lists the endpoints");
        assert_error(&answer, 404, &part, &format!("{method} {path}"));
    }
}

#[test]
fn health_stats_and_index_have_the_same_head_for_get_and_head_requests() {
    let server = server(without_heartbeats());
    for (path, kind, part) in [
        ("/health", "application/json", "{\"status\":\"ok\"}\n"),
        ("/health?x=y", "application/json", "{\"status\":\"ok\"}\n"),
        (
            "/stats",
            "application/json",
            "{\"active_connections\":0,\"max_connections\":1000,",
        ),
        (
            "/",
            "text/plain; charset=utf-8",
            "curl -N 'http://localhost/events'",
        ),
    ] {
        let full = get(address(&server), path);
        assert_eq!(
            (full.status, full.field("content-type")),
            (200, Some(kind)),
            "{path}"
        );
        assert_eq!(
            full.field("access-control-allow-origin"),
            Some("*"),
            "{path}"
        );
        assert!(full.text().contains(part), "{path}: {full:?}");
        let mut raw = Raw::connect(address(&server));
        raw.send(format!(
            "HEAD {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        let head = raw.head();
        assert_eq!(head.without_date().head, full.without_date().head, "{path}");
        assert!(raw.is_closed(), "{path}: the answer to HEAD has a body");
    }
    assert_eq!(
        get(address(&server), "/stats").field("cache-control"),
        Some("no-store")
    );
}

#[test]
fn stats_count_clients_events_topics_and_close_reasons() {
    let server = server(Config {
        max_clients: 7,
        ..without_heartbeats()
    });
    assert_eq!(
        get(address(&server), "/stats").text(),
        "{\"active_connections\":0,\"max_connections\":7,\"total_connections\":0,\
         \"refused_connections\":0,\"total_events\":0,\"total_deliveries\":0,\"total_bytes\":0,\"lag_bytes\":0,\
         \"history\":{\"events\":0,\"bytes\":0,\"first_id\":null,\"last_id\":null},\"topics\":{},\
         \"topics_left_out\":0,\"farewells\":{\"hung_up\":0,\"fell_behind\":0,\"timed_out\":0,\"replaced\":0,\"kicked\":0,\"expired\":0,\"ended\":0,\"server_closing\":0},\
         \"uptime_seconds\":0}\n"
    );
    let _one = Stream::subscribe(address(&server), "/events/a?topic=%22*");
    let _two = Stream::subscribe(address(&server), "/events/a?client_id=me");
    let _three = Stream::subscribe(address(&server), "/events/b?client_id=me");
    let first = post(address(&server), "/events", "x");
    post(address(&server), "/clients/me", "x");
    let last = post(address(&server), "/events/a", "x");
    let stats = get(address(&server), "/stats");
    for part in [
        "{\"active_connections\":2,\"max_connections\":7,\"total_connections\":3,\"refused_connections\":0,\"total_events\":3,",
        "\"history\":{\"events\":2,",
        &format!(
            "\"first_id\":\"{}\",\"last_id\":\"{}\"}},",
            id_in(&first),
            id_in(&last)
        ),
        r#""topics":{"a":1,"b":1,"\"*":1},"topics_left_out":0,"#,
        r#""replaced":1,"kicked":0,"#,
    ] {
        assert!(stats.text().contains(part), "no {part} in {}", stats.text());
    }
}

// ---- subscribing

#[test]
fn an_invalid_subscription_is_answered_with_the_reason_and_registers_no_client() {
    let server = server(without_heartbeats());
    let long = "x".repeat(256);
    let long_name = format!("/events?client_id={}", "x".repeat(65));
    let (long_topic, long_prefix) = (format!("/events/{long}"), format!("/events/{long}*"));
    #[rustfmt::skip]
    let rows: &[(&str, &str, u16, &str)] = &[
        ("/events/", "", 400, "topic is empty"),
        ("/events?topic=", "", 400, "topic is empty"),
        ("/events?topic=a&topic=", "", 400, "topic is empty"),
        (&long_topic, "", 400, "topic has 256 bytes, at most 255 are allowed"),
        (&long_prefix, "", 400, "topic has 256 bytes, at most 255 are allowed"),
        ("/events/a%0Ab", "", 400, r"topic has the control character '\\n' at byte 1"),
        ("/events?topic=a%1Bb*", "", 400, "control character"),
        ("/events?client_id=", "", 400, r#"client_id is \"\", it must be 1 to 64 of A-Z a-z 0-9 . _ -"#),
        ("/events?client_id=a%20b", "", 400, r#"client_id is \"a b\""#),
        ("/events?client_id=a/b", "", 400, r#"client_id is \"a/b\""#),
        ("/events?client_id=%D1%8F", "", 400, r#"client_id is \"я\""#),
        ("/events?client_id=a%0Ab", "", 400, r#"client_id is \"a\\nb\""#),
        (&long_name, "", 400, "it must be 1 to 64 of"),
        ("/events?heartbeat=", "", 400, r#"heartbeat is \"\", it must be event or comment"#),
        ("/events/a?heartbeat=Event", "", 400, r#"heartbeat is \"Event\""#),
        ("/events?heartbeat=1", "", 400, r#"heartbeat is \"1\""#),
    ];
    for (target, fields, status, part) in rows {
        let row = format!("{target} {fields:?}");
        assert_error(
            &request(address(&server), "GET", target, fields, ""),
            *status,
            part,
            &row,
        );
        assert_eq!(
            request(address(&server), "HEAD", target, fields, "").status,
            *status,
            "{row}"
        );
    }
    let stats = get(address(&server), "/stats");
    assert_eq!(number_after(stats.text(), "\"total_connections\":"), 0);
}

#[test]
fn a_client_has_the_id_that_it_chose_and_otherwise_a_random_uuid() {
    let server = server(without_heartbeats());
    let longest = "aZ09._-".repeat(10)[..64].to_owned();
    for name in ["a", "0", "A.b_c-D", "..", "-", &longest] {
        let mut stream = Stream::open(address(&server), &format!("/events?client_id={name}"), "");
        let welcome = stream.next().data;
        let start = format!("{{\"type\":\"connected\",\"client_id\":\"{name}\",\"timestamp\":\"");
        assert!(welcome.starts_with(&start), "{name}: {welcome}");
    }
    let name = || {
        let welcome = Stream::open(address(&server), "/events", "").next().data;
        let (_, rest) = welcome.split_once("\"client_id\":\"").unwrap();
        rest[..36].to_owned()
    };
    let (one, two) = (name(), name());
    assert_ne!(one, two);
    let shape: String = one.replace(
        |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase(),
        "x",
    );
    assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
    assert!(
        one[14..].starts_with('4') && "89ab".contains(&one[19..20]),
        "{one} is not a UUID of version 4"
    );
}

#[test]
fn a_client_above_the_limit_gets_a_503_until_another_client_disconnects() {
    let server = server(Config {
        max_clients: 2,
        retry: Duration::from_secs(7),
        ..config()
    });
    let first = Stream::subscribe(address(&server), "/events?client_id=first");
    let mut second = Stream::subscribe(address(&server), "/events?client_id=second");
    for target in ["/events", "/events/chat", "/events?client_id=third"] {
        let answer = get(address(&server), target);
        assert_error(
            &answer,
            503,
            "Too many connections: 2 clients are the limit",
            target,
        );
        assert_eq!(answer.field("retry-after"), Some("7"), "{target}");
    }
    // A client that reconnects with its own id takes no further slot, and publishing
    // works as before.
    let mut again = Stream::subscribe(address(&server), "/events?client_id=second");
    assert_eq!(second.try_next(), None);
    let answer = post(address(&server), "/events", "still there");
    assert_eq!(number_after(answer.text(), "\"recipients\":"), 2);
    assert_eq!(again.next().data, "still there");
    drop(first);
    // The server notices the disconnected client at the next write to it, at the latest.
    eventually("a slot is free", || {
        post(address(&server), "/events", "anybody?");
        server.hub().clients() == 1
    });
    Stream::subscribe(address(&server), "/events?client_id=third");
}

#[test]
fn retry_after_is_at_least_one_second() {
    let server = server(Config {
        max_clients: 1,
        retry: Duration::from_millis(20),
        ..config()
    });
    let _stream = Stream::subscribe(address(&server), "/events");
    assert_eq!(
        get(address(&server), "/events").field("retry-after"),
        Some("1")
    );
}

#[test]
fn a_stream_on_an_embedders_own_route_behaves_like_a_built_in_one() {
    let bound = Server::bind("127.0.0.1:0", without_heartbeats()).unwrap();
    let running = bound
        .spawn_with(|request, api| match request.path() {
            "/weather" => {
                let pattern = Pattern::new("weather/*").unwrap();
                api.stream_of(&request, [pattern].into_iter().collect())
            }
            _ => api.answer(request),
        })
        .unwrap();
    let address = running.local_addr();
    let publish = |topic: &str| {
        let event = Event::new(topic).with_topic(Topic::new(topic).unwrap());
        running.hub().publish(event).unwrap().id.to_string()
    };
    let first = publish("weather/a");
    publish("weather/b");
    publish("chat");
    // The handler chooses the topics, and the query cannot add any.
    let target = "/weather?topic=chat&client_id=me&heartbeat=event";
    let (mut stream, recovery) = Stream::resume(address, target, &first);
    assert!(recovery.contains("\"replayed\":1"), "{recovery}");
    assert_eq!(stream.next().data, "weather/b");
    publish("chat");
    publish("weather/c");
    assert_eq!(stream.next().data, "weather/c");
    let built_in = Stream::open(address, "/events", "").head.without_date();
    assert_eq!(stream.head.clone().without_date().head, built_in.head);
    assert_eq!(
        request(address, "DELETE", "/clients/me", "", "").status,
        200
    );
    assert_eq!(stream.try_next(), None);
    let head = request(address, "HEAD", "/weather", "", "");
    assert_eq!(
        head.field("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    for (query, part) in [
        ("client_id=", "client_id is"),
        ("heartbeat=x", "heartbeat is"),
    ] {
        let answer = get(address, &format!("/weather?{query}"));
        assert_error(&answer, 400, part, query);
    }
    running.hub().close();
    let answer = get(address, "/weather");
    assert_error(&answer, 503, "the server is closing", "closed");
    assert_eq!(answer.field("retry-after"), Some("5"));
}

#[test]
fn a_head_request_to_a_stream_gets_the_same_head_as_get_and_registers_no_client() {
    let server = server(without_heartbeats());
    for target in [
        "/events",
        "/events/чат",
        "/events?client_id=me&last_event_id=earliest",
    ] {
        let stream = Stream::open(address(&server), target, "");
        let mut raw = Raw::connect(address(&server));
        raw.send(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(
            raw.head().without_date().head,
            stream.head.clone().without_date().head,
            "{target}"
        );
        // The connection serves the next request: no body came, and no stream began.
        raw.send("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(raw.answer().text(), "{\"status\":\"ok\"}\n", "{target}");
        assert!(raw.is_closed(), "{target}");
    }
    let stats = get(address(&server), "/stats");
    assert_eq!(number_after(stats.text(), "\"total_connections\":"), 3);
    assert_eq!(number_after(stats.text(), "\"replaced\":"), 0);
}

// ---- reconnecting

/// Reads the welcome and the next event, and returns the data of the latter if it is a
/// recovery event.
#[track_caller]
fn recovery(stream: &mut Stream) -> Option<String> {
    assert_eq!(stream.next().name, "system");
    let message = stream.next();
    (message.name == "recovery").then_some(message.data)
}

#[test]
fn the_last_event_id_field_takes_precedence_over_the_query_as_the_cursor() {
    let server = server(without_heartbeats());
    let ids: Vec<String> = ["one", "two", "three"]
        .iter()
        .map(|body| id_in(&post(address(&server), "/events", body)).to_owned())
        .collect();
    let (first, second) = (&ids[0], &ids[1]);
    for (query, header, from, replayed) in [
        ("", first.as_str(), first.as_str(), 2),
        (second, "", second, 1),
        (second, first, first, 2),
        (first, second, second, 1),
        ("earliest", second, second, 1),
        ("earliest", "", "earliest", 3),
        // In the header `earliest` is an id, and no event has it.
        ("", "earliest", "earliest", 3),
    ] {
        let row = format!("?last_event_id={query}, Last-Event-ID: {header}");
        let target = format!("/events?last_event_id={query}");
        let fields = format!("Last-Event-ID: {header}\r\n");
        let mut stream = Stream::open(address(&server), &target, &fields);
        let verdict = if header == "earliest" {
            r#"false,"reason":"unknown""#
        } else {
            "true"
        };
        assert_eq!(
            recovery(&mut stream),
            Some(format!(
                r#"{{"recovered_from":"{from}","replayed":{replayed},"complete":{verdict}}}"#
            )),
            "{row}"
        );
        for body in &["one", "two", "three"][3 - replayed..] {
            assert_eq!(stream.next().data, *body, "{row}");
        }
        post(address(&server), "/events/nowhere", "");
    }
    // Without a cursor, and with an empty one, the stream begins with the next event.
    for (target, fields) in [
        ("/events", ""),
        ("/events?last_event_id=", "Last-Event-ID:\r\n"),
    ] {
        let mut stream = Stream::open(address(&server), target, fields);
        stream.next();
        server.hub().publish(Event::new("live")).unwrap();
        assert_eq!(stream.next().data, "live", "{target}");
    }
}

#[test]
fn the_recovery_event_tells_whether_the_replay_is_complete_and_otherwise_why_not() {
    let server = server(Config {
        history_events: 2,
        history_bytes: 2000,
        // The history holds at least as many bytes as a queue, so the queue must be
        // small.
        queue_bytes: 1,
        ..without_heartbeats()
    });
    let mut before = Stream::open(address(&server), "/events", "");
    let start = before.next().last_event_id;
    let ids: Vec<String> = (0..4)
        .map(|n| id_in(&post(address(&server), "/events", n.to_string())).to_owned())
        .collect();
    // No event has this id, but a later event follows, so the id is in the past.
    let (ms, number) = ids[3].split_once('-').unwrap();
    let never_published = format!("{ms}-{}", number.parse::<u64>().unwrap() + 1);
    eventually("the clock has moved on", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        *now.unwrap().as_millis().to_string() > *ms
    });
    let own = post(address(&server), "/events?id=order-%227%22", "4");
    assert_eq!(id_in(&own), "order-\\");
    let (evicted, unknown, future) = (
        r#"false,"reason":"evicted""#,
        r#"false,"reason":"unknown""#,
        r#"false,"reason":"future""#,
    );
    let past_the_last = format!("{}-0", u64::MAX);
    // The history holds the events 3 and 4.
    for (cursor, shown, replayed, complete) in [
        ("order-\"7\"", r#"order-\"7\""#, 0, "true"),
        (&ids[3], &*ids[3], 1, "true"),
        (&ids[2], &ids[2], 2, "true"),
        (&ids[1], &ids[1], 2, evicted),
        (&ids[0], &ids[0], 2, evicted),
        (&start, &start, 2, evicted),
        ("0-0", "0-0", 2, evicted),
        ("earliest-not", "earliest-not", 2, unknown),
        ("007-0", "007-0", 2, unknown),
        ("42", "42", 2, unknown),
        (&never_published, &never_published, 2, unknown),
        (&past_the_last, &past_the_last, 2, future),
    ] {
        let mut stream = Stream::open(
            address(&server),
            "/events",
            &format!("Last-Event-ID: {cursor}\r\n"),
        );
        stream.next();
        let recovery = stream.next();
        let expected = format!(
            r#"{{"recovered_from":"{shown}","replayed":{replayed},"complete":{complete}}}"#
        );
        assert_eq!(
            (&*recovery.name, &*recovery.data),
            ("recovery", &*expected),
            "{cursor}"
        );
        for number in 5 - replayed..5 {
            assert_eq!(stream.next().data, number.to_string(), "{cursor}");
        }
    }
}

#[test]
fn the_recovery_event_has_no_id_and_the_welcome_has_the_id_before_the_replay() {
    let server = server(without_heartbeats());
    let id = |body| id_in(&post(address(&server), "/events", body)).to_owned();
    let (one, two) = (id("one"), id("two"));
    let mut stream = Stream::open(
        address(&server),
        "/events",
        &format!("Last-Event-ID: {one}\r\n"),
    );
    for _ in 0..3 {
        stream.next();
    }
    let text = String::from_utf8(stream.bytes.clone()).unwrap();
    let (welcome, rest) = text.split_once("\n\n").unwrap();
    assert!(
        welcome.starts_with(&format!("id: {one}\nevent: system\nretry: 5000\ndata: ")),
        "{text}"
    );
    assert_eq!(
        rest,
        format!(
            "event: recovery\ndata: {{\"recovered_from\":\"{one}\",\"replayed\":1,\"complete\":true}}\n\n\
             id: {two}\ndata: two\n\n"
        )
    );
}

#[test]
fn a_client_may_ask_for_at_most_64_topics() {
    let server = server(without_heartbeats());
    let asked = |count: usize| {
        let topics: Vec<String> = (0..count)
            .map(|number| format!("topic={number}*"))
            .collect();
        topics.join("&")
    };
    Stream::subscribe(address(&server), &format!("/events?{}", asked(64)));
    Stream::subscribe(address(&server), &format!("/events/one?{}", asked(63)));
    assert_eq!(
        get(address(&server), &format!("/poll?{}", asked(64))).status,
        200
    );
    for path in [
        format!("/events?{}", asked(65)),
        format!("/events/one?{}", asked(64)),
        // The same topic 65 times counts as 65 topics.
        format!("/events?{}", "topic=a&".repeat(65)),
        format!("/poll?{}", asked(65)),
    ] {
        let answer = get(address(&server), &path);
        assert_eq!(answer.status, 400, "{path}");
        let expected = "the request asks for 65 topics, at most 64 are allowed";
        assert!(answer.text().contains(expected), "{}", answer.text());
    }
}
