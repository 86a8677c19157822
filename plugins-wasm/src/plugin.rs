//! A plugin in a run: its step types as the engine sees them, and one step's way through a guest.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use ocm_content::{Blob, Content, Error, ErrorKind, layout_tar};
use ocm_engine::language::Validator;
use ocm_engine::{
    CONTENT_KEYWORD, ContentRef, Effect, MEDIA_TYPES_KEYWORD, Outcome, Port, StepContext,
    StepError, StepType, StepTypeInfo,
};
use ocm_specs::Digest;
use ocm_specs::json::to_sorted;
use serde_json::{Map as JsonMap, Value as Json, json};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::bindings::exports::ocm::transformer::transform as wit;
use crate::bindings::ocm::transformer::types;
use crate::description::{Description, PortDescription, StepDescription, summary};
use crate::host::{Answer, Ask, Host, Inspected, Loaded, THEIRS, unusable};
use crate::input::{Input, Inputs};
use crate::limits::{ERROR_TEXT, STATE, cut};
use crate::produce::Produced;
use crate::rights::Granted;
use crate::store::{Ctx, Setting, Warn, store};

/// A plugin with its rights and its configuration.
pub struct Plugin {
    pub(crate) host: Arc<Host>,
    pub(crate) name: Arc<str>,
    digest: Digest,
    bytes: Bytes,
    description: Arc<Description>,
    pub(crate) granted: Granted,
    config: String,
    loaded: OnceCell<Loaded>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// A plugin that may do what `granted` says.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the configuration does not fit.
    pub fn new(
        host: &Arc<Host>,
        inspected: Inspected,
        granted: Granted,
        config: Option<&Json>,
    ) -> Result<Arc<Self>, Error> {
        inspected.description.check_config(config)?;
        Ok(Arc::new(Self {
            host: host.clone(),
            name: inspected.description.name.as_str().into(),
            digest: inspected.digest,
            bytes: inspected.bytes,
            description: inspected.description,
            granted,
            config: config.map(ToString::to_string).unwrap_or_default(),
            loaded: OnceCell::new(),
        }))
    }

    /// What it says of itself.
    pub fn description(&self) -> &Arc<Description> {
        &self.description
    }

    /// The digest of its component.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it may do.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// What its steps do besides their inputs: its code, its configuration and its rights.
    fn identity(&self) -> String {
        let parts = json!([
            self.digest.to_string(),
            self.config,
            self.granted.rights().to_string()
        ]);
        Digest::sha256(parts.to_string().as_bytes()).to_string()
    }

    /// Its step types, to be added to a table.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when a schema can't be used, which the description's check rules out.
    pub fn step_types(self: &Arc<Self>) -> Result<Vec<Arc<dyn StepType>>, Error> {
        let steps = self.description.steps.iter();
        steps
            .map(|step| Ok(Arc::new(PluginStep::new(self, step)?) as Arc<dyn StepType>))
            .collect()
    }

    pub(crate) async fn loaded(&self) -> Result<&Loaded, Error> {
        self.loaded
            .get_or_try_init(|| self.host.load(&self.digest, &self.bytes))
            .await
    }

