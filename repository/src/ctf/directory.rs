//! The directory form: reading it, taking blobs in, and changing its index.
//!
//! Invariant: a reader never sees half a blob or half an index, and no writer's entries are lost to another.
//!
//! - **Blobs** are written to `.staging/`, verified, and renamed to `blobs/<algorithm>.<hex>` at once. A blob that no
//!   entry reaches is harmless, so a killed run leaves whole blobs, which the next run finds in place, and partial files
//!   in `.staging/`, which nothing reads.
//! - **The index** is changed under an advisory lock on `.lock`, held for that change only: read again, merged, written
//!   beside, renamed. The kernel lets go of the lock when its holder dies; the file itself means nothing and is
//!   removed by the holder. Tasks that commit at the same time share one change.
//! - **Durability**: blobs of [`SYNC_AT`] bytes or more are synced when they are complete, small ones together before
//!   the index that may name them. The index and the folder are synced around the rename.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ocm_content::{Error, ErrorKind, MANIFEST_LIMIT, RawManifest, Result};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest, Hasher};
use tempfile::NamedTempFile;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::file::{
    CHUNK, Section, blocking, no_follow, not_followed, open_regular, os, sync_folder, write_all,
};
use super::index::{Entry, INDEX_FILE, INDEX_LIMIT, Index};
use super::{blob_name, referrers_tag};

const BLOBS: &str = "blobs";
const STAGING: &str = ".staging";
const LOCK: &str = ".lock";

/// From this size on, in bytes, a blob is synced on its own.
const SYNC_AT: u64 = 4 << 20;

/// How long to wait for another process's change to the index, which takes milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// A CTF in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    cached: Mutex<Option<Cached>>,
    /// Blobs that a coming index may name and that may not be on the disk yet.
    unsynced: Mutex<BTreeSet<Digest>>,
    queue: Mutex<Vec<Pending>>,
    turn: tokio::sync::Mutex<()>,
    staged: AtomicBool,
}

/// The index as it was read last. The open file keeps its inode from being used for another file.
#[derive(Debug)]
struct Cached {
    pinned: Option<File>,
    stamp: Option<Stamp>,
    index: Arc<Index>,
}

#[derive(Debug, PartialEq)]
struct Stamp {
    inode: (u64, u64),
    modified: Option<std::time::SystemTime>,
    len: u64,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
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

/// One change to the index.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A manifest whose parts are here, perhaps under a tag; a referrer if it has a subject.
    Put {
        repository: String,
        tag: Option<String>,
        manifest: RawManifest,
        parsed: Arc<Manifest>,
    },
    /// A tag goes.
    Untag { repository: String, tag: String },
    /// A manifest goes with its tags, or a blob.
    Delete { repository: String, digest: Digest },
}

#[derive(Debug)]
struct Pending {
    change: Change,
    done: oneshot::Sender<Result<()>>,
}

