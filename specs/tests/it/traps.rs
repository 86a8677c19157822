//! The traps of formats.md 10 that lie in documents, each in a test named after it.

use ocm_specs::access::{Access, AccessType};
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, Encoding};
use ocm_specs::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML};
use ocm_specs::normalisation::{Normalisation, Variant};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::vectors;
use Normalisation::{V1, V2, V3, V4Alpha1};

fn document() -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "component": {
            "name": "acme.org/app", "version": "1.0.0", "provider": "acme",
            "repositoryContexts": [], "resources": [], "sources": [], "componentReferences": [],
        },
    })
}

/// A descriptor with a change.
fn with(change: impl FnOnce(&mut Value)) -> ComponentDescriptor {
    let mut document = document();
    change(&mut document["component"]);
    ComponentDescriptor::from_value(document).expect("a descriptor")
}

fn labelled(label: Value) -> ComponentDescriptor {
    with(|component| component["labels"] = json!([label]))
}

fn resource(version: &str, access: Value) -> Value {
    json!({"name": "r", "version": version, "type": "t", "relation": "local", "access": access,
        "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": "aa"}})
}

fn reference(more: Value) -> Value {
    let mut reference = json!({"name": "c", "version": "1", "componentName": "acme.org/c"});
    let fields = reference.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    reference
}

/// What all algorithms make of a descriptor, told to be equal or not to what they make of another.
fn same(a: &ComponentDescriptor, b: &ComponentDescriptor) -> [bool; 4] {
    Normalisation::ALL.map(|it| it.normalise(a) == it.normalise(b))
}

#[test]
fn t01_the_version_of_a_label_is_kept_and_counts_as_each_library_has_it() {
    let label = |version: &str| {
        labelled(
            json!({"name": "l", "value": 1, "signing": true, "version": version, "merge": {"algorithm": "x"}}),
        )
    };
    let (one, two) = (label("v1"), label("v2"));
    assert_eq!(same(&one, &two), [false, false, false, true]);
    // Both digests are found: that of the library v2, which lost the version, and that with it.
    let lossless = Digest::sha256(V4Alpha1.normalise_as(Variant::Lossless, &one).as_bytes());
    let lossy = V4Alpha1.digest(&one, Algorithm::Sha256);
    assert_ne!(lossless, lossy);
    assert_eq!(
        V4Alpha1.variant_of(&one, &lossless),
        Some(Variant::Lossless)
    );
    assert_eq!(V4Alpha1.variant_of(&one, &lossy), Some(Variant::Current));
    for encoding in [Encoding::Json, Encoding::Yaml] {
        let text = String::from_utf8(one.encode(encoding).bytes.to_vec()).expect("text");
        assert!(text.contains("v1") && text.contains("merge"), "{text}");
    }
}

#[test]
fn t02_labels_of_references_all_count_and_their_key_is_component_references() {
    let plain = with(|it| it["componentReferences"] = json!([reference(json!({}))]));
    let label = json!([{"name": "l", "value": 1}]);
    let labelled =
        with(|it| it["componentReferences"] = json!([reference(json!({"labels": label}))]));
    for algorithm in [V2, V3, V4Alpha1] {
        let text = algorithm.normalise(&labelled);
        assert_ne!(algorithm.normalise(&plain), text);
        assert!(
            text.contains("\"componentReferences\":[") && !text.contains("\"references\""),
            "{text}"
        );
    }
    // A label of a resource that is not for signing does not count.
    let unsigned = |labels: Value| {
        let mut resource = resource("1", json!({"type": "x"}));
        resource["labels"] = labels;
        with(|it| it["resources"] = json!([resource]))
    };
    assert_eq!(
        same(
            &unsigned(json!([])),
            &unsigned(json!([{"name": "l", "value": 1}]))
        ),
        [true; 4]
    );
}

#[test]
fn t03_a_reference_without_digest_has_an_empty_one_for_the_library_v2_alone() {
    let without = with(|it| it["componentReferences"] = json!([reference(json!({}))]));
    let empty = r#""digest":{"hashAlgorithm":"","normalisationAlgorithm":"","value":""}"#;
    for (algorithm, expected) in [(V2, false), (V3, false), (V4Alpha1, true)] {
        assert_eq!(
            algorithm.normalise(&without).contains(empty),
            expected,
            "{algorithm:?}"
        );
    }
}

