//! What can be wrong with a text, and where.

use super::{Source, Span};

/// A fault in a YAML or JSON text, with its place and, where one is known, the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct YamlError {
    /// The faulty part of the text.
    pub span: Span,
    /// What is wrong: a lowercase fragment without the place.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl YamlError {
    /// An error at `span` without a hint.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `name:line:column: message`, for logs and tests; a front end draws something nicer.
    pub fn located(&self, source: &Source) -> String {
        let at = source.position(self.span.start);
        format!("{}:{}:{}: {self}", source.name(), at.line, at.column)
    }
}
