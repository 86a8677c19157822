//! Where the content of an element is fetched from, and what it is called where it goes (transformation.md 4.2).

use ocm_specs::RepositorySpec;
use ocm_specs::access::{Access, AccessType};
use ocm_specs::json::field;
use ocm_specs::media_type::{is_artifact_archive, is_manifest};
use ocm_specs::reference::OciReference;
use serde_json::Value as Json;

/// How the content of an element is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    /// It is stored beside the descriptor.
    Local,
    /// An OCI artifact by reference.
    Image,
    /// A chart of a Helm repository, which becomes an OCI artifact.
    Helm,
    /// A URL.
    Wget,
    /// A commit of a GitHub repository.
    GitHub,
    /// Anything else that a session reads.
    Other,
}

impl Fetch {
    /// How to read what has that access; `None` for what is not read here.
    pub(super) fn of(access: AccessType) -> Option<Self> {
        Some(match access {
            AccessType::LocalBlob | AccessType::LocalOciBlob | AccessType::LocalFilesystemBlob => {
                Self::Local
            }
            AccessType::OciArtifact => Self::Image,
            AccessType::Helm => Self::Helm,
            AccessType::Wget => Self::Wget,
            AccessType::GitHub => Self::GitHub,
            AccessType::OciBlob | AccessType::RelativeOciReference | AccessType::Git => Self::Other,
            _ => return None,
        })
    }
}

/// An element's access.
pub(super) fn access_of(element: &Json) -> Option<&Json> {
    field(element.as_object()?, "access").filter(|access| !access.is_null())
}

/// The type of an element's access as written.
pub(super) fn access_text(element: &Json) -> &str {
    access_of(element)
        .and_then(|access| field(access.as_object()?, "type")?.as_str())
        .unwrap_or_default()
}

/// Is the content of a resource stored beside the descriptor an OCI artifact, or an archive of one?
pub(super) fn is_local_artifact(resource: &Json) -> bool {
    local_media_type(resource).is_some_and(|it| is_manifest(it) || is_artifact_archive(it))
}

/// The media type of content that is stored beside the descriptor.
pub(super) fn local_media_type(resource: &Json) -> Option<&str> {
    match Access::parse(access_of(resource)?) {
        Ok(Access::LocalBlob(blob)) => blob.media_type,
        _ => None,
    }
}

/// What an artifact is called below a registry, as `repository[:tag]` or `repository@digest`: what it was called where it
/// comes from.
pub(crate) fn hinted_name(resource: &Json) -> Option<String> {
    match Access::parse(access_of(resource)?).ok()? {
        Access::LocalBlob(blob) => blob.reference_name.map(str::to_owned),
        Access::OciArtifact { image_reference } => name_of(image_reference),
        // Its parts are those of a reference whose host is the component's repository.
        Access::RelativeOciReference { reference } => name_of(&format!("here/{reference}")),
        _ => None,
    }
}

fn name_of(image_reference: &str) -> Option<String> {
    let reference = image_reference.parse::<OciReference>().ok()?;
    let repository = reference.repository;
    Some(match (reference.tag, reference.digest) {
        (Some(tag), _) => format!("{repository}:{tag}"),
        (None, Some(digest)) => format!("{repository}@{digest}"),
        (None, None) => repository,
    })
}

/// The image reference of an artifact below an OCI target; `None` for archives. Plain HTTP is part of it where the target
/// says so and it would not be guessed.
pub(crate) fn image_below(target: &RepositorySpec, name: &str) -> Option<String> {
    let RepositorySpec::Oci(spec) = target else {
        return None;
    };
    let endpoint = spec.endpoint().ok()?;
    let host = match endpoint.scheme {
        Some("http") if !is_loopback(&endpoint.host) => format!("http://{}", endpoint.host),
        _ => endpoint.host,
    };
    let parts = [host.as_str(), endpoint.prefix.as_str(), name];
    let parts = parts.iter().filter(|part| !part.is_empty());
    Some(parts.copied().collect::<Vec<_>>().join("/"))
}

fn is_loopback(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.starts_with("127.") || host.starts_with("[::1]")
}

/// Is what an access names part of a repository, so that it is still there when all else is gone?
pub(super) fn is_inside(target: &RepositorySpec, access: &Json) -> bool {
    match Access::parse(access) {
        Ok(Access::LocalBlob(_) | Access::None | Access::RelativeOciReference { .. }) => true,
        Ok(Access::OciArtifact { image_reference }) => is_reference_inside(target, image_reference),
        Ok(Access::OciBlob(blob)) => is_reference_inside(target, blob.reference),
        _ => false,
    }
}

fn is_reference_inside(target: &RepositorySpec, reference: &str) -> bool {
    let RepositorySpec::Oci(spec) = target else {
        return false;
    };
    let (Ok(endpoint), Ok(reference)) = (spec.endpoint(), reference.parse::<OciReference>()) else {
        return false;
    };
    let rest = reference.repository.strip_prefix(&endpoint.prefix);
    reference.registry.eq_ignore_ascii_case(&endpoint.host)
        && (endpoint.prefix.is_empty() || rest.is_some_and(|rest| rest.starts_with('/')))
}
