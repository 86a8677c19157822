//! How component versions are transferred unless the command line says otherwise: `transfer.config.ocm.software` of v2, and the
//! upload handlers of v1.

use ocm_specs::config::{ConfigEntry, place_of};
use serde_json::Value as Json;

use crate::error::{CliError, ExitCode};

/// Entry type of v2, without its version.
const TRANSFER: &str = "transfer.config.ocm.software";
/// Entry type of v1, without its version.
const UPLOADERS: &str = "uploader.ocm.config.ocm.software";
/// The priority of handlers that have none.
const PRIORITY: i64 = 100;

/// What is copied by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyMode {
    /// Local blobs only; everything else stays where it is.
    LocalBlob,
    /// All resources.
    AllResources,
}

/// Where copied resources land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadType {
    /// Beside the component descriptor.
    LocalBlob,
    /// In OCI repositories of their own.
    OciArtifact,
}

/// Defaults of transfers; `None` where no entry says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransferConfig {
    /// Levels of references that are followed; -1 for all.
    pub(crate) recursive: Option<i64>,
    pub(crate) copy_mode: Option<CopyMode>,
    pub(crate) upload_type: Option<UploadType>,
}

impl TransferConfig {
    /// What all entries of that type say together; a later one wins field by field.
    pub(super) fn of(entries: &[ConfigEntry<'_>]) -> Result<Self, CliError> {
        let mut config = Self::default();
        for entry in entries.iter().filter(|entry| entry.kind == TRANSFER) {
            config.merge(entry)?;
        }
        Ok(config)
    }

    fn merge(&mut self, entry: &ConfigEntry<'_>) -> Result<(), CliError> {
        let wrong = |field: &str, value: &Json, expected: &str| {
            CliError::new(
                ExitCode::Invalid,
                format!("{}: {value} is not {expected}", place_of(&entry.at, field)),
            )
        };
        let field = |name: &str| {
            let value = entry.value.get(name);
            value.filter(|value| !value.is_null() && value.as_str() != Some(""))
        };
        if let Some(value) = field("recursive") {
            let levels = match value {
                Json::Bool(all) => Some(if *all { -1 } else { 0 }),
                value => value.as_i64().filter(|levels| *levels >= -1),
            };
            let levels = levels.ok_or_else(|| wrong("recursive", value, "-1, 0 or a number"))?;
            self.recursive = Some(levels);
        }
        if let Some(value) = field("copyMode") {
            self.copy_mode = Some(match value.as_str() {
                Some("localBlob") => CopyMode::LocalBlob,
                Some("allResources") => CopyMode::AllResources,
                _ => return Err(wrong("copyMode", value, "localBlob or allResources")),
            });
        }
        if let Some(value) = field("uploadType") {
            self.upload_type = Some(match value.as_str() {
                Some("localBlob") => UploadType::LocalBlob,
                Some("ociArtifact") => UploadType::OciArtifact,
                _ => return Err(wrong("uploadType", value, "localBlob or ociArtifact")),
            });
        }
        Ok(())
    }
}

/// One of v1's upload handlers: what it is for, and what it is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Uploader {
    /// As in `ocm/ociArtifacts`.
    pub(crate) name: String,
    /// The type of the resources it is for; all types without.
    pub(crate) artifact_type: Option<String>,
    /// Their media type; all without.
    pub(crate) media_type: Option<String>,
    /// The type of the target repository; all without.
    pub(crate) repository_type: Option<String>,
    /// The highest one decides.
    pub(crate) priority: i64,
    /// What the handler is told, as it stands; `null` for nothing.
    pub(crate) config: Json,
    /// Where it stands.
    pub(crate) at: String,
}

impl Uploader {
    /// All handlers, the one that decides first first: the highest priority, then the entry that stands last.
    pub(super) fn all(entries: &[ConfigEntry<'_>]) -> Result<Vec<Self>, CliError> {
        let mut all = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind == UPLOADERS) {
            // Both spellings are in use.
            for list in ["handlers", "registrations"] {
                let handlers = match entry.value.get(list) {
                    None | Some(Json::Null) => continue,
                    Some(Json::Array(handlers)) => handlers,
                    Some(_) => return Err(wrong(&entry.at, list, "expected a list")),
                };
                for (index, handler) in handlers.iter().enumerate() {
                    let at = place_of(&entry.at, &format!("{list}[{index}]"));
                    all.push(Self::read(handler, at)?);
                }
            }
        }
        all.reverse();
        all.sort_by_key(|handler| std::cmp::Reverse(handler.priority));
        Ok(all)
    }