    /// What the plugin has to say against a spec without ports, by the fields it is about.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn validate(&self, step_type: &str, spec: &Json) -> Result<Vec<StepError>, Error> {
        let limits = self.host.limits();
        let setting = Setting {
            limits: crate::limits::PluginLimits {
                memory: limits.ask_memory,
                // The answer has a limit of its own, which is the one to be told of.
                stall: limits.ask * 2,
                ..limits.clone()
            },
            granted: Granted::default(),
            http: None,
            ..self.setting("", Digest::sha256(b""), None)
        };
        let store = store(&self.host, setting).map_err(|error| unusable(&error))?;
        let ask = Ask::Validate {
            step_type: step_type.to_owned(),
            spec: spec.to_string(),
            config: self.config.clone(),
        };
        let (answer, _) = self
            .host
            .call_within(limits.ask, self.loaded().await?, store, ask)
            .await;
        match answer? {
            Answer::Validated(errors) => Ok(errors
                .into_iter()
                .map(|error| self.step_error(error, None))
                .collect()),
            _ => Err(Error::internal("a plugin answered another question")),
        }
    }

    pub(crate) fn setting(&self, step: &str, seed: Digest, warn: Option<Warn>) -> Setting {
        Setting {
            plugin: self.name.clone(),
            step: step.into(),
            limits: self.host.limits().clone(),
            granted: self.granted.clone(),
            http: self.host.http(),
            seed,
            run: None,
            warn,
        }
    }

    /// An error of the guest as one of the step. `cause` is what the host knows of a failed port.
    pub(crate) fn step_error(&self, error: types::StepError, cause: Option<Error>) -> StepError {
        let kind = match error.kind {
            types::ErrorKind::InvalidSpec | types::ErrorKind::InvalidContent => ErrorKind::Invalid,
            types::ErrorKind::Denied => ErrorKind::Denied,
            types::ErrorKind::Unavailable => ErrorKind::Unavailable,
            types::ErrorKind::ContentIo => ErrorKind::Io,
            types::ErrorKind::Internal => ErrorKind::Internal,
        };
        let port = error.port.map(|port| clean(port, 80));
        let (message, hint) = (
            clean(error.message, ERROR_TEXT),
            error.hint.map(|hint| clean(hint, ERROR_TEXT)),
        );
        let place = match (&port, error.offset) {
            (Some(port), Some(offset)) => format!(" (port `{port}`, byte {offset})"),
            (Some(port), None) => format!(" (port `{port}`)"),
            (None, Some(offset)) => format!(" (byte {offset})"),
            (None, None) => String::new(),
        };
        // Only the host knows what a failed stream failed of, and the kind of that decides the exit code.
        let mut told = match cause.filter(|_| kind == ErrorKind::Io || kind == ErrorKind::Denied) {
            Some(cause) => match &port {
                Some(port) => cause.context(format!("port `{port}`")),
                None => cause,
            },
            None if kind == ErrorKind::Internal => {
                Error::new(kind, format!("plugin `{}`: {message}{place}", self.name))
                    .with_hint(THEIRS)
            }
            None => Error::new(kind, format!("{message}{place}")),
        };
        if let Some(hint) = hint.filter(|_| told.hint().is_none()) {
            told = told.with_hint(hint);
        }
        match error.field {
            Some(field) => StepError::at(path(&clean(field, 500)), told),
            None => told.into(),
        }
    }

    fn fault(&self, message: impl std::fmt::Display) -> Error {
        Error::internal(format!("plugin `{}` {message}", self.name)).with_hint(THEIRS)
    }
}

