//! Identities: the flat maps of text by which elements of a component version are named.
//!
//! *Invariant*: attributes are sorted by name, so equal identities print equal.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The attribute that every identity of an element has.
pub const NAME: &str = "name";
/// The attribute that the library v2 adds always and v1 where names clash.
pub const VERSION: &str = "version";

/// A set of attributes, complete or partial (formats.md 1.2 "Identity uniqueness per kind").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, String>);

impl Identity {
    /// An identity of a name alone.
    pub fn named(name: impl Into<String>) -> Self {
        Self(BTreeMap::from([(NAME.to_owned(), name.into())]))
    }

    /// Adds or replaces an attribute.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// An attribute's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The value of `name`.
    pub fn name(&self) -> Option<&str> {
        self.get(NAME)
    }

    /// Are there no attributes?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All attributes, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Does `whole` have every attribute of this identity with the same value?
    pub fn selects(&self, whole: &Self) -> bool {
        self.0
            .iter()
            .all(|(key, value)| whole.0.get(key) == Some(value))
    }
}

impl FromIterator<(String, String)> for Identity {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(attributes: I) -> Self {
        Self(attributes.into_iter().collect())
    }
}

impl fmt::Display for Identity {
    /// `k=v` pairs joined by commas (formats.md 5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl JsonSchema for Identity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Identity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "title": "Identity",
            "description": "Attributes that name an element of a component version: `name`, often `version`, and the extra identity.",
            "additionalProperties": { "type": "string" }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_selects_the_whole() {
        let whole = Identity::named("image")
            .with("version", "1.0")
            .with("os", "linux");
        assert!(Identity::named("image").selects(&whole));
        assert!(Identity::default().selects(&whole));
        assert!(!Identity::named("image").with("arch", "arm").selects(&whole));
        assert!(!whole.selects(&Identity::named("image")));
        assert_eq!(whole.to_string(), "name=image,os=linux,version=1.0");
    }
}
