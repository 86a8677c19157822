//! Writing component versions, in two phases: content and everything unnamed first, then the one manifest under its tag.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::{
    Access as Opening, Artifact, Blob, Content, ContentStore, Error, ErrorKind, Limits, Meter,
    RawManifest, Result, open_archive, spool,
};
use ocm_specs::access::{Access, AccessType, local_blob};
use ocm_specs::descriptor::{
    ComponentDescriptor, DigestSpec, Element, ElementKind, updated_digest,
};
use ocm_specs::json::{field, spelling};
use ocm_specs::media_type::{
    COMPONENT_CONFIG, OCI_EMPTY, OCTET_STREAM, is_artifact_archive, is_layout, is_manifest,
};
use ocm_specs::normalisation::is_signed_part_equal;
use ocm_specs::oci::Descriptor;
use ocm_specs::reference::OciReference;
use ocm_specs::{Algorithm, Digest, Hasher};
use serde_json::Value;

use super::layout::{Layout, LocalContent, component_index, digests_of, local_contents};
use super::read::ComponentVersion;
use super::{CONCURRENCY, Repository, tag_of};

/// What to do about a component version that is there already (contracts.md 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Equal: nothing to do. Only unsigned data differ: update. Anything else is a conflict.
    #[default]
    Fail,
    /// Equal: nothing to do. Anything else is a conflict, even where only unsigned data differ.
    Refuse,
    /// Replace it, unless it is equal.
    Overwrite,
    /// Publish manifests even if they are equal.
    Enforce,
    /// Leave it, whatever it is.
    NoUpdate,
}

/// What publishing a component version came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VersionOutcome {
    /// There was none before.
    Created,
    /// An equal one was there.
    Present,
    /// Unsigned data of one that was there changed.
    Updated,
    /// Another one was there and is no longer, or the same was published again.
    Replaced,
    /// Another one was there and was left.
    Kept,
}

/// A published component version.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The link to the root manifest.
    pub root: Descriptor,
    /// How it got there.
    pub outcome: VersionOutcome,
}

/// A component version all parts of which are at the target, but for its root.
#[derive(Debug)]
pub struct PreparedVersion {
    repository: Repository,
    store: Arc<dyn ContentStore>,
    component: String,
    version: String,
    root: RawManifest,
    outcome: VersionOutcome,
    /// What has to be there before the root; pushed already, kept for a registry that lost it meanwhile.
    parts: Option<Layout>,
}

impl Repository {
    /// Stores the content of a resource or source beside the descriptor of `component` and returns the element with its new
    /// access and digest. Nothing becomes visible under a name: that is [`Self::prepare_version`]'s part.
    ///
    /// Blobs become layers, artifacts become manifests of their own. The rest of the element stays as it is, an existing
    /// digest triple included while its value holds; `globalAccess` goes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an element that is none, besides what reading and storing give.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location(), component))]
    pub async fn prepare_local_blob(
        &self,
        component: &str,
        kind: ElementKind,
        element: &Value,
        content: &Content,
    ) -> Result<Value> {
        let view = Element::new(kind, element, "");
        let prepared = async {
            if !element.is_object() {
                return Err(Error::invalid(format!("the {kind} is no object")));
            }
            let store = self.store(component)?;
            match content {
                Content::Blob(blob) if is_layout(layer_media_type(&view, &blob.media_type)) => {
                    // What the archive holds is read twice, once to know it.
                    let blob = spool(blob, self.0.known.limits()).await?;
                    match self.taken_apart(&view, &blob).await? {
                        Some(artifact) => self.store_artifact(&store, &view, &artifact).await,
                        None => self.store_blob(&store, &view, &blob).await,
                    }
                }
                Content::Blob(blob) => self.store_blob(&store, &view, blob).await,
                Content::Artifact(artifact) => self.store_artifact(&store, &view, artifact).await,
            }
        };
        prepared.await.map_err(|error| {
            error.context(format!(
                "store {kind} `{}` of {component} in {}",
                view.name(),
                self.location()
            ))
        })
    }

