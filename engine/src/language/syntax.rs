//! The tree of an expression that is more than a path: parsed by the `cel` crate, turned into our own nodes.
//!
//! The crate's parser is used without macros, so that `has`, `map` and their kind arrive as the author wrote them: the
//! checker can name them, and evaluation can bound them.
//!
//! *Invariant*: no type of the `cel` crate leaves this module but through [`foreign`]; a tree is at most
//! [`DEPTH_LIMIT`] deep, so walking it recursively is safe.

use std::ops::Range;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::{Env, ParseErrors};

use super::chain;

/// Longest expression that is not a plain path, in bytes.
pub(super) const TEXT_LIMIT: usize = 16 << 10;

/// Most operators, brackets and dots in one expression: the parser recurses once per operator of a chain.
const OPERATOR_LIMIT: usize = 1000;

/// Deepest tree that is accepted.
pub(super) const DEPTH_LIMIT: usize = 200;

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Literal),
    Variable(Box<str>),
    /// `a.b`, `a.?b`
    Select {
        operand: Box<Node>,
        field: Box<str>,
        field_at: (u32, u32),
        optional: bool,
    },
    /// `has(a.b)`
    Has {
        operand: Box<Node>,
        field: Box<str>,
        field_at: (u32, u32),
    },
    /// `a[b]`, `a[?b]`
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    /// Operators under the names of the CEL specification (`_+_`), functions, methods.
    Call {
        name: Box<str>,
        target: Option<Box<Node>>,
        args: Vec<Node>,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// `condition ? yes : no`
    Choice(Box<[Node; 3]>),
    Loop(Box<Loop>),
    List(Vec<Element>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

/// `range.all(variable, body)` and its kind.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) macro_: Macro,
    pub(super) range: Node,
    pub(super) variable: Box<str>,
    /// The middle argument of `map(x, guard, body)`.
    pub(super) guard: Option<Node>,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    OptMap,
    OptFlatMap,
}

#[derive(Clone, Debug)]
pub(super) struct Element {
    pub(super) optional: bool,
    pub(super) value: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) optional: bool,
    pub(super) key: Node,
    pub(super) value: Node,
}

/// A text that is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) offset: usize,
    pub(super) message: String,
}

impl Node {
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Macro {
    pub(super) fn parse(name: &str, args: usize) -> Option<Self> {
        Some(match (name, args) {
            ("all", 2) => Self::All,
            ("exists", 2) => Self::Exists,
            ("exists_one" | "existsOne", 2) => Self::ExistsOne,
            ("map", 2 | 3) => Self::Map,
            ("filter", 2) => Self::Filter,
            ("optMap", 2) => Self::OptMap,
            ("optFlatMap", 2) => Self::OptFlatMap,
            _ => return None,
        })
    }
}

/// Parses any expression.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    match chain::parse(text) {
        Some(node) => Ok(node),
        None => parse_by_grammar(text),
    }
}

/// The same by the parser of the `cel` crate alone, whose tables take a millisecond to make.
pub(super) fn parse_by_grammar(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > TEXT_LIMIT {
        return Err(SyntaxError {
            offset: TEXT_LIMIT,
            message: format!("expression is longer than {TEXT_LIMIT} bytes"),
        });
    }
    bound(text)?;
    if text.trim().is_empty() {
        return Err(SyntaxError {
            offset: 0,
            message: "expression is empty".to_owned(),
        });
    }
    let (tree, source) = Env::default()
        .parser()
        .max_recursion_depth(64)
        .parse_with_source_info(text)
        .map_err(|errors| first_error(text, &errors))?;
    Lowering {
        text,
        source: &source,
    }
    .node(&tree, DEPTH_LIMIT)
}

/// Refuses texts that would make the parser recurse deeply; string literals do not count.
fn bound(text: &str) -> Result<(), SyntaxError> {
    let mut operators = 0;
    let mut quote = None;
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'.' | b'[' | b'(' | b'{' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%') => {
                operators += 1;
            }
            (None, b'!' | b'=' | b'<' | b'>' | b'&' | b'|' | b',' | b':') => operators += 1,
            (None, b' ') => {
                // `in` is the one operator made of letters.
                operators += usize::from(text.as_bytes()[offset..].starts_with(b" in "));
            }
            _ => {}
        }
        if operators > OPERATOR_LIMIT {
            return Err(SyntaxError {
                offset,
                message: format!("expression has more than {OPERATOR_LIMIT} operators"),
            });
        }
    }
    Ok(())
}

