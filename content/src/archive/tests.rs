use std::path::PathBuf;
use std::sync::Mutex;

use futures::TryStreamExt;

use super::*;
use crate::artifact::{Composed, Part};
use crate::conformance::check_readable;
use crate::copy::{Copier, Referrers};
use crate::error::ErrorKind;
use crate::gzip::gzip;
use crate::limits::LimitsConfig;
use crate::locations::Locations;
use crate::memory::MemoryStores;
use crate::store::Stores;
use crate::tarball::TarWriter;

fn limits() -> Arc<Limits> {
    Limits::new(LimitsConfig {
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    })
}

/// The vectors shared by all crates; `None`, with a reason, where they are not at hand.
fn vectors() -> Option<PathBuf> {
    let near = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let root = std::env::var_os("OCM_VECTORS").map_or(near, PathBuf::from);
    if root.is_dir() {
        return Some(root);
    }
    let required = std::env::var_os("OCM_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "vectors are required");
    println!("skipped: no vectors at {}", root.display());
    None
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = files.iter().map(|(path, bytes)| {
        let entry = TarEntry::file(*path, bytes.len() as u64);
        (entry, bytes.to_vec())
    });
    tar_of(entries.collect())
}

fn tar_of(entries: Vec<(TarEntry, Vec<u8>)>) -> Vec<u8> {
    let mut writer = TarWriter::new();
    let mut out = Vec::new();
    for (entry, bytes) in entries {
        out.extend(writer.entry(&entry).unwrap());
        out.extend(writer.data(bytes.into()).unwrap());
    }
    out.extend(writer.finish().unwrap());
    out
}

async fn compressed(bytes: Vec<u8>) -> Vec<u8> {
    let input = Box::pin(stream::iter([Ok(Bytes::from(bytes))]));
    let chunks: Vec<Bytes> = gzip(input, 6, &limits()).try_collect().await.unwrap();
    chunks.concat()
}

/// Bytes that can be read once, or again at any offset, but are not in memory.
#[derive(Debug)]
struct Toy(Bytes, Access, Mutex<bool>);

fn toy(bytes: &[u8], access: Access) -> Blob {
    let bytes = Bytes::copy_from_slice(bytes);
    Blob::new("x/y", Arc::new(Toy(bytes, access, Mutex::new(false))))
}

impl Source for Toy {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let again = std::mem::replace(&mut *self.2.lock().unwrap(), true);
        if again && self.1 == Access::Once {
            return Box::pin(async { Err(Error::new(ErrorKind::Consumed, "again")) });
        }
        let bytes = self.0.slice((offset as usize).min(self.0.len())..);
        let chunks: Vec<_> = bytes
            .chunks(999)
            .map(Bytes::copy_from_slice)
            .map(Ok)
            .collect();
        Box::pin(async move { Ok(Box::pin(stream::iter(chunks)) as ByteStream) })
    }
    fn access(&self) -> Access {
        self.1
    }
}

/// Copies the artifact into an empty memory store, which checks every part.
async fn copy_out(artifact: &Artifact) -> Result<(Descriptor, Arc<dyn ContentStore>)> {
    let target = MemoryStores::new().store("out").unwrap();
    let copier = Copier::new(limits(), Locations::new());
    let (root, _) = copier.copy(artifact, &target, Some("t")).await?;
    Ok((root, target))
}

/// An image with a large layer, its parts by digest.
fn image() -> (RawManifest, BTreeMap<Digest, Vec<u8>>) {
    let (config, layer) = (b"{}".to_vec(), vec![9_u8; 2 << 20]);
    let manifest = RawManifest::write(&Manifest::image(
        Descriptor::of(media_type::OCI_CONFIG, &config),
        vec![Descriptor::of(media_type::OCI_LAYER_TAR, &layer)],
    ));
    let parts = [config, layer, manifest.bytes.to_vec()];
    let parts = parts.map(|bytes| (Digest::sha256(&bytes), bytes));
    (manifest, parts.into())
}

