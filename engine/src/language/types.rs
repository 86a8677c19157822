//! Types: what is known about a value before anything has run.
//!
//! *Invariant*: a type is a bounded tree with lazily entered references, so a recursive schema is a finite value and
//! cloning one costs a counter. What a type does not know is [`Type::Dyn`], which fits everywhere: a type error is
//! always an error of the author, never of missing knowledge.

use std::fmt;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use ocm_specs::yaml::{Node, Value};
use serde_json::Value as Json;

use super::path::{Key, Segment};
use super::scope::{did_you_mean, unescape_field};
use super::shapes::Shapes;

/// The schema keyword that marks a field as content: a handle to bytes, never read by expressions.
pub const CONTENT_KEYWORD: &str = "x-ocm-content";

/// How deep a schema is entered without going through a reference.
const SCHEMA_DEPTH: usize = 64;
/// References to references that are followed.
const REFERENCE_HOPS: usize = 32;
/// How deep two types are compared; below, they count as equal.
const COMPARE_DEPTH: usize = 64;
/// How many parts of two types are compared; further ones count as equal. Only recursive types get there.
const COMPARISONS: usize = 20_000;

/// A static type.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Type {
    /// Anything; known only at run time.
    Dyn,
    /// Null and nothing else.
    Null,
    /// A truth value.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Text; one of the given values, if there are any.
    String(Option<Arc<[Box<str>]>>),
    /// A list of values of one type.
    List(Arc<Type>),
    /// A map with any keys and values of one type.
    Map(Arc<Type>),
    /// A map with named fields.
    Object(Arc<Object>),
    /// Null or a value.
    Nullable(Arc<Type>),
    /// The result of `?`: a value or nothing.
    Optional(Arc<Type>),
    /// One of several types. Typed as [`Type::Dyn`], kept for messages.
    Union(Arc<[Type]>),
    /// A handle to bytes.
    Content,
    /// A type that expressions know and JSON does not: `timestamp`, `duration`, `bytes`, `type`.
    Opaque(&'static str),
    /// A part of a schema that is entered when someone looks.
    Reference(Arc<Reference>),
}

/// A map with named fields.
#[derive(Debug, Default)]
pub struct Object {
    /// What the schema calls it.
    pub title: Option<Box<str>>,
    /// The fields in the order of the schema.
    pub fields: IndexMap<Box<str>, Field>,
    /// What other fields there may be.
    pub additional: Additional,
}

/// A field of an [`Object`].
#[derive(Clone, Debug)]
pub struct Field {
    /// Its type.
    pub ty: Type,
    /// Must it be there?
    pub required: bool,
}

/// What an [`Object`] says about fields that it does not name.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Nothing: they may be there, but nobody can mean them. Reading one is an error, writing one is not.
    #[default]
    Unstated,
    /// There are none.
    Closed,
    /// There may be any.
    Open,
    /// There may be others of this type.
    Typed(Type),
}

/// A place in a schema.
#[derive(Debug)]
pub struct Reference {
    place: Place,
    cell: OnceLock<Type>,
}

/// A schema document and where in it `#` points to, and a place.
#[derive(Clone, Debug)]
struct Place {
    document: Arc<Json>,
    /// The nearest schema around that has an `$id`: references are relative to it.
    base: Arc<str>,
    pointer: Arc<str>,
}

/// Why a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The part that does not fit, as `.a.b[]`; empty for the whole.
    pub path: String,
    /// What is needed there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What might help.
    pub hint: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        if !self.path.is_empty() {
            write!(f, " at `{}`", self.path.trim_start_matches('.'))?;
        }
        Ok(())
    }
}

impl Type {
    /// The type of what a JSON schema (draft 2020-12) accepts. Keywords that constrain values of one type are left to
    /// [`Validator`](super::Validator).
    pub fn of_schema(schema: &Json) -> Self {
        Self::of_shared_schema(&Arc::new(schema.clone()))
    }

