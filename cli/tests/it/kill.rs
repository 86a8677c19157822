//! The program killed at named points: what it was writing is as it was or as it was to be, and the next run completes it.
//!
//! The points on the disk are those of `ocm_content::Disk`, which a debug build can be told to end at (`cli/src/faults.rs`);
//! those on the network are reached when a registry keeps silent, and then the process gets a SIGKILL.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ocm_content::{Blob, Content, Limits};
use ocm_registry::{Registry, RegistryConfig};
use ocm_repository::ctf::{Access, Ctf, CtfOptions};
use ocm_repository::{Existing, Session};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_specs::{Identity, RepositorySpec};
use ocm_testdata::faults::{Fault, FaultyRegistry, Kind, Rule};
use ocm_testdata::fixtures::noise;
use ocm_testdata::peers::skip;
use ocm_testdata::tell;
use serde_json::json;

use crate::place::{Peer, Place, tree};

/// Was there before.
const OLD: &str = "acme.org/old";
/// Comes with the run that is killed.
const NEW: &str = "acme.org/new";
const HOST: &str = "target.example";
/// Of a local blob: more than one write.
const SIZE: usize = 600_000;

/// What is written to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Directory,
    Tar,
    Tgz,
    /// The folder of an embedded registry.
    Data,
}

use Target::*;

const FOLDERS: &[Target] = &[Directory, Data];
const FILES: &[Target] = &[Tar, Tgz];
const ALL: &[Target] = &[Directory, Data, Tar, Tgz];

/// Points on the disk: a name, where there is such a point, and how a debug build is told; `TARGET` is the archive's name.
const ON_DISK: [(&str, &[Target], &str); 16] = [
    (
        "a blob has a file",
        ALL,
        "kill after create-file .staging 1",
    ),
    ("a blob is half written", ALL, "kill after write blob- 1"),
    ("a blob is written", ALL, "kill before rename blobs/ 1"),
    ("a blob has its name", ALL, "kill after rename blobs/ 1"),
    (
        "the second blob has its name",
        ALL,
        "kill after rename blobs/ 2",
    ),
    (
        "blobs are not durable",
        FOLDERS,
        "kill before sync blobs/ 1",
    ),
    (
        "blobs are durable",
        FOLDERS,
        "kill after sync-folder blobs 1",
    ),
    (
        "the index is locked",
        FOLDERS,
        "kill after create-file .lock 1",
    ),
    (
        "the index is half written",
        FOLDERS,
        "kill after write index- 1",
    ),
    (
        "the index is durable",
        FOLDERS,
        "kill before rename artifact-index.json 1",
    ),
    (
        "the index has its name",
        FOLDERS,
        "kill after rename artifact-index.json 1",
    ),
    (
        "the archive is half written",
        FILES,
        "kill after write archive- 1",
    ),
    (
        "the archive is written",
        FILES,
        "kill before sync archive- 1",
    ),
    (
        "the archive is durable",
        FILES,
        "kill before rename TARGET$ 1",
    ),
    (
        "the archive has its name",
        FILES,
        "kill after rename TARGET$ 1",
    ),
    (
        "the report is written",
        &[Directory],
        "kill before rename report.json 1",
    ),
];

impl Target {
    fn path(self) -> &'static str {
        match self {
            Directory => "out",
            Tar => "out.tar",
            Tgz => "out.tgz",
            Data => "data",
        }
    }

    /// The fields of a spec that name it.
    fn fields(self) -> String {
        match self {
            Data => format!("baseUrl: {HOST}, subPath: acme"),
            _ => format!("filePath: {}", self.path()),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Data => "oci",
            _ => "ctf",
        }
    }
}

fn spec(kind: &str, fields: &str) -> String {
    format!(
        r#"
type: transformations.ocm.config.software/v1alpha1
transformations:
- id: down
  type: downloader.component.ctf/v1alpha1
  spec: {{filePath: source, name: {NEW}, version: 1.0.0}}
- id: get
  type: downloader.localblob.ctf/v1alpha1
  spec: {{filePath: source, resource: {{name: blob}}, componentDescriptor: '${{down.output.descriptor}}'}}
- id: put
  type: uploader.localblob.{kind}/v1alpha1
  spec: {{{fields}, componentDescriptor: '${{down.output.descriptor}}', data: '${{get.output.data}}'}}
- id: up
  type: uploader.component.{kind}/v1alpha1
  spec: {{{fields}, componentDescriptor: '${{put.output.descriptor}}'}}
"#
    )
}

