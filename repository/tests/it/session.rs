//! One run's way to storage.

use std::sync::Arc;

use ocm_content::{Artifact, Blob, Content, ErrorKind, MemoryStores, RawManifest, Stores};
use ocm_repository::{Existing, Session, SessionConfig};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_specs::media_type::{OCI_CONFIG, OCI_MANIFEST};
use ocm_specs::oci::Manifest;
use ocm_specs::reference::ComponentReference;
use ocm_specs::{Digest, Identity, RepositorySpec};
use serde_json::{Value, json};
use tempfile::TempDir;

const COMPONENT: &str = "acme.org/app";

fn session(folder: &TempDir) -> Arc<Session> {
    Session::new(SessionConfig::new(folder.path())).expect("a session")
}

fn descriptor(version: &str, resources: Vec<Value>) -> ComponentDescriptor {
    ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": version, "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": [], "componentReferences": []},
    }))
    .expect("a descriptor")
}

fn resource(name: &str, access: Value) -> Value {
    json!({"name": name, "version": "1", "type": "blob", "relation": "local", "access": access})
}

async fn publish(session: &Session, spec: &RepositorySpec, descriptor: &ComponentDescriptor) {
    let repository = session.repository(spec, true).await.expect("open");
    let prepared = repository
        .prepare_version(descriptor, Existing::Fail)
        .await
        .expect("prepared");
    prepared.publish().await.expect("published");
}

#[tokio::test]
async fn one_archive_however_it_is_spelled() {
    let folder = TempDir::new().expect("a folder");
    let session = session(&folder);
    let plain = RepositorySpec::ctf("archive");
    let missing = session
        .repository(&plain, false)
        .await
        .expect_err("not there yet");
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    let repository = session.repository(&plain, true).await.expect("begun");
    let blob = Blob::from_bytes("text/plain", "text");
    let stored = repository
        .prepare_local_blob(
            COMPONENT,
            ElementKind::Resource,
            &resource("r", json!({"type": "none"})),
            &blob.into(),
        )
        .await
        .expect("stored");
    publish(&session, &plain, &descriptor("1.0.0", vec![stored])).await;
    assert_eq!(session.size(&Digest::sha256(b"text")), Some(4));

    let absolute = folder.path().join("archive").display().to_string();
    for path in [
        "./archive",
        "x/../archive",
        "file://./archive",
        &absolute,
        &format!("file://{absolute}"),
    ] {
        if path.starts_with('x') {
            std::fs::create_dir_all(folder.path().join("x")).expect("a folder");
        }
        let again = session
            .repository(&RepositorySpec::ctf(path), false)
            .await
            .expect(path);
        assert_eq!(again.location(), repository.location(), "{path}");
        again.get(COMPONENT, "1.0.0").await.expect(path);
    }
    let read_only = serde_json::from_value(
        json!({"type": "ctf", "filePath": "archive", "accessMode": "readonly"}),
    )
    .expect("a spec");
    assert!(session.repository(&read_only, true).await.is_err());
    assert!(session.repository(&read_only, false).await.is_ok());

    // Another run, through a reference: the latest version is meant where none is given.
    let later = Session::new(SessionConfig::new("/")).expect("a session");
    publish(&session, &plain, &descriptor("1.10.0", vec![])).await;
    for (suffix, expected) in [("", "1.10.0"), (":1.0.0", "1.0.0")] {
        let text = format!("{absolute}//{COMPONENT}{suffix}");
        let reference: ComponentReference = text.parse().expect("a reference");
        let found = later.component(&reference).await.expect("there");
        assert_eq!(found.descriptor.version(), expected);
    }
}