    /// As [`Self::prepare_local_blob`], for content of `version` that may well be here: where that version is here already,
    /// the element is told without I/O and the content moves only if [`Self::prepare_version`] turns out to miss it. So a
    /// copy that was made before costs one request.
    ///
    /// # Errors
    /// Those of [`Self::prepare_local_blob`].
    pub async fn carry_local_blob(
        &self,
        component: &str,
        version: &str,
        kind: ElementKind,
        element: &Value,
        content: &Content,
    ) -> Result<Value> {
        let deferred = self.defer(component, version, kind, element, content).await;
        match deferred {
            Ok(Some(element)) => Ok(element),
            Ok(None) => {
                self.prepare_local_blob(component, kind, element, content)
                    .await
            }
            Err(error) => Err(self.blame(component, version, error)),
        }
    }

    /// The element that storing the content will give, and the content kept for later; `None` where it has to be stored now.
    async fn defer(
        &self,
        component: &str,
        version: &str,
        kind: ElementKind,
        element: &Value,
        content: &Content,
    ) -> Result<Option<Value>> {
        let known = &self.0.known;
        let link = match content {
            Content::Blob(blob) => blob.descriptor(),
            Content::Artifact(artifact) => artifact.root().cloned(),
        };
        // A manifest without its parts is refused where it is stored.
        let is_bare = matches!(content, Content::Blob(_));
        let view = Element::new(kind, element, "");
        let is_refused =
            |link: &Descriptor| is_bare && is_manifest(layer_media_type(&view, &link.media_type));
        let Some((link, told)) = link.filter(|link| !is_refused(link)).and_then(|link| {
            let told = predict_local_blob(kind, element, &link)?;
            Some((link, told))
        }) else {
            return Ok(None);
        };
        let store = self.store(component)?;
        let tag = tag_of(version);
        let tagged = known.tagged(store.as_ref(), &tag);
        let tagged = tagged
            .get_or_try_init(|| resolve(store.as_ref(), &tag))
            .await?;
        if tagged.is_none() {
            return Ok(None);
        }
        // What refers to an artifact may be more than it was, which the component version does not tell.
        let is_settled = match content {
            Content::Blob(_) => true,
            Content::Artifact(artifact) => !known.copier().has_referrers(artifact).await?,
        };
        if !is_settled {
            return Ok(None);
        }
        known.note_size(&link.digest, link.size);
        known.defer(store.as_ref(), &link.digest, content.clone());
        Ok(Some(told))
    }

    /// Brings content that was deferred; tells whether there was some.
    async fn store_deferred(
        &self,
        store: &Arc<dyn ContentStore>,
        content: &LocalContent,
    ) -> Result<bool> {
        let known = &self.0.known;
        let Some(deferred) = known.take_deferred(store.as_ref(), &content.digest) else {
            return Ok(false);
        };
        let size = match &deferred {
            Content::Blob(blob) => known.copier().push(blob, store).await?.descriptor.size,
            Content::Artifact(artifact) => {
                let (root, warnings) = known.copier().copy(artifact, store, None).await?;
                for warning in warnings {
                    tracing::warn!(element = content.named(), "{warning}");
                }
                root.size
            }
        };
        known.note_present(store.as_ref(), &content.digest, size);
        Ok(true)
    }

    /// Content that was deferred is here already.
    fn settle_deferred(&self, store: &Arc<dyn ContentStore>, contents: &[LocalContent]) {
        for content in contents {
            let deferred = self.0.known.take_deferred(store.as_ref(), &content.digest);
            if deferred.is_some() {
                Meter::with(Meter::skipped);
            }
        }
    }

