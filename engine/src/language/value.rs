//! The values of running expressions.
//!
//! *Invariant*: documents are borrowed until a result leaves; maps are always in the order of their keys.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use ocm_specs::transfer::Environment;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::path::step_json;
use super::scope::StepView;
use super::syntax::foreign;

/// A value; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    List(List<'a>),
    Map(Map<'a>),
    Step(StepView<'a>),
    Optional(Option<Rc<Val<'a>>>),
    /// The type of a value, by its CEL name.
    Type(&'static str),
    /// What JSON does not have: timestamps, durations, bytes.
    Foreign(Rc<foreign::Value>),
}

#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

#[derive(Clone, Debug)]
pub(super) enum List<'a> {
    Borrowed(&'a [Json]),
    Shared(Rc<Vec<Val<'a>>>),
}

#[derive(Clone, Debug)]
pub(super) enum Map<'a> {
    Borrowed(&'a JsonMap<String, Json>),
    Constants(&'a Environment),
    Shared(Rc<BTreeMap<Key, Val<'a>>>),
}

/// A key of a map. Integers of either sign and size are one kind, as in CEL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Bool(bool),
    Int(i128),
    Text(Rc<str>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Borrowed(list) => list.len(),
            Self::Shared(list) => list.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Borrowed(list) => list.get(index).map(Val::from_json),
            Self::Shared(list) => list.get(index).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Borrowed(map) => map.len(),
            Self::Constants(map) => map.len(),
            Self::Shared(map) => map.len(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Borrowed(map), Key::Text(key)) => map.get(&**key).map(Val::from_json),
            (Self::Constants(map), Key::Text(key)) => map.get(key).map(Val::from_json),
            (Self::Borrowed(_) | Self::Constants(_), _) => None,
            (Self::Shared(map), key) => map.get(key).cloned(),
        }
    }

    /// The keys in their order.
    pub(super) fn keys(&self) -> Vec<Key> {
        match self {
            Self::Borrowed(map) => sorted(map.keys().map(String::as_str)),
            Self::Constants(map) => sorted(map.names()),
            Self::Shared(map) => map.keys().cloned().collect(),
        }
    }
}

fn sorted<'k>(names: impl Iterator<Item = &'k str>) -> Vec<Key> {
    let mut keys: Vec<Key> = names.map(Key::text).collect();
    keys.sort_unstable();
    keys
}

impl Key {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// The key that `value` is, if it can be one.
    pub(super) fn of(value: &Val<'_>) -> Option<Self> {
        Some(match value {
            Val::Bool(value) => Self::Bool(*value),
            Val::Int(value) => Self::Int(i128::from(*value)),
            Val::Uint(value) => Self::Int(i128::from(*value)),
            Val::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
                Self::Int(*value as i128)
            }
            Val::Text(text) => Self::text(text.as_str()),
            _ => return None,
        })
    }

    pub(super) fn to_val<'a>(&self) -> Val<'a> {
        match self {
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => Val::Int(value),
                (_, Ok(value)) => Val::Uint(value),
                // Keys are made of 64-bit integers.
                _ => Val::Null,
            },
            Self::Text(text) => Val::Text(Text::Shared(Rc::clone(text))),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

impl<'a> Val<'a> {
    /// A document's value. Integers that fit are signed: CEL does not add signed and unsigned ones.
    pub(super) fn from_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Uint(value),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(Text::Borrowed(text)),
            Json::Array(list) => Self::List(List::Borrowed(list)),
            Json::Object(map) => Self::Map(Map::Borrowed(map)),
        }
    }

    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text::Shared(text.into()))
    }

    pub(super) fn list(list: Vec<Self>) -> Self {
        Self::List(List::Shared(Rc::new(list)))
    }

    pub(super) fn map(map: BTreeMap<Key, Self>) -> Self {
        Self::Map(Map::Shared(Rc::new(map)))
    }

    pub(super) fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The CEL name of the value's type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) | Self::Step(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Foreign(value) => match &**value {
                foreign::Value::Bytes(_) => "bytes",
                foreign::Value::Duration(_) => "google.protobuf.Duration",
                foreign::Value::Timestamp(_) => "google.protobuf.Timestamp",
                _ => "dyn",
            },
        }
    }

    /// Is it the empty value of its kind (`optional.ofNonZeroValue`)?
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::Text(text) => text.as_str().is_empty(),
            Self::List(list) => list.len() == 0,
            Self::Map(map) => map.len() == 0,
            Self::Optional(value) => value.is_none(),
            Self::Step(_) | Self::Type(_) | Self::Foreign(_) => false,
        }
    }

    /// The order of two values, if they have one.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_str().partial_cmp(b.as_str()),
            _ => compare_numbers(self, other),
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// For the standard library of the `cel` crate; only scalars go there.
    pub(super) fn to_foreign(&self) -> Option<foreign::Value> {
        Some(match self {
            Self::Null => foreign::Value::Null,
            Self::Bool(value) => foreign::Value::Bool(*value),
            Self::Int(value) => foreign::Value::Int(*value),
            Self::Uint(value) => foreign::Value::UInt(*value),
            Self::Double(value) => foreign::Value::Float(*value),
            Self::Text(text) => foreign::Value::from(text.as_str()),
            Self::Foreign(value) => (**value).clone(),
            _ => return None,
        })
    }

    /// Back from the standard library of the `cel` crate.
    pub(super) fn from_foreign(value: foreign::Value) -> Option<Self> {
        Some(match value {
            foreign::Value::Null => Self::Null,
            foreign::Value::Bool(value) => Self::Bool(value),
            foreign::Value::Int(value) => Self::Int(value),
            foreign::Value::UInt(value) => Self::Uint(value),
            foreign::Value::Float(value) => Self::Double(value),
            foreign::Value::String(text) => Self::text(text.as_str()),
            foreign::Value::Bytes(_)
            | foreign::Value::Duration(_)
            | foreign::Value::Timestamp(_) => Self::Foreign(Rc::new(value)),
            _ => return None,
        })
    }
}

