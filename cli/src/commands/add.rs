//! `ocm add component-version`: constructors in, component versions out.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocm_repository::{Resolver, Session};
use ocm_specs::constructor::{Constructor, Variables, is_variable_name};
use ocm_specs::yaml::{self, Source};
use ocm_specs::{ComponentDescriptor, RepositorySpec};
use ocm_transformers::construct::{
    ByValue, ConflictPolicy, ConstructError, ConstructOptions, Construction, Document,
    ExternalPolicy, Target, construct,
};
use serde_json::Value as Json;

use crate::args::{AddArgs, AddConflictArg, AddExternalArg, AddFormat, Templater};
use crate::commands::session::{self, SessionOptions};
use crate::commands::transfer::signal;
use crate::environment::Environment;
use crate::error::{CliError, ExitCode, code_of, general_hint};
use crate::table::table;
use crate::ui::Ui;

/// The archive that is written where nothing else is said.
const DEFAULT_ARCHIVE: &str = "transport-archive";
/// The constructor that is read where nothing else is said, and what it is called in folders.
const CONSTRUCTOR_NAMES: [&str; 2] = ["component-constructor.yaml", "component-constructor.yml"];
/// Deepest chain of references that is shown in a tree.
const DEPTH_LIMIT: usize = 64;
/// Largest constructor or settings file that is read: 64 MiB.
const FILE_LIMIT: u64 = 64 << 20;

/// Makes component versions.
pub(crate) async fn component_versions(args: AddArgs, ui: &Ui) -> Result<(), CliError> {
    let (place, arguments) = Place::of(&args, ui)?;
    let arguments = Arguments::split(&arguments);
    let variables = variables(&args, &arguments, ui)?;
    let documents = documents(&args, &arguments, variables.as_ref(), ui)?;
    let options = ConstructOptions {
        conflict: match (args.replace, args.component_version_conflict_policy) {
            (true, _) | (_, AddConflictArg::Replace) => ConflictPolicy::Replace,
            (_, AddConflictArg::AbortAndFail) => ConflictPolicy::AbortAndFail,
            (_, AddConflictArg::Skip) => ConflictPolicy::Skip,
        },
        external: match (args.complete, args.external_component_version_copy_policy) {
            (true, _) | (_, AddExternalArg::CopyOrFail) => ExternalPolicy::CopyOrFail,
            (_, AddExternalArg::Skip) => ExternalPolicy::Skip,
        },
        skip_reference_digests: args.skip_reference_digest_processing,
        concurrency: usize::from(args.concurrency_limit),
        by_value: match (args.copy_resources, args.copy_local_resources) {
            (true, _) => ByValue::All,
            (false, true) => ByValue::Local,
            (false, false) => ByValue::Inputs,
        },
        source_date: ui.environment.source_date()?,
    };
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let running = run(&args, &place, &session, &documents, &options, resolver);
    let construction = tokio::select! {
        done = running => done?,
        code = signal() => {
            return Err(CliError::new(code, "adding component versions was interrupted")
                .with_hint("nothing incomplete is visible under a name; run it again"));
        }
    };
    for warning in &construction.warnings {
        ui.note(&format!("{warning}\n"));
    }
    let default = if args.dry_run {
        AddFormat::Yaml
    } else {
        AddFormat::Table
    };
    ui.data(&render(&construction, args.output.unwrap_or(default)))
}

async fn run(
    args: &AddArgs,
    place: &Place,
    session: &Session,
    documents: &[Document],
    options: &ConstructOptions,
    resolver: Resolver,
) -> Result<Construction, CliError> {
    let fresh = place.check(args, session)?;
    let spec = fresh.as_ref().map_or(&place.spec, |fresh| &fresh.spec);
    let repository = if args.dry_run && (fresh.is_some() || !place.exists(session)) {
        None
    } else {
        Some(session.repository(spec, !args.dry_run).await?)
    };
    let target = Target {
        repository,
        // What is found elsewhere may reference what is here.
        resolver: resolver.and(spec.clone()),
        dry_run: args.dry_run,
    };
    let made = construct(session, &target, documents, options).await?;
    if !args.dry_run {
        session::finish(session).await?;
        if let Some(fresh) = fresh {
            fresh.put_in_place()?;
        }
    }
    Ok(made)
}

/// Where component versions go.
struct Place {
    spec: RepositorySpec,
}

/// An archive that is made beside the one it will replace.
struct Fresh {
    spec: RepositorySpec,
    made: PathBuf,
    target: PathBuf,
}