    async fn store_artifact(
        &self,
        store: &Arc<dyn ContentStore>,
        element: &Element<'_>,
        artifact: &Artifact,
    ) -> Result<Value> {
        let known = &self.0.known;
        let (root, warnings) = known.copier().copy(artifact, store, None).await?;
        for warning in warnings {
            tracing::warn!(element = element.name(), "{warning}");
        }
        known.note_present(store.as_ref(), &root.digest, root.size);
        let media_type = root.media_type.clone();
        let triple =
            stored_digest(store.as_ref(), known.limits(), element, &root, &media_type).await?;
        Ok(updated(element, &root.digest, &media_type, triple))
    }

    /// The artifact in an OCI image layout, which is stored as that, as in the library v2: tars of one artifact differ from
    /// writer to writer (trap T22). `None` where the element states the digest of the tar itself, or where the layout holds
    /// not exactly one artifact.
    async fn taken_apart(&self, element: &Element<'_>, blob: &Blob) -> Result<Option<Artifact>> {
        let stated = element.digest().and_then(|stated| stated.digest());
        if stated.is_some() && stated == blob.digest {
            return Ok(None);
        }
        let artifact = match open_archive(blob, self.0.known.limits()).await {
            Ok(artifact) => artifact,
            Err(error) if error.kind() == ErrorKind::Invalid => {
                let name = element.name();
                tracing::warn!(element = name, "its OCI layout is stored as it is: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let root = artifact.root().map(|root| &root.digest);
        let fits = stated.is_none() || stated.as_ref() == root;
        Ok(fits.then_some(artifact))
    }

    /// The triple of an artifact that is stored as an archive and had none so far: that of the artifact, since archives of
    /// it differ. `None` for other content.
    async fn archived_digest(
        &self,
        element: &Element<'_>,
        blob: &Blob,
        media_type: &str,
    ) -> Result<Option<DigestSpec>> {
        let is_new = element.kind() == ElementKind::Resource && element.digest().is_none();
        if !is_new || !is_artifact_archive(media_type) {
            return Ok(None);
        }
        match open_archive(blob, self.0.known.limits()).await {
            Ok(artifact) => Ok(artifact
                .root()
                .map(|root| DigestSpec::new(&root.digest, true))),
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn store_blob(
        &self,
        store: &Arc<dyn ContentStore>,
        element: &Element<'_>,
        blob: &Blob,
    ) -> Result<Value> {
        let media_type = layer_media_type(element, &blob.media_type);
        if is_manifest(media_type) {
            return Err(Error::invalid(format!(
                "its content is announced as {media_type}, and a manifest without its parts can't be stored"
            )));
        }
        let pushed = self.0.known.copier().push(blob, store).await?.descriptor;
        self.0
            .known
            .note_present(store.as_ref(), &pushed.digest, pushed.size);
        let stored = match blob.access() {
            Opening::Reopenable => blob.clone(),
            Opening::Once => store.fetch(&pushed),
        };
        let triple = match self.archived_digest(element, &stored, media_type).await? {
            Some(inside) => Some(inside),
            None => {
                let limits = self.0.known.limits();
                stored_digest(store.as_ref(), limits, element, &pushed, media_type).await?
            }
        };
        Ok(updated(element, &pushed.digest, media_type, triple))
    }

    /// The root manifest that this program would publish for `descriptor`, where the lengths of all local content are known
    /// from what was read or written in this run; `None` where one is not. No I/O.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for malformed accesses.
    pub fn predict(&self, descriptor: &ComponentDescriptor) -> Result<Option<RawManifest>> {
        let descriptor = self.0.known.restore_original(descriptor);
        let contents = local_contents(&descriptor)?;
        let layout = self.layout(&descriptor, &contents);
        Ok(layout.map(|layout| layout.root().clone()))
    }

    /// `None` where the length of some content is not known.
    fn layout(
        &self,
        descriptor: &ComponentDescriptor,
        contents: &[LocalContent],
    ) -> Option<Layout> {
        let known = &self.0.known;
        let is_indexed = known.is_indexed(descriptor.name(), descriptor.version());
        Layout::new(descriptor, contents, is_indexed, |digest| {
            known.size(digest)
        })
    }

    /// Is exactly this component version here, written by this program? One request. `None` where that can't be told
    /// beforehand.
    ///
    /// # Errors
    /// What the store gives.
    pub async fn is_published(&self, descriptor: &ComponentDescriptor) -> Result<Option<bool>> {
        let Some(root) = self.predict(descriptor)? else {
            return Ok(None);
        };
        let store = self.store(descriptor.name())?;
        let found = resolve(store.as_ref(), &tag_of(descriptor.version())).await?;
        Ok(Some(found.is_some_and(|found| found.digest == root.digest)))
    }

    /// Brings everything of a component version here but its tag. All local content must be here already.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when local content is missing, [`ErrorKind::Conflict`] when another version is there and
    /// `existing` does not allow to replace it, besides what the store gives.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location(), component = descriptor.name(), version = descriptor.version()))]
    pub async fn prepare_version(
        &self,
        descriptor: &ComponentDescriptor,
        existing: Existing,
    ) -> Result<PreparedVersion> {
        self.prepare_version_unnamed(descriptor, existing)
            .await
            .map_err(|error| self.blame(descriptor.name(), descriptor.version(), error))
    }

    async fn prepare_version_unnamed(
        &self,
        descriptor: &ComponentDescriptor,
        existing: Existing,
    ) -> Result<PreparedVersion> {
        let known = &self.0.known;
        let descriptor = known.restore_original(descriptor);
        let store = self.store(descriptor.name())?;
        let contents = local_contents(&descriptor)?;
        let tag = tag_of(descriptor.version());
        let prepared = |root, outcome, parts| PreparedVersion {
            repository: self.clone(),
            store: store.clone(),
            component: descriptor.name().to_owned(),
            version: descriptor.version().to_owned(),
            root,
            outcome,
            parts,
        };
        let layout = self.layout(&descriptor, &contents);
        let tagged = match known.take_tagged(store.as_ref(), &tag) {
            Some(tagged) => tagged,
            None => resolve(store.as_ref(), &tag).await?,
        };
        // The usual second run ends here, after one request.
        if let (Some(layout), Some(tagged)) = (&layout, &tagged)
            && layout.root().digest == tagged.digest
            && existing != Existing::Enforce
        {
            self.settle_deferred(&store, &contents);
            let root = layout.root().clone();
            return Ok(prepared(root, VersionOutcome::Present, None));
        }
        let outcome = match tagged {
            None => VersionOutcome::Created,
            Some(_) => {
                let root = store.manifest(&tag).await?;
                match self.compare(&store, &descriptor, &root, existing).await? {
                    outcome @ (VersionOutcome::Present | VersionOutcome::Kept) => {
                        self.settle_deferred(&store, &contents);
                        return Ok(prepared(root, outcome, None));
                    }
                    outcome => outcome,
                }
            }
        };
        self.check_contents(&store, &contents).await?;
        let layout = match self.layout(&descriptor, &contents) {
            Some(layout) => layout,
            None => {
                return Err(Error::internal(
                    "the length of local content is not known after it was checked",
                ));
            }
        };
        self.push_parts(&store, &layout).await?;
        Ok(prepared(layout.root().clone(), outcome, Some(layout)))
    }

    /// What the version that is there means for the new one.
    async fn compare(
        &self,
        store: &Arc<dyn ContentStore>,
        new: &ComponentDescriptor,
        root: &RawManifest,
        existing: Existing,
    ) -> Result<VersionOutcome> {
        match existing {
            Existing::NoUpdate => return Ok(VersionOutcome::Kept),
            Existing::Overwrite | Existing::Enforce => return Ok(VersionOutcome::Replaced),
            Existing::Fail | Existing::Refuse => {}
        }
        let found: Result<ComponentVersion> = self
            .open(store.clone(), new.name(), new.version(), root.clone())
            .await;
        let conflict = |why: String| {
            Error::new(ErrorKind::Conflict, why)
                .with_hint("replace it with --overwrite, or leave it with --no-update")
        };
        match found {
            Ok(old) if old.descriptor == *new => Ok(VersionOutcome::Present),
            Ok(old) if is_signed_part_equal(&old.descriptor, new) => match existing {
                Existing::Refuse => Err(conflict(
                    "another one with different unsigned data is there already".to_owned(),
                )),
                _ => Ok(VersionOutcome::Updated),
            },
            Ok(_) => Err(conflict(
                "another one with different signed data is there already".to_owned(),
            )),
            Err(error) if is_passing(&error) => Err(error),
            Err(error) => Err(conflict(format!(
                "something else is there already ({error})"
            ))),
        }
    }

    /// All local content must be here, and its length known.
    async fn check_contents(
        &self,
        store: &Arc<dyn ContentStore>,
        contents: &[LocalContent],
    ) -> Result<()> {
        let known = &self.0.known;
        stream::iter(contents)
            .map(Ok)
            .try_for_each_concurrent(CONCURRENCY, |content| async move {
                let is_here = known.is_present(store.as_ref(), &content.digest)
                    || self
                        .store_deferred(store, content)
                        .await
                        .map_err(|error| error.context(content.named()))?;
                if is_here {
                    return Ok(());
                }
                let size = self
                    .find_content(store, content)
                    .await
                    .map_err(|error| error.context(content.named()))?;
                known.note_present(store.as_ref(), &content.digest, size);
                Ok(())
            })
            .await
    }

    /// The length of content that is here.
    async fn find_content(
        &self,
        store: &Arc<dyn ContentStore>,
        content: &LocalContent,
    ) -> Result<u64> {
        let missing = || {
            Error::not_found(format!(
                "its local content {} is not in {}",
                content.digest,
                store.location()
            ))
            .with_hint("store the content before the component version")
        };
        if content.is_artifact() {
            let found = resolve(store.as_ref(), &content.digest.to_string()).await?;
            return found.map(|found| found.size).ok_or_else(missing);
        }
        match store.blob_size(&content.digest).await {
            Ok(size) => Ok(size),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(error),
        }
    }

    async fn push_parts(&self, store: &Arc<dyn ContentStore>, layout: &Layout) -> Result<()> {
        let copier = self.0.known.copier();
        let descriptor = Blob::from_bytes(
            layout.descriptor.media_type.clone(),
            Bytes::from_owner(layout.descriptor.bytes.clone()),
        );
        copier.push(&descriptor, store).await?;
        let config = Blob::from_bytes(COMPONENT_CONFIG, layout.config.clone());
        copier.push(&config, store).await?;
        if layout.is_indexed {
            put_component_index(store).await?;
        }
        if layout.index.is_some() {
            store.put_manifest(&layout.manifest, None).await?;
        }
        Ok(())
    }
}

impl PreparedVersion {
    /// The link to the root manifest.
    pub fn root(&self) -> Descriptor {
        self.root.descriptor()
    }

    /// What publishing will come to.
    pub fn outcome(&self) -> VersionOutcome {
        self.outcome
    }

    /// The repository it goes to.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Puts the root manifest under the version's tag. May be repeated.
    ///
    /// # Errors
    /// What the store gives. A store that lost descriptor or config since they were pushed gets them once more.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.repository.location(), component = self.component, version = self.version))]
    pub async fn publish(&self) -> Result<Published> {
        self.publish_unnamed()
            .await
            .map_err(|error| self.repository.blame(&self.component, &self.version, error))
    }

    async fn publish_unnamed(&self) -> Result<Published> {
        if let Some(parts) = &self.parts {
            let tag = tag_of(&self.version);
            self.repository
                .0
                .known
                .forget_root(self.store.as_ref(), &tag);
            let put = self.store.put_manifest(&self.root, Some(&tag)).await;
            match put {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
                    self.repository.restore_parts(&self.store, parts).await?;
                    self.store.put_manifest(&self.root, Some(&tag)).await?;
                }
                put => put?,
            }
        }
        Ok(Published {
            root: self.root.descriptor(),
            outcome: self.outcome,
        })
    }
}

impl Repository {
    /// Pushes without trusting what this run remembers.
    async fn restore_parts(&self, store: &Arc<dyn ContentStore>, layout: &Layout) -> Result<()> {
        let descriptor = Blob::from_bytes(
            layout.descriptor.media_type.clone(),
            Bytes::from_owner(layout.descriptor.bytes.clone()),
        );
        store.push(&descriptor, &[]).await?;
        let config = Blob::from_bytes(COMPONENT_CONFIG, layout.config.clone());
        store.push(&config, &[]).await?;
        if layout.is_indexed {
            put_component_index(store).await?;
        }
        if layout.index.is_some() {
            store.put_manifest(&layout.manifest, None).await?;
        }
        Ok(())
    }
}

/// Brings the manifest that component versions refer to into a repository, unless it is there.
async fn put_component_index(store: &Arc<dyn ContentStore>) -> Result<()> {
    let index = component_index();
    if !store.holds(&index.descriptor()).await? {
        store.push(&Blob::from_bytes(OCI_EMPTY, "{}"), &[]).await?;
        store.put_manifest(&index, None).await?;
    }
    Ok(())
}

/// The element that [`Repository::prepare_local_blob`] would return for that content, told without I/O; `None` where the
/// content would have to be read for it, since the old digest is by another algorithm.
///
/// With it and [`Repository::is_published`] a copy recognises with one request that all of it was done before.
pub fn predict_local_blob(
    kind: ElementKind,
    element: &Value,
    content: &Descriptor,
) -> Option<Value> {
    let view = Element::new(kind, element, "");
    let media_type = layer_media_type(&view, &content.media_type);
    if is_artifact_archive(media_type) {
        // What is inside decides, but for content whose own digest is stated.
        let stated = view.digest();
        let is_own = |stated: DigestSpec| stated.digest().as_ref() == Some(&content.digest);
        let open = match (is_layout(media_type), stated) {
            (true, stated) => !stated.is_some_and(is_own),
            (false, stated) => stated.is_none() && kind == ElementKind::Resource,
        };
        if open {
            return None;
        }
    }
    let triple = match plan_digest(&view, content, media_type) {
        DigestPlan::Absent => None,
        DigestPlan::Keep(old) => Some(old),
        DigestPlan::Compare(old, algorithm) if algorithm == content.digest.algorithm() => {
            let is_root = content.is_manifest();
            Some(updated_digest(old.as_ref(), &content.digest, is_root))
        }
        DigestPlan::Compare(..) => return None,
    };
    Some(updated(&view, &content.digest, media_type, triple))
}

/// The media type under which a blob is stored: its own, or the one the element states where it has none.
fn layer_media_type<'a>(element: &Element<'a>, own: &'a str) -> &'a str {
    let stated = element
        .access()
        .ok()
        .and_then(|access| access.local_blob())
        .and_then(|local| local.media_type);
    match stated {
        Some(stated) if own == OCTET_STREAM => stated,
        _ => own,
    }
}

/// What becomes of an element's digest triple.
enum DigestPlan {
    /// Sources have none.
    Absent,
    /// The content is what it was.
    Keep(DigestSpec),
    /// The value by that algorithm decides.
    Compare(Option<DigestSpec>, Algorithm),
}

fn plan_digest(element: &Element<'_>, content: &Descriptor, media_type: &str) -> DigestPlan {
    if element.kind() == ElementKind::Source {
        return DigestPlan::Absent;
    }
    let Some(old) = element.digest() else {
        return DigestPlan::Compare(None, content.digest.algorithm());
    };
    let same_content = element
        .access()
        .ok()
        .and_then(|access| access.local_blob())
        .and_then(|local| digests_of(local.local_reference))
        .is_some_and(|digests| digests == [content.digest.clone()]);
    // An archive's triple is that of the artifact inside, which the archive's own digest says nothing about.
    if same_content || is_artifact_archive(media_type) {
        return DigestPlan::Keep(old);
    }
    // Markers and algorithms that are not computed here have no value to compare.
    let algorithm = old
        .digest()
        .map_or(content.digest.algorithm(), |old| old.algorithm());
    DigestPlan::Compare(Some(old), algorithm)
}

/// Errors that say nothing about what is stored.
fn is_passing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Cancelled | ErrorKind::Io
    )
}

async fn resolve(store: &dyn ContentStore, reference: &str) -> Result<Option<Descriptor>> {
    match store.resolve(reference).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The element with new access and digest; everything else as it was.
fn updated(
    element: &Element<'_>,
    digest: &Digest,
    media_type: &str,
    triple: Option<DigestSpec>,
) -> Value {
    let access = local_blob(
        &digest.to_string(),
        media_type,
        reference_name(element).as_deref(),
    );
    let mut value = element.value().clone();
    if let Some(fields) = value.as_object_mut() {
        let key = spelling(fields, "access").to_owned();
        fields.insert(key, access);
        if let Some(triple) = triple {
            let key = spelling(fields, "digest").to_owned();
            fields.insert(key, triple.to_value());
        }
    }
    value
}

/// The hint for naming the artifact later: the one that is there, or repository and tag of the image it was.
fn reference_name(element: &Element<'_>) -> Option<String> {
    let Ok(access) = element.access() else {
        // A local blob that is going to be one: it has a name and no content yet.
        let fields = element.access_value()?.as_object()?;
        let text = |name| field(fields, name).and_then(Value::as_str);
        let is_local = AccessType::of(text("type")?) == AccessType::LocalBlob;
        return text("referenceName")
            .filter(|name| is_local && !name.is_empty())
            .map(str::to_owned);
    };
    match access {
        Access::LocalBlob(local) => local.reference_name.map(str::to_owned),
        Access::OciArtifact { image_reference } => name_of(image_reference),
        Access::RelativeOciReference { reference } => name_of(&format!("here/{reference}")),
        _ => None,
    }
}

fn name_of(image_reference: &str) -> Option<String> {
    let reference: OciReference = image_reference.parse().ok()?;
    let tag = reference.tag.map(|tag| format!(":{tag}"));
    Some(reference.repository + &tag.unwrap_or_default()).filter(|name| !name.is_empty())
}

/// The digest triple of an element whose content is now `content` in `store`.
async fn stored_digest(
    store: &dyn ContentStore,
    limits: &Arc<Limits>,
    element: &Element<'_>,
    content: &Descriptor,
    media_type: &str,
) -> Result<Option<DigestSpec>> {
    let (old, algorithm) = match plan_digest(element, content, media_type) {
        DigestPlan::Absent => return Ok(None),
        DigestPlan::Keep(old) => return Ok(Some(old)),
        DigestPlan::Compare(old, algorithm) => (old, algorithm),
    };
    let is_root = content.is_manifest();
    let value = if algorithm == content.digest.algorithm() {
        content.digest.clone()
    } else if is_root {
        let manifest = store.manifest(&content.digest.to_string()).await?;
        Digest::of(algorithm, &manifest.bytes)
    } else {
        let blob = store.fetch(content);
        let _slots = limits.transfer(&blob.hosts()).await;
        hash(&blob, algorithm).await?
    };
    Ok(Some(updated_digest(old.as_ref(), &value, is_root)))
}

async fn hash(blob: &Blob, algorithm: Algorithm) -> Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut chunks = blob.open().await?;
    while let Some(chunk) = chunks.try_next().await? {
        hasher.update(&chunk);
    }
    Ok(hasher.finish())
}
