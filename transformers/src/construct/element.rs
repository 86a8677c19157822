//! Resources and sources: their content stored or looked up, their digests computed and compared.

use std::sync::Arc;

use ocm_content::{Artifact, Content, ContentStore, Error, ErrorKind, Stored, spool};
use ocm_repository::predict_local_blob;
use ocm_specs::access::Access;
use ocm_specs::constructor::{Item, ItemContent};
use ocm_specs::descriptor::{DigestSpec, ElementKind};
use ocm_specs::diagnostic::{Diagnostic, Diagnostics};
use ocm_specs::json::spelling;
use ocm_specs::media_type::is_artifact_archive;
use ocm_specs::oci::Descriptor;
use ocm_specs::reference::{OciReference, OciReferenceError};
use ocm_specs::{Algorithm, Digest};
use serde_json::Value as Json;

use super::ByValue;
use super::inputs::{self, Inputs};
use super::order::Planned;
use super::ownership::Ownership;
use super::remote;
use super::root::Root;
use super::work::Work;

/// An element as the descriptor has it, and what follows from it.
pub(super) struct Built {
    pub(super) value: Json,
    pub(super) ownership: Option<Ownership>,
    pub(super) warnings: Vec<String>,
}

impl Work<'_> {
    /// An element with its content taken in or looked up.
    pub(super) async fn element(
        &self,
        planned: &Planned<'_>,
        item: &Item,
        root: Option<&Root>,
    ) -> Result<Built, Error> {
        let mut built = match (&item.content, root) {
            (ItemContent::Access(access), _) if self.takes_in(item, access)? => {
                let content = remote::content(self.session, access).await?;
                let (hint, warnings) = (hint_of(access)?, Vec::new());
                let taken = inputs::Taken {
                    content,
                    hint,
                    warnings,
                };
                self.by_value(planned, item, taken).await?
            }
            (ItemContent::Access(access), _) => self.by_reference(planned, item, access).await?,
            (ItemContent::Input(input), Some(root)) => {
                let inputs = Inputs {
                    session: self.session,
                    mtime: self.options.source_date.unwrap_or_default(),
                };
                let taken = inputs.take(root, input).await?;
                self.by_value(planned, item, taken).await?
            }
            (ItemContent::Input(_), None) => return Err(Error::internal("an input has no folder")),
        };
        if item.without_digest
            && let Some(fields) = built.value.as_object_mut()
        {
            fields.shift_remove("digest");
        }
        Ok(built)
    }

    /// Is content that is somewhere else to be stored beside the descriptor?
    fn takes_in(&self, item: &Item, access: &Json) -> Result<bool, Error> {
        let is_asked_for = match self.options.by_value {
            ByValue::Inputs => false,
            ByValue::Local => item.value["relation"] == "local",
            ByValue::All => true,
        };
        let is_elsewhere = !matches!(remote::parse(access)?, Access::None | Access::LocalBlob(_));
        Ok(is_asked_for && is_elsewhere && item.kind == ElementKind::Resource)
    }

    /// Stores content beside the descriptor.
    async fn by_value(
        &self,
        planned: &Planned<'_>,
        item: &Item,
        taken: inputs::Taken,
    ) -> Result<Built, Error> {
        let component = planned.component.name.text.as_str();
        let content = taken.content;
        let mut element = item.value.clone();
        let mut stated = item.digest.clone();
        let is_archive =
            matches!(&content, Content::Blob(blob) if is_artifact_archive(&blob.media_type));
        if is_archive && item.kind == ElementKind::Resource {
            // The triple of an archive is that of the artifact inside.
            let hash = algorithm(item);
            let (found, _) = remote::digest(self.session, &content, hash).await?;
            check_stated(stated.as_ref(), &found)?;
            stated.get_or_insert(found);
        }
        if let Some(stated) = &stated {
            element["digest"] = stated.to_value();
        }
        let mut value = match &self.target.repository {
            Some(repository) if !self.target.dry_run => {
                repository
                    .prepare_local_blob(component, item.kind, &element, &content)
                    .await?
            }
            _ => self.predicted(item, &element, &content).await?,
        };
        let stored = value.get("digest").and_then(DigestSpec::from_value);
        if let (Some(stated), Some(stored)) = (&item.digest, &stored) {
            check_stated(Some(stated), stored)?;
        }
        if let Some(hint) = taken.hint {
            value["access"]["referenceName"] = hint.into();
        }
        let warnings = taken.warnings.into_iter();
        let mut built = Built {
            value,
            ownership: None,
            warnings: warnings.map(|it| warning(planned, item, it)).collect(),
        };
        if item.ownership {
            let subject = match &content {
                Content::Artifact(artifact) => artifact.root().cloned(),
                Content::Blob(_) => None,
            };
            let store = self
                .target
                .repository
                .as_ref()
                .map(|repository| repository.store(component))
                .transpose()?;
            self.own(planned, item, &mut built, store.zip(subject));
        }
        Ok(built)
    }

    /// What storing would give, without storing.
    async fn predicted(
        &self,
        item: &Item,
        element: &Json,
        content: &Content,
    ) -> Result<Json, Error> {
        let link = match content {
            Content::Artifact(artifact) => remote::root(artifact)?.clone(),
            Content::Blob(blob) => {
                let known = spool(blob, self.session.limits()).await?;
                known
                    .descriptor()
                    .ok_or_else(|| Error::internal("content that was read has no digest"))?
            }
        };
        if let Some(value) = predict_local_blob(item.kind, element, &link) {
            return Ok(value);
        }
        // The stated digest is by another algorithm.
        let (found, _) = remote::digest(self.session, content, algorithm(item)).await?;
        check_stated(item.digest.as_ref(), &found)?;
        let mut plain = item.value.clone();
        plain["digest"] = DigestSpec::new(&link.digest, link.is_manifest()).to_value();
        let mut value = predict_local_blob(item.kind, &plain, &link)
            .ok_or_else(|| Error::internal("what is stored can't be told"))?;
        value["digest"] = item.digest.clone().unwrap_or(found).to_value();
        Ok(value)
    }

    /// Leaves content where it is; of resources the digest is looked up.
    async fn by_reference(
        &self,
        planned: &Planned<'_>,
        item: &Item,
        access: &Json,
    ) -> Result<Built, Error> {
        let mut value = item.value.clone();
        value["access"] = access.clone();
        let mut built = Built {
            value,
            ownership: None,
            warnings: Vec::new(),
        };
        if item.kind != ElementKind::Resource {
            return Ok(built);
        }
        if let Some(stated) = &item.digest {
            built.value["digest"] = stated.to_value();
        }
        if self.options.skip_reference_digests {
            return Ok(built);
        }
        match remote::parse(access)? {
            Access::None => {}
            Access::LocalBlob(local) => {
                let digest: Digest = local.local_reference.parse().map_err(|_| {
                    Error::invalid(format!(
                        "local reference `{}` is not a digest",
                        local.local_reference
                    ))
                    .with_hint("use `input` for content that is not in the repository yet")
                })?;
                let media_type = local.media_type.unwrap_or_default();
                let found =
                    DigestSpec::new(&digest, ocm_specs::media_type::is_manifest(media_type));
                if !is_artifact_archive(media_type) {
                    check_stated(item.digest.as_ref(), &found)?;
                }
                built.value["digest"] = item.digest.clone().unwrap_or(found).to_value();
            }
            Access::OciArtifact { image_reference } => {
                let artifact = self.session.artifact(image_reference).await?;
                let root = remote::root(&artifact)?.clone();
                let found = DigestSpec::new(&root.digest, true);
                check_stated(item.digest.as_ref(), &found)?;
                built.value["digest"] = item.digest.clone().unwrap_or(found).to_value();
                pin(&mut built.value["access"], image_reference, &root.digest)?;
                if item.ownership {
                    let Artifact::Stored(Stored { store, .. }) = artifact else {
                        return Err(Error::internal(
                            "an artifact that was looked up is not stored",
                        ));
                    };
                    self.own(planned, item, &mut built, Some((store, root)));
                }
                return Ok(built);
            }
            _ => {
                self.digest_elsewhere(planned, item, access, &mut built)
                    .await?
            }
        }
        if item.ownership {
            self.own(planned, item, &mut built, None);
        }
        Ok(built)
    }

    /// Reads content elsewhere for its digest. Types that are not read here are no mistake; they only can't be signed.
    async fn digest_elsewhere(
        &self,
        planned: &Planned<'_>,
        item: &Item,
        access: &Json,
        built: &mut Built,
    ) -> Result<(), Error> {
        let content = match remote::content(self.session, access).await {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let what = if item.digest.is_some() {
                    "its digest is not compared"
                } else {
                    "it gets no digest, and a component version without it can't be signed"
                };
                built
                    .warnings
                    .push(warning(planned, item, format!("{error}: {what}")));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (found, _) = remote::digest(self.session, &content, algorithm(item)).await?;
        check_stated(item.digest.as_ref(), &found)?;
        built.value["digest"] = item.digest.clone().unwrap_or(found).to_value();
        Ok(())
    }

    /// Notes whom an artifact belongs to, or that it is none.
    fn own(
        &self,
        planned: &Planned<'_>,
        item: &Item,
        built: &mut Built,
        artifact: Option<(Arc<dyn ContentStore>, Descriptor)>,
    ) {
        let component = planned.component;
        match artifact {
            Some((store, subject)) => {
                built.ownership = Some(Ownership {
                    store,
                    subject,
                    component: component.name.text.clone(),
                    version: component.version.text.clone(),
                    resource: item.element(&component.version.text).identity(),
                });
            }
            None if self.target.dry_run => {}
            None => {
                let why = "`ownershipPolicy: Always` has no effect: only OCI artifacts can say whom they belong to";
                built.warnings.push(warning(planned, item, why.to_owned()));
            }
        }
    }
}

