//! The contract as checks that anybody can run against a component: what `ocm plugin test` does.
//!
//! A plugin that passes behaves in a run as its description says: whatever sizes its bytes come in, when its source breaks,
//! when its reader leaves, when it is asked again. What a check can't find out it says so: it is skipped with a reason,
//! never passed.
//!
//! ```no_run
//! # async fn test(component: bytes::Bytes) -> Result<(), ocm_content::Error> {
//! use ocm_plugins_wasm::conformance::{Options, read_fixtures, test};
//! let options = Options {
//!     fixtures: read_fixtures("examples".as_ref())?,
//!     ..Options::default()
//! };
//! let report = test(component, options).await;
//! assert!(report.is_passed(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: a plugin gets nothing here that it would not get in a run. The kit sees the calls of its own host besides what
//! they give, nothing else.

mod checks;
mod example;
mod fixture;
mod source;
mod trial;
mod variants;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ocm_content::Error;
use ocm_engine::StepType;
use ocm_specs::Digest;
use serde::Serialize;
use serde_json::Value as Json;

pub use self::fixture::{Fixture, read_fixtures};
use self::source::Data;
use crate::cache::Cache;
use crate::description::{Description, StepDescription, check_schema};
use crate::fetch::Http;
use crate::host::{Host, HostConfig, Inspected, Loaded};
use crate::limits::PluginLimits;
use crate::plugin::Plugin;
use crate::rights::{Allowed, Granted};
use crate::watch::Watch;

/// How a component is tested.
#[derive(Clone)]
pub struct Options {
    /// Limits of every call: those under which the plugin is going to run.
    pub limits: PluginLimits,
    /// Where compiled code is kept; without it the component is compiled for this test alone.
    pub cache: Option<Cache>,
    /// How granted requests are made.
    pub http: Option<Arc<dyn Http>>,
    /// The rights that the plugin gets, of those that it asks for.
    pub allowed: Allowed,
    /// Its configuration.
    pub config: Option<Json>,
    /// Steps with what they must give.
    pub fixtures: Vec<Fixture>,
    /// Are fixtures written instead of compared?
    pub bless: bool,
    /// Where large outputs of `run` go; without it those that do not fit into memory fail.
    pub temp_folder: Option<PathBuf>,
    /// The largest input, in bytes.
    pub large: u64,
    /// The step types that are tested; all of them where it is empty.
    pub only: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: PluginLimits::default(),
            cache: None,
            http: None,
            allowed: Allowed::default(),
            config: None,
            fixtures: Vec::new(),
            bless: false,
            temp_folder: None,
            large: 64 << 20,
            only: Vec::new(),
        }
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It could not be found out.
    Skipped,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The step type it is about; none when it is about the whole plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_type: Option<String>,
    /// Its name; [`CHECKS`] explains it.
    pub name: &'static str,
    /// What it came to.
    pub result: Verdict,
    /// What was found, what is wrong, or why it is skipped.
    pub detail: String,
}

/// All checks: names, and what they demand. The first four are about the plugin, the others about each of its step types.
pub const CHECKS: [(&str, &str); 14] = [
    ("component", "it is a component that fits the contract"),
    (
        "describe",
        "it says the same of itself whenever it is asked",
    ),
    (
        "schemas",
        "its schemas are JSON Schema 2020-12, bounded, and refer to nothing outside",
    ),
    (
        "description",
        "names, ports, rights and configuration are as the contract has them",
    ),
    ("examples", "its examples can stand in a spec"),
    (
        "fixtures",
        "the steps of the fixtures give what lies beside them",
    ),
    (
        "sizes",
        "inputs of no byte up to 64 MiB are worked on or refused, and never break it",
    ),
    (
        "chunks",
        "the result does not depend on the sizes in which bytes arrive",
    ),
    (
        "deterministic",
        "a step that calls itself deterministic gives the same in another run",
    ),
    (
        "broken-source",
        "an input that breaks off is an error, not an end",
    ),
    (
        "early-reader",
        "it stops soon after the reader of its output left",
    ),
    ("memory", "it stays below the memory limit"),
    (
        "errors",
        "its errors say what is wrong, and name fields that are there",
    ),
    ("quiet", "it writes nothing to standard output and error"),
];

/// What all checks came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The plugin's name, as far as it could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The digest of the component.
    pub digest: String,
    /// In the order of [`CHECKS`], step type by step type.
    pub checks: Vec<Check>,
}

impl Report {
    /// Did no check fail?
    pub fn is_passed(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }

