//! What schemas demand beyond types: patterns, lengths, ranges, alternatives.
//!
//! *Invariant*: a schema is compiled once, its regular expressions run in linear time, and nothing is ever fetched.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use jsonschema::{PatternOptions, ValidationError};
use ocm_specs::yaml::{Node, Span, Value};
use serde_json::{Map as JsonMap, Value as Json};
use thiserror::Error;

use super::check::Diagnostic;
use super::document::{Branch, Document};

/// Longest message of a finding, in characters: messages quote values.
const MESSAGE_LIMIT: usize = 300;
/// Largest compiled pattern, in bytes: one that is short to write may be long to compile.
const PATTERN: usize = 512 << 10;
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
        match self.demanding && Concerns::any(&self.schema, node, &document.0) {
            true => self.literal_findings(node, document),
            false => Vec::new(),
        }
    }

    fn literal_findings(&self, node: &Node, document: &Document) -> Vec<Diagnostic> {
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
    let patterns = PatternOptions::regex().size_limit(PATTERN);
    let options = jsonschema::options().with_pattern_options(patterns);
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

/// Deepest chain of references and fields that is followed, and most places that are looked at in a document; what lies
/// beyond is taken for a demand.
const DEPTH: usize = 64;
const PLACES: usize = 10_000;

/// What a keyword means to somebody who looks for more than [`check_document`](super::check_document) looks at.
enum Keyword<'s> {
    /// Nothing: the type has it, or it is an annotation. Formats are annotations, as draft 2020-12 has it and the
    /// reference does.
    Covered,
    /// Schemas of fields, by name.
    Fields(&'s JsonMap<String, Json>),
    /// The schema of every element or field.
    Each(&'s Json),
    /// The schema of the value, if that is not null.
    Unless(&'s Json),
    /// The schema of the value stands elsewhere.
    Elsewhere(&'s str),
    /// Schemas for those who refer to them.
    Definitions(&'s JsonMap<String, Json>),
    /// More than a type says.
    Demand,
}

impl<'s> Keyword<'s> {
    fn of(key: &str, value: &'s Json) -> Self {
        let covered_if = |covered| match covered {
            true => Self::Covered,
            false => Self::Demand,
        };
        match (key, value) {
            (
                "type"
                | "required"
                | "description"
                | "title"
                | "$comment"
                | "$schema"
                | "$id"
                | "deprecated"
                | "examples"
                | "default"
                | "format"
                | super::types::CONTENT_KEYWORD,
                _,
            ) => Self::Covered,
            ("$ref", Json::String(target)) => Self::Elsewhere(target),
            ("properties", Json::Object(fields)) => Self::Fields(fields),
            ("$defs" | "definitions", Json::Object(schemas)) => Self::Definitions(schemas),
            ("items" | "additionalProperties", Json::Bool(_)) => Self::Covered,
            ("items" | "additionalProperties", schema) => Self::Each(schema),
            ("const", value) => covered_if(value.is_string()),
            ("enum", values) => covered_if(is_all(values, Json::is_string)),
            ("oneOf" | "anyOf", branches) => {
                let is_text = |branch: &Json| branch.get("const").is_some_and(Json::is_string);
                match optional(branches) {
                    Some(schema) => Self::Unless(schema),
                    None => covered_if(is_all(branches, is_text)),
                }
            }
            _ => Self::Demand,
        }
    }

    fn all(schema: &'s Json) -> Option<impl Iterator<Item = Self>> {
        let map = schema.as_object()?;
        Some(map.iter().map(|(key, value)| Self::of(key, value)))
    }
}

/// Does the schema demand anything of any value that types do not?
fn is_demanding(schema: &Json) -> bool {
    let Some(mut keywords) = Keyword::all(schema) else {
        return schema == &Json::Bool(false);
    };
    keywords.any(|keyword| match keyword {
        Keyword::Covered | Keyword::Elsewhere(_) => false,
        Keyword::Fields(schemas) | Keyword::Definitions(schemas) => {
            schemas.values().any(is_demanding)
        }
        Keyword::Each(schema) | Keyword::Unless(schema) => is_demanding(schema),
        Keyword::Demand => true,
    })
}

/// Looks whether a schema demands anything of what is given as a constant in a document. Most demands are about fields
/// that are left out, or come from other steps.
struct Concerns<'s> {
    root: &'s Json,
    /// Places that may still be looked at: references can multiply them.
    left: Cell<usize>,
}

impl<'s> Concerns<'s> {
    fn any(root: &'s Json, node: &Node, branch: &Branch) -> bool {
        let left = Cell::new(PLACES);
        Self { root, left }.at(root, node, branch, DEPTH)
    }

    fn at(&self, schema: &'s Json, node: &Node, branch: &Branch, depth: usize) -> bool {
        if matches!(branch, Branch::Template(_)) {
            return false;
        }
        let Some(mut keywords) = Keyword::all(schema) else {
            return schema == &Json::Bool(false);
        };
        let left = self.left.get().checked_sub(1);
        let (Some(left), Some(depth)) = (left, depth.checked_sub(1)) else {
            return true;
        };
        self.left.set(left);
        let here = |schema| self.at(schema, node, branch, depth);
        let child = |schema, index, node| self.at(schema, node, branch.child(index), depth);
        keywords.any(|keyword| match keyword {
            Keyword::Covered | Keyword::Definitions(_) => false,
            Keyword::Demand => true,
            Keyword::Unless(schema) => here(schema),
            Keyword::Elsewhere(target) => {
                let target = target
                    .strip_prefix('#')
                    .and_then(|at| self.root.pointer(at));
                target.is_none_or(here)
            }
            Keyword::Fields(schemas) => schemas.iter().any(|(name, schema)| {
                let member = node.as_map().and_then(|map| map.get_full(name.as_str()));
                member.is_some_and(|(index, _, member)| child(schema, index, &member.node))
            }),
            Keyword::Each(schema) => match &node.value {
                Value::List(list) => {
                    let mut items = list.iter().enumerate();
                    items.any(|(index, item)| child(schema, index, item))
                }
                Value::Map(map) => {
                    let mut members = map.values().enumerate();
                    members.any(|(index, member)| child(schema, index, &member.node))
                }
                _ => false,
            },
        })
    }
}

/// The other one of two alternatives of which one is null.
fn optional(branches: &Json) -> Option<&Json> {
    let null = |branch: &Json| branch.get("type").and_then(Json::as_str) == Some("null");
    match branches.as_array()?.as_slice() {
        [other, branch] | [branch, other] if null(branch) => Some(other),
        _ => None,
    }
}

fn is_all(value: &Json, test: impl Fn(&Json) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(test))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocm_specs::yaml::{LoadOptions, Source, load};
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

    #[test]
    fn what_is_not_given_is_not_checked() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "plain": {"type": "string"},
                "layer": {"anyOf": [{"$ref": "#/$defs/Layer"}, {"type": "null"}]},
                "layers": {"type": "array", "items": {"$ref": "#/$defs/Layer"}},
                "named": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Layer"}},
                "either": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
                "below": {"$ref": "#/$defs/Tree"},
                "lost": {"$ref": "#/$defs/Lost"},
            },
            "$defs": {
                "Layer": {"type": "object", "properties": {"index": {"minimum": 0}, "type": {"type": "string"}}},
                "Tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Tree"}, "size": {"maximum": 9}}},
                "Lost": {"$ref": "#/nowhere"},
            },
        });
        for (text, expected) in [
            ("{}", false),
            ("{plain: text}", false),
            ("{other: text}", false),
            ("{name: text}", true),
            ("{name: '${a.b}'}", false),
            ("{name: 'x${a.b}'}", false),
            ("{layer: null}", false),
            ("{layer: {type: text}}", false),
            ("{layer: {index: '${a.b}'}}", false),
            ("{layer: {index: 1}}", true),
            ("{layers: [{type: text}, {type: '${a.b}', index: 0}]}", true),
            ("{layers: [{type: text}, '${a.b}']}", false),
            ("{named: {a: {type: text}, b: {index: 1}}}", true),
            ("{named: {a: {type: text}, b: '${a.b}'}}", false),
            ("{either: '${a.b}'}", false),
            ("{either: {c: '${a.b}'}}", true),
            ("{below: {next: {next: {}}}}", false),
            ("{below: {next: {next: {size: 1}}}}", true),
            ("{lost: text}", true),
            ("{lost: '${a.b}'}", false),
        ] {
            let node = load(&Source::new("spec", text), &LoadOptions::default()).unwrap();
            let document = Document::parse(&node, None).unwrap();
            let found = Concerns::any(&schema, &node, &document.0);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn looking_for_demands_has_an_end() {
        let itself = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}});
        // Two ways from each to the next: 2^50 ways to the last.
        let link = |next: usize| {
            let next = json!({"$ref": format!("#/$defs/{next}")});
            json!({"$ref": next["$ref"], "anyOf": [next, {"type": "null"}]})
        };
        let mut ladder: JsonMap<String, Json> =
            (0..50).map(|at| (at.to_string(), link(at + 1))).collect();
        ladder.insert("50".into(), json!({}));
        let ladder = json!({"$ref": "#/$defs/0", "$defs": ladder});
        let node = Node::from_json(&json!({}), Span::default());
        for schema in [itself, ladder] {
            assert!(Concerns::any(&schema, &node, &Branch::Constant));
        }
    }
}
