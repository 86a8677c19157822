//! Locks that processes take on each other, and telling whether a file is still the same.
//!
//! Invariant: the kernel lets go of a lock when its holder dies. The file that carries it means nothing, and only the
//! holder removes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocm_content::{Disk, Error, ErrorKind, Result};
use tokio::time::Instant;

use super::file::{blocking, make_folder, no_follow, not_followed, os};

/// How long to wait for another process's change to an archive.
const PATIENCE: Duration = Duration::from_secs(60);

/// What tells one state of a file from another.
#[derive(Debug, PartialEq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    modified: Option<std::time::SystemTime>,
    len: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let inode = (0, 0);
        Self {
            inode,
            modified: metadata.modified().ok(),
            len: metadata.len(),
        }
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits for the lock `name` in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when another process does not let go of it.
    pub(super) async fn take(disk: &Disk, folder: &Path, name: &'static str) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            let (disk, given) = (disk.clone(), folder.to_owned());
            if let Some(held) = blocking(move || Self::try_take(&disk, &given, name)).await? {
                return Ok(held);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "another process holds {} for more than {} seconds",
                        folder.join(name).display(),
                        PATIENCE.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Takes the lock unless another has it. Blocks for no longer than system calls do.
    pub(super) fn try_take(disk: &Disk, folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = folder.join(name);
        let mut attempts = 0;
        let file = loop {
            match open(disk, &path) {
                // Another process may remove the folder when it is done.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 8 => {
                    attempts += 1;
                    make_folder(disk, folder)?;
                }
                opened => {
                    break opened.map_err(|error| {
                        not_followed(&path).unwrap_or_else(|| os("open", &path, &error))
                    })?;
                }
            }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(os("lock", &path, &error)),
        }
        // The holder before removed the file: a lock on what has no name any more excludes nobody.
        let same = match (file.metadata(), path.symlink_metadata()) {
            (Ok(ours), Ok(named)) => Stamp::of(&ours).inode == Stamp::of(&named).inode,
            _ => false,
        };
        Ok(same.then_some(Self { file, path }))
    }
}

fn open(disk: &Disk, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    no_follow(&mut options);
    disk.open(&options, path)
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Only the holder removes it, so a file that is found locked is the one that has the name. Where an open file
        // cannot be removed it stays, which harms nobody; closing it lets go of the lock in any case.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
