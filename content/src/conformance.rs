//! What a store owes, as code: every implementation of [`ContentStore`] and [`Stores`] runs these checks in its tests.
//!
//! *Invariant*: a check talks to the store through its trait only, starts from an empty repository, and is named; a store
//! that fails is told all the checks that it fails, not the first one.

mod readable;

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, join_all, select};
use futures::{FutureExt, StreamExt, stream};
use ocm_specs::media_type::{
    DOCKER_MANIFEST, OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST, OCTET_STREAM,
};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest};
use tokio::sync::Notify;

use crate::blob::{Access, Blob, ByteStream, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ContentStore, Outcome, RawManifest, Stores};

pub use readable::check_readable;

/// What a store can do beyond what every store must.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Removes blobs and manifests.
    pub delete: bool,
    /// Removes tags and leaves what they name.
    pub untag: bool,
    /// Keeps content addressed by SHA-512.
    pub sha512: bool,
    /// Refuses a manifest while a part of it is missing, with [`ErrorKind::NotFound`].
    pub checks_parts: bool,
    /// Takes a blob over from another repository without reading its source.
    pub mount: bool,
    /// Shows a blob only in repositories it was pushed to or mounted in.
    pub isolated: bool,
}

impl Capabilities {
    /// Everything.
    pub fn all() -> Self {
        Self {
            delete: true,
            untag: true,
            sha512: true,
            checks_parts: true,
            mount: true,
            isolated: true,
        }
    }
}

type Check = Result<(), String>;
type Store<'a> = &'a Arc<dyn ContentStore>;
type StoreCheck = for<'a> fn(Store<'a>, Capabilities) -> BoxFuture<'a, Check>;

/// Runs every check of [`ContentStore`], each on a new empty repository from `make`.
///
/// # Panics
/// With the name and the finding of each check that failed.
pub async fn check_store(make: impl AsyncFn() -> Arc<dyn ContentStore>, able: Capabilities) {
    let mut findings = Vec::new();
    for (name, check) in STORE_CHECKS {
        let store = make().await;
        if let Err(finding) = check(&store, able).await {
            findings.push(format!("{name} on {}: {finding}", store.location()));
        }
    }
    report(&findings);
}

/// Runs every check of [`Stores`], and those of [`ContentStore`] on its repositories, which must be empty under
/// `conformance/`.
///
/// # Panics
/// With the name and the finding of each check that failed.
pub async fn check_stores(stores: Arc<dyn Stores>, able: Capabilities) {
    let mut findings = Vec::new();
    macro_rules! run {
        ($($check:ident),*) => {$(
            if let Err(finding) = $check(&stores, able).await {
                findings.push(format!("{}: {finding}", stringify!($check)));
            }
        )*};
    }
    run!(
        names_are_checked,
        repositories_are_listed_in_order,
        repositories_share_but_do_not_mix,
        a_blob_is_staged_in_pieces,
        a_staged_blob_of_another_digest_is_refused,
        an_empty_blob_is_staged,
        what_is_staged_is_not_visible
    );
    report(&findings);
    let next = AtomicUsize::new(0);
    let make = async || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        stores
            .store(&format!("conformance/store{number}"))
            .expect("this is a valid repository name")
    };
    check_store(make, able).await;
}

fn report(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "the store breaks its contract:\n  {}",
        findings.join("\n  ")
    );
}

macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        &[$((stringify!($check), |store, able| $check(store, able).boxed())),*]
    };
}

const STORE_CHECKS: &[(&str, StoreCheck)] = checks![
    the_place_is_named,
    blobs_make_the_round_trip,
    blobs_of_unknown_digest_make_the_round_trip,
    blobs_are_read_from_any_offset,
    a_present_blob_is_not_read,
    a_blob_of_another_digest_is_refused,
    a_blob_of_another_size_is_refused,
    a_broken_source_leaves_nothing,
    a_dropped_push_leaves_nothing,
    what_is_missing_is_not_found,
    concurrent_pushes_of_one_blob,
    concurrent_pushes_of_many_blobs,
    manifests_keep_their_bytes,
    manifests_keep_their_media_type,
    a_manifest_of_another_digest_is_refused,
    a_manifest_without_its_parts_is_refused,
    manifests_are_found_by_tag_and_digest,
    putting_twice_is_putting_once,
    tags_move,
    tags_are_sorted,
    tags_keep_to_the_grammar,
    an_index_has_children,
    referrers_are_listed,
    a_subject_may_come_later,
    tags_are_removed,
    content_is_deleted,
    sha512_addresses_content,
];

// The store: blobs.

