//! Helm charts: `GetHelmChart` reads them from chart repositories, `ConvertHelmToOCI` makes OCI artifacts of them.
//!
//! Invariant: the archive and the provenance file travel as the bytes that the repository has. What is made here, config and
//! manifest, depends on the archive alone, so that one chart is one artifact.

use std::sync::Arc;

use ocm_content::{Artifact, Blob, Content, Error, Limits, RawManifest, assemble, spool};
use ocm_engine::{ContentRef, Effect, Lineage, Outcome, StepContext, StepError, Transformer};
use ocm_repository::{ChartMetadata, Session};
use ocm_specs::Digest;
use ocm_specs::access::remote::Remote;
use ocm_specs::descriptor::{DigestSpec, Element, ElementKind, updated_digest};
use ocm_specs::json::spelling;
use ocm_specs::media_type::{HELM_CHART_LAYER, HELM_CONFIG, HELM_PROVENANCE_LAYER, OCI_LAYOUT_TAR};
use ocm_specs::oci::Manifest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::fields::{OutputPath, ResourceField};

/// A chart up to this size is read once and kept in memory: 1 MiB.
const KEPT: u64 = 1 << 20;

/// `GetHelmChart`: handles to a chart archive and its provenance file.
pub struct GetHelmChart;

/// Inputs of [`GetHelmChart`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetSpec {
    /// A resource with a Helm access.
    resource: ResourceField,
    /// Has no effect: bytes stream.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for the sake of specs that name it")]
    output_path: OutputPath,
}

/// Outputs of [`GetHelmChart`].
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GetOutput {
    /// The archive.
    chart_file: ContentRef,
    /// The provenance file, where the repository has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    prov_file: Option<ContentRef>,
    /// The resource; its access names the version that was found.
    resource: ResourceField,
}

impl Transformer for GetHelmChart {
    const TYPE: &'static str = "GetHelmChart/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads a chart from a Helm repository.";
    const EXAMPLE: &'static str = "- {id: get1, type: GetHelmChart/v1alpha1, spec: {resource: {name: chart, version: 6.7.1, type: helmChart, relation: external, access: {type: helm, helmRepository: 'https://charts.example.org', helmChart: 'mychart:6.7.1'}}}}";
    type Spec = GetSpec;
    type Output = GetOutput;

    async fn run(&self, cx: StepContext, spec: GetSpec) -> Result<Outcome<GetOutput>, StepError> {
        let mut resource = spec.resource.0;
        let element = Element::new(ElementKind::Resource, &resource, "");
        let access = element.access_value().cloned().unwrap_or_default();
        let found = cx
            .session::<Session>()?
            .helm_chart(&access, element.digest().as_ref())
            .await;
        let chart = found.map_err(|error| StepError::at("resource", error))?;
        let lineage = Lineage {
            resource: Some(resource.clone()),
            ..Lineage::default()
        };
        let offer =
            |port: &str, blob: Blob| cx.offer(port, blob).with_lineage(Some(lineage.clone()));
        let chart_file = offer("chartFile", chart.archive);
        let prov_file = chart.provenance.map(|blob| offer("provFile", blob));
        name_version(&mut resource, &chart.name, &chart.version);
        Ok(Outcome::new(GetOutput {
            chart_file,
            prov_file,
            resource: ResourceField(resource),
        }))
    }
}

/// Says in the access which version of which chart it is.
fn name_version(resource: &mut Json, name: &str, version: &str) {
    let access = resource.get_mut("access").and_then(Json::as_object_mut);
    if let Some(access) = access {
        for (field, text) in [("helmChart", name), ("version", version)] {
            let key = spelling(access, field).to_owned();
            access.insert(key, json!(text));
        }
    }
}

/// `ConvertHelmToOCI`: the OCI artifact of a chart archive, as `helm push` writes it.
pub struct ConvertHelmToOci;

