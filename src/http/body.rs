//! Turns the bytes after a head into the body of the request. It uses no socket and no
//! clock: `Connection::receive_body` reads the bytes and calls [`BodyDecoder::decode`].
//!
//! A body comes in one of two forms. With `Content-Length: 5` the five bytes follow as
//! they are. In chunks the same body can be `3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n`: each
//! chunk has its size in hexadecimal digits, and a chunk of size 0 ends the body. Trailer
//! fields may follow; they are checked and thrown away.
//!
//! No memory is allocated for bytes that are only announced. The body grows as its bytes
//! arrive, never above its limit, and each growth is taken from the body budget first.

use super::Refusal;
use super::budget::{Budget, Share};
use super::head::{BodyLength, check_trailer, is_field_byte, is_tchar};
use crate::config::{BODY_STEP, Config, SMALL_BODY};

/// A body that is being received. It lives on the stack of the worker.
///
/// [`decode`](Self::decode) is called with what has arrived, until
/// [`is_done`](Self::is_done). In the example above, if the first read ends in the middle
/// of a chunk, the calls are:
///
/// | input | used | body so far | expected next |
/// |---|---|---|---|
/// | `3\r\nhe` | 5 bytes | `he` | `Chunk(1)` |
/// | `l\r\n2` | 3 bytes | `hel` | `Size`; the `2` is passed again |
/// | `2\r\nlo\r\n0\r\n\r\nGET` | 12 bytes | `hello` | `Done`; `GET` is the next request |
#[derive(Debug)]
pub(super) struct BodyDecoder<'a> {
    /// What the next byte belongs to.
    expected: Expected,
    /// The bytes of the body that have arrived, without chunk sizes and line breaks.
    body: Vec<u8>,
    /// LIMIT: the largest length of this body: the announced length, or `max_body` for a
    /// body in chunks.
    max_length: usize,
    /// The budget of all bodies of the server.
    budget: &'a Budget,
    /// What this body has taken of the budget: the capacity of `body`, or 0 as long as
    /// the body is small.
    share: Share,
    /// LIMIT: bytes of size lines beyond [`PLAIN_SIZE_LINE`] per line, in all chunks
    /// together; at most `max_head`.
    extension_bytes: usize,
}

/// What the decoder expects next. A body of known length goes from `Known` to `Done`. A
/// chunked body goes from `Size` to `Chunk`, `ChunkEnd` and back to `Size` for each
/// chunk, and after the size 0 to `Trailer` and `Done`.
#[derive(Debug)]
enum Expected {
    /// This many more bytes of a body with a Content-Length.
    Known(usize),
    /// The line with the size of a chunk.
    Size,
    /// This many more bytes of a chunk.
    Chunk(usize),
    /// The line break after a chunk.
    ChunkEnd,
    /// A trailer field, or the empty line that ends the body. The number counts the bytes
    /// of the trailer so far.
    Trailer(usize),
    /// Nothing: the body is complete.
    Done,
}

/// LIMIT: bytes of the line with the size of a chunk. The line may have extensions, which
/// are ignored.
const SIZE_LINE: usize = 256;

/// Bytes of a size line that are not counted: enough for the digits of any size.
///
/// LIMIT: all bytes beyond that, in all size lines of a body together, are at most
/// `max_head`. So a body of chunks of one byte takes at most 21 bytes on the wire for
/// each byte (16 bytes, two line breaks, and the byte itself), plus a head. With the
/// limit of 256 bytes per line alone it could take 261 bytes for each byte.
const PLAIN_SIZE_LINE: usize = 16;

/// The largest capacity of a body that takes nothing from a budget with this limit: 4 KiB
/// with the default limit. Because of this, large bodies that never end cannot keep small
/// bodies out. LIMIT: this many bytes per connection.
fn small_body(limit: usize) -> usize {
    (limit / SMALL_BODY.1).min(SMALL_BODY.0)
}

impl<'a> BodyDecoder<'a> {
    /// Begins a body whose length is given in this way. `limits` are the limits of the
    /// server.
    pub(super) fn new(length: BodyLength, limits: &Config, budget: &'a Budget) -> BodyDecoder<'a> {
        let (expected, max_length) = match length {
            BodyLength::None | BodyLength::Known(0) => (Expected::Done, 0),
            BodyLength::Known(length) => (Expected::Known(length), length),
            BodyLength::Chunked => (Expected::Size, limits.max_body),
        };
        BodyDecoder {
            expected,
            body: Vec::new(),
            max_length,
            budget,
            share: budget.share(),
            extension_bytes: 0,
        }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.expected, Expected::Done)
    }

