//! Content stored beside a component descriptor: `CTFGetLocalResource`, `OCIAddLocalResource`, and design 002's local blobs.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use ocm_content::{Artifact, Content, Error, Limits, expect_also, expect_artifact};
use ocm_engine::{ContentRef, Effect, Lineage, Outcome, StepContext, StepError, Transformer};
use ocm_repository::{ComponentVersion, Session};
use ocm_specs::access::{self, AccessType};
use ocm_specs::descriptor::{DigestSpec, Element, ElementKind};
use ocm_specs::media_type::is_artifact_archive;
use ocm_specs::{Digest, Identity};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::component::{Place, Storage};
use crate::fields::{
    Access, DescriptorField, OutputPath, RepositoryField, ResourceField, open, tidy_resource,
};
use crate::resource::{self, ResourceSelector};
use crate::signing::broken::note_change;

/// `CTFGetLocalResource`, `OCIGetLocalResource`: a handle to a local resource.
pub struct GetLocalResource<S>(pub PhantomData<S>);

/// Inputs of [`GetLocalResource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    bound = "R: DeserializeOwned"
)]
pub struct GetSpec<R> {
    /// Where the component version is.
    repository: R,
    /// Component name.
    component: String,
    /// Component version.
    version: String,
    /// Attributes that tell the resource: name, version, extra identity.
    resource_identity: BTreeMap<String, String>,
    /// Has no effect: bytes stream.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for the sake of specs that name it")]
    output_path: OutputPath,
}

/// Outputs of [`GetLocalResource`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct GetOutput {
    /// The content.
    file: ContentRef,
    /// The resource as it stands in the descriptor.
    resource: ResourceField,
}

impl<S: Storage> Transformer for GetLocalResource<S> {
    const TYPE: &'static str = S::GET_LOCAL[0];
    const EXAMPLE: &'static str = S::GET_LOCAL[1];
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str =
        "Reads a resource that is stored beside its component descriptor.";
    type Spec = GetSpec<S::Repository>;
    type Output = GetOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<GetOutput>, StepError> {
        let repository = spec.repository.open(&cx, Access::Read).await?;
        let version = repository.get(&spec.component, &spec.version).await?;
        let wanted: Identity = spec.resource_identity.into_iter().collect();
        let element = version.descriptor.resource(&wanted).map_err(|error| {
            StepError::at("resourceIdentity", Error::not_found(error.to_string()))
        })?;
        let (file, resource) = offer(&cx, "file", &version, &element).await?;
        Ok(Outcome::new(GetOutput { file, resource }))
    }
}

/// Hands a resource out under a port that is stored beside its descriptor, or relative to where that is.
async fn offer(
    cx: &StepContext,
    port: &str,
    version: &ComponentVersion,
    element: &Element<'_>,
) -> Result<(ContentRef, ResourceField), StepError> {
    let is_relative = matches!(
        element.access(),
        Ok(access::Access::RelativeOciReference { .. })
    );
    let content = if is_relative {
        cx.session::<Session>()?.content(version, element).await?
    } else {
        version.local_blob(element)?
    };
    let content = expect_stated(content, element, cx.limits()).await?;
    let lineage = Lineage {
        component: version.descriptor.name().to_owned(),
        version: version.descriptor.version().to_owned(),
        resource: Some(element.value().clone()),
    };
    let reference = cx.offer(port, content).with_lineage(Some(lineage));
    Ok((reference, ResourceField(element.value().clone())))
}