async fn the_place_is_named(store: Store<'_>, _: Capabilities) -> Check {
    ensure(!store.location().is_empty(), "the location is empty")?;
    same(
        &store.location(),
        &store.location(),
        "location asked for twice",
    )?;
    crate::name::check_repository(&store.repository()).or_fail("name of the repository")
}

async fn blobs_make_the_round_trip(store: Store<'_>, able: Capabilities) -> Check {
    // There is one empty blob only: where repositories share blobs, another check has brought it.
    let smallest = usize::from(!able.isolated);
    for size in [smallest, 2, 1 << 20, (1 << 20) + 7] {
        let bytes = sample(size, 1);
        let blob = Blob::from_bytes(OCTET_STREAM, bytes.clone());
        let expected = blob.descriptor().ok_or("no descriptor of bytes")?;
        absent(store, &expected).await?;
        let pushed = store.push(&blob, &[]).await.or_fail("push")?;
        same(&pushed.outcome, &Outcome::Sent, "outcome of the push")?;
        same(&pushed.descriptor, &expected, "link to what was pushed")?;
        let again = store.push(&blob, &[]).await.or_fail("second push")?;
        same(
            &again.outcome,
            &Outcome::Present,
            "outcome of a second push",
        )?;
        same(&again.descriptor, &expected, "link after a second push")?;
        present(store, &expected, &bytes).await?;
    }
    Ok(())
}

async fn blobs_of_unknown_digest_make_the_round_trip(store: Store<'_>, _: Capabilities) -> Check {
    for size in [0, 1, 300_000] {
        let bytes = sample(size, 2);
        let source = Probe::once(&bytes);
        let blob = Blob::new(OCI_LAYER_TAR, source.clone());
        let pushed = store.push(&blob, &[]).await.or_fail("push")?;
        let expected = Descriptor::of(OCI_LAYER_TAR, &bytes);
        same(&pushed.descriptor, &expected, "link that came back")?;
        same(
            &source.opened(),
            &1,
            "openings of a source that can be read once",
        )?;
        present(store, &expected, &bytes).await?;
    }
    Ok(())
}

async fn blobs_are_read_from_any_offset(store: Store<'_>, _: Capabilities) -> Check {
    let bytes = sample(2_500_000, 3);
    let link = push(store, &bytes).await?;
    for offset in [0, 1, 1_048_575, 1_048_576, 2_499_999, 2_500_000] {
        let blob = store.fetch(&link);
        let stream = blob.open_at(offset).await;
        let found = collect(stream.or_fail(format!("open at {offset}"))?).await;
        let found = found.or_fail(format!("read from {offset}"))?;
        let expected = &bytes[usize::try_from(offset).or_fail("offset")?..];
        ensure(
            found == expected,
            format!("other bytes from offset {offset} on"),
        )?;
    }
    Ok(())
}

async fn a_present_blob_is_not_read(store: Store<'_>, _: Capabilities) -> Check {
    let bytes = sample(1000, 4);
    let link = push(store, &bytes).await?;
    let source = Probe::once(&bytes);
    let blob = Blob::described(&link, source.clone());
    let pushed = store.push(&blob, &[]).await.or_fail("push")?;
    same(&pushed.outcome, &Outcome::Present, "outcome")?;
    same(&source.opened(), &0, "openings of the source")
}

async fn a_blob_of_another_digest_is_refused(store: Store<'_>, _: Capabilities) -> Check {
    let (promised, served) = (sample(5000, 5), sample(5000, 6));
    let link = Descriptor::of(OCTET_STREAM, &promised);
    let blob = Blob::described(&link, Probe::once(&served));
    refused(store.push(&blob, &[]).await, ErrorKind::Mismatch)?;
    absent(store, &link).await?;
    absent(store, &Descriptor::of(OCTET_STREAM, &served)).await
}

async fn a_blob_of_another_size_is_refused(store: Store<'_>, _: Capabilities) -> Check {
    let bytes = sample(5000, 7);
    for size in [4999, 5001] {
        let mut link = Descriptor::of(OCTET_STREAM, &bytes);
        link.size = size;
        let blob = Blob::described(&link, Probe::once(&bytes));
        refused(store.push(&blob, &[]).await, ErrorKind::Mismatch)?;
        link.size = 5000;
        absent(store, &link).await?;
    }
    Ok(())
}

