//! `ocm transfer cv --copy-resources --copy-sources`: what every server has ends up in the target, byte for byte, and what no
//! server has ends the run before anybody sees a component version.

use std::sync::Arc;

use bytes::Bytes;
use ocm_content::{Artifact, Blob, Content, RawManifest};
use ocm_repository::Existing;
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, ElementKind, Encoding};
use ocm_specs::{Digest, Identity, RepositorySpec};
use ocm_testdata::components::{self, HELLOEUROPE, HELLOWORLD, push};
use ocm_testdata::fixtures::{self, chart, chart_archive, gzip, image, image_index, noise, tar};
use ocm_testdata::git::GitRepository;
use ocm_testdata::web::{Answer, WebServer, helm_repository, provenance};
use serde_json::{Value, json};

use crate::design::fill;
use crate::place::{Peer, Place, tree, unpacked};
use crate::signing::{APP, descriptor, put, run, store, stored};

const ALL: &str = "acme.org/all";
const SOURCE: &str = "source.example/base";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MAIN: &str = "int main() { return 0; }\n";

/// What a target must have of an element.
enum Wanted {
    Bytes(Bytes),
    Image(RawManifest),
    /// The archive, and its provenance file where the server has one.
    Chart(Bytes, Option<Bytes>),
    /// The files of a commit.
    Files(Vec<(String, String)>),
}

/// Content by the name that a resource and a source have for it.
struct Item {
    name: &'static str,
    access: Value,
    wanted: Wanted,
}

/// Servers for every access type.
struct Servers {
    registry: Peer,
    files: WebServer,
    /// Where archives of commits are.
    archives: WebServer,
    git: WebServer,
    commit: String,
}

impl Servers {
    /// `None` where git is not installed.
    async fn start() -> Option<Self> {
        let repository = GitRepository::new("sha1")?;
        repository.put("src/main.c", MAIN);
        let commit = repository.commit("first");
        let mut files = helm_repository("webapp", "1.4.0", &chart_archive(), true);
        files.push(("/tool".to_owned(), tool()));
        let archives = WebServer::start(|asked| match asked.path.as_str() {
            "/acme/app/legacy.tar.gz" => Answer::ok(tarball()).unmeasured(),
            _ => Answer::missing(),
        })
        .await;
        let made = format!("{}/acme/app/legacy.tar.gz", archives.url());
        let files = WebServer::start(move |asked| {
            // As GitHub does it: the archive is on another host, and is made while it is sent.
            if asked.path == format!("/repos/acme/app/tarball/{COMMIT}") {
                return Answer::new(302).header("location", &*made);
            }
            match files.iter().find(|(path, _)| *path == asked.path) {
                Some((_, body)) => Answer::file(&asked, body),
                None => Answer::missing(),
            }
        })
        .await;
        Some(Self {
            registry: Peer::embedded().await,
            files,
            archives,
            git: Arc::new(repository).serve(false).await,
            commit,
        })
    }

    /// A folder from which the servers and a target are within reach.
    fn place(&self, target: &Peer) -> Place {
        Place::new()
            .alias("source.example", &self.registry)
            .alias("target.example", target)
            .alias_web("files.example", &self.files)
            .alias_web("api.github.com", &self.files)
            .alias_web("git.example", &self.git)
    }

