//! Where single resources land: `OCIImageReferenceOverride/v1alpha1` (transformation.md 5.1) and v1's upload handlers.

use std::collections::{BTreeMap, BTreeSet};

use ocm_content::Error;
use ocm_repository::ComponentVersion;
use ocm_specs::{Identity, RepositorySpec};
use serde::Deserialize;
use serde_json::Value as Json;

use super::nodes::key_of;

/// The type of a list of overrides, without its version.
pub const OVERRIDE_TYPE: &str = "OCIImageReferenceOverride";

/// One resource, and the image reference it gets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Override {
    /// Names of references that lead from a component version that is carried to the one with the resource.
    #[serde(default)]
    pub reference_path: Vec<String>,
    /// Name and extra identity of the resource.
    pub resource: Identity,
    /// Where it goes.
    pub oci: Place,
}

/// Parts of an image reference; what is left out is the target's or the resource's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    /// Host and perhaps a path; the target's without.
    #[serde(default)]
    pub registry: Option<String>,
    /// The repository; that of the source image without.
    #[serde(default)]
    pub repository: Option<String>,
    /// The tag; that of the source image, else the resource's version, without.
    #[serde(default)]
    pub tag: Option<String>,
}

/// One of v1's handlers `ocm/ociArtifacts`: artifacts of some kind go below one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// The type of the resources; all without. `ociArtifact` and `ociImage` are the same.
    pub artifact_type: Option<String>,
    /// The media type of local blobs; all without.
    pub media_type: Option<String>,
    /// Only where the target is a registry?
    pub only_registries: bool,
    /// Host and path, without a scheme.
    pub below: String,
}

impl Override {
    /// Reads a document: `{type: OCIImageReferenceOverride/v1alpha1, spec: [...]}`.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`]: another type, unknown or missing fields, one resource twice.
    pub fn list(document: &Json) -> Result<Vec<Self>, Error> {
        let kind = document.get("type").and_then(Json::as_str);
        let kind = kind.unwrap_or_default();
        if !matches!(kind.split_once('/'), Some((OVERRIDE_TYPE, "v1alpha1")))
            && kind != OVERRIDE_TYPE
        {
            return Err(Error::invalid(format!(
                "`{kind}` is not the type of an upload configuration"
            ))
            .with_hint(format!("write type: {OVERRIDE_TYPE}/v1alpha1")));
        }
        let list = document.get("spec").cloned().unwrap_or(Json::Null);
        let list: Vec<Self> = serde_json::from_value(list)
            .map_err(|error| Error::invalid(format!("{OVERRIDE_TYPE}: spec: {error}")))?;
        for (index, one) in list.iter().enumerate() {
            let same =
                |it: &&Self| it.reference_path == one.reference_path && it.resource == one.resource;
            if one.resource.name().is_none() {
                return Err(Error::invalid(format!(
                    "{OVERRIDE_TYPE}: spec[{index}].resource has no `name`"
                )));
            }
            if list[..index].iter().any(|it| same(&it)) {
                return Err(Error::invalid(format!(
                    "{OVERRIDE_TYPE}: spec[{index}] is about the same resource as an entry before it"
                )));
            }
        }
        Ok(list)
    }
}

/// Overrides by component version and number of the resource.
pub(super) type Overrides = BTreeMap<(String, usize), Place>;

/// Finds the resources that overrides are about, from all versions that are carried on.
///
/// # Errors
/// [`ocm_content::ErrorKind::NotFound`] for an override that is about none.
pub(super) fn resolve(
    overrides: &[Override],
    versions: &[ComponentVersion],
) -> Result<Overrides, Error> {
    let mut found = Overrides::new();
    if overrides.is_empty() {
        return Ok(found);
    }
    let by_name: BTreeMap<String, &ComponentVersion> = versions
        .iter()
        .map(|version| (key_of(&version.descriptor), version))
        .collect();
    let referenced: BTreeSet<String> = versions
        .iter()
        .flat_map(|version| version.descriptor.references())
        .map(|it| {
            format!(
                "{}:{}",
                it.component_name().unwrap_or_default(),
                it.version()
            )
        })
        .collect();
    for (number, one) in overrides.iter().enumerate() {
        let mut is_used = false;
        // Paths start at what nothing else that is carried references.
        for (name, root) in by_name
            .iter()
            .filter(|(name, _)| !referenced.contains(*name))
        {
            let Some((name, version)) = walk(name, root, &one.reference_path, &by_name) else {
                continue;
            };
            for (index, resource) in version.descriptor.resources().enumerate() {
                let identity = resource.extra_identity().with("name", resource.name());
                if one.resource == identity || one.resource == resource.identity() {
                    is_used = true;
                    found.insert((name.clone(), index), one.oci.clone());
                }
            }
        }
        if !is_used {
            let path = one.reference_path.join("/");
            return Err(Error::not_found(format!(
                "{OVERRIDE_TYPE}: spec[{number}] names resource `{}` at reference path `{path}`, and nothing that is carried is that",
                one.resource
            ))
            .with_hint("paths are names of references from a root on; is --recursive missing?"));
        }
    }
    Ok(found)
}

