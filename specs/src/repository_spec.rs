//! Repository specifications: which repository, in which technology.
//!
//! *Invariant*: what was read is written back as it was: the spelling of the type, and fields that are not known here.

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::json::spelling;

/// Spellings of the OCI repository type, the one that is written first.
pub const OCI_TYPES: [&str; 10] = [
    "OCIRepository/v1",
    "OCI/v1",
    "oci/v1",
    "OCIRegistry/v1",
    "ociRegistry/v1",
    "OCIRepository",
    "OCI",
    "oci",
    "OCIRegistry",
    "ociRegistry",
];

/// Spellings of the CTF type, the one that is written first.
pub const CTF_TYPES: [&str; 6] = [
    "CommonTransportFormat/v1",
    "CTF/v1",
    "ctf/v1",
    "CommonTransportFormat",
    "CTF",
    "ctf",
];

/// Spellings of the type of component archives, which hold one component version and are read only.
pub const COMPONENT_ARCHIVE_TYPES: [&str; 3] = ["ComponentArchive/v1", "ComponentArchive", "ca"];

/// A repository of component versions (formats.md 2.2, 2.6, 3.1).
#[derive(Clone, Debug, PartialEq)]
pub enum RepositorySpec {
    /// An OCI registry, or a part of one.
    Oci(OciRepositorySpec),
    /// An archive in the Common Transport Format.
    Ctf(CtfRepositorySpec),
}

/// A repository in an OCI registry.
#[derive(Clone, Debug, PartialEq)]
pub struct OciRepositorySpec {
    /// The type as written.
    pub type_name: String,
    /// `[scheme://]host[:port]`, perhaps with a path.
    pub base_url: String,
    /// The path below the host that all repositories have in front.
    pub sub_path: Option<String>,
    /// Fields not known here.
    pub extra: IndexMap<String, Value>,
}

/// A repository in a file or folder.
#[derive(Clone, Debug, PartialEq)]
pub struct CtfRepositorySpec {
    /// The type as written.
    pub type_name: String,
    /// The path as written, perhaps with `file://` in front.
    pub file_path: String,
    /// The access mode as written. Numbers mean opposite things in the two Go libraries, so they decide nothing here.
    pub access_mode: Option<Value>,
    /// `directory`, `tar` or `tgz`, where the form shall not follow from the path.
    pub file_format: Option<String>,
    /// Fields not known here.
    pub extra: IndexMap<String, Value>,
}

/// What is wrong with a repository specification.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepositorySpecError {
    /// It is no object.
    #[error("repository is no object")]
    NotAnObject,
    /// The type is not known, or missing.
    #[error(
        "unknown repository type `{0}`: expected OCIRepository/v1, CommonTransportFormat/v1, ComponentArchive/v1 or one of their short forms"
    )]
    Type(String),
    /// A field is missing, empty or not a text.
    #[error("repository of type `{type_name}` needs `{field}` as a text")]
    Missing {
        /// The type as written.
        type_name: String,
        /// The field.
        field: &'static str,
    },
    /// The base URL names no host.
    #[error("`{0}` names no registry host: expected [http://|https://|oci://]host[:port]")]
    BaseUrl(String),
}

/// Where requests to an OCI repository go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OciEndpoint {
    /// `http` or `https` where the spec says so; `oci://` and nothing leave it to the client.
    pub scheme: Option<&'static str>,
    /// `host[:port]` in lower case.
    pub host: String,
    /// The path that all repositories have in front, without slashes at its ends; may be empty.
    pub prefix: String,
}

impl RepositorySpec {
    /// A repository in an OCI registry.
    pub fn oci(base_url: impl Into<String>, sub_path: &str) -> Self {
        Self::Oci(OciRepositorySpec {
            type_name: OCI_TYPES[0].to_owned(),
            base_url: base_url.into(),
            sub_path: (!sub_path.is_empty()).then(|| sub_path.to_owned()),
            extra: IndexMap::new(),
        })
    }

