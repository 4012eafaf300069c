//! The programs of `src/examples/`, each run as it is. The primer comes first: the idea
//! of the whole crate in one file, and these tests show what it does and what it lacks.

#[path = "../../src/examples/counter.rs"]
mod counter;
#[path = "../../src/examples/other_server.rs"]
mod other_server;
#[path = "../../src/examples/primer.rs"]
mod primer;
#[path = "../../src/examples/sensors.rs"]
mod sensors;
#[cfg(feature = "access")]
#[path = "../../src/examples/sessions.rs"]
mod sessions;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tiny_sse::{Config, Event, Hub};

use crate::kit::{DEADLINE, Stream, eventually, open, request, server};

/// Starts the primer in threads that last as long as the tests do: it cannot be shut
/// down.
fn start_primer() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || primer::run(&listener));
    address
}

/// A stream of a server that ends its responses by closing the connection.
struct Lines(BufReader<TcpStream>);

impl Lines {
    #[track_caller]
    fn request(address: SocketAddr, path: &str, fields: &str) -> Lines {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
        )
        .unwrap();
        let mut lines = Lines(BufReader::new(socket));
        assert_eq!(lines.next(), "HTTP/1.1 200 OK");
        while !lines.next().is_empty() {}
        lines
    }

    #[track_caller]
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line that begins with `data: `, without that.
    #[track_caller]
    fn data(&mut self) -> String {
        loop {
            let line = self.next();
            if let Some(data) = line.strip_prefix("data: ") {
                return data.to_owned();
            }
        }
    }
}

#[test]
fn the_primer_is_at_most_200_lines() {
    let text = include_str!("../../src/examples/primer.rs");
    let lines = text.lines().count();
    assert!(lines <= 200, "{lines} lines");
    // Its table names files that exist.
    for name in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        for word in name
            .split('`')
            .filter(|word| word.contains(".rs") || word.ends_with('/'))
        {
            let path = format!("{}/src/{word}", env!("CARGO_MANIFEST_DIR"));
            assert!(fs::exists(&path).unwrap(), "{word}");
        }
    }
}

#[test]
fn the_primer_sends_each_event_to_every_client() {
    let address = start_primer();
    let mut streams: Vec<_> = (0..3)
        .map(|_| Lines::request(address, "/events", ""))
        .collect();
    // The head of a stream is written before the client is in the table.
    eventually("three clients", || {
        request(address, "POST", "/send", "", "wait").text() == "sent to 3 clients\n"
    });
    let answer = request(address, "POST", "/send", "", "first\nsecond");
    assert_eq!((answer.status, answer.text()), (200, "sent to 3 clients\n"));
    for stream in &mut streams {
        while stream.data() != "first" {}
        assert_eq!(stream.data(), "second");
    }
    assert_eq!(request(address, "GET", "/other", "", "").status, 404);
    // Without its body, which the primer would not read: then closing the connection
    // resets it, and the answer may be lost. The server has `lingering_close` for this.
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 413 Content Too Large\r\n");
}

#[test]
fn the_primer_forgets_what_a_client_missed_and_the_hub_does_not() {
    let address = start_primer();
    assert_eq!(request(address, "POST", "/send", "", "missed").status, 200);
    let mut late = Lines::request(address, "/events", "Last-Event-ID: 0\r\n");
    eventually("the client", || {
        request(address, "POST", "/send", "", "live").text() == "sent to 1 clients\n"
    });
    assert_eq!(late.data(), "live");

    let server = server(open());
    let first = server.hub().publish(Event::new("seen")).unwrap();
    server.hub().publish(Event::new("missed")).unwrap();
    let (mut stream, recovery) =
        Stream::resume(server.local_addr(), "/events", &first.id.to_string());
    assert!(recovery.contains("\"replayed\":1"), "{recovery}");
    assert_eq!(stream.next().data, "missed");
}

#[test]
fn the_counter_counts_until_the_hub_is_closed() {
    let server = server(open());
    let mut stream = Stream::subscribe(server.local_addr(), "/events");
    let hub = server.hub().clone();
    let counting = thread::spawn(move || counter::count(&hub, Duration::from_millis(1)));
    for number in 1..=3 {
        let start = format!("{{\"counter\":{number},");
        let data = stream.next().data;
        assert!(data.starts_with(&start), "{data}");
    }
    server.hub().close();
    counting.join().unwrap();
}

#[test]
fn two_sensors_publish_from_two_threads() {
    let server = server(open());
    let mut stream = Stream::subscribe(server.local_addr(), "/events?topic=sensors/load");
    let sensors = sensors::start(server.hub(), Duration::from_millis(1)).unwrap();
    let load = stream.next().data;
    assert!(
        load == "unavailable" || load.parse::<f64>().is_ok(),
        "{load}"
    );
    eventually("a value of the other sensor", || {
        let stats = request(server.local_addr(), "GET", "/stats", "", "");
        stats.status == 200 && server.hub().stats().events > 10
    });
    server.hub().close();
    sensors
        .into_iter()
        .for_each(|sensor| sensor.join().unwrap());
}

#[test]
fn another_server_hands_the_body_of_a_response_to_the_hub() {
    let hub = Hub::new(Config::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = hub.clone();
    thread::spawn(move || other_server::run(&serving, &listener));
    let seen = hub.publish(Event::new("seen")).unwrap();
    hub.publish(Event::new("missed")).unwrap();
    let fields = format!("Last-Event-ID: {}\r\n", seen.id);
    let mut stream = Lines::request(address, "/live", &fields);
    while stream.data() != "missed" {}
    hub.publish(Event::new("live")).unwrap();
    assert_eq!(stream.data(), "live");
    hub.close();
    assert!(stream.data().contains("closing"));
}

#[cfg(feature = "access")]
#[test]
fn a_session_gets_the_events_of_its_user_alone() {
    let server = sessions::start("127.0.0.1:0").unwrap();
    let address = server.local_addr();
    assert_eq!(request(address, "GET", "/events", "", "").status, 401);
    let login = request(address, "POST", "/login", "", "ada");
    let cookie = login.field("set-cookie").expect("a cookie");
    let (cookie, _) = cookie.split_once(';').unwrap();
    // The request asks for another user's topic, and gets its own.
    let fields = format!("Cookie: {cookie}\r\n");
    let mut stream = Stream::open(address, "/events/users/bob", &fields);
    assert_eq!(stream.next().name, "system");
    assert_eq!(
        request(address, "POST", "/notify/bob", "", "for bob").text(),
        "0 clients\n"
    );
    assert_eq!(
        request(address, "POST", "/notify/ada", "", "for ada").text(),
        "1 clients\n"
    );
    assert_eq!(stream.next().data, "for ada");
}
