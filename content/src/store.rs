//! Anything addressable by digest: an OCI repository, a repository in a CTF, memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use ocm_specs::Digest;
use ocm_specs::media_type::{OCI_INDEX, OCI_MANIFEST, is_manifest};
use ocm_specs::oci::{Descriptor, Manifest};

use crate::blob::Blob;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::limits::Host;

/// Largest manifest or index that is read: 4 MiB, what the OCI distribution spec asks registries to accept at least.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// A manifest or an index as the bytes it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct RawManifest {
    /// Its media type.
    pub media_type: String,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The document, never re-encoded.
    pub bytes: Bytes,
}

impl RawManifest {
    /// Takes the bytes as they are and computes their SHA-256.
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            media_type: media_type.into(),
            digest: Digest::sha256(&bytes),
            bytes,
        }
    }

    /// Writes a document that this program made.
    pub fn write(manifest: &Manifest) -> Self {
        let media_type = manifest
            .media_type
            .clone()
            .unwrap_or_else(|| ocm_specs::media_type::OCI_MANIFEST.to_owned());
        Self::new(media_type, manifest.to_bytes())
    }

    /// Takes a document that came from elsewhere: finds out its media type from what is `announced` of it and what it says
    /// itself. Two readers must not see two things in one document (OCI image spec, "Compatibility matrix").
    ///
    /// # Errors
    /// [`crate::ErrorKind::Mismatch`] when both contradict each other, [`crate::ErrorKind::Invalid`] for what is no manifest
    /// or manifest and index in one or says two things of one digest, [`crate::ErrorKind::Unsupported`] for other schema versions and media types.
    pub fn identified(mut self, announced: Option<&str>) -> Result<Self> {
        let document = self.parse()?;
        if document.schema_version != 2 {
            return Err(Error::unsupported(format!(
                "manifest {}: its schema version is {}, and 2 is what can be read",
                self.digest, document.schema_version
            )));
        }
        if document.manifests.is_some() && (document.config.is_some() || document.layers.is_some())
        {
            return Err(Error::invalid(format!(
                "manifest {} is manifest and index in one: it has both layers and manifests",
                self.digest
            )));
        }
        self.check_links(&document)?;
        let shown = |text: &str| {
            text.chars()
                .take(100)
                .flat_map(char::escape_debug)
                .collect::<String>()
        };
        let announced = announced.filter(|announced| is_manifest(announced));
        self.media_type = match (announced, document.media_type) {
            (Some(announced), Some(inside)) if announced != inside => {
                return Err(Error::mismatch(format!(
                    "manifest {}: the place it came from calls it {announced}, the document itself {}",
                    self.digest,
                    shown(&inside)
                )));
            }
            (Some(announced), _) => announced.to_owned(),
            (None, Some(inside)) if is_manifest(&inside) => inside,
            (None, Some(inside)) => {
                return Err(Error::unsupported(format!(
                    "manifest {}: its media type {} is none of a manifest",
                    self.digest,
                    shown(&inside)
                )));
            }
            (None, None) if document.manifests.is_some() => OCI_INDEX.to_owned(),
            (None, None) => OCI_MANIFEST.to_owned(),
        };
        Ok(self)
    }

    /// One digest has one size, and one media type where it is a manifest's.
    fn check_links(&self, document: &Manifest) -> Result<()> {
        let mut known: BTreeMap<&Digest, &Descriptor> = BTreeMap::new();
        for link in document.children().chain(document.blobs()) {
            let Some(other) = known.insert(&link.digest, link) else {
                continue;
            };
            let manifest = link.is_manifest() || other.is_manifest();
            if link.size != other.size || (manifest && link.media_type != other.media_type) {
                return Err(Error::invalid(format!(
                    "manifest {} says two things of {}: {} bytes of {} and {} bytes of {}",
                    self.digest,
                    link.digest,
                    other.size,
                    other.media_type.escape_debug(),
                    link.size,
                    link.media_type.escape_debug()
                )));
            }
        }
        Ok(())
    }

    /// The link to it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(
            self.media_type.clone(),
            self.digest.clone(),
            self.bytes.len() as u64,
        )
    }

    /// A look inside.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] when the bytes are no manifest.
    pub fn parse(&self) -> Result<Manifest> {
        Manifest::parse(&self.bytes)
            .map_err(|error| Error::invalid(format!("manifest {}: {error}", self.digest)))
    }
}

