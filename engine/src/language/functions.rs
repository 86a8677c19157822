//! The functions, methods and operators of the expression language.
//!
//! These are CEL's standard ones, those of optional values, and two of our own that take OCI references apart
//! (`parseRef`, `toOCI`). *Invariant*: a function charges for what it produces before it produces it.

use std::collections::BTreeMap;

use ocm_specs::reference::OciReference;
use regex::RegexBuilder;

use super::evaluate::{Machine, Outcome, failure, type_error};
use super::scope::{EvalError, EvalErrorKind, did_you_mean};
use super::syntax::{Node, foreign};
use super::value::{Key, Map, Val};

/// Names that stand for types where no variable has that name.
pub(super) const TYPE_NAMES: [&str; 11] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "optional_type",
    "string",
    "type",
    "uint",
];

/// Every function and method that can be called by name.
pub(super) const NAMES: [&str; 38] = [
    "all",
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "hasValue",
    "int",
    "map",
    "matches",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "parseRef",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "toOCI",
    "type",
    "uint",
];

/// The fields of what `parseRef` returns.
pub(super) const PARSE_REF_FIELDS: [&str; 6] = [
    "digest",
    "name",
    "reference",
    "registry",
    "repository",
    "tag",
];

/// The fields of what `toOCI` returns.
pub(super) const TO_OCI_FIELDS: [&str; 6] = [
    "digest",
    "host",
    "reference",
    "registry",
    "repository",
    "tag",
];

/// Longest pattern of `matches`, in bytes, and the memory that it may compile to.
const PATTERN_LIMIT: usize = 4096;
const PATTERN_MEMORY: usize = 256 << 10;
/// What compiling a pattern costs, besides its length; patterns are compiled once per evaluation while they are few.
const PATTERN_WORK: u64 = 2_000;
const PATTERNS_KEPT: usize = 16;