    /// [`Type::of_schema`] for a schema that others hold, too.
    pub fn of_shared_schema(schema: &Arc<Json>) -> Self {
        let place = Place {
            document: schema.clone(),
            base: "".into(),
            pointer: "".into(),
        };
        place.convert_whole(schema)
    }

    /// The type of a constant: objects have exactly the fields that are there (transformation.md 2.3, step 2). The
    /// reference types a list by its first element; here elements may differ, and what they share is known.
    pub fn of_node(node: &Node) -> Self {
        match &node.value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_f64() => Self::Number,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::String(None),
            Value::List(list) => Self::list_of(list.iter().map(Self::of_node)),
            Value::Map(map) => Self::constant(
                map.iter()
                    .map(|(name, member)| (name.as_str(), Self::of_node(&member.node))),
            ),
        }
    }

    /// [`Type::of_node`] for a value without places; [`Shapes`] makes them for many.
    pub fn of_value(value: &Json) -> Self {
        Shapes::default().value(value)
    }

    /// A list of elements of these types: what they share is known.
    pub(super) fn list_of(mut types: impl Iterator<Item = Self>) -> Self {
        let first = types.next().unwrap_or(Self::Dyn);
        Self::list(types.fold(first, |all, next| all.join(&next)))
    }

    /// A map with exactly these fields.
    pub(super) fn constant<'a>(fields: impl Iterator<Item = (&'a str, Self)>) -> Self {
        let fields = fields
            .map(|(name, ty)| (name.into(), Field { ty, required: true }))
            .collect();
        Self::Object(Arc::new(Object {
            title: None,
            fields,
            additional: Additional::Unstated,
        }))
    }

    pub(super) fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    pub(super) fn optional(self) -> Self {
        match self {
            Self::Optional(_) => self,
            other => Self::Optional(Arc::new(other)),
        }
    }

    fn nullable(self) -> Self {
        match self {
            Self::Nullable(_) | Self::Null | Self::Dyn => self,
            other => Self::Nullable(Arc::new(other)),
        }
    }

    /// The type itself, with references entered. What is inside of a [`Type::Nullable`] is not nullable again.
    pub fn resolved(&self) -> &Self {
        let mut ty = self;
        for _ in 0..REFERENCE_HOPS {
            match ty {
                Self::Reference(reference) => ty = reference.resolve(),
                Self::Nullable(inner) => match &**inner {
                    Self::Nullable(_) => ty = inner,
                    Self::Reference(reference) => match reference.resolve() {
                        next @ (Self::Nullable(_) | Self::Reference(_)) => ty = next,
                        _ => return ty,
                    },
                    _ => return ty,
                },
                other => return other,
            }
        }
        &Self::Dyn
    }

    /// The object type, if it is one or may be one or null.
    pub fn as_object(&self) -> Option<&Object> {
        match self.resolved() {
            Self::Object(object) => Some(object),
            Self::Nullable(inner) => inner.as_object(),
            _ => None,
        }
    }

    /// The field `name` of an object type.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.as_object()?.fields.get(name)
    }

    /// Is nothing known about it?
    pub fn is_dyn(&self) -> bool {
        matches!(self.resolved(), Self::Dyn | Self::Union(_))
    }

    /// Is it content, or may it be?
    pub fn is_content(&self) -> bool {
        match self.resolved() {
            Self::Content => true,
            Self::Nullable(inner) | Self::Optional(inner) => inner.is_content(),
            _ => false,
        }
    }

    /// The type below a segment of a path; `text` is what stands before it, for messages.
    pub(super) fn enter(&self, segment: &Segment, text: &str) -> Result<Self, Problem> {
        match &segment.key {
            Key::Field(name) => self.select(name, segment.optional, text),
            Key::Index(_) => self.element(segment.optional, text),
        }
    }

    /// The type of a field.
    pub(super) fn select(&self, name: &str, optional: bool, text: &str) -> Result<Self, Problem> {
        let found = match self.resolved() {
            Self::Dyn | Self::Union(_) => Self::Dyn,
            Self::Nullable(inner) => return inner.select(name, optional, text),
            Self::Optional(inner) => {
                return inner.select(name, true, text).map(Self::optional);
            }
            Self::Map(value) => (**value).clone(),
            Self::Object(object) => object.select(name, optional, text)?,
            Self::Content => content_field(name, text)?,
            Self::Null if optional => Self::Null,
            other => {
                return Err(Problem {
                    message: format!("`{text}` is {other}, it has no field `{name}`"),
                    hint: None,
                });
            }
        };
        Ok(if optional { found.optional() } else { found })
    }

    /// The type of an element by its number.
    pub(super) fn element(&self, optional: bool, text: &str) -> Result<Self, Problem> {
        let found = match self.resolved() {
            Self::Dyn | Self::Union(_) => Self::Dyn,
            Self::Nullable(inner) => return inner.element(optional, text),
            Self::Optional(inner) => return inner.element(true, text).map(Self::optional),
            Self::List(item) => (**item).clone(),
            Self::Null if optional => Self::Null,
            other => {
                return Err(Problem {
                    message: format!("`{text}` is {other}, it has no elements by number"),
                    hint: None,
                });
            }
        };
        Ok(if optional { found.optional() } else { found })
    }

    /// The type of a value that has one of two types.
    pub(super) fn join(&self, other: &Self) -> Self {
        self.join_within(other, COMPARE_DEPTH)
    }

    fn join_within(&self, other: &Self, depth: usize) -> Self {
        let Some(depth) = depth.checked_sub(1) else {
            return Self::Dyn;
        };
        let join = |a: &Self, b: &Self| Arc::new(a.join_within(b, depth));
        match (self.resolved(), other.resolved()) {
            (Self::Null, Self::Null) => Self::Null,
            (Self::Null, other) | (other, Self::Null) => other.clone().nullable(),
            (Self::Bool, Self::Bool) => Self::Bool,
            (Self::Integer, Self::Integer) => Self::Integer,
            (Self::Integer | Self::Number, Self::Integer | Self::Number) => Self::Number,
            (Self::String(a), Self::String(b)) => Self::String(match (a, b) {
                (Some(a), Some(b)) => Some(a.iter().chain(b.iter()).cloned().collect()),
                _ => None,
            }),
            (Self::List(a), Self::List(b)) => Self::List(join(a, b)),
            (Self::Map(a), Self::Map(b)) => Self::Map(join(a, b)),
            (Self::Object(a), Self::Object(b)) if Arc::ptr_eq(a, b) => self.clone(),
            (Self::Object(a), Self::Object(b)) => match (self, other) {
                (Self::Reference(a), Self::Reference(b)) if a.is_same(b) => self.clone(),
                // Not entered: a schema may contain itself more than once.
                (Self::Reference(_), _) | (_, Self::Reference(_)) => Self::Dyn,
                _ => Self::Object(Arc::new(a.join(b, depth))),
            },
            (Self::Nullable(a), Self::Nullable(b)) => Self::Nullable(join(a, b)),
            (Self::Nullable(a), b) | (b, Self::Nullable(a)) => a.join_within(b, depth).nullable(),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(join(a, b)),
            (Self::Content, Self::Content) => Self::Content,
            (Self::Opaque(a), Self::Opaque(b)) if a == b => Self::Opaque(a),
            _ => Self::Dyn,
        }
    }

    /// May a value of this type go where `expected` is? Structural (transformation.md 2.3, rule 5): an object may have
    /// fewer fields than expected, even required ones, since values are validated when they are there; it may have more
    /// only where the expected one takes more.
    pub fn assignable(&self, expected: &Self) -> Result<(), Mismatch> {
        self.fits(expected, &mut Comparison::default(), COMPARE_DEPTH)
    }

    fn fits<'p>(
        &'p self,
        expected: &'p Self,
        at: &mut Comparison<'p>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        at.comparisons += 1;
        let (Some(depth), true) = (depth.checked_sub(1), at.comparisons < COMPARISONS) else {
            return Ok(());
        };
        if let (Self::Reference(a), Self::Reference(b)) = (self, expected) {
            if a.is_same(b) || at.assumed.iter().any(|(x, y)| x.is_same(a) && y.is_same(b)) {
                return Ok(());
            }
            // What is being compared further up may be taken to fit: if it does not, that will be found there.
            at.assumed.push((a, b));
        }
        match (self.resolved(), expected.resolved()) {
            (_, Self::Dyn | Self::Union(_)) | (Self::Dyn | Self::Union(_), _) => {
                match self.resolved() {
                    Self::Opaque(_) => Err(self.mismatch(expected, &at.path)),
                    _ => Ok(()),
                }
            }
            (Self::Optional(inner), expected) => inner.fits(expected, at, depth),
            (Self::Null, Self::Null | Self::Nullable(_) | Self::Optional(_)) => Ok(()),
            (found, Self::Nullable(inner) | Self::Optional(inner)) => found.fits(inner, at, depth),
            (Self::Nullable(inner), expected) => inner.fits(expected, at, depth),
            (Self::Bool, Self::Bool)
            | (Self::Integer, Self::Integer | Self::Number)
            | (Self::Number, Self::Number)
            | (Self::Content, Self::Content) => Ok(()),
            (Self::String(found), Self::String(wanted)) => match (found, wanted) {
                // Only when no value at all could be right.
                (Some(found), Some(wanted)) if !found.iter().any(|it| wanted.contains(it)) => {
                    Err(self.mismatch(expected, &at.path))
                }
                _ => Ok(()),
            },
            (Self::List(found), Self::List(wanted)) => {
                at.path.push("[]");
                found.fits(wanted, at, depth)?;
                at.path.pop();
                Ok(())
            }
            (Self::Map(found), Self::Map(wanted)) => {
                at.path.push("*");
                found.fits(wanted, at, depth)?;
                at.path.pop();
                Ok(())
            }
            (Self::Object(found), Self::Map(wanted)) => {
                found.fields.iter().try_for_each(|(name, field)| {
                    at.path.push(name);
                    field.ty.fits(wanted, at, depth)?;
                    at.path.pop();
                    Ok(())
                })
            }
            (Self::Map(found), Self::Object(wanted)) => {
                wanted.fields.iter().try_for_each(|(name, field)| {
                    at.path.push(name);
                    found.fits(&field.ty, at, depth)?;
                    at.path.pop();
                    Ok(())
                })
            }
            (Self::Object(found), Self::Object(wanted)) => {
                if Arc::ptr_eq(found, wanted) {
                    return Ok(());
                }
                found.fits(wanted, at, depth)
            }
            // A handle and the reference's description of a file stand for each other.
            (Self::Content, Self::Object(wanted)) if wanted.is_like_a_file() => Ok(()),
            (Self::Object(found), Self::Content) if found.is_like_a_file() => Ok(()),
            (Self::Content, Self::Map(_)) | (Self::Map(_), Self::Content) => Ok(()),
            _ => Err(self.mismatch(expected, &at.path)),
        }
    }

    fn mismatch(&self, expected: &Self, path: &[&str]) -> Mismatch {
        Mismatch {
            path: path_text(path),
            expected: expected.to_string(),
            found: self.to_string(),
            hint: None,
        }
    }
}

