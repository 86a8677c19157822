//! The specs of the orchestration design, as they stand there.

use std::path::Path;

use ocm_content::{Content, RawManifest};
use ocm_specs::descriptor::{DigestSpec, Encoding};
use ocm_specs::media_type::HELM_CHART_LAYER;
use ocm_specs::{Identity, RepositorySpec};
use ocm_testdata::components::{self, HELLOEUROPE, HELLOWORLD, Product};
use ocm_testdata::fixtures::{self, ArchiveForm, CHART_VALUES};
use ocm_testdata::peers::vector;
use serde_json::{Value, json};

use crate::place::{Peer, Place, unpacked};

pub(crate) const LIST: &str = "transform/seed002-transformations.yaml";
pub(crate) const SOURCE: &str = "./test/localization-multi-component/archive";
pub(crate) const TARGET: &str = "./test/localization-multi-component/archive-after-localization";
pub(crate) const IMAGE: &str = "ghcr.io/fabianburth/images/myimage:after-localize";
pub(crate) const CHART: &str = "ghcr.io/fabianburth/charts/myimage:after-localize";

/// A folder and a registry with everything that the list spec starts from.
pub(crate) async fn prepared(peer: &Peer, encoding: Encoding) -> Place {
    let place = Place::new().alias("ghcr.io", peer);
    fill(&place, &components::localization(), SOURCE, encoding).await;
    place
}

