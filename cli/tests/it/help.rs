//! Every command's help shows how to use it, and what it shows works.

use std::process::Stdio;
use std::time::Duration;

use ocm_content::{Blob, Content};
use ocm_repository::Existing;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_testdata::components::{example, push};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::place::{Peer, Place};

/// The transfer spec that examples name.
const SPEC: &str = "\
transformations:
- id: download
  type: downloader.component.ctf/v1alpha1
  spec: {filePath: ./archive, name: acme.org/helloworld, version: 1.0.0}
- id: upload
  type: uploader.component.ctf/v1alpha1
  spec: {filePath: ./copy, componentDescriptor: '${download.output.descriptor}'}
";

/// The constructor that examples name.
const CONSTRUCTOR: &str = "\
components:
- name: acme.org/packed
  version: ${VERSION:-2.0.0}
  provider: {name: acme.org}
  resources:
  - name: config
    type: yaml
    input: {type: file, path: app.yaml}
";

/// Commands without commands of their own below them, by the words that name them.
async fn leaves(place: &Place) -> Vec<Vec<String>> {
    let mut open = vec![Vec::new()];
    let mut leaves = Vec::new();
    while let Some(words) = open.pop() {
        let below = commands(&help(place, &words).await);
        if below.is_empty() {
            leaves.push(words);
            continue;
        }
        open.extend(below.into_iter().map(|name| [&words[..], &[name]].concat()));
    }
    leaves.sort();
    leaves
}

async fn help(place: &Place, words: &[String]) -> String {
    let mut line: Vec<&str> = words.iter().map(String::as_str).collect();
    line.push("--help");
    place.run(&line).await.ok().stdout
}

/// The first word of each line in the list of commands.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The command lines below `Example:` or `Examples:`; one that ends in `\` goes on in the next line.
fn examples(help: &str) -> Vec<String> {
    let lines = help.lines();
    let list = lines
        .skip_while(|line| !line.starts_with("Example"))
        .skip(1);
    let text: Vec<&str> = list.take_while(|line| line.starts_with("  ")).collect();
    let joined = text.join("\n").replace("\\\n", " ");
    joined.lines().map(|line| line.trim().to_owned()).collect()
}

/// A folder with everything that examples name.
async fn prepared(peer: &Peer) -> Place {
    let place = Place::new()
        .alias("registry.example", peer)
        .alias("localhost:5001", peer);
    let session = place.session();
    let spec: RepositorySpec = "./archive".parse().unwrap();
    let archive = session.repository(&spec, true).await.unwrap();
    for version in ["1.0.0", "1.1.0"] {
        let text = format!("level: info\n# {version}\n");
        let blob = Content::Blob(Blob::from_bytes("application/yaml", text));
        let resource =
            json!({"name": "config", "version": version, "type": "yaml", "relation": "local"});
        let name = "acme.org/helloworld";
        let stored = archive
            .prepare_local_blob(name, ElementKind::Resource, &resource, &blob)
            .await
            .unwrap();
        let document = json!({"meta": {"schemaVersion": "v2"}, "component": {
            "name": name, "version": version, "provider": "acme.org", "repositoryContexts": [],
            "resources": [stored], "sources": [], "componentReferences": [],
        }});
        let descriptor = ComponentDescriptor::from_value(document).unwrap();
        let prepared = archive
            .prepare_version(&descriptor, Existing::default())
            .await
            .unwrap();
        prepared.publish().await.unwrap();
    }
    for (reference, artifact) in example().artifacts {
        let reference = reference.replace("source.example", "registry.example");
        push(&session, &reference, &artifact).await.unwrap();
    }
    place.put("transfer-spec.yaml", SPEC);
    place.put("component-constructor.yaml", CONSTRUCTOR);
    place.put("settings.yaml", "VERSION: 2.0.0\n");
    place.put("app.yaml", "level: info\n");
    #[cfg(feature = "wasm")]
    place.put(
        "basics.wasm",
        include_bytes!("../../../plugins-wasm/examples/prebuilt/basics.wasm"),
    );
    std::fs::create_dir(place.path(".docker")).unwrap();
    place.put(
        ".docker/config.json",
        r#"{"auths": {"ghcr.io": {"auth": "am86c2VjcmV0"}}}"#,
    );
    keys(&place);
    place
        .run(&[
            "sign",
            "cv",
            "--private-key",
            "key.pem",
            "./archive//acme.org/helloworld:1.1.0",
        ])
        .await
        .ok();
    place
}

/// A pair of keys, made by `openssl`.
pub(crate) fn keys(place: &Place) {
    for line in [
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
        "rsa -in key.pem -pubout -out key.pub",
    ] {
        let made = std::process::Command::new("openssl")
            .args(line.split(' '))
            .current_dir(place.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "openssl {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_in_help_texts_work() {
    if !ocm_testdata::peers::installed("openssl") {
        return;
    }
    let peer = Peer::embedded().await;
    let model = prepared(&peer).await;
    let mut count = 0;
    for words in leaves(&model).await {
        let help = help(&model, &words).await;
        let examples = examples(&help);
        assert!(
            !examples.is_empty(),
            "`ocm {}` has no example",
            words.join(" ")
        );
        for line in examples {
            run(&line, &model).await;
            count += 1;
        }
    }
    assert!(count > 15, "{count} examples");
}

/// Runs an example in a copy of the folder, so that none depends on another.
async fn run(line: &str, model: &Place) {
    let place = model.copy();
    let alias = format!("OCM_HOST_ALIAS={}", place.aliases().join(","));
    let mut command = tokio::process::Command::new("bash");
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_ocm"))
        .parent()
        .unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let (name, value) = alias.split_once('=').unwrap();
    command
        .args(["-euo", "pipefail", "-c", line])
        .current_dir(place.path(""))
        .env_clear()
        .env(name, value)
        .env("PATH", path)
        .env("TOKEN", "not-asked-for")
        .env("HOME", place.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if line.contains("serve") {
        return serves(command, line).await;
    }
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = output.await.unwrap().unwrap();
    let code = output.status.code();
    let expected = if line.starts_with("ocm diff") { 9 } else { 0 };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code, Some(expected), "{line}\n{text}");
}

/// A server says where it is, and goes on.
async fn serves(mut command: tokio::process::Command, line: &str) {
    let mut child = command.spawn().unwrap();
    let mut said = [0; 16];
    let mut stderr = child.stderr.take().unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), stderr.read_exact(&mut said));
    read.await.unwrap().unwrap();
    assert!(said.starts_with(b"serving on"), "{line}: {said:?}");
    assert!(child.try_wait().unwrap().is_none(), "{line}");
}