/// Calls `name`; for a method, `values` starts with the receiver.
pub(super) fn call<'a>(
    machine: &mut Machine<'a>,
    node: &'a Node,
    name: &str,
    method: bool,
    values: Vec<Val<'a>>,
) -> Outcome<'a> {
    if let ("_==_" | "_!=_", [a, b]) = (name, values.as_slice()) {
        let equal = machine.equal(node, a, b)?;
        return Ok(Val::Bool(equal == (name == "_==_")));
    }
    if let ("@in", [item, container]) = (name, values.as_slice()) {
        return contains_item(machine, node, item, container).map(Val::Bool);
    }
    if name == "type"
        && let [value] = values.as_slice()
    {
        return Ok(Val::Type(value.kind()));
    }
    if values.iter().any(|value| matches!(value, Val::Foreign(_))) {
        return call_foreign(machine, node, name, method, &values);
    }
    match (name, values.as_slice()) {
        ("_+_", [a, b]) => add(machine, node, a, b),
        ("_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(node, name, a, b),
        ("-_", [a]) => negate(node, a),
        ("!_", [Val::Bool(value)]) => Ok(Val::Bool(!value)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => order(machine, node, name, a, b),
        ("size", [value]) => size(machine, node, value),
        ("contains" | "startsWith" | "endsWith", [Val::Text(text), Val::Text(part)]) => {
            let (text, part) = (text.as_str(), part.as_str());
            machine.spend_text(node, text.len() + part.len())?;
            Ok(Val::Bool(match name {
                "contains" => text.contains(part),
                "startsWith" => text.starts_with(part),
                _ => text.ends_with(part),
            }))
        }
        ("matches", [Val::Text(text), Val::Text(pattern)]) => {
            matches(machine, node, text.as_str(), pattern.as_str())
        }
        ("dyn", [value]) if !method => Ok(value.clone()),
        ("string" | "int" | "uint" | "double" | "bool", [value]) if !method => {
            convert(node, name, value)
        }
        ("bytes" | "timestamp" | "duration", [_]) if !method => {
            call_foreign(machine, node, name, method, &values)
        }
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.of", [value]) => Ok(Val::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) if value.is_zero() => Ok(Val::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => Ok(Val::some(value.clone())),
        ("hasValue", [Val::Optional(value)]) => Ok(Val::Bool(value.is_some())),
        ("value", [Val::Optional(Some(value))]) => Ok((**value).clone()),
        ("value", [Val::Optional(None)]) => Err(failure(
            EvalErrorKind::Missing,
            node,
            "the optional has no value",
        )),
        ("parseRef" | "toOCI", [value]) => reference(machine, node, name, value),
        _ => Err(no_overload(node, name, method, &values)),
    }
}

fn no_overload(node: &Node, name: &str, method: bool, values: &[Val<'_>]) -> Box<EvalError> {
    let kinds: Vec<&str> = values.iter().map(Val::kind).collect();
    let is_known = NAMES.contains(&name)
        || name.starts_with("optional.")
        || name == "value"
        || !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !is_known {
        let error = failure(
            EvalErrorKind::Missing,
            node,
            format!("unknown function `{name}`"),
        );
        return Box::new(error.hinted(did_you_mean(name, NAMES)));
    }
    let message = match (method, kinds.split_first()) {
        (true, Some((target, rest))) => format!(
            "`{name}` does not work on a {target} with ({})",
            rest.join(", ")
        ),
        _ => format!(
            "`{}` does not work on ({})",
            operator_sign(name),
            kinds.join(", ")
        ),
    };
    type_error(node, message)
}

/// `_+_` as people write it.
pub(super) fn operator_sign(name: &str) -> &str {
    match name {
        "@in" => "in",
        name => name.trim_matches('_'),
    }
}

fn call_foreign<'a>(
    machine: &mut Machine<'a>,
    node: &'a Node,
    name: &str,
    method: bool,
    values: &[Val<'a>],
) -> Outcome<'a> {
    // A fixed charge for the detour, and for bytes that may be copied.
    machine.spend(node, 50)?;
    let mut args = Vec::with_capacity(values.len());
    for value in values {
        let length = match value {
            Val::Text(text) => text.as_str().len(),
            Val::Foreign(inner) => match &**inner {
                foreign::Value::Bytes(bytes) => bytes.len(),
                _ => 0,
            },
            _ => 0,
        };
        machine.spend_text(node, length)?;
        match value.to_foreign() {
            Some(value) => args.push(value),
            None => return Err(no_overload(node, name, method, values)),
        }
    }
    let result = foreign::call(name, method, args)
        .map_err(|message| failure(EvalErrorKind::Value, node, message))?;
    Val::from_foreign(result).ok_or_else(|| no_overload(node, name, method, values))
}

fn contains_item<'a>(
    machine: &mut Machine<'a>,
    node: &'a Node,
    item: &Val<'a>,
    container: &Val<'a>,
) -> Result<bool, Box<EvalError>> {
    match container {
        Val::List(list) => {
            for candidate in list.iter() {
                if machine.equal(node, item, &candidate)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Val::Map(map) => Ok(Key::of(item).is_some_and(|key| map.get(&key).is_some())),
        other => Err(type_error(
            node,
            format!(
                "`in` looks into lists and maps, not into a {}",
                other.kind()
            ),
        )),
    }
}

fn add<'a>(machine: &mut Machine<'a>, node: &'a Node, a: &Val<'a>, b: &Val<'a>) -> Outcome<'a> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => {
            let (a, b) = (a.as_str(), b.as_str());
            machine.spend_text(node, a.len() + b.len())?;
            Ok(Val::text([a, b].concat()))
        }
        (Val::List(a), Val::List(b)) => {
            machine.spend(node, (a.len() + b.len()) as u64)?;
            Ok(Val::list(a.iter().chain(b.iter()).collect()))
        }
        _ => arithmetic(node, "_+_", a, b),
    }
}

fn arithmetic<'a>(node: &Node, name: &str, a: &Val<'a>, b: &Val<'a>) -> Outcome<'a> {
    let result = match (a, b) {
        (Val::Int(a), Val::Int(b)) => match name {
            "_+_" => a.checked_add(*b),
            "_-_" => a.checked_sub(*b),
            "_*_" => a.checked_mul(*b),
            "_/_" => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Val::Int),
        (Val::Uint(a), Val::Uint(b)) => match name {
            "_+_" => a.checked_add(*b),
            "_-_" => a.checked_sub(*b),
            "_*_" => a.checked_mul(*b),
            "_/_" => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Val::Uint),
        (Val::Double(a), Val::Double(b)) if name != "_%_" => Some(Val::Double(match name {
            "_+_" => a + b,
            "_-_" => a - b,
            "_*_" => a * b,
            _ => a / b,
        })),
        _ => return Err(no_overload(node, name, false, &[a.clone(), b.clone()])),
    };
    let zero = matches!(b, Val::Int(0) | Val::Uint(0)) && matches!(name, "_/_" | "_%_");
    result.ok_or_else(|| {
        let message = if zero {
            "division by zero"
        } else {
            "integer overflow"
        };
        failure(EvalErrorKind::Value, node, message)
    })
}

