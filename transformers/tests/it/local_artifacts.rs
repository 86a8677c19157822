//! OCI artifacts that lie as archives beside a component descriptor, taken to a registry.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use ocm_content::gzip::gunzip;
use ocm_content::{Blob, Content, MemoryStores, Stores};
use ocm_engine::{RunResult, Status};
use ocm_repository::{Existing, Session};
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_transformers::signing::{ContentState, check_content};
use serde_json::{Value as Json, json};

use crate::support::{bytes, run, session, vector_path};

const NAME: &str = "github.com/acme.org/helloworld";
const SET: &str = "b3c90368200682e7d1180b2dcbbcb109a50ce92922ccbb8ff535ee827db6a470";
const LAYOUT: &str = "3572605a9b5634cff58bf86d649df46638eb096b6987adfd03157f1306b66c6c";

/// Uploads the one resource of a component version: as it is, and opened by a step of its own first.
async fn upload(session: &Arc<Session>, archive: &str, opened: bool) -> RunResult {
    let mut steps = vec![
        json!({"id": "down", "type": "downloader.component.ctf/v1alpha1",
            "spec": {"filePath": archive, "name": NAME, "version": "1.0.0"}}),
        json!({"id": "blob", "type": "downloader.localblob.ctf/v1alpha1",
            "spec": {"filePath": archive, "componentDescriptor": "${down.output.descriptor}", "resource": {"name": "mychart"}}}),
    ];
    let data = match opened {
        true => {
            steps.push(json!({"id": "open", "type": "localblob.to.oci/v1alpha1",
                "spec": {"data": "${blob.output.data}"}}));
            "${open.output.data}"
        }
        false => "${blob.output.data}",
    };
    steps.push(json!({"id": "up", "type": "uploader.oci/v1alpha1",
        "spec": {"imageReference": "ghcr.io/acme/chart:1", "data": data, "componentDescriptor": "${down.output.descriptor}"}}));
    run(session, &json!({"transformations": steps}).to_string())
        .await
        .0
}

#[tokio::test]
async fn a_chart_that_v1_embedded_becomes_the_artifact_it_was() {
    let Some(archive) = vector_path("ctf/v1-helm-chart/with-resource") else {
        return;
    };
    let digest = "sha256:62be4af3382a4493cb7f1dd4ec47bcb28f1863b615fc9e4a1dceefbe93898dd0";
    for opened in [false, true] {
        let (registry, folder) = (MemoryStores::new(), PathBuf::from("/"));
        let session = session(&folder, &registry);
        let result = upload(&session, &archive, opened).await;
        assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
        let output = result.output("up").expect("an output");
        assert_eq!(output["digest"], digest);
        let down = result.output("down").expect("an output");
        let before = &down["descriptor"]["component"]["resources"][0];
        assert_eq!(output["resource"]["digest"], before["digest"]);
        let store = registry.store("acme/chart").expect("a store");
        let manifest = store.manifest("1").await.expect("a manifest");
        assert_eq!(manifest.digest.to_string(), digest);
        for link in manifest.parse().expect("parses").blobs() {
            let blob = store.fetch(link).read(1 << 20).await.expect("a blob");
            assert_eq!(blob.len() as u64, link.size);
        }
    }
}

/// Stores `content` as the resource of a component version that states this digest.
async fn embed(session: &Arc<Session>, media_type: &str, content: Bytes, stated: Json) {
    let spec = RepositorySpec::ctf("archive");
    let archive = session.repository(&spec, true).await.expect("an archive");
    let content = Content::Blob(Blob::from_bytes(media_type, content));
    let resource = json!({"name": "mychart", "version": "1.0.0", "type": "helmChart", "relation": "local", "digest": stated});
    let stored = archive
        .prepare_local_blob(NAME, ElementKind::Resource, &resource, &content)
        .await
        .expect("stores");
    let descriptor =
        ComponentDescriptor::from_value(json!({"meta": {"schemaVersion": "v2"}, "component": {
            "name": NAME, "version": "1.0.0", "provider": "acme.org", "repositoryContexts": [],
            "resources": [stored], "sources": [], "componentReferences": [],
        }}))
        .expect("a descriptor");
    let prepared = archive.prepare_version(&descriptor, Existing::Overwrite);
    let prepared = prepared.await.expect("prepares");
    prepared.publish().await.expect("publishes");
}

#[tokio::test]
async fn archives_hold_what_their_descriptor_states() {
    let (Some(set), Some(layout)) = (
        bytes("oci/artifact-set-helm-chart.tgz"),
        bytes("oci/oci-layout.tar.gz"),
    ) else {
        return;
    };
    let triple = |kind: &str, value: &str| json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": kind, "value": value});
    let set_type = "application/vnd.oci.image.manifest.v1+tar+gzip";
    let layout_type = "application/vnd.ocm.software.oci.layout.v1+tar+gzip";
    for (media_type, content, packed, inside, stated, fine) in [
        (set_type, &set, true, SET, SET, true),
        (set_type, &set, false, SET, SET, true),
        (set_type, &set, true, SET, LAYOUT, false),
        (layout_type, &layout, true, LAYOUT, LAYOUT, true),
        (layout_type, &layout, false, LAYOUT, SET, false),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = MemoryStores::new();
        let session = session(folder.path(), &registry);
        let content = match packed {
            true => content.clone(),
            false => {
                let packed = Box::pin(stream::iter([Ok(content.clone())]));
                let chunks: Vec<_> = gunzip(packed, session.limits())
                    .map(|it| it.expect("gzip"))
                    .collect()
                    .await;
                chunks.concat().into()
            }
        };
        let kind = "ociArtifactDigest/v1";
        embed(&session, media_type, content, triple(kind, stated)).await;
        for opened in [false, true] {
            let result = upload(&session, "archive", opened).await;
            if fine {
                assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
                let output = result.output("up").expect("an output");
                assert_eq!(output["digest"], format!("sha256:{inside}"));
                assert_eq!(output["resource"]["digest"], triple(kind, inside));
            } else {
                let (_, error) = result.failures.first().expect("a failure");
                assert_eq!(error.field.as_deref(), Some("data"));
                assert_eq!(error.kind(), ocm_content::ErrorKind::Mismatch, "{error}");
                let tags = registry.store("acme/chart").expect("a store").tags().await;
                assert_eq!(tags.unwrap_or_default(), [""; 0], "nothing was published");
            }
        }
    }
}

/// Trap T10: the library v2 labels the digest of a manifest as that of a blob. It is verified by its value, and stays.
#[tokio::test]
async fn t10_the_digest_of_an_artifact_may_be_labelled_as_that_of_a_blob() {
    let Some(set) = bytes("oci/artifact-set-helm-chart.tgz") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let registry = MemoryStores::new();
    let session = session(folder.path(), &registry);
    let triple = |value: &str| json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": value});
    let media_type = "application/vnd.oci.image.manifest.v1+tar+gzip";
    for (value, expected) in [(SET, ContentState::Ok), (LAYOUT, ContentState::Mismatch)] {
        embed(&session, media_type, set.clone(), triple(value)).await;
        let spec = RepositorySpec::ctf("archive");
        let archive = session.repository(&spec, false).await.expect("an archive");
        let version = archive.get(NAME, "1.0.0").await.expect("a version");
        let mut resources = version.descriptor.elements(ElementKind::Resource);
        let resource = resources.next().expect("a resource");
        let found = check_content(&session, &version, &resource).await;
        assert_eq!(found.state, expected, "{found:?}");
    }
}
