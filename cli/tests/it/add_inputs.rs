//! `ocm add cv`: what inputs become, what is wrong with them, and that nothing is half made.

use std::path::Path;
use std::sync::Arc;

use ocm_content::RawManifest;
use ocm_specs::constructor::{Constructor, Variables};
use ocm_specs::oci::Manifest;
use ocm_specs::yaml::{LoadOptions, Source, load};
use ocm_testdata::components::push;
use ocm_testdata::fixtures::{ArchiveForm, chart, image_index};
use ocm_testdata::git::GitRepository;
use ocm_testdata::peers::{installed, vector};
use ocm_testdata::web::{WebServer, helm_repository};
use serde_json::json;

use crate::add::{hex, put, resource, stored};
use crate::place::{Peer, Place, Ran, tree};

const CONSTRUCTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/constructors");

/// A constructor of one component with these lines in it.
fn component(lines: &str) -> String {
    format!("components:\n- name: a.io/app\n  version: 1.0.0\n  provider: p\n{lines}")
}

fn one(name: &str, input: &str) -> String {
    component(&format!(
        "  resources:\n  - {{name: {name}, type: blob, input: {input}}}\n"
    ))
}

async fn add(place: &Place, more: &[&str]) -> Ran {
    let line = ["add", "cv", "-c", "c.yaml", "-r", "./ctf"];
    place.run(&[&line[..], more].concat()).await
}

fn inputs(place: &Place) {
    for (name, bytes) in tree(&Path::new(CONSTRUCTORS).join("inputs")) {
        put(place, &format!("in/{}", name.display()), bytes);
    }
}

/// The stored descriptor is, byte for byte, the one in the checkout. With `OCM_WRITE_GOLDEN=1` that one is written.
#[tokio::test(flavor = "multi_thread")]
async fn every_input_gives_the_same_bytes_everywhere() {
    let golden = Path::new(CONSTRUCTORS).join("inputs.descriptor.json");
    let mut archives = Vec::new();
    for target in ["./one", "./two", "./one.tgz"] {
        let place = Place::new();
        inputs(&place);
        // Times and permissions of files are not what is packed.
        let old = std::time::SystemTime::UNIX_EPOCH;
        let note = std::fs::File::open(place.path("in/config/a.yaml")).unwrap();
        if target != "./one" {
            note.set_modified(old).unwrap();
        }
        let ran = place
            .run(&[
                "add",
                "cv",
                "-c",
                "in",
                "-r",
                target,
                "VERSION=1.2.3",
                "--no-env",
            ])
            .await
            .ok();
        let warning = "warning W203: components[0].resources[11]: content with access type `acme.example/v1` is not read here";
        assert!(
            ran.stderr.contains(warning) && ran.stderr.lines().count() == 1,
            "{}",
            ran.stderr
        );
        let version = place.component(target, "acme.example/inputs").await;
        let bytes = version.descriptor.original().unwrap().bytes.clone();
        if std::env::var("OCM_WRITE_GOLDEN").is_ok_and(|value| value == "1") {
            std::fs::write(&golden, &*bytes).unwrap();
        }
        let expected = std::fs::read(&golden).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&expected)
        );
        if place.path(target).is_dir() {
            archives.push(tree(&place.path(target)));
        }
        let reference = format!("{target}//acme.example/inputs:1.2.3");
        for (name, content) in [
            ("text", "costs 5$ in the shop, not ${schema.spec.name}\n"),
            ("json", r#"{"a":[1,1.5,null],"b":"\u003c\u0026\u003e"}"#),
            (
                "json-formatted",
                "{\n  \"a\": [],\n  \"b\": \"\\u003c\\u0026\\u003e\"\n}",
            ),
            ("yaml", "a:\n  c: 1\nb: \"on\"\n"),
            ("note", "a note\n"),
        ] {
            let line = [
                "download",
                "resource",
                &reference,
                name,
                "--extraction-policy",
                "disable",
                "-O",
                "-",
            ];
            let ran = place.run(&line).await.ok();
            assert_eq!(ran.stdout, content, "{name}");
        }
        let checked = place.run(&["check", "cv", &reference]).await;
        assert!(!checked.stdout.contains("mismatch"), "{}", checked.stdout);
    }
    assert!(
        archives[0] == archives[1],
        "two archives of the same differ"
    );
}

