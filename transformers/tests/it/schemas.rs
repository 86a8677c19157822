//! Our step types take and give what the reference's JSON Schemas say.

use std::collections::BTreeSet;
use std::path::Path;

use ocm_transformers::step_types;
use serde_json::Value;

use crate::support::vector_path;

/// Folders of schemas of steps; those of mocks and of configuration are no steps.
const FOLDERS: [&str; 5] = ["oci", "helm", "github", "wget", "transfer"];
/// Step types that the reference has.
const STEPS: usize = 16;
/// Deepest nesting that is compared.
const DEPTH: usize = 6;

/// A schema and the document whose definitions it may refer to.
#[derive(Clone, Copy)]
struct Schema<'a> {
    root: &'a Value,
    node: &'a Value,
}

impl<'a> Schema<'a> {
    fn new(root: &'a Value) -> Self {
        Self { root, node: root }
    }

    /// The schema behind references and behind `null or …`.
    fn resolved(self) -> Self {
        let mut schema = self;
        loop {
            let node = schema.node;
            let branches = ["anyOf", "oneOf"]
                .iter()
                .find_map(|name| node.get(name)?.as_array());
            let branch = branches.and_then(|branches| {
                let mut real = branches.iter().filter(|branch| branch["type"] != "null");
                let first = real.next()?;
                real.next().is_none().then_some(first)
            });
            let next = match (node.get("$ref").and_then(Value::as_str), branch) {
                (Some(reference), _) => {
                    let pointer = reference.strip_prefix('#').expect("a local reference");
                    self.root.pointer(pointer).expect(reference)
                }
                (None, Some(branch)) => branch,
                (None, None) => return schema,
            };
            schema.node = next;
            // A schema with definitions of its own, as a document within a document.
            if next.get("$defs").is_some() {
                schema.root = next;
            }
        }
    }

    /// The types of values; empty where any will do.
    fn types(self) -> BTreeSet<&'a str> {
        let node = self.resolved().node;
        let mut types: BTreeSet<&str> = match &node["type"] {
            Value::String(one) => BTreeSet::from([one.as_str()]),
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => BTreeSet::new(),
        };
        types.remove("null");
        if types.is_empty() {
            // Lists of constants, as both sides write enumerations.
            let constants = node["oneOf"].as_array().into_iter().flatten();
            let constants = constants.chain(node["enum"].as_array().into_iter().flatten());
            if constants.clone().next().is_some() {
                types.insert("string");
            }
        }
        types
    }

    fn fields(self) -> BTreeSet<&'a str> {
        let fields = self.resolved().node["properties"].as_object();
        fields
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn required(self) -> BTreeSet<&'a str> {
        let required = self.resolved().node["required"].as_array();
        required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    fn field(self, name: &str) -> Option<Self> {
        let resolved = self.resolved();
        let node = resolved.node.get("properties")?.get(name)?;
        Some(Self { node, ..resolved })
    }

    fn items(self) -> Option<Self> {
        let resolved = self.resolved();
        Some(Self {
            node: resolved.node.get("items")?,
            ..resolved
        })
    }

    /// May there be fields that it does not name?
    fn is_open(self) -> bool {
        self.resolved().node["additionalProperties"] != Value::Bool(false)
    }
}

/// Ours must take (and give) whatever theirs allows.
fn compare(at: &str, ours: Schema<'_>, theirs: Schema<'_>, depth: usize, wrong: &mut Vec<String>) {
    let (own, wanted) = (ours.types(), theirs.types());
    if !own.is_empty() && !wanted.is_subset(&own) {
        wrong.push(format!("{at}: type {own:?}, the reference has {wanted:?}"));
        return;
    }
    if !ours.required().is_subset(&theirs.required()) {
        let (own, wanted) = (ours.required(), theirs.required());
        wrong.push(format!("{at}: requires {own:?}, the reference {wanted:?}"));
    }
    if depth == 0 {
        return;
    }
    for name in theirs.fields() {
        let theirs = theirs.field(name).expect("it is listed");
        let at = format!("{at}.{name}");
        match ours.field(name) {
            Some(ours) => compare(&at, ours, theirs, depth - 1, wrong),
            None if ours.is_open() => {}
            None => wrong.push(format!("{at}: missing")),
        }
    }
    if let (Some(ours), Some(theirs)) = (ours.items(), theirs.items()) {
        compare(&format!("{at}[]"), ours, theirs, depth - 1, wrong);
    }
}

