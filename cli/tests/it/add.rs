//! `ocm add cv`: the constructors of others and the command lines of both generations.

use std::path::Path;

use ocm_content::{Artifact, Blob, Stored, open_archive};
use ocm_specs::Digest;
use ocm_specs::media_type::OCTET_STREAM;
use ocm_specs::reference::OciReference;
use ocm_testdata::components::push;
use ocm_testdata::fixtures::{ArchiveForm, image_index};
use ocm_testdata::peers::vector;
use serde_json::{Value, json};

use crate::place::{Peer, Place, tree};

/// Writes a file and the folders above it.
pub(crate) fn put(place: &Place, path: &str, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(place.path(path).parent().unwrap()).unwrap();
    place.put(path, content);
}

/// Lays a folder of others out in the place of a test.
fn lay_out(place: &Place, from: &Path, to: &str) {
    for (name, bytes) in tree(from) {
        put(place, &format!("{to}/{}", name.display()), bytes);
    }
}

/// The descriptor of a component version, as it is stored.
pub(crate) async fn stored(place: &Place, reference: &str) -> Value {
    let ran = place
        .run(&["get", "cv", "-o", "json", reference])
        .await
        .ok();
    ran.json()[0]["component"].clone()
}

async fn digest(place: &Place, reference: &str) -> Value {
    let ran = place
        .run(&["hash", "cv", "-o", "json", reference])
        .await
        .ok();
    ran.json()["digest"].clone()
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    Digest::sha256(bytes.as_ref()).hex().to_owned()
}

/// The resource of that name.
pub(crate) fn resource<'v>(component: &'v Value, name: &str) -> &'v Value {
    let list = component["resources"].as_array().unwrap();
    list.iter().find(|it| it["name"] == name).unwrap()
}