/// A dry run computes what a run makes, and writes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_writes_nothing() {
    let registry = Peer::embedded().await;
    let place = Place::new()
        .alias("r.io", &registry)
        .variable("VERSION", "1.2.3");
    inputs(&place);
    let image = image_index();
    push(&place.session(), "r.io/image:1", &image)
        .await
        .unwrap();
    for (form, file) in [
        (ArchiveForm::Layout, "layout.tgz"),
        (ArchiveForm::Set, "set.tgz"),
    ] {
        let archive = image.archive(form, "1").await;
        put(
            &place,
            &format!("in/{file}"),
            archive.read(1 << 30).await.unwrap(),
        );
    }
    let children: Vec<_> = image.root.parse().unwrap().children().cloned().collect();
    let platform = children[0].platform.clone().unwrap();
    let part = |name: &str| platform[name].as_str().unwrap().to_owned();
    put(
        &place,
        "in/more.yaml",
        component(&format!(
            "  resources:\n\
             \x20 - {{name: layout, type: ociImage, input: {{type: file, path: layout.tgz, mediaType: application/vnd.ocm.software.oci.layout.v1+tar+gzip}}}}\n\
             \x20 - {{name: set, type: ociImage, input: {{type: file, path: set.tgz, mediaType: application/vnd.oci.image.index.v1+tar+gzip}}}}\n\
             \x20 - {{name: taken, type: ociImage, input: {{type: ociArtifact, path: 'r.io/image:1', repository: my/image}}}}\n\
             \x20 - {{name: some, type: ociImage, input: {{type: ociArtifact, path: 'r.io/image:1', platforms: ['{}/{}']}}}}\n\
             \x20 - {{name: left, type: ociImage, access: {{type: ociArtifact, imageReference: 'r.io/image:1'}}}}\n\
             \x20 - {{name: sha512, type: blob, input: {{type: utf8, text: test}}, digest: {{hashAlgorithm: SHA-512, normalisationAlgorithm: genericBlobDigest/v1, value: {}}}}}\n",
            part("os"),
            part("architecture"),
            ocm_specs::Digest::of(ocm_specs::Algorithm::Sha512, b"test").hex()
        )),
    );
    let line = [
        "add",
        "cv",
        "-c",
        "in",
        "-c",
        "in/more.yaml",
        "-r",
        "./ctf",
        "-o",
        "json",
    ];
    let before = place.files();
    let dry = place.run(&[&line[..], &["--dry-run"]].concat()).await.ok();
    assert!(place.files() == before);
    let made = place.run(&line).await.ok();
    assert_eq!(dry.json(), made.json());
    let component = stored(&place, "./ctf//a.io/app:1.0.0").await;
    for (name, media_type) in [
        ("layout", "application/vnd.oci.image.index.v1+json"),
        ("set", "application/vnd.oci.image.index.v1+tar+gzip"),
        ("taken", "application/vnd.oci.image.index.v1+json"),
    ] {
        let resource = resource(&component, name);
        assert_eq!(resource["access"]["mediaType"], media_type, "{name}");
        assert_eq!(
            resource["digest"]["value"],
            image.root.digest.hex(),
            "{name}"
        );
        assert_eq!(
            resource["digest"]["normalisationAlgorithm"], "ociArtifactDigest/v1",
            "{name}"
        );
    }
    let some = Manifest {
        manifests: Some(children[..1].to_vec()),
        ..image.root.parse().unwrap()
    };
    assert_eq!(
        resource(&component, "some")["digest"]["value"],
        RawManifest::write(&some).digest.hex()
    );
    assert_eq!(
        resource(&component, "taken")["access"]["referenceName"],
        "my/image"
    );
    assert_eq!(
        resource(&component, "sha512")["digest"]["hashAlgorithm"],
        "SHA-512"
    );
    place
        .run(&[&line[..], &["--dry-run"]].concat())
        .await
        .code(8);
    let verified = place.run(&["check", "cv", "./ctf//a.io/app:1.0.0"]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}

/// A packed chart stays as it is, with its provenance beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_packed_chart_keeps_its_bytes() {
    let place = Place::new();
    let packed = chart().blobs[1].read(1 << 30).await.unwrap();
    place.put("chart.tgz", &packed);
    place.put("chart.tgz.prov", "signed");
    place.put("c.yaml", one("chart", "{type: helm, path: chart.tgz}"));
    add(&place, &[]).await.ok();
    let reference = "./ctf//a.io/app:1.0.0";
    let line = [
        "download",
        "resource",
        reference,
        "chart",
        "--extraction-policy",
        "disable",
        "-O",
        "chart.out",
    ];
    place.run(&line).await;
    let component = stored(&place, reference).await;
    let blobs = tree(&place.path("ctf/blobs"));
    let has = |digest: String| blobs.contains_key(Path::new(&format!("sha256.{digest}")));
    assert!(has(hex(&packed)) && has(hex("signed")));
    assert!(has(resource(&component, "chart")["digest"]["value"]
        .as_str()
        .unwrap()
        .to_owned()));
}

