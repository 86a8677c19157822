//! Completions and man pages, made from the grammar itself.

use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, Generate};
use crate::error::CliError;
use crate::ui::Ui;

/// Prints the completion script for a shell.
pub(crate) fn completion(shell: clap_complete::Shell, ui: &Ui) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ocm", &mut script);
    ui.data(&String::from_utf8_lossy(&script))
}

/// Writes the man pages.
pub(crate) fn generate(generate: Generate) -> Result<(), CliError> {
    let Generate::Man { directory } = generate;
    std::fs::create_dir_all(&directory)
        .map_err(|error| CliError::file("create", &directory, &error))?;
    let mut command = Cli::command();
    command.build();
    man_pages(&command, "ocm", &directory)
}

fn man_pages(command: &clap::Command, name: &str, directory: &Path) -> Result<(), CliError> {
    let path = directory.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut page)
        .and_then(|()| std::fs::write(&path, page))
        .map_err(|error| CliError::file("write", &path, &error))?;
    for child in command.get_subcommands() {
        man_pages(child, &format!("{name}-{}", child.get_name()), directory)?;
    }
    Ok(())
}