    /// Fills the registry; gives an item for every access type that names its content itself.
    async fn items(&self, place: &Place) -> Vec<Item> {
        let session = place.session();
        let (index, beside) = (image_index(), image(2, 5_000));
        for (reference, fixture) in [
            ("source.example/acme/image:1", &index),
            ("source.example/base/images/app:1.0", &beside),
            ("source.example/acme/charts/webapp:1.4.0", &chart()),
        ] {
            push(&session, reference, fixture).await.unwrap();
        }
        let manifest = index.children[0].parse().unwrap();
        let layer = manifest.layers.unwrap().swap_remove(0);
        let images = place.store("source.example/acme/image:1");
        let layer_bytes = images.fetch(&layer).read(1 << 20).await.unwrap();
        let archive = chart_archive();
        let signed = provenance("webapp", "1.4.0", &Digest::sha256(&archive));
        let packed = chart().blobs[1].read(1 << 20).await.unwrap();
        let items = [
            (
                "image",
                json!({"type": "ociArtifact", "imageReference": "source.example/acme/image:1"}),
                Wanted::Image(index.root),
            ),
            (
                "layer",
                json!({"type": "ociBlob", "ref": "source.example/acme/image", "digest": layer.digest.to_string(),
                    "size": layer.size, "mediaType": layer.media_type}),
                Wanted::Bytes(layer_bytes),
            ),
            (
                "relative",
                json!({"type": "relativeOciReference", "reference": "images/app:1.0"}),
                Wanted::Image(beside.root),
            ),
            (
                "chart",
                json!({"type": "helm", "helmRepository": "https://files.example", "helmChart": "webapp:1.4.0"}),
                Wanted::Chart(archive, Some(signed)),
            ),
            (
                "oci-chart",
                json!({"type": "helm", "helmRepository": "oci://source.example/acme/charts", "helmChart": "webapp:1.4.0"}),
                Wanted::Chart(packed, None),
            ),
            (
                "tool",
                json!({"type": "wget", "url": "https://files.example/tool"}),
                Wanted::Bytes(tool()),
            ),
            (
                "commit",
                json!({"type": "gitHub", "repoUrl": "https://github.com/acme/app", "commit": COMMIT}),
                Wanted::Bytes(tarball()),
            ),
            (
                "tree",
                json!({"type": "git", "repository": "https://git.example/app.git", "commit": self.commit}),
                Wanted::Files(vec![("src/main.c".to_owned(), MAIN.to_owned())]),
            ),
        ];
        let items = items.into_iter();
        items
            .map(|(name, access, wanted)| Item {
                name,
                access,
                wanted,
            })
            .collect()
    }
}

fn tool() -> Bytes {
    noise(100_000, 3)
}

fn tarball() -> Bytes {
    gzip(&tar([("acme-app-0123456/src/main.c", MAIN)]))
}

/// An element of that name and access; with what only resources have.
fn element(kind: ElementKind, name: &str, access: &Value, digest: Option<DigestSpec>) -> Value {
    let mut element = json!({
        "name": name, "version": "1.0.0", "type": "blob", "access": access, "acme.org/unknown": [name],
        "labels": [{"name": "acme.org/tier", "value": {"z": 1, "a": null}, "signing": true}],
    });
    if kind == ElementKind::Resource {
        element["relation"] = json!("external");
        if let Some(digest) = digest {
            element["digest"] = digest.to_value();
        }
    }
    element
}

/// Publishes a component version with these lists below [`SOURCE`], and a local blob in each.
async fn publish(place: &Place, name: &str, mut resources: Vec<Value>, mut sources: Vec<Value>) {
    let spec = RepositorySpec::oci("source.example", "base");
    let repository = place.session().repository(&spec, true).await.unwrap();
    for (kind, list) in [
        (ElementKind::Resource, &mut resources),
        (ElementKind::Source, &mut sources),
    ] {
        let mut value = element(kind, "beside", &json!({"type": "localBlob"}), None);
        if kind == ElementKind::Resource {
            value["relation"] = json!("local");
        }
        let content = Content::Blob(Blob::from_bytes("text/plain", beside(kind)));
        let stored = repository.prepare_local_blob(name, kind, &value, &content);
        list.push(stored.await.unwrap());
    }
    let descriptor = ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": name, "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": sources, "componentReferences": []},
    }));
    let descriptor = descriptor.unwrap();
    let prepared = repository.prepare_version(&descriptor, Existing::Fail);
    prepared.await.unwrap().publish().await.unwrap();
}

/// What lies beside the descriptor.
fn beside(kind: ElementKind) -> Bytes {
    format!("beside a {kind}\n").into()
}

/// The digest that a descriptor states before; charts have none, for they become artifacts first.
async fn digest_of(place: &Place, item: &Item) -> Option<DigestSpec> {
    Some(match &item.wanted {
        Wanted::Bytes(bytes) => DigestSpec::new(&Digest::sha256(bytes), false),
        Wanted::Image(root) => DigestSpec::new(&root.digest, true),
        Wanted::Chart(..) => return None,
        Wanted::Files(_) => {
            let content = place.session().access_content(&item.access, None).await;
            let Content::Blob(archive) = content.unwrap() else {
                panic!("an archive");
            };
            let bytes = archive.read(1 << 20).await.unwrap();
            DigestSpec::new(&Digest::sha256(&bytes), false)
        }
    })
}

