//! The forms of storage among each other: every one converts into every other and nothing is lost on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocm_content::conformance::{Capabilities, check_stores};
use ocm_content::limits::LimitsConfig;
use ocm_content::{
    Artifact, Blob, Content, ContentStore, ErrorKind, Limits, MemoryStores, Meter, RawManifest,
    Stores,
};
use ocm_repository::ctf::{Access, Ctf, CtfOptions, Form, Pending};
use ocm_repository::{Existing, Repository, RunEnd, Session, SessionConfig, component_index};
use ocm_specs::descriptor::{ComponentDescriptor, Element, ElementKind, Encoding};
use ocm_specs::media_type::OCI_EMPTY;
use ocm_specs::oci::{Annotations, Descriptor, Manifest};
use ocm_specs::{Digest, RepositorySpec};
use ocm_testdata::fixtures;
use ocm_testdata::registry::{Registry, RegistryConfig, Running};
use serde_json::json;
use tempfile::TempDir;

use crate::ctf::{blob, files, open, put_image, vectors};

const COMPONENT: &str = "acme.org/forms";
const VERSION: &str = "1.0.0";
const BASE: &str = "acme.org/base";
const SET: &str = "application/vnd.oci.image.manifest.v1+tar+gzip";

/// A place of one of the four kinds.
pub(crate) struct Place {
    pub(crate) spec: RepositorySpec,
    pub(crate) path: Option<PathBuf>,
    _registry: Option<Running>,
}

pub(crate) const KINDS: [&str; 4] = ["registry", "directory", "tar", "tgz"];

pub(crate) async fn place(kind: &str, path: PathBuf) -> Place {
    if kind != "registry" {
        let path = path.with_extension(if kind == "directory" { "ctf" } else { kind });
        return Place {
            spec: RepositorySpec::ctf(path.display().to_string()),
            path: Some(path),
            _registry: None,
        };
    }
    let config = RegistryConfig::new(Arc::new(MemoryStores::new()));
    let running = Registry::bind(config, ([127, 0, 0, 1], 0).into())
        .await
        .expect("a registry");
    Place {
        spec: RepositorySpec::oci(format!("http://{}", running.addr), ""),
        path: None,
        _registry: Some(running),
    }
}

impl Place {
    /// What is at a path already.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            spec: RepositorySpec::ctf(path.display().to_string()),
            path: None,
            _registry: None,
        }
    }

    /// All bytes of an archive; of a registry nothing.
    fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        match &self.path {
            None => Vec::new(),
            Some(path) if path.is_dir() => files(path).into_iter().collect(),
            Some(path) => vec![("file".to_owned(), std::fs::read(path).expect("there"))],
        }
    }
}

pub(crate) fn new_session() -> Arc<Session> {
    session_with(false)
}

/// A session that lets component versions refer to the component index, or leaves them as they are.
pub(crate) fn session_with(component_index: bool) -> Arc<Session> {
    let mut config = SessionConfig::new("/");
    config.limits.temp_folder = Some(std::env::temp_dir());
    config.component_index = component_index;
    Session::new(config).expect("a session")
}

pub(crate) async fn finish(session: &Session) {
    for archive in session.finish(RunEnd::Succeeded).await {
        assert!(archive.error.is_none(), "{archive:?}");
    }
}

pub(crate) async fn publish(repository: &Repository, descriptor: &ComponentDescriptor) {
    let prepared = repository
        .prepare_version(descriptor, Existing::Fail)
        .await
        .expect("prepared");
    prepared.publish().await.expect("published");
}

/// Says to which component version an artifact belongs (formats.md 3.7).
fn ownership(subject: &Descriptor) -> Manifest {
    let mut empty = Descriptor::of(OCI_EMPTY, b"{}");
    empty.data = Some("e30=".to_owned());
    let mut manifest = Manifest::image(empty.clone(), vec![empty]);
    manifest.artifact_type = Some("application/vnd.ocm.software.ownership.v1+json".to_owned());
    manifest.subject = Some(subject.clone());
    let notes = [
        (
            "software.ocm.artifact",
            r#"{"identity":{"name":"image","version":"1"},"kind":"resource"}"#,
        ),
        ("software.ocm.component.name", COMPONENT),
        ("software.ocm.component.version", VERSION),
    ];
    let notes = notes.map(|(key, text)| (key.to_owned(), text.to_owned()));
    manifest.annotations = Some(Annotations::from(notes));
    manifest
}

