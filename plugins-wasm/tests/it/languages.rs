//! Guests in other languages than Rust, built here by their own tools.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ocm_plugins_wasm::{Host, Plugin};
use ocm_specs::Digest;

use crate::guests::{patient, plugin, prebuilt, run, skip, types};

/// Two tests that build the same guest at once would only compete.
static BUILDING: Mutex<()> = Mutex::new(());

/// The plugins that have the steps of `basics`, one per language whose tools are here.
pub(crate) async fn basics(host: &Arc<Host>) -> Vec<Arc<Plugin>> {
    let mut guests = vec![prebuilt("basics.wasm")];
    guests.extend(python());
    let mut plugins = Vec::new();
    for bytes in guests {
        plugins.push(plugin(host, bytes).await.expect("a plugin"));
    }
    plugins
}

/// The example in Python, with the kit and the contract as they are now. Built again only when one of them has changed.
fn python() -> Option<Bytes> {
    if Command::new("componentize-py")
        .arg("--version")
        .output()
        .is_err()
    {
        skip(
            "componentize-py is not installed (pip install -r plugins-wasm/template/python/requirements.txt)",
        );
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [
        "examples/basics-python/plugin.py",
        "template/python/ocm_plugin.py",
        "template/python/requirements.txt",
        "wit/transformer.wit",
        "wit/deps/io/io.wit",
    ];
    let texts = sources.map(|path| std::fs::read(root.join(path)).expect(path));
    let state = Digest::sha256(&texts.concat());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = folder.join(format!(
        "basics-python-{}.wasm",
        state.short().replace(':', "-")
    ));
    let _building = BUILDING.lock().expect("no panic");
    if !built.exists() {
        let made = tempfile::tempdir_in(folder).expect("a folder");
        let out = made.path().join("basics.wasm");
        let mut build = Command::new("componentize-py");
        build.args(["-d".as_ref(), root.join("wit").as_os_str()]);
        build.args(["-w", "transformer", "componentize", "plugin"]);
        for path in ["examples/basics-python", "template/python"] {
            build.args(["-p".as_ref(), root.join(path).as_os_str()]);
        }
        build.args(["-o".as_ref(), out.as_os_str()]);
        build.current_dir(&made).env("PYTHONDONTWRITEBYTECODE", "1");
        let done = build.output().expect("it was there");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        std::fs::rename(out, &built).expect("the built component");
    }
    Some(std::fs::read(built).expect("it was built").into())
}

/// The example's own tests, on this machine.
#[test]
fn steps_in_python_are_tested_without_webassembly() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut test = Command::new("python3");
    test.args(["-m", "unittest"]);
    test.current_dir(root.join("examples/basics-python"));
    test.env("PYTHONPATH", root.join("template/python"));
    test.env("PYTHONDONTWRITEBYTECODE", "1");
    let Ok(done) = test.output() else {
        skip("python3 is not installed");
        return;
    };
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && told.contains("Ran 3 tests"),
        "{told}"
    );
}

/// What is no error of the kit is told as a bug, with its place, and the bytes so far are never taken for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_in_python_is_told_with_its_place() {
    let Some(bytes) = python() else { return };
    let host = patient();
    let basics = plugin(&host, bytes).await.expect("a plugin");
    let ran = run(
        &types(&[&basics]),
        r#"
- {id: give1, type: Give/v1, spec: {}}
- {id: broken1, type: Broken/v1alpha1, spec: {data: "${give1.output.data}"}}
- {id: take1, type: Take/v1, spec: {data: "${broken1.output.data}"}}
"#,
    )
    .await;
    let failures = ran.failures();
    let [failure] = failures.as_slice() else {
        panic!("{failures:?}")
    };
    assert!(failure.contains("KeyError at plugin.py:"), "{failure}");
    assert!(failure.contains("'nothing'"), "{failure}");
}