/// The descriptor of the one version of a component.
async fn document(place: &Place, repository: &str, name: &str) -> Value {
    let version = place.component(repository, name).await;
    version.descriptor.document().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_access_ends_in_the_target() {
    let Some(servers) = Servers::start().await else {
        return;
    };
    let place = servers.place(&Peer::embedded().await);
    let items = servers.items(&place).await;
    let (mut resources, mut sources) = (Vec::new(), Vec::new());
    for item in &items {
        let digest = digest_of(&place, item).await;
        resources.push(element(
            ElementKind::Resource,
            item.name,
            &item.access,
            digest,
        ));
        sources.push(element(ElementKind::Source, item.name, &item.access, None));
    }
    publish(&place, ALL, resources, sources).await;
    let before = document(&place, SOURCE, ALL).await;

    for (target, upload_as) in [
        ("./out", "localBlob"),
        ("target.example/deep", "localBlob"),
        ("target.example/deep", "ociArtifact"),
    ] {
        let (first, second) = (Peer::embedded().await, Peer::embedded().await);
        let (direct, replay) = (servers.place(&first), servers.place(&second));
        let root = format!("{SOURCE}//{ALL}:1.0.0");
        let command = [
            "transfer",
            "cv",
            "--copy-resources",
            "--copy-sources",
            "--upload-as",
            upload_as,
            &root,
            target,
        ];
        let dry = [&command[..], &["--dry-run"]].concat();
        let printed = direct.run(&dry).await.ok().stdout;
        assert!(direct.files().is_empty() && first.requests().unwrap().total == 0);
        assert_eq!(direct.run(&dry).await.ok().stdout, printed);
        replay.put("plan.yaml", &printed);
        let ran = direct.run(&command).await.ok();
        let told = "complete: nothing of 1 component version points outside of the target";
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
        let again = ["transfer", "--transfer-spec", "plan.yaml"];
        replay.run(&again).await.ok();
        assert_eq!(
            document(&direct, target, ALL).await,
            document(&replay, target, ALL).await
        );
        if target == "./out" {
            assert!(tree(&direct.path("out")) == tree(&replay.path("out")));
        }

        let below = (upload_as == "ociArtifact").then_some("target.example/deep/");
        check_described(&before, &document(&direct, target, ALL).await, below);
        check_content(&direct, target, &items).await;
        assert!(!servers.archives.lines().is_empty());
        // Nothing but the target is within reach, and everything is there.
        let reach = format!("target.example={}", first.url());
        let there = format!("{target}//{ALL}:1.0.0");
        let audit = ["check", "cv", "--external", &there, "--host-alias", &reach];
        direct.run(&audit).await.ok();
        // Again: everything is there already.
        let ran = direct.run(&[&command[..], &["-o", "json"]].concat()).await;
        let report = ran.ok().json();
        assert_eq!(report["componentVersions"][0]["outcome"], "present");
        assert_eq!(report["completeness"]["outside"], json!([]));
    }
}

/// Everything but accesses is as it was, and these are the target's. Charts are described as what they have become.
fn check_described(before: &Value, after: &Value, below: Option<&str>) {
    let mut expected = before.clone();
    for list in ["resources", "sources"] {
        let elements = after["component"][list].as_array().unwrap();
        for (index, after) in elements.iter().enumerate() {
            let name = after["name"].as_str().unwrap();
            let before = &mut expected["component"][list][index];
            let is_chart = list == "resources" && name.ends_with("chart");
            if is_chart {
                before["type"] = json!("helmChart");
                before["relation"] = json!("local");
                before["digest"] = after["digest"].clone();
                let algorithm = &after["digest"]["normalisationAlgorithm"];
                assert_eq!(algorithm, "ociArtifactDigest/v1", "{name}");
            }
            let access = &after["access"];
            let is_image = list == "resources" && ["image", "relative"].contains(&name);
            match below.filter(|_| is_chart || is_image) {
                Some(below) => {
                    let reference = access["imageReference"].as_str().unwrap_or_default();
                    assert!(reference.starts_with(below), "{list} {name}: {access}");
                }
                None => assert_eq!(access["type"], "localBlob", "{list} {name}: {access}"),
            }
            before["access"] = access.clone();
        }
    }
    assert_eq!(*after, expected);
}

/// The target has what the servers have, of resources and of sources.
async fn check_content(place: &Place, target: &str, items: &[Item]) {
    let version = place.component(target, ALL).await;
    for kind in [ElementKind::Resource, ElementKind::Source] {
        let found = async |name: &str| {
            let identity = Identity::named(name);
            let element = version.descriptor.find(kind, &identity).unwrap();
            let content = place.session().content(&version, &element).await;
            content.unwrap()
        };
        let bytes = async |name: &str| match found(name).await {
            Content::Blob(blob) => blob.read(1 << 20).await.unwrap(),
            content => panic!("{kind} {name}: {content:?}"),
        };
        assert_eq!(bytes("beside").await, beside(kind));
        for item in items {
            let name = item.name;
            match &item.wanted {
                Wanted::Bytes(expected) => assert!(bytes(name).await == *expected, "{kind} {name}"),
                Wanted::Files(expected) => {
                    let files = unpacked(&bytes(name).await).await;
                    let files: Vec<_> = files
                        .into_iter()
                        .filter(|(path, _)| !path.ends_with('/'))
                        .collect();
                    assert_eq!(files.len(), expected.len(), "{files:?}");
                    for ((path, text), (expected, content)) in files.iter().zip(expected) {
                        assert!(path.ends_with(expected) && text == content, "{files:?}");
                    }
                }
                // As a source a chart is its archive.
                Wanted::Chart(archive, _) if kind == ElementKind::Source => {
                    assert!(bytes(name).await == *archive, "{kind} {name}");
                }
                Wanted::Chart(archive, provenance) => {
                    let (root, store) = root_of(found(name).await).await;
                    let layers = root.parse().unwrap().layers.unwrap();
                    let mut stored = Vec::new();
                    for layer in &layers {
                        stored.push(store.fetch(layer).read(1 << 20).await.unwrap());
                    }
                    let expected = [Some(archive), provenance.as_ref()];
                    let expected = expected.into_iter().flatten().cloned();
                    assert_eq!(stored, expected.collect::<Vec<_>>(), "{name}");
                }
                Wanted::Image(expected) => {
                    let (root, _) = root_of(found(name).await).await;
                    assert_eq!(root, *expected, "{kind} {name}");
                }
            }
        }
    }
}

async fn root_of(content: Content) -> (RawManifest, Arc<dyn ocm_content::ContentStore>) {
    let Content::Artifact(Artifact::Stored(stored)) = content else {
        panic!("{content:?} is no stored artifact");
    };
    let digest = stored.root.digest.to_string();
    (stored.store.manifest(&digest).await.unwrap(), stored.store)
}

/// What no server has: nothing is published, and the message names it. By reference it may stay, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_fetched_is_not_left_out_silently() {
    let Some(servers) = Servers::start().await else {
        return;
    };
    let target = Peer::embedded().await;
    let place = servers.place(&target);
    servers.items(&place).await;
    let absent = Digest::sha256(b"absent").to_string();
    let helm =
        |place: &str| json!({"type": "helm", "helmRepository": place, "helmChart": "webapp:9.9.9"});
    // The access, the place that the statement names; none where it can't stay.
    for (number, (access, told)) in [
        (
            json!({"type": "wget", "url": "https://files.example/none"}),
            Some("wget https://files.example/none"),
        ),
        (
            helm("https://files.example"),
            Some("helm https://files.example"),
        ),
        (
            helm("oci://source.example/acme/charts"),
            Some("helm oci://source.example/acme/charts"),
        ),
        (
            json!({"type": "ociArtifact", "imageReference": "source.example/acme/image:none"}),
            Some("ociArtifact source.example/acme/image:none"),
        ),
        (
            json!({"type": "ociBlob", "ref": "source.example/acme/image", "digest": absent}),
            Some("ociBlob source.example/acme/image"),
        ),
        (
            json!({"type": "ociBlob", "ref": "source.example/acme/image", "digest": absent, "size": 6}),
            Some("ociBlob source.example/acme/image"),
        ),
        // References are asked for, commits when they are read.
        (
            json!({"type": "git", "repository": "https://git.example/app.git", "commit": COMMIT}),
            None,
        ),
        (
            json!({"type": "gitHub", "repoUrl": "https://github.com/acme/app", "commit": COMMIT.replace('0', "f")}),
            Some("gitHub https://github.com/acme/app"),
        ),
        (
            json!({"type": "git", "repository": "https://git.example/app.git", "ref": "refs/heads/none"}),
            Some("git https://git.example/app.git"),
        ),
        (
            json!({"type": "relativeOciReference", "reference": "images/app:none"}),
            None,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for kind in [ElementKind::Resource, ElementKind::Source] {
            let name = format!("acme.org/{kind}{number}");
            let gone = vec![element(kind, "gone", &access, None)];
            let (resources, sources) = match kind {
                ElementKind::Source => (Vec::new(), gone),
                _ => (gone, Vec::new()),
            };
            publish(&place, &name, resources, sources).await;
            let root = format!("{SOURCE}//{name}:1.0.0");
            let command = ["transfer", "cv", "--copy-resources", "--copy-sources", &root];
            for target in ["./out", "target.example/deep"] {
                let ran = place.run(&[&command[..], &[target]].concat()).await;
                let ran = ran.code(4);
                assert!(ran.stderr.contains("gone"), "{access}: {}", ran.stderr);
                let found = place.run(&["get", "cv", &format!("{target}//{name}:1.0.0")]).await;
                assert_eq!(found.code, 4, "{access}: {}{}", found.stdout, found.stderr);
                let lenient = [&command[..], &[target, "--allow-external"]].concat();
                let Some(told) = told else {
                    place.run(&lenient).await.code(4);
                    continue;
                };
                let ran = place.run(&lenient).await.ok();
                let told = format!(
                    "not complete: 1 element points outside of the target\n  {kind} `name=gone,version=1.0.0` of {name}:1.0.0: {told}\n"
                );
                assert!(ran.stderr.contains(&told), "{told}: {}", ran.stderr);
                let (before, after) = (
                    document(&place, SOURCE, &name).await,
                    document(&place, target, &name).await,
                );
                let list = format!("/component/{kind}s/0");
                assert_eq!(before.pointer(&list), after.pointer(&list));
            }
        }
    }
}

/// A server that has something else than a descriptor states: nothing is published, whatever may stay outside.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_is_stated_is_not_taken() {
    let Some(servers) = Servers::start().await else {
        return;
    };
    let target = Peer::embedded().await;
    let place = servers.place(&target);
    for item in servers.items(&place).await {
        let is_image = matches!(item.wanted, Wanted::Image(_));
        let wrong = DigestSpec::new(&Digest::sha256(b"another"), is_image);
        let name = format!("acme.org/{}", item.name);
        let resource = element(ElementKind::Resource, "other", &item.access, Some(wrong));
        publish(&place, &name, vec![resource], Vec::new()).await;
        let root = format!("{SOURCE}//{name}:1.0.0");
        for (target, options) in [
            ("./out", &[][..]),
            ("target.example/deep", &["--allow-external"]),
            ("target.example/deep", &["--upload-as", "ociArtifact"]),
        ] {
            let command = ["transfer", "cv", "--copy-resources", &root, target];
            let ran = place.run(&[&command[..], options].concat()).await;
            assert_eq!(
                ran.code, 5,
                "{} {target} {options:?}: {}",
                item.name, ran.stderr
            );
            assert!(
                ran.stderr.contains("other"),
                "{}: {}",
                item.name,
                ran.stderr
            );
            let found = place
                .run(&["get", "cv", &format!("{target}//{name}:1.0.0")])
                .await;
            assert_eq!(found.code, 4, "{}: {}", item.name, found.stdout);
        }
    }
}

