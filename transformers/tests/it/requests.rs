//! How often registries are asked, and how often content is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ocm_content::{Blob, Content, CopyOptions, RawManifest, Referrers, Stores};
use ocm_engine::{RunResult, Status};
use ocm_repository::{Existing, Session, SessionConfig};
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_testdata::faults::{Fault, FaultyRegistry, Kind, Log, Rule};
use ocm_testdata::fixtures::{Fixture, image, image_index, noise, referrer};
use ocm_testdata::tell;
use serde_json::{Value as Json, json};

use crate::support::run;

const NAME: &str = "acme.org/app";

fn session(folder: &Path, referrers: Referrers) -> Arc<Session> {
    let mut config = SessionConfig::new(folder);
    config.copy = CopyOptions { referrers };
    Session::new(config).expect("a session")
}

async fn registry() -> FaultyRegistry {
    FaultyRegistry::start([]).await.expect("a free port")
}

async fn put(registry: &FaultyRegistry, repository: &str, artifact: &Fixture) {
    let store = registry.stores.store(repository).expect("a store");
    artifact.push(&store, Some("1")).await.expect("pushes");
}

async fn succeed(session: &Arc<Session>, steps: &[Json]) -> RunResult {
    let spec = json!({"transformations": steps});
    let (result, _) = run(session, &spec.to_string()).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    result
}

fn image_resource(host: &str) -> Json {
    json!({"name": "image", "version": "1", "type": "ociImage", "relation": "external",
        "access": {"type": "ociArtifact", "imageReference": format!("{host}/src/image:1")}})
}

fn component(resources: Json) -> Json {
    json!({"meta": {"schemaVersion": "v2"}, "component": {
        "name": NAME, "version": "1.0.0", "provider": "acme.org", "repositoryContexts": [],
        "resources": resources, "sources": [], "componentReferences": [],
    }})
}

/// Downloads the image of `from` and uploads it to each place.
fn copy_steps(from: &str, to: &[String]) -> Vec<Json> {
    let mut steps = vec![
        json!({"id": "down", "type": "downloader.resource.oci/v1alpha1",
        "spec": {"componentDescriptor": component(json!([image_resource(from)])), "resource": {"name": "image"}}}),
    ];
    steps.extend(to.iter().enumerate().map(|(at, to)| {
        json!({"id": format!("up{at}"), "type": "uploader.resource.oci/v1alpha1",
            "spec": {"imageReference": format!("{to}/dst{at}/image:1"), "data": "${down.output.data}"}})
    }));
    steps
}

fn blobs(log: &Log) -> usize {
    [Kind::Blob, Kind::UploadStart, Kind::Upload]
        .iter()
        .map(|kind| {
            log.entries()
                .iter()
                .filter(|entry| entry.kind == *kind)
                .count()
        })
        .sum()
}

fn all(log: &Log) -> Vec<String> {
    let line = |entry: &ocm_testdata::faults::Entry| format!("{} {}", entry.method, entry.path);
    log.entries().iter().map(line).collect()
}

