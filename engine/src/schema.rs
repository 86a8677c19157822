//! The JSON Schema of a whole transfer spec, for editors.

use serde_json::{Map as JsonMap, Value as Json, json};

use crate::step_types::{StepTypeInfo, StepTypes};

/// Where the schema says it is from.
const ID: &str = "https://ocm.software/schemas/transfer-spec/v1alpha1";

/// A JSON Schema (2020-12) of the native form: one branch per step type, each field open to an expression.
pub fn spec_schema(types: &StepTypes) -> Json {
    let infos: Vec<&StepTypeInfo> = types.iter().map(|step_type| step_type.info()).collect();
    let mut definitions = JsonMap::new();
    definitions.insert(
        "expression".into(),
        json!({"type": "string", "pattern": "\\$\\{"}),
    );
    for info in &infos {
        definitions.insert(
            definition(info),
            embed(&info.spec_schema, &definition(info), true),
        );
    }
    let branches: Vec<Json> = infos.iter().map(|info| branch(info)).collect();
    let names: Vec<&str> = types.names().collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "Transfer spec",
        "type": "object",
        "required": ["transformations"],
        "properties": {
            "type": {"type": "string"},
            "environment": {
                "type": ["object", "null"],
                "description": "Constants that expressions use as `environment`.",
            },
            "plugins": {
                "type": "array",
                "description": "Step types in WebAssembly that the steps use.",
                "items": plugin(),
            },
            "transformations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {
                        "type": {"enum": names},
                        "id": {"type": "string", "pattern": "^[a-z][a-zA-Z0-9]*$"},
                        "label": {"type": "string"},
                        "labels": true,
                        "output": true,
                        "outputs": true,
                        "dependsOn": {"type": "array", "items": {"type": "string"}},
                        "spec": {"type": "object"},
                    },
                    "additionalProperties": false,
                    "allOf": branches,
                },
            },
        },
        "$defs": definitions,
    })
}

/// An entry of the list of plugins, as `ocm_specs::transfer` reads it.
fn plugin() -> Json {
    json!({
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "description": "How the plugin calls itself."},
            "source": {
                "type": "string",
                "description": "A file, `oci://REGISTRY/REPO:TAG` or `ocm://REPOSITORY//COMPONENT:VERSION?resource=NAME`.",
            },
            "digest": {
                "type": "string",
                "pattern": "^[a-z0-9]+:[0-9a-f]+$",
                "description": "What the component's bytes hash to; `ocm plugin lock` writes it.",
            },
            "signature": {
                "type": "string",
                "description": "A signature that the component version it comes from must have.",
            },
            "rights": {
                "type": "object",
                "additionalProperties": false,
                "description": "What it may do at most; the user has to allow it besides.",
                "properties": {
                    "http": {"type": "array", "items": {"type": "string"}},
                    "clock": {"type": "boolean"},
                    "random": {"type": "boolean"},
                },
            },
            "config": {"type": "object", "description": "Its configuration."},
        },
    })
}

/// The name of a type's definition, the same in a pointer and in a URI: without `/`, `~` and `%`.
fn definition(info: &StepTypeInfo) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let escape = |c: char| match c {
        '/' => ".".to_owned(),
        c if plain(c) || c == '.' => c.to_string(),
        c => format!("_{:x}_", u32::from(c)),
    };
    info.name.chars().map(escape).collect()
}

fn branch(info: &StepTypeInfo) -> Json {
    let names: Vec<&String> = std::iter::once(&info.name).chain(&info.aliases).collect();
    json!({
        "if": {"properties": {"type": {"enum": names}}, "required": ["type"]},
        "then": {
            "description": info.summary,
            "properties": {"spec": {"$ref": format!("#/$defs/{}", definition(info))}},
        },
    })
}

/// A type's own schema as a part of the whole: its references lead into its definition, and whatever stands in a field
/// may be an expression instead.
fn embed(schema: &Json, name: &str, top: bool) -> Json {
    let Json::Object(map) = schema else {
        return schema.clone();
    };
    let part = |schema: &Json| embed(schema, name, false);
    let field = |schema: &Json| or_expression(part(schema));
    let mut out = JsonMap::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            // An identity would move what references are relative to.
            ("$schema" | "$id" | "$anchor" | "$dynamicAnchor" | "$dynamicRef", _) => continue,
            ("$ref", Json::String(target)) => match embedded(target, name) {
                Some(target) => Json::String(target),
                // Nothing is fetched: what is elsewhere may be anything.
                None => continue,
            },
            ("properties" | "patternProperties", Json::Object(fields)) => each(fields, field),
            ("$defs" | "definitions" | "dependentSchemas", Json::Object(parts)) => {
                each(parts, part)
            }
            ("items" | "additionalProperties" | "unevaluatedProperties", Json::Object(_)) => {
                field(value)
            }
            ("prefixItems", Json::Array(items)) => items.iter().map(field).collect(),
            ("if" | "then" | "else", _) => part(value),
            ("allOf" | "anyOf", Json::Array(branches)) => branches.iter().map(part).collect(),
            // An expression may fit several branches.
            ("oneOf", Json::Array(branches)) if !map.contains_key("anyOf") => {
                out.insert("anyOf".to_owned(), branches.iter().map(part).collect());
                continue;
            }
            ("oneOf", Json::Array(_)) => continue,
            // What must not be cannot be told of an expression.
            ("not" | "contains" | "minContains" | "maxContains" | "uniqueItems", _) => continue,
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if top {
        out.remove("title");
    }
    Json::Object(out)
}

fn each(schemas: &JsonMap<String, Json>, change: impl Fn(&Json) -> Json) -> Json {
    let changed = schemas
        .iter()
        .map(|(name, schema)| (name.clone(), change(schema)));
    Json::Object(changed.collect())
}

/// Where a reference within a type's schema leads in the whole.
fn embedded(target: &str, name: &str) -> Option<String> {
    let pointer = target.strip_prefix('#')?;
    (pointer.is_empty() || pointer.starts_with('/')).then(|| format!("#/$defs/{name}{pointer}"))
}

fn or_expression(schema: Json) -> Json {
    let plain_text = schema.get("type") == Some(&json!("string"))
        && schema.get("enum").is_none()
        && schema.get("pattern").is_none()
        && schema.get("const").is_none();
    if plain_text || schema.as_object().is_some_and(JsonMap::is_empty) {
        return schema;
    }
    json!({"anyOf": [{"$ref": "#/$defs/expression"}, schema]})
}
