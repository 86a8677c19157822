//! The passes of a construction, one after the other, each over all component versions.

use std::collections::BTreeSet;

use futures::{FutureExt, StreamExt, stream};
use ocm_content::{Error, ErrorKind};
use ocm_repository::{ComponentVersion, Existing, PreparedVersion, Session, VersionOutcome};
use ocm_specs::Algorithm;
use ocm_specs::constructor::{Component, Item, ItemContent, Reference};
use ocm_specs::descriptor::{
    ComponentDescriptor, DescriptorError, DigestSpec, ElementKind, Encoding,
};
use ocm_specs::normalisation::Normalisation;
use serde_json::Value as Json;

use super::element::Built;
use super::external::{self, Places};
use super::inputs::Inputs;
use super::order::Planned;
use super::ownership::Ownership;
use super::root::Root;
use super::{
    ConflictPolicy, ConstructError, ConstructOptions, ConstructOutcome, Constructed, Construction,
    ExternalPolicy, Problem, Target,
};
use crate::signing::digest_of;

/// Component versions that are written at once.
const WRITES: usize = 16;

pub(super) struct Work<'w> {
    pub(super) session: &'w Session,
    pub(super) target: &'w Target,
    pub(super) options: &'w ConstructOptions,
    planned: &'w [Planned<'w>],
}

/// Is there a version of that name already?
enum Before {
    Absent,
    /// It stays.
    Kept(Box<ComponentVersion>),
    /// It goes.
    Replaced,
}

/// Everything that is to be published.
#[derive(Default)]
struct Made {
    versions: Vec<Constructed>,
    /// In the same order; `None` for what stays.
    existing: Vec<Option<Existing>>,
    ownerships: Vec<Ownership>,
    copied: Vec<external::Copied>,
    warnings: Vec<String>,
}

