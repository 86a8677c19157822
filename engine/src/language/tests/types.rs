//! Behaviour of types and of checking documents against them.

use std::collections::BTreeMap;

use ocm_specs::yaml::{LoadOptions, Node, Source, load};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::*;
use super::{expression_text, steps, vector};

fn read(text: &str) -> (std::sync::Arc<Source>, Node) {
    let source = Source::new("test", text);
    let node = load(&source, &LoadOptions::default()).expect("test document");
    (source, node)
}

fn schema(path: &str) -> Option<Json> {
    let text = vector(path)?;
    Some(serde_json::from_str(&text).expect("schema is JSON"))
}

#[test]
fn schemas_have_types() {
    for (file, path, expected) in [
        ("ArrayRefOneOf", "", "list of one of several types"),
        ("ComplexMixed", "kind", "one of `Example/v1`, `Example`"),
        ("ComplexMixed", "metadata.labels", "map of string"),
        ("ComplexMixed", "metadata.labels.any", "string"),
        ("ComplexMixed", "spec.mode", "one of `fast`, `slow`"),
        (
            "ComplexMixed",
            "spec.options",
            "list of object {flag, threshold}",
        ),
        ("ComplexMixed", "spec.options[0].threshold", "integer"),
        ("ComplexMixed", "spec.schedule", "string"),
        ("EnumConstOneOf", "custom", "one of `A`, `B`"),
        ("Formats", "date", "string"),
        ("MapAdditionalProps", "any.flags[2]", "one of `x`, `y`, `z`"),
        ("OpenObject", "any.thing", "any value"),
        ("RefOnly", "", "integer"),
        ("RequiredDefaults", "d.y", "number"),
        ("TrueSchema", "trueProp", "any value"),
    ] {
        let Some(schema) = schema(&format!("transform/cel-schemas/{file}.schema.json")) else {
            return;
        };
        let scope = BTreeMap::from([("x".to_owned(), Type::of_schema(&schema))]);
        let dot = if path.is_empty() { "" } else { "." };
        let found = Expression::parse(&format!("x{dot}{path}"))
            .expect("path")
            .infer(&scope)
            .unwrap_or_else(|errors| panic!("{file} {path}: {errors:?}"));
        assert_eq!(found.to_string(), expected, "{file} {path}");
    }
}

#[test]
fn recursive_and_hostile_schemas_are_finite() {
    let tree = json!({"$ref": "#/$defs/tree", "$defs": {
        "tree": {"type": "object", "title": "Tree", "additionalProperties": false,
            "properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"},
                "name": {"type": ["string", "null"]}}},
        "loop": {"$ref": "#/$defs/loop"},
    }});
    let scope = BTreeMap::from([("t".to_owned(), Type::of_schema(&tree))]);
    let infer = |text: &str| Expression::parse(text).expect(text).infer(&scope);
    assert_eq!(
        infer("t.left.right.left.name").expect("name").to_string(),
        "string or null"
    );
    assert_eq!(
        infer("[t, t.left]").expect("list").to_string(),
        "list of object `Tree`"
    );
    let errors = infer("t.left.rihgt").expect_err("typo");
    assert_eq!(errors[0].hint.as_deref(), Some("did you mean `right`?"));
    // Two documents with the same recursive shape, compared without end in sight.
    let (a, b) = (Type::of_schema(&tree), Type::of_schema(&tree));
    assert_eq!(a.assignable(&b), Ok(()));

    let looping =
        Type::of_schema(&json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}));
    assert!(looping.is_dyn());
    let mut deep = json!({"type": "string"});
    for _ in 0..120 {
        deep = json!({"type": "array", "items": deep});
    }
    assert!(matches!(Type::of_schema(&deep), Type::List(_)));
    for nonsense in [
        json!(1),
        json!({"type": 1}),
        json!({"oneOf": 1}),
        json!({"oneOf": []}),
        json!({"$ref": "#nope"}),
        json!({"$ref": "http://x/y"}),
        json!({"enum": []}),
        json!(false),
    ] {
        assert!(Type::of_schema(&nonsense).is_dyn(), "{nonsense}");
    }
}

