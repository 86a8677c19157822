//! `ocm add`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::NOUNS;

#[derive(Debug, Subcommand)]
pub(crate) enum Add {
    /// Make component versions of constructor files and put them into a repository.
    ///
    /// Nothing becomes visible before all of it is complete. In constructors, `${NAME}` and `${NAME:-text}` stand for
    /// variables, and `$$` for a dollar sign; arguments win over settings files, and these over the environment.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Examples:
  ocm add cv -c component-constructor.yaml -r ./archive
  ocm add cv --create --file ./new --settings settings.yaml component-constructor.yaml")]
    ComponentVersion(Box<AddArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Constructor files, and values of variables as NAME=VALUE.
    #[arg(value_name = "CONSTRUCTOR | NAME=VALUE")]
    pub(crate) arguments: Vec<String>,
    /// A constructor file, or a folder that has one (repeatable) [default: component-constructor.yaml].
    #[arg(short, long, value_name = "PATH")]
    pub(crate) constructor: Vec<PathBuf>,
    /// Where the component versions go [default: transport-archive]. An archive that is not there is made.
    #[arg(short, long, value_name = "REPOSITORY", conflicts_with = "file")]
    pub(crate) repository: Option<String>,
    /// The same, always an archive.
    #[arg(short = 'F', long, value_name = "ARCHIVE")]
    pub(crate) file: Option<PathBuf>,
    /// The form of an archive that is made: directory, tar or tgz [default: told by its name].
    #[arg(short = 't', long = "type", value_name = "FORM")]
    pub(crate) form: Option<ArchiveForm>,
    /// Make the archive; it must not be there yet.
    #[arg(long)]
    pub(crate) create: bool,
    /// With --create: replace an archive that is there.
    #[arg(short, long, requires = "create")]
    pub(crate) force: bool,
    /// What to do about component versions that are there already.
    #[arg(long, value_name = "POLICY", default_value = "abort-and-fail")]
    pub(crate) component_version_conflict_policy: AddConflictArg,
    /// The same as --component-version-conflict-policy replace.
    #[arg(
        short = 'R',
        long,
        conflicts_with = "component_version_conflict_policy"
    )]
    pub(crate) replace: bool,
    /// What to do about component versions that are referenced and not made here.
    #[arg(long, value_name = "POLICY", default_value = "skip")]
    pub(crate) external_component_version_copy_policy: AddExternalArg,
    /// The same as --external-component-version-copy-policy copy-or-fail.
    #[arg(
        short = 'C',
        long,
        conflicts_with = "external_component_version_copy_policy"
    )]
    pub(crate) complete: bool,
    /// Take the content of all resources in, wherever it is.
    #[arg(short = 'V', long)]
    pub(crate) copy_resources: bool,
    /// Take the content of resources in that are the component's own (`relation: local`).
    #[arg(short = 'L', long)]
    pub(crate) copy_local_resources: bool,
    /// Neither compute nor compare digests of what stays elsewhere: resources by reference, other component versions.
    #[arg(long)]
    pub(crate) skip_reference_digest_processing: bool,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
    /// Version of components that state none.
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// File with values of variables: a YAML map (repeatable; a later one wins).
    #[arg(short, long, value_name = "FILE")]
    pub(crate) settings: Vec<PathBuf>,
    /// Take variables from the environment; that is so without.
    #[arg(long, conflicts_with = "no_env")]
    pub(crate) addenv: bool,
    /// Take no variables from the environment.
    #[arg(long)]
    pub(crate) no_env: bool,
    /// How variables are put in: subst, or none at all.
    #[arg(long, value_name = "TEMPLATER", default_value = "subst")]
    pub(crate) templater: Templater,
    /// Let unset variables be empty.
    #[arg(long)]
    pub(crate) allow_unset: bool,
    /// Read, check and compute everything, print the component descriptors, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Resources and sources that are worked on at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency_limit: u16,
    /// Format [default: table; yaml with --dry-run].
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<AddFormat>,
    /// Has no effect: content is streamed.
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) blob_cache_directory: Option<PathBuf>,
    /// Has no effect: nothing is redrawn.
    #[arg(long, value_name = "MODE", hide = true)]
    pub(crate) display_mode: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveForm {
    Directory,
    Tar,
    Tgz,
}

impl ArchiveForm {
    /// As repository specifications spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Tar => "tar",
            Self::Tgz => "tgz",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AddConflictArg {
    /// Nothing is made at all.
    AbortAndFail,
    /// They are replaced.
    Replace,
    /// They stay as they are.
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AddExternalArg {
    /// They stay where they are.
    Skip,
    /// They are copied, with what is stored beside them.
    CopyOrFail,
}

/// The template engines of v1; two of them are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Templater {
    Subst,
    None,
    #[value(hide = true)]
    Go,
    #[value(hide = true)]
    Spiff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AddFormat {
    Table,
    Tree,
    Yaml,
    Json,
    Ndjson,
}