    /// The body, and what it has taken of the budget. The body may be dropped before its
    /// share.
    pub(super) fn into_parts(self) -> (Vec<u8>, Share) {
        (self.body, self.share)
    }

    /// Appends bytes that have arrived to the body, and enlarges its memory if necessary.
    ///
    /// # Errors
    ///
    /// The budget has no room, or the system has no memory.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (length, capacity) = (self.body.len() + bytes.len(), self.body.capacity());
        if length > capacity {
            // LIMIT: the capacity doubles up to 4 KiB, grows by 4 KiB up to 16 KiB, and
            // then by a quarter; it never exceeds the largest length of this body.
            let step = (capacity / 4).max(capacity.clamp(BODY_STEP.0, BODY_STEP.1));
            let room = (capacity + step).min(self.max_length).max(length);
            // ORDER: the budget is charged before the memory is allocated.
            if room > small_body(self.budget.limit()) && !self.share.try_grow(room) {
                return Err(Refusal::BodiesTooLarge(self.budget.limit()));
            }
            let more = room - self.body.len();
            let reserved = self.body.try_reserve_exact(more);
            reserved.map_err(|_| Refusal::NoMemory(room))?;
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    /// Decodes as much of `input` as possible. Returns the number of bytes that it has
    /// used.
    ///
    /// If the body is done, the rest of `input` belongs to the next request. Otherwise
    /// the rest is the beginning of a line. The caller passes it again in the next call,
    /// followed by the bytes that have arrived since.
    ///
    /// # Errors
    ///
    /// The bytes break the grammar of chunks or a limit. The result is the same in
    /// whatever pieces the bytes arrive.
    pub(super) fn decode(&mut self, input: &[u8], limits: &Config) -> Result<usize, Refusal> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.expected {
                Expected::Done => return Ok(used),
                Expected::Known(left) | Expected::Chunk(left) => {
                    let count = left.min(rest.len());
                    self.append(&rest[..count])?;
                    used += count;
                    let is_known = matches!(self.expected, Expected::Known(_));
                    self.expected = match (left - count, is_known) {
                        (0, true) => Expected::Done,
                        (0, false) => Expected::ChunkEnd,
                        (left, true) => Expected::Known(left),
                        (left, false) => Expected::Chunk(left),
                    };
                    if count < left {
                        return Ok(used);
                    }
                }
                Expected::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.expected = Expected::Size;
                    }
                    [] | [b'\r'] => return Ok(used),
                    _ => return Err(Refusal::Chunk("a chunk is longer than its size")),
                },
                Expected::Size | Expected::Trailer(_) => {
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    let text = &rest[..end.unwrap_or(rest.len())];
                    // A CR at the end is the first half of a line break, unless a byte
                    // other than LF follows.
                    let line = text.strip_suffix(b"\r");
                    // ORDER: before the end of the line is looked at, so that a line that
                    // is too long is refused for the same reason whether it arrives whole
                    // or in pieces.
                    self.check_line_limit(line.unwrap_or(text).len(), limits)?;
                    match (end, line) {
                        (None, _) => return Ok(used),
                        (Some(_), None) => return Err(Refusal::Chunk("a line ends without CR")),
                        (Some(end), Some(line)) => {
                            used += end + 1;
                            self.end_line(line, limits)?;
                        }
                    }
                }
            }
        }
    }

    /// Handles a complete line, without its line break: the size of a chunk, a trailer
    /// field, or the last, empty line.
    fn end_line(&mut self, line: &[u8], limits: &Config) -> Result<(), Refusal> {
        if let Expected::Size = self.expected {
            self.extension_bytes += line.len().saturating_sub(PLAIN_SIZE_LINE);
            if self.extension_bytes > limits.max_head {
                return Err(Refusal::Chunk(
                    "the lines of the chunks' sizes are too long",
                ));
            }
        }
        self.expected = match self.expected {
            Expected::Size => match chunk_size(line)? {
                0 => Expected::Trailer(0),
                size if size > limits.max_body - self.body.len() => {
                    return Err(Refusal::BodyTooLarge(limits.max_body));
                }
                size => Expected::Chunk(size),
            },
            Expected::Trailer(_) if line.is_empty() => Expected::Done,
            Expected::Trailer(before) => {
                check_trailer(line)?;
                Expected::Trailer(before + line.len() + 2)
            }
            _ => unreachable!("BUG: no line is expected"),
        };
        Ok(())
    }

    /// Refuses a line whose first `length` bytes already break a limit. The line may not
    /// have ended.
    fn check_line_limit(&self, length: usize, limits: &Config) -> Result<(), Refusal> {
        match self.expected {
            Expected::Size if length > SIZE_LINE => {
                Err(Refusal::Chunk("the line of a chunk's size is too long"))
            }
            Expected::Trailer(before) if before + length > limits.max_head => {
                Err(Refusal::HeadTooLarge(limits.max_head))
            }
            _ => Ok(()),
        }
    }
}