async fn a_broken_source_leaves_nothing(store: Store<'_>, _: Capabilities) -> Check {
    let bytes = sample(5000, 8);
    let link = Descriptor::of(OCTET_STREAM, &bytes);
    for blob in [
        Blob::described(&link, Probe::broken(&bytes)),
        Blob::new(OCTET_STREAM, Probe::broken(&bytes)),
    ] {
        refused(store.push(&blob, &[]).await, ErrorKind::Io)?;
        absent(store, &link).await?;
    }
    store
        .push(&Blob::from_bytes(OCTET_STREAM, bytes.clone()), &[])
        .await
        .or_fail("push after a broken one")?;
    present(store, &link, &bytes).await
}

async fn a_dropped_push_leaves_nothing(store: Store<'_>, _: Capabilities) -> Check {
    let bytes = sample(100_000, 9);
    let link = Descriptor::of(OCTET_STREAM, &bytes);
    for known in [true, false] {
        let source = Probe::stalled(&bytes);
        let blob = if known {
            Blob::described(&link, source.clone())
        } else {
            Blob::new(OCTET_STREAM, source.clone())
        };
        let push = pin!(store.push(&blob, &[]));
        let stalled = pin!(source.stalling.notified());
        match select(push, stalled).await {
            Either::Left((pushed, _)) => {
                return Err(format!("push of a stalled source ended with {pushed:?}"));
            }
            Either::Right(((), push)) => {
                // Let what the store has in hand flow before it is dropped.
                let mut push = push;
                for _ in 0..3 {
                    poll_once(push.as_mut()).await;
                    tokio::task::yield_now().await;
                }
            }
        }
        absent(store, &link).await?;
    }
    let link = push(store, &bytes).await?;
    present(store, &link, &bytes).await
}

async fn what_is_missing_is_not_found(store: Store<'_>, _: Capabilities) -> Check {
    let link = Descriptor::of(OCTET_STREAM, b"never pushed");
    absent(store, &link).await?;
    let size = store.blob_size(&link.digest).await;
    refused(size, ErrorKind::NotFound)?;
    let manifest = Descriptor::of(OCI_MANIFEST, b"never put");
    let exists = store.exists(&manifest).await.or_fail("exists")?;
    ensure(!exists, "a manifest exists that was never put")?;
    let digest = manifest.digest.to_string();
    for reference in ["latest", digest.as_str()] {
        refused(store.manifest(reference).await, ErrorKind::NotFound)?;
        refused(store.resolve(reference).await, ErrorKind::NotFound)?;
    }
    let tags = store.tags().await.or_fail("tags of an empty repository")?;
    same(&tags, &Vec::new(), "tags of an empty repository")?;
    let referrers = store.referrers(&manifest.digest).await;
    same(
        &referrers.or_fail("referrers of nothing")?,
        &Vec::new(),
        "referrers of nothing",
    )
}

async fn concurrent_pushes_of_one_blob(store: Store<'_>, _: Capabilities) -> Check {
    let bytes = sample(300_000, 10);
    let blob = Blob::from_bytes(OCTET_STREAM, bytes.clone());
    let pushes = (0..8).map(|_| store.push(&blob, &[]));
    for pushed in join_all(pushes).await {
        let link = pushed.or_fail("one of the pushes")?.descriptor;
        present(store, &link, &bytes).await?;
    }
    Ok(())
}

async fn concurrent_pushes_of_many_blobs(store: Store<'_>, _: Capabilities) -> Check {
    let blobs: Vec<Bytes> = (0..16)
        .map(|seed| sample(20_000 + usize::from(seed), seed))
        .collect();
    let pushes = blobs.iter().map(|bytes| push(store, bytes));
    for (pushed, bytes) in join_all(pushes).await.into_iter().zip(&blobs) {
        present(store, &pushed?, bytes).await?;
    }
    Ok(())
}

// The store: manifests, tags, referrers.

async fn manifests_keep_their_bytes(store: Store<'_>, _: Capabilities) -> Check {
    let (config, layer) = parts(store, 20).await?;
    let text = format!(
        "\n{{ \"layers\" : [{{\"size\":{}, \"digest\":\"{}\",\t\"mediaType\":\"{OCI_LAYER_TAR}\", \"x-new\": [1.50, 1e2] }}],\r\n  \
         \"x-unknown\": {{\"b\":null,\"a\":\"<\\u00e9>\"}}, \"schemaVersion\":2,\n \"config\": {{\"mediaType\":\"{OCI_CONFIG}\",\
         \"digest\":\"{}\",\"size\":{}}} ,\"mediaType\":\"{OCI_MANIFEST}\" }}\n\n",
        layer.size, layer.digest, config.digest, config.size
    );
    let manifest = RawManifest::new(OCI_MANIFEST, text);
    put(store, &manifest, Some("odd")).await?;
    read_back(store, &manifest, "odd").await
}

