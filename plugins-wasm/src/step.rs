//! Step types of plugins as the engine sees them, and one step's way through a guest.

use std::sync::Arc;

use futures::future::BoxFuture;
use ocm_content::{Blob, Content, Error, ErrorKind, layout_tar};
use ocm_engine::language::Validator;
use ocm_engine::{
    ContentRef, Effect, Lineage, MEDIA_TYPES_KEYWORD, Outcome, Port, StepContext, StepError,
    StepType, StepTypeInfo, content_schema,
};
use ocm_specs::Digest;
use ocm_specs::json::to_sorted;
use serde_json::{Map as JsonMap, Value as Json, json};
use tokio::task::JoinSet;

use crate::bindings::exports::ocm::transformer::transform as wit;
use crate::description::{PortDescription, StepDescription, summary, weight};
use crate::host::{Answer, Ask, THEIRS, unusable};
use crate::input::{Input, Inputs};
use crate::limits::STATE;
use crate::memo::{self, Memo};
use crate::plugin::{Plugin, clean};
use crate::produce::Produced;
use crate::store::{Ctx, Setting, Warn, store};

/// A step type of a plugin.
pub(crate) struct PluginStep {
    plugin: Arc<Plugin>,
    step: Arc<StepDescription>,
    info: StepTypeInfo,
    spec: Arc<Validator>,
    output: Arc<Judge>,
}

/// What judges outputs.
struct Judge {
    validator: Validator,
    /// Parts of the schema: each may look at each value.
    weight: u64,
}

/// Most looks at a value, part by part, that judging one output may take.
const LOOKS: u64 = 200_000_000;

