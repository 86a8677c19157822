//! References as the Go library v2 reads them.

use ocm_specs::RepositorySpec;
use ocm_specs::reference::ComponentReference;
use serde_json::{Value, json};

use crate::vectors;

fn cases(name: &str) -> Vec<Value> {
    let Some(root) = vectors::root() else {
        return Vec::new();
    };
    let path = root.join("references").join(name);
    let text = std::fs::read_to_string(&path).expect("the vectors have this file");
    let document: Value = serde_json::from_str(&text).expect("the file is JSON");
    let cases = document["cases"].as_array().expect("a list of cases");
    assert!(cases.len() >= 16, "{} has its cases", path.display());
    cases.clone()
}

fn repository(spec: &RepositorySpec) -> Value {
    let mut value = spec.to_value();
    value
        .as_object_mut()
        .expect("a spec is an object")
        .shift_remove("type");
    value
}

/// Compares one case; `read` gives the parts in the form of the vectors.
fn check(case: &Value, read: Result<Value, String>) {
    match (case.get("expected"), read) {
        (Some(expected), Ok(found)) => assert_eq!(&found, expected, "{}", case["input"]),
        (None, Err(_)) => {}
        (expected, found) => panic!("{}: {found:?}, expected {expected:?}", case["input"]),
    }
}

#[test]
fn component_references() {
    for case in cases("component-references.json") {
        let input = case["input"].as_str().expect("an input");
        let any_version = case["ignoreSemverCompatibility"].as_bool() == Some(true);
        let read = ComponentReference::parse(input, any_version);
        let shown = read.as_ref().map(ToString::to_string).ok();
        check(
            &case,
            read.map(|found| parts(&found))
                .map_err(|error| error.to_string()),
        );
        if let Some(shown) = shown {
            let again = ComponentReference::parse(&shown, any_version).expect(&shown);
            assert_eq!(again.to_string(), shown, "what is written reads back");
        }
    }
}

fn parts(reference: &ComponentReference) -> Value {
    let mut parts = json!({
        "type": reference.repository.type_name(),
        "repository": repository(&reference.repository),
        "component": reference.component,
    });
    if reference.explicit_prefix {
        parts["prefix"] = "component-descriptors".into();
    }
    if let Some(version) = &reference.version {
        parts["version"] = version.clone().into();
    }
    if let Some(digest) = &reference.digest {
        parts["digest"] = digest.to_string().into();
    }
    parts
}

#[test]
fn repository_references() {
    for case in cases("repository-references.json") {
        let input = case["input"].as_str().expect("an input");
        let read = input
            .parse::<RepositorySpec>()
            .map(|spec| spec.to_value())
            .map_err(|error| error.to_string());
        check(&case, read);
    }
}

#[test]
fn guesses_beyond_the_vectors() {
    for (input, expected) in [
        ("1.2.3.4:5000/r", "OCIRepository/v1"),
        ("localhost", "OCIRepository/v1"),
        ("my.path/x", "OCIRepository/v1"),
        ("plainname", "CommonTransportFormat/v1"),
        ("1.2.3", "CommonTransportFormat/v1"),
        ("/abs/dir", "CommonTransportFormat/v1"),
        ("file:///abs/dir", "CommonTransportFormat/v1"),
        ("archive.tar.gz", "CommonTransportFormat/v1"),
        ("[::1]:5000/x", "error"),
    ] {
        let found = input
            .parse::<RepositorySpec>()
            .map_or_else(|_| "error".to_owned(), |spec| spec.type_name().to_owned());
        assert_eq!(found, expected, "{input}");
    }
    for input in [
        "ghcr.io/org/repo",
        "https://ghcr.io/acme",
        "https:///acme.org/x:1.0.0",
        "oci:///component-descriptors/acme.org/x:1.0.0",
        "oci::///acme.org/x:1.0.0",
        "ghcr.io/org//ocm.software/cli@sha256:00",
        "ghcr.io/org//NotAComponent:1.0.0",
        "//ocm.software/cli",
    ] {
        assert!(input.parse::<ComponentReference>().is_err(), "{input}");
    }
}