fn index_json(links: Vec<Descriptor>, annotations: &[(&str, String)]) -> Vec<u8> {
    let mut index = Manifest::index(links);
    let pairs = annotations
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.clone()));
    index.annotations = (!annotations.is_empty()).then(|| pairs.collect());
    index.to_bytes()
}

#[tokio::test]
async fn all_variants_open_in_every_form() {
    let (manifest, parts) = image();
    let mut link = manifest.descriptor();
    link.annotations = Some([(TAGS.to_owned(), "6.7.1,latest".to_owned())].into());
    let main = [(MAIN, manifest.digest.to_string())];
    let layout: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
    for (index, separator, with_layout, annotations) in [
        (INDEX, '/', true, &main[..0]),
        (INDEX, '/', true, &main[..]),
        (INDEX, '.', true, &main[..]),
        (SET_INDEXES[0], '.', false, &main[..]),
        (SET_INDEXES[1], '.', false, &main[..0]),
    ] {
        let names: Vec<_> = parts
            .keys()
            .map(|digest| format!("blobs/sha256{separator}{}", digest.hex()))
            .collect();
        let mut files: Vec<(&str, &[u8])> = names
            .iter()
            .map(String::as_str)
            .zip(parts.values().map(Vec::as_slice))
            .collect();
        let index_bytes = index_json(vec![link.clone()], annotations);
        files.push((index, &index_bytes));
        files.push(("./ignored", b"x"));
        if with_layout {
            files.push((LAYOUT, layout));
        }
        let plain = tar(&files);
        let packed = compressed(plain.clone()).await;
        for (bytes, access, spooled) in [
            (&plain, Access::Reopenable, false),
            (&plain, Access::Once, true),
            (&packed, Access::Reopenable, true),
            (&packed, Access::Once, true),
        ] {
            let limits = limits();
            let artifact = open_archive(&toy(bytes, access), &limits).await.unwrap();
            assert_eq!(artifact.tag(), Some("6.7.1"));
            assert_eq!(limits.spool().used() > 0, spooled);
            let (root, target) = copy_out(&artifact).await.unwrap();
            assert_eq!(root.digest, manifest.digest);
            assert_eq!(target.manifest("t").await.unwrap(), manifest);
            drop(artifact);
            let expect = |root| expect_artifact(toy(bytes, access), root, &limits);
            let passed = expect(manifest.digest.clone()).read(u64::MAX).await;
            assert_eq!(passed.unwrap(), *bytes);
            let other = expect(Digest::sha256(b"{}")).read(u64::MAX).await;
            assert_eq!(other.unwrap_err().kind(), ErrorKind::Mismatch);
            assert_eq!((limits.spool().used(), limits.window().used()), (0, 0));
        }
    }
}

