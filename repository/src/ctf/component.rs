//! Component archives: one component version in a folder, tar or tgz, as the Go library v1 built them before a transport
//! (formats.md 2.3).
//!
//! Invariant: read only, and what is read here is verified like everything else. Nothing outside of the archive is read.
//!
//! A component archive is shown as the OCI content that a CTF of the same component version would hold: a manifest over the
//! descriptor, byte for byte as in the file, and one layer per blob that the descriptor names. So whatever reads a
//! repository reads a component archive. Local references are file names here; where such a name is no digest, the layer
//! carries it as its title, and its digest is computed when the archive is first looked at. A folder among the blobs stands
//! for the tar of its files, as in v1.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{TryStreamExt, stream};
use ocm_content::name::check_repository;
use ocm_content::tarball::{TarEntry, end_of_tar, padding};
use ocm_content::{
    Blob, ByteStream, ContentStore, Error, Limits, Locator, Meter, Pushed, RawManifest, Result,
    Segments, Source, Staging, Stores,
};
use ocm_specs::access::Access;
use ocm_specs::descriptor::{ComponentDescriptor, DESCRIPTOR_FILE, DESCRIPTOR_LIMIT};
use ocm_specs::media_type::{COMPONENT_CONFIG, DESCRIPTOR_YAML, OCTET_STREAM};
use ocm_specs::oci::{Annotations, Descriptor, Manifest};
use ocm_specs::reference::COMPONENT_DESCRIPTORS;
use ocm_specs::{Algorithm, Digest, Hasher};
use tokio::sync::OnceCell;

use super::archive::{Archive, Table, holds_component};
use super::directory::BLOBS;
use super::file::{CHUNK, Section, blocking, not_followed, open_regular, os, stream as read};
use super::index::INDEX_FILE;
use super::{Form, blob_name, canonical, sniff};
use crate::repository::{COMPONENT_VERSION, FILE_NAME, config_bytes, digests_of, tag_of};

/// Most files in a folder that stands for a blob, and how deep they may lie.
const FOLDER_LIMITS: (usize, usize) = (10_000, 32);

/// A component archive. Cheap to open: nothing is read before something is asked for.
#[derive(Debug)]
pub struct ComponentArchive {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    form: Form,
    /// Of a file.
    archive: Option<Arc<Archive>>,
    view: OnceCell<Result<View>>,
}

/// The archive as OCI content.
#[derive(Debug)]
struct View {
    repository: String,
    tag: String,
    root: RawManifest,
    /// Config and descriptor.
    documents: BTreeMap<Digest, Bytes>,
    blobs: BTreeMap<Digest, Blob>,
}

impl ComponentArchive {
    /// The component archive at `path`; `None` if something else is there, or nothing. What is there is told by its content:
    /// a descriptor and no index of a CTF.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn open(path: &Path, limits: &Arc<Limits>) -> Result<Option<Arc<Self>>> {
        let (given, limits) = (path.to_owned(), limits.clone());
        let found = blocking(move || find(&given, limits)).await?;
        Ok(found.map(|shared| {
            Arc::new(Self {
                shared: Arc::new(shared),
            })
        }))
    }

    /// The absolute path, links resolved.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// How it is stored.
    pub fn form(&self) -> Form {
        self.shared.form
    }
}

fn find(path: &Path, limits: Arc<Limits>) -> Result<Option<Shared>> {
    let Ok(metadata) = path.metadata() else {
        // Whoever opens it as something else says what is wrong.
        return Ok(None);
    };
    let path = canonical(path)?;
    let is_there = |name: &str| path.join(name).symlink_metadata().is_ok();
    let (form, archive) = if metadata.is_dir() {
        if !is_there(DESCRIPTOR_FILE) || is_there(INDEX_FILE) {
            return Ok(None);
        }
        (Form::Directory, None)
    } else {
        let Ok(form) = sniff(&path) else {
            return Ok(None);
        };
        let gzip = form == Form::Tgz;
        if !metadata.is_file() || !holds_component(&path, gzip, limits.clone()) {
            return Ok(None);
        }
        let archive = Archive::component(path.clone(), gzip, limits);
        (form, Some(archive))
    };
    Ok(Some(Shared {
        path,
        form,
        archive,
        view: OnceCell::new(),
    }))
}

impl Shared {
    fn location(&self, repository: &str) -> String {
        format!("comparch://{}//{repository}", self.path.display())
    }

    fn read_only(&self) -> Error {
        Error::unsupported(format!(
            "{} is a component archive, which can be read only",
            self.path.display()
        ))
        .with_hint("write to an archive in the Common Transport Format, or to a registry")
    }

