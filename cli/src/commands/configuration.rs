//! `ocm get config`: what the configuration files say together.

use ocm_specs::yaml;

use crate::args::{ConfigFormat, GetConfigArgs};
use crate::error::CliError;
use crate::ui::Ui;

/// Prints the configuration that is in force.
pub(crate) fn show(args: &GetConfigArgs, ui: &Ui) -> Result<(), CliError> {
    let document = ui.config()?.redacted();
    ui.data(&match args.output {
        ConfigFormat::Yaml => yaml::to_string(&document),
        ConfigFormat::Json => serde_json::to_string_pretty(&document).unwrap_or_default() + "\n",
        ConfigFormat::Ndjson => format!("{document}\n"),
    })
}
