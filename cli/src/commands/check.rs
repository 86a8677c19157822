//! `ocm check component-version`: is everything there, and is it right?
//!
//! *Invariant*: what is called complete was read to its last byte; what was not looked at is part of the result.

use std::collections::BTreeSet;
use std::fmt::Write;

use ocm_content::audit::{PartCheck, PartState, audit};
use ocm_content::{Content, Error, ErrorKind};
use ocm_repository::{ComponentVersion, Resolver, Session};
use ocm_specs::access::Access;
use ocm_specs::descriptor::{ComponentDescriptor, Element, ElementKind};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::yaml;
use ocm_transformers::signing::{ContentState, check_content};
use serde::Serialize;

use crate::args::{CheckArgs, ReportFormat};
use crate::commands::elements::access;
use crate::commands::select::roots;
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// Most component versions that are checked in one call.
const VERSIONS_LIMIT: usize = 100_000;

/// The result as a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    api_version: &'static str,
    complete: bool,
    versions: Vec<VersionCheck>,
    not_checked: Vec<String>,
}

/// One component version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionCheck {
    component: String,
    version: String,
    repository: String,
    references: Vec<ReferenceCheck>,
    contents: Vec<ElementCheck>,
}

/// One reference: is the component version there, and is it the one that was meant?
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferenceCheck {
    name: String,
    component: String,
    version: String,
    state: PartState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// One resource or source.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ElementCheck {
    kind: &'static str,
    identity: String,
    access: String,
    /// The worst of its parts; `None` for what is stored elsewhere and was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<PartState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    parts: Vec<PartCheck>,
}

/// Checks component versions and prints what came of it.
pub(crate) async fn component_version(args: CheckArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let roots = roots(&args.reference, &args.choice, &session, &resolver).await?;
    let mut checker = Checker {
        session: &session,
        resolver: &resolver,
        external: args.external,
        seen: BTreeSet::new(),
        versions: Vec::new(),
    };
    for root in roots {
        checker.closure(root).await?;
    }
    let states: Vec<PartState> = states(&checker.versions).collect();
    let mut not_checked = Vec::new();
    let mut elements = checker.versions.iter().flat_map(|it| &it.contents);
    if elements.any(|element| element.state.is_none()) {
        let note = "content that is stored elsewhere (--external reads it)";
        not_checked.push(note.to_owned());
    }
    let report = Report {
        api_version: "ocm.software/check/v1alpha1",
        complete: states.iter().all(|state| *state == PartState::Ok),
        versions: checker.versions,
        not_checked,
    };
    ui.data(&match args.output {
        ReportFormat::Text => text(&report),
        ReportFormat::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        ReportFormat::Yaml => yaml::to_string(&serde_json::to_value(&report).unwrap_or_default()),
    })?;
    verdict(&states)
}

fn states(versions: &[VersionCheck]) -> impl Iterator<Item = PartState> {
    versions.iter().flat_map(|version| {
        let references = version.references.iter().map(|it| it.state);
        references.chain(version.contents.iter().filter_map(|it| it.state))
    })
}

/// Exit code 4 when nothing is wrong but things are missing, 5 when something is there and not right.
fn verdict(states: &[PartState]) -> Result<(), CliError> {
    let missing = states
        .iter()
        .filter(|it| **it == PartState::Missing)
        .count();
    let bad = states.iter().filter(|it| **it != PartState::Ok).count();
    if bad == 0 {
        return Ok(());
    }
    let code = if missing == bad {
        ExitCode::NotFound
    } else {
        ExitCode::Verification
    };
    let message = format!("{missing} missing, {} wrong or unreadable", bad - missing);
    Err(CliError::new(code, message))
}

struct Checker<'a> {
    session: &'a Session,
    resolver: &'a Resolver,
    external: bool,
    seen: BTreeSet<(String, String)>,
    versions: Vec<VersionCheck>,
}

