//! What can go wrong with content, in kinds that a caller can act on.

use std::fmt;
use std::sync::Arc;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error. Stable: exit codes and reports are made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such content, tag, file or component version.
    NotFound,
    /// Credentials are missing, wrong or not sufficient.
    Denied,
    /// Bytes are not what their digest, size or media type says.
    Mismatch,
    /// Something else is there already.
    Conflict,
    /// The other side is not able to answer now; trying again may help.
    Unavailable,
    /// A limit of size, count, depth or budget was reached.
    Limit,
    /// The other side or this form of storage can't do that.
    Unsupported,
    /// What was read is malformed, or what was asked for makes no sense.
    Invalid,
    /// The disk or the operating system said no.
    Io,
    /// Content that can be read once only was opened again.
    Consumed,
    /// The run was cancelled.
    Cancelled,
    /// A fault of this program.
    Internal,
}

impl ErrorKind {
    /// The kind as reports and events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Mismatch => "mismatch",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Limit => "limit",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Io => "io",
            Self::Consumed => "consumed",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

/// An error with the facts that each layer added, outermost first. Cheap to clone: several readers of one stream may get it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    origin: Option<String>,
    source: Option<Error>,
}

impl Error {
    /// An error of `kind`; `message` is a lowercase fragment without a period.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            origin: None,
            source: None,
        }))
    }

    /// Content does not match what it was announced as.
    pub fn mismatch(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Mismatch, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// What was read is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Not possible here.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A limit was reached.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    /// A fault of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An operating system error, with what was being done (`write /a/b`).
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{
            NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        let kind = match error.kind() {
            NotFound => ErrorKind::NotFound,
            PermissionDenied | ReadOnlyFilesystem => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        let failed = Self::new(kind, format!("{doing}: {error}"));
        match error.kind() {
            StorageFull | QuotaExceeded => failed.with_hint(
                "free some space and run the same again: blobs that are complete are kept",
            ),
            ReadOnlyFilesystem => failed.with_hint(
                "this file system can only be read: name another place, or mount it for writing",
            ),
            _ => failed,
        }
    }

    /// Adds the one fact that only this layer knows, in front of what is there.
    #[must_use]
    pub fn context(self, fact: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            message: fact.into(),
            hint: None,
            origin: None,
            source: Some(self),
        }))
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        let inner = &self.0;
        Self(Arc::new(Inner {
            kind: inner.kind,
            message: inner.message.clone(),
            hint: Some(hint.into()),
            origin: inner.origin.clone(),
            source: inner.source.clone(),
        }))
    }

    /// Says in which step the bytes come from; the innermost origin wins, since that is where the fault arose.
    #[must_use]
    pub fn with_origin(self, step: &str) -> Self {
        if self.origin().is_some() {
            return self;
        }
        let inner = &self.0;
        Self(Arc::new(Inner {
            kind: inner.kind,
            message: inner.message.clone(),
            hint: inner.hint.clone(),
            origin: Some(step.to_owned()),
            source: inner.source.clone(),
        }))
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step in which the fault arose, where it is known.
    pub fn origin(&self) -> Option<&str> {
        self.chain().find_map(|error| error.0.origin.as_deref())
    }

    /// What to do about it, from the outermost layer that knew.
    pub fn hint(&self) -> Option<&str> {
        self.chain().find_map(|error| error.0.hint.as_deref())
    }

    fn chain(&self) -> impl Iterator<Item = &Error> {
        std::iter::successors(Some(self), |error| error.0.source.as_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.chain().enumerate() {
            if index > 0 {
                f.write_str(": ")?;
            }
            f.write_str(&error.0.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, self.kind().as_str())
    }
}

// `source()` stays empty on purpose: `Display` prints the whole chain already.
impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

impl From<std::io::Error> for Error {
    /// Gets an [`Error`] back out of an I/O error that carries one; wraps any other.
    fn from(error: std::io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
        {
            Some(inner) => inner.clone(),
            None => Self::new(ErrorKind::Io, error.to_string()),
        }
    }
}
