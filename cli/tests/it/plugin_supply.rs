//! Plugins in specs: what is judged before anything runs, what is pinned, what is remembered.

use ocm_specs::{Algorithm, Digest};
use ocm_testdata::web::{Answer, WebServer};
use serde_json::{Value as Json, json};

use crate::place::{Peer, Place, RUN_EXAMPLE, tree};
use crate::plugins::{
    PASS, component, pinned, place, publish, publish_resource, refused, run, stored, transfer,
    with_plugin,
};
use crate::signing::{has_openssl, put, with_keys};

/// The entry of a plugin in a spec.
fn entry(name: &str, file: &str, bytes: &[u8]) -> String {
    format!(
        "- name: {name}\n  source: {file}\n  digest: {}\n",
        Digest::sha256(bytes)
    )
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
        &[],
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
        &[],
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
            "one that is generated is no file",
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

#[tokio::test(flavor = "multi_thread")]
async fn a_known_step_is_not_run_again() {
    let place = place();
    with_plugin(&place, &pinned(&component("basics.wasm")), PASS);
    let folder = place.path("cache");
    let transfer = async |more: &[&str]| {
        let environment = [("XDG_CACHE_HOME", folder.to_str().unwrap())];
        place
            .run_with(&environment, &[&RUN_EXAMPLE[..], more].concat())
            .await
    };
    let code = || {
        let files = tree(&folder.join("ocm/wasm"));
        let code = files
            .into_keys()
            .filter(|path| path.extension().is_some_and(|end| end == "cwasm"));
        code.map(|path| folder.join("ocm/wasm").join(path))
            .collect::<Vec<_>>()
    };
    transfer(&["--dry-run"]).await.ok();
    assert_eq!(code().len(), 1);
    let ran = transfer(&["--cache"]).await.ok();
    let said = |known, unknown| {
        format!("steps of plugins: {known} known from earlier runs, {unknown} not\n")
    };
    assert!(ran.stderr.contains(&said(0, 1)), "{}", ran.stderr);
    let expected = tree(&place.path("target"));
    // No guest can run without code, and none is made.
    code()
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    std::fs::remove_dir_all(place.path("target")).unwrap();
    let ran = transfer(&["--cache"]).await.ok();
    assert!(ran.stderr.contains(&said(1, 0)), "{}", ran.stderr);
    assert!(code().is_empty(), "a guest was called");
    assert_eq!(tree(&place.path("target")), expected);
    // Who does not ask for it gets what was always got.
    std::fs::remove_dir_all(place.path("target")).unwrap();
    let ran = transfer(&[]).await.ok();
    assert!(!ran.stderr.contains("known from earlier"), "{}", ran.stderr);
    assert_eq!(code().len(), 1);
    assert_eq!(tree(&place.path("target")), expected);
    // And what is pruned is forgotten.
    let environment = [("XDG_CACHE_HOME", folder.to_str().unwrap())];
    place
        .run_with(&environment, &["plugin", "prune"])
        .await
        .ok();
    assert!(tree(&folder).is_empty());
    let ran = transfer(&["--cache"]).await.ok();
    assert!(ran.stderr.contains(&said(0, 1)), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_with_rights_is_always_run() {
    let server = WebServer::start(|_| Answer::ok("ready")).await;
    let place = Place::new();
    let probe = component("probe.wasm");
    place.put("probe.wasm", &probe);
    let spec = format!(
        "plugins:\n{}transformations:\n- {{id: probe1, type: Probe/v1alpha1, spec: {{url: '{}/ready'}}}}\n",
        entry("probe", "probe.wasm", &probe),
        server.url()
    );
    place.put("spec.yaml", spec);
    for times in 1..=2 {
        let command = [
            "transfer",
            "--transfer-spec",
            "spec.yaml",
            "--cache",
            "--allow-plugin",
            "probe",
        ];
        let ran = run(&place, &command).await.ok();
        assert_eq!(server.log().len(), times);
        assert!(!ran.stderr.contains("known from earlier"), "{}", ran.stderr);
    }
}

/// A resource goes through steps of plugins on its way, as a mapping says.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_pipes_resources_through_plugins() {
    let place = place();
    let bytes = component("basics.wasm");
    publish(&place, "./source", b"Hello, World\n").await;
    let pipe = |steps: &str| {
        format!(
            "metadata: {{version: v1alpha1}}
plugins:
{}{}spec:
  mappings:
  - component: {{name: acme.org/basics, version: 0.1.0}}
    source: {{type: CommonTransportFormat/v1, filePath: ./source}}
    target: {{type: CommonTransportFormat/v1, filePath: ./copy}}
    resources:
    - resource: {{name: plugin}}
      transformations:
{steps}",
            entry("basics", "basics.wasm", &bytes),
            entry("scrub", "scrub.wasm", &component("scrub.wasm")),
        )
    };
    place.put("scrub.wasm", component("scrub.wasm"));
    let transfer = async |more: &[&str]| {
        run(
            &place,
            &[&["transfer", "--transfer-spec", "spec.yaml"], more].concat(),
        )
        .await
    };
    // What is wrong in a pipe is told at its place in the mapping.
    for (steps, expected) in [
        (
            "      - {type: Scrub/v1alpha1, rules: [{pattern: '('}]}\n",
            "spec.yaml:17:50: step `scrub1`: spec.rules[0].pattern: the pattern does not compile: ",
        ),
        (
            "      - {type: Scrub/v1alpha1, rules: []}\n",
            "spec.yaml:17:39: step `scrub1`: spec.rules: ",
        ),
        (
            "      - {type: Split/v1alpha1, at: 1}\n",
            "spec.yaml:17:16: `Split/v1alpha1` gives no content that could be uploaded",
        ),
        (
            "      - {type: Rot14/v1alpha1}\n",
            "did you mean `Rot13/v1alpha1`?",
        ),
    ] {
        place.put("spec.yaml", pipe(steps));
        for more in [&["--dry-run"][..], &[]] {
            let ran = transfer(more).await.code(3);
            assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        }
        assert!(!place.path("copy").exists());
    }
    place.put(
        "spec.yaml",
        pipe("      - type: Identity/v1alpha1\n        way: splice\n      - type: Rot13/v1alpha1\n      - {type: Count/v1alpha1}\n"),
    );
    let dry = transfer(&["--dry-run"]).await.ok();
    assert!(
        dry.stdout.contains("type: Rot13/v1alpha1"),
        "{}",
        dry.stdout
    );
    let read = async || {
        let line = [
            "download",
            "resource",
            "./copy//acme.org/basics:0.1.0",
            "plugin",
            "-O",
            "-",
        ];
        run(&place, &line).await.ok().stdout
    };
    let cache = ["--cache"];
    for more in [&cache[..], &cache, &[]] {
        transfer(more).await.ok();
        assert_eq!(read().await, "Uryyb, Jbeyq\n");
        std::fs::remove_dir_all(place.path("copy")).unwrap();
    }
    // The plan is a spec that does the same.
    place.put("spec.yaml", dry.stdout);
    transfer(&[]).await.ok();
    assert_eq!(read().await, "Uryyb, Jbeyq\n");
}

/// The bytes with every `old` replaced by a `new` of the same length.
fn patched(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..bytes.len() - old.len())
        .filter(|at| bytes[*at..].starts_with(old.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "{old}");
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

/// Whatever is wrong with a plugin has its exit code and its words, and no step has run by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_plugins_has_exit_codes() {
    let (basics, hostile) = (component("basics.wasm"), component("hostile.wasm"));
    let one = |name: &str, bytes: Vec<u8>| vec![(name.to_owned(), bytes)];
    let version = patched(
        &hostile,
        "ocm:transformer/transform@0.1.0",
        "ocm:transformer/transform@0.3.0",
    );
    let import = patched(
        &hostile,
        "ocm:transformer/host@0.1.0",
        "ocm:transformer/hose@0.1.0",
    );
    let twice = patched(&hostile, "OtherPort", "OtherType");
    let crash = patched(&hostile, "describe=well....", "describe=crash!!!");
    let taken = vec![
        ("hostile-plugin".to_owned(), hostile.clone()),
        (
            "hostile-plugim".to_owned(),
            patched(&hostile, "hostile-plugin", "hostile-plugim"),
        ),
    ];
    let built_in = patched(
        &component("filter-layers.wasm"),
        "FilterLayers/v1alpha1",
        "GetGitCommit/v1alpha1",
    );
    let precompiled = [b"\x7fELF\x02\x01\x01".as_slice(), &basics[7..]].concat();
    for (plugins, code, expected) in [
        (
            one("basics", basics.clone()),
            3,
            "unknown step type `Nothing/v1`",
        ),
        (
            one("basics", precompiled),
            3,
            "this is native or precompiled code, which is never taken from outside",
        ),
        (
            one("basics", b"\0asm\x01\0\0\0".to_vec()),
            3,
            "this is a core module, not a component",
        ),
        (
            one("basics", b"\0asm\x0d\0\x01\0".to_vec()),
            3,
            "it is no plugin",
        ),
        (
            one("basics", b"(component)".to_vec()),
            3,
            "this is WebAssembly text, not a component",
        ),
        (
            one("basics", basics[..basics.len() / 2].to_vec()),
            3,
            "this is not a component that can be run",
        ),
        (one("basics", Vec::new()), 3, "this is not WebAssembly"),
        (
            one("hostile-plugin", version),
            1,
            "it was built for ocm:transformer 0.3.0, this ocm knows 0.1",
        ),
        (
            one("hostile-plugin", import),
            3,
            "it imports `ocm:transformer/hose@0.1.0`, which is not offered to plugins",
        ),
        (
            one("hostile-plugin", twice),
            8,
            "it describes the step type `OtherType/v1` twice",
        ),
        (one("hostile-plugin", crash), 1, "the plugin crashed: "),
        (
            one("filter-layers", built_in),
            3,
            "plugin `filter-layers` has a step type `GetGitCommit/v1alpha1`, which is there already",
        ),
        (
            taken,
            3,
            "plugin `hostile-plugim` has a step type `HostileFirst/v1`, which is there already",
        ),
    ] {
        let place = place();
        let mut head = "plugins:\n".to_owned();
        for (name, bytes) in &plugins {
            place.put(&format!("{name}.wasm"), bytes);
            head.push_str(&entry(name, &format!("{name}.wasm"), bytes));
        }
        with_plugin(
            &place,
            &head,
            &PASS.replace("Identity/v1alpha1", "Nothing/v1"),
        );
        let ran = transfer(&place, &[]).await.code(code);
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        assert!(
            !place.path("target/example/archive").exists(),
            "a step has run"
        );
        // Replaced after it was pinned: by another plugin, which is well in itself.
        let (name, _) = &plugins[0];
        place.put(&format!("{name}.wasm"), component("probe.wasm"));
        let ran = transfer(&place, &["--dry-run"]).await.code(5);
        assert!(ran.stderr.contains("it is pinned to"), "{}", ran.stderr);
    }
}

/// Signatures leave out where content is. Whoever can write there must not get other content under a signature that holds:
/// not as a plugin, and not by `--verify`.
#[tokio::test(flavor = "multi_thread")]
async fn content_is_what_was_signed_whatever_its_access_says() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["acme"]);
    let (good, evil) = (component("basics.wasm"), component("hostile.wasm"));
    let sha512 = Digest::of(Algorithm::Sha512, &good);
    let triple = |hash: &str, normalisation: &str, value: &str| json!({"hashAlgorithm": hash, "normalisationAlgorithm": normalisation, "value": value});
    for (index, (digest, is_loadable, is_carried)) in [
        (
            triple(
                "SHA-256",
                "genericBlobDigest/v1",
                Digest::sha256(&good).hex(),
            ),
            true,
            true,
        ),
        (
            triple("SHA-512", "genericBlobDigest/v1", sha512.hex()),
            true,
            true,
        ),
        // What is said to be an artifact, and is none.
        (
            triple(
                "SHA-256",
                "ociArtifactDigest/v1",
                Digest::sha256(&good).hex(),
            ),
            false,
            false,
        ),
        // Left out of the signature: it is carried, but no plugin.
        (
            triple("NO-DIGEST", "EXCLUDE-FROM-SIGNATURE", "NO-DIGEST"),
            false,
            true,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let is_excluded = digest["hashAlgorithm"] == "NO-DIGEST";
        let repository = format!("./signed{index}");
        let reference = format!("{repository}//acme.org/basics:0.1.0");
        let mut resource = stored(&place, &repository, &good).await;
        resource["digest"] = digest.clone();
        publish_resource(&place, &repository, resource).await;
        let sign = [
            "sign",
            "cv",
            "--signature",
            "acme",
            "--private-key",
            "acme.pem",
            &reference,
        ];
        run(&place, &sign).await.ok();
        for is_swapped in [false, true] {
            if is_swapped {
                let get = ["get", "cv", &reference, "-o", "json"];
                let listed = run(&place, &get).await.ok().stdout;
                let listed: Json = serde_json::from_str(&listed).unwrap();
                let mut document = listed.as_array().map_or(&listed, |all| &all[0]).clone();
                let other = stored(&place, &repository, &evil).await;
                document["component"]["resources"][0]["access"] = other["access"].clone();
                put(&place, &repository, document).await;
            }
            let source = format!("ocm://{reference}");
            let install = [
                "plugin",
                "install",
                &source,
                "--signature",
                "acme",
                "--plugin-key",
                "acme.pub",
            ];
            let code = if is_loadable && !is_swapped { 0 } else { 5 };
            run(&place, &install).await.code(code);
            let carry = [
                "transfer",
                "cv",
                &reference,
                "./copy",
                "--verify",
                "acme=acme.pub",
            ];
            let code = if is_carried && (!is_swapped || is_excluded) {
                0
            } else {
                5
            };
            run(&place, &carry).await.code(code);
            let _ = std::fs::remove_dir_all(place.path("copy"));
        }
    }
}

/// A component version with a plugin, in every kind of registry: signed as wanted, or nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_plugin_with_its_signature_runs() {
    if !has_openssl() {
        return;
    }
    for peer in Peer::all().await {
        let keys = with_keys(&["acme"]);
        let place = place();
        for key in ["acme.pem", "acme.pub"] {
            place.put(key, std::fs::read(keys.path(key)).unwrap());
        }
        let host = peer.url().trim_start_matches("http://").to_owned();
        let bytes = component("basics.wasm");
        let reference = |repository: &str| format!("{repository}//acme.org/basics:0.1.0");
        let sign = |repository: &str| {
            let reference = reference(repository);
            [
                "sign",
                "cv",
                "--signature",
                "acme",
                "--private-key",
                "acme.pem",
                &reference,
            ]
            .map(str::to_owned)
        };
        // Signed, not signed, and signed before the plugin in it was replaced.
        let carry = async |from: &str, to: &str| {
            let (from, to) = (reference(from), format!("{host}/{to}"));
            run(&place, &["transfer", "cv", &from, &to]).await.ok();
        };
        publish(&place, "./plain", &bytes).await;
        carry("./plain", "plain").await;
        publish(&place, "./signed", &bytes).await;
        let command = sign("./signed");
        run(&place, &command.each_ref().map(String::as_str))
            .await
            .ok();
        carry("./signed", "signed").await;
        for (repository, digest, more, code, expected) in [
            (
                "signed",
                Digest::sha256(&bytes),
                &["--plugin-key", "acme.pub"][..],
                0,
                "rights: none",
            ),
            (
                "plain",
                Digest::sha256(&bytes),
                &["--plugin-key", "acme.pub"],
                5,
                "signature `acme`",
            ),
            (
                "signed",
                Digest::sha256(b"other"),
                &["--plugin-key", "acme.pub"],
                5,
                "it is pinned to",
            ),
            (
                "none",
                Digest::sha256(&bytes),
                &["--plugin-key", "acme.pub"],
                4,
                "none",
            ),
        ] {
            let head = format!(
                "plugins:\n- name: basics\n  source: ocm://{host}/{repository}//acme.org/basics:0.1.0?resource=plugin\n  digest: {digest}\n  signature: acme\n"
            );
            with_plugin(&place, &head, PASS);
            if code != 0 {
                let _ = std::fs::remove_dir_all(place.path("target"));
                for dry in [&["--dry-run"][..], &[]] {
                    let ran = transfer(&place, &[more, dry].concat()).await.code(code);
                    assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
                    assert!(!place.path("target/example/archive").exists());
                }
                continue;
            }
            let ran = transfer(&place, more).await.ok();
            assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        }
        // Who runs it can want the signature that a spec does not.
        for (repository, code) in [("plain", 5), ("signed", 0)] {
            let head = format!(
                "plugins:\n- name: basics\n  source: ocm://{host}/{repository}//acme.org/basics:0.1.0?resource=plugin\n  digest: {}\n",
                Digest::sha256(&bytes)
            );
            with_plugin(&place, &head, PASS);
            let wanted = ["--plugin-key", "acme.pub", "--plugin-signature", "acme"];
            if code != 0 {
                let _ = std::fs::remove_dir_all(place.path("target"));
                refused(&place, &wanted, code, &["signature `acme`"]).await;
                continue;
            }
            let json = ["-o", "json"];
            let ran = transfer(&place, &[&wanted[..], &json].concat()).await.ok();
            let told = &ran.json()["plugins"][0];
            let expected = json!({
                "name": "basics", "version": "0.1.0", "digest": Digest::sha256(&bytes).to_string(), "signatures": ["acme"],
                "source": format!("ocm://{host}/{repository}//acme.org/basics:0.1.0?resource=plugin"), "rights": "none",
                "types": told["types"],
            });
            assert_eq!(*told, expected);
            let types = told["types"].as_array().unwrap();
            assert!(types.contains(&json!("Identity/v1alpha1")), "{types:?}");
        }
        // What a plugin changes on the way breaks the signature over it, and that is not passed over.
        let pinned = format!("basics=./basics.wasm@{}", Digest::sha256(&bytes));
        let signed = reference("./signed");
        let change = [
            "transfer",
            "cv",
            &signed,
            "./changed",
            "--plugin",
            &pinned,
            "--transform",
        ];
        let drop = ["--on-broken-signature", "drop"];
        for (step, more, code) in [
            ("Rot13/v1alpha1", &[][..], 5),
            ("Rot13/v1alpha1", &drop, 0),
            ("Identity/v1alpha1", &[], 0),
        ] {
            let ran = run(&place, &[&change[..], &[step], more].concat())
                .await
                .code(code);
            assert_eq!(
                ran.stderr.contains("no longer holds"),
                code == 5,
                "{}",
                ran.stderr
            );
            let _ = std::fs::remove_dir_all(place.path("changed"));
        }
        // It is locked by what has the signature, and only by that.
        for (repository, code) in [("signed", 0), ("plain", 5)] {
            let spec = format!(
                "plugins: [{{name: basics, source: 'ocm://{host}/{repository}//acme.org/basics:0.1.0', signature: acme}}]\ntransformations: []\n"
            );
            place.put("lock.yaml", &spec);
            run(
                &place,
                &["plugin", "lock", "lock.yaml", "--plugin-key", "acme.pub"],
            )
            .await
            .code(code);
            let text = std::fs::read_to_string(place.path("lock.yaml")).unwrap();
            assert_eq!(text != spec, code == 0);
            assert_eq!(
                text.contains(&Digest::sha256(&bytes).to_string()),
                code == 0
            );
        }
        // And installed by digest.
        let source = format!("ocm://{host}/signed//acme.org/basics:0.1.0");
        let digest = Digest::sha256(&bytes).to_string();
        for (signature, digest, code) in [
            ("acme", &*digest, 0),
            ("other", &digest, 5),
            ("acme", &Digest::sha256(b"other").to_string(), 5),
        ] {
            let command = [
                "plugin",
                "install",
                &source,
                "--signature",
                signature,
                "--plugin-key",
                "acme.pub",
                "--digest",
                digest,
            ];
            run(&place, &command).await.code(code);
        }
    }
}

