//! Every kind of storage into every other, by the specs that the program writes, and back again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::join_all;
use ocm_content::{Artifact, Blob, Content, ContentStore, MemoryStores, Stores};
use ocm_engine::{Context, Graph, Plan, Status, StepTypes};
use ocm_repository::{Existing, Repository, RunEnd, Session, SessionConfig};
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, Element, ElementKind, Encoding};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::{Algorithm, Digest, RepositorySpec};
use ocm_testdata::fixtures;
use ocm_testdata::peers::DockerRegistry;
use ocm_testdata::registry::{Registry, RegistryConfig, Running};
use ocm_transformers::generate::{Copy, Options, generate};
use ocm_transformers::step_types;
use serde_json::{Value as Json, json};

use crate::support::vector_path;

/// Where images and charts are that component versions only name.
const IMAGES: &str = "images.example";
/// Children before parents.
const COMPONENTS: [&str; 3] = ["acme.org/base", "acme.org/middle", "acme.org/top"];
const SET: &str = "application/vnd.oci.image.manifest.v1+tar+gzip";

/// The registries and the folder of a test.
struct World {
    types: StepTypes,
    images: MemoryStores,
    embedded: Running,
    docker: Option<DockerRegistry>,
    temp: tempfile::TempDir,
}

/// One place for component versions.
#[derive(Clone)]
struct Place {
    spec: RepositorySpec,
    path: Option<PathBuf>,
}

impl World {
    async fn new() -> Self {
        let config = RegistryConfig::new(Arc::new(MemoryStores::new()));
        let embedded = Registry::bind(config, ([127, 0, 0, 1], 0).into()).await;
        let images = MemoryStores::new();
        for (name, tag, fixture) in [
            ("acme/app", "1.0", fixtures::image_index()),
            // It shares its layers with the next one.
            ("acme/small", "1", fixtures::image(2, 600)),
            ("acme/large", "1", fixtures::image(4, 600)),
            ("charts/app", "0.1.0", fixtures::chart()),
        ] {
            let store = images.store(name).expect("a name");
            fixture.push(&store, Some(tag)).await.expect("pushed");
            // What refers to an image, and to the image for one platform.
            for subject in fixture.children.first().into_iter().chain([&fixture.root]) {
                let subject = subject.descriptor();
                let referrer = fixtures::referrer(&subject, "application/spdx+json", name);
                referrer.push(&store, None).await.expect("pushed");
            }
        }
        Self {
            types: step_types(),
            images,
            embedded: embedded.expect("a registry"),
            docker: DockerRegistry::start().await,
            temp: tempfile::tempdir().expect("a folder"),
        }
    }

    fn kinds(&self) -> Vec<&'static str> {
        let mut kinds = vec!["embedded", "directory", "tar", "tgz"];
        kinds.extend(self.docker.as_ref().map(|_| "docker"));
        kinds
    }

    fn place(&self, kind: &str, name: &str) -> Place {
        let host = match kind {
            "embedded" => Some(self.embedded.addr.to_string()),
            "docker" => self.docker.as_ref().map(|registry| registry.host.clone()),
            _ => None,
        };
        if let Some(host) = host {
            let spec = RepositorySpec::oci(format!("http://{host}"), name);
            return Place { spec, path: None };
        }
        let path = self.temp.path().join(format!("{name}.{kind}"));
        Place {
            spec: RepositorySpec::ctf(path.display().to_string()),
            path: Some(path),
        }
    }

    fn session(&self) -> Arc<Session> {
        let mut config = SessionConfig::new(self.temp.path());
        config.limits.temp_folder = Some(self.temp.path().to_owned());
        let session = Session::new(config).expect("a session");
        session.register(IMAGES, Arc::new(self.images.clone()));
        session
    }
}

impl Place {
    /// All bytes of an archive; of a registry nothing.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut next: Vec<PathBuf> = self.path.iter().cloned().collect();
        let root = self.path.clone().unwrap_or_default();
        while let Some(path) = next.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).expect("readable");
                next.extend(entries.map(|entry| entry.expect("readable").path()));
            } else {
                let name = path.strip_prefix(&root).expect("below").to_owned();
                found.insert(name, std::fs::read(&path).expect("readable"));
            }
        }
        found
    }
}

