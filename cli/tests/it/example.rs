//! The shipped example: what README tells people to try first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ocm_content::Content;
use ocm_specs::Identity;
use ocm_testdata::components::{self, SHOP, SHOP_SETTINGS};

use crate::design::check_no_leftovers;
use crate::place::{Place, Ran, tree, unpacked};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/localize");

/// The archive in the checkout is what `testdata` makes. With `OCM_WRITE_EXAMPLE=1` it is written instead of compared.
#[tokio::test(flavor = "multi_thread")]
async fn its_archive_is_the_generated_one() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("archive");
    components::write_example(&made).await.unwrap();
    let shipped = Path::new(EXAMPLE).join("archive");
    if std::env::var("OCM_WRITE_EXAMPLE").is_ok_and(|value| value == "1") {
        for (name, bytes) in tree(&made) {
            let path = shipped.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    let (made, shipped) = (tree(&made), tree(&shipped));
    assert_eq!(names(&made), names(&shipped));
    assert!(made == shipped, "the same files with other content");
}

/// A checkout with nothing but the example, and README's first command in it.
async fn checkout() -> (Place, Ran) {
    let place = Place::new();
    for (name, bytes) in tree(Path::new(EXAMPLE)) {
        let path = place.path("examples/localize").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let ran = run(&place, &[]).await;
    (place, ran)
}

async fn run(place: &Place, more: &[&str]) -> Ran {
    let command = [
        "transfer",
        "--transfer-spec",
        "examples/localize/transfer-spec.yaml",
        "--serve",
        "source.example=examples/localize/archive",
        "--serve",
        "target.example=target/example/registry",
    ];
    place.run(&[&command[..], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_brings_a_localized_shop_to_two_targets() {
    let (place, ran) = checkout().await;
    let ran = ran.ok();
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let source = "examples/localize/archive";
    assert_eq!(
        tree(&place.path(source)),
        tree(&Path::new(EXAMPLE).join("archive"))
    );
    for archive in ["target/example/archive", "target/example/registry"] {
        check_no_leftovers(&place.path(archive));
        for component in [SHOP, SHOP_SETTINGS] {
            let before = place.component(source, component).await.descriptor;
            let after = place.component(archive, component).await.descriptor;
            assert_eq!(before.version(), after.version());
            assert_eq!(before.labels(), after.labels());
        }
        check_chart(&place, archive).await;
    }
    // Nobody lies to anybody: the archive alone has all content.
    let shop = place.component("target/example/archive", SHOP).await;
    for resource in shop.descriptor.resources() {
        assert!(
            resource
                .access_value()
                .unwrap()
                .to_string()
                .contains("localBlob")
        );
        shop.local_blob(&resource).unwrap();
    }
    let shop = place.component("target/example/registry", SHOP).await;
    let image = shop.descriptor.resource(&Identity::named("image")).unwrap();
    let reference = "target.example/shop/web:2.3.0";
    assert_eq!(image.access_value().unwrap()["imageReference"], reference);
    let references: Vec<_> = shop.descriptor.references().collect();
    assert_eq!(references[0].component_name(), Some(SHOP_SETTINGS));
}

/// The chart's values name the image's new place, and everything else is as it was.
async fn check_chart(place: &Place, archive: &str) {
    let session = place.session();
    let stores = components::archive(&place.path(archive)).await.unwrap();
    session.register("target.example", stores);
    let shop = place.component(archive, SHOP).await;
    let chart = shop.descriptor.resource(&Identity::named("chart")).unwrap();
    let Content::Artifact(artifact) = session.content(&shop, &chart).await.unwrap() else {
        panic!("an artifact");
    };
    let ocm_content::Artifact::Stored(stored) = artifact else {
        panic!("it is stored");
    };
    assert_eq!(
        chart.digest().unwrap().digest().unwrap(),
        stored.root.digest
    );
    let root = stored.root.digest.to_string();
    let manifest = stored.store.manifest(&root).await.unwrap().parse().unwrap();
    let layer = &manifest.layers.unwrap()[0];
    let found = stored.store.fetch(layer).read(1 << 20).await.unwrap();
    let (_, before) = &components::example().artifacts[1];
    let before = before.blobs[1].read(1 << 20).await.unwrap();
    let expected = unpacked(&before).await.into_iter().map(|(path, text)| {
        let localized = "repository: target.example/shop/web ";
        let text = text.replace("repository: source.example/acme/shop ", localized);
        (path, text)
    });
    assert_eq!(unpacked(&found).await, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_sends_nothing() {
    let (place, first) = checkout().await;
    first.ok();
    let before = place.files();
    let report = run(&place, &["-o", "json"]).await.ok().json();
    // The chart is made anew: that it is the same shows when its last byte has arrived.
    for step in report["steps"].as_array().unwrap() {
        if step["id"] != "chartInRegistry" && step["id"] != "chartInArchive" {
            assert_eq!(step["bytesSent"], 0, "{step:#}");
        }
    }
    assert_eq!(before, place.files());
    let dry = run(&place, &["--dry-run", "-o", "tree"]).await.ok();
    assert!(dry.stdout.contains("shopInArchive") || dry.stdout.contains("shop in the archive"));
    assert_eq!(before, place.files());
}

/// The other example: a constructor, packed twice, signed, carried verified, looked at.
#[tokio::test(flavor = "multi_thread")]
async fn the_constructor_is_packed_signed_and_carried() {
    if !ocm_testdata::peers::installed("openssl") {
        return;
    }
    let place = Place::new();
    crate::help::keys(&place);
    let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pack");
    let notes = "notes//acme.example/notes:1.0.0";
    place
        .run(&["add", "cv", "-c", pack, "-r", "notes"])
        .await
        .ok();
    place
        .run(&["sign", "cv", "--private-key", "key.pem", notes])
        .await
        .ok();
    let carry = [
        "transfer",
        "cv",
        "-r",
        "--copy-resources",
        "--verify",
        "default=key.pub",
        notes,
        "notes.tgz",
    ];
    let carried = place.run(&carry).await.ok().stderr;
    assert!(
        carried.contains("complete: nothing of 1 component version"),
        "{carried}"
    );
    let there = "notes.tgz//acme.example/notes:1.0.0";
    let verify = ["verify", "cv", "--public-key", "key.pub", "--deep", there];
    assert!(
        place
            .run(&verify)
            .await
            .ok()
            .stdout
            .contains("greeting,version=1.0.0 of acme.example/notes:1.0.0: ok")
    );
    let greeting = ["download", "resource", there, "greeting", "-O", "-"];
    let greeting = place.run(&greeting).await.ok().stdout;
    assert_eq!(greeting, "Welcome to notes 1.0.0, $5 a month.\n");
    let again = ["add", "cv", "-c", pack, "-r", "notes", "VERSION=1.1.0"];
    place.run(&again).await.ok();
    let diff = ["diff", notes, "notes//acme.example/notes:1.1.0"];
    let diff = place.run(&diff).await.code(9).stdout;
    assert!(
        diff.contains("~ resource name=greeting: digest\n"),
        "{diff}"
    );
    assert!(!diff.contains("resource name=manual: digest"), "{diff}");
}
