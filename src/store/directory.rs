//! The directory of the journal: creates it, locks it against a second server, removes
//! the permissions of other users, and lists its segments.
//!
//! The lock is on the directory itself. A separate lock file could be deleted, and a
//! second server would lock a new one while the first is still running.
//!
//! Only the names `00000001.sse`, `00000002.sse`, … are segments. Next to them a repair
//! may leave `00000002.sse.damaged`, an interrupted repair `00000002.sse.new`, and an
//! earlier version the file `lock`. All of these belong to the journal when permissions
//! are restricted; other files are never touched.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, Context, Identity};
use crate::report::Report;

/// A directory that this server has locked.
///
/// The path and the locked directory may part: an administrator moves the directory, and
/// creates another one at its path. Then the files that the journal has open are in a
/// directory that the next start does not read. [`check`](Self::check) finds this out,
/// and the journal calls it before it creates a file.
#[derive(Debug)]
pub(super) struct Directory {
    /// The absolute path, as it was at the start.
    path: PathBuf,
    /// Device and inode at the time of the lock: shows whether the path still leads to
    /// the locked directory.
    identity: Identity,
    /// Held while the journal is open. The system releases the lock when the process
    /// ends, however it ends.
    _lock: File,
}

impl Directory {
    /// Creates the directory if it is missing, locks it, and removes the permissions of
    /// other users on it and on the journal's files. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Another server has locked it (`ResourceBusy`), or it cannot be created, opened or
    /// listed.
    pub(super) fn occupy(path: &Path, report: &Report) -> io::Result<Directory> {
        // The journal uses the path for as long as it is open, and the working directory
        // of the process may change.
        let path = std::path::absolute(path).context("find", path)?;
        create(&path)?;
        // ORDER: locked before anything in it is changed. From here on, no other server
        // writes to the directory.
        let lock = lock(&path)?;
        let metadata = fs::metadata(&path).context("look at", &path)?;
        #[cfg(unix)]
        close_to_others(&path, report)?;
        Ok(Directory {
            path,
            identity: Identity::of(&metadata),
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the segment with this number, such as `DIR/00000001.sse`. The
    /// number has at least eight digits, so the names sort in the order of the events.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:08}.sse"))
    }

    /// The numbers of the existing segments, in no order. Other files are ignored.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let number = |path: PathBuf| {
            let number = path.file_name()?.to_str()?.strip_suffix(".sse")?;
            let number = number.parse().ok()?;
            // Only names that the journal itself would choose: not `1.sse` or
            // `+0000001.sse`.
            (self.segment(number) == path).then_some(number)
        };
        let paths = disk::list(&self.path)?;
        Ok(paths.into_iter().filter_map(number).collect())
    }

    /// Checks that the path still leads to the locked directory: a restart reads the
    /// directory at the path, and another server may write to another directory.
    pub(super) fn check(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path).map(|metadata| Identity::of(&metadata));
        if found.is_ok_and(|found| found == self.identity) {
            return Ok(());
        }
        let name = self.path.display();
        Err(io::Error::other(format!(
            "{name} was moved, removed or replaced while the journal was open; \
             move it back, or restart the server to use the directory that is there now"
        )))
    }
}

/// Creates the directory, for its owner alone, and makes its name durable. An existing
/// directory is fine. A missing parent is an error: it is more often a mistyped path than
/// a wish, and events in the wrong place are found only after a restart.
fn create(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created
            .context("create", path)
            .and_then(|()| disk::sync_name(path)),
    }
}

/// Locks the directory, or a file in it where directories cannot be locked. Does not wait
/// for a lock that another server has.
///
/// On Linux it is a lock of `flock`: it belongs to the open file, and the system releases
/// it when the process ends, also by `kill -9`. So no lock is left after a crash, and no
/// file has to be removed by hand.
fn lock(dir: &Path) -> io::Result<File> {
    let name = dir.join("lock");
    match File::open(dir).and_then(|opened| try_lock(opened, dir, dir)) {
        Ok(lock) => {
            // Servers of earlier versions locked this file, so it must be free too.
            if let Ok(old) = File::open(&name) {
                let old = try_lock(old, dir, &name)?;
                if old.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                    // Best effort: the file does no harm.
                    let _ = fs::remove_file(&name);
                }
            }
            Ok(lock)
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
        // Windows cannot open a directory, and NFS cannot lock one: lock a file instead.
        Err(_) => {
            let mut options = disk::private();
            options.write(true).create(true).truncate(false);
            let file = options.open(&name).context("open", &name)?;
            try_lock(file, dir, &name)
        }
    }
}

