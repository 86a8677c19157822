//! Access specifications: where the content of a resource or source is.
//!
//! *Invariant*: these are views. The JSON below is never changed by reading it, and types that are not known stay as they
//! are (formats.md 4).

pub mod remote;

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::json::field;

/// The kinds of access, whatever spelling names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AccessType {
    /// Content stored beside the descriptor.
    LocalBlob,
    /// An OCI artifact by reference.
    OciArtifact,
    /// One blob of an OCI repository.
    OciBlob,
    /// A chart in a Helm repository.
    Helm,
    /// A commit of a GitHub repository.
    GitHub,
    /// A URL.
    Wget,
    /// An object in an S3 bucket, in the words of the library v2.
    S3Bucket,
    /// An object in an S3 bucket, in the words of the library v1: `bucket` and `key`.
    S3V1,
    /// The same with `bucketName` and `objectKey`.
    S3V2,
    /// A commit of a git repository.
    Git,
    /// An npm package.
    Npm,
    /// A Maven artifact.
    Maven,
    /// No content.
    None,
    /// A file of a component archive of old.
    LocalFilesystemBlob,
    /// A blob of the repository the descriptor is in, of old.
    LocalOciBlob,
    /// An artifact relative to the component's repository.
    RelativeOciReference,
    /// A resource of another component version.
    Ocm,
    /// Anything else.
    Other,
}

impl AccessType {
    /// Is the content stored beside the descriptor, in whatever words of whatever time?
    pub fn is_local(self) -> bool {
        matches!(
            self,
            Self::LocalBlob | Self::LocalFilesystemBlob | Self::LocalOciBlob
        )
    }

    /// The kind behind a type text. Case counts; every registered spelling is known, with and without version.
    pub fn of(text: &str) -> Self {
        match text {
            "LocalBlob/v1" | "LocalBlob" | "localBlob/v1" | "localBlob" => Self::LocalBlob,
            "OCIImage/v1" | "OCIImage" | "ociArtifact/v1" | "ociArtifact" | "ociRegistry/v1"
            | "ociRegistry" | "ociImage/v1" | "ociImage" | "OCIArtifact/v1" | "OCIArtifact" => {
                Self::OciArtifact
            }
            "OCIImageLayer/v1" | "OCIImageLayer" | "ociBlob/v1" | "ociBlob" => Self::OciBlob,
            "Helm/v1" | "Helm" | "helm/v1" | "helm" => Self::Helm,
            "GitHub/v1" | "GitHub" | "github/v1" | "github" | "gitHub/v1" | "gitHub" => {
                Self::GitHub
            }
            "Wget/v1" | "Wget" | "wget/v1" | "wget" => Self::Wget,
            "S3Bucket/v1" | "S3Bucket" | "s3Bucket/v1" | "s3Bucket" => Self::S3Bucket,
            "s3/v1" | "s3" | "S3/v1" | "S3" => Self::S3V1,
            "s3/v2" | "S3/v2" => Self::S3V2,
            "git/v1alpha1" | "git" | "Git/v1alpha1" | "Git" => Self::Git,
            "npm/v1" | "npm" | "NPM/v1" | "NPM" => Self::Npm,
            "maven/v1" | "maven" | "Maven/v1" | "Maven" => Self::Maven,
            "none/v1" | "none" | "None" => Self::None,
            "localFilesystemBlob/v1" | "localFilesystemBlob" => Self::LocalFilesystemBlob,
            "localOciBlob/v1" | "localOciBlob" => Self::LocalOciBlob,
            "relativeOciReference/v1" | "relativeOciReference" => Self::RelativeOciReference,
            "ocm/v1" | "ocm" => Self::Ocm,
            _ => Self::Other,
        }
    }
}

/// What is wrong with an access specification.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessError {
    /// It is no object.
    #[error("access is no object")]
    NotAnObject,
    /// It has no type.
    #[error("access has no `type`")]
    NoType,
    /// A field that this type needs is missing or empty.
    #[error("access of type `{type_name}` has no `{field}`")]
    Missing {
        /// The type as written.
        type_name: String,
        /// The field.
        field: &'static str,
    },
    /// A field is something else than it should be.
    #[error("`{field}` of access type `{type_name}` is not {expected}")]
    Malformed {
        /// The type as written.
        type_name: String,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// A typed look at an access specification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Access<'a> {
    /// Content stored beside the descriptor.
    LocalBlob(LocalBlob<'a>),
    /// An OCI artifact.
    OciArtifact {
        /// Where it is, as written (formats.md 2.8).
        image_reference: &'a str,
    },
    /// One blob of an OCI repository.
    OciBlob(OciBlob<'a>),
    /// An artifact relative to the component's repository.
    RelativeOciReference {
        /// Path, and tag or digest, below the repository's prefix.
        reference: &'a str,
    },
    /// No content at all.
    None,
    /// Another type; its fields are in the object.
    Other {
        /// Which kind, as far as known.
        kind: AccessType,
        /// The type as written.
        type_name: &'a str,
        /// All fields.
        fields: &'a Map<String, Value>,
    },
}

/// A look at a local blob's access.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalBlob<'a> {
    /// Digest of the blob; file name in component archives; several digests, separated by commas, where v1 split a blob.
    pub local_reference: &'a str,
    /// Media type; empty counts as absent.
    pub media_type: Option<&'a str>,
    /// A hint (`repo[:tag]`) for naming the artifact when it is made global.
    pub reference_name: Option<&'a str>,
    /// Another way to the same content.
    pub global_access: Option<&'a Value>,
}

/// A look at the access of one blob in an OCI repository.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OciBlob<'a> {
    /// The repository.
    pub reference: &'a str,
    /// Media type.
    pub media_type: Option<&'a str>,
    /// The blob's digest.
    pub digest: &'a str,
    /// Its length in bytes.
    pub size: Option<u64>,
}