async fn finish(session: &Session) {
    for archive in session.finish(RunEnd::Succeeded).await {
        assert!(archive.error.is_none(), "{archive:?}");
    }
}

/// Component versions in a tree of references, with everything that can be beside a descriptor, or far from it.
async fn seed(world: &World, place: &Place) {
    let session = world.session();
    let repository = session.repository(&place.spec, true).await.expect("opens");
    let mut references = Vec::new();
    for (number, component) in COMPONENTS.into_iter().enumerate() {
        let mut local: Vec<(&str, Content)> = vec![("text", fixtures::local_blob().into())];
        if number == 2 {
            let store = world.images.store("acme/app").expect("a name");
            let root = store.resolve("1.0").await.expect("there");
            let stored = ocm_content::Stored {
                root,
                store,
                tag: None,
            };
            local.push(("local-image", Artifact::Stored(stored).into()));
            local.push((
                "set",
                Blob::from_bytes(SET, fixtures::chart_archive()).into(),
            ));
            local.push(("same-text", fixtures::local_blob().into()));
        }
        let mut resources = Vec::new();
        for (name, content) in local {
            let element = json!({"name": name, "version": "1", "type": "blob", "relation": "local",
                "access": {"type": "none"}, "labels": [{"name": "l", "value": {"b": 1, "a": "<&>"}, "signing": true}]});
            let stored =
                repository.prepare_local_blob(component, ElementKind::Resource, &element, &content);
            resources.push(stored.await.expect("stored"));
        }
        // Two components have one image, and one has two that share layers.
        let external = [
            ("app", "acme/app:1.0"),
            ("small", "acme/small:1"),
            ("large", "acme/large:1"),
            ("chart", "charts/app:0.1.0"),
        ];
        let external = match number {
            0 => &external[..0],
            1 => &external[1..2],
            _ => &external,
        };
        for (name, reference) in external {
            let reference = format!("{IMAGES}/{reference}");
            let artifact = session.artifact(&reference).await.expect("there");
            let root = artifact.root().expect("stored").digest.clone();
            resources.push(
                json!({"name": name, "version": "1.0.0", "type": "ociImage", "relation": "external",
                "access": {"type": "ociArtifact", "imageReference": reference},
                "digest": DigestSpec::new(&root, true)}),
            );
        }
        let element =
            json!({"name": "code", "version": "1", "type": "git", "access": {"type": "none"}});
        let content =
            Blob::from_bytes("application/x-tgz", format!("source of {component}")).into();
        let source =
            repository.prepare_local_blob(component, ElementKind::Source, &element, &content);
        let source = source.await.expect("stored");
        let descriptor = ComponentDescriptor::from_value(json!({
            "meta": {"schemaVersion": "v2"},
            "component": {"name": component, "version": "1.0.0+1", "provider": "acme",
                "creationTime": "2024-03-18T09:44:42Z", "repositoryContexts": [],
                "labels": [{"name": "versioned", "value": "<x>", "version": "v1", "signing": true}],
                "resources": resources, "sources": [source], "componentReferences": references},
            "nestedDigests": [{"name": "acme.org/other", "version": "1.0.0", "resourceDigests": []}],
        }))
        .expect("a descriptor");
        // As the library v1 stores them.
        let encoded = descriptor.encode(Encoding::YamlTar);
        let descriptor =
            ComponentDescriptor::decode(&encoded.media_type, encoded.bytes).expect("decodes");
        let digest = Normalisation::V4Alpha1.digest(&descriptor, Algorithm::Sha256);
        let prepared = repository.prepare_version(&descriptor, Existing::Fail);
        prepared
            .await
            .expect("prepared")
            .publish()
            .await
            .expect("published");
        references.push(json!({"name": format!("ref{number}"), "componentName": component, "version": "1.0.0+1",
            "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "jsonNormalisation/v4alpha1",
                "value": digest.hex()}}));
    }
    finish(&session).await;
}

