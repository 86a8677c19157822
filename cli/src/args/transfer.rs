//! `ocm transfer`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{NOUNS, PluginArgs, VersionChoice};

/// Carry component versions, or run a transfer spec.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:
  ocm transfer --transfer-spec transfer-spec.yaml --dry-run -o tree"
)]
pub(crate) struct TransferArgs {
    #[command(subcommand)]
    pub(crate) noun: Option<TransferNoun>,
    #[command(flatten)]
    pub(crate) options: TransferOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TransferNoun {
    /// Carry component versions from a repository to others: plan it as a transfer spec, and run that.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Examples:
  ocm transfer cv -r --copy-resources ./archive//acme.org/helloworld:1.0.0 localhost:5001
  ocm transfer cv --verify default=key.pub ./archive//acme.org/helloworld:1.1.0 ./copy.tgz
  ocm transfer cv --dry-run ./archive//acme.org/helloworld ./copy | ocm transfer --transfer-spec -")]
    ComponentVersion(Box<CarryVersions>),
    /// Carry all component versions of an archive, or of another repository that can list what it has.
    #[command(
        name = "ctf",
        after_help = "Example:
  ocm transfer ctf --copy-resources ./archive localhost:5001",
        aliases = ["commontransportarchive", "common-transport-archive", "commonTransportArchive"]
    )]
    Ctf(Box<CarryArchive>),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CarryVersions {
    /// `REPOSITORY//COMPONENT[:VERSION][@DIGEST]` to carry (all versions without one), then the repositories they go to.
    #[arg(value_name = "REFERENCE... TARGET")]
    pub(crate) places: Vec<String>,
    #[command(flatten)]
    pub(crate) choice: VersionChoice,
    #[command(flatten)]
    pub(crate) carry: Carry,
    #[command(flatten)]
    pub(crate) options: TransferOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CarryArchive {
    /// The archive, then the repositories that its component versions go to.
    #[arg(value_name = "CTF TARGET")]
    pub(crate) places: Vec<String>,
    #[command(flatten)]
    pub(crate) carry: Carry,
    #[command(flatten)]
    pub(crate) options: TransferOptions,
}

/// What is carried, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Carry {
    /// A repository to carry to (repeatable; one at the end needs no word).
    #[arg(long, value_name = "TARGET", help_heading = "What is carried")]
    pub(crate) to: Vec<String>,
    /// Carry what is referenced, too, all the way (-1, or no value).
    #[arg(short, long, value_name = "DEPTH", num_args = 0..=1, require_equals = true, default_missing_value = "-1",
          allow_hyphen_values = true, help_heading = "What is carried")]
    pub(crate) recursive: Option<i32>,
    /// Carry all resources by value, not only what is stored beside the descriptors.
    #[arg(short = 'V', long, help_heading = "What is carried")]
    pub(crate) copy_resources: bool,
    /// Carry resources with the relation `local` by value.
    #[arg(
        short = 'L',
        long,
        conflicts_with = "copy_resources",
        help_heading = "What is carried"
    )]
    pub(crate) copy_local_resources: bool,
    /// Carry sources by value, too.
    #[arg(long, help_heading = "What is carried")]
    pub(crate) copy_sources: bool,
    /// Access types that stay by reference whatever else is asked for (repeatable, or separated by commas).
    #[arg(
        short = 'N',
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        help_heading = "What is carried"
    )]
    pub(crate) omit_access_types: Vec<String>,
    /// Leave by reference what can't be read here or what no server has, instead of failing.
    #[arg(long, help_heading = "What is carried")]
    pub(crate) allow_external: bool,
    /// Carry only resources by value that this CEL condition over `component` and `resource` is true of (repeatable: any of
    /// them). What lies beside a descriptor is always carried.
    #[arg(long, value_name = "CONDITION", help_heading = "What is carried")]
    pub(crate) select: Vec<String>,
    /// Leave resources by reference that this CEL condition is true of (repeatable).
    #[arg(long, value_name = "CONDITION", help_heading = "What is carried")]
    pub(crate) exclude: Vec<String>,
    /// Of images for several platforms, carry only this one, as in linux/amd64 (repeatable). Their digests change with that.
    #[arg(long, value_name = "PLATFORM", help_heading = "What is carried")]
    pub(crate) platform: Vec<String>,
    /// Send resources that are carried by value through a step on their way (repeatable, in this order): its type, or a YAML file
    /// with `type`, its inputs below `spec`, and `select`, a CEL condition over `component` and `resource`. Step types of
    /// plugins come by --plugin.
    #[arg(long, value_name = "TYPE|FILE", help_heading = "What is carried")]
    pub(crate) transform: Vec<String>,
    /// With --recursive: do not follow references of component versions that all targets have already.
    #[arg(short = 'E', long, help_heading = "What is carried")]
    pub(crate) stop_on_existing: bool,
    /// Look for component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY", help_heading = "What is carried")]
    pub(crate) lookup: Vec<String>,
    /// Verify this signature of all that is carried before the first byte is written (repeatable): the key in the file, else the
    /// configuration's. What is referenced and not signed itself must be pinned by a digest.
    #[arg(long, value_name = "NAME[=KEYFILE]", help_heading = "What must hold")]
    pub(crate) verify: Vec<String>,
    /// Verify every signature of all that is carried before the first byte is written.
    #[arg(long, help_heading = "What must hold")]
    pub(crate) verify_all: bool,
    /// PEM file with a public key or certificate, for one signature or for all (repeatable).
    #[arg(
        short = 'k',
        long,
        value_name = "[NAME=]FILE",
        help_heading = "What must hold"
    )]
    pub(crate) public_key: Vec<String>,
    /// PEM file with root certificates that certificates of signatures may lead to (repeatable).
    #[arg(long, value_name = "FILE", help_heading = "What must hold")]
    pub(crate) ca_cert: Vec<PathBuf>,
    /// What resources that are OCI artifacts become in a registry [default: the configuration's, else localBlob].
    #[arg(short, long, value_name = "KIND", help_heading = "Where it goes")]
    pub(crate) upload_as: Option<UploadAsArg>,
    /// Image references for single resources: a file with `type: OCIImageReferenceOverride/v1alpha1` (repeatable; the
    /// configuration may have some, too).
    #[arg(long, value_name = "FILE", help_heading = "Where it goes")]
    pub(crate) upload_config: Vec<PathBuf>,
    /// Where artifacts of a kind go, as v1 spells it: `ocm/ociArtifacts[:TYPE[:MEDIATYPE[:PRIORITY]]]=REGISTRY/PATH` (repeatable).
    #[arg(long, value_name = "HANDLER", help_heading = "Where it goes")]
    pub(crate) uploader: Vec<String>,
    /// Store everything beside the descriptors, whatever the configuration says.
    #[arg(long, conflicts_with = "upload_as", help_heading = "Where it goes")]
    pub(crate) disable_uploads: bool,
    /// The form of an archive that has to be made [default: by the ending of its path, else a folder].
    #[arg(
        short = 't',
        long = "type",
        value_name = "FORM",
        help_heading = "Where it goes"
    )]
    pub(crate) form: Option<FormArg>,
    /// Not available: transfer handlers are transfer specs here.
    #[arg(
        short = 's',
        long,
        alias = "scriptFile",
        value_name = "FILE",
        hide = true
    )]
    pub(crate) script: Option<String>,
    /// Not available: the report says what was carried.
    #[arg(short = 'B', long, value_name = "FILE", hide = true)]
    pub(crate) bom_file: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(crate) enum UploadAsArg {
    /// Content stored beside the descriptor.
    LocalBlob,
    /// Artifacts of their own below the target.
    OciArtifact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArg {
    Directory,
    Tar,
    Tgz,
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
    /// What becomes of component versions that are at the target already [default: update].
    #[arg(long, value_name = "POLICY", conflicts_with_all = ["overwrite", "enforce", "no_update"])]
    pub(crate) conflict_policy: Option<ConflictPolicyArg>,
    /// Replace component versions at the target that differ: --conflict-policy replace.
    #[arg(short = 'f', long, conflicts_with = "no_update")]
    pub(crate) overwrite: bool,
    /// Publish component versions anew even where they are at the target already. Blobs that are there are not sent again.
    #[arg(long, conflicts_with = "no_update")]
    pub(crate) enforce: bool,
    /// Leave component versions that are at the target, whatever they are: --conflict-policy skip.
    #[arg(long)]
    pub(crate) no_update: bool,
    /// What becomes of signatures that do not hold for what is uploaded, since steps changed it [default: fail].
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_broken_signature: Option<OnBrokenArg>,
    /// PEM file with the private key that makes broken signatures anew (repeatable; --on-broken-signature resign); where none
    /// is named, those of the configuration do.
    #[arg(short = 'K', long, value_name = "[NAME=]FILE")]
    pub(crate) private_key: Vec<String>,
    /// Write a report of the run to this file (JSON; `ocm get schema report` prints its schema).
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Steps at work at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
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
    #[command(flatten)]
    pub(crate) plugins: PluginArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConflictPolicyArg {
    /// One that differs is an error, exit code 8.
    Fail,
    /// One that differs in what is not signed is updated; any other difference is an error, exit code 8.
    Update,
    /// One that differs is replaced.
    #[value(alias = "overwrite")]
    Replace,
    /// Whatever is there is left.
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBrokenArg {
    /// The component version is not uploaded, exit code 5.
    Fail,
    /// They stay, broken.
    Keep,
    /// They are left out.
    Drop,
    /// They are made anew, by --private-key.
    Resign,
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
