//! Steps that give bytes, take them, and hand them on as they are: natively, and through a child process.
//!
//! *Invariant*: none of them hashes, and bytes cost nothing to give, so that what is measured is what lies between.

use std::process::Stdio;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::{Access, Blob, ByteStream, Content, Error, Source};
use ocm_engine::{ContentRef, Effect, Outcome, StepContext, StepError, StepTypes, Transformer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::content::chunks;

type StepResult<T> = std::result::Result<Outcome<T>, StepError>;

/// The step types of this module.
pub(crate) fn step_types() -> StepTypes {
    StepTypes::new()
        .with(Give)
        .with(Take)
        .with(Native)
        .with(ThroughChild)
}

#[derive(Serialize, JsonSchema)]
struct Data {
    data: ContentRef,
}

#[derive(Deserialize, JsonSchema)]
struct Input {
    data: ContentRef,
}

async fn input(cx: &StepContext, reference: &ContentRef) -> std::result::Result<Blob, StepError> {
    match cx.content(reference).await? {
        Content::Blob(blob) => Ok(blob),
        Content::Artifact(_) => Err(StepError::invalid("bytes are handed on here")),
    }
}

/// Gives bytes.
struct Give;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GiveSpec {
    /// How many.
    size: u64,
    /// Can they be read once only?
    #[serde(default)]
    once: bool,
    /// Does nothing come behind them, not even an end?
    #[serde(default)]
    endless: bool,
}

impl Transformer for Give {
    const TYPE: &'static str = "bench.give/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Gives bytes.";
    const EXAMPLE: &'static str = "{id: a, type: bench.give/v1, spec: {size: 1}}";
    type Spec = GiveSpec;
    type Output = Data;

    async fn run(&self, cx: StepContext, spec: GiveSpec) -> StepResult<Data> {
        let blob = Blob::new("application/octet-stream", Arc::new(Given(spec)));
        let data = cx.offer("data", blob);
        Ok(Outcome::new(Data { data }))
    }
}

impl std::fmt::Debug for GiveSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.size)
    }
}

#[derive(Debug)]
struct Given(GiveSpec);

impl Source for Given {
    fn open(&self, offset: u64) -> BoxFuture<'static, std::result::Result<ByteStream, Error>> {
        let bytes = stream::iter(chunks(1, self.0.size - offset.min(self.0.size)).map(Ok));
        let stream: ByteStream = if self.0.endless {
            bytes.chain(stream::pending()).boxed()
        } else {
            bytes.boxed()
        };
        Box::pin(async move { Ok(stream) })
    }

    fn access(&self) -> Access {
        if self.0.once {
            Access::Once
        } else {
            Access::Reopenable
        }
    }
}

/// Takes bytes.
struct Take;

#[derive(Serialize, JsonSchema)]
struct Taken {
    bytes: u64,
}

impl Transformer for Take {
    const TYPE: &'static str = "bench.take/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Takes bytes.";
    const EXAMPLE: &'static str = "{id: a, type: bench.take/v1, spec: {data: '${b.output.data}'}}";
    type Spec = Input;
    type Output = Taken;

    async fn run(&self, cx: StepContext, spec: Input) -> StepResult<Taken> {
        let mut stream = input(&cx, &spec.data).await?.open().await?;
        let mut bytes = 0;
        while let Some(chunk) = stream.try_next().await? {
            bytes += std::hint::black_box(chunk).len() as u64;
        }
        Ok(Outcome::new(Taken { bytes }))
    }
}

/// Hands on what it gets, copied once, as a guest has to.
struct Native;

impl Transformer for Native {
    const TYPE: &'static str = "bench.native/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Hands on what it gets.";
    const EXAMPLE: &'static str =
        "{id: a, type: bench.native/v1, spec: {data: '${b.output.data}'}}";
    type Spec = Input;
    type Output = Data;

    async fn run(&self, cx: StepContext, spec: Input) -> StepResult<Data> {
        hand_on(&cx, &spec, copied).await
    }
}

/// Hands on what it gets, by way of a program that does so.
struct ThroughChild;

impl Transformer for ThroughChild {
    const TYPE: &'static str = "bench.child/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Hands on what it gets, through `cat`.";
    const EXAMPLE: &'static str = "{id: a, type: bench.child/v1, spec: {data: '${b.output.data}'}}";
    type Spec = Input;
    type Output = Data;

    async fn run(&self, cx: StepContext, spec: Input) -> StepResult<Data> {
        hand_on(&cx, &spec, through_child).await
    }
}

async fn hand_on(cx: &StepContext, spec: &Input, way: Way) -> StepResult<Data> {
    let blob = input(cx, &spec.data).await?;
    let source = HandedOn {
        blob: blob.clone(),
        way,
    };
    let data = cx.offer("data", blob.with_source(Arc::new(source)));
    Ok(Outcome::new(Data { data }))
}

/// How bytes go on.
type Way = fn(ByteStream) -> std::result::Result<ByteStream, Error>;

#[derive(Debug)]
struct HandedOn {
    blob: Blob,
    way: Way,
}

impl Source for HandedOn {
    fn open(&self, _offset: u64) -> BoxFuture<'static, std::result::Result<ByteStream, Error>> {
        let (blob, way) = (self.blob.clone(), self.way);
        Box::pin(async move { way(blob.open().await?) })
    }

    fn access(&self) -> Access {
        Access::Once
    }
}

fn copied(stream: ByteStream) -> std::result::Result<ByteStream, Error> {
    Ok(stream
        .map_ok(|chunk| Bytes::copy_from_slice(&chunk))
        .boxed())
}

fn through_child(mut stream: ByteStream) -> std::result::Result<ByteStream, Error> {
    /// What one read may give: a pipe of Linux holds 64 KiB.
    const CHUNK: usize = 64 << 10;
    let failed = |error| Error::io("run `cat`", &error);
    let mut child = tokio::process::Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(mut into), Some(out_of)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Error::internal("a child without pipes"));
    };
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        while let Some(chunk) = stream.try_next().await? {
            into.write_all(&chunk).await.map_err(failed)?;
        }
        Ok::<_, Error>(())
    });
    let bytes = stream::try_unfold(
        (child, feeding, out_of),
        move |(mut child, mut feeding, mut out_of)| async move {
            let mut buffer = BytesMut::with_capacity(CHUNK);
            if out_of.read_buf(&mut buffer).await.map_err(failed)? > 0 {
                return Ok(Some((buffer.freeze(), (child, feeding, out_of))));
            }
            while let Some(fed) = feeding.join_next().await {
                fed.map_err(|error| Error::internal(error.to_string()))??;
            }
            child.wait().await.map_err(failed)?;
            Ok(None)
        },
    );
    Ok(bytes.boxed())
}
