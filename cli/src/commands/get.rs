//! `ocm get component-version`: what is in a repository.

use std::collections::BTreeSet;
use std::fmt::Write;

use ocm_repository::{ComponentVersion, Repository, Session};
use ocm_specs::names::Version;
use ocm_specs::reference::ComponentReference;
use ocm_specs::{RepositorySpec, yaml};
use serde_json::Value as Json;

use crate::args::{GetComponentVersion, ListFormat};
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// Deepest chain of references that is followed: far above any product, and an end for circles.
const DEPTH_LIMIT: u32 = 64;

/// A component version and what it references, as far as that was asked for.
struct Found {
    version: ComponentVersion,
    /// The name of the reference that led here; empty for roots.
    reference: String,
    children: Vec<Found>,
}

/// Shows component versions.
pub(crate) async fn component_version(args: GetComponentVersion, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let depth = match args.recursive {
        -1 => DEPTH_LIMIT,
        depth => u32::try_from(depth)
            .map_err(|_| CliError::usage("--recursive takes -1, 0 or a number of levels"))?,
    };
    let roots = roots(&args, &session).await?;
    let mut found = Vec::new();
    for version in roots {
        found.push(follow(version, String::new(), depth, &session, &mut Vec::new()).await?);
    }
    ui.data(&render(&found, args.output))
}

async fn roots(
    args: &GetComponentVersion,
    session: &Session,
) -> Result<Vec<ComponentVersion>, CliError> {
    let reference = match args.reference.parse::<ComponentReference>() {
        Ok(reference) => reference,
        Err(error) => return whole_repository(args, session, error.to_string()).await,
    };
    if reference.version.is_some() || reference.digest.is_some() {
        if args.latest || args.semver_constraint.is_some() {
            let message = "--latest and --semver-constraint choose among versions, and the reference names one";
            return Err(CliError::usage(message));
        }
        return Ok(vec![session.component(&reference).await?]);
    }
    let repository = session.repository(&reference.repository, false).await?;
    versions_of(args, &repository, &reference.component).await
}

/// A reference without component means all of them, where the repository can list them.
async fn whole_repository(
    args: &GetComponentVersion,
    session: &Session,
    why: String,
) -> Result<Vec<ComponentVersion>, CliError> {
    if args.reference.contains("//") && !args.reference.contains("://") {
        return Err(nonsense(&args.reference, &why));
    }
    let spec: RepositorySpec = args
        .reference
        .parse()
        .map_err(|error| nonsense(&args.reference, &error))?;
    let repository = session.repository(&spec, false).await?;
    let mut found = Vec::new();
    for component in repository.components().await? {
        found.extend(versions_of(args, &repository, &component).await?);
    }
    Ok(found)
}

fn nonsense(reference: &str, why: &dyn std::fmt::Display) -> CliError {
    CliError::usage(format!("`{reference}`: {why}")).with_hint(
        "write REPOSITORY//COMPONENT[:VERSION], as in ./archive//acme.org/helloworld:1.0.0",
    )
}

async fn versions_of(
    args: &GetComponentVersion,
    repository: &Repository,
    component: &str,
) -> Result<Vec<ComponentVersion>, CliError> {
    let constraint = args
        .semver_constraint
        .as_deref()
        .map(constraint)
        .transpose()?;
    let mut versions = repository.versions(component).await?;
    if versions.is_empty() {
        let message = format!(
            "there is no version of {component} in {}",
            repository.location()
        );
        return Err(CliError::new(ExitCode::NotFound, message));
    }
    if let Some(constraint) = &constraint {
        versions.retain(|version| allows(constraint, version));
    }
    if args.latest {
        versions.truncate(1);
    }
    let mut found = Vec::new();
    for version in versions {
        found.push(repository.get(component, &version).await?);
    }
    Ok(found)
}

fn constraint(text: &str) -> Result<semver::VersionReq, CliError> {
    // Masterminds separates by blanks, too, and knows `||`, which is not available here.
    let spaced = text.split_whitespace().collect::<Vec<_>>().join(" ");
    semver::VersionReq::parse(&spaced).map_err(|error| {
        CliError::usage(format!("`{text}` is not a version constraint: {error}"))
            .with_hint("write it as in `>=1.0, <2`")
    })
}

/// Does the constraint allow a version? A pre-release counts as the version it leads to, so that `>0.0.0-0` lists all.
fn allows(constraint: &semver::VersionReq, version: &str) -> bool {
    let Some(parsed) = Version::parse(version) else {
        return false;
    };
    let parsed = parsed.semver();
    constraint.matches(&semver::Version::new(
        parsed.major,
        parsed.minor,
        parsed.patch,
    ))
}

