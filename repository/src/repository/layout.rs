//! What a component version looks like as OCI content (formats.md 3.2 to 3.4).
//!
//! *Invariant*: no clock, no order of arrival, no version of this program goes into it. The manifest follows from the
//! descriptor and the lengths of its local blobs.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ocm_content::{Error, RawManifest, Result};
use ocm_specs::descriptor::{ComponentDescriptor, Element, ElementKind, Encoded};
use ocm_specs::json::to_sorted;
use ocm_specs::media_type::{
    COMPONENT_CONFIG, COMPONENT_INDEX_ARTIFACT_TYPE, DESCRIPTOR_ARTIFACT_TYPE, OCI_EMPTY,
    OCTET_STREAM, is_manifest,
};
use ocm_specs::oci::{Annotations, Descriptor, Manifest};
use ocm_specs::{Digest, Identity};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Who made a component version, in its annotations. The same for all versions of this program: the manifest of equal
/// content must not change with it.
pub const CREATOR: &str = "OCM Rust Library";

/// Annotation: `<component>:<version>`.
pub(crate) const COMPONENT_VERSION: &str = "software.ocm.componentversion";
/// Annotation: which elements a layer or manifest belongs to.
const ARTIFACT: &str = "software.ocm.artifact";
/// Annotation that the specification asks for on the descriptor; the Go libraries do not write it.
pub(super) const DESCRIPTOR_MARK: &str = "software.ocm.descriptor";

/// Annotation of a layer that came from a component archive: its file's name, which local references use there.
pub(crate) const FILE_NAME: &str = "org.opencontainers.image.title";

/// The config blob: where the descriptor is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ComponentConfig {
    pub(super) component_descriptor_layer: Option<LayerLink>,
}

/// A link with exactly the fields that the config has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerLink {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Is this the media type of a config blob that tells where the descriptor is?
pub(super) fn is_component_config(media_type: &str) -> bool {
    matches!(
        media_type,
        COMPONENT_CONFIG
            | "application/vnd.gardener.cloud.cnudie.component.config.v1+json"
            | "application/vnd.oci.gardener.cloud.cnudie.component-descriptor-metadata.config.v2+json"
    )
}

/// Content beside the descriptor, and the elements that share it.
#[derive(Clone, Debug)]
pub(super) struct LocalContent {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    elements: Vec<(ElementKind, Identity)>,
}

impl LocalContent {
    /// Is it an artifact of its own, beside the component's manifest?
    pub(super) fn is_artifact(&self) -> bool {
        is_manifest(&self.media_type)
    }

    /// The first element, for messages.
    pub(super) fn named(&self) -> String {
        self.elements
            .first()
            .map(|(kind, identity)| format!("{kind} `{identity}`"))
            .unwrap_or_default()
    }

    /// The link to it, as the manifest or index has it.
    pub(super) fn link(&self, size: u64) -> Descriptor {
        let elements: Vec<Value> = self
            .elements
            .iter()
            .map(|(kind, identity)| json!({"identity": identity, "kind": kind.as_str()}))
            .collect();
        let mut link = Descriptor::new(self.media_type.clone(), self.digest.clone(), size);
        link.annotations = Some(Annotations::from([(
            ARTIFACT.to_owned(),
            to_sorted(&Value::Array(elements)),
        )]));
        link.platform = self
            .elements
            .first()
            .and_then(|(_, identity)| platform(identity));
        link
    }
}

/// The platform that an identity tells, in the form of the OCI image spec.
fn platform(identity: &Identity) -> Option<Value> {
    let (architecture, os) = (identity.get("architecture"), identity.get("os"));
    if architecture.is_none() && os.is_none() {
        return None;
    }
    let mut platform = Map::new();
    platform.insert(
        "architecture".into(),
        architecture.unwrap_or_default().into(),
    );
    platform.insert("os".into(), os.unwrap_or_default().into());
    if let Some(version) = identity.get("os.version") {
        platform.insert("os.version".into(), version.into());
    }
    if let Some(features) = identity.get("os.features") {
        platform.insert("os.features".into(), features.split(',').collect());
    }
    if let Some(variant) = identity.get("variant") {
        platform.insert("variant".into(), variant.into());
    }
    Some(Value::Object(platform))
}

