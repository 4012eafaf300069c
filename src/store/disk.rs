//! A segment's file: what is asked of it and of its name in the directory. Each error says which
//! file it was and what was tried.
//!
//! An open file and the file that its path leads to are two things. The journal writes to the first,
//! and the next start reads the second: an administrator who moves, removes or replaces the file
//! parts them. [`Disk::look`] asks the path.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
#[cfg(not(unix))]
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What can go wrong, so that a test can make it go wrong.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes at the end, wherever that is by then. If others have cut the file meanwhile, its length
    /// tells it afterwards; a write to a place would leave a hole before it, and the right length.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// A file that was opened twice: what is opened for appending cannot be written to elsewhere.
#[derive(Debug)]
struct Twice {
    places: File,
    end: File,
}

/// Where reading and writing move the file's one cursor, they are for the journal's own thread. The one
/// that syncs does not.
impl Medium for Twice {
    #[cfg(unix)]
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.places, bytes, offset)
    }

    #[cfg(not(unix))]
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = &self.places;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut &self.end, bytes)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.places, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = &self.places;
        file.seek(SeekFrom::Start(offset))?;
        io::Write::write_all(&mut file, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.places.set_len(len)
    }

    /// The data and the length are enough: without its times a file can be read.
    fn sync(&self) -> io::Result<()> {
        self.places.sync_data()
    }
}

/// A file with its name.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    medium: Box<dyn Medium>,
    /// Of the file that is open, whatever its path leads to by now.
    identity: Identity,
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
}

impl Disk {
    pub(super) fn new(path: PathBuf, medium: Box<dyn Medium>, identity: Identity) -> Disk {
        Disk {
            path,
            medium,
            identity,
        }
    }

    fn of(path: PathBuf, places: File) -> io::Result<Disk> {
        let open = || {
            let end = File::options().append(true).open(&path)?;
            let identity = Identity::of(&places.metadata()?);
            let is_same = identity == Identity::of(&end.metadata()?);
            let replaced = || io::Error::other("it was replaced in this moment");
            let end = is_same.then_some(end).ok_or_else(replaced)?;
            Ok((Twice { places, end }, identity))
        };
        match open() {
            Ok((file, identity)) => Ok(Disk::new(path, Box::new(file), identity)),
            Err(cause) => Err(failed("open", &path, &cause)),
        }
    }

    /// A new file, which only its owner may read or write. Nothing is there, not even a link.
    pub(super) fn create_new(path: PathBuf) -> io::Result<Disk> {
        let mut options = private();
        options.read(true).write(true).create_new(true);
        match options.open(&path) {
            Ok(file) => Disk::of(path, file),
            Err(cause) => Err(failed("create", &path, &cause)),
        }
    }

    /// A file that is there.
    pub(super) fn open(path: PathBuf) -> io::Result<Disk> {
        match File::options().read(true).write(true).open(&path) {
            Ok(file) => Disk::of(path, file),
            Err(cause) => Err(failed("open", &path, &cause)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Looks at the file that the path leads to, which need not be the one that is open. `None`:
    /// there is none.
    pub(super) fn look(&self) -> io::Result<Option<Look>> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(Look {
                identity: Identity::of(&metadata),
                len: metadata.len(),
                modified: metadata.modified().ok(),
            })),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(failed("look at", &self.path, &cause)),
        }
    }

    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let result = self.medium.read_at(offset, bytes);
        result.map_err(|cause| failed("read", &self.path, &cause))
    }

    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let result = self.medium.append(bytes);
        result.map_err(|cause| failed("write to", &self.path, &cause))
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let result = self.medium.write_at(offset, bytes);
        result.map_err(|cause| failed("write to", &self.path, &cause))
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let result = self.medium.set_len(len);
        result.map_err(|cause| failed("cut", &self.path, &cause))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let result = self.medium.sync();
        result.map_err(|cause| failed("sync", &self.path, &cause))
    }
}

/// What is created with these options is for its owner alone: events may be private, and a journal is
/// a copy of all of them.
pub(super) fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the names in a directory durable: a file that was synced can still be lost with its name.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and names are as durable as the system makes them.
    if !cfg!(unix) {
        return Ok(());
    }
    // What has no parent but the current directory has an empty one.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let result = File::open(dir).and_then(|dir| dir.sync_all());
    result.map_err(|cause| failed("sync", dir, &cause))
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|cause| failed("read", path, &cause))
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).map_err(|cause| failed("remove", path, &cause))
}

/// `cannot write to DIR/00000003.sse: No space left on device (os error 28)`
pub(super) fn failed(what: &str, path: &Path, cause: &io::Error) -> io::Error {
    let line = format!("cannot {what} {}: {cause}", path.display());
    io::Error::new(cause.kind(), line)
}
