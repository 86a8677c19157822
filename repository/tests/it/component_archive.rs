//! Component archives of the Go library v1: read in every form, and a source like any other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ocm_content::conformance::check_readable;
use ocm_content::{Content, ErrorKind};
use ocm_repository::{ComponentVersion, Repository};
use ocm_specs::repository_spec::CtfRepositorySpec;
use ocm_specs::{Digest, RepositorySpec};
use ocm_testdata::fixtures::{gzip, tar};
use tempfile::TempDir;

use crate::ctf::{files, vectors};
use crate::forms::{KINDS, Place, convert, essence, new_session, place};

/// A folder in all three forms, in a new place.
fn in_every_form(folder: &Path, temp: &TempDir) -> Vec<PathBuf> {
    let files = files(folder);
    // The descriptor first, as v1 writes it.
    let (descriptor, blobs): (BTreeMap<_, _>, BTreeMap<_, _>) = files
        .iter()
        .partition(|(name, _)| !name.starts_with("blobs/"));
    let entries = descriptor.into_iter().chain(blobs);
    let packed = tar(entries.map(|(name, bytes)| (name.as_str(), bytes)));
    let (plain, zipped) = (temp.path().join("plain"), temp.path().join("zipped"));
    std::fs::write(&zipped, gzip(&packed)).expect("written");
    std::fs::write(&plain, packed).expect("written");
    vec![folder.to_owned(), plain, zipped]
}

async fn open(path: &Path) -> Repository {
    let spec = RepositorySpec::ctf(path.display().to_string());
    let session = new_session();
    session.repository(&spec, false).await.expect("opens")
}

async fn only_version(repository: &Repository) -> ComponentVersion {
    let components = repository.components().await.expect("listed");
    let [component] = components.as_slice() else {
        panic!("{components:?}");
    };
    let versions = repository.versions(component).await.expect("listed");
    let [version] = versions.as_slice() else {
        panic!("{versions:?}");
    };
    repository.get(component, version).await.expect("there")
}

