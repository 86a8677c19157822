//! Archive files as targets, and looking after archives.

use std::path::Path;

use ocm_content::Blob;
use ocm_repository::Existing;
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_specs::{Identity, RepositorySpec};
use serde_json::json;

use crate::place::{Place, Ran};

const COMPONENT: &str = "acme.org/forms";

/// A component version with a text beside its descriptor, in the archive `source`.
async fn with_source() -> Place {
    let place = Place::new();
    let session = place.session();
    let repository = session
        .repository(&RepositorySpec::ctf("source"), true)
        .await
        .unwrap();
    let element = json!({"name": "text", "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}});
    let text = Blob::from_bytes("text/plain", "text");
    let stored = repository
        .prepare_local_blob(COMPONENT, ElementKind::Resource, &element, &text.into())
        .await
        .unwrap();
    let descriptor = json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "resources": [stored], "sources": [], "componentReferences": []},
    });
    let descriptor = ComponentDescriptor::from_value(descriptor).unwrap();
    let prepared = repository.prepare_version(&descriptor, Existing::Fail);
    prepared.await.unwrap().publish().await.unwrap();
    place
}

async fn copy(place: &Place, from: &str, to: &str, more: &[&str]) -> Ran {
    let spec = format!(
        r#"
type: transformations.ocm.config.software/v1alpha1
transformations:
- id: down
  type: downloader.component.ctf/v1alpha1
  spec: {{filePath: {from}, name: {COMPONENT}, version: 1.0.0}}
- id: get
  type: downloader.localblob.ctf/v1alpha1
  spec:
    filePath: {from}
    resource: {{name: text}}
    componentDescriptor: ${{down.output.descriptor}}
- id: put
  type: uploader.localblob.ctf/v1alpha1
  spec:
    filePath: {to}
    componentDescriptor: ${{down.output.descriptor}}
    data: ${{get.output.data}}
- id: up
  type: uploader.component.ctf/v1alpha1
  spec:
    filePath: {to}
    componentDescriptor: ${{put.output.descriptor}}
"#
    );
    place.put("spec.yaml", spec);
    let mut arguments = vec!["transfer", "--transfer-spec", "spec.yaml", "-o", "json"];
    arguments.extend(more);
    place.run(&arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_files_are_targets_like_any_other() {
    let place = with_source().await;
    let mut from = "source";
    for to in [
        "out/x.tar",
        "out/y.tgz",
        "out/z.tar.gz",
        "back",
        "out/x2.tar",
    ] {
        let report = copy(&place, from, to, &[]).await.ok().json();
        assert_eq!(report["status"], "succeeded");
        let written = report["archives"].as_array().map_or(0, Vec::len);
        assert_eq!(written, usize::from(to != "back"), "{to}");
        let version = place.component(to, COMPONENT).await;
        let text = version.descriptor.resource(&Identity::named("text"));
        let content = version.local_blob(&text.unwrap()).unwrap();
        let ocm_content::Content::Blob(blob) = content else {
            panic!("a blob");
        };
        assert_eq!(blob.read(10).await.unwrap(), "text");
        // A second run finds it there and writes nothing.
        let before = place.files();
        let report = copy(&place, from, to, &[]).await.ok().json();
        assert!(report.get("archives").is_none(), "{to}: {report:#}");
        assert!(place.files() == before, "{to}");
        from = to;
    }
    let files = place.files();
    assert!(files[Path::new("out/x.tar")] == files[Path::new("out/x2.tar")]);
    assert!(files[Path::new("out/y.tgz")] == files[Path::new("out/z.tar.gz")]);
    assert!(
        files
            .keys()
            .all(|path| !path.to_string_lossy().contains("staging"))
    );
    let shown = place.run(&["get", "cv", "out/y.tgz", "-o", "json"]).await;
    assert!(shown.ok().stdout.contains(COMPONENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_written_fails_the_run() {
    let place = with_source().await;
    place.put("x.tar", "this is no archive");
    let ran = copy(&place, "source", "x.tar", &[]).await.code(3);
    assert!(
        ran.stderr.contains("neither tar nor gzip"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        std::fs::read(place.path("x.tar")).unwrap(),
        b"this is no archive"
    );

    // All steps go well, and then the lock can't be had.
    let blocked = place.path("y.tar.staging/.lock");
    std::fs::create_dir_all(&blocked).unwrap();
    let ran = copy(&place, "source", "y.tar", &["--report", "report.json"]).await;
    let ran = ran.code(1);
    assert!(ran.stderr.contains("y.tar"), "{}", ran.stderr);
    let report = std::fs::read(place.path("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["status"], "failed");
    assert_eq!(report["archives"][0]["error"]["kind"], "io");
    assert!(!place.path("y.tar").exists());

    // What was staged is there for the next run.
    std::fs::remove_dir(&blocked).unwrap();
    let report = copy(&place, "source", "y.tar", &[]).await.ok().json();
    assert!(report["totals"]["blobsSkipped"].as_u64().unwrap() > 0);
    place.component("y.tar", COMPONENT).await;
    assert!(!place.path("y.tar.staging").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_told_and_removed() {
    let place = with_source().await;
    copy(&place, "source", "x.tar", &[]).await.ok();
    let store = |session: std::sync::Arc<ocm_repository::Session>, path: &'static str| async move {
        let spec = RepositorySpec::ctf(path);
        let repository = session.repository(&spec, true).await.unwrap();
        repository.content_store("acme/x").unwrap()
    };
    for archive in ["source", "x.tar"] {
        let store = store(place.session(), archive).await;
        let lost = Blob::from_bytes("text/plain", "nobody needs it");
        store.push(&lost, &[]).await.unwrap();
    }
    for archive in ["source", "x.tar"] {
        let gc = async |more: &[&str]| {
            let mut arguments = vec!["ctf", "gc", archive, "-o", "json"];
            arguments.extend(more);
            place.run(&arguments).await.ok().json()
        };
        assert_eq!(gc(&[]).await["files"], 0, "{archive}: it is young");
        let told = gc(&["--grace", "0", "--dry-run"]).await;
        assert_eq!((&told["files"], &told["bytes"]), (&json!(1), &json!(15)));
        let removed = gc(&["--grace", "0s"]).await;
        assert_eq!(
            (&removed["files"], &removed["dryRun"]),
            (&json!(1), &json!(false))
        );
        assert_eq!(gc(&["--grace", "0"]).await["files"], 0);
        place.component(archive, COMPONENT).await;
    }
    let files = place.files();
    assert!(
        files
            .keys()
            .all(|path| !path.to_string_lossy().contains("staging"))
    );
    let said = place.run(&["ctf", "gc", "x.tar"]).await.ok().stdout;
    assert_eq!(said, "nothing to remove in x.tar\n");
    place.run(&["ctf", "gc", "gone.tar"]).await.code(4);
    place
        .run(&["ctf", "gc", "x.tar", "--grace", "soon"])
        .await
        .code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_files_are_not_served_for_writing() {
    let place = with_source().await;
    let ran = place
        .run(&[
            "registry",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "x.tar",
        ])
        .await
        .code(1);
    assert!(ran.stderr.contains("archive file"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_comes_into_an_archive_file() {
    let Some(keys) = ocm_testdata::peers::vector("signatures/compat-rsa") else {
        return;
    };
    let place = with_source().await;
    copy(&place, "source", "x.tar", &[]).await.ok();
    for name in ["rsa.priv", "rsa.pub"] {
        place.put(name, std::fs::read(keys.join(name)).unwrap());
    }
    let reference = format!("x.tar//{COMPONENT}:1.0.0");
    let sign = ["sign", "cv", "--private-key", "rsa.priv", &reference];
    place.run(&sign).await.ok();
    let version = place.component("x.tar", COMPONENT).await;
    assert_eq!(version.descriptor.signatures().count(), 1);
    let verify = ["verify", "cv", "--public-key", "rsa.pub", &reference];
    place.run(&verify).await.ok();
    assert!(!place.path("x.tar.staging").exists());
}

/// The component archive of old whose signature v1 made, in all three forms.
#[tokio::test(flavor = "multi_thread")]
async fn component_archives_are_read_verified_and_carried_on() {
    let Some(root) = ocm_testdata::peers::vector("signatures/compat-rsa") else {
        return;
    };
    let place = Place::new();
    place.put("rsa.pub", std::fs::read(root.join("rsa.pub")).unwrap());
    let files = crate::place::tree(&root.join("component-archive"));
    let names = files
        .iter()
        .rev()
        .map(|(path, bytes)| (path.to_str().unwrap(), bytes));
    let packed = ocm_testdata::fixtures::tar(names);
    place.put("packed.tgz", ocm_testdata::fixtures::gzip(&packed));
    place.put("packed", &packed);
    for (path, bytes) in &files {
        let path = place.path("folder").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let component = "github.com/mandelsoft/test";
    for (number, archive) in ["./folder", "./packed", "./packed.tgz", "ca::folder"]
        .iter()
        .enumerate()
    {
        let shown = place.run(&["get", "cv", archive, "-o", "json"]).await.ok();
        assert!(shown.stdout.contains(component), "{}", shown.stdout);
        let signed = format!("{archive}//{component}:1.0.0");
        let verify = [
            "verify",
            "cv",
            "--deep",
            "--public-key",
            "rsa.pub",
            "-o",
            "json",
        ];
        let verified = place
            .run(&[&verify[..], &[&signed]].concat())
            .await
            .ok()
            .json();
        assert_eq!(
            verified["deep"]["resources"][0]["state"], "ok",
            "{verified:#}"
        );

        let kind = if archive.starts_with("ca") {
            "ComponentArchive/v1"
        } else {
            "CommonTransportFormat/v1"
        };
        let from = format!(
            "{{type: {kind}, filePath: {}}}",
            archive.trim_start_matches("ca::")
        );
        let to = format!("{{type: CommonTransportFormat/v1, filePath: out{number}.tgz}}");
        let spec = format!(
            r#"
type: transformations.ocm.config.software/v1alpha1
transformations:
- id: get
  type: CTFGetComponentVersion/v1alpha1
  spec: {{repository: {from}, component: {component}, version: 1.0.0}}
- id: blob
  type: CTFGetLocalResource/v1alpha1
  spec: {{repository: {from}, component: {component}, version: 1.0.0, resourceIdentity: {{name: text}}}}
- id: put
  type: CTFAddLocalResource/v1alpha1
  spec:
    repository: {to}
    component: {component}
    version: 1.0.0
    resource: ${{blob.output.resource}}
    file: ${{blob.output.file}}
- id: add
  type: CTFAddComponentVersion/v1alpha1
  spec:
    repository: {to}
    descriptor:
      meta: ${{get.output.descriptor.meta}}
      signatures: ${{get.output.descriptor.signatures}}
      component:
        name: ${{get.output.descriptor.component.name}}
        version: ${{get.output.descriptor.component.version}}
        provider: ${{get.output.descriptor.component.provider}}
        repositoryContexts: []
        sources: []
        componentReferences: []
        resources: ["${{put.output.resource}}"]
"#
        );
        place.put("spec.yaml", spec);
        place
            .run(&["transfer", "--transfer-spec", "spec.yaml"])
            .await
            .ok();
        let carried = format!("./out{number}.tgz//{component}:1.0.0");
        place.run(&[&verify[..], &[&carried]].concat()).await.ok();
    }
    // Nothing is ever written into one.
    assert_eq!(crate::place::tree(&place.path("folder")), files);
}