    /// What is in it, read once.
    async fn view(self: &Arc<Self>) -> Result<&View> {
        let view = self.view.get_or_init(|| async {
            let view = self.build().await;
            view.map_err(|error| error.context(self.path.display().to_string()))
        });
        view.await.as_ref().map_err(Clone::clone)
    }

    async fn build(self: &Arc<Self>) -> Result<View> {
        let files = match &self.archive {
            Some(archive) => Files::Packed(archive.table().await?.clone()),
            None => Files::Folder(self.path.clone()),
        };
        let found = files.clone();
        let stored = blocking(move || found.descriptor()).await?;
        let descriptor = ComponentDescriptor::decode(DESCRIPTOR_YAML, stored.to_vec())
            .map_err(|error| Error::invalid(format!("{DESCRIPTOR_FILE}: {error}")))?;
        let repository = format!("{COMPONENT_DESCRIPTORS}/{}", descriptor.name());
        check_repository(&repository)?;
        let layer = Descriptor::of(DESCRIPTOR_YAML, &stored);
        let config = Bytes::from(config_bytes(&layer));
        let config_link = Descriptor::of(COMPONENT_CONFIG, &config);
        let documents = BTreeMap::from([
            (layer.digest.clone(), stored),
            (config_link.digest.clone(), config),
        ]);
        let mut layers = vec![layer];
        let mut blobs = BTreeMap::new();
        for (reference, media_type) in local_references(&descriptor) {
            for (link, blob) in files.local(&reference, &media_type).await? {
                let is_listed = |other: &Descriptor| {
                    other.digest == link.digest && other.annotations == link.annotations
                };
                if !layers.iter().any(is_listed) {
                    blobs.insert(link.digest.clone(), blob);
                    layers.push(link);
                }
            }
        }
        let mut manifest = Manifest::image(config_link, layers);
        let named = format!("{}:{}", descriptor.name(), descriptor.version());
        manifest.annotations = Some(Annotations::from([(COMPONENT_VERSION.to_owned(), named)]));
        Ok(View {
            repository,
            tag: tag_of(descriptor.version()),
            root: RawManifest::write(&manifest),
            documents,
            blobs,
        })
    }
}

/// What the descriptor names beside itself, in its order, with the media types.
fn local_references(descriptor: &ComponentDescriptor) -> Vec<(String, String)> {
    let elements = descriptor.resources().chain(descriptor.sources());
    let accesses = elements.filter_map(|element| Access::parse(element.access_value()?).ok());
    let local = accesses.filter_map(|access| access.local_blob());
    local
        .map(|local| {
            let media_type = local.media_type.unwrap_or(OCTET_STREAM);
            (local.local_reference.to_owned(), media_type.to_owned())
        })
        .collect()
}

/// The files of an archive.
#[derive(Clone, Debug)]
enum Files {
    Folder(PathBuf),
    Packed(Arc<Table>),
}

impl Files {
    /// Blocks.
    fn descriptor(&self) -> Result<Bytes> {
        let root = match self {
            Self::Packed(table) => return Ok(table.descriptor.clone()),
            Self::Folder(root) => root,
        };
        let section = section(&root.join(DESCRIPTOR_FILE))?;
        if section.len > DESCRIPTOR_LIMIT {
            return Err(Error::limit(format!(
                "{DESCRIPTOR_FILE} is larger than {DESCRIPTOR_LIMIT} bytes"
            )));
        }
        let mut bytes = Vec::new();
        loop {
            let piece = section.read_at(bytes.len() as u64, CHUNK)?;
            if piece.is_empty() {
                return Ok(bytes.into());
            }
            bytes.extend_from_slice(&piece);
        }
    }

    /// The blobs of a local reference, as far as they are there: one, or the parts that v1 made of one.
    async fn local(&self, reference: &str, media_type: &str) -> Result<Vec<(Descriptor, Blob)>> {
        let Some(digests) = digests_of(reference) else {
            let found = self.named(reference, media_type).await?;
            return Ok(found.into_iter().collect());
        };
        let mut found = Vec::new();
        for digest in digests {
            let (files, name) = (self.clone(), blob_name(&digest));
            let wanted = digest.clone();
            let file = blocking(move || files.file(&name, Some(&wanted))).await?;
            if let Some((size, source)) = file {
                let link = Descriptor::new(media_type, digest, size);
                found.push((link.clone(), Blob::described(&link, Arc::new(source))));
            }
        }
        Ok(found)
    }

