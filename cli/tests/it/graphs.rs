//! Graphs as the Go CLI prints them, run as they are.

use ocm_content::Content;
use ocm_specs::Identity;
use ocm_testdata::components;
use ocm_testdata::fixtures;
use ocm_testdata::peers::vector;
use serde_json::{Value, json};

use crate::place::{Peer, Place};

const DEMO: &str = "ocm.software/demo";
const IMAGE: &str = "ghcr.io/acme/podinfo:6.9.1";
const COPY: &str = "ghcr.io/acme/target/acme/podinfo:6.9.1";

async fn run(name: &str, peer: &Peer) -> Option<(Place, Vec<Value>, Vec<Value>)> {
    let folder = vector("transform/go-graphs")?;
    let place = Place::new().alias("ghcr.io", peer);
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