#[test]
fn t04_nulls_in_labels_stay_for_v1_and_go_for_v2() {
    let nulls = labelled(json!({"name": "l", "value": {"a": null, "b": 1}, "signing": true}));
    let none = labelled(json!({"name": "l", "value": {"b": 1}, "signing": true}));
    assert_eq!(same(&nulls, &none), [false, false, false, true]);
    assert!(V3.normalise(&nulls).contains(r#""a":null"#));
}

#[test]
fn t05_the_creation_time_is_signed_and_stays_as_it_was_written() {
    let at = |time: &str| with(|it| it["creationTime"] = json!(time));
    let (one, two) = (at("2024-01-01T00:00:00Z"), at("2024-01-01T01:00:00+01:00"));
    assert_eq!(same(&one, &two)[1..], [false; 3]);
    let text = String::from_utf8(two.encode(Encoding::Json).bytes.to_vec()).expect("text");
    assert!(text.contains("2024-01-01T01:00:00+01:00"), "{text}");
}

#[test]
fn t06_the_first_normalisation_makes_its_four_mistakes() {
    let mut full = with(|it| {
        it["resources"] = json!([resource("1<&>", json!({"type": "x"}))]);
        it["sources"] =
            json!([{"name": "s", "version": "1", "type": "git", "access": {"type": "x"}}]);
    });
    let text = V1.normalise(&full);
    assert!(text.contains("schemaVersion"), "it has `meta`: {text}");
    assert!(!text.contains("\"s\""), "no sources: {text}");
    assert!(
        text.contains("{\"extraIdentity\":null}"),
        "nulls are forced: {text}"
    );
    assert!(
        text.contains("1\\u003c\\u0026\\u003e"),
        "HTML is escaped: {text}"
    );
    full.edit(|it| it["component"]["sources"] = json!([]))
        .expect("a descriptor");
    assert_eq!(V1.normalise(&full), text);
    let canonical = V3.normalise(&full);
    assert!(
        canonical.contains("1<&>") && !canonical.contains("schemaVersion"),
        "{canonical}"
    );
}

#[test]
fn t07_versions_tell_resources_of_one_name_apart_but_the_last() {
    let named = |versions: &[&str]| {
        let list: Vec<Value> = versions
            .iter()
            .map(|it| resource(it, json!({"type": "x"})))
            .collect();
        V2.normalise(&with(|it| it["resources"] = list.into()))
    };
    assert_eq!(named(&["1"]).matches("extraIdentity").count(), 0);
    assert_eq!(named(&["1", "2"]).matches("extraIdentity").count(), 1);
    assert_eq!(named(&["1", "2", "3"]).matches("extraIdentity").count(), 2);
    let three = named(&["1", "2", "3"]);
    for (version, there) in [("1", true), ("2", true), ("3", false)] {
        assert_eq!(
            three.contains(&format!(r#""extraIdentity":{{"version":"{version}"}}"#)),
            there,
            "{three}"
        );
    }
}

#[test]
fn t09_a_hash_is_known_by_all_its_names_and_keeps_the_one_it_has() {
    for name in ["SHA-256", "sha256", "SHA256"] {
        assert_eq!(Algorithm::parse(name), Some(Algorithm::Sha256), "{name}");
    }
    assert_eq!(Algorithm::Sha256.ocm_name(), "SHA-256");
    let named = |name: &str| {
        let mut resource = resource("1", json!({"type": "x"}));
        resource["digest"]["hashAlgorithm"] = json!(name);
        with(|it| it["resources"] = json!([resource]))
    };
    assert_eq!(same(&named("SHA-256"), &named("sha256")), [false; 4]);
    assert!(V3.normalise(&named("sha256")).contains("\"sha256\""));
}

#[test]
fn t11_numbers_beyond_doubles_keep_their_bytes_where_nothing_is_hashed() {
    let big = r#"{"meta":{"schemaVersion":"v2"},"component":{"name":"acme.org/app","version":"1.0.0","provider":"acme","repositoryContexts":[],"resources":[],"sources":[],"componentReferences":[],"future":{"n":9007199254740993,"b":1,"a":18446744073709551615}}}"#;
    let read = ComponentDescriptor::decode(DESCRIPTOR_JSON, big.as_bytes().to_vec())
        .expect("a descriptor");
    let kept = read.original().expect("the bytes that it came in");
    assert_eq!(&*kept.bytes, big.as_bytes());
    // Written anew it has them, too; unknown fields and their order of old included.
    let fresh = ComponentDescriptor::from_value(read.document().clone()).expect("a descriptor");
    let text = String::from_utf8(fresh.encode(Encoding::Json).bytes.to_vec()).expect("text");
    assert!(
        text.contains("9007199254740993") && text.contains("18446744073709551615"),
        "{text}"
    );
}

#[test]
fn t12_names_of_fields_are_read_in_any_case_and_written_as_they_are() {
    for access in [
        json!({"type": "ociArtifact", "imageReference": "r.io/a:1"}),
        json!({"type": "ociArtifact", "imagereference": "r.io/a:1"}),
        json!({"type": "ociArtifact", "ImageReference": "r.io/a:1"}),
    ] {
        let found = Access::parse(&access).expect("an access");
        assert_eq!(
            found,
            Access::OciArtifact {
                image_reference: "r.io/a:1"
            },
            "{access}"
        );
    }
    let odd = with(|it| it["Resources"] = json!([resource("1", json!({"type": "x"}))]));
    let text = String::from_utf8(odd.encode(Encoding::Json).bytes.to_vec()).expect("text");
    assert!(text.contains("\"Resources\""), "{text}");
}

#[test]
fn t13_scalars_of_yaml_1_1_are_what_go_reads() {
    let text = "\
meta: {schemaVersion: v2}
component:
  name: acme.org/app
  version: 1.10
  provider: on
  repositoryContexts: []
  resources: []
  sources: []
  componentReferences: []
  labels: [{name: l, value: [y, Off, 017, 0o17, 1_000, 1:30, ~], signing: true}]
";
    let read = ComponentDescriptor::decode(DESCRIPTOR_YAML, text.as_bytes().to_vec())
        .expect("a descriptor");
    // In a text field they are text again, as the library has it; the zero is lost.
    let component = &read.document()["component"];
    assert_eq!(
        (read.version(), &component["provider"]),
        ("1.1", &json!("true"))
    );
    assert_eq!(
        read.labels()[0]["value"],
        json!([true, false, 15, 15, 1000, "1:30", null])
    );
    let quoted = text.replace("1.10", "\"1.10\"");
    let read =
        ComponentDescriptor::decode(DESCRIPTOR_YAML, quoted.into_bytes()).expect("a descriptor");
    assert_eq!(read.version(), "1.10");
}

#[test]
fn t14_descriptors_are_sorted_and_escaped_and_manifests_in_the_order_of_structs() {
    let odd = with(|it| it["provider"] = json!("<a&b>\u{2028}"));
    let text = String::from_utf8(odd.encode(Encoding::Json).bytes.to_vec()).expect("text");
    assert!(text.contains("\\u003ca\\u0026b\\u003e\\u2028"), "{text}");
    assert!(text.find("\"component\"") < text.find("\"meta\""), "{text}");
    assert!(text.find("\"name\"") < text.find("\"version\""), "{text}");
    let mut manifest = Manifest::image(
        Descriptor::of("c/d", b"{}"),
        vec![Descriptor::of("a/b", b"<")],
    );
    manifest.annotations = Some(
        [
            ("b".to_owned(), "<".to_owned()),
            ("a".to_owned(), "&".to_owned()),
        ]
        .into(),
    );
    let text = String::from_utf8(manifest.to_bytes()).expect("text");
    let places = [
        "schemaVersion",
        "\"mediaType\"",
        "\"config\"",
        "\"layers\"",
        "\"annotations\"",
        "\"a\"",
        "\"b\"",
    ];
    let places: Vec<_> = places
        .iter()
        .map(|key| text.find(key).expect(key))
        .collect();
    assert!(places.is_sorted(), "{text}");
    assert!(
        text.contains("\\u003c") && text.contains("\\u0026"),
        "{text}"
    );
}

#[test]
fn t26_none_with_a_version_is_not_none_to_the_normaliser() {
    let of = |kind: &str| {
        V3.normalise(&with(|it| {
            it["resources"] = json!([resource("1", json!({"type": kind}))])
        }))
    };
    for (kind, has_digest) in [
        ("none", false),
        ("None", false),
        ("none/v1", true),
        ("x", true),
    ] {
        assert_eq!(of(kind).contains("\"digest\""), has_digest, "{kind}");
    }
    // To whom looks for content it is none.
    assert_eq!(AccessType::of("none/v1"), AccessType::None);
}

#[test]
fn t27_names_of_accesses_of_both_generations_are_known() {
    for (name, kind) in [
        ("s3", AccessType::S3V1),
        ("s3/v2", AccessType::S3V2),
        ("S3Bucket", AccessType::S3Bucket),
        ("Wget/v1", AccessType::Wget),
        ("ociBlob", AccessType::OciBlob),
        ("wgetx", AccessType::Other),
    ] {
        assert_eq!(AccessType::of(name), kind, "{name}");
    }
    let digest = Digest::sha256(b"x").to_string();
    let blob = json!({"type": "ociBlob", "ref": "r.io/a", "mediaType": "x/y", "digest": digest, "size": 1});
    let Ok(Access::OciBlob(found)) = Access::parse(&blob) else {
        panic!("{blob}");
    };
    assert_eq!(found.reference, "r.io/a");
}

#[test]
fn t28_nested_digests_and_time_stamps_stay() {
    let mut document = document();
    document["nestedDigests"] =
        json!([{"name": "acme.org/c", "version": "1", "resourceDigests": []}]);
    document["signatures"] = json!([{"name": "s", "timestamp": {"value": "PEM", "time": "2024-01-01T00:00:00Z"},
        "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "jsonNormalisation/v3", "value": "aa"},
        "signature": {"algorithm": "RSASSA-PSS", "value": "bb", "mediaType": "x"}}]);
    let mut changed = ComponentDescriptor::from_value(document.clone()).expect("a descriptor");
    changed
        .edit(|it| it["component"]["repositoryContexts"] = json!([{"type": "x"}]))
        .expect("a descriptor");
    for encoding in [Encoding::Json, Encoding::Yaml, Encoding::YamlTar] {
        let written = changed.encode(encoding);
        let again = ComponentDescriptor::decode(&written.media_type, written.bytes.to_vec())
            .expect("a descriptor");
        for field in ["nestedDigests", "signatures"] {
            assert_eq!(again.document()[field], document[field], "{field}");
        }
    }
}

#[test]
fn t29_a_digest_is_that_of_the_document_as_it_is_stored() {
    let Some(root) = vectors::root() else { return };
    let file = root.join("encoding/edge/descriptor.yaml");
    let bytes = std::fs::read(file).expect("the vectors have this file");
    let stored = ComponentDescriptor::decode(DESCRIPTOR_YAML, bytes).expect("a descriptor");
    let expected = "60a6daa9b5e651b12ca946d3b6ec13955ab0dad0cf38d7e515d1c063ddac6f2d";
    assert_eq!(V4Alpha1.digest(&stored, Algorithm::Sha256).hex(), expected);
    // And so it is after any number of encodings, since none loses a field.
    let mut again = stored.clone();
    for encoding in [Encoding::Json, Encoding::Yaml, Encoding::YamlTar] {
        let fresh =
            ComponentDescriptor::from_value(again.document().clone()).expect("a descriptor");
        let written = fresh.encode(encoding);
        again = ComponentDescriptor::decode(&written.media_type, written.bytes.to_vec())
            .expect("a descriptor");
        for algorithm in Normalisation::ALL {
            assert_eq!(
                algorithm.normalise(&again),
                algorithm.normalise(&stored),
                "{algorithm:?}"
            );
        }
    }
}

#[test]
fn t30_the_lists_that_the_specification_prints_are_no_vectors_for_the_second_normalisation() {
    let Some(root) = vectors::root() else { return };
    let folder = root.join("recursion/spec-example");
    for number in 0..4 {
        let file = folder.join(format!("descriptor-{number}.yaml"));
        let bytes = std::fs::read(file).expect("the vectors have this file");
        let read = ComponentDescriptor::decode(DESCRIPTOR_YAML, bytes).expect("a descriptor");
        for printed in [
            "0.normalised-entry-list.json",
            "1.normalised-entry-list.json",
        ] {
            let printed = std::fs::read(folder.join(printed)).expect("the vectors have this file");
            // Lists of entries with one key each, as the first algorithm has them, not objects.
            assert!(printed.starts_with(b"[{"));
            assert_ne!(V2.normalise(&read).as_bytes(), printed, "{number}");
        }
    }
}

#[test]
fn t34_digests_from_before_nulls_were_forced_are_found() {
    let plain = with(|it| it["resources"] = json!([resource("1", json!({"type": "x"}))]));
    let old = V1.normalise_as(Variant::WithoutForcedNulls, &plain);
    assert!(!old.contains("extraIdentity"), "{old}");
    let digest = Digest::sha256(old.as_bytes());
    assert_eq!(
        V1.variant_of(&plain, &digest),
        Some(Variant::WithoutForcedNulls)
    );
    // That variant, too, notices a change.
    let changed = with(|it| it["resources"] = json!([resource("2", json!({"type": "x"}))]));
    assert_eq!(V1.variant_of(&changed, &digest), None);
    assert!(DigestSpec::new(&digest, false).digest().is_some());
}
