//! `ocm transfer component-version` and `ocm transfer ctf`: specs that the program writes itself.

use ocm_specs::descriptor::Encoding;
use ocm_testdata::components::{self, HELLOEUROPE, HELLOWORLD};
use ocm_testdata::fixtures;
use serde_json::{Value, json};

use crate::design::fill;
use crate::place::{Peer, Place, Ran, tree};

const ROOT: &str = "./source//github.com/acme.org/helloworld:1.0.0";
const TARGET: &str = "target.example/acme/deep";

/// A folder with two component versions in `./source`, and a registry with what they point at.
async fn prepared(peer: &Peer, encoding: Encoding) -> Place {
    let place = Place::new()
        .alias("ghcr.io", peer)
        .alias("target.example", peer);
    fill(&place, &components::localization(), "./source", encoding).await;
    place
}

async fn transfer(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&["transfer"], more].concat()).await
}

/// The documents of both component versions.
async fn documents(place: &Place, repository: &str) -> [Value; 2] {
    let mut found = [Value::Null, Value::Null];
    for (slot, name) in found.iter_mut().zip([HELLOWORLD, HELLOEUROPE]) {
        let version = place.component(repository, name).await;
        slot.clone_from(version.descriptor.document());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_gives_the_same_bytes() {
    for encoding in [Encoding::YamlTar, Encoding::Json] {
        for peer in Peer::all().await {
            let place = prepared(&peer, encoding).await;
            let ran = transfer(&place, &["cv", "-r", ROOT, TARGET]).await.ok();
            assert_eq!(ran.stdout, "");
            assert_eq!(
                documents(&place, TARGET).await,
                documents(&place, "./source").await
            );
            let back = format!("{TARGET}//{HELLOWORLD}:1.0.0");
            transfer(&place, &["cv", "--recursive", &back, "./back"])
                .await
                .ok();
            assert!(tree(&place.path("source")) == tree(&place.path("back")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_recursion_only_what_is_named_is_carried() {
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    transfer(&place, &["component", ROOT, "./one"]).await.ok();
    let index = std::fs::read_to_string(place.path("one/artifact-index.json")).unwrap();
    assert!(
        index.contains(HELLOWORLD) && !index.contains(HELLOEUROPE),
        "{index}"
    );
    // All versions where none is named, everything where an archive is.
    let all = ROOT.trim_end_matches(":1.0.0");
    transfer(&place, &["cv", all, "./all"]).await.ok();
    assert!(tree(&place.path("one")) == tree(&place.path("all")));
    transfer(&place, &["ctf", "./source", "./whole"]).await.ok();
    assert!(tree(&place.path("source")) == tree(&place.path("whole")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_plan_does_what_the_command_does() {
    let shapes: [&[&str]; 6] = [
        &["cv", ROOT],
        &["cv", "-r", ROOT],
        &["cv", "-r", "--copy-resources", ROOT],
        &["cv", "-r", "--copy-resources", "-u", "ociArtifact", ROOT],
        &["ctf", "-V", "--enforce", "--overwrite", "./source"],
        &["cv", "-r", "-V", "-u", "ociArtifact", ROOT, "./second"],
    ];
    for shape in shapes {
        let (first, second) = (Peer::embedded().await, Peer::embedded().await);
        let direct = prepared(&first, Encoding::YamlTar).await;
        let replay = prepared(&second, Encoding::YamlTar).await;
        let command = [shape, &["--to", TARGET]].concat();
        let dry = [&command[..], &["--dry-run"]].concat();
        let before = (direct.files(), first.requests());
        let printed = transfer(&direct, &dry).await.ok();
        assert_eq!(before, (direct.files(), first.requests()), "{shape:?}");
        assert_eq!(transfer(&direct, &dry).await.ok().stdout, printed.stdout);
        assert_eq!(transfer(&replay, &dry).await.ok().stdout, printed.stdout);
        replay.put("plan.yaml", &printed.stdout);
        let again = ["--transfer-spec", "plan.yaml"];
        let reprinted = [&again[..], &["--dry-run"]].concat();
        let reprinted = transfer(&replay, &reprinted).await.ok();
        assert_eq!(reprinted.stdout, printed.stdout, "{shape:?}");
        assert_eq!(reprinted.stderr, "", "{shape:?}");

        transfer(&direct, &command).await.ok();
        transfer(&replay, &again).await.ok();
        for name in [HELLOWORLD, HELLOEUROPE] {
            let reference = format!("{TARGET}/component-descriptors/{name}:1.0.0");
            if name == HELLOEUROPE && direct.session().artifact(&reference).await.is_err() {
                assert!(replay.session().artifact(&reference).await.is_err());
                continue;
            }
            let (left, right) = (direct.manifest(&reference), replay.manifest(&reference));
            assert_eq!(left.await, right.await, "{shape:?}");
        }
        if direct.path("second").exists() {
            let (left, right) = (direct.path("second"), replay.path("second"));
            assert!(tree(&left) == tree(&right));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_by_value_are_local_blobs_or_artifacts() {
    for peer in Peer::all().await {
        let place = prepared(&peer, Encoding::Json).await;
        let before = documents(&place, "./source").await;
        transfer(&place, &["cv", "-r", "--copy-resources", ROOT, "./blobs"])
            .await
            .ok();
        let command = ["cv", "-r", "-V", "-u", "ociArtifact", ROOT, TARGET];
        transfer(&place, &command).await.ok();

        // Everything but the access is as it was, labels and what nobody knows included.
        let blobs = documents(&place, "./blobs").await;
        let image = fixtures::image_index().root;
        let access = json!({
            "type": "localBlob", "localReference": image.digest, "mediaType": image.media_type,
            "referenceName": "fabianburth/source-image/myimage:6.7.1",
        });
        let mut expected = before.clone();
        let resources = &mut expected[0]["component"]["resources"];
        resources[0]["access"] = access;
        let chart = fixtures::chart().root;
        resources[1]["access"] = json!({
            "type": "localBlob", "localReference": chart.digest, "mediaType": chart.media_type,
            "referenceName": "fabianburth/source-charts/mychart:1.4.0",
        });
        assert_eq!(blobs, expected);

        let artifacts = documents(&place, TARGET).await;
        let mut expected = before;
        let resources = &mut expected[0]["component"]["resources"];
        for (index, name, root) in [
            (0, "fabianburth/source-image/myimage:6.7.1", &image),
            (1, "fabianburth/source-charts/mychart:1.4.0", &chart),
        ] {
            let reference = format!("{TARGET}/{name}@{}", root.digest);
            resources[index]["access"]["imageReference"] = json!(reference);
            let found = artifacts[0]["component"]["resources"][index]["access"]["type"].clone();
            resources[index]["access"]["type"] = found;
            assert_eq!(&place.manifest(&reference).await, root);
        }
        assert_eq!(artifacts, expected);
    }
}
