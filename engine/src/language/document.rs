//! Documents with expressions inside: a step's spec.
//!
//! *Invariant*: only what has expressions below it is stored; the document itself stays where it is and is handed in
//! again for evaluation. Keys are never scanned (transformation.md 2.2).

use ocm_specs::yaml::{Node, Source, Span, Value, offset_in_scalar};
use serde_json::Value as Json;
use thiserror::Error;

use super::check::Diagnostic;
use super::expression::{Edit, Expression, splice};
use super::scope::{EvalError, Scope};
use super::template::{Placed, Template};
use super::types::{Additional, Type};

/// The expressions of one document.
#[derive(Clone, Debug, Default)]
pub struct Document(pub(super) Branch);

/// A document and what is to be said about its expressions.
#[derive(Debug, Default)]
pub struct Reading {
    /// The expressions.
    pub document: Document,
    /// What is wrong with those that are not in the document.
    pub errors: Vec<Diagnostic>,
    /// Text that looks like an expression and is none: `${` without an end (transformation.md 2.2).
    pub unclosed: Vec<Diagnostic>,
}

/// What there is below a node, by the index of the child.
#[derive(Clone, Debug, Default)]
pub(super) enum Branch {
    /// No expression.
    #[default]
    Constant,
    /// The node is a string with expressions.
    Template(Box<Template>),
    /// Some children of the list or map have expressions, in their order.
    Inner(Box<[(u32, Branch)]>),
}

/// A string with expressions and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Site<'d> {
    /// The string.
    pub node: &'d Node,
    /// Its expressions.
    pub template: &'d Template,
}

impl Site<'_> {
    /// The place in the text of a byte range of one of the expressions; that of the whole string where it is not known.
    pub fn place(
        &self,
        source: Option<&Source>,
        placed: &Placed,
        at: &std::ops::Range<usize>,
    ) -> Span {
        span_within(source, self.node.span, &placed.within(at))
    }
}

/// Why a document has no value.
#[derive(Clone, Debug, Error)]
#[error("{path}: {error}")]
pub struct DocumentError {
    /// The field, as `a.b[0]`.
    pub path: String,
    /// The string in which the expression stands.
    pub span: Span,
    /// What went wrong; its range is relative to the string.
    pub error: EvalError,
}

impl Document {
    /// Finds and parses every expression in the string values of `node`. All syntax errors are reported.
    pub fn parse(node: &Node, source: Option<&Source>) -> Result<Self, Vec<Diagnostic>> {
        let reading = Self::read(node, source);
        if reading.errors.is_empty() {
            Ok(reading.document)
        } else {
            Err(reading.errors)
        }
    }

    /// [`Document::parse`] that goes on after errors: a string with a broken expression is one that may give anything, so
    /// that a check of the rest says nothing about it.
    pub fn read(node: &Node, source: Option<&Source>) -> Reading {
        let mut reading = Reading::default();
        reading.document.0 = parse(node, &Place::root(), source, &mut reading);
        reading
    }