/// One line of at most `limit` bytes.
fn clean(text: String, limit: usize) -> String {
    cut(text, limit)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A JSON pointer as people write paths: `/rules/2/pattern` is `rules[2].pattern`.
fn path(pointer: &str) -> String {
    let mut out = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.parse::<u32>().is_ok() {
            out.push_str(&format!("[{part}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&part);
        }
    }
    out
}

/// A step type of a plugin.
struct PluginStep {
    plugin: Arc<Plugin>,
    step: Arc<StepDescription>,
    info: StepTypeInfo,
    spec: Arc<Validator>,
    output: Arc<Validator>,
}

impl PluginStep {
    fn new(plugin: &Arc<Plugin>, step: &StepDescription) -> Result<Self, Error> {
        let ports = |ports: &[PortDescription]| {
            ports
                .iter()
                .map(|port| Port {
                    name: port.name.clone(),
                    required: port.required,
                    media_types: port.media_types.clone(),
                })
                .collect()
        };
        let info = StepTypeInfo {
            name: step.name.clone(),
            aliases: Vec::new(),
            summary: summary(&step.documentation).to_owned(),
            example: step
                .examples
                .first()
                .cloned()
                .unwrap_or_else(|| example(step)),
            // What a request to a foreign host does is not known here.
            effect: if plugin.granted.http() {
                Effect::Once
            } else {
                Effect::None
            },
            deterministic: step.deterministic && plugin.granted.is_empty(),
            implementation: Some(plugin.identity()),
            spec_schema: with_ports(&step.spec_schema, &step.inputs),
            output_schema: with_ports(&step.output_schema, &step.outputs),
            inputs: ports(&step.inputs),
            outputs: ports(&step.outputs),
        };
        let compile = |schema| {
            let unusable = |error| Error::internal(format!("step type `{}`: {error}", step.name));
            Validator::new(schema).map(Arc::new).map_err(unusable)
        };
        Ok(Self {
            plugin: plugin.clone(),
            step: Arc::new(step.clone()),
            info,
            spec: compile(&step.spec_schema)?,
            output: compile(&step.output_schema)?,
        })
    }
}

/// The schema with its ports as fields.
pub(crate) fn with_ports(schema: &Json, ports: &[PortDescription]) -> Json {
    let mut schema = schema.clone();
    let Some(map) = schema.as_object_mut() else {
        return schema;
    };
    let fields = map.entry("properties").or_insert_with(|| json!({}));
    if let Some(fields) = fields.as_object_mut() {
        for port in ports {
            fields.insert(port.name.clone(), content_schema(port));
        }
    }
    let required = map.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        required.extend(
            ports
                .iter()
                .filter(|port| port.required)
                .map(|port| json!(port.name)),
        );
    }
    schema
}

/// Content as [`ContentRef`] has it, complete in itself.
fn content_schema(port: &PortDescription) -> Json {
    let mut schema = json!({
        "type": "object",
        "description": port.documentation,
        CONTENT_KEYWORD: true,
        "properties": {
            "type": {"type": "string"},
            "uri": {"type": "string"},
            "mediaType": {"type": "string"},
            "digest": {"type": "string"},
            "size": {"type": "integer"},
            "lineage": {"type": ["object", "null"]},
        },
        "required": ["uri"],
        "additionalProperties": false,
    });
    if !port.media_types.is_empty() {
        schema[MEDIA_TYPES_KEYWORD] = json!(port.media_types);
    }
    schema
}

/// A step for those who wrote none.
fn example(step: &StepDescription) -> String {
    let base = step.name.split('/').next().unwrap_or_default();
    let mut id: String = base.chars().take(1).flat_map(char::to_lowercase).collect();
    id.push_str(&base[base.len().min(1)..]);
    let mut text = format!("- id: {id}1\n  type: {}\n  spec:\n", step.name);
    for port in &step.inputs {
        text.push_str(&format!("    {}: ${{other1.output.data}}\n", port.name));
    }
    if step.inputs.is_empty() {
        text = text.replace("  spec:\n", "  spec: {}\n");
    }
    text
}

impl StepType for PluginStep {
    fn info(&self) -> &StepTypeInfo {
        &self.info
    }

    fn run(
        &self,
        cx: StepContext,
        spec: Json,
    ) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        let call = Call {
            plugin: self.plugin.clone(),
            step: self.step.clone(),
            deterministic: self.info.deterministic,
            output: self.output.clone(),
        };
        Box::pin(async move {
            // A task of its own, so that a guest that computes does not hold up who polls this.
            let meter = cx.meter().clone();
            let mut task = JoinSet::new();
            task.spawn(meter.scope(async move { call.run(&cx, spec).await }));
            match task.join_next().await {
                Some(Ok(result)) => result,
                Some(Err(error)) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic())
                }
                _ => Err(Error::new(ErrorKind::Cancelled, "the run was cancelled").into()),
            }
        })
    }

    fn validates(&self) -> bool {
        true
    }

    fn validate(&self, spec: Json) -> BoxFuture<'static, Result<Vec<StepError>, Error>> {
        let (plugin, step) = (self.plugin.clone(), self.step.clone());
        // The contract promises guests that what they are asked about fits their schema.
        if let Some(finding) = self.spec.validate_value(&spec).into_iter().next() {
            let error = StepError::at(finding.path, Error::invalid(finding.message));
            return Box::pin(std::future::ready(Ok(vec![error])));
        }
        Box::pin(async move { plugin.validate(&step.name, &spec).await })
    }
}

/// One step of a run.
struct Call {
    plugin: Arc<Plugin>,
    step: Arc<StepDescription>,
    deterministic: bool,
    output: Arc<Validator>,
}

/// What a guest is told of its step, again for every call.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) step_type: String,
    pub(crate) spec: String,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) seed: Digest,
}

impl Told {
    /// The step, with its inputs in the guest's table.
    pub(crate) fn enter(&self, ctx: &mut Ctx, config: &str) -> Result<wit::Step, Error> {
        let mut inputs = Vec::new();
        for port in self.inputs.ports() {
            let input = Input {
                port: port.clone(),
                inputs: self.inputs.clone(),
            };
            let content = ctx
                .table
                .push(input)
                .map_err(|error| Error::limit(format!("more inputs than handles: {error}")))?;
            inputs.push(wit::InputPort {
                name: port,
                content,
            });
        }
        Ok(wit::Step {
            id: self.id.clone(),
            step_type: self.step_type.clone(),
            spec: self.spec.clone(),
            config: config.to_owned(),
            inputs,
        })
    }
}

impl Plugin {
    pub(crate) fn config(&self) -> &str {
        &self.config
    }
}

