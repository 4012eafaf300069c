//! The tools that all chapters share: a server on a free port, a raw connection, an event
//! stream.
//!
//! No function here sleeps for a fixed time. Each waits for a condition, and the test
//! fails if the condition does not hold within [`DEADLINE`].

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tiny_sse::{Config, Decoder, Message, Running, Server};

/// A wait that takes longer than this fails the test. The bound is generous because the
/// machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Starts a server on a free port. Dropping the returned value shuts the server down.
pub fn server(config: Config) -> Running {
    let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
    bound.spawn().expect("the server's threads start")
}

/// The default configuration with a short grace, so that a failing test ends soon.
pub fn config() -> Config {
    Config {
        grace: Duration::from_secs(2),
        ..Config::default()
    }
}

/// [`config`] for a server on which every client may publish.
pub fn open() -> Config {
    Config {
        open: true,
        ..config()
    }
}

/// [`config`] for a server behind a proxy on this machine.
pub fn proxied() -> Config {
    Config {
        trust_proxy: vec!["127.0.0.1".parse().unwrap()],
        ..config()
    }
}

/// Waits until `condition` holds. `what` names the condition in the message of a failure.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: this did not happen within {DEADLINE:?}"
        );
        std::thread::yield_now();
    }
}

/// A connection on which a test sends bytes as they are.
pub struct Raw {
    pub socket: TcpStream,
    /// The bytes that were read from the socket and not used yet.
    buffer: Vec<u8>,
}

/// An HTTP answer: its status, its head as text, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The status line and the fields, separated by `\n`, without the empty line at the
    /// end.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header field, or `None` if the answer has no such field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Returns the answer without its `Date`, so that two answers can be compared.
    pub fn without_date(mut self) -> Answer {
        let lines = self.head.lines().filter(|line| !line.starts_with("Date: "));
        self.head = lines.collect::<Vec<_>>().join("\n");
        self
    }
}

impl Raw {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::try_connect(address).expect("a connection")
    }

    /// For tests in which the server may have ended already.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Raw> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Ok(Raw {
            socket,
            buffer: Vec::new(),
        })
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Raw {
        self.socket
            .write_all(bytes.as_ref())
            .expect("the server accepts the bytes");
        self
    }

    /// Reads one answer. Its body has as many bytes as Content-Length says; without this
    /// field it is empty.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|| {
            let so_far = String::from_utf8_lossy(&self.buffer);
            panic!("the server closed the connection within an answer, after {so_far:?}")
        })
    }

    /// Reads one answer. Returns `None` if the server closes the connection before the
    /// end of the answer.
    #[track_caller]
    pub fn try_answer(&mut self) -> Option<Answer> {
        let head = self.try_head()?;
        let body_length = head
            .field("content-length")
            .map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < body_length {
            if !self.fill() {
                return None;
            }
        }
        Some(Answer {
            body: self.buffer.drain(..body_length).collect(),
            ..head
        })
    }

    /// Reads one answer to HEAD, or the head of a stream. The returned body is empty.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        self.try_head().unwrap_or_else(|| {
            let so_far = String::from_utf8_lossy(&self.buffer);
            panic!("the server closed the connection within a head, after {so_far:?}")
        })
    }

    /// Like [`Raw::head`]. Returns `None` if the server closes the connection before the
    /// end of the head.
    #[track_caller]
    fn try_head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.fill() {
                return None;
            }
        };
        let head =
            String::from_utf8(self.buffer.drain(..end + 4).collect()).expect("the head is UTF-8");
        let head = head.trim_end().replace("\r\n", "\n");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Some(Answer {
            status: status.expect("the first line has a status"),
            head,
            body: Vec::new(),
        })
    }

    /// Reads to the end of the connection and returns all bytes that were not used yet.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads to the end of the connection. Returns true if no more bytes came before the
    /// end.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Reads more bytes into the buffer. Returns false if the connection has ended, also
    /// by a reset.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // The test process was stopped by a signal and continued.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("no bytes from the server: {error}"),
        }
    }
}

