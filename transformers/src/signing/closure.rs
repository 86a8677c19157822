//! The closure of a component version: it and everything it references, with digests from the leaves up (formats.md 6.4).
//!
//! *Invariant*: a digest that is there is checked, never rewritten; one that is missing is computed in memory, and whoever
//! wants it to last stores the descriptor that has it.

use std::collections::BTreeMap;

use ocm_content::{Error, ErrorKind};
use ocm_repository::{ComponentVersion, Repository, Session};
use ocm_specs::Algorithm;
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, ElementKind};
use ocm_specs::normalisation::Normalisation;

use super::signature::{digest_of, has_content, is_complete, set_digest};
use super::{content, unambiguous};

/// Deepest chain of references that is followed.
const DEPTH_LIMIT: usize = 64;
/// Most component versions in a closure.
const VERSIONS_LIMIT: usize = 100_000;

/// How missing digests are made.
#[derive(Clone, Copy, Debug)]
pub struct DigestOptions {
    /// The normalisation of component versions.
    pub normalisation: Normalisation,
    /// The hash algorithm, of resources, too.
    pub hash: Algorithm,
    /// Are missing digests of resources computed from their content?
    pub resources: bool,
}

impl Default for DigestOptions {
    /// The defaults of the CLI v2; resources are left as they are.
    fn default() -> Self {
        Self {
            normalisation: Normalisation::V4Alpha1,
            hash: Algorithm::Sha256,
            resources: false,
        }
    }
}

/// A component version of a closure.
#[derive(Clone, Debug)]
pub struct Member {
    /// As it is stored.
    pub version: ComponentVersion,
    /// With the digests that were missing.
    pub descriptor: ComponentDescriptor,
}

impl Member {
    /// Does the stored descriptor lack digests?
    pub fn is_changed(&self) -> bool {
        self.descriptor != self.version.descriptor
    }

    /// `<component>:<version>`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.descriptor.name(), self.descriptor.version())
    }
}

/// A closure: referenced versions before those that reference them, each once, the root last.
#[derive(Clone, Debug)]
pub struct Closure {
    members: Vec<Member>,
}

impl Closure {
    /// Reads the closure of `root`: references are looked up where `root` is, then in `lookup` in order.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when a digest that is there is not that of what it names, [`ErrorKind::NotFound`] when a
    /// referenced version is nowhere, [`ErrorKind::Invalid`] for circles and for resources whose content can't be read
    /// though it has to be, [`ErrorKind::Limit`] for too much.
    pub async fn read(
        session: &Session,
        root: ComponentVersion,
        lookup: &[Repository],
        options: DigestOptions,
    ) -> Result<Self, Error> {
        let mut reader = Reader {
            session,
            lookup,
            options,
            members: Vec::new(),
            known: BTreeMap::new(),
            path: Vec::new(),
        };
        reader.member(root).await?;
        Ok(Self {
            members: reader.members,
        })
    }

    /// Children before parents, the root last.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The version whose closure this is.
    pub fn root(&self) -> &Member {
        self.members
            .last()
            .expect("a closure is made of its root at least")
    }
}

struct Reader<'a> {
    session: &'a Session,
    lookup: &'a [Repository],
    options: DigestOptions,
    members: Vec<Member>,
    /// By component and version: the place in `members`.
    known: BTreeMap<(String, String), usize>,
    path: Vec<(String, String)>,
}