/// The conformance scenario's components, in the words of v2: from a folder, with variables of the environment.
#[tokio::test(flavor = "multi_thread")]
async fn the_sovereign_components_by_v2() {
    let Some(components) = vector("scenario/components") else {
        return;
    };
    for registry in Peer::all().await {
        let place = Place::new()
            .alias("docker.io", &registry)
            .variable("VERSION", "1.0.0")
            .variable("POSTGRES_VERSION", "18")
            .variable("OCI_LAYOUT", "./image.tar.gz");
        lay_out(&place, &components, "components");
        let image = image_index();
        let layout = image
            .archive(ArchiveForm::Layout, "1.0.0")
            .await
            .read(1 << 30)
            .await
            .unwrap();
        place.put("components/notes/image.tar.gz", layout);
        push(&place.session(), "docker.io/library/postgres:18", &image)
            .await
            .unwrap();
        let add = async |name: &str, more: &[&str]| {
            let path = format!("components/{name}");
            let variable = format!("NAME=acme.org/sovereign/{name}");
            let line = ["add", "cv", "-r", "ctf", "-c", &path, &variable];
            place.run(&[&line[..], more].concat()).await
        };
        for name in ["notes", "postgres", "product"] {
            let ran = add(name, &[]).await.ok();
            assert!(
                ran.stdout.contains(&format!(
                    "acme.org/sovereign/{name}  1.0.0    ocm.software/sovereign  created"
                )),
                "{}",
                ran.stdout
            );
            assert_eq!(ran.stderr, "");
        }
        let notes = stored(&place, "./ctf//acme.org/sovereign/notes:1.0.0").await;
        let names: Vec<&str> = notes["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["image", "helm-chart", "openapi-spec", "ord-document"]
        );
        let root = image.root.digest.hex();
        let triple = |kind: &str, value: &str| json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": kind, "value": value});
        assert_eq!(
            resource(&notes, "image")["digest"],
            triple("ociArtifactDigest/v1", root)
        );
        assert_eq!(
            resource(&notes, "image")["access"]["mediaType"],
            "application/vnd.oci.image.index.v1+json"
        );
        assert_eq!(
            resource(&notes, "helm-chart")["access"]["mediaType"],
            "application/vnd.oci.image.manifest.v1+json"
        );
        assert_eq!(
            resource(&notes, "helm-chart")["digest"]["normalisationAlgorithm"],
            "ociArtifactDigest/v1"
        );
        let spec = std::fs::read(components.join("notes/deploy/openapi/spec.yaml")).unwrap();
        assert_eq!(
            resource(&notes, "openapi-spec")["digest"],
            triple("genericBlobDigest/v1", &hex(spec))
        );
        assert!(notes.get("creationTime").is_none());

        let postgres = stored(&place, "./ctf//acme.org/sovereign/postgres:1.0.0").await;
        let image_ = resource(&postgres, "image");
        assert_eq!(image_["relation"], "external");
        assert_eq!(image_["version"], "18");
        assert_eq!(image_["access"]["type"], "ociArtifact");
        let pinned = format!("docker.io/library/postgres:18@{}", image.root.digest);
        assert_eq!(image_["access"]["imageReference"], pinned);
        assert_eq!(image_["digest"], triple("ociArtifactDigest/v1", root));

        let product = stored(&place, "./ctf//acme.org/sovereign/product:1.0.0").await;
        for (at, name) in ["notes", "postgres"].into_iter().enumerate() {
            let expected = digest(&place, &format!("./ctf//acme.org/sovereign/{name}:1.0.0")).await;
            assert_eq!(
                product["componentReferences"][at]["digest"], expected,
                "{name}"
            );
        }
        // What stands in files is nobody's business, whatever it looks like.
        let rgd = std::fs::read(components.join("product/deploy/rgd.yaml")).unwrap();
        assert!(String::from_utf8_lossy(&rgd).contains("${schema.spec"));
        assert_eq!(
            resource(&product, "product-rgd")["digest"]["value"],
            hex(rgd)
        );
        place.run(&["verify", "cv", "--help"]).await.ok();

        let before = tree(&place.path("ctf"));
        let conflict = add("notes", &[]).await.code(8);
        assert!(
            conflict
                .stderr
                .contains("acme.org/sovereign/notes:1.0.0 is in ctf://"),
            "{}",
            conflict.stderr
        );
        for (policy, word) in [("skip", "kept"), ("replace", "present")] {
            let ran = add("notes", &["--component-version-conflict-policy", policy])
                .await
                .ok();
            assert!(ran.stdout.contains(word), "{}", ran.stdout);
            assert!(
                tree(&place.path("ctf")) == before,
                "{policy} changes the archive"
            );
        }
        let checked = place
            .run(&["check", "cv", "./ctf//acme.org/sovereign/product:1.0.0"])
            .await;
        assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    }
}

