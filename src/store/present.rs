//! The segment that is written to, and the check that its file is as the journal left it: at its path,
//! of the same length, and not changed by another program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, Disk, Look};
use super::segment;
use crate::config::SyncMode;
use crate::wire::EventId;

/// The newest segment.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) number: u64,
    /// Shared with the thread that syncs.
    pub(super) disk: Arc<Disk>,
    /// The good length: what is acknowledged ends here.
    pub(super) len: u64,
    /// The state of the file at its path after our last write.
    left: Look,
}

impl Present {
    /// Goes on with a file whose first `len` bytes are whole.
    pub(super) fn resume(number: u64, disk: Disk, len: u64) -> io::Result<Present> {
        let Some(left) = disk.look()? else {
            let cause = io::ErrorKind::NotFound.into();
            return Err(disk::failed("find", disk.path(), &cause));
        };
        Ok(Present {
            number,
            disk: Arc::new(disk),
            len,
            left,
        })
    }

    /// Begins a segment after the event with this id, or after a hole that ends with it.
    pub(super) fn begin(
        path: PathBuf,
        number: u64,
        after: Beginning,
        sync: SyncMode,
    ) -> io::Result<Present> {
        let mut text = Vec::new();
        match after {
            Beginning::After(id) => segment::encode_header(id, &mut text),
            Beginning::AfterHole(id) => {
                segment::encode_header(id, &mut text);
                segment::encode_gap(id, None, &mut text);
            }
        }
        let disk = Disk::create_new(path.clone())?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let begin = || {
            disk.append(&text)?;
            if sync == SyncMode::Off {
                return Ok(());
            }
            disk.sync()?;
            disk::sync_dir(dir)
        };
        if let Err(error) = begin() {
            // Best effort: what is left has no events, which a start and the next attempt know.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Present::resume(number, disk, text.len() as u64)
    }

    /// Whether the file at the path is as we left it. `times` says whether the time of its last change
    /// counts, too: only that tells of bytes that were changed in their place.
    pub(super) fn is_as_left(&self, found: Option<Look>, times: bool) -> bool {
        let Some(found) = found else { return false };
        let same = found.identity == self.left.identity && found.len == self.left.len;
        same && (found.modified == self.left.modified || !times)
    }

    /// Whether the file at the path is the open one, and at least as long as the good length.
    pub(super) fn may_be_cut(&self, found: Option<Look>) -> bool {
        found.is_some_and(|found| found.identity == self.disk.identity() && found.len >= self.len)
    }

    /// Moves the good length by `bytes`, which were appended and synced, if the file at the path is then
    /// the open one and has that length: a restart will read that file. False: another program has
    /// changed it.
    pub(super) fn accept(&mut self, bytes: usize) -> io::Result<bool> {
        let len = self.len + bytes as u64;
        let Some(found) = self.disk.look()? else {
            return Ok(false);
        };
        if found.identity != self.disk.identity() || found.len != len {
            return Ok(false);
        }
        (self.len, self.left) = (len, found);
        Ok(true)
    }

    /// Remembers how the file is now that we have written a part of it again, or cut it.
    pub(super) fn note_left(&mut self) -> io::Result<()> {
        let found = self.disk.look()?;
        let is_ours =
            |found: &Look| found.identity == self.disk.identity() && found.len == self.len;
        if let Some(found) = found.filter(is_ours) {
            self.left = found;
        }
        Ok(())
    }

    /// Reads the file at the path, whatever was done to it. If it begins with all that was
    /// acknowledged, up to the event `last`, it is returned, with the length that it has; otherwise
    /// why it is not what it should be.
    pub(super) fn examine(
        &self,
        found: Option<Look>,
        last: EventId,
    ) -> Result<(Disk, u64), String> {
        let Some(found) = found else {
            return Err("was removed or moved, and not by this server".into());
        };
        let changed = if found.identity != self.disk.identity() {
            "was replaced by another file, and not by this server".into()
        } else if found.len < self.len {
            let (was, is) = (self.len, found.len);
            format!("was cut from {was} bytes to {is}, and not by this server")
        } else {
            "was changed, and not by this server".into()
        };
        let path = self.disk.path();
        // Opening a pipe could wait for ever.
        if found.len < self.len || !fs::metadata(path).is_ok_and(|found| found.is_file()) {
            return Err(changed);
        }
        let unreadable = |error: io::Error| format!("{changed} ({error})");
        let disk = Disk::open(path.to_owned()).map_err(unreadable)?;
        // LIMIT: a segment and one group, however large the file is now.
        let mut bytes = vec![0; self.len as usize];
        disk.read_at(0, &mut bytes).map_err(unreadable)?;
        if segment::is_up_to(&bytes, last) {
            Ok((disk, found.len))
        } else {
            Err(changed)
        }
    }
}

/// What a segment begins after.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beginning {
    /// The event with this id, which ends the segment before.
    After(EventId),
    /// Events that are lost, the last of them with this id.
    AfterHole(EventId),
}