/// Two component versions, one of which references the other, both listed by the component index: with a text, an image by
/// value with referrers, a chart in an artifact set, two resources that share a blob, a source; one in the schema of old.
async fn make(place: &Place) {
    let session = session_with(true);
    let repository = session.repository(&place.spec, true).await.expect("opens");
    let memory = MemoryStores::new().store("images/app").expect("a name");
    let image = fixtures::image_index()
        .push(&memory, Some("1.0"))
        .await
        .expect("an image");
    fixtures::referrer(&image.root, "application/spdx+json", "{\"sbom\":1}")
        .push(&memory, None)
        .await
        .expect("a referrer");
    let owned = RawManifest::write(&ownership(&image.root));
    let empty = Blob::from_bytes(OCI_EMPTY, "{}");
    memory.push(&empty, &[]).await.expect("pushed");
    memory.put_manifest(&owned, None).await.expect("put");
    let contents: [(&str, Content); 4] = [
        ("text", fixtures::local_blob().into()),
        ("same-text", fixtures::local_blob().into()),
        ("image", Artifact::Stored(image).into()),
        (
            "chart",
            Blob::from_bytes(SET, fixtures::chart_archive()).into(),
        ),
    ];
    let mut resources = Vec::new();
    for (name, content) in contents {
        let element = json!({"name": name, "version": "1", "type": "blob", "relation": "local",
            "access": {"type": "none"}});
        let stored = repository
            .prepare_local_blob(COMPONENT, ElementKind::Resource, &element, &content)
            .await
            .expect("stored");
        resources.push(stored);
    }
    let element =
        json!({"name": "code", "version": "1", "type": "git", "access": {"type": "none"}});
    let content = Blob::from_bytes("application/x-tgz", "source code").into();
    let source = repository
        .prepare_local_blob(COMPONENT, ElementKind::Source, &element, &content)
        .await
        .expect("stored");
    let descriptor = ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": VERSION, "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": [source],
            "componentReferences": [{"name": "base", "componentName": BASE, "version": "0.1.0+1"}]},
    }))
    .expect("a descriptor");
    publish(&repository, &base(&repository).await).await;
    publish(&repository, &descriptor).await;
    finish(&session).await;
}

/// A component version in the schema v3alpha1, stored as YAML.
async fn base(repository: &Repository) -> ComponentDescriptor {
    let element = json!({"name": "data", "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}});
    let content = Blob::from_bytes("application/octet-stream", "base").into();
    let stored = repository
        .prepare_local_blob(BASE, ElementKind::Resource, &element, &content)
        .await
        .expect("stored");
    let descriptor = ComponentDescriptor::from_value(json!({
        "apiVersion": "ocm.software/v3alpha1", "kind": "ComponentVersion",
        "metadata": {"name": BASE, "version": "0.1.0+1", "provider": {"name": "acme"}},
        "repositoryContexts": [], "spec": {"resources": [stored]},
    }))
    .expect("a descriptor");
    let encoded = descriptor.encode(Encoding::YamlTar);
    ComponentDescriptor::decode(&encoded.media_type, encoded.bytes).expect("decodes")
}

/// Copies every component version, as a transfer does.
pub(crate) async fn convert(from: &Place, to: &Place) {
    let session = new_session();
    let source = session.repository(&from.spec, false).await.expect("opens");
    let target = session.repository(&to.spec, true).await.expect("opens");
    for (component, version) in versions(&source).await {
        let found = source.get(&component, &version).await.expect("there");
        let mut descriptor = found.descriptor.clone();
        for element in local_elements(&found.descriptor) {
            let content = found.local_blob(&element).expect("local");
            let (kind, value) = (element.kind(), element.value());
            let stored = target.prepare_local_blob(&component, kind, value, &content);
            let stored = stored.await.expect("stored");
            descriptor
                .set(kind, &element.identity(), stored)
                .expect("it has it");
        }
        publish(&target, &descriptor).await;
    }
    finish(&session).await;
}

pub(crate) async fn versions(repository: &Repository) -> Vec<(String, String)> {
    // A registry need not list its repositories; the embedded one does.
    let mut found = Vec::new();
    for component in repository.components().await.expect("listed") {
        for version in repository.all_versions(&component).await.expect("listed") {
            found.push((component.clone(), version));
        }
    }
    assert!(!found.is_empty());
    found
}

/// Resources and sources that are stored beside the descriptor.
fn local_elements(descriptor: &ComponentDescriptor) -> Vec<Element<'_>> {
    let elements = descriptor.resources().chain(descriptor.sources());
    let is_local = |element: &Element<'_>| {
        element
            .access()
            .is_ok_and(|access| access.local_blob().is_some())
    };
    elements.filter(is_local).collect()
}

