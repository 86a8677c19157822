//! What a step type is to the engine: typed inputs in, typed outputs and lazy content out.

use std::borrow::Cow;
use std::fmt;

use futures::future::BoxFuture;
use ocm_content::{Blob, Content, Error, ErrorKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::context::StepContext;

/// The type text of a content reference: the reference implementation's file objects have it, too.
pub const CONTENT_TYPE: &str = "File/v1alpha1";

/// The schema keyword that marks a field as a content port.
pub const CONTENT_KEYWORD: &str = "x-ocm-content";

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

/// Why a step failed.
#[derive(Clone, Debug)]
pub struct StepError {
    /// What happened, in kinds a caller can act on.
    pub error: Error,
    /// The input field it is about, below `spec`.
    pub field: Option<String>,
}

impl StepError {
    /// An error about one input field (a path below `spec`, as in `resource.name`).
    pub fn at(field: impl Into<String>, error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
            field: Some(field.into()),
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
        Self { error, field: None }
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

/// A content handle as a value that specs and expressions can carry.
///
/// The bytes stay behind: `uri` names a port of a step of this run (`content:STEP/PORT`) or a file (`file:///…`).
/// Turn it into content with [`StepContext::content`]. Expressions may read all its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// Always [`CONTENT_TYPE`] or a spelling of it.
    #[serde(rename = "type", default = "content_type")]
    pub kind: String,
    /// Where the content is.
    pub uri: String,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its digest: of the bytes, or of the root manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its length in bytes; absent for artifacts and for what is still being computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Which resource these bytes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// Which resource of which component some bytes are, or were before they were converted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// Component name.
    pub component: String,
    /// Component version.
    pub version: String,
    /// The resource as it stands in the descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Json>,
}

fn content_type() -> String {
    CONTENT_TYPE.to_owned()
}

impl ContentRef {
    /// The reference to a port of a step of this run.
    pub(crate) fn port(step: &str, port: &str, content: &Content) -> Self {
        let (digest, size) = match content {
            Content::Blob(Blob { digest, size, .. }) => {
                (digest.as_ref().map(ToString::to_string), *size)
            }
            Content::Artifact(artifact) => {
                (artifact.root().map(|root| root.digest.to_string()), None)
            }
        };
        Self {
            kind: content_type(),
            uri: format!("content:{step}/{port}"),
            media_type: Some(content.media_type().to_owned()),
            digest,
            size,
            lineage: None,
        }
    }

    /// Says which resource these bytes are.
    #[must_use]
    pub fn with_lineage(mut self, lineage: Option<Lineage>) -> Self {
        self.lineage = lineage;
        self
    }
}

impl JsonSchema for ContentRef {
    fn schema_name() -> Cow<'static, str> {
        "Content".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let lineage = generator.subschema_for::<Lineage>();
        json_schema!({
            "type": "object",
            "description": "Content: bytes or an OCI artifact, handed from step to step without being copied into the value.",
            CONTENT_KEYWORD: true,
            "properties": {
                "type": {"type": "string"},
                "uri": {"type": "string"},
                "mediaType": {"type": "string"},
                "digest": {"type": "string"},
                "size": {"type": "integer"},
                "lineage": lineage,
            },
            "required": ["uri"],
            "additionalProperties": false,
        })
    }
}
