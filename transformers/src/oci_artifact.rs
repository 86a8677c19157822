//! OCI artifacts by reference: `GetOCIArtifact`, `AddOCIArtifact`, `TransferOCIArtifact`, and design 002's resource steps.

use std::sync::Arc;

use ocm_content::copy::Prepared;
use ocm_content::{Artifact, Error, Seen};
use ocm_engine::{
    ContentRef, Effect, Lineage, Outcome, Publish, StepContext, StepError, Transformer,
};
use ocm_repository::Session;
use ocm_specs::Digest;
use ocm_specs::access;
use ocm_specs::descriptor::{DigestSpec, Element, ElementKind, updated_digest};
use ocm_specs::media_type::OCI_LAYOUT_TAR;
use ocm_specs::reference::OciReference;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::fields::{DescriptorField, OutputPath, ResourceField, tidy_resource};
use crate::image;
use crate::local_blob::{chosen, expect_root};
use crate::resource::{self, ResourceSelector};
use crate::signing::broken::note_change;

/// Outputs of the steps that read an artifact in the reference's way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GetOutput {
    /// The artifact.
    #[schemars(extend("x-ocm-media-types" = [OCI_LAYOUT_TAR]))]
    file: ContentRef,
    /// The resource as it was given.
    resource: ResourceField,
}

/// `GetOCIArtifact`: a handle to an OCI artifact.
pub struct GetOciArtifact;

/// Inputs of [`GetOciArtifact`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetSpec {
    /// A resource with an OCI access.
    resource: ResourceField,
    /// Has no effect: bytes stream.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for the sake of specs that name it")]
    output_path: OutputPath,
}

impl Transformer for GetOciArtifact {
    const TYPE: &'static str = "GetOCIArtifact/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads the OCI artifact that a resource's access names.";
    const EXAMPLE: &'static str = "- {id: get1, type: GetOCIArtifact/v1alpha1, spec: {resource: {name: image, version: 1.0.0, type: ociImage, relation: external, access: {type: ociArtifact, imageReference: 'registry.example/acme/image:1.0.0'}}}}";
    type Spec = GetSpec;
    type Output = GetOutput;

    async fn run(&self, cx: StepContext, spec: GetSpec) -> Result<Outcome<GetOutput>, StepError> {
        let artifact = read(&cx, &spec.resource.0, "resource", Depth::Look).await?;
        let lineage = Lineage {
            resource: Some(spec.resource.0.clone()),
            ..Lineage::default()
        };
        let file = cx.offer("file", artifact).with_lineage(Some(lineage));
        Ok(Outcome::new(GetOutput {
            file,
            resource: spec.resource,
        }))
    }
}

/// How much of an artifact is read at once.
#[derive(Clone, Copy, Debug)]
enum Depth {
    /// What its name stands for.
    Look,
    /// Its root manifest, too.
    WithManifest,
}

/// The artifact that a resource's access names; its digest must be the one that the resource states.
async fn read(
    cx: &StepContext,
    resource: &Json,
    field: &str,
    depth: Depth,
) -> Result<Artifact, StepError> {
    let at = |error: Error| StepError::at(field, error);
    let element = Element::new(ElementKind::Resource, resource, "");
    let reference = image_reference(&element).map_err(at)?;
    let session = cx.session::<Session>()?;
    let artifact = match depth {
        Depth::Look => session.artifact(&reference).await?,
        Depth::WithManifest => session.artifact_with_manifest(&reference).await?,
    };
    expect_root(&artifact, &element).await?;
    Ok(artifact)
}

fn image_reference(element: &Element<'_>) -> Result<String, Error> {
    let access = element
        .access()
        .map_err(|error| Error::invalid(error.to_string()))?;
    match access {
        access::Access::OciArtifact { image_reference } => {
            match image_reference.parse::<OciReference>() {
                Ok(_) => Ok(image_reference.to_owned()),
                Err(error) => Err(Error::invalid(format!("access.imageReference: {error}"))
                    .with_hint("write HOST/REPOSITORY:TAG, as in ghcr.io/acme/image:1.0.0")),
            }
        }
        access::Access::LocalBlob(_) => Err(Error::invalid(format!(
            "resource `{}` is a local blob, not an OCI artifact",
            element.name()
        ))
        .with_hint("read it with downloader.localblob or GetLocalResource")),
        _ => {
            let kind = element
                .access_value()
                .and_then(|access| access.get("type")?.as_str())
                .unwrap_or("none");
            Err(Error::invalid(format!(
                "resource `{}` has access type `{kind}`, not ociArtifact",
                element.name()
            )))
        }
    }
}

