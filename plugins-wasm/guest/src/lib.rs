//! For authors of `ocm` step types: implement [`Transformer`], name it in [`plugin!`], build for `wasm32-wasip2`.
//!
//! ```
//! use ocm_plugin::{Error, Port, Sink, Source, Step, Transformer, schemars, serde};
//!
//! /// Inputs of the step.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
//! #[schemars(crate = "ocm_plugin::schemars")]
//! struct Spec {
//!     /// Added in front of the bytes.
//!     prefix: String,
//! }
//!
//! struct Prefix;
//!
//! impl Transformer for Prefix {
//!     const TYPE: &'static str = "AcmePrefix/v1alpha1";
//!     const DOCUMENTATION: &'static str = "Puts a text in front of bytes.";
//!     const INPUTS: &'static [Port] = &[Port::required("data", "any bytes")];
//!     const OUTPUTS: &'static [Port] = &[Port::required("data", "the prefix and the bytes")];
//!     type Spec = Spec;
//!     type Config = ocm_plugin::Nothing;
//!     type Output = ocm_plugin::Nothing;
//!
//!     fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
//!         use std::io::Write;
//!         sink.write_all(step.spec.prefix.as_bytes())?;
//!         std::io::copy(source, sink)?;
//!         Ok(())
//!     }
//! }
//!
//! ocm_plugin::plugin! {
//!     name: "acme-prefix",
//!     documentation: "Prefixes.",
//!     types: [Prefix],
//! }
//!
//! // On the machine of the author, without WebAssembly:
//! let ran = ocm_plugin::testing::run::<Prefix>(r#"{"prefix": "a-"}"#, &[("data", b"b")]).unwrap();
//! assert_eq!(ran.contents["data"], b"a-b");
//! ```
//!
//! Invariants: a source that fails is an error, never an early end; a sink is written within what the host allows, so that
//! no author has to know of permits; there is no `unsafe` in here but what the bindings generate.

mod error;
pub mod gzip;
mod stream;
pub mod tar;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod wasm;
pub mod yaml;

use std::marker::PhantomData;

pub use schemars;
pub use serde;
pub use serde_json;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use crate::error::{Error, Kind};
#[cfg(all(target_family = "wasm", feature = "http"))]
pub use crate::wasm::http;
pub use crate::stream::{Sink, Source};

/// One step type.
///
/// A plugin that reads one stream and writes one stream implements [`Transformer::transform`] and is done. One that has
/// more ports implements [`Transformer::produce`], which is called once for each output that somebody reads. One whose
/// output says something about the bytes implements [`Transformer::run`], too.
pub trait Transformer: Sized + 'static {
    /// `Name/version`, as in `AcmeScrub/v1alpha1`.
    const TYPE: &'static str;
    /// Markdown; the first line is the summary.
    const DOCUMENTATION: &'static str;
    /// Where bytes come in: fields of the step's spec besides those of [`Transformer::Spec`].
    const INPUTS: &'static [Port] = &[];
    /// Where bytes go out: fields of the step's output besides those of [`Transformer::Output`].
    const OUTPUTS: &'static [Port] = &[];
    /// Do the same spec, configuration and inputs always give the same output and bytes?
    const DETERMINISTIC: bool = true;
    /// Complete steps in YAML (`- id: …`).
    const EXAMPLES: &'static [&'static str] = &[];

    /// Inputs without ports. Its documentation is shown to users.
    type Spec: DeserializeOwned + JsonSchema;
    /// The plugin's configuration; [`Nothing`] if there is none.
    type Config: DeserializeOwned + JsonSchema;
    /// Output without ports.
    type Output: Serialize + JsonSchema + Default;

    /// Finds what the types can't say: a pattern that doesn't compile, two fields that contradict each other. Without
    /// inputs and rights; called while planning, too.
    fn validate(spec: &Self::Spec, config: &Self::Config) -> Vec<Error> {
        let _ = (spec, config);
        Vec::new()
    }

    /// Decides what the step gives. As it stands here: every output is made when somebody reads it, of the media type of
    /// the first input, and the output has its default value.
    fn run(step: &Step<Self>) -> Result<Outcome<Self::Output>, Error> {
        let info = step.inputs.first().map(Input::info).unwrap_or_default();
        let made = Info { media_type: info.media_type, ..Info::default() };
        let contents = Self::OUTPUTS.iter().map(|port| (port.name.to_owned(), Content::lazy(made.clone())));
        Ok(Outcome { output: Self::Output::default(), contents: contents.collect() })
    }

    /// Writes the bytes of one output, in a fresh instance. As it stands here: [`Transformer::transform`] from the first
    /// input.
    fn produce(step: &Step<Self>, port: &str, state: &[u8], sink: &mut Sink) -> Result<(), Error> {
        let _ = (port, state);
        let Some(input) = step.inputs.first() else {
            return Err(Error::internal("a step without input implements `produce`"));
        };
        Self::transform(step, &mut input.open()?, sink)
    }

    /// Reads a stream and writes a stream.
    fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let _ = (step, source, sink);
        Err(Error::internal(format!("{} implements neither `transform` nor `produce`", Self::TYPE)))
    }
}

