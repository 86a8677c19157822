//! Moving blobs and artifacts from one store to another.
//!
//! *Invariants:* a manifest is never re-encoded (but for a composed one, which is new); nothing becomes visible under a
//! name before all its parts are there: blobs, then children of an index, then the root, then what refers to it; no permit
//! is held while waiting for another permit or for another step.
//!
//! A copy has two parts. [`Copier::prepare`] brings everything but the root, [`Prepared::publish`] puts the root under its
//! name. What the target has already is not read: an artifact that is there costs one request at the target, and one more
//! on either side for its referrers.
//!
//! Counting: a store counts in [`Meter`] what its `push` came to (sent, mounted, skipped); this module counts a skip only
//! where it knows that the target has the blob and does not ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use futures::{StreamExt, TryStreamExt, stream};
use ocm_specs::Digest;
use ocm_specs::media_type;
use ocm_specs::oci::{Descriptor, Manifest};
use serde_json::Value;

use crate::artifact::{Artifact, Composed, Part, Stored};
use crate::blob::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::locations::Locations;
use crate::meter::Meter;
use crate::spool::spool;
use crate::store::{ContentStore, MANIFEST_LIMIT, Outcome, Pushed, RawManifest};

/// Deepest nesting of indexes that is followed. Real ones have one or two levels.
pub const DEPTH_LIMIT: usize = 8;
/// Most manifests of one artifact, its root and its referrers included.
pub const MANIFESTS_LIMIT: usize = 2_000;
/// Most blobs of one artifact.
pub const BLOBS_LIMIT: usize = 50_000;
/// Most bytes of manifests that one artifact holds in memory while it is copied: 32 MiB.
pub const MANIFEST_BYTES_LIMIT: u64 = 32 << 20;
/// Longest chain of referrers (a signature of an SBOM of an image has two links).
pub const REFERRERS_DEPTH_LIMIT: usize = 4;
/// From how many parts on it is worth a request to ask for a root whose tag is not there: it saves one for each part.
const PARTS_WORTH_A_LOOK: usize = 8;
/// Blobs or manifests of one artifact that move at once.
const CONCURRENCY: usize = 4;

/// Do manifests that refer to a copied one (signatures, SBOMs, attestations) go along?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Referrers {
    /// All, and what refers to them.
    #[default]
    All,
    /// None.
    None,
}

/// What a tag was found to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nobody has asked.
    NotAsked,
    /// Nothing.
    Absent,
    /// A root of this digest.
    Named(Digest),
}

/// Choices of a copy.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Whether referrers go along.
    pub referrers: Referrers,
}

/// Copies blobs and artifacts under the limits of a run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Copier {
    limits: Arc<Limits>,
    locations: Arc<Locations>,
    options: CopyOptions,
}

/// Does the copier believe what it has seen in this run?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// A blob that this run brought to a repository is there.
    Run,
    /// Only what the target says now.
    Target,
}

impl Copier {
    /// A copier for one run: `locations` is shared by all of them.
    pub fn new(limits: Arc<Limits>, locations: Arc<Locations>) -> Self {
        Self {
            limits,
            locations,
            options: CopyOptions::default(),
        }
    }

    /// The same with other choices.
    #[must_use]
    pub fn with_options(mut self, options: CopyOptions) -> Self {
        self.options = options;
        self
    }

    /// What the run knows about who has what.
    pub fn locations(&self) -> &Arc<Locations> {
        &self.locations
    }

    /// Brings one blob to `target` unless it is there.
    ///
    /// Takes transfer slots on all hosts involved in one call. Steps that bring the same digest to the same host at once
    /// send it once; the others wait without a slot, then mount it or find it there.
    pub async fn push(&self, blob: &Blob, target: &Arc<dyn ContentStore>) -> Result<Pushed> {
        self.push_blob(blob, target, None, Trust::Run).await
    }

