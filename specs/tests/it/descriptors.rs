//! Descriptors as the Go libraries store and normalise them.

use std::path::Path;

use ocm_specs::Algorithm;
use ocm_specs::descriptor::{ComponentDescriptor, Encoding, SchemaVersion};
use ocm_specs::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML};
use ocm_specs::normalisation::{Normalisation, Variant};

use crate::vectors;

fn read(path: &Path) -> ComponentDescriptor {
    let bytes = std::fs::read(path).expect("the vectors have this file");
    let name = path.to_string_lossy();
    let media_type = if name.ends_with(".tar") {
        Encoding::YamlTar.media_type()
    } else if name.ends_with(".json") {
        DESCRIPTOR_JSON
    } else {
        DESCRIPTOR_YAML
    };
    ComponentDescriptor::decode(media_type, bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The same document without the bytes it came in, so that it has to be written anew.
fn fresh(descriptor: &ComponentDescriptor) -> ComponentDescriptor {
    ComponentDescriptor::from_value(descriptor.document().clone()).expect("a descriptor")
}

#[test]
fn every_encoding_is_written_as_go_writes_it() {
    let Some(root) = vectors::root() else { return };
    let forms = [
        ("encoded.json", Encoding::Json),
        ("encoded.yaml", Encoding::Yaml),
        ("encoded.yaml.tar", Encoding::YamlTar),
    ];
    for folder in ["edge", "ocmcli-0.27.0"] {
        let folder = root.join("encoding").join(folder);
        for (source, _) in forms {
            let descriptor = fresh(&read(&folder.join(source)));
            for (target, encoding) in forms {
                let expected = std::fs::read(folder.join(target)).expect("an encoded form");
                let written = descriptor.encode(encoding);
                assert!(
                    *written.bytes == expected,
                    "{source} to {target}:\n{}",
                    String::from_utf8_lossy(&written.bytes)
                );
            }
        }
    }
    // A document that the Go library takes over without loss is written the same way.
    let release = root.join("normalisation/ocmcli-0.27.0/descriptor.yaml");
    let expected = std::fs::read(root.join("encoding/ocmcli-0.27.0/encoded.json")).expect("json");
    let written = fresh(&read(&release)).encode(Encoding::Json);
    assert_eq!(
        String::from_utf8_lossy(&written.bytes),
        String::from_utf8_lossy(&expected)
    );
}

#[test]
fn normalised_forms() {
    let Some(root) = vectors::root() else { return };
    let (v1, v2) = (Normalisation::V1, Normalisation::V2);
    let (v3, v4) = (Normalisation::V3, Normalisation::V4Alpha1);
    let mut rows = Vec::new();
    for (folder, descriptor, expected) in [
        ("introspect", "descriptor-a.yaml", [v1, v2, v3].as_slice()),
        ("introspect", "descriptor-b.yaml", &[v1, v2]),
        ("none-access", "descriptor.json", &[v1, v2]),
        ("provider-labels", "descriptor.json", &[v1, v2]),
        ("duplicate-names", "descriptor.yaml", &[v1, v2]),
    ] {
        for algorithm in expected {
            let version = algorithm.as_str().replace("jsonNormalisation/", "");
            rows.push((
                format!("normalisation/{folder}/{descriptor}"),
                format!("normalisation/{folder}/expected-{version}.json"),
                *algorithm,
            ));
        }
    }
    for name in ["a-test", "b-ref", "c-ref2", "d-top"] {
        rows.push((
            format!("recursion/rhombus/{name}.json"),
            format!("recursion/rhombus/{name}.normalised-v1.json"),
            v1,
        ));
    }
    for (descriptor, expected, algorithm) in rows {
        let expected = std::fs::read_to_string(root.join(expected)).expect("a normalised form");
        assert_eq!(
            algorithm.normalise(&read(&root.join(&descriptor))),
            expected,
            "{descriptor}"
        );
    }
    for (descriptor, expected, algorithm) in [
        (
            "normalisation/introspect/descriptor-a.yaml",
            "normalisation/introspect/expected-v3.json",
            v3,
        ),
        (
            "normalisation/introspect/descriptor-b.yaml",
            "normalisation/introspect/expected-v3.json",
            v3,
        ),
        (
            "normalisation/introspect/descriptor-b.yaml",
            "normalisation/introspect/expected-v3.json",
            v4,
        ),
        (
            "normalisation/none-access/descriptor.json",
            "normalisation/none-access/expected-v2.json",
            v3,
        ),
        (
            "normalisation/provider-labels/descriptor.json",
            "normalisation/provider-labels/expected-v2.json",
            v3,
        ),
        (
            "normalisation/provider-labels/descriptor.json",
            "normalisation/provider-labels/expected-v2.json",
            v4,
        ),
        (
            "normalisation/duplicate-names/descriptor.yaml",
            "normalisation/duplicate-names/expected-v3.json",
            v3,
        ),
        (
            "normalisation/ocmcli-0.27.0/descriptor.yaml",
            "normalisation/ocmcli-0.27.0/expected-v3.json",
            v3,
        ),
        (
            "normalisation/ocmcli-0.27.0/descriptor.yaml",
            "normalisation/ocmcli-0.27.0/expected-v4alpha1.json",
            v4,
        ),
        (
            "encoding/edge/descriptor.yaml",
            "encoding/edge/normalised-v4alpha1.json",
            v4,
        ),
        (
            "encoding/edge/encoded.yaml.tar",
            "encoding/edge/normalised-v4alpha1.json",
            v4,
        ),
        (
            "encoding/ocmcli-0.27.0/encoded.json",
            "encoding/ocmcli-0.27.0/normalised-v4alpha1.json",
            v4,
        ),
        (
            "signatures/sigstore-v1/component-descriptor-signed.yaml",
            "signatures/sigstore-v1/expected-v3.json",
            v3,
        ),
    ] {
        let expected = std::fs::read_to_string(root.join(expected)).expect("a normalised form");
        assert_eq!(
            algorithm.normalise(&read(&root.join(descriptor))),
            expected,
            "{descriptor}"
        );
    }
}

/// The same component in the other schema: labels of the provider are not filtered there.
#[test]
fn the_oldest_form_of_the_other_schema() {
    let Some(root) = vectors::root() else { return };
    let folder = root.join("normalisation/provider-labels");
    let v2 = read(&folder.join("descriptor.json"));
    let provider = v2.document()["component"]["provider"].as_str();
    let provider: serde_json::Value =
        serde_json::from_str(provider.expect("a text")).expect("a document in a text");
    let v3alpha1 = ComponentDescriptor::from_value(serde_json::json!({
        "apiVersion": "ocm.software/v3alpha1",
        "kind": "ComponentVersion",
        "metadata": {
            "name": v2.name(), "version": v2.version(),
            "labels": v2.labels(), "provider": provider,
        },
        "repositoryContexts": [],
        "spec": {"resources": [], "sources": null},
    }))
    .expect("a descriptor");
    assert_eq!(
        Normalisation::V1.normalise(&v3alpha1),
        std::fs::read_to_string(folder.join("expected-v1-of-v3alpha1-schema.json")).expect("text")
    );
}

/// Traps T1 and T34: signatures that other programs left are found by the variant that made them, and no variant lets a
/// change pass.
#[test]
fn digests_that_history_left() {
    let Some(root) = vectors::root() else { return };
    let old = read(&root.join("signatures/compat-rsa/component-archive/component-descriptor.yaml"));
    let stored = old.signatures().next().and_then(|it| it.digest());
    let stored = stored.and_then(|it| it.digest()).expect("a digest");
    let v1 = Normalisation::V1;
    assert_eq!(
        v1.digest(&old, Algorithm::Sha256).hex(),
        "cceaa5732057ec335dd6c104db3d99c4d47e7635af7734ddb779912c414c6be8"
    );
    assert_eq!(
        v1.variant_of(&old, &stored),
        Some(Variant::WithoutForcedNulls)
    );
    assert_eq!(Normalisation::V3.variant_of(&old, &stored), None);

    let labelled = |version: Option<&str>| {
        let mut label = serde_json::json!({"name": "l", "value": "x", "signing": true});
        if let Some(version) = version {
            label["version"] = version.into();
        }
        ComponentDescriptor::from_value(serde_json::json!({
            "meta": {"schemaVersion": "v2"},
            "component": {"name": "acme.org/x", "version": "1.0.0", "provider": "p", "labels": [label]},
        }))
        .expect("a descriptor")
    };
    let v4 = Normalisation::V4Alpha1;
    let go = v4.digest(&labelled(None), Algorithm::Sha256);
    let ours = Normalisation::V3.digest(&labelled(Some("v1")), Algorithm::Sha256);
    assert_eq!(
        v4.variant_of(&labelled(Some("v1")), &go),
        Some(Variant::Current)
    );
    assert_eq!(
        v4.variant_of(&labelled(Some("v1")), &ours),
        Some(Variant::Lossless)
    );
    assert_eq!(v4.variant_of(&labelled(Some("v2")), &ours), None);
    // v3 has the version in it: one that was added or changed is noticed.
    let without = Normalisation::V3.digest(&labelled(None), Algorithm::Sha256);
    assert_eq!(
        Normalisation::V3.variant_of(&labelled(Some("v1")), &without),
        None
    );
}

#[test]
fn other_schemas_and_old_archives_are_read() {
    let Some(root) = vectors::root() else { return };
    let example = read(&root.join("recursion/spec-example/descriptor-2.yaml"));
    assert_eq!(example.schema(), SchemaVersion::V3Alpha1);
    assert_eq!(
        (example.name(), example.version()),
        ("ocm.software/complexapp", "0.1.0")
    );
    assert_eq!(
        (example.resources().len(), example.references().len()),
        (1, 1)
    );
    for path in vectors::files(
        &root.join("component-archive"),
        &["component-descriptor.yaml"],
    ) {
        read(&path);
    }
}
