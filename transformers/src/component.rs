//! Component versions in and out: `CTFGetComponentVersion`, `OCIAddComponentVersion` and their kin of design 002.
//!
//! Writing has two parts: everything but the tag while the step runs, the tag when the engine publishes, children first.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use ocm_content::{Blob, Content, Error};
use ocm_engine::{
    ContentRef, Effect, Lineage, Outcome, Publish, StepContext, StepError, Transformer,
};
use ocm_repository::{ComponentVersion, Existing, Repository, Session, VersionOutcome};
use ocm_specs::descriptor::{ComponentDescriptor, Encoding};
use ocm_specs::{Digest, RepositorySpec};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fields::{Access, CtfRepository, DescriptorField, OciRepository, RepositoryField, open};
use crate::signing::OnBrokenSignature;
use crate::signing::broken::settle;

/// Largest descriptor that is read from a content port: the largest that a repository gives.
const DESCRIPTOR_LIMIT: u64 = 64 << 20;

/// Which kind of repository a step type is for: the reference has each step twice.
pub trait Storage: Send + Sync + 'static {
    /// The native repository field.
    type Repository: RepositoryField + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    /// The fields of design 002 that name the repository.
    type Place: Place + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    /// `CTFGetComponentVersion` or `OCIGetComponentVersion`.
    const GET: [&'static str; 2];
    /// The native step that writes component versions.
    const ADD: [&'static str; 2];
    /// The native step that reads local resources.
    const GET_LOCAL: [&'static str; 2];
    /// The native step that writes local resources.
    const ADD_LOCAL: [&'static str; 2];
    /// Design 002's component download.
    const DOWNLOAD: [&'static str; 2];
    /// Design 002's component upload.
    const UPLOAD: [&'static str; 2];
    /// Design 002's local blob download.
    const DOWNLOAD_BLOB: [&'static str; 2];
    /// Design 002's local blob upload.
    const UPLOAD_BLOB: [&'static str; 2];
}

/// The fields of design 002 that name a repository.
pub trait Place {
    /// The repository they mean.
    fn spec(&self) -> RepositorySpec;
}

/// Archives in the Common Transport Format.
pub struct Ctf;

/// OCI registries.
pub struct Oci;

/// `filePath` beside a step's other inputs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilePath {
    /// Path of the CTF archive.
    file_path: String,
}

/// `baseUrl` and `subPath` beside a step's other inputs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaseUrl {
    /// Registry, as [scheme://]host[:port].
    base_url: String,
    /// Path below it.
    #[serde(default)]
    sub_path: Option<String>,
}

impl Place for FilePath {
    fn spec(&self) -> RepositorySpec {
        RepositorySpec::ctf(self.file_path.clone())
    }
}

impl Place for BaseUrl {
    fn spec(&self) -> RepositorySpec {
        RepositorySpec::oci(
            self.base_url.clone(),
            self.sub_path.as_deref().unwrap_or_default(),
        )
    }
}

impl Storage for Ctf {
    type Repository = CtfRepository;
    type Place = FilePath;
    const GET: [&'static str; 2] = [
        "CTFGetComponentVersion/v1alpha1",
        "- {id: get1, type: CTFGetComponentVersion/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./archive}, component: acme.org/helloworld, version: 1.0.0}}",
    ];
    const ADD: [&'static str; 2] = [
        "CTFAddComponentVersion/v1alpha1",
        "- {id: add1, type: CTFAddComponentVersion/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./target}, descriptor: '${get1.output.descriptor}'}}",
    ];
    const GET_LOCAL: [&'static str; 2] = [
        "CTFGetLocalResource/v1alpha1",
        "- {id: get1, type: CTFGetLocalResource/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./archive}, component: acme.org/helloworld, version: 1.0.0, resourceIdentity: {name: config}}}",
    ];
    const ADD_LOCAL: [&'static str; 2] = [
        "CTFAddLocalResource/v1alpha1",
        "- {id: add1, type: CTFAddLocalResource/v1alpha1, spec: {repository: {type: CommonTransportFormat/v1, filePath: ./target}, component: acme.org/helloworld, version: 1.0.0, resource: '${get1.output.resource}', file: '${get1.output.file}'}}",
    ];
    const DOWNLOAD: [&'static str; 2] = [
        "downloader.component.ctf/v1alpha1",
        "- {id: download1, type: downloader.component.ctf/v1alpha1, spec: {filePath: ./archive, name: acme.org/helloworld, version: 1.0.0}}",
    ];
    const UPLOAD: [&'static str; 2] = [
        "uploader.component.ctf/v1alpha1",
        "- {id: upload1, type: uploader.component.ctf/v1alpha1, spec: {filePath: ./target, componentDescriptor: '${download1.output.descriptor}'}}",
    ];
    const DOWNLOAD_BLOB: [&'static str; 2] = [
        "downloader.localblob.ctf/v1alpha1",
        "- {id: blob1, type: downloader.localblob.ctf/v1alpha1, spec: {filePath: ./archive, componentDescriptor: '${download1.output.descriptor}', resource: {name: config}}}",
    ];
    const UPLOAD_BLOB: [&'static str; 2] = [
        "uploader.localblob.ctf/v1alpha1",
        "- {id: blob2, type: uploader.localblob.ctf/v1alpha1, spec: {filePath: ./target, componentDescriptor: '${download1.output.descriptor}', data: '${blob1.output.data}'}}",
    ];
}

impl Storage for Oci {
    type Repository = OciRepository;
    type Place = BaseUrl;
    const GET: [&'static str; 2] = [
        "OCIGetComponentVersion/v1alpha1",
        "- {id: get1, type: OCIGetComponentVersion/v1alpha1, spec: {repository: {type: OCIRepository/v1, baseUrl: registry.example, subPath: acme}, component: acme.org/helloworld, version: 1.0.0}}",
    ];
    const ADD: [&'static str; 2] = [
        "OCIAddComponentVersion/v1alpha1",
        "- {id: add1, type: OCIAddComponentVersion/v1alpha1, spec: {repository: {type: OCIRepository/v1, baseUrl: registry.example, subPath: acme}, descriptor: '${get1.output.descriptor}'}}",
    ];
    const GET_LOCAL: [&'static str; 2] = [
        "OCIGetLocalResource/v1alpha1",
        "- {id: get1, type: OCIGetLocalResource/v1alpha1, spec: {repository: {type: OCIRepository/v1, baseUrl: registry.example}, component: acme.org/helloworld, version: 1.0.0, resourceIdentity: {name: config}}}",
    ];
    const ADD_LOCAL: [&'static str; 2] = [
        "OCIAddLocalResource/v1alpha1",
        "- {id: add1, type: OCIAddLocalResource/v1alpha1, spec: {repository: {type: OCIRepository/v1, baseUrl: registry.example}, component: acme.org/helloworld, version: 1.0.0, resource: '${get1.output.resource}', file: '${get1.output.file}'}}",
    ];
    const DOWNLOAD: [&'static str; 2] = [
        "downloader.component.oci/v1alpha1",
        "- {id: download1, type: downloader.component.oci/v1alpha1, spec: {baseUrl: registry.example, subPath: acme, name: acme.org/helloworld, version: 1.0.0}}",
    ];
    const UPLOAD: [&'static str; 2] = [
        "uploader.component.oci/v1alpha1",
        "- {id: upload1, type: uploader.component.oci/v1alpha1, spec: {baseUrl: registry.example, subPath: acme, componentDescriptor: '${download1.output.descriptor}'}}",
    ];
    const DOWNLOAD_BLOB: [&'static str; 2] = [
        "downloader.localblob.oci/v1alpha1",
        "- {id: blob1, type: downloader.localblob.oci/v1alpha1, spec: {baseUrl: registry.example, subPath: acme, componentDescriptor: '${download1.output.descriptor}', resource: {name: config}}}",
    ];
    const UPLOAD_BLOB: [&'static str; 2] = [
        "uploader.localblob.oci/v1alpha1",
        "- {id: blob2, type: uploader.localblob.oci/v1alpha1, spec: {baseUrl: registry.example, subPath: acme, componentDescriptor: '${download1.output.descriptor}', data: '${blob1.output.data}'}}",
    ];
}

/// `CTFGetComponentVersion`, `OCIGetComponentVersion`: reads a component descriptor.
pub struct GetComponentVersion<S>(pub PhantomData<S>);

/// Inputs of [`GetComponentVersion`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    bound = "R: DeserializeOwned"
)]
pub struct GetSpec<R> {
    /// Where it is.
    repository: R,
    /// Component name.
    component: String,
    /// Component version.
    version: String,
}

/// Outputs of [`GetComponentVersion`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct GetOutput {
    /// The component descriptor.
    descriptor: DescriptorField,
}

impl<S: Storage> Transformer for GetComponentVersion<S> {
    const TYPE: &'static str = S::GET[0];
    const EXAMPLE: &'static str = S::GET[1];
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Reads a component descriptor from a repository.";
    type Spec = GetSpec<S::Repository>;
    type Output = GetOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<GetOutput>, StepError> {
        let repository = spec.repository.open(&cx, Access::Read).await?;
        let found = repository.get(&spec.component, &spec.version).await?;
        let descriptor = DescriptorField(found.descriptor.document().clone());
        Ok(Outcome::new(GetOutput { descriptor }))
    }
}

/// `downloader.component.ctf`, `downloader.component.oci`: reads a component version.
pub struct DownloadComponent<S>(pub PhantomData<S>);

/// Inputs of [`DownloadComponent`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(bound = "P: DeserializeOwned")]
#[schemars(extend("additionalProperties" = false))]
pub struct DownloadSpec<P> {
    /// Where it is.
    #[serde(flatten)]
    place: P,
    /// Component name.
    name: String,
    /// Component version.
    version: String,
}

/// Outputs of [`DownloadComponent`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct DownloadOutput {
    /// The component descriptor.
    descriptor: DescriptorField,
    /// The descriptor's bytes as they are stored.
    data: ContentRef,
}

impl<S: Storage> Transformer for DownloadComponent<S> {
    const TYPE: &'static str = S::DOWNLOAD[0];
    const EXAMPLE: &'static str = S::DOWNLOAD[1];
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str =
        "Reads a component version: its descriptor as a value and as bytes.";
    type Spec = DownloadSpec<S::Place>;
    type Output = DownloadOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<DownloadOutput>, StepError> {
        let session = cx.session::<Session>()?;
        let repository = open(&session, &spec.place.spec(), Access::Read).await?;
        let found = repository.get(&spec.name, &spec.version).await?;
        let lineage = Lineage {
            component: spec.name,
            version: spec.version,
            resource: None,
        };
        let data = cx
            .offer("data", stored_bytes(&found))
            .with_lineage(Some(lineage));
        let descriptor = DescriptorField(found.descriptor.document().clone());
        Ok(Outcome::new(DownloadOutput { descriptor, data }))
    }
}

fn stored_bytes(version: &ComponentVersion) -> Blob {
    let stored = version.descriptor.to_stored(Encoding::Json);
    Blob::from_bytes(stored.media_type.clone(), stored.bytes.to_vec())
}

/// `CTFAddComponentVersion`, `OCIAddComponentVersion`: writes a component version.
pub struct AddComponentVersion<S>(pub PhantomData<S>);

/// Inputs of [`AddComponentVersion`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    bound = "R: DeserializeOwned"
)]
pub struct AddSpec<R> {
    /// Where it goes.
    repository: R,
    /// The component descriptor; its local blobs must be in the repository or be brought there by other steps.
    descriptor: DescriptorField,
    /// What becomes of another one that is there already (default: the run's).
    #[serde(default)]
    conflict_policy: Option<ConflictPolicy>,
    /// What becomes of signatures that the run broke (default: the run's).
    #[serde(default)]
    on_broken_signature: Option<OnBrokenSignature>,
}