/// No fields at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// A named place for bytes.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The name of the field.
    pub name: &'static str,
    /// What it is for.
    pub documentation: &'static str,
    /// Must an input be given? Is an output always there?
    pub required: bool,
    /// What it takes or gives; `*` may stand at the end; empty for anything.
    pub media_types: &'static [&'static str],
}

impl Port {
    /// A port that must be there.
    pub const fn required(name: &'static str, documentation: &'static str) -> Self {
        Self { name, documentation, required: true, media_types: &[] }
    }

    /// A port that may be left out.
    pub const fn optional(name: &'static str, documentation: &'static str) -> Self {
        Self { name, documentation, required: false, media_types: &[] }
    }

    /// The same, for these media types only.
    pub const fn of(self, media_types: &'static [&'static str]) -> Self {
        Self { media_types, ..self }
    }
}

/// A right that the plugin asks for.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// HTTPS requests to these hosts (`name`, `name:port`, `*.domain`): hosts, reason, can it do without?
    Http(&'static [&'static str], &'static str, bool),
    /// The real time: reason, can it do without?
    Clock(&'static str, bool),
    /// Real randomness: reason, can it do without?
    Random(&'static str, bool),
}

/// What is known of content before it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

/// Content on an input port.
pub struct Input {
    pub(crate) name: String,
    pub(crate) handle: stream::Handle,
}

impl Input {
    /// The port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of it.
    pub fn info(&self) -> Info {
        self.handle.info()
    }

    /// Starts reading.
    ///
    /// # Errors
    /// What the source says.
    pub fn open(&self) -> Result<Source, Error> {
        self.handle.open(&self.name)
    }
}

/// One step of a run.
pub struct Step<T: Transformer> {
    /// Its id.
    pub id: String,
    /// Its inputs.
    pub spec: T::Spec,
    /// The plugin's configuration.
    pub config: T::Config,
    /// The ports that were given, in the order of [`Transformer::INPUTS`].
    pub inputs: Vec<Input>,
    kind: PhantomData<T>,
}

impl<T: Transformer> Step<T> {
    /// The content on a port.
    ///
    /// # Errors
    /// When it was not given.
    pub fn input(&self, name: &str) -> Result<&Input, Error> {
        let input = self.inputs.iter().find(|input| input.name == name);
        input.ok_or_else(|| Error::invalid_spec(format!("there is no `{name}`")).at(format!("/{name}")))
    }
}

/// What a step came to.
pub struct Outcome<O> {
    /// The output without ports.
    pub output: O,
    /// The contents, by port.
    pub contents: Vec<(String, Content)>,
}

impl<O> Outcome<O> {
    /// An output without contents.
    pub fn new(output: O) -> Self {
        Self { output, contents: Vec::new() }
    }

    /// Adds a content.
    #[must_use]
    pub fn with(mut self, port: &str, content: Content) -> Self {
        self.contents.push((port.to_owned(), content));
        self
    }
}

/// Where the bytes of an output come from.
pub struct Content(pub(crate) From);

pub(crate) enum From {
    SameAs(String),
    Lazy(Info, Vec<u8>),
    Stored(stream::Kept),
}

impl Content {
    /// The input of that name, unchanged: its bytes do not pass through the plugin.
    pub fn same_as(input: &str) -> Self {
        Self(From::SameAs(input.to_owned()))
    }

    /// Made by [`Transformer::produce`] when somebody reads.
    pub fn lazy(info: Info) -> Self {
        Self(From::Lazy(info, Vec::new()))
    }

    /// The same, with something to remember until then (at most 64 KiB).
    pub fn lazy_with(info: Info, state: Vec<u8>) -> Self {
        Self(From::Lazy(info, state))
    }

    /// Written now, kept by the host: for outputs that say something about the bytes.
    ///
    /// # Errors
    /// What `write` says, and what keeping the bytes gives.
    pub fn stored(
        media_type: &str,
        write: impl FnOnce(&mut Sink) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        stream::Kept::write(media_type, write).map(|kept| Self(From::Stored(kept)))
    }
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the author.
    Trace,
    /// For the curious.
    Debug,
    /// For the log.
    Info,
    /// For the user: shown as a warning of the step.
    Warn,
}

/// One line for the log of the run.
pub fn log(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    wasm::log(level, message);
    #[cfg(not(target_family = "wasm"))]
    let _ = (level, message);
}

/// A sign of life from long work that moves no bytes.
pub fn progress(message: &str, done: u64, total: Option<u64>) {
    #[cfg(target_family = "wasm")]
    wasm::progress(message, done, total);
    #[cfg(not(target_family = "wasm"))]
    let _ = (message, done, total);
}

/// The example of the README, which is compiled and run with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// A plugin: what [`plugin!`] makes.
pub trait Definition {
    /// Its name.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// Markdown.
    const DOCUMENTATION: &'static str;
    /// Rights that it asks for.
    const NEEDS: &'static [Need];
    /// Its step types.
    fn types() -> Vec<StepType>;
}

/// A [`Transformer`] with its types erased.
#[derive(Clone, Copy)]
pub struct StepType {
    pub(crate) describe: fn() -> Described,
    pub(crate) validate: fn(&str, &str) -> Vec<Error>,
    pub(crate) run: fn(Raw) -> Result<Outcome<String>, Error>,
    pub(crate) produce: fn(Raw, &str, &[u8], &mut Sink) -> Result<(), Error>,
}

/// What a step type is.
pub struct Described {
    /// `Name/version`.
    pub name: &'static str,
    /// Markdown.
    pub documentation: &'static str,
    /// JSON Schemas.
    pub spec_schema: String,
    /// Of the output.
    pub output_schema: String,
    /// Of the configuration; `None` if there is none.
    pub config_schema: Option<String>,
    /// Where bytes come in.
    pub inputs: &'static [Port],
    /// Where bytes go out.
    pub outputs: &'static [Port],
    /// As the author says.
    pub deterministic: bool,
    /// Steps in YAML.
    pub examples: &'static [&'static str],
}