impl Place {
    /// The repository of a command line, and the arguments that are left. v1 lets an archive be the first of several.
    fn of(args: &AddArgs, ui: &Ui) -> Result<(Self, Vec<String>), CliError> {
        let mut arguments = args.arguments.clone();
        let mut spec = match (&args.repository, &args.file) {
            (Some(text), _) => text
                .parse()
                .map_err(|error| CliError::usage(format!("`{text}`: {error}")))?,
            (None, Some(file)) => RepositorySpec::ctf(file.display().to_string()),
            (None, None) => {
                let files = arguments.iter().filter(|it| !is_assignment(it)).count();
                let first = arguments
                    .first()
                    .filter(|first| files > 1 && is_archive(first, ui));
                match first.cloned() {
                    Some(first) => {
                        arguments.remove(0);
                        RepositorySpec::ctf(first)
                    }
                    None => RepositorySpec::ctf(DEFAULT_ARCHIVE),
                }
            }
        };
        match (&mut spec, args.form) {
            (RepositorySpec::Ctf(ctf), Some(form)) => {
                ctf.file_format = Some(form.as_str().to_owned())
            }
            (RepositorySpec::Oci(_), Some(_)) => {
                return Err(CliError::usage(
                    "--type is for archives, and this is a registry",
                ));
            }
            (RepositorySpec::Oci(_), None) if args.create => {
                return Err(CliError::usage(
                    "--create is for archives, and this is a registry",
                ));
            }
            _ => {}
        }
        Ok((Self { spec }, arguments))
    }

    fn path(&self, session: &Session) -> Option<PathBuf> {
        match &self.spec {
            RepositorySpec::Ctf(ctf) => Some(session.resolve_path(&ctf.file_path)),
            RepositorySpec::Oci(_) => None,
        }
    }

    /// Is there an archive, or can't that be told by looking at files?
    fn exists(&self, session: &Session) -> bool {
        self.path(session)
            .is_none_or(|path| path.symlink_metadata().is_ok())
    }

