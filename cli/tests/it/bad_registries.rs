//! Registries that lie, refuse, cut, stall and lead elsewhere; and what a signal leaves behind.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use ocm_content::{MemoryStores, Stores as _};
use ocm_registry::{Auth, RegistryConfig, Users};
use ocm_testdata::faults::{Fault, FaultyRegistry, Kind, Rule};
use ocm_testdata::fixtures;
use serde_json::Value;

use crate::bad_input::{AT_ONCE, blunders, complain, visible};
use crate::place::Place;

/// Copies an image from `source.example` into an archive, as a resource of a component version.
pub(crate) const DOWN: &str = "\
transformations:
- id: get
  type: GetOCIArtifact/v1alpha1
  spec: {resource: {name: image, version: 1.0.0, type: ociImage, relation: external, access: {type: ociArtifact, imageReference: 'source.example/acme/image:1.0.0'}}}
- id: add
  type: CTFAddLocalResource/v1alpha1
  spec: {repository: {type: ctf, filePath: ./target}, component: acme.org/demo, version: 1.0.0, resource: {name: image, version: 1.0.0, type: ociImage, relation: local}, file: '${get.output.file}'}
- id: put
  type: CTFAddComponentVersion/v1alpha1
  spec:
    repository: {type: ctf, filePath: ./target}
    descriptor: &descriptor
      meta: {schemaVersion: v2}
      component: {name: acme.org/demo, version: 1.0.0, provider: acme.org, repositoryContexts: [], sources: [], componentReferences: [], resources: ['${add.output.resource}']}
";

/// Writes a component version with a text into `target.example`.
pub(crate) const UP: &str = "\
transformations:
- id: add
  type: OCIAddLocalResource/v1alpha1
  spec: {repository: {type: OCIRepository, baseUrl: target.example}, component: acme.org/demo, version: 1.0.0, resource: {name: conf, version: 1.0.0, type: blob, relation: local}, file: {uri: conf.txt}}
- id: put
  type: OCIAddComponentVersion/v1alpha1
  spec:
    repository: {type: OCIRepository, baseUrl: target.example}
    descriptor:
      meta: {schemaVersion: v2}
      component: {name: acme.org/demo, version: 1.0.0, provider: acme.org, repositoryContexts: [], sources: [], componentReferences: [], resources: ['${add.output.resource}']}
";

/// Short waits, so that patience does not make the table slow.
pub(crate) const HTTP: &str = "\
type: http.config.ocm.software/v1alpha1
timeout: 700ms
retry: {maxRetries: 2, minWait: 1ms, maxWait: 5ms}
";

/// What nobody may ever see again.
pub(crate) const SECRET: &str = "h0rse-battery-staple";

/// One case.
struct Row {
    name: &'static str,
    spec: &'static str,
    rules: Vec<Rule>,
    auth: Auth,
    code: i32,
    says: &'static [&'static str],
}

fn down(
    name: &'static str,
    code: i32,
    says: &'static [&'static str],
    rules: impl Into<Vec<Rule>>,
) -> Row {
    let (spec, rules) = (DOWN, rules.into());
    Row {
        name,
        spec,
        rules,
        auth: Auth::None,
        code,
        says,
    }
}

fn up(
    name: &'static str,
    code: i32,
    says: &'static [&'static str],
    rules: impl Into<Vec<Rule>>,
) -> Row {
    Row {
        spec: UP,
        ..down(name, code, says, rules)
    }
}

pub(crate) fn users(password: &str) -> Users {
    Users::one("alice", password)
}

pub(crate) fn tokens(password: &str) -> Auth {
    Auth::Token {
        users: users(password),
        lifetime: Duration::from_secs(60),
        realm: None,
    }
}