#[tokio::test]
async fn content_is_held_to_what_else_is_said_of_it() {
    let limits = limits();
    let (manifest, parts) = image();
    let names: Vec<_> = parts
        .keys()
        .map(|digest| format!("blobs/sha256/{}", digest.hex()))
        .collect();
    let index = index_json(vec![manifest.descriptor()], &[]);
    let mut files: Vec<(&str, &[u8])> = names
        .iter()
        .map(String::as_str)
        .zip(parts.values().map(Vec::as_slice))
        .collect();
    files.push((INDEX, &index));
    let good = tar(&files);
    let mut damaged = good.clone();
    let layer = damaged.windows(512).position(|part| part == [9; 512]);
    damaged[layer.unwrap() + 700] = 8;
    let without_root: Vec<_> = files
        .iter()
        .filter(|(path, _)| !path.ends_with(manifest.digest.hex()))
        .copied()
        .collect();
    files.push((INDEX, &index));
    let root = manifest.digest.clone();
    for (bytes, kind) in [
        (good.clone(), None),
        (damaged, Some(ErrorKind::Mismatch)),
        (tar(&without_root), Some(ErrorKind::Mismatch)),
        (tar(&files), Some(ErrorKind::Mismatch)),
        (good[..good.len() / 2].to_vec(), Some(ErrorKind::Mismatch)),
        (b"\0asm and no archive".to_vec(), Some(ErrorKind::Mismatch)),
        (Vec::new(), Some(ErrorKind::Mismatch)),
    ] {
        let blob = expect_artifact(toy(&bytes, Access::Reopenable), root.clone(), &limits);
        let read = blob.read(u64::MAX).await;
        assert_eq!(read.as_ref().err().map(Error::kind), kind, "{read:?}");
        assert_eq!(read.is_ok(), bytes == good);
    }
    let sha512 = |bytes: &[u8]| Digest::of(Algorithm::Sha512, bytes);
    for (digest, kind) in [
        (sha512(&good), None),
        (sha512(b""), Some(ErrorKind::Mismatch)),
    ] {
        let blob = Blob::from_bytes("x/y", good.clone());
        let read = expect_also(blob, digest).read(u64::MAX).await;
        assert_eq!(read.err().map(|error| error.kind()), kind);
    }
}

#[tokio::test]
async fn archives_made_by_the_go_tools_open() {
    let Some(vectors) = vectors() else {
        return;
    };
    let chart = "ctf/v1-helm-chart/with-resource/blobs/sha256.e40e3a2f1ab1a98328dfd14539a79d27aff5c4d5c34cd16a85f0288bfa76490b";
    for (path, tag) in [
        ("oci/artifact-set-helm-chart.tgz", Some("0.1.0")),
        (chart, Some("6.7.1")),
        ("oci/oci-layout.tar.gz", None),
    ] {
        let blob = Blob::from_file("x/y", vectors.join(path)).await.unwrap();
        let artifact = open_archive(&blob, &limits()).await.unwrap();
        assert_eq!(artifact.tag(), tag, "{path}");
        copy_out(&artifact).await.unwrap();
    }
}

