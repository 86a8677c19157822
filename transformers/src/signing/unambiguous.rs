//! Descriptors that two readers could understand differently are not signed and not verified.
//!
//! *Invariant*: what passes has each field once, however its name is cased: Go matches names in any case and takes the last
//! of several, others take the first or the exact one.

use std::collections::BTreeSet;
use std::fmt;

use ocm_content::Error;
use ocm_specs::descriptor::{ComponentDescriptor, Encoding};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// Below these stands free data, where names that differ in case are different names.
const FREE: [&str; 6] = [
    "access",
    "config",
    "extraidentity",
    "identityselector",
    "repositorycontexts",
    "value",
];

/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] with the field that is there twice.
pub(super) fn check(descriptor: &ComponentDescriptor) -> Result<(), Error> {
    let ambiguous = |why: String| Error::invalid(format!("the descriptor is ambiguous: {why}"));
    if let Some(original) = descriptor.original()
        && Encoding::of(&original.media_type) == Some(Encoding::Json)
    {
        let mut json = serde_json::Deserializer::from_slice(&original.bytes);
        Once.deserialize(&mut json)
            .map_err(|error| ambiguous(error.to_string()))?;
    }
    match doubled(descriptor.document()) {
        None => Ok(()),
        Some(field) => Err(ambiguous(format!(
            "the field `{field}` is there twice, in different cases"
        ))),
    }
}

fn doubled(value: &Json) -> Option<&str> {
    match value {
        Json::Array(items) => items.iter().find_map(doubled),
        Json::Object(fields) => {
            let mut seen = BTreeSet::new();
            for (key, value) in fields {
                let lower = key.to_ascii_lowercase();
                let is_free = FREE.contains(&lower.as_str());
                if !seen.insert(lower) {
                    return Some(key);
                }
                if let Some(found) = doubled(value).filter(|_| !is_free) {
                    return Some(found);
                }
            }
            None
        }
        _ => None,
    }
}

/// Reads JSON and keeps nothing; an object that has a key twice is an error.
struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Once)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format!(
                    "the field `{key}` is there twice"
                )));
            }
            seen.insert(key);
            fields.next_value_seed(Once)?;
        }
        Ok(())
    }
}
