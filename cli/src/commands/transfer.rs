//! `ocm transfer`: a spec that is read or generated, checked, then printed or run.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ocm_content::{Disk, Limits, Referrers};
use ocm_engine::{Context, Event, OnError, Plan, RunOptions, RunResult, Status};
use ocm_registry::{Registry, RegistryConfig, Running};
use ocm_repository::ctf::{Access, Ctf, CtfOptions};
use ocm_repository::{RunEnd, Session, WrittenArchive};
use ocm_specs::diagnostic::Diagnostics;
use ocm_specs::transfer::{Dialect, Environment, TransferSpec};
use ocm_specs::yaml::{self, LoadOptions, Source};
use ocm_transformers::component::Written;
use ocm_transformers::generate::Statement;
use ocm_transformers::storage::{Files, to_native};
use tokio_util::sync::CancellationToken;

use crate::args::{
    OnErrorArg, PlanFormat, ReferrersArg, TransferArgs, TransferNoun, TransferOptions,
};
use crate::commands::carry::{self, Request};
use crate::commands::session::{self, SessionOptions};
use crate::environment::host_alias;
use crate::error::{CliError, ExitCode, code_of, general_hint};
use crate::plugins;
use crate::progress::{Progress, TICK};
use crate::report::{PluginReport, Recorder, Report, step_names, versions};
use crate::ui::{Ui, write_file};
use crate::{graph_output, units};

/// Largest spec that is read from a file or standard input: far above the largest plan that we print ourselves.
const SPEC_LIMIT: u64 = 256 << 20;

/// Carries component versions or runs a transfer spec, or prints the plan.
pub(crate) async fn transfer(args: TransferArgs, ui: &Ui) -> Result<(), CliError> {
    let (request, options) = match args.noun {
        Some(TransferNoun::ComponentVersion(args)) => Request::of_versions(*args, ui)?,
        Some(TransferNoun::Ctf(args)) => Request::of_archive(*args, ui)?,
        None => (None, args.options),
    };
    if request.is_none() && options.transfer_spec.is_none() {
        let hint = "name a transfer spec: ocm transfer --transfer-spec FILE; or what to carry: ocm transfer cv REFERENCE TARGET";
        return Err(CliError::usage("there is nothing to transfer").with_hint(hint));
    }
    check_plugins(&options, request.is_some())?;
    if let Some(report) = &options.report {
        check_report(&ui.environment.working_directory.join(report), report)?;
    }
    let source = match &options.transfer_spec {
        Some(path) => Some(read_spec(path, ui)?),
        None => None,
    };
    // The registries live as long as the run; dropping them stops them.
    let (serving, aliases) = serve(&options, ui).await?;
    let referrers = match options.referrers {
        ReferrersArg::All => Referrers::All,
        ReferrersArg::None => Referrers::None,
    };
    let session = session::open(
        ui,
        SessionOptions {
            window: Some(options.buffer),
            aliases,
            referrers,
        },
    )?;
    carry::provide(&session, &options, ui)?;
    let mut types = ocm_transformers::step_types();
    let mut statement = None;
    let added;
    let spec = match (&request, &source) {
        (Some(request), _) => {
            let mut named = without_steps();
            let plugins = &options.plugins;
            added = plugins::add(&mut types, &mut named, plugins, &session, ui).await?;
            let generated = request.generate(&session, &types, ui).await?;
            for note in &generated.notes {
                ui.note(&format!("note: {note}\n"));
            }
            statement = Some(generated.statement);
            TransferSpec {
                plugins: named.plugins,
                ..generated.spec
            }
        }
        (None, Some(source)) => {
            let mut spec = load(source, ui)?;
            let plugins = &options.plugins;
            added = plugins::add(&mut types, &mut spec, plugins, &session, ui).await?;
            let (spec, warnings) = to_native(spec, &types, &session).await?;
            note_warnings(&warnings, ui);
            spec
        }
        (None, None) => return Err(CliError::usage("there is nothing to transfer")),
    };
    let plan = Plan::link_and_ask(spec, &types).await?;
    note_warnings(plan.warnings(), ui);
    if let (true, Some(path), Some(source)) =
        (options.plugins.lock, &options.transfer_spec, &source)
    {
        plugins::write_pins(path, source, &added.pins, session.limits().disk(), ui)?;
    }
    if options.dry_run {
        return print_plan(&plan, options.output.unwrap_or(PlanFormat::Yaml), ui);
    }
    let told = (statement, added.plugins.clone());
    let result = run(plan, &options, session, told, ui).await;
    if let Some(summary) = added.summary() {
        ui.note(&format!("{summary}\n"));
    }
    for registry in serving {
        registry.stop().await;
    }
    result
}

