//! Fields that many steps have: repositories, descriptors, resources. Loose in what they keep, strict in what they need.
//!
//! Invariant: what is not looked at passes through as it is.

use std::borrow::Cow;
use std::sync::Arc;

use ocm_content::Error;
use ocm_engine::{StepContext, StepError};
use ocm_repository::{Repository, Session};
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::repository_spec::{CtfRepositorySpec, OciRepositorySpec};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// A repository in the Common Transport Format: `{type, filePath, accessMode?}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CtfRepository(Json);

/// A repository in an OCI registry: `{type, baseUrl, subPath?}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OciRepository(Json);

/// A field that names a repository.
pub trait RepositoryField {
    /// The specification as written.
    fn value(&self) -> &Json;

    /// Takes out of the inputs of a step that stores what makes no sense in repositories of this kind.
    fn restrict(_inputs: &mut Schema) {}

    /// Opens the repository through the step's session.
    ///
    /// # Errors
    /// At the field `repository`: an unknown type, a missing field; else what opening gives.
    fn open(
        &self,
        cx: &StepContext,
        access: Access,
    ) -> impl Future<Output = Result<Repository, StepError>> + Send {
        let spec = RepositorySpec::from_value(self.value())
            .map_err(|error| StepError::at("repository", Error::invalid(error.to_string())));
        let session = cx.session::<Session>();
        async move { open(&session?, &spec?, access).await }
    }
}

/// What a step will do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only: it must be there.
    Read,
    /// Write: it comes into being when needed.
    Write,
}

/// Opens a repository through a session.
///
/// # Errors
/// What opening gives.
pub async fn open(
    session: &Arc<Session>,
    spec: &RepositorySpec,
    access: Access,
) -> Result<Repository, StepError> {
    Ok(session.repository(spec, access == Access::Write).await?)
}

impl RepositoryField for CtfRepository {
    fn value(&self) -> &Json {
        &self.0
    }

    /// Nothing in an archive has a global address.
    fn restrict(inputs: &mut Schema) {
        let fields = inputs.get_mut("properties").and_then(Json::as_object_mut);
        if let Some(fields) = fields {
            fields.shift_remove("globalAccessPolicy");
        }
    }
}

impl RepositoryField for OciRepository {
    fn value(&self) -> &Json {
        &self.0
    }
}

impl JsonSchema for CtfRepository {
    fn schema_name() -> Cow<'static, str> {
        CtfRepositorySpec::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        CtfRepositorySpec::json_schema(generator)
    }
}

impl JsonSchema for OciRepository {
    fn schema_name() -> Cow<'static, str> {
        OciRepositorySpec::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OciRepositorySpec::json_schema(generator)
    }
}

/// A component descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DescriptorField(pub Json);

impl DescriptorField {
    /// The descriptor, checked; `field` is the input it came from. One that was read in this run is taken as it was read.
    ///
    /// # Errors
    /// At `field`: not a descriptor.
    pub fn descriptor(
        &self,
        session: &Session,
        field: &str,
    ) -> Result<ComponentDescriptor, StepError> {
        if let Some(read) = session.known().as_read(&self.0) {
            return Ok(read);
        }
        ComponentDescriptor::from_value(tidy_descriptor(self.0.clone()))
            .map_err(|error| StepError::at(field, Error::invalid(error.to_string())))
    }
}

impl JsonSchema for DescriptorField {
    fn schema_name() -> Cow<'static, str> {
        "ComponentDescriptor".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let resource = generator.subschema_for::<ResourceField>();
        json_schema!({
            "type": "object",
            "description": "A component descriptor: schema version v2, or v3alpha1 where one is carried.",
            "properties": {
                "meta": {"type": "object", "additionalProperties": true},
                "component": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "version": {"type": "string"},
                        "provider": true,
                        "creationTime": true,
                        "labels": true,
                        "repositoryContexts": true,
                        "resources": {"type": ["array", "null"], "items": resource},
                        "sources": true,
                        "componentReferences": true,
                    },
                    "additionalProperties": true,
                },
                "signatures": true,
                "nestedDigests": true,
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object", "additionalProperties": true},
                "repositoryContexts": true,
                "spec": {
                    "type": "object",
                    "properties": {
                        "resources": {"type": ["array", "null"], "items": resource},
                        "sources": true,
                        "references": true,
                    },
                    "additionalProperties": true,
                },
            },
            "anyOf": [{"required": ["component"]}, {"required": ["apiVersion", "metadata", "spec"]}],
            "additionalProperties": true,
        })
    }
}