/// Inputs of [`ConvertHelmToOci`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConvertSpec {
    /// The archive.
    chart_file: ContentRef,
    /// The provenance file.
    #[serde(default)]
    prov_file: Option<ContentRef>,
    /// The resource, with its Helm access.
    resource: ResourceField,
    /// Has no effect: bytes stream.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for the sake of specs that name it")]
    output_path: OutputPath,
}

/// Outputs of [`ConvertHelmToOci`].
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConvertOutput {
    /// The artifact.
    #[schemars(extend("x-ocm-media-types" = [OCI_LAYOUT_TAR]))]
    file: ContentRef,
    /// The resource: a `helmChart` with the digest of the artifact, and an OCI access that names no registry yet.
    resource: ResourceField,
}

impl Transformer for ConvertHelmToOci {
    const TYPE: &'static str = "ConvertHelmToOCI/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Makes an OCI artifact of a Helm chart.";
    const EXAMPLE: &'static str = "- {id: convert1, type: ConvertHelmToOCI/v1alpha1, spec: {chartFile: '${get1.output.chartFile}', provFile: '${get1.output.?provFile}', resource: '${get1.output.resource}'}}";
    type Spec = ConvertSpec;
    type Output = ConvertOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: ConvertSpec,
    ) -> Result<Outcome<ConvertOutput>, StepError> {
        let archive = file(&cx, &spec.chart_file, "chartFile").await?;
        let provenance = match &spec.prov_file {
            Some(reference) => Some(file(&cx, reference, "provFile").await?),
            None => None,
        };
        let packaged = package(&archive, provenance.as_ref(), cx.limits());
        let packaged = packaged
            .await
            .map_err(|error| StepError::at("chartFile", error))?;
        if let Some(stated) = other_artifact(&spec.resource.0, &packaged) {
            let made = &packaged.manifest.digest;
            cx.warn(format!("the resource states an artifact with digest {stated}, the chart makes {made}: it may be another chart, or other tools made that artifact"));
        }
        let resource = converted(spec.resource.0, &packaged);
        let lineage = Lineage {
            resource: Some(resource.clone()),
            ..spec.chart_file.lineage.unwrap_or_default()
        };
        let file = cx
            .offer("file", packaged.artifact)
            .with_lineage(Some(lineage));
        Ok(Outcome::new(ConvertOutput {
            file,
            resource: ResourceField(resource),
        }))
    }
}

async fn file(cx: &StepContext, reference: &ContentRef, field: &str) -> Result<Blob, StepError> {
    match cx.content(reference).await? {
        Content::Blob(blob) => Ok(blob),
        Content::Artifact(_) => {
            let error = Error::invalid("this is an OCI artifact already, a file is needed")
                .with_hint("take the chart out with `oci.to.tar.transformer/v1alpha1`");
            Err(StepError::at(field, error))
        }
    }
}

/// A chart as an OCI artifact.
#[derive(Clone, Debug)]
pub struct PackagedChart {
    /// The artifact, known by the chart's version.
    pub artifact: Artifact,
    /// The manifest of it.
    pub manifest: RawManifest,
    /// What the chart says about itself.
    pub metadata: ChartMetadata,
}

/// Makes an OCI artifact of a chart archive and its provenance file: config, layers, annotations as `helm push` writes them.
/// A chart is read up to its `Chart.yaml`; what can be read once only, or has no digest yet, to its end.
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] when the archive is no chart, besides what reading gives.
pub async fn package(
    archive: &Blob,
    provenance: Option<&Blob>,
    limits: &Arc<Limits>,
) -> Result<PackagedChart, Error> {
    let archive = retyped(keep(archive, limits).await?, HELM_CHART_LAYER);
    let metadata = ChartMetadata::read(&archive, limits).await?;
    let config = Blob::from_bytes(HELM_CONFIG, metadata.config());
    let mut layers = vec![archive];
    if let Some(provenance) = provenance {
        layers.push(retyped(
            keep(provenance, limits).await?,
            HELM_PROVENANCE_LAYER,
        ));
    }
    let link = |blob: &Blob| {
        blob.descriptor()
            .ok_or_else(|| Error::internal("a part of a chart has no digest"))
    };
    let links = layers.iter().map(link).collect::<Result<Vec<_>, _>>()?;
    let mut manifest = Manifest::image(link(&config)?, links);
    manifest.annotations = Some(metadata.annotations());
    let manifest = RawManifest::write(&manifest);
    let blobs = std::iter::once(config).chain(layers);
    let artifact = assemble(manifest.clone(), blobs, Some(tag(&metadata)))?;
    Ok(PackagedChart {
        artifact,
        manifest,
        metadata,
    })
}

