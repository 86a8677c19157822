//! The files of a new plugin project: the template, the kit and the contract, as they were when this program was built.

/// What stands for the names in the template.
const NAME: &str = "@NAME@";
const TYPE: &str = "@TYPE@";
const FILE: &str = "@FILE@";

/// Files by their paths in the project.
const FILES: [(&str, &str); 13] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.in")),
    ("README.md", include_str!("../template/README.md")),
    ("src/lib.rs", include_str!("../template/src/lib.rs")),
    (".gitignore", "/target\n"),
    ("ocm-plugin/Cargo.toml", include_str!("../guest/Cargo.toml")),
    ("ocm-plugin/src/lib.rs", include_str!("../guest/src/lib.rs")),
    (
        "ocm-plugin/src/error.rs",
        include_str!("../guest/src/error.rs"),
    ),
    (
        "ocm-plugin/src/stream.rs",
        include_str!("../guest/src/stream.rs"),
    ),
    ("ocm-plugin/src/tar.rs", include_str!("../guest/src/tar.rs")),
    (
        "ocm-plugin/src/testing.rs",
        include_str!("../guest/src/testing.rs"),
    ),
    (
        "ocm-plugin/src/wasm.rs",
        include_str!("../guest/src/wasm.rs"),
    ),
    (
        "wit/transformer.wit",
        include_str!("../wit/transformer.wit"),
    ),
    ("wit/deps/io/io.wit", include_str!("../wit/deps/io/io.wit")),
];

/// The files of a project for the plugin `name` (`acme-scrub`), whose step type is called after it (`AcmeScrub`).
pub fn rust_project(name: &str) -> Vec<(&'static str, String)> {
    let words = name.split('-').filter(|word| !word.is_empty());
    let step_type: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_ascii_uppercase() + rest
        })
        .collect();
    let fill = |text: &str| {
        text.replace(NAME, name)
            .replace(TYPE, &step_type)
            .replace(FILE, &name.replace('-', "_"))
    };
    FILES
        .iter()
        .map(|(path, text)| (*path, fill(text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_template_is_left_in_a_project() {
        for (path, text) in rust_project("acme-scrub") {
            assert!(
                ![NAME, TYPE, FILE].iter().any(|mark| text.contains(mark)),
                "{path}"
            );
        }
        let files = rust_project("acme-scrub");
        assert!(files[2].1.contains(r#""AcmeScrub/v1alpha1""#));
        // Every file of the kit is in the project.
        let kit = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/src");
        let here = std::fs::read_dir(kit).expect("the kit").count();
        let there = files
            .iter()
            .filter(|(path, _)| path.starts_with("ocm-plugin/src/"))
            .count();
        assert_eq!(here, there);
    }
}