fn compare_numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    let integer = |value: &Val<'_>| match value {
        Val::Int(value) => Some(i128::from(*value)),
        Val::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    match (a, b, integer(a), integer(b)) {
        (_, _, Some(a), Some(b)) => Some(a.cmp(&b)),
        (Val::Double(a), Val::Double(b), _, _) => a.partial_cmp(b),
        (Val::Double(a), _, _, Some(b)) => compare_mixed(*a, b),
        (_, Val::Double(b), Some(a), _) => compare_mixed(*b, a).map(Ordering::reverse),
        _ => None,
    }
}

/// A double against an integer, exactly: large integers are not rounded.
fn compare_mixed(double: f64, integer: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Truncation saturates at the range of i128, far outside of 64-bit integers.
    let whole = double.trunc() as i128;
    Some(
        whole
            .cmp(&integer)
            .then_with(|| double.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)),
    )
}

/// Why a value does not fit into JSON.
#[derive(Debug)]
pub(super) enum NoJson {
    Unsupported(String),
    Limit,
}

/// Turns a result into JSON: optionals unwrapped, nothing as null, keys sorted. Costs one unit of `work` per value.
pub(super) fn to_json(value: &Val<'_>, work: &mut u64) -> Result<Json, NoJson> {
    spend(work, 1)?;
    let unsupported = |what: String| Err(NoJson::Unsupported(what));
    match value {
        Val::Null | Val::Optional(None) => Ok(Json::Null),
        Val::Optional(Some(value)) => to_json(value, work),
        Val::Bool(value) => Ok(Json::Bool(*value)),
        Val::Int(value) => Ok(Json::from(*value)),
        Val::Uint(value) => Ok(Json::from(*value)),
        Val::Double(value) => match Number::from_f64(*value) {
            Some(number) => Ok(Json::Number(number)),
            None => unsupported(format!("{value} is no JSON number")),
        },
        Val::Text(text) => {
            spend(work, text.as_str().len() as u64 / 16)?;
            Ok(Json::String(text.as_str().to_owned()))
        }
        Val::List(List::Borrowed(list)) => {
            list.iter().try_for_each(|item| count(item, work))?;
            Ok(Json::Array(list.to_vec()))
        }
        Val::List(List::Shared(list)) => list
            .iter()
            .map(|item| to_json(item, work))
            .collect::<Result<_, _>>()
            .map(Json::Array),
        Val::Map(Map::Borrowed(map)) => {
            map.values().try_for_each(|item| count(item, work))?;
            Ok(Json::Object((*map).clone()))
        }
        Val::Map(Map::Constants(map)) => {
            map.iter().try_for_each(|(_, item)| count(item, work))?;
            Ok(map.to_json())
        }
        Val::Map(Map::Shared(map)) => map
            .iter()
            .map(|(key, item)| match key {
                Key::Text(key) => Ok((key.to_string(), to_json(item, work)?)),
                key => Err(NoJson::Unsupported(format!(
                    "the key {key} of a map is no string"
                ))),
            })
            .collect::<Result<_, _>>()
            .map(Json::Object),
        Val::Step(step) => {
            for part in [step.spec, step.output].into_iter().flatten() {
                count(part, work)?;
            }
            Ok(step_json(*step))
        }
        Val::Type(_) => unsupported("a type is no JSON value".to_owned()),
        Val::Foreign(_) => unsupported(format!(
            "unsupported result: a {} is no JSON value, convert it with `string`",
            value.kind().rsplit('.').next().unwrap_or_default()
        )),
    }
}

