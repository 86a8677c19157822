//! Step types in WebAssembly, as users of the program meet them.

use std::path::{Path, PathBuf};

use ocm_specs::descriptor::ElementKind;
use ocm_specs::{Digest, RepositorySpec};
use ocm_testdata::web::{Answer, WebServer};
use serde_json::{Value as Json, json};

use crate::place::{Peer, Place, RUN_EXAMPLE, Ran, tree};
use crate::signing::{has_openssl, put, with_keys};

pub(crate) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/localize");
const SPEC: &str = "examples/localize/transfer-spec.yaml";

/// The bytes of a committed component.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins-wasm/examples/prebuilt");
    std::fs::read(folder.join(name)).unwrap()
}

/// A folder with the shipped example and the plugin `basics`.
pub(crate) fn place() -> Place {
    let place = Place::new();
    for (name, bytes) in tree(Path::new(EXAMPLE)) {
        let path = place.path("examples/localize").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    place.put("basics.wasm", component("basics.wasm"));
    place
}

/// Compiled plugins are kept from test to test: to compile is slow without optimization.
pub(crate) fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache")
}

pub(crate) async fn run(place: &Place, arguments: &[&str]) -> Ran {
    let cache = cache();
    place
        .run_with(&[("XDG_CACHE_HOME", cache.to_str().unwrap())], arguments)
        .await
}

pub(crate) async fn transfer(place: &Place, more: &[&str]) -> Ran {
    run(place, &[&RUN_EXAMPLE[..], more].concat()).await
}

/// `spec.yaml` is refused with all that is expected, in a dry run and for real, before any step has run.
pub(crate) async fn refused(
    place: &Place,
    options: &[&str],
    code: i32,
    expected: &[impl AsRef<str>],
) {
    for mode in [&["--dry-run"][..], &[]] {
        let ran = transfer(place, &[mode, options].concat()).await.code(code);
        for expected in expected {
            let expected = expected.as_ref();
            assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        }
        assert!(
            !place.path("target/example/archive").exists(),
            "{}: a step has run",
            ran.stderr
        );
    }
}

/// The example with a step of a plugin between unpacking and localizing.
pub(crate) fn with_plugin(place: &Place, head: &str, step: &str) {
    let spec = std::fs::read_to_string(Path::new(EXAMPLE).join("transfer-spec.yaml")).unwrap();
    let spec = spec.replace(
        "data: ${chartFiles.output.data}",
        "data: ${pass.output.data}",
    );
    assert!(
        spec.contains("${pass.output.data}"),
        "the example has changed"
    );
    let spec = spec.replace(
        "\ntransformations:\n",
        &format!("\n{head}\ntransformations:\n{step}\n"),
    );
    place.put("spec.yaml", spec);
}

pub(crate) const PASS: &str =
    "  - id: pass\n    type: Identity/v1alpha1\n    spec:\n      data: ${chartFiles.output.data}\n";