async fn manifests_keep_their_media_type(store: Store<'_>, _: Capabilities) -> Check {
    let (config, layer) = parts(store, 21).await?;
    let document = Manifest::image(config, vec![layer]);
    let docker = RawManifest::write(&Manifest {
        media_type: Some(DOCKER_MANIFEST.to_owned()),
        ..document.clone()
    });
    let silent = Manifest {
        media_type: None,
        ..document
    };
    let silent = RawManifest::new(OCI_MANIFEST, silent.to_bytes());
    for (manifest, tag) in [(docker, "docker"), (silent, "silent")] {
        put(store, &manifest, Some(tag)).await?;
        read_back(store, &manifest, tag).await?;
    }
    Ok(())
}

async fn a_manifest_of_another_digest_is_refused(store: Store<'_>, _: Capabilities) -> Check {
    let good = image(store, 22).await?;
    let bad = RawManifest {
        digest: Digest::sha256(b"something else"),
        ..good.clone()
    };
    refused(
        store.put_manifest(&bad, Some("bad")).await,
        ErrorKind::Mismatch,
    )?;
    for reference in [bad.digest.to_string(), "bad".to_owned()] {
        refused(store.resolve(&reference).await, ErrorKind::NotFound)?;
    }
    Ok(())
}

async fn a_manifest_without_its_parts_is_refused(store: Store<'_>, able: Capabilities) -> Check {
    if !able.checks_parts {
        return Ok(());
    }
    let (config, layer) = parts(store, 23).await?;
    let gone = Descriptor::of(OCTET_STREAM, b"not here");
    let child = Descriptor::of(OCI_MANIFEST, b"not here either");
    for document in [
        Manifest::image(gone.clone(), vec![layer]),
        Manifest::image(config, vec![gone]),
        Manifest::index(vec![child]),
    ] {
        let manifest = RawManifest::write(&document);
        let result = store.put_manifest(&manifest, Some("broken")).await;
        refused(result, ErrorKind::NotFound)?;
        refused(store.resolve("broken").await, ErrorKind::NotFound)?;
    }
    Ok(())
}

async fn manifests_are_found_by_tag_and_digest(store: Store<'_>, _: Capabilities) -> Check {
    let tagged = image(store, 24).await?;
    let untagged = image(store, 25).await?;
    put(store, &tagged, Some("v1.0")).await?;
    put(store, &untagged, None).await?;
    read_back(store, &tagged, "v1.0").await?;
    read_back(store, &tagged, &tagged.digest.to_string()).await?;
    read_back(store, &untagged, &untagged.digest.to_string()).await?;
    let exists = store.exists(&untagged.descriptor()).await;
    ensure(
        exists.or_fail("exists")?,
        "a manifest that was put is not there",
    )
}

async fn putting_twice_is_putting_once(store: Store<'_>, _: Capabilities) -> Check {
    let manifest = image(store, 26).await?;
    for _ in 0..2 {
        put(store, &manifest, Some("twice")).await?;
        put(store, &manifest, None).await?;
    }
    read_back(store, &manifest, "twice").await?;
    same_tags(store, &["twice"]).await
}

async fn tags_move(store: Store<'_>, _: Capabilities) -> Check {
    let (first, second) = (image(store, 27).await?, image(store, 28).await?);
    put(store, &first, Some("moving")).await?;
    put(store, &second, Some("moving")).await?;
    read_back(store, &second, "moving").await?;
    read_back(store, &first, &first.digest.to_string()).await?;
    same_tags(store, &["moving"]).await
}

async fn tags_are_sorted(store: Store<'_>, _: Capabilities) -> Check {
    let manifest = image(store, 29).await?;
    for tag in ["b", "_", "a", "B", "1.10", "1.9", "a-1"] {
        put(store, &manifest, Some(tag)).await?;
    }
    same_tags(store, &["1.10", "1.9", "B", "_", "a", "a-1", "b"]).await
}

async fn tags_keep_to_the_grammar(store: Store<'_>, _: Capabilities) -> Check {
    let manifest = image(store, 30).await?;
    let long = "x".repeat(129);
    for tag in [
        "1.0+build",
        "",
        ".hidden",
        "-a",
        "a/b",
        "a:b",
        "../a",
        &long,
    ] {
        let result = store.put_manifest(&manifest, Some(tag)).await;
        refused(result, ErrorKind::Invalid).map_err(|finding| format!("tag `{tag}`: {finding}"))?;
    }
    same_tags(store, &[]).await?;
    let longest = "x".repeat(128);
    put(store, &manifest, Some(&longest)).await?;
    read_back(store, &manifest, &longest).await
}

