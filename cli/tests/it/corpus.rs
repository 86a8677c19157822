//! The fuzz targets, over the inputs that are kept: with the usual compiler, in every run of the tests.

#[path = "../../../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "fuzzing uses it as a crate of its own")]
mod targets;

use std::path::Path;

#[test]
fn every_input_that_is_kept_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let folder = std::fs::read_dir(root.join(name));
        let mut files: Vec<_> = folder
            .unwrap_or_else(|error| panic!("{name} has no corpus: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 3, "{name} has a corpus of {}", files.len());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            // What a target does to its input is told by the file's name.
            let done = std::panic::catch_unwind(|| target(&bytes));
            assert!(done.is_ok(), "{}", file.display());
            for cut in [1, 2, 3, 5] {
                target(&bytes[..bytes.len() / cut]);
            }
        }
    }
    let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    for entry in std::fs::read_dir(&root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "no target for {name}");
    }
}
