//! Configuration files: `.ocmconfig` of both generations, and Docker's for credentials.
//!
//! *Invariant*: a file that was found by looking is left out as a whole when anything in it is wrong, with a warning; one that
//! was named ends the command. A file of the current folder is read only where that was asked for: it may have come with
//! a checkout, and it says where credentials go.

mod http;
mod redact;
mod transfer;

use std::path::Path;
use std::sync::Arc;

use ocm_repository::Resolver;
use ocm_repository::credentials::{
    Chain, Consumers, CredentialSource, DockerConfig, DockerConfigAt, Helpers, Pem, Secret,
};
use ocm_repository::oci::ClientConfig;
use ocm_specs::config::{self, ConfigEntry};
use ocm_specs::yaml::{self, LoadOptions, Source};
use ocm_specs::{RepositorySpec, config::has_set};
use serde_json::{Value as Json, json};

use http::HttpSettings;
pub(crate) use transfer::{CopyMode, TransferConfig, UploadType, Uploader};

use crate::environment::OLD_DOCKER_CONFIG;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// The configuration of a command.
pub(crate) struct Config {
    files: Vec<ConfigFile>,
    sets: Vec<String>,
}

struct ConfigFile {
    /// As people know it.
    name: String,
    document: Json,
}

impl Config {
    /// Reads the files that the command line names, else those that are in their usual places. A broken file is an error
    /// when it was named, and left out with a note when it was found.
    pub(crate) fn read(ui: &Ui) -> Result<Self, CliError> {
        let sets = ui.global.config_set.clone();
        let mut files = Vec::new();
        if ui.global.config.is_empty() {
            for path in ui.environment.ocm_configs() {
                match ConfigFile::read(&path, &sets) {
                    Ok(file) => files.push(file),
                    Err(error) => ui.note(&format!("warning: configuration left out: {error}\n")),
                }
            }
            for path in ui.environment.configs_left_out() {
                ui.note(&format!(
                    "warning: {} is not read, since it may have come with a checkout and say where credentials go\n  \
                     hint: name it with --config, or set {}=1\n",
                    path.display(),
                    crate::environment::TRUST_WORKING_DIRECTORY
                ));
            }
        }
        for path in &ui.global.config {
            let path = ui.environment.working_directory.join(path);
            files.push(ConfigFile::read(&path, &sets)?);
        }
        let missing = sets
            .iter()
            .find(|name| !files.iter().any(|file| has_set(&file.document, name)));
        match missing {
            Some(name) => Err(CliError::new(
                ExitCode::NotFound,
                format!("no configuration file has a set `{name}`"),
            )),
            None => Ok(Self { files, sets }),
        }
    }

