//! The closure of a component version: it and everything it references, with digests from the leaves up (formats.md 6.4).
//!
//! *Invariant*: a digest that is there is checked, never rewritten; one that is missing is computed in memory, and whoever
//! wants it to last stores the descriptor that has it.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{FuturesUnordered, StreamExt};
use ocm_content::Error;
use ocm_repository::{ComponentVersion, Repository, Resolver, Session};
use ocm_specs::Algorithm;
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, ElementKind};
use ocm_specs::normalisation::Normalisation;

use super::signature::{digest_of, has_content, is_complete, set_digest};
use super::{content, unambiguous};

/// Deepest chain of references that is followed.
const DEPTH_LIMIT: usize = 64;
/// Most component versions in a closure.
const VERSIONS_LIMIT: usize = 100_000;
/// Component versions that are read at once.
const CONCURRENCY: usize = 16;

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

/// A closure: referenced versions before those that reference them, each once; of one root, the root last.
#[derive(Clone, Debug)]
pub struct Closure {
    members: Vec<Member>,
}

impl Closure {
    /// Reads the closure of `root`: references are looked up where their parent is, then as `resolver` says.
    ///
    /// # Errors
    /// [`Mismatch`](ocm_content::ErrorKind::Mismatch) when a digest that is there is not that of what it names,
    /// [`NotFound`](ocm_content::ErrorKind::NotFound) when a referenced version is nowhere,
    /// [`Invalid`](ocm_content::ErrorKind::Invalid) for circles and for resources whose content can't be read though it
    /// has to be, [`Limit`](ocm_content::ErrorKind::Limit) for too much.
    pub async fn read(
        session: &Session,
        root: ComponentVersion,
        resolver: &Resolver,
        options: DigestOptions,
    ) -> Result<Self, Error> {
        Self::read_all(session, vec![root], resolver, options).await
    }

    /// Reads the closures of several roots as one: what they share is read once, several versions at a time. Each root
    /// comes after all that it references, in the order given.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub async fn read_all(
        session: &Session,
        roots: Vec<ComponentVersion>,
        resolver: &Resolver,
        options: DigestOptions,
    ) -> Result<Self, Error> {
        let order: Vec<Key> = roots.iter().map(key_of).collect();
        let mut loaded = BTreeMap::new();
        for (key, version) in load(session, roots, resolver).await? {
            unambiguous::check(&version.descriptor)?;
            let mut descriptor = version.descriptor.clone();
            if options.resources {
                resources(session, &version, &mut descriptor, options.hash).await?;
            }
            let member = Member {
                version,
                descriptor,
            };
            loaded.insert(key, member);
        }
        let mut reader = Reader {
            options,
            loaded,
            members: Vec::new(),
            known: BTreeMap::new(),
            path: Vec::new(),
        };
        for root in &order {
            reader.member(root)?;
        }
        Ok(Self {
            members: reader.members,
        })
    }

    /// Some component versions without what they reference.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for descriptors that two readers could understand differently.
    pub fn of(versions: Vec<ComponentVersion>) -> Result<Self, Error> {
        let members = versions.into_iter().map(|version| {
            unambiguous::check(&version.descriptor)?;
            let descriptor = version.descriptor.clone();
            Ok(Member {
                version,
                descriptor,
            })
        });
        let members = members.collect::<Result<_, Error>>()?;
        Ok(Self { members })
    }

    /// Children before parents, the root last.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The same, taken out.
    pub fn into_members(self) -> Vec<Member> {
        self.members
    }

    /// The version whose closure this is; the last of several.
    pub fn root(&self) -> &Member {
        self.members
            .last()
            .expect("a closure is made of its root at least")
    }
}

/// Component and version.
type Key = (String, String);

fn key_of(version: &ComponentVersion) -> Key {
    let descriptor = &version.descriptor;
    (
        descriptor.name().to_owned(),
        descriptor.version().to_owned(),
    )
}