    /// A repository in a file or folder.
    pub fn ctf(file_path: impl Into<String>) -> Self {
        Self::Ctf(CtfRepositorySpec {
            type_name: CTF_TYPES[0].to_owned(),
            file_path: file_path.into(),
            access_mode: None,
            file_format: None,
            extra: IndexMap::new(),
        })
    }

    /// Reads a specification.
    ///
    /// # Errors
    /// An unknown type, or a field missing that the type needs.
    pub fn from_value(value: &Value) -> Result<Self, RepositorySpecError> {
        let mut fields = value
            .as_object()
            .ok_or(RepositorySpecError::NotAnObject)?
            .clone();
        let type_name = take_text(&mut fields, "type").unwrap_or_default();
        let missing = |field| RepositorySpecError::Missing {
            type_name: type_name.clone(),
            field,
        };
        if OCI_TYPES.contains(&type_name.as_str()) {
            let base_url = take_text(&mut fields, "baseUrl").ok_or_else(|| missing("baseUrl"))?;
            let sub_path = take_text(&mut fields, "subPath");
            return Ok(Self::Oci(OciRepositorySpec {
                type_name,
                base_url,
                sub_path,
                extra: fields.into_iter().collect(),
            }));
        }
        if is_file_type(&type_name) {
            let file_path =
                take_text(&mut fields, "filePath").ok_or_else(|| missing("filePath"))?;
            let access_mode = take(&mut fields, "accessMode");
            let file_format = take_text(&mut fields, "fileFormat");
            return Ok(Self::Ctf(CtfRepositorySpec {
                type_name,
                file_path,
                access_mode,
                file_format,
                extra: fields.into_iter().collect(),
            }));
        }
        Err(RepositorySpecError::Type(type_name))
    }

    /// The specification as JSON: the type first, then its fields, then what is not known here.
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        let extra = match self {
            Self::Oci(spec) => {
                fields.insert("type".into(), spec.type_name.clone().into());
                fields.insert("baseUrl".into(), spec.base_url.clone().into());
                if let Some(sub_path) = &spec.sub_path {
                    fields.insert("subPath".into(), sub_path.clone().into());
                }
                &spec.extra
            }
            Self::Ctf(spec) => {
                fields.insert("type".into(), spec.type_name.clone().into());
                fields.insert("filePath".into(), spec.file_path.clone().into());
                if let Some(mode) = &spec.access_mode {
                    fields.insert("accessMode".into(), mode.clone());
                }
                if let Some(format) = &spec.file_format {
                    fields.insert("fileFormat".into(), format.clone().into());
                }
                &spec.extra
            }
        };
        fields.extend(
            extra
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        Value::Object(fields)
    }

    /// The type as written.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Oci(spec) => &spec.type_name,
            Self::Ctf(spec) => &spec.type_name,
        }
    }
}

impl std::fmt::Display for RepositorySpec {
    /// The reference text that names this repository, without the type.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Oci(spec) => {
                f.write_str(&spec.base_url)?;
                match &spec.sub_path {
                    Some(sub_path) => write!(f, "/{sub_path}"),
                    None => Ok(()),
                }
            }
            Self::Ctf(spec) => f.write_str(&spec.file_path),
        }
    }
}

impl OciRepositorySpec {
    /// Takes base URL and sub path apart. A path in the base URL comes before the sub path.
    ///
    /// # Errors
    /// [`RepositorySpecError::BaseUrl`]: another scheme, user information, or no host.
    pub fn endpoint(&self) -> Result<OciEndpoint, RepositorySpecError> {
        // A password that someone put in front of the host is not repeated.
        let error = || {
            RepositorySpecError::BaseUrl(match self.base_url.rsplit_once('@') {
                Some((_, host)) => format!("***@{host}"),
                None => self.base_url.clone(),
            })
        };
        let (scheme, rest) = match self.base_url.split_once("://") {
            None => (None, self.base_url.as_str()),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "oci" => (None, rest),
                "http" => (Some("http"), rest),
                "https" => (Some("https"), rest),
                _ => return Err(error()),
            },
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let well_formed = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
        let host = host.to_ascii_lowercase();
        let host = match scheme {
            Some("http") => host.strip_suffix(":80").unwrap_or(&host),
            _ => host.strip_suffix(":443").unwrap_or(&host),
        };
        if host.is_empty() || !well_formed {
            return Err(error());
        }
        let prefix = [path, self.sub_path.as_deref().unwrap_or_default()]
            .iter()
            .map(|part| part.trim_matches('/'))
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        Ok(OciEndpoint {
            scheme,
            host: host.to_owned(),
            prefix,
        })
    }
}

