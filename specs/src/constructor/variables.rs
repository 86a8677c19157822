//! Variables of constructors: `${NAME}`, `${NAME:-text}`, `$NAME`, and `$$` for a dollar sign.
//!
//! *Invariant*: expansion sees the texts of a parsed document, never its syntax. A value becomes part of one text; it can
//! neither end that text nor begin a list or map. What is no variable's name (`${schema.spec.x}`) is left as it stands.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::yaml::{
    LoadOptions, Member, Node, Source, Span, Value, YamlError, load, offset_in_scalar,
};

/// Most bytes that one document may grow to by its variables: far above a constructor, far below a bomb.
const EXPANDED_LIMIT: usize = 64 << 20;
/// Deepest nesting of defaults: `${A:-${B:-text}}` has two levels.
const NESTING_LIMIT: usize = 16;

/// Names and what stands for them. A later definition of a name wins.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// Is an unset variable empty text, instead of a mistake?
    allow_unset: bool,
}

impl Variables {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets unset variables be empty text.
    #[must_use]
    pub fn allowing_unset(mut self, allow: bool) -> Self {
        self.allow_unset = allow;
        self
    }

    /// Defines one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// What stands for a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Takes over a settings file: a map of names to values.
    ///
    /// Numbers and truth values count as they are written (`1.10` stays `1.10`), lists and maps as compact JSON.
    ///
    /// # Errors
    /// Bad syntax, a document that is no map, and keys that are no names of variables.
    pub fn add_settings(&mut self, source: &Arc<Source>) -> Result<(), Diagnostics> {
        let document =
            load(source, &LoadOptions::default()).map_err(|error| syntax(source, error))?;
        self.add_document(source, &document)
            .map_err(|findings| Diagnostics::new(source.clone(), findings))
    }

    fn add_document(&mut self, source: &Source, document: &Node) -> Result<(), Vec<Diagnostic>> {
        let map = match &document.value {
            Value::Map(map) => map,
            Value::Null => return Ok(()),
            _ => {
                let message = format!("settings are a map, this is a {}", document.kind());
                let finding = Diagnostic::error(document.span, message);
                return Err(vec![finding.with_hint("write one `NAME: value` a line")]);
            }
        };
        let mut findings = Vec::new();
        for (name, Member { key, node }) in map {
            if is_variable_name(name) {
                self.set(name.clone(), as_written(source, node));
            } else {
                let message = format!("`{name}` is no name of a variable");
                findings.push(
                    Diagnostic::error(*key, message).with_hint(
                        "names consist of letters, digits and `_`, and no digit is first",
                    ),
                );
            }
        }
        if findings.is_empty() {
            Ok(())
        } else {
            Err(findings)
        }
    }

    /// The document with its variables expanded.
    pub(super) fn expand(&self, source: &Source, document: &Node) -> Expanded {
        let mut expansion = Expansion {
            variables: self,
            source,
            grown: 0,
            findings: Vec::new(),
            faulty: BTreeSet::new(),
        };
        let node = expansion.node(document);
        Expanded {
            node,
            findings: expansion.findings,
            faulty: expansion.faulty,
        }
    }
}

/// A document after expansion.
pub(super) struct Expanded {
    pub(super) node: Node,
    /// All that is wrong with its variables.
    pub(super) findings: Vec<Diagnostic>,
    /// The texts that these are in: what else is found wrong with them follows from that.
    pub(super) faulty: BTreeSet<Span>,
}

/// A fault in the text as a finding.
pub(super) fn syntax(source: &Arc<Source>, error: YamlError) -> Diagnostics {
    let mut finding = Diagnostic::error(error.span, error.message);
    finding.hint = error.hint;
    Diagnostics::new(source.clone(), vec![finding])
}

/// May a variable be called that?
pub fn is_variable_name(text: &str) -> bool {
    name_length(text) == text.len() && !text.is_empty()
}

