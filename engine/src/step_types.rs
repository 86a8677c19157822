//! The table of step types: names, schemas, and the code behind them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::BoxFuture;
use ocm_content::{Error, ErrorKind};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use crate::content_ref::{CONTENT_KEYWORD, MEDIA_TYPES_KEYWORD};
use crate::context::StepContext;
use crate::error::StepError;
use crate::step::{Effect, Outcome, Transformer};

/// Everything the engine and its users may know about a step type without running it.
#[derive(Clone, Debug)]
pub struct StepTypeInfo {
    /// `Name/version`.
    pub name: String,
    /// Other spellings.
    pub aliases: Vec<String>,
    /// One sentence.
    pub summary: String,
    /// A step as a user would write it (YAML).
    pub example: String,
    /// What running it again means.
    pub effect: Effect,
    /// Do equal inputs give equal outputs?
    pub deterministic: bool,
    /// The digest of the code behind it, where that is not part of this program: two steps of one name and other code do
    /// other work.
    pub implementation: Option<String>,
    /// JSON Schema (2020-12) of `spec`.
    pub spec_schema: Json,
    /// JSON Schema (2020-12) of `output`.
    pub output_schema: Json,
    /// Top-level fields of `spec` that carry content.
    pub inputs: Vec<Port>,
    /// Top-level fields of `output` that carry content.
    pub outputs: Vec<Port>,
}

/// A named place for content on a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The field's name.
    pub name: String,
    /// Must it be given?
    pub required: bool,
    /// Media types that it takes or gives, perhaps with a `*` at their end; empty where that is not known beforehand.
    pub media_types: Vec<String>,
}

/// A step type behind the table: what built-in types, plugins and test toys have in common.
pub trait StepType: Send + Sync + 'static {
    /// What it is. May be made when it is asked for first: a program knows many more types than a spec uses.
    fn info(&self) -> &StepTypeInfo;

    /// Its name and its other spellings, as [`StepType::info`] has them.
    fn names(&self) -> Vec<&str> {
        let info = self.info();
        let aliases = info.aliases.iter().map(String::as_str);
        std::iter::once(info.name.as_str()).chain(aliases).collect()
    }

    /// Runs one step with `spec` as evaluated and validated.
    fn run(
        &self,
        cx: StepContext,
        spec: Json,
    ) -> BoxFuture<'static, Result<Outcome<Json>, StepError>>;

    /// Has the type more to say against inputs than its schema?
    fn validates(&self) -> bool {
        false
    }

    /// Says what no schema can against inputs that are known before the run: `spec` is evaluated and has no ports. Asked
    /// while planning, of types that [`StepType::validates`].
    ///
    /// Implementors owe: no effects, the same answer to the same question, and an end of their own.
    ///
    /// # Errors
    /// When the type can't be asked; what it then has to say is left for the run.
    fn validate(&self, _spec: Json) -> BoxFuture<'static, Result<Vec<StepError>, Error>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// All step types of a program, by name.
#[derive(Clone, Default)]
pub struct StepTypes {
    types: BTreeMap<String, Arc<dyn StepType>>,
    aliases: BTreeMap<String, String>,
}

impl StepTypes {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a built-in type.
    ///
    /// # Panics
    /// When the name is taken: a mistake of the program, found by its first test.
    #[must_use]
    pub fn with<T: Transformer>(mut self, transformer: T) -> Self {
        assert!(
            self.add(Arc::new(BuiltIn::new(transformer))).is_ok(),
            "step type {} is added twice",
            T::TYPE
        );
        self
    }

