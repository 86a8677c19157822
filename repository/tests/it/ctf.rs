//! CTF archives: all forms read, the directory form written by many at once, hostile input refused.

#![expect(clippy::print_stderr, reason = "a test that can't run says why")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use ocm_content::conformance::{Capabilities, check_stores};
use ocm_content::limits::LimitsConfig;
use ocm_content::{Blob, ContentStore, ErrorKind, Limits, Meter, Outcome, RawManifest, Stores};
use ocm_repository::ctf::{Access, Ctf, CtfOptions, Form};
use ocm_specs::media_type::{OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest};
use tempfile::TempDir;

const HELLO: &str = "component-descriptors/github.com/acme.org/helloworld";

pub(crate) fn options(access: Access) -> CtfOptions {
    CtfOptions {
        access,
        limits: Limits::new(LimitsConfig {
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        }),
    }
}

pub(crate) async fn open(path: &Path, access: Access) -> Arc<Ctf> {
    Ctf::open(path, options(access)).await.expect("opens")
}

/// A folder of the shared vectors; `None`, with a word about it, where there are none.
pub(crate) fn vectors(path: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let root = std::env::var_os("OCM_VECTORS").map_or(default, PathBuf::from);
    let found = root.join(path);
    if !found.exists() {
        assert!(
            std::env::var_os("OCM_REQUIRE_PEERS").is_none_or(|value| value != "1"),
            "{} is required",
            found.display()
        );
        eprintln!("skipped: no vectors at {}", found.display());
        return None;
    }
    Some(found)
}

