//! The traps of forms and encodings (formats.md 10), one test each.

use std::sync::Arc;

use ocm_content::{
    ArchiveForm, Artifact, Blob, Content, ContentStore, ErrorKind, MemoryStores, RawManifest,
    Referrers, Stores, open_archive, write_archive,
};
use ocm_repository::{ComponentVersion, Existing, Repository};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind, Encoding};
use ocm_specs::media_type::{
    COMPONENT_CONFIG, DESCRIPTOR_JSON, OCI_INDEX, OCI_LAYOUT_TAR, OCI_MANIFEST, is_index,
};
use ocm_specs::oci::{Annotations, Descriptor, Manifest};
use ocm_specs::{Digest, RepositorySpec};
use ocm_testdata::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ctf::{files, options};
use crate::forms::{KINDS, Place, convert, essence, finish, new_session, place, publish};
use crate::mapping::over;

const COMPONENT: &str = "acme.org/traps";

fn resource(name: &str) -> Value {
    json!({"name": name, "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}})
}

fn document(version: &str, resources: Vec<Value>) -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": version, "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": [], "componentReferences": []},
    })
}

fn descriptor(version: &str, resources: Vec<Value>) -> ComponentDescriptor {
    ComponentDescriptor::from_value(document(version, resources)).expect("a descriptor")
}

fn memory() -> (Arc<dyn Stores>, Repository) {
    let stores: Arc<dyn Stores> = Arc::new(MemoryStores::new());
    (stores.clone(), over(stores, ""))
}

fn component_store(stores: &Arc<dyn Stores>) -> Arc<dyn ContentStore> {
    let name = format!("component-descriptors/{COMPONENT}");
    stores.store(&name).expect("a name")
}

async fn push(store: &Arc<dyn ContentStore>, media_type: &str, bytes: &[u8]) -> Descriptor {
    let blob = Blob::from_bytes(media_type, bytes.to_vec());
    store.push(&blob, &[]).await.expect("pushed").descriptor
}

/// Stores content beside the descriptor to come; gives the element.
async fn store(repository: &Repository, element: Value, content: impl Into<Content>) -> Value {
    let content = content.into();
    let stored =
        repository.prepare_local_blob(COMPONENT, ElementKind::Resource, &element, &content);
    stored.await.expect("stored")
}

async fn local(version: &ComponentVersion) -> Content {
    let element = version.descriptor.resources().next().expect("one");
    version.local_blob(&element).expect("local")
}

async fn bytes(content: &Content) -> Vec<u8> {
    let Content::Blob(blob) = content else {
        panic!("a blob");
    };
    blob.read(1 << 20).await.expect("verifies").to_vec()
}

async fn image() -> (Artifact, Digest) {
    let store = MemoryStores::new().store("images/app").expect("a name");
    let fixture = fixtures::image_index();
    let pushed = fixture.push(&store, Some("1.0")).await.expect("an image");
    let digest = pushed.root.digest.clone();
    (Artifact::Stored(pushed), digest)
}

