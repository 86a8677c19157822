//! OCI artifacts in tars: OCI image layouts, and the three variants of artifact sets.
//!
//! *Invariants:* what an archive says about itself is checked before it is used, parts are verified by digest when they are
//! read; nothing is unpacked to a folder. A tar that can be read in place is: one pass to find its entries, then each by its
//! offset, without temporary bytes. A compressed one, or one that can be read once only, is spooled in one pass.
//!
//! Writing is in `write`.

mod inside;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_specs::media_type;
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest};

use crate::artifact::{Artifact, Stored};
use crate::blob::{Access, Blob, ByteStream, Source};
use crate::copy::MANIFESTS_LIMIT;
use crate::error::{Error, Result};
use crate::gzip::{MAGIC, gunzip};
use crate::limits::{Host, Limits};
use crate::spool::Spool;
use crate::store::{ContentStore, MANIFEST_LIMIT, Pushed, RawManifest};
use crate::tarball::{TarEntry, TarEvent, TarKind, TarReader};

pub use inside::{expect_also, expect_artifact};
pub use write::{ArchiveForm, archive, layout_tar};

/// Most entries of an archive of an artifact.
pub const ENTRIES_LIMIT: usize = 100_000;
/// Most bytes of an archive, uncompressed: 1 TiB. What is spooled is bounded by the run's budget besides.
pub const UNPACKED_LIMIT: u64 = 1 << 40;

/// Most bytes of entries without meaning that are decompressed just to get past them: 1 GiB.
const IGNORED_LIMIT: u64 = 1 << 30;

const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
/// The index of an artifact set in its own form; the second name is the one in the OCM specification's text.
const SET_INDEXES: [&str; 2] = ["artifact-descriptor.json", "artifact-set-descriptor.json"];
const MAIN: &str = "software.ocm/main";
const TAGS: &str = "software.ocm/tags";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Opens an OCI image layout or an artifact set, compressed or not, as the artifact it holds.
///
/// The tag is the bare one that the archive gives its main artifact. Temporary bytes are freed with the artifact. Takes
/// transfer slots on the blob's hosts for its pass: hold none when calling this.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for what is no such archive, names outside of itself, links, devices, duplicates, or holds no
/// or several main artifacts; [`crate::ErrorKind::Limit`] beyond the limits here or of the run.
pub async fn open_archive(blob: &Blob, limits: &Arc<Limits>) -> Result<Artifact> {
    let slots = limits.transfer(&blob.hosts()).await;
    let contents = Contents::read(blob, limits).await?;
    drop(slots);
    let index = contents.index().await?;
    let name = match &blob.digest {
        Some(digest) => format!("archive:{digest}"),
        None => format!("archive:{}", blob.media_type),
    };
    let store = ArchiveStore::new(name, &contents, &index).await?;
    let root = store.main(&index)?;
    let tag = tag_of(&root);
    Ok(Artifact::Stored(Stored {
        root: Descriptor {
            annotations: None,
            ..root
        },
        store: Arc::new(store),
        tag,
    }))
}

/// Where the entries of an archive are.
struct Contents {
    base: Arc<dyn Source>,
    /// By path: offset in `base` and length.
    files: BTreeMap<String, (u64, u64)>,
}

impl Contents {
    async fn read(blob: &Blob, limits: &Arc<Limits>) -> Result<Self> {
        let (input, compressed) = uncompressed(blob.open().await?, limits).await?;
        let in_place = !compressed && blob.access() == Access::Reopenable;
        let spool = (!in_place).then(|| Spool::new(limits));
        let (files, spool) = scan(input, spool).await?;
        let base = spool.map_or_else(|| blob.source().clone(), Spool::finish);
        Ok(Self { base, files })
    }

    fn slice(&self, path: &str) -> Option<(Arc<dyn Source>, u64)> {
        let (start, length) = *self.files.get(path)?;
        let slice = Slice {
            base: self.base.clone(),
            start,
            length,
        };
        Some((Arc::new(slice), length))
    }

    async fn document(&self, path: &str) -> Result<Option<Bytes>> {
        let Some((source, size)) = self.slice(path) else {
            return Ok(None);
        };
        let mut blob = Blob::new(media_type::OCTET_STREAM, source);
        blob.size = Some(size);
        let bytes = blob.read(MANIFEST_LIMIT).await;
        bytes
            .map(Some)
            .map_err(|error| error.context(format!("read `{path}` of the archive")))
    }

