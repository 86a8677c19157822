//! Transfers and signatures: what must hold before, what holds behind, and what a second run costs.

use ocm_content::Blob;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{DigestSpec, ElementKind, Encoding};
use ocm_testdata::components::{self, HELLOWORLD};
use ocm_testdata::fixtures::{self, ArchiveForm};
use ocm_testdata::peers::vector;
use serde_json::{Value, json};

use crate::design::fill;
use crate::place::{Peer, Place, Ran, tree};
use crate::signing::{
    APP, DEP, descriptor, has_openssl, put, reference, run, store, stored, with_keys,
};

/// `127.0.0.1:PORT`, as people type it.
fn host(peer: &Peer) -> String {
    peer.url().trim_start_matches("http://").to_owned()
}

fn writes(peer: &Peer) -> u64 {
    let requests = peer.requests().unwrap();
    let methods = ["PUT", "POST", "PATCH", "DELETE"];
    methods.iter().map(|it| requests.count(it, |_| true)).sum()
}

/// An app that references a signed dependency, signed itself, in `./ctf`.
async fn signed() -> Place {
    let place = with_keys(&["acme", "other"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/dep", "0.1.0", json!([])),
        "dependency",
    )
    .await;
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", reference()),
        "tool",
    )
    .await;
    let sign =
        "sign componentversion --signature acme-signature --private-key acme.pem --recursive";
    run(&place, &format!("{sign} {APP}")).await.ok();
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn across_the_gap_and_verified_behind_it() {
    if !has_openssl() {
        return;
    }
    let place = signed().await;
    let (connected, behind) = (Peer::embedded().await, Peer::embedded().await);
    let repository = format!("{}/reference-scenario", host(&connected));
    let push = format!("transfer ctf --copy-resources --enforce --overwrite ctf {repository}");
    run(&place, &push).await.ok();
    let export = format!(
        "transfer cv --recursive --copy-resources --verify acme-signature=acme.pub {repository}//acme.org/app:1.0.0 ./airgap-archive"
    );
    let ran = run(&place, &export).await.ok();
    assert!(
        ran.stderr
            .contains("verified 2 component versions: 2 signatures"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("complete: nothing of 2 component versions points outside"),
        "{}",
        ran.stderr
    );
    drop(connected);
    let import = format!(
        "transfer ctf --copy-resources ./airgap-archive {}",
        host(&behind)
    );
    run(&place, &import).await.ok();
    for name in ["app:1.0.0", "dep:0.1.0"] {
        let reference = format!("{}//acme.org/{name}", host(&behind));
        let verify = "verify cv --deep --signature acme-signature --public-key acme.pub";
        run(&place, &format!("{verify} {reference}")).await.ok();
    }
    // A second import looks at each component version once and sends nothing.
    let before = (behind.requests().unwrap().total, writes(&behind));
    let again = run(&place, &format!("{import} -o json")).await.ok();
    let after = (behind.requests().unwrap().total, writes(&behind));
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 0));
    let report = again.json();
    assert_eq!(report["totals"]["bytesSent"], 0);
    let outcomes = report["componentVersions"].as_array().unwrap();
    assert_eq!(outcomes.len(), 2);
    assert!(
        outcomes.iter().all(|it| it["outcome"] == "present"),
        "{report}"
    );
    assert_eq!(report["completeness"]["outside"], json!([]));
    // As if it were not there: manifests again, no blob.
    let enforced = run(&place, &format!("{import} --enforce -o json"))
        .await
        .ok();
    assert_eq!(
        enforced.json()["componentVersions"][0]["outcome"],
        "replaced"
    );
    let blobs = behind
        .requests()
        .unwrap()
        .count("PUT", |path| path.contains("/blobs/"));
    run(&place, &format!("{import} --enforce")).await.ok();
    assert_eq!(
        behind
            .requests()
            .unwrap()
            .count("PUT", |path| path.contains("/blobs/")),
        blobs
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_verify_writes_nothing() {
    if !has_openssl() {
        return;
    }
    let place = signed().await;
    let target = Peer::embedded().await;
    let check = async |options: &str, part: &str| {
        let to = host(&target);
        let line = format!("transfer cv -r {options} {APP} ./never --to {to}");
        let ran = run(&place, &line).await.code(5);
        assert!(ran.stderr.contains(part), "{options}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("nothing was written") || part.contains("expected"),
            "{}",
            ran.stderr
        );
        assert_eq!(writes(&target), 0, "{options}");
        assert!(!place.path("never").exists(), "{options}");
    };
    check(
        "--verify acme-signature=other.pub",
        "signature `acme-signature` of acme.org/app:1.0.0",
    )
    .await;
    check(
        "--verify missing=acme.pub",
        "acme.org/app:1.0.0 has no signature `missing`",
    )
    .await;
    check("--verify-all -k other.pub", "signature `acme-signature`").await;
    check(
        "--verify acme-signature=acme.pub --verify missing=acme.pub",
        "no signature `missing`",
    )
    .await;

    // A child that is another one than the parent says: told before any signature is looked at.
    let mut child = stored(&place, DEP).await;
    child["component"]["provider"] = json!("mallory");
    put(&place, "./ctf", child).await;
    check("--verify acme-signature=acme.pub", "expected ").await;
    // A child that nothing vouches for.
    let mut parent = stored(&place, APP).await;
    parent["component"]["componentReferences"][0]["digest"] = Value::Null;
    put(&place, "./ctf", parent).await;
    check(
        "--verify acme-signature=acme.pub",
        "signature `acme-signature` of acme.org/",
    )
    .await;

    run(&place, &format!("transfer cv --verify = {APP} ./never"))
        .await
        .code(2);
    run(&place, &format!("transfer cv -k acme.pub {APP} ./never"))
        .await
        .code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_product_may_be_signed() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["acme"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/dep", "0.1.0", json!([])),
        "dependency",
    )
    .await;
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", reference()),
        "tool",
    )
    .await;
    // Its signature covers digests of references, stored or not.
    run(&place, &format!("sign cv --private-key acme.pem {APP}"))
        .await
        .ok();
    for line in [
        "--verify default=acme.pub",
        "--verify-all --public-key acme.pub",
    ] {
        let ran = run(&place, &format!("transfer cv -r {line} {APP} ./out"))
            .await
            .ok();
        assert!(
            ran.stderr
                .contains("verified 2 component versions: 1 signature,"),
            "{}",
            ran.stderr
        );
    }
    for name in ["app:1.0.0", "dep:0.1.0"] {
        let (before, after) = (
            stored(&place, &format!("./ctf//acme.org/{name}")).await,
            stored(&place, &format!("./out//acme.org/{name}")).await,
        );
        assert_eq!(before, after);
    }
}

/// The defect that copies by value relabelled digests and lost the creation time, so that signatures of v1 broke.
#[tokio::test(flavor = "multi_thread")]
async fn copies_by_value_keep_signatures_of_v1() {
    if !has_openssl() {
        return;
    }
    for normalisation in ["jsonNormalisation/v1", "jsonNormalisation/v3"] {
        let peer = Peer::embedded().await;
        let place = with_keys(&["key"]).alias("ghcr.io", &peer);
        let product = components::mapping(ArchiveForm::Set).await;
        fill(&place, &product, "./source", Encoding::YamlTar).await;
        let reference = format!("./source//{HELLOWORLD}:1.0.0");
        // As v1 writes it: the artifact inside of an archive counts, labels have versions, digests are nested.
        let mut document = stored(&place, &reference).await;
        let chart = DigestSpec::new(&fixtures::chart().root.digest, true).to_value();
        document["component"]["resources"][1]["digest"] = chart;
        document["component"]["labels"] =
            json!([{"name": "acme.org/tier", "value": {"a": 1}, "version": "v2", "signing": true}]);
        document["nestedDigests"] = json!([]);
        assert!(document["component"]["creationTime"].is_string());
        put(&place, "./source", document).await;
        let sign = format!("sign cv --private-key key.pem --normalisation {normalisation}");
        run(
            &place,
            &format!("{sign} --algorithm RSASSA-PKCS1-V1_5 {reference}"),
        )
        .await
        .ok();
        check_kept(&place, &reference, &host(&peer)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_by_value_keep_signatures_of_archives_that_v1_wrote() {
    let Some(folder) = vector("ctf/v1-helm-chart/with-resource") else {
        return;
    };
    if !has_openssl() {
        return;
    }
    let peer = Peer::embedded().await;
    let place = with_keys(&["key"]);
    for (name, bytes) in tree(&folder) {
        let path = place.path("source").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let found = run(&place, "get cv ./source -o json").await.ok().json();
    let component = &found[0]["component"];
    let reference = format!(
        "./source//{}:{}",
        component["name"].as_str().unwrap(),
        component["version"].as_str().unwrap()
    );
    let sign = "sign cv --private-key key.pem --normalisation jsonNormalisation/v3";
    run(
        &place,
        &format!("{sign} --algorithm RSASSA-PKCS1-V1_5 {reference}"),
    )
    .await
    .ok();
    check_kept(&place, &reference, &host(&peer)).await;
}

/// A copy by value, as local blobs and as artifacts, keeps all that is signed.
async fn check_kept(place: &Place, reference: &str, registry: &str) {
    let before = stored(place, reference).await;
    let name = reference.split_once("//").unwrap().1;
    for kind in ["localBlob", "ociArtifact"] {
        let target = format!("{registry}/{}", kind.to_lowercase());
        let copy =
            format!("transfer cv --copy-resources --upload-as {kind} --verify-all -k key.pub");
        run(place, &format!("{copy} {reference} {target}"))
            .await
            .ok();
        let after = format!("{target}//{name}");
        run(place, &format!("verify cv --public-key key.pub {after}"))
            .await
            .ok();
        let mut after = stored(place, &after).await;
        let (old, new) = (
            &before["component"]["resources"],
            &mut after["component"]["resources"],
        );
        let mut changed = 0;
        for (old, new) in old
            .as_array()
            .unwrap()
            .iter()
            .zip(new.as_array_mut().unwrap())
        {
            changed += usize::from(old["access"] != new["access"]);
            new["access"] = old["access"].clone();
        }
        assert_eq!(after, before, "{kind}");
        assert!(changed > 0 || kind == "localBlob", "{kind}");
    }
}

/// A descriptor of the schema v3alpha1 stays one, with what it references, whichever way it goes.
#[tokio::test(flavor = "multi_thread")]
async fn the_newer_schema_is_carried_as_it_is() {
    let (place, peer) = (Place::new(), Peer::embedded().await);
    store(
        &place,
        "./source",
        descriptor("acme.org/dep", "0.1.0", json!([])),
        "dependency",
    )
    .await;
    let spec: RepositorySpec = "./source".parse().unwrap();
    let source = place.session().repository(&spec, true).await.unwrap();
    let element = json!({"name": "tool", "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}});
    let blob = Blob::from_bytes("text/plain", "tool").into();
    let tool = source
        .prepare_local_blob("acme.org/new", ElementKind::Resource, &element, &blob)
        .await
        .unwrap();
    let document = json!({
        "apiVersion": "ocm.software/v3alpha1", "kind": "ComponentVersion",
        "metadata": {"name": "acme.org/new", "version": "1.0.0", "provider": {"name": "acme"}},
        "repositoryContexts": [], "spec": {
            "resources": [tool],
            "references": [{"name": "dep", "componentName": "acme.org/dep", "version": "0.1.0"}],
        },
    });
    put(&place, "./source", document).await;
    let registry = format!("{}/new", host(&peer));
    let new = "acme.org/new:1.0.0";
    for (from, to) in [
        ("./source", registry.as_str()),
        (&registry, "./back.tgz"),
        ("./back.tgz", "./back"),
    ] {
        let line = format!("transfer cv -r --copy-resources {from}//{new} {to}");
        run(&place, &line).await.ok();
        run(&place, &format!("check cv {to}//{new}")).await.ok();
        for reference in [new, "acme.org/dep:0.1.0"] {
            assert_eq!(
                stored(&place, &format!("{to}//{reference}")).await,
                stored(&place, &format!("./source//{reference}")).await,
                "{to}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_signature_is_decided_on() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", json!([])),
        "tool",
    )
    .await;
    run(&place, &format!("sign cv --private-key key.pem {APP}"))
        .await
        .ok();
    place.put("other.txt", "another tool");
    place.put("spec.yaml", CHANGE);
    let change = async |options: &str| -> Ran {
        let line = format!("transfer --transfer-spec spec.yaml --overwrite {options}");
        run(&place, &line).await
    };
    let ran = change("").await.code(5);
    for part in [
        "`default`",
        "`name=tool,version=1.0.0`",
        "step `add1`",
        "--on-broken-signature",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert!(!place.path("out/artifact-index.json").exists());

    let verify = "verify cv --public-key key.pub ./out//acme.org/app:1.0.0";
    change("--on-broken-signature keep").await.ok();
    run(&place, verify).await.code(5);
    change("--on-broken-signature drop").await.ok();
    assert_eq!(
        stored(&place, "./out//acme.org/app:1.0.0")
            .await
            .get("signatures"),
        None
    );
    change("--on-broken-signature resign --private-key key.pem")
        .await
        .ok();
    run(&place, verify).await.ok();
    let none = change("--on-broken-signature resign").await.code(4);
    assert!(none.stderr.contains("--private-key"), "{}", none.stderr);
    place.put(
        "keys.yaml",
        format!(
            "type: generic.config.ocm.software/v1\nconfigurations:\n- type: credentials.config.ocm.software\n  consumers:\n  \
             - identity: {{type: RSA/v1alpha1, algorithm: RSASSA-PSS, signature: default}}\n    credentials:\n    \
             - type: Credentials/v1\n      properties: {{private_key_pem_file: {}}}\n",
            place.path("key.pem").display()
        ),
    );
    change("--on-broken-signature drop").await.ok();
    change("--on-broken-signature resign --config keys.yaml")
        .await
        .ok();
    run(&place, verify).await.ok();
    change("--private-key key.pem").await.code(2);
}

const CHANGE: &str = "
transformations:
- id: get1
  type: CTFGetComponentVersion/v1alpha1
  spec: {repository: {type: ctf, filePath: ./ctf}, component: acme.org/app, version: 1.0.0}
- id: add1
  type: CTFAddLocalResource/v1alpha1
  spec:
    repository: {type: ctf, filePath: ./out}
    component: acme.org/app
    version: 1.0.0
    resource: '${get1.output.descriptor.component.resources[0]}'
    file: {type: File/v1alpha1, uri: 'file://./other.txt', mediaType: text/plain}
- id: merge1
  type: merge.component/v1alpha1
  spec: {base: '${get1.output.descriptor}', patches: ['${add1.output.resource}']}
- id: upload1
  type: CTFAddComponentVersion/v1alpha1
  spec: {repository: {type: ctf, filePath: ./out}, descriptor: '${merge1.output.descriptor}'}
";

#[tokio::test(flavor = "multi_thread")]
async fn the_end_says_what_is_missing() {
    let peer = Peer::embedded().await;
    let place = Place::new().alias("ghcr.io", &peer);
    fill(
        &place,
        &components::localization(),
        "./source",
        Encoding::Json,
    )
    .await;
    let root = format!("./source//{HELLOWORLD}:1.0.0");
    let ran = place
        .run(&["transfer", "cv", &root, "./out", "-o", "json"])
        .await
        .ok();
    let found = &ran.json()["completeness"];
    assert_eq!(found["versions"], json!([format!("{HELLOWORLD}:1.0.0")]));
    assert_eq!(found["outside"].as_array().unwrap().len(), 2);
    assert_eq!(
        found["outside"][0]["place"],
        "ghcr.io/fabianburth/source-image/myimage:6.7.1"
    );
    assert_eq!(found["notCarried"].as_array().unwrap().len(), 1);
    let told = "not complete: 2 elements point outside of the target, 1 referenced component version not carried";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    // Several images by value: once they are there, each component version costs one request.
    let target = Peer::embedded().await;
    let to = host(&target);
    let copy = ["transfer", "cv", "-r", "--copy-resources", &root, &to];
    let ran = place.run(&copy).await.ok();
    assert!(
        ran.stderr.contains("2 component versions: 2 created"),
        "{}",
        ran.stderr
    );
    let before = (target.requests().unwrap().total, writes(&target));
    place.run(&copy).await.ok();
    let after = (target.requests().unwrap().total, writes(&target));
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 0));
}
