//! Constants of a transfer spec.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map as JsonMap, Value as Json};

/// Constants that expressions may use as `environment`: values by name, in the order of the document.
///
/// Each value is shared with whoever holds it, too: a generated spec names the descriptors of ten thousand component
/// versions, which are in memory once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment(IndexMap<String, Arc<Json>>);

impl Environment {
    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name).map(|value| &**value)
    }

    /// Adds a value, in place of the one that had the name.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Arc<Json>>) {
        self.0.insert(name.into(), value.into());
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// The names in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values in their order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Arc<Json>> {
        self.0.values_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it as one map, copied.
    pub fn to_json(&self) -> Json {
        let fields = self
            .iter()
            .map(|(name, value)| (name.to_owned(), value.clone()));
        Json::Object(fields.collect::<JsonMap<_, _>>())
    }
}

impl<S: Into<String>> FromIterator<(S, Json)> for Environment {
    fn from_iter<I: IntoIterator<Item = (S, Json)>>(values: I) -> Self {
        let values = values.into_iter();
        Self(
            values
                .map(|(name, value)| (name.into(), Arc::new(value)))
                .collect(),
        )
    }
}
