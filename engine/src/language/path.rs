//! Plain field paths such as `step.output.resource.labels[0].name`: nearly all expressions of real specs.
//!
//! *Invariant*: resolving a path clones nothing and costs one look-up per segment, whatever the size of the document.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use ocm_specs::transfer::Environment;
use serde_json::Value as Json;

use super::scope::{EvalError, EvalErrorKind, Root, Scope, StepView, did_you_mean, unescape_field};

/// Longest path, in segments; a document is not nested deeper than the loader allows.
const SEGMENT_LIMIT: usize = 128;

/// A variable followed by fields and indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    root: Box<str>,
    root_at: u32,
    segments: Vec<Segment>,
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What is looked up.
    pub key: Key,
    /// Written with `?`: nothing there is no error.
    pub optional: bool,
    /// Byte range of the name or of the bracket's content within the expression's text.
    pub(super) at: (u32, u32),
}

impl Segment {
    /// Byte range of the name or of the bracket's content within the expression's text.
    pub fn range(&self) -> Range<usize> {
        self.at.0 as usize..self.at.1 as usize
    }
}

/// What a segment looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A field of an object, a key of a map: `.name`, `["name"]`.
    Field(Box<str>),
    /// An element of a list, from zero: `[0]`.
    Index(u32),
}

impl Path {
    /// Reads a path; `None` if the text is anything else (a call, an operator, a literal with escapes).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut cursor = Cursor::new(text);
        cursor.blanks();
        let root_at = cursor.at;
        let root = cursor.identifier()?;
        if is_reserved(root) {
            return None;
        }
        let mut segments = Vec::new();
        loop {
            cursor.blanks();
            match cursor.peek() {
                None => break,
                Some(_) if segments.len() == SEGMENT_LIMIT => return None,
                Some(b'.') => segments.push(cursor.field()?),
                Some(b'[') => segments.push(cursor.bracket()?),
                Some(_) => return None,
            }
        }
        segments.shrink_to_fit();
        Some(Self {
            root: root.into(),
            root_at: root_at as u32,
            segments,
        })
    }

    /// The variable.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Byte range of the variable's name within the expression's text.
    pub fn root_range(&self) -> Range<usize> {
        self.root_at as usize..self.root_at as usize + self.root.len()
    }

    /// What follows the variable.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The value at the path, borrowed from the scope (only a step's `id` and `type` are made). `None` stands for an
    /// optional that is not there.
    pub fn resolve<'s>(&self, scope: &'s dyn Scope) -> Result<Option<Cow<'s, Json>>, EvalError> {
        let root = scope
            .root(&self.root)
            .ok_or_else(|| unknown_variable(&self.root, self.root_range(), scope))?;
        let (mut value, rest) = match root {
            Root::Value(value) => (value, 0),
            Root::Constants(constants) => match self.enter_constants(constants)? {
                Entered::Below(value) => (value, 1),
                Entered::Nothing => return Ok(None),
                _ => return Ok(Some(Cow::Owned(constants.to_json()))),
            },
            Root::Step(step) => match self.enter_step(step)? {
                Entered::Below(value) => (value, 1),
                Entered::Text(text) => {
                    return if self.segments.len() == 1 {
                        Ok(Some(Cow::Owned(text)))
                    } else {
                        Err(self.no_fields(1, &text))
                    };
                }
                Entered::Whole => return Ok(Some(Cow::Owned(step_json(step)))),
                Entered::Nothing => return Ok(None),
            },
        };
        // A `?` makes what follows it optional, too, as in the reference.
        let mut optional = self.segments[..rest].iter().any(|segment| segment.optional);
        for (index, segment) in self.segments.iter().enumerate().skip(rest) {
            optional |= segment.optional;
            match look_up(value, &segment.key) {
                Some(found) => value = found,
                None if optional && may_lack(value, &segment.key) => return Ok(None),
                None => return Err(self.missing(index, value)),
            }
        }
        Ok(Some(Cow::Borrowed(value)))
    }

    fn enter_constants<'s>(&self, constants: &'s Environment) -> Result<Entered<'s>, EvalError> {
        let Some(first) = self.segments.first() else {
            return Ok(Entered::Whole);
        };
        let found = match &first.key {
            Key::Field(name) => constants
                .get(name)
                .or_else(|| constants.get(unescape_field(name)?.as_str())),
            Key::Index(_) => None,
        };
        match (found, &first.key) {
            (Some(value), _) => Ok(Entered::Below(value)),
            (None, Key::Field(_)) if first.optional => Ok(Entered::Nothing),
            // Rare enough to make a map of it for the message.
            _ => Err(self.missing(0, &constants.to_json())),
        }
    }

    fn enter_step<'s>(&self, step: StepView<'s>) -> Result<Entered<'s>, EvalError> {
        let Some(first) = self.segments.first() else {
            return Ok(Entered::Whole);
        };
        let Key::Field(name) = &first.key else {
            return Err(EvalError::new(
                EvalErrorKind::Type,
                first.range(),
                format!("step `{}` has no elements", self.root),
            ));
        };
        match step_field(step, name) {
            Some(StepField::Text(text)) => Ok(Entered::Text(Json::String(text.to_owned()))),
            Some(StepField::Value(Some(value))) => Ok(Entered::Below(value)),
            Some(StepField::Value(None)) | None if first.optional => Ok(Entered::Nothing),
            Some(StepField::Value(None)) => Err(not_yet(&self.root, name, first.range())),
            None => Err(EvalError::new(
                EvalErrorKind::Missing,
                first.range(),
                format!("step `{}` has no `{name}`", self.root),
            )
            .hinted(did_you_mean(name, StepView::FIELDS))),
        }
    }

    /// The text of the path up to and without segment `end`.
    pub(super) fn prefix(&self, end: usize) -> String {
        Self {
            root: self.root.clone(),
            root_at: 0,
            segments: self.segments[..end].to_vec(),
        }
        .to_string()
    }

    fn missing(&self, index: usize, value: &Json) -> EvalError {
        let segment = &self.segments[index];
        missing(&self.prefix(index), value, &segment.key, segment.range())
    }

    fn no_fields(&self, index: usize, value: &Json) -> EvalError {
        self.missing(index, value)
    }
}

