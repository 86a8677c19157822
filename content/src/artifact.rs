//! Several blobs under one root: an OCI image, an index, a Helm chart.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocm_specs::oci::Descriptor;

use crate::blob::{Access, Blob};
use crate::limits::Host;
use crate::store::{ContentStore, RawManifest};

/// What a port of a step carries.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a run has few of these, and each is matched often"
)]
pub enum Content {
    /// Bytes.
    Blob(Blob),
    /// A root manifest and its parts.
    Artifact(Artifact),
}

/// A root manifest and where its parts are.
#[derive(Clone, Debug)]
pub enum Artifact {
    /// The root is known and everything lies in one store.
    Stored(Stored),
    /// The root is *deferred*: some part is still being computed, and the manifest follows from it.
    Composed(Composed),
}

/// An artifact that lies in a store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The link to the root manifest.
    pub root: Descriptor,
    /// The store that has it and its parts.
    pub store: Arc<dyn ContentStore>,
    /// The tag or name it was asked for by, without digest.
    pub tag: Option<String>,
}

/// Which part of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The config blob.
    Config,
    /// The n-th layer, from zero.
    Layer(usize),
}

/// An image manifest of which some parts are replaced. Its own digest is known once those have been streamed.
///
/// Pushing it: config and layers first, then the manifest with the descriptors that came back (everything else in it as
/// it was), then the tag.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The manifest to start from.
    pub template: RawManifest,
    /// Where the parts that stay are.
    pub store: Arc<dyn ContentStore>,
    /// The parts that change.
    pub replaced: BTreeMap<Part, Blob>,
    /// Layers that go away (indexes of the template).
    pub dropped: Vec<usize>,
    /// The tag it is known by.
    pub tag: Option<String>,
}

impl Artifact {
    /// The link to the root, where it is known already.
    pub fn root(&self) -> Option<&Descriptor> {
        match self {
            Self::Stored(stored) => Some(&stored.root),
            Self::Composed(_) => None,
        }
    }

    /// The media type of the root.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Stored(stored) => &stored.root.media_type,
            Self::Composed(composed) => &composed.template.media_type,
        }
    }

    /// The tag or name it was asked for by.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Stored(stored) => stored.tag.as_deref(),
            Self::Composed(composed) => composed.tag.as_deref(),
        }
    }
}

impl Content {
    /// Media type of the bytes, or of the root manifest.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Blob(blob) => &blob.media_type,
            Self::Artifact(artifact) => artifact.media_type(),
        }
    }

    /// How often it may be read.
    pub fn access(&self) -> Access {
        match self {
            Self::Blob(blob) => blob.access(),
            Self::Artifact(Artifact::Stored(_)) => Access::Reopenable,
            Self::Artifact(Artifact::Composed(composed)) => {
                let once = composed
                    .replaced
                    .values()
                    .any(|blob| blob.access() == Access::Once);
                if once {
                    Access::Once
                } else {
                    Access::Reopenable
                }
            }
        }
    }

    /// Hosts that reading it talks to.
    pub fn hosts(&self) -> Vec<Host> {
        match self {
            Self::Blob(blob) => blob.hosts(),
            Self::Artifact(Artifact::Stored(stored)) => stored.store.host().into_iter().collect(),
            Self::Artifact(Artifact::Composed(composed)) => {
                let mut hosts: Vec<Host> = composed.store.host().into_iter().collect();
                hosts.extend(composed.replaced.values().flat_map(Blob::hosts));
                hosts.sort();
                hosts.dedup();
                hosts
            }
        }
    }

    /// Names the step it comes from; errors of its streams carry the name.
    #[must_use]
    pub fn with_origin(self, step: &Arc<str>) -> Self {
        match self {
            Self::Blob(blob) => Self::Blob(blob.with_origin(step.clone())),
            Self::Artifact(Artifact::Composed(mut composed)) => {
                composed.replaced = composed
                    .replaced
                    .into_iter()
                    .map(|(part, blob)| (part, blob.with_origin(step.clone())))
                    .collect();
                Self::Artifact(Artifact::Composed(composed))
            }
            stored @ Self::Artifact(Artifact::Stored(_)) => stored,
        }
    }
}

impl From<Blob> for Content {
    fn from(blob: Blob) -> Self {
        Self::Blob(blob)
    }
}

impl From<Artifact> for Content {
    fn from(artifact: Artifact) -> Self {
        Self::Artifact(artifact)
    }
}
