//! Templates: strings with `${expression}` inside.
//!
//! The scanner counts braces outside of string literals, as the reference does (transformation.md 2.2). It knows the two
//! kinds of quotes and backslashes; triple quotes, raw strings and comments of CEL mean nothing to it.
//!
//! *Invariant*: every byte of a template belongs to exactly one part, and every offset is a byte offset into the text
//! that was parsed.

use std::ops::Range;

use serde_json::Value as Json;
use thiserror::Error;

use super::expression::Expression;
use super::scope::{EvalError, Scope};
use super::value::write_go;

/// Longest template text, in bytes. Far above what people write, far below what would hurt.
pub const TEMPLATE_LIMIT: usize = 1 << 20;

/// A string value of a spec: plain text, one expression, or a mixture.
#[derive(Clone, Debug)]
pub enum Template {
    /// Text without expressions, to be taken as it is.
    Literal,
    /// Exactly one expression and nothing around it: the value keeps its type.
    Standalone(Placed),
    /// Expressions within text: the value is always a string.
    Mixed(Vec<Part>),
}

/// One part of a mixed template.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text as it is.
    Text(Box<str>),
    /// An expression whose value is formatted in its place.
    Expression(Placed),
}

/// An expression and where it stood.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What stands between the braces.
    pub expression: Expression,
    /// Byte offset of the expression's text (after `${`) within the template's text.
    pub offset: usize,
}

/// Why a text is not a template.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct TemplateError {
    /// Byte offset within the template's text.
    pub offset: usize,
    /// What is wrong there.
    pub message: String,
}

impl Template {
    /// Reads a string value. Text without `${` costs one search.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let ranges = scan(text)?;
        if let [only] = ranges.as_slice()
            && only.start == 2
            && only.end + 1 == text.len()
        {
            return Ok(Self::Standalone(place(text, only)?));
        }
        if ranges.is_empty() {
            return Ok(Self::Literal);
        }
        let mut parts = Vec::with_capacity(ranges.len() * 2 + 1);
        let mut done = 0;
        for range in &ranges {
            push_text(&mut parts, &text[done..range.start - 2]);
            parts.push(Part::Expression(place(text, range)?));
            done = range.end + 1;
        }
        push_text(&mut parts, &text[done..]);
        Ok(Self::Mixed(parts))
    }

    /// The expressions in order of appearance.
    pub fn expressions(&self) -> impl Iterator<Item = &Placed> {
        let (one, many) = match self {
            Self::Literal => (None, &[][..]),
            Self::Standalone(placed) => (Some(placed), &[][..]),
            Self::Mixed(parts) => (None, parts.as_slice()),
        };
        one.into_iter()
            .chain(many.iter().filter_map(|part| match part {
                Part::Expression(placed) => Some(placed),
                Part::Text(_) => None,
            }))
    }

    /// Where in `text`, from which this was parsed, a `${` stands that nothing closes, if there is one.
    pub fn unclosed(&self, text: &str) -> Option<usize> {
        let rest = match self {
            Self::Literal => text,
            Self::Standalone(_) => return None,
            Self::Mixed(parts) => match parts.last() {
                Some(Part::Text(rest)) => rest,
                _ => return None,
            },
        };
        Some(text.len() - rest.len() + rest.find("${")?)
    }

    /// The value of the string `text` this was parsed from. A failing expression's range is relative to `text`.
    pub fn evaluate(&self, text: &str, scope: &dyn Scope) -> Result<Json, EvalError> {
        match self {
            Self::Literal => Ok(Json::String(text.to_owned())),
            Self::Standalone(placed) => placed.evaluate(scope),
            Self::Mixed(parts) => {
                let mut out = String::with_capacity(text.len());
                for part in parts {
                    match part {
                        Part::Text(text) => out.push_str(text),
                        Part::Expression(placed) => write_go(&placed.evaluate(scope)?, &mut out),
                    }
                }
                Ok(Json::String(out))
            }
        }
    }
}

impl Placed {
    fn evaluate(&self, scope: &dyn Scope) -> Result<Json, EvalError> {
        self.expression
            .evaluate(scope)
            .map_err(|error| error.shifted(self.offset))
    }
}

/// The ranges of the expressions in `text`, braces excluded.
///
/// An unclosed `${` is text when nothing that looks like another expression follows it.
pub fn scan(text: &str) -> Result<Vec<Range<usize>>, TemplateError> {
    let mut ranges = Vec::new();
    let Some(mut start) = text.find("${") else {
        return Ok(ranges);
    };
    if text.len() > TEMPLATE_LIMIT {
        return Err(TemplateError {
            offset: TEMPLATE_LIMIT,
            message: format!("template is longer than {TEMPLATE_LIMIT} bytes"),
        });
    }
    loop {
        let from = start + 2;
        let Some(end) = closing_brace(text.as_bytes(), from)? else {
            return match text[from..].find("${") {
                Some(_) => Err(TemplateError {
                    offset: start,
                    message: "expression is not closed: `}` is missing".to_owned(),
                }),
                None => Ok(ranges),
            };
        };
        ranges.push(from..end);
        match text[end + 1..].find("${") {
            Some(next) => start = end + 1 + next,
            None => return Ok(ranges),
        }
    }
}

/// The offset of the brace that closes an expression starting at `from`, or `None` when there is none.
fn closing_brace(bytes: &[u8], from: usize) -> Result<Option<usize>, TemplateError> {
    let mut depth = 1u32;
    let mut quote: Option<(u8, usize)> = None;
    let mut at = from;
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            // The escaped byte may be a quote; a multi-byte character's other bytes are none.
            (Some(_), b'\\') => at += 1,
            (Some((open, _)), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some((byte, at)),
            (None, b'$') if bytes.get(at + 1) == Some(&b'{') => {
                return Err(TemplateError {
                    offset: at,
                    message: "an expression cannot stand within another one".to_owned(),
                });
            }
            (None, b'{') => depth += 1,
            (None, b'}') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at));
                }
            }
            (None, _) => {}
        }
        at += 1;
    }
    match quote {
        Some((_, offset)) => Err(TemplateError {
            offset,
            message: "string literal is not closed".to_owned(),
        }),
        None => Ok(None),
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
}

fn place(text: &str, range: &Range<usize>) -> Result<Placed, TemplateError> {
    match Expression::parse(&text[range.clone()]) {
        Ok(expression) => Ok(Placed {
            expression,
            offset: range.start,
        }),
        Err(error) => Err(TemplateError {
            offset: range.start + error.offset,
            message: error.message,
        }),
    }
}