fn first_error(text: &str, errors: &ParseErrors) -> SyntaxError {
    let Some(error) = errors.errors.first() else {
        return SyntaxError {
            offset: 0,
            message: "expression has a syntax error".to_owned(),
        };
    };
    let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
    let start = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum::<usize>();
    let offset = text.floor_char_boundary((start + column - 1).min(text.len()));
    SyntaxError {
        offset,
        message: match word_at(&text[offset..]) {
            Some(word) => format!("syntax error: unexpected `{word}`"),
            None => "syntax error: the expression ends too early".to_owned(),
        },
    }
}

/// The word or sign at the start of `text`: what the parser calls it depends on where it was in its grammar.
fn word_at(text: &str) -> Option<&str> {
    let first = text.chars().find(|c| !c.is_whitespace())?;
    let text = text.trim_start();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let len = match is_word(first) {
        true => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        false => first.len_utf8(),
    };
    text.get(..len)
}

struct Lowering<'t> {
    text: &'t str,
    source: &'t SourceInfo,
}

impl Lowering<'_> {
    fn node(&self, tree: &IdedExpr, depth: usize) -> Result<Node, SyntaxError> {
        let at = self.token(tree.id);
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.error(at.0, "expression is nested too deeply"));
        };
        let kind = match &tree.expr {
            Expr::Literal(literal) => Kind::Literal(self.literal(literal, at)?),
            Expr::Ident(name) => Kind::Variable(name.trim_start_matches('.').into()),
            Expr::Select(select) => {
                return self.select(&select.operand, &select.field, at, false, depth);
            }
            Expr::Call(call) => return self.call(call, at, depth),
            Expr::List(list) => {
                let elements = list.elements.iter().enumerate().map(|(index, element)| {
                    Ok(Element {
                        optional: list.optional_indices.contains(&index),
                        value: self.node(element, depth)?,
                    })
                });
                let elements = elements.collect::<Result<Vec<_>, SyntaxError>>()?;
                let end = elements.last().map_or(at.1, |element| element.value.end);
                return Ok(self.closed(at.0, end, "]", Kind::List(elements)));
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(self.error(at.0, "message literals are not supported"));
                    };
                    entries.push(Entry {
                        optional: entry.optional,
                        key: self.node(&entry.key, depth)?,
                        value: self.node(&entry.value, depth)?,
                    });
                }
                let end = entries.last().map_or(at.1, |entry| entry.value.end);
                return Ok(self.closed(at.0, end, "}", Kind::Map(entries)));
            }
            Expr::Struct(_) => {
                return Err(self.error(at.0, "message literals are not supported"));
            }
            Expr::Comprehension(_) | Expr::Unspecified => {
                return Err(self.error(at.0, "expression is incomplete"));
            }
        };
        Ok(Node {
            start: at.0,
            end: at.1,
            kind,
        })
    }

    fn literal(&self, literal: &LiteralValue, at: (u32, u32)) -> Result<Literal, SyntaxError> {
        let value = cel::Value::try_from(literal.to_val().as_ref())
            .map_err(|_| self.error(at.0, "literal is not understood"))?;
        Ok(match value {
            cel::Value::Bool(value) => Literal::Bool(value),
            cel::Value::Int(value) => Literal::Int(value),
            cel::Value::UInt(value) => Literal::Uint(value),
            cel::Value::Float(value) => Literal::Double(value),
            cel::Value::String(value) => Literal::Text(value.as_str().into()),
            cel::Value::Bytes(value) => Literal::Bytes(value.as_slice().into()),
            cel::Value::Null => Literal::Null,
            _ => return Err(self.error(at.0, "literal is not understood")),
        })
    }

    fn select(
        &self,
        operand: &IdedExpr,
        field: &str,
        dot: (u32, u32),
        optional: bool,
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        let operand = self.node(operand, depth)?;
        let field_at = self.field_after(dot.0);
        Ok(Node {
            start: operand.start,
            end: field_at.1,
            kind: Kind::Select {
                operand: Box::new(operand),
                field: field.into(),
                field_at,
                optional,
            },
        })
    }

    fn call(
        &self,
        call: &cel::common::ast::CallExpr,
        at: (u32, u32),
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        let name = call.func_name.as_str();
        match (name, call.target.as_deref(), call.args.as_slice()) {
            (operators::OPT_SELECT, None, [operand, field]) => {
                let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
                    return Err(self.error(at.0, "expression is incomplete"));
                };
                self.select(operand, field.inner(), at, true, depth)
            }
            (operators::INDEX | operators::OPT_INDEX, None, [operand, index]) => {
                let operand = Box::new(self.node(operand, depth)?);
                let index = Box::new(self.node(index, depth)?);
                let (start, end) = (operand.start, index.end);
                let optional = name == operators::OPT_INDEX;
                let kind = Kind::Index {
                    operand,
                    index,
                    optional,
                };
                Ok(self.closed(start, end, "]", kind))
            }
            (operators::LOGICAL_AND, None, [left, right]) => {
                let both = Box::new([self.node(left, depth)?, self.node(right, depth)?]);
                Ok(spanning(both[0].start, both[1].end, Kind::And(both)))
            }
            (operators::LOGICAL_OR, None, [left, right]) => {
                let both = Box::new([self.node(left, depth)?, self.node(right, depth)?]);
                Ok(spanning(both[0].start, both[1].end, Kind::Or(both)))
            }
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                let parts = Box::new([
                    self.node(condition, depth)?,
                    self.node(yes, depth)?,
                    self.node(no, depth)?,
                ]);
                Ok(spanning(parts[0].start, parts[2].end, Kind::Choice(parts)))
            }
            ("has", None, [argument]) => self.has(argument, at, depth),
            (_, Some(target), args) => match Macro::parse(name, args.len()) {
                Some(macro_) => self.comprehension(macro_, target, args, at, depth),
                None => self.method(name, target, args, at, depth),
            },
            (_, None, args) => self.function(name, args, at, depth),
        }
    }

    fn has(&self, argument: &IdedExpr, at: (u32, u32), depth: usize) -> Result<Node, SyntaxError> {
        let argument = self.node(argument, depth)?;
        let start = self.word_before(at.0);
        let end = argument.end;
        match argument.kind {
            Kind::Select {
                operand,
                field,
                field_at,
                optional: false,
            } => {
                let kind = Kind::Has {
                    operand,
                    field,
                    field_at,
                };
                Ok(self.closed(start, end, ")", kind))
            }
            _ => Err(self.error(start, "`has` takes a field, as in `has(a.b)`")),
        }
    }

    fn comprehension(
        &self,
        macro_: Macro,
        range: &IdedExpr,
        args: &[IdedExpr],
        at: (u32, u32),
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        let incomplete = || self.error(at.0, "expression is incomplete");
        let (first, rest) = args.split_first().ok_or_else(incomplete)?;
        let (body, guard) = rest.split_last().ok_or_else(incomplete)?;
        let Expr::Ident(variable) = &first.expr else {
            let offset = self.token(first.id).0;
            return Err(self.error(offset, "the first argument must be a name"));
        };
        let range = self.node(range, depth)?;
        let guard = guard.first().map(|it| self.node(it, depth)).transpose()?;
        let body = self.node(body, depth)?;
        let (start, end) = (range.start, body.end);
        let kind = Kind::Loop(Box::new(Loop {
            macro_,
            range,
            variable: variable.as_str().into(),
            guard,
            body,
        }));
        Ok(self.closed(start, end, ")", kind))
    }

    fn method(
        &self,
        name: &str,
        target: &IdedExpr,
        args: &[IdedExpr],
        at: (u32, u32),
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        // `optional.of(x)` reads like a method, but `optional` is only a prefix of the function's name.
        if matches!(&target.expr, Expr::Ident(prefix) if prefix == "optional") {
            let mut call = self.function(&format!("optional.{name}"), args, at, depth)?;
            call.start = self.token(target.id).0;
            return Ok(call);
        }
        let target = self.node(target, depth)?;
        let args = self.nodes(args, depth)?;
        let end = args.last().map_or(at.1, |arg| arg.end);
        let start = target.start;
        let kind = Kind::Call {
            name: name.into(),
            target: Some(Box::new(target)),
            args,
        };
        Ok(self.closed(start, end, ")", kind))
    }

    fn function(
        &self,
        name: &str,
        args: &[IdedExpr],
        at: (u32, u32),
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        let args = self.nodes(args, depth)?;
        let first = args.first().map_or(at.0, |arg| arg.start);
        let last = args.last().map_or(at.1, |arg| arg.end);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        let is_operator = !name.bytes().all(is_name);
        let name: Box<str> = name.trim_start_matches('.').into();
        let kind = |args| Kind::Call {
            name,
            target: None,
            args,
        };
        if is_operator {
            return Ok(spanning(first.min(at.0), last.max(at.1), kind(args)));
        }
        let start = self.word_before(at.0);
        Ok(self.closed(start, last.max(at.1), ")", kind(args)))
    }

    fn nodes(&self, trees: &[IdedExpr], depth: usize) -> Result<Vec<Node>, SyntaxError> {
        trees.iter().map(|tree| self.node(tree, depth)).collect()
    }

    /// The byte range of a node's own token.
    fn token(&self, id: u64) -> (u32, u32) {
        let limit = self.text.len() as u32;
        let (start, last) = self.source.offset_for(id).unwrap_or_default();
        let start = start.min(limit);
        (start, last.saturating_add(1).clamp(start, limit))
    }

    /// The name that follows a dot.
    fn field_after(&self, dot: u32) -> (u32, u32) {
        let rest = self.text.get(dot as usize..).unwrap_or_default();
        let skipped = rest
            .find(|c: char| !(c.is_whitespace() || c == '.' || c == '?'))
            .unwrap_or(rest.len());
        let name = &rest[skipped..];
        let len = name
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(name.len());
        let start = dot + skipped as u32;
        (start, start + len as u32)
    }

    /// Where the name in front of an opening bracket starts.
    fn word_before(&self, bracket: u32) -> u32 {
        let before = self.text.get(..bracket as usize).unwrap_or_default();
        let name = before.trim_end();
        name.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .map_or(0, |at| at as u32 + 1)
    }

    /// A node that ends with a closing bracket somewhere after `end`.
    fn closed(&self, start: u32, end: u32, bracket: &str, kind: Kind) -> Node {
        let rest = self.text.get(end as usize..).unwrap_or_default();
        let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        let end = if trimmed.starts_with(bracket) {
            end as usize + (rest.len() - trimmed.len()) + 1
        } else {
            end as usize
        };
        spanning(start, end as u32, kind)
    }

    fn error(&self, offset: u32, message: &str) -> SyntaxError {
        SyntaxError {
            offset: offset as usize,
            message: message.to_owned(),
        }
    }
}