    /// Brings everything of `artifact` but its root manifest to `target`. `tag` is the one that [`Prepared::publish`] will
    /// be asked for: where it names this artifact already, that is all that is looked at (and the referrers).
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] for artifacts beyond the constants of this module, [`ErrorKind::Invalid`] for malformed ones,
    /// besides what the stores give.
    #[tracing::instrument(
        name = "copy",
        level = "debug",
        skip_all,
        fields(root = artifact.root().map(|root| root.digest.short()), to = target.location())
    )]
    pub async fn prepare(
        &self,
        artifact: &Artifact,
        target: &Arc<dyn ContentStore>,
        tag: Option<&str>,
    ) -> Result<Prepared> {
        let seen = match artifact {
            Artifact::Stored(_) => self.look(target, tag).await?,
            Artifact::Composed(_) => Seen::NotAsked,
        };
        self.prepare_seen(artifact, target, tag, seen).await
    }

    /// What `tag` names at the target now.
    ///
    /// # Errors
    /// What the target says, but for that there is no such tag.
    pub async fn look(&self, target: &Arc<dyn ContentStore>, tag: Option<&str>) -> Result<Seen> {
        let Some(tag) = tag else {
            return Ok(Seen::NotAsked);
        };
        match target.resolve(tag).await {
            Ok(found) => Ok(Seen::Named(found.digest)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Seen::Absent),
            Err(error) => Err(error),
        }
    }

    /// Like [`Self::prepare`], for who has looked at the target before it knew the artifact: that the tag is not there says
    /// how the source is best read.
    ///
    /// # Errors
    /// The same.
    pub async fn prepare_seen(
        &self,
        artifact: &Artifact,
        target: &Arc<dyn ContentStore>,
        tag: Option<&str>,
        seen: Seen,
    ) -> Result<Prepared> {
        match artifact {
            Artifact::Stored(stored) => self.prepare_stored(stored, target, tag, seen).await,
            Artifact::Composed(composed) => self.prepare_composed(composed, target).await,
        }
    }

    /// Does anything travel with `artifact` that refers to it or to a part of it? Looks at its source alone.
    ///
    /// # Errors
    /// What the source gives; [`ErrorKind::Limit`] for nesting beyond [`DEPTH_LIMIT`].
    pub async fn has_referrers(&self, artifact: &Artifact) -> Result<bool> {
        let Artifact::Stored(stored) = artifact else {
            return Ok(false);
        };
        if self.options.referrers == Referrers::None {
            return Ok(false);
        }
        let mut level = vec![stored.root.clone()];
        for _ in 0..DEPTH_LIMIT {
            let mut below = Vec::new();
            for link in &level {
                let listed = list_referrers(stored.store.as_ref(), &link.digest).await?;
                if !listed.is_empty() {
                    return Ok(true);
                }
                if media_type::is_index(&link.media_type) {
                    let index = stored.store.manifest(&link.digest.to_string()).await?;
                    below.extend(index.parse()?.children().cloned());
                }
            }
            if below.is_empty() {
                return Ok(false);
            }
            if below.len() > MANIFESTS_LIMIT {
                break;
            }
            level = below;
        }
        Err(Error::limit(format!(
            "the index nests deeper than {DEPTH_LIMIT} levels or has more than {MANIFESTS_LIMIT} manifests"
        )))
    }

    /// Prepares and publishes under `tag`. Returns the link to the root and the warnings.
    pub async fn copy(
        &self,
        artifact: &Artifact,
        target: &Arc<dyn ContentStore>,
        tag: Option<&str>,
    ) -> Result<(Descriptor, Vec<String>)> {
        let prepared = self.prepare(artifact, target, tag).await?;
        prepared.publish(tag).await?;
        Ok((prepared.root, prepared.warnings))
    }

    async fn prepare_stored(
        &self,
        stored: &Stored,
        target: &Arc<dyn ContentStore>,
        tag: Option<&str>,
        seen: Seen,
    ) -> Result<Prepared> {
        let mut job = Job::new(self, stored.store.clone(), target.clone());
        let tagged = matches!(&seen, Seen::Named(digest) if *digest == stored.root.digest);
        let mut root = None;
        let present = match seen {
            _ if tagged => true,
            // Most likely it is new here, and a few parts that are here after all are found one by one.
            Seen::Absent => {
                let manifest = root.insert(job.read(&stored.root).await?);
                let parts = manifest.parse()?;
                parts.blobs().count() + parts.children().count() > PARTS_WORTH_A_LOOK
                    && target.holds(&stored.root).await?
            }
            _ => target.holds(&stored.root).await?,
        };
        let mut prepared = job.prepared(stored.root.clone(), stored.tag.clone());
        prepared.tagged = tag.filter(|_| tagged).map(str::to_owned);
        if !present {
            let root = match root {
                Some(root) => root,
                None => job.read(&stored.root).await?,
            };
            let tree = job.walk(root).await?;
            job.push_parts(&tree, Trust::Run).await?;
            prepared.tree = Some(tree);
        }
        if self.options.referrers == Referrers::All {
            let mut subjects = vec![stored.root.digest.clone()];
            subjects.extend(prepared.tree.iter().flat_map(Tree::child_digests));
            prepared.referrers = job.referrers(subjects, present).await?;
            for tree in &prepared.referrers {
                job.push_parts(tree, Trust::Run).await?;
            }
        }
        prepared.warnings = job.warnings;
        Ok(prepared)
    }

    async fn prepare_composed(
        &self,
        composed: &Composed,
        target: &Arc<dyn ContentStore>,
    ) -> Result<Prepared> {
        let mut job = Job::new(self, composed.store.clone(), target.clone());
        let template = composed.template.parse()?;
        check_parts(composed, &template)?;
        let mut tree = job.grow(composed.template.clone()).await?;
        tree.blobs = job.composed_blobs(composed, &template).await?;
        let pushed = job.push_parts(&tree, Trust::Run).await?;
        for (item, pushed) in tree.blobs.iter_mut().zip(&pushed) {
            // Known from here on: a second push looks before it reads.
            item.blob.digest = Some(pushed.descriptor.digest.clone());
            item.blob.size = Some(pushed.descriptor.size);
        }
        tree.root = compose(composed, &tree.blobs)?;
        let mut prepared = job.prepared(tree.root.descriptor(), composed.tag.clone());
        prepared.warnings = job.warnings;
        prepared.tree = Some(tree);
        Ok(prepared)
    }

    #[tracing::instrument(
        name = "push",
        level = "debug",
        skip_all,
        fields(digest = blob.digest.as_ref().map(Digest::short), to = target.location())
    )]
    async fn push_blob(
        &self,
        blob: &Blob,
        target: &Arc<dyn ContentStore>,
        source: Option<&dyn ContentStore>,
        trust: Trust,
    ) -> Result<Pushed> {
        let store = target.as_ref();
        // Held until the end: while it exists nobody else sends this digest to this host.
        let _flight = match &blob.digest {
            None => None,
            Some(digest) => {
                if let Some(pushed) = self.known(blob, store, trust) {
                    return Ok(pushed);
                }
                let flight = self.locations.board(store, digest).await;
                // Whoever flew before may have brought it to this very repository.
                if let Some(pushed) = self.known(blob, store, trust) {
                    return Ok(pushed);
                }
                flight
            }
        };
        let mount_from = self.mount_from(blob, store, source);
        let size = blob.size.unwrap_or_default();
        Meter::with(|meter| meter.expect(size));
        let mut hosts = blob.hosts();
        hosts.extend(store.host());
        let slots = self.limits.transfer_of(&hosts, blob.size).await;
        let pushed = store
            .push(blob, &mount_from)
            .await
            .map_err(|error| error.context(push_context(blob, store)))?;
        drop(slots);
        if pushed.outcome != Outcome::Sent {
            Meter::with(|meter| meter.expect_less(size));
        }
        self.locations.note_store(store, &pushed.descriptor.digest);
        Ok(pushed)
    }

    /// What this run brought to `store` already.
    fn known(&self, blob: &Blob, store: &dyn ContentStore, trust: Trust) -> Option<Pushed> {
        let descriptor = blob.descriptor()?;
        let known = trust == Trust::Run && self.locations.has(store, &descriptor.digest);
        known.then(|| {
            Meter::with(Meter::skipped);
            Pushed {
                descriptor,
                outcome: Outcome::Present,
            }
        })
    }

    /// Repositories of the target's host to mount from: the source first, then what the run knows.
    fn mount_from(
        &self,
        blob: &Blob,
        target: &dyn ContentStore,
        source: Option<&dyn ContentStore>,
    ) -> Vec<String> {
        let (Some(host), Some(digest)) = (target.host(), &blob.digest) else {
            return Vec::new();
        };
        let mut from: Vec<String> = source
            .filter(|source| source.host().as_ref() == Some(&host))
            .map(ContentStore::repository)
            .into_iter()
            .chain(located_at(blob, host.as_str()))
            .chain(self.locations.repositories(&host, digest))
            .collect();
        let own = target.repository();
        let mut seen = BTreeSet::new();
        from.retain(|repository| *repository != own && seen.insert(repository.clone()));
        from
    }
}

