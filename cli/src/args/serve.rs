//! `ocm registry`, `ocm ctf`, `ocm generate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Run the embedded OCI registry until it is stopped.
    #[command(after_help = "Example:
  ocm registry serve --data ./registry --listen 127.0.0.1:0")]
    Serve(ServeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5001")]
    pub(crate) listen: std::net::SocketAddr,
    /// Keep content in this folder (a CTF archive in directory form); in memory without.
    #[arg(long, value_name = "DIR", conflicts_with = "ctf")]
    pub(crate) data: Option<PathBuf>,
    /// Serve this CTF archive, read-only.
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) ctf: Option<PathBuf>,
    /// Refuse writes.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Ask for user and password from this file: one `user:password` a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) users: Option<PathBuf>,
    /// With --users: hand out bearer tokens instead of taking passwords with every request.
    #[arg(long, requires = "users")]
    pub(crate) tokens: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ctf {
    /// Remove content that nothing refers to, and what killed runs left.
    #[command(after_help = "Example:
  ocm ctf gc --dry-run ./archive")]
    Gc(GcArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// The archive: a directory, a .tar or a .tgz.
    pub(crate) archive: PathBuf,
    /// Leave what was written less than this ago, as in 90s, 10m, 1h or 2d: a run may still need it.
    #[arg(long, value_name = "AGE", default_value = "1h", value_parser = crate::units::parse_duration)]
    pub(crate) grace: std::time::Duration,
    /// Tell what would be removed; remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: GcFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GcFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Generate {
    /// Write man pages into a folder.
    #[command(after_help = "Example:
  ocm generate man --directory ./man")]
    Man {
        /// The folder; made if it is not there.
        #[arg(short, long, value_name = "DIR")]
        directory: PathBuf,
    },
}
