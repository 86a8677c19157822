//! The directory form: reading it, taking blobs in, and changing its index.
//!
//! Invariant: a reader never sees half a blob or half an index, and no writer's entries are lost to another.
//!
//! - **Blobs** come in as `staging.rs` says: whole and verified, or not at all. One that no entry reaches is harmless.
//! - **The index** is changed under an advisory lock on `.lock`, held for that change only: read again, merged, written
//!   beside, renamed. The kernel lets go of the lock when its holder dies; the file itself means nothing and is
//!   removed by the holder. Tasks that commit at the same time share one change.
//! - **Durability**: blobs are synced before an index may name them; the index and the folder around the rename.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ocm_content::{Disk, Error, ErrorKind, MANIFEST_LIMIT, RawManifest, Result};
use ocm_specs::Digest;
use ocm_specs::oci::{Descriptor, Manifest};
use tokio::sync::oneshot;

use super::file::{
    CHUNK, Section, blocking, not_followed, open_regular, os, sync_folder, write_all,
};
use super::index::{Entry, INDEX_FILE, INDEX_LIMIT, Index};
use super::locks::{FileLock, Stamp};
use super::over::{Noted, Over};
use super::{Garbage, blob_name, digest_of_name, referrers_tag};

pub(super) const BLOBS: &str = "blobs";
const LOCK: &str = ".lock";

/// A CTF in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    cached: Mutex<Option<Cached>>,
    /// Blobs that a coming index may name and that may not be on the disk yet.
    pub(super) unsynced: Mutex<BTreeSet<Digest>>,
    queue: Mutex<Vec<Pending>>,
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) staged: AtomicBool,
    /// What this folder lies over, where it is the staging folder of an archive file.
    pub(super) over: Option<Over>,
    pub(super) disk: Disk,
}

/// The index as it was read last. The open file keeps its inode from being used for another file.
#[derive(Debug)]
struct Cached {
    pinned: Option<File>,
    stamp: Option<Stamp>,
    index: Arc<Index>,
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
    pub(super) fn new(root: PathBuf, disk: Disk) -> Arc<Self> {
        Self::make(root, None, disk)
    }

    /// The staging folder of an archive file: what is not in it is looked for in what it lies over.
    pub(super) fn over(root: PathBuf, over: Over) -> Arc<Self> {
        let disk = over.disk().clone();
        Self::make(root, Some(over), disk)
    }