/// A place for an artifact: a store and what to call it there.
struct Target {
    store: Arc<dyn ocm_content::ContentStore>,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Target {
    fn open(cx: &StepContext, reference: &str) -> Result<Self, Error> {
        let parsed: OciReference = reference
            .parse()
            .map_err(|error| Error::invalid(format!("image reference `{reference}`: {error}")))?;
        let store = cx.session::<Session>()?.oci_store(&parsed)?;
        Ok(Self {
            store,
            tag: parsed.tag.clone(),
            digest: parsed.digest.clone(),
        })
    }

    /// What its tag names now.
    async fn look(&self, cx: &StepContext) -> Result<Seen, StepError> {
        let copier = cx.session::<Session>()?.copier().clone();
        Ok(copier.look(&self.store, self.tag.as_deref()).await?)
    }

    /// Brings everything there but the root manifest.
    async fn prepare(&self, cx: &StepContext, artifact: &Artifact) -> Result<Prepared, StepError> {
        let seen = match artifact {
            Artifact::Stored(_) => self.look(cx).await?,
            Artifact::Composed(_) => Seen::NotAsked,
        };
        self.prepare_seen(cx, artifact, seen).await
    }

    async fn prepare_seen(
        &self,
        cx: &StepContext,
        artifact: &Artifact,
        seen: Seen,
    ) -> Result<Prepared, StepError> {
        let copier = cx.session::<Session>()?.copier().clone();
        let prepared = copier
            .prepare_seen(artifact, &self.store, self.tag.as_deref(), seen)
            .await?;
        for warning in &prepared.warnings {
            cx.warn(warning.clone());
        }
        if let Some(pinned) = self
            .digest
            .as_ref()
            .filter(|pinned| **pinned != prepared.root.digest)
        {
            return Err(Error::mismatch(format!(
                "the artifact is {}, its new reference says {pinned}",
                prepared.root.digest
            ))
            .into());
        }
        Ok(prepared)
    }

    fn publish(&self, prepared: Prepared) -> Publish {
        let tag = self.tag.clone();
        Publish::new(move || async move { Ok(prepared.publish(tag.as_deref()).await?) })
    }
}

/// A resource with a new OCI access; its digest triple stays while its value holds.
fn moved(resource: &Json, image_reference: &str, root: &Digest) -> Json {
    let mut resource = resource.clone();
    let old = resource.get("digest").and_then(DigestSpec::from_value);
    let digest = updated_digest(old.as_ref(), root, true);
    if let Some(fields) = resource.as_object_mut() {
        let mut access = access::oci_artifact(image_reference);
        let spelled = fields
            .get("access")
            .and_then(|old| old.get("type"))
            .cloned();
        let keep = spelled
            .as_ref()
            .and_then(Json::as_str)
            .is_some_and(|text| access::AccessType::of(text) == access::AccessType::OciArtifact);
        if let (true, Some(spelled), Some(access)) = (keep, spelled, access.as_object_mut()) {
            access.insert("type".to_owned(), spelled);
        }
        fields.insert("access".to_owned(), access);
        fields.insert("digest".to_owned(), digest.to_value());
    }
    resource
}

/// `AddOCIArtifact`: uploads an artifact to the reference in the resource's access.
pub struct AddOciArtifact;

/// Inputs of [`AddOciArtifact`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddSpec {
    /// The resource; its OCI access says where the artifact goes.
    resource: ResourceField,
    /// The artifact, or an archive of one.
    file: ContentRef,
}

/// Outputs of the steps that write an artifact.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AddOutput {
    /// The resource with its new access and digest.
    resource: ResourceField,
}

impl Transformer for AddOciArtifact {
    const TYPE: &'static str = "AddOCIArtifact/v1alpha1";
    const EFFECT: Effect = Effect::Keyed;
    const SUMMARY: &'static str =
        "Uploads an OCI artifact to the reference in its resource's access.";
    const EXAMPLE: &'static str = "- {id: add1, type: AddOCIArtifact/v1alpha1, spec: {resource: {name: image, version: 1.0.0, type: ociImage, relation: external, access: {type: ociArtifact, imageReference: 'registry.example/target/image:1.0.0'}}, file: '${get1.output.file}'}}";
    type Spec = AddSpec;
    type Output = AddOutput;