/// Sends one request on a new connection and returns the answer.
#[track_caller]
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &str,
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n",
        body.len()
    );
    let mut raw = Raw::connect(address);
    raw.send(head.as_bytes()).send(body);
    if method == "HEAD" {
        raw.head()
    } else {
        raw.answer()
    }
}

#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, "", "")
}

#[track_caller]
pub fn post(address: SocketAddr, target: &str, body: impl AsRef<[u8]>) -> Answer {
    request(address, "POST", target, "", body)
}

/// Returns the event's id from the answer to a publisher.
#[track_caller]
pub fn id_of(answer: &Answer) -> String {
    let id = answer.text().split(r#""id":""#).nth(1);
    let id = id.and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("no id in {answer:?}"))
        .to_owned()
}

/// An event stream over HTTP/1.1, decoded from its chunks as a browser decodes it.
pub struct Stream {
    pub raw: Raw,
    pub head: Answer,
    decoder: Decoder,
    messages: VecDeque<Message>,
    /// The bytes of the stream so far, without the chunk framing, for tests that compare
    /// them.
    pub bytes: Vec<u8>,
    /// The reason in the close event, if this event has come.
    pub closed: Option<String>,
    /// True after the last chunk, whose size is 0.
    pub has_ended: bool,
}

impl Stream {
    /// Subscribes and reads only the head of the answer.
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str, fields: &str) -> Stream {
        Stream::try_open(address, target, fields)
            .expect("the server closed the connection before it answered")
    }

    /// Like [`Stream::open`]. Returns `None` if no server listens, or if the server
    /// closes the connection without an answer. The server may do so to a client that
    /// falls behind before its stream begins.
    #[track_caller]
    pub fn try_open(address: SocketAddr, target: &str, fields: &str) -> Option<Stream> {
        let mut raw = Raw::try_connect(address).ok()?;
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        raw.socket.write_all(head.as_bytes()).ok()?;
        Stream::try_on(raw)
    }

    /// Reads the head of a stream that the test has requested on `raw` already.
    #[cfg(feature = "journal")]
    #[track_caller]
    pub fn on(raw: Raw) -> Stream {
        Stream::try_on(raw).expect("the server closed the connection before it answered")
    }

    #[track_caller]
    fn try_on(mut raw: Raw) -> Option<Stream> {
        let head = raw.try_head()?;
        assert_eq!(head.status, 200, "the stream was refused: {head:?}");
        Some(Stream {
            raw,
            head,
            decoder: Decoder::new(64 << 20),
            messages: VecDeque::new(),
            bytes: Vec::new(),
            closed: None,
            has_ended: false,
        })
    }

    /// Subscribes and reads the welcome.
    #[track_caller]
    pub fn subscribe(address: SocketAddr, target: &str) -> Stream {
        let mut stream = Stream::open(address, target, "");
        assert_eq!(stream.next().name, "system");
        stream
    }

    /// Reconnects with `id` as the cursor, reads the welcome and the recovery event, and
    /// returns the stream with the data of the recovery event.
    #[track_caller]
    pub fn resume(address: SocketAddr, target: &str, id: &str) -> (Stream, String) {
        let mut stream = Stream::open(address, target, &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(stream.next().name, "system");
        let recovery = stream.next();
        assert_eq!(recovery.name, "recovery");
        (stream, recovery.data)
    }

    /// Returns the next event.
    #[track_caller]
    pub fn next(&mut self) -> Message {
        self.try_next().expect("the stream has ended")
    }

    /// Returns the next event, or `None` when the stream has ended, with a last chunk or
    /// without one. The close event is not returned: its reason is in `closed`.
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Message> {
        let start = Instant::now();
        loop {
            match self.messages.pop_front() {
                Some(message) if self.closes(&message) => {}
                Some(message) => {
                    assert_eq!(
                        self.closed, None,
                        "an event after the close event: {message:?}"
                    );
                    return Some(message);
                }
                None if !self.read() => return None,
                None => {}
            }
            // Heartbeats keep the read from timing out, so the wait for an event needs a
            // bound of its own.
            assert!(
                start.elapsed() < DEADLINE,
                "no event within {DEADLINE:?}, only comments"
            );
        }
    }

    /// Whether `message` is the close event. Keeps its reason in `closed`.
    fn closes(&mut self, message: &Message) -> bool {
        let reason = message.data.strip_prefix(r#"{"type":"closed","reason":""#);
        let reason = reason.filter(|_| message.name == "system");
        let reason = reason.and_then(|rest| rest.strip_suffix(r#""}"#));
        self.closed = reason.map(str::to_owned).or(self.closed.take());
        reason.is_some()
    }

    /// Reads until the bytes of the stream end with `text`.
    #[track_caller]
    pub fn read_to(&mut self, text: &str) {
        while !self.bytes.ends_with(text.as_bytes()) {
            let seen = String::from_utf8_lossy(&self.bytes).into_owned();
            assert!(
                self.read(),
                "the stream ended before {text:?}, with {seen:?}"
            );
        }
    }

    /// Returns the cursor with which a browser would reconnect.
    pub fn cursor(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// Reads one chunk. Returns false if the stream has ended.
    #[track_caller]
    fn read(&mut self) -> bool {
        let Some(chunk) = self.chunk() else {
            return false;
        };
        let messages = &mut self.messages;
        self.decoder
            .feed(&chunk, |message| messages.push_back(message))
            .expect("events within the limit");
        self.bytes.extend_from_slice(&chunk);
        true
    }

    /// Reads one chunk and returns its data, or `None` if the stream has ended.
    #[track_caller]
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let raw = &mut self.raw;
        let line = loop {
            if let Some(end) = raw.buffer.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            if self.has_ended || !raw.fill() {
                return None;
            }
        };
        let size = usize::from_str_radix(std::str::from_utf8(&raw.buffer[..line]).unwrap(), 16)
            .expect("a chunk's size");
        while raw.buffer.len() < line + 2 + size + 2 {
            if !raw.fill() {
                return None;
            }
        }
        let chunk = raw.buffer[line + 2..line + 2 + size].to_vec();
        assert_eq!(
            &raw.buffer[line + 2 + size..line + 4 + size],
            b"\r\n",
            "the line break after the chunk's data"
        );
        raw.buffer.drain(..line + 4 + size);
        self.has_ended = size == 0;
        (size > 0).then_some(chunk)
    }
}

/// Returns the number that follows `key` in `text`, such as an answer in JSON.
#[track_caller]
pub fn number_after(text: &str, key: &str) -> u64 {
    let at = text
        .find(key)
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        + key.len();
    let digits: String = text[at..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number after {key} in {text}"))
}

/// The path of a directory that only one test uses. Dropping the value removes the
/// directory with its files.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Chooses a path. The test creates the directory itself.
    pub fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiny-sse-it-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Best effort: the directory exists only if a process with the same id was killed
        // earlier.
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path as text, for a command line.
    pub fn name(&self) -> &str {
        self.0.to_str().expect("the path is UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the test may not have created the directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Describes `times` in one line: how many there are, the median, the 99th percentile and
/// the longest.
pub fn describe_times(what: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let count = times.len();
    let (median, p99, longest) = (times[count / 2], times[count * 99 / 100], times[count - 1]);
    format!("{count} {what}: median {median:.1?}, p99 {p99:.1?}, longest {longest:.1?}")
}

/// Calls its function when it is dropped, also when the test panics. Tests use it to stop
/// the threads of a `thread::scope`: otherwise a failed test would wait for these threads
/// without end.
pub struct OnDrop<F: Fn()>(pub F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