pub(crate) async fn fill(place: &Place, product: &Product, archive: &str, encoding: Encoding) {
    let session = place.session();
    product.push(&session).await.unwrap();
    let archive = RepositorySpec::ctf(archive);
    product.write(&session, &archive, encoding).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_spec_runs_verbatim() {
    let Some(spec) = vector(LIST) else { return };
    for encoding in [Encoding::YamlTar, Encoding::Json] {
        for peer in Peer::all().await {
            let place = prepared(&peer, encoding).await;
            let spec = spec.to_str().unwrap();
            let ran = place.run(&["transfer", "--transfer-spec", spec]).await.ok();
            assert_eq!(ran.stdout, "");
            for code in ["W101", "W102"] {
                assert_eq!(ran.stderr.matches(code).count(), 1, "{}", ran.stderr);
            }
            check_localized(&place).await;
        }
    }
}

/// Everything is as the walk through the list spec says.
pub(crate) async fn check_localized(place: &Place) {
    let product = components::localization();
    let [(_, image), (_, chart)] = &product.artifacts[..] else {
        panic!("two artifacts");
    };
    // The image: the same bytes, children and blobs included.
    assert_eq!(place.manifest(IMAGE).await, image.root);
    let store = place.store(IMAGE);
    for child in &image.children {
        let found = store.manifest(&child.digest.to_string()).await.unwrap();
        assert_eq!(&found, child);
    }
    for blob in &image.blobs {
        let link = blob.descriptor().unwrap();
        let found = store.fetch(&link).read(1 << 20).await.unwrap();
        assert_eq!(found, blob.read(1 << 20).await.unwrap());
    }
    assert_eq!(store.tags().await.unwrap(), ["after-localize"]);
    let localized = check_chart(place, &chart.root).await;

    // The descriptors: two accesses and a digest, nothing else.
    let before = place.component(SOURCE, HELLOWORLD).await;
    let after = place.component(TARGET, HELLOWORLD).await;
    let mut expected = before.descriptor.document().clone();
    let resources = &mut expected["component"]["resources"];
    resources[0]["access"]["imageReference"] = json!(IMAGE);
    resources[1]["access"]["imageReference"] = json!(CHART);
    resources[1]["digest"] = DigestSpec::new(&localized.digest, true).to_value();
    assert_eq!(after.descriptor.document(), &expected);
    assert_eq!(expected["component"]["acme.org/unknown"][2], "three");
    let before = place.component(SOURCE, HELLOEUROPE).await;
    let after = place.component(TARGET, HELLOEUROPE).await;
    assert!(before.descriptor.original().is_some());
    assert_eq!(after.descriptor.original(), before.descriptor.original());
    let resource = after.descriptor.resource(&Identity::named("helloeurope"));
    let Content::Blob(blob) = after.local_blob(&resource.unwrap()).unwrap() else {
        panic!("a blob");
    };
    let text = blob.read(1 << 20).await.unwrap();
    assert_eq!(text, fixtures::LOCAL_BLOB_TEXT);

    let index = std::fs::read(place.path(TARGET).join("artifact-index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let entries = index["artifacts"].as_array().unwrap();
    let names = entries.iter().map(|entry| &entry["repository"]);
    let expected = [HELLOEUROPE, HELLOWORLD].map(|it| format!("component-descriptors/{it}"));
    assert_eq!(
        names.collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    check_no_leftovers(&place.path(TARGET));
}

/// The chart: one line of its values, the layer's link; the rest is the same to the byte.
async fn check_chart(place: &Place, before: &RawManifest) -> RawManifest {
    let after = place.manifest(CHART).await;
    let (old, new) = (before.parse().unwrap(), after.parse().unwrap());
    let links = new.layers.as_deref().unwrap();
    assert_eq!(links.len(), 1);
    let mut expected = old.clone();
    expected.layers = new.layers.clone();
    assert_eq!(new, expected);
    assert_eq!(links[0].media_type, HELM_CHART_LAYER);
    assert_ne!(Some(links), old.layers.as_deref());
    let archive = place.store(CHART).fetch(&links[0]).read(1 << 20).await;
    let values = CHART_VALUES.replace(
        "  repository: ghcr.io/acme/webapp   # without the tag",
        "  repository: ghcr.io/fabianburth/images/myimage   # without the tag",
    );
    assert_ne!(values, CHART_VALUES);
    let expected = unpacked(&fixtures::chart_archive()).await.into_iter();
    let expected = expected.map(|(path, text)| match path.as_str() {
        "webapp/values.yaml" => (path, values.clone()),
        _ => (path, text),
    });
    assert_eq!(
        unpacked(&archive.unwrap()).await,
        expected.collect::<Vec<_>>()
    );
    after
}

/// An archive has its index and its blobs; no staged files, no locks.
pub(crate) fn check_no_leftovers(archive: &Path) {
    for path in crate::place::tree(archive).keys() {
        let name = path.display().to_string();
        let known = name == "artifact-index.json" || name.starts_with("blobs/sha256.");
        assert!(known, "{name} was left in {}", archive.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mapping_spec_runs_with_its_archive_elsewhere() {
    let Some(spec) = vector("transform/seed002-mappings.yaml") else {
        return;
    };
    let spec = std::fs::read_to_string(spec).unwrap();
    let spec = spec.replace("/root/user/home/ocm-repository", "./archive");
    let variants = [
        (ArchiveForm::Set, Encoding::YamlTar),
        (ArchiveForm::Layout, Encoding::Json),
    ];
    for (form, encoding) in variants {
        for peer in Peer::all().await {
            let place = Place::new().alias("ghcr.io", &peer);
            fill(
                &place,
                &components::mapping(form).await,
                "./archive",
                encoding,
            )
            .await;
            place.put("spec.yaml", &spec);
            let run = ["transfer", "--transfer-spec", "spec.yaml"];
            let ran = place.run(&run).await.ok();
            assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
            check_mapped(&place).await;
        }
    }
}

async fn check_mapped(place: &Place) {
    const TARGET: &str = "ghcr.io/open-component-model/transfer-target";
    let [image, chart] =
        ["podinfo-image", "podinfo-chart"].map(|it| format!("{TARGET}/{it}:1.0.0"));
    let expected_image = fixtures::image_index();
    let expected_chart = fixtures::chart();
    assert_eq!(place.manifest(&image).await, expected_image.root);
    assert_eq!(place.manifest(&chart).await, expected_chart.root);
    for blob in &expected_chart.blobs {
        let link = blob.descriptor().unwrap();
        let found = place.store(&chart).fetch(&link).read(1 << 20).await;
        assert_eq!(found.unwrap(), blob.read(1 << 20).await.unwrap());
    }
    let before = place.component("./archive", HELLOWORLD).await;
    let after = place.component(TARGET, HELLOWORLD).await;
    let mut expected = before.descriptor.document().clone();
    let resources = &mut expected["component"]["resources"];
    resources[0]["access"]["imageReference"] = json!(image);
    let access = &after.descriptor.document()["component"]["resources"][1]["access"];
    assert_eq!(access["imageReference"], json!(chart));
    assert!(access["type"].as_str().unwrap().starts_with("ociArtifact"));
    resources[1]["access"] = access.clone();
    resources[1]["digest"] = DigestSpec::new(&expected_chart.root.digest, true).to_value();
    assert_eq!(after.descriptor.document(), &expected);
    let notes = after
        .descriptor
        .resource(&Identity::named("notes"))
        .unwrap();
    let content = place.session().content(&after, &notes).await.unwrap();
    let Content::Blob(blob) = content else {
        panic!("a blob");
    };
    assert_eq!(blob.read(1 << 20).await.unwrap(), fixtures::LOCAL_BLOB_TEXT);
}
