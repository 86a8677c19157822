//! What a store that can only be read owes: opened archives, component archives.

use std::collections::BTreeSet;

use bytes::Bytes;
use ocm_specs::Digest;
use ocm_specs::media_type::{OCI_LAYER_TAR, OCTET_STREAM};
use ocm_specs::oci::Descriptor;

use super::{Check, OrFail, Probe, Store, collect, ensure, refused, report, same};
use crate::blob::Blob;
use crate::error::ErrorKind;
use crate::store::RawManifest;

/// Runs every check that a store must pass that has content and takes none: everything below its tags is read, and writing
/// is refused without a look at what was to be written. Gives the number of manifests and blobs that were read.
///
/// # Panics
/// With the finding of each check that failed.
pub async fn check_readable(store: Store<'_>) -> usize {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, result) in [
        (
            "tags_lead_to_content",
            tags_lead_to_content(store, &mut seen).await,
        ),
        (
            "what_is_missing_is_not_found",
            what_is_missing_is_not_found(store).await,
        ),
        ("writing_is_refused", writing_is_refused(store).await),
    ] {
        if let Err(finding) = result {
            findings.push(format!("{name} on {}: {finding}", store.location()));
        }
    }
    report(&findings);
    seen.len()
}

async fn tags_lead_to_content(store: Store<'_>, seen: &mut BTreeSet<Digest>) -> Check {
    let tags = store.tags().await.or_fail("list tags")?;
    ensure(
        tags.is_sorted(),
        format!("the tags {tags:?} are not sorted"),
    )?;
    ensure(!tags.is_empty(), "it has no tags")?;
    let mut next = Vec::new();
    for tag in tags {
        let resolved = store.resolve(&tag).await.or_fail("resolve a tag")?;
        let manifest = store.manifest(&tag).await.or_fail("read by tag")?;
        same(&manifest.digest, &resolved.digest, "digest behind a tag")?;
        next.push(resolved);
    }
    while let Some(link) = next.pop() {
        if !seen.insert(link.digest.clone()) {
            continue;
        }
        let by_digest = link.digest.to_string();
        let manifest = store
            .manifest(&by_digest)
            .await
            .or_fail("read a manifest")?;
        same(
            &manifest.bytes.len(),
            &(link.size as usize),
            "size of a manifest",
        )?;
        same(
            &Digest::sha256(&manifest.bytes),
            &link.digest,
            "digest of a manifest",
        )?;
        let found = store
            .resolve(&by_digest)
            .await
            .or_fail("resolve a digest")?;
        same(
            &found.media_type,
            &link.media_type,
            "media type of a manifest",
        )?;
        let parsed = manifest.parse().or_fail("parse a manifest")?;
        for blob in parsed.blobs() {
            if seen.insert(blob.digest.clone()) {
                readable(store, blob).await?;
            }
        }
        next.extend(parsed.children().cloned());
        let referrers = store.referrers(&link.digest).await;
        next.extend(referrers.or_fail("list referrers")?);
    }
    Ok(())
}

async fn readable(store: Store<'_>, link: &Descriptor) -> Check {
    let there = store.exists(link).await.or_fail("look for a blob")?;
    ensure(there, format!("{} is not there", link.digest))?;
    let mut larger = link.clone();
    larger.size += 1;
    let there = store.exists(&larger).await.or_fail("look for a blob")?;
    ensure(
        !there,
        format!("{} is there with another size", link.digest),
    )?;
    let size = store
        .blob_size(&link.digest)
        .await
        .or_fail("ask the size")?;
    same(&size, &link.size, "size of a blob")?;
    let blob = store.fetch(link);
    // Verified by the stream itself; twice, since it is a store's.
    let bytes = blob.read(64 << 20).await.or_fail("read a blob")?;
    let again = blob.read(64 << 20).await.or_fail("read a blob again")?;
    same(&again, &bytes, "a blob read again")?;
    for offset in [1, size / 2, size.saturating_sub(1), size, size + 1] {
        let stream = blob.open_at(offset).await.or_fail("open at an offset")?;
        let rest = collect(stream).await.or_fail("read from an offset")?;
        let from = usize::try_from(offset.min(size)).unwrap_or(0);
        ensure(
            rest == bytes[from..],
            format!("{} differs from offset {offset} on", link.digest),
        )?;
    }
    Ok(())
}

async fn what_is_missing_is_not_found(store: Store<'_>) -> Check {
    let link = Descriptor::of(OCTET_STREAM, b"nobody put this there");
    let text = link.digest.to_string();
    let there = store.exists(&link).await.or_fail("look for nothing")?;
    ensure(!there, "what nobody put there is there")?;
    refused(store.fetch(&link).read(1 << 10).await, ErrorKind::NotFound)?;
    refused(store.blob_size(&link.digest).await, ErrorKind::NotFound)?;
    for reference in [text.as_str(), "no-such-tag"] {
        refused(store.manifest(reference).await, ErrorKind::NotFound)?;
        refused(store.resolve(reference).await, ErrorKind::NotFound)?;
    }
    let referrers = store
        .referrers(&link.digest)
        .await
        .or_fail("list referrers")?;
    ensure(referrers.is_empty(), "something refers to nothing")
}

async fn writing_is_refused(store: Store<'_>) -> Check {
    let source = Probe::once(&Bytes::from_static(b"new"));
    let blob = Blob::new(OCI_LAYER_TAR, source.clone());
    refused(store.push(&blob, &[]).await, ErrorKind::Unsupported)?;
    same(&source.opened(), &0, "openings of what was to be written")?;
    let manifest = RawManifest::new(OCTET_STREAM, "{}");
    let put = store.put_manifest(&manifest, Some("new")).await;
    refused(put, ErrorKind::Unsupported)?;
    refused(store.untag("no-such-tag").await, ErrorKind::Unsupported)?;
    let link = manifest.descriptor();
    refused(store.delete(&link).await, ErrorKind::Unsupported)
}