    /// With --create: the archive must not be there, or is made anew beside the one that is there.
    fn check(&self, args: &AddArgs, session: &Session) -> Result<Option<Fresh>, CliError> {
        let (true, Some(path), RepositorySpec::Ctf(ctf)) =
            (args.create, self.path(session), &self.spec)
        else {
            return Ok(None);
        };
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let shown = ctf.path();
        if !args.force {
            let message = format!("{shown} is there already");
            return Err(CliError::new(ExitCode::Conflict, message)
                .with_hint("leave --create out to add to it, or replace all of it with --force"));
        }
        let is_archive =
            path.is_file() || path.join("artifact-index.json").is_file() || is_empty(&path);
        if !is_archive {
            let message = format!("{shown} is no archive, and is not replaced");
            return Err(CliError::new(ExitCode::Conflict, message)
                .with_hint("name an archive, or remove it yourself"));
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let made = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let mut spec = ctf.clone();
        spec.file_path = made.display().to_string();
        spec.file_format
            .get_or_insert_with(|| form_of(&name).to_owned());
        Ok(Some(Fresh {
            spec: RepositorySpec::Ctf(spec),
            made,
            target: path,
        }))
    }
}

impl Fresh {
    /// Moves the new archive to where the old one is; the old one is there until the new one is complete.
    fn put_in_place(&self) -> Result<(), CliError> {
        let name = self
            .target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let old = self
            .target
            .with_file_name(format!(".{name}.{}.old", std::process::id()));
        let moved = std::fs::rename(&self.target, &old)
            .and_then(|()| std::fs::rename(&self.made, &self.target));
        moved.map_err(|error| CliError::file("replace", &self.target, &error))?;
        remove(&old).map_err(|error| CliError::file("remove", &old, &error))
    }
}

impl Drop for Fresh {
    /// What was begun and did not get to its place goes, whether the call failed or was interrupted.
    fn drop(&mut self) {
        // Best effort: the error that led here is the one to tell.
        let _ = remove(&self.made);
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The form that a name stands for.
fn form_of(name: &str) -> &'static str {
    let lower = name.to_ascii_lowercase();
    if lower.ends_with(".tgz") || lower.ends_with(".tar.gz") {
        "tgz"
    } else if lower.ends_with(".tar") {
        "tar"
    } else {
        "directory"
    }
}

/// Does the first of several arguments name an archive, as v1 allows?
fn is_archive(text: &str, ui: &Ui) -> bool {
    let path = ui.environment.working_directory.join(text);
    path.join("artifact-index.json").is_file()
        || form_of(text) != "directory"
        || path.symlink_metadata().is_err()
}

fn is_assignment(text: &str) -> bool {
    text.split_once('=')
        .is_some_and(|(name, _)| is_variable_name(name))
}

/// What stands behind the options.
struct Arguments {
    files: Vec<PathBuf>,
    /// Names and values.
    values: Vec<(String, String)>,
}

impl Arguments {
    fn split(arguments: &[String]) -> Self {
        let (values, files): (Vec<&String>, Vec<&String>) =
            arguments.iter().partition(|it| is_assignment(it));
        let values = values.into_iter().filter_map(|it| it.split_once('='));
        Self {
            files: files.into_iter().map(PathBuf::from).collect(),
            values: values
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

/// The variables of a call: the environment's, then settings, then arguments. `None`: there is nothing to expand.
fn variables(
    args: &AddArgs,
    arguments: &Arguments,
    ui: &Ui,
) -> Result<Option<Variables>, CliError> {
    match args.templater {
        Templater::Subst => {}
        Templater::None => return Ok(None),
        Templater::Go => {
            return Err(CliError::usage("Go templates are not processed here")
                .with_hint("write ${NAME} instead of {{ .NAME }}, or process the file beforehand and give --templater none"));
        }
        Templater::Spiff => {
            return Err(CliError::usage("spiff templates are not processed here")
                .with_hint("write ${NAME} instead of (( values.NAME )), or process the file with spiff beforehand and give --templater none"));
        }
    }
    let mut variables = Variables::new().allowing_unset(args.allow_unset);
    if !args.no_env {
        for (name, value) in Environment::definitions().filter(|(name, _)| is_variable_name(name)) {
            variables.set(name, value);
        }
    }
    for path in &args.settings {
        variables.add_settings(&read(path, "settings file", ui)?)?;
    }
    for (name, value) in &arguments.values {
        variables.set(name.clone(), value.clone());
    }
    Ok(Some(variables))
}

/// The constructors of a call; all that is wrong with any of them at once.
fn documents(
    args: &AddArgs,
    arguments: &Arguments,
    variables: Option<&Variables>,
    ui: &Ui,
) -> Result<Vec<Document>, CliError> {
    let mut paths: Vec<PathBuf> = args
        .constructor
        .iter()
        .chain(&arguments.files)
        .cloned()
        .collect();
    if paths.is_empty() {
        paths.push(CONSTRUCTOR_NAMES[0].into());
    }
    let (mut documents, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        let path = constructor_file(path, ui)?;
        let source = read(&path, "constructor", ui)?;
        let read = Constructor::read(&source, variables, args.version.as_deref());
        match read {
            Ok((constructor, warnings)) => {
                if !warnings.findings.is_empty() {
                    ui.note(&format!("{warnings}\n"));
                }
                documents.push(Document {
                    constructor,
                    root: root(&path, ui),
                });
            }
            Err(findings) => wrong.push(findings.to_string()),
        }
    }
    if wrong.is_empty() {
        Ok(documents)
    } else {
        Err(CliError::new(ExitCode::Invalid, wrong.join("\n")))
    }
}

/// The constructor in a folder, or the file itself.
fn constructor_file(path: PathBuf, ui: &Ui) -> Result<PathBuf, CliError> {
    let full = ui.environment.working_directory.join(&path);
    if !full.is_dir() {
        return Ok(path);
    }
    let found = CONSTRUCTOR_NAMES
        .iter()
        .find(|name| full.join(name).is_file());
    found.map(|name| path.join(name)).ok_or_else(|| {
        let message = format!("{} has no {}", path.display(), CONSTRUCTOR_NAMES[0]);
        CliError::new(ExitCode::NotFound, message).with_hint("name the constructor file")
    })
}

/// Where inputs of a constructor lie: beside it, unless the user names another folder.
fn root(path: &Path, ui: &Ui) -> PathBuf {
    if ui.global.working_directory.is_some() || path == Path::new("-") {
        return ui.working_directory();
    }
    let full = ui.environment.working_directory.join(path);
    full.parent()
        .map_or_else(|| ui.environment.working_directory.clone(), Path::to_owned)
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path, what: &str, ui: &Ui) -> Result<Arc<Source>, CliError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(FILE_LIMIT + 1)
            .read_to_string(&mut text)
    } else {
        let full = ui.environment.working_directory.join(path);
        let file = std::fs::File::open(&full).map_err(|error| {
            CliError::file("read", path, &error).with_hint(format!(
                "name the {what}; relative paths start at the current folder"
            ))
        })?;
        file.take(FILE_LIMIT + 1).read_to_string(&mut text)
    };
    let invalid =
        |why: &str| CliError::new(ExitCode::Invalid, format!("{}:1:1: {why}", path.display()));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(invalid("it is not UTF-8 text").with_hint("save it as UTF-8"))
        }
        Err(error) => Err(CliError::file("read", path, &error)),
        Ok(_) if text.len() as u64 > FILE_LIMIT => Err(invalid("it is larger than 64 MiB")),
        Ok(_) => Ok(Source::new(path.display().to_string(), text)),
    }
}

impl From<ConstructError> for CliError {
    fn from(error: ConstructError) -> Self {
        let kind = error.kind();
        let has_hint = error
            .problems
            .iter()
            .any(|problem| problem.finding.hint.is_some());
        Self {
            code: code_of(kind),
            message: error.to_string(),
            hint: general_hint(kind).filter(|_| !has_hint).map(str::to_owned),
        }
    }
}

fn render(construction: &Construction, format: AddFormat) -> String {
    let documents = || {
        construction
            .versions
            .iter()
            .map(|it| it.descriptor.document().clone())
    };
    match format {
        AddFormat::Table => {
            let rows: Vec<[String; 4]> = construction
                .versions
                .iter()
                .map(|it| {
                    let descriptor = &it.descriptor;
                    [
                        descriptor.name(),
                        descriptor.version(),
                        &descriptor.provider().name,
                        it.outcome.as_str(),
                    ]
                    .map(str::to_owned)
                })
                .collect();
            table(["COMPONENT", "VERSION", "PROVIDER", "RESULT"], &rows)
        }
        AddFormat::Tree => tree(construction),
        AddFormat::Yaml => yaml::to_string(&Json::Array(documents().collect())),
        AddFormat::Json => {
            serde_json::to_string_pretty(&Json::Array(documents().collect())).unwrap_or_default()
                + "\n"
        }
        AddFormat::Ndjson => documents()
            .map(|document| format!("{document}\n"))
            .collect(),
    }
}

/// Component versions with what they reference of this call, below those that nothing references.
fn tree(construction: &Construction) -> String {
    let all: Vec<&ComponentDescriptor> = construction
        .versions
        .iter()
        .map(|it| &it.descriptor)
        .collect();
    let is_child = |it: &ComponentDescriptor| {
        all.iter().any(|parent| {
            parent.references().any(|reference| {
                reference.component_name() == Some(it.name()) && reference.version() == it.version()
            })
        })
    };
    let mut out = String::new();
    for root in all.iter().filter(|it| !is_child(it)) {
        branch(&all, root, ("", ""), 0, &mut out);
    }
    out
}

/// One version and what is below it. `lead` stands before its line and before those below.
fn branch(
    all: &[&ComponentDescriptor],
    one: &ComponentDescriptor,
    lead: (&str, &str),
    depth: usize,
    out: &mut String,
) {
    let (fork, indent) = lead;
    let _ = writeln!(
        out,
        "{fork}{}:{}  ({})",
        one.name(),
        one.version(),
        one.provider().name
    );
    if depth == DEPTH_LIMIT {
        return;
    }
    let references: Vec<_> = one.references().collect();
    let count = one.resources().len() + references.len();
    let forks = |at: usize| {
        if at + 1 == count {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        }
    };
    for (at, resource) in one.resources().enumerate() {
        let (fork, _) = forks(at);
        let _ = writeln!(
            out,
            "{indent}{fork}{} {} {}",
            resource.type_name(),
            resource.name(),
            resource.version()
        );
    }
    for (at, reference) in references.iter().enumerate() {
        let (fork, below) = forks(one.resources().len() + at);
        let (component, version) = (
            reference.component_name().unwrap_or_default(),
            reference.version(),
        );
        match all
            .iter()
            .find(|it| it.name() == component && it.version() == version)
        {
            Some(child) => {
                let fork = format!("{indent}{fork}{}: ", reference.name());
                branch(
                    all,
                    child,
                    (&fork, &format!("{indent}{below}")),
                    depth + 1,
                    out,
                );
            }
            None => {
                let _ = writeln!(
                    out,
                    "{indent}{fork}{}: {component}:{version}",
                    reference.name()
                );
            }
        }
    }
}
