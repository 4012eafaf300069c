//! The numbers about a running server: `/stats?clients=1` and `/metrics`.

use tiny_sse::{Config, Event, Pattern, Subscribe, Topic};

use crate::kit::{Stream, config, eventually, get, number_after, request, server};

#[test]
fn stats_show_for_each_client_what_was_sent_to_it_and_what_waits_for_it() {
    let server = server(Config {
        queue_bytes: 32 << 20,
        history_bytes: 96 << 20,
        ..config()
    });
    let address = server.local_addr();
    let mut quick = Stream::subscribe(address, "/events?client_id=quick&topic=b&topic=a/*");
    let stopped = Stream::subscribe(address, "/events?client_id=stopped");
    // More bytes than the socket buffers hold.
    let text = "x".repeat(64_000);
    for _ in 0..200 {
        server.hub().publish(Event::new(&*text)).unwrap();
        quick.next();
        quick.bytes.clear();
    }
    let clients = || {
        let stats = get(address, "/stats?clients=1").text().to_owned();
        let (_, clients) = stats.split_once("\"clients\":[").expect("clients");
        let mut clients: Vec<_> = clients.split("},{").map(str::to_owned).collect();
        clients.sort_by_key(|client| !client.contains("\"quick\""));
        clients
    };
    eventually("the quick client has all events", || {
        number_after(&clients()[0], "\"sent_events\":") == 200
    });
    let shown = clients();
    let peer = quick.raw.socket.local_addr().unwrap();
    let start = format!(
        "\"client_id\":\"quick\",\"peer\":\"{peer}\",\"address\":\"127.0.0.1\",\"user\":null,\"topics\":[\"a/*\",\"b\"],"
    );
    assert!(shown[0].contains(&start), "{shown:?}");
    assert!(
        shown[0].contains("\"lag_events\":0,\"lag_bytes\":0,\"replaying\":0"),
        "{shown:?}"
    );
    assert!(number_after(&shown[0], "\"sent_bytes\":") > 200 * 64_000);
    let number = |name: &str| number_after(&shown[1], &format!("\"{name}\":"));
    assert_eq!(number("sent_events") + number("lag_events"), 200);
    assert!(
        number("lag_events") > 0 && number("lag_bytes") > 64_000,
        "{shown:?}"
    );
    // The stopped client reads on and catches up.
    let mut stopped = stopped;
    for _ in 0..200 {
        stopped.next();
        stopped.bytes.clear();
    }
    eventually("nothing waits for the stopped client", || {
        clients()[1].contains("\"sent_events\":200,")
            && clients()[1].contains("\"lag_events\":0,\"lag_bytes\":0")
    });
    // A client that reconnects and does not read stays in its replay.
    let _slow = Stream::open(address, "/events?client_id=slow&last_event_id=earliest", "");
    eventually("the slow client is in its replay", || {
        let stats = get(address, "/stats?clients=1").text().to_owned();
        let slow = stats
            .split("},{")
            .find(|client| client.contains("\"slow\""));
        let slow = slow.expect("the slow client is registered");
        number_after(slow, "\"replaying\":") > 0 && number_after(slow, "\"sent_events\":") > 0
    });
    assert_eq!(get(address, "/stats?clients=yes").status, 400);
}