async fn an_index_has_children(store: Store<'_>, _: Capabilities) -> Check {
    let children = [image(store, 31).await?, image(store, 32).await?];
    for child in &children {
        put(store, child, None).await?;
    }
    let links = children.iter().map(RawManifest::descriptor).collect();
    let index = RawManifest::write(&Manifest::index(links));
    same(&index.media_type.as_str(), &OCI_INDEX, "media type")?;
    put(store, &index, Some("many")).await?;
    read_back(store, &index, "many").await?;
    for child in &children {
        read_back(store, child, &child.digest.to_string()).await?;
    }
    same_tags(store, &["many"]).await
}

async fn referrers_are_listed(store: Store<'_>, _: Capabilities) -> Check {
    let subject = image(store, 33).await?;
    put(store, &subject, Some("subject")).await?;
    check_referrers(store, &subject).await
}

async fn a_subject_may_come_later(store: Store<'_>, _: Capabilities) -> Check {
    let subject = image(store, 34).await?;
    check_referrers(store, &subject).await?;
    put(store, &subject, Some("subject")).await?;
    let listed = store.referrers(&subject.digest).await;
    same(
        &listed.or_fail("referrers")?.len(),
        &2,
        "number of referrers after the subject came",
    )
}

/// Puts two referrers of `subject` and a stranger, and looks at the list.
async fn check_referrers(store: Store<'_>, subject: &RawManifest) -> Check {
    let mut expected = Vec::new();
    for (kind, note) in [
        ("application/vnd.test.a", "1"),
        ("application/vnd.test.b", "2"),
    ] {
        let mut document = image(store, 35).await?.parse().or_fail("own manifest")?;
        document.subject = Some(subject.descriptor());
        document.artifact_type = Some(kind.to_owned());
        document.annotations = Some([("note".to_owned(), note.to_owned())].into());
        let manifest = RawManifest::write(&document);
        // Twice, to see it listed once.
        put(store, &manifest, None).await?;
        put(store, &manifest, None).await?;
        expected.push(Descriptor {
            artifact_type: document.artifact_type,
            annotations: document.annotations,
            ..manifest.descriptor()
        });
    }
    put(store, &image(store, 36).await?, None).await?;
    let listed = store.referrers(&subject.digest).await;
    let mut listed = listed.or_fail("referrers")?;
    listed.sort_by(|a, b| a.digest.cmp(&b.digest));
    expected.sort_by(|a, b| a.digest.cmp(&b.digest));
    same(&listed, &expected, "referrers")
}

// The store: what not every store can do.

async fn tags_are_removed(store: Store<'_>, able: Capabilities) -> Check {
    let manifest = image(store, 40).await?;
    put(store, &manifest, Some("here")).await?;
    put(store, &manifest, Some("gone")).await?;
    let removed = store.untag("gone").await;
    if !able.untag {
        return refused(removed, ErrorKind::Unsupported);
    }
    removed.or_fail("untag")?;
    refused(store.resolve("gone").await, ErrorKind::NotFound)?;
    refused(store.untag("gone").await, ErrorKind::NotFound)?;
    same_tags(store, &["here"]).await?;
    read_back(store, &manifest, "here").await
}

async fn content_is_deleted(store: Store<'_>, able: Capabilities) -> Check {
    let bytes = sample(100, 41);
    let link = push(store, &bytes).await?;
    let deleted = store.delete(&link).await;
    if !able.delete {
        return refused(deleted, ErrorKind::Unsupported);
    }
    deleted.or_fail("delete of a blob")?;
    absent(store, &link).await?;
    refused(store.delete(&link).await, ErrorKind::NotFound)?;
    let again = push(store, &bytes).await?;
    present(store, &again, &bytes).await?;

    let subject = image(store, 42).await?;
    let mut document = subject.parse().or_fail("own manifest")?;
    document.subject = Some(subject.descriptor());
    let referrer = RawManifest::write(&document);
    put(store, &referrer, Some("a")).await?;
    put(store, &referrer, Some("b")).await?;
    let deleted = store.delete(&referrer.descriptor()).await;
    deleted.or_fail("delete of a manifest")?;
    same_tags(store, &[]).await?;
    refused(store.resolve("a").await, ErrorKind::NotFound)?;
    let listed = store.referrers(&subject.digest).await;
    same(
        &listed.or_fail("referrers")?,
        &Vec::new(),
        "referrers after the only one was deleted",
    )?;
    refused(
        store.delete(&referrer.descriptor()).await,
        ErrorKind::NotFound,
    )
}

