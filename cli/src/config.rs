//! Configuration files: `.ocmconfig` of both generations, and Docker's for credentials.

use std::path::Path;
use std::sync::Arc;

use ocm_repository::credentials::{
    Chain, Consumers, CredentialSource, DockerConfig, DockerConfigAt, Helpers,
};
use ocm_repository::oci::ClientConfig;
use ocm_specs::yaml::{self, LoadOptions, Source};
use serde_json::Value as Json;

use crate::error::{CliError, ExitCode};
use crate::http;
use crate::ui::Ui;

/// The configuration of a command.
pub(crate) struct Config {
    documents: Vec<Json>,
}

impl Config {
    /// Reads the files that the command line names, else those that are in their usual places. A broken file is an error
    /// when it was named, and left out with a note when it was found.
    pub(crate) fn read(ui: &Ui) -> Result<Self, CliError> {
        let mut documents = Vec::new();
        if !ui.global.config.is_empty() {
            for path in &ui.global.config {
                documents.push(document(&ui.environment.working_directory.join(path))?);
            }
            return Ok(Self { documents });
        }
        for path in ui.environment.ocm_configs() {
            match document(&path) {
                Ok(document) => documents.push(document),
                Err(error) => ui.note(&format!("warning: configuration left out: {error}\n")),
            }
        }
        Ok(Self { documents })
    }

    /// Who knows credentials: the configuration first, then Docker's.
    pub(crate) fn credentials(&self, ui: &Ui) -> Result<Arc<dyn CredentialSource>, CliError> {
        // A later document wins, and the first of equals is asked first.
        let consumers = Consumers::from_documents(self.documents.iter().rev())?;
        let mut sources: Vec<Arc<dyn CredentialSource>> = Vec::new();
        let helpers = ui.environment.helpers();
        for place in consumers.docker_configs() {
            match place {
                DockerConfigAt::File(path) => {
                    let path = ui.environment.expand_home(path);
                    sources.push(docker(&document(&path)?, helpers.clone())?);
                }
                DockerConfigAt::Inline(text) => {
                    let json = serde_json::from_str(text.expose()).map_err(|_| {
                        CliError::new(
                            ExitCode::Invalid,
                            "the inline Docker configuration is no JSON",
                        )
                    })?;
                    sources.push(docker(&json, helpers.clone())?);
                }
                // Docker's own places are asked in any case.
                DockerConfigAt::Default => {}
            }
        }
        for path in ui.environment.docker_configs() {
            match document(&path).and_then(|json| docker(&json, helpers.clone())) {
                Ok(source) => sources.push(source),
                Err(error) => ui.note(&format!("warning: {}: {error}\n", path.display())),
            }
        }
        sources.insert(0, Arc::new(consumers));
        Ok(Arc::new(Chain(sources)))
    }

    /// How to wait and try again, as `http.config.ocm.software` entries say; a later one wins.
    pub(crate) fn http(&self, client: &mut ClientConfig) -> Result<(), CliError> {
        for entry in self.documents.iter().flat_map(entries) {
            let kind = entry.get("type").and_then(Json::as_str).unwrap_or_default();
            if kind.split('/').next() == Some(http::TYPE) {
                http::apply(entry, client)?;
            }
        }
        Ok(())
    }

    /// What is configured for consumers, of both generations.
    pub(crate) fn consumers(&self) -> Result<Consumers, CliError> {
        // A later document wins, and the last of equals is found.
        Ok(Consumers::from_documents(self.documents.iter())?)
    }

    /// The entries of one type, whatever its version, those of the file with the lowest priority first.
    pub(crate) fn entries_of<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c Json> {
        self.documents
            .iter()
            .flat_map(entries)
            .filter(move |entry| {
                let kind = entry.get("type").and_then(Json::as_str).unwrap_or_default();
                kind.split('/').next() == Some(name)
            })
    }

    /// Host aliases of `hostalias.config.ocm.software` entries: `aliases: {HOST: URL}`.
    pub(crate) fn host_aliases(&self) -> Vec<String> {
        let mut aliases = Vec::new();
        for entry in self.documents.iter().flat_map(entries) {
            let kind = entry.get("type").and_then(Json::as_str).unwrap_or_default();
            if kind.split('/').next() != Some("hostalias.config.ocm.software") {
                continue;
            }
            for (host, url) in entry
                .get("aliases")
                .and_then(Json::as_object)
                .into_iter()
                .flatten()
            {
                aliases.extend(url.as_str().map(|url| format!("{host}={url}")));
            }
        }
        aliases
    }
}

/// The entries of a generic configuration; any other document is its own only entry.
fn entries(document: &Json) -> Vec<&Json> {
    match document.get("configurations").and_then(Json::as_array) {
        Some(list) => list.iter().collect(),
        None => vec![document],
    }
}

fn docker(document: &Json, helpers: Helpers) -> Result<Arc<dyn CredentialSource>, CliError> {
    Ok(Arc::new(DockerConfig::parse(document, helpers)?))
}

fn document(path: &Path) -> Result<Json, CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))?;
    let source = Source::new(path.display().to_string(), text);
    match yaml::load(&source, &LoadOptions::default()) {
        Ok(node) => Ok(node.to_json()),
        Err(error) => Err(CliError::new(ExitCode::Invalid, error.located(&source))),
    }
}
