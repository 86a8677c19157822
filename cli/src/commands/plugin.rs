//! `ocm plugin`: install, list, describe, push, prune; `plugin_test.rs` has the rest.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use ocm_content::{Blob, Disk, Error, RawManifest};
use ocm_engine::StepTypeInfo;
use ocm_plugins_wasm::template::{self, Language};
use ocm_plugins_wasm::{Description, Inspected, StepDescription, is_plugin_name, summary};
use ocm_specs::Digest;
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::yaml;
use serde_json::{Value as Json, json};

use crate::args::{
    DescribeFormat, Plugin, PluginDescribe, PluginFormat, PluginInstall, PluginLanguage,
    PluginList, PluginLock, PluginNew, PluginPrune, PluginPush,
};
use crate::commands::session::{self, SessionOptions};
use crate::commands::transfer;
use crate::error::{CliError, ExitCode};
use crate::plugins::{self, Origin, SourceOptions, fetch, target};
use crate::table::table;
use crate::ui::Ui;
use crate::units;

/// Config of a component in an OCI artifact, as the CNCF's layout for WebAssembly has it.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Does what the subcommand says.
pub(crate) async fn plugin(args: Plugin, ui: &Ui) -> Result<(), CliError> {
    match args {
        Plugin::Install(args) => install(args, ui).await,
        Plugin::Ls(args) => list(&args, ui),
        Plugin::Describe(args) => describe(args, ui).await,
        Plugin::Lock(args) => lock(&args, ui).await,
        Plugin::New(args) => new(&args, ui),
        Plugin::Test(args) => super::plugin_test::plugin_test(args, ui).await,
        Plugin::Push(args) => push(args, ui).await,
        Plugin::Prune(args) => prune(&args, ui),
    }
}

async fn install(args: PluginInstall, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let pinned = args.digest.as_deref().map(str::parse::<Digest>).transpose();
    let pinned = pinned.map_err(|error| CliError::usage(format!("--digest: {error}")))?;
    let host = plugins::host(ui, None, None);
    let signatures: Vec<String> = args.signature.iter().cloned().collect();
    let options = SourceOptions {
        pinned: pinned.as_ref(),
        signatures: &signatures,
        keys: &args.plugin_key,
        offline: false,
    };
    // What is asked for is what is there now, not what was kept.
    let fetched = fetch(Some(&args.source), &options, None, &session, ui).await?;
    let inspected = host.inspect(fetched.bytes, pinned.as_ref()).await?;
    if host.cache().is_none() {
        let error = CliError::new(ExitCode::Failure, "there is no folder to keep plugins in");
        return Err(error.with_hint("set HOME or XDG_CACHE_HOME"));
    }
    let mut entry = serde_json::Map::new();
    entry.insert("name".into(), inspected.description.name.clone().into());
    entry.insert("source".into(), absolute(&args.source, ui)?.into());
    entry.insert("digest".into(), inspected.digest.to_string().into());
    if let Some(signature) = &args.signature {
        entry.insert("signature".into(), signature.clone().into());
    }
    ui.note(&text(&inspected, &[]));
    ui.data(&yaml::to_string(&json!({"plugins": [entry]})))
}

/// The source as a spec in another folder has to name it.
fn absolute(source: &str, ui: &Ui) -> Result<String, CliError> {
    Ok(match Origin::parse(source)? {
        Origin::File(path) => format!(
            "file:{}",
            ui.environment.working_directory.join(path).display()
        ),
        _ => source.to_owned(),
    })
}

async fn lock(args: &PluginLock, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let mut missing = 0;
    for path in &args.specs {
        if path == Path::new("-") {
            return Err(
                CliError::usage("standard input can't be written into").with_hint("name a file")
            );
        }
        let source = transfer::read_spec(path, ui)?;
        let spec = transfer::load(&source, ui)?;
        let pins = plugins::pins(&spec, &args.plugin_key, &session, ui).await?;
        if !args.check {
            plugins::write_pins(path, &source, &pins, session.limits().disk(), ui)?;
            continue;
        }
        for pin in &pins {
            ui.data(&format!("{}: {}\n", source.name(), pin.line()))?;
        }
        missing += pins.len();
    }
    match missing {
        0 => Ok(()),
        _ => Err(CliError::new(
            ExitCode::Difference,
            format!("{missing} plugins have no digest"),
        )
        .with_hint("`ocm plugin lock` without --check writes them")),
    }
}

