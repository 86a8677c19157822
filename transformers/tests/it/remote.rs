//! Steps that read what other servers have, in whole specs: nothing is mocked but the servers' content.

use std::sync::Arc;

use bytes::Bytes;
use ocm_content::{Content, MemoryStores};
use ocm_engine::{RunResult, Status};
use ocm_repository::{ComponentVersion, Existing, Session, SessionConfig};
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::{Digest, Identity, RepositorySpec};
use ocm_testdata::fixtures::{chart_archive, image_index, noise};
use ocm_testdata::git::GitRepository;
use ocm_testdata::web::{Answer, WebServer, helm_repository};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::run;

const COMPONENT: &str = "acme.org/app";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn session(folder: &TempDir, aliases: &[(&str, &WebServer)]) -> Arc<Session> {
    let mut config = SessionConfig::new(folder.path());
    config.limits.temp_folder = Some(std::env::temp_dir());
    config.client.retry.base = std::time::Duration::from_millis(1);
    config.client.host_aliases = aliases
        .iter()
        .map(|(host, server)| ((*host).to_owned(), server.url().parse().expect("a URL")))
        .collect();
    let session = Session::new(config).expect("a session");
    session.register("reg.example", Arc::new(MemoryStores::new()));
    session
}

/// A spec that stores what `step` reads in an archive, as the reference generates it.
fn by_value(step: &str, resource: &Value) -> String {
    let repository = json!({"type": "CommonTransportFormat/v1", "filePath": "target"});
    let steps = json!([
        {"id": "get", "type": step, "spec": {"resource": resource}},
        {"id": "add", "type": "CTFAddLocalResource/v1alpha1", "spec": {
            "repository": repository, "component": COMPONENT, "version": "1.0.0",
            "resource": "${get.output.resource}", "file": "${get.output.file}",
        }},
        {"id": "upload", "type": "CTFAddComponentVersion/v1alpha1", "spec": {
            "repository": repository,
            "descriptor": {"meta": {"schemaVersion": "v2"}, "component": {
                "name": COMPONENT, "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
                "resources": ["${add.output.resource}"], "sources": [], "componentReferences": [],
            }},
        }},
    ]);
    json!({"transformations": steps}).to_string()
}

fn resource(access: Value) -> Value {
    json!({"name": "r", "version": "1.0.0", "type": "blob", "relation": "external", "access": access})
}

#[track_caller]
fn succeeded(result: &RunResult) {
    assert_eq!(result.status, Status::Succeeded, "{:?}", failures(result));
}

fn failures(result: &RunResult) -> Vec<String> {
    let failures = result.failures.iter();
    failures
        .map(|(step, error)| format!("{step}: {error}"))
        .collect()
}

fn output<'a>(result: &'a RunResult, step: &str) -> &'a Value {
    let mut outputs = result.outputs.iter();
    let found = outputs.find(|(id, _)| &**id == step);
    &found.expect("it ran").1
}

async fn stored(session: &Session) -> (ComponentVersion, Value, Bytes, String) {
    let spec = RepositorySpec::ctf("target");
    let repository = session.repository(&spec, false).await.expect("the target");
    let version = repository
        .get(COMPONENT, "1.0.0")
        .await
        .expect("it is there");
    let element = version
        .descriptor
        .resource(&Identity::named("r"))
        .expect("the resource");
    let value = element.value().clone();
    let Content::Blob(blob) = version.local_blob(&element).expect("a local blob") else {
        panic!("{value} is no blob");
    };
    let bytes = blob.read(64 << 20).await.expect("its bytes");
    (version, value, bytes, blob.media_type)
}

