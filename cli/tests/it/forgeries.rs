//! Forged signatures at the command line: each is refused with exit code 5 and its reason.

#[path = "../../../transformers/tests/it/forgeries.rs"]
mod table;

use futures::{StreamExt as _, stream};
use ocm_specs::normalisation::Normalisation;
use ocm_transformers::signing::SignOptions;
use serde_json::{Value, json};

use crate::bad_input::{AT_ONCE, blunders, complain, copy, index, swap_descriptor};
use crate::place::{Place, Ran};
use crate::signing::put;

const VERIFY: &[&str] = &["verify", "cv", "-s", "default", "--public-key", "key.pem"];

/// What is stored in place of what was signed, and what the refusal says.
struct Row {
    name: String,
    text: String,
    says: &'static str,
}

/// An archive with the component version that was signed.
async fn original(document: &Value) -> Place {
    let place = Place::new();
    // Its content is not what is verified: store it without, then as it was signed.
    let mut bare = document.clone();
    bare["component"]["resources"] = json!([]);
    put(&place, "./source", bare).await;
    swap_descriptor(&place, |_| document.to_string());
    sweep(&place);
    place
}

/// Removes the blobs that nothing leads to any more.
fn sweep(place: &Place) {
    let read = |file: &str| -> Value {
        serde_json::from_slice(&std::fs::read(place.path(file)).unwrap()).unwrap()
    };
    let blob = |digest: &Value| digest.as_str().unwrap().replace(':', ".");
    let root = blob(&read("source/artifact-index.json")["artifacts"][0]["digest"]);
    let manifest = read(&format!("source/blobs/{root}"));
    let layers = manifest["layers"].as_array().unwrap();
    let mut used: Vec<String> = layers.iter().map(|it| blob(&it["digest"])).collect();
    used.extend([root, blob(&manifest["config"]["digest"])]);
    for entry in std::fs::read_dir(place.path("source/blobs")).unwrap() {
        let entry = entry.unwrap();
        if !used.contains(&entry.file_name().into_string().unwrap()) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

async fn verify(source: &Place, reference: &str, change: impl FnOnce(&Place)) -> Ran {
    let place = Place::new();
    copy(source.path("source"), &place.path("source"));
    place.put("key.pem", &table::KEYS[0]);
    change(&place);
    let mut arguments = VERIFY.to_vec();
    arguments.push(reference);
    place.run(&arguments).await
}

/// Forgeries that only bytes can have: keys twice, numbers in other words.
fn in_the_bytes(text: &str) -> Vec<Row> {
    let row = |name: &str, from: &str, to: &str, says| {
        assert!(text.contains(from), "{from} in {text}");
        let text = text.replacen(from, to, 1);
        Row {
            name: name.to_owned(),
            text,
            says,
        }
    };
    let name = r#""name":"acme.org/app""#;
    vec![
        row(
            "a name twice",
            name,
            &format!(r#""name":"acme.org/evil",{name}"#),
            "there twice",
        ),
        row("a value twice", r#""a":1"#, r#""a":2,"a":1"#, "there twice"),
        row(
            "a component twice",
            r#""component":"#,
            r#""component":{},"component":"#,
            "there twice",
        ),
        row(
            "resources twice",
            r#""resources":"#,
            r#""resources":[],"resources":"#,
            "there twice",
        ),
        row(
            "signatures twice",
            r#""signatures":"#,
            r#""signatures":[],"signatures":"#,
            "there twice",
        ),
        row(
            "a number that is another",
            r#""a":1"#,
            r#""a":1.0000000000000002"#,
            table::CHANGED,
        ),
        row(
            "a number with an exponent",
            r#""a":1"#,
            r#""a":1e1"#,
            table::CHANGED,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn none_passes() {
    let options = SignOptions {
        normalisation: Normalisation::V3,
        ..SignOptions::default()
    };
    let document = table::signed(&options).into_document();
    let source = original(&document).await;
    let app = "./source//acme.org/app:1.0.0";
    verify(&source, app, |_| {}).await.ok();

    let mut rows: Vec<Row> = table::FORGERIES
        .iter()
        .map(|(name, forge, says)| {
            let mut forged = document.clone();
            forge(&mut forged);
            // One that is called otherwise than it is stored is refused before its signature is looked at.
            let moved = ["name", "version"]
                .iter()
                .any(|key| forged["component"][key] != document["component"][key]);
            let says = if moved { "acme.org/app:1.0.0" } else { *says };
            Row {
                name: (*name).to_owned(),
                text: forged.to_string(),
                says,
            }
        })
        .collect();
    rows.extend(in_the_bytes(&document.to_string()));
    let count = rows.len();
    let source = &source;
    let failed: Vec<String> = stream::iter(rows)
        .map(|row| async move {
            let text = row.text;
            let ran = verify(source, app, |place| swap_descriptor(place, |_| text)).await;
            let mut wrong = blunders(&ran, 5, &[] as &[&str]);
            if !format!("{}{}", ran.stdout, ran.stderr).contains(row.says) {
                wrong.push(format!("`{}` is not said", row.says));
            }
            complain(&row.name, &wrong, &ran)
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    finish(count, &failed);

    // An old version, rightly signed, in place of a new one.
    let ran = verify(source, "./source//acme.org/app:2.0.0", |place| {
        index(place, |index| index["artifacts"][0]["tag"] = json!("2.0.0"));
    })
    .await
    .code(5);
    assert!(ran.stderr.contains("acme.org/app:2.0.0"), "{ran:?}");
}

#[expect(clippy::print_stderr, reason = "the table says how much is in it")]
fn finish(count: usize, failed: &[String]) {
    assert!(
        failed.is_empty(),
        "{} of {count}:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(count >= 36, "{count} forgeries");
    eprintln!("forged signatures: {count} cases");
}
