//! What is wrong with the input is told once, with the right exit code, and leaves nothing half-written.
//!
//! A table per kind of input, one row per case. Every row runs the program in a folder of its own and ends in [`check`].

use std::fmt::Write as _;
use std::path::Path;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::place::{Place, Ran, tree};

/// Rows at work at once.
pub(crate) const AT_ONCE: usize = 4;

/// Reads and writes one component version with one local blob.
pub(crate) const COPY: &str = "\
transformations:
- id: get
  type: CTFGetComponentVersion/v1alpha1
  spec: {repository: {type: ctf, filePath: ./source}, component: acme.org/demo, version: 1.0.0}
- id: conf
  type: CTFGetLocalResource/v1alpha1
  spec: {repository: {type: ctf, filePath: ./source}, component: acme.org/demo, version: 1.0.0, resourceIdentity: {name: conf}}
- id: add
  type: CTFAddLocalResource/v1alpha1
  spec: {repository: {type: ctf, filePath: ./target}, component: acme.org/demo, version: 1.0.0, resource: '${conf.output.resource}', file: '${conf.output.file}'}
- id: put
  type: CTFAddComponentVersion/v1alpha1
  dependsOn: [add]
  spec: {repository: {type: ctf, filePath: ./target}, descriptor: '${get.output.descriptor}'}
";

/// Makes what [`COPY`] reads.
pub(crate) const MAKE: &str = "\
transformations:
- id: add
  type: CTFAddLocalResource/v1alpha1
  spec:
    repository: {type: ctf, filePath: ./source}
    component: acme.org/demo
    version: 1.0.0
    resource: {name: conf, version: 1.0.0, type: blob, relation: local}
    file: {type: content, uri: conf.txt, mediaType: text/plain}
- id: put
  type: CTFAddComponentVersion/v1alpha1
  spec:
    repository: {type: ctf, filePath: ./source}
    descriptor:
      meta: {schemaVersion: v2}
      component:
        name: acme.org/demo
        version: 1.0.0
        provider: acme.org
        repositoryContexts: []
        resources: ['${add.output.resource}']
        sources: []
        componentReferences: []
";

pub(crate) const TRANSFER: &[&str] = &["transfer", "--transfer-spec", "spec.yaml"];

/// What an index that is none says.
const BROKEN: &str = "nonsense";

/// One case.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) arguments: Vec<&'static str>,
    /// Makes the input wrong; `source` and a good `spec.yaml` are there.
    pub(crate) arrange: Box<dyn Fn(&Place) + Send + Sync>,
    pub(crate) code: i32,
    pub(crate) says: Vec<String>,
}

pub(crate) fn row(
    name: impl Into<String>,
    code: i32,
    says: &[&str],
    arrange: impl Fn(&Place) + Send + Sync + 'static,
) -> Row {
    Row {
        name: name.into(),
        arguments: TRANSFER.to_vec(),
        arrange: Box::new(arrange),
        code,
        says: says.iter().map(|part| (*part).to_owned()).collect(),
    }
}

/// A case in which the spec is wrong.
pub(crate) fn spec(
    name: impl Into<String>,
    code: i32,
    says: &[&str],
    text: impl Into<Vec<u8>>,
) -> Row {
    let text = text.into();
    row(name, code, says, move |place| place.put("spec.yaml", &text))
}

/// A case in which the command line is wrong.
fn line(
    name: &'static str,
    code: i32,
    says: &'static [&'static str],
    arguments: &'static str,
) -> Row {
    Row {
        arguments: arguments.split(' ').collect(),
        ..row(name, code, says, |_| {})
    }
}

/// Everything that is wrong with how a run told of an error.
pub(crate) fn blunders(ran: &Ran, code: i32, says: &[impl AsRef<str>]) -> Vec<String> {
    let mut wrong = Vec::new();
    if ran.code != code {
        wrong.push(format!("exit code {} instead of {code}", ran.code));
    }
    let errors = ran.stderr.lines().filter(|line| line.starts_with("error:"));
    let errors = errors.count();
    if errors != usize::from(code != 0) {
        wrong.push(format!("{errors} errors are told"));
    }
    for part in says.iter().map(AsRef::as_ref) {
        if !ran.stderr.contains(part) {
            wrong.push(format!("`{part}` is not said"));
        }
    }
    for never in [
        "panicked",
        "RUST_BACKTRACE",
        "Some(",
        "Err(",
        "Ok(",
        "None,",
        "Error {",
        "{ kind:",
    ] {
        if ran.stderr.contains(never) || ran.stdout.contains(never) {
            wrong.push(format!("`{never}` is said"));
        }
    }
    wrong
}

