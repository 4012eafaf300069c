//! Turns the bytes behind a head into the request's body.
//!
//! Nothing is allocated for what a peer has only announced: the body grows as it arrives, never over
//! its limit, and each allocation is taken from the budget of all bodies before it is made.

use super::Refusal;
use super::budget::{Budget, Share};
use super::head::{BodyLength, check_trailer, is_field_byte, is_tchar};
use crate::config::{BODY_STEP, Config, SMALL_BODY};

/// A body being read.
#[derive(Debug)]
pub(super) struct BodyDecoder<'a> {
    expected: Expected,
    body: Vec<u8>,
    /// How many bytes the body can have: the announced length, or the limit of a body in chunks.
    most: usize,
    budget: &'a Budget,
    /// The bytes that `body` has room for, if it is not small.
    share: Share,
    /// What the lines of sizes have had beyond [`PLAIN_SIZE_LINE`], in all.
    extensions: usize,
}

#[derive(Debug)]
enum Expected {
    /// This many bytes of a Content-Length are to come.
    Known(usize),
    /// The line with a chunk's size is to come.
    Size,
    /// This many bytes of a chunk are to come.
    Chunk(usize),
    /// The line break behind a chunk is to come.
    ChunkEnd,
    /// Trailer fields are to come, and this many bytes of them have.
    Trailer(usize),
    Done,
}

/// LIMIT: a chunk's size line. Extensions are allowed and mean nothing.
const SIZE_LINE: usize = 256;

/// What a size line may have without being counted: the digits of any size. LIMIT: what all of a body
/// have beyond that is no more than a head may have, so that what carries a body is at most twenty
/// times the body and a head. By lines alone it could be 260 times as much.
const PLAIN_SIZE_LINE: usize = 16;

/// The size up to which a body takes nothing of the budget: 4 KiB at the default limit. Large bodies that
/// never end can therefore not keep out small ones. LIMIT: as many bytes for each connection.
fn small(limit: usize) -> usize {
    (limit / SMALL_BODY.1).min(SMALL_BODY.0)
}

impl<'a> BodyDecoder<'a> {
    pub(super) fn new(length: BodyLength, limits: &Config, budget: &'a Budget) -> BodyDecoder<'a> {
        let (expected, most) = match length {
            BodyLength::None | BodyLength::Known(0) => (Expected::Done, 0),
            BodyLength::Known(length) => (Expected::Known(length), length),
            BodyLength::Chunked => (Expected::Size, limits.max_body),
        };
        BodyDecoder {
            expected,
            body: Vec::new(),
            most,
            budget,
            share: budget.share(),
            extensions: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.expected, Expected::Done)
    }

    /// The body, and what it has taken of the budget.
    pub(super) fn into_parts(self) -> (Vec<u8>, Share) {
        (self.body, self.share)
    }

    /// Appends bytes of the body.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (length, capacity) = (self.body.len() + bytes.len(), self.body.capacity());
        if length > capacity {
            // LIMIT: twice the bytes that have arrived while they are few, then a quarter more; and never more
            // than the largest length of this body.
            let step = (capacity / 4).max(capacity.clamp(BODY_STEP.0, BODY_STEP.1));
            let room = (capacity + step).min(self.most).max(length);
            // ORDER: the budget is charged before the memory is allocated.
            if room > small(self.budget.limit()) && !self.share.try_grow(room) {
                return Err(Refusal::BodiesTooLarge(self.budget.limit()));
            }
            let more = room - self.body.len();
            let reserved = self.body.try_reserve_exact(more);
            reserved.map_err(|_| Refusal::NoMemory(room))?;
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads on; answers how many bytes of `input` it has used. The rest, if the body is not
    /// done, is the beginning of a line, to be given again with what comes after it.
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
                    let known = matches!(self.expected, Expected::Known(_));
                    self.expected = match (left - count, known) {
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
                    // A CR at the end is half of the line break, or may come to be.
                    let line = text.strip_suffix(b"\r");
                    // ORDER: first, so that a line that dribbles in gets the same answer.
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

    fn end_line(&mut self, line: &[u8], limits: &Config) -> Result<(), Refusal> {
        if let Expected::Size = self.expected {
            self.extensions += line.len().saturating_sub(PLAIN_SIZE_LINE);
            if self.extensions > limits.max_head {
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
            _ => unreachable!("BUG: no line is due"),
        };
        Ok(())
    }

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
/// `chunk-size = 1*HEXDIG`
fn chunk_size(line: &[u8]) -> Result<usize, Refusal> {
    let (size, extensions) = line.split_at(prefix(line, |byte| byte.is_ascii_hexdigit()));
    if size.is_empty() {
        return Err(Refusal::Chunk("a chunk's size must be hexadecimal digits"));
    }
    if !are_extensions(extensions) {
        return Err(Refusal::Chunk(
            "behind a chunk's size is something that is no extension",
        ));
    }
    size.iter()
        .try_fold(0usize, |sum, &digit| {
            sum.checked_mul(16)?
                .checked_add(char::from(digit).to_digit(16)? as usize)
        })
        .ok_or(Refusal::Chunk("a chunk's size is too large to be one"))
}

/// SPEC: RFC 9112, 7.1.1: `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`,
/// a token and `token / quoted-string`. They mean nothing here. They are read all the same, because
/// a quote that does not end hides the end of the line from some readers, and not from others.
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let [b';', behind @ ..] = skip_ows(text) else {
            return false;
        };
        let name = skip_ows(behind);
        let length = prefix(name, is_tchar);
        if length == 0 {
            return false;
        }
        text = &name[length..];
        if let [b'=', behind @ ..] = skip_ows(text) {
            let value = skip_ows(behind);
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

/// How many bytes are a quoted string, whose first quote is there; 0 if its last is not.
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

/// How many of the first bytes are of a kind.
fn prefix(text: &[u8], kind: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|&byte| !kind(byte));
    end.unwrap_or(text.len())
}

fn skip_ows(text: &[u8]) -> &[u8] {
    &text[prefix(text, |byte| matches!(byte, b' ' | b'\t'))..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body that arrives up to each of `ends`, as a connection would read it.
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
        format!("{:?} is not all", decoder.expected)
    }

    /// Every string of these bytes up to a length, behind beginnings that lead to each state.
    #[test]
    fn chunks_are_the_same_however_they_are_cut() {
        let limits = Config {
            max_body: 4,
            max_head: 5,
            ..Config::default()
        };
        for beginning in ["", "2\r\nxx", "0\r\n", "1;a=\"", "0\r\nX:\r\n"] {
            for number in 0..8usize.pow(5) {
                let letters = (0..5).map(|place| b"\r\n;0 1\":"[number >> (3 * place) & 7]);
                let bytes: Vec<u8> = beginning.bytes().chain(letters).collect();
                let length = bytes.len();
                let whole = decoded(&bytes, [length].into_iter(), &limits);
                let dribbled = decoded(&bytes, 1..=length, &limits);
                assert_eq!(dribbled, whole, "{}", bytes.escape_ascii());
                for at in 1..length {
                    let cut = decoded(&bytes, [at, length].into_iter(), &limits);
                    assert_eq!(cut, whole, "at {at}: {}", bytes.escape_ascii());
                }
            }
        }
    }
}
