//! From a [`Node`] to a typed value, with the place of what does not fit.
//!
//! Invariant: every error names a path and a span, at worst those of the value around the fault.

use std::fmt;

use serde::Deserializer;
use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::Number;

use super::{Member, Node, Path, Segment, Span, Value};

/// A value that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeError {
    /// Where the value stands.
    pub span: Span,
    /// The way to it from the node that was read.
    pub path: Path,
    /// What does not fit.
    pub message: String,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.segments().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for NodeError {}

/// Reads a typed value. Text fields take any scalar as Go's text of it, whole floats fit integers, maps keep
/// their order; null is for options only.
///
/// # Errors
/// The first value that does not fit. Below `untagged` and `flatten` serde forgets places: the value around
/// is named then.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, NodeError> {
    T::deserialize(Reader(node)).map_err(|fault| {
        let mut segments = fault.segments;
        segments.reverse();
        NodeError {
            span: fault.span.unwrap_or(node.span),
            path: Path::new(segments),
            message: fault.message,
        }
    })
}

/// An error on its way up: the innermost node gives the span, every level adds its step.
#[derive(Debug)]
struct Fault {
    message: String,
    span: Option<Span>,
    /// From the inside out.
    segments: Vec<Segment>,
}

impl Fault {
    fn within(mut self, segment: Segment, span: Span) -> Self {
        self.span.get_or_insert(span);
        self.segments.push(segment);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            span: None,
            segments: Vec::new(),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unit | Unexpected::Option => "null".to_owned(),
            Unexpected::Bool(value) => format!("`{value}`"),
            Unexpected::Unsigned(value) => format!("`{value}`"),
            Unexpected::Signed(value) => format!("`{value}`"),
            Unexpected::Float(value) => format!("`{value}`"),
            Unexpected::Str(text) => format!("the text `{text}`"),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            other => other.to_string(),
        };
        Self::custom(format_args!("expected {expected}, found {found}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field `{field}` is missing"))
    }
}

#[derive(Clone, Copy)]
struct Reader<'n>(&'n Node);

impl<'n> Reader<'n> {
    fn unexpected(self) -> Unexpected<'n> {
        match &self.0.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Unexpected::Unsigned(value),
                (_, Some(value)) => Unexpected::Signed(value),
                _ => Unexpected::Float(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    /// A number for an integer field: `1e3` and `08` are floats to Go, but whole.
    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Number(number) => number_to(whole(number).as_ref().unwrap_or(number), visitor),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }
}

/// The integer that a float without fraction stands for.
fn whole(number: &Number) -> Option<Number> {
    /// Up to here floats hold every integer: 2 to the power of 53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = number.as_f64().filter(|_| number.is_f64())?;
    (value.fract() == 0.0 && value.abs() <= EXACT).then(|| Number::from(value as i64))
}

fn number_to<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Fault> {
    if let Some(value) = number.as_u64() {
        visitor.visit_u64(value)
    } else if let Some(value) = number.as_i64() {
        visitor.visit_i64(value)
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or_default())
    }
}

macro_rules! integers {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.integer(visitor)
        })*
    };
}

macro_rules! texts {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.0.as_go_string() {
                Some(text) => visitor.visit_str(&text),
                None => Err(Fault::invalid_type(self.unexpected(), &visitor)),
            }
        })*
    };
}

/// The name under which serde_json's `RawValue` asks for the text of a value.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => number_to(number, visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::List(items) => {
                let mut access = Items { items, at: 0 };
                let value = visitor.visit_seq(&mut access)?;
                if access.at < items.len() {
                    return Err(Fault::invalid_length(items.len(), &"fewer items"));
                }
                Ok(value)
            }
            Value::Map(map) => visitor.visit_map(Entries {
                entries: map.iter(),
                current: None,
            }),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    texts! { deserialize_str deserialize_string deserialize_char deserialize_identifier }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == RAW_VALUE {
            let text = self.0.to_json().to_string();
            return visitor.visit_map(MapDeserializer::new(std::iter::once((RAW_VALUE, text))));
        }
        visitor.visit_newtype_struct(self)
    }

    /// A text is a variant without content, a map of one entry one with.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Some(text) = self.0.as_go_string() {
            let text: StrDeserializer<'_, Fault> = (*text).into_deserializer();
            return visitor.visit_enum(text);
        }
        match self.0.as_map().map(|map| (map.len(), map.first())) {
            Some((1, Some((name, member)))) => visitor.visit_enum(Variant { name, member }),
            Some(_) => Err(Fault::custom("expected a map of exactly one entry")),
            None => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool f32 f64 bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
    }
}

struct Items<'n> {
    items: &'n [Node],
    at: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.get(self.at) else {
            return Ok(None);
        };
        let segment = Segment::Index(self.at);
        self.at += 1;
        seed.deserialize(Reader(item))
            .map(Some)
            .map_err(|fault| fault.within(segment, item.span))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.at)
    }
}

