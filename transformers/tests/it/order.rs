//! Component versions become visible after those they reference.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ocm_content::{Blob, ContentStore, MemoryStores, Pushed, RawManifest, Result, Staging, Stores};
use ocm_engine::Status;
use ocm_repository::{Session, SessionConfig};
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;
use serde_json::{Value as Json, json};

use crate::support::run;

/// Writes down which tags are put, in order.
#[derive(Debug)]
struct Watched<T: ?Sized> {
    tags: Arc<Mutex<Vec<String>>>,
    inner: Arc<T>,
}

#[async_trait]
impl Stores for Watched<dyn Stores> {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        let inner = self.inner.store(repository)?;
        let tags = self.tags.clone();
        Ok(Arc::new(Watched { tags, inner }))
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        self.inner.repositories().await
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        self.inner.stage().await
    }
}

#[async_trait]
impl ContentStore for Watched<dyn ContentStore> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn repository(&self) -> String {
        self.inner.repository()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        self.inner.fetch(descriptor)
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.inner.exists(descriptor).await
    }

    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        self.inner.push(blob, mount_from).await
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        self.inner.manifest(reference).await
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        if let Some(tag) = tag {
            let name = self.repository();
            let name = name.rsplit('/').next().unwrap_or_default();
            self.tags
                .lock()
                .expect("no panic")
                .push(format!("{name}:{tag}"));
        }
        self.inner.put_manifest(manifest, tag).await
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        self.inner.resolve(reference).await
    }

    async fn tags(&self) -> Result<Vec<String>> {
        self.inner.tags().await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.inner.referrers(subject).await
    }
}

fn component(name: &str, references: &[&str]) -> Json {
    let references: Vec<Json> = references
        .iter()
        .map(|name| json!({"name": name, "version": "1", "componentName": format!("acme.org/{name}")}))
        .collect();
    json!({"meta": {"schemaVersion": "v2"}, "component": {
        "name": format!("acme.org/{name}"), "version": "1", "provider": "acme.org", "repositoryContexts": [],
        "resources": [], "sources": [], "componentReferences": references,
    }})
}

#[tokio::test]
async fn children_come_first_however_their_repository_is_spelled() {
    for [parent, child, grandchild] in [
        ["reg.example", "reg.example", "reg.example"],
        ["http://reg.example", "reg.example", "REG.example"],
        [
            "https://reg.example:443",
            "oci://reg.example",
            "reg.example",
        ],
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let session = Session::new(SessionConfig::new(folder.path())).expect("a session");
        let watched = Arc::new(Watched {
            tags: Arc::default(),
            inner: Arc::new(MemoryStores::new()) as Arc<dyn Stores>,
        });
        for name in ["reg.example", "REG.example", "reg.example:443"] {
            session.register(name, watched.clone());
        }
        let upload = |id: &str, place: &str, descriptor: Json| {
            json!({"id": id, "type": "uploader.component.oci/v1alpha1",
                "spec": {"baseUrl": place, "subPath": "x", "componentDescriptor": descriptor}})
        };
        let spec = json!({"transformations": [
            upload("a", parent, component("parent", &["child", "elsewhere"])),
            upload("b", child, component("child", &["grandchild"])),
            upload("c", grandchild, component("grandchild", &[])),
        ]});
        let (result, _) = run(&session, &spec.to_string()).await;
        assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
        let tags = watched.tags.lock().expect("no panic").clone();
        assert_eq!(tags, ["grandchild:1", "child:1", "parent:1"], "{parent}");
    }
}