impl OciEndpoint {
    /// Canonical text: equal for equal repositories. Whether the scheme was typed makes no difference for HTTPS.
    pub fn location(&self) -> String {
        let scheme = match self.scheme {
            Some("http") => "http",
            _ => "oci",
        };
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{scheme}://{}{slash}{}", self.host, self.prefix)
    }
}

/// The forms of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtfForm {
    /// A folder.
    Directory,
    /// A tar file.
    Tar,
    /// A gzip-compressed tar file.
    Tgz,
}

impl CtfRepositorySpec {
    /// The path without `file://`.
    pub fn path(&self) -> &str {
        self.file_path
            .strip_prefix("file://")
            .unwrap_or(&self.file_path)
    }

    /// The form that `fileFormat` or else the ending of the path asks for; `None` where a look at the file should decide.
    pub fn form(&self) -> Option<CtfForm> {
        match self.file_format.as_deref() {
            Some("directory") => return Some(CtfForm::Directory),
            Some("tar") => return Some(CtfForm::Tar),
            Some("tgz") => return Some(CtfForm::Tgz),
            _ => {}
        }
        let path = self.path().to_ascii_lowercase();
        if path.ends_with(".tgz") || path.ends_with(".tar.gz") {
            Some(CtfForm::Tgz)
        } else if path.ends_with(".tar") {
            Some(CtfForm::Tar)
        } else {
            None
        }
    }

    /// Does the type say that there is a component archive? Without it, what is there is told by its content.
    pub fn is_component_archive(&self) -> bool {
        COMPONENT_ARCHIVE_TYPES.contains(&self.type_name.as_str())
    }

    /// Does the spec forbid writing in words?
    pub fn is_read_only(&self) -> bool {
        self.access_mode
            .as_ref()
            .and_then(Value::as_str)
            .is_some_and(|mode| mode.split('|').all(|word| word.trim() == "readonly"))
    }
}

/// Is this a type of repositories in files and folders?
pub fn is_file_type(type_name: &str) -> bool {
    CTF_TYPES.contains(&type_name) || COMPONENT_ARCHIVE_TYPES.contains(&type_name)
}

fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let key = spelling(fields, name).to_owned();
    fields.shift_remove(&key)
}

fn take_text(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match take(fields, name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

impl Serialize for RepositorySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RepositorySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RepositorySpec {
    fn schema_name() -> Cow<'static, str> {
        "RepositorySpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "Repository",
            "description": "A repository of component versions.",
            "oneOf": [
                generator.subschema_for::<OciRepositorySpec>(),
                generator.subschema_for::<CtfRepositorySpec>(),
            ]
        })
    }
}

impl JsonSchema for OciRepositorySpec {
    fn schema_name() -> Cow<'static, str> {
        "OCIRepository".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "title": "OCIRepository",
            "description": "A repository in an OCI registry.",
            "properties": {
                "type": type_schema(&OCI_TYPES),
                "baseUrl": {
                    "type": "string",
                    "description": "Host and optional port of the registry, with `http://`, `https://` or `oci://` in front where wanted. A path in it comes before `subPath`."
                },
                "subPath": {
                    "type": "string",
                    "description": "Path below the host that all repositories of component versions have in front."
                },
                "componentNameMapping": {
                    "type": "string",
                    "description": "How component names become paths; `urlPath` is the one in use."
                }
            },
            "required": ["type", "baseUrl"],
            "additionalProperties": false
        })
    }
}