    /// All entries, the one that counts least first.
    pub(crate) fn entries(&self) -> Vec<ConfigEntry<'_>> {
        let mut all = Vec::new();
        for file in &self.files {
            // It was read without an error when the file was taken up.
            all.extend(file.entries(&self.sets).unwrap_or_default());
        }
        all
    }

    /// The entries of one type, whatever its version, the one that counts least first.
    pub(crate) fn entries_of(&self, name: &str) -> Vec<&Json> {
        let entries = self.entries().into_iter();
        entries
            .filter(|entry| entry.kind == name)
            .map(|entry| entry.value)
            .collect()
    }

    /// Who knows credentials: the configuration first, then Docker's.
    pub(crate) fn credentials(&self, ui: &Ui) -> Result<Arc<dyn CredentialSource>, CliError> {
        let consumers = self.consumers()?;
        let mut sources: Vec<Arc<dyn CredentialSource>> = Vec::new();
        let helpers = ui.environment.helpers();
        if let Some(text) = ui.environment.docker_config_text() {
            let name = "the variable DOCKER_AUTH_CONFIG";
            sources.push(docker_text(text, name, &helpers)?);
        }
        for (place, at) in consumers.docker_configs() {
            match place {
                DockerConfigAt::File(written) => {
                    let path = ui.environment.expand_home(written);
                    match document(&path) {
                        Ok(json) => sources.push(docker(&json, &path.display(), &helpers)?),
                        // The Go programs write this line into every file, whether Docker is there or not.
                        Err(error) if error.code == ExitCode::NotFound => {
                            tracing::info!(%at, "there is no {}", path.display());
                        }
                        Err(error) => return Err(error.context(at)),
                    }
                }
                DockerConfigAt::Inline(text) => {
                    sources.push(docker_text(text.expose(), at, &helpers)?);
                }
                // Docker's own places are asked in any case.
                DockerConfigAt::Default => {}
            }
        }
        for path in ui.environment.docker_configs() {
            let read = document(&path).map(|json| match path.ends_with(OLD_DOCKER_CONFIG) {
                true => json!({ "auths": json }),
                false => json,
            });
            match read.and_then(|json| docker(&json, &path.display(), &helpers)) {
                Ok(source) => sources.push(source),
                Err(error) => ui.note(&format!("warning: credentials left out: {error}\n")),
            }
        }
        sources.insert(0, Arc::new(consumers));
        Ok(Arc::new(Chain(sources)))
    }

    /// How to reach hosts: what `http.config.ocm.software` entries say, and certificates of consumers.
    pub(crate) fn http(&self, client: &mut ClientConfig, ui: &Ui) -> Result<(), CliError> {
        let settings = HttpSettings::of(&self.entries())?;
        if settings.is_careless() {
            ui.note("warning: insecureSkipVerify: certificates of no host are checked\n");
        }
        settings.apply(client)?;
        for found in self.consumers()?.client_certificates()? {
            let read = |pem: &Pem| match pem {
                Pem::Inline(text) => Ok(text.clone()),
                Pem::File(path) => {
                    let path = ui.environment.expand_home(path);
                    let text = std::fs::read_to_string(&path);
                    let text = text.map_err(|error| CliError::file("read", &path, &error));
                    text.map(Secret::new)
                        .map_err(|error| error.context(&found.at))
                }
            };
            if let Some((certificate, key)) = &found.identity {
                let both = format!("{}\n{}", read(certificate)?.expose(), read(key)?.expose());
                let client = &mut client.client_certificates;
                client.insert(found.authority.clone(), Secret::new(both));
            }
            if let Some(trusted) = &found.trusted {
                let pem = read(trusted)?.expose().as_bytes().to_vec();
                client.host_authorities.insert(found.authority.clone(), pem);
            }
        }
        Ok(())
    }

    /// The effective configuration as one document, without what is secret.
    pub(crate) fn redacted(&self) -> Json {
        let entries: Vec<Json> = self.entries().iter().map(redact::entry).collect();
        json!({"type": format!("{}/v1", config::GENERIC), "configurations": entries})
    }

    /// What is configured for consumers, of both generations.
    pub(crate) fn consumers(&self) -> Result<Consumers, CliError> {
        Ok(Consumers::from_entries(&self.entries())?)
    }

    /// Where component versions are looked for: in the repositories of `--lookup`, then as `resolvers.config.ocm.software` and v1's
    /// `ocm.config.ocm.software` say.
    pub(crate) fn resolver(&self, lookup: &[String]) -> Result<Resolver, CliError> {
        let mut named: Vec<RepositorySpec> = Vec::new();
        for text in lookup {
            let spec = text.parse();
            named.push(spec.map_err(|error| CliError::usage(format!("`{text}`: {error}")))?);
        }
        Ok(Resolver::new(named).configure(&self.entries())?)
    }

    /// Defaults of `ocm transfer`, of all `transfer.config.ocm.software` entries; a later one wins field by field.
    pub(crate) fn transfer(&self) -> Result<TransferConfig, CliError> {
        TransferConfig::of(&self.entries())
    }

    /// v1's upload handlers, those of the highest priority first.
    pub(crate) fn uploaders(&self) -> Result<Vec<Uploader>, CliError> {
        Uploader::all(&self.entries())
    }

    /// Host aliases of `hostalias.config.ocm.software` entries: `aliases: {HOST: URL}`.
    pub(crate) fn host_aliases(&self) -> Vec<String> {
        let mut aliases = Vec::new();
        for entry in self.entries_of("hostalias.config.ocm.software") {
            let all = entry.get("aliases").and_then(Json::as_object);
            for (host, url) in all.into_iter().flatten() {
                aliases.extend(url.as_str().map(|url| format!("{host}={url}")));
            }
        }
        aliases
    }
}

impl ConfigFile {
    /// Reads a file and checks what it says, so that nothing in it is found wrong later.
    fn read(path: &Path, sets: &[String]) -> Result<Self, CliError> {
        let file = Self {
            name: path.display().to_string(),
            document: document(path)?,
        };
        let entries = file.entries(sets)?;
        Consumers::from_entries(&entries)?;
        Resolver::default().configure(&entries)?;
        TransferConfig::of(&entries)?;
        Uploader::all(&entries)?;
        HttpSettings::of(&entries)?;
        Ok(file)
    }

    fn entries(&self, sets: &[String]) -> Result<Vec<ConfigEntry<'_>>, CliError> {
        let entries = config::entries(&self.document, sets)
            .map_err(|error| CliError::new(ExitCode::Invalid, format!("{}: {error}", self.name)))?;
        let named = entries.into_iter().map(|entry| ConfigEntry {
            at: match entry.at.as_str() {
                "" => format!("{}:", self.name),
                at => format!("{}: {at}", self.name),
            },
            ..entry
        });
        Ok(named.collect())
    }
}

fn docker(
    document: &Json,
    name: &dyn std::fmt::Display,
    helpers: &Helpers,
) -> Result<Arc<dyn CredentialSource>, CliError> {
    let config = DockerConfig::parse(document, helpers.clone())
        .map_err(|error| error.context(name.to_string()))?;
    Ok(Arc::new(config.named(name.to_string())))
}

fn docker_text(
    text: &str,
    name: &str,
    helpers: &Helpers,
) -> Result<Arc<dyn CredentialSource>, CliError> {
    // What the parser says could repeat a secret.
    let json = serde_json::from_str(text)
        .map_err(|_| CliError::new(ExitCode::Invalid, format!("{name}: it is no JSON")))?;
    docker(&json, &name, helpers)
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
