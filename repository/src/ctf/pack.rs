//! Writing the tar and tgz forms.
//!
//! Invariant: the file under the archive's name is at every moment a whole archive, the old one or the new one.
//!
//! An archive file can't be changed in place, so a run changes it **as a whole and at its end**: content is staged in a
//! folder beside it, changes of the index are kept in memory (`over.rs`), and [`Pack::flush`] writes the new archive and
//! renames it into place. Until then other processes see the old one; readers within the run see what it has put.
//!
//! - **Staging**: `<path>.staging/<number>/`, one folder per run that writes, locked as long as the run lives. Its files
//!   count as temporary files. A run that was killed, or that failed, leaves its folder; the next one takes it over and
//!   finds the blobs there, each verified before it is relied on. [`Pack::collect_garbage`] removes what nobody takes over.
//! - **Writers at the same time** each have a folder of their own. Who writes first comes first; the other, under the lock
//!   `<path>.staging/.lock`, reads the archive again and makes its changes anew on top of it. The lock is held for that only.
//! - **Layout** (formats.md 2.2): that of the Go library v1 to the byte, which v2 reads as well: `artifact-index.json`, the folder
//!   `blobs`, its files by name, all of 2022-01-01, owner 0, modes 0644 and 0755, in ustar. A tgz is one gzip member without
//!   name and time. Equal content thus gives equal bytes, whatever was put first.
//! - **What goes in**: every blob that was in the archive, unless it was removed, and of the staged ones those that an entry
//!   of the index reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::gzip::gzip;
use ocm_content::tarball::{TarEntry, TarKind, end_of_tar, padding};
use ocm_content::{ByteStream, Disk, Error, ErrorKind, Limits, Result};
use ocm_specs::Digest;
use tempfile::NamedTempFile;

use super::archive::Archive;
use super::directory::{BLOBS, Directory, lock};
use super::file::{
    Section, blocking, make_folder, not_followed, open_regular, os, stream as read, sync_folder,
    write_all,
};
use super::index::{INDEX_FILE, INDEX_LIMIT, Index};
use super::locks::{FileLock, Stamp};
use super::over::{Over, Pending};
use super::{Garbage, blob_name};

/// Behind the archive's name: where runs stage.
const SUFFIX: &str = ".staging";
/// Held while the archive is replaced.
const LOCK: &str = ".lock";
/// Held by the run that a staging folder belongs to.
const OWNER: &str = ".owner";
/// Runs that may write one archive at once.
const SLOTS: usize = 256;
/// The time of all entries: 2022-01-01T00:00:00Z.
const TIME: u64 = 1_640_995_200;
/// How hard a tgz is compressed.
const LEVEL: u32 = 6;
/// Bytes that are collected before they are written.
const WRITE_AT: usize = 1 << 20;

/// An archive file, and what this run changes about it.
#[derive(Debug)]
pub(super) struct Pack {
    path: PathBuf,
    is_gzip: bool,
    limits: Arc<Limits>,
    state: Mutex<State>,
    /// Beginning to write and writing exclude each other.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    base: Arc<Archive>,
    staged: Option<Arc<Directory>>,
}

