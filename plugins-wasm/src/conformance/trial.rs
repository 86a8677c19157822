//! One step of a plugin, run as a plan runs it: with inputs, and with somebody who reads what it gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use ocm_content::limits::LimitsConfig;
use ocm_content::{Blob, Content, Error, ErrorKind, Limits};
use ocm_engine::{ContentRef, Context, StepContext, StepError, StepType};
use ocm_specs::{Algorithm, Digest, Hasher};
use serde_json::Value as Json;

use super::Kit;
use super::source::Feed;
use crate::description::StepDescription;
use crate::watch::Seen;

/// Most bytes of an output that are kept for comparing them with a file.
const KEPT: u64 = 256 << 20;
/// How long a guest may go on after its reader left.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of its inputs it may read in that time, in windows.
const WINDOWS: u64 = 8;

/// A spec without ports, and the inputs.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Where it is from, for people.
    pub(super) from: String,
    pub(super) spec: Json,
    /// By port. Empty where nobody gave any: then bytes are made up.
    pub(super) inputs: BTreeMap<String, Bytes>,
}

/// What one output had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) bytes: Bytes,
}

/// What a step came to.
#[derive(Debug)]
pub(super) struct Ran {
    /// Output without ports, and the ports with their bytes, or why there is none.
    pub(super) result: Result<(Json, BTreeMap<String, Output>), StepError>,
    /// What the calls came to.
    pub(super) calls: Vec<Seen>,
}

impl Ran {
    /// Output and bytes in a form that can be compared: the same or not.
    pub(super) fn outcome(&self) -> String {
        match &self.result {
            Ok((output, ports)) => {
                let ports = ports.iter().map(|(port, output)| {
                    format!(
                        " {port}: {} of {} bytes",
                        output.digest.short(),
                        output.length
                    )
                });
                format!("{output}{}", ports.collect::<String>())
            }
            Err(error) => error.to_string(),
        }
    }

    /// Did the plugin itself refuse, as it may? (Crashes, limits and broken promises are none.)
    pub(super) fn is_refusal(&self) -> bool {
        let is_broken = self.calls.iter().any(|call| call.broke.is_some());
        let told = self.calls.iter().flat_map(|call| &call.told).next();
        self.result.is_err() && !is_broken && told.is_some()
    }
}

impl Kit {
    /// Runs a step and reads all that it gives; bytes are kept where that is asked for.
    pub(super) async fn run(
        &self,
        step_type: &Arc<dyn StepType>,
        id: &str,
        spec: &Json,
        inputs: &BTreeMap<String, Feed>,
        keep: bool,
    ) -> Ran {
        self.watch.take();
        let cx = self.surroundings(id);
        let result = match started(step_type, &cx, spec, inputs).await {
            Ok((output, contents)) => read_all(contents, keep).await.map(|ports| (output, ports)),
            Err(error) => Err(error),
        };
        Ran {
            result,
            calls: self.watch.take(),
        }
    }

    fn surroundings(&self, id: &str) -> StepContext {
        let limits = Limits::new(LimitsConfig {
            temp_folder: self.options.temp_folder.clone(),
            ..LimitsConfig::default()
        });
        StepContext::alone(Context::new(limits, Arc::new(())), id)
    }

