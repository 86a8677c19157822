//! Content as a value: what specs and expressions carry in place of bytes.

use std::borrow::Cow;

use ocm_content::{Blob, Content};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

#[cfg(doc)]
use crate::context::StepContext;

/// The type text of a content reference: the reference implementation's file objects have it, too.
pub const CONTENT_TYPE: &str = "File/v1alpha1";

/// The schema keyword that marks a field as a content port.
pub const CONTENT_KEYWORD: &str = "x-ocm-content";

/// The schema keyword for the media types that a port takes or gives: a list of texts, perhaps with a `*` at their end.
pub const MEDIA_TYPES_KEYWORD: &str = "x-ocm-media-types";

/// A content handle as a value that specs and expressions can carry.
///
/// The bytes stay behind: `uri` names a port of a step of this run (`content:STEP/PORT`) or a file (`file:///…`).
/// Turn it into content with [`StepContext::content`]. Expressions may read all its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// Always [`CONTENT_TYPE`] or a spelling of it.
    #[serde(rename = "type", default = "content_type")]
    pub kind: String,
    /// Where the content is.
    pub uri: String,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its digest: of the bytes, or of the root manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its length in bytes; absent for artifacts and for what is still being computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Which resource these bytes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// Which resource of which component some bytes are, or were before they were converted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// Component name.
    pub component: String,
    /// Component version.
    pub version: String,
    /// The resource as it stands in the descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Json>,
}

fn content_type() -> String {
    CONTENT_TYPE.to_owned()
}

impl ContentRef {
    /// The reference to a port of a step of this run.
    pub(crate) fn port(step: &str, port: &str, content: &Content) -> Self {
        let (digest, size) = match content {
            Content::Blob(Blob { digest, size, .. }) => {
                (digest.as_ref().map(ToString::to_string), *size)
            }
            Content::Artifact(artifact) => {
                (artifact.root().map(|root| root.digest.to_string()), None)
            }
        };
        Self {
            kind: content_type(),
            uri: format!("content:{step}/{port}"),
            media_type: Some(content.media_type().to_owned()),
            digest,
            size,
            lineage: None,
        }
    }

    /// Says which resource these bytes are.
    #[must_use]
    pub fn with_lineage(mut self, lineage: Option<Lineage>) -> Self {
        self.lineage = lineage;
        self
    }
}

impl JsonSchema for ContentRef {
    fn schema_name() -> Cow<'static, str> {
        "Content".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        content_schema(
            "Content: bytes or an OCI artifact, handed from step to step without being copied into the value.",
            &generator.subschema_for::<Lineage>().to_value(),
        )
    }
}

/// The schema of a [`ContentRef`], for step types whose schemas no type gives: what it is, and the schema of its lineage.
pub fn content_schema(description: &str, lineage: &Json) -> Schema {
    json_schema!({
        "type": "object",
        "description": description,
        CONTENT_KEYWORD: true,
        "properties": {
            "type": {"type": "string"},
            "uri": {"type": "string"},
            "mediaType": {"type": "string"},
            "digest": {"type": "string"},
            "size": {"type": "integer"},
            "lineage": lineage,
        },
        "required": ["uri"],
        "additionalProperties": false,
    })
}