    fn read(handler: &Json, at: String) -> Result<Self, CliError> {
        let text = |field: &str| match handler.get(field) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(wrong(&at, field, "expected a text")),
        };
        let priority = match handler.get("priority") {
            None | Some(Json::Null) => PRIORITY,
            Some(value) => value
                .as_i64()
                .ok_or_else(|| wrong(&at, "priority", "expected a whole number"))?,
        };
        Ok(Self {
            name: text("name")?.ok_or_else(|| wrong(&at, "name", "it is missing"))?,
            artifact_type: text("artifactType")?,
            media_type: text("mediaType")?,
            repository_type: text("repositoryType")?,
            priority,
            config: handler.get("config").cloned().unwrap_or(Json::Null),
            at,
        })
    }
}

fn wrong(at: &str, field: &str, why: &str) -> CliError {
    CliError::new(ExitCode::Invalid, format!("{}: {why}", place_of(at, field)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry<'d>(kind: &'d str, value: &'d Json) -> ConfigEntry<'d> {
        ConfigEntry {
            kind,
            version: None,
            value,
            at: "f".to_owned(),
        }
    }

    #[test]
    fn later_entries_win_field_by_field() {
        let documents = [
            json!({"recursive": -1, "copyMode": "localBlob"}),
            json!({"copyMode": "allResources", "uploadType": ""}),
            json!({"uploadType": "ociArtifact", "other": 1}),
        ];
        let entries = documents.each_ref().map(|value| entry(TRANSFER, value));
        let config = TransferConfig::of(&entries).expect("good entries");
        let expected = TransferConfig {
            recursive: Some(-1),
            copy_mode: Some(CopyMode::AllResources),
            upload_type: Some(UploadType::OciArtifact),
        };
        assert_eq!(config, expected);
        assert_eq!(
            TransferConfig::of(&[]).ok(),
            Some(TransferConfig::default())
        );
        for (document, expected) in [
            (
                json!({"recursive": -2}),
                "f.recursive: -2 is not -1, 0 or a number",
            ),
            (json!({"recursive": "all"}), "f.recursive: \"all\""),
            (
                json!({"copyMode": "some"}),
                "f.copyMode: \"some\" is not localBlob or allResources",
            ),
            (json!({"uploadType": 1}), "f.uploadType: 1"),
        ] {
            let error = TransferConfig::of(&[entry(TRANSFER, &document)]).expect_err(expected);
            assert!(error.message.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn handlers_are_sorted_by_what_decides() {
        let document = json!({
            "handlers": [
                {"name": "a", "priority": 200},
                {"name": "b", "artifactType": "ociArtifact", "mediaType": "", "config": {"ociRef": "x"}},
            ],
            "registrations": [{"name": "c", "repositoryType": "OCIRegistry"}],
        });
        let all = Uploader::all(&[entry(UPLOADERS, &document)]).expect("good handlers");
        let names: Vec<&str> = all.iter().map(|handler| handler.name.as_str()).collect();
        assert_eq!(names, ["a", "c", "b"]);
        assert_eq!(all[2].artifact_type.as_deref(), Some("ociArtifact"));
        assert_eq!(
            (&all[2].media_type, &all[2].config),
            (&None, &json!({"ociRef": "x"}))
        );
        for (document, expected) in [
            (json!({"handlers": {}}), "f.handlers: expected a list"),
            (
                json!({"handlers": [{}]}),
                "f.handlers[0].name: it is missing",
            ),
            (
                json!({"handlers": [{"name": "x", "priority": "p"}]}),
                "f.handlers[0].priority",
            ),
        ] {
            let error = Uploader::all(&[entry(UPLOADERS, &document)]).expect_err(expected);
            assert!(error.message.starts_with(expected), "{error}");
        }
    }
}