/// Carries component versions by value, as `ocm transfer component-version` does.
async fn convert(world: &World, components: &[&str], copy: Copy, from: &Place, to: &Place) {
    let session = world.session();
    let source = session.repository(&from.spec, false).await.expect("opens");
    let mut versions = Vec::new();
    for component in components {
        for version in source.all_versions(component).await.expect("listed") {
            versions.push(source.get(component, &version).await.expect("there"));
        }
    }
    let options = Options {
        targets: vec![to.spec.clone()],
        copy,
        copy_sources: true,
        ..Options::default()
    };
    let generated = generate(versions, &options, &world.types).expect("a spec");
    let graph = Graph::link(generated.spec).expect("links");
    let plan = Plan::new(graph, &world.types).expect("plans");
    let context = Context::new(session.limits().clone(), session.clone());
    let result = plan.run(context, Box::new(|_| {})).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    finish(&session).await;
}

/// What has to survive: what is signed, all digests, all content with its referrers (each blob read in full), and, where
/// nothing had to be changed, the stored descriptors to the byte.
#[derive(Debug, PartialEq)]
struct Essence {
    signed: Vec<String>,
    content: Vec<String>,
    stored: Vec<String>,
}

async fn essence(world: &World, components: &[&str], place: &Place) -> Essence {
    let session = world.session();
    let repository = session.repository(&place.spec, false).await.expect("opens");
    let mut found = Essence {
        signed: Vec::new(),
        content: Vec::new(),
        stored: Vec::new(),
    };
    for component in components {
        for version in repository.all_versions(component).await.expect("listed") {
            add(&session, &repository, component, &version, &mut found).await;
        }
    }
    assert!(!found.signed.is_empty());
    found
}

async fn add(
    session: &Arc<Session>,
    repository: &Repository,
    component: &str,
    version: &str,
    found: &mut Essence,
) {
    let read = repository.get(component, version).await.expect("there");
    let descriptor = &read.descriptor;
    for normalisation in [
        Normalisation::V1,
        Normalisation::V3,
        Normalisation::V4Alpha1,
    ] {
        let digest = normalisation.digest(descriptor, Algorithm::Sha256);
        found.signed.push(format!("{component} {version} {digest}"));
    }
    found
        .signed
        .push(descriptor.nested_digests().len().to_string());
    let original = descriptor.original().expect("it was read");
    if original.media_type.ends_with("+json") {
        // As Go stores it.
        assert!(original.bytes == descriptor.encode(Encoding::Json).bytes);
    }
    let stored = Digest::sha256(&original.bytes);
    found
        .stored
        .push(format!("{} {stored}", original.media_type));
    for element in descriptor.resources().chain(descriptor.sources()) {
        let named = format!("{component} {} {}", element.kind(), element.name());
        let triple = element.digest().map(|digest| digest.to_value().to_string());
        found
            .content
            .push(format!("{named} {}", triple.unwrap_or_default()));
        if is_elsewhere(&element) {
            continue;
        }
        match session.content(&read, &element).await.expect("there") {
            Content::Blob(blob) => {
                let bytes = blob.read(1 << 20).await.expect("verifies");
                let digest = Digest::sha256(&bytes);
                found
                    .content
                    .push(format!("{named} {} {digest}", blob.media_type));
            }
            Content::Artifact(Artifact::Stored(stored)) => {
                let root = stored.root.digest.clone();
                artifact(&stored.store, root, &named, &mut found.content).await;
            }
            Content::Artifact(other) => panic!("{other:?} came out of a repository"),
        }
    }
}

/// Is it on a host that there is none of in tests?
fn is_elsewhere(element: &Element<'_>) -> bool {
    let access = element
        .access_value()
        .map(Json::to_string)
        .unwrap_or_default();
    access.contains("\"helm") || access.contains("ghcr.io")
}

