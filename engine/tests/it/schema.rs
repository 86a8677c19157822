//! The schema of specs, as editors use it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ocm_engine::{
    Effect, Outcome, StepContext, StepError, StepType, StepTypeInfo, StepTypes, spec_schema,
};
use ocm_specs::yaml::{LoadOptions, Source, load};
use serde_json::{Value as Json, json};

use crate::toys::{World, step_types};

fn json_of(text: &str) -> Json {
    load(&Source::new("t", text), &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{error}: {text}"))
        .to_json()
}

fn validator(types: &StepTypes) -> jsonschema::Validator {
    let schema = spec_schema(types);
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn check(validator: &jsonschema::Validator, step: &str, valid: bool) {
    let document = json!({"transformations": [json_of(step)]});
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors.is_empty(), valid, "{step}: {errors:?}");
}

#[test]
fn plugins_are_part_of_it() {
    let validator = validator(&step_types(&Arc::new(World::default())));
    let digest = format!("sha256:{}", "0".repeat(64));
    for (plugins, valid) in [
        (format!("[{{name: a}}, {{name: b, source: ./b.wasm, digest: '{digest}'}}]"), true),
        (
            "[{name: a, signature: acme, rights: {http: [x.example], clock: true}, config: {k: 1}}]".to_owned(),
            true,
        ),
        ("[{source: ./b.wasm}]".to_owned(), false),
        ("[{name: a, digset: x}]".to_owned(), false),
        ("[{name: a, digest: latest}]".to_owned(), false),
        ("[{name: a, rights: {files: true}}]".to_owned(), false),
        ("{name: a}".to_owned(), false),
    ] {
        let document = json!({"plugins": json_of(&plugins), "transformations": []});
        assert_eq!(validator.is_valid(&document), valid, "{plugins}");
    }
}

#[test]
fn examples_fit_and_mistakes_do_not() {
    let types = step_types(&Arc::new(World::default()));
    let validator = validator(&types);
    for step_type in types.iter() {
        check(&validator, &step_type.info().example, true);
    }
    for (step, valid) in [
        (
            "{type: toy.source/v1, spec: {seed: 1, size: 1, label: x}}",
            false,
        ),
        ("{type: toy.source/v1, spec: {seed: 1}}", false),
        ("{type: toy.source/v1, spec: {seed: one, size: 1}}", false),
        ("{type: toy.source/v1, spec: {seed: -1, size: 1}}", false),
        (
            "{type: toy.source/v1, spec: {seed: '${1}', size: '${a.b}', once: '${true}'}}",
            true,
        ),
        (
            "{type: toy.sink/v1, spec: {name: a, data: {uri: x, lineage: {component: a}}}}",
            false,
        ),
        (
            "{type: toy.sink/v1, spec: {name: a, data: {uri: x, lineage: {component: a, version: b}}}}",
            true,
        ),
        (
            "{type: toy.sink/v1, spec: {name: a, data: {uri: x, lineage: '${b.c}'}}}",
            true,
        ),
        (
            "{type: toy.sink/v1, spec: {name: a, data: '${b}', refersTo: ['${b}', c]}}",
            true,
        ),
        (
            "{type: toy.sink/v1, spec: {name: a, data: '${b}', refersTo: '${b}'}}",
            true,
        ),
        (
            "{type: toy.sink/v1, spec: {name: a, data: '${b}', refersTo: [1]}}",
            false,
        ),
        ("{type: toy.sink/v2, spec: {}}", false),
        ("{id: A, type: toy.value/v1, spec: {}}", false),
        ("{id: a, type: toy.value/v1, spec: {}, when: x}", false),
        (
            "{id: a, type: toy.value/v1, label: x, labels: {a: b}, dependsOn: [b], output: {a: 1}, spec: {}}",
            true,
        ),
    ] {
        check(&validator, step, valid);
    }
}

/// A type that only has schemas.
struct Described(StepTypeInfo);

impl StepType for Described {
    fn info(&self) -> &StepTypeInfo {
        &self.0
    }

    fn run(
        &self,
        _: StepContext,
        spec: Json,
    ) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        async move { Ok(Outcome::new(spec)) }.boxed()
    }
}

fn described(name: &str, spec_schema: Json) -> Arc<Described> {
    Arc::new(Described(StepTypeInfo {
        name: name.to_owned(),
        aliases: vec![format!("{name}.other")],
        summary: String::new(),
        example: String::new(),
        effect: Effect::None,
        deterministic: true,
        implementation: None,
        spec_schema,
        output_schema: json!(true),
        inputs: Vec::new(),
        outputs: Vec::new(),
    }))
}

#[test]
fn references_of_a_type_lead_into_its_part() {
    let mut types = step_types(&Arc::new(World::default()));
    // Both name their parts alike; one has an identity, one contains itself, and both names need escapes.
    let tree = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "made.up/schemas/tree.schema.json",
        "type": "object",
        "properties": {
            "part": {"$ref": "#/$defs/a~1b%25"},
            "children": {"type": "array", "items": {"$ref": "#"}},
            "kind": {"oneOf": [{"type": "object", "properties": {"k": {"type": "integer"}}, "required": ["k"]}, {"type": "null"}]},
        },
        "additionalProperties": false,
        "$defs": {"a/b%": {"$id": "made.up/part", "type": "integer", "minimum": 3}},
    });
    types.add(described("tree~1/v1", tree)).unwrap();
    let flat = json!({
        "type": "object",
        "properties": {"part": {"$ref": "#/$defs/a~1b%25"}, "far": {"$ref": "https://example.org/unknown.json"}},
        "$defs": {"a/b%": {"type": "boolean"}},
    });
    types.add(described("flat/v1", flat)).unwrap();
    let validator = validator(&types);
    for (step, valid) in [
        (
            "{type: tree~1/v1, spec: {part: 3, children: [{part: 4}, {children: []}]}}",
            true,
        ),
        ("{type: tree~1/v1.other, spec: {part: 3}}", true),
        ("{type: tree~1/v1, spec: {part: 2}}", false),
        ("{type: tree~1/v1, spec: {part: true}}", false),
        ("{type: tree~1/v1, spec: {children: [{part: 2}]}}", false),
        ("{type: tree~1/v1, spec: {children: [{parts: 3}]}}", false),
        ("{type: tree~1/v1, spec: {kind: {k: '${1}'}}}", true),
        ("{type: tree~1/v1, spec: {kind: {k: x}}}", false),
        ("{type: flat/v1, spec: {part: true, far: [anything]}}", true),
        ("{type: flat/v1, spec: {part: 3}}", false),
    ] {
        check(&validator, step, valid);
    }
}