/// SPEC: RFC 9112, 7.1: `chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF`,
/// `chunk-size = 1*HEXDIG`. Parses a line such as `1a;name=value`, and returns its size,
/// here 26.
fn chunk_size(line: &[u8]) -> Result<usize, Refusal> {
    let (size, extensions) = line.split_at(prefix(line, |byte| byte.is_ascii_hexdigit()));
    if size.is_empty() {
        return Err(Refusal::Chunk("a chunk's size must be hexadecimal digits"));
    }
    if !are_extensions(extensions) {
        return Err(Refusal::Chunk(
            "a chunk's size is followed by something that is not an extension",
        ));
    }
    size.iter()
        .try_fold(0usize, |sum, &digit| {
            sum.checked_mul(16)?
                .checked_add(char::from(digit).to_digit(16)? as usize)
        })
        .ok_or(Refusal::Chunk(
            "a chunk's size is too large for this machine",
        ))
}

/// SPEC: RFC 9112, 7.1.1: `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS
/// chunk-ext-val ] )`, where the name is a token and the value is
/// `token / quoted-string`. Extensions are ignored. They are checked anyway, because an
/// open quote hides the end of the line from some parsers and not from others, and
/// parsers that disagree about the end of a body are how requests are smuggled.
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let [b';', rest @ ..] = skip_ows(text) else {
            return false;
        };
        let name = skip_ows(rest);
        let length = prefix(name, is_tchar);
        if length == 0 {
            return false;
        }
        text = &name[length..];
        if let [b'=', rest @ ..] = skip_ows(text) {
            let value = skip_ows(rest);
            let length = match value {
                [b'"', ..] => quoted_string(value),
                _ => prefix(value, is_tchar),
            };
            if length == 0 {
                return false;
            }
            text = &value[length..];
        }
    }
    true
}

/// The length of the quoted string at the beginning of `text`, with both quotes. `text`
/// begins with a quote. 0: the string does not end, or has a byte that is not allowed.
///
/// SPEC: RFC 9110, 5.6.4: `quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE`
fn quoted_string(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        at += match text[at..] {
            [b'"', ..] => return at + 1,
            [b'\\', byte, ..] if is_field_byte(byte) => 2,
            [byte, ..] if byte != b'\\' && is_field_byte(byte) => 1,
            _ => return 0,
        };
    }
}

/// How many bytes at the beginning of `text` are of one kind.
fn prefix(text: &[u8], kind: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|&byte| !kind(byte));
    end.unwrap_or(text.len())
}

/// `text` without the white space at its beginning.
fn skip_ows(text: &[u8]) -> &[u8] {
    &text[prefix(text, |byte| matches!(byte, b' ' | b'\t'))..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome for a body whose bytes up to each of `ends` arrive one after the
    /// other, as a text to compare.
    fn decoded(bytes: &[u8], ends: impl Iterator<Item = usize>, limits: &Config) -> String {
        let budget = Budget::new(limits.total_bodies);
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, limits, &budget);
        let mut used = 0;
        for end in ends {
            match decoder.decode(&bytes[used..end], limits) {
                Err(refusal) => return format!("{refusal:?}"),
                Ok(count) => used += count,
            }
            if decoder.is_done() {
                return format!("{:?} of {used} bytes", decoder.into_parts().0);
            }
        }
        format!("{:?} is not complete", decoder.expected)
    }

    /// Tries every string of five of these bytes after beginnings that lead to each
    /// state.
    #[test]
    fn chunks_are_decoded_in_the_same_way_however_they_are_cut() {
        let limits = Config {
            max_body: 4,
            max_head: 5,
            ..Config::default()
        };
        for beginning in ["", "2\r\nxx", "0\r\n", "1;a=\"", "0\r\nX:\r\n"] {
            for number in 0..8usize.pow(5) {
                let letters = (0..5).map(|index| b"\r\n;0 1\":"[number >> (3 * index) & 7]);
                let bytes: Vec<u8> = beginning.bytes().chain(letters).collect();
                let length = bytes.len();
                let whole = decoded(&bytes, [length].into_iter(), &limits);
                let byte_by_byte = decoded(&bytes, 1..=length, &limits);
                assert_eq!(byte_by_byte, whole, "{}", bytes.escape_ascii());
                for at in 1..length {
                    let cut = decoded(&bytes, [at, length].into_iter(), &limits);
                    assert_eq!(cut, whole, "at {at}: {}", bytes.escape_ascii());
                }
            }
        }
    }
}