fn list(args: &PluginList, ui: &Ui) -> Result<(), CliError> {
    let entries = match plugins::cache(ui) {
        Some(cache) => cache.entries()?,
        None => Vec::new(),
    };
    let document = || -> Json {
        let rows = entries.iter().map(|entry| {
            json!({
                "name": entry.description.name,
                "version": entry.description.version,
                "digest": entry.digest.to_string(),
                "stepTypes": entry.description.steps.iter().map(|step| &step.name).collect::<Vec<_>>(),
                "size": entry.size,
            })
        });
        rows.collect()
    };
    ui.data(&match args.output {
        PluginFormat::Json => serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n",
        PluginFormat::Yaml => yaml::to_string(&document()),
        PluginFormat::Table => {
            let rows: Vec<[String; 5]> = entries
                .iter()
                .map(|entry| {
                    let types: Vec<&str> = entry
                        .description
                        .steps
                        .iter()
                        .map(|step| step.name.as_str())
                        .collect();
                    [
                        entry.description.name.clone(),
                        entry.description.version.clone(),
                        entry.digest.short(),
                        types.join(", "),
                        units::size(entry.size),
                    ]
                })
                .collect();
            table(["NAME", "VERSION", "DIGEST", "STEP TYPES", "SIZE"], &rows)
        }
    })
}

async fn describe(args: PluginDescribe, ui: &Ui) -> Result<(), CliError> {
    let host = plugins::host(ui, None, None);
    let is_file = ui
        .environment
        .working_directory
        .join(&args.plugin)
        .is_file();
    let (name, wanted) = match args.plugin.split_once('/').filter(|_| !is_file) {
        Some((name, step_type)) => (name, Some(step_type)),
        None => (args.plugin.as_str(), None),
    };
    let inspected = plugins::look(name, &host, ui).await?;
    let is_wanted = |step: &&StepDescription| {
        let base = step.name.split('/').next();
        wanted.is_none_or(|wanted| step.name == wanted || base == Some(wanted))
    };
    let chosen: Vec<&StepDescription> = inspected
        .description
        .steps
        .iter()
        .filter(is_wanted)
        .collect();
    if chosen.is_empty() {
        let message = format!(
            "plugin `{name}` has no step type `{}`",
            wanted.unwrap_or_default()
        );
        let names: Vec<&str> = inspected
            .description
            .steps
            .iter()
            .map(|step| step.name.as_str())
            .collect();
        return Err(CliError::new(ExitCode::NotFound, message)
            .with_hint(format!("it has {}", names.join(", "))));
    }
    let infos: Vec<StepTypeInfo> = plugins::shown(&host, inspected.clone())?
        .step_types()?
        .iter()
        .map(|step_type| step_type.info().clone())
        .filter(|info| chosen.iter().any(|step| step.name == info.name))
        .collect();
    let document = || {
        let description = Description {
            steps: chosen.iter().map(|step| (*step).clone()).collect(),
            ..(*inspected.description).clone()
        };
        let mut document = serde_json::to_value(&description).unwrap_or_default();
        document["digest"] = inspected.digest.to_string().into();
        document
    };
    ui.data(&match args.output {
        DescribeFormat::Json => {
            serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
        }
        DescribeFormat::Yaml => yaml::to_string(&document()),
        DescribeFormat::Text => text(&inspected, &infos),
        DescribeFormat::Markdown => markdown(&inspected.description, &chosen, &infos),
    })
}

/// A plugin for people.
fn text(inspected: &Inspected, infos: &[StepTypeInfo]) -> String {
    let description = &inspected.description;
    let mut out = format!(
        "{} {}\n  {}\n",
        description.name,
        description.version,
        summary(&description.documentation)
    );
    let _ = writeln!(out, "  digest {}", inspected.digest);
    if description.needs.is_empty() {
        out.push_str("  asks for no rights\n");
    }
    for need in &description.needs {
        let how = if need.optional { "would like" } else { "needs" };
        let _ = writeln!(out, "  {how} {need}: {}", need.reason);
    }
    if infos.is_empty() {
        for step in &description.steps {
            let _ = writeln!(out, "  {}  {}", step.name, summary(&step.documentation));
        }
    }
    for info in infos {
        let _ = write!(out, "\n{}", super::types::text(info));
    }
    out
}

/// A plugin's page of documentation.
fn markdown(
    description: &Description,
    steps: &[&StepDescription],
    infos: &[StepTypeInfo],
) -> String {
    let mut out = format!(
        "# {} {}\n\n{}\n",
        description.name,
        description.version,
        description.documentation.trim()
    );
    out.push_str("\n## Rights\n\n");
    if description.needs.is_empty() {
        out.push_str("None.\n");
    }
    for need in &description.needs {
        let how = if need.optional { "optional" } else { "needed" };
        let _ = writeln!(out, "* {need} ({how}): {}", need.reason);
    }
    for (step, info) in steps.iter().zip(infos) {
        let _ = write!(out, "\n## {}\n\n{}\n", step.name, step.documentation.trim());
        for (title, schema) in [
            ("Inputs", &info.spec_schema),
            ("Output", &info.output_schema),
        ] {
            let rows = super::types::rows(schema);
            if rows.is_empty() {
                continue;
            }
            let _ = write!(
                out,
                "\n### {title}\n\n| field | type | required | |\n| --- | --- | --- | --- |\n"
            );
            for row in rows {
                let required = if row.required { "yes" } else { "" };
                let _ = writeln!(
                    out,
                    "| `{}` | {} | {required} | {} |",
                    row.name,
                    row.kind,
                    row.about.replace('|', "\\|")
                );
            }
        }
        let same = if info.deterministic {
            "always"
        } else {
            "not always"
        };
        let _ = writeln!(out, "\nThe same inputs {same} give the same output.");
        for example in step
            .examples
            .iter()
            .chain(step.examples.is_empty().then_some(&info.example))
        {
            let _ = write!(out, "\n```yaml\n{}\n```\n", example.trim_end());
        }
    }
    out
}