impl<'w> Work<'w> {
    pub(super) fn new(
        session: &'w Session,
        target: &'w Target,
        options: &'w ConstructOptions,
        planned: &'w [Planned<'w>],
    ) -> Self {
        Self {
            session,
            target,
            options,
            planned,
        }
    }

    /// All passes. What one finds wrong is told before the next begins.
    pub(super) async fn run(&self) -> Result<Construction, ConstructError> {
        let existing = self.existing().await?;
        let roots = self.look(&existing)?;
        let elements = self.elements(&existing, &roots).await?;
        let made = self.assemble(existing, elements).await?;
        self.publish(made).await
    }

    /// Looks which versions are there, before anything is read.
    async fn existing(&self) -> Result<Vec<Before>, ConstructError> {
        let looks: Vec<_> = self
            .planned
            .iter()
            .map(|planned| self.before(planned.component).boxed())
            .collect();
        let looks = stream::iter(looks).buffered(self.concurrency());
        let found: Vec<Result<Before, Error>> = looks.collect().await;
        let (mut fine, mut problems) = (Vec::new(), Vec::new());
        for (found, planned) in found.into_iter().zip(self.planned) {
            match found {
                Ok(before) => fine.push(before),
                Err(error) => problems.push(problem_of(planned, &error)),
            }
        }
        done(fine, problems)
    }

    async fn before(&self, component: &Component) -> Result<Before, Error> {
        let Some(repository) = &self.target.repository else {
            return Ok(Before::Absent);
        };
        let found = repository
            .find(&component.name.text, &component.version.text)
            .await;
        match (found, self.options.conflict) {
            (Ok(None), _) => Ok(Before::Absent),
            (Ok(Some(found)), ConflictPolicy::Skip) => Ok(Before::Kept(Box::new(found))),
            (Ok(Some(_)), ConflictPolicy::Replace) => Ok(Before::Replaced),
            // What can't be read is replaced as well.
            (Err(error), ConflictPolicy::Replace) if !is_passing(&error) => Ok(Before::Replaced),
            (Err(error), _) => Err(error),
            (Ok(Some(_)), ConflictPolicy::AbortAndFail) => Err(Error::new(
                ErrorKind::Conflict,
                format!("{} is in {} already", component.identity(), repository.location()),
            )
            .with_hint("leave it with --component-version-conflict-policy skip, or replace it with the policy replace")),
        }
    }

    /// Opens the folders and finds all inputs there, so that all mistakes are told before anything is moved.
    fn look(&self, existing: &[Before]) -> Result<Vec<Option<Root>>, ConstructError> {
        let mut problems = Vec::new();
        let mut roots = Vec::new();
        for (planned, before) in self.planned.iter().zip(existing) {
            let inputs: Vec<_> = items(planned.component)
                .filter_map(|item| match &item.content {
                    ItemContent::Input(input) => Some((item, input)),
                    ItemContent::Access(_) => None,
                })
                .collect();
            if inputs.is_empty() || matches!(before, Before::Kept(_)) {
                roots.push(None);
                continue;
            }
            let root = match Root::open(&planned.document.root) {
                Ok(root) => root,
                Err(error) => {
                    problems.push(problem_of(planned, &error));
                    continue;
                }
            };
            for (item, input) in inputs {
                if let Err(error) = Inputs::look(&root, input) {
                    problems.push(Problem::at(planned.source(), item.span, &item.path, &error));
                }
            }
            roots.push(Some(root));
        }
        done(roots, problems)
    }

    /// Takes in or looks up the content of all elements, several at once; gives them per component version.
    async fn elements(
        &self,
        existing: &[Before],
        roots: &[Option<Root>],
    ) -> Result<Vec<Vec<Built>>, ConstructError> {
        let (mut jobs, mut running) = (Vec::new(), Vec::new());
        for (at, ((planned, before), root)) in
            self.planned.iter().zip(existing).zip(roots).enumerate()
        {
            if matches!(before, Before::Kept(_)) {
                continue;
            }
            for item in items(planned.component) {
                jobs.push((at, planned, item));
                running.push(self.element(planned, item, root.as_ref()).boxed());
            }
        }
        let running = stream::iter(running).buffered(self.concurrency());
        let found: Vec<Result<Built, Error>> = running.collect().await;
        let mut elements: Vec<Vec<Built>> = self.planned.iter().map(|_| Vec::new()).collect();
        let mut problems = Vec::new();
        for ((at, planned, item), built) in jobs.into_iter().zip(found) {
            match built {
                Ok(built) => elements[at].push(built),
                Err(error) => {
                    problems.push(Problem::at(planned.source(), item.span, &item.path, &error));
                }
            }
        }
        done(elements, problems)
    }

    /// Makes descriptors of elements and references, children first.
    async fn assemble(
        &self,
        existing: Vec<Before>,
        elements: Vec<Vec<Built>>,
    ) -> Result<Made, ConstructError> {
        let mut made = Made::default();
        let mut problems = Vec::new();
        let places = Places {
            session: self.session,
            target: self.target.repository.as_ref(),
            resolver: &self.target.resolver,
        };
        let mut copied = BTreeSet::new();
        let created = self.options.source_date.map(timestamp);
        for ((planned, before), elements) in self.planned.iter().zip(existing).zip(elements) {
            let (existing, outcome) = match before {
                Before::Kept(found) => {
                    made.versions.push(Constructed {
                        descriptor: found.descriptor,
                        outcome: ConstructOutcome::Kept,
                    });
                    made.existing.push(None);
                    continue;
                }
                Before::Absent => (Existing::Fail, ConstructOutcome::Created),
                Before::Replaced => (Existing::Overwrite, ConstructOutcome::Replaced),
            };
            let mut lists: [Vec<Json>; 2] = Default::default();
            for (built, item) in elements.into_iter().zip(items(planned.component)) {
                lists[usize::from(item.kind == ElementKind::Source)].push(built.value);
                made.ownerships.extend(built.ownership);
                made.warnings.extend(built.warnings);
            }
            let mut references = Vec::new();
            for (reference, child) in planned.component.references.iter().zip(&planned.children) {
                let done = self
                    .reference(reference, *child, &places, &mut made, &mut copied)
                    .await;
                match done {
                    Ok(value) => references.push(value),
                    Err(error) => problems.push(Problem::at(
                        planned.source(),
                        reference.span,
                        &reference.path,
                        &error,
                    )),
                }
            }
            let [resources, sources] = lists;
            let document =
                planned
                    .component
                    .descriptor(created.as_deref(), resources, sources, references);
            let descriptor = as_stored(document).map_err(|error| ConstructError {
                problems: vec![problem_of(planned, &error)],
            })?;
            made.versions.push(Constructed {
                descriptor,
                outcome,
            });
            made.existing.push(Some(existing));
        }
        done(made, problems)
    }

    /// A reference with the digest of what it names.
    async fn reference(
        &self,
        reference: &Reference,
        child: Option<usize>,
        places: &Places<'_>,
        made: &mut Made,
        copied: &mut BTreeSet<(String, String)>,
    ) -> Result<Json, Error> {
        let mut value = reference.value.clone();
        let digest = match child {
            Some(child) => {
                let child = made
                    .versions
                    .get(child)
                    .ok_or_else(|| Error::internal("a child is made after its parent"))?;
                reference_digest(reference, &child.descriptor)?
            }
            None if self.options.skip_reference_digests => reference.digest.clone(),
            None => {
                let closure = places
                    .closure(&reference.component, &reference.version)
                    .await?;
                if let (ExternalPolicy::CopyOrFail, Some(target), false) = (
                    self.options.external,
                    &self.target.repository,
                    self.target.dry_run,
                ) {
                    made.copied
                        .extend(external::copy(&closure, target, copied).await?);
                }
                reference_digest(reference, &closure.root().descriptor)?
            }
        };
        if let Some(digest) = digest {
            value["digest"] = digest.to_value();
        }
        Ok(value)
    }

    /// Brings all descriptors to the target, then makes them visible, children first.
    async fn publish(&self, made: Made) -> Result<Construction, ConstructError> {
        let Made {
            mut versions,
            existing,
            ownerships,
            copied,
            warnings,
        } = made;
        let (Some(repository), false) = (&self.target.repository, self.target.dry_run) else {
            return Ok(Construction { versions, warnings });
        };
        let mut jobs = Vec::new();
        for (version, existing) in versions.iter().zip(&existing) {
            let (descriptor, existing) = (&version.descriptor, *existing);
            let job = async move {
                match existing {
                    Some(existing) => {
                        let prepared = repository.prepare_version(descriptor, existing).await;
                        prepared.map(Some)
                    }
                    None => Ok(None),
                }
            };
            jobs.push(job.boxed());
        }
        let found: Vec<Result<Option<PreparedVersion>, Error>> =
            stream::iter(jobs).buffered(WRITES).collect().await;
        let (mut prepared, mut problems) = (Vec::new(), Vec::new());
        for ((found, version), planned) in found.into_iter().zip(&mut versions).zip(self.planned) {
            match found {
                Ok(one) => {
                    let is_present = |it: &PreparedVersion| it.outcome() == VersionOutcome::Present;
                    if one.as_ref().is_some_and(is_present) {
                        version.outcome = ConstructOutcome::Present;
                    }
                    prepared.push(one);
                }
                Err(error) => problems.push(problem_of(planned, &error)),
            }
        }
        let prepared = done(prepared, problems)?;
        let first = self.planned.first();
        let blame = |error: Error| ConstructError {
            problems: first
                .map(|planned| problem_of(planned, &error))
                .into_iter()
                .collect(),
        };
        for ownership in &ownerships {
            ownership.publish().await.map_err(blame)?;
        }
        for one in &copied {
            one.prepared.publish().await.map_err(blame)?;
        }
        self.make_visible(&prepared).await?;
        let copied = copied.into_iter().map(|one| Constructed {
            descriptor: one.descriptor,
            outcome: ConstructOutcome::Copied,
        });
        Ok(Construction {
            versions: copied.chain(versions).collect(),
            warnings,
        })
    }

    /// Children before parents; those that do not need each other at once, which an archive commits together.
    async fn make_visible(
        &self,
        prepared: &[Option<PreparedVersion>],
    ) -> Result<(), ConstructError> {
        let mut levels: Vec<Vec<usize>> = Vec::new();
        let mut level_of = Vec::with_capacity(self.planned.len());
        for (at, planned) in self.planned.iter().enumerate() {
            let children = planned.children.iter().flatten();
            let level = children
                .map(|child| level_of[*child] + 1)
                .max()
                .unwrap_or(0_usize);
            level_of.push(level);
            if levels.len() == level {
                levels.push(Vec::new());
            }
            levels[level].push(at);
        }
        for level in levels {
            let here: Vec<(&PreparedVersion, &Planned<'_>)> = level
                .into_iter()
                .filter_map(|at| Some((prepared.get(at)?.as_ref()?, self.planned.get(at)?)))
                .collect();
            let running: Vec<_> = here.iter().map(|(one, _)| one.publish().boxed()).collect();
            let published: Vec<Result<_, Error>> =
                stream::iter(running).buffered(WRITES).collect().await;
            let mut problems = Vec::new();
            for (published, (_, planned)) in published.into_iter().zip(&here) {
                if let Err(error) = published {
                    problems.push(problem_of(planned, &error));
                }
            }
            done((), problems)?;
        }
        Ok(())
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency.max(1)
    }
}

