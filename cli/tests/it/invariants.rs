//! The laws of the house: which crate may use which, and what libraries do not do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value as Json;

/// Every arrow there is, by crate; `cli` comes last since nothing points at it.
const ARROWS: [(&str, &[&str]); 8] = [
    ("specs", &[]),
    ("content", &["specs"]),
    ("repository", &["content", "specs"]),
    ("registry", &["content", "specs"]),
    ("engine", &["content", "specs"]),
    (
        "transformers",
        &["content", "engine", "repository", "specs"],
    ),
    ("plugins-wasm", &["content", "engine", "specs"]),
    (
        "cli",
        &[
            "content",
            "engine",
            "plugins-wasm",
            "registry",
            "repository",
            "specs",
            "transformers",
        ],
    ),
];

/// Members that no other member uses but in its tests; what they use is their own affair.
const FREE: [&str; 2] = ["testdata", "benches"];

#[test]
fn arrows_point_down() {
    let members = members();
    let expected: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).chain(FREE).collect();
    let found: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(found, expected, "members of the workspace");
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let Arrows { normal, dev } = &members[name];
        if *normal != allowed {
            wrong.push(format!("{name} uses {normal:?}, expected {allowed:?}"));
        }
        for dev in dev.difference(&allowed) {
            if dev != "testdata" {
                wrong.push(format!("the tests of {name} use {dev}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Default)]
struct Arrows {
    normal: BTreeSet<String>,
    dev: BTreeSet<String>,
}

/// The members of the workspace and what of it they use, without the `ocm-` in front.
fn members() -> BTreeMap<String, Arrows> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Json = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let list = |json: &Json| json.as_array().cloned().unwrap_or_default();
    let mut members = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let mut arrows = Arrows::default();
        for dependency in list(&package["dependencies"]) {
            let Some(name) = ours(&dependency["name"]) else {
                continue;
            };
            match dependency["kind"].as_str() {
                Some("dev") => arrows.dev.insert(name),
                _ => arrows.normal.insert(name),
            };
        }
        let name = ours(&package["name"]).expect("a member is called ocm-something");
        members.insert(name, arrows);
    }
    members
}

fn ours(name: &Json) -> Option<String> {
    Some(name.as_str()?.strip_prefix("ocm-")?.to_owned())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
}

const LIBRARIES: [&str; 7] = [
    "specs",
    "content",
    "repository",
    "registry",
    "engine",
    "transformers",
    "plugins-wasm",
];

/// What libraries do not do: print, look at the process they are in, leave tasks behind, keep state beside a run, or stop
/// halfway.
const FORBIDDEN: [&str; 9] = [
    r"\be?println!",
    r"\be?print!",
    r"\b(std::)?env::",
    r"\btemp_dir\(|\btempfile\(\)|\btempdir\(\)|NamedTempFile::new\(\)",
    r"\btokio::spawn\(|\btokio::task::spawn\(",
    r"\btodo!|\bunimplemented!",
    r"\bstatic mut\b",
    r"\bstatic [A-Z_]+:.*(Mutex|RwLock|Once|Lazy|Atomic)",
    r"\bthread_local!",
];

/// Where it is right all the same: file, what the line contains, why.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "specs/src/descriptor/mod.rs",
        "static EMPTY: std::sync::LazyLock<Map<String, Value>>",
        "a constant: an empty map, which the language can't make at compile time",
    ),
    (
        "engine/src/language/syntax.rs",
        "static LIBRARY: LazyLock<Arc<Env>>",
        "a constant: the standard functions of CEL, never changed",
    ),
    (
        "engine/src/language/infer.rs",
        "static PARSE_REF: LazyLock<Type>",
        "a constant: the type of a function's result",
    ),
    (
        "engine/src/language/infer.rs",
        "static TO_OCI: LazyLock<Type>",
        "a constant: the type of a function's result",
    ),
    (
        "repository/src/credentials/helper.rs",
        "std::env::consts::EXE_SUFFIX",
        "a constant of the platform, not the environment",
    ),
    (
        "registry/src/server.rs",
        "let task = tokio::spawn(accept(",
        "the server's one task; dropping its `Running` aborts it",
    ),
];

