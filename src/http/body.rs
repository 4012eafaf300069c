//! Turns the bytes behind a head into the request's body.
//!
//! Nothing is allocated for what a peer has only announced: the body grows as it arrives, and
//! never over the limit.

use super::head::{check_trailer, trim_ows};
use super::{BodyLength, Refusal};
use crate::config::Config;

/// A body being read.
#[derive(Debug)]
pub(super) struct BodyDecoder {
    state: State,
    body: Vec<u8>,
}

#[derive(Debug)]
enum State {
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

impl BodyDecoder {
    pub(super) fn new(length: BodyLength) -> BodyDecoder {
        let state = match length {
            BodyLength::None | BodyLength::Known(0) => State::Done,
            BodyLength::Known(length) => State::Known(length),
            BodyLength::Chunked => State::Size,
        };
        BodyDecoder {
            state,
            body: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Reads on; answers how many bytes of `input` it has used. The rest, if the body is not
    /// done, is the beginning of a line, to be given again with what comes after it.
    pub(super) fn decode(&mut self, input: &[u8], limits: &Config) -> Result<usize, Refusal> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.state {
                State::Done => return Ok(used),
                State::Known(left) | State::Chunk(left) => {
                    let count = left.min(rest.len());
                    self.body.extend_from_slice(&rest[..count]);
                    used += count;
                    let known = matches!(self.state, State::Known(_));
                    self.state = match (left - count, known) {
                        (0, true) => State::Done,
                        (0, false) => State::ChunkEnd,
                        (left, true) => State::Known(left),
                        (left, false) => State::Chunk(left),
                    };
                    if count < left {
                        return Ok(used);
                    }
                }
                State::Size | State::ChunkEnd | State::Trailer(_) => {
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    let begun = &rest[..end.unwrap_or(rest.len())];
                    // A CR at the end is half of the line break, or may be.
                    let line = begun.strip_suffix(b"\r").unwrap_or(begun);
                    // ORDER: the limit comes first, as it does while the line break has not come.
                    self.check_line_limit(line.len(), limits)?;
                    if end.is_none() {
                        return Ok(used);
                    }
                    if line.len() == begun.len() {
                        return Err(Refusal::Chunk("a line ends without CR"));
                    }
                    used += begun.len() + 1;
                    self.end_line(line, limits)?;
                }
            }
        }
    }

    fn end_line(&mut self, line: &[u8], limits: &Config) -> Result<(), Refusal> {
        self.state = match self.state {
            State::Size => match chunk_size(line)? {
                0 => State::Trailer(0),
                size if size > limits.max_body - self.body.len() => {
                    return Err(Refusal::BodyTooLarge(limits.max_body));
                }
                size => State::Chunk(size),
            },
            // Its limit lets only an empty one through.
            State::ChunkEnd => State::Size,
            State::Trailer(_) if line.is_empty() => State::Done,
            State::Trailer(before) => {
                check_trailer(line)?;
                State::Trailer(before + line.len() + 2)
            }
            State::Known(_) | State::Chunk(_) | State::Done => unreachable!("BUG: no line is due"),
        };
        Ok(())
    }

    fn check_line_limit(&self, length: usize, limits: &Config) -> Result<(), Refusal> {
        match self.state {
            State::Size if length > SIZE_LINE => {
                Err(Refusal::Chunk("the line of a chunk's size is too long"))
            }
            State::ChunkEnd if length > 0 => Err(Refusal::Chunk("a chunk is longer than its size")),
            State::Trailer(before) if before + length > limits.max_head => {
                Err(Refusal::HeadTooLarge(limits.max_head))
            }
            _ => Ok(()),
        }
    }
}

/// SPEC: RFC 9112, 7.1: `chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF`,
/// `chunk-size = 1*HEXDIG`, `chunk-ext = *( BWS ";" BWS chunk-ext-name [ … ] )`
fn chunk_size(line: &[u8]) -> Result<usize, Refusal> {
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let extension = trim_ows(&line[digits..]);
    let printable = extension
        .iter()
        .all(|&byte| matches!(byte, b'\t' | b' '..=b'~'));
    if digits == 0 || !(line.len() == digits || extension.starts_with(b";")) || !printable {
        return Err(Refusal::Chunk("a chunk's size must be hexadecimal digits"));
    }
    line[..digits]
        .iter()
        .try_fold(0usize, |sum, &digit| {
            sum.checked_mul(16)?
                .checked_add(char::from(digit).to_digit(16)? as usize)
        })
        .ok_or(Refusal::Chunk("a chunk's size is too large to be one"))
}
