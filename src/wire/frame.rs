//! How a stream is cut into pieces for its reader: one chunk of HTTP/1.1 for each write, or none.
//!
//! An event is bare bytes wherever it is kept. What is written together is framed together: the events that
//! a batch has for a client, a piece of a replay, a heartbeat.

/// How a stream is delimited for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The bytes as they are; the stream ends when the connection does.
    Bare,
    /// Chunks of HTTP/1.1 (RFC 9112, 7.1), so that an end differs from a cut.
    Chunked,
}

impl Framing {
    /// Appends what comes before a piece of `length` bytes: the size line of a chunk, or nothing. A piece has at
    /// least one byte, because an empty chunk would end the stream.
    pub(crate) fn open(self, length: usize, out: &mut Vec<u8>) {
        assert!(length > 0, "BUG: an empty chunk would end the stream");
        if self == Framing::Chunked {
            out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
    }

    /// Appends what comes after a piece.
    pub(crate) fn close(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// These bytes as one piece.
    pub(crate) fn wrap(self, bytes: &[u8]) -> Vec<u8> {
        let mut piece = Vec::with_capacity(bytes.len() + "123456\r\n\r\n".len());
        self.open(bytes.len(), &mut piece);
        piece.extend_from_slice(bytes);
        self.close(&mut piece);
        piece
    }

    /// What ends the stream: the last chunk, or nothing.
    pub fn end(self) -> &'static [u8] {
        match self {
            Framing::Bare => b"",
            Framing::Chunked => b"0\r\n\r\n",
        }
    }
}

/// One piece of many clients' streams, made once for all of them. Most clients read chunked HTTP/1.1, and
/// get all of the bytes. A client of HTTP/1.0, or a transport that is not HTTP, gets the middle.
#[derive(Debug)]
pub(crate) struct Frame {
    chunk: Vec<u8>,
    /// Where the bare bytes begin; they end before the last line break.
    start: usize,
}

impl Frame {
    /// Joins `parts`, which must have at least one byte together.
    pub(crate) fn of<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Frame {
        let length = parts.clone().map(<[u8]>::len).sum();
        let mut chunk = Vec::with_capacity(length + "123456\r\n\r\n".len());
        Framing::Chunked.open(length, &mut chunk);
        let start = chunk.len();
        parts.for_each(|part| chunk.extend_from_slice(part));
        Framing::Chunked.close(&mut chunk);
        Frame { chunk, start }
    }

    /// The bytes to write to a reader of `framing`.
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
