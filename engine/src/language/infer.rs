//! The type of an expression before it runs.
//!
//! *Invariant*: what cannot be known is `dyn`, so every reported error is one: a run would fail at that place. All errors
//! of an expression are reported, each with the smallest part it is about.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use thiserror::Error;

use super::expression::{Expression, Form};
use super::functions::{NAMES, PARSE_REF_FIELDS, TO_OCI_FIELDS, TYPE_NAMES, operator_sign};
use super::path::Path;
use super::scope::{StepView, did_you_mean};
use super::syntax::{Kind, Literal, Loop, Macro, Node};
use super::types::{Additional, Field, Object, Problem, Type};

/// The variables of an expression before anything runs.
pub trait TypeScope {
    /// What `name` stands for, or `None` if there is no such variable. Called once per use; must be cheap.
    fn root(&self, name: &str) -> Option<TypeRoot<'_>>;

    /// The names that exist, for "did you mean". Only called on errors.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a variable stands for.
#[derive(Clone, Copy, Debug)]
pub enum TypeRoot<'a> {
    /// A value of this type.
    Value(&'a Type),
    /// A step: an object with `id` and `type` besides these.
    Step {
        /// The type of its spec.
        spec: &'a Type,
        /// The type of its output.
        output: &'a Type,
    },
}

/// Named types: each key is a variable.
impl TypeScope for BTreeMap<String, Type> {
    fn root(&self, name: &str) -> Option<TypeRoot<'_>> {
        self.get(name).map(TypeRoot::Value)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// What is wrong with an expression before it runs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct TypeError {
    /// The smallest part it is about, as a byte range of the expression's text.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What might help, such as a name that is close.
    pub hint: Option<String>,
}

impl Expression {
    /// The type of the value, or everything that is wrong.
    pub fn infer(&self, scope: &dyn TypeScope) -> Result<Type, Vec<TypeError>> {
        match &self.0 {
            Form::Path(path) => infer_path(path, scope).map_err(|error| vec![error]),
            Form::Tree(tree) => {
                let mut checker = Checker {
                    text: &tree.text,
                    scope,
                    locals: Vec::new(),
                    errors: Vec::new(),
                };
                let ty = checker.node(&tree.root);
                if checker.errors.is_empty() {
                    Ok(ty)
                } else {
                    checker.errors.sort_by_key(|error| error.at.start);
                    Err(checker.errors)
                }
            }
        }
    }
}

fn infer_path(path: &Path, scope: &dyn TypeScope) -> Result<Type, TypeError> {
    let root = scope
        .root(path.root())
        .ok_or_else(|| unknown_variable(path.root(), path.root_range(), scope))?;
    let (mut ty, entered) = match root {
        TypeRoot::Value(ty) => (ty.clone(), 0),
        TypeRoot::Step { spec, output } => match path.segments().first() {
            None => (step_type(spec, output), 0),
            Some(first) => {
                let ty = match &first.key {
                    super::path::Key::Field(name) => {
                        step_field_type(path.root(), name, spec, output)
                    }
                    super::path::Key::Index(_) => Err(Problem {
                        message: format!("step `{}` has no elements", path.root()),
                        hint: None,
                    }),
                };
                let ty = ty.map_err(|problem| placed(problem, first.range()))?;
                (if first.optional { ty.optional() } else { ty }, 1)
            }
        },
    };
    for (index, segment) in path.segments().iter().enumerate().skip(entered) {
        // The text before is only made up when it is needed.
        ty = match ty.enter(segment, "") {
            Ok(next) => next,
            Err(_) => match ty.enter(segment, &path.prefix(index)) {
                Ok(next) => next,
                Err(problem) => return Err(placed(problem, segment.range())),
            },
        };
    }
    Ok(ty)
}

fn step_field_type(step: &str, name: &str, spec: &Type, output: &Type) -> Result<Type, Problem> {
    // Names of fields stand for the output's, else the input's field (transformation.md, R2).
    match name {
        "output" | "outputs" => Ok(output.clone()),
        "spec" => Ok(spec.clone()),
        "id" | "type" => Ok(Type::String(None)),
        _ => match output.field(name).or_else(|| spec.field(name)) {
            Some(field) => Ok(field.ty.clone()),
            None => Err(no_step_field(step, name, spec, output)),
        },
    }
}

fn no_step_field(step: &str, name: &str, spec: &Type, output: &Type) -> Problem {
    let fields = |ty: &'_ Type| -> Vec<Box<str>> {
        ty.as_object()
            .map(|object| object.fields.keys().cloned().collect())
            .unwrap_or_default()
    };
    let (outputs, inputs) = (fields(output), fields(spec));
    let known = StepView::FIELDS
        .into_iter()
        .chain(outputs.iter().chain(&inputs).map(|name| &**name));
    let hint = did_you_mean(name, known).or_else(|| {
        let listed = output.as_object()?.listed()?;
        Some(format!("`{step}.output` is there; {listed}"))
    });
    Problem {
        message: format!("step `{step}` has no `{name}`"),
        hint,
    }
}

