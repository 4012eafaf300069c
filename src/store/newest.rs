//! The newest segment, which is the one that is written to, and the check whether its
//! file is as the journal left it: at its path, with the same length, and not changed by
//! another program.
//!
//! The *good length* is the length of everything that was acknowledged to publishers.
//! Bytes after it are remains of an append that failed, and are cut off before the next
//! one.
//!
//! ```text
//!                                good length
//! ├── acknowledged ───────────────────┤                     Whole: the file ends here
//! ├── acknowledged ───────────────────┤── maybe more ──▶    Torn: an append has failed
//! ?                                                         Doubtful: read it again first
//! ```

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Disk, Look, OpenFile};
use super::segment;
use crate::config::SyncMode;
use crate::wire::EventId;

/// The newest segment. Used by the publisher that has the log; only `disk` is shared with
/// the thread that syncs.
#[derive(Debug)]
pub(super) struct Newest {
    /// The number in the file's name.
    pub(super) number: u64,
    /// The open file.
    pub(super) disk: Arc<dyn Disk>,
    /// The good length, in bytes. Only [`accept`](Self::accept) moves it, and only
    /// forwards.
    pub(super) len: u64,
    /// What is expected of the file at the next append.
    pub(super) left: Left,
}

/// The state in which the journal left the file, as far as it knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// The file ends at the good length, and the system described it like this. If it
    /// describes it differently at the next append, another program has changed it.
    Whole(Look),
    /// An append has begun or failed: there may be bytes after the good length.
    Torn,
    /// Another program changed the file during an append: it must be read again before it
    /// is used.
    Doubtful,
}

impl Newest {
    /// Continues a file whose first `len` bytes are complete records. The caller has made
    /// them durable, if `sync` asks for that. If the file is not at its path any more,
    /// its state is doubtful, and the next append looks closer.
    pub(super) fn resume(number: u64, disk: OpenFile, len: u64) -> io::Result<Newest> {
        let left = disk.look()?.map_or(Left::Doubtful, Left::Whole);
        Ok(Newest {
            number,
            disk: Arc::new(disk),
            len,
            left,
        })
    }

    /// Creates a segment that consists of this header, and makes it durable unless `sync`
    /// is `Off`.
    pub(super) fn begin(
        path: PathBuf,
        number: u64,
        header: &[u8],
        sync: SyncMode,
    ) -> io::Result<Newest> {
        let disk = OpenFile::create_new(path)?;
        let written = disk.append(header).and_then(|()| match sync {
            SyncMode::Off => Ok(()),
            SyncMode::Always | SyncMode::Interval => disk.sync_with_name(),
        });
        if let Err(error) = written {
            // Best effort: the file has no events; the next start and the next attempt
            // remove such a file.
            let _ = fs::remove_file(disk.path());
            return Err(error);
        }
        Newest::resume(number, disk, header.len() as u64)
    }

    /// Whether the file at the path is as it was left. `times` says whether its
    /// modification time is compared too: only the time reveals bytes that were
    /// overwritten in place.
    pub(super) fn is_as_left(&self, found: Option<Look>, times: bool) -> bool {
        let (Left::Whole(mut left), Some(found)) = (self.left, found) else {
            return false;
        };
        if !times {
            left.modified = found.modified;
        }
        found == left
    }

    /// Records that an append has failed: there may be bytes after the good length. A
    /// file that is doubtful stays doubtful, because a cut alone would not be enough for
    /// it.
    pub(super) fn tear(&mut self) {
        if let Left::Whole(_) = self.left {
            self.left = Left::Torn;
        }
    }

    /// Whether the file only needs to be cut to its good length: an append has failed,
    /// and the file is still the same one and not shorter than the good length.
    pub(super) fn may_be_cut(&self, found: Option<Look>) -> bool {
        let is_ours = |found: Look| found.identity == self.disk.identity() && found.len >= self.len;
        matches!(self.left, Left::Torn) && found.is_some_and(is_ours)
    }

    /// The last step of an append: moves the good length by `bytes`, which were written
    /// and synced.
    ///
    /// A restart reads the file at the path. So the bytes only count if the file at the
    /// path is the open one and has exactly the new length. Otherwise another program has
    /// changed the file, and its state is [doubtful](Left::Doubtful). Returns whether the
    /// good length was moved.
    pub(super) fn accept(&mut self, bytes: usize) -> io::Result<bool> {
        let len = self.len + bytes as u64;
        match self.disk.look()? {
            Some(found) if found.identity == self.disk.identity() && found.len == len => {
                (self.len, self.left) = (len, Left::Whole(found));
                Ok(true)
            }
            _ => {
                self.left = Left::Doubtful;
                Ok(false)
            }
        }
    }

    /// Reads the file at the path after another program has changed it. If the file still
    /// begins with everything that was acknowledged, up to the event `last`, returns the
    /// file and its length. Otherwise returns what has happened, as the end of a sentence
    /// about the file.
    ///
    /// The checks go from cheap to expensive: the file exists, is a regular file, is long
    /// enough, can be read, and has valid records up to `last` within the good length.
    /// The checksums are enough for the last one: the file may be a copy of the one that
    /// was written, made by an editor or a backup, and then it is as good.
    pub(super) fn examine(
        &self,
        found: Option<Look>,
        last: EventId,
    ) -> Result<(OpenFile, u64), String> {
        let Some(found) = found else {
            return Err("was removed or moved by another program".into());
        };
        let changed = if found.identity != self.disk.identity() {
            "was replaced by another file".into()
        } else if found.len < self.len {
            let (was, is) = (self.len, found.len);
            format!("was cut from {was} bytes to {is} by another program")
        } else {
            "was changed by another program".into()
        };
        // Opening a pipe would block until another program opens its other end.
        if found.len < self.len || !found.is_file {
            return Err(changed);
        }
        let unreadable = |error: io::Error| format!("{changed} ({error})");
        let disk = OpenFile::open(self.disk.path().to_owned()).map_err(unreadable)?;
        // LIMIT: the good length (a segment and one group), however large the file is
        // now.
        let mut bytes = vec![0; self.len as usize];
        disk.read_at(0, &mut bytes).map_err(unreadable)?;
        match segment::read(&bytes).damage_before(last) {
            None => Ok((disk, found.len)),
            Some(_) => Err(changed),
        }
    }
}
