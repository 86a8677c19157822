//! What makes steps and plans the same, and what does not.

use std::sync::Arc;

use ocm_engine::Plan;

use crate::toys::{World, plan};

const TEXT: &str = "
environment: {size: 10, unused: 1, big: 9007199254740993}
transformations:
- {id: a, type: toy.source/v1, spec: {seed: 1, size: '${environment.size}'}}
- {id: b, type: toy.convert/v1, spec: {data: '${a.output.data}'}}
- {id: c, type: toy.sink/v1, dependsOn: [d], spec: {name: 'at ${a.spec.seed} ${environment.big}', data: '${b.output.data}'}}
- {id: d, type: toy.value/v1, spec: {value: {x: 1, y: 2}}}
- {id: e, type: toy.value/v1, spec: {value: '${d.id}', second: '${[1].map(a, a)}'}}
";

fn planned(text: &str) -> Plan {
    plan(text, &Arc::new(World::default())).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The steps whose identity changes when `from` is replaced by `to` in the text; a third is whether the plan does.
fn changed(from: &str, to: &str) -> (String, bool) {
    assert!(TEXT.contains(from), "{from}");
    let (old, new) = (planned(TEXT), planned(&TEXT.replace(from, to)));
    let changed = old
        .step_names()
        .map(|(id, ..)| id.to_string())
        .filter(|id| old.step_identity(id) != new.step_identity(id))
        .collect();
    (changed, old.fingerprint() != new.fingerprint())
}

#[test]
fn identities_follow_the_work() {
    for (from, to, steps, plan) in [
        // The work of a step and of all that build on it.
        ("seed: 1", "seed: 2", "abc", true),
        ("size: 10,", "size: 11,", "abc", true),
        ("name: 'at", "name: 'At", "c", true),
        ("{x: 1, y: 2}", "{x: 1, y: 3}", "cde", true),
        ("dependsOn: [d]", "dependsOn: []", "c", true),
        ("9007199254740993", "9007199254740992", "c", true),
        ("a.spec.seed", "a.spec.size", "c", true),
        (
            "{data: '${a.output.data}'}",
            "{data: '${b1.output.data}'}}\n- {id: b1, type: toy.convert/v1, spec: {data: '${a.output.data}'}",
            "bc",
            true,
        ),
        // What is no part of it.
        ("unused: 1", "unused: 2", "", true),
        ("unused: 1, ", "", "", true),
        ("{x: 1, y: 2}", "{y: 2, x: 1}", "", false),
        ("id: b,", "id: b, label: what it does,", "", true),
        ("a.output.data", "a.outputs.data", "", false),
        ("a.output.data", "a.data", "", false),
        ("'${d.id}'", "\"${d.id}\"", "", false),
    ] {
        assert_eq!(
            changed(from, to),
            (steps.to_owned(), plan),
            "{from} -> {to}"
        );
    }
}

#[test]
fn ids_matter_only_where_they_are_read() {
    let old = planned(TEXT);
    let renamed = TEXT
        .replace("id: a,", "id: source,")
        .replace("a.output", "source.output")
        .replace("a.spec", "source.spec")
        .replace("id: d,", "id: other,")
        .replace("d.id", "other.id")
        .replace("[d]", "[other]");
    let new = planned(&renamed);
    for (id, new_id, same) in [
        ("a", "source", true),
        ("b", "b", true),
        ("c", "c", true),
        ("d", "other", true),
        ("e", "e", false),
    ] {
        let (old, new) = (old.step_identity(id), new.step_identity(new_id));
        assert!(old.is_some() && new.is_some());
        assert_eq!(old == new, same, "{id}");
    }
    assert_eq!(old.step_identity("nothing"), None);
    let a = old.step_identity("a").unwrap();
    assert!(a.starts_with("sha256:") && a.len() == 71, "{a}");
}

#[test]
fn a_text_that_looks_like_an_identity_is_another_one() {
    let base = "transformations:\n- {id: a, type: toy.value/v1, spec: {value: 1}}\n";
    let identity = planned(base).step_identity("a").unwrap();
    let uses = format!(
        "{base}- {{id: b, type: toy.value/v1, dependsOn: [a], spec: {{value: 'x ${{a.output}}'}}}}\n"
    );
    let pretends = uses.replace("${a.output}", &format!("#{identity}.output"));
    assert_ne!(
        planned(&uses).step_identity("b"),
        planned(&pretends).step_identity("b")
    );
}