    async fn run(&self, cx: StepContext, spec: AddSpec) -> Result<Outcome<AddOutput>, StepError> {
        let resource = tidy_resource(spec.resource.0);
        let element = Element::new(ElementKind::Resource, &resource, "");
        let reference =
            image_reference(&element).map_err(|error| StepError::at("resource", error))?;
        let artifact = image::artifact(&cx, &spec.file, "file").await?;
        let target =
            Target::open(&cx, &reference).map_err(|error| StepError::at("resource", error))?;
        let prepared = target.prepare(&cx, &artifact).await?;
        let added = moved(&resource, &reference, &prepared.root.digest);
        let session = cx.session::<Session>()?;
        note_change(&session, cx.id(), &resource, &added);
        let resource = ResourceField(added);
        Ok(Outcome::new(AddOutput { resource }).with_publish(target.publish(prepared)))
    }
}

/// `TransferOCIArtifact`: copies an artifact from one reference to another.
pub struct TransferOciArtifact;

/// Inputs of [`TransferOciArtifact`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransferSpec {
    /// A resource with an OCI access: what is copied.
    resource: ResourceField,
    /// The resource with its new OCI access: where it goes.
    target_resource: ResourceField,
}

impl Transformer for TransferOciArtifact {
    const TYPE: &'static str = "TransferOCIArtifact/v1alpha1";
    const EFFECT: Effect = Effect::Keyed;
    const SUMMARY: &'static str = "Copies an OCI artifact from one reference to another.";
    const EXAMPLE: &'static str = "- {id: transfer1, type: TransferOCIArtifact/v1alpha1, spec: {resource: {name: image, version: 1.0.0, type: ociImage, relation: external, access: {type: ociArtifact, imageReference: 'registry.example/acme/image:1.0.0'}}, targetResource: {name: image, version: 1.0.0, type: ociImage, relation: external, access: {type: ociArtifact, imageReference: 'other.example/acme/image:1.0.0'}}}}";
    type Spec = TransferSpec;
    type Output = AddOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: TransferSpec,
    ) -> Result<Outcome<AddOutput>, StepError> {
        let from = Element::new(ElementKind::Resource, &spec.resource.0, "");
        image_reference(&from).map_err(|error| StepError::at("resource", error))?;
        let new = tidy_resource(spec.target_resource.0);
        let element = Element::new(ElementKind::Resource, &new, "");
        let reference =
            image_reference(&element).map_err(|error| StepError::at("targetResource", error))?;
        let target = Target::open(&cx, &reference)
            .map_err(|error| StepError::at("targetResource", error))?;
        // Looked at first: what is new there will be read with its manifest, what is there needs no more than a look.
        let seen = target.look(&cx).await?;
        let depth = match seen {
            Seen::Absent => Depth::WithManifest,
            _ => Depth::Look,
        };
        let artifact = read(&cx, &spec.resource.0, "resource", depth).await?;
        let prepared = target.prepare_seen(&cx, &artifact, seen).await?;
        let root = prepared.root.digest.clone();
        // The reference pins what it copied, and specs that it printed rely on that.
        let pinned = if target.digest.is_some() {
            reference
        } else {
            format!("{reference}@{root}")
        };
        let stated = spec.resource.0.get("digest").cloned();
        let resource = ResourceField(moved(&with_digest(new.clone(), stated), &pinned, &root));
        Ok(Outcome::new(AddOutput { resource }).with_publish(target.publish(prepared)))
    }
}

/// The digest triple of the source, where the target resource states none: it is the same content.
fn with_digest(mut resource: Json, stated: Option<Json>) -> Json {
    if let (Some(fields), Some(stated)) = (
        resource.as_object_mut(),
        stated.filter(|stated| !stated.is_null()),
    ) {
        fields.entry("digest").or_insert(stated);
    }
    resource
}

/// `downloader.resource.oci`: a handle to the OCI artifact of a resource of a descriptor.
pub struct DownloadResource;

/// Inputs of [`DownloadResource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DownloadSpec {
    /// The descriptor that has the resource.
    component_descriptor: DescriptorField,
    /// Which resource.
    resource: ResourceSelector,
}