/// The design's own components, in its own words.
#[tokio::test(flavor = "multi_thread")]
async fn the_sovereign_components_by_the_design() {
    let registry = Peer::embedded().await;
    let place = Place::new()
        .alias("acme.org", &registry)
        .alias("docker.io", &registry);
    let image = image_index();
    for reference in [
        "acme.org/sovereign/notes:1.0.0",
        "docker.io/library/postgres:16-alpine",
    ] {
        push(&place.session(), reference, &image).await.unwrap();
    }
    let base = "stringData:\n  POSTGRES_PASSWORD: \"${DB_PASSWORD}\"\n  DATABASE_URL: \"postgres://notes:${DB_PASSWORD}@postgres\"\n";
    for (path, text) in [
        (
            "settings.yaml",
            "VERSION: 1.0.0\nPOSTGRES_VERSION: \"16-alpine\"\n",
        ),
        (
            "components/notes/component-constructor.yaml",
            "components:\n  - name: acme.org/sovereign/notes\n    version: \"${VERSION}\"\n    provider: {name: acme.org}\n    resources:\n      - name: image\n        type: ociImage\n        relation: local\n        version: \"${VERSION}\"\n        access: {type: ociArtifact, imageReference: \"acme.org/sovereign/notes:${VERSION}\"}\n      - {name: helm-chart, type: helmChart, relation: local, input: {type: helm, path: ./deploy/chart}}\n",
        ),
        (
            "components/notes/deploy/chart/Chart.yaml",
            "apiVersion: v2\nname: notes\nversion: 1.0.0\n",
        ),
        (
            "components/postgres/component-constructor.yaml",
            "components:\n  - name: acme.org/sovereign/postgres\n    version: \"${VERSION}\"\n    provider: {name: acme.org}\n    resources:\n      - name: image\n        type: ociImage\n        version: \"${POSTGRES_VERSION}\"\n        access: {type: ociArtifact, imageReference: \"docker.io/library/postgres:${POSTGRES_VERSION}\"}\n",
        ),
        (
            "components/product/component-constructor.yaml",
            "components:\n  - name: acme.org/sovereign/product\n    version: \"${VERSION}\"\n    provider: {name: acme.org}\n    componentReferences:\n      - {name: notes, componentName: acme.org/sovereign/notes, version: \"${VERSION}\"}\n      - {name: postgres, componentName: acme.org/sovereign/postgres, version: \"${VERSION}\"}\n    resources:\n      - {name: base-manifests, type: blob, relation: local, input: {type: file, path: ./deploy/base.yaml}}\n    signatures: ...\n",
        ),
        ("components/product/deploy/base.yaml", base),
    ] {
        put(&place, path, text);
    }
    let add = async |first: &[&str], name: &str| {
        let file = format!("components/{name}/component-constructor.yaml");
        let line = [
            "--file",
            "transport-archive",
            "--settings",
            "settings.yaml",
            &file,
        ];
        place.run(&[&["add", "cv"], first, &line].concat()).await
    };
    for _ in 0..2 {
        // `rm -rf` and `--create`, as the design's task does it.
        let _ = std::fs::remove_dir_all(place.path("transport-archive"));
        add(&["--create"], "notes").await.ok();
        add(&[], "postgres").await.ok();
        let ran = add(&[], "product").await.ok();
        assert!(ran.stderr.contains("warning W202"), "{}", ran.stderr);
    }
    let product = stored(
        &place,
        "transport-archive//acme.org/sovereign/product:1.0.0",
    )
    .await;
    assert_eq!(
        resource(&product, "base-manifests")["digest"]["value"],
        hex(base)
    );
    let ran = add(&["--create"], "notes").await.code(8);
    assert!(
        ran.stderr
            .contains("transport-archive is there already\n  hint: leave --create out"),
        "{}",
        ran.stderr
    );
    add(&["--create", "--force"], "notes").await.ok();
    let left = place
        .run(&["get", "cv", "./transport-archive", "-o", "ndjson"])
        .await
        .ok();
    assert_eq!(left.stdout.lines().count(), 1, "{}", left.stdout);
    assert!(
        std::fs::read_dir(place.path("")).unwrap().all(|it| !it
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.'))
    );
}

/// Constructors of v1, with what only v1 allows.
#[tokio::test(flavor = "multi_thread")]
async fn constructors_of_v1() {
    let (Some(single), Some(list)) = (
        vector("constructor/v1-single-component.yaml"),
        vector("constructor/v1-components.yaml"),
    ) else {
        return;
    };
    let place = Place::new();
    place.put("single.yaml", std::fs::read(single).unwrap());
    place.put("list.yaml", std::fs::read(list).unwrap());
    place.put("testdata", "this is a test\n");
    // v1 does not look whether a referenced version is there.
    let missing = place
        .run(&[
            "add",
            "componentversions",
            "--create",
            "--file",
            "ca",
            "single.yaml",
        ])
        .await
        .code(4);
    assert!(
        missing
            .stderr
            .contains("references[0]: component version github.com/mandelsoft/test2:v1 is not in"),
        "{}",
        missing.stderr
    );
    assert!(
        !place.path("ca/artifact-index.json").exists(),
        "nothing is there under a name"
    );
    place
        .run(&[
            "add",
            "cv",
            "--file",
            "ca",
            "--skip-reference-digest-processing",
            "single.yaml",
        ])
        .await
        .ok();
    let component = stored(&place, "./ca//ocm.software/demo/test:1.0.0").await;
    assert_eq!(
        component["provider"],
        r#"{"name":"ocm.software","labels":[{"name":"city","value":"Karlsruhe"}]}"#
    );
    assert_eq!(
        component["labels"],
        json!([{"name": "purpose", "value": "test"}])
    );
    let text = resource(&component, "text");
    assert_eq!(
        text["labels"][0]["merge"],
        json!({"algorithm": "default", "config": {"overwrite": "inbound"}})
    );
    assert_eq!(text["access"]["mediaType"], "text/plain; charset=utf-8");
    assert_eq!(
        resource(&component, "data")["digest"]["value"],
        hex("!stringdata")
    );
    assert_eq!(
        component["componentReferences"],
        json!([{"componentName": "github.com/mandelsoft/test2", "name": "ref", "version": "v1"}])
    );

    let unversioned = place
        .run(&["add", "cv", "--file", "ca", "list.yaml"])
        .await
        .code(3);
    assert!(
        unversioned
            .stderr
            .contains("list.yaml:2:3: components[0]: the component has no `version`"),
        "{}",
        unversioned.stderr
    );
    place.put(
        "test2.yaml",
        "name: github.com/mandelsoft/test2\nversion: v1\nprovider: {name: mandelsoft}\n",
    );
    place
        .run(&["add", "cv", "--file", "other", "test2.yaml"])
        .await
        .ok();
    let lookup = [
        "add",
        "cv",
        "--file",
        "ca",
        "--version",
        "2.0.0",
        "--lookup",
        "./other",
        "list.yaml",
    ];
    place.run(&lookup).await.ok();
    let component = stored(&place, "./ca//ocm.software/demo/test:2.0.0").await;
    let expected = digest(&place, "./other//github.com/mandelsoft/test2:v1").await;
    assert_eq!(component["componentReferences"][0]["digest"], expected);
    // Replaced as v1 spells it, and completed with what is referenced.
    place
        .run(&[&lookup[..], &["--replace", "--complete"]].concat())
        .await
        .ok();
    stored(&place, "./ca//github.com/mandelsoft/test2:v1").await;
}

/// What the Go CLI v1 made of its constructors has the digest of what is made of them here.
#[tokio::test(flavor = "multi_thread")]
async fn digests_of_what_v1_made() {
    let (Some(text), Some(chart)) = (
        vector("ctf/v1-utf8-resource/component-constructor.yaml"),
        vector("ctf/v1-helm-chart"),
    ) else {
        return;
    };
    let registry = Peer::embedded().await;
    let place = Place::new()
        .alias("ghcr.io", &registry)
        .variable("SOURCE_DATE_EPOCH", "1742291082");
    let hash = async |place: &Place, archive: &str| {
        let reference = format!("./{archive}//github.com/acme.org/helloworld:1.0.0");
        let ran = place
            .run(&[
                "hash",
                "cv",
                "-N",
                "jsonNormalisation/v3",
                "-o",
                "json",
                &reference,
            ])
            .await
            .ok();
        ran.json()["digest"]["value"].clone()
    };
    place.put("c.yaml", std::fs::read(text).unwrap());
    place
        .run(&["add", "cv", "-r", "./text", "-c", "c.yaml"])
        .await
        .ok();
    assert_eq!(
        hash(&place, "text").await,
        "928f77abdbcd5998440eea39b1ff1f23a27f7f0b29fbfcb2d239d0b6480f8c79"
    );

    let archive = "with-resource/blobs/sha256.e40e3a2f1ab1a98328dfd14539a79d27aff5c4d5c34cd16a85f0288bfa76490b";
    let bytes = std::fs::read(chart.join(archive)).unwrap();
    let session = place.session();
    let blob = Blob::from_bytes(OCTET_STREAM, bytes);
    let Artifact::Stored(Stored { root, store, .. }) =
        open_archive(&blob, session.limits()).await.unwrap()
    else {
        panic!("it is stored")
    };
    let reference: OciReference = "ghcr.io/jakobmoellerdev/podinfo/podinfo:6.7.1"
        .parse()
        .unwrap();
    let artifact = Artifact::Stored(Stored {
        root,
        store,
        tag: None,
    });
    session
        .copier()
        .copy(
            &artifact,
            &session.oci_store(&reference).unwrap(),
            Some("6.7.1"),
        )
        .await
        .unwrap();
    // The time is in what is hashed, and that component was made at another one.
    let index =
        std::fs::read_to_string(chart.join("without-resource/artifact-index.json")).unwrap();
    place.put("index.json", &index);
    let created = {
        let version = place
            .component(
                &chart.join("without-resource").display().to_string(),
                "github.com/acme.org/helloworld",
            )
            .await;
        version.descriptor.creation_time().unwrap().to_owned()
    };
    let constructor = std::fs::read_to_string(chart.join("component-constructor.yaml")).unwrap();
    place.put(
        "c.yaml",
        constructor.replace(
            "  version: 1.0.0\n",
            &format!("  version: 1.0.0\n  creationTime: \"{created}\"\n"),
        ),
    );
    place
        .run(&["add", "cv", "-r", "./chart", "-c", "c.yaml"])
        .await
        .ok();
    assert_eq!(
        hash(&place, "chart").await,
        "4a4bb5c0bd51b467cf1e177e559a509a9c08a1b5b17aa72df39ab5326123f194"
    );
}

/// Component versions of one file reference each other, in any order.
#[tokio::test(flavor = "multi_thread")]
async fn versions_of_one_file_reference_each_other() {
    let Some(nested) = vector("constructor/helm-nested.yaml") else {
        return;
    };
    let registry = Peer::embedded().await;
    let place = Place::new().alias("ghcr.io", &registry);
    place.put("component-constructor.yaml", std::fs::read(nested).unwrap());
    place.put("rgd.yaml", "kind: ResourceGraphDefinition\n");
    // The chart is by digest, and nobody has it.
    let missing = place.run(&["add", "cv"]).await.code(4);
    assert!(missing.stderr.contains("component-constructor.yaml:29:9: components[2].resources[0]: image ghcr.io/stefanprodan/charts/podinfo:6.9.1@"), "{}", missing.stderr);
    let ran = place
        .run(&[
            "add",
            "cv",
            "--skip-reference-digest-processing",
            "-o",
            "tree",
        ])
        .await
        .ok();
    let tree = "\
ocm.software/ocm-k8s-toolkit/examples/helm-nested:1.0.0  (ocm.software)
├─ nested-rgd: ocm.software/ocm-k8s-toolkit/examples/helm-nested/rgd:1.0.0  (ocm.software)
│  └─ blob kro-rgd 1.0.0
└─ nested-chart: ocm.software/ocm-k8s-toolkit/examples/helm-nested/chart:1.0.0  (ocm.software)
   └─ helmChart helm-resource 1.0.0
";
    assert_eq!(ran.stdout, tree);
    let top = stored(
        &place,
        "transport-archive//ocm.software/ocm-k8s-toolkit/examples/helm-nested:1.0.0",
    )
    .await;
    let rgd = digest(
        &place,
        "transport-archive//ocm.software/ocm-k8s-toolkit/examples/helm-nested/rgd:1.0.0",
    )
    .await;
    assert_eq!(top["componentReferences"][0]["digest"], rgd);
    // A digest that is stated is compared.
    let one = |digest: &str| {
        format!(
            "components:\n- name: a.io/top\n  version: 1.0.0\n  provider: p\n  componentReferences:\n  - name: low\n    componentName: a.io/low\n    version: 1.0.0\n    digest: {{hashAlgorithm: SHA-256, normalisationAlgorithm: jsonNormalisation/v3, value: {digest}}}\n- {{name: a.io/low, version: 1.0.0, provider: p}}\n"
        )
    };
    place.put(
        "low.yaml",
        "{name: a.io/low, version: 1.0.0, provider: p}\n",
    );
    place
        .run(&["add", "cv", "-r", "low", "-c", "low.yaml"])
        .await
        .ok();
    let low = place
        .run(&[
            "hash",
            "cv",
            "-N",
            "jsonNormalisation/v3",
            "-o",
            "json",
            "./low//a.io/low:1.0.0",
        ])
        .await
        .ok()
        .json();
    place.put("good.yaml", one(low["digest"]["value"].as_str().unwrap()));
    place.put("bad.yaml", one(&"a".repeat(64)));
    place
        .run(&["add", "cv", "-r", "good", "-c", "good.yaml"])
        .await
        .ok();
    let kept = stored(&place, "./good//a.io/top:1.0.0").await;
    assert_eq!(
        kept["componentReferences"][0]["digest"]["normalisationAlgorithm"],
        "jsonNormalisation/v3"
    );
    let bad = place
        .run(&["add", "cv", "-r", "bad", "-c", "bad.yaml"])
        .await
        .code(5);
    assert!(
        bad.stderr.contains(
            "bad.yaml:6:5: components[0].componentReferences[0]: a.io/low:1.0.0 has digest"
        ),
        "{}",
        bad.stderr
    );
}

/// Into registries, too; what is there is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn registries_are_targets() {
    for registry in Peer::all().await {
        let place = Place::new();
        place.put("c.yaml", "components:\n- name: a.io/app\n  version: 1.0.0+x\n  provider: p\n  resources:\n  - {name: text, type: blob, input: {type: utf8, text: hello}}\n  - {name: image, type: ociImage, options: {ownershipPolicy: Always}, input: {type: file, path: image.tgz, mediaType: application/vnd.ocm.software.oci.layout.v1+tar+gzip}}\n");
        let image = image_index();
        place.put(
            "image.tgz",
            image
                .archive(ArchiveForm::Layout, "1")
                .await
                .read(1 << 30)
                .await
                .unwrap(),
        );
        let target = format!("{}/sub", registry.url());
        let line = ["add", "cv", "-r", &target, "-c", "c.yaml", "-o", "ndjson"];
        let made = place.run(&line).await.ok();
        let reference = format!("{target}//a.io/app:1.0.0+x");
        let component = stored(&place, &reference).await;
        assert_eq!(made.json()["component"], component);
        // The artifact says whom it belongs to.
        let host = registry.url().trim_start_matches("http://").to_owned();
        let store = place.store(&format!("http://{host}/sub/component-descriptors/a.io/app"));
        let referrers = store.referrers(&image.root.digest).await.unwrap();
        let owner = referrers.iter().find(|it| {
            it.artifact_type.as_deref() == Some("application/vnd.ocm.software.ownership.v1+json")
        });
        let manifest = store
            .manifest(&owner.unwrap().digest.to_string())
            .await
            .unwrap()
            .parse()
            .unwrap();
        let annotations = manifest.annotations.unwrap();
        assert_eq!(annotations["software.ocm.component.name"], "a.io/app");
        assert_eq!(annotations["software.ocm.component.version"], "1.0.0+x");
        assert_eq!(
            annotations["software.ocm.artifact"],
            r#"{"identity":{"name":"image","version":"1.0.0+x"},"kind":"resource"}"#
        );
        assert_eq!(manifest.layers.unwrap()[0].data.as_deref(), Some("e30="));
        let before = registry.requests();
        place.run(&line).await.code(8);
        place
            .run(&[&line[..], &["--component-version-conflict-policy", "skip"]].concat())
            .await
            .ok();
        if let (Some(before), Some(after)) = (before, registry.requests()) {
            for method in ["PUT", "POST", "PATCH"] {
                assert_eq!(
                    before.count(method, |_| true),
                    after.count(method, |_| true),
                    "nothing is written again"
                );
            }
        }
    }
}
