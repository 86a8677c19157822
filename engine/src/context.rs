//! What a run gives to its steps.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use ocm_content::{Content, Error, ErrorKind, Limits, Meter};
use tokio_util::sync::CancellationToken;

use crate::content_ref::ContentRef;
use crate::error::StepError;
use crate::provenance::HINT;

/// Characters of a URI that an error shows.
const SHOWN: usize = 200;

/// The surroundings of one run. Runs share no process-wide state: two of these are two worlds.
#[derive(Clone)]
pub struct Context {
    /// Limits of the run.
    pub limits: Arc<Limits>,
    /// What the steps reach storage through; the engine hands it on without looking at it.
    pub session: Arc<dyn Any + Send + Sync>,
    /// Opens content that no step of the run made (`file:///…`).
    pub files: Arc<dyn OpenContent>,
    /// Ends the run early.
    pub cancel: CancellationToken,
    /// How the run goes.
    pub options: RunOptions,
}

/// Opens content by a reference from outside the run.
pub trait OpenContent: Send + Sync {
    /// The content behind `reference.uri`.
    fn open(&self, reference: &ContentRef) -> BoxFuture<'static, Result<Content, Error>>;
}

/// How a run goes.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Steps at work at once.
    pub concurrency: usize,
    /// What a failed step means for the others.
    pub on_error: OnError,
    /// How often [`crate::Event::Bytes`] tells of progress; `None` for never.
    pub progress: Option<std::time::Duration>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            on_error: OnError::Stop,
            progress: None,
        }
    }
}

/// What a failed step means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// No further step starts; what is in flight is dropped; nothing that waits to be published is.
    Stop,
    /// Steps that do not depend on it go on, and what is complete in itself is published.
    Continue,
}

impl Context {
    /// Surroundings with that session, no way to files, and default options.
    pub fn new(limits: Arc<Limits>, session: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            limits,
            session,
            files: Arc::new(NoFiles),
            cancel: CancellationToken::new(),
            options: RunOptions::default(),
        }
    }
}

struct NoFiles;

impl OpenContent for NoFiles {
    fn open(&self, reference: &ContentRef) -> BoxFuture<'static, Result<Content, Error>> {
        let uri = reference.uri.clone();
        Box::pin(async move {
            Err(Error::unsupported(format!(
                "content at `{uri}` can't be opened here"
            )))
        })
    }
}

/// All content of a run that steps have offered, by `STEP/PORT`.
#[derive(Debug, Default)]
pub(crate) struct ContentTable(Mutex<BTreeMap<String, Content>>);

impl ContentTable {
    fn get(&self, key: &str) -> Option<Content> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(crate) fn insert(&self, key: String, content: Content) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, content);
    }
}

/// What one step has at hand while it runs.
#[derive(Clone)]
pub struct StepContext {
    pub(crate) id: Arc<str>,
    pub(crate) run: Arc<Shared>,
    pub(crate) meter: Arc<Meter>,
    /// Planned readers of each output port.
    pub(crate) readers: Arc<BTreeMap<String, usize>>,
    /// The URIs that the step may open; `None` for any.
    pub(crate) allowed: Option<Arc<BTreeSet<String>>>,
    pub(crate) warnings: Arc<Mutex<Vec<String>>>,
    /// The key of the root that the step is going to publish.
    pub(crate) announced: Arc<Mutex<Option<String>>>,
}

/// The part of a run that all its steps see.
pub(crate) struct Shared {
    pub(crate) context: Context,
    pub(crate) contents: ContentTable,
}

impl StepContext {
    /// The surroundings of one step outside of any run: for tests of step types.
    pub fn alone(context: Context, id: &str) -> Self {
        Self {
            id: id.into(),
            run: Arc::new(Shared {
                context,
                contents: ContentTable::default(),
            }),
            meter: Meter::new(),
            readers: Arc::default(),
            allowed: None,
            warnings: Arc::default(),
            announced: Arc::default(),
        }
    }

    /// The same surroundings for another step: what the one offers, the other can read.
    #[must_use]
    pub fn sibling(&self, id: &str) -> Self {
        Self {
            id: id.into(),
            meter: Meter::new(),
            readers: Arc::default(),
            allowed: None,
            warnings: Arc::default(),
            announced: Arc::default(),
            run: self.run.clone(),
        }
    }

    /// The step's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The limits of the run.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.run.context.limits
    }

    /// The run's session.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Internal`] when the run was given another kind of session.
    pub fn session<S: Any + Send + Sync>(&self) -> Result<Arc<S>, Error> {
        let session = self.run.context.session.clone();
        session
            .downcast::<S>()
            .map_err(|_| Error::internal("the run has no session of the kind this step needs"))
    }

    /// The content behind an input.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::NotFound`] when it names a port that nobody filled, [`ocm_content::ErrorKind::Denied`] when
    /// a value of foreign code names what the spec does not.
    pub async fn content(&self, reference: &ContentRef) -> Result<Content, StepError> {
        let allowed = self.allowed.as_ref();
        if allowed.is_some_and(|allowed| !allowed.contains(&reference.uri)) {
            let shown: String = reference.uri.chars().take(SHOWN).collect();
            let message = format!(
                "a value that a plugin may have made names the content `{}`, which the spec does not give to this step",
                shown.escape_debug()
            );
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint(HINT)
                .into());
        }
        let Some(key) = reference.uri.strip_prefix("content:") else {
            return Ok(self.run.context.files.open(reference).await?);
        };
        let content = self.run.contents.get(key);
        Ok(content.ok_or_else(|| {
            Error::not_found(format!("no step of this run offers the content `{key}`"))
        })?)
    }

    /// Hands content out under an output field's name. When the plan has several readers for it, they share one read.
    pub fn offer(&self, port: &str, content: impl Into<Content>) -> ContentRef {
        let content = content.into().with_origin(&self.id);
        let reference = ContentRef::port(&self.id, port, &content);
        let content = match self.readers.get(port) {
            Some(readers) if *readers > 1 => ocm_content::share(content, *readers, self.limits()),
            _ => content,
        };
        self.run
            .contents
            .insert(format!("{}/{port}", self.id), content);
        reference
    }

    /// Tells the user something that does not stop the step.
    pub fn warn(&self, message: impl Into<String>) {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message.into());
    }

    /// Says which root the step is going to publish ([`crate::Publish::root`]), as soon as it knows: should it fail before
    /// it has prepared, roots that refer to this one are not published either.
    pub fn will_publish(&self, key: impl Into<String>) {
        *self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(key.into());
    }

    /// The step's counters.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Ends when the run is cancelled. Steps are dropped then anyway; only those who hold something foreign need it.
    pub fn cancelled(&self) -> CancellationToken {
        self.run.context.cancel.clone()
    }
}
