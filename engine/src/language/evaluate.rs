//! Evaluation of expressions that are more than a path.
//!
//! The `cel` crate's interpreter is not used for this: it has no bound on work and memory, loses the order of maps,
//! copies documents to bind them, and says nothing about the place of an error. Its standard library still computes
//! with timestamps, durations and bytes.
//!
//! *Invariant*: the work of one evaluation is bounded. Every node visited, every element produced or compared and every
//! 16 bytes of text produced or searched cost a unit of [`WORK_LIMIT`]; there is no recursion but over the tree, whose
//! depth is bounded, and loops only run over finite values. So time and memory are both linear in the limit. The limit
//! is an error that no operator absorbs.

use std::collections::BTreeMap;
use std::ops::Range;

use regex::Regex;
use serde_json::Value as Json;

use super::functions::{self, TYPE_NAMES};
use super::path::{StepField, not_yet, step_field, unknown_variable};
use super::scope::{EvalError, EvalErrorKind, Root, Scope, StepView, did_you_mean, unescape_field};
use super::syntax::{Entry, Kind, Literal, Loop, Macro, Node, foreign};
use super::value::{Key, List, Map, NoJson, Text, Val, to_json};

/// Units of work of one evaluation: some tens of milliseconds, some tens of megabytes.
pub(super) const WORK_LIMIT: u64 = 2_000_000;

pub(super) type Outcome<'a> = Result<Val<'a>, Box<EvalError>>;

/// Evaluates `tree`, which was parsed from `text`.
pub(super) fn evaluate(text: &str, tree: &Node, scope: &dyn Scope) -> Result<Json, EvalError> {
    let mut machine = Machine {
        text,
        scope,
        work: WORK_LIMIT,
        locals: Vec::new(),
        patterns: BTreeMap::new(),
    };
    let value = machine.node(tree).map_err(|error| *error)?;
    to_json(&value, &mut machine.work).map_err(|error| match error {
        NoJson::Limit => *exhausted(tree),
        NoJson::Unsupported(what) => EvalError::new(EvalErrorKind::Unsupported, tree.range(), what),
    })
}

pub(super) struct Machine<'a> {
    text: &'a str,
    scope: &'a dyn Scope,
    work: u64,
    /// Variables of the loops around, innermost last.
    locals: Vec<(&'a str, Val<'a>)>,
    pub(super) patterns: BTreeMap<String, Regex>,
}

impl<'a> Machine<'a> {
    pub(super) fn node(&mut self, node: &'a Node) -> Outcome<'a> {
        self.spend(node, 1)?;
        match &node.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Variable(name) => self.variable(node, name),
            Kind::Select {
                operand,
                field,
                field_at,
                optional,
            } => {
                let value = self.node(operand)?;
                let at = field_at.0 as usize..field_at.1 as usize;
                self.select(operand, value, field, at, *optional)
            }
            Kind::Has { operand, field, .. } => {
                let value = self.node(operand)?;
                self.has(node, &value, field).map(Val::Bool)
            }
            Kind::Index {
                operand,
                index,
                optional,
            } => {
                let value = self.node(operand)?;
                let key = self.node(index)?;
                self.index(operand, index, value, &key, *optional)
            }
            Kind::Call { name, target, args } => self.call(node, name, target.as_deref(), args),
            Kind::And(both) => self.junction(&both[0], &both[1], false),
            Kind::Or(both) => self.junction(&both[0], &both[1], true),
            Kind::Choice(parts) => {
                if self.truth(&parts[0])? {
                    self.node(&parts[1])
                } else {
                    self.node(&parts[2])
                }
            }
            Kind::Loop(inner) => self.iterate(node, inner),
            Kind::List(elements) => {
                let mut list = Vec::with_capacity(elements.len());
                for element in elements {
                    match (element.optional, self.node(&element.value)?) {
                        (true, Val::Optional(None)) => {}
                        (true, Val::Optional(Some(value))) => list.push((*value).clone()),
                        (true, other) => return Err(not_optional(&element.value, &other)),
                        (false, value) => list.push(value),
                    }
                }
                Ok(Val::list(list))
            }
            Kind::Map(entries) => self.map(entries),
        }
    }

