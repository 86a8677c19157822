//! Resources inside of component descriptors that travel as JSON between steps.
//!
//! Invariant: a descriptor is never re-modelled here. What is not looked at stays as it was, in its order.

use ocm_content::Error;
use ocm_engine::Lineage;
use ocm_specs::diagnostic::did_you_mean;
use ocm_specs::{Identity, identity};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// Most resources that are listed in a message.
const LISTED: usize = 10;

/// Which resource of a component version: attributes of its identity, or the resource itself.
///
/// `{name}` is enough where no other resource has that name; `version` and the attributes of the extra identity, flat or
/// below `extraIdentity`, narrow it down. Of a whole resource, as steps hand it out, the identity is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceSelector(Map<String, Json>);

impl ResourceSelector {
    /// The attributes that are asked for.
    pub fn identity(&self) -> Identity {
        if self.0.contains_key("access") {
            return identity_of_fields(&self.0);
        }
        let flat = self.0.iter().filter(|(key, _)| *key != "extraIdentity");
        let extra = extra_identity(&self.0).into_iter().flatten();
        flat.chain(extra).filter_map(text_attribute).collect()
    }

    /// The one resource of `descriptor` that is meant.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::NotFound`] when there is none, [`ocm_content::ErrorKind::Invalid`] when there are several.
    pub fn find<'a>(&self, descriptor: &'a Json) -> Result<&'a Json, Error> {
        let resources = resources(descriptor)?;
        let wanted = self.identity();
        let found: Vec<&Json> = resources
            .iter()
            .filter(|resource| wanted.selects(&identity_of(resource)))
            .collect();
        match found.as_slice() {
            [only] => Ok(only),
            [] => Err(missing(&wanted, resources)),
            // `{name: x}` means the resource without extra identity where others of that name have one.
            several => match several
                .iter()
                .copied()
                .filter(|resource| {
                    without_version(&identity_of(resource)) == without_version(&wanted)
                })
                .collect::<Vec<_>>()
                .as_slice()
            {
                [exact] => Ok(exact),
                _ => Err(ambiguous(&wanted, several)),
            },
        }
    }
}

impl JsonSchema for ResourceSelector {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ResourceSelector".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Attributes of a resource's identity: `name`, perhaps `version` and the extra identity; or a whole resource.",
            "properties": {
                "name": {"type": "string"},
                "version": {"type": "string"},
                "extraIdentity": {"type": ["object", "null"]},
            },
            "required": ["name"],
            "additionalProperties": true,
        })
    }
}

/// The part of a descriptor that has the component's name and version: schema v2, v3alpha1.
const HEADS: [&str; 2] = ["/component", "/metadata"];
/// The resources in the same schemas.
const RESOURCES: [&str; 2] = ["/component/resources", "/spec/resources"];

/// Which schema: an index into the tables above.
fn schema(descriptor: &Json) -> usize {
    usize::from(descriptor.get("apiVersion").is_some())
}

/// Name and version of the component that `descriptor` describes.
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] when it has none.
pub fn component(descriptor: &Json) -> Result<(&str, &str), Error> {
    let head = descriptor.pointer(HEADS[schema(descriptor)]);
    let field = |name: &str| {
        head.and_then(|head| head.get(name)?.as_str())
            .ok_or_else(|| {
                Error::invalid(format!(
                    "this is no component descriptor: it has no component {name}"
                ))
            })
    };
    Ok((field("name")?, field("version")?))
}

/// The resources of `descriptor`; none where the list is null or absent.
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] when it is no component descriptor.
pub fn resources(descriptor: &Json) -> Result<&[Json], Error> {
    component(descriptor)?;
    match descriptor.pointer(RESOURCES[schema(descriptor)]) {
        None | Some(Json::Null) => Ok(&[]),
        Some(Json::Array(list)) => Ok(list),
        Some(_) => Err(Error::invalid("the descriptor's resources are no list")),
    }
}

/// The resources of `descriptor`, to be changed; `None` where the list is null or absent.
///
/// # Errors
/// As [`resources`].
pub fn resources_mut(descriptor: &mut Json) -> Result<Option<&mut Vec<Json>>, Error> {
    resources(descriptor)?;
    let pointer = RESOURCES[schema(descriptor)];
    Ok(descriptor.pointer_mut(pointer).and_then(Json::as_array_mut))
}

/// The component as expressions see it: everything of it that the descriptor has.
pub(crate) fn component_fields(descriptor: &Json) -> Json {
    if schema(descriptor) == 0 {
        return descriptor.get("component").cloned().unwrap_or_default();
    }
    let parts = ["metadata", "spec"].map(|part| descriptor.get(part).and_then(Json::as_object));
    let fields = parts.into_iter().flatten().flatten();
    Json::Object(
        fields
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    )
}

/// The whole identity of a resource: name, version, extra identity.
pub fn identity_of(resource: &Json) -> Identity {
    resource
        .as_object()
        .map(identity_of_fields)
        .unwrap_or_default()
}

