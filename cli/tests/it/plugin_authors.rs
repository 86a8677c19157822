//! What authors of plugins meet: `ocm plugin test`, and the examples.

use std::path::{Path, PathBuf};

use ocm_specs::Digest;
use ocm_specs::descriptor::Encoding;
use ocm_testdata::peers::vector;

use crate::design::{CHART, IMAGE, LIST, TARGET, check_localized, prepared};
use crate::place::{Peer, Place, Ran, tree};

/// The bytes of a committed component.
fn component(name: &str) -> Vec<u8> {
    std::fs::read(examples().join("prebuilt").join(name)).unwrap()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins-wasm/examples")
}

/// Compiled plugins are kept from test to test: to compile is slow without optimization.
async fn run(place: &Place, arguments: &[&str]) -> Ran {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache");
    place
        .run_with(&[("XDG_CACHE_HOME", cache.to_str().unwrap())], arguments)
        .await
}

#[track_caller]
fn failed(ran: Ran, code: i32, expected: &str) -> Ran {
    let ran = ran.code(code);
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_tested_and_its_fixtures_are_written() {
    let place = Place::new();
    place.put("broken.wasm", component("broken.wasm"));
    run(&place, &["plugin", "install", "./broken.wasm"])
        .await
        .ok();
    let test = [
        "plugin",
        "test",
        "broken.wasm",
        "--largest",
        "1MiB",
        "--type",
    ];
    let with = |more: &[&'static str]| [&test[..], more].concat();

    let ran = run(&place, &with(&["Well/v1"])).await.ok();
    assert!(
        ran.stdout.starts_with("STEP TYPE  CHECK "),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.ends_with("\n13 passed, 0 failed, 1 skipped\n"),
        "{}",
        ran.stdout
    );
    let ran = run(&place, &with(&["Talks/v1", "-o", "json"])).await;
    let report = failed(ran, 5, "1 of 14 checks failed").json();
    assert_eq!(report["passed"], false);
    let checks = report["checks"].as_array().unwrap().iter();
    let wrong: Vec<_> = checks.filter(|check| check["result"] == "fail").collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0]["name"], "quiet");
    assert_eq!(wrong[0]["stepType"], "Talks/v1");
    assert_eq!(wrong[0]["detail"], "it wrote: hello from a plugin");

    // Fixtures are looked for in `examples`; first nobody has said what the step must give, then somebody has.
    std::fs::create_dir_all(place.path("examples/one/in")).unwrap();
    place.put("examples/one/step.yaml", "type: Measure/v1\nspec: {}\n");
    place.put("examples/one/in/data", "abc");
    let measure = with(&["Measure/v1"]);
    let ran = run(&place, &measure).await;
    assert!(failed(ran, 5, "checks failed").stdout.contains("--bless"));
    run(&place, &with(&["Measure/v1", "--bless"])).await.ok();
    assert_eq!(
        std::fs::read(place.path("examples/one/out/data")).unwrap(),
        b"bc"
    );
    run(&place, &measure).await.ok();
    place.put("examples/one/out/data", "bd");
    let ran = run(&place, &with(&["Measure/v1", "--fixtures", "examples"])).await;
    let ran = failed(ran, 5, "checks failed");
    assert!(ran.stdout.contains("they part at byte 1"), "{}", ran.stdout);

    for (arguments, code, expected) in [
        (&["none.wasm"][..], 4, "read none.wasm"),
        (&["broken.wasm", "--fixtures", "none"], 4, "read "),
        (
            &["broken.wasm", "--fixtures", ".", "--bless"],
            2,
            "--bless: there are no fixtures",
        ),
        (
            &["broken.wasm", "--allow", "all"],
            3,
            "`all` is not a right",
        ),
        (&["broken.wasm", "--type", "None/v1"], 5, "checks failed"),
        (&["examples/one/step.yaml"], 5, "1 of 4 checks failed"),
    ] {
        let line = [&["plugin", "test"][..], arguments].concat();
        failed(run(&place, &line).await, code, expected);
    }
}

/// The design's own spec, its localization done by a plugin: the same bytes, the same digests, everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_design_comes_to_the_same_with_a_plugin_for_its_localization() {
    let Some(list) = vector(LIST) else { return };
    let expected = {
        let peer = Peer::embedded().await;
        let place = prepared(&peer, Encoding::YamlTar).await;
        let spec = list.to_str().unwrap();
        place.run(&["transfer", "--transfer-spec", spec]).await.ok();
        (
            tree(&place.path(TARGET)),
            place.manifest(IMAGE).await,
            place.manifest(CHART).await,
        )
    };
    let spec = std::fs::read_to_string(list).unwrap();
    let built_in = "type: yaml.engine.localization/v1\n";
    assert_eq!(spec.matches(built_in).count(), 1);
    let plugins = format!(
        "plugins:\n- name: localize\n  source: file:./localize.wasm\n  digest: {}\n",
        Digest::sha256(&component("localize.wasm"))
    );
    let spec = plugins + &spec.replace(built_in, "type: Localize/v1alpha1\n");
    for peer in Peer::all().await {
        let place = prepared(&peer, Encoding::YamlTar).await;
        place.put("localize.wasm", component("localize.wasm"));
        place.put("spec.yaml", &spec);
        run(&place, &["transfer", "--transfer-spec", "spec.yaml"])
            .await
            .ok();
        check_localized(&place).await;
        assert_eq!(tree(&place.path(TARGET)), expected.0);
        assert_eq!(place.manifest(IMAGE).await, expected.1);
        assert_eq!(place.manifest(CHART).await, expected.2);
    }
}
