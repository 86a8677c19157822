//! Hosts, plugins and plans for tests, and two toy steps: one that gives bytes and one that reads them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_content::limits::LimitsConfig;
use ocm_content::{Access, Blob, ByteStream, Error, Limits, Source};
use ocm_engine::{
    ContentRef, Context, Effect, Event, OnError, Outcome, Plan, RunResult, StepContext, StepError,
    StepTypes, Transformer,
};
use ocm_plugins_wasm::{Allowed, Cache, Granted, Host, HostConfig, Plugin, PluginLimits};
use ocm_specs::Digest;
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{LoadOptions, Source as Text, load};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The component of an example, as it is committed.
pub(crate) fn prebuilt(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/prebuilt")
        .join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .into()
}

/// A component of the test vectors, if they are there.
pub(crate) fn vector(name: &str) -> Option<Bytes> {
    let folder = std::env::var_os("OCM_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    match std::fs::read(folder.join("wasm").join(name)) {
        Ok(bytes) => Some(bytes.into()),
        Err(error) => {
            skip(&format!("no vector wasm/{name} ({error})"));
            None
        }
    }
}

/// Tells why a test is skipped; where `OCM_REQUIRE_PEERS` is `1`, nothing may be.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub(crate) fn skip(reason: &str) {
    let required = std::env::var("OCM_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "required: {reason}");
    eprintln!("skipped: {reason}");
}

/// A host with limits that tests can wait for. Compiled code of the committed components is kept from run to run: to
/// compile is slow without optimization.
pub(crate) fn host() -> Arc<Host> {
    host_with(|_| ())
}

/// Two tests that compile the same component at once would only compete.
static COMPILING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(crate) fn host_with(change: impl FnOnce(&mut HostConfig)) -> Arc<Host> {
    let mut config = HostConfig {
        cache: Some(Cache::new(
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm"),
        )),
        ..HostConfig::default()
    };
    config.limits.stall = std::time::Duration::from_millis(400);
    config.limits.ask = std::time::Duration::from_secs(2);
    change(&mut config);
    Host::new(config)
}

/// One that waits for guests that start slowly, as those with an interpreter do on a busy machine.
pub(crate) fn patient() -> Arc<Host> {
    host_with(|config| {
        config.limits = PluginLimits::default();
    })
}

pub(crate) fn quick(limits: &mut PluginLimits, millis: u64) {
    limits.stall = std::time::Duration::from_millis(millis);
}

/// A plugin that is allowed what it asks for.
pub(crate) async fn plugin(host: &Arc<Host>, bytes: Bytes) -> Result<Arc<Plugin>, Error> {
    let _compiling = COMPILING.lock().await;
    let inspected = host.inspect(bytes, None).await?;
    let description = inspected.description.clone();
    let granted = Granted::new(
        &description.name,
        &description.needs,
        None,
        &Allowed::Everything,
    )?;
    Plugin::new(host, inspected, granted, None)
}

/// The toy steps and those of the plugins.
pub(crate) fn types(plugins: &[&Arc<Plugin>]) -> StepTypes {
    let mut types = StepTypes::new().with(Give).with(Take);
    for plugin in plugins {
        for step_type in plugin.step_types().expect("checked schemas") {
            types.add(step_type).expect("no name twice");
        }
    }
    types
}

pub(crate) fn limits() -> Arc<Limits> {
    Limits::new(LimitsConfig {
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    })
}

pub(crate) fn plan(types: &StepTypes, steps: &str) -> Result<Plan, String> {
    Plan::link(spec(steps)?, types).map_err(|error| error.to_string())
}

/// A plan of which the step types were asked, too.
pub(crate) async fn asked(types: &StepTypes, steps: &str) -> Result<Plan, String> {
    let plan = Plan::link_and_ask(spec(steps)?, types).await;
    plan.map_err(|error| error.to_string())
}

fn spec(steps: &str) -> Result<TransferSpec, String> {
    let source = Text::new("spec.yaml", format!("transformations:\n{steps}"));
    let node = load(&source, &LoadOptions::default()).expect("the test's YAML");
    let (spec, _) = TransferSpec::read(&source, &node).map_err(|error| error.to_string())?;
    Ok(spec)
}

/// What a run came to, with its warnings and its use of budgets.
pub(crate) struct Ran {
    pub(crate) result: RunResult,
    pub(crate) warnings: Vec<String>,
    pub(crate) limits: Arc<Limits>,
}

impl Ran {
    /// `STEP: kind: message` of every failure.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failures = self.result.failures.iter();
        failures
            .map(|(step, error)| format!("{step}: {}: {error}", error.kind().as_str()))
            .collect()
    }

    pub(crate) fn output(&self, step: &str) -> &serde_json::Value {
        self.result
            .output(step)
            .unwrap_or_else(|| panic!("{step}: {:?}", self.failures()))
    }
}

pub(crate) async fn run(types: &StepTypes, steps: &str) -> Ran {
    let plan = plan(types, steps).unwrap_or_else(|error| panic!("{error}"));
    run_plan(plan).await
}

pub(crate) async fn run_plan(plan: Plan) -> Ran {
    let limits = limits();
    let mut context = Context::new(limits.clone(), Arc::new(()));
    context.options.on_error = OnError::Continue;
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = heard.clone();
    let observer = move |event| {
        if let Event::Warning { message, .. } = event {
            hears.lock().expect("no panic").push(message);
        }
    };
    let result = plan.run(context, Box::new(observer)).await;
    let warnings = std::mem::take(&mut *heard.lock().expect("no panic"));
    Ran {
        result,
        warnings,
        limits,
    }
}

