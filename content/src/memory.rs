//! Repositories in memory: a test double, and what a registry without a data folder serves.
//!
//! *Invariant*: behaves as a strict registry does. A blob is visible in a repository only if it was pushed or mounted
//! there, a manifest is refused while a part of it is missing, and bytes are kept once however many repositories have
//! them. Bytes that no repository shows any more are freed. No lock is held across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_specs::media_type::is_manifest;
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest, Hasher};

use crate::blob::{Blob, ByteStream, Source};
use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::name::{check_repository, check_tag};
use crate::store::{ContentStore, MANIFEST_LIMIT, Outcome, Pushed, RawManifest, Staging, Stores};

/// What all repositories together may hold unless said otherwise: 4 GiB.
pub const MEMORY_LIMIT: u64 = 4 << 30;

/// Blobs are kept in pieces of this many bytes, so that a growing blob is never copied as a whole.
const PIECE: usize = 1 << 20;

/// Any number of repositories in memory that share blobs. Cheap to clone; clones are the same place.
#[derive(Clone)]
pub struct MemoryStores(Arc<Shared>);

struct Shared {
    name: String,
    limit: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes in blobs, manifests and uploads that are under way.
    used: u64,
    blobs: BTreeMap<Digest, Kept>,
    repositories: BTreeMap<String, Contents>,
}

/// A blob and in how many repositories it is visible.
struct Kept {
    bytes: Pieces,
    shown: usize,
}

#[derive(Default)]
struct Contents {
    blobs: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, RawManifest>,
    tags: BTreeMap<String, Digest>,
    /// By subject: the manifests that name it.
    referrers: BTreeMap<Digest, BTreeMap<Digest, Descriptor>>,
}

impl MemoryStores {
    /// An empty place that holds [`MEMORY_LIMIT`] bytes at most.
    pub fn new() -> Self {
        Self::with_limit("memory", MEMORY_LIMIT)
    }

    /// An empty place that holds `limit` bytes at most; `name` tells it from others in the same run.
    pub fn with_limit(name: impl Into<String>, limit: u64) -> Self {
        Self(Arc::new(Shared {
            name: name.into(),
            limit,
            state: Mutex::default(),
        }))
    }

    /// Bytes that are held now, uploads under way included.
    pub fn used(&self) -> u64 {
        self.0.lock().used
    }
}

impl Default for MemoryStores {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStores({})", self.0.name)
    }
}

#[async_trait]
impl Stores for MemoryStores {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        check_repository(repository)?;
        Ok(Arc::new(MemoryStore {
            shared: self.0.clone(),
            repository: repository.to_owned(),
        }))
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        let state = self.0.lock();
        let with_content = state
            .repositories
            .iter()
            .filter(|(_, contents)| !contents.is_empty());
        Ok(with_content.map(|(name, _)| name.clone()).collect())
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        Ok(Box::new(Incoming::new(self.0.clone())))
    }
}

/// One repository of a [`MemoryStores`].
struct MemoryStore {
    shared: Arc<Shared>,
    repository: String,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location())
    }
}

#[async_trait]
impl ContentStore for MemoryStore {
    fn location(&self) -> String {
        format!("memory:{}//{}", self.shared.name, self.repository)
    }