/// Every media type under which a config or a descriptor was ever stored; the descriptor is not the first layer, and the
/// first one looks like one.
#[tokio::test]
async fn t15_the_config_tells_which_layer_is_the_descriptor() {
    let v2 = document("1.0.0", vec![]);
    let v3 = json!({
        "apiVersion": "ocm.software/v3alpha1", "kind": "ComponentVersion",
        "metadata": {"name": COMPONENT, "version": "1.0.0", "provider": {"name": "acme"}},
        "repositoryContexts": [], "spec": {},
    });
    let old = "application/vnd.gardener.cloud.cnudie.component-descriptor.v2";
    let new = "application/vnd.ocm.software.component-descriptor.v2";
    let mut encodings = Vec::new();
    for base in [new, old] {
        encodings.extend([
            (format!("{base}+json"), Encoding::Json),
            (format!("{base}+yaml"), Encoding::Yaml),
            (format!("{base}+yaml+tar"), Encoding::YamlTar),
        ]);
    }
    encodings.push((
        "application/vnd.oci.gardener.cloud.cnudie.component-descriptor.config.v2+yaml+tar"
            .to_owned(),
        Encoding::YamlTar,
    ));
    let decoy = descriptor("1.0.0", vec![resource("decoy")]).encode(Encoding::Json);
    for config_type in [
        COMPONENT_CONFIG,
        "application/vnd.gardener.cloud.cnudie.component.config.v1+json",
        "application/vnd.oci.gardener.cloud.cnudie.component-descriptor-metadata.config.v2+json",
    ] {
        for (media_type, encoding) in &encodings {
            for document in [&v2, &v3] {
                let (stores, repository) = memory();
                let store = component_store(&stores);
                let put = ComponentDescriptor::from_value(document.clone()).expect("a descriptor");
                let stored = put.encode(*encoding).bytes;
                let mut first = push(&store, DESCRIPTOR_JSON, &decoy.bytes).await;
                let mark = ("software.ocm.descriptor".to_owned(), "true".to_owned());
                first.annotations = Some(Annotations::from([mark]));
                let layer = push(&store, media_type, &stored).await;
                let config = json!({"componentDescriptorLayer": {
                    "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}});
                let config = push(&store, config_type, config.to_string().as_bytes()).await;
                let manifest = RawManifest::write(&Manifest::image(config, vec![first, layer]));
                store
                    .put_manifest(&manifest, Some("1.0.0"))
                    .await
                    .expect("put");
                let found = repository.get(COMPONENT, "1.0.0").await.expect(media_type);
                assert_eq!(found.descriptor, put, "{media_type}");
                let original = found.descriptor.original().expect("it was read");
                assert_eq!(&original.media_type, media_type);
                let versions = repository.versions(COMPONENT).await.expect("listed");
                assert_eq!(versions, ["1.0.0"]);

                // And it is carried on as the bytes it is.
                let (_, target) = memory();
                publish(&target, &found.descriptor).await;
                let copy = target.get(COMPONENT, "1.0.0").await.expect("there");
                assert_eq!(copy.descriptor.original(), Some(original));
            }
        }
    }
}

#[tokio::test]
async fn t16_indexes_without_media_types_or_artifacts() {
    // What an image index is, only its content tells here.
    let temp = TempDir::new().expect("temp");
    let source = place("directory", temp.path().join("source")).await;
    let path = source.path.clone().expect("a folder");
    let (artifact, digest) = image().await;
    let session = new_session();
    let repository = session.repository(&source.spec, true).await.expect("opens");
    let stored = store(&repository, resource("image"), artifact).await;
    publish(&repository, &descriptor("1.0.0", vec![stored])).await;
    let expected = essence(&source).await;
    assert!(
        expected
            .iter()
            .any(|line| line.contains(&digest.to_string()))
    );

    let index = path.join("artifact-index.json");
    let text = std::fs::read_to_string(&index).expect("there");
    let mut bare: Value = serde_json::from_str(&text).expect("json");
    for entry in bare["artifacts"].as_array_mut().expect("a list") {
        let entry = entry.as_object_mut().expect("an object");
        assert!(entry.shift_remove("mediaType").is_some());
        entry.insert("unknown".into(), json!({"kept": 1}));
    }
    std::fs::write(&index, bare.to_string()).expect("written");
    for name in files(&path).keys() {
        let named = name == "artifact-index.json" || name.starts_with("blobs/sha256.");
        assert!(named, "{name}");
    }
    assert_eq!(essence(&source).await, expected);
    for kind in KINDS {
        let target = place(kind, temp.path().join("target")).await;
        convert(&source, &target).await;
        assert_eq!(essence(&target).await, expected, "{kind}");
    }

    for artifacts in ["null", "[]"] {
        let empty = temp.path().join(format!("empty-{artifacts}"));
        std::fs::create_dir(&empty).expect("made");
        let text = format!(r#"{{"schemaVersion":1,"artifacts":{artifacts}}}"#);
        std::fs::write(empty.join("artifact-index.json"), text).expect("written");
        let session = new_session();
        let spec = RepositorySpec::ctf(empty.display().to_string());
        let repository = session.repository(&spec, false).await.expect("opens");
        assert!(repository.components().await.expect("listed").is_empty());
        // And it takes what comes.
        let repository = session.repository(&spec, true).await.expect("opens");
        publish(&repository, &descriptor("1.0.0", vec![])).await;
        assert_eq!(repository.components().await.expect("listed"), [COMPONENT]);
    }
}

#[tokio::test]
async fn t17_access_modes_are_numbers_of_two_meanings() {
    let temp = TempDir::new().expect("temp");
    for (mode, may_write) in [
        (json!(null), true),
        (json!(0), true),
        (json!(1), true),
        (json!(2), true),
        (json!("readwrite"), true),
        (json!("create"), true),
        (json!("readwrite|create"), true),
        (json!("readonly|create"), true),
        (json!("readonly"), false),
    ] {
        let path = temp.path().join(format!("{mode}").replace('"', ""));
        let mut value = json!({"type": "CommonTransportFormat/v1", "filePath": path});
        if !mode.is_null() {
            value["accessMode"] = mode.clone();
        }
        let spec = RepositorySpec::from_value(&value).expect("a spec");
        assert_eq!(spec.to_value(), value, "kept as it is");
        let session = new_session();
        match session.repository(&spec, true).await {
            Ok(repository) => {
                assert!(may_write, "{mode}");
                publish(&repository, &descriptor("1.0.0", vec![])).await;
            }
            Err(error) => {
                assert!(!may_write, "{mode}: {error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(!path.exists());
            }
        }
    }
}

#[tokio::test]
async fn t18_a_tag_alone_does_not_tell_the_version() {
    let (stores, repository) = memory();
    let versions = [
        "0.0.1-20250108132333.build-af79499",
        "1.0.0+5",
        "1.0.0-rc.1+build.7",
        "2.0.0",
    ];
    for version in versions {
        publish(&repository, &descriptor(version, vec![])).await;
    }
    // One without the annotation, as tools of old wrote it.
    let store = component_store(&stores);
    let bare = descriptor("3.0.0+x.build-y", vec![]).encode(Encoding::Json);
    let layer = push(&store, DESCRIPTOR_JSON, &bare.bytes).await;
    let config = json!({"componentDescriptorLayer": {
        "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}});
    let config = push(&store, COMPONENT_CONFIG, config.to_string().as_bytes()).await;
    let manifest = RawManifest::write(&Manifest::image(config, vec![layer]));
    let tag = "3.0.0.build-x.build-y";
    store.put_manifest(&manifest, Some(tag)).await.expect("put");

    let tags = store.tags().await.expect("listed");
    assert!(tags.iter().all(|tag| !tag.contains('+')), "{tags:?}");
    let mut expected = versions.map(str::to_owned).to_vec();
    expected.push("3.0.0+x.build-y".to_owned());
    expected.sort();
    assert_eq!(
        repository.all_versions(COMPONENT).await.expect("listed"),
        expected
    );
    for version in &expected {
        let found = repository.get(COMPONENT, version).await.expect(version);
        assert_eq!(found.descriptor.version(), version);
    }
    // The other reading of such a tag is not there.
    let error = repository
        .get(COMPONENT, "0.0.1-20250108132333+af79499")
        .await;
    assert_eq!(
        error.expect_err("another version").kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn t19_content_tells_the_form_and_the_type_can_be_given() {
    let temp = TempDir::new().expect("temp");
    let sources = [
        place("directory", temp.path().join("source")).await,
        place("tar", temp.path().join("source")).await,
        place("tgz", temp.path().join("source")).await,
    ];
    for source in &sources {
        let session = new_session();
        let repository = session.repository(&source.spec, true).await.expect("opens");
        publish(&repository, &descriptor("1.0.0", vec![])).await;
        finish(&session).await;
    }
    for source in &sources {
        let path = source.path.as_ref().expect("an archive");
        // Endings that say something else, or nothing.
        for name in ["x.tar", "x.tgz", "x.tar.gz", "x", "x.zip", "my.path"] {
            let session = new_session();
            let other = temp.path().join("renamed").join(name);
            std::fs::create_dir_all(other.parent().expect("a folder")).expect("made");
            std::fs::rename(path, &other).expect("renamed");
            let spec = RepositorySpec::ctf(other.display().to_string());
            let repository = session.repository(&spec, false).await.expect("opens");
            repository.get(COMPONENT, "1.0.0").await.expect(name);
            // What is written there keeps the form that is there.
            let repository = session.repository(&spec, true).await.expect("opens");
            publish(&repository, &descriptor("2.0.0", vec![])).await;
            finish(&session).await;
            let at = Place::at(&other);
            assert_eq!(essence(&at).await.len(), 2, "{name}");
            assert_eq!(
                other.is_dir(),
                path.extension().is_some_and(|it| it == "ctf")
            );
            std::fs::rename(&other, path).expect("renamed");
            let session = new_session();
            let repository = session.repository(&source.spec, true).await.expect("opens");
            repository
                .store(COMPONENT)
                .expect("a name")
                .untag("2.0.0")
                .await
                .expect("untagged");
            finish(&session).await;
        }
    }
    // What a text without a type is, and how to say otherwise.
    for (text, expected) in [
        ("my.path/x", "OCIRepository/v1"),
        ("name", "CommonTransportFormat/v1"),
        ("./my.path/x", "CommonTransportFormat/v1"),
        ("ctf::my.path/x", "ctf"),
        ("oci::name", "oci"),
        ("archive.tgz", "CommonTransportFormat/v1"),
    ] {
        let spec: RepositorySpec = text.parse().expect(text);
        assert_eq!(spec.type_name(), expected, "{text}");
    }
    // A form that is asked for counts for what is made; what is there stays.
    for (format, magic) in [("tgz", &[0x1f, 0x8b][..]), ("tar", b"artifact-index.json")] {
        for text in [format!("ctf+{format}::PATH"), String::new()] {
            let path = temp.path().join(format!("made-{format}-{}", text.len()));
            let path = path.display().to_string();
            let spec = if text.is_empty() {
                json!({"type": "ctf", "filePath": path, "fileFormat": format})
            } else {
                let spec: RepositorySpec = text.replace("PATH", &path).parse().expect("a spec");
                spec.to_value()
            };
            let spec = RepositorySpec::from_value(&spec).expect("a spec");
            let session = new_session();
            let repository = session.repository(&spec, true).await.expect("opens");
            publish(&repository, &descriptor("1.0.0", vec![])).await;
            finish(&session).await;
            assert!(std::fs::read(&path).expect("there").starts_with(magic));
        }
    }
}

#[tokio::test]
async fn t20_reference_names_in_artifact_sets_are_bare_tags() {
    let (artifact, digest) = image().await;
    let limits = options(ocm_repository::ctf::Access::ReadOnly).limits;
    for form in ArchiveForm::ALL {
        let archive = write_archive(&artifact, form, Some("6.7.1"), Referrers::All, &limits);
        let archive = archive.await.expect("written");
        let bytes = archive.read(1 << 20).await.expect("reads");
        let name = b"\"org.opencontainers.image.ref.name\":\"6.7.1\"";
        assert!(
            bytes.windows(name.len()).any(|window| window == name),
            "{form:?}"
        );
        let opened = open_archive(&archive, &limits).await.expect("opens");
        assert_eq!(opened.tag(), Some("6.7.1"));
        assert_eq!(opened.root().map(|root| &root.digest), Some(&digest));
    }
    // Where the artifact belongs is in the access, and stays there through transports.
    let temp = TempDir::new().expect("temp");
    let mut element = resource("image");
    element["access"] =
        json!({"type": "ociArtifact", "imageReference": "ghcr.io/acme/app/image:6.7.1"});
    let mut from = place("directory", temp.path().join("source")).await;
    let session = new_session();
    let repository = session.repository(&from.spec, true).await.expect("opens");
    let stored = store(&repository, element.clone(), artifact.clone()).await;
    assert_eq!(stored["access"]["referenceName"], "acme/app/image:6.7.1");
    publish(&repository, &descriptor("1.0.0", vec![stored])).await;
    for kind in KINDS {
        let to = place(kind, temp.path().join("target")).await;
        convert(&from, &to).await;
        let session = new_session();
        let repository = session.repository(&to.spec, false).await.expect("opens");
        let found = repository.get(COMPONENT, "1.0.0").await.expect("there");
        let element = found.descriptor.resources().next().expect("one");
        let access = element.access_value().expect("one").clone();
        assert_eq!(access["referenceName"], "acme/app/image:6.7.1", "{kind}");
        from = to;
    }
}

#[tokio::test]
async fn t21_an_artifact_can_stay_a_layer_for_readers_of_old() {
    let (artifact, digest) = image().await;
    let limits = options(ocm_repository::ctf::Access::ReadOnly).limits;
    for form in ArchiveForm::ALL {
        let (stores, repository) = memory();
        let archive = write_archive(&artifact, form, Some("1.0"), Referrers::All, &limits);
        let archive = archive.await.expect("written");
        let media_type = archive.media_type.clone();
        let content = Content::Blob(archive);
        let stored = store(&repository, resource("r"), content).await;
        publish(&repository, &descriptor("1.0.0", vec![stored.clone()])).await;
        let root = component_store(&stores)
            .manifest("1.0.0")
            .await
            .expect("there");
        // Whatever holds it, the digest is that of the artifact (trap T22).
        assert_eq!(
            stored["digest"]["normalisationAlgorithm"],
            "ociArtifactDigest/v1"
        );
        assert_eq!(stored["digest"]["value"], digest.hex());
        let found = repository.get(COMPONENT, "1.0.0").await.expect("there");
        let content = local(&found).await;
        if form == ArchiveForm::Layout {
            // As the library v2 does it: the layout is taken apart, and an index is around the component.
            assert!(is_index(&root.media_type));
            assert_eq!(stored["access"]["localReference"], digest.to_string());
            assert_eq!(stored["access"]["mediaType"], OCI_INDEX);
            assert!(matches!(content, Content::Artifact(_)));
        } else {
            assert_eq!(root.media_type, OCI_MANIFEST, "{form:?}");
            assert_eq!(stored["access"]["mediaType"], media_type);
            let Content::Blob(blob) = content else {
                panic!("an artifact set is a layer");
            };
            let opened = open_archive(&blob, &limits).await.expect("opens");
            assert_eq!(opened.root().map(|root| &root.digest), Some(&digest));
        }
    }
    // The index form: the component's manifest is the first entry, or the one that is marked.
    for marked in [false, true] {
        let (stores, repository) = memory();
        let stored = store(
            &repository,
            resource("r"),
            Content::Artifact(artifact.clone()),
        )
        .await;
        publish(&repository, &descriptor("1.0.0", vec![stored])).await;
        let store = component_store(&stores);
        let root = store.manifest("1.0.0").await.expect("there");
        let mut index = root.parse().expect("an index");
        let children = index.manifests.as_mut().expect("it has");
        assert_eq!(children.len(), 2);
        if marked {
            let mark = ("software.ocm.descriptor".to_owned(), "true".to_owned());
            children[0]
                .annotations
                .get_or_insert_default()
                .extend([mark]);
            children.swap(0, 1);
            let index = RawManifest::write(&index);
            store
                .put_manifest(&index, Some("1.0.0"))
                .await
                .expect("put");
        }
        let found = repository.get(COMPONENT, "1.0.0").await.expect("there");
        assert!(matches!(local(&found).await, Content::Artifact(_)));
    }
}

#[tokio::test]
async fn t22_two_tars_of_one_artifact_are_one_content() {
    let (artifact, digest) = image().await;
    let limits = options(ocm_repository::ctf::Access::ReadOnly).limits;
    let archive = write_archive(
        &artifact,
        ArchiveForm::Layout,
        None,
        Referrers::None,
        &limits,
    );
    let archive = archive
        .await
        .expect("written")
        .read(1 << 20)
        .await
        .expect("reads");
    // The same files in another order, as a concurrent writer may have them.
    let mut reader = tar::Archive::new(&archive[..]);
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in reader.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("reads");
        entries.push((path, bytes));
    }
    entries.reverse();
    let other = fixtures::tar(entries.iter().map(|(path, bytes)| (path.as_str(), bytes)));
    assert_ne!(Digest::sha256(&archive), Digest::sha256(&other));
    let zipped = fixtures::gzip(&other);
    let mut roots = Vec::new();
    for bytes in [archive, other, zipped] {
        let (_, repository) = memory();
        let content = Content::Blob(Blob::from_bytes(OCI_LAYOUT_TAR, bytes));
        let stored = store(&repository, resource("r"), content).await;
        assert_eq!(stored["digest"]["value"], digest.hex());
        let prepared = repository
            .prepare_version(&descriptor("1.0.0", vec![stored]), Existing::Fail)
            .await
            .expect("prepared");
        roots.push(prepared.root().digest);
    }
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    // A tar whose own digest somebody signed stays the tar it is.
    let (_, repository) = memory();
    let archive = write_archive(
        &artifact,
        ArchiveForm::Layout,
        None,
        Referrers::None,
        &limits,
    );
    let archive = archive.await.expect("written");
    let bytes = archive.read(1 << 20).await.expect("reads");
    let mut element = resource("r");
    let triple = json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1",
        "value": Digest::sha256(&bytes).hex()});
    element["digest"] = triple.clone();
    let content = Content::Blob(archive);
    let stored = store(&repository, element.clone(), content).await;
    assert_eq!(stored["digest"], triple);
    assert_eq!(
        stored["access"]["localReference"],
        Digest::sha256(&bytes).to_string()
    );
}

#[tokio::test]
async fn t35_what_is_compressed_stays_as_it_is() {
    let temp = TempDir::new().expect("temp");
    // Compressed in a way that nobody here would choose, uncompressed under a name that says otherwise, and the other
    // way round.
    let plain =
        b"the same text over and over, the same text over and over, the same text".repeat(9);
    let mut stored = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut stored, &plain).expect("compresses");
    let stored = stored.finish().expect("compresses");
    let contents = [
        ("a", "application/x-tar+gzip", stored.clone()),
        ("b", "application/gzip", plain.clone()),
        ("c", "text/plain", stored),
        ("d", "text/plain", plain),
    ];
    let mut from = place("directory", temp.path().join("source")).await;
    let session = new_session();
    let repository = session.repository(&from.spec, true).await.expect("opens");
    let mut resources = Vec::new();
    for (name, media_type, bytes) in &contents {
        let content = Content::Blob(Blob::from_bytes(*media_type, bytes.clone()));
        resources.push(store(&repository, resource(name), content).await);
    }
    publish(&repository, &descriptor("1.0.0", resources)).await;
    let expected = essence(&from).await;
    for (number, kind) in ["tgz", "registry", "tar", "tgz", "directory", "registry"]
        .iter()
        .enumerate()
    {
        let to = place(kind, temp.path().join(format!("{number}"))).await;
        convert(&from, &to).await;
        assert_eq!(essence(&to).await, expected, "{kind}");
        let session = new_session();
        let repository = session.repository(&to.spec, false).await.expect("opens");
        let found = repository.get(COMPONENT, "1.0.0").await.expect("there");
        for (element, (_, media_type, expected)) in found.descriptor.resources().zip(&contents) {
            let content = found.local_blob(&element).expect("local");
            assert_eq!(content.media_type(), *media_type);
            assert!(bytes(&content).await == *expected, "{kind}");
        }
        from = to;
    }
}
