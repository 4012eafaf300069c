//! The journal's directory: created, locked, and closed to other users of the machine.
//!
//! The lock is on the directory itself. A file for it could be deleted, and a second server would
//! then lock a new file, while this one is still running.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, Identity, failed};
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
        create(path)?;
        let lock = lock(path)?;
        let metadata = fs::metadata(path).map_err(|cause| failed("look at", path, &cause))?;
        close_to_others(path, report)?;
        Ok(Directory {
            path: path.to_owned(),
            identity: Identity::of(&metadata),
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
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
        Ok(()) => disk::sync_dir(path.parent().unwrap_or(path)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(failed("create", path, &cause)),
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let name = path.join("lock");
    let lock = match File::open(path).map(|dir| (dir.try_lock(), dir)) {
        Ok((Ok(()), dir)) => dir,
        Ok((Err(TryLockError::WouldBlock), _)) => return Err(in_use(path)),
        // Windows cannot open a directory, and NFS cannot lock one, so a file is locked there.
        Ok((Err(TryLockError::Error(_)), _)) | Err(_) => {
            let mut options = disk::private();
            options.write(true).create(true).truncate(false);
            let file = options.open(&name);
            let file = file.map_err(|cause| failed("open", &name, &cause))?;
            try_lock(&file, path, &name)?;
            return Ok(file);
        }
    };
    // A server of an earlier version has locked a file.
    match File::open(&name) {
        Ok(file) => {
            try_lock(&file, path, &name)?;
            if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                // Best effort: a file that stays does no harm.
                let _ = fs::remove_file(&name);
            }
            Ok(lock)
        }
        Err(_) => Ok(lock),
    }
}

fn try_lock(file: &File, dir: &Path, name: &Path) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(in_use(dir)),
        Err(TryLockError::Error(cause)) => Err(failed("lock", name, &cause)),
    }
}

fn in_use(dir: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{} is in use by another tiny-sse", dir.display()),
    )
}

/// Takes the permissions of other users away. An existing journal is not refused for having given
/// them, because earlier versions created it so.
///
/// A directory that holds anything else than a journal may be one that others need, such as `/tmp`:
/// its own permissions stay, and only the journal's files are closed.
#[cfg(unix)]
fn close_to_others(dir: &Path, report: &Report) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS: u32 = 0o077;

    let listed = |cause| failed("list", dir, &cause);
    let (mut files, mut foreign, mut errors) = (0, 0, Vec::new());
    for entry in fs::read_dir(dir).map_err(listed)? {
        let path = entry.map_err(listed)?.path();
        if !is_ours(&path) {
            foreign += 1;
            continue;
        }
        match restrict(&path, OTHERS) {
            Ok(changed) => files += usize::from(changed),
            Err(cause) => errors.push(failed("restrict", &path, &cause)),
        }
    }
    let metadata = fs::metadata(dir).map_err(|cause| failed("look at", dir, &cause))?;
    let mode = metadata.permissions().mode() & 0o7777;
    let (name, is_open) = (dir.display(), mode & OTHERS != 0);
    if is_open && foreign == 0 {
        let closed = fs::Permissions::from_mode(mode & !OTHERS);
        if let Err(cause) = fs::set_permissions(dir, closed) {
            errors.push(failed("restrict", dir, &cause));
        }
    } else if is_open {
        report.warn(format_args!(
            "{name} has the mode {mode:03o} and holds other files too ({foreign}), so its mode is not changed; \
             a journal is better kept in a directory of its own"
        ));
    }
    if files > 0 {
        report.warn(format_args!(
            "other users of the machine had permissions on {files} of the journal's files in {name}; \
             they have none now"
        ));
    }
    // LIMIT: one line, however many files there are.
    if let Some(error) = errors.first() {
        report.warn(format_args!(
            "{error}; other users of the machine may be able to read events there"
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn close_to_others(_: &Path, _: &Report) -> io::Result<()> {
    Ok(())
}

/// Takes permissions from a regular file, and says whether it had any of them. The file that is
/// changed is the one that was looked at: a link could lead to a file of the system.
#[cfg(unix)]
fn restrict(path: &Path, bits: u32) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let seen = fs::symlink_metadata(path)?;
    let mode = seen.permissions().mode();
    if !seen.is_file() || mode & bits == 0 {
        return Ok(false);
    }
    let file = File::open(path)?;
    if Identity::of(&file.metadata()?) == Identity::of(&seen) {
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777 & !bits))?;
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