/// What is wrong, row by row: the exit code and what the message says.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_with_their_place() {
    let digest = |value: &str| {
        format!(
            "{{hashAlgorithm: SHA-256, normalisationAlgorithm: genericBlobDigest/v1, value: {value}}}"
        )
    };
    let stated = |input: &str, value: &str| {
        component(&format!(
            "  resources:\n  - name: it\n    type: blob\n    input: {input}\n    digest: {}\n",
            digest(value)
        ))
    };
    let rows: Vec<(i32, &str, String, &[&str])> = vec![
        (
            3,
            "c.yaml:3:12: the variable `VERSION` is not set\n  hint: ",
            component("").replace("1.0.0", "${VERSION}"),
            &[],
        ),
        (3, "c.yaml:1:1: a constructor is a map", "- x\n".into(), &[]),
        (3, "c.yaml:2:1", "a: [\n".into(), &[]),
        (
            3,
            "c.yaml:6:42: components[0].resources[0].input.type: ",
            one("it", "{type: spiff}"),
            &[],
        ),
        (
            3,
            "components[0].resources[0].input.platforms: `amd64` is no platform\n  hint: write os/architecture",
            one(
                "it",
                "{type: ociArtifact, path: 'r.io/image:1', platforms: [amd64]}",
            ),
            &[],
        ),
        (
            4,
            "c.yaml:6:5: components[0].resources[0]: read ",
            one("it", "{type: file, path: nothing}"),
            &[],
        ),
        (
            4,
            "hint: paths of inputs start at ",
            one("it", "{type: helm, path: nothing}"),
            &[],
        ),
        (
            3,
            "`../secret` is outside of ",
            one("it", "{type: file, path: ../secret}"),
            &[],
        ),
        (
            3,
            "where inputs have to be",
            one("it", "{type: dir, path: /etc}"),
            &[],
        ),
        (
            3,
            "`link` leads to ",
            one("it", "{type: file, path: link}"),
            &[],
        ),
        (
            3,
            "`folder` is a folder\n  hint: use `type: dir`",
            one("it", "{type: file, path: folder}"),
            &[],
        ),
        (
            3,
            "`file` is no folder\n  hint: use `type: file`",
            one("it", "{type: dir, path: file}"),
            &[],
        ),
        (
            3,
            "`[` is no pattern",
            one("it", "{type: dir, path: folder, includeFiles: ['[']}"),
            &[],
        ),
        (
            3,
            "`(` is no regular expression",
            one("it", "{type: dir, path: folder, excludeFiles: ['(']}"),
            &[],
        ),
        (
            3,
            "has no Chart.yaml",
            one("it", "{type: helm, path: folder}"),
            &[],
        ),
        (
            3,
            "read the packed chart: gzip data is damaged",
            one("it", "{type: helm, path: file}"),
            &[],
        ),
        (
            3,
            "it is announced as application/vnd.ocm.software.oci.layout.v1+tar: ",
            one(
                "it",
                "{type: file, path: file, mediaType: application/vnd.ocm.software.oci.layout.v1+tar}",
            ),
            &[],
        ),
        (
            3,
            "announced as application/vnd.oci.image.manifest.v1+json",
            one(
                "it",
                "{type: file, path: file, mediaType: application/vnd.oci.image.manifest.v1+json}",
            ),
            &[],
        ),
        (
            5,
            "its content has digest sha256:",
            stated("{type: file, path: file}", &"a".repeat(64)),
            &[],
        ),
        (
            5,
            "correct the `digest`",
            stated("{type: utf8, text: x}", &"a".repeat(64)),
            &["--dry-run"],
        ),
        (
            3,
            "c.yaml:6:10: a.io/app:1.0.0 is there twice, the first time at c.yaml:2:3",
            component("# x\n- {name: a.io/app, version: 1.0.0, provider: p}\n"),
            &[],
        ),
        (
            3,
            "references lead in a circle: a.io/app:1.0.0 -> a.io/app:1.0.0",
            component(
                "  componentReferences: [{name: me, componentName: a.io/app, version: 1.0.0}]\n",
            ),
            &[],
        ),
        (
            4,
            "a.io/none:1.0.0 is not in ctf://",
            component(
                "  componentReferences: [{name: it, componentName: a.io/none, version: 1.0.0}]\n",
            ),
            &[],
        ),
        (
            4,
            "nowhere",
            component(
                "  componentReferences: [{name: it, componentName: a.io/none, version: 1.0.0}]\n",
            ),
            &["--lookup", "./nowhere"],
        ),
        (
            3,
            "local reference `x` is not a digest",
            component(
                "  resources: [{name: it, type: blob, access: {type: localBlob, localReference: x, mediaType: a/b}}]\n",
            ),
            &[],
        ),
        (
            4,
            "its local content sha256:",
            component(&format!(
                "  resources: [{{name: it, type: blob, access: {{type: localBlob, localReference: 'sha256:{}', mediaType: a/b}}}}]\n",
                "a".repeat(64)
            )),
            &[],
        ),
        (4, "name the constructor", "".into(), &["other.yaml"]),
        (
            4,
            "folder has no component-constructor.yaml",
            "".into(),
            &["folder"],
        ),
        (
            4,
            "name the settings file",
            one("it", "{type: utf8, text: x}"),
            &["--settings", "none.yaml"],
        ),
        (
            3,
            "list.yaml:1:1: settings are a map",
            one("it", "{type: utf8, text: x}"),
            &["--settings", "list.yaml"],
        ),
        (
            2,
            "write ${NAME} instead of {{ .NAME }}",
            "".into(),
            &["--templater", "go"],
        ),
        (
            2,
            "write ${NAME} instead of (( values.NAME ))",
            "".into(),
            &["--templater", "spiff"],
        ),
        (2, "cannot be used with", "".into(), &["--file", "x"]),
        (2, "--create", "".into(), &["--force"]),
        (
            2,
            "possible values: abort-and-fail, replace, skip",
            "".into(),
            &["--component-version-conflict-policy", "maybe"],
        ),
    ];
    let mut wrong = Vec::new();
    for (code, says, text, more) in rows {
        let place = Place::new();
        std::fs::create_dir_all(place.path("sub/folder")).unwrap();
        for (path, content) in [
            ("secret", "x"),
            ("sub/file", "file\n"),
            ("sub/list.yaml", "- a\n"),
            ("sub/c.yaml", text.as_str()),
        ] {
            place.put(path, content);
        }
        std::os::unix::fs::symlink("../secret", place.path("sub/link")).unwrap();
        let before = place.files();
        let line = [&["add", "cv", "-c", "c.yaml", "-r", "./ctf"][..], more].concat();
        let ran = place.run_in(&place.path("sub"), &line).await;
        if ran.code != code || !ran.stderr.contains(says) {
            wrong.push(format!(
                "{text}{}: {}
expected {code}: {says}",
                ran.code, ran.stderr
            ));
        }
        assert_eq!(ran.stdout, "");
        let mut after = place.files();
        // Content that nobody refers to may be left in an archive that was begun.
        after.retain(|path, _| !path.starts_with("sub/ctf/blobs"));
        assert!(after == before, "{text}: {:?}", after.keys());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// All mistakes of all files are told in one run, and nothing is made of the good ones.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_before_everything_is_right() {
    let place = Place::new();
    place.put("good.yaml", "{name: a.io/good, version: 1.0.0, provider: p, resources: [{name: it, type: blob, input: {type: utf8, text: x}}]}\n");
    place.put("bad.yaml", "{name: a.io/bad, version: 1.0.0, provider: p, resources: [{name: it, type: blob, input: {type: file, path: none}}, {name: other, type: blob, input: {type: file, path: none2}}]}\n");
    let ran = place
        .run(&["add", "cv", "-r", "./ctf", "good.yaml", "bad.yaml"])
        .await
        .code(4);
    assert!(
        ran.stderr.contains("bad.yaml:1:59: resources[0]: ")
            && ran.stderr.contains("bad.yaml:1:116: resources[1]: "),
        "{}",
        ran.stderr
    );
    assert!(!place.path("ctf").exists());
    // What is found wrong late, when content was stored already, leaves nothing under a name either.
    place.put(
        "late.yaml",
        component(&format!("  resources:\n  - name: it\n    type: blob\n    input: {{type: utf8, text: z}}\n    digest: {{hashAlgorithm: SHA-256, normalisationAlgorithm: genericBlobDigest/v1, value: {}}}\n", "a".repeat(64))),
    );
    place
        .run(&["add", "cv", "-r", "./ctf", "good.yaml", "late.yaml"])
        .await
        .code(5);
    assert!(!place.path("ctf/artifact-index.json").exists());
    place
        .run(&["add", "cv", "-r", "./ctf.tgz", "good.yaml", "late.yaml"])
        .await
        .code(5);
    assert!(!place.path("ctf.tgz").exists());
    // A conflict is found before anything is read.
    place
        .run(&["add", "cv", "-r", "./ctf", "good.yaml"])
        .await
        .ok();
    place.put("late.yaml", "{name: a.io/late, version: 1.0.0, provider: p, resources: [{name: it, type: blob, input: {type: utf8, text: z}}]}\n");
    let before = place.files();
    place
        .run(&["add", "cv", "-r", "./ctf", "late.yaml", "good.yaml"])
        .await
        .code(8);
    assert!(place.files() == before);
}

