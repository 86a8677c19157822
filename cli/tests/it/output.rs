//! What the program prints, in every format, and how it ends.

use std::collections::{BTreeMap, BTreeSet};

use ocm_specs::descriptor::Encoding;
use ocm_testdata::components::{self, SHOP, SHOP_SETTINGS};
use ocm_testdata::peers::vector;
use serde_json::Value;

use crate::design::{LIST, prepared};
use crate::place::{Peer, Place};

const EXAMPLE: &str = "examples/localize/transfer-spec.yaml";

/// The shipped example below a folder of its own.
async fn example() -> Place {
    let place = Place::new();
    let archive = place.path("examples/localize/archive");
    components::write_example(&archive).await.unwrap();
    let spec = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/localize/transfer-spec.yaml"
    );
    place.put(EXAMPLE, std::fs::read(spec).unwrap());
    place
}

async fn schema(place: &Place, name: &str) -> jsonschema::Validator {
    let schema = place.run(&["get", "schema", name]).await.ok().json();
    jsonschema::validator_for(&schema).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_fit_their_schema() {
    let place = example().await;
    let schema = schema(&place, "report").await;
    let run = [
        "transfer",
        "--transfer-spec",
        EXAMPLE,
        "--report",
        "report.json",
        "-o",
        "json",
        "--serve",
        "target.example=target/example/registry",
    ];
    let source = "source.example=examples/localize/archive";
    let whole = place
        .run(&[&run[..], &["--serve", source]].concat())
        .await
        .ok();
    let file = std::fs::read_to_string(place.path("report.json")).unwrap();
    assert_eq!(whole.stdout, file);
    let whole = whole.json();
    assert_eq!(whole["status"], "succeeded");
    // Without its source: some steps fail, others are skipped.
    std::fs::remove_dir_all(place.path("examples/localize/archive")).unwrap();
    let failed = place.run(&run).await.code(4).json();
    assert_eq!(failed["status"], "failed");
    for report in [&whole, &failed] {
        schema.validate(report).unwrap();
        let steps = report["steps"].as_array().unwrap();
        for total in ["bytesRead", "bytesSent", "requests"] {
            let parts = steps.iter().map(|step| step[total].as_u64().unwrap());
            assert_eq!(report["totals"][total], parts.sum::<u64>(), "{total}");
        }
    }
    for (field, wrong) in [("status", Value::from("fine")), ("steps", Value::Null)] {
        let mut report = whole.clone();
        report[field] = wrong;
        assert!(!schema.is_valid(&report), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_fit_the_schema_for_editors() {
    let place = example().await;
    let schema = schema(&place, "transfer-spec").await;
    let dry = [
        "transfer",
        "--transfer-spec",
        EXAMPLE,
        "--dry-run",
        "-o",
        "json",
    ];
    let plan = place.run(&dry).await.ok().json();
    schema.validate(&plan).unwrap();
    let mut wrong = plan;
    wrong["transformations"][0]["type"] = "downloader.component.cft/v1alpha1".into();
    assert!(!schema.is_valid(&wrong));
    let Some(spec) = vector(LIST) else { return };
    let peer = Peer::embedded().await;
    let place = prepared(&peer, Encoding::Json).await;
    let mut dry = dry;
    dry[2] = spec.to_str().unwrap();
    schema.validate(&place.run(&dry).await.ok().json()).unwrap();
    let graphs = vector("transform/go-graphs").unwrap();
    for graph in ["a-local-blob.yaml", "b-streamed-image.yaml"] {
        dry[2] = graph;
        schema
            .validate(&place.run_in(&graphs, &dry).await.ok().json())
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_name_every_step_and_are_always_the_same() {
    let place = example().await;
    let dry = ["transfer", "--transfer-spec", EXAMPLE, "--dry-run", "-o"];
    let plan = place.run(&[&dry[..], &["json"]].concat()).await.ok().json();
    for (format, start) in [
        ("tree", "shopInRegistry"),
        ("dot", "digraph"),
        ("mermaid", "flowchart"),
    ] {
        let dry = [&dry[..], &[format]].concat();
        let first = place.run(&dry).await.ok();
        assert_eq!(first.stdout, place.run(&dry).await.ok().stdout);
        assert!(first.stdout.starts_with(start), "{}", first.stdout);
        assert_eq!(first.stderr, "");
        for step in plan["transformations"].as_array().unwrap() {
            assert!(
                first.stdout.contains(step["id"].as_str().unwrap()),
                "{step}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn component_versions_in_every_format() {
    let place = example().await;
    let of_shop = format!("examples/localize/archive//{SHOP}");
    for (format, expected) in [
        (
            "table",
            "COMPONENT                   VERSION  PROVIDER\n\
             acme.example/shop           2.3.0    acme.example\n\
             acme.example/shop-settings  1.0.0    acme.example\n",
        ),
        (
            "tree",
            "acme.example/shop:2.3.0  (acme.example)\n\
             ├─ ociImage image 2.3.0\n\
             ├─ helmChart chart 2.3.0\n\
             ├─ plainText manual 2.3.0\n\
             └─ settings: acme.example/shop-settings:1.0.0  (acme.example)\n   \
                └─ yaml settings 1.0.0\n",
        ),
    ] {
        let ran = place
            .run(&["get", "cv", &of_shop, "-r", "-o", format])
            .await
            .ok();
        assert_eq!(ran.stdout, expected);
    }
    let json = place
        .run(&["get", "cv", &of_shop, "-o", "json", "--recursive"])
        .await
        .ok();
    let documents: Vec<Value> = serde_json::from_str(&json.stdout).unwrap();
    let names = documents
        .iter()
        .map(|document| &document["component"]["name"]);
    assert_eq!(names.collect::<Vec<_>>(), [SHOP, SHOP_SETTINGS]);
    let lines = place
        .run(&["get", "cv", &of_shop, "-o", "ndjson", "-r"])
        .await
        .ok()
        .stdout;
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(lines.collect::<Vec<_>>(), documents);
    let yaml = place
        .run(&["get", "cv", &of_shop, "-o", "yaml", "-r"])
        .await
        .ok()
        .stdout;
    let source = ocm_specs::yaml::Source::new("stdout", yaml);
    let read = ocm_specs::yaml::load(&source, &ocm_specs::yaml::LoadOptions::default());
    assert_eq!(read.unwrap().to_json(), Value::Array(documents));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_documents_itself() {
    let place = Place::new();
    let version = place.run(&["version"]).await.ok().stdout;
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    let completion = place.run(&["completion", "bash"]).await.ok().stdout;
    assert!(completion.contains("complete -F _ocm"), "{completion}");
    place.run(&["generate", "man", "-d", "man"]).await.ok();
    let page = std::fs::read_to_string(place.path("man/ocm-transfer.1")).unwrap();
    assert!(page.contains("transfer\\-spec"), "{page}");

    let list = place.run(&["get", "types"]).await.ok().stdout;
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.len() > 25, "{list}");
    assert!(names.is_sorted());
    for name in names {
        let text = place.run(&["describe", "types", name]).await.ok().stdout;
        assert!(
            text.starts_with(name) && text.contains("  example\n"),
            "{text}"
        );
        let schema = place
            .run(&["get", "types", name, "-o", "jsonschema"])
            .await
            .ok()
            .json();
        jsonschema::meta::validate(&schema).unwrap();
        assert_eq!(schema["type"], "object", "{name}");
    }
}

/// An example of a step type: its id, the ids that it refers to, the text.
struct Sample {
    id: String,
    needs: BTreeSet<String>,
    text: String,
}

impl Sample {
    fn new(text: &str) -> Self {
        let word = |text: &str, ends: &[char]| text.split(ends).next().unwrap().to_owned();
        let (_, id) = text.split_once("id: ").unwrap();
        let references = text.split("${").skip(1);
        Self {
            id: word(id, &[',', '\n']),
            needs: references.map(|rest| word(rest, &['.'])).collect(),
            text: text.to_owned(),
        }
    }
}

/// Every choice of examples for the steps that `wanted` needs, and that those need.
fn choices<'s>(
    chosen: BTreeMap<&'s str, &'s Sample>,
    samples: &'s [Sample],
) -> Vec<BTreeMap<&'s str, &'s Sample>> {
    let needed = chosen.values().flat_map(|sample| &sample.needs);
    let Some(missing) = needed
        .into_iter()
        .find(|id| !chosen.contains_key(id.as_str()))
    else {
        return vec![chosen];
    };
    let missing = missing.clone();
    let candidates = samples.iter().filter(|sample| sample.id == missing);
    let with = candidates.map(|sample| {
        let mut chosen = chosen.clone();
        chosen.insert(&sample.id, sample);
        choices(chosen, samples)
    });
    with.flatten().collect()
}

/// The example of each step type is accepted together with examples of the steps it refers to.
#[tokio::test(flavor = "multi_thread")]
async fn examples_are_accepted() {
    let place = Place::new();
    let list = place.run(&["get", "types"]).await.ok().stdout;
    let mut samples = Vec::new();
    for line in list.lines() {
        let name = line.split(' ').next().unwrap();
        let ran = place
            .run(&["get", "types", name, "-o", "examples"])
            .await
            .ok();
        samples.push(Sample::new(&ran.stdout));
    }
    let all = place
        .run(&["get", "types", "-o", "examples"])
        .await
        .ok()
        .stdout;
    assert_eq!(
        all,
        samples
            .iter()
            .map(|sample| sample.text.as_str())
            .collect::<String>()
    );
    for sample in &samples {
        let start = BTreeMap::from([(sample.id.as_str(), sample)]);
        let mut told = String::new();
        let mut accepted = false;
        for chosen in choices(start, &samples) {
            let steps: String = chosen.values().map(|sample| sample.text.as_str()).collect();
            place.put("spec.yaml", format!("transformations:\n{steps}"));
            let ran = place
                .run(&["transfer", "--transfer-spec", "spec.yaml", "--dry-run"])
                .await;
            accepted = ran.code == 0;
            if accepted {
                break;
            }
            told = ran.stderr;
        }
        assert!(accepted, "{}\n{told}", sample.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_is_wrong() {
    let place = example().await;
    place.put(
        "wrong.yaml",
        "transformations: [{id: a, type: nothing/v1, spec: {}}]",
    );
    place.put("not.yaml", "a: [");
    let archive = "examples/localize/archive";
    let absent = format!("{archive}//{SHOP}:9.9.9");
    for (arguments, code, told) in [
        (&["version"][..], 0, ""),
        (&["--help"], 0, ""),
        (&["nonsense"], 2, "nonsense"),
        (&["transfer"], 2, "--transfer-spec FILE"),
        (
            &["transfer", "--transfer-spec", EXAMPLE, "--serve", "x"],
            2,
            "HOST=DIR",
        ),
        (
            &["transfer", "--transfer-spec", "wrong.yaml"],
            3,
            "wrong.yaml:1:",
        ),
        (
            &["transfer", "--transfer-spec", "not.yaml"],
            3,
            "not.yaml:1:",
        ),
        (
            &["transfer", "--transfer-spec", "absent.yaml"],
            4,
            "absent.yaml",
        ),
        (
            &["get", "types", "merge.components"],
            4,
            "did you mean `merge.component`?",
        ),
        (&["get", "cv", &absent], 4, "9.9.9"),
        (&["get", "cv", "./nowhere//acme.org/x:1"], 4, "nowhere"),
    ] {
        let ran = place.run(arguments).await.code(code);
        assert!(ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout.is_empty(), code != 0, "{arguments:?}");
    }
}
