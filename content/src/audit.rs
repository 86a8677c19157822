//! Is everything there, and is it right? Every part of an artifact looked at, each with a state of its own.
//!
//! *Invariants:* a part counts as right only when its bytes were read and hashed; a part that is wrong keeps no other from
//! being looked at; nothing is kept but what is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use ocm_specs::oci::Descriptor;
use ocm_specs::{Digest, Hasher};
use serde::Serialize;

use crate::artifact::{Artifact, Content};
use crate::blob::Blob;
use crate::copy::is_foreign;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::store::ContentStore;

/// Most manifests and blobs of one artifact.
const PARTS_LIMIT: usize = 100_000;

/// What came of looking at one blob or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PartState {
    /// All bytes are there and have the digest.
    Ok,
    /// There is no such blob.
    Missing,
    /// It has another length than its link says.
    Size,
    /// Its bytes have another digest.
    Digest,
    /// It could not be read.
    Unreadable,
}

impl PartState {
    /// The state as reports spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Size => "size",
            Self::Digest => "digest",
            Self::Unreadable => "unreadable",
        }
    }

    /// What reading came to, when it came to an error.
    fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::Mismatch => Self::Digest,
            _ => Self::Unreadable,
        }
    }
}

/// One blob or manifest that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartCheck {
    /// Its digest, as far as it is known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes, as its link says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What came of it.
    pub state: PartState,
    /// Why it is not fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Looks at every part of some content, manifests before what they name. Layers that may stay elsewhere (`urls`) and are
/// not here are passed over.
///
/// # Errors
/// [`ErrorKind::Limit`] for more than 100,000 parts. What is wrong with a part is part of the result.
pub async fn audit(content: &Content, limits: &Arc<Limits>) -> Result<Vec<PartCheck>> {
    match content {
        Content::Blob(blob) => Ok(vec![audit_blob(blob, limits).await]),
        Content::Artifact(Artifact::Stored(stored)) => {
            audit_artifact(&stored.root, &stored.store, limits).await
        }
        Content::Artifact(Artifact::Composed(_)) => Err(Error::unsupported(
            "an artifact that is being made has no parts yet",
        )),
    }
}

async fn audit_artifact(
    root: &Descriptor,
    store: &Arc<dyn ContentStore>,
    limits: &Arc<Limits>,
) -> Result<Vec<PartCheck>> {
    let mut parts = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![root.clone()];
    while let Some(link) = open.pop() {
        if !seen.insert(link.digest.clone()) {
            continue;
        }
        if seen.len() > PARTS_LIMIT {
            return Err(Error::limit(format!(
                "more than {PARTS_LIMIT} parts of one artifact"
            )));
        }
        if !link.is_manifest() {
            let part = audit_blob(&store.fetch(&link), limits).await;
            if part.state != PartState::Missing || !is_foreign(&link) {
                parts.push(part);
            }
            continue;
        }
        let (part, children) = audit_manifest(&link, store).await;
        parts.push(part);
        // The last one is looked at next: turned around, so that the order is the document's.
        open.extend(children.into_iter().rev());
    }
    Ok(parts)
}

/// Looks at a manifest and tells what it names.
async fn audit_manifest(
    link: &Descriptor,
    store: &Arc<dyn ContentStore>,
) -> (PartCheck, Vec<Descriptor>) {
    let mut part = PartCheck {
        digest: Some(link.digest.clone()),
        media_type: link.media_type.clone(),
        size: Some(link.size),
        state: PartState::Ok,
        reason: None,
    };
    let read = async {
        let raw = store.manifest(&link.digest.to_string()).await?;
        Ok::<_, Error>((raw.bytes.len() as u64, raw.parse()?))
    };
    match read.await {
        Ok((size, manifest)) => {
            if size != link.size {
                part.state = PartState::Size;
                part.reason = Some(format!("{size} bytes, expected {}", link.size));
            }
            let named = manifest.blobs().chain(manifest.children());
            (part, named.cloned().collect())
        }
        Err(error) => {
            part.state = PartState::of(&error);
            part.reason = Some(error.to_string());
            (part, Vec::new())
        }
    }
}

/// Reads a blob to its end.
async fn audit_blob(blob: &Blob, limits: &Arc<Limits>) -> PartCheck {
    let mut part = PartCheck {
        digest: blob.digest.clone(),
        media_type: blob.media_type.clone(),
        size: blob.size,
        state: PartState::Ok,
        reason: None,
    };
    if let Err((state, reason)) = read(blob, limits).await {
        part.state = state;
        part.reason = Some(reason);
    }
    part
}