    /// How many checks came to that.
    pub fn count(&self, verdict: Verdict) -> usize {
        let checks = self.checks.iter();
        checks.filter(|check| check.result == verdict).count()
    }

    /// A check by its name, of a step type or of the plugin.
    pub fn check(&self, step_type: Option<&str>, name: &str) -> Option<&Check> {
        let mut checks = self.checks.iter();
        checks.find(|check| check.name == name && check.step_type.as_deref() == step_type)
    }

    fn add(&mut self, step_type: Option<&str>, name: &'static str, finding: Finding) {
        let (result, detail) = match finding {
            Finding::Pass(detail) => (Verdict::Pass, detail),
            Finding::Fail(detail) => (Verdict::Fail, detail),
            Finding::Skipped(detail) => (Verdict::Skipped, detail),
        };
        self.checks.push(Check {
            step_type: step_type.map(str::to_owned),
            name,
            result,
            detail,
        });
    }

    fn skip_rest(&mut self, names: &[&'static str], reason: &str) {
        for name in names {
            self.add(None, name, Finding::Skipped(reason.to_owned()));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let about = check.step_type.as_deref().unwrap_or("-");
            let (name, result) = (check.name, check.result.as_str());
            writeln!(f, "{about} {name}: {result}: {}", check.detail)?;
        }
        Ok(())
    }
}

/// What a check found.
#[derive(Clone, Debug)]
enum Finding {
    Pass(String),
    Fail(String),
    Skipped(String),
}

/// Tests a component.
///
/// Whatever is wrong with it is in the report: this has no errors.
pub async fn test(component: Bytes, options: Options) -> Report {
    let watch = Arc::new(Watch::default());
    let config = HostConfig {
        cache: options.cache.clone(),
        limits: options.limits.clone(),
        http: options.http.clone(),
        results: None,
    };
    let kit = Kit {
        host: Host::watched(config, &watch),
        watch,
        piece: Data::piece(),
        options,
    };
    let mut report = Report {
        plugin: None,
        version: None,
        digest: Digest::sha256(&component).to_string(),
        checks: Vec::new(),
    };
    if let Some((description, plugin)) = kit.plugin(component, &mut report).await {
        report.plugin = Some(description.name.clone());
        report.version = Some(description.version.clone());
        kit.strangers(&description, &mut report);
        let only = &kit.options.only;
        for step in &description.steps {
            if only.is_empty() || only.contains(&step.name) {
                kit.step(step, &plugin, &mut report).await;
            }
        }
    }
    report
}

/// What all checks share.
struct Kit {
    options: Options,
    host: Arc<Host>,
    watch: Arc<Watch>,
    /// What made-up bytes repeat.
    piece: Bytes,
}

/// The plugin's step types, or why none can be run.
type Runnable = Result<Vec<Arc<dyn StepType>>, String>;

impl Kit {
    /// The checks that are about the plugin as a whole.
    async fn plugin(
        &self,
        component: Bytes,
        report: &mut Report,
    ) -> Option<(Arc<Description>, Runnable)> {
        const REST: [&str; 3] = ["describe", "schemas", "description"];
        let loaded = match self.load(&component).await {
            Ok(loaded) => loaded,
            Err(error) => {
                report.add(None, "component", Finding::Fail(told(&error)));
                report.skip_rest(&REST, "it is no plugin");
                return None;
            }
        };
        let size = component.len();
        report.add(None, "component", Finding::Pass(format!("{size} bytes")));

        // The second time with a real clock and real randomness: what depends on them differs.
        let first = self.host.describe(&loaded, Granted::default(), b"").await;
        let again = self
            .host
            .describe(&loaded, Granted::surroundings(), b"again")
            .await;
        let plugin = match (first, again) {
            (Ok(first), Ok(again)) if format!("{first:?}") == format!("{again:?}") => first,
            (Ok(_), Ok(_)) => {
                let message = "it said something else the second time: a description must not depend on anything";
                report.add(None, "describe", Finding::Fail(message.to_owned()));
                report.skip_rest(&REST[1..], "see `describe`");
                return None;
            }
            (Err(error), _) | (_, Err(error)) => {
                report.add(None, "describe", Finding::Fail(told(&error)));
                report.skip_rest(&REST[1..], "it does not say what it is");
                return None;
            }
        };
        let count = plugin.steps.len();
        let described = format!("{count} step types, the same twice");
        report.add(None, "describe", Finding::Pass(described));

        let mut schemas = vec![(
            "its configuration".to_owned(),
            plugin.config_schema.as_str(),
        )];
        for step in &plugin.steps {
            let name = format!("{}/{}", step.name, step.version);
            schemas.push((format!("the spec of `{name}`"), &step.spec_schema));
            schemas.push((format!("the output of `{name}`"), &step.output_schema));
        }
        schemas.retain(|(what, text)| !(what == "its configuration" && text.is_empty()));
        let wrong = schemas
            .iter()
            .find_map(|(what, text)| schema_of_the_draft(what, text).err());
        if let Some(wrong) = wrong {
            report.add(None, "schemas", Finding::Fail(wrong));
            report.skip_rest(&REST[2..], "see `schemas`");
            return None;
        }
        let checked = format!("{} schemas", schemas.len());
        report.add(None, "schemas", Finding::Pass(checked));

        let plugin = self.described(component, plugin, loaded);
        match plugin {
            Ok((description, runnable)) => {
                let asks = match description.needs.len() {
                    0 => "asks for no rights".to_owned(),
                    count => format!("asks for {count} rights"),
                };
                report.add(None, "description", Finding::Pass(asks));
                Some((description, runnable))
            }
            Err(error) => {
                report.add(None, "description", Finding::Fail(told(&error)));
                None
            }
        }
    }