/// The identity without its version: what tells the resources of most component versions apart.
pub fn without_version(identity: &Identity) -> Identity {
    identity
        .iter()
        .filter(|(key, _)| *key != identity::VERSION)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Says which resource some bytes are.
///
/// # Errors
/// As [`component`].
pub fn lineage(descriptor: &Json, resource: &Json) -> Result<Lineage, Error> {
    let (component, version) = component(descriptor)?;
    Ok(Lineage {
        component: component.to_owned(),
        version: version.to_owned(),
        resource: Some(resource.clone()),
    })
}

fn identity_of_fields(fields: &Map<String, Json>) -> Identity {
    let named = fields
        .iter()
        .filter(|(key, _)| *key == identity::NAME || *key == identity::VERSION);
    let extra = extra_identity(fields).into_iter().flatten();
    named.chain(extra).filter_map(text_attribute).collect()
}

fn extra_identity(fields: &Map<String, Json>) -> Option<&Map<String, Json>> {
    fields.get("extraIdentity").and_then(Json::as_object)
}

fn text_attribute((key, value): (&String, &Json)) -> Option<(String, String)> {
    Some((key.clone(), value.as_str()?.to_owned()))
}

fn missing(wanted: &Identity, resources: &[Json]) -> Error {
    let error = Error::not_found(format!("the component has no resource `{wanted}`"));
    let names = || resources.iter().filter_map(|it| it.get("name")?.as_str());
    match did_you_mean(wanted.name().unwrap_or_default(), names()) {
        Some(name) if Some(name) != wanted.name() => {
            error.with_hint(format!("did you mean `{name}`?"))
        }
        _ if resources.is_empty() => error.with_hint("it has no resources at all"),
        _ => error.with_hint(format!("it has {}", list(resources.iter()))),
    }
}

fn ambiguous(wanted: &Identity, found: &[&Json]) -> Error {
    Error::invalid(format!("several resources are `{wanted}`")).with_hint(format!(
        "add attributes until one is left: {}",
        list(found.iter().copied())
    ))
}

/// Identities as people read them, a bounded number of them.
pub(crate) fn list<'a>(resources: impl ExactSizeIterator<Item = &'a Json>) -> String {
    let count = resources.len();
    let mut text = resources
        .take(LISTED)
        .map(|resource| format!("`{}`", identity_of(resource)))
        .collect::<Vec<_>>()
        .join(", ");
    if count > LISTED {
        text.push_str(&format!(" and {} more", count - LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(selector: Json, expected: Result<u64, &str>) {
        let descriptor = json!({"component": {"name": "acme.org/x", "version": "1", "resources": [
            {"name": "image", "version": "1", "mark": 0, "access": {}},
            {"name": "image", "version": "1", "mark": 1, "extraIdentity": {"arch": "arm"}},
            {"name": "tool", "version": "1", "mark": 2, "extraIdentity": null},
            {"name": "tool", "version": "2", "mark": 3},
        ]}});
        let parsed: ResourceSelector = serde_json::from_value(selector.clone()).expect("selector");
        match (parsed.find(&descriptor), expected) {
            (Ok(found), Ok(mark)) => assert_eq!(found["mark"], mark, "{selector}"),
            (Err(error), Err(part)) => {
                let text = format!("{error} {}", error.hint().unwrap_or_default());
                assert!(text.contains(part), "{selector}: {text}");
            }
            (found, expected) => panic!("{selector}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn one_resource_or_a_reason() {
        check(json!({"name": "image"}), Ok(0));
        check(json!({"name": "image", "arch": "arm"}), Ok(1));
        check(
            json!({"name": "image", "extraIdentity": {"arch": "arm"}}),
            Ok(1),
        );
        check(json!({"name": "tool", "version": "2"}), Ok(3));
        check(
            json!({"name": "tool", "version": "1", "type": "x", "access": {}}),
            Ok(2),
        );
        check(
            json!({"name": "tool"}),
            Err("`name=tool,version=1`, `name=tool,version=2`"),
        );
        check(json!({"name": "imag"}), Err("did you mean `image`?"));
        check(json!({"name": "other-thing"}), Err("it has "));
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        for value in [json!(null), json!({}), json!({"component": {"name": "x"}})] {
            assert!(resources(&value).is_err(), "{value}");
        }
        let bad = json!({"component": {"name": "x", "version": "1", "resources": 7}});
        assert!(resources(&bad).is_err());
        let v3 = json!({
            "apiVersion": "ocm.software/v3alpha1", "metadata": {"name": "x", "version": "1"},
            "spec": {"resources": [{"name": "r"}]},
        });
        assert_eq!(resources(&v3).expect("one").len(), 1);
        assert_eq!(component_fields(&v3)["name"], "x");
        let empty = json!({"component": {"name": "x", "version": "1", "resources": null}});
        assert!(resources(&empty).expect("none").is_empty());
    }
}