/// Counts and hashes by itself: the stream's own check does not tell a wrong length from wrong bytes.
async fn read(blob: &Blob, limits: &Arc<Limits>) -> Result<(), (PartState, String)> {
    let _slots = limits.transfer(&blob.hosts()).await;
    let failed = |error: Error| (PartState::of(&error), error.to_string());
    let mut stream = blob.open_at(0).await.map_err(failed)?;
    let mut hasher = blob.digest.as_ref().map(|it| Hasher::new(it.algorithm()));
    let mut seen = 0;
    let is_short = |seen: u64| blob.size.is_some_and(|size| seen != size);
    let wrong_size = |seen: u64| {
        let expected = blob.size.unwrap_or_default();
        (
            PartState::Size,
            format!("{seen} bytes, expected {expected}"),
        )
    };
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            // A file that is shorter than it should be ends in an error of its own.
            Err(error) if error.kind() == ErrorKind::Mismatch && is_short(seen) => {
                return Err(wrong_size(seen));
            }
            Err(error) => return Err(failed(error)),
        };
        seen += chunk.len() as u64;
        if blob.size.is_some_and(|size| seen > size) {
            return Err((
                PartState::Size,
                format!(
                    "more than the {} bytes expected",
                    blob.size.unwrap_or_default()
                ),
            ));
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
    }
    if is_short(seen) {
        return Err(wrong_size(seen));
    }
    match (&blob.digest, hasher.map(Hasher::finish)) {
        (Some(expected), Some(found)) if *expected != found => Err((
            PartState::Digest,
            format!("its bytes have the digest {found}"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ocm_specs::media_type::{OCI_CONFIG, OCI_LAYER_TAR};
    use ocm_specs::oci::Manifest;

    use super::*;
    use crate::artifact::Stored;
    use crate::memory::MemoryStores;
    use crate::store::{RawManifest, Stores};

    fn limits() -> Arc<Limits> {
        Limits::new(crate::limits::LimitsConfig::default())
    }

    #[tokio::test]
    async fn every_part_has_its_state() {
        let store = MemoryStores::new().store("acme/x").expect("store");
        let config = Blob::from_bytes(OCI_CONFIG, "{}");
        let config = store.push(&config, &[]).await.expect("push").descriptor;
        let right = Blob::from_bytes(OCI_LAYER_TAR, "right");
        let right = store.push(&right, &[]).await.expect("push").descriptor;
        let missing = Descriptor::new(OCI_LAYER_TAR, Digest::sha256(b"missing"), 7);
        let mut long = right.clone();
        long.size = 9;
        let mut foreign = Descriptor::new(OCI_LAYER_TAR, Digest::sha256(b"foreign"), 7);
        foreign.urls = Some(vec!["https://layers.example/x".to_owned()]);
        for (layers, expected) in [
            (vec![right.clone()], vec!["ok", "ok", "ok"]),
            (
                vec![right.clone(), missing],
                vec!["ok", "ok", "ok", "missing"],
            ),
            (vec![long], vec!["ok", "ok", "size"]),
            (vec![foreign], vec!["ok", "ok"]),
        ] {
            let manifest = RawManifest::write(&Manifest::image(config.clone(), layers));
            let artifact = stored_unchecked(&store, &manifest).await;
            let parts = audit(&artifact, &limits()).await.expect("audit");
            let states: Vec<_> = parts.iter().map(|part| part.state.as_str()).collect();
            assert_eq!(states, expected, "{parts:?}");
        }
    }

    /// Puts the parts that are missing there for as long as the manifest is written, since stores check.
    async fn stored_unchecked(store: &Arc<dyn ContentStore>, manifest: &RawManifest) -> Content {
        let link = manifest.descriptor();
        let shelf = OneManifest(manifest.clone(), store.clone());
        Content::Artifact(Artifact::Stored(Stored {
            root: link,
            store: Arc::new(shelf),
            tag: None,
        }))
    }

    /// A store whose manifest names what it has not.
    #[derive(Debug)]
    struct OneManifest(RawManifest, Arc<dyn ContentStore>);

    #[async_trait::async_trait]
    impl ContentStore for OneManifest {
        fn location(&self) -> String {
            "memory".to_owned()
        }

        fn repository(&self) -> String {
            self.1.repository()
        }

        fn fetch(&self, descriptor: &Descriptor) -> Blob {
            self.1.fetch(descriptor)
        }

        async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
            self.1.exists(descriptor).await
        }

        async fn push(&self, blob: &Blob, from: &[String]) -> Result<crate::store::Pushed> {
            self.1.push(blob, from).await
        }

        async fn manifest(&self, _: &str) -> Result<RawManifest> {
            Ok(self.0.clone())
        }

        async fn put_manifest(&self, _: &RawManifest, _: Option<&str>) -> Result<()> {
            Err(Error::unsupported("read-only"))
        }

        async fn resolve(&self, _: &str) -> Result<Descriptor> {
            Ok(self.0.descriptor())
        }

        async fn tags(&self) -> Result<Vec<String>> {
            Ok(Vec::new())
        }

        async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
            Ok(Vec::new())
        }
    }

    #[derive(Debug)]
    struct Bytes(&'static str);

    impl crate::blob::Source for Bytes {
        fn open(
            &self,
            _: u64,
        ) -> futures::future::BoxFuture<'static, Result<crate::blob::ByteStream>> {
            let chunk = bytes::Bytes::from_static(self.0.as_bytes());
            Box::pin(async move {
                Ok(Box::pin(futures::stream::iter([Ok(chunk)])) as crate::blob::ByteStream)
            })
        }
    }

    #[tokio::test]
    async fn wrong_bytes_are_told_from_a_wrong_length() {
        for (served, expected) in [
            ("right", "ok"),
            ("wrong", "digest"),
            ("righ", "size"),
            ("right!", "size"),
        ] {
            let blob = Blob::new("text/plain", Arc::new(Bytes(served)))
                .expect_content(Digest::sha256(b"right"), 5);
            let parts = audit(&Content::Blob(blob), &limits()).await.expect("audit");
            assert_eq!(parts[0].state.as_str(), expected, "{served}: {parts:?}");
        }
    }
}
