//! Descriptors as the Go libraries store and normalise them.

use std::path::Path;

use ocm_specs::descriptor::{ComponentDescriptor, Encoding, SchemaVersion};
use ocm_specs::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML};
use ocm_specs::normalisation::Normalisation;

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
    let (v3, v4) = (Normalisation::V3, Normalisation::V4Alpha1);
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