    fn repository(&self) -> String {
        self.repository.clone()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        Blob::described(
            descriptor,
            Arc::new(Stored {
                shared: self.shared.clone(),
                repository: self.repository.clone(),
                digest: descriptor.digest.clone(),
                manifest: is_manifest(&descriptor.media_type),
            }),
        )
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let state = self.shared.lock();
        Ok(state
            .find(
                &self.repository,
                &descriptor.digest,
                is_manifest(&descriptor.media_type),
            )
            .is_some())
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let state = self.shared.lock();
        state
            .find(&self.repository, digest, false)
            .map(|bytes| bytes.size)
            .ok_or_else(|| self.missing(digest))
    }

    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        if let Some(digest) = &blob.digest
            && let Some((size, outcome)) = self.take_over(digest, mount_from)
        {
            return Ok(Pushed {
                descriptor: Descriptor::new(blob.media_type.clone(), digest.clone(), size),
                outcome,
            });
        }
        let mut incoming = Incoming::new(self.shared.clone());
        let mut stream = blob.open().await?;
        while let Some(chunk) = stream.next().await {
            incoming.append(&chunk?)?;
        }
        Meter::with(|meter| meter.sent(incoming.pieces.size));
        let digest = match &blob.digest {
            // Verified by the stream.
            Some(digest) => digest.clone(),
            None => incoming.sha256.clone().finish(),
        };
        let size = incoming.pieces.size;
        incoming.publish(&self.repository, &digest);
        Ok(Pushed {
            descriptor: Descriptor::new(blob.media_type.clone(), digest, size),
            outcome: Outcome::Sent,
        })
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        let state = self.shared.lock();
        self.look_up(&state, reference).cloned()
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        tag.map_or(Ok(()), check_tag)?;
        let size = manifest.bytes.len() as u64;
        if size > MANIFEST_LIMIT {
            return Err(Error::limit(format!(
                "manifest of {size} bytes is larger than the {MANIFEST_LIMIT} bytes allowed"
            )));
        }
        let found = Digest::of(manifest.digest.algorithm(), &manifest.bytes);
        if found != manifest.digest {
            return Err(Error::mismatch(format!(
                "manifest has digest {found}, expected {}",
                manifest.digest
            )));
        }
        let document = manifest.parse()?;
        let mut state = self.shared.lock();
        self.check_parts(&state, &document)?;
        let is_new = state
            .contents(&self.repository)
            .is_none_or(|contents| !contents.manifests.contains_key(&manifest.digest));
        if is_new {
            self.shared.reserve(&mut state, size)?;
        }
        let contents = state
            .repositories
            .entry(self.repository.clone())
            .or_default();
        contents.put(manifest, &document);
        if let Some(tag) = tag {
            contents
                .tags
                .insert(tag.to_owned(), manifest.digest.clone());
        }
        Ok(())
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        let state = self.shared.lock();
        Ok(self.look_up(&state, reference)?.descriptor())
    }

    async fn tags(&self) -> Result<Vec<String>> {
        let state = self.shared.lock();
        Ok(state
            .contents(&self.repository)
            .map(|contents| contents.tags.keys().cloned().collect())
            .unwrap_or_default())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let state = self.shared.lock();
        Ok(state
            .contents(&self.repository)
            .and_then(|contents| contents.referrers.get(subject))
            .map(|referrers| referrers.values().cloned().collect())
            .unwrap_or_default())
    }

    async fn untag(&self, tag: &str) -> Result<()> {
        let mut state = self.shared.lock();
        state
            .repositories
            .get_mut(&self.repository)
            .and_then(|contents| contents.tags.remove(tag))
            .map(drop)
            .ok_or_else(|| self.missing(tag))
    }

    async fn delete(&self, descriptor: &Descriptor) -> Result<()> {
        let mut state = self.shared.lock();
        let digest = &descriptor.digest;
        let removed = if is_manifest(&descriptor.media_type) {
            state.remove_manifest(&self.repository, digest)
        } else {
            state.remove_blob(&self.repository, digest)
        };
        removed.ok_or_else(|| self.missing(digest))
    }
}

impl MemoryStore {
    fn missing(&self, what: impl fmt::Display) -> Error {
        Error::not_found(format!("{} has no `{what}`", self.location()))
    }

    /// Is the blob here, or in one of the repositories it may be mounted from? Then it is here afterwards.
    fn take_over(&self, digest: &Digest, mount_from: &[String]) -> Option<(u64, Outcome)> {
        let mut state = self.shared.lock();
        if let Some(bytes) = state.find(&self.repository, digest, false) {
            Meter::with(Meter::skipped);
            return Some((bytes.size, Outcome::Present));
        }
        let size = mount_from
            .iter()
            .find_map(|from| state.find(from, digest, false))?
            .size;
        state.show(&self.repository, digest);
        Meter::with(Meter::mounted);
        Some((size, Outcome::Mounted))
    }

    fn look_up<'a>(&self, state: &'a State, reference: &str) -> Result<&'a RawManifest> {
        let contents = state
            .contents(&self.repository)
            .ok_or_else(|| self.missing(reference))?;
        let digest = match reference.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => contents.tags.get(reference).cloned(),
        };
        digest
            .and_then(|digest| contents.manifests.get(&digest))
            .ok_or_else(|| self.missing(reference))
    }

    /// Parts with `urls` live elsewhere; a subject may come later.
    fn check_parts(&self, state: &State, document: &Manifest) -> Result<()> {
        let foreign = |part: &Descriptor| part.urls.as_ref().is_some_and(|urls| !urls.is_empty());
        let missing = document
            .blobs()
            .map(|part| (part, false))
            .chain(document.children().map(|part| (part, true)))
            .find(|(part, manifest)| {
                !foreign(part)
                    && state
                        .find(&self.repository, &part.digest, *manifest)
                        .is_none()
            });
        match missing {
            Some((part, _)) => Err(self.missing(&part.digest)),
            None => Ok(()),
        }
    }
}

impl Contents {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.manifests.is_empty()
    }

    fn put(&mut self, manifest: &RawManifest, document: &Manifest) {
        if let Some(subject) = &document.subject {
            self.referrers
                .entry(subject.digest.clone())
                .or_default()
                .insert(manifest.digest.clone(), referrer(manifest, document));
        }
        self.manifests
            .insert(manifest.digest.clone(), manifest.clone());
    }
}

