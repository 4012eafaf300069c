//! What the chapters share: a server on a free port, a raw connection, an event stream.
//!
//! Nothing here waits for time. Everything waits for a condition, and gives up after
//! [`DEADLINE`], which no healthy run comes near.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tiny_sse::{Config, Decoder, Message, Running, Server};

/// When a test that waits in vain gives up. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A server on a port of its own. Dropped, it is shut down.
pub fn server(config: Config) -> Running {
    let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
    bound.spawn().expect("threads")
}

/// The defaults, with a grace that does not make failing tests slow.
pub fn config() -> Config {
    Config {
        grace: Duration::from_secs(2),
        ..Config::default()
    }
}

/// The same, for a server that lets everybody publish.
pub fn open() -> Config {
    Config {
        open: true,
        ..config()
    }
}

/// The same, for a server behind a proxy on this machine.
pub fn proxied() -> Config {
    Config {
        trust_proxy: vec!["127.0.0.1".parse().unwrap()],
        ..config()
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        std::thread::yield_now();
    }
}

/// A connection that speaks bytes.
pub struct Raw {
    pub socket: TcpStream,
    /// What has been read and not used.
    buffer: Vec<u8>,
}

/// An answer, taken apart as little as possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The head, status line included, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header field, if it is there.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The answer without its `Date`, to be compared with another.
    pub fn timeless(mut self) -> Answer {
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

    /// For those who know that the server may be gone.
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
            .expect("the server takes bytes");
        self
    }

    /// Reads one answer, by its Content-Length; an answer without one has no body here.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|| {
            let so_far = String::from_utf8_lossy(&self.buffer);
            panic!("the server hung up in an answer, after {so_far:?}")
        })
    }

    /// Reads one answer. `None`: the server hung up before its end.
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

    /// Reads one answer to HEAD, or the head of a stream.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        self.try_head().unwrap_or_else(|| {
            let so_far = String::from_utf8_lossy(&self.buffer);
            panic!("the server hung up in a head, after {so_far:?}")
        })
    }

    /// `None`: the server hung up before or in the head.
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
            String::from_utf8(self.buffer.drain(..end + 4).collect()).expect("a head of text");
        let head = head.trim_end().replace("\r\n", "\n");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Some(Answer {
            status: status.expect("a status"),
            head,
            body: Vec::new(),
        })
    }

    /// Reads to the end of the connection and answers what came.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the server has closed: it has nothing more to say, and says so.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Reads more. False: the connection has ended (a reset is an end too).
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // Somebody stopped the process for a while, and let it go on.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

/// One request on a connection of its own.
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

/// The id in the answer to a publisher.
#[track_caller]
pub fn id_of(answer: &Answer) -> String {
    let id = answer.text().split(r#""id":""#).nth(1);
    let id = id.and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("no id in {answer:?}"))
        .to_owned()
}

/// An event stream, as a browser would read it, over the chunks of HTTP/1.1.
pub struct Stream {
    pub raw: Raw,
    pub head: Answer,
    decoder: Decoder,
    messages: VecDeque<Message>,
    /// The bytes of the stream so far, without the chunks, for those who want to see them.
    pub bytes: Vec<u8>,
    /// Why the server ended the stream, if it has said so.
    pub closed: Option<String>,
    /// The last chunk has come.
    pub has_ended: bool,
}

impl Stream {
    /// Subscribes, and reads nothing but the head.
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str, fields: &str) -> Stream {
        Stream::try_open(address, target, fields).expect("the server hung up before it answered")
    }

    /// Subscribes; `None` if the server is not there, or hung up without an answer, as it may on one
    /// who has fallen behind before its stream began.
    #[track_caller]
    pub fn try_open(address: SocketAddr, target: &str, fields: &str) -> Option<Stream> {
        let mut raw = Raw::try_connect(address).ok()?;
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        raw.socket.write_all(head.as_bytes()).ok()?;
        Stream::try_on(raw)
    }

    /// A stream that was asked for on this connection, by bytes of the test's own.
    #[cfg(feature = "journal")]
    #[track_caller]
    pub fn on(raw: Raw) -> Stream {
        Stream::try_on(raw).expect("the server hung up before it answered")
    }

    #[track_caller]
    fn try_on(mut raw: Raw) -> Option<Stream> {
        let head = raw.try_head()?;
        assert_eq!(head.status, 200, "a stream was refused: {head:?}");
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

    /// Subscribes, and reads the welcome.
    #[track_caller]
    pub fn subscribe(address: SocketAddr, target: &str) -> Stream {
        let mut stream = Stream::open(address, target, "");
        assert_eq!(stream.next().name, "system");
        stream
    }

    /// Comes back after `id`, and reads the welcome; answers the recovery event's data too.
    #[track_caller]
    pub fn resume(address: SocketAddr, target: &str, id: &str) -> (Stream, String) {
        let mut stream = Stream::open(address, target, &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(stream.next().name, "system");
        let recovery = stream.next();
        assert_eq!(recovery.name, "recovery");
        (stream, recovery.data)
    }

    /// The next event.
    #[track_caller]
    pub fn next(&mut self) -> Message {
        self.try_next().expect("the stream has ended")
    }

    /// The next event; `None` when the stream has ended, by a last chunk or without. What the server
    /// says of the end is in `closed`.
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Message> {
        let start = Instant::now();
        loop {
            match self.messages.pop_front() {
                Some(message) if self.closes(&message) => {}
                Some(message) => {
                    assert_eq!(self.closed, None, "an event after the end: {message:?}");
                    return Some(message);
                }
                None if !self.read() => return None,
                None => {}
            }
            // A heartbeat is something read, and yet not what is waited for.
            assert!(
                start.elapsed() < DEADLINE,
                "no event within {DEADLINE:?}, only comments"
            );
        }
    }

    /// Whether this is the last event. Keeps its reason.
    fn closes(&mut self, message: &Message) -> bool {
        let reason = message.data.strip_prefix(r#"{"type":"closed","reason":""#);
        let reason = reason.filter(|_| message.name == "system");
        let reason = reason.and_then(|rest| rest.strip_suffix(r#""}"#));
        self.closed = reason.map(str::to_owned).or(self.closed.take());
        reason.is_some()
    }

    /// Reads until the bytes of the stream end in `text`.
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

    /// The cursor that a browser would come back with.
    pub fn cursor(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// Reads one chunk. False: there is none.
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
            "the end of a chunk"
        );
        raw.buffer.drain(..line + 4 + size);
        self.has_ended = size == 0;
        (size > 0).then_some(chunk)
    }
}

/// A number out of a JSON answer, found by the text before it.
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
        .unwrap_or_else(|_| panic!("no number behind {key} in {text}"))
}

/// A name for a directory of a test's own, which is gone at the end with all that is in it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Nothing is there yet.
    pub fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiny-sse-it-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Best effort: it is there only if a process of the same number was killed.
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// As a command line has it.
    pub fn name(&self) -> &str {
        self.0.to_str().expect("a temporary directory in UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: it may never have been there.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How many, and of their times the median, the 99th of a hundred, and the longest.
pub fn figures(what: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let count = times.len();
    let (median, p99, longest) = (times[count / 2], times[count * 99 / 100], times[count - 1]);
    format!("{count} {what}: median {median:.1?}, p99 {p99:.1?}, longest {longest:.1?}")
}

/// Does something at the end of the scope, also when the test fails there: what the threads of the
/// test go by, lest it wait for them for ever.
pub struct Finally<F: Fn()>(pub F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