/// Resources that are carried go through a step of a plugin, all or some, and what is printed does the same.
#[tokio::test(flavor = "multi_thread")]
async fn resources_are_transformed_while_they_are_carried() {
    let place = Place::new();
    let basics = component("basics.wasm");
    place.put("basics.wasm", &basics);
    place.put("scrub.wasm", component("scrub.wasm"));
    publish(&place, "./source", b"Hello, World\n").await;
    let plugin = |name: &str| {
        format!(
            "{name}=./{name}.wasm@{}",
            Digest::sha256(&component(&format!("{name}.wasm")))
        )
    };
    let (basics, scrub) = (plugin("basics"), plugin("scrub"));
    let carry = [
        "transfer",
        "cv",
        "./source//acme.org/basics:0.1.0",
        "./copy",
    ];
    let rot = ["--plugin", &basics, "--transform", "Rot13/v1alpha1"];
    let resource = async || {
        let read = [
            "download",
            "resource",
            "./copy//acme.org/basics:0.1.0",
            "plugin",
            "-O",
            "-",
        ];
        let text = run(&place, &read).await.ok().stdout;
        run(&place, &["check", "cv", "./copy//acme.org/basics:0.1.0"])
            .await
            .ok();
        std::fs::remove_dir_all(place.path("copy")).unwrap();
        text
    };
    run(&place, &[&carry[..], &rot].concat()).await.ok();
    assert_eq!(resource().await, "Uryyb, Jbeyq\n");
    // The plan has the plugin in it, pinned, and is a spec that does the same.
    let dry = run(&place, &[&carry[..], &rot, &["--dry-run"]].concat())
        .await
        .ok();
    assert!(dry.stdout.contains("digest: sha256:"), "{}", dry.stdout);
    place.put("plan.yaml", &dry.stdout);
    run(&place, &["transfer", "--transfer-spec", "plan.yaml"])
        .await
        .ok();
    assert_eq!(resource().await, "Uryyb, Jbeyq\n");
    // One behind the other, some by a file with a condition.
    place.put(
        "some.yaml",
        "type: Identity/v1alpha1\nselect: resource.type == 'wasmComponent'\nspec: {way: splice}\n",
    );
    place.put(
        "none.yaml",
        "type: Rot13/v1alpha1\nselect: resource.type == 'helmChart'\n",
    );
    let more = [
        "--transform",
        "some.yaml",
        "--transform",
        "none.yaml",
        "--transform",
        "Count/v1alpha1",
    ];
    let ran = run(&place, &[&carry[..], &rot, &more].concat()).await.ok();
    assert!(
        ran.stderr
            .contains("note: no resource goes through `Rot13/v1alpha1`"),
        "{}",
        ran.stderr
    );
    assert_eq!(resource().await, "Uryyb, Jbeyq\n");
    place.put(
        "bad.yaml",
        "type: Scrub/v1alpha1\nspec: {rules: [{pattern: '('}]}\n",
    );
    place.put("odd.yaml", "tpye: Scrub/v1alpha1\nselect: resource.\n");
    for (more, code, expected) in [
        (
            &["--transform", "bad.yaml", "--plugin", &scrub][..],
            3,
            "spec.rules[0].pattern: the pattern does not compile",
        ),
        (
            &["--transform", "odd.yaml"],
            3,
            "odd.yaml:1:1: unknown key `tpye`\n  hint: did you mean `type`?",
        ),
        (
            &["--transform", "odd.yaml"],
            3,
            "odd.yaml:2:9: condition `resource.`",
        ),
        (&["--transform", "lost.yaml"], 4, "read lost.yaml"),
        (
            &["--transform", "Rot14/v1alpha1", "--plugin", &basics],
            3,
            "did you mean `Rot13/v1alpha1`?",
        ),
        (
            &["--transform", "Rot13/v1alpha1"],
            3,
            "there is no step type `Rot13/v1alpha1`",
        ),
        (
            &["--transform", "Split/v1alpha1", "--plugin", &basics],
            3,
            "step type `Split/v1alpha1` does not give one content",
        ),
        (
            &[
                "--plugin",
                "basics=./basics.wasm",
                "--transform",
                "Rot13/v1alpha1",
            ],
            3,
            "plugin `basics` has no digest",
        ),
        (
            &[
                "--transform",
                "Rot13/v1alpha1",
                "--transfer-spec",
                "plan.yaml",
            ],
            2,
            "can't stand beside --transfer-spec",
        ),
    ] {
        let ran = run(&place, &[&carry[..], more].concat()).await;
        assert!(
            ran.code == code && ran.stderr.contains(expected),
            "{more:?}: {} {}",
            ran.code,
            ran.stderr
        );
        assert!(!place.path("copy").exists());
    }
}

/// Images and charts reach a plugin as layouts and become artifacts again.
#[tokio::test(flavor = "multi_thread")]
async fn artifacts_go_through_a_plugin_and_stay_what_they_are() {
    let place = place();
    let plugin = format!(
        "basics=./basics.wasm@{}",
        Digest::sha256(&component("basics.wasm"))
    );
    let mut trees = Vec::new();
    for more in [
        &[][..],
        &["--plugin", &plugin, "--transform", "Identity/v1alpha1"],
    ] {
        let carry = [
            "transfer",
            "cv",
            "--copy-resources",
            "./examples/localize/archive//acme.example/shop:2.3.0",
            "./copy",
            "--serve",
            "source.example=examples/localize/archive",
        ];
        run(&place, &[&carry[..], more].concat()).await.ok();
        trees.push(tree(&place.path("copy")));
        std::fs::remove_dir_all(place.path("copy")).unwrap();
    }
    assert_eq!(trees[0], trees[1]);
}
