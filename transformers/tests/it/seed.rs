//! The list spec of the design, run from a CTF directory and a registry in memory.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use ocm_content::gzip::{gunzip, gzip};
use ocm_content::{Blob, ByteStream, Content, ContentStore, MemoryStores, RawManifest, Stores};
use ocm_engine::Status;
use ocm_repository::Session;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::ElementKind;
use ocm_specs::media_type::{
    HELM_CHART_LAYER, HELM_CONFIG, HELM_PROVENANCE_LAYER, OCI_CONFIG, OCI_LAYER_TAR,
};
use ocm_specs::oci::Manifest;
use serde_json::{Value as Json, json};

use crate::support::{bytes, run, session, vector};

const SOURCE: &str = "./test/localization-multi-component/archive";
const TARGET: &str = "./test/localization-multi-component/archive-after-localization";
const VALUES: &str =
    "# of the chart\nimage:\n  repository: \"old/place\" # set by the transfer\n  tag: 1.0.0\n";
const LOCALIZED: &str = "# of the chart\nimage:\n  repository: \"ghcr.io/fabianburth/images/myimage\" # set by the transfer\n  tag: 1.0.0\n";

async fn put(
    store: &Arc<dyn ContentStore>,
    config: (&str, &'static str),
    layers: &[(&str, Bytes)],
) -> RawManifest {
    let config = Blob::from_bytes(config.0, config.1);
    let config = store.push(&config, &[]).await.expect("config").descriptor;
    let mut links = Vec::new();
    for (media_type, bytes) in layers {
        let blob = Blob::from_bytes(*media_type, bytes.clone());
        links.push(store.push(&blob, &[]).await.expect("layer").descriptor);
    }
    let mut manifest = Manifest::image(config, links);
    manifest.annotations = Some([("acme.org/kept".to_owned(), "yes".to_owned())].into());
    let raw = RawManifest::write(&manifest);
    store
        .put_manifest(&raw, Some("1.0.0"))
        .await
        .expect("manifest");
    raw
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .expect("appends");
    }
    builder.into_inner().expect("ends")
}

fn chart(values: &str) -> Vec<u8> {
    tar(&[
        ("mychart/Chart.yaml", "name: mychart\n"),
        ("mychart/values.yaml", values),
        ("mychart/charts/sub/values.yaml", VALUES),
    ])
}

async fn collect(stream: ByteStream) -> Bytes {
    let chunks: Vec<_> = stream.map(|it| it.expect("bytes")).collect().await;
    chunks.concat().into()
}

fn once(bytes: impl Into<Bytes>) -> ByteStream {
    Box::pin(stream::iter([Ok(bytes.into())]))
}

fn component(name: &str, resources: Json) -> Json {
    json!({"meta": {"schemaVersion": "v2"}, "component": {
        "name": name, "version": "1.0.0", "provider": "acme.org", "creationTime": "2024-01-02T03:04:05Z",
        "repositoryContexts": [], "resources": resources, "sources": [], "componentReferences": [],
    }})
}

fn triple(manifest: &RawManifest) -> Json {
    json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "ociArtifactDigest/v1", "value": manifest.digest.hex()})
}

fn external(name: &str, kind: &str, manifest: &RawManifest) -> Json {
    json!({"name": name, "version": "1.0.0", "type": kind, "relation": "external",
        "labels": [{"name": "l", "value": {"b": 1, "a": 2}}],
        "access": {"type": "ociArtifact", "imageReference": format!("ghcr.io/source/{name}:1.0.0")},
        "digest": triple(manifest)})
}