fn resource_schema() -> Json {
    json!({"type": "object", "title": "Resource", "additionalProperties": false,
    "required": ["name", "access"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "size": {"type": "integer"},
        "relation": {"enum": ["local", "external"]},
        "labels": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "object",
            "properties": {"name": {"type": "string"}, "value": true}}}]},
        "access": {"type": "object", "additionalProperties": true,
            "properties": {"type": {"type": "string"}}},
        "extra": {"type": "object", "additionalProperties": {"type": "string"}},
        "file": {"x-ocm-content": true},
    }})
}

struct Types {
    named: BTreeMap<String, Type>,
    spec: Type,
    output: Type,
}

impl TypeScope for Types {
    fn root(&self, name: &str) -> Option<TypeRoot<'_>> {
        match name {
            "get" => Some(TypeRoot::Step {
                spec: &self.spec,
                output: &self.output,
            }),
            name => self.named.root(name),
        }
    }

    fn names(&self) -> Vec<String> {
        self.named
            .names()
            .into_iter()
            .chain(["get".to_owned()])
            .collect()
    }
}

fn types() -> Types {
    let environment = json!({"name": "n", "number": 1, "half": 0.5, "on": true, "nothing": null,
        "list": [1, 2], "mixed": [{"a": 1, "b": "x"}, {"a": 2}], "texts": ["a"]});
    Types {
        named: BTreeMap::from([("environment".to_owned(), Type::of_value(&environment))]),
        spec: Type::of_schema(
            &json!({"type": "object", "properties": {"resource": resource_schema()}}),
        ),
        output: Type::of_schema(&json!({"type": "object", "additionalProperties": false,
            "properties": {"resource": resource_schema(), "data": {"x-ocm-content": true},
                "any": true, "either": {"oneOf": [{"type": "string"}, {"type": "number"}]}}})),
    }
}

#[test]
fn expressions_have_types() {
    for (text, expected) in [
        ("environment.name", "string"),
        ("environment.number + 1", "integer"),
        ("environment.half * 2.0", "number"),
        ("environment.list[0]", "integer"),
        ("environment.mixed[1].a", "integer"),
        ("environment.mixed[0].b", "any value"),
        ("environment.?missing", "optional any value"),
        ("has(environment.missing)", "boolean"),
        ("get.output.resource", "object `Resource`"),
        ("get.outputs.resource.?version", "optional string"),
        ("get.output.resource.?version.orValue('1')", "string"),
        ("get.output.resource.?version.hasValue()", "boolean"),
        ("get.output.resource.labels[0].value", "any value"),
        ("get.output.resource.access.imageReference", "any value"),
        (
            "get.output.resource.access.imageReference.parseRef().registry",
            "string",
        ),
        (
            "get.output.resource.access.toOCI()",
            "object {digest, host, reference, registry, …}",
        ),
        ("get.output.resource.extra['k']", "string"),
        ("get.output.resource.extra.k", "string"),
        ("get.output.resource.relation", "one of `local`, `external`"),
        ("get.output.data", "content"),
        ("get.output.data.size", "integer"),
        ("get.output.data.lineage.component", "any value"),
        ("get.output.any.thing[3]", "any value"),
        ("get.output.either.nested", "any value"),
        ("get.spec.resource.name", "string"),
        ("get.id + get.type", "string"),
        ("get", "object {id, type, spec, output}"),
        (
            "has(get.output.resource.size) ? get.output.resource.size : null",
            "integer or null",
        ),
        ("environment.on ? 1 : 2.5", "number"),
        ("environment.on ? 1 : 'x'", "any value"),
        ("environment.list.map(x, string(x))", "list of string"),
        ("environment.list.filter(x, x > 1)", "list of integer"),
        ("environment.mixed.exists(x, x.a == 1)", "boolean"),
        (
            "get.output.resource.labels.map(l, l.name)",
            "list of string",
        ),
        (
            "get.output.resource.extra.map(k, k + '!')",
            "list of string",
        ),
        ("{'a': 1, 'b': 'x'}.a", "integer"),
        ("{environment.name: 1}", "map of any value"),
        ("[1, 2.5]", "list of number"),
        ("[]", "list of any value"),
        ("[1] + [2]", "list of integer"),
        ("size(environment.list) + 1", "integer"),
        ("optional.of(1).optMap(x, x + 1)", "optional integer"),
        ("int(environment.name)", "integer"),
        ("timestamp('2026-01-01T00:00:00Z').getHours()", "integer"),
        ("type(1) == int", "boolean"),
        ("dyn(1) + 'x'", "string"),
    ] {
        let found = Expression::parse(text).expect(text).infer(&types());
        let found = found.unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        assert_eq!(found.to_string(), expected, "{text}");
    }
}

