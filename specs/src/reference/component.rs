//! Component references: `[<type>::]<repository>/[component-descriptors]/<component>[:<version>][@<digest>]`
//! (formats.md 2.5).
//!
//! *Invariant*: the component's name is well formed, and so is the version unless the caller waived that.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::repository::{RepositoryReferenceError, is_windows_path, typed, untyped};
use crate::digest::{Digest, DigestError};
use crate::names::{is_component_name, is_version};
use crate::repository_spec::RepositorySpec;

/// The path segment that separates a repository from its component versions.
pub const COMPONENT_DESCRIPTORS: &str = "component-descriptors";

/// Longest text that is looked at, in bytes.
const LENGTH_LIMIT: usize = 8192;

/// A component version in a repository, by one text.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentReference {
    /// The repository.
    pub repository: RepositorySpec,
    /// Was `component-descriptors` written out?
    pub explicit_prefix: bool,
    /// The component's name.
    pub component: String,
    /// The version, where one is given.
    pub version: Option<String>,
    /// The digest of the root manifest, where one is given.
    pub digest: Option<Digest>,
}

/// Why a text names no component.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComponentReferenceError {
    /// Far longer than anything that could be meant.
    #[error("reference of {0} bytes is too long")]
    TooLong(usize),
    /// Nothing separates repository and component.
    #[error(
        "`{0}` names no component: expected <repository>//<component>[:<version>], or /component-descriptors/ in place of //"
    )]
    NoComponent(String),
    /// The component's name is not well formed.
    #[error("`{0}` is not a component name: expected <domain>/<path>, lower case")]
    Component(String),
    /// The version is not one.
    #[error("`{0}` is not a version: expected semver, minor and patch number optional")]
    Version(String),
    /// The digest is not one.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The repository is not one.
    #[error(transparent)]
    Repository(#[from] RepositoryReferenceError),
}

impl ComponentReference {
    /// Reads a reference; `any_version` lets versions pass that are not semver.
    ///
    /// # Errors
    /// The first part that is not well formed.
    pub fn parse(text: &str, any_version: bool) -> Result<Self, ComponentReferenceError> {
        if text.len() > LENGTH_LIMIT {
            return Err(ComponentReferenceError::TooLong(text.len()));
        }
        let (type_name, rest) = match text.split_once("::") {
            Some((type_name, rest)) => (Some(type_name), rest),
            None => (None, text),
        };
        let rest = if is_windows_path(rest) {
            rest.replace('\\', "/")
        } else {
            rest.to_owned()
        };
        let (rest, digest) = split_last(&rest, '@');
        let digest = digest.map(str::parse).transpose()?;
        let (rest, version) = split_last(rest, ':');
        if let Some(version) = version.filter(|version| !any_version && !is_version(version)) {
            return Err(ComponentReferenceError::Version(version.to_owned()));
        }
        let (place, component, explicit_prefix) = split_component(rest)
            .ok_or_else(|| ComponentReferenceError::NoComponent(text.to_owned()))?;
        if !is_component_name(component) {
            return Err(ComponentReferenceError::Component(component.to_owned()));
        }
        Ok(Self {
            repository: match type_name {
                Some(type_name) => typed(type_name, place)?,
                None => untyped(place)?,
            },
            explicit_prefix,
            component: component.to_owned(),
            version: version.map(str::to_owned),
            digest,
        })
    }
}

impl FromStr for ComponentReference {
    type Err = ComponentReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, false)
    }
}

impl fmt::Display for ComponentReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.repository.to_string();
        if untyped(&place).as_ref() != Ok(&self.repository) {
            write!(f, "{}::", self.repository.type_name())?;
        }
        let separator = if self.explicit_prefix {
            "/component-descriptors/"
        } else {
            "//"
        };
        write!(f, "{place}{separator}{}", self.component)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Splits at the last `mark`, unless a slash comes after it (then it belongs to a host's port or a path).
fn split_last(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.rsplit_once(mark) {
        Some((rest, part)) if !part.contains('/') => (rest, Some(part)),
        _ => (text, None),
    }
}

fn split_component(text: &str) -> Option<(&str, &str, bool)> {
    let (place, component, explicit_prefix) = match text.rsplit_once("/component-descriptors/") {
        Some((place, component)) => (place, component, true),
        None => {
            let (place, component) = text.rsplit_once("//")?;
            (place, component, false)
        }
    };
    // What stands before the slashes of `https://host/path` is a scheme, no repository.
    let is_scheme = place.trim_end_matches('/').ends_with(':') && !is_windows_path(place);
    (!is_scheme).then_some((place, component, explicit_prefix))
}
