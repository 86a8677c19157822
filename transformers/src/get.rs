//! Content of a component version whatever its access: `GetResource`, `GetSource`, and `AddLocalSource`.
//!
//! The reference has no step for these. They read what a session reads: blobs in OCI repositories, references relative to
//! the component's repository, commits of git repositories, and sources of every kind.

use std::collections::BTreeMap;

use ocm_content::Error;
use ocm_engine::{ContentRef, Effect, Lineage, Outcome, StepContext, StepError, Transformer};
use ocm_repository::Session;
use ocm_specs::descriptor::ElementKind;
use ocm_specs::{Identity, RepositorySpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::{Access, ResourceField, open, tidy_resource};
use crate::local_blob::expect_stated;

/// `GetResource`: a handle to a resource's content.
pub struct GetResource;

/// Inputs of [`GetResource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetResourceSpec {
    /// Where the component version is.
    repository: RepositorySpec,
    /// Component name.
    component: String,
    /// Component version.
    version: String,
    /// Attributes that tell the resource: name, version, extra identity.
    resource_identity: BTreeMap<String, String>,
}

/// Outputs of [`GetResource`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct GetResourceOutput {
    /// The content.
    file: ContentRef,
    /// The resource as it stands in the descriptor.
    resource: ResourceField,
}

impl Transformer for GetResource {
    const TYPE: &'static str = "GetResource/v1alpha1";
    const EXAMPLE: &'static str = "- {id: get1, type: GetResource/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./archive}, component: acme.org/helloworld, version: 1.0.0, resourceIdentity: {name: config}}}";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads the content of a resource, whatever its access.";
    type Spec = GetResourceSpec;
    type Output = GetResourceOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: GetResourceSpec,
    ) -> Result<Outcome<GetResourceOutput>, StepError> {
        let place = Place {
            repository: spec.repository,
            component: spec.component,
            version: spec.version,
        };
        let wanted = spec.resource_identity.into_iter().collect();
        let (file, resource) = read(&cx, place, ElementKind::Resource, wanted).await?;
        Ok(Outcome::new(GetResourceOutput { file, resource }))
    }
}

/// Where a component version is.
struct Place {
    repository: RepositorySpec,
    component: String,
    version: String,
}

/// The content of an element, which must be what the descriptor states, and the element as it stands there.
async fn read(
    cx: &StepContext,
    place: Place,
    kind: ElementKind,
    wanted: Identity,
) -> Result<(ContentRef, ResourceField), StepError> {
    let session = cx.session::<Session>()?;
    let repository = open(&session, &place.repository, Access::Read).await?;
    let version = repository.get(&place.component, &place.version).await?;
    let field = format!("{}Identity", kind.as_str());
    let element = version
        .descriptor
        .find(kind, &wanted)
        .map_err(|error| StepError::at(field, Error::not_found(error.to_string())))?;
    let content = session.content(&version, &element).await?;
    let content = expect_stated(content, &element, session.limits()).await?;
    let lineage = (kind == ElementKind::Resource).then(|| Lineage {
        component: place.component,
        version: place.version,
        resource: Some(element.value().clone()),
    });
    let file = cx.offer("file", content).with_lineage(lineage);
    Ok((file, ResourceField(element.value().clone())))
}

/// `GetSource`: a handle to a source's content.
pub struct GetSource;

/// Inputs of [`GetSource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetSourceSpec {
    /// Where the component version is.
    repository: RepositorySpec,
    /// Component name.
    component: String,
    /// Component version.
    version: String,
    /// Attributes that tell the source: name, version, extra identity.
    source_identity: BTreeMap<String, String>,
}

/// Outputs of [`GetSource`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct GetSourceOutput {
    /// The content.
    file: ContentRef,
    /// The source as it stands in the descriptor.
    source: ResourceField,
}

impl Transformer for GetSource {
    const TYPE: &'static str = "GetSource/v1alpha1";
    const EXAMPLE: &'static str = "- {id: get1, type: GetSource/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./archive}, component: acme.org/helloworld, version: 1.0.0, sourceIdentity: {name: code}}}";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads the content of a source, whatever its access.";
    type Spec = GetSourceSpec;
    type Output = GetSourceOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: GetSourceSpec,
    ) -> Result<Outcome<GetSourceOutput>, StepError> {
        let place = Place {
            repository: spec.repository,
            component: spec.component,
            version: spec.version,
        };
        let wanted = spec.source_identity.into_iter().collect();
        let (file, source) = read(&cx, place, ElementKind::Source, wanted).await?;
        Ok(Outcome::new(GetSourceOutput { file, source }))
    }
}

/// `AddLocalSource`: stores a source beside its component descriptor.
pub struct AddLocalSource;

/// Inputs of [`AddLocalSource`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddLocalSourceSpec {
    /// Where it goes.
    repository: RepositorySpec,
    /// Component name.
    component: String,
    /// Component version.
    version: String,
    /// The source; its access is updated.
    source: ResourceField,
    /// The content.
    file: ContentRef,
}

/// Outputs of [`AddLocalSource`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct AddLocalSourceOutput {
    /// The source with its new access.
    source: ResourceField,
}

impl Transformer for AddLocalSource {
    const TYPE: &'static str = "AddLocalSource/v1alpha1";
    const EXAMPLE: &'static str = "- {id: add1, type: AddLocalSource/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./target}, component: acme.org/helloworld, version: 1.0.0, source: '${get1.output.source}', file: '${get1.output.file}'}}";
    const EFFECT: Effect = Effect::Content;
    const SUMMARY: &'static str = "Stores a source beside its component descriptor.";
    type Spec = AddLocalSourceSpec;
    type Output = AddLocalSourceOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: AddLocalSourceSpec,
    ) -> Result<Outcome<AddLocalSourceOutput>, StepError> {
        let content = cx.content(&spec.file).await?;
        let session = cx.session::<Session>()?;
        let repository = open(&session, &spec.repository, Access::Write).await?;
        let source = tidy_resource(spec.source.0);
        let stored = repository
            .carry_local_blob(
                &spec.component,
                &spec.version,
                ElementKind::Source,
                &source,
                &content,
            )
            .await?;
        Ok(Outcome::new(AddLocalSourceOutput {
            source: ResourceField(stored),
        }))
    }
}