/// Follows references depth first. `path` has the versions on the way here: one that comes again is not entered.
async fn follow(
    version: ComponentVersion,
    reference: String,
    depth: u32,
    session: &Session,
    path: &mut Vec<(String, String)>,
) -> Result<Found, CliError> {
    let mut children = Vec::new();
    let here = (
        version.descriptor.name().to_owned(),
        version.descriptor.version().to_owned(),
    );
    if depth > 0 && !path.contains(&here) {
        path.push(here);
        let references: Vec<_> = version
            .descriptor
            .references()
            .map(|reference| {
                let component = reference.component_name().unwrap_or_default().to_owned();
                (
                    reference.name().to_owned(),
                    component,
                    reference.version().to_owned(),
                )
            })
            .collect();
        for (name, component, number) in references {
            let child = version.repository.get(&component, &number).await?;
            children.push(Box::pin(follow(child, name, depth - 1, session, path)).await?);
        }
        path.pop();
    }
    Ok(Found {
        version,
        reference,
        children,
    })
}

fn render(found: &[Found], format: ListFormat) -> String {
    match format {
        ListFormat::Table => table(&rows(found)),
        ListFormat::Tree => tree(found),
        ListFormat::Yaml => yaml::to_string(&Json::Array(documents(found))),
        ListFormat::Json => {
            serde_json::to_string_pretty(&documents(found)).unwrap_or_default() + "\n"
        }
        ListFormat::Ndjson => documents(found)
            .iter()
            .map(|document| format!("{document}\n"))
            .collect(),
    }
}

/// All of them, parents before children, each once.
fn flat<'f>(
    found: &'f [Found],
    seen: &mut BTreeSet<(&'f str, &'f str)>,
    out: &mut Vec<&'f ComponentVersion>,
) {
    for one in found {
        if seen.insert((
            one.version.descriptor.name(),
            one.version.descriptor.version(),
        )) {
            out.push(&one.version);
        }
        flat(&one.children, seen, out);
    }
}

fn all(found: &[Found]) -> Vec<&ComponentVersion> {
    let mut out = Vec::new();
    flat(found, &mut BTreeSet::new(), &mut out);
    out
}

fn documents(found: &[Found]) -> Vec<Json> {
    all(found)
        .into_iter()
        .map(|version| version.descriptor.document().clone())
        .collect()
}

fn rows(found: &[Found]) -> Vec<[String; 3]> {
    all(found)
        .into_iter()
        .map(|version| {
            let descriptor = &version.descriptor;
            [
                descriptor.name().to_owned(),
                descriptor.version().to_owned(),
                descriptor.provider().name,
            ]
        })
        .collect()
}

fn table(rows: &[[String; 3]]) -> String {
    let head = ["COMPONENT", "VERSION", "PROVIDER"].map(str::to_owned);
    let width = |column: usize| {
        rows.iter()
            .chain([&head])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let (first, second) = (width(0), width(1));
    let mut out = String::new();
    for [component, version, provider] in std::iter::once(&head).chain(rows) {
        let _ = writeln!(out, "{component:<first$}  {version:<second$}  {provider}");
    }
    out
}

fn tree(found: &[Found]) -> String {
    let mut out = String::new();
    for one in found {
        branch(one, "", "", &mut out);
    }
    out
}

fn branch(one: &Found, fork: &str, indent: &str, out: &mut String) {
    let descriptor = &one.version.descriptor;
    let reference = if one.reference.is_empty() {
        String::new()
    } else {
        format!("{}: ", one.reference)
    };
    let _ = writeln!(
        out,
        "{fork}{reference}{}:{}  ({})",
        descriptor.name(),
        descriptor.version(),
        descriptor.provider().name
    );
    let resources = descriptor.resources().len();
    let items = resources + one.children.len();
    let forks = |at: usize| {
        if at + 1 == items {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        }
    };
    for (at, resource) in descriptor.resources().enumerate() {
        let _ = writeln!(
            out,
            "{indent}{}{} {} {}",
            forks(at).0,
            resource.type_name(),
            resource.name(),
            resource.version()
        );
    }
    for (at, child) in one.children.iter().enumerate() {
        let (fork, below) = forks(resources + at);
        branch(
            child,
            &format!("{indent}{fork}"),
            &format!("{indent}{below}"),
            out,
        );
    }
}
