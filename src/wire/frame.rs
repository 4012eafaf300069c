//! Bytes that many clients get: encoded once, shared by all of them.
//!
//! Most clients read chunked HTTP/1.1, and the chunk's size line is the same for each of them,
//! so it is part of what is shared. A client of HTTP/1.0, or a transport that is not HTTP,
//! reads the middle of the same allocation.

use std::ops::Range;
use std::sync::Arc;

/// How a stream is delimited for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The bytes as they are; the stream ends when the connection does.
    Bare,
    /// Chunks of HTTP/1.1 (RFC 9112, 7.1), so that an end differs from a cut.
    Chunked,
}

impl Framing {
    /// What says "this was all": the last chunk, or nothing.
    pub fn end(self) -> &'static [u8] {
        match self {
            Framing::Bare => b"",
            Framing::Chunked => b"0\r\n\r\n",
        }
    }
}

/// One piece of a stream, in both framings. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Frame {
    chunk: Arc<[u8]>,
    bare: Range<usize>,
}

impl Frame {
    /// Frames `bytes`, which must not be empty: an empty chunk would end the stream.
    ///
    /// # Panics
    ///
    /// If `bytes` is empty.
    pub fn new(bytes: &[u8]) -> Frame {
        Frame::of(&[bytes])
    }

    /// [`new`](Self::new), of bytes that lie in several places.
    pub(crate) fn of(parts: &[&[u8]]) -> Frame {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        assert!(length > 0, "an empty frame would end the stream");
        let size = format!("{length:x}\r\n");
        let mut chunk = Vec::with_capacity(size.len() + length + 2);
        chunk.extend_from_slice(size.as_bytes());
        parts.iter().for_each(|part| chunk.extend_from_slice(part));
        chunk.extend_from_slice(b"\r\n");
        Frame {
            chunk: chunk.into(),
            bare: size.len()..size.len() + length,
        }
    }

    /// The bytes to write to a reader of `framing`.
    pub fn bytes(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Bare => &self.chunk[self.bare.clone()],
            Framing::Chunked => &self.chunk,
        }
    }

    /// The same, to be kept. Only the bare bytes are copied for it.
    pub fn shared(&self, framing: Framing) -> Arc<[u8]> {
        match framing {
            Framing::Bare => self.bytes(framing).into(),
            Framing::Chunked => Arc::clone(&self.chunk),
        }
    }

    /// How many bytes it holds in memory, and at the most on the wire.
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.chunk.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allocation_serves_both_framings() {
        let frame = Frame::new(b"data: 0123456789\n\n");
        assert_eq!(
            frame.bytes(Framing::Chunked),
            b"12\r\ndata: 0123456789\n\n\r\n"
        );
        assert_eq!(frame.bytes(Framing::Bare), b"data: 0123456789\n\n");
    }
}
