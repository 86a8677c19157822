//! Configuration documents of both generations: lists of typed entries, nested and in named sets (formats.md 8.2).
//!
//! *Invariant*: entries are borrowed as they stand; what an entry says is read by whoever its type is for.

use serde_json::Value;
use thiserror::Error;

/// The type of documents that hold entries, without its version.
pub const GENERIC: &str = "generic.config.ocm.software";

/// Deepest nesting of configurations in configurations.
const NESTING: usize = 16;
/// Most entries of one document.
const ENTRIES: usize = 100_000;

/// One entry of a configuration.
#[derive(Clone, Debug)]
pub struct ConfigEntry<'d> {
    /// The type without its version.
    pub kind: &'d str,
    /// What stands behind `/` in the type.
    pub version: Option<&'d str>,
    /// The whole entry.
    pub value: &'d Value,
    /// Its place in the document, as in `configurations[2]`; empty for a document that is an entry itself.
    pub at: String,
}

/// What is wrong with a configuration document.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The document is a list or a scalar.
    #[error("a configuration is a map with a `type`")]
    NotAMap,
    /// A field has the wrong shape.
    #[error("{at}: expected {expected}")]
    Shape {
        /// The field's place.
        at: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Configurations in configurations without end.
    #[error("{at}: configurations are nested too deeply")]
    Nesting {
        /// Where it is too deep.
        at: String,
    },
    /// More entries than anybody writes.
    #[error("more than {ENTRIES} entries")]
    TooMany,
    /// A set that was asked for is in no document.
    #[error("there is no set `{name}` of configurations")]
    NoSet {
        /// The name.
        name: String,
    },
}

/// The place of a field of what is at `at`: nothing for a document, and a text that ends in `:` for a named one.
pub fn place_of(at: &str, field: &str) -> String {
    match at {
        "" => field.to_owned(),
        at if at.ends_with(':') => format!("{at} {field}"),
        at => format!("{at}.{field}"),
    }
}

/// The entries of a document in the order in which they count: a later one wins over an earlier one. Configurations
/// nested in the list come after their siblings, and the `sets` that `wanted` names come last, in its order.
///
/// # Errors
/// Wrong shapes. A set that is not in this document is no error here: see [`has_set`].
pub fn entries<'d>(
    document: &'d Value,
    wanted: &[String],
) -> Result<Vec<ConfigEntry<'d>>, ConfigError> {
    if !document.is_object() {
        return Err(ConfigError::NotAMap);
    }
    let mut found = Vec::new();
    collect(document, "", NESTING, &mut found)?;
    for name in wanted {
        let set = document.get("sets").and_then(|sets| sets.get(name));
        if let Some(set) = set {
            list(set, &format!("sets.{name}"), NESTING, &mut found)?;
        }
    }
    Ok(found)
}

/// Does the document have the set of that name?
pub fn has_set(document: &Value, name: &str) -> bool {
    document
        .get("sets")
        .and_then(|sets| sets.get(name))
        .is_some()
}

/// A type's name and its version.
pub fn split_type(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    }
}

fn collect<'d>(
    value: &'d Value,
    at: &str,
    nesting: usize,
    found: &mut Vec<ConfigEntry<'d>>,
) -> Result<(), ConfigError> {
    let (kind, version) = kind_of(value, at)?;
    if kind == GENERIC {
        return list(value, at, nesting, found);
    }
    if found.len() == ENTRIES {
        return Err(ConfigError::TooMany);
    }
    found.push(ConfigEntry {
        kind,
        version,
        value,
        at: at.to_owned(),
    });
    Ok(())
}

fn list<'d>(
    value: &'d Value,
    at: &str,
    nesting: usize,
    found: &mut Vec<ConfigEntry<'d>>,
) -> Result<(), ConfigError> {
    let Some(nesting) = nesting.checked_sub(1) else {
        return Err(ConfigError::Nesting { at: at.to_owned() });
    };
    let place = place_of(at, "configurations");
    let entries = match value.get("configurations") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            return Err(ConfigError::Shape {
                at: place,
                expected: "a list",
            });
        }
    };
    for nested in [false, true] {
        for (index, entry) in entries.iter().enumerate() {
            let at = format!("{place}[{index}]");
            if (kind_of(entry, &at)?.0 == GENERIC) == nested {
                collect(entry, &at, nesting, found)?;
            }
        }
    }
    Ok(())
}

fn kind_of<'d>(value: &'d Value, at: &str) -> Result<(&'d str, Option<&'d str>), ConfigError> {
    let shape = |field: &str, expected| ConfigError::Shape {
        at: match (at, field) {
            ("", field) => field.to_owned(),
            (at, "") => at.to_owned(),
            (at, field) => format!("{at}.{field}"),
        },
        expected,
    };
    let Some(map) = value.as_object() else {
        return Err(shape("", "a map with a `type`"));
    };
    match map.get("type") {
        Some(Value::String(text)) => Ok(split_type(text)),
        // Some other document: nobody will ask for its entries.
        None | Some(Value::Null) if at.is_empty() => Ok(("", None)),
        _ => Err(shape("type", "a text")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_count_in_the_order_of_the_go_programs() {
        let generic = |entries: Value| json!({"type": "generic.config.ocm.software", "configurations": entries});
        let document = json!({
            "type": "generic.config.ocm.software/v1",
            "configurations": [
                {"type": "a/v1"},
                generic(json!([{"type": "d"}, generic(json!([{"type": "f"}])), {"type": "e"}])),
                {"type": "b/v1alpha1"},
            ],
            "sets": {"more": {"description": "x", "configurations": [{"type": "s"}]}, "unused": {"configurations": [{"type": "t"}]}},
        });
        let found = entries(&document, &["more".to_owned(), "elsewhere".to_owned()]);
        let found = found.expect("a good document");
        let shown: Vec<String> = found
            .iter()
            .map(|entry| {
                format!(
                    "{}@{} {}",
                    entry.kind,
                    entry.version.unwrap_or("-"),
                    entry.at
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a@v1 configurations[0]",
                "b@v1alpha1 configurations[2]",
                "d@- configurations[1].configurations[0]",
                "e@- configurations[1].configurations[2]",
                "f@- configurations[1].configurations[1].configurations[0]",
                "s@- sets.more.configurations[0]",
            ]
        );
        assert!(has_set(&document, "unused") && !has_set(&document, "elsewhere"));
        // A document may be one entry.
        let single = json!({"type": "credentials.config.ocm.software"});
        assert_eq!(entries(&single, &[]).expect("one entry").len(), 1);
        assert!(entries(&json!({"auths": {}}), &[]).is_ok());
    }

    #[test]
    fn mistakes_have_a_place() {
        let nested = (0..20).fold(
            json!({"type": "x"}),
            |inner, _| json!({"type": GENERIC, "configurations": [inner]}),
        );
        for (document, expected) in [
            (json!([]), "a configuration is a map with a `type`"),
            (
                json!({"type": GENERIC, "configurations": {}}),
                "configurations: expected a list",
            ),
            (
                json!({"type": GENERIC, "configurations": [{"type": 5}]}),
                "configurations[0].type: expected a text",
            ),
            (
                json!({"type": GENERIC, "configurations": ["x"]}),
                "configurations[0]: expected a map with a `type`",
            ),
            (
                json!({"type": GENERIC, "configurations": [{}]}),
                "configurations[0].type: expected a text",
            ),
            (nested, "configurations are nested too deeply"),
        ] {
            let error = entries(&document, &[]).expect_err(expected);
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
}
