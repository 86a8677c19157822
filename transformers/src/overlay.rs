//! A store with a few manifests on top: what a changed manifest over unchanged blobs is.
//!
//! Invariant: nothing below is written, and every blob is still read from where it lies.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use ocm_content::{Blob, ContentStore, Error, Host, Pushed, RawManifest};
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;

/// `base` and, in front of it, manifests that were made from its own.
#[derive(Debug)]
pub(crate) struct Overlay {
    base: Arc<dyn ContentStore>,
    manifests: BTreeMap<Digest, RawManifest>,
}

impl Overlay {
    /// Puts `manifests` in front of `base`.
    pub(crate) fn new(
        base: Arc<dyn ContentStore>,
        manifests: impl IntoIterator<Item = RawManifest>,
    ) -> Arc<Self> {
        let manifests = manifests
            .into_iter()
            .map(|raw| (raw.digest.clone(), raw))
            .collect();
        Arc::new(Self { base, manifests })
    }

    fn own(&self, reference: &str) -> Option<&RawManifest> {
        self.manifests.get(&reference.parse::<Digest>().ok()?)
    }

    fn read_only(&self) -> Error {
        Error::unsupported(format!("{} can't be written to", self.location()))
    }
}

#[async_trait]
impl ContentStore for Overlay {
    /// Differs from the base's: what is in front is not there.
    fn location(&self) -> String {
        let digests: Vec<String> = self.manifests.keys().map(ToString::to_string).collect();
        format!("{}+{}", self.base.location(), digests.join("+"))
    }

    fn host(&self) -> Option<Host> {
        self.base.host()
    }

    fn repository(&self) -> String {
        self.base.repository()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        match self.manifests.get(&descriptor.digest) {
            Some(raw) => Blob::from_bytes(raw.media_type.clone(), raw.bytes.clone()),
            None => self.base.fetch(descriptor),
        }
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        if self.manifests.contains_key(&descriptor.digest) {
            return Ok(true);
        }
        self.base.exists(descriptor).await
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64, Error> {
        self.base.blob_size(digest).await
    }

    async fn push(&self, _: &Blob, _: &[String]) -> Result<Pushed, Error> {
        Err(self.read_only())
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest, Error> {
        match self.own(reference) {
            Some(raw) => Ok(raw.clone()),
            None => self.base.manifest(reference).await,
        }
    }

    async fn put_manifest(&self, _: &RawManifest, _: Option<&str>) -> Result<(), Error> {
        Err(self.read_only())
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor, Error> {
        match self.own(reference) {
            Some(raw) => Ok(raw.descriptor()),
            None => self.base.resolve(reference).await,
        }
    }

    async fn tags(&self) -> Result<Vec<String>, Error> {
        self.base.tags().await
    }

    /// Nothing refers to a manifest that is new.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        if self.manifests.contains_key(subject) {
            return Ok(Vec::new());
        }
        self.base.referrers(subject).await
    }
}
