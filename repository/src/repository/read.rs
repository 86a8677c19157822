//! Reading component versions.

use std::collections::BTreeSet;
use std::sync::Arc;

use ocm_content::{
    Artifact, Blob, Content, ContentStore, Error, ErrorKind, RawManifest, Result, Segments, Stored,
};
use ocm_specs::Digest;
use ocm_specs::descriptor::{ComponentDescriptor, DESCRIPTOR_LIMIT, Element, Encoding};
use ocm_specs::media_type::{DESCRIPTOR_ARTIFACT_TYPE, OCTET_STREAM, is_index};
use ocm_specs::names::is_version;
use ocm_specs::oci::{Descriptor, Manifest};

use super::known::KnownRoot;
use super::layout::{
    ComponentConfig, DESCRIPTOR_MARK, FILE_NAME, annotated_version, component_index, digests_of,
    is_component_config,
};
use super::{Repository, tag_of};

/// Largest config blob that is read, in bytes. It holds one link.
const CONFIG_LIMIT: u64 = 64 << 10;

/// A component version that was read: its descriptor, and where its content is.
#[derive(Clone, Debug)]
pub struct ComponentVersion {
    /// The descriptor.
    pub descriptor: ComponentDescriptor,
    /// What the version's tag names: the component's manifest, or the index around it.
    pub root: RawManifest,
    /// The repository it was read from.
    pub repository: Repository,
    store: Arc<dyn ContentStore>,
    parts: Arc<Parts>,
}

/// What hangs below a root manifest.
#[derive(Debug)]
pub(super) struct Parts {
    descriptor: ComponentDescriptor,
    layers: Vec<Descriptor>,
    /// Artifacts beside the component's manifest, in the index form.
    artifacts: Vec<Descriptor>,
}

impl Repository {
    /// Reads a component version.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Mismatch`] when something else lies in its place,
    /// [`ErrorKind::Invalid`] when it is malformed, besides what the store gives.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location(), component, version))]
    pub async fn get(&self, component: &str, version: &str) -> Result<ComponentVersion> {
        let found = async {
            let store = self.store(component)?;
            let root = self.root(&store, version).await?;
            self.open(store, component, version, root).await
        };
        found
            .await
            .map_err(|error| self.blame(component, version, error))
    }

    /// Reads a component version whose root manifest must have that digest. Without a version, whatever the digest names.
    ///
    /// # Errors
    /// Those of [`Self::get`]; [`ErrorKind::Mismatch`] when the tag names another manifest.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location(), component, %digest))]
    pub async fn get_pinned(
        &self,
        component: &str,
        version: Option<&str>,
        digest: &Digest,
    ) -> Result<ComponentVersion> {
        let found = async {
            let store = self.store(component)?;
            // By digest, so that a tag that moves between two requests makes no difference.
            let root = store.manifest(&digest.to_string()).await?;
            if let Some(version) = version {
                let tagged = store.resolve(&tag_of(version)).await?;
                if tagged.digest != *digest {
                    return Err(Error::mismatch(format!(
                        "the version is {}, expected {digest}",
                        tagged.digest
                    )));
                }
            }
            let version = version.unwrap_or_default();
            self.open(store, component, version, root).await
        };
        let named = digest.short();
        found
            .await
            .map_err(|error| self.blame(component, version.unwrap_or(&named), error))
    }