async fn publish(session: &Session, target: &RepositorySpec, name: &str) {
    let repository = session.repository(target, true).await.unwrap();
    let element = json!({"name": "blob", "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}});
    let content = Blob::from_bytes("application/octet-stream", noise(SIZE, name.len() as u64));
    let stored = repository
        .prepare_local_blob(name, ElementKind::Resource, &element, &content.into())
        .await
        .unwrap();
    let descriptor = json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": name, "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "resources": [stored], "sources": [], "componentReferences": []},
    });
    let descriptor = ComponentDescriptor::from_value(descriptor).unwrap();
    let prepared = repository.prepare_version(&descriptor, Existing::Fail);
    prepared.await.unwrap().publish().await.unwrap();
}

/// A registry over the folder `data`, and a place from where it can be reached.
async fn serving(place: &Place) -> (Peer, Arc<Session>) {
    let options = CtfOptions {
        access: Access::Create,
        limits: Limits::new(Default::default()),
    };
    let stores = Ctf::open(&place.path("data"), options).await.unwrap();
    let running = Registry::bind(RegistryConfig::new(stores), ([127, 0, 0, 1], 0).into());
    let peer = Peer::Embedded(running.await.unwrap());
    let session = Place::new().alias(HOST, &peer).session();
    (peer, session)
}

/// A source with [`NEW`], a target with [`OLD`], and the spec that brings the one to the other.
async fn prepared(target: Target) -> Place {
    let place = Place::new();
    let session = place.session();
    publish(&session, &RepositorySpec::ctf("source"), NEW).await;
    place.put("spec.yaml", spec(target.kind(), &target.fields()));
    if target == Data {
        let (_peer, session) = serving(&place).await;
        publish(&session, &RepositorySpec::oci(HOST, "acme"), OLD).await;
    } else {
        publish(&session, &RepositorySpec::ctf(target.path()), OLD).await;
        let written = session.finish(ocm_repository::RunEnd::Succeeded).await;
        assert!(written.iter().all(|archive| archive.error.is_none()));
    }
    place
}

fn command(place: &Place, more: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ocm"));
    command
        .args([
            "transfer",
            "--transfer-spec",
            "spec.yaml",
            "--report",
            "report.json",
        ])
        .args(more)
        .current_dir(place.path("."))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn arguments(target: Target) -> Vec<&'static str> {
    match target {
        Data => vec!["--serve", "target.example=data"],
        _ => Vec::new(),
    }
}

/// Is [`NEW`] there? What is there is there as a whole, and [`OLD`] always is.
async fn look(session: &Session, target: &RepositorySpec) -> bool {
    let repository = session.repository(target, false).await.unwrap();
    let mut found = Vec::new();
    for name in [OLD, NEW] {
        let versions = repository.versions(name).await.unwrap();
        if versions.is_empty() {
            continue;
        }
        let version = repository.get(name, "1.0.0").await.unwrap();
        let resource = version.descriptor.resource(&Identity::named("blob"));
        let Content::Blob(blob) = version.local_blob(&resource.unwrap()).unwrap() else {
            panic!("a blob");
        };
        assert!(blob.read(1 << 30).await.unwrap() == noise(SIZE, name.len() as u64));
        found.push(name);
    }
    assert_eq!(found[0], OLD);
    found.contains(&NEW)
}

async fn is_new(place: &Place, target: Target) -> bool {
    match target {
        Data => {
            let (_peer, session) = serving(place).await;
            look(&session, &RepositorySpec::oci(HOST, "acme")).await
        }
        _ => look(&place.session(), &RepositorySpec::ctf(target.path())).await,
    }
}

/// What others see of the target: its index, or the file.
fn visible(place: &Place, target: Target) -> Vec<u8> {
    let path = place.path(target.path());
    let path = match target {
        Directory | Data => path.join("artifact-index.json"),
        Tar | Tgz => path,
    };
    std::fs::read(path).unwrap()
}

/// All that belongs to the target, staging folders included.
fn whole(place: &Place, target: Target) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = place.files();
    let of = |path: &Path| path.to_string_lossy().starts_with(target.path());
    all.into_iter().filter(|(path, _)| of(path)).collect()
}