/// What a push came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes were sent.
    Sent,
    /// The target had them already.
    Present,
    /// The target took them over from another of its repositories.
    Mounted,
}

/// The result of a push: the link to what is there now, and how it got there.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// How it got there.
    pub outcome: Outcome,
}

/// One repository of content addressed by digest, with names (tags) for some of it.
///
/// Implementors owe: every method may be called concurrently and dropped at any await point without harm; nothing
/// becomes visible under a name before it is complete; `push` and `put_manifest` may be repeated freely; what is read is
/// bounded ([`MANIFEST_LIMIT`], and a bound on the number of listed entries). The module `conformance` is the contract as code.
#[async_trait]
pub trait ContentStore: Debug + Send + Sync + 'static {
    /// Canonical text for the place: equal for equal places, without secrets (`oci://ghcr.io/acme/x`, `ctf:///abs/dir//acme/x`).
    fn location(&self) -> String;

    /// The host that requests go to; `None` for memory and files.
    fn host(&self) -> Option<Host> {
        None
    }

    /// The name of the repository at its host, as a mount names it (`acme/x`).
    fn repository(&self) -> String;

    /// A handle to a blob. Lazy: no I/O before it is opened.
    fn fetch(&self, descriptor: &Descriptor) -> Blob;

    /// Is the blob or manifest there?
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Is the manifest there, and was it put into this repository? Where repositories share their blobs it may be there for
    /// the sake of another one only: then it does not count as this one's, and what refers to it is not here either.
    async fn holds(&self, manifest: &Descriptor) -> Result<bool> {
        self.exists(manifest).await
    }

    /// The length in bytes of a blob that is here. This reads it and counts; a store that can tell without reading does.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not here.
    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let descriptor = Descriptor::new(ocm_specs::media_type::OCTET_STREAM, digest.clone(), 0);
        let mut stream = self.fetch(&descriptor).open_at(0).await?;
        let mut size = 0;
        while let Some(chunk) = stream.next().await {
            size += chunk?.len() as u64;
        }
        Ok(size)
    }

    /// Brings a blob here unless it is here. Looks first, reads `blob` only when bytes must flow. `mount_from` names
    /// repositories of the same host that are known to have it. Verifies: an unknown digest is computed on the way. Counts
    /// in [`crate::Meter`] what it came to: bytes sent, a blob mounted, a blob skipped.
    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed>;

    /// Reads a manifest by tag or digest; the digest is verified.
    async fn manifest(&self, reference: &str) -> Result<RawManifest>;

    /// Writes a manifest, all parts of which are here, under its digest and, if given, under `tag` (which moves).
    /// A manifest with a subject becomes a referrer of it.
    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()>;

    /// The link behind a tag or digest, without reading the document.
    async fn resolve(&self, reference: &str) -> Result<Descriptor>;

    /// All tags, sorted.
    async fn tags(&self) -> Result<Vec<String>>;

    /// Manifests that refer to `subject`, in the order the store lists them.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;

    /// Takes a tag away, leaving the manifest.
    async fn untag(&self, tag: &str) -> Result<()> {
        Err(Error::unsupported(format!(
            "{} can't remove the tag `{tag}`",
            self.location()
        )))
    }

    /// Removes a manifest (with its tags) or a blob.
    async fn delete(&self, descriptor: &Descriptor) -> Result<()> {
        Err(Error::unsupported(format!(
            "{} can't delete {}",
            self.location(),
            descriptor.digest
        )))
    }
}

/// A place with many repositories that share blobs: a registry's data, a CTF, memory.
#[async_trait]
pub trait Stores: Debug + Send + Sync + 'static {
    /// The repository of that name; it need not exist yet. Names are checked by the OCI grammar.
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>>;

    /// Names of all repositories that have content, sorted.
    async fn repositories(&self) -> Result<Vec<String>>;

    /// Starts taking a blob whose digest is not known yet.
    async fn stage(&self) -> Result<Box<dyn Staging>>;

    /// May anything be written here?
    fn writable(&self) -> bool {
        true
    }
}

/// A blob on its way in, piece by piece. Dropping it forgets the bytes.
#[async_trait]
pub trait Staging: Send + Debug {
    /// Appends.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Bytes so far.
    fn len(&self) -> u64;

    /// Is nothing written yet?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the blob visible in `repository` if it hashes to `digest`; [`crate::ErrorKind::Mismatch`] otherwise.
    async fn commit(self: Box<Self>, repository: &str, digest: &Digest) -> Result<()>;
}