/// All files below a folder with their content.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .expect("below")
                    .display()
                    .to_string();
                found.insert(name, std::fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

pub(crate) fn blob(text: &str) -> Blob {
    Blob::from_bytes(OCI_LAYER_TAR, text.to_owned())
}

fn link(blob: &Blob) -> Descriptor {
    let digest = blob.digest.clone().expect("known");
    Descriptor::new(blob.media_type.clone(), digest, blob.size.expect("known"))
}

/// Pushes an image of these layers; its manifest under `tag`.
pub(crate) async fn put_image(
    store: &dyn ContentStore,
    layers: &[&str],
    tag: Option<&str>,
) -> RawManifest {
    put(store, layers, tag, None).await
}

async fn put(
    store: &dyn ContentStore,
    layers: &[&str],
    tag: Option<&str>,
    subject: Option<Descriptor>,
) -> RawManifest {
    let config = Blob::from_bytes(OCI_CONFIG, "{}");
    store.push(&config, &[]).await.expect("config");
    let mut links = Vec::new();
    for layer in layers {
        let pushed = store.push(&blob(layer), &[]).await.expect("layer");
        links.push(pushed.descriptor);
    }
    let mut manifest = Manifest::image(link(&config), links);
    manifest.subject = subject;
    let manifest = RawManifest::write(&manifest);
    store.put_manifest(&manifest, tag).await.expect("manifest");
    manifest
}

async fn read(blob: &Blob) -> Result<Bytes, ocm_content::Error> {
    blob.read(1 << 20).await
}

#[tokio::test]
async fn reads_what_the_reference_wrote_in_every_form() {
    for (path, form, blobs, has) in [
        (
            "v1-utf8-resource/transport-archive",
            Form::Directory,
            4,
            Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ),
        (
            "v1-utf8-resource/transport-archive.tar",
            Form::Tar,
            4,
            Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ),
        (
            "v1-utf8-resource/transport-archive.tar.gz",
            Form::Tgz,
            4,
            Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ),
        (
            "v1-helm-chart/with-resource",
            Form::Directory,
            4,
            Some("e40e3a2f1ab1a98328dfd14539a79d27aff5c4d5c34cd16a85f0288bfa76490b"),
        ),
        ("v1-helm-chart/without-resource", Form::Directory, 3, None),
    ] {
        let Some(path) = vectors("ctf").map(|root| root.join(path)) else {
            return;
        };
        let ctf = open(&path, Access::ReadOnly).await;
        assert_eq!(ctf.form(), form);
        assert_eq!(ctf.repositories().await.expect("listed"), [HELLO]);
        let store = ctf.store(HELLO).expect("a repository");
        assert_eq!(store.tags().await.expect("listed"), ["1.0.0"]);
        let raw = store.manifest("1.0.0").await.expect("there");
        // The index of v1 has no media type: it comes from the manifest itself.
        assert_eq!(raw.media_type, OCI_MANIFEST);
        assert_eq!(
            store.resolve("1.0.0").await.expect("there"),
            raw.descriptor()
        );
        let by_digest = store.manifest(&raw.digest.to_string()).await;
        assert_eq!(by_digest.expect("there"), raw);
        let manifest = raw.parse().expect("a manifest");
        let mut count = 1;
        let mut contents = Vec::new();
        for part in manifest.blobs() {
            assert!(store.exists(part).await.expect("looked"));
            let bytes = read(&store.fetch(part)).await.expect("verifies");
            contents.push((part.digest.hex().to_owned(), bytes));
            count += 1;
        }
        assert_eq!(count, blobs, "{}", path.display());
        if let Some(hex) = has {
            let content = contents.iter().find(|(digest, _)| digest == hex);
            let (_, bytes) = content.expect("listed in the manifest");
            assert!(!hex.starts_with("9f86") || bytes == "test");
        }
    }
}

#[tokio::test]
async fn an_index_without_artifacts_is_empty() {
    let Some(path) = vectors("ctf/empty-index") else {
        return;
    };
    let ctf = open(&path, Access::ReadOnly).await;
    assert!(ctf.repositories().await.expect("listed").is_empty());
    let store = ctf.store("x/y").expect("a repository");
    assert!(store.tags().await.expect("listed").is_empty());
    let error = store.manifest("1").await.expect_err("nothing there");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = store.push(&blob("x"), &[]).await.expect_err("read only");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn the_directory_form_keeps_the_contract_of_stores() {
    let able = Capabilities {
        mount: false,
        isolated: false,
        ..Capabilities::all()
    };
    let temp = TempDir::new().expect("temp");
    let stores = open(temp.path(), Access::Create).await;
    check_stores(stores, able).await;
}

#[tokio::test]
async fn nothing_is_written_before_the_first_content_and_nothing_is_left_beside_it() {
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("a/b/ctf");
    let ctf = open(&path, Access::Create).await;
    assert!(ctf.repositories().await.expect("listed").is_empty());
    assert!(!temp.path().join("a").exists());

    let store = ctf.store("acme/x").expect("a repository");
    let manifest = put_image(&*store, &["one", "two"], Some("1")).await;
    let again = store.push(&blob("one"), &[]).await.expect("pushed");
    assert_eq!(again.outcome, Outcome::Present);
    assert_eq!(store.manifest("1").await.expect("there"), manifest);
    drop((store, ctf));

    let found = files(&path);
    let mut expected = vec!["artifact-index.json".to_owned()];
    let digests = [
        Digest::sha256(b"{}"),
        Digest::sha256(b"one"),
        Digest::sha256(b"two"),
        manifest.digest.clone(),
    ];
    expected.extend(
        digests
            .iter()
            .map(|digest| format!("blobs/sha256.{}", digest.hex())),
    );
    expected.sort();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
    assert!(!path.join(".staging").exists());
    assert_eq!(
        String::from_utf8_lossy(&found["artifact-index.json"]),
        format!(
            r#"{{"schemaVersion":1,"artifacts":[{{"repository":"acme/x","tag":"1","digest":"{}","mediaType":"{OCI_MANIFEST}"}}]}}"#,
            manifest.digest
        )
    );
    // A second run that finds everything there leaves every byte and the index file itself alone.
    let before = path.join("artifact-index.json").metadata().expect("there");
    let ctf = open(&path, Access::ReadWrite).await;
    put_image(
        &*ctf.store("acme/x").expect("a repository"),
        &["one", "two"],
        Some("1"),
    )
    .await;
    drop(ctf);
    assert_eq!(files(&path), found);
    let after = path.join("artifact-index.json").metadata().expect("there");
    assert_eq!(
        before.modified().expect("known"),
        after.modified().expect("known")
    );
}

#[tokio::test]
async fn what_was_written_first_does_not_matter() {
    let mut expected = None;
    for turn in 0..6 {
        let temp = TempDir::new().expect("temp");
        let ctf = open(temp.path(), Access::Create).await;
        let names = ["acme/c", "acme/a", "acme/b"];
        for step in 0..names.len() {
            let store = ctf
                .store(names[(step * 2 + turn) % 3])
                .expect("a repository");
            // An index with children, tagged; a referrer of it; another tag of one child.
            let mut children = Vec::new();
            for child in [turn % 2, (turn + 1) % 2] {
                let name = ["amd", "arm"][child];
                children.push((child, put_image(&*store, &[name], None).await.descriptor()));
            }
            children.sort_by_key(|(child, _)| *child);
            let children: Vec<_> = children.into_iter().map(|(_, link)| link).collect();
            let index = RawManifest::write(&Manifest::index(children.clone()));
            let root = index.descriptor();
            let mut work = vec!["index", "tag", "sig", "sbom"];
            work.rotate_left(turn % 4);
            for what in work {
                match what {
                    "index" => store.put_manifest(&index, Some("1.0")).await.expect("put"),
                    "tag" => drop(put_image(&*store, &["amd"], Some("amd")).await),
                    layer => drop(put(&*store, &[layer], None, Some(root.clone())).await),
                }
            }
            assert_eq!(
                store.referrers(&root.digest).await.expect("listed").len(),
                2
            );
            assert_eq!(store.tags().await.expect("listed"), ["1.0", "amd"]);
        }
        drop(ctf);
        let found = files(temp.path());
        let expected = expected.get_or_insert_with(|| found.clone());
        assert_eq!(*expected, found, "turn {turn}");
    }
}

#[tokio::test]
async fn tags_move_and_go() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("r").expect("a repository");
    let one = put_image(&*store, &["one"], Some("t")).await;
    let two = put_image(&*store, &["two"], Some("t")).await;
    assert_eq!(store.resolve("t").await.expect("there"), two.descriptor());
    assert_eq!(
        store.resolve(&one.digest.to_string()).await.expect("there"),
        one.descriptor()
    );
    store.untag("t").await.expect("untagged");
    assert_eq!(
        store.untag("t").await.expect_err("gone").kind(),
        ErrorKind::NotFound
    );
    assert!(store.tags().await.expect("listed").is_empty());
    assert_eq!(
        store
            .manifest(&two.digest.to_string())
            .await
            .expect("by digest"),
        two
    );
    // A blob is no manifest.
    let layer = Digest::sha256(b"one").to_string();
    assert_eq!(
        store
            .manifest(&layer)
            .await
            .expect_err("no manifest")
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn deleting_spares_what_something_reaches() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("r").expect("a repository");
    let other = ctf.store("s").expect("a repository");
    let image = put_image(&*store, &["one"], Some("t")).await;
    let layer = link(&blob("one"));
    assert_eq!(
        store.delete(&layer).await.expect_err("in use").kind(),
        ErrorKind::Conflict
    );
    let referrer = put(&*store, &["sig"], None, Some(image.descriptor())).await;
    assert_eq!(
        store.referrers(&image.digest).await.expect("listed").len(),
        1
    );
    store.delete(&referrer.descriptor()).await.expect("deleted");
    assert!(
        store
            .referrers(&image.digest)
            .await
            .expect("listed")
            .is_empty()
    );
    assert!(!store.exists(&referrer.descriptor()).await.expect("looked"));

    put_image(&*other, &["one"], None).await;
    store
        .delete(&image.descriptor())
        .await
        .expect("deleted here");
    assert!(store.tags().await.expect("listed").is_empty());
    assert!(other.exists(&image.descriptor()).await.expect("looked"));
    other
        .delete(&image.descriptor())
        .await
        .expect("deleted there");
    assert!(!other.exists(&image.descriptor()).await.expect("looked"));
    store.delete(&layer).await.expect("not reached any more");
    assert!(!store.exists(&layer).await.expect("looked"));
    let error = store.delete(&layer).await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_manifest_needs_its_parts() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("r").expect("a repository");
    let config = Blob::from_bytes(OCI_EMPTY, "{}");
    store.push(&config, &[]).await.expect("pushed");
    let manifest = RawManifest::write(&Manifest::image(link(&config), vec![link(&blob("gone"))]));
    let error = store
        .put_manifest(&manifest, Some("t"))
        .await
        .expect_err("a part is missing");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!temp.path().join("artifact-index.json").exists());
    let mut foreign = link(&blob("gone"));
    foreign.urls = Some(vec!["https://example.com/x".to_owned()]);
    let manifest = RawManifest::write(&Manifest::image(link(&config), vec![foreign]));
    store
        .put_manifest(&manifest, Some("t"))
        .await
        .expect("foreign layers may be elsewhere");
    for (name, tag) in [("no tag", "a b"), ("no tag", "")] {
        let error = store
            .put_manifest(&manifest, Some(tag))
            .await
            .expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn staging_verifies_at_the_end() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let big: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for (digest, kind) in [
        (Digest::sha256(&big), None),
        (Digest::of(Algorithm::Sha512, &big), None),
        (Digest::sha256(b"else"), Some(ErrorKind::Mismatch)),
        (
            Digest::of(Algorithm::Sha512, b"else"),
            Some(ErrorKind::Mismatch),
        ),
    ] {
        let mut staged = ctf.stage().await.expect("staged");
        for chunk in big.chunks(70_001) {
            staged
                .write(Bytes::copy_from_slice(chunk))
                .await
                .expect("written");
        }
        assert_eq!(staged.len(), big.len() as u64);
        let result = staged.commit("acme/x", &digest).await;
        assert_eq!(result.err().map(|error| error.kind()), kind, "{digest}");
        let store = ctf.store("acme/x").expect("a repository");
        let descriptor = Descriptor::new("x/y", digest, big.len() as u64);
        assert_eq!(
            store.exists(&descriptor).await.expect("looked"),
            kind.is_none()
        );
        if kind.is_none() {
            let bytes = store
                .fetch(&descriptor)
                .read(1 << 23)
                .await
                .expect("verifies");
            assert_eq!(bytes, big);
            let mut tail = store
                .fetch(&descriptor)
                .open_at(3_999_990)
                .await
                .expect("opens");
            let rest = tail.next().await.expect("a chunk").expect("read");
            assert_eq!(rest, big[3_999_990..]);
            assert!(tail.next().await.is_none());
        }
    }
    let empty = ctf.stage().await.expect("staged");
    empty
        .commit("acme/x", &Digest::sha256(b""))
        .await
        .expect("nothing is something");
    drop(ctf);
    assert_eq!(files(temp.path()).len(), 3);
    assert!(!temp.path().join(".staging").exists());
}

#[tokio::test]
async fn a_blob_of_unknown_digest_is_hashed_on_the_way() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("r").expect("a repository");
    let known = blob("content");
    let unknown = Blob::new("t/x", known.source().clone());
    let meter = Meter::new();
    let pushed = meter
        .clone()
        .scope(store.push(&unknown, &[]))
        .await
        .expect("pushed");
    assert_eq!(
        pushed.descriptor,
        Descriptor::new("t/x", known.digest.clone().expect("known"), 7)
    );
    assert_eq!(pushed.outcome, Outcome::Sent);
    assert_eq!(meter.snapshot().bytes_sent, 7);
    // A known digest without a size: what is there is read before it is believed.
    let mut sizeless = known.clone();
    sizeless.size = None;
    let pushed = store.push(&sizeless, &[]).await.expect("pushed");
    assert_eq!(
        (pushed.outcome, pushed.descriptor.size),
        (Outcome::Present, 7)
    );
    // A source that gives other bytes leaves nothing.
    let lying =
        Blob::new("t/x", known.source().clone()).expect_content(Digest::sha256(b"CONTENT"), 7);
    let error = store.push(&lying, &[]).await.expect_err("other bytes");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    drop((store, ctf));
    assert_eq!(files(temp.path()).len(), 1);
}

#[tokio::test]
async fn damaged_blobs_are_noticed_and_healed_by_pushing() {
    for (damage, visible) in [("flipped", true), ("truncated", false), ("missing", false)] {
        let temp = TempDir::new().expect("temp");
        let ctf = open(temp.path(), Access::Create).await;
        let store = ctf.store("r").expect("a repository");
        put_image(&*store, &["content"], Some("t")).await;
        let layer = link(&blob("content"));
        let path = temp
            .path()
            .join(format!("blobs/sha256.{}", layer.digest.hex()));
        match damage {
            "flipped" => std::fs::write(&path, "contEnt").expect("written"),
            "truncated" => std::fs::write(&path, "cont").expect("written"),
            _ => std::fs::remove_file(&path).expect("removed"),
        }
        let error = read(&store.fetch(&layer)).await.expect_err(damage);
        let kind = if damage == "missing" {
            ErrorKind::NotFound
        } else {
            ErrorKind::Mismatch
        };
        assert_eq!(error.kind(), kind, "{damage}: {error}");
        assert_eq!(
            store.exists(&layer).await.expect("looked"),
            visible,
            "{damage}"
        );
        let outcome = store
            .push(&blob("content"), &[])
            .await
            .expect("pushed")
            .outcome;
        assert_eq!(outcome == Outcome::Present, visible, "{damage}");
        assert_eq!(
            read(&store.fetch(&layer)).await.is_ok(),
            !visible,
            "{damage}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_inside_an_archive_are_not_followed() {
    use std::os::unix::fs::symlink;
    let layer = link(&blob("secret"));
    for what in ["blob", "blobs", ".staging", "artifact-index.json", ".lock"] {
        let outside = TempDir::new().expect("temp");
        let temp = TempDir::new().expect("temp");
        let name = format!("sha256.{}", layer.digest.hex());
        std::fs::write(outside.path().join(&name), "secret").expect("written");
        let target = outside.path().join("index");
        std::fs::write(&target, r#"{"schemaVersion":1,"artifacts":[]}"#).expect("written");
        let inside = temp.path();
        if what != "artifact-index.json" {
            std::fs::copy(&target, inside.join("artifact-index.json")).expect("copied");
        }
        match what {
            "blob" => {
                std::fs::create_dir(inside.join("blobs")).expect("made");
                symlink(outside.path().join(&name), inside.join("blobs").join(&name))
                    .expect("linked");
            }
            "artifact-index.json" | ".lock" => symlink(&target, inside.join(what)).expect("linked"),
            _ => symlink(outside.path(), inside.join(what)).expect("linked"),
        }
        let before = files(outside.path());
        let ctf = open(inside, Access::ReadWrite).await;
        let store = ctf.store("r").expect("a repository");
        let result = match what {
            "blob" | "blobs" => read(&store.fetch(&layer)).await.map(drop),
            ".staging" => store.push(&blob("new"), &[]).await.map(drop),
            "artifact-index.json" => store.tags().await.map(drop),
            _ => {
                let config = Blob::from_bytes(OCI_EMPTY, "{}");
                store.push(&config, &[]).await.expect("pushed");
                let manifest = RawManifest::write(&Manifest::image(link(&config), Vec::new()));
                store.put_manifest(&manifest, None).await
            }
        };
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        assert!(
            error.to_string().contains("symbolic link"),
            "{what}: {error}"
        );
        drop((store, ctf));
        assert_eq!(files(outside.path()), before, "{what}");
    }
}

/// Writes `count` tagged images as process `name`, from eight tasks at once.
async fn write_many(path: &Path, name: &'static str, count: usize) {
    let ctf = open(path, Access::Create).await;
    let tasks = (0..8).map(|task| {
        let ctf = ctf.clone();
        async move {
            for number in 0..count {
                let store = ctf.store(&format!("r/{task}")).expect("a repository");
                let tag = format!("{name}-{number}");
                let image =
                    put_image(&*store, &[&format!("{name} {task} {number}")], Some(&tag)).await;
                // All refer to one subject in one repository: the list must not lose one either.
                let store = ctf.store("r/all").expect("a repository");
                let subject = Descriptor::new(OCI_MANIFEST, Digest::sha256(b"subject"), 7);
                put(&*store, &[&image.digest.to_string()], None, Some(subject)).await;
            }
        }
    });
    let mut running = tokio::task::JoinSet::new();
    tasks.for_each(|task| drop(running.spawn(task)));
    while let Some(done) = running.join_next().await {
        done.expect("no panic");
    }
}

/// Not a test of its own: the second process of the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by another test as a child process"]
async fn second_process() {
    if let Some(path) = std::env::var_os("OCM_TEST_CTF") {
        write_many(Path::new(&path), "child", 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_and_tasks_that_write_at_once_lose_nothing() {
    let mut expected = None;
    for _ in 0..2 {
        let temp = TempDir::new().expect("temp");
        let path = temp.path().join("ctf");
        let child = std::process::Command::new(std::env::current_exe().expect("known"))
            .args(["--exact", "ctf::second_process", "--ignored", "--quiet"])
            .env("OCM_TEST_CTF", &path)
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut child = child.expect("started");
        write_many(&path, "parent", 5).await;
        assert!(child.wait().expect("ended").success());

        let ctf = open(&path, Access::ReadOnly).await;
        for task in 0..8 {
            let store = ctf.store(&format!("r/{task}")).expect("a repository");
            assert_eq!(store.tags().await.expect("listed").len(), 10);
        }
        let store = ctf.store("r/all").expect("a repository");
        let referrers = store
            .referrers(&Digest::sha256(b"subject"))
            .await
            .expect("listed");
        assert_eq!(referrers.len(), 80);
        drop((store, ctf));
        let mut found = files(&path);
        // A process that ended a moment before the other may have found its staging folder in use.
        found.retain(|name, _| !name.starts_with(".staging/"));
        assert_eq!(found.keys().filter(|name| name.starts_with('.')).count(), 0);
        // Whatever the two did in between, the result is the same.
        let expected = expected.get_or_insert_with(|| found.clone());
        assert_eq!(
            expected.keys().collect::<Vec<_>>(),
            found.keys().collect::<Vec<_>>()
        );
        assert!(*expected == found);
    }
}

/// Not a test of its own: a process that is killed while it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by another test as a child process"]
async fn killed_process() {
    if let Some(path) = std::env::var_os("OCM_TEST_CTF") {
        write_many(Path::new(&path), "first", 1).await;
        println!("\nready");
        write_many(Path::new(&path), "killed", 1_000_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_whole_things_only() {
    use std::io::BufRead;
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("ctf");
    let child = std::process::Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "ctf::killed_process", "--ignored", "--nocapture"])
        .env("OCM_TEST_CTF", &path)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut child = child.expect("started");
    let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "the child got to its second part");
    child.kill().expect("killed");
    child.wait().expect("ended");

    let ctf = open(&path, Access::ReadWrite).await;
    let mut images = 0;
    for repository in ctf.repositories().await.expect("listed") {
        let store = ctf.store(&repository).expect("a repository");
        for tag in store.tags().await.expect("listed") {
            let manifest = store
                .manifest(&tag)
                .await
                .expect("whole")
                .parse()
                .expect("a manifest");
            for part in manifest.blobs() {
                read(&store.fetch(part)).await.expect("whole");
            }
            images += 1;
        }
    }
    assert!(images >= 8, "{images}");
    for (name, content) in files(&path.join("blobs")) {
        assert_eq!(name, format!("sha256.{}", Digest::sha256(&content).hex()));
    }
    // A run after it is not held up by the lock, and cleans up.
    drop(ctf);
    write_many(&path, "second", 1).await;
    let names: Vec<_> = std::fs::read_dir(&path)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn left_overs_go_and_files_of_living_writers_stay() {
    let temp = TempDir::new().expect("temp");
    let staging = temp.path().join(".staging");
    std::fs::create_dir(&staging).expect("made");
    for name in ["dead.part", "alive.part", "other"] {
        std::fs::write(staging.join(name), "half").expect("written");
    }
    let alive = std::fs::File::open(staging.join("alive.part")).expect("opened");
    alive.lock().expect("locked");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("r").expect("a repository");
    put_image(&*store, &["one"], Some("1")).await;
    let left: Vec<_> = files(&staging).into_keys().collect();
    assert_eq!(left, ["alive.part", "other"]);

    // Garbage: a blob that no manifest names, and what the dead writer left since.
    drop(alive);
    store.push(&blob("unused"), &[]).await.expect("pushed");
    put_image(&*store, &["two"], Some("1")).await;
    store.untag("1").await.expect("untagged");
    let hour = std::time::Duration::from_secs(3600);
    let young = ctf.collect_garbage(hour).await.expect("collected");
    assert_eq!((young.files, young.bytes), (1, 4));
    let old = ctf
        .collect_garbage(std::time::Duration::ZERO)
        .await
        .expect("collected");
    // `unused`, and the image whose only tag was taken away with its entry; the one before still has an entry.
    assert_eq!(old.files, 3);
    for (content, there) in [("one", true), ("two", false), ("unused", false)] {
        assert_eq!(
            store.exists(&link(&blob(content))).await.expect("looked"),
            there,
            "{content}"
        );
    }
    // A listed manifest that can't be read might reach anything.
    let one = ctf.index().await.expect("read").entries()[0].digest.clone();
    let path = temp.path().join(format!("blobs/sha256.{}", one.hex()));
    std::fs::write(path, "{}").expect("written");
    let error = ctf
        .collect_garbage(std::time::Duration::ZERO)
        .await
        .expect_err("unreadable");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(store.exists(&link(&blob("one"))).await.expect("looked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_go_away_take_nobody_with_them() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let mut tasks = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..60 {
        let ctf = ctf.clone();
        tasks.push(running.spawn(async move {
            let store = ctf.store("r").expect("a repository");
            put_image(&*store, &[&number.to_string()], Some(&number.to_string())).await;
            number
        }));
        tokio::task::yield_now().await;
        if number % 3 == 2 {
            tasks[number - 1].abort();
            tasks[number].abort();
        }
    }
    let mut finished = Vec::new();
    while let Some(done) = running.join_next().await {
        finished.extend(done.ok());
    }
    assert!(finished.len() >= 20);
    let store = ctf.store("r").expect("a repository");
    for number in finished {
        let manifest = store.manifest(&number.to_string()).await.expect("there");
        for part in manifest.parse().expect("a manifest").blobs() {
            read(&store.fetch(part)).await.expect("whole");
        }
    }
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let temp = TempDir::new().expect("temp");
    let at = |name: &str| temp.path().join(name);
    std::fs::create_dir(at("plain")).expect("made");
    std::fs::create_dir(at("comparch")).expect("made");
    std::fs::write(at("comparch/component-descriptor.yaml"), "x").expect("written");
    std::fs::write(at("text.tar"), "no tar at all").expect("written");
    for (path, access, kind, message) in [
        ("missing", Access::ReadOnly, ErrorKind::NotFound, "missing"),
        ("missing", Access::ReadWrite, ErrorKind::NotFound, "missing"),
        (
            "plain",
            Access::ReadOnly,
            ErrorKind::Invalid,
            "no artifact-index.json",
        ),
        (
            "comparch",
            Access::ReadOnly,
            ErrorKind::Invalid,
            "component archive",
        ),
        (
            "text.tar",
            Access::ReadOnly,
            ErrorKind::Invalid,
            "neither tar nor gzip",
        ),
    ] {
        let error = Ctf::open(&at(path), options(access)).await.expect_err(path);
        assert_eq!(error.kind(), kind, "{path}: {error}");
        assert!(error.to_string().contains(message), "{path}: {error}");
        assert!(error.to_string().contains(path), "{path}: {error}");
    }
    open(&at("plain"), Access::Create).await;
    let ctf = open(&at("plain"), Access::Create).await;
    for name in ["../x", "A", "", "a//b", "/etc"] {
        assert_eq!(ctf.store(name).expect_err(name).kind(), ErrorKind::Invalid);
    }
}

const REGULAR: u8 = b'0';

/// A tar of these entries, with nothing checked.
fn tar_of(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, content) in entries {
        out.extend(header_of(name, *kind, content.len() as u64));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn header_of(name: &str, kind: u8, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    *header.as_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut out = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (1..).find(|digits| (rest + digits).to_string().len() == *digits);
        let len = rest + len.expect("a fixed point");
        out.push_str(&format!("{len} {key}={value}\n"));
    }
    out.into_bytes()
}

#[tokio::test]
async fn tars_are_read_in_place_and_hostile_ones_refused() {
    let index = br#"{"schemaVersion":1,"artifacts":[]}"#.as_slice();
    let content = b"content".as_slice();
    let name = format!("blobs/sha256.{}", Digest::sha256(content).hex());
    let long = format!(
        "./blobs/sha512.{}",
        Digest::of(Algorithm::Sha512, content).hex()
    );
    let dotted = format!("./{name}");
    let plain = [
        ("artifact-index.json", REGULAR, index),
        (&name, REGULAR, content),
    ];
    let with = |more: &[(&str, u8, &[u8])]| {
        let mut all = plain.to_vec();
        all.extend_from_slice(more);
        tar_of(&all)
    };
    let behind = |kind: u8, extended: &[u8], what: (&str, u8, &[u8])| {
        tar_of(&[plain[0], ("x", kind, extended), what])
    };
    let size_lie = pax(&[("size", "9223372036854775807")]);
    let mut cut = tar_of(&plain);
    cut.truncate(512 + 512 + 512 + 3);
    let mut flipped = tar_of(&plain);
    flipped[512 + 512 + 20] ^= 1;
    let endless = [
        header_of("artifact-index.json", REGULAR, 1 << 40).as_slice(),
        &[0; 1024],
    ]
    .concat();
    let mut negative = header_of("artifact-index.json", REGULAR, 0);
    negative[124..136].fill(0xff);
    let mut fixed = tar::Header::from_byte_slice(&negative).clone();
    fixed.set_cksum();
    let negative = [fixed.as_bytes().as_slice(), &[0; 1024]].concat();

    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("plain", tar_of(&plain), None),
        ("index last", tar_of(&[plain[1], plain[0]]), None),
        (
            "dots and folders",
            tar_of(&[
                ("./", b'5', b""),
                ("./artifact-index.json", REGULAR, index),
                ("./blobs/", b'5', b""),
                (&dotted, REGULAR, content),
            ]),
            None,
        ),
        (
            "without end",
            {
                let mut tar = tar_of(&plain);
                tar.truncate(tar.len() - 1024);
                tar
            },
            None,
        ),
        (
            "other files",
            with(&[
                ("README", REGULAR, b"hi"),
                ("blobs/x", REGULAR, b"hi"),
                ("blobs/sha256.abc", REGULAR, b""),
            ]),
            None,
        ),
        (
            "pax name",
            behind(
                b'x',
                &pax(&[("mtime", "1.5"), ("path", &dotted)]),
                ("y", REGULAR, content),
            ),
            None,
        ),
        (
            "pax size",
            behind(b'x', &pax(&[("size", "7")]), plain[1]),
            None,
        ),
        (
            "gnu name",
            behind(
                b'L',
                format!("{name}\0").as_bytes(),
                ("y", REGULAR, content),
            ),
            None,
        ),
        (
            "global comment",
            behind(b'g', &pax(&[("comment", "x")]), plain[1]),
            None,
        ),
        ("symlink", with(&[("blobs/l", b'2', b"")]), Some("a link")),
        ("hard link", with(&[("blobs/l", b'1', b"")]), Some("a link")),
        ("device", with(&[("blobs/l", b'3', b"")]), Some("a device")),
        (
            "pipe",
            with(&[("blobs/l", b'6', b"")]),
            Some("a device or pipe"),
        ),
        (
            "sparse",
            with(&[("blobs/l", b'S', b"")]),
            Some("a sparse file"),
        ),
        (
            "unknown type",
            with(&[("blobs/l", b'Z', b"")]),
            Some("unknown type"),
        ),
        (
            "up",
            with(&[("blobs/../../x", REGULAR, b"")]),
            Some("leads out"),
        ),
        (
            "absolute",
            with(&[("/etc/x", REGULAR, b"")]),
            Some("leads out"),
        ),
        (
            "pax up",
            behind(b'x', &pax(&[("path", "../x")]), ("y", REGULAR, content)),
            Some("leads out"),
        ),
        (
            "two indexes",
            with(&[("./artifact-index.json", REGULAR, index)]),
            Some("two entries"),
        ),
        (
            "two blobs",
            with(&[(&dotted, REGULAR, content)]),
            Some("two entries"),
        ),
        (
            "two sizes",
            behind(b'x', &pax(&[("size", "8")]), plain[1]),
            Some("two sizes"),
        ),
        (
            "two names",
            behind(b'x', &pax(&[("path", "a"), ("path", "b")]), plain[1]),
            Some("two names"),
        ),
        (
            "huge pax size",
            behind(b'x', &size_lie, (&name, REGULAR, b"")),
            Some("truncated"),
        ),
        (
            "pax sparse",
            behind(b'x', &pax(&[("GNU.sparse.major", "1")]), plain[1]),
            Some("sparse"),
        ),
        (
            "pax malformed",
            behind(b'x', b"99 path=x\n", plain[1]),
            Some("malformed"),
        ),
        (
            "pax endless",
            behind(b'x', &vec![b' '; 100_000], plain[1]),
            Some("extended header of 100000"),
        ),
        (
            "global path",
            behind(b'g', &pax(&[("path", "x")]), plain[1]),
            Some("for all its entries"),
        ),
        (
            "folder with content",
            with(&[("d/", b'5', b"x")]),
            Some("directory with content"),
        ),
        ("cut", cut, Some("truncated")),
        ("flipped header", flipped, Some("checksum")),
        ("endless index", endless, Some("larger than")),
        ("negative size", negative, Some("")),
        (
            "no index",
            tar_of(&plain[1..]),
            Some("no artifact-index.json"),
        ),
        (
            "component archive",
            tar_of(&[("component-descriptor.yaml", REGULAR, b"")]),
            Some("component archive"),
        ),
    ];
    let temp = TempDir::new().expect("temp");
    for (what, tar, expected) in cases {
        for (ending, bytes) in [
            ("tar", tar.clone()),
            ("tgz", gzip(&tar)),
            ("bin", gzip(&tar)),
        ] {
            let path = temp.path().join(format!("{what}.{ending}"));
            std::fs::write(&path, bytes).expect("written");
            let ctf = open(&path, Access::ReadOnly).await;
            let store = ctf.store("r").expect("a repository");
            let blob = store.fetch(&Descriptor::of("t/x", content));
            match (read(&blob).await, expected) {
                (Ok(bytes), None) => {
                    assert_eq!(bytes, content, "{what}");
                    assert!(store.tags().await.expect("listed").is_empty());
                }
                (Err(error), Some(message)) => {
                    assert!(
                        error.to_string().contains(message),
                        "{what}.{ending}: {error}"
                    );
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::Invalid | ErrorKind::Limit),
                        "{what}: {kind:?}"
                    );
                }
                (result, _) => panic!("{what}.{ending}: {result:?}, expected {expected:?}"),
            }
        }
    }
    // A name of a SHA-512 blob is too long for a plain header.
    let tar = behind(b'x', &pax(&[("path", &long)]), ("y", REGULAR, content));
    let path = temp.path().join("long.tar");
    std::fs::write(&path, tar).expect("written");
    let store = open(&path, Access::ReadOnly)
        .await
        .store("r")
        .expect("a repository");
    let descriptor = Descriptor::new("t/x", Digest::of(Algorithm::Sha512, content), 7);
    assert_eq!(
        read(&store.fetch(&descriptor)).await.expect("verifies"),
        content
    );
}

#[tokio::test]
async fn a_tgz_is_unpacked_once_within_the_budget() {
    let index = br#"{"schemaVersion":1,"artifacts":[]}"#.as_slice();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let name = format!("blobs/sha256.{}", Digest::sha256(&content).hex());
    let tar = tar_of(&[
        ("artifact-index.json", REGULAR, index),
        (&name, REGULAR, &content),
    ]);
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("a.tgz");
    let whole = gzip(&tar);
    std::fs::write(&path, &whole).expect("written");
    for (spool, fits) in [(2_000_000, true), (1_000_000, false)] {
        let limits = Limits::new(LimitsConfig {
            spool,
            temp_folder: Some(temp.path().to_owned()),
            ..LimitsConfig::default()
        });
        let options = CtfOptions {
            access: Access::ReadOnly,
            limits: limits.clone(),
        };
        let ctf = Ctf::open(&path, options).await.expect("opens");
        let store = ctf.store("r").expect("a repository");
        let blob = store.fetch(&Descriptor::of("t/x", &content));
        let meter = Meter::new();
        meter
            .clone()
            .scope(async {
                for _ in 0..3 {
                    let result = blob.read(2_000_000).await;
                    assert_eq!(result.is_ok(), fits);
                    let kind = result.err().map(|error| error.kind());
                    assert_eq!(kind, (!fits).then_some(ErrorKind::Limit));
                }
            })
            .await;
        if fits {
            assert_eq!(meter.snapshot().bytes_spooled, content.len() as u64);
            assert_eq!(limits.spool().used(), content.len() as u64);
        }
        drop((blob, store, ctf));
        assert_eq!(limits.spool().used(), 0);
    }
    assert_eq!(files(temp.path()).len(), 1, "no temporary file has a name");
    // Compressed data that was cut or changed, also behind the last entry.
    for cut in [whole.len() - 1, whole.len() - 9, whole.len() / 2, 30] {
        std::fs::write(&path, &whole[..cut]).expect("written");
        let ctf = open(&path, Access::ReadOnly).await;
        let error = ctf.index().await.expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{cut}: {error}");
    }
    let mut changed = whole.clone();
    let at = changed.len() - 6;
    changed[at] ^= 0x55;
    std::fs::write(&path, changed).expect("written");
    let error = open(&path, Access::ReadOnly)
        .await
        .index()
        .await
        .expect_err("changed");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn an_index_changed_by_others_is_seen_and_kept() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("m").expect("a repository");
    let image = put_image(&*store, &["one"], Some("1")).await;
    let foreign = Digest::sha256(b"foreign");
    let text = format!(
        r#"{{"schemaVersion":1,"artifacts":[{{"repository":"z","tag":"9","digest":"{foreign}","note":[1]}},{{"repository":"m","tag":"1","digest":"{}"}}],"note":{{}}}}"#,
        image.digest
    );
    let path = temp.path().join("artifact-index.json");
    std::fs::write(&path, text).expect("written");
    assert_eq!(ctf.repositories().await.expect("listed"), ["m", "z"]);
    let two = put_image(&*store, &["two"], Some("2")).await;
    let found = std::fs::read_to_string(&path).expect("readable");
    assert_eq!(
        found,
        format!(
            r#"{{"schemaVersion":1,"artifacts":[{{"repository":"z","tag":"9","digest":"{foreign}","note":[1]}},{{"repository":"m","tag":"1","digest":"{}"}},{{"repository":"m","tag":"2","digest":"{}","mediaType":"{OCI_MANIFEST}"}}],"note":{{}}}}"#,
            image.digest, two.digest
        )
    );
    // An index of an unknown schema is not touched.
    let text = r#"{"schemaVersion":2,"artifacts":[]}"#;
    std::fs::write(&path, text).expect("written");
    let config = link(&Blob::from_bytes(OCI_CONFIG, "{}"));
    let manifest = RawManifest::write(&Manifest::image(config, Vec::new()));
    let error = store
        .put_manifest(&manifest, Some("3"))
        .await
        .expect_err("unknown schema");
    assert!(error.to_string().contains("schema version 2"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), text);
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let temp = TempDir::new().expect("temp");
    let path = temp.path().join("ctf");
    std::fs::create_dir(&path).expect("made");
    std::fs::write(
        path.join("artifact-index.json"),
        r#"{"schemaVersion":1,"artifacts":null}"#,
    )
    .expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555)).expect("set");
    let privileged = std::fs::write(path.join("probe"), "").is_ok();
    if privileged {
        eprintln!("skipped: this user may write everywhere");
        return;
    }
    let ctf = open(&path, Access::ReadWrite).await;
    let store = ctf.store("r").expect("a repository");
    let error = store.push(&blob("x"), &[]).await.expect_err("not writable");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains(".staging"), "{error}");
}

#[tokio::test]
async fn a_place_that_is_taken_is_named_and_nothing_stays() {
    for taken in ["blobs", ".staging"] {
        let temp = TempDir::new().expect("temp");
        std::fs::write(temp.path().join(taken), "a file").expect("written");
        let ctf = open(temp.path(), Access::Create).await;
        let store = ctf.store("r").expect("a repository");
        let error = store.push(&blob("x"), &[]).await.expect_err("taken");
        assert!(error.to_string().contains(taken), "{error}");
        drop((store, ctf));
        assert_eq!(files(temp.path()).into_keys().collect::<Vec<_>>(), [taken]);
    }
}

#[tokio::test]
async fn an_index_of_images_is_known_without_a_media_type() {
    let temp = TempDir::new().expect("temp");
    let ctf = open(temp.path(), Access::Create).await;
    let store = ctf.store("r").expect("a repository");
    let child = put_image(&*store, &["one"], None).await;
    let mut index = Manifest::index(vec![child.descriptor()]);
    index.media_type = None;
    let index = RawManifest::new(OCI_INDEX, index.to_bytes());
    store.put_manifest(&index, Some("1")).await.expect("put");
    let path = temp.path().join("artifact-index.json");
    let text = std::fs::read_to_string(&path).expect("readable");
    let media_types = [OCI_INDEX, OCI_MANIFEST];
    let text = media_types.iter().fold(text, |text, media_type| {
        text.replace(&format!(r#","mediaType":"{media_type}""#), "")
    });
    assert!(!text.contains("mediaType"));
    std::fs::write(&path, text).expect("written");
    assert_eq!(
        store.manifest("1").await.expect("there").media_type,
        OCI_INDEX
    );
    let found = store.resolve(&child.digest.to_string()).await;
    assert_eq!(found.expect("there").media_type, OCI_MANIFEST);
}