/// Fills registry and source archive; gives the two manifests.
async fn prepare(session: &Arc<Session>, registry: &MemoryStores) -> (RawManifest, RawManifest) {
    let store = |name: &str| registry.store(name).expect("a store");
    let layer = (OCI_LAYER_TAR, Bytes::from(tar(&[("bin", "x")])));
    let image = put(&store("source/myimage"), (OCI_CONFIG, "{}"), &[layer]).await;
    let content = collect(gzip(once(chart(VALUES)), 1, session.limits())).await;
    let layers = [
        (HELM_CHART_LAYER, content),
        (HELM_PROVENANCE_LAYER, Bytes::from_static(b"signed")),
    ];
    let chart = put(
        &store("source/mychart"),
        (HELM_CONFIG, r#"{"name":"mychart"}"#),
        &layers,
    )
    .await;

    let spec = RepositorySpec::ctf(SOURCE);
    let archive = session.repository(&spec, true).await.expect("an archive");
    let blob = Content::Blob(Blob::from_bytes("text/plain", "hello, europe"));
    let resource =
        json!({"name": "helloeurope", "version": "1.0.0", "type": "blob", "relation": "local"});
    let name = "github.com/acme.org/helloeurope";
    let resource = archive
        .prepare_local_blob(name, ElementKind::Resource, &resource, &blob)
        .await
        .expect("stores");
    let world = component(
        "github.com/acme.org/helloworld",
        json!([
            external("myimage", "ociImage", &image),
            external("mychart", "helmChart", &chart)
        ]),
    );
    for descriptor in [world, component(name, json!([resource]))] {
        let spec = json!({"transformations": [{"type": "uploader.component.ctf/v1alpha1", "id": "up",
            "spec": {"filePath": SOURCE, "componentDescriptor": descriptor}}]});
        let (result, _) = run(session, &spec.to_string()).await;
        assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    }
    (image, chart)
}

async fn descriptor(session: &Arc<Session>, path: &str, name: &str) -> Json {
    let spec = json!({"transformations": [{"type": "downloader.component.ctf/v1alpha1", "id": "down",
        "spec": {"filePath": path, "name": name, "version": "1.0.0"}}]});
    let (result, _) = run(session, &spec.to_string()).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    result.output("down").expect("an output")["descriptor"].clone()
}

#[tokio::test]
async fn the_design_localizes_a_chart_while_it_is_transferred() {
    let Some(text) = vector("transform/seed002-transformations.yaml") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let registry = MemoryStores::new();
    let (image, chart_before) = prepare(&session(folder.path(), &registry), &registry).await;

    let session = session(folder.path(), &registry);
    let (result, warnings) = run(&session, &text).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    assert_eq!(warnings, 2);

    // The image is the same; the chart has a new layer, everything else is as it was.
    let images = registry
        .store("fabianburth/images/myimage")
        .expect("a store");
    assert_eq!(
        images
            .resolve("after-localize")
            .await
            .expect("a tag")
            .digest,
        image.digest
    );
    let charts = registry
        .store("fabianburth/charts/myimage")
        .expect("a store");
    let after = charts.manifest("after-localize").await.expect("a manifest");
    let (old, new) = (
        chart_before.parse().expect("parses"),
        after.parse().expect("parses"),
    );
    assert_eq!(
        (&new.config, &new.annotations),
        (&old.config, &old.annotations)
    );
    let layers = new.layers.expect("layers");
    assert_eq!(layers.len(), 1, "the provenance file signed the old chart");
    assert_eq!(layers[0].media_type, HELM_CHART_LAYER);
    let packed = charts.fetch(&layers[0]).open().await.expect("opens");
    let found = collect(gunzip(packed, session.limits())).await;
    assert!(
        found == chart(LOCALIZED),
        "only the value in the chart's own file changed"
    );

    // The descriptor: two new accesses, one new digest, nothing else.
    let name = "github.com/acme.org/helloworld";
    let mut expected = descriptor(&session, SOURCE, name).await;
    let resources = &mut expected["component"]["resources"];
    resources[0]["access"]["imageReference"] =
        json!("ghcr.io/fabianburth/images/myimage:after-localize");
    resources[1]["access"]["imageReference"] =
        json!("ghcr.io/fabianburth/charts/myimage:after-localize");
    resources[1]["digest"] = triple(&after);
    assert_eq!(descriptor(&session, TARGET, name).await, expected);

    let name = "github.com/acme.org/helloeurope";
    let moved = descriptor(&session, TARGET, name).await;
    assert_eq!(moved, descriptor(&session, SOURCE, name).await);
    let spec = RepositorySpec::ctf(TARGET);
    let target = session.repository(&spec, false).await.expect("an archive");
    let version = target.get(name, "1.0.0").await.expect("a version");
    assert_eq!(version.descriptor.name(), name);
}

#[tokio::test]
async fn the_designs_mapping_turns_an_artifact_set_into_an_artifact() {
    let (Some(text), Some(set)) = (
        vector("transform/seed002-mappings.yaml"),
        bytes("oci/artifact-set-helm-chart.tgz"),
    ) else {
        return;
    };
    const ARCHIVE: &str = "/root/user/home/ocm-repository";
    let folder = tempfile::tempdir().expect("a folder");
    let registry = MemoryStores::new();
    let session = session(folder.path(), &registry);
    session.register(
        ARCHIVE,
        Arc::new(MemoryStores::with_limit("archive", 1 << 24)),
    );

    let layer = (OCI_LAYER_TAR, Bytes::from(tar(&[("bin", "x")])));
    let store = registry.store("source/podinfo-image").expect("a store");
    let image = put(&store, (OCI_CONFIG, "{}"), &[layer]).await;
    let spec = RepositorySpec::ctf(ARCHIVE);
    let archive = session.repository(&spec, true).await.expect("an archive");
    let name = "github.com/acme.org/helloworld";
    let mut resources = vec![external("podinfo-image", "ociImage", &image)];
    for (resource, media_type, bytes) in [
        (
            "podinfo-chart",
            "application/vnd.oci.image.manifest.v1+tar+gzip",
            set,
        ),
        ("notes", "text/plain", Bytes::from_static(b"read me")),
    ] {
        let content = Content::Blob(Blob::from_bytes(media_type, bytes));
        let element =
            json!({"name": resource, "version": "1.0.0", "type": "blob", "relation": "local"});
        let stored = archive.prepare_local_blob(name, ElementKind::Resource, &element, &content);
        resources.push(stored.await.expect("stores"));
    }
    let spec = json!({"transformations": [{"type": "uploader.component.ctf/v1alpha1", "id": "up",
        "spec": {"filePath": ARCHIVE, "componentDescriptor": component(name, json!(resources))}}]});
    let (result, _) = run(&session, &spec.to_string()).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);

    let (result, warnings) = run(&session, &text).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    assert_eq!(warnings, 0);

    let place = "open-component-model/transfer-target";
    let manifest = |name: &str| {
        let store = registry.store(&format!("{place}/{name}")).expect("a store");
        async move { store.manifest("1.0.0").await.expect("a manifest") }
    };
    assert_eq!(manifest("podinfo-image").await, image);
    // The manifest of the artifact set, byte for byte.
    let chart = manifest("podinfo-chart").await;
    let digest = "sha256:b3c90368200682e7d1180b2dcbbcb109a50ce92922ccbb8ff535ee827db6a470";
    assert_eq!(chart.digest.to_string(), digest);

    let spec = json!({"transformations": [{"type": "downloader.component.oci/v1alpha1", "id": "down",
        "spec": {"baseUrl": "ghcr.io", "subPath": place, "name": name, "version": "1.0.0"}}]});
    let (result, _) = run(&session, &spec.to_string()).await;
    let found = &result.output("down").expect("an output")["descriptor"]["component"]["resources"];
    let reference = |at: usize| {
        found[at]["access"]["imageReference"]
            .as_str()
            .unwrap_or_default()
    };
    assert_eq!(reference(0), format!("ghcr.io/{place}/podinfo-image:1.0.0"));
    assert_eq!(found[0]["digest"], triple(&image));
    assert_eq!(reference(1), format!("ghcr.io/{place}/podinfo-chart:1.0.0"));
    assert_eq!(
        found[1]["digest"],
        triple(&chart),
        "another representation has another digest"
    );
    assert_eq!(found[2], resources[2]);
}
