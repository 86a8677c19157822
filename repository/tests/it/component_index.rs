//! The component index, and content that is not beside its descriptor: relative references, global accesses.

use std::sync::Arc;

use ocm_content::{Artifact, Blob, Content, ErrorKind, MemoryStores, RawManifest, Stores};
use ocm_repository::{Session, SessionConfig, component_index};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind, Encoding};
use ocm_specs::media_type::{COMPONENT_CONFIG, DESCRIPTOR_JSON};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Digest, RepositorySpec};
use ocm_testdata::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ctf::vectors;
use crate::forms::{KINDS, finish, new_session, place, publish, session_with};

const COMPONENT: &str = "acme.org/app";

fn descriptor(version: &str, resources: Vec<Value>) -> ComponentDescriptor {
    ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": version, "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": [], "componentReferences": []},
    }))
    .expect("a descriptor")
}

fn resource(access: Value) -> Value {
    json!({"name": "r", "version": "1", "type": "blob", "relation": "local", "access": access})
}

#[test]
fn it_is_the_one_of_the_reference_to_the_byte() {
    let Some(path) = vectors("oci/component-index-v1.manifest.json") else {
        return;
    };
    let index = component_index();
    assert!(index.bytes == std::fs::read(path).expect("there"));
    assert_eq!(index.bytes.len(), 837);
    assert_eq!(
        index.digest.to_string(),
        "sha256:9717cda41c478af11cba7ed29f4aa3e4882bab769d006788169cbccafc0fcd05"
    );
}

#[tokio::test]
async fn its_referrers_are_the_versions() {
    let temp = TempDir::new().expect("temp");
    for kind in KINDS {
        let target = place(kind, temp.path().join("target")).await;
        let image = MemoryStores::new().store("image").expect("a name");
        let image = fixtures::image_index().push(&image, None).await;
        let image = Content::Artifact(Artifact::Stored(image.expect("an image")));
        // The first run writes nothing about the index, the second does; both again change nothing.
        for is_indexed in [false, true, true] {
            let session = session_with(is_indexed);
            let repository = session.repository(&target.spec, true).await.expect("opens");
            let element = resource(json!({"type": "none"}));
            let stored =
                repository.prepare_local_blob(COMPONENT, ElementKind::Resource, &element, &image);
            let stored = stored.await.expect("stored");
            let (plain, form) = if is_indexed {
                ("1.0.0", "1.1.0+2")
            } else {
                ("0.1.0", "0.2.0")
            };
            publish(&repository, &descriptor(plain, vec![])).await;
            publish(&repository, &descriptor(form, vec![stored])).await;
            finish(&session).await;
        }
        let listed = async |by_index: bool| {
            let session = session_with(by_index);
            let repository = session
                .repository(&target.spec, false)
                .await
                .expect("opens");
            let none = repository.all_versions("acme.org/other").await;
            assert!(none.expect("listed").is_empty());
            repository.all_versions(COMPONENT).await.expect("listed")
        };
        assert_eq!(listed(true).await, ["1.0.0", "1.1.0+2"], "{kind}");
        assert_eq!(
            listed(false).await,
            ["0.1.0", "0.2.0", "1.0.0", "1.1.0+2"],
            "{kind}"
        );

        let session = new_session();
        let repository = session
            .repository(&target.spec, false)
            .await
            .expect("opens");
        let store = repository.store(COMPONENT).expect("a name");
        let index = component_index();
        let there = store
            .manifest(&index.digest.to_string())
            .await
            .expect("there");
        assert_eq!(there, index);
        for (version, is_indexed) in [("0.2.0", false), ("1.0.0", true), ("1.1.0+2", true)] {
            let found = repository.get(COMPONENT, version).await.expect("there");
            let mut manifests = vec![found.root.parse().expect("a manifest")];
            let child = manifests[0].children().next().cloned();
            if let Some(child) = child {
                let child = store
                    .manifest(&child.digest.to_string())
                    .await
                    .expect("there");
                manifests.push(child.parse().expect("a manifest"));
            }
            for manifest in manifests {
                let subject = manifest.subject.map(|link| {
                    let artifact_type = link.artifact_type.clone();
                    (link.digest, link.size, artifact_type)
                });
                let expected = is_indexed.then(|| {
                    let kind = "application/vnd.ocm.software.component-index.v1+json".to_owned();
                    (index.digest.clone(), 837, Some(kind))
                });
                assert_eq!(subject, expected, "{version}");
            }
        }
    }
    // Where nothing refers to it, tags tell.
    let target = place("directory", temp.path().join("plain")).await;
    let session = new_session();
    let repository = session.repository(&target.spec, true).await.expect("opens");
    publish(&repository, &descriptor("1.0.0", vec![])).await;
    let session = session_with(true);
    let repository = session
        .repository(&target.spec, false)
        .await
        .expect("opens");
    assert_eq!(
        repository.all_versions(COMPONENT).await.expect("listed"),
        ["1.0.0"]
    );
}

/// A session for which `registry.example` is in memory.
fn with_registry() -> (Arc<Session>, MemoryStores) {
    let stores = MemoryStores::new();
    let session = Session::new(SessionConfig::new("/")).expect("a session");
    session.register("registry.example", Arc::new(stores.clone()));
    (session, stores)
}