    /// A blob whose name says nothing of its bytes: they are read to know their digest.
    async fn named(&self, name: &str, media_type: &str) -> Result<Option<(Descriptor, Blob)>> {
        check_name(name)?;
        let (files, wanted) = (self.clone(), name.to_owned());
        let found = blocking(move || match files.file(&wanted, None)? {
            Some((size, source)) => {
                let mut blob = Blob::new(OCTET_STREAM, Arc::new(source));
                blob.size = Some(size);
                Ok(Some(blob))
            }
            None => files.folder(&wanted),
        });
        let Some(mut blob) = found.await? else {
            return Ok(None);
        };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut bytes = blob.open().await?;
        while let Some(chunk) = bytes.try_next().await? {
            hasher.update(&chunk);
        }
        blob.digest = Some(hasher.finish());
        media_type.clone_into(&mut blob.media_type);
        Ok(blob.descriptor().map(|mut link| {
            let title = (FILE_NAME.to_owned(), name.to_owned());
            link.annotations = Some(Annotations::from([title]));
            (link, blob)
        }))
    }

    /// The file of that name among the blobs, and its length. `None` where there is none. Blocks.
    fn file(&self, name: &str, digest: Option<&Digest>) -> Result<Option<(u64, FileSource)>> {
        match self {
            Self::Folder(root) => {
                check_folder(root)?;
                let path = root.join(BLOBS).join(name);
                match path.symlink_metadata() {
                    Ok(metadata) if metadata.is_file() => {
                        Ok(Some((metadata.len(), FileSource::Path(path))))
                    }
                    Ok(metadata) if metadata.is_symlink() => {
                        Err(not_followed(&path)
                            .unwrap_or_else(|| Error::internal("a link went away")))
                    }
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(os("look at", &path, &error)),
                }
            }
            Self::Packed(table) => {
                let section = match digest {
                    Some(digest) if table.size(digest).is_none() => None,
                    Some(digest) => Some(table.section(digest)?),
                    None => table
                        .named(name)
                        .find(|(path, _)| *path == name)
                        .map(|(_, section)| section),
                };
                let table = table.clone();
                Ok(section.map(|section| (section.len, FileSource::Section(section, table))))
            }
        }
    }

    /// The tar of a folder among the blobs. `None` where there is none. Blocks.
    fn folder(&self, name: &str) -> Result<Option<Blob>> {
        let mut files = Vec::new();
        match self {
            Self::Folder(root) => {
                let folder = root.join(BLOBS).join(name);
                if !folder.is_dir() {
                    return Ok(None);
                }
                walk(&folder, "", 0, &mut files)?;
            }
            Self::Packed(table) => {
                let inside = format!("{name}/");
                for (path, section) in table.named(name) {
                    if let Some(path) = path.strip_prefix(&inside) {
                        let source = FileSource::Section(section.clone(), table.clone());
                        files.push((path.to_owned(), section.len, source));
                    }
                }
            }
        }
        if files.is_empty() {
            return Ok(None);
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tar = Segments::new();
        for (path, size, source) in files {
            let mut blob = Blob::new("", Arc::new(source));
            blob.size = Some(size);
            let header = TarEntry::file(path, size).header()?;
            tar.push(Blob::from_bytes("", header))?;
            tar.push(blob)?;
            tar.push(Blob::from_bytes("", padding(size)))?;
        }
        tar.push(Blob::from_bytes("", end_of_tar()))?;
        Ok(Some(tar.into_blob(OCTET_STREAM)))
    }
}

/// All files below a folder. Blocks.
fn walk(
    folder: &Path,
    below: &str,
    depth: usize,
    files: &mut Vec<(String, u64, FileSource)>,
) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|error| os("read", folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| os("read", folder, &error))?;
        let path = entry.path();
        let metadata = path
            .symlink_metadata()
            .map_err(|error| os("look at", &path, &error))?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| Error::invalid(format!("{} is not UTF-8", path.display())))?;
        if files.len() >= FOLDER_LIMITS.0 || depth >= FOLDER_LIMITS.1 {
            return Err(Error::limit(format!(
                "{} has more than {} files, or files deeper than {} folders",
                folder.display(),
                FOLDER_LIMITS.0,
                FOLDER_LIMITS.1
            )));
        }
        let name = format!("{below}{name}");
        if metadata.is_dir() {
            walk(&path, &format!("{name}/"), depth + 1, files)?;
        } else if metadata.is_file() {
            files.push((name, metadata.len(), FileSource::Path(path)));
        } else {
            return Err(not_followed(&path).unwrap_or_else(|| {
                Error::invalid(format!("{} is not a regular file", path.display()))
            }));
        }
    }
    Ok(())
}