/// Length of the name that `text` starts with; zero where there is none.
fn name_length(text: &str) -> usize {
    let is_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match (is_start, text.find(|c: char| !is_part(c))) {
        (false, _) => 0,
        (true, end) => end.unwrap_or(text.len()),
    }
}

/// A scalar's text as it stands in the file; data of any other kind as JSON.
fn as_written(source: &Source, node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => {
            let text = source
                .text()
                .get(node.span.start as usize..node.span.end as usize);
            // An alias stands elsewhere than its value.
            let text = text
                .map(str::trim)
                .filter(|text| !text.is_empty() && !text.starts_with('*'));
            text.map_or_else(
                || node.as_go_string().unwrap_or_default().into_owned(),
                str::to_owned,
            )
        }
        Value::List(_) | Value::Map(_) => crate::json::to_sorted(&node.to_json()),
    }
}

struct Expansion<'e> {
    variables: &'e Variables,
    source: &'e Source,
    grown: usize,
    findings: Vec<Diagnostic>,
    faulty: BTreeSet<Span>,
}

impl Expansion<'_> {
    fn node(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::String(text) if text.contains('$') => Value::String(self.scalar(node, text)),
            Value::List(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            Value::Map(map) => Value::Map(
                map.iter()
                    .map(|(name, member)| {
                        let node = self.node(&member.node);
                        (
                            name.clone(),
                            Member {
                                key: member.key,
                                node,
                            },
                        )
                    })
                    .collect(),
            ),
            other => other.clone(),
        };
        Node {
            value,
            span: node.span,
        }
    }

    fn scalar(&mut self, node: &Node, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        self.text(node, text, 0, 0, &mut out);
        out
    }

    /// Appends `text` with its variables expanded. It stands at `offset` in the scalar's value.
    fn text(&mut self, node: &Node, text: &str, offset: usize, depth: usize, out: &mut String) {
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let place = offset + (text.len() - rest.len()) + at;
            let tail = &rest[at + 1..];
            let used = self.dollar(node, tail, place, depth, out);
            if used == 0 {
                out.push('$');
            }
            rest = &tail[used..];
        }
        out.push_str(rest);
    }

    /// Expands what follows a dollar sign; tells how much of it that was.
    fn dollar(
        &mut self,
        node: &Node,
        tail: &str,
        place: usize,
        depth: usize,
        out: &mut String,
    ) -> usize {
        if tail.starts_with('$') {
            out.push('$');
            return 1;
        }
        if let Some(braced) = tail.strip_prefix('{') {
            return self.braced(node, braced, place, depth, out);
        }
        let length = name_length(tail);
        if length > 0 {
            self.variable(node, &tail[..length], None, place, depth, out);
        }
        length
    }

    fn braced(
        &mut self,
        node: &Node,
        braced: &str,
        place: usize,
        depth: usize,
        out: &mut String,
    ) -> usize {
        let length = name_length(braced);
        let (name, after) = braced.split_at(length);
        if length == 0 {
            return 0;
        }
        if after.starts_with('}') {
            self.variable(node, name, None, place, depth, out);
            return 1 + length + 1;
        }
        if let Some(default) = after.strip_prefix(":-") {
            let Some(end) = closing_brace(default) else {
                self.error(
                    node,
                    place,
                    format!("`${{{name}:-` has no closing brace"),
                    "write `${NAME:-text}`, or `$$` for a dollar sign",
                );
                return 0;
            };
            self.variable(node, name, Some(&default[..end]), place, depth, out);
            return 1 + length + 2 + end + 1;
        }
        let operators = [":=", ":+", ":?", "=", "^", ",", "#", "%"];
        if operators.iter().any(|operator| after.starts_with(operator)) {
            self.error(
                node,
                place,
                format!("`${{{name}` is followed by an operator that is not known here"),
                "write `${NAME}` or `${NAME:-text}`, and `$$` for a dollar sign",
            );
        }
        0
    }

    fn variable(
        &mut self,
        node: &Node,
        name: &str,
        default: Option<&str>,
        place: usize,
        depth: usize,
        out: &mut String,
    ) {
        let value = self.variables.get(name);
        match (value, default) {
            (Some(value), None) => self.append(node, place, value, out),
            (Some(value), Some(_)) if !value.is_empty() => self.append(node, place, value, out),
            (_, Some(_)) if depth == NESTING_LIMIT => {
                self.error(
                    node,
                    place,
                    format!("defaults are nested deeper than {NESTING_LIMIT} levels"),
                    "write the text itself",
                );
            }
            (_, Some(default)) => {
                let start = place + "${".len() + name.len() + ":-".len();
                self.text(node, default, start, depth + 1, out);
            }
            (None, None) if self.variables.allow_unset => {}
            (None, None) => self.unset(node, place, name),
        }
    }

    fn append(&mut self, node: &Node, place: usize, value: &str, out: &mut String) {
        if self.grown.saturating_add(value.len()) > EXPANDED_LIMIT {
            // One message will do, however many variables follow.
            if self.grown <= EXPANDED_LIMIT {
                self.error(
                    node,
                    place,
                    format!("variables make the document longer than {EXPANDED_LIMIT} bytes"),
                    "put long texts into files",
                );
            }
            self.grown = EXPANDED_LIMIT + 1;
            return;
        }
        self.grown += value.len();
        out.push_str(value);
    }

    fn unset(&mut self, node: &Node, place: usize, name: &str) {
        let known = self.variables.values.keys().map(String::as_str);
        let hint: Cow<'_, str> = match did_you_mean(name, known) {
            Some(known) => format!("did you mean `{known}`? A dollar sign is written `$$`").into(),
            None => format!(
                "give {name}=VALUE, a settings file or the environment a value for it; `${{{name}:-text}}` has a default, and `$$` is a dollar sign"
            )
            .into(),
        };
        self.error(
            node,
            place,
            format!("the variable `{name}` is not set"),
            &hint,
        );
    }

    fn error(&mut self, node: &Node, place: usize, message: String, hint: &str) {
        self.faulty.insert(node.span);
        let mut span = node.span;
        if let Some(start) = offset_in_scalar(self.source, span, place) {
            span.start = start;
        }
        self.findings
            .push(Diagnostic::error(span, message).with_hint(hint));
    }
}