async fn text(version: &ComponentVersion, resource: usize) -> String {
    let element = version.descriptor.resources().nth(resource);
    let content = version.local_blob(&element.expect("there"));
    let Content::Blob(blob) = content.expect("local") else {
        panic!("files are no artifacts");
    };
    let bytes = blob.read(1 << 20).await.expect("verifies");
    assert_eq!(blob.digest, Some(Digest::sha256(&bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn every_archive_of_v1_is_a_repository_of_one_version() {
    let Some(root) = vectors("") else { return };
    for (path, name, expected) in [
        (
            "component-archive/comparch/common",
            "example.com/root 1.0.0",
            Ok("testfile\0"),
        ),
        (
            "signatures/compat-rsa/component-archive",
            "github.com/mandelsoft/test 1.0.0",
            Ok(""),
        ),
        // A folder is the tar of its files.
        (
            "component-archive/comparch/directory",
            "example.com/root 1.0.0",
            Ok("testfile"),
        ),
        // Its blob is not there, and it is read all the same.
        (
            "component-archive/comparch/descriptor",
            "github.com/gardener/gardener v1.7.2",
            Err("there is no content for the local reference `anydigest`"),
        ),
    ] {
        let folder = root.join(path);
        let temp = TempDir::new().expect("temp");
        for form in in_every_form(&folder, &temp) {
            let repository = open(&form).await;
            let version = only_version(&repository).await;
            let descriptor = &version.descriptor;
            let found = format!("{} {}", descriptor.name(), descriptor.version());
            assert_eq!(found, name, "{}", form.display());
            let stored = std::fs::read(folder.join("component-descriptor.yaml"));
            let original = descriptor.original().expect("it was read");
            assert!(*original.bytes == *stored.expect("there"));
            check_readable(version.store()).await;
            match expected {
                Ok(start) => {
                    let text = text(&version, 0).await;
                    assert!(text.starts_with(start), "{path}: {text}");
                }
                Err(message) => {
                    let element = descriptor.resources().nth(2).expect("the local one");
                    let error = version.local_blob(&element).expect_err("missing");
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    assert!(error.to_string().contains(message), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn content_goes_from_them_into_every_form() {
    let Some(root) = vectors("") else { return };
    for path in [
        "component-archive/comparch/common",
        "component-archive/comparch/directory",
        "signatures/compat-rsa/component-archive",
    ] {
        let temp = TempDir::new().expect("temp");
        for (number, form) in in_every_form(&root.join(path), &temp).iter().enumerate() {
            let source = Place::at(form);
            let repository = open(form).await;
            let before = only_version(&repository).await;
            let content = text(&before, 0).await;
            let mut expected: Option<Vec<String>> = None;
            for kind in KINDS {
                let target = place(kind, temp.path().join(format!("to-{number}"))).await;
                convert(&source, &target).await;
                let session = new_session();
                let written = session
                    .repository(&target.spec, false)
                    .await
                    .expect("opens");
                let after = only_version(&written).await;
                assert_eq!(text(&after, 0).await, content, "{path} to {kind}");
                // Where content is does not belong to what is signed; what is signed stays.
                let digest = |version: &ComponentVersion| {
                    let resource = version.descriptor.resources().next().expect("one");
                    resource.digest().map(|digest| digest.to_value())
                };
                if digest(&before).is_some() {
                    assert_eq!(digest(&after), digest(&before));
                }
                let signatures = |version: &ComponentVersion| {
                    version.descriptor.document().get("signatures").cloned()
                };
                assert_eq!(signatures(&after), signatures(&before));
                let access = after.descriptor.resources().next().expect("one");
                let access = access.access_value().expect("one").clone();
                assert_eq!(access["type"], "localBlob");
                let lines = essence(&target).await;
                assert_eq!(
                    *expected.get_or_insert(lines.clone()),
                    lines,
                    "{path} to {kind}"
                );
            }
        }
    }
}

const DESCRIPTOR: &str = "\
meta: {schemaVersion: v2}
component:
  name: acme.org/x
  version: 1.0.0+2
  provider: acme
  repositoryContexts: []
  sources:
  - {name: s, version: '1', type: blob, access: {type: localBlob, localReference: NAME, mediaType: text/x}}
  resources:
  - {name: r, version: '1', type: blob, relation: local, access: {type: localFilesystemBlob, FILENAME: NAME}}
  componentReferences: []
";

/// The descriptor with that local reference, in a field of that name.
fn document(field: &str, name: &str) -> String {
    let document = DESCRIPTOR.replace("FILENAME", field);
    document.replace("NAME", name)
}

#[tokio::test]
async fn names_in_any_spelling_and_sources_too() {
    let hex = Digest::sha256(b"hello").hex().to_owned();
    let dotted = format!("sha256.{hex}");
    let colon = format!("sha256:{hex}");
    for (name, file) in [
        (dotted.as_str(), dotted.as_str()),
        (colon.as_str(), dotted.as_str()),
        ("some.txt", "some.txt"),
        ("deep/down/some.txt", "deep/down/some.txt"),
    ] {
        for field in ["fileName", "filename"] {
            let temp = TempDir::new().expect("temp");
            let folder = temp.path().join("archive");
            let blob = folder.join("blobs").join(file);
            std::fs::create_dir_all(blob.parent().expect("a folder")).expect("made");
            std::fs::write(blob, "hello").expect("written");
            let descriptor = document(field, name);
            std::fs::write(folder.join("component-descriptor.yaml"), descriptor).expect("written");
            for form in in_every_form(&folder, &temp) {
                let version = only_version(&open(&form).await).await;
                assert_eq!(version.descriptor.version(), "1.0.0+2");
                assert_eq!(text(&version, 0).await, "hello", "{name}");
                let source = version.descriptor.sources().next().expect("one");
                let Content::Blob(blob) = version.local_blob(&source).expect("local") else {
                    panic!("a blob");
                };
                assert_eq!(blob.media_type, "text/x");
                // Both elements share one layer where the digest is the name.
                check_readable(version.store()).await;
            }
        }
    }
}

#[tokio::test]
async fn they_are_read_only_and_known_by_what_is_in_them() {
    let temp = TempDir::new().expect("temp");
    let folder = temp.path().join("archive");
    std::fs::create_dir_all(folder.join("blobs")).expect("made");
    let descriptor = document("fileName", "x");
    std::fs::write(folder.join("component-descriptor.yaml"), &descriptor).expect("written");
    let empty = temp.path().join("empty");
    std::fs::create_dir_all(&empty).expect("made");
    std::fs::write(
        empty.join("artifact-index.json"),
        r#"{"schemaVersion":1,"artifacts":null}"#,
    )
    .expect("written");
    let missing = temp.path().join("missing");
    let session = new_session();
    for (type_name, path, write, expected) in [
        ("ComponentArchive/v1", &folder, false, None),
        ("ca", &folder, false, None),
        ("CommonTransportFormat/v1", &folder, false, None),
        (
            "CommonTransportFormat/v1",
            &folder,
            true,
            Some((ErrorKind::Unsupported, "component archives are read only")),
        ),
        (
            "ComponentArchive/v1",
            &missing,
            true,
            Some((ErrorKind::Unsupported, "component archives are read only")),
        ),
        (
            "ComponentArchive/v1",
            &missing,
            false,
            Some((ErrorKind::NotFound, "missing")),
        ),
        (
            "ComponentArchive",
            &empty,
            false,
            Some((ErrorKind::Invalid, "has no component-descriptor.yaml")),
        ),
    ] {
        let RepositorySpec::Ctf(spec) = RepositorySpec::ctf(path.display().to_string()) else {
            unreachable!("built as a CTF");
        };
        let spec = RepositorySpec::Ctf(CtfRepositorySpec {
            type_name: type_name.to_owned(),
            ..spec
        });
        let opened = session.repository(&spec, write).await;
        match (opened, expected) {
            (Ok(repository), None) => {
                only_version(&repository).await;
            }
            (Err(error), Some((kind, message))) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(message), "{error}");
            }
            (found, _) => panic!("{type_name} {}: {found:?}", path.display()),
        }
    }
    let before = files(&folder);
    assert_eq!(before.len(), 1, "nothing was written");
}

#[tokio::test]
async fn what_could_be_understood_in_two_ways_or_leads_out_is_refused() {
    let plain = document("fileName", "x");
    let out = document("fileName", "../component-descriptor.yaml");
    let absolute = document("fileName", "/etc/passwd");
    let index = r#"{"schemaVersion":1,"artifacts":null}"#;
    for (entries, expected) in [
        (
            vec![
                ("component-descriptor.yaml", plain.as_str()),
                ("artifact-index.json", index),
            ],
            "it may be an archive of either kind",
        ),
        (
            vec![
                ("component-descriptor.yaml", &plain),
                ("component-descriptor.yaml", &plain),
            ],
            "has two entries `component-descriptor.yaml`",
        ),
        (
            vec![
                ("component-descriptor.yaml", &plain),
                ("blobs/x", "1"),
                ("blobs/x", "2"),
            ],
            "has two entries `blobs/x`",
        ),
        (
            vec![("component-descriptor.yaml", &out)],
            "leads out of the archive",
        ),
        (
            vec![("component-descriptor.yaml", &absolute)],
            "leads out of the archive",
        ),
        (
            vec![("component-descriptor.yaml", "[]")],
            "component-descriptor.yaml",
        ),
        (
            vec![("component-descriptor.yaml", "a: [")],
            "component-descriptor.yaml",
        ),
    ] {
        for compressed in [false, true] {
            let temp = TempDir::new().expect("temp");
            let path = temp.path().join("archive");
            let packed = tar(entries.iter().copied());
            let bytes = if compressed { gzip(&packed) } else { packed };
            std::fs::write(&path, bytes).expect("written");
            let error = open(&path).await.components().await.expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
    // The digest in a file's name is checked by whoever reads it.
    let temp = TempDir::new().expect("temp");
    let name = format!("sha256.{}", Digest::sha256(b"good").hex());
    let descriptor = document("fileName", &name);
    let file = format!("blobs/{name}");
    let packed = tar([
        ("component-descriptor.yaml", descriptor.as_str()),
        (&file, "evil"),
    ]);
    let path = temp.path().join("archive");
    std::fs::write(&path, packed).expect("written");
    let version = only_version(&open(&path).await).await;
    let element = version.descriptor.resources().next().expect("one");
    let Content::Blob(blob) = version.local_blob(&element).expect("local") else {
        panic!("a blob");
    };
    let error = blob.read(100).await.expect_err("it lies");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
}

#[cfg(unix)]
#[tokio::test]
async fn links_in_them_are_not_followed() {
    let secret = TempDir::new().expect("temp");
    std::fs::write(secret.path().join("secret"), "secret").expect("written");
    for (link, to) in [
        ("blobs", ""),
        ("blobs/x", "secret"),
        ("blobs/x/y", "secret"),
    ] {
        let temp = TempDir::new().expect("temp");
        let descriptor = document("fileName", if link == "blobs" { "secret" } else { "x" });
        std::fs::write(temp.path().join("component-descriptor.yaml"), descriptor).expect("written");
        let at = temp.path().join(link);
        std::fs::create_dir_all(at.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink(secret.path().join(to), at).expect("linked");
        let error = open(temp.path()).await.components().await.expect_err(link);
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
}