impl Call {
    async fn run(self, cx: &StepContext, spec: Json) -> Result<Outcome<Json>, StepError> {
        let (spec, contents) = self.contents(cx, spec).await?;
        let mut blobs = Vec::with_capacity(contents.len());
        for (port, content) in &contents {
            blobs.push((port.clone(), as_blob(content, cx).await?));
        }
        if let Some(error) = self
            .plugin
            .validate(&self.step.name, &spec)
            .await?
            .into_iter()
            .next()
        {
            return Err(error);
        }
        let seed = seed(cx.id(), &spec, &blobs);
        let told = Told {
            id: cx.id().to_owned(),
            step_type: self.step.name.clone(),
            spec: spec.to_string(),
            inputs: Inputs::new(blobs),
            seed,
        };
        let warn: Warn = {
            let cx = cx.clone();
            Arc::new(move |message| cx.warn(message))
        };
        let setting = Setting {
            run: Some(cx.limits().clone()),
            ..self.plugin.setting(cx.id(), told.seed.clone(), Some(warn))
        };
        let mut store = store(&self.plugin.host, setting).map_err(|error| unusable(&error))?;
        let step = told.enter(store.data_mut(), self.plugin.config())?;
        let loaded = self.plugin.loaded().await?;
        let (answer, mut store) = self.plugin.host.call(loaded, store, Ask::Run(step)).await;
        let outcome = match answer? {
            Answer::Ran(Ok(outcome)) => outcome,
            Answer::Ran(Err(error)) => {
                let cause = store.data().activity.failure(error.port.as_deref());
                return Err(self.plugin.step_error(error, cause));
            }
            _ => return Err(Error::internal("a plugin answered another question").into()),
        };
        if let Some(error) = store.data().activity.failed_input() {
            return Err(error.into());
        }
        let mut output = self.output(&outcome.output)?;
        let given = self.given(outcome.contents, store.data_mut()).await?;
        drop(store);
        for (port, given) in given {
            let content = self.content(&port, given, &contents, &told)?;
            let reference = cx.offer(&port, content);
            let reference = serde_json::to_value(reference)
                .map_err(|error| Error::internal(format!("a content reference: {error}")))?;
            output.insert(port, reference);
        }
        Ok(Outcome::new(Json::Object(output)))
    }

    /// Takes the ports out of the spec and finds what is behind them.
    async fn contents(
        &self,
        cx: &StepContext,
        mut spec: Json,
    ) -> Result<(Json, Vec<(String, Content)>), StepError> {
        let mut contents = Vec::new();
        for port in &self.step.inputs {
            let value = spec
                .as_object_mut()
                .and_then(|fields| fields.shift_remove(&port.name));
            let Some(value) = value.filter(|value| !value.is_null()) else {
                continue;
            };
            let reference: ContentRef = serde_json::from_value(value).map_err(|error| {
                StepError::at(
                    port.name.clone(),
                    Error::invalid(format!("this is no content: {error}")),
                )
            })?;
            let content = cx
                .content(&reference)
                .await
                .map_err(|error| StepError::at(port.name.clone(), error.error))?;
            let media_type = match &content {
                Content::Blob(blob) => blob.media_type.clone(),
                Content::Artifact(_) => ocm_specs::media_type::OCI_LAYOUT_TAR.to_owned(),
            };
            if !port.takes(&media_type) {
                let wanted = port.media_types.join("`, `");
                let error = Error::invalid(format!(
                    "the content is `{media_type}`, `{}` takes `{wanted}`",
                    self.step.name
                ));
                return Err(StepError::at(port.name.clone(), error));
            }
            contents.push((port.name.clone(), content));
        }
        Ok((spec, contents))
    }

    /// The output, judged.
    fn output(&self, text: &str) -> Result<JsonMap<String, Json>, Error> {
        let limit = self.plugin.host.limits().json;
        if text.len() > limit {
            return Err(Error::limit(format!(
                "plugin `{}` gave an output of {} bytes, at most {limit} are taken",
                self.plugin.name,
                text.len()
            ))
            .with_hint(THEIRS));
        }
        let output: Json = serde_json::from_str(text).map_err(|error| {
            self.plugin
                .fault(format!("gave an output that is not JSON: {error}"))
        })?;
        if let Some(finding) = self.output.validate_value(&output).into_iter().next() {
            let field = if finding.path.is_empty() {
                "the whole"
            } else {
                &finding.path
            };
            return Err(self.plugin.fault(format!(
                "gave an output that does not fit its own schema at `{field}`: {}",
                finding.message
            )));
        }
        match output {
            Json::Object(mut fields) => {
                // A plugin speaks of content through its ports alone.
                fields.retain(|name, _| !self.step.outputs.iter().any(|port| port.name == *name));
                Ok(fields)
            }
            _ => Err(self.plugin.fault("gave an output that is no object")),
        }
    }