/// Reads everything that is referenced from `roots` on, each once.
async fn load(
    session: &Session,
    roots: Vec<ComponentVersion>,
    resolver: &Resolver,
) -> Result<BTreeMap<Key, ComponentVersion>, Error> {
    let mut loaded = BTreeMap::new();
    let mut level: Vec<(Key, ComponentVersion)> = roots
        .into_iter()
        .map(|version| (key_of(&version), version))
        .collect();
    let mut asked: BTreeSet<Key> = level.iter().map(|(key, _)| key.clone()).collect();
    for _ in 0..DEPTH_LIMIT {
        let mut wanted = Vec::new();
        for (_, version) in &level {
            for reference in version.descriptor.references() {
                let component = reference.component_name().unwrap_or_default();
                let key = (component.to_owned(), reference.version().to_owned());
                if asked.insert(key.clone()) {
                    wanted.push((version.repository.clone(), key));
                }
            }
        }
        if asked.len() > VERSIONS_LIMIT {
            break;
        }
        loaded.extend(level);
        if wanted.is_empty() {
            return Ok(loaded);
        }
        level = load_level(session, wanted, resolver).await?;
    }
    Err(Error::limit(format!(
        "more than {DEPTH_LIMIT} levels of references or {VERSIONS_LIMIT} component versions"
    )))
}

/// Reads some component versions, several at once.
async fn load_level(
    session: &Session,
    wanted: Vec<(Repository, Key)>,
    resolver: &Resolver,
) -> Result<Vec<(Key, ComponentVersion)>, Error> {
    let mut wanted = wanted.into_iter();
    let mut reading = FuturesUnordered::new();
    let mut found = Vec::new();
    loop {
        while reading.len() < CONCURRENCY
            && let Some((repository, key)) = wanted.next()
        {
            reading.push(async move {
                let version = resolver
                    .resolve(session, Some(&repository), &key.0, &key.1)
                    .await?;
                Ok::<_, Error>((key, version))
            });
        }
        match reading.next().await {
            Some(version) => found.push(version?),
            None => return Ok(found),
        }
    }
}

/// Puts what was read into order and checks or completes the digests of references.
struct Reader {
    options: DigestOptions,
    /// What is not a member yet.
    loaded: BTreeMap<Key, Member>,
    members: Vec<Member>,
    /// The place in `members`.
    known: BTreeMap<Key, usize>,
    path: Vec<Key>,
}

impl Reader {
    /// Adds a component version after all that it references; tells its place.
    fn member(&mut self, key: &Key) -> Result<usize, Error> {
        if let Some(place) = self.known.get(key) {
            return Ok(*place);
        }
        if self.path.contains(key) {
            return Err(Error::invalid(format!(
                "component version {}:{} references itself",
                key.0, key.1
            )));
        }
        if self.path.len() == DEPTH_LIMIT {
            return Err(Error::limit(format!(
                "more than {DEPTH_LIMIT} levels of references"
            )));
        }
        // Taken out, so that nobody who references it again while it is on the path finds it: that is a circle.
        let mut member = self.loaded.remove(key).ok_or_else(|| {
            Error::internal(format!(
                "component version {}:{} was not read",
                key.0, key.1
            ))
        })?;
        self.path.push(key.clone());
        for index in 0..member.version.descriptor.references().len() {
            self.reference(&member.version, &mut member.descriptor, index)?;
        }
        self.path.pop();
        self.members.push(member);
        self.known.insert(key.clone(), self.members.len() - 1);
        Ok(self.members.len() - 1)
    }

    fn reference(
        &mut self,
        parent: &ComponentVersion,
        descriptor: &mut ComponentDescriptor,
        index: usize,
    ) -> Result<(), Error> {
        let Some(reference) = parent.descriptor.references().nth(index) else {
            return Ok(());
        };
        let component = reference.component_name().unwrap_or_default().to_owned();
        let place = self.member(&(component, reference.version().to_owned()))?;
        let child = &self.members[place];
        let stated = Some(reference).filter(is_complete);
        match stated.and_then(|it| it.digest()) {
            Some(stated) => check_reference(&stated, child).map_err(|error| {
                error.context(format!(
                    "reference `{}` of {}:{}",
                    reference.name(),
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
}

/// Computes the digests that resources lack.
async fn resources(
    session: &Session,
    version: &ComponentVersion,
    descriptor: &mut ComponentDescriptor,
    hash: Algorithm,
) -> Result<(), Error> {
    for (index, resource) in version.descriptor.resources().enumerate() {
        if !has_content(&resource) || is_complete(&resource) {
            continue;
        }
        let digest = content::digest(session, version, &resource, hash)
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