impl Reader<'_> {
    /// Adds `version` after all that it references; tells its place.
    async fn member(&mut self, version: ComponentVersion) -> Result<usize, Error> {
        let mut descriptor = version.descriptor.clone();
        unambiguous::check(&descriptor)?;
        let here = (
            descriptor.name().to_owned(),
            descriptor.version().to_owned(),
        );
        if self.path.contains(&here) {
            return Err(Error::invalid(format!(
                "component version {}:{} references itself",
                here.0, here.1
            )));
        }
        if self.path.len() == DEPTH_LIMIT || self.known.len() == VERSIONS_LIMIT {
            return Err(Error::limit(format!(
                "more than {DEPTH_LIMIT} levels of references or {VERSIONS_LIMIT} component versions"
            )));
        }
        self.path.push(here.clone());
        let references = descriptor.references().len();
        for index in 0..references {
            self.reference(&version, &mut descriptor, index).await?;
        }
        self.path.pop();
        if self.options.resources {
            self.resources(&version, &mut descriptor).await?;
        }
        self.members.push(Member {
            version,
            descriptor,
        });
        self.known.insert(here, self.members.len() - 1);
        Ok(self.members.len() - 1)
    }

    async fn reference(
        &mut self,
        parent: &ComponentVersion,
        descriptor: &mut ComponentDescriptor,
        index: usize,
    ) -> Result<(), Error> {
        let Some(reference) = parent.descriptor.references().nth(index) else {
            return Ok(());
        };
        let name = reference.name().to_owned();
        let component = reference.component_name().unwrap_or_default().to_owned();
        let wanted = (component, reference.version().to_owned());
        let place = match self.known.get(&wanted) {
            Some(place) => *place,
            None => {
                let child = self.find(parent, &wanted.0, &wanted.1).await?;
                Box::pin(self.member(child)).await?
            }
        };
        let child = &self.members[place];
        let stated = parent.descriptor.references().nth(index);
        match stated.filter(is_complete).and_then(|it| it.digest()) {
            Some(stated) => check_reference(&stated, child).map_err(|error| {
                error.context(format!(
                    "reference `{name}` of {}:{}",
                    descriptor.name(),
                    descriptor.version()
                ))
            }),
            None => {
                let (normalisation, hash) = (self.options.normalisation, self.options.hash);
                let digest = digest_of(&child.descriptor, normalisation, hash);
                set_digest(descriptor, ElementKind::Reference, index, &digest);
                Ok(())
            }
        }
    }

    async fn find(
        &self,
        parent: &ComponentVersion,
        component: &str,
        version: &str,
    ) -> Result<ComponentVersion, Error> {
        let own = parent.repository.get(component, version).await;
        let missing = match own {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            found => return found,
        };
        for repository in self.lookup {
            if let Some(found) = repository.find(component, version).await? {
                return Ok(found);
            }
        }
        Err(missing)
    }

    async fn resources(
        &self,
        version: &ComponentVersion,
        descriptor: &mut ComponentDescriptor,
    ) -> Result<(), Error> {
        for (index, resource) in version.descriptor.resources().enumerate() {
            if !has_content(&resource) || is_complete(&resource) {
                continue;
            }
            let digest = content::digest(self.session, version, &resource, self.options.hash)
                .await
                .map_err(|error| {
                    error
                        .context(format!(
                            "resource `{}` of {}:{} has no digest, and none can be computed",
                            resource.identity(),
                            descriptor.name(),
                            descriptor.version()
                        ))
                        .with_hint("add its digest where the component version is made")
                })?;
            set_digest(descriptor, ElementKind::Resource, index, &digest);
        }
        Ok(())
    }
}

/// Is `stated` the digest of `child`, as it is stored or with its own missing digests?
fn check_reference(stated: &DigestSpec, child: &Member) -> Result<(), Error> {
    let normalisation = Normalisation::parse(&stated.normalisation_algorithm);
    let (Some(normalisation), Some(digest)) = (normalisation, stated.digest()) else {
        return Err(Error::mismatch(format!(
            "its digest by `{}` and `{}` can't be checked",
            stated.normalisation_algorithm, stated.hash_algorithm
        )));
    };
    let matches = |it: &ComponentDescriptor| normalisation.variant_of(it, &digest).is_some();
    if matches(&child.version.descriptor) || matches(&child.descriptor) {
        return Ok(());
    }
    let own = normalisation.digest(&child.version.descriptor, digest.algorithm());
    Err(Error::mismatch(format!(
        "{} has the digest {}, expected {}",
        child.name(),
        own.short(),
        digest.short()
    )))
}
