//! An artifact that is put together from blobs, wherever each of them is.
//!
//! *Invariant*: nothing is read to put it together. The manifest is what it is, and its parts are what it links to.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;

use crate::artifact::{Artifact, Stored};
use crate::blob::{Blob, ByteStream, Source};
use crate::error::{Error, Result};
use crate::store::{ContentStore, Pushed, RawManifest};

/// An artifact of one manifest and the blobs that it links to, known as `tag`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] when a blob has no digest or size yet, or the manifest is none;
/// [`crate::ErrorKind::NotFound`] when a part of it is not among the blobs.
pub fn assemble(
    manifest: RawManifest,
    blobs: impl IntoIterator<Item = Blob>,
    tag: Option<String>,
) -> Result<Artifact> {
    let mut parts = BTreeMap::new();
    for blob in blobs {
        let link = blob
            .descriptor()
            .ok_or_else(|| Error::invalid("a part of an artifact must have a digest and a size"))?;
        parts.insert(link.digest, blob);
    }
    let document = manifest.parse()?;
    for link in document
        .config
        .iter()
        .chain(document.layers.iter().flatten())
    {
        if !parts.contains_key(&link.digest) {
            return Err(Error::not_found(format!(
                "manifest {} links to {}, which is not there",
                manifest.digest, link.digest
            )));
        }
    }
    let root = manifest.descriptor();
    let store = Assembled {
        manifest,
        parts,
        tag: tag.clone(),
    };
    Ok(Artifact::Stored(Stored {
        root,
        store: Arc::new(store),
        tag,
    }))
}

/// Has no host of its own: each part knows whom reading it talks to.
#[derive(Debug)]
struct Assembled {
    manifest: RawManifest,
    parts: BTreeMap<Digest, Blob>,
    tag: Option<String>,
}

impl Assembled {
    fn missing(&self, what: &str) -> Error {
        Error::not_found(format!("{} has no {what}", self.location()))
    }

    fn read_only(&self) -> Error {
        Error::unsupported(format!("{} can be read only", self.location()))
    }
}

#[async_trait]
impl ContentStore for Assembled {
    fn location(&self) -> String {
        format!("assembled:{}", self.manifest.digest)
    }

    fn repository(&self) -> String {
        "assembled".to_owned()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        if descriptor.digest == self.manifest.digest {
            return Blob::from_bytes(descriptor.media_type.clone(), self.manifest.bytes.clone());
        }
        match self.parts.get(&descriptor.digest) {
            Some(blob) => {
                let mut blob = blob.clone();
                blob.media_type.clone_from(&descriptor.media_type);
                blob
            }
            None => {
                let missing = Missing(self.missing(&descriptor.digest.to_string()));
                Blob::described(descriptor, Arc::new(missing))
            }
        }
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let digest = &descriptor.digest;
        Ok(*digest == self.manifest.digest || self.parts.contains_key(digest))
    }

    async fn push(&self, _blob: &Blob, _mount_from: &[String]) -> Result<Pushed> {
        Err(self.read_only())
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        let is_tag = self.tag.as_deref() == Some(reference);
        if is_tag || reference == self.manifest.digest.to_string() {
            return Ok(self.manifest.clone());
        }
        Err(self.missing(&format!("manifest {reference}")))
    }

    async fn put_manifest(&self, _manifest: &RawManifest, _tag: Option<&str>) -> Result<()> {
        Err(self.read_only())
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        Ok(self.manifest(reference).await?.descriptor())
    }

    async fn tags(&self) -> Result<Vec<String>> {
        Ok(self.tag.iter().cloned().collect())
    }

    async fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}

#[derive(Debug)]
struct Missing(Error);

impl Source for Missing {
    fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let error = self.0.clone();
        Box::pin(async move { Err(error) })
    }
}

#[cfg(test)]
mod tests {
    use ocm_specs::oci::Manifest;

    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn parts_are_read_where_they_are() {
        let (config, layer) = (
            Blob::from_bytes("a/c", "{}"),
            Blob::from_bytes("a/l", "layer"),
        );
        let links = [&config, &layer].map(|blob| blob.descriptor().unwrap());
        let [config_link, layer_link] = links;
        let manifest = Manifest::image(config_link, vec![layer_link.clone()]);
        let raw = RawManifest::write(&manifest);
        let artifact = assemble(raw.clone(), [config.clone(), layer], Some("1".to_owned()));
        let Artifact::Stored(stored) = artifact.unwrap() else {
            panic!("its root is known");
        };
        assert_eq!(stored.root, raw.descriptor());
        assert_eq!(stored.store.resolve("1").await.unwrap(), raw.descriptor());
        let blob = stored.store.fetch(&layer_link);
        assert_eq!(blob.read(10).await.unwrap(), "layer");
        assert!(stored.store.exists(&layer_link).await.unwrap());
        for reference in ["2", "sha256:1"] {
            let error = stored.store.manifest(reference).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        assert!(stored.store.push(&config, &[]).await.is_err());

        let error = assemble(raw, [config], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
