//! Construction: from constructors to component versions in a repository (formats.md 9).
//!
//! *Invariant*: nothing becomes visible under a name before everything of the call is prepared: all inputs taken in, all
//! digests known and compared with those that are stated, all descriptors complete. What is made follows from the
//! constructor, its inputs and the artifacts it names; no clock and no order of arrival goes into it.
//!
//! It is here, beside the step types, because it needs what they need: repositories, packing, digests of closures. A
//! constructor is no transfer spec: it has no expressions, and its steps would all be of one kind.

mod chart;
mod element;
mod external;
mod folder;
mod inputs;
mod order;
mod ownership;
mod patterns;
mod remote;
mod root;
mod sniff;
mod work;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use ocm_content::{Error, ErrorKind};
use ocm_repository::{Repository, Resolver, Session};
use ocm_specs::ComponentDescriptor;
use ocm_specs::constructor::Constructor;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics};
use ocm_specs::yaml::{Source, Span};

use self::work::Work;

/// A constructor, and the folder that its inputs lie in and may not leave.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says.
    pub constructor: Constructor,
    /// Where paths of inputs start.
    pub root: PathBuf,
}

/// What to do about a component version that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// Nothing is made at all.
    #[default]
    AbortAndFail,
    /// It is replaced.
    Replace,
    /// It stays, and its constructor is not looked at.
    Skip,
}

/// What to do about referenced component versions that are not made here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalPolicy {
    /// They stay where they are.
    #[default]
    Skip,
    /// They are brought to the target.
    CopyOrFail,
}

/// Which resources are stored beside the descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByValue {
    /// Those that have an input.
    #[default]
    Inputs,
    /// Besides, those that stay elsewhere and are the component's own (`relation: local`).
    Local,
    /// All.
    All,
}

/// Choices of a construction.
#[derive(Clone, Debug)]
pub struct ConstructOptions {
    /// For versions that are there.
    pub conflict: ConflictPolicy,
    /// For versions that are referenced and made elsewhere.
    pub external: ExternalPolicy,
    /// What becomes of resources that state where their content is.
    pub by_value: ByValue,
    /// Are digests of content and component versions elsewhere neither computed nor compared?
    pub skip_reference_digests: bool,
    /// Elements that are worked on at once, at least one.
    pub concurrency: usize,
    /// Seconds since 1970: creation time of component versions that state none, and time of all files that are packed.
    pub source_date: Option<u64>,
}

impl Default for ConstructOptions {
    fn default() -> Self {
        Self {
            conflict: ConflictPolicy::default(),
            external: ExternalPolicy::default(),
            by_value: ByValue::default(),
            skip_reference_digests: false,
            concurrency: 4,
            source_date: None,
        }
    }
}

/// Where component versions go to and come from.
#[derive(Clone, Debug)]
pub struct Target {
    /// The repository they go to; `None` where it is not there yet and nothing is to be written.
    pub repository: Option<Repository>,
    /// Knows where else referenced component versions may be.
    pub resolver: Resolver,
    /// Is all done but writing?
    pub dry_run: bool,
}

/// How a component version came to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConstructOutcome {
    /// There was none before.
    Created,
    /// An equal one was there.
    Present,
    /// Another one was there and is no longer.
    Replaced,
    /// One was there and was left.
    Kept,
    /// It was referenced and was brought along.
    Copied,
}

impl ConstructOutcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Present => "present",
            Self::Replaced => "replaced",
            Self::Kept => "kept",
            Self::Copied => "copied",
        }
    }
}

/// A component version that was made or found.
#[derive(Clone, Debug)]
pub struct Constructed {
    /// What it is.
    pub descriptor: ComponentDescriptor,
    /// How it got there.
    pub outcome: ConstructOutcome,
}

/// What came of a construction.
#[derive(Clone, Debug, Default)]
pub struct Construction {
    /// Component versions, referenced ones before those that reference them.
    pub versions: Vec<Constructed>,
    /// What the author may not have meant, each as a line with its place.
    pub warnings: Vec<String>,
}

/// One thing that went wrong, and where in which constructor.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The constructor.
    pub source: Arc<Source>,
    /// What is wrong.
    pub finding: Diagnostic,
    /// What a caller can act on.
    pub kind: ErrorKind,
}

impl Problem {
    fn new(source: &Arc<Source>, finding: Diagnostic, kind: ErrorKind) -> Self {
        Self {
            source: source.clone(),
            finding,
            kind,
        }
    }

    fn at(source: &Arc<Source>, span: Span, path: &str, error: &Error) -> Self {
        let mut finding = Diagnostic::error(span, error.to_string()).at_field(path);
        finding.hint = error.hint().map(str::to_owned);
        Self::new(source, finding, error.kind())
    }
}

/// Why nothing was made: one or more problems.
#[derive(Clone, Debug)]
pub struct ConstructError {
    /// In the order of the documents.
    pub problems: Vec<Problem>,
}

impl ConstructError {
    /// What a caller can act on: the kind of the first problem.
    pub fn kind(&self) -> ErrorKind {
        self.problems
            .first()
            .map_or(ErrorKind::Internal, |problem| problem.kind)
    }
}

impl fmt::Display for ConstructError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let rendered = Diagnostics {
                source: problem.source.clone(),
                findings: Vec::new(),
            };
            f.write_str(&rendered.render(&problem.finding))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConstructError {}

/// Makes the component versions of some constructors and publishes them in a repository.
///
/// With [`Target::dry_run`] everything is read and computed and nothing written.
///
/// # Errors
/// All problems of the first phase that has any: the documents together, what is there already, inputs, digests, writing.
pub async fn construct(
    session: &Session,
    target: &Target,
    documents: &[Document],
    options: &ConstructOptions,
) -> Result<Construction, ConstructError> {
    let planned = order::order(documents)?;
    let work = Work::new(session, target, options, &planned);
    // Its type would be too deep to be part of a caller's.
    work.run().boxed().await
}
