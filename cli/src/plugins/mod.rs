//! Plugins of a command: which there are, where they come from, what they may do.
//!
//! *Invariant*: nothing of a plugin runs before its bytes have the digest that they are pinned to and, where a signature is
//! wanted, the component version that they come from has it. All that is refused is refused before any step starts.

mod http;
mod lock;
mod look;
mod named;
mod source;

use std::collections::BTreeSet;
use std::sync::Arc;

use ocm_content::Disk;
use ocm_engine::StepTypes;
use ocm_plugins_wasm::{
    Allowed, Cache, Granted, Host, HostConfig, Inspected, Plugin, PluginLimits, Results, Rights,
};
use ocm_repository::Session;
use ocm_specs::Digest;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics};
use ocm_specs::transfer::{PluginSpec, TransferSpec, Word};
use ocm_specs::yaml::{Node, Source, Span};

pub(crate) use self::http::requests;
pub(crate) use self::lock::{Pin, write as write_pins};
pub(crate) use self::look::{look, shown, types};
use self::source::Fetched;
pub(crate) use self::source::{MEDIA_TYPE, Origin, SourceOptions, fetch, read_file, target};
use crate::args::PluginArgs;
use crate::error::{CliError, ExitCode};
use crate::report::PluginReport;
use crate::ui::{Ui, without_userinfo};

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
        limits.time = args.plugin_timeout;
    }
    Host::new(HostConfig {
        cache: cache(ui),
        limits,
        http: session.map(requests),
        results: session
            .filter(|_| args.is_some_and(|args| args.cache))
            .and_then(|session| results(ui, session.limits().disk())),
    })
}

/// Where results of their steps are kept.
pub(crate) fn results(ui: &Ui, disk: &Disk) -> Option<Arc<Results>> {
    let folder = ui.environment.cache_folder()?;
    Some(Results::new(folder.join("wasm/results"), disk.clone()))
}

/// Where plugins are kept.
pub(crate) fn cache(ui: &Ui) -> Option<Cache> {
    ui.environment
        .cache_folder()
        .map(|folder| Cache::new(folder.join("wasm")))
}

/// What comes of the plugins of a command.
#[derive(Default)]
pub(crate) struct Added {
    /// Digests that are to be written into the spec's file.
    pub(crate) pins: Vec<Pin>,
    /// What they are, for the report.
    pub(crate) plugins: Vec<PluginReport>,
    results: Option<Arc<Results>>,
}

impl Added {
    /// What is said when all has run.
    pub(crate) fn summary(&self) -> Option<String> {
        match self.results.as_ref()?.counts() {
            (0, 0) => None,
            (known, unknown) => Some(format!(
                "steps of plugins: {known} known from earlier runs, {unknown} not"
            )),
        }
    }
}

