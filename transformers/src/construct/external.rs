//! Component versions that are referenced and made elsewhere: found, and brought along where that is asked for.

use std::collections::BTreeSet;

use ocm_content::{Error, ErrorKind};
use ocm_repository::{ComponentVersion, Existing, PreparedVersion, Repository, Resolver, Session};
use ocm_specs::access::Access;
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};

use crate::signing::{Closure, DigestOptions};

/// Where referenced component versions may be: the target first, then what the resolver knows.
pub(super) struct Places<'r> {
    pub(super) session: &'r Session,
    pub(super) target: Option<&'r Repository>,
    pub(super) resolver: &'r Resolver,
}

impl Places<'_> {
    /// The closure of a component version, wherever it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it or something it references is nowhere; digests in it that do not hold.
    pub(super) async fn closure(&self, component: &str, version: &str) -> Result<Closure, Error> {
        let found = self
            .resolver
            .resolve(self.session, self.target, component, version)
            .await;
        let found = found.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_hint(
                "add it first, name its repository with --lookup, or leave it unchecked with --skip-reference-digest-processing",
            ),
            _ => error,
        })?;
        Closure::read(self.session, found, self.resolver, DigestOptions::default()).await
    }
}

/// A component version that was brought along.
pub(super) struct Copied {
    pub(super) descriptor: ComponentDescriptor,
    pub(super) prepared: PreparedVersion,
}

/// Brings the members of a closure to `target` that are not there: descriptors and what is stored beside them.
pub(super) async fn copy(
    closure: &Closure,
    target: &Repository,
    done: &mut BTreeSet<(String, String)>,
) -> Result<Vec<Copied>, Error> {
    let mut copied = Vec::new();
    for member in closure.members() {
        let version = &member.version;
        let key = (
            version.descriptor.name().to_owned(),
            version.descriptor.version().to_owned(),
        );
        if version.repository.location() == target.location() || !done.insert(key) {
            continue;
        }
        let descriptor = with_content(version, target).await.map_err(|error| {
            error.context(format!(
                "copy {} from {}",
                member.name(),
                version.repository.location()
            ))
        })?;
        let prepared = target.prepare_version(&descriptor, Existing::Fail).await?;
        copied.push(Copied {
            descriptor,
            prepared,
        });
    }
    Ok(copied)
}

async fn with_content(
    version: &ComponentVersion,
    target: &Repository,
) -> Result<ComponentDescriptor, Error> {
    let mut descriptor = version.descriptor.clone();
    for kind in [ElementKind::Resource, ElementKind::Source] {
        for (index, element) in version.descriptor.elements(kind).enumerate() {
            let access = element
                .access()
                .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
            if !matches!(access, Access::LocalBlob(_)) {
                continue;
            }
            let content = version.local_blob(&element)?;
            let stored = target
                .prepare_local_blob(descriptor.name(), kind, element.value(), &content)
                .await?;
            descriptor.replace(kind, index, stored);
        }
    }
    Ok(descriptor)
}
