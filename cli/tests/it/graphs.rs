//! Graphs as the Go CLI prints them, run as they are.

use ocm_content::{Artifact, Content};
use ocm_specs::media_type::{HELM_CHART_LAYER, HELM_CONFIG, HELM_PROVENANCE_LAYER};
use ocm_specs::{Digest, Identity};
use ocm_testdata::components;
use ocm_testdata::fixtures;
use ocm_testdata::peers::vector;
use ocm_testdata::web::{WebServer, helm_repository};
use serde_json::{Value, json};

use crate::place::{Peer, Place};

const DEMO: &str = "ocm.software/demo";
const IMAGE: &str = "ghcr.io/acme/podinfo:6.9.1";
const COPY: &str = "ghcr.io/acme/target/acme/podinfo:6.9.1";

async fn run(name: &str, peer: &Peer) -> Option<(Place, Vec<Value>, Vec<Value>)> {
    run_at(Place::new(), name, peer).await
}

async fn run_at(place: Place, name: &str, peer: &Peer) -> Option<(Place, Vec<Value>, Vec<Value>)> {
    let folder = vector("transform/go-graphs")?;
    let place = place.alias("ghcr.io", peer);
    let session = place.session();
    components::push(&session, IMAGE, &fixtures::image_index())
        .await
        .unwrap();
    place
        .run_in(&folder, &["transfer", "--transfer-spec", name])
        .await
        .ok();

    let source = folder.join("src").display().to_string();
    let before = place.component(&source, DEMO).await;
    let after = place.component("ghcr.io/acme/target", DEMO).await;
    assert_eq!(after.descriptor.version(), "1.0.0");
    let conf = after.descriptor.resource(&Identity::named("conf")).unwrap();
    let Content::Blob(blob) = after.local_blob(&conf).unwrap() else {
        panic!("a blob");
    };
    let digest = blob.digest.clone().unwrap();
    assert_eq!(conf.digest().unwrap().digest().unwrap(), digest);
    assert_eq!(
        blob.read(1 << 20).await.unwrap().len() as u64,
        blob.size.unwrap()
    );
    let resources = [&before, &after].map(|version| {
        let resources = version.descriptor.resources();
        resources.map(|resource| resource.value().clone()).collect()
    });
    let [before, after]: [Vec<Value>; 2] = resources;
    assert_eq!(before[0], after[0], "the local blob is described as before");
    Some((place, before, after))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_blob_moves_and_the_rest_stays() {
    for peer in Peer::all().await {
        let Some((place, before, after)) = run("a-local-blob.yaml", &peer).await else {
            return;
        };
        assert_eq!(before, after);
        assert!(place.session().artifact(COPY).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_streams_and_its_reference_is_pinned() {
    for peer in Peer::all().await {
        let Some((place, mut before, after)) = run("b-streamed-image.yaml", &peer).await else {
            return;
        };
        let image = place.manifest(COPY).await;
        assert_eq!(image, fixtures::image_index().root);
        let pinned = format!("{COPY}@{}", image.digest);
        assert_eq!(after[1]["access"]["imageReference"], json!(pinned));
        assert_eq!(place.manifest(&pinned).await, image);
        before[1]["access"] = json!({"imageReference": pinned, "type": after[1]["access"]["type"]});
        if let Some(digest) = after[1].get("digest") {
            assert_eq!(digest["value"], json!(image.digest.hex()));
            before[1]["digest"] = digest.clone();
        }
        assert_eq!(before, after);
    }
}

/// A chart called `mychart`, version 6.7.1, as an archive.
fn mychart() -> bytes::Bytes {
    let chart = "apiVersion: v2\nname: mychart\nversion: 6.7.1\ndescription: A chart\nappVersion: \"6.7\"\n";
    fixtures::gzip(&fixtures::tar([
        ("mychart/Chart.yaml", chart),
        ("mychart/values.yaml", "replicas: 1\n"),
        (
            "mychart/charts/sub/Chart.yaml",
            "name: sub\nversion: 0.1.0\n",
        ),
    ]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_becomes_a_local_oci_artifact() {
    let archive = mychart();
    for signed in [true, false] {
        let charts = helm_repository("mychart", "6.7.1", &archive, signed);
        let server = WebServer::files(charts).await;
        for peer in Peer::all().await {
            let place = Place::new().alias_web("charts.example.org", &server);
            let Some((place, before, after)) = run_at(place, "c-helm-chart.yaml", &peer).await
            else {
                return;
            };
            assert_eq!(before[1], after[1], "the image stays where it is");
            let chart = &after[2];
            for (field, expected) in [
                ("type", "helmChart"),
                ("relation", "local"),
                ("version", "6.7.1"),
            ] {
                assert_eq!(chart[field], json!(expected), "{field}");
            }
            assert_eq!(chart["access"]["referenceName"], json!("mychart:6.7.1"));
            assert_eq!(
                chart["digest"]["normalisationAlgorithm"],
                json!("ociArtifactDigest/v1")
            );

            let version = place.component("ghcr.io/acme/target", DEMO).await;
            let element = version
                .descriptor
                .resource(&Identity::named("chart"))
                .unwrap();
            let Content::Artifact(Artifact::Stored(stored)) = version.local_blob(&element).unwrap()
            else {
                panic!("an artifact");
            };
            assert_eq!(json!(stored.root.digest.hex()), chart["digest"]["value"]);
            let raw = stored
                .store
                .manifest(&stored.root.digest.to_string())
                .await
                .unwrap();
            let manifest = raw.parse().unwrap();
            let layers = manifest.layers.unwrap();
            let types: Vec<&str> = layers
                .iter()
                .map(|layer| layer.media_type.as_str())
                .collect();
            let expected = [HELM_CHART_LAYER, HELM_PROVENANCE_LAYER];
            assert_eq!(types, expected[..1 + usize::from(signed)]);
            assert_eq!(
                layers[0].digest,
                Digest::sha256(&archive),
                "the archive as it was"
            );
            let stored_archive = stored.store.fetch(&layers[0]).read(1 << 20).await.unwrap();
            assert_eq!(stored_archive, archive);
            let config = manifest.config.unwrap();
            assert_eq!(config.media_type, HELM_CONFIG);
            let config = stored.store.fetch(&config).read(1 << 20).await.unwrap();
            assert_eq!(
                String::from_utf8_lossy(&config),
                r#"{"name":"mychart","version":"6.7.1","description":"A chart","apiVersion":"v2","appVersion":"6.7"}"#
            );
            let annotations = manifest.annotations.unwrap();
            assert_eq!(annotations["org.opencontainers.image.title"], "mychart");
            assert_eq!(annotations["org.opencontainers.image.version"], "6.7.1");
        }
    }
}