async fn registry(row: &Row) -> FaultyRegistry {
    let stores = MemoryStores::new();
    let store = stores.store("acme/image").unwrap();
    fixtures::image(2, 300_000)
        .push(&store, Some("1.0.0"))
        .await
        .unwrap();
    let config = RegistryConfig {
        auth: row.auth.clone(),
        ..RegistryConfig::new(Arc::new(stores.clone()))
    };
    let mut registry = FaultyRegistry::over(config, row.rules.clone())
        .await
        .unwrap();
    registry.stores = stores;
    registry
}

fn place(row: &Row, registry: &FaultyRegistry) -> Place {
    let place = Place::new();
    place.put("spec.yaml", row.spec);
    place.put("conf.txt", "level: info\n".repeat(1000));
    let host = registry.host();
    let docker = format!(
        "{{type: DockerConfig/v1, dockerConfig: '{{\"auths\": {{\"{host}\": {{\"username\": \"alice\", \"password\": \"{SECRET}\"}}, \"source.example\": {{\"username\": \"alice\", \"password\": \"{SECRET}\"}}, \"target.example\": {{\"username\": \"alice\", \"password\": \"{SECRET}\"}}}}}}'}}"
    );
    let credentials = format!(
        "{{type: credentials.config.ocm.software/v1, repositories: [{{repository: {docker}}}]}}"
    );
    let http = HTTP.trim().replace('\n', "\n  ");
    place.put(
        "config.yaml",
        format!(
            "type: generic.config.ocm.software/v1\nconfigurations:\n- {http}\n- {credentials}\n"
        ),
    );
    place
}

fn arguments(registry: &FaultyRegistry) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "transfer",
        "--transfer-spec",
        "spec.yaml",
        "--config",
        "config.yaml",
        "--report",
        "report.json",
        "--loglevel",
        "trace",
    ]
    .map(str::to_owned)
    .into();
    for host in ["source.example", "target.example"] {
        arguments.push("--host-alias".to_owned());
        arguments.push(format!("{host}=http://{}", registry.host()));
    }
    arguments
}

