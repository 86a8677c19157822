//! The Common Transport Format: many repositories of OCI content in one directory, tar or tgz.
//!
//! Invariant: what is read here was verified against its digest by whoever reads it to the end, nothing outside the
//! archive is read or written, and nothing is visible under a name before it is complete.
//!
//! The directory form can be written by any number of tasks and processes at once (`directory.rs` says how); equal
//! content gives equal files, whatever was written first (`index.rs` says why). Tar and tgz are read in place
//! (`archive.rs`) and written as a whole by [`Ctf::flush`] (`pack.rs`).
//!
//! Referrers are kept as the referrers tag schema of the OCI distribution spec has it: an index under the tag
//! `<algorithm>-<hex>` in the repository of the subject. Such tags are left out of listings.

mod archive;
mod component;
mod directory;
mod file;
mod index;
mod locks;
mod over;
mod pack;
mod staging;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use ocm_content::name::{check_repository, check_tag};
use ocm_content::{
    Blob, ByteStream, ContentStore, Error, ErrorKind, Limits, Locator, MANIFEST_LIMIT, Meter,
    Outcome, Pushed, RawManifest, Result, Source, Staging, Stores,
};
use ocm_specs::descriptor::DESCRIPTOR_FILE;
use ocm_specs::media_type::{OCTET_STREAM, is_manifest};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest};

pub use self::component::ComponentArchive;
pub use self::index::{Entry, INDEX_FILE, INDEX_LIMIT, Index};
pub use self::over::Pending;

use self::directory::{Change, Directory};
use self::file::{blocking, os};
use self::pack::Pack;
use self::staging::Draft;

/// What may be done with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read what is there.
    ReadOnly,
    /// Read and change what is there.
    ReadWrite,
    /// The same, and begin with an empty archive if there is nothing. Nothing is written before the first content.
    Create,
}

/// How an archive is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// Files in a directory, written in place.
    Directory,
    /// A tar file, read in place, written as a whole by [`Ctf::flush`].
    Tar,
    /// A gzip-compressed tar file, unpacked to a temporary file on the first use, written as a whole by [`Ctf::flush`].
    Tgz,
}

/// How to open an archive.
#[derive(Clone, Debug)]
pub struct CtfOptions {
    /// What may be done with it.
    pub access: Access,
    /// The limits of the run: where temporary files go, and how large they may become.
    pub limits: Arc<Limits>,
}

/// What was removed because nothing needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// How many files.
    pub files: u64,
    /// Their length together, in bytes.
    pub bytes: u64,
}

/// An archive in the Common Transport Format (schema version 1). One per path and run: it holds what is known of the index
/// and collects changes that several tasks make at once.
#[derive(Debug)]
pub struct Ctf {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    form: Form,
    access: Access,
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Directory(Arc<Directory>),
    File(Arc<Pack>),
}

impl Ctf {
    /// Opens the archive at `path`. The form of what is there follows from its content, the form of what is to be created
    /// from the ending of the name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is there and nothing may be created, [`ErrorKind::Invalid`] when something
    /// else is there.
    pub async fn open(path: &Path, options: CtfOptions) -> Result<Arc<Self>> {
        Self::open_as(path, None, options).await
    }

