//! Plugins: what `ocm transfer` and others say of them, and `ocm plugin`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// Which plugins there are and what they may do.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Plugins (step types in WebAssembly)")]
pub(crate) struct PluginArgs {
    /// Use this plugin, in place of one of that name in the spec (repeatable). SOURCE is a file, `oci://REGISTRY/REPO:TAG` or
    /// `ocm://REPOSITORY//COMPONENT:VERSION?resource=NAME`; DIGEST is that of the component's bytes.
    #[arg(long, value_name = "NAME=SOURCE[@DIGEST]")]
    pub(crate) plugin: Vec<String>,
    /// Allow a plugin what it asks for, or only these of it: `http:HOST`, `clock`, `random`, separated by commas (repeatable).
    #[arg(long, value_name = "NAME[=RIGHTS]")]
    pub(crate) allow_plugin: Vec<String>,
    /// Write the digests of the spec's plugins that have none into the spec's file, where nothing else changes.
    #[arg(long)]
    pub(crate) lock: bool,
    /// Remember what deterministic steps of plugins without rights gave, and do not run them again for the same plugin,
    /// configuration, inputs and contents. `ocm plugin prune` forgets.
    #[arg(long)]
    pub(crate) cache: bool,
    /// Run plugins whose digest nobody pinned.
    #[arg(long)]
    pub(crate) allow_unpinned_plugins: bool,
    /// Trust this public key or certificate for the signatures of component versions that plugins come from (repeatable).
    #[arg(long, value_name = "[NAME=]FILE")]
    pub(crate) plugin_key: Vec<String>,
    /// Take only plugins from component versions with this signature, whatever the spec says (repeatable).
    #[arg(long, value_name = "NAME")]
    pub(crate) plugin_signature: Vec<String>,
    /// Memory that one call of a plugin may use, as in 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = crate::units::parse_size)]
    pub(crate) plugin_memory: u64,
    /// How long a plugin may go on without moving a byte while it is not waiting for one, as in 30s.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::units::parse_duration)]
    pub(crate) plugin_stall: Duration,
    /// How long one call of a plugin may work in all, as in 1h; the time that it waits for bytes does not count.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::units::parse_duration)]
    pub(crate) plugin_timeout: Duration,
    /// Take plugins from files, archives and the cache only.
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Names a plugin for commands that look at step types.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PluginFiles {
    /// Show the step types of this plugin, too (repeatable): a component file, or the name of an installed plugin.
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) plugin: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Fetch a plugin, check it, and print the entry for specs.
    Install(PluginInstall),
    /// List installed plugins.
    #[command(visible_alias = "list")]
    Ls(PluginList),
    /// Explain a plugin, or one of its step types.
    Describe(PluginDescribe),
    /// Write the digests of plugins into the transfer specs that name them without.
    Lock(PluginLock),
    /// Start a project for a plugin.
    New(PluginNew),
    /// Check that a plugin keeps the contract.
    Test(PluginTest),
    /// Publish a plugin as an OCI artifact.
    Push(PluginPush),
    /// Remove installed plugins, and what is remembered of their steps.
    Prune(PluginPrune),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ocm plugin install ./basics.wasm")]
pub(crate) struct PluginInstall {
    /// Where it is: a file, `oci://REGISTRY/REPO:TAG`, or `ocm://REPOSITORY//COMPONENT:VERSION?resource=NAME`.
    pub(crate) source: String,
    /// What its bytes must hash to.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<String>,
    /// The signature that the component version it comes from must have.
    #[arg(long, value_name = "NAME")]
    pub(crate) signature: Option<String>,
    /// Trust this public key or certificate for the signature (repeatable).
    #[arg(long, value_name = "[NAME=]FILE")]
    pub(crate) plugin_key: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ocm plugin lock transfer-spec.yaml")]
pub(crate) struct PluginLock {
    /// The specs. Plugins that have a digest keep it.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) specs: Vec<PathBuf>,
    /// Trust this public key or certificate for the signatures that the specs want (repeatable).
    #[arg(long, value_name = "[NAME=]FILE")]
    pub(crate) plugin_key: Vec<String>,
    /// Say what would be written, write nothing; exit code 9 if there is anything.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ocm plugin ls -o json")]
pub(crate) struct PluginList {
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: PluginFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginFormat {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ocm plugin describe ./basics.wasm -o markdown")]
pub(crate) struct PluginDescribe {
    /// A component file, or the name of an installed plugin; `/TYPE` behind a name for one step type.
    #[arg(value_name = "FILE|NAME[/TYPE]")]
    pub(crate) plugin: String,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: DescribeFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DescribeFormat {
    Text,
    Markdown,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ocm plugin new acme-scrub\n  ocm plugin new acme-words --lang python\n  ocm plugin new acme-words --lang js"
)]
pub(crate) struct PluginNew {
    /// Name of the plugin: lower-case letters, digits and `-`.
    pub(crate) name: String,
    /// Language of the project.
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    pub(crate) lang: PluginLanguage,
    /// The folder that is made; the name without.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginLanguage {
    /// Built by cargo for `wasm32-wasip2`.
    Rust,
    /// Built by `componentize-py`.
    Python,
    /// Built by `componentize-js`.
    Js,
}

#[derive(Debug, Args)]
#[cfg_attr(feature = "wasm", command(after_help = crate::commands::plugin_test::checks_help()))]
pub(crate) struct PluginTest {
    /// The component.
    pub(crate) file: PathBuf,
    /// Folder with fixtures: steps with what they get and must give; `examples` where that is there.
    #[arg(long, value_name = "DIR")]
    pub(crate) fixtures: Option<PathBuf>,
    /// Test this step type only (repeatable).
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) only: Vec<String>,
    /// The largest input that is tried, as in 64MiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = crate::units::parse_size)]
    pub(crate) largest: u64,
    /// Write what the steps of the fixtures give as what they must give.
    #[arg(long)]
    pub(crate) bless: bool,
    /// The plugin's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Rights that the plugin gets: `http:HOST`, `clock`, `random`, separated by commas.
    #[arg(long, value_name = "RIGHTS")]
    pub(crate) allow: Option<String>,
    /// Memory that one call may use, as in 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = crate::units::parse_size)]
    pub(crate) plugin_memory: u64,
    /// How long the plugin may go on without moving a byte while it is not waiting for one, as in 30s.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::units::parse_duration)]
    pub(crate) plugin_stall: Duration,
    /// How long one call of a plugin may work in all, as in 1h; the time that it waits for bytes does not count.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::units::parse_duration)]
    pub(crate) plugin_timeout: Duration,
    /// Format.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: PluginFormat,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ocm plugin push ./basics.wasm localhost:5001/acme/basics:0.1.0"
)]
pub(crate) struct PluginPush {
    /// The component.
    pub(crate) file: PathBuf,
    /// Where to: `REGISTRY/REPOSITORY:TAG`.
    pub(crate) target: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ocm plugin prune")]
pub(crate) struct PluginPrune {
    /// Keep those of this name (repeatable).
    #[arg(long, value_name = "NAME")]
    pub(crate) keep: Vec<String>,
}