/// The repository that a blob's locator names, where that is on `host`.
fn located_at(blob: &Blob, host: &str) -> Option<String> {
    let store = blob.locator()?.store;
    let path = store.strip_prefix("oci://")?.strip_prefix(host)?;
    path.strip_prefix('/').map(str::to_owned)
}

fn push_context(blob: &Blob, store: &dyn ContentStore) -> String {
    match &blob.digest {
        Some(digest) => format!("push {digest} to {}", store.location()),
        None => format!("push {} to {}", blob.media_type, store.location()),
    }
}

async fn resolves_to(store: &dyn ContentStore, reference: &str, digest: &Digest) -> Result<bool> {
    match store.resolve(reference).await {
        Ok(found) => Ok(found.digest == *digest),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// An artifact all parts of which are at the target, but for its root.
#[derive(Debug)]
pub struct Prepared {
    /// The link to the root, as it will be or is at the target.
    pub root: Descriptor,
    /// The tag the artifact is known by at its source.
    pub tag: Option<String>,
    /// Where it goes.
    pub target: Arc<dyn ContentStore>,
    /// What a person should know: parts that were left out, and why.
    pub warnings: Vec<String>,
    copier: Copier,
    source: Arc<dyn ContentStore>,
    /// `None` when the target has the root.
    tree: Option<Tree>,
    /// A tag that names the root at the target already.
    tagged: Option<String>,
    /// In the order in which they are published: a subject before what refers to it.
    referrers: Vec<Tree>,
}

impl Prepared {
    /// The root manifest, exactly as it is published; read from the source where nothing had to be copied.
    pub async fn manifest(&self) -> Result<RawManifest> {
        match &self.tree {
            Some(tree) => Ok(tree.root.clone()),
            None => read_manifest(self.source.as_ref(), &self.root).await,
        }
    }

    /// Puts the root manifest, under `tag` if given, then its referrers. May be repeated.
    ///
    /// Blobs that were pushed long ago may have been collected at the target: when it misses some, they are checked and
    /// pushed once more.
    pub async fn publish(&self, tag: Option<&str>) -> Result<()> {
        match &self.tree {
            Some(tree) => self.put(tree, tag).await?,
            None => self.name(tag).await?,
        }
        for tree in &self.referrers {
            self.put(tree, None).await?;
        }
        Ok(())
    }

    /// The root is there: gives it the name.
    async fn name(&self, tag: Option<&str>) -> Result<()> {
        let Some(tag) = tag else {
            return Ok(());
        };
        if self.tagged.as_deref() == Some(tag)
            || resolves_to(self.target.as_ref(), tag, &self.root.digest).await?
        {
            return Ok(());
        }
        let manifest = self.manifest().await?;
        self.target.put_manifest(&manifest, Some(tag)).await
    }

    async fn put(&self, tree: &Tree, tag: Option<&str>) -> Result<()> {
        let first = match self.target.put_manifest(&tree.root, tag).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => error,
            other => return other,
        };
        let job = Job::new(&self.copier, self.source.clone(), self.target.clone());
        if let Err(again) = job.push_parts(tree, Trust::Target).await {
            // The answer to the manifest is what matters, the second try is only a remedy.
            tracing::debug!(error = %again, "parts could not be pushed again");
            return Err(first.context(format!(
                "put manifest {} in {}",
                tree.root.digest,
                self.target.location()
            )));
        }
        self.target.put_manifest(&tree.root, tag).await
    }
}

/// A manifest with everything below it.
#[derive(Debug)]
struct Tree {
    root: RawManifest,
    /// Blobs of all manifests of the tree that the target lacks, each once.
    blobs: Vec<Item>,
    /// Manifests below the root that the target lacks, by depth from the root's children on.
    levels: Vec<Vec<RawManifest>>,
    /// Children that the target has.
    present: Vec<Digest>,
}

/// A blob of a tree.
#[derive(Debug)]
struct Item {
    blob: Blob,
    /// Its place in a composed root.
    part: Option<Part>,
}

impl Tree {
    fn child_digests(&self) -> impl Iterator<Item = Digest> {
        self.levels
            .iter()
            .flatten()
            .map(|manifest| manifest.digest.clone())
            .chain(self.present.iter().cloned())
    }
}

/// One artifact on its way: what was seen of it and what is left of its bounds.
struct Job<'a> {
    copier: &'a Copier,
    source: Arc<dyn ContentStore>,
    target: Arc<dyn ContentStore>,
    warnings: Vec<String>,
    seen: BTreeSet<Digest>,
    manifests: usize,
    manifest_bytes: u64,
    blobs: usize,
}

