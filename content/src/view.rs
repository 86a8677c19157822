//! A store seen through something: all is the store's own, but for the reads that a view changes.
//!
//! *Invariant*: every method of [`ContentStore`] is forwarded, those with a default too, or a store that knows better than the
//! default would be asked as if it did not.

use std::fmt::Debug;

use async_trait::async_trait;
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;

use crate::blob::Blob;
use crate::error::Result;
use crate::limits::Host;
use crate::store::{ContentStore, Pushed, RawManifest};

/// What a view changes of the store behind it.
#[async_trait]
pub(crate) trait StoreView: Debug + Send + Sync + 'static {
    /// The store behind.
    fn inner(&self) -> &dyn ContentStore;

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        self.inner().fetch(descriptor)
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        self.inner().manifest(reference).await
    }
}

/// The store that a view is.
#[derive(Debug)]
pub(crate) struct Viewed<V>(pub(crate) V);

#[async_trait]
impl<V: StoreView> ContentStore for Viewed<V> {
    fn location(&self) -> String {
        self.0.inner().location()
    }

    fn host(&self) -> Option<Host> {
        self.0.inner().host()
    }

    fn repository(&self) -> String {
        self.0.inner().repository()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        self.0.fetch(descriptor)
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.0.inner().exists(descriptor).await
    }

    async fn holds(&self, manifest: &Descriptor) -> Result<bool> {
        self.0.inner().holds(manifest).await
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        self.0.inner().blob_size(digest).await
    }

    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        self.0.inner().push(blob, mount_from).await
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        self.0.manifest(reference).await
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        self.0.inner().put_manifest(manifest, tag).await
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        self.0.inner().resolve(reference).await
    }

    async fn tags(&self) -> Result<Vec<String>> {
        self.0.inner().tags().await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.0.inner().referrers(subject).await
    }

    async fn untag(&self, tag: &str) -> Result<()> {
        self.0.inner().untag(tag).await
    }

    async fn delete(&self, descriptor: &Descriptor) -> Result<()> {
        self.0.inner().delete(descriptor).await
    }
}
