//! What the repositories of one run share.
//!
//! *Invariant*: all of it is a hint that saves work, but for what is kept of component versions that pass through: the bytes
//! of their descriptors, and whether they refer to the component index. A wrong or missing entry costs a request, never wrong
//! content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocm_content::{Content, ContentStore, Copier, Limits, RawManifest};
use ocm_specs::descriptor::{ComponentDescriptor, Encoded};
use ocm_specs::json::to_sorted;
use ocm_specs::oci::Descriptor;
use ocm_specs::{Digest, descriptor::Encoding};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::read::Parts;

/// Bytes of descriptors after which component versions that were read are forgotten, and read anew: 16 MiB.
const VERSIONS_LIMIT: usize = 16 << 20;

/// Bytes of root manifests after which they are forgotten but for their digests, and read anew by these: 16 MiB.
const ROOTS_LIMIT: usize = 16 << 20;

/// Most bytes of descriptors that are kept as they were read: 64 MiB.
const ORIGINALS_LIMIT: usize = 64 << 20;

/// Knowledge of one run, and the copier that its repositories use.
#[derive(Debug)]
pub struct Known {
    copier: Copier,
    limits: Arc<Limits>,
    component_index: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sizes: BTreeMap<Digest, u64>,
    present: BTreeMap<String, BTreeSet<Digest>>,
    /// Documents that were read, by their sorted form; with the bytes where these are another form.
    originals: BTreeMap<Digest, Option<Encoded>>,
    original_bytes: usize,
    /// By the store's location and the digest of the root.
    versions: BTreeMap<(String, Digest), Arc<OnceCell<Arc<Parts>>>>,
    version_bytes: usize,
    /// What the tags of component versions named when they were read first, by the store's location and the tag.
    roots: BTreeMap<(String, String), (Digest, Option<RawManifest>)>,
    root_bytes: usize,
    /// What tags of a target name, where that was looked up before the component version is written.
    tagged: BTreeMap<(String, String), Tagged>,
    /// Content that is to be brought to a store only when it turns out to be missed there.
    pending: BTreeMap<(String, Digest), Content>,
    /// Signed descriptors that were read, by component and version.
    signed: BTreeMap<(String, String), Vec<ComponentDescriptor>>,
    signed_bytes: usize,
    /// Component versions that were read as referrers of the component index.
    indexed: BTreeSet<(String, String)>,
}

/// What a tag names, or where it is put by the first to ask.
pub(super) type Tagged = Arc<OnceCell<Option<Descriptor>>>;

/// What is known about the root manifest behind a tag.
pub(super) enum KnownRoot {
    /// The manifest.
    Manifest(RawManifest),
    /// Its digest.
    Digest(Digest),
}

