//! Blobs on their way into the directory form.
//!
//! Invariant: a file in `blobs/` is whole and was verified when it came there.
//!
//! A blob is written to a file in `.staging/`, verified, and renamed to `blobs/<algorithm>.<hex>` at once: one that no entry
//! reaches is harmless. A killed run thus leaves whole blobs, which the next run finds in place, and partial files. Writers
//! hold a lock on their files, so the first writer of a later run can tell what is left over, and removes it. The folder
//! goes when it is empty and the archive is closed.
//!
//! Blobs of [`SYNC_AT`] bytes or more are synced when they are complete, small ones together before the index that may name
//! them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ocm_content::{Error, Meter, Result};
use ocm_specs::{Algorithm, Digest, Hasher};
use tempfile::NamedTempFile;
use tokio::task::{JoinHandle, JoinSet};

use super::Garbage;
use super::archive::Spooled;
use super::directory::{BLOBS, Directory, lock};
use super::file::{
    CHUNK, blocking, make_folder, no_follow, open_regular, os, sync_folder, write_all,
};
use super::over::Over;

pub(super) const STAGING: &str = ".staging";

/// From this size on, in bytes, a blob is synced on its own.
const SYNC_AT: u64 = 4 << 20;

/// Files that are synced at once.
const SYNCS: usize = 16;

impl Directory {
    /// Starts a blob. With `hash` its SHA-256 is computed on the way.
    pub(super) fn draft(self: &Arc<Self>, hash: bool) -> Draft {
        Draft {
            directory: self.clone(),
            buffer: Vec::new(),
            buffered: 0,
            len: 0,
            state: Some(Written {
                file: None,
                hasher: hash.then(|| Hasher::new(Algorithm::Sha256)),
                spooled: self.over.as_ref().map(Over::spooled),
            }),
            writing: None,
            failed: None,
        }
    }

