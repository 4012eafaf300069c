//! A segment's file: what is asked of it and of its name in the directory. Each error says which
//! file it was and what was tried.
//!
//! An open file and the file that its path leads to are two things. The journal writes to the first,
//! and the next start reads the second: an administrator who moves, removes or replaces the file
//! parts them. [`Disk::look`] asks the path.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file with its name. A trait, so that a test can make each of these fail.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    fn path(&self) -> &Path;
    /// Of the file that is open, whatever its path leads to by now.
    fn identity(&self) -> Identity;
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes at the end, wherever that is by then. If another program has cut the file meanwhile, its
    /// length shows it afterwards; a write at an offset would leave a hole before it, and the right length.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The data and the length are enough: without its times a file can be read.
    fn sync(&self) -> io::Result<()>;

    /// Makes the file's bytes and its name durable.
    fn sync_with_name(&self) -> io::Result<()> {
        self.sync()?;
        sync_name(self.path())
    }

    /// Looks at the file that the path leads to, which need not be the one that is open. `None`:
    /// there is none.
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

/// A file that was opened twice: a file that is opened for appending cannot be written to elsewhere.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    identity: Identity,
    /// Its cursor is moved by reading and writing, which only the journal's own thread does. The thread
    /// that syncs does not move it.
    anywhere: File,
    end: File,
}

impl OpenFile {
    /// A new file, which only its owner may read or write. Nothing is there, not even a link.
    pub(super) fn create_new(path: PathBuf) -> io::Result<OpenFile> {
        let mut options = private();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).context("create", &path)?;
        OpenFile::of(path, file)
    }

    /// A file that is there.
    pub(super) fn open(path: PathBuf) -> io::Result<OpenFile> {
        let file = File::options().read(true).write(true).open(&path);
        let file = file.context("open", &path)?;
        OpenFile::of(path, file)
    }

    fn of(path: PathBuf, anywhere: File) -> io::Result<OpenFile> {
        let open = || {
            let end = File::options().append(true).open(&path)?;
            let identity = Identity::of(&anywhere.metadata()?);
            if Identity::of(&end.metadata()?) != identity {
                return Err(io::Error::other("it was replaced in this moment"));
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

/// What tells a file from all others that exist at the same time: device and inode. Elsewhere than on
/// Unix, std does not say, and all files are alike.
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

/// What the system says of the file at a path, for the price of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) identity: Identity,
    pub(super) len: u64,
    /// When its contents changed last. `None`: the system does not say.
    pub(super) modified: Option<SystemTime>,
    /// It is not a directory or a pipe.
    pub(super) is_file: bool,
}

/// What is created with these options is for its owner alone: events may be private, and a journal is
/// a copy of all of them.
pub(super) fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the name of a file or directory durable: a file that was synced can still be lost with its name.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and names are as durable as the system makes them.
    if !cfg!(unix) {
        return Ok(());
    }
    // The root has no parent.
    let dir = path.parent().unwrap_or(path);
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.context("sync", dir)
}

/// The paths of all that is in a directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context("list", dir)?;
    let paths = entries.map(|entry| Ok(entry.context("list", dir)?.path()));
    paths.collect()
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).context("read", path)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).context("remove", path)
}

/// Adds to an error what was tried and with which file.
pub(super) trait Context<T> {
    /// `cannot write to DIR/00000003.sse: No space left on device (os error 28)`
    fn context(self, tried: &str, path: &Path) -> io::Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, tried: &str, path: &Path) -> io::Result<T> {
        self.map_err(|cause| {
            let remedy = match cause.kind() {
                io::ErrorKind::ReadOnlyFilesystem => {
                    "; a journal needs a directory that can be written to"
                }
                _ => "",
            };
            let line = format!("cannot {tried} {}: {cause}{remedy}", path.display());
            io::Error::new(cause.kind(), line)
        })
    }
}
