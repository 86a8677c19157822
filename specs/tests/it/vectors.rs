//! Where the shared vectors are, and the files among them.

use std::path::{Path, PathBuf};

/// The folder of the vectors; `None`, with the reason printed, when it is absent and may be.
pub(crate) fn root() -> Option<PathBuf> {
    let root = std::env::var_os("OCM_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    if root.is_dir() {
        return Some(root);
    }
    let required = std::env::var_os("OCM_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "no vectors at {}", root.display());
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    {
        eprintln!("skipped: no vectors at {}", root.display());
    }
    None
}

/// Every file below `folder` whose name ends in one of `endings`, sorted.
pub(crate) fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if endings
            .iter()
            .any(|ending| path.to_string_lossy().ends_with(ending))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}