#[test]
fn wrong_expressions_are_explained() {
    for (text, part, message, hint) in [
        (
            "enviroment.name",
            "enviroment",
            "unknown variable `enviroment`",
            "did you mean `environment`?",
        ),
        (
            "environment.nmae",
            "nmae",
            "`environment` has no field `nmae`",
            "did you mean `name`?",
        ),
        (
            "environment.name.x",
            "x",
            "`environment.name` is string, it has no field `x`",
            "",
        ),
        (
            "environment.list.x",
            "x",
            "`environment.list` is list of integer, it has no field `x`",
            "",
        ),
        (
            "environment.name[0]",
            "0",
            "`environment.name` is string, it has no elements by number",
            "",
        ),
        (
            "get.ouput.resource",
            "ouput",
            "step `get` has no `ouput`",
            "did you mean `output`?",
        ),
        (
            "get.output.resource.nam",
            "nam",
            "`get.output.resource` has no field `nam`",
            "did you mean `name`?",
        ),
        (
            "get.output.resource.?nam",
            "nam",
            "`get.output.resource` has no field `nam`",
            "did you mean `name`?",
        ),
        (
            "has(get.output.resource.nam)",
            "nam",
            "`get.output.resource` has no field `nam`",
            "did you mean `name`?",
        ),
        (
            "get.output.data.medaType",
            "medaType",
            "`get.output.data` is content, it has no field `medaType`",
            "did you mean `mediaType`?",
        ),
        (
            "1 + environment.name",
            "1 + environment.name",
            "`+` does not work on (integer, string)",
            "",
        ),
        (
            "environment.name == 1",
            "environment.name == 1",
            "`==` does not work on (string, integer)",
            "",
        ),
        (
            "environment.name > 1",
            "environment.name > 1",
            "`>` does not work on (string, integer)",
            "",
        ),
        (
            "1 in environment.texts",
            "1 in environment.texts",
            "`in` does not work on (integer, list of string)",
            "",
        ),
        (
            "environment.number ? 1 : 2",
            "environment.number",
            "expected boolean, found integer",
            "",
        ),
        (
            "environment.list.map(x, x.y)",
            "y",
            "`x` is integer, it has no field `y`",
            "",
        ),
        (
            "environment.number.map(x, x)",
            "environment.number",
            "expected a list or a map, found integer",
            "",
        ),
        (
            "environment.name.orValue('x')",
            "environment.name.orValue('x')",
            "`orValue` does not work on string with (`x`)",
            "",
        ),
        (
            "environment.name.startWith('x')",
            "environment.name.startWith('x')",
            "unknown function `startWith`",
            "did you mean `startsWith`?",
        ),
        (
            "size(1)",
            "size(1)",
            "`size` does not work on (integer)",
            "",
        ),
        ("size()", "size()", "`size` does not work on ()", ""),
        (
            "environment.number.parseRef()",
            "environment.number.parseRef()",
            "`parseRef` does not work on integer with ()",
            "",
        ),
        (
            "environment.name.parseRef().host",
            "host",
            "`environment.name.parseRef()` has no field `host`",
            "its fields are `digest`, `name`, `reference`, `registry`, `repository`, `tag`",
        ),
    ] {
        let errors = Expression::parse(text)
            .expect(text)
            .infer(&types())
            .expect_err(text);
        let [error] = errors.as_slice() else {
            panic!("{text}: {errors:?}");
        };
        assert_eq!(error.message, message, "{text}");
        assert_eq!(&text[error.at.clone()], part, "{text}");
        assert_eq!(error.hint.as_deref().unwrap_or_default(), hint, "{text}");
    }
    let several = Expression::parse("a.b + c.d + environment.nope").expect("parses");
    assert_eq!(several.infer(&types()).expect_err("three").len(), 3);
}

