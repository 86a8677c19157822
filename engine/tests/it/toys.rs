//! Step types that move bytes between made-up hosts, so that the engine can be watched without any storage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_content::{Access, Blob, ByteStream, Content, Error, Host, Limits, Source};
use ocm_engine::{
    ContentRef, Context, Effect, Event, Graph, OnError, Outcome, Plan, Publish, RunOptions,
    RunResult, StepContext, StepError, StepTypes, Transformer,
};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{LoadOptions, Source as Text, load};
use ocm_specs::{Algorithm, Hasher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the toys share: what became visible, who holds which exclusive sink, how many were at work at once.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) published: Mutex<Vec<String>>,
    pub(crate) received: Mutex<BTreeMap<String, String>>,
    pub(crate) exclusive: Mutex<BTreeSet<String>>,
    pub(crate) at_work: AtomicUsize,
    pub(crate) most_at_work: AtomicUsize,
    pub(crate) dropped: AtomicUsize,
}

/// Bytes that a seed determines, in chunks, from a host, with a little time between.
#[derive(Debug)]
struct Stream {
    seed: u64,
    size: u64,
    access: Access,
    host: Host,
    fail_at: Option<u64>,
    opened: AtomicBool,
}

const CHUNK: u64 = 64;

impl Source for Stream {
    fn open(&self, offset: u64) -> BoxFuture<'static, ocm_content::Result<ByteStream>> {
        let again = self.opened.swap(true, Ordering::SeqCst);
        let (seed, size, fail_at, access) = (self.seed, self.size, self.fail_at, self.access);
        Box::pin(async move {
            if access == Access::Once && (again || offset > 0) {
                return Err(Error::new(
                    ocm_content::ErrorKind::Consumed,
                    "this content can be read once only",
                ));
            }
            let stream = stream::unfold(offset, move |at| async move {
                if at >= size {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                if fail_at.is_some_and(|limit| at >= limit) {
                    return Some((
                        Err(Error::new(
                            ocm_content::ErrorKind::Unavailable,
                            "the source broke",
                        )),
                        size,
                    ));
                }
                let end = (at + CHUNK).min(size);
                let chunk: Vec<u8> = (at..end)
                    .map(|at| (seed.wrapping_mul(31).wrapping_add(at)) as u8)
                    .collect();
                Some((Ok(Bytes::from(chunk)), end))
            });
            Ok(Box::pin(stream) as ByteStream)
        })
    }

    fn access(&self) -> Access {
        self.access
    }

    fn hosts(&self) -> Vec<Host> {
        vec![self.host.clone()]
    }
}

pub(crate) struct ToySource;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SourceSpec {
    seed: u64,
    size: u64,
    #[serde(default)]
    once: bool,
    #[serde(default)]
    host: String,
    #[serde(default)]
    fail_at: Option<u64>,
    #[serde(default)]
    after: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct DataOutput {
    data: ContentRef,
}

impl Transformer for ToySource {
    const TYPE: &'static str = "toy.source/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Offers bytes.";
    const EXAMPLE: &'static str = "{id: a, type: toy.source/v1, spec: {seed: 1, size: 10}}";
    type Spec = SourceSpec;
    type Output = DataOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: SourceSpec,
    ) -> Result<Outcome<DataOutput>, StepError> {
        let _ = spec.after;
        let access = if spec.once {
            Access::Once
        } else {
            Access::Reopenable
        };
        let source = Stream {
            seed: spec.seed,
            size: spec.size,
            access,
            host: Host::new(&spec.host),
            fail_at: spec.fail_at,
            opened: AtomicBool::new(false),
        };
        let blob = Blob::new("application/octet-stream", Arc::new(source));
        Ok(Outcome::new(DataOutput {
            data: cx.offer("data", blob),
        }))
    }
}

/// Adds one to every byte while somebody reads.
#[derive(Debug)]
struct PlusOne(Blob);