/// Variables: arguments win over settings, and these over the environment.
#[tokio::test(flavor = "multi_thread")]
async fn variables_have_an_order() {
    let place = Place::new()
        .variable("A", "environment")
        .variable("B", "environment")
        .variable("C", "environment");
    place.put("settings.yaml", "A: settings\nB: settings\nD: 1.10\n");
    place.put(
        "c.yaml",
        one(
            "it",
            "{type: utf8, text: '$A ${B} ${C} ${D} ${E:-default} $$A'}",
        ),
    );
    let text = async |more: &[&str]| {
        add(
            &place,
            &[
                &[
                    "--settings",
                    "settings.yaml",
                    "A=argument",
                    "--component-version-conflict-policy",
                    "replace",
                ],
                more,
            ]
            .concat(),
        )
        .await
        .ok();
        let line = [
            "download",
            "resource",
            "./ctf//a.io/app:1.0.0",
            "it",
            "-O",
            "-",
        ];
        place.run(&line).await.ok().stdout
    };
    assert_eq!(
        text(&[]).await,
        "argument settings environment 1.10 default $A"
    );
    assert_eq!(
        text(&["--addenv"]).await,
        "argument settings environment 1.10 default $A"
    );
    assert_eq!(
        text(&["--no-env", "--allow-unset"]).await,
        "argument settings  1.10 default $A"
    );
    assert_eq!(
        text(&["--templater", "none"]).await,
        "$A ${B} ${C} ${D} ${E:-default} $$A"
    );
    let unset = add(
        &place,
        &["--no-env", "--component-version-conflict-policy", "replace"],
    )
    .await
    .code(3);
    assert_eq!(
        unset.stderr.matches("is not set").count(),
        4,
        "{}",
        unset.stderr
    );
}

