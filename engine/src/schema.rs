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
            "transformations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {
                        "type": {"enum": names},
                        "id": {"type": "string", "pattern": "^[a-z][a-zA-Z0-9]*$"},
                        "label": {"type": "string"},
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

fn definition(info: &StepTypeInfo) -> String {
    info.name.replace('/', ".")
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
    let mut out = JsonMap::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("$schema", _) => continue,
            ("$ref", Json::String(target)) => {
                Json::String(target.replacen("#/", &format!("#/$defs/{name}/"), 1))
            }
            ("properties" | "patternProperties", Json::Object(fields)) => fields
                .iter()
                .map(|(field, schema)| (field.clone(), or_expression(embed(schema, name, false))))
                .collect::<JsonMap<_, _>>()
                .into(),
            ("$defs", Json::Object(fields)) => fields
                .iter()
                .map(|(field, schema)| (field.clone(), embed(schema, name, false)))
                .collect::<JsonMap<_, _>>()
                .into(),
            ("items" | "additionalProperties", Json::Object(_)) => {
                or_expression(embed(value, name, false))
            }
            ("anyOf" | "oneOf" | "allOf", Json::Array(branches)) => Json::Array(
                branches
                    .iter()
                    .map(|branch| embed(branch, name, false))
                    .collect(),
            ),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if top {
        out.remove("title");
    }
    Json::Object(out)
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