/// What has to survive: descriptors to the byte, and all content by digest with its referrers; each blob read in full.
pub(crate) async fn essence(place: &Place) -> Vec<String> {
    let session = new_session();
    let repository = session.repository(&place.spec, false).await.expect("opens");
    let mut lines = Vec::new();
    for (component, version) in versions(&repository).await {
        let found = repository.get(&component, &version).await.expect("there");
        let original = found.descriptor.original().expect("it was read");
        lines.push(format!(
            "{component} {version} {}",
            Digest::sha256(&original.bytes)
        ));
        let root = found.root.parse().expect("a manifest");
        if let Some(subject) = root.subject {
            let store = repository.store(&component).expect("a name");
            let listed = store.referrers(&subject.digest).await.expect("listed");
            let listed = listed.iter().any(|link| link.digest == found.root.digest);
            lines.push(format!("refers to {} {listed}", subject.digest));
        }
        for element in local_elements(&found.descriptor) {
            let name = element.name();
            match found.local_blob(&element).expect("local") {
                Content::Blob(blob) => {
                    let bytes = blob.read(1 << 20).await.expect("verifies");
                    lines.push(format!("{name} blob {}", Digest::sha256(&bytes)));
                }
                Content::Artifact(Artifact::Stored(stored)) => {
                    artifact(&stored.store, &stored.root.digest, name, &mut lines).await;
                }
                Content::Artifact(other) => panic!("{other:?} came out of a repository"),
            }
        }
    }
    lines
}

async fn artifact(
    store: &Arc<dyn ContentStore>,
    root: &Digest,
    name: &str,
    lines: &mut Vec<String>,
) {
    let mut next = vec![root.clone()];
    while let Some(digest) = next.pop() {
        let manifest = store.manifest(&digest.to_string()).await.expect("there");
        lines.push(format!("{name} manifest {}", manifest.digest));
        let manifest = manifest.parse().expect("a manifest");
        for link in manifest.blobs() {
            let bytes = store.fetch(link).read(1 << 20).await.expect("verifies");
            lines.push(format!("{name} part {} {}", link.digest, bytes.len()));
        }
        next.extend(manifest.children().map(|child| child.digest.clone()));
        for referrer in store.referrers(&digest).await.expect("listed") {
            lines.push(format!("{name} referrer {}", referrer.digest));
            next.push(referrer.digest);
        }
    }
}

#[tokio::test]
async fn every_form_converts_into_every_other_and_back() {
    for from in KINDS {
        let temp = TempDir::new().expect("temp");
        let source = place(from, temp.path().join("source")).await;
        make(&source).await;
        let expected = essence(&source).await;
        let count = |text: &str| expected.iter().filter(|line| line.contains(text)).count();
        assert_eq!(
            (count("referrer"), count("refers to"), count("blob")),
            (2, 2, 5)
        );
        assert_eq!(
            count(&format!("refers to {} true", component_index().digest)),
            2
        );
        let bytes = source.bytes();
        for to in KINDS {
            let target = place(to, temp.path().join(format!("to-{to}"))).await;
            convert(&source, &target).await;
            assert_eq!(essence(&target).await, expected, "{from} to {to}");
            let back = place(from, temp.path().join(format!("back-{to}"))).await;
            convert(&target, &back).await;
            assert_eq!(essence(&back).await, expected, "{from} to {to} and back");
            assert!(back.bytes() == bytes, "{from} to {to} and back: the bytes");
            for place in [&target, &back] {
                let left = place.path.as_ref().map(|path| staging(path));
                assert!(left.is_none_or(|left| !left.exists()), "{from} to {to}");
            }
        }
    }
}

