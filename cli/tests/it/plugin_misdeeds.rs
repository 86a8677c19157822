//! Plugins that mean ill, as users of the program meet them: what is told, the exit code, and that nothing of it lands anywhere.

use ocm_specs::Digest;

use crate::place::tree;
use crate::plugins::{PASS, component, pinned, place, transfer, with_plugin};

const SECRET: &str = "nobody was to read this";

/// A misdeed, how its output is used, options, the exit code, and what is told.
const CASES: &[(&str, &str, &[&str], i32, &str)] = &[
    (
        "Loop",
        "pass.output.data",
        &["--plugin-stall", "1s"],
        1,
        "`pass`: plugin `hostile-plugin` stalled: no byte moved in 1 s",
    ),
    (
        "ReadsNothing",
        "pass.output.data",
        &["--plugin-stall", "1s"],
        1,
        "stalled: no byte moved in 1 s",
    ),
    (
        "TellsTheSame",
        "pass.output.data",
        &["--plugin-timeout", "1s"],
        1,
        "took more than 1 s for one call",
    ),
    (
        "Memory",
        "pass.output.data",
        &["--plugin-memory", "16MiB"],
        1,
        "exceeded the memory limit of 16 MiB",
    ),
    (
        "Panic",
        "pass.output.data",
        &[],
        1,
        "plugin `hostile-plugin` crashed: ",
    ),
    (
        "Exit",
        "pass.output.data",
        &[],
        1,
        "plugin `hostile-plugin` called exit",
    ),
    ("Terminal", "pass.output.data", &[], 3, "[31mred   [31mred"),
    (
        "Streams",
        "pass.output.data",
        &[],
        1,
        "it held more than 64 open streams at once",
    ),
    (
        "ForgesContent",
        "pass.output.forged",
        &[],
        3,
        "`pass.output.forged` is a value that a plugin may have made",
    ),
    (
        "ForgesContent",
        "pass.output.?forged.orValue(null)",
        &[],
        3,
        "`pass.output.forged` is a value that a plugin may have made",
    ),
    // Taken out of the whole, which has a port: only the run can tell.
    (
        "ForgesContent",
        "[pass.output].map(it, it.forged)[0]",
        &[],
        6,
        "a value that a plugin may have made names the content `secret.txt`",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn misdeeds_end_the_run_and_leave_nothing() {
    let bytes = component("hostile.wasm");
    let head = format!(
        "plugins:\n- name: hostile-plugin\n  source: file:./hostile.wasm\n  digest: {}\n",
        Digest::sha256(&bytes)
    );
    for (kind, used, options, code, expected) in CASES {
        let place = place();
        place.put("hostile.wasm", &bytes);
        place.put("secret.txt", SECRET);
        with_plugin(
            &place,
            &head,
            &PASS.replace("Identity/v1alpha1", &format!("{kind}/v1")),
        );
        let spec = std::fs::read_to_string(place.path("spec.yaml")).unwrap();
        let spec = spec.replace("${pass.output.data}", &format!("${{{used}}}"));
        place.put("spec.yaml", spec);
        let ran = transfer(&place, options).await;
        assert_eq!(ran.code, *code, "{kind}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{kind}: {}", ran.stderr);
        assert!(!ran.stderr.contains('\u{1b}'), "{kind}: {:?}", ran.stderr);
        let index = place.path("target/example/archive/artifact-index.json");
        let index = std::fs::read_to_string(index).unwrap_or_default();
        assert!(!index.contains(r#""tag":"2.3.0""#), "{kind}: {index}");
        // Where the plan is refused already, there is no such folder.
        std::fs::create_dir_all(place.path("target")).unwrap();
        for (path, bytes) in tree(&place.path("target")) {
            let found = bytes
                .windows(SECRET.len())
                .any(|part| part == SECRET.as_bytes());
            assert!(!found, "{kind}: {} has the secret", path.display());
        }
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_changed_or_planted_is_never_run() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    with_plugin(&place, &pinned(&component("basics.wasm")), PASS);
    let cache = place.path("cache");
    let transfer = async || {
        let folder = [("XDG_CACHE_HOME", cache.to_str().unwrap())];
        place
            .run_with(&folder, &crate::place::RUN_EXAMPLE)
            .await
            .ok()
    };
    let code = || {
        let mut files = tree(&cache).into_iter();
        let (path, bytes) = files
            .find(|(path, _)| path.extension().is_some_and(|end| end == "cwasm"))
            .expect("precompiled code");
        (cache.join(path), bytes)
    };
    transfer().await;
    let (path, whole) = code();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for wrong in [&flipped[..], b"\x7fELF planted", b""] {
        std::fs::write(&path, wrong).unwrap();
        let ran = transfer().await;
        assert!(
            ran.stderr.contains("was changed; it is compiled again"),
            "{}",
            ran.stderr
        );
        assert_eq!(code().1.len(), whole.len(), "made again");
        assert_ne!(code().1, wrong);
    }
    // A folder that others may write to is neither believed nor written to.
    std::fs::write(&path, &flipped).unwrap();
    let folder = path.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    transfer().await;
    assert_eq!(code().1, flipped);
}