#[tokio::test]
async fn relative_references_start_where_the_component_is() {
    let temp = TempDir::new().expect("temp");
    let (session, stores) = with_registry();
    let spec = RepositorySpec::oci("registry.example", "base");
    let repository = session.repository(&spec, true).await.expect("opens");
    let store = stores.store("base/images/app").expect("a name");
    let image = fixtures::image_index().push(&store, Some("1.0")).await;
    let digest = image.expect("an image").root.digest;
    for reference in [
        "images/app:1.0".to_owned(),
        format!("images/app:1.0@{digest}"),
        format!("images/app@{digest}"),
    ] {
        let access = json!({"type": "relativeOciReference", "reference": reference});
        let version = descriptor("1.0.0", vec![resource(access)]);
        let prepared = repository.prepare_version(&version, ocm_repository::Existing::Overwrite);
        prepared
            .await
            .expect("prepared")
            .publish()
            .await
            .expect("published");
        let found = repository.get(COMPONENT, "1.0.0").await.expect("there");
        let element = found.descriptor.resources().next().expect("one");
        let content = session.content(&found, &element).await.expect("there");
        let Content::Artifact(artifact) = &content else {
            panic!("an image");
        };
        assert_eq!(artifact.root().map(|root| &root.digest), Some(&digest));
        // Carried on by value it does not depend on that place any more, and keeps its name.
        let target = place("directory", temp.path().join("target")).await;
        let target = session.repository(&target.spec, true).await.expect("opens");
        let stored = target
            .prepare_local_blob(COMPONENT, ElementKind::Resource, element.value(), &content)
            .await
            .expect("stored");
        assert_eq!(stored["access"]["localReference"], digest.to_string());
        let name = stored["access"]["referenceName"].as_str().expect("a name");
        assert!(reference.starts_with(name) && name.starts_with("images/app"));
    }
    let access = json!({"type": "relativeOciReference", "reference": "images/gone:1"});
    let version = descriptor("2.0.0", vec![resource(access)]);
    publish(&repository, &version).await;
    let found = repository.get(COMPONENT, "2.0.0").await.expect("there");
    let element = found.descriptor.resources().next().expect("one");
    let error = session.content(&found, &element).await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_global_access_is_the_other_way_to_the_same_content() {
    let stores = MemoryStores::new();
    let spec = RepositorySpec::oci("registry.example", "base");
    let other = stores.store("other/place").expect("a name");
    let bytes = b"global";
    let blob = Blob::from_bytes("text/plain", &bytes[..]);
    other.push(&blob, &[]).await.expect("pushed");
    let evil = Blob::from_bytes("text/plain", "another");
    let evil = other.push(&evil, &[]).await.expect("pushed").descriptor;
    let digest = Digest::sha256(bytes);
    let blob_access = |digest: &Digest, size: u64| {
        json!({"type": "ociBlob", "ref": "registry.example/other/place", "mediaType": "text/plain",
            "digest": digest, "size": size})
    };
    for (global, expected) in [
        (blob_access(&digest, 6), Ok("global")),
        (
            blob_access(&evil.digest, evil.size),
            Err(ErrorKind::Mismatch),
        ),
        (
            json!({"type": "localBlob", "localReference": digest, "mediaType": "text/plain"}),
            Err(ErrorKind::Unsupported),
        ),
        (Value::Null, Err(ErrorKind::NotFound)),
    ] {
        // A run of its own: within one a tag stays what it was.
        let session = Session::new(SessionConfig::new("/")).expect("a session");
        session.register("registry.example", Arc::new(stores.clone()));
        let repository = session.repository(&spec, true).await.expect("opens");
        // A manifest without the layer that the descriptor names.
        let access = json!({"type": "localBlob", "localReference": digest, "mediaType": "text/plain",
            "globalAccess": global});
        let stored = descriptor("1.0.0", vec![resource(access)]).encode(Encoding::Json);
        let store = repository.store(COMPONENT).expect("a name");
        let push = async |media_type: &str, bytes: Vec<u8>| -> Descriptor {
            let blob = Blob::from_bytes(media_type, bytes);
            store.push(&blob, &[]).await.expect("pushed").descriptor
        };
        let layer = push(DESCRIPTOR_JSON, stored.bytes.to_vec()).await;
        let config = json!({"componentDescriptorLayer": {
            "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}});
        let config = push(COMPONENT_CONFIG, config.to_string().into_bytes()).await;
        let manifest = RawManifest::write(&Manifest::image(config, vec![layer]));
        store
            .put_manifest(&manifest, Some("1.0.0"))
            .await
            .expect("put");

        let found = repository.get(COMPONENT, "1.0.0").await.expect("there");
        let element = found.descriptor.resources().next().expect("one");
        match (session.content(&found, &element).await, expected) {
            (Ok(Content::Blob(blob)), Ok(text)) => {
                assert_eq!(blob.read(100).await.expect("reads"), text);
            }
            (Err(error), Err(kind)) => assert_eq!(error.kind(), kind, "{error}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }
}
