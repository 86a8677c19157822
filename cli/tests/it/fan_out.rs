//! One source, several targets; and the same again.

use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::Encoding;
use ocm_testdata::components::{self, HELLOWORLD};
use ocm_testdata::fixtures::ArchiveForm;
use serde_json::{Value, json};

use crate::place::{Peer, Place};

/// Image and chart by value, everything to two registries and two archives.
fn spec() -> Value {
    let registry = |host: &str| json!({"type": "OCIRegistry", "baseUrl": host, "subPath": "acme"});
    let archive = |path: &str| json!({"type": "CommonTransportFormat", "filePath": path});
    let by_value =
        |name: &str| json!({"resource": {"name": name}, "target": {"type": "localBlob"}});
    json!({
        "metadata": {"version": "v1alpha1"},
        "spec": {"mappings": [{
            "component": {"name": HELLOWORLD, "version": "1.0.0"},
            "source": archive("./archive"),
            "target": [registry("one.example"), archive("./one"), registry("two.example"), archive("./two")],
            "resources": [by_value("podinfo-image")],
        }]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn four_targets_cost_one_read_and_a_second_run_none() {
    let (source, one) = (Peer::embedded().await, Peer::embedded().await);
    let twos = Peer::all().await;
    for two in twos {
        let place = Place::new()
            .alias("ghcr.io", &source)
            .alias("one.example", &one)
            .alias("two.example", &two);
        let product = components::mapping(ArchiveForm::Set).await;
        let session = place.session();
        product.push(&session).await.unwrap();
        let archive = RepositorySpec::ctf("./archive");
        product
            .write(&session, &archive, Encoding::Json)
            .await
            .unwrap();
        place.put("spec.json", spec().to_string());
        let run = ["transfer", "--transfer-spec", "spec.json", "-o", "json"];
        let report = place.run(&run).await.ok().json();

        let reads = report["reads"].as_object().unwrap();
        assert!(reads.values().all(|count| count == 1), "{reads:#?}");
        let (_, image) = &product.artifacts[0];
        for blob in &image.blobs {
            let digest = blob.digest.as_ref().unwrap().to_string();
            assert!(reads.contains_key(&digest), "{digest}: {reads:#?}");
        }
        assert_eq!(report["totals"]["bytesSpooled"], 0);
        let places = ["one.example/acme", "two.example/acme", "./one", "./two"];
        let mut roots = Vec::new();
        for target in places {
            let version = place.component(target, HELLOWORLD).await;
            for resource in version.descriptor.resources() {
                version.local_blob(&resource).unwrap();
            }
            roots.push(version.root);
        }
        assert!(
            roots.iter().all(|root| *root == roots[0]),
            "equal everywhere"
        );

        let before = (place.files(), one.requests().unwrap());
        let report = place.run(&run).await.ok().json();
        assert_eq!(report["status"], "succeeded");
        assert_eq!(report["totals"]["bytesSent"], 0, "{:#}", report);
        assert_eq!(before.0, place.files());
        let after = one.requests().unwrap();
        for method in ["PUT", "PATCH"] {
            let count = |requests: &ocm_registry::Requests| requests.count(method, |_| true);
            assert_eq!(count(&after), count(&before.1), "{:#?}", after.by_path);
        }
    }
}