/// What is said of plugins must have something to be about.
fn check_plugins(options: &TransferOptions, is_generated: bool) -> Result<(), CliError> {
    let plugins = &options.plugins;
    if is_generated && plugins.lock {
        let message = "--lock writes into a transfer spec, and one that is generated is no file";
        return Err(
            CliError::usage(message).with_hint("pin plugins by --plugin NAME=SOURCE@DIGEST")
        );
    }
    match (&options.transfer_spec, plugins.lock) {
        (Some(path), true) if path == Path::new("-") => Err(CliError::usage(
            "--lock can't write into a spec from standard input",
        )
        .with_hint("name a file, or pin the plugins beforehand with `ocm plugin lock FILE`")),
        _ => Ok(()),
    }
}

/// A spec for the plugins that the command line names.
fn without_steps() -> TransferSpec {
    TransferSpec {
        source: Source::new("command line", ""),
        dialect: Dialect::Native,
        environment: Environment::default(),
        plugins: Vec::new(),
        steps: Vec::new(),
        mappings: Vec::new(),
    }
}

/// A run is not to be made and then left without its report.
fn check_report(full: &Path, path: &Path) -> Result<(), CliError> {
    let usage = |why: &str| CliError::usage(format!("--report {}: {why}", path.display()));
    if full.is_dir() || full.file_name().is_none() {
        return Err(usage("this is a folder").with_hint("name a file in it"));
    }
    match full.parent() {
        Some(folder) if !folder.is_dir() => Err(CliError::new(
            ExitCode::NotFound,
            format!("--report {}: there is no such folder", path.display()),
        )
        .with_hint("make the folder first")),
        _ => Ok(()),
    }
}

/// Reads the text of a spec.
pub(crate) fn read_spec(path: &Path, ui: &Ui) -> Result<Arc<Source>, CliError> {
    if path == Path::new("-") {
        let text = read_text("-", path, &mut std::io::stdin().lock())?;
        return Ok(Source::new("-", text));
    }
    let name = path.display().to_string();
    let full = ui.environment.working_directory.join(path);
    if full.is_dir() {
        let message = format!("{name}: the spec is a folder");
        return Err(CliError::new(ExitCode::Invalid, message).with_hint("name a file in it"));
    }
    let file_error = |error: std::io::Error| {
        CliError::file("read", path, &error)
            .with_hint("relative paths start at the current folder; `-` is standard input")
    };
    let mut file = std::fs::File::open(&full).map_err(file_error)?;
    let size = file.metadata().map_err(file_error)?.len();
    if size > SPEC_LIMIT {
        return Err(too_large(&name));
    }
    let text = read_text(&name, path, &mut file)?;
    Ok(Source::new(name, text))
}

fn too_large(name: &str) -> CliError {
    let limit = units::size(SPEC_LIMIT);
    let message = format!("{name}: the spec is larger than {limit}");
    CliError::new(ExitCode::Invalid, message)
}

/// Reads text piece by piece: what is none is noticed before much of it is in memory.
fn read_text(name: &str, path: &Path, from: &mut impl Read) -> Result<String, CliError> {
    const PIECE: u64 = 1 << 20;
    let no_text = |what: &str| {
        let message = format!("{name}:1:1: the spec is not UTF-8 text{what}");
        CliError::new(ExitCode::Invalid, message).with_hint("save it as UTF-8")
    };
    let (mut bytes, mut checked) = (Vec::new(), 0);
    loop {
        let piece = from.take(PIECE).read_to_end(&mut bytes);
        let count = piece.map_err(|error| CliError::file("read", path, &error))?;
        if bytes.len() as u64 > SPEC_LIMIT {
            return Err(too_large(name));
        }
        let (good, cut) = match std::str::from_utf8(&bytes[checked..]) {
            Ok(text) => (text.len(), false),
            // A character may go on in the next piece.
            Err(error) if error.error_len().is_none() => (error.valid_up_to(), true),
            Err(_) => return Err(no_text("")),
        };
        if bytes[checked..checked + good].contains(&0) {
            return Err(no_text(": it has a zero byte"));
        }
        checked += good;
        if count == 0 {
            return match cut {
                true => Err(no_text("")),
                false => String::from_utf8(bytes).map_err(|_| no_text("")),
            };
        }
    }
}