#[test]
fn assignability_is_structural() {
    let of = |schema: Json| Type::of_schema(&schema);
    let closed = json!({"type": "object", "additionalProperties": false, "required": ["a"],
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}});
    let file = json!({"type": "object", "additionalProperties": false,
        "properties": {"type": {"type": "string"}, "uri": {"type": "string"}}});
    let content = json!({"x-ocm-content": true});
    for (found, expected, outcome) in [
        (json!({"type": "string"}), json!({"type": "string"}), ""),
        (json!({"type": "integer"}), json!({"type": "number"}), ""),
        (
            json!({"type": "number"}),
            json!({"type": "integer"}),
            "expected integer, found number",
        ),
        (
            json!({"type": "integer"}),
            json!({"type": "string"}),
            "expected string, found integer",
        ),
        (json!(true), closed.clone(), ""),
        (closed.clone(), json!(true), ""),
        (closed.clone(), closed.clone(), ""),
        (
            json!({"type": "object", "properties": {"b": {"type": "integer"}}}),
            closed.clone(),
            "",
        ),
        (
            json!({"type": "object", "properties": {"b": {"type": "string"}}}),
            closed.clone(),
            "expected integer, found string at `b`",
        ),
        (
            json!({"type": "object", "properties": {"c": true}}),
            closed.clone(),
            "expected object {a, b}, found an object with a field `c`",
        ),
        (
            json!({"type": "object", "properties": {"b": {"type": "null"}}}),
            closed.clone(),
            "",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}}}),
            closed.clone(),
            "expected string, found null at `a`",
        ),
        (
            json!({"type": "object", "properties": {"c": true}}),
            json!({"type": "object", "properties": {"a": true}, "additionalProperties": true}),
            "",
        ),
        (
            closed.clone(),
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "expected string, found integer at `b`",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            closed.clone(),
            "expected integer, found string at `b`",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "array", "items": {"type": "boolean"}}),
            "expected boolean, found string at `[]`",
        ),
        (
            json!({"type": ["string", "null"]}),
            json!({"type": "string"}),
            "",
        ),
        (
            json!({"type": "string"}),
            json!({"type": ["string", "null"]}),
            "",
        ),
        (
            json!({"type": "null"}),
            json!({"type": "string"}),
            "expected string, found null",
        ),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["b", "c"]}), ""),
        (
            json!({"enum": ["a"]}),
            json!({"enum": ["b", "c"]}),
            "expected one of `b`, `c`, found `a`",
        ),
        (content.clone(), content.clone(), ""),
        (content.clone(), file.clone(), ""),
        (file, content.clone(), ""),
        (
            json!({"type": "string"}),
            content,
            "expected content, found string",
        ),
    ] {
        let result = of(found.clone()).assignable(&of(expected.clone()));
        let result = result.map_or_else(|mismatch| mismatch.to_string(), |()| String::new());
        assert_eq!(result, outcome, "{found} to {expected}");
    }
}

/// What checking `text` against `schema` reports: `line:column path: message [hint]` per line.
fn check(schema: &Json, text: &str) -> String {
    let (source, node) = read(text);
    let document = match Document::parse(&node, Some(&source)) {
        Ok(document) => document,
        Err(errors) => return render(&source, &errors),
    };
    let ty = Type::of_schema(schema);
    let mut assignments = Assignments::default();
    let found = check_document(
        &ty,
        &node,
        &document,
        &types(),
        Some(&source),
        &mut assignments,
    );
    render(&source, &found)
}

fn render(source: &Source, found: &[Diagnostic]) -> String {
    found
        .iter()
        .map(|it| {
            let place = source.position(it.span.start);
            let hint = it
                .hint
                .as_ref()
                .map(|hint| format!(" [{hint}]"))
                .unwrap_or_default();
            format!(
                "{}:{} {}: {}{hint}\n",
                place.line, place.column, it.path, it.message
            )
        })
        .collect()
}