#[tokio::test]
async fn an_image_that_is_there_costs_a_look_on_each_side() {
    for (options, with_referrer, most) in [
        (Referrers::None, true, 2),
        (Referrers::All, false, 3),
        (Referrers::All, true, 4),
    ] {
        let (source, target) = (registry().await, registry().await);
        let fixture = image_index();
        put(&source, "src/image", &fixture).await;
        if with_referrer {
            let store = source.stores.store("src/image").expect("a store");
            let signature = referrer(&fixture.root.descriptor(), "application/x.sig", "signed");
            signature.push(&store, None).await.expect("pushes");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let steps = copy_steps(&source.host(), &[target.host()]);
        succeed(&session(folder.path(), options), &steps).await;

        source.log.clear();
        target.log.clear();
        succeed(&session(folder.path(), options), &steps).await;
        let (mut asked, there) = (all(&source.log), all(&target.log));
        assert!(
            there
                .iter()
                .all(|line| line.starts_with("HEAD") || line.starts_with("GET"))
        );
        asked.extend(there);
        assert!(asked.len() <= most, "{options:?}: {asked:#?}");
    }
}

#[tokio::test]
async fn a_new_blob_costs_three_requests() {
    let (source, target) = (registry().await, registry().await);
    put(&source, "src/image", &image(20, 10_000)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let session = session(folder.path(), Referrers::All);
    succeed(&session, &copy_steps(&source.host(), &[target.host()])).await;
    let requests = blobs(&source.log) + blobs(&target.log);
    // Twenty layers and the config.
    assert!(requests <= 3 * 21, "{requests} for 21 blobs");

    // The same again into another repository of that host, by another run: taken over without sending.
    let (before, there) = (blobs(&source.log), blobs(&target.log));
    let store = target.stores.store("src/image").expect("a store");
    image(20, 10_000)
        .push(&store, Some("1"))
        .await
        .expect("pushes");
    let other = self::session(folder.path(), Referrers::All);
    let mut steps = copy_steps(&target.host(), &[target.host()]);
    steps[1]["spec"]["imageReference"] = json!(format!("{}/other/image:1", target.host()));
    succeed(&other, &steps).await;
    assert_eq!(blobs(&source.log), before);
    assert_eq!(blobs(&target.log) - there, 21, "one mount each");
}

#[tokio::test]
async fn a_component_version_that_is_there_costs_one_look() {
    let (source, target) = (registry().await, registry().await);
    let folder = tempfile::tempdir().expect("a folder");
    let first = session(folder.path(), Referrers::All);
    write(&first, &RepositorySpec::oci(source.host(), ""), 3).await;
    let steps = carry_steps(
        &source.host(),
        &[RepositorySpec::oci(target.host(), "x")],
        3,
    );
    succeed(&first, &steps).await;

    // The upload alone: its local content is known from the source.
    let spec = [steps[0].clone(), {
        let mut upload = steps.last().expect("an upload").clone();
        upload["spec"]["componentDescriptor"] = json!("${down.output.descriptor}");
        upload
    }];
    target.log.clear();
    let again = session(folder.path(), Referrers::All);
    succeed(&again, &spec).await;
    let asked = all(&target.log);
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert!(asked[0].starts_with("HEAD"), "{asked:#?}");
}

/// A component version with local blobs in `spec`.
async fn write(session: &Arc<Session>, spec: &RepositorySpec, blobs: u64) {
    let repository = session.repository(spec, true).await.expect("opens");
    let mut resources = Vec::new();
    for at in 0..blobs {
        let content = Content::Blob(Blob::from_bytes("text/plain", noise(50_000, at)));
        let element =
            json!({"name": format!("r{at}"), "version": "1", "type": "blob", "relation": "local"});
        let stored = repository.prepare_local_blob(NAME, ElementKind::Resource, &element, &content);
        resources.push(stored.await.expect("stores"));
    }
    let descriptor = ComponentDescriptor::from_value(component(json!(resources))).expect("one");
    let prepared = repository.prepare_version(&descriptor, Existing::Fail);
    let published = prepared.await.expect("prepares").publish().await;
    published.expect("publishes");
}

/// Takes a component version with its local blobs to each of `targets`.
fn carry_steps(from: &str, targets: &[RepositorySpec], blobs: u64) -> Vec<Json> {
    let mut steps = vec![
        json!({"id": "down", "type": "downloader.component.oci/v1alpha1",
        "spec": {"baseUrl": from, "name": NAME, "version": "1.0.0"}}),
    ];
    for at in 0..blobs {
        steps.push(json!({"id": format!("get{at}"), "type": "OCIGetLocalResource/v1alpha1",
            "spec": {"repository": {"type": "OCIRepository/v1", "baseUrl": from}, "component": NAME, "version": "1.0.0",
                "resourceIdentity": {"name": format!("r{at}")}}}));
    }
    for (number, target) in targets.iter().enumerate() {
        let is_oci = matches!(target, RepositorySpec::Oci(_));
        let kind = if is_oci { "OCI" } else { "CTF" };
        let repository = serde_json::to_value(target).expect("JSON");
        let add = |at| {
            json!({"id": format!("add{number}x{at}"), "type": format!("{kind}AddLocalResource/v1alpha1"),
                "spec": {"repository": repository, "component": NAME, "version": "1.0.0",
                    "resource": format!("${{get{at}.output.resource}}"), "file": format!("${{get{at}.output.file}}")}})
        };
        steps.extend((0..blobs).map(add));
        let resources: Vec<String> = (0..blobs)
            .map(|at| format!("${{add{number}x{at}.output.resource}}"))
            .collect();
        let mut place = match target {
            RepositorySpec::Oci(oci) => json!({"baseUrl": oci.base_url, "subPath": oci.sub_path}),
            RepositorySpec::Ctf(ctf) => json!({"filePath": ctf.file_path}),
        };
        place["componentDescriptor"] = component(json!(resources));
        steps.push(json!({"id": format!("up{number}"), "spec": place,
            "type": format!("uploader.component.{}/v1alpha1", kind.to_lowercase())}));
    }
    steps
}

/// How often each blob was read.
fn reads(log: &Log) -> BTreeMap<String, usize> {
    let mut reads = BTreeMap::new();
    for entry in log.entries() {
        if entry.method == "GET" && entry.kind == Kind::Blob {
            *reads.entry(entry.path).or_default() += 1;
        }
    }
    reads
}

#[tokio::test]
async fn four_targets_share_one_read_of_each_blob() {
    let (source, left, right) = (registry().await, registry().await, registry().await);
    let folder = tempfile::tempdir().expect("a folder");
    let writer = session(folder.path(), Referrers::All);
    write(&writer, &RepositorySpec::oci(source.host(), ""), 4).await;
    source.log.clear();
    let targets = [
        RepositorySpec::oci(left.host(), "a"),
        RepositorySpec::oci(right.host(), "b"),
        RepositorySpec::ctf("one"),
        RepositorySpec::ctf("two"),
    ];
    let session = session(folder.path(), Referrers::All);
    succeed(&session, &carry_steps(&source.host(), &targets, 4)).await;
    let found = reads(&source.log);
    // Four local blobs, the descriptor, and the config that leads to it.
    assert_eq!(
        found.values().copied().collect::<Vec<_>>(),
        [1; 6],
        "{found:#?}"
    );
    for target in &targets {
        let repository = session.repository(target, false).await.expect("opens");
        repository.get(NAME, "1.0.0").await.expect("is there");
    }
}

#[tokio::test]
async fn four_image_targets_share_one_read_of_each_blob() {
    let (source, targets) = (
        registry().await,
        [
            registry().await,
            registry().await,
            registry().await,
            registry().await,
        ],
    );
    put(&source, "src/image", &image_index()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = targets.each_ref().map(FaultyRegistry::host);
    let session = session(folder.path(), Referrers::All);
    succeed(&session, &copy_steps(&source.host(), &hosts)).await;
    let found = reads(&source.log);
    assert!(
        !found.is_empty() && found.values().all(|reads| *reads == 1),
        "{found:#?}"
    );
    let manifests = source.log.count("GET", Kind::Manifest);
    let expected = 1 + image_index().children.len();
    assert_eq!(manifests, expected, "each manifest is read once");
}

/// On virtual time, where work costs nothing: what is measured is waiting alone.
#[tokio::test(start_paused = true)]
async fn many_small_artifacts_keep_a_long_way_busy() {
    const COUNT: usize = 256;
    const ROUND_TRIP: Duration = Duration::from_millis(30);
    let late = || [Rule::on(Kind::Any).then(Fault::Late { by: ROUND_TRIP })];
    let source = FaultyRegistry::start(late()).await.expect("a free port");
    let target = FaultyRegistry::start(late()).await.expect("a free port");
    let store = source.stores.store("src/many").expect("a store");
    let resource = |host: &str, at: usize| {
        json!({"name": "image", "version": "1", "type": "ociImage", "relation": "external",
            "access": {"type": "ociArtifact", "imageReference": format!("{host}/src/many:{at}")}})
    };
    let mut steps = Vec::new();
    for at in 0..COUNT {
        let subject = image(1, 10).root.descriptor();
        let artifact = referrer(&subject, "application/x-test", &at.to_string());
        let mut manifest = artifact.root.parse().expect("a manifest");
        manifest.subject = None;
        for blob in &artifact.blobs {
            store.push(blob, &[]).await.expect("pushes");
        }
        let manifest = RawManifest::write(&manifest);
        let tag = at.to_string();
        store
            .put_manifest(&manifest, Some(&tag))
            .await
            .expect("puts");
        steps.push(json!({"id": format!("copy{at}"), "type": "TransferOCIArtifact/v1alpha1", "spec": {
            "resource": resource(&source.host(), at), "targetResource": resource(&target.host(), at)}}));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let session = session(folder.path(), Referrers::All);
    let start = tokio::time::Instant::now();
    succeed(&session, &steps).await;
    let took = start.elapsed();
    let requests = source.log.count_all() + target.log.count_all();
    let least = ROUND_TRIP.mul_f64(requests as f64 / 64.0);
    tell(&format!(
        "{requests} requests, {took:?} of at least {least:?}"
    ));
    assert!(requests <= 8 * COUNT, "{requests} requests");
    assert!(took < least.mul_f64(1.3), "{took:?} instead of {least:?}");
}