fn copied(from: &Place) -> Place {
    let place = Place::new();
    for (name, bytes) in tree(&from.path(".")) {
        let path = place.path(&name.to_string_lossy());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_point_on_the_disk() {
    if !cfg!(debug_assertions) {
        return skip("release builds have no points to be killed at");
    }
    let mut cells = 0;
    for target in ALL.iter().copied() {
        let before = prepared(target).await;
        let good = copied(&before);
        let done = command(&good, &arguments(target)).output().await.unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let (old, new) = (visible(&before, target), visible(&good, target));
        assert!(old != new && is_new(&good, target).await);
        for (name, _, point) in ON_DISK
            .iter()
            .filter(|(_, targets, _)| targets.contains(&target))
        {
            let what = format!("{name}, {target:?}");
            let place = copied(&before);
            let told = point.replace("TARGET", target.path());
            let killed = command(&place, &arguments(target))
                .env("OCM_TEST_DISK", told)
                .output()
                .await
                .unwrap();
            let stderr = String::from_utf8_lossy(&killed.stderr).into_owned();
            assert_eq!(killed.status.signal(), Some(9), "{what}: {stderr}");
            let seen = visible(&place, target);
            assert!(seen == old || seen == new, "{what}: neither old nor new");
            assert_eq!(is_new(&place, target).await, seen == new, "{what}");
            assert!(!place.path("report.json").exists(), "{what}");

            let again = command(&place, &arguments(target)).output().await.unwrap();
            let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
            assert!(again.status.success(), "{what}: {stderr}");
            assert!(is_new(&place, target).await, "{what}");
            if seen == new {
                // There was nothing to write, and so nobody has tidied.
                let gc = ["ctf", "gc", target.path(), "--grace", "0"];
                place.run(&gc).await.ok();
            }
            let (found, good) = (whole(&place, target), whole(&good, target));
            let names: Vec<&PathBuf> = found.keys().collect();
            assert_eq!(names, good.keys().collect::<Vec<_>>(), "{what}");
            assert!(found == good, "{what}");
            cells += 1;
        }
    }
    tell(&format!(
        "killed at {} points on the disk: {cells} cells",
        ON_DISK.len()
    ));
}

/// Points on the network: a name, which request is not answered, whether it is done all the same, and whether that makes
/// the component version visible.
fn on_network() -> [(&'static str, Rule, bool); 4] {
    [
        (
            "an upload is asked for",
            Rule::on(Kind::UploadStart).then(Fault::Silence),
            false,
        ),
        (
            "a blob is half sent",
            Rule::on(Kind::Upload)
                .method("PUT")
                .then(Fault::StallRequest {
                    after: SIZE as u64 / 2,
                }),
            false,
        ),
        (
            "the manifest is sent",
            Rule::on(Kind::Manifest).method("PUT").then(Fault::Silence),
            false,
        ),
        (
            "the manifest is there, and its answer is lost",
            Rule::on(Kind::Manifest)
                .method("PUT")
                .then(Fault::WithholdResponse),
            true,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_point_on_the_network() {
    let points = on_network();
    let count = points.len();
    for (name, rule, expected) in points {
        let registry = FaultyRegistry::start([]).await.unwrap();
        let place = Place::new();
        publish(&place.session(), &RepositorySpec::ctf("source"), NEW).await;
        let host = format!("http://{}", registry.host());
        place.put(
            "spec.yaml",
            spec("oci", &format!("baseUrl: '{host}', subPath: acme")),
        );
        let target = RepositorySpec::oci(&host, "acme");
        publish(&place.session(), &target, OLD).await;

        registry.log.clear();
        registry.set([rule]);
        let mut child = command(&place, &[]).spawn().unwrap();
        let reached = async {
            while !registry.log.entries().iter().any(|entry| entry.faulty) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // What is done without an answer is done by now, or in a moment.
            while expected && !look(&place.session(), &target).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .unwrap_or_else(|_| panic!("{name}: not reached"));
        child.kill().await.unwrap();
        registry.set([]);
        assert_eq!(look(&place.session(), &target).await, expected, "{name}");

        let again = command(&place, &[]).output().await.unwrap();
        let stderr = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success(), "{name}: {stderr}");
        assert!(look(&place.session(), &target).await, "{name}");
    }
    tell(&format!("killed at {count} points on the network"));
}

/// What the program says of its disk, and how it ends then.
#[tokio::test(flavor = "multi_thread")]
async fn disks_that_say_no_end_the_program_with_their_code() {
    if !cfg!(debug_assertions) {
        return skip("release builds have no points to fail at");
    }
    let before = prepared(Directory).await;
    for (told, code, words) in [
        (
            "28 before write blob- 1",
            1,
            &["No space left", "free some space"][..],
        ),
        ("5 before sync blobs/ 1", 1, &["Input/output error"]),
        (
            "30 before create-file .staging 1",
            6,
            &["Read-only file system", "can only be read"],
        ),
        (
            "28 before write .tmp$ 1",
            1,
            &["report.json", "No space left", "free some space"],
        ),
    ] {
        let place = copied(&before);
        let failed = command(&place, &[])
            .env("OCM_TEST_DISK", told)
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert_eq!(failed.status.code(), Some(code), "{told}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{told}: {stderr}");
        }
        command(&place, &[]).output().await.unwrap();
        assert!(is_new(&place, Directory).await, "{told}");
    }
}
