//! A document against a type, before anything runs.
//!
//! *Invariant*: the walk allocates nothing while everything fits, and reports everything that does not, each with its
//! place in the text.

use std::collections::HashMap;
use std::sync::Arc;

use ocm_specs::yaml::{Node, Source, Span, Value};

use super::document::{Branch, Document, Place, span_within};
use super::infer::TypeScope;
use super::scope::did_you_mean;
use super::template::{Placed, Template};
use super::types::{Additional, Mismatch, Object, Type};

/// Findings of one document after which nobody looks further.
const FINDINGS: usize = 1_000;

/// Something wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The place in the text.
    pub span: Span,
    /// The field, as `a.b[0]`, relative to the document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What might help.
    pub hint: Option<String>,
}

/// What is known about which object types fit where: a plan asks the same few questions once per edge.
#[derive(Debug, Default)]
pub struct Assignments {
    known: HashMap<(usize, usize), Known>,
}

#[derive(Debug)]
struct Known {
    /// Keeps both addresses taken for as long as they are keys.
    _types: (Arc<Object>, Arc<Object>),
    result: Result<(), Mismatch>,
}

impl Assignments {
    /// [`Type::assignable`], remembered for pairs of objects.
    pub fn check(&mut self, found: &Type, expected: &Type) -> Result<(), Mismatch> {
        let (Type::Object(from), Type::Object(to)) = (found.resolved(), expected.resolved()) else {
            return found.assignable(expected);
        };
        let key = (Arc::as_ptr(from) as usize, Arc::as_ptr(to) as usize);
        self.known
            .entry(key)
            .or_insert_with(|| Known {
                _types: (Arc::clone(from), Arc::clone(to)),
                result: found.assignable(expected),
            })
            .result
            .clone()
    }
}

/// Checks `node`, whose expressions are `document`, against `ty`.
///
/// Constants are checked for their kind, unknown, missing and wrong fields, and values of enumerations; expressions are
/// typed in `scope` and checked to fit. What schemas demand beyond types is the [`Validator`](super::Validator)'s.
pub fn check_document(
    ty: &Type,
    node: &Node,
    document: &Document,
    scope: &dyn TypeScope,
    source: Option<&Source>,
    assignments: &mut Assignments,
) -> Vec<Diagnostic> {
    let mut check = Check {
        scope,
        source,
        assignments,
        found: Vec::new(),
    };
    check.node(ty, node, &document.0, &Place::root(), true);
    check.found
}

struct Check<'c> {
    scope: &'c dyn TypeScope,
    source: Option<&'c Source>,
    assignments: &'c mut Assignments,
    found: Vec<Diagnostic>,
}