impl<'a> Job<'a> {
    fn new(
        copier: &'a Copier,
        source: Arc<dyn ContentStore>,
        target: Arc<dyn ContentStore>,
    ) -> Self {
        Self {
            copier,
            source,
            target,
            warnings: Vec::new(),
            seen: BTreeSet::new(),
            manifests: 0,
            manifest_bytes: 0,
            blobs: 0,
        }
    }

    fn prepared(&self, root: Descriptor, tag: Option<String>) -> Prepared {
        Prepared {
            root,
            tag,
            target: self.target.clone(),
            warnings: Vec::new(),
            copier: self.copier.clone(),
            source: self.source.clone(),
            tree: None,
            tagged: None,
            referrers: Vec::new(),
        }
    }

    /// Reads all below a manifest that the target lacks.
    async fn walk(&mut self, root: RawManifest) -> Result<Tree> {
        let manifest = root.parse()?;
        let mut tree = self.grow(root).await?;
        let mut own = self.blobs_of(&manifest).await?;
        own.append(&mut tree.blobs);
        tree.blobs = own;
        Ok(tree)
    }

    /// The tree below `root`, without the blobs of `root` itself.
    async fn grow(&mut self, root: RawManifest) -> Result<Tree> {
        self.seen.insert(root.digest.clone());
        let mut next: Vec<Descriptor> = root.parse()?.children().cloned().collect();
        let mut tree = Tree {
            root,
            blobs: Vec::new(),
            levels: Vec::new(),
            present: Vec::new(),
        };
        while !next.is_empty() {
            if tree.levels.len() == DEPTH_LIMIT {
                return Err(Error::limit(format!(
                    "index {} nests deeper than {DEPTH_LIMIT} levels",
                    tree.root.digest
                )));
            }
            next = self.level(&mut tree, next).await?;
        }
        Ok(tree)
    }