async fn check(rows: Vec<Row>) {
    let failed: Vec<String> = stream::iter(rows)
        .map(|row| async move {
            let registry = registry(&row).await;
            let place = place(&row, &registry);
            let arguments = arguments(&registry);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ran = place.run(&arguments).await;
            let mut wrong = blunders(&ran, row.code, row.says);
            wrong.extend(visible(&place.path("target"), row.code != 0));
            let tags = tags(&registry).await;
            if row.code != 0 && !tags.is_empty() {
                wrong.push(format!("the registry has {tags:?}"));
            }
            let report = std::fs::read_to_string(place.path("report.json")).unwrap_or_default();
            for text in [&ran.stdout, &ran.stderr, &report] {
                if text.contains(SECRET) {
                    wrong.push("the password is said".to_owned());
                }
            }
            if report.is_empty() {
                wrong.push("there is no report".to_owned());
            }
            complain(row.name, &wrong, &ran)
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Tags of the component version in the registry.
async fn tags(registry: &FaultyRegistry) -> Vec<String> {
    let store = registry
        .stores
        .store("component-descriptors/acme.org/demo")
        .unwrap();
    let tags = store.tags().await;
    tags.unwrap_or_default()
}

fn blob() -> ocm_testdata::faults::Matching {
    Rule::on(Kind::Blob).method("GET")
}

fn manifest() -> ocm_testdata::faults::Matching {
    Rule::on(Kind::Manifest).method("GET")
}

fn header(name: &str, value: &str) -> Fault {
    Fault::Header {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

pub(crate) const ZERO: &str =
    "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn lies() {
    check(vec![
        down("nothing wrong", 0, &[], []),
        down(
            "another bit in a layer",
            5,
            &["source.example", "sha256:"],
            [blob()
                .path("sha256")
                .times(2..)
                .then(Fault::FlipBit { offset: 1000 })],
        ),
        down(
            "another bit in the manifest",
            5,
            &["source.example", "sha256:"],
            [manifest().then(Fault::FlipBit { offset: 30 })],
        ),
        down(
            "another digest in the header",
            5,
            &["source.example", "sha256:"],
            [manifest().then(header("docker-content-digest", ZERO))],
        ),
        down(
            "a shorter length",
            5,
            &["source.example"],
            [blob().times(2..).then(header("content-length", "1000"))],
        ),
        down(
            "a longer length",
            5,
            &["source.example"],
            [blob().times(2..).then(header("content-length", "300500"))],
        ),
        down(
            "another media type",
            5,
            &["source.example", "the document itself"],
            [Rule::on(Kind::Manifest).then(header(
                "content-type",
                "application/vnd.oci.image.index.v1+json",
            ))],
        ),
        down(
            "a web page",
            3,
            &["source.example"],
            [Rule::on(Kind::Manifest).then(
                Fault::status(200)
                    .header("content-type", "text/html")
                    .body("<html>welcome</html>"),
            )],
        ),
        down(
            "a range that is none",
            0,
            &[],
            [
                blob()
                    .path("sha256")
                    .nth(2)
                    .then(Fault::CutResponse { after: 5000 }),
                blob().path("sha256").nth(3).then(Fault::IgnoreHeader {
                    name: "range".to_owned(),
                }),
            ],
        ),
        down(
            "another range",
            5,
            &["source.example"],
            [
                // Whichever of the two blobs comes first: only the layer is longer than that.
                blob().times(1..=2).then(Fault::CutResponse { after: 5000 }),
                blob()
                    .times(3..)
                    .then(header("content-range", "bytes 7-300000/300001")),
            ],
        ),
        up("nothing wrong above", 0, &[], []),
        up(
            "another digest of what came",
            5,
            &["target.example", "sha256:"],
            [Rule::on(Kind::Manifest)
                .method("PUT")
                .then(Fault::status(201).header("docker-content-digest", ZERO))],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let right = tokens(SECRET);
    check(vec![
        down(
            "not found",
            4,
            &["source.example/acme/image", "1.0.0", "hint:"],
            [
                manifest().then(Fault::status(404)),
                Rule::on(Kind::Manifest).then(Fault::status(404)),
            ],
        ),
        down(
            "a blob not found",
            4,
            &["sha256:", "hint:"],
            [Rule::on(Kind::Blob).then(Fault::status(404))],
        ),
        down(
            "forbidden",
            6,
            &["source.example", "403", "hint:"],
            [Rule::on(Kind::Manifest).then(Fault::status(403))],
        ),
        down(
            "always 401",
            6,
            &["source.example", "401", "hint:"],
            [Rule::on(Kind::Any)
                .then(Fault::status(401).header("www-authenticate", "Basic realm=\"x\""))],
        ),
        down(
            "401 without a challenge",
            6,
            &["source.example", "hint:"],
            [Rule::on(Kind::Any).then(Fault::status(401))],
        ),
        down(
            "401 with a foreign realm",
            3,
            &["source.example", "169.254.169.254", "hint:"],
            [Rule::on(Kind::Any).then(Fault::status(401).header(
                "www-authenticate",
                "Bearer realm=\"http://169.254.169.254/token\",service=\"x\"",
            ))],
        ),
        Row {
            auth: tokens("another"),
            ..down("wrong password", 6, &["source.example", "hint:"], [])
        },
        Row {
            auth: right.clone(),
            ..down("right password", 0, &[], [])
        },
        Row {
            auth: right.clone(),
            ..down(
                "401 in mid-run",
                0,
                &[],
                [blob().nth(2).then(Fault::IgnoreHeader {
                    name: "authorization".to_owned(),
                })],
            )
        },
        Row {
            auth: Auth::Basic {
                users: users(SECRET),
            },
            ..down("basic", 0, &[], [])
        },
        down(
            "always 429",
            7,
            &["source.example", "429", "hint:"],
            [Rule::on(Kind::Any).then(Fault::status(429))],
        ),
        down(
            "429 for a year",
            7,
            &["source.example", "429"],
            [Rule::on(Kind::Any).then(Fault::status(429).header("retry-after", "31536000"))],
        ),
        down(
            "always 500",
            7,
            &["source.example", "500"],
            [Rule::on(Kind::Any).then(Fault::status(500))],
        ),
        down(
            "503, then fine",
            0,
            &[],
            [Rule::on(Kind::Any).times(..=2).then(Fault::status(503))],
        ),
        down(
            "503 for every first blob",
            0,
            &[],
            [Rule::on(Kind::Blob).nth(1).then(Fault::status(503))],
        ),
        up(
            "always 500 above",
            7,
            &["target.example", "500"],
            [Rule::on(Kind::Any).then(Fault::status(500))],
        ),
        up(
            "forbidden above",
            6,
            &["target.example", "403"],
            [Rule::on(Kind::UploadStart).then(Fault::status(403))],
        ),
        up(
            "too large",
            1,
            &["target.example", "413"],
            [
                Rule::on(Kind::UploadStart).then(Fault::status(413)),
                Rule::on(Kind::Upload).then(Fault::status(413)),
            ],
        ),
        up(
            "manifest refused",
            3,
            &["target.example", "400"],
            [Rule::on(Kind::Manifest)
                .method("PUT")
                .then(Fault::status(400))],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn breaks() {
    check(vec![
        down(
            "cut in a body",
            0,
            &[],
            [blob().nth(2).then(Fault::CutResponse { after: 100_000 })],
        ),
        down(
            "cut always",
            7,
            &["source.example"],
            [blob().times(2..).then(Fault::CutResponse { after: 0 })],
        ),
        down(
            "reset",
            7,
            &["source.example"],
            [Rule::on(Kind::Any).then(Fault::Reset)],
        ),
        down(
            "stalls once",
            0,
            &[],
            [blob().nth(2).then(Fault::Stall { after: 100_000 })],
        ),
        down(
            "stalls always",
            7,
            &["source.example", "0.7 seconds"],
            [blob().times(2..).then(Fault::Stall { after: 0 })],
        ),
        down(
            "silent",
            7,
            &["source.example"],
            [Rule::on(Kind::Any).then(Fault::Silence)],
        ),
        up(
            "answer lost",
            0,
            &[],
            [Rule::on(Kind::Manifest)
                .method("PUT")
                .nth(1)
                .then(Fault::LoseResponse)],
        ),
        up(
            "upload cut once",
            0,
            &[],
            [Rule::on(Kind::Upload)
                .nth(1)
                .then(Fault::CutRequest { after: 100 })],
        ),
        up(
            "upload cut always",
            7,
            &["target.example"],
            [
                Rule::on(Kind::Upload).then(Fault::CutRequest { after: 100 }),
                Rule::on(Kind::UploadStart).then(Fault::CutRequest { after: 100 }),
            ],
        ),
    ])
    .await;
}

/// Wherever a user may put a password, it stays there.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_secret() {
    let with = |host: &str| format!("http://alice:{SECRET}@{host}");
    let plain = "127.0.0.1:1";
    let image = |reference: &str| DOWN.replace("source.example", reference);
    let alias = format!("source.example={}", with(plain));
    let proxied = format!("source.example={}", with("proxied.invalid"));
    let rows: [(&str, String, Vec<&str>); 5] = [
        ("in an alias", DOWN.to_owned(), vec!["--host-alias", &alias]),
        (
            "in an alias of an unknown host",
            DOWN.to_owned(),
            vec!["--host-alias", &proxied],
        ),
        (
            "in a reference",
            image(&format!("alice:{SECRET}@{plain}")),
            vec![],
        ),
        (
            "in a base URL",
            UP.replace("target.example", &with(plain)),
            vec![],
        ),
        (
            "in a nonsense alias",
            DOWN.to_owned(),
            vec!["--host-alias", "x=http://a b"],
        ),
    ];
    for (name, spec, more) in rows {
        let place = Place::new();
        place.put("spec.yaml", spec);
        place.put("conf.txt", "x");
        place.put("http.yaml", HTTP);
        let mut run = vec![
            "transfer",
            "--transfer-spec",
            "spec.yaml",
            "--config",
            "http.yaml",
        ];
        run.extend(["--report", "report.json", "--loglevel", "trace"]);
        run.extend(more);
        let ran = place.run(&run).await;
        assert_ne!(ran.code, 0, "{name}");
        let report = std::fs::read_to_string(place.path("report.json")).unwrap_or_default();
        let said = [ran.stdout, ran.stderr, report].concat();
        assert!(!said.contains(SECRET), "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_unavailable() {
    let place = Place::new();
    place.put("spec.yaml", DOWN);
    place.put("http.yaml", HTTP);
    let run = [
        "transfer",
        "--transfer-spec",
        "spec.yaml",
        "--config",
        "http.yaml",
        "--host-alias",
        "source.example=http://127.0.0.1:1",
    ];
    let ran = place.run(&run).await;
    let wrong = blunders(
        &ran,
        7,
        &["step `get`", "source.example", "refused", "hint:"],
    );
    assert_eq!(complain("refused", &wrong, &ran), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_redirects() {
    let other = registry(&down("other", 0, &[], [])).await;
    let to = Fault::Redirect {
        to: format!("http://{}", other.host()),
    };
    let row = Row {
        auth: Auth::Basic {
            users: users(SECRET),
        },
        ..down("redirect", 0, &[], [blob().then(to)])
    };
    // The first, unauthorised question for a blob is answered by the rule, too; manifests have been authorised before.
    let registry = registry(&row).await;
    let place = place(&row, &registry);
    let arguments = arguments(&registry);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    place.run(&arguments).await.ok();
    let asked = other.log.entries();
    assert!(!asked.is_empty(), "the redirect was followed");
    assert!(
        asked
            .iter()
            .all(|entry| entry.header("authorization").is_none())
    );

    let to = Fault::Redirect {
        to: format!("http://{}", registry.host()),
    };
    registry.set([blob().then(to)]);
    std::fs::remove_dir_all(place.path("target")).unwrap();
    let ran = place.run(&arguments).await;
    let mut wrong = blunders(&ran, 3, &["source.example", "redirects more than"]);
    wrong.extend(visible(&place.path("target"), true));
    assert_eq!(complain("loop", &wrong, &ran), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_leave_nothing_half_written() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let row = down(
            "stall",
            code,
            &[],
            [blob().times(2..).then(Fault::Stall { after: 1000 })],
        );
        let registry = registry(&row).await;
        let place = place(&row, &registry);
        // Nothing but the signal may end it.
        let mut arguments = arguments(&registry);
        let config = arguments
            .iter()
            .position(|argument| argument == "config.yaml")
            .unwrap();
        arguments.drain(config - 1..=config);
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_ocm"))
            .args(&arguments)
            .current_dir(place.path(""))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while registry.log.count("GET", Kind::Blob) < 2 {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "it asks for blobs"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let id = child.id().unwrap().to_string();
        let sent = Instant::now();
        let killed = tokio::process::Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .await;
        assert!(killed.unwrap().success());
        let output = child.wait_with_output().await.unwrap();
        let took = sent.elapsed();
        let ran = crate::place::Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        let mut wrong = blunders(&ran, code, &["interrupted", "hint:"]);
        wrong.extend(visible(&place.path("target"), true));
        if took > Duration::from_secs(3) {
            wrong.push(format!("it took {took:?}"));
        }
        assert_eq!(complain(signal, &wrong, &ran), None);
        let report = std::fs::read_to_string(place.path("report.json")).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["status"], "cancelled");

        registry.set([]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        place.run(&arguments).await.ok();
        assert_eq!(visible(&place.path("target"), false), Vec::<String>::new());
        assert!(!visible(&place.path("target"), true).is_empty());
    }
}