impl Checker<'_> {
    /// Checks `root` and all that it references, parents before children, each once.
    async fn closure(&mut self, root: ComponentVersion) -> Result<(), CliError> {
        let mut open = vec![root];
        while let Some(version) = open.pop() {
            let descriptor = &version.descriptor;
            let name = (
                descriptor.name().to_owned(),
                descriptor.version().to_owned(),
            );
            if !self.seen.insert(name) {
                continue;
            }
            if self.seen.len() > VERSIONS_LIMIT {
                let message = format!("more than {VERSIONS_LIMIT} component versions");
                return Err(Error::limit(message).into());
            }
            let mut references = Vec::new();
            let mut children = Vec::new();
            for reference in descriptor.references() {
                let (checked, child) = self.reference(&version, &reference).await?;
                references.push(checked);
                children.extend(child);
            }
            let contents = self.contents(&version).await?;
            self.versions.push(VersionCheck {
                component: descriptor.name().to_owned(),
                version: descriptor.version().to_owned(),
                repository: version.repository.location().to_owned(),
                references,
                contents,
            });
            open.extend(children.into_iter().rev());
        }
        Ok(())
    }

    async fn reference(
        &self,
        parent: &ComponentVersion,
        reference: &Element<'_>,
    ) -> Result<(ReferenceCheck, Option<ComponentVersion>), CliError> {
        let component = reference.component_name().unwrap_or_default();
        let mut checked = ReferenceCheck {
            name: reference.name().to_owned(),
            component: component.to_owned(),
            version: reference.version().to_owned(),
            state: PartState::Ok,
            reason: None,
        };
        let own = Some(&parent.repository);
        let found = self
            .resolver
            .resolve(self.session, own, component, reference.version());
        match found.await {
            Ok(child) => {
                if let Some(reason) = mismatch(reference, &child.descriptor) {
                    checked.state = PartState::Digest;
                    checked.reason = Some(reason);
                }
                Ok((checked, Some(child)))
            }
            Err(error) if is_about_content(&error) => {
                checked.state = state_of(&error);
                checked.reason = Some(error.to_string());
                Ok((checked, None))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn contents(&self, version: &ComponentVersion) -> Result<Vec<ElementCheck>, CliError> {
        let descriptor = &version.descriptor;
        let mut contents = Vec::new();
        for element in descriptor.resources().chain(descriptor.sources()) {
            contents.push(self.content(version, &element).await?);
        }
        Ok(contents)
    }

    async fn content(
        &self,
        version: &ComponentVersion,
        element: &Element<'_>,
    ) -> Result<ElementCheck, CliError> {
        let mut checked = ElementCheck {
            kind: element.kind().as_str(),
            identity: element.identity().to_string(),
            access: access(element),
            state: None,
            reason: None,
            parts: Vec::new(),
        };
        let content = match element.access() {
            Ok(Access::None) => {
                checked.state = Some(PartState::Ok);
                return Ok(checked);
            }
            Ok(Access::LocalBlob(_)) => version.local_blob(element),
            Ok(Access::RelativeOciReference { .. }) => self.session.content(version, element).await,
            Ok(_) if self.external => self.session.content(version, element).await,
            Ok(_) => return Ok(checked),
            Err(error) => Err(Error::invalid(error.to_string())),
        };
        match content {
            Ok(content) => {
                checked.parts = self.parts(&content).await?;
                let worst = checked.parts.iter().map(|part| part.state).max();
                checked.state = worst.or(Some(PartState::Ok));
            }
            // A registry that is away says nothing about what it has.
            Err(error) if !is_about_content(&error) => return Err(error.into()),
            Err(error) => {
                checked.state = Some(state_of(&error));
                checked.reason = Some(error.to_string());
            }
        }
        if checked.state == Some(PartState::Ok) && element.kind() == ElementKind::Resource {
            self.digest(version, element, &mut checked).await;
        }
        Ok(checked)
    }

    async fn parts(&self, content: &Content) -> Result<Vec<PartCheck>, CliError> {
        Ok(audit(content, self.session.limits()).await?)
    }

    /// All parts are right; are they what the descriptor means?
    async fn digest(
        &self,
        version: &ComponentVersion,
        element: &Element<'_>,
        checked: &mut ElementCheck,
    ) {
        let by_link = element.digest().and_then(|it| it.digest());
        let whole = checked.parts.first().and_then(|part| part.digest.clone());
        if by_link.is_some() && by_link == whole {
            return;
        }
        let found = check_content(self.session, version, element).await;
        checked.reason = found.reason;
        checked.state = Some(match found.state {
            ContentState::Ok | ContentState::NotChecked => {
                checked.reason = None;
                PartState::Ok
            }
            ContentState::Mismatch => PartState::Digest,
            _ => PartState::Unreadable,
        });
    }
}

/// Does the error say something about the content, and not about the way to it?
fn is_about_content(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Cancelled | ErrorKind::Internal
    )
}

fn state_of(error: &Error) -> PartState {
    match error.kind() {
        ErrorKind::NotFound => PartState::Missing,
        ErrorKind::Mismatch => PartState::Digest,
        _ => PartState::Unreadable,
    }
}

/// Why `child` is not the version that the reference means; `None` when it is, or when the reference has no digest.
fn mismatch(reference: &Element<'_>, child: &ComponentDescriptor) -> Option<String> {
    let stated = reference.digest().filter(|it| !it.is_empty())?;
    let normalisation = Normalisation::parse(&stated.normalisation_algorithm);
    match (normalisation, stated.digest()) {
        (Some(normalisation), Some(digest)) => {
            let is_same = normalisation.variant_of(child, &digest).is_some();
            let found = normalisation.digest(child, digest.algorithm());
            (!is_same).then(|| format!("it has the digest {found}, the reference says {digest}"))
        }
        _ => Some(format!(
            "the digest of the reference by `{}` and `{}` can't be checked",
            stated.normalisation_algorithm, stated.hash_algorithm
        )),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for version in &report.versions {
        let _ = writeln!(
            out,
            "{}:{} in {}",
            version.component, version.version, version.repository
        );
        for reference in &version.references {
            let state = reference.state.as_str();
            let _ = writeln!(
                out,
                "  {state:<10} reference {} ({}:{})",
                reference.name, reference.component, reference.version
            );
            reason(reference.reason.as_ref(), &mut out);
        }
        for element in &version.contents {
            let state = element.state.map_or("elsewhere", PartState::as_str);
            let _ = writeln!(
                out,
                "  {state:<10} {} {} ({})",
                element.kind, element.identity, element.access
            );
            reason(element.reason.as_ref(), &mut out);
            for part in element.parts.iter().filter(|it| it.state != PartState::Ok) {
                let digest = part.digest.as_ref().map(ToString::to_string);
                let _ = writeln!(
                    out,
                    "    {:<10} {}",
                    part.state.as_str(),
                    digest.unwrap_or_else(|| part.media_type.clone())
                );
                reason(part.reason.as_ref(), &mut out);
            }
        }
    }
    for note in &report.not_checked {
        let _ = writeln!(out, "not checked: {note}");
    }
    out
}

fn reason(reason: Option<&String>, out: &mut String) {
    if let Some(reason) = reason {
        let _ = writeln!(out, "      {reason}");
    }
}
