//! Cuts a stream into pieces for its reader: one chunk of HTTP/1.1 per write, or the
//! bytes without chunks.
//!
//! The history, the queues and the journal hold messages without chunks. Messages that
//! are written together become one chunk: the events of one batch for a client, a part of
//! a replay, a heartbeat. So a batch of 100 events costs one chunk header and not 100.

/// How a stream is delimited for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The bytes without anything around them. The end of the connection is the end of
    /// the stream: HTTP/1.0, and transports other than HTTP.
    Bare,
    /// Chunks of HTTP/1.1 (RFC 9112, 7.1). They let a client tell the end of the stream
    /// from a broken connection.
    Chunked,
}

impl Framing {
    /// Appends the bytes before a piece of `length` bytes: the size line of a chunk, or
    /// nothing. `length` is at least 1, because an empty chunk would end the stream.
    ///
    /// SPEC: RFC 9112, 7.1: `chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF`, with
    /// the size in hexadecimal.
    pub(crate) fn open(self, length: usize, out: &mut Vec<u8>) {
        assert!(length > 0, "BUG: an empty chunk would end the stream");
        if self == Framing::Chunked {
            out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
    }

    /// Appends the bytes after a piece: the line break that ends a chunk, or nothing.
    pub(crate) fn close(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Returns these bytes as one piece.
    pub(crate) fn wrap(self, bytes: &[u8]) -> Vec<u8> {
        let mut piece = Vec::with_capacity(bytes.len() + "123456\r\n\r\n".len());
        self.open(bytes.len(), &mut piece);
        piece.extend_from_slice(bytes);
        self.close(&mut piece);
        piece
    }

    /// The bytes that end the stream: the last chunk, or nothing.
    pub fn end(self) -> &'static [u8] {
        match self {
            Framing::Bare => b"",
            Framing::Chunked => b"0\r\n\r\n",
        }
    }
}

/// One piece of the streams of many clients, encoded once and shared by all of them. Most
/// clients read chunked HTTP/1.1 and get the whole chunk. A client with [`Framing::Bare`]
/// gets the middle of it, without size line and line break, so both kinds share one
/// allocation.
#[derive(Debug)]
pub(crate) struct Frame {
    /// A complete chunk: size line, data, line break.
    chunk: Vec<u8>,
    /// The position of the data in `chunk`. The data ends before the last line break.
    start: usize,
}

impl Frame {
    /// Joins `parts` into one chunk. Together they must have at least one byte.
    pub(crate) fn of<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Frame {
        let length = parts.clone().map(<[u8]>::len).sum();
        let mut chunk = Vec::with_capacity(length + "123456\r\n\r\n".len());
        Framing::Chunked.open(length, &mut chunk);
        let start = chunk.len();
        parts.for_each(|part| chunk.extend_from_slice(part));
        Framing::Chunked.close(&mut chunk);
        Frame { chunk, start }
    }

    /// The bytes to write to a client with this framing.
    pub(crate) fn bytes(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Bare => &self.chunk[self.start..self.chunk.len() - "\r\n".len()],
            Framing::Chunked => &self.chunk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allocation_serves_both_framings() {
        let frame = Frame::of([&b"data: 01234"[..], b"56789\n\n"].into_iter());
        let whole = b"12\r\ndata: 0123456789\n\n\r\n";
        assert_eq!(frame.bytes(Framing::Chunked), whole);
        assert_eq!(frame.bytes(Framing::Bare), b"data: 0123456789\n\n");
        assert_eq!(Framing::Chunked.wrap(b"data: 0123456789\n\n"), whole);
    }
}