/// The content, held to the digest that its descriptor states, by whatever algorithm, of the bytes or of the artifact inside
/// of them: one that is known to differ is refused, the rest shows while it is read. Signatures stand for that digest, not for
/// the access, so an access must not be able to lead to anything else.
///
/// The library v2 labels the digest of an archived artifact as that of a blob (trap T10): where the archive has another, the
/// artifact inside must have it.
///
/// # Errors
/// [`ocm_content::ErrorKind::Mismatch`] for content that is known to be another, at once or at the end of reading.
pub async fn expect_stated(
    content: Content,
    element: &Element<'_>,
    limits: &Arc<Limits>,
) -> Result<Content, StepError> {
    let mut blob = match content {
        Content::Blob(blob) => blob,
        Content::Artifact(artifact) => {
            expect_root(&artifact, element).await?;
            return Ok(Content::Artifact(artifact));
        }
    };
    let Some((stated, digest)) = stated(element) else {
        return Ok(Content::Blob(blob));
    };
    if stated.is_of_artifact() && is_chart(element) {
        // What it states is the artifact that the chart becomes, which differs from tool to tool.
        return Ok(Content::Blob(blob));
    }
    if stated.is_of_artifact() {
        return Ok(Content::Blob(expect_artifact(blob, digest, limits)));
    }
    if !stated.is_of_blob() {
        return Ok(Content::Blob(blob));
    }
    let held = match &blob.digest {
        None => {
            blob.digest = Some(digest);
            blob
        }
        Some(found) if *found == digest => blob,
        Some(found) if found.algorithm() != digest.algorithm() => expect_also(blob, digest),
        Some(_) if is_artifact_archive(&blob.media_type) => expect_artifact(blob, digest, limits),
        Some(found) => return Err(differs(element, found, &digest)),
    };
    Ok(Content::Blob(held))
}

/// The artifact must have the digest that a descriptor states for it.
///
/// # Errors
/// [`ocm_content::ErrorKind::Mismatch`] where it does not; what reading its root manifest gives, where the digest is stated by
/// another algorithm.
pub(crate) async fn expect_root(
    artifact: &Artifact,
    element: &Element<'_>,
) -> Result<(), StepError> {
    let (Some((_, stated)), Artifact::Stored(stored)) = (stated(element), artifact) else {
        return Ok(());
    };
    let mut found = stored.root.digest.clone();
    if found.algorithm() != stated.algorithm() {
        let root = stored.store.manifest(&found.to_string()).await?;
        found = Digest::of(stated.algorithm(), &root.bytes);
    }
    if found == stated {
        return Ok(());
    }
    Err(differs(element, &found, &stated))
}

/// The digest that a descriptor states, where it is one to hold content to.
fn stated(element: &Element<'_>) -> Option<(DigestSpec, Digest)> {
    let stated = element.digest().filter(|stated| !stated.is_excluded())?;
    let digest = stated.digest()?;
    Some((stated, digest))
}

fn is_chart(element: &Element<'_>) -> bool {
    let access = element.access_value().and_then(|access| access.get("type"));
    access.and_then(Json::as_str).map(AccessType::of) == Some(AccessType::Helm)
}

fn differs(element: &Element<'_>, found: &Digest, stated: &Digest) -> StepError {
    Error::mismatch(format!(
        "resource `{}` has content {found}, its descriptor says {stated}",
        element.identity()
    ))
    .into()
}

/// `CTFAddLocalResource`, `OCIAddLocalResource`: stores a resource beside its component descriptor.
pub struct AddLocalResource<S>(pub PhantomData<S>);

/// Inputs of [`AddLocalResource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    bound = "R: DeserializeOwned"
)]
#[schemars(transform = R::restrict, bound = "R: JsonSchema + RepositoryField")]
pub struct AddSpec<R> {
    /// Where it goes.
    repository: R,
    /// Component name.
    component: String,
    /// Component version.
    version: String,
    /// The resource; its access and digest are updated.
    resource: ResourceField,
    /// The content.
    file: ContentRef,
    /// Global accesses are not written.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for the sake of specs that name it")]
    global_access_policy: Option<GlobalAccessPolicy>,
}

/// The reference's experimental switch for global accesses.
#[derive(Debug, Deserialize, JsonSchema)]
enum GlobalAccessPolicy {
    /// Never.
    #[serde(rename = "")]
    Never,
    /// Where the storage has global addresses.
    #[serde(rename = "auto")]
    Auto,
}

