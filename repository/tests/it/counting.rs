//! Stores that count what they are asked.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use ocm_content::{Blob, ContentStore, Pushed, RawManifest, Result, Staging, Stores};
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;

/// The calls, in order, by name.
pub(crate) type Calls = Arc<Mutex<Vec<&'static str>>>;

/// Passes everything on and writes it down.
#[derive(Debug)]
pub(crate) struct Counting<T: ?Sized> {
    pub(crate) calls: Calls,
    pub(crate) inner: Arc<T>,
}

impl<T: ?Sized> Counting<T> {
    fn note(&self, call: &'static str) {
        self.calls.lock().expect("no panic").push(call);
    }
}

#[async_trait]
impl Stores for Counting<dyn Stores> {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        Ok(Arc::new(Counting {
            calls: self.calls.clone(),
            inner: self.inner.store(repository)?,
        }))
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        self.note("repositories");
        self.inner.repositories().await
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        self.note("stage");
        self.inner.stage().await
    }
}

#[async_trait]
impl ContentStore for Counting<dyn ContentStore> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn repository(&self) -> String {
        self.inner.repository()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        self.note("fetch");
        self.inner.fetch(descriptor)
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.note("exists");
        self.inner.exists(descriptor).await
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        self.note("blob_size");
        self.inner.blob_size(digest).await
    }

    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        self.note("push");
        self.inner.push(blob, mount_from).await
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        self.note("manifest");
        self.inner.manifest(reference).await
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        self.note("put_manifest");
        self.inner.put_manifest(manifest, tag).await
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        self.note("resolve");
        self.inner.resolve(reference).await
    }

    async fn tags(&self) -> Result<Vec<String>> {
        self.note("tags");
        self.inner.tags().await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.note("referrers");
        self.inner.referrers(subject).await
    }
}