impl Source for PlusOne {
    fn open(&self, offset: u64) -> BoxFuture<'static, ocm_content::Result<ByteStream>> {
        let blob = self.0.clone();
        Box::pin(async move {
            let inner = if offset == 0 {
                blob.open().await?
            } else {
                blob.open_at(offset).await?
            };
            let stream = inner.map(|chunk| {
                chunk.map(|chunk| chunk.iter().map(|byte| byte.wrapping_add(1)).collect())
            });
            Ok(Box::pin(stream) as ByteStream)
        })
    }

    fn access(&self) -> Access {
        self.0.access()
    }

    fn hosts(&self) -> Vec<Host> {
        self.0.hosts()
    }
}

pub(crate) struct ToyConvert;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConvertSpec {
    data: ContentRef,
}

impl Transformer for ToyConvert {
    const TYPE: &'static str = "toy.convert/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Computes bytes from bytes.";
    const EXAMPLE: &'static str = "{id: b, type: toy.convert/v1, spec: {data: '${a.output.data}'}}";
    type Spec = ConvertSpec;
    type Output = DataOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: ConvertSpec,
    ) -> Result<Outcome<DataOutput>, StepError> {
        let Content::Blob(blob) = cx.content(&spec.data).await? else {
            return Err(StepError::invalid("toys know blobs only"));
        };
        let blob = Blob::new("application/octet-stream", Arc::new(PlusOne(blob)));
        Ok(Outcome::new(DataOutput {
            data: cx.offer("data", blob),
        }))
    }
}

