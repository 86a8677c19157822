//! The `ocm` program: arguments in, text out. What it does is done by the libraries.

mod args;
mod commands;
mod config;
mod environment;
mod error;
mod faults;
mod graph_output;
#[cfg(feature = "wasm")]
mod plugins;
#[cfg(not(feature = "wasm"))]
#[path = "plugins_absent.rs"]
mod plugins;
mod progress;
mod report;
mod table;
mod ui;
mod units;

use std::process::ExitCode;

use clap::Parser;
use ocm_specs::descriptor::ElementKind;

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::ui::Ui;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(cli.global.clone());
    match run(cli.command, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.code as u8)
        }
    }
}

/// Commands that only print start no runtime.
fn run(command: Command, ui: &Ui) -> Result<(), CliError> {
    match command {
        Command::Version => ui.data(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Command::Completion { shell } => commands::docs::completion(shell, ui),
        Command::Generate(generate) => commands::docs::generate(generate),
        Command::Add(args::Add::ComponentVersion(add)) => {
            block_on(commands::add::component_versions(*add, ui))
        }
        Command::Get(args::Get::Types(types)) => block_on(commands::types::list(&types, ui)),
        Command::Get(args::Get::Schema { document, plugins }) => {
            block_on(commands::types::schema(document, &plugins.plugin, ui))
        }
        Command::Describe(args::Describe::Types(types)) => {
            block_on(commands::types::describe(&types, ui))
        }
        Command::Get(args::Get::Config(get)) => commands::configuration::show(&get, ui),
        Command::Login(login) => block_on(commands::login::log_in(login, ui)),
        Command::Logout(logout) => block_on(commands::login::log_out(logout, ui)),
        Command::Doctor(args::Doctor::Credentials(doctor)) => {
            block_on(commands::doctor::credentials(doctor, ui))
        }
        Command::Get(args::Get::ComponentVersion(get)) => {
            block_on(commands::get::component_version(get, ui))
        }
        Command::Get(args::Get::Resources(list)) => {
            block_on(commands::elements::list(ElementKind::Resource, list, ui))
        }
        Command::Get(args::Get::Sources(list)) => {
            block_on(commands::elements::list(ElementKind::Source, list, ui))
        }
        Command::Get(args::Get::References(list)) => {
            block_on(commands::elements::list(ElementKind::Reference, list, ui))
        }
        Command::Describe(args::Describe::ComponentVersion(describe)) => {
            block_on(commands::describe::component_version(describe, ui))
        }
        Command::Check(args::Check::ComponentVersion(check)) => {
            block_on(commands::check::component_version(check, ui))
        }
        Command::Diff(diff) => block_on(commands::diff::diff(diff, ui)),
        Command::Download(args::Download::Resource(download)) => {
            block_on(commands::download::resource(download, ui))
        }
        Command::Download(args::Download::ComponentVersion(download)) => {
            block_on(commands::download::component_version(download, ui))
        }
        Command::Sign(args::Sign::ComponentVersion(sign)) => {
            block_on(commands::sign::component_version(sign, ui))
        }
        Command::Verify(args::Verify::ComponentVersion(verify)) => {
            block_on(commands::verify::component_version(verify, ui))
        }
        Command::Hash(args::Hash::ComponentVersion(hash)) => {
            block_on(commands::hash::component_version(hash, ui))
        }
        Command::Ctf(args::Ctf::Gc(gc)) => block_on(commands::ctf::collect_garbage(gc, ui)),
        Command::Transfer(transfer) => block_on(commands::transfer::transfer(transfer, ui)),
        #[cfg(feature = "wasm")]
        Command::Plugin(plugin) => block_on(commands::plugin::plugin(plugin, ui)),
        Command::Registry(args::Registry::Serve(serve)) => {
            block_on(commands::registry::serve(serve, ui))
        }
    }
}

fn block_on(future: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CliError::new(
                error::ExitCode::Failure,
                format!("start the runtime: {error}"),
            )
        })?;
    let result = runtime.block_on(future);
    // Work on the blocking pool (a write to a dead disk) must not keep an ended program alive.
    runtime.shutdown_background();
    result
}