/// The same bytes with digest and size, in memory where they are few: they are read again for sure.
async fn keep(blob: &Blob, limits: &Arc<Limits>) -> Result<Blob, Error> {
    if blob.source().bytes().is_some() {
        return Ok(blob.clone());
    }
    if blob.size.is_some_and(|size| size <= KEPT) {
        let _slots = limits.transfer(&blob.hosts()).await;
        let bytes = blob.read(KEPT).await?;
        return Ok(Blob::from_bytes(blob.media_type.clone(), bytes));
    }
    spool(blob, limits).await
}

fn retyped(mut blob: Blob, media_type: &str) -> Blob {
    media_type.clone_into(&mut blob.media_type);
    blob
}

/// Tags have no `+`.
fn tag(metadata: &ChartMetadata) -> String {
    metadata.version().replace('+', "_")
}

/// The digest that a resource states for its artifact, where that is not the one made here. It is no error: what other tools
/// make of the same chart differs.
fn other_artifact(resource: &Json, packaged: &PackagedChart) -> Option<Digest> {
    let stated = resource.get("digest").and_then(DigestSpec::from_value)?;
    let digest = stated.digest().filter(|_| stated.is_of_artifact())?;
    (digest != packaged.manifest.digest).then_some(digest)
}

/// The resource as the reference describes a converted chart.
fn converted(mut resource: Json, packaged: &PackagedChart) -> Json {
    let old = resource.get("digest").and_then(DigestSpec::from_value);
    let digest = updated_digest(old.as_ref(), &packaged.manifest.digest, true);
    let folder = resource.get("access").map(folder).unwrap_or_default();
    let slash = if folder.is_empty() { "" } else { "/" };
    let name = packaged.metadata.name();
    let reference = format!("{folder}{slash}{name}:{}", tag(&packaged.metadata));
    if let Some(fields) = resource.as_object_mut() {
        fields.insert("type".to_owned(), json!("helmChart"));
        fields.insert("relation".to_owned(), json!("local"));
        let access = json!({"type": "ociArtifact/v1", "imageReference": reference});
        fields.insert("access".to_owned(), access);
        fields.insert("digest".to_owned(), digest.to_value());
    }
    resource
}

/// The path of the repository that the chart came from, without its host.
fn folder(access: &Json) -> String {
    let Ok(Some(Remote::Helm(helm))) = Remote::parse(access) else {
        return String::new();
    };
    let place = helm.repository;
    let place = place.split_once("://").map_or(place, |(_, place)| place);
    let place = place.split(['?', '#']).next().unwrap_or_default();
    let path = place.split_once('/').map_or("", |(_, path)| path);
    let path = path.trim_matches('/');
    // The URL of the archive itself.
    match path.ends_with(".tgz") {
        true => path
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned(),
        false => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_converted_chart_is_named_after_its_place() {
        for (repository, expected) in [
            ("https://charts.example.org", ""),
            ("https://charts.example.org/stable/x/?token=1", "stable/x"),
            ("oci://r.example:5000/acme/charts", "acme/charts"),
            ("https://charts.example.org/a/app-1.0.0.tgz", "a"),
            ("https://charts.example.org/app-1.0.0.tgz", ""),
        ] {
            let access =
                json!({"type": "helm", "helmRepository": repository, "helmChart": "app:1"});
            assert_eq!(folder(&access), expected, "{repository}");
        }
        assert_eq!(folder(&json!({"type": "localBlob"})), "");
    }
}
