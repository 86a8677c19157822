//! Plugins that the command line names, and what it allows them.

use std::collections::BTreeMap;

use ocm_plugins_wasm::{Allowed, Rights};
use ocm_specs::Digest;
use ocm_specs::transfer::{PluginSpec, TransferSpec, Word};
use ocm_specs::yaml::Span;

use crate::args::PluginArgs;
use crate::error::CliError;

/// Where words of the command line stand in the spec: nowhere.
const NOWHERE: Span = Span { start: 0, end: 0 };

/// Does the command line say where the plugin is?
pub(super) fn is_of_command_line(entry: &PluginSpec) -> bool {
    let source = entry.source.as_ref();
    source.map_or(entry.span, |source| source.span) == NOWHERE
}

/// Puts the plugins of the command line into the spec.
pub(super) fn merge(spec: &mut TransferSpec, args: &PluginArgs) -> Result<(), CliError> {
    for text in &args.plugin {
        let (name, source, digest) = parse(text)?;
        let word = |text: String| Word::new(text, NOWHERE);
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
                span: NOWHERE,
            }),
        }
    }
    Ok(())
}

/// `NAME=SOURCE[@DIGEST]`.
fn parse(text: &str) -> Result<(&str, &str, Option<Digest>), CliError> {
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
    Ok((name, source, digest))
}

/// What each plugin is allowed; every name is one that the spec has.
pub(super) fn allowed(
    spec: &TransferSpec,
    args: &PluginArgs,
) -> Result<BTreeMap<String, Allowed>, CliError> {
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
    let is_known = |name: &str| spec.plugins.iter().any(|plugin| plugin.name.text == name);
    match all.keys().find(|name| !is_known(name)) {
        Some(name) => Err(CliError::usage(format!(
            "--allow-plugin {name}: there is no plugin `{name}`"
        ))
        .with_hint("name one of the spec's `plugins` or of --plugin")),
        None => Ok(all),
    }
}