/// A comparison under way.
#[derive(Default)]
struct Comparison<'p> {
    path: Vec<&'p str>,
    assumed: Vec<(&'p Reference, &'p Reference)>,
    comparisons: usize,
}

fn path_text(path: &[&str]) -> String {
    path.iter()
        .map(|part| match *part {
            "[]" => "[]".to_owned(),
            name => format!(".{name}"),
        })
        .collect()
}

/// An error without its place.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// The readable fields of a handle.
pub(super) const CONTENT_FIELDS: [&str; 6] =
    ["type", "uri", "mediaType", "digest", "size", "lineage"];

fn content_field(name: &str, text: &str) -> Result<Type, Problem> {
    match name {
        "type" | "uri" | "mediaType" | "digest" => Ok(Type::String(None)),
        "size" => Ok(Type::Integer),
        "lineage" => Ok(Type::Map(Arc::new(Type::Dyn))),
        _ => Err(Problem {
            message: format!("`{text}` is content, it has no field `{name}`"),
            hint: did_you_mean(name, CONTENT_FIELDS),
        }),
    }
}

impl Object {
    /// The field `name`, or the one whose Kubernetes-escaped name it is.
    fn find(&self, name: &str) -> Option<&Field> {
        self.fields
            .get(name)
            .or_else(|| self.fields.get(unescape_field(name)?.as_str()))
    }

