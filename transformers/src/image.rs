//! An image manifest as the conversions see it: one manifest, its parts, wherever each of them comes from.
//!
//! Invariant: looking at an image reads its manifest and nothing else.

use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use ocm_content::{
    Artifact, Blob, Composed, Content, ContentStore, Error, Part, RawManifest, Stored, open_archive,
};
use ocm_engine::{ContentRef, StepContext, StepError};
use ocm_specs::media_type;
use ocm_specs::oci::{Descriptor, Manifest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Indexes within indexes that are followed on the way to the one manifest.
const INDEX_DEPTH: usize = 4;
/// Most layers or manifests that are listed in a message.
const LISTED: usize = 8;
/// Archives that do not say what they hold.
const GENERIC_ARCHIVES: [&str; 7] = [
    "application/x-tar",
    "application/tar",
    "application/gzip",
    "application/x-gzip",
    "application/x-tar+gzip",
    "application/x-tgz",
    media_type::OCTET_STREAM,
];
/// The config of a Docker image.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Which layer of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerSelector {
    /// Its media type; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its number from zero, among those with that media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// One image manifest with its parts.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The artifact as it can be handed on.
    pub(crate) artifact: Artifact,
    /// The same as template and replacements.
    pub(crate) composed: Composed,
    /// The look inside the template.
    pub(crate) manifest: Manifest,
}

/// The artifact behind an input.
///
/// # Errors
/// Plain bytes are no artifact; archives of artifacts are opened where their media type says so, and must hold the one
/// that their descriptor states.
pub(crate) async fn artifact(
    cx: &StepContext,
    reference: &ContentRef,
    field: &str,
) -> Result<Artifact, StepError> {
    let blob = match cx.content(reference).await? {
        Content::Artifact(artifact) => return Ok(artifact),
        Content::Blob(blob) => blob,
    };
    open(cx, blob)
        .await
        .map_err(|error| StepError::at(field, error))
}

/// The artifact inside an archive blob: an OCI layout or an artifact set.
async fn open(cx: &StepContext, blob: Blob) -> Result<Artifact, Error> {
    let media_type = &blob.media_type;
    let generic = GENERIC_ARCHIVES.contains(&media_type.as_str());
    if !generic && !media_type::is_artifact_archive(media_type) {
        return Err(Error::invalid(format!(
            "content of media type `{media_type}` is neither an OCI artifact nor an archive of one"
        )));
    }
    open_archive(&blob, cx.limits()).await
}

impl Image {
    /// Looks into an artifact that is one manifest, or an index of exactly one.
    pub(crate) async fn open(artifact: Artifact) -> Result<Self, Error> {
        let composed = match &artifact {
            Artifact::Composed(composed) => composed.clone(),
            Artifact::Stored(stored) => {
                let (root, template) = single(stored).await?;
                let composed = as_template(stored, template);
                let stored = Stored {
                    root,
                    ..stored.clone()
                };
                return Self::new(Artifact::Stored(stored), composed);
            }
        };
        Self::new(artifact, composed)
    }

    fn new(artifact: Artifact, composed: Composed) -> Result<Self, Error> {
        let manifest = composed.template.parse()?;
        if manifest.config.is_none() && manifest.layers.is_none() {
            return Err(Error::invalid(format!(
                "{} is no image manifest: it has neither config nor layers",
                composed.template.digest
            )));
        }
        Ok(Self {
            artifact,
            composed,
            manifest,
        })
    }