    fn map(&mut self, entries: &'a [Entry]) -> Outcome<'a> {
        let mut map = BTreeMap::new();
        for entry in entries {
            let key_value = self.node(&entry.key)?;
            let key = match key_value {
                Val::Double(_) => None,
                ref value => Key::of(value),
            };
            let Some(key) = key else {
                return Err(type_error(
                    &entry.key,
                    format!("a {} cannot be a key", key_value.kind()),
                ));
            };
            let value = match (entry.optional, self.node(&entry.value)?) {
                (true, Val::Optional(None)) => continue,
                (true, Val::Optional(Some(value))) => (*value).clone(),
                (true, other) => return Err(not_optional(&entry.value, &other)),
                (false, value) => value,
            };
            if map.insert(key.clone(), value).is_some() {
                return Err(failure(
                    EvalErrorKind::Value,
                    &entry.key,
                    format!("the key `{key}` appears twice"),
                ));
            }
        }
        Ok(Val::map(map))
    }

    fn variable(&mut self, node: &Node, name: &str) -> Outcome<'a> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return Ok(value.clone());
        }
        match self.scope.root(name) {
            Some(Root::Value(value)) => Ok(Val::from_json(value)),
            Some(Root::Constants(constants)) => Ok(Val::Map(Map::Constants(constants))),
            Some(Root::Step(step)) => Ok(Val::Step(step)),
            None => match TYPE_NAMES.iter().find(|known| **known == name) {
                Some(known) => Ok(Val::Type(known)),
                None => Err(Box::new(unknown_variable(name, node.range(), self.scope))),
            },
        }
    }

    fn select(
        &mut self,
        operand: &Node,
        value: Val<'a>,
        field: &str,
        at: Range<usize>,
        optional: bool,
    ) -> Outcome<'a> {
        let found = match &value {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            // A `?` makes what follows it optional, too, as in the reference.
            Val::Optional(Some(inner)) => {
                return self.select(operand, (**inner).clone(), field, at, true);
            }
            Val::Map(map) => field_of(map, field),
            Val::Step(step) => match step_field(*step, field) {
                Some(StepField::Text(text)) => Some(Val::Text(Text::Borrowed(text))),
                Some(StepField::Value(Some(value))) => Some(Val::from_json(value)),
                Some(StepField::Value(None)) if !optional => {
                    return Err(Box::new(not_yet(step.id, field, at)));
                }
                Some(StepField::Value(None)) | None => None,
            },
            Val::Null if optional => None,
            other => {
                let path = self.source(operand);
                let message = format!("`{path}` is a {}, it has no field `{field}`", other.kind());
                return Err(Box::new(EvalError::new(EvalErrorKind::Type, at, message)));
            }
        };
        match (found, optional) {
            (Some(found), true) => Ok(Val::some(found)),
            (Some(found), false) => Ok(found),
            (None, true) => Ok(Val::Optional(None)),
            (None, false) => {
                let message = format!("`{}` has no field `{field}`", self.source(operand));
                let error = EvalError::new(EvalErrorKind::Missing, at, message);
                Err(Box::new(error.hinted(nearest_field(&value, field))))
            }
        }
    }

    fn has(&mut self, node: &Node, value: &Val<'a>, field: &str) -> Result<bool, Box<EvalError>> {
        match value {
            Val::Null | Val::Optional(None) => Ok(false),
            Val::Optional(Some(inner)) => self.has(node, inner, field),
            Val::Map(map) => Ok(field_of(map, field).is_some()),
            Val::Step(step) => Ok(matches!(
                step_field(*step, field),
                Some(StepField::Text(_) | StepField::Value(Some(_)))
            )),
            other => Err(type_error(
                node,
                format!("`has` looks into maps, not into a {}", other.kind()),
            )),
        }
    }

    fn index(
        &mut self,
        operand: &Node,
        index: &Node,
        value: Val<'a>,
        key: &Val<'a>,
        optional: bool,
    ) -> Outcome<'a> {
        let found = match (&value, Key::of(key)) {
            (Val::Optional(None), _) => return Ok(Val::Optional(None)),
            (Val::Optional(Some(inner)), _) => {
                return self.index(operand, index, (**inner).clone(), key, true);
            }
            (Val::List(list), Some(Key::Int(at))) => {
                usize::try_from(at).ok().and_then(|at| list.get(at))
            }
            (Val::Map(map), Some(Key::Text(field))) => field_of(map, &field),
            (Val::Map(map), Some(key)) => map.get(&key),
            (Val::Step(_), Some(Key::Text(field))) => {
                return self.select(operand, value, &field, index.range(), optional);
            }
            (Val::Null, Some(_)) if optional => None,
            (other, _) => {
                let message = format!("a {} has no element by a {}", other.kind(), key.kind());
                return Err(type_error(index, message));
            }
        };
        match (found, optional) {
            (Some(found), true) => Ok(Val::some(found)),
            (Some(found), false) => Ok(found),
            (None, true) => Ok(Val::Optional(None)),
            (None, false) => {
                let path = self.source(operand);
                let (message, hint) = match (&value, key) {
                    (Val::List(list), _) => (
                        format!("`{path}` has {} elements, not that one", list.len()),
                        None,
                    ),
                    (value, Val::Text(text)) => (
                        format!("`{path}` has no field `{}`", text.as_str()),
                        nearest_field(value, text.as_str()),
                    ),
                    _ => (format!("`{path}` has no such key"), None),
                };
                let error = EvalError::new(EvalErrorKind::Missing, index.range(), message);
                Err(Box::new(error.hinted(hint)))
            }
        }
    }

    fn call(
        &mut self,
        node: &'a Node,
        name: &'a str,
        target: Option<&'a Node>,
        args: &'a [Node],
    ) -> Outcome<'a> {
        // Alternatives are only computed when they are needed.
        if let (Some(target), [alternative], "or" | "orValue") = (target, args, name) {
            return match self.node(target)? {
                Val::Optional(None) => match (name, self.node(alternative)?) {
                    ("or", value @ Val::Optional(_)) => Ok(value),
                    ("or", other) => Err(not_optional(alternative, &other)),
                    (_, value) => Ok(value),
                },
                Val::Optional(Some(value)) if name == "orValue" => Ok((*value).clone()),
                value @ Val::Optional(_) => Ok(value),
                other => Err(not_optional(target, &other)),
            };
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for part in target.into_iter().chain(args) {
            values.push(self.node(part)?);
        }
        functions::call(self, node, name, target.is_some(), values)
    }

    /// `&&` and `||`: the deciding value on either side wins over an error on the other one.
    fn junction(&mut self, left: &'a Node, right: &'a Node, deciding: bool) -> Outcome<'a> {
        let left = self.truth(left);
        if matches!(left, Ok(value) if value == deciding) {
            return Ok(Val::Bool(deciding));
        }
        if let Err(error) = &left
            && error.kind == EvalErrorKind::Limit
        {
            return left.map(Val::Bool);
        }
        match self.truth(right) {
            Ok(value) if value == deciding => Ok(Val::Bool(deciding)),
            Err(error) if error.kind == EvalErrorKind::Limit => Err(error),
            right => left.and(right).map(Val::Bool),
        }
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Box<EvalError>> {
        match self.node(node)? {
            Val::Bool(value) => Ok(value),
            other => Err(type_error(
                node,
                format!("expected a bool, found a {}", other.kind()),
            )),
        }
    }

    fn iterate(&mut self, node: &'a Node, inner: &'a Loop) -> Outcome<'a> {
        let range = self.node(&inner.range)?;
        if matches!(inner.macro_, Macro::OptMap | Macro::OptFlatMap) {
            return self.map_optional(inner, range);
        }
        let items = match range {
            Val::List(list) => list,
            Val::Map(map) => {
                self.spend(node, map.len() as u64)?;
                let keys = map.keys().iter().map(Key::to_val).collect();
                List::Shared(std::rc::Rc::new(keys))
            }
            other => {
                return Err(type_error(
                    &inner.range,
                    format!("expected a list or a map, found a {}", other.kind()),
                ));
            }
        };
        let mut fold = Fold::new(inner.macro_);
        for index in 0..items.len() {
            self.spend(node, 1)?;
            let Some(item) = items.get(index) else { break };
            self.locals.push((&inner.variable, item.clone()));
            let done = self.step(inner, item, &mut fold);
            self.locals.pop();
            if done? {
                break;
            }
        }
        fold.finish()
    }

    /// One turn of a loop; true when no further one can change the result.
    fn step(
        &mut self,
        inner: &'a Loop,
        item: Val<'a>,
        fold: &mut Fold<'a>,
    ) -> Result<bool, Box<EvalError>> {
        match inner.macro_ {
            Macro::All | Macro::Exists => {
                let deciding = inner.macro_ == Macro::Exists;
                match self.truth(&inner.body) {
                    Ok(value) if value == deciding => {
                        fold.decided = Some(deciding);
                        return Ok(true);
                    }
                    Ok(_) => {}
                    Err(error) if error.kind == EvalErrorKind::Limit => return Err(error),
                    Err(error) => fold.error = fold.error.take().or(Some(error)),
                }
            }
            Macro::ExistsOne => fold.count += usize::from(self.truth(&inner.body)?),
            Macro::Filter => {
                if self.truth(&inner.body)? {
                    fold.list.push(item);
                }
            }
            Macro::Map | Macro::OptMap | Macro::OptFlatMap => {
                let wanted = match &inner.guard {
                    Some(guard) => self.truth(guard)?,
                    None => true,
                };
                if wanted {
                    let value = self.node(&inner.body)?;
                    fold.list.push(value);
                }
            }
        }
        Ok(false)
    }

    fn map_optional(&mut self, inner: &'a Loop, range: Val<'a>) -> Outcome<'a> {
        let item = match range {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(item)) => (*item).clone(),
            other => return Err(not_optional(&inner.range, &other)),
        };
        self.locals.push((&inner.variable, item));
        let value = self.node(&inner.body);
        self.locals.pop();
        match (inner.macro_, value?) {
            (Macro::OptMap, value) => Ok(Val::some(value)),
            (_, value @ Val::Optional(_)) => Ok(value),
            (_, other) => Err(not_optional(&inner.body, &other)),
        }
    }

    /// Are two values the same by CEL's rules (numbers by value, different kinds never)?
    pub(super) fn equal(
        &mut self,
        node: &Node,
        a: &Val<'a>,
        b: &Val<'a>,
    ) -> Result<bool, Box<EvalError>> {
        self.spend(node, 1)?;
        match (a, b) {
            (Val::Null, Val::Null) | (Val::Optional(None), Val::Optional(None)) => Ok(true),
            (Val::Type(a), Val::Type(b)) => Ok(a == b),
            (Val::Text(a), Val::Text(b)) => {
                self.spend(node, a.as_str().len().min(b.as_str().len()) as u64 / 16)?;
                Ok(a.as_str() == b.as_str())
            }
            (Val::List(a), Val::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !self.equal(node, &a, &b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Val::Map(a), Val::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                self.spend(node, a.len() as u64)?;
                for key in a.keys() {
                    match (a.get(&key), b.get(&key)) {
                        (Some(a), Some(b)) if self.equal(node, &a, &b)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            (Val::Optional(Some(a)), Val::Optional(Some(b))) => self.equal(node, a, b),
            (Val::Step(a), Val::Step(b)) => Ok(a.id == b.id),
            (Val::Foreign(a), Val::Foreign(b)) => Ok(a == b),
            _ => Ok(a.compare(b) == Some(std::cmp::Ordering::Equal)),
        }
    }

    pub(super) fn spend(&mut self, node: &Node, units: u64) -> Result<(), Box<EvalError>> {
        match self.work.checked_sub(units) {
            Some(rest) => {
                self.work = rest;
                Ok(())
            }
            None => Err(exhausted(node)),
        }
    }

    /// Charges for text that is produced or searched.
    pub(super) fn spend_text(&mut self, node: &Node, bytes: usize) -> Result<(), Box<EvalError>> {
        self.spend(node, bytes as u64 / 16)
    }

    fn source(&self, node: &Node) -> &'a str {
        self.text.get(node.range()).unwrap_or_default()
    }
}

/// What a loop has come to.
struct Fold<'a> {
    macro_: Macro,
    decided: Option<bool>,
    error: Option<Box<EvalError>>,
    count: usize,
    list: Vec<Val<'a>>,
}

impl<'a> Fold<'a> {
    fn new(macro_: Macro) -> Self {
        Self {
            macro_,
            decided: None,
            error: None,
            count: 0,
            list: Vec::new(),
        }
    }

    fn finish(self) -> Outcome<'a> {
        match (self.macro_, self.decided, self.error) {
            (_, Some(decided), _) => Ok(Val::Bool(decided)),
            (_, None, Some(error)) => Err(error),
            (Macro::All, None, None) => Ok(Val::Bool(true)),
            (Macro::Exists, None, None) => Ok(Val::Bool(false)),
            (Macro::ExistsOne, None, None) => Ok(Val::Bool(self.count == 1)),
            (_, None, None) => Ok(Val::list(self.list)),
        }
    }
}

