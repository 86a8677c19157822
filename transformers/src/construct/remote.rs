//! Content that is somewhere else, and its digest.

use futures::{FutureExt, StreamExt};
use ocm_content::{Artifact, Blob, Content, Error, open_archive};
use ocm_repository::Session;
use ocm_specs::access::Access;
use ocm_specs::descriptor::DigestSpec;
use ocm_specs::media_type::{OCTET_STREAM, is_artifact_archive};
use ocm_specs::oci::Descriptor;
use ocm_specs::reference::OciReference;
use ocm_specs::{Algorithm, Digest, Hasher};
use serde_json::Value as Json;

/// The content that an access specification names. Lazy: at most a look-up.
///
/// # Errors
/// What looking gives; [`ocm_content::ErrorKind::Unsupported`] for access types that are not read here.
pub(super) async fn content(session: &Session, access: &Json) -> Result<Content, Error> {
    match parse(access)? {
        Access::OciArtifact { image_reference } => {
            session.artifact(image_reference).await.map(Content::from)
        }
        Access::OciBlob(blob) => {
            let reference: OciReference = blob.reference.parse().map_err(invalid)?;
            let digest: Digest = blob.digest.parse().map_err(invalid)?;
            let store = session.oci_store(&reference)?;
            // Asked even where the size is stated: the blob must be there.
            let size = store.blob_size(&digest).await?;
            let link = Descriptor::new(blob.media_type.unwrap_or(OCTET_STREAM), digest, size);
            Ok(store.fetch(&link).into())
        }
        Access::Other { .. } => session.remote_content(access, None).boxed().await,
        _ => Err(Error::unsupported(
            "it has no content outside of the component version",
        )),
    }
}

/// The digest of content, and the root manifest where it is an artifact.
pub(super) async fn digest(
    session: &Session,
    content: &Content,
    hash: Algorithm,
) -> Result<(DigestSpec, Option<Descriptor>), Error> {
    let opened;
    let artifact = match content {
        Content::Artifact(artifact) => artifact,
        Content::Blob(blob) if is_artifact_archive(&blob.media_type) => {
            opened = open_archive(blob, session.limits()).await?;
            &opened
        }
        Content::Blob(blob) => {
            let known = blob
                .digest
                .clone()
                .filter(|digest| digest.algorithm() == hash);
            let digest = match known {
                Some(digest) => digest,
                None => read(session, blob, hash).await?,
            };
            return Ok((DigestSpec::new(&digest, false), None));
        }
    };
    let root = root(artifact)?;
    if root.digest.algorithm() != hash {
        return Err(Error::unsupported(format!(
            "its manifest is addressed by {}, not by {}",
            root.digest.algorithm().ocm_name(),
            hash.ocm_name()
        )));
    }
    Ok((DigestSpec::new(&root.digest, true), Some(root.clone())))
}

/// The root of an artifact that lies somewhere.
pub(super) fn root(artifact: &Artifact) -> Result<&Descriptor, Error> {
    artifact
        .root()
        .ok_or_else(|| Error::internal("an artifact that was taken in has no root"))
}

async fn read(session: &Session, blob: &Blob, hash: Algorithm) -> Result<Digest, Error> {
    let _slots = session.limits().transfer(&blob.hosts()).await;
    let mut hasher = Hasher::new(hash);
    let mut stream = blob.open().await?;
    while let Some(chunk) = stream.next().await {
        hasher.update(&chunk?);
    }
    Ok(hasher.finish())
}

/// A typed look at an access specification.
pub(super) fn parse(access: &Json) -> Result<Access<'_>, Error> {
    Access::parse(access).map_err(invalid)
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::invalid(error.to_string())
}