/// Inputs that our steps take besides the reference's. None is required: what the Go CLI prints runs as it is.
const OWN_INPUTS: [(&str, &str); 4] = [
    ("CTFAddComponentVersion/v1alpha1 spec", "conflictPolicy"),
    ("CTFAddComponentVersion/v1alpha1 spec", "onBrokenSignature"),
    ("OCIAddComponentVersion/v1alpha1 spec", "conflictPolicy"),
    ("OCIAddComponentVersion/v1alpha1 spec", "onBrokenSignature"),
];

/// The fields of inputs and outputs are the same, no more (but for [`OWN_INPUTS`]) and no less.
fn compare_exactly(at: &str, ours: &Value, theirs: Schema<'_>, wrong: &mut Vec<String>) {
    let ours = Schema::new(ours);
    let mut shared = ours.fields();
    for (step, field) in OWN_INPUTS {
        if step == at && !shared.remove(field) {
            wrong.push(format!("{at}: there is no {field} to leave out"));
        }
    }
    if shared != theirs.fields() {
        let (own, wanted) = (shared, theirs.fields());
        wrong.push(format!("{at}: has {own:?}, the reference {wanted:?}"));
    }
    if ours.required() != theirs.required() {
        let (own, wanted) = (ours.required(), theirs.required());
        wrong.push(format!("{at}: requires {own:?}, the reference {wanted:?}"));
    }
    if ours.is_open() && !ours.fields().is_empty() && at.ends_with("spec") {
        wrong.push(format!("{at}: takes fields that it does not know"));
    }
    compare(at, ours, theirs, DEPTH, wrong);
}

/// The type that a step's schema is about.
fn step_type(schema: &Value) -> Option<String> {
    let constants = schema.pointer("/properties/type/oneOf")?.as_array()?;
    schema.pointer("/properties/spec")?;
    let constant = constants
        .iter()
        .find_map(|constant| constant["const"].as_str())?;
    Some(constant.to_owned())
}

#[test]
fn steps_take_and_give_what_the_reference_says() {
    let Some(root) = vector_path("transform/schemas") else {
        return;
    };
    let types = step_types();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for folder in FOLDERS {
        let folder = std::fs::read_dir(Path::new(&root).join(folder)).expect("a folder");
        for entry in folder {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a file");
            let schema: Value = serde_json::from_str(&text).expect("JSON");
            let Some(name) = step_type(&schema) else {
                continue;
            };
            let Some(ours) = types.get(&name) else {
                wrong.push(format!("there is no {name}"));
                continue;
            };
            let theirs = Schema::new(&schema);
            for (part, own) in [
                ("spec", &ours.info().spec_schema),
                ("output", &ours.info().output_schema),
            ] {
                let theirs = theirs.field(part).expect("a part");
                compare_exactly(&format!("{name} {part}"), own, theirs, &mut wrong);
            }
            seen.insert(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), STEPS, "{seen:?}");
}

#[test]
fn differences_are_found() {
    let json = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let theirs = json(
        r#"{"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}}, "required": ["a"], "additionalProperties": false}"#,
    );
    for (ours, expected) in [
        (theirs.to_string(), ""),
        (
            theirs.to_string().replace("\"a\"", "\"c\""),
            "has {\"b\", \"c\"}",
        ),
        (theirs.to_string().replace("[\"a\"]", "[]"), "requires {}"),
        (
            theirs.to_string().replace("string", "object"),
            "x spec.a: type",
        ),
        (
            theirs.to_string().replace("integer", "boolean"),
            "x spec.b[]: type",
        ),
        (
            theirs.to_string().replace("false", "true"),
            "fields that it does not know",
        ),
    ] {
        let mut wrong = Vec::new();
        compare_exactly("x spec", &json(&ours), Schema::new(&theirs), &mut wrong);
        let wrong = wrong.join("\n");
        assert!(wrong.contains(expected), "{ours}: {wrong}");
        assert_eq!(wrong.is_empty(), expected.is_empty(), "{ours}: {wrong}");
    }
}