    fn select(&self, name: &str, optional: bool, text: &str) -> Result<Type, Problem> {
        match (self.find(name), &self.additional) {
            (Some(field), _) => Ok(field.ty.clone()),
            (None, Additional::Open) => Ok(Type::Dyn),
            (None, Additional::Unstated) if optional => Ok(Type::Dyn),
            (None, Additional::Typed(ty)) => Ok(ty.clone()),
            (None, Additional::Unstated | Additional::Closed) => Err(Problem {
                message: format!("`{text}` has no field `{name}`"),
                hint: self.nearest(name).or_else(|| self.listed()),
            }),
        }
    }

    /// What two objects have in common; anything else may be there.
    fn join(&self, other: &Self, depth: usize) -> Self {
        let mut fields = IndexMap::new();
        for (name, a) in &self.fields {
            if let Some(b) = other.fields.get(name) {
                let ty = a.ty.join_within(&b.ty, depth);
                let required = a.required && b.required;
                fields.insert(name.clone(), Field { ty, required });
            }
        }
        let same = fields.len() == self.fields.len() && fields.len() == other.fields.len();
        let additional = match (&self.additional, &other.additional) {
            (Additional::Unstated, Additional::Unstated) if same => Additional::Unstated,
            (Additional::Closed, Additional::Closed) if same => Additional::Closed,
            _ => Additional::Open,
        };
        Self {
            title: self.title.clone(),
            fields,
            additional,
        }
    }

