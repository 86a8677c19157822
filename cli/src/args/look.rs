//! `ocm get`, `ocm describe`.

use clap::{Args, Subcommand, ValueEnum};

use super::NOUNS;

#[derive(Debug, Subcommand)]
pub(crate) enum Get {
    /// List component versions, or show one.
    #[command(name = "component-version", aliases = NOUNS)]
    ComponentVersion(GetComponentVersion),
    /// List the step types of transfer specs, or show one.
    #[command(name = "types", alias = "type")]
    Types(TypesArgs),
    /// Print the JSON Schema of a document.
    Schema {
        /// Which document.
        document: SchemaName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Describe {
    /// Describe step types: inputs, outputs, an example.
    #[command(name = "types", alias = "type")]
    Types(TypesArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaName {
    /// A transfer spec, for editors.
    TransferSpec,
    /// The report that `ocm transfer --report` writes.
    Report,
}

#[derive(Debug, Args)]
pub(crate) struct GetComponentVersion {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]`
    pub(crate) reference: String,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: ListFormat,
    /// Only the latest version.
    #[arg(long)]
    pub(crate) latest: bool,
    /// Only versions that this constraint allows, as in `>=1.0, <2`.
    #[arg(long, value_name = "CONSTRAINT", alias = "constraints")]
    pub(crate) semver_constraint: Option<String>,
    /// Follow references: all the way (no value or -1), not at all (0), or N levels.
    #[arg(short, long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "-1",
          default_value = "0", allow_hyphen_values = true)]
    pub(crate) recursive: i32,
}

#[derive(Debug, Args)]
pub(crate) struct TypesArgs {
    /// One type; all of them without.
    pub(crate) name: Option<String>,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: TypesFormat,
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
