//! The session of a run: its one way to storage.
//!
//! *Invariant*: everything that steps of one run share lives here and dies with it: connections and tokens, open archives
//! (one per place), limits, what is known about who has what. There is no process-wide state, and two sessions in one
//! process know nothing of each other.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ocm_content::limits::LimitsConfig;
use ocm_content::{
    Artifact, Blob, Content, ContentStore, Copier, CopyOptions, Error, ErrorKind, Limits,
    Locations, Result, Staging, Stored, Stores, with_manifest,
};
use ocm_specs::access::{Access, LocalBlob, OciBlob};
use ocm_specs::descriptor::{DigestSpec, Element};
use ocm_specs::media_type::OCTET_STREAM;
use ocm_specs::oci::Descriptor;
use ocm_specs::reference::{ComponentReference, OciReference, Scheme};
use ocm_specs::repository_spec::{CtfRepositorySpec, OciRepositorySpec};
use ocm_specs::{Digest, RepositorySpec};
use serde_json::Value;

use crate::credentials::{Anonymous, CredentialSource};
use crate::ctf::{self, ComponentArchive, Ctf, CtfOptions, Form};
use crate::oci::{Client, ClientConfig};
use crate::remote::Indexes;
use crate::repository::{ComponentVersion, Known, Repository};

/// What a session is told; it looks for nothing by itself.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where relative paths start.
    pub working_directory: PathBuf,
    /// How registries are spoken to.
    pub client: ClientConfig,
    /// Who knows credentials.
    pub credentials: Arc<dyn CredentialSource>,
    /// How much may happen at once, and how much may be kept.
    pub limits: LimitsConfig,
    /// How artifacts are copied.
    pub copy: CopyOptions,
    /// Does every component version that is written refer to the component index (formats.md 3.6), and are versions listed by
    /// it? Without it, those that did so where they were read still do.
    pub component_index: bool,
}

impl SessionConfig {
    /// Defaults without credentials.
    pub fn new(working_directory: impl Into<PathBuf>) -> Self {
        Self {
            working_directory: working_directory.into(),
            client: ClientConfig::default(),
            credentials: Arc::new(Anonymous),
            limits: LimitsConfig::default(),
            copy: CopyOptions::default(),
            component_index: false,
        }
    }
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All of it went well.
    Succeeded,
    /// Some of it failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// An archive file that [`Session::finish`] had to write.
#[derive(Clone, Debug)]
pub struct WrittenArchive {
    /// The absolute path.
    pub path: PathBuf,
    /// Why it is as it was before; `None` if it is written.
    pub error: Option<Error>,
}

/// One run's storage.
pub struct Session {
    working_directory: PathBuf,
    client: Client,
    known: Arc<Known>,
    archives: tokio::sync::Mutex<BTreeMap<PathBuf, Arc<Ctf>>>,
    /// Component archives, by the paths they were asked for.
    components: tokio::sync::Mutex<BTreeMap<PathBuf, Arc<ComponentArchive>>>,
    registered: Mutex<BTreeMap<String, Arc<dyn Stores>>>,
    helm_indexes: Indexes,
    provided: Mutex<BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Session {
    /// A session that has opened nothing yet.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when a certificate of the configuration can't be read.
    pub fn new(config: SessionConfig) -> Result<Arc<Self>> {
        let limits = Limits::new(config.limits);
        let client = Client::new(config.client, config.credentials, limits.clone())?;
        let copier = Copier::new(limits.clone(), Locations::new()).with_options(config.copy);
        Ok(Arc::new(Self {
            working_directory: config.working_directory,
            client,
            known: if config.component_index {
                Known::with_component_index(copier, limits)
            } else {
                Known::new(copier, limits)
            },
            archives: tokio::sync::Mutex::default(),
            components: tokio::sync::Mutex::default(),
            registered: Mutex::default(),
            helm_indexes: Indexes::default(),
            provided: Mutex::default(),
        }))
    }

    /// The limits of the run.
    pub fn limits(&self) -> &Arc<Limits> {
        self.known.limits()
    }

    /// The copier of the run.
    pub fn copier(&self) -> &Copier {
        self.known.copier()
    }

    /// Which repositories are known to have which blobs.
    pub fn locations(&self) -> &Arc<Locations> {
        self.copier().locations()
    }

    /// What the run's repositories have learned.
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// The length in bytes of content that was written or read about in this run.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.known.size(digest)
    }

