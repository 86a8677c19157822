//! What expressions can see: the values behind names, and what goes wrong with them.
//!
//! *Invariant*: evaluation only borrows from the scope. No document is copied to be looked into.

use std::ops::Range;

use ocm_specs::transfer::Environment;
use serde_json::Value as Json;
use thiserror::Error;

/// The variables of an expression at run time.
pub trait Scope {
    /// What `name` stands for, or `None` if there is no such variable. Called once per use; must be cheap.
    fn root(&self, name: &str) -> Option<Root<'_>>;

    /// The names that exist, for "did you mean". Only called on errors.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a variable stands for.
#[derive(Clone, Copy, Debug)]
pub enum Root<'a> {
    /// A document.
    Value(&'a Json),
    /// Constants, which are stored apart.
    Constants(&'a Environment),
    /// A step, whose parts are stored apart.
    Step(StepView<'a>),
}

/// A step as expressions see it: an object with the fields `id`, `type`, `spec` and `output`.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    /// The step's id.
    pub id: &'a str,
    /// The step's type, as `Name/version`.
    pub kind: &'a str,
    /// The evaluated spec; `None` while the step has not started.
    pub spec: Option<&'a Json>,
    /// The output; `None` while the step has not finished.
    pub output: Option<&'a Json>,
}

impl StepView<'_> {
    /// The fields that a step has.
    pub const FIELDS: [&'static str; 4] = ["id", "type", "spec", "output"];
}

/// A scope without variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Empty;

impl Scope for Empty {
    fn root(&self, _: &str) -> Option<Root<'_>> {
        None
    }
}

/// A scope over one JSON object: each key is a variable.
impl Scope for serde_json::Map<String, Json> {
    fn root(&self, name: &str) -> Option<Root<'_>> {
        self.get(name).map(Root::Value)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// The constants of a spec: the variable `environment`.
impl Scope for Environment {
    fn root(&self, name: &str) -> Option<Root<'_>> {
        (name == "environment").then_some(Root::Constants(self))
    }

    fn names(&self) -> Vec<String> {
        vec!["environment".to_owned()]
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct EvalError {
    /// What kind of failure it is.
    pub kind: EvalErrorKind,
    /// The smallest failing part, as a byte range of the expression's text.
    pub at: Range<usize>,
    /// What is wrong, naming the path where there is one.
    pub message: String,
    /// What might help, such as a name that is close.
    pub hint: Option<String>,
}

/// The kinds of [`EvalError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvalErrorKind {
    /// A variable, field, key or index that is not there.
    Missing,
    /// A function or operator that does not take these values.
    Type,
    /// A value outside of its range: overflow, division by zero, a text that is no number.
    Value,
    /// A result that JSON cannot hold.
    Unsupported,
    /// The expression needs more work or memory than one may.
    Limit,
}

impl EvalError {
    pub(super) fn new(kind: EvalErrorKind, at: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            kind,
            at,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hinted(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// The same error within a text in which the expression stands at `offset`.
    pub(super) fn shifted(mut self, offset: usize) -> Self {
        self.at = self.at.start + offset..self.at.end + offset;
        self
    }
}

/// "did you mean `x`?" for the candidate closest to `name`, if one is close.
pub(super) fn did_you_mean<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    let others = candidates
        .into_iter()
        .filter(|candidate| *candidate != name);
    ocm_specs::diagnostic::did_you_mean(name, others)
        .map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The field name behind a Kubernetes-escaped one (`my__dash__field`), which the reference uses for names that are not
/// identifiers. `None` when there is nothing escaped.
pub(super) fn unescape_field(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    let plain = name
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace("__dot__", ".")
        .replace("__namespace__", "namespace");
    (plain != name).then_some(plain)
}