    /// Reads the first bytes of every output and leaves; the guest has to notice and to end by itself.
    ///
    /// # Errors
    /// What the guest did instead; `Ok(false)` where no output was long enough to leave it early.
    pub(super) async fn leave_early(
        &self,
        step_type: &Arc<dyn StepType>,
        spec: &Json,
        inputs: &BTreeMap<String, Feed>,
    ) -> Result<bool, String> {
        self.watch.take();
        let cx = self.surroundings("test1");
        let (_, contents) = started(step_type, &cx, spec, inputs)
            .await
            .map_err(|error| error.to_string())?;
        let mut left = false;
        for (port, blob) in contents {
            self.watch.take();
            let taken = || -> u64 {
                inputs
                    .values()
                    .map(|feed| feed.taken.load(Ordering::Relaxed))
                    .sum()
            };
            self.watch.let_linger();
            let mut stream = blob.open().await.map_err(|error| error.to_string())?;
            let first = stream.next().await;
            let before = taken();
            // Whoever has ended by now does not notice.
            let total: u64 = inputs.values().map(|feed| feed.data.length).sum();
            let at_work = self.host.usage().instances() > 0 && before < total;
            drop(stream);
            if !matches!(first, Some(Ok(_))) || !at_work {
                self.watch.end_lingering();
                continue;
            }
            let ended = tokio::time::timeout(PATIENCE, async {
                while self.host.usage().instances() > 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            let ended = ended.await.is_ok();
            self.watch.end_lingering();
            left = true;
            if !ended {
                let seconds = PATIENCE.as_secs();
                return Err(format!(
                    "`{port}`: it was still at work {seconds} s after its reader had left"
                ));
            }
            let more = taken() - before;
            if more > WINDOWS * self.host.limits().window as u64 {
                return Err(format!(
                    "`{port}`: it read {more} bytes more after its reader had left"
                ));
            }
            if let Some(broke) = self.watch.take().into_iter().find_map(|call| call.broke) {
                return Err(format!("`{port}`: its reader left, and {broke}"));
            }
        }
        Ok(left)
    }
}

/// Runs a step; gives its output without ports, and its contents.
async fn started(
    step_type: &Arc<dyn StepType>,
    cx: &StepContext,
    spec: &Json,
    inputs: &BTreeMap<String, Feed>,
) -> Result<(Json, Vec<(String, Blob)>), StepError> {
    let given = cx.sibling("given");
    let mut spec = spec.clone();
    for (port, feed) in inputs {
        let reference = given.offer(port, feed.blob());
        spec[port] = serde_json::to_value(reference)
            .map_err(|error| Error::internal(format!("a content reference: {error}")))?;
    }
    let mut output = step_type.run(cx.clone(), spec).await?.output;
    let mut contents = Vec::new();
    for port in &step_type.info().outputs {
        let reference = output
            .as_object_mut()
            .and_then(|fields| fields.shift_remove(&port.name));
        let Some(reference) = reference else { continue };
        let reference: ContentRef = serde_json::from_value(reference)
            .map_err(|error| Error::internal(format!("a content reference: {error}")))?;
        match cx.content(&reference).await? {
            Content::Blob(blob) => contents.push((port.name.clone(), blob)),
            Content::Artifact(_) => {
                return Err(Error::internal("a plugin gives bytes, not artifacts").into());
            }
        }
    }
    Ok((output, contents))
}

async fn read_all(
    contents: Vec<(String, Blob)>,
    keep: bool,
) -> Result<BTreeMap<String, Output>, StepError> {
    let mut outputs = BTreeMap::new();
    for (port, blob) in contents {
        let output = read(&blob, keep)
            .await
            .map_err(|error| error.context(format!("output `{port}`")))?;
        outputs.insert(port, output);
    }
    Ok(outputs)
}

async fn read(blob: &Blob, keep: bool) -> Result<Output, Error> {
    let mut stream = blob.open().await?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut length, mut bytes) = (0, BytesMut::new());
    while let Some(chunk) = stream.next().await.transpose()? {
        length += chunk.len() as u64;
        hasher.update(&chunk);
        if keep && length > KEPT {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("it has more than {KEPT} bytes, which is too much for a fixture"),
            ));
        }
        if keep {
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok(Output {
        digest: hasher.finish(),
        length,
        bytes: bytes.freeze(),
    })
}

/// A media type that a port takes.
pub(super) fn media_type_of(step: &StepDescription, port: &str) -> String {
    let port = step.inputs.iter().find(|known| known.name == port);
    let first = port.and_then(|port| port.media_types.first());
    match first.map(|known| known.trim_end_matches('*')) {
        // `application/` alone is no media type.
        Some(known) if known.ends_with('/') => format!("{known}octet-stream"),
        Some(known) if !known.is_empty() => known.to_owned(),
        _ => "application/octet-stream".to_owned(),
    }
}