/// The folder of blobs must not lead out of the archive.
fn check_folder(root: &Path) -> Result<()> {
    match not_followed(&root.join(BLOBS)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = !name.contains(['\\', '\0'])
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if plain {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the local reference {name:?} leads out of the archive"
    )))
}

/// Bytes of one file.
#[derive(Clone, Debug)]
enum FileSource {
    Path(PathBuf),
    /// With the table, which holds the temporary bytes.
    Section(Section, #[expect(dead_code, reason = "held")] Arc<Table>),
}

impl Source for FileSource {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let source = self.clone();
        Box::pin(async move {
            let open = move || match source {
                Self::Path(path) => section(&path),
                Self::Section(section, _) => Ok(section),
            };
            read(open, offset).await
        })
    }
}

fn section(path: &Path) -> Result<Section> {
    let file = open_regular(path)?;
    let metadata = file.metadata().map_err(|error| os("open", path, &error))?;
    Ok(Section {
        file: Arc::new(file),
        path: path.into(),
        start: 0,
        len: metadata.len(),
    })
}

/// A blob of the archive, found when it is read.
#[derive(Clone, Debug)]
struct Stored {
    shared: Arc<Shared>,
    repository: String,
    digest: Digest,
}

impl Source for Stored {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let stored = self.clone();
        Box::pin(async move {
            Meter::with(|meter| meter.opened(&stored.digest));
            let store = Repository {
                shared: stored.shared.clone(),
                name: stored.repository.clone(),
            };
            let view = store.view().await?;
            if let Some(bytes) = view.and_then(|view| view.bytes(&stored.digest)) {
                let from = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let rest = bytes.slice(from..);
                return Ok(Box::pin(stream::iter([Ok(rest)])) as ByteStream);
            }
            let blob = view.and_then(|view| view.blobs.get(&stored.digest));
            let blob = blob.ok_or_else(|| store.missing(&stored.digest.to_string()))?;
            blob.source().open(offset).await
        })
    }

    fn locator(&self) -> Option<Locator> {
        Some(Locator {
            store: self.shared.location(&self.repository),
            digest: self.digest.clone(),
        })
    }
}

impl View {
    /// What is not a file of its own.
    fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        if *digest == self.root.digest {
            return Some(self.root.bytes.clone());
        }
        self.documents.get(digest).cloned()
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        match self.bytes(digest) {
            Some(bytes) => Some(bytes.len() as u64),
            None => self.blobs.get(digest)?.size,
        }
    }
}

#[async_trait]
impl Stores for ComponentArchive {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        check_repository(repository)?;
        Ok(Arc::new(Repository {
            shared: self.shared.clone(),
            name: repository.to_owned(),
        }))
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        Ok(vec![self.shared.view().await?.repository.clone()])
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        Err(self.shared.read_only())
    }

    fn writable(&self) -> bool {
        false
    }
}

/// The archive as a repository: all but the one of its component are empty.
#[derive(Debug)]
struct Repository {
    shared: Arc<Shared>,
    name: String,
}

impl Repository {
    async fn view(&self) -> Result<Option<&View>> {
        let view = self.shared.view().await?;
        Ok((view.repository == self.name).then_some(view))
    }

    fn missing(&self, what: &str) -> Error {
        let at = self.location();
        Error::not_found(format!("no `{what}` in {at}"))
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
        let source = Stored {
            shared: self.shared.clone(),
            repository: self.name.clone(),
            digest: descriptor.digest.clone(),
        };
        Blob::described(descriptor, Arc::new(source))
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let view = self.view().await?;
        let found = view.and_then(|view| view.size(&descriptor.digest));
        Ok(found == Some(descriptor.size))
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let view = self.view().await?;
        let found = view.and_then(|view| view.size(digest));
        found.ok_or_else(|| self.missing(&digest.to_string()))
    }

    async fn push(&self, _blob: &Blob, _mount_from: &[String]) -> Result<Pushed> {
        Err(self.shared.read_only())
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        let view = self.view().await?;
        let root =
            view.filter(|view| view.tag == reference || view.root.digest.to_string() == reference);
        let root = root.map(|view| view.root.clone());
        root.ok_or_else(|| self.missing(reference))
    }

    async fn put_manifest(&self, _manifest: &RawManifest, _tag: Option<&str>) -> Result<()> {
        Err(self.shared.read_only())
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        Ok(self.manifest(reference).await?.descriptor())
    }

    async fn tags(&self) -> Result<Vec<String>> {
        let view = self.view().await?;
        Ok(view.map(|view| view.tag.clone()).into_iter().collect())
    }

    async fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
