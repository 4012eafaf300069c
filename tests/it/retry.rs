//! Those who were cut off together do not come back together.

use std::time::Duration;

use tiny_sse::{Config, Overload};

use crate::kit::{Raw, Stream, config, request, server};

/// The `retry:` fields of a stream so far, in milliseconds.
fn retries(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes);
    let fields = text.lines().filter_map(|line| line.strip_prefix("retry: "));
    fields.map(|ms| ms.parse().expect("milliseconds")).collect()
}

#[test]
fn at_shutdown_each_client_gets_a_retry_of_its_own_in_a_window_that_grows_with_their_number() {
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
        assert_eq!(stream.try_next(), None, "no event, only a field");
        assert!(stream.has_ended);
        let own = retries(&stream.bytes);
        assert_eq!((own.len(), own[0]), (2, 700));
        last.push(own[1]);
    }
    last.sort_unstable();
    // Two milliseconds for each: 500 come back in a second.
    let places: Vec<u64> = (0..CLIENTS as u64).map(|place| 700 + 2 * place).collect();
    assert_eq!(last, places);
}

#[test]
fn jitter_spreads_the_ordinary_retry_over_what_was_asked_for() {
    let server = server(Config {
        retry: Duration::from_secs(1),
        retry_jitter: 50,
        ..config()
    });
    let told: Vec<u64> = (0..200)
        .map(|_| retries(&Stream::subscribe(server.local_addr(), "/events").bytes)[0])
        .collect();
    assert!(told.iter().all(|ms| (1000..=1500).contains(ms)), "{told:?}");
    // Each tenth of the range holds some of 200, but for once in a billion runs.
    for tenth in 0..10 {
        let range = 1000 + 50 * tenth..1050 + 50 * tenth;
        assert!(
            told.iter().any(|ms| range.contains(ms)),
            "none in {range:?}"
        );
    }
}

#[test]
fn one_client_too_many_is_refused_or_on_request_told_to_come_back() {
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
                let told = retries(&answer.body);
                assert!(
                    told.len() == 1 && (2000..4000).contains(&told[0]),
                    "{told:?}"
                );
            }
        }
        // It has not touched the one who is there, nor been let in.
        assert_eq!(request(address, "POST", "/events", "", "x").status, 200);
        assert_eq!(first.next().data, "x");
        assert_eq!(server.hub().clients(), 1);
    }
}
