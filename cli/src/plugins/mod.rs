//! Plugins of a command: which there are, where they come from, what they may do.
//!
//! *Invariant*: nothing of a plugin runs before its bytes have the digest that they are pinned to and, where a signature is
//! wanted, the component version that they come from has it. All that is refused is refused before any step starts.

mod http;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ocm_engine::StepTypes;
use ocm_plugins_wasm::{
    Allowed, Cache, Description, Granted, Host, HostConfig, Inspected, Plugin, PluginLimits, Rights,
};
use ocm_repository::Session;
use ocm_specs::Digest;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics};
use ocm_specs::transfer::{PluginSpec, TransferSpec, Word};
use ocm_specs::yaml::{Node, Span};

pub(crate) use self::source::{
    Fetched, MEDIA_TYPE, Origin, SourceOptions, fetch, read_file, target,
};
use crate::args::PluginArgs;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// The host of plugins: one per process.
pub(crate) fn host(
    ui: &Ui,
    args: Option<&PluginArgs>,
    session: Option<&Arc<Session>>,
) -> Arc<Host> {
    let mut limits = PluginLimits::default();
    if let Some(args) = args {
        limits.memory = usize::try_from(args.plugin_memory).unwrap_or(usize::MAX);
        limits.stall = args.plugin_stall;
    }
    Host::new(HostConfig {
        cache: cache(ui),
        limits,
        http: session.map(http::requests),
    })
}

/// Where plugins are kept.
pub(crate) fn cache(ui: &Ui) -> Option<Cache> {
    ui.environment
        .cache_folder()
        .map(|folder| Cache::new(folder.join("wasm")))
}