/// What becomes of a component version that is at the target already. Provided to a [`Session`], the default of its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConflictPolicy {
    /// One that differs is an error.
    Fail,
    /// One that differs in what is not signed is updated; any other difference is an error.
    #[default]
    Update,
    /// One that differs is replaced.
    Replace,
    /// Whatever is there is left.
    Skip,
    /// Manifests are published even where they are equal.
    Enforce,
}

impl From<ConflictPolicy> for Existing {
    fn from(policy: ConflictPolicy) -> Self {
        match policy {
            ConflictPolicy::Fail => Self::Refuse,
            ConflictPolicy::Update => Self::Fail,
            ConflictPolicy::Replace => Self::Overwrite,
            ConflictPolicy::Skip => Self::NoUpdate,
            ConflictPolicy::Enforce => Self::Enforce,
        }
    }
}

/// What the steps of a run have written, for who provides it to the run's [`Session`].
#[derive(Debug, Default)]
pub struct Written(Mutex<BTreeMap<(String, String), VersionOutcome>>);

impl Written {
    fn note(&self, version: String, place: String, outcome: VersionOutcome) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((place, version), outcome);
    }

    /// Component versions (`component:version`) by place, with what became of them, sorted.
    pub fn all(&self) -> BTreeMap<(String, String), VersionOutcome> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.clone()
    }
}