    async fn load(&self, component: &Bytes) -> Result<Loaded, Error> {
        crate::host::check_form(component)?;
        if self.host.cache().is_some() {
            // Puts it into the cache; what is wrong with it is found below.
            let _ = self.host.inspect(component.clone(), None).await;
        }
        let digest = Digest::sha256(component);
        self.host.load(&digest, component).await
    }

    fn described(
        &self,
        component: Bytes,
        plugin: crate::bindings::exports::ocm::transformer::transform::Plugin,
        loaded: Loaded,
    ) -> Result<(Arc<Description>, Runnable), Error> {
        let description = Arc::new(Description::check(plugin)?);
        self.host.check_needs(&description, &loaded)?;
        let inspected = Inspected {
            digest: Digest::sha256(&component),
            bytes: component,
            description: description.clone(),
        };
        let (name, needs) = (&description.name, &description.needs);
        let runnable = match Granted::new(name, needs, None, &self.options.allowed) {
            Ok(granted) => {
                let config = self.options.config.as_ref();
                let plugin = Plugin::with_code(&self.host, inspected, granted, config, loaded)?;
                Ok(plugin.step_types()?)
            }
            Err(error) => Err(error.to_string()),
        };
        Ok((description, runnable))
    }

    /// Step types that the plugin does not have, and fixtures of others.
    fn strangers(&self, description: &Description, report: &mut Report) {
        let has = |name: &str| description.steps.iter().any(|step| step.name == name);
        if let Some(name) = self.options.only.iter().find(|name| !has(name)) {
            let message = format!("the plugin does not have the step type `{name}`");
            report.add(None, "description", Finding::Fail(message));
        }
        for fixture in &self.options.fixtures {
            let name = fixture.step_type();
            if !has(&name) {
                let message = format!(
                    "fixture `{}` has a step of the type `{name}`, which the plugin does not have",
                    fixture.name
                );
                report.add(None, "fixtures", Finding::Fail(message));
            }
        }
    }

    /// The checks of one step type.
    async fn step(&self, step: &StepDescription, runnable: &Runnable, report: &mut Report) {
        let all: Vec<&str> = CHECKS[4..].iter().map(|(name, _)| *name).collect();
        let types = match runnable {
            Ok(types) => types,
            Err(reason) => {
                for name in all {
                    report.add(Some(&step.name), name, Finding::Skipped(reason.clone()));
                }
                return;
            }
        };
        let found = types.iter().find(|known| known.info().name == step.name);
        let Some(step_type) = found.cloned() else {
            return;
        };
        let mut trials = checks::Trials::new(self, step, types, step_type);
        for (name, finding) in trials.all().await {
            report.add(Some(&step.name), name, finding);
        }
    }
}

/// A schema of the draft that the contract names.
fn schema_of_the_draft(what: &str, text: &str) -> Result<(), String> {
    let read = check_schema(what, text).map_err(|error| error.to_string())?;
    match read.get("$schema").and_then(Json::as_str) {
        None => Ok(()),
        Some(draft)
            if draft.trim_end_matches('#') == "https://json-schema.org/draft/2020-12/schema" =>
        {
            Ok(())
        }
        Some(draft) => Err(format!(
            "{what} is of `{}`, not of draft 2020-12",
            crate::limits::cut(draft.to_owned(), 120).escape_debug()
        )),
    }
}

fn told(error: &Error) -> String {
    match error.hint() {
        Some(hint) if hint != crate::host::THEIRS => format!("{error} ({hint})"),
        _ => error.to_string(),
    }
}
