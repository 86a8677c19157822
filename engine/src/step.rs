//! What a step type is to the engine: typed inputs in, typed outputs and lazy content out.

use std::fmt;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(doc)]
use crate::content_ref::ContentRef;
use crate::context::StepContext;
use crate::error::StepError;

/// One kind of step.
///
/// Implementors owe:
/// * `run` does no work before it is polled and may be dropped at any await point: what it has put under a name by then
///   is complete, all else is unnamed;
/// * content that other steps named is read lazily: a step that only passes content on hands out handles and ends;
/// * storage is reached through the run's session only ([`StepContext::session`]);
/// * what makes something visible under a name goes into [`Outcome::publish`].
pub trait Transformer: Send + Sync + 'static {
    /// `Name/version`, as in `OCIGetComponentVersion/v1alpha1`.
    const TYPE: &'static str;
    /// Other spellings of the type.
    const ALIASES: &'static [&'static str] = &[];
    /// What running it again means. The default is the cautious one.
    const EFFECT: Effect = Effect::Once;
    /// Do equal inputs give equal outputs?
    const DETERMINISTIC: bool = false;
    /// One sentence for `ocm get types`.
    const SUMMARY: &'static str;
    /// A step as a user would write it (YAML, native form, one list entry); a test checks it against the schema.
    const EXAMPLE: &'static str;

    /// Inputs. Fields of type [`ContentRef`] are ports that carry content.
    type Spec: DeserializeOwned + JsonSchema + Send + 'static;
    /// Outputs. Fields of type [`ContentRef`] come from [`StepContext::offer`].
    type Output: Serialize + JsonSchema + Send + 'static;

    /// Runs one step.
    fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> impl Future<Output = Result<Outcome<Self::Output>, StepError>> + Send;
}

/// What running a step again means: resuming and sharding stand on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing is written: downloads, pure conversions.
    None,
    /// What is written is addressed by its digest: look, then act.
    Content,
    /// Something is put under a name: put if absent, compare otherwise.
    Keyed,
    /// May not be repeated: a random signature, a foreign POST.
    Once,
}

/// What a step came to.
pub struct Outcome<O> {
    /// The output fields.
    pub output: O,
    /// What makes the result visible under a name, if there is such a thing.
    pub publish: Option<Publish>,
}

impl<O> Outcome<O> {
    /// A result that is complete with its output.
    pub fn new(output: O) -> Self {
        Self {
            output,
            publish: None,
        }
    }

    /// Adds what makes it visible.
    #[must_use]
    pub fn with_publish(mut self, publish: Publish) -> Self {
        self.publish = Some(publish);
        self
    }
}

/// The second part of a step: a tag, an index entry, a component version.
///
/// The engine runs it when everything the step depends on has been published. One with a `key` is a *root*: it waits
/// until every step of the run has prepared, so that a failed run leaves no half of a product under a name, and it runs
/// after those whose keys it names.
pub struct Publish {
    /// What becomes visible, in canonical text.
    pub key: Option<String>,
    /// Keys that must be visible first, as far as this run publishes them.
    pub after: Vec<String>,
    /// Does it. Repeatable.
    pub action: Box<dyn FnOnce() -> BoxFuture<'static, Result<(), StepError>> + Send>,
}

impl Publish {
    /// Something that may become visible as soon as what it depends on is.
    pub fn new<F>(action: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        Self {
            key: None,
            after: Vec::new(),
            action: Box::new(move || Box::pin(action())),
        }
    }

    /// Makes it a root: it becomes visible when the whole run has prepared, and after the roots `after` names.
    #[must_use]
    pub fn root(mut self, key: impl Into<String>, after: Vec<String>) -> Self {
        self.key = Some(key.into());
        self.after = after;
        self
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("key", &self.key)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
