use serde_json::json;

use super::*;
use crate::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML};

fn document() -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "component": {
            "name": "acme.org/app",
            "version": "1.0.0",
            "provider": "{\"name\":\"acme\",\"labels\":[{\"name\":\"l\",\"value\":1}]}",
            "unknown": {"kept": [1, null]},
            "repositoryContexts": null,
            "resources": [
                {"name": "image", "version": "1.0.0", "type": "ociImage", "relation": "external", "future": 1,
                 "access": {"type": "ociArtifact", "imageReference": "r.io/a:1"}},
                {"name": "image", "version": "1.0.0", "extraIdentity": {"os": "linux"}, "type": "ociImage",
                 "relation": "external", "access": {"type": "none"}},
                {"name": "chart", "version": "2.0.0", "type": "helmChart", "relation": "local",
                 "access": {"type": "localBlob", "localReference": "sha256:1", "mediaType": "x"}},
            ],
            "sources": [],
            "componentReferences": [{"name": "dep", "componentName": "acme.org/dep", "version": "0.1.0",
                "digest": {"hashAlgorithm": "", "normalisationAlgorithm": "", "value": ""}}],
        },
        "nestedDigests": [{"name": "acme.org/dep", "version": "0.1.0"}],
        "signatures": [{"name": "default", "digest": {"hashAlgorithm": "SHA-256",
            "normalisationAlgorithm": "jsonNormalisation/v3", "value": "00"},
            "signature": {"algorithm": "RSASSA-PSS", "value": "ff", "mediaType": "x"}, "timestamp": {"value": "t"}}],
    })
}

fn stored() -> ComponentDescriptor {
    // Spaces show whether these very bytes are kept.
    let text = serde_json::to_string_pretty(&document()).expect("json");
    ComponentDescriptor::decode(DESCRIPTOR_JSON, text.into_bytes()).expect("a descriptor")
}

#[test]
fn views_find_everything() {
    let descriptor = stored();
    assert_eq!(descriptor.name(), "acme.org/app");
    assert_eq!(descriptor.version(), "1.0.0");
    assert_eq!(descriptor.provider().name, "acme");
    assert_eq!(descriptor.provider().labels.len(), 1);
    assert_eq!(descriptor.resources().len(), 3);
    assert_eq!(descriptor.repository_contexts().len(), 0);
    assert_eq!(descriptor.nested_digests().len(), 1);
    let reference = descriptor.references().next().expect("a reference");
    assert_eq!(reference.component_name(), Some("acme.org/dep"));
    assert_eq!(reference.digest(), None, "an empty triple says nothing");
    let signature = descriptor.signatures().next().expect("a signature");
    assert_eq!(signature.name(), "default");
    assert_eq!(signature.field("algorithm"), Some("RSASSA-PSS"));
}

#[test]
fn v3alpha1_is_read() {
    let descriptor = ComponentDescriptor::from_value(json!({
        "apiVersion": "ocm.software/v3alpha1",
        "kind": "ComponentVersion",
        "metadata": {"name": "acme.org/app", "version": "1.0.0", "provider": {"name": "acme"}},
        "repositoryContexts": [{"type": "OCIRegistry"}],
        "spec": {"references": [{"name": "dep", "componentName": "acme.org/dep", "version": "1"}]},
    }))
    .expect("a descriptor");
    assert_eq!(descriptor.schema(), SchemaVersion::V3Alpha1);
    assert_eq!(descriptor.provider().name, "acme");
    assert_eq!(descriptor.references().len(), 1);
    assert_eq!(descriptor.resources().len(), 0);
    assert_eq!(descriptor.repository_contexts().len(), 1);
}