/// The folder where archives at `path` are staged.
pub(super) fn staging_folder(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

impl Pack {
    /// The archive at `path`, which need not exist if `may_be_missing`. No I/O.
    pub(super) fn new(
        path: PathBuf,
        is_gzip: bool,
        may_be_missing: bool,
        limits: Arc<Limits>,
    ) -> Arc<Self> {
        let base = Archive::new(path.clone(), is_gzip, may_be_missing, limits.clone());
        Arc::new(Self {
            path,
            is_gzip,
            limits,
            state: Mutex::new(State { base, staged: None }),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The index, with what the run has changed.
    pub(super) async fn index(&self) -> Result<Arc<Index>> {
        match self.staged() {
            Some(staged) => staged.index().await,
            None => Ok(self.base().table().await?.index.clone()),
        }
    }

    /// The length of a blob, `None` if it isn't here.
    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.staged() {
            Some(staged) => staged.size(digest).await,
            None => Ok(self.base().table().await?.size(digest)),
        }
    }

    /// Where a blob can be read.
    pub(super) async fn section(&self, digest: &Digest) -> Result<Section> {
        match self.staged() {
            Some(staged) => {
                let digest = digest.clone();
                blocking(move || staged.section(&digest)).await
            }
            None => self.base().table().await?.section(digest),
        }
    }

    /// Where changes go: the staging folder, taken at the first call.
    pub(super) async fn changes(&self) -> Result<Arc<Directory>> {
        if let Some(staged) = self.staged() {
            return Ok(staged);
        }
        let _turn = self.turn.lock().await;
        self.begin().await
    }

    async fn begin(&self) -> Result<Arc<Directory>> {
        if let Some(staged) = self.staged() {
            return Ok(staged);
        }
        let base = self.base().table().await?.clone();
        let (folder, limits) = (staging_folder(&self.path), self.limits.clone());
        let staged = blocking(move || {
            let slot = Slot::take(limits.disk(), &folder)?;
            let root = slot.path.clone();
            Ok(Directory::over(root, Over::new(base, slot, limits)?))
        })
        .await?;
        lock(&self.state).staged = Some(staged.clone());
        Ok(staged)
    }

    /// What is not written yet.
    pub(super) fn pending(&self) -> Pending {
        let staged = self.staged();
        staged
            .as_ref()
            .and_then(|staged| staged.over.as_ref())
            .map_or(Pending::Nothing, Over::pending)
    }

    /// Writes the archive with all changes, unless there are none, and gives the staging folder up. Was it written?
    ///
    /// # Errors
    /// Those of the disk, and [`ErrorKind::Conflict`] when another process removed what the run relied on. The archive is
    /// as it was then, and this may be called again.
    pub(super) async fn flush(&self) -> Result<bool> {
        let _turn = self.turn.lock().await;
        self.end(true).await
    }

    /// The same, for who has the turn. What a run before left and this one did not need goes only if `clear`.
    async fn end(&self, clear: bool) -> Result<bool> {
        let Some(staged) = self.staged() else {
            return Ok(false);
        };
        let Some(over) = &staged.over else {
            return Err(Error::internal("an archive is staged over nothing"));
        };
        // No change is being made, and none begins.
        let _changes = staged.turn.lock().await;
        let is_due = over.pending() != Pending::Nothing;
        if is_due {
            let held =
                FileLock::take(self.limits.disk(), &staging_folder(&self.path), LOCK).await?;
            self.rebase(&staged, over).await?;
            self.replace(&staged).await?;
            drop(held);
        }
        over.close();
        if clear {
            over.slot.give_up();
        }
        let mut state = lock(&self.state);
        state.staged = None;
        if is_due {
            state.base = self.archive(true);
        }
        Ok(is_due)
    }

    /// Takes in what other processes made of the archive since it was read.
    async fn rebase(&self, staged: &Arc<Directory>, over: &Over) -> Result<()> {
        let path = self.path.clone();
        let now = blocking(move || stamp(&path)).await?;
        if now == over.base().stamp {
            return Ok(());
        }
        let base = self.archive(true).table().await?.clone();
        let staged = staged.clone();
        blocking(move || match &staged.over {
            Some(over) => over.rebase(&staged, base),
            None => Ok(()),
        })
        .await
    }

    /// Writes the new archive beside the old one and renames it. The lock is held.
    async fn replace(&self, staged: &Arc<Directory>) -> Result<()> {
        let directory = staged.clone();
        let (index, parts, mut file) = blocking(move || {
            let (index, parts) = contents(&directory)?;
            Ok((index, parts, directory.stage("archive-")?))
        })
        .await?;
        let mut bytes = tar_stream(staged.clone(), index, parts);
        if self.is_gzip {
            bytes = gzip(bytes, LEVEL, &self.limits);
        }
        let mut pieces = Vec::new();
        let mut collected = 0;
        while let Some(piece) = bytes.try_next().await? {
            collected += piece.len();
            pieces.push(piece);
            if collected >= WRITE_AT {
                let pieces = std::mem::take(&mut pieces);
                collected = 0;
                let disk = self.limits.disk().clone();
                file = blocking(move || append(&disk, file, &pieces)).await?;
            }
        }
        let (disk, path) = (self.limits.disk().clone(), self.path.clone());
        blocking(move || put_in_place(&disk, append(&disk, file, &pieces)?, &path)).await
    }

    /// Removes blobs that no entry of the index reaches, unless the archive was written less than `grace` ago, and staging
    /// folders that runs left. With `remove` false they are only counted.
    pub(super) async fn collect_garbage(&self, grace: Duration, remove: bool) -> Result<Garbage> {
        let _turn = self.turn.lock().await;
        if self.staged().is_some() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} is being written by this run", self.path.display()),
            ));
        }
        let (disk, path) = (self.limits.disk().clone(), self.path.clone());
        let (mut garbage, is_old) = blocking(move || {
            let garbage = sweep(&disk, &staging_folder(&path), grace, remove)?;
            Ok((garbage, is_older(&path, grace)))
        })
        .await?;
        if !is_old {
            return Ok(garbage);
        }
        let staged = self.begin().await?;
        let found = blocking(move || {
            let Some(over) = &staged.over else {
                return Err(Error::internal("an archive is staged over nothing"));
            };
            let base = over.base();
            let reached = staged.reached(&over.index())?;
            let unreached = base.digests().filter(|digest| !reached.contains(*digest));
            let unreached: BTreeSet<Digest> = unreached.cloned().collect();
            let bytes = unreached
                .iter()
                .filter_map(|digest| base.size(digest))
                .sum();
            let found = Garbage {
                files: unreached.len() as u64,
                bytes,
            };
            if remove && !unreached.is_empty() {
                over.forget_all(unreached);
            }
            Ok(found)
        })
        .await;
        // Lets the staging folder go in any case, with what is too young to go in it.
        let written = self.end(false).await;
        let found = found?;
        written?;
        garbage.files += found.files;
        garbage.bytes += found.bytes;
        Ok(garbage)
    }

    fn staged(&self) -> Option<Arc<Directory>> {
        lock(&self.state).staged.clone()
    }

    fn base(&self) -> Arc<Archive> {
        lock(&self.state).base.clone()
    }

    fn archive(&self, may_be_missing: bool) -> Arc<Archive> {
        Archive::new(
            self.path.clone(),
            self.is_gzip,
            may_be_missing,
            self.limits.clone(),
        )
    }
}