struct Entries<'n> {
    entries: indexmap::map::Iter<'n, String, Member>,
    current: Option<(&'n str, &'n Member)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, member)) = self.entries.next() else {
            return Ok(None);
        };
        self.current = Some((name, member));
        let key: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|fault| fault.within(Segment::Key(name.clone()), member.key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((name, member)) = self.current.take() else {
            return Err(Fault::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader(&member.node))
            .map_err(|fault| fault.within(Segment::Key(name.to_owned()), member.node.span))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

struct Variant<'n> {
    name: &'n str,
    member: &'n Member,
}

impl Variant<'_> {
    fn locate(&self) -> impl Fn(Fault) -> Fault {
        let (segment, span) = (Segment::Key(self.name.to_owned()), self.member.node.span);
        move |fault| fault.within(segment.clone(), span)
    }
}

impl<'de, 'n> EnumAccess<'de> for Variant<'n> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        match seed.deserialize(name) {
            Ok(variant) => Ok((variant, self)),
            Err(fault) => Err(fault.within(Segment::Key(self.name.to_owned()), self.member.key)),
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.member.node.value {
            Value::Null => Ok(()),
            _ => Err(self.locate()(Fault::custom("expected nothing here"))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(Reader(&self.member.node))
            .map_err(self.locate())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        Reader(&self.member.node)
            .deserialize_any(visitor)
            .map_err(self.locate())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        Reader(&self.member.node)
            .deserialize_any(visitor)
            .map_err(self.locate())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::{LoadOptions, Source, load};
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Step {
        id: String,
        #[serde(default)]
        count: Option<u32>,
        #[serde(default)]
        labels: indexmap::IndexMap<String, String>,
        #[serde(default)]
        parts: Vec<Part>,
        #[serde(default)]
        raw: Option<Box<serde_json::value::RawValue>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Part {
        Nothing,
        Size(u64),
        Pair { left: bool, right: f64 },
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        let source = Source::new("t", text);
        let node = load(&source, &LoadOptions::default()).unwrap();
        from_node(&node).map_err(|error: NodeError| {
            let at = source.position(error.span.start);
            format!("{}:{}: {error}", at.line, at.column)
        })
    }

    #[test]
    fn values_arrive_as_go_would_read_them() {
        let text = "id: 1.10\ncount: 08\nlabels: {b: y, a: 012}\nparts: [nothing, size: 1e3, {pair: {left: on, right: 1}}]";
        let step: Step = read(text).unwrap();
        assert_eq!(step.id, "1.1");
        assert_eq!(step.count, Some(8));
        let labels: Vec<_> = step.labels.iter().collect();
        assert_eq!(
            labels,
            [
                (&"b".to_owned(), &"true".to_owned()),
                (&"a".into(), &"10".into())
            ]
        );
        let pair = Part::Pair {
            left: true,
            right: 1.0,
        };
        assert_eq!(step.parts, [Part::Nothing, Part::Size(1000), pair]);
        let step: Step = read("id: a\nraw: {z: 1, a: [x]}").unwrap();
        assert_eq!(step.raw.unwrap().get(), r#"{"z":1,"a":["x"]}"#);
        let any: serde_json::Value = read("b: [1, x]\na: ~").unwrap();
        assert_eq!(any.to_string(), r#"{"b":[1,"x"],"a":null}"#);
        assert_eq!(read::<(u8, String)>("[1, a]").unwrap(), (1, "a".into()));
    }

    #[test]
    fn faults_have_a_path_and_a_place() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read::<Step>(text).unwrap_err(), expected, "{text}");
        };
        check("count: 1", "1:1: the field `id` is missing");
        check("id: [a]", "1:5: id: expected a string, found a list");
        check("id:", "1:4: id: expected a string, found null");
        check(
            "id: a\ncount: x",
            "2:8: count: expected u32, found the text `x`",
        );
        check(
            "id: a\ncount: -1",
            "2:8: count: invalid value: integer `-1`, expected u32",
        );
        check("id: a\ncount: 1.5", "2:8: count: expected u32, found `1.5`");
        check(
            "id: a\nlabels:\n  a.b: {}",
            "3:8: labels[\"a.b\"]: expected a string, found a map",
        );
        check(
            "id: a\nparts:\n- size: 1\n- pair:\n    left: 1",
            "5:11: parts[1].pair.left: expected a boolean, found `1`",
        );
        check(
            "id: a\nparts: [sise]",
            "2:9: parts[0]: unknown variant `sise`, expected one of `nothing`, `size`, `pair`",
        );
        check(
            "id: a\nparts: [{pair: {left: y}}]",
            "2:16: parts[0].pair: the field `right` is missing",
        );
        assert!(
            read::<Step>("id: a\ncuont: 1")
                .unwrap_err()
                .starts_with("2:1: cuont: unknown field")
        );
        assert!(
            read::<(u8, u8)>("[1, 2, 3]")
                .unwrap_err()
                .contains("length 3")
        );
        assert!(read::<BTreeMap<String, u8>>("[1]").is_err());
    }

    #[test]
    fn the_deepest_tree_fits_the_stack() {
        let depth = super::super::DEPTH_CEILING;
        let text = format!("{}{}", "[{a: ".repeat(depth / 2), "}]".repeat(depth / 2));
        let source = Source::new("t", text);
        let options = LoadOptions {
            depth_limit: depth,
            ..LoadOptions::default()
        };
        let node = load(&source, &options).unwrap();
        assert!(from_node::<serde_json::Value>(&node).unwrap().is_array());
    }
}