    fn make(root: PathBuf, over: Option<Over>, disk: Disk) -> Arc<Self> {
        Arc::new(Self {
            root,
            cached: Mutex::default(),
            unsynced: Mutex::default(),
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            staged: AtomicBool::new(false),
            over,
            disk,
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
        self.check_left_over(digest)?;
        self.check_folder(BLOBS)?;
        let file = match (open_regular(&path), &self.over) {
            (Err(error), Some(over)) if error.kind() == ErrorKind::NotFound => {
                return over.section(digest);
            }
            (file, _) => file?,
        };
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
        if self.over.is_some() {
            return;
        }
        lock(&self.unsynced).insert(digest.clone());
    }

    /// Makes a change visible, together with those that other tasks ask for at the same time.
    ///
    /// A caller that goes away while it waits takes its change back, unless that is being made right now.
    #[tracing::instrument(level = "debug", skip_all, fields(archive = %self.root.display()))]
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
        if self.over.is_some() {
            let directory = self.clone();
            return blocking(move || {
                directory.apply_over(batch);
                Ok(())
            })
            .await;
        }
        let prepared: Result<FileLock> = async {
            self.sync_blobs().await?;
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

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(blob_name(digest))
    }

    /// A folder of the archive must not lead out of it. A missing one is fine.
    pub(super) fn check_folder(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match not_followed(&path) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(super) fn size_now(&self, digest: &Digest) -> Result<Option<u64>> {
        match (self.own_size(digest)?, &self.over) {
            (None, Some(over)) => Ok(over.size(digest)),
            (found, _) => Ok(found),
        }
    }

    /// The length of a blob in this folder itself.
    pub(super) fn own_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.check_left_over(digest)?;
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

    /// Blobs that another run left are looked at before they are relied on.
    fn check_left_over(&self, digest: &Digest) -> Result<()> {
        match &self.over {
            Some(over) => over.check_left_over(digest, &self.blob_path(digest)),
            None => Ok(()),
        }
    }

    pub(super) fn read_manifest(&self, digest: &Digest) -> Result<Bytes> {
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
        if let Some(over) = &self.over {
            return Ok(over.index());
        }
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
        let reached = if deleted.is_empty() {
            Ok(BTreeSet::new())
        } else {
            self.reached(&index)
        };
        if !changed {
            *lock(&self.cached) = known.map(|(pinned, stamp)| Cached {
                pinned,
                stamp,
                index: index.clone(),
            });
        }
        let finished = reached.and_then(|reached| {
            if changed {
                self.sync_now()?;
                self.write_index(index.clone())?;
            }
            self.remove_blobs(&index, &obsolete, deleted.difference(&reached))
        });
        if let Err(error) = finished {
            for (_, result) in &mut answers {
                *result = Err(error.clone());
            }
        }
        answer(answers.into_iter());
    }

    /// The same for the staging folder of an archive file: in memory, as long as the run lasts.
    fn apply_over(&self, batch: Vec<Pending>) {
        let Some(over) = &self.over else {
            return;
        };
        let mut answers = Vec::with_capacity(batch.len());
        for Pending { change, done } in batch {
            let noted = Noted::of(&change);
            let result = over.change(|index| self.change(index, change), noted);
            answers.push((done, result));
        }
        answer(answers.into_iter());
    }

    /// Makes one change to an index in memory. Did it change anything?
    pub(super) fn change(&self, index: &mut Index, change: Change) -> Result<bool> {
        let mut work = Work {
            directory: self,
            index,
            changed: false,
            obsolete: BTreeSet::new(),
            deleted: BTreeSet::new(),
        };
        work.apply(change)?;
        let (changed, obsolete, deleted) = (work.changed, work.obsolete, work.deleted);
        let reached = if deleted.is_empty() {
            BTreeSet::new()
        } else {
            self.reached(index)?
        };
        let deleted: BTreeSet<&Digest> = deleted.difference(&reached).collect();
        self.remove_blobs(index, &obsolete, deleted.iter().copied())?;
        Ok(changed || !deleted.is_empty())
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
        write_all(&self.disk, &mut temp, &[bytes.into()])?;
        self.disk
            .sync(temp.as_file(), temp.path(), true)
            .map_err(|error| os("sync", temp.path(), &error))?;
        let file = self
            .disk
            .rename(temp, &path)
            .map_err(|error| os("replace", &path, &error.error))?;
        // It was locked as a staged file; where locks are mandatory nobody else could read it.
        let _ = file.unlock();
        sync_folder(&self.disk, &self.root)?;
        if let Ok(metadata) = file.metadata() {
            *lock(&self.cached) = Some(Cached {
                stamp: Some(Stamp::of(&metadata)),
                pinned: Some(file),
                index,
            });
        }
        Ok(())
    }

    /// Removes lists of referrers that were replaced, unless they are still named, and what was asked to be deleted.
    fn remove_blobs<'a>(
        &self,
        index: &Index,
        obsolete: &'a BTreeSet<Digest>,
        deleted: impl Iterator<Item = &'a Digest>,
    ) -> Result<()> {
        let lists = obsolete.iter().filter(|digest| !index.mentions(digest));
        for digest in lists.chain(deleted) {
            if let Some(over) = &self.over {
                over.forget(digest);
            }
            let path = self.blob_path(digest);
            match self.disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(os("remove", &path, &error));
                }
                _ => {}
            }
            lock(&self.unsynced).remove(digest);
        }
        Ok(())
    }

    /// All digests that the entries and the manifests behind them name. What is missing or no manifest reaches nothing;
    /// what can't be read could reach anything, and is an error.
    pub(super) fn reached(&self, index: &Index) -> Result<BTreeSet<Digest>> {
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
            let bytes = match self.read_manifest(&digest) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let Ok(manifest) = Manifest::parse(&bytes) {
                reached.extend(manifest.blobs().map(|blob| blob.digest.clone()));
                next.extend(manifest.children().map(|child| child.digest.clone()));
            }
        }
        Ok(reached)
    }

    /// Removes blobs that nothing reaches and that were last written `grace` ago or earlier, and what dead writers left.
    /// With `remove` false they are only counted.
    pub(super) async fn collect_garbage(
        self: &Arc<Self>,
        grace: Duration,
        remove: bool,
    ) -> Result<Garbage> {
        let held = self.lock().await?;
        let directory = self.clone();
        blocking(move || {
            let garbage = directory.collect_now(grace, remove);
            drop(held);
            garbage
        })
        .await
    }

    fn collect_now(&self, grace: Duration, remove: bool) -> Result<Garbage> {
        let reached = self.reached(&*self.load()?)?;
        let mut garbage = self.sweep(remove);
        self.check_folder(BLOBS)?;
        let folder = self.root.join(BLOBS);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(garbage),
            Err(error) => return Err(os("list", &folder, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| os("list", &folder, &error))?;
            let digest = entry.file_name().to_str().and_then(digest_of_name);
            let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) else {
                continue;
            };
            let age = metadata
                .modified()
                .ok()
                .and_then(|time| time.elapsed().ok());
            if reached.contains(&digest) || age.is_none_or(|age| age < grace) {
                continue;
            }
            let path = entry.path();
            if remove {
                self.disk
                    .remove_file(&path)
                    .map_err(|error| os("remove", &path, &error))?;
            }
            garbage.files += 1;
            garbage.bytes += metadata.len();
        }
        Ok(garbage)
    }

    async fn lock(&self) -> Result<FileLock> {
        FileLock::take(&self.disk, &self.root, LOCK).await
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
        // Asked before anything changes: what can't be told apart now can't be removed later.
        let reached = self.directory.reached(self.index)?;
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
        if !listed && reached.contains(digest) {
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