enum Entered<'s> {
    Below(&'s Json),
    Text(Json),
    Whole,
    Nothing,
}

/// A field of a step.
pub(super) enum StepField<'s> {
    Text(&'s str),
    /// `None` while the step has not got there.
    Value(Option<&'s Json>),
}

/// The field `name` of a step; `outputs` is another word for `output`.
pub(super) fn step_field<'s>(step: StepView<'s>, name: &str) -> Option<StepField<'s>> {
    match name {
        "output" | "outputs" => Some(StepField::Value(step.output)),
        "spec" => Some(StepField::Value(step.spec)),
        "id" => Some(StepField::Text(step.id)),
        "type" => Some(StepField::Text(step.kind)),
        _ => None,
    }
}

/// A step as one document, for the rare expression that asks for it whole.
pub(super) fn step_json(step: StepView<'_>) -> Json {
    let mut map = serde_json::Map::new();
    map.insert("id".to_owned(), Json::from(step.id));
    map.insert("type".to_owned(), Json::from(step.kind));
    for (name, value) in [("spec", step.spec), ("output", step.output)] {
        if let Some(value) = value {
            map.insert(name.to_owned(), value.clone());
        }
    }
    Json::Object(map)
}

pub(super) fn not_yet(step: &str, part: &str, at: Range<usize>) -> EvalError {
    EvalError::new(
        EvalErrorKind::Missing,
        at,
        format!("`{step}.{part}` is not there yet"),
    )
}

pub(super) fn unknown_variable(name: &str, at: Range<usize>, scope: &dyn Scope) -> EvalError {
    let names = scope.names();
    EvalError::new(
        EvalErrorKind::Missing,
        at,
        format!("unknown variable `{name}`"),
    )
    .hinted(did_you_mean(name, names.iter().map(String::as_str)))
}

/// The value below `key`, when there is one.
pub(super) fn look_up<'v>(value: &'v Json, key: &Key) -> Option<&'v Json> {
    match (value, key) {
        (Json::Object(map), Key::Field(name)) => map_field(map, name),
        (Json::Array(list), Key::Index(index)) => list.get(*index as usize),
        _ => None,
    }
}

/// A map's entry by its name, or by its Kubernetes-escaped name.
pub(super) fn map_field<'v>(
    map: &'v serde_json::Map<String, Json>,
    name: &str,
) -> Option<&'v Json> {
    map.get(name)
        .or_else(|| map.get(unescape_field(name)?.as_str()))
}

/// Could a value of this kind have had the key? Looking for a field of a number is an error even when optional;
/// nothing, however, lacks everything.
pub(super) fn may_lack(value: &Json, key: &Key) -> bool {
    matches!(
        (value, key),
        (Json::Null, _) | (Json::Object(_), Key::Field(_)) | (Json::Array(_), Key::Index(_))
    )
}

