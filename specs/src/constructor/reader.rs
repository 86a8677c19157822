//! Maps read field by field: what is used is noted, so that what is left can be told.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::transfer::Word;
use crate::yaml::{Map, Member, Node, Source, Span, Value};

/// All that is wrong with a constructor, as far as it was read.
pub(super) struct Reader<'s> {
    source: &'s Source,
    pub(super) findings: Vec<Diagnostic>,
}

/// A map and where it is in the document.
pub(super) struct Fields<'n> {
    map: &'n Map,
    pub(super) span: Span,
    pub(super) path: String,
    used: BTreeSet<&'n str>,
}

impl<'n> Fields<'n> {
    /// The member below `key`: the exact spelling first, else one that differs in case only, as Go's decoder matches keys.
    pub(super) fn take(&mut self, key: &str) -> Option<&'n Member> {
        let exact = self.map.get_key_value(key);
        let (name, member) = exact.or_else(|| {
            self.map
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(key))
        })?;
        self.used.insert(name.as_str());
        Some(member)
    }

    /// The same, null counting as absent.
    pub(super) fn value(&mut self, key: &str) -> Option<&'n Node> {
        self.take(key)
            .map(|member| &member.node)
            .filter(|node| node.value != Value::Null)
    }

    /// Is there such a key?
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.keys().any(|name| name.eq_ignore_ascii_case(key))
    }

    /// The path of a field of this map.
    pub(super) fn below(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// What nobody took, in document order.
    pub(super) fn left(&self) -> Vec<(&'n str, &'n Member)> {
        let unused = self
            .map
            .iter()
            .filter(|(name, _)| !self.used.contains(name.as_str()));
        unused
            .map(|(name, member)| (name.as_str(), member))
            .collect()
    }
}

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        Self {
            source,
            findings: Vec::new(),
        }
    }

    pub(super) fn error(
        &mut self,
        span: Span,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.findings
            .push(Diagnostic::error(span, message).at_field(path));
        self.findings.last_mut().expect("it was pushed just now")
    }

    pub(super) fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.findings
            .push(Diagnostic::warning(code, span, message).at_field(path));
    }

    /// A map, or a finding.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        path: impl Into<String>,
        what: &str,
    ) -> Option<Fields<'n>> {
        let path = path.into();
        match &node.value {
            Value::Map(map) => Some(Fields {
                map,
                span: node.span,
                path,
                used: BTreeSet::new(),
            }),
            _ => {
                self.error(
                    node.span,
                    path,
                    format!("{what} is a map, this is {}", a_kind(node)),
                );
                None
            }
        }
    }

    /// The items of a list with their paths; none where it is null or absent.
    pub(super) fn list<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        key: &str,
    ) -> Vec<(String, &'n Node)> {
        let Some(node) = fields.value(key) else {
            return Vec::new();
        };
        let path = fields.below(key);
        match &node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| (format!("{path}[{at}]"), item))
                .collect(),
            _ => {
                self.error(
                    node.span,
                    path,
                    format!("`{key}` is a list, this is {}", a_kind(node)),
                );
                Vec::new()
            }
        }
    }

    /// A text; `None` where it is absent or, with a finding, where it is none.
    pub(super) fn text(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<Word> {
        let path = fields.below(key);
        let node = fields.value(key)?;
        self.as_text(node, path, key)
    }

    /// A text that must be there and say something.
    pub(super) fn needed(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<Word> {
        let path = fields.below(key);
        match fields.value(key) {
            None => {
                let message = format!("`{key}` is missing");
                self.error(fields.span, fields.path.clone(), message);
                None
            }
            Some(node) => match self.as_text(node, path.clone(), key) {
                Some(word) if word.text.is_empty() => {
                    self.error(node.span, path, format!("`{key}` is empty"));
                    None
                }
                word => word,
            },
        }
    }

    /// The text of a scalar. Go's reader would take `1.10` for the number 1.1 and `on` for true, so these are mistakes.
    pub(super) fn as_text(
        &mut self,
        node: &Node,
        path: impl Into<String>,
        key: &str,
    ) -> Option<Word> {
        if let Value::String(text) = &node.value {
            return Some(Word::new(text.clone(), node.span));
        }
        let message = format!("`{key}` is a text, this is {}", a_kind(node));
        let written = self
            .source
            .text()
            .get(node.span.start as usize..node.span.end as usize);
        let hint = match (&node.value, written) {
            (Value::Bool(_) | Value::Number(_), Some(written)) => {
                Some(format!("put it in quotes: \"{}\"", written.trim()))
            }
            _ => None,
        };
        self.error(node.span, path, message).hint = hint;
        None
    }

    /// A truth value; false where it is absent. A variable may have made it a text.
    pub(super) fn flag(&mut self, fields: &mut Fields<'_>, key: &str) -> bool {
        let path = fields.below(key);
        let Some(node) = fields.value(key) else {
            return false;
        };
        match (&node.value, node.as_str()) {
            (Value::Bool(flag), _) => *flag,
            (_, Some("true")) => true,
            (_, Some("false" | "")) => false,
            _ => {
                self.error(
                    node.span,
                    path,
                    format!("`{key}` is true or false, this is {}", a_kind(node)),
                );
                false
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, fields: &mut Fields<'_>, key: &str) -> Vec<Word> {
        let items = self.list(fields, key);
        items
            .into_iter()
            .filter_map(|(path, item)| self.as_text(item, path, key))
            .collect()
    }

    /// Tells what is left of a map that knows all of its keys.
    pub(super) fn close(&mut self, fields: &Fields<'_>, known: &[&str]) {
        for (name, member) in fields.left() {
            self.unknown(fields, name, member, known);
        }
    }

    /// What is left of a map that may have fields of others: kept as written, unless a known one was probably meant.
    pub(super) fn keep(&mut self, fields: &Fields<'_>, known: &[&str]) -> Vec<(String, Json)> {
        let mut kept = Vec::new();
        for (name, member) in fields.left() {
            if did_you_mean(name, known.iter().copied()).is_some() {
                self.unknown(fields, name, member, known);
                continue;
            }
            let message = format!("unknown field `{name}` is kept as it is");
            self.warning("W201", member.key, fields.below(name), message);
            kept.push((name.to_owned(), member.node.to_json()));
        }
        kept
    }

    fn unknown(&mut self, fields: &Fields<'_>, name: &str, member: &Member, known: &[&str]) {
        let hint = match did_you_mean(name, known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known are {}", joined(known)),
        };
        let finding = self.error(
            member.key,
            fields.path.clone(),
            format!("unknown field `{name}`"),
        );
        finding.hint = Some(hint);
    }
}

/// Names as people list them.
pub(super) fn joined(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The kind of a value with its article.
pub(super) fn a_kind(node: &Node) -> String {
    match node.kind() {
        kind @ "null" => kind.to_owned(),
        kind @ "integer" => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}
