//! What is not changed on its way arrives byte for byte.

use std::path::Path;
use std::sync::Arc;

use ocm_content::{Blob, Content, ErrorKind, MemoryStores};
use ocm_engine::Status;
use ocm_repository::Session;
use ocm_specs::Digest;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, ElementKind, Encoding};
use serde_json::{Value as Json, json};

use crate::support::{run, session, vector_path};

/// Takes one component version from the archive at `source` to `ghcr.io/acme` and to the archive `target`, without content.
async fn carry(session: &Arc<Session>, source: &str, name: &str, by: &str) {
    let (field, output) = match by {
        "value" => ("componentDescriptor", "${down.output.descriptor}"),
        _ => ("data", "${down.output.data}"),
    };
    let mut spec = json!({"transformations": [
        {"id": "down", "type": "downloader.component.ctf/v1alpha1", "spec": {"filePath": source, "name": name, "version": "1.0.0"}},
        {"id": "oci", "type": "uploader.component.oci/v1alpha1", "spec": {"baseUrl": "ghcr.io", "subPath": "acme"}},
        {"id": "ctf", "type": "uploader.component.ctf/v1alpha1", "spec": {"filePath": "target"}},
    ]});
    for step in [1, 2] {
        spec["transformations"][step]["spec"][field] = json!(output);
    }
    let (result, _) = run(session, &spec.to_string()).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
}

/// The descriptor in a repository, with its bytes.
async fn stored(session: &Session, spec: &RepositorySpec, name: &str) -> ComponentDescriptor {
    let repository = session.repository(spec, false).await.expect("opens");
    let version = repository.get(name, "1.0.0").await.expect("a version");
    version.descriptor
}

#[tokio::test]
async fn a_descriptor_that_v1_wrote_keeps_its_bytes() {
    let Some(source) = vector_path("ctf/v1-helm-chart/without-resource") else {
        return;
    };
    let name = "github.com/acme.org/helloworld";
    for by in ["value", "bytes"] {
        check(&source, name, Encoding::YamlTar.media_type(), by).await;
    }
}

#[tokio::test]
async fn a_descriptor_with_nulls_keeps_its_bytes() {
    let name = "acme.org/app";
    let document = json!({"component": {"version": "1.0.0", "name": name, "labels": null, "provider": "acme", "creationTime": null,
        "repositoryContexts": [], "sources": null, "componentReferences": [], "x-unknown": [1.5, 12345678901234567890_u64],
        "resources": [{"name": "a", "version": "1", "type": "t", "relation": "external", "labels": null, "extraIdentity": {},
            "access": {"type": "ociArtifact", "imageReference": "ghcr.io/x/y:1"}, "digest": null, "srcRefs": []}]},
        "signatures": null, "nestedDigests": null, "meta": {"schemaVersion": "v2"}});
    for (media_type, bytes) in [
        (Encoding::Json.media_type(), document.to_string()),
        (Encoding::Json.media_type(), format!("{document:#}\n")),
        (Encoding::Yaml.media_type(), format!("# kept\n{document}\n")),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), name, media_type, bytes.as_bytes()).await;
        let source = folder.path().join("source").display().to_string();
        for by in ["value", "bytes"] {
            check(&source, name, media_type, by).await;
        }
    }
}

async fn check(source: &str, name: &str, media_type: &str, by: &str) {
    let (registry, folder) = (MemoryStores::new(), tempfile::tempdir().expect("a folder"));
    let session = session(folder.path(), &registry);
    carry(&session, source, name, by).await;
    let before = stored(&session, &RepositorySpec::ctf(source), name).await;
    let original = before.original().expect("bytes");
    assert_eq!(original.media_type, media_type);
    for target in [
        RepositorySpec::oci("ghcr.io", "acme"),
        RepositorySpec::ctf("target"),
    ] {
        let after = stored(&session, &target, name).await;
        assert_eq!(after.original(), Some(original), "{target:?} by {by}");
    }
}

/// Puts a component version with exactly these bytes as its descriptor into `folder/source`.
async fn write(folder: &Path, name: &str, media_type: &str, bytes: &[u8]) {
    let session = Session::new(ocm_repository::SessionConfig::new(folder)).expect("a session");
    let spec = RepositorySpec::ctf("source");
    let repository = session.repository(&spec, true).await.expect("opens");
    let descriptor = ComponentDescriptor::decode(media_type, bytes).expect("a descriptor");
    let prepared = repository.prepare_version(&descriptor, Default::default());
    let published = prepared.await.expect("prepares").publish().await;
    published.expect("publishes");
    let found: Json = stored(&session, &spec, name).await.document().clone();
    assert_eq!(found, *descriptor.document());
}

#[tokio::test]
async fn a_blob_in_several_layers_is_what_its_descriptor_states() {
    let name = "acme.org/app";
    for (stated, fine) in [("onetwo", true), ("other", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let session = session(folder.path(), &MemoryStores::new());
        let spec = RepositorySpec::ctf("source");
        let repository = session.repository(&spec, true).await.expect("opens");
        let mut digests = Vec::new();
        for part in ["one", "two"] {
            let content = Content::Blob(Blob::from_bytes("text/plain", part));
            let element = json!({"name": "r", "version": "1", "type": "blob", "relation": "local"});
            let stored = repository
                .prepare_local_blob(name, ElementKind::Resource, &element, &content)
                .await
                .expect("stores");
            let digest = stored["access"]["localReference"].as_str();
            digests.push(digest.expect("a digest").to_owned());
        }
        let document = json!({"meta": {"schemaVersion": "v2"}, "component": {
            "name": name, "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "sources": [], "componentReferences": [],
            "resources": [{"name": "r", "version": "1", "type": "blob", "relation": "local",
                "access": {"type": "localBlob", "localReference": digests.join(","), "mediaType": "text/plain"},
                "digest": DigestSpec::new(&Digest::sha256(stated.as_bytes()), false).to_value()}]}});
        let descriptor = ComponentDescriptor::from_value(document).expect("a descriptor");
        let prepared = repository.prepare_version(&descriptor, Default::default());
        let published = prepared.await.expect("prepares").publish().await;
        published.expect("publishes");

        let place = json!({"type": "CommonTransportFormat/v1", "filePath": "target"});
        let spec = json!({"transformations": [
            {"id": "down", "type": "downloader.component.ctf/v1alpha1", "spec": {"filePath": "source", "name": name, "version": "1.0.0"}},
            {"id": "get", "type": "downloader.localblob.ctf/v1alpha1", "spec": {"filePath": "source",
                "componentDescriptor": "${down.output.descriptor}", "resource": {"name": "r"}}},
            {"id": "add", "type": "CTFAddLocalResource/v1alpha1", "spec": {"repository": place, "component": name, "version": "1.0.0",
                "resource": "${get.output.resource}", "file": "${get.output.data}"}},
        ]});
        let (result, _) = run(&session, &spec.to_string()).await;
        if fine {
            assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
            let resource = &result.output("add").expect("an output")["resource"];
            let digest = Digest::sha256(b"onetwo");
            assert_eq!(resource["access"]["localReference"], digest.to_string());
        } else {
            let (_, error) = result.failures.first().expect("a failure");
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        }
    }
}
