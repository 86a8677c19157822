//! `ocm login`, `ocm logout`, `ocm doctor`, `ocm get config`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  echo $TOKEN | ocm login -u jo --password-stdin localhost:5001")]
pub(crate) struct LoginArgs {
    /// Registry: `HOST[:PORT]`, or `HOST[:PORT]/PATH` for a part of it.
    #[arg(value_name = "HOST")]
    pub(crate) server: String,
    /// User name.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: String,
    /// Password or token. Others on this machine may see it: --password-stdin is safer.
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub(crate) password: Option<String>,
    /// Read the password from stdin. Without it, and without --password, it is asked for at a terminal.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Store without asking the registry first.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Store in this file [default: $REGISTRY_AUTH_FILE, else Docker's config.json].
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ocm logout ghcr.io")]
pub(crate) struct LogoutArgs {
    /// Registry: `HOST[:PORT]`, or `HOST[:PORT]/PATH` for a part of it.
    #[arg(value_name = "HOST")]
    pub(crate) server: String,
    /// Remove from this file [default: $REGISTRY_AUTH_FILE, else Docker's config.json].
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Doctor {
    /// Tell which credentials would be used for a place, and why; nothing secret is shown.
    Credentials(DoctorCredentialsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ocm doctor credentials ghcr.io/acme//acme.org/helloworld:1.0.0
  ocm doctor credentials ghcr.io/acme/image:1.0 -o json")]
pub(crate) struct DoctorCredentialsArgs {
    /// A component version, a repository, an image, or a registry.
    pub(crate) reference: String,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: DoctorFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ocm get config -o json")]
pub(crate) struct GetConfigArgs {
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    pub(crate) output: ConfigFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigFormat {
    Yaml,
    Json,
    Ndjson,
}