    /// "did you mean" among the fields.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        did_you_mean(name, self.fields.keys().map(|key| &**key))
    }

    /// The names of the fields, if they are few.
    pub(super) fn listed(&self) -> Option<String> {
        const FEW: usize = 8;
        let names = self.fields.keys().take(FEW + 1);
        let names: Vec<String> = names.map(|name| format!("`{name:.64}`")).collect();
        match names.len() {
            0 => None,
            1 => Some(format!("its only field is {}", names[0])),
            2..=FEW => Some(format!("its fields are {}", names.join(", "))),
            _ => None,
        }
    }

    fn is_like_a_file(&self) -> bool {
        self.fields.contains_key("uri") || matches!(self.additional, Additional::Open)
    }

    fn fits<'p>(
        &'p self,
        expected: &'p Self,
        at: &mut Comparison<'p>,
        depth: usize,
    ) -> Result<(), Mismatch> {
        for (name, field) in &self.fields {
            let wanted = match (expected.fields.get(name), &expected.additional) {
                (Some(wanted), _) => &wanted.ty,
                (None, Additional::Typed(wanted)) => wanted,
                (None, Additional::Open | Additional::Unstated) => continue,
                (None, Additional::Closed) => {
                    return Err(Mismatch {
                        path: path_text(&at.path),
                        expected: expected.to_string(),
                        found: format!("an object with a field `{name}`"),
                        hint: expected.nearest(name),
                    });
                }
            };
            // Nothing in a field that may be missing is the same as the field missing.
            let dropped = matches!(field.ty.resolved(), Type::Null)
                && expected.fields.get(name).is_some_and(|it| !it.required);
            if !dropped {
                at.path.push(name);
                field.ty.fits(wanted, at, depth)?;
                at.path.pop();
            }
        }
        Ok(())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        if let Some(title) = &self.title {
            return write!(f, "object `{title}`");
        }
        f.write_str("object {")?;
        for (index, name) in self.fields.keys().take(SHOWN).enumerate() {
            write!(f, "{}{name}", if index > 0 { ", " } else { "" })?;
        }
        f.write_str(if self.fields.len() > SHOWN {
            ", …}"
        } else {
            "}"
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A type may contain itself; a few levels are enough to know what is meant.
        self.describe(f, 3)
    }
}

impl Type {
    fn describe(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        const SHOWN: usize = 4;
        let Some(depth) = depth.checked_sub(1) else {
            return f.write_str("…");
        };
        match self.resolved() {
            Self::Dyn | Self::Reference(_) => f.write_str("any value"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("boolean"),
            Self::Integer => f.write_str("integer"),
            Self::Number => f.write_str("number"),
            Self::String(None) => f.write_str("string"),
            Self::String(Some(values)) => {
                f.write_str(if values.len() > 1 { "one of " } else { "" })?;
                for (index, value) in values.iter().take(SHOWN).enumerate() {
                    write!(f, "{}`{value:.64}`", if index > 0 { ", " } else { "" })?;
                }
                f.write_str(if values.len() > SHOWN { ", …" } else { "" })
            }
            Self::List(item) => {
                f.write_str("list of ")?;
                item.describe(f, depth)
            }
            Self::Map(value) => {
                f.write_str("map of ")?;
                value.describe(f, depth)
            }
            Self::Object(object) => fmt::Display::fmt(object, f),
            Self::Nullable(inner) => {
                inner.describe(f, depth)?;
                f.write_str(" or null")
            }
            Self::Optional(inner) => {
                f.write_str("optional ")?;
                inner.describe(f, depth)
            }
            Self::Union(_) => f.write_str("one of several types"),
            Self::Content => f.write_str("content"),
            Self::Opaque(name) => f.write_str(name),
        }
    }
}

impl Reference {
    fn resolve(&self) -> &Type {
        self.cell
            .get_or_init(|| match self.place.document.pointer(&self.place.pointer) {
                Some(schema) => self.place.convert_whole(schema),
                None => Type::Dyn,
            })
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.place.document, &other.place.document)
            && self.place.pointer == other.place.pointer
    }
}

impl Place {
    /// The type of the schema at this place. Only here parts are merged: below, they wait to be entered, so that
    /// schemas which are parts of themselves do no harm.
    fn convert_whole(&self, schema: &Json) -> Type {
        match all_of(schema) {
            Some(parts) => self.merged(parts),
            None => self.convert(schema, SCHEMA_DEPTH),
        }
    }

    fn convert(&self, schema: &Json, depth: usize) -> Type {
        let (Some(depth), Json::Object(map)) = (depth.checked_sub(1), schema) else {
            return Type::Dyn;
        };
        if map.get(CONTENT_KEYWORD) == Some(&Json::Bool(true)) {
            return Type::Content;
        }
        let values = |key: &str| map.get(key).and_then(Json::as_array);
        if let Some(ty) = constants(map) {
            return ty;
        }
        if let Some(target) = map.get("$ref").and_then(Json::as_str) {
            return self.reference(target);
        }
        match map.get("type") {
            Some(Json::String(name)) => self.typed(name, schema, depth),
            Some(Json::Array(names)) => {
                let named = names.iter().filter_map(Json::as_str);
                self.alternatives(named.map(|name| self.typed(name, schema, depth)).collect())
            }
            _ => match values("oneOf").or_else(|| values("anyOf")) {
                Some(branches) => self.alternatives(
                    branches
                        .iter()
                        .enumerate()
                        .map(|(index, branch)| {
                            let key = if map.contains_key("oneOf") {
                                "oneOf"
                            } else {
                                "anyOf"
                            };
                            self.below(&[key, &index.to_string()]).enter(branch, depth)
                        })
                        .collect(),
                ),
                None => match values("allOf").map(Vec::as_slice) {
                    Some([only]) => self.below(&["allOf", "0"]).enter(only, depth),
                    Some(_) => self.lazy(),
                    None if map.contains_key("properties") => self.object(map, depth),
                    None => Type::Dyn,
                },
            },
        }
    }

    /// Goes on at a child, whose `$id` may move the base of references.
    fn enter(&self, schema: &Json, depth: usize) -> Type {
        if schema.get("$id").and_then(Json::as_str).is_some() {
            let place = Self {
                base: Arc::clone(&self.pointer),
                ..self.clone()
            };
            return place.convert(schema, depth);
        }
        self.convert(schema, depth)
    }

    fn typed(&self, name: &str, schema: &Json, depth: usize) -> Type {
        let Json::Object(map) = schema else {
            return Type::Dyn;
        };
        match name {
            "null" => Type::Null,
            "boolean" => Type::Bool,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "string" => Type::String(None),
            "array" => Type::list(match map.get("items") {
                Some(items) => self.below(&["items"]).enter(items, depth),
                None => Type::Dyn,
            }),
            "object" => self.object(map, depth),
            _ => Type::Dyn,
        }
    }

    fn object(&self, map: &serde_json::Map<String, Json>, depth: usize) -> Type {
        let additional = match map.get("additionalProperties") {
            None => match map.get("unevaluatedProperties") {
                Some(Json::Bool(false)) => Additional::Closed,
                _ => Additional::Unstated,
            },
            Some(Json::Bool(false)) => Additional::Closed,
            Some(Json::Bool(true)) => Additional::Open,
            Some(schema) => {
                Additional::Typed(self.below(&["additionalProperties"]).enter(schema, depth))
            }
        };
        let properties = map.get("properties").and_then(Json::as_object);
        let Some(properties) = properties.filter(|properties| !properties.is_empty()) else {
            return match additional {
                Additional::Typed(value) => Type::Map(Arc::new(value)),
                Additional::Open | Additional::Unstated => Type::Map(Arc::new(Type::Dyn)),
                Additional::Closed => Type::Object(Arc::new(Object {
                    title: title(map),
                    fields: IndexMap::new(),
                    additional,
                })),
            };
        };
        let required: Vec<&str> = map
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let fields = properties
            .iter()
            .map(|(name, schema)| {
                let ty = self.below(&["properties", name]).enter(schema, depth);
                let required = required.contains(&name.as_str());
                (name.as_str().into(), Field { ty, required })
            })
            .collect();
        Type::Object(Arc::new(Object {
            title: title(map),
            fields,
            additional,
        }))
    }

    /// `oneOf`, `anyOf`, several types: one alternative besides null is that one; text stays text.
    fn alternatives(&self, mut branches: Vec<Type>) -> Type {
        let all = branches.len();
        // References are not entered: an alternative may be the whole.
        branches.retain(|branch| !matches!(branch, Type::Null));
        let had_null = branches.len() < all;
        let joined = match branches.len() {
            0 if had_null => return Type::Null,
            0 => return Type::Dyn,
            1 => branches.remove(0),
            _ => {
                let texts = branches.iter().map(|it| match it {
                    Type::String(values) => Some(values.clone()),
                    _ => None,
                });
                match texts.collect::<Option<Vec<_>>>() {
                    Some(values) => {
                        let known: Option<Vec<Arc<[Box<str>]>>> = values.into_iter().collect();
                        Type::String(known.map(|lists| {
                            lists.iter().flat_map(|list| list.iter().cloned()).collect()
                        }))
                    }
                    None => Type::Union(branches.into()),
                }
            }
        };
        if had_null { joined.nullable() } else { joined }
    }

    /// `allOf` with several parts: objects are merged, anything else is not known.
    fn merged(&self, parts: &[Json]) -> Type {
        let types: Vec<Type> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let mut place = self.below(&["allOf", &index.to_string()]);
                let mut part = part;
                for _ in 0..REFERENCE_HOPS {
                    let Some(target) = part.get("$ref").and_then(Json::as_str) else {
                        break;
                    };
                    match place.target(target) {
                        Some(next) => place = next,
                        None => return Type::Dyn,
                    }
                    part = match self.document.pointer(&place.pointer) {
                        Some(part) => part,
                        None => return Type::Dyn,
                    };
                }
                place.convert(part, SCHEMA_DEPTH)
            })
            .collect();
        let objects: Option<Vec<&Object>> = types
            .iter()
            .map(|ty| match ty {
                Type::Object(object) => Some(&**object),
                _ => None,
            })
            .collect();
        let Some(objects) = objects.filter(|objects| !objects.is_empty()) else {
            return Type::Dyn;
        };
        Type::Object(Arc::new(Object {
            title: objects.iter().find_map(|object| object.title.clone()),
            fields: objects
                .iter()
                .flat_map(|object| object.fields.iter())
                .map(|(name, field)| (name.clone(), field.clone()))
                .collect(),
            additional: Additional::Unstated,
        }))
    }

    fn lazy(&self) -> Type {
        Type::Reference(Arc::new(Reference {
            place: self.clone(),
            cell: OnceLock::new(),
        }))
    }

    fn reference(&self, target: &str) -> Type {
        self.target(target).map_or(Type::Dyn, |place| place.lazy())
    }

    /// What a reference within the document points to; others are not known here.
    fn target(&self, target: &str) -> Option<Self> {
        let pointer = target.strip_prefix('#')?;
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return None;
        }
        let pointer = pointer.replace("%24", "$").replace("%25", "%");
        let near: Arc<str> = format!("{}{pointer}", self.base).into();
        let (base, pointer) = match self.document.pointer(&near) {
            Some(_) => (Arc::clone(&self.base), near),
            None => ("".into(), pointer.into()),
        };
        let schema = self.document.pointer(&pointer)?;
        let base = match schema.get("$id").and_then(Json::as_str) {
            Some(_) => Arc::clone(&pointer),
            None => base,
        };
        Some(Self {
            document: Arc::clone(&self.document),
            base,
            pointer,
        })
    }

    fn below(&self, keys: &[&str]) -> Self {
        let mut pointer = self.pointer.to_string();
        for key in keys {
            pointer.push('/');
            pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        }
        Self {
            document: Arc::clone(&self.document),
            base: Arc::clone(&self.base),
            pointer: pointer.into(),
        }
    }
}