    /// Judges which contents were given, and takes the stored ones out of the guest's table.
    async fn given(
        &self,
        contents: Vec<wit::OutputPort>,
        ctx: &mut Ctx,
    ) -> Result<Vec<(String, Given)>, Error> {
        let mut given: Vec<(String, Given)> = Vec::new();
        for wit::OutputPort { name, content } in contents {
            if !self.step.outputs.iter().any(|port| port.name == name) {
                let name = clean(name, 80);
                return Err(self.plugin.fault(format!(
                    "gave content on `{name}`, which is no output of `{}`",
                    self.step.name
                )));
            }
            if given.iter().any(|(known, _)| *known == name) {
                return Err(self.plugin.fault(format!("gave content on `{name}` twice")));
            }
            let content = match content {
                wit::Content::SameAs(input) => Given::SameAs(clean(input, 80)),
                wit::Content::Lazy(lazy) => Given::Lazy(lazy),
                wit::Content::Stored(stored) => {
                    let stored = ctx.table.delete(stored).map_err(|error| {
                        self.plugin
                            .fault(format!("gave a stored content that is not there: {error}"))
                    })?;
                    let blob = stored.finish().await.map_err(|error| match error.kind() {
                        ErrorKind::Internal => self.plugin.fault(error),
                        _ => error,
                    })?;
                    Given::Stored(blob)
                }
            };
            given.push((name, content));
        }
        let missing = self
            .step
            .outputs
            .iter()
            .find(|port| port.required && !given.iter().any(|(name, _)| *name == port.name));
        match missing {
            Some(port) => Err(self
                .plugin
                .fault(format!("gave no content on `{}`", port.name))),
            None => Ok(given),
        }
    }

    fn content(
        &self,
        port: &str,
        given: Given,
        inputs: &[(String, Content)],
        told: &Told,
    ) -> Result<Content, Error> {
        let lazy = match given {
            Given::Stored(blob) => return Ok(blob.into()),
            Given::SameAs(name) => {
                let input = inputs.iter().find(|(input, _)| *input == name);
                return input.map(|(_, content)| content.clone()).ok_or_else(|| {
                    self.plugin.fault(format!(
                        "gave `{port}` as the same as `{name}`, which is no input it has"
                    ))
                });
            }
            Given::Lazy(lazy) => lazy,
        };
        if lazy.state.len() > STATE {
            return Err(self.plugin.fault(format!(
                "keeps {} bytes for `{port}`, at most {STATE} are kept",
                lazy.state.len()
            )));
        }
        let digest = lazy
            .info
            .digest
            .map(|digest| {
                let shown = clean(digest.clone(), 150);
                digest.parse::<Digest>().map_err(|_| {
                    self.plugin.fault(format!(
                        "states the digest `{shown}` for `{port}`, which is none"
                    ))
                })
            })
            .transpose()?;
        let reopenable = self.deterministic && told.inputs.is_reopenable();
        let produced = Produced::new(
            self.plugin.clone(),
            told.clone(),
            port,
            lazy.state,
            reopenable,
        );
        let media_type = match clean(lazy.info.media_type, 255) {
            empty if empty.is_empty() => "application/octet-stream".to_owned(),
            media_type => media_type,
        };
        let known = self.step.outputs.iter().find(|known| known.name == port);
        if known.is_some_and(|known| !known.takes(&media_type)) {
            let message =
                format!("gave `{port}` as `{media_type}`, which it does not say it gives");
            return Err(self.plugin.fault(message));
        }
        let mut blob = Blob::new(media_type, Arc::new(produced));
        blob.digest = digest;
        blob.size = lazy.info.size;
        Ok(blob.into())
    }
}

/// Content as a guest gave it.
enum Given {
    SameAs(String),
    Lazy(wit::LazyContent),
    Stored(Blob),
}

/// What the frozen clock and the seeded randomness of a step follow from.
fn seed(id: &str, spec: &Json, inputs: &[(String, Blob)]) -> Digest {
    let inputs: Vec<_> = inputs
        .iter()
        .map(|(port, blob)| (port, blob.digest.as_ref().map(ToString::to_string)))
        .collect();
    Digest::sha256(to_sorted(&json!([id, spec, inputs])).as_bytes())
}

/// Guests read bytes: an artifact arrives as an image layout tar.
async fn as_blob(content: &Content, cx: &StepContext) -> Result<Blob, Error> {
    match content {
        Content::Blob(blob) => Ok(blob.clone()),
        Content::Artifact(artifact) => layout_tar(artifact, artifact.tag(), cx.limits()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_as_paths() {
        for (pointer, expected) in [
            ("/rules/2/pattern", "rules[2].pattern"),
            ("/a~1b/c", "a/b.c"),
            ("", ""),
            ("plain", "plain"),
        ] {
            assert_eq!(path(pointer), expected);
        }
    }
}