#[tokio::test]
async fn what_other_tools_wrote_converts_into_every_form() {
    let Some(root) = vectors("ctf") else {
        return;
    };
    for name in [
        "v1-utf8-resource/transport-archive",
        "v1-utf8-resource/transport-archive.tar",
        "v1-utf8-resource/transport-archive.tar.gz",
        "v1-helm-chart/with-resource",
        "v1-helm-chart/without-resource",
        "../transform/go-graphs/src",
    ] {
        let temp = TempDir::new().expect("temp");
        let source = Place::at(&root.join(name));
        let session = new_session();
        let repository = session
            .repository(&source.spec, false)
            .await
            .expect("opens");
        let (component, version) = versions(&repository).await.remove(0);
        let found = repository.get(&component, &version).await.expect("there");
        let is_local = found
            .descriptor
            .resources()
            .all(|resource| found.local_blob(&resource).is_ok());
        if !is_local {
            // Its content is elsewhere: nothing to carry.
            continue;
        }
        let expected = essence(&source).await;
        for to in KINDS {
            let target = place(to, temp.path().join("target")).await;
            convert(&source, &target).await;
            assert_eq!(essence(&target).await, expected, "{name} to {to}");
        }
    }
}

fn staging(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.staging", path.display()))
}

#[tokio::test]
async fn archive_files_keep_the_contract_of_stores() {
    for (name, form) in [("a.tar", Form::Tar), ("a.tgz", Form::Tgz)] {
        let able = Capabilities {
            mount: false,
            isolated: false,
            ..Capabilities::all()
        };
        let temp = TempDir::new().expect("temp");
        let path = temp.path().join(name);
        let ctf = open(&path, Access::Create).await;
        assert_eq!(ctf.form(), form);
        check_stores(ctf.clone(), able).await;
        assert!(!path.exists());
        // And once more over an archive that is there.
        let before = ctf.index().await.expect("read").to_bytes();
        assert!(ctf.flush().await.expect("written"));
        let again = open(&path, Access::ReadOnly).await;
        assert_eq!(again.index().await.expect("read").to_bytes(), before);
    }
}

#[tokio::test]
async fn a_tar_has_the_layout_of_the_reference_to_the_byte() {
    let Some(root) = vectors("ctf/v1-utf8-resource") else {
        return;
    };
    let temp = TempDir::new().expect("temp");
    for name in ["transport-archive.tar", "transport-archive.tar.gz"] {
        let path = temp.path().join(name);
        let before = std::fs::read(root.join(name)).expect("there");
        std::fs::write(&path, &before).expect("copied");
        let ctf = open(&path, Access::ReadWrite).await;
        let repository = ctf.repositories().await.expect("listed").remove(0);
        let store = ctf.store(&repository).expect("a repository");
        let manifest = store.manifest("1.0.0").await.expect("there");
        store
            .put_manifest(&manifest, Some("again"))
            .await
            .expect("put");
        store.untag("again").await.expect("untagged");
        assert_eq!(ctf.pending(), Pending::Named);
        assert!(ctf.flush().await.expect("written"));
        let after = std::fs::read(&path).expect("there");
        if name.ends_with("gz") {
            let plain = |bytes: &[u8]| {
                let mut out = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out)
                    .expect("gzip");
                out
            };
            assert!(plain(&after) == plain(&before), "{name}");
        } else {
            assert!(after == before, "{name}");
        }
    }
}