#[test]
fn stats_list_the_thousand_topics_with_the_most_clients_and_count_the_others() {
    let server = server(Config {
        max_patterns: 1000,
        ..config()
    });
    let address = server.local_addr();
    let topics = |numbers: std::ops::Range<usize>| {
        let patterns = numbers.map(|number| Pattern::new(&format!("t/{number:04}")).unwrap());
        let params = Subscribe {
            patterns: patterns.collect(),
            ..Subscribe::default()
        };
        server.hub().subscribe(params).unwrap()
    };
    let mut streams = vec![topics(0..700)];
    let listed = || {
        let stats = get(address, "/stats").text().to_owned();
        let (_, topics) = stats.split_once("\"topics\":{").expect("topics");
        let (topics, _) = topics.split_once('}').unwrap();
        let topics: Vec<_> = topics.split(',').map(str::to_owned).collect();
        (topics, number_after(&stats, "\"topics_left_out\":"))
    };
    let (list, left_out) = listed();
    assert_eq!((list.len(), left_out), (700, 0));
    assert_eq!((&*list[0], &*list[699]), ("\"t/0000\":1", "\"t/0699\":1"));
    streams.extend([topics(400..1100), topics(500..600), topics(2000..2900)]);
    let (list, left_out) = listed();
    assert_eq!((list.len(), left_out), (1000, 1000));
    // All topics of two or three clients are listed, with the right number of clients.
    for (topics, clients) in [(400..500, 2), (500..600, 3), (600..700, 2)] {
        for number in topics {
            let entry = format!("\"t/{number:04}\":{clients}");
            assert!(list.contains(&entry), "no {entry}");
        }
    }
    assert!(list.is_sorted());
    // The metrics have no topics, so they stay short.
    if cfg!(feature = "metrics") {
        let metrics = get(address, "/metrics");
        assert!(metrics.text().contains("tiny_sse_clients 4\n"));
        assert!(metrics.body.len() < 8000, "{}", metrics.body.len());
    }
}

#[test]
fn stats_list_the_clients_with_the_most_lag_up_to_4_mib_and_count_the_others() {
    let server = server(Config {
        max_clients: 500,
        max_patterns: 64,
        ..config()
    });
    let address = server.local_addr();
    let clients: Vec<_> = (0..400)
        .map(|client| {
            let patterns = (0..64).map(|n| format!("{client}/{n}/{}\"", "\"".repeat(240)));
            let params = Subscribe {
                client_id: Some(format!("client-{client}").parse().unwrap()),
                patterns: patterns.map(|text| Pattern::new(&text).unwrap()).collect(),
                ..Subscribe::default()
            };
            server.hub().subscribe(params).unwrap()
        })
        .collect();
    let late = Topic::new(&format!("399/1/{}\"", "\"".repeat(240))).unwrap();
    server
        .hub()
        .publish(Event::new("x").with_topic(late))
        .unwrap();
    eventually("an event waits for one client", || {
        server.hub().stats().lag > 0
    });
    let stats = get(address, "/stats?clients=1");
    // LIMIT: 4 MiB for the list of clients. The rest of the answer comes on top.
    let length = stats.body.len();
    assert!(
        (4 << 20) - 40_000 < length && length < (4 << 20) + 600_000,
        "{length}"
    );
    let (_, list) = stats.text().split_once("\"clients\":[{").unwrap();
    assert!(list.starts_with("\"client_id\":\"client-399\""));
    let listed = list.matches("\"client_id\":").count();
    let left_out = number_after(list, "],\"clients_left_out\":") as usize;
    assert_eq!(listed + left_out, clients.len());
    assert!(list.ends_with(&format!("}}],\"clients_left_out\":{left_out}}}\n")));
    drop(clients);
    let stats = get(address, "/stats?clients=1");
    let end = "\"clients\":[],\"clients_left_out\":0}\n";
    assert!(stats.text().ends_with(end), "{stats:?}");
}

#[test]
fn metrics_are_served_and_in_the_index_if_the_feature_is_on_and_a_404_otherwise() {
    let server = server(config());
    let index = get(server.local_addr(), "/");
    let has_metrics = cfg!(feature = "metrics");
    assert_eq!(index.text().contains("/metrics'\n"), has_metrics);
    for method in ["GET", "HEAD", "OPTIONS", "POST"] {
        let answer = request(server.local_addr(), method, "/metrics", "", "");
        assert_eq!(answer.status == 404, !has_metrics, "{method}: {answer:?}");
    }
}

#[cfg(feature = "metrics")]
mod compiled_in {
    use std::collections::HashMap;

    use super::*;
    use crate::kit::post;