/// Reads content into the world, under transfer slots like a real upload, and publishes a name.
pub(crate) struct ToySink(pub(crate) Arc<World>);

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SinkSpec {
    name: String,
    data: ContentRef,
    #[serde(default)]
    host: String,
    /// Nobody else may write there meanwhile.
    #[serde(default)]
    exclusive: Option<String>,
    /// Reads everything once before it sends: a digest that is needed first.
    #[serde(default)]
    digest_first: bool,
    #[serde(default)]
    fail: bool,
    #[serde(default)]
    panic: bool,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    refers_to: Vec<String>,
    #[serde(default)]
    after: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct SinkOutput {
    digest: String,
}

struct AtWork(Arc<World>);

impl AtWork {
    fn enter(world: &Arc<World>) -> Self {
        let now = world.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        world.most_at_work.fetch_max(now, Ordering::SeqCst);
        Self(world.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Exclusive<'w>(&'w World, String);

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.0.exclusive.lock().unwrap().remove(&self.1);
    }
}

/// An archive that one writer at a time may append to: whoever finds it taken stages nothing and tries again.
async fn lock<'w>(world: &'w World, name: &str) -> Exclusive<'w> {
    loop {
        if world.exclusive.lock().unwrap().insert(name.to_owned()) {
            return Exclusive(world, name.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn digest(blob: &Blob) -> Result<String, Error> {
    let mut stream = blob.open().await?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(chunk) = stream.next().await {
        hasher.update(&chunk?);
    }
    Ok(hasher.finish().to_string())
}

impl Transformer for ToySink {
    const TYPE: &'static str = "toy.sink/v1";
    const EFFECT: Effect = Effect::Keyed;
    const SUMMARY: &'static str = "Reads bytes.";
    const EXAMPLE: &'static str =
        "{id: c, type: toy.sink/v1, spec: {name: c, data: '${b.output.data}'}}";
    type Spec = SinkSpec;
    type Output = SinkOutput;

    async fn run(&self, cx: StepContext, spec: SinkSpec) -> Result<Outcome<SinkOutput>, StepError> {
        let _ = spec.after;
        let _work = AtWork::enter(&self.0);
        assert!(!spec.panic, "a toy that panics");
        if spec.root {
            cx.will_publish(&spec.name);
        }
        let Content::Blob(mut blob) = cx.content(&spec.data).await? else {
            return Err(StepError::invalid("toys know blobs only"));
        };
        if spec.digest_first && blob.access() == Access::Once {
            blob = ocm_content::spool(&blob, cx.limits()).await?;
        }
        let mut hosts = blob.hosts();
        hosts.push(Host::new(&spec.host));
        let found = {
            let _slots = cx.limits().transfer(&hosts).await;
            if spec.digest_first {
                digest(&blob).await?;
            }
            digest(&blob).await?
        };
        if spec.fail {
            return Err(
                Error::new(ocm_content::ErrorKind::Denied, "the toy was told to fail").into(),
            );
        }
        if let Some(archive) = &spec.exclusive {
            let _held = lock(&self.0, archive).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.0
            .received
            .lock()
            .unwrap()
            .insert(spec.name.clone(), found.clone());
        let (world, name) = (self.0.clone(), spec.name.clone());
        let mut publish = Publish::new(move || async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            world.published.lock().unwrap().push(name);
            Ok(())
        });
        if spec.root {
            publish = publish.root(spec.name, spec.refers_to);
        }
        Ok(Outcome::new(SinkOutput { digest: found }).with_publish(publish))
    }
}

pub(crate) struct ToyValue;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueSpec {
    #[serde(default)]
    value: serde_json::Value,
    #[serde(default)]
    second: serde_json::Value,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct ValueOutput {
    value: serde_json::Value,
}

impl Transformer for ToyValue {
    const TYPE: &'static str = "toy.value/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Gives what it got.";
    const EXAMPLE: &'static str = "{id: v, type: toy.value/v1, spec: {value: 1}}";
    type Spec = ValueSpec;
    type Output = ValueOutput;

    async fn run(
        &self,
        _: StepContext,
        spec: ValueSpec,
    ) -> Result<Outcome<ValueOutput>, StepError> {
        let value = if spec.second.is_null() {
            spec.value
        } else {
            serde_json::json!([spec.value, spec.second])
        };
        Ok(Outcome::new(ValueOutput { value }))
    }
}

/// All toys over one world.
pub(crate) fn step_types(world: &Arc<World>) -> StepTypes {
    StepTypes::new()
        .with(ToySource)
        .with(ToyConvert)
        .with(ToySink(world.clone()))
        .with(ToyValue)
}

/// Reads a spec.
pub(crate) fn read(text: &str) -> Result<TransferSpec, String> {
    let source = Text::new("toys.yaml", text);
    let node = load(&source, &LoadOptions::default()).map_err(|error| {
        let hint = error.hint.as_deref().unwrap_or("none");
        format!("{}\n  hint: {hint}", error.located(&source))
    })?;
    let (spec, _) = TransferSpec::read(&source, &node).map_err(|errors| errors.to_string())?;
    Ok(spec)
}

/// Reads, links and plans a spec of toys.
pub(crate) fn plan(text: &str, world: &Arc<World>) -> Result<Plan, String> {
    let graph = Graph::link(read(text)?).map_err(|errors| errors.to_string())?;
    Plan::new(graph, &step_types(world)).map_err(|errors| errors.to_string())
}

/// Everything that can be seen of a run.
pub(crate) struct Seen {
    pub(crate) result: RunResult,
    pub(crate) events: Vec<Event>,
    pub(crate) world: Arc<World>,
}

/// Runs a spec of toys.
pub(crate) async fn run(text: &str, limits: Arc<Limits>, options: RunOptions) -> Seen {
    let world = Arc::new(World::default());
    let plan = plan(text, &world).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let mut context = Context::new(limits, Arc::new(()));
    context.options = options;
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let result = plan
        .run(
            context,
            Box::new(move |event| log.lock().unwrap().push(event)),
        )
        .await;
    let events = std::mem::take(&mut *events.lock().unwrap());
    Seen {
        result,
        events,
        world,
    }
}

/// Options with that concurrency and policy.
pub(crate) fn options(concurrency: usize, on_error: OnError) -> RunOptions {
    RunOptions {
        concurrency,
        on_error,
        progress: None,
    }
}