#[tokio::test]
async fn an_archive_file_becomes_visible_as_a_whole_at_the_end() {
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("deep/down/a.tar");
    let limits = Limits::new(LimitsConfig::default());
    let options = CtfOptions {
        access: Access::Create,
        limits: limits.clone(),
    };
    let ctf = Ctf::open(&path, options).await.expect("opens");
    assert!(!temp.path().join("deep").exists());
    let store = ctf.store("acme/x").expect("a repository");
    let meter = Meter::new();
    let image = meter
        .clone()
        .scope(put_image(&*store, &["one", "two"], Some("1")))
        .await;
    // The run sees what it put; it is counted; nobody else sees it.
    assert_eq!(store.manifest("1").await.expect("there"), image);
    let staged = 2 + 3 + 3 + image.bytes.len() as u64;
    assert_eq!(meter.snapshot().bytes_spooled, staged);
    assert_eq!(limits.spool().used(), staged);
    assert!(!path.exists());
    assert!(ctf.flush().await.expect("written"));
    assert!(!ctf.flush().await.expect("nothing to do"));
    assert_eq!(limits.spool().used(), 0);
    assert!(!staging(&path).exists());
    assert_eq!(store.manifest("1").await.expect("there"), image);
    let first = std::fs::read(&path).expect("there");

    // The same again changes nothing, and a change keeps what was there.
    put_image(&*store, &["one", "two"], Some("1")).await;
    assert!(!ctf.flush().await.expect("nothing to do"));
    assert!(!staging(&path).exists());
    put_image(&*store, &["three"], Some("2")).await;
    assert!(ctf.flush().await.expect("written"));
    assert_eq!(store.manifest("1").await.expect("there"), image);
    assert_eq!(store.tags().await.expect("listed"), ["1", "2"]);

    // Taking it away again gives the first file, once the garbage is gone.
    let second = store.resolve("2").await.expect("there");
    store.delete(&second).await.expect("deleted");
    assert!(ctf.flush().await.expect("written"));
    let hour = Duration::from_secs(3600);
    assert_eq!(ctf.collect_garbage(hour).await.expect("swept").files, 0);
    let found = ctf.find_garbage(Duration::ZERO).await.expect("looked");
    let swept = ctf.collect_garbage(Duration::ZERO).await.expect("swept");
    assert_eq!(found, swept);
    assert_eq!((swept.files, swept.bytes), (1, 5));
    assert!(std::fs::read(&path).expect("there") == first);
    assert!(!staging(&path).exists());
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    for name in ["a.tar", "a.tgz"] {
        let temp = TempDir::new().expect("temp");
        let path = temp.path().join(name);
        let mut writers = Vec::new();
        for number in 0..4 {
            let ctf = open(&path, Access::Create).await;
            let store = ctf.store("acme/x").expect("a repository");
            let own = number.to_string();
            let subject = put_image(&*store, &["shared"], Some("shared")).await;
            let layers = ["shared", own.as_str()];
            put_image(&*store, &layers, Some(&own)).await;
            let referrer = fixtures::referrer(&subject.descriptor(), "x/sbom", &own);
            referrer.push(&store, None).await.expect("pushed");
            writers.push(ctf);
        }
        let flushed = writers.iter().map(|ctf| ctf.flush());
        for result in futures::future::join_all(flushed).await {
            assert!(result.expect("written"));
        }
        let store = open(&path, Access::ReadOnly)
            .await
            .store("acme/x")
            .expect("a repository");
        let tags = store.tags().await.expect("listed");
        assert_eq!(tags, ["0", "1", "2", "3", "shared"], "{name}");
        let subject = store.resolve("shared").await.expect("there");
        let referrers = store.referrers(&subject.digest).await.expect("listed");
        assert_eq!(referrers.len(), 4, "{name}");
        drop(writers);
        assert!(!staging(&path).exists(), "{name}");
    }
}