#[test]
fn look_ups_name_the_candidates() {
    let descriptor = stored();
    let image = Identity::named("image");
    let linux = image.clone().with("os", "linux");
    let found = descriptor.resource(&linux).expect("one");
    assert!(matches!(found.access(), Ok(crate::access::Access::None)));
    let complete = image.clone().with("version", "1.0.0");
    assert!(
        descriptor.resource(&complete).is_ok(),
        "the complete identity wins"
    );
    for (wanted, expected) in [
        (
            image,
            "found 2 candidates for resource `name=image`, expected exactly one: `name=image,version=1.0.0`, `name=image,os=linux,version=1.0.0`",
        ),
        (
            Identity::named("chart").with("version", "9"),
            "no resource `name=chart,version=9`; there are `name=chart,version=2.0.0`",
        ),
    ] {
        let error = descriptor.resource(&wanted).expect_err("not one");
        assert_eq!(error.to_string(), expected);
    }
    let error = descriptor
        .find(ElementKind::Source, &Identity::named("x"))
        .expect_err("no sources");
    assert_eq!(error.to_string(), "no source `name=x`; there are none");
}

#[test]
fn what_is_not_changed_keeps_its_bytes() {
    let mut descriptor = stored();
    let original = descriptor.original().expect("it was read").clone();
    let chart = Identity::named("chart");
    let same = descriptor.resource(&chart).expect("one").value().clone();
    descriptor.set_resource(&chart, same).expect("one");
    descriptor.retain(ElementKind::Resource, |_| true);
    descriptor.edit(|_| ()).expect("nothing changes");
    assert_eq!(descriptor.to_stored(Encoding::Yaml), original);
    assert_eq!(descriptor.encode(Encoding::Json), original);
    assert_eq!(
        descriptor.encode(Encoding::Yaml).media_type,
        DESCRIPTOR_YAML
    );

    let mut passed_on = ComponentDescriptor::from_value(document()).expect("a descriptor");
    assert!(passed_on.adopt_original(&descriptor));
    assert_eq!(passed_on.to_stored(Encoding::Json), original);
}

#[test]
fn an_edit_touches_only_what_it_names() {
    let mut descriptor = stored();
    let identity = Identity::named("chart");
    let mut chart = descriptor.resource(&identity).expect("one").value().clone();
    chart["access"]["localReference"] = "sha256:2".into();
    descriptor.set_resource(&identity, chart).expect("one");
    assert!(descriptor.original().is_none());
    let mut expected = document();
    expected["component"]["resources"][2]["access"]["localReference"] = "sha256:2".into();
    // Compared as text: the order of keys stays, too.
    assert_eq!(descriptor.document().to_string(), expected.to_string());

    let added = json!({"name": "new", "version": "1.0.0", "type": "blob", "relation": "local", "access": {"type": "none"}});
    assert_eq!(
        descriptor.merge(ElementKind::Resource, added.clone()),
        Ok(false)
    );
    assert_eq!(descriptor.merge(ElementKind::Resource, added), Ok(true));
    assert_eq!(descriptor.resources().len(), 4);
    descriptor.retain(ElementKind::Resource, |element| element.name() == "new");
    assert_eq!(descriptor.resources().len(), 1);
}

#[test]
fn yaml_types_do_not_reach_texts() {
    let text = "meta: {schemaVersion: v2}\ncomponent:\n  name: acme.org/app\n  version: 1.10\n  provider: on\n  repositoryContexts: []\n  sources: []\n  componentReferences: []\n  labels: [{name: l, value: yes}]\n  resources:\n  - {name: on, version: 2, type: blob, relation: local, extraIdentity: {cpu: 64}, access: {type: x, size: 1}}\n";
    let descriptor = ComponentDescriptor::decode(DESCRIPTOR_YAML, text.as_bytes().to_vec())
        .expect("a descriptor");
    assert_eq!(descriptor.version(), "1.1", "as Go reads it");
    assert_eq!(descriptor.provider().name, "true");
    assert_eq!(descriptor.labels()[0]["value"], true);
    let resource = descriptor.resources().next().expect("one");
    assert_eq!(
        resource.identity().to_string(),
        "cpu=64,name=true,version=2"
    );
    assert_eq!(resource.access_value().expect("an access")["size"], 1);
}