#[tokio::test]
async fn what_other_servers_have_becomes_a_local_blob() {
    let (small, large) = (Bytes::from_static(b"hello"), noise(300_000, 1));
    let archive = large.clone();
    let served = [small.clone(), large.clone()];
    let server = WebServer::start(move |asked| match asked.path.as_str() {
        "/small" => Answer::file(&asked, &served[0]).header("content-type", "text/plain"),
        "/large" => Answer::file(&asked, &served[1]),
        path if path == format!("/repos/acme/app/tarball/{COMMIT}") => {
            Answer::ok(archive.clone()).unmeasured()
        }
        _ => Answer::missing(),
    })
    .await;
    for (step, access, bytes, media_type) in [
        (
            "DownloadWgetResource/v1alpha1",
            json!({"type": "wget", "url": "https://files.example/small"}),
            &small,
            "text/plain",
        ),
        (
            "DownloadWgetResource/v1alpha1",
            json!({"type": "Wget/v1", "URL": "https://files.example/large", "mediaType": "a/b"}),
            &large,
            "a/b",
        ),
        (
            "GetGitHubCommit/v1alpha1",
            json!({"type": "gitHub", "repoUrl": "https://github.com/acme/app", "commit": COMMIT}),
            &large,
            "application/x-tgz",
        ),
    ] {
        for stated in [false, true] {
            let folder = TempDir::new().expect("a folder");
            let session = session(
                &folder,
                &[("files.example", &server), ("api.github.com", &server)],
            );
            let mut resource = resource(access.clone());
            let digest = Digest::sha256(bytes);
            if stated {
                resource["digest"] = json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": digest.hex()});
            }
            let (result, _) = run(&session, &by_value(step, &resource)).await;
            succeeded(&result);
            let (_, value, found, found_type) = stored(&session).await;
            assert!(found == *bytes, "{access}");
            assert_eq!(found_type, media_type, "{access}");
            assert_eq!(value["digest"]["value"], json!(digest.hex()));
            assert_eq!(
                value["digest"]["normalisationAlgorithm"],
                json!("genericBlobDigest/v1")
            );
            assert_eq!(value["access"]["type"], json!("localBlob"));
        }
    }
}

#[tokio::test]
async fn a_layer_of_a_registry_becomes_a_local_blob() {
    let folder = TempDir::new().expect("a folder");
    let session = session(&folder, &[]);
    let image = image_index();
    ocm_testdata::components::push(&session, "reg.example/acme/image:1", &image)
        .await
        .expect("pushed");
    let manifest = image.children[0].parse().expect("a manifest");
    let layer = manifest.layers.expect("layers").swap_remove(0);
    let access = json!({
        "type": "ociBlob", "ref": "reg.example/acme/image", "digest": layer.digest.to_string(),
        "size": layer.size, "mediaType": layer.media_type,
    });
    let spec = by_value("GetOCIImageLayer/v1alpha1", &resource(access));
    let (result, _) = run(&session, &spec).await;
    succeeded(&result);
    let (_, value, bytes, media_type) = stored(&session).await;
    assert_eq!(Digest::sha256(&bytes), layer.digest);
    assert_eq!(media_type, layer.media_type);
    assert_eq!(value["digest"]["value"], json!(layer.digest.hex()));
}

