//! The `retry:` fields with which the server spreads reconnects over time: at a shutdown,
//! by jitter, and when it has too many clients. Clients that are disconnected together
//! should not reconnect together.

use std::time::Duration;

use tiny_sse::{Config, Overload};

use crate::kit::{Raw, Stream, config, request, server};

/// Returns the `retry:` fields in the bytes of a stream, in milliseconds.
fn retries(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes);
    let fields = text.lines().filter_map(|line| line.strip_prefix("retry: "));
    fields
        .map(|ms| ms.parse().expect("retry: has digits only"))
        .collect()
}

#[test]
fn at_shutdown_each_client_gets_another_retry_2_ms_apart() {
    const CLIENTS: usize = 100;
    let server = server(Config {
        retry: Duration::from_millis(700),
        ..config()
    });
    let address = server.local_addr();
    let mut streams: Vec<_> = (0..CLIENTS)
        .map(|_| Stream::subscribe(address, "/events"))
        .collect();
    server.shutdown();
    let mut last: Vec<u64> = Vec::new();
    for stream in &mut streams {
        assert_eq!(
            stream.try_next(),
            None,
            "the shutdown sends a close event only"
        );
        assert!(stream.has_ended);
        let own = retries(&stream.bytes);
        assert_eq!((own.len(), own[0]), (2, 700));
        last.push(own[1]);
    }
    last.sort_unstable();
    // 2 ms for each client, so that 500 clients reconnect in a second.
    let expected: Vec<u64> = (0..CLIENTS as u64).map(|rank| 700 + 2 * rank).collect();
    assert_eq!(last, expected);
}

#[test]
fn jitter_of_50_percent_spreads_the_retry_evenly_over_1_to_1_5_times_its_value() {
    let server = server(Config {
        retry: Duration::from_secs(1),
        retry_jitter: 50,
        ..config()
    });
    let seen: Vec<u64> = (0..200)
        .map(|_| retries(&Stream::subscribe(server.local_addr(), "/events").bytes)[0])
        .collect();
    assert!(seen.iter().all(|ms| (1000..=1500).contains(ms)), "{seen:?}");
    // Each tenth of the range has at least one of the 200 values. This fails by chance
    // once in about 10^8 runs.
    for tenth in 0..10 {
        let range = 1000 + 50 * tenth..1050 + 50 * tenth;
        assert!(
            seen.iter().any(|ms| range.contains(ms)),
            "no value in {range:?}"
        );
    }
}

#[test]
fn a_client_above_the_limit_gets_a_503_or_with_overload_retry_only_a_retry_field() {
    for overload in [Overload::Refuse, Overload::Retry] {
        let server = server(Config {
            max_clients: 1,
            overload,
            retry: Duration::from_secs(2),
            ..config()
        });
        let address = server.local_addr();
        let mut first = Stream::subscribe(address, "/events");
        let mut raw = Raw::connect(address);
        raw.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = raw.answer();
        let is_last = answer.field("connection") == Some("close");
        assert_eq!(is_last, overload == Overload::Retry, "{answer:?}");
        match overload {
            Overload::Refuse => {
                assert_eq!(
                    (answer.status, answer.field("retry-after")),
                    (503, Some("2"))
                );
            }
            Overload::Retry => {
                let kind = answer.field("content-type");
                assert_eq!(
                    (answer.status, kind),
                    (200, Some("text/event-stream; charset=utf-8"))
                );
                assert!(
                    answer
                        .text()
                        .ends_with(": Too many connections: 1 clients are the limit\n"),
                    "{answer:?}"
                );
                let retries = retries(&answer.body);
                assert!(
                    retries.len() == 1 && (2000..4000).contains(&retries[0]),
                    "{retries:?}"
                );
            }
        }
        // The first client is not affected, and the second is not registered.
        assert_eq!(request(address, "POST", "/events", "", "x").status, 200);
        assert_eq!(first.next().data, "x");
        assert_eq!(server.hub().clients(), 1);
    }
}