/// A resource of a component descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceField(pub Json);

impl JsonSchema for ResourceField {
    fn schema_name() -> Cow<'static, str> {
        "Resource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A resource as it stands in a component descriptor.",
            "properties": {
                "name": {"type": "string"},
                "version": {"type": "string"},
                "type": {"type": "string"},
                "relation": {"type": "string"},
                "access": {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string"},
                        "imageReference": {"type": "string"},
                        "localReference": {"type": "string"},
                        "mediaType": {"type": "string"},
                        "referenceName": {"type": "string"},
                    },
                    "additionalProperties": true,
                },
                "digest": {
                    "type": ["object", "null"],
                    "properties": {
                        "hashAlgorithm": {"type": "string"},
                        "normalisationAlgorithm": {"type": "string"},
                        "value": {"type": "string"},
                    },
                    "additionalProperties": true,
                },
                "labels": {"type": ["array", "null"]},
                "extraIdentity": {"type": ["object", "null"], "additionalProperties": true},
                "srcRefs": {"type": ["array", "null"]},
            },
            "required": ["name"],
            "additionalProperties": true,
        })
    }
}

/// Fields that Go leaves out when they are empty; a composite expression writes them as null, `[]` or `{}`.
const OMITTED_WHEN_EMPTY: [&str; 6] = [
    "labels",
    "creationTime",
    "digest",
    "extraIdentity",
    "srcRefs",
    "nestedDigests",
];

/// A descriptor that expressions put together, as Go would store it: optional fields that are null are left out. One that
/// was read and not touched has no such field and stays as it is.
fn tidy_descriptor(mut document: Json) -> Json {
    let part = match document.get("apiVersion") {
        Some(_) => "spec",
        None => "component",
    };
    if let Some(component) = document.get_mut(part).and_then(Json::as_object_mut) {
        let composed = component
            .iter()
            .any(|(key, value)| value.is_null() && OMITTED_WHEN_EMPTY.contains(&key.as_str()));
        drop_nulls(component);
        for list in ["resources", "sources", "componentReferences", "references"] {
            for element in component
                .get_mut(list)
                .and_then(Json::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(element) = element.as_object_mut() {
                    drop_nulls(element);
                    if composed {
                        drop_empty(element);
                    }
                }
            }
        }
    }
    if let Some(document) = document.as_object_mut() {
        document.retain(|key, value| {
            !(value.is_null() && matches!(key.as_str(), "signatures" | "nestedDigests"))
        });
    }
    document
}

/// A resource that expressions put together, as Go would store it.
pub fn tidy_resource(mut resource: Json) -> Json {
    if let Some(fields) = resource.as_object_mut() {
        drop_nulls(fields);
        drop_empty(fields);
    }
    resource
}

fn drop_nulls(fields: &mut Map<String, Json>) {
    fields.retain(|key, value| !(value.is_null() && OMITTED_WHEN_EMPTY.contains(&key.as_str())));
}

fn drop_empty(fields: &mut Map<String, Json>) {
    let is_empty = |value: &Json| match value {
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.is_empty(),
        _ => false,
    };
    fields.retain(|key, value| !(OMITTED_WHEN_EMPTY.contains(&key.as_str()) && is_empty(value)));
}

/// The folder for temporary files that the reference's steps ask for. Bytes stream here, so it has no effect.
pub type OutputPath = Option<String>;