/// The result of a pass: `fine` where there are no problems.
fn done<T>(fine: T, problems: Vec<Problem>) -> Result<T, ConstructError> {
    if problems.is_empty() {
        Ok(fine)
    } else {
        Err(ConstructError { problems })
    }
}

/// A new descriptor as reading it from where it is stored will give it, with these bytes.
fn as_stored(document: Json) -> Result<ComponentDescriptor, Error> {
    let internal = |error: DescriptorError| Error::internal(error.to_string());
    let encoded = ComponentDescriptor::from_value(document)
        .map_err(internal)?
        .encode(Encoding::Json);
    ComponentDescriptor::decode(&encoded.media_type, encoded.bytes).map_err(internal)
}

/// Resources, then sources.
fn items(component: &Component) -> impl Iterator<Item = &Item> {
    component.resources.iter().chain(&component.sources)
}

fn problem_of(planned: &Planned<'_>, error: &Error) -> Problem {
    Problem::at(planned.source(), planned.component.span, "", error)
}

/// The digest of a child: the stated one if it holds, else a new one.
fn reference_digest(
    reference: &Reference,
    child: &ComponentDescriptor,
) -> Result<Option<DigestSpec>, Error> {
    let Some(stated) = &reference.digest else {
        return Ok(Some(digest_of(
            child,
            Normalisation::V4Alpha1,
            Algorithm::Sha256,
        )));
    };
    if stated.is_excluded() {
        return Ok(Some(stated.clone()));
    }
    let normalisation = Normalisation::parse(&stated.normalisation_algorithm).ok_or_else(|| {
        Error::invalid(format!(
            "`{}` is no normalisation of component versions",
            stated.normalisation_algorithm
        ))
        .with_hint("write jsonNormalisation/v4alpha1")
    })?;
    let digest = stated
        .digest()
        .ok_or_else(|| Error::invalid("the stated digest is none"))?;
    if normalisation.variant_of(child, &digest).is_some() {
        return Ok(Some(stated.clone()));
    }
    let found = normalisation.digest(child, digest.algorithm());
    Err(Error::mismatch(format!(
        "{}:{} has digest {found}, the constructor states {digest}",
        child.name(),
        child.version()
    ))
    .with_hint("correct the `digest`, or leave it out to have it computed"))
}

/// Errors that say nothing about what is there.
fn is_passing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Cancelled | ErrorKind::Io
    )
}

/// Seconds since 1970 as a date and time by RFC 3339 (days by the proleptic Gregorian calendar).
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970_u64, days);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // Whole cycles of 400 years first, so that no number of seconds takes long.
    year += 400 * (day / 146_097);
    day %= 146_097;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let mut month = 0;
    let lengths = [
        31,
        if is_leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (month, day) = (month + 1, day + 1);
    let (hours, minutes, seconds) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_742_291_082, "2025-03-18T09:44:42Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), expected);
        }
    }
}
