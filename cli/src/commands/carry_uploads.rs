//! Where resources land: upload configurations from files and the configuration, v1's handlers from both and from
//! `--uploader`.

use std::path::PathBuf;

use ocm_specs::yaml::{self, LoadOptions, Source};
use ocm_transformers::generate::{Handler, OVERRIDE_TYPE, Override};
use serde_json::Value as Json;

use crate::config::{Config, Uploader};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// The only handler of v1 that is available.
const OCI_ARTIFACTS: &str = "ocm/ociArtifacts";

/// The overrides of all files and entries of the configuration, those of files first.
pub(crate) fn overrides(
    files: &[PathBuf],
    config: &Config,
    ui: &Ui,
) -> Result<Vec<Override>, CliError> {
    let mut found: Vec<Override> = Vec::new();
    let mut add = |list: Vec<Override>| {
        for one in list {
            let is_same = |it: &Override| {
                it.reference_path == one.reference_path && it.resource == one.resource
            };
            if !found.iter().any(is_same) {
                found.push(one);
            }
        }
    };
    for file in files {
        let path = ui.environment.working_directory.join(file);
        let text =
            std::fs::read_to_string(&path).map_err(|error| CliError::file("read", file, &error))?;
        let source = Source::new(file.display().to_string(), text);
        let node = yaml::load(&source, &LoadOptions::default())
            .map_err(|error| CliError::new(ExitCode::Invalid, error.located(&source)))?;
        let list = Override::list(&node.to_json())
            .map_err(|error| error.context(file.display().to_string()))?;
        add(list);
    }
    for entry in config.entries_of(OVERRIDE_TYPE) {
        add(Override::list(entry).map_err(|error| error.context("configuration"))?);
    }
    Ok(found)
}

/// v1's handlers, those of the command line first.
pub(crate) fn handlers(
    arguments: &[String],
    config: &Config,
    ui: &Ui,
) -> Result<Vec<Handler>, CliError> {
    let mut given = Vec::new();
    for argument in arguments {
        given.push(argument_handler(argument)?);
    }
    given.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let mut handlers: Vec<Handler> = given.into_iter().map(|(_, handler)| handler).collect();
    for uploader in config.uploaders()? {
        handlers.extend(configured(&uploader, ui)?);
    }
    Ok(handlers)
}

/// `NAME[:TYPE[:MEDIATYPE[:PRIORITY]]]=PLACE`.
fn argument_handler(argument: &str) -> Result<(i64, Handler), CliError> {
    let usage = |why: &str| {
        CliError::usage(format!("--uploader `{argument}`: {why}")).with_hint(
            "write ocm/ociArtifacts[:TYPE[:MEDIATYPE[:PRIORITY]]]=REGISTRY/PATH, as in ocm/ociArtifacts=ghcr.io/acme",
        )
    };
    let (what, place) = argument
        .split_once('=')
        .ok_or_else(|| usage("there is no `=`"))?;
    let mut parts = what.split(':');
    if parts.next() != Some(OCI_ARTIFACTS) {
        return Err(usage("this handler is not available"));
    }
    let mut part = || parts.next().filter(|it| !it.is_empty()).map(str::to_owned);
    let (artifact_type, media_type, priority) = (part(), part(), part());
    let priority = priority.map_or(Ok(100), |it| it.parse::<i64>());
    let below =
        below(&Json::from(place.trim_matches('"'))).ok_or_else(|| usage("it names no place"))?;
    let handler = Handler {
        artifact_type,
        media_type,
        only_registries: false,
        below,
    };
    Ok((
        priority.map_err(|_| usage("the priority is no number"))?,
        handler,
    ))
}

/// A handler of the configuration; those of other technologies are told of and left out.
fn configured(uploader: &Uploader, ui: &Ui) -> Result<Option<Handler>, CliError> {
    if uploader.name != OCI_ARTIFACTS {
        ui.note(&format!(
            "note: {}: the handler `{}` is not available, its artifacts are stored beside their descriptors\n",
            uploader.at, uploader.name
        ));
        return Ok(None);
    }
    let below = below(&uploader.config).ok_or_else(|| {
        let message = format!("{}.config: it names no place", uploader.at);
        CliError::new(ExitCode::Invalid, message)
            .with_hint("write config: {ociRef: REGISTRY/PATH}, as in ghcr.io/acme")
    })?;
    Ok(Some(Handler {
        artifact_type: uploader.artifact_type.clone(),
        // What the design's own example says of it: it does not tell one OCI artifact from another.
        media_type: uploader
            .media_type
            .clone()
            .filter(|it| it != "application/vnd.oci.artifact"),
        only_registries: uploader.repository_type.is_some(),
        below,
    }))
}

/// Host and path of a handler's configuration: a text, or an object with `ociRef` or `repository`.
fn below(config: &Json) -> Option<String> {
    let text = match config {
        Json::String(text) if text.trim_start().starts_with('{') => {
            return below(&serde_json::from_str(text).ok()?);
        }
        Json::String(text) => text.as_str(),
        config => ["ociRef", "repository"]
            .iter()
            .find_map(|name| config.get(name)?.as_str())?,
    };
    let text = text.strip_prefix("https://").unwrap_or(text);
    let text = text.trim_end_matches('/');
    (!text.is_empty()).then(|| text.to_owned())
}