impl PluginStep {
    pub(crate) fn new(plugin: &Arc<Plugin>, step: &StepDescription) -> Result<Self, Error> {
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
            Validator::new(schema).map_err(unusable)
        };
        Ok(Self {
            plugin: plugin.clone(),
            step: Arc::new(step.clone()),
            info,
            spec: Arc::new(compile(&step.spec_schema)?),
            output: Arc::new(Judge {
                validator: compile(&step.output_schema)?,
                weight: weight(&step.output_schema)?,
            }),
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
            fields.insert(port.name.clone(), port_schema(port));
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

/// Content on a port; complete in itself, as a plugin's schemas are.
fn port_schema(port: &PortDescription) -> Json {
    let lineage = json!({"type": ["object", "null"]});
    let mut schema = content_schema(&port.documentation, &lineage).to_value();
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
    output: Arc<Judge>,
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

impl Call {
    async fn run(self, cx: &StepContext, spec: Json) -> Result<Outcome<Json>, StepError> {
        let lineages = self.lineages(&spec);
        let (spec, mut contents) = self.contents(cx, spec).await?;
        let memo = match self.plugin.subject(&self.step.name) {
            Some(subject) if self.deterministic => {
                subject.memo(&spec, &mut contents, cx.limits()).await?
            }
            _ => None,
        };
        let mut blobs = Vec::with_capacity(contents.len());
        for (port, content) in &contents {
            blobs.push((port.clone(), as_blob(content, cx).await?));
        }
        let seed = seed(cx.id(), &spec, &blobs);
        let told = Told {
            id: cx.id().to_owned(),
            step_type: self.step.name.clone(),
            spec: spec.to_string(),
            inputs: Inputs::new(blobs),
            seed,
        };
        let known = match &memo {
            Some(memo) => memo.known().await,
            None => None,
        };
        let (mut output, given) = match known {
            Some((output, given)) => (output, remembered(given)?),
            None => self.decide(cx, &spec, &told, memo.as_ref()).await?,
        };
        for (port, given) in given {
            let lineage = self.lineage(&port, &given, lineages.as_slice());
            let content = self.content(&port, given, &contents, &told, memo.as_ref());
            let reference = cx.offer(&port, content.await?).with_lineage(lineage);
            let reference = serde_json::to_value(reference)
                .map_err(|error| Error::internal(format!("a content reference: {error}")))?;
            output.insert(port, reference);
        }
        Ok(Outcome::new(Json::Object(output)))
    }

    /// Asks the guest what the step gives, and remembers that.
    async fn decide(
        &self,
        cx: &StepContext,
        spec: &Json,
        told: &Told,
        memo: Option<&Memo>,
    ) -> Result<(JsonMap<String, Json>, Vec<(String, Given)>), StepError> {
        if let Some(error) = self
            .plugin
            .validate(&self.step.name, spec)
            .await?
            .into_iter()
            .next()
        {
            return Err(error);
        }
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
        let output = self.output(&outcome.output)?;
        let given = self.given(outcome.contents, store.data_mut()).await?;
        drop(store);
        if let Some(memo) = memo {
            remember(memo, &output, &given).await;
        }
        Ok((output, given))
    }

    /// Which resources the contents on the input ports are, as far as that is known.
    fn lineages(&self, spec: &Json) -> Vec<(String, Lineage)> {
        let ports = self.step.inputs.iter();
        let lineages = ports.filter_map(|port| {
            let lineage = spec.get(&port.name)?.get("lineage")?.clone();
            Some((port.name.clone(), serde_json::from_value(lineage).ok()?))
        });
        lineages.collect()
    }

    /// Which resource an output is: that of the input it is the same as, else of the one that has its name, else of the only
    /// one where there is only one output. What else a step gives is something new.
    fn lineage(&self, port: &str, given: &Given, inputs: &[(String, Lineage)]) -> Option<Lineage> {
        let of = |name: &str| {
            let mut inputs = inputs.iter();
            inputs
                .find(|(input, _)| input == name)
                .map(|(_, lineage)| lineage.clone())
        };
        match (
            given,
            self.step.inputs.as_slice(),
            self.step.outputs.as_slice(),
        ) {
            (Given::SameAs(input), ..) => of(input),
            (_, [input], [_]) => of(&input.name),
            _ => of(port),
        }
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
        let values = values(&output);
        if values.saturating_mul(self.output.weight) > LOOKS {
            return Err(Error::limit(format!(
                "plugin `{}` gave an output of {values} values for a schema of {} parts, which takes too long to judge",
                self.plugin.name, self.output.weight
            ))
            .with_hint(THEIRS));
        }
        if let Some(finding) = self
            .output
            .validator
            .validate_value(&output)
            .into_iter()
            .next()
        {
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

    async fn content(
        &self,
        port: &str,
        given: Given,
        inputs: &[(String, Content)],
        told: &Told,
        memo: Option<&Memo>,
    ) -> Result<Content, Error> {
        let lazy = match given {
            Given::Kept(bytes) => {
                let kept = match memo {
                    Some(memo) => memo.kept(&bytes).await,
                    None => None,
                };
                let lost = || Error::internal("a result that was there a moment ago is lost");
                return kept.map(Into::into).ok_or_else(lost);
            }
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
        Ok(match memo {
            Some(memo) => memo.lazy(port, blob).await.into(),
            None => blob.into(),
        })
    }
}

/// How many values there are in it, itself included.
fn values(json: &Json) -> u64 {
    match json {
        Json::Array(list) => 1 + list.iter().map(values).sum::<u64>(),
        Json::Object(map) => 1 + map.values().map(values).sum::<u64>(),
        _ => 1,
    }
}

/// Keeps what a step gave; not, if a part of it can't be kept.
async fn remember(memo: &Memo, output: &JsonMap<String, Json>, given: &[(String, Given)]) {
    let mut kept = Vec::with_capacity(given.len());
    for (port, given) in given {
        let given = match given {
            Given::SameAs(input) => Some(memo::Given::SameAs(input.clone())),
            Given::Lazy(lazy) => Some(memo::Given::lazy(lazy)),
            Given::Stored(blob) => memo.keep_bytes(blob).await,
            Given::Kept(bytes) => Some(memo::Given::Kept(bytes.clone())),
        };
        let Some(given) = given else {
            return;
        };
        kept.push((port.clone(), given));
    }
    memo.keep(output, kept).await;
}

/// What was kept, as if a guest had given it.
fn remembered(given: Vec<(String, memo::Given)>) -> Result<Vec<(String, Given)>, Error> {
    let given = given.into_iter().map(|(port, given)| {
        let given = match given {
            memo::Given::SameAs(input) => Given::SameAs(input),
            memo::Given::Kept(bytes) => Given::Kept(bytes),
            lazy @ memo::Given::Lazy { .. } => Given::Lazy(
                lazy.to_lazy()
                    .ok_or_else(|| Error::internal("a note on a step that has no state"))?,
            ),
        };
        Ok((port, given))
    });
    given.collect()
}

/// Content as a guest gave it.
enum Given {
    SameAs(String),
    Lazy(wit::LazyContent),
    Stored(Blob),
    /// What is known from an earlier run.
    Kept(memo::Bytes),
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