    /// Adds one level of children; gives the links to the level below.
    async fn level(&mut self, tree: &mut Tree, links: Vec<Descriptor>) -> Result<Vec<Descriptor>> {
        let mut wanted = Vec::new();
        for link in links {
            if link.digest == tree.root.digest {
                return Err(Error::invalid(format!(
                    "index {} contains itself",
                    tree.root.digest
                )));
            }
            if !self.seen.insert(link.digest.clone()) {
                continue;
            }
            if link.is_manifest() {
                self.count_manifest()?;
                wanted.push(link);
            } else {
                // OCI image spec, image-index.md: children of other types are to be taken as they are.
                tree.blobs.extend(self.item(&link, None).await?);
            }
        }
        let target = &self.target;
        // Futures made first: a closure that borrows, kept in a stream, hides that the whole is `Send`.
        let mut looks = Vec::with_capacity(wanted.len());
        for link in &wanted {
            looks.push(target.holds(link));
        }
        let present: Vec<bool> = stream::iter(looks)
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let (mut manifests, mut next) = (Vec::new(), Vec::new());
        let (mut known, mut expected) = (BTreeSet::new(), 0);
        for (link, present) in wanted.into_iter().zip(present) {
            if present {
                tree.present.push(link.digest);
                continue;
            }
            let raw = self.read_counted(&link).await?;
            let manifest = raw.parse()?;
            tree.blobs.extend(self.blobs_of(&manifest).await?);
            for child in manifest.children() {
                let is_old = self.seen.contains(&child.digest) && child.digest != tree.root.digest;
                if is_old || !known.insert(child.digest.clone()) {
                    continue;
                }
                // Before any of them is read, and before there are too many to keep in mind.
                expected += usize::from(child.is_manifest());
                self.expect(expected)?;
                next.push(child.clone());
            }
            manifests.push(raw);
        }
        tree.levels.push(manifests);
        Ok(next)
    }