/// The parts of an `allOf` that has several and stands for itself.
fn all_of(schema: &Json) -> Option<&[Json]> {
    let parts = schema.get("allOf")?.as_array()?.as_slice();
    let alone = ["$ref", "type", "oneOf", "anyOf"]
        .iter()
        .all(|key| schema.get(key).is_none());
    (alone && parts.len() > 1).then_some(parts)
}

fn title(map: &serde_json::Map<String, Json>) -> Option<Box<str>> {
    map.get("title").and_then(Json::as_str).map(Into::into)
}

/// The type of a schema that lists its values (`const`, `enum`, `oneOf` of constants); they stand beside `type` or
/// `$ref` and say more than these.
fn constants(map: &serde_json::Map<String, Json>) -> Option<Type> {
    let listed: Vec<&Json> = match (map.get("const"), map.get("enum")) {
        (Some(value), _) => vec![value],
        (None, Some(Json::Array(values))) => values.iter().collect(),
        _ => ["oneOf", "anyOf"]
            .iter()
            .find_map(|key| map.get(*key))?
            .as_array()?
            .iter()
            .map(|branch| branch.get("const"))
            .collect::<Option<_>>()?,
    };
    let texts: Vec<&str> = listed.iter().filter_map(|value| value.as_str()).collect();
    let nulls = listed.iter().filter(|value| value.is_null()).count();
    if !texts.is_empty() && texts.len() + nulls == listed.len() {
        let ty = Type::String(Some(texts.into_iter().map(Into::into).collect()));
        return Some(if nulls > 0 { ty.nullable() } else { ty });
    }
    let first = listed.first()?;
    let ty = Type::of_value(first);
    let scalar = matches!(ty, Type::Null | Type::Bool | Type::Integer | Type::Number);
    let same = listed
        .iter()
        .all(|value| std::mem::discriminant(&Type::of_value(value)) == std::mem::discriminant(&ty));
    Some(if scalar && same { ty } else { Type::Dyn })
}