#[tokio::test]
async fn content_is_found_by_access() {
    let folder = TempDir::new().expect("a folder");
    let session = session(&folder);
    let stores = MemoryStores::new();
    session.register("reg.example:5000", Arc::new(stores.clone()));

    let images = stores.store("acme/images/app").expect("a name");
    let config = Blob::from_bytes(OCI_CONFIG, "{}");
    let link = images.push(&config, &[]).await.expect("pushed").descriptor;
    let image = RawManifest::write(&Manifest::image(link.clone(), vec![]));
    images.put_manifest(&image, Some("1.0")).await.expect("put");

    let pinned = format!("reg.example:5000/acme/images/app:other@{}", image.digest);
    let resources = vec![
        resource(
            "tagged",
            json!({"type": "ociArtifact", "imageReference": "reg.example:5000/acme/images/app:1.0"}),
        ),
        resource(
            "pinned",
            json!({"type": "OCIImage/v1", "imageReference": pinned}),
        ),
        resource(
            "relative",
            json!({"type": "relativeOciReference", "reference": "images/app:1.0"}),
        ),
        resource(
            "layer",
            json!({"type": "ociBlob", "ref": "reg.example:5000/acme/images/app", "digest": link.digest, "mediaType": OCI_CONFIG}),
        ),
        resource("none", json!({"type": "none"})),
        resource("odd", json!({"type": "acme.org/odd"})),
        resource(
            "gone",
            json!({"type": "ociArtifact", "imageReference": "reg.example:5000/acme/images/app:2.0"}),
        ),
        resource(
            "nowhere",
            json!({"type": "ociArtifact", "imageReference": "app:2.0"}),
        ),
    ];
    let spec = RepositorySpec::oci("http://reg.example:5000/", "acme");
    publish(&session, &spec, &descriptor("1.0.0", resources)).await;
    let repository = session.repository(&spec, false).await.expect("open");
    assert_eq!(repository.location(), "http://reg.example:5000/acme");
    let version = repository.get(COMPONENT, "1.0.0").await.expect("there");

    for (name, expected) in [
        ("tagged", Ok(Some("1.0"))),
        ("pinned", Ok(Some("other"))),
        ("relative", Ok(Some("1.0"))),
        ("layer", Ok(None)),
        ("none", Err(ErrorKind::Unsupported)),
        ("odd", Err(ErrorKind::Unsupported)),
        ("gone", Err(ErrorKind::NotFound)),
        ("nowhere", Err(ErrorKind::Invalid)),
    ] {
        let element = version
            .descriptor
            .resource(&Identity::named(name))
            .expect(name);
        match (session.content(&version, &element).await, expected) {
            (Ok(Content::Artifact(Artifact::Stored(stored))), Ok(Some(tag))) => {
                assert_eq!(stored.root.digest, image.digest, "{name}");
                assert_eq!(stored.root.media_type, OCI_MANIFEST);
                assert_eq!(stored.tag.as_deref(), Some(tag), "{name}");
            }
            (Ok(Content::Blob(blob)), Ok(None)) => {
                assert_eq!(blob.read(10).await.expect("readable"), "{}");
            }
            (Err(error), Err(kind)) => assert_eq!(error.kind(), kind, "{error}"),
            (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test]
async fn files_are_content() {
    let folder = TempDir::new().expect("a folder");
    let session = session(&folder);
    let long = "x".repeat(700_000);
    std::fs::write(folder.path().join("a b.txt"), &long).expect("written");
    let uri = format!("file://{}/a%20b.txt", folder.path().display());
    for path in ["a b.txt", "./a b.txt", "file://a b.txt", &uri] {
        let blob = session.file(path, Some("text/plain")).await.expect(path);
        assert_eq!(
            (blob.size, blob.media_type.as_str()),
            (Some(700_000), "text/plain")
        );
        for _ in 0..2 {
            assert_eq!(blob.read(1 << 20).await.expect("readable"), long);
        }
    }
    let blob = session.file("a b.txt", None).await.expect("there");
    std::fs::write(folder.path().join("a b.txt"), "short").expect("written");
    assert_eq!(
        blob.read(1 << 20).await.expect_err("it changed").kind(),
        ErrorKind::Mismatch
    );
    for (path, kind) in [("none.txt", ErrorKind::NotFound), (".", ErrorKind::Invalid)] {
        assert_eq!(session.file(path, None).await.expect_err(path).kind(), kind);
    }
}

#[tokio::test]
async fn a_later_run_finds_content_in_an_archive() {
    let folder = TempDir::new().expect("a folder");
    let spec = RepositorySpec::ctf("archive");
    let blob = Blob::from_bytes("text/plain", "text");
    let stored = session(&folder)
        .repository(&spec, true)
        .await
        .expect("begun")
        .prepare_local_blob(
            COMPONENT,
            ElementKind::Resource,
            &resource("r", json!({"type": "none"})),
            &blob.into(),
        )
        .await
        .expect("stored");
    let later = session(&folder);
    let put = descriptor("1.0.0", vec![stored]);
    publish(&later, &spec, &put).await;
    let repository = later.repository(&spec, false).await.expect("open");
    assert_eq!(
        repository.is_published(&put).await.expect("asked"),
        Some(true)
    );
}

#[tokio::test]
async fn from_an_archive_to_a_registry_and_back() {
    let Some(registry) = crate::oci::debian::registry("").await else {
        return;
    };
    let folder = TempDir::new().expect("a folder");
    let places = [
        RepositorySpec::ctf("archive"),
        RepositorySpec::oci(registry.host.clone(), "acme/first"),
        RepositorySpec::oci(format!("http://{}", registry.host), "acme/second"),
        RepositorySpec::ctf("copy"),
    ];

    // An image in the registry, and a component version in the archive that has it and a text by value.
    let first = session(&folder);
    let image_reference = format!("{}/images/app:1.0", registry.host);
    let store = first
        .oci_store(&image_reference.parse().expect("a reference"))
        .expect("a store");
    let config = Blob::from_bytes(OCI_CONFIG, "{}");
    let link = store.push(&config, &[]).await.expect("pushed").descriptor;
    let image = RawManifest::write(&Manifest::image(link, vec![]));
    store.put_manifest(&image, Some("1.0")).await.expect("put");
    let archive = first.repository(&places[0], true).await.expect("begun");
    let missing = archive.find(COMPONENT, "1.0.0+x").await.expect("asked");
    assert!(missing.is_none());
    let mut resources = Vec::new();
    let text: Content = Blob::from_bytes("text/plain", "text").into();
    let artifact: Content = first
        .artifact(&image_reference)
        .await
        .expect("there")
        .into();
    for (element, content) in [
        (resource("text", json!({"type": "none"})), text),
        (
            resource(
                "image",
                json!({"type": "ociArtifact", "imageReference": image_reference}),
            ),
            artifact,
        ),
    ] {
        let stored = archive
            .prepare_local_blob(COMPONENT, ElementKind::Resource, &element, &content)
            .await;
        resources.push(stored.expect("stored"));
    }
    publish(&first, &places[0], &descriptor("1.0.0+x", resources)).await;

    for hop in places.windows(2) {
        // Each hop is a run of its own.
        let session = session(&folder);
        let source = session.repository(&hop[0], false).await.expect("open");
        let target = session.repository(&hop[1], true).await.expect("open");
        let version = source.get(COMPONENT, "1.0.0+x").await.expect("there");
        assert_eq!(
            target
                .is_published(&version.descriptor)
                .await
                .expect("asked"),
            Some(false)
        );
        for element in version.descriptor.resources() {
            let content = version.local_blob(&element).expect("local");
            let stored = target
                .prepare_local_blob(COMPONENT, ElementKind::Resource, element.value(), &content)
                .await
                .expect("stored");
            assert_eq!(&stored, element.value(), "nothing of it changes");
        }
        publish(&session, &hop[1], &version.descriptor).await;
        assert_eq!(
            target
                .is_published(&version.descriptor)
                .await
                .expect("asked"),
            Some(true)
        );
        let copy = target.get(COMPONENT, "1.0.0+x").await.expect("there");
        assert_eq!(copy.root, version.root, "the very same manifest everywhere");
        assert_eq!(
            target.versions(COMPONENT).await.expect("listed"),
            ["1.0.0+x"]
        );
        assert_eq!(target.components().await.expect("listed"), [COMPONENT]);
    }
}