    /// Like [`Self::get`], but `None` when there is no such version.
    ///
    /// # Errors
    /// Those of [`Self::get`] but [`ErrorKind::NotFound`] of the version itself.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location(), component, version))]
    pub async fn find(&self, component: &str, version: &str) -> Result<Option<ComponentVersion>> {
        let found = async {
            let store = self.store(component)?;
            let root = match self.root(&store, version).await {
                Ok(root) => root,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            self.open(store, component, version, root).await.map(Some)
        };
        found
            .await
            .map_err(|error| self.blame(component, version, error))
    }

    /// The root manifest of a version: what its tag names, and named before in this run. A tag that moves meanwhile makes no
    /// difference, so that what a run copies is what it looked at.
    async fn root(&self, store: &Arc<dyn ContentStore>, version: &str) -> Result<RawManifest> {
        let known = &self.0.known;
        let tag = tag_of(version);
        let reference = match known.root(store.as_ref(), &tag) {
            Some(KnownRoot::Manifest(root)) => return Ok(root),
            Some(KnownRoot::Digest(digest)) => digest.to_string(),
            None => tag.clone(),
        };
        let root = store.manifest(&reference).await?;
        known.note_root(store.as_ref(), &tag, &root);
        Ok(root)
    }

    /// Takes a root manifest apart and reads the descriptor.
    pub(super) async fn open(
        &self,
        store: Arc<dyn ContentStore>,
        component: &str,
        version: &str,
        root: RawManifest,
    ) -> Result<ComponentVersion> {
        // Steps that read several contents of one version ask for it each: what hangs below the root is read once.
        let cell = self.0.known.version(store.as_ref(), &root.digest);
        let parts = cell
            .get_or_try_init(|| async {
                let parts = self.read_parts(&store, &root).await?;
                let original = parts.descriptor.original();
                let bytes = original.map_or(0, |original| original.bytes.len());
                self.0.known.count_version(bytes);
                Ok::<_, Error>(Arc::new(parts))
            })
            .await?
            .clone();
        check_names(&parts.descriptor, component, version)?;
        Ok(ComponentVersion {
            descriptor: parts.descriptor.clone(),
            root,
            repository: self.clone(),
            store,
            parts,
        })
    }

    async fn read_parts(&self, store: &Arc<dyn ContentStore>, root: &RawManifest) -> Result<Parts> {
        let document = root.parse()?;
        let subject = document.subject.as_ref().map(|link| link.digest.clone());
        let (manifest, artifacts) = if is_index(&root.media_type) {
            let (own, artifacts) = split_index(&document)?;
            (
                store.manifest(&own.digest.to_string()).await?.parse()?,
                artifacts,
            )
        } else {
            (document, Vec::new())
        };
        let descriptor = read_descriptor(store.as_ref(), &manifest).await?;
        let layers = manifest.layers.unwrap_or_default();
        for link in layers.iter().chain(&artifacts) {
            self.0.known.note_size(&link.digest, link.size);
        }
        self.0.known.note_original(&descriptor);
        if subject.is_some_and(|subject| subject == component_index().digest) {
            self.0.known.note_indexed(&descriptor);
        }
        Ok(Parts {
            descriptor,
            layers,
            artifacts,
        })
    }

    /// The versions that refer to the component index, as the referrers' annotations tell them. `None` where that can't be
    /// told, or there are none.
    pub(super) async fn versions_by_index(
        &self,
        store: &Arc<dyn ContentStore>,
        component: &str,
    ) -> Option<BTreeSet<String>> {
        let listed = store.referrers(&component_index().digest).await.ok()?;
        let of_component = listed.iter().filter_map(|link| {
            let is_version = link.artifact_type.as_deref() == Some(DESCRIPTOR_ARTIFACT_TYPE);
            let (name, version) = annotated_version(link.annotations.as_ref())?;
            (is_version && name == component).then(|| version.to_owned())
        });
        let versions: BTreeSet<String> = of_component.collect();
        (!versions.is_empty()).then_some(versions)
    }

    /// The version that a tag holds: by annotation, else by descriptor. `None` for what is no version of `component`.
    pub(super) async fn version_behind(
        &self,
        store: &Arc<dyn ContentStore>,
        component: &str,
        tag: &str,
    ) -> Result<Option<String>> {
        let root = match store.manifest(tag).await {
            Ok(root) => root,
            // The tag went away since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(document) = root.parse() else {
            return Ok(None);
        };
        if let Some((name, version)) = annotated_version(document.annotations.as_ref()) {
            return Ok((name == component).then(|| version.to_owned()));
        }
        let is_component = document
            .config
            .as_ref()
            .is_some_and(|config| is_component_config(&config.media_type));
        if !is_component {
            return Ok(None);
        }
        let descriptor = read_descriptor(store.as_ref(), &document).await?;
        Ok((descriptor.name() == component).then(|| descriptor.version().to_owned()))
    }
}

impl ComponentVersion {
    /// The store that has the component's manifest and local content.
    pub fn store(&self) -> &Arc<dyn ContentStore> {
        &self.store
    }

    /// The content of a resource or source that is stored beside the descriptor. Lazy: no I/O. A blob where it is a layer,
    /// an artifact where it is a manifest of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when its access is no local blob, [`ErrorKind::NotFound`] when the manifest has no such
    /// content, [`ErrorKind::Invalid`] when it is not clear which is meant.
    pub fn local_blob(&self, element: &Element<'_>) -> Result<Content> {
        self.local_content(element)
            .map_err(|error| error.context(format!("{} `{}`", element.kind(), element.identity())))
            .map_err(|error| {
                self.repository
                    .blame(self.descriptor.name(), self.descriptor.version(), error)
            })
    }

    fn local_content(&self, element: &Element<'_>) -> Result<Content> {
        let access = element
            .access()
            .map_err(|error| Error::invalid(error.to_string()))?;
        let local = access.local_blob().ok_or_else(|| {
            Error::unsupported("its content is not stored beside the component descriptor")
        })?;
        let Some(digests) = digests_of(local.local_reference) else {
            return self.file_content(local.local_reference, local.media_type);
        };
        if let [digest] = digests.as_slice() {
            return self.one_content(digest, local.media_type);
        }
        let mut whole = Segments::new();
        for digest in &digests {
            whole.push(self.layer(digest, None)?)?;
        }
        let media_type = local.media_type.unwrap_or(OCTET_STREAM);
        Ok(whole.into_blob(media_type).into())
    }