/// A step without outputs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Nothing {}

impl<S: Storage> Transformer for AddComponentVersion<S> {
    const TYPE: &'static str = S::ADD[0];
    const EXAMPLE: &'static str = S::ADD[1];
    const EFFECT: Effect = Effect::Keyed;
    const SUMMARY: &'static str = "Writes a component version into a repository.";
    type Spec = AddSpec<S::Repository>;
    type Output = Nothing;

    async fn run(&self, cx: StepContext, spec: Self::Spec) -> Result<Outcome<Nothing>, StepError> {
        let session = cx.session::<Session>()?;
        let descriptor = spec.descriptor.descriptor(&session, "descriptor")?;
        let repository = spec.repository.open(&cx, Access::Write).await?;
        let descriptor = settle(&session, descriptor, spec.on_broken_signature)
            .map_err(|error| StepError::at("descriptor", error))?;
        let (_, publish) = prepare(&cx, &repository, &descriptor, spec.conflict_policy).await?;
        Ok(Outcome::new(Nothing {}).with_publish(publish))
    }
}

/// `uploader.component.ctf`, `uploader.component.oci`: writes a component version.
pub struct UploadComponent<S>(pub PhantomData<S>);

/// Inputs of [`UploadComponent`]: the descriptor as a value, or its bytes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound = "P: DeserializeOwned")]
#[schemars(extend("additionalProperties" = false))]
pub struct UploadSpec<P> {
    /// Where it goes.
    #[serde(flatten)]
    place: P,
    /// The component descriptor.
    #[serde(default)]
    component_descriptor: Option<DescriptorField>,
    /// The component descriptor's bytes.
    #[serde(default)]
    data: Option<ContentRef>,
    /// What becomes of another one that is there already (default: the run's).
    #[serde(default)]
    conflict_policy: Option<ConflictPolicy>,
    /// What becomes of signatures that the run broke (default: the run's).
    #[serde(default)]
    on_broken_signature: Option<OnBrokenSignature>,
}