impl Directory {
    /// The CTF in that folder, which need not exist yet. No I/O.
    pub(super) fn new(root: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            root,
            cached: Mutex::default(),
            unsynced: Mutex::default(),
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            staged: AtomicBool::new(false),
        })
    }

    /// The index as it is now: empty where there is none.
    pub(super) async fn index(self: &Arc<Self>) -> Result<Arc<Index>> {
        let directory = self.clone();
        blocking(move || directory.load()).await
    }

    /// The length of a blob, `None` if it isn't here.
    pub(super) async fn size(self: &Arc<Self>, digest: &Digest) -> Result<Option<u64>> {
        let (directory, digest) = (self.clone(), digest.clone());
        blocking(move || directory.size_now(&digest)).await
    }

    /// The file of a blob. Blocks.
    pub(super) fn section(&self, digest: &Digest) -> Result<Section> {
        let path = self.blob_path(digest);
        self.check_folder(BLOBS)?;
        let file = open_regular(&path)?;
        let metadata = file.metadata().map_err(|error| os("open", &path, &error))?;
        Ok(Section {
            file: Arc::new(file),
            path: path.into(),
            start: 0,
            len: metadata.len(),
        })
    }

    /// Notes that the run relies on a blob that was here already: it is synced before an index names it.
    pub(super) fn adopt(&self, digest: &Digest) {
        lock(&self.unsynced).insert(digest.clone());
    }

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
            }),
            writing: None,
            failed: None,
        }
    }

    /// Makes a change visible, together with those that other tasks ask for at the same time.
    ///
    /// A caller that goes away while it waits takes its change back, unless that is being made right now.
    pub(super) async fn commit(self: &Arc<Self>, change: Change) -> Result<()> {
        loop {
            let (done, mut result) = oneshot::channel();
            let change = change.clone();
            lock(&self.queue).push(Pending { change, done });
            let turn = self.turn.lock().await;
            if let Ok(result) = result.try_recv() {
                return result;
            }
            let batch: Vec<Pending> = lock(&self.queue)
                .drain(..)
                .filter(|pending| !pending.done.is_closed())
                .collect();
            self.commit_batch(batch).await?;
            drop(turn);
            // Without an answer, whoever had our change went away before it was made: ask again.
            if let Ok(result) = result.await {
                return result;
            }
        }
    }

    async fn commit_batch(self: &Arc<Self>, batch: Vec<Pending>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let prepared: Result<IndexLock> = async {
            let directory = self.clone();
            blocking(move || directory.sync_blobs()).await?;
            self.lock().await
        }
        .await;
        match prepared {
            Ok(held) => {
                let directory = self.clone();
                blocking(move || {
                    directory.apply(batch);
                    drop(held);
                    Ok(())
                })
                .await
            }
            Err(error) => {
                for pending in batch {
                    // Who does not wait any more need not know.
                    let _ = pending.done.send(Err(error.clone()));
                }
                Ok(())
            }
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(blob_name(digest))
    }

    /// A folder of the archive must not lead out of it. A missing one is fine.
    fn check_folder(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match not_followed(&path) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn size_now(&self, digest: &Digest) -> Result<Option<u64>> {
        self.check_folder(BLOBS)?;
        let path = self.blob_path(digest);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(metadata) if metadata.is_symlink() => {
                Err(not_followed(&path).unwrap_or_else(|| Error::internal("a link went away")))
            }
            Ok(_) => Err(Error::invalid(format!(
                "{} is not a regular file",
                path.display()
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(os("look at", &path, &error)),
        }
    }

    fn read_manifest(&self, digest: &Digest) -> Result<Bytes> {
        let section = self.section(digest)?;
        if section.len > MANIFEST_LIMIT {
            return Err(Error::limit(format!(
                "manifest {digest} is larger than {MANIFEST_LIMIT} bytes"
            )));
        }
        let mut bytes = Vec::new();
        loop {
            let piece = section.read_at(bytes.len() as u64, CHUNK)?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        let found = Digest::of(digest.algorithm(), &bytes);
        if found != *digest {
            return Err(Error::mismatch(format!(
                "content has digest {found}, expected {digest}"
            )));
        }
        Ok(bytes.into())
    }
}

// The index.
impl Directory {
    fn load(&self) -> Result<Arc<Index>> {
        let path = self.root.join(INDEX_FILE);
        let mut cached = lock(&self.cached);
        let stamp = match path.symlink_metadata() {
            Ok(metadata) => Some(Stamp::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(os("look at", &path, &error)),
        };
        if let Some(known) = cached.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(known.index.clone());
        }
        let fresh = match stamp {
            Some(_) => read_index(&path)?,
            None => Cached {
                pinned: None,
                stamp: None,
                index: Arc::default(),
            },
        };
        let index = fresh.index.clone();
        *cached = Some(fresh);
        Ok(index)
    }

    /// Makes all changes of a batch and tells each caller. Blocks; the lock is held.
    fn apply(&self, batch: Vec<Pending>) {
        let mut index = match self.load() {
            Ok(index) => index,
            Err(error) => {
                return answer(
                    batch
                        .into_iter()
                        .map(|pending| (pending.done, Err(error.clone()))),
                );
            }
        };
        // The cached handle is given up so that the index is changed in place, not copied, where nobody reads it.
        let known = lock(&self.cached)
            .take()
            .map(|known| (known.pinned, known.stamp));
        let mut work = Work {
            directory: self,
            index: Arc::make_mut(&mut index),
            changed: false,
            obsolete: BTreeSet::new(),
            deleted: BTreeSet::new(),
        };
        let mut answers: Vec<_> = batch
            .into_iter()
            .map(|pending| (pending.done, work.apply(pending.change)))
            .collect();
        let (changed, obsolete, deleted) = (work.changed, work.obsolete, work.deleted);
        let written = if changed {
            self.sync_blobs()
                .and_then(|()| self.write_index(index.clone()))
        } else {
            *lock(&self.cached) = known.map(|(pinned, stamp)| Cached {
                pinned,
                stamp,
                index: index.clone(),
            });
            Ok(())
        };
        let removed = written.and_then(|()| self.remove_blobs(&index, &obsolete, &deleted));
        if let Err(error) = removed {
            for (_, result) in &mut answers {
                *result = Err(error.clone());
            }
        }
        answer(answers.into_iter());
    }

    fn write_index(&self, index: Arc<Index>) -> Result<()> {
        let bytes = index.to_bytes();
        if bytes.len() as u64 > INDEX_LIMIT {
            return Err(Error::limit(format!(
                "{INDEX_FILE} would be larger than the {INDEX_LIMIT} bytes that are read"
            )));
        }
        let path = self.root.join(INDEX_FILE);
        let mut temp = self.stage("index-")?;
        write_all(temp.as_file_mut(), &[bytes.into()])
            .and_then(|()| temp.as_file().sync_all())
            .map_err(|error| os("write", temp.path(), &error))?;
        let file = temp
            .persist(&path)
            .map_err(|error| os("replace", &path, &error.error))?;
        sync_folder(&self.root)?;
        if let Ok(metadata) = file.metadata() {
            *lock(&self.cached) = Some(Cached {
                stamp: Some(Stamp::of(&metadata)),
                pinned: Some(file),
                index,
            });
        }
        Ok(())
    }

    /// Removes lists that were replaced, and what was asked to be deleted, unless something still reaches it.
    fn remove_blobs(
        &self,
        index: &Index,
        obsolete: &BTreeSet<Digest>,
        deleted: &BTreeSet<Digest>,
    ) -> Result<()> {
        let reached = if deleted.is_empty() {
            BTreeSet::new()
        } else {
            self.reached(index)
        };
        let lists = obsolete.iter().filter(|digest| !index.mentions(digest));
        let asked = deleted.iter().filter(|digest| !reached.contains(digest));
        for digest in lists.chain(asked) {
            let path = self.blob_path(digest);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(os("remove", &path, &error));
                }
                _ => {}
            }
            lock(&self.unsynced).remove(digest);
        }
        Ok(())
    }

    /// All digests that the entries and the manifests behind them name. What cannot be read reaches nothing.
    fn reached(&self, index: &Index) -> BTreeSet<Digest> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<Digest> = index
            .entries()
            .iter()
            .map(|entry| entry.digest.clone())
            .collect();
        while let Some(digest) = next.pop() {
            if !reached.insert(digest.clone()) {
                continue;
            }
            let Ok(bytes) = self.read_manifest(&digest) else {
                continue;
            };
            let Ok(manifest) = Manifest::parse(&bytes) else {
                continue;
            };
            reached.extend(manifest.blobs().map(|blob| blob.digest.clone()));
            next.extend(manifest.children().map(|child| child.digest.clone()));
        }
        reached
    }

    async fn lock(&self) -> Result<IndexLock> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            let root = self.root.clone();
            if let Some(held) = blocking(move || IndexLock::try_take(&root)).await? {
                return Ok(held);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "another process holds {} for more than {} seconds",
                        self.root.join(LOCK).display(),
                        LOCK_PATIENCE.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

fn read_index(path: &Path) -> Result<Cached> {
    let file = open_regular(path)?;
    let metadata = file.metadata().map_err(|error| os("open", path, &error))?;
    if metadata.len() > INDEX_LIMIT {
        return Err(Error::limit(format!(
            "{} is larger than {INDEX_LIMIT} bytes",
            path.display()
        )));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&file, INDEX_LIMIT + 1), &mut bytes)
        .map_err(|error| os("read", path, &error))?;
    let index = Index::parse(&bytes).map_err(|error| error.context(path.display().to_string()))?;
    Ok(Cached {
        stamp: Some(Stamp::of(&metadata)),
        pinned: Some(file),
        index: Arc::new(index),
    })
}

fn answer(answers: impl Iterator<Item = (oneshot::Sender<Result<()>>, Result<()>)>) {
    for (done, result) in answers {
        // Who does not wait any more need not know.
        let _ = done.send(result);
    }
}

/// The changes of one batch, on the index that was read under the lock.
struct Work<'a> {
    directory: &'a Directory,
    index: &'a mut Index,
    changed: bool,
    /// Referrer lists that were replaced.
    obsolete: BTreeSet<Digest>,
    /// Content that was asked to be deleted.
    deleted: BTreeSet<Digest>,
}

impl Work<'_> {
    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Put {
                repository,
                tag,
                manifest,
                parsed,
            } => self.put(&repository, tag.as_deref(), &manifest, &parsed),
            Change::Untag { repository, tag } => match self.index.untag(&repository, &tag) {
                Some(_) => {
                    self.changed = true;
                    Ok(())
                }
                None => Err(Error::not_found(format!(
                    "no tag `{tag}` in `{repository}`"
                ))),
            },
            Change::Delete { repository, digest } => self.delete(&repository, &digest),
        }
    }

    fn put(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        manifest: &RawManifest,
        parsed: &Manifest,
    ) -> Result<()> {
        // Looked at under the lock, since that is where blobs are deleted, too.
        self.check_parts(manifest, parsed)?;
        if self.directory.size_now(&manifest.digest)? != Some(manifest.bytes.len() as u64) {
            self.directory
                .write_small(&manifest.digest, manifest.bytes.clone())?;
        }
        if let Some(subject) = &parsed.subject {
            let mut link = manifest.descriptor();
            link.artifact_type = parsed.effective_artifact_type().map(str::to_owned);
            link.annotations.clone_from(&parsed.annotations);
            self.edit_referrers(repository, &subject.digest, |list| {
                list.retain(|other| other.digest != link.digest);
                insert_in_tail(list, link);
            })?;
        }
        let digest = manifest.digest.clone();
        let entry = Entry::new(repository, tag, digest, Some(&manifest.media_type));
        self.changed |= self.index.add(entry);
        Ok(())
    }

    fn check_parts(&self, manifest: &RawManifest, parsed: &Manifest) -> Result<()> {
        // Layers with foreign URLs need not be here (OCI image spec, descriptor.md "urls").
        let blobs = parsed.blobs().filter(|blob| blob.urls.is_none());
        for part in blobs.chain(parsed.children()) {
            if self.directory.size_now(&part.digest)? != Some(part.size) {
                return Err(Error::not_found(format!(
                    "manifest {} needs {}, which is not in {} with {} bytes",
                    manifest.digest,
                    part.digest,
                    self.directory.root.display(),
                    part.size
                )));
            }
        }
        Ok(())
    }

    /// Changes the list of referrers that is kept under the tag of the referrers tag schema.
    fn edit_referrers(
        &mut self,
        repository: &str,
        subject: &Digest,
        edit: impl FnOnce(&mut Vec<Descriptor>),
    ) -> Result<()> {
        let tag = referrers_tag(subject);
        let before = self.index.tagged(repository, &tag);
        let mut list = match before {
            Some(entry) => Manifest::parse(&self.directory.read_manifest(&entry.digest)?)
                .map_err(|error| Error::invalid(format!("list of referrers `{tag}`: {error}")))?,
            None => Manifest::index(Vec::new()),
        };
        let mut links = list.manifests.take().unwrap_or_default();
        edit(&mut links);
        let forgotten = if links.is_empty() {
            self.index.untag(repository, &tag).map(|entry| entry.digest)
        } else {
            list.manifests = Some(links);
            let list = RawManifest::write(&list);
            if before.is_some_and(|entry| entry.digest == list.digest) {
                return Ok(());
            }
            let entry = Entry::new(
                repository,
                Some(&tag),
                list.digest.clone(),
                Some(&list.media_type),
            );
            self.directory.write_small(&list.digest, list.bytes)?;
            self.index.replace(entry)
        };
        self.changed = true;
        self.obsolete.extend(forgotten);
        Ok(())
    }

    fn delete(&mut self, repository: &str, digest: &Digest) -> Result<()> {
        let listed = self.index.remove(repository, digest);
        self.changed |= listed;
        if self.directory.size_now(digest)?.is_none() {
            return if listed {
                Ok(())
            } else {
                Err(Error::not_found(format!(
                    "no content {digest} in `{repository}`"
                )))
            };
        }
        if !listed && self.directory.reached(self.index).contains(digest) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{digest} is still part of a manifest in this archive"),
            ));
        }
        let subject = self
            .directory
            .read_manifest(digest)
            .ok()
            .and_then(|bytes| Manifest::parse(&bytes).ok()?.subject);
        if let Some(subject) = subject.filter(|_| listed) {
            self.edit_referrers(repository, &subject.digest, |links| {
                links.retain(|link| link.digest != *digest);
            })?;
        }
        self.deleted.insert(digest.clone());
        Ok(())
    }
}