#[test]
fn documents_are_checked_with_places() {
    for (text, expected) in [
        ("{name: a, access: {type: x, more: 1}}", ""),
        (
            "{name: '${environment.name}', access: '${get.output.resource.access}'}",
            "",
        ),
        (
            "{name: 'a-${environment.number}', access: {ref: '${environment.nope}'}}",
            "1:64 access.ref: `environment` has no field `nope` [its fields are `name`, `number`, `half`, `on`, `nothing`, `list`, `mixed`, `texts`]\n",
        ),
        (
            "name: 1\nacces: {}\n",
            "1:7 name: expected string, found integer [put it in quotes]\n2:1 acces: unknown field `acces` [did you mean `access`?]\n1:1 : missing field `access`\n",
        ),
        (
            "{name: a, access: {}, relation: lokal}",
            "1:33 relation: expected one of `local`, `external`, found `lokal` [did you mean `local`?]\n",
        ),
        (
            "{name: a, access: {}, labels: [{name: 1}], size: 1.5}",
            "1:39 labels[0].name: expected string, found integer [put it in quotes]\n1:50 size: expected integer, found number\n",
        ),
        ("{name: a, access: {}, labels: null, size: 2.0}", ""),
        (
            "{name: a, access: {}, size: '${environment.name}'}",
            "1:32 size: expected integer, found string\n",
        ),
        (
            "{name: a, access: {}, size: 'a${environment.number}'}",
            "1:29 size: expected integer, found string with expressions inside\n",
        ),
        ("{name: a, access: {}, size: '${null}'}", ""),
        (
            "{name: '${null}', access: {}}",
            "1:11 name: expected string, found null\n",
        ),
        ("{name: a, access: {}, file: '${get.output.data}'}", ""),
        (
            "{name: 'x${get.output.data}', access: {}}",
            "1:12 name: content cannot stand within text\n",
        ),
        (
            "{name: '${get.output.data}', access: {}}",
            "1:11 name: expected string, found content\n",
        ),
        (
            "{name: a, access: '${environment.list.map(x, x.y + z)}'}",
            "1:48 access: `x` is integer, it has no field `y`\n1:52 access: unknown variable `z` [expressions know steps by their ids, and `environment`]\n",
        ),
        (
            "{name: a, access: '${a b}'}",
            "1:24 access: syntax error: unexpected `b`\n",
        ),
        (
            "{name: a, access: [], extra: {k: 1}}",
            "1:19 access: expected object {type}, found list\n1:34 extra.k: expected string, found integer [put it in quotes]\n",
        ),
    ] {
        assert_eq!(check(&resource_schema(), text), expected, "{text}");
    }
}

#[test]
fn documents_are_evaluated_in_place() {
    let (_, node) = read(
        "{num: 1, s: '${done.id}-${n}', drop: '${null}', keep: '${null}', list: [a, '${list}', '${null}'], free: {x: '${null}'}, plain: null}",
    );
    let ty = Type::of_schema(
        &json!({"type": "object", "required": ["keep"], "properties":
        {"drop": {"type": "string"}, "keep": true, "plain": {"type": "string"}}}),
    );
    let document = Document::parse(&node, None).expect("parses");
    let value = document.evaluate(&node, &ty, &steps()).expect("value");
    assert_eq!(
        value,
        json!({"num": 1, "s": "done-5", "keep": null, "list": ["a", [3, 1, 2], null],
            "free": {"x": null}, "plain": null})
    );
    let mut roots = Vec::new();
    document.visit(&node, &mut |site| {
        for placed in site.template.expressions() {
            roots.extend(placed.expression.roots().into_iter().map(str::to_owned));
        }
    });
    assert_eq!(roots, ["done", "n", "list"]);
    assert!(document.template_at(&node, &["s"]).is_some());
    assert!(document.template_at(&node, &["num"]).is_none());

    let (_, node) = read("{a: {b: [x, '${doc.nam}']}}");
    let error = Document::parse(&node, None)
        .expect("parses")
        .evaluate(&node, &Type::Dyn, &steps())
        .expect_err("missing");
    assert_eq!(error.to_string(), "a.b[1]: `doc` has no field `nam`");
}

