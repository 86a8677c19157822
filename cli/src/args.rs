//! The command line's grammar. v2's spelling is canonical; v1's and the designs' spellings are aliases.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ocm_specs::Algorithm;
use ocm_specs::normalisation::Normalisation;
use ocm_transformers::signing::SignatureAlgorithm;

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
    /// What is logged to stderr.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn")]
    pub(crate) loglevel: LogLevel,
    /// How the log is written.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) logformat: LogFormat,
    /// Where temporary files go.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) temp_folder: Option<PathBuf>,
    /// The folder that relative paths in specs are below.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) working_directory: Option<PathBuf>,
    /// Send requests for HOST to URL; references stay as they are (repeatable; also in OCM_HOST_ALIAS, comma-separated).
    #[arg(long, global = true, value_name = "HOST=URL")]
    pub(crate) host_alias: Vec<String>,
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
    /// Run a transfer spec.
    Transfer(TransferArgs),
    /// Look at component versions and step types.
    #[command(subcommand, alias = "list")]
    Get(Get),
    /// Explain step types in full.
    #[command(subcommand)]
    Describe(Describe),
    /// Sign component versions.
    #[command(subcommand)]
    Sign(Sign),
    /// Check signatures of component versions, and what they stand for.
    #[command(subcommand)]
    Verify(Verify),
    /// Compute the digest of component versions.
    #[command(subcommand)]
    Hash(Hash),
    /// Serve component versions as an OCI registry.
    #[command(subcommand)]
    Registry(Registry),
    /// Look after archives in the Common Transport Format.
    #[command(subcommand)]
    Ctf(Ctf),
    /// Print the version.
    Version,
    /// Print a completion script.
    Completion {
        /// The shell it is for.
        shell: clap_complete::Shell,
    },
    /// Write the documentation that this program carries.
    #[command(subcommand)]
    Generate(Generate),
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Run the embedded OCI registry until it is stopped.
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
    Man {
        /// The folder; made if it is not there.
        #[arg(short, long, value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sign {
    /// Sign a component version and store the signature in its descriptor.
    ///
    /// Example: `ocm sign cv --private-key key.pem ./archive//acme.org/helloworld:1.0.0`
    #[command(name = "component-version", aliases = NOUNS)]
    ComponentVersion(SignArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verify {
    /// Check a component version's signatures; exit code 5 when one does not hold.
    ///
    /// Example: `ocm verify cv --public-key key.pub --deep ./archive//acme.org/helloworld:1.0.0`
    #[command(name = "component-version", aliases = NOUNS)]
    ComponentVersion(VerifyArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hash {
    /// Compute the digest that signatures stand on.
    ///
    /// Example: `ocm hash cv -o json ./archive//acme.org/helloworld:1.0.0`
    #[command(name = "component-version", aliases = NOUNS)]
    ComponentVersion(HashArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// `REPOSITORY//COMPONENT:VERSION`
    pub(crate) reference: String,
    /// Name of the signature (repeatable) [default: default].
    #[arg(short, long, value_name = "NAME")]
    pub(crate) signature: Vec<String>,
    /// PEM file with the private key, for one signature or for all (repeatable). The configuration's key without.
    #[arg(short = 'K', long, value_name = "[NAME=]FILE")]
    pub(crate) private_key: Vec<String>,
    /// PEM file with the key's certificates, for --encoding pem (repeatable).
    #[arg(short = 'k', long, value_name = "[NAME=]FILE")]
    pub(crate) public_key: Vec<String>,
    /// RSASSA-PSS or RSASSA-PKCS1-V1_5 [default: the configuration's, else RSASSA-PSS].
    #[arg(short = 'S', long, value_name = "ALGORITHM", value_parser = crate::commands::keys::parse_algorithm)]
    pub(crate) algorithm: Option<SignatureAlgorithm>,
    /// What is hashed: jsonNormalisation/v1, v2, v3, v4alpha1.
    #[arg(short = 'N', long, alias = "normalization", value_name = "ALGORITHM",
          default_value = "jsonNormalisation/v4alpha1", value_parser = crate::commands::keys::parse_normalisation)]
    pub(crate) normalisation: Normalisation,
    /// SHA-256 or SHA-512.
    #[arg(short = 'H', long, value_name = "ALGORITHM", default_value = "SHA-256", value_parser = crate::commands::keys::parse_hash)]
    pub(crate) hash: Algorithm,
    /// How the signature is written: in hex, or as PEM with certificates [default: the configuration's, else plain].
    #[arg(long, value_name = "ENCODING")]
    pub(crate) encoding: Option<EncodingArg>,
    /// Sign what it references, too, children first.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Replace a signature of the same name.
    #[arg(long)]
    pub(crate) force: bool,
    /// Sign, print, and store nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
    /// Format of the signature on stdout.
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    pub(crate) output: DocumentFormat,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// `REPOSITORY//COMPONENT:VERSION[@DIGEST]`
    pub(crate) reference: String,
    /// Only the signature of this name (repeatable); all of them without.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) signature: Vec<String>,
    /// PEM file with a public key or certificate, for one signature or for all (repeatable). The configuration's without.
    #[arg(short = 'k', long, value_name = "[NAME=]FILE")]
    pub(crate) public_key: Vec<String>,
    /// PEM file with root certificates that certificates of signatures may lead to (repeatable).
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Vec<PathBuf>,
    /// Check every referenced component version and the bytes of all resources, too.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
    /// Format of the result.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: ResultFormat,
}

#[derive(Debug, Args)]
pub(crate) struct HashArgs {
    /// `REPOSITORY//COMPONENT:VERSION[@DIGEST]`
    pub(crate) reference: String,
    /// What is hashed: jsonNormalisation/v1, v2, v3, v4alpha1.
    #[arg(short = 'N', long, alias = "normalization", value_name = "ALGORITHM",
          default_value = "jsonNormalisation/v4alpha1", value_parser = crate::commands::keys::parse_normalisation)]
    pub(crate) normalisation: Normalisation,
    /// SHA-256 or SHA-512.
    #[arg(short = 'H', long, value_name = "ALGORITHM", default_value = "SHA-256", value_parser = crate::commands::keys::parse_hash)]
    pub(crate) hash: Algorithm,
    /// Look for referenced component versions here, too (repeatable).
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) lookup: Vec<String>,
    /// Format; `normalised` prints the bytes that are hashed.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: HashFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EncodingArg {
    Plain,
    Pem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DocumentFormat {
    Yaml,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HashFormat {
    Text,
    Json,
    Yaml,
    #[value(alias = "norm")]
    Normalised,
}