impl<'a> Access<'a> {
    /// Looks at a specification. Keys match in any case, as in Go.
    ///
    /// # Errors
    /// No object, no type, or a field missing that a type known here needs.
    pub fn parse(value: &'a Value) -> Result<Self, AccessError> {
        let fields = value.as_object().ok_or(AccessError::NotAnObject)?;
        let type_name = text(fields, "type").ok_or(AccessError::NoType)?;
        let needed = |name: &'static str| {
            text(fields, name).ok_or_else(|| AccessError::Missing {
                type_name: type_name.to_owned(),
                field: name,
            })
        };
        Ok(match AccessType::of(type_name) {
            AccessType::LocalBlob => Self::LocalBlob(LocalBlob {
                local_reference: needed("localReference")?,
                media_type: text(fields, "mediaType"),
                reference_name: text(fields, "referenceName"),
                global_access: field(fields, "globalAccess").filter(|value| !value.is_null()),
            }),
            AccessType::LocalOciBlob => Self::LocalBlob(LocalBlob {
                local_reference: needed("digest")?,
                media_type: text(fields, "mediaType"),
                reference_name: None,
                global_access: None,
            }),
            AccessType::LocalFilesystemBlob => Self::LocalBlob(LocalBlob {
                local_reference: needed("fileName")?,
                media_type: text(fields, "mediaType"),
                reference_name: None,
                global_access: None,
            }),
            AccessType::OciArtifact => Self::OciArtifact {
                image_reference: needed("imageReference")?,
            },
            AccessType::OciBlob => Self::OciBlob(OciBlob {
                // The OCM spec's text calls the field `imageReference`, the code `ref`.
                reference: text(fields, "ref").map_or_else(|| needed("imageReference"), Ok)?,
                media_type: text(fields, "mediaType"),
                digest: needed("digest")?,
                size: field(fields, "size").and_then(Value::as_u64),
            }),
            AccessType::RelativeOciReference => Self::RelativeOciReference {
                reference: needed("reference")?,
            },
            AccessType::None => Self::None,
            kind => Self::Other {
                kind,
                type_name,
                fields,
            },
        })
    }

    /// The local blob, when this is one.
    pub fn local_blob(&self) -> Option<LocalBlob<'a>> {
        match self {
            Self::LocalBlob(local) => Some(*local),
            _ => None,
        }
    }
}

/// The access of content stored beside the descriptor. `globalAccess` is not written: it names a place that a transport
/// may just have left.
pub fn local_blob(local_reference: &str, media_type: &str, reference_name: Option<&str>) -> Value {
    let mut access = json!({
        "type": "localBlob",
        "localReference": local_reference,
        "mediaType": media_type,
    });
    if let Some(name) = reference_name {
        access["referenceName"] = name.into();
    }
    access
}

/// The access of an OCI artifact.
pub fn oci_artifact(image_reference: &str) -> Value {
    json!({ "type": "ociArtifact", "imageReference": image_reference })
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(fields, name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is the debug form's start, or the error.
    fn check(access: Value, expected: &str) {
        let found = match Access::parse(&access) {
            Ok(access) => format!("{access:?}"),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "{access}: {found}");
    }

    #[test]
    fn reads_every_spelling() {
        for type_name in ["LocalBlob/v1", "LocalBlob", "localBlob/v1", "localBlob"] {
            check(
                json!({"type": type_name, "localReference": "sha256:1", "mediaType": ""}),
                "LocalBlob(LocalBlob { local_reference: \"sha256:1\", media_type: None",
            );
        }
        for type_name in [
            "OCIImage/v1",
            "ociArtifact",
            "ociRegistry/v1",
            "ociImage",
            "OCIArtifact",
        ] {
            check(
                json!({"type": type_name, "imagereference": "r.io/a:1"}),
                "OciArtifact { image_reference: \"r.io/a:1\"",
            );
        }
        for field in ["fileName", "filename"] {
            check(
                json!({"type": "localFilesystemBlob", field: "root", "mediaType": "text/plain"}),
                "LocalBlob(LocalBlob { local_reference: \"root\", media_type: Some(\"text/plain\")",
            );
        }
        check(json!({"type": "none/v1"}), "None");
        check(json!({"type": "wget", "URL": "x"}), "Other { kind: Wget");
        check(json!({"type": "acme.com/v1"}), "Other { kind: Other");
        check(json!({"type": "localblob"}), "Other { kind: Other");
        check(
            json!({"type": "ociBlob", "ref": "r.io/a", "digest": "sha256:1", "size": 3}),
            "OciBlob(OciBlob { reference: \"r.io/a\", media_type: None, digest: \"sha256:1\", size: Some(3)",
        );
    }

    #[test]
    fn says_what_is_missing() {
        check(
            json!({"type": "localBlob"}),
            "access of type `localBlob` has no `localReference`",
        );
        check(json!({"imageReference": "x"}), "access has no `type`");
        check(json!("x"), "access is no object");
    }
}