    /// Adds any type, as plugins do.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when its name or an alias is taken.
    pub fn add(&mut self, step_type: Arc<dyn StepType>) -> Result<(), Error> {
        let names: Vec<String> = step_type.names().into_iter().map(str::to_owned).collect();
        if let Some(name) = names.iter().find(|name| self.get(name).is_some()) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("there is a step type `{name}` already"),
            ));
        }
        let mut names = names.into_iter();
        let name = names
            .next()
            .ok_or_else(|| Error::internal("a step type without a name"))?;
        let aliases = names.map(|alias| (alias, name.clone()));
        self.aliases.extend(aliases);
        self.types.insert(name, step_type);
        Ok(())
    }

    /// The type of that name or alias.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn StepType>> {
        self.types
            .get(name)
            .or_else(|| self.types.get(self.aliases.get(name)?))
    }

    /// All types, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn StepType>> {
        self.types.values()
    }

    /// All names and aliases, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.types
            .keys()
            .chain(self.aliases.keys())
            .map(String::as_str)
    }
}

/// A [`Transformer`] with its types erased: JSON in, JSON out.
struct BuiltIn<T> {
    info: OnceLock<StepTypeInfo>,
    transformer: Arc<T>,
}

impl<T: Transformer> BuiltIn<T> {
    fn new(transformer: T) -> Self {
        Self {
            info: OnceLock::new(),
            transformer: Arc::new(transformer),
        }
    }

    fn describe() -> StepTypeInfo {
        let (spec_schema, output_schema) = (schema_of::<T::Spec>(), schema_of::<T::Output>());
        StepTypeInfo {
            name: T::TYPE.to_owned(),
            aliases: T::ALIASES.iter().map(|alias| (*alias).to_owned()).collect(),
            summary: T::SUMMARY.to_owned(),
            example: T::EXAMPLE.to_owned(),
            effect: T::EFFECT,
            deterministic: T::DETERMINISTIC,
            implementation: None,
            inputs: ports(&spec_schema),
            outputs: ports(&output_schema),
            spec_schema,
            output_schema,
        }
    }
}

impl<T: Transformer> StepType for BuiltIn<T> {
    fn info(&self) -> &StepTypeInfo {
        self.info.get_or_init(Self::describe)
    }

    fn names(&self) -> Vec<&str> {
        std::iter::once(T::TYPE)
            .chain(T::ALIASES.iter().copied())
            .collect()
    }

    fn run(
        &self,
        cx: StepContext,
        spec: Json,
    ) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        let transformer = self.transformer.clone();
        Box::pin(async move {
            let spec: T::Spec = serde_json::from_value(spec).map_err(|error| {
                StepError::invalid(format!("the inputs do not fit `{}`: {error}", T::TYPE))
            })?;
            let run = AssertUnwindSafe(transformer.run(cx, spec)).catch_unwind();
            let outcome = run.await.map_err(|panic| panicked(panic.as_ref()))??;
            let output = serde_json::to_value(outcome.output)
                .map_err(|error| Error::internal(format!("output of `{}`: {error}", T::TYPE)))?;
            Ok(Outcome {
                output,
                publish: outcome.publish,
            })
        })
    }
}

/// A panic inside a step is that step's error.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> StepError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::internal(format!("the step panicked: {text}")).into()
}

fn schema_of<T: JsonSchema>() -> Json {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Top-level fields marked as content, directly or as the only non-null branch of an option.
fn ports(schema: &Json) -> Vec<Port> {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let Some(fields) = schema.get("properties").and_then(Json::as_object) else {
        return Vec::new();
    };
    fields
        .iter()
        .filter(|(_, field)| is_content(field))
        .map(|(name, field)| Port {
            name: name.clone(),
            required: required.contains(&name.as_str()),
            media_types: media_types(field),
        })
        .collect()
}

fn media_types(field: &Json) -> Vec<String> {
    let list = field.get(MEDIA_TYPES_KEYWORD).and_then(Json::as_array);
    let words = list.into_iter().flatten().filter_map(Json::as_str);
    words.map(str::to_owned).collect()
}

fn is_content(field: &Json) -> bool {
    let marked = |schema: &Json| schema.get(CONTENT_KEYWORD) == Some(&Json::Bool(true));
    marked(field)
        || ["anyOf", "oneOf"]
            .iter()
            .filter_map(|keyword| field.get(keyword)?.as_array())
            .any(|branches| branches.iter().any(marked))
}