/// The entry of a referrers list (OCI distribution spec 1.1, "Listing Referrers").
fn referrer(manifest: &RawManifest, document: &Manifest) -> Descriptor {
    Descriptor {
        artifact_type: document.effective_artifact_type().map(str::to_owned),
        annotations: document.annotations.clone(),
        ..manifest.descriptor()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics while it has changed only half of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, state: &mut State, bytes: u64) -> Result<()> {
        let sum = state
            .used
            .checked_add(bytes)
            .filter(|sum| *sum <= self.limit);
        state.used = sum.ok_or_else(|| {
            Error::limit(format!(
                "{bytes} more bytes exceed the {} bytes that memory store `{}` may hold",
                self.limit, self.name
            ))
        })?;
        Ok(())
    }
}

impl State {
    fn contents(&self, repository: &str) -> Option<&Contents> {
        self.repositories.get(repository)
    }

    fn find(&self, repository: &str, digest: &Digest, manifest: bool) -> Option<Pieces> {
        let contents = self.contents(repository)?;
        if manifest {
            let manifest = contents.manifests.get(digest)?;
            return Some(Pieces::of(manifest.bytes.clone()));
        }
        contents.blobs.get(digest)?;
        self.blobs.get(digest).map(|kept| kept.bytes.clone())
    }

    /// Makes a blob that is kept visible in `repository`.
    fn show(&mut self, repository: &str, digest: &Digest) {
        let contents = self.repositories.entry(repository.to_owned()).or_default();
        if contents.blobs.insert(digest.clone())
            && let Some(kept) = self.blobs.get_mut(digest)
        {
            kept.shown += 1;
        }
    }

    fn remove_blob(&mut self, repository: &str, digest: &Digest) -> Option<()> {
        let contents = self.repositories.get_mut(repository)?;
        contents.blobs.take(digest)?;
        let kept = self.blobs.get_mut(digest)?;
        kept.shown -= 1;
        if kept.shown == 0 {
            self.used -= kept.bytes.size;
            self.blobs.remove(digest);
        }
        Some(())
    }

    fn remove_manifest(&mut self, repository: &str, digest: &Digest) -> Option<()> {
        let contents = self.repositories.get_mut(repository)?;
        let manifest = contents.manifests.remove(digest)?;
        contents.tags.retain(|_, tagged| tagged != digest);
        contents.referrers.retain(|_, referrers| {
            referrers.remove(digest);
            !referrers.is_empty()
        });
        self.used -= manifest.bytes.len() as u64;
        Some(())
    }
}

/// Bytes in pieces. Cheap to clone.
#[derive(Clone, Default)]
struct Pieces {
    pieces: Arc<Vec<Bytes>>,
    size: u64,
}

impl Pieces {
    fn of(bytes: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.add(bytes);
        pieces
    }

    fn add(&mut self, piece: Bytes) {
        self.size += piece.len() as u64;
        Arc::make_mut(&mut self.pieces).push(piece);
    }

    /// The pieces from `offset` on, one at a time.
    fn from(self, offset: u64) -> ByteStream {
        let mut skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let count = self.pieces.len();
        let tails = (0..count).filter_map(move |index| {
            let piece = &self.pieces[index];
            let start = skip.min(piece.len());
            skip -= start;
            (start < piece.len()).then(|| Ok(piece.slice(start..)))
        });
        Box::pin(stream::iter(tails))
    }
}

/// The source of what lies in a repository; looks when it is opened.
struct Stored {
    shared: Arc<Shared>,
    repository: String,
    digest: Digest,
    manifest: bool,
}

