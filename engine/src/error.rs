//! Why a step failed: what happened, and which of its inputs it is about.

use std::fmt;

use ocm_content::{Error, ErrorKind};

/// Why a step failed.
#[derive(Clone, Debug)]
pub struct StepError {
    /// What happened, in kinds a caller can act on.
    pub error: Error,
    /// The input field it is about, below `spec`.
    pub field: Option<String>,
    /// Where that field stands, as `file:line:column`; the run adds it.
    pub place: Option<String>,
}

impl StepError {
    /// An error about one input field (a path below `spec`, as in `resource.name`).
    pub fn at(field: impl Into<String>, error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
            field: Some(field.into()),
            place: None,
        }
    }

    /// Inputs that make no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::invalid(message).into()
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self {
            error,
            field: None,
            place: None,
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "spec.{field}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for StepError {}
