//! Ownership referrers: manifests that tell of an artifact which component version has it (formats.md 3.7).

use std::sync::Arc;

use base64::Engine as _;
use ocm_content::{Blob, ContentStore, Error, RawManifest};
use ocm_specs::Identity;
use ocm_specs::json::to_canonical;
use ocm_specs::media_type::OCI_EMPTY;
use ocm_specs::oci::{Annotations, Descriptor, Manifest};
use serde_json::json;

/// What kind of referrer it is.
const ARTIFACT_TYPE: &str = "application/vnd.ocm.software.ownership.v1+json";
/// The content of config and layer.
const EMPTY: &[u8] = b"{}";

/// An artifact and whom it belongs to.
#[derive(Debug)]
pub(super) struct Ownership {
    /// Where the artifact is.
    pub(super) store: Arc<dyn ContentStore>,
    pub(super) subject: Descriptor,
    pub(super) component: String,
    pub(super) version: String,
    pub(super) resource: Identity,
}

impl Ownership {
    /// Puts the referrer beside its subject. May be repeated.
    pub(super) async fn publish(&self) -> Result<(), Error> {
        self.store
            .push(&Blob::from_bytes(OCI_EMPTY, EMPTY), &[])
            .await?;
        let manifest = RawManifest::write(&self.manifest());
        self.store
            .put_manifest(&manifest, None)
            .await
            .map_err(|error| {
                error.context(format!(
                    "tell {} whom it belongs to",
                    self.subject.digest.short()
                ))
            })
    }

    fn manifest(&self) -> Manifest {
        let mut empty = Descriptor::of(OCI_EMPTY, EMPTY);
        empty.data = Some(base64::engine::general_purpose::STANDARD.encode(EMPTY));
        let mut manifest = Manifest::image(empty.clone(), vec![empty]);
        manifest.artifact_type = Some(ARTIFACT_TYPE.to_owned());
        manifest.subject = Some(Descriptor::new(
            self.subject.media_type.clone(),
            self.subject.digest.clone(),
            self.subject.size,
        ));
        let artifact = to_canonical(&json!({"identity": self.resource, "kind": "resource"}));
        manifest.annotations = Some(Annotations::from([
            ("software.ocm.artifact".to_owned(), artifact),
            (
                "software.ocm.component.name".to_owned(),
                self.component.clone(),
            ),
            (
                "software.ocm.component.version".to_owned(),
                self.version.clone(),
            ),
        ]));
        manifest
    }
}