/// Starts the registries that `--serve` asks for; returns them and the aliases that lead to them.
async fn serve(
    options: &TransferOptions,
    ui: &Ui,
) -> Result<(Vec<Running>, Vec<(String, url::Url)>), CliError> {
    let (mut serving, mut aliases) = (Vec::new(), Vec::new());
    let limits = Limits::new(session::limits(ui));
    for entry in &options.serve {
        let parts = entry.split_once('=');
        let (host, folder) = parts
            .filter(|(host, folder)| !host.is_empty() && !folder.is_empty())
            .ok_or_else(|| {
                CliError::usage(format!("`{entry}` does not say what to serve"))
                    .with_hint("write --serve HOST=DIR")
            })?;
        let path = ui.working_directory().join(folder);
        // A dry run must not make the folder, and a file is an archive that can only be read.
        let access = if options.dry_run || path.is_file() {
            Access::ReadOnly
        } else {
            Access::Create
        };
        if options.dry_run && !path.exists() {
            continue;
        }
        let stores = Ctf::open(
            &path,
            CtfOptions {
                access,
                limits: limits.clone(),
            },
        )
        .await?;
        super::ctf::check_served(&stores)?;
        let running = Registry::bind(RegistryConfig::new(stores), ([127, 0, 0, 1], 0).into())
            .await
            .map_err(|error| CliError::new(ExitCode::Failure, format!("serve {host}: {error}")))?;
        aliases.push(host_alias(&format!("{host}=http://{}", running.addr))?);
        serving.push(running);
    }
    Ok((serving, aliases))
}

/// From text to a spec, in whatever dialect.
pub(crate) fn load(source: &Arc<Source>, ui: &Ui) -> Result<TransferSpec, CliError> {
    let node = yaml::load(source, &LoadOptions::default()).map_err(|error| {
        let finding = ocm_specs::diagnostic::Diagnostic::error(error.span, error.message);
        let finding = match error.hint {
            Some(hint) => finding.with_hint(hint),
            None => finding,
        };
        Diagnostics::new(source.clone(), vec![finding])
    })?;
    let (spec, warnings) = TransferSpec::read(source, &node)?;
    note_warnings(&warnings, ui);
    Ok(spec)
}

fn note_warnings(warnings: &Diagnostics, ui: &Ui) {
    if !warnings.findings.is_empty() {
        ui.note(&format!("{warnings}\n"));
    }
}

fn print_plan(plan: &Plan, format: PlanFormat, ui: &Ui) -> Result<(), CliError> {
    let text = match format {
        PlanFormat::Yaml => yaml::to_string(&plan.to_json()),
        PlanFormat::Json => format!("{:#}\n", plan.to_json()),
        PlanFormat::Ndjson => format!("{}\n", plan.to_json()),
        PlanFormat::Tree => graph_output::tree(plan),
        PlanFormat::Dot => graph_output::dot(plan),
        PlanFormat::Mermaid => graph_output::mermaid(plan),
    };
    ui.data(&text)
}

async fn run(
    plan: Plan,
    options: &TransferOptions,
    session: Arc<Session>,
    (statement, plugins): (Option<Statement>, Vec<PluginReport>),
    ui: &Ui,
) -> Result<(), CliError> {
    let written = session.shared::<Written>();
    let names = step_names(&plan);
    let mut context = Context::new(session.limits().clone(), session.clone());
    context.files = Arc::new(Files(session.clone()));
    context.options = RunOptions {
        concurrency: usize::from(options.concurrency),
        on_error: match options.on_error {
            OnErrorArg::Stop => OnError::Stop,
            OnErrorArg::Continue => OnError::Continue,
        },
        progress: Some(TICK),
    };
    let progress = Progress::new(ui.global.quiet, ui.environment.is_dumb_terminal(), &names);
    let listener = Arc::new(Mutex::new((Recorder::default(), progress)));
    let heard = listener.clone();
    let observer = Box::new(move |event: Event| {
        let (recorder, progress) = &mut *heard.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.record(&event);
        progress.show(&event);
    });
    let started = std::time::Instant::now();
    let running = async {
        let result = plan.run(context.clone(), observer).await;
        end(result, &session, &context.cancel).await
    };
    let (ended, signal) = until_signal(running, &context.cancel).await;
    let (report, every) = {
        let (recorder, progress) = &mut *listener.lock().unwrap_or_else(PoisonError::into_inner);
        progress.end();
        let mut report = std::mem::take(recorder).report(&names, &ended, started.elapsed());
        report.plugins = plugins;
        report.component_versions = versions(&written);
        report.completeness = statement.filter(|_| ended.result.status == Status::Succeeded);
        (report, !progress.told_each())
    };
    tell(&report, every, options, session.limits().disk(), ui)?;
    verdict(&ended, signal)
}

