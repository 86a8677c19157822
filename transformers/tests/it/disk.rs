//! A disk that fails: whichever write, sync or rename of a run it is, the target is as before or complete, and the next run
//! completes it.
//!
//! The graph has twelve steps: three component versions, each read, its local blob moved, and written. Every change that the
//! run makes on the disk passes a gate; the n-th is refused, for every n, as a full, a broken and a closed disk refuse it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use ocm_content::disk::{Act, Gate};
use ocm_content::{Blob, Content, Disk, ErrorKind, MemoryStores};
use ocm_engine::{Context, Graph, Plan, Status, StepTypes};
use ocm_repository::ctf::{Access, Ctf, CtfOptions};
use ocm_repository::{Existing, RunEnd, Session, SessionConfig};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{LoadOptions, Source, load};
use ocm_specs::{Identity, RepositorySpec};
use ocm_testdata::fixtures::noise;
use ocm_testdata::tell;
use ocm_transformers::lower::lower;
use ocm_transformers::step_types;
use serde_json::json;

/// Component versions that move, with the size of the local blob: within one write, and of several.
const MOVED: [(&str, usize); 3] = [
    ("acme.org/a", 1_000),
    ("acme.org/b", 20_000),
    ("acme.org/c", 300_000),
];
/// What is in the target before.
const OLD: &str = "acme.org/old";
const RESOURCE: &str = "blob";

/// Refuses the n-th change, and all later ones if it `stays`.
#[derive(Debug)]
struct Nth {
    n: u64,
    error: i32,
    stays: bool,
    seen: AtomicU64,
}

impl Nth {
    fn new(n: u64, error: i32, stays: bool) -> Arc<Self> {
        Arc::new(Self {
            n,
            error,
            stays,
            seen: AtomicU64::new(0),
        })
    }
}

impl Gate for Nth {
    fn before(&self, _: Act, _: &Path) -> io::Result<()> {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        match seen == self.n || (self.stays && seen > self.n) {
            true => Err(io::Error::from_raw_os_error(self.error)),
            false => Ok(()),
        }
    }
}

/// What a disk says, whether it goes on saying so, and what is told about it.
struct Says {
    name: &'static str,
    number: i32,
    stays: bool,
    kind: ErrorKind,
    message: &'static str,
    hint: Option<&'static str>,
}

const FAULTS: [Says; 3] = [
    Says {
        name: "ENOSPC",
        number: 28,
        stays: true,
        kind: ErrorKind::Io,
        message: "No space left on device",
        hint: Some("free some space"),
    },
    Says {
        name: "EIO",
        number: 5,
        stays: false,
        kind: ErrorKind::Io,
        message: "Input/output error",
        hint: None,
    },
    Says {
        name: "EROFS",
        number: 30,
        stays: true,
        kind: ErrorKind::Denied,
        message: "Read-only file system",
        hint: Some("can only be read"),
    },
];

/// The content of that size, made once.
fn bytes(size: usize) -> Bytes {
    static ALL: LazyLock<Bytes> = LazyLock::new(|| noise(300_000, 1));
    ALL.slice(..size)
}

fn session(folder: &Path, source: &MemoryStores, disk: Disk) -> Arc<Session> {
    let mut config = SessionConfig::new(folder);
    let temp = folder.join("temp");
    config.limits.temp_folder = Some(temp);
    config.limits.disk = disk;
    let session = Session::new(config).unwrap();
    session.register("memory", Arc::new(source.clone()));
    session
}