#[tokio::test]
async fn what_another_writer_removed_is_a_conflict_and_the_file_stays() {
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("a.tar");
    let first = open(&path, Access::Create).await;
    let store = first.store("acme/x").expect("a repository");
    let image = put_image(&*store, &["one"], Some("1")).await;
    assert!(first.flush().await.expect("written"));

    let second = open(&path, Access::ReadWrite).await;
    let other = second.store("acme/y").expect("a repository");
    // Relies on the blobs that are there.
    put_image(&*other, &["one"], Some("1")).await;
    store.delete(&image.descriptor()).await.expect("deleted");
    assert!(first.flush().await.expect("written"));
    first.collect_garbage(Duration::ZERO).await.expect("swept");
    let before = std::fs::read(&path).expect("there");
    let error = second.flush().await.expect_err("its blobs are gone");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(std::fs::read(&path).expect("there") == before);
}

#[tokio::test]
async fn the_end_of_a_run_decides_what_is_written() {
    for (end, tagged, expected) in [
        (RunEnd::Succeeded, true, true),
        (RunEnd::Succeeded, false, true),
        (RunEnd::Failed, true, true),
        (RunEnd::Failed, false, false),
        (RunEnd::Cancelled, true, false),
    ] {
        let temp = TempDir::new().expect("temp");
        let path = temp.path().join("a.tgz");
        let session = new_session();
        let spec = RepositorySpec::ctf(path.display().to_string());
        let repository = session.repository(&spec, true).await.expect("opens");
        let store = repository.content_store("acme/x").expect("a name");
        put_image(&*store, &["one"], tagged.then_some("1")).await;
        let written = session.finish(end).await;
        assert_eq!(written.len(), usize::from(expected), "{end:?} {tagged}");
        assert_eq!(path.exists(), expected, "{end:?} {tagged}");
        drop((store, repository, session));
        assert_eq!(staging(&path).exists(), !expected, "{end:?} {tagged}");
    }
}

#[tokio::test]
async fn a_file_format_in_the_spec_decides_over_the_name() {
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("plain").display().to_string();
    for (format, start) in [("tgz", [0x1f, 0x8b]), ("odd", [0; 2])] {
        let spec =
            json!({"type": "CommonTransportFormat/v1", "filePath": path, "fileFormat": format});
        let spec: RepositorySpec = serde_json::from_value(spec).expect("a spec");
        let session = new_session();
        let repository = match session.repository(&spec, true).await {
            Ok(repository) => repository,
            Err(error) => {
                assert_eq!((format, error.kind()), ("odd", ErrorKind::Invalid));
                continue;
            }
        };
        let store = repository.content_store("acme/x").expect("a name");
        put_image(&*store, &["one"], Some("1")).await;
        finish(&session).await;
        assert_eq!(std::fs::read(&path).expect("there")[..2], start);
    }
}

/// Where a child process that writes is killed.
const POINTS: [&str; 3] = ["content", "published", "writing"];

/// Noise that takes a while to write.
fn large() -> Bytes {
    fixtures::noise(24 << 20, 7)
}

async fn put_large(ctf: &Arc<Ctf>) -> Arc<dyn ContentStore> {
    let store = ctf.store("acme/x").expect("a repository");
    let pushed = store
        .push(&Blob::from_bytes("application/x-noise", large()), &[])
        .await
        .expect("pushed");
    assert_eq!(pushed.descriptor.size, large().len() as u64);
    store
}

/// Not a test of its own: the process that [`a_killed_writer_leaves_the_old_archive_and_its_content`] kills.
#[tokio::test]
async fn killed_writer() {
    let Ok(task) = std::env::var("OCM_TEST_KILLED_WRITER") else {
        return;
    };
    let (point, path) = task.split_once(':').expect("point:path");
    let path = Path::new(path);
    let ctf = open(path, Access::Create).await;
    let store = put_large(&ctf).await;
    if point != "content" {
        put_image(&*store, &["new"], Some("new")).await;
    }
    if point == "writing" {
        let noise = blob_link();
        let manifest = ocm_specs::oci::Manifest::image(noise.clone(), vec![noise]);
        let manifest = ocm_content::RawManifest::write(&manifest);
        store
            .put_manifest(&manifest, Some("noise"))
            .await
            .expect("put");
        let flushing = tokio::spawn(async move { ctf.flush().await });
        let folder = staging(path).join("0/.staging");
        let is_begun = || {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.file_name())
                .any(|name| name.to_string_lossy().starts_with("archive-"))
        };
        while !flushing.is_finished() && !is_begun() {
            tokio::task::yield_now().await;
        }
    }
    std::process::abort();
}