/// Outputs of [`UploadComponent`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct UploadOutput {
    /// Component name.
    name: String,
    /// Component version.
    version: String,
    /// Digest of the component version's root manifest.
    digest: String,
}

impl<S: Storage> Transformer for UploadComponent<S> {
    const TYPE: &'static str = S::UPLOAD[0];
    const EXAMPLE: &'static str = S::UPLOAD[1];
    const EFFECT: Effect = Effect::Keyed;
    const SUMMARY: &'static str =
        "Writes a component version, given as descriptor or as the descriptor's bytes.";
    type Spec = UploadSpec<S::Place>;
    type Output = UploadOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: Self::Spec,
    ) -> Result<Outcome<UploadOutput>, StepError> {
        let session = cx.session::<Session>()?;
        let descriptor = match (&spec.component_descriptor, &spec.data) {
            (Some(descriptor), None) => descriptor.descriptor(&session, "componentDescriptor")?,
            (None, Some(data)) => decode(&cx, data).await?,
            (Some(_), Some(_)) => {
                return Err(StepError::invalid(
                    "`componentDescriptor` and `data` say the same: give one of them",
                ));
            }
            (None, None) => {
                return Err(StepError::invalid("needs `componentDescriptor` or `data`"));
            }
        };
        let descriptor = settle(&session, descriptor, spec.on_broken_signature)?;
        let repository = open(&session, &spec.place.spec(), Access::Write).await?;
        let (digest, publish) =
            prepare(&cx, &repository, &descriptor, spec.conflict_policy).await?;
        let output = UploadOutput {
            name: descriptor.name().to_owned(),
            version: descriptor.version().to_owned(),
            digest: digest.to_string(),
        };
        Ok(Outcome::new(output).with_publish(publish))
    }
}

async fn decode(cx: &StepContext, data: &ContentRef) -> Result<ComponentDescriptor, StepError> {
    let at = |error: Error| StepError::at("data", error);
    let Content::Blob(blob) = cx.content(data).await? else {
        return Err(at(Error::invalid(
            "an OCI artifact is no component descriptor",
        )));
    };
    let bytes = blob.read(DESCRIPTOR_LIMIT).await?;
    ComponentDescriptor::decode(&blob.media_type, bytes.to_vec())
        .map_err(|error| at(Error::invalid(error.to_string())))
}

/// Brings everything there but the tag; gives the digest of the root manifest and what makes it visible.
///
/// A component version is a root: it becomes visible after those it references.
async fn prepare(
    cx: &StepContext,
    repository: &Repository,
    descriptor: &ComponentDescriptor,
    policy: Option<ConflictPolicy>,
) -> Result<(Digest, Publish), StepError> {
    let session = cx.session::<Session>()?;
    let policy = policy
        .or_else(|| session.provided::<ConflictPolicy>().map(|it| *it))
        .unwrap_or_default();
    let key = root_key(repository, descriptor.name(), descriptor.version())?;
    cx.will_publish(&key);
    let prepared = repository
        .prepare_version(descriptor, policy.into())
        .await?;
    let digest = prepared.root().digest;
    let after = descriptor
        .references()
        .filter_map(|reference| {
            // A name that is none can't be one of this run.
            root_key(repository, reference.component_name()?, reference.version()).ok()
        })
        .collect();
    let written = session.provided::<Written>();
    let carried = format!("{}:{}", descriptor.name(), descriptor.version());
    let publish = Publish::new(move || async move {
        let published = prepared.publish().await?;
        if let Some(written) = written {
            let place = prepared.repository().spec().to_string();
            written.note(carried, place, published.outcome);
        }
        Ok(())
    });
    Ok((digest, publish.root(key, after)))
}

/// What becomes visible with a component version: by the place where it really lies, however the repository is spelled.
fn root_key(repository: &Repository, component: &str, version: &str) -> Result<String, Error> {
    Ok(format!(
        "{}:{version}",
        repository.store(component)?.location()
    ))
}