    async fn index(&self) -> Result<Manifest> {
        if let Some(layout) = self.document(LAYOUT).await? {
            check_layout(&layout)?;
        }
        for path in [INDEX].iter().chain(&SET_INDEXES) {
            if let Some(bytes) = self.document(path).await? {
                return Manifest::parse(&bytes)
                    .map_err(|error| Error::invalid(format!("`{path}` of the archive: {error}")));
            }
        }
        Err(Error::invalid(format!(
            "archive has neither `{INDEX}` nor `{}`: not an OCI layout and not an artifact set",
            SET_INDEXES[0]
        )))
    }

    /// Blobs by digest: `blobs/sha256/<hex>` in layouts, `blobs/sha256.<hex>` in artifact sets.
    fn blobs(&self) -> BTreeMap<Digest, (Arc<dyn Source>, u64)> {
        self.files
            .keys()
            .filter_map(|path| Some((digest_of(path)?, self.slice(path)?)))
            .collect()
    }
}

/// What the path of a blob in an archive says.
fn digest_of(path: &str) -> Option<Digest> {
    let name = path.strip_prefix("blobs/")?;
    let (algorithm, hex) = name.split_once(['/', '.'])?;
    Digest::new(Algorithm::parse(algorithm)?, hex).ok()
}

/// The tar in a stream that may be compressed; was it?
async fn uncompressed(mut input: ByteStream, limits: &Arc<Limits>) -> Result<(ByteStream, bool)> {
    let (mut head, mut read) = (Vec::new(), Vec::new());
    while head.len() < MAGIC.len()
        && let Some(chunk) = input.next().await
    {
        let chunk = chunk?;
        head.extend(chunk.iter().take(MAGIC.len()));
        read.push(Ok(chunk));
    }
    let compressed = head.starts_with(&MAGIC);
    let input: ByteStream = Box::pin(stream::iter(read).chain(input));
    let input = if compressed {
        gunzip(input, limits)
    } else {
        input
    };
    Ok((input, compressed))
}

/// How much of an archive is looked at.
#[derive(Default)]
struct Bounds {
    bytes: u64,
    ignored: u64,
    entries: usize,
}

impl Bounds {
    fn bytes(&mut self, chunk: &[u8]) -> Result<()> {
        self.bytes += chunk.len() as u64;
        if self.bytes > UNPACKED_LIMIT {
            return Err(Error::limit(format!(
                "archive has more than {UNPACKED_LIMIT} bytes"
            )));
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_LIMIT {
            return Err(Error::limit(format!(
                "archive has more than {ENTRIES_LIMIT} entries"
            )));
        }
        Ok(())
    }

    fn ignored(&mut self, data: &[u8]) -> Result<()> {
        self.ignored += data.len() as u64;
        if self.ignored > IGNORED_LIMIT {
            return Err(Error::limit(format!(
                "archive has more than {IGNORED_LIMIT} bytes that are no part of it"
            )));
        }
        Ok(())
    }
}

/// Reads a tar to its end: finds the files and keeps their content if there is a spool.
async fn scan(
    mut input: ByteStream,
    mut spool: Option<Spool>,
) -> Result<(BTreeMap<String, (u64, u64)>, Option<Spool>)> {
    let mut files = BTreeMap::new();
    let mut reader = TarReader::new();
    let (mut bounds, mut keep) = (Bounds::default(), false);
    while let Some(chunk) = input.next().await {
        let chunk = chunk?;
        bounds.bytes(&chunk)?;
        reader.feed(chunk);
        while let Some(event) = reader.next_event()? {
            match event {
                TarEvent::Entry(entry) => {
                    bounds.entry()?;
                    keep = false;
                    if let Some(path) = wanted(&entry)? {
                        keep = true;
                        let start = spool.as_ref().map_or(entry.offset, Spool::len);
                        if files.insert(path.to_owned(), (start, entry.size)).is_some() {
                            return Err(Error::invalid(format!("archive has `{path}` twice")));
                        }
                    }
                }
                TarEvent::Data(data) => {
                    if !keep {
                        bounds.ignored(&data)?;
                    }
                    if let Some(spool) = spool.as_mut().filter(|_| keep) {
                        spool.write(data).await?;
                    }
                }
                TarEvent::EntryEnd => {}
            }
        }
    }
    reader.finish()?;
    Ok((files, spool))
}

/// The path of an entry that may be part of an artifact; errors for what must not be in such an archive.
fn wanted(entry: &TarEntry) -> Result<Option<&str>> {
    let path = entry.safe_path()?;
    match &entry.kind {
        TarKind::File => {}
        TarKind::Directory => return Ok(None),
        // A pax header for the whole tar, as `git archive` writes it, never gets here.
        TarKind::Symlink(_) | TarKind::Hardlink(_) | TarKind::Other(_) => {
            return Err(Error::invalid(format!(
                "archive entry `{path}` is a link or a device"
            )));
        }
    }
    let index = path == INDEX || path == LAYOUT || SET_INDEXES.contains(&path);
    Ok((index || path.starts_with("blobs/")).then_some(path))
}

fn check_layout(bytes: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("`{LAYOUT}` of the archive: {error}")))?;
    let version = layout.image_layout_version;
    if version.starts_with("1.") {
        Ok(())
    } else {
        Err(Error::unsupported(format!(
            "OCI image layout version `{version}`"
        )))
    }
}

