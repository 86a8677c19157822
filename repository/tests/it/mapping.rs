//! Component versions as OCI content, there and back.

use std::sync::Arc;

use ocm_content::limits::LimitsConfig;
use ocm_content::{
    Artifact, Blob, Content, Copier, ErrorKind, Limits, Locations, MemoryStores, RawManifest,
    Stored, Stores,
};
use ocm_repository::ctf::Access;
use ocm_repository::{Existing, Known, Repository, VersionOutcome, predict_local_blob};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind, Encoding};
use ocm_specs::media_type::{
    COMPONENT_CONFIG, DESCRIPTOR_JSON, DESCRIPTOR_YAML_TAR, OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR,
    OCI_MANIFEST,
};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Digest, Identity, RepositorySpec};
use serde_json::{Value, json};

const COMPONENT: &str = "acme.org/app";

fn known() -> Arc<Known> {
    let limits = Limits::new(LimitsConfig {
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    });
    Known::new(Copier::new(limits.clone(), Locations::new()), limits)
}

/// A repository of its own run: it knows nothing but what it reads and writes itself.
pub(crate) fn over(stores: Arc<dyn Stores>, prefix: &str) -> Repository {
    Repository::new(
        RepositorySpec::ctf("memory"),
        "memory",
        stores,
        prefix,
        known(),
    )
}

fn memory() -> (MemoryStores, Repository) {
    let stores = MemoryStores::new();
    let repository = over(Arc::new(stores.clone()), "acme/");
    (stores, repository)
}

fn resource(name: &str, access: Value) -> Value {
    json!({"name": name, "version": "1.0.0", "type": "blob", "relation": "local", "access": access})
}

fn document(version: &str, resources: Vec<Value>) -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "component": {
            "name": COMPONENT, "version": version, "provider": "acme", "repositoryContexts": [],
            "unknown": {"kept": [1, null, "<&>"]},
            "resources": resources, "sources": [], "componentReferences": [],
        },
        "nestedDigests": [{"name": "acme.org/dep", "version": "1"}],
    })
}

fn descriptor(version: &str, resources: Vec<Value>) -> ComponentDescriptor {
    ComponentDescriptor::from_value(document(version, resources)).expect("a descriptor")
}

async fn store_text(repository: &Repository, name: &str, text: &'static str) -> Value {
    let unset = json!({"type": "localBlob", "localReference": "none yet", "mediaType": "text/plain", "referenceName": "hint:1"});
    let blob = Blob::from_bytes("text/plain", text);
    repository
        .prepare_local_blob(
            COMPONENT,
            ElementKind::Resource,
            &resource(name, unset),
            &blob.into(),
        )
        .await
        .expect("stored")
}

async fn publish(
    repository: &Repository,
    descriptor: &ComponentDescriptor,
    existing: Existing,
) -> ocm_content::Result<(Digest, VersionOutcome)> {
    let prepared = repository.prepare_version(descriptor, existing).await?;
    let published = prepared.publish().await?;
    Ok((published.root.digest, published.outcome))
}