impl Known {
    /// Knows nothing yet.
    pub fn new(copier: Copier, limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            copier,
            limits,
            component_index: false,
            state: Mutex::default(),
        })
    }

    /// The same for a run that lets every component version it writes refer to the component index, and lists versions by
    /// that.
    pub fn with_component_index(copier: Copier, limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            copier,
            limits,
            component_index: true,
            state: Mutex::default(),
        })
    }

    /// Are versions listed by the component index?
    pub(super) fn lists_by_index(&self) -> bool {
        self.component_index
    }

    /// Does a component version refer to the component index when it is written? One that did where it was read does.
    pub(super) fn is_indexed(&self, component: &str, version: &str) -> bool {
        let key = (component.to_owned(), version.to_owned());
        self.component_index || self.lock().indexed.contains(&key)
    }

    /// A component version was read that refers to the component index.
    pub(super) fn note_indexed(&self, descriptor: &ComponentDescriptor) {
        let key = (
            descriptor.name().to_owned(),
            descriptor.version().to_owned(),
        );
        self.lock().indexed.insert(key);
    }

    /// The copier of the run.
    pub fn copier(&self) -> &Copier {
        &self.copier
    }

    /// The limits of the run.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The length in bytes of a blob or manifest that was read about or written in this run.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.lock().sizes.get(digest).copied()
    }

    /// A length that a manifest or an answer states. What was measured counts more.
    pub fn note_size(&self, digest: &Digest, size: u64) {
        self.lock().sizes.entry(digest.clone()).or_insert(size);
    }

    /// `store` has the content, and this is its length.
    pub(super) fn note_present(&self, store: &dyn ContentStore, digest: &Digest, size: u64) {
        let mut state = self.lock();
        state.sizes.insert(digest.clone(), size);
        state
            .present
            .entry(store.location())
            .or_default()
            .insert(digest.clone());
    }

    /// Was the content seen in `store` in this run?
    pub(super) fn is_present(&self, store: &dyn ContentStore, digest: &Digest) -> bool {
        self.lock()
            .present
            .get(&store.location())
            .is_some_and(|digests| digests.contains(digest))
    }

    /// Where the parts of a component version are, or are put by the first to read them. Who waits for another's reading
    /// takes over when that one fails or is dropped.
    pub(super) fn version(
        &self,
        store: &dyn ContentStore,
        root: &Digest,
    ) -> Arc<OnceCell<Arc<Parts>>> {
        let key = (store.location(), root.clone());
        self.lock().versions.entry(key).or_default().clone()
    }

    /// A component version was read whose descriptor has that many bytes.
    pub(super) fn count_version(&self, bytes: usize) {
        let mut state = self.lock();
        state.version_bytes += bytes;
        if state.version_bytes > VERSIONS_LIMIT {
            state.versions.clear();
            state.version_bytes = 0;
        }
    }

    /// Remembers that a descriptor was read, and the bytes it was read from where writing it anew would give others.
    pub(super) fn note_original(&self, descriptor: &ComponentDescriptor) {
        let Some(original) = descriptor.original() else {
            return;
        };
        let sorted = to_sorted(descriptor.document());
        let is_sorted = original.media_type == Encoding::Json.media_type()
            && *original.bytes == *sorted.as_bytes();
        let kept = (!is_sorted).then(|| original.clone());
        let mut state = self.lock();
        let signed = descriptor.signatures().next().is_some();
        if signed && state.signed_bytes + sorted.len() <= ORIGINALS_LIMIT {
            state.signed_bytes += sorted.len();
            let key = (
                descriptor.name().to_owned(),
                descriptor.version().to_owned(),
            );
            let known = state.signed.entry(key).or_default();
            if !known.contains(descriptor) {
                known.push(descriptor.clone());
            }
        }
        let bytes = kept.as_ref().map_or(0, |kept| kept.bytes.len());
        if state.original_bytes + bytes <= ORIGINALS_LIMIT {
            let before = state
                .originals
                .insert(Digest::sha256(sorted.as_bytes()), kept);
            let before = before.flatten().map_or(0, |kept| kept.bytes.len());
            state.original_bytes = state.original_bytes + bytes - before;
        }
    }

    /// The descriptor that was read in this run and is exactly this document, key order aside; with the bytes it was read
    /// from. `None` for documents that came into being some other way.
    pub fn as_read(&self, document: &Value) -> Option<ComponentDescriptor> {
        let key = Digest::sha256(to_sorted(document).as_bytes());
        let original = self.lock().originals.get(&key).cloned()?;
        match original {
            Some(kept) => ComponentDescriptor::decode(&kept.media_type, kept.bytes).ok(),
            None => ComponentDescriptor::from_value(document.clone()).ok(),
        }
    }

    /// The signed descriptors of a component version that were read in this run, wherever.
    pub fn signed(&self, component: &str, version: &str) -> Vec<ComponentDescriptor> {
        let key = (component.to_owned(), version.to_owned());
        self.lock().signed.get(&key).cloned().unwrap_or_default()
    }

    /// What a tag named when it was read first: one run sees one state of a component version, the one it has verified.
    pub(super) fn root(&self, store: &dyn ContentStore, tag: &str) -> Option<KnownRoot> {
        let key = (store.location(), tag.to_owned());
        let (digest, manifest) = self.lock().roots.get(&key).cloned()?;
        Some(manifest.map_or(KnownRoot::Digest(digest), KnownRoot::Manifest))
    }

    /// A tag was read.
    pub(super) fn note_root(&self, store: &dyn ContentStore, tag: &str, root: &RawManifest) {
        let mut state = self.lock();
        state.root_bytes += root.bytes.len();
        if state.root_bytes > ROOTS_LIMIT {
            state
                .roots
                .values_mut()
                .for_each(|(_, manifest)| *manifest = None);
            state.root_bytes = root.bytes.len();
        }
        state.roots.insert(
            (store.location(), tag.to_owned()),
            (root.digest.clone(), Some(root.clone())),
        );
    }

    /// A tag was written, or is not what it was.
    pub(super) fn forget_root(&self, store: &dyn ContentStore, tag: &str) {
        let key = (store.location(), tag.to_owned());
        self.lock().roots.remove(&key);
    }

    /// What a tag of a target names, where that was looked up already. It is forgotten with that.
    pub(super) fn take_tagged(
        &self,
        store: &dyn ContentStore,
        tag: &str,
    ) -> Option<Option<Descriptor>> {
        let key = (store.location(), tag.to_owned());
        self.lock().tagged.remove(&key)?.get().cloned()
    }

    /// Where it is kept what a tag of a target names: many steps ask before the component version is written.
    pub(super) fn tagged(&self, store: &dyn ContentStore, tag: &str) -> Tagged {
        let key = (store.location(), tag.to_owned());
        self.lock().tagged.entry(key).or_default().clone()
    }

    /// Content that goes to `store` if it is missed there.
    pub(super) fn defer(&self, store: &dyn ContentStore, digest: &Digest, content: Content) {
        let key = (store.location(), digest.clone());
        self.lock().pending.insert(key, content);
    }

    /// Content that was deferred; nobody else gets it.
    pub(super) fn take_deferred(
        &self,
        store: &dyn ContentStore,
        digest: &Digest,
    ) -> Option<Content> {
        let key = (store.location(), digest.clone());
        self.lock().pending.remove(&key)
    }

    /// Gives a descriptor that passed through the run as JSON the bytes back that it was read from.
    pub(super) fn restore_original(&self, descriptor: &ComponentDescriptor) -> ComponentDescriptor {
        let mut descriptor = descriptor.clone();
        if descriptor.original().is_none()
            && let Some(read) = self.as_read(descriptor.document())
        {
            descriptor.adopt_original(&read);
        }
        descriptor
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
