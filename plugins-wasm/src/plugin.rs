//! A plugin in a run: its code, its rights, its configuration, and what it says of specs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ocm_content::{Error, ErrorKind};
use ocm_engine::{StepError, StepType};
use ocm_specs::Digest;
use serde_json::{Value as Json, json};
use tokio::sync::OnceCell;

use crate::bindings::ocm::transformer::types;
use crate::description::Description;
use crate::host::{Answer, Ask, Host, Inspected, Loaded, THEIRS, unusable};
use crate::limits::{ERROR_TEXT, cut};
use crate::memo::Subject;
use crate::rights::Granted;
use crate::step::PluginStep;
use crate::store::{Setting, Warn, store};

/// A plugin with its rights and its configuration.
pub struct Plugin {
    pub(crate) host: Arc<Host>,
    pub(crate) name: Arc<str>,
    digest: Digest,
    bytes: Bytes,
    description: Arc<Description>,
    pub(crate) granted: Granted,
    config: String,
    loaded: OnceCell<Loaded>,
    /// Digests of types with specs that the plugin has nothing against: what is asked again when the step runs, after the
    /// plan has asked, and step by step where many are alike.
    valid: Mutex<BTreeSet<Digest>>,
}

/// How many valid specs are remembered.
const VALID: usize = 10_000;

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// A plugin that may do what `granted` says.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the configuration does not fit.
    pub fn new(
        host: &Arc<Host>,
        inspected: Inspected,
        granted: Granted,
        config: Option<&Json>,
    ) -> Result<Arc<Self>, Error> {
        inspected.description.check_config(config)?;
        Ok(Arc::new(Self {
            host: host.clone(),
            name: inspected.description.name.as_str().into(),
            digest: inspected.digest,
            bytes: inspected.bytes,
            description: inspected.description,
            granted,
            config: config.map(ToString::to_string).unwrap_or_default(),
            loaded: OnceCell::new(),
            valid: Mutex::default(),
        }))
    }

    /// The same for a component whose code is here already.
    ///
    /// # Errors
    /// Those of [`Plugin::new`].
    pub(crate) fn with_code(
        host: &Arc<Host>,
        inspected: Inspected,
        granted: Granted,
        config: Option<&Json>,
        code: Loaded,
    ) -> Result<Arc<Self>, Error> {
        let plugin = Self::new(host, inspected, granted, config)?;
        // Nobody else knows of the plugin yet, so the place is free.
        let _ = plugin.loaded.set(code);
        Ok(plugin)
    }

    /// What it says of itself.
    pub fn description(&self) -> &Arc<Description> {
        &self.description
    }

    /// The digest of its component.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it may do.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    /// What its steps do besides their inputs: its code, its configuration and its rights.
    pub(crate) fn identity(&self) -> String {
        let parts = json!([
            self.digest.to_string(),
            self.config,
            self.granted.rights().to_string()
        ]);
        Digest::sha256(parts.to_string().as_bytes()).to_string()
    }

    /// Its step types, to be added to a table.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when a schema can't be used, which the description's check rules out.
    pub fn step_types(self: &Arc<Self>) -> Result<Vec<Arc<dyn StepType>>, Error> {
        let steps = self.description.steps.iter();
        steps
            .map(|step| Ok(Arc::new(PluginStep::new(self, step)?) as Arc<dyn StepType>))
            .collect()
    }

    /// Makes its code ready: from the cache if it is there, else compiled. The first call does that otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the component can't be run.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.loaded().await.map(|_| ())
    }

    pub(crate) async fn loaded(&self) -> Result<&Loaded, Error> {
        self.loaded
            .get_or_try_init(|| self.host.load(&self.digest, &self.bytes))
            .await
    }

    /// What the plugin has to say against a spec without ports, by the fields it is about. It sees the same world whenever
    /// it is asked, so that it is not asked again about what it found to be well.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn validate(&self, step_type: &str, spec: &Json) -> Result<Vec<StepError>, Error> {
        let question = Digest::sha256(format!("{step_type}\n{spec}").as_bytes());
        let known = || self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&question) {
            return Ok(Vec::new());
        }
        let subject = self.subject(step_type);
        if let Some(subject) = &subject
            && subject.was_valid(spec).await
        {
            return Ok(Vec::new());
        }
        let errors = self.ask(step_type, spec).await?;
        if errors.is_empty() && known().len() < VALID {
            known().insert(question);
        }
        if let (Some(subject), true) = (subject, errors.is_empty()) {
            subject.is_valid(spec).await;
        }
        Ok(errors)
    }

    /// What is remembered of steps of that type, if anything is.
    pub(crate) fn subject<'a>(&'a self, step_type: &'a str) -> Option<Subject<'a>> {
        Some(Subject {
            results: self.host.results()?,
            plugin: &self.digest,
            config: &self.config,
            step_type,
        })
    }

    async fn ask(&self, step_type: &str, spec: &Json) -> Result<Vec<StepError>, Error> {
        let limits = self.host.limits();
        let setting = Setting {
            limits: crate::limits::PluginLimits {
                memory: limits.ask_memory,
                // The answer has a limit of its own, which is the one to be told of.
                stall: limits.ask * 2,
                ..limits.clone()
            },
            granted: Granted::default(),
            http: None,
            ..self.setting("", Digest::sha256(b""), None)
        };
        let store = store(&self.host, setting).map_err(|error| unusable(&error))?;
        let ask = Ask::Validate {
            step_type: step_type.to_owned(),
            spec: spec.to_string(),
            config: self.config.clone(),
        };
        let (answer, _) = self
            .host
            .call_within(limits.ask, self.loaded().await?, store, ask)
            .await;
        match answer? {
            Answer::Validated(errors) => Ok(errors
                .into_iter()
                .map(|error| self.step_error(error, None))
                .collect()),
            _ => Err(Error::internal("a plugin answered another question")),
        }
    }

    pub(crate) fn setting(&self, step: &str, seed: Digest, warn: Option<Warn>) -> Setting {
        Setting {
            plugin: self.name.clone(),
            step: step.into(),
            limits: self.host.limits().clone(),
            granted: self.granted.clone(),
            http: self.host.http(),
            seed,
            run: None,
            warn,
        }
    }

    /// An error of the guest as one of the step. `cause` is what the host knows of a failed port.
    pub(crate) fn step_error(&self, error: types::StepError, cause: Option<Error>) -> StepError {
        let kind = match error.kind {
            types::ErrorKind::InvalidSpec | types::ErrorKind::InvalidContent => ErrorKind::Invalid,
            types::ErrorKind::Denied => ErrorKind::Denied,
            types::ErrorKind::Unavailable => ErrorKind::Unavailable,
            types::ErrorKind::ContentIo => ErrorKind::Io,
            types::ErrorKind::Internal => ErrorKind::Internal,
        };
        let port = error.port.map(|port| clean(port, 80));
        let (message, hint) = (
            clean(error.message, ERROR_TEXT),
            error.hint.map(|hint| clean(hint, ERROR_TEXT)),
        );
        let place = match (&port, error.offset) {
            (Some(port), Some(offset)) => format!(" (port `{port}`, byte {offset})"),
            (Some(port), None) => format!(" (port `{port}`)"),
            (None, Some(offset)) => format!(" (byte {offset})"),
            (None, None) => String::new(),
        };
        // Only the host knows what a failed stream failed of, and the kind of that decides the exit code.
        let mut told = match cause.filter(|_| kind == ErrorKind::Io || kind == ErrorKind::Denied) {
            Some(cause) => match &port {
                Some(port) => cause.context(format!("port `{port}`")),
                None => cause,
            },
            None if kind == ErrorKind::Internal => {
                Error::new(kind, format!("plugin `{}`: {message}{place}", self.name))
                    .with_hint(THEIRS)
            }
            None => Error::new(kind, format!("{message}{place}")),
        };
        if let Some(hint) = hint.filter(|_| told.hint().is_none()) {
            told = told.with_hint(hint);
        }
        match error.field {
            Some(field) => StepError::at(path(&clean(field, 500)), told),
            None => told.into(),
        }
    }

    pub(crate) fn fault(&self, message: impl std::fmt::Display) -> Error {
        Error::internal(format!("plugin `{}` {message}", self.name)).with_hint(THEIRS)
    }
}

/// One line of at most `limit` bytes.
pub(crate) fn clean(text: String, limit: usize) -> String {
    cut(text, limit)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A JSON pointer as people write paths: `/rules/2/pattern` is `rules[2].pattern`.
fn path(pointer: &str) -> String {
    let mut out = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.parse::<u32>().is_ok() {
            out.push_str(&format!("[{part}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_as_paths() {
        for (pointer, expected) in [
            ("/rules/2/pattern", "rules[2].pattern"),
            ("/a~1b/c", "a/b.c"),
            ("", ""),
            ("plain", "plain"),
        ] {
            assert_eq!(path(pointer), expected);
        }
    }
}
