//! Text that stands for itself in a spec, whatever characters it has: what comes from a descriptor is data, never an
//! expression.
//!
//! *Invariant*: evaluating what these functions give, gives back what they were given.

use ocm_specs::yaml::{Member, Node, Value};
use serde_json::Value as Json;

/// `${` becomes an expression that gives these characters.
pub(crate) fn text(text: &str) -> String {
    text.replace("${", "${'$'}{")
}

/// A text that stands for itself.
pub(crate) fn constant(value: &str) -> Json {
    text(value).into()
}

/// As [`text`], with places.
pub(crate) fn node(node: Node) -> Node {
    let value = match node.value {
        Value::String(it) => Value::String(text(&it)),
        Value::List(list) => Value::List(list.into_iter().map(self::node).collect()),
        Value::Map(map) => Value::Map(
            map.into_iter()
                .map(|(key, it)| {
                    let member = Member {
                        key: it.key,
                        node: self::node(it.node),
                    };
                    (key, member)
                })
                .collect(),
        ),
        other => other,
    };
    Node {
        value,
        span: node.span,
    }
}

/// The value in a form in which no text is an expression.
pub(crate) fn json(value: Json) -> Json {
    match value {
        Json::String(it) => text(&it).into(),
        Json::Array(list) => list.into_iter().map(json).collect(),
        Json::Object(map) => map.into_iter().map(|(key, it)| (key, json(it))).collect(),
        other => other,
    }
}