async fn sha512_addresses_content(store: Store<'_>, able: Capabilities) -> Check {
    if !able.sha512 {
        return Ok(());
    }
    let bytes = sample(70_000, 43);
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let link = Descriptor::new(OCTET_STREAM, digest, 70_000);
    let lie = Blob::described(&link, Probe::once(&sample(70_000, 44)));
    refused(store.push(&lie, &[]).await, ErrorKind::Mismatch)?;
    let blob = Blob::described(&link, Probe::once(&bytes));
    let pushed = store.push(&blob, &[]).await.or_fail("push")?;
    same(&pushed.descriptor, &link, "link to what was pushed")?;
    present(store, &link, &bytes).await?;

    let (config, _) = parts(store, 45).await?;
    let document = Manifest::image(config, vec![link]).to_bytes();
    let manifest = RawManifest {
        media_type: OCI_MANIFEST.to_owned(),
        digest: Digest::of(Algorithm::Sha512, &document),
        bytes: document.into(),
    };
    put(store, &manifest, None).await?;
    read_back(store, &manifest, &manifest.digest.to_string()).await
}

// Many repositories.

async fn names_are_checked(stores: &Arc<dyn Stores>, _: Capabilities) -> Check {
    for name in [
        "", "A", "a//b", "/a", "a/", "../a", "a/../b", "a b", "a:b", "a\0",
    ] {
        refused(stores.store(name), ErrorKind::Invalid)
            .map_err(|finding| format!("name `{name}`: {finding}"))?;
    }
    let store = stores
        .store("conformance/a.b_c-d/0")
        .or_fail("a valid name")?;
    same(
        &store.repository().as_str(),
        &"conformance/a.b_c-d/0",
        "name of the repository",
    )
}

async fn repositories_are_listed_in_order(stores: &Arc<dyn Stores>, _: Capabilities) -> Check {
    for name in ["conformance/z", "conformance/a/b", "conformance/a"] {
        let store = stores.store(name).or_fail(name)?;
        let manifest = image(&store, 50).await?;
        put(&store, &manifest, Some("listed")).await?;
    }
    let _not_listed = stores.store("conformance/empty").or_fail("a valid name")?;
    let listed = stores.repositories().await.or_fail("list")?;
    ensure(listed.is_sorted(), format!("not sorted: {listed:?}"))?;
    let ours: Vec<&str> = listed
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("conformance/"))
        .collect();
    same(
        &ours,
        &vec!["conformance/a", "conformance/a/b", "conformance/z"],
        "repositories",
    )
}

async fn repositories_share_but_do_not_mix(stores: &Arc<dyn Stores>, able: Capabilities) -> Check {
    let one = stores.store("conformance/one").or_fail("a valid name")?;
    let two = stores.store("conformance/two").or_fail("a valid name")?;
    ensure(one.location() != two.location(), "two places, one location")?;
    let again = stores.store("conformance/one").or_fail("a valid name")?;
    same(&again.location(), &one.location(), "location of one place")?;
    let bytes = sample(50_000, 51);
    let link = push(&one, &bytes).await?;
    present(&again, &link, &bytes).await?;
    if able.isolated {
        absent(&two, &link).await?;
    }
    let source = Probe::once(&bytes);
    let blob = Blob::described(&link, source.clone());
    let strangers = [
        "conformance/nobody".to_owned(),
        "conformance/one".to_owned(),
    ];
    two.push(&blob, &strangers).await.or_fail("mount")?;
    if able.mount {
        same(
            &source.opened(),
            &0,
            "openings of a blob that can be mounted",
        )?;
    }
    present(&two, &link, &bytes).await?;
    let manifest = image(&one, 52).await?;
    put(&one, &manifest, Some("mine")).await?;
    refused(two.resolve("mine").await, ErrorKind::NotFound)?;
    same_tags(&two, &[]).await?;
    let mine = manifest.descriptor();
    let held = [one.holds(&mine).await, two.holds(&mine).await];
    let held = held.map(|held| held.unwrap_or_default());
    same(&held, &[true, false], "who holds a manifest of the first")?;
    // Where a blob is everywhere at once it also goes everywhere at once.
    if able.delete && able.isolated {
        one.delete(&link).await.or_fail("delete in one")?;
        absent(&one, &link).await?;
        present(&two, &link, &bytes).await?;
    }
    Ok(())
}

