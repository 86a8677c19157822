//! libFuzzer's way in: runs the target that the variable `OCM_FUZZ` names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../src/targets.rs"]
mod targets;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = std::env::var("OCM_FUZZ").unwrap_or_default();
    let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    found
        .unwrap_or_else(|| panic!("OCM_FUZZ=`{name}` is none of {known:?}"))
        .1
});

fuzz_target!(|data: &[u8]| TARGET(data));
