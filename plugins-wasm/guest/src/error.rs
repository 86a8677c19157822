//! Why a step failed, as the host wants to know it.

use std::fmt;
use std::io;

/// What kind of failure it is: the user's exit code and hint go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The spec or the configuration is wrong.
    InvalidSpec,
    /// The bytes on an input are not what the step can work on.
    InvalidContent,
    /// A right is missing, or a peer refused.
    Denied,
    /// It may work at another time.
    Unavailable,
    /// Reading or writing failed; the host knows the cause.
    ContentIo,
    /// A bug of the plugin.
    Internal,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind.
    pub kind: Kind,
    /// A fragment in lower case without a period.
    pub message: String,
    /// A JSON pointer into the spec.
    pub field: Option<String>,
    /// The port it is about.
    pub port: Option<String>,
    /// The byte on that port.
    pub offset: Option<u64>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Error {
    /// An error of that kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None, port: None, offset: None, hint: None }
    }

    /// The spec is wrong: say where with [`Error::at`].
    pub fn invalid_spec(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidSpec, message)
    }

    /// The bytes are not what the step can work on: say where with [`Error::in_port`].
    pub fn invalid_content(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidContent, message)
    }

    /// A bug.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Says which field of the spec it is about, as a JSON pointer (`/rules/2/pattern`).
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says which port it is about.
    #[must_use]
    pub fn in_port(mut self, port: impl Into<String>) -> Self {
        self.port = Some(port.into());
        self
    }

    /// Says which byte of the port it is about.
    #[must_use]
    pub fn at_byte(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Says what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    /// A stream's own failure keeps what it is; any other is one of the bytes (a decoder that stumbles).
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => inner.clone(),
            None => Self::invalid_content(error.to_string()),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}