fn stamp(path: &Path) -> Result<Option<Stamp>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(os("look at", path, &error)),
    }
}

/// A blob on its way into the archive.
struct Part {
    name: String,
    len: u64,
    place: Place,
}

enum Place {
    /// In the staging folder.
    Staged(PathBuf),
    /// In the archive as it was.
    Base(Section),
}

/// What the new archive has in it, in its order. Blocks.
fn contents(directory: &Directory) -> Result<(Bytes, Vec<Part>)> {
    let Some(over) = &directory.over else {
        return Err(Error::internal("an archive is staged over nothing"));
    };
    let index = over.index();
    let bytes = index.to_bytes();
    if bytes.len() as u64 > INDEX_LIMIT {
        return Err(Error::limit(format!(
            "{INDEX_FILE} would be larger than the {INDEX_LIMIT} bytes that are read"
        )));
    }
    let mut parts = BTreeMap::new();
    let base = over.base();
    for digest in base.digests().filter(|digest| !over.is_forgotten(digest)) {
        let section = base.section(digest)?;
        parts.insert(blob_name(digest), (section.len, Place::Base(section)));
    }
    for digest in directory.reached(&index)? {
        if let Some(len) = directory.own_size(&digest)? {
            let place = Place::Staged(directory.blob_path(&digest));
            parts.insert(blob_name(&digest), (len, place));
        }
    }
    let parts = parts
        .into_iter()
        .map(|(name, (len, place))| Part { name, len, place });
    Ok((bytes.into(), parts.collect()))
}

/// The archive as bytes. `_staged` keeps the staging folder for as long as it is read.
fn tar_stream(staged: Arc<Directory>, index: Bytes, parts: Vec<Part>) -> ByteStream {
    let len = index.len() as u64;
    let start = stream::iter([
        header(INDEX_FILE, len),
        Ok(index),
        Ok(padding(len)),
        folder_header(BLOBS),
    ]);
    let blobs = stream::iter(parts).flat_map(move |part| {
        let (len, _staged) = (part.len, staged.clone());
        let around = header(&format!("{BLOBS}/{}", part.name), len);
        stream::iter([around])
            .chain(content(part))
            .chain(stream::iter([Ok(padding(len))]))
    });
    Box::pin(start.chain(blobs).chain(stream::iter([Ok(end_of_tar())])))
}

fn header(name: &str, len: u64) -> Result<Bytes> {
    header_of(TarEntry::file(name, len))
}

fn folder_header(name: &str) -> Result<Bytes> {
    header_of(TarEntry {
        kind: TarKind::Directory,
        mode: 0o755,
        ..TarEntry::file(name, 0)
    })
}

fn header_of(entry: TarEntry) -> Result<Bytes> {
    let entry = TarEntry {
        mtime: TIME,
        ..entry
    };
    entry.header_like_go()
}

/// The bytes of a blob: exactly as many as announced, or an error.
fn content(part: Part) -> ByteStream {
    let Part { name, len, place } = part;
    let open = move || match place {
        Place::Base(section) => Ok(section),
        Place::Staged(path) => {
            let file = open_regular(&path)?;
            Ok(Section {
                file: Arc::new(file),
                path: path.into(),
                start: 0,
                len,
            })
        }
    };
    let bytes = stream::once(read(open, 0)).try_flatten();
    let state = (Box::pin(bytes) as ByteStream, len);
    Box::pin(stream::try_unfold(state, move |(mut bytes, left)| {
        let name = name.clone();
        async move {
            let changed = || Error::invalid(format!("staged blob {name} was changed meanwhile"));
            match bytes.try_next().await? {
                Some(piece) => {
                    let left = left.checked_sub(piece.len() as u64).ok_or_else(changed)?;
                    Ok(Some((piece, (bytes, left))))
                }
                None if left == 0 => Ok(None),
                None => Err(changed()),
            }
        }
    }))
}