    /// A new file in the staging folder, locked and removed when dropped. Blocks.
    pub(super) fn stage(&self, prefix: &str) -> Result<NamedTempFile> {
        let folder = self.root.join(STAGING);
        if !self.staged.swap(true, Ordering::Relaxed) {
            self.sweep(true);
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix).suffix(".part").rand_bytes(12);
        #[cfg(unix)]
        let everyone = {
            use std::os::unix::fs::PermissionsExt;
            fs::Permissions::from_mode(0o666)
        };
        // An archive is read by others, too: what the umask leaves, not the mode of private temporary files.
        #[cfg(unix)]
        builder.permissions(everyone);
        let mut attempts = 0;
        loop {
            self.check_folder(STAGING)?;
            match self.disk.create_in(&builder, &folder) {
                Ok(file) if claim(&file) => return Ok(file),
                Ok(_) => {}
                // Another process may remove the folder when it is done.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 8 => {
                    attempts += 1;
                    make_folder(&self.disk, &folder)?;
                }
                Err(error) => return Err(os("create a file in", &folder, &error)),
            }
        }
    }

    /// Writes a blob that is in memory. Blocks.
    pub(super) fn write_small(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let len = bytes.len() as u64;
        let mut temp = self.stage("blob-")?;
        write_all(&self.disk, &mut temp, &[bytes])?;
        self.publish(temp, digest, len)
    }

    /// Gives a complete file its name. Blocks.
    pub(super) fn publish(&self, temp: NamedTempFile, digest: &Digest, len: u64) -> Result<()> {
        // What goes into an archive file is synced as a part of that.
        if len >= SYNC_AT && self.over.is_none() {
            self.disk
                .sync(temp.as_file(), temp.path(), false)
                .map_err(|error| os("sync", temp.path(), &error))?;
        }
        self.check_folder(BLOBS)?;
        let path = self.blob_path(digest);
        let persisted = match self.disk.rename(temp, &path) {
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => {
                make_folder(&self.disk, &self.root.join(BLOBS))?;
                self.disk.rename(error.file, &path)
            }
            other => other,
        };
        persisted.map_err(|error| os("create", &path, &error.error))?;
        match &self.over {
            Some(over) => over.arrived(digest),
            None => {
                lock(&self.unsynced).insert(digest.clone());
            }
        }
        Ok(())
    }

    /// Makes durable what was written since the last time.
    ///
    /// Many files at once: a file system with a journal then writes one record for several of them.
    pub(super) async fn sync_blobs(self: &Arc<Self>) -> Result<()> {
        let mut waiting: Vec<Digest> = std::mem::take(&mut *lock(&self.unsynced))
            .into_iter()
            .collect();
        // Given back if this ends early.
        let guard = Unsynced(self, waiting.clone());
        let mut running = JoinSet::new();
        let share = waiting.len().div_ceil(SYNCS);
        while !waiting.is_empty() {
            let digests = waiting.split_off(waiting.len().saturating_sub(share));
            let directory = self.clone();
            running.spawn_blocking(move || directory.sync(&digests));
        }
        let any = !running.is_empty();
        while let Some(done) = running.join_next().await {
            done.unwrap_or_else(|error| {
                Err(Error::internal(format!("file work ended early: {error}")))
            })?;
        }
        if any {
            let (disk, folder) = (self.disk.clone(), self.root.join(BLOBS));
            blocking(move || sync_folder(&disk, &folder)).await?;
        }
        guard.done();
        Ok(())
    }

    fn sync(&self, digests: &[Digest]) -> Result<()> {
        digests.iter().try_for_each(|digest| {
            let path = self.blob_path(digest);
            match File::open(&path).and_then(|file| self.disk.sync(&file, &path, false)) {
                // Deleted since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(|error| os("sync", &path, &error)),
            }
        })
    }

    /// The same for what a change of the index wrote itself. Blocks.
    pub(super) fn sync_now(&self) -> Result<()> {
        let waiting: Vec<Digest> = std::mem::take(&mut *lock(&self.unsynced))
            .into_iter()
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let guard = Unsynced(self, waiting.clone());
        self.sync(&waiting)?;
        sync_folder(&self.disk, &self.root.join(BLOBS))?;
        guard.done();
        Ok(())
    }
}

/// Blobs that are being synced: they count as not synced again unless that is done.
struct Unsynced<'a>(&'a Directory, Vec<Digest>);

impl Unsynced<'_> {
    fn done(mut self) {
        self.1.clear();
    }
}

impl Drop for Unsynced<'_> {
    fn drop(&mut self) {
        lock(&self.0.unsynced).extend(self.1.drain(..));
    }
}