/// Gives bytes.
pub(crate) struct Give;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GiveSpec {
    text: String,
    times: u64,
    /// Bytes of a chunk.
    chunk: usize,
    once: bool,
    /// After so many bytes the source breaks.
    breaks_at: Option<u64>,
    media_type: String,
    /// Is the digest stated?
    stated: bool,
}

impl Default for GiveSpec {
    fn default() -> Self {
        Self {
            text: "Hello, World\n".to_owned(),
            times: 1,
            chunk: 64 << 10,
            once: false,
            breaks_at: None,
            media_type: "text/plain".to_owned(),
            stated: false,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct GiveOutput {
    data: ContentRef,
}

impl Transformer for Give {
    const TYPE: &'static str = "Give/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Gives bytes.";
    const EXAMPLE: &'static str = "- id: give1\n  type: Give/v1\n  spec: {}\n";
    type Spec = GiveSpec;
    type Output = GiveOutput;

    async fn run(&self, cx: StepContext, spec: GiveSpec) -> Result<Outcome<GiveOutput>, StepError> {
        let piece = Bytes::from(
            spec.text
                .repeat(usize::try_from(spec.times.min(1 << 16)).expect("small")),
        );
        let repeats = spec.times.div_ceil(1 << 16);
        let size = piece.len() as u64 * repeats;
        let source = Given {
            piece,
            repeats,
            chunk: spec.chunk,
            breaks_at: spec.breaks_at,
            once: spec.once,
            opened: Mutex::new(0),
        };
        let digest = Digest::sha256(&source.piece);
        let mut blob = Blob::new(spec.media_type, Arc::new(source));
        blob.size = Some(size);
        blob.digest = (spec.stated && repeats == 1).then_some(digest);
        Ok(Outcome::new(GiveOutput {
            data: cx.offer("data", blob),
        }))
    }
}

#[derive(Debug)]
struct Given {
    piece: Bytes,
    repeats: u64,
    chunk: usize,
    breaks_at: Option<u64>,
    once: bool,
    opened: Mutex<usize>,
}

impl Source for Given {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        *self.opened.lock().expect("no panic") += 1;
        if self.once && *self.opened.lock().expect("no panic") > 1 {
            return Box::pin(async {
                Err(Error::new(ocm_content::ErrorKind::Consumed, "given once"))
            });
        }
        let (piece, chunk, breaks_at) = (self.piece.clone(), self.chunk.max(1), self.breaks_at);
        let total = piece.len() as u64 * self.repeats;
        Box::pin(async move {
            let steps = stream::unfold(offset, move |at| {
                let piece = piece.clone();
                async move {
                    if breaks_at.is_some_and(|end| at >= end) {
                        let error =
                            Error::new(ocm_content::ErrorKind::Unavailable, "the source broke");
                        return Some((Err(error), u64::MAX));
                    }
                    if at >= total {
                        return None;
                    }
                    let start = usize::try_from(at % piece.len() as u64).expect("small");
                    let end = (start + chunk).min(piece.len());
                    Some((Ok(piece.slice(start..end)), at + (end - start) as u64))
                }
            });
            Ok(steps.boxed() as ByteStream)
        })
    }

    fn access(&self) -> Access {
        if self.once {
            Access::Once
        } else {
            Access::Reopenable
        }
    }
}

/// Reads bytes.
pub(crate) struct Take;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TakeSpec {
    data: ContentRef,
    /// Goes away after so many bytes.
    leaves_at: Option<u64>,
    /// Starts there.
    #[serde(default)]
    from: u64,
    /// Reads so often.
    #[serde(default = "once")]
    times: u32,
}

fn once() -> u32 {
    1
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TakeOutput {
    bytes: u64,
    digest: String,
    /// The first bytes as text.
    head: String,
    media_type: String,
}

impl Transformer for Take {
    const TYPE: &'static str = "Take/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads bytes.";
    const EXAMPLE: &'static str =
        "- id: take1\n  type: Take/v1\n  spec:\n    data: ${give1.output.data}\n";
    type Spec = TakeSpec;
    type Output = TakeOutput;

    async fn run(&self, cx: StepContext, spec: TakeSpec) -> Result<Outcome<TakeOutput>, StepError> {
        let blob = match cx.content(&spec.data).await? {
            ocm_content::Content::Blob(blob) => blob,
            ocm_content::Content::Artifact(_) => {
                return Err(StepError::invalid("bytes are read here"));
            }
        };
        let mut last = None;
        for _ in 0..spec.times {
            last = Some(read(&blob, &spec).await?);
        }
        last.map(Outcome::new)
            .ok_or_else(|| StepError::invalid("nothing is read"))
    }
}

async fn read(blob: &Blob, spec: &TakeSpec) -> Result<TakeOutput, Error> {
    let mut stream = match spec.from {
        0 => blob.open().await?,
        offset => blob.open_at(offset).await?,
    };
    let mut hasher = ocm_specs::Hasher::new(ocm_specs::Algorithm::Sha256);
    let (mut bytes, mut head) = (0, Vec::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| error.context(format!("after {bytes} bytes")))?;
        bytes += chunk.len() as u64;
        hasher.update(&chunk);
        head.extend_from_slice(&chunk[..chunk.len().min(20_usize.saturating_sub(head.len()))]);
        if spec.leaves_at.is_some_and(|end| bytes >= end) {
            break;
        }
    }
    Ok(TakeOutput {
        bytes,
        digest: hasher.finish().to_string(),
        head: String::from_utf8_lossy(&head).into_owned(),
        media_type: blob.media_type.clone(),
    })
}
