//! Every trap of formats.md 10 has a test that is named after it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How many there are: `t01_…` to `t35_…`.
const TRAPS: u32 = 35;

/// The crates of the workspace, whose sources and tests are searched.
const CRATES: &[&str] = &[
    "specs",
    "content",
    "registry",
    "repository",
    "engine",
    "transformers",
    "testdata",
    "cli",
];

#[test]
fn every_trap_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for name in CRATES {
        for file in sources(&root.join(name)) {
            found.extend(traps(&std::fs::read_to_string(file).expect("a text")));
        }
    }
    let missing: Vec<u32> = (1..=TRAPS).filter(|trap| !found.contains(trap)).collect();
    assert!(missing.is_empty(), "traps without a test: {missing:?}");
    let unknown: Vec<u32> = found.into_iter().filter(|trap| *trap > TRAPS).collect();
    assert!(unknown.is_empty(), "tests of unknown traps: {unknown:?}");
}

/// All files of Rust below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .collect()
}

/// The numbers of the traps that a file has tests of: functions `tNN_…` below a `#[test]` or `#[tokio::test]`.
fn traps(text: &str) -> BTreeSet<u32> {
    let mut is_test = false;
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            found.extend(trap(line).filter(|_| is_test));
            is_test = false;
        }
    }
    found
}

fn trap(line: &str) -> Option<u32> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    let (number, _) = line.strip_prefix("fn t")?.split_once('_')?;
    (number.len() == 2).then(|| number.parse().ok())?
}

#[test]
fn only_tests_count() {
    let text = "#[test]\nfn t01_a() {}\nfn t02_b() {}\n#[tokio::test(x)]\n/// Doc.\nasync fn t03_c() {}\n\
        #[test]\n#[ignore = \"x\"]\nfn t04_d() {}\n#[test]\nfn t5_e() {}\n// #[test]\n// fn t06_f() {}\n";
    assert_eq!(traps(text), BTreeSet::from([1, 3]));
}
