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

/// The accesses of the first component version's resources.
async fn accesses(place: &Place, repository: &str) -> Vec<Value> {
    let world = place.component(repository, HELLOWORLD).await;
    let resources = world.descriptor.document()["component"]["resources"].as_array();
    let resources = resources.unwrap();
    resources.iter().map(|it| it["access"].clone()).collect()
}

fn kinds(accesses: &[Value]) -> Vec<&str> {
    let kinds = accesses.iter().map(|it| it["type"].as_str().unwrap());
    kinds.map(|it| it.split('/').next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_types_choose_what_is_carried() {
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    for (number, (options, expected)) in [
        (
            &["--select", "resource.type == 'helmChart'"][..],
            ["ociArtifact", "localBlob"],
        ),
        (
            &["--exclude", "resource.name == 'mychart'"],
            ["localBlob", "ociArtifact"],
        ),
        (
            &["--omit-access-types", "ociArtifact"],
            ["ociArtifact", "ociArtifact"],
        ),
        (
            &["--select", "component.name == 'x'", "--select", "true"],
            ["localBlob", "localBlob"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("./out{number}");
        let command = [&["cv", "-r", "-V"], options, &[ROOT, &target]].concat();
        transfer(&place, &command).await.ok();
        assert_eq!(
            kinds(&accesses(&place, &target).await),
            expected,
            "{options:?}"
        );
    }
    for (options, code, part) in [
        (
            &["--select", "resource.nope == 1"][..],
            3,
            "has no field `nope`",
        ),
        (&["--select", "1 +"], 2, "condition `1 +`"),
        (&["--platform", "amd64"], 2, "`amd64` is no platform"),
        (
            &["--omit-access-types", "nope"],
            2,
            "`nope` is no access type",
        ),
        (&["--script", "x"], 2, "--transfer-spec"),
        (&["-B", "x"], 2, "--report"),
        (&["--no-update", "--overwrite"], 2, "--overwrite"),
        (&["--latest"], 2, "the reference names one"),
        (&["--recursive=2"], 2, "all the way"),
    ] {
        let command = [&["cv", "-V"], options, &[ROOT, "./never"]].concat();
        let ran = transfer(&place, &command).await.code(code);
        assert!(ran.stderr.contains(part), "{options:?}: {}", ran.stderr);
        assert!(!place.path("never").exists());
    }
    let ran = transfer(&place, &["cv", ROOT]).await.code(2);
    assert!(ran.stderr.contains("there is no target"), "{}", ran.stderr);
    let dry = transfer(&place, &["component", "--dry-run", ROOT])
        .await
        .ok();
    assert!(
        dry.stdout.contains("target.invalid") && dry.stderr.contains("no target"),
        "{}",
        dry.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_say_where_resources_land() {
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    place.put(
        "uploads.yaml",
        "type: OCIImageReferenceOverride/v1alpha1\nspec:\n- {resource: {name: myimage}, oci: {registry: target.example, repository: own/name, tag: t1}}\n",
    );
    let command = ["cv", "--upload-config", "uploads.yaml", ROOT, "./one"];
    transfer(&place, &command).await.ok();
    let one = accesses(&place, "./one").await;
    let root = fixtures::image_index().root;
    let pinned = format!("target.example/own/name:t1@{}", root.digest);
    assert_eq!(one[0]["imageReference"], json!(pinned));
    assert_eq!(kinds(&one), ["ociArtifact", "ociArtifact"]);
    assert_eq!(place.manifest(&pinned).await, root);

    place.put(
        "nothing.yaml",
        "type: OCIImageReferenceOverride/v1alpha1\nspec:\n- {resource: {name: nope}, oci: {}}\n",
    );
    let command = ["cv", "--upload-config", "nothing.yaml", ROOT, "./never"];
    let ran = transfer(&place, &command).await.code(4);
    assert!(
        ran.stderr.contains("spec[0] names resource `name=nope`"),
        "{}",
        ran.stderr
    );

    let Some(config) = ocm_testdata::peers::vector("transform/seed002-v1-uploader-config.yaml")
    else {
        return;
    };
    let config = config.display().to_string();
    let command = ["cv", "--config", &config, "-V", ROOT, TARGET];
    transfer(&place, &command).await.ok();
    let found = accesses(&place, TARGET).await;
    let below = "ghcr.io/open-component-model/oci/fabianburth/source-image/myimage:6.7.1";
    assert!(
        found[0]["imageReference"]
            .as_str()
            .unwrap()
            .starts_with(below),
        "{found:?}"
    );
    // The chart is of another type.
    assert_eq!(kinds(&found), ["ociArtifact", "localBlob"]);
    let command = [
        "cv",
        "--config",
        &config,
        "-V",
        "--disable-uploads",
        ROOT,
        "./two",
    ];
    transfer(&place, &command).await.ok();
    assert_eq!(
        kinds(&accesses(&place, "./two").await),
        ["localBlob", "localBlob"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_make_another_index() {
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    let index = fixtures::image_index().root;
    let children: Vec<_> = index.parse().unwrap().children().cloned().collect();
    let platform = children[0].platform.clone().unwrap();
    let wanted = format!(
        "{}/{}",
        platform["os"].as_str().unwrap(),
        platform["architecture"].as_str().unwrap()
    );
    let command = [
        "cv",
        "-V",
        "-u",
        "ociArtifact",
        "--platform",
        &wanted,
        ROOT,
        TARGET,
    ];
    transfer(&place, &command).await.ok();
    let found = accesses(&place, TARGET).await;
    let reference = found[0]["imageReference"].as_str().unwrap();
    let smaller = place.manifest(reference).await;
    let left: Vec<_> = smaller.parse().unwrap().children().cloned().collect();
    assert_eq!(left, children[..1]);
    let [world, _] = documents(&place, "./source").await;
    let after = place.component(TARGET, HELLOWORLD).await;
    let after = after.descriptor.document();
    assert_eq!(
        after["component"]["resources"][0]["digest"]["value"],
        json!(smaller.digest.hex())
    );
    assert_eq!(
        after["component"]["resources"][1]["digest"],
        world["component"]["resources"][1]["digest"]
    );
    let command = ["cv", "-V", "--platform", "plan9/mips", ROOT, "./never"];
    let ran = transfer(&place, &command).await.code(4);
    assert!(
        ran.stderr.contains("the image has none of plan9/mips") && ran.stderr.contains(&wanted),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_has_stops_the_descent() {
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    transfer(&place, &["cv", ROOT, "./out"]).await.ok();
    let ran = transfer(&place, &["cv", "-r", "-E", ROOT, "./out"])
        .await
        .ok();
    assert!(
        ran.stderr.contains("1 component version left out"),
        "{}",
        ran.stderr
    );
    let index = std::fs::read_to_string(place.path("out/artifact-index.json")).unwrap();
    assert!(!index.contains(HELLOEUROPE), "{index}");
    transfer(&place, &["cv", "-r", "-E", ROOT, "./fresh", "-t", "tgz"])
        .await
        .ok();
    assert!(place.path("fresh").is_file());
    let found = place
        .run(&["get", "cv", "./fresh", "-o", "json"])
        .await
        .ok()
        .json();
    assert_eq!(found.as_array().unwrap().len(), 2);
}