    /// The registry client of the run.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The indexes of Helm repositories that the run has read.
    pub(crate) fn helm_indexes(&self) -> &Indexes {
        &self.helm_indexes
    }

    /// Lets `stores` stand for a place: a `host[:port]`, or the path of an archive as specs name it.
    pub fn register(&self, place: impl Into<String>, stores: Arc<dyn Stores>) {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place.into(), stores);
    }

    /// Gives the steps of the run something of theirs that is not known here; there is one of each type.
    pub fn provide<T: Any + Send + Sync>(&self, value: T) {
        self.provided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// What was provided of that type.
    pub fn provided<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.provided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&TypeId::of::<T>())
            .cloned()?
            .downcast()
            .ok()
    }

    /// What was provided of that type; without it, one is made and provided.
    pub fn shared<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut provided = self.provided.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = provided
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(T::default()));
        entry.clone().downcast().unwrap_or_default()
    }

    /// A path as a person wrote it, from the working directory on; `file://` in front is taken off.
    pub fn resolve_path(&self, path: &str) -> PathBuf {
        self.working_directory.join(local_path(path))
    }

    /// Opens a repository. All steps that name one place get the same storage, however they spell it. With `write`, an
    /// archive that is not there is begun; nothing is written to disk before the first content.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for a spec that names no place, [`ocm_content::ErrorKind::NotFound`] for an archive that is not there,
    /// [`ocm_content::ErrorKind::Unsupported`] for writing where that can't be.
    pub async fn repository(&self, spec: &RepositorySpec, write: bool) -> Result<Repository> {
        match spec {
            RepositorySpec::Oci(oci) => self.oci_repository(spec, oci),
            RepositorySpec::Ctf(ctf) => self.ctf_repository(spec, ctf, write).await,
        }
    }

    fn oci_repository(&self, spec: &RepositorySpec, oci: &OciRepositorySpec) -> Result<Repository> {
        let endpoint = oci
            .endpoint()
            .map_err(|error| Error::invalid(error.to_string()))?;
        let stores = self.registered(&endpoint.host).unwrap_or_else(|| {
            let host = match endpoint.scheme {
                Some(scheme) => format!("{scheme}://{}", endpoint.host),
                None => endpoint.host.clone(),
            };
            Arc::new(Registry {
                client: self.client.clone(),
                host,
            })
        });
        Ok(Repository::new(
            spec.clone(),
            endpoint.location(),
            stores,
            &endpoint.prefix,
            self.known.clone(),
        ))
    }

    async fn ctf_repository(
        &self,
        spec: &RepositorySpec,
        ctf: &CtfRepositorySpec,
        write: bool,
    ) -> Result<Repository> {
        if write && ctf.is_read_only() {
            return Err(Error::unsupported(format!(
                "{} is to be written, and its accessMode says `readonly`",
                ctf.path()
            )));
        }
        let repository = |location: String, stores: Arc<dyn Stores>| {
            Repository::new(spec.clone(), location, stores, "", self.known.clone())
        };
        if let Some(stores) = self.registered(ctf.path()) {
            return Ok(repository(format!("ctf://{}", ctf.path()), stores));
        }
        let path = self.resolve_path(&ctf.file_path);
        if let Some(archive) = self.component_archive(&path, ctf, write).await? {
            let location = format!("comparch://{}", archive.path().display());
            return Ok(repository(location, archive));
        }
        let archive = self.archive(&path, form_of(ctf)?, write).await?;
        let location = format!("ctf://{}", archive.path().display());
        Ok(repository(location, archive))
    }

    /// The component archive at a path, if there is one.
    async fn component_archive(
        &self,
        path: &Path,
        spec: &CtfRepositorySpec,
        write: bool,
    ) -> Result<Option<Arc<ComponentArchive>>> {
        if self.archives.lock().await.contains_key(path) {
            return Ok(None);
        }
        let mut components = self.components.lock().await;
        let found = match components.get(path) {
            Some(open) => Some(open.clone()),
            None => ComponentArchive::open(path, self.limits()).await?,
        };
        if let Some(found) = &found {
            components.insert(path.to_owned(), found.clone());
        }
        if write && (found.is_some() || spec.is_component_archive()) {
            let shown = path.display();
            return Err(Error::unsupported(format!(
                "{shown} is to be written, and component archives are read only"
            ))
            .with_hint(
                "name another path: an archive in the Common Transport Format is made there",
            ));
        }
        if found.is_none() && spec.is_component_archive() {
            let shown = path.display();
            return Err(match tokio::fs::metadata(path).await {
                Ok(_) => Error::invalid(format!(
                    "{shown} is no component archive: it has no component-descriptor.yaml"
                )),
                Err(error) => Error::io(format!("open {shown}"), &error),
            });
        }
        Ok(found)
    }

    /// The archive at a path, opened once however it is spelled.
    async fn archive(&self, path: &Path, form: Option<Form>, write: bool) -> Result<Arc<Ctf>> {
        // Held while opening, which looks at one path: the next one to ask finds it open.
        let mut archives = self.archives.lock().await;
        if let Some(open) = archives.get(path).filter(|open| is_enough(open, write)) {
            return Ok(open.clone());
        }
        let access = if write {
            ctf::Access::Create
        } else if tokio::fs::metadata(path).await.is_ok() {
            // A later step of the run may write here; opening alone writes nothing.
            ctf::Access::ReadWrite
        } else {
            ctf::Access::ReadOnly
        };
        let options = CtfOptions {
            access,
            limits: self.limits().clone(),
        };
        let opened = Ctf::open_as(path, form, options).await?;
        let canonical = opened.path().to_owned();
        let archive = match archives
            .get(&canonical)
            .filter(|open| is_enough(open, write))
        {
            Some(open) => open.clone(),
            None => opened,
        };
        archives.insert(canonical, archive.clone());
        archives.insert(path.to_owned(), archive.clone());
        Ok(archive)
    }

    /// Ends a run: writes the archive files (tar, tgz) that it changed, each as a whole, and tells of each how that went.
    /// Registries and directories are up to date already.
    ///
    /// After a run that succeeded everything is written; after one that failed, what it published before it did; after one
    /// that was cancelled, nothing. What is not written stays staged beside the archive for the next run.
    pub async fn finish(&self, end: RunEnd) -> Vec<WrittenArchive> {
        let open: BTreeMap<PathBuf, Arc<Ctf>> = {
            let archives = self.archives.lock().await;
            let archives = archives.values();
            archives
                .map(|archive| (archive.path().to_owned(), archive.clone()))
                .collect()
        };
        let mut written = Vec::new();
        for (path, archive) in open {
            let is_due = match end {
                RunEnd::Succeeded => true,
                RunEnd::Failed => archive.pending() == ctf::Pending::Named,
                RunEnd::Cancelled => false,
            };
            if !is_due {
                continue;
            }
            match archive.flush().await {
                Ok(false) => {}
                Ok(true) => written.push(WrittenArchive { path, error: None }),
                Err(error) => written.push(WrittenArchive {
                    path,
                    error: Some(error),
                }),
            }
        }
        written
    }

    /// The store of the repository that a reference names.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when the reference has no host or a malformed name.
    pub fn oci_store(&self, reference: &OciReference) -> Result<Arc<dyn ContentStore>> {
        if reference.registry.is_empty() || reference.repository.is_empty() {
            return Err(Error::invalid(format!(
                "`{reference}` names no registry: expected host/repository[:tag][@digest]"
            )));
        }
        if let Some(stores) = self.registered(&reference.registry) {
            return stores.store(&reference.repository);
        }
        let host = match reference.scheme {
            Some(Scheme::Http) => format!("http://{}", reference.registry),
            Some(Scheme::Https) => format!("https://{}", reference.registry),
            Some(Scheme::Oci) | None => reference.registry.clone(),
        };
        self.client.store(&host, &reference.repository)
    }

    /// Looks an image reference up. The digest decides where there is one; a tag beside it is kept.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for a reference without tag and digest, [`ocm_content::ErrorKind::NotFound`] when there is no such artifact.
    pub async fn artifact(&self, image_reference: &str) -> Result<Artifact> {
        let reference: OciReference = image_reference.parse().map_err(invalid)?;
        let store = self.oci_store(&reference)?;
        self.stored(store, &reference)
            .await
            .map_err(|error| error.context(format!("image {image_reference}")))
    }

    /// The same, with the root manifest read along: for who will need it in any case.
    ///
    /// # Errors
    /// Those of [`Self::artifact`].
    pub async fn artifact_with_manifest(&self, image_reference: &str) -> Result<Artifact> {
        let reference: OciReference = image_reference.parse().map_err(invalid)?;
        let store = self.oci_store(&reference)?;
        let read = async {
            let manifest = store.manifest(&name_of(&reference)?).await?;
            let root = manifest.descriptor();
            self.known.note_size(&root.digest, root.size);
            Ok(Artifact::Stored(Stored {
                root,
                store: with_manifest(store.clone(), manifest),
                tag: reference.tag.clone(),
            }))
        };
        read.await
            .map_err(|error: Error| error.context(format!("image {image_reference}")))
    }

    /// Reads the component version that a reference names; without a version the latest one.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::NotFound`] when there is none, besides those of [`Repository::get`].
    pub async fn component(&self, reference: &ComponentReference) -> Result<ComponentVersion> {
        let repository = self.repository(&reference.repository, false).await?;
        let component = &reference.component;
        match (&reference.version, &reference.digest) {
            (version, Some(digest)) => {
                repository
                    .get_pinned(component, version.as_deref(), digest)
                    .await
            }
            (Some(version), None) => repository.get(component, version).await,
            (None, None) => {
                let versions = repository.versions(component).await?;
                let latest = versions.first().ok_or_else(|| {
                    Error::not_found(format!(
                        "component {component} has no version in {}",
                        repository.location()
                    ))
                })?;
                repository.get(component, latest).await
            }
        }
    }

    /// The content of a resource or source of `version`, wherever its access says it is. Lazy: at most a look-up. Of a
    /// chart in a Helm repository it is the archive.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Unsupported`] for access types that are not read here, besides what looking gives.
    pub async fn content(
        &self,
        version: &ComponentVersion,
        element: &Element<'_>,
    ) -> Result<Content> {
        let found = match element.access().map_err(invalid)? {
            Access::LocalBlob(local) => match (version.local_blob(element), local.global_access) {
                (Err(error), Some(global)) if error.kind() == ErrorKind::NotFound => {
                    self.global_content(&local, global).await
                }
                (found, _) => return found,
            },
            Access::RelativeOciReference { reference } => {
                // The parts are those of a reference whose host is the component's repository.
                let reference: OciReference =
                    format!("here/{reference}").parse().map_err(invalid)?;
                let store = version.repository.content_store(&reference.repository)?;
                self.stored(store, &reference).await.map(Content::from)
            }
            _ => {
                let access = element.access_value().unwrap_or(&Value::Null);
                self.access_content(access, element.digest().as_ref()).await
            }
        };
        found.map_err(|error| error.context(format!("{} `{}`", element.kind(), element.identity())))
    }

    /// The content of an access that says itself where it is, without a component version beside it. Lazy: at most a look-up.
    /// `stated` is the digest that a descriptor states for it, as far as that is one of bytes.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Unsupported`] for access types that are not read here or are about a component version's own
    /// repository, besides what looking gives.
    pub async fn access_content(
        &self,
        access: &Value,
        stated: Option<&DigestSpec>,
    ) -> Result<Content> {
        match Access::parse(access).map_err(invalid)? {
            Access::OciArtifact { image_reference } => {
                self.artifact(image_reference).await.map(Content::from)
            }
            Access::OciBlob(blob) => self.oci_blob(blob).await,
            Access::None => Err(Error::unsupported("it has no content")),
            Access::LocalBlob(_) | Access::RelativeOciReference { .. } => Err(Error::unsupported(
                "the content is in the component version's own repository",
            )),
            Access::Other { .. } => self.remote_content(access, stated).await,
        }
    }

    /// Content that is not beside its descriptor, by the other way to it that its access names. It has to be the same.
    async fn global_content(&self, local: &LocalBlob<'_>, global: &Value) -> Result<Content> {
        let wanted: Digest = local.local_reference.parse().map_err(invalid)?;
        let found = self.access_content(global, None).await;
        let found = found.map_err(|error| error.context("its globalAccess"))?;
        let digest = match &found {
            Content::Blob(blob) => blob.digest.clone(),
            Content::Artifact(artifact) => artifact.root().map(|root| root.digest.clone()),
        };
        match (digest, found) {
            (Some(digest), found) if digest == wanted => Ok(found),
            (None, Content::Blob(mut blob)) => {
                blob.digest = Some(wanted);
                Ok(blob.into())
            }
            (digest, _) => Err(Error::mismatch(format!(
                "its globalAccess leads to {}, expected {wanted}",
                digest.map_or_else(|| "unknown content".to_owned(), |digest| digest.to_string())
            ))),
        }
    }

    async fn oci_blob(&self, access: OciBlob<'_>) -> Result<Content> {
        let reference: OciReference = access.reference.parse().map_err(invalid)?;
        let digest: Digest = access.digest.parse().map_err(invalid)?;
        let store = self.oci_store(&reference)?;
        let size = match access.size.or_else(|| self.size(&digest)) {
            Some(size) => size,
            None => store.blob_size(&digest).await?,
        };
        let media_type = access.media_type.unwrap_or(OCTET_STREAM);
        Ok(store
            .fetch(&Descriptor::new(media_type, digest, size))
            .into())
    }

    /// A handle to a file: a path as a person wrote it, or a `file://` URI.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::NotFound`] and what else the system says; [`ocm_content::ErrorKind::Invalid`] when that is no regular file.
    pub async fn file(&self, path: &str, media_type: Option<&str>) -> Result<Blob> {
        Blob::from_file(media_type.unwrap_or(OCTET_STREAM), self.resolve_path(path)).await
    }

    async fn stored(
        &self,
        store: Arc<dyn ContentStore>,
        reference: &OciReference,
    ) -> Result<Artifact> {
        let root = store.resolve(&name_of(reference)?).await?;
        self.known.note_size(&root.digest, root.size);
        Ok(Artifact::Stored(Stored {
            root,
            store,
            tag: reference.tag.clone(),
        }))
    }

    fn registered(&self, place: &str) -> Option<Arc<dyn Stores>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(place)
            .cloned()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("working_directory", &self.working_directory)
            .finish_non_exhaustive()
    }
}

