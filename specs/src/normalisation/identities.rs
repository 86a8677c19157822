//! Extra identities as the older algorithms see them: resources that only their versions tell apart get the version in.
//!
//! *Invariant*: the outcome is that of the library v1, which changes one resource after the other and looks at what the
//! earlier ones have become: the last one of a clashing group stays as it is (trap T7).

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::descriptor::{ComponentDescriptor, Element};
use crate::json::{field, to_canonical};

/// For each resource, the version that is added to its extra identity, if any. Takes time in proportion to the resources.
pub(super) fn versioned(descriptor: &ComponentDescriptor) -> Vec<Option<&str>> {
    let mut alike: HashMap<(&str, String), usize> = HashMap::new();
    let key = |element: &Element<'_>, version: Option<&str>| {
        let fields = element.value().as_object();
        let extra = fields.map(|fields| extra_identity(fields, version).into_owned());
        to_canonical(&Value::Object(extra.unwrap_or_default()))
    };
    for resource in descriptor.resources() {
        *alike
            .entry((resource.name(), key(&resource, None)))
            .or_default() += 1;
    }
    let mut versioned = Vec::with_capacity(descriptor.resources().len());
    for resource in descriptor.resources() {
        let own = alike
            .entry((resource.name(), key(&resource, None)))
            .or_default();
        if *own < 2 {
            versioned.push(None);
            continue;
        }
        *own -= 1;
        let version = stored_version(&resource);
        *alike
            .entry((resource.name(), key(&resource, Some(version))))
            .or_default() += 1;
        versioned.push(Some(version));
    }
    versioned
}

/// The extra identity of an element, with `version` in it where there is one; empty where it is absent or null.
pub(super) fn extra_identity<'a>(
    fields: &'a Map<String, Value>,
    version: Option<&str>,
) -> Cow<'a, Map<String, Value>> {
    let stored = field(fields, "extraIdentity").and_then(Value::as_object);
    let mut extra = stored.map_or_else(|| Cow::Owned(Map::new()), Cow::Borrowed);
    if let Some(version) = version {
        extra
            .to_mut()
            .insert("version".to_owned(), Value::from(version));
    }
    extra
}

/// The version that the element has of its own.
fn stored_version<'a>(element: &Element<'a>) -> &'a str {
    element
        .value()
        .as_object()
        .and_then(|fields| field(fields, "version"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}