/// Charges for copying a document.
fn count(json: &Json, work: &mut u64) -> Result<(), NoJson> {
    spend(work, 1)?;
    match json {
        Json::String(text) => spend(work, text.len() as u64 / 16),
        Json::Array(list) => list.iter().try_for_each(|item| count(item, work)),
        Json::Object(map) => map.values().try_for_each(|item| count(item, work)),
        _ => Ok(()),
    }
}

fn spend(work: &mut u64, units: u64) -> Result<(), NoJson> {
    *work = work.checked_sub(units).ok_or(NoJson::Limit)?;
    Ok(())
}

/// Writes a value as Go's `%v` does, which is what the reference puts into templates.
pub(super) fn write_go(value: &Json, out: &mut String) {
    match value {
        Json::Null => out.push_str("<nil>"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(number) if number.is_f64() => {
            out.push_str(&go_float(number.as_f64().unwrap_or(f64::NAN)));
        }
        Json::Number(number) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "{number}");
        }
        Json::String(text) => out.push_str(text),
        Json::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_go(item, out);
            }
            out.push(']');
        }
        Json::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_go(item, out);
            }
            out.push(']');
        }
    }
}

/// A float as Go's `%v` writes it: shortest digits, an exponent below 1e-4 and from 1e6 on.
fn go_float(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return match value {
            value if value.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            value if value.is_sign_negative() => "-0".to_owned(),
            _ => "0".to_owned(),
        };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_like_go() {
        for (value, expected) in [
            (json!("a b"), "a b"),
            (json!(null), "<nil>"),
            (json!(true), "true"),
            (json!(-42), "-42"),
            (
                json!(18_446_744_073_709_551_615_u64),
                "18446744073709551615",
            ),
            (json!(1.5), "1.5"),
            (json!(1e6), "1e+06"),
            (json!(123456789.0), "1.23456789e+08"),
            (json!(0.0001), "0.0001"),
            (json!(0.00001), "1e-05"),
            (json!(-1e100), "-1e+100"),
            (json!(2.0), "2"),
            (json!(123456.5), "123456.5"),
            (json!([1, "a", null]), "[1 a <nil>]"),
            (json!({"b": 1, "a": [2, 3]}), "map[a:[2 3] b:1]"),
        ] {
            let mut out = String::new();
            write_go(&value, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn compares_large_integers_exactly() {
        let big = Val::Int(9_007_199_254_740_993);
        assert_eq!(
            big.compare(&Val::Double(9_007_199_254_740_992.0)),
            Some(Ordering::Greater)
        );
        assert_eq!(
            Val::Double(1.5).compare(&Val::Int(1)),
            Some(Ordering::Greater)
        );
        assert_eq!(
            Val::Double(-1.5).compare(&Val::Int(-1)),
            Some(Ordering::Less)
        );
        assert_eq!(Val::Double(f64::NAN).compare(&Val::Int(1)), None);
    }
}