    /// Applies the edits that `edits` asks for, expression by expression, to the strings of `node`, from which this was
    /// parsed, and parses them again. Ranges are those of the expressions.
    ///
    /// # Errors
    /// A string that is no template any more, such as one that has become too long. It stays as it was.
    pub fn rewrite(
        &mut self,
        node: &mut Node,
        edits: &mut dyn FnMut(&Expression) -> Vec<Edit>,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        rewrite(&mut self.0, node, &Place::root(), edits, &mut errors);
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// The document as JSON with the edits that `edits` asks for, which need not leave any expression intact.
    pub fn edited(&self, node: &Node, edits: &mut dyn FnMut(&Expression) -> Vec<Edit>) -> Json {
        edited(&self.0, node, edits)
    }

    /// The type of a field of the map `node`, as far as constants tell it; what an expression gives is not known.
    pub fn type_of_field(&self, node: &Node, field: &str) -> Option<Type> {
        let (index, _, member) = node.as_map()?.get_full(field)?;
        Some(known_type(self.0.child(index), &member.node))
    }

    /// Are there no expressions at all?
    pub fn is_constant(&self) -> bool {
        matches!(self.0, Branch::Constant)
    }

    /// Calls `visit` for every string with expressions, in document order. `node` is what this was parsed from.
    pub fn visit<'d>(&'d self, node: &'d Node, visit: &mut dyn FnMut(Site<'d>)) {
        walk(&self.0, node, visit);
    }

    /// [`Document::visit`] for the field `field` of the map `node` alone.
    pub fn visit_field<'d>(&'d self, node: &'d Node, field: &str, visit: &mut dyn FnMut(Site<'d>)) {
        if let Some((index, _, member)) = node.as_map().and_then(|map| map.get_full(field)) {
            walk(self.0.child(index), &member.node, visit);
        }
    }

    /// The template at `path` (keys of maps), if the field there has expressions.
    pub fn template_at<'d>(&'d self, node: &'d Node, path: &[&str]) -> Option<&'d Template> {
        let (mut branch, mut node) = (&self.0, node);
        for name in path {
            let (index, _, member) = node.as_map()?.get_full(*name)?;
            node = &member.node;
            branch = branch.child(index);
        }
        match branch {
            Branch::Template(template) => Some(template),
            _ => None,
        }
    }

    /// The value of the document. `ty` decides what null from an expression means: a field that is not required is left
    /// out, as in the reference; anything else stays null.
    pub fn evaluate(
        &self,
        node: &Node,
        ty: &Type,
        scope: &dyn Scope,
    ) -> Result<Json, Box<DocumentError>> {
        evaluate(&self.0, node, ty, scope, &Place::root())
    }
}

impl Branch {
    pub(super) fn child(&self, index: usize) -> &Self {
        const NOTHING: &Branch = &Branch::Constant;
        match self {
            Self::Inner(children) => children
                .binary_search_by_key(&index, |(at, _)| *at as usize)
                .map_or(NOTHING, |found| &children[found].1),
            _ => NOTHING,
        }
    }
}

/// Where a node is, as a list that lives on the stack: no allocation until someone wants to read it.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    part: Part<'p>,
}

#[derive(Clone, Copy)]
enum Part<'p> {
    Root,
    Field(&'p str),
    Index(usize),
}

impl<'p> Place<'p> {
    pub(super) fn root() -> Self {
        Self {
            parent: None,
            part: Part::Root,
        }
    }

    pub(super) fn field(&'p self, name: &'p str) -> Self {
        Self {
            parent: Some(self),
            part: Part::Field(name),
        }
    }

    pub(super) fn index(&'p self, index: usize) -> Self {
        Self {
            parent: Some(self),
            part: Part::Index(index),
        }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        match self.part {
            Part::Root => Ok(()),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Field(name) if name.is_empty() || name.contains(['.', '[', ' ']) => {
                write!(f, "[{name:?}]")
            }
            Part::Field(name) if parent.parent.is_none() => f.write_str(name),
            Part::Field(name) => write!(f, ".{name}"),
        }
    }
}

/// The place in the text of a byte range of a scalar's value; the whole scalar where that is not known.
pub(super) fn span_within(
    source: Option<&Source>,
    span: Span,
    at: &std::ops::Range<usize>,
) -> Span {
    let Some(source) = source else { return span };
    match (
        offset_in_scalar(source, span, at.start),
        offset_in_scalar(source, span, at.end),
    ) {
        (Some(start), Some(end)) => Span { start, end },
        _ => span,
    }
}

