//! Of an image for several platforms, some: a smaller index over the same images.
//!
//! *Invariant*: the images themselves are what they were. The index is another one, with another digest, so what was signed
//! over it no longer holds: who uploads a component version with it is told.

use ocm_content::{Artifact, Content, Error, RawManifest, Stored};
use ocm_engine::{ContentRef, Effect, Outcome, StepContext, StepError, Transformer};
use ocm_specs::media_type::{OCI_LAYOUT_TAR, is_index};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::platform;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::fields::ResourceField;
use crate::image;
use crate::overlay::Overlay;

/// `filter.platforms.oci`: leaves the wanted platforms of an image index.
pub struct FilterPlatforms;

/// Inputs of [`FilterPlatforms`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterSpec {
    /// The artifact. One that is no index passes as it is.
    file: ContentRef,
    /// The resource, which is handed on.
    #[serde(default)]
    resource: Option<ResourceField>,
    /// What is left, as `os/architecture` or `os/architecture/variant`.
    platforms: Vec<String>,
}

/// Outputs of [`FilterPlatforms`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct FilterOutput {
    /// The artifact with these platforms.
    #[schemars(extend("x-ocm-media-types" = [OCI_LAYOUT_TAR]))]
    file: ContentRef,
    /// The resource as it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceField>,
}

impl Transformer for FilterPlatforms {
    const TYPE: &'static str = "filter.platforms.oci/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Leaves some platforms of an image index.";
    const EXAMPLE: &'static str = "- {id: filter1, type: filter.platforms.oci/v1alpha1, spec: {file: '${get1.output.file}', resource: '${get1.output.resource}', platforms: [linux/amd64]}}";
    type Spec = FilterSpec;
    type Output = FilterOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: FilterSpec,
    ) -> Result<Outcome<FilterOutput>, StepError> {
        let at = |error: Error| StepError::at("platforms", error);
        if spec.platforms.is_empty() {
            return Err(at(Error::invalid(
                "names no platform, so nothing would be left",
            )));
        }
        for platform in &spec.platforms {
            check_platform(platform).map_err(at)?;
        }
        let lineage = spec.file.lineage.clone();
        let artifact = image::artifact(&cx, &spec.file, "file").await?;
        let artifact = filter(artifact, &spec.platforms).await.map_err(at)?;
        let file = cx
            .offer("file", Content::Artifact(artifact))
            .with_lineage(lineage);
        Ok(Outcome::new(FilterOutput {
            file,
            resource: spec.resource,
        }))
    }
}

/// Is a platform written as platforms are?
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] when it is not.
pub fn check_platform(platform: &str) -> Result<(), Error> {
    platform::check(platform).map_err(|message| Error::invalid(message).with_hint(platform::HINT))
}

/// The artifact with these platforms of its index; one that is no index stays as it is.
///
/// # Errors
/// [`ocm_content::ErrorKind::NotFound`] when it has none of them, besides what reading the index gives.
pub(crate) async fn filter(artifact: Artifact, wanted: &[String]) -> Result<Artifact, Error> {
    let Artifact::Stored(stored) = artifact else {
        return Ok(artifact);
    };
    if !is_index(&stored.root.media_type) {
        return Ok(Artifact::Stored(stored));
    }
    let root = stored
        .store
        .manifest(&stored.root.digest.to_string())
        .await?;
    let index = root.parse()?;
    let children: Vec<Descriptor> = index.children().cloned().collect();
    let kept: Vec<Descriptor> = children
        .iter()
        .filter(|child| is_wanted(child, wanted))
        .cloned()
        .collect();
    if kept.is_empty() {
        let there: Vec<String> = children.iter().filter_map(platform_of).collect();
        return Err(
            Error::not_found(format!("the image has none of {}", wanted.join(", ")))
                .with_hint(format!("it has {}", there.join(", "))),
        );
    }
    if kept.len() == children.len() {
        return Ok(Artifact::Stored(stored));
    }
    let smaller = Manifest {
        manifests: Some(kept),
        ..index
    };
    let smaller = RawManifest::write(&smaller);
    Ok(Artifact::Stored(Stored {
        root: smaller.descriptor(),
        store: Overlay::new(stored.store.clone(), [smaller]),
        tag: stored.tag,
    }))
}

/// What has no platform (an attestation) goes with nothing that was left out, and stays away.
fn is_wanted(child: &Descriptor, wanted: &[String]) -> bool {
    platform_of(child).is_some_and(|found| {
        wanted
            .iter()
            .any(|it| found == *it || found.starts_with(&format!("{it}/")))
    })
}

fn platform_of(child: &Descriptor) -> Option<String> {
    let platform = child.platform.as_ref()?;
    let part = |name: &str| {
        platform
            .get(name)
            .and_then(Json::as_str)
            .filter(|it| !it.is_empty())
    };
    let mut text = format!("{}/{}", part("os")?, part("architecture")?);
    if let Some(variant) = part("variant") {
        text.push_str(&format!("/{variant}"));
    }
    Some(text)
}