/// A step as a whole, for the rare expression that asks for it.
fn step_type(spec: &Type, output: &Type) -> Type {
    let parts = [
        ("id", Type::String(None)),
        ("type", Type::String(None)),
        ("spec", spec.clone()),
        ("output", output.clone()),
    ];
    object(parts)
}

fn object<const N: usize>(parts: [(&str, Type); N]) -> Type {
    let fields = parts
        .into_iter()
        .map(|(name, ty)| (name.into(), Field { ty, required: true }))
        .collect();
    Type::Object(Arc::new(Object {
        title: None,
        fields,
        additional: Additional::Closed,
    }))
}

fn unknown_variable(name: &str, at: Range<usize>, scope: &dyn TypeScope) -> TypeError {
    let names = scope.names();
    TypeError {
        at,
        message: format!("unknown variable `{name}`"),
        hint: did_you_mean(name, names.iter().map(String::as_str)).or_else(|| {
            let has_steps = names.iter().any(|name| name == "environment");
            has_steps.then(|| "expressions know steps by their ids, and `environment`".to_owned())
        }),
    }
}

fn placed(problem: Problem, at: Range<usize>) -> TypeError {
    TypeError {
        at,
        message: problem.message,
        hint: problem.hint,
    }
}

static PARSE_REF: LazyLock<Type> =
    LazyLock::new(|| object(PARSE_REF_FIELDS.map(|name| (name, Type::String(None)))));
static TO_OCI: LazyLock<Type> =
    LazyLock::new(|| object(TO_OCI_FIELDS.map(|name| (name, Type::String(None)))));

struct Checker<'a> {
    text: &'a str,
    scope: &'a dyn TypeScope,
    locals: Vec<(&'a str, Type)>,
    errors: Vec<TypeError>,
}