async fn publish(session: &Session, place: &str, name: &str, size: usize) {
    let target = RepositorySpec::ctf(place);
    let repository = session.repository(&target, true).await.unwrap();
    let element = json!({"name": RESOURCE, "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}});
    let content = Blob::from_bytes("application/octet-stream", bytes(size));
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

static TYPES: LazyLock<StepTypes> = LazyLock::new(step_types);

/// Four steps for each component version.
fn spec(from: &str, to: &str) -> TransferSpec {
    let mut text =
        "type: transformations.ocm.config.software/v1alpha1\ntransformations:\n".to_owned();
    for (name, _) in MOVED {
        let id = name.rsplit('/').next().unwrap();
        text += &format!(
            "
- id: down{id}
  type: downloader.component.ctf/v1alpha1
  spec: {{filePath: {from}, name: {name}, version: 1.0.0}}
- id: get{id}
  type: downloader.localblob.ctf/v1alpha1
  spec:
    filePath: {from}
    resource: {{name: {RESOURCE}}}
    componentDescriptor: ${{down{id}.output.descriptor}}
- id: put{id}
  type: uploader.localblob.ctf/v1alpha1
  spec:
    filePath: {to}
    componentDescriptor: ${{down{id}.output.descriptor}}
    data: ${{get{id}.output.data}}
- id: up{id}
  type: uploader.component.ctf/v1alpha1
  spec:
    filePath: {to}
    componentDescriptor: ${{put{id}.output.descriptor}}
"
        );
    }
    let source = Source::new("spec.yaml", text);
    let document = load(&source, &LoadOptions::default()).unwrap();
    let (spec, _) = TransferSpec::read(&source, &document).unwrap();
    lower(spec, &TYPES).unwrap().0
}

/// How a run went: what failed, by kind, message and hint.
async fn transfer(
    session: &Arc<Session>,
    spec: &TransferSpec,
) -> Result<(), (ErrorKind, String, String)> {
    let plan = Plan::new(Graph::link(spec.clone()).unwrap(), &TYPES).unwrap();
    let context = Context::new(session.limits().clone(), session.clone());
    let result = plan.run(context, Box::new(|_| {})).await;
    let told = |error: &ocm_content::Error| {
        let hint = error.hint().unwrap_or_default();
        (error.kind(), error.to_string(), hint.to_owned())
    };
    let how = match result.status {
        Status::Succeeded => RunEnd::Succeeded,
        _ => RunEnd::Failed,
    };
    let archives = session.finish(how).await;
    if let Some((_, error)) = result.failures.first() {
        return Err(told(&error.error));
    }
    assert_eq!(result.status, Status::Succeeded);
    match archives.into_iter().find_map(|archive| archive.error) {
        Some(error) => Err(told(&error)),
        None => Ok(()),
    }
}

/// Which of the component versions are in the archive; each of them must be there as a whole.
async fn complete(folder: &Path, place: &str) -> Vec<&'static str> {
    let session = session(folder, &MemoryStores::new(), Disk::default());
    let spec = RepositorySpec::ctf(place);
    let repository = session.repository(&spec, false).await.unwrap();
    let mut found = Vec::new();
    for (name, size) in [(OLD, 10)].into_iter().chain(MOVED) {
        let versions = repository.versions(name).await.unwrap();
        if versions.is_empty() {
            continue;
        }
        let version = repository.get(name, "1.0.0").await.unwrap();
        let resource = version
            .descriptor
            .resource(&Identity::named(RESOURCE))
            .unwrap();
        let Content::Blob(blob) = version.local_blob(&resource).unwrap() else {
            panic!("a blob");
        };
        assert!(blob.read(1 << 30).await.unwrap() == bytes(size));
        found.push(name);
    }
    found
}

/// All files below a folder, with their content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

struct Case {
    source: &'static str,
    target: &'static str,
    stores: MemoryStores,
    spec: TransferSpec,
    faults: &'static [Says],
}

impl Case {
    /// A folder with the source, where that is a file, and a target with something in it.
    async fn folder(&self) -> tempfile::TempDir {
        let folder = scratch();
        std::fs::create_dir(folder.path().join("temp")).unwrap();
        let session = session(folder.path(), &self.stores, Disk::default());
        if self.source != "memory" {
            for (name, size) in MOVED {
                publish(&session, self.source, name, size).await;
            }
        }
        publish(&session, self.target, OLD, 10).await;
        for archive in session.finish(RunEnd::Succeeded).await {
            assert!(archive.error.is_none());
        }
        folder
    }
}

/// One cell: the n-th change is refused. `false` when there is no n-th.
async fn cell(
    case: &Case,
    template: &Path,
    n: u64,
    says: &Says,
    good: &BTreeMap<PathBuf, Vec<u8>>,
) -> bool {
    let folder = scratch();
    copy(template, folder.path());
    let what = format!("{} to {}, {} at {n}", case.source, case.target, says.name);
    let gate = Nth::new(n, says.number, says.stays);
    let session = session(folder.path(), &case.stores, Disk::behind(gate.clone()));
    let done = transfer(&session, &case.spec).await;
    drop(session);
    if gate.seen.load(Ordering::Relaxed) < n {
        assert_eq!(done, Ok(()), "{what}");
        return false;
    }
    let found = complete(folder.path(), case.target).await;
    assert_eq!(found[0], OLD, "{what}: what was there is there");
    match done {
        // Tidying may fail without harm.
        Ok(()) => assert_eq!(found.len(), 1 + MOVED.len(), "{what}"),
        Err((kind, message, hint)) => {
            assert_eq!(kind, says.kind, "{what}: {message}");
            assert!(message.contains(says.message), "{what}: {message}");
            let shown = folder.path().to_string_lossy().into_owned();
            assert!(message.contains(&shown), "{what}: {message}");
            assert!(
                hint.contains(says.hint.unwrap_or_default()),
                "{what}: {hint}"
            );
        }
    }
    let session = super::disk::session(folder.path(), &case.stores, Disk::default());
    assert_eq!(
        transfer(&session, &case.spec).await,
        Ok(()),
        "{what}, again"
    );
    drop(session);
    if found.len() == 1 + MOVED.len() {
        // All was there but the word that it is durable: what was staged for it is garbage, and is found to be.
        collect_garbage(folder.path(), case.target).await;
    }
    let after = tree(folder.path());
    let names = |tree: &BTreeMap<PathBuf, Vec<u8>>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(good), "{what}");
    assert!(after == *good, "{what}");
    true
}

async fn collect_garbage(folder: &Path, place: &str) {
    let session = session(folder, &MemoryStores::new(), Disk::default());
    let options = CtfOptions {
        access: Access::ReadWrite,
        limits: session.limits().clone(),
    };
    let archive = Ctf::open(&folder.join(place), options).await.unwrap();
    archive.collect_garbage(Duration::ZERO).await.unwrap();
}

/// A folder of its own, in memory where the system has that: hundreds of runs sync it dozens of times.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn whichever_change_a_disk_refuses_the_target_is_old_or_complete() {
    let stores = MemoryStores::new();
    let seed = session(Path::new("/"), &stores, Disk::default());
    for (name, size) in MOVED {
        publish(&seed, "memory", name, size).await;
    }
    let mut total = 0;
    // What compresses and what unpacks differs in how bytes are made, not in how they are written.
    for (source, target, faults) in [
        ("memory", "directory", &FAULTS[..]),
        ("memory", "archive.tar", &FAULTS[..]),
        ("memory", "archive.tgz", &FAULTS[..1]),
        ("source.tgz", "directory", &FAULTS[..1]),
    ] {
        let case = Case {
            source,
            target,
            stores: stores.clone(),
            spec: spec(source, target),
            faults,
        };
        let template = case.folder().await;
        let fine = scratch();
        copy(template.path(), fine.path());
        let session = session(fine.path(), &stores, Disk::default());
        transfer(&session, &case.spec).await.unwrap();
        drop(session);
        let good = tree(fine.path());
        assert_eq!(complete(fine.path(), target).await.len(), 1 + MOVED.len());
        let mut cells = 0;
        for says in case.faults {
            let mut n = 1;
            while cell(&case, template.path(), n, says, &good).await {
                n += 1;
            }
            cells += n - 1;
        }
        tell(&format!("disk faults, {source} to {target}: {cells} cells"));
        assert!(
            cells as usize > faults.len() * 50,
            "the gate sees what happens"
        );
        total += cells;
    }
    tell(&format!("disk faults: {total} cells"));
}