/// The bare tag of an index entry: reference names may be full references (T20 has the bare ones).
fn tag_of(link: &Descriptor) -> Option<String> {
    let tags = link
        .annotation(TAGS)
        .and_then(|tags| tags.split(',').next());
    let name = link.annotation(REF_NAME).or(tags)?;
    let name = name.split('@').next()?;
    let tag = match (
        name.rsplit('/').next()?.rsplit_once(':'),
        name.contains('/'),
    ) {
        (Some((_, tag)), _) => tag,
        (None, false) => name,
        (None, true) => return None,
    };
    let tag = tag.trim();
    (!tag.is_empty()).then(|| tag.to_owned())
}

/// A part of a longer source.
#[derive(Debug)]
struct Slice {
    base: Arc<dyn Source>,
    start: u64,
    length: u64,
}

impl Source for Slice {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let offset = offset.min(self.length);
        let length = self.length - offset;
        if length == 0 {
            return Box::pin(async { Ok(Box::pin(stream::empty()) as ByteStream) });
        }
        let opening = self.base.open(self.start + offset);
        Box::pin(async move { Ok(exactly(opening.await?, length)) })
    }

    fn hosts(&self) -> Vec<Host> {
        self.base.hosts()
    }
}

/// The first `length` bytes of a stream that has at least as many.
pub(crate) fn exactly(input: ByteStream, length: u64) -> ByteStream {
    Box::pin(stream::try_unfold(
        (input, length),
        |(mut input, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let Some(chunk) = input.next().await else {
                return Err(Error::mismatch(format!("{left} bytes are missing")));
            };
            let mut chunk = chunk?;
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - chunk.len() as u64;
            Ok(Some((chunk, (input, left))))
        },
    ))
}

/// What is in an opened archive, as a store that can be read.
#[derive(Debug)]
struct ArchiveStore {
    name: String,
    blobs: BTreeMap<Digest, (Arc<dyn Source>, u64)>,
    tags: BTreeMap<String, Descriptor>,
    /// Entries of the index, each once.
    links: BTreeMap<Digest, Descriptor>,
    /// Entries of the index that refer to another manifest, by that.
    referrers: BTreeMap<Digest, Vec<Descriptor>>,
    /// Children of the entries of the index.
    inner: BTreeSet<Digest>,
}

impl ArchiveStore {
    async fn new(name: String, contents: &Contents, index: &Manifest) -> Result<Self> {
        let mut store = Self {
            name,
            blobs: contents.blobs(),
            tags: BTreeMap::new(),
            links: BTreeMap::new(),
            referrers: BTreeMap::new(),
            inner: BTreeSet::new(),
        };
        for link in index.children() {
            let tags = link.annotation(TAGS).into_iter();
            let tags = tags.flat_map(|tags| tags.split(',')).map(str::trim);
            for tag in tags
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .chain(tag_of(link))
            {
                store.tags.insert(tag, link.clone());
            }
            store
                .links
                .entry(link.digest.clone())
                .or_insert_with(|| link.clone());
        }
        if store.links.len() > MANIFESTS_LIMIT {
            return Err(Error::limit(format!(
                "archive names more than {MANIFESTS_LIMIT} manifests"
            )));
        }
        // One entry is the main one, whatever is in it.
        if store.links.len() > 1 {
            store.relate().await?;
        }
        Ok(store)
    }