/// Outputs of [`AddLocalResource`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct AddOutput {
    /// The resource with its new access and digest.
    resource: ResourceField,
}

impl<S: Storage> Transformer for AddLocalResource<S> {
    const TYPE: &'static str = S::ADD_LOCAL[0];
    const EXAMPLE: &'static str = S::ADD_LOCAL[1];
    const EFFECT: Effect = Effect::Content;
    const SUMMARY: &'static str = "Stores a resource beside its component descriptor.";
    type Spec = AddSpec<S::Repository>;
    type Output = AddOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<AddOutput>, StepError> {
        let content = cx.content(&spec.file).await?;
        let repository = spec.repository.open(&cx, Access::Write).await?;
        let resource = tidy_resource(spec.resource.0);
        let (component, version) = (&spec.component, &spec.version);
        let stored = repository
            .carry_local_blob(
                component,
                version,
                ElementKind::Resource,
                &resource,
                &content,
            )
            .await?;
        let session = cx.session::<Session>()?;
        note_change(&session, cx.id(), &resource, &stored);
        Ok(Outcome::new(AddOutput {
            resource: ResourceField(stored),
        }))
    }
}

/// `downloader.localblob.ctf`, `downloader.localblob.oci`: a handle to a local resource of a descriptor.
pub struct DownloadLocalBlob<S>(pub PhantomData<S>);

/// Inputs of [`DownloadLocalBlob`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound = "P: DeserializeOwned")]
#[schemars(extend("additionalProperties" = false))]
pub struct DownloadSpec<P> {
    /// Where the component version is.
    #[serde(flatten)]
    place: P,
    /// Its descriptor.
    component_descriptor: DescriptorField,
    /// Which resource.
    resource: ResourceSelector,
}

/// Outputs of [`DownloadLocalBlob`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct DownloadOutput {
    /// The content.
    data: ContentRef,
    /// The resource as it stands in the descriptor.
    resource: ResourceField,
}

impl<S: Storage> Transformer for DownloadLocalBlob<S> {
    const TYPE: &'static str = S::DOWNLOAD_BLOB[0];
    const EXAMPLE: &'static str = S::DOWNLOAD_BLOB[1];
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str =
        "Reads a resource that is stored beside its component descriptor.";
    type Spec = DownloadSpec<S::Place>;
    type Output = DownloadOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<DownloadOutput>, StepError> {
        let wanted = spec
            .resource
            .find(&spec.component_descriptor.0)
            .map_err(|error| StepError::at("resource", error))?;
        let identity = resource::identity_of(wanted);
        let (name, number) = resource::component(&spec.component_descriptor.0)?;
        let session = cx.session::<Session>()?;
        let repository = open(&session, &spec.place.spec(), Access::Read).await?;
        let version = repository.get(name, number).await?;
        let element = version
            .descriptor
            .resource(&identity)
            .map_err(|error| StepError::at("resource", Error::not_found(error.to_string())))?;
        let (data, resource) = offer(&cx, "data", &version, &element).await?;
        Ok(Outcome::new(DownloadOutput { data, resource }))
    }
}

/// `uploader.localblob.ctf`, `uploader.localblob.oci`: stores a resource and gives the descriptor that says so.
pub struct UploadLocalBlob<S>(pub PhantomData<S>);

/// Inputs of [`UploadLocalBlob`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound = "P: DeserializeOwned")]
#[schemars(extend("additionalProperties" = false))]
pub struct UploadSpec<P> {
    /// Where it goes.
    #[serde(flatten)]
    place: P,
    /// The descriptor of the component version.
    component_descriptor: DescriptorField,
    /// The content.
    data: ContentRef,
    /// Which resource it is; told by the content's lineage without.
    #[serde(default)]
    resource: Option<ResourceSelector>,
}