impl Check<'_> {
    fn node(&mut self, ty: &Type, node: &Node, branch: &Branch, place: &Place<'_>, required: bool) {
        if self.found.len() >= FINDINGS {
            return;
        }
        if let Branch::Template(template) = branch {
            return self.template(ty, node, template, place, required);
        }
        match (ty.resolved(), &node.value) {
            (Type::Nullable(_), Value::Null)
            | (Type::Null, Value::Null)
            | (Type::Bool, Value::Bool(_))
            | (Type::Number, Value::Number(_))
            | (Type::String(None), Value::String(_)) => {}
            (Type::Integer, Value::Number(number))
                if !number.is_f64() || number.as_f64().is_some_and(|it| it.fract() == 0.0) => {}
            (Type::Nullable(inner), _) => self.node(inner, node, branch, place, required),
            (Type::String(Some(values)), Value::String(text)) => {
                if !values.iter().any(|value| **value == **text) {
                    let hint = did_you_mean(text, values.iter().map(|value| &**value));
                    let message = format!("expected {ty}, found `{text:.64}`");
                    self.report(node.span, place, message, hint);
                }
            }
            (Type::List(item), Value::List(list)) => {
                for (index, child) in list.iter().enumerate() {
                    let place = place.index(index);
                    self.node(item, child, branch.child(index), &place, true);
                }
            }
            (Type::Map(value), Value::Map(map)) => {
                for (index, (name, member)) in map.iter().enumerate() {
                    let place = place.field(name);
                    self.node(value, &member.node, branch.child(index), &place, true);
                }
            }
            (Type::Object(object), Value::Map(_)) => self.object(object, node, branch, place),
            (Type::Dyn | Type::Union(_), _) => self.children(node, branch, place),
            // A description of a file in place of a handle.
            (Type::Content, Value::Map(_)) => self.children(node, branch, place),
            (expected, _) => {
                let message = format!("expected {expected}, found {}", node.kind());
                self.report(node.span, place, message, quoting(expected, node));
                // What is inside may be wrong in itself.
                self.children(node, branch, place);
            }
        }
    }

    fn object(&mut self, object: &Object, node: &Node, branch: &Branch, place: &Place<'_>) {
        let Some(map) = node.as_map() else { return };
        for (index, (name, member)) in map.iter().enumerate() {
            let child = branch.child(index);
            let inner = place.field(name);
            match (object.fields.get(name.as_str()), &object.additional) {
                (Some(field), _) => {
                    self.node(&field.ty, &member.node, child, &inner, field.required);
                }
                (None, Additional::Typed(ty)) => {
                    self.node(ty, &member.node, child, &inner, true);
                }
                (None, Additional::Open | Additional::Unstated) => {
                    self.node(&Type::Dyn, &member.node, child, &inner, true);
                }
                (None, Additional::Closed) => {
                    let message = format!("unknown field `{name}`");
                    let hint = object.nearest(name).or_else(|| object.listed());
                    self.report(member.key, &inner, message, hint);
                    self.node(&Type::Dyn, &member.node, child, &inner, true);
                }
            }
        }
        for (name, field) in &object.fields {
            if field.required && !map.contains_key(&**name) {
                let message = format!("missing field `{name}`");
                self.report(node.span, place, message, None);
            }
        }
    }

    /// Types the expressions below a node about which nothing is known.
    fn children(&mut self, node: &Node, branch: &Branch, place: &Place<'_>) {
        let Branch::Inner(children) = branch else {
            return;
        };
        for (index, child) in children {
            let index = *index as usize;
            match &node.value {
                Value::List(list) => {
                    if let Some(item) = list.get(index) {
                        self.node(&Type::Dyn, item, child, &place.index(index), true);
                    }
                }
                Value::Map(map) => {
                    if let Some((name, member)) = map.get_index(index) {
                        let place = place.field(name);
                        self.node(&Type::Dyn, &member.node, child, &place, true);
                    }
                }
                _ => {}
            }
        }
    }

    fn template(
        &mut self,
        ty: &Type,
        node: &Node,
        template: &Template,
        place: &Place<'_>,
        required: bool,
    ) {
        match template {
            Template::Literal => {}
            Template::Standalone(placed) => {
                let Some(found) = self.expression(placed, node, place) else {
                    return;
                };
                // Nothing in a field that may be missing leaves the field out.
                if !required && matches!(found.resolved(), Type::Null) {
                    return;
                }
                if let Err(mismatch) = self.assignments.check(&found, ty) {
                    self.mismatch(placed, node, place, &mismatch);
                }
            }
            Template::Mixed(_) => {
                let mut all_known = true;
                for placed in template.expressions() {
                    let found = self.expression(placed, node, place);
                    all_known &= found.is_some();
                    if let Some(found) = found
                        && let Some(message) = unprintable(&found)
                    {
                        let at = placed.within(&(0..placed.expression.to_string().len()));
                        let span = span_within(self.source, node.span, &at);
                        self.report(span, place, message, None);
                    }
                }
                if all_known && let Err(mismatch) = Type::String(None).assignable(ty) {
                    let message = format!("{mismatch} with expressions inside");
                    self.report(node.span, place, message, None);
                }
            }
        }
    }

    fn expression(&mut self, placed: &Placed, node: &Node, place: &Place<'_>) -> Option<Type> {
        match placed.expression.infer(self.scope) {
            Ok(found) => Some(found),
            Err(errors) => {
                for error in errors {
                    let at = placed.within(&error.at);
                    let span = span_within(self.source, node.span, &at);
                    self.report(span, place, error.message, error.hint);
                }
                None
            }
        }
    }

    fn mismatch(&mut self, placed: &Placed, node: &Node, place: &Place<'_>, error: &Mismatch) {
        let end = match &node.value {
            // Without the closing brace.
            Value::String(text) => text.len().saturating_sub(1).max(placed.offset),
            _ => placed.offset,
        };
        let span = span_within(self.source, node.span, &(placed.offset..end));
        self.report(span, place, error.to_string(), error.hint.clone());
    }

    fn report(&mut self, span: Span, place: &Place<'_>, message: String, hint: Option<String>) {
        self.found.push(Diagnostic {
            span,
            path: place.to_string(),
            message,
            hint,
        });
    }
}

/// What to do where quotes, or none, make a value something else.
fn quoting(expected: &Type, node: &Node) -> Option<String> {
    let bare = match expected {
        Type::Nullable(inner) => return quoting(inner.resolved(), node),
        Type::String(_) => {
            let is_scalar = matches!(node.value, Value::Bool(_) | Value::Number(_));
            return is_scalar.then(|| "put it in quotes".to_owned());
        }
        Type::Bool => node.as_str()?.parse::<bool>().is_ok(),
        Type::Integer => node.as_str()?.parse::<i64>().is_ok(),
        Type::Number => node.as_str()?.parse::<f64>().is_ok(),
        _ => false,
    };
    bare.then(|| "leave out the quotes".to_owned())
}

/// Why a value cannot stand within text.
fn unprintable(ty: &Type) -> Option<String> {
    match ty.resolved() {
        Type::Content => Some("content cannot stand within text".to_owned()),
        Type::Opaque(name) => Some(format!("{name} cannot stand within text: use `string`")),
        Type::Optional(inner) | Type::Nullable(inner) => unprintable(inner),
        _ => None,
    }
}