async fn a_blob_is_staged_in_pieces(stores: &Arc<dyn Stores>, able: Capabilities) -> Check {
    let store = stores.store("conformance/staged").or_fail("a valid name")?;
    let mut algorithms = vec![Algorithm::Sha256];
    if able.sha512 {
        algorithms.push(Algorithm::Sha512);
    }
    for algorithm in algorithms {
        let bytes = sample(2_200_000, 53);
        let digest = Digest::of(algorithm, &bytes);
        for _ in 0..2 {
            let mut staging = stores.stage().await.or_fail("stage")?;
            ensure(staging.is_empty(), "a new staging is not empty")?;
            let mut written = 0;
            for chunk in bytes.chunks(777_777) {
                let chunk = Bytes::copy_from_slice(chunk);
                written += chunk.len() as u64;
                staging.write(chunk).await.or_fail("write")?;
                same(&staging.len(), &written, "length so far")?;
            }
            let commit = staging.commit("conformance/staged", &digest).await;
            commit.or_fail(format!("commit of {digest}"))?;
            let size = bytes.len() as u64;
            let link = Descriptor::new(OCTET_STREAM, digest.clone(), size);
            present(&store, &link, &bytes).await?;
        }
    }
    Ok(())
}

async fn a_staged_blob_of_another_digest_is_refused(
    stores: &Arc<dyn Stores>,
    _: Capabilities,
) -> Check {
    let store = stores.store("conformance/staged").or_fail("a valid name")?;
    let (promised, served) = (sample(100, 54), sample(100, 55));
    let mut staging = stores.stage().await.or_fail("stage")?;
    staging.write(served.clone()).await.or_fail("write")?;
    let digest = Digest::sha256(&promised);
    refused(
        staging.commit("conformance/staged", &digest).await,
        ErrorKind::Mismatch,
    )?;
    absent(&store, &Descriptor::of(OCTET_STREAM, &promised)).await?;
    absent(&store, &Descriptor::of(OCTET_STREAM, &served)).await
}

async fn an_empty_blob_is_staged(stores: &Arc<dyn Stores>, _: Capabilities) -> Check {
    let store = stores.store("conformance/staged").or_fail("a valid name")?;
    let staging = stores.stage().await.or_fail("stage")?;
    let digest = Digest::sha256(b"");
    let commit = staging.commit("conformance/staged", &digest).await;
    commit.or_fail("commit of nothing")?;
    let link = Descriptor::new(OCTET_STREAM, digest, 0);
    present(&store, &link, &Bytes::new()).await
}

async fn what_is_staged_is_not_visible(stores: &Arc<dyn Stores>, _: Capabilities) -> Check {
    let store = stores.store("conformance/staged").or_fail("a valid name")?;
    let bytes = sample(4000, 56);
    let link = Descriptor::of(OCTET_STREAM, &bytes);
    let mut staging = stores.stage().await.or_fail("stage")?;
    staging.write(bytes).await.or_fail("write")?;
    absent(&store, &link).await?;
    drop(staging);
    absent(&store, &link).await
}

// What the checks are made of.

fn ensure(holds: bool, finding: impl Into<String>) -> Check {
    if holds { Ok(()) } else { Err(finding.into()) }
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T, what: &str) -> Check {
    ensure(
        found == expected,
        format!("{what}: found {found:?}, expected {expected:?}"),
    )
}

fn refused<T>(result: Result<T>, kind: ErrorKind) -> Check {
    match result {
        Ok(_) => Err(format!("accepted, expected the error `{}`", kind.as_str())),
        Err(error) => ensure(
            error.kind() == kind,
            format!("found {error:?}, expected the error `{}`", kind.as_str()),
        ),
    }
}