/// Puts a link to its place in the longest tail that is sorted by digest: the same list whoever came first.
fn insert_in_tail(list: &mut Vec<Descriptor>, link: Descriptor) {
    let pairs = list.windows(2).rev();
    let sorted = pairs
        .take_while(|pair| pair[0].digest <= pair[1].digest)
        .count();
    let tail = list.len().saturating_sub(sorted + 1);
    let place = list[tail..].partition_point(|other| other.digest <= link.digest);
    list.insert(tail + place, link);
}

/// The right to change the index.
struct IndexLock {
    file: File,
    path: PathBuf,
}

impl IndexLock {
    /// Takes the lock unless another has it. Blocks for no longer than system calls do.
    fn try_take(root: &Path) -> Result<Option<Self>> {
        let path = root.join(LOCK);
        let file = match open_lock(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(root)?;
                open_lock(&path)
            }
            other => other,
        }
        .map_err(|error| not_followed(&path).unwrap_or_else(|| os("open", &path, &error)))?;
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

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    no_follow(&mut options);
    options.open(path)
}

impl Drop for IndexLock {
    fn drop(&mut self) {
        // Only the holder removes it, so a file that is found locked is the one that has the name. Where an open file
        // cannot be removed it stays, which harms nobody; closing it lets go of the lock in any case.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

// Taking blobs in.
impl Directory {
    /// A new file in the staging folder, removed when dropped.
    fn stage(&self, prefix: &str) -> Result<NamedTempFile> {
        let folder = self.root.join(STAGING);
        self.staged.store(true, Ordering::Relaxed);
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
            match builder.tempfile_in(&folder) {
                Ok(file) => return Ok(file),
                // Another process may remove the folder when it is done.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 8 => {
                    attempts += 1;
                    make_folder(&folder)?;
                }
                Err(error) => return Err(os("create a file in", &folder, &error)),
            }
        }
    }