async fn artifact(
    store: &Arc<dyn ContentStore>,
    root: Digest,
    named: &str,
    lines: &mut Vec<String>,
) {
    let mut next = vec![root];
    while let Some(digest) = next.pop() {
        let manifest = store.manifest(&digest.to_string()).await.expect("there");
        lines.push(format!("{named} {} {digest}", manifest.media_type));
        let manifest = manifest.parse().expect("a manifest");
        for link in manifest.blobs() {
            let bytes = store.fetch(link).read(1 << 20).await.expect("verifies");
            lines.push(format!("{named} {} {}", link.digest, bytes.len()));
        }
        next.extend(manifest.children().map(|child| child.digest.clone()));
        for referrer in store.referrers(&digest).await.expect("listed") {
            lines.push(format!("{named} referrer {}", referrer.digest));
            next.push(referrer.digest);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_storage_converts_into_every_other_and_back() {
    let world = World::new().await;
    let first = world.place("directory", "first");
    seed(&world, &first).await;
    let expected = essence(&world, &COMPONENTS, &first).await;
    let referrers = expected
        .content
        .iter()
        .filter(|line| line.contains("referrer"));
    assert_eq!(referrers.count(), (4 + 1) + 1 + 2);

    let pairs = world.kinds().into_iter().map(async |from| {
        let source = world.place(from, &format!("from-{from}"));
        convert(&world, &COMPONENTS, Copy::AllResources, &first, &source).await;
        let before = essence(&world, &COMPONENTS, &source).await;
        assert_eq!(before.signed, expected.signed, "to {from}");
        assert_eq!(before.content, expected.content, "to {from}");
        let bytes = source.bytes();
        // There and back is both directions. What a registry has as bytes nobody can compare, so with a file or folder at
        // one end that end is where it starts.
        let is_file = |kind: &str| matches!(kind, "directory" | "tar" | "tgz");
        let is_due = |to: &&str| is_file(from) || !is_file(to);
        for to in world.kinds().into_iter().filter(|to| is_due(to)) {
            let target = world.place(to, &format!("{from}-to-{to}"));
            convert(&world, &COMPONENTS, Copy::AllResources, &source, &target).await;
            assert_eq!(
                essence(&world, &COMPONENTS, &target).await,
                before,
                "{from} to {to}"
            );
            let back = world.place(from, &format!("{from}-to-{to}-back"));
            convert(&world, &COMPONENTS, Copy::AllResources, &target, &back).await;
            assert_eq!(
                essence(&world, &COMPONENTS, &back).await,
                before,
                "{to} to {from}"
            );
            assert!(back.bytes() == bytes, "{from} to {to} and back: the bytes");
        }
    });
    join_all(pairs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_go_tools_wrote_converts_into_every_kind() {
    let world = World::new().await;
    for (path, component) in [
        (
            "ctf/v1-utf8-resource/transport-archive",
            "github.com/acme.org/helloworld",
        ),
        (
            "ctf/v1-utf8-resource/transport-archive.tar",
            "github.com/acme.org/helloworld",
        ),
        (
            "ctf/v1-utf8-resource/transport-archive.tar.gz",
            "github.com/acme.org/helloworld",
        ),
        (
            "ctf/v1-helm-chart/with-resource",
            "github.com/acme.org/helloworld",
        ),
        (
            "ctf/v1-helm-chart/without-resource",
            "github.com/acme.org/helloworld",
        ),
        (
            "signatures/compat-rsa/component-archive",
            "github.com/mandelsoft/test",
        ),
        ("component-archive/comparch/common", "example.com/root"),
    ] {
        let Some(path) = vector_path(path) else {
            return;
        };
        let source = Place {
            spec: RepositorySpec::ctf(path.clone()),
            path: None,
        };
        let mut expected = essence(&world, &[component], &source).await;
        let is_archive =
            !Path::new(&path).join("artifact-index.json").exists() && Path::new(&path).is_dir();
        for kind in world.kinds() {
            let name = path
                .replace(['/', '.'], "-")
                .trim_matches('-')
                .to_lowercase();
            let target = world.place(kind, &format!("to-{kind}/{name}"));
            convert(&world, &[component], Copy::LocalBlobs, &source, &target).await;
            let mut found = essence(&world, &[component], &target).await;
            if is_archive {
                // Accesses change, and resources that had no digest get one.
                (expected.stored, found.stored) = (Vec::new(), Vec::new());
                if component == "example.com/root" {
                    (expected.signed, found.signed) = (Vec::new(), Vec::new());
                    found.content.remove(0);
                    expected.content.retain(|line| line.contains("sha256"));
                }
            }
            assert_eq!(found, expected, "{path} to {kind}");
        }
    }
}