/// The digests that a local reference names: one, or several separated by commas where v1 split a blob. Component archives
/// write them as the names of files, with a dot. `None` for any other name.
pub(crate) fn digests_of(reference: &str) -> Option<Vec<Digest>> {
    let digest = |part: &str| part.trim().replacen('.', ":", 1).parse().ok();
    reference.split(',').map(digest).collect()
}

fn local_digests(reference: &str) -> Result<Vec<Digest>> {
    digests_of(reference)
        .ok_or_else(|| Error::invalid(format!("local reference `{reference}` is not a digest")))
}

/// All local content in descriptor order, resources before sources, each once however many elements share it.
pub(super) fn local_contents(descriptor: &ComponentDescriptor) -> Result<Vec<LocalContent>> {
    let mut contents: IndexMap<(Digest, bool), LocalContent> = IndexMap::new();
    for element in descriptor.resources().chain(descriptor.sources()) {
        let blame =
            |error: Error| error.context(format!("{} `{}`", element.kind(), element.identity()));
        let (digests, media_type) = match local_access(&element).map_err(blame)? {
            Some(found) => found,
            None => continue,
        };
        for digest in digests {
            let is_artifact = is_manifest(&media_type);
            contents
                .entry((digest.clone(), is_artifact))
                .or_insert_with(|| LocalContent {
                    digest,
                    media_type: media_type.clone(),
                    elements: Vec::new(),
                })
                .elements
                .push((element.kind(), element.identity()));
        }
    }
    Ok(contents.into_values().collect())
}

fn local_access(element: &Element<'_>) -> Result<Option<(Vec<Digest>, String)>> {
    let Some(value) = element.access_value() else {
        return Ok(None);
    };
    let access = ocm_specs::access::Access::parse(value)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let Some(local) = access.local_blob() else {
        return Ok(None);
    };
    let media_type = local.media_type.unwrap_or(OCTET_STREAM).to_owned();
    Ok(Some((local_digests(local.local_reference)?, media_type)))
}

/// A component version as OCI content, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The descriptor as it is stored.
    pub(super) descriptor: Encoded,
    /// The config blob.
    pub(super) config: Vec<u8>,
    /// The component's own manifest.
    pub(super) manifest: RawManifest,
    /// The index around it, where some local content is an artifact.
    pub(super) index: Option<RawManifest>,
    /// Do the manifests refer to the component index?
    pub(super) is_indexed: bool,
}

impl Layout {
    /// Lays a component version out, as a referrer of the component index if `is_indexed`. `size` gives the length of local
    /// content; `None` where one is not known.
    pub(super) fn new(
        descriptor: &ComponentDescriptor,
        contents: &[LocalContent],
        is_indexed: bool,
        size: impl Fn(&Digest) -> Option<u64>,
    ) -> Option<Self> {
        let stored = descriptor.to_stored(ocm_specs::descriptor::Encoding::Json);
        let layer = Descriptor::of(stored.media_type.clone(), &stored.bytes);
        let config = config_bytes(&layer);
        let mut layers = vec![layer];
        let mut artifacts = Vec::new();
        for content in contents {
            let link = content.link(size(&content.digest)?);
            if content.is_artifact() {
                artifacts.push(link);
            } else {
                layers.push(link);
            }
        }
        let mut manifest = Manifest::image(Descriptor::of(COMPONENT_CONFIG, &config), layers);
        manifest.artifact_type = Some(DESCRIPTOR_ARTIFACT_TYPE.to_owned());
        let subject = is_indexed.then(component_index_link);
        manifest.subject.clone_from(&subject);
        let noted = annotations(descriptor, "Manifest");
        manifest.annotations = Some(noted.clone());
        let manifest = RawManifest::write(&manifest);
        let index = (!artifacts.is_empty()).then(|| {
            let mut link = manifest.descriptor();
            link.artifact_type = Some(DESCRIPTOR_ARTIFACT_TYPE.to_owned());
            link.annotations = Some(noted);
            artifacts.insert(0, link);
            let mut index = Manifest::index(artifacts);
            index.artifact_type = Some(DESCRIPTOR_ARTIFACT_TYPE.to_owned());
            index.annotations = Some(annotations(descriptor, "Manifest Index"));
            index.subject = subject;
            RawManifest::write(&index)
        });
        Some(Self {
            descriptor: stored,
            config,
            manifest,
            index,
            is_indexed,
        })
    }