fn append(disk: &Disk, mut file: NamedTempFile, pieces: &[Bytes]) -> Result<NamedTempFile> {
    write_all(disk, &mut file, pieces)?;
    Ok(file)
}

/// Makes the file durable and gives it the archive's name. Blocks.
fn put_in_place(disk: &Disk, file: NamedTempFile, path: &Path) -> Result<()> {
    if let Ok(before) = path.metadata() {
        // An archive that others may read, or may not, stays so.
        let _ = file.as_file().set_permissions(before.permissions());
    }
    disk.sync(file.as_file(), file.path(), true)
        .map_err(|error| os("sync", file.path(), &error))?;
    let file = disk
        .rename(file, path)
        .map_err(|error| os("replace", path, &error.error))?;
    // It was locked as a staged file; where locks are mandatory nobody else could read it.
    let _ = file.unlock();
    path.parent()
        .map_or(Ok(()), |folder| sync_folder(disk, folder))
}

/// A staging folder that belongs to this run.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    owner: Option<FileLock>,
    is_done: AtomicBool,
}

impl Slot {
    /// The first folder below `staging` that no run has. Blocks.
    fn take(disk: &Disk, staging: &Path) -> Result<Self> {
        for number in 0..SLOTS {
            if let Some(slot) = Self::try_take(disk, staging, &number.to_string())? {
                return Ok(slot);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("{} is in use by {SLOTS} runs", staging.display()),
        ))
    }

    fn try_take(disk: &Disk, staging: &Path, name: &str) -> Result<Option<Self>> {
        let path = staging.join(name);
        make_folder(disk, staging)?;
        for folder in [staging, &path] {
            if let Some(error) = not_followed(folder) {
                return Err(error);
            }
        }
        let owner = FileLock::try_take(disk, &path, OWNER)?;
        Ok(owner.map(|owner| Self {
            path,
            owner: Some(owner),
            is_done: AtomicBool::new(false),
        }))
    }

    /// Where its blobs are.
    pub(super) fn blobs(&self) -> PathBuf {
        self.path.join(BLOBS)
    }

    /// Nothing in it is needed any more: it goes when this does. Otherwise it stays for the next run.
    fn give_up(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_done.load(Ordering::Relaxed) {
            // Its own, and locked: nobody else puts anything there.
            let _ = fs::remove_dir_all(self.blobs());
        }
        drop(self.owner.take());
        // Succeeds for what is empty.
        let _ = fs::remove_dir(self.blobs());
        let _ = fs::remove_dir(self.path.join(super::staging::STAGING));
        let _ = fs::remove_dir(&self.path);
        if let Some(staging) = self.path.parent() {
            let _ = fs::remove_dir(staging);
        }
    }
}

/// Removes staging folders that no run has and that were last changed `grace` ago or earlier. Blocks.
fn sweep(disk: &Disk, staging: &Path, grace: Duration, remove: bool) -> Result<Garbage> {
    let mut garbage = Garbage::default();
    let entries = match fs::read_dir(staging) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(garbage),
        Err(error) => return Err(os("list", staging, &error)),
    };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        let number = name.to_str().filter(|name| name.parse::<usize>().is_ok());
        let Some(number) = number else {
            continue;
        };
        let Some(slot) = Slot::try_take(disk, staging, number)? else {
            continue;
        };
        let folders = [slot.blobs(), slot.path.join(super::staging::STAGING)];
        let files: Vec<PathBuf> = folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .collect();
        if !files.iter().all(|file| is_older(file, grace)) {
            continue;
        }
        for file in files {
            let len = file.symlink_metadata().map_or(0, |metadata| metadata.len());
            if remove {
                disk.remove_file(&file)
                    .map_err(|error| os("remove", &file, &error))?;
            }
            garbage.files += 1;
            garbage.bytes += len;
        }
    }
    if remove && staging.join(LOCK).symlink_metadata().is_ok() {
        // Of a run that was killed while it wrote: whoever gets the lock takes its file away.
        drop(FileLock::try_take(disk, staging, LOCK)?);
        let _ = fs::remove_dir(staging);
    }
    Ok(garbage)
}

/// Was the file last written at least `grace` ago?
fn is_older(path: &Path, grace: Duration) -> bool {
    let modified = path.symlink_metadata().and_then(|found| found.modified());
    // A time in the future is no age.
    modified
        .ok()
        .and_then(|time| time.elapsed().ok())
        .is_some_and(|age| age >= grace)
}