/// What is visible in a CTF directory although it should not be: with `nothing`, all; otherwise what is incomplete.
pub(crate) fn visible(folder: &Path, nothing: bool) -> Vec<String> {
    let Ok(index) = std::fs::read(folder.join("artifact-index.json")) else {
        return Vec::new();
    };
    let Ok(index) = serde_json::from_slice::<Value>(&index) else {
        // It was broken before; a run must not have touched it.
        let untouched =
            std::fs::read(folder.join("artifact-index.json")).unwrap() == BROKEN.as_bytes();
        return Vec::from_iter(
            (!untouched).then(|| "the index of the target is no JSON".to_owned()),
        );
    };
    let mut wrong = Vec::new();
    for entry in index["artifacts"].as_array().into_iter().flatten() {
        if nothing {
            wrong.push(format!("the target has {entry}"));
        }
        missing(folder, &entry["digest"], &mut wrong);
    }
    wrong
}

fn missing(folder: &Path, digest: &Value, wrong: &mut Vec<String>) {
    let name = digest.as_str().unwrap_or_default().replace(':', ".");
    let Ok(bytes) = std::fs::read(folder.join("blobs").join(&name)) else {
        wrong.push(format!("the target lacks {name}"));
        return;
    };
    // Configs and layers are JSON sometimes, but never with these lists of descriptors.
    let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
        return;
    };
    let lists = [&manifest["manifests"], &manifest["layers"]];
    let parts = lists.iter().filter_map(|list| list.as_array()).flatten();
    for part in parts.chain([&manifest["config"]]) {
        if part["digest"].is_string() {
            missing(folder, &part["digest"], wrong);
        }
    }
}