#[test]
fn what_is_no_descriptor_is_refused() {
    for (value, expected) in [
        (
            json!([]),
            "component descriptor: `the document` is not an object",
        ),
        (
            json!({}),
            "component descriptor of unknown schema (none is given)",
        ),
        (
            json!({"meta": {"schemaVersion": "v7"}}),
            "component descriptor of unknown schema `v7`",
        ),
        (
            json!({"meta": {"schemaVersion": "v2"}, "component": {"name": "a.io/b"}}),
            "component descriptor: `component.version` is not a text",
        ),
        (
            json!({"meta": {"schemaVersion": "v2"}, "component": {"name": "a.io/b", "version": "1", "resources": {}}}),
            "component descriptor: `component.resources` is not a list",
        ),
        (
            json!({"meta": {"schemaVersion": "v2"}, "component": {"name": "a.io/b", "version": "1", "sources": [1]}}),
            "component descriptor: `component.sources[0].name` is not a text",
        ),
    ] {
        let error = ComponentDescriptor::from_value(value).expect_err("no descriptor");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let deep = "[".repeat(10_000);
    for (media_type, bytes) in [
        ("text/plain", "{}".to_owned()),
        (DESCRIPTOR_JSON, "{".to_owned()),
        (DESCRIPTOR_JSON, deep.clone()),
        (DESCRIPTOR_YAML, deep),
        (crate::media_type::DESCRIPTOR_YAML_TAR, "x".repeat(2000)),
        (crate::media_type::DESCRIPTOR_YAML_TAR, String::new()),
    ] {
        assert!(ComponentDescriptor::decode(media_type, bytes.into_bytes()).is_err());
    }
}

#[test]
fn digests_keep_their_label_while_they_hold() {
    let value = crate::Digest::sha256(b"x");
    let other = crate::Digest::sha256(b"y");
    let old = DigestSpec {
        hash_algorithm: "sha256".to_owned(),
        normalisation_algorithm: GENERIC_BLOB_DIGEST.to_owned(),
        value: value.hex().to_owned(),
    };
    let excluded = DigestSpec {
        hash_algorithm: "NO-DIGEST".to_owned(),
        normalisation_algorithm: EXCLUDED.to_owned(),
        value: "NO-DIGEST".to_owned(),
    };
    assert_eq!(updated_digest(Some(&old), &value, true), old);
    assert_eq!(updated_digest(Some(&excluded), &value, true), excluded);
    assert_eq!(
        updated_digest(Some(&old), &other, true).normalisation_algorithm,
        OCI_ARTIFACT_DIGEST
    );
    assert_eq!(
        updated_digest(None, &value, false).normalisation_algorithm,
        GENERIC_BLOB_DIGEST
    );
}

#[test]
fn signatures_are_put_beside_others() {
    let other = json!({"name": "other", "timestamp": {"value": "t"}, "x": 1});
    let mut descriptor = ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"}, "nestedDigests": [],
        "component": {"name": "acme.org/x", "version": "1", "provider": "p", "resources": [{"name": "r", "x": 1}]},
        "signatures": [other],
    }))
    .expect("a descriptor");
    for value in ["a", "b"] {
        descriptor.put_signature(json!({"name": "mine", "signature": {"value": value}}));
    }
    let signatures = &descriptor.document()["signatures"];
    assert_eq!(
        signatures,
        &json!([other, {"name": "mine", "signature": {"value": "b"}}])
    );
    descriptor.replace(ElementKind::Resource, 0, json!({"name": "r", "y": 2}));
    descriptor.replace(ElementKind::Resource, 7, json!({"name": "s"}));
    assert_eq!(
        descriptor.document()["component"]["resources"],
        json!([{"name": "r", "y": 2}])
    );
}
