//! The expression language: templates, expressions, their types.
//!
//! A string value of a spec is a [`Template`]; what stands between its braces is an [`Expression`]: a plain field path,
//! or CEL. An expression tells which variables it uses, has a type, and has a value in a [`Scope`].
//!
//! *Invariant*: all input is hostile. Sizes and depths are bounded before anything recursive happens, work is bounded
//! while expressions run, and every failure has a place within the text that was parsed.

mod chain;
mod check;
mod document;
mod evaluate;
mod expression;
mod functions;
mod infer;
mod path;
mod scope;
mod shapes;
mod syntax;
mod template;
mod types;
mod validator;
mod value;

#[cfg(test)]
mod tests;

pub use check::{Assignments, Diagnostic, check_document};
pub use document::{Document, DocumentError, Reading, Site};
pub use expression::{Edit, Expression, ExpressionError, Reference, splice};
pub use infer::{TypeError, TypeRoot, TypeScope};
pub use path::{Key, Path, Segment};
pub use scope::{Empty, EvalError, EvalErrorKind, Root, Scope, StepView};
pub use shapes::Shapes;
pub use template::{Part, Placed, TEMPLATE_LIMIT, Template, TemplateError, scan};
pub use types::{
    Additional, CONTENT_KEYWORD, Field, Mismatch, Object, Reference as TypeReference, Type,
};
pub use validator::{SchemaError, Validator};
