//! What schemas demand beyond types: patterns, lengths, ranges, alternatives.
//!
//! *Invariant*: a schema is compiled once, its regular expressions run in linear time, and nothing is ever fetched.

use std::sync::{Arc, OnceLock};

use jsonschema::{PatternOptions, ValidationError};
use ocm_specs::yaml::{Node, Span, Value};
use serde_json::Value as Json;
use thiserror::Error;

use super::check::Diagnostic;
use super::document::{Branch, Document};

/// Longest message of a finding, in characters: messages quote values.
const MESSAGE_LIMIT: usize = 300;
/// Most findings per document.
const FINDINGS: usize = 50;

/// A compiled schema.
#[derive(Debug)]
pub struct Validator {
    schema: Arc<Json>,
    compiled: OnceLock<Result<jsonschema::Validator, SchemaError>>,
    /// Does it say anything that the type does not?
    demanding: bool,
}

/// A schema that cannot be compiled.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("schema is not usable: {message}")]
pub struct SchemaError {
    /// What is wrong with it.
    pub message: String,
}

impl Validator {
    /// Compiles a schema (draft 2020-12 unless it says otherwise).
    pub fn new(schema: &Json) -> Result<Self, SchemaError> {
        let validator = Self::of_checked(Arc::new(schema.clone()));
        let compiled = compile(schema)?;
        Ok(Self {
            compiled: OnceLock::from(Ok(compiled)),
            ..validator
        })
    }

    /// For a schema that is known to be one, as those made by code are: it is compiled when something is to be validated
    /// that its type does not cover. What can't be compiled then is a finding about every value.
    pub fn of_checked(schema: Arc<Json>) -> Self {
        Self {
            demanding: is_demanding(&schema),
            compiled: OnceLock::new(),
            schema,
        }
    }

    fn compiled(&self) -> Result<&jsonschema::Validator, Diagnostic> {
        let compiled = self.compiled.get_or_init(|| compile(&self.schema));
        compiled.as_ref().map_err(|error| Diagnostic {
            span: Span::default(),
            path: String::new(),
            message: error.to_string(),
            hint: None,
        })
    }

    /// Checks a document before it is evaluated. Findings at or below an expression are left out, and so are those above
    /// one that might be its fault (a set of alternatives, for example).
    pub fn validate_literals(&self, node: &Node, document: &Document) -> Vec<Diagnostic> {
        if !self.demanding {
            return Vec::new();
        }
        let compiled = match self.compiled() {
            Ok(compiled) => compiled,
            Err(unusable) => return vec![unusable],
        };
        let value = node.to_json();
        if compiled.is_valid(&value) {
            return Vec::new();
        }
        compiled
            .iter_errors(&value)
            .filter_map(|error| {
                let place = error.instance_path().to_string();
                let (branch, found) = locate(&place, node, &document.0)?;
                let blamed = match branch {
                    Branch::Constant => false,
                    Branch::Template(_) => true,
                    Branch::Inner(_) => !is_about_shape(error.kind().keyword()),
                };
                (!blamed).then(|| diagnostic(&error, &place, found.span))
            })
            .take(FINDINGS)
            .collect()
    }

    /// Checks a value at run time; the findings have paths, but no place in a text.
    pub fn validate_value(&self, value: &Json) -> Vec<Diagnostic> {
        let compiled = match self.compiled() {
            Ok(compiled) => compiled,
            Err(unusable) => return vec![unusable],
        };
        if compiled.is_valid(value) {
            return Vec::new();
        }
        compiled
            .iter_errors(value)
            .take(FINDINGS)
            .map(|error| {
                let place = error.instance_path().to_string();
                diagnostic(&error, &place, Span::default())
            })
            .collect()
    }
}

fn compile(schema: &Json) -> Result<jsonschema::Validator, SchemaError> {
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| SchemaError {
        message: shortened(&error.to_string()),
    })
}

