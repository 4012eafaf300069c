//! The journal's directory: created, locked, closed to other users of the machine, and asked which
//! segments are in it.
//!
//! The lock is on the directory itself. A file for it could be deleted, and a second server would
//! then lock a new file, while this one is still running.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, Context, Identity};
use crate::report::Report;

/// A directory that no other server has.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    identity: Identity,
    /// Held for as long as the journal is open. The system frees the lock however the process ends.
    _lock: File,
}

impl Directory {
    /// Creates the directory if it is missing, locks it, and makes it and the journal's files
    /// readable by their owner alone.
    pub(super) fn occupy(path: &Path, report: &Report) -> io::Result<Directory> {
        // The files are looked for by their path as long as the journal is open, wherever the process
        // is by then.
        let path = std::path::absolute(path).context("find", path)?;
        create(&path)?;
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

    /// `DIR/00000001.sse`
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:08}.sse"))
    }

    /// The numbers of the segments that are there, in no order. Other files are not the journal's.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let number = |path: PathBuf| {
            let number = path.file_name()?.to_str()?.strip_suffix(".sse")?;
            let number = number.parse().ok()?;
            // The name that the journal would give it, not `1.sse` or `+0000001.sse`.
            (self.segment(number) == path).then_some(number)
        };
        let paths = disk::list(&self.path)?;
        Ok(paths.into_iter().filter_map(number).collect())
    }

    /// Whether the path still leads to the directory that is locked. A restart would look nowhere
    /// else, and in another directory another server may write.
    pub(super) fn check(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path).map(|metadata| Identity::of(&metadata));
        if found.is_ok_and(|found| found == self.identity) {
            return Ok(());
        }
        let name = self.path.display();
        Err(io::Error::other(format!(
            "{name} was moved, removed or replaced while the journal in it was open; \
             move it back, or restart to go on with what is there now"
        )))
    }
}

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

fn lock(dir: &Path) -> io::Result<File> {
    let name = dir.join("lock");
    match File::open(dir).and_then(|opened| try_lock(opened, dir, dir)) {
        Ok(lock) => {
            // A server of an earlier version has locked a file.
            if let Ok(old) = File::open(&name) {
                let old = try_lock(old, dir, &name)?;
                if old.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                    // Best effort: a file that stays does no harm.
                    let _ = fs::remove_file(&name);
                }
            }
            Ok(lock)
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
        // Windows cannot open a directory, and NFS cannot lock one, so a file is locked there.
        Err(_) => {
            let mut options = disk::private();
            options.write(true).create(true).truncate(false);
            let file = options.open(&name).context("open", &name)?;
            try_lock(file, dir, &name)
        }
    }
}

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

/// The permissions of other users.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// Takes the permissions of other users away. An existing journal is not refused for having given
/// them, because earlier versions created it so.
///
/// A directory that holds anything else than a journal may be one that others need, such as `/tmp`:
/// its own permissions stay, and only the journal's files are closed.
#[cfg(unix)]
fn close_to_others(dir: &Path, report: &Report) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let (ours, foreign): (Vec<_>, Vec<_>) =
        disk::list(dir)?.into_iter().partition(|path| is_ours(path));
    let (mut files, mut error) = (0, None);
    for path in ours {
        match restrict(&path).context("restrict", &path) {
            Ok(changed) => files += usize::from(changed),
            // LIMIT: one error is reported, however many files there are.
            Err(failed) => error = error.or(Some(failed)),
        }
    }
    let metadata = fs::metadata(dir).context("look at", dir)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let (name, is_open) = (dir.display(), mode & OTHERS != 0);
    if is_open && foreign.is_empty() {
        let closed = fs::Permissions::from_mode(mode & !OTHERS);
        let closed = fs::set_permissions(dir, closed).context("restrict", dir);
        error = error.or(closed.err());
    } else if is_open {
        let count = foreign.len();
        report.warn(format_args!(
            "{name} has the mode {mode:03o} and holds other files too ({count}), so its mode is not changed; \
             a journal is better kept in a directory of its own"
        ));
    }
    if files > 0 {
        report.warn(format_args!(
            "other users of the machine had permissions on {files} of the journal's files in {name}; \
             they have none now"
        ));
    }
    if let Some(error) = error {
        report.warn(format_args!(
            "{error}; other users of the machine may be able to read events there"
        ));
    }
    Ok(())
}

/// Takes the permissions of other users from a regular file, and says whether they had any. The file
/// that is changed is the one that was looked at: a link could lead to a file of the system.
#[cfg(unix)]
fn restrict(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let seen = fs::symlink_metadata(path)?;
    let mode = seen.permissions().mode();
    if !seen.is_file() || mode & OTHERS == 0 {
        return Ok(false);
    }
    let file = File::open(path)?;
    if Identity::of(&file.metadata()?) == Identity::of(&seen) {
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777 & !OTHERS))?;
    }
    Ok(true)
}

/// A segment, or a file that a repair or an earlier version left next to it.
#[cfg(unix)]
fn is_ours(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let is_segment = |(number, rest): (&str, &str)| {
        let is_number = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number && (rest.is_empty() || rest.starts_with('.'))
    };
    name == "lock" || name.split_once(".sse").is_some_and(is_segment)
}