    async fn read(&mut self, link: &Descriptor) -> Result<RawManifest> {
        self.count_manifest()?;
        self.read_counted(link).await
    }

    async fn read_counted(&mut self, link: &Descriptor) -> Result<RawManifest> {
        let raw = read_manifest(self.source.as_ref(), link).await?;
        self.manifest_bytes += raw.bytes.len() as u64;
        if self.manifest_bytes > MANIFEST_BYTES_LIMIT {
            return Err(Error::limit(format!(
                "artifact has more than {MANIFEST_BYTES_LIMIT} bytes of manifests"
            )));
        }
        Ok(raw)
    }

    fn count_manifest(&mut self) -> Result<()> {
        self.expect(1)?;
        self.manifests += 1;
        Ok(())
    }

    /// May there be so many more manifests?
    fn expect(&self, more: usize) -> Result<()> {
        if self.manifests + more > MANIFESTS_LIMIT {
            return Err(Error::limit(format!(
                "artifact has more than {MANIFESTS_LIMIT} manifests"
            )));
        }
        Ok(())
    }

    /// Blobs that a manifest links to, without those seen before.
    async fn blobs_of(&mut self, manifest: &Manifest) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for link in manifest.blobs() {
            if self.seen.insert(link.digest.clone()) {
                items.extend(self.item(link, None).await?);
            }
        }
        Ok(items)
    }

    /// The blobs of a composed root in the order of the template, with those that replace some.
    async fn composed_blobs(
        &mut self,
        composed: &Composed,
        template: &Manifest,
    ) -> Result<Vec<Item>> {
        let config = template.config.iter().map(|link| (Part::Config, link));
        let layers = template.layers.iter().flatten().enumerate();
        let layers = layers
            .filter(|(index, _)| !composed.dropped.contains(index))
            .map(|(index, link)| (Part::Layer(index), link));
        let mut items = Vec::new();
        for (part, link) in config.chain(layers) {
            match composed.replaced.get(&part) {
                Some(blob) => items.push(Item {
                    blob: blob.clone(),
                    part: Some(part),
                }),
                None => items.extend(self.item(link, Some(part)).await?),
            }
        }
        Ok(items)
    }

    /// The blob behind a link; `None` for a foreign one that the source does not have.
    async fn item(&mut self, link: &Descriptor, part: Option<Part>) -> Result<Option<Item>> {
        self.blobs += 1;
        if self.blobs > BLOBS_LIMIT {
            return Err(Error::limit(format!(
                "artifact has more than {BLOBS_LIMIT} blobs"
            )));
        }
        if is_foreign(link) && !self.source.exists(link).await? {
            self.warnings.push(format!(
                "layer {} ({}) is kept at a foreign place and was left out: {} does not have it",
                link.digest,
                link.media_type,
                self.source.location()
            ));
            return Ok(None);
        }
        let blob = inline(link).unwrap_or_else(|| self.source.fetch(link));
        Ok(Some(Item { blob, part }))
    }

    /// Pushes the blobs, then the manifests below the root, deepest first. Gives what the blobs came to, in order.
    async fn push_parts(&self, tree: &Tree, trust: Trust) -> Result<Vec<Pushed>> {
        if trust == Trust::Target {
            for digest in tree
                .blobs
                .iter()
                .filter_map(|item| item.blob.digest.as_ref())
            {
                self.copier.locations.forget(self.target.as_ref(), digest);
            }
        }
        let mut pushes = Vec::with_capacity(tree.blobs.len());
        for item in &tree.blobs {
            let source = Some(self.source.as_ref());
            pushes.push(
                self.copier
                    .push_blob(&item.blob, &self.target, source, trust),
            );
        }
        let pushed = stream::iter(pushes)
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        for level in tree.levels.iter().rev() {
            let mut puts = Vec::with_capacity(level.len());
            for manifest in level {
                puts.push(self.target.put_manifest(manifest, None));
            }
            stream::iter(puts)
                .buffer_unordered(CONCURRENCY)
                .try_collect::<()>()
                .await?;
        }
        Ok(pushed)
    }

    /// Trees of everything that refers to `subjects` and that the target lacks, subjects first. With `present` the target
    /// has the subjects and is asked for what it lists already; a referrer that it lists is taken to be complete, with
    /// what refers to it.
    async fn referrers(&mut self, subjects: Vec<Digest>, present: bool) -> Result<Vec<Tree>> {
        let mut trees = Vec::new();
        let mut subjects = subjects;
        for depth in 0.. {
            let mut links = Vec::new();
            for subject in &subjects {
                let listed = list_referrers(self.source.as_ref(), subject).await?;
                let there: BTreeSet<Digest> = if depth == 0 && present && !listed.is_empty() {
                    let listed = list_referrers(self.target.as_ref(), subject).await?;
                    listed.into_iter().map(|link| link.digest).collect()
                } else {
                    BTreeSet::new()
                };
                links.extend(
                    listed
                        .into_iter()
                        .filter(|link| !there.contains(&link.digest)),
                );
            }
            links.retain(|link| self.seen.insert(link.digest.clone()));
            if links.is_empty() {
                break;
            }
            if depth == REFERRERS_DEPTH_LIMIT {
                return Err(Error::limit(format!(
                    "referrers of referrers nest deeper than {REFERRERS_DEPTH_LIMIT} levels"
                )));
            }
            self.expect(links.iter().filter(|link| link.is_manifest()).count())?;
            subjects = Vec::new();
            for link in links {
                if !link.is_manifest() {
                    self.warnings.push(format!(
                        "referrer {} was left out: `{}` is not a manifest",
                        link.digest, link.media_type
                    ));
                    continue;
                }
                let root = self.read(&link).await?;
                let tree = self.walk(root).await?;
                subjects.push(link.digest);
                trees.push(tree);
            }
        }
        Ok(trees)
    }
}

