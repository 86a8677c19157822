//! Guests in other languages than Rust, built here by their own tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ocm_plugins_wasm::template::{self, Language};
use ocm_plugins_wasm::{Host, Plugin};
use ocm_specs::Digest;
use ocm_testdata::peers;

use crate::guests::{patient, plugin, prebuilt, run, skip, types};

/// Two tests that build the same guest at once would only compete.
static BUILDING: Mutex<()> = Mutex::new(());

/// The plugins that have the steps of `basics`, one per language whose tools are here.
pub(crate) async fn basics(host: &Arc<Host>) -> Vec<Arc<Plugin>> {
    let mut guests = vec![prebuilt("basics.wasm")];
    guests.extend(python());
    guests.extend(javascript());
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
    Some(kept("basics-python", &texts.concat(), |made| {
        let mut build = Command::new("componentize-py");
        build.args(["-d".as_ref(), root.join("wit").as_os_str()]);
        build.args(["-w", "transformer", "componentize", "plugin"]);
        for path in ["examples/basics-python", "template/python"] {
            build.args(["-p".as_ref(), root.join(path).as_os_str()]);
        }
        build.args(["-o", "basics.wasm"]);
        build.current_dir(made).env("PYTHONDONTWRITEBYTECODE", "1");
        done(&mut build);
        made.join("basics.wasm")
    }))
}

/// The example in JavaScript, in a project as `ocm plugin new` makes it.
fn javascript() -> Option<Bytes> {
    let modules = peers::componentize_js()?;
    let files = javascript_project();
    let enters =
        |path: &str| path.ends_with(".wit") || path.ends_with("js") && path != "plugin.test.js";
    let texts = files
        .iter()
        .filter(|(path, _)| enters(path) || *path == "package-lock.json");
    let texts: String = texts.map(|(_, text)| text.as_str()).collect();
    Some(kept("basics-js", texts.as_bytes(), |made| {
        write(made, &files);
        std::os::unix::fs::symlink(&modules, made.join("node_modules")).expect("a link");
        done(Command::new("node").arg("build.js").current_dir(made));
        made.join("basics_js.wasm")
    }))
}

/// Its files, with those of the template that the example does not replace.
fn javascript_project() -> Vec<(&'static str, String)> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/basics-js");
    let mut files = template::project(Language::JavaScript, "basics-js");
    for (path, text) in &mut files {
        if let Ok(own) = std::fs::read_to_string(example.join(*path)) {
            *text = own;
        }
    }
    files
}

fn write(folder: &Path, files: &[(&'static str, String)]) {
    for (path, text) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("it is below")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
}

/// What `build` makes in a folder and gives the path of; kept under the digest of its sources.
fn kept(name: &str, sources: &[u8], build: impl FnOnce(&Path) -> PathBuf) -> Bytes {
    let state = Digest::sha256(sources).short().replace(':', "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = folder.join(format!("{name}-{state}.wasm"));
    let _building = BUILDING.lock().expect("no panic");
    if !built.exists() {
        let made = tempfile::tempdir_in(folder).expect("a folder");
        std::fs::rename(build(made.path()), &built).expect("the built component");
    }
    std::fs::read(built).expect("it was built").into()
}

/// Runs it to a good end; gives what it told.
fn done(command: &mut Command) -> String {
    let done = command.output().expect("it was there");
    let told = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{told}");
    told
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

#[test]
fn steps_in_javascript_are_tested_without_webassembly() {
    if !peers::node() {
        return;
    }
    let made = tempfile::tempdir().expect("a folder");
    write(made.path(), &javascript_project());
    let told = done(Command::new("node").arg("--test").current_dir(&made));
    assert!(told.contains("# pass 5\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_in_javascript_is_told_with_its_place() {
    let Some(bytes) = javascript() else { return };
    let host = patient();
    let basics = plugin(&host, bytes).await.expect("a plugin");
    for (how, expected) in [
        ("lookup", "TypeError at plugin.js:"),
        ("write", "texts and Uint8Arrays are written, not number"),
        ("return", "string was returned"),
        ("throw", "string was thrown: a text"),
        ("wait", "event loop"),
    ] {
        let ran = run(
            &types(&[&basics]),
            &format!(
                r#"
- {{id: give1, type: Give/v1, spec: {{}}}}
- {{id: broken1, type: Broken/v1alpha1, spec: {{data: "${{give1.output.data}}", how: {how}}}}}
- {{id: take1, type: Take/v1, spec: {{data: "${{broken1.output.data}}"}}}}
"#
            ),
        )
        .await;
        let failures = ran.failures();
        let [failure] = failures.as_slice() else {
            panic!("{how}: {failures:?}")
        };
        assert!(failure.contains(expected), "{how}: {failure}");
    }
}

/// Neither the machine of its author nor that of its user shows in what a step gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_sees_no_clock_and_no_chance() {
    let Some(bytes) = javascript() else { return };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let host = patient();
        let basics = plugin(&host, bytes.clone()).await.expect("a plugin");
        let ran = run(
            &types(&[&basics]),
            "- {id: one, type: Ambient/v1alpha1, spec: {}}\n- {id: two, type: Ambient/v1alpha1, spec: {}}",
        )
        .await;
        seen.push((ran.output("one").clone(), ran.output("two").clone()));
    }
    let (one, two) = &seen[0];
    assert_eq!(seen[0], seen[1]);
    assert_eq!(one["time"], serde_json::json!(315_532_800_000_u64));
    assert_eq!(one["zone"], serde_json::json!(0));
    // Of its own for every step, not one that was drawn when the component was built.
    assert_ne!(one["random"], two["random"]);
}