    /// The same, with the form of what is to be created told; what is there already stays as it is.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub async fn open_as(
        path: &Path,
        form: Option<Form>,
        options: CtfOptions,
    ) -> Result<Arc<Self>> {
        let given = path.to_owned();
        let access = options.access;
        let (path, form) = blocking(move || find(&given, form, access)).await?;
        let storage = match form {
            Form::Directory => {
                Storage::Directory(Directory::new(path.clone(), options.limits.disk().clone()))
            }
            Form::Tar | Form::Tgz => Storage::File(Pack::new(
                path.clone(),
                form == Form::Tgz,
                access != Access::ReadOnly,
                options.limits,
            )),
        };
        Ok(Arc::new(Self {
            shared: Arc::new(Shared {
                path,
                form,
                access,
                storage,
            }),
        }))
    }

    /// The absolute path, links resolved as far as it exists.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// How it is stored.
    pub fn form(&self) -> Form {
        self.shared.form
    }

    /// The index as it is now.
    pub async fn index(&self) -> Result<Arc<Index>> {
        self.shared.storage.index().await
    }

    /// Ends a run's changes: writes the tar or tgz anew with all of them, merged with what other processes did to it
    /// meanwhile, and renames it into place. Was anything written? A directory is always up to date.
    ///
    /// Before this the file is as it was, for everybody but this `Ctf`. What is being put at the same time may be left
    /// out: this is for the end of a run. If it fails, or is not called, the file stays as it was, and content that was put
    /// stays in a folder beside it (`<path>.staging`), where the next run finds it.
    ///
    /// # Errors
    /// Those of the disk; [`ErrorKind::Conflict`] when another process removed what the changes rely on.
    pub async fn flush(&self) -> Result<bool> {
        match &self.shared.storage {
            Storage::Directory(_) => Ok(false),
            Storage::File(pack) => pack
                .flush()
                .await
                .map_err(|error| error.context(format!("write {}", self.shared.path.display()))),
        }
    }

    /// What [`Self::flush`] has to write.
    pub fn pending(&self) -> Pending {
        match &self.shared.storage {
            Storage::Directory(_) => Pending::Nothing,
            Storage::File(pack) => pack.pending(),
        }
    }

    /// Removes blobs that no entry of the index reaches, and what runs left that were killed: partial files, and staging
    /// folders beside archive files.
    ///
    /// Blobs that were written less than `grace` ago stay: a run that is going on pushes blobs before the manifest that
    /// reaches them. A run that relies on an older blob finds it missing when it puts the manifest, and pushes it again. An
    /// archive file is as old as its last change, and is written anew if it has garbage.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where nothing can be written; any error of reading a manifest that the index names, since
    /// it might reach everything. Then nothing is removed.
    pub async fn collect_garbage(&self, grace: Duration) -> Result<Garbage> {
        self.garbage(grace, true).await
    }

    /// What [`Self::collect_garbage`] would remove.
    ///
    /// # Errors
    /// The same.
    pub async fn find_garbage(&self, grace: Duration) -> Result<Garbage> {
        self.garbage(grace, false).await
    }

    async fn garbage(&self, grace: Duration, remove: bool) -> Result<Garbage> {
        self.shared.check_writable()?;
        match &self.shared.storage {
            Storage::Directory(directory) => directory.collect_garbage(grace, remove).await,
            Storage::File(pack) => pack.collect_garbage(grace, remove).await,
        }
    }
}

#[async_trait]
impl Stores for Ctf {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        check_repository(repository)?;
        Ok(Arc::new(Repository {
            shared: self.shared.clone(),
            name: repository.to_owned(),
        }))
    }

    /// Repositories whose names no registry would take are left out: they can't be asked for.
    async fn repositories(&self) -> Result<Vec<String>> {
        let index = self.index().await?;
        let names = index.repositories().into_iter();
        Ok(names
            .filter(|name| check_repository(name).is_ok())
            .map(str::to_owned)
            .collect())
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        let draft = self.shared.changes().await?.draft(true);
        Ok(Box::new(Staged(draft)))
    }

    fn writable(&self) -> bool {
        self.shared.access != Access::ReadOnly
    }
}

/// Finds out what is at `path`: the place itself and its form. Blocks.
fn find(path: &Path, form: Option<Form>, access: Access) -> Result<(PathBuf, Form)> {
    let new_form = form.unwrap_or_else(|| form_of_name(path));
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && access == Access::Create => {
            return Ok((canonical(path)?, new_form));
        }
        // A run that was killed before it wrote the archive for the first time: nothing but content without names.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && access == Access::ReadWrite
                && new_form != Form::Directory
                && pack::staging_folder(path).is_dir() =>
        {
            return Ok((canonical(path)?, new_form));
        }
        Err(error) => return Err(os("open", path, &error)),
    };
    let canonical = canonical(path)?;
    if metadata.is_file() {
        let form = sniff(&canonical)?;
        return Ok((canonical, form));
    }
    if !metadata.is_dir() {
        return Err(no_archive(
            &canonical,
            "it is neither a directory nor a file",
        ));
    }
    let is_there = |name: &str| canonical.join(name).symlink_metadata().is_ok();
    if access != Access::Create && !is_there(INDEX_FILE) {
        if is_there(DESCRIPTOR_FILE) {
            return Err(no_archive(&canonical, "it is a component archive"));
        }
        // A run that was killed before its first commit leaves blobs only: an archive without content.
        if !is_there("blobs") {
            return Err(no_archive(&canonical, "it has no artifact-index.json"));
        }
    }
    Ok((canonical, Form::Directory))
}

