//! `ocm get`, `ocm describe`, `ocm check`, `ocm diff`.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use ocm_specs::Constraint;

use super::{GetConfigArgs, NOUNS, PluginFiles};

#[derive(Debug, Subcommand)]
pub(crate) enum Get {
    /// List component versions, or show one.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Examples:
  ocm get cv ./archive
  ocm get cv ./archive//acme.org/helloworld:1.0.0 --recursive -o tree")]
    ComponentVersion(GetComponentVersion),
    /// List the resources of component versions.
    #[command(name = "resources", aliases = ["resource", "res", "r"], after_help = "Examples:
  ocm get resources ./archive//acme.org/helloworld:1.0.0 -o wide")]
    Resources(ElementsArgs),
    /// List the sources of component versions.
    #[command(name = "sources", aliases = ["source", "src", "s"], after_help = "Example:
  ocm get sources ./archive//acme.org/helloworld:1.0.0")]
    Sources(ElementsArgs),
    /// List what component versions reference.
    #[command(name = "references", aliases = ["reference", "refs", "ref"], after_help = "Example:
  ocm get references ./archive//acme.org/helloworld:1.0.0")]
    References(ElementsArgs),
    /// List the step types of transfer specs, or show one.
    #[command(
        name = "types",
        alias = "type",
        after_help = "Example:
  ocm get types"
    )]
    Types(TypesArgs),
    /// Print the configuration that is in force, without its secrets.
    Config(GetConfigArgs),
    /// Print the JSON Schema of a document.
    #[command(after_help = "Example:
  ocm get schema transfer-spec")]
    Schema {
        /// Which document.
        document: SchemaName,
        #[command(flatten)]
        plugins: PluginFiles,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Describe {
    /// Tell all about a component version, for people.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Example:
  ocm describe cv ./archive//acme.org/helloworld:1.0.0")]
    ComponentVersion(DescribeArgs),
    /// Describe step types: inputs, outputs, an example.
    #[command(
        name = "types",
        alias = "type",
        after_help = "Example:
  ocm describe types OCIAddComponentVersion/v1alpha1"
    )]
    Types(TypesArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaName {
    /// A transfer spec, for editors.
    TransferSpec,
    /// The report that `ocm transfer --report` writes.
    Report,
}

/// Which of a component's versions are meant, where a reference names none.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct VersionChoice {
    /// Only the latest version.
    #[arg(long)]
    pub(crate) latest: bool,
    /// Only versions that this constraint allows, as in `>=1.0, <2`, `^1.2` or `1.x || 3.0`.
    #[arg(short = 'c', long, value_name = "CONSTRAINT", alias = "constraints")]
    pub(crate) semver_constraint: Option<Constraint>,
}

/// How far references are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All the way.
    Unlimited,
    /// So many levels.
    Levels(u32),
}

impl FromStr for Depth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-1" => Ok(Self::Unlimited),
            _ => text
                .parse()
                .map(Self::Levels)
                .map_err(|_| "expected -1 (all the way), 0 or a number of levels"),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct GetComponentVersion {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`, or a REPOSITORY for all that is in it.
    pub(crate) reference: String,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ListFormat,
    #[command(flatten)]
    pub(crate) choice: VersionChoice,
    /// Follow references: all the way (no value or -1), not at all (0), or N levels.
    #[arg(short, long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "-1",
          default_value = "0", allow_hyphen_values = true)]
    pub(crate) recursive: Depth,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ElementsArgs {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`
    pub(crate) reference: String,
    /// Only those with this name, and with these attributes (`NAME=VALUE`).
    #[arg(value_name = "NAME [ATTRIBUTE=VALUE]")]
    pub(crate) identity: Vec<String>,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ElementsFormat,
    #[command(flatten)]
    pub(crate) choice: VersionChoice,
    /// Follow references: all the way (no value or -1), not at all (0), or N levels.
    #[arg(short, long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "-1",
          default_value = "0", allow_hyphen_values = true)]
    pub(crate) recursive: Depth,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ElementsFormat {
    Table,
    /// With access and digest.
    Wide,
    Yaml,
    Json,
    Ndjson,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`; the latest version without one.
    pub(crate) reference: String,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: ReportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Text,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Check {
    /// Are component versions complete: all that they reference, and every byte that is stored with them?
    ///
    /// Each blob and manifest is read and gets a state: ok, missing, size, digest or unreadable. Exit code 4 when something
    /// is missing, 5 when something is wrong.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Example:
  ocm check cv ./archive//acme.org/helloworld:1.0.0")]
    ComponentVersion(CheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`, or a REPOSITORY for all that is in it.
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) choice: VersionChoice,
    /// Read content that is stored elsewhere (images in registries, files behind URLs), too.
    #[arg(long)]
    pub(crate) external: bool,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: ReportFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ocm diff ./archive//acme.org/helloworld:1.0.0 ./archive//acme.org/helloworld:1.1.0")]
pub(crate) struct DiffArgs {
    /// The first component version: `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`
    pub(crate) first: String,
    /// The second one.
    pub(crate) second: String,
    /// Compare only what signatures cover.
    #[arg(long)]
    pub(crate) signed: bool,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct TypesArgs {
    /// One type; all of them without.
    pub(crate) name: Option<String>,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: TypesFormat,
    #[command(flatten)]
    pub(crate) plugins: PluginFiles,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Tree,
    Yaml,
    Json,
    Ndjson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TypesFormat {
    Text,
    Json,
    Jsonschema,
    Examples,
}