/// The error for a look-up of `key` in `value`, which stands at `path`.
pub(super) fn missing(path: &str, value: &Json, key: &Key, at: Range<usize>) -> EvalError {
    let (kind, message, hint) = match (value, key) {
        (Json::Object(map), Key::Field(name)) => (
            EvalErrorKind::Missing,
            format!("`{path}` has no field `{name}`"),
            did_you_mean(name, map.keys().map(String::as_str)),
        ),
        (Json::Array(list), Key::Index(index)) => (
            EvalErrorKind::Missing,
            format!("`{path}` has {} elements, no [{index}]", list.len()),
            None,
        ),
        (_, Key::Field(name)) => (
            EvalErrorKind::Type,
            format!("`{path}` is {}, it has no field `{name}`", a_kind(value)),
            None,
        ),
        (_, Key::Index(index)) => (
            EvalErrorKind::Type,
            format!("`{path}` is {}, it has no [{index}]", a_kind(value)),
            None,
        ),
    };
    EvalError::new(kind, at, message).hinted(hint)
}

/// The kind of a value in JSON's words with an article.
pub(super) fn a_kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(number) if number.is_f64() => "a number",
        Json::Number(_) => "an integer",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        self.segments.iter().try_for_each(|segment| segment.fmt(f))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.optional { "?" } else { "" };
        match &self.key {
            Key::Field(name) if is_identifier(name) => write!(f, ".{mark}{name}"),
            Key::Field(name) => write!(f, "[{mark}{name:?}]"),
            Key::Index(index) => write!(f, "[{mark}{index}]"),
        }
    }
}

fn is_identifier(text: &str) -> bool {
    let mut cursor = Cursor::new(text);
    cursor.identifier().is_some() && cursor.at == text.len()
}

/// Words that CEL does not take as variables. Those of them that are literals or operators are no field names, either.
pub(super) fn is_reserved(word: &str) -> bool {
    is_keyword(word)
        || matches!(
            word,
            "as" | "break"
                | "const"
                | "continue"
                | "else"
                | "for"
                | "function"
                | "if"
                | "import"
                | "let"
                | "loop"
                | "package"
                | "namespace"
                | "return"
                | "var"
                | "void"
                | "while"
        )
}

pub(super) fn is_keyword(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in")
}

/// A place in a text that is read from left to right.
pub(super) struct Cursor<'t> {
    text: &'t str,
    pub(super) at: usize,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')) {
            self.at += 1;
        }
    }

    pub(super) fn identifier(&mut self) -> Option<&'t str> {
        let rest = self.text.get(self.at..)?;
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        let len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        self.at += len;
        rest.get(..len)
    }

    fn field(&mut self) -> Option<Segment> {
        self.at += 1;
        self.blanks();
        let optional = self.eat(b'?');
        self.blanks();
        let start = self.at;
        let name = self.identifier().filter(|name| !is_keyword(name))?;
        Some(Segment {
            key: Key::Field(name.into()),
            optional,
            at: (start as u32, self.at as u32),
        })
    }

    fn bracket(&mut self) -> Option<Segment> {
        self.at += 1;
        self.blanks();
        let optional = self.eat(b'?');
        self.blanks();
        let start = self.at;
        let key = match self.peek()? {
            quote @ (b'"' | b'\'') => Key::Field(self.quoted(quote)?.into()),
            b'0'..=b'9' => Key::Index(self.number()?),
            _ => return None,
        };
        let at = (start as u32, self.at as u32);
        self.blanks();
        self.eat(b']').then_some(Segment { key, optional, at })
    }

    /// A string literal without escapes; anything more is left to CEL.
    pub(super) fn quoted(&mut self, quote: u8) -> Option<&'t str> {
        self.at += 1;
        let rest = self.text.get(self.at..)?;
        let len = rest.bytes().position(|byte| byte == quote)?;
        let inner = rest.get(..len)?;
        if inner.bytes().any(|b| matches!(b, b'\\' | b'\n' | b'\r')) {
            return None;
        }
        self.at += len + 1;
        // `'''` opens a triple-quoted string.
        (self.peek() != Some(quote)).then_some(inner)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        let rest = self.text.get(self.at..)?;
        let len = rest
            .bytes()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(rest.len());
        let digits = rest.get(..len)?;
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        self.at += len;
        digits.parse().ok()
    }
}