/// Locks an open file: the directory `dir` itself, or the file `name` in it.
fn try_lock(file: File, dir: &Path, name: &Path) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let line = format!("{} is in use by another tiny-sse", dir.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, line))
        }
        Err(TryLockError::Error(cause)) => Err(cause).context("lock", name),
    }
}

/// The permission bits of group and others.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// Removes the permissions of other users, and warns about it. A journal with wider
/// permissions is not refused, because earlier versions created it that way.
///
/// If the directory also contains other files, other users may need it (`/tmp`, for
/// example): then its own permissions stay, and only the journal's files are restricted.
///
/// | directory | its mode becomes | the journal's files |
/// |---|---|---|
/// | `0755`, with the journal alone | `0700` | `0600` |
/// | `0755`, with other files | `0755`, and a warning | `0600` |
/// | `0700` | `0700` | `0600` |
///
/// A permission that cannot be changed is a warning, not an error: the events are kept in
/// either case, and a server that does not start helps nobody.
#[cfg(unix)]
fn close_to_others(dir: &Path, report: &Report) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let (ours, others): (Vec<_>, Vec<_>) =
        disk::list(dir)?.into_iter().partition(|path| is_ours(path));
    // The files come first: the directory may stay open for others, the events may not.
    let (mut files, mut error) = (0, None);
    for path in ours {
        match restrict(&path).context("restrict", &path) {
            Ok(changed) => files += usize::from(changed),
            // LIMIT: only the first error is reported, however many files there are.
            Err(failed) => error = error.or(Some(failed)),
        }
    }
    let metadata = fs::metadata(dir).context("look at", dir)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let (name, is_open) = (dir.display(), mode & OTHERS != 0);
    if is_open && others.is_empty() {
        let closed = fs::Permissions::from_mode(mode & !OTHERS);
        let closed = fs::set_permissions(dir, closed).context("restrict", dir);
        error = error.or(closed.err());
    } else if is_open {
        let count = others.len();
        report.warn(format_args!(
            "{name} has the mode {mode:03o} and contains {count} other files, so its mode is not changed; \
             use a separate directory for the journal"
        ));
    }
    if files > 0 {
        report.warn(format_args!(
            "other users of the machine had permissions on {files} of the journal's files in {name}; \
             these permissions were removed"
        ));
    }
    if let Some(error) = error {
        report.warn(format_args!(
            "{error}; other users of the machine may be able to read the events"
        ));
    }
    Ok(())
}

/// Removes the permissions of other users on a regular file. Returns whether they had
/// any. Links are not followed, because a link could lead to a file of the system.
#[cfg(unix)]
fn restrict(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let seen = fs::symlink_metadata(path)?;
    let mode = seen.permissions().mode();
    if !seen.is_file() || mode & OTHERS == 0 {
        return Ok(false);
    }
    // The permissions of the open file are changed, not those of the path: the path could
    // become a link between the two calls.
    let file = File::open(path)?;
    if Identity::of(&file.metadata()?) == Identity::of(&seen) {
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777 & !OTHERS))?;
    }
    Ok(true)
}

/// Whether this is a segment, or a file that a repair or an earlier version has left next
/// to a segment.
#[cfg(unix)]
fn is_ours(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    // `00000001.sse` gives `00000001` and an empty rest, `00000001.sse.damaged.2` gives
    // `00000001` and `.damaged.2`.
    let is_segment = |(number, rest): (&str, &str)| {
        let is_number = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number && (rest.is_empty() || rest.starts_with('.'))
    };
    name == "lock" || name.split_once(".sse").is_some_and(is_segment)
}
