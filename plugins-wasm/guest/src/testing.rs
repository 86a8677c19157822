//! Runs transformers over memory, without WebAssembly: for the author's own tests.

use std::collections::BTreeMap;

use crate::error::{Error, Kind};
use crate::stream::{Sink, Source};
use crate::{Content, From, Info, Input, Raw, StepType, Transformer};

/// What a step gave.
#[derive(Debug)]
pub struct Ran {
    /// Its output without ports.
    pub output: serde_json::Value,
    /// The bytes of every port.
    pub contents: BTreeMap<String, Vec<u8>>,
}

/// Validates and runs a step, then reads every output.
///
/// # Errors
/// The first that the transformer gives.
pub fn run<T: Transformer>(spec: &str, inputs: &[(&str, &[u8])]) -> Result<Ran, Error> {
    run_in_chunks::<T>(spec, inputs, 64 << 10)
}

/// The same with inputs that arrive in chunks of that size: results must not depend on it.
///
/// # Errors
/// The first that the transformer gives.
pub fn run_in_chunks<T: Transformer>(
    spec: &str,
    inputs: &[(&str, &[u8])],
    chunk: usize,
) -> Result<Ran, Error> {
    let step_type = StepType::of::<T>();
    if let Some(error) = (step_type.validate)(spec, "").into_iter().next() {
        return Err(error);
    }
    let raw = || Raw {
        id: "test1".to_owned(),
        spec: spec.to_owned(),
        config: String::new(),
        inputs: inputs
            .iter()
            .map(|(name, bytes)| Input {
                name: (*name).to_owned(),
                handle: Handle { bytes: bytes.to_vec(), chunk: chunk.max(1) },
            })
            .collect(),
    };
    let outcome = (step_type.run)(raw())?;
    let mut contents = BTreeMap::new();
    for (port, Content(from)) in outcome.contents {
        let bytes = match from {
            From::SameAs(input) => {
                let found = inputs.iter().find(|(name, _)| *name == input);
                found.map(|(_, bytes)| bytes.to_vec()).ok_or_else(|| Error::internal(format!("no input `{input}`")))?
            }
            From::Stored(kept) => kept.0,
            From::Lazy(info, state) => {
                let mut sink = Sink::new(RawSink(Vec::new()));
                (step_type.produce)(raw(), &port, &state, &mut sink)?;
                let bytes = sink.into_raw().0;
                if info.size.is_some_and(|size| size != bytes.len() as u64) {
                    return Err(Error::internal(format!("`{port}` has {} bytes, not {:?}", bytes.len(), info.size)));
                }
                bytes
            }
        };
        contents.insert(port, bytes);
    }
    let output = serde_json::from_str(&outcome.output).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Ran { output, contents })
}

/// An input in memory.
#[derive(Clone)]
pub(crate) struct Handle {
    bytes: Vec<u8>,
    chunk: usize,
}

impl Handle {
    pub(crate) fn info(&self) -> Info {
        Info {
            media_type: "application/octet-stream".to_owned(),
            size: Some(self.bytes.len() as u64),
            digest: None,
        }
    }

    pub(crate) fn open(&self, _port: &str) -> Result<Source, Error> {
        Ok(Source::new(RawSource { bytes: self.bytes.clone(), at: 0, chunk: self.chunk }))
    }
}

pub(crate) struct RawSource {
    bytes: Vec<u8>,
    at: usize,
    chunk: usize,
}

impl RawSource {
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let end = (self.at + self.chunk).min(self.bytes.len());
        let chunk = self.bytes[self.at..end].to_vec();
        self.at = end;
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

pub(crate) struct RawSink(pub(crate) Vec<u8>);

impl RawSink {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn splice(&mut self, source: &mut RawSource) -> Result<(), Error> {
        while let Some(chunk) = source.next_chunk()? {
            self.write(&chunk)?;
        }
        Ok(())
    }
}

/// Bytes that were written while deciding.
pub(crate) struct Kept(Vec<u8>);

impl Kept {
    pub(crate) fn write(
        _media_type: &str,
        write: impl FnOnce(&mut Sink) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut sink = Sink::new(RawSink(Vec::new()));
        write(&mut sink)?;
        sink.finish()?;
        Ok(Self(sink.into_raw().0))
    }
}

/// Is it that kind of error? For `assert!`.
pub fn fails(result: &Result<Ran, Error>, kind: Kind) -> bool {
    matches!(result, Err(error) if error.kind == kind)
}