/// What is for archives only is refused for registries.
#[tokio::test(flavor = "multi_thread")]
async fn registries_are_not_made() {
    let place = Place::new();
    place.put("c.yaml", component(""));
    for more in [&["--create"][..], &["--type", "tar"]] {
        let line = [
            &["add", "cv", "-r", "http://127.0.0.1:1", "-c", "c.yaml"][..],
            more,
        ]
        .concat();
        let ran = place.run(&line).await.code(2);
        assert!(
            ran.stderr
                .contains("is for archives, and this is a registry"),
            "{}",
            ran.stderr
        );
    }
}

/// Files, tars and standard input, as v1 and v2 name them.
#[tokio::test(flavor = "multi_thread")]
async fn archives_of_every_form_and_place() {
    let place = Place::new();
    put(
        &place,
        "sub/component-constructor.yaml",
        one("it", "{type: file, path: file}"),
    );
    put(&place, "sub/file", "content\n");
    for (line, archive) in [
        (&["add", "cv", "sub"][..], "./transport-archive"),
        (&["add", "cv", "-F", "a.tgz", "sub"], "./a.tgz"),
        (
            &["add", "cv", "--type", "tar", "-F", "packed", "sub"],
            "./packed",
        ),
        (
            &[
                "add",
                "components",
                "new-archive",
                "sub/component-constructor.yaml",
            ],
            "./new-archive",
        ),
        (
            &[
                "add",
                "c",
                "-r",
                "ctf::other",
                "-c",
                "sub/component-constructor.yaml",
            ],
            "ctf::other",
        ),
    ] {
        place.run(line).await.ok();
        stored(&place, &format!("{archive}//a.io/app:1.0.0")).await;
    }
    assert!(place.path("packed").is_file());
    // The folder of inputs may be named.
    put(
        &place,
        "elsewhere/c.yaml",
        one("it", "{type: file, path: sub/file}"),
    );
    let line = [
        "add",
        "cv",
        "--working-directory",
        ".",
        "-c",
        "elsewhere/c.yaml",
        "-r",
        "./w",
    ];
    place.run(&line).await.ok();
    place
        .run(&["add", "cv", "-c", "elsewhere/c.yaml", "-r", "./w2"])
        .await
        .code(4);
    // An archive that is no archive is not replaced.
    place
        .run(&["add", "cv", "--create", "--force", "-F", "sub", "sub"])
        .await
        .code(8);
    assert!(place.path("sub/file").exists());
    let ran = place
        .run(&[
            "add", "cv", "--create", "--force", "-F", "a.tgz", "-o", "json", "sub",
        ])
        .await
        .ok();
    assert_eq!(
        ran.json()[0]["component"]["resources"][0]["access"],
        json!({
            "type": "localBlob", "mediaType": "text/plain; charset=utf-8", "localReference": format!("sha256:{}", hex("content\n"))
        })
    );
}