pub(crate) fn pinned(bytes: &[u8]) -> String {
    format!(
        "plugins:\n- name: basics\n  source: file:./basics.wasm\n  digest: {}\n",
        Digest::sha256(bytes)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_with_a_plugin_gives_what_it_gives_without() {
    let expected = {
        let place = place();
        std::fs::copy(place.path(SPEC), place.path("spec.yaml")).unwrap();
        transfer(&place, &[]).await.ok();
        tree(&place.path("target"))
    };
    let place = place();
    with_plugin(&place, &pinned(&component("basics.wasm")), PASS);
    let dry = transfer(&place, &["--dry-run"]).await.ok();
    let digest = Digest::sha256(&component("basics.wasm"));
    assert!(
        dry.stdout.contains(&format!("digest: {digest}")),
        "{}",
        dry.stdout
    );
    assert!(
        dry.stderr
            .contains(&format!("plugin basics 0.1.0: {digest}, rights: none")),
        "{}",
        dry.stderr
    );
    assert!(!place.path("target").exists());
    let report = transfer(&place, &["-o", "json"]).await.ok().json();
    let pass = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["id"] == "pass");
    assert_eq!(pass.unwrap()["type"], "Identity/v1alpha1");
    assert_eq!(tree(&place.path("target")), expected);
    // The plan is a spec again, plugins included.
    place.put("spec.yaml", dry.stdout);
    transfer(&place, &["--dry-run", "--offline"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_plugin_stops_the_run_before_any_step() {
    let bytes = component("basics.wasm");
    let other = Digest::sha256(b"another");
    let entry = |lines: &str| format!("plugins:\n- name: basics\n{lines}");
    for (head, step, more, code, expected) in [
        (
            entry(&format!("  source: basics.wasm\n  digest: {other}\n")),
            PASS,
            &[][..],
            5,
            "it is pinned to",
        ),
        (
            entry("  source: basics.wasm\n"),
            PASS,
            &[],
            3,
            "plugin `basics` has no digest",
        ),
        (
            entry("  source: basics.wasm\n"),
            PASS,
            &["--allow-unpinned-plugins"],
            0,
            "rights: none",
        ),
        (
            entry(&format!("  source: none.wasm\n  digest: {other}\n")),
            PASS,
            &[],
            4,
            "read none.wasm",
        ),
        (
            entry(&format!(
                "  source: https://example.com/x.wasm\n  digest: {other}\n"
            )),
            PASS,
            &[],
            3,
            "plugins do not come from `https://`",
        ),
        (
            entry(&format!(
                "  source: oci://registry.example/x:1\n  digest: {other}\n"
            )),
            PASS,
            &["--offline"],
            4,
            "--offline forbids",
        ),
        (
            entry("  source: basics.wasm\n  digest: sha256:abc\n"),
            PASS,
            &[],
            3,
            "spec.yaml:",
        ),
        (
            entry("  source: basics.wasm\n  digset: x\n"),
            PASS,
            &[],
            3,
            "did you mean `digest`?",
        ),
        (
            pinned(&bytes).replace("name: basics", "name: other"),
            PASS,
            &[],
            3,
            "calls itself `basics`, not `other`",
        ),
        (
            pinned(&bytes) + "  config: {a: 1}\n",
            PASS,
            &[],
            3,
            "it takes none",
        ),
        (
            pinned(&bytes) + "  rights: {disk: true}\n",
            PASS,
            &[],
            3,
            "`rights`: unknown field",
        ),
        (
            pinned(&bytes) + "  signature: acme\n",
            PASS,
            &[],
            5,
            "a signature is wanted",
        ),
        (
            pinned(&bytes),
            PASS,
            &["--allow-plugin", "nobody"],
            2,
            "there is no plugin `nobody`",
        ),
        (
            pinned(&bytes),
            PASS,
            &["--allow-plugin", "basics=disk"],
            3,
            "`disk` is not a right",
        ),
        (
            String::new(),
            PASS,
            &[],
            3,
            "unknown step type `Identity/v1alpha1`",
        ),
        (
            pinned(&bytes),
            "  - id: pass\n    type: Identity/v1alpha1\n    spec:\n      way: none\n",
            &[],
            3,
            "spec.yaml:",
        ),
    ] {
        let place = place();
        with_plugin(&place, &head, step);
        if code == 0 {
            let ran = transfer(&place, &[&["--dry-run"], more].concat())
                .await
                .ok();
            assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        } else {
            refused(&place, more, code, &[expected]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_plugin_has_a_place_in_the_spec() {
    let place = place();
    let step = "  - id: pass\n    type: Split/v1alpha1\n    spec:\n      data: ${chartFiles.output.data}\n      at: 0\n";
    with_plugin(&place, &pinned(&component("basics.wasm")), step);
    let spec = std::fs::read_to_string(place.path("spec.yaml")).unwrap();
    place.put(
        "spec.yaml",
        spec.replace("${pass.output.data}", "${pass.output.head}"),
    );
    let line = 1 + spec.lines().position(|line| line == "      at: 0").unwrap();
    let expected = format!(
        "spec.yaml:{line}:11: step `pass`: spec.at: the first part would be empty\n  hint: write 1 or more"
    );
    refused(&place, &[], 3, &[&expected]).await;
    // What is known only when it runs is told with its place, too.
    let spec = std::fs::read_to_string(place.path("spec.yaml")).unwrap();
    place.put(
        "spec.yaml",
        spec.replace(
            "      at: 0\n",
            "      at: ${size(chartFiles.output.data.uri) - size(chartFiles.output.data.uri)}\n",
        ),
    );
    transfer(&place, &["--dry-run"]).await.ok();
    let ran = transfer(&place, &[]).await.code(3);
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_in_the_help_beside_the_built_in_types() {
    let place = place();
    let ran = run(&place, &["get", "types", "--plugin", "basics.wasm"])
        .await
        .ok();
    assert!(ran.stdout.contains("Rot13/v1alpha1"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("OCIGetComponentVersion/v1alpha1")
            || ran.stdout.contains("FileCleanup"),
        "{}",
        ran.stdout
    );
    let ran = run(
        &place,
        &["describe", "types", "Split", "--plugin", "basics.wasm"],
    )
    .await
    .ok();
    for expected in [
        "Cuts bytes in two.",
        "at*",
        "integer",
        "head*",
        "content",
        "the first bytes",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
    }
    let schema = run(
        &place,
        &["get", "schema", "transfer-spec", "--plugin", "basics.wasm"],
    )
    .await
    .ok()
    .json();
    assert!(schema.to_string().contains("Split/v1alpha1"));
    let ran = run(
        &place,
        &["plugin", "describe", "basics.wasm", "-o", "markdown"],
    )
    .await
    .ok();
    for expected in [
        "# basics 0.1.0",
        "## Count/v1alpha1",
        "| `bytes` | integer | yes | Bytes of the input. |",
        "```yaml",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_plugins_are_listed_and_pruned() {
    let place = place();
    let folder = place.path("cache");
    let run = async |arguments: &[&str]| {
        place
            .run_with(&[("XDG_CACHE_HOME", folder.to_str().unwrap())], arguments)
            .await
    };
    assert_eq!(
        run(&["plugin", "ls", "-o", "json"]).await.ok().json(),
        json!([])
    );
    let ran = run(&["plugin", "install", "basics.wasm"]).await.ok();
    assert!(ran.stderr.contains("asks for no rights"), "{}", ran.stderr);
    let digest = Digest::sha256(&component("basics.wasm")).to_string();
    assert!(
        ran.stdout.starts_with("plugins:\n- name: basics\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains(&format!("digest: {digest}\n")),
        "{}",
        ran.stdout
    );
    // What it prints can be pasted, and it is found by its digest alone.
    with_plugin(&place, &ran.stdout, PASS);
    let command = [
        "transfer",
        "--transfer-spec",
        "spec.yaml",
        "--dry-run",
        "--offline",
        "--serve",
        "source.example=examples/localize/archive",
        "--serve",
        "target.example=target",
    ];
    run(&command).await.ok();
    with_plugin(
        &place,
        &format!("plugins:\n- {{name: basics, digest: '{digest}'}}\n"),
        PASS,
    );
    run(&command).await.ok();
    let list = run(&["plugin", "ls", "-o", "json"]).await.ok().json();
    assert_eq!(list[0]["name"], "basics");
    assert_eq!(list[0]["digest"], digest);
    let ran = run(&["plugin", "ls"]).await.ok();
    assert!(ran.stdout.contains("Rot13/v1alpha1"), "{}", ran.stdout);
    run(&["plugin", "describe", "basics/Rot13"]).await.ok();
    run(&["plugin", "describe", "basics/None"]).await.code(4);
    run(&["plugin", "prune", "--keep", "nobody"]).await.code(4);
    run(&["plugin", "prune", "--keep", "basics"]).await.ok();
    assert_eq!(
        run(&["plugin", "ls", "-o", "json"]).await.ok().json()[0]["name"],
        "basics"
    );
    run(&["plugin", "prune"]).await.ok();
    assert_eq!(
        run(&["plugin", "ls", "-o", "json"]).await.ok().json(),
        json!([])
    );
    run(&["plugin", "describe", "basics"]).await.code(4);
}

/// Every kind of registry: pushed there, pinned, fetched by digest, and a changed byte stops the run before any step.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_travels_as_an_oci_artifact() {
    for peer in Peer::all().await {
        let place = place();
        let target = format!(
            "{}/acme/basics:0.1.0",
            peer.url().trim_start_matches("http://")
        );
        let pushed = run(&place, &["plugin", "push", "basics.wasm", &target])
            .await
            .ok();
        let digest = Digest::sha256(&component("basics.wasm"));
        assert!(
            pushed.stdout.contains(&format!("digest: {digest}")),
            "{}",
            pushed.stdout
        );
        let manifest = place.manifest(&target).await.parse().unwrap();
        let layers = manifest.layers.unwrap();
        assert_eq!(
            (layers.len(), &*layers[0].media_type),
            (1, "application/wasm")
        );
        assert_eq!(
            manifest.config.unwrap().media_type,
            "application/vnd.wasm.config.v0+json"
        );
        std::fs::remove_file(place.path("basics.wasm")).unwrap();
        // With an empty cache it comes from the registry; then the cache has it.
        let folder = place.path("cache");
        let environment = [("XDG_CACHE_HOME", folder.to_str().unwrap())];
        with_plugin(&place, &pushed.stdout, PASS);
        let command = [
            "transfer",
            "--transfer-spec",
            "spec.yaml",
            "--serve",
            "source.example=examples/localize/archive",
            "--serve",
            "target.example=target/example/registry",
        ];
        place
            .run_with(
                &environment,
                &[&command[..], &["--dry-run", "--offline"]].concat(),
            )
            .await
            .code(4);
        place.run_with(&environment, &command).await.ok();
        place
            .run_with(
                &environment,
                &[&command[..], &["--dry-run", "--offline"]].concat(),
            )
            .await
            .ok();
        // The tag now leads to other bytes: the pin holds.
        let mut other = component("basics.wasm");
        let at = other.windows(6).position(|part| part == b"basics").unwrap();
        other[at] = b'B';
        place.put("other.wasm", &other);
        let fresh = place.path("fresh");
        let environment = [("XDG_CACHE_HOME", fresh.to_str().unwrap())];
        push_bytes(&place, &target, &other).await;
        std::fs::remove_dir_all(place.path("target")).unwrap();
        let ran = place.run_with(&environment, &command).await.code(5);
        assert!(ran.stderr.contains("it is pinned to"), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("hint: somebody replaced it"),
            "{}",
            ran.stderr
        );
        assert!(!place.path("target/example/archive").exists());
    }
}

/// Puts a component under a tag without asking it anything.
pub(crate) async fn push_bytes(place: &Place, target: &str, bytes: &[u8]) {
    let store = place.store(target);
    let layer = ocm_content::Blob::from_bytes("application/wasm", bytes.to_vec());
    let config = ocm_content::Blob::from_bytes("application/vnd.wasm.config.v0+json", "{}");
    store.push(&layer, &[]).await.unwrap();
    store.push(&config, &[]).await.unwrap();
    let manifest = ocm_specs::oci::Manifest::image(
        config.descriptor().unwrap(),
        vec![layer.descriptor().unwrap()],
    );
    let tag = target.rsplit_once(':').unwrap().1;
    store
        .put_manifest(&ocm_content::RawManifest::write(&manifest), Some(tag))
        .await
        .unwrap();
}

/// Stores a component version with a plugin as its resource.
pub(crate) async fn publish(place: &Place, repository: &str, bytes: &[u8]) {
    let resource = stored(place, repository, bytes).await;
    publish_resource(place, repository, resource).await;
}

/// The resource of a plugin whose bytes are stored there.
pub(crate) async fn stored(place: &Place, repository: &str, bytes: &[u8]) -> Json {
    let spec: RepositorySpec = repository.parse().unwrap();
    let opened = place.session().repository(&spec, true).await.unwrap();
    let blob = ocm_content::Blob::from_bytes("application/wasm", bytes.to_vec());
    let resource = json!({"name": "plugin", "version": "0.1.0", "type": "wasmComponent", "relation": "local",
        "access": {"type": "localBlob/v1", "mediaType": "application/wasm"}});
    opened
        .prepare_local_blob(
            "acme.org/basics",
            ElementKind::Resource,
            &resource,
            &blob.into(),
        )
        .await
        .unwrap()
}

/// A component version of that resource.
pub(crate) async fn publish_resource(place: &Place, repository: &str, resource: Json) {
    let document = json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": "acme.org/basics", "version": "0.1.0", "provider": "acme", "repositoryContexts": [],
            "sources": [], "componentReferences": [], "resources": [resource]},
    });
    put(place, repository, document).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_travels_as_a_signed_resource() {
    if !has_openssl() {
        return;
    }
    for peer in Peer::all().await {
        let place = with_keys(&["acme", "other"]);
        for (name, bytes) in tree(Path::new(EXAMPLE)) {
            let path = place.path("examples/localize").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let host = peer.url().trim_start_matches("http://").to_owned();
        publish(&place, "./plugins", &component("basics.wasm")).await;
        let reference = "./plugins//acme.org/basics:0.1.0";
        run(
            &place,
            &[
                "sign",
                "cv",
                "--signature",
                "acme",
                "--private-key",
                "acme.pem",
                reference,
            ],
        )
        .await
        .ok();
        // Like any other component version it is carried to where it is used.
        run(
            &place,
            &["transfer", "cv", reference, &format!("{host}/ocm")],
        )
        .await
        .ok();
        let digest = Digest::sha256(&component("basics.wasm"));
        let entry = |signature: &str| {
            format!(
                "plugins:\n- name: basics\n  source: ocm://{host}/ocm//acme.org/basics:0.1.0?resource=plugin\n  digest: {digest}\n{signature}"
            )
        };
        let signed = entry("  signature: acme\n");
        for (head, more, code, expected) in [
            (entry(""), &[][..], 0, "rights: none"),
            (
                signed.clone(),
                &["--plugin-key", "acme.pub"],
                0,
                "rights: none",
            ),
            (
                signed.clone(),
                &["--plugin-key", "other.pub"],
                5,
                "signature `acme` of acme.org/basics:0.1.0",
            ),
            (
                signed.clone(),
                &[],
                4,
                "hint: name a PEM file with --plugin-key FILE",
            ),
            (
                entry("  signature: nobody\n"),
                &["--plugin-key", "acme.pub"],
                5,
                "signature `nobody`",
            ),
            (
                signed.replace("resource=plugin", "resource=none"),
                &["--plugin-key", "acme.pub"],
                4,
                "there is no resource `none`",
            ),
        ] {
            with_plugin(&place, &head, PASS);
            let ran = transfer(&place, more).await;
            assert_eq!(ran.code, code, "{expected}: {}", ran.stderr);
            assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
            let target = place.path("target");
            assert_eq!(
                target.join("example/archive").exists(),
                code == 0,
                "{expected}"
            );
            if code == 0 {
                std::fs::remove_dir_all(target).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_plugin_go_where_they_are_granted() {
    let elsewhere = WebServer::start(|_| Answer::ok("secret")).await;
    let target = elsewhere.url();
    let server = WebServer::start(move |asked| match asked.path.as_str() {
        "/away" => Answer::new(302).header(
            "location",
            format!("{}/x", target.replace("127.0.0.1", "localhost")),
        ),
        "/near" => Answer::new(302).header("location", "/ready"),
        "/ring" => Answer::new(302).header("location", "/ring"),
        "/echo" => Answer::ok(asked.body),
        "/ready" => Answer::ok("ready"),
        _ => Answer::missing(),
    })
    .await;
    let (url, port) = (
        server.url(),
        server.url().rsplit_once(':').unwrap().1.to_owned(),
    );
    let place = Place::new();
    place.put("probe.wasm", component("probe.wasm"));
    let digest = Digest::sha256(&component("probe.wasm"));
    let all: &[&str] = &["--allow-plugin", "probe"];
    let one = format!("probe=http:127.0.0.1:{port}");
    let one: &[&str] = &["--allow-plugin", &one];
    for (path, more, rights, allow, code, expected) in [
        ("/ready", "", "", all, 0, ""),
        ("/ready", "", "", one, 0, ""),
        ("/none", "", "", one, 0, ""),
        ("/near", "", "", one, 0, ""),
        ("/echo", ", body: hello", "", one, 0, ""),
        ("/away", "", "", one, 6, "redirects to http://localhost:"),
        ("/ring", "", "", one, 7, "more than 5 redirects"),
        (
            "/ready",
            "",
            "",
            &[],
            6,
            "to allow it: --allow-plugin probe=http:*.acme.example,http:127.0.0.1:*",
        ),
        (
            "/ready",
            "",
            "",
            &["--allow-plugin", "probe=http:a.acme.example"],
            6,
            "which is not granted to plugin `probe`",
        ),
        (
            "/ready",
            "",
            "  rights: {http: [a.acme.example]}\n",
            all,
            6,
            "which is not granted to plugin `probe`",
        ),
        (
            "/ready",
            "",
            "  rights: {clock: true}\n",
            all,
            6,
            "which the spec leaves out",
        ),
        (
            "/ready",
            ", header: authorization",
            "",
            one,
            6,
            "the header `authorization` is the host's own",
        ),
    ] {
        let spec = format!(
            "plugins:\n- name: probe\n  source: probe.wasm\n  digest: {digest}\n{rights}transformations:\n- id: probe1\n  type: Probe/v1alpha1\n  spec: {{url: '{url}{path}'{more}}}\n"
        );
        place.put("spec.yaml", spec);
        let ran = run(
            &place,
            &[&["transfer", "--transfer-spec", "spec.yaml"], allow].concat(),
        )
        .await;
        let told = ran.code == code && (code == 0 || ran.stderr.contains(expected));
        assert!(
            told,
            "{path}{more} {allow:?}: {} {}, expected {code} {expected}",
            ran.code, ran.stderr
        );
        assert!(!ran.stderr.contains("fault of ocm"), "{}", ran.stderr);
    }
    assert!(elsewhere.log().is_empty(), "{:?}", elsewhere.lines());
    let log = server.log();
    assert!(
        log.iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    assert!(
        log.iter()
            .any(|asked| asked.method == "POST" && asked.body == "hello")
    );
    // Two for each that was granted and led on, none for the others.
    assert_eq!(log.iter().filter(|asked| asked.path == "/ready").count(), 3);
}

/// What a new project in each language has; those in Rust are built and run by the guide's test.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_project_is_complete() {
    let place = Place::new();
    for (language, expected) in [
        (
            "rust",
            &[
                ("Cargo.toml", "name = \"acme-scrub\""),
                ("Cargo.lock", "name = \"acme-scrub\""),
                ("src/lib.rs", "struct AcmeScrub;"),
                ("README.md", "acme_scrub.wasm"),
                ("ocm-plugin/src/lib.rs", "pub trait Transformer"),
            ][..],
        ),
        (
            "python",
            &[
                ("plugin.py", "class AcmeScrub(Transformer)"),
                ("test_plugin.py", "from plugin import AcmeScrub"),
                ("ocm_plugin.py", "class Transformer:"),
                ("build.sh", "-o acme_scrub.wasm"),
                ("README.md", "acme_scrub.wasm"),
            ],
        ),
        (
            "js",
            &[
                ("plugin.js", "class AcmeScrub extends Transformer"),
                ("plugin.test.js", "import { AcmeScrub }"),
                ("ocm-plugin.js", "export class Transformer"),
                ("build.js", "'acme_scrub.wasm'"),
                ("package.json", "\"name\": \"acme-scrub\""),
                ("README.md", "acme_scrub.wasm"),
            ],
        ),
    ] {
        let arguments = [
            "plugin",
            "new",
            "acme-scrub",
            "--folder",
            language,
            "--lang",
            language,
        ];
        let ran = place.run(&arguments).await.ok();
        assert_eq!(ran.stdout, format!("{language}\n"));
        let files = tree(&place.path(language));
        let contract = ("wit/transformer.wit", "package ocm:transformer@0.1.0;");
        for (path, expected) in expected.iter().chain([&contract]) {
            let text = String::from_utf8(files[Path::new(path)].clone()).unwrap();
            assert!(text.contains(expected), "{language}: {path}");
        }
    }
    let ran = place.run(&["plugin", "new", "acme-scrub"]).await.ok();
    assert_eq!(ran.stdout, "acme-scrub\n");
    assert_eq!(tree(&place.path("acme-scrub")), tree(&place.path("rust")));
    place.run(&["plugin", "new", "acme-scrub"]).await.code(8);
    place.run(&["plugin", "new", "Acme Scrub"]).await.code(2);
    place
        .run(&["plugin", "new", "a", "--folder", "none/a"])
        .await
        .code(4);
}

/// Runs a program there, and fails with what it says.
fn built(program: &str, arguments: &[&str], folder: &Path) {
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(folder);
    let done = command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let told = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&told));
}

/// Two tests that compile large components at once would only compete, and have a minute or two.
static COMPILING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A new project in a language other than Rust, tested and built as its README says. What was built of the same files before is
/// taken again. Then it is described, and a transfer sends a text through it.
async fn a_new_project_is_built_and_run(
    language: &str,
    tests: (&str, &[&str]),
    build: (&str, &[&str]),
    tools: Option<PathBuf>,
) {
    let place = Place::new();
    let new = ["plugin", "new", "acme-words", "--lang", language];
    place.run(&new).await.ok();
    let project = place.path("acme-words");
    let sources: Vec<u8> = tree(&project).into_values().flatten().collect();
    let state = Digest::sha256(&sources).short().replace(':', "-");
    let kept =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("acme-words-{language}-{state}.wasm"));
    built(tests.0, tests.1, &project);
    if !kept.exists() {
        if let Some(modules) = tools {
            std::os::unix::fs::symlink(modules, project.join("node_modules")).unwrap();
        }
        built(build.0, build.1, &project);
        std::fs::copy(project.join("acme_words.wasm"), &kept).unwrap();
    }
    let component = kept.to_str().unwrap();
    let compiling = COMPILING.lock().await;
    let described = run(&place, &["plugin", "describe", component])
        .await
        .ok()
        .stdout;
    drop(compiling);
    for expected in [
        "acme-words 0.1.0\n",
        "asks for no rights",
        "AcmeWords/v1alpha1\n  Replaces a word by another.",
        "word*  string   The word that is replaced.",
    ] {
        assert!(described.contains(expected), "{expected}: {described}");
    }
    publish(&place, "./source", "Hello, old w\u{f6}rld\n".as_bytes()).await;
    let digest = Digest::sha256(&std::fs::read(component).unwrap());
    let step =
        |word: &str| format!("type: AcmeWords/v1alpha1\nspec: {{word: '{word}', by: new}}\n");
    place.put("words.yaml", step("old"));
    place.put("none.yaml", step(""));
    let plugin = format!("acme-words={component}@{digest}");
    let carry = [
        "transfer",
        "cv",
        "./source//acme.org/basics:0.1.0",
        "./copy",
        "--plugin",
        &plugin,
        "--transform",
    ];
    let ran = run(&place, &[&carry[..], &["none.yaml"]].concat()).await;
    let told = ran.code(3).stderr;
    assert!(told.contains("spec.word: this is no word"), "{told}");
    run(&place, &[&carry[..], &["words.yaml"]].concat())
        .await
        .ok();
    let read = [
        "download",
        "resource",
        "./copy//acme.org/basics:0.1.0",
        "plugin",
        "-O",
        "-",
    ];
    let text = run(&place, &read).await.ok().stdout;
    assert_eq!(text, "Hello, new w\u{f6}rld\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_project_in_python_is_tested_built_and_run() {
    let version = std::process::Command::new("componentize-py")
        .arg("--version")
        .output();
    if version.is_err() {
        ocm_testdata::peers::skip("componentize-py is not installed (pip install componentize-py)");
        return;
    }
    let (tests, build) = (
        ("python3", &["-m", "unittest"][..]),
        ("sh", &["build.sh"][..]),
    );
    a_new_project_is_built_and_run("python", tests, build, None).await;
}

/// `npm test` and `npm run build` are these two.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_project_in_javascript_is_tested_built_and_run() {
    let Some(modules) = ocm_testdata::peers::componentize_js() else {
        return;
    };
    let (tests, build) = (("node", &["--test"][..]), ("node", &["build.js"][..]));
    a_new_project_is_built_and_run("js", tests, build, Some(modules)).await;
}