/// Runs the rows; tells all that is wrong at once.
async fn check(rows: Vec<Row>) {
    let source = source().await;
    let source = &source;
    let failed: Vec<String> = stream::iter(rows)
        .map(|row| async move {
            let place = Place::new();
            copy(source, &place.path("source"));
            place.put("spec.yaml", COPY);
            place.put("broken.yaml", "a: [1\n");
            (row.arrange)(&place);
            let ran = place.run(&row.arguments).await;
            let mut wrong = blunders(&ran, row.code, &row.says);
            wrong.extend(visible(&place.path("target"), row.code != 0));
            complain(&row.name, &wrong, &ran)
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

pub(crate) fn complain(name: &str, wrong: &[String], ran: &Ran) -> Option<String> {
    if wrong.is_empty() {
        return None;
    }
    let mut out = format!("== {name}\n");
    for wrong in wrong {
        let _ = writeln!(out, "   {wrong}");
    }
    let _ = write!(out, "{}{}", ran.stdout, ran.stderr);
    Some(out)
}

/// An archive with one component version.
pub(crate) async fn source() -> tempfile::TempDir {
    let place = Place::new();
    place.put("conf.txt", "level: info\n".repeat(20));
    place.put("spec.yaml", MAKE);
    place.run(TRANSFER).await.ok();
    let folder = tempfile::tempdir().unwrap();
    copy(place.path("source"), folder.path());
    folder
}

pub(crate) fn copy(from: impl AsRef<Path>, to: &Path) {
    for (name, bytes) in tree(from.as_ref()) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

pub(crate) fn transformation(step_type: &str, spec: &str) -> String {
    format!("transformations:\n- {{id: a, type: {step_type}, spec: {spec}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn documents() {
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            let _ = writeln!(text, "a{level}: &a{level} [{below}]");
        }
        text + "transformations: []\n"
    };
    let nested = format!(
        "transformations: {}{}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let blocks: String = (0..10_000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    check(vec![
        row("missing", 4, &["read spec.yaml", "hint:"], |place| {
            std::fs::remove_file(place.path("spec.yaml")).unwrap();
        }),
        row("a folder", 3, &["spec.yaml", "folder", "hint:"], |place| {
            std::fs::remove_file(place.path("spec.yaml")).unwrap();
            std::fs::create_dir(place.path("spec.yaml")).unwrap();
        }),
        spec("not UTF-8", 3, &["spec.yaml:", "UTF-8", "hint:"], b"a: \xff\xfe\n".to_vec()),
        spec("binary", 3, &["spec.yaml:"], vec![0_u8; 4096]),
        spec("not YAML", 3, &["spec.yaml:2:2"], "a: [1, 2\nb: }"),
        spec("empty", 3, &["spec.yaml:1:1", "hint:"], ""),
        spec("spaces", 3, &["spec.yaml:"], " ".repeat(8 << 20)),
        spec("a number", 3, &["spec.yaml:1:1"], "42"),
        spec("a list", 3, &["spec.yaml:1:1"], "[1, 2]"),
        spec("two documents", 3, &["spec.yaml:"], format!("{COPY}---\n{COPY}")),
        spec("a key twice", 3, &["spec.yaml:2:", "transformations"], "transformations: []\ntransformations: []\n"),
        spec("alias bomb", 3, &["spec.yaml:", "alias"], bomb),
        spec("10,000 lists deep", 3, &["spec.yaml:1:", "deep"], nested),
        spec("10,000 maps deep", 3, &["spec.yaml:", "deep"], blocks),
        spec("unknown type", 3, &["spec.yaml:2:", "CTFGetComponentVersio/v1alpha1", "did you mean"],
            transformation("CTFGetComponentVersio/v1alpha1", "{}")),
        spec("unknown field", 3, &["spec.yaml:2:", "versions", "did you mean `version`"],
            transformation("CTFGetComponentVersion/v1alpha1", "{repository: {type: ctf, filePath: ./source}, component: c, versions: 1.0.0}")),
        spec("unknown step", 3, &["spec.yaml:", "got", "did you mean `get`"], COPY.replace("${get.", "${got.")),
        spec("unknown output", 3, &["spec.yaml:", "descripto"], COPY.replace("get.output.descriptor}", "get.output.descripto}")),
        spec("cycle", 3, &["spec.yaml:", "a -> b -> a", "hint:"],
            "transformations:\n- {id: a, type: attributes.transformation/v1alpha1, spec: {attributes: {x: '${b.output.x}'}}}\n- {id: b, type: attributes.transformation/v1alpha1, spec: {attributes: {x: '${a.output.x}'}}}\n"),
        spec("same id twice", 3, &["spec.yaml:", "`a`"],
            "transformations:\n- {id: a, type: attributes.transformation/v1alpha1, spec: {attributes: {}}}\n- {id: a, type: attributes.transformation/v1alpha1, spec: {attributes: {}}}\n"),
        spec("several at once", 3, &["spec.yaml:2:", "spec.yaml:3:", "spec.yaml:4:"],
            "transformations:\n- {id: a, type: CTFGetComponentVersion/v1alpha1, spec: {repository: {type: ctf, filePath: 5}, component: [], version: 1.0.0}}\n- {id: b, type: nothing/v1}\n- {id: c, type: FileCleanup/v1alpha1, spec: {files: '${a.output.nothing}'}}\n"),
        spec("broken expression", 3, &["spec.yaml:"], COPY.replace("${get.output.descriptor}", "${get.output..}")),
        spec("open expression", 3, &["spec.yaml:"], COPY.replace("${get.output.descriptor}", "${get.output")),
        spec("mapping with unknown resource", 3, &["spec.yaml:1:", "nothing", "hint:", "name=conf"],
            json!({"metadata": {"version": "v1alpha1"}, "spec": {"mappings": [{
                "component": {"name": "acme.org/demo", "version": "1.0.0"},
                "source": {"type": "CommonTransportFormat", "filePath": "./source"},
                "target": {"type": "CommonTransportFormat", "filePath": "./target"},
                "resources": [{"resource": {"name": "nothing"}, "target": {"type": "localBlob"}}]}]}}).to_string()),
        spec("malformed image reference", 3, &["imageReference", "hint:"],
            transformation("GetOCIArtifact/v1alpha1", "{resource: {name: i, version: 1.0.0, type: ociImage, relation: external, access: {type: ociArtifact, imageReference: 'UPPER case!'}}}")),
        spec("file missing", 4, &["step `add`", "conf.txt"], MAKE.replace("./source", "./target")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_lines() {
    check(vec![
        line("no spec", 2, &["hint:", "--transfer-spec"], "transfer"),
        line(
            "unknown flag",
            2,
            &["--transfer-specs"],
            "transfer --transfer-specs x",
        ),
        line("unknown command", 2, &["tranfer"], "tranfer"),
        line(
            "spec and positional",
            2,
            &["./source"],
            "transfer cv --transfer-spec spec.yaml ./source ./target",
        ),
        line(
            "no concurrency",
            2,
            &["--concurrency"],
            "transfer --transfer-spec spec.yaml --concurrency 0",
        ),
        line(
            "no size",
            2,
            &["--buffer"],
            "transfer --transfer-spec spec.yaml --buffer lots",
        ),
        line(
            "serve without =",
            2,
            &["`ghcr.io`", "hint:", "HOST=DIR"],
            "transfer --transfer-spec spec.yaml --serve ghcr.io",
        ),
        line(
            "serve without host",
            2,
            &["hint:", "HOST=DIR"],
            "transfer --transfer-spec spec.yaml --serve =dir",
        ),
        line(
            "serve without folder",
            2,
            &["hint:", "HOST=DIR"],
            "transfer --transfer-spec spec.yaml --serve ghcr.io=",
        ),
        line(
            "serve a file",
            3,
            &["spec.yaml"],
            "transfer --transfer-spec spec.yaml --serve ghcr.io=spec.yaml",
        ),
        line(
            "alias without =",
            2,
            &["`nonsense`", "hint:", "HOST=URL"],
            "transfer --transfer-spec spec.yaml --host-alias nonsense",
        ),
        line(
            "alias without host",
            2,
            &["hint:"],
            "transfer --transfer-spec spec.yaml --host-alias =http://x",
        ),
        line(
            "alias to no URL",
            2,
            &["hint:"],
            "transfer --transfer-spec spec.yaml --host-alias a=http://",
        ),
        line(
            "alias to another scheme",
            2,
            &["hint:"],
            "transfer --transfer-spec spec.yaml --host-alias a=ftp://b",
        ),
        line(
            "report into a missing folder",
            4,
            &["--report no/report.json", "hint:"],
            "transfer --transfer-spec spec.yaml --report no/report.json",
        ),
        line(
            "report onto a folder",
            2,
            &["--report source", "hint:"],
            "transfer --transfer-spec spec.yaml --report source",
        ),
        line(
            "config missing",
            4,
            &["read", "no.yaml"],
            "transfer --transfer-spec spec.yaml --config no.yaml",
        ),
        line(
            "config no YAML",
            3,
            &["broken.yaml:"],
            "transfer --transfer-spec spec.yaml --config broken.yaml",
        ),
        line(
            "certificate missing",
            4,
            &["no.pem"],
            "transfer --transfer-spec spec.yaml --ca-file no.pem",
        ),
        line(
            "no certificate",
            3,
            &["spec.yaml"],
            "transfer --transfer-spec spec.yaml --ca-file spec.yaml",
        ),
        line(
            "unknown step type",
            4,
            &["`nothing`", "hint:"],
            "get types nothing",
        ),
        line(
            "get from nowhere",
            4,
            &["nowhere"],
            "get cv ./nowhere//acme.org/demo",
        ),
        line(
            "get an unknown version",
            4,
            &["9.9.9"],
            "get cv ./source//acme.org/demo:9.9.9",
        ),
        line(
            "get an unknown component",
            4,
            &["acme.org/other"],
            "get cv ./source//acme.org/other",
        ),
        line("get nonsense", 2, &["hint:"], "get cv ::"),
        line(
            "a constraint that is none",
            2,
            &["latest-ish"],
            "get cv ./source//acme.org/demo --semver-constraint latest-ish",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_lists_the_exit_codes() {
    let help = Place::new().run(&["--help"]).await.ok().stdout;
    let (_, codes) = help
        .split_once("Exit codes:")
        .expect("a list of exit codes");
    let codes: Vec<u8> = codes
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130, 143]);
    let short = Place::new().run(&["-h"]).await.ok().stdout;
    assert!(!short.contains("Exit codes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_spec_makes_no_folder_to_serve() {
    let place = Place::new();
    place.put("spec.yaml", "transformations: 5");
    let run = [
        "transfer",
        "--transfer-spec",
        "spec.yaml",
        "--serve",
        "ghcr.io=./served",
    ];
    let ran = place.run(&run).await;
    let mut wrong = blunders(&ran, 3, &["spec.yaml:1:"]);
    wrong.extend(
        place
            .path("served")
            .exists()
            .then(|| "the folder is there".to_owned()),
    );
    assert_eq!(complain("serve", &wrong, &ran), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_same_name_stays() {
    let place = Place::new();
    place.put("conf.txt", "level: info\n");
    place.put("spec.yaml", MAKE.replace("./source", "./target"));
    place.run(TRANSFER).await.ok();
    let before = std::fs::read(place.path("target/artifact-index.json")).unwrap();
    place.put("conf.txt", "level: debug\n");
    let ran = place.run(TRANSFER).await;
    let wrong = blunders(&ran, 8, &["step `put`", "acme.org/demo:1.0.0", "hint:"]);
    assert_eq!(complain("conflict", &wrong, &ran), None);
    let after = std::fs::read(place.path("target/artifact-index.json")).unwrap();
    assert_eq!(before, after);
}

/// A shell runs the program: what it says about files before counts for the program, too.
async fn shell(place: &Place, before: &str) -> Ran {
    let script = format!(
        "{before} exec {} {}",
        env!("CARGO_BIN_EXE_ocm"),
        TRANSFER.join(" ")
    );
    let output = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(place.path(""))
        .output()
        .await
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_closed_disks() {
    let place = Place::new();
    place.put("conf.txt", "level: info\n".repeat(100_000));
    place.put("spec.yaml", MAKE.replace("./source", "./target"));
    // Files may not grow beyond 64 blocks, as if the disk were full there.
    let ran = shell(&place, "trap '' XFSZ; ulimit -f 64;").await;
    let mut wrong = blunders(&ran, 1, &["step `add`", "target", "too large"]);
    wrong.extend(visible(&place.path("target"), true));
    assert_eq!(complain("file size", &wrong, &ran), None);

    let mounted = "mkdir target && mount -t tmpfs -o size=64k none target 2>/dev/null || exit 99;";
    let unshared = format!(
        "unshare -m sh -c \"{mounted} {} {}; code=\\$?; ls target/blobs >names 2>/dev/null; cat target/artifact-index.json >index 2>/dev/null; exit \\$code\";",
        env!("CARGO_BIN_EXE_ocm"),
        TRANSFER.join(" ")
    );
    std::fs::remove_dir_all(place.path("target")).unwrap();
    let ran = shell(&place, &format!("{unshared} exit $?;")).await;
    match ran.code {
        99 | 1 if !ran.stderr.contains("error:") => {
            println!(
                "skipped: no file system can be mounted here: {}",
                ran.stderr
            );
        }
        _ => {
            let wrong = blunders(&ran, 1, &["step `add`", "target", "space"]);
            assert_eq!(complain("disk full", &wrong, &ran), None);
            let index = std::fs::read_to_string(place.path("index")).unwrap_or_default();
            assert!(!index.contains("sha256"), "{index}");
        }
    }

    let _ = std::fs::remove_dir_all(place.path("target"));
    let closed = "mkdir -p target; chmod a-w target; touch target/x 2>/dev/null && exit 99;";
    let ran = shell(&place, closed).await;
    if ran.code == 99 {
        println!("skipped: whoever runs this may write everywhere");
        return;
    }
    let wrong = blunders(&ran, 6, &["step `", "target", "hint:"]);
    assert_eq!(complain("closed", &wrong, &ran), None);
}

/// The file in `source/blobs` that holds the text.
pub(crate) fn blob_with(place: &Place, text: &str) -> std::path::PathBuf {
    let blobs = place.path("source/blobs");
    let found = tree(&blobs).into_iter().find(|(_, bytes)| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    });
    blobs.join(found.expect("a blob with that text").0)
}

pub(crate) const CONF: &str = "level: info";
pub(crate) const MANIFEST: &str = "\"layers\":";
pub(crate) const DESCRIPTOR: &str = "\"provider\"";

/// Puts other bytes in place of those of a blob.
pub(crate) fn forge(place: &Place, text: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = blob_with(place, text);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

pub(crate) fn index(place: &Place, change: impl FnOnce(&mut Value)) {
    let path = place.path("source/artifact-index.json");
    let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    std::fs::write(path, index.to_string()).unwrap();
}

/// A change of the spec that is good as text, but not for what the archive has.
fn asks(
    name: &'static str,
    code: i32,
    says: &'static [&'static str],
    from: &'static str,
    to: &'static str,
) -> Row {
    row(name, code, says, move |place| {
        assert!(COPY.contains(from));
        place.put("spec.yaml", COPY.replace(from, to));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn archives() {
    let index_is = |name, says, text: &'static str| {
        row(name, 3, says, move |place| {
            place.put("source/artifact-index.json", text)
        })
    };
    check(vec![
        asks("no archive", 4, &["step `", "nowhere"], "filePath: ./source", "filePath: ./nowhere"),
        row("a text file", 3, &["step `", "source"], |place| {
            std::fs::remove_dir_all(place.path("source")).unwrap();
            place.put("source", "I am no archive");
        }),
        row("an empty folder", 4, &["step `", "source", "hint:"], |place| {
            std::fs::remove_file(place.path("source/artifact-index.json")).unwrap();
        }),
        index_is("index is no JSON", &["artifact-index.json", "line 1"], "nonsense"),
        index_is("index of another version", &["artifact-index.json", "2"], r#"{"schemaVersion":2,"artifacts":[]}"#),
        index_is("index with a wrong digest", &["artifact-index.json", "digest"],
            r#"{"schemaVersion":1,"artifacts":[{"repository":"component-descriptors/acme.org/demo","tag":"1.0.0","digest":"sha256:../../../etc/passwd"}]}"#),
        asks("no such version", 4, &["acme.org/demo", "9.9.9"], "component: acme.org/demo, version: 1.0.0}", "component: acme.org/demo, version: 9.9.9}"),
        asks("no such component", 4, &["acme.org/other"], "component: acme.org/demo, version: 1.0.0}", "component: acme.org/other, version: 1.0.0}"),
        asks("no such resource", 4, &["resourceIdentity", "nothing"], "name: conf", "name: nothing"),
        row("blob missing", 4, &["step `add`", "sha256:", "hint:"], |place| {
            std::fs::remove_file(blob_with(place, CONF)).unwrap();
        }),
        row("blob cut", 5, &["step `add`", "sha256:"], |place| forge(place, CONF, |bytes| bytes.truncate(50))),
        row("blob longer", 5, &["step `add`", "sha256:"], |place| forge(place, CONF, |bytes| bytes.push(b' '))),
        row("blob with another bit", 5, &["step `add`", "sha256:"], |place| forge(place, CONF, |bytes| bytes[7] ^= 1)),
        row("blob is a folder", 3, &["step `add`"], |place| {
            let path = blob_with(place, CONF);
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        }),
        row("manifest missing", 4, &["sha256:"], |place| std::fs::remove_file(blob_with(place, MANIFEST)).unwrap()),
        row("manifest with another bit", 5, &["sha256:"], |place| forge(place, MANIFEST, |bytes| bytes[7] ^= 1)),
        row("manifest is no manifest", 3, &["acme.org/demo"], |place| swap_root(place, "[1, 2]")),
        row("manifest without layers", 3, &["acme.org/demo"], |place| swap_root(place, r#"{"schemaVersion":2}"#)),
        row("descriptor cut", 5, &["acme.org/demo"], |place| forge(place, DESCRIPTOR, |bytes| bytes.truncate(50))),
        row("descriptor is none", 3, &["acme.org/demo"], |place| swap_descriptor(place, |_| "[1, 2]".to_owned())),
        row("descriptor is no text", 3, &["acme.org/demo"], |place| swap_descriptor(place, |_| "\u{0}\u{1}: [".to_owned())),
        row("descriptor of another component", 5, &["acme.org/demo", "acme.org/evil"], |place| {
            swap_descriptor(place, |text| text.replace("acme.org/demo", "acme.org/evil"));
        }),
        row("descriptor of another version", 5, &["acme.org/demo", "6.6.6"], |place| {
            swap_descriptor(place, |text| text.replace("\"version\":\"1.0.0\"", "\"version\":\"6.6.6\""));
        }),
        row("digest that lies", 5, &["step `conf`", "conf", "sha256:"], |place| {
            swap_descriptor(place, |text| {
                let at = text.find("\"value\":\"").unwrap() + 9;
                format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..])
            });
        }),
        row("access that leads nowhere", 4, &["step `conf`", "sha256:0000"], |place| {
            swap_descriptor(place, |text| {
                let at = text.find("\"localReference\":\"sha256:").unwrap() + 25;
                format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..])
            });
        }),
        row("target is a file", 3, &["step `", "target"], |place| place.put("target", "x")),
        row("target below a file", 1, &["step `", "conf.txt/target"], |place| {
            place.put("conf.txt", "x");
            place.put("spec.yaml", COPY.replace("./target", "./conf.txt/target"));
        }),
        row("target with a broken index", 3, &["artifact-index.json"], |place| {
            std::fs::create_dir(place.path("target")).unwrap();
            place.put("target/artifact-index.json", BROKEN);
        }),
    ])
    .await;
}

/// A manifest of other bytes under its right digest.
pub(crate) fn swap_root(place: &Place, text: &str) {
    let digest = keep(place, text.as_bytes());
    index(place, |index| {
        index["artifacts"][0]["digest"] = digest.into()
    });
}

/// A blob in the source; its digest.
pub(crate) fn keep(place: &Place, bytes: &[u8]) -> String {
    let digest = ocm_specs::Digest::sha256(bytes).to_string();
    place.put(&format!("source/blobs/{}", digest.replace(':', ".")), bytes);
    digest
}

/// A descriptor of other bytes, with all digests that lead to it right.
pub(crate) fn swap_descriptor(place: &Place, change: impl FnOnce(&str) -> String) {
    let unpacked = std::fs::read(blob_with(place, DESCRIPTOR)).unwrap();
    let old = ocm_specs::Digest::sha256(&unpacked).to_string();
    let start = unpacked.iter().position(|byte| *byte == b'{').unwrap();
    let end = unpacked.iter().rposition(|byte| *byte == b'}').unwrap();
    let text = change(std::str::from_utf8(&unpacked[start..=end]).unwrap());
    let mut bytes = unpacked.clone();
    if start == 0 {
        bytes = text.into_bytes();
    } else {
        // In a tar: the header's size and checksum change with the text.
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "component-descriptor.yaml", text.as_bytes())
            .unwrap();
        bytes.clear();
        bytes.extend(builder.into_inner().unwrap());
    }
    let digest = keep(place, &bytes);
    let manifest = std::fs::read_to_string(blob_with(place, MANIFEST)).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        if layer["digest"] == old.as_str() {
            layer["digest"] = digest.clone().into();
            layer["size"] = bytes.len().into();
        }
    }
    swap_root(place, &manifest.to_string());
    // The config names the descriptor's layer.
    let config = manifest["config"]["digest"]
        .as_str()
        .unwrap()
        .replace(':', ".");
    let config = std::fs::read_to_string(place.path("source/blobs").join(config)).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let link = config
        .as_object_mut()
        .unwrap()
        .values_mut()
        .find(|link| link["digest"] == old.as_str());
    if let Some(link) = link {
        link["digest"] = digest.into();
        link["size"] = bytes.len().into();
    }
    let bytes = config.to_string();
    manifest["config"]["digest"] = keep(place, bytes.as_bytes()).into();
    manifest["config"]["size"] = bytes.len().into();
    swap_root(place, &manifest.to_string());
}

/// Localizes `data.tgz` and stores it.
pub(crate) fn localize(file: &str, path: &str) -> String {
    format!("\
transformations:
- id: local
  type: yaml.engine.localization/v1alpha1
  spec: {{data: {{uri: data.tgz}}, file: '{file}', mappings: [{{path: '{path}', value: new}}]}}
- id: add
  type: CTFAddLocalResource/v1alpha1
  spec: {{repository: {{type: ctf, filePath: ./target}}, component: acme.org/demo, version: 1.0.0, resource: {{name: conf, version: 1.0.0, type: blob, relation: local}}, file: '${{local.output.data}}'}}
")
}

/// A tar of these files and links (with `->`), whatever their names are.
pub(crate) fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        // By hand: the library refuses the names that this is about.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let link = text.strip_prefix("->");
        match link {
            Some(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
                header.set_size(0);
            }
            None => header.set_size(text.len() as u64),
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        if link.is_none() {
            out.extend_from_slice(text.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn tars() {
    let tar_of = |name, code, says, entries: &'static [(&'static str, &'static str)]| {
        row(name, code, says, move |place: &Place| {
            place.put("data.tgz", archive(entries));
            place.put("spec.yaml", localize("chart/values.yaml", "image.tag"));
        })
    };
    let bytes = |name, code, says, bytes: fn() -> Vec<u8>| {
        row(name, code, says, move |place: &Place| {
            place.put("data.tgz", bytes());
            place.put("spec.yaml", localize("chart/values.yaml", "image.tag"));
        })
    };
    const GOOD: (&str, &str) = ("chart/values.yaml", "image:\n  tag: old\n");
    check(vec![
        tar_of("good", 0, &[], &[GOOD]),
        // Nothing is unpacked, so these are bytes like others.
        tar_of("names that lead out", 0, &[], &[("../../evil", "x"), GOOD]),
        tar_of("absolute names", 0, &[], &[("/etc/passwd", "x"), GOOD]),
        tar_of("links", 0, &[], &[("chart/link", "->/etc/passwd"), GOOD]),
        tar_of(
            "the file is a link",
            4,
            &["step `local`", "chart/values.yaml", "hint:"],
            &[("chart/values.yaml", "->/etc/passwd")],
        ),
        tar_of(
            "no file matches",
            4,
            &["step `local`", "chart/values.yaml", "hint:"],
            &[("chart/other.yaml", "a: b")],
        ),
        tar_of(
            "not YAML",
            3,
            &["step `local`", "chart/values.yaml", "line 2"],
            &[("chart/values.yaml", "a: [1\nb: }")],
        ),
        tar_of(
            "a template",
            3,
            &["step `local`", "chart/values.yaml", "line 2"],
            &[("chart/values.yaml", "image:\n  tag: {{ .Values.tag }}\n")],
        ),
        tar_of(
            "path missing",
            3,
            &["step `local`", "image", "hint:"],
            &[("chart/values.yaml", "a: b\n")],
        ),
        tar_of(
            "path of a map",
            3,
            &["step `local`", "image.tag"],
            &[("chart/values.yaml", "image:\n  tag: {a: b}\n")],
        ),
        bytes("not a tar", 3, &["step `local`", "no tar"], || {
            b"nonsense".repeat(200)
        }),
        bytes("empty", 3, &["step `local`"], Vec::new),
        bytes("tar cut", 3, &["step `local`"], || {
            archive(&[("a", "x"), GOOD])[..1600].to_vec()
        }),
        bytes("wrong checksum", 3, &["step `local`", "checksum"], || {
            let mut tar = archive(&[("a", "x"), GOOD]);
            tar[1030] ^= 1;
            tar
        }),
        bytes("gzip cut", 3, &["step `local`"], || {
            let whole = ocm_testdata::fixtures::gzip(&archive(&[("a", "x"), GOOD]));
            whole[..whole.len() / 2].to_vec()
        }),
        bytes("gzip with another bit", 3, &["step `local`"], || {
            let mut whole = ocm_testdata::fixtures::gzip(&archive(&[("a", "x"), GOOD])).to_vec();
            let at = whole.len() - 6;
            whole[at] ^= 1;
            whole
        }),
        row(
            "no pattern",
            3,
            &["step `local`", "file", "chart/["],
            |place| {
                place.put("data.tgz", archive(&[GOOD]));
                place.put("spec.yaml", localize("chart/[", "image.tag"));
            },
        ),
        row("no path", 3, &["step `local`", "mappings"], |place| {
            place.put("data.tgz", archive(&[GOOD]));
            place.put("spec.yaml", localize("chart/values.yaml", "image..["));
        }),
    ])
    .await;
}