/// Where the brace closes that was open before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::new();
        for (name, value) in [
            ("NAME", "acme"),
            ("EMPTY", ""),
            ("YAML", "\"}\n- a: b # c"),
            ("_x1", "$NAME"),
        ] {
            variables.set(name, value);
        }
        variables
    }

    /// `expected` is the text, or what is wrong with it.
    fn check(scalar: &str, expected: Result<&str, &str>) {
        let source = Source::new("c.yaml", format!("key: {scalar}\n"));
        let node = load(&source, &LoadOptions::default()).unwrap();
        let Expanded { node, findings, .. } = variables().expand(&source, &node);
        let text = Diagnostics::new(source, findings).to_string();
        match expected {
            Ok(expected) => {
                assert_eq!(text, "", "{scalar}");
                assert_eq!(
                    node.get("key").unwrap().as_str(),
                    Some(expected),
                    "{scalar}"
                );
            }
            Err(expected) => assert!(text.contains(expected), "{scalar}: {text}"),
        }
    }

    #[test]
    fn texts_are_expanded() {
        for (scalar, expected) in [
            ("plain", Ok("plain")),
            ("${NAME}", Ok("acme")),
            ("$NAME", Ok("acme")),
            ("\"v${NAME}-$NAME.x\"", Ok("vacme-acme.x")),
            ("${EMPTY}x", Ok("x")),
            ("${EMPTY:-y}", Ok("y")),
            ("${NAME:-y}", Ok("acme")),
            ("${NONE:-}x", Ok("x")),
            ("${NONE:-${NAME}}", Ok("acme")),
            ("${NONE:-${OTHER:-z}}", Ok("z")),
            ("'${NONE:-{a}}'", Ok("{a}")),
            // A value is text: it is not expanded again, and it has no syntax.
            ("${_x1}", Ok("$NAME")),
            ("\"${YAML}\"", Ok("\"}\n- a: b # c")),
            // What a dollar sign may else stand before.
            ("$$NAME $$ $$$$", Ok("$NAME $ $$")),
            ("cost 5$", Ok("cost 5$")),
            ("'$1 $? $- $('", Ok("$1 $? $- $(")),
            (
                "${schema.spec.name} ${a[0]} ${} ${1}",
                Ok("${schema.spec.name} ${a[0]} ${} ${1}"),
            ),
            ("${NONE}", Err("c.yaml:1:6: the variable `NONE` is not set")),
            (
                "a $NONE b",
                Err("c.yaml:1:8: the variable `NONE` is not set"),
            ),
            ("${NAMEE}", Err("did you mean `NAME`?")),
            (
                "\"${NAME} ${OTHER:-${NONE}}\"",
                Err("c.yaml:1:24: the variable `NONE`"),
            ),
            ("'${NONE:-x'", Err("has no closing brace")),
            ("'${NAME:=x}'", Err("followed by an operator")),
            ("'${NAME^}'", Err("followed by an operator")),
        ] {
            check(scalar, expected);
        }
    }

    #[test]
    fn only_values_are_expanded_and_all_of_them() {
        let source = Source::new("c", "${NAME}: [$NAME, {a: '${NAME}'}, 1, true, ~]\n");
        let node = load(&source, &LoadOptions::default()).unwrap();
        let Expanded { node, findings, .. } = variables().expand(&source, &node);
        assert!(findings.is_empty());
        let json = node.to_json().to_string();
        assert_eq!(json, r#"{"${NAME}":["acme",{"a":"acme"},1,true,null]}"#);
    }

    #[test]
    fn unset_ones_are_empty_where_that_is_allowed() {
        let source = Source::new("c", "a: x${NONE}y\n");
        let node = load(&source, &LoadOptions::default()).unwrap();
        let Expanded { node, findings, .. } =
            Variables::new().allowing_unset(true).expand(&source, &node);
        assert!(findings.is_empty());
        assert_eq!(node.get("a").unwrap().as_str(), Some("xy"));
    }

    #[test]
    fn growth_is_bounded() {
        let mut variables = Variables::new();
        variables.set("LONG", "x".repeat(1 << 20));
        let source = Source::new("c", format!("a: {}\n", "$LONG ".repeat(100)));
        let node = load(&source, &LoadOptions::default()).unwrap();
        let findings = variables.expand(&source, &node).findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
    }

    #[test]
    fn settings_are_texts_as_they_are_written() {
        let source = Source::new(
            "s.yaml",
            "A: 1.0.0\nB: 1.10\nC: on\nD: \"x\"\nE: [1, {b: 2}]\nF:\nG: 0x10\n",
        );
        let node = load(&source, &LoadOptions::default()).unwrap();
        let mut variables = Variables::new();
        variables.add_document(&source, &node).unwrap();
        for (name, expected) in [
            ("A", "1.0.0"),
            ("B", "1.10"),
            ("C", "on"),
            ("D", "x"),
            ("E", "[1,{\"b\":2}]"),
            ("F", ""),
            ("G", "0x10"),
        ] {
            assert_eq!(variables.get(name), Some(expected), "{name}");
        }
        for text in ["- a\n", "a-b: 1\n", "1a: 1\n"] {
            let source = Source::new("s.yaml", text);
            let node = load(&source, &LoadOptions::default()).unwrap();
            assert!(variables.add_document(&source, &node).is_err(), "{text}");
        }
    }
}
