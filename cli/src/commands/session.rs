//! The session of a command: configuration files, credentials, and the way to registries.

use std::sync::Arc;

use ocm_content::limits::LimitsConfig;
use ocm_content::{CopyOptions, Referrers};
use ocm_repository::credentials::CredentialSource;
use ocm_repository::{RunEnd, Session, SessionConfig};
use url::Url;

use crate::error::CliError;
use crate::ui::Ui;

/// What a command wants of its session.
#[derive(Default)]
pub(crate) struct SessionOptions {
    /// Memory for shared reads, in bytes; the default without.
    pub(crate) window: Option<u64>,
    /// Aliases besides those of the command line, the environment and the configuration.
    pub(crate) aliases: Vec<(String, Url)>,
    /// Do referrers travel?
    pub(crate) referrers: Referrers,
}

/// Opens a session; sends no request.
pub(crate) fn open(ui: &Ui, options: SessionOptions) -> Result<Arc<Session>, CliError> {
    let credentials = ui.config()?.credentials(ui)?;
    open_with(ui, options, credentials)
}

/// The same with these credentials and no others.
pub(crate) fn open_as(
    ui: &Ui,
    credentials: Arc<dyn CredentialSource>,
) -> Result<Arc<Session>, CliError> {
    open_with(ui, SessionOptions::default(), credentials)
}

fn open_with(
    ui: &Ui,
    options: SessionOptions,
    credentials: Arc<dyn CredentialSource>,
) -> Result<Arc<Session>, CliError> {
    let config = ui.config()?;
    let mut client = ui
        .environment
        .client_config(&ui.global, &config.host_aliases())?;
    client.host_aliases.extend(options.aliases);
    config.http(&mut client, ui)?;
    let limits = limits(ui);
    Ok(Session::new(SessionConfig {
        working_directory: ui.working_directory(),
        client,
        credentials,
        limits: LimitsConfig {
            window: options.window.unwrap_or(limits.window),
            ..limits
        },
        copy: CopyOptions {
            referrers: options.referrers,
        },
        component_index: false,
    })?)
}

/// Ends a command that went well: archive files that it changed are written.
pub(crate) async fn finish(session: &Session) -> Result<(), CliError> {
    let written = session.finish(RunEnd::Succeeded).await;
    match written.into_iter().find_map(|archive| archive.error) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// The default limits, with temporary files where the user wants them, and as large.
pub(crate) fn limits(ui: &Ui) -> LimitsConfig {
    let temp_folder = ui
        .global
        .temp_folder
        .clone()
        .unwrap_or_else(|| ui.environment.temp_folder.clone());
    LimitsConfig {
        spool: ui.global.temp_limit,
        unpacked: ui.global.unpack_limit,
        temp_folder: Some(temp_folder),
        disk: ui.environment.disk.clone(),
        ..LimitsConfig::default()
    }
}
