//! The contract's side of the kit: exports for the host, and its streams.

pub mod bindings {
    //! Generated from the contract.
    #![allow(missing_docs, reason = "generated; the documentation is in the WIT files")]
    #[cfg(not(feature = "http"))]
    wit_bindgen::generate!({
        path: "../wit",
        world: "transformer",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "ocm_plugin::wasm::bindings",
        export_macro_name: "export_bindings",
    });
    #[cfg(feature = "http")]
    wit_bindgen::generate!({
        path: "../wit",
        world: "transformer-http",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "ocm_plugin::wasm::bindings",
        export_macro_name: "export_bindings",
    });
}

use std::marker::PhantomData;

use bindings::exports::ocm::transformer::transform as wit;
use bindings::ocm::transformer::{host, types};
use bindings::wasi::io::streams::{InputStream, OutputStream, StreamError};

use crate::error::{Error, Kind};
use crate::stream::{Sink, Source, WINDOW};
use crate::{Content, Definition, From, Info, Input, Level, Need, Outcome, Port, Raw, StepType};

/// What the host calls.
pub struct Guest<D>(PhantomData<D>);

impl<D: Definition + 'static> wit::Guest for Guest<D> {
    fn describe() -> wit::Plugin {
        let steps: Vec<crate::Described> = D::types().iter().map(StepType::describe).collect();
        let config = steps.iter().find_map(|step| step.config_schema.clone());
        wit::Plugin {
            name: D::NAME.to_owned(),
            version: D::VERSION.to_owned(),
            documentation: D::DOCUMENTATION.to_owned(),
            config_schema: config.unwrap_or_default(),
            needs: D::NEEDS.iter().map(need).collect(),
            steps: steps.into_iter().map(step_type).collect(),
        }
    }

    fn validate(step_type: String, spec: String, config: String) -> Vec<types::StepError> {
        match find::<D>(&step_type) {
            Ok(found) => (found.validate)(&spec, &config).into_iter().map(step_error).collect(),
            Err(error) => vec![step_error(error)],
        }
    }

    fn run(step: wit::Step) -> Result<wit::Outcome, types::StepError> {
        let outcome = find::<D>(&step.step_type).and_then(|found| (found.run)(raw(step)));
        let Outcome { output, contents } = outcome.map_err(step_error)?;
        let contents = contents.into_iter().map(|(name, Content(from))| wit::OutputPort {
            name,
            content: match from {
                From::SameAs(input) => wit::Content::SameAs(input),
                From::Stored(kept) => wit::Content::Stored(kept.0),
                From::Lazy(info, state) => wit::Content::Lazy(wit::LazyContent {
                    info: types::ContentInfo {
                        media_type: info.media_type,
                        size: info.size,
                        digest: info.digest,
                    },
                    state,
                }),
            },
        });
        Ok(wit::Outcome { output, contents: contents.collect() })
    }

    fn produce(
        step: wit::Step,
        port: String,
        state: Vec<u8>,
        sink: OutputStream,
    ) -> Result<(), types::StepError> {
        let mut sink = Sink::new(RawSink(sink));
        let found = find::<D>(&step.step_type);
        found.and_then(|found| (found.produce)(raw(step), &port, &state, &mut sink)).map_err(step_error)
    }
}

fn find<D: Definition>(name: &str) -> Result<StepType, Error> {
    let found = D::types().into_iter().find(|step_type| step_type.describe().name == name);
    found.ok_or_else(|| Error::internal(format!("there is no step type `{name}` in this plugin")))
}

fn need(need: &Need) -> types::Need {
    let (capability, scope, reason, optional) = match need {
        Need::Http(hosts, reason, optional) => (types::Capability::Http, *hosts, *reason, *optional),
        Need::Clock(reason, optional) => (types::Capability::Clock, &[][..], *reason, *optional),
        Need::Random(reason, optional) => (types::Capability::Random, &[][..], *reason, *optional),
    };
    types::Need {
        capability,
        scope: scope.iter().map(|host| (*host).to_owned()).collect(),
        reason: reason.to_owned(),
        optional,
    }
}

fn step_type(step: crate::Described) -> types::StepType {
    let (name, version) = step.name.split_once('/').unwrap_or((step.name, ""));
    let port = |port: &Port| types::Port {
        name: port.name.to_owned(),
        documentation: port.documentation.to_owned(),
        required: port.required,
        media_types: port.media_types.iter().map(|known| (*known).to_owned()).collect(),
    };
    types::StepType {
        name: name.to_owned(),
        version: version.to_owned(),
        documentation: step.documentation.to_owned(),
        spec_schema: step.spec_schema,
        output_schema: step.output_schema,
        inputs: step.inputs.iter().map(port).collect(),
        outputs: step.outputs.iter().map(port).collect(),
        deterministic: step.deterministic,
        examples: step.examples.iter().map(|example| (*example).to_owned()).collect(),
    }
}

fn raw(step: wit::Step) -> Raw {
    let inputs = step.inputs.into_iter().map(|input| Input { name: input.name, handle: Handle(input.content) });
    Raw { id: step.id, spec: step.spec, config: step.config, inputs: inputs.collect() }
}

