//! The file of a segment: reading, appending, syncing, and a look at its path. Every
//! error names the file and the operation that failed.
//!
//! The open file and the file at its path are two things. The journal writes to the open
//! file, and the next start reads the file at the path. After an administrator has moved,
//! removed or replaced the file, they differ; [`Disk::look`] looks at the path.
//!
//! Why a name must be synced too: a file is found through its directory, and a directory
//! is a file of its own. After a power failure a synced file may exist without a name,
//! and a removed or renamed file may have its old name again. [`sync_name`] syncs the
//! directory.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// An open file with its path. It is a trait so that a test can make each operation fail.
/// Every function may block on the disk, and returns an error that names the file.
///
/// All functions take `&self`, because two threads have the file: the publisher that has
/// the log uses all of them, and the thread of `syncer.rs` calls only `sync`.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// The path at which the file was created or opened.
    fn path(&self) -> &Path;
    /// The identity of the open file, whichever file is at its path now. An inode is not
    /// given to another file while this one is open, so the comparison is exact.
    fn identity(&self) -> Identity;
    /// Fills `bytes` from the position `offset`.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes at the end of the file, wherever the end is now. If another program has
    /// truncated the file meanwhile, its length is wrong afterwards, which is noticed. A
    /// write at an offset would fill the missing part with zeros, and the length would
    /// look right.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Overwrites the bytes from the position `offset` on. Only used for bytes that could
    /// not be synced, and that must be written once more.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Truncates the file to this length, in bytes. The later bytes are gone for every
    /// reader at once, and for a restart after the next [`sync`](Self::sync).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes data and length durable (`fdatasync`). The file's times need not be durable.
    fn sync(&self) -> io::Result<()>;

    /// Makes the data and the name of the file durable.
    fn sync_with_name(&self) -> io::Result<()> {
        self.sync()?;
        sync_name(self.path())
    }

    /// Looks at the file at the path, which may be another file than the open one.
    /// `None`: there is no file.
    fn look(&self) -> io::Result<Option<Look>> {
        match fs::metadata(self.path()) {
            Ok(metadata) => Ok(Some(Look {
                identity: Identity::of(&metadata),
                len: metadata.len(),
                modified: metadata.modified().ok(),
                is_file: metadata.is_file(),
            })),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause).context("look at", self.path()),
        }
    }
}

/// A file that is open twice: once for appending, once for writing at any position,
/// because a file that is opened for appending can only be written at its end.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    identity: Identity,
    /// For reading and writing at a position. Only the thread that has the journal moves
    /// its cursor; the thread that syncs does not.
    anywhere: File,
    /// For appending.
    end: File,
}

impl OpenFile {
    /// Creates a file that only its owner may read and write.
    ///
    /// # Errors
    ///
    /// Something exists at the path, even if it is only a link; or the disk fails.
    pub(super) fn create_new(path: PathBuf) -> io::Result<OpenFile> {
        let mut options = private();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).context("create", &path)?;
        OpenFile::of(path, file)
    }

    /// Opens an existing file for reading and writing. Creates nothing.
    pub(super) fn open(path: PathBuf) -> io::Result<OpenFile> {
        let file = File::options().read(true).write(true).open(&path);
        let file = file.context("open", &path)?;
        OpenFile::of(path, file)
    }

    /// Opens the file a second time, for appending, and checks that both are the same
    /// file.
    fn of(path: PathBuf, anywhere: File) -> io::Result<OpenFile> {
        let open = || {
            let end = File::options().append(true).open(&path)?;
            let identity = Identity::of(&anywhere.metadata()?);
            if Identity::of(&end.metadata()?) != identity {
                return Err(io::Error::other("it was replaced at this moment"));
            }
            Ok((end, identity))
        };
        let (end, identity) = open().context("open", &path)?;
        Ok(OpenFile {
            path,
            identity,
            anywhere,
            end,
        })
    }

    /// Moves the cursor of `anywhere`, and returns that file. `pread` would need no
    /// cursor, but std has it only for Unix.
    fn at(&self, offset: u64) -> io::Result<&File> {
        let mut file = &self.anywhere;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }
}

impl Disk for OpenFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let result = self.at(offset).and_then(|mut file| file.read_exact(bytes));
        result.context("read", &self.path)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let result = (&self.end).write_all(bytes);
        result.context("write to", &self.path)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let result = self.at(offset).and_then(|mut file| file.write_all(bytes));
        result.context("write to", &self.path)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.anywhere.set_len(len).context("cut", &self.path)
    }

    fn sync(&self) -> io::Result<()> {
        self.anywhere.sync_data().context("sync", &self.path)
    }
}

/// Device and inode, which distinguish a file from all other files that exist at the same
/// time. std offers them only on Unix; on other systems all files have the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Identity {
        use std::os::unix::fs::MetadataExt;
        Identity(metadata.dev(), metadata.ino())
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &Metadata) -> Identity {
        Identity(0, 0)
    }
}

/// The description of the file at a path, from one call of `stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Shows whether it is the open file, or another file at the same path.
    pub(super) identity: Identity,
    /// The length of the file, in bytes.
    pub(super) len: u64,
    /// The time of its last modification. `None`: the system does not have it.
    pub(super) modified: Option<SystemTime>,
    /// Whether it is a regular file, and not a directory or a pipe.
    pub(super) is_file: bool,
}

/// Options that create a file for its owner alone: events may be private, and the journal
/// has a copy of each.
pub(super) fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the name of a file or directory durable. Without this, a synced file may have no
/// name after a power failure.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    // On other systems a directory cannot be opened as a file, and names are as durable
    // as the system makes them.
    if !cfg!(unix) {
        return Ok(());
    }
    // The root has no parent.
    let dir = path.parent().unwrap_or(path);
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.context("sync", dir)
}

/// Returns the paths of all entries of a directory, in no order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context("list", dir)?;
    let paths = entries.map(|entry| Ok(entry.context("list", dir)?.path()));
    paths.collect()
}

/// Reads a whole file into memory. LIMIT: a segment has 32 MiB and one group of events,
/// and segments are read one after another.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).context("read", path)
}

/// Removes a file. The removal is not durable until [`sync_name`] is called; nobody needs
/// that here, because a file that comes back has no events.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).context("remove", path)
}

/// Adds the operation and the file to an error. std's errors have neither:
/// `No space left on device` alone does not tell an administrator which disk is full.
pub(super) trait Context<T> {
    /// Returns the error with a text such as `cannot write to DIR/00000003.sse: No space
    /// left on device (os error 28)`, and with the same kind. `tried` is the verb.
    fn context(self, tried: &str, path: &Path) -> io::Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, tried: &str, path: &Path) -> io::Result<T> {
        self.map_err(|cause| {
            // The other kinds explain themselves: no space, no permission, no such file.
            let remedy = match cause.kind() {
                io::ErrorKind::ReadOnlyFilesystem => "; a journal needs a writable directory",
                _ => "",
            };
            let line = format!("cannot {tried} {}: {cause}{remedy}", path.display());
            io::Error::new(cause.kind(), line)
        })
    }
}