    /// Finds out which entry refers to or contains which.
    async fn relate(&mut self) -> Result<()> {
        for link in self.links.clone().into_values() {
            if !link.is_manifest() {
                continue;
            }
            let manifest = self.manifest(&link.digest.to_string()).await?.parse()?;
            let children = manifest.children().map(|child| child.digest.clone());
            self.inner.extend(children);
            if let Some(subject) = &manifest.subject {
                let mut listed = Descriptor::new(link.media_type, link.digest, link.size);
                listed.artifact_type = manifest.effective_artifact_type().map(str::to_owned);
                listed.annotations = manifest.annotations.clone();
                let subject = subject.digest.clone();
                self.referrers.entry(subject).or_default().push(listed);
            }
        }
        Ok(())
    }

    /// The artifact that the archive is about.
    fn main(&self, index: &Manifest) -> Result<Descriptor> {
        let named = index.annotations.as_ref().and_then(|all| all.get(MAIN));
        if let Some(named) = named {
            let digest: Digest = named
                .parse()
                .map_err(|error| Error::invalid(format!("`{MAIN}` of the archive: {error}")))?;
            return self.links.get(&digest).cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "archive has no entry for its main artifact {digest}"
                ))
            });
        }
        let referring: BTreeSet<&Digest> = self
            .referrers
            .values()
            .flatten()
            .map(|link| &link.digest)
            .collect();
        let mut roots = self.links.values().filter(|link| {
            self.links.len() == 1
                || !(self.inner.contains(&link.digest) || referring.contains(&link.digest))
        });
        match (roots.next(), roots.next()) {
            (Some(main), None) => Ok(main.clone()),
            (None, _) => Err(Error::invalid("archive holds no artifact")),
            (Some(one), Some(other)) => Err(Error::invalid(format!(
                "archive holds several artifacts, among them {} and {}, and does not say which is the main one",
                one.digest, other.digest
            ))),
        }
    }

    fn missing(&self, what: &str) -> Error {
        Error::not_found(format!("{} has no {what}", self.name))
    }

    fn read_only(&self) -> Error {
        Error::unsupported(format!("{} can be read only", self.name))
    }
}

#[async_trait]
impl ContentStore for ArchiveStore {
    fn location(&self) -> String {
        self.name.clone()
    }

    fn repository(&self) -> String {
        "archive".to_owned()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        let source = match self.blobs.get(&descriptor.digest) {
            Some((source, _)) => source.clone(),
            None => Arc::new(Missing(self.missing(&descriptor.digest.to_string()))),
        };
        Blob::described(descriptor, source)
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let found = self.blobs.get(&descriptor.digest);
        Ok(found.is_some_and(|(_, size)| *size == descriptor.size))
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let found = self.blobs.get(digest).map(|(_, size)| *size);
        found.ok_or_else(|| self.missing(&digest.to_string()))
    }

    async fn push(&self, _blob: &Blob, _mount_from: &[String]) -> Result<Pushed> {
        Err(self.read_only())
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        let digest = match self.tags.get(reference) {
            Some(link) => link.digest.clone(),
            None => reference.parse().map_err(|_| self.missing(reference))?,
        };
        let Some((source, size)) = self.blobs.get(&digest) else {
            return Err(self.missing(&format!("manifest {digest}")));
        };
        let blob = Blob::new(media_type::OCTET_STREAM, source.clone())
            .expect_content(digest.clone(), *size);
        let bytes = blob.read(MANIFEST_LIMIT).await?;
        let link = self.links.get(&digest);
        let raw = RawManifest {
            media_type: String::new(),
            digest,
            bytes,
        };
        raw.identified(link.map(|link| link.media_type.as_str()))
    }

    async fn put_manifest(&self, _manifest: &RawManifest, _tag: Option<&str>) -> Result<()> {
        Err(self.read_only())
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        let manifest = self.manifest(reference).await?;
        Ok(manifest.descriptor())
    }

    async fn tags(&self) -> Result<Vec<String>> {
        Ok(self.tags.keys().cloned().collect())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.referrers.get(subject).cloned().unwrap_or_default())
    }
}

#[derive(Debug)]
struct Missing(Error);

impl Source for Missing {
    fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let error = self.0.clone();
        Box::pin(async move { Err(error) })
    }
}

#[cfg(test)]
mod tests;