/// Lists what refers to `subject`; a store that knows no referrers has none.
async fn list_referrers(store: &dyn ContentStore, subject: &Digest) -> Result<Vec<Descriptor>> {
    match store.referrers(subject).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::NotFound) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Reads a manifest by digest and checks that it is what the link says.
pub(crate) async fn read_manifest(
    store: &dyn ContentStore,
    link: &Descriptor,
) -> Result<RawManifest> {
    let fact = || format!("read manifest {} from {}", link.digest, store.location());
    if link.size > MANIFEST_LIMIT {
        return Err(Error::limit(format!(
            "manifest {} of {} bytes is larger than the {MANIFEST_LIMIT} bytes allowed",
            link.digest, link.size
        )));
    }
    let mut raw = store
        .manifest(&link.digest.to_string())
        .await
        .map_err(|error| error.context(fact()))?;
    // Stores verify; one that does not must not get through here either.
    if Digest::of(link.digest.algorithm(), &raw.bytes) != link.digest {
        return Err(Error::mismatch(format!(
            "manifest {} has other bytes than its digest says",
            link.digest
        ))
        .context(fact()));
    }
    // What comes after it believes the link: manifests that name it repeat the size.
    if raw.bytes.len() as u64 != link.size {
        return Err(Error::mismatch(format!(
            "manifest {} has {} bytes, the link to it says {}",
            link.digest,
            raw.bytes.len(),
            link.size
        ))
        .context(fact()));
    }
    raw.digest = link.digest.clone();
    if !media_type::is_manifest(&raw.media_type) {
        raw.media_type = link.media_type.clone();
    }
    Ok(raw)
}