fn walk<'v>(
    name: &str,
    root: &'v ComponentVersion,
    path: &[String],
    by_name: &BTreeMap<String, &'v ComponentVersion>,
) -> Option<(String, &'v ComponentVersion)> {
    let (mut name, mut version) = (name.to_owned(), root);
    for step in path {
        let reference = version
            .descriptor
            .references()
            .find(|it| it.name() == step)?;
        name = format!(
            "{}:{}",
            reference.component_name().unwrap_or_default(),
            reference.version()
        );
        version = by_name.get(&name)?;
    }
    Some((name, version))
}

impl Place {
    /// The whole reference. `hint` is what the artifact is called where it comes from, `version` the resource's.
    pub(super) fn reference(
        &self,
        target: &RepositorySpec,
        hint: Option<&str>,
        version: &str,
    ) -> Result<String, &'static str> {
        let (own, digest) = match hint.and_then(|it| it.split_once('@')) {
            Some((name, digest)) => (Some(name), Some(digest)),
            None => (hint, None),
        };
        let (own_repository, own_tag) = match own.and_then(|it| it.rsplit_once(':')) {
            Some((repository, tag)) => (Some(repository), Some(tag)),
            None => (own, None),
        };
        let repository = match (&self.repository, own_repository) {
            (Some(repository), _) => repository.trim_matches('/'),
            (None, Some(own)) => own,
            (None, None) => {
                return Err("it needs a `repository`: the resource was no image before");
            }
        };
        let name = match (self.tag.as_deref().or(own_tag), digest) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{digest}"),
            (None, None) => format!("{repository}:{}", version.replace('+', ".build-")),
        };
        match &self.registry {
            Some(registry) => Ok(format!("{}/{name}", registry.trim_end_matches('/'))),
            None => super::image_below(target, &name)
                .ok_or("it needs a `registry`: the target is an archive"),
        }
    }
}

impl Handler {
    /// Is a resource for it, on its way to that target?
    pub(super) fn is_for(
        &self,
        resource: &Json,
        media_type: Option<&str>,
        target: &RepositorySpec,
    ) -> bool {
        let kind = resource
            .get("type")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let same = |kind: &str| match kind {
            "ociImage" => "ociArtifact".to_owned(),
            other => other.to_owned(),
        };
        let is_kind = self
            .artifact_type
            .as_deref()
            .is_none_or(|wanted| same(wanted) == same(kind));
        // An image by reference has no media type before it is read.
        let is_media = match (self.media_type.as_deref(), media_type) {
            (Some(wanted), Some(found)) => {
                found == wanted || found.starts_with(&format!("{wanted}+"))
            }
            _ => true,
        };
        let is_place = !self.only_registries || matches!(target, RepositorySpec::Oci(_));
        is_kind && is_media && is_place
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_completed() {
        let target = RepositorySpec::oci("target.example", "deep");
        let archive = RepositorySpec::ctf("./x");
        let place = |registry: Option<&str>, repository: Option<&str>, tag: Option<&str>| Place {
            registry: registry.map(str::to_owned),
            repository: repository.map(str::to_owned),
            tag: tag.map(str::to_owned),
        };
        for (place, target, hint, expected) in [
            (
                place(None, None, None),
                &target,
                Some("acme/a:1"),
                Ok("target.example/deep/acme/a:1"),
            ),
            (
                place(None, Some("b"), None),
                &target,
                Some("acme/a:1"),
                Ok("target.example/deep/b:1"),
            ),
            (
                place(Some("r.io/x"), Some("b"), Some("t")),
                &archive,
                None,
                Ok("r.io/x/b:t"),
            ),
            (
                place(None, Some("b"), None),
                &target,
                None,
                Ok("target.example/deep/b:2.0.build-1"),
            ),
            (
                place(None, None, Some("t")),
                &target,
                Some("a@sha256:0"),
                Ok("target.example/deep/a:t"),
            ),
            (place(None, None, None), &target, None, Err("repository")),
            (
                place(None, Some("b"), None),
                &archive,
                None,
                Err("registry"),
            ),
        ] {
            match (place.reference(target, hint, "2.0+1"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn lists_are_checked() {
        let list = |spec: Json| {
            Override::list(&json!({"type": "OCIImageReferenceOverride/v1alpha1", "spec": spec}))
        };
        let entry = json!({"referencePath": ["a"], "resource": {"name": "x", "arch": "arm"}, "oci": {"tag": "t"}});
        assert_eq!(list(json!([entry])).map(|it| it.len()).ok(), Some(1));
        for (spec, part) in [
            (json!([entry, entry]), "spec[1] is about the same"),
            (
                json!([{"resource": {"arch": "arm"}, "oci": {}}]),
                "has no `name`",
            ),
            (
                json!([{"resource": {"name": "x"}, "oci": {"host": "y"}}]),
                "unknown field `host`",
            ),
            (json!(7), "spec: "),
        ] {
            let error = list(spec).expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(Override::list(&json!({"type": "other"})).is_err());
    }
}