    /// Parses Prometheus' text format as strictly as the parser of Prometheus does.
    /// Returns the samples by name and labels.
    fn samples(page: &str) -> HashMap<String, f64> {
        assert!(page.ends_with('\n'), "the last line has no line break");
        let (mut samples, mut kinds) = (HashMap::new(), HashMap::new());
        let (mut family, mut helped) = (String::new(), Vec::new());
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a name and a text");
                assert!(!text.is_empty() && !helped.contains(&name), "{line}");
                helped.push(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(
                    helped.last(),
                    Some(&name),
                    "HELP does not come right before TYPE"
                );
                assert_eq!(kinds.insert(name, kind), None, "{name} twice");
                family = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a name and a value");
                let name = series.split('{').next().unwrap();
                let own = name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                assert!(own && name.starts_with("tiny_sse_"), "{line}");
                let suffix = name
                    .strip_prefix(&*family)
                    .expect("a sample after its TYPE");
                match kinds[&*family] {
                    "histogram" => {
                        assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}")
                    }
                    "counter" => assert!(name.ends_with("_total") && suffix.is_empty(), "{line}"),
                    _ => assert!(!name.ends_with("_total") && suffix.is_empty(), "{line}"),
                }
                if let Some(labels) = series
                    .strip_prefix(name)
                    .filter(|labels| !labels.is_empty())
                {
                    let label = labels.strip_prefix('{').and_then(|l| l.strip_suffix("\"}"));
                    let (key, value) = label.and_then(|l| l.split_once("=\"")).expect(line);
                    assert!(
                        !key.is_empty() && !value.contains(['"', '\\', '\n']),
                        "{line}"
                    );
                }
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert_eq!(
                    samples.insert(series.to_owned(), value),
                    None,
                    "{line} twice"
                );
            }
        }
        samples
    }

    #[test]
    fn the_metrics_are_valid_prometheus_text_with_the_right_numbers() {
        let server = server(Config {
            max_clients: 2,
            ..config()
        });
        let address = server.local_addr();
        let mut streams = [0; 2].map(|_| Stream::subscribe(address, "/events/a"));
        assert_eq!(get(address, "/events").status, 503);
        for topic in ["a", "a", "nobody's"] {
            assert_eq!(post(address, &format!("/events/{topic}"), "x").status, 200);
        }
        for stream in &mut streams {
            assert_eq!([stream.next().data, stream.next().data], ["x", "x"]);
        }
        assert!(server.hub().disconnect(&id_of(&streams[0])));
        eventually("the client is removed", || {
            get(address, "/stats").text().contains("\"kicked\":1")
        });
        // The fan-out counts a delivery after its write.
        eventually("all deliveries are counted", || {
            get(address, "/metrics")
                .text()
                .contains("tiny_sse_deliveries_total 4\n")
        });
        let answer = get(address, "/metrics");
        assert_eq!(
            answer.field("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let samples = samples(answer.text());
        for (series, value) in [
            ("clients", 1.0),
            ("clients_limit", 2.0),
            ("connections_total", 2.0),
            ("connections_refused_total", 1.0),
            ("events_total", 3.0),
            ("deliveries_total", 4.0),
            ("lag_bytes", 0.0),
            ("farewells_total{reason=\"kicked\"}", 1.0),
            ("farewells_total{reason=\"fell_behind\"}", 0.0),
            ("history_events", 3.0),
            ("publish_seconds_count", 3.0),
            ("publish_seconds_bucket{le=\"+Inf\"}", 3.0),
        ] {
            assert_eq!(samples[&format!("tiny_sse_{series}")], value, "{series}");
        }
        let mut buckets: Vec<_> = samples
            .iter()
            .filter_map(|(series, count)| {
                let bound = series.strip_prefix("tiny_sse_publish_seconds_bucket{le=\"")?;
                let bound = bound.strip_suffix("\"}")?.replace("+Inf", "inf");
                Some((bound.parse::<f64>().unwrap(), *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.len() > 2 && buckets.is_sorted_by_key(|bucket| bucket.1));
        assert!(samples["tiny_sse_bytes_total"] > 2.0 * 100.0);
        assert!(samples["tiny_sse_history_oldest_timestamp_seconds"] > 1.7e9);
    }

    /// Returns the client id in a stream's welcome.
    fn id_of(stream: &Stream) -> String {
        let seen = String::from_utf8_lossy(&stream.bytes);
        let (_, id) = seen.split_once("\"client_id\":\"").expect("a welcome");
        id.split('"').next().unwrap().to_owned()
    }
}