/// Is this a layer that registries do not pass on (OCI image spec, layer.md "Non-Distributable Layers")?
pub(crate) fn is_foreign(link: &Descriptor) -> bool {
    link.urls.as_ref().is_some_and(|urls| !urls.is_empty())
        || link.media_type.contains(".nondistributable.")
        || link.media_type.contains(".rootfs.foreign.")
}

/// The content that a link carries itself, if it is what the link says (OCI image spec, descriptor.md `data`).
pub(crate) fn inline(link: &Descriptor) -> Option<Blob> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(link.data.as_ref()?)
        .ok()?;
    let right = bytes.len() as u64 == link.size
        && Digest::of(link.digest.algorithm(), &bytes) == link.digest;
    right.then(|| {
        Blob::from_bytes(link.media_type.clone(), bytes)
            .expect_content(link.digest.clone(), link.size)
    })
}

fn check_parts(composed: &Composed, template: &Manifest) -> Result<()> {
    let layers = template.layers.as_ref().map_or(0, Vec::len);
    let outside = |index: usize| {
        Error::invalid(format!(
            "manifest {} has {layers} layers, there is no layer {index}",
            composed.template.digest
        ))
    };
    if let Some(index) = composed.dropped.iter().find(|index| **index >= layers) {
        return Err(outside(*index));
    }
    for part in composed.replaced.keys() {
        match part {
            Part::Config if template.config.is_none() => {
                return Err(Error::invalid(format!(
                    "manifest {} has no config to replace",
                    composed.template.digest
                )));
            }
            Part::Layer(index) if *index >= layers => return Err(outside(*index)),
            Part::Layer(index) if composed.dropped.contains(index) => {
                return Err(Error::invalid(format!(
                    "layer {index} is both replaced and dropped"
                )));
            }
            Part::Config | Part::Layer(_) => {}
        }
    }
    Ok(())
}

/// A composed artifact with everything known: parts that can be read once only are spooled.
pub(crate) async fn complete(
    composed: &Composed,
    limits: &Arc<Limits>,
) -> Result<(RawManifest, Vec<Blob>)> {
    let template = composed.template.parse()?;
    check_parts(composed, &template)?;
    let mut items = Vec::new();
    for (part, blob) in &composed.replaced {
        items.push(Item {
            blob: spool(blob, limits).await?,
            part: Some(*part),
        });
    }
    let root = compose(composed, &items)?;
    Ok((root, items.into_iter().map(|item| item.blob).collect()))
}

/// The manifest over the template with the links of replaced parts changed and dropped layers gone. Where that changes
/// nothing, the template's bytes.
fn compose(composed: &Composed, items: &[Item]) -> Result<RawManifest> {
    let template = &composed.template;
    let mut document: Value = serde_json::from_slice(&template.bytes)
        .map_err(|error| Error::invalid(format!("manifest {}: {error}", template.digest)))?;
    let mut changed = !composed.dropped.is_empty();
    for item in items {
        let Some(part) = item
            .part
            .filter(|part| composed.replaced.contains_key(part))
        else {
            continue;
        };
        let link = match part {
            Part::Config => document.get_mut("config"),
            Part::Layer(index) => document
                .get_mut("layers")
                .and_then(|all| all.get_mut(index)),
        };
        let (Some(link), Some(descriptor)) =
            (link.and_then(Value::as_object_mut), item.blob.descriptor())
        else {
            return Err(Error::internal("a replaced part has no place or no digest"));
        };
        let digest = Value::from(descriptor.digest.to_string());
        if link.get("digest") == Some(&digest) {
            continue;
        }
        changed = true;
        link.insert("digest".to_owned(), digest);
        link.insert("size".to_owned(), descriptor.size.into());
        // Both are copies of the content that was replaced.
        link.shift_remove("data");
        link.shift_remove("urls");
    }
    if !changed {
        return Ok(template.clone());
    }
    if let Some(layers) = document.get_mut("layers").and_then(Value::as_array_mut) {
        let mut index = 0;
        layers.retain(|_| {
            index += 1;
            !composed.dropped.contains(&(index - 1))
        });
    }
    let json = ocm_specs::oci::escape_html(&document.to_string());
    Ok(RawManifest::new(template.media_type.clone(), json))
}

#[cfg(test)]
mod tests;
