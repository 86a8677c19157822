//! The files of a new plugin project: the template, the kit and the contract, as they were when this program was built.

/// What stands for the names in the templates.
const NAME: &str = "@NAME@";
const TYPE: &str = "@TYPE@";
const FILE: &str = "@FILE@";

/// A language that plugins are written in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Built by cargo for the target `wasm32-wasip2`.
    Rust,
    /// Built by `componentize-py`.
    Python,
    /// Built by `componentize-js`.
    JavaScript,
}

/// Files by their paths in the project.
type Files = &'static [(&'static str, &'static str)];

/// The contract, which every project has.
const CONTRACT: Files = &[
    (
        "wit/transformer.wit",
        include_str!("../wit/transformer.wit"),
    ),
    ("wit/deps/io/io.wit", include_str!("../wit/deps/io/io.wit")),
];

const RUST: Files = &[
    ("Cargo.toml", include_str!("../template/rust/Cargo.toml.in")),
    ("Cargo.lock", include_str!("../template/rust/Cargo.lock.in")),
    ("README.md", include_str!("../template/rust/README.md")),
    ("src/lib.rs", include_str!("../template/rust/src/lib.rs")),
    (".gitignore", "/target\n"),
    ("ocm-plugin/Cargo.toml", include_str!("../guest/Cargo.toml")),
    ("ocm-plugin/README.md", include_str!("../guest/README.md")),
    ("ocm-plugin/src/lib.rs", include_str!("../guest/src/lib.rs")),
    (
        "ocm-plugin/src/error.rs",
        include_str!("../guest/src/error.rs"),
    ),
    (
        "ocm-plugin/src/gzip.rs",
        include_str!("../guest/src/gzip.rs"),
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
        "ocm-plugin/src/yaml.rs",
        include_str!("../guest/src/yaml.rs"),
    ),
];

const PYTHON: Files = &[
    ("plugin.py", include_str!("../template/python/plugin.py")),
    (
        "test_plugin.py",
        include_str!("../template/python/test_plugin.py"),
    ),
    (
        "ocm_plugin.py",
        include_str!("../template/python/ocm_plugin.py"),
    ),
    ("build.sh", include_str!("../template/python/build.sh")),
    (
        "requirements.txt",
        include_str!("../template/python/requirements.txt"),
    ),
    ("README.md", include_str!("../template/python/README.md")),
    (".gitignore", "/*.wasm\n/.venv\n__pycache__\n"),
];

const JAVASCRIPT: Files = &[
    ("plugin.js", include_str!("../template/js/plugin.js")),
    (
        "plugin.test.js",
        include_str!("../template/js/plugin.test.js"),
    ),
    (
        "ocm-plugin.js",
        include_str!("../template/js/ocm-plugin.js"),
    ),
    ("component.js", include_str!("../template/js/component.js")),
    (
        "component-http.js",
        include_str!("../template/js/component-http.js"),
    ),
    ("build.js", include_str!("../template/js/build.js")),
    ("package.json", include_str!("../template/js/package.json")),
    (
        "package-lock.json",
        include_str!("../template/js/package-lock.json"),
    ),
    ("README.md", include_str!("../template/js/README.md")),
    (".gitignore", "/*.wasm\n/node_modules\n"),
];

/// The files of a project for the plugin `name` (`acme-scrub`), whose step type is called after it (`AcmeScrub`).
pub fn project(language: Language, name: &str) -> Vec<(&'static str, String)> {
    let own = match language {
        Language::Rust => RUST,
        Language::Python => PYTHON,
        Language::JavaScript => JAVASCRIPT,
    };
    let step_type = step_type(name);
    let fill = |text: &str| {
        text.replace(NAME, name)
            .replace(TYPE, &step_type)
            .replace(FILE, &name.replace('-', "_"))
    };
    let files = own.iter().chain(CONTRACT);
    files
        .map(|(path, text)| match *path {
            "Cargo.lock" => (*path, sorted(&fill(text))),
            _ => (*path, fill(text)),
        })
        .collect()
}

/// `acme-scrub` as a type: `AcmeScrub`.
fn step_type(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_ascii_uppercase() + rest
        })
        .collect()
}

/// A lock file with its packages by name, as cargo keeps them: the project's own may be called anything.
fn sorted(lock: &str) -> String {
    const PACKAGE: &str = "\n[[package]]\n";
    let mut parts = lock.trim_end().split(PACKAGE);
    let head = parts.next().unwrap_or_default();
    let mut packages: Vec<&str> = parts.map(str::trim_end).collect();
    packages.sort_unstable();
    let packages: String = packages
        .into_iter()
        .map(|package| format!("{PACKAGE}{package}\n"))
        .collect();
    head.to_owned() + &packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_templates_is_left_in_a_project() {
        for language in [Language::Rust, Language::Python, Language::JavaScript] {
            for (path, text) in project(language, "acme-scrub") {
                assert!(
                    ![NAME, TYPE, FILE].iter().any(|mark| text.contains(mark)),
                    "{path}"
                );
            }
        }
    }

    /// The text of a file of a project in Rust.
    fn file(name: &str, path: &str) -> String {
        let files = project(Language::Rust, name).into_iter();
        files
            .filter(|(known, _)| *known == path)
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn a_project_in_rust_has_all_of_the_kit() {
        assert!(file("acme-scrub", "src/lib.rs").contains(r#""AcmeScrub/v1alpha1""#));
        let kit = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/src");
        let here = std::fs::read_dir(kit).expect("the kit").count();
        let there = project(Language::Rust, "acme-scrub")
            .iter()
            .filter(|(path, _)| path.starts_with("ocm-plugin/src/"))
            .count();
        assert_eq!(here, there);
    }

    #[test]
    fn its_lock_file_is_in_order_whatever_it_is_called() {
        for name in ["acme-scrub", "serde-a", "zip"] {
            let lock = file(name, "Cargo.lock");
            let names: Vec<&str> = lock
                .lines()
                .filter_map(|line| line.strip_prefix("name = "))
                .collect();
            assert!(names.is_sorted(), "{names:?}");
            assert!(names.contains(&format!("\"{name}\"").as_str()), "{names:?}");
            assert!(
                lock.starts_with("# This file") && lock.ends_with("]\n") || lock.ends_with("\"\n")
            );
        }
    }
}