/// Adds the step types of the plugins that a spec and the command line name; writes the digests into the spec.
pub(crate) async fn add(
    types: &mut StepTypes,
    spec: &mut TransferSpec,
    args: &PluginArgs,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Added, CliError> {
    named::merge(spec, args)?;
    let mut allowed = named::allowed(spec, args)?;
    if spec.plugins.is_empty() {
        return Ok(Added::default());
    }
    let host = host(ui, Some(args), Some(session));
    let (mut pins, mut plugins) = (Vec::new(), Vec::new());
    let supply = Supply {
        host: &host,
        keys: &args.plugin_key,
        wanted: &args.plugin_signature,
        offline: args.offline,
        session,
        ui,
    };
    let source = spec.source.clone();
    let mut findings = Vec::new();
    for (at, entry) in spec.plugins.iter_mut().enumerate() {
        let allowed = allowed.remove(&entry.name.text).unwrap_or_default();
        let is_pinned = entry.digest.is_some();
        let is_locked = args.lock && !is_pinned && !named::is_of_command_line(entry);
        if !is_pinned && !is_locked && !args.allow_unpinned_plugins {
            let error = supply.unpinned(entry).await;
            return Err(located(error, entry.span, &source));
        }
        let plugin = match supply.plugin(entry, &allowed).await {
            Ok(plugin) => plugin,
            Err(error) => return Err(located(error, entry.span, &source)),
        };
        let mut told = supply.report(entry, &plugin);
        for step_type in plugin.step_types()? {
            let name = step_type.info().name.clone();
            told.types.push(name.clone());
            if types.add(step_type).is_err() {
                let message = format!(
                    "plugin `{}` has a step type `{name}`, which is there already",
                    entry.name.text
                );
                findings.push(Diagnostic::error(entry.name.span, message));
            }
        }
        plugins.push(told);
        ui.note(&format!("{}\n", line(&plugin)));
        if is_locked {
            pins.push(Pin {
                at,
                name: entry.name.text.clone(),
                digest: plugin.digest().clone(),
            });
        }
    }
    if findings.is_empty() {
        let results = host.results().cloned();
        return Ok(Added {
            pins,
            plugins,
            results,
        });
    }
    Err(Diagnostics::new(source, findings).into())
}

/// Finds out what the plugins are that a spec names without a digest. None of their steps can run by that.
pub(crate) async fn pins(
    spec: &TransferSpec,
    keys: &[String],
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Vec<Pin>, CliError> {
    let host = host(ui, None, Some(session));
    let supply = Supply {
        host: &host,
        keys,
        wanted: &[],
        offline: false,
        session,
        ui,
    };
    let mut pins = Vec::new();
    let entries = spec.plugins.iter().enumerate();
    for (at, entry) in entries.filter(|(_, entry)| entry.digest.is_none()) {
        let inspected = supply.inspected(entry, None).await;
        let inspected = inspected.map_err(|error| located(error, entry.span, &spec.source))?;
        pins.push(Pin {
            at,
            name: entry.name.text.clone(),
            digest: inspected.digest,
        });
    }
    Ok(pins)
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
fn located(error: CliError, span: Span, source: &Source) -> CliError {
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

/// Where the plugins of a command come from.
struct Supply<'a> {
    host: &'a Arc<Host>,
    keys: &'a [String],
    /// Signatures that the user wants of each, whatever the spec says.
    wanted: &'a [String],
    offline: bool,
    session: &'a Arc<Session>,
    ui: &'a Ui,
}

impl Supply<'_> {
    /// The plugin of an entry with its rights; its digest is in the entry afterwards.
    async fn plugin(
        &self,
        entry: &mut PluginSpec,
        allowed: &Allowed,
    ) -> Result<Arc<Plugin>, CliError> {
        let pinned = entry
            .digest
            .as_ref()
            .and_then(|word| word.text.parse::<Digest>().ok());
        let inspected = self.inspected(entry, pinned.as_ref()).await?;
        entry.digest = Some(Word::new(inspected.digest.to_string(), entry.span));
        let named = entry.rights.as_ref().map(rights_of).transpose()?;
        let needs = &inspected.description.needs;
        let granted = Granted::new(&entry.name.text, needs, named.as_ref(), allowed)?;
        let config = entry.config.as_ref().map(Node::to_json);
        Ok(Plugin::new(self.host, inspected, granted, config.as_ref())?)
    }

    /// What is at an entry's source, if it is what the entry says.
    async fn inspected(
        &self,
        entry: &PluginSpec,
        pinned: Option<&Digest>,
    ) -> Result<Inspected, CliError> {
        let name = &entry.name.text;
        let fetched = self.fetched(entry, pinned).await?;
        let inspected = self.host.inspect(fetched.bytes, pinned).await;
        let inspected = inspected.map_err(|error| error.context(format!("plugin `{name}`")))?;
        let own = &inspected.description.name;
        if own != name {
            let message = format!("the plugin at this source calls itself `{own}`, not `{name}`");
            return Err(
                CliError::new(ExitCode::Invalid, message).with_hint("write the name that it has")
            );
        }
        Ok(inspected)
    }

    /// The signatures that the plugin of an entry must have.
    fn signatures(&self, entry: &PluginSpec) -> Vec<String> {
        let named = entry.signature.iter().map(|word| &word.text);
        let all: BTreeSet<&String> = named.chain(self.wanted).collect();
        all.into_iter().cloned().collect()
    }

    fn report(&self, entry: &PluginSpec, plugin: &Plugin) -> PluginReport {
        let description = plugin.description();
        PluginReport {
            name: description.name.clone(),
            version: description.version.clone(),
            digest: plugin.digest().to_string(),
            source: entry
                .source
                .as_ref()
                .map(|word| without_userinfo(&word.text)),
            signatures: self.signatures(entry),
            rights: plugin.granted().rights().to_string(),
            types: Vec::new(),
        }
    }

    async fn fetched(
        &self,
        entry: &PluginSpec,
        pinned: Option<&Digest>,
    ) -> Result<Fetched, CliError> {
        let source = entry.source.as_ref().map(|source| source.text.as_str());
        let signatures = self.signatures(entry);
        let options = SourceOptions {
            pinned,
            signatures: &signatures,
            keys: self.keys,
            offline: self.offline,
        };
        let cache = self.host.cache();
        let fetched = fetch(source, &options, cache, self.session, self.ui).await;
        fetched.map_err(|error| error.context(&format!("plugin `{}`", entry.name.text)))
    }

    /// Says what the digest would be, so that it can be looked at and pinned.
    async fn unpinned(&self, entry: &PluginSpec) -> CliError {
        let name = &entry.name.text;
        let error = CliError::new(ExitCode::Invalid, format!("plugin `{name}` has no digest"));
        let of_command_line = named::is_of_command_line(entry);
        error.with_hint(match (self.fetched(entry, None).await, of_command_line) {
            (Ok(fetched), false) => format!(
                "the one at its source now is {}: if you trust it, --lock writes that into the spec",
                Digest::sha256(&fetched.bytes)
            ),
            (Ok(fetched), true) => format!(
                "the one at its source now is {digest}: if you trust it, write --plugin {name}=SOURCE@{digest}",
                digest = Digest::sha256(&fetched.bytes)
            ),
            (Err(error), false) => format!(
                "write the digest of the component's bytes, as `ocm plugin install` prints it, or let --lock do that; its \
                 source can't be read now: {}",
                error.message
            ),
            (Err(error), true) => format!(
                "write --plugin {name}=SOURCE@DIGEST; its source can't be read now: {}",
                error.message
            ),
        })
    }
}

fn rights_of(node: &Node) -> Result<Rights, CliError> {
    serde_json::from_value(node.to_json()).map_err(|error| {
        CliError::new(ExitCode::Invalid, format!("`rights`: {error}")).with_hint(
            "write `rights: {http: [HOST], clock: true, random: true}`, as far as they are wanted",
        )
    })
}