/// Content that is fetched: charts of Helm repositories, URLs, artifacts; taken in, or left with a digest.
#[tokio::test(flavor = "multi_thread")]
async fn content_elsewhere() {
    let registry = Peer::embedded().await;
    let place = Place::new().alias("r.io", &registry);
    let image = image_index();
    push(&place.session(), "r.io/image:1", &image)
        .await
        .unwrap();
    let packed = chart().blobs[1].read(1 << 30).await.unwrap();
    let mut files = helm_repository("mychart", "1.4.0", &packed, true);
    files.push(("/file.txt".to_owned(), "a file".into()));
    let web = WebServer::files(files).await;
    let url = web.url();
    let digest = format!(
        "{{hashAlgorithm: SHA-256, normalisationAlgorithm: genericBlobDigest/v1, value: {}}}",
        hex("a file")
    );
    let text = |digest: &str| {
        component(&format!(
            "  resources:\n\
             \x20 - {{name: chart, type: helmChart, input: {{type: helm, helmRepository: '{url}', path: mychart, version: 1.4.0}}}}\n\
             \x20 - {{name: direct, type: helmChart, input: {{type: helm, helmRepository: '{url}/mychart-1.4.0.tgz'}}}}\n\
             \x20 - {{name: file, type: blob, input: {{type: wget, url: '{url}/file.txt', mediaType: text/plain}}, digest: {digest}}}\n\
             \x20 - {{name: left, type: blob, access: {{type: wget, url: '{url}/file.txt', mediaType: text/plain}}, digest: {digest}}}\n\
             \x20 - {{name: left-chart, type: helmChart, relation: local, access: {{type: helm, helmRepository: '{url}', helmChart: 'mychart:1.4.0'}}}}\n\
             \x20 - {{name: image, type: ociImage, access: {{type: ociArtifact, imageReference: 'r.io/image:1'}}}}\n"
        ))
    };
    place.put("c.yaml", text(&digest));
    add(&place, &[]).await.ok();
    let stored_ = stored(&place, "./ctf//a.io/app:1.0.0").await;
    let of = |component: &serde_json::Value, name: &str, field: &str| {
        resource(component, name)[field].clone()
    };
    assert_eq!(
        of(&stored_, "chart", "access")["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(of(&stored_, "file", "digest")["value"], hex("a file"));
    assert_eq!(
        of(&stored_, "left", "digest"),
        of(&stored_, "file", "digest")
    );
    assert_eq!(of(&stored_, "left", "access")["type"], "wget");
    assert_eq!(of(&stored_, "left-chart", "digest")["value"], hex(&packed));
    let blobs = tree(&place.path("ctf/blobs"));
    let has = |digest: &str| blobs.contains_key(Path::new(&format!("sha256.{digest}")));
    assert!(has(&hex(&packed)) && !has(image.root.digest.hex()));
    // As v1 takes resources in, besides the three inputs.
    for (flag, taken) in [("--copy-local-resources", 1), ("-V", 3)] {
        let target = format!("./taken{taken}");
        place
            .run(&["add", "cv", flag, "-c", "c.yaml", "-r", &target])
            .await
            .ok();
        let component = stored(&place, &format!("{target}//a.io/app:1.0.0")).await;
        let list = component["resources"].as_array().unwrap();
        let local = list
            .iter()
            .filter(|it| it["access"]["type"] == "localBlob")
            .count();
        assert_eq!(local, 3 + taken, "{flag}");
        assert_eq!(
            of(&component, "image", "digest"),
            of(&stored_, "image", "digest")
        );
        assert_eq!(of(&component, "left", "relation"), "external");
    }
    let all = stored(&place, "./taken3//a.io/app:1.0.0").await;
    assert_eq!(of(&all, "image", "access")["referenceName"], "image:1");
    place.put(
        "c.yaml",
        text(&digest.replace(&hex("a file"), &hex("another"))),
    );
    let wrong = place
        .run(&["add", "cv", "-c", "c.yaml", "-r", "./wrong"])
        .await
        .code(5);
    assert_eq!(
        wrong.stderr.matches("the constructor states").count(),
        2,
        "{}",
        wrong.stderr
    );
    place.put("c.yaml", text(&digest).replace("file.txt", "none.txt"));
    place
        .run(&["add", "cv", "-c", "c.yaml", "-r", "./wrong"])
        .await
        .code(4);
}

/// The files of a commit, from git's own server: by name and by branch, and by value where they stay elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_git_repository() {
    let Some(repository) = GitRepository::new("sha1") else {
        return;
    };
    let repository = Arc::new(repository);
    repository.put("README.md", "read me\n");
    let commit = repository.commit("first");
    let web = repository.serve(false).await;
    let url = format!("{}/app.git", web.url());
    let place = Place::new();
    let text = format!(
        "  resources:\n\
         \x20 - {{name: code, type: directoryTree, input: {{type: git, repository: '{url}', commit: '{commit}'}}}}\n\
         \x20 - {{name: main, type: directoryTree, input: {{type: git, repository: '{url}', ref: refs/heads/main}}}}\n\
         \x20 sources:\n\
         \x20 - {{name: origin, type: git, access: {{type: git, repository: '{url}', commit: '{commit}'}}}}\n"
    );
    place.put("c.yaml", component(&text));
    add(&place, &[]).await.ok();
    let made = stored(&place, "./ctf//a.io/app:1.0.0").await;
    let digest = |name: &str| resource(&made, name)["digest"]["value"].clone();
    assert_eq!(digest("code"), digest("main"));
    let download = [
        "download",
        "resource",
        "./ctf//a.io/app:1.0.0",
        "code",
        "-O",
        "code",
    ];
    place.run(&download).await.ok();
    let files = tree(&place.path("code"));
    let (_, readme) = files
        .iter()
        .find(|(path, _)| path.ends_with("README.md"))
        .unwrap();
    assert_eq!(readme, b"read me\n");
    let carry = [
        "transfer",
        "cv",
        "--copy-resources",
        "--copy-sources",
        "./ctf//a.io/app:1.0.0",
        "./all",
    ];
    place.run(&carry).await.ok();
    let all = stored(&place, "./all//a.io/app:1.0.0").await;
    assert_eq!(all["sources"][0]["access"]["type"], "localBlob", "{all}");
    place.put("c.yaml", component(&text.replace(&commit, &"0".repeat(40))));
    let missing = place
        .run(&["add", "cv", "-c", "c.yaml", "-r", "./none"])
        .await;
    assert!(
        missing.code != 0 && missing.stderr.contains("code"),
        "{}",
        missing.stderr
    );
}

/// An image that another tool saved as an OCI layout.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_of_skopeo() {
    if !installed("skopeo") {
        return;
    }
    let registry = Peer::embedded().await;
    let place = Place::new().alias("r.io", &registry);
    let image = image_index();
    push(&place.session(), "r.io/image:1", &image)
        .await
        .unwrap();
    let from = format!(
        "docker://{}/image:1",
        registry.url().trim_start_matches("http://")
    );
    let saved = tokio::process::Command::new("/usr/bin/skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--all",
            "--src-tls-verify=false",
            &from,
            "oci-archive:image.tar:1",
        ])
        .current_dir(place.path(""))
        .output()
        .await
        .unwrap();
    assert!(
        saved.status.success(),
        "{}",
        String::from_utf8_lossy(&saved.stderr)
    );
    place.put("c.yaml", one("image", "{type: file, path: image.tar, mediaType: application/vnd.ocm.software.oci.layout.v1+tar}"));
    add(&place, &[]).await.ok();
    let component = stored(&place, "./ctf//a.io/app:1.0.0").await;
    assert_eq!(
        resource(&component, "image")["digest"]["value"],
        image.root.digest.hex()
    );
}