    /// The layers that are still there, with their numbers in the template.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        self.manifest
            .layers
            .iter()
            .flatten()
            .enumerate()
            .filter(|(at, _)| !self.composed.dropped.contains(at))
    }

    /// A handle to a part.
    pub(crate) fn part(&self, part: Part, descriptor: &Descriptor) -> Blob {
        match self.composed.replaced.get(&part) {
            Some(blob) => blob.clone(),
            None => self.composed.store.fetch(descriptor),
        }
    }

    /// The one layer with the content: the selected one; a chart's content; the only one there is.
    pub(crate) fn content_layer(
        &self,
        selector: Option<&LayerSelector>,
    ) -> Result<(usize, &Descriptor), Error> {
        let chosen: Vec<(usize, &Descriptor)> = match selector {
            Some(selector) => self.select(selector)?,
            None => self.default_layers(),
        };
        match chosen.as_slice() {
            [only] => Ok(*only),
            [] => Err(Error::not_found("no layer matches")
                .with_hint(format!("the manifest has {}", describe(self.layers())))),
            several => Err(
                Error::invalid(format!("{} layers match", several.len())).with_hint(format!(
                    "choose one with `layer: {{mediaType, index}}`: {}",
                    describe(several.iter().copied())
                )),
            ),
        }
    }

    fn select(&self, selector: &LayerSelector) -> Result<Vec<(usize, &Descriptor)>, Error> {
        let glob = selector.media_type.as_deref().map(glob).transpose()?;
        let matching = self.layers().filter(|(_, layer)| {
            glob.as_ref()
                .is_none_or(|glob| glob.is_match(&layer.media_type))
        });
        Ok(match selector.index {
            Some(index) => matching.skip(index).take(1).collect(),
            None => matching.collect(),
        })
    }

    fn default_layers(&self) -> Vec<(usize, &Descriptor)> {
        let charts: Vec<_> = self
            .layers()
            .filter(|(_, layer)| {
                self.is_chart() && layer.media_type == media_type::HELM_CHART_LAYER
            })
            .collect();
        if charts.is_empty() {
            self.layers().collect()
        } else {
            charts
        }
    }

    /// Is it a Helm chart?
    pub(crate) fn is_chart(&self) -> bool {
        self.config_type() == Some(media_type::HELM_CONFIG)
    }

    /// Is it an image to be run, whose config lists the digests of its layers?
    pub(crate) fn is_runnable(&self) -> bool {
        is_runnable(&self.manifest)
    }

    fn config_type(&self) -> Option<&str> {
        Some(self.manifest.config.as_ref()?.media_type.as_str())
    }
}

/// A stored artifact with nothing replaced yet.
fn as_template(stored: &Stored, template: RawManifest) -> Composed {
    Composed {
        template,
        store: Arc::clone(&stored.store) as Arc<dyn ContentStore>,
        replaced: Default::default(),
        dropped: Vec::new(),
        tag: stored.tag.clone(),
    }
}

/// The one manifest at or below the root.
async fn single(stored: &Stored) -> Result<(Descriptor, RawManifest), Error> {
    let mut link = stored.root.clone();
    for _ in 0..INDEX_DEPTH {
        let raw = stored.store.manifest(&link.digest.to_string()).await?;
        if !media_type::is_index(&link.media_type) {
            return Ok((link, raw));
        }
        let children: Vec<Descriptor> = raw.parse()?.manifests.unwrap_or_default();
        match <[Descriptor; 1]>::try_from(children) {
            Ok([only]) => link = only,
            Err(children) => {
                return Err(Error::invalid(format!(
                    "{} is an index of {} manifests, this takes a single one",
                    link.digest,
                    children.len()
                )));
            }
        }
    }
    Err(Error::limit(format!(
        "{} nests indexes more than {INDEX_DEPTH} levels deep",
        stored.root.digest
    )))
}

/// Is it an image to be run, whose config lists the digests of its layers?
pub(crate) fn is_runnable(manifest: &Manifest) -> bool {
    matches!(
        manifest
            .config
            .as_ref()
            .map(|config| config.media_type.as_str()),
        Some(media_type::OCI_CONFIG | DOCKER_CONFIG)
    )
}

/// A pattern over media types and annotation values: `*` matches any characters.
pub(crate) fn glob(pattern: &str) -> Result<GlobMatcher, Error> {
    Glob::new(pattern)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| Error::invalid(format!("`{pattern}` is no pattern: {}", error.kind())))
}

/// Layers as people read them, a bounded number of them.
fn describe<'a>(layers: impl Iterator<Item = (usize, &'a Descriptor)>) -> String {
    let all: Vec<String> = layers
        .map(|(at, layer)| format!("{at}: `{}`", layer.media_type))
        .collect();
    match all.len() {
        0 => "no layers".to_owned(),
        count if count > LISTED => {
            format!("{} and {} more", all[..LISTED].join(", "), count - LISTED)
        }
        _ => all.join(", "),
    }
}
