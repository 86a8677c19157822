use ocm_specs::yaml::{LoadOptions, Source, load, load_all};

use crate::vectors;

#[test]
fn every_yaml_and_json_vector_loads() {
    let Some(root) = vectors::root() else { return };
    let mut count = 0;
    for folder in [
        "normalisation",
        "encoding",
        "config",
        "constructor",
        "transform",
    ] {
        for path in vectors::files(&root.join(folder), &[".yaml", ".yml", ".json"]) {
            let source = Source::new(
                path.to_string_lossy(),
                std::fs::read_to_string(&path).unwrap(),
            );
            let documents = load_all(&source, &LoadOptions::default())
                .unwrap_or_else(|error| panic!("{}", error.located(&source)));
            if path.extension().is_some_and(|ending| ending == "json") {
                let expected: serde_json::Value = serde_json::from_str(source.text()).unwrap();
                assert_eq!(documents[0].to_json(), expected, "{}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 40, "{count} files");
}

#[test]
fn the_design_documents_load_as_one_document() {
    let Some(root) = vectors::root() else { return };
    for name in ["seed002-transformations.yaml", "seed002-mappings.yaml"] {
        let text = std::fs::read_to_string(root.join("transform").join(name)).unwrap();
        let source = Source::new(name, text);
        let node = load(&source, &LoadOptions::default())
            .unwrap_or_else(|error| panic!("{}", error.located(&source)));
        assert!(node.as_map().is_some(), "{name} is a {}", node.kind());
    }
}
