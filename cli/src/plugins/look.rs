//! Plugins to be looked at: installed ones, and component files.

use std::path::PathBuf;
use std::sync::Arc;

use ocm_engine::StepTypes;
use ocm_plugins_wasm::{Description, Granted, Host, Inspected, Plugin};

use super::{host, read_file};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

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