fn no_archive(path: &Path, why: &str) -> Error {
    Error::invalid(format!(
        "{} is no archive in the Common Transport Format: {why}",
        path.display()
    ))
}

/// Absolute and without links, also where the last parts do not exist yet.
fn canonical(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| os("open", path, &error))?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(found) => {
                return Ok(missing
                    .iter()
                    .rev()
                    .fold(found, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(os("open", existing, &error)),
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                existing = parent;
            }
            // `..` behind something that does not exist.
            _ => return Err(Error::invalid(format!("{} leads nowhere", path.display()))),
        }
    }
}

fn form_of_name(path: &Path) -> Form {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    if name.ends_with(".tar") {
        Form::Tar
    } else if name.ends_with(".tgz") || name.ends_with(".tar.gz") {
        Form::Tgz
    } else {
        Form::Directory
    }
}

fn sniff(path: &Path) -> Result<Form> {
    let mut start = [0; 512];
    let mut file = File::open(path).map_err(|error| os("open", path, &error))?;
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(os("read", path, &error)),
        }
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Form::Tgz)
    } else if filled == start.len() && archive::is_header(&start) {
        Ok(Form::Tar)
    } else {
        Err(no_archive(path, "its content is neither tar nor gzip"))
    }
}

impl Storage {
    async fn index(&self) -> Result<Arc<Index>> {
        match self {
            Self::Directory(directory) => directory.index().await,
            Self::File(pack) => pack.index().await,
        }
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self {
            Self::Directory(directory) => directory.size(digest).await,
            Self::File(pack) => pack.size(digest).await,
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<ByteStream> {
        match self {
            Self::Directory(directory) => {
                let (directory, digest) = (directory.clone(), digest.clone());
                file::stream(move || directory.section(&digest), offset).await
            }
            Self::File(pack) => {
                let section = pack.section(digest).await?;
                file::stream(move || Ok(section), offset).await
            }
        }
    }
}

impl Shared {
    fn location(&self, repository: &str) -> String {
        format!("ctf://{}//{repository}", self.path.display())
    }

    fn check_writable(&self) -> Result<()> {
        if self.access == Access::ReadOnly {
            return Err(Error::unsupported(format!(
                "{} was opened for reading only",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// The folder that changes go to.
    async fn changes(&self) -> Result<Arc<Directory>> {
        self.check_writable()?;
        match &self.storage {
            Storage::Directory(directory) => Ok(directory.clone()),
            Storage::File(pack) => pack.changes().await,
        }
    }

    /// Notes that the run relies on a blob that is here.
    fn adopt(&self, digest: &Digest) {
        if let Storage::Directory(directory) = &self.storage {
            directory.adopt(digest);
        }
    }

    fn blob(self: &Arc<Self>, repository: &str, media_type: &str, digest: Digest) -> Blob {
        self.content(repository, media_type, digest, false)
    }

    fn content(
        self: &Arc<Self>,
        repository: &str,
        media_type: &str,
        digest: Digest,
        is_document: bool,
    ) -> Blob {
        let source = Stored {
            shared: self.clone(),
            repository: repository.to_owned(),
            digest: digest.clone(),
            is_document,
        };
        let mut blob = Blob::new(media_type, Arc::new(source));
        blob.digest = Some(digest);
        blob
    }
}

/// A blob in an archive.
#[derive(Clone, Debug)]
struct Stored {
    shared: Arc<Shared>,
    repository: String,
    digest: Digest,
    /// A manifest that was asked for as one: no read of a blob, here as little as from a registry.
    is_document: bool,
}

impl Source for Stored {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let stored = self.clone();
        Box::pin(async move {
            if !stored.is_document {
                Meter::with(|meter| meter.opened(&stored.digest));
            }
            let opened = stored.shared.storage.open(&stored.digest, offset).await;
            opened.map_err(|error| {
                error.context(format!(
                    "blob {} of {}",
                    stored.digest,
                    stored.shared.location(&stored.repository)
                ))
            })
        })
    }

    fn locator(&self) -> Option<Locator> {
        Some(Locator {
            store: self.shared.location(&self.repository),
            digest: self.digest.clone(),
        })
    }
}

/// One repository of an archive. Blobs are those of the whole archive.
#[derive(Debug)]
struct Repository {
    shared: Arc<Shared>,
    name: String,
}

impl Repository {
    fn missing(&self, reference: &str) -> Error {
        Error::not_found(format!(
            "no `{reference}` in {}",
            self.shared.location(&self.name)
        ))
    }

    /// Digest of what a reference stands for, and its media type where the index says it.
    async fn look_up(&self, reference: &str) -> Result<(Digest, Option<String>)> {
        let index = self.shared.storage.index().await?;
        if reference.contains(':') {
            let digest: Digest = reference
                .parse()
                .map_err(|error| Error::invalid(format!("{error}")))?;
            let media_type = index
                .with_digest(&self.name, &digest)
                .and_then(|entry| entry.media_type.clone());
            return Ok((digest, media_type));
        }
        let entry = index
            .tagged(&self.name, reference)
            .ok_or_else(|| self.missing(reference))?;
        Ok((entry.digest.clone(), entry.media_type.clone()))
    }

    async fn read(&self, digest: &Digest, media_type: Option<&str>) -> Result<RawManifest> {
        let blob = self.shared.content(
            &self.name,
            media_type.unwrap_or(OCTET_STREAM),
            digest.clone(),
            true,
        );
        let bytes = blob.read(MANIFEST_LIMIT).await?;
        // A blob that is no manifest can't be asked for as one.
        if media_type.is_none() && !looks_like_manifest(&bytes) {
            return Err(self.missing(&digest.to_string()));
        }
        let raw = RawManifest {
            media_type: String::new(),
            digest: digest.clone(),
            bytes,
        };
        raw.identified(media_type)
    }

    async fn commit(&self, change: Change) -> Result<()> {
        let location = || self.shared.location(&self.name);
        let made = self.shared.changes().await?.commit(change).await;
        made.map_err(|error| error.context(location()))
    }

    /// Is the blob here, whole as far as can be told without reading, or after reading where its size is not known?
    async fn has(&self, digest: &Digest, size: Option<u64>) -> Result<Option<u64>> {
        let found = self.shared.storage.size(digest).await?;
        match (found, size) {
            (Some(found), None) => {
                let blob = self.shared.blob(&self.name, OCTET_STREAM, digest.clone());
                let mut stream = blob.open().await?;
                while let Some(chunk) = stream.next().await {
                    match chunk {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::Mismatch => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                Ok(Some(found))
            }
            (found, size) => Ok(found.filter(|found| Some(*found) == size)),
        }
    }
}

#[async_trait]
impl ContentStore for Repository {
    fn location(&self) -> String {
        self.shared.location(&self.name)
    }

    fn repository(&self) -> String {
        self.name.clone()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        let digest = descriptor.digest.clone();
        let mut blob = self.shared.blob(&self.name, &descriptor.media_type, digest);
        blob.size = Some(descriptor.size);
        blob
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let found = self.shared.storage.size(&descriptor.digest).await?;
        Ok(found == Some(descriptor.size))
    }

    async fn holds(&self, manifest: &Descriptor) -> Result<bool> {
        let index = self.shared.storage.index().await?;
        let is_named = index.with_digest(&self.name, &manifest.digest).is_some();
        Ok(is_named && self.exists(manifest).await?)
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let found = self.shared.storage.size(digest).await?;
        found.ok_or_else(|| self.missing(&digest.to_string()))
    }

    async fn push(&self, blob: &Blob, _mount_from: &[String]) -> Result<Pushed> {
        self.shared.check_writable()?;
        if let Some(digest) = &blob.digest
            && let Some(size) = self.has(digest, blob.size).await?
        {
            Meter::with(Meter::skipped);
            self.shared.adopt(digest);
            return Ok(Pushed {
                descriptor: Descriptor::new(blob.media_type.clone(), digest.clone(), size),
                outcome: Outcome::Present,
            });
        }
        let changes = self.shared.changes().await?;
        let mut draft = changes.draft(blob.digest.is_none());
        let mut stream = blob.open().await?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let len = chunk.len() as u64;
            draft.write(chunk).await?;
            Meter::with(|meter| meter.sent(len));
        }
        let size = draft.len();
        // A known digest was verified by the stream.
        let digest = draft.finish(blob.digest.clone()).await?;
        Ok(Pushed {
            descriptor: Descriptor::new(blob.media_type.clone(), digest, size),
            outcome: Outcome::Sent,
        })
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        let (digest, media_type) = self.look_up(reference).await?;
        self.read(&digest, media_type.as_deref()).await
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        self.shared.check_writable()?;
        tag.map_or(Ok(()), check_tag)?;
        let len = manifest.bytes.len() as u64;
        if len > MANIFEST_LIMIT {
            return Err(Error::limit(format!(
                "manifest {} has {len} bytes, more than {MANIFEST_LIMIT}",
                manifest.digest
            )));
        }
        let found = Digest::of(manifest.digest.algorithm(), &manifest.bytes);
        if found != manifest.digest {
            return Err(Error::mismatch(format!(
                "manifest has digest {found}, expected {}",
                manifest.digest
            )));
        }
        let parsed = Arc::new(manifest.parse()?);
        if self.shared.storage.size(&found).await? == Some(len) {
            self.shared.adopt(&found);
        } else {
            let mut draft = self.shared.changes().await?.draft(false);
            draft.write(manifest.bytes.clone()).await?;
            draft.finish(Some(found)).await?;
            Meter::with(|meter| meter.sent(len));
        }
        self.commit(Change::Put {
            repository: self.name.clone(),
            tag: tag.map(str::to_owned),
            manifest: manifest.clone(),
            parsed,
        })
        .await
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        let (digest, media_type) = self.look_up(reference).await?;
        let Some(media_type) = media_type else {
            return Ok(self.read(&digest, None).await?.descriptor());
        };
        match self.shared.storage.size(&digest).await? {
            Some(size) => Ok(Descriptor::new(media_type, digest, size)),
            None => Err(self.missing(&digest.to_string()).context(format!(
                "`{reference}` is in the index, but its blob is not there"
            ))),
        }
    }

    async fn tags(&self) -> Result<Vec<String>> {
        let index = self.shared.storage.index().await?;
        let tags = index
            .in_repository(&self.name)
            .filter_map(|entry| entry.tag.as_deref());
        let tags: BTreeSet<&str> = tags.filter(|tag| !is_referrers_tag(tag)).collect();
        Ok(tags.into_iter().map(str::to_owned).collect())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let tag = referrers_tag(subject);
        let list = match self.manifest(&tag).await {
            Ok(list) => list,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(list.parse()?.manifests.unwrap_or_default())
    }

    async fn untag(&self, tag: &str) -> Result<()> {
        self.commit(Change::Untag {
            repository: self.name.clone(),
            tag: tag.to_owned(),
        })
        .await
    }

    /// A manifest goes from this repository with its tags; its blob, and any other, goes from the archive only if no
    /// manifest of any repository reaches it. [`ErrorKind::Conflict`] for a blob that is reached.
    async fn delete(&self, descriptor: &Descriptor) -> Result<()> {
        self.commit(Change::Delete {
            repository: self.name.clone(),
            digest: descriptor.digest.clone(),
        })
        .await
    }
}

/// A blob on its way in.
#[derive(Debug)]
struct Staged(Draft);

#[async_trait]
impl Staging for Staged {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.0.write(chunk).await
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    async fn commit(self: Box<Self>, repository: &str, digest: &Digest) -> Result<()> {
        check_repository(repository)?;
        self.0.finish(Some(digest.clone())).await?;
        Ok(())
    }
}

/// May these bytes of which the index says nothing be a manifest?
fn looks_like_manifest(bytes: &[u8]) -> bool {
    Manifest::parse(bytes).is_ok_and(|manifest| match &manifest.media_type {
        Some(media_type) => is_manifest(media_type),
        None => {
            manifest.manifests.is_some() || (manifest.config.is_some() && manifest.layers.is_some())
        }
    })
}

/// The name of a blob's file in an archive.
fn blob_name(digest: &Digest) -> String {
    format!("{}.{}", digest.algorithm(), digest.hex())
}

/// The digest of a blob by the name of its file; `None` for other files.
fn digest_of_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('.')?;
    let algorithm = match algorithm {
        "sha256" => Algorithm::Sha256,
        "sha512" => Algorithm::Sha512,
        _ => return None,
    };
    Digest::new(algorithm, hex).ok()
}

/// The tag that lists the referrers of `subject` (OCI distribution spec, referrers tag schema; no digest known here is
/// long enough to be cut).
fn referrers_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm(), subject.hex())
}

fn is_referrers_tag(tag: &str) -> bool {
    tag.split_once('-')
        .is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_referrers_are_known_by_their_tag() {
        let digest = Digest::sha256(b"");
        assert!(is_referrers_tag(&referrers_tag(&digest)));
        for tag in [
            "1.0.0",
            "sha256-abc",
            &format!("sha256-{}.sig", digest.hex()),
        ] {
            assert!(!is_referrers_tag(tag), "{tag}");
        }
    }
}