fn parse(node: &Node, place: &Place<'_>, source: Option<&Source>, reading: &mut Reading) -> Branch {
    let mut children = Vec::new();
    let mut keep = |index: usize, branch: Branch| {
        if !matches!(branch, Branch::Constant) {
            children.push((index as u32, branch));
        }
    };
    match &node.value {
        Value::String(text) => {
            let parsed = Template::parse(text);
            if let Ok(template) = &parsed
                && let Some(at) = template.unclosed(text)
            {
                reading.unclosed.push(Diagnostic {
                    span: span_within(source, node.span, &(at..text.len())),
                    path: place.to_string(),
                    message: "`${` is not closed: it is taken as plain text".to_owned(),
                    hint: Some(
                        "close it with `}`; put the value in quotes if YAML ends it early"
                            .to_owned(),
                    ),
                });
            }
            return match parsed {
                Ok(Template::Literal) => Branch::Constant,
                Ok(template) => Branch::Template(Box::new(template)),
                Err(error) => {
                    reading.errors.push(Diagnostic {
                        span: span_within(source, node.span, &(error.offset..error.offset)),
                        path: place.to_string(),
                        hint: advice(text, error.offset, &error.message),
                        message: error.message,
                    });
                    Branch::Template(Box::new(Template::Literal))
                }
            };
        }
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                keep(index, parse(item, &place.index(index), source, reading));
            }
        }
        Value::Map(map) => {
            for (index, (name, member)) in map.iter().enumerate() {
                let place = place.field(name);
                keep(index, parse(&member.node, &place, source, reading));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    if children.is_empty() {
        Branch::Constant
    } else {
        Branch::Inner(children.into())
    }
}

/// What to do about a broken template, where more can be said than what is wrong.
fn advice(text: &str, offset: usize, message: &str) -> Option<String> {
    let rest = text.get(offset..).unwrap_or_default();
    if message.starts_with("string literal") {
        let quote = rest.chars().next()?;
        return Some(format!("close it with `{quote}`"));
    }
    if message.starts_with("expression is not closed") {
        return Some("close it with `}`; put the value in quotes if YAML ends it early".to_owned());
    }
    rest.starts_with("${").then(|| {
        "close the first one with `}`, or leave out the marks of the second: names need none within an expression"
            .to_owned()
    })
}

fn rewrite(
    branch: &mut Branch,
    node: &mut Node,
    place: &Place<'_>,
    edits: &mut dyn FnMut(&Expression) -> Vec<Edit>,
    errors: &mut Vec<Diagnostic>,
) {
    match (branch, &mut node.value) {
        (Branch::Template(template), Value::String(text)) => {
            let Some(new) = edited_text(text, template, edits) else {
                return;
            };
            match Template::parse(&new) {
                Ok(parsed) => {
                    **template = parsed;
                    *text = new;
                }
                Err(error) => errors.push(Diagnostic {
                    span: node.span,
                    path: place.to_string(),
                    message: error.message,
                    hint: None,
                }),
            }
        }
        (Branch::Inner(children), Value::List(list)) => {
            for (index, child) in children {
                let index = *index as usize;
                if let Some(item) = list.get_mut(index) {
                    rewrite(child, item, &place.index(index), edits, errors);
                }
            }
        }
        (Branch::Inner(children), Value::Map(map)) => {
            for (index, child) in children {
                if let Some((name, member)) = map.get_index_mut(*index as usize) {
                    rewrite(child, &mut member.node, &place.field(name), edits, errors);
                }
            }
        }
        _ => {}
    }
}

/// The string with the edits that its expressions get; `None` if there are none.
fn edited_text(
    text: &str,
    template: &Template,
    edits: &mut dyn FnMut(&Expression) -> Vec<Edit>,
) -> Option<String> {
    let mut all = Vec::new();
    for placed in template.expressions() {
        all.extend(edits(&placed.expression).into_iter().map(|edit| Edit {
            at: placed.within(&edit.at),
            text: edit.text,
        }));
    }
    if all.is_empty() {
        return None;
    }
    splice(text, &all)
}

fn edited(branch: &Branch, node: &Node, edits: &mut dyn FnMut(&Expression) -> Vec<Edit>) -> Json {
    match (branch, &node.value) {
        (Branch::Template(template), Value::String(text)) => {
            let new = edited_text(text, template, edits);
            Json::String(new.unwrap_or_else(|| text.clone()))
        }
        (Branch::Inner(_), Value::List(list)) => list
            .iter()
            .enumerate()
            .map(|(index, item)| edited(branch.child(index), item, edits))
            .collect(),
        (Branch::Inner(_), Value::Map(map)) => map
            .iter()
            .enumerate()
            .map(|(index, (name, member))| {
                let value = edited(branch.child(index), &member.node, edits);
                (name.clone(), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => node.to_json(),
    }
}

fn known_type(branch: &Branch, node: &Node) -> Type {
    match (branch, &node.value) {
        (Branch::Constant, _) => Type::of_node(node),
        (Branch::Template(template), _) => match &**template {
            Template::Mixed(_) => Type::String(None),
            _ => Type::Dyn,
        },
        (Branch::Inner(_), Value::Map(map)) => {
            Type::constant(map.iter().enumerate().map(|(index, (name, member))| {
                (name.as_str(), known_type(branch.child(index), &member.node))
            }))
        }
        (Branch::Inner(_), Value::List(list)) => Type::list_of(
            list.iter()
                .enumerate()
                .map(|(index, item)| known_type(branch.child(index), item)),
        ),
        _ => Type::Dyn,
    }
}

fn walk<'d>(branch: &'d Branch, node: &'d Node, visit: &mut dyn FnMut(Site<'d>)) {
    match (branch, &node.value) {
        (Branch::Template(template), _) => visit(Site { node, template }),
        (Branch::Inner(children), Value::List(list)) => {
            for (index, child) in children {
                if let Some(item) = list.get(*index as usize) {
                    walk(child, item, visit);
                }
            }
        }
        (Branch::Inner(children), Value::Map(map)) => {
            for (index, child) in children {
                if let Some((_, member)) = map.get_index(*index as usize) {
                    walk(child, &member.node, visit);
                }
            }
        }
        _ => {}
    }
}

fn evaluate(
    branch: &Branch,
    node: &Node,
    ty: &Type,
    scope: &dyn Scope,
    place: &Place<'_>,
) -> Result<Json, Box<DocumentError>> {
    match (branch, &node.value) {
        (Branch::Template(template), Value::String(text)) => {
            template.evaluate(text, scope).map_err(|error| {
                Box::new(DocumentError {
                    path: place.to_string(),
                    span: node.span,
                    error,
                })
            })
        }
        (Branch::Inner(_), Value::List(list)) => {
            let item_type = match ty.resolved() {
                Type::List(item) => item,
                _ => &Type::Dyn,
            };
            let items = list.iter().enumerate().map(|(index, item)| {
                let place = place.index(index);
                evaluate(branch.child(index), item, item_type, scope, &place)
            });
            items.collect::<Result<_, _>>().map(Json::Array)
        }
        (Branch::Inner(_), Value::Map(map)) => {
            let mut object = serde_json::Map::with_capacity(map.len());
            for (index, (name, member)) in map.iter().enumerate() {
                let child = branch.child(index);
                let (field_type, required) = look_up_type(ty, name);
                let place = place.field(name);
                let value = evaluate(child, &member.node, field_type, scope, &place)?;
                let drop = value.is_null() && !required && matches!(child, Branch::Template(_));
                if !drop {
                    object.insert(name.clone(), value);
                }
            }
            Ok(Json::Object(object))
        }
        _ => Ok(node.to_json()),
    }
}

/// The type of a field, and whether null must stay.
pub(super) fn look_up_type<'t>(ty: &'t Type, name: &str) -> (&'t Type, bool) {
    match ty.resolved() {
        Type::Object(object) => match (object.fields.get(name), &object.additional) {
            (Some(field), _) => (&field.ty, field.required),
            (None, Additional::Typed(ty)) => (ty, true),
            (None, _) => (&Type::Dyn, true),
        },
        Type::Map(value) => (value, true),
        Type::Nullable(inner) => look_up_type(inner, name),
        _ => (&Type::Dyn, true),
    }
}

impl Placed {
    /// The expression's range within the string that holds it, for an error's range within the expression.
    pub(super) fn within(&self, at: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        at.start + self.offset..at.end + self.offset
    }
}