impl JsonSchema for CtfRepositorySpec {
    fn schema_name() -> Cow<'static, str> {
        "CTFRepository".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "title": "CTFRepository",
            "description": "A repository in the Common Transport Format, or a component archive: a folder, a tar or a tgz.",
            "properties": {
                "type": type_schema(&[&CTF_TYPES[..], &COMPONENT_ARCHIVE_TYPES[..]].concat()),
                "filePath": {
                    "type": "string",
                    "description": "Path of the archive; relative ones start at the working directory."
                },
                "accessMode": {
                    "type": ["string", "integer"],
                    "description": "`readonly`, `readwrite`, `create`, or several joined by `|`."
                },
                "fileFormat": {
                    "type": "string",
                    "enum": ["directory", "tar", "tgz"],
                    "description": "The form, where it shall not follow from the path."
                }
            },
            "required": ["type", "filePath"],
            "additionalProperties": false
        })
    }
}

fn type_schema(spellings: &[&str]) -> Value {
    json!({ "type": "string", "enum": spellings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling_and_writes_it_back() {
        for type_name in OCI_TYPES {
            let value = json!({"type": type_name, "baseUrl": "ghcr.io", "subPath": "a", "componentNameMapping": "urlPath"});
            let spec = RepositorySpec::from_value(&value).expect(type_name);
            assert_eq!(spec.to_value(), value);
        }
        for type_name in CTF_TYPES.into_iter().chain(COMPONENT_ARCHIVE_TYPES) {
            let value = json!({"type": type_name, "filePath": "./x.tgz", "accessMode": "readonly", "custom": 1});
            let spec = RepositorySpec::from_value(&value).expect(type_name);
            assert_eq!(spec.to_value(), value);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (value, expected) in [
            (
                json!({"type": "S3", "x": 1}),
                "unknown repository type `S3`",
            ),
            (json!({"baseUrl": "x"}), "unknown repository type ``"),
            (
                json!({"type": "OCI", "baseUrl": 5}),
                "repository of type `OCI` needs `baseUrl`",
            ),
            (json!([]), "repository is no object"),
        ] {
            let error = RepositorySpec::from_value(&value).expect_err("wrong spec");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn equal_places_have_equal_locations() {
        for (base_url, sub_path, expected) in [
            ("ghcr.io", "acme/x", "oci://ghcr.io/acme/x"),
            ("https://GHCR.io:443/acme", "x/", "oci://ghcr.io/acme/x"),
            ("oci://ghcr.io/acme/x", "", "oci://ghcr.io/acme/x"),
            ("http://localhost:5000", "", "http://localhost:5000"),
            ("http://localhost:80/", "a", "http://localhost/a"),
        ] {
            let RepositorySpec::Oci(spec) = RepositorySpec::oci(base_url, sub_path) else {
                unreachable!("built as OCI");
            };
            let endpoint = spec.endpoint().expect(base_url);
            assert_eq!(endpoint.location(), expected, "{base_url}");
        }
        for base_url in ["", "ftp://x", "user:pw@host", "https:///x"] {
            let RepositorySpec::Oci(spec) = RepositorySpec::oci(base_url, "") else {
                unreachable!("built as OCI");
            };
            assert!(spec.endpoint().is_err(), "{base_url}");
        }
    }

    #[test]
    fn the_form_follows_the_ending_unless_given() {
        for (path, format, expected) in [
            ("a.tar", None, Some(CtfForm::Tar)),
            ("a.TGZ", None, Some(CtfForm::Tgz)),
            ("a.tar.gz", None, Some(CtfForm::Tgz)),
            ("a", None, None),
            ("a", Some("tgz"), Some(CtfForm::Tgz)),
            ("a.tar", Some("directory"), Some(CtfForm::Directory)),
        ] {
            let spec = CtfRepositorySpec {
                type_name: "ctf".into(),
                file_path: format!("file://{path}"),
                access_mode: None,
                file_format: format.map(str::to_owned),
                extra: IndexMap::new(),
            };
            assert_eq!(spec.form(), expected, "{path}");
            assert_eq!(spec.path(), path);
        }
    }
}