impl<'a> Checker<'a> {
    /// The type of a node; an error is recorded and gives `dyn`, so that it is reported once.
    fn node(&mut self, node: &'a Node) -> Type {
        match &node.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Variable(name) => self.variable(node, name),
            Kind::Select {
                operand,
                field,
                field_at,
                optional,
            } => self.select(operand, field, *field_at, *optional),
            Kind::Has {
                operand,
                field,
                field_at,
            } => {
                self.select(operand, field, *field_at, true);
                Type::Bool
            }
            Kind::Index {
                operand,
                index,
                optional,
            } => self.index(operand, index, *optional),
            Kind::Call { name, target, args } => {
                let target_type = target.as_deref().map(|target| self.node(target));
                let types: Vec<Type> = args.iter().map(|arg| self.node(arg)).collect();
                match target_type {
                    Some(target) => self.method(node, name, &target, &types),
                    None => self.function(node, name, &types),
                }
            }
            Kind::And(both) | Kind::Or(both) => {
                both.iter().for_each(|part| self.truth(part));
                Type::Bool
            }
            Kind::Choice(parts) => {
                self.truth(&parts[0]);
                let (yes, no) = (self.node(&parts[1]), self.node(&parts[2]));
                yes.join(&no)
            }
            Kind::Loop(inner) => self.iterate(inner),
            Kind::List(elements) => {
                let mut joined: Option<Type> = None;
                for element in elements {
                    let mut ty = self.node(&element.value);
                    if element.optional {
                        ty = self.unwrap(&element.value, &ty);
                    }
                    joined = Some(joined.map_or_else(|| ty.clone(), |all| all.join(&ty)));
                }
                Type::list(joined.unwrap_or(Type::Dyn))
            }
            Kind::Map(entries) => self.map(entries),
        }
    }

    fn map(&mut self, entries: &'a [super::syntax::Entry]) -> Type {
        let mut fields = indexmap::IndexMap::new();
        let mut constant = true;
        for entry in entries {
            let key = self.node(&entry.key);
            if let Type::Null | Type::Number | Type::List(_) | Type::Map(_) | Type::Object(_) =
                key.resolved()
            {
                self.error(&entry.key, format!("{key} cannot be a key"), None);
            }
            let mut ty = self.node(&entry.value);
            if entry.optional {
                ty = self.unwrap(&entry.value, &ty);
            }
            match &entry.key.kind {
                Kind::Literal(Literal::Text(name)) => {
                    let required = !entry.optional;
                    fields.insert(name.clone(), Field { ty, required });
                }
                _ => constant = false,
            }
        }
        match constant {
            true => Type::Object(Arc::new(Object {
                title: None,
                fields,
                additional: Additional::Unstated,
            })),
            false => Type::Map(Arc::new(Type::Dyn)),
        }
    }

    fn variable(&mut self, node: &Node, name: &str) -> Type {
        if let Some((_, ty)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return ty.clone();
        }
        match self.scope.root(name) {
            Some(TypeRoot::Value(ty)) => ty.clone(),
            Some(TypeRoot::Step { spec, output }) => step_type(spec, output),
            None if TYPE_NAMES.contains(&name) => Type::Opaque("type"),
            None => {
                self.errors
                    .push(unknown_variable(name, node.range(), self.scope));
                Type::Dyn
            }
        }
    }

    fn select(
        &mut self,
        operand: &'a Node,
        field: &str,
        field_at: (u32, u32),
        optional: bool,
    ) -> Type {
        if let Some(found) = self.of_step(operand, field, field_at, optional) {
            return found;
        }
        let ty = self.node(operand);
        let found = ty.select(field, optional, self.source(operand));
        self.recover(found, field_at)
    }

    /// The type of a step's field, if `operand` is a step; without building the step's type.
    fn of_step(
        &mut self,
        operand: &Node,
        field: &str,
        field_at: (u32, u32),
        optional: bool,
    ) -> Option<Type> {
        let Kind::Variable(name) = &operand.kind else {
            return None;
        };
        if self.locals.iter().any(|(local, _)| *local == &**name) {
            return None;
        }
        let TypeRoot::Step { spec, output } = self.scope.root(name)? else {
            return None;
        };
        let found = step_field_type(name, field, spec, output);
        let found = self.recover(found, field_at);
        Some(if optional { found.optional() } else { found })
    }

    fn index(&mut self, operand: &'a Node, index: &'a Node, optional: bool) -> Type {
        if let Kind::Literal(Literal::Text(name)) = &index.kind
            && let Some(found) = self.of_step(operand, name, (index.start, index.end), optional)
        {
            return found;
        }
        let ty = self.node(operand);
        let key = self.node(index);
        let text = self.source(operand);
        let at = (index.start, index.end);
        match (key.resolved(), &index.kind) {
            (_, Kind::Literal(Literal::Text(name))) => {
                let found = ty.select(name, optional, text);
                self.recover(found, at)
            }
            (Type::Integer, _) if !matches!(ty.resolved(), Type::Map(_) | Type::Object(_)) => {
                let found = ty.element(optional, text);
                self.recover(found, at)
            }
            (Type::String(_), _) => match ty.resolved() {
                Type::List(_) => {
                    self.error(
                        index,
                        format!("`{text}` is {ty}, its elements have numbers"),
                        None,
                    );
                    Type::Dyn
                }
                Type::Map(value) if optional => (**value).clone().optional(),
                Type::Map(value) => (**value).clone(),
                _ => Type::Dyn,
            },
            _ => Type::Dyn,
        }
    }

    fn truth(&mut self, node: &'a Node) {
        let ty = self.node(node);
        if !is_any(&ty, |ty| matches!(ty, Type::Bool)) {
            self.error(node, format!("expected boolean, found {ty}"), None);
        }
    }

    /// What is inside of an optional.
    fn unwrap(&mut self, node: &Node, ty: &Type) -> Type {
        match ty.resolved() {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn | Type::Union(_) => Type::Dyn,
            other => {
                let message = format!("expected an optional value, found {other}");
                self.error(node, message, None);
                Type::Dyn
            }
        }
    }

    fn iterate(&mut self, inner: &'a Loop) -> Type {
        let range = self.node(&inner.range);
        let item = match (inner.macro_, range.resolved()) {
            (Macro::OptMap | Macro::OptFlatMap, _) => self.unwrap(&inner.range, &range),
            (_, range) => self.item(&inner.range, range),
        };
        self.locals.push((&inner.variable, item));
        if let Some(guard) = &inner.guard {
            self.truth(guard);
        }
        let result = match inner.macro_ {
            Macro::All | Macro::Exists | Macro::ExistsOne => {
                self.truth(&inner.body);
                Type::Bool
            }
            Macro::Filter => {
                self.truth(&inner.body);
                match range.resolved() {
                    Type::List(_) => range.clone(),
                    Type::Map(_) | Type::Object(_) => Type::list(Type::String(None)),
                    _ => Type::Dyn,
                }
            }
            Macro::Map => Type::list(self.node(&inner.body)),
            Macro::OptMap => self.node(&inner.body).optional(),
            Macro::OptFlatMap => {
                let body = self.node(&inner.body);
                self.unwrap(&inner.body, &body).optional()
            }
        };
        self.locals.pop();
        result
    }

    /// What a loop over `range` sees.
    fn item(&mut self, node: &Node, range: &Type) -> Type {
        match range {
            Type::List(item) => (**item).clone(),
            Type::Map(_) | Type::Object(_) => Type::String(None),
            Type::Nullable(inner) => self.item(node, inner.resolved()),
            Type::Dyn | Type::Union(_) => Type::Dyn,
            other => {
                let message = format!("expected a list or a map, found {other}");
                self.error(node, message, None);
                Type::Dyn
            }
        }
    }

    fn function(&mut self, node: &'a Node, name: &str, args: &[Type]) -> Type {
        let result = match (name, args) {
            ("_==_" | "_!=_", [a, b]) => comparable(a, b).then_some(Type::Bool),
            ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => ordered(a, b).then_some(Type::Bool),
            ("@in", [item, container]) => contains(item, container).then_some(Type::Bool),
            ("_+_", [a, b]) => add(a, b),
            ("_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(a, b),
            ("-_", [a]) => is_any(a, is_number).then(|| a.clone()),
            ("!_", [a]) => is_any(a, |ty| matches!(ty, Type::Bool)).then_some(Type::Bool),
            ("optional.none", []) => Some(Type::Dyn.optional()),
            ("optional.of" | "optional.ofNonZeroValue", [a]) => {
                Some(Type::Optional(Arc::new(a.clone())))
            }
            ("dyn", [_]) => Some(Type::Dyn),
            ("type", [_]) => Some(Type::Opaque("type")),
            ("string" | "int" | "uint" | "double" | "bool", [a]) => convert(name, a),
            ("bytes", [a]) => is_any(a, is_text_or_opaque).then_some(Type::Opaque("bytes")),
            ("duration", [a]) => is_any(a, is_text_or_opaque).then_some(Type::Opaque("duration")),
            ("timestamp", [a]) => {
                is_any(a, |ty| is_text_or_opaque(ty) || matches!(ty, Type::Integer))
                    .then_some(Type::Opaque("timestamp"))
            }
            ("size" | "parseRef" | "toOCI", [a]) => unary(name, a),
            ("matches", [text, pattern]) => both_text(text, pattern).then_some(Type::Bool),
            _ => return self.unknown_call(node, name, None, args),
        };
        result.unwrap_or_else(|| self.unknown_call(node, name, None, args))
    }

    fn method(&mut self, node: &'a Node, name: &str, target: &Type, args: &[Type]) -> Type {
        let inner = match target.resolved() {
            Type::Optional(inner) => Some((**inner).clone()),
            Type::Dyn | Type::Union(_) => Some(Type::Dyn),
            _ => None,
        };
        let result = match (name, args) {
            ("contains" | "startsWith" | "endsWith" | "matches", [part]) => {
                both_text(target, part).then_some(Type::Bool)
            }
            ("size" | "parseRef" | "toOCI", []) => unary(name, target),
            ("hasValue", []) => inner.map(|_| Type::Bool),
            ("value", []) => inner,
            ("orValue", [alternative]) => inner.map(|inner| inner.join(alternative)),
            ("or", [alternative]) => inner.map(|inner| match alternative.resolved() {
                Type::Optional(other) => inner.join(other).optional(),
                _ => Type::Dyn,
            }),
            (
                "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear" | "getFullYear"
                | "getHours" | "getMilliseconds" | "getMinutes" | "getMonth" | "getSeconds",
                [] | [_],
            ) => is_any(target, |ty| matches!(ty, Type::Opaque(_))).then_some(Type::Integer),
            _ => None,
        };
        result.unwrap_or_else(|| self.unknown_call(node, name, Some(target), args))
    }

    fn unknown_call(
        &mut self,
        node: &Node,
        name: &str,
        target: Option<&Type>,
        args: &[Type],
    ) -> Type {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_known = NAMES.contains(&name) || name.starts_with("optional.") || name == "value";
        if is_name && !is_known {
            let hint = did_you_mean(name, NAMES);
            self.error(node, format!("unknown function `{name}`"), hint);
            return Type::Dyn;
        }
        let args: Vec<String> = args.iter().map(Type::to_string).collect();
        let message = match target {
            Some(target) => format!(
                "`{name}` does not work on {target} with ({})",
                args.join(", ")
            ),
            None => format!(
                "`{}` does not work on ({})",
                operator_sign(name),
                args.join(", ")
            ),
        };
        self.error(node, message, None);
        Type::Dyn
    }

    fn recover(&mut self, found: Result<Type, Problem>, at: (u32, u32)) -> Type {
        found.unwrap_or_else(|problem| {
            let at = at.0 as usize..at.1 as usize;
            self.errors.push(placed(problem, at));
            Type::Dyn
        })
    }

    fn error(&mut self, node: &Node, message: String, hint: Option<String>) {
        self.errors.push(TypeError {
            at: node.range(),
            message,
            hint,
        });
    }

    fn source(&self, node: &Node) -> &'a str {
        self.text.get(node.range()).unwrap_or_default()
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) | Literal::Uint(_) => Type::Integer,
        Literal::Double(_) => Type::Number,
        Literal::Text(text) => Type::String(Some([text.clone()].into())),
        Literal::Bytes(_) => Type::Opaque("bytes"),
    }
}