#[tokio::test]
async fn a_layout_is_deterministic_sized_and_opens_again_at_any_offset() {
    let (manifest, parts) = image();
    let store = MemoryStores::new().store("app").unwrap();
    for bytes in parts.values() {
        store
            .push(&Blob::from_bytes("x/y", bytes.clone()), &[])
            .await
            .unwrap();
    }
    store.put_manifest(&manifest, Some("1")).await.unwrap();
    let root = RawManifest::write(&Manifest::index(vec![manifest.descriptor()]));
    store.put_manifest(&root, Some("2")).await.unwrap();
    let stored = |root: &RawManifest| {
        Artifact::Stored(Stored {
            root: root.descriptor(),
            store: store.clone(),
            tag: None,
        })
    };
    for root in [&manifest, &root] {
        let blob = layout_tar(&stored(root), Some("v1"), &limits())
            .await
            .unwrap();
        let bytes = blob.read(1 << 30).await.unwrap();
        assert_eq!(blob.size, Some(bytes.len() as u64));
        assert!(bytes == blob.read(1 << 30).await.unwrap());
        for offset in [
            0,
            1,
            511,
            512,
            1_700,
            3_000,
            2 << 20,
            bytes.len() - 1,
            bytes.len(),
        ] {
            let rest = blob.open_at(offset as u64).await.unwrap();
            let rest: Vec<Bytes> = rest.try_collect().await.unwrap();
            assert!(rest.concat() == bytes[offset..], "offset {offset}");
        }
        let paths: Vec<_> = tar::Archive::new(&bytes[..])
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
            .collect();
        assert_eq!(paths[..2], [LAYOUT, INDEX]);
        assert!(paths[2..].is_sorted());
        let artifact = open_archive(&blob, &limits()).await.unwrap();
        assert_eq!(artifact.tag(), Some("v1"));
        assert_eq!(copy_out(&artifact).await.unwrap().0.digest, root.digest);
    }
    let composed = Artifact::Composed(Composed {
        template: manifest.clone(),
        store: store.clone(),
        replaced: [(Part::Layer(0), toy(b"new layer", Access::Once))].into(),
        dropped: vec![],
        tag: None,
    });
    let blob = layout_tar(&composed, None, &limits()).await.unwrap();
    let artifact = open_archive(&blob, &limits()).await.unwrap();
    let (_, target) = copy_out(&artifact).await.unwrap();
    let layers = target
        .manifest("t")
        .await
        .unwrap()
        .parse()
        .unwrap()
        .layers
        .unwrap();
    assert_eq!(layers[0].digest, Digest::sha256(b"new layer"));
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let (manifest, parts) = image();
    let link = manifest.descriptor();
    let other = Descriptor::of(media_type::OCI_MANIFEST, b"other");
    let index = index_json(vec![link.clone()], &[]);
    let blob_path = format!("blobs/sha256/{}", manifest.digest.hex());
    let own = (blob_path.as_str(), &manifest.bytes[..]);
    let with = |mut entry: TarEntry, kind: TarKind| {
        entry.kind = kind;
        tar_of(vec![(entry, Vec::new())])
    };
    let file = TarEntry::file("blobs/x", 0);
    let good = tar(&[(INDEX, &index), own]);
    let second = {
        let bytes = RawManifest::write(&Manifest::index(vec![]));
        let path = format!("blobs/sha256/{}", bytes.digest.hex());
        let index = index_json(vec![link.clone(), bytes.descriptor()], &[]);
        tar(&[(INDEX, &index), own, (&path, &bytes.bytes)])
    };
    let named = index_json(vec![link.clone()], &[(MAIN, other.digest.to_string())]);
    let zip = compressed(good.clone()).await;
    for (name, bytes, kind) in [
        (
            "outside",
            tar(&[("../index.json", &index)]),
            ErrorKind::Invalid,
        ),
        (
            "absolute",
            tar(&[("/index.json", &index)]),
            ErrorKind::Invalid,
        ),
        (
            "twice",
            tar(&[(INDEX, &index), ("./index.json", &index)]),
            ErrorKind::Invalid,
        ),
        (
            "symlink",
            with(file.clone(), TarKind::Symlink("/etc".into())),
            ErrorKind::Invalid,
        ),
        (
            "hardlink",
            with(file.clone(), TarKind::Hardlink("y".into())),
            ErrorKind::Invalid,
        ),
        (
            "device",
            with(file, TarKind::Other(b'3')),
            ErrorKind::Invalid,
        ),
        ("cut", good[..700].to_vec(), ErrorKind::Invalid),
        (
            "cut gzip",
            zip[..zip.len() / 2].to_vec(),
            ErrorKind::Invalid,
        ),
        ("no index", tar(&[("a", b"b")]), ErrorKind::Invalid),
        ("no json", tar(&[(INDEX, b"{")]), ErrorKind::Invalid),
        (
            "empty",
            tar(&[(INDEX, &index_json(vec![], &[]))]),
            ErrorKind::Invalid,
        ),
        ("two artifacts", second, ErrorKind::Invalid),
        (
            "main is elsewhere",
            tar(&[(INDEX, &named), own]),
            ErrorKind::Invalid,
        ),
        (
            "future",
            tar(&[
                (INDEX, &index),
                (LAYOUT, br#"{"imageLayoutVersion":"2.0"}"#),
            ]),
            ErrorKind::Unsupported,
        ),
        (
            "huge index",
            tar(&[(INDEX, &vec![b' '; (4 << 20) + 1])]),
            ErrorKind::Limit,
        ),
        ("not a tar", vec![7; 5_000], ErrorKind::Invalid),
        ("nothing", Vec::new(), ErrorKind::Invalid),
    ] {
        for access in [Access::Reopenable, Access::Once] {
            let opened = open_archive(&toy(&bytes, access), &limits()).await;
            let error = opened.expect_err(name);
            assert_eq!(error.kind(), kind, "{name}: {error}");
        }
    }
    // A part that is not what its name says is found when it is read; one that is missing, too.
    let path = format!("blobs/sha256/{}", link.digest.hex());
    let mut wrong = tar(&[(INDEX, &index), (&path, &vec![b'x'; link.size as usize])]);
    for kind in [ErrorKind::Mismatch, ErrorKind::NotFound] {
        let artifact = open_archive(&toy(&wrong, Access::Once), &limits())
            .await
            .unwrap();
        assert_eq!(copy_out(&artifact).await.unwrap_err().kind(), kind);
        wrong = tar(&[(INDEX, &index)]);
    }
    // What a small archive unpacks to is bounded by the run's budget, and by its own length.
    let bomb = compressed(tar(&[("blobs/zeros", &vec![0; 8 << 20])])).await;
    for (spool, unpacked, most) in [(1 << 20, 1 << 30, 1 << 20), (1 << 30, 2 << 20, 2 << 20)] {
        let small = Limits::new(LimitsConfig {
            spool,
            unpacked,
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        });
        let error = open_archive(&toy(&bomb, Access::Once), &small)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(small.spool().peak() <= most, "{}", small.spool().peak());
        assert_eq!((small.spool().used(), parts.len()), (0, 3));
    }
}

#[tokio::test]
async fn the_one_entry_that_nothing_contains_and_that_refers_to_nothing_is_the_main_one() {
    let (manifest, mut parts) = image();
    let index = RawManifest::write(&Manifest::index(vec![manifest.descriptor()]));
    let mut signature = Manifest::image(Descriptor::of(media_type::OCI_EMPTY, b"{}"), vec![]);
    signature.subject = Some(index.descriptor());
    let signature = RawManifest::write(&signature);
    for raw in [&index, &signature] {
        parts.insert(raw.digest.clone(), raw.bytes.to_vec());
    }
    let links = [&signature, &manifest, &index].map(RawManifest::descriptor);
    let json = index_json(links.to_vec(), &[]);
    let names: Vec<_> = parts
        .keys()
        .map(|d| format!("blobs/sha256/{}", d.hex()))
        .collect();
    let mut files = vec![(INDEX, json.as_slice())];
    files.extend(
        names
            .iter()
            .map(String::as_str)
            .zip(parts.values().map(Vec::as_slice)),
    );
    let blob = toy(&tar(&files), Access::Reopenable);
    let artifact = open_archive(&blob, &limits()).await.unwrap();
    assert_eq!(
        artifact.root().map(|root| &root.digest),
        Some(&index.digest)
    );
    // Its referrer travels.
    let (_, target) = copy_out(&artifact).await.unwrap();
    assert!(target.exists(&signature.descriptor()).await.unwrap());
}

#[test]
fn tags_are_bare() {
    for (name, tag) in [
        ("6.7.1", Some("6.7.1")),
        ("app:1", Some("1")),
        ("ghcr.io:443/acme/app:1", Some("1")),
        ("ghcr.io:443/acme/app:1@sha256:00", Some("1")),
        ("ghcr.io:443/acme/app", None),
        ("", None),
    ] {
        let mut link = Descriptor::of("x/y", b"");
        link.annotations = Some([(REF_NAME.to_owned(), name.to_owned())].into());
        assert_eq!(tag_of(&link).as_deref(), tag, "{name}");
    }
}

#[tokio::test]
async fn artifact_sets_are_written_as_v1_writes_them() {
    let Some(root) = vectors() else { return };
    for (path, tag) in [
        ("oci/artifact-set-helm-chart.tgz", "0.1.0"),
        (
            "ctf/v1-helm-chart/with-resource/blobs/sha256.e40e3a2f1ab1a98328dfd14539a79d27aff5c4d5c34cd16a85f0288bfa76490b",
            "6.7.1",
        ),
    ] {
        let source = Blob::from_file("", root.join(path)).await.unwrap();
        let plain = gunzip(source.open().await.unwrap(), &limits());
        let plain = plain.try_collect::<Vec<_>>().await.unwrap().concat();
        let artifact = open_archive(&source, &limits()).await.unwrap();
        assert_eq!(artifact.tag(), Some(tag));
        let form = ArchiveForm::LegacySet;
        let written = archive(&artifact, form, Some(tag), Referrers::All, &limits())
            .await
            .unwrap();
        assert_eq!(
            written.media_type,
            "application/vnd.oci.image.manifest.v1+tar"
        );
        assert_eq!(written.size, Some(plain.len() as u64));
        assert!(written.read(1 << 20).await.unwrap() == plain, "{path}");
    }
}

#[tokio::test]
async fn what_is_written_in_any_form_opens_again_whole() {
    let memory = MemoryStores::new().store("x").unwrap();
    let mut put = Vec::new();
    for text in ["one", "two"] {
        let layer = Blob::from_bytes(media_type::OCI_LAYER_TAR, text);
        let config = Blob::from_bytes(media_type::OCI_CONFIG, "{}");
        for blob in [&layer, &config] {
            memory.push(blob, &[]).await.unwrap();
        }
        let links = [config, layer].map(|blob| blob.descriptor().unwrap());
        let [config, layer] = links;
        let manifest = RawManifest::write(&Manifest::image(config, vec![layer]));
        memory.put_manifest(&manifest, None).await.unwrap();
        put.push(manifest.descriptor());
    }
    let index = RawManifest::write(&Manifest::index(put.clone()));
    memory.put_manifest(&index, None).await.unwrap();
    let mut refers = Vec::new();
    // One to the index, one to a child of it, one to the first of these.
    for (text, subject) in [
        ("a", Some(index.descriptor())),
        ("b", put.pop()),
        ("c", None),
    ] {
        let layer = Blob::from_bytes("text/plain", text);
        let layer = memory.push(&layer, &[]).await.unwrap().descriptor;
        let mut referrer = Manifest::image(layer.clone(), vec![layer]);
        referrer.subject = subject.or_else(|| refers.first().map(RawManifest::descriptor));
        let referrer = RawManifest::write(&referrer);
        memory.put_manifest(&referrer, None).await.unwrap();
        refers.push(referrer);
    }
    let artifact = Artifact::Stored(Stored {
        root: index.descriptor(),
        store: memory,
        tag: None,
    });
    for form in ArchiveForm::ALL {
        for gzipped in [false, true] {
            let limits = limits();
            let written = archive(&artifact, form, Some("1"), Referrers::All, &limits);
            let written = written.await.unwrap();
            assert!(
                media_type::is_artifact_archive(&written.media_type),
                "{form:?}"
            );
            let mut bytes = written.read(1 << 20).await.unwrap().to_vec();
            if gzipped {
                bytes = compressed(bytes).await;
            }
            let blob = toy(&bytes, Access::Reopenable);
            let again = open_archive(&blob, &limits).await.unwrap();
            assert_eq!(again.root(), Some(&index.descriptor()), "{form:?}");
            assert_eq!(again.tag(), Some("1"), "{form:?}");
            let Artifact::Stored(stored) = &again else {
                panic!("it lies in an archive");
            };
            let parts = check_readable(&stored.store).await;
            assert_eq!(parts, 1 + 2 + 3 + 3 + 3, "{form:?}");
            let (root, target) = copy_out(&again).await.unwrap();
            assert_eq!(root.digest, index.digest);
            for referrer in &refers {
                let found = target.manifest(&referrer.digest.to_string()).await.unwrap();
                assert_eq!(found.bytes, referrer.bytes, "{form:?}");
            }
        }
    }
}
