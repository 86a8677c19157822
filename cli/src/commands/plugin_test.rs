//! `ocm plugin test`: the contract's checks, run against a component.

use ocm_plugins_wasm::conformance::{Check, Options, Report, Verdict, read_fixtures, test};
use ocm_plugins_wasm::{Allowed, PluginLimits, Rights};
use ocm_specs::Digest;
use ocm_specs::yaml::{self, LoadOptions, Source, load};
use serde_json::Value as Json;

use crate::args::{PluginFormat, PluginTest};
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::plugins;
use crate::table::table;
use crate::ui::Ui;

/// Where fixtures are looked for when nobody says where.
const FIXTURES: &str = "examples";

pub(crate) async fn plugin_test(args: PluginTest, ui: &Ui) -> Result<(), CliError> {
    let full = |path: &std::path::Path| ui.working_directory().join(path);
    let component = plugins::read_file(&full(&args.file), &args.file.display().to_string())?;
    let mut limits = PluginLimits::default();
    limits.memory = usize::try_from(args.plugin_memory).unwrap_or(usize::MAX);
    limits.stall = args.plugin_stall;
    limits.time = args.plugin_timeout;
    let fixtures = match &args.fixtures {
        Some(folder) => read_fixtures(&full(folder))?,
        None if full(FIXTURES.as_ref()).is_dir() => read_fixtures(&full(FIXTURES.as_ref()))?,
        None => Vec::new(),
    };
    if args.bless && fixtures.is_empty() {
        let message = "--bless: there are no fixtures";
        return Err(CliError::usage(message)
            .with_hint("write NAME/step.yaml and NAME/in/PORT below --fixtures"));
    }
    let allowed = match &args.allow {
        Some(rights) => Allowed::Only(Rights::parse(rights)?),
        None => Allowed::default(),
    };
    let session = match &args.allow {
        Some(_) => Some(session::open(ui, SessionOptions::default())?),
        None => None,
    };
    let temp_folder = ui.global.temp_folder.clone();
    // Code of an installed plugin is there already; one that is being written is not kept from build to build.
    let digest = Digest::sha256(&component);
    let cache = plugins::cache(ui).filter(|cache| cache.component(&digest).is_some());
    let options = Options {
        limits,
        cache,
        http: session.as_ref().map(plugins::requests),
        allowed,
        config: configuration(&args, ui)?,
        fixtures,
        bless: args.bless,
        only: args.only.clone(),
        large: args.largest,
        temp_folder: Some(temp_folder.unwrap_or_else(|| ui.environment.temp_folder.clone())),
    };
    let report = test(component, options).await;
    ui.data(&match args.output {
        PluginFormat::Table => text(&report),
        PluginFormat::Json => {
            serde_json::to_string_pretty(&document(&report)).unwrap_or_default() + "\n"
        }
        PluginFormat::Yaml => yaml::to_string(&document(&report)),
    })?;
    match report.count(Verdict::Fail) {
        0 => Ok(()),
        failed => {
            let message = format!("{failed} of {} checks failed", report.checks.len());
            Err(CliError::new(ExitCode::Verification, message)
                .with_hint("`ocm plugin test --help` says what each check demands"))
        }
    }
}

fn configuration(args: &PluginTest, ui: &Ui) -> Result<Option<Json>, CliError> {
    let Some(path) = &args.config else {
        return Ok(None);
    };
    let full = ui.working_directory().join(path);
    let text =
        std::fs::read_to_string(&full).map_err(|error| CliError::file("read", path, &error))?;
    let source = Source::new(path.display().to_string(), text);
    let node = load(&source, &LoadOptions::default())
        .map_err(|error| CliError::new(ExitCode::Invalid, error.located(&source)))?;
    Ok(Some(node.to_json()))
}

fn document(report: &Report) -> Json {
    let mut document = serde_json::to_value(report).unwrap_or_default();
    document["passed"] = report.is_passed().into();
    document
}

fn text(report: &Report) -> String {
    let row = |check: &Check| {
        [
            check.step_type.clone().unwrap_or_else(|| "-".to_owned()),
            check.name.to_owned(),
            check.result.as_str().to_owned(),
            crate::ui::shown(&check.detail.replace('\n', " ")),
        ]
    };
    let rows: Vec<_> = report.checks.iter().map(row).collect();
    let count = |verdict| report.count(verdict);
    format!(
        "{}\n{} passed, {} failed, {} skipped\n",
        table(["STEP TYPE", "CHECK", "RESULT", "DETAIL"], &rows),
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Skipped)
    )
}

/// The checks as `ocm plugin test --help` explains them.
pub(crate) fn checks_help() -> String {
    let lines = ocm_plugins_wasm::conformance::CHECKS
        .iter()
        .map(|(name, about)| format!("  {name:<14} {about}\n"));
    format!(
        "Checks:\n{}\nA fixture is a folder NAME with step.yaml, in/PORT, and what the step must give: out/PORT and output.json, or \
         error.json for a step\nthat is to be refused. A check that fails gives exit code 5; one that could not be made is skipped \
         and says why.\n\nExample:\n  ocm plugin test ./basics.wasm --type Split/v1alpha1\n",
        lines.collect::<String>()
    )
}