fn blob_link() -> ocm_specs::oci::Descriptor {
    ocm_specs::oci::Descriptor::of("application/x-noise", &large())
}

#[tokio::test]
async fn a_killed_writer_leaves_the_old_archive_and_its_content() {
    for point in POINTS {
        let temp = TempDir::new().expect("temp");
        let path = temp.path().join("a.tar");
        let ctf = open(&path, Access::Create).await;
        put_image(
            &*ctf.store("acme/x").expect("a name"),
            &["old"],
            Some("old"),
        )
        .await;
        ctf.flush().await.expect("written");
        drop(ctf);
        let before = std::fs::read(&path).expect("there");
        let status = std::process::Command::new(std::env::current_exe().expect("known"))
            .args(["--exact", "forms::killed_writer", "--nocapture"])
            .env(
                "OCM_TEST_KILLED_WRITER",
                format!("{point}:{}", path.display()),
            )
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status()
            .expect("ran");
        assert!(!status.success(), "{point}");
        assert!(std::fs::read(&path).expect("there") == before, "{point}");
        let folder = staging(&path).join("0/blobs");
        let staged = folder.join(format!("sha256.{}", blob_link().digest.hex()));
        assert!(staged.exists(), "{point}");
        // Found garbage is that of the killed run, and goes only when it is asked to.
        let ctf = open(&path, Access::ReadWrite).await;
        let hour = Duration::from_secs(3600);
        assert_eq!(ctf.find_garbage(hour).await.expect("looked").files, 0);
        let garbage = ctf.find_garbage(Duration::ZERO).await.expect("looked");
        assert!(
            garbage.bytes >= large().len() as u64,
            "{point}: {garbage:?}"
        );

        // The next run takes it over, unless it is damaged.
        if point == "content" {
            let mut bytes = large().to_vec();
            bytes[1000] ^= 1;
            std::fs::write(&staged, bytes).expect("damaged");
        }
        let meter = Meter::new();
        let store = meter.clone().scope(async {
            let store = ctf.store("acme/x").expect("a name");
            // Something of its own first: then the folder is taken.
            put_image(&*store, &["new"], Some("new")).await;
            put_large(&ctf).await
        });
        let store = store.await;
        let sent = meter.snapshot().bytes_sent >= large().len() as u64;
        assert_eq!(sent, point == "content", "{point}");
        let bytes = store
            .fetch(&blob_link())
            .read(1 << 26)
            .await
            .expect("whole");
        assert!(bytes == large());
        ctf.flush().await.expect("written");
        assert_eq!(
            store.tags().await.expect("listed"),
            ["new", "old"],
            "{point}"
        );
        assert!(!staging(&path).exists(), "{point}");
        // No manifest reaches the noise: it is not part of the archive.
        assert!(std::fs::metadata(&path).expect("there").len() < 1 << 20);
    }
}

#[tokio::test]
async fn what_nobody_takes_over_is_garbage() {
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("a.tgz");
    let ctf = open(&path, Access::Create).await;
    let store = ctf.store("acme/x").expect("a name");
    store
        .push(&blob("never published"), &[])
        .await
        .expect("pushed");
    let other = open(&path, Access::Create).await;
    // It belongs to a run that lives.
    let garbage = other.collect_garbage(Duration::ZERO).await.expect("swept");
    assert_eq!(garbage.files, 0);
    drop((ctf, store, other));
    assert!(staging(&path).exists());
    let ctf = open(&path, Access::ReadWrite).await;
    let garbage = ctf.collect_garbage(Duration::ZERO).await.expect("swept");
    assert_eq!((garbage.files, garbage.bytes), (1, 15));
    assert!(!staging(&path).exists() && !path.exists());
}