    /// Writes a blob that is in memory. Blocks.
    fn write_small(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let len = bytes.len() as u64;
        let mut temp = self.stage("blob-")?;
        write_all(temp.as_file_mut(), &[bytes])
            .map_err(|error| os("write", temp.path(), &error))?;
        self.publish(temp, digest, len)
    }

    /// Gives a complete file its name. Blocks.
    fn publish(&self, temp: NamedTempFile, digest: &Digest, len: u64) -> Result<()> {
        if len >= SYNC_AT {
            temp.as_file()
                .sync_data()
                .map_err(|error| os("sync", temp.path(), &error))?;
        }
        self.check_folder(BLOBS)?;
        let path = self.blob_path(digest);
        let persisted = match temp.persist(&path) {
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => {
                make_folder(&self.root.join(BLOBS))?;
                error.file.persist(&path)
            }
            other => other,
        };
        persisted.map_err(|error| os("create", &path, &error.error))?;
        lock(&self.unsynced).insert(digest.clone());
        Ok(())
    }

    /// Makes durable what was written since the last time. Blocks.
    fn sync_blobs(&self) -> Result<()> {
        let waiting = std::mem::take(&mut *lock(&self.unsynced));
        if waiting.is_empty() {
            return Ok(());
        }
        let synced = waiting.iter().try_for_each(|digest| {
            let path = self.blob_path(digest);
            match File::open(&path).and_then(|file| file.sync_data()) {
                // Deleted since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(|error| os("sync", &path, &error)),
            }
        });
        let synced = synced.and_then(|()| match self.root.join(BLOBS) {
            folder if folder.exists() => sync_folder(&folder),
            _ => Ok(()),
        });
        if synced.is_err() {
            lock(&self.unsynced).extend(waiting);
        }
        synced
    }
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
}

impl Written {
    fn append(&mut self, directory: &Directory, pieces: &[Bytes]) -> Result<()> {
        if let Some(hasher) = &mut self.hasher {
            pieces.iter().for_each(|piece| hasher.update(piece));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(directory.stage("blob-")?),
        };
        write_all(file.as_file_mut(), pieces).map_err(|error| os("write", file.path(), &error))
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
            Ok(digest)
        })
        .await
    }
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Result<Digest> {
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

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| os("create", path, &error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