/// Outputs of [`UploadLocalBlob`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct UploadOutput {
    /// The descriptor with the resource's new access and digest.
    descriptor: DescriptorField,
    /// The resource with its new access and digest.
    resource: ResourceField,
}

impl<S: Storage> Transformer for UploadLocalBlob<S> {
    const TYPE: &'static str = S::UPLOAD_BLOB[0];
    const EXAMPLE: &'static str = S::UPLOAD_BLOB[1];
    const EFFECT: Effect = Effect::Content;
    const SUMMARY: &'static str =
        "Stores a resource beside its component descriptor and updates the descriptor.";
    type Spec = UploadSpec<S::Place>;
    type Output = UploadOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<UploadOutput>, StepError> {
        let content = cx.content(&spec.data).await?;
        let session = cx.session::<Session>()?;
        let mut descriptor = spec
            .component_descriptor
            .descriptor(&session, "componentDescriptor")?;
        let old = chosen(spec.resource.as_ref(), &spec.data, descriptor.document())?.clone();
        let repository = open(&session, &spec.place.spec(), Access::Write).await?;
        let stored = repository
            .prepare_local_blob(descriptor.name(), ElementKind::Resource, &old, &content)
            .await?;
        note_change(&session, cx.id(), &old, &stored);
        descriptor
            .set_resource(&resource::identity_of(&old), stored.clone())
            .map_err(|error| StepError::at("resource", Error::invalid(error.to_string())))?;
        let descriptor = DescriptorField(descriptor.into_document());
        Ok(Outcome::new(UploadOutput {
            descriptor,
            resource: ResourceField(stored),
        }))
    }
}

/// The resource that an upload is about: the one named, else the one whose bytes these are.
pub(crate) fn chosen<'d>(
    selector: Option<&ResourceSelector>,
    data: &ContentRef,
    descriptor: &'d Json,
) -> Result<&'d Json, StepError> {
    if let Some(selector) = selector {
        return selector
            .find(descriptor)
            .map_err(|error| StepError::at("resource", error));
    }
    let lineage = data
        .lineage
        .as_ref()
        .and_then(|lineage| lineage.resource.as_ref())
        .ok_or_else(|| {
            let error = Error::invalid("it is not known which resource these bytes are");
            StepError::at("data", error.with_hint("name it: `resource: {name: …}`"))
        })?;
    let wanted = resource::identity_of(lineage);
    let resources = resource::resources(descriptor)?;
    resources
        .iter()
        .find(|candidate| resource::identity_of(candidate) == wanted)
        .ok_or_else(|| {
            StepError::at(
                "data",
                Error::not_found(format!(
                    "the component descriptor has no resource `{wanted}`"
                )),
            )
        })
}

#[cfg(test)]
mod tests {
    use ocm_content::limits::LimitsConfig;
    use ocm_testdata::fixtures::{ArchiveForm, image_index};
    use serde_json::json;

    use super::*;

    /// What v2 states for an archive is the digest of the artifact inside, by the name of a blob's.
    #[tokio::test]
    async fn t10_archives_may_be_stated_by_what_is_inside() {
        let limits = Limits::new(LimitsConfig::default());
        let image = image_index();
        let archive = image.archive(ArchiveForm::Set, "1").await;
        let own = archive.digest.as_ref().map(|it| it.hex().to_owned());
        let inside = image.root.digest.hex().to_owned();
        for (value, is_right) in [
            (own.unwrap_or_default(), true),
            (inside, true),
            ("0".repeat(64), false),
        ] {
            let resource = json!({"name": "image", "version": "1", "digest": {
                "hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": value,
            }});
            let element = Element::new(ElementKind::Resource, &resource, "1");
            let content = Content::Blob(archive.clone());
            let found = expect_stated(content, &element, &limits).await.unwrap();
            let Content::Blob(blob) = found else {
                panic!("a blob became an artifact");
            };
            assert_eq!(blob.read(u64::MAX).await.is_ok(), is_right, "{value}");
        }
    }
}
