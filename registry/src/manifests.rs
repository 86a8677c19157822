//! Manifests, in and out (OCI distribution specification, "Pulling manifests", "Pushing manifests").
//!
//! *Invariant*: a manifest's bytes are passed on as they came; looking inside is only for checking them.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ocm_content::{ContentStore, RawManifest};
use ocm_specs::Digest;
use ocm_specs::media_type::{OCI_MANIFEST, OCTET_STREAM, is_manifest};
use ocm_specs::oci::{Descriptor, Manifest};

use crate::Registry;
use crate::failure::{Code, Failure, Outcome};
use crate::route::Reference;
use crate::router::{CONTENT_DIGEST, answer, text};
use crate::uploads::Incoming;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl Registry {
    pub(crate) async fn head_manifest(&self, name: &str, reference: &Reference) -> Outcome {
        let link = self.resolve(name, reference).await?;
        describe(&link, Body::empty())
    }

    pub(crate) async fn get_manifest(&self, name: &str, reference: &Reference) -> Outcome {
        let manifest = self
            .store(name)?
            .manifest(&as_text(reference)?)
            .await
            .map_err(|error| unreadable(&error))?;
        describe(&manifest.descriptor(), Body::from(manifest.bytes.clone()))
    }

    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        reference: &Reference,
        headers: &HeaderMap,
        body: Body,
    ) -> Outcome {
        if let Reference::Impossible(tag) = reference {
            let message = format!("`{}` is not a tag", tag.escape_debug());
            return Err(Failure::bad(Code::ManifestInvalid, message));
        }
        let bytes = self.read_manifest(body).await?;
        let document = Manifest::parse(&bytes)
            .map_err(|error| Failure::bad(Code::ManifestInvalid, error.to_string()))?;
        let (digest, tag) = match reference {
            Reference::Digest(digest) => (Digest::of(digest.algorithm(), &bytes), None),
            Reference::Tag(tag) | Reference::Impossible(tag) => {
                (Digest::sha256(&bytes), Some(tag.as_str()))
            }
        };
        if let Reference::Digest(expected) = reference
            && *expected != digest
        {
            let message = format!("the manifest has digest {digest}");
            return Err(Failure::bad(Code::DigestInvalid, message));
        }
        let manifest = RawManifest {
            media_type: media_type(headers, &document)?,
            digest,
            bytes,
        };
        let store = self.store(name)?;
        check_parts(store.as_ref(), &document).await?;
        store
            .put_manifest(&manifest, tag)
            .await
            .map_err(|error| Failure::of_store(&error, Code::ManifestBlobUnknown))?;
        created(name, tag, &manifest, &document)
    }

    /// Takes a tag away, or a manifest with all its tags.
    pub(crate) async fn delete_manifest(&self, name: &str, reference: &Reference) -> Outcome {
        let link = self.resolve(name, reference).await?;
        let store = self.store(name)?;
        let removed = match reference {
            Reference::Tag(tag) => store.untag(tag).await,
            _ => store.delete(&link).await,
        };
        removed.map_err(|error| Failure::of_store(&error, Code::ManifestUnknown))?;
        Ok(answer(StatusCode::ACCEPTED))
    }

    async fn resolve(&self, name: &str, reference: &Reference) -> Outcome<Descriptor> {
        self.store(name)?
            .resolve(&as_text(reference)?)
            .await
            .map_err(|error| unreadable(&error))
    }

    async fn read_manifest(&self, body: Body) -> Outcome<Bytes> {
        let limits = &self.config.limits;
        let mut body = Incoming::new(body, limits.stall);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await? {
            if (bytes.len() + chunk.len()) as u64 > limits.manifest_size {
                return Err(Failure::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Code::SizeInvalid,
                    format!("a manifest has at most {} bytes here", limits.manifest_size),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

fn as_text(reference: &Reference) -> Outcome<String> {
    match reference {
        Reference::Digest(digest) => Ok(digest.to_string()),
        Reference::Tag(tag) => Ok(tag.clone()),
        Reference::Impossible(_) => Err(Failure::not_found(
            Code::ManifestUnknown,
            "there is no such manifest here",
        )),
    }
}

/// A manifest that the store has and can't give is the store's fault, not the client's.
fn unreadable(error: &ocm_content::Error) -> Failure {
    match Failure::of_store(error, Code::ManifestUnknown) {
        failure if failure.status == StatusCode::BAD_REQUEST => Failure::internal(error),
        failure => failure,
    }
}

/// What the request says; it may not contradict the document.
fn media_type(headers: &HeaderMap, document: &Manifest) -> Outcome<String> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .filter(|value| !value.is_empty());
    let found = match (given, document.media_type.as_deref()) {
        (Some(given), Some(own)) if given != own => {
            let message = format!("`Content-Type` is `{given}`, the manifest says `{own}`");
            return Err(Failure::bad(Code::ManifestInvalid, message));
        }
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) => {
            let message = "neither `Content-Type` nor the manifest say what it is";
            return Err(Failure::bad(Code::ManifestInvalid, message));
        }
    };
    if !is_manifest(found) || document.schema_version != 2 {
        let message = format!(
            "no manifest or index of OCI or Docker: `{}`, schema version {}",
            found.escape_debug(),
            document.schema_version
        );
        return Err(Failure::bad(Code::ManifestInvalid, message));
    }
    Ok(found.to_owned())
}

/// Are all parts here? Parts with foreign places (`urls`) may be elsewhere, and a subject may come later.
async fn check_parts(store: &dyn ContentStore, document: &Manifest) -> Outcome<()> {
    let mut seen = BTreeSet::new();
    let blobs = document.blobs().map(|part| (part, OCTET_STREAM));
    let children = document.children().map(|part| {
        let known = is_manifest(&part.media_type);
        let media_type = if known {
            &part.media_type
        } else {
            OCI_MANIFEST
        };
        (part, media_type)
    });
    for (part, media_type) in blobs.chain(children) {
        let foreign = part.urls.as_ref().is_some_and(|urls| !urls.is_empty());
        if foreign || !seen.insert(&part.digest) {
            continue;
        }
        let link = Descriptor::new(media_type, part.digest.clone(), part.size);
        let exists = store
            .exists(&link)
            .await
            .map_err(|error| Failure::of_store(&error, Code::ManifestBlobUnknown))?;
        if !exists {
            return Err(Failure::not_found(
                Code::ManifestBlobUnknown,
                format!("{} is not here", part.digest),
            ));
        }
    }
    Ok(())
}

fn describe(link: &Descriptor, body: Body) -> Outcome<Response> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, text(&link.media_type)?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(link.size));
    headers.insert(CONTENT_DIGEST, text(&link.digest.to_string())?);
    Ok(response)
}

fn created(
    name: &str,
    tag: Option<&str>,
    manifest: &RawManifest,
    document: &Manifest,
) -> Outcome<Response> {
    let digest = manifest.digest.to_string();
    let mut response = answer(StatusCode::CREATED);
    let headers = response.headers_mut();
    let reference = tag.unwrap_or(&digest);
    headers.insert(
        LOCATION,
        text(&format!("/v2/{name}/manifests/{reference}"))?,
    );
    headers.insert(CONTENT_DIGEST, text(&digest)?);
    if let Some(subject) = &document.subject {
        headers.insert(SUBJECT, text(&subject.digest.to_string())?);
    }
    Ok(response)
}