/// Adds the step types of the plugins that a spec and the command line name; writes the digests into the spec.
pub(crate) async fn add(
    types: &mut StepTypes,
    spec: &mut TransferSpec,
    args: &PluginArgs,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<(), CliError> {
    merge(spec, args)?;
    let mut allowed = allowed(args)?;
    if let Some(name) = allowed
        .keys()
        .find(|name| !spec.plugins.iter().any(|plugin| plugin.name.text == **name))
    {
        return Err(CliError::usage(format!(
            "--allow-plugin {name}: there is no plugin `{name}`"
        ))
        .with_hint("name one of the spec's `plugins` or of --plugin"));
    }
    if spec.plugins.is_empty() {
        return Ok(());
    }
    let host = host(ui, Some(args), Some(session));
    let source = spec.source.clone();
    let mut findings = Vec::new();
    for entry in &mut spec.plugins {
        let allowed = allowed.remove(&entry.name.text).unwrap_or_default();
        match one(entry, &allowed, &host, args, session, ui).await {
            Ok(plugin) => {
                for step_type in plugin.step_types()? {
                    let name = step_type.info().name.clone();
                    if types.add(step_type).is_err() {
                        let message = format!(
                            "plugin `{}` has a step type `{name}`, which is there already",
                            entry.name.text
                        );
                        findings.push(Diagnostic::error(entry.name.span, message));
                    }
                }
                ui.note(&format!("{}\n", line(&plugin)));
            }
            Err(error) => return Err(at(error, entry.span, &source)),
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    Err(Diagnostics::new(source, findings).into())
}

/// What people are told of a plugin before it runs.
fn line(plugin: &Plugin) -> String {
    let description = plugin.description();
    format!(
        "plugin {} {}: {}, rights: {}",
        description.name,
        description.version,
        plugin.digest(),
        plugin.granted().rights()
    )
}

/// The error with the place of the entry it is about, unless that came from the command line.
fn at(error: CliError, span: Span, source: &Arc<ocm_specs::yaml::Source>) -> CliError {
    if span == Span::default() {
        return error;
    }
    let place = source.position(span.start);
    CliError {
        message: format!(
            "{}:{}:{}: {}",
            source.name(),
            place.line,
            place.column,
            error.message
        ),
        ..error
    }
}

/// Puts the plugins of the command line into the spec.
fn merge(spec: &mut TransferSpec, args: &PluginArgs) -> Result<(), CliError> {
    for text in &args.plugin {
        let usage = |why: &str| {
            CliError::usage(format!("--plugin {text}: {why}"))
                .with_hint("write NAME=SOURCE@DIGEST, as in scrub=./scrub.wasm@sha256:…")
        };
        let (name, rest) = text
            .split_once('=')
            .ok_or_else(|| usage("there is no `=`"))?;
        let pinned = rest
            .rsplit_once('@')
            .and_then(|(source, digest)| Some((source, digest.parse::<Digest>().ok()?)));
        let (source, digest) = match pinned {
            Some((source, digest)) => (source, Some(digest)),
            None => (rest, None),
        };
        if name.is_empty() || source.is_empty() {
            return Err(usage("a part is empty"));
        }
        let word = |text: String| Word::new(text, Span::default());
        let digest = digest.map(|digest| word(digest.to_string()));
        match spec
            .plugins
            .iter_mut()
            .find(|plugin| plugin.name.text == name)
        {
            Some(known) => {
                known.source = Some(word(source.to_owned()));
                known.digest = digest.or_else(|| known.digest.take());
            }
            None => spec.plugins.push(PluginSpec {
                name: word(name.to_owned()),
                source: Some(word(source.to_owned())),
                digest,
                signature: None,
                rights: None,
                config: None,
                span: Span::default(),
            }),
        }
    }
    Ok(())
}

fn allowed(args: &PluginArgs) -> Result<BTreeMap<String, Allowed>, CliError> {
    let mut all: BTreeMap<String, Allowed> = BTreeMap::new();
    for text in &args.allow_plugin {
        let (name, rights) = match text.split_once('=') {
            Some((name, rights)) => (name, Some(Rights::parse(rights)?)),
            None => (text.as_str(), None),
        };
        match (all.entry(name.to_owned()).or_default(), rights) {
            (known, None) => *known = Allowed::Everything,
            (Allowed::Only(known), Some(more)) => known.extend(&more),
            (Allowed::Everything, Some(_)) => {}
        }
    }
    Ok(all)
}

async fn one(
    entry: &mut PluginSpec,
    allowed: &Allowed,
    host: &Arc<Host>,
    args: &PluginArgs,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Arc<Plugin>, CliError> {
    let name = entry.name.text.clone();
    let pinned: Option<Digest> = entry
        .digest
        .as_ref()
        .and_then(|word| word.text.parse().ok());
    if pinned.is_none() && !args.allow_unpinned_plugins {
        return Err(unpinned(&name, entry, args, host, session, ui).await);
    }
    let inspected = inspect(entry, pinned.as_ref(), args, host, session, ui).await?;
    let description = inspected.description.clone();
    if description.name != name {
        let message = format!(
            "the plugin at this source calls itself `{}`, not `{name}`",
            description.name
        );
        return Err(
            CliError::new(ExitCode::Invalid, message).with_hint("write the name that it has")
        );
    }
    entry.digest = Some(Word::new(inspected.digest.to_string(), entry.span));
    let named = entry.rights.as_ref().map(rights_of).transpose()?;
    let granted = Granted::new(&name, &description.needs, named.as_ref(), allowed)?;
    let config = entry.config.as_ref().map(Node::to_json);
    Ok(Plugin::new(host, inspected, granted, config.as_ref())?)
}

/// Says what the digest would be, so that it can be looked at and pinned.
async fn unpinned(
    name: &str,
    entry: &PluginSpec,
    args: &PluginArgs,
    host: &Arc<Host>,
    session: &Arc<Session>,
    ui: &Ui,
) -> CliError {
    let error = CliError::new(ExitCode::Invalid, format!("plugin `{name}` has no digest"));
    match fetched(entry, None, args, host, session, ui).await {
        Ok(fetched) => {
            let digest = Digest::sha256(&fetched.bytes);
            error.with_hint(format!(
                "the one at its source now is {digest}: write it as its `digest` if you trust it"
            ))
        }
        Err(_) => error.with_hint(
            "write the digest of the component's bytes, as `ocm plugin install` prints it",
        ),
    }
}

fn rights_of(node: &Node) -> Result<Rights, CliError> {
    serde_json::from_value(node.to_json()).map_err(|error| {
        CliError::new(ExitCode::Invalid, format!("`rights`: {error}")).with_hint(
            "write `rights: {http: [HOST], clock: true, random: true}`, as far as they are wanted",
        )
    })
}

async fn inspect(
    entry: &PluginSpec,
    pinned: Option<&Digest>,
    args: &PluginArgs,
    host: &Arc<Host>,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Inspected, CliError> {
    let fetched = fetched(entry, pinned, args, host, session, ui).await?;
    let name = &entry.name.text;
    host.inspect(fetched.bytes, pinned)
        .await
        .map_err(|error| error.context(format!("plugin `{name}`")).into())
}

async fn fetched(
    entry: &PluginSpec,
    pinned: Option<&Digest>,
    args: &PluginArgs,
    host: &Arc<Host>,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Fetched, CliError> {
    let source = entry.source.as_ref().map(|source| source.text.as_str());
    let options = SourceOptions {
        pinned,
        signature: entry.signature.as_ref().map(|word| word.text.as_str()),
        keys: &args.plugin_key,
        offline: args.offline,
    };
    let fetched = fetch(source, &options, host.cache(), session, ui).await;
    fetched.map_err(|error| CliError {
        message: format!("plugin `{}`: {}", entry.name.text, error.message),
        ..error
    })
}

/// A plugin for looking at: a component file, or an installed one by its name.
pub(crate) async fn look(text: &str, host: &Arc<Host>, ui: &Ui) -> Result<Inspected, CliError> {
    let path: PathBuf = ui.environment.working_directory.join(text);
    if path.is_file() {
        let bytes = read_file(&path, text)?;
        return host
            .inspect(bytes, None)
            .await
            .map_err(|error| error.context(text.to_owned()).into());
    }
    let missing = || {
        CliError::new(
            ExitCode::NotFound,
            format!("there is no file and no installed plugin `{text}`"),
        )
        .with_hint("`ocm plugin ls` lists the installed ones")
    };
    let cache = host.cache().ok_or_else(missing)?;
    let mut found: Vec<_> = cache
        .entries()?
        .into_iter()
        .filter(|entry| entry.description.name == text)
        .collect();
    let entry = match (found.pop(), found.is_empty()) {
        (Some(entry), true) => entry,
        (None, _) => return Err(missing()),
        (Some(last), false) => {
            let digests: Vec<String> = found
                .iter()
                .chain([&last])
                .map(|entry| entry.digest.to_string())
                .collect();
            let message = format!("several plugins `{text}` are installed");
            return Err(CliError::new(ExitCode::Invalid, message).with_hint(format!(
                "use a file, or prune all but one of {}",
                digests.join(", ")
            )));
        }
    };
    let bytes = cache.component(&entry.digest).ok_or_else(missing)?;
    Ok(host.inspect(bytes, Some(&entry.digest)).await?)
}

/// The built-in step types and those of the plugins that a command names, for looking at.
pub(crate) async fn types(names: &[String], ui: &Ui) -> Result<StepTypes, CliError> {
    let mut types = ocm_transformers::step_types();
    if names.is_empty() {
        return Ok(types);
    }
    let host = host(ui, None, None);
    for name in names {
        let inspected = look(name, &host, ui).await?;
        let plugin = shown(&host, inspected)?;
        for step_type in plugin.step_types()? {
            types.add(step_type)?;
        }
    }
    Ok(types)
}

/// A plugin to be looked at: with nothing granted and no configuration judged.
pub(crate) fn shown(host: &Arc<Host>, inspected: Inspected) -> Result<Arc<Plugin>, CliError> {
    let description = Description {
        config_schema: None,
        ..(*inspected.description).clone()
    };
    let inspected = Inspected {
        description: Arc::new(description),
        ..inspected
    };
    Ok(Plugin::new(host, inspected, Granted::default(), None)?)
}
