//! Expressions: parsed once, asked for what they refer to, evaluated against a scope.
//!
//! *Invariant*: the ranges that an expression reports are byte ranges of the text it was parsed from.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde_json::Value as Json;
use thiserror::Error;

use super::evaluate;
use super::path::{Key, Path, Segment};
use super::scope::{EvalError, Scope};
use super::syntax::{self, Kind, Literal, Node};

/// Longest expression that is a plain path, in bytes; also keeps offsets within 32 bits.
const PATH_LIMIT: usize = 64 << 10;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression(pub(super) Form);

#[derive(Clone, Debug)]
pub(super) enum Form {
    Path(Path),
    Tree(Box<Tree>),
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) text: Box<str>,
    pub(super) root: Node,
}

/// Why a text is not an expression.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ExpressionError {
    /// Byte offset within the expression's text.
    pub offset: usize,
    /// What is wrong there.
    pub message: String,
}

/// A variable that an expression uses, with as much of the path behind it as can be known without evaluating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'e> {
    /// The variable's name.
    pub root: &'e str,
    /// Byte range of the variable's name.
    pub at: Range<usize>,
    /// The fields and indices that follow; the first one is the first member.
    pub segments: Cow<'e, [Segment]>,
}

impl Expression {
    /// Reads an expression: a plain path, or anything else that CEL has.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() <= PATH_LIMIT
            && let Some(path) = Path::parse(text)
        {
            return Ok(Self(Form::Path(path)));
        }
        match syntax::parse(text) {
            Ok(root) => Ok(Self(Form::Tree(Box::new(Tree {
                text: text.into(),
                root,
            })))),
            Err(error) => Err(ExpressionError {
                offset: error.offset,
                message: error.message,
            }),
        }
    }

    /// The path, if the expression is nothing more.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Form::Path(path) => Some(path),
            Form::Tree(_) => None,
        }
    }

    /// The variables that the expression uses; those of its own loops are none.
    pub fn roots(&self) -> BTreeSet<&str> {
        match &self.0 {
            Form::Path(path) => BTreeSet::from([path.root()]),
            Form::Tree(_) => self.references().iter().map(|it| it.root).collect(),
        }
    }

    /// Every use of a variable in the order of the text.
    pub fn references(&self) -> Vec<Reference<'_>> {
        match &self.0 {
            Form::Path(path) => vec![Reference {
                root: path.root(),
                at: path.root_range(),
                segments: Cow::Borrowed(path.segments()),
            }],
            Form::Tree(tree) => {
                let mut walk = Walk::default();
                walk.node(&tree.root);
                walk.found.sort_by_key(|reference| reference.at.start);
                walk.found
            }
        }
    }

    /// The value.
    ///
    /// The work is bounded (see [`EvalErrorKind::Limit`](super::EvalErrorKind::Limit)); maps that the expression makes
    /// are sorted by key; an optional is its value, or null.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Json, EvalError> {
        match &self.0 {
            Form::Path(path) => Ok(path
                .resolve(scope)?
                .map_or(Json::Null, std::borrow::Cow::into_owned)),
            Form::Tree(tree) => evaluate::evaluate(&tree.text, &tree.root, scope),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Path(path) => path.fmt(f),
            Form::Tree(tree) => f.write_str(&tree.text),
        }
    }
}

#[derive(Default)]
struct Walk<'e> {
    locals: Vec<&'e str>,
    found: Vec<Reference<'e>>,
}

impl<'e> Walk<'e> {
    fn node(&mut self, node: &'e Node) {
        let mut segments = Vec::new();
        if self.path(node, &mut segments) {
            return;
        }
        match &node.kind {
            Kind::Literal(_) | Kind::Variable(_) => {}
            Kind::Select { operand, .. } | Kind::Has { operand, .. } => self.node(operand),
            Kind::Index { operand, index, .. } => {
                self.node(operand);
                self.node(index);
            }
            Kind::Call { target, args, .. } => {
                target
                    .as_deref()
                    .into_iter()
                    .chain(args)
                    .for_each(|part| self.node(part));
            }
            Kind::And(both) | Kind::Or(both) => both.iter().for_each(|part| self.node(part)),
            Kind::Choice(parts) => parts.iter().for_each(|part| self.node(part)),
            Kind::Loop(inner) => {
                self.node(&inner.range);
                self.locals.push(&inner.variable);
                inner.guard.iter().for_each(|guard| self.node(guard));
                self.node(&inner.body);
                self.locals.pop();
            }
            Kind::List(elements) => elements.iter().for_each(|it| self.node(&it.value)),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                self.node(&entry.key);
                self.node(&entry.value);
            }),
        }
    }

    /// Records `node` if it is a chain of fields and constant indices from a variable.
    fn path(&mut self, node: &'e Node, segments: &mut Vec<Segment>) -> bool {
        match &node.kind {
            Kind::Variable(name) => {
                if !self.locals.contains(&&**name) {
                    segments.reverse();
                    self.found.push(Reference {
                        root: name,
                        at: node.range(),
                        segments: Cow::Owned(std::mem::take(segments)),
                    });
                }
                true
            }
            Kind::Select {
                operand,
                field,
                field_at,
                optional,
            } => {
                segments.push(Segment {
                    key: Key::Field(field.clone()),
                    optional: *optional,
                    at: *field_at,
                });
                self.path(operand, segments)
            }
            Kind::Has {
                operand,
                field,
                field_at,
            } => {
                segments.push(Segment {
                    key: Key::Field(field.clone()),
                    optional: true,
                    at: *field_at,
                });
                self.path(operand, segments)
            }
            Kind::Index {
                operand,
                index,
                optional,
            } => {
                let key = match &index.kind {
                    Kind::Literal(Literal::Text(text)) => Key::Field(text.clone()),
                    Kind::Literal(Literal::Int(value)) => match u32::try_from(*value) {
                        Ok(value) => Key::Index(value),
                        Err(_) => return false,
                    },
                    _ => return false,
                };
                segments.push(Segment {
                    key,
                    optional: *optional,
                    at: (index.start, index.end),
                });
                self.path(operand, segments)
            }
            _ => false,
        }
    }
}

/// A replacement within a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes to replace; an empty range inserts.
    pub at: Range<usize>,
    /// What to put there.
    pub text: String,
}

/// Applies `edits`, which may come in any order, and keeps everything else byte for byte. `None` if two of them overlap
/// or one does not lie on character boundaries of `text`.
pub fn splice(text: &str, edits: &[Edit]) -> Option<String> {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for edit in sorted {
        out.push_str(text.get(done..edit.at.start)?);
        out.push_str(&edit.text);
        done = edit.at.end.max(edit.at.start);
    }
    out.push_str(text.get(done..)?);
    Some(out)
}