/// Does the type, or what it may be besides null, satisfy `test`? Unknown types satisfy everything.
fn is_any(ty: &Type, test: impl Fn(&Type) -> bool) -> bool {
    match ty.resolved() {
        Type::Dyn | Type::Union(_) => true,
        Type::Nullable(inner) => {
            let inner = inner.resolved();
            matches!(inner, Type::Dyn | Type::Union(_)) || test(inner)
        }
        other => test(other),
    }
}

fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Integer | Type::Number)
}

fn is_text(ty: &Type) -> bool {
    matches!(ty, Type::String(_))
}

fn is_text_or_opaque(ty: &Type) -> bool {
    matches!(ty, Type::String(_) | Type::Opaque(_))
}

fn both_text(a: &Type, b: &Type) -> bool {
    is_any(a, is_text) && is_any(b, is_text)
}

/// May the two be equal at all? Null may be compared with anything.
fn comparable(a: &Type, b: &Type) -> bool {
    let scalar = |ty: &Type| match ty.resolved() {
        Type::Bool => Some(0),
        Type::Integer | Type::Number => Some(1),
        Type::String(_) => Some(2),
        Type::List(_) => Some(3),
        Type::Map(_) | Type::Object(_) => Some(4),
        _ => None,
    };
    match (scalar(a), scalar(b)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

fn ordered(a: &Type, b: &Type) -> bool {
    let all = |test: fn(&Type) -> bool| is_any(a, test) && is_any(b, test);
    all(is_number)
        || all(is_text)
        || all(|ty| matches!(ty, Type::Bool))
        || all(|ty| matches!(ty, Type::Opaque(_)))
}

fn contains(item: &Type, container: &Type) -> bool {
    is_any(container, |ty| match ty {
        Type::List(element) => comparable(item, element),
        Type::Map(_) | Type::Object(_) => true,
        _ => false,
    })
}

fn add(a: &Type, b: &Type) -> Option<Type> {
    match (a.resolved(), b.resolved()) {
        (Type::String(_), Type::String(_)) => Some(Type::String(None)),
        (Type::List(a), Type::List(b)) => Some(Type::list(a.join(b))),
        (Type::String(_), _) => is_any(b, is_text).then_some(Type::String(None)),
        (_, Type::String(_)) => is_any(a, is_text).then_some(Type::String(None)),
        (Type::List(_), _) => is_any(b, |ty| matches!(ty, Type::List(_))).then_some(Type::Dyn),
        (_, Type::List(_)) => is_any(a, |ty| matches!(ty, Type::List(_))).then_some(Type::Dyn),
        _ => arithmetic(a, b),
    }
}

fn arithmetic(a: &Type, b: &Type) -> Option<Type> {
    let known = |ty: &Type| matches!(ty, Type::Integer | Type::Number | Type::Opaque(_));
    if !is_any(a, known) || !is_any(b, known) {
        return None;
    }
    Some(match (a.resolved(), b.resolved()) {
        (Type::Integer, Type::Integer) => Type::Integer,
        (Type::Integer | Type::Number, Type::Integer | Type::Number) => Type::Number,
        _ => Type::Dyn,
    })
}

fn convert(name: &str, from: &Type) -> Option<Type> {
    let scalar = |ty: &Type| {
        matches!(
            ty,
            Type::Bool | Type::Integer | Type::Number | Type::String(_) | Type::Opaque(_)
        )
    };
    is_any(from, scalar).then(|| match name {
        "string" => Type::String(None),
        "int" | "uint" => Type::Integer,
        "double" => Type::Number,
        _ => Type::Bool,
    })
}

fn unary(name: &str, value: &Type) -> Option<Type> {
    match name {
        "size" => is_any(value, |ty| {
            matches!(
                ty,
                Type::String(_)
                    | Type::List(_)
                    | Type::Map(_)
                    | Type::Object(_)
                    | Type::Opaque("bytes")
            )
        })
        .then_some(Type::Integer),
        _ => is_any(value, |ty| match ty {
            Type::String(_) | Type::Map(_) => true,
            Type::Object(object) => {
                ["imageReference", "globalAccess"]
                    .iter()
                    .any(|name| object.fields.contains_key(*name))
                    || !matches!(object.additional, Additional::Closed)
            }
            _ => false,
        })
        .then(|| {
            if name == "parseRef" {
                PARSE_REF.clone()
            } else {
                TO_OCI.clone()
            }
        }),
    }
}