trait OrFail<T> {
    fn or_fail(self, doing: impl Display) -> Result<T, String>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, doing: impl Display) -> Result<T, String> {
        self.map_err(|error| format!("{doing}: {error}"))
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        let _ = future.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

/// Bytes that differ for each seed.
fn sample(size: usize, seed: u8) -> Bytes {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

async fn collect(mut stream: ByteStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

async fn absent(store: Store<'_>, link: &Descriptor) -> Check {
    let exists = store.exists(link).await.or_fail("exists")?;
    ensure(!exists, format!("{} is there", link.digest))?;
    let read = store.fetch(link).read(u64::MAX).await;
    refused(read, ErrorKind::NotFound).map_err(|finding| format!("read {}: {finding}", link.digest))
}

async fn present(store: Store<'_>, link: &Descriptor, bytes: &Bytes) -> Check {
    let exists = store.exists(link).await.or_fail("exists")?;
    ensure(exists, format!("{} is not there", link.digest))?;
    let size = store.blob_size(&link.digest).await.or_fail("size")?;
    same(&size, &link.size, "size")?;
    let blob = store.fetch(link);
    // Twice: what lies in a store can be read again.
    for _ in 0..2 {
        let found = blob.read(u64::MAX).await.or_fail("read")?;
        ensure(found == bytes, format!("{}: other bytes", link.digest))?;
    }
    Ok(())
}

async fn push(store: Store<'_>, bytes: &Bytes) -> Result<Descriptor, String> {
    let blob = Blob::from_bytes(OCTET_STREAM, bytes.clone());
    let pushed = store.push(&blob, &[]).await.or_fail("push")?;
    Ok(pushed.descriptor)
}

/// A config and a layer, pushed.
async fn parts(store: Store<'_>, seed: u8) -> Result<(Descriptor, Descriptor), String> {
    let config = Blob::from_bytes(OCI_EMPTY, "{}");
    let layer = Blob::from_bytes(OCI_LAYER_TAR, sample(64, seed));
    let config = store.push(&config, &[]).await.or_fail("push a config")?;
    let layer = store.push(&layer, &[]).await.or_fail("push a layer")?;
    Ok((config.descriptor, layer.descriptor))
}

/// An image of which the parts are pushed and the manifest is not.
async fn image(store: Store<'_>, seed: u8) -> Result<RawManifest, String> {
    let (config, layer) = parts(store, seed).await?;
    Ok(RawManifest::write(&Manifest::image(config, vec![layer])))
}

async fn put(store: Store<'_>, manifest: &RawManifest, tag: Option<&str>) -> Check {
    store
        .put_manifest(manifest, tag)
        .await
        .or_fail(format!("put {} as {tag:?}", manifest.digest))
}

async fn read_back(store: Store<'_>, expected: &RawManifest, reference: &str) -> Check {
    let found = store.manifest(reference).await;
    let found = found.or_fail(format!("manifest {reference}"))?;
    same(&found, expected, "manifest")?;
    let link = store.resolve(reference).await;
    let link = link.or_fail(format!("resolve {reference}"))?;
    let plain = Descriptor::new(link.media_type, link.digest, link.size);
    same(&plain, &expected.descriptor(), "link to the manifest")
}

async fn same_tags(store: Store<'_>, expected: &[&str]) -> Check {
    let tags = store.tags().await.or_fail("tags")?;
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    same(&tags.as_slice(), &expected, "tags")
}

/// A source that can be read once, counts its openings and may stop half-way.
#[derive(Debug)]
struct Probe {
    bytes: Bytes,
    end: End,
    openings: AtomicUsize,
    stalling: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    Broken,
    Stalled,
}

impl Probe {
    fn once(bytes: &Bytes) -> Arc<Self> {
        Self::new(bytes, End::Whole)
    }

    /// Ends with an error after half of the bytes.
    fn broken(bytes: &Bytes) -> Arc<Self> {
        Self::new(bytes, End::Broken)
    }

    /// Gives half of the bytes and nothing more, and says so.
    fn stalled(bytes: &Bytes) -> Arc<Self> {
        Self::new(bytes, End::Stalled)
    }

    fn new(bytes: &Bytes, end: End) -> Arc<Self> {
        Arc::new(Self {
            bytes: bytes.clone(),
            end,
            openings: AtomicUsize::new(0),
            stalling: Arc::default(),
        })
    }

    fn opened(&self) -> usize {
        self.openings.load(Ordering::Relaxed)
    }

    fn stream(&self) -> ByteStream {
        let half = self.bytes.slice(..self.bytes.len() / 2);
        match self.end {
            End::Whole => {
                let chunks: Vec<_> = self
                    .bytes
                    .chunks(40_000)
                    .map(|chunk| Ok(self.bytes.slice_ref(chunk)))
                    .collect();
                Box::pin(stream::iter(chunks))
            }
            End::Broken => {
                let error = Error::new(ErrorKind::Io, "the cable was cut");
                Box::pin(stream::iter([Ok(half), Err(error)]))
            }
            End::Stalled => {
                let stalling = self.stalling.clone();
                let stall = poll_fn(move |_| {
                    stalling.notify_one();
                    Poll::Pending
                });
                Box::pin(stream::iter([Ok(half)]).chain(stream::once(stall)))
            }
        }
    }
}

impl Source for Probe {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let again = self.openings.fetch_add(1, Ordering::Relaxed) > 0;
        let stream = self.stream();
        Box::pin(async move {
            if again || offset > 0 {
                let error = "content that can be read once only was opened again";
                return Err(Error::new(ErrorKind::Consumed, error));
            }
            Ok(stream)
        })
    }

    fn access(&self) -> Access {
        Access::Once
    }
}
