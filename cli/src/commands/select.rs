//! Which component versions an argument means, and what they reference.

use std::collections::BTreeSet;

use ocm_content::Error;
use ocm_repository::resolver::bare_component;
use ocm_repository::{ComponentVersion, Repository, Resolver, Session};
use ocm_specs::names::Version;
use ocm_specs::reference::ComponentReference;
use ocm_specs::{Constraint, RepositorySpec};

use crate::args::{Depth, VersionChoice};
use crate::error::{CliError, ExitCode};

/// Deepest chain of references that is followed: far above any product.
const DEPTH_LIMIT: u32 = 64;
/// Most component versions that are shown at once.
const VERSIONS_LIMIT: usize = 100_000;

/// A component version and what it references, as far as that was asked for.
pub(crate) struct Found {
    pub(crate) version: ComponentVersion,
    /// The name of the reference that led here; empty for roots.
    pub(crate) reference: String,
    pub(crate) children: Vec<Found>,
}

/// The component versions that `reference` names: one, all of a component, or all of a repository. A component without a
/// repository is looked for where `resolver` says.
pub(crate) async fn roots(
    reference: &str,
    choice: &VersionChoice,
    session: &Session,
    resolver: &Resolver,
) -> Result<Vec<ComponentVersion>, CliError> {
    let parsed = match reference.parse::<ComponentReference>() {
        Ok(parsed) => parsed,
        Err(error) => {
            if let Some((component, version)) = bare_component(reference) {
                if !resolver.candidates(component, version).is_empty() {
                    return resolved(component, version, choice, session, resolver).await;
                }
                if version.is_some() {
                    return Err(nonsense(reference, &error));
                }
            }
            return whole_repository(reference, choice, session, error.to_string()).await;
        }
    };
    if parsed.version.is_some() || parsed.digest.is_some() {
        check_choice(choice)?;
        return Ok(vec![session.component(&parsed).await?]);
    }
    let repository = session.repository(&parsed.repository, false).await?;
    versions_of(choice, &repository, &parsed.component).await
}

fn check_choice(choice: &VersionChoice) -> Result<(), CliError> {
    if choice.latest || choice.semver_constraint.is_some() {
        let message =
            "--latest and --semver-constraint choose among versions, and the reference names one";
        return Err(CliError::usage(message));
    }
    Ok(())
}

async fn resolved(
    component: &str,
    version: Option<&str>,
    choice: &VersionChoice,
    session: &Session,
    resolver: &Resolver,
) -> Result<Vec<ComponentVersion>, CliError> {
    match version {
        Some(version) => {
            check_choice(choice)?;
            Ok(vec![resolver.find(session, component, version).await?])
        }
        None => {
            let (repository, _) = resolver.versions(session, component).await?;
            versions_of(choice, &repository, component).await
        }
    }
}

/// A reference without component means all of them, where the repository can list them.
async fn whole_repository(
    reference: &str,
    choice: &VersionChoice,
    session: &Session,
    why: String,
) -> Result<Vec<ComponentVersion>, CliError> {
    if reference.contains("//") && !reference.contains("://") {
        return Err(nonsense(reference, &why));
    }
    let spec: RepositorySpec = reference
        .parse()
        .map_err(|error| nonsense(reference, &error))?;
    let repository = session.repository(&spec, false).await?;
    let mut found = Vec::new();
    for component in repository.components().await? {
        found.extend(versions_of(choice, &repository, &component).await?);
    }
    Ok(found)
}

fn nonsense(reference: &str, why: &dyn std::fmt::Display) -> CliError {
    CliError::usage(format!("`{reference}`: {why}")).with_hint(
        "write REPOSITORY//COMPONENT[:VERSION], as in ./archive//acme.org/helloworld:1.0.0",
    )
}

/// The versions of a component that were chosen, latest first.
async fn versions_of(
    choice: &VersionChoice,
    repository: &Repository,
    component: &str,
) -> Result<Vec<ComponentVersion>, CliError> {
    let mut versions = repository.versions(component).await?;
    if versions.is_empty() {
        let message = format!(
            "there is no version of {component} in {}",
            repository.location()
        );
        return Err(CliError::new(ExitCode::NotFound, message));
    }
    if let Some(constraint) = &choice.semver_constraint {
        versions.retain(|version| allows(constraint, version));
    }
    if choice.latest {
        versions.truncate(1);
    }
    let mut found = Vec::new();
    for version in versions {
        found.push(repository.get(component, &version).await?);
    }
    Ok(found)
}

fn allows(constraint: &Constraint, version: &str) -> bool {
    Version::parse(version).is_some_and(|version| constraint.allows(&version))
}

/// Follows the references of each root as far as `depth` says: where the referencing version is, then as `resolver`
/// says.
pub(crate) async fn follow(
    roots: Vec<ComponentVersion>,
    depth: Depth,
    session: &Session,
    resolver: &Resolver,
) -> Result<Vec<Found>, CliError> {
    let mut follower = Follower {
        session,
        resolver,
        path: Vec::new(),
        count: 0,
    };
    let depth = match depth {
        Depth::Unlimited => DEPTH_LIMIT,
        Depth::Levels(levels) => levels.min(DEPTH_LIMIT),
    };
    let mut found = Vec::new();
    for root in roots {
        found.push(follower.follow(root, String::new(), depth).await?);
    }
    Ok(found)
}

struct Follower<'a> {
    session: &'a Session,
    resolver: &'a Resolver,
    /// The versions on the way here: one that comes again is shown and not entered.
    path: Vec<(String, String)>,
    count: usize,
}

impl Follower<'_> {
    async fn follow(
        &mut self,
        version: ComponentVersion,
        reference: String,
        depth: u32,
    ) -> Result<Found, CliError> {
        self.count += 1;
        if self.count > VERSIONS_LIMIT {
            return Err(
                Error::limit(format!("more than {VERSIONS_LIMIT} component versions")).into(),
            );
        }
        let mut children = Vec::new();
        let here = (
            version.descriptor.name().to_owned(),
            version.descriptor.version().to_owned(),
        );
        if depth > 0 && !self.path.contains(&here) {
            self.path.push(here);
            for wanted in version.descriptor.references() {
                let component = wanted.component_name().unwrap_or_default();
                let own = Some(&version.repository);
                let child = self
                    .resolver
                    .resolve(self.session, own, component, wanted.version());
                let child = child.await?;
                let name = wanted.name().to_owned();
                children.push(Box::pin(self.follow(child, name, depth - 1)).await?);
            }
            self.path.pop();
        }
        Ok(Found {
            version,
            reference,
            children,
        })
    }
}

/// All of them, parents before children, each once.
pub(crate) fn flat(found: &[Found]) -> Vec<&ComponentVersion> {
    fn walk<'f>(
        found: &'f [Found],
        seen: &mut BTreeSet<(&'f str, &'f str)>,
        out: &mut Vec<&'f ComponentVersion>,
    ) {
        for one in found {
            let descriptor = &one.version.descriptor;
            if seen.insert((descriptor.name(), descriptor.version())) {
                out.push(&one.version);
            }
            walk(&one.children, seen, out);
        }
    }
    let mut out = Vec::new();
    walk(found, &mut BTreeSet::new(), &mut out);
    out
}
