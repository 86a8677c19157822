//! Resources, sources and references: views into a descriptor, and how one is found.

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{DigestSpec, list, object_or_empty, text};
use crate::access::{Access, AccessError};
use crate::identity::{Identity, NAME, VERSION};
use crate::json::field;

/// How many candidates an error lists.
const LISTED: usize = 10;

/// The three lists of a component version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementKind {
    /// What is delivered.
    Resource,
    /// What it was built from.
    Source,
    /// Other component versions.
    Reference,
}

impl ElementKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Source => "source",
            Self::Reference => "reference",
        }
    }
}

impl fmt::Display for ElementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A look at one resource, source or reference.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    kind: ElementKind,
    value: &'a Value,
    component_version: &'a str,
}

impl<'a> Element<'a> {
    /// A look at `value`. `component_version` is what an element without a version of its own counts as.
    pub fn new(kind: ElementKind, value: &'a Value, component_version: &'a str) -> Self {
        Self {
            kind,
            value,
            component_version,
        }
    }

    /// Which list it is from.
    pub fn kind(&self) -> ElementKind {
        self.kind
    }

    /// All of it.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        text(self.fields(), "name").unwrap_or_default()
    }

    /// Its version; the component's where it has none.
    pub fn version(&self) -> &'a str {
        text(self.fields(), "version")
            .filter(|version| !version.is_empty())
            .unwrap_or(self.component_version)
    }

    /// What kind of artifact it is (`helmChart`).
    pub fn type_name(&self) -> &'a str {
        text(self.fields(), "type").unwrap_or_default()
    }

    /// `local` or `external`, for resources.
    pub fn relation(&self) -> Option<&'a str> {
        text(self.fields(), "relation")
    }

    /// The component that a reference names.
    pub fn component_name(&self) -> Option<&'a str> {
        text(self.fields(), "componentName")
    }

    /// Attributes beyond name and version.
    pub fn extra_identity(&self) -> Identity {
        object_or_empty(field(self.fields(), "extraIdentity"))
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// The complete identity: name, version and the extra identity.
    pub fn identity(&self) -> Identity {
        self.extra_identity()
            .with(VERSION, self.version())
            .with(NAME, self.name())
    }

    /// Its labels.
    pub fn labels(&self) -> &'a [Value] {
        list(self.fields(), "labels")
    }

    /// Its digest, if it has one that says something.
    pub fn digest(&self) -> Option<DigestSpec> {
        field(self.fields(), "digest")
            .and_then(DigestSpec::from_value)
            .filter(|digest| !digest.is_empty())
    }

    /// Where its content is, as JSON.
    pub fn access_value(&self) -> Option<&'a Value> {
        field(self.fields(), "access").filter(|access| !access.is_null())
    }

    /// Where its content is.
    ///
    /// # Errors
    /// There is no access, or one that lacks a field.
    pub fn access(&self) -> Result<Access<'a>, AccessError> {
        Access::parse(self.access_value().unwrap_or(&Value::Null))
    }

    fn fields(&self) -> &'a Map<String, Value> {
        object_or_empty(Some(self.value))
    }
}

/// Why an identity does not select one element.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// Nothing matches.
    #[error("no {kind} `{wanted}`; {}", there_are(candidates))]
    NotFound {
        /// What was looked for.
        kind: ElementKind,
        /// By which identity.
        wanted: Identity,
        /// What there is: those of the same name, else all; the first few.
        candidates: Vec<Identity>,
    },
    /// More than one matches.
    #[error(
        "found {count} candidates for {kind} `{wanted}`, expected exactly one: {}",
        joined(candidates)
    )]
    Ambiguous {
        /// What was looked for.
        kind: ElementKind,
        /// By which identity.
        wanted: Identity,
        /// How many match.
        count: usize,
        /// Those that match; the first few.
        candidates: Vec<Identity>,
    },
}

fn joined(identities: &[Identity]) -> String {
    identities
        .iter()
        .map(|identity| format!("`{identity}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn there_are(identities: &[Identity]) -> String {
    if identities.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are {}", joined(identities))
    }
}

/// The one element that `wanted` selects, with its place in the list. An element whose complete identity is `wanted` wins
/// over those that have more attributes: it could not be named otherwise.
pub(super) fn select<'a>(
    kind: ElementKind,
    elements: impl Iterator<Item = Element<'a>>,
    wanted: &Identity,
) -> Result<(usize, Element<'a>), LookupError> {
    let all: Vec<_> = elements
        .enumerate()
        .map(|(index, element)| (index, element, element.identity()))
        .collect();
    let mut matching: Vec<_> = all
        .iter()
        .filter(|(_, _, identity)| wanted.selects(identity))
        .collect();
    if matching.len() > 1 {
        let exact: Vec<_> = matching
            .iter()
            .copied()
            .filter(|(_, _, identity)| identity == wanted)
            .collect();
        if exact.len() == 1 {
            matching = exact;
        }
    }
    match matching.as_slice() {
        [(index, element, _)] => Ok((*index, *element)),
        [] => Err(LookupError::NotFound {
            kind,
            wanted: wanted.clone(),
            candidates: alternatives(&all, wanted),
        }),
        several => Err(LookupError::Ambiguous {
            kind,
            wanted: wanted.clone(),
            count: several.len(),
            candidates: several
                .iter()
                .take(LISTED)
                .map(|(_, _, identity)| identity.clone())
                .collect(),
        }),
    }
}

fn alternatives(all: &[(usize, Element<'_>, Identity)], wanted: &Identity) -> Vec<Identity> {
    let same_name = |identity: &Identity| identity.name() == wanted.name();
    let any_of_that_name = all.iter().any(|(_, _, identity)| same_name(identity));
    all.iter()
        .filter(|(_, _, identity)| !any_of_that_name || same_name(identity))
        .take(LISTED)
        .map(|(_, _, identity)| identity.clone())
        .collect()
}
