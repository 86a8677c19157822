//! Between OCI artifacts and the files inside of them.
//!
//! `oci.to.tar` takes one layer out, `tar.to.oci` puts it back. What they share travels with the `manifest` port: its
//! content *is the artifact itself* (manifest and the store it lies in), so that the way back finds all other layers without
//! a side table. Its reference carries the manifest's media type and digest.
//!
//! Invariant: no layer is read here. The root of what is put together again is deferred until a target has pulled the layer.

use std::sync::Arc;

use ocm_content::{ArchiveForm, Artifact, Blob, Content, Error, Part, Referrers, write_archive};
use ocm_engine::{ContentRef, Effect, Outcome, StepContext, StepError, Transformer};
use ocm_specs::media_type::{self, OCI_LAYOUT_TAR};
use ocm_specs::oci::Descriptor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::image::LayerSelector;
use crate::image::{Image, artifact};
use crate::pipe::Compressed;

/// The layer with an artifact's content: a chart's, or the only one there is; and whether it is a chart's.
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] where there are several, or several manifests, besides what reading gives.
pub async fn content_layer(artifact: Artifact) -> Result<(Blob, bool), Error> {
    let image = Image::open(artifact).await?;
    let (at, layer) = image.content_layer(None)?;
    Ok((image.part(Part::Layer(at), layer), image.is_chart()))
}

/// `oci.to.tar`: takes the content layer out of an artifact (transformation.md R10).
#[derive(Clone, Copy, Debug, Default)]
pub struct OciToTar;

/// Inputs of [`OciToTar`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciToTarSpec {
    /// An artifact with one manifest, or an archive of one.
    pub data: ContentRef,
    /// Which layer; by default a chart's content, or the only layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerSelector>,
}

/// Outputs of [`OciToTar`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciToTarOutput {
    /// The layer's bytes as they are, compressed or not.
    pub data: ContentRef,
    /// The artifact that the layer came from, by its manifest.
    pub manifest: ContentRef,
    /// The config.
    pub config_layer: ContentRef,
    /// The tag the artifact was asked for by; empty without one.
    #[serde(rename = "ref")]
    pub reference: String,
}

impl Transformer for OciToTar {
    const TYPE: &'static str = "oci.to.tar.transformer/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Takes the content layer out of an OCI artifact.";
    const EXAMPLE: &'static str = "\
- id: ocitotar1
  type: oci.to.tar.transformer/v1alpha1
  spec:
    data: ${download1.output.data}
";

    type Spec = OciToTarSpec;
    type Output = OciToTarOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: OciToTarSpec,
    ) -> Result<Outcome<OciToTarOutput>, StepError> {
        let image = Image::open(artifact(&cx, &spec.data, "data").await?)
            .await
            .map_err(|error| StepError::at("data", error))?;
        let (at, layer) = image
            .content_layer(spec.layer.as_ref())
            .map_err(|error| StepError::at("layer", error))?;
        let data = image.part(Part::Layer(at), layer);
        let config = config(&image)?;
        let config_layer = image.part(Part::Config, config);
        let lineage = spec.data.lineage;
        Ok(Outcome::new(OciToTarOutput {
            data: cx.offer("data", data).with_lineage(lineage.clone()),
            config_layer: cx.offer("configLayer", config_layer),
            reference: image.artifact.tag().unwrap_or_default().to_owned(),
            manifest: cx.offer("manifest", image.artifact).with_lineage(lineage),
        }))
    }
}

/// `tar.to.oci`: the inverse of [`OciToTar`] (transformation.md R10).
#[derive(Clone, Copy, Debug, Default)]
pub struct TarToOci;

/// Inputs of [`TarToOci`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TarToOciSpec {
    /// The artifact to start from, as `oci.to.tar` gives it.
    pub manifest: ContentRef,
    /// The tag; by default the one of the artifact to start from.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The config; by default the one of the artifact to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_layer: Option<ContentRef>,
    /// The new bytes of the layer. They are compressed where the layer's media type says so and they are not.
    pub data: ContentRef,
    /// Which layer; by default a chart's content, or the only layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerSelector>,
}