#[test]
fn constraints_are_validated_where_values_are_known() {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "either": {"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]},
        "alternatives": {"anyOf": [{"type": "object", "properties": {"k": {"const": "v"}}}, {"type": "integer"}]},
        "list": {"type": "array", "minItems": 2, "items": {"type": "string", "minLength": 2}},
    }});
    let validator = Validator::new(&schema).expect("schema");
    for (text, expected) in [
        ("{name: abc, list: [aa, bb]}", ""),
        (
            "{name: ABC}",
            "1:8 name: \"ABC\" does not match \"^[a-z]+$\"\n",
        ),
        ("{name: '${environment.name}'}", ""),
        ("{name: 'X${environment.name}'}", ""),
        ("{list: [aa, '${environment.name}']}", ""),
        (
            "{list: [a, '${environment.name}']}",
            "1:9 list[0]: \"a\" is shorter than 2 characters\n",
        ),
        (
            "{list: ['${environment.name}']}",
            "1:8 list: [\"${environment.name}\"] has less than 2 items\n",
        ),
        ("{alternatives: {k: '${environment.name}'}}", ""),
        ("{alternatives: '${environment.name}'}", ""),
        (
            "{alternatives: text}",
            "1:16 alternatives: \"text\" is not valid under any of the schemas listed in the 'anyOf' keyword\n",
        ),
    ] {
        let (source, node) = read(text);
        let document = Document::parse(&node, None).expect("parses");
        let found = validator.validate_literals(&node, &document);
        assert_eq!(render(&source, &found), expected, "{text}");
    }
    let found = validator.validate_value(&json!({"name": "ABC", "list": ["aa", "b"]}));
    let paths: Vec<&str> = found.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["name", "list[1]"]);
    // Exponential for a backtracking engine.
    let slow = Validator::new(&json!({"type": "string", "pattern": "^(a+)+$"})).expect("schema");
    assert_eq!(
        slow.validate_value(&json!("a".repeat(100_000) + "b")).len(),
        1
    );
    assert!(Validator::new(&json!({"$ref": "https://example.org/schema.json"})).is_err());
    assert!(Validator::new(&json!({"type": "nonsense"})).is_err());
}

struct StepType {
    spec: Type,
    output: Type,
    validate_spec: Validator,
    validate_output: Validator,
}

impl StepType {
    fn load(kind: &str) -> Option<Self> {
        let name = kind.split('/').next().expect("name");
        let folder = match name {
            name if name.starts_with("Mock") => "engine-mocks",
            name if name.contains("Helm") => "helm",
            "FileCleanup" => "transfer",
            _ => "oci",
        };
        let load = |part: &str| {
            schema(&format!(
                "transform/schemas/{folder}/{name}{part}.schema.json"
            ))
        };
        let whole = Type::of_schema(&load(match name {
            "FileCleanup" => "Transformation",
            _ => "",
        })?);
        Some(Self {
            spec: whole.field("spec").expect("spec").ty.clone(),
            output: whole
                .field("output")
                .map_or(Type::Dyn, |field| field.ty.clone()),
            validate_spec: Validator::new(&load("Spec")?).expect("spec schema"),
            validate_output: Validator::new(&load("Output")?).expect("output schema"),
        })
    }
}

/// A graph whose steps stand in an order in which they can run.
struct Graph {
    environment: Json,
    environment_type: Type,
    types: BTreeMap<String, StepType>,
    values: BTreeMap<String, (String, Json, Json)>,
}

impl TypeScope for Graph {
    fn root(&self, name: &str) -> Option<TypeRoot<'_>> {
        match self.types.get(name) {
            Some(step) => Some(TypeRoot::Step {
                spec: &step.spec,
                output: &step.output,
            }),
            None => (name == "environment").then_some(TypeRoot::Value(&self.environment_type)),
        }
    }
}

impl Scope for Graph {
    fn root(&self, name: &str) -> Option<Root<'_>> {
        match self.values.get_key_value(name) {
            Some((id, (kind, spec, output))) => Some(Root::Step(StepView {
                id,
                kind,
                spec: Some(spec),
                output: Some(output),
            })),
            None => (name == "environment").then_some(Root::Value(&self.environment)),
        }
    }
}