fn diagnostic(error: &ValidationError<'_>, pointer: &str, span: Span) -> Diagnostic {
    Diagnostic {
        span,
        path: path_text(pointer),
        message: shortened(&error.to_string()),
        hint: None,
    }
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

/// A JSON pointer as people write paths.
fn path_text(pointer: &str) -> String {
    let mut out = String::new();
    for part in parts(pointer) {
        if part.parse::<u32>().is_ok() {
            out.push_str(&format!("[{part}]"));
        } else if part.contains(['.', '[', ' ']) || part.is_empty() {
            out.push_str(&format!("[{part:?}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&part);
        }
    }
    out
}

fn parts(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
}

/// The node at a JSON pointer, or the template above it.
fn locate<'d>(pointer: &str, node: &'d Node, branch: &'d Branch) -> Option<(&'d Branch, &'d Node)> {
    let (mut node, mut branch) = (node, branch);
    for part in parts(pointer) {
        if matches!(branch, Branch::Template(_)) {
            break;
        }
        let index = match &node.value {
            Value::List(list) => {
                let index: usize = part.parse().ok()?;
                node = list.get(index)?;
                index
            }
            Value::Map(map) => {
                let (index, _, member) = map.get_full(part.as_str())?;
                node = &member.node;
                index
            }
            _ => return None,
        };
        branch = branch.child(index);
    }
    Some((branch, node))
}

/// Keywords whose verdict does not depend on the values of fields.
fn is_about_shape(keyword: &str) -> bool {
    matches!(
        keyword,
        "type"
            | "required"
            | "additionalProperties"
            | "minItems"
            | "maxItems"
            | "minProperties"
            | "maxProperties"
            | "propertyNames"
    )
}

/// Does the schema have a keyword that [`check_document`](super::check_document) does not look at? Formats are
/// annotations, as draft 2020-12 has it and the reference does.
fn is_demanding(schema: &Json) -> bool {
    let Json::Object(map) = schema else {
        return schema == &Json::Bool(false);
    };
    map.iter().any(|(key, value)| match key.as_str() {
        "type"
        | "required"
        | "$ref"
        | "description"
        | "title"
        | "$comment"
        | "$schema"
        | "$id"
        | "deprecated"
        | "examples"
        | "default"
        | "format"
        | super::types::CONTENT_KEYWORD => false,
        "properties" | "$defs" | "definitions" => match value {
            Json::Object(schemas) => schemas.values().any(is_demanding),
            _ => true,
        },
        "items" | "additionalProperties" => match value {
            Json::Bool(_) => false,
            schema => is_demanding(schema),
        },
        "const" => !value.is_string(),
        "enum" => !is_all(value, Json::is_string),
        "oneOf" | "anyOf" => {
            let is_text = |branch: &Json| branch.get("const").is_some_and(Json::is_string);
            !is_all(value, is_text) && !is_nullable(value)
        }
        _ => true,
    })
}

/// Null or one undemanding alternative.
fn is_nullable(branches: &Json) -> bool {
    let null = |branch: &Json| branch.get("type").and_then(Json::as_str) == Some("null");
    match branches.as_array().map(Vec::as_slice) {
        Some([a, b]) => (null(a) && !is_demanding(b)) || (null(b) && !is_demanding(a)),
        _ => false,
    }
}

fn is_all(value: &Json, test: impl Fn(&Json) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(test))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_that_types_cover_cost_nothing() {
        for (schema, demanding) in [
            (
                json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "string"}}}),
                false,
            ),
            (
                json!({"properties": {"pattern": {"type": "string"}}}),
                false,
            ),
            (
                json!({"properties": {"a": {"type": "string", "pattern": "^a$"}}}),
                true,
            ),
            (json!({"items": {"minimum": 1}}), true),
            (
                json!({"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": {"type": "string"}}}),
                false,
            ),
            (json!({"$defs": {"a": {"maxLength": 1}}}), true),
            (
                json!({"oneOf": [{"const": "a", "description": "first"}, {"const": "b"}]}),
                false,
            ),
            (
                json!({"oneOf": [{"type": "string"}, {"type": "integer"}]}),
                true,
            ),
            (json!({"enum": [1, 2]}), true),
            (json!({"type": "string", "format": "date-time"}), false),
        ] {
            assert_eq!(is_demanding(&schema), demanding, "{schema}");
        }
    }
}