fn new(args: &PluginNew, ui: &Ui) -> Result<(), CliError> {
    if !is_plugin_name(&args.name) {
        let message = format!("`{}` is not a name for a plugin", args.name.escape_debug());
        return Err(CliError::usage(message)
            .with_hint("use lower-case letters, digits and `-`, at most 63, as in acme-scrub"));
    }
    let folder = args
        .folder
        .clone()
        .unwrap_or_else(|| args.name.clone().into());
    let full = ui.environment.working_directory.join(&folder);
    let language = match args.lang {
        PluginLanguage::Rust => Language::Rust,
        PluginLanguage::Python => Language::Python,
        PluginLanguage::Js => Language::JavaScript,
    };
    let files = template::project(language, &args.name);
    let made = std::fs::create_dir(&full);
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let message = format!("{} is there already", folder.display());
            CliError::new(ExitCode::Conflict, message).with_hint("choose another --folder")
        }
        _ => CliError::file("create", &folder, &error),
    })?;
    for (path, text) in files {
        let full = full.join(path);
        let parent = full.parent().unwrap_or(&full);
        let written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&full, text));
        written.map_err(|error| CliError::file("write", &folder.join(path), &error))?;
    }
    ui.data(&format!("{}\n", folder.display()))?;
    ui.note("README.md there says how it is tested, built and used\n");
    Ok(())
}

async fn push(args: PluginPush, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let host = plugins::host(ui, None, None);
    let path = ui.environment.working_directory.join(&args.file);
    let bytes = plugins::read_file(&path, &args.file.display().to_string())?;
    let inspected = host.inspect(bytes.clone(), None).await?;
    let reference = target(&args.target)?;
    let Some(tag) = reference.tag.clone() else {
        return Err(CliError::usage(format!("`{}` has no tag", args.target))
            .with_hint("write REGISTRY/REPOSITORY:TAG"));
    };
    let store = session.oci_store(&reference)?;
    let layer = Blob::from_bytes(plugins::MEDIA_TYPE, bytes);
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [inspected.digest.to_string()],
        "component": {"exports": ["ocm:transformer/transform@0.1.0"], "imports": []},
    });
    let config = Blob::from_bytes(CONFIG, config.to_string().into_bytes());
    let link = |blob: &Blob| -> Result<Descriptor, Error> {
        blob.descriptor()
            .ok_or_else(|| Error::internal("bytes in memory have a digest"))
    };
    let mut manifest = Manifest::image(link(&config)?, vec![link(&layer)?]);
    let title = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    manifest.annotations = Some(
        [
            title(
                "org.opencontainers.image.title",
                &inspected.description.name,
            ),
            title(
                "org.opencontainers.image.version",
                &inspected.description.version,
            ),
        ]
        .into(),
    );
    store.push(&config, &[]).await?;
    store.push(&layer, &[]).await?;
    let root = RawManifest::write(&manifest);
    store.put_manifest(&root, Some(&tag)).await?;
    ui.note(&format!(
        "{} {} is there as {}\n",
        inspected.description.name, inspected.description.version, root.digest
    ));
    let entry = json!({
        "name": inspected.description.name,
        "source": format!("oci://{}", args.target.trim_start_matches("oci://")),
        "digest": inspected.digest.to_string(),
    });
    ui.data(&yaml::to_string(&json!({"plugins": [entry]})))
}

fn prune(args: &PluginPrune, ui: &Ui) -> Result<(), CliError> {
    let Some(cache) = plugins::cache(ui) else {
        return Ok(());
    };
    let entries = cache.entries()?;
    let kept: Arc<[Digest]> = entries
        .iter()
        .filter(|entry| args.keep.contains(&entry.description.name))
        .map(|entry| entry.digest.clone())
        .collect();
    if let Some(unknown) = args
        .keep
        .iter()
        .find(|name| !entries.iter().any(|entry| entry.description.name == **name))
    {
        let message = format!("--keep {unknown}: there is no installed plugin `{unknown}`");
        return Err(CliError::new(ExitCode::NotFound, message));
    }
    let mut freed = cache.prune(|digest| kept.contains(digest))?;
    if let Some(results) = plugins::results(ui, &Disk::default()) {
        freed += results.prune(|digest| kept.contains(digest))?;
    }
    ui.data(&format!("freed {}\n", units::size(freed)))
}