/// What an artifact is called when it is uploaded again: its repository and tag.
fn hint_of(access: &Json) -> Result<Option<String>, Error> {
    let Access::OciArtifact { image_reference } = remote::parse(access)? else {
        return Ok(None);
    };
    let reference = parsed(image_reference)?;
    let tag = reference
        .tag
        .map(|tag| format!(":{tag}"))
        .unwrap_or_default();
    Ok(Some(reference.repository + &tag).filter(|hint| !hint.is_empty()))
}

fn parsed(text: &str) -> Result<OciReference, Error> {
    text.parse()
        .map_err(|error: OciReferenceError| Error::invalid(error.to_string()))
}

fn warning(planned: &Planned<'_>, item: &Item, message: String) -> String {
    let finding = Diagnostic::warning("W203", item.span, message).at_field(item.path.clone());
    Diagnostics {
        source: planned.source().clone(),
        findings: Vec::new(),
    }
    .render(&finding)
}

/// The hash algorithm of a resource's digest: that of the stated one, else SHA-256.
fn algorithm(item: &Item) -> Algorithm {
    let stated = item.digest.as_ref().and_then(DigestSpec::digest);
    stated.map_or(Algorithm::Sha256, |digest| digest.algorithm())
}

/// What is stated must be what was found. Labels do not count: history left several for the same thing.
fn check_stated(stated: Option<&DigestSpec>, found: &DigestSpec) -> Result<(), Error> {
    let Some(stated) = stated.filter(|stated| !stated.is_excluded()) else {
        return Ok(());
    };
    match (stated.digest(), found.digest()) {
        (Some(stated), Some(found)) if stated == found => Ok(()),
        (Some(stated), Some(found)) if stated.algorithm() == found.algorithm() => {
            Err(Error::mismatch(format!(
                "its content has digest {found}, the constructor states {stated}"
            ))
            .with_hint("correct the `digest`, or leave it out to have it computed"))
        }
        _ => Err(Error::unsupported(format!(
            "the stated digest by {} can't be compared with {} {}",
            stated.hash_algorithm, found.hash_algorithm, found.value
        ))),
    }
}

/// Adds the digest to an image reference, so that it names the same artifact for ever; a tag stays.
fn pin(access: &mut Json, image_reference: &str, digest: &Digest) -> Result<(), Error> {
    let mut reference = parsed(image_reference)?;
    if reference.digest.is_some() {
        return Ok(());
    }
    reference.digest = Some(digest.clone());
    if let Some(fields) = access.as_object_mut() {
        let key = spelling(fields, "imageReference").to_owned();
        fields.insert(key, reference.to_string().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_pinned_once_and_keep_their_tags() {
        let digest = Digest::sha256(b"x");
        for (reference, expected) in [
            ("r.io/a:1", format!("r.io/a:1@{digest}")),
            ("http://r.io:5000/a", format!("http://r.io:5000/a@{digest}")),
            (
                "r.io/a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "r.io/a@sha256:0000000000000000000000000000000000000000000000000000000000000000"
                    .to_owned(),
            ),
        ] {
            let mut access = serde_json::json!({"type": "ociImage", "ImageReference": reference});
            pin(&mut access, reference, &digest).expect("pinned");
            assert_eq!(access["ImageReference"], expected);
        }
    }
}