fn negate<'a>(node: &Node, value: &Val<'a>) -> Outcome<'a> {
    match value {
        Val::Int(value) => value
            .checked_neg()
            .map(Val::Int)
            .ok_or_else(|| failure(EvalErrorKind::Value, node, "integer overflow")),
        Val::Double(value) => Ok(Val::Double(-value)),
        other => Err(no_overload(node, "-_", false, std::slice::from_ref(other))),
    }
}

fn order<'a>(
    machine: &mut Machine<'a>,
    node: &'a Node,
    name: &str,
    a: &Val<'a>,
    b: &Val<'a>,
) -> Outcome<'a> {
    let comparable = match (a, b) {
        (Val::Text(a), Val::Text(b)) => {
            machine.spend_text(node, a.as_str().len().min(b.as_str().len()))?;
            true
        }
        (Val::Bool(_), Val::Bool(_)) => true,
        _ => a.is_number() && b.is_number(),
    };
    if !comparable {
        return Err(no_overload(node, name, false, &[a.clone(), b.clone()]));
    }
    let order = a.compare(b);
    Ok(Val::Bool(order.is_some_and(|order| match name {
        "_<_" => order.is_lt(),
        "_<=_" => order.is_le(),
        "_>_" => order.is_gt(),
        _ => order.is_ge(),
    })))
}

fn size<'a>(machine: &mut Machine<'a>, node: &'a Node, value: &Val<'a>) -> Outcome<'a> {
    let size = match value {
        Val::Text(text) => {
            machine.spend_text(node, text.as_str().len())?;
            text.as_str().chars().count()
        }
        Val::List(list) => list.len(),
        Val::Map(map) => map.len(),
        other => {
            return Err(no_overload(
                node,
                "size",
                false,
                std::slice::from_ref(other),
            ));
        }
    };
    Ok(Val::Int(size as i64))
}

/// `matches`: the regular expressions have no backtracking, so a search is linear in text times pattern.
fn matches<'a>(
    machine: &mut Machine<'a>,
    node: &'a Node,
    text: &str,
    pattern: &str,
) -> Outcome<'a> {
    if pattern.len() > PATTERN_LIMIT {
        return Err(failure(
            EvalErrorKind::Limit,
            node,
            format!("pattern is longer than {PATTERN_LIMIT} bytes"),
        ));
    }
    machine.spend_text(node, text.len().saturating_mul(1 + pattern.len() / 8))?;
    if let Some(regex) = machine.patterns.get(pattern) {
        return Ok(Val::Bool(regex.is_match(text)));
    }
    machine.spend(node, PATTERN_WORK + 20 * pattern.len() as u64)?;
    let regex = RegexBuilder::new(pattern)
        .size_limit(PATTERN_MEMORY)
        .dfa_size_limit(PATTERN_MEMORY)
        .build()
        .map_err(|_| {
            let message = format!("`{pattern}` is no regular expression of supported size");
            failure(EvalErrorKind::Value, node, message)
        })?;
    let found = regex.is_match(text);
    if machine.patterns.len() < PATTERNS_KEPT {
        machine.patterns.insert(pattern.to_owned(), regex);
    }
    Ok(Val::Bool(found))
}

