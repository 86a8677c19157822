//! Errors as the user meets them: one message, a hint, and the exit code that scripts go by.

use std::fmt;

use ocm_content::{Error, ErrorKind};
use ocm_engine::StepError;
use ocm_repository::credentials::Identity;
use ocm_specs::diagnostic::Diagnostics;

macro_rules! exit_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// Exit codes, stable. This list is the only one: `ocm --help` prints it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum ExitCode {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        /// Every exit code but 0, with what it means.
        pub(crate) const EXIT_CODES: &[(ExitCode, &str)] =
            &[$((ExitCode::$name, concat!($($doc),+)),)+];
    };
}

exit_codes! {
    /// Any failure that has no code of its own (disk full, a fault of this program).
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A spec or another input document is invalid.
    Invalid = 3,
    /// Something is not there: a file, a repository, a component version, a blob.
    NotFound = 4,
    /// Verification failed: a digest, a signature, a policy, a plugin's promise.
    Verification = 5,
    /// Access denied.
    Denied = 6,
    /// The other side is unavailable; trying again helps.
    Unavailable = 7,
    /// Something else is there already.
    Conflict = 8,
    /// A difference was found.
    Difference = 9,
    /// Partly done; running it again goes on.
    Partial = 10,
    /// Interrupted by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// The exit codes as `ocm --help` lists them.
pub(crate) fn exit_codes_help() -> String {
    let line = |(code, doc): &(ExitCode, &str)| format!("  {:>3}  {}\n", *code as u8, doc.trim());
    let lines: String = EXIT_CODES.iter().map(line).collect();
    format!("Exit codes:\n    0  All is well.\n{lines}")
}

/// What ends a command.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) code: ExitCode,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl CliError {
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// Adds in front where it happened.
    pub(crate) fn context(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Reading or writing a file that the user named.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let error = Error::io(format!("{doing} {}", path.display()), error);
        Self {
            code: code_of(error.kind()),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// The exit code for what went wrong with content.
pub(crate) fn code_of(kind: ErrorKind) -> ExitCode {
    match kind {
        ErrorKind::NotFound => ExitCode::NotFound,
        ErrorKind::Denied => ExitCode::Denied,
        ErrorKind::Mismatch => ExitCode::Verification,
        ErrorKind::Conflict => ExitCode::Conflict,
        ErrorKind::Unavailable => ExitCode::Unavailable,
        ErrorKind::Invalid => ExitCode::Invalid,
        _ => ExitCode::Failure,
    }
}

/// How a user gives credentials for `identity`.
pub(crate) fn how_to_give_credentials(identity: &Identity) -> String {
    let host = identity.get("hostname").unwrap_or("HOST");
    let port = identity
        .get("port")
        .map_or_else(String::new, |port| format!(":{port}"));
    format!("run `ocm login {host}{port}`, or configure a consumer {{{identity}}} in .ocmconfig")
}

/// Where to go on when credentials are missing or wrong.
const ASK_THE_DOCTOR: &str =
    "`ocm login HOST` gives some, `ocm doctor credentials REFERENCE` tells what was considered";

/// What helps with most errors of a kind, for those that bring no hint of their own.
pub(crate) fn general_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound => Some("check the name, and that the source is complete"),
        ErrorKind::Denied => Some("check the permissions, or the credentials for this place"),
        ErrorKind::Mismatch => {
            Some("the source is damaged or was changed; take it from another place")
        }
        ErrorKind::Unavailable => Some("run it again later; what arrived is not sent again"),
        ErrorKind::Internal => Some("this is a fault of ocm; please report it"),
        _ => None,
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let hint = match error.hint() {
            Some(hint) if hint.contains("(looked for: ") => {
                Some(format!("{hint}; {ASK_THE_DOCTOR}"))
            }
            hint => hint.or(general_hint(error.kind())).map(str::to_owned),
        };
        Self {
            code: code_of(error.kind()),
            hint,
            message: error.to_string(),
        }
    }
}

impl From<StepError> for CliError {
    fn from(error: StepError) -> Self {
        Self {
            message: error.to_string(),
            ..Self::from(error.error)
        }
    }
}

impl From<Diagnostics> for CliError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::new(ExitCode::Invalid, diagnostics.to_string())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
