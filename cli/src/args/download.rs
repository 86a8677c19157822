//! `ocm download`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::NOUNS;

#[derive(Debug, Subcommand)]
pub(crate) enum Download {
    /// Write the content of one resource into a file or folder.
    #[command(name = "resource", aliases = ["resources", "res", "r"], after_help = "Examples:
  ocm download resource ./archive//acme.org/helloworld:1.0.0 --identity name=config -O config.yaml
  ocm download resource ./archive//acme.org/helloworld:1.0.0 config -O config.yaml")]
    Resource(DownloadResource),
    /// Write a component version with its local content into an archive.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Example:
  ocm download cv ./archive//acme.org/helloworld:1.0.0 --output helloworld.tgz")]
    ComponentVersion(DownloadComponentVersion),
}

#[derive(Debug, Args)]
pub(crate) struct DownloadResource {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`; the latest version without one.
    pub(crate) reference: String,
    /// Name of the resource, and attributes of its identity (`NAME=VALUE`).
    #[arg(value_name = "NAME [ATTRIBUTE=VALUE]")]
    pub(crate) name: Vec<String>,
    /// Attributes of the resource's identity, as in name=image,architecture=arm64 (repeatable).
    #[arg(long, value_name = "NAME=VALUE[,…]")]
    pub(crate) identity: Vec<String>,
    /// The file or folder to write [default: the resource's name]; `-` is stdout. It must not be there yet.
    #[arg(short = 'O', long, alias = "outfile", value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Unpack tars into a folder and uncompress what is compressed (auto), or write the bytes as they are (disable).
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    pub(crate) extraction_policy: ExtractionPolicy,
    /// What an OCI artifact becomes. A chart becomes its .tgz without, anything else an OCI layout.
    #[arg(long, value_name = "FORM")]
    pub(crate) form: Option<ArtifactForm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExtractionPolicy {
    Auto,
    Disable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArtifactForm {
    /// An OCI image layout in a folder.
    Layout,
    /// An OCI image layout as a tar.
    Tar,
    /// The one layer with the content, as of charts.
    Layer,
}

#[derive(Debug, Args)]
pub(crate) struct DownloadComponentVersion {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`; the latest version without one.
    pub(crate) reference: String,
    /// The archive to write, a CTF: a folder, or a .tar or .tgz file [default: the component's last name].
    #[arg(short = 'O', long, alias = "outfile", value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
}
