//! The conformance kit: plugins that keep their promises pass, and every check fails for a plugin that breaks what it is
//! about.

use std::path::Path;

use bytes::Bytes;
use ocm_plugins_wasm::conformance::{CHECKS, Options, Report, Verdict, read_fixtures, test};
use ocm_plugins_wasm::{Allowed, Cache, PluginLimits};

use crate::guests::prebuilt;

/// Little memory and inputs that are large beside it, so that tests are quick.
fn options() -> Options {
    let mut limits = PluginLimits::default();
    limits.memory = 8 << 20;
    limits.ask = std::time::Duration::from_secs(5);
    limits.stall = std::time::Duration::from_secs(2);
    Options {
        limits,
        cache: Some(Cache::new(
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm"),
        )),
        allowed: Allowed::Everything,
        temp_folder: Some(std::env::temp_dir()),
        large: 9 << 20,
        ..Options::default()
    }
}

/// The names of the checks that failed, and of those that were skipped.
fn not_passed(report: &Report, step_type: Option<&str>, verdict: Verdict) -> Vec<&'static str> {
    let checks = report.checks.iter();
    checks
        .filter(|check| check.step_type.as_deref() == step_type && check.result == verdict)
        .map(|check| check.name)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_that_is_broken_fails_its_check() {
    let report = test(prebuilt("broken.wasm"), options()).await;
    for (step_type, failed, expected) in [
        ("Well", None, ""),
        (
            "WrongExample",
            Some("examples"),
            "example 1:5:5: step `a1`: spec.often",
        ),
        ("Chokes", Some("sizes"), "0 bytes: "),
        ("CountsChunks", Some("chunks"), "chunks of 1 byte gave"),
        ("Whims", Some("deterministic"), "it gave "),
        (
            "Swallows",
            Some("broken-source"),
            "it said that all is well when `data` had broken off",
        ),
        (
            "Renames",
            Some("broken-source"),
            "broke off as invalid-content, not as content-io",
        ),
        ("Deaf", Some("early-reader"), "after its reader had left"),
        (
            "Greedy",
            Some("memory"),
            "exceeded the memory limit of 8 MiB",
        ),
        (
            "Mispoints",
            Some("errors"),
            "the field `/rules/3/times`, which leads nowhere",
        ),
        ("Talks", Some("quiet"), "it wrote: hello from a plugin"),
    ] {
        let step_type = format!("{step_type}/v1");
        let found = not_passed(&report, Some(&step_type), Verdict::Fail);
        match failed {
            None => assert_eq!(found, [""; 0], "{report}"),
            Some(name) => {
                assert!(found.contains(&name), "{step_type}: {found:?}\n{report}");
                let check = report.check(Some(&step_type), name).expect("there");
                assert!(
                    check.detail.contains(expected),
                    "{step_type}: {}",
                    check.detail
                );
            }
        }
        // What is one mistake is told once, but for what has to show in several checks.
        let others: &[&str] = match &*step_type {
            "Whims/v1" => &["chunks"],
            "Greedy/v1" => &["sizes", "early-reader"],
            _ => &[],
        };
        for name in found {
            assert!(
                failed == Some(name) || others.contains(&name),
                "{step_type}: {name}\n{report}"
            );
        }
    }
    // With nothing to look at in fixtures, everything else of `Well` was looked at.
    let skipped = not_passed(&report, Some("Well/v1"), Verdict::Skipped);
    assert_eq!(skipped, ["fixtures"], "{report}");
    assert!(!report.is_passed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_whole_plugin_is_found_before_its_steps() {
    let hostile = prebuilt("hostile.wasm");
    let with = |from: &str, to: &str| -> Bytes {
        assert_eq!(from.len(), to.len());
        let at = hostile
            .windows(from.len())
            .position(|part| part == from.as_bytes())
            .expect("the text is in the component");
        let mut bytes = hostile.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes.into()
    };
    let draft = r#"","$schema":"http://json-schema.org/draft-07/schema#"}"#;
    let end = format!("{}\"}}", ".".repeat(draft.len() - 2));
    for (component, name, expected) in [
        (
            Bytes::from_static(b"\0asm\x01\0\0\0"),
            "component",
            "this is a core module",
        ),
        (
            Bytes::from_static(b"#!/bin/sh"),
            "component",
            "this is not WebAssembly",
        ),
        (
            hostile.slice(..hostile.len() / 2),
            "component",
            "not a component that can be run",
        ),
        (
            with("describe=well....", "describe=unstable"),
            "describe",
            "something else the second time",
        ),
        (
            with(&end, draft),
            "schemas",
            "draft-07/schema#`, not of draft 2020-12",
        ),
        (
            with("describe=well....", "describe=nothing!"),
            "description",
            "describes no step type",
        ),
    ] {
        let report = test(component, options()).await;
        assert_eq!(not_passed(&report, None, Verdict::Fail), [name], "{report}");
        let check = report.check(None, name).expect("there");
        assert!(check.detail.contains(expected), "{name}: {}", check.detail);
        // Nothing was tried on a plugin like that, and what was not tried is not passed.
        let passed = report.count(Verdict::Pass);
        let at = CHECKS.iter().position(|(known, _)| *known == name);
        assert_eq!(Some(passed), at, "{report}");
        assert_eq!(report.checks.len(), 4, "{report}");
    }
}

/// Writes files below a folder.
fn put(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixtures_are_compared_and_written() {
    const STEP: &str = "id: a1\ntype: Measure/v1\nspec: {}\n";
    const REFUSED: &str = "- type: Measure/v1\n  spec: {data: '${get1.output.data}', times: 2}\n";
    let run = async |files: &[(&str, &str)], bless: bool| {
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), files);
        let fixtures = read_fixtures(folder.path()).expect("fixtures");
        let options = Options {
            fixtures,
            bless,
            only: vec!["Measure/v1".to_owned()],
            large: 300_000,
            ..options()
        };
        let report = test(prebuilt("broken.wasm"), options).await;
        let about = Some("Measure/v1").filter(|_| report.check(None, "fixtures").is_none());
        let check = report.check(about, "fixtures").expect("there").clone();
        (folder, check.result, check.detail)
    };
    let good = [
        ("one/step.yaml", STEP),
        ("one/in/data", "abc"),
        ("one/out/data", "bc"),
        ("one/output.json", "{\"bytes\": 3}"),
        ("two/step.yaml", REFUSED),
        ("two/in/data", "abc"),
        (
            "two/error.json",
            r#"{"kind": "invalid-spec", "message": "once is enough", "field": "/times", "hint": "leave it out"}"#,
        ),
        ("no fixture/README.md", "nothing"),
    ];
    let (_, verdict, detail) = run(&good, false).await;
    assert_eq!(
        (verdict, &*detail),
        (Verdict::Pass, "2 give what they must")
    );

    for (name, text, expected) in [
        (
            "one/out/data",
            "bx",
            "`one`: out/data has 2 bytes, the step gave 2; they part at byte 1 (line 1)",
        ),
        (
            "one/out/other",
            "x",
            "`one`: out/other is there, and the step gave none",
        ),
        (
            "one/output.json",
            "{\"bytes\": 4}",
            "the output is {\"bytes\":3}, output.json has {\"bytes\":4}",
        ),
        (
            "one/error.json",
            "",
            "it ran, and error.json says that it is refused",
        ),
        ("one/in/data", "", "there is no byte"),
        (
            "one/in/other",
            "",
            "`one`: in/other: `Measure/v1` has no such input",
        ),
        (
            "one/step.yaml",
            "type: Measure/v1\nspec: {tims: 1}\n",
            "step.yaml:2:8: step `test1`: spec.tims",
        ),
        (
            "one/step.yaml",
            "type: Measure/v1\nspec: {times: '${a1.output.x}'}\n",
            "has expressions besides",
        ),
        (
            "one/step.yaml",
            "type: Other/v1\n",
            "fixture `one` has a step of the type `Other/v1`",
        ),
        ("two/error.json", "{}", "error.json has {}"),
    ] {
        let mut files = good.to_vec();
        files.retain(|(known, _)| *known != name);
        files.push((name, text));
        let (_, verdict, detail) = run(&files, false).await;
        assert!(
            verdict == Verdict::Fail && detail.contains(expected),
            "{name}: {detail}"
        );
    }

    // What nobody has looked at is not passed; blessing writes it, and then it is.
    let open = [
        ("one/step.yaml", STEP),
        ("one/in/data", "abc"),
        ("one/out/gone", "x"),
        ("two/step.yaml", REFUSED),
        ("two/in/data", "abc"),
        ("two/error.json", ""),
    ];
    let (_, verdict, detail) = run(&[open[0], open[1]], false).await;
    assert!(
        verdict == Verdict::Fail && detail.contains("--bless"),
        "{detail}"
    );
    let (folder, verdict, detail) = run(&open, true).await;
    assert_eq!((verdict, &*detail), (Verdict::Pass, "2 written"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    assert_eq!(read("one/out/data"), "bc");
    assert_eq!(read("one/output.json"), "{\n  \"bytes\": 3\n}\n");
    assert!(read("two/error.json").contains("once is enough"));
    assert!(!folder.path().join("one/out/gone").exists());
    let options = Options {
        fixtures: read_fixtures(folder.path()).expect("fixtures"),
        only: vec!["Measure/v1".to_owned()],
        ..options()
    };
    let report = test(prebuilt("broken.wasm"), options).await;
    let check = report.check(Some("Measure/v1"), "fixtures").expect("there");
    assert_eq!(check.result, Verdict::Pass, "{}", check.detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_without_the_rights_it_needs_is_not_run() {
    let options = Options {
        allowed: Allowed::default(),
        ..options()
    };
    let report = test(prebuilt("probe.wasm"), options).await;
    assert!(report.is_passed(), "{report}");
    for (name, _) in &CHECKS[4..] {
        let check = report.check(Some("Probe/v1alpha1"), name).expect("there");
        assert_eq!(check.result, Verdict::Skipped);
        assert!(check.detail.contains("needs http"), "{}", check.detail);
    }
}

/// The examples keep the contract, give what their fixtures say, and are small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_keep_their_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in [
        "basics",
        "filter-layers",
        "kustomize-image",
        "localize",
        "sbom",
        "scrub",
    ] {
        let component = prebuilt(&format!("{name}.wasm"));
        let fixtures = folder.join(name).join("examples");
        let options = Options {
            limits: PluginLimits::default(),
            fixtures: match name {
                "basics" => Vec::new(),
                _ => read_fixtures(&fixtures).expect("fixtures"),
            },
            ..options()
        };
        let has_fixtures = !options.fixtures.is_empty();
        let report = test(component, options).await;
        assert!(report.is_passed(), "{name}:\n{report}");
        let mut fixtures = report
            .checks
            .iter()
            .filter(|check| check.name == "fixtures");
        let expected = if has_fixtures {
            Verdict::Pass
        } else {
            Verdict::Skipped
        };
        assert!(
            fixtures.all(|check| check.result == expected),
            "{name}:\n{report}"
        );
    }
}

#[test]
fn the_committed_components_are_small() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prebuilt");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let entry = entry.expect("an entry");
        if entry.path().extension().is_some_and(|end| end == "wasm") {
            let size = entry.metadata().expect("a file").len();
            assert!(size < 300 << 10, "{}: {size} bytes", entry.path().display());
            count += 1;
        }
    }
    assert_eq!(count, 10);
}