async fn text(content: Content) -> String {
    let Content::Blob(blob) = content else {
        panic!("an artifact where a blob should be: {content:?}");
    };
    let bytes = blob.read(1 << 20).await.expect("readable");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn manifest_of(root: &RawManifest) -> Manifest {
    root.parse().expect("a manifest")
}

#[tokio::test]
async fn a_version_comes_back_as_it_was_put() {
    let (stores, repository) = memory();
    let first = store_text(&repository, "first", "shared").await;
    let second = store_text(&repository, "second", "shared").await;
    let third = store_text(&repository, "third", "own").await;
    assert_eq!(
        first["access"],
        json!({"type": "localBlob", "localReference": Digest::sha256(b"shared"), "mediaType": "text/plain", "referenceName": "hint:1"})
    );
    assert_eq!(
        first["digest"],
        json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": Digest::sha256(b"shared").hex()})
    );
    let version = "1.0.0+build.7";
    let put = descriptor(version, vec![third, first, second]);
    let (digest, outcome) = publish(&repository, &put, Existing::Fail)
        .await
        .expect("published");
    assert_eq!(outcome, VersionOutcome::Created);

    // Another run reads what lies there.
    let reader = over(Arc::new(stores.clone()), "acme");
    let got = reader.get(COMPONENT, version).await.expect("there");
    assert_eq!(got.descriptor, put);
    assert_eq!(got.root.digest, digest);
    for (name, expected) in [("first", "shared"), ("second", "shared"), ("third", "own")] {
        let element = got.descriptor.resource(&Identity::named(name)).expect(name);
        assert_eq!(text(got.local_blob(&element).expect(name)).await, expected);
    }
    assert_eq!(reader.components().await.expect("listed"), [COMPONENT]);
    assert_eq!(reader.versions(COMPONENT).await.expect("listed"), [version]);
    assert_eq!(
        reader.versions("acme.org/other").await.expect("none"),
        [""; 0]
    );

    let manifest = manifest_of(&got.root);
    let layers = manifest.layers.expect("layers");
    let annotation =
        |layer: &Descriptor| layer.annotation("software.ocm.artifact").map(str::to_owned);
    assert_eq!(layers.len(), 3, "descriptor, then each blob once");
    assert_eq!(layers[0].media_type, DESCRIPTOR_JSON);
    assert_eq!(
        annotation(&layers[1]).as_deref(),
        Some(r#"[{"identity":{"name":"third","version":"1.0.0"},"kind":"resource"}]"#)
    );
    assert_eq!(
        annotation(&layers[2]).as_deref(),
        Some(
            r#"[{"identity":{"name":"first","version":"1.0.0"},"kind":"resource"},{"identity":{"name":"second","version":"1.0.0"},"kind":"resource"}]"#
        )
    );
    let store = stores
        .store("acme/component-descriptors/acme.org/app")
        .expect("a name");
    assert_eq!(store.tags().await.expect("tags"), ["1.0.0.build-build.7"]);
}

/// A small image in a store of its own.
async fn image() -> (Artifact, Digest) {
    let store = MemoryStores::new().store("images/app").expect("a name");
    let layer = Blob::from_bytes(OCI_LAYER_TAR, "layer");
    let config = Blob::from_bytes(OCI_CONFIG, "{}");
    for blob in [&layer, &config] {
        store.push(blob, &[]).await.expect("pushed");
    }
    let link = |blob: &Blob| blob.descriptor().expect("known");
    let root = RawManifest::write(&Manifest::image(link(&config), vec![link(&layer)]));
    store.put_manifest(&root, Some("1.0")).await.expect("put");
    let artifact = Artifact::Stored(Stored {
        root: root.descriptor(),
        store,
        tag: Some("1.0".to_owned()),
    });
    (artifact, root.digest)
}

#[tokio::test]
async fn artifacts_become_manifests_of_their_own() {
    let (_, repository) = memory();
    let (artifact, digest) = image().await;
    let mut image = resource(
        "image",
        json!({"type": "ociArtifact", "imageReference": "r.io/acme/app:1.0"}),
    );
    image["extraIdentity"] = json!({"architecture": "arm64", "os": "linux"});
    let image = repository
        .prepare_local_blob(COMPONENT, ElementKind::Resource, &image, &artifact.into())
        .await
        .expect("stored");
    assert_eq!(
        image["access"],
        json!({"type": "localBlob", "localReference": digest, "mediaType": OCI_MANIFEST, "referenceName": "acme/app:1.0"})
    );
    assert_eq!(
        image["digest"]["normalisationAlgorithm"],
        "ociArtifactDigest/v1"
    );
    let blob = store_text(&repository, "blob", "text").await;
    let put = descriptor("1.0.0", vec![image, blob]);
    publish(&repository, &put, Existing::Fail)
        .await
        .expect("published");

    let got = repository.get(COMPONENT, "1.0.0").await.expect("there");
    assert_eq!(got.root.media_type, OCI_INDEX);
    let children = manifest_of(&got.root).manifests.expect("children");
    assert_eq!(children.len(), 2);
    assert_eq!(children[1].digest, digest);
    assert_eq!(
        children[1].platform,
        Some(json!({"architecture": "arm64", "os": "linux"}))
    );
    let element = got
        .descriptor
        .resource(&Identity::named("image"))
        .expect("one");
    let Content::Artifact(Artifact::Stored(stored)) = got.local_blob(&element).expect("there")
    else {
        panic!("an artifact is an artifact");
    };
    assert_eq!(stored.root.digest, digest);
    stored
        .store
        .manifest(&digest.to_string())
        .await
        .expect("readable");
    let element = got
        .descriptor
        .resource(&Identity::named("blob"))
        .expect("one");
    assert_eq!(text(got.local_blob(&element).expect("there")).await, "text");
    assert_eq!(
        repository.versions(COMPONENT).await.expect("listed"),
        ["1.0.0"]
    );
}

#[tokio::test]
async fn equal_versions_have_equal_manifests() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let (_, repository) = memory();
        let (b, a) = (
            store_text(&repository, "b", "b").await,
            store_text(&repository, "a", "a").await,
        );
        let put = descriptor("1.0.0", vec![a, b]);
        assert_eq!(
            repository.is_published(&put).await.expect("told"),
            Some(false)
        );
        let predicted = repository.predict(&put).expect("valid").expect("all known");
        let (digest, _) = publish(&repository, &put, Existing::Fail)
            .await
            .expect("published");
        assert_eq!(predicted.digest, digest);
        assert_eq!(
            repository.is_published(&put).await.expect("told"),
            Some(true)
        );
        let (again, outcome) = publish(&repository, &put, Existing::Fail)
            .await
            .expect("equal");
        assert_eq!((again, outcome), (digest.clone(), VersionOutcome::Present));
        digests.push(digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_later_run_finds_content_that_is_there() {
    let (stores, repository) = memory();
    let blob = store_text(&repository, "blob", "text").await;
    // This run has not stored the blob and does not know how long it is.
    let later = over(Arc::new(stores), "acme");
    let put = descriptor("1.0.0", vec![blob.clone()]);
    assert_eq!(later.is_published(&put).await.expect("asked"), None);
    let (digest, _) = publish(&later, &put, Existing::Fail)
        .await
        .expect("published");
    let predicted = repository.predict(&put).expect("valid").expect("known");
    assert_eq!(predicted.digest, digest);
}

#[tokio::test]
async fn nothing_appears_while_content_is_missing() {
    let (_, repository) = memory();
    let missing = json!({"type": "localBlob", "localReference": Digest::sha256(b"x"), "mediaType": "text/plain"});
    for media_type in ["text/plain", OCI_MANIFEST] {
        let mut missing = missing.clone();
        missing["mediaType"] = media_type.into();
        let put = descriptor("1.0.0", vec![resource("gone", missing)]);
        let error = publish(&repository, &put, Existing::Fail)
            .await
            .expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error
                .to_string()
                .contains("resource `name=gone,version=1.0.0`"),
            "{error}"
        );
    }
    assert_eq!(repository.versions(COMPONENT).await.expect("none"), [""; 0]);
}

#[tokio::test]
async fn what_is_there_decides_with_the_policy() {
    use Existing::{Enforce, Fail, NoUpdate, Overwrite};
    use VersionOutcome::{Kept, Present, Replaced, Updated};
    let base = || document("1.0.0", vec![resource("r", json!({"type": "none"}))]);
    let mut unsigned = base();
    unsigned["component"]["labels"] = json!([{"name": "note", "value": "x"}]);
    let mut signed = base();
    signed["component"]["labels"] = json!([{"name": "note", "value": "x", "signing": true}]);
    for (new, existing, expected) in [
        (base(), Fail, Some(Present)),
        (base(), Overwrite, Some(Present)),
        (base(), NoUpdate, Some(Present)),
        (base(), Enforce, Some(Replaced)),
        (unsigned.clone(), Fail, Some(Updated)),
        (unsigned, NoUpdate, Some(Kept)),
        (signed.clone(), Fail, None),
        (signed.clone(), NoUpdate, Some(Kept)),
        (signed.clone(), Overwrite, Some(Replaced)),
        (signed, Enforce, Some(Replaced)),
    ] {
        let (_, repository) = memory();
        let first = ComponentDescriptor::from_value(base()).expect("a descriptor");
        publish(&repository, &first, Fail).await.expect("published");
        let new = ComponentDescriptor::from_value(new).expect("a descriptor");
        let found = publish(&repository, &new, existing).await;
        match (found, expected) {
            (Ok((_, outcome)), Some(expected)) => assert_eq!(outcome, expected, "{existing:?}"),
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            (found, expected) => panic!("{existing:?}: {found:?}, expected {expected:?}"),
        }
        let now = repository
            .get(COMPONENT, "1.0.0")
            .await
            .expect("there")
            .descriptor;
        let changes = matches!(expected, Some(Updated | Replaced));
        assert_eq!(now == new, changes || new == first, "{existing:?}");
    }
}

#[tokio::test]
async fn a_descriptor_keeps_its_bytes_through_a_run() {
    let (_, source) = memory();
    let put = descriptor("1.0.0", vec![]);
    // Spaces and the order of keys show whether the bytes are the same.
    let text = serde_json::to_string_pretty(put.document()).expect("json");
    let put = ComponentDescriptor::decode(DESCRIPTOR_JSON, text.clone().into_bytes()).expect("one");
    publish(&source, &put, Existing::Fail)
        .await
        .expect("published");

    let stores = MemoryStores::new();
    let known = known();
    let spec = RepositorySpec::ctf("memory");
    let open = |stores: MemoryStores| {
        Repository::new(spec.clone(), "x", Arc::new(stores), "", known.clone())
    };
    let run = open(stores.clone());
    publish(&run, &put, Existing::Fail)
        .await
        .expect("published");
    let got = run.get(COMPONENT, "1.0.0").await.expect("there").descriptor;
    // As a step passes it on: JSON, sorted.
    let passed = ComponentDescriptor::from_value(
        serde_json::from_slice(&descriptor("1.0.0", vec![]).encode(Encoding::Json).bytes)
            .expect("json"),
    )
    .expect("a descriptor");
    let target = open(MemoryStores::new());
    publish(&target, &passed, Existing::Fail)
        .await
        .expect("published");
    let again = target
        .get(COMPONENT, "1.0.0")
        .await
        .expect("there")
        .descriptor;
    assert_eq!(again.original(), got.original());
    assert_eq!(&*again.original().expect("read").bytes, text.as_bytes());
}

/// Puts a hand-made manifest with its parts under `tag`.
async fn put_raw(
    stores: &MemoryStores,
    tag: &str,
    config: &str,
    parts: &[(&str, &str)],
    change: impl FnOnce(&mut Manifest),
) {
    let store = stores
        .store("acme/component-descriptors/acme.org/app")
        .expect("a name");
    let config = Blob::from_bytes(COMPONENT_CONFIG, config.to_owned());
    store.push(&config, &[]).await.expect("pushed");
    let mut layers = Vec::new();
    for (media_type, text) in parts {
        let blob = Blob::from_bytes(*media_type, (*text).to_owned());
        layers.push(store.push(&blob, &[]).await.expect("pushed").descriptor);
    }
    let mut manifest = Manifest::image(config.descriptor().expect("known"), layers);
    change(&mut manifest);
    let manifest = RawManifest::write(&manifest);
    store.put_manifest(&manifest, Some(tag)).await.expect("put");
}

#[tokio::test]
async fn reads_what_others_wrote() {
    let (stores, repository) = memory();
    let split = format!("{},{}", Digest::sha256(b"one "), Digest::sha256(b"two"));
    let put = descriptor(
        "1.0.0+2",
        vec![resource(
            "split",
            json!({"type": "localBlob", "localReference": split, "mediaType": "text/plain"}),
        )],
    );
    let encoded = put.encode(Encoding::Json);
    let text_of = std::str::from_utf8(&encoded.bytes).expect("json");
    let link = Descriptor::of(DESCRIPTOR_JSON, &encoded.bytes);
    let config = json!({"componentDescriptorLayer": {"mediaType": link.media_type, "digest": link.digest, "size": link.size}}).to_string();
    // The descriptor is the last layer, and nothing but the config says so; there is no annotation.
    let layers = [
        ("text/plain", "one "),
        ("text/plain", "two"),
        ("application/json", text_of),
    ];
    put_raw(&stores, "1.0.0.build-2", &config, &layers, |_| ()).await;
    put_raw(&stores, "latest", &config, &layers, |_| ()).await;
    put_raw(&stores, "not-a-component", "{}", &[], |manifest| {
        manifest.config.as_mut().expect("a config").media_type = OCI_CONFIG.to_owned();
    })
    .await;

    assert_eq!(
        repository.all_versions(COMPONENT).await.expect("listed"),
        ["1.0.0+2"]
    );
    for version in ["1.0.0+2", "latest", "1.0.0.build-2"] {
        let got = repository.get(COMPONENT, version).await.expect(version);
        assert_eq!(got.descriptor.version(), "1.0.0+2");
        let element = got.descriptor.resources().next().expect("one");
        let Content::Blob(blob) = got.local_blob(&element).expect("there") else {
            panic!("layers are no artifact");
        };
        assert_eq!(blob.size, Some(7));
        assert_eq!(text(blob.into()).await, "one two");
    }
}

#[tokio::test]
async fn what_lies_is_refused() {
    let put = descriptor(
        "1.0.0",
        vec![resource(
            "r",
            json!({"type": "localBlob", "localReference": Digest::sha256(b"x"), "mediaType": "a/b"}),
        )],
    );
    let encoded = put.encode(Encoding::Json);
    let json_text = std::str::from_utf8(&encoded.bytes)
        .expect("json")
        .to_owned();
    let link = |bytes: &[u8]| {
        let link = Descriptor::of(DESCRIPTOR_JSON, bytes);
        json!({"componentDescriptorLayer": {"mediaType": link.media_type, "digest": link.digest, "size": link.size}}).to_string()
    };
    let good = link(&encoded.bytes);
    let other = json_text.replace("acme.org/app", "acme.org/evil");
    let layers = [(DESCRIPTOR_JSON, json_text.as_str())];
    for (tag, config, layers, expected) in [
        ("2.0.0", good.as_str(), &layers[..], ErrorKind::Mismatch),
        (
            "1.0.0",
            &link(other.as_bytes()),
            &[(DESCRIPTOR_JSON, other.as_str())],
            ErrorKind::Mismatch,
        ),
        (
            "1.0.0",
            "{}",
            &[("a/b", "no descriptor")],
            ErrorKind::Invalid,
        ),
        ("1.0.0", "not json", &layers, ErrorKind::Invalid),
        ("1.0.0", &link(b"absent"), &layers, ErrorKind::NotFound),
        (
            "1.0.0",
            &link(b"[]"),
            &[(DESCRIPTOR_JSON, "[]")],
            ErrorKind::Invalid,
        ),
    ] {
        let (stores, repository) = memory();
        put_raw(&stores, tag, config, layers, |_| ()).await;
        let error = repository.get(COMPONENT, tag).await.expect_err("it lies");
        assert_eq!(error.kind(), expected, "{error}");
    }
    // Two versions with one tag.
    let (_, repository) = memory();
    publish(
        &repository,
        &descriptor("1.0.0-x.build-2", vec![]),
        Existing::Fail,
    )
    .await
    .expect("published");
    let error = repository
        .get(COMPONENT, "1.0.0-x+2")
        .await
        .expect_err("the other one");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    let (stores, repository) = memory();
    put_raw(&stores, "1.0.0", "{}", &layers, |_| ()).await;
    let got = repository
        .get(COMPONENT, "1.0.0")
        .await
        .expect("the only descriptor layer");
    let element = got.descriptor.resources().next().expect("one");
    let error = got.local_blob(&element).expect_err("no such layer");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        repository
            .get("no name", "1.0.0")
            .await
            .expect_err("no name")
            .kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_pin_holds() {
    let (_, repository) = memory();
    let (first, _) = publish(&repository, &descriptor("1.0.0", vec![]), Existing::Fail)
        .await
        .expect("one");
    let (second, _) = publish(&repository, &descriptor("2.0.0", vec![]), Existing::Fail)
        .await
        .expect("two");
    let got = repository
        .get_pinned(COMPONENT, Some("1.0.0"), &first)
        .await
        .expect("pinned");
    assert_eq!(got.descriptor.version(), "1.0.0");
    let got = repository
        .get_pinned(COMPONENT, None, &second)
        .await
        .expect("pinned");
    assert_eq!(got.descriptor.version(), "2.0.0");
    let error = repository
        .get_pinned(COMPONENT, Some("1.0.0"), &second)
        .await
        .expect_err("moved");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(
        repository
            .find(COMPONENT, "3.0.0")
            .await
            .expect("asked")
            .is_none()
    );
}

#[tokio::test]
async fn digests_of_old_stay_while_they_hold() {
    let (_, repository) = memory();
    let (artifact, digest) = image().await;
    let sha512 = Digest::of(ocm_specs::Algorithm::Sha512, b"text");
    let triple = |hash: &str, normalisation: &str, value: &str| json!({"hashAlgorithm": hash, "normalisationAlgorithm": normalisation, "value": value});
    let text: Content = Blob::from_bytes("text/plain", "text").into();
    let archive: Content =
        Blob::from_bytes("application/vnd.oci.image.manifest.v1+tar+gzip", "set").into();
    let generic = "genericBlobDigest/v1";
    for (content, old, expected) in [
        (
            Content::from(artifact),
            triple("sha256", generic, digest.hex()),
            None,
        ),
        (text.clone(), triple("SHA-512", generic, sha512.hex()), None),
        (
            text.clone(),
            triple("NO-DIGEST", "EXCLUDE-FROM-SIGNATURE", "NO-DIGEST"),
            None,
        ),
        (
            archive,
            triple("SHA-256", "ociArtifactDigest/v1", digest.hex()),
            None,
        ),
        (
            text,
            triple("SHA-256", "ociArtifactDigest/v1", digest.hex()),
            Some(triple("SHA-256", generic, Digest::sha256(b"text").hex())),
        ),
    ] {
        let mut element = resource("r", json!({"type": "none"}));
        element["digest"] = old.clone();
        let stored = repository
            .prepare_local_blob(COMPONENT, ElementKind::Resource, &element, &content)
            .await
            .expect("stored");
        assert_eq!(stored["digest"], expected.unwrap_or(old));
    }
}

#[tokio::test]
async fn the_second_copy_costs_one_request() {
    let (source_stores, source) = memory();
    let (artifact, _) = image().await;
    let root = artifact.root().expect("it is stored").clone();
    let image = resource(
        "image",
        json!({"type": "ociArtifact", "imageReference": "r.io/acme/app:1.0"}),
    );
    let blob = store_text(&source, "blob", "text").await;
    let put = descriptor("1.0.0", vec![image.clone(), blob.clone()]);
    publish(&source, &put, Existing::Fail)
        .await
        .expect("published");

    let target: Arc<dyn Stores> = Arc::new(MemoryStores::new());
    for is_second in [false, true] {
        // Each time a run of its own, with a look at the source first.
        let calls = crate::counting::Calls::default();
        let counting = crate::counting::Counting {
            calls: calls.clone(),
            inner: target.clone(),
        };
        let known = known();
        let open = |stores, prefix| {
            Repository::new(RepositorySpec::ctf("m"), "m", stores, prefix, known.clone())
        };
        let source = open(Arc::new(source_stores.clone()), "acme");
        source.get(COMPONENT, "1.0.0").await.expect("there");
        // As a session does when it looks an image up.
        known.note_size(&root.digest, root.size);
        let target = open(Arc::new(counting), "");
        let kind = ElementKind::Resource;
        let planned = ComponentDescriptor::from_value(document(
            "1.0.0",
            vec![
                predict_local_blob(kind, &image, &root).expect("no reading"),
                predict_local_blob(kind, &blob, &Descriptor::of("text/plain", b"text"))
                    .expect("no reading"),
            ],
        ))
        .expect("a descriptor");
        let done = target.is_published(&planned).await.expect("asked");
        assert_eq!(done, Some(is_second));
        if is_second {
            assert_eq!(*calls.lock().expect("no panic"), ["resolve"]);
            continue;
        }
        let mut resources = Vec::new();
        let text: Content = Blob::from_bytes("text/plain", "text").into();
        for (element, content) in [(&image, artifact.clone().into()), (&blob, text)] {
            let stored = target
                .prepare_local_blob(COMPONENT, kind, element, &content)
                .await;
            resources.push(stored.expect("stored"));
        }
        let copy = descriptor("1.0.0", resources);
        assert_eq!(copy, planned, "what was planned is what was done");
        publish(&target, &copy, Existing::Fail)
            .await
            .expect("published");
    }
}

#[tokio::test]
async fn a_manifest_without_parts_is_no_content() {
    let (_, repository) = memory();
    let blob = Blob::from_bytes(OCI_MANIFEST, "{}");
    let error = repository
        .prepare_local_blob(
            COMPONENT,
            ElementKind::Resource,
            &resource("r", json!({"type": "none"})),
            &blob.into(),
        )
        .await
        .expect_err("no artifact");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn archives_that_v1_wrote() {
    for (archive, bytes) in [
        (
            "ctf/v1-utf8-resource/transport-archive",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        (
            "ctf/v1-helm-chart/with-resource",
            "sha256:e40e3a2f1ab1a98328dfd14539a79d27aff5c4d5c34cd16a85f0288bfa76490b",
        ),
    ] {
        let Some(path) = crate::ctf::vectors(archive) else {
            return;
        };
        let source = over(crate::ctf::open(&path, Access::ReadOnly).await, "");
        let components = source.components().await.expect("listed");
        assert_eq!(components, ["github.com/acme.org/helloworld"]);
        assert_eq!(
            source.versions(&components[0]).await.expect("listed"),
            ["1.0.0"]
        );
        let got = source.get(&components[0], "1.0.0").await.expect("there");
        let original = got.descriptor.original().expect("it was read");
        assert_eq!(original.media_type, DESCRIPTOR_YAML_TAR);

        // Copied as it is: the same descriptor bytes, the same blob.
        let target = over(Arc::new(MemoryStores::new()), "");
        for element in got.descriptor.resources() {
            let content = got.local_blob(&element).expect("local");
            let stored = target
                .prepare_local_blob(
                    &components[0],
                    ElementKind::Resource,
                    element.value(),
                    &content,
                )
                .await
                .expect("stored");
            assert_eq!(stored["access"]["localReference"], bytes);
            assert_eq!(&stored, element.value(), "nothing of it changed");
        }
        publish(&target, &got.descriptor, Existing::Fail)
            .await
            .expect("published");
        let copy = target.get(&components[0], "1.0.0").await.expect("there");
        assert_eq!(copy.descriptor.original(), Some(original));
    }
}

/// Trap T31: what a layer belongs to is a list; referrers have a single object under the same key.
#[tokio::test]
async fn t31_layers_say_in_a_list_what_they_belong_to() {
    let (stores, repository) = memory();
    let resource = store_text(&repository, "conf", "level: info").await;
    let made = descriptor("1.0.0", vec![resource]);
    publish(&repository, &made, Existing::Fail)
        .await
        .expect("published");
    let store = stores.store(&format!("acme/component-descriptors/{COMPONENT}"));
    let manifest = store
        .expect("a store")
        .manifest("1.0.0")
        .await
        .expect("there");
    let layers = manifest
        .parse()
        .expect("a manifest")
        .layers
        .expect("layers");
    let text = layers[1]
        .annotation("software.ocm.artifact")
        .expect("an annotation");
    let shape: Value = serde_json::from_str(text).expect("JSON in a text");
    assert_eq!(
        shape,
        json!([{"identity": {"name": "conf", "version": "1.0.0"}, "kind": "resource"}])
    );
}

/// Trap T32: a list of versions has the semver ones, of equal ones one; the full list has all.
#[tokio::test]
async fn t32_the_full_list_has_versions_that_are_no_semver_and_equal_ones() {
    let (_, repository) = memory();
    for version in ["1.0", "1.0.0", "2.0.0", "nightly"] {
        publish(&repository, &descriptor(version, vec![]), Existing::Fail)
            .await
            .expect("published");
    }
    let all = repository.all_versions(COMPONENT).await.expect("listed");
    assert_eq!(all, ["1.0", "1.0.0", "2.0.0", "nightly"]);
    let semver = repository.versions(COMPONENT).await.expect("listed");
    assert_eq!(semver.len(), 2);
    assert_eq!(semver[0], "2.0.0");
}