fn step_error(error: Error) -> types::StepError {
    types::StepError {
        kind: match error.kind {
            Kind::InvalidSpec => types::ErrorKind::InvalidSpec,
            Kind::InvalidContent => types::ErrorKind::InvalidContent,
            Kind::Denied => types::ErrorKind::Denied,
            Kind::Unavailable => types::ErrorKind::Unavailable,
            Kind::ContentIo => types::ErrorKind::ContentIo,
            Kind::Internal => types::ErrorKind::Internal,
        },
        message: error.message,
        field: error.field,
        port: error.port,
        offset: error.offset,
        hint: error.hint,
    }
}

fn error(error: types::StepError) -> Error {
    Error {
        kind: match error.kind {
            types::ErrorKind::InvalidSpec => Kind::InvalidSpec,
            types::ErrorKind::InvalidContent => Kind::InvalidContent,
            types::ErrorKind::Denied => Kind::Denied,
            types::ErrorKind::Unavailable => Kind::Unavailable,
            types::ErrorKind::ContentIo => Kind::ContentIo,
            types::ErrorKind::Internal => Kind::Internal,
        },
        message: error.message,
        field: error.field,
        port: error.port,
        offset: error.offset,
        hint: error.hint,
    }
}

fn failed(what: &str, error: StreamError, port: &str) -> Error {
    let message = match error {
        StreamError::Closed => format!("{what}: closed"),
        StreamError::LastOperationFailed(error) => format!("{what}: {}", error.to_debug_string()),
    };
    let error = Error::new(Kind::ContentIo, message);
    if port.is_empty() { error } else { error.in_port(port) }
}

/// An input as the host holds it.
pub(crate) struct Handle(host::Input);

impl Handle {
    pub(crate) fn info(&self) -> Info {
        let info = self.0.info();
        Info { media_type: info.media_type, size: info.size, digest: info.digest }
    }

    pub(crate) fn open(&self, port: &str) -> Result<Source, Error> {
        let stream = self.0.open(0).map_err(error)?;
        Ok(Source::new(RawSource { stream, port: port.to_owned() }))
    }
}

pub(crate) struct RawSource {
    stream: InputStream,
    port: String,
}

impl RawSource {
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.stream.blocking_read(WINDOW as u64) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(StreamError::Closed) => Ok(None),
            Err(error) => Err(failed("read", error, &self.port)),
        }
    }
}

pub(crate) struct RawSink(OutputStream);

impl RawSink {
    /// Never more than the host allows: that would be a trap.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match self.0.check_write().map_err(|error| failed("write", error, ""))? {
                0 => self.0.subscribe().block(),
                permit => {
                    let (part, rest) = bytes.split_at(bytes.len().min(permit as usize));
                    self.0.write(part).map_err(|error| failed("write", error, ""))?;
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn splice(&mut self, source: &mut RawSource) -> Result<(), Error> {
        loop {
            match self.0.blocking_splice(&source.stream, WINDOW as u64) {
                Ok(_) => {}
                Err(StreamError::Closed) => {
                    // Which of the two ended? The source says it again when asked.
                    return match source.next_chunk()? {
                        None => Ok(()),
                        Some(chunk) => self.write(&chunk),
                    };
                }
                Err(error) => return Err(failed("read", error, &source.port)),
            }
        }
    }
}

/// Bytes that the host keeps.
pub(crate) struct Kept(host::Stored);

impl Kept {
    pub(crate) fn write(
        media_type: &str,
        write: impl FnOnce(&mut Sink) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let stored = host::Stored::new(media_type);
        let mut sink = Sink::new(RawSink(stored.sink().map_err(error)?));
        write(&mut sink)?;
        sink.finish()?;
        drop(sink);
        Ok(Self(stored))
    }
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Trace => host::Level::Trace,
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
    };
    host::log(level, message);
}

pub(crate) fn progress(message: &str, done: u64, total: Option<u64>) {
    host::progress(message, done, total);
}

#[cfg(feature = "http")]
pub mod http {
    //! HTTPS through the host: it checks hosts, adds credentials, repeats.

    use super::bindings::ocm::transformer::fetch;
    use super::{RawSink, RawSource, error};
    use crate::error::Error;
    use crate::stream::{Sink, Source};

    /// An answer.
    pub struct Response {
        /// Any.
        pub status: u16,
        /// Names and values.
        pub headers: Vec<(String, String)>,
        /// The body.
        pub body: Source,
    }

    /// Makes a request and waits for the head of the answer.
    ///
    /// # Errors
    /// A host that is not granted, or one that can't be reached.
    pub fn request(
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response, Error> {
        use std::io::Write;
        let exchange = fetch::Exchange::new(&fetch::Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            content_length: body.map(|body| body.len() as u64),
        });
        if let Some(body) = body {
            let mut sink = Sink::new(RawSink(exchange.body().map_err(error)?));
            sink.write_all(body)?;
            sink.finish()?;
        }
        let response = exchange.response().map_err(error)?;
        Ok(Response {
            status: response.status,
            headers: response.headers,
            body: Source::new(RawSource { stream: response.body, port: "fetch".to_owned() }),
        })
    }
}

/// Exports a plugin to the host.
#[doc(hidden)]
#[macro_export]
macro_rules! export_plugin {
    ($definition:ident) => {
        type OcmPluginGuest = $crate::wasm::Guest<$definition>;
        $crate::wasm::bindings::export_bindings!(OcmPluginGuest with_types_in $crate::wasm::bindings);
    };
}
