//! Printed plans: explicit, and the same plan again when they are read.

use std::sync::Arc;

use ocm_engine::Plan;
use ocm_specs::yaml::to_string;

use crate::random::generate;
use crate::toys::{World, plan};

fn planned(text: &str) -> Plan {
    plan(text, &Arc::new(World::default())).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// Reads what `plan` prints and says what is different then.
fn check_again(plan: &Plan) {
    let text = to_string(&plan.to_json());
    let again = planned(&text);
    assert_eq!(again.to_json(), plan.to_json(), "{text}");
    assert_eq!(to_string(&again.to_json()), text);
    assert_eq!(again.fingerprint(), plan.fingerprint(), "{text}");
    assert_eq!(again.edges(), plan.edges(), "{text}");
    let ids: Vec<String> = plan.step_names().map(|(id, ..)| id.to_string()).collect();
    for id in &ids {
        assert_eq!(again.step_identity(id), plan.step_identity(id), "{text}");
    }
}

#[test]
fn a_printed_plan_is_the_same_plan() {
    for number in 0..1000 {
        let mut text = generate(number).text;
        if number % 3 == 0 {
            // What comes before an id in a document may have none.
            text = text.replace(
                "transformations:\n",
                "transformations:\n- {type: toy.value/v1, spec: {value: [null, 1.0, 'no', \"1\", {a.b: ' x'}]}}\n- {type: toy.value/v1}\n",
            );
        }
        if number % 5 == 0 {
            text = text.replace(".output.d", ".outputs.d");
        }
        if number % 7 == 0 {
            text = text.replace(".output.data", "[\"data\"]");
        }
        check_again(&planned(&text));
    }
}

#[test]
fn ids_are_printed_and_other_words_are_replaced() {
    let plan = planned(
        "
environment: {size: 5}
transformations:
- {type: toy.source/v1, label: first, spec: {seed: 1, size: '${environment.size}'}}
- {id: toysource2, type: toy.source/v1, spec: {seed: 1, size: 10}}
- {type: toy.source/v1, spec: {seed: 1, size: 10}}
- {id: a, type: toy.sink/v1, dependsOn: [toysource2], spec: {name: x, data: '${toysource2.data}'}}
- id: b
  type: toy.value/v1
  spec:
    value: ${a.?digest} ${a[\"digest\"]} ${a[?'digest']} ${a. digest}
    second: '${[a.outputs.digest, a[\"outputs\"].digest, a.?outputs.digest, has(a.digest), a.name, [1].map(a, a)]}'
",
    );
    let expected = "\
environment:
  size: 5
transformations:
- id: toysource1
  label: first
  type: toy.source/v1
  spec:
    seed: 1
    size: ${environment.size}
- id: toysource2
  type: toy.source/v1
  spec:
    seed: 1
    size: 10
- id: toysource3
  type: toy.source/v1
  spec:
    seed: 1
    size: 10
- id: a
  type: toy.sink/v1
  dependsOn:
  - toysource2
  spec:
    name: x
    data: ${toysource2.output.data}
- id: b
  type: toy.value/v1
  spec:
    value: ${a.output.?digest} ${a.output[\"digest\"]} ${a.output[?'digest']} ${a.output.
      digest}
    second: ${[a.output.digest, a['output'].digest, a.?output.digest, has(a.output.digest),
      a.spec.name, [1].map(a, a)]}
";
    let text = to_string(&plan.to_json());
    assert!(
        text == expected,
        "--- found\n{text}--- expected\n{expected}"
    );
    check_again(&plan);
}

#[tokio::test(start_paused = true)]
async fn replaced_words_mean_what_was_written() {
    let text = "
transformations:
- {id: s, type: toy.source/v1, spec: {seed: 1, size: 10}}
- {id: a, type: toy.sink/v1, spec: {name: x, data: '${s.data}'}}
- {id: b, type: toy.value/v1, spec: {value: '${a.?digest.hasValue()} ${a[\"name\"]}', second: '${has(a.digest)}'}}
";
    let limits = ocm_content::Limits::new(ocm_content::limits::LimitsConfig::default());
    let options = crate::toys::options(1, ocm_engine::OnError::Stop);
    let seen = crate::toys::run(text, limits, options).await;
    let output = seen
        .result
        .output("b")
        .unwrap_or_else(|| panic!("{:?}", seen.result.failures));
    assert_eq!(output["value"], serde_json::json!(["true x", true]));
}