/// A chart that is stated by the artifact it becomes keeps that digest. That it becomes another one is told.
#[tokio::test(flavor = "multi_thread")]
async fn charts_stated_as_artifacts_keep_their_digest() {
    let Some(servers) = Servers::start().await else {
        return;
    };
    let place = servers.place(&Peer::embedded().await);
    let items = servers.items(&place).await;
    let charts = items
        .iter()
        .filter(|item| matches!(item.wanted, Wanted::Chart(..)));
    for item in charts {
        let copy = async |name: &str, digest: Option<DigestSpec>| {
            let name = format!("acme.org/{}-{name}", item.name);
            let resource = element(ElementKind::Resource, "chart", &item.access, digest);
            publish(&place, &name, vec![resource], Vec::new()).await;
            let root = format!("{SOURCE}//{name}:1.0.0");
            let command = ["transfer", "cv", "--copy-resources", &root, "./out"];
            let ran = place.run(&command).await;
            let told = ran
                .ok()
                .stderr
                .contains("states an artifact with digest sha256:");
            let found = document(&place, "./out", &name).await;
            (found["component"]["resources"][0]["digest"].clone(), told)
        };
        let (made, _) = copy("made", None).await;
        let stated = DigestSpec::from_value(&made).unwrap();
        assert_eq!(copy("stated", Some(stated)).await, (made.clone(), false));
        let other = DigestSpec::new(&Digest::sha256(b"another"), true);
        assert_eq!(copy("other", Some(other)).await, (made, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_decided_on() {
    for target in ["./out", "target.example/deep"] {
        let peer = Peer::embedded().await;
        let place = Place::new().alias("target.example", &peer);
        let app = || descriptor("acme.org/app", "1.0.0", json!([]));
        store(&place, "./ctf", app(), "tool").await;
        let there = format!("{target}//acme.org/app:1.0.0");
        let copy = async |options: &str, code: i32| {
            let line = format!("transfer cv --copy-resources {APP} {target} {options}");
            let ran = run(&place, &line).await.code(code);
            if code == 8 {
                let named = ran.stderr.contains("acme.org/app:1.0.0");
                assert!(named, "{options}: {}", ran.stderr);
            }
            stored(&place, &there).await
        };
        let first = copy("", 0).await;
        // A difference that no signature covers.
        let mut labelled = stored(&place, APP).await;
        labelled["component"]["labels"] = json!([{"name": "acme.org/seen", "value": 1}]);
        put(&place, "./ctf", labelled).await;
        assert_eq!(copy("--conflict-policy fail", 8).await, first);
        assert_eq!(copy("--conflict-policy skip", 0).await, first);
        let second = copy("--conflict-policy update", 0).await;
        assert_eq!(
            second["component"]["labels"][0]["name"],
            json!("acme.org/seen")
        );
        // Other content.
        store(&place, "./ctf", app(), "another tool").await;
        for (options, code) in [
            ("", 8),
            ("--conflict-policy update", 8),
            ("--conflict-policy fail", 8),
            ("--conflict-policy skip", 0),
            ("--no-update", 0),
        ] {
            assert_eq!(copy(options, code).await, second, "{options}");
        }
        let replaced = copy("--conflict-policy replace", 0).await;
        assert_ne!(replaced, second);
        assert_eq!(replaced, stored(&place, APP).await);
    }
}

/// A configuration says how transfers are meant; the command line says it better.
#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_in_the_configuration() {
    let peer = Peer::embedded().await;
    let place = Place::new()
        .alias("ghcr.io", &peer)
        .alias("target.example", &peer);
    let product = components::localization();
    fill(&place, &product, "./source", Encoding::Json).await;
    let config = "type: generic.config.ocm.software/v1\nconfigurations:\n- type: transfer.config.ocm.software/v1alpha1\n  recursive: -1\n  copyMode: allResources\n  uploadType: ociArtifact\n";
    place.put("config.yaml", config);
    place.put(".ocmconfig", config);
    let home = place.path("").display().to_string();
    let root = format!("./source//{HELLOWORLD}:1.0.0");
    for (number, (options, is_recursive, kind)) in [
        (&["--config", "config.yaml"][..], true, "ociArtifact"),
        (&[], true, "ociArtifact"),
        (
            &[
                "--config",
                "config.yaml",
                "--upload-as",
                "localBlob",
                "--recursive=0",
            ],
            false,
            "localBlob",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("target.example/t{number}");
        let command = [&["transfer", "cv"], options, &[&root, &target]].concat();
        let home = [("HOME", home.as_str())];
        place.run_with(&home, &command).await.ok();
        let world = document(&place, &target, HELLOWORLD).await;
        let expected = [fixtures::image_index().root, fixtures::chart().root];
        for (index, root) in expected.iter().enumerate() {
            let resource = &world["component"]["resources"][index];
            let found = resource["access"]["type"].as_str().unwrap();
            assert!(found.starts_with(kind), "{options:?}: {resource}");
            assert_eq!(resource["digest"]["value"], json!(root.digest.hex()));
        }
        let child = format!("{target}//{HELLOEUROPE}:1.0.0");
        let found = place.run(&["get", "cv", &child]).await;
        assert_eq!(
            found.code == 0,
            is_recursive,
            "{options:?}: {}",
            found.stderr
        );
    }
}