fn literal_value(literal: &Literal) -> Val<'_> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(value) => Val::Bool(*value),
        Literal::Int(value) => Val::Int(*value),
        Literal::Uint(value) => Val::Uint(*value),
        Literal::Double(value) => Val::Double(*value),
        Literal::Text(text) => Val::Text(Text::Borrowed(text)),
        Literal::Bytes(bytes) => {
            let value = foreign::Value::from(bytes.to_vec());
            Val::Foreign(std::rc::Rc::new(value))
        }
    }
}

/// A map's entry by its name, or by its Kubernetes-escaped name.
fn field_of<'a>(map: &Map<'a>, field: &str) -> Option<Val<'a>> {
    match map {
        Map::Borrowed(map) => super::path::map_field(map, field).map(Val::from_json),
        Map::Constants(_) | Map::Shared(_) => map.get(&Key::text(field)).or_else(|| {
            let plain = unescape_field(field)?;
            map.get(&Key::text(&plain))
        }),
    }
}

fn nearest_field(value: &Val<'_>, field: &str) -> Option<String> {
    match value {
        Val::Map(map) => {
            let keys: Vec<String> = map.keys().iter().map(Key::to_string).collect();
            did_you_mean(field, keys.iter().map(String::as_str))
        }
        Val::Step(_) => did_you_mean(field, StepView::FIELDS),
        _ => None,
    }
}

pub(super) fn failure(
    kind: EvalErrorKind,
    node: &Node,
    message: impl Into<String>,
) -> Box<EvalError> {
    Box::new(EvalError::new(kind, node.range(), message))
}

pub(super) fn type_error(node: &Node, message: impl Into<String>) -> Box<EvalError> {
    failure(EvalErrorKind::Type, node, message)
}

fn not_optional(node: &Node, value: &Val<'_>) -> Box<EvalError> {
    type_error(
        node,
        format!("expected an optional value, found a {}", value.kind()),
    )
}

fn exhausted(node: &Node) -> Box<EvalError> {
    failure(
        EvalErrorKind::Limit,
        node,
        format!("expression needs more than {WORK_LIMIT} units of work"),
    )
}