/// Outputs of the conversions to an artifact.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataOutput {
    /// The artifact.
    #[schemars(extend("x-ocm-media-types" = [OCI_LAYOUT_TAR]))]
    pub data: ContentRef,
}

impl Transformer for TarToOci {
    const TYPE: &'static str = "tar.to.oci.transformer/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Puts a changed content layer back into its OCI artifact.";
    const EXAMPLE: &'static str = "\
- id: tartooci1
  type: tar.to.oci.transformer/v1alpha1
  spec:
    manifest: ${ocitotar1.output.manifest}
    ref: ${ocitotar1.output.ref}
    configLayer: ${ocitotar1.output.configLayer}
    data: ${localization1.output.data}
";

    type Spec = TarToOciSpec;
    type Output = DataOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: TarToOciSpec,
    ) -> Result<Outcome<DataOutput>, StepError> {
        let lineage = spec.data.lineage.clone().or(spec.manifest.lineage.clone());
        let artifact = compose(&cx, spec).await?;
        Ok(Outcome::new(DataOutput {
            data: cx.offer("data", artifact).with_lineage(lineage),
        }))
    }
}

async fn compose(cx: &StepContext, spec: TarToOciSpec) -> Result<Artifact, StepError> {
    let image = Image::open(artifact(cx, &spec.manifest, "manifest").await?)
        .await
        .map_err(|error| StepError::at("manifest", error))?;
    let (at, layer) = image
        .content_layer(spec.layer.as_ref())
        .map_err(|error| StepError::at("layer", error))?;
    let mut composed = image.composed.clone();
    let mut changed = false;

    let data = blob(cx, &spec.data, "data").await?;
    if !same(&data, &image.part(Part::Layer(at), layer), layer) {
        let blob = as_layer(cx, data, &layer.media_type);
        composed.replaced.insert(Part::Layer(at), blob);
        composed.dropped.extend(stale_provenance(cx, &image));
        changed = true;
    }
    if let Some(reference) = &spec.config_layer {
        let new = blob(cx, reference, "configLayer").await?;
        let old = config(&image)?;
        if !same(&new, &image.part(Part::Config, old), old) {
            let blob = retyped(new, &old.media_type);
            composed.replaced.insert(Part::Config, blob);
            changed = true;
        }
    }
    let replaced = |part| composed.replaced.contains_key(&part);
    if image.is_runnable() && replaced(Part::Layer(at)) && !replaced(Part::Config) {
        cx.warn("the image's config still lists the digest of the layer that was replaced: pass a changed `configLayer`");
    }

    let tag = spec.reference.filter(|tag| !tag.is_empty());
    let tag = tag.or_else(|| image.artifact.tag().map(str::to_owned));
    Ok(match (changed, image.artifact) {
        (false, Artifact::Stored(mut stored)) => {
            stored.tag = tag;
            Artifact::Stored(stored)
        }
        _ => {
            composed.tag = tag;
            Artifact::Composed(composed)
        }
    })
}

/// Are these for sure the bytes that are there already?
fn same(new: &Blob, old: &Blob, link: &Descriptor) -> bool {
    let known = old.digest.as_ref().unwrap_or(&link.digest);
    let replaced_by_unknown = old.digest.is_none();
    !replaced_by_unknown && new.digest.as_ref() == Some(known)
}

/// The bytes as the layer's media type promises them.
fn as_layer(cx: &StepContext, data: Blob, media_type: &str) -> Blob {
    if !media_type::is_gzip(media_type) {
        return retyped(data, media_type);
    }
    let limits = cx.limits().clone();
    Blob::new(
        media_type,
        Arc::new(Compressed {
            inner: data,
            limits,
        }),
    )
}

