//! The command line's grammar. v2's spelling is canonical; v1's and the designs' spellings are aliases.
//!
//! One file per family of commands; this one has what they share and the list of verbs.

mod access;
mod add;
mod download;
mod look;
mod plugins;
mod serve;
mod signing;
mod transfer;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::access::*;
pub(crate) use self::add::*;
pub(crate) use self::download::*;
pub(crate) use self::look::*;
pub(crate) use self::plugins::*;
pub(crate) use self::serve::*;
pub(crate) use self::signing::*;
pub(crate) use self::transfer::*;

/// How a component version may be called behind a verb.
const NOUNS: [&str; 11] = [
    "cv",
    "cvs",
    "component-versions",
    "componentversion",
    "componentversions",
    "component",
    "components",
    "comp",
    "comps",
    "c",
    "componentVersion",
];

/// Carries software as Open Component Model component versions between registries and archives.
#[derive(Debug, Parser)]
#[command(
    name = "ocm",
    version,
    disable_help_subcommand = true,
    after_help = "Example:
  ocm get cv ./archive",
    after_long_help = crate::error::exit_codes_help(),
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Valid on every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Use exactly these configuration files (repeatable; a later one wins) instead of looking for some.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// Take this set of the configuration files' `sets`, too (repeatable).
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) config_set: Vec<String>,
    /// What is logged to stderr.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn")]
    pub(crate) loglevel: LogLevel,
    /// How the log is written.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) logformat: LogFormat,
    /// Where temporary files go.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) temp_folder: Option<PathBuf>,
    /// Bytes that temporary files may hold, all together.
    #[arg(long, global = true, value_name = "SIZE", default_value = "64GiB", value_parser = crate::units::parse_size)]
    pub(crate) temp_limit: u64,
    /// What compressed content may unpack to, whatever its own size; above, to 200 times its own size at most.
    #[arg(long, global = true, value_name = "SIZE", default_value = "1GiB", value_parser = crate::units::parse_size)]
    pub(crate) unpack_limit: u64,
    /// The folder that relative paths in specs are below.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) working_directory: Option<PathBuf>,
    /// Send requests for HOST to URL; references stay as they are (repeatable; also in OCM_HOST_ALIAS, comma-separated).
    #[arg(long, global = true, value_name = "HOST=URL")]
    pub(crate) host_alias: Vec<String>,
    /// Show the client certificate in this PEM file, which has its key, too, to HOST (repeatable).
    #[arg(long, global = true, value_name = "HOST[:PORT]=FILE")]
    pub(crate) client_cert: Vec<String>,
    /// Trust the certificates in this PEM file, too (repeatable).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Vec<PathBuf>,
    /// Talk plain HTTP to this host (repeatable); loopback hosts need no word.
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub(crate) plain_http: Vec<String>,
    /// Show errors only.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make component versions of constructor files and put them into a repository.
    #[command(subcommand)]
    Add(Add),
    /// Run a transfer spec.
    Transfer(TransferArgs),
    /// Look at component versions and step types.
    #[command(subcommand, alias = "list")]
    Get(Get),
    /// Explain component versions and step types in full.
    #[command(subcommand)]
    Describe(Describe),
    /// Check that component versions are complete.
    #[command(subcommand)]
    Check(Check),
    /// Compare two component versions; exit code 9 when they differ.
    Diff(DiffArgs),
    /// Download content of component versions into files.
    #[command(subcommand)]
    Download(Download),
    /// Sign component versions.
    #[command(subcommand)]
    Sign(Sign),
    /// Check signatures of component versions, and what they stand for.
    #[command(subcommand)]
    Verify(Verify),
    /// Compute the digest of component versions.
    #[command(subcommand)]
    Hash(Hash),
    /// Keep the credentials of a registry, in Docker's format, after asking the registry whether they are right.
    Login(LoginArgs),
    /// Forget the credentials of a registry.
    Logout(LogoutArgs),
    /// Find out why something does not work.
    #[command(subcommand)]
    Doctor(Doctor),
    /// Serve component versions as an OCI registry.
    #[command(subcommand)]
    Registry(Registry),
    /// Look after archives in the Common Transport Format.
    #[command(subcommand)]
    Ctf(Ctf),
    /// Look after plugins: step types in WebAssembly.
    #[cfg(feature = "wasm")]
    #[command(subcommand, alias = "plugins")]
    Plugin(Plugin),
    /// Print the version.
    #[command(after_help = "Example:
  ocm version")]
    Version,
    /// Print a completion script.
    #[command(after_help = "Example:
  ocm completion bash")]
    Completion {
        /// The shell it is for.
        shell: clap_complete::Shell,
    },
    /// Write the documentation that this program carries.
    #[command(subcommand)]
    Generate(Generate),
}