/// Outputs of [`DownloadResource`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct DownloadOutput {
    /// The artifact.
    #[schemars(extend("x-ocm-media-types" = [OCI_LAYOUT_TAR]))]
    data: ContentRef,
    /// The resource as it stands in the descriptor.
    resource: ResourceField,
}

impl Transformer for DownloadResource {
    const TYPE: &'static str = "downloader.resource.oci/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads the OCI artifact of a resource.";
    const EXAMPLE: &'static str = "- {id: download2, type: downloader.resource.oci/v1alpha1, spec: {componentDescriptor: '${download1.output.descriptor}', resource: {name: image}}}";
    type Spec = DownloadSpec;
    type Output = DownloadOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: DownloadSpec,
    ) -> Result<Outcome<DownloadOutput>, StepError> {
        let descriptor = &spec.component_descriptor.0;
        let resource = spec
            .resource
            .find(descriptor)
            .map_err(|error| StepError::at("resource", error))?;
        let lineage = resource::lineage(descriptor, resource)?;
        let artifact = read(&cx, resource, "resource", Depth::Look).await?;
        let data = cx.offer("data", artifact).with_lineage(Some(lineage));
        Ok(Outcome::new(DownloadOutput {
            data,
            resource: ResourceField(resource.clone()),
        }))
    }
}

/// `uploader.resource.oci`, `uploader.oci`: uploads an artifact to an image reference.
pub struct UploadResource;

/// Inputs of [`UploadResource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UploadSpec {
    /// Where it goes. Taken as it is: nothing is appended.
    image_reference: String,
    /// The artifact, or an archive of one.
    data: ContentRef,
    /// The descriptor that has the resource.
    #[serde(default)]
    component_descriptor: Option<DescriptorField>,
    /// Which resource it is; told by the content's lineage without.
    #[serde(default)]
    resource: Option<ResourceSelector>,
}

/// Outputs of [`UploadResource`].
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadOutput {
    /// The resource with its new access and digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceField>,
    /// Where the artifact is now.
    image_reference: String,
    /// Digest of its root manifest.
    digest: String,
}

impl Transformer for UploadResource {
    const TYPE: &'static str = "uploader.resource.oci/v1alpha1";
    const ALIASES: &'static [&'static str] = &["uploader.oci/v1alpha1"];
    const EFFECT: Effect = Effect::Keyed;
    const SUMMARY: &'static str = "Uploads an OCI artifact to an image reference.";
    const EXAMPLE: &'static str = "- {id: upload1, type: uploader.resource.oci/v1alpha1, spec: {imageReference: 'registry.example/target/image:1.0.0', data: '${download2.output.data}'}}";
    type Spec = UploadSpec;
    type Output = UploadOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: UploadSpec,
    ) -> Result<Outcome<UploadOutput>, StepError> {
        let old = self.resource(&spec)?;
        let artifact = image::artifact(&cx, &spec.data, "data").await?;
        let target = Target::open(&cx, &spec.image_reference)
            .map_err(|error| StepError::at("imageReference", error))?;
        let prepared = target.prepare(&cx, &artifact).await?;
        let root = prepared.root.digest.clone();
        let uploaded = old
            .as_ref()
            .map(|old| moved(old, &spec.image_reference, &root));
        if let (Some(old), Some(uploaded)) = (&old, &uploaded) {
            let session = cx.session::<Session>()?;
            note_change(&session, cx.id(), old, uploaded);
        }
        let output = UploadOutput {
            resource: uploaded.map(ResourceField),
            image_reference: spec.image_reference,
            digest: root.to_string(),
        };
        Ok(Outcome::new(output).with_publish(target.publish(prepared)))
    }
}

impl UploadResource {
    /// The resource these bytes are, as it stands in the descriptor that is given, else as it was downloaded.
    fn resource(&self, spec: &UploadSpec) -> Result<Option<Json>, StepError> {
        match &spec.component_descriptor {
            Some(descriptor) => chosen(spec.resource.as_ref(), &spec.data, &descriptor.0)
                .map(|found| Some(found.clone())),
            None => Ok(spec
                .data
                .lineage
                .as_ref()
                .and_then(|lineage| lineage.resource.clone())),
        }
    }
}