/// References are found where the configuration says, and stay there.
#[tokio::test(flavor = "multi_thread")]
async fn resolvers_find_references() {
    let place = Place::new();
    place.put(
        "dep.yaml",
        "{name: a.io/dep, version: 1.0.0, provider: p}\n",
    );
    place.put(
        "c.yaml",
        component(
            "  componentReferences: [{name: dep, componentName: a.io/dep, version: 1.0.0}]\n",
        ),
    );
    place.put("config", "type: generic.config.ocm.software/v1\nconfigurations:\n- type: resolvers.config.ocm.software/v1alpha1\n  resolvers: [{componentNamePattern: 'a.io/*', repository: {type: CommonTransportFormat/v1, filePath: ./deps}}]\n");
    place
        .run(&["add", "cv", "-c", "dep.yaml", "-r", "./deps"])
        .await
        .ok();
    add(&place, &[]).await.code(4);
    add(&place, &["--config", "config"]).await.ok();
    let component = stored(&place, "./ctf//a.io/app:1.0.0").await;
    assert_eq!(
        component["componentReferences"][0]["digest"]["normalisationAlgorithm"],
        "jsonNormalisation/v4alpha1"
    );
    assert_eq!(
        place
            .run(&["get", "cv", "./ctf", "-o", "ndjson"])
            .await
            .ok()
            .stdout
            .lines()
            .count(),
        1
    );
}

