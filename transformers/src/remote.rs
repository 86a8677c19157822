//! Resources that other servers have: `DownloadWgetResource`, `GetGitHubCommit`, and `GetGitCommit` and `GetOCIImageLayer`, which
//! the reference has not.
//!
//! Invariant: the resource goes out as it came in, but for a commit that a reference was found to name. What a server has is
//! read when somebody reads the file.

use ocm_content::{Content, Error};
use ocm_engine::{ContentRef, Effect, Lineage, Outcome, StepContext, StepError, Transformer};
use ocm_repository::Session;
use ocm_specs::access::AccessType;
use ocm_specs::descriptor::{Element, ElementKind};
use ocm_specs::json::field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::fields::{OutputPath, ResourceField};
use crate::local_blob::expect_stated;

/// Inputs of the steps that read what a resource's access names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// A resource (or source) with an access of the step's type.
    pub(crate) resource: ResourceField,
    /// Has no effect: bytes stream.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for the sake of specs that name it")]
    output_path: OutputPath,
}

/// Outputs of the steps that read what a resource's access names.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The content.
    pub(crate) file: ContentRef,
    /// The resource.
    pub(crate) resource: ResourceField,
}

/// The content of a resource whose access has to be of the type `kind`, called `name`.
async fn read(
    cx: &StepContext,
    resource: &Json,
    kind: AccessType,
    name: &str,
) -> Result<Content, StepError> {
    let element = Element::new(ElementKind::Resource, resource, "");
    let access = element.access_value().cloned().unwrap_or_default();
    expect_type(&element, &access, kind, name)?;
    let session = cx.session::<Session>()?;
    let content = session
        .access_content(&access, element.digest().as_ref())
        .await;
    let content = content.map_err(|error| StepError::at("resource", error))?;
    expect_stated(content, &element, session.limits()).await
}

fn expect_type(
    element: &Element<'_>,
    access: &Json,
    kind: AccessType,
    name: &str,
) -> Result<(), StepError> {
    let found = access.get("type").and_then(Json::as_str).unwrap_or("none");
    if AccessType::of(found) == kind {
        return Ok(());
    }
    let error = Error::invalid(format!(
        "resource `{}` has access type `{found}`, not {name}",
        element.name()
    ));
    Err(StepError::at("resource", error))
}

/// Hands content out, and the resource as it came in.
fn handed_out(
    cx: &StepContext,
    content: impl Into<Content>,
    was: Json,
    resource: Json,
) -> Outcome<Output> {
    let lineage = Lineage {
        resource: Some(was),
        ..Lineage::default()
    };
    let file = cx.offer("file", content).with_lineage(Some(lineage));
    Outcome::new(Output {
        file,
        resource: ResourceField(resource),
    })
}

async fn run(
    cx: StepContext,
    spec: Spec,
    kind: AccessType,
    name: &str,
) -> Result<Outcome<Output>, StepError> {
    let resource = spec.resource.0;
    let content = read(&cx, &resource, kind, name).await?;
    Ok(handed_out(&cx, content, resource.clone(), resource))
}

/// `DownloadWgetResource`: a handle to what a URL gives.
pub struct DownloadWgetResource;

impl Transformer for DownloadWgetResource {
    const TYPE: &'static str = "DownloadWgetResource/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads what the URL in a resource's access gives.";
    const EXAMPLE: &'static str = "- {id: get1, type: DownloadWgetResource/v1alpha1, spec: {resource: {name: tool, version: 1.0.0, type: blob, relation: external, access: {type: wget, url: 'https://downloads.example/tool-1.0.0.tar.gz'}}}}";
    type Spec = Spec;
    type Output = Output;

    async fn run(&self, cx: StepContext, spec: Spec) -> Result<Outcome<Output>, StepError> {
        run(cx, spec, AccessType::Wget, "wget").await
    }
}

/// `GetGitHubCommit`: a handle to the archive that GitHub makes of a commit.
pub struct GetGitHubCommit;

impl Transformer for GetGitHubCommit {
    const TYPE: &'static str = "GetGitHubCommit/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads a commit as GitHub archives it.";
    const EXAMPLE: &'static str = "- {id: get1, type: GetGitHubCommit/v1alpha1, spec: {resource: {name: source, version: 1.0.0, type: directoryTree, relation: external, access: {type: gitHub, repoUrl: 'https://github.com/acme/app', commit: 0123456789abcdef0123456789abcdef01234567}}}}";
    type Spec = Spec;
    type Output = Output;

    async fn run(&self, cx: StepContext, spec: Spec) -> Result<Outcome<Output>, StepError> {
        run(cx, spec, AccessType::GitHub, "gitHub").await
    }
}

/// `GetGitCommit`: a handle to the files of a commit of a git repository.
pub struct GetGitCommit;

impl Transformer for GetGitCommit {
    const TYPE: &'static str = "GetGitCommit/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str =
        "Reads the files of a commit of a git repository, as a compressed tar.";
    const EXAMPLE: &'static str = "- {id: get1, type: GetGitCommit/v1alpha1, spec: {resource: {name: source, version: 1.0.0, type: directoryTree, relation: external, access: {type: git, repository: 'https://git.example/acme/app.git', commit: 0123456789abcdef0123456789abcdef01234567}}}}";
    type Spec = Spec;
    type Output = Output;

    async fn run(&self, cx: StepContext, spec: Spec) -> Result<Outcome<Output>, StepError> {
        let mut resource = spec.resource.0;
        let was = resource.clone();
        let element = Element::new(ElementKind::Resource, &was, "");
        let access = element.access_value().cloned().unwrap_or_default();
        expect_type(&element, &access, AccessType::Git, "git")?;
        let session = cx.session::<Session>()?;
        let found = session.git_commit(&access, element.digest().as_ref()).await;
        let found = found.map_err(|error| StepError::at("resource", error))?;
        // What the reference named when the content was read.
        if let Some(access) = resource.get_mut("access").and_then(Json::as_object_mut)
            && field(access, "commit").is_none()
        {
            access.insert("commit".to_owned(), found.commit.into());
        }
        Ok(handed_out(&cx, found.archive, was, resource))
    }
}

/// `GetOCIImageLayer`: a handle to one blob of an OCI repository.
pub struct GetOciImageLayer;

impl Transformer for GetOciImageLayer {
    const TYPE: &'static str = "GetOCIImageLayer/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads one blob of an OCI repository.";
    const EXAMPLE: &'static str = "- {id: get1, type: GetOCIImageLayer/v1alpha1, spec: {resource: {name: layer, version: 1.0.0, type: blob, relation: external, access: {type: ociBlob, ref: registry.example/acme/image, mediaType: application/gzip, size: 2, digest: 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}}}}";
    type Spec = Spec;
    type Output = Output;

    async fn run(&self, cx: StepContext, spec: Spec) -> Result<Outcome<Output>, StepError> {
        run(cx, spec, AccessType::OciBlob, "ociBlob").await
    }
}
