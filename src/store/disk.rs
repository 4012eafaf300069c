//! A segment's file: the four things that are asked of it, each of which says in its error which
//! file it was and what was tried.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What can go wrong, so that a test can make it go wrong.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// Reading and writing move the file's one cursor: they are for the journal's own thread. The one
/// that syncs does not.
impl Medium for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = self;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.seek(SeekFrom::Start(offset))?;
        io::Write::write_all(&mut file, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    /// The data and the length are enough: without its times a file can be read.
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file with its name.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    medium: Box<dyn Medium>,
}

impl Disk {
    pub(super) fn new(path: PathBuf, medium: Box<dyn Medium>) -> Disk {
        Disk { path, medium }
    }

    /// An empty file, whatever was there.
    pub(super) fn create(path: PathBuf) -> io::Result<Disk> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        match options.open(&path) {
            Ok(file) => Ok(Disk::new(path, Box::new(file))),
            Err(cause) => Err(failed("create", &path, &cause)),
        }
    }

    /// A file that is there.
    pub(super) fn open(path: PathBuf) -> io::Result<Disk> {
        match File::options().read(true).write(true).open(&path) {
            Ok(file) => Ok(Disk::new(path, Box::new(file))),
            Err(cause) => Err(failed("open", &path, &cause)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let result = self.medium.read_at(offset, bytes);
        result.map_err(|cause| failed("read", &self.path, &cause))
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

/// `cannot write to DIR/00000003.sse: No space left on device (os error 28)`
pub(super) fn failed(what: &str, path: &Path, cause: &io::Error) -> io::Error {
    let line = format!("cannot {what} {}: {cause}", path.display());
    io::Error::new(cause.kind(), line)
}