/// A step before its spec is read.
pub struct Raw {
    pub(crate) id: String,
    pub(crate) spec: String,
    pub(crate) config: String,
    pub(crate) inputs: Vec<Input>,
}

impl StepType {
    /// The erased form of a transformer.
    pub const fn of<T: Transformer>() -> Self {
        Self {
            describe: describe::<T>,
            validate: |spec, config| match (read(spec), read_config::<T>(config)) {
                (Ok(spec), Ok(config)) => T::validate(&spec, &config),
                (Err(error), _) | (_, Err(error)) => vec![error],
            },
            run: |raw| {
                let outcome = T::run(&step::<T>(raw)?)?;
                let output = serde_json::to_string(&outcome.output)
                    .map_err(|error| Error::internal(error.to_string()))?;
                Ok(Outcome { output, contents: outcome.contents })
            },
            produce: |raw, port, state, sink| {
                T::produce(&step::<T>(raw)?, port, state, sink)?;
                sink.finish()
            },
        }
    }

    /// What it is.
    pub fn describe(&self) -> Described {
        (self.describe)()
    }
}

fn describe<T: Transformer>() -> Described {
    let config = schema::<T::Config>();
    let empty = config.get("properties").is_none();
    Described {
        name: T::TYPE,
        documentation: T::DOCUMENTATION,
        spec_schema: written(&schema::<T::Spec>()),
        output_schema: written(&schema::<T::Output>()),
        config_schema: (!empty).then(|| written(&config)),
        inputs: T::INPUTS,
        outputs: T::OUTPUTS,
        deterministic: T::DETERMINISTIC,
        examples: T::EXAMPLES,
    }
}

/// Not by `Display`, which brings a second and a third writer along.
pub(crate) fn written(value: &serde_json::Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn schema<T: JsonSchema>() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

fn step<T: Transformer>(raw: Raw) -> Result<Step<T>, Error> {
    Ok(Step {
        id: raw.id,
        spec: read(&raw.spec)?,
        config: read_config::<T>(&raw.config)?,
        inputs: in_order(raw.inputs, T::INPUTS),
        kind: PhantomData,
    })
}

/// The inputs in the order of their ports.
fn in_order(mut inputs: Vec<Input>, ports: &[Port]) -> Vec<Input> {
    let mut ordered = Vec::with_capacity(inputs.len());
    for port in ports {
        if let Some(at) = inputs.iter().position(|input| input.name == port.name) {
            ordered.push(inputs.remove(at));
        }
    }
    ordered
}

fn read<S: DeserializeOwned>(text: &str) -> Result<S, Error> {
    serde_json::from_str(text).map_err(|error| Error::invalid_spec(error.to_string()))
}

fn read_config<T: Transformer>(text: &str) -> Result<T::Config, Error> {
    let text = if text.is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|error| Error::invalid_spec(format!("the configuration: {error}")))
}

/// Makes a plugin of transformers: one call, at the top of the crate.
#[macro_export]
macro_rules! plugin {
    (
        name: $name:expr,
        documentation: $documentation:expr,
        $(needs: $needs:expr,)?
        types: [$($transformer:ty),+ $(,)?] $(,)?
    ) => {
        /// The plugin, as the host sees it.
        #[doc(hidden)]
        pub struct OcmPlugin;

        impl $crate::Definition for OcmPlugin {
            const NAME: &'static str = $name;
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            const DOCUMENTATION: &'static str = $documentation;
            const NEEDS: &'static [$crate::Need] = { let needs: &'static [$crate::Need] = &[]; $(let needs: &'static [$crate::Need] = $needs;)? needs };
            fn types() -> ::std::vec::Vec<$crate::StepType> {
                ::std::vec![$($crate::StepType::of::<$transformer>()),+]
            }
        }

        #[cfg(target_family = "wasm")]
        $crate::export_plugin!(OcmPlugin);
    };
}