/// Referenced component versions come along with what is stored beside them, if that is wanted.
#[tokio::test(flavor = "multi_thread")]
async fn references_come_along() {
    let place = Place::new();
    place.put("low.yaml", "{name: a.io/low, version: 1.0.0, provider: p, resources: [{name: it, type: blob, input: {type: utf8, text: low}}], sources: [{name: code, type: blob, input: {type: utf8, text: code}}]}\n");
    place.put("dep.yaml", "{name: a.io/dep, version: 1.0.0, provider: p, componentReferences: [{name: low, componentName: a.io/low, version: 1.0.0}]}\n");
    place.put("c.yaml", component("  componentReferences: [{name: dep, componentName: a.io/dep, version: 1.0.0}, {name: low, componentName: a.io/low, version: 1.0.0}]\n"));
    place
        .run(&["add", "cv", "-r", "./deps", "low.yaml", "dep.yaml"])
        .await
        .ok();
    let copy = [
        "--lookup",
        "./deps",
        "--external-component-version-copy-policy",
        "copy-or-fail",
    ];
    let dry = add(&place, &[&copy[..], &["--dry-run", "-o", "table"]].concat())
        .await
        .ok();
    assert!(!place.path("ctf").exists(), "{}", dry.stdout);
    let ran = add(&place, &copy).await.ok();
    let results: Vec<&str> = ran
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(results, ["RESULT", "copied", "copied", "created"]);
    for name in ["low", "dep"] {
        let (from, to) = (
            format!("./deps//a.io/{name}:1.0.0"),
            format!("./ctf//a.io/{name}:1.0.0"),
        );
        assert_eq!(stored(&place, &from).await, stored(&place, &to).await);
    }
    place
        .run(&["check", "cv", "./ctf//a.io/app:1.0.0"])
        .await
        .ok();
}

/// The schema that the library v2 publishes, and what is read here.
#[tokio::test(flavor = "multi_thread")]
async fn the_published_schema() {
    let Some(schema) = vector("schemas/component-constructor.schema.json") else {
        return;
    };
    let schema: serde_json::Value =
        serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = |text: &str| {
        let source = Source::new("c.yaml", text);
        load(&source, &LoadOptions::default()).unwrap().to_json()
    };
    let mut variables = Variables::new();
    for (name, value) in [
        ("NAME", "acme.org/x"),
        ("VERSION", "1.0.0"),
        ("POSTGRES_VERSION", "18"),
        ("OCI_LAYOUT", "x"),
    ] {
        variables.set(name, value);
    }
    // Name, valid as it stands, valid with variables.
    for (name, plain, expanded) in [
        ("helm-nested", true, true),
        ("sovereign-notes", false, true),
        ("sovereign-postgres", false, true),
        ("sovereign-product", false, true),
        ("v1-single-component", false, false),
        ("v1-components", false, false),
    ] {
        let Some(path) = vector(&format!("constructor/{name}.yaml")) else {
            return;
        };
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(validator.is_valid(&document(&text)), plain, "{name}");
        let replaced = ["NAME", "VERSION", "POSTGRES_VERSION", "OCI_LAYOUT"]
            .iter()
            .fold(text.clone(), |text, name| {
                text.replace(&format!("${{{name}}}"), variables.get(name).unwrap())
            });
        assert_eq!(validator.is_valid(&document(&replaced)), expanded, "{name}");
        // All of them are read here, those of v1 too.
        let read = Constructor::read(&Source::new(name, text), Some(&variables), Some("1.0.0"));
        assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
    }
    // Its own example, too.
    for example in schema["$defs"]["component"]["examples"].as_array().unwrap() {
        let read = Constructor::read(&Source::new("example", example.to_string()), None, None);
        assert!(read.is_ok(), "{}", read.unwrap_err());
    }
}
