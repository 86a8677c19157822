//! Building blocks of generated specs.

use std::fmt::Display;

use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::transfer::{StepSpec, Word};
use ocm_specs::yaml::{Map, Member, Node, Span, Value};
use serde_json::{Map as JsonMap, Value as Json};

use crate::inert;

/// Words that CEL keeps for itself: as field names they stand in quotes.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// A component version in words, `component:version`.
pub(super) fn key_of(descriptor: &ComponentDescriptor) -> String {
    format!("{}:{}", descriptor.name(), descriptor.version())
}

/// A map in the order given.
pub(super) fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Node)>) -> Node {
    let entries = entries.into_iter().map(|(key, node)| {
        let key = key.into();
        (
            key,
            Member {
                key: Span::default(),
                node,
            },
        )
    });
    Node::new(Value::Map(entries.collect::<Map>()))
}

/// A list.
pub(super) fn list(items: impl IntoIterator<Item = Node>) -> Node {
    Node::new(Value::List(items.into_iter().collect()))
}

/// A text that stands for itself.
pub(super) fn text(value: &str) -> Node {
    Node::new(Value::String(inert::text(value)))
}

/// Data that stands for itself.
pub(super) fn data(value: &Json) -> Node {
    inert::node(Node::from_json(value, Span::default()))
}

/// The value of an expression.
pub(super) fn value_of(expression: impl Display) -> Node {
    Node::new(Value::String(format!("${{{expression}}}")))
}

/// A repository as steps take it. An archive that is written comes into being when it is not there.
pub(super) fn repository(spec: &RepositorySpec, write: bool) -> Node {
    let mut value = spec.to_value();
    if let (RepositorySpec::Ctf(ctf), Some(fields), true) = (spec, value.as_object_mut(), write)
        && ctf.access_mode.is_none()
    {
        fields.insert("accessMode".to_owned(), "readwrite|create".into());
    }
    data(&value)
}

/// How an expression goes on to a field, as `.name` or `["name"]`.
pub(super) fn field(name: &str) -> String {
    let mut characters = name.chars();
    let is_plain = characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && characters.all(|it| it.is_ascii_alphanumeric())
        && !RESERVED.contains(&name);
    if is_plain {
        return format!(".{name}");
    }
    // JSON's escapes are CEL's.
    format!("[{}]", Json::from(name))
}

/// The fields of an object, each by reference to where it is; nulls as such. `replaced` gives those that are something else.
pub(super) fn fields_of(
    object: &JsonMap<String, Json>,
    path: &str,
    mut replaced: impl FnMut(&str) -> Option<Node>,
) -> Node {
    map(object.iter().map(|(key, value)| {
        let node = replaced(key).unwrap_or_else(|| match value {
            Json::Null => Node::new(Value::Null),
            _ => value_of(format!("{path}{}", field(key))),
        });
        (key.clone(), node)
    }))
}

/// A step.
pub(super) fn step(id: &str, step_type: &str, label: String, spec: Node) -> StepSpec {
    let word = |text: &str| Word::new(text, Span::default());
    StepSpec {
        id: Some(word(id)),
        step_type: word(step_type),
        label: Some(label),
        depends_on: Vec::new(),
        spec,
        span: Span::default(),
    }
}