#[test]
fn libraries_keep_to_themselves() {
    check(&FORBIDDEN, ALLOWED);
}

/// How files are changed by those who do not do it through `ocm_content::Disk`.
const DIRECT: [&str; 6] = [
    r"\bfs::(write|rename|copy|remove_file|create_dir|create_dir_all|hard_link)\b",
    r"\bFile::(create|create_new|options)\b",
    r"\.sync_(all|data)\(",
    r"\.persist(_noclobber)?\(",
    r"\.tempfile_in\(|\btempfile_in\(",
    r"\.set_len\(",
];

/// Where files are changed all the same.
const WRITERS: &[(&str, &str, &str)] = &[
    (
        "content/src/disk.rs",
        "",
        "the one place: everything passes here, so that tests can make any change fail",
    ),
    (
        "plugins-wasm/src/cache.rs",
        "",
        "a cache of the machine, beside all runs: what it can't keep is made again",
    ),
    (
        "plugins-wasm/src/conformance/fixture.rs",
        "",
        "fixtures of a plugin's author, beside all runs: written on request, into a project of sources",
    ),
    (
        "content/src/unpack.rs",
        "",
        "folders and links of what a user unpacks: a folder that is not complete is removed by whoever made it",
    ),
    (
        "repository/src/ctf/locks.rs",
        "fs::remove_file(&self.path)",
        "a lock that is given back: a file that stays harms nobody",
    ),
];

#[test]
fn libraries_write_through_the_disk() {
    check(&DIRECT, WRITERS);
}

/// No library has lines of these patterns but where that is allowed, and nothing is allowed in vain.
fn check(forbidden: &[&str], allowed_lines: &[(&str, &str, &str)]) {
    let forbidden: Vec<Regex> = forbidden
        .iter()
        .map(|pattern| Regex::new(pattern).expect("a pattern"))
        .collect();
    let mut unused: BTreeSet<usize> = (0..allowed_lines.len()).collect();
    let mut wrong = Vec::new();
    for path in LIBRARIES
        .iter()
        .flat_map(|name| sources(&root().join(name).join("src")))
    {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let file = path.strip_prefix(root()).expect("below the root");
        let file = file.display().to_string();
        for (number, line) in product_lines(&text) {
            if !forbidden.iter().any(|pattern| pattern.is_match(line)) {
                continue;
            }
            let allowed =
                |(name, part, _): &(&str, &str, &str)| *name == file && line.contains(part);
            match allowed_lines.iter().position(allowed) {
                Some(at) => drop(unused.remove(&at)),
                None => wrong.push(format!("{file}:{number}: {}", line.trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "not for libraries:\n{}", wrong.join("\n"));
    let unused: Vec<_> = unused.into_iter().map(|at| allowed_lines[at]).collect();
    assert!(unused.is_empty(), "allowed for nothing: {unused:?}");
}

/// Source files below a folder, those of tests left out.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).expect("a folder");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && !["tests.rs", "testing.rs"].contains(&&*name) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The numbered lines that are neither comments nor part of a test.
fn product_lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let mut product = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            product.push((number, line));
            continue;
        }
        // Its item: up to the line that closes it at the same depth, or to a `;`.
        let depth = line.len() - line.trim_start().len();
        for (_, line) in lines.by_ref() {
            let at = line.len() - line.trim_start().len();
            if at == depth && (line.ends_with(';') || line.ends_with('}')) {
                break;
            }
        }
    }
    product
}

#[test]
fn product_lines_leave_tests_out() {
    let text = "a\n// b\n#[cfg(test)]\nmod testing;\nc\n#[cfg(test)]\nmod tests {\n    d\n}\ne";
    let found: Vec<&str> = product_lines(text)
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(found, ["a", "c", "e"]);
}
