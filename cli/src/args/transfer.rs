//! `ocm transfer`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::NOUNS;

/// Run a transfer spec: `ocm transfer --transfer-spec FILE`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TransferArgs {
    #[command(subcommand)]
    pub(crate) noun: Option<TransferNoun>,
    #[command(flatten)]
    pub(crate) options: TransferOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TransferNoun {
    /// The same, as the Go CLI spells it.
    #[command(name = "component-version", aliases = NOUNS)]
    ComponentVersion(TransferOptions),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TransferOptions {
    /// The transfer spec to run, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) transfer_spec: Option<PathBuf>,
    /// Check everything and print the plan; run nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Format of the plan (with --dry-run) or of the report on stdout (without; json, yaml or ndjson).
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<PlanFormat>,
    /// Write a report of the run to this file (JSON; `ocm get schema report` prints its schema).
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Steps at work at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: u16,
    /// Memory that readers sharing one read may use, as in 64MiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = crate::units::parse_size)]
    pub(crate) buffer: u64,
    /// What a failed step means for the others.
    #[arg(long, value_name = "POLICY", default_value = "stop")]
    pub(crate) on_error: OnErrorArg,
    /// Do signatures, SBOMs and other artifacts that refer to an artifact travel with it?
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub(crate) referrers: ReferrersArg,
    /// For the length of the run, answer requests for HOST by an embedded registry over this CTF archive (repeatable). A
    /// folder is made if it is not there; a tar or tgz is served read-only.
    #[arg(long, value_name = "HOST=DIR")]
    pub(crate) serve: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    Yaml,
    Json,
    Ndjson,
    Tree,
    Dot,
    Mermaid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnErrorArg {
    /// No further step starts; nothing that waits is published.
    Stop,
    /// Other steps go on; what is complete in itself is published.
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReferrersArg {
    /// Yes, with all that refers to them.
    All,
    /// No.
    None,
}