fn convert<'a>(node: &Node, name: &str, value: &Val<'a>) -> Outcome<'a> {
    let converted = match (name, value) {
        ("string", Val::Text(_))
        | ("int", Val::Int(_))
        | ("uint", Val::Uint(_))
        | ("double", Val::Double(_))
        | ("bool", Val::Bool(_)) => Some(value.clone()),
        ("string", Val::Bool(value)) => Some(Val::text(value.to_string())),
        ("string", Val::Int(value)) => Some(Val::text(value.to_string())),
        ("string", Val::Uint(value)) => Some(Val::text(value.to_string())),
        ("string", Val::Double(value)) => Some(Val::text(value.to_string())),
        ("int", Val::Uint(value)) => i64::try_from(*value).ok().map(Val::Int),
        // The bounds are the powers of two themselves: the largest integers are no doubles.
        ("int", Val::Double(value)) => {
            (*value > -(2f64.powi(63)) && *value < 2f64.powi(63)).then_some(Val::Int(*value as i64))
        }
        ("int", Val::Text(text)) => text.as_str().parse().ok().map(Val::Int),
        ("uint", Val::Int(value)) => u64::try_from(*value).ok().map(Val::Uint),
        ("uint", Val::Double(value)) => {
            (*value >= 0.0 && *value < 2f64.powi(64)).then_some(Val::Uint(*value as u64))
        }
        ("uint", Val::Text(text)) => text.as_str().parse().ok().map(Val::Uint),
        ("double", Val::Int(value)) => Some(Val::Double(*value as f64)),
        ("double", Val::Uint(value)) => Some(Val::Double(*value as f64)),
        ("double", Val::Text(text)) => text.as_str().parse().ok().map(Val::Double),
        ("bool", Val::Text(text)) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(Val::Bool(false)),
            _ => None,
        },
        _ => return Err(no_overload(node, name, false, std::slice::from_ref(value))),
    };
    converted.ok_or_else(|| {
        let message = match value {
            Val::Text(text) => format!("`{:.64}` is no {name}", text.as_str()),
            _ => format!("value is out of the range of {name}"),
        };
        failure(EvalErrorKind::Value, node, message)
    })
}

/// `parseRef` and `toOCI`: both take an OCI reference, or an access that has one, and split it without rewriting.
///
/// `parseRef` gives `registry`, `repository`, `tag`, `digest`, `name` (the last segment of the repository) and
/// `reference` (what a look-up uses: the digest, else the tag). `toOCI` gives what the Kubernetes controllers' function
/// of that name does: `host` and `registry` (the same), `repository`, `tag`, `digest` and `reference` (`tag@digest`, or
/// the one that is there). Parts that are missing are empty strings.
fn reference<'a>(
    machine: &mut Machine<'a>,
    node: &'a Node,
    name: &str,
    value: &Val<'a>,
) -> Outcome<'a> {
    let text = match value {
        Val::Text(_) => value.clone(),
        Val::Map(map) => image_reference(map).ok_or_else(|| {
            let message = format!("`{name}` needs an access with an `imageReference`");
            failure(EvalErrorKind::Missing, node, message)
        })?,
        other => return Err(no_overload(node, name, true, std::slice::from_ref(other))),
    };
    let Val::Text(text) = &text else {
        return Err(type_error(
            node,
            format!("`imageReference` is a {}, no string", text.kind()),
        ));
    };
    machine.spend_text(node, text.as_str().len())?;
    let parsed: OciReference = text.as_str().parse().map_err(|error| {
        let message = format!("`{:.128}` is no OCI reference: {error}", text.as_str());
        failure(EvalErrorKind::Value, node, message)
    })?;
    let digest = parsed.digest.as_ref().map(ToString::to_string);
    let mut fields = vec![
        ("registry", parsed.registry.clone()),
        ("repository", parsed.repository.clone()),
        ("tag", parsed.tag.clone().unwrap_or_default()),
        ("digest", digest.unwrap_or_default()),
    ];
    if name == "parseRef" {
        fields.push(("reference", parsed.reference().unwrap_or_default()));
        fields.push(("name", parsed.name().to_owned()));
    } else {
        fields.push(("host", parsed.registry.clone()));
        fields.push(("reference", parsed.version()));
    }
    let map: BTreeMap<Key, Val<'a>> = fields
        .into_iter()
        .map(|(key, value)| (Key::text(key), Val::text(value)))
        .collect();
    Ok(Val::map(map))
}

/// The image reference of an access; a local blob may have one in its global access.
fn image_reference<'a>(access: &Map<'a>) -> Option<Val<'a>> {
    access.get(&Key::text("imageReference")).or_else(|| {
        match access.get(&Key::text("globalAccess"))? {
            Val::Map(global) => global.get(&Key::text("imageReference")),
            _ => None,
        }
    })
}