fn spanning(start: u32, end: u32, kind: Kind) -> Node {
    Node {
        start,
        end: end.max(start),
        kind,
    }
}

/// Timestamps, durations and bytes, and what the `cel` crate's standard library does with them.
pub(super) mod foreign {
    use std::sync::{Arc, LazyLock};

    use cel::common::ast::CallExpr;
    use cel::{Context, ExecutionError};

    use super::{Env, Expr, IdedExpr};

    /// A value that JSON does not have.
    pub(crate) type Value = cel::Value;

    static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

    /// Calls a function, method or operator of the standard library.
    pub(crate) fn call(name: &str, method: bool, args: Vec<Value>) -> Result<Value, String> {
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        let mut names = Vec::with_capacity(args.len());
        for (index, arg) in args.into_iter().enumerate() {
            let name = format!("argument{index}");
            context.add_variable_from_value(name.clone(), arg);
            names.push(IdedExpr {
                id: index as u64 + 2,
                expr: Expr::Ident(name),
            });
        }
        let target = (method && !names.is_empty()).then(|| Box::new(names.remove(0)));
        let call = IdedExpr {
            id: 1,
            expr: Expr::Call(CallExpr {
                func_name: name.to_owned(),
                target,
                args: names,
            }),
        };
        context.resolve(&call).map_err(|error| describe(&error))
    }

    fn describe(error: &ExecutionError) -> String {
        let text = error.to_string();
        let mut chars = text.chars();
        chars
            .next()
            .map(|first| first.to_lowercase().chain(chars).collect())
            .unwrap_or_default()
    }
}