fn retyped(mut blob: Blob, media_type: &str) -> Blob {
    media_type.clone_into(&mut blob.media_type);
    blob
}

/// Provenance layers of a chart: they sign the bytes that are being replaced.
fn stale_provenance(cx: &StepContext, image: &Image) -> Vec<usize> {
    let stale: Vec<usize> = image
        .layers()
        .filter(|(_, layer)| layer.media_type == media_type::HELM_PROVENANCE_LAYER)
        .map(|(at, _)| at)
        .collect();
    if !stale.is_empty() {
        cx.warn("the chart's provenance file is left out: it signs the chart as it was before the change");
    }
    stale
}

async fn blob(cx: &StepContext, reference: &ContentRef, field: &str) -> Result<Blob, StepError> {
    match cx.content(reference).await? {
        Content::Blob(blob) => Ok(blob),
        Content::Artifact(_) => {
            let error = Error::invalid("this is a whole OCI artifact, a single blob is needed")
                .with_hint("take its layer out with `oci.to.tar.transformer/v1alpha1`");
            Err(StepError::at(field, error))
        }
    }
}

fn config(image: &Image) -> Result<&Descriptor, StepError> {
    image
        .manifest
        .config
        .as_ref()
        .ok_or_else(|| StepError::at("manifest", Error::invalid("the manifest has no config")))
}

/// `localblob.to.oci`: makes an artifact out of an archive of one (formats.md 3.5).
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalBlobToOci;

/// Inputs of [`LocalBlobToOci`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalBlobToOciSpec {
    /// An artifact, an OCI layout or an artifact set.
    pub data: ContentRef,
}

impl Transformer for LocalBlobToOci {
    const TYPE: &'static str = "localblob.to.oci/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Opens an OCI layout or artifact set as an OCI artifact.";
    const EXAMPLE: &'static str = "\
- id: localblobtooci1
  type: localblob.to.oci/v1alpha1
  spec:
    data: ${download1.output.data}
";

    type Spec = LocalBlobToOciSpec;
    type Output = DataOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: LocalBlobToOciSpec,
    ) -> Result<Outcome<DataOutput>, StepError> {
        let artifact = artifact(&cx, &spec.data, "data").await?;
        Ok(Outcome::new(DataOutput {
            data: cx.offer("data", artifact).with_lineage(spec.data.lineage),
        }))
    }
}

/// `oci.to.localblob`: the inverse of [`LocalBlobToOci`], for readers that know archives of artifacts only.
#[derive(Clone, Copy, Debug, Default)]
pub struct OciToLocalBlob;

/// Inputs of [`OciToLocalBlob`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciToLocalBlobSpec {
    /// An artifact, or an archive of one.
    pub data: ContentRef,
    /// How it lies in the archive; by default as the Go CLI v1 writes artifact sets.
    #[serde(default)]
    pub form: Form,
}

/// Outputs of [`OciToLocalBlob`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PackedOutput {
    /// The archive.
    pub data: ContentRef,
}

/// How an artifact lies in an archive.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// An artifact set as the Go CLI v1 writes it.
    #[default]
    ArtifactSet,
    /// An artifact set in its own form.
    OcmArtifactSet,
    /// An artifact set that is an OCI image layout, too.
    OciArtifactSet,
    /// An OCI image layout. Stored beside a descriptor it becomes the artifact again.
    Layout,
}

impl From<Form> for ArchiveForm {
    fn from(form: Form) -> Self {
        match form {
            Form::ArtifactSet => Self::LegacySet,
            Form::OcmArtifactSet => Self::OcmSet,
            Form::OciArtifactSet => Self::OciSet,
            Form::Layout => Self::Layout,
        }
    }
}

