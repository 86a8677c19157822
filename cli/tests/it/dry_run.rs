//! The printed plan: what it promises, and what making it leaves alone.

use ocm_specs::descriptor::Encoding;
use ocm_testdata::components;
use ocm_testdata::fixtures::ArchiveForm;
use ocm_testdata::peers::vector;

use crate::design::{CHART, IMAGE, LIST, TARGET, check_localized, fill, prepared};
use crate::place::{Peer, Place, tree};

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_plan_does_the_same_to_the_byte() {
    let Some(spec) = vector(LIST) else { return };
    let spec = spec.to_str().unwrap();
    let (first, second) = (Peer::embedded().await, Peer::embedded().await);
    let direct = prepared(&first, Encoding::YamlTar).await;
    let replay = prepared(&second, Encoding::YamlTar).await;
    let dry = ["transfer", "--transfer-spec", spec, "--dry-run"];
    let before = (direct.files(), first.requests());
    let printed = direct.run(&dry).await.ok();
    assert_eq!(before, (direct.files(), first.requests()));
    assert_eq!(direct.run(&dry).await.ok().stdout, printed.stdout);
    assert_eq!(replay.run(&dry).await.ok().stdout, printed.stdout);

    // What is printed names every edge: nothing is implied any more, and printing it again changes nothing.
    replay.put("plan.yaml", &printed.stdout);
    let again = ["transfer", "--transfer-spec", "plan.yaml"];
    let reprinted = replay
        .run(&[&again[..], &["--dry-run"]].concat())
        .await
        .ok();
    assert_eq!(reprinted.stdout, printed.stdout);
    assert_eq!(reprinted.stderr, "");
    for format in ["json", "ndjson"] {
        let as_json = direct.run(&[&dry[..], &["-o", format]].concat()).await.ok();
        replay.put("plan.json", &as_json.stdout);
        let read = ["transfer", "--transfer-spec", "plan.json", "--dry-run"];
        assert_eq!(replay.run(&read).await.ok().stdout, printed.stdout);
    }

    direct.run(&dry[..3]).await.ok();
    replay.run(&again).await.ok();
    check_localized(&direct).await;
    check_localized(&replay).await;
    let (left, right) = (tree(&direct.path(TARGET)), tree(&replay.path(TARGET)));
    assert_eq!(left, right);
    for reference in [IMAGE, CHART] {
        let (left, right) = (direct.manifest(reference), replay.manifest(reference));
        assert_eq!(left.await, right.await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_replays_as_a_list_of_steps() {
    let Some(spec) = vector("transform/seed002-mappings.yaml") else {
        return;
    };
    let spec = std::fs::read_to_string(spec).unwrap();
    let spec = spec.replace("/root/user/home/ocm-repository", "./archive");
    let product = components::mapping(ArchiveForm::Set).await;
    let mut roots = Vec::new();
    let mut plan = spec;
    for _ in 0..2 {
        let peer = Peer::embedded().await;
        let place = Place::new().alias("ghcr.io", &peer);
        fill(&place, &product, "./archive", Encoding::Json).await;
        place.put("spec.yaml", &plan);
        let run = ["transfer", "--transfer-spec", "spec.yaml"];
        let before = (place.files(), peer.requests());
        let printed = place.run(&[&run[..], &["--dry-run"]].concat()).await.ok();
        assert_eq!(before, (place.files(), peer.requests()));
        place.run(&run).await.ok();
        plan = printed.stdout;
        let base = "ghcr.io/open-component-model/transfer-target";
        roots.push((
            place.component(base, components::HELLOWORLD).await.root,
            place.manifest(&format!("{base}/podinfo-image:1.0.0")).await,
            place.manifest(&format!("{base}/podinfo-chart:1.0.0")).await,
            plan.clone(),
        ));
    }
    assert_eq!(roots[0], roots[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_spec_sends_no_request_and_writes_nothing() {
    let Some(spec) = vector(LIST) else { return };
    let spec = std::fs::read_to_string(spec).unwrap();
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    let cases = [
        (".outputs.descriptor", ".outputs.descriptr", "descriptor"),
        (
            "oci.to.tar.transformer",
            "oci.to.tar.transfromer",
            "oci.to.tar.transformer/v1alpha1",
        ),
        ("name: myimage", "nam: myimage", "name"),
        ("id: localization1", "id: tartooci1", "tartooci1"),
        ("parseRef()", "parseReference()", "parseRef"),
    ];
    for (right, wrong, told) in cases {
        place.put("wrong.yaml", spec.replacen(right, wrong, 1));
        let before = (place.files(), peer.requests());
        for more in [&["--dry-run"][..], &[]] {
            let run = [&["transfer", "--transfer-spec", "wrong.yaml"], more].concat();
            let ran = place.run(&run).await.code(3);
            assert_eq!(ran.stdout, "");
            assert!(ran.stderr.contains("wrong.yaml:"), "{}", ran.stderr);
            assert!(ran.stderr.contains(told), "{wrong}: {}", ran.stderr);
        }
        assert_eq!(before, (place.files(), peer.requests()), "{wrong}");
    }
}