impl Stored {
    fn find(&self) -> Option<Pieces> {
        self.shared
            .lock()
            .find(&self.repository, &self.digest, self.manifest)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

impl Source for Stored {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let (found, digest) = (self.find(), self.digest.clone());
        let place = format!("memory:{}//{}", self.shared.name, self.repository);
        Box::pin(async move {
            let pieces =
                found.ok_or_else(|| Error::not_found(format!("{place} has no `{digest}`")))?;
            Meter::with(|meter| meter.opened(&digest));
            Ok(pieces.from(offset))
        })
    }

    fn bytes(&self) -> Option<Bytes> {
        let pieces = self.find()?.pieces;
        match pieces.as_slice() {
            [] => Some(Bytes::new()),
            [only] => Some(only.clone()),
            _ => None,
        }
    }
}

/// A blob on its way in. Its bytes count as used until it is published or dropped.
struct Incoming {
    shared: Arc<Shared>,
    pieces: Pieces,
    last: BytesMut,
    sha256: Hasher,
}

impl Incoming {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            pieces: Pieces::default(),
            last: BytesMut::new(),
            sha256: Hasher::new(Algorithm::Sha256),
        }
    }

    fn append(&mut self, mut chunk: &[u8]) -> Result<()> {
        let size = chunk.len() as u64;
        self.shared.reserve(&mut self.shared.lock(), size)?;
        self.sha256.update(chunk);
        while !chunk.is_empty() {
            let (head, tail) = chunk.split_at(chunk.len().min(PIECE - self.last.len()));
            self.last.extend_from_slice(head);
            self.pieces.size += head.len() as u64;
            chunk = tail;
            if self.last.len() == PIECE {
                self.seal();
            }
        }
        Ok(())
    }

    fn seal(&mut self) {
        if !self.last.is_empty() {
            let piece = std::mem::take(&mut self.last).freeze();
            Arc::make_mut(&mut self.pieces.pieces).push(piece);
        }
    }

    /// Makes the bytes visible; the caller has verified that they hash to `digest`.
    fn publish(mut self, repository: &str, digest: &Digest) {
        self.seal();
        let pieces = std::mem::take(&mut self.pieces);
        let mut state = self.shared.lock();
        if state.blobs.contains_key(digest) {
            state.used -= pieces.size;
        } else {
            let kept = Kept {
                bytes: pieces,
                shown: 0,
            };
            state.blobs.insert(digest.clone(), kept);
        }
        state.show(repository, digest);
    }

    async fn digest(&mut self, algorithm: Algorithm) -> Digest {
        if algorithm == Algorithm::Sha256 {
            return self.sha256.clone().finish();
        }
        self.seal();
        let mut hasher = Hasher::new(algorithm);
        for piece in self.pieces.pieces.iter() {
            hasher.update(piece);
            tokio::task::yield_now().await;
        }
        hasher.finish()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Zero after publishing.
        self.shared.lock().used -= self.pieces.size;
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({} bytes)", self.pieces.size)
    }
}

#[async_trait]
impl Staging for Incoming {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.append(&chunk)
    }

    fn len(&self) -> u64 {
        self.pieces.size
    }

    async fn commit(mut self: Box<Self>, repository: &str, digest: &Digest) -> Result<()> {
        check_repository(repository)?;
        let found = self.digest(digest.algorithm()).await;
        if found != *digest {
            return Err(Error::mismatch(format!(
                "content has digest {found}, expected {digest}"
            )));
        }
        self.publish(repository, digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Capabilities, check_stores};
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn keeps_the_contract() {
        check_stores(Arc::new(MemoryStores::new()), Capabilities::all()).await;
    }

    #[tokio::test]
    #[should_panic(expected = "content_is_deleted on memory")]
    async fn the_contract_finds_what_differs_from_it() {
        let able = Capabilities {
            delete: false,
            ..Capabilities::all()
        };
        let stores = MemoryStores::new();
        let next = std::sync::atomic::AtomicU32::new(0);
        let make = async || {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            stores.store(&format!("n{number}")).expect("a valid name")
        };
        crate::conformance::check_store(make, able).await;
    }

    #[tokio::test]
    async fn holds_no_more_than_its_limit_and_frees_what_goes() {
        let stores = MemoryStores::with_limit("small", 3 << 20);
        let store = stores.store("a").expect("a valid name");
        let blob = |byte: u8| Blob::from_bytes("text/plain", vec![byte; 2 << 20]);
        let first = store.push(&blob(1), &[]).await.expect("two of three MiB");
        let error = store.push(&blob(2), &[]).await.expect_err("four of three");
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(stores.used(), 2 << 20, "the refused push is given back");
        store.delete(&first.descriptor).await.expect("it is there");
        assert_eq!(stores.used(), 0);
        store
            .push(&blob(2), &[])
            .await
            .expect("there is room again");
    }

    #[tokio::test]
    async fn an_abandoned_upload_is_given_back() {
        let stores = MemoryStores::new();
        let mut staging = stores.stage().await.expect("memory can stage");
        staging
            .write(Bytes::from_static(b"abc"))
            .await
            .expect("three bytes");
        assert_eq!((staging.len(), stores.used()), (3, 3));
        drop(staging);
        assert_eq!(stores.used(), 0);
    }

    #[tokio::test]
    async fn bytes_are_kept_once() {
        let stores = MemoryStores::new();
        let blob = Blob::from_bytes("text/plain", vec![7; 1000]);
        for name in ["a", "b", "c"] {
            let store = stores.store(name).expect("a valid name");
            store.push(&blob, &[]).await.expect("room enough");
        }
        assert_eq!(stores.used(), 1000);
    }
}
