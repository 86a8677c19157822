//! What stands for plugins in a program that was built without them.

use std::path::Path;
use std::sync::Arc;

use ocm_content::Disk;
use ocm_engine::StepTypes;
use ocm_repository::Session;
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::Source;

use crate::args::PluginArgs;
use crate::error::CliError;
use crate::report::PluginReport;
use crate::ui::Ui;

fn absent() -> CliError {
    CliError::usage("this ocm was built without plugins")
        .with_hint("use one with the feature `wasm`")
}

/// What is never found.
pub(crate) struct Pin;

/// What comes of no plugins.
#[derive(Default)]
pub(crate) struct Added {
    pub(crate) pins: Vec<Pin>,
    pub(crate) plugins: Vec<PluginReport>,
}

impl Added {
    /// Nothing is said of them.
    pub(crate) fn summary(&self) -> Option<String> {
        None
    }
}

/// Refuses any plugin.
pub(crate) async fn add(
    _types: &mut StepTypes,
    spec: &mut TransferSpec,
    args: &PluginArgs,
    _session: &Arc<Session>,
    _ui: &Ui,
) -> Result<Added, CliError> {
    if spec.plugins.is_empty() && args.plugin.is_empty() && args.allow_plugin.is_empty() {
        return Ok(Added::default());
    }
    Err(absent())
}

/// Refuses to write digests of plugins.
pub(crate) fn write_pins(
    _file: &Path,
    _source: &Source,
    _pins: &[Pin],
    _disk: &Disk,
    _ui: &Ui,
) -> Result<(), CliError> {
    Err(absent())
}

/// The built-in step types; refuses any plugin.
pub(crate) async fn types(names: &[String], _ui: &Ui) -> Result<StepTypes, CliError> {
    match names {
        [] => Ok(ocm_transformers::step_types()),
        _ => Err(absent()),
    }
}