/// The tag or digest of a reference; the digest decides.
fn name_of(reference: &OciReference) -> Result<String> {
    reference
        .reference()
        .ok_or_else(|| Error::invalid("the reference has neither tag nor digest"))
}

/// The form that a spec asks for, should the archive have to be made.
fn form_of(spec: &CtfRepositorySpec) -> Result<Option<Form>> {
    Ok(match spec.file_format.as_deref() {
        None | Some("") => None,
        Some("directory") => Some(Form::Directory),
        Some("tar") => Some(Form::Tar),
        Some("tgz") => Some(Form::Tgz),
        Some(other) => {
            return Err(Error::invalid(format!(
                "unknown fileFormat `{other}` of an archive: expected directory, tar or tgz"
            )));
        }
    })
}

/// May the archive as it was opened be used so?
fn is_enough(archive: &Ctf, write: bool) -> bool {
    !write || archive.writable()
}

fn invalid(error: impl fmt::Display) -> Error {
    Error::invalid(error.to_string())
}

/// The path in a `file://` URI; any other text is a path already. `file://./x` is taken as a relative path, as the Go
/// library takes it.
fn local_path(text: &str) -> PathBuf {
    let Some(path) = text.strip_prefix("file://") else {
        return PathBuf::from(text);
    };
    url::Url::parse(text)
        .ok()
        .filter(|_| path.starts_with('/'))
        .and_then(|uri| uri.to_file_path().ok())
        .unwrap_or_else(|| PathBuf::from(path))
}

/// All repositories of a registry host.
#[derive(Debug)]
struct Registry {
    client: Client,
    /// With the scheme where the spec has one.
    host: String,
}

#[async_trait]
impl Stores for Registry {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        self.client.store(&self.host, repository)
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        self.client.catalog(&self.host).await
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        Err(Error::unsupported(
            "a registry takes blobs by push, not in pieces from outside",
        ))
    }
}