impl Directory {
    /// Removes what writers that are gone left in the staging folder: files that nobody has locked. Blocks.
    /// With `remove` false they are only counted.
    pub(super) fn sweep(&self, remove: bool) -> Garbage {
        let mut garbage = Garbage::default();
        let folder = self.root.join(STAGING);
        let entries = match self.check_folder(STAGING) {
            Ok(()) => fs::read_dir(&folder).into_iter().flatten(),
            // Whoever writes there is told.
            Err(_) => return garbage,
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|ending| ending != "part") {
                continue;
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            no_follow(&mut options);
            let Ok(file) = options.open(&path) else {
                continue;
            };
            if file.try_lock().is_ok() && (!remove || self.disk.remove_file(&path).is_ok()) {
                garbage.files += 1;
                garbage.bytes += file.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        garbage
    }
}

/// Locks a new file for as long as it is open, so that nobody takes it for a left-over. `false` if somebody just did.
fn claim(file: &NamedTempFile) -> bool {
    // Where files can't be locked nobody can sweep either.
    let swept = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
    !swept && file.path().symlink_metadata().is_ok()
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.staged.load(Ordering::Relaxed) {
            // Succeeds when it is empty, which is when nobody needs it.
            let _ = fs::remove_dir(self.root.join(STAGING));
        }
    }
}

/// A blob that is being written. Dropping it forgets the bytes.
#[derive(Debug)]
pub(super) struct Draft {
    directory: Arc<Directory>,
    buffer: Vec<Bytes>,
    buffered: usize,
    len: u64,
    state: Option<Written>,
    writing: Option<JoinHandle<Result<Written>>>,
    failed: Option<Error>,
}

/// What is in the file so far: no file before the first full piece.
#[derive(Debug)]
struct Written {
    file: Option<NamedTempFile>,
    hasher: Option<Hasher>,
    /// What it takes of the budget for temporary files, where it is one.
    spooled: Option<Spooled>,
}

impl Written {
    fn append(&mut self, directory: &Directory, pieces: &[Bytes]) -> Result<()> {
        if let Some(hasher) = &mut self.hasher {
            pieces.iter().for_each(|piece| hasher.update(piece));
        }
        if let Some(spooled) = &mut self.spooled {
            spooled.take(pieces.iter().map(|piece| piece.len() as u64).sum())?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(directory.stage("blob-")?),
        };
        write_all(&directory.disk, file, pieces)
    }
}

impl Draft {
    /// Bytes taken so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends. One piece is written while the next one arrives.
    pub(super) async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.len += chunk.len() as u64;
        if self.directory.over.is_some() {
            Meter::with(|meter| meter.spooled(chunk.len() as u64));
        }
        self.buffered += chunk.len();
        if !chunk.is_empty() {
            self.buffer.push(chunk);
        }
        if self.buffered < CHUNK {
            return Ok(());
        }
        let mut state = self.settle().await?;
        let pieces = std::mem::take(&mut self.buffer);
        self.buffered = 0;
        let directory = self.directory.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            state.append(&directory, &pieces)?;
            Ok(state)
        }));
        Ok(())
    }

    /// Waits for the piece that is being written. May be dropped and asked again.
    async fn settle(&mut self) -> Result<Written> {
        if let Some(writing) = &mut self.writing {
            let result = writing.await.unwrap_or_else(|error| {
                Err(Error::internal(format!("file work ended early: {error}")))
            });
            self.writing = None;
            match result {
                Ok(state) => self.state = Some(state),
                Err(error) => self.failed = Some(error),
            }
        }
        match (self.state.take(), &self.failed) {
            (Some(state), _) => Ok(state),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(Error::internal("a blob was written to after its end")),
        }
    }

    /// Gives the blob its name, which is `expected` or its SHA-256. Where the draft hashes, or `expected` is of another
    /// algorithm than it hashes by, the bytes are verified; else the caller has done that.
    pub(super) async fn finish(mut self, expected: Option<Digest>) -> Result<Digest> {
        let mut state = self.settle().await?;
        let (directory, pieces, len) = (
            self.directory.clone(),
            std::mem::take(&mut self.buffer),
            self.len,
        );
        blocking(move || {
            state.append(&directory, &pieces)?;
            let file = state
                .file
                .ok_or_else(|| Error::internal("a blob without a file"))?;
            let digest = match (state.hasher.map(Hasher::finish), expected) {
                (None, None) => return Err(Error::internal("a blob without a digest")),
                (None, Some(expected)) => expected,
                (Some(found), None) => found,
                (Some(found), Some(expected)) => {
                    let found = if found.algorithm() == expected.algorithm() {
                        found
                    } else {
                        hash_file(file.path(), expected.algorithm())?
                    };
                    if found != expected {
                        return Err(Error::mismatch(format!(
                            "content has digest {found}, expected {expected}"
                        )));
                    }
                    found
                }
            };
            directory.publish(file, &digest, len)?;
            if let (Some(over), Some(spooled)) = (&directory.over, state.spooled) {
                over.keep(spooled);
            }
            Ok(digest)
        })
        .await
    }
}

pub(super) fn hash_file(path: &Path, algorithm: Algorithm) -> Result<Digest> {
    let mut file = open_regular(path)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(os("read", path, &error)),
        }
    }
}