/// How a run ended, with what comes behind its steps.
pub(crate) struct Ended {
    pub(crate) result: RunResult,
    /// The archive files that had to be written.
    pub(crate) archives: Vec<WrittenArchive>,
}

/// Writes the archive files. A run whose archive can't be written has failed, whatever its steps say.
async fn end(mut result: RunResult, session: &Session, cancel: &CancellationToken) -> Ended {
    let how = match result.status {
        Status::Succeeded => RunEnd::Succeeded,
        Status::Partial | Status::Failed => RunEnd::Failed,
        Status::Cancelled => RunEnd::Cancelled,
    };
    let archives = tokio::select! {
        biased;
        archives = session.finish(how) => archives,
        () = cancel.cancelled(), if how != RunEnd::Cancelled => {
            result.status = Status::Cancelled;
            Vec::new()
        }
    };
    if archives.iter().any(|archive| archive.error.is_some()) {
        result.status = Status::Failed;
    }
    Ended { result, archives }
}

/// Waits for the run; the first signal cancels it, and the run then ends by itself within a second.
async fn until_signal(
    run: impl Future<Output = Ended>,
    cancel: &CancellationToken,
) -> (Ended, Option<ExitCode>) {
    tokio::pin!(run);
    tokio::select! {
        result = &mut run => (result, None),
        code = signal() => {
            cancel.cancel();
            (run.await, Some(code))
        }
    }
}

/// Ends when the program is asked to, with the exit code that says how.
pub(crate) async fn signal() -> ExitCode {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = tokio::signal::ctrl_c() => ExitCode::Interrupted,
                _ = terminate.recv() => ExitCode::Terminated,
            };
        }
    }
    let _ = tokio::signal::ctrl_c().await;
    ExitCode::Interrupted
}

fn tell(
    report: &Report,
    every: bool,
    options: &TransferOptions,
    disk: &Disk,
    ui: &Ui,
) -> Result<(), CliError> {
    let internal = |error: serde_json::Error| {
        CliError::new(ExitCode::Failure, format!("write the report: {error}"))
    };
    let pretty = serde_json::to_string_pretty(report).map_err(internal)? + "\n";
    if let Some(path) = &options.report {
        write_file(disk, &ui.environment.working_directory.join(path), &pretty)?;
    }
    ui.note(&report.summary(every));
    match options.output {
        None => Ok(()),
        Some(PlanFormat::Json) => ui.data(&pretty),
        Some(PlanFormat::Ndjson) => ui.data(&format!(
            "{}\n",
            serde_json::to_string(report).map_err(internal)?
        )),
        Some(_) => ui.data(&yaml::to_string(
            &serde_json::to_value(report).map_err(internal)?,
        )),
    }
}

/// The exit code of a run and what to say about its failures.
fn verdict(ended: &Ended, signal: Option<ExitCode>) -> Result<(), CliError> {
    let Ended { result, archives } = ended;
    let mut failures: Vec<String> = result
        .failures
        .iter()
        .map(|(step, error)| {
            let origin = error.error.origin().filter(|origin| *origin != &**step);
            let origin = origin
                .map(|origin| format!(" (the bytes come from step `{origin}`)"))
                .unwrap_or_default();
            let hint = error.error.hint().or(general_hint(error.kind()));
            let hint = hint
                .map(|hint| format!("\n  hint: {hint}"))
                .unwrap_or_default();
            let place = error.place.as_ref();
            let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
            format!("{place}step `{step}`: {error}{origin}{hint}")
        })
        .collect();
    let first = result
        .failures
        .first()
        .map(|(_, error)| code_of(error.kind()));
    let unwritten = archives.iter().filter_map(|archive| archive.error.as_ref());
    let first = first.or_else(|| unwritten.clone().next().map(|error| code_of(error.kind())));
    failures.extend(unwritten.map(|error| match error.hint() {
        Some(hint) => format!("{error}\n  hint: {hint}"),
        None => error.to_string(),
    }));
    match (result.status, signal) {
        (Status::Succeeded, _) => Ok(()),
        (Status::Cancelled, code) => Err(CliError::new(
            code.unwrap_or(ExitCode::Interrupted),
            "the transfer was interrupted",
        )
        .with_hint("nothing incomplete is visible under a name; run it again to complete it")),
        (Status::Partial, _) => Err(CliError::new(ExitCode::Partial, failures.join("\n"))
            .with_hint("what does not depend on the failed steps is complete and published")),
        (Status::Failed, _) => Err(CliError::new(
            first.unwrap_or(ExitCode::Failure),
            failures.join("\n"),
        )),
    }
}
