//! What this program writes fits the schemas that both Go generations publish for it, and so do the shared descriptors.

use std::path::Path;

use ocm_specs::yaml::{LoadOptions, Source, load};
use ocm_testdata::components::{self, SHOP};
use ocm_testdata::peers::vector;
use serde_json::Value;

use crate::place::Place;

/// A JSON or YAML document as JSON.
fn document(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    let source = Source::new(path.display().to_string(), text);
    load(&source, &LoadOptions::default()).unwrap().to_json()
}

fn validator(name: &str) -> Option<jsonschema::Validator> {
    let path = vector(&format!("schemas/{name}"))?;
    Some(jsonschema::validator_for(&document(&path)).unwrap())
}

#[track_caller]
fn check(schema: &jsonschema::Validator, what: &str, document: &Value) {
    let mistakes: Vec<String> = schema
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(mistakes.is_empty(), "{what}: {}", mistakes.join("\n"));
}

/// Descriptors of the shared vectors that are valid by their account.
const DESCRIPTORS: &[&str] = &[
    "normalisation/introspect/descriptor-a.yaml",
    "normalisation/introspect/descriptor-b.yaml",
    "normalisation/none-access/descriptor.json",
    "normalisation/provider-labels/descriptor.json",
    "normalisation/duplicate-names/descriptor.yaml",
    "normalisation/ocmcli-0.27.0/descriptor.yaml",
];

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_fit_the_published_schemas() {
    let Some(of_v2) = validator("component-descriptor-v2.schema.json") else {
        return;
    };
    let of_v1 = validator("component-descriptor-v2-schema.v1-cli.yaml").unwrap();
    let local_blob = validator("access-localblob/LocalBlob.schema.json").unwrap();
    for path in DESCRIPTORS {
        check(&of_v2, path, &document(&vector(path).unwrap()));
    }
    let place = Place::new();
    let archive = place.path("archive");
    components::write_example(&archive).await.unwrap();
    let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pack");
    place
        .run(&["add", "cv", "-c", pack, "-r", "./archive"])
        .await
        .ok();
    let all = place.run(&["get", "cv", "./archive", "-o", "json"]).await;
    let all = all.ok().json();
    let mut blobs = 0;
    for descriptor in all.as_array().unwrap() {
        let name = descriptor["component"]["name"].as_str().unwrap();
        check(&of_v2, name, descriptor);
        check(&of_v1, name, descriptor);
        for resource in descriptor["component"]["resources"].as_array().unwrap() {
            let access = &resource["access"];
            if access["type"] == "localBlob" {
                check(&local_blob, name, access);
                blobs += 1;
            }
        }
    }
    assert!(blobs >= 5, "{blobs} local blobs");
    // The schemas can tell.
    let mut wrong = all[0].clone();
    wrong["component"]["name"] = "no domain".into();
    assert!(!of_v2.is_valid(&wrong) && !of_v1.is_valid(&wrong), "{SHOP}");
}

#[test]
fn descriptors_of_the_other_schema_version_fit_theirs() {
    let Some(schema) = validator("component-descriptor-ocm-v3-schema.v1-cli.yaml") else {
        return;
    };
    for name in ["descriptor-1.yaml", "descriptor-2.yaml"] {
        if let Some(path) = vector(&format!("recursion/spec-example/{name}")) {
            check(&schema, name, &document(&path));
        }
    }
}
