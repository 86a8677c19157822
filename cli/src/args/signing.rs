//! `ocm sign`, `ocm verify`, `ocm hash`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ocm_specs::Algorithm;
use ocm_specs::normalisation::Normalisation;
use ocm_transformers::signing::SignatureAlgorithm;

use super::NOUNS;

#[derive(Debug, Subcommand)]
pub(crate) enum Sign {
    /// Sign a component version and store the signature in its descriptor.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Example:
  ocm sign cv --private-key key.pem ./archive//acme.org/helloworld:1.0.0")]
    ComponentVersion(SignArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verify {
    /// Check a component version's signatures; exit code 5 when one does not hold.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Example:
  ocm verify cv --public-key key.pub --deep ./archive//acme.org/helloworld:1.1.0")]
    ComponentVersion(VerifyArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hash {
    /// Compute the digest that signatures stand on.
    #[command(name = "component-version", aliases = NOUNS, after_help = "Example:
  ocm hash cv -o json ./archive//acme.org/helloworld:1.0.0")]
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