    /// What the tag names.
    pub(super) fn root(&self) -> &RawManifest {
        self.index.as_ref().unwrap_or(&self.manifest)
    }
}

pub(crate) fn config_bytes(layer: &Descriptor) -> Vec<u8> {
    let config = ComponentConfig {
        component_descriptor_layer: Some(LayerLink {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
        }),
    };
    serde_json::to_vec(&config).expect("texts and numbers are always JSON")
}

fn annotations(descriptor: &ComponentDescriptor, form: &str) -> Annotations {
    let (name, version) = (descriptor.name(), descriptor.version());
    let site = "https://ocm.software";
    BTreeMap::from([
        (COMPONENT_VERSION, format!("{name}:{version}")),
        ("software.ocm.creator", CREATOR.to_owned()),
        (
            "org.opencontainers.image.title",
            format!("OCM Component Descriptor OCI Artifact {form} for {name} in version {version}"),
        ),
        (
            "org.opencontainers.image.description",
            format!(
                "Holds the OCM component descriptor of {name} and the content stored beside it."
            ),
        ),
        ("org.opencontainers.image.authors", CREATOR.to_owned()),
        ("org.opencontainers.image.url", site.to_owned()),
        ("org.opencontainers.image.documentation", site.to_owned()),
        ("org.opencontainers.image.version", version.to_owned()),
    ])
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The component index: one fixed manifest that all component versions of an OCI repository may refer to, so that its
/// referrers are their list (formats.md 3.6). Blanks that its text lacks are missing in the reference, too.
pub fn component_index() -> RawManifest {
    let mut empty = Descriptor::of(OCI_EMPTY, b"{}");
    empty.data = Some("e30=".to_owned());
    let mut manifest = Manifest::image(empty.clone(), vec![empty]);
    manifest.artifact_type = Some(COMPONENT_INDEX_ARTIFACT_TYPE.to_owned());
    let description = "This is an OCM component index. It is an empty jsonthat can be used as referrer for OCM component descriptors. It is used as a subjectfor all OCM Component Version Top-Level Manifests and can be used to reference back allOCM Component Versions";
    let notes = [
        ("org.opencontainers.image.description", description),
        ("org.opencontainers.image.title", "OCM Component Index V1"),
    ];
    let notes = notes.map(|(key, text)| (key.to_owned(), text.to_owned()));
    manifest.annotations = Some(Annotations::from(notes));
    RawManifest::write(&manifest)
}

/// The link to the component index, as subjects have it.
fn component_index_link() -> Descriptor {
    let mut link = component_index().descriptor();
    link.artifact_type = Some(COMPONENT_INDEX_ARTIFACT_TYPE.to_owned());
    link
}

/// Component and version as a manifest's annotation tells them.
pub(super) fn annotated_version(annotations: Option<&Annotations>) -> Option<(&str, &str)> {
    let text = annotations?.get(COMPONENT_VERSION)?;
    let text = text
        .strip_prefix("component-descriptors/")
        .unwrap_or(text.as_str());
    let (name, version) = text.split_once(':')?;
    (!version.is_empty() && !version.contains(':')).then_some((name, version))
}