#[tokio::test]
async fn a_commit_of_a_git_repository_becomes_a_local_blob() {
    let Some(repository) = GitRepository::new("sha1") else {
        return;
    };
    repository.put("src/main.c", "int main() { return 0; }\n");
    let commit = repository.commit("first");
    let server = Arc::new(repository).serve(false).await;
    let mut digests = Vec::new();
    for named in [json!({"ref": "main"}), json!({"commit": commit})] {
        let folder = TempDir::new().expect("a folder");
        let session = session(&folder, &[("git.example", &server)]);
        let mut access = json!({"type": "git", "repository": "https://git.example/app.git"});
        let fields = named.as_object().expect("fields").clone();
        access.as_object_mut().expect("an object").extend(fields);
        let spec = by_value("GetGitCommit/v1alpha1", &resource(access));
        let (result, _) = run(&session, &spec).await;
        succeeded(&result);
        assert_eq!(
            output(&result, "get")["resource"]["access"]["commit"],
            json!(commit)
        );
        let (_, value, bytes, media_type) = stored(&session).await;
        assert_eq!(media_type, "application/x-tgz");
        assert_eq!(
            value["digest"]["value"],
            json!(Digest::sha256(&bytes).hex())
        );
        digests.push(value["digest"].clone());
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn what_can_not_be_read_fails_the_run_and_publishes_nothing() {
    let server =
        WebServer::files(helm_repository("webapp", "1.4.0", &chart_archive(), false)).await;
    let wrong = json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": Digest::sha256(b"x").hex()});
    for (step, access, digest, expected) in [
        (
            "DownloadWgetResource/v1alpha1",
            json!({"type": "wget", "url": "https://files.example/none"}),
            Value::Null,
            "read https://files.example/none: the server answers 404 Not Found",
        ),
        (
            "DownloadWgetResource/v1alpha1",
            json!({"type": "wget", "url": "https://files.example/index.yaml"}),
            wrong.clone(),
            "content has digest",
        ),
        (
            "DownloadWgetResource/v1alpha1",
            json!({"type": "helm", "helmRepository": "https://files.example"}),
            Value::Null,
            "resource `r` has access type `helm`, not wget",
        ),
        (
            "GetGitHubCommit/v1alpha1",
            json!({"type": "gitHub", "repoUrl": "https://github.com/acme/app", "ref": "refs/heads/main"}),
            Value::Null,
            "access.commit is missing",
        ),
        (
            "GetHelmChart/v1alpha1",
            json!({"type": "helm", "helmRepository": "https://files.example", "helmChart": "webapp:9.9.9"}),
            Value::Null,
            "chart `webapp:9.9.9`: the repository has no version 9.9.9 of chart `webapp`",
        ),
        (
            "GetHelmChart/v1alpha1",
            json!({"type": "helm", "helmRepository": "https://files.example", "helmChart": "webapp:1.4.0"}),
            wrong,
            "its descriptor says",
        ),
    ] {
        let folder = TempDir::new().expect("a folder");
        let session = session(&folder, &[("files.example", &server)]);
        let mut resource = resource(access);
        resource["digest"] = digest;
        let mut spec = by_value(step, &resource);
        if step.starts_with("GetHelm") {
            spec = spec.replace("get.output.file", "get.output.chartFile");
        }
        let (result, _) = run(&session, &spec).await;
        let error = failures(&result).concat();
        assert!(error.contains(expected), "{error}");
        let target = session
            .repository(&RepositorySpec::ctf("target"), false)
            .await;
        if let Ok(target) = target {
            assert!(target.get(COMPONENT, "1.0.0").await.is_err(), "{step}");
        }
    }
}

/// Charts from a repository and from a registry end up as one artifact.
#[tokio::test]
async fn a_chart_is_one_artifact_wherever_it_came_from() {
    let archive = chart_archive();
    let server = WebServer::files(helm_repository("webapp", "1.4.0", &archive, false)).await;
    let mut found = Vec::new();
    for repository in [
        "https://charts.example/stable",
        "oci://reg.example/acme/charts",
    ] {
        let folder = TempDir::new().expect("a folder");
        let session = session(&folder, &[("charts.example", &server)]);
        ocm_testdata::components::push(
            &session,
            "reg.example/acme/charts/webapp:1.4.0",
            &ocm_testdata::fixtures::chart(),
        )
        .await
        .expect("pushed");
        let access = json!({"type": "helm", "helmRepository": repository, "helmChart": "webapp", "version": "1.4.0"});
        let spec = json!({"transformations": [
            {"id": "get", "type": "GetHelmChart/v1alpha1", "spec": {"resource": resource(access)}},
            {"id": "convert", "type": "ConvertHelmToOCI/v1alpha1", "spec": {
                "chartFile": "${get.output.chartFile}", "provFile": "${get.output.?provFile}",
                "resource": "${get.output.resource}",
            }},
            {"id": "add", "type": "AddOCIArtifact/v1alpha1", "spec": {
                "file": "${convert.output.file}",
                "resource": {"name": "r", "version": "1.0.0", "type": "helmChart", "relation": "local",
                    "access": {"type": "ociArtifact", "imageReference": "reg.example/target/${convert.output.resource.access.imageReference}"}},
            }},
        ]})
        .to_string();
        // The alias has no folder; its server answers below one, too.
        let spec = spec.replace("charts.example/stable", "charts.example");
        let (result, _) = run(&session, &spec).await;
        succeeded(&result);
        let outputs = output(&result, "get");
        assert_eq!(outputs["resource"]["access"]["helmChart"], json!("webapp"));
        assert_eq!(outputs["resource"]["access"]["version"], json!("1.4.0"));
        assert!(outputs.get("provFile").is_none());
        let added = &output(&result, "add")["resource"];
        let reference = added["access"]["imageReference"]
            .as_str()
            .expect("a reference");
        let artifact = session.artifact(reference).await.expect("it is there");
        let root = artifact.root().expect("a root").digest.clone();
        assert_eq!(added["digest"]["value"], json!(root.hex()));
        found.push((reference.to_owned(), root));
    }
    assert_eq!(found[0].0, "reg.example/target/webapp:1.4.0");
    assert_eq!(found[1].0, "reg.example/target/acme/charts/webapp:1.4.0");
    assert_eq!(found[0].1, found[1].1);
}

/// The mapping dialect chooses the step by the access, as it does for images and local blobs.
#[tokio::test]
async fn mappings_take_along_what_other_servers_have() {
    let large = noise(100_000, 3);
    let mut files = helm_repository("webapp", "1.4.0", &chart_archive(), false);
    files.push(("/tool".to_owned(), large.clone()));
    let server = WebServer::files(files).await;
    let folder = TempDir::new().expect("a folder");
    let session = session(&folder, &[("files.example", &server)]);
    let image = image_index();
    ocm_testdata::components::push(&session, "reg.example/acme/image:1", &image)
        .await
        .expect("pushed");
    let manifest = image.children[0].parse().expect("a manifest");
    let layer = manifest.layers.expect("layers").swap_remove(0);
    let resources: Vec<Value> = [
        ("tool", json!({"type": "wget", "url": "https://files.example/tool?x=${y}"})),
        (
            "chart",
            json!({"type": "helm", "helmRepository": "https://files.example", "helmChart": "webapp:1.4.0"}),
        ),
        (
            "layer",
            json!({"type": "ociBlob", "ref": "reg.example/acme/image", "digest": layer.digest.to_string(), "size": layer.size}),
        ),
    ]
    .into_iter()
    .map(|(name, access)| {
        let mut resource = resource(access);
        resource["name"] = json!(name);
        resource
    })
    .collect();
    let listed: Vec<Value> = resources
        .iter()
        .map(|resource| json!({"resource": {"name": resource["name"]}, "target": {"type": "localBlob"}}))
        .collect();
    let descriptor = ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": [], "componentReferences": []},
    }))
    .expect("a descriptor");
    let source = session
        .repository(&RepositorySpec::ctf("source"), true)
        .await
        .expect("the source");
    let prepared = source.prepare_version(&descriptor, Existing::Fail).await;
    prepared
        .expect("prepared")
        .publish()
        .await
        .expect("published");

    let ctf = |path: &str| json!({"type": "CommonTransportFormat", "filePath": path});
    let spec = json!({"metadata": {"version": "v1alpha1"}, "spec": {"mappings": [{
        "component": {"name": COMPONENT, "version": "1.0.0"},
        "source": ctf("source"), "target": ctf("target"), "resources": listed,
    }]}});
    let (result, _) = run(&session, &spec.to_string()).await;
    succeeded(&result);
    let target = session
        .repository(&RepositorySpec::ctf("target"), false)
        .await
        .expect("the target");
    let version = target.get(COMPONENT, "1.0.0").await.expect("it is there");
    for (name, digest) in [
        ("tool", Some(Digest::sha256(&large))),
        ("layer", Some(layer.digest)),
        ("chart", None),
    ] {
        let element = version
            .descriptor
            .resource(&Identity::named(name))
            .expect(name);
        let content = version.local_blob(&element).expect("a local blob");
        match (content, digest) {
            (Content::Blob(blob), Some(digest)) => {
                blob.read(1 << 20).await.expect("its bytes");
                assert_eq!(blob.digest, Some(digest), "{name}");
            }
            (Content::Artifact(artifact), None) => {
                let root = artifact.root().expect("a root");
                assert_eq!(element.value()["digest"]["value"], json!(root.digest.hex()));
            }
            (content, _) => panic!("{name}: {content:?}"),
        }
    }
}