impl Transformer for OciToLocalBlob {
    const TYPE: &'static str = "oci.to.localblob/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str =
        "Packs an OCI artifact, with what refers to it, into an artifact set or an OCI layout.";
    const EXAMPLE: &'static str = "\
- id: ocitolocalblob1
  type: oci.to.localblob/v1alpha1
  spec:
    data: ${download1.output.data}
    form: artifactSet
";

    type Spec = OciToLocalBlobSpec;
    type Output = PackedOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: OciToLocalBlobSpec,
    ) -> Result<Outcome<PackedOutput>, StepError> {
        let artifact = artifact(&cx, &spec.data, "data").await?;
        let (form, tag) = (spec.form.into(), artifact.tag().map(str::to_owned));
        let limits = cx.limits();
        let packed = write_archive(&artifact, form, tag.as_deref(), Referrers::All, limits);
        let packed = packed.await?;
        Ok(Outcome::new(PackedOutput {
            data: cx.offer("data", packed).with_lineage(spec.data.lineage),
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ocm_content::Stored;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::testing::{
        bytes, chart, content, layers, put, put_manifest, run, store, surroundings,
    };
    use ocm_specs::oci::Manifest;

    /// Takes an artifact apart; gives the surroundings and the outputs.
    async fn apart(stored: Stored, spec: Json) -> (StepContext, Result<Json, StepError>) {
        let cx = surroundings("apart");
        let lineage = ocm_engine::Lineage {
            component: "acme.org/x".to_owned(),
            version: "1".to_owned(),
            resource: Some(json!({"name": "mychart"})),
        };
        let data = cx.sibling("source").offer("data", Artifact::Stored(stored));
        let mut spec = spec;
        spec["data"] = json!(data.with_lineage(Some(lineage)));
        let output = run(&cx, OciToTar::TYPE, spec).await;
        (cx, output)
    }

    #[tokio::test]
    async fn a_chart_comes_apart_without_reading_a_layer() {
        let stored = chart(Bytes::from_static(b"content")).await;
        let (cx, output) = apart(stored.clone(), json!({})).await;
        let output = output.expect("apart");
        assert_eq!(bytes(&cx, &output["data"]).await, "content");
        assert_eq!(bytes(&cx, &output["configLayer"]).await, r#"{"name":"c"}"#);
        assert_eq!(output["ref"], "1.0.0");
        assert_eq!(output["manifest"]["digest"], stored.root.digest.to_string());
        for port in ["data", "manifest"] {
            assert_eq!(output[port]["lineage"]["resource"]["name"], "mychart");
        }
    }

    #[tokio::test]
    async fn the_content_layer_is_chosen_or_asked_for() {
        let layer = |kind: &'static str| (kind, Bytes::from_static(kind.as_bytes()));
        let store = store();
        let config = ("application/x", "{}");
        let two = put(
            &store,
            config,
            &[layer("a/one"), layer("a/two"), layer("b/one")],
        )
        .await;
        let index = |children| put_manifest(&store, Manifest::index(children));
        let one = index(vec![two.root.clone()]).await;
        let several = index(vec![two.root.clone(), two.root.clone()]).await;
        for (artifact, layer, expected) in [
            (&two, json!({"index": 1}), Ok("a/two")),
            (&one, json!({"index": 1}), Ok("a/two")),
            (&two, json!({"mediaType": "b/one"}), Ok("b/one")),
            (&two, json!({"mediaType": "a/*", "index": 0}), Ok("a/one")),
            (&two, json!({"mediaType": "a/*"}), Err("2 layers match")),
            (&two, json!({"index": 3}), Err("no layer matches")),
            (&two, json!(null), Err("3 layers match")),
            (&several, json!(null), Err("an index of 2 manifests")),
        ] {
            let (cx, output) = apart(artifact.clone(), json!({"layer": layer})).await;
            match (output, expected) {
                (Ok(output), Ok(text)) => assert_eq!(bytes(&cx, &output["data"]).await, text),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (output, expected) => panic!("{layer}: {output:?}, expected {expected:?}"),
            }
        }
    }

    /// Takes a chart apart and puts it together with `data` (or its own).
    async fn there_and_back(data: Option<Blob>) -> (StepContext, Stored, Json, Content) {
        let stored = chart(Bytes::from_static(b"\x1f\x8bcontent")).await;
        let (cx, output) = apart(stored.clone(), json!({})).await;
        let mut spec = output.expect("apart");
        if let Some(blob) = data {
            spec["data"] = json!(cx.sibling("other").offer("data", blob));
        }
        let back = cx.sibling("back");
        let output = run(&back, TarToOci::TYPE, spec).await.expect("together");
        let artifact = content(&back, &output["data"]).await;
        (back, stored, output, artifact)
    }

    #[tokio::test]
    async fn unchanged_bytes_give_the_same_artifact() {
        let (_, stored, output, _) = there_and_back(None).await;
        assert_eq!(output["data"]["digest"], stored.root.digest.to_string());
        assert_eq!(output["data"]["lineage"]["resource"]["name"], "mychart");
    }

    #[tokio::test]
    async fn changed_bytes_give_a_deferred_artifact_without_stale_provenance() {
        for (new, compressed) in [(&b"\x1f\x8bother"[..], false), (b"plain", true)] {
            let blob = Blob::from_bytes("application/x-tar", Bytes::from_static(new));
            let (_, _, output, artifact) = there_and_back(Some(blob)).await;
            assert_eq!(output["data"].get("digest"), None);
            let Content::Artifact(Artifact::Composed(composed)) = artifact else {
                panic!("a deferred artifact");
            };
            assert_eq!(composed.dropped, [0], "the provenance layer");
            assert_eq!(composed.tag.as_deref(), Some("1.0.0"));
            let parts: Vec<_> = composed.replaced.keys().copied().collect();
            assert_eq!(parts, [Part::Layer(1)]);
            let layer = &composed.replaced[&Part::Layer(1)];
            assert_eq!(layer.media_type, media_type::HELM_CHART_LAYER);
            let bytes = layer.read(1 << 20).await.expect("reads");
            assert_eq!(bytes[..2], [0x1f, 0x8b]);
            assert_eq!(bytes != new, compressed);
            let again = Artifact::Composed(composed);
            assert_eq!(layers(&again).await.len(), 2, "the template is untouched");
        }
    }

    #[tokio::test]
    async fn a_composed_artifact_comes_apart_again() {
        let blob = Blob::from_bytes("application/x-tar", Bytes::from_static(b"\x1f\x8bother"));
        let (cx, _, output, _) = there_and_back(Some(blob)).await;
        let cx = cx.sibling("again");
        let output = run(&cx, OciToTar::TYPE, json!({"data": output["data"]})).await;
        let mut output = output.expect("apart");
        assert_eq!(bytes(&cx, &output["data"]).await, &b"\x1f\x8bother"[..]);
        output["data"] = json!(
            cx.sibling("third")
                .offer("data", Blob::from_bytes("x/y", "third"))
        );
        let artifact = run(&cx, TarToOci::TYPE, output).await.expect("together");
        let Content::Artifact(Artifact::Composed(composed)) = content(&cx, &artifact["data"]).await
        else {
            panic!("a deferred artifact");
        };
        assert_eq!(composed.dropped, [0]);
    }

    #[tokio::test]
    async fn what_is_no_artifact_is_refused() {
        let cx = surroundings("x");
        let data = cx.offer("in", Blob::from_bytes("text/plain", "x"));
        for step_type in [OciToTar::TYPE, LocalBlobToOci::TYPE] {
            let error = run(&cx, step_type, json!({"data": data}))
                .await
                .expect_err("refused");
            assert!(
                error.to_string().contains("`text/plain` is neither"),
                "{error}"
            );
            assert_eq!(error.field.as_deref(), Some("data"));
        }
    }
}
