//! Plugins in specs: what is judged before anything runs, what is pinned, what is remembered.

use ocm_specs::Digest;

use crate::place::Place;
use crate::plugins::{PASS, component, place, run, transfer, with_plugin};

/// The entry of a plugin in a spec.
fn entry(name: &str, file: &str, bytes: &[u8]) -> String {
    format!(
        "- name: {name}\n  source: {file}\n  digest: {}\n",
        Digest::sha256(bytes)
    )
}

/// The whole spec, run for a dry run and for real; both say the same and nothing is written.
async fn refused(place: &Place, code: i32, expected: &[String]) {
    for more in [&["--dry-run"][..], &[]] {
        let ran = transfer(place, more).await.code(code);
        for expected in expected {
            assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        }
        assert!(
            !place.path("target/example/archive").exists(),
            "a step has run"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_says_of_a_spec_is_told_with_all_else() {
    let place = place();
    let scrub = component("scrub.wasm");
    place.put("scrub.wasm", &scrub);
    let head = format!("plugins:\n{}", entry("scrub", "scrub.wasm", &scrub));
    let step = "  - id: pass\n    type: Scrub/v1alpha1\n    spec:\n      data: ${chartFiles.output.data}\n      rules:\n      - pattern: (\n      - pattern: fine\n      - pattern: ${environment.broken}\n";
    with_plugin(&place, &head, step);
    let spec = std::fs::read_to_string(place.path("spec.yaml")).unwrap();
    let spec = spec.replace("\nenvironment:\n", "\nenvironment:\n  broken: '['\n")
        + "  - {id: odd, type: FileCleanup/v1alpha1, spec: {pasth: 1}}\n";
    place.put("spec.yaml", &spec);
    let at = |text: &str| 1 + spec.lines().position(|line| line.contains(text)).unwrap();
    refused(
        &place,
        3,
        &[
            format!("spec.yaml:{}:18: step `pass`: spec.rules[0].pattern: the pattern does not compile: ", at("pattern: (")),
            format!("spec.yaml:{}:18: step `pass`: spec.rules[2].pattern: the pattern does not compile: ", at("environment.broken")),
            format!("spec.yaml:{}:", at("pasth")),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_a_plugin_does_not_take_is_refused_beforehand() {
    let place = place();
    let hostile = component("hostile.wasm");
    place.put("hostile.wasm", &hostile);
    let head = format!(
        "plugins:\n{}",
        entry("hostile-plugin", "hostile.wasm", &hostile)
    );
    let step =
        "  - id: pass\n    type: OtherType/v1\n    spec:\n      data: ${image.output.data}\n";
    with_plugin(&place, &head, step);
    let spec = std::fs::read_to_string(place.path("spec.yaml")).unwrap();
    let line = 3 + spec
        .lines()
        .position(|line| line.contains("OtherType/v1"))
        .unwrap();
    refused(
        &place,
        3,
        &[format!(
            "spec.yaml:{line}:13: step `pass`: spec.data: `image.output.data` gives `application/vnd.ocm.software.oci.layout.v1+tar`, this port takes `text/plain`"
        )],
    )
    .await;
    let ran = run(
        &place,
        &["describe", "types", "OtherType", "--plugin", "hostile.wasm"],
    )
    .await
    .ok();
    assert!(ran.stdout.contains("(text/plain)"), "{}", ran.stdout);
}

/// The example with `basics` named, but not pinned.
fn unpinned(place: &Place) -> String {
    let head = "plugins: # of others\n- name: basics # ours\n  source: file:./basics.wasm\n";
    with_plugin(place, head, PASS);
    std::fs::read_to_string(place.path("spec.yaml")).unwrap()
}

fn locked(spec: &str) -> String {
    let digest = Digest::sha256(&component("basics.wasm"));
    let source = "  source: file:./basics.wasm\n";
    spec.replace(source, &format!("{source}  digest: {digest}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_writes_digests_and_nothing_else() {
    let place = place();
    let spec = unpinned(&place);
    let read = || std::fs::read_to_string(place.path("spec.yaml")).unwrap();
    // Without, the hint names it.
    let ran = transfer(&place, &["--dry-run"]).await.code(3);
    let digest = Digest::sha256(&component("basics.wasm"));
    let expected = format!(
        "the one at its source now is {digest}: if you trust it, --lock writes that into the spec"
    );
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    assert!(ran.stderr.contains("spec.yaml:"), "{}", ran.stderr);
    // What is wrong otherwise is not locked.
    place.put(
        "spec.yaml",
        spec.replace("type: Identity/v1alpha1", "type: Idemtity/v1alpha1"),
    );
    transfer(&place, &["--dry-run", "--lock"]).await.code(3);
    assert!(!read().contains("digest: sha256"));
    // A link stays a link, permissions stay.
    std::fs::remove_file(place.path("spec.yaml")).unwrap();
    std::fs::create_dir(place.path("specs")).unwrap();
    place.put("specs/real.yaml", &spec);
    std::os::unix::fs::symlink("specs/real.yaml", place.path("spec.yaml")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(place.path("specs/real.yaml"), mode(0o640)).unwrap();
    let ran = transfer(&place, &["--dry-run", "--lock"]).await.ok();
    let expected = format!("locked in spec.yaml: plugin basics is {digest}\n");
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    assert!(
        ran.stdout.contains(&format!("digest: {digest}")),
        "{}",
        ran.stdout
    );
    assert_eq!(read(), locked(&spec));
    assert!(
        std::fs::symlink_metadata(place.path("spec.yaml"))
            .unwrap()
            .is_symlink()
    );
    let found = std::fs::metadata(place.path("specs/real.yaml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(found & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(place.path("specs")).unwrap().count(), 1);
    // Then it holds, and there is nothing more to lock.
    let ran = transfer(&place, &["--lock"]).await.ok();
    assert!(
        ran.stderr.contains("nothing to lock in spec.yaml"),
        "{}",
        ran.stderr
    );
    place.put("basics.wasm", component("probe.wasm"));
    let ran = transfer(&place, &["--dry-run", "--lock"]).await.code(5);
    assert!(ran.stderr.contains("it is pinned to"), "{}", ran.stderr);
    assert_eq!(read(), locked(&spec));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_locked_is_told() {
    let place = place();
    unpinned(&place);
    for (arguments, code, expected) in [
        (
            &["transfer", "--transfer-spec", "-", "--lock"][..],
            2,
            "--lock can't write into a spec from standard input",
        ),
        (
            &["transfer", "cv", "a//b:1", "c", "--lock"],
            2,
            "a generated one has no steps of them",
        ),
        (
            &["transfer", "cv", "a//b:1", "c", "--plugin", "x=y.wasm"],
            2,
            "a generated one has no steps of them",
        ),
        (
            &[
                "transfer",
                "--transfer-spec",
                "spec.yaml",
                "--lock",
                "--plugin",
                "basics=./basics.wasm",
            ],
            3,
            "if you trust it, write --plugin basics=SOURCE@sha256:",
        ),
        (
            &["plugin", "lock", "-"],
            2,
            "standard input can't be written into",
        ),
        (&["plugin", "lock", "none.yaml"], 4, "read none.yaml"),
        (&["plugin", "lock", "basics.wasm"], 3, "not UTF-8"),
        (
            &["plugin", "lock", "alias.yaml"],
            3,
            "alias.yaml: the digest of plugin `basics` can't be written: ",
        ),
        (
            &["plugin", "lock", "other.yaml"],
            3,
            "calls itself `basics`, not `other`",
        ),
        (
            &["plugin", "lock", "lost.yaml"],
            4,
            "lost.yaml:1:11: plugin `basics`: read lost.wasm",
        ),
    ] {
        place.put("alias.yaml", "x-one: &one {name: basics, source: basics.wasm}\nplugins: [*one]\ntransformations: []\n");
        place.put(
            "other.yaml",
            "plugins: [{name: other, source: basics.wasm}]\ntransformations: []\n",
        );
        place.put(
            "lost.yaml",
            "plugins: [{name: basics, source: lost.wasm}]\ntransformations: []\n",
        );
        let ran = run(&place, arguments).await;
        assert!(
            ran.code == code && ran.stderr.contains(expected),
            "{arguments:?}: {} {}",
            ran.code,
            ran.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn specs_are_locked_without_being_run() {
    let place = place();
    let spec = unpinned(&place);
    let other = "plugins: [{name: basics, source: basics.wasm}]\r\ntransformations: []\r\n";
    place.put("other.yaml", other);
    let digest = Digest::sha256(&component("basics.wasm"));
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    let ran = run(
        &place,
        &["plugin", "lock", "spec.yaml", "other.yaml", "--check"],
    )
    .await
    .code(9);
    assert_eq!(
        ran.stdout,
        format!("spec.yaml: basics {digest}\nother.yaml: basics {digest}\n")
    );
    assert_eq!(
        (read("spec.yaml"), read("other.yaml")),
        (spec.clone(), other.to_owned())
    );
    run(&place, &["plugin", "lock", "spec.yaml", "other.yaml"])
        .await
        .ok();
    assert_eq!(read("spec.yaml"), locked(&spec));
    assert_eq!(
        read("other.yaml"),
        other.replace("basics.wasm}", &format!("basics.wasm, digest: {digest}}}"))
    );
    run(
        &place,
        &["plugin", "lock", "spec.yaml", "other.yaml", "--check"],
    )
    .await
    .ok();
}