    /// Content of a component archive that is named by its file.
    fn file_content(&self, name: &str, media_type: Option<&str>) -> Result<Content> {
        let layers = &self.parts.layers;
        let found = layers
            .iter()
            .find(|link| link.annotation(FILE_NAME) == Some(name));
        match found {
            Some(link) => self.layer(&link.digest, media_type).map(Content::from),
            None => Err(Error::not_found(format!(
                "there is no content for the local reference `{name}`, which is not a digest"
            ))),
        }
    }

    fn one_content(&self, digest: &Digest, media_type: Option<&str>) -> Result<Content> {
        let artifact = self
            .parts
            .artifacts
            .iter()
            .find(|link| link.digest == *digest);
        let is_layer = self.parts.layers.iter().any(|link| link.digest == *digest);
        match artifact {
            Some(_) if is_layer => Err(Error::invalid(format!(
                "local reference {digest} names both a layer and an artifact"
            ))),
            Some(link) => Ok(Artifact::Stored(Stored {
                root: link.clone(),
                store: self.store.clone(),
                tag: None,
            })
            .into()),
            None => self.layer(digest, media_type).map(Content::from),
        }
    }

    /// The layer of that digest. Layers that share one have the same bytes, so the first will do.
    fn layer(&self, digest: &Digest, media_type: Option<&str>) -> Result<Blob> {
        let link = self
            .parts
            .layers
            .iter()
            .find(|link| link.digest == *digest)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "the manifest has no layer {digest}, which the local reference names"
                ))
            })?;
        let mut blob = self.store.fetch(link);
        if let Some(media_type) = media_type {
            media_type.clone_into(&mut blob.media_type);
        }
        Ok(blob)
    }
}

/// Which entry of an index is the component's manifest, and which are artifacts: the one that is marked, else the first.
fn split_index(index: &Manifest) -> Result<(Descriptor, Vec<Descriptor>)> {
    let mut children: Vec<Descriptor> = index.children().cloned().collect();
    let marked: Vec<usize> = children
        .iter()
        .enumerate()
        .filter(|(_, child)| child.annotation(DESCRIPTOR_MARK) == Some("true"))
        .map(|(at, _)| at)
        .collect();
    let at = match marked.as_slice() {
        [] if children.is_empty() => {
            return Err(Error::invalid("an empty index is no component version"));
        }
        [] => 0,
        [at] => *at,
        _ => {
            return Err(Error::invalid(
                "several entries of the index are marked as component descriptor",
            ));
        }
    };
    let own = children.remove(at);
    if is_index(&own.media_type) || !own.is_manifest() {
        return Err(Error::invalid(format!(
            "the index has {} where the component's manifest should be",
            own.media_type
        )));
    }
    Ok((own, children))
}

/// Follows config, then descriptor (trap T15). Where the config does not tell, the one layer with a descriptor's media
/// type counts.
async fn read_descriptor(
    store: &dyn ContentStore,
    manifest: &Manifest,
) -> Result<ComponentDescriptor> {
    let config = manifest
        .config
        .as_ref()
        .filter(|config| is_component_config(&config.media_type))
        .ok_or_else(|| Error::invalid("the manifest is not that of a component version"))?;
    let bytes = store.fetch(config).read(CONFIG_LIMIT).await?;
    let parsed: ComponentConfig = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("config {}: {error}", config.digest)))?;
    let link = match parsed.component_descriptor_layer {
        Some(link) => Descriptor::new(link.media_type, link.digest, link.size),
        None => only_descriptor_layer(manifest)?,
    };
    let bytes = store.fetch(&link).read(DESCRIPTOR_LIMIT).await?;
    ComponentDescriptor::decode(&link.media_type, bytes.as_ref())
        .map_err(|error| Error::invalid(error.to_string()))
}

fn only_descriptor_layer(manifest: &Manifest) -> Result<Descriptor> {
    let mut layers = manifest
        .layers
        .iter()
        .flatten()
        .filter(|layer| Encoding::of(&layer.media_type).is_some());
    match (layers.next(), layers.next()) {
        (Some(layer), None) => Ok(layer.clone()),
        _ => Err(Error::invalid(
            "neither config nor layers tell which layer is the component descriptor",
        )),
    }
}

/// What was found must be what was asked for. A name that is no version (`latest`) may stand for any.
fn check_names(descriptor: &ComponentDescriptor, component: &str, version: &str) -> Result<()> {
    if descriptor.name() != component {
        return Err(Error::mismatch(format!(
            "the component descriptor there is that of {}",
            descriptor.name()
        )));
    }
    if !is_version(version) || descriptor.version() == version {
        return Ok(());
    }
    let found = descriptor.version();
    // Two versions may share a tag, since `+` and `.build-` become the same.
    if tag_of(found) == tag_of(version) {
        return Err(Error::not_found(format!(
            "the tag `{}` holds version {found}",
            tag_of(version)
        )));
    }
    Err(Error::mismatch(format!(
        "the component descriptor there is that of version {found}"
    )))
}