impl Graph {
    fn new(document: &Node) -> Self {
        let environment = document.get("environment");
        Self {
            environment: environment.map_or(json!({}), Node::to_json),
            environment_type: environment.map_or(Type::of_value(&json!({})), Type::of_node),
            types: BTreeMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// Everything that checking finds, step by step.
    fn analyse(&mut self, document: &Node, source: &Source) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let mut assignments = Assignments::default();
        for step in document
            .get("transformations")
            .and_then(Node::as_list)
            .expect("steps")
        {
            let text = |key: &str| {
                step.get(key)
                    .and_then(Node::as_str)
                    .expect("text")
                    .to_owned()
            };
            let spec = step.get("spec").expect("spec");
            let kind = StepType::load(&text("type")).expect("step type");
            match Document::parse(spec, Some(source)) {
                Err(errors) => found.extend(errors),
                Ok(parsed) => {
                    found.extend(check_document(
                        &kind.spec,
                        spec,
                        &parsed,
                        &*self,
                        Some(source),
                        &mut assignments,
                    ));
                    found.extend(kind.validate_spec.validate_literals(spec, &parsed));
                }
            }
            self.types.insert(text("id"), kind);
        }
        found
    }

    fn run(&mut self, document: &Node) -> Result<(), String> {
        for step in document
            .get("transformations")
            .and_then(Node::as_list)
            .expect("steps")
        {
            let text = |key: &str| {
                step.get(key)
                    .and_then(Node::as_str)
                    .expect("text")
                    .to_owned()
            };
            let spec = step.get("spec").expect("spec");
            let kind = &self.types[&text("id")];
            let parsed = Document::parse(spec, None).expect("parsed before");
            let spec = parsed
                .evaluate(spec, &kind.spec, &*self)
                .map_err(|error| error.to_string())?;
            if let Some(finding) = kind.validate_spec.validate_value(&spec).first() {
                return Err(format!("{finding:?}"));
            }
            let output = mock_output(&text("type"), &spec);
            if let Some(finding) = kind.validate_output.validate_value(&output).first() {
                return Err(format!("{finding:?}"));
            }
            self.values.insert(text("id"), (text("type"), spec, output));
        }
        Ok(())
    }
}

fn mock_output(kind: &str, spec: &Json) -> Json {
    let object = &spec["object"];
    match kind {
        "MockGetObjectTransformer/v1alpha1" => {
            json!({"object": {"name": spec["name"], "version": spec["version"], "content": "by get"}})
        }
        "MockCustomSchemaObjectTransformer/v1alpha1" => {
            let mut output = json!({"stringWithPattern": object["stringWithPattern"],
                "oneOfStringNumberOrNull": "by custom"});
            if let Some(value) = object.get("oneOfStringOrNull") {
                output["oneOfStringOrNull"] = value.clone();
            }
            json!({"object": output})
        }
        _ => json!({"object": object}),
    }
}

#[test]
fn the_reference_engine_s_cases_come_out_the_same() {
    let Some(text) = vector("transform/engine-cases.yaml") else {
        return;
    };
    let (_, cases) = read(&text);
    let cases = cases.as_list().expect("cases");
    assert_eq!(cases.len(), 21);
    for case in cases {
        let text = |key: &str| case.get(key).and_then(Node::as_str);
        let name = text("name").expect("name");
        let (source, document) = read(text("spec").expect("spec"));
        let mut graph = Graph::new(&document);
        let found = graph.analyse(&document, &source);
        let expected = text("static") == Some("ok");
        assert_eq!(found.is_empty(), expected, "{name}: {found:?}");
        if let Some(expected) = text("runtime") {
            let result = graph.run(&document);
            assert_eq!(result.is_ok(), expected == "ok", "{name}: {result:?}");
        }
    }
}

#[test]
fn graphs_of_the_go_tool_are_well_typed() {
    for file in ["a-local-blob", "b-streamed-image", "c-helm-chart"] {
        let Some(text) = vector(&format!("transform/go-graphs/{file}.yaml")) else {
            return;
        };
        let (source, document) = read(&text);
        let found = Graph::new(&document).analyse(&document, &source);
        assert_eq!(render(&source, &found), "", "{file}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_expression_has_a_type_or_errors(text in expression_text()) {
        let names = ["doc", "list", "n", "x"].map(|name| (name.to_owned(), Type::of_value(&json!(super::documents()[if name == "x" { "items" } else { name }]))));
        let scope = BTreeMap::from(names);
        if let Ok(expression) = Expression::parse(&text)
            && let Err(errors) = expression.infer(&scope)
        {
            for error in errors {
                prop_assert!(text.get(error.at.clone()).is_some(), "{}: {:?}", text, error);
            }
        }
    }

    #[test]
    fn a_wrong_path_of_a_constant_has_no_value(text in "(doc|list|items|n)(\\.(name|labels|access|nope)|\\[[0-3]\\]|\\['(name|x)'\\]|\\.\\?(name|nope)){0,4}") {
        let documents = super::documents();
        let scope: BTreeMap<String, Type> = documents.iter().map(|(name, value)| (name.clone(), Type::of_value(value))).collect();
        let expression = Expression::parse(&text).expect("path");
        if expression.infer(&scope).is_err() {
            prop_assert!(expression.evaluate(&documents).is_err(), "{}", text);
        }
    }
}
